"""The claims of lesson 06, held against the committed runs of the laboratory."""

import re
from pathlib import Path
from statistics import mean

import pytest
import torch
from wrong_answers import lesson06 as answers

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs import count_parameters
from adapters_lesson.course.checks import lesson06
from adapters_lesson.course.checks.check import Mistake
from adapters_lesson.course.checks.lesson06_verdicts import CASES, RIGHT, RULES, judged
from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.course.laboratory.experiments import SWEEPS, VALIDATE_EVERY, VALIDATION_TEXTS, Settings
from adapters_lesson.course.laboratory.guide import committed_runs
from adapters_lesson.history import load_results
from adapters_lesson.insertion import insert_adapters
from adapters_lesson.transformer import SmallTransformer, SmallTransformerConfig

SOURCE = Path(__file__).parents[1] / "notebooks" / "sources" / "06_the_bottleneck_lab.py"
TEXT = re.sub(r"\n# *", " ", SOURCE.read_text(encoding="utf-8"))


def accuracy(sweep, value):
    """Mean over the seeds in per cent."""
    runs = [run for run in committed_runs(sweep) if getattr(run.settings, SWEEPS[sweep].knob) == value]
    assert len(runs) == 3
    return 100 * mean(run.accuracy for run in runs)


@pytest.mark.parametrize(
    ("sentence", "runs"),
    [
        ("m = 4 reaches {}, and m = 16 {}. On the first", [("agreement", 4), ("agreement", 16)]),
        ("On the first one m = 4 reached {}.", [("width", 4)]),
        ("{} with one block, {} with two, {} with three", [("depth", blocks) for blocks in (1, 2, 3)]),
        ("{} with GELU and {} without", [("no activation", name) for name in ("gelu", "identity")]),
        ("From {} to {}: ", [("half the steps", 100), ("half the steps", 200)]),
    ],
)
def test_the_numbers_of_our_own_experiments_are_those_of_the_runs(sentence, runs):
    assert sentence.format(*(f"{accuracy(*run):.1f} %" for run in runs)) in TEXT


def test_the_same_number_of_parameters_means_what_it_says():
    def adapters(**config):
        model = SmallTransformer(SmallTransformerConfig(num_hidden_layers=3, vocab_size=10))
        insert_adapters(model, AdapterConfig(**config))
        return count_parameters(model).by_part["adapters"].total

    one, two = adapters(bottleneck_dim=32, placement="pfeiffer"), adapters(bottleneck_dim=16)
    assert abs(one / two - 1) < 0.02


def test_what_the_lesson_says_stands_still_is_so():
    assert Settings() == Settings(task="aspect_sentiment", base_layers=3, steps=200, batch_size=32)
    assert (VALIDATION_TEXTS, VALIDATE_EVERY) == (250, 25)
    assert "After every 25 steps it is validated on 250 sentences" in TEXT
    assert all(run.settings.steps == 200 for n in SWEEPS if SWEEPS[n].knob != "steps" for run in committed_runs(n))


def test_narrow_adapters_catch_up_at_the_higher_rate():
    for m in (1, 2, 4):
        assert accuracy("width, higher rate", m) > accuracy("width", m) + 10
    assert accuracy("width, higher rate", 4) > accuracy("width", 64) - 1


def test_the_results_say_how_they_were_made():
    results = load_results("laboratory")
    assert results["command"] == "python data/run_laboratory.py"
    assert results["threads"] == 1


def lost(sweep, m, reference=64):
    """What a width loses against the reference, seed by seed, in points."""
    runs = {(run.settings.bottleneck_dim, run.settings.seed): 100 * run.accuracy for run in committed_runs(sweep)}
    return [runs[reference, seed] - runs[m, seed] for seed in range(3)]


def test_the_verdicts_on_the_widths_are_those_that_the_lesson_says():
    verdicts = {}
    for m in SWEEPS["width"].values:
        if m != 64:
            middle, half = mean_and_interval(lost("width", m))
            verdicts[m] = "as good" if middle + half < 2 else "worse" if middle - half > 2 else "unclear"
    assert {m for m, verdict in verdicts.items() if verdict == "worse"} == {1, 2, 4}
    assert {m for m, verdict in verdicts.items() if verdict == "unclear"} == {8}
    assert "finds three widths worse, one unclear and three as good" in TEXT
    assert f"it lost {max(lost('width', 8)):.1f} points with one seed" in TEXT


def test_the_time_of_a_run_is_what_the_lesson_says():
    def fastest(name, value):
        return min(run["seconds"] for run in load_results("laboratory")["rows"][name]["runs"] if run["value"] == value)

    assert fastest("more steps", 400) / fastest("more steps", 200) == pytest.approx(2, abs=0.1)
    assert fastest("width", 128) / fastest("width", 1) == pytest.approx(1.1, abs=0.05)
    assert fastest("one block", [2]) / fastest("one block", [0]) < 0.8


@pytest.mark.parametrize("check", ["check_seconds", "check_judge", "check_fair", "check_sweep"])
def test_every_exercise_has_its_many_wrong_answers_and_right_ones_in_several_styles(check):
    assert len(answers.WRONG[check]) >= 12
    assert len(answers.RIGHT[check]) >= 3


def test_no_rule_that_judges_poorly_says_the_same_as_the_right_one():
    said = [[judged(rule, case) for case in CASES] for rule in [RIGHT, *RULES]]
    assert all(one not in said[:place] for place, one in enumerate(said))


def test_a_comparison_may_be_as_unequal_as_whole_widths_make_it():
    for m in (15, 17, 33, 100):
        reference = Settings(bottleneck_dim=m)
        for run in answers.fair()(reference, ["houlsby", "pfeiffer"], [0]):
            lesson06._look_at_width(run, reference)
    with pytest.raises(Mistake, match=r"0\.92 of"):
        lesson06._look_at_width(Settings(placement="pfeiffer", bottleneck_dim=30), Settings())


def test_what_the_check_counts_is_what_the_laboratory_measured():
    for name in SWEEPS:
        for run in committed_runs(name):
            assert lesson06._parameters(run.settings) == run.trainable


def test_a_learners_jobs_leave_the_random_numbers_alone():
    state = torch.get_rng_state()
    assert lesson06.check_sweep(answers.colleagues).status == "wrong"
    assert torch.equal(state, torch.get_rng_state())
