"""How a hand-in is graded: made whole, executed without what no exercise needs, tried with answers that must fail.

`make assignment` copies this file beside the class's nbgrader_config.py, which uses it.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import random
import re
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
from box import BoxedKernelManager, lent
from came_out import errors, failure, number_of, sentence, summary, too_busy, too_long, what_came_out
from container import BOXES, find_box
from jupyter_client.manager import KernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde
from nbgrader.preprocessors import DeduplicateIds, Execute, OverwriteCells
from repair import (
    WAS_MISSING,
    Original,
    gives,
    grade_id,
    is_learners,
    is_lessons_own,
    repair,
    tag_what_no_exercise_needs,
)
from sqlalchemy.exc import SQLAlchemyError
from traitlets import Enum
from watch import keep_out

QUIET = {"ADAPTERS_LESSON_PROGRESS": "", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
OURS = "adapters_lesson"  # in the metadata of a graded notebook: what came out, for marks.py
LONGEST = 200_000  # characters of output that one cell may leave
MOST_CELLS = 1000  # the largest lesson has a tenth
PATIENCE = 5  # times as long as a learner's cell the lesson's own may take: on a busy machine imports do
RESTARTS = 8  # of a kernel that one hand-in may end
# What no test may take for an answer. Each is tried on the tests of every lesson (tests/test_grading.py).
WRONG = ("def {name}(*_, **__):\n    return None", "def {name}(*_, **__):\n    return []", "{name} = object()")
CHANGED = "changed: "  # in watch.py's notes, before the name of a check
COMPARES = re.compile(
    r"^\s+def (__(?:eq|ne|bool)__)\(", re.MULTILINE
)  # by which an object can equal all that is asked for
CHEATED = "this hand-in passes tests that nothing can pass, so its own results mean nothing: the teacher reads it"


class PutBackWhatIsMissing(OverwriteCells):
    """nbgrader's repair, after our own: see repair.py."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Find the cells again, whatever an editor did to them, and put back tests and the lesson's own text."""
        with Gradebook(resources["nbgrader"]["db_url"]) as gradebook:
            handed_out = gradebook.find_notebook(resources["nbgrader"]["notebook"], resources["nbgrader"]["assignment"])
            points = {cell.name: cell.max_score for cell in handed_out.grade_cells}
            answers = {cell.name for cell in handed_out.solution_cells}
            originals = {
                cell.name: Original(
                    cell.source, cell.cell_type, points.get(cell.name), cell.name in answers, cell.checksum
                )
                for cell in sorted(handed_out.source_cells, key=lambda cell: str(cell.name))
            }
        nb.cells = repair(nb.cells, originals)
        put_back = [grade_id(cell) for cell in nb.cells if cell.metadata.pop(WAS_MISSING, False)]
        nb.metadata[OURS] = {"failed": nb.metadata.get(OURS, {}).get("failed", ""), "stubs": _stubs(originals)}
        nb, resources = super().preprocess(nb, resources)
        for cell in nb.cells:
            if grade_id(cell) in put_back:
                cell.source = f"# {self.missing_cell_notification.format(cell_id=grade_id(cell))}{cell.source}"
        return nb, resources


def _stubs(originals: dict[str, Original]) -> dict[str, str]:
    """By the exercise's number with a dash, "1-3", the stub of its answer, which says what it defines."""
    stubs: dict[str, str] = {}
    for name, original in originals.items():
        if original.solution and (found := re.match(r"exercise-(\d+-\d+)", name)):
            stubs[found[1]] = f"{stubs.get(found[1], '')}\n{original.source}".strip()
    return stubs


class ExecuteWhatIsGraded(Execute):
    """nbgrader's execution, without the lesson's demonstrations; a warning is no error, and a dead kernel no end."""

    box = Enum(BOXES, "auto", help="Where hand-ins run: in a container, in namespaces of their own, or as you.").tag(
        config=True
    )

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Execute what the exercises of this hand-in need, and say at its top what came out."""
        came = nb.metadata.pop(OURS, {})
        stubs, failed = came.get("stubs", {}), came.get("failed", "")
        flags: list[str] = []
        changed: list[str] = []
        if not failed:
            tag_what_no_exercise_needs(nb.cells)
            with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                notes = Path(folder, "notes")
                notes.touch()
                noted = stack.enter_context(notes.open(encoding="utf-8", errors="replace"))  # before the hand-in has it
                inside = Path(resources["metadata"]["path"]).resolve()
                self.folder = Path(folder).resolve()
                self.used, why_not = find_box(self.box, inside.parents[2], inside, self.folder, QUIET)
                if why_not and self.box == "auto":
                    self.log.warning("A hand-in runs under your account, without a box: %s", why_not)
                elif why_not:
                    failed = f"it was not run, since there is no such box here: {why_not}"
                # From here to the end of `with`, our own cells are in it, which the learner does not get to see.
                nb.cells.insert(0, _ours(_before_all(str(inside), notes)))
                nb.cells.append(_ours('import sys\n\nsys.audit("adapters_lesson.checks", globals())'))
                _put_in_what_must_fail(nb.cells, stubs)
                try:
                    if not failed:
                        nb, resources = self._until_it_runs(nb, resources)
                except DeadKernelError as error:
                    failed = f"it ended the kernel {RESTARTS} times: {error}"
                said = sorted(set(noted.read().splitlines()))
                flags += [f"it reached for what the class keeps: {one}" for one in said if not one.startswith(CHANGED)]
                changed = [one.removeprefix(CHANGED) for one in said if one.startswith(CHANGED)]
            must_fail = [cell for cell in nb.cells if cell.metadata.get(OURS) == "must fail"]
            nb.cells = [cell for cell in nb.cells if OURS not in cell.metadata]
            failed = failed or too_busy(nb.cells)
            if not failed and not all(map(errors, must_fail)):
                flags.insert(0, CHEATED)
            elif changed:
                flags.insert(0, f"it changes the course's checks: {', '.join(changed)}; the teacher reads it")
            compares = [it for cell in nb.cells if is_learners(cell) for it in COMPARES.findall(cell.source)]
            flags += (
                [f"an object of its own compares as it likes: {compares[0]}; the teacher reads it"] if compares else []
            )
        for cell in filter(utils.is_grade, nb.cells):
            if failed or changed or CHEATED in flags:
                cell.outputs = [failure("NotGraded", failed or flags[0])]
            # nbgrader would take stderr for a failure
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        exercises = {number.replace("-", "."): what_came_out(nb.cells, number, stub) for number, stub in stubs.items()}
        nb.metadata[OURS] = {"failed": failed, "flags": flags, "exercises": exercises}
        own = [cell for cell in nb.cells if cell.cell_type == "code" and is_learners(cell) and not number_of(cell)]
        stopped = [
            sentence(one) for cell in own for one in errors(cell) if one.ename in ("CellTimeoutError", "NotExecuted")
        ]
        nb.cells.insert(0, summary(exercises, failed, flags, stopped))
        return nb, resources

    def _until_it_runs(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Execute it; a cell that ends the kernel, or cannot be interrupted, is left out when it is tried again."""
        self.left_out: dict[int, str] = {}
        self.timeout_func = self.seconds_for
        for attempt in range(RESTARTS + 1):
            self.at = 0
            try:
                with patch.dict(os.environ, QUIET), lent(self.used, self.folder):
                    return super().preprocess(nb, resources)
            except (DeadKernelError, CellTimeoutError) as error:
                if attempt == RESTARTS:
                    raise DeadKernelError(str(error)) from error
                dead = isinstance(error, DeadKernelError)
                why = "ended the kernel: by a command, or with too much memory" if dead else too_long(self.timeout)
                mine = [k for k in range(self.at + 1) if is_learners(nb.cells[k]) and OURS not in nb.cells[k].metadata]
                blamed = [k for k in mine if k not in self.left_out and nb.cells[k].cell_type == "code"]
                self.left_out[blamed[-1] if blamed else self.at] = why
        raise AssertionError

    def seconds_for(self, cell: NotebookNode) -> int:
        """How long a cell may take."""
        return (self.timeout or 0) * (PATIENCE if OURS in cell.metadata or is_lessons_own(cell) else 1)

    def create_kernel_manager(self) -> KernelManager:
        """Make what starts the kernel, in the box."""
        self.kernel_manager_class = BoxedKernelManager
        manager = super().create_kernel_manager()
        if self.used.words:
            manager.put_into(self.used, self.folder)
        return manager

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Execute a cell, unless it has ended a kernel before."""
        self.at, self.written = index, 0
        if index in self.left_out:
            cell.outputs = [failure("NotExecuted", f"this cell {self.left_out[index]}")]
            return cell, resources
        return super().preprocess_cell(cell, resources, index)

    def output(self, outs: list[NotebookNode], msg: dict[str, Any], *more: Any) -> NotebookNode | None:
        """Take an output, as long as the cell has not left too much: the error at its end is always taken."""
        self.written += len(json.dumps(msg["content"], default=str))
        if self.written > LONGEST and msg["msg_type"] != "error":
            if not any(out.get("text") == CUT for out in outs):
                outs.append(nbformat.v4.new_output("stream", name="stdout", text=CUT))
            return None
        out = super().output(outs, msg, *more)
        if out and out.output_type == "error":
            out.evalue, out.traceback = out.evalue[:LONGEST], [line[:LONGEST] for line in out.traceback]
        return out


CUT = f"\n… and more: of a cell's output, {LONGEST:,} characters are kept.\n"


class GradesEverything(NotebookExporter):
    """What cannot be read or executed is graded, too: with 0, and with the reason at its top."""

    def from_file(self, file_stream: Any, resources: Any = None, **more: Any) -> tuple[str, Any]:
        """Make the graded notebook from an open file, with the fields that its writer left out."""
        told = json.loads(file_stream.read().lstrip("\ufeff"))
        if "cells" in told:  # since version 4
            if len(told["cells"]) > MOST_CELLS:
                raise ValueError(f"it has {len(told['cells']):,} cells, more than {MOST_CELLS:,}")
            told = {"metadata": {}, "nbformat": 4, "nbformat_minor": 5, **told}
            code: dict[str, Any] = {"metadata": {}, "source": "", "outputs": [], "execution_count": None}
            told["cells"] = [
                {**(code if cell.get("cell_type") == "code" else {"metadata": {}, "source": ""}), **cell}
                for cell in told["cells"]
            ]
        nb = nbformat.reads(json.dumps(told), as_version=4)
        return self.from_notebook_node(nb, resources, **more)

    def from_filename(self, filename: str, resources: Any = None, **more: Any) -> tuple[str, Any]:
        """Make the graded notebook from a file."""
        try:
            return super().from_filename(filename, resources, **more)
        except (SQLAlchemyError, MemoryError):
            raise  # not the learner's
        except Exception as error:
            self.log.warning("%s could not be graded: %s", filename, error)
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            nb = nbformat.v4.new_notebook()
            with contextlib.suppress(Exception):
                nb = nbformat.read(filename, as_version=4)
            if OURS not in nb.metadata:  # it is the file that was handed in: only its tests can be put back
                nb.cells, reason = [], f"the file could not be read as a notebook: {reason}"
            nb.metadata[OURS] = {**nb.metadata.get(OURS, {}), "failed": reason}
            return self.from_notebook_node(nb, resources)


def take_what_is_there(notebooks: list[str], assignment: str = "", **_: Any) -> None:
    """Give a hand-in's only notebook the name that was handed out, for instance where a browser added " (1)"."""
    folder = Path(notebooks[0]).parent
    named = [path.name for path in (folder.parents[2] / "release" / folder.name).glob("*.ipynb")]
    if len(named) == len(notebooks) == 1 and Path(notebooks[0]).name != named[0]:
        notebooks[:] = [str(Path(notebooks[0]).rename(folder / named[0]))]


def use(c: Any) -> None:
    """Put all of this into nbgrader's settings."""
    c.Autograde.pre_convert_hook = take_what_is_there
    c.Autograde.exporter_class = GradesEverything
    c.Autograde.sanitize_preprocessors = [
        PutBackWhatIsMissing if step is OverwriteCells else step
        for step in Autograde.sanitize_preprocessors.default_args[0]
        if step is not DeduplicateIds
    ]
    c.Autograde.autograde_preprocessors = [
        ExecuteWhatIsGraded if step is Execute else step for step in Autograde.autograde_preprocessors.default_args[0]
    ]


# --- Our own cells ------------------------------------------------------------------------------------------------


def _ours(source: str, what: str = "ours") -> NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={OURS: what})


def _before_all(inside: str, notes: Path) -> str:
    """Code that keeps a kernel out of the class's folder, but for the hand-in's, and lets exit() end only its cell."""
    root = str(Path(inside).parents[2])  # autograded/NAME/lesson01
    watch = f"{inspect.getsource(keep_out)}\nkeep_out({root!r}, {inside!r}, {str(notes)!r})\ndel keep_out"
    return f"{watch}\nfrom sys import exit\nquit = exit"


def _put_in_what_must_fail(cells: list[NotebookNode], stubs: dict[str, str]) -> None:
    """At the end, for each exercise, and in the middle, where chance has it: a wrong answer, and tests to refuse it."""
    tests = [cell for cell in cells if utils.is_grade(cell) and cell.cell_type == "code"]
    numbers, chosen = random.sample(list(stubs), len(stubs)), random.choice(tests)
    middle = 1 + next(k for k, cell in enumerate(cells) if cell is chosen)
    for place, number in [*((len(cells), number) for number in numbers), (middle, numbers[0])]:
        (name,) = gives(stubs[number])
        wrong = random.choice((*(wrong.format(name=name) for wrong in WRONG), stubs[number]))
        cells[place:place] = [
            _ours(f"_kept = globals().get({name!r})\n{wrong}"),
            *(_ours(test.source, "must fail") for test in tests if number_of(test) == number),
            _ours(f"{name} = _kept\nif {name} is None:\n    del {name}"),
        ]
