"""The results of lesson 11, held against what they are made of: sizes, rates inside their grids, four bits."""

import sys
from pathlib import Path

import pytest
import torch

from adapters_lesson import Classifier, LoRAConfig, SmallTransformer, prepare
from adapters_lesson.course.mine.shelf import REFERENCE
from adapters_lesson.history import load_results

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import run_lora

RESULTS = load_results("lora")


def rows():
    return [
        (study, label, row)
        for study in run_lora.STUDIES
        for label, row in RESULTS.get(study, {"rows": {}})["rows"].items()
    ]


@pytest.mark.parametrize(
    ("study", "label", "row"), [(s, label, row) for s, label, row in rows() if row["model"] == "lora"]
)
def test_a_row_trains_what_its_settings_say(study, label, row):
    model = Classifier(SmallTransformer.from_minilm(run_lora.LAYERS), num_labels=2)
    settings = {key: row[key] for key in ("targets", "rank", "alpha", "use_rslora")}
    assert {r["trainable_without_head"] for r in row["runs"]} == {
        prepare(model, "lora", LoRAConfig(**settings)).without_head
    }


@pytest.mark.parametrize(("study", "label", "row"), rows())
def test_no_rate_is_at_the_edge_of_its_grid(study, label, row):
    rates = {run["learning_rate"] for run in row["runs"]}
    assert len(rates) == 1 or min(rates) < row["learning_rate"] < max(rates)
    assert not any(run["stopped"] for run in row["runs"])


def test_the_three_ways_to_choose_layers_cost_the_same():
    sizes = {label: row["runs"][0]["trainable_without_head"] for label, row in RESULTS["targets"]["rows"].items()}
    assert len(sizes) == 3
    assert set(sizes.values()) == {82_944}


def test_the_script_quantises_as_the_exercise_does():
    names = {}
    exec(REFERENCE.read_text(encoding="utf-8"), names)
    weight = torch.randn(24, 32)
    assert torch.equal(run_lora.quantised(weight), names["quantise"](weight, run_lora.NF4)[2])
