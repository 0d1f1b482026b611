"""More help with an exercise: its stub again, and its solution as a puzzle."""

import html
import random
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import ipywidgets as widgets

from adapters_lesson.course.explorers.frame import Panel, button, option_button, row
from adapters_lesson.course.lesson_source import read_lesson
from adapters_lesson.course.mine.shelf import exercises
from adapters_lesson.course.mine.taken import Notebook
from adapters_lesson.data import NOTEBOOKS


def _known(exercise: str) -> str:
    if exercise not in exercises():
        raise ValueError(f"there is no exercise {exercise!r}: there are {', '.join(exercises())}")
    return exercise


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


class Puzzle(Panel):
    """The lines of a solution, and perhaps one too many, to be put in order by pressing them one after the other."""

    def __init__(self, exercise: str, lines: Sequence[str], odd: Sequence[str] = ()) -> None:
        super().__init__(f"Puzzle {exercise}")
        self.solution, self.chosen = list(lines), list[str]()
        mixed = [*lines, *odd]
        random.Random(exercise).shuffle(mixed)
        self.picture = self
        self.lines = [option_button(line.replace(" ", "\u00a0"), partial(self.choose, line)) for line in mixed]
        for made in self.lines:
            made.style.font_family = "monospace"
        self.order = widgets.HTML()
        self.back_button = button("Take back", "Take the last line back", self.take_back)
        self.restart_button = button("Start again", "Take all lines back", self.start_again)
        too_many = " One of the lines is wrong." if odd else ""
        heading = widgets.HTML(f"<b>Puzzle {exercise}.</b> Press the lines in their order.{too_many}")
        above = row(heading, self.back_button, self.restart_button)
        self.children = [self.still, above, widgets.VBox(self.lines), self.order, self.status]
        self.start_again()

    def bundle(self, note: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """As that of a ``Picture``."""
        return {"text/plain": f"{self.title}: run this cell to put the solution's lines in order."}, {}

    def choose(self, line: str) -> None:
        """Put a line behind the others."""
        place = len(self.chosen)
        if place < len(self.solution) and line == self.solution[place]:
            self.chosen.append(line)
            self._show("that is the solution" if self.chosen == self.solution else "right: and the next?")
        elif line not in self.solution:
            self._show("that line is the wrong one: what would it do here?")
        else:
            self._show("not here: what has to be there before it?")

    def take_back(self) -> None:
        """Take the last line back."""
        self.chosen = self.chosen[:-1]
        self._show("")

    def start_again(self) -> None:
        """Take all lines back."""
        self.chosen = []
        self._show("")

    def _show(self, said: str) -> None:
        left = list(self.chosen)
        for made in self.lines:
            line = made.description.replace("\u00a0", " ")
            made.disabled = line in left
            if made.disabled:
                left.remove(line)
        code = html.escape("\n".join(self.chosen))
        self.order.value = f"<pre>{code}</pre>"
        self.say(f"{len(self.chosen)} of {len(self.solution)} lines. {said}")


def puzzle(exercise: str) -> Puzzle:
    """The lines of an exercise's solution, mixed, perhaps with a wrong one of your own, to be put in order.

    Raises ValueError where there is no such exercise.
    """
    section = exercises()[_known(exercise)]
    lines = [line for line in section.body.splitlines() if line.strip() and "as the other exercises" not in line]
    return Puzzle(exercise, lines, _wrong_line(exercise, lines))
