"""The syllabus and the poll sheets say what the lessons and quizzes say."""

import html
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "classroom"))
import assignment  # noqa: E402
import poll  # noqa: E402
import syllabus  # noqa: E402

from adapters_lesson.course.lesson_source import course  # noqa: E402

NUMBERS = [row["lesson"][:2] for row in course()]


def test_the_committed_syllabus_is_the_one_that_the_lessons_make(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["syllabus.py", "--check"])
    assert syllabus.main() == 0, "make syllabus, and commit docs/syllabus.md"
    other = tmp_path / "syllabus.md"
    other.write_text(syllabus.PAGE.read_text(encoding="utf-8").replace("◆◆◆", "◆", 1), encoding="utf-8")
    monkeypatch.setattr(syllabus, "PAGE", other)
    assert syllabus.main() == 1
    assert "make syllabus" in capsys.readouterr().out


def test_the_syllabus_has_every_exercise_with_its_points_and_every_question():
    text = syllabus.syllabus()
    for lesson in assignment.lessons().values():
        for exercise in lesson.exercises:
            row = rf"^\| exercise {re.escape(exercise.number)} \| .* \| {assignment.points(exercise)} \|$"
            assert re.search(row, text, re.MULTILINE), exercise.number
    assert text.count("\n| question ") == sum(len(syllabus.quiz(number)) for number in NUMBERS)
    assert text.count("**You will be able to**") == len(NUMBERS)


def test_a_lesson_without_its_outcome_is_named(monkeypatch, capsys):
    monkeypatch.setattr(syllabus, "OUTCOME", re.compile("no lesson says this"))
    monkeypatch.setattr(sys, "argv", ["syllabus.py"])
    assert syllabus.main() == 1
    assert capsys.readouterr().err.startswith("00_start_here: its source lacks the paragraph")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_sheet_asks_what_the_quiz_asks_and_its_key_is_right(number):
    page = poll.sheet(number, "a title")
    assert page == poll.sheet(number, "a title")
    assert "://" not in page and "<script" not in page  # it opens offline
    sheet, _, key = page.partition('<section class="key">')
    assert "✔" not in sheet
    plain = html.unescape(re.sub(r"<[^>]+>", "", sheet))
    letters = re.findall(r"<b>([A-H])</b><ol", key)
    questions = syllabus.quiz(number)
    assert len(letters) == len(questions)
    for letter, question, asked in zip(letters, questions, sheet.split('<li class="q">')[1:], strict=True):
        options = re.findall(r"<li>(.*?)</li>", asked)
        (right,) = (one["text"] for one in question["options"] if one.get("right"))
        assert options[poll.LETTERS.index(letter)] == poll._inline(right)
        assert sorted(options) == sorted(poll._inline(one["text"]) for one in question["options"])
        assert re.sub(r"[`*]", "", question["text"])[:40] in plain or "*" in question["text"]


def test_the_right_answer_is_not_always_the_same_letter():
    keys = "".join("".join(re.findall(r"<b>([A-H])</b><ol", poll.sheet(number, ""))) for number in NUMBERS)
    assert max(keys.count(letter) for letter in set(keys)) < len(keys) / 2


def test_a_lesson_that_is_not_there_is_refused(tmp_path, capsys):
    assert poll.main(["99"], tmp_path) == 1
    assert capsys.readouterr().err.startswith("99 is no lesson: there are 00, 01")
    assert poll.main(["01"], tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["01.html"]
