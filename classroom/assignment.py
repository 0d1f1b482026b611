"""Build an nbgrader assignment from a lesson's source: `python classroom/assignment.py 01`.

The source version, with solutions and hidden tests, goes to source/lesson01 in the class's folder. nbgrader makes the
release version from it, in release/lesson01, and notes its cells and points in gradebook.db.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from repair import tag_what_no_exercise_needs

from adapters_lesson.course.lesson_source import LANGUAGE, Cell, Exercise, Lesson, read_lesson
from adapters_lesson.guards.safe_files import write_atomically

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "notebooks" / "sources"
sys.path.append(str(SOURCES.parent))
import about  # noqa: E402

CLASS = HERE.parent / "dist" / "assignments"
GRADING = (
    "grading.py",
    "repair.py",
    "came_out.py",
    "watch.py",
    "box.py",
    "container.py",
)  # what nbgrader uses, beside its settings
POINTS = {1: 2, 2: 4, 3: 6}  # by difficulty; one half for the check that the learner sees, one for the hidden tests
TABLE = re.compile(r"^\| lesson \|.*?\|$(?!\n\|)", re.MULTILINE | re.DOTALL)
OTHER_LESSON = re.compile(r"\[([^\]]+)\]\([^)#:]+\.ipynb\)")


def lessons() -> dict[str, Lesson]:
    """The lessons with exercises, by number."""
    read = [read_lesson(path) for path in sorted(SOURCES.glob("[0-9]*.py"))]
    return {lesson.name[:2]: lesson for lesson in read if lesson.exercises}


def find_lesson(number: str) -> Lesson:
    """The lesson of a number, for instance of "01".

    Raises:
        ValueError: where no lesson has that number, or where it has no exercises.
    """
    there = lessons()
    if number not in there:
        said = f"LESSON={number} is none of them" if number else "LESSON is missing"
        raise ValueError(f"{said}: there are exercises in the lessons {', '.join(there)}; for instance LESSON=01")
    return there[number]


def assignment_name(lesson: Lesson) -> str:
    """What nbgrader calls it, for instance "lesson01"; an exam has a name of its own."""
    return f"lesson{lesson.name[:2]}" if lesson.name[:2].isdigit() else lesson.name


def points(exercise: Exercise) -> int:
    """What an exercise gives, by its difficulty."""
    return POINTS[exercise.difficulty]


def source_version(lesson: Lesson) -> NotebookNode:
    """The notebook with solutions, tests and nbgrader's metadata, not executed.

    Raises:
        ValueError: where an exercise lacks a part, named with its number.
    """
    answers: dict[int, str] = {}
    checks: dict[int, Exercise] = {}
    for exercise in lesson.exercises:
        if not (exercise.difficulty and exercise.answers and exercise.check and lesson.cells[exercise.check].hidden):
            raise ValueError(f"exercise {exercise.number} lacks a part: make check-notebooks says which")
        first, *more = exercise.answers
        answers |= {first: f"exercise-{_dashed(exercise)}"}
        answers |= {place: f"exercise-{_dashed(exercise)}-{k}" for k, place in enumerate(more, 2)}
        checks[exercise.check] = exercise
    cells: list[NotebookNode] = []
    for place, cell in enumerate(lesson.cells):
        if place in checks:
            cells += _tests(cell, checks[place])
        elif place in answers:
            cells.append(_mark(nbformat.v4.new_code_cell(cell.source), answers[place], solution=True))
        elif cell.kind == "markdown":
            text = OTHER_LESSON.sub(r"\1", cell.source)
            cells.append(_mark(nbformat.v4.new_markdown_cell(text), f"cell-{len(cells) + 1:03d}", locked=True))
        else:
            code = nbformat.v4.new_code_cell(cell.source)
            cells.append(_mark(code, f"cell-{len(cells) + 1:03d}", locked=True))
    cells = about.added(cells, lesson.name, about.table_of(SOURCES.parent).get(lesson.name), "class")
    for made in cells:  # what is added has no metadata of nbgrader yet
        if "nbgrader" not in made.metadata:
            _mark(made, made.id, locked=True)
    cells.insert(1, _how_it_is_graded(lesson.exercises))
    tag_what_no_exercise_needs(cells)
    for number, made in enumerate(cells):
        made.id = f"{lesson.name[:2]}-{number:03d}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": dict(LANGUAGE)})


def _tests(cell: Cell, exercise: Exercise) -> list[NotebookNode]:
    """The two graded cells: the check that the learner sees, and the hidden tests."""
    *above, call = cell.shown.splitlines()
    report = f"report_{exercise.number.replace('.', '_')}"
    lines = [*above, f"{report} = {call}", f'assert {report}.status == "correct", {report}', f"print({report})"]
    if not cell.check[0]:  # an exam's, which has asserts
        lines = [cell.shown]
    hidden = f"# Further tests of exercise {exercise.number} run here in grading.\n{cell.hidden}"
    return [
        _mark(nbformat.v4.new_code_cell(code), name, grade=True, locked=True, points=points(exercise) / 2)
        for name, code in (
            (f"check-{_dashed(exercise)}", "\n".join(lines)),
            (f"hidden-{_dashed(exercise)}", hidden),
        )
    ]


def _how_it_is_graded(exercises: tuple[Exercise, ...]) -> NotebookNode:
    rows = "\n".join(f"| {e.number} · {e.title} | {points(e)} |" for e in exercises)
    cell = nbformat.v4.new_markdown_cell(
        "**To hand in.** Write your answers where `# your code here` stands. An exercise gives half of its points when "
        "the cell below it passes, and the other half when further tests pass, which try other inputs. In grading, "
        "your cells and the tests run in a fresh kernel, and of the lesson's own cells those that they need.\n\n"
        f"| exercise | points |\n|---|---|\n{rows}\n| together | {sum(map(points, exercises))} |"
    )
    return _mark(cell, "how-it-is-graded", locked=True)


def _mark(cell: NotebookNode, grade_id: str, **more: float) -> NotebookNode:
    kind = {"grade": False, "solution": False, "locked": False, "task": False}
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": grade_id, **kind, **more}
    return cell


def _dashed(exercise: Exercise) -> str:
    return exercise.number.replace(".", "-")


def write_assignment(lesson: Lesson, folder: Path, again: bool = False) -> None:
    """Write the source version into a class's folder, and let nbgrader make the release version and the gradebook.

    Raises:
        ValueError: where hand-ins are there already (unless ``again``), or where nbgrader refuses: with its words.
    """
    notebook, name = source_version(lesson), assignment_name(lesson)
    if not again and (there := sorted(folder.glob(f"submitted/*/{name}"))):
        raise ValueError(
            f"{there[0]} was handed in on the present version of {name}, which building it again may change: "
            "add --again if you mean that (for a changed test or other points)"
        )
    path = folder / "source" / name / f"{lesson.name}.ipynb"
    text = nbformat.writes(notebook) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    for file in GRADING:
        shutil.copy2(HERE / file, folder)
    if not (folder / "nbgrader_config.py").exists():
        shutil.copy2(HERE / "nbgrader_config.py", folder)
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--force", "--log-level=WARN"]
    path_too = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # nbgrader calls alembic
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path_too})
    if done.returncode:
        raise ValueError(f"nbgrader could not make {name}:\n{done.stderr.strip()}")


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
        write_assignment(lesson, arguments.into, arguments.again)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    release = arguments.into / "release" / assignment_name(lesson) / f"{lesson.name}.ipynb"
    together = sum(map(points, lesson.exercises))
    print(f"{len(lesson.exercises)} exercises, {together} points; to hand out: {release}")
    return 0


def points_table() -> list[str]:
    """The points of all lessons, as the lines of a Markdown table."""
    rows = ["| lesson | exercises and their points | together |", "|---|---|---:|"]
    for number, lesson in lessons().items():
        each = " · ".join(f"{exercise.number}: {points(exercise)}" for exercise in lesson.exercises)
        rows.append(f"| {number} | {each} | {sum(map(points, lesson.exercises))} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
