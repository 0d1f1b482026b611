"""Build an assignment for Otter-Grader, whose zip file Gradescope takes: `python classroom/otter_export.py 01`.

It is the assignment that nbgrader gets, written in otter's format, and then `otter assign` makes of it what is handed
out and what grades, in dist/otter/lesson01. `exam 7` in the place of 01 takes the exam of the seed 7. The file has not
otter's name: Python would take it for the package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import nbformat
from assignment import HERE, assignment_name, find_lesson, source_version
from exam import exam
from image import wheel_of_the_course
from nbformat import NotebookNode

from adapters_lesson.course.lesson_source import HIDDEN, SOLUTION, Lesson
from adapters_lesson.guards.safe_files import write_atomically

sys.path.append(str(HERE.parent / "notebooks"))
import anywhere

INTO = HERE.parent / "dist" / "otter"
# Learners need nothing of otter's: the lesson's own checks stand in their notebook. What grades needs the course: its
# wheel is in the zip file, which Gradescope and `otter grade` unpack to that path.
CONFIG = """# ASSIGNMENT CONFIG
init_cell: false
check_all_cell: false
export_cell: false
generate: true
tests:
    ok_format: false
autograder_files:
    - {wheel}
requirements:
    - --extra-index-url {index}
    - /autograder/source/files/{wheel}"""
STUB = '''\\1# BEGIN SOLUTION NO PROMPT
\\2\\1# END SOLUTION
\\1""" # BEGIN PROMPT
\\1# your code here
\\1raise NotImplementedError
\\1""" # END PROMPT
'''


def master(lesson: Lesson, wheel: str) -> NotebookNode:
    """A lesson or an exam as otter's master notebook.

    Args:
        lesson: the lesson, or an exam.
        wheel: the name of the course's, which lies beside the notebook.

    Raises:
        ValueError: where an exercise lacks a part, named with its number.
    """
    given = source_version(lesson)
    cells: list[NotebookNode] = [_raw(CONFIG.format(wheel=wheel, index=anywhere.project()["index"]))]
    begun: set[str] = set()
    for cell in given.cells:
        role, number = _role(cell)
        if role == "exercise":
            if number not in begun:  # an answer may have several cells
                begun.add(number)
                question = f"name: q{number}\npoints: {_points(given, number)}\ncheck_cell: false"
                cells.append(_raw(f"# BEGIN QUESTION\n{question}"))
            stub = nbformat.v4.new_code_cell(SOLUTION.sub(STUB, cell.source + "\n").rstrip("\n"))
            cells += [_raw("# BEGIN SOLUTION"), stub, _raw("# END SOLUTION")]
        elif role == "check":
            shown = nbformat.v4.new_code_cell(cell.source, metadata={"tags": ["otter_ignore"]})
            cells += [_raw("# BEGIN TESTS"), _test(cell, number, hidden=False)]
        elif role == "hidden":
            cells += [_test(cell, number, hidden=True), _raw("# END TESTS"), _raw("# END QUESTION"), shown]
        else:
            left_out = {"tags": ["otter_ignore"]} if cell.metadata.get("tags") else {}
            kind = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
            cells.append(kind(cell.source, metadata=left_out))
    return nbformat.v4.new_notebook(cells=cells, metadata=given.metadata)


def _role(cell: NotebookNode) -> tuple[str, str]:
    """For instance ("hidden", "1_3"), and ("", "") of the lesson's own cells."""
    role, _, number = cell.metadata.nbgrader.grade_id.partition("-")
    if role not in ("exercise", "check", "hidden"):
        return "", ""
    return role, "_".join(number.split("-")[:2])


def _points(notebook: NotebookNode, number: str) -> float:
    return sum(cell.metadata.nbgrader.get("points", 0) for cell in notebook.cells if _role(cell)[1] == number)


def _raw(text: str) -> NotebookNode:
    return nbformat.v4.new_raw_cell(text)


def _test(cell: NotebookNode, number: str, hidden: bool) -> NotebookNode:
    """A function that otter calls with the hand-in's names: the test runs among them, as it does in the lesson."""
    code = HIDDEN.sub(lambda found: "\n".join(["", *found[0].strip().splitlines()[1:-1], ""]), cell.source).strip()
    config = f"points: {cell.metadata.nbgrader.points}\nhidden: {str(hidden).lower()}"
    name = f"{'hidden' if hidden else 'check'}_{number}"
    return nbformat.v4.new_code_cell(
        f'""" # BEGIN TEST CONFIG\n{config}\n""" # END TEST CONFIG\ndef {name}(env):\n    exec({code!r}, env)'
    )


def main() -> int:
    """Build what the command line asks for; 1 when it cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", help='a lesson\'s number, for instance 01, or "exam"')
    parser.add_argument("seed", type=int, nargs="?", default=0, help="of an exam")
    parser.add_argument("--into", type=Path, default=INTO, help="dist/otter by default")
    parser.add_argument("--otter", default=sys.executable, help="the Python that has otter-grader; this one by default")
    arguments = parser.parse_args()
    try:
        lesson = exam(arguments.seed) if arguments.lesson == "exam" else find_lesson(arguments.lesson)
        folder = arguments.into / assignment_name(lesson)
        folder.mkdir(parents=True, exist_ok=True)
        notebook = master(lesson, wheel_of_the_course(folder).name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    path, text = folder / f"{lesson.name}.ipynb", nbformat.writes(notebook) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    command = [arguments.otter, "-m", "otter", "assign", "--no-pdfs", path.name, "built"]
    there = subprocess.run([arguments.otter, "-c", "import otter.assign"], cwd=folder, capture_output=True)
    if there.returncode:
        print(f"written: {path}\n{arguments.otter} has no otter-grader: install it, or name one that has it by --otter")
        return 1
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(f"otter could not make {path.name}:\n{done.stderr.strip()}", file=sys.stderr)
        return 1
    (zipped,) = (folder / "built" / "autograder").glob("*.zip")
    print(f"to hand out: {folder / 'built' / 'student' / path.name}\nto upload to Gradescope: {zipped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
