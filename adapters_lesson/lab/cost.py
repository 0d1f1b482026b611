"""The cost explorer: a training step's memory against GPU sizes, the largest batch that fits, and N tasks on disk."""

from __future__ import annotations

from typing import Any

from ..adapter import PLACEMENTS
from ..costs.planning import ARCHITECTURES, DTYPES, GPUS, OPTIMIZER_NAMES, Costs, compare_costs
from ..methods import METHODS
from ..plots import Picture
from ..plots.planning import bytes_in_words, costs_figure
from .frame import Explorer, choice, slider, switch

WIDTHS = tuple(2**k for k in range(9))  # of adapters, and LoRA's ranks
BATCH_SIZES = tuple(2**k for k in range(10))
LENGTHS = tuple(2**k for k in range(4, 14))
TASKS = (1, 2, 3, 4, 6, 9, 16, 32, 64)


def draw_cost(**knobs: Any) -> Picture:
    """``compare_costs`` with these settings, as a figure."""
    costs = compare_costs(**knobs)
    return Picture(costs_figure(costs), _sentences(costs))


def cost_explorer() -> Explorer:
    """What fine-tuning costs, by its knobs."""
    for architecture in ARCHITECTURES:  # transformers and peft load what they need now, not when a knob is turned
        compare_costs(architecture, "lora")
    return Explorer(
        "What a training step needs, where it fits, and what is stored",
        draw_cost,
        {
            "architecture": choice("model", "llama-3-8b", [(name, key) for key, (name, _) in ARCHITECTURES.items()]),
            "method": choice("method", "adapter", METHODS),
            "placement": choice("placement", "houlsby", PLACEMENTS),
            "bottleneck_dim": slider("bottleneck_dim m", 64, WIDTHS),
            "lora_rank": slider("LoRA's rank r", 8, WIDTHS),
            "batch_size": slider("batch size", 4, BATCH_SIZES),
            "length": slider("tokens in a text", 512, LENGTHS),
            "dtype": choice("everything in", "bf16", list(DTYPES)),
            "optimizer": choice("optimiser", "adamw", [(name, key) for key, name in OPTIMIZER_NAMES.items()]),
            "checkpointing": switch("checkpointing"),
            "tasks": slider("tasks on disk", 9, TASKS),
        },
        idle=_idle,
    )


def _idle(values: dict[str, Any]) -> set[str]:
    used = {"adapter": {"placement", "bottleneck_dim"}, "lora": {"lora_rank"}}.get(values["method"], set())
    return {"placement", "bottleneck_dim", "lora_rank"} - used


def _sentences(costs: Costs) -> str:
    peaks = {method: ledger.peak for method, ledger in costs.ledgers.items()}
    needs = [
        f"{bytes_in_words(peak)} with {costs.labels[method]}"
        + (f" ({100 * peak / peaks['full']:.0f} % of that)" if method != "full" else "")
        for method, peak in peaks.items()
    ]
    fits = [
        f"{', '.join(f'{batch:,}' for batch in batches)} with {costs.labels[method]}"
        for method, batches in costs.largest_batches.items()
        if method in ("full", costs.method)
    ]
    disk = f"{costs.tasks} full cop{'ies' if costs.tasks > 1 else 'y'} on disk: {bytes_in_words(costs.copies)}"
    if costs.method != "full":
        disk += f"; one base and what is trained for each task: {bytes_in_words(costs.base + costs.parts)}"
    return (
        f"{costs.setting}: a step needs {'; '.join(needs)}. Largest batch on {', '.join(GPUS.values())} (0: none): "
        f"{'; '.join(fits)}. {disk}."
    )
