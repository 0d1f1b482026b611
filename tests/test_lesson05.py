"""The claims of lesson 05, held against the committed results and the outputs of the executed notebook."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
from test_results import output

from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, prepare
from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.history import load_results

LESSON = "05_training"
ROOT = Path(__file__).parents[1]
STUDIES = {"methods": 5, "init_std": 3, "forgetting": 3, "ablation": 3, "learning_rate": 1}


def runs_of(study, label):
    """The runs with the chosen learning rate, in the order of their seeds."""
    row = load_results(study)["rows"][label]
    return sorted((r for r in row["runs"] if r["learning_rate"] == row["learning_rate"]), key=lambda r: r["seed"])


def accuracy(study, label):
    return mean(run["test"] for run in runs_of(study, label))


def difference(one, other):
    pairs = zip(runs_of("methods", one), runs_of("methods", other), strict=True)
    return mean_and_interval([a["test"] - b["test"] for a, b in pairs])


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


def test_every_method_had_as_many_tries():
    for label, row in load_results("methods")["rows"].items():
        rates = sorted(run["learning_rate"] for run in row["runs"] if run["seed"] == 0)
        assert len(rates) == 3, label
        assert all(2 < b / a < 4 for a, b in pairwise(rates))


@pytest.mark.parametrize(
    "label", ["head only", "LayerNorms", "BitFit", "Houlsby m=16", "parallel m=4", "full fine-tuning"]
)
def test_the_counts_in_the_results_are_the_models(label):
    row = load_results("methods")["rows"][label]
    model = Classifier(SmallTransformer.from_minilm(row["layers"]), 2)
    counts = prepare(model, row["method"], AdapterConfig(**row["config"]) if "config" in row else None)
    assert {run["trainable"] for run in row["runs"]} == {counts.trainable}


def test_adapters_do_as_well_as_full_fine_tuning_and_the_weak_methods_do_not():
    full = accuracy("methods", "full fine-tuning")
    for label in ("Houlsby m=4", "Houlsby m=64"):
        assert accuracy("methods", label) >= full - 0.01
    low, *others = sorted(run["test"] for run in runs_of("methods", "Houlsby m=16"))
    assert 0.90 <= low < 0.92
    assert len(others) == 4
    assert min(others) > 0.99
    difference_, half = difference("Houlsby m=16", "full fine-tuning")
    assert abs(difference_) < half  # the interval includes zero
    for label in ("head only", "LayerNorms", "BitFit"):
        assert accuracy("methods", label) <= full - 0.10
        mean_, half = difference("Houlsby m=16", label)
        assert mean_ > half


def test_width_matters_with_one_adapter_a_layer_and_hardly_in_houlsbys_places():
    houlsby = [accuracy("methods", f"Houlsby m={m}") for m in (4, 16, 64)]
    assert max(houlsby) - min(houlsby) <= 0.03
    assert min(houlsby) >= accuracy("methods", "full fine-tuning") - 0.03
    for name in ("Pfeiffer", "parallel"):
        narrow, middle, wide = (accuracy("methods", f"{name} m={m}") for m in (4, 16, 64))
        assert narrow < middle < wide
        assert wide - narrow >= 0.10


def test_with_four_layers_the_strong_methods_cannot_be_told_apart():
    for label in ("full fine-tuning", "Houlsby m=16", "LoRA r=8"):
        assert accuracy("forgetting", label) >= 0.995


def test_while_they_are_on_adapters_cost_the_old_task_at_least_as_much_as_full_fine_tuning():
    lost = {
        label: [run["old_before"] - run["old_after"] for run in runs_of("forgetting", label)]
        for label in ("full fine-tuning", "Houlsby m=16")
    }
    assert all(a >= f for a, f in zip(lost["Houlsby m=16"], lost["full fine-tuning"], strict=True))
    rows = load_results("forgetting")["rows"]
    assert rows["Houlsby m=16"]["learning_rate"] == pytest.approx(30 * rows["full fine-tuning"]["learning_rate"])
    assert accuracy("forgetting", "LayerNorms") < 0.85  # hardly learns the new task, and still:
    assert mean(run["old_before"] - run["old_after"] for run in runs_of("forgetting", "LayerNorms")) > 0.05


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


def test_the_initial_size_hardly_matters_until_it_is_very_large():
    rows = load_results("init_std")["rows"]
    tests = {row["config"]["init_std"]: [r["test"] for r in runs_of("init_std", label)] for label, row in rows.items()}
    assert len(tests) == 8
    means = [mean(values) for _, values in sorted(tests.items())]
    assert min(means[:-1]) >= 0.96  # up to 0.1
    assert max(means[4:-1]) - min(means[4:-1]) <= 0.01  # from 0.001 to 0.1
    assert means[-1] <= 0.65  # 1
    for values in [values for std, values in tests.items() if std < 5e-5]:
        low, *others = sorted(values)
        assert low <= 0.97
        assert min(others) >= 0.99


def test_single_layers_adapters_can_be_missed_and_the_lower_ones_together_cannot():
    runs = runs_of("ablation", "Houlsby m=16")
    change = {}
    for i, span in enumerate(runs[0]["spans"]):
        change[span["first"], span["last"]] = mean(run["spans"][i]["test"] / run["test"] - 1 for run in runs)
    assert len(change) == 21
    assert all(change[layer, layer] >= -0.10 for layer in range(6))
    assert mean(change[layer, layer] for layer in range(6)) >= -0.05
    assert change[0, 5] <= -0.30
    assert change[4, 5] >= -0.02
    assert change[0, 1] <= change[4, 5] - 0.05
    whole = mean(run["test"] for run in runs)
    assert -change[0, 5] * whole >= 0.6 * (whole - 0.5125)  # most of the way to always the same answer


def test_adapters_want_a_higher_learning_rate_than_full_fine_tuning():
    means = {}
    for label, row in load_results("learning_rate")["rows"].items():
        rates = sorted({run["learning_rate"] for run in row["runs"]})
        assert len(rates) == 7
        means[label] = {r: mean(run["test"] for run in row["runs"] if run["learning_rate"] == r) for r in rates}
    full, adapters = means["full fine-tuning"], means["Houlsby m=16"]
    best = [max(by_rate, key=by_rate.get) for by_rate in (full, adapters)]
    assert best[1] >= 9 * best[0]
    assert full[best[1]] <= full[best[0]] - 0.2
    assert adapters[best[0]] <= adapters[best[1]] - 0.2
    assert max(full[3e-2], adapters[3e-2]) <= 0.6  # guessing
    wide = [sum(accuracy > 0.9 for accuracy in by_rate.values()) for by_rate in (full, adapters)]
    assert abs(wide[0] - wide[1]) <= 1
    assert min(wide) >= 1


def test_the_lesson_measures_what_it_says():
    text = output(LESSON)
    assert "adapters              : 6 of 6 in training mode" in text
    assert re.search(r"dropout of the base +: 0 of 4 in training mode", text)
    assert re.search(r"LayerNorms of the base: 0 of 7 in training mode", text)
    live = {m[0].strip(): float(m[1]) for m in re.findall(r"^(\S.*?) {2,}[\d,]+ +\de-\d\d +([\d.]+) %$", text, re.M)}
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
