"""`make app`: the laboratory as an application of its own, in a real browser."""

import re
import subprocess

import pytest
from browser import NEEDED, browser_page, copy_of_the_course, end, environment, free_port, until

pytestmark = NEEDED


@pytest.fixture
def app(tmp_path):
    """The address of the app, and the folder of its runs."""
    course, port = copy_of_the_course(tmp_path / "course"), free_port()
    log = tmp_path / "app.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["make", "-o", ".venv/.app", "app", f"ARGS=--no-browser --port {port}"],
            cwd=course, env=environment(tmp_path), stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: f":{port}/" in log.read_text() or process.poll() is not None, 60, "the start of the app")
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/", course / "notebooks" / "runs"
    finally:
        end(process)


def test_the_laboratory_runs_as_an_app_and_fetches_nothing(app, tmp_path):
    address, runs = app
    seen = []
    with browser_page(seen, 1280, 720) as page:
        page.goto(address, timeout=60_000)
        image = page.locator(".widget-html-content:visible:has(> svg)")
        image.wait_for(timeout=90_000)
        steps = page.locator(".lesson-slider", has_text="steps").locator("input")
        steps.focus()
        page.keyboard.press("Home")
        before = image.inner_html()
        page.locator("button", has_text=re.compile(r"^\s*Run\s*$")).click()
        page.locator(".widget-checkbox", has_text="#1").wait_for(timeout=120_000)
        page.screenshot(path=tmp_path / "app.png")
        assert image.inner_html() != before
        assert page.locator(".jupyter-widgets-error-widget").count() == 0
    assert [path.name for path in runs.glob("*.json")] == ["run-0001.json"]
    assert seen == []
