"""Figures of the laboratory: runs laid over each other, and accuracy against a setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from ..experiments import KNOBS, Run, Settings
from .backdrop import Sheet, pixels_of, sheet_over
from .curves import moving_mean
from .style import INK, course_style

# Here most runs are adapters, so colours tell settings apart, not methods. Okabe and Ito's palette again, with the two
# lightest made darker: a line needs a contrast of 3 with the paper (WCAG 2.2, 1.4.11).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B57A00", "#3C8DBC", "#222222", "#6A3D9A")
SHAPES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))
# The knobs against which accuracy can be drawn, with the text below the axis; the first is no knob but a result.
AXES = {
    "trainable": "trained parameters (no head)",
    "bottleneck_dim": "bottleneck_dim, m",
    "learning_rate": "learning rate",
    "init_std": "std of the initial weights",
    "steps": "training steps",
    "base_layers": "layers of the base model",
    "placement": "placement",
    "method": "method",
    "activation": "activation",
    "init": "initialisation",
    "train_layer_norms": "LayerNorms trained",
    "layers": "blocks with adapters",
    "task": "task",
}
_LOGARITHMIC = ("trainable", "bottleneck_dim", "learning_rate", "init_std")


class Style(NamedTuple):
    """How a run looks in every panel, and in the table."""

    colour: str
    marker: str
    line: str


def run_styles(runs: Sequence[Run]) -> dict[Settings, Style]:
    """One look for each group of settings that differ in the seed alone, by settings with seed 0."""
    groups = list(dict.fromkeys(replace(run.settings, seed=0) for run in runs))
    return {
        settings: Style(PALETTE[i % len(PALETTE)], *SHAPES[(i + i // len(PALETTE)) % len(SHAPES)])
        for i, settings in enumerate(groups)
    }


@course_style
def runs_figure(runs: Sequence[Run], styles: dict[Settings, Style], x: str = "trainable") -> Figure:
    """Training loss, validation accuracy, and the last accuracy against ``x``, a name in ``AXES``.

    Args:
        runs: those to draw; a run with number 0 still goes on.
        styles: from ``run_styles``.
    """
    figure, loss = _without_live_loss(runs, styles, x)
    for run in runs:
        if run.number == 0:
            _draw_loss(loss, run, styles)
    return figure


class LiveFigure:
    """``runs_figure`` for a run that goes on: all but its loss is kept as pixels until something else changes."""

    def __init__(self) -> None:
        self._key: Any = None
        self._pixels: Any = None
        self._loss: Any = None

    @course_style
    def draw(self, runs: Sequence[Run], styles: dict[Settings, Style], x: str = "trainable") -> Figure:
        """As ``runs_figure``."""
        kept = [(run.number, styles[replace(run.settings, seed=0)], len(run.history.validation)) for run in runs]
        key = kept, _highest_loss(runs), [run.settings.steps for run in runs], x
        if key != self._key:
            figure, loss = _without_live_loss(runs, styles, x)
            self._pixels, self._loss, self._key = pixels_of(figure), loss.transData, key
        figure, sheet = sheet_over(self._pixels)
        for run in runs:
            if run.number == 0:
                _draw_loss(sheet, run, styles, transform=self._loss)
        return figure


def _without_live_loss(runs: Sequence[Run], styles: dict[Settings, Style], x: str) -> tuple[Figure, Axes]:
    """The whole figure but for the loss of a run that goes on, and the axes where that belongs."""
    figure = Figure(figsize=(11, 4.1))
    loss, accuracy, against = figure.subplots(ncols=3, gridspec_kw={"width_ratios": (1, 1, 1.15)})
    figure.subplots_adjust(left=0.055, right=0.985, top=0.9, bottom=0.225, wspace=0.3)
    for run in runs:
        if run.number:
            _draw_loss(loss, run, styles)
        validation = list(run.history.validation)  # a run that goes on may add to it meanwhile
        steps, percent = [e["step"] for e in validation], [100 * e["accuracy"] for e in validation]
        look = _look(run, styles)
        accuracy.plot(steps, percent, marker=styles[replace(run.settings, seed=0)].marker, markersize=6, **look)
    _label_ends(accuracy, runs, styles)
    longest = max([run.settings.steps for run in runs], default=200)
    loss.set(title="Training loss", xlabel="step", xlim=(0, 1.02 * longest), ylim=(0, _highest_loss(runs)))
    accuracy.set(title="Validation accuracy", xlabel="step", ylabel="%", xlim=(0, 1.17 * longest), ylim=(45, 102))
    _against(against, [run for run in runs if run.history.validation], styles, x)
    return figure, loss


def _draw_loss(axes: Axes | Sheet, run: Run, styles: dict[Settings, Style], **where: Any) -> None:
    """The loss by step; where a run still is, a dot, so that its first step can be seen."""
    smooth = moving_mean(run.history.loss, 10)
    axes.plot(range(1, len(smooth) + 1), smooth, **_look(run, styles), **where)
    if run.number == 0 and smooth:
        axes.plot(len(smooth), smooth[-1], marker="o", markersize=7, **_look(run, styles), **where)


def _look(run: Run, styles: dict[Settings, Style]) -> dict[str, Any]:
    style = styles[replace(run.settings, seed=0)]
    return {"color": style.colour, "ls": style.line, "alpha": 1.0 if run.number == 0 else 0.85}


def _highest_loss(runs: Sequence[Run]) -> float:
    """Above every loss, in steps, so that the axis seldom moves while a run goes on."""
    highest = max((max(moving_mean(run.history.loss, 10), default=0.0) for run in runs), default=0.0)
    return (math.floor(4 * highest) + 1) / 4


@course_style
def sweep_figure(runs: Sequence[Run], x: str, own: Sequence[Run] = ()) -> Figure:
    """Accuracy against one setting, a name in ``AXES``; the ``own`` runs as rings.

    Runs that differ in other settings, too, get a colour and a line for each combination of these.
    """
    figure = Figure(figsize=(7.5, 3.4))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.1, right=0.97, top=0.97, bottom=0.19)
    groups = list(dict.fromkeys(_others(run, x) for run in runs))
    looks = [Style(PALETTE[i % len(PALETTE)], *SHAPES[i % len(SHAPES)]) for i in range(len(groups))]
    styles = {replace(run.settings, seed=0): looks[groups.index(_others(run, x))] for run in runs}
    _against(axes, runs, styles, x)
    axes.set_title("")
    if len(groups) > 1:
        varying = [name for name in KNOBS if len({getattr(group, name) for group in groups}) > 1]
        for group, look in zip(groups, looks, strict=True):
            label = ", ".join(f"{name} {getattr(group, name)}" for name in varying)
            axes.plot([], [], color=look.colour, marker=look.marker, ls=look.line, label=label)
        axes.legend(loc="lower right")
    words = [tick.get_text() for tick in axes.get_xticklabels()]
    for run in own:
        value = value_of(run, x)
        at = words.index(value) if isinstance(value, str) else value
        axes.plot(at, 100 * run.accuracy, marker="o", markersize=14, mfc="none", mec=INK, mew=2)
    return figure


def value_of(run: Run, x: str) -> Any:
    """Where ``run`` stands on the axis ``x``: a number, or a word."""
    value: Any = run.trainable if x == "trainable" else getattr(run.settings, x)
    if x == "layers":
        return "all" if value is None else ", ".join(map(str, value))
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _against(axes: Axes, runs: Sequence[Run], styles: dict[Settings, Style], x: str) -> None:
    """A point for each run; a line through the means of the seeds where ``x`` is a number."""
    values = [value_of(run, x) for run in runs]
    names = sorted({v for v in values if isinstance(v, str)})
    at = [names.index(v) if isinstance(v, str) else v for v in values]
    percent = [100 * run.accuracy for run in runs]
    for run, where, height in zip(runs, at, percent, strict=True):
        style = styles[replace(run.settings, seed=0)]
        axes.plot(where, height, color=style.colour, marker=style.marker, markersize=8, alpha=0.85)
    places = sorted(set(at))
    if x != "trainable" and not names:
        for group in dict.fromkeys(_others(run, x) for run in runs):
            members = [(w, h) for run, w, h in zip(runs, at, percent, strict=True) if _others(run, x) == group]
            own_places = sorted({w for w, _ in members})
            means = [mean(h for w, h in members if w == place) for place in own_places]
            if len(own_places) > 1:
                axes.plot(own_places, means, color=INK, lw=1, ls="--", zorder=0)
    axes.set(title="Accuracy against …", xlabel=AXES[x], ylim=(45, 102))
    axes.set_ylabel("last validation accuracy, %")
    if names:
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 4 else 20)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif x in _LOGARITHMIC and places and min(places) > 0:
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.minorticks_off()
        if x == "trainable":
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(places) < 20 * min(places) else (1,)))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            room = axes.get_position().width > 0.5 or len(places) < 5
            axes.set_xticks(places, [f"{place:g}" for place in places], rotation=0 if room else 30)


def _others(run: Run, x: str) -> Settings | None:
    """The settings apart from ``x`` and the seed; None for a result, which is no setting."""
    return None if x == "trainable" else replace(run.settings, **{x: getattr(Settings(), x)}, seed=0)


def _label_ends(axes: Axes, runs: Sequence[Run], styles: dict[Settings, Style]) -> None:
    """The runs' numbers at the ends of their lines, 4 points apart; more than a dozen would only be in the way."""
    ends = [(run.history.validation[-1], run) for run in runs if run.history.validation and len(runs) <= 12]
    lowest: dict[float, float] = {}  # of the labels at a step
    for entry, run in sorted(ends, key=lambda end: end[0]["accuracy"], reverse=True):
        step = entry["step"]
        lowest[step] = height = min(100 * entry["accuracy"], lowest.get(step, 200.0) - 4)
        if height > 46:
            axes.annotate(
                f"#{run.number}" if run.number else "now", (step, height), (7, 0), textcoords="offset points",
                va="center", fontsize=11, color=styles[replace(run.settings, seed=0)].colour,
            )  # fmt: skip
