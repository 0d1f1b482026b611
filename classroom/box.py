"""Where a hand-in runs: on Linux in namespaces of its own, without a network, the class's folder and your files.

`make assignment` copies this file beside grading.py, which uses it. It needs `unshare` (util-linux), and no rights.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager

MEMORY = 6 * 2**30  # bytes of data; the largest lesson takes 2 GB
FILE = 2**28  # bytes of one file that a hand-in writes
# Mounts are the kernel's own: over the class's folder lies an empty one with the hand-in in it, all but the hand-in and
# a temporary folder can only be read, and nobody answers at /run. setpriv then gives away the right to undo it.
SCRIPT = f"""set -e
root=$1 inside=$2 folder=$3; shift 3
mkdir -p "$folder/hand-in" "$folder/home"
mount --bind "$folder" "$folder"
mount --bind "$inside" "$folder/hand-in"
mount -t tmpfs none "$root"
mkdir -p "$inside"
mount --move "$folder/hand-in" "$inside"
mount -t tmpfs none /run
findmnt --raw --noheadings --output TARGET | while read -r at; do
    at=$(printf %b "$at")
    case $at in
        "$inside" | "$folder" | /proc | /proc/*) ;;
        *) mount -o remount,bind,ro "$at" 2> "$folder/refused" || : ;;
    esac
done
cd "$inside"
export HOME="$folder/home" TMPDIR="$folder/home"
exec prlimit --data={MEMORY} --fsize={FILE} --core=0 setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
UNSHARE = "unshare --user --map-root-user --mount --net --ipc --pid --fork --mount-proc --kill-child=KILL".split()


class BoxedKernelManager(AsyncKernelManager):
    """A kernel behind a command, reached by files in its folder, since it has no network."""

    box: tuple[str, ...] = ()

    def put_into(self, box: tuple[str, ...], folder: Path) -> None:
        """Start the kernel behind this command, with its files in this folder."""
        self.box, self.transport, self.connection_file = box, "ipc", str(folder / "kernel.json")

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """The command that starts the kernel."""
        return [*self.box, *super().format_kernel_cmd(extra_arguments)]


def box(root: Path, inside: Path, folder: Path) -> tuple[tuple[str, ...], str]:
    """The words in front of a command that runs in the box, tried out; where they do not work none, and the reason.

    Args:
        root: the class's folder, which is empty there.
        inside: the hand-in's own folder below it, which is as it was.
        folder: a temporary one, for the kernel's files.
    """
    words = (*UNSHARE, "sh", "-c", SCRIPT, "box", str(root), str(inside), str(folder))
    try:
        tried = subprocess.run([*words, "true"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    return (words, "") if tried.returncode == 0 else ((), tried.stderr.strip() or f"it ends with {tried.returncode}")
