"""A learner's first minutes in a real browser: `make lab`, lesson 00, lesson 01, Run All."""

import pytest
from browser import NEEDED, POP_UPS, ROOT, VISIBLE, browser_page, copy_of_the_course, make_lab, open_notebook, run_all

pytestmark = NEEDED


@pytest.fixture
def address(tmp_path):
    copy_of_the_course(tmp_path / "course")
    with make_lab(tmp_path) as address:
        yield address


def test_lesson_01_runs_in_a_browser(address, tmp_path):
    committed = {path: path.read_bytes() for path in (ROOT / "notebooks").rglob("*.ipynb")}
    seen = []
    with browser_page(seen) as page:
        open_notebook(page, address, "00_start_here.ipynb")
        assert page.locator(POP_UPS).count() == 0, "a pop-up greets the learner"

        open_notebook(page, address, "01_the_bottleneck.ipynb")
        run_all(page)
        page.screenshot(path=tmp_path / "lesson01.png")
        figure = page.locator(f"{VISIBLE} .jp-RenderedImage img").first
        figure.scroll_into_view_if_needed()
        assert figure.is_visible()
        assert figure.evaluate("image => image.complete && image.naturalWidth > 0")
        page.screenshot(path=tmp_path / "figure.png")
    assert seen == []
    assert {path: path.read_bytes() for path in committed} == committed
