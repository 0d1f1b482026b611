"""Checks of lesson 09: a fair timing loop, the extra multiply-adds, merging a linear adapter, sharing lower layers."""

from functools import partial
from statistics import mean, median
from typing import Any

import torch
from torch import nn

from adapters_lesson.adapter import Adapter

from .check import Mistake, check, require
from .comparison import asked, close, first_match, match_formula, match_tensor, number, pair, table

ROUNDS, WARMUP = 6, 2  # an even number: there are two middle times
_DEPTH = 5  # blocks
_OF_TWO = "of the two middle times: with an even number of rounds the median is their mean, as statistics.median"
_COLD = 64.0  # seconds of a call that is not warm, unlike any other
_TIMES = {
    "a": (3.0, 1.0, 2.0, 9.0, 2.5, 4.0),
    "b": (4.0, 5.0, 4.5, 20.0, 4.25, 6.0),
    "c": (7.0, 6.0, 8.0, 6.5, 30.0, 5.0),
}


class _Bench:
    """A clock that only the contenders move, and what they saw."""

    def __init__(self) -> None:
        self.now, self.reads = 0.0, 0
        self.calls: list[str] = []

    def clock(self) -> float:
        """Seconds."""
        self.reads += 1
        return self.now

    def contender(self, name: str) -> None:
        """Takes the next of its times."""
        done = self.calls.count(name) - WARMUP
        self.now += _TIMES[name][done] if 0 <= done < ROUNDS else _COLD
        self.calls.append(name)


@check("9.1", "correct: warmed up, interleaved, and the median of each.")
def check_timing(fair_medians: Any) -> None:
    """``fair_medians(contenders, rounds, warmup, clock)`` must give each contender's median seconds, fairly taken."""
    bench, names, timed = _Bench(), list(_TIMES), list(_TIMES.values())
    contenders = {name: partial(bench.contender, name) for name in names}
    answer = table(fair_medians(contenders, ROUNDS, WARMUP, bench.clock), names, "name: seconds")
    require(bool(bench.calls), "no contender is ever called: call() with its brackets runs it, call only names it")
    require(bench.reads > 0, "the clock that was given is never read: use clock(), not one of your own")
    counts = [bench.calls.count(name) for name in names]
    own = f"the contenders were called {', '.join(map(str, counts))} times"
    require(len(set(counts)) == 1, f"{own}: each needs the same warm-up and the same rounds")
    require(counts[0] != ROUNDS, f"{own}, as if there is no warm-up: call each `warmup` times before the clock counts")
    require(counts[0] == ROUNDS + WARMUP, f"{own}: with {ROUNDS} rounds and {WARMUP} of warm-up {ROUNDS + WARMUP}")
    if any(isinstance(answer[name], (list, tuple)) for name in names):
        raise Mistake("it returns all times: return the median of each contender's")
    got, right = tuple(number(answer[name]) for name in names), tuple(map(median, timed))
    rest, everything = bench.calls[-ROUNDS * len(names) :], [(*[_COLD] * WARMUP, *times) for times in timed]
    if any(sorted(rest[i : i + len(names)]) != names for i in range(0, len(rest), len(names))):
        raise Mistake("the contenders are timed one after the other: let every round call each of them once")
    guesses = {
        (0.0,) * 3: "all times are 0: the call must stand between the two readings of the clock",
        tuple(1000 * t for t in right): "those are milliseconds: return seconds",
        tuple(map(median, everything)): "the warm-up is among the times: do not keep what it took",
        tuple(map(mean, everything)): "the warm-up is among the times, and it is a mean: take the rounds' median",
        tuple(map(mean, timed)): "that is the mean: one slow call moves it, take the median",
        tuple(median(t[1:]) for t in timed): "the first round is left out: the warm-up comes before it, it counts",
        tuple(map(min, timed)): "that is the fastest call: report what is usual, the median",
        tuple(map(sum, timed)): "that is the sum of all calls: take the median of single calls",
        tuple(t[-1] for t in timed): "only the last round counts: keep the times of all rounds in a list",
        tuple(t[len(t) // 2] for t in timed): "that is the middle call, not the middle of the sorted times: the median",
        tuple(sorted(t)[len(t) // 2 - 1] for t in timed): f"that is the lower {_OF_TWO}",
        tuple(sorted(t)[len(t) // 2] for t in timed): f"that is the upper {_OF_TWO}",
    }
    first_match(lambda guess: got == guess, right, guesses)
    each = "read it directly before and directly after each single call"
    if got != right and bench.reads < 2 * len(rest):
        raise Mistake(f"the clock is read {bench.reads} times for {len(rest)} calls, too rarely: {each}")
    why = "are they medians of all rounds, not rounded, and does the clock time nothing else?"
    require(got == right, f"the medians should be {right} s, not {got}: {why} {each.capitalize()}")


@check("9.2", "correct: 2·d·m for each adapter, beside 12·d² + 2·length·d.")
def check_share(extra_share: Any) -> None:
    """``extra_share(model_dim, bottleneck_dim, adapters, length)`` must give the adapters' share of multiply-adds."""
    cases = [(384, 16, 2, 128), (768, 48, 1, 64), (1024, 256, 2, 512)]
    block = "(12*d*d + 2*t*d)"
    guesses = {
        f"100*n*2*d*m / {block}": "those are per cent: return the share, 0.02 for 2 %",
        f"n*2*d*m // {block}": "0 for all of them: // rounds down, divide with /",
        "n*2*d*m": "those are the adapters' multiply-adds: divide by the block's own",
        f"n*d*m / {block}": "an adapter has two projections, d·m multiply-adds each",
        f"2*d*m / {block}": "that is one adapter: the block has `adapters` of them",
        "n*2*d*m / (12*d*d)": "attention's own products are missing: scores and mixing, length·d each",
        "n*2*d*m / (12*d*d + t*d)": "attention multiplies twice, for the scores and for the mixing: 2·length·d",
        "n*2*d*m / (12*d*d + 2*t*t*d)": "2·length²·d is for the whole text: count for one token, like the rest",
        "n*2*d*m / (9*d*d + 2*t*d)": "the FFN has two projections of d × 4d: 8·d², and attention four of d × d",
        "n*2*d*m / (8*d*d + 2*t*d)": "the four projections of attention (4·d²) or a part of the FFN's 8·d² are missing",
        "n*2*d*m / (4*d*d + 2*t*d)": "the FFN is missing: two projections of d × 4d, 8·d²",
        f"n*2*d*m / ({block} + n*2*d*m)": "divide by the bare block's multiply-adds, without the adapters",
        f"n*(2*d*m + m + d) / {block}": "biases are added, not multiplied: count the weights only",
        f"1 + n*2*d*m / {block}": "that is the ratio: return what comes on top, without the 1",
        f"{block} / (n*2*d*m)": "upside down: the adapters' multiply-adds by the block's",
        f"n*2*d*m*t / {block}": "the adapters are counted for the whole text, the block for one token",
    }
    hint = "count the multiply-adds of every matrix product for one token"
    match_formula(extra_share, "d m n t", cases, f"n*2*d*m / {block}", guesses, hint)


@check("9.3", "correct: one projection that does what both did.")
def check_merge(merge: Any) -> None:
    """``merge(projection, adapter)`` must give weight and bias of a linear layer equal to adapter(projection(x))."""
    hint = "the adapter's product is up_project.weight @ down_project.weight, to the left of W"
    for inputs in (12, 20):  # square first: there a product in the wrong order has the right shape
        projection = nn.Linear(inputs, 12)
        adapter = Adapter(12, 5, nn.Identity(), init="bert", init_std=0.5, scaling=3.0)
        for bias in (projection.bias, adapter.down_project.bias, adapter.up_project.bias):
            nn.init.normal_(bias)
        answer = pair(asked(merge, projection, adapter, hint=hint), "the weight and the bias, two tensors")
        require(all(isinstance(t, torch.Tensor) for t in answer), "it must return two tensors, the weight and the bias")
        _check_merged(projection, adapter, *(tensor.detach().to(torch.float32) for tensor in answer))


@torch.no_grad()
def _check_merged(projection: nn.Linear, adapter: Adapter, weight: torch.Tensor, bias: torch.Tensor) -> None:
    w, b, s, eye = projection.weight, projection.bias, adapter.scaling, torch.eye(12)
    down, up = adapter.down_project, adapter.up_project
    product = up.weight @ down.weight
    require(weight.shape == w.shape, f"the weight has shape {tuple(weight.shape)}, it must have {tuple(w.shape)}")
    guesses = {
        w: "the weight is the projection's: nothing of the adapter is in it",
        eye + s * product: "the projection is missing: the adapter's matrix has to be multiplied with its weight",
        s * product @ w: "the residual is missing: the adapter returns h plus its update",
        w + product @ w: "the adapter's scaling is missing",
        s * (w + product @ w): "scaling multiplies the update only, not the residual",
    }
    if w.shape[1] == 12:
        guesses |= {
            w + s * product: "the adapter's matrix is added to the projection's: multiply it with W",
            w + s * w @ product: "the order is the wrong way round: W stands on the right",
            (w + s * product @ w).T: "the weight is transposed: nn.Linear computes x @ weight.T",
        }
    otherwise = "the weight is not (I + s·U·D)·W, with U and D the weights of up_project and down_project"
    match_tensor(weight, w + s * product @ w, guesses, otherwise)
    require(bias.shape == b.shape, f"the bias has shape {tuple(bias.shape)}, it must have {tuple(b.shape)}")
    update = product @ b + up.weight @ down.bias
    guesses = {
        b: "the bias is the projection's: the adapter changes that too, and has biases of its own",
        b + s * product @ b: "the adapter's own two biases are missing from the bias",
        b + s * (up.weight @ down.bias + up.bias): "the projection's bias goes through the adapter: U·D·b is missing",
        b + s * (product @ b + up.bias): "down_project's bias is missing: it reaches the output through up_project",
        b + s * update: "up_project's bias is missing",
        b + s * update + up.bias: "scaling multiplies the whole update, up_project's bias too",
        b + update + up.bias: "the adapter's scaling is missing from the bias",
        s * (update + up.bias): "the residual is missing from the bias: the projection's own stays in it",
    }
    otherwise = "the weight is right, the bias is not: it is what comes out for the input 0, adapter(b)"
    match_tensor(bias, b + s * (update + up.bias), guesses, otherwise)


@check("9.4", "correct: the lower layers once, the upper ones for each task.")
def check_sharing(serve: Any) -> None:
    """``serve(x, blocks, adapters, n)`` must compute the lowest n blocks once, bare, and the others for each task."""
    for n in (2, 0, 5, 3):
        calls: list[int] = []
        tasks = {f"task {t}": [partial(_adapt, t, i) for i in range(_DEPTH)] for t in (1, 2, 3)}
        x, blocks = torch.randn(2, 3), [partial(_block, i, calls=calls) for i in range(_DEPTH)]
        answer = table(asked(serve, x, blocks, tasks, n), tasks, "task: hidden states")
        require(all(isinstance(h, torch.Tensor) for h in answer.values()), "each task's hidden states are one tensor")
        _check_shared(answer, x, n)
        for i in range(_DEPTH):
            times = calls.count(i)
            require(i >= n or times == 1, f"block {i} ran {times} times: below n all tasks share the hidden states")
            require(i < n or times == 3, f"block {i} ran {times} times for 3 tasks: once for each is enough")


def _block(i: int, h: torch.Tensor, calls: list[int] | None = None) -> torch.Tensor:
    if calls is not None:
        calls.append(i)
    return 0.7 * h + torch.cos(2 * h + i)


def _adapt(task: int, i: int, h: torch.Tensor) -> torch.Tensor:
    return h + 0.3 * torch.sin(h * (task + 1) + i)


def _check_shared(answer: dict[str, torch.Tensor], x: torch.Tensor, n: int) -> None:
    def run(task: int, adapted: range, bare: range = range(0), before: bool = False, offset: int = 0) -> torch.Tensor:
        h = x
        for i in range(_DEPTH):
            if before and i in adapted:
                h = _adapt(task, i, h)
            if i not in bare:
                h = _block(i, h)
            if not before and i in adapted:
                h = _adapt(task, i - offset, h)
        return h

    def given(wrong: tuple) -> bool:
        return all(close(answer[f"task {t}"], run(t, *wrong)) for t in (1, 2, 3))

    lowest, upper = range(n), range(n, _DEPTH)
    shifted = f"(n = {n} means that the lowest {n} blocks are bare)"
    guesses = {
        (range(_DEPTH),): "no adapter is left out: those of the lowest n blocks must not work",
        (range(0),): "no adapter works at all: those of the blocks from n on must",
        (range(_DEPTH - n),): "the uppermost n blocks are bare: AdapterDrop leaves out the lowest",
        (lowest,): "the adapters of the lowest n blocks work and the others do not: it is the other way round",
        (range(n + 1, _DEPTH),): f"one adapter too many is left out {shifted}",
        (range(n - 1, _DEPTH),): f"one adapter too few is left out {shifted}",
        (upper, lowest): "the lowest n blocks themselves are left out: only their adapters are, the blocks still work",
        (upper, range(0), True): "the adapters come before their blocks: adapter i takes what block i puts out",
        (upper, range(0), False, n): f"block {n} gets adapter 0: slice the list of adapters as well",
        (upper, range(n, n + 1)): f"block {n} is left out: the upper part begins with it",
    }
    first = "the first task alone is right: each starts again from what the lower blocks gave, with its own adapters"
    other = "the hidden states are not those of bare lower and adapted upper blocks"
    first_match(given, (upper,), guesses, first if close(answer["task 1"], run(1, upper)) else other)
