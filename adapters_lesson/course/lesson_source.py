"""A lesson's source, read in one place for all that need a part of it: cells, minutes, exercises, hidden tests."""

import csv
import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from adapters_lesson.data import NOTEBOOKS

SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION\n?", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"\s*<!-- *(.*?) *-->", re.DOTALL)  # what a sentence claims: see notebooks/claims.py
HIDDEN = re.compile(r"\n*^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
CARD = re.compile(r"^### Exercise (\d+\.\d+) · (.+?)\s*$", re.MULTILINE)
DIFFICULTY = re.compile(r"\*\*Difficulty\*\* (?=[◆◇]{3} )(◆+)◇* · \*\*(\d+) minutes?\*\*( · optional)?")
CHECK = re.compile(r"^checks\.(check_\w+)\((\w+)\)\Z", re.MULTILINE)
WIDGET = re.compile(
    r"^(?:(?:quiz|review|concept_test|prediction|\w+_explorer|guided_experiments|Playground)\(|laboratory$)",
    re.MULTILINE,
)

# What a notebook says of its language; without these, nbconvert makes no .py of it, but a .txt.
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "nbconvert_exporter": "python"}


class Cell(NamedTuple):
    """A cell's ``kind``, "markdown" or "code", its ``source``, and whether it is ``folded`` to what it shows."""

    kind: str
    source: str
    folded: bool = False

    @property
    def hidden(self) -> str:
        """The hidden tests with the lines that mark them; empty where there are none."""
        return "".join(HIDDEN.findall(self.source + "\n")).strip("\n")

    @property
    def shown(self) -> str:
        """Everything but the hidden tests."""
        return HIDDEN.sub("\n", self.source + "\n").strip("\n")

    @property
    def solutions(self) -> list[str]:
        """What the learner has to write, each piece without its indentation."""
        return [dedent(found[2]) for found in SOLUTION.finditer(self.source + "\n")]

    @property
    def stub(self) -> str:
        """The code that the learner gets."""
        return SOLUTION.sub(r"\1# your code here\n\1raise NotImplementedError\n", self.shown + "\n").strip("\n")

    @property
    def check(self) -> tuple[str, str]:
        """The names of the check that the last line calls, and of what it is given; empty where it calls none."""
        return (CHECK.findall(self.shown) or [("", "")])[0]


class Exercise(NamedTuple):
    """What a card says, and the places of its cells. Difficulty and minutes are 0 where the card does not say them."""

    number: str  # for instance "1.3"
    title: str
    card: str
    difficulty: int
    minutes: int
    optional: bool
    answers: tuple[int, ...]  # the cells that have solutions
    check: int | None  # the cell that calls the check, and has the hidden tests


@dataclass(frozen=True)
class Lesson:
    """A lesson by its ``name``, for instance "01_the_bottleneck", and its ``cells``."""

    name: str
    cells: tuple[Cell, ...]

    @cached_property
    def text(self) -> str:
        """All Markdown."""
        return "\n\n".join(cell.source for cell in self.cells if cell.kind == "markdown")

    @cached_property
    def exercises(self) -> tuple[Exercise, ...]:
        """In their order. An exercise's cells are those between its card and the next."""
        cards = [n for n, cell in enumerate(self.cells) if cell.kind == "markdown" and CARD.search(cell.source)]
        found = []
        for start, end in pairwise([*cards, len(self.cells)]):
            code = [n for n in range(start, end) if self.cells[n].kind == "code"]
            check = next((n for n in code if self.cells[n].check[0]), None)
            answers = tuple(n for n in code if self.cells[n].solutions and (check is None or n < check))
            _, number, title, text = CARD.split(self.cells[start].source, maxsplit=1)
            card = " ".join(text.split())  # a line may break anywhere
            how, minutes, optional = (DIFFICULTY.findall(card) or [("", 0, "")])[0]
            found.append(Exercise(number, title, card, len(how), int(minutes), bool(optional), answers, check))
        return tuple(found)


def read_lesson(path: Path, marks: bool = False) -> Lesson:
    """A lesson from its source, or from a built notebook, which has its cards but no hidden tests and no ``marks``."""
    if path.suffix == ".ipynb":  # what a learner has, without jupytext
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return Lesson(path.stem, tuple(Cell(cell["cell_type"], "".join(cell["source"])) for cell in cells))
    import jupytext

    read = jupytext.read(path).cells  # "# %% folded=true" folds its code
    cells = [Cell(cell.cell_type, cell.source, cell.metadata.get("folded", False)) for cell in read]
    if not marks:
        cells = [c if c.kind == "code" else Cell(c.kind, MARK.sub("", c.source)) for c in cells]
    return Lesson(path.stem, tuple(cells))


def course(notebooks: Path = NOTEBOOKS) -> list[dict[str, str]]:
    """The rows of course.csv: lesson, title, question, minutes, the lessons it builds on, and the exercises it uses."""
    return list(csv.DictReader((notebooks / "course.csv").read_text(encoding="utf-8").splitlines()))
