"""One figure of a mixed batch's ways through a model, drawn fast enough to follow a click."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from ..bank import grouped
from .backdrop import Sheet, pixels_of, sheet_over
from .style import FROZEN, course_style

MAX_ROWS = 8
# Okabe and Ito's palette, each colour with a line of its own. Tasks beyond six begin it again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1)))
_BARE: tuple[str, Any] = ("#7F7F7F", (0, (1, 2)))
_LIMITS: Any = {"xlim": (0, 11), "ylim": (0, 5.2)}  # inches
_BASE, _BASE_WIDTH, _HEADS, _HEAD_WIDTH, _ANSWERS = 4.68, 2.5, 7.6, 1.42, 9.72
_STANDS = {"attention": (0.36, 0.11), "FFN": (0.84, 0.11), "beside": (0.6, 0.14)}  # adapters: from, width in a block


@dataclass(frozen=True)
class MixedBatch:
    """A batch whose rows belong to different tasks, and what came of it.

    Attributes:
        texts: the rows, at most ``MAX_ROWS``.
        adapters: the task of each, None for the bare base model.
        answers: for each its label and the label's probability, None without a task.
        difference: the largest difference of any result from that of the row by itself.
        labels: how many labels each of the bank's tasks has.
        places: for each block and task, its adapters: after the "attention", after the "FFN", or "beside" it.
    """

    texts: tuple[str, ...]
    adapters: tuple[str | None, ...]
    answers: tuple[tuple[str, float] | None, ...]
    difference: float
    labels: Mapping[str, int]
    places: Sequence[Mapping[str, Sequence[str]]]

    def look(self, name: str | None) -> tuple[str, Any]:
        """Colour and line of a task, the same whatever else is in the batch."""
        place = -1 if name is None else list(self.labels).index(name) % len(_COLOURS)
        return _BARE if name is None else (_COLOURS[place], _LINES[place])


@course_style
def routing(batch: MixedBatch) -> Figure:
    """Rows, their ways through the blocks with the adapters there, heads and answers; always of the same size."""
    figure, sheet = sheet_over(_backdrop(batch.texts, len(batch.places)))
    sheet.set(**_LIMITS)
    heights, step = _lanes(len(batch.texts))
    order, groups = grouped(batch.adapters)
    _draw_ways(sheet, batch, order, heights)
    boxes, colours, lane = [], [], 0
    for name, rows in groups:
        low, height = heights[lane + rows - 1] - 0.37 * step, (rows - 0.26) * step
        _draw_head(sheet, batch, name, low, height)
        for x, width in _adapters(batch, name):
            boxes.append([(x, low), (x + width, low), (x + width, low + height), (x, low + height)])
            colours.append(batch.look(name)[0])
        lane += rows
    sheet.add_collection(PolyCollection(boxes, fc=colours, ec="white", lw=0.5, zorder=4))
    for answer, y in zip(batch.answers, heights, strict=True):
        said = "no answer" if answer is None else f"{short(answer[0], 13)}\n{answer[1]:.2f}"
        sheet.text(_ANSWERS, y, said, va="center", fontsize=12, linespacing=1.1)
    passes = f"1 pass instead of {len(batch.texts)}; " if len(batch.texts) > 1 else "1 pass; "
    sheet.text(0.1, 0.17, f"{passes}largest difference from row by row: {rounded(batch.difference)}", va="center")
    return figure


def short(text: str, length: int) -> str:
    """``text``, cut to ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def rounded(difference: float) -> str:
    """One digit and the power of ten."""
    return f"{difference:.0e}" if difference else "0"


def _lanes(rows: int) -> tuple[list[float], float]:
    """The rows' heights from the top down, and how far they are apart."""
    step = min(0.75, 4.1 / rows)
    return [2.55 + step * ((rows - 1) / 2 - i) for i in range(rows)], step


@lru_cache(maxsize=8)
@course_style
def _backdrop(texts: tuple[str, ...], blocks: int) -> np.ndarray:
    """Everything that does not depend on the rows' tasks."""
    figure = Figure(figsize=(11, 5.2))
    sheet = figure.add_axes((0, 0, 1, 1), **_LIMITS)
    sheet.set_axis_off()
    heights, step = _lanes(len(texts))
    top, bottom = heights[0] + step / 2, heights[-1] - step / 2
    width, middle = _BASE_WIDTH / blocks, _BASE + _BASE_WIDTH / 2
    for i, (text, y) in enumerate(zip(texts, heights, strict=True)):
        lines = textwrap.wrap(text, 42, max_lines=2, placeholder=" …", break_on_hyphens=False)
        sheet.text(0.1, y, f"{i + 1}", va="center", fontsize=13, weight="bold")
        sheet.text(0.36, y, "\n".join(lines), va="center", fontsize=11, linespacing=1.1)
    for i in range(blocks):
        for start, label in ((0.04, "att."), (0.52, "FFN")):
            x = _BASE + (i + start) * width
            sheet.add_patch(Rectangle((x, bottom), 0.3 * width, top - bottom, fc=FROZEN, ec="#8A8A8A"))
            if blocks <= 3:
                sheet.text(x + 0.15 * width, bottom - 0.12, label, ha="center", va="center", fontsize=11)
        if blocks <= 4:
            sheet.text(_BASE + (i + 0.5) * width, top + 0.12, f"block {i + 1}", ha="center", va="center", fontsize=11)
    if blocks > 4:
        sheet.text(middle, top + 0.12, f"{blocks} blocks", ha="center", va="center", fontsize=11)
    for x, title, where in (
        (0.1, "the batch", "left"),
        (middle, "the base model, once for all rows", "center"),
        (_HEADS + _HEAD_WIDTH / 2, "heads", "center"),
        (_ANSWERS, "answers", "left"),
    ):
        sheet.text(x, 5.0, title, ha=where, va="center", weight="bold")
    sheet.text(10.9, 0.17, "grey: frozen; coloured: the task's own", ha="right", va="center", fontsize=12)
    return pixels_of(figure)


def _draw_ways(sheet: Sheet, batch: MixedBatch, order: list[int], y: list[float]) -> None:
    """From each text to a lane beside its task's other rows, through base and head, and back to the text's height."""
    across = np.linspace(0, 1, 20)
    bend = (1 - np.cos(np.pi * across)) / 2
    ways = []
    for lane, row in enumerate(order):
        there = np.column_stack([3.92 + 0.63 * across, y[row] + (y[lane] - y[row]) * bend])
        back = np.column_stack([_HEADS + _HEAD_WIDTH + 0.58 * across, y[lane] + (y[row] - y[lane]) * bend])
        ways.append(np.concatenate([there, back]))
    looks = [batch.look(batch.adapters[row]) for row in order]
    colours, lines = [colour for colour, _ in looks], [line for _, line in looks]
    sheet.add_collection(LineCollection(ways, colors=colours, linestyles=lines, linewidths=2.4, zorder=3))


def _draw_head(sheet: Sheet, batch: MixedBatch, name: str | None, low: float, height: float) -> None:
    colour, line = batch.look(name)
    style = "round,pad=0,rounding_size=0.09"
    box = FancyBboxPatch((_HEADS, low), _HEAD_WIDTH, height, style, fc="white", ec=colour, ls=line, lw=2.4, zorder=4)
    sheet.add_patch(box)
    text = "no task" if name is None else f"{short(name, 13)}\n{batch.labels[name]} labels"
    middle = _HEADS + _HEAD_WIDTH / 2, low + height / 2
    sheet.text(*middle, text, ha="center", va="center", fontsize=11, linespacing=1.05, zorder=5)


def _adapters(batch: MixedBatch, name: str | None) -> list[tuple[float, float]]:
    """Where the adapters of a task begin in the drawing of the base, and how wide they are."""
    width = _BASE_WIDTH / len(batch.places)
    stands = [(i, *_STANDS[place]) for i, block in enumerate(batch.places) for place in block.get(name or "", ())]
    return [(_BASE + (i + start) * width, share * width) for i, start, share in stands]
