"""The image of a hand-in's container, built from the course's wheel: `make grade` calls this, once for a version.

Building takes the network, for Python and its packages; grading takes none.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from assignment import HERE
from container import ENGINES, IMAGE, answers

LABEL = "adapters-lesson"  # what the image was built from


def provide(kind: str, base: str = "") -> str:
    """Have the engine of a kind of box make the image, unless it has it; for "auto" the first engine that works.

    Args:
        kind: one of container.BOXES.
        base: another image to start from, which has Python and pip.

    Returns:
        A sentence: why no container can be used, or empty.
    """
    engines = [one for one in ENGINES if kind in ("auto", one)]
    reasons = {engine: answers(engine) for engine in engines}
    working = [engine for engine, why_not in reasons.items() if not why_not]
    if not working:
        there = {engine: why_not for engine, why_not in reasons.items() if kind == engine or shutil.which(engine)}
        return "; ".join(f"{engine}: {why_not}" for engine, why_not in there.items())
    with tempfile.TemporaryDirectory() as folder:
        return build(working[0], Path(folder), base)


def wheel_of_the_course(folder: Path) -> Path:
    """Build the wheel in a folder.

    Raises:
        ValueError: where that fails, with what is said.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder.resolve())]
    made = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    if made.returncode:
        raise ValueError(f"the course's wheel could not be built: {made.stderr.strip()}")
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def build(engine: str, context: Path, base: str) -> str:
    """Build the image in an empty folder, unless it is there for this version; why that failed, or empty."""
    try:
        wheel_of_the_course(context)
    except ValueError as error:
        return str(error)
    for path in (HERE / "Containerfile", HERE.parent / "requirements.lock"):
        shutil.copy2(path, context)
    files = sorted(context.iterdir())
    digest = hashlib.sha256(base.encode() + b"".join(path.read_bytes() for path in files)).hexdigest()
    label = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    there = subprocess.run(
        [engine, "image", "inspect", "--format", label, IMAGE], capture_output=True, text=True, check=False
    )
    if there.stdout.strip() == digest:
        return ""
    print(f"{engine} builds the image for the hand-ins, once for this version of the course: some minutes ...")
    command = [engine, "build", "--quiet", f"--tag={IMAGE}", f"--label={LABEL}={digest}"]
    command += [f"--file={context / 'Containerfile'}", *([f"--build-arg=BASE={base}"] if base else []), str(context)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    prune = [engine, "image", "prune", "--force", f"--filter=label={LABEL}"]  # that of the version before
    subprocess.run(prune, capture_output=True, check=False)
    said = done.stderr.strip().splitlines() or [f"it ends with {done.returncode}"]
    return f"{engine} could not build the image: {said[-1]}" if done.returncode else ""
