"""A test bench for exercise 6.4: models that train in no time, and a record of what was done with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .matching import NOTHING
from .report import Mistake, require


class Model(nn.Module):
    """Remembers the random number with which it was built, and how often it has been trained."""

    def __init__(self, bottleneck_dim: int) -> None:
        super().__init__()
        self.bottleneck_dim, self.trained = bottleneck_dim, 0
        self.start = nn.Parameter(torch.rand(()))


class Trained(NamedTuple):
    """One run: which model, as it was before, and with which seed."""

    m: int
    start: float
    before: int
    seed: Any


class Bench:
    """The ``build`` and the ``train_and_validate`` that are given to the learner's sweep."""

    def __init__(self) -> None:
        self.built: list[Model] = []
        self.runs: list[Trained] = []
        torch.manual_seed(12345)  # not a seed that is asked for

    def build(self, bottleneck_dim: int) -> Model:
        """A new model, whose weights are the next random numbers."""
        self.built.append(Model(bottleneck_dim))
        return self.built[-1]

    def train_and_validate(self, model: Model, seed: int) -> float:
        """An accuracy that no other run has; the model goes on from there."""
        require(
            isinstance(model, Model),
            f"train_and_validate(model, seed) got a {type(model).__name__} for a model: give it what build returns",
        )
        run = Trained(model.bottleneck_dim, round(model.start.item(), 6), model.trained, seed)
        self.runs.append(run)
        model.trained += 1
        torch.rand(3)  # as dropout would
        return accuracy(run)


def accuracy(run: Trained) -> float:
    """The accuracy of a run, in (0, 1)."""
    digits = run.m * 0.377 + run.start * 5.31 + run.before * 1.13 + float(run.seed) * 0.717
    return 0.5 + 0.4 * (digits - math.floor(digits))


def alone(m: int, seed: int) -> Trained:
    """The run that stands alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Trained(m, round(Model(m).start.item(), 6), 0, seed)


def examine_runs(bench: Bench, answer: Any, widths: Sequence[int], seeds: Sequence[int]) -> None:
    """Raise ``Mistake`` at the first thing that keeps the runs from being independent, or the table from being theirs."""
    runs = bench.runs
    require(bool(runs), "nothing is trained: train_and_validate(model, seed) for each width and each seed")
    wanted = [alone(m, seed) for m in widths for seed in seeds]
    _examine_seeds(runs, widths, seeds)
    _examine_models(bench, widths)
    _examine_widths(runs, widths, seeds)
    _examine_starts(runs, wanted, seeds)
    _examine_table(answer, wanted, widths, seeds)


def _examine_seeds(runs: Sequence[Trained], widths: Sequence[int], seeds: Sequence[int]) -> None:
    given = {run.seed for run in runs}
    require(
        given != {seeds[0]},
        "every run is trained with the first seed: the order of the texts has to follow each run's own",
    )
    require(
        given != {seeds[-1]},
        "every run is trained with the last seed: a lambda looks its variables up when it is called, and then the loop is "
        "over; call at once, or bind them: lambda m=m, seed=seed: …",
    )
    require(
        given <= set(seeds),
        f"train_and_validate is given the seeds {sorted(given, key=str)}: they are {list(seeds)}, take the values themselves",
    )
    count = len(widths) * len(seeds)
    require(len(runs) >= count, f"{len(runs)} runs for {len(widths)} widths and {len(seeds)} seeds: it must be {count}")
    require(len(runs) <= count, f"{len(runs)} runs where {count} are wanted: some are trained more than once")


def _examine_models(bench: Bench, widths: Sequence[int]) -> None:
    if not any(run.before for run in bench.runs):
        return
    if len(bench.built) == 1:
        raise Mistake(
            "one model is built for the whole sweep: each run goes on training where the one before it ended, and all have "
            f"the width {bench.built[0].bottleneck_dim}"
        )
    if len(bench.built) == len(widths):
        raise Mistake(
            "one model is built for each width: with the second seed it goes on training where the first one ended, so "
            "build a new one for every run"
        )
    raise Mistake("a model that has been trained is trained again: build a new one for every run")


def _examine_widths(runs: Sequence[Trained], widths: Sequence[int], seeds: Sequence[int]) -> None:
    trained = {run.m for run in runs}
    require(
        trained != {widths[-1]},
        f"all runs have the width {widths[-1]}, the last: a lambda looks m up when it is called, and then the loop is over; "
        "call at once, or bind it: lambda m=m: …",
    )
    require(
        trained == set(widths),
        f"models of the widths {sorted(trained)} are trained: it must be {sorted(widths)}, build(m) for each",
    )
    pairs = {(run.m, run.seed) for run in runs}
    require(
        len(pairs) == len(runs),
        "widths and seeds are not all combined: each width with each seed, a loop inside a loop",
    )


def _examine_starts(runs: Sequence[Trained], wanted: Sequence[Trained], seeds: Sequence[int]) -> None:
    if set(runs) == set(wanted):
        return
    starts, firsts = [run.start for run in runs], {run.m: run.start for run in reversed(runs)}
    first = alone(runs[0].m, seeds[0]).start
    if all(start == first for start in starts):
        raise Mistake(
            "every run begins with the weights of the first seed: the seed belongs to the run, torch.manual_seed(seed) before "
            "each build"
        )
    if all(run.start == alone(run.m, run.m).start for run in runs):
        raise Mistake("the width is taken for the seed: torch.manual_seed(seed)")
    if len(set(starts)) == 1:
        raise Mistake(
            "every run begins with the same weights, so the spread lacks a part: torch.manual_seed(seed) before each build"
        )
    if all(run.start == firsts[run.m] for run in runs):
        raise Mistake(
            "all seeds of a width begin with the same weights, copied or seeded once: torch.manual_seed(seed) and then "
            "build(m), for every run"
        )
    right = [run.start == alone(run.m, run.seed).start for run in runs]
    if right[0] and not all(right):
        raise Mistake(
            "the first run begins as its seed says, a later one does not: the seed is set once, and then the weights depend on "
            "what ran before; set it for every run"
        )
    raise Mistake(
        "the weights are not those that torch.manual_seed(seed) gives: set the seed of the run right before build(m), which "
        "draws them, not after it"
    )


def _examine_table(answer: Any, wanted: Sequence[Trained], widths: Sequence[int], seeds: Sequence[int]) -> None:
    require(answer is not None, NOTHING)
    require(isinstance(answer, dict), f"it must return a dict of lists, it returned a {type(answer).__name__}")
    require(set(answer) == set(widths), f"the keys are {list(answer)}: they must be the widths, {list(widths)}")
    right = {m: [accuracy(run) for run in wanted if run.m == m] for m in widths}
    for m in widths:
        values = answer[m]
        require(
            not isinstance(values, (int, float)),
            f"width {m} has a single number: keep one for each seed, in a list, or the spread is lost",
        )
        values = [float(value) for value in values]
        require(
            len(values) != len(widths) * len(seeds),
            "all widths share one list, as dict.fromkeys(widths, []) makes it: a list of its own for each",
        )
        require(
            len(values) == len(seeds), f"width {m} has {len(values)} results for {len(seeds)} seeds: keep one for each"
        )
        require(
            values == right[m] or sorted(values) != sorted(right[m]),
            f"the results of width {m} are in another order than the seeds",
        )
        require(values == right[m], f"the runs are right, and width {m} has other numbers than they returned")
