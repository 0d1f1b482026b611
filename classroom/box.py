"""Where a hand-in runs: on Linux in namespaces of its own, without a network, the class's folder and your files.

`make assignment` copies this file beside grading.py, which uses it. It needs `unshare` and `setpriv` (util-linux), and
no rights; where the grader is root, a hand-in is nobody. A container is the other kind of box: see container.py.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jupyter_client.manager import AsyncKernelManager

MEMORY = 6 * 2**30  # bytes of data; the largest lesson takes 2 GB
FILE = 2**28  # bytes of one file that a hand-in writes
PROCESSES = 4096  # and threads; older kernels count all of the account's
NOBODY = 65534
# What a hand-in gets to know of the environment: no key that stands in yours.
KNOWN = ("PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS", "NBGRADER_EXECUTION")
UNSHARE = "unshare --mount --net --ipc --pid --fork --mount-proc --kill-child=KILL".split()
AS_YOU = ["--user", "--map-root-user"]  # more for unshare: root in there, and nothing but you outside
AS_NOBODY = f"--reuid={NOBODY} --regid={NOBODY} --clear-groups --pdeathsig=KILL"  # for setpriv
REACHES = """import os, socket, sys
socket.socket(socket.AF_UNIX).connect(sys.argv[1] + "/tried")
sys.exit(not all(os.access(path, os.W_OK) for path in sys.argv[1:]) and "it cannot write its own folders")"""


class Box(NamedTuple):
    """The words in front of a command that runs in the box, and what else is to be known of it."""

    words: tuple[str, ...] = ()
    user: int | None = None  # whose its folders have to be, where not yours
    python: str = ""  # the interpreter in there, where it is not this one
    engine: str = ""  # what made the container


class BoxedKernelManager(AsyncKernelManager):
    """A kernel in a box, reached by files in its folder, since it has no network."""

    box = Box()

    def put_into(self, box: Box, folder: Path) -> None:
        """Start the kernel in this box, with its files in this folder."""
        self.box, self.transport, self.connection_file = box, "ipc", str(folder / "kernel.json")

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """The command that starts the kernel."""
        python, *more = super().format_kernel_cmd(extra_arguments)
        if self.box.user is not None:
            os.chown(self.connection_file, self.box.user, -1)  # it is written by now, and for nobody else
        return [*self.box.words, self.box.python or python, *more]


def namespaces(root: Path, inside: Path, folder: Path, environment: dict[str, str]) -> tuple[Box, str]:
    """A box of namespaces, tried out; where none works an empty one, and the reason.

    Args:
        root: the class's folder, which is empty there.
        inside: the hand-in's own folder below it: in the box, a copy of it has this name.
        folder: a temporary one, for that copy (see copied) and the kernel's files.
        environment: variables for the hand-in.
    """
    if sys.platform != "linux":
        return Box(), "there are namespaces on Linux only"
    kinds: list[tuple[list[str], str, int | None]] = [] if os.getuid() else [([], AS_NOBODY, NOBODY)]
    for unshare, setpriv, user in [*kinds, (AS_YOU, "", None)]:
        words = (*UNSHARE, *unshare, "sh", "-c", _script(root, inside, folder, setpriv, environment), "box")
        why_not = try_out(Box(words, user), inside, folder)
        if not why_not:
            return Box(words, user), ""
    return Box(), why_not


def copied(folder: Path) -> Path:
    """Where the copy of the hand-in's folder is: what runs here must not touch what nbgrader reads and writes."""
    return folder / "hand-in"


def try_out(box: Box, inside: Path, folder: Path) -> str:
    """Why a box does not work, empty where it does: a program in it has to write its folders, and to reach us."""
    words = [*box.words, box.python or sys.executable, "-c", REACHES, str(folder), str(inside)]
    path = folder / "tried"
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(str(path))
        here.listen()
        try:
            with lent(box, folder):
                tried = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            path.unlink(missing_ok=True)
    said = tried.stderr.strip().splitlines() or [f"it ends with {tried.returncode}"]
    return said[-1] if tried.returncode else ""


@contextlib.contextmanager
def lent(box: Box, folder: Path) -> Iterator[None]:
    """Give a temporary folder, with all that is in it, to the box's user for a while; then nothing of it runs on."""
    _give(folder, box.user)
    try:
        yield
    finally:
        if box.engine:  # a container outlives the command that started it
            ps = [box.engine, "ps", "--all", "--quiet", f"--filter=label=hand-in={folder.name}"]
            if ids := subprocess.run(ps, capture_output=True, text=True, check=False).stdout.split():
                subprocess.run([box.engine, "rm", "--force", *ids], capture_output=True, check=False)
        _give(folder, None if box.user is None else os.getuid())


def _give(folder: Path, user: int | None) -> None:
    if user is not None:
        for path, below, files in os.walk(folder):  # follows no link, nor does lchown
            for name in (path, *below, *files):
                os.lchown(Path(path, name), user, -1)


def _script(root: Path, inside: Path, folder: Path, setpriv: str, environment: dict[str, str]) -> str:
    """What runs between unshare and the command.

    Mounts are the kernel's own. Over your home lies an empty folder with Python's in it, over the class's one with the
    hand-in; all but the hand-in and a temporary folder can only be read, and nobody answers at /run. setpriv then gives
    away the right to undo it.
    """
    import pwd  # not on Windows

    needed = [path for path in _needed() if root not in (path, *path.parents)]
    homes = {Path.home(), Path(pwd.getpwuid(os.getuid()).pw_dir)} - {Path("/"), *folder.parents}
    below = {
        home: [path for path in needed if home in path.parents] for home in homes if homes.isdisjoint(home.parents)
    }
    below = {home: paths for home, paths in below.items() if not any(path in (home, *home.parents) for path in needed)}
    known = {name: os.environ[name] for name in KNOWN if name in os.environ}
    known |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    known |= environment | {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/home"}
    lines = ["set -e", _line("mkdir", "-p", folder / "home", folder / "kept"), _line("mount", "--bind", folder, folder)]
    lines += [_line("chmod", "a+rwx", folder / "home")]
    kept = {path: folder / "kept" / str(number) for number, path in enumerate([inside, *needed])}
    for path, at in kept.items():
        what = copied(folder) if path == inside else path
        lines += [_line("mkdir", "-p", at), _line("mount", "--rbind", what, at)]
    for over, back in {**below, root: [inside], Path("/run"): []}.items():
        lines += [_line("mkdir", "-p", over), _line("mount", "-t", "tmpfs", "-o", "mode=755", "none", over)]
        for path in back:
            # -n, since mount would note a move in /run, where only root writes
            lines += [_line("mkdir", "-p", path), _line("mount", "-n", "--move", kept[path], path)]
    lines += [
        "findmnt --raw --noheadings --output TARGET | while read -r at; do",
        '    at=$(printf %b "$at")',
        "    case $at in",
        f"        {_line(inside)} | {_line(folder)} | /proc | /proc/*) ;;",
        f'        *) mount -o remount,bind,ro "$at" 2> {_line(folder / "refused")} || : ;;',
        "    esac",
        "done",
        _line("cd", inside),
        f"exec prlimit --data={MEMORY} --fsize={FILE} --nproc={PROCESSES} --core=0 "
        f"setpriv {setpriv} --no-new-privs --bounding-set=-all --inh-caps=-all "
        f'{_line("env", "-i", *(f"{name}={value}" for name, value in known.items()))} "$@"',
    ]
    return "\n".join(lines)


def _needed() -> list[Path]:
    """The folders of this Python, under both their names where one is a link; none below another."""
    named = {Path(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path and Path(path).is_dir()}
    both = named | {path.resolve() for path in named}
    return sorted(path for path in both if both.isdisjoint(path.parents))


def _line(*words: object) -> str:
    return shlex.join(map(str, words))
