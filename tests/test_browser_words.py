"""Every text that a widget's page shows, or tells a screen reader, is one that it asked for: seen in a browser.

Each page gets words that answer every English text with the same between « and ». What has letters outside of them was
not asked for; except what the kernel has sent, code and answers.
"""

import base64
import json
import re

import pytest
from browser import NEEDED, browser_page, screenshot_folder

from adapters_lesson.course import words
from adapters_lesson.course.decision import WhichMethod
from adapters_lesson.course.help import puzzle
from adapters_lesson.course.language.dial import Dial
from adapters_lesson.course.microscope import Microscope
from adapters_lesson.course.page import Page
from adapters_lesson.course.playground import Playground
from adapters_lesson.history import load_results

pytestmark = NEEDED
PAGE = "<!doctype html><html lang='{}'><title>words</title><body style='margin: 0'><main></main>"
RENDER = """async ([code, values, baked]) => {
    const { default: widget } = await import("data:text/javascript;base64," + code), heard = {};
    const every = { get: (_, english) => (typeof english === "string" ? `«${english}»` : undefined) };
    values.words ??= new Proxy({}, every);
    const model = { baked, get: name => values[name], save_changes() {}, off() {}, send() {},
        on: (name, hear) => { (heard[name] ??= []).push(hear); },
        set: (name, value) => { values[name] = value; (heard[`change:${name}`] ?? []).forEach(hear => hear()); } };
    window.model = model;
    widget.render({ model, el: document.querySelector("main") });
}"""
SHOWN = """() => {
    const said = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) if (!walk.currentNode.parentNode.closest("style, code")) said.push(walk.currentNode.data);
    for (const one of document.querySelectorAll("main *")) {
        for (const name of ["aria-label", "aria-valuetext", "aria-description", "title", "placeholder", "alt"])
            if (one.hasAttribute(name)) said.push(one.getAttribute(name));
        const { content } = getComputedStyle(one, "::before");
        if (!["none", "normal"].includes(content)) said.push(content);
    }
    return said;
}"""

NAMES = re.compile("GELU|ReLU|tanh|down|FFN")


def values(widget):
    """What a page gets from the kernel, without its words."""
    own = set(widget.trait_names(sync=True)) - set(Page.class_trait_names())
    return {name: getattr(widget, name) for name in own if name[0] != "_"}


def strings(value):
    """All strings in what a page gets."""
    if isinstance(value, str):
        yield from [value, *value.splitlines()]
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def rest(text, sent):
    """What is left of a text without the words that were asked for, and without what the kernel has sent."""
    while re.search("«[^«»]*»", text):
        text = re.sub("«[^«»]*»", " ", text)
    for one in sent:
        text = text.replace(one, " ")
    return text


def click(name, exact=False):
    return lambda page: page.get_by_role("button", name=name, exact=exact).first.click()


def pasted(text):
    def act(page):
        page.locator(".state").fill(text)
        page.locator(".state").press("Enter")

    return act


def key(selector, *keys):
    def act(page):
        page.locator(selector).first.focus()
        for one in keys:
            page.keyboard.press(one)

    return act


def checked(page):
    page.evaluate(
        """() => { const order = model.get("order"), marks = order.map((_, i) => ["fits", "moves", "foreign"][i % 3]);
            model.set("checked", { order, marks, said: "", solved: false }); }"""
    )


def answered(page):
    while page.locator(".answers button").count():
        page.locator(".answers button").first.click()


ASKED = {  # the widget, what its page gets beside its traits, and what is done with it
    "playground": (
        Playground,
        {},
        [
            click("Step"),
            click("Play"),
            click("Pause"),
            pasted("m2-identity-std1-lr0.1-res0-x2-circles-s1"),
            click("Step"),
            pasted("m9"),
            pasted("m2-relu-zero-lr0.1-res0-moons-s0-hide.moon"),
            pasted("m2-relu-zero-lr0.1-res0-moons-s0-more"),
            pasted("m2-relu"),
        ],
    ),
    "help": (
        lambda: puzzle("5.1"),
        {},
        [
            click("down: "),
            key(".code", "Enter", "ArrowDown", "Escape"),
            key(".code", "Delete"),
            checked,
            click("«Check»", True),
        ],
    ),
    "decision": (WhichMethod, {}, [click("No, I only"), click("Change"), answered]),
    "dial": (
        lambda: Dial(load_results("dial")),
        {"live": True},
        [key("input[type=range]", "Home", "End"), click("«Ask»", True)],
    ),
    "microscope": (
        None,
        {"frames": [], "side": {}, "other": "", "beside": "", "error": "", "off": [], **load_results("microscope")},
        [
            click("«turn»", True),
            key("g.cell", "Enter"),
            key("g.cell >> nth=3", "Enter"),
            click("«all off»"),
            click("«units»", True),
        ],
    ),
}


@pytest.mark.parametrize("name", list(ASKED))
def test_a_page_shows_only_what_it_asked_for(name):
    make, more, steps = ASKED[name]
    widget = Microscope if make is None else make()
    sent = ({} if make is None else values(widget)) | more
    known = sorted({one.strip() for one in strings(sent) if len(one.strip()) > 1}, key=len, reverse=True)
    seen, asked, astray = [], set(), {}
    with browser_page(seen) as page:
        page.set_content(PAGE.format("en"))
        code = base64.b64encode(str(widget._esm).encode()).decode()
        page.evaluate(RENDER, [code, json.loads(json.dumps(sent)), make is None])
        for at, step in enumerate([lambda page: None, *steps]):
            step(page)
            page.wait_for_timeout(100)
            for text in page.evaluate(SHOWN):
                asked |= set(re.findall("«([^«»]*)»", text))
                if re.search("[a-zA-Z]{2}", NAMES.sub("", rest(text, known))):
                    astray[text] = at
    assert seen == []
    assert astray == {}
    assert len(asked) > 5, asked


@pytest.mark.parametrize(("theme", "width", "height"), [("light", 1280, 720), ("dark", 390, 844)])
def test_the_playground_is_german_where_german_is_spoken(tmp_path, theme, width, height):
    words.speak("de")
    made = Playground()
    words.speak("en")
    seen, sent = [], values(made) | {"words": made.words}
    with browser_page(seen, width, height) as page:
        page.emulate_media(color_scheme=theme)
        page.set_content(PAGE.format("de"))
        page.evaluate(RENDER, [base64.b64encode(str(made._esm).encode()).decode(), sent, False])
        page.get_by_role("button", name="Schritt:").click()
        said = page.locator(".said").text_content()
        assert said.startswith("Schritt 1: ") and "ungesehenen Punkten sind richtig" in said
        assert page.get_by_role("slider", name="Lernrate").get_attribute("aria-valuetext") == "0.03"
        pasted("m9")(page)
        complaint = page.get_by_role("alert").inner_text()
        assert complaint.startswith("„m9“ passt nicht als „Flaschenhals m“: erwartet wird eines von m1, m2")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=screenshot_folder(tmp_path) / f"playground_de_{theme}_{width}.png", full_page=True)
    assert seen == []
