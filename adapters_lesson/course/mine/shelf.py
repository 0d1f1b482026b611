"""All pieces of the engine in one namespace: the learner's where there is one that passes, else the course's."""

from __future__ import annotations
import __future__

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from adapters_lesson.adapter import Adapter
from adapters_lesson.course.words import _
from adapters_lesson.data import DATA

from .my_file import GIVEN, MyFile, Section, in_order, parse
from .taken import bound_names

REFERENCE = DATA / "reference" / "adapters.py"  # what a learner's file says when all solutions are typed in
NOT_ATTEMPTED = "not attempted yet"
_MODULE = "my_adapters"


@cache
def reference() -> MyFile:
    """The course's own answers."""
    return parse(REFERENCE.read_text(encoding="utf-8"))


def exercises() -> dict[str, Section]:
    """Those of the course, with its own answers."""
    return {key: section for key, section in reference().sections.items() if section.state != GIVEN}


@cache
def public_name(exercise: str) -> str:
    """What the lessons call an exercise's piece: the last name that the course's own answer gives."""
    *_, last = reference().sections[exercise].body.split("\n\n\n")
    (name,) = bound_names(last)
    return name


class Shelf:
    """The pieces by their public ``names``, and ``why`` an exercise's is the course's.

    Args:
        mine: the learner's file, which stands at ``path``.
        without: exercises whose answers are not to be used, and why.
        judge: what an exercise's check says of an answer: empty if it is right. An answer is judged here if it was
            changed by hand.
    """

    def __init__(
        self,
        mine: MyFile,
        path: Path | None = None,
        without: Mapping[str, str] | None = None,
        judge: Callable[[str, Any], str] = lambda exercise, answer: "",
    ) -> None:
        self.mine, self.path, self.judge = mine, path, judge
        self.why = dict(without or {})
        for exercise in (one for one in exercises() if one not in mine.sections):  # in their order
            self.why.setdefault(exercise, NOT_ATTEMPTED)
        self.names: dict[str, Any] = {}
        while unusable := self._build():
            self.why |= unusable
        if not hasattr(self.names["Adapter"], "count"):  # which the library's has, and an answer may have called
            self.names["Adapter"].count = staticmethod(Adapter.count)

    def _build(self) -> dict[str, str]:
        """Make all names anew. Returns an answer that cannot be used, if there is one, and why."""
        module = sys.modules[_MODULE] = ModuleType(_MODULE)  # where dataclasses look for names
        self.names = vars(module)
        for line in reference().imports.values():
            _execute(line, self.names)
        for section in in_order(reference().sections):
            _execute(section.body, self.names, REFERENCE, section.line)
        used = [s for s in in_order(self.mine.sections) if s.exercise in exercises() and s.exercise not in self.why]
        steps: list[tuple[list[Section], str, tuple[Any, ...]]] = []  # whom it concerns, what it is, its code and place
        for name, line in self.mine.imports.items():
            uses = re.compile(rf"\b{name.partition('.')[0]}\b")
            steps.append(([s for s in used if uses.search(s.body + self.mine.above)], f"`{line}`", (line,)))
        steps.append((used, "what stands above the sections", (self.mine.above,)))
        steps += [([s], "its code", (s.body, self.path or _MODULE, s.line)) for s in used]
        try:
            for concerned, what, (code, *place) in steps:  # noqa: B007
                _execute(code if concerned else "", self.names, *place)
        except (Exception, SystemExit) as error:
            return {s.exercise: f"{what} raises {type(error).__name__}: {error}" for s in concerned}
        for section in used:
            fault = "" if section.unchanged else self.fault(section.exercise)
            if fault:
                return {section.exercise: f"changed since its check, and now: {fault}"}
        return {}

    def fault(self, exercise: str) -> str:
        """What the exercise's check says of the piece as it is here; empty if it is right."""
        own = self.names["Adapter"]
        if exercise != "1.1":
            self.names["Adapter"] = Adapter  # of which the check's models are made
        try:
            return self.judge(exercise, self.names[public_name(exercise)])
        finally:
            self.names["Adapter"] = own

    def credit(self, exercises: Iterable[str]) -> str:
        """Whose pieces these are, in a line."""
        yours = [exercise for exercise in exercises if exercise not in self.why]
        reasons: dict[str, list[str]] = {}
        for exercise in exercises:
            if exercise in self.why:
                reasons.setdefault(self.why[exercise], []).append(exercise)
        ours = "; ".join(f"{', '.join(numbers)}: {_(reason)}" for reason, numbers in reasons.items())
        said = [_(f"yours ({', '.join(yours)})")] * bool(yours) + [_(f"the course's ({ours})")] * bool(ours)
        return f"Runs on {_(' and ').join(said)}."


def _execute(source: str, names: dict[str, Any], file: str | Path = "<imports>", line: int = 1) -> None:
    """Run code as the lines of a file that begin with ``line``, so that errors name the file's own lines."""
    code = compile("\n" * (line - 1) + source, str(file), "exec", flags=__future__.annotations.compiler_flag)
    exec(code, names)
