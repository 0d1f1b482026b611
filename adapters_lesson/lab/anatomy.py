"""The anatomy explorer: one new adapter by its knobs, what it costs, where its update pushes and how far."""

from __future__ import annotations

from functools import cache

import torch

from ..adapter import ACTIVATIONS, INITS, Adapter, AdapterConfig
from ..plots import Picture
from ..plots.anatomy import anatomy, percent
from ..pretrained import minilm_folder
from ..spectrum import update_singular_values
from ..transformer import SmallTransformer
from .frame import Explorer, choice, slider

MODEL_DIMS = (256, 384, 768, 1024, 4096)
BOTTLENECK_DIMS = tuple(2**k for k in range(9))
INIT_STDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.03, 0.1, 0.3, 1.0)
_SENTENCES = [
    "The pool was not superb, but the breakfast was.",
    "Water boils at a lower temperature in the mountains.",
    "She gave the book back without having read it.",
    "How many stars can one see without a telescope?",
    "The film is far too long.",
    "Interest rates rose for the third time this year.",
    "Nobody expected the old bridge to hold.",
    "A cat slept on the warm keyboard.",
]


def block_parameters(model_dim: int) -> int:
    """Parameters of a transformer block whose FFN is 4·d wide: 12·d² + 13·d, all biases and two LayerNorms counted.

    Attention has 4·(d² + d), the FFN 8·d² + 5·d, the LayerNorms 4·d.
    """
    return 12 * model_dim**2 + 13 * model_dim


@cache
def real_hidden_states() -> torch.Tensor:
    """Hidden states of all tokens of eight sentences after MiniLM's first block: shape (tokens, 384)."""
    from tokenizers import Tokenizer  # transformers, which load_tokenizer needs, takes a second to import

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.enable_padding()
    texts = tokenizer.encode_batch(_SENTENCES)
    mask = torch.tensor([text.attention_mask for text in texts])
    with torch.no_grad():
        hidden = SmallTransformer.from_minilm(layers=1)(torch.tensor([text.ids for text in texts]), mask)
    return hidden[mask.bool()]


@cache
def relative_updates(bottleneck_dim: int, activation: str, init: str) -> dict[float, float]:
    """Mean of |update| / |h| over ``real_hidden_states`` by ``INIT_STDS``; all 0 for ``init="zero"``."""
    if init == "zero":
        return dict.fromkeys(INIT_STDS, 0.0)
    states = real_hidden_states()
    adapter = _new_adapter(states.shape[-1], bottleneck_dim, activation, init, 1.0)
    with torch.no_grad():
        # Drawn once with standard deviation 1, then scaled: biases are zero, and drawing takes longer than computing.
        z, up = states @ adapter.down_project.weight.T, adapter.up_project.weight.T
        lengths = {std: (std * adapter.activation(std * z) @ up).norm(dim=-1) for std in INIT_STDS}
        return {std: (length / states.norm(dim=-1)).mean().item() for std, length in lengths.items()}


@cache
def directions(model_dim: int, bottleneck_dim: int, activation: str, init: str, init_std: float) -> tuple[float, ...]:
    """Singular values of a new update's Jacobian at a random hidden state, those above a millionth of the largest."""
    at = torch.randn(model_dim, generator=torch.Generator().manual_seed(1))
    adapter = _new_adapter(model_dim, bottleneck_dim, activation, init, init_std)
    values = update_singular_values(adapter, at)
    return tuple(values[values > 1e-6 * values[0]].tolist())


def draw_anatomy(
    model_dim: int = 384,
    bottleneck_dim: int = 64,
    activation: str = "gelu",
    init: str = "houlsby",
    init_std: float = 0.01,
) -> Picture:
    """A new adapter: its parts and counts, its price, the directions of its update, and the update's length.

    Args:
        model_dim, bottleneck_dim, activation, init: as for ``AdapterConfig``.
        init_std: one of ``INIT_STDS``; without effect for ``init="zero"``.

    Raises:
        ValueError: for settings that ``AdapterConfig`` refuses, or another ``init_std``.
    """
    if init_std not in INIT_STDS:
        raise ValueError(f"init_std must be one of {', '.join(map(str, INIT_STDS))}, not {init_std}")
    adapter = _new_adapter(model_dim, bottleneck_dim, activation, init, init_std)
    values = directions(model_dim, bottleneck_dim, activation, init, init_std)
    distances = relative_updates(bottleneck_dim, activation, init)
    block, count = block_parameters(model_dim), Adapter.count(model_dim, bottleneck_dim)
    here = distances[init_std]
    return Picture(
        anatomy(adapter, block, values, distances, init_std),
        f"An adapter with d = {model_dim}, m = {bottleneck_dim} and {type(adapter.activation).__name__}: "
        f"{count:,} parameters, two of them {percent(2 * count / block)} of a block. At a random hidden state its "
        f"update can push in {len(values)} of {model_dim} directions. On MiniLM's hidden states, which are 384 wide, "
        f"a new update is {f'{percent(here)} of |h| long' if here else 'exactly 0: the model is unchanged'}.",
    )


def anatomy_explorer() -> Explorer:
    """The anatomy of one adapter, by its knobs."""
    return Explorer(
        "Anatomy of an adapter",
        draw_anatomy,
        {
            "model_dim": slider("model_dim d", 384, MODEL_DIMS),
            "bottleneck_dim": slider("bottleneck_dim m", 64, BOTTLENECK_DIMS),
            "activation": choice("activation", "gelu", tuple(ACTIVATIONS)),
            "init": choice("init", "houlsby", INITS),
            "init_std": slider("init_std", 0.01, INIT_STDS),
        },
        idle=lambda values: ["init_std"] if values["init"] == "zero" else [],
    )


def _new_adapter(model_dim: int, bottleneck_dim: int, activation: str, init: str, init_std: float) -> Adapter:
    std = None if init == "zero" else init_std
    config = AdapterConfig(bottleneck_dim, activation=activation, init=init, init_std=std)
    with torch.random.fork_rng(devices=[]):  # the learner's own random numbers stay as they were
        torch.manual_seed(0)
        return config.build(model_dim)
