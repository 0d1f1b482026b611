"""Charts and drawings as a notebook shows them: SVG in the colours of the page, and a sentence that says the same."""

import base64
import html
import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from adapters_lesson.course.words import _

from .style import FROZEN, INK, course_style
from .svg import ROOT

# What of a chart is paper, ink, frozen and grid follows the theme; black is the ink of whom style.py does not tell.
_PAPER = "var(--jp-layout-color0, white)"
_THEME = {
    "#ffffff": _PAPER,
    "#000000": "currentColor",
    INK.lower(): "currentColor",
    FROZEN.lower(): f"color-mix(in srgb, currentColor 16%, {_PAPER})",
    "#e6e6e6": f"color-mix(in srgb, currentColor 11%, {_PAPER})",
    # The two darkest lines of the palette are hard to see on a dark page: a little of the ink makes them lighter there.
    **{dark: f"color-mix(in srgb, {dark} 80%, currentColor)" for dark in ("#0072b2", "#6a3d9a")},
}


@dataclass
class Picture:
    """A chart or a drawing with a sentence that says the same: notebooks, exports and screen readers get both."""

    figure: Any  # a Figure or a Drawing
    alt: str

    def __post_init__(self) -> None:
        self.alt = _(self.alt)
        for words in self.figure.findobj(Text) if isinstance(self.figure, Figure) else ():
            words.set_text(_(words.get_text()))

    def svg(self) -> str:
        """The figure as text, in the colours of JupyterLab's theme, or with dark ink on white where there is none."""
        if not isinstance(self.figure, Figure):
            return self.figure.svg(self.alt)
        with io.StringIO() as buffer:
            _save(self.figure, buffer, self.alt)
            # Without matplotlib's comments, which are the words again.
            drawn = " ".join(re.sub("<!--.*?-->", "", buffer.getvalue()).split())
        drawn = re.sub("#[0-9a-f]{6}", lambda colour: _THEME.get(colour[0], colour[0]), drawn[drawn.index("<svg") :])
        width, height = 72 * self.figure.get_size_inches()
        about = f'width="{width:g}" height="{height:g}" style="{ROOT}; fill: currentColor" role="img"'
        said = html.escape(self.alt)
        return re.sub(
            r'width="[\d.]+pt" height="[\d.]+pt"', lambda found: f'{about} aria-label="{said}"', drawn, count=1
        )

    def bundle(self, note: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook keeps: picture, ``note`` and text, by MIME type, and their metadata."""
        drawn, kind = self.svg(), "adapters-lesson-drawing"
        page = (  # a notebook that is not trusted loses SVG and styles: it shows the image
            f"<style>.{kind} {{display: block !important}} .{kind} + img {{display: none}}</style>"
            f'<div class="{kind}" style="display: none">{drawn}</div>'
            f'<img src="data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}" '
            f'alt="{html.escape(self.alt)}">{note}'
        )
        kinds = {"text/html": page, "image/svg+xml": drawn, "text/plain": self.alt}
        return kinds, {"image/svg+xml": {"alt": self.alt}}

    def _repr_mimebundle_(self, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle()


@course_style
def _save(figure: Figure, buffer: io.StringIO, salt: str) -> None:
    """Words stay words; the names of parts follow from ``salt``, so that the same figure is the same text again."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))


def show(figure: Any, alt: str) -> Picture:
    """Show a chart or a ``Drawing`` as the value of a notebook cell; ``alt`` says in words what there is to see."""
    if not alt.strip():
        raise ValueError("a figure needs its alt text: one sentence that says what there is to see")
    return Picture(figure, alt)
