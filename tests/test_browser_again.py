"""A notebook with widgets that is saved, closed and opened again: pictures, and what to do."""

import nbformat
import pytest
from browser import (
    CURRENT_NOTEBOOK,
    NEEDED,
    VISIBLE,
    browser_page,
    command,
    copy_of_the_course,
    errors,
    make_lab,
    open_notebook,
    screenshot_folder,
    until,
    write_notebook,
)
from test_browser_lab import CELLS

pytestmark = NEEDED


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A home with the course; the address of its Lab. One browser at a time: this one is not that of the widgets."""
    home = tmp_path_factory.mktemp("home")
    copy_of_the_course(home / "course")
    with make_lab(home, ADAPTERS_LESSON_RUNS=str(home / "runs")) as address:
        yield home, address


@pytest.mark.parametrize("trusted", [True, False])
def test_a_widget_that_is_opened_again_is_a_picture_that_says_what_to_do(course, tmp_path, trusted):
    home, address = course
    folder = screenshot_folder(tmp_path)
    path, seen = home / "course" / "notebooks" / f"again_{trusted}.ipynb", []
    sources = [cell for cell in CELLS if "import" in cell]
    write_notebook(path, sources)
    with browser_page(seen, 1280, 720) as page:
        open_notebook(page, f"{address}&reset", path.name)
        command(page, "notebook:run-all-cells")
        assert errors(page) == []
        command(page, "docmanager:save")
        page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
        command(page, "application:close")
        if not trusted:  # a file that JupyterLab did not write itself
            notebook = nbformat.read(path, as_version=4)
            notebook.cells[0].source += "\n# changed elsewhere"
            nbformat.write(notebook, path)
        open_notebook(page, f"{address}&reset", path.name)
        assert page.evaluate(f"() => {CURRENT_NOTEBOOK}.content.model.cells.get(0).trusted") is trusted
        what = ".still:visible" if trusted else "img:visible, svg:visible, ol:visible"
        for source in sources:
            cell = page.locator(f"{VISIBLE} .jp-CodeCell", has_text=source.splitlines()[-1]).last
            cell.scroll_into_view_if_needed()
            shown = cell.locator(".jp-OutputArea").first.locator(what)
            until(lambda shown=shown: shown.count(), what=f"a picture in place of {source}")
            assert cell.locator("text=model not found").count() == 0
            if trusted:
                assert shown.first.inner_text() == "Run this cell to move it."
            page.screenshot(path=folder / f"again_{trusted}_{sources.index(source)}.png")
    assert seen == []
