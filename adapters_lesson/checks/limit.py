"""A time limit for a learner's code, so that a loop that never ends does end, and the user's own interrupt gets through."""

from __future__ import annotations

import ctypes
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_AGAIN = 0.1  # seconds until the next attempt, where the code has caught what should have ended it
_PATIENCE = 4  # times the limit, for code that waits: it may be for a busy machine, which one cannot tell from sleep


class TimeUp(BaseException):
    """Ends code that takes too long. It is no ``Exception``, so that ``except Exception`` lets it through."""


class Watch:
    """Lets functions run until ``seconds`` are over, and knows the user's interrupt from one that the code raises.

    On a busy machine, such as a class's, code that has had less than half of the time for itself gets up to four times
    as long.

    On the main thread a timer's signal ends them; where there is none (Windows), a thread sends an interrupt; on other
    threads one raises in them. Whoever catches everything (``except:``) is told again and again. What cannot be ended,
    here or by the user, is a single call that never comes back from C, such as ``sum(itertools.count())``.

    Attributes:
        up: whether time was up.
        took: after how many seconds.
        where: the file and line of each frame when time was up, innermost first.

    Raises:
        KeyboardInterrupt: at the end of the ``with`` block, when the user asked for it, whatever the code did with it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.up = False
        self.took = 0.0
        self.where: list[tuple[str, int]] = []
        self._interrupted = False
        self._idle = True
        self._attempts = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], _Result]) -> _Result:
        """What ``work()`` returns. The limit holds here, and only here.

        Raises:
            TimeUp: when it was ended, by the limit or by the user.
        """
        self._idle = False
        try:
            if self._interrupted:
                raise TimeUp
            return work()
        finally:
            self._idle = True
            self._take_back()

    def __enter__(self) -> Watch:
        self._ident = threading.get_ident()
        self._tracer = sys.gettrace()
        self._began, self._worked = time.monotonic(), self._work()
        self._interrupt: Any = None
        self._alarm = False
        if threading.current_thread() is threading.main_thread():
            self._interrupt = signal.getsignal(signal.SIGINT)
            self._alarm = hasattr(signal, "setitimer")
        if callable(self._interrupt):
            signal.signal(signal.SIGINT, self._on_interrupt)
        if self._alarm:
            self._old_handler = signal.signal(signal.SIGALRM, self._on_alarm)
            self._old_timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, _AGAIN)
        else:
            self._done = threading.Event()
            self._thread = threading.Thread(target=self._wait, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._idle = True
        if self._alarm:
            delay, interval = self._old_timer
            left = max(delay - (time.monotonic() - self._began), 0.001) if delay else 0
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._old_handler or signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
        elif self._thread is not None:
            self._done.set()
            self._thread.join(timeout=1.0)
        if self._attempts > 1:
            sys.settrace(self._tracer)
        if callable(self._interrupt):
            signal.signal(signal.SIGINT, self._interrupt)
        if self._interrupted:
            raise KeyboardInterrupt

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        if not self._idle and (self._interrupted or self._over()):
            if not self._interrupted:
                self._note(frame)
            self._end(frame)

    def _over(self) -> bool:
        """Whether time is up: the first call comes after ``seconds``."""
        took = time.monotonic() - self._began
        return self.up or took >= _PATIENCE * self.seconds or self._work() - self._worked >= self.seconds / 2

    def _work(self) -> float:
        """Seconds that the watched thread has worked; where the system does not tell (Windows), that have passed."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return time.monotonic()
        return time.clock_gettime(time.pthread_getcpuclockid(self._ident))

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.up and self._thread is not None:  # it is the thread that asks
            if not self._idle:
                self._end(frame)
            return
        try:
            self._interrupt(signum, frame)
        except KeyboardInterrupt:
            self._interrupted = True
            if self._alarm:
                signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
            if not self._idle:
                self._end(frame)

    def _wait(self) -> None:
        """The thread that ends the code where there is no timer for it."""
        seconds = self.seconds
        while not self._done.wait(seconds):
            seconds = _AGAIN
            with self._lock:
                if self._idle or not self._over():
                    continue
                self._note(sys._current_frames().get(self._ident))
                if callable(self._interrupt):
                    signal.raise_signal(signal.SIGINT)
                else:
                    self._raise_there(ctypes.py_object(TimeUp))

    def _take_back(self) -> None:
        """What the thread has raised, and has not arrived yet, would arrive in the middle of something else."""
        if self._thread is not None and not callable(self._interrupt):
            with self._lock:
                self._raise_there(None)

    def _raise_there(self, exception: Any) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), exception)

    def _note(self, frame: FrameType | None) -> None:
        if not self.up:
            self.up = True
            self.took = time.monotonic() - self._began
            self.where = [(f.f_code.co_filename, line) for f, line in self._frames(frame)]

    def _frames(self, frame: FrameType | None) -> list[tuple[FrameType, int]]:
        """The frames above ``call``, innermost first."""
        frames = []
        for f, line in traceback.walk_stack(frame):
            if f.f_code is Watch.call.__code__:
                break
            frames.append((f, line))
        return frames

    def _end(self, frame: FrameType | None) -> None:
        self._attempts += 1
        if self._attempts > 1:
            # The code has caught it. A signal always arrives at the same few places, for instance inside of `try`, but
            # a trace function can raise in any line, and in a loop some line is not inside.
            trace = self._raise_in_a_later_line(int(2 ** random.Random().uniform(0, 5)))
            for f, _ in self._frames(frame):
                f.f_trace = trace
            sys.settrace(trace)
        raise TimeUp

    def _raise_in_a_later_line(self, lines: int) -> Callable[..., Any]:
        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal lines
            if self._idle:
                return None
            lines -= event == "line"
            if lines < 0:
                raise TimeUp
            return trace

        return trace
