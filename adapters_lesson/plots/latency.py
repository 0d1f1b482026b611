"""Figures of lesson 09: what adapters cost when serving, and what is left when the lowest layers go without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..costs import Latency, LatencyTable
from .style import COLOURS, INK, MARKERS, course_style, new_figure


@course_style
def latency_overhead(
    tables: Mapping[tuple[int, int], LatencyTable], predicted: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """Overhead over the first contender with its interval, one panel for each of the others.

    Args:
        tables: by batch size and length, measured with the same contenders.
        predicted: by contender, for each of the tables, the per cent of extra multiply-adds.
    """
    shapes = list(tables)
    _, *names = next(iter(tables.values())).rows
    figure, panels = new_figure(2.5 * len(names) + 0.8, 4.6, ncols=len(names), sharey=True, squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        method = "lora" if "lora" in name.lower() else "adapter"
        for x, shape in enumerate(shapes):
            row = tables[shape][name]
            _interval(axes, x, row, COLOURS[method], MARKERS[method])
        if predicted is not None:
            axes.plot(range(len(shapes)), predicted[name], color=INK, ls="--", lw=1.5)
        axes.axhline(0, color=INK, lw=1)
        axes.set_xticks(range(len(shapes)), [f"{batch} × {length}" for batch, length in shapes], rotation=90)
        axes.set(title=name, xlabel="batch × length")
        axes.margins(x=0.12)
    panels[0][0].set_ylabel("% above the bare model")
    if predicted is not None:  # in the last panel, because contenders are usually given from dear to cheap
        note = {"xycoords": "axes fraction", "ha": "right", "va": "top", "fontsize": 12}
        panels[0][-1].annotate("dashed:\nextra multiply-adds", (1, 1), **note)
    return figure


@course_style
def dropped_layers(accuracies: Mapping[str, Sequence[Sequence[float]]], served: Sequence[Latency]) -> Figure:
    """What leaving out the adapters of the lowest n layers costs and brings.

    Args:
        accuracies: by kind of training, for n = 0, 1, ... the accuracies in [0, 1] of the seeds.
        served: for n = 0, 1, ... the latency, compared with the bare model.
    """
    figure, (left, right) = new_figure(12, 4.6, ncols=2)
    for label, by_n in accuracies.items():
        style = {"specialised": ("o", "-"), "robust": ("s", "--")}.get(label, ("^", ":"))
        means = [100 * sum(seeds) / len(seeds) for seeds in by_n]
        below = [mean - 100 * min(seeds) for mean, seeds in zip(means, by_n, strict=True)]
        above = [100 * max(seeds) - mean for mean, seeds in zip(means, by_n, strict=True)]
        left.errorbar(
            range(len(means)), means, yerr=[below, above], color=COLOURS["adapter"], marker=style[0], ls=style[1],
            capsize=4,
        )  # fmt: skip
        left.annotate(label, (len(means) - 1, means[-1]), xytext=(9, 0), textcoords="offset points", va="center")
    left.set(title="Test accuracy (bars: lowest to highest seed)", ylabel="%")
    most = max(map(len, accuracies.values()))
    left.set_xticks(range(most))
    left.set_xlim(-0.3, 1.5 * most)  # room for the labels
    for n, row in enumerate(served):
        _interval(right, n, row, COLOURS["adapter"], MARKERS["adapter"])
    right.axhline(0, color=INK, lw=1)
    right.annotate("bare model", (0, 0), xytext=(0, 5), textcoords="offset points")
    right.set_title("Time of a forward pass (bars: 95 % interval)")
    right.set_ylabel("% above the bare model")
    right.set_xticks(range(len(served)))
    for axes in (left, right):
        axes.set_xlabel("lowest layers without adapters, n")
    return figure


def _interval(axes: Axes, x: float, row: Latency, colour: str, marker: str) -> None:
    """One overhead with its interval; a percentile interval need not contain the median, hence the max."""
    low, high = row.overhead_interval
    bars = [[max(0.0, row.overhead - low)], [max(0.0, high - row.overhead)]]
    axes.errorbar(x, row.overhead, yerr=bars, color=colour, marker=marker, capsize=4)
