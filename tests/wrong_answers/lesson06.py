import copy
import itertools
import statistics
from collections import defaultdict
from dataclasses import asdict, replace

import numpy
import torch

from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.course.laboratory.experiments import Settings, Sweep

# 6.1


def work(one):
    return one.steps * one.batch_size * one.base_layers


def seconds_by(ratio):
    """A family of answers that differ in how a planned run compares with the measured one."""
    return lambda planned, measured, seconds: sum(seconds * ratio(one, measured) for one in planned)


right_seconds = seconds_by(lambda a, b: work(a) / work(b))


def without(knob):
    return seconds_by(lambda a, b: work(a) / work(b) / (getattr(a, knob) / getattr(b, knob)))


def right_with_a_loop(planned, measured, seconds):
    per_unit = seconds / (measured.steps * measured.batch_size * measured.base_layers)
    total = 0.0
    for settings in planned:
        total += per_unit * settings.steps * settings.batch_size * settings.base_layers
    return round(total, 1)


def right_with_numpy(planned, measured, seconds):
    table = numpy.array([[s.steps, s.batch_size, s.base_layers] for s in planned], dtype=float)
    return (table.prod(axis=1) * seconds / (measured.steps * measured.batch_size * measured.base_layers)).sum()


def right_with_torch(planned, measured, seconds):
    ratios = torch.tensor(
        [[getattr(s, k) / getattr(measured, k) for k in ("steps", "batch_size", "base_layers")] for s in planned]
    )
    return seconds * ratios.prod(dim=1).sum()


# 6.2


def judging(conclude=None, differences=None, half=None):
    """A family of answers that differ in the differences, in the interval or in what is concluded from it."""
    conclude = conclude or rightly

    def judge(accuracies, reference, margin):
        found = {}
        for m in accuracies:
            if m == reference:
                continue
            lost = (differences or by_seed)(accuracies, reference, m)
            middle, width = mean_and_interval(lost)
            width = half(lost) if half else width
            found[m] = conclude(middle - width, middle + width, margin)
        return found

    return judge


def by_seed(accuracies, reference, m):
    return [accuracies[reference][seed] - accuracies[m][seed] for seed in accuracies[reference]]


def rightly(low, high, margin):
    return "as good" if high < margin else "worse" if low > margin else "unclear"


def by_place(accuracies, reference, m):
    return [a - b for a, b in zip(accuracies[reference].values(), accuracies[m].values(), strict=True)]


def against_the_best(accuracies, reference, margin):
    best = max(accuracies, key=lambda m: statistics.mean(accuracies[m].values()))
    return {m: v for m, v in {best: "as good", **judging()(accuracies, best, margin)}.items() if m != reference}


def best_runs(accuracies, reference, margin):
    top = {m: max(seeds.values()) for m, seeds in accuracies.items()}
    return {m: "as good" if top[reference] - top[m] < margin else "worse" for m in top if m != reference}


def means_alone(accuracies, reference, margin):
    means = {m: statistics.mean(seeds.values()) for m, seeds in accuracies.items()}
    return {m: "as good" if means[m] > means[reference] - margin else "worse" for m in means if m != reference}


def own_intervals(accuracies, reference, margin):
    intervals = {m: mean_and_interval(list(seeds.values())) for m, seeds in accuracies.items()}
    (r, wide), found = intervals.pop(reference), {}
    for m, (middle, half) in intervals.items():
        found[m] = rightly(r - wide - (middle + half), r + wide - (middle - half), margin)
    return found


def over_the_widths(accuracies, reference, margin):
    spread = statistics.stdev(statistics.mean(seeds.values()) for seeds in accuracies.values())
    means = {m: statistics.mean(by_seed(accuracies, reference, m)) for m in accuracies if m != reference}
    return {m: rightly(lost - spread, lost + spread, margin) for m, lost in means.items()}


def seeds_extremes(accuracies, reference, margin):
    lost = {m: by_seed(accuracies, reference, m) for m in accuracies if m != reference}
    return {m: rightly(min(points), max(points), margin) for m, points in lost.items()}


def first_seed(accuracies, reference, margin):
    lost = {m: by_seed(accuracies, reference, m)[0] for m in accuracies if m != reference}
    return {m: "as good" if points < margin else "worse" for m, points in lost.items()}


def right_with_gains(accuracies, reference, margin):
    """Gains instead of losses."""
    result = {}
    for m, seeds in accuracies.items():
        if m == reference:
            continue
        gain, half = mean_and_interval([seeds[s] - accuracies[reference][s] for s in sorted(seeds)])
        if gain - half > -margin:
            result[m] = "as good"
        elif gain + half < -margin:
            result[m] = "worse"
        else:
            result[m] = "unclear"
    return result


def right_by_hand(accuracies, reference, margin):
    factors = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
    verdicts = {}
    for m in set(accuracies) - {reference}:
        lost = numpy.array([accuracies[reference][s] - accuracies[m][s] for s in accuracies[m]])
        half = factors[len(lost)] * lost.std(ddof=1) / numpy.sqrt(len(lost))
        verdicts[m] = {(True, False): "as good", (False, True): "worse", (False, False): "unclear"}[
            bool(lost.mean() + half < margin), bool(lost.mean() - half > margin)
        ]
    return verdicts


def right_with_scipy(accuracies, reference, margin):
    from scipy.stats import t

    def verdict(m):
        lost = torch.tensor(by_seed(accuracies, reference, m), dtype=torch.float64)
        low, high = t.interval(0.95, len(lost) - 1, lost.mean().item(), (lost.std() / len(lost) ** 0.5).item())
        if low > margin:
            return "worse"
        return "unclear" if high >= margin else "as good"

    return {m: verdict(m) for m in accuracies if m != reference}


# 6.3


def fair(width=None, **changes):
    """A family of answers that differ in the width of each arm, or in what else changes."""

    def fair_comparison(reference, placements, seeds):
        runs = []
        for placement in placements:
            m = (width or twice)(reference.bottleneck_dim, placement)
            more = {k: v(placement) if callable(v) else v for k, v in changes.items()}
            runs += [replace(reference, placement=placement, bottleneck_dim=m, **{"seed": s, **more}) for s in seeds]
        return runs

    return fair_comparison


def twice(m, placement):
    return m if placement == "houlsby" else 2 * m


def other_rate(placement):
    return 3e-3 if placement == "houlsby" else 1e-3


def from_defaults(reference, placements, seeds):
    return [
        Settings(placement=p, bottleneck_dim=twice(reference.bottleneck_dim, p), seed=s)
        for p in placements
        for s in seeds
    ]


def zipped(reference, placements, seeds):
    return [
        replace(reference, placement=p, bottleneck_dim=twice(reference.bottleneck_dim, p), seed=s)
        for p, s in zip(placements, seeds, strict=False)
    ]


def widths_by_seed(reference, placements, seeds):
    return [
        replace(r, bottleneck_dim=r.bottleneck_dim + i % 2) for i, r in enumerate(fair()(reference, placements, seeds))
    ]


def right_with_product(reference, placements, seeds):
    adapters = {"houlsby": 2, "pfeiffer": 1, "parallel": 1}
    budget = 2 * reference.bottleneck_dim
    return tuple(
        replace(reference, seed=seed, placement=place, bottleneck_dim=budget // adapters[place])
        for seed, place in itertools.product(seeds, placements)
    )


def right_with_sweeps(reference, placements, seeds):
    def arms():
        for place in placements:
            base = replace(reference, bottleneck_dim=twice(reference.bottleneck_dim, place))
            yield from Sweep("placement", (place,), base).settings(seeds)

    return arms()


def right_by_counting(reference, placements, seeds):
    def size(place, m):
        return (2 if place == "houlsby" else 1) * (m * (2 * 384 + 1) + 384)

    target, runs = size("houlsby", reference.bottleneck_dim), []
    for place in placements:
        m = min(range(1, 385), key=lambda m: abs(size(place, m) - target))
        runs += [Settings(**{**asdict(reference), "placement": place, "bottleneck_dim": m, "seed": s}) for s in seeds]
    return runs


# 6.4


def sweep_by(seeded="run", built="run", keep=list, seed_of=lambda seed, m: seed, train_with=lambda seed, m: seed):
    """A family of answers that differ in when the seed is set and the model built, and in what is kept."""

    def sweep(build, train_and_validate, widths, seeds):
        results = {}
        if seeded == "once":
            torch.manual_seed(seeds[0])
        if built == "once":
            model = build(widths[0])
        for m in widths:
            if seeded == "width":
                torch.manual_seed(seeds[0])
            if built == "width":
                model = build(m)
            values = []
            for seed in seeds:
                if seeded == "run":
                    torch.manual_seed(seed_of(seed, m))
                if built == "run":
                    model = build(m)
                if seeded == "after":
                    torch.manual_seed(seed)
                values.append(train_and_validate(model, train_with(seed, m)))
            results[m] = keep(values)
        return results

    return sweep


colleagues = sweep_by(seeded="once", built="width")


def copies(build, train_and_validate, widths, seeds):
    results = {}
    for m in widths:
        torch.manual_seed(seeds[0])
        fresh = build(m)
        results[m] = [train_and_validate(copy.deepcopy(fresh), seed) for seed in seeds]
    return results


def copies_unseeded(build, train_and_validate, widths, seeds):
    models = {m: build(m) for m in widths}
    return {m: [train_and_validate(copy.deepcopy(models[m]), seed) for seed in seeds] for m in widths}


def jobs_bound_late(build, train_and_validate, widths, seeds):
    jobs = {m: [] for m in widths}
    for m in widths:
        for seed in seeds:

            def job():
                torch.manual_seed(seed)
                return train_and_validate(build(m), seed)

            jobs[m].append(job)
    return {m: [job() for job in jobs[m]] for m in widths}


def width_bound_late(build, train_and_validate, widths, seeds):
    def one(make, seed):
        torch.manual_seed(seed)
        return train_and_validate(make(), seed)

    makers = [lambda: build(m) for m in widths]
    return {m: [one(make, seed) for seed in seeds] for m, make in zip(widths, makers, strict=True)}


def shared_list(build, train_and_validate, widths, seeds):
    results = dict.fromkeys(widths, [])  # noqa: RUF024, the mistake itself
    for m in widths:
        for seed in seeds:
            torch.manual_seed(seed)
            results[m].append(train_and_validate(build(m), seed))
    return results


def diagonal(build, train_and_validate, widths, seeds):
    results = {}
    for m, seed in zip(widths, seeds, strict=False):
        torch.manual_seed(seed)
        results[m] = [train_and_validate(build(m), seed)]
    return results


def models_before(build, train_and_validate, widths, seeds):
    torch.manual_seed(seeds[0])
    models = {(m, seed): build(m) for m in widths for seed in seeds}
    return {m: [train_and_validate(models[m, seed], seed) for seed in seeds] for m in widths}


def right_sweep(build, train_and_validate, widths, seeds):
    results = {}
    for m in widths:
        results[m] = []
        for seed in seeds:
            torch.manual_seed(seed)
            results[m].append(train_and_validate(build(m), seed))
    return results


def right_with_a_function(build, train_and_validate, widths, seeds):
    def one(m, seed):
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(seed)
            model = build(m)
        return train_and_validate(model, seed=seed)

    return {m: [one(m, seed) for seed in seeds] for m in widths}


def right_by_seed(build, train_and_validate, widths, seeds):
    results = defaultdict(list)
    for seed, m in itertools.product(seeds, widths):
        torch.manual_seed(seed)
        model = build(bottleneck_dim=m)
        torch.manual_seed(seed)
        results[m].append(train_and_validate(model, seed))
    return results


def right_with_models_before(build, train_and_validate, widths, seeds):
    models = {}
    for m in widths:
        for seed in seeds:
            torch.manual_seed(seed)
            models[m, seed] = build(m)
    return {m: tuple(train_and_validate(models[m, seed], seed) for seed in seeds) for m in widths}


def right_jobs_bound(build, train_and_validate, widths, seeds):
    def job(m, seed):
        torch.manual_seed(seed)
        return train_and_validate(build(m), seed)

    jobs = {m: [lambda m=m, seed=seed: job(m, seed) for seed in seeds] for m in widths}
    return {m: torch.tensor([run() for run in row], dtype=torch.float64) for m, row in jobs.items()}


def with_the_reference(accuracies, reference, margin):
    return judging()(accuracies, reference, margin) | {reference: "as good"}


def seeds_typed_in(accuracies, reference, m):
    return [accuracies[reference][seed] - accuracies[m][seed] for seed in (0, 1, 2)]


def without_the_last_seed(accuracies, reference, m):
    return by_seed(accuracies, reference, m)[:-1]


def swapped_ends(accuracies, reference, margin):
    found = {}
    for m in accuracies.keys() - {reference}:
        half, middle = mean_and_interval(by_seed(accuracies, reference, m))
        found[m] = rightly(middle - half, middle + half, margin)
    return found


def reference_typed_in(accuracies, reference, margin):
    return judging()(accuracies, 64, margin)


def seeds_outside(build, train_and_validate, widths, seeds):
    results = {m: [] for m in widths}
    for seed in seeds:
        torch.manual_seed(seed)
        for m in widths:
            results[m].append(train_and_validate(build(m), seed))
    return results


WRONG = {
    "check_seconds": [
        (lambda p, m, s: len(p) * right_seconds(p[:1], m, s), "to be as long as the first"),
        (lambda p, m, s: s * work(m) / sum(map(work, p)), "it is upside down: more work"),
        (lambda planned, measured, seconds: len(planned) * seconds, "as long as the measured one"),
        (without("batch_size"), "batch_size is missing"),
        (without("base_layers"), "base_layers is missing"),
        (without("steps"), "steps is missing"),
        (seconds_by(lambda a, b: a.steps / b.steps), "only the steps"),
        (seconds_by(lambda a, b: work(b) / work(a)), "upside down"),
        (seconds_by(lambda a, b: work(a) / work(Settings())), "default settings for the measured"),
        (seconds_by(lambda a, b: work(a)), "not divided"),
        (seconds_by(lambda a, b: work(a) / work(b) * a.bottleneck_dim / b.bottleneck_dim), "width is taken to count"),
        (seconds_by(lambda a, b: work(a) / work(b) * (a.seed + 1)), "seed is counted as a number"),
        (seconds_by(lambda a, b: work(a) / work(b) * a.base_layers / b.base_layers), "layers count twice"),
        (lambda p, m, s: right_seconds(p, m, s) * len({one.seed for one in p}), "seeds are counted twice"),
        (lambda p, m, s: right_seconds({replace(one, seed=0) for one in p}, m, s), "seeds are left out"),
        (lambda p, m, s: right_seconds(set(p), m, s), "planned twice"),
        (lambda p, m, s: right_seconds(p, m, s) / 60, "minutes"),
        (lambda p, m, s: right_seconds(p, m, s) / len(p), "the mean of the planned"),
        (lambda p, m, s: right_seconds([*p, m], m, s), "it is over already"),
        (lambda p, m, s: max(right_seconds([one], m, s) for one in p), "the longest"),
        (lambda p, m, s: right_seconds(p[:1], m, s), "first planned run"),
        (lambda p, m, s: [right_seconds([one], m, s) for one in p], "returned a list"),
        (lambda p, m, s: right_seconds(p, m, s) + 60, "it gives 68.5 s instead of 8.5 s", False),
        (lambda p, m, s: None, "return missing"),
        (lambda p, m, s: s * work(p) / work(m), "AttributeError"),
    ],
    "check_judge": [
        (judging(differences=seeds_typed_in), "look at the two ends", False),
        (judging(differences=without_the_last_seed), "look at the two ends", False),
        (swapped_ends, "the half-width are exchanged"),
        (reference_typed_in, "in place of 64 it judges otherwise"),
        (with_the_reference, "the reference itself: leave that one out"),
        (means_alone, "nothing is ever unclear"),
        (best_runs, "luckiest seed"),
        (against_the_best, "chosen before"),
        (own_intervals, "overlap"),
        (over_the_widths, "spread is taken over the widths"),
        (seeds_extremes, "best and the worst seed"),
        (first_seed, "one seed only"),
        (judging(differences=by_place), "different seeds"),
        (judging(differences=lambda a, r, m: [-x for x in by_seed(a, r, m)]), "turned round"),
        (judging(differences=lambda a, r, m: [100 * x for x in by_seed(a, r, m)]), "per cents"),
        (judging(lambda low, high, g: rightly(low, high, 0)), "margin is not used"),
        (judging(lambda low, high, g: rightly(low, high, 100 * g)), "taken in points"),
        (judging(lambda low, high, g: rightly(low, high, -g)), "wrong sign"),
        (judging(lambda low, high, g: "as good" if low < 0 < high else rightly(low, high, g)), "but the noise"),
        (judging(lambda low, high, g: "worse" if low > g else "as good"), "'not surely worse' for 'as good'"),
        (judging(lambda low, high, g: "as good" if high < g else "worse"), "'not surely as good' for 'worse'"),
        (judging(lambda low, high, g: "worse" if low > 0 else rightly(low, high, g)), "however little"),
        (judging(lambda low, high, g: rightly(2 * g - high, 2 * g - low, g)), "exchanged"),
        (judging(lambda low, high, g: "unclear" if low <= -g and high < g else rightly(low, high, g)), "no fault"),
        (judging(half=statistics.stdev), "one run's spread"),
        (judging(half=lambda d: statistics.stdev(d) / len(d) ** 0.5), "the standard error alone"),
        (judging(half=lambda d: 1.96 * statistics.stdev(d) / len(d) ** 0.5), "1.96"),
        (judging(half=lambda d: mean_and_interval(d)[1] * (1 - 1 / len(d)) ** 0.5), "n − 1"),
        (judging(half=lambda d: mean_and_interval(d)[1] * len(d) ** 0.5), "√n is missing"),
        (judging(half=lambda d: mean_and_interval(d)[1] / 2), "halved again"),
        (judging(half=lambda d: max(d) - min(d)), "range from lowest to highest"),
        (lambda a, r, g: [m for m in a if m != r], "dict of verdicts"),
        (lambda a, r, g: dict.fromkeys(a, True), "is no verdict"),
        (lambda a, r, g: {1: "as good"}, "give one for each"),
        (lambda a, r, g: {m: "unclear" for m in a if m != r}, "the two ends of the interval", False),
        (lambda a, r, g: None, "return missing"),
    ],
    "check_fair": [
        (lambda r, p, s: {one: fair()(r, [one], s) for one in p}, "it returned a dict"),
        (fair(lambda m, placement: m), "the same width is not the same size"),
        (fair(lambda m, placement: m if placement == "houlsby" else m // 2), "halved"),
        (fair(lambda m, placement: 2 * m), "the reference itself has changed"),
        (fair(lambda m, placement: m if placement == "houlsby" else m * m), "squared"),
        (fair(lambda m, placement: m if placement == "houlsby" else 32), "32 whatever"),
        (fair(lambda m, placement: m if placement == "houlsby" else m + 10), "of the reference's parameters", False),
        (fair(learning_rate=other_rate), "learning_rate changes as well"),
        (fair(init="bert"), "init changes as well"),
        (fair(steps=lambda placement: 200 if placement == "houlsby" else 400), "steps changes as well"),
        (from_defaults, "the defaults"),
        (fair(seed=0), "one seed"),
        (zipped, "one seed only"),
        (lambda r, p, s: [*fair()(r, p[:1], s), *fair()(r, p[1:], s[1:])], "'pfeiffer' has the seeds"),
        (lambda r, p, s: [replace(run, seed=i) for i, run in enumerate(fair()(r, p, s))], "were not asked for"),
        (lambda r, p, s: fair()(r, p[:1], s[:2]) + fair()(r, p[1:], s[1:]), "'houlsby' has the seeds"),
        (lambda r, p, s: fair()(r, p, list(range(len(s)))), "not their places in the list"),
        (lambda r, p, s: [r, *fair()(r, [one for one in p if one != "houlsby"], s)], "'houlsby' has the seeds"),
        (lambda r, p, s: fair()(r, p, s[:2]), "instead of"),
        (lambda r, p, s: [run for run in fair()(r, p, s) for _ in range(2)], "the list twice"),
        (lambda r, p, s: fair()(r, [one for one in p if one != "houlsby"], s), "the reference takes part"),
        (lambda r, p, s: fair()(r, ["houlsby", "pfeiffer"], s), "no run with 'parallel'"),
        (lambda r, p, s: fair()(r, ["houlsby", "pfeiffer", "parallel"], s), "not asked for"),
        (widths_by_seed, "several widths"),
        (lambda r, p, s: [fair()(r, [one], s) for one in p], "nested lists"),
        (lambda r, p, s: [], "empty"),
        (lambda r, p, s: len(p) * len(s), "list of Settings"),
        (lambda r, p, s: None, "return missing"),
        (fair(lambda m, placement: m / 1 if placement == "houlsby" else 2.0 * m), "bottleneck_dim"),
    ],
    "check_sweep": [
        (seeds_outside, "later ones do not"),
        (sweep_by(train_with=lambda seed, m: 2), "is it looked up when the loop is over"),
        (sweep_by(keep=lambda values: dict(enumerate(values))), "width 2 has a dict"),
        (colleagues, "one model is built for each width"),
        (sweep_by(built="width"), "one model is built for each width"),
        (sweep_by(seeded="once", built="once"), "one model is built for the whole sweep"),
        (sweep_by(seeded="once"), "later ones do not"),
        (sweep_by(seeded="width"), "later ones do not"),
        (sweep_by(seeded="after"), "right before build(m)"),
        (sweep_by(seeded="never"), "not those that torch.manual_seed(seed) gives"),
        (sweep_by(seed_of=lambda seed, m: 99), "every run begins with the same weights"),
        (sweep_by(seed_of=lambda seed, m: m), "the width is taken for the seed"),
        (sweep_by(train_with=lambda seed, m: 0), "trained with the first seed"),
        (sweep_by(train_with=lambda seed, m: m), "is given the seeds"),
        (copies, "begins with the weights of the first seed"),
        (copies_unseeded, "begin with the same weights"),
        (models_before, "later ones do not"),
        (jobs_bound_late, "looked up when the loop is over"),
        (width_bound_late, "looked up when the loop is over"),
        (shared_list, "share one list"),
        (lambda *given: [value for values in right_sweep(*given).values() for value in values], "must return a dict"),
        (diagonal, "3 runs for 3 widths"),
        (lambda *given: right_sweep(*given) and right_sweep(*given), "more than once"),
        (sweep_by(keep=statistics.mean), "single number"),
        (sweep_by(keep=lambda values: values[-1]), "single number"),
        (sweep_by(keep=lambda values: values[-1:]), "1 results for 3 seeds"),
        (sweep_by(keep=sorted), "another order"),
        (sweep_by(keep=lambda values: [100 * value for value in values]), "other numbers", False),
        (lambda *given: right_sweep(*given) and None, "return missing"),
        (lambda build, train, widths, seeds: {m: [] for m in widths}, "nothing is trained"),
        (
            lambda build, train, widths, seeds: {m: [train(build, seed) for seed in seeds] for m in widths},
            "give it what build returns",
        ),
    ],
}
RIGHT = {
    "check_seconds": [right_seconds, right_with_a_loop, right_with_numpy, right_with_torch],
    "check_judge": [judging(), right_with_gains, right_by_hand, right_with_scipy],
    "check_fair": [fair(), right_with_product, right_with_sweeps, right_by_counting],
    "check_sweep": [right_sweep, right_with_a_function, right_by_seed, right_with_models_before, right_jobs_bound],
}
