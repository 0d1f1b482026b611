"""How a check runs a learner's code and reports: never a raised exception, always the first thing to fix."""

from __future__ import annotations

import contextlib
import functools
import linecache
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .limit import TimeUp, Watch
from .record import note_exercise
from .surroundings import as_it_was

CORRECT, WRONG, NOT_ATTEMPTED = "correct", "wrong", "not attempted"
SECONDS = 15.0  # the checks themselves take less than two
_MARKS = {CORRECT: "✔", WRONG: "✘", NOT_ATTEMPTED: "○"}
_LONGEST = 600  # characters of a message: an exception's text may be of any length
_NOT_THE_LEARNERS = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<frozen ",
)


class Mistake(Exception):
    """What is wrong with an answer, in one sentence that names the likely mistake."""


@dataclass(frozen=True)
class Report:
    """The outcome of a check."""

    exercise: str
    status: str
    message: str

    def __repr__(self) -> str:
        return f"{_MARKS[self.status]} {self.exercise}: {self.message}"


def check(exercise: str, praise: str) -> Callable[[Callable[[Any], None]], Callable[[Any], Report]]:
    """Make a check out of a function that raises ``Mistake`` at the first thing to fix.

    The check returns a ``Report`` whatever the learner's code does, after ``SECONDS`` or, on a busy machine, four times that, leaves the kernel
    as it was, and records the outcome for ``progress()``. Its attribute ``exercise`` is the exercise's number.

    Raises:
        KeyboardInterrupt: by the check, when the user interrupts it.
    """

    def decorate(look: Callable[[Any], None]) -> Callable[[Any], Report]:
        @functools.wraps(look)
        def run(answer: Any) -> Report:
            with Watch(SECONDS) as watch, as_it_was():
                status, message = _outcome(watch, look, answer, praise)
            if status != NOT_ATTEMPTED:
                note_exercise(exercise, status == CORRECT)
            return Report(exercise, status, message if len(message) <= _LONGEST else message[:_LONGEST] + "…")

        run.exercise = exercise  # type: ignore[attr-defined]
        return run

    return decorate


def _outcome(watch: Watch, look: Callable[[Any], None], answer: Any, praise: str) -> tuple[str, str]:
    """Status and message."""
    outcome = WRONG, "your code raised what cannot even be shown"
    with contextlib.suppress(
        BaseException
    ):  # the learner's code may raise anything, and its exceptions may raise again
        outcome = watch.call(lambda: _judged(look, answer, praise))
    if watch.up:
        message = f"stopped after {watch.took:.2g} seconds{_learners_line(watch.where)}"
        return WRONG, f"{message}: most likely a loop that never ends; what should make it stop?"
    return outcome


def _judged(look: Callable[[Any], None], answer: Any, praise: str) -> tuple[str, str]:
    if not callable(answer):
        what = "None" if answer is None else f"a value of type {type(answer).__name__}"
        return (
            WRONG,
            f"the check wants what you wrote, and got {what}: give it the name alone, without brackets behind it",
        )
    try:
        look(answer)
    except TimeUp:
        raise
    except Mistake as mistake:
        return WRONG, f"{mistake}"
    except BaseException as error:
        if isinstance(error, NotImplementedError) and not error.args:  # torch gives a reason, a stub does not
            return NOT_ATTEMPTED, "not attempted yet"
        return WRONG, _learners_error(error)
    return CORRECT, praise


def require(condition: bool, message: str) -> None:
    """Raise ``Mistake`` with the message unless the condition holds."""
    if not condition:
        raise Mistake(message)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal up to rounding."""
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def _learners_error(error: BaseException) -> str:
    """The error and the learner's own line, without the frames in between."""
    try:
        text = f": {error}" if f"{error}" else ""
    except TimeUp:
        raise
    except BaseException:
        text = ", and its text cannot be shown"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return f"your code raised {type(error).__name__}{text[: _LONGEST // 2]}{_learners_line(reversed(frames))}"


def _learners_line(frames: Iterable[tuple[str, int]]) -> str:
    """The learner's own line among files and lines, innermost first, if there is one, as a part of a sentence."""
    for file, number in frames:
        if not file.startswith(_NOT_THE_LEARNERS) and (line := linecache.getline(file, number).strip()):
            return f", in your line `{line[:120]}`"
    return ""
