"""Four guided experiments for the laboratory: predict first, then run, then compare with runs made before."""

import html
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

import ipywidgets as widgets

from adapters_lesson.course.explorers.frame import Panel, button, option_button, row
from adapters_lesson.course.figures import Picture
from adapters_lesson.course.quiz import LETTERS, Question, Questions, load_quiz
from adapters_lesson.history import History, load_results

from .experiments import SWEEPS, Run, Sweep
from .laboratory import Laboratory
from .run_figures import sweep_figure, value_of

TITLES = {  # none of which another lesson has answered
    "agreement": "Which m?",
    "depth": "How many blocks?",
    "no activation": "No activation?",
    "half the steps": "Half the steps?",
}


def committed_runs(name: str) -> list[Run]:
    """The runs of ``SWEEPS[name]`` with three seeds, from data/results/laboratory.json."""
    sweep, row = SWEEPS[name], load_results("laboratory")["rows"][name]
    runs = []
    for run in row["runs"]:
        last = {"step": sweep.base.steps or 0, "accuracy": run["accuracy"]}
        settings = replace(sweep.base, **{sweep.knob: run["value"]}, seed=run["seed"])
        runs.append(Run(settings, History({}, validation=[last], stopped=run["stopped"]), run["trainable"]))
    return runs


def own_runs(sweep: Sweep, runs: Sequence[Run]) -> list[Run]:
    """Those of ``runs`` that went to their end and differ from the base of ``sweep`` in its knob and seed alone."""
    same = {sweep.knob: getattr(sweep.base, sweep.knob), "seed": 0}
    return [run for run in runs if replace(run.settings, **same) == sweep.base and not run.history.stopped]


def draw_reveal(name: str, own: Sequence[Run] = ()) -> Picture:
    """What came out of ``SWEEPS[name]`` with three seeds, and the learner's ``own`` runs beside it."""
    knob, runs = SWEEPS[name].knob, committed_runs(name)
    by_value: dict[str, list[float]] = {}
    for run in runs:
        value = value_of(run, knob)
        by_value.setdefault(value if isinstance(value, str) else f"{value:g}", []).append(100 * run.accuracy)
    told = ", ".join(f"{value}: {mean(accuracies):.1f} %" for value, accuracies in by_value.items())
    yours = f" Rings: your own {len(own)} runs." if own else ""
    return Picture(sweep_figure(runs, knob, own), f"Mean over three seeds, by {knob}: {told}.{yours}")


class GuidedExperiment(Panel):
    """A question, a prediction, a sweep in the laboratory, and what came out when it was run beforehand."""

    def __init__(self, laboratory: Laboratory, name: str, question: Question) -> None:
        super().__init__(TITLES[name])
        self.laboratory, self.name, self.question = laboratory, name, question
        self.predicted: int | None = None
        self.options = [option_button(o.text, partial(self.predict, i)) for i, o in enumerate(question.options)]
        note = widgets.Text(
            description="because", placeholder="write down why, for yourself", layout={"width": "520px"}
        )
        self.run_button = button("Run it", f"{len(SWEEPS[name].values)} runs in the laboratory below", self.run)
        self.reveal_button = button("Reveal", "Show what came out beforehand, with three seeds", self.reveal)
        self.run_button.disabled = self.reveal_button.disabled = True
        self.verdict = widgets.HTML()
        self.image.layout.display = "none"
        text = widgets.HTML(f'<div style="line-height: 1.4">{html.escape(question.text)}</div>')
        buttons = row(self.run_button, self.reveal_button)
        self.children = [text, *self.options, note, buttons, self.verdict, self.image, self.status]
        self.say("Choose what you expect; then you can run it.")

    def predict(self, number: int) -> None:
        """Note the prediction; it may be changed until the reveal."""
        self.predicted = number
        for i, option in enumerate(self.options):
            option.icon = "hand-o-right" if i == number else ""
        self.run_button.disabled = self.reveal_button.disabled = False
        self.say(f"You predict {LETTERS[number]}. Run it, watch the laboratory, and reveal.")

    def run(self) -> None:
        """Start the sweep in the laboratory, with one seed."""
        self.laboratory.reset()
        sweep = SWEEPS[self.name]
        try:
            self.laboratory.sweep(sweep.knob, sweep.values, seeds=[0], **sweep.base.differences())
            self.say("It runs in the laboratory below.")
        except ValueError as error:  # another run goes on
            self.say(str(error), error=True)

    def reveal(self) -> None:
        """Show what came out, and what that says about the prediction."""
        if self.predicted is None:
            return
        for option in self.options:
            option.disabled = True
        chosen = self.question.options[self.predicted]
        right = next(option for option in self.question.options if option.right)
        lines = [
            f"<b>You predicted:</b> {html.escape(chosen.text)}.",
            html.escape("" if chosen.right else chosen.reason),
            f"<b>What came out:</b> {html.escape(right.text)}. {html.escape(right.reason)}",
        ]
        self.verdict.value = f'<div role="status" style="line-height: 1.4">{"<br>".join(filter(None, lines))}</div>'
        own = own_runs(SWEEPS[self.name], list(self.laboratory.book.runs.values()))
        self.paint(lambda: draw_reveal(self.name, own))
        self.image.layout.display = ""


class Guide(Panel):
    """Four experiments for a laboratory, one behind each tab."""

    def __init__(self, laboratory: Laboratory) -> None:
        super().__init__("Four experiments")
        questions = load_quiz("06_guide")
        self.picture = Questions(self.title, questions)
        named = zip(TITLES, questions, strict=True)
        self.experiments = {name: GuidedExperiment(laboratory, name, question) for name, question in named}
        self.tabs = widgets.Tab(list(self.experiments.values()), titles=list(TITLES.values()), selected_index=0)
        self.children = [self.still, self.tabs]
