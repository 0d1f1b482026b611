"""data/run_many_tasks.py: its machinery on tiny models, and the committed results that the lesson quotes."""

import sys
from pathlib import Path
from statistics import mean

import pytest
import torch
from models import DEPTH, WIDTH, Columns, small, toy_data
from test_bank import bank_on, batch

from adapters_lesson import AdapterConfig, Classifier
from adapters_lesson.history import load_results

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import many_tasks_fusion
import run_many_tasks

WAYS = {"switched by group", "row by row", "mixed batch"}


# --- The machinery --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_all_ways_give_the_same_answers():
    bank = bank_on(small(), {name: (AdapterConfig(2), 2) for name in "abc"})
    names = ["c", "a", "b", "b", "c", "a", "a"]
    x = batch(len(names))
    full = [Classifier(bank.base_model, 2) for _ in "abc"]
    ways = run_many_tasks.contenders(bank, full, names, x)
    assert set(ways) == WAYS | {"full models"}
    expected = ways["mixed batch"]()
    assert expected.shape == (7, 2)
    for way in WAYS:
        torch.testing.assert_close(ways[way](), expected, rtol=1e-5, atol=1e-5)
    bank.switch(None)
    features = bank.features(*x)
    own = torch.stack([full["abc".index(name)].head(row) for name, row in zip(names, features, strict=True)])
    torch.testing.assert_close(ways["full models"](), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tasks", [1, 3])
def test_the_sizes_are_predicted(tasks, monkeypatch):
    class Small:
        from_minilm = staticmethod(lambda layers: small())

    monkeypatch.setattr(run_many_tasks, "SmallTransformer", Small)
    base = sum(p.numel() for p in small().parameters())
    predicted = run_many_tasks.predicted(base, WIDTH, DEPTH, tasks)
    for kind, value in predicted.items():
        measured = run_many_tasks.measure_size(kind, tasks)
        assert measured["parameters"] == value
        assert 0 < measured["disk"] - value < 16_000 * tasks  # names and shapes at the beginning of the files
        assert measured["process"] >= 0


def further_data():
    """Three labels, and what `one_run` asks of a dataset beside its columns."""

    class Feature:
        num_classes = 3
        names = ("named", "other", "neither")

    class Data(Columns):
        features = {"label": Feature}  # noqa: RUF012

        def shuffle(self, seed):
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
            return Data({key: [values[i] for i in order] for key, values in self.items()})

        def select(self, rows):
            return Data({key: [values[i] for i in rows if i < len(self)] for key, values in self.items()})

    return {split: Data(toy_data(48)) for split in ("train", "validation", "test")}


def test_the_ways_to_use_members(monkeypatch):
    monkeypatch.setattr(many_tasks_fusion, "load_tokenizer", lambda: None)
    monkeypatch.setattr(many_tasks_fusion, "load_task", lambda task: further_data())
    monkeypatch.setattr(many_tasks_fusion, "encode", lambda data, tokenizer: data)

    class Small:
        from_minilm = staticmethod(lambda layers: small())

    monkeypatch.setattr(many_tasks_fusion, "SmallTransformer", Small)
    results, saved = {}, []
    many_tasks_fusion.fusion(results, lambda: saved.append(1), quick=True)
    labels = ["head only", *(f"{name}, new head" for name in many_tasks_fusion.MEMBERS)]
    labels += ["new adapter", "average", "stack on the best member", "fusion"]
    assert list(results["rows"]) == labels
    trainable = {label: row["runs"][0]["trainable"] for label, row in results["rows"].items()}
    one = DEPTH * (2 * WIDTH * many_tasks_fusion.WIDTH + many_tasks_fusion.WIDTH + WIDTH)
    assert list(trainable.values()) == [0, 0, 0, 0, one, one, one, DEPTH * 3 * WIDTH**2]
    for row in results["rows"].values():
        assert {run["seed"] for run in row["runs"]} == {0, 1}
    attention = torch.tensor(results["rows"]["fusion"]["runs"][0]["attention"])
    assert attention.shape == (DEPTH, 3)
    torch.testing.assert_close(attention.sum(1), torch.ones(DEPTH), rtol=0, atol=1e-3)
    runs = sum(len(row["runs"]) for row in results["rows"].values())
    assert len(saved) == runs + 1
    many_tasks_fusion.fusion(results, lambda: saved.append(1), quick=True)  # nothing is run again
    assert sum(len(row["runs"]) for row in results["rows"].values()) == runs and len(saved) == runs + 2


def test_the_best_member_is_the_one_with_the_best_features():
    members = many_tasks_fusion.MEMBERS
    rows = {
        f"{name}, new head": {"runs": [{"seed": 0, "validation": v}]}
        for name, v in zip(members, (1, 3, 2), strict=True)
    }
    assert many_tasks_fusion.best_member(rows) == members[1]
    rows[f"{members[1]}, new head"]["runs"] = []
    assert many_tasks_fusion.best_member(rows) == members[2]
    assert many_tasks_fusion.best_member({}) == members[0]


# --- The committed results ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    return load_results("many_tasks")


def test_a_mixed_batch_is_faster_than_its_rows_one_by_one(results):
    for n, ways in results["timing"]["tasks"].items():
        assert set(ways) == WAYS | {"full models"}
        assert ways["mixed batch"]["ratio"] == 1
        assert ways["row by row"]["ratio_interval"][0] > 1.2, n
    by_group = [ways["switched by group"]["ratio"] for ways in results["timing"]["tasks"].values()]
    assert by_group == sorted(by_group)  # the more groups, the smaller they are
    assert by_group[-1] > 1.2
    assert results["timing"]["switch"]["median"] < 1e-3


def test_the_sizes_are_as_predicted(results):
    for n, kinds in results["size"]["tasks"].items():
        for kind in kinds.values():
            assert kind["parameters"] == kind["predicted"]
            assert 0 < kind["disk"] - kind["predicted"] < 16_000 * int(n) + 30_000
            assert 0.9 < kind["process"] / kind["predicted"] < 1.6
        assert kinds["adapters"]["disk"] < kinds["full"]["disk"]
    assert results["size"]["tasks"]["16"]["full"]["disk"] > 10 * results["size"]["tasks"]["16"]["adapters"]["disk"]


def chosen(results, label):
    """The runs of a row at the rate that did best on the validation split."""
    row = results["fusion"]["rows"][label]
    runs = [run for run in row["runs"] if run["learning_rate"] == row["learning_rate"]]
    assert [run["seed"] for run in runs] == [0, 1, 2, 3, 4]
    assert runs[0]["validation"] == max(run["validation"] for run in row["runs"] if run["seed"] == 0)
    return runs


def test_the_fusion_results_are_whole(results):
    rows = results["fusion"]["rows"]
    assert len(rows) == 8
    for label in rows:
        assert all(0.3 < run["test"] <= 1 for run in chosen(results, label))
    for run in chosen(results, "fusion"):
        assert torch.tensor(run["attention"]).sum(1).sub(1).abs().max() < 1e-3


def test_what_the_members_give_to_the_further_task(results):
    test = {label: [run["test"] for run in chosen(results, label)] for label in results["fusion"]["rows"]}
    best = test[f"{results['fusion']['stacked_on']}, new head"]
    assert min(best) > max(test["new adapter"]) + 0.2 > max(test["head only"])  # a head on the right member is enough
    assert min(test["stack on the best member"]) >= max(best)
    assert mean(test["new adapter"]) + 0.15 < mean(test["fusion"]) < mean(best)  # and need not be found by attention
    assert max(test["fusion"]) - min(test["fusion"]) > 0.15  # which depends on the seed
    assert max(test["average"]) - min(test["average"]) > 0.15
