"""The laboratory with real widgets, on a tiny base: run, pause, stop, sweep, compare, export, find runs again."""

import asyncio
import base64
import csv
import gc
import io
import re
import shutil
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import lab_stand_ins
import psutil
import pytest
from matplotlib.figure import Figure

from adapters_lesson.course.laboratory import experiments, knobs
from adapters_lesson.course.laboratory import laboratory as laboratory_module
from adapters_lesson.course.laboratory.experiments import RunBook, Settings
from adapters_lesson.course.laboratory.laboratory import Laboratory
from adapters_lesson.course.laboratory.run_figures import AXES, run_styles, runs_figure, value_of
from adapters_lesson.history import History


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    lab_stand_ins.use(monkeypatch)


@pytest.fixture
def lab(tmp_path):
    laboratory = Laboratory(tmp_path / "runs")
    yield laboratory
    laboratory.stop()
    if laboratory.job is not None:
        laboratory.job.join(10)
    assert laboratory.error is None


def text(widget):
    return re.sub(r"<[^>]+>", "", widget.value)


def ended(lab):
    return lab.job.wait(120)


def slowly(monkeypatch, seconds=0.01):
    """Let every training step take at least that long, so that there is time to press buttons."""
    run_experiment = experiments.run_experiment

    def slow(settings, on_step, check):
        def wait(history):
            time.sleep(seconds)
            on_step(history)

        return run_experiment(settings, wait, check)

    monkeypatch.setattr(laboratory_module, "run_experiment", slow)
    monkeypatch.setattr(laboratory_module, "EVERY", 0.1)


# --- Running --------------------------------------------------------------------------------------------------------


def test_a_run_by_the_button_is_kept_and_drawn(lab):
    lab.knobs["steps"].value, lab.knobs["bottleneck_dim"].value = 25, 4
    lab.run_button.click()
    assert lab.run_button.disabled
    ended(lab)
    (run,) = lab.book.runs.values()
    assert run.settings == Settings(steps=25, bottleneck_dim=4)
    assert run.history.steps == 25
    assert lab.table.chosen == [1]
    assert "1 run is drawn. The best is #1" in text(lab.status)
    assert f"{100 * run.accuracy:.1f} %" in text(lab.status)
    assert not lab.run_button.disabled
    assert lab.stop_button.disabled
    assert text(lab.message) == "done"
    assert lab.bar.value == 1


def test_the_knobs_say_what_is_run(lab):
    changes = {
        "task": "film_reviews", "base_layers": 2, "method": "adapter", "placement": "parallel", "bottleneck_dim": 2,
        "learning_rate": 1e-2, "steps": 25, "activation": "relu", "init": "bert", "init_std": 0.1,
        "train_layer_norms": True, "layers": "0 1",
    }  # fmt: skip
    for name, value in changes.items():
        lab.knobs[name].value = value
    lab.seeds.value = "3, 5"
    lab.run_button.click()
    ended(lab)
    expected = {**changes, "layers": (0, 1)}
    assert [run.settings for run in lab.book.runs.values()] == [Settings(**expected, seed=seed) for seed in (3, 5)]


def test_the_curves_grow_and_the_time_left_is_said(lab, monkeypatch):
    slowly(monkeypatch)
    frames = lab.frames
    job = lab.run(steps=50)
    said = set()
    while job.is_alive():
        said.add(text(lab.message))
        time.sleep(0.01)
    assert lab.frames > frames + 2
    assert any(re.search(r"run 1 of 1: seed 0, step \d+ of 50, loss \d\.\d+, about \d+ s left", line) for line in said)


def test_stop_keeps_what_was_learnt_and_the_next_run_works(lab, monkeypatch):
    slowly(monkeypatch)
    job = lab.run(steps=800)
    while not (lab._live and lab._live.history.steps > 3):
        time.sleep(0.005)
    began = time.monotonic()
    lab.stop_button.click()
    job.wait(5)
    assert time.monotonic() - began < 5  # 800 steps take longer
    assert job.state == "stopped"
    assert text(lab.message) == "stopped"
    assert lab.book.runs[1].history.stopped == "interrupted"
    assert "of 800" in lab.table._rows[1].children[1].value
    lab.run(steps=25).wait(120)
    assert lab.book.runs[2].history.steps == 25


def test_pause_rests_and_goes_on(lab, monkeypatch):
    slowly(monkeypatch)
    job = lab.run(steps=50)
    lab.pause_button.click()
    while job.state != "paused":
        time.sleep(0.005)
    assert lab.pause_button.description == "Go on"
    assert text(lab.message) == "paused"
    steps = lab._live.history.steps if lab._live else 0
    time.sleep(0.1)
    assert (lab._live.history.steps if lab._live else 0) == steps
    lab.pause_button.click()
    assert lab.pause_button.description == "Pause"
    ended(lab)
    assert lab.book.runs[1].history.steps == 50


def test_a_cell_can_await_a_run(lab):
    async def cell():
        return await lab.run(steps=25, seeds=[4])

    job = asyncio.run(cell())
    assert [run.number for run in job.result] == [1]
    assert lab.book.runs[1].settings.seed == 4


def test_two_runs_cannot_go_on_at_once(lab, monkeypatch):
    slowly(monkeypatch)
    job = lab.run(steps=50)
    with pytest.raises(ValueError, match="another run goes on"):
        lab.run()
    assert lab.job is job


def test_a_run_that_fails_is_said_and_nothing_is_kept(lab, monkeypatch):
    monkeypatch.setattr(experiments.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    lab.run_button.click()
    with pytest.raises(MemoryError):
        ended(lab)
    assert "a step would need" in text(lab.message)
    assert "error-color" in lab.message.value
    assert lab.book.runs == {}
    assert not lab.run_button.disabled


def test_a_diverging_run_ends_and_says_so(lab):
    lab._start([Settings(steps=50, learning_rate=1e30, method="full")]).wait(120)
    assert "lower the learning rate" in lab.book.runs[1].history.stopped


# --- Sweeps ---------------------------------------------------------------------------------------------------------


def test_a_sweep_runs_each_value_and_draws_accuracy_against_it(lab):
    lab.knobs["steps"].value = 25
    lab.swept.value = "placement"
    assert lab.over.value == "houlsby, pfeiffer, parallel"
    lab.seeds.value = "0 1"
    lab.sweep_button.click()
    ended(lab)
    runs = lab.book.runs.values()
    assert [(run.settings.seed, run.settings.placement) for run in runs] == [
        (seed, place) for seed in (0, 1) for place in ("houlsby", "pfeiffer", "parallel")
    ]
    assert lab.axis.value == "placement"
    assert "6 runs are drawn" in text(lab.status)


def test_after_a_sweep_its_knob_stands_as_before(lab):
    shown = []
    lab.knobs["bottleneck_dim"].observe(lambda change: shown.append(change["new"]), "value")
    lab.sweep("bottleneck_dim", [1, 5, 2], steps=25, bottleneck_dim=8).wait(120)
    assert shown == [8, 1, 2, 8]  # the slider has no 5
    assert lab.over.value == "1, 5, 2"


@pytest.mark.parametrize("knob", list(knobs.SUGGESTED))
def test_values_are_written_as_they_are_read(knob):
    values = knobs.read_values(knob, knobs.SUGGESTED[knob])
    assert knobs.read_values(knob, ", ".join(knobs.value_text(knob, value) for value in values)) == values


def test_a_stopped_sweep_begins_no_further_run(lab, monkeypatch):
    slowly(monkeypatch)
    job = lab.sweep("bottleneck_dim", [1, 2, 4], steps=50)
    while len(lab.book.runs) < 1:
        time.sleep(0.005)
    lab.stop()
    job.wait(10)
    time.sleep(0.1)
    assert len(lab.book.runs) <= 2


@pytest.mark.parametrize(
    ("widget", "value", "said"),
    [
        ("over", "", "values for bottleneck_dim: write at least one, for instance 1, 4, 16, 64"),
        ("over", "4, many", "bottleneck_dim cannot be 'many': try, for instance, 1, 4, 16, 64"),
        ("over", "4, 0", "bottleneck_dim must be a whole number of at least 1, not 0"),
        ("over", "4, 4", "give at least one value, and each only once"),
        ("seeds", "zero", "seed cannot be 'zero': try, for instance, 0, 1, 2"),
        ("seeds", "", "values for seed: write at least one, for instance 0, 1, 2"),
        ("seeds", "1 1", "give at least one value, and each only once, not (1, 1)"),
        ("seeds", "-1", "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_a_sweep_that_cannot_be_read_says_how_to_mend_it(lab, widget, value, said):
    getattr(lab, widget).value = value
    lab.sweep_button.click()
    assert said.replace("'", "&#x27;").replace('"', "&quot;") in text(lab.message)
    assert "error-color" in lab.message.value
    assert lab.job is None


@pytest.mark.parametrize("blocks", ["5", "first", "", "0 0"])
def test_blocks_that_are_not_there_are_refused(lab, blocks):
    lab.knobs["layers"].value = blocks
    lab.run_button.click()
    assert "error-color" in lab.message.value
    assert lab.job is None


@pytest.mark.parametrize("knob", list(knobs.SUGGESTED))
def test_what_is_suggested_for_a_sweep_can_be_run(knob):
    values = knobs.read_values(knob, knobs.SUGGESTED[knob])
    base = Settings(init="bert") if knob == "init_std" else Settings()
    assert len(experiments.Sweep(knob, values, base).settings()) == len(values) > 1


def test_every_knob_is_a_setting_and_starts_at_its_default():
    made = knobs.make_knobs()
    values = {name: knob.value for name, knob in made.items()}
    assert knobs.read_settings(values) == Settings()
    assert set(made) | {"seed", "batch_size"} == set(experiments.KNOBS)
    assert set(knobs.SUGGESTED) == set(made)
    assert all(knob.description and knob.tabbable is not False for knob in made.values())


def test_knobs_without_effect_are_greyed(lab):
    assert lab.knobs["init_std"].disabled
    lab.knobs["init"].value = "houlsby"
    assert not lab.knobs["init_std"].disabled
    lab.knobs["method"].value = "lora"
    assert {name for name, knob in lab.knobs.items() if knob.disabled} == {
        "placement", "bottleneck_dim", "activation", "init", "init_std", "train_layer_norms", "layers",
    }  # fmt: skip


def test_the_first_computations_are_not_the_kernels(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(laboratory_module, "warm_up", lambda: threads.append(threading.current_thread()))
    Laboratory(tmp_path)
    (thread,) = threads
    assert thread is not threading.main_thread() and not thread.is_alive()


# --- Comparing ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory):
    """A folder with the runs of a sweep."""
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        lab_stand_ins.use(patch)
        for width in (16, 1, 4):
            RunBook(folder).add(experiments.run_experiment(Settings(bottleneck_dim=width, steps=25)))
    return folder


@pytest.fixture
def three(three_runs, tmp_path):
    laboratory = Laboratory(shutil.copytree(three_runs, tmp_path / "three"))
    laboratory.axis.value = "bottleneck_dim"
    yield laboratory
    assert laboratory.error is None


def test_only_ticked_runs_are_drawn(three, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        laboratory_module,
        "runs_figure",
        lambda runs, styles, x: drawn.append([run.number for run in runs]) or Figure(),
    )
    three.table.box(2).value = False
    assert drawn[-1] == [1, 3]
    assert "2 runs are drawn" in text(three.status)
    three.tools["Tick none"].click()
    assert drawn[-1] == []
    three.tools["Tick all"].click()
    assert drawn[-1] == [1, 2, 3]
    assert len(drawn) == 3  # once for each click


def test_the_table_is_sorted_by_a_click_on_a_head(three):
    three.table.heads["m"].click()
    assert three.table.chosen == [2, 3, 1]
    three.table.heads["m"].click()
    assert three.table.chosen == [1, 3, 2]
    assert "▾" in three.table.heads["m"].description
    three.table.heads["accuracy"].click()
    accuracies = [three.book.runs[number].accuracy for number in three.table.chosen]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [row.children[0].description for row in three.table.body.children] == [f"#{n}" for n in three.table.chosen]


def test_a_row_says_what_was_run(three):
    row = text(three.table._rows[1].children[1])
    run = three.book.runs[1]
    for part in ("sentiment", "houlsby", "16", "zero", "gelu", "all", "0.003", "25", f"{run.trainable:,}"):
        assert part in row
    assert f"{100 * run.accuracy:.1f} %" in row


def test_delete_removes_the_ticked_runs_and_their_files(three):
    three.tools["Delete"].click()
    three.table.choose([1, 3])
    three.tools["Delete"].click()
    assert "Delete #1, #3 and what is kept of them? Press Delete once more." in three.extra.value
    three.table.choose([1])
    three.tools["Delete"].click()  # it asks again about others
    three.table.choose([1, 3])
    three.tools["Delete"].click()
    assert list(three.book.runs) == [1, 2, 3]
    three.tools["Delete"].click()
    assert three.extra.value == ""
    assert list(three.book.runs) == [2]
    assert [path.name for path in three.book.folder.glob("run-*.json")] == ["run-0002.json"]
    assert len(three.table.body.children) == 1


def test_settings_are_copied_from_the_one_ticked_run(three):
    three.table.choose([2])
    three.knobs["steps"].value = 400
    three.tools["Copy settings"].click()
    assert three.knobs["bottleneck_dim"].value == 1
    assert three.knobs["steps"].value == 25
    three.table.choose([1, 2])
    three.tools["Copy settings"].click()
    assert "tick one run for that; 2 are ticked" in text(three.extra)


def test_a_run_is_shown_as_a_program(three):
    three.table.choose([2])
    three.tools["As Python"].click()
    assert "AdapterConfig(bottleneck_dim=1)" in text(three.extra)


def test_all_runs_are_exported_as_a_table(three):
    three.tools["Export CSV"].click()
    written = (three.book.folder / "runs.csv").read_text()
    assert [row["bottleneck_dim"] for row in csv.DictReader(io.StringIO(written))] == ["16", "1", "4"]
    offered = re.search(r"base64,([^\"]+)", three.extra.value)[1]
    assert base64.b64decode(offered).decode() == written


def test_a_restarted_kernel_shows_the_runs_again(three):
    again = Laboratory(three.book.folder)
    assert again.book.runs == three.book.runs
    assert again.table.chosen == [1, 2, 3]
    assert "3 runs are drawn" in text(again.status)


def test_a_file_that_is_no_run_is_said(tmp_path):
    (tmp_path / "run-0001.json").write_text("nonsense")
    assert "left alone, because they are no runs: run-0001.json" in text(Laboratory(tmp_path).message)


def test_reset_sets_the_knobs_back_and_keeps_the_runs(three):
    three.knobs["learning_rate"].value, three.seeds.value = 1e-2, "5"
    three.reset_button.click()
    assert knobs.read_settings(three.values) == Settings()
    assert three.seeds.value == "0"
    assert len(three.book.runs) == 3


def test_what_is_saved_is_a_picture_of_the_runs(three):
    data, metadata = three._repr_mimebundle_()
    assert "3 runs are drawn" in metadata["image/svg+xml"]["alt"]
    assert data["image/svg+xml"].startswith("<svg")


# --- The figure -----------------------------------------------------------------------------------------------------


def test_the_figure_shows_each_run_where_it_belongs(three):
    runs = list(three.book.runs.values())
    for x in AXES:
        figure = runs_figure(runs, run_styles(runs), x)
        loss, accuracy, against = figure.axes
        assert len(loss.lines) == len(accuracy.lines) == 3
        assert [list(line.get_ydata()) for line in accuracy.lines] == [
            [100 * entry["accuracy"] for entry in run.history.validation] for run in runs
        ]
        points = [line for line in against.lines if line.get_linestyle() == "None" or len(line.get_xdata()) == 1]
        assert [line.get_ydata()[0] for line in points] == [100 * run.accuracy for run in runs]
        places = [line.get_xdata()[0] for line in points]
        values = [value_of(run, x) for run in runs]
        assert places == values


def test_runs_that_differ_in_the_seed_alone_look_alike(lab):
    lab.run(steps=25, seeds=[0, 1]).wait(120)
    lab.run(steps=25, bottleneck_dim=2).wait(120)
    runs = list(lab.book.runs.values())
    loss = runs_figure(runs, run_styles(runs)).axes[0]
    first, second, third = (line.get_color() for line in loss.lines)
    assert first == second != third


@pytest.fixture
def going_on(three):
    """Two runs that have ended, and one that has taken its first step."""
    first, second, third = three.book.runs.values()
    history = History(third.history.settings, 100, loss=[0.7], learning_rate=[1e-3])
    return [first, second, experiments.Run(third.settings, history, 100)]


def test_a_runs_first_step_can_be_seen(going_on):
    dot = runs_figure(going_on, run_styles(going_on)).axes[0].lines[-1]
    assert (dot.get_marker(), list(dot.get_xdata()), list(dot.get_ydata())) == ("o", [1], [0.7])


def test_an_interrupted_run_is_no_part_of_the_mean(three):
    first, *_ = runs = list(three.book.runs.values())
    history = replace(first.history, validation=[{"step": 5, "loss": 1.0, "accuracy": 0.0}], stopped="interrupted")
    stopped = experiments.Run(first.settings, history, first.trainable, number=9)
    means = [
        list(runs_figure(some, run_styles(some), "bottleneck_dim").axes[2].lines[-1].get_ydata())
        for some in (runs, [*runs, stopped])
    ]
    assert means[0] == means[1]


def test_many_kinds_of_runs_still_look_different():
    runs = [experiments.Run(Settings(steps=n), None, 0) for n in range(1, 33)]
    assert len(set(run_styles(runs).values())) == 32


# --- In the long run ------------------------------------------------------------------------------------------------


def test_ten_runs_leave_no_thread_and_no_memory_behind(lab, monkeypatch):
    monkeypatch.setattr(laboratory_module, "runs_figure", lambda *_: Figure())
    process = psutil.Process()

    def some_runs(count):
        for _ in range(count):
            lab.run(steps=25).wait(120)
            lab.tools["Delete"].click()
            lab.tools["Delete"].click()
        gc.collect()
        return process.memory_info().rss, threading.active_count()

    memory, threads = some_runs(3)
    later, threads_later = some_runs(10)
    assert threads_later == threads
    assert later - memory < 30e6


def test_the_book_holds_what_the_folder_holds(three):
    assert RunBook(three.book.folder).runs == three.book.runs
