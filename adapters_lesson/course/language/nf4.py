"""NF4 from scratch, bit for bit that of bitsandbytes (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3)."""

from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import torch
import torch.nn.functional as F

BLOCK = 64  # weights that share a scale


class NF4(NamedTuple):
    codes: torch.Tensor  # bytes with two codes each, (numbers + 1) // 2
    scales: torch.Tensor  # the largest magnitude of each block, in single precision, (blocks,)
    shape: torch.Size  # of the tensor, whose rows lie end to end


@cache
def levels() -> torch.Tensor:
    """The sixteen values that a weight may have, as shares of its block's scale, from -1 to 1: shape ``(16,)``.

    They are quantiles of a normal distribution, so that each is needed about equally often: eight above zero, seven
    below, and zero itself, exactly. The outermost lies between the middles of the last of 15 and of 16 equal shares.
    """
    outermost = round(1 - (1 / 32 + 1 / 30) / 2, 7)  # as in the authors' code, to the digit
    at = [torch.linspace(outermost, 0.5, n + 1)[:-1].tolist() for n in (8, 7)]
    above, below = ([NormalDist().inv_cdf(share) for share in shares] for shares in at)
    values = torch.tensor(sorted([*above, 0.0, *(-x for x in below)]))
    return values / values.max()


def quantise(weight: torch.Tensor, block: int = BLOCK) -> NF4:
    """``weight``, of any shape and floating-point type, in codes of four bits; the last block may be shorter."""
    numbers = weight.detach().float().flatten()
    rows = F.pad(numbers, (0, -len(numbers) % block)).view(-1, block)  # (blocks, block)
    scales = rows.abs().amax(dim=1)  # (blocks,)
    shares = rows * (1 / scales.clamp(min=1e-38))[:, None]  # a block of zeros stays one
    middles = (levels()[1:] + levels()[:-1]) / 2  # (15,)
    codes = torch.bucketize(shares.clamp(-1, 1).flatten(), middles).byte()  # the nearest level's place, 0 to 15
    codes = codes[: len(numbers) + len(numbers) % 2]  # whole bytes
    return NF4(codes[::2] << 4 | codes[1::2], scales, weight.shape)


def dequantise(packed: NF4, dtype: torch.dtype = torch.float32, block: int = BLOCK) -> torch.Tensor:
    """The weights again, each rounded to the nearest level of its block."""
    codes = torch.stack([packed.codes >> 4, packed.codes & 15], dim=1).flatten()[: packed.shape.numel()]
    scales = packed.scales.repeat_interleave(block)[: len(codes)]
    return (levels()[codes.long()] * scales).view(packed.shape).to(dtype)
