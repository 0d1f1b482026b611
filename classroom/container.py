"""A hand-in's container: by podman or Docker, with nothing in it but the course and the one hand-in.

`make assignment` copies this file beside grading.py, which uses it. `make grade` builds the image (see image.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from box import FILE, MEMORY, NOBODY, Box, copied, namespaces, try_out
from box import PROCESSES as MOST

IMAGE = "adapters-lesson-grading"
ENGINES = ("podman", "docker")  # in this order
BOXES = ("auto", *ENGINES, "namespaces", "none")
PROCESSES = 512  # and threads
CPUS = min(2, os.cpu_count() or 1)


def find_box(kind: str, root: Path, inside: Path, folder: Path, environment: dict[str, str]) -> tuple[Box, str]:
    """The box to use; an empty one where there is none, and the reason.

    Args:
        kind: one of BOXES; "auto" is the first that works.
        root: the class's folder.
        inside: the hand-in's own folder below it.
        folder: a temporary one, for a copy of that and for the kernel's files.
        environment: variables for the hand-in.
    """
    reasons = []
    environment = environment | {"JPY_PARENT_PID": "1"}  # the kernel sees none, and need not say how it is stopped
    shutil.copytree(inside, copied(folder), symlinks=True)
    for one in (*ENGINES, "namespaces") if kind == "auto" else (kind,):
        if one == "none":
            return Box(), ""
        if one == "namespaces":
            box, why_not = namespaces(root, inside, folder, environment)
        else:
            box, why_not = container(one, inside, folder, environment)
        if not why_not:
            return box, ""
        reasons.append(f"{one}: {why_not}")
    return Box(), "; ".join(reasons)


def answers(engine: str) -> str:
    """Why an engine cannot be used here, in a sentence; empty where it can."""
    if sys.platform != "linux":
        return "its containers share the kernel's files with us on Linux only"
    if not shutil.which(engine):
        return f"there is no {engine} on this machine"
    return _fails(engine, "info")


def container(engine: str, inside: Path, folder: Path, environment: dict[str, str]) -> tuple[Box, str]:
    """A container as a box, tried out; where it does not work an empty box, and the reason. For Args see find_box."""
    why_not = answers(engine)
    if not why_not and _fails(engine, "image", "inspect", IMAGE):
        why_not = "it has not the image, which make grade builds"
    if why_not:
        return Box(), why_not
    user = NOBODY if os.getuid() == 0 else None
    as_user = NOBODY if user else os.getuid()
    known = {"HOME": "/tmp", "TMPDIR": "/tmp", "OMP_NUM_THREADS": str(CPUS), **environment}
    words = (
        *(engine, "run", "--rm", "--pull=never", f"--label=hand-in={folder.name}"),
        *("--network=none", "--read-only", "--tmpfs=/tmp:rw,size=1g,mode=1777"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--security-opt=label=disable"),
        f"--user={as_user}:{NOBODY if user else os.getgid()}",
        *(("--http-proxy=false",) if engine == "podman" else ()),
        *(("--userns=keep-id",) if engine == "podman" and not user else ()),
        *(f"--memory={MEMORY}", f"--memory-swap={MEMORY}", f"--pids-limit={PROCESSES}", f"--cpus={CPUS}"),
        *(f"--ulimit=fsize={FILE}:{FILE}", "--ulimit=core=0:0", "--ulimit=nofile=1024:1024"),
        f"--ulimit=nproc={MOST}:{MOST}",
        *(f"--env={name}={value}" for name, value in known.items()),
        *(f"--mount={_mount(copied(folder), inside)}", f"--mount={_mount(folder, folder)}"),
        *(f"--workdir={inside}", IMAGE),
    )
    box = Box(words, user, "python", engine)
    why_not = try_out(box, inside, folder)
    return (Box(), why_not) if why_not else (box, "")


def _mount(path: Path, there: Path) -> str:
    """A mount; its value is a line of CSV, in which a comma and a quotation mark need more."""
    parts = [part.replace('"', '""') for part in (f"src={path}", f"dst={there}")]
    return f'type=bind,"{parts[0]}","{parts[1]}"'


def _fails(*command: str) -> str:
    """What a command says when it fails: its last line; empty where it works."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.strip().splitlines() or [f"it ends with {done.returncode}"]
    return said[-1] if done.returncode else ""
