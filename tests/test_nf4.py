"""Exercise 11.4, four bits a weight: its levels are the paper's, and bitsandbytes makes the same weights."""

import ast
import importlib.util

import pytest
import torch

from adapters_lesson.course.lesson_source import read_lesson
from adapters_lesson.data import NOTEBOOKS

# Dettmers et al. 2023, arXiv 2305.14314, appendix E.
PUBLISHED = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
             -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
             0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
             1.0]  # fmt: skip


@pytest.fixture(scope="module")
def lesson():
    """What the lesson itself defines: the function of its solution, and its levels."""
    cells = [c.source for c in read_lesson(NOTEBOOKS / "sources" / "11_lora_and_its_relatives.py").cells]
    names = {"torch": torch}
    for source in cells:
        if source.startswith(("def quantise(", "NF4 = ")):
            exec(compile(ast.parse(source), "lesson 11", "exec"), names)
    return names


def drawn(*shape, std=0.05, dtype=torch.float32):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * std).to(dtype)


WEIGHTS = {
    "random": drawn(64, 192),
    "many": drawn(512, 1024),
    "a block of zeros": torch.cat([torch.zeros(1, 64), drawn(1, 64)]),
    "only zeros": torch.zeros(2, 64),
    "both ends": torch.tensor([[1.0, -1.0] * 32, [-3.0, 3.0, 0.0, 1.0] * 16]),
    "on the levels": torch.tensor(PUBLISHED).repeat(4),
    "far below one": drawn(2, 64, std=1e-30),
}


def test_the_levels_are_the_published_ones(lesson):
    assert torch.allclose(lesson["NF4"], torch.tensor(PUBLISHED), rtol=0, atol=1e-7)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="make quantised installs bitsandbytes")
@pytest.mark.parametrize("name", WEIGHTS)
def test_bitsandbytes_has_the_same_codes_and_numbers(lesson, name):
    from bitsandbytes.functional import dequantize_4bit, get_4bit_type, quantize_4bit

    weight, levels = WEIGHTS[name], get_4bit_type("nf4", "cpu")
    assert torch.allclose(lesson["NF4"], levels, rtol=0, atol=1e-7)
    theirs, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=False)
    codes, scales, back = lesson["quantise"](weight, levels)
    first, second = codes.flatten().byte().view(-1, 2).T  # two codes share a byte, the first on the left
    same = (first << 4 | second) == theirs.flatten()
    assert same.float().mean() > 0.9999  # a weight in the middle of two levels may go to either
    assert torch.allclose(scales, state.absmax, rtol=0, atol=1e-30)
    step = float((levels[1:] - levels[:-1]).max())
    off = (back - dequantize_4bit(theirs, state)).abs().view(-1, 64) / scales.clamp(min=1e-38)[:, None]
    assert float(off.max()) < step and float((off > 1e-6).float().mean()) < 1e-4
