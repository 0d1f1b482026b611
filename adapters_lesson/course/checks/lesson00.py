"""The check of lesson 00: a first exercise, on which one sees how exercises work."""

from typing import Any

from .check import check, require
from .comparison import asked, explained, match_formula, number


@check("0.1", "correct: this is what every check says when nothing is left to mend.")
def check_trained_share(trained_share: Any) -> None:
    """``trained_share(trained, total)`` must give the trained parameters in per cent of all."""
    cases = [(1, 4), (30, 1000), (7, 7), (155, 23_000)]
    guesses = {
        "p / n": "that is a share between 0 and 1: multiply by 100",
        "n / p": "it is upside down: divide the trained by all",
        "100 * n / p": "it is upside down: divide the trained by all",
        "100 * (n - p) / n": "that is the share of what is frozen",
        "100 * (p // n)": "// rounds down, here mostly to 0: divide with /",
        "100 * p // n": "// rounds down: divide with /",
        "round(100 * p / n)": "it is rounded: return all digits",
        "round(100 * p / n, 2)": "it is rounded: return all digits",
        "10 * p / n": "per cent means of a hundred, not of ten",
    }
    with explained({"ZeroDivisionError": "where all are trained it divides by zero: divide by all, not by the frozen"}):
        match_formula(trained_share, "p n", cases, "100 * p / n", guesses, "100 times the trained, divided by all")
    require(number(asked(trained_share, 0, 5)) == 0, "where nothing is trained, it is 0 per cent")
