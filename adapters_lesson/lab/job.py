"""Work on a thread of its own, which can be paused, stopped and awaited, so that no view is ever blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

# Two trainings at the same time on a few cores take much longer than one after the other, and spoil every timing.
_TURN = threading.Lock()


class Job:
    """``work`` on a worker thread; jobs take turns.

    A cell may ``await`` a job: the kernel then still answers the widgets, so that a click on Stop arrives. The kernel's
    own interrupt stops an awaited job as well.

    Args:
        work: called with the job. Between its steps it calls ``check``.
        on_change: called, from either thread, when ``state`` has changed.

    Attributes:
        state: "new", "waiting" (for another job), "running", "paused", "done", "stopped" or "failed".
        result: what ``work`` returned, once done.
        error: what it raised, if it failed.
        rested: seconds for which it was paused.
    """

    def __init__(self, work: Callable[[Job], Any], on_change: Callable[[], None] = lambda: None) -> None:
        self.state = "new"
        self.result: Any = None
        self.error: Exception | None = None
        self.rested = 0.0
        self._work, self._on_change = work, on_change
        self._stop, self._go_on = threading.Event(), threading.Event()
        self._go_on.set()
        self._thread = threading.Thread(target=self._run, name="adapters_lesson job", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it still waits or works."""
        return self._thread.is_alive()

    @property
    def paused(self) -> bool:
        """Whether it was asked to rest."""
        return not self._go_on.is_set()

    def start(self) -> Job:
        """Begin, as soon as no other job works."""
        self._set("waiting")
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the work to end at its next ``check``."""
        self._stop.set()
        self._go_on.set()

    def pause(self) -> None:
        """Ask the work to rest at its next ``check``."""
        if not self._stop.is_set():
            self._go_on.clear()

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._go_on.set()

    def check(self) -> None:
        """For the work to call between its steps: rest while paused, raise KeyboardInterrupt once stopped."""
        if not self._go_on.is_set():
            self._set("paused")
            begun = time.monotonic()
            self._go_on.wait()
            self.rested += time.monotonic() - begun
            if not self._stop.is_set():
                self._set("running")
        if self._stop.is_set():
            raise KeyboardInterrupt("stopped")

    def wait(self, timeout: float | None = None) -> Job:
        """Block until it has ended, for scripts and tests; in a notebook use ``await``.

        Raises:
            TimeoutError: when it has not ended after ``timeout`` seconds.
            Exception: what the work raised.
        """
        self._thread.join(timeout)
        if self.alive:
            raise TimeoutError(f"the job is still {self.state} after {timeout} s")
        return self._ended()

    def __await__(self) -> Generator[Any, None, Job]:
        return self._wait().__await__()

    async def _wait(self) -> Job:
        try:
            while self.alive:
                await asyncio.sleep(0.02)
        except (KeyboardInterrupt, asyncio.CancelledError):  # the kernel's interrupt arrives as one or the other
            self.stop()
            self._thread.join()
        return self._ended()

    def _ended(self) -> Job:
        if self.error is not None:
            raise self.error
        return self

    def _run(self) -> None:
        try:
            while not _TURN.acquire(timeout=0.05):
                self.check()
            try:
                self._set("running")
                self.check()
                self.result = self._work(self)
            finally:
                _TURN.release()
        except KeyboardInterrupt:
            self._set("stopped")
        except Exception as error:
            self.error = error
            self._set("failed")
        else:
            self._set("stopped" if self._stop.is_set() else "done")

    def _set(self, state: str) -> None:
        self.state = state if self.error is None else "failed"
        try:
            self._on_change()
        except Exception as error:  # on a thread it would be lost: whoever waits for the job gets it
            self.error, self.state = error, "failed"
            self._stop.set()
