"""The placement explorer: where the adapters of a live model are, what is trained, and that nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from ..adapter import PLACEMENTS, AdapterConfig
from ..costs import ParameterCount, count_parameters
from ..insertion import freeze, insert_adapters, remove_adapters, set_trainable
from ..plots import Picture, wiring_of
from ..plots.anatomy import percent
from ..plots.diagrams import Wiring
from ..plots.placement import placement_figure
from ..pretrained import load_tokenizer
from ..transformer import Classifier, SmallTransformer, SmallTransformerConfig
from .frame import Explorer, choice, slider, switch

LAYERS = {"all four": (0, 1, 2, 3), "the upper two": (2, 3), "the last one": (3,)}
_NAMES = {"none": "No adapters", "houlsby": "Houlsby", "pfeiffer": "Pfeiffer", "parallel": "Parallel"}
_TEXT = "The pool was not superb."


@dataclass(frozen=True)
class Prepared:
    """What was read off a prepared model, before the adapters were taken out again.

    Attributes:
        wires: of the last block.
        count: of the whole model.
        change: the largest difference between the model's logits with the new adapters and without.
        with_gradient: parameters that get a gradient in a backward pass.
    """

    wires: Wiring
    count: ParameterCount
    change: float
    with_gradient: int


@cache
def prepared(
    placement: str, norm: str, train_layer_norms: bool, bottleneck_dim: int, layers: tuple[int, ...]
) -> Prepared:
    """Put new adapters into a classifier of four blocks, freeze the rest, look, and take them out again.

    Args:
        placement: "none" or as for ``AdapterConfig``; with "none" only the head is trained.
        norm: "post" for MiniLM's lower four blocks, "pre" for a pre-LN model of the same sizes with random weights.
        train_layer_norms, bottleneck_dim, layers: as for ``AdapterConfig``.

    Raises:
        ValueError: for settings that ``AdapterConfig`` or ``SmallTransformerConfig`` refuses.
    """
    model, before = _bare(norm)
    try:
        if placement == "none":
            freeze(model)
            model.head.requires_grad_(True)
        else:
            config = AdapterConfig(
                bottleneck_dim, placement=placement, layers=layers, train_layer_norms=train_layer_norms
            )
            with torch.random.fork_rng(devices=[]):  # the learner's own random numbers stay as they were
                insert_adapters(model, config)
            set_trainable(model)
        after = model(**_batch())
        after.square().sum().backward()
        return Prepared(
            wires=wiring_of(model, layer=-1),
            count=count_parameters(model),
            change=(after - before).abs().max().item(),
            with_gradient=sum(p.numel() for p in model.parameters() if p.grad is not None),
        )
    finally:
        remove_adapters(model)
        model.zero_grad()


def draw_placement(
    placement: str = "pfeiffer",
    norm: str = "post",
    train_layer_norms: bool = False,
    bottleneck_dim: int = 16,
    layers: tuple[int, ...] = (0, 1, 2, 3),
) -> Picture:
    """The last block of a model that is ``prepared`` with these settings, and what is trained in the whole of it."""
    seen = prepared(placement, norm, train_layer_norms, bottleneck_dim, layers)
    count, wires = seen.count, seen.wires
    title = f"{_NAMES[placement]}, {norm}-LN: block 3"
    change = "exactly 0" if seen.change == 0 else f"{seen.change:.1g}"
    parts = [part.label.replace("\n", " ") + " (trained)" * part.trained for part in wires.parts]
    beside = f", and beside the FFN {wires.beside[1].label} (trained)" if wires.beside else ""
    trained = ", ".join(f"{part} {of.trainable:,}" for part, of in count.by_part.items() if of.trainable)
    return Picture(
        placement_figure(title, wires, count, change, seen.with_gradient),
        f"{title}, the last of the model: {', '.join(parts)}{beside}; after the FFN {wires.formula}. Trained are "
        f"{count.trainable:,} of {count.total:,} parameters, {percent(count.trainable / count.total)} ({trained}). "
        f"Measured: the output has changed by {change}, and {seen.with_gradient:,} parameters get a gradient.",
    )


def placement_explorer() -> Explorer:
    """Where the adapters go, by placement and kind of block."""
    for norm in ("post", "pre"):
        _bare(norm)  # both models are built now, so that no knob is slow at its first turn
    return Explorer(
        "Where do the adapters go, and what is trained?",
        draw_placement,
        {
            "placement": choice("placement", "pfeiffer", ("none", *PLACEMENTS)),
            "norm": choice("block", "post", [("post-LN", "post"), ("pre-LN", "pre")]),
            "train_layer_norms": switch("train the LayerNorms"),
            "bottleneck_dim": slider("bottleneck_dim m", 16, [2**k for k in range(9)]),
            "layers": choice("in blocks", LAYERS["all four"], list(LAYERS.items())),
        },
        idle=lambda values: ["train_layer_norms", "bottleneck_dim", "layers"] if values["placement"] == "none" else [],
    )


@cache
def _bare(norm: str) -> tuple[Classifier, torch.Tensor]:
    """A classifier without adapters, and its logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = SmallTransformerConfig(num_hidden_layers=4, norm=norm)
        model = Classifier(SmallTransformer.from_minilm(4) if norm == "post" else SmallTransformer(config), 2).eval()
    with torch.no_grad():
        return model, model(**_batch())


@cache
def _batch() -> dict[str, torch.Tensor]:
    return dict(load_tokenizer()(_TEXT, return_tensors="pt"))
