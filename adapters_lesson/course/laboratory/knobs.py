"""The laboratory's knobs: a control for each setting of a run, and how typed values are read."""

from typing import Any

import ipywidgets as widgets

from adapters_lesson.adapter import ACTIVATIONS
from adapters_lesson.course.explorers.frame import FIELD, choice, switch
from adapters_lesson.course.explorers.slider import Slider
from adapters_lesson.data import TASKS
from adapters_lesson.guards.config_guard import INITS
from adapters_lesson.methods import METHODS
from adapters_lesson.placements import PLACEMENTS

from .experiments import ADAPTER, Settings


def _blocks(label: str, value: tuple[int, ...] | None) -> widgets.Text:
    return widgets.Text(layers_text(value), description=label, continuous_update=False, **FIELD)


# Each knob with its label, which stands below the axis of a figure, too, and what to try first in a sweep, as one would
# type it; then its control and what that may be set to.
_KNOBS: dict[str, tuple[Any, ...]] = {
    "task": ("task", ", ".join(TASKS), choice, TASKS),
    "base_layers": ("base layers", "2, 3, 4, 6", choice, range(1, 7)),
    "method": ("method", ", ".join(METHODS), choice, METHODS),
    "placement": ("placement", ", ".join(PLACEMENTS), choice, PLACEMENTS),
    "bottleneck_dim": ("bottleneck_dim, m", "1, 4, 16, 64", Slider, [2**k for k in range(9)]),
    "learning_rate": (
        "learning rate", "3e-4, 1e-3, 3e-3, 1e-2", Slider, [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    ),
    "steps": ("steps", "50, 100, 200, 400", Slider, [25, 50, 100, 200, 400, 800]),
    "activation": ("activation", ", ".join(ACTIVATIONS), choice, ACTIVATIONS),
    "init": ("init", ", ".join(INITS), choice, INITS),
    "init_std": ("init std", "1e-3, 1e-2, 1e-1, 1", Slider, [1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]),
    "train_layer_norms": ("train LayerNorms", "no, yes", switch),
    "layers": ("adapted blocks", "all, 0, 1, 2", _blocks),
}  # fmt: skip
LABELS = {name: label for name, (label, *_) in _KNOBS.items()}
SUGGESTED = {name: values for name, (_, values, *_) in _KNOBS.items()}


def make_knobs() -> dict[str, Any]:
    """A control for every setting, but for the seed; sliders and lists cannot be set to what makes no sense."""
    start = Settings()
    return {name: make(label, getattr(start, name), *of) for name, (label, _, make, *of) in _KNOBS.items()}


def idle_knobs(values: dict[str, Any]) -> set[str]:
    """The knobs that change nothing with these values."""
    if values["method"] != "adapter":
        return {*ADAPTER, "init_std"}
    return {"init_std"} if values["init"] == "zero" else set()


def read_settings(values: dict[str, Any]) -> Settings:
    """The knobs' values as settings; ValueError for what makes no sense together, or blocks that cannot be read."""
    return Settings(**{**values, "layers": read_layers(values["layers"])})


def read_layers(text: str) -> tuple[int, ...] | None:
    """The blocks that get adapters, from "all" or, for instance, "0 2" or "0, 2"; ValueError for other words."""
    try:
        return None if text.strip() == "all" else tuple(map(int, text.replace(",", " ").split()))
    except ValueError:
        wanted = 'write "all" or numbers from 0, for instance "0 2"'
        raise ValueError(f"blocks with adapters: {wanted}, not {text!r}") from None


def layers_text(layers: Any) -> str:
    """What ``read_layers`` reads, or the text itself."""
    return "all" if layers is None else layers if isinstance(layers, str) else " ".join(map(str, layers))


def value_text(knob: str, value: Any) -> str:
    """What ``read_values`` reads as this value."""
    return {"True": "yes", "False": "no"}.get(str(value), layers_text(value) if knob == "layers" else str(value))


def read_values(knob: str, text: str) -> tuple[Any, ...]:
    """Values of a knob, or seeds, from a list such as "1, 4, 16"; ValueError where they cannot be read."""
    suggested, values = {"seed": "0, 1, 2", **SUGGESTED}[knob], []
    kinds = {"layers": read_layers, "train_layer_norms": {"yes": True, "no": False}.__getitem__}
    kind: Any = kinds.get(knob) or type(getattr(Settings(), knob))
    for part in filter(None, map(str.strip, (text.replace(" ", ",") if knob == "seed" else text).split(","))):
        try:
            values.append(kind(part))
        except (ValueError, KeyError) as error:  # noqa: PERF203
            raise ValueError(f"{knob} cannot be {part!r}: try, for instance, {suggested}") from error
    if not values:
        raise ValueError(f"values for {knob}: write at least one, for instance {suggested}")
    return tuple(values)
