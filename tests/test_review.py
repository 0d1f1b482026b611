"""Questions that come again, and the concept test before and after the course."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapters_lesson.course import quiz, record
from adapters_lesson.course.quiz import concept_test, load_quiz, review

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The learner's record, in the folder of a notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(record, "_unsaved", {})
    return tmp_path / "progress.json"


def asked(question, right, day):
    record.note("asked", question.key, {"right": right, "day": day})


def test_missed_questions_come_first_then_the_oldest_then_new_ones(file):
    first, second, third, *_ = load_quiz("01")
    asked(first, True, "2026-01-03")
    asked(second, False, "2026-01-04")
    asked(third, True, "2026-01-02")
    made = review("02", questions=4)
    assert [question.key for question in made.questions[:3]] == [second.key, third.key, first.key]
    assert made.questions[3].key not in record.known()["asked"]


def test_only_earlier_lessons_are_asked(file):
    keys = {question.key for lesson in ("00", "01") for question in load_quiz(lesson)}
    assert {question.key for question in review("02", questions=50).questions} == keys


def test_an_answer_is_remembered_and_asked_again_if_it_was_wrong(file):
    made = review("02")
    question = made.questions[0]
    made.choose(0, next(option for option in question.options if not option.right))
    made.choose(0, next(option for option in question.options if option.right))  # the first one counts
    assert record.known()["asked"][question.key]["right"] is False
    assert review("02").questions[0].key == question.key


def take(when, right):
    """Take a concept test with so many right answers."""
    made = concept_test(when)
    for number, question in enumerate(made.questions):
        made.choose(number, next(option for option in question.options if option.right == (number < right)))
    return made


def test_the_gain_is_shown_after_the_second_test(file):
    assert "gain" not in take("before", 4).status.value
    assert "4 of 12 were right before the course, 10 after it: a gain of 6" in take("after", 10).status.value
    take("before", 12)
    assert record.known()["concepts"]["before"] == {"right": 4, "questions": 12}  # the first time counts


def test_both_forms_ask_twelve_other_questions():
    forms = [load_quiz(f"concepts_{when}") for when in ("before", "after")]
    assert [len(form) for form in forms] == [12, 12]
    assert not {question.text for question in forms[0]} & {question.text for question in forms[1]}
    with pytest.raises(ValueError, match="not 'now'"):
        concept_test("now")


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_concept_question_is_given_away_by_its_length(when):
    longest = 0
    for question in load_quiz(f"concepts_{when}"):
        assert len(question.text) <= 110
        assert sum(option.right for option in question.options) == 1
        lengths = [len(option.text) for option in question.options]
        longest += max(question.options, key=lambda option: len(option.text)).right
        assert max(lengths) <= 80
    assert longest <= 5


def test_a_teacher_gets_the_table_from_what_was_handed_in(file):
    take("before", 3)
    take("after", 9)
    record.note_exercise("1.1", True)
    Path("other.json").write_text(json.dumps({"a": 1}))
    said = subprocess.run([sys.executable, ROOT / "classroom" / "gains.py", "."], capture_output=True, text=True).stdout
    assert "1 files; exercises done: 1.0 on average" in said
    assert "1 took both tests: 3.0 of 12 right before, 9.0 after" in said
    assert "gain: +6.0 on average" in said
    assert "other.json is left out: it was not written by this version of the course" in said
    wrong = subprocess.run([sys.executable, ROOT / "classroom" / "gains.py"], capture_output=True, text=True)
    assert "give a folder" in wrong.stderr
    assert quiz.QUIZZES.is_dir()
