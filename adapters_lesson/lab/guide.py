"""Four guided experiments for the laboratory: predict first, then run, then compare with runs made before."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import ipywidgets as widgets

from ..experiments import SWEEPS, Run, Sweep
from ..history import History, load_results
from ..plots import Picture, show
from ..plots.runs import sweep_figure, value_of
from .frame import Panel, button, plain, row
from .laboratory import Laboratory
from .quizzes import LETTERS, Question, draw_quiz, load_quiz

# Fewer values than were run beforehand, so that nobody waits long.
_SHORT = {
    "width": (1, 4, 16, 64),
    "placement": SWEEPS["placement"].values,
    "init": (1e-3, 1e-1, 3e-1, 1.0),
    "rate": (1e-4, 1e-3, 3e-3, 3e-2),
}
TITLES = {"width": "Which m?", "placement": "Which place?", "init": "Which start?", "rate": "Which rate?"}


def committed_runs(name: str) -> list[Run]:
    """The runs of ``SWEEPS[name]`` with three seeds, from data/results/laboratory.json."""
    sweep, row = SWEEPS[name], load_results("laboratory")["rows"][name]
    return [
        Run(
            replace(sweep.base, **{sweep.knob: run["value"]}, seed=run["seed"]),
            History({}, validation=[{"step": sweep.base.steps, "accuracy": run["accuracy"]}], stopped=run["stopped"]),
            run["trainable"],
        )
        for run in row["runs"]
    ]


def own_runs(sweep: Sweep, runs: Sequence[Run]) -> list[Run]:
    """Those of ``runs`` that went to their end and differ from the base of ``sweep`` in its knob and seed alone."""
    default = getattr(sweep.base, sweep.knob)
    return [
        run
        for run in runs
        if replace(run.settings, **{sweep.knob: default}, seed=0) == sweep.base and not run.history.stopped
    ]


def draw_reveal(name: str, own: Sequence[Run] = ()) -> Picture:
    """What came out of ``SWEEPS[name]`` with three seeds, and the learner's ``own`` runs beside it."""
    knob, runs = SWEEPS[name].knob, committed_runs(name)
    values = list(dict.fromkeys(value_of(run, knob) for run in runs))
    means = [(v, 100 * mean(run.accuracy for run in runs if value_of(run, knob) == v)) for v in values]
    told = ", ".join(f"{v if isinstance(v, str) else format(v, 'g')}: {accuracy:.1f} %" for v, accuracy in means)
    yours = f" Rings: your own {len(own)} runs." if own else ""
    return show(sweep_figure(runs, knob, own), f"Mean over three seeds, by {knob}: {told}.{yours}")


class GuidedExperiment(Panel):
    """A question, a prediction, a sweep in the laboratory, and what came out when it was run beforehand.

    Attributes:
        options: the buttons with the predictions.
        predicted: the number of the prediction, counted from 0; None before.
    """

    def __init__(self, laboratory: Laboratory, name: str, question: Question) -> None:
        super().__init__(TITLES[name])
        self.laboratory, self.name, self.question = laboratory, name, question
        self.predicted: int | None = None
        wide = widgets.Layout(width="auto", display="flex", justify_content="flex-start", align_items="center")
        self.options = [widgets.Button(description=option.text, layout=wide) for option in question.options]
        for number, option in enumerate(self.options):
            option.on_click(lambda _, number=number: self.predict(number))
        self.note = widgets.Text(description="because", placeholder="write down why, for yourself")
        self.note.layout.width = "520px"
        self.run_button = button("Run it", f"{len(_SHORT[name])} runs in the laboratory below", self._press_run)
        self.reveal_button = button("Reveal", "Show what came out beforehand, with three seeds", self.reveal)
        self.verdict = widgets.HTML()
        self.image.layout.display = "none"
        text = widgets.HTML(f'<div style="line-height: 1.4">{html.escape(question.text)}</div>')
        buttons = row(self.run_button, self.reveal_button)
        self.children = [text, *self.options, self.note, buttons, self.verdict, self.image, self.status]
        self.run_button.disabled = self.reveal_button.disabled = True
        self.say("Choose what you expect; then you can run it.")

    def predict(self, number: int) -> None:
        """Note the prediction; it may be changed until the reveal."""
        self.predicted = number
        for i, option in enumerate(self.options):
            option.icon = "hand-o-right" if i == number else ""
        self.run_button.disabled = self.reveal_button.disabled = False
        self.say(f"You predict {LETTERS[number]}. Run it, watch the laboratory, and reveal.")

    def run(self) -> Any:
        """Start the sweep in the laboratory, with one seed; returns the job.

        Raises:
            ValueError: while another run goes on.
        """
        self.laboratory.reset()
        sweep = SWEEPS[self.name]
        return self.laboratory.sweep(sweep.knob, _SHORT[self.name], seeds=[0], **sweep.base.differences())

    def reveal(self) -> None:
        """Show what came out, and what that says about the prediction."""
        if self.predicted is None:
            return
        for option in self.options:
            option.disabled = True
        chosen = self.question.options[self.predicted]
        right = next(option for option in self.question.options if option.right)
        lines = [f"<b>You predicted:</b> {html.escape(chosen.text)}."]
        if not chosen.right:
            lines.append(html.escape(chosen.reason))
        lines.append(f"<b>What came out:</b> {html.escape(right.text)}. {html.escape(right.reason)}")
        self.verdict.value = f'<div role="status" style="line-height: 1.4">{"<br>".join(lines)}</div>'
        own = own_runs(SWEEPS[self.name], list(self.laboratory.book.runs.values()))
        self.paint(lambda: draw_reveal(self.name, own))
        self.image.layout.display = ""

    def _press_run(self) -> None:
        try:
            self.run()
        except ValueError as error:
            self.say(plain(error), error=True)
        else:
            self.say("It runs in the laboratory below.")


class Guide(Panel):
    """The four experiments, one behind each tab."""

    def __init__(self, laboratory: Laboratory) -> None:
        super().__init__("Four experiments")
        questions = load_quiz("06_guide")
        self.picture = draw_quiz(self.title, questions)
        named = zip(TITLES, questions, strict=True)
        self.experiments = {name: GuidedExperiment(laboratory, name, question) for name, question in named}
        self.tabs = widgets.Tab(list(self.experiments.values()), titles=list(TITLES.values()), selected_index=0)
        self.children = [self.tabs]


def guided_experiments(laboratory: Laboratory) -> Guide:
    """Four experiments for ``laboratory``, each with a prediction to write down first, and a reveal."""
    return Guide(laboratory)
