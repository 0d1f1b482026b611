"""The minutes of a lesson: its words and its exercises fit into the time that the course promises."""

import csv
import re
from pathlib import Path

import jupytext
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
MINUTES = {
    row["lesson"]: int(row["minutes"])
    for row in csv.DictReader((NOTEBOOKS / "course.csv").read_text(encoding="utf-8").splitlines())
}
WORDS_A_MINUTE = 130
CARD = re.compile(r"^### Exercise (\d+\.\d+)", re.MULTILINE)
CARDS_MINUTES = re.compile(r"\*\*Difficulty\*\* [◆◇]{3} · \*\*(\d+) minutes?\*\*( · optional)?")


def text_cells(lesson):
    source = jupytext.read(NOTEBOOKS / "sources" / f"{lesson}.py")
    return [cell.source for cell in source.cells if cell.cell_type == "markdown"]


def words_to_read(text):
    """What is folded up is not counted, nor are formulas that stand alone."""
    text = re.sub(r"<details>.*?</details>|\$\$.*?\$\$", "", text, flags=re.DOTALL)
    return len(re.findall(r"[A-Za-z0-9][\w’'.,%·-]*", text))


def minutes_of_exercises(text):
    text = " ".join(text.split())  # a line may break anywhere
    return sum(int(minutes) for minutes, optional in CARDS_MINUTES.findall(text) if not optional)


def minutes_needed(cells):
    return sum(map(words_to_read, cells)) / WORDS_A_MINUTE + sum(map(minutes_of_exercises, cells))


@pytest.mark.parametrize("lesson", MINUTES)
def test_no_lesson_is_above_its_minutes(lesson):
    needed = minutes_needed(text_cells(lesson))
    assert needed <= MINUTES[lesson], f"{needed:.1f} minutes of reading and exercises, {MINUTES[lesson]} in course.csv"


@pytest.mark.parametrize("lesson", MINUTES)
def test_the_lesson_says_the_minutes_of_the_course(lesson):
    text = "\n".join(text_cells(lesson))
    assert re.findall(r"^\*\*Time\.\*\* (\d+) minutes", text, re.MULTILINE) == [str(MINUTES[lesson])]


@pytest.mark.parametrize("lesson", MINUTES)
def test_every_exercise_says_its_minutes(lesson):
    for cell in text_cells(lesson):
        cards = re.split(r"^(?=### Exercise)", cell, flags=re.MULTILINE)
        for card in (card for card in cards if CARD.match(card)):
            # A card's lines may break anywhere, its difficulty included.
            assert len(CARDS_MINUTES.findall(" ".join(card.split()))) == 1, CARD.match(card)[1]


def test_the_count_tells_what_is_read_from_what_is_folded_up_or_optional():
    assert words_to_read("Two words.\n<details><summary>Not\nthese</summary></details>\n$$x + y$$") == 2
    assert minutes_of_exercises("**Difficulty** ◆◆◇ · **7 minutes**") == 7
    assert minutes_of_exercises("**Difficulty** ◆◆◆ · **9 minutes** · optional") == 0
    assert minutes_needed(["word " * 260 + "\n**Difficulty** ◆◇◇ · **3 minutes**"]) > 5
