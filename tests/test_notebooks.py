"""Both editions of every lesson: in step with their source, clean, and running from a fresh kernel."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from browser import CHROMIUM

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


HIDDEN_TESTS = """# %%
def twice(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %%
print(twice(1))
### BEGIN HIDDEN TESTS
assert twice(4) == 8, "twice 4 is 8."

assert twice(-1) == -2, "twice -1 is -2."
### END HIDDEN TESTS
"""


@pytest.mark.parametrize("edition", EDITIONS)
def test_no_edition_has_the_hidden_tests(edition, tmp_path, monkeypatch):
    (tmp_path / "01_hidden.py").write_text(HIDDEN_TESTS)
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    code = [cell.source for cell in build.build("01_hidden", edition).cells if cell.cell_type == "code"]
    assert code[1:] == ["print(twice(1))"]
    assert "def twice" in code[0] and ("return 2 * x" in code[0]) == (edition == "solution")


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_edition_without_solutions_is_the_learners_without_them(lesson):
    learner, without = committed(lesson, "learner"), build.without_solutions(lesson)
    assert build.complaints(without) == []
    assert [cell for cell in without.cells if cell.cell_type == "code"] == [
        cell for cell in learner.cells if cell.cell_type == "code"
    ]
    ids, before = [cell.id for cell in without.cells], [cell.id for cell in learner.cells]
    assert len(set(ids)) == len(ids) and ids == [i for i in before if i in ids]
    text = "\n".join(cell.source for cell in without.cells)
    assert text.count("<summary>Hint 1</summary>") == "\n".join(c.source for c in learner.cells).count(">Hint 1<")
    assert not re.search(r"<b>Solution|`solutions`|the\s+solution", text)
    source = (build.SOURCES / f"{lesson}.py").read_text()
    for solution in build.SOLUTION.finditer(source):
        assert solution[2].strip() not in text
        assert build._dedent(solution[2], len(solution[1])).strip() not in text


def test_the_edition_without_solutions_is_written_whole(tmp_path, monkeypatch):
    folder = tmp_path / "dist" / "notebooks"
    monkeypatch.setattr(build, "WITHOUT_SOLUTIONS", folder)
    monkeypatch.setattr(build, "HERE", tmp_path / "notebooks")  # only for what is printed
    monkeypatch.setattr("sys.argv", ["build.py", "--no-solutions"])
    monkeypatch.setattr(build, "differences", lambda lesson, edition: [f"{lesson} is out of step"])
    assert build.main() == 1 and not folder.exists()
    monkeypatch.setattr(build, "differences", lambda lesson, edition: [])
    assert build.main() == 0
    written = {path.stem: nbformat.read(path, as_version=4) for path in folder.iterdir()}
    assert sorted(written) == LESSONS
    for lesson, notebook in written.items():
        assert notebook == build.without_solutions(lesson)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), link


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
    if edition == "learner" and CHROMIUM:
        pytest.skip("test_browser.py runs it, in JupyterLab")
    notebook = build.execute(build.build(lesson, edition))
    assert build.complaints(notebook) == []
    marks = set(re.findall(r"^([✔✘○]) \d\.\d", output_text(notebook), re.MULTILINE))
    assert marks <= ({"✔"} if edition == "solution" else {"○"})
