"""Lesson 07: the worlds of exercise 7.4, the colleague's classifier, and the lesson's claims about its own table."""

import re
import sys
from pathlib import Path

import pytest
import torch
from test_results import output
from wrong_answers import lesson07 as answers

from adapters_lesson.adapter import Adapter
from adapters_lesson.course.checks import check as report
from adapters_lesson.course.checks import lesson07 as checks
from adapters_lesson.course.checks import lesson07_designs as designs
from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.history import load_results

LESSON = "07_a_real_model"


def verdicts(design):
    return [design(world) for world in designs.WORLDS]


def test_the_right_design_tells_the_truth_in_every_world():
    truth = [world.supported for world in designs.WORLDS]
    assert verdicts(designs.experiment) == truth
    assert len(truth) == 20  # the card says so
    assert min(truth.count(True), truth.count(False)) >= 5


def test_every_poor_design_is_told_from_the_right_one_and_from_the_others():
    messages = {}
    for design, message in designs.DESIGNS.items():
        found = tuple(verdicts(design))
        assert list(found) != verdicts(designs.experiment), message
        assert messages.setdefault(found, message) == message
    assert len(messages) >= 18


def test_a_poor_design_unlike_all_others_is_told_a_world_in_which_it_errs():
    outcome = checks.check_claim(lambda *given: not answers.right_claim(*given))
    assert outcome.status == report.WRONG
    assert outcome.message.startswith("where both are equally good")


def test_a_runs_record_says_what_was_asked_for():
    run = designs.Recorded(designs.WORLDS[0])
    with pytest.raises(report.Mistake, match="no run is made"):
        run.examine()
    assert run("adapters", 3e-3, 0) == {"validation": 0.8, "test": 0.8}
    for arguments in (("LoRA", 3e-3, 0), ("adapters", 3e-4, 0), ("adapters", 3e-3, 9)):
        with pytest.raises(report.Mistake):
            run(*arguments)
    with pytest.raises(report.Mistake, match="no run of full fine-tuning"):
        run.examine()


def test_loras_formula_is_what_peft_trains():
    rows = load_results("film")["rows"]
    (count,) = {run["trainable_without_head"] for run in rows["LoRA r=8"]["runs"]}
    assert answers.right_lora(384, 8, 6) == count
    (houlsby,) = {run["trainable_without_head"] for run in rows["Houlsby m=8"]["runs"]}
    assert houlsby - count == 12 * (8 + 384)  # the biases


def test_the_colleagues_fault_shows_in_company_and_not_in_the_accuracy():
    text = output(LESSON)
    passes = dict(re.findall(r"^(.+?) +passes: (\w+) +largest", text, re.M))
    assert passes == {"yours": "True", "the colleague's": "False"}
    yours, theirs = (float(re.search(rf"{n} +passes: .* difference (\S+)", text)[1]) for n in ("yours", "colleague's"))
    assert yours < 1e-4
    assert theirs > 1e-2
    accuracies = re.search(r"the colleague's ([\d.]+) %, yours ([\d.]+) %", text)
    assert abs(float(accuracies[1]) - float(accuracies[2])) < 3  # the standard error of 200 sentences


def test_the_paired_interval_is_narrower_and_excludes_zero():
    text = output(LESSON)
    mean, half = map(float, re.search(r"adapters − head: ([+-][\d.]+) points, 95 % interval ± ([\d.]+)", text).groups())
    assert mean > half
    assert float(re.search(r"it would be ± ([\d.]+)", text)[1]) > 1.2 * half


def chosen(label):
    row = load_results("film")["rows"][label]
    runs = [run for run in row["runs"] if run["learning_rate"] == row["learning_rate"]]
    return [run["test"] for run in sorted(runs, key=lambda run: run["seed"])]


def test_what_the_lesson_says_of_its_own_table_is_what_the_rule_says():
    said = dict(
        re.findall(r"^(.+?) +[+-][\d.]+ ± .*: (supported|refuted|these runs cannot tell)$", output(LESSON), re.M)
    )
    expected = {}
    for label in load_results("film")["rows"]:
        if label != "full fine-tuning":
            mean, half = mean_and_interval(
                [a - b for a, b in zip(chosen(label), chosen("full fine-tuning"), strict=True)]
            )
            tells = {True: "supported", False: "refuted" if mean + half < -0.01 else "these runs cannot tell"}
            expected[label] = tells[mean - half > -0.01]
    assert said == expected
    assert [label for label, word in said.items() if word == "refuted"] == ["head only"]


def test_the_control_without_residual_passes_on_the_update_alone(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "data"), *sys.path])
    import run_controls

    h = torch.randn(3, 12)
    adapter = run_controls.NoResidual(2, init="bert").build(12)
    whole = Adapter.update(adapter, h)
    assert torch.allclose(adapter(h), whole, atol=1e-6)
    assert not torch.allclose(run_controls.ROWS["Houlsby m=8"].config.build(12)(h), whole)
