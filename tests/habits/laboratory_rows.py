"""The bottleneck laboratory: knobs, runs of several kernels, means, and folders that take no file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lab_stand_ins
import pytest
from matplotlib.figure import Figure

from adapters_lesson.course.laboratory import Laboratory, run_figures
from adapters_lesson.course.laboratory.experiments import Run, RunBook, Settings
from adapters_lesson.history import History
from habits import Habit, gives, holds, refuses


def with_lab(folder, use):
    """What ``use`` makes of a laboratory on a tiny base."""
    with pytest.MonkeyPatch.context() as patch:
        lab_stand_ins.use(patch)
        laboratory = Laboratory(folder / "runs")
        try:
            return use(laboratory)
        finally:
            laboratory.stop()


def made(width=16, seed=0, accuracy=0.9, stopped=""):
    """A run that nobody trained."""
    steps = 50 if stopped else 200
    validation = [{"step": steps, "loss": 0.3, "accuracy": accuracy}]
    history = History({}, 100, [0.5] * steps, [1e-3] * steps, validation, 1.0, stopped)
    return Run(Settings(bottleneck_dim=width, seed=seed), history, 100)


def means(*runs):
    """The heights of the line through the means, in percent."""
    numbered = [replace(run, number=i) for i, run in enumerate(runs, 1)]
    axes = Figure().subplots()
    run_figures._against(axes, numbered, run_figures.run_styles(numbered), "bottleneck_dim")
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    return [round(height, 1) for line in lines for height in line.get_ydata()]


def faces(*runs):
    """Whether the runs' points are filled."""
    numbered = [replace(run, number=i) for i, run in enumerate(runs, 1)]
    axes = Figure().subplots()
    run_figures._against(axes, numbered, run_figures.run_styles(numbered), "trainable")
    return [line.get_markerfacecolor() != "none" for line in axes.lines]


def two_kernels(folder):
    """Two processes add twenty runs each; none is lost."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from habits.laboratory_rows import made, RunBook\n"
        f"book = RunBook({str(folder)!r})\n"
        "for _ in range(20): book.add(made())"
    )
    kernels = [subprocess.Popen([sys.executable, "-c", code]) for _ in "ab"]
    assert [kernel.wait(120) for kernel in kernels] == [0, 0]
    return sorted(RunBook(folder).runs) == list(range(1, 41))


def add_without_folder(folder):
    """The folder turns into a file before the run can be written: the run is kept, and said to be."""
    book = RunBook(folder / "runs")
    (folder / "runs").write_text("a file")
    run = book.add(made())
    return run.number, book.runs[1] == run, "kept until the kernel ends" in book.trouble


def copy_what_no_knob_has(lab):
    """A run of another kernel, with a width that the slider does not have, is copied."""
    lab.book.add(made(width=24))
    lab.refresh()
    lab.knobs["steps"].value = 50
    lab.tools["Copy settings"].click()
    return "the knob bottleneck_dim has no 24, only 1, 2, 4" in lab.extra.value, lab.knobs["steps"].value


def run_without_folder(lab):
    """It is said before the run begins, and the run is kept as long as the kernel lives."""
    lab.book.folder = Path("/proc/runs")
    job = lab.run(seeds=[0], steps=25)
    said = "/proc/runs cannot be written" in lab.extra.value and "ADAPTERS_LESSON_RUNS" in lab.extra.value
    job.wait(60)
    return said, len(lab.book.runs)


HABITS = [
    Habit(
        "a width that no knob has",
        lambda folder: with_lab(folder, lambda lab: lab.run(seeds=[0], bottleneck_dim=24)),
        refuses("the knob bottleneck_dim has no 24, only 1, 2, 4"),
    ),
    Habit(
        "a method that there is not",
        lambda folder: with_lab(folder, lambda lab: lab.run(method="prefix")),
        refuses("the knob method has no 'prefix', only full, head"),
    ),
    Habit(
        "a word for a switch",
        lambda folder: with_lab(folder, lambda lab: lab.run(train_layer_norms="yes")),
        refuses("the knob train_layer_norms has no 'yes'"),
    ),
    Habit(
        "a knob that there is not",
        lambda folder: with_lab(folder, lambda lab: lab.run(width=4)),
        refuses("there is no knob width: choose among task"),
    ),
    Habit(
        "settings copied that no knob has", lambda folder: with_lab(folder, copy_what_no_knob_has), gives((True, 50))
    ),
    Habit("a folder of runs that takes no file", lambda folder: with_lab(folder, run_without_folder), gives((True, 1))),
    Habit("a folder that vanishes while a run goes on", add_without_folder, gives((1, True, True))),
    Habit("two kernels add runs", two_kernels, holds),
    Habit(
        "a mean without a stopped run",
        lambda: means(made(1), made(4), made(4, 1, 0.1, "interrupted")),
        gives([90.0, 90.0]),
    ),
    Habit(
        "a mean without a run that blew up",
        lambda: means(made(1), made(4), made(4, 1, 0.1, "the loss became nan")),
        gives([90.0, 90.0]),
    ),
    Habit(
        "a seed that was run twice counts once",
        lambda: means(made(1), made(4), made(4), made(4, 1, 0.3)),
        gives([90.0, 60.0]),
    ),
    Habit(
        "a stopped run does not look like a finished one",
        lambda: faces(made(1), made(4, stopped="interrupted")),
        gives([True, False]),
    ),
]
