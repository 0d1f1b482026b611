"""Figures fast enough to follow a slider: what stays the same is drawn once and kept as pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def pixels_of(figure: Figure) -> np.ndarray:
    """``figure`` as it looks: shape (height, width, 4), bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def sheet_over(pixels: np.ndarray) -> tuple[Figure, Axes]:
    """A new figure of the same size with ``pixels`` behind, and axes all over it, from 0 to 1 both ways.

    What is drawn on these axes with the ``transData`` of the backdrop's axes lands where it belongs.
    """
    height, width, _ = pixels.shape
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
    sheet.set_axis_off()
    sheet.add_artist(_Pixels(pixels))
    return figure, sheet


class _Pixels(Artist):
    """Put there pixel by pixel: ``figimage`` would take ten times as long."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__()
        self.pixels = np.ascontiguousarray(pixels[::-1])  # the renderer begins with the lowest row

    def draw(self, renderer: Any) -> None:
        renderer.draw_image(renderer.new_gc(), 0, 0, self.pixels)
