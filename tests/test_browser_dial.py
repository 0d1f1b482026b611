"""The dial on a page without a kernel, and in JupyterLab with a tiny language model: keyboard, pointer, Stop.

Screenshots go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import base64
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import (
    NEEDED,
    browser_page,
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

from adapters_lesson.course.language.dial import Dial
from adapters_lesson.history import load_results

pytestmark = NEEDED
MODULE = base64.b64encode(str(Dial._esm).encode()).decode()
MOUNT = """async ([code, results]) => {
    const { mount } = await import("data:text/javascript;base64," + code);
    mount(document.querySelector("main"), results);
}"""
TWO_VIEWS = """async ([code, results]) => {
    const { default: dial } = await import("data:text/javascript;base64," + code), hear = [], sent = [];
    const model = { get: name => ({ results, live: true })[name], on: (_, heard) => hear.push(heard), off() {},
                    send: message => sent.push(message) };
    for (const id of ["a", "b"]) dial.render({ model, el: document.getElementById(id) });
    window.tell = (view, text) => hear.forEach(heard => heard({ run: sent[view].run, busy: true, text }));
}"""
MAKE = """import torch
from transformers import LlamaConfig, LlamaForCausalLM
from adapters_lesson import AdapterConfig, insert_adapters
from adapters_lesson.course.language.dial import Dial
from adapters_lesson.history import load_results

class Words:
    eos_token_id = -1  # it never ends by itself
    def apply_chat_template(self, asked, **_):
        return asked[0]["content"]
    def __call__(self, text, **_):
        return {"input_ids": torch.tensor([[3 + ord(letter) % 7 for letter in text]])}
    def decode(self, ids):
        return " ".join(f"w{i}" for i in ids)

sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
insert_adapters(model, AdapterConfig(4))
dial = Dial(load_results("dial"), model, Words(), max_tokens=3000)
dial"""


def photograph(page, name, folder):
    page.screenshot(path=screenshot_folder(folder) / f"{name}.png")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_it_turns_without_a_kernel(tmp_path, width, height):
    seen, results = [], load_results("dial")
    with browser_page(seen, width, height) as page:
        page.set_content("<!doctype html><html lang='en'><title>dial</title><body style='margin: 0'><main></main>")
        page.evaluate(MOUNT, [MODULE, results])
        dial, said = page.get_by_label("scaling of the adapters"), page.get_by_role("status")
        assert "With scaling 1.0" in said.inner_text()
        dial.focus()
        for key, value in (("ArrowLeft", "0.9"), ("Home", "0.0"), ("End", "2.0"), ("ArrowRight", "2.0")):
            page.keyboard.press(key)
            assert dial.get_attribute("aria-valuetext") == value
        page.keyboard.press("Home")
        last = results["positions"][-1]
        page.keyboard.press("End")
        assert f"{round(33 * last['form'])} of 33 answers have the form" in said.inner_text()
        answer = last["answers"][1]  # the question that it opens with
        assert page.locator(".answer").inner_text().split() == "".join(answer["tokens"]).split()
        new = page.locator(".answer .new").count()
        assert new > 0
        assert f"{new} of {len(answer['tokens'])} tokens are new" in said.inner_text()
        page.get_by_role("button", name=results["questions"][2]).click()
        page.locator(".answer span").nth(3).click()
        page.keyboard.press("ArrowRight")
        assert "at place 5," in page.locator(".next").inner_text()
        _, mille = last["answers"][2]["likeliest"][4][0]
        assert f"{mille / 10:.1f} %" in page.locator(".next tr").first.inner_text()
        face = page.locator(".knob svg").bounding_box()
        for across, down, value in ((0.05, 0.6, "0.3"), (0.5, 0.05, "1.0"), (0.35, 1.0, "0.0")):
            page.mouse.click(face["x"] + across * face["width"], face["y"] + down * (face["height"] - 2))
            assert dial.get_attribute("aria-valuetext") == value
        page.mouse.down()
        page.mouse.move(face["x"] + face["width"] * 0.98, face["y"] + face["height"] * 0.55)
        page.mouse.up()
        assert float(dial.get_attribute("aria-valuetext")) > 1.5
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = Axe().run(page, context="main").response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        photograph(page, f"dial_{width}", tmp_path)
    assert seen == []


def test_two_views_do_not_show_each_others_answers():
    seen = []
    with browser_page(seen) as page:
        page.set_content('<div id="a"></div><div id="b"></div>')
        page.evaluate(TWO_VIEWS, [MODULE, load_results("dial")])
        for view in ("#a", "#b"):
            page.locator(view).get_by_role("button", name="Ask", exact=True).click()
        page.evaluate("() => { tell(0, 'meant for a'); tell(1, 'meant for b'); }")
        for view, own, other in (("#a", "for a", "for b"), ("#b", "for b", "for a")):
            assert own in page.locator(view).inner_text()
            assert other not in page.locator(view).inner_text()
        assert seen == []


def test_it_answers_a_question_of_ones_own(tmp_path):
    home, seen = tmp_path / "home", []
    home.mkdir()
    write_notebook(copy_of_the_course(home / "course") / "notebooks" / "dial.ipynb", [MAKE, "print(dial.answering)"])
    with make_lab(home) as address, browser_page(seen, 1280, 720) as page:
        open_notebook(page, f"{address}&reset", "dial.ipynb")
        output = run_cell(page, "import Dial")
        assert errors(page) == []
        said, answer = output.get_by_role("status"), output.locator(".answer")
        scaling = output.get_by_label("scaling of the adapters")
        scaling.focus()
        page.keyboard.press("ArrowLeft")  # JupyterLab leaves it to the slider
        assert scaling.get_attribute("aria-valuetext") == "0.9"
        question = output.get_by_label("your own question")
        output.get_by_role("button", name="Ask").click()
        until(lambda: "type a question first" in said.inner_text())
        question.fill("why not")
        question.press("Enter")
        until(lambda: len(answer.inner_text().split()) > 3)
        output.get_by_role("button", name="Stop").click()
        until(lambda: "With scaling 0.9: stopped." in said.inner_text())
        words = len(answer.inner_text().split())
        assert words < 3000
        scaling.focus()
        page.keyboard.press("ArrowLeft")  # another position: asked again
        until(lambda: re.search(r"With scaling 0.8 …", said.inner_text()))
        output.get_by_role("button", name="Stop").click()
        until(lambda: "With scaling 0.8: stopped." in said.inner_text())
        question.fill("why not " * 3000)  # read in pieces: it can be stopped before the first token
        question.press("Enter")
        until(lambda: output.get_by_role("button", name="Stop").is_enabled())
        output.get_by_role("button", name="Stop").click()
        until(lambda: "With scaling 0.8: stopped." in said.inner_text())
        assert answer.inner_text() == ""
        for theme in themes(page):
            photograph(page, f"dial_lab_{theme.lower()}", tmp_path)
        output.get_by_role("button", name="How do I").first.click()
        until(lambda: "of 33 answers have the form" in said.inner_text())
    assert seen == []
