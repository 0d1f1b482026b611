"""How runs are shown: laid over each other, as accuracy against a setting, and in a table to choose from."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from adapters_lesson.course.explorers.frame import button
from adapters_lesson.course.figures.curves import moving_mean
from adapters_lesson.course.figures.style import INK, PALETTE, course_style, label_ends, new_figure

from .experiments import KNOBS, Run, Settings, Sweep
from .knobs import LABELS

# Here most runs are adapters, so colours tell settings apart, not methods.
SHAPES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))
# What accuracy can be drawn against, with the text below the axis: a result, and the knobs.
AXES = {"trainable": "trained parameters (no head)", **LABELS}
_LOGARITHMIC = ("trainable", "bottleneck_dim", "learning_rate", "init_std")


class Style(NamedTuple):
    """How a run looks in every panel, and in the table."""

    colour: str
    marker: str
    line: str


class Beforehand(NamedTuple):
    """What came out when a sweep was run with three seeds, to hold the learner's own runs against."""

    sweep: Sweep
    runs: Sequence[Run]

    def own(self, runs: Sequence[Run]) -> list[Run]:
        """Those of ``runs`` that went to their end and differ from the sweep's base in its knob and seed alone."""
        base, knob = self.sweep.base, self.sweep.knob
        same = {knob: getattr(base, knob), "seed": 0}
        ended = (run for run in runs if run.number and not run.history.stopped)
        return [run for run in ended if replace(run.settings, **same) == base]

    def told(self, runs: Sequence[Run]) -> str:
        """The means in a sentence, and how many of ``runs`` are rings."""
        accuracies: dict[Any, list[float]] = {}
        for run in self.runs:
            accuracies.setdefault(value_of(run, self.sweep.knob), []).append(100 * run.accuracy)
        means = ", ".join(f"{value}: {mean(of):.1f} %" for value, of in accuracies.items())
        rings = f" Rings: {len(own)} of your own." if (own := self.own(runs)) else ""
        return f"Mean over three seeds, by {self.sweep.knob}: {means}.{rings}"


def run_styles(runs: Sequence[Run], x: str = "seed") -> dict[Settings, Style]:
    """The look of every run's settings: the same where they differ in the seed alone, or in ``x`` as well."""
    looks: dict[Settings | None, Style] = {}
    for run in runs:
        i = len(looks)
        style = Style(PALETTE[i % len(PALETTE)], *SHAPES[(i + i // len(PALETTE)) % len(SHAPES)])
        looks.setdefault(_others(run, x), style)
    return {run.settings: looks[_others(run, x)] for run in runs}


@course_style
def runs_figure(
    runs: Sequence[Run], styles: dict[Settings, Style], x: str = "trainable", beforehand: Beforehand | None = None
) -> Figure:
    """Training loss, validation accuracy, and the last one against ``x``, of ``AXES``. Run number 0 still goes on.

    With runs made ``beforehand`` the last of the three shows them, and those of ``runs`` that belong to them as rings.
    """
    figure = Figure(figsize=(8.6, 6.0))
    panels = figure.subplot_mosaic([["loss", "accuracy"], ["against", "against"]])
    loss, accuracy, against = (panels[name] for name in ("loss", "accuracy", "against"))
    figure.subplots_adjust(left=0.085, right=0.985, top=0.945, bottom=0.12, wspace=0.2, hspace=0.5)
    ends = []
    for run in runs:
        style, validation = styles[run.settings], list(run.history.validation)  # it may grow meanwhile
        look: Any = {"color": style.colour, "ls": style.line, "alpha": 1.0 if run.number == 0 else 0.85}
        smooth = moving_mean(run.history.loss, 10)
        loss.plot(range(1, len(smooth) + 1), smooth, **look)
        if run.number == 0 and smooth:  # a dot where it is, so that its first step can be seen
            loss.plot(len(smooth), smooth[-1], marker="o", markersize=7, **look)
        steps, percent = [e["step"] for e in validation], [100 * e["accuracy"] for e in validation]
        accuracy.plot(steps, percent, marker=style.marker, markersize=6, **look)
        if validation:
            name = f"#{run.number}" if run.number else "now"
            ends.append((name, steps[-1], percent[-1], style.colour))
    if len(ends) <= 12:  # more would only be in the way
        label_ends(accuracy, ends, 4, fontsize=11)
    longest = max([run.settings.steps or 0 for run in runs], default=200)
    loss.set(title="Training loss", xlabel="step", xlim=(0, 1.02 * longest), ylim=(0, None))
    accuracy.set(title="Validation accuracy", xlabel="step", ylabel="%", xlim=(0, 1.17 * longest), ylim=(45, 102))
    if beforehand is None:
        _against(against, [run for run in runs if run.history.validation], styles, x)
    else:
        _against(against, beforehand.runs, run_styles(beforehand.runs, x), x)
        against.set_title("What came out beforehand, with three seeds (rings: your own runs)")
        for run in beforehand.own(runs):
            against.plot(value_of(run, x), 100 * run.accuracy, "o", markersize=14, mfc="none", mec=INK, mew=2)
    return figure


def summary(runs: Sequence[Run]) -> str:
    """The drawn runs in a sentence."""
    finished = [run for run in runs if run.number]
    drawn = f"{len(finished)} run{' is' if len(finished) == 1 else 's are'} drawn."
    if not (measured := [run for run in finished if run.history.validation]):
        return drawn
    best = max(measured, key=lambda run: run.accuracy)
    what = ", ".join(f"{name} {value}" for name, value in replace(best.settings, seed=0).differences().items())
    which = f"#{best.number} ({what or 'all settings as at the start'}, seed {best.settings.seed})"
    right = f"{100 * best.accuracy:.1f} % of the validation texts right"
    return f"{drawn} The best is {which}: {right}, {best.trainable:,} parameters trained without the head."


@course_style
def sweep_figure(runs: Sequence[Run], x: str) -> Figure:
    """Accuracy against ``x``, of ``AXES``; other settings have each a colour."""
    figure, axes = new_figure(7.5, 3.4)
    styles = run_styles(runs, x)
    _against(axes, runs, styles, x)
    axes.set_title("A mark for each run; dashed: means over the seeds", fontsize=12)
    groups = {styles[run.settings]: _others(run, x) for run in runs}
    if len(groups) > 1:
        varying = [name for name in KNOBS if len({getattr(group, name) for group in groups.values()}) > 1]
        for style, group in groups.items():
            label = ", ".join(f"{name} {getattr(group, name)}" for name in varying)
            axes.plot([], [], color=style.colour, marker=style.marker, ls="none", label=label)
        axes.legend(loc="lower right")
    return figure


def value_of(run: Run, x: str) -> Any:
    """Where ``run`` stands on the axis ``x``: a number, or a word."""
    value: Any = run.trainable if x == "trainable" else getattr(run.settings, x)
    if x == "layers":
        return "all" if value is None else ", ".join(map(str, value))
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _against(axes: Axes, runs: Sequence[Run], styles: dict[Settings, Style], x: str) -> None:
    """A point for each run, hollow if it stopped early; for numbers a line through means of each seed's last run."""
    values = [value_of(run, x) for run in runs]
    if words := sorted({value for value in values if isinstance(value, str)}):
        axes.xaxis.update_units(words)  # an axis of words, in this order
        axes.set_xlim(-0.5, len(words) - 0.5)
        axes.tick_params("x", rotation=0 if len(words) < 4 else 20)
    groups: dict[Settings | None, dict[float, dict[int, float]]] = {}  # by other settings, value and seed
    order = list(dict.fromkeys(_others(run, x) for run in runs))  # later marks are smaller: none hides another
    for run, value in zip(runs, values, strict=True):
        style, height = styles[run.settings], 100 * run.accuracy
        face = "none" if run.history.stopped else style.colour
        size = max(5, 10 - 3 * order.index(_others(run, x)))
        axes.plot(value, height, color=style.colour, marker=style.marker, markersize=size, alpha=0.85, mfc=face)
        if not run.history.stopped:
            groups.setdefault(_others(run, x), {}).setdefault(value, {})[run.settings.seed] = height
    for group in groups.values():
        if len(group) > 1 and x != "trainable" and not words:
            means = [mean(group[value].values()) for value in sorted(group)]
            axes.plot(sorted(group), means, color=INK, lw=1, ls="--", zorder=0)
    axes.set(title="Accuracy against …", xlabel=AXES[x], ylabel="last validation accuracy, %", ylim=(45, 102))
    if x in _LOGARITHMIC and min(values, default=0) > 0:
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.minorticks_off()
        places = sorted(set(values))
        if x == "trainable":
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if places[-1] < 20 * places[0] else (1,)))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            axes.set_xticks(places, [f"{place:g}" for place in places])


def _others(run: Run, x: str) -> Settings | None:
    """The settings apart from ``x`` and the seed; None for a result, which is no setting."""
    return None if x == "trainable" else replace(run.settings, **{x: getattr(Settings(), x), "seed": 0})


_MARKS = {"o": "●", "s": "■", "^": "▲", "D": "◆"}
_SWATCH = "18px"
_RIGID: Any = {"margin": "0", "flex": "0 0 auto"}  # heads and cells stay in line: what does not fit is scrolled to


# Each column's width, what it is sorted by, and how that is written; four say nothing of a method without adapters.
_COLUMNS: dict[str, tuple[int, Callable[[Run], Any], Callable[[Any], str]]] = {
    "run": (64, lambda run: run.number, str),
    "task": (80, lambda run: run.settings.task.removeprefix("aspect_").replace("film_reviews", "films"), str),
    "base": (46, lambda run: run.settings.base_layers, str),
    "method": (94, lambda run: run.settings.method.replace(
        "adapter", run.settings.placement + " + LN" * run.settings.train_layer_norms), str),
    "m": (38, lambda run: run.settings.bottleneck_dim, str),
    "init": (86, lambda run: run.settings.init + f" {run.settings.init_std:g}" * (run.settings.init != "zero"), str),
    "act.": (58, lambda run: run.settings.activation, str),
    "blocks": (54, lambda run: value_of(run, "layers"), str),
    "rate": (54, lambda run: run.settings.learning_rate, "{:g}".format),
    "steps": (76, lambda run: (run.history.steps, f" of {run.settings.steps}" * bool(run.history.stopped)),
              lambda steps: "{}{}".format(*steps)),
    "seed": (44, lambda run: run.settings.seed, str),
    "trained": (70, lambda run: run.trainable, "{:,}".format),
    "accuracy": (82, lambda run: run.accuracy if run.history.validation else -1.0,
                 lambda share: "–" if share < 0 else f"{100 * share:.1f} %"),
}  # fmt: skip
_OF_ADAPTERS = ("m", "init", "act.", "blocks")


class RunsTable(widgets.VBox):
    """The runs, of which some are chosen; ``on_choice`` is called when others are."""

    def __init__(self, on_choice: Callable[[], None]) -> None:
        self.sorted_by, self.descending, self._on_choice = "run", False, on_choice
        self._rows: dict[int, widgets.Box] = {}
        self._runs: dict[int, Run] = {}
        self.heads = {}
        for name, (width, *_) in _COLUMNS.items():
            layout = {"width": f"{width}px", "padding": "0 2px", **_RIGID}
            self.heads[name] = button(name, f"sort by {name}", partial(self._sort, name), layout=layout)
        first, *others = self.heads.values()
        gap = widgets.HTML(layout={"width": _SWATCH, **_RIGID})
        self.body = widgets.VBox(layout={"max_height": "230px", "overflow": "hidden auto", "min_height": "34px"})
        super().__init__([_line(first, gap, *others), self.body], layout={"overflow": "auto hidden"})

    @property
    def chosen(self) -> list[int]:
        """The numbers of the runs that are ticked, in the order of the rows."""
        return [number for number in self._order() if self.box(number).value]

    def box(self, number: int) -> Any:
        """The box that chooses run ``number``."""
        return self._rows[number].children[0]

    def choose(self, numbers: list[int]) -> None:
        """Tick these runs and no others."""
        self._on_choice, on_choice = lambda: None, self._on_choice  # once for all, not for each of them
        for number in self._rows:
            self.box(number).value = number in numbers
        self._on_choice = on_choice
        on_choice()

    def update(self, runs: Mapping[int, Run], styles: Mapping[Settings, Style]) -> None:
        """Show ``runs``; one that is new is ticked."""
        self._runs = dict(runs)
        self._rows = {number: self._rows.get(number) or self._row(number) for number in runs}
        for number, run in runs.items():
            self._rows[number].children[1].value = _cells(run, styles[run.settings])
        self._arrange()

    def _row(self, number: int) -> widgets.Box:
        box = widgets.Checkbox(value=True, indent=False, description=f"#{number}", tooltip=f"draw run {number}")
        box.layout = {"width": f"{_COLUMNS['run'][0]}px", **_RIGID}
        box.observe(lambda _: self._on_choice(), "value")
        return _line(box, widgets.HTML(layout=_RIGID))

    def _sort(self, name: str) -> None:
        self.descending = not self.descending if name == self.sorted_by else name == "accuracy"
        self.sorted_by = name
        self._arrange()

    def _order(self) -> list[int]:
        _, key, _ = _COLUMNS[self.sorted_by]
        return sorted(self._runs, key=lambda number: (key(self._runs[number]), number), reverse=self.descending)

    def _arrange(self) -> None:
        for name, head in self.heads.items():
            head.description = name + (" ▾" if self.descending else " ▴") * (name == self.sorted_by)
        self.body.children = [self._rows[n] for n in self._order()] or [widgets.HTML("<i>No runs yet: press Run.</i>")]


def _line(*cells: Any) -> widgets.Box:
    line = {"flex_flow": "row nowrap", "align_items": "center", "overflow": "visible", "min_height": "30px"}
    return widgets.Box(cells, layout=line)


def _cells(run: Run, style: Style) -> str:
    """All columns but the first as one line, after a sign in the colour and shape of the run's curves."""
    grid, line = _SWATCH, f'<span style="color: {style.colour}">{_MARKS[style.marker]}</span>'
    for name, (width, key, written) in list(_COLUMNS.items())[1:]:
        grid += f" {width}px"
        silent = name in _OF_ADAPTERS and run.settings.method != "adapter"
        line += f"<span>{'' if silent else html.escape(written(key(run)))}</span>"
    look = "white-space: nowrap; text-align: center; font-size: 12px; line-height: 24px"
    return f'<div style="display: grid; grid-template-columns: {grid}; {look}">{line}</div>'
