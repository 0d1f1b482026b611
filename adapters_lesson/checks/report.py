"""How a check runs a learner's code and reports: never a raised exception, always the first thing to fix."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

CORRECT, WRONG, NOT_ATTEMPTED = "correct", "wrong", "not attempted"
_MARKS = {CORRECT: "✔", WRONG: "✘", NOT_ATTEMPTED: "○"}


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
    """Make a check out of a function that raises ``Mistake`` at the first thing to fix."""

    def decorate(look: Callable[[Any], None]) -> Callable[[Any], Report]:
        @functools.wraps(look)
        def run(answer: Any) -> Report:
            # The learner's prints would bury the report, and the course's random numbers are not the check's to spend.
            with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                try:
                    look(answer)
                except NotImplementedError:
                    return Report(exercise, NOT_ATTEMPTED, "not attempted yet")
                except Mistake as mistake:
                    return Report(exercise, WRONG, str(mistake))
                except Exception as error:
                    return Report(exercise, WRONG, _learners_error(error, answer))
            return Report(exercise, CORRECT, praise)

        return run

    return decorate


def require(condition: bool, message: str) -> None:
    """Raise ``Mistake`` with the message unless the condition holds."""
    if not condition:
        raise Mistake(message)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal up to rounding."""
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def _learners_error(error: Exception, answer: Any) -> str:
    """The error and the learner's own line, without the frames in between."""
    where = ""
    with contextlib.suppress(TypeError, OSError):
        file = inspect.getsourcefile(answer)
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == file:
                line = linecache.getline(frame.filename, frame.lineno or 0).strip()
                where = f", in your line `{line}`"
    return f"your code raised {type(error).__name__}: {error}{where}"
