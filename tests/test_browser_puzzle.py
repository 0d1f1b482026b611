"""The puzzle in JupyterLab: solved by keyboard alone, by pointer and by buttons, and opened again without a kernel.

Screenshots in both themes go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import ast
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
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
    run_cell,
    screenshot_folder,
    themes,
    until,
    write_notebook,
)

from adapters_lesson.course.mine.shelf import exercises

pytestmark = NEEDED
OWN = "    loss.backward(retain_graph=True)"
ANSWER = f"def training_step(model, optimizer, batch):\n{OWN}\n    return 0.0"
MAKE = 'from adapters_lesson.course.help import puzzle\n\ngame = puzzle("5.1")\ngame'
SAY = "print([game.lines[number] for number in game.order])"
SOLUTION = exercises()["5.1"].body.splitlines()


class Game:
    """The puzzle on a page."""

    def __init__(self, page, root):
        self.page, self.root = page, root

    @property
    def said(self):
        return self.root.locator("[role=status]").inner_text()

    @property
    def lines(self):
        """What stands in the solution's list, top down, without its indentation."""
        return self.root.locator("ol code").all_inner_texts()

    @property
    def aside(self):
        return self.root.locator("ul code").all_inner_texts()

    @property
    def marks(self):
        return self.root.locator("ol .mark").all_inner_texts()

    def item(self, line):
        return self.root.locator("li").filter(has=self.page.get_by_text(line.strip(), exact=True))

    def button(self, what, line):
        return self.root.get_by_role("button", name=f"{what}: {line.strip()}", exact=True)

    def focused(self):
        return self.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def drag(self, line, to, steps=12):
        """Take a line by its text, and let it go at the middle of what is at ``to``."""
        start, end = self.item(line).locator("code").bounding_box(), to.bounding_box()
        self.page.mouse.move(start["x"] + 60, start["y"] + start["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(start["x"] + 60, end["y"] + end["height"] / 2, steps=steps)
        self.page.mouse.up()

    def keeps(self, lines):
        """The kernel knows this order, at the latest when the page's messages have arrived: it sends one at a time."""
        until(lambda: ast.literal_eval(run_cell(self.page, SAY).inner_text().strip()) == lines, what="the order kept")

    def keeps_what_it_shows(self):
        indented = {line.strip(): line for line in [*SOLUTION, OWN]}
        self.keeps([indented[line] for line in self.lines])


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_notebook(copy_of_the_course(home / "course") / "notebooks" / "puzzle.ipynb", [ANSWER, MAKE, SAY])
    with make_lab(home) as address:
        yield home, address


@pytest.fixture(scope="module")
def browser(course):
    seen = []
    with browser_page(seen, 1150, 768) as page:
        open_notebook(page, f"{course[1]}&reset", "puzzle.ipynb")
        run_cell(page, "def training_step")
        yield page, seen


@pytest.fixture
def game(browser):
    """A new game."""
    page, seen = browser
    output = run_cell(page, "import puzzle")
    assert errors(page) == []
    output.locator("ol li").first.wait_for()
    in_the_middle(output)
    yield Game(page, output)
    assert seen == []


def in_the_middle(output):
    """Scroll there until it stays: JupyterLab scrolls after a run, and guesses the heights of cells not drawn yet."""

    def stays():
        output.evaluate("output => output.scrollIntoView({block: 'center'})")
        before = output.bounding_box()
        output.page.wait_for_timeout(200)
        return output.bounding_box() == before

    until(stays, what="the puzzle at rest")


def photograph(game, name, folder):
    folder = screenshot_folder(folder)
    for theme in themes(game.page):
        in_the_middle(game.root)
        game.page.screenshot(path=folder / f"{name}_{theme.lower()}.png")


def test_the_keyboard_alone_solves_it(game):
    assert len(game.lines) == len(SOLUTION) + 1
    game.item(game.lines[3]).locator(".code").focus()
    game.press("Home")
    assert game.focused().startswith("line 1 of 8: ")
    game.press("ArrowUp", "ArrowDown", "ArrowDown")
    assert game.focused().startswith("line 3 of 8: ")
    game.press("End")
    assert game.focused().startswith("line 8 of 8: ")
    for _ in range(game.lines[::-1].index(OWN.strip())):
        game.press("ArrowUp")
    assert OWN.strip() in game.focused()
    game.press("Delete")
    assert game.said == f"“{OWN.strip()}” is laid aside."
    assert game.focused() == f"laid aside: {OWN.strip()}, indented by 4"
    for place, line in enumerate(SOLUTION):
        game.press("Home", *["ArrowDown"] * game.lines.index(line.strip()), "Space")
        assert "Picked up" in game.said
        game.press(*["ArrowUp"] * (game.lines.index(line.strip()) - place), "Enter")
        assert game.said.startswith(f"Put down: “{line.strip()}” is line {place + 1} of 7 now"), game.said
        assert f"line {place + 1} of 7: {line.strip()}" in game.focused()
    game.press("Tab", "Tab", "Tab", "Enter")  # up or down is missing at an end
    until(lambda: game.said == "That is the solution.", what="the answer")
    assert game.marks == ["✔ fits"] * 7
    game.keeps(SOLUTION)


def test_a_line_that_is_carried_goes_aside_and_back_and_escape_undoes(game):
    start = game.lines
    game.item(start[-1]).locator(".code").focus()
    game.press("Space", "ArrowDown")
    assert game.aside == start[-1:]
    game.press("ArrowDown", "ArrowUp")
    assert game.lines == start
    game.press("ArrowUp", "ArrowUp")
    assert game.lines == [*start[:-3], start[-1], *start[-3:-1]]
    assert f"is line 6 of 8 now, after “{start[4]}”" in game.said
    game.press("Escape")
    assert game.lines == start
    assert "Put back" in game.said
    game.keeps_what_it_shows()


def test_the_pointer_drags_lines_and_lays_them_aside(game, tmp_path):
    game.drag(OWN, game.root.locator("ul"))
    assert game.aside == [OWN.strip()]
    assert game.said == f"“{OWN.strip()}” is laid aside."
    for place, line in enumerate(SOLUTION):
        if game.lines[place] != line.strip():
            game.drag(line, game.root.locator("ol li").nth(place))
        assert game.lines[place] == line.strip()
    game.drag(OWN, game.root.locator("ol li").nth(4))
    assert game.aside == []
    game.root.get_by_role("button", name="Check").click()
    until(lambda: "A line of your own is not part of it" in game.said)
    assert game.marks == ["✔ fits"] * 4 + ["✘ not here"] + ["✔ fits"] * 3
    game.drag(SOLUTION[2], game.root.locator("ol li").nth(5))
    game.button("lay aside", OWN).click()
    assert game.marks == [""] * 7  # they were another order's
    game.root.get_by_role("button", name="Check").click()
    until(lambda: "1 in the wrong place" in game.said)
    photograph(game, "puzzle", tmp_path)
    game.drag(SOLUTION[2], game.root.locator("ol li").nth(2))
    game.root.get_by_role("button", name="Check").click()
    until(lambda: game.said == "That is the solution.")
    photograph(game, "puzzle_solved", tmp_path)


def test_a_drag_that_is_in_the_air_shows_where_it_would_go(game, tmp_path):
    line, last = game.lines[0], game.root.locator("ol li").nth(4).bounding_box()
    box = game.item(line).bounding_box()
    game.page.mouse.move(box["x"] + 200, box["y"] + 10)
    game.page.mouse.down()
    game.page.mouse.move(box["x"] + 200, last["y"] + 12, steps=8)
    assert game.lines.index(line) == 4
    folder = screenshot_folder(tmp_path)
    game.page.screenshot(path=folder / "puzzle_dragged.png")
    assert abs(game.item(line).bounding_box()["y"] + 10 - last["y"] - 12) < 3
    game.page.mouse.up()
    assert game.lines.index(line) == 4


def test_buttons_move_a_line_and_every_quick_move_arrives(game):
    line = game.lines[0]
    for _ in range(7):
        game.button("down", line).click()
    assert game.lines[-1] == line
    assert game.button("down", line).is_disabled()
    assert line in game.focused()
    for _ in range(3):
        game.button("up", line).click()
    game.button("lay aside", line).click()
    game.button("put back", line).click()
    game.button("up", line).click()
    assert game.lines.index(line) == 6
    game.keeps_what_it_shows()


def test_what_moves_while_a_check_goes_on_is_not_lost(game):
    line = game.lines[0]
    game.page.evaluate(
        f"() => {{ {CURRENT_NOTEBOOK}.sessionContext.session.kernel.requestExecute("
        "{code: 'import time; time.sleep(1.5)'}) }"
    )
    game.root.get_by_role("button", name="Check").click()
    assert game.said == "Checking …"
    game.button("down", line).click()
    game.button("down", line).click()
    moved = game.lines
    until(lambda: "check again" in game.said, what="an answer to the order before")
    assert game.lines == moved
    assert game.marks == [""] * 8
    game.root.get_by_role("button", name="Check").click()
    until(lambda: "lines fit together" in game.said)
    assert set(game.marks) <= {"✔ fits", "↕ elsewhere", "✘ not here"}
    game.keeps_what_it_shows()


def test_nothing_serious_is_found_by_axe(game):
    game.root.evaluate("root => root.classList.add('under-axe')")
    game.button("lay aside", game.lines[4]).click()
    game.root.get_by_role("button", name="Check").click()
    until(lambda: "lines fit together" in game.said)
    for theme in themes(game.page):
        found = Axe().run(game.page, context=".under-axe .puz").response["violations"]
        grave = [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")]
        assert grave == [], theme


def test_opened_again_without_a_kernel_it_says_what_to_do(course, browser):
    page, seen = browser
    command(page, "docmanager:save")
    page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
    command(page, "application:close")
    seen.clear()
    open_notebook(page, f"{course[1]}&reset", "puzzle.ipynb")
    cell = page.locator(f"{VISIBLE} .jp-CodeCell", has_text="import puzzle")
    cell.scroll_into_view_if_needed()
    until(lambda: cell.get_by_text(re.compile("[Rr]un this cell to")).filter(visible=True).count())
    assert cell.locator("text=model not found").count() == 0
    game = Game(page, cell.locator(".jp-OutputArea-output").last)
    if game.root.locator("ol").count():  # its lines can still be moved
        game.root.get_by_role("button", name="Check").click()
        assert "Run this cell first" in game.said
    assert seen == []
