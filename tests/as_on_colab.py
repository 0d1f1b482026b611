"""Do lessons run where Colab's versions are? `.venv/bin/python tests/as_on_colab.py 00 01 02 03 06` (needs uv).

Makes the environment .colab anew, of Python 3.12 with the versions below and without JupyterLab, installs the wheel and
what the course asks for beside it, executes the solved editions there in an empty folder, and prints a row for each
lesson: seconds and errors. Colab's own front end is not in it. docs/anywhere.md has what came of it. The variable
PYTHON names a Python 3.12 that uv does not find.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import anywhere  # noqa: E402
import build  # noqa: E402

KERNEL = ["ipython==7.34.0", "ipykernel==6.17.1", "ipywidgets==7.7.1", "notebook==6.5.7"]
PYTHON = ROOT / ".colab" / ("Scripts" if os.name == "nt" else "bin") / "python"


def make() -> None:
    """The environment: what the place has, what the installing cell would install, and the course."""
    uv = os.environ.get("UV") or "uv"
    there = sorted(anywhere.THERE - {"jupyterlab", "ipykernel", "ipywidgets"})
    needs = [need for need in anywhere.project()["dependencies"] if not anywhere.there(need)]
    install = [uv, "pip", "install", "--quiet", "--python", str(PYTHON)]
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", os.environ.get("PYTHON", "3.12"), ".colab"],
            [*install, "--no-sources", *KERNEL, *there, *needs],
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        ):
            subprocess.run(command, cwd=ROOT, check=True)
        subprocess.run([*install, "--no-deps", *map(str, Path(folder).glob("*.whl"))], check=True)


def execute(source: Path) -> tuple[float, list[str]]:
    """The seconds that the solved edition takes there, and its errors, each with the number of its cell."""
    notebook = build.build(source, "solution")
    kernel = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=None, allow_errors=True, resources={"metadata": {"path": folder}})
        client.create_kernel_manager()
        client.km.kernel_spec.argv = kernel
        begin = time.perf_counter()
        client.execute()
    cells = [(number, cell) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    outputs = [(number, output) for number, cell in cells for output in cell.outputs if output.output_type == "error"]
    return time.perf_counter() - begin, [f"cell {number}: {one.ename}: {one.evalue}" for number, one in outputs]


if __name__ == "__main__":
    make()
    for lesson in build.sources(sys.argv[1:] or None):
        seconds, errors = execute(lesson)
        print(f"| {lesson.stem[:2]} | {seconds:.0f} | {'; '.join(errors) or 'none'} |", flush=True)
