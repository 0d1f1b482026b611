"""A test bench for exercise 6.4: models that train in no time, and a record of what was done with them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .check import Mistake, require
from .comparison import table

_LATE = "is it looked up when the loop is over, as in a lambda or def that is called later? Call at once, or bind: "


class Trained(NamedTuple):
    """One run: which model, as it was before, and with which seed."""

    m: int
    start: float
    before: int
    seed: Any

    @property
    def accuracy(self) -> float:
        """In (0, 1), and no other run has it."""
        return 0.5 + 0.4 * ((self.m * 0.377 + self.start * 5.31 + self.before * 1.13 + float(self.seed) * 0.717) % 1)


class Model(nn.Module):
    """Remembers the random number with which it was built, and how often it has been trained."""

    def __init__(self, bottleneck_dim: int) -> None:
        super().__init__()
        self.bottleneck_dim, self.trained = bottleneck_dim, 0
        self.start = nn.Parameter(torch.rand(()))

    def run(self, seed: Any) -> Trained:
        """What would be trained now."""
        return Trained(self.bottleneck_dim, round(self.start.item(), 6), self.trained, seed)


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
        """An accuracy; the model goes on from there."""
        kind = type(model).__name__
        require(isinstance(model, Model), f"train_and_validate got a {kind} for a model: give it what build returns")
        self.runs.append(model.run(seed))
        model.trained += 1
        torch.rand(3)  # as dropout would
        return self.runs[-1].accuracy


def _alone(m: int, seed: int) -> Trained:
    """The run that stands alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(m).run(seed)


def examine_runs(bench: Bench, answer: Any, widths: Sequence[int], seeds: Sequence[int]) -> None:
    """Raise ``Mistake`` at the first thing that keeps the runs from being independent, or the table theirs."""
    runs, count = bench.runs, len(widths) * len(seeds)
    require(bool(runs), "nothing is trained: train_and_validate(model, seed) for each width and each seed")
    given, trained = {run.seed for run in runs}, {run.m for run in runs}
    require(given != {seeds[0]}, "every run is trained with the first seed: the order of texts follows each run's own")
    require(given != {seeds[-1]}, f"every run is trained with the last seed: {_LATE}lambda m=m, seed=seed: …")
    numbers = f"train_and_validate is given the seeds {sorted(given, key=str)}: take the values in {seeds} themselves"
    require(given <= set(seeds), numbers)
    require(len(runs) >= count, f"{len(runs)} runs for {len(widths)} widths and {len(seeds)} seeds: it must be {count}")
    require(len(runs) <= count, f"{len(runs)} runs where {count} are wanted: some are trained more than once")
    if any(run.before for run in runs):
        built = len(bench.built)
        require(built != 1, "one model is built for the whole sweep: each run goes on where the last one ended")
        one = "one model is built for each width" if built == len(widths) else "a trained model is trained again"
        raise Mistake(f"{one}: with the second seed it goes on where the first ended, so build a new one for every run")
    require(trained != {widths[-1]}, f"all runs have the width {widths[-1]}, the last: {_LATE}lambda m=m: …")
    wanted = [_alone(m, seed) for m in widths for seed in seeds]
    if sorted((run.m, run.seed) for run in runs) != sorted((run.m, run.seed) for run in wanted):
        raise Mistake(f"each width with each seed, a loop inside a loop: the widths trained are {sorted(trained)}")
    if set(runs) != set(wanted):
        raise Mistake(_why_other_starts(runs, seeds[0]))
    for m, values in table(answer, widths, "width: accuracies").items():
        if isinstance(values, (int, float)):
            raise Mistake(f"width {m} has a single number: keep one for each seed, in a list, or the spread is lost")
        require(not isinstance(values, (str, dict)), f"width {m} has a {type(values).__name__}: keep a list, by seeds")
        values, right = [float(value) for value in values], [run.accuracy for run in wanted if run.m == m]
        require(len(values) != count, "all widths share one list, as dict.fromkeys(widths, []) makes it")
        require(len(values) == len(seeds), f"width {m} has {len(values)} results for {len(seeds)} seeds: one for each")
        ordered = values == right or sorted(values) != sorted(right)
        require(ordered, f"the results of width {m} are in another order than the seeds")
        require(values == right, f"the runs are right, and width {m} has other numbers than they returned")


def _why_other_starts(runs: Sequence[Trained], first_seed: int) -> str:
    """Why runs with the right widths and seeds begin with other weights than they should."""
    starts, firsts = {run.start for run in runs}, {run.m: run.start for run in reversed(runs)}
    if starts == {_alone(runs[0].m, first_seed).start}:
        return "every run begins with the weights of the first seed: torch.manual_seed(seed) before each build"
    if all(run.start == _alone(run.m, run.m).start for run in runs):
        return "the width is taken for the seed: torch.manual_seed(seed)"
    if len(starts) == 1:
        return "every run begins with the same weights: torch.manual_seed(seed) before each build"
    if all(run.start == firsts[run.m] for run in runs):
        return "all seeds of a width begin with the same weights: for each run set its own seed, then build"
    if runs[0] == _alone(runs[0].m, runs[0].seed):
        return "the first run begins with its seed's weights, later ones do not: set each run's seed"
    return "the weights are not those that torch.manual_seed(seed) gives: call it right before build(m)"
