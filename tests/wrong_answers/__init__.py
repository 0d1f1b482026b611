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
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from adapters_lesson.course import checks, lesson_source
from adapters_lesson.course.checks import Report
from adapters_lesson.course.checks.check import CORRECT, WRONG
from adapters_lesson.course.lesson_source import Cell, Lesson
from adapters_lesson.data import NOTEBOOKS

RAISED = "your code raised"  # what a message begins with where the check has only the exception to tell, the learner's
UNNAMED = (RAISED, "the check cannot use your answer")  # or its own


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
            wrong.named and r.status == WRONG and wrong.words in r.message and not r.message.startswith(UNNAMED)
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
    """What a source says of an exercise."""

    lesson: Lesson
    exercise: lesson_source.Exercise

    def __str__(self) -> str:
        return self.exercise.number

    @property
    def cell(self) -> Cell:
        """The cell that calls the check."""
        assert self.exercise.check, f"exercise {self.exercise.number} has no check"
        return self.lesson.cells[self.exercise.check]

    @property
    def solved(self) -> str:
        """The code of the answer, with the lines that mark it."""
        return "\n".join(self.lesson.cells[place].source for place in self.exercise.answers)

    def answer(self) -> Any:
        """What a learner has who has run the stub and written nothing."""
        stub = self.lesson.cells[self.exercise.answers[0]].stub
        names = self.namespace(stub)
        exec(compile(stub, f"<stub of {self}>", "exec"), names)
        return names[self.cell.check[1]]

    def namespace(self, code: str) -> dict[str, Any]:
        """Those of the lesson's imports that the code uses; the rest would take long."""
        used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        names: dict[str, Any] = {}
        for cell in self.lesson.cells:
            for node in ast.parse(cell.source).body if cell.kind == "code" else ():
                if isinstance(node, ast.Import | ast.ImportFrom):
                    node.names = [name for name in node.names if (name.asname or name.name.partition(".")[0]) in used]
                    if node.names:
                        exec(compile(ast.Module([node], []), "<imports>", "exec"), names)
        return names


@cache
def cards() -> tuple[Card, ...]:
    """Every card in the sources, in the course's order."""
    lessons = [lesson_source.read_lesson(path) for path in sorted((NOTEBOOKS / "sources").glob("[0-9]*.py"))]
    return tuple(Card(lesson, exercise) for lesson in lessons for exercise in lesson.exercises)
