"""Habits of people who use adapters, train models or run notebooks: one a row, with what must come out of it.

A module here belongs to one room and holds ``HABITS``, a list of rows ``Habit(what, call, outcome)``. The outcome is
one of four: ``gives(value)``, ``holds`` (the call returns True), ``refuses(words)`` (one clear sentence) or
``warns(words)``. A new report is one row more. tests/test_habits.py tries all of them; `python tests/habits/table.py`
counts them.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

# What Python or a library raises when nobody thought of the case. A sentence for people is one of ours.
UNCLEAR = (AssertionError, AttributeError, IndexError, KeyError, NameError, RecursionError, StopIteration)


class Outcome(NamedTuple):
    """What must come out, and the kind under which the row is counted."""

    kind: str
    check: Callable[[Callable[[], object]], None]


class Habit(NamedTuple):
    """One row. ``call`` takes nothing, or a folder of its own if it has a parameter ``folder``."""

    what: str
    call: Callable[..., object]
    outcome: Outcome


def gives(value: Any) -> Outcome:
    """The call returns ``value``."""

    def check(call: Callable[[], object]) -> None:
        assert call() == value

    return Outcome("right", check)


def _holds(call: Callable[[], object]) -> None:
    result = call()
    assert result is True, f"the call returned {result!r}"


holds = Outcome("right", _holds)


def refuses(*words: str, error: type[Exception] = ValueError) -> Outcome:
    """The call raises ``error`` with one sentence that has all these words in it."""

    def check(call: Callable[[], object]) -> None:
        with pytest.raises(error) as caught:
            call()
        message = str(caught.value)
        assert not isinstance(caught.value, UNCLEAR), repr(caught.value)
        assert [word for word in words if word not in message] == [], message
        assert "\n\n" not in message.strip() and len(message) < 600, f"one sentence, not {message}"

    return Outcome("refused", check)


def warns(*words: str) -> Outcome:
    """The call does its work, and a warning has all these words in it."""

    def check(call: Callable[[], object]) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        messages = [str(warning.message) for warning in caught]
        assert any(all(word in message for word in words) for message in messages), messages

    return Outcome("warned", check)


def rows() -> list[tuple[str, Habit]]:
    """All rows, each with the name of its module."""
    modules = [name for _, name, _ in pkgutil.iter_modules(__path__) if name != "table"]
    return [(name, habit) for name in modules for habit in importlib.import_module(f"habits.{name}").HABITS]
