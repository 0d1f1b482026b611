"""The widget around ``playground.js``, which computes and draws all of it: a kernel is needed to show it, no more."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anywidget
from traitlets import Unicode

from adapters_lesson.course.explorers.frame import STILL
from adapters_lesson.course.figures import Picture

HERE = Path(__file__).parent
ALT = (HERE / "still.txt").read_text(encoding="utf-8").strip()
# The picture that data/make_playground.py has drawn.
_DRAWN = SimpleNamespace(svg=lambda alt: (HERE / "still.svg").read_text(encoding="utf-8"))


class Playground(anywidget.AnyWidget):
    """A frozen network of 594 numbers on points in the plane, and a bottleneck adapter that is trained in the page.

    Args:
        state: all settings in a string, which the page shows too, to be copied and passed on: bottleneck m1 to m8;
            activation identity, relu, gelu or tanh; start zero, std0.01 or std1; learning rate lr0.001 to lr1;
            residual res1 or res0; where the scaling is not 1 x0 to x4; data set moons (the base knows them), turned,
            circles or spirals; seed s0 to s9. A teacher can hide knobs: ``…-s0-hide.rate.seed``.

    The page says in one sentence what is wrong with a string, and stays as it was; ``state`` follows the knobs.
    """

    _esm = HERE / "playground.js"
    state = Unicode().tag(sync=True)

    def __init__(self, state: str = "m4-gelu-zero-lr0.03-res1-spirals-s0") -> None:
        super().__init__(state=state)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, about = super()._repr_mimebundle_(**kwargs) or ({}, {})
        still, more = Picture(_DRAWN, ALT).bundle(STILL)
        return {**data, **still}, {**about, **more}
