"""Figures of what fine-tuning costs: parameters and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..costs.memory import MemoryLedger
from ..costs.parameters import ParameterCount
from .backdrop import Sheet
from .style import COLOURS, FROZEN, INK, MARKERS, TRAINED, course_style, new_figure

# What stands in a ledger, from the bottom of a bar to its top. Hatches, so that grey prints tell them apart as well.
_ENTRIES = {
    "weights": (FROZEN, ""),
    "optimizer_state": ("#E69F00", "//"),
    "gradients": ("#CC79A7", "\\\\"),
    "activations": ("#56B4E9", ".."),
    "temporary": ("white", ""),
}


@course_style
def parameter_bars(count: ParameterCount) -> Figure:
    """The parameters of every layer, the trained ones coloured, with both numbers written beside."""
    layers = count.by_layer
    figure, axes = new_figure(9.5, 0.42 * len(layers) + 1.3)
    largest = max(entry.total / 1e6 for entry in layers.values())
    for y, entry in enumerate(layers.values()):
        frozen, trained = (entry.total - entry.trainable) / 1e6, entry.trainable / 1e6
        axes.barh(y, frozen, color=FROZEN, edgecolor=INK, linewidth=0.5)
        axes.barh(y, trained, left=frozen, color=TRAINED)
        label = f"{entry.trainable:,} of {entry.total:,} trained"
        axes.text(frozen + trained + largest / 60, y, label, va="center", fontsize=12)
    axes.set_yticks(range(len(layers)), list(layers))
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.62 * largest), xlabel="million parameters")
    axes.set_title(f"{count.trainable:,} of {count.total:,} parameters are trained")
    axes.grid(axis="y", visible=False)
    return figure


def stack_entries(axes: Axes | Sheet, y: float, ledger: MemoryLedger, unit: float, height: float) -> None:
    """A bar at ``y`` of what adds up to the ledger's peak, in units of so many bytes."""
    left = 0.0
    smaller = "gradients" if ledger.activations >= ledger.gradients else "activations"
    for name in _ENTRIES:
        width = getattr(ledger, name) / unit
        if width and name != smaller:
            axes.add_patch(_entry(name, (left, y - height / 2), width, height))
            left += width


def entries_legend() -> list[Rectangle]:
    """Handles for the legend of ``stack_entries``."""
    return [_entry(name, (0, 0), 1, 1, label=name.replace("_", " ")) for name in _ENTRIES]


def _entry(name: str, corner: tuple[float, float], width: float, height: float, **settings: Any) -> Rectangle:
    colour, hatch = _ENTRIES[name]
    return Rectangle(corner, width, height, facecolor=colour, hatch=hatch, edgecolor=INK, linewidth=0.6, **settings)


@course_style
def memory_against_length(
    lengths: Sequence[int], ledgers: Mapping[str, Sequence[MemoryLedger]], methods: Mapping[str, str]
) -> Figure:
    """The highest point of a step against the sequence length, and the same as a share of the first row's."""
    figure, (left, right) = new_figure(11, 4.2, ncols=2)
    first = next(iter(ledgers.values()))
    shares = {label: [100 * a.peak / b.peak for a, b in zip(row, first, strict=True)] for label, row in ledgers.items()}
    heights: dict[str, float] = {}  # of the labels: at the lines' ends, but 7 points apart
    for label in sorted(shares, key=lambda label: shares[label][-1]):
        heights[label] = max([shares[label][-1], *(height + 7 for height in heights.values())])
    for i, (label, row) in enumerate(ledgers.items()):
        style = {"color": COLOURS[methods[label]], "marker": MARKERS[methods[label]], "ls": ["-", "--", ":"][i % 3]}
        left.plot(lengths, [ledger.peak / 1e6 for ledger in row], **style)
        right.plot(lengths, shares[label], **style)
        right.annotate(
            label, (lengths[-1], heights[label]), (9, 0), textcoords="offset points", va="center", fontsize=12
        )
    left.set(xscale="log", yscale="log", xlabel="tokens in each text", ylabel="MB", title="Highest point of a step")
    right.set(xscale="log", xlabel="tokens in each text", ylabel="%", ylim=(0, 108))
    right.set_title(f"The same, as a share of {next(iter(ledgers))}")
    right.set_xlim(lengths[0] / 1.2, lengths[-1] * 7)
    for axes in (left, right):
        axes.set_xticks(list(lengths), [str(length) for length in lengths])
        axes.minorticks_off()
    low, high = left.get_ylim()
    ticks = [step * 10**power for power in range(7) for step in (1, 2, 5) if low <= step * 10**power <= high]
    left.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    return figure
