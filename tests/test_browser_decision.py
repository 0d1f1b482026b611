"""Which method when, by keyboard: on a page without a kernel, in JupyterLab, and opened again.

Screenshots go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import base64

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

from adapters_lesson.course.decision import BRANCHES, which_method

pytestmark = NEEDED
MODULE = base64.b64encode(BRANCHES.with_suffix(".js").read_bytes()).decode()
PAGE = "<!doctype html><html lang='en' data-theme='{}'><title>which</title><body style='margin: 0'><main></main>"
COLOURS = "--jp-content-font-color1: #eee; --jp-layout-color0: #111; --jp-layout-color2: #333"
MOUNT = """async ([code, tree]) => {
    const { mount } = await import("data:text/javascript;base64," + code);
    mount(document.querySelector("main"), tree);
}"""
FOCUSED = "document.activeElement.closest('.which') && document.activeElement.textContent"


def photograph(page, name, folder):
    page.screenshot(path=screenshot_folder(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize(("theme", "width", "height"), [("light", 1280, 720), ("dark", 390, 844)])
def test_every_answer_leads_on_by_keyboard_and_shows_its_support(tmp_path, theme, width, height):
    tree, seen, reached = which_method(), [], set()
    questions = {question["key"]: question for question in tree["questions"]}
    with browser_page(seen, width, height) as page:
        page.set_content(PAGE.format(theme))
        if theme == "dark":
            page.add_style_tag(content=f"body {{ background: #111; {COLOURS} }}")
        page.evaluate(MOUNT, [MODULE, tree])
        said, way = page.get_by_role("status"), page.get_by_role("list", name="your answers")

        def follow(key, steps):
            """Give all answers to this question, one after the other, with what comes after each."""
            question = questions[key]
            group = page.get_by_role("group", name=question["ask"])
            for answer in question["answers"]:
                assert group.get_by_role("button").all_inner_texts() == [one["say"] for one in question["answers"]]
                assert f"Question {steps + 1}, of 6 at most: {question['ask']}" in said.text_content()
                while page.evaluate(FOCUSED) != answer["say"]:
                    page.keyboard.press("Tab")
                page.keyboard.press(("Enter", "Space")[steps % 2])
                for reason in answer["because"]:
                    assert reason["text"] in way.inner_text() and reason["from"] in way.inner_text()
                if answer["to"] in questions:
                    follow(answer["to"], steps + 1)
                else:
                    method = tree["methods"][answer["to"]]
                    assert said.text_content() == f"After {steps + 1} answers: {method['name']}. {method['do']}"
                    assert method["do"] in page.locator(".method").inner_text()
                    assert page.evaluate(FOCUSED) == "Start again"
                    if answer["to"] not in reached:
                        photograph(page, f"decision_{answer['to']}_{theme}", tmp_path)
                    reached.add(answer["to"])
                page.get_by_role("button", name=f"Change the answer to: {question['ask']}").press("Enter")
                assert way.get_by_role("listitem").filter(has_text="Change").count() == steps

        follow(tree["questions"][0]["key"], 0)
        assert reached == tree["methods"].keys()
        photograph(page, f"decision_start_{theme}", tmp_path)
        page.get_by_role("button", name="Yes").click()
        page.get_by_role("button", name="About ten").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = Axe().run(page, context="main").response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
        page.keyboard.press("Enter")  # Start again
        assert page.evaluate(FOCUSED) == tree["questions"][0]["answers"][0]["say"]
        assert way.inner_text() == ""
    assert seen == []


def test_in_jupyterlab_and_opened_again(tmp_path):
    home, seen = tmp_path / "home", []
    home.mkdir()
    path = copy_of_the_course(home / "course") / "notebooks" / "which.ipynb"
    write_notebook(path, ["from adapters_lesson.course.decision import WhichMethod\n\nWhichMethod()", "1 + 1"])
    with make_lab(home) as address, browser_page(seen, 1280, 900) as page:
        open_notebook(page, f"{address}&reset", path.name)
        output = run_cell(page, "WhichMethod()")
        yes = output.get_by_role("button", name="Yes")
        yes.focus()
        for key in ("Enter", "Tab", "Space"):  # JupyterLab leaves them to the buttons
            page.keyboard.press(key)
        until(lambda: "Question 3, of 6 at most" in output.get_by_role("status").text_content())
        assert page.evaluate(FOCUSED).startswith("The weights")
        assert page.evaluate(f"{CURRENT_NOTEBOOK}.content.mode") == "command"
        for theme in themes(page):
            page.wait_for_timeout(500)
            photograph(page, f"decision_lab_{theme.lower()}", tmp_path)
        assert errors(page) == []
        command(page, "docmanager:save")
        page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
        command(page, "application:close")
        open_notebook(page, f"{address}&reset", path.name)
        output = page.locator(f"{VISIBLE} .jp-CodeCell", has_text="WhichMethod()").locator(".jp-OutputArea-output").last
        ask = which_method()["questions"][0]["ask"]
        until(lambda: output.get_by_text(ask).count())
        page.wait_for_timeout(500)
        photograph(page, "decision_lab_again", tmp_path)
        assert page.locator("text=model not found").count() == 0
    assert seen == []
