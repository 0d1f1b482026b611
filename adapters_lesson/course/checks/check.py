"""How a check runs a learner's code and reports: never a raised exception, always the first thing to fix."""

import contextlib
import functools
import html
import io
import re
import sysconfig
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters_lesson.course.mine.keeping import keep
from adapters_lesson.course.record import ahead, linked, note_exercise
from adapters_lesson.course.words import _

from .limits import TimeUp, Watch, as_it_was

CORRECT, WRONG, NOT_ATTEMPTED = "correct", "wrong", "not attempted"
SECONDS = 15.0  # the checks themselves take less than two
_MARKS = {CORRECT: "✔", WRONG: "✘", NOT_ATTEMPTED: "○"}
_LONGEST = 600  # characters of a message: an exception's text may be of any length
_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_NOT_THE_LEARNERS = (str(Path(__file__).parents[2]), *_LIBRARIES, "<frozen ")
_AGAIN = 3  # times the same mistake, and there is more help
_NUMBER = re.compile(r"\d[\d.,]*")
_made: Counter[tuple[str, str]] = Counter()  # mistakes in this kernel, by exercise and message, whatever its numbers

Numbers = Sequence[tuple[str, str, str]]


class Mistake(Exception):
    """What is wrong with an answer, in one sentence that names the likely mistake.

    ``numbers`` are for who makes it again and again: what was asked, what the answer gives, what is right.
    """

    def __init__(self, message: str, numbers: Numbers = ()) -> None:
        super().__init__(message)
        self.numbers = numbers


@dataclass(frozen=True)
class Report:
    """The outcome of a check, with what the answer ``printed``.

    There is more ``help`` with a mistake that comes again; ``ahead`` of a correct answer is what is next, and its link.
    """

    exercise: str
    status: str
    message: str
    printed: str = ""
    help: str = ""
    ahead: tuple[str, str] = ("", "")

    def __repr__(self) -> str:
        lines = [f"{_MARKS[self.status]} {self.exercise}: {_(self.message)}", _(self.help)]
        lines += [f"{_('It printed:')}\n{self.printed}"] if self.printed else []
        return "\n".join(filter(None, lines))

    def _repr_html_(self) -> str | None:
        """In a notebook, what is next is one link away."""
        said = f"<pre>{html.escape(repr(self))}</pre>"
        return f"<div>{said}<small>{linked(*self.ahead)}</small></div>" if self.ahead[1] else None


class _Beginning(io.BytesIO):
    """What an answer prints, but no more than the beginning: an endless loop may print for ever."""

    def write(self, text: Any) -> int:
        super().write(bytes(text)[: max(0, _LONGEST - self.tell())])
        return len(text)


def check(exercise: str, praise: str) -> Callable[[Callable[[Any], None]], Callable[[Any], Report]]:
    """Make a check out of a function that raises ``Mistake`` at the first thing to fix.

    The check returns a ``Report`` whatever the learner's code does but for the user's KeyboardInterrupt, within
    ``SECONDS`` (four times that on a busy machine), leaves the kernel as it was, records the outcome, and keeps a
    correct answer in the learner's library. Its ``judge(answer)`` only gives the report.
    """

    def decorate(look: Callable[[Any], None]) -> Callable[[Any], Report]:
        @functools.wraps(look)
        def judge(answer: Any) -> Report:
            report = Report(exercise, WRONG, "your code raised what cannot even be shown")
            # The learner's code may raise anything, in its exceptions' texts, too.
            with Watch(SECONDS) as watch, as_it_was(), contextlib.suppress(BaseException):
                report = watch.call(lambda: _judged(look, answer, exercise, praise))
            if watch.up:
                stopped = _in_line(f"stopped after {watch.took:.2g} seconds", watch.where)
                message = f"{stopped}: most likely a loop that never ends; what should make it stop?"
                report = Report(exercise, WRONG, message)
            return report

        @functools.wraps(look)
        def run(answer: Any) -> Report:
            report = judge(answer)
            if report.status != NOT_ATTEMPTED:
                times = _made[exercise, _NUMBER.sub("#", report.message)]
                note_exercise(exercise, report.status == CORRECT, report.message, times)
            if report.status == CORRECT:
                kept = keep(exercise, answer, judge)
                report = replace(report, message=f"{report.message} {kept}".strip(), ahead=ahead(exercise))
            return report

        run.exercise, run.judge = exercise, judge  # type: ignore[attr-defined]
        return run

    return decorate


def _judged(look: Callable[[Any], None], answer: Any, exercise: str, praise: str) -> Report:
    printed = _Beginning()
    out = io.TextIOWrapper(printed, "utf-8", "replace", write_through=True)  # closes what it writes to when it goes
    status, message = CORRECT, praise
    numbers: Numbers = ()
    try:
        if not callable(answer):
            what = "None" if answer is None else f"a value of type {type(answer).__name__}"
            raise Mistake(f"the check wants what you wrote, and got {what}: give it the name alone, without brackets")
        with contextlib.redirect_stdout(out):
            look(answer)
    except TimeUp:
        raise
    except Mistake as mistake:
        status, message, numbers = WRONG, f"{mistake}", mistake.numbers
    except BaseException as error:
        if isinstance(error, NotImplementedError) and not error.args:  # torch gives a reason, a stub does not
            return Report(exercise, NOT_ATTEMPTED, "not attempted yet")
        status, message = WRONG, what_was_raised(error)
    message = message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
    help_ = _help(exercise, message, numbers) if status == WRONG else ""
    return Report(exercise, status, message, printed.getvalue().decode("utf-8", "replace").rstrip(), help_)


def _help(exercise: str, message: str, numbers: Numbers) -> str:
    """What is said when the same mistake is made for the third time."""
    kind = exercise, _NUMBER.sub("#", message)
    _made[kind] += 1
    if _made[kind] < _AGAIN:
        return ""
    beside = [f"  {asked}: yours {yours}, right {right}" for asked, yours, right in numbers]
    puzzle = f'from adapters_lesson.course.help import puzzle; puzzle("{exercise}")'
    return "\n".join([*beside, f"  The solution's lines, to be put in order: {puzzle}"])


def require(condition: bool, message: str) -> None:
    """Raise ``Mistake`` with the message unless the condition holds."""
    if not condition:
        raise Mistake(message)


def what_was_raised(error: BaseException) -> str:
    """The error and the learner's own line, without the frames in between, and where it comes from."""
    text = ", and its text cannot be shown"
    with contextlib.suppress(Exception):
        text = f": {error}" if f"{error}" else ""
    frames = traceback.extract_tb(error.__traceback__)
    own = any(not frame.filename.startswith(_NOT_THE_LEARNERS) for frame in frames)
    what = f"{type(error).__name__}{text[: _LONGEST // 2]}"
    said = f"your code raised {what}" if own else f"the check cannot use your answer as it is, {what}"
    return _in_line(said, frames[::-1])


def _in_line(said: str, frames: Sequence[traceback.FrameSummary]) -> str:
    """What is said, with the learner's own line among frames, innermost first, if there is one."""
    own = (f.line for f in frames if f.line and not f.filename.startswith(_NOT_THE_LEARNERS))
    return next((f"{said}, in your line `{line[:120]}`" for line in own), said)
