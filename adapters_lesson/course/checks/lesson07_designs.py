"""Made-up worlds for exercise 7.4, in which the truth is known, and what poor experiments conclude in them."""

from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

from .check import require
from .comparison import formula, interval

OURS, FULL = "adapters", "full fine-tuning"
RATES = {OURS: (1e-3, 3e-3, 1e-2), FULL: (2e-5, 5e-5, 1e-4)}
SEEDS = (0, 1, 2, 3, 4)


class World(NamedTuple):
    """What every run gives: a method at its best rate has 80 %, and so on in points."""

    story: str  # what is true in this world, for a message
    supported: bool  # whether the runs support the claim
    test: tuple[float, ...]  # by how much the adapters differ from full fine-tuning, for each seed
    best: tuple[int, int] = (1, 1)  # the places of the best rates, the adapters' and full fine-tuning's
    lucky: float = 0.0  # what the adapters' first rate gains on the test split, and only there
    validation: float | None = None  # by how much the adapters differ on the validation split, if not as on test
    noise: tuple[float, ...] = (0.0, 0.1, -0.1, 0.05, -0.05)  # what each seed adds to both methods


class Recorded:
    """The ``run`` of a world: trains nothing, and notes what it was asked for."""

    def __init__(self, world: World) -> None:
        self.world, self.asked = world, {OURS: set[tuple[float, int]](), FULL: set[tuple[float, int]]()}

    def __call__(self, method: str, learning_rate: float, seed: int) -> dict[str, float]:
        require(method in RATES, f"there is no method {method!r}: it is {OURS!r} or {FULL!r}")
        require(learning_rate in RATES[method], f"rate {learning_rate!r} is not {method}'s: each method has its own")
        require(seed in SEEDS, f"a run was asked for with the seed {seed!r}: seeds are {SEEDS}")
        self.asked[method].add((learning_rate, seed))
        world, place = self.world, RATES[method].index(learning_rate)
        away = abs(place - world.best[method == FULL])
        test = validation = 80 + world.noise[seed] - bool(away) * ((14 if method == OURS else 4) + 0.5 * away)
        if method == OURS:
            test += world.test[seed] + (world.lucky if place == 0 else 0)
            validation += world.test[seed] if world.validation is None else world.validation
        return {"validation": validation / 100, "test": test / 100}

    def examine(self) -> None:
        """Raise ``Mistake`` for runs from which nothing could be concluded, whatever they say."""
        require(any(self.asked.values()), "no run is made: run(method, learning_rate, seed) trains and measures")
        for method, asked in self.asked.items():
            require(bool(asked), f"no run of {method} is made: the claim is about both")
        for method, asked in self.asked.items():
            tried = {rate for rate, _ in asked}
            few = f"{method}: {len(tried)} of {len(RATES[method])} rates tried; a wrong one looks bad, so try them all"
            require(len(tried) == len(RATES[method]), few)
            seeds = max(len({seed for r, seed in asked if r == rate}) for rate in tried)
            few = f"{method}: no rate has more than {seeds} of {len(SEEDS)} seeds; run the best with all, both methods"
            require(seeds == len(SEEDS), few)


_WORSE, _TWO_WORSE = (-3.0, -3.1, -2.9, -3.0, -3.0), (-2.0, -2.1, -1.9, -2.0, -2.0)
_FAR_APART = (2.0, -2.0, 1.5, -1.5, 0.0)
WORLDS = (
    World("where both are equally good and the seeds agree,", True, (0.0, 0.1, -0.1, 0.2, -0.2)),
    World("where adapters are 3 points worse in every seed,", False, (-3.0, -3.1, -2.9, -3.2, -2.8)),
    World("where the means agree and the seeds differ by several points,", False, (2.5, -2.6, 0.4, -2.2, 1.4)),
    World("where adapters are half a point worse in every seed,", True, (-0.5, -0.45, -0.55, -0.5, -0.5)),
    World("where adapters are 3 points better in every seed,", True, (3.0, 3.1, 2.9, 3.2, 2.8)),
    World("where the first seed is lucky and the others are 3 points worse,", False, (0.5, -3.0, -3.1, -2.9, -3.0)),
    World("where one seed is as good as full fine-tuning's best,", False, (-3.0, -3.1, 0.2, -2.9, -3.0)),
    World("where a rate is lucky on the test split and the best is 2 points worse,", False, _TWO_WORSE, lucky=17.0),
    World("where adapters are worse than the last rate of full fine-tuning,", False, _WORSE, (1, 2)),
    World("where adapters want their last rate and are as good,", True, (0.0, 0.1, -0.1, 0.0, 0.0), (2, 0)),
    World("where adapters are as good on validation, and 3 points worse on test,", False, _WORSE, validation=0.0),
    World("where adapters are 1.3 points worse, give or take half a point,", False, (-1.3, -0.9, -1.7, -1.6, -1.0)),
    World("where four seeds are half a point better and one is 8 points worse,", False, (0.5, 0.5, 0.5, -8.0, 0.5)),
    World("where one seed is a point worse and the mean of all is equal,", True, (-1.1, 0.3, 0.3, 0.2, 0.3)),
    # Half the interval of five seeds is 1.24 standard deviations. What takes less says yes here …
    World(
        "where adapters are 0.3 points worse, give or take 0.67,",
        False,
        (0.55, -1.15, -0.72, -0.3, 0.12),
        noise=(0.0,) * 5,
    ),
    World("where full fine-tuning's seeds are far apart,", False, (-2.0, 2.0, -1.5, 1.5, 0.0), noise=_FAR_APART),
    World("where both have seeds far apart and adapters are 3 points worse,", False, _WORSE, noise=_FAR_APART),
    # … and what takes more says no here.
    World("where adapters are 0.2 points worse, give or take 0.6,", True, (-0.98, -0.59, -0.2, 0.19, 0.58)),
    World("where the last seed is a point worse and the others are two,", False, (-2.2, -2.0, -1.8, -2.1, -0.9)),
    World("where adapters want their first rate and are as good,", True, (0.0, 0.1, -0.1, 0.0, 0.0), (0, 2)),
)


def experiment(
    world: World,
    conclude: str = "low > -0.01",
    split: str = "test",
    chosen_on: str = "validation",
    taken: slice = slice(-1, None),
    chooses: str = "",
) -> bool:
    """An experiment with the rates that are ``taken`` from worst to best; one method ``chooses``, or each for itself.

    It concludes by a formula of the accuracies, a (adapters) and b, their differences d, and the ends of d's interval.
    """
    run, values = Recorded(world), []
    for method in (OURS, FULL):
        by = chooses or method
        found = [run(by, rate, SEEDS[0])[chosen_on] for rate in RATES[by]]
        ranked = sorted(range(3), key=found.__getitem__)
        used = [RATES[method][i] for i in ranked[taken]]
        values.append([mean(run(method, rate, seed)[split] for rate in used) for seed in SEEDS])
    differences = [x - y for x, y in zip(*values, strict=True)]
    concluded = formula(conclude, "a b d low high", interval=interval)
    return concluded(*values, differences, *interval(differences))


_POINT = "accuracies are shares, and one point is 0.01"
_FEW = "its interval is too short for five seeds (1.96, a bootstrap, s alone?): mean_and_interval has Student's t"
_NOISE = "with few or noisy runs every interval includes zero"
_CONCLUSIONS = {
    "mean(d) > -0.01": "it compares the means alone: the interval's lower end has to be above −1 point",
    "abs(mean(d)) < 0.01": "it compares the means alone, and calls it a failure when adapters are better",
    "low < 0 < high": f"it takes 'no significant difference' for 'within one point': {_NOISE}",
    "high > 0": f"it takes 'not significantly worse' for 'within one point': {_NOISE}",
    "low > -0.01 and high < 0.01": "it also asks for the upper end: being better is no failure",
    "high > -0.01": "it looks at the interval's upper end: the claim needs the lower end",
    "-high > -0.01": "the difference is turned round: adapters minus full fine-tuning",
    "low > 0": f"it asks the adapters to be better: the claim is at most a point worse; {_POINT}",
    "low > -1": f"it supports the claim in every world: {_POINT}",
    "min(d) > -0.01": "it asks every single seed to be within one point: the claim is about the mean",
    "max(a) - max(b) > -0.01": "it compares the best seeds, the luckiest runs: take the mean",
    "d[0] > -0.01": "it compares one seed only: the others may tell another story",
    "median(d) > -0.01": "it compares the medians alone: one bad seed in five vanishes in them",
    "median(a) - median(b) > -0.01": "it compares the medians alone: one bad seed in five vanishes in them",
    "mean(d) - 1.96 * stdev(d) / sqrt(5) > -0.01": _FEW,
    "mean(d) - 2 * stdev(d) > -0.01": "its interval is too wide: half of that of a mean is t · s / √n, not t · s",
    "interval(a)[0] > mean(b) - 0.01": "it takes full fine-tuning's mean for exact",
}
_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"split": "validation"}, "it reports the split on which the rates were chosen: report the test split"),
    ({"chosen_on": "test"}, "it chooses the luckiest rate on the test split: choose on validation"),
    ({"taken": slice(1)}, "it chooses the worst rate: max instead of min, these are accuracies"),
    ({"chooses": OURS}, "full fine-tuning takes the one in the same place: choose each rate by its own runs"),
    ({"taken": slice(3)}, "it averages over all rates, the bad ones too: choose the best first, on validation"),
]
_CHANGES += [({"conclude": text}, message) for text, message in _CONCLUSIONS.items()]
DESIGNS: dict[Callable[[World], bool], str] = {partial(experiment, **changes): told for changes, told in _CHANGES}
