"""A learner solves lessons 01 and 03 by typing, in JupyterLab: what is typed goes to work, up to graduation."""

import pytest
from browser import (
    CURRENT_NOTEBOOK,
    NEEDED,
    ROOT,
    VISIBLE,
    browser_page,
    code_cells,
    command,
    copy_of_the_course,
    make_lab,
    open_notebook,
    run_cell,
    screenshot_folder,
    until,
    write_notebook,
)

from adapters_lesson.course.lesson_source import SOLUTION, read_lesson

pytestmark = [*NEEDED, pytest.mark.slow]
LESSONS = {  # the notebook, words of a prediction's question, and what is predicted
    "01": ("01_the_bottleneck.ipynb", '"1a", "How much', "34"),
    "03": ("03_inserting_adapters.ipynb", '"3a", "An adapter', "101504"),
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A home with the course; the address of its Lab."""
    home = tmp_path_factory.mktemp("home")
    notebooks = copy_of_the_course(home / "course") / "notebooks"
    with make_lab(home, ADAPTERS_LESSON_PROGRESS=str(notebooks / "progress.json")) as address:
        yield notebooks, address


def bring(page, part):
    """Make the first cell with this in its source the active one, in sight: Lab renders nothing else."""
    page.evaluate(
        f"""async part => {{
            const notebook = {CURRENT_NOTEBOOK}.content;
            notebook.activeCellIndex = notebook.widgets.findIndex(
                cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().includes(part));
            await notebook.scrollToCell(notebook.activeCell, 'start');
        }}""",
        part,
    )
    return page.locator(f"{VISIBLE} .jp-Cell.jp-mod-active")


def type_into(page, stub, code):
    """Put the focus into the cell with a stub, and type other code over it."""
    editor = bring(page, stub).locator(".cm-content")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(code)


def outputs(page):
    """All that the cells have said."""
    said = [output for cell in code_cells(page) for output in cell["outputs"]]
    return "\n".join("".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in said)


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_is_solved_by_typing_and_runs_on_what_was_typed(course, tmp_path, number):
    notebooks, address = course
    folder = screenshot_folder(tmp_path)
    name, question, number_said = LESSONS[number]
    lesson = read_lesson(ROOT / "notebooks" / "sources" / name.replace(".ipynb", ".py"))
    with browser_page([]) as page:
        open_notebook(page, f"{address}&reset", name)
        run_cell(page, "from adapters_lesson.course import mine")
        run_cell(page, question)
        asked = bring(page, question).locator(".jp-OutputArea").first
        asked.locator("input[type=text]").fill(number_said)
        asked.locator("button", has_text="Commit").click()
        until(lambda: "Committed" in asked.inner_text(), what="the commitment")
        page.screenshot(path=folder / f"prediction_{number}.png")
        for exercise in lesson.exercises:
            for place in exercise.answers:
                cell = lesson.cells[place]
                type_into(page, cell.stub, SOLUTION.sub(lambda found: found[2], f"{cell.shown}\n").strip())
        command(page, "notebook:run-all-cells", timeout=600)
        said = outputs(page)
        for exercise in lesson.exercises:
            assert f"✔ {exercise.number}" in said
        jobs = [line for line in said.splitlines() if line.startswith("Runs on ")]
        assert len(jobs) >= 2
        assert all(line.startswith("Runs on yours") and "the course's" not in line for line in jobs), jobs
        assert "✔ you predicted" in said
        page.screenshot(path=folder / f"solved_{number}.png")
        page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
    written = (notebooks / "mine" / "adapters.py").read_text(encoding="utf-8")
    assert all(f"# --- {exercise.number} · " in written for exercise in lesson.exercises)


def test_the_page_of_the_graduation_opens(course, tmp_path):
    notebooks, address = course
    folder = screenshot_folder(tmp_path)
    source = "from adapters_lesson.course.mine.graduation import graduate\ngraduate(steps=2, test=20)"
    write_notebook(notebooks / "graduation.ipynb", [source])
    seen = []
    with browser_page(seen) as page:
        open_notebook(page, f"{address}&reset", "graduation.ipynb")
        run_cell(page, "graduate(", timeout=300)
        assert "my library" in outputs(page)
        page.goto((notebooks / "mine" / "graduation.html").as_uri())
        assert page.locator("h1").inner_text() == "What I built"
        assert page.locator("table tr").count() == 9
        assert page.locator("img").evaluate("image => image.naturalWidth") > 500
        page.screenshot(path=folder / "graduation.png", full_page=True)
    assert [what for what in seen if "favicon" not in what] == []
