"""What JupyterHub starts for a learner: their copies of the lessons, a limit of memory, then the single-user server.

It runs with the learner's own rights, under every spawner. A hook of the hub would do the same with the hub's rights,
which on a machine with system users are root's: too many for writing into a folder that belongs to somebody else.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from functools import partial
from pathlib import Path

from adapters_lesson.guards.safe_files import write_atomically

LESSONS = Path(__file__).resolve().parents[2] / "notebooks"
LIVE = Path(__file__).resolve().parent / "live"


def copy_lessons(folder: Path) -> list[Path]:
    """Copy the lessons that are not in ``folder`` yet, and return the copies. What is there is the learner's own.

    Who wants a lesson anew renames or deletes the old copy, and starts the server again.
    """
    missing = [lesson for lesson in sorted(LESSONS.glob("*.ipynb")) if not os.path.lexists(folder / lesson.name)]
    for lesson in missing:
        write_atomically(folder / lesson.name, partial(shutil.copyfile, lesson))  # their mode may be read-only here
    return [folder / lesson.name for lesson in missing]


def limit_memory(most: int) -> None:
    """Let this process, and each one that it starts, take at most ``most`` bytes of its own. It cannot be undone.

    What counts are the data that a process may write (RLIMIT_DATA), used or not: not libraries, nor files that are only
    read. It is a limit for each process, so a learner with two kernels may take twice as much.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # Arrow's own would reserve a gigabyte that nobody uses


def may_share() -> list[str]:
    """The arguments with which the server has the page where its learner can share; none on a hub without live view."""
    if "ADAPTERS_LESSON_LIVE" not in os.environ:
        return []
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(LIVE), os.environ.get("PYTHONPATH")]))
    return ["--ServerApp.jpserver_extensions=adapters_lesson_live.sharing=True"]


def main() -> None:
    """Become the single-user server; its arguments are passed on."""
    if folder := os.environ.get("ADAPTERS_LESSON_NOTEBOOKS", "notebooks"):
        copy_lessons(Path.home() / folder)
    if limit := os.environ.get("MEM_LIMIT"):  # which the hub sets from Spawner.mem_limit
        limit_memory(int(limit))
    root = ["--allow-root"] if os.geteuid() == 0 else []  # as `make lab`: root is usual in a container, and only there
    os.execv(sys.executable, [sys.executable, "-m", "jupyterhub.singleuser", *root, *may_share(), *sys.argv[1:]])


if __name__ == "__main__":
    main()
