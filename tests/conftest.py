"""The surroundings of all tests: offline, quiet, and the same under `make test` as under pytest alone."""

import os
import runpy
from collections import Counter
from pathlib import Path

import pytest

OFFLINE = Path(__file__).parent / "offline"

# Here rather than in a fixture: libraries read these when they are imported.
os.environ.update(
    ADAPTERS_LESSON_PROGRESS="",  # what the tests solve is nobody's progress
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="agg",
    TOKENIZERS_PARALLELISM="false",
    TQDM_DISABLE="1",
)
# Child processes, such as kernels, cut the network when they start; this process does it now. It is run by its path,
# because Python may have imported another sitecustomize already.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))
runpy.run_path(str(OFFLINE / "sitecustomize.py"))

# A make that a test calls must not inherit the flags and arguments of the `make test` around it.
for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS", "LESSON", "N", "NAME", "PYTHON", "SOLUTIONS"):
    os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With several workers one runs all tests of a file, and one all that drive a browser: those measure time.

    A lesson that is executed is a piece of work of its own. The longest pieces come first, so that no worker waits at
    the end: the browser, then the lessons from the last to the first.
    The tests of the hub keep their order: they share one hub, and a learner in a browser comes last.
    """

    def drives_a_browser(item):
        return item.get_closest_marker("browser") and item.path.name != "test_hub.py"

    def place(item):
        if drives_a_browser(item):
            return 0, 0
        executes_a_lesson = item.path.name == "test_notebooks.py" and item.get_closest_marker("notebook")
        return (1, -index[item]) if executes_a_lesson else (2, index[item])

    index = {item: i for i, item in enumerate(items)}
    items.sort(key=place)
    for item in items:
        alone = item.path.name == "test_notebooks.py" and item.get_closest_marker("notebook")
        group = item.nodeid if alone else item.path.name
        item.add_marker(pytest.mark.xdist_group("browser" if drives_a_browser(item) else group))


@pytest.fixture(autouse=True)
def no_earlier_mistakes(monkeypatch):
    """Every test starts as a learner who has made no mistake: the third of a kind is answered with more help."""
    monkeypatch.setattr("adapters_lesson.course.checks.check._made", Counter())
