"""What the processes of a hub take of the machine's memory, read from /proc, so on Linux only. In bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil

KINDS = ("Rss", "Pss", "Private")


def of_process(pid: int) -> Counter[str]:
    """``Rss``: all that is in memory. ``Pss``: the same, where n processes share a page each counts 1/n of it.
    ``Private``: what no other process shares.
    """
    return _sum(Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())


def of_file(pid: int, name: str) -> Counter[str]:
    """The same for what the process has mapped of files called ``name``; ``Written``: what it holds as its own copy."""
    ours, lines = False, []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(f"/{name}")
        elif ours:
            lines.append(line)
    return _sum(lines)


def peak(pid: int) -> int:
    """The most of the machine's memory that the process has held at a time, in bytes (Rss)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, "Linux tells it of every process"
    return 1024 * int(found[1])


def _sum(lines: Iterable[str]) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in lines:
        if found := re.match(r"(Rss|Pss|Private_Clean|Private_Dirty): +(\d+) kB", line):
            kind = found[1].partition("_")[0]
            total[kind] += 1024 * int(found[2])
            if found[1] == "Private_Dirty":
                total["Written"] += 1024 * int(found[2])
    return total


def learners_processes(hub: int) -> dict[str, tuple[int, list[int]]]:
    """Name of each learner to the process of their server, and those of their kernels. ``hub`` is the hub's process."""
    found = {}
    for child in psutil.Process(hub).children():
        if name := child.environ().get("JUPYTERHUB_USER"):
            kernels = [p.pid for p in child.children(recursive=True) if "ipykernel_launcher" in p.cmdline()]
            found[name] = (child.pid, kernels)
    return found


def others(hub: int) -> list[int]:
    """The hub itself, its proxy and its services."""
    return [hub, *(p.pid for p in psutil.Process(hub).children() if "JUPYTERHUB_USER" not in p.environ())]
