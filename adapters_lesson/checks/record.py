"""What a learner has done, kept in a small file of the learner's own: nothing leaves the machine."""

from __future__ import annotations

import contextlib
import csv
import html
import importlib
import json
import os
import pkgutil
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from ..files import write_atomically

NAME = "progress.json"
VARIABLE = "ADAPTERS_LESSON_PROGRESS"
DONE, TRIED, NOT_ATTEMPTED = "done", "tried", "not attempted"
_MARKS = {DONE: "✔", TRIED: "✘", NOT_ATTEMPTED: "○"}
_WORDS = {DONE: "done", TRIED: "tried, wrong so far", NOT_ATTEMPTED: "not attempted"}
_OURS = {"course": "adapters_lesson", "version": 1}
_NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_PATIENCE = 2.0  # seconds to wait for another kernel that writes


@dataclass(frozen=True)
class Record:
    """Exercises ("1.1": done or tried) and quizzes ("01": how many were right at the first try, of how many)."""

    exercises: dict[str, str] = field(default_factory=dict)
    quizzes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def merged(self, other: Record) -> Record:
        """What both say: done stays done, and the better score counts, unless the quiz has other questions now."""
        exercises = self.exercises | {k: v for k, v in other.exercises.items() if self.exercises.get(k) != DONE}
        quizzes = dict(self.quizzes)
        for lesson, (right, questions) in other.quizzes.items():
            before, number = quizzes.get(lesson, (0, questions))
            quizzes[lesson] = (max(right, before) if number == questions else right, questions)
        return Record(exercises, quizzes)


_unsaved: dict[Path, Record] = {}  # what could not be written yet


def file_of_progress() -> Path | None:
    """progress.json in the current folder, or what ADAPTERS_LESSON_PROGRESS says; None where that is empty."""
    name = os.environ.get(VARIABLE, NAME)
    return Path(name).expanduser().resolve() if name.strip() else None


def note_exercise(exercise: str, correct: bool) -> None:
    """Record a try of an exercise ("1.1"). It never raises: what cannot be written is kept while the kernel runs."""
    _note(Record(exercises={exercise: DONE if correct else TRIED}))


def note_quiz(lesson: str, right: int, questions: int) -> None:
    """Record a finished quiz ("01") and how many questions were right at the first try. It never raises."""
    _note(Record(quizzes={lesson: (right, questions)}))


def _note(new: Record) -> None:
    with contextlib.suppress(Exception):
        _save(new)


def _save(new: Record) -> tuple[Record, str]:
    """Merge into the file what is new or was left over. Returns what is known now, and what is wrong with the file."""
    if (path := file_of_progress()) is None:
        return Record(), ""
    left = _unsaved[path] = _unsaved.get(path, Record()).merged(new)
    there = Record()
    try:
        there = read_record(path)
        if there.merged(left) != there:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another kernel may be about to write what it has read before.
            with FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE):
                there = read_record(path).merged(left)
                _write(path, there)
    except ValueError as error:
        problem = f"{error}. It is left as it is: move it away, or name another file in {VARIABLE}"
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        problem = f"{getattr(error, 'strerror', None) or error}. Name a file in a folder of your own in {VARIABLE}"
    else:
        del _unsaved[path]
        return there, ""
    return there.merged(left), f"{path.name} cannot be used: {problem}. What you do is kept while this kernel runs."


def _write(path: Path, record: Record) -> None:
    if path.exists() and not os.access(path, os.W_OK):  # it could be replaced all the same
        raise PermissionError("it is read-only")
    quizzes = {lesson: {"right": right, "questions": number} for lesson, (right, number) in record.quizzes.items()}
    content = _OURS | {"exercises": record.exercises, "quizzes": quizzes}
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1), encoding="utf-8"))


def read_record(path: Path) -> Record:
    """What a file says; nothing, where there is none.

    Raises:
        ValueError: where it is not a file that this course has written, or was altered: what is wrong with it.
        OSError: where it cannot be read.
    """
    if not path.exists():
        return Record()
    if not path.is_file():
        raise ValueError("it is no file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(content, dict) or content.get("course") != _OURS["course"]:
        raise ValueError("it was not written by this course")
    if content.get("version") != _OURS["version"] or content.keys() != _OURS.keys() | {"exercises", "quizzes"}:
        raise ValueError("it was written by another version of this course")
    return Record(_exercises(content["exercises"]), _quizzes(content["quizzes"]))


def _exercises(entries: Any) -> dict[str, str]:
    if not isinstance(entries, dict) or not all(state in (DONE, TRIED) for state in entries.values()):
        raise ValueError(f'its exercises should each be "{DONE}" or "{TRIED}"')
    return entries


def _quizzes(entries: Any) -> dict[str, tuple[int, int]]:
    try:
        quizzes = {lesson: (entry["right"], entry["questions"]) for lesson, entry in entries.items()}
        if all(type(right) is type(n) is int and 0 <= right <= n for right, n in quizzes.values()):
            return quizzes
    except (AttributeError, KeyError, TypeError):
        pass
    raise ValueError('its quizzes should each have whole numbers "right" and "questions"')


@dataclass(frozen=True)
class Progress:
    """A table of what is done: as text, and in a notebook as HTML that says the same."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        table = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join([self.heading, "", *lines, "", *self.notes])

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'  # no colours: those of the notebook's theme are right
        head = "".join(f'<th scope="col" {left}>{html.escape(cell)}</th>' for cell in self.columns)
        rows = "".join(
            f'<tr><th scope="row" {left}>{html.escape(row[0])}</th>'
            + "".join(f"<td {left}>{_spaced(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<br>{_spaced(note)}" for note in self.notes)
        return (
            f"<div><b>{html.escape(self.heading)}</b>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<small>{notes.removeprefix('<br>')}</small></div>"
        )


def _spaced(text: str) -> str:
    """As HTML that keeps the distance between what belongs together."""
    return html.escape(text).replace("  ", " &nbsp;")


def progress(lesson: str | None = None) -> Progress:
    """What you have done so far: of all lessons, or of one, for instance ``progress("03")``.

    A file that this course did not write is left as it is. What you do is then kept while the kernel runs, and written
    as soon as it can be.

    Raises:
        ValueError: where there is no such lesson, or nothing to do in it.
    """
    record, problem = _save(Record())
    lessons = _lessons()
    if lesson is None:
        return _of_all(lessons, record, _kept(problem))
    if (number := str(lesson).zfill(2)) not in lessons:
        raise ValueError(f"there is nothing to do in lesson {lesson!r}; lessons with exercises: {', '.join(lessons)}")
    return _of_one(number, lessons[number], record, _kept(problem))


def _kept(problem: str) -> tuple[str, ...]:
    """Where the record is kept, in a sentence."""
    if (path := file_of_progress()) is None:
        return ()
    name = f"{NAME}, in the folder of this notebook" if path == Path(NAME).resolve() else str(path)
    return (problem or f"Kept in {name}: delete that file to begin anew.",)


class _Lesson(NamedTuple):
    title: str
    exercises: list[str]
    has_quiz: bool


def _lessons() -> dict[str, _Lesson]:
    """By number, the lessons in which there is something to do."""
    titles = {}
    with contextlib.suppress(OSError), (_NOTEBOOKS / "course.csv").open(encoding="utf-8", newline="") as file:
        titles = {row["lesson"][:2]: row["title"] for row in csv.DictReader(file)}
    checks = importlib.import_module(__package__)
    exercises = {}
    for module in pkgutil.iter_modules(checks.__path__, f"{__package__}."):
        if found := re.search(r"lesson(\d\d)$", module.name):
            ours = vars(importlib.import_module(module.name)).values()
            ids = {check.exercise for check in ours if hasattr(check, "exercise") and callable(check)}
            exercises[found[1]] = sorted(ids, key=lambda exercise: [int(part) for part in exercise.split(".")])
    quizzes = {path.stem for path in (_NOTEBOOKS / "quizzes").glob("[0-9][0-9].json")}
    numbers = sorted(exercises.keys() | quizzes)
    return {n: _Lesson(titles.get(n, ""), exercises.get(n, []), n in quizzes) for n in numbers}


def _of_all(lessons: dict[str, _Lesson], record: Record, kept: tuple[str, ...]) -> Progress:
    rows, states = [], []
    for number, lesson in lessons.items():
        mine = [record.exercises.get(exercise, NOT_ATTEMPTED) for exercise in lesson.exercises]
        marks = "  ".join(f"{_MARKS[state]} {e}" for state, e in zip(mine, lesson.exercises, strict=True))
        rows.append((f"{number} {lesson.title}", marks, _score(record, number) if lesson.has_quiz else ""))
        states += mine
    quizzes = [number for number, lesson in lessons.items() if lesson.has_quiz]
    finished = sum(number in record.quizzes for number in quizzes)
    heading = f"Done so far: {states.count(DONE)} of {len(states)} exercises, {finished} of {len(quizzes)} quizzes"
    legend = "   ".join(f"{_MARKS[state]} {words}" for state, words in _WORDS.items())
    notes = (f"{legend}   (a quiz: how many right at the first try)", *kept)
    return Progress(heading, ("Lesson", "Exercises", "Quiz"), tuple(rows), notes)


def _of_one(number: str, lesson: _Lesson, record: Record, kept: tuple[str, ...]) -> Progress:
    names: dict[str, str] = {}
    for source in (_NOTEBOOKS / "sources").glob(f"{number}_*.py"):
        text = source.read_text(encoding="utf-8")
        names.update(re.findall(r"^# ### Exercise (\d+\.\d+) · (.+)$", text, re.MULTILINE))
    states = [record.exercises.get(exercise, NOT_ATTEMPTED) for exercise in lesson.exercises]
    rows = [
        (f"{exercise} {names.get(exercise, '')}".strip(), f"{_MARKS[state]} {_WORDS[state]}")
        for exercise, state in zip(lesson.exercises, states, strict=True)
    ]
    if lesson.has_quiz:
        how = " at the first try" if number in record.quizzes else f" {NOT_ATTEMPTED}"
        rows.append(("quiz", _score(record, number) + how))
    heading = f"{number} {lesson.title}: {states.count(DONE)} of {len(states)} exercises done"
    return Progress(heading, ("Exercise", "State"), tuple(rows), kept)


def _score(record: Record, lesson: str) -> str:
    if lesson not in record.quizzes:
        return _MARKS[NOT_ATTEMPTED]
    right, questions = record.quizzes[lesson]
    return f"{_MARKS[DONE]} {right} of {questions} right"
