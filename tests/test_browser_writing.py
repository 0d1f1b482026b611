"""The microscope on a tiny language model that writes, in JupyterLab: it grows, stops, is switched, and opened again.

Screenshots in both themes go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import base64
import re

import nbformat
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
    until,
    write_notebook,
)
from test_browser_microscope import Page, photograph

pytestmark = NEEDED
MAKE = """import time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from adapters_lesson import AdapterConfig, insert_adapters
from adapters_lesson.course.language.writing_microscope import WritingMicroscope

class Words:
    eos_token_id = -1  # it never ends by itself
    def apply_chat_template(self, asked, **_):
        return "> " + asked[0]["content"]
    def __call__(self, text, **_):
        return {"input_ids": torch.tensor([[3 + ord(letter) % 7 for letter in text]])}
    def decode(self, ids):
        return "".join(f" w{i}" if i % 5 else "\\n" for i in ids)

torch.manual_seed(0)
sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.3)).eval()
insert_adapters(model, AdapterConfig(4, placement="pfeiffer", init="bert", init_std=0.5))
scope = WritingMicroscope(model, Words(), "why not", of="Untrained adapters, seed 0.", max_tokens=24)
model.model.register_forward_pre_hook(lambda *_: time.sleep(0.1))
scope"""
TWO_VIEWS = """async ([code, values]) => {
    const { default: scope } = await import("data:text/javascript;base64," + code), sent = [];
    const on = {}, model = { get: name => structuredClone(values[name]), set() {}, save_changes() {}, off() {},
        on: (name, heard) => (on[name] ??= []).push(heard), send: message => sent.push(message) };
    for (const id of ["a", "b"]) scope.render({ model, el: document.getElementById(id) });
    const all = (name, message) => (on[name] ?? []).forEach(heard => heard(message));
    window.tell = (view, more) => all("msg:custom", { run: sent[view].run, busy: true, ...more });
    window.restart = () => {
        document.getElementById("a").classList.add("jupyter-widgets-disconnected");
        all("comm_live_update");
    };
}"""
SAY = "print(scope.off, scope.astray, scope.text, len(scope.ids))"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_notebook(copy_of_the_course(home / "course") / "notebooks" / "writing.ipynb", [MAKE, SAY])
    with make_lab(home) as address:
        yield home, address


@pytest.fixture(scope="module")
def browser(course):
    seen = []
    with browser_page(seen, 1280, 720) as page:
        open_notebook(page, f"{course[1]}&reset", "writing.ipynb")
        output = run_cell(page, "import WritingMicroscope")
        assert errors(page) == []
        output.locator("[role=grid]").first.wait_for()
        yield Page(page, output), seen


@pytest.fixture
def shown(browser):
    shown, seen = browser
    shown.root.evaluate("root => root.scrollIntoView()")
    yield shown
    assert seen == []


def test_two_views_do_not_take_each_others_answers_and_a_restart_frees_them():
    space = {}
    exec(MAKE.partition("model.model.register")[0], space)
    scope, seen = space["scope"], []
    values = {name: getattr(scope, name) for name in ("about", "frames", "now", "text", "room", "of")}
    values |= {"off": [], "side": {}, "beside": "", "other": "", "error": "", "astray": False}
    code = base64.b64encode(str(scope._esm).encode()).decode()
    with browser_page(seen, 1280, 720) as page:
        page.set_content('<div id="a"></div><div id="b"></div>')
        page.evaluate(TWO_VIEWS, [code, values])
        one, two = (page.locator(view).get_by_role("status") for view in ("#a", "#b"))
        write = [page.locator(view).get_by_role("button", name="Write", exact=True) for view in ("#a", "#b")]
        for button in write:
            button.click()
        until(lambda: "Reading the question" in one.inner_text() and "Reading the question" in two.inner_text())
        page.evaluate(
            "now => tell(1, { token: ' x', place: now.places[0], column: { push: [0], turn: [0] } })", scope.now
        )
        until(lambda: "Writing: 1 tokens" in two.inner_text())
        assert "Reading the question" in one.inner_text()
        page.evaluate("() => tell(1, { busy: false })")
        until(lambda: write[1].is_enabled())
        assert write[0].is_disabled()
        page.evaluate("() => restart()")
        until(lambda: write[0].is_enabled())
        assert "The kernel has gone: run this cell again." in one.inner_text()
        assert seen == []


def tokens(shown):
    return shown.root.locator(".said span")


def columns(shown):
    return shown.grid.locator("[role=columnheader]").count()


def test_it_grows_while_it_writes_and_stops(shown):
    assert columns(shown) == 25
    assert "Untrained adapters, seed 0." in shown.root.inner_text()
    assert "Asked “why not”, it wrote 24 tokens, cut off there." in shown.said
    question = shown.root.get_by_label("Ask: the sentence", exact=True)
    question.fill("who then")
    question.press("Enter")
    until(lambda: re.search(r"Writing: \d tokens", shown.said))
    assert shown.button("Write").is_disabled()
    grown = [columns(shown)]
    until(lambda: columns(shown) > grown[0] + 1, what="more columns")
    shown.button("Stop").focus()
    shown.page.keyboard.press("Enter")
    until(lambda: "and was stopped" in shown.said)
    assert 2 < columns(shown) < 25
    assert tokens(shown).count() == columns(shown) - 1
    written = run_cell(shown.page, SAY).inner_text().split()
    assert written == ["[]", "False", "who", "then", str(tokens(shown).count())]
    shown.button("Write").click()
    until(lambda: "Asked “who then”, it wrote 24 tokens, cut off there." in shown.said)
    assert columns(shown) == 25


def test_the_arrows_go_back_over_the_tokens(shown):
    place = shown.root.get_by_text(re.compile(r"^Place \d+"))
    tokens(shown).nth(0).click()
    assert place.inner_text().startswith("Place 1,")
    first = shown.answers
    for key, number in (("ArrowRight", 2), ("End", 24), ("ArrowLeft", 23)):
        shown.page.keyboard.press(key)
        assert place.inner_text().startswith(f"Place {number},"), key
        assert shown.focused().startswith(f"place {number}:")
    assert shown.answers != first
    shown.grid.locator("[role=row]").first.locator("[role=gridcell]").nth(5).focus()
    until(lambda: place.inner_text().startswith("Place 5,"))
    for measure, unit in (("turn", "turned by"), ("units", "unit at"), ("push", "of the stream")):
        shown.button(measure).click()
        until(lambda unit=unit: unit in shown.cell(3).get_attribute("aria-label"))


def test_a_push_that_is_off_changes_what_is_likely(shown, tmp_path):
    tokens(shown).nth(6).click()
    on = shown.answers
    shown.grid.locator("[role=row]").first.locator("[role=gridcell]").nth(7).focus()
    shown.page.keyboard.press("Enter")
    until(lambda: "→" in shown.answers)
    assert "Without block 3 · FFN on" in shown.said
    after_one = shown.answers
    for _ in range(8):
        shown.page.keyboard.press("ArrowLeft")
    assert shown.focused() == "block 3 · FFN: switch the row"
    shown.page.keyboard.press("Enter")
    until(lambda: "Without all of block 3 · FFN" in shown.said)
    shown.button("all off").click()
    until(lambda: re.search(r"Without everything: At \d+ of 24 places another token", shown.said))
    assert shown.answers not in (on, after_one)
    turned = shown.root.locator(".said .turned").count()
    assert f"At {turned} of 24 places" in shown.said
    assert turned > 0
    without = shown.answers
    shown.root.get_by_label("what becomes of a push that is off").select_option("yes")
    until(lambda: "With everything in a random direction" in shown.said and shown.answers != without)
    photograph(shown.page, shown.root, "writing", tmp_path)
    shown.root.get_by_label("what becomes of a push that is off").select_option("")
    shown.button("all on again").click()
    tokens(shown).nth(6).click()
    until(lambda: shown.answers == on)
    photograph(shown.page, shown.root, "writing_on", tmp_path)


def test_a_bad_question_is_refused(shown):
    question = shown.root.get_by_label("Ask: the sentence", exact=True)
    question.fill(" ")
    question.press("Enter")
    until(lambda: "ask a question of at most 200 tokens" in shown.root.locator(".error").inner_text())
    assert columns(shown) == 25


def test_nothing_serious_is_found_by_axe(shown):
    shown.root.evaluate("root => root.classList.add('under-axe')")
    found = Axe().run(shown.page, context=".under-axe .mic").response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_opened_again_without_a_kernel_its_picture_stands_there(course, browser):
    home, address = course
    page = browser[0].page
    command(page, "docmanager:save")
    page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
    command(page, "application:close")
    browser[1].clear()
    open_notebook(page, f"{address}&reset", "writing.ipynb")
    cell = page.locator(f"{VISIBLE} .jp-CodeCell", has_text="import WritingMicroscope").last
    cell.scroll_into_view_if_needed()
    until(lambda: cell.locator(".still:visible").count() or cell.get_by_text("Run this cell to move it.").count())
    assert cell.locator("text=model not found").count() == 0
    shown = Page(page, cell.locator(".jp-OutputArea-output").last)
    if shown.root.locator("[role=grid]").count():  # the tokens can still be looked at
        shown.cell(4).click()
        until(lambda: "Run this cell first: without a kernel nobody can compute" in shown.said)
        shown.button("Write").click()
        until(lambda: "Run this cell first: without a kernel nobody can write" in shown.said)
    saved = nbformat.read(home / "course" / "notebooks" / "writing.ipynb", as_version=4).cells[0].outputs[-1]
    said = r"Asked “why not”, it wrote 24 tokens, cut off there\. The largest push is that of block"
    assert re.match(said, saved.metadata["image/svg+xml"]["alt"])
    assert "Run this cell to move it." in saved.data["text/html"]
    assert browser[1] == []
