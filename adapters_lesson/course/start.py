"""`adapters-lesson start`: the lessons as the learner's own copies, and JupyterLab on them. It gets further options."""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from pathlib import Path

from adapters_lesson.data import NOTEBOOKS
from adapters_lesson.guards.safe_files import write_atomically

FOLDER = "adapters-lesson"
EDITIONS = ".editions.json"  # which edition of each file was handed out last: path → SHA-256
FIRST = "00_start_here.ipynb"
# What lies beside the lessons in a checkout, and is the author's. JupyterLab leaves these names out of its file list.
AUTHORS = (
    *("sources", "skeleton", "app", "figures", "quizzes", "build.py", "check.py", "claims.py", "evidence.py"),
    *("anywhere.py", "new_lesson.py", "reference.py", "messages.py", "page_texts.py", "translation.py", "course.csv"),
    *("lab-settings.json", "__pycache__", "about.py", "dates.csv", "accessible.py"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `start`. What argparse does not know goes to JupyterLab, as ``arguments.jupyter``."""
    where = f"default: {FOLDER}; in a checkout of the course its notebooks"
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help=where)
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument("--port", metavar="N", help="of JupyterLab (default: the first free one from 8888 on)")
    parser.set_defaults(jupyter=[])


def run(arguments: argparse.Namespace) -> int:
    """Copy what is missing, say what is the learner's own, and be JupyterLab until it ends. Returns the exit status."""
    default = NOTEBOOKS if is_checkout(NOTEBOOKS) else FOLDER
    folder = Path(arguments.folder or default).expanduser().absolute()
    try:
        copy_lessons(folder)
    except OSError as error:
        print(f"start: {folder} cannot hold the lessons: {error.strerror}. Name another folder.", file=sys.stderr)
        return 1
    # A lesson in a folder below, such as solutions, belongs to the same learner.
    os.environ.setdefault("ADAPTERS_LESSON_PROGRESS", str(folder / "progress.json"))
    os.environ.setdefault("ADAPTERS_LESSON_RUNS", str(folder / "runs"))
    from jupyterlab.labapp import main

    style = {"static_custom_path": [str(Path(__file__).parent / "lab_style")]}
    options = [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
    options += ["--LabApp.custom_css=True", f"--ServerApp.tornado_settings={style}"]
    options += [f"--ContentsManager.hide_globs={name}" for name in AUTHORS if is_checkout(folder)]
    options += ["--allow-root"] * (getattr(os, "geteuid", lambda: 1)() == 0)  # usual in a container, and only there
    options += ["--no-browser"] * arguments.no_browser
    options += [f"--port={arguments.port}"] * bool(arguments.port)
    main(options + arguments.jupyter)
    return 0


def is_checkout(folder: Path) -> bool:
    """Whether a folder of notebooks is that of the course's repository, where git brings new editions."""
    return (folder / "sources").is_dir() and (folder / "build.py").is_file()


def copy_lessons(folder: Path, say: Callable[[str], object] = print) -> None:
    """Copy both editions of the lessons into ``folder``; a file with any change, a new output too, stays as it is.

    A newer edition of such a file is written beside it, once, and ``say`` is told. Raises OSError.
    """
    if is_checkout(folder):
        return
    (folder / "solutions").mkdir(parents=True, exist_ok=True)
    handed_out: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):  # else every file is taken for the learner's
        before = json.loads((folder / EDITIONS).read_text(encoding="utf-8"))
        handed_out = {name: str(sha256) for name, sha256 in before.items()}
    for source in sorted([*NOTEBOOKS.glob("[0-9]*.ipynb"), *NOTEBOOKS.glob("solutions/[0-9]*.ipynb")]):
        name, newest = source.relative_to(NOTEBOOKS).as_posix(), _sha256(source)
        beside = (name.replace(".ipynb", f" (new edition{n}).ipynb") for n in chain([""], map(" {}".format, count(2))))
        # The first name that is free, or holds what the learner has not touched.
        for place in chain([name], beside):
            if not os.path.lexists(folder / place) or _sha256(folder / place) in (newest, handed_out.get(place)):
                break
        if place == name or handed_out.get(name) != newest:
            if _sha256(folder / place) != newest:  # not its mode: it may be read-only where it was installed
                write_atomically(folder / place, partial(shutil.copyfile, source))
            if place != name:
                say(f"{name} is your own now and stays as it is; the new edition is beside it: {place}")
            handed_out[name] = handed_out[place] = newest
    text = json.dumps(handed_out, indent=1)
    write_atomically(folder / EDITIONS, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _sha256(path: Path) -> str:
    """Empty for what is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
