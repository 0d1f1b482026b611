"""A class's marks: `python classroom/marks.py 01` prints them, and writes marks-01.csv and items-01.csv.

With --grade it has nbgrader grade the new hand-ins first, and write the feedback.

Points are those of the gradebook, with what was given by hand; why a hand-in failed, what is wrong with it and what its
learner was told first stands in the graded notebooks.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import StatisticsError, correlation, mean
from typing import Any, NamedTuple

import nbformat
from assignment import CLASS
from container import BOXES, ENGINES
from gains import table
from image import provide
from nbgrader.api import Gradebook, MissingEntry
from traitlets.config.loader import PyFileConfigLoader

OURS = "adapters_lesson"


class Mark(NamedTuple):
    """One learner's: the hand-in's state, points and what to mend by exercise, and what a teacher should know."""

    learner: str
    state: str
    points: dict[str, float]
    mend: dict[str, str]
    why: str


def marks(folder: Path, lesson: str) -> tuple[list[Mark], dict[str, float]]:
    """Everybody's marks for "lesson01", by name, and the points that each exercise gives.

    Raises:
        ValueError: where the class's folder has no gradebook, or it does not know the lesson.
    """
    if not (folder / "gradebook.db").exists():
        raise ValueError(f"{folder} is no class's folder, it has no gradebook.db: make assignment LESSON=01 makes one")
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        try:
            cells = [cell for book in gradebook.find_assignment(lesson).notebooks for cell in book.grade_cells]
        except MissingEntry:
            there = ", ".join(sorted(one.name.removeprefix("lesson") for one in gradebook.assignments))
            raise ValueError(f"the gradebook has no {lesson}: it has {there or 'none yet'}") from None
        most = _by_exercise((cell.name, cell.max_score) for cell in cells)
        got = {
            one.student.id: _by_exercise((grade.name, grade.score) for book in one.notebooks for grade in book.grades)
            for one in gradebook.assignment_submissions(lesson)
        }
        learners = {student.id for student in gradebook.students}
    learners |= {path.parent.name for path in folder.glob(f"submitted/*/{lesson}")}
    return [
        _mark(folder, lesson, name, dict.fromkeys(most, 0.0) | got.get(name, {})) for name in sorted(learners)
    ], most


def _by_exercise(cells: Any) -> dict[str, float]:
    """Points of an exercise, "1.3", out of those of its tests, "check-1-3" and "hidden-1-3"."""
    sums: dict[str, float] = {}
    for name, points in cells:
        number = name.partition("-")[2].replace("-", ".")
        sums[number] = sums.get(number, 0.0) + points
    return dict(sorted(sums.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def _mark(folder: Path, lesson: str, learner: str, points: dict[str, float]) -> Mark:
    """What became of one hand-in."""
    handed_in, graded = folder / "submitted" / learner / lesson, folder / "autograded" / learner / lesson
    came: dict[str, Any] = {}
    for path in graded.glob("*.ipynb"):
        came |= nbformat.read(path, as_version=4).metadata.get(OURS, {})
    mend = {number: exercise["mend"] for number, exercise in came.get("exercises", {}).items()}
    others = sorted({path.name for path in handed_in.glob("*.ipynb")} - {path.name for path in graded.glob("*.ipynb")})
    why = [*came.get("flags", []), *(f"not graded beside it: {name}" for name in others if came)]
    if not handed_in.exists():
        return Mark(learner, "nothing handed in", points, mend, "")
    if not came:
        files = ", ".join(sorted(path.name for path in handed_in.iterdir())) or "0 files"
        reason = f"nbgrader autograde has not graded {', '.join(others)}" if others else f"no notebook among {files}"
        return Mark(learner, "not graded", points, mend, reason)
    if came["failed"]:
        return Mark(learner, "failed", points, mend, came["failed"])
    if came["flags"]:
        return Mark(learner, "to be looked at", points, mend, "; ".join(why))
    empty = not any(points.values()) and all(said == "not attempted yet" for said in mend.values())
    return Mark(learner, "empty" if empty else "graded", points, mend, "; ".join(why))


def items(those: list[Mark], most: dict[str, float]) -> list[dict[str, Any]]:
    """A line for each exercise.

    Its difficulty is the mean share of its points (1 is easy), its discrimination the correlation of its points with
    those of all other exercises (near 0 or below: who is good elsewhere is not better here). Both are of the hand-ins
    that were graded and are not empty.
    """
    graded = [mark for mark in those if mark.state == "graded"]
    lines = []
    for number, of in most.items():
        here = [mark.points[number] for mark in graded]
        elsewhere = [sum(mark.points.values()) - mark.points[number] for mark in graded]
        try:
            discrimination: Any = round(correlation(here, elsewhere), 2)
        except StatisticsError:  # fewer than two, or all have the same
            discrimination = ""
        said = [mark.mend.get(number, "") for mark in graded if mark.points[number] < of]
        kinds = Counter(re.sub(r"\d[\d.,]*", "#", sentence) for sentence in said if sentence)
        (kind, times), *_ = kinds.most_common(1) or [("", 0)]
        sentence = next((one for one in said if re.sub(r"\d[\d.,]*", "#", one) == kind), "")
        lines.append(
            {
                "exercise": number,
                "points": of,
                "hand-ins": len(here),
                "difficulty": round(mean(here) / of, 2) if here else "",
                "discrimination": discrimination,
                "said most often": sentence,
                "times": times,
            }
        )
    return lines


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a CSV file that spreadsheets open as UTF-8, and in which no cell is a formula."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: f"'{it}" if str(it)[:1] in ("=", "+", "@") else it for key, it in row.items()} for row in rows
        )


def grade(folder: Path, lesson: str, box: str = "") -> None:
    """Have nbgrader grade what is new, and write the feedback of all. What it cannot grade, the marks name.

    Args:
        folder: the class's.
        lesson: for instance "lesson01".
        box: where hand-ins run, one of container.BOXES; empty is what the class's settings say.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where its helper alembic is
    for command, more in (
        ("autograde", [f"--ExecuteWhatIsGraded.box={box}"] if box else []),
        ("generate_feedback", []),
    ):
        words = [sys.executable, "-m", "nbgrader", command, lesson, "--log-level=WARN", *more]
        if folder.exists():
            subprocess.run(words, cwd=folder, env={**os.environ, "PATH": path}, check=False)


def have_box(folder: Path, box: str, base: str) -> None:
    """Have the image built that the hand-ins run in, and say it where there is none.

    Raises:
        ValueError: where the box was named, and cannot be used.
    """
    if not box and (folder / "nbgrader_config.py").exists():
        settings = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
        box = settings.ExecuteWhatIsGraded.get("box", "")
    why_not = provide(box or "auto", base)
    if why_not and box in ENGINES:
        raise ValueError(f"hand-ins cannot run in a container: {why_not}")
    if why_not:
        print(f"Hand-ins run without a container: {why_not}")


def main() -> int:
    """Print and write what the command line asks for; 1 when there is nothing to tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", nargs="?", default="", help="a lesson's number, for instance 01, or an exam, exam_7")
    parser.add_argument("--of", type=Path, default=CLASS, help="the class's folder; dist/assignments by default")
    parser.add_argument("--progress", type=Path, help="a folder with progress.json files; submitted/ by default")
    parser.add_argument("--grade", action="store_true", help="grade what is new first, and write the feedback")
    parser.add_argument("--box", choices=BOXES, default="", help="where hand-ins run; auto, or what the settings say")
    parser.add_argument("--base", default="", help="the image to build the container's from, in place of Python's own")
    arguments = parser.parse_args()
    folder, name = arguments.of, arguments.lesson
    lesson = f"lesson{name}" if name.isdigit() or not name else name
    try:
        if arguments.grade:
            have_box(folder, arguments.box, arguments.base)
            grade(folder, lesson, arguments.box)
        those, most = marks(folder, lesson)
        if not those:
            raise ValueError(f"nothing was handed in: hand-ins belong into {folder}/submitted/NAME/{lesson}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    rows = [
        {"learner": one.learner, "state": one.state, **one.points, "together": sum(one.points.values()), "why": one.why}
        for one in those
    ]
    lines = items(those, most)
    write(folder / f"marks-{name}.csv", rows)
    write(folder / f"items-{name}.csv", lines)
    wide = max(len(one.learner) for one in those)
    for row in rows:
        each = "  ".join(f"{row[number]:g}" for number in most)
        print(f"{row['learner']:{wide}} {each}   {row['together']:4g} of {sum(most.values()):g}   {row['state']}")
        if row["why"]:
            print(f"{'':{wide}} {row['why']}")
    print("\nexercise  difficulty  discrimination  said most often")
    for line in lines:
        said = f"{line['times']} times: {line['said most often']}" if line["times"] else ""
        print(f"{line['exercise']:8}  {line['difficulty']!s:>10}  {line['discrimination']!s:>14}  {said}")
    states = Counter(one.state for one in those)
    print(f"\n{len(those)} learners: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    print("progress.json: " + "\n".join(table(arguments.progress or folder / "submitted")))
    print(f"Written: {folder / f'marks-{name}.csv'}, {folder / f'items-{name}.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
