"""Made-up worlds for exercise 7.4, in which the truth is known, and what poorly designed experiments conclude in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, stdev

from .report import require

OURS, FULL = "adapters", "full fine-tuning"
RATES = {OURS: (1e-3, 3e-3, 1e-2), FULL: (2e-5, 5e-5, 1e-4)}
SEEDS = (0, 1, 2, 3, 4)
Run = Callable[[str, float, int], Mapping[str, float]]
Rates = Mapping[str, Sequence[float]]
Design = Callable[[Run, Rates, Sequence[int]], bool]


@dataclass(frozen=True)
class World:
    """What every run gives: a method at its best rate has 80 %, and so on in points.

    Args:
        story: what is true in this world, for a message.
        supported: whether the runs support the claim.
        test: by how much the adapters differ from full fine-tuning, for each seed.
        best: for each method, the place of its best rate among its rates.
        lucky: what the adapters' first rate gains on the test split, and only there.
        validation: by how much the adapters differ on the validation split, if not as on the test split.
        noise: what each seed adds to both methods.
    """

    story: str
    supported: bool
    test: tuple[float, ...]
    best: Mapping[str, int] = field(default_factory=lambda: {OURS: 1, FULL: 1})
    lucky: float = 0.0
    validation: float | None = None
    noise: tuple[float, ...] = (0.0, 0.1, -0.1, 0.05, -0.05)

    def accuracies(self, method: str, rate: int, seed: int) -> dict[str, float]:
        """Accuracies of a run with the rate at the place ``rate``, as shares."""
        away = abs(rate - self.best[method])
        lost = (14 if method == OURS else 4) + 0.5 * away if away else 0
        test = validation = 80 + self.noise[seed] - lost
        if method == OURS:
            test += self.test[seed] + (self.lucky if rate == 0 else 0)
            validation += self.test[seed] if self.validation is None else self.validation
        return {"validation": validation / 100, "test": test / 100}


class Recorded:
    """The ``run`` of a world: trains nothing, and notes what it was asked for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: dict[str, set[tuple[float, int]]] = {OURS: set(), FULL: set()}

    def __call__(self, method: str, learning_rate: float, seed: int) -> dict[str, float]:
        require(method in RATES, f"there is no method {method!r}: it is {OURS!r} or {FULL!r}")
        require(
            learning_rate in RATES[method],
            f"a run of {method} was asked for with the rate {learning_rate!r}: rates[{method!r}] are {RATES[method]}, each method "
            "has its own",
        )
        require(seed in SEEDS, f"a run was asked for with the seed {seed!r}: seeds are {SEEDS}")
        self.asked[method].add((learning_rate, seed))
        return self.world.accuracies(method, RATES[method].index(learning_rate), seed)

    def examine(self) -> None:
        """Raise ``Mistake`` for runs from which nothing could be concluded, whatever they say."""
        require(
            any(self.asked.values()), "no run is made: run(method, learning_rate, seed) trains a model and measures it"
        )
        for method in (FULL, OURS):
            require(
                bool(self.asked[method]),
                f"no run of {method} is made: the claim is about the difference between the two",
            )
        for method, asked in self.asked.items():
            tried = {rate for rate, _ in asked}
            require(
                len(tried) == len(RATES[method]),
                f"{method}: {len(tried)} of {len(RATES[method])} rates tried; a method looks bad with a wrong "
                "one, so both get all their tries",
            )
            seeds = max(len({seed for r, seed in asked if r == rate}) for rate in tried)
            require(
                seeds == len(SEEDS),
                f"{method}: no rate has more than {seeds} of {len(SEEDS)} seeds; after choosing the rate, run it with "
                "all seeds, both methods alike",
            )


WORLDS = (
    World("where both are equally good and the seeds agree,", True, (0.0, 0.1, -0.1, 0.2, -0.2)),
    World("where adapters are 3 points worse in every seed,", False, (-3.0, -3.1, -2.9, -3.2, -2.8)),
    World("where the means agree and the seeds differ by several points,", False, (2.5, -2.6, 0.4, -2.2, 1.4)),
    World("where adapters are half a point worse in every seed,", True, (-0.5, -0.45, -0.55, -0.5, -0.5)),
    World("where adapters are 3 points better in every seed,", True, (3.0, 3.1, 2.9, 3.2, 2.8)),
    World("where the first seed is lucky and the others are 3 points worse,", False, (0.5, -3.0, -3.1, -2.9, -3.0)),
    World("where one seed is as good as full fine-tuning's best,", False, (-3.0, -3.1, 0.2, -2.9, -3.0)),
    World("where the rate chosen on validation is 2 points worse, and another one lucky on the test split,", False,
          (-2.0, -2.1, -1.9, -2.0, -2.0), lucky=17.0),
    World("where full fine-tuning wants the last of its rates, and adapters are 3 points worse than that,", False,
          (-3.0, -3.1, -2.9, -3.0, -3.0), {OURS: 1, FULL: 2}),
    World("where adapters want the last of their rates and are as good,", True, (0.0, 0.1, -0.1, 0.0, 0.0), {OURS: 2, FULL: 0}),
    World("where adapters are as good on validation, and 3 points worse on test,", False,
          (-3.0, -3.1, -2.9, -3.0, -3.0), validation=0.0),
    World("where adapters are 1.3 points worse, give or take half a point,", False, (-1.3, -0.9, -1.7, -1.6, -1.0)),
    World("where four seeds are half a point better and one is 8 points worse,", False, (0.5, 0.5, 0.5, -8.0, 0.5)),
    World("where one seed is a point worse and the mean of all is equal,", True, (-1.1, 0.3, 0.3, 0.2, 0.3)),
    World("where adapters' seeds agree and full fine-tuning's are far apart,", False,
          (-2.0, 2.0, -1.5, 1.5, 0.0), noise=(2.0, -2.0, 1.5, -1.5, 0.0)),
)  # fmt: skip


_Conclusion = Callable[[list[float], list[float]], bool]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper end of the 95 % interval of the mean of five values."""
    half = 2.776 * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def _differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _by_interval(conclude: Callable[[float, float], bool]) -> _Conclusion:
    """Concludes from the two ends of the interval of the differences."""
    return lambda a, b: conclude(*_interval(_differences(a, b)))


_supported = _by_interval(lambda low, high: low > -0.01)


def experiment(
    conclude: _Conclusion = _supported,
    split: str = "test",
    chosen_on: str = "validation",
    choose: Callable[..., float] = max,
) -> Design:
    """An experiment that differs from the right one in what is said."""

    def design(run: Run, rates: Rates, seeds: Sequence[int]) -> bool:
        values = []
        for method in (OURS, FULL):
            rate = choose(rates[method], key=lambda r, m=method: run(m, r, seeds[0])[chosen_on])
            values.append([run(method, rate, seed)[split] for seed in seeds])
        return conclude(*values)

    return design


def one_choice(run: Run, rates: Rates, seeds: Sequence[int]) -> bool:
    """The place of the adapters' best rate is taken for both methods."""
    place = max(range(3), key=lambda i: run(OURS, rates[OURS][i], seeds[0])["validation"])
    values = [[run(method, rates[method][place], seed)["test"] for seed in seeds] for method in (OURS, FULL)]
    return _interval(_differences(*values))[0] > -0.01


def all_runs_pooled(run: Run, rates: Rates, seeds: Sequence[int]) -> bool:
    """Every rate counts, good or bad."""
    values = [[mean(run(m, rate, seed)["test"] for rate in rates[m]) for seed in seeds] for m in (OURS, FULL)]
    return _interval(_differences(*values))[0] > -0.01


right_design = experiment()
_POINT = "accuracies are shares, and one point is 0.01"
DESIGNS: list[tuple[Design, str]] = [
    (experiment(lambda a, b: mean(a) - mean(b) > -0.01), "it compares the means alone: where the seeds are far apart they agree by luck, "
                                                          "so the lower end of the interval has to be above −1 point"),
    (experiment(lambda a, b: abs(mean(a) - mean(b)) < 0.01), "it compares the means alone, and calls it a failure when adapters are better"),
    (experiment(_by_interval(lambda low, high: low < 0 < high)), "it takes 'no significant difference' for 'within one point': with few or noisy "
                                                                  "runs every interval includes zero"),
    (experiment(_by_interval(lambda low, high: high > 0)), "it takes 'not significantly worse' for 'within one point': with few or noisy runs "
                                                            "every interval includes zero"),
    (experiment(_by_interval(lambda low, high: low > -0.01 and high < 0.01)), "it also asks for the upper end to be below +1 point: being better "
                                                                               "is no failure here"),
    (experiment(_by_interval(lambda low, high: high > -0.01)), "it looks at the interval's upper end: that is what cannot be ruled out; the claim "
                                                                "needs the lower end"),
    (experiment(_by_interval(lambda low, high: (high - low) / 2 < 0.01)), "it asks only whether the interval is narrow, not where it lies"),
    (experiment(_by_interval(lambda low, high: -high > -0.01)), "the difference is turned round: adapters minus full fine-tuning"),
    (experiment(_by_interval(lambda low, high: low > 0)), "it asks the adapters to be better: the claim is that they are at most a point worse, low > −0.01; "
                                                           + _POINT),
    (experiment(_by_interval(lambda low, high: low > -1)), f"it supports the claim in every world: {_POINT}"),
    (experiment(lambda a, b: min(_differences(a, b)) > -0.01), "it asks every single seed to be within one point: the claim is about the mean, and "
                                                                "the more seeds, the more surely one falls out"),
    (experiment(lambda a, b: max(a) - max(b) > -0.01), "it compares the best seeds: the luckiest run says nothing about the method, take the mean"),
    (experiment(lambda a, b: a[0] - b[0] > -0.01), "it compares one seed only: the others may tell another story"),
    (experiment(lambda a, b: median(_differences(a, b)) > -0.01), "it compares the medians alone: one bad seed in five vanishes in them"),
    (experiment(lambda a, b: median(a) - median(b) > -0.01), "it compares the medians alone: one bad seed in five vanishes in them"),
    (experiment(lambda a, b: _interval(a)[0] > mean(b) - 0.01), "it knows how uncertain the adapters are, and takes full fine-tuning's mean for "
                                                                 "exact: take the interval of the differences"),
    (experiment(split="validation"), "it reports the validation split, on which the rates were chosen: report the test split"),
    (experiment(chosen_on="test"), "it chooses the rate on the test split, so the reported number is the luckiest one: choose on validation"),
    (experiment(choose=min), "it chooses the worst rate: max instead of min, these are accuracies"),
    (one_choice, "the rate is chosen for the adapters, and full fine-tuning takes the one in the same place: choose for each by its own runs"),
    (all_runs_pooled, "it averages over all rates, also those that no one would choose: choose the best first, on validation"),
]  # fmt: skip
