"""How many learners a machine carries: `python classroom/hub/load_test.py` drives 20 of them through lesson 01.

They come at once: each logs in by the hub's form, starts a server, opens the lesson, runs all its cells one by one and
saves it. Then each holds all of MiniLM, to see whether its weights are shared. With `--each-lesson` one learner goes
through all lessons instead, to see what each needs. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import memory
from learner import Kernel, Learner
from trial import INSTALL, PROXY, Hub, trial_hub

from adapters_lesson.data import minilm_folder
from adapters_lesson.guards.safe_files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "data" / "results"
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
WEIGHTS = "model.safetensors"
HOLD_MINILM = """
from adapters_lesson.transformer import SmallTransformer

minilm = SmallTransformer.from_minilm(6)
sum(parameter.sum().item() for parameter in minilm.parameters())  # reads all of it
"""
PACKAGES = ("adapters-lesson", "jupyterhub", "jupyterlab", "jupyter_server", "ipykernel", "torch")


@dataclass
class Visit:
    """A learner's way through a lesson: seconds by step, the cells' sources and seconds, why it failed (or "")."""

    name: str
    steps: dict[str, float] = field(default_factory=dict)
    cells: list[tuple[str, float]] = field(default_factory=list)
    failed: str = ""
    learner: Learner | None = None
    kernel: Kernel | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note the seconds of what is done within."""
        began = time.perf_counter()
        yield
        self.steps[name] = time.perf_counter() - began


def visit(hub: Hub, name: str, lesson: str) -> Visit:
    """Drive one learner through a lesson; what goes wrong is noted, not raised."""
    seen, path = Visit(name), f"notebooks/{lesson}.ipynb"
    try:
        with seen.step("log in"):
            seen.learner = hub.learner(name)
        with seen.step("start the server"):
            seen.learner.spawn()
        with seen.step("open the lesson"):
            notebook = seen.learner.open(path)
        with seen.step("start the kernel"):
            seen.kernel = seen.learner.start_kernel(path)
            seen.kernel.run("")
        with seen.step("run all"):
            run_all(seen, notebook)
        with seen.step("save"):
            seen.learner.save(path, notebook)
    except Exception as error:
        seen.failed = f"{type(error).__name__}: {error}"
    return seen


def run_all(seen: Visit, notebook: dict[str, Any]) -> None:
    """Run all code cells of a notebook, and put their outputs into it.

    Raises:
        RuntimeError: at the first cell that raises, or says something on stderr.
    """
    assert seen.kernel
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or not source.strip():
            continue
        ran = seen.kernel.run(source)
        if ran.complaints:
            said = ran.complaints[0].strip().splitlines()[-1]
            raise RuntimeError(f"{said} in the cell that begins with {first_line(source)!r}")
        cell["outputs"], cell["execution_count"] = ran.outputs, ran.execution_count
        seen.cells.append((source, ran.seconds))


def hold_minilm(seen: Visit) -> None:
    """Let the learner's kernel load MiniLM, read all of it and keep it."""
    if seen.kernel and not seen.failed and (complaints := seen.kernel.run(HOLD_MINILM).complaints):
        seen.failed = complaints[0]


def first_line(source: str) -> str:
    """The first line of a cell that is code."""
    return next((line for line in source.splitlines() if line and not line.startswith("#")), source)[:100]


def spread(values: Iterable[float], digits: int = 2) -> dict[str, float]:
    """Median and worst of some numbers."""
    values = list(values) or [float("nan")]
    return {"median": round(median(values), digits), "worst": round(max(values), digits)}


def in_mb(counted: Iterable[Counter[str]], kinds: Iterable[str] = memory.KINDS) -> dict[str, dict[str, float]]:
    """Median and worst megabytes of each kind."""
    counted = list(counted)
    return {kind: spread((one[kind] / 1e6 for one in counted), 1) for kind in kinds}


def measure_memory(hub: int) -> dict[str, Any]:
    """Megabytes of the learners' processes, of MiniLM's weights in their kernels, and of everything together."""
    learners = memory.learners_processes(hub).values()
    servers = [memory.of_process(server) for server, _ in learners]
    kernels = [memory.of_process(kernel) for _, started in learners for kernel in started]
    rest = sum((memory.of_process(pid) for pid in memory.others(hub)), Counter[str]())
    everyone = sum((*servers, *kernels), Counter[str]())
    return {
        "server": in_mb(servers),
        "kernel": in_mb(kernels),
        "weights": in_mb(
            (memory.of_file(kernel, WEIGHTS) for _, started in learners for kernel in started),
            (*memory.KINDS, "Written"),
        ),
        "a learner's share": {kind: round(everyone[kind] / 1e6 / len(learners), 1) for kind in memory.KINDS},
        "hub, proxy, culler": {kind: round(rest[kind] / 1e6, 1) for kind in memory.KINDS},
        "everything, Pss": round((everyone["Pss"] + rest["Pss"]) / 1e6, 1),
    }


def about(command: str) -> dict[str, Any]:
    """What a reader of the numbers has to know."""
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}},
    }


def run_class(number: int, lesson: str) -> dict[str, Any]:
    """So many learners at once through one lesson."""
    names = [f"learner{i:02}" for i in range(1, number + 1)]
    with tempfile.TemporaryDirectory() as folder, trial_hub(Path(folder), number) as hub:
        began = time.perf_counter()
        with ThreadPoolExecutor(number) as pool:
            visits = list(pool.map(lambda name: visit(hub, name, lesson), names))
            seconds = time.perf_counter() - began
            after = measure_memory(hub.pid)
            list(pool.map(hold_minilm, visits))
        holding = measure_memory(hub.pid)
    done = [seen for seen in visits if not seen.failed]
    steps = list(done[0].steps) if done else []
    rows = zip(*(seen.cells for seen in done), strict=True)
    return {
        **about("python classroom/hub/load_test.py --write"),
        "lesson": lesson,
        "learners": number,
        "finished": len(done),
        "failed": {seen.name: seen.failed for seen in visits if seen.failed},
        "seconds": {"everything": round(seconds, 1), **{s: spread(seen.steps[s] for seen in done) for s in steps}},
        "cells": [{"cell": first_line(row[0][0]), **spread(seconds for _, seconds in row)} for row in rows],
        "memory_mb": {"after the lesson": after, "each with all of MiniLM": holding},
        "weights_file_mb": round((minilm_folder() / WEIGHTS).stat().st_size / 1e6, 1),
    }


def report_class(results: dict[str, Any]) -> Iterator[str]:
    """The results of ``run_class``, to read."""
    seconds, mb = results["seconds"], results["memory_mb"]
    after, holding = mb["after the lesson"], mb["each with all of MiniLM"]
    yield (
        f"{results['finished']} of {results['learners']} learners finished {results['lesson']} on "
        f"{results['cores']} cores, the last of them after {seconds['everything']:g} s"
    )
    for name, why in results["failed"].items():
        yield f"FAILED: {name}: {why}"
    yield f"{'seconds':34}{'median':>10}{'worst':>10}"
    for step, both in list(seconds.items())[1:]:
        yield f"  {step:32}{both['median']:10.2f}{both['worst']:10.2f}"
    if results["cells"]:
        slowest = max(results["cells"], key=lambda row: row["worst"])
        yield f"  {'the slowest cell':32}{slowest['median']:10.2f}{slowest['worst']:10.2f}  {slowest['cell']}"
    yield f"{'MB, median of the learners':34}" + "".join(f"{kind:>10}" for kind in memory.KINDS)
    rows = {"server": after["server"], "kernel": after["kernel"], "kernel that holds MiniLM": holding["kernel"]}
    for name, row in {**rows, "of which MiniLM's weights": holding["weights"]}.items():
        yield f"  {name:32}" + "".join(f"{row[kind]['median']:10.1f}" for kind in memory.KINDS)
    for name, row in {"": after, ", holding MiniLM": holding}.items():
        share = row["a learner's share"]
        yield f"  {'learner' + name + ' (mean)':32}" + "".join(f"{share[kind]:10.1f}" for kind in memory.KINDS)
    rest, everything = after["hub, proxy, culler"]["Pss"], holding["everything, Pss"]
    yield f"hub, proxy and culler take {rest:g} MB (Pss), everything together {everything:g} MB"
    copies = holding["weights"]["Written"]["worst"]
    yield f"MiniLM's file has {results['weights_file_mb']:g} MB, of which no kernel has copied more than {copies:g} MB"


def run_each_lesson(lessons: list[str]) -> dict[str, Any]:
    """One learner through the ``lessons``, each in a kernel of its own, with the hub's limit of memory."""
    results = about("python classroom/hub/load_test.py --each-lesson --write") | {"failed": {}, "lessons": {}}
    with tempfile.TemporaryDirectory() as folder, trial_hub(Path(folder), 1) as hub:
        for lesson in lessons:
            print(lesson, "...", file=sys.stderr)
            seen = visit(hub, "learner01", lesson)
            if seen.failed:
                results["failed"][lesson] = seen.failed
            if seen.learner and seen.kernel:
                _, (kernel,) = memory.learners_processes(hub.pid)["learner01"]
                peak, seconds = memory.peak(kernel) / 1e6, sum(seconds for _, seconds in seen.cells)
                results["lessons"][lesson] = {"kernel_peak_mb": round(peak, 1), "seconds": round(seconds, 1)}
                seen.learner.api("DELETE", f"kernels/{seen.kernel.id}")
    return results


def report_each_lesson(results: dict[str, Any]) -> Iterator[str]:
    """The results of ``run_each_lesson``, to read."""
    yield f"{'one learner, 1 thread':34}{'MB at most':>12}{'seconds':>10}"
    for lesson, row in results["lessons"].items():
        yield f"  {lesson:32}{row['kernel_peak_mb']:12.0f}{row['seconds']:10.0f}"
    for lesson, why in results["failed"].items():
        yield f"FAILED: {lesson}: {why}"


def main() -> int:
    """Measure, print, write; 1 where a learner failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--lesson", default=LESSONS[1], choices=LESSONS, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--each-lesson", nargs="*", choices=LESSONS, metavar="NAME", help="one learner through these lessons, or all"
    )
    parser.add_argument("--cores", type=int, default=2, help="cores for everything together (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the result in data/results")
    arguments = parser.parse_args()
    if not PROXY.exists():
        parser.error(INSTALL)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])  # for all that is started from here
    if arguments.each_lesson is not None:
        name, results, report = (
            "hub_lessons.json",
            run_each_lesson(arguments.each_lesson or LESSONS),
            report_each_lesson,
        )
    else:
        name, results, report = "hub_load.json", run_class(arguments.learners, arguments.lesson), report_class
    print(*report(results), sep="\n")
    if arguments.write and arguments.each_lesson and (RESULTS / name).exists():  # some lessons anew
        results["lessons"] = json.loads((RESULTS / name).read_text())["lessons"] | results["lessons"]
    if arguments.write:
        write_atomically(RESULTS / name, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))
    return int(bool(results["failed"]))


if __name__ == "__main__":
    sys.exit(main())
