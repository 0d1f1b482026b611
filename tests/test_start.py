"""`adapters-lesson start` and `check`: what is copied, what is the learner's, and how JupyterLab is called."""

import argparse
import json
import os
import subprocess
import sys
import types

import pytest

from adapters_lesson.__main__ import main
from adapters_lesson.course import checkup, start
from adapters_lesson.data import NOTEBOOKS

ROOT = NOTEBOOKS.parent
NAME = "01_the_bottleneck.ipynb"
BESIDE = "01_the_bottleneck (new edition).ipynb"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The lessons of an installed course, which can get new editions."""
    folder = tmp_path / "installed"
    (folder / "solutions").mkdir(parents=True)
    for name in (start.FIRST, NAME, f"solutions/{NAME}"):
        (folder / name).write_text(f"first edition of {name}")
    monkeypatch.setattr(start, "NOTEBOOKS", folder)
    return folder


@pytest.fixture
def mine(tmp_path, shipped):
    """A learner's folder, after the first start."""
    folder = tmp_path / "my lessons"
    assert copied(folder) == []
    return folder


def copied(folder):
    """What is said when the lessons are copied."""
    said = []
    start.copy_lessons(folder, said.append)
    return said


def test_both_editions_are_copied_and_nothing_else(shipped, mine):
    there = sorted(path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file())
    assert there == [start.EDITIONS, start.FIRST, NAME, f"solutions/{NAME}"]
    assert (mine / NAME).read_text() == (shipped / NAME).read_text()


def test_what_is_untouched_gets_the_new_edition(shipped, mine):
    (shipped / NAME).write_text("second")
    assert copied(mine) == []
    assert (mine / NAME).read_text() == "second"
    assert not (mine / BESIDE).exists()


def test_a_changed_file_stays_and_gets_the_new_edition_beside_it_once(shipped, mine):
    (mine / NAME).write_text("my answers")
    assert copied(mine) == []  # there is no newer edition
    (shipped / NAME).write_text("second")
    (said,) = copied(mine)
    assert NAME in said and BESIDE in said
    assert ((mine / NAME).read_text(), (mine / BESIDE).read_text()) == ("my answers", "second")
    (mine / BESIDE).unlink()
    assert copied(mine) == []
    assert not (mine / BESIDE).exists()  # the learner does not want it


@pytest.mark.parametrize(("touched", "third_in"), [(False, BESIDE), (True, BESIDE.replace("edition", "edition 2"))])
def test_a_third_edition_never_replaces_a_changed_second(shipped, mine, touched, third_in):
    (mine / NAME).write_text("my answers")
    (shipped / NAME).write_text("second")
    copied(mine)
    if touched:
        (mine / BESIDE).write_text("my answers in the second")
    (shipped / NAME).write_text("third")
    (said,) = copied(mine)
    assert third_in in said
    assert (mine / NAME).read_text() == "my answers"
    assert (mine / third_in).read_text() == "third"
    assert not touched or (mine / BESIDE).read_text() == "my answers in the second"


@pytest.mark.parametrize("memory", ["", "no json", "[1]", '{"01_the_bottleneck.ipynb": [2]}'])
def test_without_the_memory_of_what_was_copied_every_other_file_is_the_learners(shipped, mine, memory):
    (mine / start.EDITIONS).write_text(memory)
    (mine / NAME).write_text("an older edition, or my answers")
    assert len(copied(mine)) == 1
    assert (mine / NAME).read_text() == "an older edition, or my answers"
    assert json.loads((mine / start.EDITIONS).read_text())[BESIDE]


def test_a_missing_lesson_comes_back_and_a_link_is_left_alone(shipped, mine, tmp_path):
    (mine / NAME).unlink()
    (mine / start.FIRST).unlink()
    (mine / start.FIRST).symlink_to(tmp_path / "nowhere")
    copied(mine)
    assert (mine / NAME).exists() and (mine / start.FIRST).is_symlink()


@pytest.fixture
def lab(monkeypatch):
    """What JupyterLab would be called with."""
    calls = []
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", types.SimpleNamespace(main=calls.append))
    for name in ("PROGRESS", "RUNS"):
        monkeypatch.setenv(f"ADAPTERS_LESSON_{name}", "")  # so that it is put back
        monkeypatch.delenv(f"ADAPTERS_LESSON_{name}")
    return calls


@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (1000, False)])
def test_jupyterlab_opens_lesson_00_and_gets_what_it_is_told(shipped, lab, tmp_path, monkeypatch, uid, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: uid, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["start", "--no-browser", "--port", "8899", "--LabApp.expose_app_in_browser=True"]) == 0
    (options,) = lab
    assert {f"--ServerApp.root_dir={tmp_path / start.FOLDER}", "--no-browser", "--port=8899"} < set(options)
    assert f"--LabApp.default_url=/lab/tree/{start.FIRST}" in options
    assert options[-1] == "--LabApp.expose_app_in_browser=True"
    assert ("--allow-root" in options) == allowed
    assert os.environ["ADAPTERS_LESSON_PROGRESS"] == str(tmp_path / start.FOLDER / "progress.json")
    assert os.environ["ADAPTERS_LESSON_RUNS"] == str(tmp_path / start.FOLDER / "runs")


def test_in_a_checkout_nothing_is_copied_and_the_authors_files_are_not_listed(shipped, lab):
    (shipped / "sources").mkdir()
    (shipped / "build.py").touch()
    before = sorted(shipped.rglob("*"))
    assert main(["start"]) == 0
    assert sorted(shipped.rglob("*")) == before
    assert f"--ServerApp.root_dir={shipped}" in lab[0]
    hidden = [option.partition("=")[2] for option in lab[0] if "hide_globs" in option]
    assert {"sources", "build.py", "app", "quizzes", "lab-settings.json"} <= set(hidden)
    assert not {"solutions", start.FIRST} & set(hidden)


def test_every_file_of_an_author_is_in_the_list_of_those_not_shown():
    tracked = subprocess.run(["git", "ls-files", "notebooks"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("only a checkout knows which files are its own")
    names = {path.split("/")[1] for path in tracked.stdout.splitlines()}
    lessons = {name for name in names if name[:2].isdigit()}
    assert start.FIRST in lessons
    assert names - lessons - {"solutions", "de"} <= set(start.AUTHORS)


def test_a_folder_that_cannot_be_is_said_in_one_sentence(shipped, lab, tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["start", str(tmp_path / "taken")]) == 1
    assert "taken cannot hold the lessons" in capsys.readouterr().err
    assert lab == []


# --- check ---------------------------------------------------------------------------------------------------------


def refused():
    raise RuntimeError("the file is\ndamaged: mend it")


@pytest.mark.parametrize(
    ("name", "mark", "status"), [("MiniLM", "✘", 1), (checkup.OPTIONAL, "○", 0), ("bfloat16", "✔", 0)]
)
def test_a_look_is_one_line_and_only_what_is_needed_fails(name, mark, status, monkeypatch, capsys):
    looks = [("Python", lambda: "3.11"), (name, refused if mark != "✔" else lambda: "0.5")]
    monkeypatch.setattr(checkup, "LOOKS", looks)
    assert checkup.run(argparse.Namespace()) == status
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("✔ Python") and second.startswith(f"{mark} {name}")
    assert mark == "✔" or second.endswith("the file is damaged: mend it")
    assert ("mended" in last) == bool(status)


def test_this_machine_is_looked_at_in_about_ten_lines(capsys):
    main(["check"])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said[:-1]] == [name for name, _ in checkup.LOOKS]
    assert len(said) <= 12
    assert "verified" in said[4] and "film_reviews (8,530 texts)" in said[5] and "starts in" in said[6]
