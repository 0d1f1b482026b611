"""One look for all figures, and how a figure is shown in a notebook."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
TRAINED, FROZEN, INK = "#0072B2", "#D9D9D9", "#222222"

_STYLE: Any = {
    "figure.facecolor": "white",  # opaque, so that labels stay legible on JupyterLab's dark theme
    "figure.dpi": 72,
    "savefig.dpi": 72,
    "font.size": 13,
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


def use_course_style() -> None:
    """Give figures of your own the course's look."""
    matplotlib.rcParams.update(_STYLE)


def new_figure(width: float = 8.0, height: float = 4.0, **grid: Any) -> tuple[Figure, Any]:
    """A ``Figure`` outside pyplot (so it also works on a worker thread), and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)


def blank(axes: Axes) -> None:
    """Turn axes into a sheet to draw on."""
    axes.set_axis_off()
    axes.set_aspect("equal")


@dataclass
class Picture:
    """A figure with a sentence that says the same: notebooks, exports and screen readers get both."""

    figure: Figure
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file."""
        with io.BytesIO() as buffer, _course_style():
            self.figure.savefig(buffer, format="png", dpi=72, metadata={"Software": None})
            return buffer.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def show(figure: Figure, alt: str) -> Picture:
    """Show ``figure`` as the value of a notebook cell; ``alt`` says in words what there is to see."""
    if not alt.strip():
        raise ValueError("a figure needs its alt text: one sentence that says what there is to see")
    return Picture(figure, alt)
