"""Figures fast enough to follow a slider: what stays the same is drawn once and kept as pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle, StepPatch
from matplotlib.transforms import Bbox, BboxTransform


def pixels_of(figure: Figure) -> np.ndarray:
    """``figure`` as it looks: shape (height, width, 4), bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def sheet_over(pixels: np.ndarray) -> tuple[Figure, Sheet]:
    """A new figure of the same size with ``pixels`` behind, and a sheet all over it, from 0 to 1 both ways.

    What is drawn on the sheet with the ``transData`` of the backdrop's axes lands where it belongs.
    """
    height, width, _ = pixels.shape
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.add_artist(_Pixels(pixels))
    return figure, Sheet(figure)


class Sheet:
    """What is drawn on of matplotlib's ``Axes``, by the same names. Axes take some milliseconds to make, these none.

    Attributes:
        transData: from the sheet's units to pixels.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.set(xlim=(0, 1), ylim=(0, 1))

    def set(self, *, xlim: tuple[float, float], ylim: tuple[float, float]) -> None:
        """Let the figure's sides be these."""
        self.transData = BboxTransform(Bbox(list(zip(xlim, ylim, strict=True))), self.figure.bbox)

    def add_artist(self, artist: Artist) -> Artist:
        """In the sheet's units, unless the artist has a transform of its own."""
        if not artist.is_transform_set():
            artist.set_transform(self.transData)
        return self.figure.add_artist(artist)

    add_patch = add_collection = add_artist

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        self.figure.text(x, y, text, **{"transform": self.transData, **look})

    def plot(self, x: Any, y: Any, marker: str = "", /, **look: Any) -> None:
        """A line; with ``marker`` at this place only points."""
        only_points: dict[str, Any] = {"marker": marker, "ls": "none"} if marker else {}
        self.add_artist(Line2D(np.atleast_1d(x), np.atleast_1d(y), **only_points, **look))

    def vlines(self, x: Sequence[float], low: Any, high: Any, **look: Any) -> None:
        ends = np.broadcast_arrays(x, low, high)
        self.add_artist(LineCollection([[(at, a), (at, b)] for at, a, b in zip(*ends, strict=True)], **look))

    def barh(self, y: float, width: float, height: float, color: str, **look: Any) -> None:
        self.add_artist(Rectangle((0, y - height / 2), width, height, facecolor=color, lw=0, **look))

    def fill(self, x: Sequence[float], y: Sequence[float], **look: Any) -> None:
        self.add_artist(Polygon(np.column_stack([x, y]), **look))

    def stairs(self, heights: Sequence[float], edges: Sequence[float], color: str, **look: Any) -> None:
        """Filled, from 0 up."""
        self.add_artist(StepPatch(heights, edges, fill=True, facecolor=color, lw=0, **look))


class _Pixels(Artist):
    """Put there pixel by pixel: ``figimage`` would take ten times as long."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__()
        self.pixels = np.ascontiguousarray(pixels[::-1])  # the renderer begins with the lowest row

    def draw(self, renderer: Any) -> None:
        renderer.draw_image(renderer.new_gc(), 0, 0, self.pixels)
