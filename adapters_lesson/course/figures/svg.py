"""SVG drawings of boxes, lines and words, in pixels with y downwards, in JupyterLab's colours or dark ink on white."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters_lesson.course.words import _

from .style import COLOURS

WIDTH = 900  # of most drawings
Point = tuple[float, float]
# How shapes look: what is frozen, what is trained, a box on the paper, a line, a line that helps the eye.
LOOKS = {
    "frozen": "fill: currentColor; fill-opacity: 0.16; stroke: currentColor; stroke-opacity: 0.5",
    "trained": f"fill: {COLOURS['adapter']}; stroke: currentColor; stroke-width: 2.5",
    "bar": f"fill: {COLOURS['adapter']}",
    "paper": "fill: var(--jp-layout-color0, white); stroke: currentColor; stroke-width: 1.3",
    "off": "fill: none; stroke: currentColor; stroke-dasharray: 2 3",
    "wire": "fill: none; stroke: currentColor; stroke-width: 1.6",
    "dashed": "fill: none; stroke: currentColor; stroke-width: 1.4; stroke-dasharray: 5 4",
    "grid": "fill: none; stroke: currentColor; stroke-opacity: 0.2",
    "head": "fill: currentColor",
}
ROOT = (
    "color: var(--jp-content-font-color1, #222); background: var(--jp-layout-color0, white); "
    "font-family: var(--jp-content-font-family, sans-serif); max-width: 100%; height: auto"
)


class Drawing:
    """A sheet to draw on; ``svg`` returns what was drawn. A ``look`` is one of ``LOOKS``, or CSS of its own."""

    def __init__(self, width: float, height: float) -> None:
        size = {"width": f"{width:g}", "height": f"{height:g}", "viewBox": f"0 0 {width:g} {height:g}"}
        self.root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "style": ROOT} | size)

    def box(self, x: float, y: float, width: float, height: float, look: str, title: str = "", round: int = 0) -> None:
        """A rectangle with its upper left corner at x, y; ``title`` is shown when the mouse rests on it."""
        self._add("rect", look, title, x=x, y=y, width=max(width, 0), height=height, rx=round)

    def circle(self, x: float, y: float, radius: float, look: str, title: str = "") -> None:
        self._add("circle", look, title, cx=x, cy=y, r=radius)

    def line(self, points: Sequence[Point], look: str = "wire", title: str = "", arrow: bool = False) -> None:
        """Straight from point to point, where wanted with an arrow's head at the end."""
        self._add("polyline", look, title, points=points)
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            turn = math.atan2(y - y0, x - x0)
            sides = [(x - 9 * math.cos(turn + side), y - 9 * math.sin(turn + side)) for side in (0.4, -0.4)]
            self.area([(x, y), *sides], "head")

    def area(self, points: Sequence[Point], look: str, title: str = "") -> None:
        """A filled polygon."""
        self._add("polygon", look, title, points=points)

    def text(
        self, x: float, y: float, words: str, size: int = 13, anchor: str = "start", look: str = "", bold: bool = False
    ) -> None:
        """Words whose lines stand around the height y, from x on, or with their "middle" or "end" there."""
        css = f"font-size: {size:g}px; text-anchor: {anchor}; fill: currentColor; {'font-weight: bold; ' * bold}{look}"
        element = ET.SubElement(self.root, "text", {"style": css})
        lines = _(words).split("\n")
        for i, line in enumerate(lines):
            height = y + size * (0.35 + 1.25 * (i - (len(lines) - 1) / 2))
            ET.SubElement(element, "tspan", {"x": f"{x:.1f}", "y": f"{height:.1f}"}).text = line

    def link(self, x: float, y: float, width: float, words: str, href: str) -> None:
        """Words that lead somewhere, in bold, below the height y. They are HTML: JupyterLab fails at a link in SVG."""
        self.root.set("role", "group")  # what is in an image cannot be reached
        place = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": "24"}
        css = "font-size: 15px; font-weight: bold; color: inherit; text-decoration: underline"
        look = {"xmlns": "http://www.w3.org/1999/xhtml", "style": css}
        ET.SubElement(ET.SubElement(self.root, "foreignObject", place), "a", look | {"href": href}).text = _(words)

    def svg(self, alt: str = "") -> str:
        """The drawing as text; ``alt`` says the same to who cannot see it."""
        self.root.set("aria-label", alt)
        return ET.tostring(self.root, encoding="unicode")

    def _add(self, kind: str, look: str, title: str, points: Sequence[Point] = (), **numbers: float) -> None:
        attributes = {name: f"{value:.1f}" for name, value in numbers.items()} | {"style": LOOKS.get(look, look)}
        if points:
            attributes["points"] = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        element = ET.SubElement(self.root, kind, attributes)
        if title:
            ET.SubElement(element, "title").text = _(title)


@dataclass(frozen=True)
class Scale:
    """Where a value stands on an axis from pixel ``start`` to pixel ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def axes(
    on: Drawing, x: Scale, y: Scale, xticks: Mapping[float, str], yticks: Mapping[float, str], xlabel: str
) -> None:
    """Grid, numbers and the lower axis of a small chart."""
    for value, label in yticks.items():
        on.line([(x.start, y(value)), (x.end, y(value))], "grid")
        on.text(x.start - 6, y(value), label, 12, "end")
    for value, label in xticks.items():
        on.text(x(value), y.start + 13, label, 12, "middle")
    on.line([(x.start, y.end), (x.start, y.start), (x.end, y.start)])
    on.text((x.start + x.end) / 2, y.start + 32, xlabel, 13, "middle")
