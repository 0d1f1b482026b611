"""Which learning rate a row of a comparison gets: the best on the validation split, never at the edge of its grid."""

from collections.abc import Callable, Iterable

LADDER = tuple(float(f"{step}e{power}") for power in range(-7, 1) for step in (1, 3))  # where a narrow grid grows


def chosen_rate(validation: Callable[[float, int], float], rates: Iterable[float], seeds: Iterable[int]) -> float:
    """The rate with the best ``validation(rate, seed)`` with the first of ``seeds``.

    A best rate at the edge says that a better one may lie outside: the grid grows until the best lies inside. Rates
    that tie are run with all seeds, and their mean decides. One rate alone is no choice, and is returned.
    """
    rates, (first, *others) = sorted(rates), seeds
    while len(rates) > 1:
        found = {rate: validation(rate, first) for rate in rates}
        tied = [rate for rate in rates if found[rate] == max(found.values())]
        if len(tied) > 1:
            found = {rate: found[rate] + sum(validation(rate, seed) for seed in others) for rate in tied}
        best = max(tied, key=lambda rate: found[rate])
        if best == rates[0]:
            rates = [max(rate for rate in LADDER if rate < 0.9 * best), *rates]
        elif best == rates[-1]:
            rates = [*rates, min(rate for rate in LADDER if rate > 1.1 * best)]
        else:
            return best
    return rates[0]
