"""Experiments: settings that make sense, runs that can be repeated, and a folder that keeps them."""

import csv
import io
import json
import math
import threading
from dataclasses import replace
from types import SimpleNamespace

import lab_stand_ins
import pytest
import torch

from adapters_lesson.course.laboratory import experiments
from adapters_lesson.course.laboratory.experiments import KNOBS, SWEEPS, RunBook, Settings, Sweep, run_experiment
from adapters_lesson.history import History, load_results
from adapters_lesson.methods import METHODS

SHORT = Settings(steps=4, batch_size=8, base_layers=2, bottleneck_dim=4)


@pytest.fixture
def tiny(monkeypatch):
    lab_stand_ins.use(monkeypatch)


def numbers(run):
    """All of a run that must not depend on the clock."""
    return run.settings, run.trainable, {k: v for k, v in vars(run.history).items() if k != "seconds"}


# --- Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "chess"}, "task must be one of 'aspect_sentiment'"),
        ({"method": "prompt"}, "method must be one of"),
        ({"placement": "attic"}, "placement must be one of"),
        ({"base_layers": 7}, "base_layers must be 1 to 6, not 7"),
        ({"base_layers": 0}, "base_layers must be a whole number of at least 1, not 0"),
        ({"bottleneck_dim": 0}, "bottleneck_dim must be a whole number of at least 1, not 0"),
        ({"steps": 2.5}, "steps must be a whole number of at least 1, not 2.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, not 0.0"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number"),
        ({"init": "houlsby", "init_std": -1.0}, "init_std must be a finite number above 0"),
        ({"layers": (3,)}, r"layers=\(3,\), but the base has 3: use 0 to 2"),
        ({"layers": ()}, "layers must name different blocks"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_a_method_without_adapters_has_no_config():
    assert Settings(method="lora").config() is None
    assert Settings(init="houlsby", init_std=0.1).config().init_std == 0.1
    assert Settings().config().init_std is None  # zero has none


def test_differences_name_what_is_not_as_usual():
    assert Settings().differences() == {}
    assert Settings(bottleneck_dim=4, seed=2).differences() == {"bottleneck_dim": 4, "seed": 2}


def test_a_sweep_makes_one_run_for_each_value_and_seed():
    sweep = Sweep("bottleneck_dim", (1, 4))
    assert [s.bottleneck_dim for s in sweep.settings()] == [1, 4]
    assert [(s.seed, s.bottleneck_dim) for s in sweep.settings([3, 5])] == [(3, 1), (3, 4), (5, 1), (5, 4)]
    with pytest.raises(ValueError, match="knob must be one of"):
        Sweep("colour", ("red",))
    with pytest.raises(ValueError, match="at least one value, and each only once"):
        Sweep("bottleneck_dim", (4, 4))
    with pytest.raises(ValueError, match="bottleneck_dim must be a whole number"):
        Sweep("bottleneck_dim", (4, 0))


# --- Runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_can_be_repeated(tiny, method):
    settings = replace(SHORT, method=method)
    run = run_experiment(settings)
    assert run.history.steps == 4
    assert 0 <= run.accuracy <= 1
    assert numbers(run_experiment(settings)) == numbers(run)
    assert (run.trainable == 0) == (method == "head")


@pytest.mark.parametrize(
    "change",
    [
        {"placement": "pfeiffer"},
        {"placement": "parallel", "activation": "relu"},
        {"init": "houlsby", "init_std": 0.1},
        {"train_layer_norms": True},
        {"layers": (1,)},
        {"learning_rate": 0.03},
        {"seed": 1},
        {"bottleneck_dim": 8},
    ],
)
def test_every_setting_changes_the_run(tiny, change):
    assert run_experiment(replace(SHORT, **change)).history.loss != run_experiment(SHORT).history.loss


def test_a_run_leaves_the_random_numbers_of_the_process(tiny):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run_experiment(SHORT)
    assert torch.equal(torch.rand(3), expected)


def test_check_can_stop_a_run_and_what_was_learnt_is_kept(tiny):
    calls = []

    def check():
        calls.append(0)
        if len(calls) == 4:  # one row of the validation texts is tried before the run
            raise KeyboardInterrupt

    run = run_experiment(SHORT, check=check)
    assert run.history.stopped == "interrupted"
    assert run.history.steps == 2
    assert math.isnan(run.accuracy)


def test_a_run_that_would_not_fit_is_refused_with_a_reason(tiny, monkeypatch):
    monkeypatch.setattr(experiments.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    with pytest.raises(MemoryError, match=r"a step would need .* GB and 1e-05 GB are free: choose another method"):
        run_experiment(SHORT)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(steps=2),
        Settings(steps=2, method="lora", seed=3),
        Settings(steps=2, placement="pfeiffer", init="bert", init_std=0.05, train_layer_norms=True, layers=(0, 2)),
    ],
)
def test_the_snippet_is_the_same_run(settings):
    names = {}
    exec(settings.snippet(), names)
    run = run_experiment(settings)
    assert names["history"].loss == run.history.loss
    assert names["history"].validation == run.history.validation


def test_the_committed_sweeps_are_those_of_the_lesson():
    rows = load_results("laboratory")["rows"]
    assert list(rows) == list(SWEEPS)
    for name, sweep in SWEEPS.items():
        runs = rows[name]["runs"]
        assert rows[name]["knob"] == sweep.knob
        assert rows[name]["base"] == sweep.base.differences()
        values = json.loads(json.dumps(sweep.values))  # lists for tuples
        expected = [(value, seed) for seed in (0, 1, 2) for value in values]
        assert [(run["value"], run["seed"]) for run in sorted(runs, key=lambda run: run["seed"])] == expected
        assert len(runs) == 3 * len(sweep.values)


# --- The folder -----------------------------------------------------------------------------------------------------


def some_run(**changes):
    history = History({}, 9, [0.7, 0.5], [1e-3, 5e-4], [{"step": 2, "loss": 0.6, "accuracy": 0.75}], 1.5)
    return experiments.Run(replace(SHORT, **changes), history, 123)


def test_another_kernel_finds_the_runs_again(tmp_path):
    book = RunBook(tmp_path)
    kept = [book.add(some_run(seed=seed, layers=(0, 1) if seed else None)) for seed in range(3)]
    assert [run.number for run in kept] == [1, 2, 3]
    assert RunBook(tmp_path).runs == book.runs == {run.number: run for run in kept}


def test_a_deleted_run_is_gone_and_no_number_is_given_twice(tmp_path):
    book = RunBook(tmp_path)
    for seed in range(3):
        book.add(some_run(seed=seed))
    book.delete([1, 99])
    assert list(RunBook(tmp_path).runs) == [2, 3]
    assert book.add(some_run()).number == 4


def test_a_run_of_another_notebook_is_not_overwritten(tmp_path):
    one, other = RunBook(tmp_path), RunBook(tmp_path)
    one.add(some_run(seed=1))
    assert other.add(some_run(seed=2)).number == 2
    assert [run.settings.seed for run in RunBook(tmp_path).runs.values()] == [1, 2]


@pytest.mark.parametrize("text", ["", "no json", "{}", "[]", '{"settings": {"colour": 1}, "trainable": 1}'])
def test_a_file_that_is_no_run_is_left_alone_and_named(tmp_path, text):
    RunBook(tmp_path).add(some_run())
    broken = tmp_path / "run-0007.json"
    broken.write_text(text)
    book = RunBook(tmp_path)
    assert list(book.runs) == [1]
    assert book.unreadable == ["run-0007.json"]
    assert book.add(some_run()).number == 8
    assert broken.read_text() == text


def test_the_folder_can_be_named_by_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERS_LESSON_RUNS", str(tmp_path / "mine"))
    RunBook().add(some_run())
    assert json.loads((tmp_path / "mine" / "run-0001.json").read_text())["settings"] == SHORT.knobs()


def test_the_table_has_a_column_for_each_setting(tmp_path):
    book = RunBook(tmp_path)
    book.add(some_run(bottleneck_dim=32, layers=(0, 1)))
    (row,) = csv.DictReader(io.StringIO(book.csv()))
    assert set(KNOBS) < set(row)
    assert row["bottleneck_dim"] == "32"
    assert row["layers"] == "(0, 1)"
    assert (row["accuracy"], row["loss"], row["steps_taken"], row["trainable"]) == ("0.75", "0.5", "2", "123")


def test_many_runs_at_once_get_different_numbers(tmp_path):
    book = RunBook(tmp_path)
    lock = threading.Lock()

    def add():
        with lock:  # as the laboratory does
            book.add(some_run())

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(book.runs) == list(range(1, 9))
