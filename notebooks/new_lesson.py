"""Write the skeleton of a lesson, which lacks nothing but your text: `python notebooks/new_lesson.py 11 prefix_tuning`.

What it writes and changes is all that a lesson has: its source, check, wrong answers, quiz, and its rows in course.csv,
README.md, TEACHING.md and GRADING.md. The templates are in notebooks/skeleton.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKELETON = ROOT / "notebooks" / "skeleton"
MINUTES = 10
QUESTION = "what is the question of this lesson?"


def write_lesson(number: str, name: str, root: Path = ROOT) -> list[Path]:
    """Write all parts of a lesson; returns the files that are new or changed.

    Raises:
        ValueError: where number or name are not possible, or a lesson has that number; nothing is written then.
    """
    if not re.fullmatch(r"\d\d", number) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f'a lesson is called for instance N=11 NAME=prefix_tuning, not N="{number}" NAME="{name}"')
    if there := sorted((root / "notebooks" / "sources").glob(f"{number}_*.py")):
        raise ValueError(f"there is a lesson {number} already: {there[0].name}")
    title = name.replace("_", " ").capitalize()
    words = {"NN": number, "N.1": f"{int(number)}.1", "TITLE": title, "QUESTION": QUESTION.capitalize()}
    words |= {f"N.{letter}": f"{int(number)}{letter}" for letter in "abc"}  # predictions

    def filled(template: str) -> str:
        text = (SKELETON / template).read_text(encoding="utf-8")
        return re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], text)

    new = {
        root / "notebooks" / "sources" / f"{number}_{name}.py": "lesson.py",
        root / "adapters_lesson" / "course" / "checks" / f"lesson{number}.py": "checks.py",
        root / "tests" / "wrong_answers" / f"lesson{number}.py": "wrong_answers.py",
        root / "notebooks" / "quizzes" / f"{number}.json": "quiz.json",
    }
    texts = {path: filled(template) for path, template in new.items()}
    row = f"| {number} | [{title}](notebooks/{number}_{name}.ipynb) | {QUESTION} | {MINUTES} |\n"
    glance = f"| {number} {title} | {MINUTES} | 5 | 01 to 03 | {QUESTION} |\n"
    points = f"| {number} | {int(number)}.1: 2 | 2 |\n"
    files = ("notebooks/course.csv", "README.md", "TEACHING.md", "classroom/GRADING.md")
    course, readme, teaching, grading = (root / file for file in files)
    texts[course] = course.read_text(encoding="utf-8") + f"{number}_{name},{title},{QUESTION},{MINUTES},01 02 03,\n"
    texts[readme] = _after_last(r"\| \d\d \| \[.*\n", row, readme.read_text(encoding="utf-8"))
    texts[grading] = _after_last(r"\| \d\d \| \d.*\n", points, grading.read_text(encoding="utf-8"))
    teaching_text = _after_last(r"\| \d\d [^|]+ \| \d+ \| .*\n", glance, teaching.read_text(encoding="utf-8"))
    texts[teaching] = _after_last(r"### \d\d · (?:.*\n)+?(?=## )", filled("teaching.md"), teaching_text)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _after_last(line: str, added: str, text: str) -> str:
    """The text with something added after the last place where a pattern begins a line."""
    *_, last = re.finditer(rf"^{line}", text, re.MULTILINE)
    return text[: last.end()] + added + text[last.end() :]


def main() -> int:
    """Write what the command line asks for; 1 when it cannot be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", help="two digits, for instance 11")
    parser.add_argument("name", nargs="?", default="new_lesson", help="for its files, for instance prefix_tuning")
    arguments = parser.parse_args()
    try:
        written = write_lesson(arguments.number, arguments.name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"wrote {path.relative_to(ROOT)}" for path in written))
    print(f'Build it, and the map in lesson 00: make notebooks ARGS="--execute 00 {arguments.number}"')
    print("Measure it: make lesson-times. Then make check-notebooks says what it lacks.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
