"""Made-up results for exercise 6.2, the verdicts on them, and what poor ways to judge say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import mean, median, pstdev, stdev

VERDICTS = AS_GOOD, WORSE, UNCLEAR = "as good", "worse", "unclear"
REFERENCE, MARGIN = 64, 0.02
Case = Mapping[int, Mapping[int, float]]  # width to seed to accuracy
Rule = Callable[[Case], dict[int, str]]
_T95 = {3: 4.303, 4: 3.182, 5: 2.776}


def _case(reference: tuple[float, ...], **lost: tuple[float, ...]) -> Case:
    """Accuracies of the reference in per cent, and for "m8" and so on how many points fewer each seed has.

    The seeds of a width are in another order than those of the reference, as when runs end in another order.
    """
    n = len(reference)
    case = {REFERENCE: {seed: reference[seed] / 100 for seed in range(n)}}
    for name, points in lost.items():
        case[int(name[1:])] = {seed: (reference[seed] - points[seed]) / 100 for seed in reversed(range(n))}
    return case


CASES: tuple[Case, ...] = (
    _case((90.0, 91.0, 90.5), m1=(12.0, 11.0, 13.0), m8=(0.1, 0.3, 0.2), m16=(0.0, 9.0, 1.0),
          m24=(-0.06, 0.94, 1.94), m32=(-0.19, 0.81, 1.81), m96=(-0.24, 0.16, 0.56)),
    # The seeds agree on the difference, and differ from each other.
    _case((80.0, 86.0, 92.0, 84.0), m2=(3.0, 3.4, 3.2, 2.9), m8=(0.5, 0.2, 0.4, 0.3), m16=(-5.5, 0.6, 6.6, -1.5), m128=(-4.0, -3.8, -4.1, -3.9)),
    # Surely behind, by less than the margin; a mean below the margin, an interval beyond it; one lucky seed; one unlucky.
    _case((88.0, 87.0, 89.0, 88.5, 87.5), m4=(1.0, 1.1, 0.9, 1.0, 1.2), m8=(3.4, -0.6, 2.9, -0.7, 1.0),
          m16=(6.0, 5.5, -3.0, 6.5, 5.0), m32=(0.3, 0.1, 2.3, 0.2, 0.0), m96=(-1.5, 2.3, -1.8, -2.0, -1.9)),
    # A mean above the margin, an interval around it that ends above zero; a mean that is much better and uncertain.
    _case((70.0, 72.0, 71.0), m8=(3.2, 2.4, 2.0), m16=(2.2, 1.6, 2.8), m32=(-2.0, -9.0, -5.0), m256=(1.2, 1.5, 1.8)),
    _case((81.0, 83.0, 82.0, 84.0), m8=(1.0, 1.9, 1.3, 1.5), m16=(2.3, 2.9, 2.7, 2.4), m32=(0.2, 2.1, -1.4, 0.6)),
)  # fmt: skip


def _by(conclude: Callable[[list[float], float, float], str]) -> Rule:
    """A rule from what is concluded from one width's differences, and from the interval's two ends."""

    def rule(case: Case) -> dict[int, str]:
        found = {}
        for m in case:
            if m != REFERENCE:
                differences = _lost(case, m)
                middle = mean(differences)
                half = _T95[len(differences)] * stdev(differences) / len(differences) ** 0.5
                found[m] = conclude(differences, middle - half, middle + half)
        return found

    return rule


def _lost(case: Case, m: int, reference: int = REFERENCE) -> list[float]:
    return [accuracy - case[m][seed] for seed, accuracy in case[reference].items()]


def _verdict(low: float, high: float, margin: float = MARGIN) -> str:
    return AS_GOOD if high < margin else WORSE if low > margin else UNCLEAR


def _within(middle: float, half: float) -> str:
    return _verdict(middle - half, middle + half)


def _spread(half: Callable[[list[float]], float]) -> Rule:
    """Judges by the mean and another width of the interval."""
    return _by(lambda d, low, high: _within(mean(d), half(d)))


def _of_two(half: Callable[[list[float], list[float]], float]) -> Rule:
    """Judges by the two means and an interval made of two unrelated samples."""
    return lambda case: {
        m: _within(
            mean(case[REFERENCE].values()) - mean(case[m].values()),
            half(list(case[REFERENCE].values()), list(case[m].values())),
        )
        for m in case
        if m != REFERENCE
    }


def _se(values: list[float]) -> float:
    return stdev(values) / len(values) ** 0.5


def _by_place(case: Case) -> dict[int, str]:
    shuffled = {m: dict(zip(case[REFERENCE], values.values(), strict=True)) for m, values in case.items()}
    return right_rule(shuffled)


def _against_best(case: Case) -> dict[int, str]:
    best = max(case, key=lambda m: mean(case[m].values()))
    found = {}
    for m in case:
        d = _lost(case, m, best)
        half = _T95[len(d)] * stdev(d) / len(d) ** 0.5
        found[m] = _within(mean(d), half)
    return {m: verdict for m, verdict in found.items() if m != REFERENCE}


def _over_widths(case: Case) -> dict[int, str]:
    """The spread is that of the widths with one seed, not that of the seeds with one width."""
    means = [mean(values.values()) for values in case.values()]
    return {m: _within(mean(_lost(case, m)), stdev(means)) for m in case if m != REFERENCE}


right_rule = _by(lambda d, low, high: _verdict(low, high))
_SWAPPED = {AS_GOOD: WORSE, WORSE: AS_GOOD, UNCLEAR: UNCLEAR}
_n = len
RULES: list[tuple[Rule, str]] = [
    (_by(lambda d, low, high: AS_GOOD if mean(d) < MARGIN else WORSE), "it looks at the means alone, so nothing is ever unclear: the interval of the "
        "differences says how sure they are"),
    (_by(lambda d, low, high: _verdict(-high, -low)), "the differences are turned round: what is lost is the reference's accuracy minus the "
        "width's"),
    (_by(lambda d, low, high: _SWAPPED[_verdict(low, high)]), "'as good' and 'worse' are exchanged: as good is what surely loses less than the margin"),
    (_by(lambda d, low, high: AS_GOOD if low < 0 < high else _verdict(low, high)), "it takes an interval that includes zero for 'as good': with noisy runs "
        "every interval does, and that shows nothing but the noise"),
    (_by(lambda d, low, high: AS_GOOD if low <= 0 else WORSE), "it takes 'not surely worse' for 'as good', and forgets the margin: noisy runs are never "
        "surely worse; as good needs the interval's upper end below the margin"),
    (_by(lambda d, low, high: AS_GOOD if low <= MARGIN else WORSE), "it takes 'not surely worse' for 'as good': what the interval leaves open is unclear"),
    (_by(lambda d, low, high: AS_GOOD if high < MARGIN else WORSE), "it takes 'not surely as good' for 'worse': what the interval leaves open is unclear"),
    (_by(lambda d, low, high: WORSE if low > 0 else AS_GOOD if high < MARGIN else UNCLEAR), "it calls worse what surely loses something, however little: "
        "worse is what surely loses more than the margin"),
    (_by(lambda d, low, high: _verdict(low, high, 0.0)), "the margin is not used, or it is held against per cents: up to margin may be lost, and 0.02 is two points"),
    (_by(lambda d, low, high: _verdict(low, high, 2.0)), "the margin is taken in points and the accuracies as shares, or one of them a hundredfold: "
        "both are shares, 0.02 is two points"),
    (_by(lambda d, low, high: _verdict(low, high, -MARGIN)), "the margin has the wrong sign: a width may lose up to margin"),
    (_by(lambda d, low, high: AS_GOOD if low > -MARGIN and high < MARGIN else WORSE if low > MARGIN else UNCLEAR), "it also asks that a width is not "
        "better by more than the margin: being better is no fault here"),
    (_by(lambda d, low, high: AS_GOOD if low > -MARGIN and high < MARGIN else WORSE if low > MARGIN or high < -MARGIN else UNCLEAR), "it calls worse "
        "what is better by more than the margin: a negative loss is a gain"),
    (_by(lambda d, low, high: AS_GOOD if low > -MARGIN and low < MARGIN else WORSE if low > MARGIN else UNCLEAR), "it looks at the interval's lower end "
        "only: as good needs the upper end, the most that may be lost"),
    (_by(lambda d, low, high: AS_GOOD if high - low < 2 * MARGIN else UNCLEAR), "it asks only how wide the interval is, not where it lies"),
    (_by(lambda d, low, high: AS_GOOD if max(d) < MARGIN else WORSE if min(d) > MARGIN else UNCLEAR), "it judges by the best and the worst seed: the more "
        "seeds, the farther apart they are; the interval of the mean gets narrower"),
    (_by(lambda d, low, high: _verdict(d[0], d[0])), "it looks at one seed only: the others may tell another story"),
    (_by(lambda d, low, high: AS_GOOD if median(d) < MARGIN else WORSE), "it looks at the medians alone: the interval says how sure they are"),
    (lambda case: {m: AS_GOOD if max(case[REFERENCE].values()) - max(v.values()) < MARGIN else WORSE for m, v in case.items() if m != REFERENCE},
        "it compares the best single runs: the luckiest seed says nothing about the width"),
    (lambda case: {m: AS_GOOD if min(case[REFERENCE].values()) - min(v.values()) < MARGIN else WORSE for m, v in case.items() if m != REFERENCE},
        "it compares the worst single runs: the unluckiest seed says little about the width"),
    (_against_best, "it compares with the width of the best mean: reference is given, and was chosen before anybody saw the results"),
    (_by_place, "the differences pair runs with different seeds: the seeds of two widths need not be in the same order, so look each up, "
        "accuracies[m][seed]"),
    (_spread(stdev), "that is mean ± standard deviation, one run's spread: the mean of n runs is surer, and with few of them Student's factor counts"),
    (_spread(pstdev), "that is mean ± standard deviation, and divided by n: take mean_and_interval of the differences"),
    (_spread(_se), "that is mean ± standard error: with few seeds it needs Student's factor; mean_and_interval has it"),
    (_spread(lambda d: 1.96 * _se(d)), "1.96 holds for many values: with a few the factor is Student's; mean_and_interval has it"),
    (_spread(lambda d: _T95[_n(d)] * pstdev(d) / _n(d) ** 0.5), "the squares are divided by n: with so few values it must be n − 1"),
    (_spread(lambda d: _T95[_n(d)] * stdev(d)), "√n is missing: that interval is for a single run, not for the mean"),
    (_spread(lambda d: 2 * _T95[_n(d)] * _se(d)), "the half-width is taken twice: mean_and_interval returns half the width"),
    (_spread(lambda d: 0.5 * _T95[_n(d)] * _se(d)), "the half-width is halved again: mean_and_interval returns half the width"),
    (_spread(lambda d: max(d) - min(d)), "the range from lowest to highest is no interval of the mean: it grows with the number of seeds"),
    (_of_two(lambda a, b: _T95[_n(a)] * (_se(a) ** 2 + _se(b) ** 2) ** 0.5), "it takes the two widths' seeds for unrelated: a seed that is hard for one is "
        "hard for the other, so form the difference for each seed first"),
    (_of_two(lambda a, b: _T95[_n(a)] * (_se(a) + _se(b))), "it asks whether the two widths' own intervals overlap: form the difference for each seed "
        "first, and then one interval"),
    (_of_two(lambda a, b: _T95[_n(a)] * _se(b)), "it uses the interval of the width's own accuracy, and takes the reference for exact: form the differences, "
        "seed by seed, first"),
    (_over_widths, "the spread is taken over the widths: it is the seeds that say how far luck goes"),
]  # fmt: skip
