"""The latency explorer: what adapters add to a forward pass, predicted by their multiply-adds and measured here."""

from collections.abc import Iterable, Mapping
from math import ceil, log2
from typing import Any

from matplotlib.figure import Figure

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs.latency import Latency
from adapters_lesson.costs.serving import LORA_RANK, Overhead, extra_multiply_adds, measure_overhead, multiply_adds
from adapters_lesson.course.figures.picture import Picture
from adapters_lesson.course.figures.style import COLOURS, INK, MARKERS, course_style
from adapters_lesson.placements import PLACEMENTS

from .frame import UNMEASURED, Explorer, choice
from .slider import Slider

Pair = tuple[float, float]  # batch and length, or what is true of LoRA and of adapters
Points = Iterable[Overhead]
_SIDE = {"lora": 0.1, "adapter": -0.1}  # how far the two stand apart, in powers of two
_GREY = "#A6A6A6"


def latency_explorer(measured: Points = ()) -> Explorer:
    """Knobs over ``draw_latency``, and a button that measures; ``measured`` are points to begin with."""
    return Explorer(
        "What adapters add to a forward pass: predicted, and measured on this machine",
        draw_latency,
        {
            "batch": Slider("batch size", 1, [2**k for k in range(7)]),
            "length": Slider("length in words", 16, [2**k for k in range(3, 9)]),
            "bottleneck_dim": Slider("bottleneck_dim m", 16, [2**k for k in range(2, 9)]),
            "placement": choice("placement", "houlsby", PLACEMENTS),
            "layers": choice("layers of MiniLM", 6, (2, 4, 6)),
        },
        measure=lambda **how: measure_overhead(**how),
        measured=measured,
    )


def draw_latency(
    batch: int, length: int, bottleneck_dim: int, placement: str, layers: int, measured: Points = ()
) -> Picture:
    """A block's multiply-adds; the overhead that they predict and what was measured, pale with other adapters."""
    current, pale = {}, []
    for point in measured:
        if (point.bottleneck_dim, point.placement, point.layers) == (bottleneck_dim, placement, layers):
            current[point.batch, point.length] = point
        else:
            pale.append(point)
    config, here = AdapterConfig(bottleneck_dim, placement=placement), (batch, length)
    predicted = {
        size: (100 * extra_multiply_adds(size[1], lora_rank=LORA_RANK), 100 * extra_multiply_adds(size[1], config))
        for size in sorted({here, *current})
    }
    figure = overhead_by_size(multiply_adds(length, config), here, predicted, current.values(), pale)
    _, expected = predicted[here]
    told = UNMEASURED
    if shown := current.get(here):
        (low, high), times = shown.adapters.overhead_interval, shown.adapters.overhead / expected
        verdict = "and the interval holds" if low <= expected <= high else f"{times:.1f} times"
        lora = f"LoRA of rank {LORA_RANK}, not merged: {with_interval(shown.lora)}"
        told = f"Measured: {with_interval(shown.adapters)}, {verdict} the prediction; {lora}."
    return Picture(
        figure,
        f"{batch} × {length} words, {layers} layers of MiniLM, {placement}, m = {bottleneck_dim}: adapters add "
        f"{expected:.2f} % to the multiply-adds. {told}",
    )


def with_interval(row: Latency) -> str:
    """The overhead in per cent."""
    low, high = row.overhead_interval
    return f"{row.overhead:+.1f} % ({low:+.1f} to {high:+.1f})"


@course_style
def overhead_by_size(
    parts: Mapping[str, int], here: Pair, predicted: Mapping[Any, Pair], measured: Points, pale: Points = ()
) -> Figure:
    """A block's multiply-adds, beside overheads in per cent by size: ``predicted``, and measured."""
    figure = Figure(figsize=(12.5, 4.8))
    left = figure.add_axes((0.015, 0.05, 0.305, 0.85), xlim=(0, 1), ylim=(3.4, -0.75))
    left.set_title("Multiply-adds, one word, one block")
    left.set_axis_off()
    share = 100 * parts["adapters"] / (sum(parts.values()) - parts["adapters"])
    for i, (part, count) in enumerate(parts.items()):
        left.barh(i, count / parts["FFN"], 0.42, color=COLOURS["adapter"] if part == "adapters" else _GREY)
        label = f"{part}: {count:,}" + f", {share:.2f} % of the rest" * (part == "adapters")
        left.text(0, i - 0.3, label, fontsize=12.5, va="bottom")
    axes = figure.add_axes((0.4, 0.14, 0.59, 0.69))
    axes.axhline(0, color=INK, lw=1)
    axes.axvspan(_across(*here) - 0.12, _across(*here) + 0.12, color=_GREY, alpha=0.35, lw=0)

    def mark(batch: float, length: float, method: str, ys: list[float], marker: str, label: str, **look: Any) -> None:
        xs = [_across(batch, length) + _SIDE[method]] * len(ys)
        axes.plot(xs, ys, marker=marker, color=COLOURS[method], label=label, **look)

    for p in pale:
        mark(p.batch, p.length, "adapter", [p.adapters.overhead], MARKERS["adapter"], "pale", ms=7, alpha=0.25)
    for size, ys in predicted.items():
        for method, y in zip(_SIDE, ys, strict=True):
            mark(size[0], size[1], method, [y], "_", f"{method} predicted", ms=16, mew=3)
    for p in measured:
        for method, row in (("adapter", p.adapters), ("lora", p.lora)):
            mark(p.batch, p.length, method, [*row.overhead_interval], "_", f"{method} interval", ms=9, mew=2)
            mark(p.batch, p.length, method, [row.overhead], MARKERS[method], f"{method} measured")
    axes.margins(y=0)
    low, high = axes.get_ylim()  # then whole multiples, so that the axis seldom jumps
    axes.set(xlim=(2.5, 14.8), ylim=(-5 * max(1, ceil(-low / 5)), 20 * max(1, ceil(1.05 * high / 20))))
    axes.set_xticks(range(3, 15), [f"{2**k:,}" if k % 2 else "" for k in range(3, 15)])
    axes.set(xlabel="words in the batch (batch × length)", ylabel="% above the bare model")
    axes.set_title("Overhead of a forward pass (bars: 95 % interval; pale: other settings)", pad=32)
    shown = (("adapter", "adapters"), ("lora", f"LoRA, rank {LORA_RANK}, not merged"))
    handles = [axes.plot([], [], MARKERS[method], color=COLOURS[method], label=label)[0] for method, label in shown]
    handles += axes.plot([], [], "_", color=INK, ms=16, mew=3, label="multiply-adds predict")
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=3, fontsize=12)
    return figure


def _across(batch: float, length: float) -> float:
    """Where a size stands: at its words, in powers of two; with as many words, smaller batches come first."""
    return log2(batch * length) + 0.14 * log2(batch)
