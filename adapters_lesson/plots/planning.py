"""The figure of ``costs.planning``: a training step against GPU sizes, the largest batches, tasks on disk."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..costs.planning import GPUS, Costs
from .backdrop import Sheet, pixels_of, sheet_over
from .costs import entries_legend, stack_entries
from .style import COLOURS, FROZEN, INK, course_style

# In bytes, each with the size from which on it is used: GB up to 10 TB, to be compared with GPUs.
_UNITS = ((1e12, 1e13, "TB"), (1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (1e3, 0, "kB"))
# Places, as shares of the figure: fixed, so that nothing jumps when a setting changes.
_BARS = (0.012, 0.21, 0.575, 0.6)
_LEFT, _RIGHT, _TABLE = 0.64, 0.985, 0.765
_TOP, _BOTTOM = -0.7, 2.4  # of the bars' place; they are at 0, 1 and 2, their labels 0.3 to 0.6 above
_BESIDE_LABELS = ((-0.7, -0.56), (-0.3, 0.44), (0.7, 1.44), (1.7, 2.4))
_TICKS = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
_COLUMN: Any = {"va": "top", "fontsize": 12, "linespacing": 1.9}
_SHORT = {
    "full": "full",
    "head": "head",
    "layer_norm": "norms",
    "bitfit": "BitFit",
    "adapter": "adapters",
    "lora": "LoRA",
}


def bytes_in_words(size: float) -> str:
    """A number of bytes with its unit, in three digits or more."""
    unit, name = _unit(size)
    value = size / unit
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f} {name}"


@course_style
def costs_figure(costs: Costs) -> Figure:
    """Bars of a step's memory with lines at GPU sizes; a table of the largest batches; bars of the tasks on disk."""
    highest = max(ledger.peak for ledger in costs.ledgers.values())
    unit, name = _unit(highest)
    next_gpu = [gpu * 1e9 for gpu in GPUS if highest < gpu * 1e9 < 1.6 * highest][:1]
    right = 1.06 * max([highest, *next_gpu]) / unit
    figure, sheet = sheet_over(_backdrop(name))
    _fit(sheet, right)
    _draw_ticks(sheet, right)
    _draw_gpus(sheet, right, unit)
    _draw_step(sheet, costs, unit)
    figure.text(0.012, 0.945, costs.setting, fontsize=14)
    _draw_batches(figure, costs)
    _draw_disk(figure, costs)
    return figure


def _unit(size: float) -> tuple[float, str]:
    return next((unit, name) for unit, first, name in _UNITS if size >= first)


@cache
@course_style
def _backdrop(unit: str) -> np.ndarray:
    """What is the same for all costs that are drawn in this unit."""
    figure = Figure(figsize=(11, 5.2))
    axes = figure.add_axes(_BARS, xticks=[], yticks=[])
    axes.spines["left"].set_visible(False)
    figure.text(_BARS[0] + _BARS[2] / 2, 0.13, f"{unit} at the highest point of a step", ha="center", fontsize=12)
    legend: Any = {"ncols": 5, "fontsize": 11, "columnspacing": 0.9, "handletextpad": 0.4, "handlelength": 1.7}
    figure.legend(handles=entries_legend(), loc="lower left", bbox_to_anchor=(0.0, -0.01), **legend)
    figure.text(_LEFT, 0.85, "Largest batch that fits (–: none)", fontsize=14)
    figure.text(_LEFT, _TABLE, "\n".join(GPUS.values()), **_COLUMN)
    return pixels_of(figure)


def _fit(sheet: Sheet, right: float) -> None:
    """Let 0 and ``right`` be the sides of the bars' place, and the methods 0, 1 and 2 lie in it below one another."""
    x, y, width, height = _BARS
    wide, high = right / width, (_BOTTOM - _TOP) / height
    sheet.set(xlim=(-x * wide, (1 - x) * wide), ylim=(_BOTTOM + y * high, _BOTTOM - (1 - y) * high))


def _draw_ticks(axes: Sheet, right: float) -> None:
    """Grid and numbers: by hand, since matplotlib would take a third longer with an axis of its own."""
    ticks = [tick for tick in _TICKS.tick_values(0, right) if tick < right]
    axes.vlines(ticks, _TOP, _BOTTOM, color="#E6E6E6", lw=1, zorder=0.5)
    for tick in ticks:
        axes.text(tick, _BOTTOM + 0.07, f"{tick:,g}", ha="center", va="top", fontsize=12)


def _draw_gpus(axes: Sheet, right: float, unit: float) -> None:
    """Lines at the GPU sizes; those whose names would run into one another are left out."""
    named: list[float] = []
    for gpu, name in sorted(GPUS.items(), reverse=True):
        x = gpu * 1e9 / unit
        if 0.05 < x / right < 1 and (not named or named[-1] - x > 0.085 * right):
            axes.text(x, _TOP - 0.05, name, ha="center", va="bottom", fontsize=12)
            named.append(x)
    starts, ends = zip(*_BESIDE_LABELS, strict=True)
    axes.vlines(
        named * len(starts), np.repeat(starts, len(named)), np.repeat(ends, len(named)), color=INK, ls="--", lw=1.2
    )
    if not named and right * unit < min(GPUS) * 1e9:
        axes.text(right, _TOP - 0.05, f"{GPUS[min(GPUS)]}: far to the right", ha="right", va="bottom", fontsize=12)
    elif not named:
        axes.text(0, _TOP - 0.05, f"{GPUS[max(GPUS)]}: far to the left", va="bottom", fontsize=12)


def _draw_step(axes: Sheet, costs: Costs, unit: float) -> None:
    """A bar for each method, its label above it."""
    ledgers = costs.ledgers
    for y, (method, ledger) in enumerate(ledgers.items()):
        stack_entries(axes, y, ledger, unit, height=0.5)
        share = "" if method == "full" else f", {100 * ledger.peak / ledgers['full'].peak:.0f} % of full"
        text = f"{costs.labels[method]}: {bytes_in_words(ledger.peak)}{share}"
        axes.text(0, y - 0.31, text, va="bottom", weight="bold")


def _draw_batches(figure: Figure, costs: Costs) -> None:
    """The table's columns: a method in each, below it the batches for the GPUs."""
    for x, (method, batches) in zip((0.795, 0.897, _RIGHT), costs.largest_batches.items(), strict=False):
        figure.text(x, 0.79, _SHORT[method], ha="right", color=COLOURS[method], weight="bold")
        cells = [f"{n / 1e6:.2f} M" if n >= 1e6 else f"{n:,}" if n else "–" for n in batches]
        figure.text(x, _TABLE, "\n".join(cells), ha="right", multialignment="right", **_COLUMN)


def _draw_disk(figure: Figure, costs: Costs) -> None:
    """A bar for full copies, and one for one base model with what the method trains for each task."""
    tasks, together = costs.tasks, costs.base + costs.parts
    figure.text(_LEFT, 0.29, f"On disk: {tasks} task{'s' * (tasks > 1)}", fontsize=14)
    rows = [(f"full copies: {bytes_in_words(costs.copies)}", [(costs.copies, COLOURS["full"])])]
    if costs.method != "full":
        label = f"one base + {tasks} × {_SHORT[costs.method]}: {bytes_in_words(together)}"
        rows.append((label, [(costs.base, FROZEN), (costs.parts, COLOURS[costs.method])]))
    scale = (_RIGHT - _LEFT) / max(sum(size for size, _ in pieces) for _, pieces in rows)
    for y, (label, pieces) in zip((0.157, 0.03), rows, strict=False):
        figure.text(_LEFT, y + 0.062, label, fontsize=12)
        left = _LEFT
        for size, colour in pieces:
            figure.add_artist(Rectangle((left, y), scale * size, 0.046, facecolor=colour, edgecolor=INK, lw=0.6))
            left += scale * size
