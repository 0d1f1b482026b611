"""The anatomy explorer: one new adapter by its knobs, what it costs, where its update pushes and how far."""

from functools import cache

import torch

from adapters_lesson.adapter import ACTIVATIONS, Adapter, AdapterConfig
from adapters_lesson.course.figures.curves import update_singular_values
from adapters_lesson.course.figures.diagrams import adapter_diagram
from adapters_lesson.course.figures.picture import Picture
from adapters_lesson.course.figures.style import COLOURS, percent
from adapters_lesson.course.figures.svg import Drawing, Scale, axes
from adapters_lesson.data import minilm_folder
from adapters_lesson.guards.config_guard import INITS
from adapters_lesson.transformer import SmallTransformer

from .frame import Explorer, choice
from .slider import Slider

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
_TITLES, _TOP, _BOTTOM = 318, 360, 480  # heights of the row below the adapter


def anatomy_explorer() -> Explorer:
    """The anatomy of one adapter, by its knobs."""
    return Explorer(
        "Anatomy of an adapter",
        draw_anatomy,
        {
            "model_dim": Slider("model_dim d", 384, (256, 384, 768, 1024, 4096)),
            "bottleneck_dim": Slider("bottleneck_dim m", 64, [2**k for k in range(9)]),
            "activation": choice("activation", "gelu", ACTIVATIONS),
            "init": choice("init", "houlsby", INITS),
            "init_std": Slider("init_std", 0.01, INIT_STDS),
        },
        idle=lambda values: ["init_std"] if values["init"] == "zero" else [],
    )


def draw_anatomy(model_dim: int, bottleneck_dim: int, activation: str, init: str, init_std: float) -> Picture:
    """A new adapter's parts and price, and its update's directions and length; ValueError as ``AdapterConfig``."""
    adapter = new_adapter(model_dim, bottleneck_dim, activation, init, init_std)
    values, distances = directions(adapter), relative_updates(bottleneck_dim, activation, init)
    count, block = Adapter.count(model_dim, bottleneck_dim), block_parameters(model_dim)
    share, length = percent(2 * count / block), distances[init_std]
    moved = f"{percent(length)} of |h|" if length else "exactly 0"
    on = adapter_diagram(adapter, 528)
    on.text(20, _TITLES + 9, f"{count:,} parameters\n= 2·d·m + m + d", 14)
    on.box(20, 370, 230, 46, "frozen", f"a block: {block:,} parameters")
    on.box(20, 370, min(1, 2 * count / block) * 230, 46, "bar", f"two adapters: {2 * count:,} parameters")
    on.text(20, 446, f"two of them: {share}\nof a block's {block:,}", 14)
    _draw_directions(on, model_dim, bottleneck_dim, values)
    on.text(600, _TITLES, f"It moves h by {moved}", 14)
    _draw_distance(on, distances, init_std)
    return Picture(
        on,
        f"An adapter with d = {model_dim}, m = {bottleneck_dim} and {type(adapter.activation).__name__}: "
        f"{count:,} parameters, two of them {share} of a block. At a random hidden state its "
        f"update can push in {len(values)} of {model_dim} directions. On MiniLM's hidden states, which are 384 wide, "
        f"a new update is {f'{percent(length)} of |h| long' if length else f'{moved}: the model is unchanged'}.",
    )


def new_adapter(model_dim: int, bottleneck_dim: int, activation: str, init: str, init_std: float) -> Adapter:
    """An adapter for which the learner's own random numbers stay as they were."""
    std = None if init == "zero" else init_std
    config = AdapterConfig(bottleneck_dim, activation=activation, init=init, init_std=std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return config.build(model_dim)


def block_parameters(model_dim: int) -> int:
    """Parameters of a block: attention has 4·(d² + d), an FFN that is 4·d wide 8·d² + 5·d, the LayerNorms 4·d."""
    return 12 * model_dim**2 + 13 * model_dim


def directions(adapter: Adapter) -> list[float]:
    """Singular values of an update's Jacobian at a random hidden state, those above a millionth of the largest."""
    at = torch.randn(adapter.down_project.in_features, generator=torch.Generator().manual_seed(1))
    values = update_singular_values(adapter, at)
    return values[values > 1e-6 * values[0]].tolist()


@cache
def real_hidden_states() -> torch.Tensor:
    """Hidden states of all tokens of eight sentences after MiniLM's first block: shape (tokens, 384)."""
    from tokenizers import Tokenizer  # transformers, which load_tokenizer needs, takes a second to import

    tokenizer, model = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json")), SmallTransformer.from_minilm(1)
    tokenizer.no_padding()
    ids = [torch.tensor([tokenizer.encode(text).ids]) for text in _SENTENCES]
    with torch.no_grad():
        return torch.cat([model(of, torch.ones_like(of))[0] for of in ids])


@cache
def relative_updates(bottleneck_dim: int, activation: str, init: str) -> dict[float, float]:
    """Mean of |update| / |h| over ``real_hidden_states`` by ``INIT_STDS``; all 0 for ``init="zero"``."""
    if init == "zero":
        return dict.fromkeys(INIT_STDS, 0.0)
    states = real_hidden_states()
    adapter = new_adapter(states.shape[-1], bottleneck_dim, activation, init, 1.0)
    with torch.no_grad():
        # Drawn once with standard deviation 1, then scaled: biases are zero, and drawing takes longer than computing.
        z, up = states @ adapter.down_project.weight.T, adapter.up_project.weight.T
        lengths = {std: (std * adapter.activation(std * z) @ up).norm(dim=-1) for std in INIT_STDS}
        return {std: (length / states.norm(dim=-1)).mean().item() for std, length in lengths.items()}


def _draw_directions(on: Drawing, d: int, m: int, values: list[float]) -> None:
    """The singular values as a filled area; grey are the directions in which nothing is pushed."""
    x, y = Scale(0.5, 6000, 320, 565, log=True), Scale(0, 1, _BOTTOM, _TOP)
    on.text(320, _TITLES, f"It pushes in {len(values)} of {d:,} directions", 14)
    end = x(len(values) + 0.5)
    on.box(end, y(1), x(d + 0.5) - end, y(0) - y(1), "fill: currentColor; fill-opacity: 0.1")
    if values:
        steps = [(x(k + side), y(value / values[0])) for k, value in enumerate(values, 1) for side in (-0.5, 0.5)]
        on.area([(x(0.5), y(0)), *steps, (end, y(0))], "bar", f"{len(values)} singular values")
    axes(on, x, y, {k: str(k) for k in (1, 10, 100, 1000)}, {}, "direction, strongest first: singular value")
    for at, name in ((m, "m"), (d, "d")) if m < d else ((d, "m = d"),):
        on.line([(x(at + 0.5), y(0)), (x(at + 0.5), y(1) - 4)], "dashed")
        on.text(x(at + 0.5), y(1) - 12, name, 13, "middle")


def _draw_distance(on: Drawing, distances: dict[float, float], init_std: float) -> None:
    """The length of the update in per cent of h, by the standard deviation of its start; ``init_std`` is marked."""
    x, y = Scale(7e-5, 1.4, 680, 890, log=True), Scale(1e-6, 1e5, _BOTTOM, _TOP - 18, log=True)
    percents = {1e-4: "0.0001 %", 1e-2: "0.01 %", 1: "1 %", 1e2: "100 %", 1e4: "10,000 %"}
    axes(on, x, y, {v: f"{v:g}" for v in (1e-3, 1e-2, 1e-1, 1)}, percents, "init_std, on MiniLM's hidden states")
    on.line([(x.start, y(100)), (x.end, y(100))], "wire")
    on.text(x.start + 6, y(100) - 10, "as long as h", 12)
    if not distances[init_std]:
        on.text((x.start + x.end) / 2, y(0.003), "the model is unchanged", 13, "middle")
        return
    colour, curve = COLOURS["adapter"], [(x(std), y(100 * of)) for std, of in distances.items()]
    on.line(curve, f"fill: none; stroke: {colour}; stroke-width: 2.4")
    title = f"init_std {init_std:g}: {percent(distances[init_std])}"
    on.circle(x(init_std), y(100 * distances[init_std]), 6, f"fill: {colour}; stroke: currentColor", title)
