"""Predictions: committed before a result is there, kept in the record, and compared with it in one line."""

import html
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import ipywidgets as widgets

from adapters_lesson.course.explorers.frame import Panel, button, option_button, row
from adapters_lesson.course.record import file_of_progress, known, note
from adapters_lesson.course.words import _

_compared: set[str] = set()  # whose results this kernel has shown
_said: dict[str, Any] = {}  # what was committed where no progress is kept
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


class Prediction(NamedTuple):
    """What is asked: an option, or a number that is right ``within`` so much, or within a ``factor``."""

    key: str
    question: str
    options: Sequence[str]
    within: float
    factor: float
    unit: str

    def bundle(self, note: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """As that of a ``Picture``, for whoever reads a notebook that does not run."""
        page = f"<b>{_('Predict')}</b> {_('(run this cell to commit)')}: {html.escape(_(self.question))}"
        page += f"<ul>{''.join(f'<li>{html.escape(_(option))}</li>' for option in self.options)}</ul>"
        said = f"{_('Predict')}: {_(self.question)} {' / '.join(map(_, self.options))}"
        return {"text/html": page, "text/plain": said}, {}

    def said(self) -> Any:
        """What was committed; None where nothing was."""
        if file_of_progress() is None:
            return _said.get(self.key)
        return known()["predictions"].get(self.key, {}).get("said")

    def shown(self, value: Any) -> str:
        """An option or a number with its unit."""
        return f"{value:,.4g}{self.unit}" if isinstance(value, (int, float)) else f"{value}"

    def judge(self, said: Any, was: Any) -> tuple[bool, float]:
        """Whether a prediction was right, and how far off it was, in tolerances."""
        if self.options:
            return said == was, float(said != was)
        if self.factor:
            same = said and was and (said > 0) == (was > 0)
            apart = abs(math.log(abs(said)) - math.log(abs(was))) if same else math.inf
            off = apart / math.log(self.factor)
        else:
            off = abs(said - was) / self.within
        return bool(off <= 1 + 1e-9), float(min(off, 1e6))


_asked: dict[str, Prediction] = {}


class PredictionPanel(Panel):
    """A question above its options, or above a field for a number; what is committed stays."""

    def __init__(self, asked: Prediction) -> None:
        super().__init__("Predict")
        self.asked, self.picture = asked, asked
        unit = _(", in") + asked.unit if asked.unit else ""
        self.field = widgets.Text(placeholder=_("a number") + unit, layout={"width": "200px"})
        self.options = [option_button(option, partial(self.commit, option)) for option in asked.options]
        self.commit_button = button("Commit", "Commit your prediction: it cannot be changed", self._commit_number)
        question = f"<b>{_('Predict')}.</b> {html.escape(_(asked.question))}"
        heading = widgets.HTML(f'<div style="line-height: 1.4">{question}</div>')
        fields = self.options or [row(self.field, self.commit_button)]
        self.children = [self.still, heading, *fields, self.status]
        self._settle(asked.said())

    def _commit_number(self) -> None:
        text = self.field.value.replace("%", "").replace("\u2212", "-").strip()
        text = text.replace(",", "" if _THOUSANDS.fullmatch(text) else ".")  # 0,5 is half in much of the world
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            self.commit(number)
        else:
            self.say(f"{self.field.value!r} is no number: write one such as 0.5 or 1200", error=True)

    def commit(self, said: Any) -> None:
        """Commit an option or a number, unless one was committed before."""
        if self.asked.said() is not None:
            self._settle(self.asked.said())
        elif self.asked.key in _compared:
            self.say("The result is there already, so this prediction does not count.")
        else:
            note("predictions", self.asked.key, {"said": said, "question": self.asked.question})
            _said[self.asked.key] = said
            self._settle(self.asked.said() or said)

    def _settle(self, said: Any) -> None:
        """Show what is committed."""
        if said is None:
            self.say("Commit before you go on: a guess that one has written down is remembered.")
            return
        for option in self.options:
            option.disabled = True
            option.icon = "check" if option.description == _(f"{said}") else ""
        self.field.disabled = self.commit_button.disabled = True
        self.say(f"Committed: {self.asked.shown(said)}. Go on to see.")


def prediction(
    key: str, question: str, options: Sequence[str] = (), *, within: float = 0.0, factor: float = 0.0, unit: str = ""
) -> PredictionPanel:
    """Ask for a prediction: one of ``options``, or a number, right ``within`` so much or within a ``factor``.

    ``key`` is the lesson's number and a letter, for instance "1a"; ``compare(key, result)`` follows when it is there.
    """
    if bool(options) + bool(within) + bool(factor) != 1:
        raise ValueError(f"a prediction wants options, or within, or factor: {key} has {options}, {within}, {factor}")
    _asked[key] = Prediction(key, question, tuple(options), within, factor, unit)
    return PredictionPanel(_asked[key])


def compare(key: str, was: Any) -> None:
    """Say in one line how a prediction compares with the result: an option's text, or a number."""
    was = was.item() if hasattr(was, "item") else was
    _compared.add(key)
    if (asked := _asked.get(key)) is None:  # its cell was not run
        print(_(f"○ not asked in this session; it is: {was}"))
        return
    said = asked.said()
    if said is None:
        print(_(f"○ not predicted; it is: {asked.shown(was)}"))
        return
    if asked.options and was not in asked.options:
        print(_(f"○ you predicted {said}; it is {was}, none of the options: {', '.join(asked.options)}"))
        return
    right, off = asked.judge(said, was)
    seen = {"was": asked.shown(was), "right": right, "off": off}
    note("predictions", key, {"said": said, "question": asked.question, **seen})
    print(_(f"{'✔' if right else '✘'} you predicted {asked.shown(said)}, it is {asked.shown(was)}"))
