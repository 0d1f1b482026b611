"""JupyterLab as `make lab` starts it, in a real browser.

The lessons are copies, so that nothing that Lab saves can change the committed notebooks.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "there is no chromium here: sudo apt install chromium, or install Google Chrome"
NEEDED = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]
CURRENT_NOTEBOOK = "window.jupyterapp.shell.currentWidget"
VISIBLE = ".jp-NotebookPanel:not(.lm-mod-hidden)"  # the notebook in front
POP_UPS = ".jp-Dialog, .Toastify__toast"


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


@contextmanager
def make_lab(home, **variables):
    """The address that `make lab` prints; it serves the course in ``home``/course."""
    course = home / "course"
    arguments = f"--no-browser --port {free_port()} --LabApp.expose_app_in_browser=True"
    log = home / "lab.log"
    with log.open("w") as output:
        # -o: the packages are here, so it must not install anything
        process = subprocess.Popen(
            ["make", "-o", ".venv/.lab", "lab", f"ARGS={arguments}"],
            cwd=course,
            env={**environment(home), **variables},
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


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    """The address of a server of the files in ``folder``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def need_chromium():
    """End a script with one sentence where there is no browser, instead of Playwright's advice to fetch one."""
    if CHROMIUM is None:
        raise SystemExit(NO_CHROMIUM)


@contextmanager
def browser_page(seen, width=1366, height=768):
    """A page of a fresh browser that notes in ``seen`` what should not happen."""
    from playwright.sync_api import sync_playwright

    def note_foreign(kind, url):
        if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1":
            seen.append(f"{kind} to {url}")

    def note_error(message):
        if message.type == "error":
            seen.append(f"error in the console: {message.text} ({message.location})")

    options = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--no-sandbox")  # chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("request", lambda request: note_foreign("request", request.url))
        page.on("websocket", lambda websocket: note_foreign("websocket", websocket.url))
        page.on("pageerror", lambda error: seen.append(f"error on the page: {error}"))
        page.on("console", note_error)
        yield page
        browser.close()


def open_notebook(page, address, name):
    """Open the notebook ``name`` of the course at the ``address`` of `make lab`; wait until its kernel is ready."""
    page.goto(address.replace("00_start_here.ipynb", name))
    wait_for_notebook(page, name)


def wait_for_notebook(page, name):
    """Wait until the notebook ``name`` is in front and its kernel is ready."""
    page.wait_for_selector(f"{VISIBLE} .jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(
        f"""name => {CURRENT_NOTEBOOK}?.context?.path === name
            && {CURRENT_NOTEBOOK}.sessionContext?.session?.kernel?.status === 'idle'""",
        arg=name,
        timeout=60_000,
    )


def begin(page, name, arguments=None):
    """Run one of Lab's commands, as its menu does."""
    page.evaluate(
        """([name, options]) => {
            window.done = false;
            window.jupyterapp.commands.execute(name, options ?? {}).then(() => { window.done = true });
        }""",
        [name, arguments],
    )


def command(page, name, arguments=None, timeout=120):
    """Run one of Lab's commands, and wait until it has finished."""
    begin(page, name, arguments)
    page.wait_for_function("() => window.done", timeout=timeout * 1000)


def code_cells(page):
    """The code cells of the open notebook, as they would be saved."""
    cells = page.evaluate(f"() => {CURRENT_NOTEBOOK}.content.model.toJSON().cells")
    return [cell for cell in cells if cell["cell_type"] == "code"]


def errors(page):
    """What the cells of the open notebook say on stderr, and their exceptions."""
    outputs = [output for cell in code_cells(page) for output in cell["outputs"]]
    raised = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
    return raised + [str(o["text"]) for o in outputs if o.get("name") == "stderr"]


def run_all(page, timeout=300):
    """Run All on a notebook without outputs, so that what is seen afterwards is new; every cell must have run."""
    command(page, "notebook:clear-all-cell-outputs")
    assert not any(cell["outputs"] for cell in code_cells(page))
    command(page, "notebook:run-all-cells", timeout=timeout)
    cells = [cell for cell in code_cells(page) if "".join(cell["source"]).strip()]
    assert cells
    assert not errors(page), errors(page)
    assert all(cell["execution_count"] for cell in cells)
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.locator(POP_UPS).count() == 0


def themes(page):
    """Lab's themes one after the other, shown; it ends in the light one."""
    for theme in ("Dark", "Light"):
        command(page, "apputils:change-theme", {"theme": f"JupyterLab {theme}"})
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        yield theme


def screenshot_folder(otherwise):
    """Where pictures go: to the folder that ADAPTERS_LESSON_SCREENSHOTS names, else to this one. It is there then."""
    folder = Path(os.environ.get("ADAPTERS_LESSON_SCREENSHOTS") or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def until(condition, seconds=30, what="what was waited for"):
    """Wait until ``condition()`` is true, and return its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def write_notebook(path, sources):
    """A notebook with one code cell for each of the ``sources``."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def run_cell(page, source, wait=True, timeout=120):
    """Run the cell that contains ``source``; returns its last output. With ``wait`` it has then ended."""
    page.evaluate(
        f"""source => {{
            const notebook = {CURRENT_NOTEBOOK}.content;
            notebook.activeCellIndex = notebook.widgets.findIndex(
                cell => cell.model.sharedModel.getSource().includes(source));
        }}""",
        source,
    )
    if wait:
        command(page, "notebook:run-cell", timeout=timeout)
    else:
        begin(page, "notebook:run-cell")
    return page.locator(f"{VISIBLE} .jp-CodeCell", has_text=source).locator(".jp-OutputArea-output").last


class Shown:
    """A widget in the browser: what it shows, and where its controls are."""

    def __init__(self, page, output):
        self.page, self.output = page, output
        self.image = output.locator(".widget-html-content:visible:has(> svg)")

    @property
    def picture(self):
        """The figure as text; None while there is none."""
        return self.image.inner_html() if self.image.count() else None

    @property
    def text(self):
        """What is said below the figure."""
        return " ".join(self.output.locator("[role=status]").all_inner_texts())

    def button(self, label):
        return self.output.locator("button:visible", has_text=re.compile(rf"^\s*{label}\s*$"))

    def slider(self, label):
        """The range of a slider; it takes the keys."""
        return self.output.locator(".lesson-slider", has_text=label).locator("input")

    def readout(self, label):
        """What stands beside the slider."""
        return self.output.locator(".lesson-slider", has_text=label).locator("output").inner_text()

    def boxes(self):
        """The boxes of the laboratory's runs."""
        return self.output.locator(".widget-checkbox", has_text="#").locator("input")

    def knobs(self):
        """All sliders, lists and boxes."""
        return self.output.locator("input[type=range], select, input[type=checkbox]").all()

    @property
    def now(self):
        return self.picture, self.text

    def changes(self, before, why=""):
        """Wait until picture or text are others than ``before``; returns both."""
        until(lambda: self.now not in (before, (None, before[1])), what=f"another picture {why}")
        return self.settled()

    def settled(self):
        """Picture and text, as soon as the kernel has nothing left to draw."""
        before, now = None, self.now
        while now != before or now[0] is None:
            for _ in range(3):  # values that are sent, values that were held back meanwhile, and their picture
                self.page.evaluate(f"() => {CURRENT_NOTEBOOK}.sessionContext.session.kernel.requestKernelInfo()")
                time.sleep(0.1)
            before, now = now, self.now
        return now
