"""Lessons on somebody else's machine: links to Colab, Kaggle, Binder and Codespaces, and a cell that installs.

One setting turns both on, ``repository`` in [tool.adapters-lesson] of pyproject.toml: the address on GitHub. While it
is empty, no notebook has either. After a change `make notebooks` puts them in, and every lesson keeps its outputs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BINDER_MB = 1850  # of its 2 GB (2147 MB), what JupyterLab and a little air leave to a lesson
# What such a place has. Another version of it could not be loaded into the kernel that runs already.
THERE = {"torch", "numpy", "scipy", "scikit-learn", "matplotlib", "jupyterlab", "ipykernel", "ipywidgets"}
INSTALL = """# Installs the course on a machine that lacks it, such as Colab's or Kaggle's; else it does nothing.
import subprocess
import sys
from importlib.util import find_spec

if find_spec("adapters_lesson") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", {course!r}], check=True)
    subprocess.run([*pip, *{needs}], check=True)"""


def project() -> dict[str, Any]:
    """What pyproject.toml says of the project, its ``repository``, and the ``index`` of torch for the processor."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    repository, index = said["tool"]["adapters-lesson"]["repository"].rstrip("/"), said["tool"]["uv"]["index"][0]["url"]
    return {**said["project"], "repository": repository, "index": index}


def places(notebook: str) -> dict[str, str]:
    """Where a notebook opens in a browser, place to address; it is named by its path in the repository.

    Binder only where the lesson's memory, as classroom/hub/load_test.py measured it, leaves room.
    """
    about = project()
    if not (repository := about["repository"]):
        return {}
    path, tag = repository.partition("github.com/")[2], f"v{about['version']}"
    found = {
        "Colab": f"https://colab.research.google.com/github/{path}/blob/{tag}/{notebook}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={repository}/blob/{tag}/{notebook}",
        "Binder": f"https://mybinder.org/v2/gh/{path}/{tag}?labpath={notebook}",
        "Codespaces": f"https://codespaces.new/{path}",
    }
    if not fits_binder(Path(notebook).stem):
        del found["Binder"]
    return found


def there(need: str) -> bool:
    """Whether a requirement is left to the place."""
    return Requirement(need).name in THERE


def fits_binder(lesson: str) -> bool:
    """Whether a lesson was measured, and needs no more memory than Binder has for it."""
    measured = json.loads((ROOT / "data" / "results" / "hub_lessons.json").read_text(encoding="utf-8"))["lessons"]
    return lesson in measured and measured[lesson]["kernel_peak_mb"] <= BINDER_MB


def opening(notebook: str) -> list[NotebookNode]:
    """The cells below a lesson's title: where it opens in a browser, and the folded cell that installs the course."""
    if not (found := places(notebook)):
        return []
    about, number = project(), Path(notebook).stem[:2]
    needs = [need for need in about["dependencies"] if not there(need)]
    archive = f"{about['repository']}/archive/refs/tags/v{about['version']}.zip"
    links = " · ".join(f"[{place}]({address})" for place, address in found.items())
    cells = [
        nbformat.v4.new_markdown_cell(f"Open this lesson in {links}.", id=f"{number}-open"),
        nbformat.v4.new_code_cell(INSTALL.format(course=archive, needs=json.dumps(needs)), id=f"{number}-install"),
    ]
    cells[0].metadata["tags"] = ["remove-cell"]  # on the site, which has links of its own
    cells[1].metadata.update(tags=["remove-cell"], jupyter={"source_hidden": True})
    return cells


def installs(cell: NotebookNode) -> bool:
    """Whether a cell is the one that installs the course: it prints nothing, and need not have run."""
    return str(cell.get("id", "")).endswith("-install")
