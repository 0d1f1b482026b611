"""What a learner has done, kept in a small file of the learner's own: nothing here sends it anywhere."""

import contextlib
import datetime
import html
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from adapters_lesson.course.lesson_source import course, read_lesson
from adapters_lesson.data import NOTEBOOKS
from adapters_lesson.guards.safe_files import write_atomically

NAME = "progress.json"
VARIABLE = "ADAPTERS_LESSON_PROGRESS"
DONE, TRIED, NOT_ATTEMPTED = "done", "tried", "not attempted"
_MARKS = {DONE: "✔", TRIED: "✘", NOT_ATTEMPTED: "○"}
_WORDS = {DONE: "done", TRIED: "tried, wrong so far", NOT_ATTEMPTED: "not attempted"}
_OURS = {"course": "adapters_lesson", "version": 1}
_PATIENCE = 2.0  # seconds to wait for another kernel that writes

# By kind, what is known of each key:
#   exercises    "1.1": "done" or "tried"
#   tries        "1.1": "at" which second (since 1970) it was last checked, what was "said" if wrong, how many "times"
#   quizzes      "01": how many "right" at the first try, of how many "questions"
#   predictions  "1.2": what was "said", and once there is a result, what it "was" and whether the prediction is "right"
#   asked        a quiz's question: "right" when it was last asked, and on which "day"
#   concepts     "before" or "after" the course: as a quiz
#   active       a day: the stretches of five minutes, counted from midnight, in which something was noted
Record = dict[str, dict[str, Any]]
KINDS = ("exercises", "tries", "quizzes", "predictions", "asked", "concepts", "active")
_Lessons = dict[str, tuple[str, str, dict[str, str]]]  # by number: file, title, its exercises' titles
_NOTHING: Record = {kind: {} for kind in KINDS}
_unsaved: dict[Path, Record] = {}  # what could not be written yet


def _merged(old: Record, new: Record) -> Record:
    """What both say. Done stays done, the better score of a quiz and the first prediction count, else the newer."""
    both = {kind: old[kind] | new[kind] for kind in KINDS}
    for kind in ("exercises", "tries"):
        both[kind] |= {key: one for key, one in old[kind].items() if old["exercises"].get(key) == DONE}
    for lesson in old["quizzes"].keys() & new["quizzes"].keys():
        before, now = old["quizzes"][lesson], new["quizzes"][lesson]
        if before["questions"] == now["questions"] and before["right"] > now["right"]:
            both["quizzes"][lesson] = before
    for key in old["predictions"].keys() & new["predictions"].keys():
        before, now = old["predictions"][key], new["predictions"][key]
        both["predictions"][key] = now if now["said"] == before["said"] else before
    for day in old["active"].keys() & new["active"].keys():
        both["active"][day] = sorted({*old["active"][day], *new["active"][day]})
    return both


def file_of_progress() -> Path | None:
    """progress.json in the current folder, or what ADAPTERS_LESSON_PROGRESS says; None where that is empty."""
    name = os.environ.get(VARIABLE, NAME)
    return Path(name).expanduser().resolve() if name.strip() else None


def note(kind: str, key: str, value: Any, **others: dict[str, Any]) -> None:
    """Record something of a kind (see above). It never raises: what cannot be written is kept while the kernel runs."""
    now = datetime.datetime.now()
    active = {now.date().isoformat(): [(60 * now.hour + now.minute) // 5]}
    with contextlib.suppress(Exception):
        _save(_NOTHING | {kind: {key: value}, "active": active, **others})


def note_exercise(exercise: str, correct: bool, said: str = "", times: int = 1) -> None:
    """Record a try of an exercise ("1.1"), and of a wrong one what was ``said``, and how many ``times`` by now."""
    last = {"at": int(datetime.datetime.now().timestamp()), "said": "" if correct else said, "times": times}
    note("exercises", exercise, DONE if correct else TRIED, tries={exercise: last})


def note_quiz(lesson: str, right: int, questions: int) -> None:
    """Record a finished quiz ("01") and how many questions were right at the first try."""
    note("quizzes", lesson, {"right": right, "questions": questions})


def known() -> Record:
    """What is recorded."""
    return _save(_NOTHING)[0]


def rewrite(path: Path, make_text: Callable[[], str]) -> None:
    """Replace a file's text while no other kernel does: ``make_text`` sees what another has written before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE):
        text = make_text()
        if path.exists() and not os.access(path, os.W_OK):  # it could be replaced all the same
            raise PermissionError("it is read-only")
        write_atomically(path.resolve(), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _save(new: Record) -> tuple[Record, str]:
    """Merge into the file what is new or was left over. Returns what is known now, and what is wrong with the file."""
    if (path := file_of_progress()) is None:
        return _NOTHING, ""
    left = _unsaved[path] = _merged(_unsaved.get(path, _NOTHING), new)
    there = _NOTHING
    try:
        there = read_record(path)
        if _merged(there, left) != there:
            rewrite(path, lambda: json.dumps(_OURS | _merged(read_record(path), left), indent=1))
            there = read_record(path)
    except (ValueError, OSError, NotImplementedError) as error:  # the last where a file system knows no locks
        ours = f"Name a file in a folder of your own in {VARIABLE}"
        mend = f"It is left as it is: move it away. {ours}" if isinstance(error, ValueError) else ours
        problem = f"{getattr(error, 'strerror', None) or error}. {mend}. What you do is kept while this kernel runs."
        return _merged(there, left), f"{path.name} cannot be used: {problem}"
    del _unsaved[path]
    return there, ""


def read_record(path: Path) -> Record:
    """What a file says; nothing, where there is none. Raises ValueError where it is not ours, or OSError."""
    if not path.exists():
        return _NOTHING
    if not path.is_file():
        raise ValueError("it is no file")
    with contextlib.suppress(ValueError, RecursionError, AttributeError, KeyError, TypeError):
        content = json.loads(path.read_bytes())
        record = {kind: content.pop(kind, {}) for kind in KINDS}  # version 0.7.0 knew fewer kinds
        scores = [*record["quizzes"].values(), *record["concepts"].values()]
        whole = all({*map(type, s.values())} == {int} and 0 <= s["right"] <= s["questions"] for s in scores)
        whole = whole and set(record["exercises"].values()) <= {DONE, TRIED}
        for one in record["tries"].values():
            whole = whole and type(one["at"]) is type(one["times"]) is int and type(one["said"]) is str
        for one in record["predictions"].values():
            whole = whole and "said" in {**one} and ("right" not in one or one.keys() >= {"question", "was"})
        whole = whole and all(type(a["right"]) is bool and type(a["day"]) is str for a in record["asked"].values())
        whole = whole and all(type(n) is int for slots in record["active"].values() for n in slots)
        if whole and content == _OURS:
            return record
    raise ValueError("it was not written by this version of the course, or altered")


@dataclass(frozen=True)
class Progress:
    """A table of what is done: as text, and in a notebook as HTML that says the same."""

    heading: str
    rows: Sequence[tuple[str, ...]]  # the first names the columns
    notes: tuple[str, ...]
    links: Mapping[str, str] = field(default_factory=dict)  # where the first cell of a row, or a note, leads

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in self.rows]
        return "\n".join([self.heading, "", *lines, "", *self.notes])

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'  # no colours: those of the notebook's theme are right
        rows = ""
        for number, (first, *others) in enumerate(self.rows):
            scope, kind = ("row", "td") if number else ("col", 'th scope="col"')
            cells = "".join(f"<{kind} {left}>{_spaced(cell)}</{kind[:2]}>" for cell in others)
            rows += f'<tr><th scope="{scope}" {left}>{linked(first, self.links.get(first))}</th>{cells}</tr>'
        notes = (linked(note, self.links.get(note)) for note in self.notes)
        heading = f"<b>{html.escape(self.heading)}</b>"
        return f"<div>{heading}<table>{rows}</table><small>{'<br>'.join(notes)}</small></div>"


def _spaced(text: str) -> str:
    """As HTML that keeps the distance between what belongs together."""
    return html.escape(text).replace("  ", " &nbsp;")


def linked(text: str, link: str | None) -> str:
    """As HTML that leads where the link does, if there is one."""
    return f'<a href="{html.escape(link)}">{_spaced(text)}</a>' if link else _spaced(text)


def progress(lesson: str | None = None) -> Progress:
    """What you have done so far: of all lessons, or of one, for instance ``progress("03")``.

    A file that this course did not write is left as it is. What you do is then kept while the kernel runs, and written
    as soon as it can be. Raises ValueError where there is no such lesson, or nothing to do in it.
    """
    (record, problem), lessons = _save(_NOTHING), _lessons()
    path = file_of_progress()
    name = f"{NAME}, in the folder of this notebook" if path == Path(NAME).resolve() else str(path)
    kept = (problem or f"Kept in {name}: delete that file to begin anew.",) if path else ()
    number = lesson and str(lesson).zfill(2)
    if number is not None and number not in lessons:
        raise ValueError(f"there is nothing to do in lesson {lesson!r}; lessons with exercises: {', '.join(lessons)}")
    states = _states(lessons if number is None else {number: lessons[number]}, record)
    done = f"{list(states.values()).count(DONE)} of {len(states)} exercises"
    links = _ahead(lessons, states)
    ahead = tuple(links)
    if number is not None:
        _, title, exercises = lessons[number]
        quiz = _score(record, number) + (" at the first try" if number in record["quizzes"] else f" {NOT_ATTEMPTED}")
        said = [(f"{exercise} {exercises[exercise]}", f"{_MARKS[s]} {_WORDS[s]}") for exercise, s in states.items()]
        table = [("Exercise", "State"), *said, ("quiz", quiz)]
        return Progress(f"{number} {title}: {done} done", table, (*ahead, *kept), links)
    rows = [("Lesson", "Exercises", "Quiz")]
    for one, (file, title, exercises) in lessons.items():
        marks = "  ".join(f"{_MARKS[states[exercise]]} {exercise}" for exercise in exercises)
        links[f"{one} {title}"] = _link(path.with_name(file)) if path else ""
        rows.append((f"{one} {title}", marks, _score(record, one)))
    legend = "   ".join(f"{_MARKS[state]} {words}" for state, words in _WORDS.items())
    finished = f"{len(lessons.keys() & record['quizzes'])} of {len(lessons)} quizzes"
    notes = (*ahead, f"{legend}   (a quiz: how many right at the first try)", *_foresight(record), *kept)
    return Progress(f"Done so far: {done}, {finished}", rows, notes, links)


def ahead(exercise: str) -> tuple[str, str]:
    """What is to be done next, after this exercise, and its link; empty where all is done or nothing is kept."""
    lessons = _lessons()
    return next(iter(_ahead(lessons, _states(lessons, known()), exercise).items()), ("", ""))


def _lessons() -> _Lessons:
    lessons: _Lessons = {}
    for row in course():
        built = NOTEBOOKS / f"{row['lesson']}.ipynb"
        cards = read_lesson(built).exercises if built.is_file() else ()  # a new lesson is listed before it is built
        if cards:
            lessons[row["lesson"][:2]] = built.name, row["title"], {card.number: card.title for card in cards}
    return lessons


def _states(lessons: _Lessons, record: Record) -> dict[str, str]:
    """How far each exercise is, in their order."""
    asked = (exercise for *_, exercises in lessons.values() for exercise in exercises)
    return {exercise: record["exercises"].get(exercise, NOT_ATTEMPTED) for exercise in asked}


def _ahead(lessons: _Lessons, states: Mapping[str, str], after: str = "") -> dict[str, str]:
    """The next exercise that is not done, behind ``after`` or else from the first on, as a note, and its link."""
    later = itertools.dropwhile(lambda one: one != after, states)
    undone = next((one for one in (*later, *states) if states[one] != DONE), None)
    if undone is None or (path := file_of_progress()) is None:
        return {}
    file, _, exercises = lessons[undone.partition(".")[0].zfill(2)]
    return {f"Next: {undone} {exercises[undone]}, in {file}": _link(path.with_name(file), undone)}


def _link(lesson: Path, exercise: str = "") -> str:
    """From this notebook to a lesson, or to an exercise's card in it, if that is there."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # it is the learner's, in whatever state
        cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
        cards = [cell["id"] for cell in cells if f"### Exercise {exercise} ·" in "".join(cell["source"])]
        return quote(Path(os.path.relpath(lesson)).as_posix()) + (f"#cell-id={cards[0]}" if exercise else "")
    return ""


def _foresight(record: Record) -> tuple[str, ...]:
    """How often a prediction was right, and which result was farthest from it."""
    seen = {key: one for key, one in record["predictions"].items() if "right" in one}
    if not seen:
        return ()
    right = sum(one["right"] for one in seen.values())
    worst = max(seen, key=lambda key: (not seen[key]["right"], seen[key].get("off", 0)))
    told = f"{right} of {len(seen)} predictions were right"
    if not seen[worst]["right"]:
        one = seen[worst]
        told += f'; the greatest surprise: "{one["question"]}" You said {one["said"]}, it is {one["was"]}'
    return (told + ".",)


def _score(record: Record, lesson: str) -> str:
    score = record["quizzes"].get(lesson)
    return f"{_MARKS[DONE]} {score['right']} of {score['questions']} right" if score else _MARKS[NOT_ATTEMPTED]
