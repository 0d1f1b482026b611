"""A hand-in made whole: whatever an editor did to its cells, each is found again, and runs after what it needs.

`make assignment` copies this file beside grading.py, which uses it. It needs no nbgrader.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

SKIP = "skip-execution"  # nbclient's tag: nbgrader's Validate leaves such cells out, JupyterLab runs them
MARK = re.compile(r"^#{1,6} (?=(class|def|import|from|@|\w+ =))")  # what "turn into a heading" puts before a line
HIDDEN = re.compile(r"\n*^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
CELL_MAGIC = re.compile(r"\A\s*%%\w+.*\n")
PASSES = 5  # as many times a cell may have to wait for one that waits itself; a circle of them ends, too
WAS_MISSING = "was_missing"  # in the metadata of a test that is put back


Lost = list[tuple[NotebookNode, NotebookNode]]


class Original(NamedTuple):
    """A cell as it was handed out, by nbgrader's record: for an answer the source is its stub."""

    source: str
    cell_type: str
    points: float | None = None
    solution: bool = False
    checksum: str | None = None


def repair(cells: list[NotebookNode], originals: dict[str, Original]) -> list[NotebookNode]:
    """The cells to grade: the learner's, with the originals' roles, and the tests, each after what it needs.

    Copied, split, merged, moved and retyped cells are taken for what they are, and so are those without metadata.
    Where several cells define an answer the last one counts, and a stub only where it is alone.

    Args:
        cells: those of the hand-in; they are changed.
        originals: by nbgrader's grade_id.
    """
    for cell in cells:
        cell.source = plain(cell.source)
    _find_again(cells, originals)
    cells, lost = _once_each(cells, originals)
    there = set(map(grade_id, cells))
    for name, original in originals.items():
        if original.points is not None and name not in there:
            cells.append(_cell(name, original, original.source))
            cells[-1].metadata[WAS_MISSING] = True
    _bring_back(cells, originals, lost)
    return _below_what_they_need(cells, _stubs_above_answers(cells, originals))


def _find_again(cells: list[NotebookNode], originals: dict[str, Original]) -> None:
    """Give cells without a known grade_id theirs: by their text, and answers by the name that they define."""
    for cell in cells:
        meta = cell.metadata.get("nbgrader")
        cell.metadata = NotebookNode()  # a tag on a test would be points
        if isinstance(meta, dict) and meta.get("grade_id") in originals:
            cell.metadata["nbgrader"] = NotebookNode(grade_id=meta["grade_id"])
    for is_same in (
        lambda cell, original: cell.source.strip() in (original.source.strip(), shown(original.source)),
        lambda cell, original: original.solution and gives(cell.source) & gives(original.source),
    ):
        there = set(map(grade_id, cells))
        away = {name: original for name, original in originals.items() if name not in there}
        for cell in cells:
            if not grade_id(cell) and cell.source.strip():
                name = next((name for name, original in away.items() if is_same(cell, original)), None)
                if name:
                    cell.metadata["nbgrader"] = NotebookNode(grade_id=name)


def _once_each(cells: list[NotebookNode], originals: dict[str, Original]) -> tuple[list[NotebookNode], Lost]:
    """Each original once, with its role and type; and what stood in the wrong places, with the cell below it."""
    kept: list[NotebookNode] = []
    lost: Lost = []
    answered = {grade_id(cell) for cell in cells if not _as_handed_out(cell, originals)}
    seen: set[str] = set()
    for cell in reversed(cells):
        name, changed = grade_id(cell), not _as_handed_out(cell, originals)
        text = cell.source if cell.cell_type == "code" else MARK.sub("", cell.source)
        if name not in originals:
            kept.append(cell)
            if cell.cell_type != "code":
                lost.append((cell, nbformat.v4.new_code_cell(text)))
        elif originals[name].solution:
            if name not in seen and (changed or name not in answered):
                kept.append(_cell(name, originals[name], text))
                seen.add(name)
            elif changed:  # the first part of a split cell, or a copy
                kept.append(nbformat.v4.new_code_cell(text))
        else:
            if name not in seen:
                kept.append(_cell(name, originals[name], originals[name].source))
                seen.add(name)
            if changed and originals[name].cell_type == "code":
                lost.append((kept[-1], nbformat.v4.new_code_cell(text)))
    return kept[::-1], lost[::-1]


def _bring_back(cells: list[NotebookNode], originals: dict[str, Original], lost: Lost) -> None:
    """Bring back what gives a name that is used and that nothing else gives: the learner's, or else the lesson's."""
    there = set(map(grade_id, cells))
    away = [(name, original) for name, original in originals.items() if name not in there]
    lessons = [(cells[0], _cell(*it, it[1].source)) for it in away if it[1].cell_type == "code" and not it[1].solution]
    candidates = [*lost, *lessons]
    while candidates:
        code = [cell for cell in cells if cell.cell_type == "code"]
        given = {name for cell in code if not _is_stub(cell, originals) for name in names(cell.source)[0]}
        used = {name for cell in code if not is_lessons_own(cell) for name in names(cell.source)[1]}
        missing = used - given - set(dir(builtins))
        found = next((it for it in candidates if names(it[1].source)[0] & missing), None)
        if found is None:
            return
        candidates.remove(found)
        cells.insert(_place(cells, found[0]), found[1])


def _stubs_above_answers(cells: list[NotebookNode], originals: dict[str, Original]) -> list[NotebookNode]:
    """Move each stub that was left, although another cell has its answer, above that; and return those stubs."""
    left = [cell for cell in cells if _is_stub(cell, originals)]
    moved = []
    for stub in left:
        others = [cell for cell in cells if is_learners(cell) and cell.cell_type == "code" and cell not in left]
        answer = next((cell for cell in others if names(cell.source)[0] & gives(stub.source)), None)
        if answer is not None:
            moved.append(stub)
            cells.remove(stub)
            cells.insert(_place(cells, answer), stub)
    return moved


def _below_what_they_need(cells: list[NotebookNode], stubs: list[NotebookNode]) -> list[NotebookNode]:
    """Move tests and the learner's cells below the first that gives what nothing above them gives."""

    def given(cell: NotebookNode) -> set[str]:
        if cell.cell_type != "code":
            return set()
        return set(names(cell.source)[0]) - (gives(cell.source) if cell in stubs else set())

    for _ in range(PASSES):
        for cell in [cell for cell in cells if cell.cell_type == "code" and not is_lessons_own(cell)]:
            place = last = _place(cells, cell)
            binds, uses = names(cell.source)
            for name in uses - binds - {name for one in cells[:place] for name in given(one)}:
                last = max(last, next((k for k in range(place, len(cells)) if name in given(cells[k])), 0))
            cells.insert(last, cells.pop(place))
    return cells


def _place(cells: list[NotebookNode], cell: NotebookNode) -> int:
    return next(k for k, one in enumerate(cells) if one is cell)


def _as_handed_out(cell: NotebookNode, originals: dict[str, Original]) -> bool:
    """Whether a cell's text is its original's, of which the learner's edition lacks the hidden tests."""
    original = originals.get(grade_id(cell))
    return original is not None and cell.source.strip() in (original.source.strip(), shown(original.source))


def _is_stub(cell: NotebookNode, originals: dict[str, Original]) -> bool:
    return is_answer(cell) and _as_handed_out(cell, originals)


def is_lessons_own(cell: NotebookNode) -> bool:
    """Whether it belongs to the lesson, and is neither answer nor test."""
    meta = cell.metadata.get("nbgrader", {})
    return bool(meta.get("locked") and not meta.get("grade"))


def is_answer(cell: NotebookNode) -> bool:
    """Whether it is the cell for an answer."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def is_learners(cell: NotebookNode) -> bool:
    """Whether the learner wrote it: an answer, or a cell of their own."""
    return is_answer(cell) or "nbgrader" not in cell.metadata


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of the cell, empty where it has none."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def plain(source: str) -> str:
    """A text with usual line ends, in which each half of a character that was cut is a question mark's."""
    whole = source.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\r\n", "\n").replace("\r", "\n")


def shown(source: str) -> str:
    """A test's text without its hidden part."""
    return HIDDEN.sub("", source + "\n").strip()


def _cell(name: str, original: Original, source: str) -> NotebookNode:
    """A cell with all that nbgrader wants to know of it."""
    make: Callable[..., NotebookNode] = getattr(nbformat.v4, f"new_{original.cell_type}_cell")
    cell, graded = make(source, id=re.sub(r"[^\w-]", "-", name)[:64]), original.points is not None
    role: dict[str, Any] = {"grade": graded, "solution": original.solution, "task": False}
    role |= {"locked": not original.solution, "grade_id": name, "schema_version": 3, "cell_type": original.cell_type}
    role |= {"points": original.points} if graded else {}
    role |= {"checksum": original.checksum} if original.checksum else {}
    cell.metadata["nbgrader"] = NotebookNode(role)
    return cell


def tag_what_no_exercise_needs(cells: list[NotebookNode]) -> None:
    """Tag the lesson's own code cells of which no exercise, test or cell of the learner's uses a name, even indirectly.

    Args:
        cells: a notebook's, with nbgrader's metadata; they are changed in place.
    """
    needed: set[str] = set()
    for cell in reversed([cell for cell in cells if cell.cell_type == "code"]):
        binds, uses = names(cell.source)
        if is_lessons_own(cell) and not binds & needed:
            cell.metadata["tags"] = [SKIP]
        else:
            needed |= uses


@cache
def names(code: str) -> tuple[frozenset[str], frozenset[str]]:
    """The global names that a cell binds or changes, and those that it reads; none where it is no Python.

    The body of `%%time` counts, and that of `%%writefile` and the like reads what it reads.
    """
    code = CELL_MAGIC.sub("", code)
    try:
        code = TransformerManager().transform_cell(code)  # %magic and !commands
        tables, tree = [symtable.symtable(code, "a cell", "exec")], ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two of a parser that gives up
        return frozenset(), frozenset()
    binds = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    uses = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    while tables:  # functions, classes, comprehensions: what they do not bind themselves is global
        inner = tables.pop().get_children()
        uses |= {symbol.get_name() for table in inner for symbol in table.get_symbols() if symbol.is_global()}
        tables += inner
    return frozenset(binds.union(*map(_changed, ast.walk(tree)))), frozenset(uses)


def gives(code: str) -> set[str]:
    """The functions and classes that a cell defines, by the looks of its lines: it may be no Python."""
    return set(re.findall(r"^(?:#+ )?(?:def|class) +(\w+)", code, re.MULTILINE))


def _changed(node: ast.AST) -> list[str]:
    """The x of `x.weight = …` and of `x[0] = …`."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        if isinstance(node, ast.Name):
            return [node.id]
    return []
