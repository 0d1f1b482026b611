"""The claims of the lessons, held against the committed results and the outputs of the executed notebooks."""

import re
from pathlib import Path
from statistics import mean

import nbformat
import pytest

from adapters_lesson.guards.safe_files import PretrainedFileError
from adapters_lesson.history import load_results

SOLUTIONS = Path(__file__).parents[1] / "notebooks" / "solutions"


def chosen_runs(experiment, label):
    row = load_results(experiment)["rows"][label]
    runs = [run for run in row["runs"] if run["learning_rate"] == row["learning_rate"]]
    assert sorted(run["seed"] for run in runs) == list(range(max(3, len(runs))))
    tried = [run for run in row["runs"] if run["seed"] == 0]
    assert max(run["validation"][-1] for run in tried) == next(r for r in runs if r["seed"] == 0)["validation"][-1]
    return runs


def accuracy(experiment, label):
    return mean(run["test"] for run in chosen_runs(experiment, label))


def output(lesson):
    notebook = nbformat.read(SOLUTIONS / f"{lesson}.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return "\n".join(o.get("text", "") + str(o.get("data", {}).get("text/plain", "")) for o in outputs)


@pytest.mark.parametrize("label", ["Pfeiffer m=8", "Houlsby m=8", "Pfeiffer m=64", "Houlsby m=64"])
def test_film_adapters_are_near_full_fine_tuning_and_clearly_above_the_head(label):
    assert accuracy("film", label) >= accuracy("film", "full fine-tuning") - 0.02
    assert accuracy("film", label) >= accuracy("film", "head only") + 0.04
    parameters = [chosen_runs("film", name)[0]["trainable"] for name in (label, "full fine-tuning")]
    assert parameters[0] < 0.03 * parameters[1]


def test_film_widths_and_placements_are_within_the_spread():
    rows = ["Pfeiffer m=8", "Houlsby m=8", "Pfeiffer m=64", "Houlsby m=64", "LoRA r=8"]
    means = [accuracy("film", label) for label in rows]
    assert max(means) - min(means) <= 0.02


def test_lesson_01_measures_what_it_says():
    text = output("01_the_bottleneck")
    assert "exactly the identity: True" in text
    assert re.search(r"down_project.weight +gradient is zero", text)
    assert re.search(r"up_project.weight +gradient is not zero", text)
    assert "rank of the Jacobian: 8" in text
    assert float(re.search(r"std = 0.01: the update is +([\d.]+)", text)[1]) < 1
    assert float(re.search(r"std = 1.00: the update is +([\d.]+)", text)[1]) > 100
    assert re.search(r"without activation +update\(2h\) differs from 2·update\(h\) by +0.0 %", text)


def test_lesson_02_measures_what_it_says():
    text = output("02_a_small_transformer")
    assert float(re.search(r"largest difference over \d+ tokens × 384: (\S+)", text)[1]) < 1e-5
    shares = re.search(r"block 0, head 2: +(\d+) % of the attention is on the token before", text)
    assert int(shares[1]) > 80
    for task in ("film reviews", "aspect sentiment"):
        probes = [float(x) for x in re.search(rf"{task} +([\d. ]+)", text)[1].split()]
        assert len(probes) == 7
        assert max(probes) < 80
        assert min(probes) > 50
    assert abs(probes[6] - probes[3]) < 5  # the aspect task: the later layers do not take it further
    assert probes[3] - probes[0] > 5


def test_lesson_03_measures_what_it_says():
    text = output("03_inserting_adapters")
    assert float(re.search(r"accuracy on 2,000 test sentences: ([\d.]+) %", text)[1]) >= 97
    assert "the base model's bytes are the same as before: True" in text
    assert re.search(r"with the trained adapters, features as before: +False", text)
    assert re.search(r"switched off: +True", text)
    assert re.search(r"removed: +True", text)
    assert len(re.findall(r"init='zero' +identical: True", text)) == 3
    assert len(re.findall(r"init='houlsby' +identical: False", text)) == 3
    assert len(re.findall(r"identical: True, behind", text)) == 4


def test_lesson_07_measures_what_it_says():
    text = output("07_a_real_model")
    live = {m[0]: float(m[1]) for m in re.findall(r"^(head only|yours m=8) +test accuracy ([\d.]+) %", text, re.M)}
    assert live["yours m=8"] > live["head only"]
    won, lost = (int(re.search(rf"only the {w} right +(\d+)", text)[1]) for w in ("adapters", "head"))
    assert won > lost > 0


def test_missing_results_name_the_command_that_makes_them():
    with pytest.raises(PretrainedFileError, match=r"python data/run_experiments.py no_such"):
        load_results("no_such")
