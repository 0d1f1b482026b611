"""The syllabus, made of the lessons: `python classroom/syllabus.py` writes docs/syllabus.md, `--check` compares it.

Outcomes, exercises and minutes come from the sources, the lessons' order from course.csv, the questions from the
quizzes, the points from assignment.py. Only the rubric stands here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from assignment import SOURCES, points

from adapters_lesson.course.lesson_source import course, read_lesson
from adapters_lesson.guards.safe_files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "syllabus.md"
QUIZZES = ROOT / "notebooks" / "quizzes"
OUTCOME = re.compile(r"\*\*You will be able to\*\*\s+(.+?)(?=\n\n)", re.DOTALL)
HEAD = """# Syllabus

What a learner is able to do after each lesson, and by which exercises and questions you see it. The page is made by
`make syllabus`; nothing in it is typed by hand but the rubric. ◆ to ◆◆◆ says how hard an exercise is, and its points
are those of [grading](../classroom/GRADING.md). The questions of a quiz give none.
"""
RUBRIC = """## Rubric for what is read

Tests say whether an answer works. This says what a reader looks for, in an answer and in two minutes of talk about it.
Give 0, 1 or 2 for each row, for one exercise of the learner's choice and one of yours.

| | 0 | 1 | 2 |
|---|---|---|---|
| **The idea** | repeats the code in words | says what each line does | says why, and what fails without it |
| **Shapes and numbers** | cannot say them | says those of the lesson | derives them for other numbers on paper |
| **Evidence** | "it works" | names a run, a check or a test | says what it shows, and what not: seeds, margin |
| **The code** | hard to follow | works, with parts that nothing needs | short, with names that say what they hold |
| **A change** | none | a setting was changed and run | predicted first, changed one thing, compared |
"""


def outcome(text: str) -> str:
    """What a lesson's text says after "You will be able to", on one line.

    Raises:
        ValueError: where it says nothing.
    """
    if not (found := OUTCOME.search(text)):
        raise ValueError('its source lacks the paragraph that begins with "**You will be able to**"')
    return " ".join(found[1].split())


def syllabus() -> str:
    """The page.

    Raises:
        ValueError: where a lesson lacks its outcome, named with the lesson.
    """
    return "\n".join([HEAD, *(line for row in course() for line in _section(row)), RUBRIC])


def _section(row: dict[str, str]) -> Iterator[str]:
    number = row["lesson"][:2]
    lesson = read_lesson(SOURCES / f"{row['lesson']}.py")
    try:
        able = outcome(lesson.text)
    except ValueError as error:
        raise ValueError(f"{row['lesson']}: {error}") from None
    yield f"## {number} · {row['title']}\n"
    after = f" · after {row['builds_on'].replace(' ', ', ')}" if row["builds_on"] else ""
    yield f"[The lesson](../notebooks/{row['lesson']}.ipynb) · {row['minutes']} minutes{after}\n"
    yield f"**You will be able to** {able}\n"
    yield "| seen in | | minutes | points |\n|---|---|--:|--:|"
    for exercise in lesson.exercises:
        optional = ", optional" if exercise.optional else ""
        level = "◆" * exercise.difficulty
        title = f"{exercise.title} {level}{optional}"
        yield f"| exercise {exercise.number} | {title} | {exercise.minutes} | {points(exercise)} |"
    for place, question in enumerate(quiz(number), 1):
        text = " ".join(question["text"].split()).replace("|", "\\|")
        yield f"| question {number}.{place} | {text} | | |"
    yield ""


def quiz(number: str) -> list[dict]:
    """The questions of a lesson's quiz, as its file has them."""
    questions: list[dict] = json.loads((QUIZZES / f"{number}.json").read_text(encoding="utf-8"))
    return questions


def main() -> int:
    """Write the page, or with --check say whether the one that is there is the one that would be written."""
    if sys.argv[1:] not in ([], ["--check"]):
        print(f"{' '.join(sys.argv[1:])} is not known: give nothing, or --check", file=sys.stderr)
        return 2
    try:
        text = syllabus()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print("docs/syllabus.md is as the lessons are" if same else "docs/syllabus.md is out of step: make syllabus")
        return int(not same)
    write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
