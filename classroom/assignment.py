"""Build an nbgrader assignment from a lesson's source: `python classroom/assignment.py 01`.

The source version, with solutions and hidden tests, goes to source/lesson01 in the class's folder. nbgrader makes the
release version from it, in release/lesson01, and notes its cells and points in gradebook.db.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from grading import tag_what_no_exercise_needs
from nbformat import NotebookNode

from adapters_lesson.files import write_atomically

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "notebooks" / "sources"
CLASS = HERE.parent / "dist" / "assignments"
POINTS = {"◆◇◇": 2, "◆◆◇": 4, "◆◆◆": 6}  # one half for the check that the learner sees, one for the hidden tests
CARD = re.compile(r"^### Exercise (\d+\.\d+) · (.+)$", re.MULTILINE)
DIFFICULTY = re.compile(r"\*\*Difficulty\*\*\s+([◆◇]{3})")
CHECK = re.compile(r"^checks\.check_\w+\(", re.MULTILINE)
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^\| lesson \|.*?\|$(?!\n\|)", re.MULTILINE | re.DOTALL)
OTHER_LESSON = re.compile(r"\[([^\]]+)\]\([^)#:]+\.ipynb\)")


@dataclass(frozen=True)
class Exercise:
    """What a lesson's card says of an exercise: its ``number``, for instance "1.3", its ``title``, its ``points``."""

    number: str
    title: str
    points: int


def lessons() -> list[str]:
    """The lessons that have a source with exercises, in order."""
    return [path.stem for path in sorted(SOURCES.glob("[0-9]*.py")) if CHECK.search(path.read_text(encoding="utf-8"))]


def find_lesson(number: str) -> str:
    """The lesson of a number, for instance of "01".

    Raises:
        ValueError: where no lesson has that number, or where it has no exercises.
    """
    there = {lesson[:2]: lesson for lesson in lessons()}
    if number not in there:
        said = f"LESSON={number} is none of them" if number else "LESSON is missing"
        raise ValueError(f"{said}: there are exercises in the lessons {', '.join(there)}; for instance LESSON=01")
    return there[number]


def source_version(lesson: str) -> tuple[NotebookNode, list[Exercise]]:
    """The notebook with solutions, tests and nbgrader's metadata, not executed, and its exercises.

    Raises:
        ValueError: where an exercise lacks a part, named with its number.
    """
    cells: list[NotebookNode] = []
    exercises: list[Exercise] = []
    current: Exercise | None = None  # the exercise whose check has not come yet
    solutions = 0
    for original in jupytext.read(SOURCES / f"{lesson}.py").cells:
        text = original.source
        if original.cell_type == "markdown":
            if card := CARD.search(text):
                if current:
                    raise ValueError(f"exercise {current.number} of {lesson} has no cell that calls its check")
                current, solutions = _exercise(card, text, lesson), 0
            cells.append(nbformat.v4.new_markdown_cell(OTHER_LESSON.sub(r"\1", text)))
            _mark(cells[-1], f"cell-{len(cells):03d}", locked=True)
        elif current and "### BEGIN SOLUTION" in text:
            solutions += 1
            cells.append(nbformat.v4.new_code_cell(text))
            name = f"exercise-{_dashed(current)}" + (f"-{solutions}" if solutions > 1 else "")
            _mark(cells[-1], name, solution=True)
        elif current and CHECK.search(text):
            if not solutions:
                raise ValueError(f"exercise {current.number} of {lesson} has no ### BEGIN SOLUTION before its check")
            cells += _tests(text, current, lesson)
            exercises.append(current)
            current = None
        else:
            cells.append(nbformat.v4.new_code_cell(text))
            _mark(cells[-1], f"cell-{len(cells):03d}", locked=True)
    if current:
        raise ValueError(f"exercise {current.number} of {lesson} has no cell that calls its check")
    cells.insert(1, _how_it_is_graded(exercises))
    tag_what_no_exercise_needs(cells)
    for number, cell in enumerate(cells):
        cell.id = f"{lesson[:2]}-{number:03d}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata), exercises


def _exercise(card: re.Match[str], text: str, lesson: str) -> Exercise:
    difficulty = DIFFICULTY.search(text, card.end())
    if not difficulty or difficulty[1] not in POINTS:
        raise ValueError(f"exercise {card[1]} of {lesson} needs **Difficulty** followed by one of {', '.join(POINTS)}")
    return Exercise(card[1], card[2].strip(), POINTS[difficulty[1]])


def _tests(text: str, exercise: Exercise, lesson: str) -> list[NotebookNode]:
    """The two graded cells: the check that the learner sees, and the hidden tests."""
    hidden = HIDDEN.search(text)
    if not hidden:
        raise ValueError(f"exercise {exercise.number} of {lesson} has no ### BEGIN HIDDEN TESTS after its check")
    shown = HIDDEN.sub("", text).rstrip()
    last = ast.parse(shown).body[-1]
    if not isinstance(last, ast.Expr):
        raise ValueError(
            f"exercise {exercise.number} of {lesson}: the check's cell has to end with the call of the check"
        )
    lines = shown.splitlines()
    report = f"report_{exercise.number.replace('.', '_')}"
    lines[last.lineno - 1] = f"{report} = {lines[last.lineno - 1]}"
    lines += [f'assert {report}.status == "correct", {report}', f"print({report})"]
    check = nbformat.v4.new_code_cell("\n".join(lines))
    more = nbformat.v4.new_code_cell(f"# Further tests of exercise {exercise.number} run here in grading.\n{hidden[0]}")
    for name, cell in (("check", check), ("hidden", more)):
        _mark(cell, f"{name}-{_dashed(exercise)}", grade=True, locked=True, points=exercise.points / 2)
    return [check, more]


def _how_it_is_graded(exercises: list[Exercise]) -> NotebookNode:
    rows = "\n".join(f"| {e.number} · {e.title} | {e.points} |" for e in exercises)
    cell = nbformat.v4.new_markdown_cell(
        "**To hand in.** Write your answers where `# your code here` stands. An exercise gives half of its points when "
        "its check says ✔, and the other half when further tests pass, which try other inputs. In grading, your cells "
        "and the tests run in a fresh kernel, and of the lesson's own cells those that they need.\n\n"
        f"| exercise | points |\n|---|---|\n{rows}\n| together | {sum(e.points for e in exercises)} |"
    )
    return _mark(cell, "how-it-is-graded", locked=True)


def _mark(cell: NotebookNode, grade_id: str, **more: float) -> NotebookNode:
    kind = {"grade": False, "solution": False, "locked": False, "task": False}
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": grade_id, **kind, **more}
    return cell


def _dashed(exercise: Exercise) -> str:
    return exercise.number.replace(".", "-")


def write_assignment(lesson: str, folder: Path, again: bool = False) -> list[Exercise]:
    """Write the source version into a class's folder, and let nbgrader make the release version and the gradebook.

    Raises:
        ValueError: where hand-ins are there already (unless ``again``), or where nbgrader refuses: with its words.
    """
    notebook, exercises = source_version(lesson)
    name = f"lesson{lesson[:2]}"
    if not again and (there := sorted(folder.glob(f"submitted/*/{name}"))):
        raise ValueError(
            f"{there[0]} was handed in on the present version of {name}, which building it again may change: "
            "add --again if you mean that (for a changed test or other points)"
        )
    path = folder / "source" / name / f"{lesson}.ipynb"
    text = nbformat.writes(notebook) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    shutil.copy2(HERE / "grading.py", folder)
    if not (folder / "nbgrader_config.py").exists():
        shutil.copy2(HERE / "nbgrader_config.py", folder)
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--force", "--log-level=WARN"]
    path_too = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # nbgrader calls alembic
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path_too})
    if done.returncode:
        raise ValueError(f"nbgrader could not make {name}:\n{done.stderr.strip()}")
    return exercises


def main() -> int:
    """Build what the command line asks for; 1 when it cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", nargs="?", default="", help="a lesson's number, for instance 01")
    parser.add_argument("--into", type=Path, default=CLASS, help="the class's folder; dist/assignments by default")
    parser.add_argument("--again", action="store_true", help="build it although hand-ins are there")
    parser.add_argument("--points", action="store_true", help="build nothing, write the points into GRADING.md")
    arguments = parser.parse_args()
    try:
        if arguments.points:
            page, table = HERE / "GRADING.md", "\n".join(points_table())
            text = TABLE.sub(lambda _: table, page.read_text(encoding="utf-8"), count=1)
            write_atomically(page, lambda path: path.write_text(text, encoding="utf-8"))
            print(table)
            return 0
        lesson = find_lesson(arguments.lesson)
        exercises = write_assignment(lesson, arguments.into, arguments.again)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    release = arguments.into / "release" / f"lesson{lesson[:2]}" / f"{lesson}.ipynb"
    print(f"{len(exercises)} exercises, {sum(e.points for e in exercises)} points; to hand out: {release}")
    return 0


def points_table() -> list[str]:
    """The points of all lessons, as the lines of a Markdown table."""
    rows = ["| lesson | exercises and their points | together |", "|---|---|---:|"]
    for lesson in lessons():
        exercises = source_version(lesson)[1]
        each = " · ".join(f"{e.number}: {e.points}" for e in exercises)
        rows.append(f"| {lesson[:2]} | {each} | {sum(e.points for e in exercises)} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
