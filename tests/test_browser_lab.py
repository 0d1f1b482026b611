"""Every widget in a real browser, by keyboard and by click, as a learner meets it in `make lab`.

Screenshots in both themes go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import csv
import io
import re
import time
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import (
    NEEDED,
    VISIBLE,
    Shown,
    begin,
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
    wait_for_notebook,
    write_notebook,
)

from adapters_lesson.course import explorers as widgets

pytestmark = NEEDED
SOON = 15  # seconds; `make lab-speed` measures 0.5 on a machine that does nothing else, here others may be at work
EXPLORERS = [name for name in widgets.__all__ if name.endswith("_explorer")]
RUN = "await laboratory.run(seeds=[0], bottleneck_dim=4, steps=800)"
WAIT = "laboratory.run(seeds=[0], bottleneck_dim=4, steps=800).wait();"
STATE = "print(laboratory.job.state, len(laboratory.book.runs), laboratory.run_button.disabled)"
ROUTING = """from adapters_lesson import AdapterConfig, SmallTransformer
from adapters_lesson.bank import AdapterBank
from adapters_lesson.course.explorers import routing_explorer

bank = AdapterBank(SmallTransformer.from_minilm(2))
for task in ("weather", "music"):
    bank.add(task, AdapterConfig(bottleneck_dim=8, init="houlsby"), ["bad", "good"])
routing_explorer(bank, ["It rains.", "She sings.", "The sun is out."])"""
CELLS = [
    *(
        f"from adapters_lesson.course.explorers import {name}\n\n{name}()"
        for name in EXPLORERS
        if name != "routing_explorer"
    ),
    ROUTING,
    'from adapters_lesson.course.quiz import quiz\n\nquiz("01")',
    "from adapters_lesson.course.laboratory import Laboratory, guided_experiments\n\nguided_experiments(Laboratory())",
    "from adapters_lesson.course.laboratory import Laboratory\n\nlaboratory = Laboratory()\nlaboratory",
    RUN,
    WAIT,
    STATE,
]
# The arrows leave a list that is closed: JupyterLab goes to the next cell. Enter opens it, and chooses.
KEYS = {
    "slider": (["ArrowRight"], ["ArrowLeft"]),
    "list": (["Enter", "ArrowDown", "Enter"], ["Enter", "ArrowUp", "Enter"]),
    "box": (["Space"], ["Space"]),
}
# Where to begin, a fast turn, and a slow one to the same value.
FAST = {
    "slider": ("Home", [*20 * ["ArrowRight"], "ArrowLeft"], ["End", "ArrowLeft"]),
    "list": ("End", [*10 * ["Home", "End"], "Home"], ["Home"]),
}
KIND = """knob => knob.tagName === "SELECT" ? "list" : knob.type === "range" ? "slider" : "box" """
ROOM = """knob => knob.type === "range" ? +knob.value < +knob.max
    : knob.tagName === "SELECT" ? knob.selectedIndex < knob.length - 1 : true"""
GREYED = "knob => knob.disabled"
FOCUSED = "knob => document.activeElement === knob"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A home with the course and a notebook of widgets; the address of its Lab."""
    home = tmp_path_factory.mktemp("home")
    write_notebook(copy_of_the_course(home / "course") / "notebooks" / "widgets.ipynb", CELLS)
    with make_lab(home, ADAPTERS_LESSON_RUNS=str(home / "runs")) as address:
        yield home, address


@pytest.fixture(scope="module")
def browser(course):
    """A page with the notebook of widgets, and what happened on it that should not."""
    seen = []
    with browser_page(seen, 1280, 720) as page:
        open_notebook(page, course[1], "widgets.ipynb")
        yield page, seen


@pytest.fixture
def page(browser):
    page, seen = browser
    yield page
    assert seen == []


@pytest.fixture
def photograph(page, request, tmp_path):
    """Take a screenshot in each theme; returns to the light one."""
    folder = screenshot_folder(tmp_path)

    def take(shown, name):
        for theme in themes(page):
            for end in ("start", "end") if shown.output.bounding_box()["height"] > 590 else ("start",):
                shown.output.evaluate("(output, end) => output.scrollIntoView({block: end})", end)
                page.screenshot(path=folder / f"{name}_{theme.lower()}_{end}.png")

    return take


def show(page, source):
    """Run the cell with this source; returns its widget, in view."""
    shown = Shown(page, run_cell(page, source))
    shown.output.locator(".jupyter-widgets").first.wait_for()
    shown.output.evaluate("output => output.scrollIntoView()")
    assert errors(page) == []
    return shown


def turn(page, knob):
    """Change the focused knob by one value, forward if there is room."""
    forward, back = KEYS[knob.evaluate(KIND)]
    for key in forward if knob.evaluate(ROOM) else back:
        page.keyboard.press(key)


def control(knob):
    """The knob with its label."""
    return knob.locator("xpath=ancestor::*[contains(@class, 'widget-inline-hbox')]")


# --- Explorers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_knob_of_an_explorer_works_by_keyboard(page, photograph, name):
    shown = show(page, f"{name}(")
    start = now = shown.now
    assert shown.knobs()
    for knob in shown.knobs():
        if knob.evaluate(GREYED):
            continue
        knob.focus()
        label, place = control(knob).locator(".widget-label").first.inner_text(), control(knob).bounding_box()
        turn(page, knob)
        now = shown.changes(now, f"by {label}")
        if knob.evaluate(KIND) == "slider":  # a screen reader gets its name, and its value as it is shown
            (named,) = shown.output.get_by_role("slider", name=label, exact=True).all()
            assert named.get_attribute("aria-valuetext") == shown.readout(label)
        assert knob.evaluate(FOCUSED), label
        assert control(knob).bounding_box() == place, label
    shown.button("Reset").focus()
    page.keyboard.press("Enter")
    until(lambda: shown.now == start, what="Reset")
    photograph(shown, name)


@pytest.mark.parametrize("name", EXPLORERS)
def test_of_a_knob_that_is_turned_fast_the_last_value_wins(page, name):
    shown = show(page, f"{name}(")
    knob = shown.output.locator("input[type=range], select").first
    start, fast, slow = FAST[knob.evaluate(KIND)]
    knob.focus()
    page.keyboard.press(start)
    first = shown.settled()
    for key in slow:
        page.keyboard.press(key)
    last = shown.changes(first)
    assert last[0] != first[0]
    assert last[1] != first[1]
    page.keyboard.press(start)
    until(lambda: shown.now == first)
    shown.image.evaluate("""image => {
        window.frames_seen = 0;
        const seen = new MutationObserver(() => { window.frames_seen += 1 });
        seen.observe(image, {childList: true});
    }""")
    for key in fast:
        page.keyboard.press(key)
    until(lambda: shown.now == last, what="the picture of the last value")
    assert shown.settled() == last
    assert page.evaluate("window.frames_seen") <= len(fast)


@pytest.mark.parametrize("name", ["drop_explorer", "latency_explorer"])
def test_a_measurement_can_be_stopped_by_a_click(page, name):
    shown = show(page, f"{name}(")
    start = shown.picture
    shown.button("Measure").click()
    until(shown.button("Stop").is_enabled)
    shown.button("Stop").click()
    until(shown.button("Measure").is_enabled)
    until(lambda: "stopped" in shown.text)
    assert shown.picture == start


# --- The quiz -------------------------------------------------------------------------------------------------------


def test_a_quiz_is_answered_by_keyboard(page, photograph):
    shown = show(page, 'quiz("01")')
    assert "0 of 5 answered" in shown.text
    shown.button("Start again").focus()
    page.keyboard.press("Tab")  # to the first option
    page.keyboard.press("Space")
    until(lambda: "1 of 5 answered" in shown.text and ("Right:" in shown.text or "Not quite:" in shown.text))
    first = shown.text
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(lambda: shown.text != first)
    assert "1 of 5 answered" in shown.text  # only the first answer counts
    photograph(shown, "quiz")
    shown.button("Next").focus()
    page.keyboard.press("Enter")
    shown.output.get_by_text("2 of 5.").wait_for()


# --- The laboratory -------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(course):
    """The folder with the laboratory's runs, empty at first."""
    folder = course[0] / "runs"
    for path in folder.glob("*"):
        path.unlink()
    return folder


def set_slider(page, shown, label, value):
    """Move the slider by keyboard, from its lowest value on, until it shows ``value``."""
    shown.slider(label).focus()
    page.keyboard.press("Home")
    while (at := shown.readout(label)) != value:
        page.keyboard.press("ArrowRight")
        assert shown.readout(label) != at, f"{label} cannot be {value}"


def run(shown):
    """Click on Run and wait for the first point."""
    before = shown.picture
    shown.button("Run").click()
    until(lambda: shown.picture not in (None, before), 60, "the first point")
    assert not shown.button("Run").is_enabled()


def stop(shown):
    """Click on Stop; the run is kept."""
    count = shown.boxes().count()
    began = time.monotonic()
    shown.button("Stop").click()
    until(shown.button("Run").is_enabled, what="Stop")
    assert time.monotonic() - began < SOON
    until(lambda: "stopped" in shown.text and shown.boxes().count() == count + 1)


def in_sight(page, *locators):
    """Whether all of them are within the window at once."""
    boxes, window = [locator.bounding_box() for locator in locators], page.viewport_size
    return all(
        box
        and box["y"] >= 0
        and box["y"] + box["height"] <= window["height"]
        and box["x"] + box["width"] <= window["width"]
        for box in boxes
    )


def test_a_guided_experiment_is_predicted_run_and_revealed_in_one_view(page, runs, photograph):
    shown = show(page, "guided_experiments(")
    run_it, reveal = shown.button("Run it"), shown.button("Reveal")
    assert not run_it.is_enabled() and not reveal.is_enabled()
    shown.output.get_by_role("tab", name="m?").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    shown.output.get_by_text("We take the lowest block").wait_for()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    because = shown.output.get_by_placeholder("write down why").first
    because.fill("it is narrow")
    page.keyboard.press("Shift+Tab")  # to the last option
    page.keyboard.press("Space")
    until(reveal.is_enabled)
    run_it.focus()
    page.keyboard.press("Enter")
    for _ in range(4):  # pressed in haste
        page.keyboard.press("Enter")
    until(lambda: "another run goes on" in shown.text, what="the refusal of a second run")
    until(lambda: re.search(r"run 1 of 2: m = 4, seed 0, step \d+ of 200", shown.text), 120, "the first step")
    assert in_sight(
        page, shown.output.get_by_role("tab", name="m?"), because, run_it, reveal, shown.image, shown.button("Stop")
    )
    reveal.focus()
    page.keyboard.press("Enter")
    until(lambda: "You predicted" in shown.text and "by bottleneck_dim" in shown.text)
    assert "because it is narrow." in shown.text
    assert shown.output.locator(".lesson-option:visible .fa-check").count() == 1  # a sign, not the colour alone
    photograph(shown, "guide")
    found = Axe().run(page, context=f"{VISIBLE} .lesson-panel").response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")] == []
    shown.button("Stop").focus()
    page.keyboard.press("Enter")
    until(lambda: "stopped" in shown.text, what="Stop")
    assert len(list(runs.glob("*.json"))) == 1
    shown.output.get_by_role("tab", name="your own").click()
    until(shown.button("Run").is_enabled)
    page.set_viewport_size({"width": 700, "height": 720})
    until(lambda: shown.image.bounding_box()["y"] > shown.button("Run").bounding_box()["y"] + 300, what="one column")
    page.set_viewport_size({"width": 1280, "height": 720})


def test_the_laboratory_runs_stops_overlays_exports_and_finds_its_runs_again(page, runs, photograph):
    shown = show(page, "laboratory = ")
    shown.output.get_by_label("base layers").focus()
    page.keyboard.press("Home")
    run(shown)
    until(lambda: (found := re.search(r"step (\d+)", shown.text)) and int(found[1]) > 25, 120, "the first validation")
    stop(shown)
    set_slider(page, shown, "bottleneck_dim", "64")
    set_slider(page, shown, "steps", "25")
    run(shown)
    until(shown.button("Run").is_enabled, 120, "the end of the run")
    until(lambda: shown.boxes().count() == 2)
    until(lambda: "2 runs are drawn" in shown.text)
    both = shown.settled()
    photograph(shown, "laboratory")
    assert {path.name for path in runs.glob("*.json")} == {"run-0001.json", "run-0002.json"}

    shown.boxes().nth(1).focus()
    page.keyboard.press("Space")
    shown.changes(both)
    page.keyboard.press("Space")
    until(lambda: shown.now == both)

    shown.button("Export CSV").click()
    with page.expect_download() as download:
        shown.output.get_by_role("link", name="runs.csv").click()
    text = Path(download.value.path()).read_text()
    assert text == (runs / "runs.csv").read_text()
    assert [row["bottleneck_dim"] for row in csv.DictReader(io.StringIO(text))] == ["16", "64"]

    shown.boxes().nth(1).uncheck()
    shown.button("Delete").click()
    shown.output.get_by_text("Press Delete once more").wait_for()
    shown.button("Delete").click()
    until(lambda: shown.boxes().count() == 1)
    assert {path.name for path in runs.glob("*.json")} == {"run-0002.json"}

    command(page, "docmanager:save")
    page.reload()
    wait_for_notebook(page, "widgets.ipynb")
    until(lambda: shown.boxes().count() == 1, what="the run after a reload")
    run(shown)  # the kernel has kept the widget
    stop(shown)

    begin(page, "notebook:restart-kernel")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_function("() => window.done")
    assert show(page, "laboratory = ").boxes().count() == 2


@pytest.mark.parametrize(
    ("cell", "how"),
    [
        pytest.param(RUN, "interrupt", id="an interrupt of await"),
        pytest.param(RUN, "click", id="a click during await"),
        pytest.param(WAIT, "interrupt", id="an interrupt of wait"),
    ],
)
def test_a_run_is_stopped_while_its_cell_waits(page, runs, cell, how):
    shown = show(page, "laboratory = ")
    before = shown.picture
    run_cell(page, cell, wait=False)
    until(lambda: shown.picture not in (None, before), 60, "the first point")
    if how == "interrupt":
        command(page, "notebook:interrupt-kernel")
    else:
        shown.button("Stop").click()
    page.wait_for_function("() => window.done")
    assert errors(page) == []
    assert run_cell(page, STATE).inner_text().strip() == "stopped 1 False"
    assert len(list(runs.glob("*.json"))) == 1
    run(shown)
    stop(shown)
