"""Checks of lesson 04: parameters of a whole model, the bytes that stand still, the activations of a block."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs import measure_memory
from adapters_lesson.methods import prepare
from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

from .check import Mistake, check, require
from .comparison import BYTES, formula, match_formula, number
from .lesson01 import WRONG_COUNTS


@check("4.1", "correct: 2,379,264 for BERT-base with m = 64, the number that the model itself gives.")
def check_houlsby_count(houlsby_parameters: Any) -> None:
    """``houlsby_parameters(model_dim, bottleneck_dim, blocks)``: adapter parameters of a whole model."""
    cases = [(768, 64, 12), (1024, 8, 24), (384, 24, 6)]
    guesses = {
        "n * (2*d*m + m + d)": "this is one adapter in each block: Houlsby's scheme has two",
        "2*d*m + m + d": "this is a single adapter: count all of the model's",
        "2 * (2*d*m + m + d)": "these are the adapters of one block: there are more blocks",
        "2 * n*d*m": "half of the weights and all biases are missing: two adapters a block, two projections in each",
        "2*n * (2*d*m + m + d) + 4*n*d": "the LayerNorms are counted too: here the adapters alone are asked for",
        "4*n * (2*d*m + m + d)": "this is twice as much: two adapters in each block",
        "n * (2*d*m + m + d) + 2*n*d": "one adapter in each block and its LayerNorm: Houlsby's scheme has two adapters",
        **{f"2*n * ({count})": message for count, message in WRONG_COUNTS.items()},
    }
    hint = "two adapters in each block, each with two matrices and two biases"
    match_formula(houlsby_parameters, "d m n", cases, "2*n * (2*d*m + m + d)", guesses, hint)


@check("4.2", "correct: the frozen parameters need their place once, the trained ones four times.")
def check_standing_bytes(standing_bytes: Any) -> None:
    """``standing_bytes(total, trained, itemsize)``: weights, gradients and Adam's state together."""
    cases = [(1_000_000, 10_000, 4), (500_000, 2_000, 2), (1_000_000, 1_000_000, 4)]
    guesses = {
        "size * total": "these are the weights alone",
        "size * (total + 2*trained)": "Adam keeps two numbers for each: one is missing, or the gradients are",
        "size * (total + 5*trained)": "Adam's state is counted twice: two numbers for each trained parameter",
        "size * (4*total - 3*trained)": "frozen and trained are exchanged: the trained have gradients and Adam's state",
        "size * (total + trained)": "Adam's state is missing, two numbers for each trained parameter",
        "size * 4*total": "every parameter is given a gradient and Adam's state: the frozen ones have neither",
        "size * (2*total + 2*trained)": "every parameter is given a gradient: the frozen ones have none",
        "size * (3*total + trained)": "Adam's state is counted for all parameters: the trained ones alone have it",
        "size * 4*trained": "the frozen weights are missing: they are not trained, but the forward pass needs them",
        "size * 3*trained": "the weights are missing: all of them have to be in memory",
        "size * (total + 4*trained)": "the trained weights are counted twice: they are part of the total already",
        "total + 3*trained": "these are numbers: bytes are itemsize times as many",
        "4 * (total + 3*trained)": "it takes 4 bytes for every number: use itemsize, in half precision it is 2",
        "2*size * (total + 3*trained)": "this is twice as much: itemsize is in bytes already",
        **{f"{factor} * size * (total + 3*trained)": message for factor, message in BYTES.items()},
    }
    hint = "all weights, and for each trained one a gradient and the two numbers that Adam keeps"
    match_formula(standing_bytes, "total trained size", cases, "size * (total + 3*trained)", guesses, hint)


@cache
def _measured(batch: int, length: int, d: int, m: int | None = None) -> float:
    """Activations of one block in the middle of a model, as a difference of two measurements; m None: trained fully."""
    sizes = []
    for layers in (2, 3):
        config = SmallTransformerConfig(100, d, layers, 4, 4 * d, length, dropout=0.0)
        model = Classifier(SmallTransformer(config), 2)
        prepare(model, "full" if m is None else "adapter", None if m is None else AdapterConfig(m))
        sizes.append(measure_memory(model, batch, length).activations)
    return sizes[1] - sizes[0]


_ONE_TOKEN = "this is one token: use the length"
_SCORES, _HEADS = "length × length numbers are counted: PyTorch's attention does not keep the scores", (1, 2, 4, 8, 12)


def _check_activations(function: Callable[..., Any], cases: Sequence[tuple], guesses: Mapping[str, str]) -> None:
    """Compare with measurements, to two per cent; ``guesses`` are multiples of batch · t · d · 4 bytes."""
    for case in cases:
        (batch, length, d, m), answer, measured = (*case, 0)[:4], number(function(*case)), _measured(*case)
        if abs(answer / measured - 1) <= 0.02:
            continue
        for text, message in guesses.items():
            guess = formula(text, "t d m")(length, d, m) * batch * length * d * 4
            require(abs(answer - guess) > 1e-7 * measured, message)
        for factor, message in {**BYTES, 1 / batch: "this is one text of the batch", 1 / length: _ONE_TOKEN}.items():
            require(factor == 1 or abs(answer / factor / measured - 1) > 0.02, message)
        raise Mistake(f"for {case} it gives {answer:,.12g} instead of {measured:,.0f} bytes")


@check("4.3", "correct: within 2 % of what PyTorch really keeps.")
def check_block_activations(block_activations: Any) -> None:
    """``block_activations(batch, length, d)``: bytes that a block keeps in full fine-tuning, dropout off."""
    guesses = {
        "12": "12 is 4 too few: trained linear layers keep their inputs, and of the FFN's wide tensors two are kept",
        "8": "8 is half: each number has 4 bytes, and the FFN's wide tensors are not all that is kept",
        "10": "10 is 6 too few: the FFN keeps two tensors 4·d wide, 4 + 4, one before and one after GELU",
        "15": "one is missing: go through the rules again; both LayerNorms keep their input, attention its output",
        "14": "two are missing: attention keeps q, k, v and its output, each of the two LayerNorms its input",
        "17": "one too many: query, key and value share their input, kept once, and a sum keeps nothing",
        "18": "two too many: query, key and value share their input, kept once, and a sum keeps nothing",
    }
    guesses |= {f"16 + {heads}*t/d": _SCORES for heads in _HEADS}
    _check_activations(block_activations, [(1, 160, 48), (3, 32, 128), (2, 64, 256)], guesses)


@check("4.4", "correct: a frozen block still keeps three quarters of it.")
def check_adapter_activations(adapter_activations: Any) -> None:
    """``adapter_activations(batch, length, d, m)``: the same for a frozen block with Houlsby's adapters."""
    inputs = "frozen linear layers do not need their inputs: query, key, value's, FFN's two"
    tensors = "each of the two adapters keeps two tensors of width m: before and after GELU"
    guesses = {
        "0": "it says nothing is kept: gradients have to pass through the frozen block to the adapters below",
        "2 + 4*m/d": "these are the adapters' own: gradients pass through the frozen operations too",
        "16": "16 is what full fine-tuning keeps: frozen linear layers do not need their inputs",
        "16 + 4*m/d": inputs,
        "18 + 4*m/d": inputs,
        "10 + 4*m/d": "two of d are missing: each LayerNorm keeps its input, and each adapter's trained down_project",
        "11 + 4*m/d": "one of d is missing: attention keeps its output, LayerNorms and adapters their inputs",
        "12 + 8*m/d": "the bottlenecks are counted twice: each of the two adapters keeps two tensors of width m",
        "14 + 4*m/d": "each adapter keeps its input once: two of width d, not four",
        "12": "the bottleneck's own tensors are missing: m wide, before and after the activation, twice",
        "12 + 2*m/d": tensors,
        "12 + m/d": tensors,
        "8 + 4*m/d": "4·d are missing: attention keeps q, k, v and its output, GELU its input, 4·d wide, frozen or not",
    }
    guesses |= {f"12 + 4*m/d + {heads}*t/d": _SCORES for heads in _HEADS}
    cases = [(1, 160, 48, 5), (3, 32, 128, 8), (2, 64, 256, 64), (2, 32, 64, 64)]
    _check_activations(adapter_activations, cases, guesses)
