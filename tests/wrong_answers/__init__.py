"""Answers that people really write: wrong ones, with words of the message that they must get, and right ones.

A module ``lessonNN`` belongs to the checks of that lesson. It holds ``WRONG``, the name of the check to a list of
``(answer, words)``, or ``(answer, words, False)`` where the message is a general one and does not name the mistake,
and ``RIGHT``, the name of the check to a list of answers.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jupytext

from adapters_lesson import checks
from adapters_lesson.checks import Report
from adapters_lesson.checks.report import CORRECT, WRONG

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CALL = re.compile(r"^checks\.(check_\w+)\((\w+)\)", re.MULTILINE)
CARD = re.compile(r"^### Exercise (\d+\.\d+) · (.+)$", re.MULTILINE)
DIFFICULTY = re.compile(r"\*\*Difficulty\*\*\s+([◆◇]{3})")
RAISED = "your code raised"  # what a message begins with where the check has only the exception to tell


class Wrong(NamedTuple):
    """A wrong answer, words of its message, and whether that message names the very mistake."""

    answer: Any
    words: str
    named: bool = True


@dataclass(frozen=True)
class Exercise:
    """A check with its collection of answers."""

    number: str
    name: str
    check: Callable[[Any], Report]
    wrong: tuple[Wrong, ...]
    right: tuple[Any, ...]

    @property
    def lesson(self) -> int:
        return int(self.number.partition(".")[0])

    @cache
    def report_of(self, kind: str, place: int) -> Report:
        """What the check says to an answer, of ``kind`` "wrong" or "right"."""
        return self.check(self.wrong[place].answer if kind == "wrong" else self.right[place])

    def refused(self) -> int:
        """How many wrong answers are called wrong."""
        return sum(self.report_of("wrong", i).status == WRONG for i in range(len(self.wrong)))

    def accepted(self) -> int:
        """How many right answers are called right."""
        return sum(self.report_of("right", i).status == CORRECT for i in range(len(self.right)))

    def named(self) -> int:
        """How many wrong answers get a message that names their very mistake."""
        reports = [self.report_of("wrong", i) for i in range(len(self.wrong))]
        return sum(
            wrong.named and r.status == WRONG and wrong.words in r.message and not r.message.startswith(RAISED)
            for wrong, r in zip(self.wrong, reports, strict=True)
        )

    def __hash__(self) -> int:
        return hash(self.number)


@cache
def exercises() -> tuple[Exercise, ...]:
    """Every exercise that has a check, in the course's order."""
    found = []
    for module in pkgutil.iter_modules(checks.__path__):
        if not re.fullmatch(r"lesson\d\d", module.name):
            continue
        looking = importlib.import_module(f"{checks.__name__}.{module.name}")
        answers = importlib.import_module(f"{__name__}.{module.name}")
        for name, check in vars(looking).items():
            if name.startswith("check_") and hasattr(check, "exercise"):
                wrong = tuple(Wrong(*entry) for entry in answers.WRONG.get(name, ()))
                found.append(Exercise(check.exercise, name, check, wrong, tuple(answers.RIGHT.get(name, ()))))
    return tuple(sorted(found, key=lambda exercise: [int(part) for part in exercise.number.split(".")]))


@dataclass(frozen=True)
class Card:
    """What a source says of an exercise, and the stub that the learner gets."""

    number: str
    title: str
    difficulty: int  # 1 to 3; 0 where the card does not say it
    check: str  # empty where no cell calls one
    variable: str  # what the check is given
    stub: str
    imports: tuple[ast.Import | ast.ImportFrom, ...]

    def answer(self) -> Any:
        """What a learner has who has run the stub and written nothing."""
        used = {node.id for node in ast.walk(ast.parse(self.stub)) if isinstance(node, ast.Name)}
        names: dict[str, Any] = {}
        for node in self.imports:
            needed = [name for name in node.names if (name.asname or name.name.partition(".")[0]) in used]
            if needed:
                copied = type(node)(**{**vars(node), "names": needed})
                exec(compile(ast.Module([copied], []), "<imports>", "exec"), names)
        exec(compile(self.stub, f"<stub of {self.number}>", "exec"), names)
        return names[self.variable]


@cache
def cards() -> tuple[Card, ...]:
    """Every card in the sources, in the course's order."""
    solution = runpy.run_path(str(NOTEBOOKS / "build.py"))["SOLUTION"]
    found = []
    for path in sorted((NOTEBOOKS / "sources").glob("[0-9]*.py")):
        cells = jupytext.read(path).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        imports = tuple(n for c in code for n in ast.parse(c).body if isinstance(n, ast.Import | ast.ImportFrom))
        for place, cell in enumerate(cells):
            card = CARD.search(cell.source) if cell.cell_type == "markdown" else None
            if card is None:
                continue
            below = next((i for i, c in enumerate(cells[place + 1 :], place + 1) if CARD.search(c.source)), len(cells))
            mine = [c.source for c in cells[place + 1 : below] if c.cell_type == "code"]
            solved = next((source + "\n" for source in mine if solution.search(source + "\n")), "")
            call = next((match.groups() for match in map(CALL.search, mine) if match), ("", ""))
            difficulty = DIFFICULTY.search(cell.source)
            level = difficulty[1].count("◆") if difficulty else 0
            stub = solution.sub(r"\1raise NotImplementedError\n", solved)
            found.append(Card(card[1], card[2].strip(), level, *call, stub, imports))
    return tuple(found)
