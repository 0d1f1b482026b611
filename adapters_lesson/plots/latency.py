"""Figures of lesson 09: what adapters cost when serving, and what is left when the lowest layers go without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import ceil, log2
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Transform

from ..costs import LORA_RANK
from .backdrop import Sheet, pixels_of, sheet_over
from .style import COLOURS, FROZEN, INK, MARKERS, TRAINED, course_style

Accuracies = tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]  # by training and n, in per cent, one a seed
Size = tuple[int, int]  # batch and length
_SIDE = {"adapter": -0.07, "lora": 0.07}  # how far the two stand apart, in powers of two
_LABELS = {
    "FFN": "FFN: {:,}",
    "projections": "attention's projections: {:,}",
    "attention": "attention, scores and mixing: {:,}",
    "adapters": "adapters: {:,}, {:.2f} % of the rest",
}
_STYLES = {"specialised": ("o", "-"), "robust": ("s", "--"), "dropped when serving": ("^", ":")}
_PALE, _GREY = "#9A9A9A", "#A6A6A6"


@course_style
def overhead_by_size(
    parts: Mapping[str, int],
    here: Size,
    predicted: Iterable[tuple[Size, str, float]],
    measured: Iterable[tuple[Size, str, float, Sequence[float]]],
    pale: Iterable[tuple[Size, float]] = (),
) -> Figure:
    """Where the multiply-adds of a block are, beside the overhead over the bare model against the size of the batch.

    Args:
        parts: multiply-adds as from ``multiply_adds``.
        here: the size, batch and length, that is marked.
        predicted: size, "adapter" or "lora", and per cent of extra multiply-adds.
        measured: size, "adapter" or "lora", per cent of extra time, and the ends of its interval.
        pale: size and per cent of adapters measured with other settings.
    """
    predicted, measured, pale = list(predicted), list(measured), list(pale)
    heights = [y for _, _, y in predicted] + [y for _, y in pale]
    heights += [end for _, _, y, interval in measured for end in (y, *interval)]
    low, high = -_limit(-min(heights), 5), _limit(1.05 * max(heights), 20)
    pixels, bars, plot = _overhead_backdrop(low, high)
    figure, sheet = sheet_over(pixels)
    share = 100 * parts["adapters"] / (sum(parts.values()) - parts["adapters"])
    for i, (part, count) in enumerate(parts.items()):
        colour = COLOURS["adapter"] if part == "adapters" else _GREY
        sheet.barh(i, count / parts["FFN"], 0.42, color=colour, transform=bars)
        sheet.text(0, i - 0.3, _LABELS[part].format(count, share), fontsize=12.5, va="bottom", transform=bars)
    x = _across(here)
    sheet.fill([x - 0.12, x + 0.12, x + 0.12, x - 0.12], [low, low, high, high], color=_GREY, alpha=0.35, lw=0,
               transform=plot)  # fmt: skip
    sheet.plot([_across(size) + _SIDE["adapter"] for size, _ in pale], [y for _, y in pale], MARKERS["adapter"], ms=7,
               color=COLOURS["adapter"], alpha=0.25, label="pale", transform=plot)  # fmt: skip
    for size, method, y in predicted:
        sheet.plot(_across(size) + _SIDE[method], y, "_", color=COLOURS[method], ms=16, mew=3, transform=plot,
                   label=f"{method} predicted")  # fmt: skip
    for size, method, y, interval in measured:
        _point(sheet, _across(size) + _SIDE[method], y, interval, method, transform=plot)
    return figure


def _across(size: Size) -> float:
    """Where a size stands: at its words, in powers of two; with as many words, smaller batches come first."""
    batch, length = size
    return log2(batch * length) + 0.08 * log2(batch)


def _limit(extreme: float, step: int) -> int:
    """The smallest multiple of ``step`` that holds ``extreme``: so the axes seldom jump, and few are ever drawn."""
    return step * max(1, ceil(extreme / step))


@cache
@course_style
def _overhead_backdrop(low: int, high: int) -> tuple[np.ndarray, Transform, Transform]:
    """The axes, and where in them the bars and the data belong."""
    figure = Figure(figsize=(11, 4.8))
    left = figure.add_axes((0.015, 0.05, 0.305, 0.85), xlim=(0, 1), ylim=(3.4, -0.75))
    left.set_title("Multiply-adds, one word, one block")
    left.set_axis_off()
    axes = figure.add_axes((0.405, 0.14, 0.585, 0.69), xlim=(2.5, 14.8), ylim=(low, high))
    axes.axhline(0, color=INK, lw=1)
    axes.set_xticks(range(3, 15), [f"{2**k:,}" if k % 2 else "" for k in range(3, 15)])
    axes.set(xlabel="words in the batch (batch × length)", ylabel="% above the bare model")
    axes.set_title("Overhead of a forward pass (bars: 95 % interval)", pad=32)
    for method, label in (("adapter", "adapters"), ("lora", f"LoRA, rank {LORA_RANK}, not merged")):
        axes.plot([], [], MARKERS[method], color=COLOURS[method], label=label)
    axes.plot([], [], "_", color=INK, ms=16, mew=3, label="multiply-adds predict")
    place: Any = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.98), "borderpad": 0.2}
    axes.legend(**place, ncols=3, fontsize=12, handletextpad=0.3, columnspacing=1.2)
    return pixels_of(figure), left.transData, axes.transData


@course_style
def adapter_drop(
    layers: Sequence[Sequence[bool]],
    tasks: int,
    accuracies: Accuracies,
    training: str,
    work: Sequence[float],
    measured: Iterable[tuple[int, float, Sequence[float]]] = (),
) -> Figure:
    """The layers as they are served, beside accuracy and work against the number n of layers without adapters.

    Args:
        layers: from the bottom up, whether each of the layer's two adapters works.
        tasks: how many are served on the same text.
        accuracies: of the trainings; ``training`` is the one in colour.
        work: for each n, per cent of separate passes with all adapters.
        measured: n, per cent of their time, and the ends of its interval.
    """
    n = sum(not any(adapters) for adapters in layers)
    pixels, stack, upper, lower = _drop_backdrop(accuracies, training)
    figure, sheet = sheet_over(pixels)
    _draw_layers(sheet, stack, layers, tasks)
    seeds = dict(accuracies)[training][n]
    passes = f"{tasks} passes" if tasks > 1 else "one pass"
    for (x, y), text in (
        ((0.545, 0.935), f"Test accuracy: {mean(seeds):.1f} % (seeds {min(seeds):.1f} – {max(seeds):.1f})"),
        ((0.545, 0.475), f"Work: {work[n]:.0f} % of {passes} with all adapters"),
    ):
        sheet.text(x, y, text, fontsize=14)
    sheet.plot(range(len(work)), work, color=INK, ls="--", marker=".", transform=lower, label="work")
    for dropped, y, interval in measured:
        _point(sheet, dropped, y, [min(end, 118) for end in interval], "adapter", transform=lower)
    for where, (bottom, top), y in ((upper, _ACCURACY, mean(seeds)), (lower, _WORK, work[n])):
        sheet.fill([n - 0.07, n + 0.07, n + 0.07, n - 0.07], [bottom, bottom, top, top], color=_GREY, alpha=0.35, lw=0,
                   transform=where)  # fmt: skip
        sheet.plot(n, y, "o", ms=16, mfc="none", mec=INK, mew=1.8, transform=where, label="chosen")
    return figure


_ACCURACY, _WORK = (48, 105), (0, 118)  # limits of the two axes


@cache
@course_style
def _drop_backdrop(accuracies: Accuracies, training: str) -> tuple[np.ndarray, Transform, Transform, Transform]:
    """The axes with the accuracies and the layers' names; where in it layers, accuracies and work belong."""
    figure = Figure(figsize=(11, 5.2))
    count = len(accuracies[0][1])
    stack = figure.add_axes((0.005, 0.01, 0.46, 0.98), xlim=(0, 1), ylim=(-0.8, count + 0.35))
    stack.set_axis_off()
    for i in range(count):
        stack.text(_LEFT - 0.02, i + 0.4, f"layer {i}", ha="right", fontsize=11.5)
    stack.text((_LEFT + 1) / 2, -0.55, "one text: its embeddings", ha="center", va="center", fontsize=12, zorder=3)
    stack.add_collection(_boxes([(_LEFT, -0.72, 0.99 - _LEFT, 0.34)], "base"))
    for x, kind, text in ((_LEFT, "on", "adapter works"), (_LEFT + 0.32, "off", "left out")):
        stack.add_collection(_boxes([(x, count + 0.08, 0.04, 0.115)], kind))
        stack.text(x + 0.05, count + 0.14, text, va="center", fontsize=12)
    upper = figure.add_axes((0.545, 0.58, 0.445, 0.34), ylim=_ACCURACY, ylabel="%")
    for label, by_n in accuracies:
        (marker, line), chosen = _STYLES[label], label == training
        means = [mean(seeds) for seeds in by_n]
        bars = [
            [centre - min(seeds) for centre, seeds in zip(means, by_n, strict=True)],
            [max(seeds) - centre for centre, seeds in zip(means, by_n, strict=True)],
        ]
        upper.errorbar(
            range(count), means, yerr=bars, color=COLOURS["adapter"] if chosen else _PALE, marker=marker, ls=line,
            ms=6, capsize=3, label=label, zorder=3 if chosen else 2,
        )  # fmt: skip
    upper.legend(fontsize=11.5, loc="lower left", borderpad=0.1, labelspacing=0.3)
    lower = figure.add_axes((0.545, 0.115, 0.445, 0.34), ylim=_WORK, ylabel="%")
    lower.set_xlabel("lowest layers without adapters, n")
    for x, text, colour in ((0.0, "dashed: multiply-adds", INK), (2.5, "● time, measured", COLOURS["adapter"])):
        lower.text(x - 0.3, 8, text, color=colour, fontsize=11.5)
    for axes in (upper, lower):
        axes.set(xlim=(-0.4, count - 0.6), xticks=range(count))
    return pixels_of(figure), stack.transData, upper.transData, lower.transData


_LEFT = 0.17  # where the drawn layers begin
_Box = tuple[float, float, float, float]  # x, y, width, height


def _draw_layers(sheet: Sheet, stack: Transform, layers: Sequence[Sequence[bool]], tasks: int) -> None:
    """Layers without adapters once for all tasks, the others once for each.

    A layer is drawn as attention, its adapter, FFN, its adapter, from the bottom up.
    """
    whole = 0.99 - _LEFT
    step = whole / tasks
    gap = 0.16 * step if tasks > 1 else 0.0
    branches = [(_LEFT + i * step + gap / 2, step - gap) for i in range(tasks)]
    boxes: dict[str, list[_Box]] = {"base": [], "on": [], "off": []}
    wires: list[tuple[float, int]] = []  # to layer i at x
    for i, adapters in enumerate(layers):
        columns = branches if any(adapters) else [(_LEFT, whole)]
        for x, width in columns:
            boxes["base"] += [(x, i, width, 0.24), (x, i + 0.37, width, 0.24)]
            for works, y in zip(adapters, (i + 0.245, i + 0.615), strict=True):
                boxes["on" if works else "off"].append((x, y, width, 0.115))
        wires += [(x + width / 2, i) for x, width in columns]
        times = "once" if len(columns) == 1 else f"{len(columns)} times"
        sheet.text(_LEFT - 0.02, i + 0.1, times, ha="right", fontsize=11.5, transform=stack)
    sheet.vlines([x for x, _ in wires], [i - (0.27 if i else 0.38) for _, i in wires], [i for _, i in wires],
                 color=INK, lw=1.4, zorder=0.8, transform=stack)  # fmt: skip
    for kind, some in boxes.items():
        sheet.add_collection(_boxes(some, kind, transform=stack))
    many = "one task" if tasks == 1 else f"{tasks} tasks"
    sheet.text(0.99, len(layers) + 0.14, many, ha="right", va="center", fontsize=14, transform=stack)


def _boxes(boxes: Sequence[_Box], kind: str, **style: Any) -> PolyCollection:
    """Rectangles of the base model, of adapters that work, or of those left out."""
    looks = {"base": (FROZEN, "#8A8A8A", "-"), "on": (TRAINED, TRAINED, "-"), "off": ("white", INK, ":")}
    face, edge, line = looks[kind]
    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in boxes]
    return PolyCollection(corners, fc=face, ec=edge, ls=line, lw=0.8, label=kind, **style)


def _point(sheet: Sheet, x: float, y: float, interval: Sequence[float], method: str, **style: Any) -> None:
    """A measured value with its interval."""
    sheet.plot([x, x], interval, color=COLOURS[method], marker="_", ms=9, mew=2, label=f"{method} interval", **style)
    sheet.plot(x, y, color=COLOURS[method], marker=MARKERS[method], label=f"{method} measured", **style)
