"""The quiz at the end of a lesson: multiple choice, with a reason for every option."""

from __future__ import annotations

import html
import json
import random
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from ..checks.record import note_quiz
from ..plots import Picture
from ..plots.diagrams import NOTEBOOKS
from ..plots.style import INK, course_style
from .frame import Panel, button, row

QUIZZES = NOTEBOOKS / "quizzes"
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Option:
    """One answer: plain ``text``, and the ``reason`` why it is ``right``, or what mistake leads to it."""

    text: str
    reason: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question and its options, in the order in which they are shown."""

    text: str
    options: tuple[Option, ...]


def load_quiz(lesson: str) -> tuple[Question, ...]:
    """The questions of a lesson, for instance of "01", from notebooks/quizzes.

    Raises:
        ValueError: where there is no such quiz, or where its file is malformed: which file, question and mistake.
    """
    if not (path := QUIZZES / f"{lesson}.json").is_file():
        there = ", ".join(sorted(path.stem for path in QUIZZES.glob("*.json")))
        raise ValueError(f"there is no quiz for lesson {lesson!r}; there are quizzes for {there}")
    return read_quiz(path)


def read_quiz(path: Path) -> tuple[Question, ...]:
    """The questions in a file: a list of ``{"text": …, "options": [{"text": …, "reason": …, "right": true}, …]}``.

    Exactly one option of a question has ``"right": true``. The options come in an order that is drawn once for each
    question, so that the right one can stand first in the file.

    Raises:
        ValueError: names the file, the question and the mistake.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path.name} should hold a list of questions")
    return tuple(_question(entry, f"{path.name}, question {number}") for number, entry in enumerate(entries, 1))


def _question(entry: Any, where: str) -> Question:
    try:
        return _checked(entry)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _checked(entry: Any) -> Question:
    _check_keys(entry, "the question", ("text", "options"), ())
    text = _text(entry["text"], "the question's text")
    if not isinstance(entry["options"], list) or not 2 <= len(entry["options"]) <= len(LETTERS):
        raise ValueError(f"it needs a list of 2 to {len(LETTERS)} options")
    options = [_option(option, letter) for option, letter in zip(entry["options"], LETTERS, strict=False)]
    if len({option.text for option in options}) < len(options):
        raise ValueError("two options have the same text")
    if (right := sum(option.right for option in options)) != 1:
        raise ValueError(f"exactly one option must be right, not {right}")
    return Question(text, tuple(random.Random(text).sample(options, len(options))))


def _option(entry: Any, letter: str) -> Option:
    name = f"option {letter}"
    _check_keys(entry, name, ("text", "reason"), ("right",))
    right = entry.get("right", False)
    if not isinstance(right, bool):
        raise ValueError(f'{name}: "right" is {right!r}, it should be true or be left out')
    text = _text(entry["text"], f"the text of {name}")
    if "`" in text:
        raise ValueError(f"{name} has backticks: a button shows plain text only")
    return Option(text, _text(entry["reason"], f"the reason of {name}"), right)


def _check_keys(entry: Any, name: str, needed: Sequence[str], allowed: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} should be an object with {', '.join(needed)}")
    if missing := [key for key in needed if key not in entry]:
        raise ValueError(f"{name} has no {missing[0]!r}")
    if unknown := [key for key in entry if key not in (*needed, *allowed)]:
        raise ValueError(f"{name} has the unknown key {unknown[0]!r}")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is empty")
    return value.strip()


def draw_quiz(title: str, questions: Sequence[Question]) -> Picture:
    """The questions with lettered options and without answers, for whoever reads a notebook that does not run."""
    lines = [(0.0, 15, title)]  # indent in inches, font size, text
    for number, question in enumerate(questions, 1):
        lines.append((0.0, 6, ""))
        lines += _wrapped(f"{number}. ", question.text, 0.0, 13, 112)
        for letter, option in zip(LETTERS, question.options, strict=False):
            lines += _wrapped(f"{letter}  ", option.text, 0.3, 12, 116)
    return Picture(_sheet(lines), f"{title}. " + " ".join(f"{n}. {_plain(q.text)}" for n, q in enumerate(questions, 1)))


def _wrapped(mark: str, text: str, indent: float, size: int, width: int) -> list[tuple[float, int, str]]:
    hanging = " " * 4  # as wide as the mark
    return [(indent, size, line) for line in textwrap.wrap(mark + _plain(text), width, subsequent_indent=hanging)]


@course_style
def _sheet(lines: Sequence[tuple[float, int, str]]) -> Figure:
    inches = [1.45 * size / 72 for _, size, _ in lines]
    width, height, margin = 11.0, sum(inches) + 0.3, 0.15
    figure, y = Figure(figsize=(width, height)), height - margin
    for (indent, size, line), high in zip(lines, inches, strict=True):
        figure.text((margin + indent) / width, y / height, line, fontsize=size, va="top", color=INK)
        y -= high
    return figure


def _plain(text: str) -> str:
    return text.replace("`", "")


def _markup(text: str) -> str:
    """HTML in which only what stands between backticks is formatted, as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


class Quiz(Panel):
    """One question at a time; an option that is chosen shows its reason, and may be followed by another.

    Each option is a button and not a radio button: with the arrow keys one cannot reach the third radio button without
    choosing the second on the way, and the first choice counts.

    Args:
        on_finish: called when every question is answered, with how many were right at the first try, and how many
            questions there are.

    Attributes:
        questions: what is asked.
        pages: a stack with one page for each question.
        options: for each question, the buttons of its options.
        reasons: for each question, the text below the options.
    """

    def __init__(
        self,
        title: str,
        questions: Sequence[Question],
        on_finish: Callable[[int, int], object] = lambda right, of: None,
    ) -> None:
        super().__init__(title)
        self._on_finish = on_finish
        self.questions = tuple(questions)
        self.picture = draw_quiz(title, questions)
        self._first: dict[int, Option] = {}
        self.reasons = [widgets.HTML(layout=widgets.Layout(min_height="44px")) for _ in self.questions]
        self.options = [
            [self._option_button(n, option) for option in question.options] for n, question in enumerate(self.questions)
        ]
        self.pages = widgets.Stack(
            [self._page(n) for n in range(len(self.questions))],
            selected_index=0,
            layout=widgets.Layout(width="100%", max_width="800px"),
        )
        self.back_button = button(
            "Previous", "The question before", lambda: self.turn_to(self.pages.selected_index - 1)
        )
        self.next_button = button("Next", "The next question", lambda: self.turn_to(self.pages.selected_index + 1))
        self.restart_button = button("Start again", "Clear all answers and the score", self.start_again)
        heading = widgets.HTML(f"<b>{html.escape(title)}</b>")
        # Above the question, so that no button moves when another question has more options.
        self.children = [row(heading, self.back_button, self.next_button, self.restart_button, self.status), self.pages]
        self.start_again()

    @property
    def score(self) -> tuple[int, int]:
        """How many questions were right at the first try, and how many were answered."""
        return sum(option.right for option in self._first.values()), len(self._first)

    def choose(self, number: int, option: Option) -> None:
        """Answer question ``number`` (from 0) with one of its options; only the first answer counts."""
        is_first = number not in self._first
        self._first.setdefault(number, option)
        verdict = "Right:" if option.right else "Not quite:"
        self.reasons[
            number
        ].value = f'<div role="status" style="line-height: 1.4"><b>{verdict}</b> {_markup(option.reason)}</div>'
        chosen = self.options[number][self.questions[number].options.index(option)]
        chosen.icon = "check" if option.right else "times"
        self._say_score()
        if is_first and self.score[1] == len(self.questions):
            self._on_finish(*self.score)

    def turn_to(self, number: int) -> None:
        """Show question ``number``, counted from 0; after the last comes the first again."""
        self.pages.selected_index = number % len(self.questions)

    def start_again(self) -> None:
        """Clear answers, reasons and score, and show the first question."""
        self._first.clear()
        for reason, buttons in zip(self.reasons, self.options, strict=True):
            reason.value = ""
            for option in buttons:
                option.icon = ""
        self.turn_to(0)
        self._say_score()

    def _say_score(self) -> None:
        right, answered = self.score
        number = len(self.questions)
        self.say(f"score: {right} of {number} at the first try, {answered} of {number} answered")

    def _page(self, number: int) -> widgets.VBox:
        text = f"<b>{number + 1} of {len(self.questions)}.</b> {_markup(self.questions[number].text)}"
        question = widgets.HTML(f'<div style="line-height: 1.4">{text}</div>')
        children = [question, *self.options[number], self.reasons[number]]
        # All pages are equally wide, whatever their texts are.
        return widgets.VBox(children, layout=widgets.Layout(width="100%"))

    def _option_button(self, number: int, option: Option) -> widgets.Button:
        layout = widgets.Layout(width="auto", display="flex", justify_content="flex-start", align_items="center")
        made = widgets.Button(description=option.text, tooltip=option.text, layout=layout)
        made.on_click(lambda _: self.choose(number, option))
        return made


def quiz(lesson: str) -> Quiz:
    """The quiz of a lesson, for instance ``quiz("01")``; ``progress()`` knows the score when it is finished.

    Raises:
        ValueError: see ``load_quiz``.
    """
    return Quiz(f"Check yourself: lesson {lesson}", load_quiz(lesson), partial(note_quiz, lesson))
