"""The AdapterDrop explorer: how far tasks share the lower blocks, what that costs in accuracy and saves in work."""

from collections.abc import Sequence
from functools import cache
from statistics import mean

import torch

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs.serving import Served, extra_multiply_adds, measure_serving, shared_work
from adapters_lesson.course.figures.picture import Picture
from adapters_lesson.course.figures.style import COLOURS
from adapters_lesson.course.figures.svg import WIDTH, Drawing, Scale, axes
from adapters_lesson.history import load_results
from adapters_lesson.insertion import drop_adapters, insert_adapters
from adapters_lesson.slots import slots_of
from adapters_lesson.transformer import SmallTransformer

from .explore_latency import with_interval
from .frame import UNMEASURED, Explorer, choice
from .slider import Slider

LAYERS, BOTTLENECK_DIM, LENGTH = 6, 16, 64  # the committed runs'; one text of 64 words is served
DASHES = {"specialised": "none", "robust": "7 4", "dropped when serving": "2 3"}  # of each training's line
_LEFT, _RIGHT = 76.0, 400.0  # where the drawn blocks begin and end


def drop_explorer() -> Explorer:
    """Knobs over ``draw_drop``, and a button that measures."""
    return Explorer(
        "AdapterDrop: what the lowest blocks without adapters cost and save",
        draw_drop,
        {
            "dropped": Slider("bare blocks, n", 2, range(LAYERS)),
            "training": choice("training", "robust", DASHES),
            "tasks": Slider("tasks", 8, (1, 2, 3, 4, 6, 8, 12, 16)),
        },
        # How the adapters were trained makes no difference to the time.
        measure=lambda dropped, tasks, training, **how: measure_serving(dropped, tasks, BOTTLENECK_DIM, LENGTH, **how),
    )


def draw_drop(dropped: int, training: str, tasks: int, measured: Sequence[Served] = ()) -> Picture:
    """The blocks as they are served, beside accuracy and work, and what was ``measured`` with as many tasks."""
    here = {point.dropped: point for point in measured if point.tasks == tasks}
    works, seeds = [work(n, tasks) for n in range(LAYERS)], accuracies()[training][dropped]
    passes, right = dropped + tasks * (LAYERS - dropped), f"{mean(seeds):.1f} %"
    on, x = Drawing(WIDTH, 440), Scale(-0.4, LAYERS - 0.6, 500, 890)
    _draw_blocks(on, working()[dropped], tasks)

    def chart(y: Scale, title: str, percents: Sequence[int], xlabel: str = "") -> None:
        on.text(470, y.end - 22, title, 15)
        on.box(x(dropped - 0.07), y.end, x(0.14) - x(0), y.start - y.end, "fill: currentColor; fill-opacity: 0.15")
        axes(on, x, y, {i: f"{i}" for i in range(LAYERS)}, {v: f"{v} %" for v in percents}, xlabel)

    y = Scale(48, 105, 190, 40)
    chart(y, f"Test accuracy: {right} (seeds {min(seeds):.1f} – {max(seeds):.1f})", (50, 60, 70, 80, 90, 100))
    for i, label in sorted(enumerate(DASHES), key=lambda row: row[1] == training):  # the chosen one on top
        colour, row = COLOURS["adapter"] if label == training else "#8A8A8A", 138 + 18 * i
        look, means = f"fill: none; stroke: {colour}; stroke-width: 2.2", [*map(mean, accuracies()[label])]
        for points in ([(x(n), y(of)) for n, of in enumerate(means)], [(512, row), (540, row)]):
            on.line(points, f"{look}; stroke-dasharray: {DASHES[label]}")
        on.text(548, row, label, 12)
        for n, of in enumerate(accuracies()[label]):
            on.line([(x(n), y(min(of))), (x(n), y(max(of)))], look)
            on.circle(x(n), y(means[n]), 4, f"fill: {colour}", f"{label}, n = {n}: {means[n]:.1f} %")
    on.circle(x(dropped), y(mean(seeds)), 9, "wire", f"chosen: n = {dropped}, {right}")
    y = Scale(0, 118, 395, 255)
    title = f"Work: {works[dropped]:.0f} % of {f'{tasks} passes' if tasks > 1 else 'one pass'} with all adapters"
    chart(y, title, (0, 25, 50, 75, 100), "lowest blocks without adapters, n")
    on.line([(x(n), y(value)) for n, value in enumerate(works)], "dashed", "multiply-adds")
    for n, point in here.items():
        share, look = 100 * point.together.ratio, f"stroke: {COLOURS['adapter']}; stroke-width: 2.4"
        on.line([(x(n), y(min(100 * end, 118))) for end in point.together.ratio_interval], look)
        on.circle(x(n), y(share), 5, "bar", f"n = {n}: measured {share:.0f} % of the time")
    on.circle(x(dropped), y(works[dropped]), 9, "wire", f"chosen: n = {dropped}, {works[dropped]:.0f} %")
    on.text(508, 382, "dashed: multiply-adds", 13)
    on.text(680, 382, "● time, measured", 13, look=f"fill: {COLOURS['adapter']}")
    told = UNMEASURED
    if shown := here.get(dropped):
        share, low, high = (100 * of for of in (shown.together.ratio, *shown.together.ratio_interval))
        told = (
            f"Measured: {share:.0f} % of the time ({low:.0f} to {high:.0f}). For one task all adapters take "
            f"{with_interval(shown.full)} over the bare model, with n dropped {with_interval(shown.thin)}."
        )
    return Picture(
        on,
        f"n = {dropped}, {training}: test accuracy {right} ({min(seeds):.1f} to {max(seeds):.1f}, "
        f"{len(seeds)} seeds). For {'one task' if tasks == 1 else f'{tasks} tasks'} on the same text: {passes} of "
        f"{tasks * LAYERS} passes through a block, {works[dropped]:.0f} % of the multiply-adds. {told}",
    )


@cache
def accuracies() -> dict[str, list[list[float]]]:
    """The committed runs: by training, for n = 0 to 5 the test accuracies of the seeds in per cent."""
    runs = {label: load_results("adapterdrop")["rows"][label]["runs"] for label in DASHES}
    return {
        label: [[100 * run["test"] for run in of if run["dropped"] == n] for n in range(LAYERS)]
        for label, of in runs.items()
    }


def work(dropped: int, tasks: int) -> float:
    """Multiply-adds of the tasks served together, in per cent of separate passes with all adapters."""
    return 100 * shared_work(LAYERS, dropped, tasks, extra_multiply_adds(LENGTH, AdapterConfig(BOTTLENECK_DIM)))


@cache
def working() -> list[list[list[bool]]]:
    """By n and block, whether the block's adapters work when the lowest n blocks' do not: read off a real model."""
    model, by_n = SmallTransformer.from_minilm(LAYERS), []
    with torch.random.fork_rng(devices=[]):  # the learner's own random numbers stay as they were
        insert_adapters(model, AdapterConfig(BOTTLENECK_DIM))
    for n in range(LAYERS):
        drop_adapters(model, range(n))
        by_n.append([[slot.current is not None for slot in slots_of(block)] for block in model.blocks])
    return by_n


def _draw_blocks(on: Drawing, blocks: Sequence[Sequence[bool]], tasks: int) -> None:
    """From the bottom up: attention, its adapter, FFN, its adapter; once if none works, otherwise for each task."""
    step, high = (_RIGHT - _LEFT) / tasks, 350 / len(blocks)
    gap = 0.16 * step if tasks > 1 else 0.0
    branches = [(_LEFT + i * step + gap / 2, step - gap) for i in range(tasks)]
    for i, adapters in enumerate(blocks):
        bottom = 390 - i * high
        columns = branches if any(adapters) else [(_LEFT, _RIGHT - _LEFT)]
        times = "once" if len(columns) == 1 else f"{len(columns)} times"
        on.text(_LEFT - 8, bottom - 0.35 * high, f"block {i}\n{times}", 12, "end")
        for x, width in columns:
            on.line([(x + width / 2, bottom + (0.27 if i else 0.2) * high), (x + width / 2, bottom)])
            for works, y, part in zip(adapters, (0.0, 0.37), ("attention", "FFN"), strict=True):
                on.box(x, bottom - (y + 0.24) * high, width, 0.24 * high, "frozen", f"block {i}: {part}, frozen")
                title = f"block {i}: adapter after {part}, {'works' if works else 'left out'}"
                on.box(x, bottom - (y + 0.35) * high, width, 0.1 * high, "bar" if works else "off", title)
    on.box(_LEFT, 400, _RIGHT - _LEFT, 24, "frozen")
    on.text((_LEFT + _RIGHT) / 2, 412, "one text: its embeddings", 13, "middle")
    for x, look, text in ((_LEFT, "bar", "adapter works"), (_LEFT + 130, "off", "left out")):
        on.box(x, 12, 14, 9, look)
        on.text(x + 20, 17, text, 13)
    on.text(_RIGHT, 17, "one task" if tasks == 1 else f"{tasks} tasks", 15, "end")
