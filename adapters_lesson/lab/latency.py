"""The latency explorer: what adapters add to a forward pass, predicted by their multiply-adds and measured here."""

from __future__ import annotations

from collections.abc import Iterable

from ..adapter import PLACEMENTS
from ..costs import (
    ADAPTERS_PER_BLOCK,
    LORA_RANK,
    Latency,
    Overhead,
    extra_multiply_adds,
    measure_overhead,
    multiply_adds,
)
from ..plots import Picture, overhead_by_size
from .frame import MeasuringExplorer, choice, slider

BATCHES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (8, 16, 32, 64, 128, 256)
BOTTLENECK_DIMS = (4, 8, 16, 32, 64, 128, 256)
MODEL_DIM = 384  # MiniLM's


def settings(point: Overhead) -> tuple:
    """With which knobs it was measured."""
    return point.batch, point.length, point.bottleneck_dim, point.placement, point.layers


def draw_latency(
    batch: int, length: int, bottleneck_dim: int, placement: str, layers: int, measured: Iterable[Overhead] = ()
) -> Picture:
    """Where a block's multiply-adds are; the overhead that they predict, and what was measured.

    Points that were measured with other adapters or layers are drawn pale.
    """
    measured, adapters = list(measured), ADAPTERS_PER_BLOCK[placement]
    here = (batch, length, bottleneck_dim, placement, layers)
    current = [point for point in measured if settings(point)[2:] == here[2:]]

    def predicted(method: str, words: int) -> float:
        width, count = (bottleneck_dim, adapters) if method == "adapter" else (LORA_RANK, 2)
        return 100 * extra_multiply_adds(MODEL_DIM, width, count, words)

    sizes = sorted({(batch, length)} | {(point.batch, point.length) for point in current})
    rows = [(p, method, row) for p in current for method, row in (("adapter", p.adapters), ("lora", p.lora))]
    figure = overhead_by_size(
        multiply_adds(MODEL_DIM, bottleneck_dim, adapters, length),
        (batch, length),
        [((b, t), method, predicted(method, t)) for b, t in sizes for method in ("lora", "adapter")],
        [((p.batch, p.length), method, row.overhead, row.overhead_interval) for p, method, row in rows],
        [((p.batch, p.length), p.adapters.overhead) for p in measured if p not in current],
    )
    text = (
        f"{batch} × {length} words, {layers} layers of MiniLM, {placement}, m = {bottleneck_dim}: adapters add "
        f"{predicted('adapter', length):.2f} % to the multiply-adds. "
    )
    point = next((p for p in current if settings(p) == here), None)
    if point is None:
        return Picture(figure, text + "Not measured with these settings yet: press Measure.")
    return Picture(figure, text + _measured(point, predicted("adapter", length)))


def latency_explorer(measured: Iterable[Overhead] = ()) -> MeasuringExplorer:
    """Knobs over ``draw_latency``, and a button that measures.

    Args:
        measured: points to begin with.
    """
    return MeasuringExplorer(
        "What adapters add to a forward pass: predicted, and measured on this machine",
        draw_latency,
        {
            "batch": slider("batch size", 1, BATCHES),
            "length": slider("length in words", 16, LENGTHS),
            "bottleneck_dim": slider("bottleneck_dim m", 16, BOTTLENECK_DIMS),
            "placement": choice("placement", "houlsby", PLACEMENTS),
            "layers": choice("layers of MiniLM", 6, (2, 4, 6)),
        },
        measure=lambda **how: measure_overhead(**how),
        key=settings,
        name=lambda point: f"{point.batch} × {point.length}",
        measured=measured,
    )


def percent(row: Latency) -> str:
    """Overhead with its interval."""
    low, high = row.overhead_interval
    return f"{row.overhead:+.1f} % ({low:+.1f} to {high:+.1f})"


def _measured(point: Overhead, predicted: float) -> str:
    low, high = point.adapters.overhead_interval
    verdict = "and the interval holds the prediction"
    if not low <= predicted <= high:
        verdict = f"{point.adapters.overhead / predicted:.1f} times the prediction"
    lora = f"LoRA of rank {LORA_RANK}, not merged: {percent(point.lora)}"
    return f"Measured: {percent(point.adapters)}, {verdict}; {lora}."
