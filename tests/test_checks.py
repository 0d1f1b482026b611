"""Every wrong answer gets the message that names its mistake, every right one passes, whatever its style."""

import subprocess
import sys
from itertools import groupby
from pathlib import Path
from statistics import correlation, mean

import pytest
import torch
from wrong_answers import RAISED, Exercise, Wrong, cards, exercises

from adapters_lesson.course.checks import check as report
from adapters_lesson.course.checks import lesson01

ROOT = Path(__file__).parents[1]
LESSONS = [f"{number:02}" for number in range(13)]
every_exercise = pytest.mark.parametrize("exercise", exercises(), ids=lambda e: f"{e.number}-{e.name}")


def cases(kind):
    return [
        pytest.param(exercise, place, id=f"{exercise.number}-{exercise.name}-{place}")
        for exercise in exercises()
        for place in range(len(getattr(exercise, kind)))
    ]


@pytest.mark.parametrize(("exercise", "place"), cases("wrong"))
def test_a_wrong_answer_is_told_its_mistake(exercise, place):
    outcome = exercise.report_of("wrong", place)
    assert outcome.status == report.WRONG
    assert exercise.wrong[place].words in outcome.message


@pytest.mark.parametrize(("exercise", "place"), cases("right"))
def test_a_right_answer_passes(exercise, place):
    outcome = exercise.report_of("right", place)
    assert outcome.status == report.CORRECT, outcome


@every_exercise
def test_the_collection_is_large_enough(exercise):
    assert len(exercise.wrong) >= 8
    assert len(exercise.right) >= 3
    assert all(len(wrong.words) >= 3 for wrong in exercise.wrong)


def test_the_collection_is_for_checks_that_are_there():
    for lesson in LESSONS:
        answers = __import__(f"wrong_answers.lesson{lesson}", fromlist=["WRONG"])
        names = {exercise.name for exercise in exercises() if exercise.lesson == int(lesson)}
        assert answers.WRONG.keys() == answers.RIGHT.keys() == names


def test_nine_in_ten_of_the_wrong_answers_get_a_message_that_names_their_very_mistake():
    named, wrong = sum(e.named() for e in exercises()), sum(len(e.wrong) for e in exercises())
    print(f"{named} of {wrong}, {named / wrong:.1%}")
    assert named >= 0.9 * wrong


def test_what_only_repeats_an_exception_or_is_marked_as_general_names_no_mistake():
    @report.check("0.1", "correct.")
    def look(answer):
        report.require(answer() == 1, "it is not 1")

    general, raising, other = Wrong(lambda: 3, "not 1", False), Wrong(lambda: 1 / 0, RAISED), Wrong(lambda: 4, "two")
    right = Wrong(lambda: 1, "not 1")
    exercise = Exercise("0.1", "look", look, (Wrong(lambda: 2, "not 1"), general, raising, other, right), ())
    assert exercise.refused() == 4
    assert exercise.named() == 1


def test_the_table_is_printed_by_a_command():
    # On two exercises: the whole table would run everything a second time.
    code = "import runpy, wrong_answers as w; w.exercises = lambda all=w.exercises(): all[3:5]; "
    code += "runpy.run_path('wrong_answers/table.py', run_name='__main__')"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, cwd=ROOT / "tests", capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert printed[0].split() == ["exercise", "wrong", "refused", "named", "right", "accepted"]
    assert printed[1].startswith("1.3 Count the parameters")
    first, second, total = ([int(cell) for cell in printed[i].split()[-5:]] for i in (1, 2, 4))
    assert total == [a + b for a, b in zip(first, second, strict=True)]
    assert printed[-1].startswith("refused 100.0% of the wrong answers")


def test_every_lesson_has_three_to_six_exercises_and_the_course_thirty_five():
    numbers = [exercise.number for exercise in exercises()]
    of_lesson = {lesson: [n for n in numbers if int(n.partition(".")[0]) == int(lesson)] for lesson in LESSONS}
    assert of_lesson.pop("00") == ["0.1"]
    for lesson, found in of_lesson.items():
        assert found == [f"{int(lesson)}.{k}" for k in range(1, len(found) + 1)]
        assert 3 <= len(found) <= 6
    assert sum(map(len, of_lesson.values())) == len(numbers) - 1 >= 35


def test_every_card_has_its_check_and_every_check_its_card():
    assert [(str(card), card.cell.check[0]) for card in cards()] == [(e.number, e.name) for e in exercises()]


@pytest.mark.parametrize("card", cards(), ids=str)
def test_an_untouched_stub_is_not_attempted_yet(card):
    check = next(exercise.check for exercise in exercises() if exercise.number == str(card))
    outcome = check(card.answer())
    assert outcome.status == report.NOT_ATTEMPTED, outcome


def test_the_exercises_become_more_difficult():
    of_lesson = groupby(cards(), lambda card: card.lesson.name)
    lessons = [[card.exercise.difficulty for card in group] for name, group in of_lesson if not name.startswith("00")]
    for difficulties in lessons:  # within a lesson, the hardest is never the first, and the last no easier than that
        assert difficulties[0] < max(difficulties)
        assert difficulties[-1] >= difficulties[0]
    averages = [mean(difficulties) for difficulties in lessons]
    assert mean(averages[5:]) >= mean(averages[:5]) + 0.25
    assert correlation(range(len(averages)), averages) > 0.4
    assert max(lessons[0]) < 3  # nothing of the hardest kind at the very beginning,
    assert sum(3 in difficulties for difficulties in lessons[5:]) >= 3  # and enough of it later


def test_a_learners_error_shows_the_learners_line():
    def count_parameters(d, m):
        return d * m + undefined_name  # noqa: F821

    outcome = lesson01.check_count(count_parameters)
    assert outcome.status == report.WRONG
    assert "NameError" in outcome.message
    assert "return d * m + undefined_name" in outcome.message


def test_an_exception_without_a_line_of_the_learners_is_not_told_as_theirs():
    ours = compile("lambda answer: torch.zeros(2) @ answer()", lesson01.__file__, "eval")  # a line of a check
    look = report.check("0.1", "correct.")(eval(ours, {"torch": torch}))
    assert look(lambda: torch.ones(3)).message.startswith("the check cannot use your answer as it is, RuntimeError")
    assert look(lambda: torch.zeros(2) @ torch.ones(3)).message.startswith(RAISED)


def test_prints_and_random_numbers_of_a_check_leave_no_trace(capsys):
    state = torch.get_rng_state()
    lesson01.check_count(lambda d, m: print("noise") or 2 * d * m + m + d)
    assert capsys.readouterr().out == ""
    assert torch.equal(state, torch.get_rng_state())
