"""Work for the learner's pieces: a job runs on them, and on the course's from where one of them fails."""

import contextlib
import copy
import ctypes
import dataclasses
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any, TypeVar

import torch

from adapters_lesson.course.words import _

from .keeping import shelf
from .my_file import parse
from .shelf import Shelf, public_name

_Result = TypeVar("_Result")
_STUCK = 60.0  # seconds in one call of a learner's piece: a sweep or a few training steps on a slow machine take less
_MANY_RIGHT = ("10.2",)  # exercises with more than one right result: it need not be the course's
# How far a right result may be from the course's, as the exercises' checks allow.
_ROUGH = {"4.3": 0.04, "4.4": 0.04, "5.2": 0.005, "7.3": 0.05}


class Fault(Exception):
    """What a learner's piece does in its job, and the number of its ``exercise``."""

    def __init__(self, exercise: str, what: str) -> None:
        super().__init__(f"your {exercise} {what}")
        self.exercise, self.what = exercise, what


class Pieces:
    """The pieces of a job, by their public names."""

    def __init__(self, shelf: Shelf, exercises: tuple[str, ...]) -> None:
        for exercise in exercises:
            name = public_name(exercise)
            piece = shelf.names[name]
            compare = exercise not in (*shelf.why, *_MANY_RIGHT) and not isinstance(piece, type)
            setattr(self, name, _compared(exercise, piece, _course().names[name]) if compare else piece)


def run(job: Callable[[Any], _Result], *exercises: str) -> _Result:
    """What ``job(my)`` returns, where ``my`` has the pieces of these exercises by their public names.

    A line says whose they are. Where one of the learner's raises, hangs or differs from the course's, a second line
    says so, and the job runs once more with the course's in its place.
    """
    without: dict[str, str] = {}
    while True:
        pieces = shelf(without)
        print(_(pieces.credit(exercises)))
        try:
            with _no_standstill(pieces):
                return job(Pieces(pieces, exercises))
        except (Exception, SystemExit) as error:
            if (fault := _fault(error, pieces, exercises)) is None or fault.exercise in without:
                raise
            print(_(f"{fault}. The course's takes over here."))
            without |= dict.fromkeys(fault.exercise.split(", "), "it failed here")


@cache
def _course() -> Shelf:
    return Shelf(parse(""))


def _compared(exercise: str, piece: Callable[..., Any], right: Callable[..., Any]) -> Callable[..., Any]:
    """The learner's function, which must give what the course's gives wherever both can be asked."""

    @wraps(piece)
    def call(*arguments: Any) -> Any:
        both = all(map(_is_plain, arguments))
        given = copy.deepcopy(arguments) if both else ()
        result = piece(*arguments)
        if both and not _alike(given, arguments):
            raise Fault(exercise, "changes what it is given")
        if both and not _alike(result, expected := right(*given), _ROUGH.get(exercise, 1e-4)):
            kind = f", a {type(result).__name__}," if _short(result) == _short(expected) else ""
            raise Fault(exercise, f"gives {_short(result)}{kind} where {_short(expected)} is right")
        if isinstance(result, float) and math.isnan(result):
            raise Fault(exercise, "gives no number, but nan")
        return result

    return call


def _is_plain(value: Any) -> bool:
    """Whether a value can be copied and computed with twice: numbers, texts, settings, tensors outside of a graph."""
    if isinstance(value, torch.Tensor):
        return not value.requires_grad
    if isinstance(value, (list, tuple, dict)):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, (bool, int, float, str)) or dataclasses.is_dataclass(value)


def _alike(a: Any, b: Any, off: float = 1e-4) -> bool:
    """Equal, numbers up to rounding, or to what they may be ``off``."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5, equal_nan=True)
    a, b = (x.tolist() if hasattr(x, "tolist") else x for x in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key], off) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_alike(x, y, off) for x, y in zip(a, b, strict=True))
    try:
        return math.isclose(a, b, rel_tol=off, abs_tol=1e-9) or bool(a != a and b != b)
    except (TypeError, OverflowError):
        return bool(a == b)


def _short(value: Any) -> str:
    try:
        text = " ".join(f"{value}".split())
    except Exception:
        text = "what cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _fault(error: BaseException, pieces: Shelf, exercises: tuple[str, ...]) -> Fault | None:
    """Which of the learner's pieces has stopped a job; None where none of them can have."""
    yours = [exercise for exercise in exercises if exercise not in pieces.why]
    if isinstance(error, Fault) or not yours:
        return error if isinstance(error, Fault) else None
    what = f"{type(error).__name__}: {_short(error)}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == str(pieces.path) and (exercise := pieces.mine.exercise_at(frame.lineno or 0)):
            return Fault(exercise, f"raised {what}{_in_line(frame)}")
    return Fault(", ".join(yours), f"stopped with {what}")


def _in_line(frame: traceback.FrameSummary) -> str:
    return f", in line {frame.lineno} of mine/adapters.py: `{(frame.line or '')[:100]}`"


@contextlib.contextmanager
def _no_standstill(pieces: Shelf) -> Iterator[None]:
    """End a call of the learner's code that does not return; a user's interrupt is left alone.

    Raises:
        Fault: where there was such a call.
    """
    here, done, stuck = threading.get_ident(), threading.Event(), list[traceback.FrameSummary]()

    def end(*_: object) -> None:
        raise _Standstill

    def watch() -> None:
        last: Any = None
        since = time.monotonic()
        while not done.wait(1.0):
            stack = [f for f, _ in traceback.walk_stack(sys._current_frames().get(here))]
            mine = [frame for frame in stack if frame.f_code.co_filename == str(pieces.path)]
            at_work = next((f for f in stack if f in mine or f.f_globals.get("__name__") == "__main__"), None)
            if at_work not in mine or mine[-1] is not last:  # a lesson's cell that a piece has called may take long
                last, since = mine[-1] if mine else None, time.monotonic()
            elif time.monotonic() - since > _STUCK:
                stuck[:] = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in mine)
                since = time.monotonic()
                if not by_signal:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(here), ctypes.py_object(_Standstill))
                elif not done.is_set():  # this wakes from sleep, too
                    signal.pthread_kill(here, signal.SIGALRM)

    by_signal = threading.current_thread() is threading.main_thread() and hasattr(signal, "pthread_kill")
    before = signal.signal(signal.SIGALRM, end) if by_signal else None
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except _Standstill:
        at, exercise = next(((f, e) for f in stuck if (e := pieces.mine.exercise_at(f.lineno or 0))), (stuck[0], "?"))
        what = f"has been at one call for {_STUCK:.0f} seconds{_in_line(at)}: it may never end"
        raise Fault(exercise, what) from None
    finally:
        done.set()
        thread.join()
        if by_signal:
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


class _Standstill(BaseException):
    """Ends a call. It is no ``Exception``, so that ``except Exception`` lets it through."""
