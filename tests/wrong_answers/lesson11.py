import copy
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

# --- 11.1 -----------------------------------------------------------------------------------------------------------


def layer(
    output=lambda base, thin, r, alpha: base + alpha / r * thin,
    start=lambda A: nn.init.kaiming_uniform_(A, a=math.sqrt(5)),
    b=0.0,
    freeze=True,
    keep=lambda linear: linear,
    kind=nn.Parameter,
    turned=False,
):
    class LoRA(nn.Module):
        def __init__(self, linear, rank, alpha):
            super().__init__()
            self.linear, self.rank, self.alpha = keep(linear), rank, alpha
            shapes = (rank, linear.in_features), (linear.out_features, rank)
            A, B = (torch.zeros(shape[::-1] if turned else shape) for shape in shapes)
            start(A)
            nn.init.normal_(B, std=b) if b else None
            self.A, self.B = kind(A), kind(B)
            if freeze:
                self.linear.requires_grad_(False)

        def forward(self, x):
            A, B = (self.A.T, self.B.T) if turned else (self.A, self.B)
            return output(self.linear(x), x @ A.T @ B.T, self.rank, self.alpha)

    return LoRA


right_layer = layer()


class AllFrozen(right_layer):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        self.requires_grad_(False)


class WithoutSuper(nn.Module):
    def __init__(self, linear, rank, alpha):
        self.linear = linear
        self.A = nn.Parameter(torch.zeros(rank, linear.in_features))


class TwoLayers(nn.Module):
    """As peft writes it: A and B are layers."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scaling = linear.requires_grad_(False), alpha / rank
        self.A = nn.Linear(linear.in_features, rank, bias=False)
        self.B = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, x):
        return self.linear(x) + self.scaling * self.B(self.A(x))


class ForgetsTheBias(right_layer):
    def forward(self, x):
        return x @ self.linear.weight.T + self.alpha / self.rank * (x @ self.A.T @ self.B.T)


class WithoutTransposing(right_layer):
    def forward(self, x):
        return self.linear(x) + self.alpha / self.rank * (x @ self.A @ self.B)


class Detached(right_layer):
    def forward(self, x):
        return self.linear(x) + self.alpha / self.rank * (x.detach() @ self.A.T @ self.B.T)


class FrozenByNoGrad(right_layer):
    def forward(self, x):
        with torch.no_grad():
            base = self.linear(x)
        return base + self.alpha / self.rank * (x @ self.A.T @ self.B.T)


class MergesAtOnce(right_layer):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        linear.weight.data += 0.01


class WithAGate(right_layer):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        self.gate = nn.Parameter(torch.ones(()))


class NoReturn(right_layer):
    def forward(self, x):
        super().forward(x)


class OneWeight(right_layer):
    """The sum of the two matrices first, then x."""

    def forward(self, x):
        return F.linear(x, self.linear.weight + self.alpha / self.rank * self.B @ self.A, self.linear.bias)


class ByLinear(nn.Module):
    """With F.linear, and the start written out."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        for parameter in linear.parameters():
            parameter.requires_grad = False
        bound = 1 / math.sqrt(linear.in_features)
        self.A = nn.Parameter(torch.empty(rank, linear.in_features).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.scaling = alpha / rank

    def forward(self, x):
        return self.linear(x) + F.linear(F.linear(x, self.A), self.B) * self.scaling


# --- 11.2 -----------------------------------------------------------------------------------------------------------


def merging(update=lambda A, B, alpha: alpha / len(A) * B @ A, sign=lambda back: -1 if back else 1):
    def merged_weight(weight, A, B, alpha, back=False):
        return (weight.float() + sign(back) * update(A, B, alpha)).to(weight.dtype)

    return merged_weight


def forgets_the_type(weight, A, B, alpha, back=False):
    return weight + (-1 if back else 1) * alpha / len(A) * B @ A


def rounds_the_update(weight, A, B, alpha, back=False):
    return weight + ((-1 if back else 1) * alpha / len(A) * B @ A).to(weight.dtype)


def computes_in_half(weight, A, B, alpha, back=False):
    return weight + (-1 if back else 1) * alpha / len(A) * (B.to(weight.dtype) @ A.to(weight.dtype))


def in_place(weight, A, B, alpha, back=False):
    weight += ((-1 if back else 1) * alpha / len(A) * B @ A).to(weight.dtype)
    return weight


def no_merged_return(weight, A, B, alpha, back=False):
    weight = weight + alpha / len(A) * B @ A


def by_torch_add(weight, A, B, alpha, back=False):
    scaling = alpha / A.shape[0]
    total = torch.add(weight.to(torch.float32), torch.matmul(B, A), alpha=-scaling if back else scaling)
    return total.type_as(weight)


@torch.no_grad()
def in_double(weight, A, B, alpha, back=False):
    rank, _ = A.shape
    update = (B.double() @ A.double()) * (alpha / rank)
    return (weight.double() - update if back else weight.double() + update).to(weight.dtype)


def rank_one_by_one(weight, A, B, alpha, back=False):
    result = weight.detach().clone().float()
    for a, b in zip(A, B.T):
        result += (-1) ** int(back) * alpha / len(A) * torch.outer(b, a)
    return result.to(weight.dtype)


# --- 11.3 -----------------------------------------------------------------------------------------------------------


def each(shapes):
    return sum(outputs + inputs for outputs, inputs in shapes)


def by_trying(shapes, budget):
    rank = 0
    while sum((rank + 1) * sum(shape) for shape in shapes) <= budget:
        rank += 1
    return rank


# --- 11.4 -----------------------------------------------------------------------------------------------------------


def quantising(
    scale=lambda blocks, weights: blocks.abs().amax(1),
    code=lambda unit, levels: (unit[..., None] - levels).abs().argmin(-1),
    again=lambda codes, scales, levels: levels[codes] * scales[:, None],
    safe=True,
    blocks=lambda weights: weights.reshape(-1, 64),
):
    def quantise(weights, levels):
        rows = blocks(weights)
        scales = scale(rows, weights)
        unit = rows / (torch.where(scales == 0, 1, scales) if safe else scales)[:, None]
        codes = code(unit, levels)
        return codes, scales, again(codes, scales, levels).reshape(weights.shape)

    return quantise


right_quantise = quantising()


def nearest(unit, levels):
    return (unit[..., None] - levels).abs().argmin(-1)


def not_divided(weights, levels):
    _, scales, _ = right_quantise(weights, levels)
    codes = nearest(weights.reshape(-1, 64), levels)
    return codes, scales, (levels[codes] * scales[:, None]).reshape(weights.shape)


def hands_the_weights_back(weights, levels):
    codes, scales, _ = right_quantise(weights, levels)
    return codes, scales, weights.clone()


def nan_from_zeros(weights, levels):
    """The scale is taken into the levels, and the block divided by its own."""
    codes, scales, _ = right_quantise(weights, levels)
    rows = weights.reshape(-1, 64)
    return codes, scales, (levels[codes] * rows / (rows / scales[:, None])).reshape(weights.shape)


def by_midpoints(weights, levels):
    """The borders between the levels, and how many of them lie below a weight."""
    rows = weights.reshape(-1, 64)
    scales = rows.abs().max(dim=1, keepdim=True).values
    codes = torch.bucketize(rows / scales.clamp(min=1e-30), (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    return codes, scales, (levels[codes.int()] * scales).view(weights.shape)


def block_by_block(weights, levels):
    codes, scales, made = [], [], []
    for block in weights.flatten().split(64):
        scales.append(block.abs().max())
        unit = block / scales[-1] if scales[-1] > 0 else block
        codes.append(torch.stack([(value - levels).abs().argmin() for value in unit]))
        made.append(scales[-1] * levels[codes[-1]])
    return torch.stack(codes), torch.stack(scales), torch.cat(made).reshape_as(weights)


WRONG = {
    "check_layer": [
        (layer(lambda base, thin, r, alpha: base + thin), "the update is not scaled"),
        (layer(lambda base, thin, r, alpha: base + alpha * thin), "divide by the rank, too"),
        (layer(lambda base, thin, r, alpha: base + thin / r), "multiply it by alpha, too"),
        (layer(lambda base, thin, r, alpha: base + alpha / r**0.5 * thin), "that is rsLoRA's scaling"),
        (layer(lambda base, thin, r, alpha: base + r / alpha * thin), "upside down"),
        (layer(lambda base, thin, r, alpha: alpha / r * (base + thin)), "with B at zero it gives something else"),
        (layer(lambda base, thin, r, alpha: base - alpha / r * thin), "the update is subtracted"),
        (layer(lambda base, thin, r, alpha: alpha / r * thin), "with B at zero it gives something else"),
        (layer(lambda base, thin, r, alpha: base), "the update is missing"),
        (layer(lambda base, thin, r, alpha: base + (alpha / r) ** 2 * thin), "scaled twice"),
        (layer(b=0.02), "B is not zero at the start"),
        (layer(start=nn.init.zeros_), "A and B are both zero"),
        (layer(start=nn.init.zeros_, b=0.02), "the other way round, B at zero"),
        (layer(start=nn.init.ones_), "all entries of A are equal"),
        (layer(start=nn.init.kaiming_uniform_), "√6 times too wide"),
        (layer(start=nn.init.normal_), "evenly between"),
        (layer(start=partial(nn.init.normal_, std=0.02)), "evenly between"),
        (layer(freeze=False), "weight would be trained"),
        (layer(keep=copy.deepcopy), "no copy of it"),
        (layer(kind=lambda matrix: matrix), "a plain tensor, which no optimiser finds"),
        (layer(turned=True), "A has the shape (96, 8)"),
        (AllFrozen, "A is frozen too"),
        (WithoutSuper, "call super().__init__() first"),
        (TwoLayers, "A is a layer"),
        (ForgetsTheBias, "with B at zero it gives something else"),
        (WithoutTransposing, "from the right and transposed"),
        (Detached, "is a part detached"),
        (FrozenByNoGrad, "is a part detached"),
        (MergesAtOnce, "the given layer's weight or bias was changed"),
        (WithAGate, "it trains gate as well"),
        (NoReturn, "is the return missing"),
    ],
    "check_merged": [
        (merging(lambda A, B, alpha: B @ A), "the update is not scaled"),
        (merging(lambda A, B, alpha: alpha * B @ A), "divide by the rank"),
        (merging(lambda A, B, alpha: alpha / len(A) ** 0.5 * B @ A), "that is alpha / √rank"),
        (merging(lambda A, B, alpha: alpha / A.shape[1] * B @ A), "divided by A's second size"),
        (merging(lambda A, B, alpha: alpha / len(A) * A @ B), "B @ A has the weight's shape"),
        (merging(lambda A, B, alpha: alpha / len(A) * (B @ A).T), "the update is transposed"),
        (merging(lambda A, B, alpha: 0 * B @ A), "the weight is as it was"),
        (merging(sign=lambda back: 1), "back=True has to take the update out again"),
        (merging(sign=lambda back: 1 if back else -1), "back=False has to put it in"),
        (lambda weight, A, B, alpha, back: (-1 if back else 1) * alpha / len(A) * B @ A, "that is the update alone"),
        (forgets_the_type, "comes back as float32"),
        (rounds_the_update, "rounded to bfloat16 before the sum"),
        (computes_in_half, "computed in bfloat16"),
        (in_place, "changed in place"),
        (no_merged_return, "is the return missing"),
    ],
    "check_rank": [
        (lambda s, b: b / each(s), "no whole number"),
        (lambda s, b: math.ceil(b / each(s)), "rounded up"),
        (lambda s, b: round(b / each(s)), "rounded to the nearest"),
        (lambda s, b: max(1, b // each(s)), "too small for rank 1 gives 0"),
        (lambda s, b: (b - 1) // each(s), "to the last number"),
        (lambda s, b: b // sum(o * i for o, i in s), "the frozen weight"),
        (lambda s, b: b // sum(i for o, i in s), "that counts A alone"),
        (lambda s, b: b // sum(o for o, i in s), "that counts B alone"),
        (lambda s, b: b // sum(2 * i for o, i in s), "for a square one"),
        (lambda s, b: b // sum(s[0]), "for the first matrix alone"),
        (lambda s, b: b // (len(s) * sum(s[0])), "the first one's shape"),
        (lambda s, b: b // len(s), "divides by the number of matrices"),
        (lambda s, b: min(b // (o + i) for o, i in s), "they share it"),
        (lambda s, b: min(b // len(s) // (o + i) for o, i in s), "split evenly"),
        (lambda s, b: sum(b // (o + i) for o, i in s), "the ranks are added up"),
        (lambda s, b: b // sum(2 * o + i for o, i in s), "biases are counted"),
        (lambda s, b: b // each(set(s)), "counted once"),
        (lambda s, b: 8, "one unit of rank costs", False),
        (lambda s, b: None, "the return missing"),
    ],
    "check_quantise": [
        (quantising(lambda rows, w: rows.amax(1)), "take the absolute values"),
        (quantising(lambda rows, w: rows.abs().mean(1)), "the mean of the absolute values"),
        (quantising(lambda rows, w: rows.std(1)), "the standard deviation"),
        (quantising(lambda rows, w: rows.norm(dim=1)), "the length of the block"),
        (quantising(lambda rows, w: rows.amax(1) - rows.amin(1)), "the whole range"),
        (quantising(lambda rows, w: w.abs().max().expand(len(rows))), "the scale of the whole tensor"),
        (quantising(lambda rows, w: w.abs().max()[None]), "scales for"),
        (nan_from_zeros, "a block of zeros comes back as nan"),
        (quantising(code=lambda unit, levels: (unit[..., None] - levels).argmin(-1)), "the largest level always wins"),
        (quantising(code=lambda unit, levels: (unit[..., None] - levels).abs().argmax(-1)), "the level farthest away"),
        (
            quantising(code=lambda unit, levels: (torch.searchsorted(levels, unit, right=True) - 1).clamp(0, 15)),
            "the level below",
        ),
        (quantising(code=lambda unit, levels: torch.searchsorted(levels, unit).clamp(0, 15)), "the level above"),
        (quantising(code=lambda unit, levels: nearest(unit, torch.linspace(-1, 1, 16))), "sixteen even steps"),
        (quantising(code=lambda unit, levels: nearest(unit.abs(), levels)), "the sign is lost"),
        (quantising(again=lambda codes, scales, levels: levels[codes]), "lack their scale"),
        (quantising(again=lambda codes, scales, levels: codes * scales[:, None]), "look the level up"),
        (quantising(again=lambda codes, scales, levels: levels[codes] / scales[:, None]), "multiply by it"),
        (not_divided, "not divided by their block's scale"),
        (hands_the_weights_back, "what came in"),
        (lambda w, levels: right_quantise(w, levels)[:2], "three tensors"),
        (lambda w, levels: (right_quantise(w, levels)[0].float(), *right_quantise(w, levels)[1:]), "whole, 0 to 15"),
        (lambda w, levels: (right_quantise(w, levels)[0].flatten(), *right_quantise(w, levels)[1:]), "have the shape"),
        (quantising(blocks=lambda w: w.reshape(64, -1).T), "the blocks lie the wrong way"),
        (lambda w, levels: None, "the return missing"),
    ],
}
RIGHT = {
    "check_layer": [right_layer, OneWeight, ByLinear],
    "check_merged": [merging(), by_torch_add, in_double, rank_one_by_one],
    "check_rank": [
        lambda shapes, budget: budget // each(shapes),
        by_trying,
        lambda s, b: int(b / sum(sum(shape) for shape in s)),
    ],
    "check_quantise": [right_quantise, quantising(safe=False), by_midpoints, block_by_block],
}
