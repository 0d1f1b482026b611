"""Checks of lesson 04: parameters of a whole model, the bytes that stand still, the activations of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..adapter import AdapterConfig
from ..costs import measure_memory
from ..methods import prepare
from ..transformer import Classifier, SmallTransformer, SmallTransformerConfig
from .matching import first_match, number
from .report import Mistake, check, require

_Guess = tuple[Callable[..., float], str]


def _compare(given: Any, arguments: Sequence[int], right: Callable[..., float], guesses: Sequence[_Guess]) -> None:
    """Raise the message of the first guess that gives the same number as the answer does."""
    answer, expected = number(given), right(*arguments)
    first_match(
        lambda value: abs(answer - value) <= 1e-9 * expected,
        expected,
        ((guess(*arguments), message) for guess, message in guesses),
        f"for {arguments} it gives {answer:,.12g}, right is {expected:,}",
    )


@check("4.1", "correct: 2,379,264 for BERT-base with m = 64, the number that the model itself gives.")
def check_houlsby_count(houlsby_parameters: Any) -> None:
    """``houlsby_parameters(model_dim, bottleneck_dim, blocks)``: adapter parameters of a whole model."""
    for arguments in ((768, 64, 12), (1024, 8, 24), (384, 24, 6)):
        _compare(
            houlsby_parameters(*arguments),
            arguments,
            lambda d, m, n: 2 * n * (2 * d * m + m + d),
            (
                (
                    lambda d, m, n: n * (2 * d * m + m + d),
                    "this is one adapter in each block: Houlsby's scheme has two",
                ),
                (lambda d, m, n: 2 * d * m + m + d, "this is a single adapter: count all of the model's"),
                (lambda d, m, n: 2 * (2 * d * m + m + d), "these are the adapters of one block: there are more blocks"),
                (lambda d, m, n: 4 * n * d * m, "the biases are missing: m of down_project and d of up_project"),
                (lambda d, m, n: 2 * n * d * m, "these are the weights of one projection of each adapter: it has two"),
                (lambda d, m, n: 2 * n * (2 * d * m + m), "up_project's bias is missing: d numbers in each adapter"),
                (lambda d, m, n: 2 * n * (2 * d * m + d), "down_project's bias is missing: m numbers in each adapter"),
                (lambda d, m, n: 2 * n * (2 * d * m + 2 * d), "down_project's bias has m numbers, not d"),
                (lambda d, m, n: 2 * n * (2 * d * m + 2 * m), "up_project's bias has d numbers, not m"),
                (lambda d, m, n: 2 * n * (d * m + m + d), "each adapter has two weight matrices, d × m and m × d"),
                (
                    lambda d, m, n: 2 * n * (2 * d * m + m + d) + 4 * n * d,
                    "the LayerNorms are counted too: here the adapters alone are asked for",
                ),
                (lambda d, m, n: 4 * n * (2 * d * m + m + d), "this is twice as much: two adapters in each block"),
                (
                    lambda d, m, n: n * (2 * d * m + m + d) + 2 * n * d,
                    "one adapter in each block and its LayerNorm: Houlsby's scheme has two adapters, which alone are asked for",
                ),
            ),
        )


@check("4.2", "correct: the frozen parameters need their place once, the trained ones four times.")
def check_standing_bytes(standing_bytes: Any) -> None:
    """``standing_bytes(total, trained, itemsize)``: weights, gradients and Adam's state together."""
    for arguments in ((1_000_000, 10_000, 4), (500_000, 2_000, 2), (1_000_000, 1_000_000, 4)):
        _compare(
            standing_bytes(*arguments),
            arguments,
            lambda total, trained, size: size * (total + 3 * trained),
            (
                (lambda total, trained, size: size * total, "these are the weights alone"),
                (
                    lambda total, trained, size: size * (total + 2 * trained),
                    "Adam keeps two numbers for each trained parameter (the means of the gradient and of its square): "
                    "one is missing, or the gradients are",
                ),
                (
                    lambda total, trained, size: size * (total + 5 * trained),
                    "Adam's state is counted twice: it keeps two numbers for each trained parameter, not four",
                ),
                (
                    lambda total, trained, size: size * 4 * (total - trained) + size * trained,
                    "frozen and trained are exchanged: it is the trained ones that have gradients and Adam's state",
                ),
                (
                    lambda total, trained, size: size * (total + trained),
                    "Adam's state is missing, two numbers for each trained parameter",
                ),
                (
                    lambda total, trained, size: size * 4 * total,
                    "every parameter is given a gradient and a place in the optimiser: the frozen ones have neither",
                ),
                (
                    lambda total, trained, size: size * (2 * total + 2 * trained),
                    "every parameter is given a gradient: the frozen ones have none",
                ),
                (
                    lambda total, trained, size: size * (3 * total + trained),
                    "Adam's state is counted for all parameters: it is there for the trained ones only",
                ),
                (
                    lambda total, trained, size: size * 4 * trained,
                    "the frozen weights are missing: they are not trained, but the forward pass needs them",
                ),
                (
                    lambda total, trained, size: size * 3 * trained,
                    "the weights are missing: all of them have to be in memory",
                ),
                (
                    lambda total, trained, size: size * (total + 4 * trained),
                    "the trained weights are counted twice: they are part of the total already",
                ),
                (
                    lambda total, trained, size: total + 3 * trained,
                    "these are numbers: bytes are itemsize times as many",
                ),
                (
                    lambda total, trained, size: 4 * (total + 3 * trained),
                    "it takes 4 bytes for every number: use itemsize, in half precision it is 2",
                ),
                (
                    lambda total, trained, size: 2 * size * (total + 3 * trained),
                    "this is twice as much: itemsize is in bytes already",
                ),
                (
                    lambda total, trained, size: 8 * size * (total + 3 * trained),
                    "those are bits: itemsize is in bytes already",
                ),
            ),
        )


def _measured(batch: int, length: int, d: int, m: int | None) -> float:
    """Activations of one block in the middle of a model, as a difference of two measurements; m None: trained fully."""
    sizes = []
    for layers in (2, 3):
        config = SmallTransformerConfig(100, d, layers, 4, 4 * d, length, dropout=0.0)
        model = Classifier(SmallTransformer(config), 2)
        if m is None:
            prepare(model, "full")
        else:
            prepare(model, "adapter", AdapterConfig(m))
        sizes.append(measure_memory(model, batch, length).activations)
    return sizes[1] - sizes[0]


def _check_activations(
    given: Any, arguments: tuple[int, ...], measured: float, guesses: Sequence[tuple[float, str]]
) -> None:
    """Compare with a measurement, to two per cent; ``guesses`` are multiples of batch · length · d · 4 bytes."""
    batch, length, d, *_ = arguments
    answer = number(given)
    if abs(answer / measured - 1) <= 0.02:
        return
    unit = batch * length * d * 4
    factors = [
        (4, "these are numbers: each of them has 4 bytes"),
        (batch, "this is one text: the activations are kept for each one in the batch"),
        (length, "this is one token: multiply with the length"),
        (1 / 8, "those are bits: return bytes"),
        (2**20, "those are MiB: return bytes"),
        (1e6, "those are MB: return bytes"),
    ]
    for factor, message in factors:
        require(not (factor != 1 and abs(answer * factor / measured - 1) <= 0.02), message)
    for multiple, message in guesses:
        require(not abs(answer - multiple * unit) <= 1e-6 * measured, message)
    require(
        not abs(answer / 2 / measured - 1) <= 0.02,
        "this is twice as much: 4 bytes in single precision, and nothing is kept twice",
    )
    scores = (answer - round(measured / unit) * unit) / (4 * batch * length**2)
    if 0.9 < scores < 24.1 and abs(scores - round(scores)) < 1e-6:  # as many as heads
        raise Mistake(
            "length × length numbers are counted: PyTorch's attention does not keep the scores, it computes them again"
        )
    raise Mistake(
        f"for {arguments} it gives {answer:,.12g}, measured are {measured:,.0f}: "
        f"{answer / unit:.2f} instead of {measured / unit:.2f} times batch · length · d · 4 bytes"
    )


@check("4.3", "correct: within 2 % of what PyTorch really keeps.")
def check_block_activations(block_activations: Any) -> None:
    """``block_activations(batch, length, d)``: bytes that a block keeps in full fine-tuning, dropout off."""
    for arguments in ((1, 160, 48), (3, 32, 128), (2, 64, 256)):
        _check_activations(
            block_activations(*arguments),
            arguments,
            _measured(*arguments, None),
            (
                (12, "12 is what a frozen block keeps: here the linear layers are trained, and keep their inputs"),
                (8, "these are the FFN's two wide tensors alone: attention and LayerNorms keep something too"),
                (10, "the FFN's inside is 4·d wide, and two such tensors are kept: before and after GELU, 4 + 4"),
                (13, "query, key, value are missing, or the FFN's wide tensors are counted too narrow"),
                (11, "the attention keeps query, key, value and its output: 4"),
                (
                    15,
                    "one is missing: go through the rules again; both LayerNorms keep their input, attention its output",
                ),
                (14, "two are missing: each of the two LayerNorms keeps its input"),
                (17, "one too many: query, key and value have the same input, and it is kept once"),
                (18, "two too many: query, key and value have the same input, and it is kept once"),
                (20, "four too many: a tensor that two operations need is kept once"),
            ),
        )


@check("4.4", "correct: a frozen block still keeps three quarters of it.")
def check_adapter_activations(adapter_activations: Any) -> None:
    """``adapter_activations(batch, length, d, m)``: the same for a frozen block with Houlsby's adapters."""
    for arguments in ((1, 160, 48, 5), (3, 32, 128, 8), (2, 64, 256, 64)):
        _batch, _length, d, m = arguments
        _check_activations(
            adapter_activations(*arguments),
            arguments,
            _measured(*arguments),
            (
                (0, "it says nothing is kept: gradients have to pass through the frozen block to the adapters below"),
                (2 + 4 * m / d, "these are the adapters' own: gradients pass through the frozen operations too"),
                (16, "16 is what full fine-tuning keeps: frozen linear layers do not need their inputs"),
                (16 + 4 * m / d, "frozen linear layers do not need their inputs: query, key, value's, FFN's two"),
                (18 + 4 * m / d, "frozen linear layers do not need their inputs: query, key, value's, FFN's two"),
                (10 + 4 * m / d, "the adapters' down_projects are trained, so each keeps its input, d wide"),
                (11 + 4 * m / d, "Houlsby's scheme has two adapters: each keeps its input, d wide"),
                (
                    12 + 8 * m / d,
                    "the bottlenecks are counted twice: each of the two adapters keeps two tensors of width m",
                ),
                (14 + 4 * m / d, "each adapter keeps its input once: two of width d, not four"),
                (12, "the bottleneck's own tensors are missing: m wide, before and after the activation, twice"),
                (12 + 2 * m / d, "each of the two adapters keeps two tensors of width m: before and after GELU"),
                (12 + m / d, "each of the two adapters keeps two tensors of width m: before and after GELU"),
                (
                    16 + 4 * m / d - 8,
                    "GELU keeps its input, 4·d wide, even where nothing is trained: its slope depends on it",
                ),
            ),
        )
