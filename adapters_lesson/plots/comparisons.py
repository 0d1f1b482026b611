"""Figures that compare runs: means over seeds with their spread, sensitivity to a setting, what switching off costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..history import History
from .style import COLOURS, INK, MARKERS, course_style, new_figure

Run = History | Mapping[str, Any]
STYLES = ("-", "--", ":")


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval after Student: ``t · s / √n``.

    Raises:
        ValueError: for fewer than two values, which have no spread.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} value(s) have no spread: an interval needs at least two seeds")
    from scipy.stats import t  # type: ignore[import-untyped]

    return mean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


@course_style
def curves_over_seeds(runs: Mapping[str, Sequence[Run]], methods: Mapping[str, str]) -> Figure:
    """Training loss and validation accuracy: mean over the seeds, with its 95 % confidence interval as a band.

    Args:
        runs: label to one run for each seed: a ``History``, or a run of data/results with "loss" (one mean for every
            ten steps) and "validation" (accuracy after each epoch, in [0, 1]). A single run is drawn without a band.
        methods: label to method, which gives the colour.
    """
    figure, (left, right) = new_figure(12.5, 4.8, ncols=2)
    ends = []
    for label, seeds in runs.items():
        colour, marker = COLOURS[methods[label]], MARKERS[methods[label]]
        losses, accuracies = zip(*(_curves(run) for run in seeds), strict=True)
        _band(left, 10, losses, colour)
        last = _band(right, 1, accuracies, colour, marker=marker)
        ends.append((label, len(accuracies[0]), last, colour))
    highest = max(max(line.get_ydata()) for line in left.lines)  # of the means: a wide band may leave the picture
    left.set(title="Training loss", xlabel="step", ylim=(0, 1.25 * highest))
    right.set(title="Validation accuracy", xlabel="epoch", ylabel="%", ylim=(45, 103), xticks=range(1, ends[0][1] + 1))
    right.set_xlim(0.8, ends[0][1] + 1.6)
    _label_ends(right, ends, gap=4.5)
    return figure


@course_style
def pareto(series: Sequence[tuple[str, str, Sequence[tuple[str, int, Sequence[float]]]]]) -> Figure:
    """Test accuracy against trainable parameters; a dashed line joins what no cheaper method beats.

    Args:
        series: label, method and points; a point has its own label, trainable parameters and one accuracy in [0, 1]
            for each seed. The points of a series are joined.
    """
    figure, axes = new_figure(11, 5.6)
    points = []
    for i, (label, method, members) in enumerate(series):
        means = [100 * mean(accuracies) for _, _, accuracies in members]
        spread = [
            [m - 100 * min(a) for m, (_, _, a) in zip(means, members, strict=True)],
            [100 * max(a) - m for m, (_, _, a) in zip(means, members, strict=True)],
        ]
        style = STYLES[i % len(STYLES)] if len(members) > 1 else "none"
        axes.errorbar(
            [p for _, p, _ in members], means, yerr=spread, color=COLOURS[method], marker=MARKERS[method],
            ls=style, capsize=4, elinewidth=1.2, label=label,
        )  # fmt: skip
        offset, side, edge = ((0, 9), "center", "bottom") if i == 0 else ((7, -6), "left", "top")
        for (text, parameters, accuracies), value in zip(members, means, strict=True):
            points.append((parameters, value))
            at = (
                parameters,
                100 * max(accuracies) if i == 0 else value,
            )  # the first series' labels stand above its bars
            axes.annotate(text, at, offset, textcoords="offset points", ha=side, va=edge, color=COLOURS[method])
    front = pareto_front(points)
    axes.step([p for p, _ in front], [a for _, a in front], where="post", color=INK, lw=1, ls=(0, (6, 4)), zorder=0)
    axes.set(xscale="log", xlabel="trainable parameters", ylabel="test accuracy, %")
    axes.set_title("Accuracy against what is trained (bars: lowest to highest seed)")
    axes.margins(x=0.12, y=0.1)
    axes.legend(loc="upper left", fontsize=12)
    return figure


def pareto_front(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points that no point with as few parameters, or fewer, beats; from the smallest to the largest."""
    front: list[tuple[int, float]] = []
    for parameters, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((parameters, accuracy))
    return front


@course_style
def sensitivity(
    lines: Mapping[str, Mapping[float, Sequence[float]]],
    methods: Mapping[str, str],
    *,
    title: str,
    xlabel: str,
    floor: float | None = None,
) -> Figure:
    """Accuracy against a setting on a logarithmic axis: mean over the seeds, bars from the lowest to the highest.

    Args:
        lines: label to {setting: one accuracy in [0, 1] for each seed}.
        methods: label to method, which gives the colour.
        floor: accuracy of always answering the same, drawn as a dashed line.
    """
    figure, axes = new_figure(10, 4.8)
    ends = []
    for label, values in lines.items():
        xs, colour = sorted(values), COLOURS[methods[label]]
        means = [100 * mean(values[x]) for x in xs]
        spread = [
            [m - 100 * min(values[x]) for m, x in zip(means, xs, strict=True)],
            [100 * max(values[x]) - m for m, x in zip(means, xs, strict=True)],
        ]
        axes.errorbar(xs, means, yerr=spread, color=colour, marker=MARKERS[methods[label]], capsize=4, elinewidth=1.2)
        ends.append((label, xs[-1], means[-1], colour))
    axes.set(xscale="log", xlabel=xlabel, ylabel="test accuracy, %", ylim=(45, 103))
    axes.set_title(title)
    if floor is not None:
        axes.axhline(100 * floor, color=INK, lw=1, ls="--")
        axes.annotate("always the same answer", (0.01, 100 * floor), (0, -4), xycoords=axes.get_yaxis_transform(),
                      textcoords="offset points", va="top", fontsize=11)  # fmt: skip
    axes.margins(x=0.04)
    _label_ends(axes, ends, gap=4.5)
    return figure


@course_style
def ablation_map(change: Mapping[tuple[int, int], float]) -> Figure:
    """Change of accuracy when the adapters of a span of layers are switched off (Houlsby et al. 2019, figure 6).

    Args:
        change: (first layer, last layer), counted from 0, to the relative change of accuracy: -0.1 is a tenth lost.
    """
    layers = 1 + max(last for _, last in change)
    grid = [[100 * change.get((first, last), math.nan) for last in range(layers)] for first in range(layers)]
    figure, axes = new_figure(7.4, 5.8)
    lowest = min(-1.0, *(value for row in grid for value in row if not math.isnan(value)))
    image = axes.imshow(grid, cmap="Blues_r", vmin=lowest, vmax=0)
    for (first, last), value in change.items():
        dark = 100 * value < 0.55 * lowest
        axes.text(last, first, f"{100 * value:+.0f}", ha="center", va="center", color="white" if dark else INK)
    axes.grid(False)
    axes.set(xlabel="last layer switched off", ylabel="first layer switched off")
    axes.set(xticks=range(layers), yticks=range(layers))
    axes.set_title("Adapters of a span of layers switched off")
    figure.colorbar(image, label="relative change of accuracy, %")
    return figure


@course_style
def before_and_after(rows: Mapping[str, Mapping[str, float]], methods: Mapping[str, str]) -> Figure:
    """An old task's accuracy before and after training on a new one, and with the change switched off again.

    Args:
        rows: label to accuracies in [0, 1] called "before", "after" and, where it is possible, "switched off".
        methods: label to method, which gives the colour.
    """
    figure, axes = new_figure(10, 0.75 * len(rows) + 1.9)
    for y, (label, values) in enumerate(rows.items()):
        colour = COLOURS[methods[label]]
        before, after = 100 * values["before"], 100 * values["after"]
        axes.annotate("", (after, y), (before, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.2})
        axes.plot(before, y, marker="o", ms=11, mfc="white", mec=colour, mew=2.2, ls="none")
        axes.annotate(
            f"{before - after:.1f} lost", (after, y), (-8, 0), textcoords="offset points", ha="right", va="center"
        )
        if "switched off" in values:
            axes.plot(100 * values["switched off"], y, marker=MARKERS[methods[label]], color=colour, ms=5, ls="none")
            axes.annotate(
                "back when switched off", (before, y), (12, 0), textcoords="offset points", va="center", color=colour
            )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy on the old task, %")
    axes.set_title("The old task: from before (ring) to after (arrow)")
    ends = [100 * value for values in rows.values() for value in values.values()]
    room = 0.35 * (max(ends) - min(ends))  # for the words at both ends
    axes.set_xlim(min(ends) - room, max(ends) + 1.5 * room)
    return figure


def _curves(run: Run) -> tuple[Sequence[float], Sequence[float]]:
    """Loss for every ten steps, and accuracy in per cent after each epoch."""
    if isinstance(run, History):
        tens = [run.loss[i : i + 10] for i in range(0, run.steps, 10)]
        return [mean(part) for part in tens], [100 * entry["accuracy"] for entry in run.validation]
    return run["loss"], [100 * accuracy for accuracy in run["validation"]]


def _band(axes: Axes, every: int, curves: Sequence[Sequence[float]], colour: str, **line: Any) -> float:
    """Draw the mean of some curves and its interval; returns the mean's last value."""
    points = [mean_and_interval(v) if len(v) > 1 else (v[0], 0.0) for v in zip(*curves, strict=True)]
    xs = [every * (i + 1) for i in range(len(points))]
    axes.plot(xs, [m for m, _ in points], color=colour, **line)
    axes.fill_between(xs, [m - h for m, h in points], [m + h for m, h in points], color=colour, alpha=0.15, lw=0)
    return points[-1][0]


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]], gap: float, top: float = 101) -> None:
    """Write each line's label at its end, moved so that no two are closer than ``gap`` and none is above ``top``."""
    ends, heights = sorted(ends, key=lambda end: end[2]), [-math.inf]
    for _, _, y, _ in ends:
        heights.append(max(y, heights[-1] + gap))
    for i, (label, x, _, colour) in enumerate(ends, start=1):
        y = min(heights[i], top - gap * (len(ends) - i))
        axes.annotate(label, (x, y), (10, 0), textcoords="offset points", va="center", color=colour)
