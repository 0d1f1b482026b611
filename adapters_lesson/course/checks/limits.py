"""What a learner's code may not do while it is checked: run for ever, end the notebook, or leave the kernel changed."""

import builtins
import contextlib
import ctypes
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy
import torch
from torch.nn.modules import module

_LOOK = 0.05  # seconds between two looks at the time
_PATIENCE = 4  # times the limit, for code that waits: it may be for a busy machine, which one cannot tell from sleep


class TimeUp(BaseException):
    """Ends code that takes too long. It is no ``Exception``, so that ``except Exception`` lets it through."""


class Watch:
    """Lets functions run until ``seconds`` are over; raises KeyboardInterrupt at the end if the user asked for it.

    Code that has had less than half of the time for itself, on a busy machine, gets up to four times as long. A timer
    looks at the time on the main thread, a thread of its own on any other and on Windows. It raises again and again,
    where chance will have it, until that is outside of ``try``. A call that never comes back from C cannot be ended.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.up, self.took = False, 0.0  # whether time was up, and after how many seconds
        self.where: list[traceback.FrameSummary] = []  # each frame at that time, innermost first
        self._running = self._interrupted = False
        self._done, self._lock = threading.Event(), threading.Lock()

    def call(self, work: Callable[[], Any]) -> Any:
        """What ``work()`` returns; TimeUp when the limit or the user ends it. The limit holds here, and only here."""
        try:
            if self._interrupted:
                raise TimeUp
            self._running = True
            return work()
        finally:
            self._running = False
            if self._thread:
                with self._lock:  # what has not arrived yet would arrive in the middle of something else
                    self._raise_there(None)

    def __enter__(self) -> "Watch":
        self._ident, self._began, self._worked = threading.get_ident(), time.monotonic(), time.process_time()
        on_main = threading.current_thread() is threading.main_thread()
        with_timer = on_main and hasattr(signal, "setitimer")
        handlers = {signal.SIGINT: self._on_interrupt} if on_main else {}
        handlers |= {signal.SIGALRM: self._on_alarm} if with_timer else {}
        self._before: dict[int, Any] = {number: signal.getsignal(number) for number in handlers}
        for number, handler in handlers.items():
            signal.signal(number, handler)
        self._thread = None if with_timer else threading.Thread(target=self._look, daemon=True)
        if self._thread:
            self._thread.start()
        else:
            self._timer = signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread:
            self._done.set()
            self._thread.join()
        else:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if not self._thread:
            signal.setitimer(signal.ITIMER_REAL, *self._timer)  # somebody else's goes on
        if self._interrupted:
            raise KeyboardInterrupt

    def _on_interrupt(self, *_: object) -> None:
        self._interrupted |= callable(self._before[signal.SIGINT])  # else interrupts are ignored
        if self._running and self._interrupted:
            raise TimeUp

    def _on_alarm(self, *_: object) -> None:
        if self._is_over():
            # Not at regular times: between the handler of an exception and the next `try` there is little room.
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4), _LOOK)
            raise TimeUp

    def _look(self) -> None:
        """What the thread does."""
        while not self._done.wait(0.001 if self.up or self._interrupted else _LOOK):
            with self._lock:
                if self._is_over():
                    self._raise_there(ctypes.py_object(TimeUp))

    def _raise_there(self, exception: Any) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), exception)

    def _is_over(self) -> bool:
        """Whether what runs must end. When time is up, it notes where."""
        took, worked = time.monotonic() - self._began, time.process_time() - self._worked
        late = took >= self.seconds * (1 if worked >= self.seconds / 2 else _PATIENCE)
        if self._running and late and not self.up:
            self.up, self.took = True, took
            stack = traceback.walk_stack(sys._current_frames().get(self._ident))
            self.where = traceback.StackSummary.extract(stack)
        return self._running and (self.up or self._interrupted)


# How to read a setting, and how to set it. Some take long to set, and are set only if they have changed.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (lambda: logging.root.manager.disable, logging.disable),
    (random.getstate, random.setstate),
    (os.getcwd, os.chdir),
)


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    """Inside: silence, fixed seeds, float32, gradients, nobody to ask. Afterwards, everything is as it was before."""
    hooks = [value for name, value in vars(module).items() if name.startswith("_global_") and isinstance(value, dict)]
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    notebook = getattr(getattr(builtins, "get_ipython", lambda: None)(), "user_ns", {})
    exits = {name: notebook[name] for name in ("exit", "quit") if name in notebook}  # in a notebook they end the kernel
    nobody = Mock(side_effect=EOFError("nobody answers input() during a check, what your code needs are its arguments"))
    ended = Mock(side_effect=SystemExit("exit() would end the whole notebook, a function ends with return"))
    with contextlib.ExitStack() as stack:
        for get, put in _SETTINGS:
            stack.callback(_put_back, get, put, _read(get))
        stack.callback(numpy.random.set_state, numpy.random.get_state())  # noqa: NPY002  others may use the global one
        stack.callback(notebook.update, exits)
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8", errors="ignore"))
        changes: list[Any] = [
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
            patch.multiple(builtins, create=True, input=nobody, exit=ended, quit=ended),
            torch.random.fork_rng(devices=cuda),
            *map(patch.dict, (os.environ, *hooks)),
        ]
        for change in changes:
            stack.enter_context(change)
        notebook.update(dict.fromkeys(exits, ended))
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        random.seed(0)
        numpy.random.seed(0)  # noqa: NPY002
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        logging.disable(logging.CRITICAL)
        yield


def _read(get: Callable[[], Any]) -> Any:
    """The setting, or None where it cannot even be read, such as a working folder that is gone."""
    with contextlib.suppress(Exception):
        return get()


def _put_back(get: Callable[[], Any], put: Callable[[Any], object], value: Any) -> None:
    with contextlib.suppress(Exception):
        if _read(get) != value:
            put(value)
