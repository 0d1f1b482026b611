"""Checks of lesson 09: a fair timing loop, the extra multiply-adds, merging a linear adapter, sharing lower layers."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, median
from typing import Any

import torch
from torch import nn

from ..adapter import Adapter
from .bench import ROUNDS, WARMUP, Bench
from .matching import called, number
from .report import check, close, require


@check("9.1", "correct: warmed up, interleaved, and the median of each.")
def check_timing(fair_medians: Any) -> None:
    """``fair_medians(contenders, rounds, warmup, clock)`` must give each contender's median seconds, fairly taken."""
    bench, rounds, warmup = Bench(), ROUNDS, WARMUP
    names = list(bench.timed)
    answer = fair_medians({name: bench.contender(name) for name in names}, rounds, warmup, bench.clock)
    require(answer is not None, "the function returns None: is the return missing?")
    require(
        isinstance(answer, dict) and sorted(answer) == names,
        "it must return a dictionary with one number for each name, {name: seconds, ...}",
    )
    require(
        bool(bench.calls), "no contender is ever called: call() with its brackets runs it, call alone only names it"
    )
    require(bench.reads > 0, "the clock that was given is never read: use clock(), not one of your own")
    counts = [bench.calls.count(name) for name in names]
    require(
        len(set(counts)) == 1,
        f"the contenders were called {', '.join(map(str, counts))} times: each needs the same warm-up and the same rounds",
    )
    require(counts[0] != rounds, "there is no warm-up: call each contender `warmup` times before the clock counts")
    require(
        counts[0] == rounds + warmup,
        f"with {rounds} rounds and a warm-up of {warmup} each contender was called {counts[0]} times, not {rounds + warmup}",
    )
    for name in names:
        require(
            not isinstance(answer[name], (list, tuple)), "it returns all times: return the median of each contender's"
        )
    got = [number(answer[name]) for name in names]
    timed = list(bench.timed.values())
    everything = list(bench.times.values())
    wrong_numbers: list[tuple[list[float], str]] = [
        ([0.0] * 3, "all times are 0: the call must stand between the two readings of the clock"),
        ([1000 * median(t) for t in timed], "those are milliseconds: return seconds"),
        ([median(t) for t in everything], "the warm-up is among the times: do not keep what it took"),
        ([mean(t) for t in everything], "the warm-up is among the times, and it is a mean: keep only the rounds, take the median"),
        ([mean(t) for t in timed], "that is the mean: one slow call moves it, take the median"),
        ([min(t) for t in timed], "that is the fastest call: report what is usual, the median"),
        ([max(t) for t in timed], "that is the slowest call: take the median"),
        ([sum(t) for t in timed], "that is the sum of all calls: take the median of single calls"),
        ([t[-1] for t in timed], "only the last round counts: keep the times of all rounds in a list"),
        ([t[0] for t in timed], "only the first round counts: keep the times of all rounds in a list"),
        ([t[len(t) // 2] for t in timed], "that is the middle call in the order of the rounds: the median is the middle of the sorted times"),
    ]  # fmt: skip
    rest = bench.calls[-rounds * len(names) :]
    turns = [sorted(rest[i : i + len(names)]) for i in range(0, len(rest), len(names))]
    require(
        all(turn == names for turn in turns),
        "the contenders are timed one after the other: a slow spell of the machine would hit one of them alone; let every round call each contender once",
    )
    for wrong, message in wrong_numbers:
        require(got != wrong, message)
    right = [median(t) for t in timed]
    require(
        got == right or bench.reads >= 2 * rounds * len(names),
        f"the clock is read {bench.reads} times for {rounds * len(names)} timed calls, so that other calls are in their times: "
        "read it directly before and directly after each single call",
    )
    require(
        got == right,
        f"the medians should be {right} s, yours are {got}: read the clock directly before and directly after each single call, so that neither the others nor any preparation is inside",
    )


@check("9.2", "correct: 2·d·m for each adapter, beside 12·d² + 2·length·d.")
def check_share(extra_share: Any) -> None:
    """``extra_share(model_dim, bottleneck_dim, adapters, length)`` must give the adapters' share of multiply-adds."""
    cases = [(384, 16, 2, 128), (768, 48, 1, 64), (1024, 256, 2, 512)]
    answers = [number(extra_share(*case)) for case in cases]

    def matches(formula: Callable[[float, float, float, float], float]) -> bool:
        return all(abs(a - formula(*case)) <= 1e-6 * abs(a) for a, case in zip(answers, cases, strict=True))

    wrong_shares: list[tuple[Callable[[float, float, float, float], float], str]] = [
        (lambda d, m, n, t: 100 * n * 2 * d * m / (12 * d * d + 2 * t * d), "those are per cent: return the share, 0.02 for 2 %"),
        (lambda d, m, n, t: n * 2 * d * m // (12 * d * d + 2 * t * d), "0 for all of them: // rounds down, divide with /"),
        (lambda d, m, n, t: n * 2 * d * m, "those are the adapters' multiply-adds: divide by the block's own"),
        (lambda d, m, n, t: n * d * m / (12 * d * d + 2 * t * d), "an adapter has two projections, d·m multiply-adds each"),
        (lambda d, m, n, t: 2 * d * m / (12 * d * d + 2 * t * d), "that is one adapter: the block has `adapters` of them"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d), "attention's own products are missing: scores and mixing, length·d each"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d + t * d), "attention multiplies twice, for the scores and for the mixing: 2·length·d"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d + 2 * t * t * d), "2·length²·d is for the whole text: count for one token, like the rest"),
        (lambda d, m, n, t: n * 2 * d * m / (9 * d * d + 2 * t * d), "the FFN has two projections of d × 4d: 8·d², and attention four of d × d"),
        (lambda d, m, n, t: n * 2 * d * m / (8 * d * d + 2 * t * d), "either the four projections of attention (4·d²) or a part of the FFN's 8·d² is missing"),
        (lambda d, m, n, t: n * 2 * d * m / (4 * d * d + 2 * t * d), "the FFN is missing: two projections of d × 4d, 8·d²"),
        (lambda d, m, n, t: n * 2 * d * m / (11 * d * d + 2 * t * d), "attention has four projections: query, key, value and output"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d + 2 * t * d + n * 2 * d * m), "divide by the bare block's multiply-adds, without the adapters: the overhead is over the bare model"),
        (lambda d, m, n, t: n * (2 * d * m + m + d) / (12 * d * d + 2 * t * d), "biases are added, not multiplied: count the weights only"),
        (lambda d, m, n, t: 1 + n * 2 * d * m / (12 * d * d + 2 * t * d), "that is the ratio: return what comes on top, without the 1"),
        (lambda d, m, n, t: (12 * d * d + 2 * t * d) / (n * 2 * d * m), "upside down: the adapters' multiply-adds by the block's"),
        (lambda d, m, n, t: n * 2 * d * m * t / (12 * d * d + 2 * t * d), "the adapters are counted for the whole text, the block for one token"),
    ]  # fmt: skip
    for wrong, message in wrong_shares:
        require(not matches(wrong), message)
    d, m, n, length = cases[0]
    require(
        matches(lambda d, m, n, t: n * 2 * d * m / (12 * d * d + 2 * t * d)),
        f"for d = {d}, m = {m}, {n} adapters and length {length} it gives {answers[0]:.4g}: count the multiply-adds of every matrix product for one token",
    )


@check("9.3", "correct: one projection that does what both did.")
def check_merge(merge: Any) -> None:
    """``merge(projection, adapter)`` must give the weight and bias of one linear layer equal to adapter(projection(x))."""
    for inputs in (12, 20):  # square first: there a product in the wrong order has the right shape
        projection = nn.Linear(inputs, 12)
        adapter = Adapter(12, 5, nn.Identity(), init="bert", init_std=0.5, scaling=3.0)
        for bias in (projection.bias, adapter.down_project.bias, adapter.up_project.bias):
            nn.init.normal_(bias)
        before = [p.clone() for p in (*projection.parameters(), *adapter.parameters())]
        answer = called(
            merge,
            projection,
            adapter,
            hint="the adapter's product is up_project.weight @ down_project.weight, to the left of W",
        )
        require(answer is not None, "the function returns None: is the return missing?")
        require(
            isinstance(answer, (tuple, list)) and len(answer) == 2 and all(isinstance(t, torch.Tensor) for t in answer),
            "it must return two tensors, the weight and the bias",
        )
        after = (*projection.parameters(), *adapter.parameters())
        require(
            all(torch.equal(p, q) for p, q in zip(after, before, strict=True)),
            "the projection or the adapter was changed in place (+= does that): another task needs them, make new tensors",
        )
        _check_merged(projection, adapter, *(tensor.detach().to(torch.float32) for tensor in answer))


@torch.no_grad()
def _check_merged(projection: nn.Linear, adapter: Adapter, weight: torch.Tensor, bias: torch.Tensor) -> None:
    w, b, s, eye = projection.weight, projection.bias, adapter.scaling, torch.eye(12)
    down, up = adapter.down_project, adapter.up_project
    product = up.weight @ down.weight
    require(
        weight.shape == w.shape,
        f"the weight has shape {tuple(weight.shape)}, the projection's has {tuple(w.shape)}: the merged layer takes its place"
        + (", so multiply the adapter's matrices with the projection's" if weight.shape == (12, 12) else ""),
    )
    wrong_weights = [
        (w, "the weight is the projection's: nothing of the adapter is in it"),
        (eye + s * product, "the projection is missing: the adapter's matrix has to be multiplied with its weight"),
        (s * product @ w, "the residual is missing: the adapter returns h plus its update"),
        (w + product @ w, "the adapter's scaling is missing"),
        (s * (w + product @ w), "scaling multiplies the update only, not the residual"),
    ]  # fmt: skip
    if w.shape[1] == 12:
        wrong_weights += [
            (w + s * product, "the adapter's matrix is added to the projection's, but it works on what the projection puts out: multiply it with W"),
            (w + s * w @ product, "the order is the wrong way round: the projection comes first, so its weight stands on the right"),
            ((w + s * product @ w).T, "the weight is transposed: nn.Linear computes x @ weight.T"),
        ]  # fmt: skip
    for wrong, message in wrong_weights:
        require(not close(weight, wrong), message)
    require(
        close(weight, w + s * product @ w),
        "the weight is not (I + s·U·D)·W, with U and D the weights of up_project and down_project",
    )
    require(bias.shape == b.shape, f"the bias has shape {tuple(bias.shape)}, it must have {tuple(b.shape)}")
    right = b + s * (product @ b + up.weight @ down.bias + up.bias)
    wrong_biases = [
        (b, "the bias is the projection's: the adapter changes that too, and has biases of its own"),
        (b + s * product @ b, "the adapter's own two biases are missing from the bias"),
        (b + s * (up.weight @ down.bias + up.bias), "the projection's bias goes through the adapter as well: U·D·b is missing"),
        (b + s * (product @ b + up.bias), "down_project's bias is missing: it reaches the output through up_project"),
        (b + s * (product @ b + up.weight @ down.bias), "up_project's bias is missing"),
        (b + s * (product @ b + up.weight @ down.bias) + up.bias, "scaling multiplies the whole update, up_project's bias too"),
        (b + product @ b + up.weight @ down.bias + up.bias, "the adapter's scaling is missing from the bias"),
        (s * (product @ b + up.weight @ down.bias + up.bias), "the residual is missing from the bias: the projection's own bias passes by the adapter too"),
    ]  # fmt: skip
    for wrong, message in wrong_biases:
        require(not close(bias, wrong), message)
    require(
        close(bias, right), "the weight is right, the bias is not: it is what comes out for the input 0, adapter(b)"
    )


@check("9.4", "correct: the lower layers once, the upper ones for each task.")
def check_sharing(serve: Any) -> None:
    """``serve(x, blocks, adapters, n)`` must compute the lowest n blocks once, bare, and the others for each task."""
    depth = 5
    for n in (2, 0, 5, 3):
        calls: list[int] = []
        tasks = {f"task {t}": [_adapter(t, i) for i in range(depth)] for t in (1, 2, 3)}
        x = torch.randn(2, 3)
        given, blocks = x.clone(), [_counted(i, calls) for i in range(depth)]
        answer = serve(x, blocks, tasks, n)
        require(answer is not None, "the function returns None: is the return missing?")
        require(
            torch.equal(x, given),
            "the input was changed in place: the other tasks start from it too, make a new tensor",
        )
        require(
            [len(blocks), *map(len, tasks.values())] == [depth] * 4,
            "the lists of blocks or adapters are shorter afterwards (pop does that): the next batch needs them, use slices",
        )
        require(
            isinstance(answer, dict)
            and sorted(answer) == sorted(tasks)
            and all(isinstance(h, torch.Tensor) for h in answer.values()),
            "it must return a dictionary with one tensor for each task, {task: hidden states, ...}",
        )
        _check_shared(answer, calls, x, n, depth)


def _block(h: torch.Tensor, i: int) -> torch.Tensor:
    return 0.7 * h + torch.cos(2 * h + i)


def _adapt(h: torch.Tensor, task: int, i: int) -> torch.Tensor:
    return h + 0.3 * torch.sin(h * (task + 1) + i)


def _counted(i: int, calls: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda h: calls.append(i) or _block(h, i)  # type: ignore[func-returns-value]


def _adapter(task: int, i: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda h: _adapt(h, task, i)


_Choice = Callable[[int], bool]  # of blocks


def _check_shared(answer: dict[str, torch.Tensor], calls: list[int], x: torch.Tensor, n: int, depth: int) -> None:
    def run(task: int, adapted: _Choice, skip: _Choice = lambda i: False, before: bool = False, offset: int = 0) -> Any:
        h = x
        for i in range(depth):
            if before and adapted(i):
                h = _adapt(h, task, i)
            if not skip(i):
                h = _block(h, i)
            if not before and adapted(i):
                h = _adapt(h, task, i - offset)
        return h

    def given(make: Callable[[int], torch.Tensor]) -> bool:
        return all(close(answer[f"task {t}"], make(t)) for t in (1, 2, 3))

    if not given(lambda t: run(t, lambda i: i >= n)):
        shifted = f" (n = {n} means that the blocks 0 to {n - 1} are bare)"
        wrong_results: list[tuple[Callable[[int], torch.Tensor], str]] = [
            (lambda t: run(t, lambda i: True), "no adapter is left out: those of the lowest n blocks must not work"),
            (lambda t: run(t, lambda i: False), "no adapter works at all: those of the blocks from n on must"),
            (lambda t: run(t, lambda i: i < depth - n), "the uppermost n blocks are bare: AdapterDrop leaves out the lowest"),
            (lambda t: run(t, lambda i: i < n), "the adapters of the lowest n blocks work and the others do not: it is the other way round"),
            (lambda t: run(t, lambda i: i > n), "one adapter too many is left out" + shifted),
            (lambda t: run(t, lambda i: i >= n - 1), "one adapter too few is left out" + shifted),
            (lambda t: run(t, lambda i: i >= n, skip=lambda i: i < n), "the lowest n blocks themselves are left out: only their adapters are, the blocks still work"),
            (lambda t: run(t, lambda i: i >= n, before=True), "the adapters come before their blocks: adapter i takes what block i puts out"),
            (lambda t: run(t, lambda i: i >= n, offset=n), f"block {n} gets adapter 0: block i goes with adapter i, slice the list of adapters as well"),
            (lambda t: run(t, lambda i: i >= n, skip=lambda i: i == n), f"block {n} is left out: the upper part begins with it"),
        ]  # fmt: skip
        for wrong, message in wrong_results:
            require(not given(wrong), message)
        require(
            not close(answer["task 1"], run(1, lambda i: i >= n)),
            "the first task is right and a later one is not: each task starts again from what the lower blocks gave, "
            "not from where the task before it ended",
        )
        require(False, "the hidden states are not those of bare lower and adapted upper blocks")
    for i in range(n):
        require(
            calls.count(i) == 1,
            f"the results are right, but block {i} ran {calls.count(i)} times: below n all tasks share the same hidden "
            "states, so compute them once, before the loop over the tasks",
        )
    for i in range(n, depth):
        require(calls.count(i) == 3, f"block {i} ran {calls.count(i)} times for 3 tasks: once for each is enough")
