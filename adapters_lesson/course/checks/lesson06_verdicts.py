"""Made-up results for exercise 6.2, the verdicts on them, and what poor ways to judge say."""

import random
from collections.abc import Mapping
from statistics import mean, stdev

from .comparison import T95, WRONG_WIDTHS, formula, interval

VERDICTS = AS_GOOD, WORSE, UNCLEAR = "as good", "worse", "unclear"
REFERENCE, MARGIN = 64, 0.02
Case = Mapping[int, Mapping[int, float]]  # width to seed to accuracy
Verdicts = dict[int, str]


def _case(reference: tuple[float, ...], lost: Mapping[int, tuple[float, ...]]) -> Case:
    """Accuracies of the reference in per cent, and how many points fewer each seed of some widths has, in any order."""
    seeds = range(len(reference))
    others = {m: {s: (reference[s] - points[s]) / 100 for s in reversed(seeds)} for m, points in lost.items()}
    return {REFERENCE: {s: reference[s] / 100 for s in seeds}, **others}


_draw = random.Random(6).gauss
_MANY = {100 + m: tuple(_draw(m % 11 - 3, (0.2, 0.8, 2.0)[m % 3]) for _ in range(4)) for m in range(100)}
CASES: tuple[Case, ...] = (
    _case(
        (90.0, 91.0, 90.5),
        {1: (12.0, 11.0, 13.0), 24: (-0.06, 0.94, 1.94), 32: (-0.19, 0.81, 1.81), 96: (-0.24, 0.16, 0.56)},
    ),
    # Surely behind, by less than the margin; a mean below the margin, an interval beyond it; one lucky seed; one not.
    _case(
        (88.0, 87.0, 89.0, 88.5, 87.5),
        {
            4: (1.0, 1.1, 0.9, 1.0, 1.2),
            8: (3.4, -0.6, 2.9, -0.7, 1.0),
            16: (6.0, 5.5, -3.0, 6.5, 5.0),
            32: (0.3, 0.1, 2.3, 0.2, 0.0),
            96: (-1.5, 2.3, -1.8, -2.0, -1.9),
        },
    ),
    # A mean above the margin, an interval around it that ends above zero; a mean that is much better and uncertain.
    _case((70.0, 72.0, 71.0), {8: (3.2, 2.4, 2.0), 32: (-2.0, -9.0, -5.0), 256: (1.2, 1.5, 1.8)}),
    _case((80.0, 82.0, 81.0, 80.5), _MANY),  # more than two rules agree on by chance
)


_KNOWN = {"GOOD": AS_GOOD, "WORSE": WORSE, "UNCLEAR": UNCLEAR, "M": MARGIN, "ends": interval}
_RULE = "GOOD if high < margin else WORSE if low > margin else UNCLEAR"
_KNOWN["verdict"] = formula(_RULE, "low high margin=M", **_KNOWN)


def judged(rule: str, case: Case) -> Verdicts:
    """The verdict on each width by a formula, which gives one, or True for "as good" and False for "worse".

    It may use the n differences v, their interval's ends, Student's t, the accuracies of the reference, a, and of the
    width, b, the differences from the best width, and the means of all widths.
    """
    said = formula(rule, "v low high n t a b from_best means", se=lambda v: stdev(v) / len(v) ** 0.5, **_KNOWN)
    means = {m: mean(seeds.values()) for m, seeds in case.items()}
    found, a, best = {}, case[REFERENCE], case[max(case, key=means.__getitem__)]
    for m in case.keys() - {REFERENCE}:
        b = case[m]
        d, from_best = ([other[seed] - b[seed] for seed in a] for other in (a, best))
        values = len(d), T95[len(d)], list(a.values()), list(b.values()), from_best, means.values()
        verdict = said(d, *interval(d), *values)
        found[m] = {True: AS_GOOD, False: WORSE}.get(verdict, verdict)
    return found


RIGHT = "verdict(low, high)"
RULES = {
    "mean(v) < M": "it looks at the means alone, so nothing is ever unclear: take the interval's ends",
    "verdict(-high, -low)": "the differences are turned round: the reference's accuracy minus the width's",
    "{GOOD: WORSE, WORSE: GOOD}.get(verdict(low, high), UNCLEAR)": "'as good' and 'worse' are exchanged",
    "GOOD if low < 0 < high else verdict(low, high)": "an interval that includes zero shows nothing but the noise",
    "low <= M": "it takes 'not surely worse' for 'as good': what the interval leaves open is unclear",
    "high < M": "it takes 'not surely as good' for 'worse': what the interval leaves open is unclear",
    "WORSE if low > 0 else GOOD if high < M else UNCLEAR": "it calls worse what surely loses something, however little",
    "verdict(low, high, 0.0)": "the margin is not used, or held against per cents: 0.02 is two points",
    "verdict(low, high, 2.0)": "the margin is taken in points, accuracies are shares: 0.02 is two points",
    "GOOD if high < M else WORSE if mean(v) > M else UNCLEAR": "'worse' is told by the mean: take the lower end",
    "verdict((high - low) / 2 - mean(v), (high - low) / 2 + mean(v))": "the mean and the half-width are exchanged",
    "verdict(low, high, -M)": "the margin has the wrong sign: a width may lose up to margin",
    "GOOD if -M < low and high < M else WORSE if low > M else UNCLEAR": "being better than the margin is no fault",
    "GOOD if max(v) < M else WORSE if min(v) > M else UNCLEAR": "it judges by the best and the worst seed",
    "verdict(v[0], v[0])": "it looks at one seed only: the others may tell another story",
    "max(a) - max(b) < M": "it compares the best single runs: the luckiest seed says nothing about the width",
    "verdict(*ends(from_best))": "it compares with the best width: reference is given, chosen before",
    "verdict(*ends([x - y for x, y in zip(a, b)]))": "the differences pair different seeds: use accuracies[m][seed]",
}
# With four seeds, or for verdicts alone, these say what another rule says.
_LIKE_OTHERS = ("2 * stdev(v) / sqrt(n)", "t * stdev(v) / n", "t * stdev(v) ** 2 / sqrt(n)")
_AROUND_THE_MEAN = {  # half the width of an interval
    "0.5 * t * se(v)": "the half-width is halved again: mean_and_interval returns half the width",
    "max(v) - min(v)": "the range from lowest to highest is no interval of the mean: it grows with n",
    "t * (se(a) + se(b))": "it asks whether two intervals overlap: form the differences first",
    "t * se(b)": "it uses the width's own interval: form the differences, seed by seed, first",
    "stdev(means)": "the spread is taken over the widths: it is the seeds that say how far luck goes",
    **{half: message for half, message in WRONG_WIDTHS.items() if half not in _LIKE_OTHERS},
}
RULES |= {f"verdict(mean(v) - ({half}), mean(v) + ({half}))": message for half, message in _AROUND_THE_MEAN.items()}
