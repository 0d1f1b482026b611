"""The quiz at the end of a lesson: multiple choice, with a reason for every option."""

import datetime
import hashlib
import html
import json
import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import ipywidgets as widgets

from adapters_lesson.course.explorers.frame import Panel, button, option_button, row
from adapters_lesson.data import NOTEBOOKS

from .record import known, note, note_quiz
from .words import _

QUIZZES = NOTEBOOKS / "quizzes"
LETTERS = "ABCDEFGH"


class Option(NamedTuple):
    """One answer: plain ``text``, and the ``reason`` why it is ``right``, or what mistake leads to it."""

    text: str
    reason: str
    right: bool = False


class Question(NamedTuple):
    """A question and its options, in the order in which they are shown."""

    text: str
    options: tuple[Option, ...]

    @property
    def key(self) -> str:
        """By which the record knows it."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]


def load_quiz(lesson: str) -> tuple[Question, ...]:
    """The questions of a lesson ("01") from notebooks/quizzes; ValueError where there is no such quiz.

    The options come in an order drawn once for each question: the right one can stand first in the file.
    """
    if not (path := QUIZZES / f"{lesson}.json").is_file():
        there = ", ".join(sorted(path.stem for path in QUIZZES.glob("[0-9][0-9].json")))
        raise ValueError(f"there is no quiz for lesson {lesson!r}; there are quizzes for {there}")
    questions = []
    for asked in json.loads(path.read_text(encoding="utf-8")):
        options = [Option(**option) for option in asked["options"]]
        mixed = random.Random(asked["text"]).sample(options, len(options))
        questions.append(Question(asked["text"], tuple(mixed)))
    return tuple(questions)


class Questions(NamedTuple):
    """The questions with lettered options and without answers, for whoever reads a notebook that does not run."""

    title: str
    questions: Sequence[Question]

    def bundle(self, note: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """As that of a ``Picture``."""
        asked = (f"{n}. {_(q.text).replace('`', '')}" for n, q in enumerate(self.questions, 1))
        items = ""
        for question in self.questions:
            options = "".join(f"<li>{html.escape(_(option.text))}</li>" for option in question.options)
            items += f"<li>{_markup(question.text)}<ol type='A'>{options}</ol></li>"
        page = f"<b>{html.escape(_(self.title))}</b> {_('(run this cell to answer)')}<ol>{items}</ol>"
        return {"text/html": page, "text/plain": f"{_(self.title)}. {' '.join(asked)}"}, {}


def _markup(text: str) -> str:
    """HTML in which only what stands between backticks is formatted, as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(_(text)))


class Quiz(Panel):
    """One question at a time; an option that is chosen shows its reason, and may be followed by another.

    Each option is a button: with the arrow keys one cannot reach the third radio button without choosing the second on
    the way, and the first choice counts: it is recorded. ``on_finish`` is called when every question is answered, with
    how many were right at the first try, and how many questions there are.
    """

    def __init__(self, title: str, questions: Sequence[Question], on_finish: Callable[..., Any] | None = None) -> None:
        super().__init__(title)
        self._on_finish, self.questions = on_finish, questions
        self.picture = Questions(title, questions)
        self._first: dict[int, Option] = {}
        self.reasons = [widgets.HTML(layout={"min_height": "44px"}) for _ in questions]
        self.options, self.pages = [], []
        for n, question in enumerate(questions):
            self.options.append([option_button(o.text, partial(self.choose, n, o)) for o in question.options])
            text = f"<b>{_(f'{n + 1} of {len(questions)}')}.</b> {_markup(question.text)}"
            asked = widgets.HTML(f'<div style="line-height: 1.4">{text}</div>')
            # All pages are equally wide, whatever their texts are.
            self.pages.append(widgets.VBox([asked, *self.options[n], self.reasons[n]], layout={"width": "100%"}))
        self.open = widgets.VBox(layout={"width": "100%", "max_width": "800px"})  # Colab has no Stack
        self.back_button = button("Previous", "The question before", lambda: self._turn(-1))
        self.next_button = button("Next", "The next question", lambda: self._turn(1))
        self.restart_button = button("Start again", "Clear all answers and the score", self.start_again)
        heading = widgets.HTML(f"<b>{html.escape(_(title))}</b>")
        # Above the question, so that no button moves when another question has more options.
        above = row(heading, self.back_button, self.next_button, self.restart_button, self.status)
        self.children = [self.still, above, self.open]
        self.start_again()

    @property
    def score(self) -> tuple[int, int]:
        """How many questions were right at the first try, and how many were answered."""
        return sum(option.right for option in self._first.values()), len(self._first)

    def choose(self, number: int, option: Option) -> None:
        """Answer question ``number`` (from 0) with one of its options; only the first answer counts."""
        is_first = number not in self._first
        self._first.setdefault(number, option)
        reason = f"<b>{_('Right') if option.right else _('Not quite')}:</b> {_markup(option.reason)}"
        self.reasons[number].value = f'<div role="status" style="line-height: 1.4">{reason}</div>'
        chosen = self.options[number][self.questions[number].options.index(option)]
        chosen.icon = "check" if option.right else "times"
        self._say_score()
        if is_first:
            day = datetime.date.today().isoformat()
            note("asked", self.questions[number].key, {"right": option.right, "day": day})
        if is_first and self._on_finish and self.score[1] == len(self.questions):
            self._on_finish(*self.score)

    def _turn(self, by: int) -> None:
        """Turn pages; after the last comes the first again."""
        self.open.children = [self.pages[(self.pages.index(self.open.children[0]) + by) % len(self.pages)]]

    def start_again(self) -> None:
        """Clear answers, reasons and score, and show the first question."""
        self._first.clear()
        for reason in self.reasons:
            reason.value = ""
        for option in chain(*self.options):
            option.icon = ""
        self.open.children = self.pages[:1]
        self._say_score()

    def _say_score(self) -> None:
        (right, answered), number = self.score, len(self.questions)
        self.say(f"score: {right} of {number} at the first try, {answered} of {number} answered")


def quiz(lesson: str) -> Quiz:
    """The quiz of a lesson, for instance ``quiz("01")``; ``progress()`` knows the score when it is finished."""
    return Quiz(f"Check yourself: lesson {lesson}", load_quiz(lesson), partial(note_quiz, lesson))


def review(lesson: str, questions: int = 5) -> Quiz:
    """Questions from the lessons before ``lesson``: those missed when last asked, then the oldest, then new ones."""
    earlier = [path.stem for path in sorted(QUIZZES.glob("[0-9][0-9].json")) if path.stem < lesson]
    asked, there = known()["asked"], [question for one in earlier for question in load_quiz(one)]
    random.Random(f"{lesson} {datetime.date.today()}").shuffle(there)

    def turn(question: Question) -> tuple[bool, bool, str]:
        last = asked.get(question.key)
        return last is None, bool(last and last["right"]), last["day"] if last else ""

    return Quiz(f"Before lesson {lesson}: do you remember?", sorted(there, key=turn)[:questions])


def concept_test(when: str) -> Quiz:
    """Twelve questions on the course's concepts, ``when`` is "before" or "after" it: two forms of equal difficulty.

    After the second the gain is shown. Raises ValueError for another word.
    """
    if when not in ("before", "after"):
        raise ValueError(f'a concept test is taken "before" the course or "after" it, not {when!r}')
    made = Quiz(f"What do you know {when} the course?", load_quiz(f"concepts_{when}"))

    def finish(right: int, questions: int) -> None:
        if when not in known()["concepts"]:  # the first time counts
            note("concepts", when, {"right": right, "questions": questions})
        record = known()["concepts"]
        if record.keys() >= {"before", "after"}:
            then, now = record["before"]["right"], record["after"]["right"]
            made.say(f"{then} of {questions} were right before the course, {now} after it: a gain of {now - then}")

    made._on_finish = finish
    return made
