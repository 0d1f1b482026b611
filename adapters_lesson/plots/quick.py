"""A figure as a PNG file, painted fast enough to follow a knob.

About half of matplotlib's time for such figures goes into text, which it sets glyph by glyph every time. Here a line of
text is set once and kept as pixels.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from .style import course_style

_MARGIN = 8  # pixels around a line of text: more than any glyph leans over its box


@course_style
def quick_png(figure: Figure) -> bytes:
    """``figure`` as a PNG file: as ``savefig`` paints it, but for texts, which begin at whole pixels."""
    usual = figure.canvas
    canvas = _Canvas(figure)
    try:
        canvas.draw()
    finally:
        figure.set_canvas(usual)  # a figure that is kept is drawn with all care
    size = canvas.get_width_height()
    image = Image.frombuffer("RGBA", size, canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
    with io.BytesIO() as buffer:
        image.save(buffer, "png", compress_level=1)
        return buffer.getvalue()


class _Renderer(RendererAgg):
    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> Any:
        if ismath:
            return super().get_text_width_height_descent(s, prop, ismath)
        return _measure(s, _Font(prop), self.dpi)

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: FontProperties, angle: float, ismath: Any = False,
        mtext: Any = None,
    ) -> None:  # fmt: skip
        if ismath or angle:
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
            return
        mask, above = _set(s, _Font(prop), self.dpi)
        red, green, blue, alpha = gc.get_rgb()
        pixels = np.empty((*mask.shape, 4), np.uint8)
        pixels[..., :3] = np.round(255 * np.array([red, green, blue]))
        pixels[..., 3] = mask if alpha == 1 else np.round(alpha * mask)
        self.draw_image(gc, round(x) - _MARGIN, round(self.height - y) - (mask.shape[0] - above), pixels)


class _Font:
    """Font properties as a key: matplotlib's own can change, so they make a bad one."""

    def __init__(self, prop: FontProperties) -> None:
        self.prop = prop
        self.key = (*prop.get_family(), prop.get_style(), prop.get_weight(), prop.get_size_in_points())

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Font) and self.key == other.key


@lru_cache(maxsize=4096)
def _measure(s: str, font: _Font, dpi: float) -> tuple[float, float, float]:
    return RendererAgg(1, 1, dpi).get_text_width_height_descent(s, font.prop, False)


@lru_cache(maxsize=2048)
def _set(s: str, font: _Font, dpi: float) -> tuple[np.ndarray, int]:
    """How much of each pixel a line of text covers, bottom row first, and how many rows are above its baseline."""
    width, height, descent = _measure(s, font, dpi)
    above, below = round(height - descent) + _MARGIN, round(descent) + _MARGIN
    renderer = RendererAgg(round(width) + 2 * _MARGIN, above + below, dpi)
    renderer.draw_text(renderer.new_gc(), _MARGIN, above, s, font.prop, 0)
    return np.array(renderer.buffer_rgba())[::-1, :, 3], above


class _Canvas(FigureCanvasAgg):
    def get_renderer(self) -> RendererAgg:
        self.renderer = _Renderer(*self.figure.bbox.size, self.figure.dpi)
        return self.renderer
