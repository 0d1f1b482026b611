"""The laboratory with four guided experiments: predict first, then run, then compare with runs made before."""

import html
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as widgets

from adapters_lesson.course.explorers.frame import Panel, button, option_button, row
from adapters_lesson.course.quiz import LETTERS, Question, Questions, load_quiz
from adapters_lesson.history import History, load_results

from .experiments import SWEEPS, Run
from .laboratory import LEFT, Laboratory
from .run_figures import Beforehand

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


class GuidedExperiment(Panel):
    """A question, a prediction, a sweep in the laboratory, and what came out when it was run beforehand."""

    def __init__(self, laboratory: Laboratory, name: str, question: Question) -> None:
        super().__init__(TITLES[name])
        self.laboratory, self.question = laboratory, question
        self.beforehand = Beforehand(SWEEPS[name], committed_runs(name))
        self.revealed: Beforehand | None = None
        self.predicted: int | None = None
        lettered = enumerate(zip(LETTERS, question.options, strict=False))
        self.options = [option_button(f"{letter}. {o.text}", partial(self.predict, i)) for i, (letter, o) in lettered]
        look: Any = {"layout": {"width": "auto"}, "style": {"description_width": "initial"}}
        self.because = widgets.Text(description="because", placeholder="write down why, for yourself", **look)
        self.run_button = button("Run it", f"{len(SWEEPS[name].values)} runs, whose curves grow beside", self.run)
        self.reveal_button = button("Reveal", "Show what came out beforehand, with three seeds", self.reveal)
        self.run_button.disabled = self.reveal_button.disabled = True
        self.verdict = widgets.HTML()
        text = widgets.HTML(f'<div style="line-height: 1.4">{html.escape(question.text)}</div>')
        below = [self.because, row(self.run_button, self.reveal_button), self.status, self.verdict]
        self.children = [text, *self.options, *below]
        self.say("Choose what you expect; then you can run it.")

    def predict(self, number: int) -> None:
        """Note the prediction; it may be changed until the reveal."""
        self.predicted = number
        for i, option in enumerate(self.options):
            option.icon = "hand-o-right" if i == number else ""
        self.run_button.disabled = self.reveal_button.disabled = False
        self.say(f"You predict {LETTERS[number]}. Run it, watch the curves, and reveal.")

    def run(self) -> None:
        """Start the sweep in the laboratory, with one seed; the curves are those of its runs alone."""
        sweep, knobs, table = self.beforehand.sweep, self.laboratory.knobs, self.laboratory.table
        before = table.chosen
        try:
            self.laboratory.sweep(sweep.knob, sweep.values, [0], **{name: getattr(sweep.base, name) for name in knobs})
        except ValueError as error:  # another run goes on
            self.say(str(error), error=True)
            return
        table.choose([number for number in table.chosen if number not in before])
        self.laboratory.hold_against(self.revealed)  # run once more after the reveal: rings on what came out
        self.say("Watch the curves beside. When the runs have ended, reveal.")

    def reveal(self) -> None:
        """Show what came out, and what that says about the prediction."""
        if self.predicted is None:
            return
        for i, (option, asked) in enumerate(zip(self.options, self.question.options, strict=True)):
            option.disabled = True
            if asked.right or i == self.predicted:
                option.icon, colour = ("check", "success") if asked.right else ("times", "error")
                option.layout.border_left = f"4px solid var(--jp-{colour}-color1)"
        chosen = self.question.options[self.predicted]
        right = next(option for option in self.question.options if option.right)
        because = html.escape(self.because.value.strip())
        lines = [
            f"<b>You predicted:</b> {html.escape(chosen.text)}{because and f', because {because}'}.",
            html.escape("" if chosen.right else chosen.reason),
            f"<b>What came out:</b> {html.escape(right.text)}. {html.escape(right.reason)}",
        ]
        self.verdict.value = f'<div role="status" style="line-height: 1.4">{"<br>".join(filter(None, lines))}</div>'
        self.say("Right." if chosen.right else "Not quite.")
        self.revealed = self.beforehand
        self.laboratory.hold_against(self.revealed)


class Guide(Panel):
    """A laboratory whose controls stand behind the last of five tabs, and an experiment behind each of the others."""

    def __init__(self, laboratory: Laboratory) -> None:
        super().__init__("Four experiments")
        questions = load_quiz("06_guide")
        self.picture = Questions(self.title, questions)
        named = zip(TITLES, questions, strict=True)
        self.experiments = {name: GuidedExperiment(laboratory, name, question) for name, question in named}
        titles = [*(title.split()[-1] for title in TITLES.values()), "your own"]
        pages = [*self.experiments.values(), laboratory.controls]
        self.tabs = widgets.Tab(pages, selected_index=0, layout=LEFT)
        for number, title in enumerate(titles):  # not titles=…, which Colab's ipywidgets does not know
            self.tabs.set_title(number, title)

        def turned(change: Any) -> None:  # each tab has its own reveal, the last one none
            laboratory.hold_against(getattr(pages[change["new"] or 0], "revealed", None))

        self.tabs.observe(turned, "selected_index")
        self.children = [self.still, row(self.tabs, laboratory.curves), laboratory.kept]
