"""Build both editions of every lesson from its source: `python notebooks/build.py [01 …]`, or with `--check` compare.

With `--no-solutions`, copy the learner editions to dist/notebooks, executed as they are, without their solutions.

A source in notebooks/sources is a Python file in jupytext's percent format. Code between `### BEGIN SOLUTION` and
`### END SOLUTION` (nbgrader's markers) is left out of the learner edition and put, collapsed, into a cell below. What
stands between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` is for grading: no edition has it.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
EDITIONS = {"learner": HERE, "solution": HERE / "solutions"}
WITHOUT_SOLUTIONS = HERE.parent / "dist" / "notebooks"
README_PICTURE = HERE / "figures" / "course.png"  # the first figure of lesson 03
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION\n?", re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(r"\n*^ *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
FOLDED = "<details>\n<summary><b>Solution</b></summary>\n\n"
OF_SOLUTIONS = {  # what the lessons say of them, and what they say where there are none
    r"Hints\s+and\s+the\s+solution\s+are\s+folded": "Hints are folded",
    r"(\n- | )The\s+finished\s+notebooks\b[^`]*`solutions`\.": "",
}
NOISE = re.compile(r"Warning|\d\d:\d\d<|/home/|/Users/|/tmp/|site-packages|\\\\Users")
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_KEYS = {"id", "cell_type", "source", "metadata"}


def lessons() -> list[str]:
    """The lessons that have a source, in order."""
    return sorted(path.stem for path in SOURCES.glob("[0-9]*.py"))


def build(lesson: str, edition: str) -> NotebookNode:
    """The notebook of one edition, not executed."""
    source = jupytext.read(SOURCES / f"{lesson}.py")
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    cells = [cell for original in source.cells for cell in _edit(original, edition)]
    for number, cell in enumerate(cells):
        cell.id = f"{lesson[:2]}-{number:03d}"  # stable, so that a rebuilt notebook differs only where its text does
    notebook.cells = cells
    return notebook


def _edit(original: NotebookNode, edition: str) -> list[NotebookNode]:
    if original.cell_type == "markdown":
        return [nbformat.v4.new_markdown_cell(original.source)]
    text = HIDDEN.sub("\n", original.source + "\n")
    solutions = [_dedent(match[2], len(match[1])) for match in SOLUTION.finditer(text)]
    if not solutions:
        return [nbformat.v4.new_code_cell(text.strip("\n"))]
    if edition == "solution":
        return [nbformat.v4.new_code_cell(SOLUTION.sub(lambda m: m[2], text).strip("\n"))]
    stub = SOLUTION.sub(r"\1# your code here\n\1raise NotImplementedError\n", text).strip("\n")
    answer = "\n\n".join(f"```python\n{solution.rstrip()}\n```" for solution in solutions)
    details = f"{FOLDED}{answer}\n\n</details>"
    return [nbformat.v4.new_code_cell(stub), nbformat.v4.new_markdown_cell(details)]


def _dedent(text: str, width: int) -> str:
    return "".join(line[width:] if line.strip() else line for line in text.splitlines(keepends=True))


def without_solutions(lesson: str) -> NotebookNode:
    """The committed learner edition, with its outputs and hints, but without the folded solutions."""
    notebook = nbformat.read(EDITIONS["learner"] / f"{lesson}.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(FOLDED)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for said, instead in OF_SOLUTIONS.items():
                cell.source = re.sub(said, instead, cell.source)
    return notebook


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run all cells in a fresh kernel and keep what can be read without running: no widget state, no timings."""
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # it would warn about loopback connections
        resources={"metadata": {"path": str(HERE)}},
    )
    # A progress bar is a widget, and a saved one is broken. What the author has solved is not the learner's progress.
    ours = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ours["ADAPTERS_LESSON_PROGRESS"] = ""
    with tempfile.TemporaryDirectory() as runs:  # of the laboratory, which would find earlier ones in its usual place
        client.execute(env={**os.environ, **ours, "ADAPTERS_LESSON_RUNS": runs})
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(
                WIDGET, None
            )  # without a kernel it could not be shown: the picture beside it can
    return notebook


def complaints(notebook: NotebookNode) -> list[str]:
    """What an executed notebook should not contain: errors, warnings, paths, widget state, cells that did not run."""
    found = ["widget state in its metadata"] if "widgets" in notebook.metadata else []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None:
            found.append(f"cell {cell.id} was not executed")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {cell.id} raises {output.ename}: {output.evalue}")
            text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            if WIDGET in output.get("data", {}):
                found.append(f"cell {cell.id} has a widget that could not be shown")
            if output.get("name") == "stderr" or NOISE.search(text):
                found.append(f"cell {cell.id} is noisy: {text.strip()[:160]}")
    return found


def first_figure(notebook: NotebookNode) -> bytes:
    """The first picture among a notebook's outputs, as PNG."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return next(base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {}))


def differences(lesson: str, edition: str) -> list[str]:
    """How the committed notebook differs from what its source says, outputs aside."""
    path = EDITIONS[edition] / f"{lesson}.ipynb"
    if not path.exists():
        return [f"{path.relative_to(HERE)} is missing"]
    committed, expected = nbformat.read(path, as_version=4), build(lesson, edition)
    pairs = [[{k: v for k, v in cell.items() if k in CELL_KEYS} for cell in nb.cells] for nb in (committed, expected)]
    if pairs[0] != pairs[1] or committed.metadata != expected.metadata:
        return [f"{path.relative_to(HERE)} is out of step with sources/{lesson}.py"]
    return []


def main() -> int:
    """Build or check what the command line asks for; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="lessons by number, for instance 01 03; all by default")
    parser.add_argument("--check", action="store_true", help="change nothing, say what is out of step or noisy")
    parser.add_argument("--no-solutions", action="store_true", help="write dist/notebooks, and execute nothing")
    arguments = parser.parse_args()
    problems = []
    for lesson in [name for name in lessons() if not arguments.numbers or name[:2] in arguments.numbers]:
        if arguments.no_solutions:
            if found := differences(lesson, "learner"):
                problems += found
                continue
            WITHOUT_SOLUTIONS.mkdir(parents=True, exist_ok=True)
            nbformat.write(without_solutions(lesson), WITHOUT_SOLUTIONS / f"{lesson}.ipynb")
            print(f"wrote {WITHOUT_SOLUTIONS.relative_to(HERE.parent) / lesson}.ipynb")
            continue
        for edition, folder in EDITIONS.items():
            path = folder / f"{lesson}.ipynb"
            if arguments.check:
                problems += differences(lesson, edition)
                if path.exists():
                    problems += [
                        f"{path.relative_to(HERE)}: {c}" for c in complaints(nbformat.read(path, as_version=4))
                    ]
                continue
            notebook = execute(build(lesson, edition))
            problems += [f"{path.relative_to(HERE)}: {complaint}" for complaint in complaints(notebook)]
            folder.mkdir(exist_ok=True)
            nbformat.write(notebook, path)
            if lesson.startswith("03") and edition == "solution":
                README_PICTURE.parent.mkdir(exist_ok=True)
                README_PICTURE.write_bytes(first_figure(notebook))
            print(f"built {path.relative_to(HERE)} ({path.stat().st_size // 1024} KB)", flush=True)
    print("\n".join(problems) or ("all notebooks are in step" if arguments.check else "no complaints"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
