"""One look for all charts."""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any colour vision. A method keeps its colour and marker in every figure.
COLOURS = {
    "adapter": "#0072B2",
    "full": "#222222",
    "head": "#7F7F7F",
    "lora": "#D55E00",
    "bitfit": "#009E73",
    "layer_norm": "#CC79A7",
}
MARKERS = {"adapter": "o", "full": "s", "head": "v", "lora": "D", "bitfit": "^", "layer_norm": "P"}
# The same palette for what is no method: settings, tasks. The two lightest are darker than Okabe and Ito's: a line
# needs a contrast of 3 with the paper (WCAG 2.2, 1.4.11).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B57A00", "#3C8DBC", "#222222", "#6A3D9A")
STYLES = ("-", "--", ":")  # of lines in one colour
TRAINED, FROZEN, INK = "#0072B2", "#D9D9D9", "#222222"

_STYLE: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 72,
    "font.size": 13,
    "font.sans-serif": ("DejaVu Sans", "Verdana", "sans-serif"),  # a page without the first has the second
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "legend.frameon": False,
}
_DRAWING = threading.RLock()  # matplotlib's settings belong to the whole process, and a job's thread draws, too


@contextmanager
def _course_style() -> Iterator[None]:
    with _DRAWING, matplotlib.rc_context(_STYLE):
        yield


course_style = _course_style()  # decorates the functions that draw: other figures keep their look


def new_figure(width: float = 8.0, height: float = 4.0, **grid: Any) -> tuple[Figure, Any]:
    """A ``Figure`` outside pyplot (so it also works on a worker thread), and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)


def beside(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float] = (8, 0), **look: Any) -> None:
    """Write ``text`` so many points beside the point ``at``, in the middle of its height unless told."""
    axes.annotate(text, at, offset, textcoords="offset points", **{"va": "center", **look})


def label_ends(
    axes: Axes, ends: Iterable[tuple[str, float, float, str]], gap: float = 4.5, top: float = 101, **look: Any
) -> None:
    """Write labels at the ends (label, x, y, colour) of lines, no two closer than ``gap``, none above ``top``."""
    ends, height = sorted(ends, key=lambda end: end[2]), -math.inf
    for i, (label, x, y, colour) in enumerate(ends, start=1):
        height = max(y, height + gap)
        beside(axes, label, (x, min(height, top - gap * (len(ends) - i))), (10, 0), color=colour, **look)


def percent(share: float) -> str:
    """``share`` (above 0) in per cent, with two significant digits and no powers of ten."""
    value = float(f"{100 * share:.1e}")
    return f"{value:,.{max(0, 1 - math.floor(math.log10(value)))}f} %"
