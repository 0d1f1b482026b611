"""What a claim may call: verdicts over seeds by the rule that the course teaches, numbers of results and of outputs.

Accuracies are in per cent, so differences and margins are in points.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import hypot, sqrt
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from adapters_lesson import AdapterConfig, prepare
from adapters_lesson.costs import memory_ledger, outline
from adapters_lesson.course.explorers.explore_anatomy import draw_anatomy
from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.course.lesson_source import course
from adapters_lesson.history import RESULTS, load_results

Values = Mapping[int, float]  # by seed


class Verdict(NamedTuple):
    """Whether a comparison comes out as claimed, and what was found."""

    holds: bool
    text: str

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return self.text


def seeds(name: str, *rows: str, key: str = "test", **where: Any) -> dict[int, float]:
    """Seed to 100 × ``key`` of the runs of one row of data/results/``name``.json, with its chosen learning rate.

    ``where`` picks other runs, for instance ``learning_rate=1e-2`` or a laboratory's ``value=4``. Raises KeyError for a
    row that is not there, ValueError where no run fits, or two have one seed.
    """
    results = load_results(name)
    *groups, row = rows
    for group in groups:
        results = results[group]
    entry = results["rows"][row]
    if isinstance(entry, Mapping):
        where = {**({"learning_rate": entry["learning_rate"]} if "learning_rate" in entry else {}), **where}
        entry = entry["runs"]
    fit = [run for run in entry if all(run[setting] == value for setting, value in where.items())]
    found = {run["seed"]: 100 * _last(run[key]) for run in fit}
    if not found or len(found) < len(fit):
        raise ValueError(f"{name}, {row}: {len(fit)} runs with {len(found)} seeds fit {where}")
    return found


def _last(value: Any) -> float:
    """Of a list, by epoch, the last."""
    return value[-1] if isinstance(value, Sequence) else value


def difference(one: Values, other: Values, texts: int = 0) -> tuple[float, float, int]:
    """Mean of ``one`` − ``other`` over the seeds of both, half the width of its 95 % interval, and how many seeds.

    The interval is about other seeds. With ``texts``, the number of test texts of accuracies in per cent, it counts
    other texts too: the variance of either accuracy p, p · (1 − p) / texts, is added to that of the seeds. That is too
    much where both rows find the same texts hard: a bootstrap over both, which needs each text's hit, gives less.
    """
    both = sorted(one.keys() & other.keys())
    middle, half = mean_and_interval([one[seed] - other[seed] for seed in both])
    if texts:
        spread = sum(mean(row[seed] * (100 - row[seed]) for seed in both) for row in (one, other)) / texts
        half = hypot(half, 1.96 * sqrt(max(0, spread)))
    return middle, half, len(both)


def _verdict(one: Values, other: Values, margin: float, word: str, texts: int) -> Verdict:
    middle, half, count = difference(one, other, texts)
    rules = {
        "as good": middle - half > -margin,
        "better": middle - half > margin,
        "unclear": middle - half <= margin and middle - half <= -margin <= middle + half,
    }
    is_ = next((w for w in ("better", "as good") if rules[w]), "worse" if middle + half < -margin else "unclear")
    of = f"{count} seeds" + (f", {texts} texts" if texts else "")
    found = f"{middle:+.2f} ± {half:.2f} points, {of}, margin {margin:g}: {is_}"
    return Verdict(rules[word] if word != "unclear" else is_ == "unclear", found)


def as_good(one: Values, other: Values, margin: float, texts: int = 0) -> Verdict:
    """All of the interval of what ``one`` loses against ``other`` is below the margin."""
    return _verdict(one, other, margin, "as good", texts)


def better(one: Values, other: Values, margin: float = 0, texts: int = 0) -> Verdict:
    """All of the interval of what ``one`` gains over ``other`` is above the margin."""
    return _verdict(one, other, margin, "better", texts)


def unclear(one: Values, other: Values, margin: float = 0, texts: int = 0) -> Verdict:
    """Neither: these runs cannot tell."""
    return _verdict(one, other, margin, "unclear", texts)


class Outputs:
    """What the cells of a lesson's committed solved edition have printed, up to a cell."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.cell = -1  # that of the last answer

    def numbers(self, pattern: str) -> tuple[float, ...]:
        """The groups of the first match, as numbers, in the nearest cell above that has one; else ValueError."""
        if not self.said(pattern):
            raise ValueError(f"no output above matches {pattern}")
        groups = re.search(pattern, self.texts[self.cell], re.MULTILINE).groups()  # type: ignore[union-attr]
        return tuple(float(group.replace(",", "").replace("−", "-")) for group in groups)

    def number(self, pattern: str) -> float:
        """The first group of that match."""
        return self.numbers(pattern)[0]

    def said(self, pattern: str) -> bool:
        """Whether an output above matches."""
        with_match = (n for n in reversed(range(len(self.texts))) if re.search(pattern, self.texts[n], re.MULTILINE))
        self.cell = next(with_match, -1)
        return self.cell >= 0


@cache
def anatomy(**knobs: Any) -> Outputs:
    """What the anatomy explorer says, with its knobs as they start but for ``knobs``."""
    start = {"model_dim": 384, "bottleneck_dim": 64, "activation": "gelu", "init": "houlsby", "init_std": 0.01}
    return Outputs([draw_anatomy(**start | knobs).alt])


@cache
def step_gb(method: str, length: int, m: int = 64, checkpointing: bool = False, name: str = "llama-3-8b") -> float:
    """GB of a training step of an outline where lesson 04's explorer starts: bfloat16, AdamW, 4 texts of ``length``."""
    model = outline(name, num_labels=2)
    prepare(model, method, AdapterConfig(m) if method == "adapter" else None)
    return memory_ledger(model, 4, length, dtype=torch.bfloat16, checkpointing=checkpointing).peak / 1e9


def low(values: Values) -> float:
    """The lowest over the seeds."""
    return min(values.values())


def high(values: Values) -> float:
    """The highest over the seeds."""
    return max(values.values())


def average(values: Values) -> float:
    """The mean over the seeds."""
    return mean(values.values())


def ratios(one: str, other: str, what: str = "training step", processor: str = "", **where: int) -> list[float]:
    """``one`` to ``other`` as `make bench` measured them, on all processors whose file begins so, at all points.

    ``where`` keeps some points: batch, length, threads. They are sorted by processor and point, so that two lists can
    be compared pair by pair. Raises ValueError where none fits.
    """
    found = [
        row["ratio"]
        for path in sorted((RESULTS / "benchmark").glob(f"{processor}*.json"))
        for row in sorted(
            load_results(f"benchmark/{path.stem}")["comparisons"], key=lambda r: (r["threads"], r["length"])
        )
        if (row["what"], row["a"], row["b"]) == (what, one, other) and all(row[k] == v for k, v in where.items())
    ]
    if not found:
        raise ValueError(f"no benchmark has {one} / {other}, {what}, {processor}, {where}")
    return found


def lines(pattern: str) -> int:
    """How many lines the files of the repository that fit a pattern have together."""
    files = Path(__file__).parents[1].glob(pattern)
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def names(outputs: Outputs) -> dict[str, Any]:
    """All that a claim may call, beside Python's own functions."""
    ours = (seeds, difference, as_good, better, unclear, low, high, average, mean, load_results, ratios,
            anatomy, step_gb, course, lines)  # fmt: skip
    told = {"out": outputs.number, "outs": outputs.numbers, "said": outputs.said}
    return {**{one.__name__: one for one in ours}, **told}
