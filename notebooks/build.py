"""Build both editions of every lesson from its source: `python notebooks/build.py [01 …]`.

A source in notebooks/sources is a Python file in jupytext's percent format. Code between `### BEGIN SOLUTION` and
`### END SOLUTION` (nbgrader's markers) is left out of the learner edition and put, collapsed, into a cell below. What
stands between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` is for grading: no edition has it. A result that was
to be predicted is folded in the learner edition; the code of a cell that begins with `# %% folded=true` is so in both.

An edition whose code is that of the notebook there, and whose files of runs are those that it was executed with, keeps
its outputs, so that a text costs seconds. What changed in the package cannot be seen from that: `--execute` runs it all
the same. With `--no-solutions`, copy the learner editions to dist/notebooks, executed as they are, without solutions.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import about
import anywhere
import nbformat
import reference
from nbclient import NotebookClient
from nbformat import NotebookNode

from adapters_lesson.course.lesson_source import LANGUAGE, SOLUTION, Cell, read_lesson

HERE = Path(__file__).resolve().parent
EDITIONS = {"learner": ".", "solution": "solutions"}  # and the folder of their notebooks
WITHOUT_SOLUTIONS = HERE.parent / "dist" / "notebooks"
README_PICTURE = HERE / "figures" / "course.svg"  # the first drawing of lesson 03
FOLDED = "<details>\n<summary><b>Solution</b></summary>\n\n"
OF_SOLUTIONS = {  # what the lessons say of them, and what they say where there are none
    r"Hints\s+and\s+the\s+solution\s+are\s+folded": "Hints are folded",
    r"(\n- | )The\s+finished\s+notebooks\b[^`]*`solutions`\.": "",
}
NOISE = re.compile(r"Warning|\d\d:\d\d<|/home/|/Users/|/tmp/|site-packages|\\\\Users")
READS = re.compile(r"load_results\([\"'](\w+)[\"']\)")
COMPARES = re.compile(r"^compare\(", re.MULTILINE)  # a cell with a result that was to be predicted
COLUMNS = re.compile(r"(\S {3,}(?=\S).*){2}")
WIDEST = 112  # characters; JupyterLab breaks a longer line in a window of 1366 px, and columns are lost
COVER = "Commit a prediction, then run this cell or open it.\n"
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_KEYS = {"id", "cell_type", "source", "metadata"}


def sources(numbers: list[str] | None = None) -> list[Path]:
    """The sources of the lessons with these numbers, by default of all, in order.

    Raises:
        ValueError: where no lesson has one of the numbers.
    """
    there = {path.stem[:2]: path for path in sorted((HERE / "sources").glob("[0-9]*.py"))}
    if unknown := [number for number in numbers or () if number not in there]:
        raise ValueError(f"there is no lesson {unknown[0]}; there are the lessons {', '.join(there)}")
    return [there[number] for number in sorted(numbers or there)]


def notebook_of(source: Path, edition: str) -> Path:
    """Where an edition's notebook stands."""
    return source.parents[1] / EDITIONS[edition] / f"{source.stem}.ipynb"


def build(source: Path, edition: str) -> NotebookNode:
    """The notebook of one edition, not executed."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": dict(LANGUAGE),
    }
    if results := results_of(source):
        notebook.metadata["results"] = results
    notebook.cells = [made for cell in read_lesson(source).cells for made in _edit(cell, edition)]
    for number, made in enumerate(notebook.cells):
        made.id = f"{source.stem[:2]}-{number:03d}"  # stable: a rebuilt notebook differs only where its text does
    days = about.table_of(source.parents[1]).get(source.stem)
    notebook.cells = about.added(notebook.cells, source.stem, days, EDITIONS[edition])
    path = notebook_of(source, edition).relative_to(source.parents[1])
    notebook.cells[1:1] = anywhere.opening(f"notebooks/{path.as_posix()}")
    return notebook


def results_of(source: Path) -> dict[str, str]:
    """The files of runs that a lesson reads, with the beginning of their SHA-256: with others its outputs are stale."""
    folder = source.parents[2] / "data" / "results"
    names = sorted(set(READS.findall(source.read_text(encoding="utf-8"))))
    files = {name: folder / f"{name}.json" for name in names}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for name, file in files.items() if file.exists()}


def _edit(cell: Cell, edition: str) -> list[NotebookNode]:
    if cell.kind == "markdown":
        return [nbformat.v4.new_markdown_cell(cell.source)]
    folded = {"jupyter": {"source_hidden": True}} if cell.folded else {}
    if edition == "solution":
        code = SOLUTION.sub(lambda found: found[2], cell.shown + "\n").strip("\n")
        return [nbformat.v4.new_code_cell(code, metadata=folded)]
    made = [nbformat.v4.new_code_cell(cell.stub, metadata=folded)]
    if COMPARES.search(cell.source):  # JupyterLab shows it when the cell is run, or opened
        made[0].metadata["jupyter"] = {"outputs_hidden": True}
    if cell.solutions:
        answer = "\n\n".join(f"```python\n{solution.rstrip()}\n```" for solution in cell.solutions)
        made.append(nbformat.v4.new_markdown_cell(f"{FOLDED}{answer}\n\n</details>"))
    return made


def without_solutions(source: Path) -> NotebookNode:
    """The committed learner edition, with its outputs and hints, but without the folded solutions."""
    notebook = nbformat.read(notebook_of(source, "learner"), as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(FOLDED)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for said, instead in OF_SOLUTIONS.items():
                cell.source = re.sub(said, instead, cell.source)
    return notebook


def keep_outputs(notebook: NotebookNode, path: Path) -> bool:
    """Take over the outputs of the notebook at ``path`` if its code is the same and it has nothing to complain about.

    All or none: a cell's output belongs to one run with those of the other cells, and the texts compare them.
    """
    if not path.exists():
        return False
    before = nbformat.read(path, as_version=4)
    old, new = (
        [cell for cell in nb.cells if cell.cell_type == "code" and not anywhere.installs(cell)]
        for nb in (before, notebook)
    )
    if [cell.source for cell in old] != [cell.source for cell in new] or complaints(before):
        return False
    if before.metadata.get("results") != notebook.metadata.get("results"):
        return False
    for ours, theirs in zip(new, old, strict=True):
        ours.outputs, ours.execution_count = theirs.outputs, theirs.execution_count
    return True


def client_of(notebook: NotebookNode, folder: Path = HERE) -> NotebookClient:
    """What runs the cells of a notebook in a kernel of its own."""
    return NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # it would warn about loopback connections
        resources={"metadata": {"path": str(folder)}},
    )


@contextmanager
def environment(solved: bool = False) -> Iterator[dict[str, str]]:
    """The environment of such a kernel."""
    # A progress bar is a widget, and a saved one is broken. What the author has solved is not the learner's progress.
    ours = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ours["ADAPTERS_LESSON_PROGRESS"] = ""
    with tempfile.TemporaryDirectory() as own:  # also for the laboratory, which would find earlier runs in its place
        if solved:
            ours["ADAPTERS_LESSON_PROGRESS"] = f"{own}/progress.json"
            reference.write_as_checked(Path(own) / "mine" / "adapters.py")
        yield {**os.environ, **ours, "ADAPTERS_LESSON_RUNS": f"{own}/runs"}


def execute(notebook: NotebookNode, folder: Path = HERE, solved: bool = False) -> NotebookNode:
    """Run all cells in a fresh kernel and keep what can be read without running: no widget state, no timings.

    ``solved``: as somebody who has solved all exercises, and whose pieces the lesson runs on.
    """
    with environment(solved) as surroundings:
        client_of(notebook, folder).execute(env=surroundings)
        own = surroundings["ADAPTERS_LESSON_PROGRESS"].removesuffix("progress.json")
    notebook.metadata["language_info"] = dict(LANGUAGE)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in list(cell.get("outputs", [])):
            # Without a kernel the widget could not be shown: the picture beside it can. A progress bar has none.
            if output.get("data", {}).pop(WIDGET, None) and list(output.data) == ["text/plain"]:
                cell.outputs.remove(output)
            for kinds in (output, output.get("data", {})):
                for kind in ("text", "text/plain", "text/html"):
                    if solved and kind in kinds:  # the learner's own folder is the current one
                        kinds[kind] = kinds[kind].replace(own, "")
        join_streams(cell)
        cover(cell)
    return notebook


def cover(cell: NotebookNode) -> None:
    """Put a line above a folded result: JupyterLab shows the first line of what is folded, which may be the answer."""
    if cell.metadata.get("jupyter", {}).get("outputs_hidden") and cell.outputs:
        cell.outputs.insert(0, nbformat.v4.new_output("stream", name="stdout", text=COVER))


def join_streams(cell: NotebookNode) -> None:
    """Make one output of what a cell prints in a row: a kernel sends it in pieces, as it happens."""
    joined: list[NotebookNode] = []
    for output in cell.get("outputs", []):
        if joined and output.output_type == "stream" and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    if "outputs" in cell:
        cell.outputs = joined


def complaints(notebook: NotebookNode) -> list[str]:
    """What an executed notebook should not contain: errors, warnings, paths, widget state, cells that did not run."""
    found = ["widget state in its metadata"] if "widgets" in notebook.metadata else []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        if cell.execution_count is None and not anywhere.installs(cell):
            found.append(f"cell {cell.id} was not executed")
        for output in cell.outputs:
            text, data = output.get("text", ""), output.get("data", {})
            if output.output_type == "error":
                found.append(f"cell {cell.id} raises {output.ename}: {output.evalue}")
            if WIDGET in data:
                found.append(f"cell {cell.id} has a widget that could not be shown")
            if "image/svg+xml" in data and not output.metadata.get("image/svg+xml", {}).get("alt"):
                found.append(f"cell {cell.id} has a figure without alt text")
            if wide := [line for line in text.splitlines() if len(line) > WIDEST and COLUMNS.search(line)]:
                found.append(
                    f"cell {cell.id} prints columns of {len(wide[0])} characters, {WIDEST} at most: {wide[0][:40]}"
                )
            if output.get("name") == "stderr" or NOISE.search(text + data.get("text/plain", "")):
                found.append(f"cell {cell.id} is noisy: {(text or data.get('text/plain', '')).strip()[:160]}")
    return found


def first_figure(notebook: NotebookNode) -> bytes:
    """The first drawing among a notebook's outputs, as SVG."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return next(o.data["image/svg+xml"].encode() for o in outputs if "image/svg+xml" in o.get("data", {}))


def in_step(committed: NotebookNode, expected: NotebookNode) -> bool:
    """Whether a committed notebook is what its source says, outputs aside."""
    ours, theirs = ([{k: cell.get(k) for k in CELL_KEYS} for cell in nb.cells] for nb in (committed, expected))
    return ours == theirs and committed.metadata == expected.metadata


def write(source: Path, edition: str, anyway: bool) -> list[str]:
    """Build one edition, execute it if its code changed or ``anyway``, and write it; returns its complaints."""
    about.note(source.parents[1], source.stem, read_lesson(source).cells)
    path, notebook = notebook_of(source, edition), build(source, edition)
    kept = not anyway and keep_outputs(notebook, path)
    if not kept:
        execute(notebook, source.parents[1], solved=edition == "solution")
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    if source.stem.startswith("03") and edition == "solution":
        README_PICTURE.write_bytes(first_figure(notebook))
    how = "its code is as before: outputs kept" if kept else "executed"
    print(f"built {path.relative_to(HERE)} ({path.stat().st_size // 1024} KB), {how}", flush=True)
    return [f"{path.relative_to(HERE)}: {complaint}" for complaint in complaints(notebook)]


def write_without_solutions(source: Path) -> list[str]:
    """Write the hand-out of a lesson, if its learner edition is in step; returns what is wrong."""
    if not in_step(nbformat.read(notebook_of(source, "learner"), as_version=4), build(source, "learner")):
        return [f"{source.stem}.ipynb is out of step with its source: make notebooks"]
    WITHOUT_SOLUTIONS.mkdir(parents=True, exist_ok=True)
    nbformat.write(without_solutions(source), WITHOUT_SOLUTIONS / f"{source.stem}.ipynb")
    print(f"wrote dist/notebooks/{source.stem}.ipynb")
    return []


def main() -> int:
    """Build what the command line asks for; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="lessons by number, for instance 01 03; all by default")
    parser.add_argument("--execute", action="store_true", help="execute also where the code is as before")
    parser.add_argument("--no-solutions", action="store_true", help="write dist/notebooks, and execute nothing")
    arguments = parser.parse_args()
    try:
        chosen = sources(arguments.numbers)
    except ValueError as error:
        parser.error(str(error))
    problems = []
    if not arguments.no_solutions:
        reference.write(HERE / "sources")
    for source in chosen:
        if arguments.no_solutions:
            problems += write_without_solutions(source)
        else:
            problems += [found for edition in EDITIONS for found in write(source, edition, arguments.execute)]
    print("\n".join(problems) or "no complaints")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
