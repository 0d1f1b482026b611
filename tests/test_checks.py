"""Every wrong answer gets the message that names its mistake, every right one passes, whatever its style."""

import pytest
import torch
from wrong_answers import lesson01 as answers01
from wrong_answers import lesson03 as answers03
from wrong_answers import lesson04 as answers04
from wrong_answers import lesson05 as answers05
from wrong_answers import lesson08 as answers08
from wrong_answers import lesson09 as answers09
from wrong_answers import lesson10 as answers10

from adapters_lesson.checks import lesson01, lesson03, lesson04, lesson05, lesson08, lesson09, lesson10, report

LESSONS = (
    (lesson01, answers01),
    (lesson03, answers03),
    (lesson04, answers04),
    (lesson05, answers05),
    (lesson08, answers08),
    (lesson09, answers09),
    (lesson10, answers10),
)


def cases(kind):
    return [
        pytest.param(getattr(checks, name), entry, id=f"{name}-{i}")
        for checks, answers in LESSONS
        for name, entries in getattr(answers, kind).items()
        for i, entry in enumerate(entries)
    ]


@pytest.mark.parametrize(("check", "entry"), cases("WRONG"))
def test_a_wrong_answer_is_told_its_mistake(check, entry):
    answer, words = entry
    outcome = check(answer)
    assert outcome.status == report.WRONG
    assert words in outcome.message


@pytest.mark.parametrize(("check", "answer"), cases("RIGHT"))
def test_a_right_answer_passes(check, answer):
    outcome = check(answer)
    assert outcome.status == report.CORRECT, outcome


@pytest.mark.parametrize("answers", [answers for _, answers in LESSONS])
def test_there_are_at_least_six_wrong_answers_for_each_exercise(answers):
    assert min(len(entries) for entries in answers.WRONG.values()) >= 6
    assert answers.WRONG.keys() == answers.RIGHT.keys()


def stub(*args):
    raise NotImplementedError


@pytest.mark.parametrize("check", [getattr(c, n) for c, a in LESSONS for n in a.WRONG if n != "check_forward"])
def test_an_untouched_stub_is_not_attempted_yet(check):
    assert check(stub).status == report.NOT_ATTEMPTED


def test_a_class_with_an_untouched_forward_is_not_attempted_yet():
    assert lesson01.check_forward(answers01.with_forward(stub)).status == report.NOT_ATTEMPTED


def test_a_learners_error_shows_the_learners_line():
    def count_parameters(d, m):
        return d * m + undefined_name  # noqa: F821

    outcome = lesson01.check_count(count_parameters)
    assert outcome.status == report.WRONG
    assert "NameError" in outcome.message
    assert "return d * m + undefined_name" in outcome.message


def test_prints_and_random_numbers_of_a_check_leave_no_trace(capsys):
    state = torch.get_rng_state()
    lesson01.check_count(lambda d, m: print("noise") or 2 * d * m + m + d)
    assert capsys.readouterr().out == ""
    assert torch.equal(state, torch.get_rng_state())
