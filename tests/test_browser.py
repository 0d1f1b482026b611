"""A learner's first minutes in a real browser: `make lab`, lesson 00, lesson 01, Run All.

The lessons are copies, so that nothing that Lab saves can change the committed notebooks.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sudo apt install chromium, or install Google Chrome"),
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]
CURRENT_NOTEBOOK = "window.jupyterapp.shell.currentWidget"


def copy_of_the_course(folder):
    """What `make lab` needs, with the environment that these tests run in."""
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(home):
    """A learner's, with nothing in it from earlier use; the network stays cut (see conftest.py)."""
    ours = {"MPLBACKEND", "TQDM_DISABLE"}
    return {
        **{name: value for name, value in os.environ.items() if name not in ours and not name.startswith("JUPYTER")},
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }


def end(process):
    """End the whole process group: Lab shuts its kernels down when asked politely."""
    for wait, how in ((30, signal.SIGTERM), (5, signal.SIGKILL)):
        with suppress(ProcessLookupError):  # that is what we want
            os.killpg(process.pid, how)
            until = time.monotonic() + wait
            while time.monotonic() < until:
                process.poll()  # or it would stay as a zombie, and the group with it
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def address(tmp_path):
    """The address that `make lab` prints."""
    course = copy_of_the_course(tmp_path / "course")
    arguments = f"--no-browser --port {free_port()} --LabApp.expose_app_in_browser=True"
    log = tmp_path / "lab.log"
    with log.open("w") as output:
        # -o: the packages are here, so it must not install anything
        process = subprocess.Popen(
            ["make", "-o", ".venv/.lab", "lab", f"ARGS={arguments}"],
            cwd=course,
            env=environment(tmp_path),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            found = re.search(r"http://127\.0\.0\.1:\d+/\S+", log.read_text())
            if found or process.poll() is not None:
                break
            time.sleep(0.1)
        assert found, f"make lab printed no address:\n{log.read_text()}"
        yield found[0]
    finally:
        end(process)


@contextmanager
def browser_page(seen):
    """A page of a fresh browser that notes in ``seen`` what should not happen."""
    from playwright.sync_api import sync_playwright

    def note_foreign(kind, url):
        if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1":
            seen.append(f"{kind} to {url}")

    options = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--no-sandbox")  # chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.on("request", lambda request: note_foreign("request", request.url))
        page.on("websocket", lambda websocket: note_foreign("websocket", websocket.url))
        page.on("pageerror", lambda error: seen.append(f"error on the page: {error}"))
        yield page
        browser.close()


def wait_for_notebook(page, name):
    """Wait until the notebook is open and its kernel is ready."""
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(
        f"""name => {CURRENT_NOTEBOOK}?.context?.path === name
            && {CURRENT_NOTEBOOK}.sessionContext?.session?.kernel?.status === 'idle'""",
        arg=name,
        timeout=60_000,
    )


def command(page, name, timeout=120):
    """Run one of Lab's commands, as its menu does, and wait until it has finished."""
    page.evaluate(
        "name => { window.done = false; window.jupyterapp.commands.execute(name).then(() => { window.done = true }) }",
        name,
    )
    page.wait_for_function("() => window.done", timeout=timeout * 1000)


def code_cells(page):
    """The code cells of the open notebook, as they would be saved."""
    cells = page.evaluate(f"() => {CURRENT_NOTEBOOK}.content.model.toJSON().cells")
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_all(page):
    """Run All on a notebook without outputs, so that what is seen afterwards is new."""
    command(page, "notebook:clear-all-cell-outputs")
    assert not any(cell["outputs"] for cell in code_cells(page))
    command(page, "notebook:run-all-cells")


def test_lesson_01_runs_in_a_browser(address, tmp_path):
    committed = {path: path.read_bytes() for path in (ROOT / "notebooks").rglob("*.ipynb")}
    seen = []
    with browser_page(seen) as page:
        page.goto(address)
        wait_for_notebook(page, "00_start_here.ipynb")
        assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0, "a pop-up greets the learner"

        page.goto(address.replace("00_start_here", "01_the_bottleneck"))
        wait_for_notebook(page, "01_the_bottleneck.ipynb")
        run_all(page)
        page.screenshot(path=tmp_path / "lesson01.png")

        cells = [cell for cell in code_cells(page) if "".join(cell["source"]).strip()]
        assert cells
        assert all(cell["execution_count"] for cell in cells)
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []
        assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0

        figure = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedImage img").first  # not lesson 00's
        figure.scroll_into_view_if_needed()
        assert figure.is_visible()
        assert figure.evaluate("image => image.complete && image.naturalWidth > 0")
        page.screenshot(path=tmp_path / "figure.png")
        assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0
    assert seen == []
    assert {path: path.read_bytes() for path in committed} == committed
