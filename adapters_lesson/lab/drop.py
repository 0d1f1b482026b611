"""The AdapterDrop explorer: how far tasks share the lower layers, what that costs in accuracy and saves in work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import mean

import torch

from ..adapter import AdapterConfig
from ..costs import Served, extra_multiply_adds, measure_serving, shared_work
from ..history import load_results
from ..insertion import drop_adapters, insert_adapters
from ..plots import Picture, adapter_drop
from ..slots import slots_of
from ..transformer import SmallTransformer
from .frame import MeasuringExplorer, choice, slider
from .latency import percent

LAYERS, BOTTLENECK_DIM, LENGTH = 6, 16, 64  # the committed runs'; one text of 64 words is served
TRAININGS = ("specialised", "robust", "dropped when serving")
TASKS = (1, 2, 3, 4, 6, 8, 12, 16)


@cache
def accuracies() -> tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]:
    """The committed runs: by training, for n = 0 to 5 the test accuracies of the seeds in per cent."""
    rows = load_results("adapterdrop")["rows"]
    return tuple(
        (label, tuple(tuple(100 * run["test"] for run in rows[label]["runs"] if run["dropped"] == n)
                      for n in range(LAYERS)))
        for label in TRAININGS
    )  # fmt: skip


def work(dropped: int, tasks: int) -> float:
    """Multiply-adds of the tasks served together, in per cent of separate passes with all adapters."""
    return 100 * shared_work(LAYERS, dropped, tasks, extra_multiply_adds(384, BOTTLENECK_DIM, 2, LENGTH))


@cache
def working() -> list[list[list[bool]]]:
    """By n and layer, whether the layer's adapters work when the lowest n layers' do not: read off a real model."""
    model, by_n = SmallTransformer.from_minilm(LAYERS), []
    with torch.random.fork_rng(devices=[]):  # the learner's own random numbers stay as they were
        insert_adapters(model, AdapterConfig(BOTTLENECK_DIM))
    for n in range(LAYERS):
        drop_adapters(model, range(n))
        by_n.append([[slot.current is not None for slot in slots_of(block)] for block in model.blocks])
    return by_n


def draw_drop(dropped: int, training: str, tasks: int, measured: Sequence[Served] = ()) -> Picture:
    """The layers as they are served, beside accuracy and work against the number of layers without adapters.

    Args:
        measured: what was measured; it is shown where it belongs to this number of tasks.
    """
    here = [point for point in measured if point.tasks == tasks]
    times = [(p.dropped, 100 * p.together.ratio, [100 * end for end in p.together.ratio_interval]) for p in here]
    works = [work(n, tasks) for n in range(LAYERS)]
    figure = adapter_drop(working()[dropped], tasks, accuracies(), training, works, times)
    seeds, passes = dict(accuracies())[training][dropped], dropped + tasks * (LAYERS - dropped)
    text = (
        f"n = {dropped}, {training}: test accuracy {mean(seeds):.1f} % ({min(seeds):.1f} to {max(seeds):.1f}, "
        f"{len(seeds)} seeds). For {'one task' if tasks == 1 else f'{tasks} tasks'} on the same text: {passes} of "
        f"{tasks * LAYERS} passes through a layer, {works[dropped]:.0f} % of the multiply-adds. "
    )
    point = next((p for p in here if p.dropped == dropped), None)
    if point is None:
        return Picture(figure, text + "Not measured with these settings yet: press Measure.")
    low, high = (100 * end for end in point.together.ratio_interval)
    text += f"Measured: {100 * point.together.ratio:.0f} % of the time ({low:.0f} to {high:.0f}). For one task all "
    text += f"adapters take {percent(point.full)} over the bare model, with n dropped {percent(point.thin)}."
    return Picture(figure, text)


def drop_explorer() -> MeasuringExplorer:
    """Knobs over ``draw_drop``, and a button that measures."""
    return MeasuringExplorer(
        "AdapterDrop: what the lowest layers without adapters cost and save",
        draw_drop,
        {
            "dropped": slider("bare layers, n", 2, range(LAYERS)),
            "training": choice("training", "robust", TRAININGS),
            "tasks": slider("tasks", 8, TASKS),
        },
        # How the adapters were trained makes no difference to the time.
        measure=lambda dropped, tasks, training, **how: measure_serving(dropped, tasks, BOTTLENECK_DIM, LENGTH, **how),
        key=lambda point: (point.dropped, point.tasks),
        name=lambda point: f"n = {point.dropped}, {point.tasks} × the same text",
    )
