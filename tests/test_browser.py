"""A learner's way through the course in a real browser: `make lab`, then Run All in every lesson.

A screenshot of each lesson goes to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import os
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
)

pytestmark = NEEDED
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
PICTURES = f"{VISIBLE} .jp-OutputArea-output img:visible"  # a tab that is not in front has some, too
SHOWN = "images => images.every(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    copy_of_the_course(home / "course")
    with make_lab(home) as address:
        yield address


@pytest.fixture
def screenshots(tmp_path):
    folder = Path(os.environ.get("ADAPTERS_LESSON_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.notebook
@pytest.mark.parametrize("lesson", LESSONS)
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
        assert marks == (set() if lesson.startswith("00") else {"○"})
        for picture in page.locator(PICTURES).all():
            picture.scroll_into_view_if_needed()  # Lab renders what is in sight
        assert page.locator(PICTURES).count() > 0
        assert page.locator(PICTURES).evaluate_all(SHOWN)
        page.screenshot(path=screenshots / f"{Path(lesson).stem}.png")
        page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")  # the next lesson needs the memory
    assert seen == []
    assert {path: path.read_bytes() for path in committed} == committed
