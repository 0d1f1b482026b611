"""Both editions of every lesson: in step with their source, clean, and running from a fresh kernel."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
spec = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

LESSONS = build.lessons()
EDITIONS = list(build.EDITIONS)
every_edition = pytest.mark.parametrize(
    ("lesson", "edition"), [(lesson, edition) for lesson in LESSONS for edition in EDITIONS]
)


def committed(lesson, edition):
    return nbformat.read(build.EDITIONS[edition] / f"{lesson}.ipynb", as_version=4)


def output_text(notebook):
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return "\n".join(o.get("text", "") + str(o.get("data", {}).get("text/plain", "")) for o in outputs)


@every_edition
def test_a_committed_notebook_is_in_step_with_its_source(lesson, edition):
    assert build.differences(lesson, edition) == []


@every_edition
def test_a_committed_notebook_is_clean(lesson, edition):
    notebook = committed(lesson, edition)
    assert build.complaints(notebook) == []
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@every_edition
def test_every_figure_has_alt_text(lesson, edition):
    outputs = [o for cell in committed(lesson, edition).cells if cell.cell_type == "code" for o in cell.outputs]
    figures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert figures
    assert all(o.metadata["image/png"]["alt"] for o in figures)


WIDGETS = re.compile(r"^(?:quiz\(|\w+_explorer\(|guided_experiments\(|laboratory$)", re.MULTILINE)


@every_edition
def test_every_widget_has_left_a_picture(lesson, edition):
    cells = [
        cell for cell in committed(lesson, edition).cells if cell.cell_type == "code" and WIDGETS.search(cell.source)
    ]
    assert cells or lesson.startswith("00")
    for cell in cells:
        (output,) = cell.outputs
        assert "image/png" in output.data
        assert build.WIDGET not in output.data


@every_edition
def test_checks_say_not_attempted_or_correct(lesson, edition):
    reports = re.findall(r"^([✔✘○]) (\d\.\d)", output_text(committed(lesson, edition)), re.MULTILINE)
    cards = re.findall(r"^### Exercise (\d\.\d)", (build.SOURCES / f"{lesson}.py").read_text(), re.MULTILINE)
    cards += re.findall(r"^# ### Exercise (\d\.\d)", (build.SOURCES / f"{lesson}.py").read_text(), re.MULTILINE)
    assert reports == [("✔" if edition == "solution" else "○", number) for number in cards]


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_learner_edition_keeps_its_solutions_folded(lesson):
    learner, solution = committed(lesson, "learner"), committed(lesson, "solution")
    code = "\n".join(cell.source for cell in learner.cells if cell.cell_type == "code")
    assert "SOLUTION" not in code + "\n".join(cell.source for cell in solution.cells)
    solved = re.findall(
        r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", (build.SOURCES / f"{lesson}.py").read_text(), re.S
    )
    folded = [cell for cell in learner.cells if cell.source.startswith("<details>\n<summary><b>Solution")]
    assert len(folded) == len(solved)
    for cell, answer in zip(folded, solved, strict=True):
        assert answer.strip().splitlines()[0].strip() in cell.source


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_has_the_frame(lesson):
    text = "\n".join(cell.source for cell in committed(lesson, "learner").cells if cell.cell_type == "markdown")
    for part in (
        "**The question.**",
        "**You will be able to**",
        "**Before you start.**",
        "**Time.**",
        "## Check yourself",
    ):
        assert part in text
    five = text.partition("## What we saw")[2].partition("**Sources.**")[0]
    assert re.findall(r"^(\d)\.", five, re.MULTILINE) == list("12345")
    assert "**Next.**" in text
    for link in re.findall(r"\]\(([^)#:]+\.ipynb)\)", text):
        assert (NOTEBOOKS / link).exists(), link


def test_a_figure_free_of_alt_text_or_a_path_in_an_output_would_be_noticed():
    notebook = build.build(LESSONS[0], "learner")
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.execution_count = 1
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="/home/somebody/file")]
    assert any("noisy" in complaint for complaint in build.complaints(notebook))
    cell.outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="bad")]
    assert any("raises ValueError" in complaint for complaint in build.complaints(notebook))
    cell.outputs = [nbformat.v4.new_output("display_data", data={build.WIDGET: {}})]
    assert any("could not be shown" in complaint for complaint in build.complaints(notebook))


def test_the_readmes_picture_is_the_courses_own():
    assert build.README_PICTURE.read_bytes() == build.first_figure(committed("03_inserting_adapters", "solution"))


@pytest.mark.notebook
@every_edition
def test_an_edition_runs_from_a_fresh_kernel(lesson, edition):
    notebook = build.execute(build.build(lesson, edition))
    assert build.complaints(notebook) == []
    marks = set(re.findall(r"^([✔✘○]) \d\.\d", output_text(notebook), re.MULTILINE))
    assert marks <= ({"✔"} if edition == "solution" else {"○"})
