"""Numbers as people have them, from NumPy, pandas or PyTorch, as Python's own: what a file can hold and bring back."""

import operator
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # the types in which an adapter computes
_NOT_ONE = (TypeError, ValueError, OverflowError, RuntimeError)  # what libraries raise for what is no single number


def whole_number(value: Any) -> int | None:
    """``value`` as an int, if it is a whole number of any library; None for anything else, True and 3.0 among them."""
    if not (isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")):
        with suppress(*_NOT_ONE):  # a bool is refused above: that of NumPy 2.0 has an index
            return operator.index(value)
    return None


def number(value: Any) -> int | float | None:
    """``value`` as an int or a float, if it is a number of any library; None for anything else, texts among them."""
    whole = whole_number(value)
    if whole is not None or not (isinstance(value, (str, bytes)) or str(value) in ("True", "False")):
        with suppress(*_NOT_ONE):
            as_float = float(value)  # too large a whole number makes none
            return as_float if whole is None else whole
    return None


def truth(value: Any) -> bool | None:
    """``value`` as a bool, if it is one of any library, or 0 or 1; None for anything else."""
    with suppress(*_NOT_ONE):
        plain = value.item() if hasattr(value, "item") else value
        return bool(plain) if isinstance(plain, int) and plain in (0, 1) else None
    return None


def listed(value: Any) -> list[Any] | None:
    """``value`` as a list, if it is one of any library; None for a text, for pairs, and for a single value."""
    try:
        return None if isinstance(value, (str, bytes, Mapping)) else list(value)
    except TypeError:  # also of an array without dimensions
        return None


def shown(value: Any) -> str:
    """``value`` as a message shows it: in one line, and not for long."""
    text = type(value).__name__ if isinstance(value, nn.Module) else repr(value)
    return " ".join(text.split())[:60]


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """``value`` as a plain int. Raises ValueError unless it is a whole number of at least ``least``."""
    plain = whole_number(value)
    if plain is None or plain < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    return plain


def check_number(name: str, value: Any, wanted: str, fits: Callable[[float], object]) -> float:
    """``value`` as a plain number. Raises ValueError unless it ``fits``; a tensor that would be learnt does not."""
    plain = None if isinstance(value, torch.Tensor) and value.requires_grad else number(value)
    if plain is None or not fits(plain):
        raise ValueError(f"{name} {wanted}, not {shown(value)}")
    return plain


def check_choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """``value`` as a plain text. Raises ValueError unless it is among ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {shown(value)}")
    return str.__str__(value)
