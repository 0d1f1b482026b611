"""How a hand-in is made whole and executed for grading: what no exercise needs is left out, and noise costs no points.

`make assignment` copies this file beside the class's nbgrader_config.py, which uses it.
"""

from __future__ import annotations

import ast
import symtable
from typing import Any

from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.preprocessors import Execute, OverwriteCells

SKIP = "skip-execution"  # nbclient's tag: nbgrader's Validate leaves such cells out, JupyterLab runs them
QUIET = {"ADAPTERS_LESSON_PROGRESS": "", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}


class ExecuteWhatIsGraded(Execute):
    """nbgrader's execution, without the lesson's demonstrations; a warning is no error."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Execute what the exercises of this hand-in need. Its own tags do not count: one on a test would be points."""
        for cell in nb.cells:
            cell.metadata.pop("tags", None)
        tag_what_no_exercise_needs(nb.cells)
        with utils.setenv(**QUIET):
            nb, resources = super().preprocess(nb, resources)
        for cell in filter(utils.is_grade, nb.cells):  # where nbgrader would take stderr for a failure
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        return nb, resources


class PutBackWhatIsMissing(OverwriteCells):
    """nbgrader's repair, but a deleted test comes back at the end: its own fails where the answer is deleted, too."""

    def add_missing_grade_cells(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Append the tests that the hand-in lacks."""
        notebook = self.gradebook.find_notebook(self.notebook_id, self.assignment_id)
        there = {cell.metadata.nbgrader.get("grade_id") for cell in filter(utils.is_grade, nb.cells)}
        sources = {cell.name: cell for cell in notebook.source_cells}
        for test in notebook.grade_cells:
            if test.name not in there:
                nb.cells.append(self.missing_cell_transform(sources[test.name], test.max_score))
                nb.cells[-1].id = test.name
        return nb, resources


def tag_what_no_exercise_needs(cells: list[NotebookNode]) -> None:
    """Tag the lesson's own code cells of which no exercise, test or cell of the learner's uses a name, even indirectly.

    Args:
        cells: a notebook's, with nbgrader's metadata; they are changed in place.
    """
    needed: set[str] = set()
    for cell in reversed([cell for cell in cells if cell.cell_type == "code"]):
        binds, uses = names(cell.source)
        if cell.metadata.get("nbgrader", {}).get("locked") and not utils.is_grade(cell) and not binds & needed:
            cell.metadata["tags"] = [SKIP]
        else:
            needed |= uses


def names(code: str) -> tuple[set[str], set[str]]:
    """The global names that a cell binds or changes, and those that it reads; none where it is no Python."""
    try:
        tables, tree = [symtable.symtable(code, "a cell", "exec")], ast.parse(code)
    except SyntaxError:
        return set(), set()
    binds = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    uses = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    while tables:  # functions, classes, comprehensions: what they do not bind themselves is global
        inner = tables.pop().get_children()
        uses |= {symbol.get_name() for table in inner for symbol in table.get_symbols() if symbol.is_global()}
        tables += inner
    return binds | {name for node in ast.walk(tree) for name in _changed(node)}, uses


def _changed(node: ast.AST) -> list[str]:
    """The x of `x.weight = …` and of `x[0] = …`."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        if isinstance(node, ast.Name):
            return [node.id]
    return []
