"""Checks of lesson 06: what a sweep will cost, a verdict on each width, a fair comparison, a sweep put in order."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from adapters_lesson.adapter import Adapter
from adapters_lesson.course.laboratory.experiments import KNOBS, Settings
from adapters_lesson.placements import PLACEMENTS

from .check import Mistake, check, require
from .comparison import asked, explained, first_match, match_formula
from .lesson06_bench import Bench, examine_runs
from .lesson06_verdicts import CASES, MARGIN, REFERENCE, RIGHT, RULES, VERDICTS, Case, Verdicts, judged

_DEFAULT = Settings()
_SECONDS = "seconds * sum(work(a) / work(b) for a in planned)"
_WRONG_RATIOS = {  # of one of the planned runs, a, to the measured one, b
    "1": "every run is taken to last as long as the measured one: steps, batches and layers take time",
    "a.steps * a.base_layers / (b.steps * b.base_layers)": "batch_size is missing: twice the texts take twice as long",
    "a.steps * a.batch_size / (b.steps * b.batch_size)": "base_layers is missing: a text passes through all of them",
    "a.batch_size * a.base_layers / (b.batch_size * b.base_layers)": "steps is missing: a run is as long as they",
    "a.steps / b.steps": "only the steps count: a step is also longer with more layers and with more texts",
    "work(b) / work(a)": "the ratio is upside down: more steps than the measured run has take longer",
    "work(a) / work(default)": "it takes the default settings for the measured ones: those are given",
    "work(a) / work(b) * a.bottleneck_dim / b.bottleneck_dim": "the width is taken to count: the frozen base does most",
    "work(a) / work(b) * (a.seed + 1)": "the seed is counted as a number of runs: it only starts the random numbers",
    "work(a) / work(b) * a.base_layers / b.base_layers": "the layers count twice: time grows in proportion to them",
}
_WRONG_SECONDS = {f"seconds * sum({ratio} for a in planned)": message for ratio, message in _WRONG_RATIOS.items()} | {
    "sum(map(work, planned)) * seconds": "the work is not divided by that of the measured run",
    f"{_SECONDS} * len(set(a.seed for a in planned))": "the seeds are counted twice: planned has each already",
    f"{_SECONDS} / 60": "those are minutes: return seconds",
    f"{_SECONDS} + seconds": "the measured run is counted, too: it is over already",
    "seconds * sum(work(a) / work(b) for a in set(planned))": "runs that are planned twice are counted once",
    "seconds * sum(work(a) / work(b) for a in {replace(a, seed=0) for a in planned})": "the seeds are left out",
    "seconds * len(planned) * work(planned[0]) / work(b)": "all planned runs are taken to be as long as the first",
    "seconds * work(b) / sum(map(work, planned))": "it is upside down: more work than the measured run's takes longer",
    "seconds * work(planned[0]) / work(b)": "that is the first planned run: sum up all of them",
    "seconds * max(map(work, planned)) / work(b)": "that is the longest run: they run one after the other, so sum up",
    f"{_SECONDS} / len(planned)": "that is the mean of the planned runs: they run one after the other, so sum up",
    "seconds * prod(sum(getattr(a, k) for a in planned) for k in knobs) / work(b)": "summed up before it is multiplied",
}


@check("6.1", "correct: steps, batch size and layers count; width, rate, place and seed hardly do.")
def check_seconds(predict_seconds: Any) -> None:
    """``predict_seconds(planned, measured, seconds)`` must sum up what the planned runs will take."""
    long = Settings(steps=300, base_layers=4, bottleneck_dim=4, seed=2)
    narrow = Settings(steps=50, base_layers=2, batch_size=16, bottleneck_dim=8, seed=3)
    plans = [
        ([replace(_DEFAULT, bottleneck_dim=m, seed=s) for m in (2, 64, 128) for s in (1, 5)], _DEFAULT, 20.0),
        ([replace(long, steps=120, seed=7), long, replace(long, batch_size=8, base_layers=6)], narrow, 3.7),
        ([long, long], _DEFAULT, 24.0),
        ([replace(long, base_layers=1, batch_size=64, bottleneck_dim=1)], replace(long, bottleneck_dim=32), 60.0),
        ([replace(long, steps=20)], long, 127.5),  # no whole number of seconds
    ]
    knobs = ("steps", "batch_size", "base_layers")
    known: dict[str, Any] = {"default": _DEFAULT, "replace": replace, "knobs": knobs, "tolerance": 0.01}
    known["work"] = lambda one: math.prod(getattr(one, knob) for knob in knobs)
    otherwise = "for one of the plans it gives {given} s instead of {wanted} s: in each run, three settings count in "
    otherwise += "proportion to the measured run's, and the runs add up"
    match_formula(predict_seconds, "planned b seconds", plans, _SECONDS, _WRONG_SECONDS, otherwise=otherwise, **known)


@check("6.2", "correct: the interval of the paired differences decides, and what it leaves open is unclear.")
def check_judge(judge: Any) -> None:
    """``judge(accuracies, reference, margin)`` must give each other width its verdict."""
    given = [_verdicts(judge, case) for case in CASES]
    first_match(lambda rule: given == [judged(rule, case) for case in CASES], RIGHT, RULES, _first_difference(given))
    other = 2 * REFERENCE
    renamed = {other if m == REFERENCE else m: seeds for m, seeds in CASES[0].items()}
    named = f"with the reference {other} in place of {REFERENCE} it judges otherwise: use the one given"
    with explained({"KeyError": named}):
        require(_verdicts(judge, renamed, other, MARGIN) == given[0], named)
    tenth = {m: {seed: accuracy / 10 for seed, accuracy in seeds.items()} for m, seeds in CASES[0].items()}
    if _verdicts(judge, tenth, REFERENCE, MARGIN / 10) != given[0]:
        raise Mistake("with margin and differences a tenth as large it judges otherwise: use the margin that is given")


def _verdicts(judge: Any, case: Case, reference: int = REFERENCE, margin: float = MARGIN) -> Verdicts:
    answer = asked(judge, case, reference, margin)
    require(isinstance(answer, dict), f"it must return a dict of verdicts by width, not a {type(answer).__name__}")
    verdicts = {m: verdict for m, verdict in answer.items() if m != reference}
    others = sorted(m for m in case if m != reference)
    require(set(verdicts) == set(others), f"it has verdicts on {list(verdicts)}: give one for each of {others}")
    for verdict in verdicts.values():
        require(verdict in VERDICTS, f"{verdict!r} is no verdict: it is 'as good', 'worse' or 'unclear'")
    require(reference not in answer, f"it has a verdict on {reference}, the reference itself: leave that one out")
    return verdicts


def _first_difference(given: Sequence[Verdicts]) -> str:
    for case, verdicts in zip(CASES, given, strict=True):
        for m, right in judged(RIGHT, case).items():
            if verdicts[m] != right:
                seeds = case[REFERENCE]
                lost = ", ".join(f"{100 * (seeds[s] - case[m][s]):.1f}" for s in sorted(seeds))
                said = f"a width that loses {lost} points is {right!r}, not {verdicts[m]!r}"
                return f"{said}: look at the two ends of the interval"
    return ""


def _parameters(one: Settings) -> int:
    blocks = one.base_layers if one.layers is None else len(one.layers)
    return len(PLACEMENTS[one.placement].sites["post"]) * blocks * Adapter.count(384, one.bottleneck_dim)


@check("6.3", "correct: one question, equal parameters, the same seeds for each, and nothing else changed.")
def check_fair(fair_comparison: Any) -> None:
    """``fair_comparison(reference, placements, seeds)`` must return the settings of every run."""
    two, three = ["houlsby", "pfeiffer"], ["parallel", "houlsby", "pfeiffer"]
    other = Settings(bottleneck_dim=24, base_layers=4, learning_rate=1e-2, steps=300, init="houlsby", seed=9)
    for reference, placements, seeds in ((Settings(), two, [0, 1, 2]), (other, three, [3, 5, 8, 4])):
        answer = asked(fair_comparison, reference, placements, seeds)
        kind = type(answer).__name__
        rows = isinstance(answer, Iterable) and not isinstance(answer, Mapping)
        require(rows, f"it must return a list of Settings, it returned a {kind}")
        runs = list(answer)
        _look_at_changes(runs, reference, placements)
        arms = {placement: [run for run in runs if run.placement == placement] for placement in placements}
        _look_at_seeds(arms, seeds, reference)
        for placement, arm in arms.items():
            widths = {run.bottleneck_dim for run in arm}
            require(len(widths) == 1, f"{placement!r} runs with several widths, {sorted(widths)}: one for all seeds")
            _look_at_width(arm[0], reference)


def _look_at_changes(runs: list[Any], reference: Settings, placements: Sequence[str]) -> None:
    require(bool(runs), "the list is empty: one Settings for each placement and each seed")
    for run in runs:
        kind = type(run).__name__
        require(isinstance(run, Settings), f"the list must hold Settings, not a {kind}: no nested lists, no numbers")
        require(run.placement in placements, f"placement {run.placement!r} was not asked for: use those of placements")
    for placement in placements:
        why = "the reference takes part, too, with all seeds" if placement == "houlsby" else "placements are given"
        require(placement in {run.placement for run in runs}, f"there is no run with {placement!r}: {why}")
    for run in runs:
        changed = [k for k in KNOBS if getattr(run, k) != getattr(reference, k)]
        knobs = [k for k in changed if k not in ("placement", "bottleneck_dim", "seed")]
        names, defaults = ", ".join(knobs), all(getattr(r, k) == getattr(_DEFAULT, k) for r in runs for k in knobs)
        require(not (knobs and defaults), f"{names}: the defaults, not the reference's: replace(reference, …)")
        require(not knobs, f"{names} changes as well: if the results differ, nobody knows which of the changes it was")


def _look_at_seeds(arms: dict[str, list[Settings]], seeds: Sequence[int], reference: Settings) -> None:
    by_arm = {placement: [run.seed for run in arm] for placement, arm in arms.items()}
    used = set(chain(*by_arm.values()))
    luck = "what differs could be luck, so run each placement with all seeds"
    require(used != {reference.seed}, f"all runs have one seed: {luck}")
    strange = sorted(used - set(seeds))
    require(not strange, f"seeds {strange} were not asked for: take the values in seeds, not their places in the list")
    require(max(len(set(own)) for own in by_arm.values()) > 1, f"each placement has one seed only: {luck}")
    twice = max(Counter(chain(*arms.values())).values()) > 1
    require(not twice, "the same settings are in the list twice: the second run would only repeat the first")
    for placement, own in by_arm.items():
        require(set(own) == set(seeds), f"{placement!r} has the seeds {sorted(own)} instead of all of {sorted(seeds)}")


def _look_at_width(run: Settings, reference: Settings) -> None:
    m, width = run.bottleneck_dim, reference.bottleneck_dim
    share = _parameters(run) / _parameters(reference)
    if abs(share - 1) <= 0.03:
        return
    require(run.placement != "houlsby", f"the reference itself has changed: its width is {width}, and here it is {m}")
    reasons = {
        width: "the same width is not the same size: Houlsby's places have two adapters in each block, the others one",
        width // 2: "the width is halved where it has to be doubled: one adapter must make up for two",
        4 * width: "the width is four times the reference's: one adapter stands for two, so twice",
        width**2: "the width is squared: parameters grow in proportion to it, so twice the width",
        32: "the width is 32 whatever the reference has: work it out from reference.bottleneck_dim",
    }
    reason = reasons.get(m, f"{run.placement!r} with m = {m} trains {share:.2f} of the reference's parameters")
    raise Mistake(f"{reason} (m = {m}: {_parameters(run):,} parameters against {_parameters(reference):,})")


@check("6.4", "correct: a new model for each run, seeded before it is built, and its result kept.")
def check_sweep(sweep: Any) -> None:
    """``sweep(build, train_and_validate, widths, seeds)`` must return what every run gives that stands alone."""
    for widths, seeds in (([2, 8, 32], [0, 1, 2]), ([16, 4], [7, 3])):
        bench = Bench()
        answer = sweep(bench.build, bench.train_and_validate, list(widths), list(seeds))
        examine_runs(bench, answer, widths, seeds)
