"""What came out of a hand-in, for its learner: by exercise the points, and the first thing to mend.

`make assignment` copies this file beside grading.py, which uses it.
"""

from __future__ import annotations

import html
import re
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader import utils
from repair import gives, grade_id, is_answer, is_learners, is_lessons_own, names

TOO_LONG = ("CellTimeoutError", "KeyboardInterrupt")  # the second is how the first stops a cell


def too_long(seconds: int) -> str:
    """Why a cell was stopped."""
    return f"ran for {seconds} seconds and was stopped: a loop that does not end?"


def too_busy(cells: list[NotebookNode]) -> str:
    """What is told where even a cell of the lesson's own took too long; empty where none did."""
    late = [cell for cell in cells if is_lessons_own(cell) and any(one.ename in TOO_LONG for one in errors(cell))]
    return "the machine was too busy for the lesson's own cells: grade it again" if late else ""


def failure(kind: str, text: str) -> NotebookNode:
    """An error as a cell leaves it."""
    return nbformat.v4.new_output("error", ename=kind, evalue=text, traceback=[f"{kind}: {text}"])


def what_came_out(cells: list[NotebookNode], number: str, stub: str) -> dict[str, Any]:
    """The points of an exercise ("1-3"), and the first thing to mend."""
    tests = [cell for cell in cells if utils.is_grade(cell) and number_of(cell) == number]
    got = [utils.determine_grade(cell) for cell in tests]
    points, most = (sum(them) for them in zip(*((first or 0, of) for first, of in got), strict=True))
    code = [cell for cell in cells if cell.cell_type == "code"]
    wanted = gives(stub)
    answers = [
        cell for cell in code if is_learners(cell) and (number_of(cell) == number or gives(cell.source) & wanted)
    ]
    said = [sentence(error) for cell in answers for error in errors(cell)]
    if points < most:
        missing = sorted(wanted - {name for cell in code for name in names(cell.source)[0] | gives(cell.source)})
        if missing:
            instead = sorted({name for cell in answers for name in gives(cell.source)})
            said.append(f"`{missing[0]}` is missing: no cell of this hand-in defines it. " + _instead(instead))
        for test in sorted(tests, key=grade_id):  # the check before the hidden tests
            said += [sentence(error) for error in errors(test)]
    return {"points": points, "of": most, "mend": said[0] if said else ""}


def _instead(given: list[str]) -> str:
    if given:
        return f"Its cell defines {' and '.join(f'`{name}`' for name in given)} instead: give it its name again."
    return "Write it under that name, in a code cell."


def number_of(cell: NotebookNode) -> str:
    """Of an answer or a test, the exercise's: "1-3"."""
    return "-".join(grade_id(cell).split("-")[1:3]) if is_answer(cell) or utils.is_grade(cell) else ""


def errors(cell: NotebookNode) -> list[NotebookNode]:
    """The errors among a cell's outputs."""
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def sentence(error: NotebookNode) -> str:
    """An error as one sentence: of a check, what it says; of others, their kind, too."""
    if error.ename in TOO_LONG:
        return "this cell ran too long and was stopped: a loop that does not end?"
    if error.ename == "NotImplementedError" and not error.evalue:
        return "not attempted yet"
    text = error.evalue.partition("\nIt printed:")[0].strip()
    if error.ename in ("AssertionError", "NotExecuted", "NotGraded"):
        return re.sub(r"^[✘○] \d+\.\d+: ", "", text).partition("\n")[0] or "a further test fails"
    text = re.sub(r" \(\d+\.py, line (\d+)\)", r", in line \1 of the cell", text)
    return f"{error.ename}: {text}".partition("\n")[0].strip(": ")


def summary(exercises: dict[str, dict[str, Any]], failed: str, flags: list[str], stopped: list[str]) -> NotebookNode:
    """The first cell of the feedback. It is HTML, since Markdown would read signs into what was said."""
    lines = ["<h2>What came out</h2>"]
    lines += [f"<p><b>Not graded:</b> {_html(failed)}</p>"] if failed else []
    lines += [f"<p><b>For the teacher:</b> {_html(flag)}</p>" for flag in flags]
    lines += [f"<p>A cell beside the exercises: {_html(why)}</p>" for why in stopped]
    lines += ["<table>", "<tr><th>exercise</th><th>points</th><th>first to mend</th></tr>"]
    for number, came in exercises.items():
        points, mend = f"{came['points']:g} of {came['of']:g}", _html(came["mend"] or "nothing")
        lines.append(f"<tr><td>{number}</td><td>{points}</td><td>{mend}</td></tr>")
    return nbformat.v4.new_markdown_cell("\n".join([*lines, "</table>"]))


def _html(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(" ".join(text.split())))
