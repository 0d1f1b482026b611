"""The playground by keyboard and pointer: on a page without a kernel, in JupyterLab, and opened again.

Screenshots go to the folder that ADAPTERS_LESSON_SCREENSHOTS names, otherwise to pytest's own.
"""

import functools
import http.server
import math
import re
import subprocess
import sys
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
    until,
    write_notebook,
)

import adapters_lesson.course.playground as package

pytestmark = NEEDED
ROOT = Path(__file__).parents[1]
MODULE = Path(package.__file__).with_name("playground.js")
DEFAULT = "m4-gelu-zero-lr0.03-res1-spirals-s0"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>playground</title><link rel="icon" href="data:,"><style>body { margin: 0 }</style><body><main id="it"></main>
<script type="module">import playground from "./playground.js";
playground.mount(document.getElementById("it"), decodeURIComponent(location.hash.slice(1)) || undefined);</script>"""


class Shown:
    """The playground on a page."""

    def __init__(self, page, root):
        self.page, self.root = page, root

    @property
    def step(self):
        return int(re.search(r"step (\d+)", self.root.inner_text())[1])

    @property
    def loss(self):
        return re.search(r"learns from:\s+([\d.]+)", self.root.inner_text())[1]

    @property
    def state(self):
        return self.root.locator(".state").input_value()

    @property
    def said(self):
        return self.root.locator("[role=status]").text_content()

    @property
    def error(self):
        return self.root.locator("[role=alert]").inner_text()

    @property
    def border(self):
        return self.root.locator(".plane svg > path").nth(1).get_attribute("d")

    def button(self, name):
        return self.root.get_by_role("button", name=re.compile(f"^{name}"))

    def slider(self, name):
        return self.root.get_by_role("slider", name=name)

    def paste(self, text):
        self.root.locator(".state").fill(text)
        self.root.locator(".state").press("Enter")

    def photograph(self, name, folder):
        self.page.screenshot(path=screenshot_folder(folder) / f"{name}.png")


# Without a kernel: these come first, for one process can drive one browser at a time.


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baked")
    (folder / "playground.js").write_text(MODULE.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()


def opened(page, address, state=""):
    page.goto("about:blank")
    page.goto(f"{address}#{state}")
    shown = Shown(page, page.locator("#it"))
    shown.button("Play").wait_for()
    return shown


@pytest.mark.parametrize(("theme", "width", "height"), [("light", 1280, 720), ("dark", 390, 844)])
def test_it_learns_and_shows_it(address, tmp_path, theme, width, height):
    seen = []
    with browser_page(seen, width, height) as page:
        page.emulate_media(color_scheme=theme)
        shown = opened(page, address)
        before = shown.border
        assert shown.step == 0 and "38\u00a0% of 400 unseen points are right" in shown.said
        shown.button("Play").click()
        until(lambda: shown.step >= 60)
        shown.button("Pause").click()
        at = shown.step
        right = int(re.search(r"(\d+)\u00a0% of 400", shown.said)[1])
        assert right > 80 and shown.border != before and f"Step {at}:" in shown.said
        page.wait_for_timeout(200)
        assert shown.step == at
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown.photograph(f"playground_{theme}_{width}", tmp_path)
        found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
        ink = page.evaluate("getComputedStyle(document.querySelector('.plg')).getPropertyValue('--ink')")
        assert ink.strip() == {"light": "#0072b2", "dark": "#56b4e9"}[theme]
    assert seen == []


def test_all_by_keyboard(address):
    seen = []
    with browser_page(seen, 1280, 720) as page:
        shown = opened(page, address)
        reached = []
        for _ in range(24):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        names = ["Play: train", "Step: train one step", "spirals", "ReLU", "bottleneck m", "learning rate", "std 1"]
        assert [
            name for name in [*names, "residual", "scaling s", "seed", "Copy the state"] if name not in reached
        ] == []
        shown.slider("bottleneck m").focus()
        for key, value in (("ArrowRight", "5"), ("End", "8"), ("ArrowUp", "8"), ("Home", "1"), ("ArrowLeft", "1")):
            page.keyboard.press(key)
            assert shown.slider("bottleneck m").get_attribute("aria-valuetext") == value
        shown.button("Step").focus()
        for _ in range(3):
            page.keyboard.press("Enter")
        assert shown.step == 3
        shown.root.get_by_role("checkbox", name="residual").focus()
        page.keyboard.press("Space")
        assert shown.state == "m1-gelu-zero-lr0.03-res0-spirals-s0"
        assert shown.step == 0
    assert seen == []


def test_bursts_of_clicks_end_where_they_should(address):
    seen = []
    with browser_page(seen, 1280, 720) as page:
        shown = opened(page, address)
        for _ in range(7):
            shown.root.locator(".play").click(delay=0)
        page.evaluate("""() => { const buttons = [...document.querySelectorAll(".plg .choice button")];
            for (let i = 0; i < 60; i++) buttons[i % buttons.length].click(); }""")
        until(lambda: shown.step >= 2)  # seven clicks: it plays, and plays on through new runs
        shown.button("Reset").click()
        assert shown.step == 0 and shown.button("Play").count() == 1
        for _ in range(20):
            shown.button("Step").click(delay=0)
        assert shown.step == 20
        assert shown.root.locator("[aria-pressed=true]").count() == 3
    assert seen == []


def test_scaling_acts_at_once_and_zero_is_the_base(address):
    with browser_page([], 1280, 720) as page:
        shown = opened(page, address)
        base, loss = shown.border, shown.loss
        for _ in range(10):
            shown.button("Step").click()
        learnt = shown.border
        shown.slider("scaling s").focus()
        page.keyboard.press("Home")
        assert shown.step == 10 and shown.border == base != learnt
        assert shown.loss == loss
        assert shown.state == "m4-gelu-zero-lr0.03-res1-x0-spirals-s0"


def test_a_state_is_pasted_and_a_bad_one_changes_nothing(address):
    seen = []
    with browser_page(seen, 1280, 720) as page:
        shown = opened(page, address)
        shown.paste("m2-relu-std1-lr0.1-res0-x2-circles-s3-hide.rate.seed")
        assert shown.slider("bottleneck m").get_attribute("aria-valuetext") == "2"
        assert not shown.slider("seed").is_visible() and not shown.slider("learning rate").is_visible()
        shown.button("Step").click()
        border = shown.border
        shown.paste("m2-relu-std7-lr0.1-res0-circles-s3")
        taken, field = "m2-relu-std1-lr0.1-res0-x2-circles-s3-hide.rate.seed", shown.root.locator(".state")
        still = f"The run is still {taken}; Escape brings that back."
        assert shown.error == f"“std7” is no start: expected one of zero, std0.01, std1. {still}"
        assert shown.step == 1 and shown.border == border
        assert shown.state == "m2-relu-std7-lr0.1-res0-circles-s3" and field.get_attribute("aria-invalid") == "true"
        field.press("Escape")
        assert (shown.state, shown.error, field.get_attribute("aria-invalid")) == (taken, "", None)
        shown.paste("m2-relu-std7-lr0.1-res0-circles-s3")
        shown.button("Step").click()  # what is done next says that the string was not taken, too
        assert "The run is still" in shown.error and shown.step == 2
        shown.paste("m2-relu-std1-lr0.1-res0-x2-circles-s3")
        assert shown.error == "" and shown.slider("seed").is_visible() and shown.step == 0
        shown = opened(page, address, "nonsense")
        assert "“nonsense” is no bottleneck m" in shown.error and shown.state == DEFAULT
    assert seen == []


def test_a_loss_above_ten_has_its_place_on_the_axis(address):
    with browser_page([], 1280, 720) as page:
        for state, top in ((DEFAULT, "10"), ("m8-identity-std1-lr1-res1-x4-spirals-s2", "100")):
            shown = opened(page, address, state)
            curve = shown.root.locator("svg[aria-label^='Loss against']")
            assert curve.locator("text").first.text_content() == "0.001"
            labels = [text for text in curve.locator("text").all_text_contents() if re.fullmatch(r"[\d.]+", text)]
            assert max(labels, key=float) == top
            at, highest = float(curve.locator("circle").get_attribute("cy")), 8
            assert at > highest + 1  # below the upper edge: 71.6 lies between 10 and 100
        losses = float(shown.loss)
        assert 71 < losses < 73
        assert at == pytest.approx(84 - 76 * (math.log10(losses) + 3) / 5, abs=0.2)


def test_who_wants_little_motion_sees_little(address):
    with browser_page([], 1280, 720) as page:
        page.emulate_media(reduced_motion="reduce")
        shown = opened(page, address)
        page.evaluate("""() => { window.pictures = 0;
            new MutationObserver(() => { window.pictures += 1; }).observe(
                document.querySelectorAll(".plane svg > path")[1], {attributes: true}); }""")
        shown.button("Play").click()
        until(lambda: shown.step >= 60)
        shown.button("Pause").click()
        assert page.evaluate("window.pictures") <= 2 + shown.step / 25


# --- On the site, which is opened from a disk ------------------------------------------------------------------------


def test_the_front_page_plays_and_has_a_picture_without_scripts(tmp_path):
    build = [sys.executable, ROOT / "docs" / "build.py", tmp_path / "site"]
    answer = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    index, seen = (tmp_path / "site" / "index.html").as_uri(), []
    with browser_page(seen, 390, 844) as page:
        page.emulate_media(color_scheme="dark")
        page.goto(index)
        shown = Shown(page, page.locator("#playground"))
        shown.button("Play").click()
        until(lambda: shown.step >= 10)
        shown.button("Pause").click()
        assert page.locator("#playground > img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown.root.scroll_into_view_if_needed()
        shown.photograph("playground_site_390", tmp_path)
        still = page.context.browser.new_context(java_script_enabled=False).new_page()
        still.goto(index)
        picture = still.get_by_role("img", name=re.compile("^Playground"))
        assert picture.evaluate("image => image.complete && image.naturalWidth > 500")
    assert seen == []


# --- In JupyterLab ---------------------------------------------------------------------------------------------------

MAKE = """from adapters_lesson.course.playground import Playground
playground = Playground()
playground"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    path = copy_of_the_course(home / "course") / "notebooks" / "playground.ipynb"
    write_notebook(
        path,
        [
            MAKE,
            "print(playground.state)",
            'playground.state = "m1-tanh-zero-lr0.1-res1-moons-s2"',
            "playground.state = 'nonsense'",
        ],
    )
    with make_lab(home) as address:
        yield address


def test_in_jupyterlab_with_a_kernel_and_without(course, tmp_path):
    seen = []
    with browser_page(seen, 1280, 720) as page:
        open_notebook(page, f"{course}&reset", "playground.ipynb")
        shown = Shown(page, run_cell(page, "import Playground"))
        shown.button("Play").wait_for()
        shown.slider("bottleneck m").focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
        assert shown.slider("bottleneck m").get_attribute("aria-valuetext") == "5"
        shown.button("Step").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Space")
        until(lambda: shown.step == 2)
        shown.photograph("playground_lab_light", tmp_path)
        output = run_cell(page, "print(playground.state)")
        until(lambda: output.inner_text().strip() == "m5-gelu-zero-lr0.03-res1-spirals-s0")
        run_cell(page, 'playground.state = "')
        until(lambda: shown.state == "m1-tanh-zero-lr0.1-res1-moons-s2")
        run_cell(page, "playground.state = 'nonsense'")
        until(lambda: "The run is still m1-tanh-zero-lr0.1-res1-moons-s2" in shown.error)
        taken = "m1-tanh-zero-lr0.1-res1-moons-s2"  # which the kernel is told
        until(lambda: run_cell(page, "print(playground.state)").inner_text().strip() == taken)
        shown.root.locator(".state").press("Escape")
        assert shown.error == "" and shown.state == taken
        command(page, "apputils:change-theme", {"theme": "JupyterLab Dark"})
        until(
            lambda: (
                "#56b4e9" in shown.root.locator(".plg").evaluate("e => getComputedStyle(e).getPropertyValue('--ink')")
            )
        )
        shown.button("Play").click()
        until(lambda: shown.step >= 20)
        shown.photograph("playground_lab_dark", tmp_path)
        assert errors(page) == []
        command(page, "apputils:change-theme", {"theme": "JupyterLab Light"})
        command(page, "docmanager:save")
        page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.shutdown()")
        command(page, "application:close")
        open_notebook(page, f"{course}&reset", "playground.ipynb")
        cell = page.locator(f"{VISIBLE} .jp-CodeCell", has_text="import Playground").last
        output = cell.locator(".jp-OutputArea-output").last
        until(lambda: output.get_by_text("Run this cell to move it.").count() or output.locator(".plg .play").count())
        assert cell.locator("text=model not found").count() == 0
        if output.locator(".plg .play").count():  # saved with its state, it needs no kernel
            shown = Shown(page, output)
            shown.button("Step").click()
            until(lambda: shown.step == 1)
    assert seen == []
