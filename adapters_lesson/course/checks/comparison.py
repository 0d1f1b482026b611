"""How a check calls an answer, takes what came back, and finds out which likely mistake explains it."""

import contextlib
import inspect
import math
import re
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from .check import Mistake, Numbers, require, what_was_raised

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by the number of values
_STUDENT = "with a few the factor is Student's t, T95[n]"
WRONG_WIDTHS = {  # formulas for half the width of the interval of the mean of n values v, instead of t · s / √n
    "stdev(v)": "that is the standard deviation: one run's spread; the mean of n runs is surer by √n",
    "stdev(v) / sqrt(n)": "that is the standard error alone: multiply it by t",
    "t * pstdev(v) / sqrt(n)": "the squares are divided by n: with so few values it must be n − 1, as statistics.stdev",
    "1.96 * stdev(v) / sqrt(n)": f"1.96 holds for many values: {_STUDENT}",
    "1.96 * pstdev(v) / sqrt(n)": f"1.96 holds for many values: {_STUDENT}; and divide the squares by n − 1",
    "2 * stdev(v) / sqrt(n)": f"2 holds for many values: {_STUDENT}",
    "t * stdev(v)": "√n is missing: that interval is for a single run, not for the mean",
    "t * stdev(v) / n": "the standard deviation is divided by n: divide it by √n",
    "t * stdev(v) ** 2 / sqrt(n)": "that uses the variance: take its root",
    "2 * t * stdev(v) / sqrt(n)": "that is the whole width: return half of it",
    "(max(v) - min(v)) / 2": "that is half the range from lowest to highest: it grows with the number of runs",
}
BYTES = {  # how many times too large an answer in bytes may be, and why
    1 / 4: "those are numbers: return bytes, in single precision each takes 4",
    1 / 2: "that is half of it: a number in single precision takes 4 bytes, not 2",
    2: "that is twice as much: a number in single precision takes 4 bytes, not 8, and nothing counts twice",
    8: "those are bits: return bytes",
    1e-6: "those are MB: return bytes",
    2**-20: "those are MiB: return bytes",
}
NOTHING = "the function returns None: is the return missing, at the end or on one of the ways through it?"


_MISFIT = "size|shape|dimension"  # words of the errors where tensors do not fit


def asked(function: Any, *arguments: Any, hint: str = "", about: str = _MISFIT, changes: Collection[int] = ()) -> Any:
    """What the learner's function returns. Only the arguments at the places ``changes`` may be changed.

    The ``hint`` says what to do about a RuntimeError with these words in its text.
    """
    before = [_plain(argument) for argument in arguments]
    try:
        answer = function(*arguments)
    except RuntimeError as error:
        if not hint or not re.search(about, f"{error}"):
            raise
        raise Mistake(f"{hint}; {what_was_raised(error)}") from error
    require(answer is not None, NOTHING)
    for place, (argument, plain) in enumerate(zip(arguments, before, strict=True)):
        if place not in changes and _plain(argument) != plain:
            called = function.forward if isinstance(function, nn.Module) else function
            name = f"number {place + 1}"
            with contextlib.suppress(ValueError, TypeError, IndexError):  # how the learner calls it
                name = list(inspect.signature(called).parameters)[place]
            raise Mistake(f"its argument {name} was changed in place, as +=, sort() and pop() do: make a new one")
    return answer


@contextlib.contextmanager
def explained(reasons: Mapping[str, str]) -> Iterator[None]:
    """Inside, an exception that has one of these words in its name or text is the mistake that they stand for."""
    try:
        yield
    except Mistake:
        raise
    except Exception as error:
        for words, why in reasons.items():
            if words in f"{type(error).__name__}: {error}":
                raise Mistake(why) from error
        raise


def _plain(value: Any) -> Any:
    """A copy to compare with ==."""
    if isinstance(value, nn.Module):
        value = dict(value.named_parameters())
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _expect(fits: bool, answer: Any, what: str) -> None:
    require(answer is not None, NOTHING)
    require(fits, f"it must return {what}, it returned a {type(answer).__name__}")


def number(answer: Any) -> float:
    """The answer as a number, from Python, numpy or torch."""
    if isinstance(answer, torch.Tensor) and answer.numel() == 1:
        return answer.item()
    _expect(isinstance(answer, Real) and not isinstance(answer, bool), answer, "a number")
    return float(answer)


def verdict(answer: Any) -> bool:
    """The answer as True or False, from Python, numpy or torch."""
    kind = str(getattr(answer, "dtype", type(answer).__name__))
    _expect(kind.endswith(("bool", "bool_")) and not getattr(answer, "shape", ()), answer, "True or False")
    return bool(answer)


def tensor(answer: Any) -> torch.Tensor:
    """The answer, if it is a tensor."""
    _expect(isinstance(answer, torch.Tensor), answer, "one tensor")
    return answer


def pair(answer: Any, what: str) -> tuple[Any, Any]:
    """The two values of an answer."""
    require(answer is not None, NOTHING)
    with contextlib.suppress(TypeError):  # what has no length, a tensor without axes among it
        if len(answer) == 2 and not isinstance(answer, (str, dict, set)):
            return answer[0], answer[1]
    raise Mistake(f"it must return two values: {what}")


def table(answer: Any, keys: Collection[Any], what: str) -> dict:
    """The answer, if it is a dict with these keys."""
    _expect(isinstance(answer, dict), answer, f"a dict, {{{what}}}, with the keys {list(keys)}")
    require(set(answer) == set(keys), f"it must return a dict with the keys {list(keys)}, not {list(answer)}")
    return answer


def learns(result: torch.Tensor, parts: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
    """The gradients that get from the result to the parts, by name; a ``Mistake`` where none does."""
    gradients: Sequence[Any] = [None] * len(parts)
    with explained({"inplace": "a tensor is changed in place (+=, add_) that the gradient still needs: copy it"}):
        if result.requires_grad:
            gradients = torch.autograd.grad(result.sum(), list(parts.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(parts, gradients, strict=True):
        require(gradient is not None, f"no gradient reaches {name}: is there a detach, an item(), a no_grad or a copy?")
    return gradients


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal up to rounding; a ``Mistake`` if a's numbers are of another type."""
    require(a.dtype == b.dtype, f"its numbers are of the type {a.dtype}, not {b.dtype}: convert nothing, or back again")
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def first_match(
    same: Callable[[Any], bool], right: Any, guesses: Mapping[Any, str], otherwise: str = "", numbers: Numbers = ()
) -> None:
    """Raise ``Mistake`` with the message of the first guess that is the ``same`` as the answer, if ``right`` is not."""
    if same(right):
        return
    message = next((message for guess, message in guesses.items() if same(guess)), otherwise)
    if message:
        raise Mistake(message, numbers)


def match_tensor(answer: torch.Tensor, right: torch.Tensor, guesses: Mapping[Any, str], otherwise: str) -> None:
    """``first_match`` up to rounding."""
    near = not close(answer, right) and answer.shape == right.shape
    if near and (off := (answer - right).abs().max()) <= 0.01 * right.abs().max():
        why = "is something rounded, in half precision, or is a small number added?"
        otherwise = f"nearly: it is off by {off:.1e} where it is worst; {why}"
    pairs = zip(answer.flatten().tolist(), right.flatten().tolist(), strict=False)
    apart = [(a, b) for a, b in pairs if not math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)]
    numbers = [("a value", f"{a:.6g}", f"{b:.6g}") for a, b in apart[:3]] if answer.shape == right.shape else []
    first_match(lambda guess: close(answer, guess), right, guesses, otherwise, numbers)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the 95 % interval of the mean of 2, 3 or 5 values."""
    middle, half = statistics.mean(values), T95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return middle - half, middle + half


def formula(text: str, names: str, **known: Any) -> Callable[..., Any]:
    """The function of ``names`` ("d m") that a text ("2*d*m + m + d") says; ``known`` are other names in it."""
    return eval(f"lambda {', '.join(names.split())}: {text}", {**vars(math), **vars(statistics), **known})


def match_formula(
    answers: Any,
    names: str,
    cases: Sequence[tuple],
    right: str,
    guesses: Mapping[str, str],
    hint: str = "",
    *,
    otherwise: str = "",
    tolerance: float = 1e-6,
    **known: Any,
) -> None:
    """``first_match`` for the ``answers``, or the function that gives them, to each of the cases.

    ``right`` and the guesses are formulas of ``names``, which are those of a case's values, and of the ``known``.

    To any other mistake it says the case that is farthest off, with the ``hint``, or ``otherwise``, with that case's
    {names}, {given} and {wanted}.
    """

    answers = [number(asked(answers, *case)) for case in cases] if callable(answers) else answers

    def values(text: str) -> list[float]:
        return [formula(text, names, **known)(*case) for case in cases]

    def same(text: str) -> bool:
        with contextlib.suppress(ArithmeticError):  # a guess may divide by zero where the right formula does not
            return all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(answers, values(text), strict=True))
        return False

    results = list(zip(cases, answers, values(right), strict=True))
    case, given, wanted = max(results, key=lambda result: abs(result[1] - result[2]) / (abs(result[2]) + 1e-9))

    def of(case: tuple) -> str:
        shown = [f"{value:,}" if isinstance(value, (int, float)) else f"{value}" for value in case]
        return ", ".join(f"{name} = {value}" for name, value in zip(names.split(), shown, strict=True))

    told = otherwise or "for {of} it gives {given}, right is {wanted}: {hint}"
    numbers = {"given": f"{given:,.12g}", "wanted": f"{wanted:,.12g}", "of": of(case), "hint": hint}
    told = told.format(**dict(zip(names.split(), case, strict=True)) | numbers)
    beside = [(of(case), f"{given:,.6g}", f"{wanted:,.6g}") for case, given, wanted in results]
    first_match(same, right, guesses, told, beside)
