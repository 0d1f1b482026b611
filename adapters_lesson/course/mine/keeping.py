"""Keeping a correct answer: from the notebook into mine/adapters.py, beside progress.json."""

import contextlib
import datetime
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import Timeout

from adapters_lesson.course.record import file_of_progress, rewrite

from .my_file import GIVEN, MyFile, parse
from .shelf import Shelf, exercises, public_name, reference
from .taken import CannotTake, Notebook


def file_of_mine() -> Path | None:
    """mine/adapters.py beside progress.json; None where no progress is kept."""
    progress = file_of_progress()
    return progress.parent / "mine" / "adapters.py" if progress and progress != Path(os.devnull) else None


def read_mine() -> MyFile:
    """What the learner's file says; nothing, where there is none. Raises OSError where it cannot be read."""
    path = file_of_mine()
    try:
        text = path.read_text(encoding="utf-8-sig") if path and path.is_file() else ""
    except UnicodeError as error:
        raise OSError(f"it is no text in UTF-8 ({error}): save it as that, or move it away") from error
    mine = parse(text)
    for exercise in (one for one in exercises() if one not in mine.sections):
        name = public_name(exercise)
        if found := re.search(rf"^(?:(?:class|def) {name}\b|{name} *[:=][^=])", text, re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            heading = f"# --- {exercise} · {exercises()[exercise].title} · mine ---"
            raise OSError(f"{name}, in line {line}, is under no heading of its own: write `{heading}` above its code")
    return mine


def shown(exercise: str) -> str:
    """An exercise's section of the learner's file, as it stands there."""
    there = shelf().mine.sections.get(exercise)
    return f"{there.heading}\n{there.body}" if there else f"mine/adapters.py has no section {exercise} yet."


def judged(exercise: str, answer: Any) -> str:
    """What an exercise's check says of an answer, without recording it: empty if it is correct."""
    checks = importlib.import_module(f"adapters_lesson.course.checks.lesson{exercise.partition('.')[0].zfill(2)}")
    (judge,) = (check.judge for check in vars(checks).values() if getattr(check, "exercise", None) == exercise)
    return _fault(judge(answer))


def _fault(report: Any) -> str:
    return "" if report.status == "correct" else report.message


def keep(exercise: str, answer: Any, judge: Callable[[Any], Any]) -> str:
    """Put an answer that was found correct into the learner's file. Returns what is to be said about it.

    ``judge`` is the exercise's check, for what was taken out of the notebook.
    """
    if (path := file_of_mine()) is None or exercise not in exercises():
        return ""
    public, title = public_name(exercise), exercises()[exercise].title
    pieces = set(map(public_name, exercises()))
    given = [section for section in reference().sections.values() if section.state == GIVEN]
    today = datetime.date.today().isoformat()

    def put(there: MyFile) -> MyFile:
        new = there.with_answer(exercise, title, public, taken, pieces, given)
        return new._replace(sections={**new.sections, exercise: new.sections[exercise].checked(today)})

    try:
        notebook = Notebook.of(answer)
        taken = notebook.take(notebook.name_of(answer), public, getattr(judge, "__name__", ""))
        trial = Shelf(parse(put(read_mine()).text()), path, judge=lambda exercise, answer: _fault(judge(answer)))
        if fault := trial.why.get(exercise) or trial.fault(exercise):
            return f"It stays out of mine/adapters.py: taken out of the notebook it is no longer right ({fault})."
        rewrite(path, lambda: put(read_mine()).text())
    except CannotTake as reason:
        return f"It stays out of mine/adapters.py: {reason}."
    except Timeout:
        return "mine/adapters.py is being written by another notebook: check again in a moment."
    except OSError as error:
        return f"mine/adapters.py stays as it is: {getattr(error, 'strerror', None) or error}."
    except Exception as error:  # code may be written in any way; the answer is correct all the same
        return f"It stays out of mine/adapters.py: taking it out raised {type(error).__name__}: {error}."
    return f"It is {public} in mine/adapters.py now."


def shelf(without: dict[str, str] | None = None) -> Shelf:
    """The pieces as they are now. What was changed by hand and is right counts as checked from now on."""
    path = file_of_mine()
    try:
        mine = read_mine()
    except OSError as error:
        why = f"mine/adapters.py cannot be read: {getattr(error, 'strerror', None) or error}"
        return Shelf(parse(""), path, dict.fromkeys(exercises(), why) | (without or {}))
    found = Shelf(mine, path, without, judged)
    changed = [e for e, section in mine.sections.items() if e not in found.why and not section.unchanged]
    if changed and path is not None:
        marked = {s.body: s.checked(f"{datetime.date.today()}") for s in map(mine.sections.__getitem__, changed)}

        def mark(there: MyFile) -> MyFile:
            return there._replace(sections={e: marked.get(s.body, s) for e, s in there.sections.items()})

        with contextlib.suppress(OSError):  # else it is checked again the next time
            rewrite(path, lambda: mark(read_mine()).text())
    return found
