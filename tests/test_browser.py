"""A learner's way through the course in a real browser: `make lab`, then Run All in every lesson.

A screenshot of each lesson goes to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import re
from pathlib import Path

import pytest
from browser import (
    CURRENT_NOTEBOOK,
    NEEDED,
    POP_UPS,
    ROOT,
    VISIBLE,
    browser_page,
    code_cells,
    copy_of_the_course,
    make_lab,
    open_notebook,
    run_all,
    screenshot_folder,
)

pytestmark = NEEDED
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
PICTURES = f"{VISIBLE} .jp-OutputArea-output img:visible"  # a tab that is not in front has some, too
DRAWINGS = f"{VISIBLE} .jp-OutputArea-output svg:visible"
SHOWN = "images => images.every(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    copy_of_the_course(home / "course")
    with make_lab(home) as address:
        yield address


@pytest.fixture
def screenshots(tmp_path):
    return screenshot_folder(tmp_path)


def test_the_file_list_shows_the_lessons_alone_and_their_names_whole(address, screenshots):
    seen = []
    with browser_page(seen) as page:
        open_notebook(page, address, LESSONS[0])
        names = page.locator(".jp-DirListing-itemText")
        assert names.all_inner_texts() == ["de", "solutions", *LESSONS]
        cut = names.evaluate_all("names => names.filter(n => n.scrollWidth > n.clientWidth).map(n => n.innerText)")
        assert cut == []
        menus = " ".join(page.locator(".lm-MenuBar-itemLabel").all_inner_texts()).lower()
        assert "kernel" in menus and "nbgrader" not in menus
        page.screenshot(path=screenshots / "file_list.png")
    assert seen == []


# One walk in `make test`: the longest way through widgets, checks and a quiz. All of them in `make test-all`.
WALKS = [pytest.param(name, marks=[] if name.startswith("01") else pytest.mark.slow) for name in LESSONS]


@pytest.mark.notebook
@pytest.mark.parametrize("lesson", WALKS)
def test_run_all_in_jupyterlab(address, screenshots, lesson):
    committed = {path: path.read_bytes() for path in (ROOT / "notebooks").rglob("*.ipynb")}
    seen = []
    with browser_page(seen) as page:
        # Without the lesson before, whose widgets have lost their kernel.
        open_notebook(page, address + "&reset", lesson)
        assert page.locator(POP_UPS).count() == 0, "a pop-up greets the learner"
        run_all(page, timeout=600)
        said = "".join("".join(o.get("text", "")) for cell in code_cells(page) for o in cell["outputs"])
        results = [o["data"].get("text/plain", "") for cell in code_cells(page) for o in cell["outputs"] if "data" in o]
        marks = set(re.findall(r"^([✔✘○]) \d+\.\d", said + "\n" + "\n".join(map("".join, results)), re.MULTILINE))
        assert marks == {"○"}
        for picture in page.locator(PICTURES).all():
            picture.scroll_into_view_if_needed()  # Lab renders what is in sight
        assert page.locator(f"{PICTURES}, {DRAWINGS}").count() > 0
        assert page.locator(PICTURES).evaluate_all(SHOWN)
        page.screenshot(path=screenshots / f"{Path(lesson).stem}.png")
        page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")  # the next lesson needs the memory
    assert seen == []
    assert {path: path.read_bytes() for path in committed} == committed
