"""The laboratory's knobs: a control for each setting of a run, and how typed values are read."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from ..adapter import ACTIVATIONS, INITS, PLACEMENTS
from ..experiments import Settings
from ..methods import METHODS
from ..tasks import TASKS
from .frame import FILL, LABEL, choice, slider, switch

WIDTHS = [2**k for k in range(9)]
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2, 3e-2, 1e-1]
STDS = [1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
STEPS = [25, 50, 100, 200, 400, 800]
# What to try first in a sweep, as one would type it.
SUGGESTED = {
    "bottleneck_dim": "1, 4, 16, 64",
    "placement": ", ".join(PLACEMENTS),
    "learning_rate": "3e-4, 1e-3, 3e-3, 1e-2",
    "init_std": "1e-3, 1e-2, 1e-1, 1",
    "init": ", ".join(INITS),
    "activation": ", ".join(ACTIVATIONS),
    "train_layer_norms": "no, yes",
    "layers": "all, 0, 1, 2",
    "base_layers": "2, 3, 4, 6",
    "method": ", ".join(METHODS),
    "steps": "50, 100, 200, 400",
    "task": ", ".join(TASKS),
}
# The rates with which data/run_experiments.py found each method at its best, or near it.
GOOD_RATES = {
    "adapter": "1e-3 to 3e-3, small ones 1e-2",
    "lora": "3e-3",
    "full": "1e-4 to 3e-4",
    "head": "1e-2",
    "layer_norm": "1e-2",
    "bitfit": "1e-2",
}
_WORDS = {"yes": True, "no": False}


def make_knobs() -> dict[str, Any]:
    """A control for every setting, but for the seed; sliders and lists cannot be set to what makes no sense."""
    start = Settings()
    blocks = widgets.Text(description="adapted blocks", value="all", style=LABEL, layout=FILL, continuous_update=False)
    return {
        "task": choice("task", start.task, TASKS),
        "base_layers": choice("base layers", start.base_layers, range(1, 7)),
        "method": choice("method", start.method, METHODS),
        "placement": choice("placement", start.placement, PLACEMENTS),
        "bottleneck_dim": slider("bottleneck_dim, m", start.bottleneck_dim, WIDTHS),
        "learning_rate": slider("learning rate", start.learning_rate, [(f"{rate:g}", rate) for rate in RATES]),
        "steps": slider("steps", start.steps, STEPS),
        "activation": choice("activation", start.activation, list(ACTIVATIONS)),
        "init": choice("init", start.init, INITS),
        "init_std": slider("init std", start.init_std, [(f"{std:g}", std) for std in STDS]),
        "train_layer_norms": switch("train LayerNorms"),
        "layers": blocks,
    }


def idle_knobs(values: dict[str, Any]) -> set[str]:
    """The knobs that change nothing with these values."""
    if values["method"] != "adapter":
        return {"placement", "bottleneck_dim", "activation", "init", "init_std", "train_layer_norms", "layers"}
    return {"init_std"} if values["init"] == "zero" else set()


def read_settings(values: dict[str, Any], seed: int) -> Settings:
    """The knobs' values as settings.

    Raises:
        ValueError: for what makes no sense together, or blocks that cannot be read.
    """
    return Settings(**{**values, "layers": read_layers(values["layers"])}, seed=seed)


def read_layers(text: str) -> tuple[int, ...] | None:
    """The blocks that get adapters, from "all" or, for instance, "0 2" or "0, 2".

    Raises:
        ValueError: for anything else.
    """
    if text.strip() == "all":
        return None
    try:
        layers = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        layers = ()
    if not layers:
        raise ValueError(f'blocks with adapters: write "all" or numbers from 0, for instance "0 2", not {text!r}')
    return layers


def read_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a list such as "0, 1, 2".

    Raises:
        ValueError: for no seed, a negative one, or one twice.
    """
    try:
        seeds = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f'seeds: write different whole numbers from 0, for instance "0, 1, 2", not {text!r}')
    return seeds


def read_values(knob: str, text: str) -> tuple[Any, ...]:
    """The values of a sweep over ``knob``, from a list such as "1, 4, 16".

    Raises:
        ValueError: for an empty list, or a value that is of another kind than the knob's.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"values for {knob}: write at least one, for instance {SUGGESTED[knob]}")
    return tuple(_read_value(knob, part) for part in parts)


def _read_value(knob: str, text: str) -> Any:
    if knob == "layers":
        return read_layers(text)
    kind = type(getattr(Settings(), knob))
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{knob} cannot be {text!r}: try, for instance, {SUGGESTED[knob]}") from error
