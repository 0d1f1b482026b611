"""Cells of the lessons in surroundings that no executed notebook shows: run again, or without SmolLM2."""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from datasets import Dataset

from adapters_lesson import load_tokenizer
from adapters_lesson.course.language.answers import load_answers
from adapters_lesson.course.lesson_source import read_lesson
from adapters_lesson.course.mine.shelf import Shelf, parse

SOURCES = Path(__file__).parents[1] / "notebooks" / "sources"


def run(lesson, part, **names):
    """Run the cell of a lesson that has this in it, with these names."""
    (path,) = SOURCES.glob(f"{lesson}_*.py")
    (code,) = [cell.shown for cell in read_lesson(path).cells if cell.kind == "code" and part in cell.source]
    exec(code, names)
    return names


def jobs_with(**pieces):
    return SimpleNamespace(run=lambda job, *exercises: job(SimpleNamespace(**pieces)))


def test_lesson_00_says_what_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else name)
    run("00", "for package in (")
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["jupyterlab"] == "not installed" and said["ipywidgets"] == version("ipywidgets")


def test_the_fault_of_lesson_08_is_asked_for_again_after_it_was_mended():
    head, said = torch.nn.Linear(2, 2), []
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    bank = SimpleNamespace(active="late", heads={"late": head})
    names = {
        "bank": bank,
        "optimizer": optimizer,
        "folder": Path(),
        "diagnose": lambda *model, **base: "",
        "said": said,
    }
    names["FAULTS"] = ("off", "frozen", "no gradient", "not in the optimiser")
    names["compare"] = lambda key, was: said.append(was)
    for gradient, fault in ((None, "no gradient"), (torch.ones(2, 2), "nothing any more")):
        head.weight.grad = gradient
        run("08", 'compare("8f"', **names)
        assert said.pop() == fault


def test_the_reference_of_lesson_09_has_no_interval(capsys):
    names = {"served": lambda *model, **layers: None, "words": lambda *shape: (), "LAYERS": 2, "models": {"bare": None}}
    names["mine"] = jobs_with(
        fair_medians=lambda calls, *often: dict.fromkeys(calls, 0.01), mean_and_interval=lambda values: (0.0, 0.0)
    )
    run("09", "def time_dropped", torch=torch, median=median, **names)
    bare, *others = capsys.readouterr().out.splitlines()
    assert bare == "bare   10.00 ms, the reference"
    assert others == [f"n = {n}  10.00 ms,  +0.0 ± 0.0 %" for n in range(2)]


def test_labels_of_lesson_10_have_work_without_smollm(capsys):
    given = {"live": False, "tokenizer": None, "task": load_answers(), "load_tokenizer": load_tokenizer}
    given["mine"] = jobs_with(make_labels=Shelf(parse("")).names["make_labels"])
    names = run("10", "def label_all", Dataset=Dataset, **given)
    asked, answer = (load_tokenizer()(given["task"]["train"][0][part])["input_ids"] for part in ("question", "answer"))
    ids, labels = (names["data"]["train"][column][0] for column in ("input_ids", "labels"))
    assert ids == asked[1:-1] + answer[1:]  # one end, of the answer
    assert labels == [-100] * len(asked[1:-1]) + answer[1:]
    assert "with SmolLM2's chat template the prompts are longer, and about half counts" in capsys.readouterr().out
