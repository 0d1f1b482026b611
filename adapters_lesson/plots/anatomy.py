"""One figure of an adapter's anatomy, drawn fast enough to follow a slider."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from matplotlib.transforms import Transform

from ..adapter import Adapter
from .backdrop import Sheet, pixels_of, sheet_over
from .diagrams import draw_adapter_frame, draw_adapter_sizes
from .style import COLOURS, FROZEN, INK, course_style

# The sheet over the whole figure, in the units of the adapter's diagram.
_LIMITS: Any = {"xlim": (-0.34, 13.34), "ylim": (-7.9, 3.5)}


@course_style
def anatomy(
    adapter: Adapter, block: int, singular_values: Sequence[float], distances: Mapping[float, float], init_std: float
) -> Figure:
    """An adapter's diagram; below it its price, the directions of its update, and the length of its update.

    Args:
        adapter: as for ``adapter_diagram``.
        block: parameters of the transformer block that two such adapters are compared with.
        singular_values: of the update's Jacobian, those that count, the largest first; none for no direction.
        distances: |update| / |h| by the standard deviation of the initialisation, from 1e-4 to 1.
        init_std: which of them is marked; where its distance is 0, nothing is.
    """
    pixels, spectrum, distance = _backdrop()
    figure, sheet = sheet_over(pixels)
    sheet.set(**_LIMITS)
    draw_adapter_sizes(sheet, adapter)
    _draw_price(sheet, adapter, block)
    _draw_spectrum(sheet, spectrum, adapter, singular_values)
    _draw_distance(sheet, distance, distances, init_std)
    return figure


def percent(share: float) -> str:
    """``share`` (above 0) in per cent, with two significant digits and no powers of ten."""
    value = float(f"{100 * share:.1e}")
    return f"{value:,.{max(0, 1 - math.floor(math.log10(value)))}f} %"


@cache
@course_style
def _backdrop() -> tuple[np.ndarray, Transform, Transform]:
    """What is the same for all adapters, and where in it the data of the spectrum and of the distance belong."""
    figure = Figure(figsize=(11, 5.2))
    sheet = figure.add_axes((0, 0, 1, 1), **_LIMITS)
    sheet.set_axis_off()
    draw_adapter_frame(sheet)
    spectrum = figure.add_axes((0.35, 0.135, 0.25, 0.225), xscale="log", xlim=(0.5, 6000), ylim=(0, 1))
    spectrum.set(yticks=[])
    spectrum.set_xlabel("direction, strongest first", fontsize=12)
    spectrum.set_ylabel("singular value", fontsize=12)
    _ticks(spectrum.xaxis, {1: "1", 10: "10", 100: "100", 1000: "1000"})
    distance = figure.add_axes((0.72, 0.135, 0.265, 0.225), xscale="log", yscale="log")
    distance.set(xlim=(7e-5, 1.4), ylim=(1e-6, 1e5))
    distance.set_xlabel("init_std, on MiniLM's hidden states", fontsize=12)
    _ticks(distance.xaxis, {1e-4: "0.0001", 1e-3: "0.001", 1e-2: "0.01", 1e-1: "0.1", 1: "1"})
    _ticks(distance.yaxis, {1e-4: "0.0001 %", 1e-2: "0.01 %", 1: "1 %", 1e2: "100 %", 1e4: "10,000 %"})
    distance.axhline(100, color=INK, lw=1)
    distance.text(1e-4, 200, "as long as h", fontsize=12)
    return pixels_of(figure), spectrum.transData, distance.transData


def _draw_price(sheet: Sheet, adapter: Adapter, block: int) -> None:
    count = sum(p.numel() for p in adapter.parameters())
    share = 2 * count / block
    sheet.text(0.3, -3.25, f"{count:,} parameters\n= 2·d·m + m + d", va="top")
    for width, colour in ((1.0, FROZEN), (share, COLOURS["adapter"])):
        sheet.add_patch(Rectangle((0.3, -5.6), 3.4 * width, 0.8, color=colour))
    sheet.text(0.3, -5.85, f"two of them: {percent(share)}\nof a block's {block:,}", va="top")


def _draw_spectrum(sheet: Sheet, at: Transform, adapter: Adapter, values: Sequence[float]) -> None:
    d, m = adapter.down_project.in_features, adapter.down_project.out_features
    sheet.text(0.5, 1.25, f"It pushes in {len(values)} of {d:,} directions", transform=at)
    if values:
        edges = [k + 0.5 for k in range(len(values) + 1)]
        heights = [value / values[0] for value in values]
        sheet.stairs(heights, edges, color=COLOURS["adapter"], transform=at)
    sheet.stairs([1], [len(values) + 0.5, d + 0.5], color="#E6E6E6", transform=at)
    for x, name in ((m, "m"), (d, "d")) if m < d else ((d, "m = d"),):
        sheet.plot([x + 0.5, x + 0.5], [0, 1.03], color=INK, lw=1, ls="--", transform=at)
        sheet.text(x + 0.5, 1.04, name, ha="center", transform=at)


def _draw_distance(sheet: Sheet, at: Transform, distances: Mapping[float, float], init_std: float) -> None:
    here = distances[init_std]
    sheet.text(7e-5, 4e7, f"It moves h by {f'{percent(here)} of |h|' if here else 'exactly 0'}", transform=at)
    if not here:
        sheet.text(0.01, 0.003, "the model is unchanged", ha="center", transform=at)
        return
    sheet.plot(list(distances), [100 * value for value in distances.values()], color=COLOURS["adapter"], transform=at)
    sheet.plot(init_std, 100 * here, color=COLOURS["adapter"], marker="o", ms=11, mec=INK, transform=at)


def _ticks(axis: XAxis | YAxis, labels: dict[float, str]) -> None:
    axis.set_major_locator(FixedLocator(list(labels)))
    axis.set_major_formatter(FixedFormatter(list(labels.values())))
    axis.set_minor_locator(NullLocator())
    axis.set_tick_params(labelsize=11)
