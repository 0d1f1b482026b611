"""Which mistake explains an answer: the right result first, then the results of likely mistakes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeVar

import torch

from .report import Mistake, require

_Result = TypeVar("_Result")
NOTHING = "the function returns None: is the return missing?"


def first_match(
    same: Callable[[_Result], bool], right: _Result, guesses: Iterable[tuple[_Result, str]], otherwise: str
) -> None:
    """Raise ``Mistake`` with the message of the first guess that is the ``same`` as the answer, if ``right`` is not."""
    if same(right):
        return
    for guess, message in guesses:
        require(not same(guess), message)
    raise Mistake(otherwise)


def called(function: Any, *arguments: Any, hint: str) -> Any:
    """What ``function`` returns; if tensors in it do not fit together, a ``Mistake`` with the hint and torch's words."""
    try:
        return function(*arguments)
    except NotImplementedError:  # a RuntimeError, too
        raise
    except RuntimeError as error:
        raise Mistake(f"{hint}; your code raised {type(error).__name__}: {error}") from error


def number(answer: Any) -> float:
    """The answer as a number, from Python, numpy or torch."""
    require(answer is not None, NOTHING)
    if isinstance(answer, torch.Tensor) and answer.numel() == 1:
        return answer.item()
    require(
        isinstance(answer, Real) and not isinstance(answer, bool),
        f"it must return a number, it returned a {type(answer).__name__}",
    )
    return float(answer)


def verdict(answer: Any) -> bool:
    """The answer as True or False, from Python, numpy or torch."""
    require(answer is not None, NOTHING)
    one = isinstance(answer, bool) or getattr(answer, "shape", None) == ()
    require(
        one and str(getattr(answer, "dtype", "bool")).endswith(("bool", "bool_")),
        f"it must return True or False, it returned a {type(answer).__name__}",
    )
    return bool(answer)


def tensor(answer: Any) -> torch.Tensor:
    """The answer, if it is a tensor."""
    require(answer is not None, NOTHING)
    require(isinstance(answer, torch.Tensor), f"it must return one tensor, it returned a {type(answer).__name__}")
    return answer
