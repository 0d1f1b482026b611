"""The microscope in JupyterLab, by keyboard and pointer, while a model learns, and opened again; and without a kernel.

Screenshots in both themes go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import functools
import http.server
import json
import re
import threading
from pathlib import Path

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

import adapters_lesson.course.microscope as package

pytestmark = NEEDED
MODULE = Path(package.__file__).with_name("microscope.js")
MAKE = """import torch
from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, encode, load_tokenizer, prepare, train
from adapters_lesson.course.microscope import Microscope
from adapters_lesson.data import make_dataset

torch.manual_seed(0)
tokenizer = load_tokenizer()
model = Classifier(SmallTransformer.from_minilm(2), ("negative", "positive")).eval()
prepare(model, "adapter", AdapterConfig(8, init="houlsby", init_std=0.2))
control = Classifier(SmallTransformer.from_minilm(2), ("negative", "positive")).eval()
prepare(control, "adapter", AdapterConfig(8))
microscope = Microscope(
    model, tokenizer, "sofa: The bed was fine, but the sofa was bad.", beside={"untrained": control}, every=1
)
microscope"""
LEARN = """texts = [f"sofa: the sofa was {word}." for word in ("bad", "good", "poor", "fine")]
data = encode(make_dataset(texts, ["bad", "good"] * 2, ["bad", "good"]), tokenizer)
history = train(model, data, steps=12, batch_size=4, learning_rate=3e-3, progress=False, on_step=microscope.record)"""
SAY = "print(len(microscope.frames), sorted(map(tuple, microscope.off)), microscope.text)"
ON_THE_GRID = "[role=grid]:visible"


class Page:
    """The microscope on a page."""

    def __init__(self, page, root):
        self.page, self.root = page, root
        self.grid = root.locator(ON_THE_GRID).first

    @property
    def said(self):
        return self.root.locator("[role=status]").last.inner_text()

    @property
    def answers(self):
        return self.root.locator(".answers").inner_text()

    def cell(self, place):
        return self.grid.locator("[role=gridcell]").nth(place)

    def focused(self):
        return self.page.evaluate("document.activeElement.getAttribute('aria-label')")

    def button(self, name):
        return self.root.get_by_role("button", name=name, exact=True)


# Without a kernel: these come first, for one process can drive one browser at a time.


@pytest.fixture(scope="module")
def baked(tmp_path_factory):
    """A page without a kernel, and its address."""
    names: dict = {}
    exec(MAKE.replace("\nmicroscope\n", "\n").removesuffix("\nmicroscope"), names)
    folder = tmp_path_factory.mktemp("baked")
    (folder / "microscope.js").write_text(MODULE.read_text())
    (folder / "favicon.ico").write_bytes(b"")
    (folder / "baked.json").write_text(json.dumps(names["microscope"].baked()))
    (folder / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>baked</title><body><main id="it"></main><script type="module">'
        'import {mount} from "./microscope.js";'
        'mount(document.getElementById("it"), await (await fetch("baked.json")).json());</script>'
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 800)])
def test_without_a_kernel_single_clicks_are_answered(baked, tmp_path, width, height):
    seen = []
    folder = screenshot_folder(tmp_path)
    with browser_page(seen, width, height) as page:
        page.goto(baked)
        shown = Page(page, page.locator("#it"))
        shown.grid.wait_for()
        start = shown.answers
        shown.cell(3).focus()
        page.keyboard.press("Enter")
        until(lambda: "→" in shown.answers)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        until(lambda: "need a running kernel" in shown.said)
        shown.button("all on again").click()
        until(lambda: shown.answers == start)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=folder / f"baked_{width}.png")
    assert seen == []


# --- In JupyterLab ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_notebook(copy_of_the_course(home / "course") / "notebooks" / "microscope.ipynb", [MAKE, LEARN, SAY])
    with make_lab(home) as address:
        yield home, address


@pytest.fixture(scope="module")
def browser(course):
    seen = []
    with browser_page(seen, 1280, 720) as page:
        open_notebook(page, f"{course[1]}&reset", "microscope.ipynb")
        output = run_cell(page, "import Microscope")
        assert errors(page) == []
        output.locator("[role=grid]").first.wait_for()
        yield Page(page, output), seen


@pytest.fixture
def shown(browser):
    shown, seen = browser
    shown.root.evaluate("root => root.scrollIntoView()")
    if shown.button("all on again").is_enabled():
        shown.button("all on again").click()
        until(lambda: "Without" not in shown.said)
    yield shown
    assert seen == []


def photograph(page, output, name, folder):
    folder = screenshot_folder(folder)
    for theme in themes(page):
        output.evaluate("output => output.scrollIntoView({block: 'start'})")
        page.screenshot(path=folder / f"{name}_{theme.lower()}.png")


def state(page):
    return run_cell(page, SAY).inner_text().strip()


def test_the_arrows_walk_and_enter_switches(shown):
    start = shown.answers
    shown.cell(5).focus()
    first = shown.focused()
    assert re.fullmatch(r"\S+, block 1 · FFN: \d+(\.\d)? % of the stream", first)
    shown.page.keyboard.press("Enter")
    until(lambda: "→" in shown.answers, what="before and after")
    assert shown.focused() == f"{first}, switched off"
    assert "Without block 1 · FFN on" in shown.said
    for key, where in (
        ("ArrowRight", "block 1 · FFN"),
        ("ArrowDown", "block 1 · attention"),
        ("ArrowUp", "block 1 · FFN"),
    ):
        shown.page.keyboard.press(key)
        assert where in shown.focused(), key
    shown.page.keyboard.press("ArrowLeft")
    shown.page.keyboard.press("Space")
    until(lambda: shown.answers == start, what="on again")
    for _ in range(30):
        shown.page.keyboard.press("ArrowLeft")
    assert shown.focused() == "block 1 · FFN: switch the row"
    shown.page.keyboard.press("Enter")
    until(lambda: "Without all of block 1 · FFN" in shown.said)
    for _ in range(9):
        shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("ArrowRight")
    shown.page.keyboard.press("Shift+Enter")
    until(lambda: "Without everything but block 0 · attention on “[CLS]”" in shown.said)
    shown.page.keyboard.press("ArrowDown")
    assert shown.focused() == "[CLS]: switch the column"
    shown.button("all on again").focus()
    shown.page.keyboard.press("Enter")
    until(lambda: shown.answers == start)


def test_the_pointer_shows_the_formula_and_switches(shown):
    shown.cell(20).hover()
    until(lambda: "block 1 · attention on" in shown.root.locator(".details").inner_text())
    details = shown.root.locator(".details").inner_text()
    push, stream, share = re.search(r"([\d.]+) / ([\d.]+) = ([\d.]+) %", details).groups()
    assert 100 * float(push) / float(stream) == pytest.approx(float(share), abs=0.6)
    assert "self.up_project(self.activation(self.down_project(x)))" in details
    shown.cell(20).click()
    until(lambda: "Without block 1 · attention" in shown.said)
    shown.grid.locator("[role=columnheader]").nth(2).click()
    until(lambda: "Without 5 pushes" in shown.said or "Without 4 pushes" in shown.said)


def test_what_is_typed_is_read_and_the_last_letter_wins(shown):
    sentence = shown.root.get_by_label("Ask: the sentence", exact=True)
    before = sentence.input_value()
    sentence.fill("The bed was bad")
    sentence.focus()
    shown.page.keyboard.press("End")
    for letter in " and the sofa was wonderful.":
        shown.page.keyboard.press("Space" if letter == " " else letter)
    until(lambda: "wonderful, block 1" in (shown.grid.inner_html()), what="the last word")
    assert state(shown.page).endswith("sofa: The bed was bad and the sofa was wonderful.")
    assert shown.root.locator(".error").inner_text() == ""
    shown.root.get_by_label("Ask: the aspect asked about", exact=True).fill("bed")
    until(lambda: "bed, block 1" in shown.grid.locator("[role=gridcell]").nth(1).get_attribute("aria-label"))
    sentence.fill("word " * 60)
    until(lambda: "at most 40 tokens" in shown.root.locator(".error").inner_text())
    sentence.fill(before)
    shown.root.get_by_label("Ask: the aspect asked about", exact=True).fill("sofa")
    until(lambda: shown.root.locator(".error").inner_text() == "")


def test_quick_bursts_end_where_they_should(shown):
    shown.cell(0).focus()
    for _ in range(12):
        shown.page.keyboard.press("Enter")
        shown.page.keyboard.press("ArrowRight")
    until(lambda: re.search(r"Without 12 pushes", shown.said), what="the answer to the last of twelve")
    assert state(shown.page).count("(3, ") == 12


def test_another_model_stands_beside_and_as_a_difference(shown, tmp_path):
    shown.root.get_by_label("what stands beside it").select_option("untrained")
    until(lambda: shown.root.locator(ON_THE_GRID).count() == 2)
    until(lambda: "untrained: " in shown.root.inner_text())
    assert "0.0 % of the stream" in shown.root.locator(ON_THE_GRID).last.locator("[role=gridcell]").first.get_attribute(
        "aria-label"
    )
    photograph(shown.page, shown.root, "beside", tmp_path)
    shown.root.get_by_label("as one difference").check()
    until(lambda: shown.root.locator(ON_THE_GRID).count() == 1)
    shown.root.get_by_label("as one difference").uncheck()
    shown.root.get_by_label("what stands beside it").select_option("another sentence")
    shown.root.get_by_label("Beside it, ask: the aspect asked about").fill("bed")
    until(lambda: "another sentence: " in shown.root.inner_text() and shown.root.locator(ON_THE_GRID).count() == 2)
    shown.root.get_by_label("what stands beside it").select_option("")
    until(lambda: shown.root.locator(ON_THE_GRID).count() == 1)
    for measure, unit in (("turn", "turned by"), ("units", "unit at"), ("push", "of the stream")):
        shown.button(measure).click()
        until(lambda unit=unit: unit in shown.cell(3).get_attribute("aria-label"))


def test_it_follows_a_training_and_the_steps_can_be_seen_again(shown, tmp_path):
    shown.page.evaluate("""root => {
        window.steps_seen = new Set();
        new MutationObserver(() => {
            const found = /Step (\\d+)/.exec(root.querySelector("[role=status]")?.textContent ?? "");
            if (found) window.steps_seen.add(found[1]);
        }).observe(root, {subtree: true, childList: true, characterData: true});
    }""", shown.root.element_handle())  # fmt: skip
    run_cell(shown.page, "texts = [f")
    assert errors(shown.page) == []
    until(lambda: "Step 12." in shown.said)
    assert shown.page.evaluate("window.steps_seen.size") >= 4  # some came while it learned
    slider = shown.root.get_by_label("training step")
    assert slider.get_attribute("max") == "12"
    last = shown.answers
    slider.focus()
    shown.page.keyboard.press("Home")
    until(lambda: "Step 0." in shown.said and shown.answers != last)
    shown.button("play the training").click()
    until(lambda: "Step 12." in shown.said and shown.answers == last)
    photograph(shown.page, shown.root, "microscope", tmp_path)
    assert state(shown.page).startswith("13 []")


def test_nothing_serious_is_found_by_axe(shown):
    shown.root.evaluate("root => root.classList.add('under-axe')")
    found = Axe().run(shown.page, context=".under-axe .mic").response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_opened_again_without_a_kernel_it_says_what_to_do(course, browser):
    page = browser[0].page
    command(page, "docmanager:save")
    page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
    command(page, "application:close")
    seen = []
    browser[1].clear()
    open_notebook(page, f"{course[1]}&reset", "microscope.ipynb")
    cell = page.locator(f"{VISIBLE} .jp-CodeCell", has_text="import Microscope").last
    cell.scroll_into_view_if_needed()
    shown = Page(page, cell.locator(".jp-OutputArea-output").last)
    until(lambda: cell.locator(".still:visible").count() or cell.get_by_text("Run this cell to move it.").count())
    assert cell.locator("text=model not found").count() == 0
    if shown.root.locator("[role=grid]").count():  # the steps can still be looked at
        shown.cell(4).click()
        until(lambda: "Run this cell first" in shown.said)
    assert seen == browser[1] == []
