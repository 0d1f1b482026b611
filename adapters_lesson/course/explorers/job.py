"""Work on a thread of its own, which can be paused, stopped and awaited, so that no view is ever blocked."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

# Two trainings at the same time on a few cores take much longer than one after the other, and spoil every timing.
_TURN = threading.Lock()


class Job(threading.Thread):
    """``work``, which calls ``check`` between its steps, on a worker thread; jobs take turns.

    A cell may ``await`` a job: the kernel then still answers the widgets, so that a click on Stop arrives. A script
    must ``wait``; in a cell, clicks then arrive when it has ended. The kernel's interrupt stops the job either way.

    ``state`` is "new", "waiting" (for another job), "running", "paused", "done", "stopped" or "failed". When it changes
    ``on_change`` is called with the job, from either thread. While ``paused`` is set, the work rests at its next
    ``check``, ``rested`` seconds in all. ``work`` returns the ``result``, or raises the ``error``.
    """

    def __init__(self, work: Callable[[Job], Any], on_change: Callable[[Job], object] = lambda job: None) -> None:
        self.state, self.paused, self.ended, self.rested = "new", False, False, 0.0
        self.result: Any = None
        self.error: Exception | None = None
        self._work, self._on_change, self._stopping = work, on_change, False
        super().__init__(name="adapters_lesson job", daemon=True)

    def start(self) -> Job:  # type: ignore[override]
        """Begin, as soon as no other job works."""
        self._set("waiting")
        super().start()
        return self

    def stop(self) -> None:
        """Ask the work to end at its next ``check``."""
        self._stopping = True

    def check(self) -> None:
        """For the work to call between its steps: rest while paused, raise KeyboardInterrupt once stopped."""
        if self.paused and not self._stopping:
            self._set("paused")
            begun = time.monotonic()
            while self.paused and not self._stopping:
                time.sleep(0.02)
            self.rested += time.monotonic() - begun
            self._set("running")
        if self._stopping:
            raise KeyboardInterrupt("stopped")

    def wait(self, timeout: float = math.inf) -> Job:
        """Block until it has ended; an interrupt stops it. Raises what the work raised, or TimeoutError."""
        end = time.monotonic() + timeout
        try:
            while self.is_alive() and time.monotonic() < end:
                time.sleep(0.01)  # an interrupt of the thread's own join() would take it for ended
        except KeyboardInterrupt:
            self.stop()
            return self.wait()
        if self.is_alive():
            raise TimeoutError(f"the job is still {self.state} after {timeout} s")
        if self.error is not None:
            raise self.error
        return self

    def __await__(self) -> Generator[Any, None, Job]:
        try:
            while self.is_alive():
                yield from asyncio.sleep(0.02).__await__()
        except (KeyboardInterrupt, asyncio.CancelledError):  # the kernel's interrupt arrives as one or the other
            self.stop()
        return self.wait()

    def run(self) -> None:
        """Done on the thread."""
        try:
            while not _TURN.acquire(timeout=0.05):
                self.check()
            try:
                self._set("running")
                self.result = self._work(self)
            finally:
                _TURN.release()
            self._set("done")
        except KeyboardInterrupt:
            self._set("stopped")
        except Exception as error:
            self.error = error
            self._set("failed")

    def _set(self, state: str) -> None:
        self.state = state if self.error is None else "failed"
        self.ended = self.state in ("done", "stopped", "failed")  # its thread may still be telling so
        try:
            self._on_change(self)
        except Exception as error:  # on a thread it would be lost: whoever waits for the job gets it
            self.error, self.state, self._stopping = error, "failed", True
