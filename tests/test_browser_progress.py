"""The links of progress() and of a correct answer, followed in JupyterLab: they lead where they say.

In its other windowing modes JupyterLab 4.6 scrolls before the cells of a notebook that it has just opened are there.
"""

import json
import os
from pathlib import Path

import pytest
from browser import (
    CURRENT_NOTEBOOK,
    NEEDED,
    ROOT,
    VISIBLE,
    browser_page,
    copy_of_the_course,
    errors,
    make_lab,
    open_notebook,
    run_cell,
    until,
    wait_for_notebook,
    write_notebook,
)

pytestmark = NEEDED
SHOW = "from adapters_lesson.course.record import progress\n\nprogress()"
CHECK = """from adapters_lesson.course.checks import lesson01


def count_parameters(d, m):
    return 2 * d * m + d + m


lesson01.check_count(count_parameters)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page, the address of its Lab, and what should not happen."""
    home, seen = tmp_path_factory.mktemp("home"), []
    notebooks = copy_of_the_course(home / "course") / "notebooks"
    tracker = "@jupyterlab/notebook-extension:tracker"  # as in this checkout, whenever the package was installed
    settings = home / "config" / "lab" / "user-settings" / f"{tracker.replace(':', '/')}.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(json.loads((ROOT / "notebooks" / "lab-settings.json").read_text())[tracker]))
    write_notebook(notebooks / "links.ipynb", [SHOW, CHECK])
    with (
        make_lab(home, ADAPTERS_LESSON_PROGRESS=str(notebooks / "progress.json")) as address,
        browser_page(seen, 1280, 720) as page,
    ):
        yield page, address, seen


def follow(browser, source, words):
    """Run a cell, and click on the link with these words."""
    page, address, _ = browser
    open_notebook(page, f"{address}&reset", "links.ipynb")
    output = run_cell(page, source)
    assert errors(page) == []
    output.scroll_into_view_if_needed()
    if folder := os.environ.get("ADAPTERS_LESSON_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"link_{words[6:9]}.png")
    output.get_by_role("link", name=words).click()


def test_a_lesson_opens(browser):
    follow(browser, "progress()", "04 Counting the cost")
    wait_for_notebook(browser[0], "04_counting_the_cost.ipynb")
    assert browser[2] == []


@pytest.mark.parametrize(
    ("source", "words", "lesson", "card"),
    [
        ("progress()", "Next: 0.1", "00_start_here.ipynb", "Exercise 0.1 ·"),
        ("check_count", "Next: 1.4", "01_the_bottleneck.ipynb", "Exercise 1.4 ·"),
    ],
)
def test_the_next_exercise_is_in_sight_with_one_click(browser, source, words, lesson, card):
    follow(browser, source, words)
    page = browser[0]
    wait_for_notebook(page, lesson)
    heading = page.locator(f"{VISIBLE} h3", has_text=card)
    until(lambda: heading.count() == 1, what=f"the card of {card}")

    def in_sight():
        box, window = heading.bounding_box(), page.locator(f"{VISIBLE} .jp-WindowedPanel-outer").bounding_box()
        return box and window["y"] <= box["y"] + 5 and box["y"] + box["height"] <= window["y"] + window["height"]

    until(in_sight, what=f"{card} in sight")
    page.wait_for_timeout(1500)  # and it stays there when the cells above have been drawn
    assert in_sight()
    assert page.evaluate(f"() => {CURRENT_NOTEBOOK}.context.path") == lesson
    assert browser[2] == []
