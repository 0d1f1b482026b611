"""Checks of lesson 11: the LoRA layer, the merged weight, the rank for a budget, four-bit weights."""

import math
from typing import Any

import torch
from torch import nn

from .check import check, require
from .comparison import asked, close, explained, first_match, learns, match_formula, match_tensor, tensor

_TURNED = "x meets A first, then B, each from the right and transposed: x @ A.T @ B.T"
_WHY_RAISED = {  # by words of the exception
    "before Module.__init__": "call super().__init__() first: before it a module can hold no parameters",
    "missing 1 required positional": "it is made as cls(linear, rank, alpha): these three, and nothing more",
}


@check("11.1", "correct: the frozen layer, and beside it a product of two thin matrices that starts at zero.")
def check_layer(cls: Any) -> None:
    """``cls(linear, rank, alpha)`` must compute linear(x) + alpha / rank · B A x, and train A and B alone."""
    for inputs, outputs, rank, alpha, bias in ((96, 64, 8, 6.0, True), (64, 96, 4, 10.0, False)):
        linear = nn.Linear(inputs, outputs, bias=bias)
        before = [p.detach().clone() for p in linear.parameters()]
        with explained(_WHY_RAISED):
            layer = cls(linear, rank, alpha)
        require(isinstance(layer, nn.Module), "it is no nn.Module: class …(nn.Module), with super().__init__()")
        same = all(map(torch.equal, linear.parameters(), before))
        require(same, "the given layer's weight or bias was changed: it stays as it is, for ever")
        _check_parts(layer, linear, {"A": (rank, inputs), "B": (outputs, rank)})
        x = torch.randn(3, 5, inputs)
        _check_start(layer, linear, x)
        nn.init.normal_(layer.A), nn.init.normal_(layer.B)
        _check_update(layer, linear, x, rank, alpha)


def _check_parts(layer: nn.Module, linear: nn.Linear, shapes: dict[str, tuple[int, int]]) -> None:
    for name, shape in shapes.items():
        part: Any = getattr(layer, name, None)
        require(part is not None, f"it has no {name}: self.{name} = nn.Parameter(…)")
        require(not isinstance(part, nn.Module), f"{name} is a layer: the card wants a matrix, an nn.Parameter")
        where = f"{name} is a plain tensor, which no optimiser finds: self.{name} = nn.Parameter(…)"
        require(isinstance(part, nn.Parameter), where)
        require(part.shape == shape, f"{name} has the shape {tuple(part.shape)}, it must have {shape}")
        frozen = f"{name} is frozen too: freeze the given layer alone, not all that is in the module"
        require(part.requires_grad, frozen)
    held = getattr(layer, "linear", None) is linear
    require(held, "self.linear is not the given layer: keep that very layer, self.linear = linear, no copy of it")
    for name, p in linear.named_parameters():
        require(not p.requires_grad, f"the given layer's {name} would be trained: linear.requires_grad_(False)")
    more = [n for n, p in layer.named_parameters() if p.requires_grad and p is not layer.A and p is not layer.B]
    require(not more, f"it trains {', '.join(more)} as well: A and B are all that LoRA trains")


def _check_start(layer: Any, linear: nn.Linear, x: torch.Tensor) -> None:
    A, bound = layer.A.detach(), x.shape[-1] ** -0.5
    a_moves, b_moves = bool(A.any()), bool(layer.B.any())
    require(a_moves or b_moves, "A and B are both zero: neither ever gets a gradient; start A at random")
    require(a_moves, "A is zero and B is random: the card wants it the other way round, B at zero")
    require(not b_moves, "B is not zero at the start, so the model is another before the first step")
    require(len(A.unique()) > 1, "all entries of A are equal: its rows learn as one, and the rank is 1")
    widest = A.abs().max().item() / bound  # of a uniform distribution the largest of hundreds is near the bound
    uniform = abs(A.std().item() / bound * 3**0.5 / widest - 1) < 0.15
    off = uniform and abs(widest / 6**0.5 - 1) < 0.05
    require(not off, "A is √6 times too wide: kaiming_uniform_ wants a=math.sqrt(5), as in nn.Linear")
    reach = f"A's entries reach {A.abs().max():.3g}: evenly between ±1/√inputs = ±{bound:.3g} is wanted"
    require(uniform and 0.9 < widest < 1.001, f"{reach}, nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))")
    output = tensor(asked(layer, x, hint=_TURNED))
    require(close(output, linear(x)), "with B at zero it gives something else than the layer alone")


def _check_update(layer: Any, linear: nn.Linear, x: torch.Tensor, rank: int, alpha: float) -> None:
    base, thin = linear(x).detach(), (x @ layer.A.T @ layer.B.T).detach()
    update, bias = alpha / rank * thin, 0 if linear.bias is None else linear.bias.detach()
    right = base + update
    guesses = {
        base: "the output is the frozen layer's alone: the update is missing",
        update: "the frozen layer's output is missing from the sum",
        base + thin: "the update is not scaled: multiply it by alpha / rank",
        base + alpha * thin: "the update is multiplied by alpha: divide by the rank, too",
        base + thin / rank: "the update is divided by the rank: multiply it by alpha, too",
        base + rank**0.5 * update: "that is rsLoRA's scaling, alpha / √rank: this lesson begins with alpha / rank",
        base + rank / alpha * thin: "the scaling is upside down: alpha / rank",
        base + alpha / rank * update: "the update is scaled twice",
        alpha / rank * base + update: "the scaling multiplies the frozen layer's output, too: the update alone",
        base - update: "the update is subtracted: add it",
        right - bias: "the frozen layer's bias is missing: call the layer itself",
        right + bias: "the frozen layer's bias is added twice",
    }
    output = tensor(asked(layer, x, hint=_TURNED))
    require(output.shape == right.shape, f"the output has shape {tuple(output.shape)}, not {tuple(right.shape)}")
    match_tensor(output.detach(), right, guesses, "the output is not linear(x) + alpha / rank · B A x")
    inside = x.clone().requires_grad_(True)
    parts = {"A": layer.A, "B": layer.B, "the input x": inside}
    gradients = learns(layer(inside), parts)
    wanted = linear(inside) + alpha / rank * (inside @ layer.A.T @ layer.B.T)
    wanted = torch.autograd.grad(wanted.sum(), list(parts.values()))
    require(all(map(close, gradients, wanted)), "the output is right, its gradient is not: is a part detached?")


@check("11.2", "correct: into the weight and out of it again, and rounded once.")
def check_merged(merged_weight: Any) -> None:
    """``merged_weight(weight, A, B, alpha, back)``: the weight with alpha / rank · B A in it, or without it again."""
    for outputs, inputs, rank, alpha in ((24, 24, 4, 6.0), (32, 20, 2, 5.0)):  # square first: all products fit there
        weight, A, B = torch.randn(outputs, inputs), torch.randn(rank, inputs), torch.randn(outputs, rank)
        for back in (False, True):
            sign = -1 if back else 1
            update = sign * alpha / rank * B @ A
            turned = "back=True has to take the update out again" if back else "back=False has to put it in"
            guesses = {
                weight: "the weight is as it was: the update is not in it",
                update: "that is the update alone: add it to the weight",
                weight - update: turned,
                weight + sign * B @ A: "the update is not scaled: alpha / rank",
                weight + sign * alpha * B @ A: "the update is multiplied by alpha: divide by the rank, A's first size",
                weight + sign * alpha / rank**0.5 * B @ A: "that is alpha / √rank: divide by the rank itself",
                weight + sign * alpha / inputs * B @ A: "it is divided by A's second size: the rank is its first",
            }
            if outputs == inputs:
                guesses |= {
                    weight + update.T: "the update is transposed: nn.Linear's weight is (outputs, inputs), as B @ A is",
                    (weight + update).T: "the result is transposed: it is a weight for nn.Linear, (outputs, inputs)",
                }
            hint = "B is (outputs, rank) and A is (rank, inputs): B @ A has the weight's shape"
            answer = tensor(asked(merged_weight, weight, A, B, alpha, back, hint=hint)).detach()
            shapes = f"the shape is {tuple(answer.shape)}, the weight's is {tuple(weight.shape)}"
            require(answer.shape == weight.shape, shapes)
            what = "weight − alpha / rank · B A" if back else "weight + alpha / rank · B A"
            match_tensor(answer, weight + update, guesses, f"the result is not {what}")
    _check_rounding(merged_weight)


def _check_rounding(merged_weight: Any) -> None:
    weight = torch.randn(64, 64).bfloat16()
    A, B = torch.randn(4, 64), 0.1 * torch.randn(64, 4)
    with explained({"dtype": "a bfloat16 weight and float32 matrices: convert the weight, weight.float()"}):
        answer = tensor(asked(merged_weight, weight, A, B, 8.0, False)).detach()
    goes = f"a bfloat16 weight comes back as {answer.dtype}: convert the sum at the end, .to(weight.dtype)"
    require(answer.dtype == weight.dtype, goes.replace("torch.", ""))
    guesses = {
        (weight.float() + 2 * B @ A).bfloat16(): "",
        weight + (2 * B @ A).bfloat16(): "the update is rounded to bfloat16 before the sum: add in float32, round once",
        weight + 2 * B.bfloat16() @ A.bfloat16(): "the product is computed in bfloat16: compute in float32, round once",
    }
    near = {guess: (guess != answer).float().mean().item() for guess in guesses}  # the order of a sum may move a few
    nearest = min(near, key=lambda guess: near[guess])
    require(not guesses[nearest], guesses[nearest])
    another = "in bfloat16 it is another: compute in float32, weight.float(), and round the sum once"
    require(near[nearest] < 0.02, another)


@check("11.3", "correct: the largest rank that the budget pays for.")
def check_rank(largest_rank: Any) -> None:
    """``largest_rank(shapes, budget)``: the largest rank with which all A and B have at most ``budget`` numbers."""
    attention, ffn = [(384, 384)] * 4, [(1536, 384), (384, 1536)]
    cases = [(2 * attention, 82_944), (attention + ffn, 30_000), ([(5, 7), (3, 4)], 37), ([(640, 64)] * 3, 2_000)]
    cases += [([(10, 20), (30, 40)], 200)]
    guesses = {
        "b / sum(o + i for o, i in s)": "that is no whole number: round it down, with //",
        "ceil(b / sum(o + i for o, i in s))": "it is rounded up, and costs more than the budget: round down",
        "round(b / sum(o + i for o, i in s))": "it is rounded to the nearest: round down, or it costs too much",
        "max(1, b // sum(o + i for o, i in s))": "a budget too small for rank 1 gives 0: nothing fits",
        "(b - 1) // sum(o + i for o, i in s)": "a rank that takes the budget to the last number fits, too",
        "b // sum(o + i for o, i in s) + 1": "that is one too many: it costs more than the budget",
        "b // sum(o * i for o, i in s)": "o · i is the frozen weight: A has r · i numbers and B has o · r",
        "b // sum(i for o, i in s)": "that counts A alone: B has outputs · r numbers",
        "b // sum(o for o, i in s)": "that counts B alone: A has r · inputs numbers",
        "b // sum(2 * i for o, i in s)": "that takes every matrix for a square one: A has r · inputs, B outputs · r",
        "b // sum(2 * o for o, i in s)": "that takes every matrix for a square one: A has r · inputs, B outputs · r",
        "b // sum(s[0])": "that pays for the first matrix alone: every one has its A and B",
        "b // (len(s) * sum(s[0]))": "that takes all matrices to have the first one's shape: add up over the shapes",
        "b // len(s)": "that divides by the number of matrices: for each unit of rank one costs inputs + outputs",
        "min(b // len(s) // (o + i) for o, i in s)": "the budget is split evenly: the matrices do not cost the same",
        "sum(b // (o + i) for o, i in s)": "the whole budget is spent on every matrix, and the ranks are added up",
        "min(b // (o + i) for o, i in s)": "the whole budget is spent on every matrix: they share it",
        "b // sum(o + i + o for o, i in s)": "biases are counted: A and B have none",
        "b // sum(o + i for o, i in set(s))": "equal shapes are counted once: every matrix has its own A and B",
    }
    hint = "one unit of rank costs inputs + outputs numbers at every matrix"
    match_formula(largest_rank, "s b", cases, "b // sum(o + i for o, i in s)", guesses, hint,
                  otherwise="for a budget of {b:,} it gives {given}, right is {wanted}: {hint}")  # fmt: skip


@check("11.4", "correct: one of sixteen levels for every weight, one scale for 64 of them.")
def check_quantise(quantise: Any) -> None:
    """``quantise(weights, levels)``: codes (blocks, 64), scales (blocks,), and the weights made of them again."""
    levels = torch.tensor([-1, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1])
    for shape in ((6, 64), (32, 6), (2, 5, 128)):
        weights = torch.randn(shape) * torch.logspace(-1, 1, math.prod(shape[:-1])).view(*shape[:-1], 1)
        _check_quantised(quantise, weights, levels if len(shape) == 2 else levels.pow(3))
    empty = torch.cat([torch.zeros(1, 64), torch.randn(1, 64)])
    _, _, back = _three(quantise, empty, levels)
    divided = "a block of zeros comes back as nan: 0 / 0; where the largest is 0, divide by 1"
    require(bool(back.isfinite().all()), divided)
    require(not back[0].any(), "a block of zeros comes back as something else")


def _three(quantise: Any, weights: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    hint = "weights.reshape(-1, 64) has a block in each row, and (blocks, 64, 1) − (16,) has the distance to each level"
    answer = asked(quantise, weights, levels, hint=hint)
    fits = isinstance(answer, (tuple, list)) and len(answer) == 3 and all(isinstance(t, torch.Tensor) for t in answer)
    require(fits, "it must return three tensors: the codes, the scales, and the weights made of them")
    codes, scales, back = answer
    require(not codes.is_floating_point(), f"the codes are {codes.dtype}: they are numbers of levels, whole, 0 to 15")
    blocks = weights.numel() // 64
    for name, part, shape in (("codes", codes, (blocks, 64)), ("weights made again", back, tuple(weights.shape))):
        require(part.shape == shape, f"the {name} have the shape {tuple(part.shape)}, they must have {shape}")
    one = f"there are {scales.numel()} scales for {blocks} blocks of 64: one for each block"
    require(scales.numel() == blocks, one)
    return codes.long(), scales.flatten(), back


def _check_quantised(quantise: Any, weights: torch.Tensor, levels: torch.Tensor) -> None:
    codes, scales, back = _three(quantise, weights, levels)
    blocks = weights.reshape(-1, 64)
    scale = blocks.abs().amax(1)
    columns = weights.reshape(64, -1).T if weights.ndim == 2 else blocks
    guesses = {
        blocks.amax(1): "the scale is the largest weight: a negative one may be larger, take the absolute values",
        blocks.abs().mean(1): "the scale is the mean of the absolute values: the largest one has to fit at level 1",
        blocks.std(1): "the scale is the standard deviation: the largest absolute value has to fit at level 1",
        blocks.norm(dim=1): "the scale is the length of the block: take its largest absolute value",
        blocks.amax(1) - blocks.amin(1): "the scale is the whole range: take the largest absolute value",
        (blocks.amax(1) - blocks.amin(1)) / 2: "the scale is half the range: take the largest absolute value",
        weights.abs().amax().expand(len(scale)): "all blocks have the scale of the whole tensor: one for each block",
        1 / scale: "the scales are upside down: a weight is its level times the scale",
        columns.abs().amax(1): "the blocks lie the wrong way: 64 that follow each other, weights.reshape(-1, 64)",
    }
    match_tensor(scales.to(scale.dtype), scale, guesses, "the scale is not the block's largest absolute value")
    unit = blocks / scale[:, None]
    right = (unit[..., None] - levels).abs().argmin(-1)
    even = torch.linspace(-1, 1, 16)
    guesses = {
        (blocks[..., None] - levels).abs().argmin(-1): "the weights are not divided by their block's scale first",
        (unit[..., None] - levels).argmin(-1): "nearest without the absolute value: the largest level always wins",
        (unit[..., None] - levels).abs().argmax(-1): "that is the level farthest away: argmin",
        (torch.searchsorted(levels, unit, right=True) - 1).clamp(0, 15): "that is the level below: take the nearest",
        torch.searchsorted(levels, unit).clamp(0, 15): "that is the level above: take the nearest",
        (unit[..., None] - even).abs().argmin(-1): "those are sixteen even steps: use the levels that are given",
        right - 8: "the codes are 8 too small: they count the levels from 0",
        right + 1: "the codes are 1 too large: they count the levels from 0",
        15 - right: "the codes count from the highest level: they count from the lowest",
        (unit.abs()[..., None] - levels).abs().argmin(-1): "the sign is lost: the levels have negative ones",
    }
    first_match(lambda guess: torch.equal(codes, guess), right, guesses, "a code is not that of the nearest level")
    made = levels[right] * scale[:, None]
    guesses = {
        levels[right].reshape(weights.shape): "the weights made again lack their scale",
        weights: "the third is what came in: make it of codes and scales alone, as it will have to be",
        (levels[right] / scale[:, None]).reshape(weights.shape): "divided by the scale: multiply by it",
        (right * scale[:, None]).reshape(weights.shape): "that is code times scale: look the level up, levels[codes]",
    }
    match_tensor(back, made.reshape(weights.shape), guesses, "the third is not levels[codes] · scale")
