"""The explorers of the site: a picture for every position of some of their knobs, drawn when the site is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from adapters_lesson.course.explorers.explore_anatomy import anatomy_explorer
from adapters_lesson.course.explorers.explore_cost import cost_explorer
from adapters_lesson.course.explorers.explore_placement import placement_explorer
from adapters_lesson.course.explorers.frame import Explorer
from adapters_lesson.course.explorers.slider import Slider

# How the explorer is made, and the knobs that can be turned; the others stay where they are. A chart of the costs takes
# 90 KB and half a second, so there are few of them.
EXPLORERS: dict[str, tuple[Callable[[], Explorer], tuple[str, ...]]] = {
    "anatomy_explorer": (anatomy_explorer, ("model_dim", "bottleneck_dim", "activation")),
    "placement_explorer": (placement_explorer, ("placement", "norm", "train_layer_norms", "bottleneck_dim")),
    "cost_explorer": (cost_explorer, ("method", "length")),
}
FEWER = {"length": (16, 128, 512, 2048, 8192)}


def baked(name: str) -> dict[str, Any]:
    """What explorer.js needs: knobs, the place of each at the start, and by all places a picture and its sentence."""
    make, turned = EXPLORERS[name]
    explorer = make()
    knobs = {knob: explorer.knobs[knob] for knob in turned}
    options = {
        knob: [option for option in _options(widget) if option[1] in FEWER.get(knob, [option[1]])]
        for knob, widget in knobs.items()
    }
    still = [widget.description for knob, widget in explorer.knobs.items() if knob not in turned]
    pictures = {}
    for places in product(*(range(len(of)) for of in options.values())):
        chosen = {knob: of[place][1] for (knob, of), place in zip(options.items(), places, strict=True)}
        picture = explorer.draw(**{**explorer.values, **chosen})
        pictures[",".join(map(str, places))] = {"svg": picture.svg(), "alt": picture.alt}
    return {
        "title": explorer.title,
        "still": f"In JupyterLab these knobs turn, too: {', '.join(still)}.",
        "knobs": [
            {
                "label": widget.description,
                "options": [text for text, _ in options[knob]],
                "at": [value for _, value in options[knob]].index(widget.value),
                "slides": isinstance(widget, Slider),
            }
            for knob, widget in knobs.items()
        ],
        "pictures": pictures,
    }


def _options(widget: Any) -> Sequence[tuple[str, Any]]:
    """The values of a knob with their words."""
    if isinstance(widget, Slider):
        return list(zip(widget.labels, widget.options, strict=True))
    if not hasattr(widget, "options"):  # a switch
        return [("off", False), ("on", True)]
    return [option if isinstance(option, tuple) else (str(option), option) for option in widget.options]
