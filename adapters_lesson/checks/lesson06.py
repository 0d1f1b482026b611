"""Checks of lesson 06: what a sweep will cost, a verdict on each width, a fair comparison, a sweep put in order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..adapter import Adapter
from ..experiments import KNOBS, Settings
from .judging import CASES, MARGIN, REFERENCE, RULES, VERDICTS, right_rule
from .matching import NOTHING, first_match, number
from .report import Mistake, check, require
from .sweeping import Bench, examine_runs

_Plan = tuple[list[Settings], Settings, float]
_DEFAULT = Settings()


def _work(one: Settings) -> int:
    return one.steps * one.batch_size * one.base_layers


def _each(ratio: Callable[[Settings, Settings], float]) -> Callable[[_Plan], float]:
    """The sum over the planned runs, each as ``ratio`` says that it compares with the measured one."""
    return lambda plan: plan[2] * sum(ratio(one, plan[1]) for one in plan[0])


_right_seconds = _each(lambda a, b: _work(a) / _work(b))


def _without(knob: str) -> Callable[[_Plan], float]:
    return _each(lambda a, b: _work(a) / _work(b) * getattr(b, knob) / getattr(a, knob))


@check("6.1", "correct: steps, batch size and layers count; width, rate, place and seed hardly do.")
def check_seconds(predict_seconds: Any) -> None:
    """``predict_seconds(planned, measured, seconds)`` must sum up what the planned runs will take."""
    long = Settings(steps=300, base_layers=4, bottleneck_dim=4, seed=2)
    plans: list[_Plan] = [
        ([replace(_DEFAULT, bottleneck_dim=m, seed=s) for m in (2, 64, 128) for s in (1, 5)], _DEFAULT, 20.0),
        ([replace(long, steps=120, seed=7), long, replace(long, batch_size=8, base_layers=6)],
         Settings(steps=50, base_layers=2, batch_size=16, bottleneck_dim=8, seed=3), 3.0),
        ([long, long], _DEFAULT, 24.0),
        ([replace(long, base_layers=1, steps=90, batch_size=64, bottleneck_dim=1)], replace(long, bottleneck_dim=32), 60.0),
    ]  # fmt: skip
    answers = [number(predict_seconds(list(planned), measured, seconds)) for planned, measured, seconds in plans]

    def same(formula: Callable[[_Plan], float]) -> bool:
        return all(math.isclose(a, formula(plan), rel_tol=0.01) for a, plan in zip(answers, plans, strict=True))

    def one_run(choose: Callable[[list[float]], float]) -> Callable[[_Plan], float]:
        return lambda plan: choose([plan[2] * _work(one) / _work(plan[1]) for one in plan[0]])

    first_match(
        same,
        _right_seconds,
        [
            (_each(lambda a, b: 1), "every run is taken to last as long as the measured one: more steps, larger batches and more "
                                    "layers take longer"),
            (_without("batch_size"), "batch_size is missing: a step with twice as many texts takes twice as long"),
            (_without("base_layers"), "base_layers is missing: every text passes through all of them, forward and back"),
            (_without("steps"), "steps is missing: a run is as long as its steps"),
            (_each(lambda a, b: a.steps / b.steps), "only the steps count: a step is also longer with more layers and with more texts"),
            (_each(lambda a, b: a.base_layers / b.base_layers), "only the layers count: steps and texts in a batch do, too"),
            (_each(lambda a, b: a.batch_size / b.batch_size), "only the batch counts: steps and layers do, too"),
            (_each(lambda a, b: _work(b) / _work(a)), "the ratio is upside down: a planned run with more steps than the measured one "
                                                      "takes longer"),
            (_each(lambda a, b: _work(a) / _work(_DEFAULT)), "it takes the default settings for the measured ones: those are given"),
            (lambda plan: sum(map(_work, plan[0])) * plan[2], "the work is not divided by that of the measured run"),
            (_each(lambda a, b: _work(a) / _work(b) * a.bottleneck_dim / b.bottleneck_dim), "the width is taken to count: the frozen base "
             "does nearly all of the work, whatever the adapters' width"),
            (_each(lambda a, b: _work(a) / _work(b) * (a.seed + 1)), "the seed is counted as a number of runs: it only says where the "
             "random numbers start"),
            (_each(lambda a, b: _work(a) / _work(b) * (a.base_layers / b.base_layers)), "the layers count twice: they are passed one after "
             "the other, so time grows in proportion"),
            (lambda plan: _right_seconds(plan) * len({s.seed for s in plan[0]}), "the seeds are counted twice: planned has each run with "
             "each of its seeds already"),
            (lambda plan: _right_seconds(plan) / 60, "those are minutes: return seconds"),
            (lambda plan: _right_seconds(plan) + plan[2], "the measured run is counted, too: it is over already"),
            (lambda plan: _right_seconds((list(dict.fromkeys(plan[0])), *plan[1:])), "runs with the same settings are counted once: "
             "what is planned twice is run twice"),
            (lambda plan: _right_seconds(([replace(s, seed=0) for s in {replace(s, seed=0): 0 for s in plan[0]}], *plan[1:])),
             "the seeds are left out: each is a run of its own"),
            (one_run(lambda v: v[0]), "that is the first planned run: sum up all of them"),
            (one_run(lambda v: v[-1]), "that is the last planned run: sum up all of them"),
            (one_run(max), "that is the longest of the planned runs: they run one after the other, so sum up"),
            (one_run(lambda v: sum(v) / len(v)), "that is the mean of the planned runs: they run one after the other, so sum up"),
            (lambda plan: plan[2] * sum(s.steps for s in plan[0]) * sum(s.batch_size for s in plan[0])
             * sum(s.base_layers for s in plan[0]) / _work(plan[1]), "steps, batches and layers are summed up before they are "
             "multiplied: multiply for each run, then sum up"),
        ],
        f"a run of 200 steps, 32 texts, 3 layers took 24 s. Two of 300 steps, 32 texts, 4 layers take 96 s, not {answers[2]:.6g}: "
        "which three settings make a run longer in proportion?",
    )  # fmt: skip


@check("6.2", "correct: the interval of the paired differences decides, and what it leaves open is unclear.")
def check_judge(judge: Any) -> None:
    """``judge(accuracies, reference, margin)`` must give each other width its verdict."""
    given = []
    for case in CASES:
        answer = judge({m: dict(seeds) for m, seeds in case.items()}, REFERENCE, MARGIN)
        require(answer is not None, NOTHING)
        require(
            isinstance(answer, dict),
            f"it must return a dict of verdicts by width, it returned a {type(answer).__name__}",
        )
        verdicts = {m: verdict for m, verdict in answer.items() if m != REFERENCE}
        others = sorted(m for m in case if m != REFERENCE)
        require(
            set(verdicts) == set(others),
            f"it has verdicts on the widths {list(verdicts)}: give one for each of {others}",
        )
        for verdict in verdicts.values():
            require(
                verdict in VERDICTS,
                f"{verdict!r} is no verdict: it is {VERDICTS[0]!r}, {VERDICTS[1]!r} or {VERDICTS[2]!r}",
            )
        given.append(verdicts)
    first_match(lambda rule: given == [rule(case) for case in CASES], right_rule, RULES, _first_difference(given))


def _first_difference(given: Sequence[dict[int, str]]) -> str:
    for case, verdicts in zip(CASES, given, strict=True):
        for m, right in right_rule(case).items():
            if verdicts[m] != right:
                seeds = case[REFERENCE]
                lost = ", ".join(f"{100 * (seeds[s] - case[m][s]):.1f}" for s in sorted(seeds))
                return (
                    f"a width that loses {lost} points with its seeds is {right!r} with a margin of 2 points, and the "
                    f"function says {verdicts[m]!r}: take the two ends of the interval of these differences"
                )
    return ""


_PLACES = {"houlsby": 2, "pfeiffer": 1, "parallel": 1}


def _parameters(one: Settings) -> int:
    blocks = one.base_layers if one.layers is None else len(one.layers)
    return _PLACES[one.placement] * blocks * Adapter.count(384, one.bottleneck_dim)


@check("6.3", "correct: one question, equal parameters, the same seeds for each, and nothing else changed.")
def check_fair(fair_comparison: Any) -> None:
    """``fair_comparison(reference, placements, seeds)`` must return the settings of every run."""
    two, three = ("houlsby", "pfeiffer"), ("parallel", "houlsby", "pfeiffer")
    other = Settings(bottleneck_dim=24, base_layers=4, learning_rate=1e-2, steps=300, init="houlsby", seed=9)
    for reference, placements, seeds in ((Settings(), two, (0, 1, 2)), (other, three, (3, 5, 8, 4))):
        answer = fair_comparison(reference, list(placements), list(seeds))
        require(answer is not None, NOTHING)
        try:
            runs = list(answer)
        except TypeError:
            raise Mistake(f"it must return a list of Settings, it returned a {type(answer).__name__}") from None
        _look_at_plan(runs, reference, placements, seeds)


def _look_at_plan(runs: list[Any], reference: Settings, placements: Sequence[str], seeds: Sequence[int]) -> None:
    require(bool(runs), "the list is empty: one Settings for each placement and each seed")
    strange = next((run for run in runs if not isinstance(run, Settings)), None)
    require(
        strange is None,
        f"the list must hold Settings, one for each run, it holds a {type(strange).__name__}: no nested lists, no numbers",
    )
    arms = {p: [run for run in runs if run.placement == p] for p in placements}
    foreign = [run.placement for run in runs if run.placement not in placements]
    require(not foreign, f"placement {foreign[0] if foreign else ''!r} was not asked for: use those of placements")
    for placement, arm in arms.items():
        require(
            bool(arm),
            f"there is no run with {placement!r}: "
            + ("the reference takes part, too, with all seeds" if placement == "houlsby" else "placements are given"),
        )
    for run in runs:
        changed = [k for k in KNOBS if getattr(run, k) != getattr(reference, k)]
        knobs = [k for k in changed if k not in ("placement", "bottleneck_dim", "seed")]
        if knobs and all(getattr(r, k) == getattr(_DEFAULT, k) for r in runs for k in knobs):
            raise Mistake(
                f"{', '.join(knobs)}: the reference's own settings are lost, all runs have the defaults. "
                "replace(reference, …) keeps what it is not told to change"
            )
        require(
            not knobs,
            f"{', '.join(knobs)} changes as well: if the results differ, nobody knows which of the changes it was",
        )
    _look_at_seeds(runs, arms, seeds, reference)
    for placement, arm in arms.items():
        widths = {run.bottleneck_dim for run in arm}
        require(
            len(widths) == 1, f"the runs with {placement!r} have several widths, {sorted(widths)}: one for all seeds"
        )
        _look_at_width(arm[0], reference)


def _look_at_seeds(
    runs: list[Settings], arms: dict[str, list[Settings]], seeds: Sequence[int], reference: Settings
) -> None:
    by_arm = {placement: [run.seed for run in arm] for placement, arm in arms.items()}
    used = {run.seed for run in runs}
    twice = next((run for run, times in Counter(runs).items() if times > 1), None)
    require(
        used != {reference.seed} or len(seeds) == 1,
        "all runs have one seed: what differs could be luck, so run each placement with all seeds",
    )
    require(
        used <= set(seeds),
        f"seeds {sorted(used - set(seeds))} were not asked for: take the values in seeds, not their places in the list",
    )
    require(
        max(len(set(own)) for own in by_arm.values()) > 1,
        "each placement has one seed only: what differs could be luck, so run each with all seeds",
    )
    require(
        twice is None,
        "the same settings are in the list twice: on one machine the second run only repeats the first, to the last digit",
    )
    for placement, own in by_arm.items():
        require(
            set(own) == set(seeds),
            f"{placement!r} has the seeds {sorted(own)} instead of {sorted(seeds)}: the same ones for each placement, so that "
            "the two can be compared seed by seed",
        )


def _look_at_width(run: Settings, reference: Settings) -> None:
    m, width = run.bottleneck_dim, reference.bottleneck_dim
    share = _parameters(run) / _parameters(reference)
    if abs(share - 1) <= 0.03:
        return
    if run.placement == "houlsby":
        raise Mistake(f"the reference itself has changed: its width is {width}, and here it is {m}")
    reasons = {
        width: "the same width is not the same size: Houlsby's places have two adapters in each block, the others one",
        width // 2: "the width is halved where it has to be doubled: one adapter must make up for two",
        4 * width: "the width is four times the reference's: parameters grow in proportion to the width, and one "
        "adapter stands for two",
        width**2: "the width is squared: parameters grow in proportion to it, so twice the width",
        32: "the width is 32 whatever the reference has: work it out from reference.bottleneck_dim",
    }
    raise Mistake(
        reasons.get(m, f"{run.placement!r} with m = {m} trains {share:.2f} of the reference's parameters")
        + f" (m = {m}: {_parameters(run):,} parameters against {_parameters(reference):,})"
    )


@check("6.4", "correct: a new model for each run, seeded before it is built, and its result kept.")
def check_sweep(sweep: Any) -> None:
    """``sweep(build, train_and_validate, widths, seeds)`` must return what every run gives that stands alone."""
    for widths, seeds in (((2, 8, 32), (0, 1, 2)), ((16, 4), (7, 3))):
        bench = Bench()
        answer = sweep(bench.build, bench.train_and_validate, list(widths), list(seeds))
        examine_runs(bench, answer, widths, seeds)
