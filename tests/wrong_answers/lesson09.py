import random
import time
from fractions import Fraction
from functools import partial, reduce
from statistics import mean, median, median_high, median_low

import numpy
import torch
from torch import nn

# --- 9.1 ------------------------------------------------------------------------------------------------------------


def timing(summary=median, warm=True, unit=1.0):
    def fair_medians(contenders, rounds, warmup, clock):
        times = {name: [] for name in contenders}
        if warm:
            for call in contenders.values():
                for _ in range(warmup):
                    call()
        for _ in range(rounds):
            for name, call in contenders.items():
                start = clock()
                call()
                times[name].append(unit * (clock() - start))
        return {name: summary(t) for name, t in times.items()}

    return fair_medians


def one_after_the_other(contenders, rounds, warmup, clock):
    result = {}
    for name, call in contenders.items():
        for _ in range(warmup):
            call()
        times = []
        for _ in range(rounds):
            start = clock()
            call()
            times.append(clock() - start)
        result[name] = median(times)
    return result


def forgets_to_call(contenders, rounds, warmup, clock):
    times = {name: [] for name in contenders}
    for _ in range(warmup + rounds):
        for name, call in contenders.items():
            start = clock()
            call
            times[name].append(clock() - start)
    return {name: median(t) for name, t in times.items()}


def call_outside(contenders, rounds, warmup, clock):
    times = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(warmup):
            call()
    for _ in range(rounds):
        for name, call in contenders.items():
            call()
            start = clock()
            times[name].append(clock() - start)
    return {name: median(t) for name, t in times.items()}


def own_clock(contenders, rounds, warmup, clock):
    return timing()(contenders, rounds, warmup, time.perf_counter)


def warmup_kept(contenders, rounds, warmup, clock):
    return timing(warm=False)(contenders, rounds + warmup, warmup, clock)


def mean_with_warmup(contenders, rounds, warmup, clock):
    return timing(mean, warm=False)(contenders, rounds + warmup, warmup, clock)


def warms_only_the_first(contenders, rounds, warmup, clock):
    first = next(iter(contenders.values()))
    for _ in range(warmup):
        first()
    return timing(warm=False)(contenders, rounds, warmup, clock)


def warms_once(contenders, rounds, warmup, clock):
    for call in contenders.values():
        call()
    return timing(warm=False)(contenders, rounds, warmup, clock)


def start_before_the_round(contenders, rounds, warmup, clock):
    times = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(warmup):
            call()
    for _ in range(rounds):
        start = clock()
        for name, call in contenders.items():
            call()
            times[name].append(clock() - start)
    return {name: median(t) for name, t in times.items()}


def clock_started_once(contenders, rounds, warmup, clock):
    times = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(warmup):
            call()
    start = clock()
    for _ in range(rounds):
        for name, call in contenders.items():
            call()
            times[name].append(clock() - start)
    return {name: median(t) for name, t in times.items()}


def start_before_the_loop_of_names(contenders, rounds, warmup, clock):
    """The reading after a call, too, is taken for the whole round."""
    times = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(warmup):
            call()
    for _ in range(rounds):
        start = clock()
        for call in contenders.values():
            clock()
            call()
        for name in contenders:
            times[name].append((clock() - start) / len(contenders))
    return {name: median(t) for name, t in times.items()}


def readings_shared(contenders, rounds, warmup, clock):
    """The end of a call is the start of the next."""
    times = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(warmup):
            call()
    last = clock()
    for _ in range(rounds):
        for name, call in contenders.items():
            call()
            now = clock()
            times[name].append(now - last)
            last = now
    return {name: median(t) for name, t in times.items()}


def all_times(contenders, rounds, warmup, clock):
    return timing(list)(contenders, rounds, warmup, clock)


def no_return(contenders, rounds, warmup, clock):
    timing()(contenders, rounds, warmup, clock)


def a_list(contenders, rounds, warmup, clock):
    return list(timing()(contenders, rounds, warmup, clock).values())


def shuffled(contenders, rounds, warmup, clock):
    times = {name: [] for name in contenders}
    for turn in range(-warmup, rounds):
        for name in random.sample(list(contenders), len(contenders)):
            start = clock()
            contenders[name]()
            end = clock()
            if turn >= 0:
                times[name].append(end - start)
    return {name: torch.tensor(t, dtype=torch.float64).quantile(0.5).item() for name, t in times.items()}


def by_hand(contenders, rounds, warmup, clock):
    times = {}
    for _ in range(warmup):
        for name in contenders:
            contenders[name]()
    for _ in range(rounds):
        for name in reversed(contenders):
            before = clock()
            contenders[name]()
            times.setdefault(name, []).append(clock() - before)
    return {name: (sorted(t)[(len(t) - 1) // 2] + sorted(t)[len(t) // 2]) / 2 for name, t in times.items()}


# --- 9.2 ------------------------------------------------------------------------------------------------------------


def block(d, t):
    return 12 * d * d + 2 * t * d


# --- 9.3 ------------------------------------------------------------------------------------------------------------


def parts(projection, adapter):
    """W, b, D, its bias, U, its bias, s."""
    down, up = adapter.down_project, adapter.up_project
    return projection.weight, projection.bias, down.weight, down.bias, up.weight, up.bias, adapter.scaling


def merging(weight, bias=lambda W, b, D, bd, U, bu, s: b + s * (U @ (D @ b + bd) + bu)):
    return lambda projection, adapter: (weight(*parts(projection, adapter)), bias(*parts(projection, adapter)))


def right_weight(W, b, D, bd, U, bu, s):
    return W + s * U @ D @ W


@torch.no_grad()
def merges_in_place(projection, adapter):
    W, b, D, bd, U, bu, s = parts(projection, adapter)
    bias = b + s * (U @ (D @ b + bd) + bu)
    W += s * U @ D @ W
    return W, bias


def returns_a_layer(projection, adapter):
    layer = nn.Linear(projection.in_features, projection.out_features)
    layer.weight.data, layer.bias.data = merging(right_weight)(projection, adapter)
    return layer


@torch.no_grad()
def by_probing(projection, adapter):
    """What comes out for the input 0, and for each unit vector."""
    bias = adapter(projection(torch.zeros(projection.in_features)))
    return (adapter(projection(torch.eye(projection.in_features))) - bias).T, bias


@torch.no_grad()
def in_double_precision(projection, adapter):
    W, b, D, bd, U, bu, s = (p.double() if isinstance(p, torch.Tensor) else p for p in parts(projection, adapter))
    M = torch.eye(len(b), dtype=torch.float64) + s * torch.einsum("om,mi->oi", U, D)
    return M @ W, M @ b + s * (U @ bd + bu)


@torch.no_grad()
def with_identity(projection, adapter):
    M = torch.eye(adapter.up_project.out_features) + adapter.scaling * (
        adapter.up_project.weight @ adapter.down_project.weight
    )
    return M @ projection.weight, adapter(projection.bias)


# --- 9.4 ------------------------------------------------------------------------------------------------------------


def serving(adapted=lambda i, n, depth: i >= n, skipped=lambda i, n, depth: False, before=False):
    def serve(x, blocks, adapters, n):
        results = {}
        for task, own in adapters.items():
            h = x
            for i, block in enumerate(blocks):
                works = adapted(i, n, len(blocks))
                if works and before:
                    h = own[i](h)
                if not skipped(i, n, len(blocks)):
                    h = block(h)
                if works and not before:
                    h = own[i](h)
            results[task] = h
        return results

    return serve


def no_fresh_start(x, blocks, adapters, n):
    h, results = x, {}
    for block in blocks[:n]:
        h = block(h)
    for task, own in adapters.items():
        for block, adapter in zip(blocks[n:], own[n:]):
            h = adapter(block(h))
        results[task] = h
    return results


def only_the_last_task(x, blocks, adapters, n):
    return right_serve(x, blocks, adapters, n)[list(adapters)[-1]]


def in_place(x, blocks, adapters, n):
    for block in blocks[:n]:
        x.copy_(block(x))
    return right_serve(x, [lambda h: h] * n + blocks[n:], adapters, n)


def forgets_to_return(x, blocks, adapters, n):
    right_serve(x, blocks, adapters, n)


def adapters_from_the_bottom(x, blocks, adapters, n):
    """own[0] behind block n: the slice of the adapters is forgotten."""
    shared, results = x, {}
    for block in blocks[:n]:
        shared = block(shared)
    for task, own in adapters.items():
        h = shared
        for block, adapter in zip(blocks[n:], own):
            h = adapter(block(h))
        results[task] = h
    return results


def twice_too_often(x, blocks, adapters, n):
    results = right_serve(x, blocks, adapters, n)
    return {task: right_serve(x, blocks, {task: own}, n)[task] for task, own in adapters.items()} | results


def right_serve(x, blocks, adapters, n):
    for block in blocks[:n]:
        x = block(x)
    results = {}
    for task, own in adapters.items():
        h = x
        for block, adapter in zip(blocks[n:], own[n:]):
            h = adapter(block(h))
        results[task] = h
    return results


def by_folding(x, blocks, adapters, n):
    shared = reduce(lambda h, block: block(h), blocks[:n], x)
    return {
        task: reduce(lambda h, pair: pair[1](pair[0](h)), list(zip(blocks, own))[n:], shared)
        for task, own in adapters.items()
    }


def with_memory(x, blocks, adapters, n):
    """The loop over the tasks comes first; what the lowest blocks give is remembered."""
    known, results = {}, {}
    for task, own in adapters.items():
        h = x
        for i, (block, adapter) in enumerate(zip(blocks, own)):
            h = adapter(block(h)) if i >= n else known[i] if i in known else known.setdefault(i, block(h))
        results[task] = h
    return results


def pops(x, blocks, adapters, n):
    for _ in range(n):
        x = blocks.pop(0)(x)
    return {
        task: reduce(lambda h, pair: pair[1](pair[0](h)), zip(blocks, own[n:]), x) for task, own in adapters.items()
    }


def block_by_block(x, blocks, adapters, n):
    states = dict.fromkeys(adapters, x)
    for i, block in enumerate(blocks):
        if i < n:
            states = dict.fromkeys(adapters, block(next(iter(states.values()))))
        else:
            states = {task: adapters[task][i](block(h)) for task, h in states.items()}
    return states


def the_first_adapters(x, blocks, adapters, n):
    return right_serve(x, blocks, dict.fromkeys(adapters, adapters["task 1"]), n)


WRONG = {
    "check_timing": [
        (timing(lambda t: median(t[1:])), "the first round is left out"),
        (timing(lambda t: round(median(t), 1)), "are they medians of all rounds, not rounded"),
        (timing(median_low), "the lower of the two middle times"),
        (timing(median_high), "the upper of the two middle times"),
        (timing(warm=False), "there is no warm-up"),
        (timing(mean), "that is the mean"),
        (timing(min), "fastest call"),
        (timing(sum), "sum of all calls"),
        (timing(lambda t: t[-1]), "only the last round"),
        (timing(lambda t: t[len(t) // 2]), "middle of the sorted"),
        (timing(unit=1000.0), "milliseconds"),
        (one_after_the_other, "one after the other"),
        (forgets_to_call, "no contender is ever called"),
        (call_outside, "between the two readings"),
        (own_clock, "clock that was given is never read"),
        (warmup_kept, "the warm-up is among the times"),
        (mean_with_warmup, "the warm-up is among the times, and it is a mean"),
        (warms_only_the_first, "8, 6, 6 times"),
        (warms_once, "2 of warm-up 8"),
        (start_before_the_round, "the clock is read 24 times for 18 calls"),
        (clock_started_once, "the clock is read 19 times for 18 calls"),
        (start_before_the_loop_of_names, "does the clock time nothing else?"),
        (all_times, "it returns all times"),
        (no_return, "return missing"),
        (a_list, "must return a dict"),
    ],
    "check_share": [
        (lambda d, m, n, t: n * d * m / block(d, t), "two projections, d·m"),
        (lambda d, m, n, t: 2 * d * m / block(d, t), "that is one adapter"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d), "scores and mixing"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d + t * d), "attention multiplies twice"),
        (lambda d, m, n, t: n * 2 * d * m / (12 * d * d + 2 * t * t * d), "for the whole text"),
        (lambda d, m, n, t: n * 2 * d * m / (4 * d * d + 2 * t * d), "the FFN is missing"),
        (lambda d, m, n, t: n * 2 * d * m / (8 * d * d + 2 * t * d), "the four projections of attention"),
        (lambda d, m, n, t: n * 2 * d * m / (9 * d * d + 2 * t * d), "two projections of d × 4d"),
        (lambda d, m, n, t: n * 2 * d * m / (block(d, t) + n * 2 * d * m), "without the adapters"),
        (lambda d, m, n, t: n * (2 * d * m + m + d) / block(d, t), "biases are added"),
        (lambda d, m, n, t: 100 * n * 2 * d * m / block(d, t), "per cent"),
        (lambda d, m, n, t: (block(d, t) + n * 2 * d * m) / block(d, t), "without the 1"),
        (lambda d, m, n, t: n * 2 * d * m, "divide by the block's own"),
        (lambda d, m, n, t: block(d, t) / (n * 2 * d * m), "upside down"),
        (lambda d, m, n, t: n * 2 * d * m // block(d, t), "rounds down"),
        (lambda d, m, n, t: n * 2 * d * m / (16 * d * d + 2 * t * d), "it gives", False),
        (lambda d, m, n, t: None, "return missing"),
    ],
    "check_merge": [
        (merging(lambda W, *_: W), "nothing of the adapter"),
        (merging(lambda W, b, D, bd, U, bu, s: s * U @ D @ W), "the residual is missing"),
        (merging(lambda W, b, D, bd, U, bu, s: W + U @ D @ W), "scaling is missing"),
        (merging(lambda W, b, D, bd, U, bu, s: s * (W + U @ D @ W)), "the update only"),
        (merging(lambda W, b, D, bd, U, bu, s: W + s * U @ D), "multiply it with W"),
        (merging(lambda W, b, D, bd, U, bu, s: W + s * W @ U @ D), "wrong way round"),
        (merging(lambda W, b, D, bd, U, bu, s: (W + s * U @ D @ W).T), "transposed"),
        (merging(lambda W, b, D, bd, U, bu, s: torch.eye(len(b)) + s * U @ D), "the projection is missing"),
        (merging(lambda W, b, D, bd, U, bu, s: W + s * D @ U @ W), "up_project.weight @ down_project.weight"),
        (merging(right_weight, lambda W, b, *_: b), "the bias is the projection's"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: b + s * U @ D @ b), "own two biases"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: b + s * (U @ bd + bu)), "U·D·b is missing"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: b + s * (U @ D @ b + bu)), "down_project's bias"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: b + s * U @ (D @ b + bd)), "up_project's bias is missing"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: b + s * U @ (D @ b + bd) + bu), "up_project's bias too"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: b + U @ (D @ b + bd) + bu), "missing from the bias"),
        (merging(right_weight, lambda W, b, D, bd, U, bu, s: s * (U @ (D @ b + bd) + bu)), "residual is missing from"),
        (merges_in_place, "changed in place"),
        (returns_a_layer, "two tensors"),
        (lambda projection, adapter: None, "return missing"),
    ],
    "check_sharing": [
        (the_first_adapters, "with its own adapters"),
        (serving(lambda i, n, depth: True), "no adapter is left out"),
        (serving(lambda i, n, depth: False), "no adapter works at all"),
        (serving(lambda i, n, depth: i < depth - n), "uppermost n blocks are bare"),
        (serving(lambda i, n, depth: i < n), "other way round"),
        (serving(lambda i, n, depth: i > n), "one adapter too many"),
        (serving(lambda i, n, depth: i >= n - 1), "one adapter too few"),
        (serving(skipped=lambda i, n, depth: i < n), "the blocks still work"),
        (serving(before=True), "before their blocks"),
        (serving(skipped=lambda i, n, depth: i == n), "block 2 is left out"),
        (serving(), "block 0 ran 3 times"),
        (no_fresh_start, "starts again from"),
        (only_the_last_task, "must return a dict"),
        (in_place, "changed in place"),
        (forgets_to_return, "return missing"),
        (adapters_from_the_bottom, "slice the list of adapters as well"),
        (twice_too_often, "block 0 ran 4 times"),
        (pops, "was changed in place"),
    ],
}
RIGHT = {
    "check_timing": [timing(), shuffled, by_hand, timing(numpy.median), readings_shared, partial(timing())],
    "check_share": [
        lambda d, m, n, t: n * 2 * d * m / (12 * d**2 + 2 * t * d),
        lambda model_dim, bottleneck_dim, adapters, length: (
            adapters * bottleneck_dim / (6 * model_dim + length)
        ),  # cancelled
        lambda d, m, n, t: Fraction(2 * n * d * m, 12 * d * d + 2 * t * d),
        lambda d, m, n, t: numpy.float64(n * (d * m + m * d)) / sum([d * d] * 4 + [d * 4 * d] * 2 + [t * d] * 2),
        lambda d, m, n, t: torch.tensor(2.0 * n * d * m, dtype=torch.float64) / block(d, t),
    ],
    "check_merge": [merging(right_weight), with_identity, by_probing, in_double_precision],
    "check_sharing": [right_serve, block_by_block, by_folding, with_memory],
}
