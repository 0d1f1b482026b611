"""The links of progress(), of the map and of a correct answer, followed in JupyterLab: they lead where they say.

Into a lesson that is not open yet a link leads to its beginning: JupyterLab 4.6 scrolls before the cells are there.
"""

import os
from pathlib import Path

import nbformat
import pytest
from browser import (
    CURRENT_NOTEBOOK,
    NEEDED,
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
MAP = "from adapters_lesson.course.figures import course_map\n\ncourse_map()"
CHECK = """from adapters_lesson.course.checks import lesson01


def count_parameters(d, m):
    return 2 * d * m + d + m


lesson01.check_count(count_parameters)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page, the address of its Lab, and what should not happen."""
    home, seen = tmp_path_factory.mktemp("home"), []
    notebooks = copy_of_the_course(home / "course") / "notebooks"
    write_notebook(notebooks / "links.ipynb", [SHOW, MAP])
    lesson = nbformat.read(notebooks / "01_the_bottleneck.ipynb", as_version=4)
    lesson.cells.insert(0, nbformat.v4.new_code_cell(CHECK))
    nbformat.write(lesson, notebooks / "01_the_bottleneck.ipynb")
    with (
        make_lab(home, ADAPTERS_LESSON_PROGRESS=str(notebooks / "progress.json")) as address,
        browser_page(seen, 1280, 720) as page,
    ):
        yield page, address, seen


def link(browser, source, words, notebook="links.ipynb"):
    """Run a cell, and find the link with these words."""
    page, address, _ = browser
    open_notebook(page, f"{address}&reset", notebook)
    output = run_cell(page, source)
    assert errors(page) == []
    output.scroll_into_view_if_needed()
    if folder := os.environ.get("ADAPTERS_LESSON_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"link_{words[6:9]}.png")
    return output.get_by_role("link", name=words)


def test_a_lesson_opens(browser):
    link(browser, "progress()", "04 Counting the cost").click()
    wait_for_notebook(browser[0], "04_counting_the_cost.ipynb")
    assert browser[2] == []


def test_the_map_opens_a_lesson(browser):
    onward = link(browser, "course_map()", "Counting the cost")
    onward.focus()
    browser[0].keyboard.press("Enter")
    wait_for_notebook(browser[0], "04_counting_the_cost.ipynb")
    assert browser[2] == []


def test_the_next_exercise_opens(browser):
    link(browser, "progress()", "Next: 0.1").click()
    wait_for_notebook(browser[0], "00_start_here.ipynb")
    assert browser[2] == []


def test_in_its_own_lesson_the_next_exercise_is_at_most_a_page_away(browser):
    page, _, seen = browser
    onward = link(browser, "lesson01.check_count", "Next: 1.4", "01_the_bottleneck.ipynb")
    heading = page.locator(f"{VISIBLE} h3", has_text="Exercise 1.4 ·")

    def near():  # JupyterLab guesses the heights of cells that it has not drawn yet, and ends some lines off
        return abs(heading.evaluate("heading => heading.getBoundingClientRect().y")) < 500

    assert not near()
    onward.click()
    until(near, what="the card near")
    assert page.evaluate(f"() => {CURRENT_NOTEBOOK}.context.path") == "01_the_bottleneck.ipynb"
    assert seen == []
