"""Figures that compare runs: means over seeds with their spread, sensitivity to a setting, what switching off costs."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adapters_lesson.history import History

from .style import COLOURS, FROZEN, INK, MARKERS, STYLES, beside, course_style, label_ends, new_figure

Run = History | Mapping[str, Any]


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval, Student's ``t · s / √n``; ValueError for fewer than two."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} value(s) have no spread: an interval needs at least two seeds")
    from scipy.stats import t  # type: ignore[import-untyped]

    return mean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


@course_style
def curves_over_seeds(runs: Mapping[str, Sequence[Run]], methods: Mapping[str, str]) -> Figure:
    """Training loss and validation accuracy: mean over the seeds, with its 95 % confidence interval as a band.

    A label's runs, one for each seed, are each a ``History`` or a run of data/results, with "loss" (one mean for every
    ten steps) and "validation" (accuracy in [0, 1] after each epoch). ``methods`` gives a label's colour.
    """
    figure, (left, right) = new_figure(12.5, 4.8, ncols=2)
    ends = []
    for label, seeds in runs.items():
        colour, marker = COLOURS[methods[label]], MARKERS[methods[label]]
        losses, accuracies = zip(*map(_curves, seeds), strict=True)
        _band(left, 10, losses, colour)
        last = _band(right, 1, accuracies, colour, marker=marker)
        if accuracies[0]:  # none of a run that was stopped in its first epoch
            ends.append((label, len(accuracies[0]), last, colour))
    epochs = max((epoch for _, epoch, _, _ in ends), default=1)
    left.set(title="Training loss (logarithmic)", xlabel="step", yscale="log")
    right.set(title="Validation accuracy", xlabel="epoch", ylabel="%", ylim=(45, 103), xticks=range(1, epochs + 1))
    right.set_xlim(0.8, epochs + 1.6)
    label_ends(right, ends)
    return figure


@course_style
def pareto(series: Sequence[tuple[str, str, Sequence[tuple[str, int, Sequence[float]]]]]) -> Figure:
    """Test accuracy against trainable parameters; a grey band joins what no cheaper method beats.

    A series is joined, the second hollow, the third half so: label, method, points of label, parameters, accuracies.
    """
    figure, axes = new_figure(11, 5.6)
    points = []
    for i, (label, method, members) in enumerate(series):
        style = STYLES[i % len(STYLES)] if len(members) > 1 else "none"
        rows = [(parameters, accuracies) for _, parameters, accuracies in members]
        look = {"mfc": "white" if i == 1 else COLOURS[method], "mfcalt": "white", "ls": style, "label": label}
        means = with_spread(axes, rows, method, fillstyle="bottom" if i == 2 and len(members) > 1 else "full", **look)
        offset, side, edge = ((0, 9), "center", "bottom") if i == 0 else ((7, -6), "left", "top")
        for (text, parameters, accuracies), value in zip(members, means, strict=True):
            points.append((parameters, value))
            at = (parameters, 100 * max(accuracies) if i == 0 else value)  # the first series' stand above its bars
            beside(axes, text, at, offset, ha=side, va=edge, color=COLOURS[method])
    front = _front(points)
    axes.step([p for p, _ in front], [a for _, a in front], where="post", color=FROZEN, lw=8, zorder=0)
    axes.set(xscale="log", xlabel="trainable parameters", ylabel="test accuracy, %")
    axes.set_title("Accuracy against what is trained (bars: lowest to highest seed)")
    axes.margins(x=0.12, y=0.1)
    axes.legend(loc="upper left", fontsize=12)
    return figure


def _front(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points that no point with as few parameters, or fewer, beats; from the smallest to the largest."""
    front: list[tuple[int, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


@course_style
def sensitivity(lines: Mapping[str, Any], methods: Mapping[str, str], title: str, xlabel: str, floor: float) -> Figure:
    """Accuracy against a setting on a logarithmic axis: mean over the seeds, bars from the lowest to the highest.

    A line is {setting: one accuracy in [0, 1] for each seed}; ``methods`` gives its colour. ``floor`` is the accuracy
    of always answering the same.
    """
    figure, axes = new_figure(10, 4.8)
    ends = []
    for label, values in lines.items():
        means = with_spread(axes, sorted(values.items()), methods[label])
        ends.append((label, max(values), means[-1], COLOURS[methods[label]]))
    axes.set(xscale="log", xlabel=xlabel, ylabel="test accuracy, %", ylim=(45, 103), title=title)
    axes.axhline(100 * floor, color=INK, lw=1, ls="--")
    look = {"xycoords": axes.get_yaxis_transform(), "va": "top", "fontsize": 11}
    beside(axes, "always the same answer", (0.01, 100 * floor), (0, -4), **look)
    axes.margins(x=0.04)
    label_ends(axes, ends)
    return figure


@course_style
def ablation_map(change: Mapping[tuple[int, int], float]) -> Figure:
    """Relative change of accuracy with the adapters of (first, last) blocks off (Houlsby et al. 2019, figure 6)."""
    layers = 1 + max(last for _, last in change)
    grid = [[100 * change.get((first, last), math.nan) for last in range(layers)] for first in range(layers)]
    figure, axes = new_figure(7.4, 5.8)
    lowest = min(-1.0, *(value for row in grid for value in row if not math.isnan(value)))
    image = axes.imshow(grid, cmap="Blues_r", vmin=lowest, vmax=0)
    for (first, last), value in change.items():
        dark = 100 * value < 0.55 * lowest
        text = f"{100 * value:+.0f}" if abs(value) >= 0.005 else "0"
        axes.text(last, first, text, ha="center", va="center", color="#FEFEFE" if dark else "#111111")  # in both themes
    axes.grid(False)
    axes.set(xlabel="last block switched off", xticks=range(layers), yticks=range(layers))
    axes.set(ylabel="first block switched off", title="Adapters of a span of blocks switched off")
    figure.colorbar(image, label="relative change of accuracy, %")
    return figure


@course_style
def before_and_after(rows: Mapping[str, Mapping[str, float]], methods: Mapping[str, str]) -> Figure:
    """Accuracies in [0, 1] on an old task "before" and "after" a new one, and "switched off" where that is possible."""
    figure, axes = new_figure(10, 0.75 * len(rows) + 1.9)
    for y, (label, values) in enumerate(rows.items()):
        colour = COLOURS[methods[label]]
        before, after = 100 * values["before"], 100 * values["after"]
        axes.annotate("", (after, y), (before, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.2})
        axes.plot(before, y, marker="o", ms=11, mfc="white", mec=colour, mew=2.2, ls="none")
        beside(axes, f"{before - after:.1f} lost", (after, y), (-8, 0), ha="right")
        if "switched off" in values:
            axes.plot(100 * values["switched off"], y, marker=MARKERS[methods[label]], color=colour, ms=5, ls="none")
            beside(axes, "back when switched off", (before, y), (12, 0), color=colour)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy on the old task, %")
    axes.set_title("The old task: from before (ring) to after (arrow)")
    ends = [100 * value for values in rows.values() for value in values.values()]
    room = 0.35 * (max(ends) - min(ends))  # for the words at both ends
    axes.set_xlim(min(ends) - room, max(ends) + 1.5 * room)
    return figure


def with_spread(axes: Axes, rows: Sequence[tuple[float, Sequence[float]]], method: str, **look: Any) -> list[float]:
    """Draw the means of accuracies in [0, 1] at their x, with bars from lowest to highest; returns them in per cent."""
    means = [100 * mean(values) for _, values in rows]
    bars = [(m - 100 * min(values), 100 * max(values) - m) for m, (_, values) in zip(means, rows, strict=True)]
    style: Any = {"color": COLOURS[method], "marker": MARKERS[method], "capsize": 4, "elinewidth": 1.2}
    axes.errorbar([x for x, _ in rows], means, yerr=[*zip(*bars, strict=True)], **style, **look)
    return means


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
    return points[-1][0] if points else math.nan
