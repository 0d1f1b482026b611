"""The quizzes: their files, what a learner chooses and reads, and the picture that stands for them."""

import html
import statistics

import ipywidgets as widgets
import pytest

from adapters_lesson import Adapter
from adapters_lesson.course.quiz import QUIZZES, Option, Question, Quiz, load_quiz, quiz
from adapters_lesson.history import load_results

LESSONS = [path.stem[:2] for path in sorted((QUIZZES.parent / "sources").glob("*.py"))]
QUESTIONS = (
    Question("Is `x` < 1?", (Option("yes", "It is `1 < 2`."), Option("no", "So it is.", right=True))),
    Question(
        "And y?", (Option("maybe", "For y = 2.", right=True), Option("never", "Once."), Option("often", "Twice."))
    ),
)


@pytest.fixture
def small():
    return Quiz("Two questions", QUESTIONS)


def press(made, number, text):
    """Choose the option with this text, as a learner does."""
    next(button for button in made.options[number] if button.description == text).click()


def test_the_order_of_the_options_is_fixed_and_mixed():
    questions = [question for lesson in LESSONS for question in load_quiz(lesson)]
    places = [[option.right for option in question.options].index(True) for question in questions]
    assert set(places) == {0, 1, 2, 3}
    assert [option.text for option in load_quiz("01")[0].options] == ["74,544", "590,592", "73,728", "73,824"]


def test_an_option_shows_its_reason_and_a_mark_in_words(small):
    press(small, 0, "yes")
    assert "<b>Not quite:</b> It is <code>1 &lt; 2</code>." in small.reasons[0].value
    assert small.options[0][0].icon == "times"
    assert "score: 0 of 2 at the first try, 1 of 2 answered" in small.status.value
    press(small, 0, "no")
    assert "<b>Right:</b> So it is." in small.reasons[0].value
    assert [button.icon for button in small.options[0]] == ["times", "check"]
    assert small.reasons[1].value == ""


def test_the_first_answer_counts(small):
    assert small.score == (0, 0)
    press(small, 0, "yes")
    press(small, 0, "no")
    assert small.score == (0, 1)
    press(small, 1, "maybe")
    press(small, 1, "often")
    assert small.score == (1, 2)
    assert "score: 1 of 2 at the first try, 2 of 2 answered" in small.status.value


def test_start_again_clears_everything(small):
    press(small, 0, "yes")
    press(small, 1, "maybe")
    small.next_button.click()
    small.restart_button.click()
    assert small.score == (0, 0)
    assert small.open.children == (small.pages[0],)
    assert "score: 0 of 2 at the first try, 0 of 2 answered" in small.status.value
    assert [reason.value for reason in small.reasons] == ["", ""]
    assert {button.icon for buttons in small.options for button in buttons} == {""}
    press(small, 0, "no")
    assert small.score == (1, 1)


def test_one_turns_from_question_to_question_in_a_circle(small):
    seen = []
    for button in (small.next_button, small.next_button, small.back_button, small.back_button):
        button.click()
        (page,) = small.open.children
        seen.append(small.pages.index(page))
    assert seen == [1, 0, 1, 0]


def controls(widget):
    """All widgets that a learner operates, in the order of the Tab key."""
    if isinstance(widget, widgets.Button):
        return [widget]
    assert not isinstance(widget, widgets.ValueWidget) or isinstance(widget, widgets.HTML)
    return [control for child in getattr(widget, "children", ()) for control in controls(child)]


def test_everything_is_a_button_with_its_text_for_a_name(small):
    above = ["Previous", "Next", "Start again"]
    assert [button.description for button in controls(small)] == [*above, "yes", "no"]
    small.next_button.click()
    assert [button.description for button in controls(small)] == [*above, "maybe", "never", "often"]
    assert all(button.tooltip and not button.disabled for button in controls(small))


def test_texts_are_escaped_and_code_is_marked(small):
    question = small.pages[0].children[0].value
    assert "<b>1 of 2.</b> Is <code>x</code> &lt; 1?" in question


def test_a_notebook_that_does_not_run_shows_the_questions_and_no_answers():
    made = quiz("03")
    press(made, 0, made.questions[0].options[0].text)
    data, _ = made._repr_mimebundle_()
    page = data["text/html"]
    assert "run this cell to answer" in page
    for question in made.questions:
        assert question.text.replace("`", "") in data["text/plain"]
        for option in question.options:
            assert f"<li>{html.escape(option.text)}</li>" in page
            assert html.escape(option.reason) not in page


def test_an_unknown_lesson_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"no quiz for lesson '1'; there are quizzes for 00, 01, 02"):
        quiz("1")


def forgotten(label, key):
    row = load_results("forgetting")["rows"][label]
    return 100 * statistics.mean(r[key] for r in row["runs"] if r["learning_rate"] == row["learning_rate"])


NUMBERS = {
    "01": lambda: [
        f"{Adapter.count(768, 48):,}",
        f"{2 * 768 * 48:,}",
        f"{2 * 768 * 48 + 2 * 48:,}",
        f"{768**2 + 768:,}",
    ],
    "04": lambda: [f"4·m is about {100 * 4 * 16 / (12 * 384 + 4 * 16):.0f} % for d = 384 and m = 16"],
    "05": lambda: [
        f"{forgotten('Houlsby m=16', 'old_before'):.0f} % became {forgotten('Houlsby m=16', 'old_after'):.0f} % with "
        f"adapters, and {forgotten('full fine-tuning', 'old_after'):.0f} % with full fine-tuning",
    ],
    "07": lambda: [
        f"standard error of each is about {(2000 * 0.826 * 0.174) ** 0.5:.0f} sentences",
    ],
}


@pytest.mark.parametrize("lesson", NUMBERS)
def test_numbers_in_the_quizzes_are_those_of_formulas_and_results(lesson):
    text = "\n".join(f"{option.text}\n{option.reason}" for question in load_quiz(lesson) for option in question.options)
    for expected in NUMBERS[lesson]():
        assert expected in text
