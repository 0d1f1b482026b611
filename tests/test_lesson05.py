"""What lesson 05 rests on: complete results, counts, printed outputs. Its claims are judged by notebooks/claims.py."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from test_results import output

from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, prepare
from adapters_lesson.history import load_results

LESSON = "05_training"
ROOT = Path(__file__).parents[1]
STUDIES = {"methods": 5, "init_std": 3, "forgetting": 3, "ablation": 3, "learning_rate": 1}


def runs_of(study, label):
    """The runs with the chosen learning rate, in the order of their seeds."""
    row = load_results(study)["rows"][label]
    return sorted((r for r in row["runs"] if r["learning_rate"] == row["learning_rate"]), key=lambda r: r["seed"])


@pytest.mark.parametrize("study", STUDIES)
def test_the_results_are_complete_and_say_how_they_were_made(study):
    results = load_results(study)
    assert results["command"] == f"python data/run_experiments.py {study}"
    assert results["threads"] == 1
    for label, row in results["rows"].items():
        tried = {run["learning_rate"]: run for run in row["runs"] if run["seed"] == 0}
        best = max(run["validation"][-1] for run in tried.values())
        assert tried[row["learning_rate"]]["validation"][-1] == best
        runs = runs_of(study, label)
        assert len(runs) >= STUDIES[study]
        assert [run["seed"] for run in runs] == list(range(len(runs)))
        assert len({run["trainable"] for run in row["runs"]}) == 1


def test_every_method_had_three_rates_or_more():
    for label, row in load_results("methods")["rows"].items():
        rates = sorted(run["learning_rate"] for run in row["runs"] if run["seed"] == 0)
        assert len(rates) >= 3, label
        assert all(2 < b / a < 4 for a, b in pairwise(rates))


@pytest.mark.parametrize(
    "label", ["head only", "LayerNorms", "BitFit", "Houlsby m=16", "parallel m=4", "full fine-tuning"]
)
def test_the_counts_in_the_results_are_the_models(label):
    row = load_results("methods")["rows"][label]
    model = Classifier(SmallTransformer.from_minilm(row["layers"]), 2)
    counts = prepare(model, row["method"], AdapterConfig(**row["config"]) if "config" in row else None)
    assert {run["trainable"] for run in row["runs"]} == {counts.trainable}


def test_adapters_and_lora_give_the_old_answers_back_and_the_others_cannot():
    rows = load_results("forgetting")["rows"]
    for label, row in rows.items():
        for run in row["runs"]:
            assert run["old_after"] < run["old_before"]
            if row["method"] in ("adapter", "lora"):
                assert run["identical"] is True
                assert run["old_switched_off"] == run["old_before"]
            else:
                assert run["identical"] is None, label
    for seed in range(3):  # the old head was the same for all methods
        assert len({run["old_before"] for row in rows.values() for run in row["runs"] if run["seed"] == seed}) == 1


def test_the_lesson_measures_what_it_says():
    text = output(LESSON)
    assert "adapters              : 6 of 6 in training mode" in text
    assert re.search(r"dropout of the base +: 0 of 4 in training mode", text)
    assert re.search(r"LayerNorms of the base: 0 of 7 in training mode", text)
    live = {m[0].strip(): float(m[1]) for m in re.findall(r"^(\S.*?) {2,}[\d,]+ +\de-\d\d +([\d.]+) %", text, re.M)}
    assert len(live) == 6
    assert live["Houlsby m=16"] >= live["full fine-tuning"] - 3
    assert min(live[label] for label in ("Houlsby m=16", "LoRA r=8", "full fine-tuning")) > max(
        live[label] for label in ("head only", "LayerNorms", "BitFit")
    )
    assert re.search(r"with the adapters, the old answers: +False", text)
    assert re.search(r"switched off, the old answers: +True", text)
    assert re.search(r"on again, the new model's answers: +True", text)
    assert re.search(r"full fine-tuning gives the old answers: +False", text)
    first, last = map(
        float, re.search(r"loss from ([\d.]+) to ([\d.]+); moved: adapters False, head True, base True", text).groups()
    )
    assert last < first
    assert 0.1 < float(re.search(r"Houlsby m=4 trains ([\d.]+) % of", text)[1]) < 0.15


def test_the_commands_beside_the_questions_name_rows_that_are_there():
    commands = re.findall(r"^ +python (data/run_experiments.py methods .+)$", output(LESSON), re.M)
    assert len(commands) >= 8
    for command in commands:
        script, study, *labels = shlex.split(command)
        assert (ROOT / script).exists()
        assert set(labels) <= set(load_results(study)["rows"])


def test_what_a_frozen_base_allows_is_measured():
    text = output(LESSON)
    assert float(re.search(r"with adapters: ([\d.]+) of it", text)[1]) < 0.7
    single, half = (
        float(re.search(rf"{name} +keeps +([\d.]+) MB", text)[1]) for name in ("precision", "bfloat16 base")
    )
    assert half < 0.7 * single  # "a good part of the activations"
    assert float(re.search(r"largest difference of the loss in \d+ steps: (\S+)", text)[1]) < 1e-4
    assert float(re.search(r"a step takes ([\d.]+) of the time, not counting", text)[1]) < 0.9
