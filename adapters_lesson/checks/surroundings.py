"""What a learner's code may change while it is checked, and how it is put back."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn
from torch.nn.modules import module as torch_module


def _set_deterministic(setting: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(setting[0], warn_only=setting[1])


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_logging(setting: tuple[int, int, list[logging.Handler]]) -> None:
    logging.disable(setting[0])
    logging.root.setLevel(setting[1])
    logging.root.handlers[:] = setting[2]


def _set_environment(setting: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(setting)


# How to read a setting, and how to set it. Some take long to set, and are set only if they have changed.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    (random.getstate, random.setstate),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (os.getcwd, os.chdir),
    (lambda: dict(os.environ), _set_environment),
    (lambda: (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)), _set_logging),
)
# Whose functions somebody might replace.
_NAMESPACES = (
    builtins,
    torch,
    torch.Tensor,
    torch.optim,
    nn,
    nn.functional,
    nn.init,
    nn.Module,
    nn.Linear,
    nn.LayerNorm,
)


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    """Inside: silence, fixed seeds, float32, gradients. Afterwards, everything is as it was before.

    That is: torch's, numpy's and Python's random numbers, torch's settings, warnings, logging, the working folder and
    the environment, functions of torch and Python that were replaced, and hooks on all modules at once.
    """
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with _settings(), _functions(), _global_hooks(), _silence(), torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        random.seed(0)
        numpy.random.seed(0)  # noqa: NPY002
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        with _nobody_to_ask():
            yield


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    before = [(get, put, _read(get)) for get, put in _SETTINGS]
    seed = numpy.random.get_state()  # noqa: NPY002  whoever uses the global generator should find it as it was
    try:
        yield
    finally:
        numpy.random.set_state(seed)  # noqa: NPY002
        for get, put, value in before:
            with contextlib.suppress(Exception):
                if _read(get) != value:
                    put(value)


def _read(get: Callable[[], Any]) -> Any:
    """The setting, or None where it cannot even be read, such as a working folder that is gone."""
    with contextlib.suppress(Exception):
        return get()


@contextlib.contextmanager
def _functions() -> Iterator[None]:
    before = [(space, dict(vars(space))) for space in _NAMESPACES]
    try:
        yield
    finally:
        for space, names in before:
            now = vars(space)
            for name, value in names.items():
                if now.get(name) is not value and callable(value):
                    setattr(space, name, value)


@contextlib.contextmanager
def _global_hooks() -> Iterator[None]:
    kinds = [hooks for name, hooks in vars(torch_module).items() if name.startswith("_global_") and "hooks" in name]
    before = [(hooks, dict(hooks)) for hooks in kinds if isinstance(hooks, dict)]
    try:
        yield
    finally:
        for hooks, kept in before:
            if hooks != kept:
                hooks.clear()
                hooks.update(kept)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with (
        Path(os.devnull).open("w", encoding="utf-8", errors="ignore") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        yield


@contextlib.contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """input() would wait for an answer, and in a notebook exit() ends the kernel: both raise instead."""
    shell = getattr(builtins, "get_ipython", lambda: None)()
    names = getattr(shell, "user_ns", {})
    before = {name: names[name] for name in ("exit", "quit") if name in names}
    names.update(dict.fromkeys(before, _exit))
    for name, instead in (("input", _input), ("exit", _exit), ("quit", _exit)):
        setattr(builtins, name, instead)  # put back with all other functions
    try:
        yield
    finally:
        names.update(before)


def _input(*prompt: object) -> str:
    raise EOFError("nobody answers input() during a check, what your code needs are its arguments")


def _exit(*code: object) -> None:
    raise SystemExit("exit() would end the whole notebook, a function ends with return")
