"""More help with an exercise: its stub again, and its solution as a puzzle."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from traitlets import Dict, Int, List, Unicode, observe

from adapters_lesson.course.lesson_source import read_lesson
from adapters_lesson.course.mine.keeping import judged
from adapters_lesson.course.mine.my_file import MyFile
from adapters_lesson.course.mine.shelf import Shelf, exercises
from adapters_lesson.course.mine.taken import Notebook
from adapters_lesson.course.page import Page
from adapters_lesson.course.words import _
from adapters_lesson.data import NOTEBOOKS

_NAMED = "as the other exercises"  # a line of the file that gives an answer the name by which others call it


def _known(exercise: str) -> str:
    number = str(exercise).strip()  # 5.1, too
    if number not in exercises():
        raise ValueError(f"there is no exercise {exercise!r}: there are {', '.join(exercises())}")
    return number


def reset(exercise: str) -> None:
    """Bring an exercise's stub back: in a notebook as a new cell below this one, else printed.

    What is in mine/adapters.py stays until a new answer is correct. Raises ValueError where there is no such exercise.
    """
    number = _known(exercise).partition(".")[0].zfill(2)
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    lesson = read_lesson(path)
    (card,) = (card for card in lesson.exercises if card.number == exercise)
    begin = max((one.check or 0 for one in lesson.exercises if (one.check or 0) < (card.check or 0)), default=0)
    stubs = [c.source for c in lesson.cells[begin : card.check] if "raise NotImplementedError" in c.source]
    if not stubs:  # the learner works in the course's own folder, and has solved and saved it
        head, indent = re.findall(r"(?ms)\A(.*^( *)def (?!work|switch)\w+\(.*?:)$", exercises()[exercise].body)[0]
        stubs = [f"{head}\n{indent}    raise NotImplementedError"]
    shell = Notebook.shell()
    (print if shell is None else shell.set_next_input)(stubs[-1])


def _wrong_line(exercise: str, solution: Sequence[str]) -> list[str]:
    """A line of the learner's own last answer that is not one of the solution's."""
    name = re.findall(r"^(?:def|class) (\w+)", exercises()[exercise].body, re.MULTILINE)[-1]
    try:
        taken = Notebook.of(None).take(name, name)
    except Exception:  # it may be any code
        return []
    theirs = taken.statements[-1].splitlines() if taken.statements else []
    known = {line.strip() for line in solution}
    odd = [line for line in theirs if line.strip() and line.strip() not in known and "NotImplemented" not in line]
    return [line for line in odd if not line.lstrip().startswith(("#", "def ", "class ", '"""'))][:1]


class Puzzle(Page):
    """The lines of a solution, and perhaps one of the learner's, to be put in order; the others are laid aside."""

    _esm = Path(__file__).with_suffix(".js")
    title, about = Unicode().tag(sync=True), Unicode().tag(sync=True)
    lines: Any = List(Unicode()).tag(sync=True)  # mixed
    order: Any = List(Int()).tag(sync=True)  # the numbers of the lines that are not laid aside
    asked: Any = List(Int()).tag(sync=True)  # the order that is to be checked: meanwhile lines may be moved
    checked = Dict().tag(sync=True)  # that order, a mark for each of its lines, what is said, whether it is solved

    def __init__(self, exercise: str, solution: Sequence[str], odd: Sequence[str] = ()) -> None:
        self.exercise, self.solution = exercise, list(solution)
        mixed, draw = [*solution, *odd], random.Random(exercise)
        while mixed[: len(solution)] == self.solution:
            draw.shuffle(mixed)
        own = ["One line comes from your own answer: lay it aside if it does not belong here."] * bool(odd)
        how = "Drag them; or with the keys: arrows walk, Space picks a line up and puts it down, Delete lays it aside."
        about = " ".join(map(_, ["Put the lines in order.", *own, how]))
        super().__init__(title=_(f"Puzzle {exercise}"), about=about, lines=mixed, order=list(range(len(mixed))))

    @observe("asked")
    def _check(self, change: Any) -> None:
        lines = [self.lines[number] for number in self.asked]
        parts = SequenceMatcher(None, lines, self.solution, autojunk=False).get_matching_blocks()
        fit = {place for part in parts for place in range(part.a, part.a + part.size)}
        solved = lines == self.solution or (len(lines) == len(self.solution) and self._works(lines))
        marks = [
            "fits" if solved or place in fit else "moves" if line in self.solution else "foreign"
            for place, line in enumerate(lines)
        ]
        missing = len(self.solution) - len(marks) + marks.count("foreign")
        said = [f"{marks.count('fits')} of {len(self.solution)} lines fit together."]
        said += [f"{marks.count('moves')} in the wrong place."] * ("moves" in marks)
        said += ["A line of your own is not part of it: what would it do here?"] * ("foreign" in marks)
        said += [f"{missing} still laid aside."] * (missing > 0)
        if solved:
            other = "order than ours" if sorted(lines) == sorted(self.solution) else "line than ours"
            said = ["That is the solution." if lines == self.solution else f"Another {other}, and it works."]
        self.checked = {"order": self.asked, "marks": marks, "said": " ".join(map(_, said)), "solved": solved}

    def _works(self, lines: Sequence[str]) -> bool:
        """Whether the exercise's check finds the lines correct in this order, too."""
        section = exercises()[self.exercise]
        named = [line for line in section.body.splitlines() if _NAMED in line]
        mine = MyFile({}, {}, "", {self.exercise: replace(section, state="", body="\n".join([*lines, *named]))})
        return self.exercise not in Shelf(mine, judge=judged).why

    def still(self) -> tuple[dict[str, Any], dict[str, Any]]:
        said = _(f"{self.title}: run this cell to put the solution's lines in order.")
        return {"text/plain": said, "text/html": f"<p>{said}</p>"}, {}


def puzzle(exercise: str) -> Puzzle:
    """The lines of an exercise's solution, mixed, perhaps with one of your own answer, to be put in order.

    Raises ValueError where there is no such exercise.
    """
    section = exercises()[exercise := _known(exercise)]
    lines = [line for line in section.body.splitlines() if line.strip() and _NAMED not in line]
    return Puzzle(exercise, lines, _wrong_line(exercise, lines))
