"""Checks of lesson NN."""

from __future__ import annotations

from typing import Any

from .check import check
from .comparison import match_formula, number


@check("N.1", "correct: the trained parameters, in per cent of all.")
def check_share(trained_share: Any) -> None:
    """``trained_share(trained, frozen)``: the trained parameters in per cent of all."""
    cases = [(1, 3), (3, 1), (7, 193)]
    guesses = {
        "100 * t / f": "this is relative to the frozen parameters: all are wanted",
        "t / (t + f)": "this is a share of one: per cent is a hundred times as much",
        "t / f": "this is a share of one, and relative to the frozen parameters",
        "100 * f / (t + f)": "this is the share of the frozen parameters",
        "100 * (t + f) / t": "the fraction is upside down",
        "100 * t // (t + f)": "this is rounded down: / divides, // rounds",
        "100 * (t // (t + f))": "trained // together is a whole number, most often 0: use /",
        "t": "this is the number of trained parameters, not their share",
        "t + f": "this is the number of all parameters",
    }
    answers = [number(trained_share(*case)) for case in cases]
    match_formula(answers, "t f", cases, "100 * t / (t + f)", guesses, "the trained ones, in per cent of all")
