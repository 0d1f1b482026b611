"""The placement explorer: where the adapters of a live model are, what is trained, and that nothing has changed."""

from functools import cache
from typing import Any

import torch

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs.parameters import ParameterCount, count_parameters
from adapters_lesson.course.figures.diagrams import Wiring, draw_wiring, wiring_of
from adapters_lesson.course.figures.picture import Picture
from adapters_lesson.course.figures.style import percent
from adapters_lesson.course.figures.svg import WIDTH
from adapters_lesson.data import load_tokenizer
from adapters_lesson.insertion import remove_adapters
from adapters_lesson.methods import prepare
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

from .frame import Explorer, choice, switch
from .slider import Slider

LAYERS = {"all four": (0, 1, 2, 3), "the upper two": (2, 3), "the last one": (3,)}
_MODEL = 318  # upper edge of the whole model


def placement_explorer() -> Explorer:
    """Where the adapters go, by placement and kind of block."""
    for norm in ("post", "pre"):
        bare(norm)  # both models are built now, so that no knob is slow at its first turn
    return Explorer(
        "Where do the adapters go, and what is trained?",
        draw_placement,
        {
            "placement": choice("placement", "pfeiffer", ("none", *PLACEMENTS)),
            "norm": choice("block", "post", [("post-LN", "post"), ("pre-LN", "pre")]),
            "train_layer_norms": switch("train the LayerNorms"),
            "bottleneck_dim": Slider("bottleneck_dim m", 16, [2**k for k in range(9)]),
            "layers": choice("in blocks", LAYERS["all four"], LAYERS.items()),
        },
        idle=lambda values: ["train_layer_norms", "bottleneck_dim", "layers"] if values["placement"] == "none" else [],
    )


def draw_placement(
    placement: str, norm: str, train_layer_norms: bool, bottleneck_dim: int, layers: tuple[int, ...]
) -> Picture:
    """The wiring of the last block of a model with these settings, and what is trained in the whole of it."""
    wires, count, moved, with_gradient = prepared(placement, norm, train_layer_norms, bottleneck_dim, layers)
    title = f"{'No adapters' if placement == 'none' else placement.capitalize()}, {norm}-LN: block 3"
    change = "exactly 0" if moved == 0 else f"{moved:.1g}"
    share = f"{count.trainable:,} of {count.total:,} parameters, {percent(count.trainable / count.total)}"
    on = draw_wiring(wires, title, 435)
    on.text(WIDTH - 8, 42, "h: from the FFN · r: the stream past it · A: adapter, update: what it adds", 13, "end")
    parts = [*wires.parts, *(wires.beside or ())[1:]]
    sizes = [part.parameters for part in parts if part.label.startswith("adapter")]
    said = f"{len(sizes)} × (2·d·m + m + d)\n= {len(sizes)} × {sizes[0]:,} parameters" if sizes else "none\n"
    on.text(12, 228, f"adapters in this block:\n{said}")
    on.text(WIDTH - 8, _MODEL - 14, "the whole model: trained in blue", 13, "end")
    step = (WIDTH - 20) / len(count.by_layer)
    for i, (place, of) in enumerate(count.by_layer.items()):
        x, width = 10 + step * i, step - 6
        on.box(x, _MODEL, width, 58, "frozen", f"{place}: {of.trainable:,} of {of.total:,} parameters trained")
        on.text(x + width / 2, _MODEL + 14, place, 13, "middle")
        if of.trainable:
            on.box(x, _MODEL + 28, width, 30, "bar")
            on.text(x + width / 2, _MODEL + 43, f"{of.trainable:,}", 13, "middle", "fill: white")
    on.text(12, 396, f"trained: {share}")
    on.text(12, 420, f"measured: the output has changed by {change}")
    on.text(WIDTH / 2, 420, f"parameters that get a gradient: {with_gradient:,}")
    named = [part.label.replace("\n", " ") + " (trained)" * part.trained for part in wires.parts]
    beside = f", and beside the FFN {wires.beside[1].label} (trained)" if wires.beside else ""
    trained = ", ".join(f"{part} {of.trainable:,}" for part, of in count.by_part.items() if of.trainable)
    return Picture(
        on,
        f"{title}, the last of the model: {', '.join(named)}{beside}; after the FFN {wires.formula}. Trained are "
        f"{share} ({trained}). Measured: the output has changed by {change}, and {with_gradient:,} parameters get a "
        "gradient.",
    )


@cache
def prepared(
    placement: str, norm: str, train_layer_norms: bool, bottleneck_dim: int, layers: tuple[int, ...]
) -> tuple[Wiring, ParameterCount, float, int]:
    """Put new adapters into a classifier of four blocks, or none to train the head, look, and take them out again.

    Returns the last block's wiring, the model's parameters, the largest difference between its logits with the adapters
    and without, and how many parameters get a gradient in a backward pass. Raises ValueError as ``AdapterConfig`` does.
    """
    model, inputs, before = bare(norm)
    try:
        where: Any = {"placement": placement, "layers": layers, "train_layer_norms": train_layer_norms}
        config = None if placement == "none" else AdapterConfig(bottleneck_dim, **where)
        with torch.random.fork_rng(devices=[]):  # the learner's own random numbers stay as they were
            prepare(model, "adapter" if config else "head", config)
        after = model(**inputs)
        after.square().sum().backward()
        with_gradient = sum(p.numel() for p in model.parameters() if p.grad is not None)
        change = (after - before).abs().max().item()
        return wiring_of(model, layer=-1), count_parameters(model), change, with_gradient
    finally:
        remove_adapters(model)
        model.zero_grad()


@cache
def bare(norm: str) -> tuple[Classifier, Any, torch.Tensor]:
    """A classifier on MiniLM's lower four blocks, or for "pre" on random ones of their sizes; a batch; its logits."""
    inputs = load_tokenizer()("The pool was not superb.", return_tensors="pt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = SmallTransformerConfig(num_hidden_layers=4, norm=norm)
        model = Classifier(SmallTransformer.from_minilm(4) if norm == "post" else SmallTransformer(config), 2).eval()
    with torch.no_grad():
        return model, inputs, model(**inputs)
