"""One figure of where a model's adapters are, drawn fast enough to follow a slider."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..costs import ParameterCount
from .anatomy import percent
from .backdrop import pixels_of, sheet_over
from .diagrams import Part, Wiring, draw_wiring
from .style import FROZEN, TRAINED, course_style

_WIDTH, _LEFT, _MODEL = 15.3, 0.3, -3.75
# The sheet over the whole figure, in the units of a block's wiring, which has its middle at 0.
_LIMITS: Any = {"xlim": (0, _WIDTH), "ylim": (-4.73, 2.5)}


@course_style
def placement_figure(title: str, wires: Wiring, count: ParameterCount, change: str, with_gradient: int) -> Figure:
    """The wiring of one block, and below it the whole model with what is trained in it; always of the same size.

    Args:
        title: which block it is.
        wires: of the block.
        count: of the whole model.
        change: by how much the adapters have changed the output.
        with_gradient: parameters of the whole model that get a gradient.
    """
    figure, sheet = sheet_over(_backdrop(tuple(count.by_layer)))
    sheet.set(**_LIMITS)
    sheet.text(_LEFT, 2.3, title, va="top", fontsize=14, weight="bold")
    sheet.text(2.3, 1.8, wires.formula, va="top", fontsize=14)
    draw_wiring(sheet, wires, spread(wires.parts))
    sheet.text(_LEFT, -1.35, _size_of_adapters(wires), va="top", fontsize=12)
    for x, width, of_place in zip(*_columns(len(count.by_layer)), count.by_layer.values(), strict=True):
        if of_place.trainable:
            sheet.add_patch(Rectangle((x, _MODEL), width, 0.5, color=TRAINED))
            sheet.text(x + width / 2, _MODEL + 0.23, f"{of_place.trainable:,}", color="white", ha="center", va="center")
    share = percent(count.trainable / count.total)
    sheet.text(1.32, -3.9, f"{count.trainable:,} of {count.total:,} parameters, {share}", va="top", fontsize=12)
    sheet.text(4.92, -4.25, change, va="top", fontsize=12)
    sheet.text(10.75, -4.25, f"{with_gradient:,}", va="top", fontsize=12)
    return figure


def spread(parts: Sequence[Part]) -> list[float]:
    """Where the parts of a wiring stand if they fill the sheet's width with equal gaps."""
    widths = [0.54 if part.is_sum else 1.44 for part in parts]
    left, right = _LEFT + 0.63, _WIDTH - _LEFT - 0.55  # room for "in" and for the last arrow
    gap = (right - left - sum(widths)) / (len(parts) - 1)
    return [left + sum(widths[:i]) + i * gap + width / 2 for i, width in enumerate(widths)]


@cache
@course_style
def _backdrop(places: tuple[str, ...]) -> np.ndarray:
    """What is always said, and the model's parts, all of them frozen."""
    figure = Figure(figsize=(11, 5.2))
    sheet = figure.add_axes((0, 0, 1, 1), **_LIMITS)
    sheet.set_axis_off()
    sheet.text(_LEFT, 1.8, "after the FFN:", va="top", fontsize=14)
    letters = "h: from the FFN · r: the stream past it · A: adapter, update: what it adds"
    sheet.text(_WIDTH - _LEFT, 1.8, letters, ha="right", va="top", fontsize=12)
    sheet.text(_LEFT, -1.0, "adapters in this block:", va="top", fontsize=12)
    sheet.text(_WIDTH - _LEFT, _MODEL + 1.1, "the whole model: trained in blue", ha="right", fontsize=12)
    sheet.text(_LEFT, -3.9, "trained:", va="top", fontsize=12)
    sheet.text(_LEFT, -4.25, "measured: the output has changed by", va="top", fontsize=12)
    sheet.text(6.95, -4.25, "parameters that get a gradient:", va="top", fontsize=12)
    for place, x, width in zip(places, *_columns(len(places)), strict=True):
        sheet.add_patch(Rectangle((x, _MODEL), width, 0.95, fc=FROZEN, ec="#8A8A8A"))
        sheet.text(x + width / 2, _MODEL + 0.72, place, ha="center", va="center", fontsize=12)
    return pixels_of(figure)


def _size_of_adapters(wires: Wiring) -> str:
    parts = [*wires.parts, *(wires.beside or ())[1:]]
    sizes = [part.parameters for part in parts if part.label.startswith("adapter")]
    return f"{len(sizes)} × (2·d·m + m + d)\n= {len(sizes)} × {sizes[0]:,} parameters" if sizes else "none"


def _columns(number: int) -> tuple[list[float], list[float]]:
    """Left edge and width of each of the model's parts."""
    step = (_WIDTH - 2 * _LEFT) / number
    return [_LEFT + step * i for i in range(number)], [step - 0.1] * number
