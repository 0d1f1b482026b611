"""The cost explorer: a training step's memory against GPU sizes, the largest batch that fits, and N tasks on disk."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs.dry_run import dry_run
from adapters_lesson.costs.memory import OPTIMIZERS, MemoryLedger, standing_bytes
from adapters_lesson.costs.outlines import OUTLINES, outline
from adapters_lesson.course.figures.picture import Picture
from adapters_lesson.course.figures.style import COLOURS, FROZEN, INK, beside, course_style
from adapters_lesson.methods import METHODS, prepare
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

from .frame import Explorer, choice, switch
from .slider import Slider

ARCHITECTURES = ("ours-3", "ours-6", *OUTLINES)  # a SmallTransformer with so many layers, and the outlines
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OPTIMIZER_NAMES = {"adamw": "AdamW", "momentum": "SGD with momentum", "sgd": "SGD"}
GPUS = {8: "8 GB", 16: "16 GB", 24: "24 GB", 48: "48 GB", 80: "80 GB", 640: "8 × 80 GB"}
_LABELS = {
    "full": "full fine-tuning",
    "head": "head only",
    "layer_norm": "LayerNorms only",
    "bitfit": "BitFit, biases only",
    "adapter": "adapters, {placement}, m = {bottleneck_dim}",
    "lora": "LoRA, r = {lora_rank}",
}
_ONLY_OF = {"placement": "adapter", "bottleneck_dim": "adapter", "lora_rank": "lora"}  # knobs of one method
# What stands in a ledger, from the left of a bar to its right. Hatches, so that grey prints tell them apart as well.
_STYLES: Any = {
    "weights": {"facecolor": FROZEN},
    "optimizer_state": {"facecolor": "#E69F00", "hatch": "//"},
    "gradients": {"facecolor": "#CC79A7", "hatch": "\\\\"},
    "activations": {"facecolor": "#56B4E9", "hatch": ".."},
    "temporary": {"facecolor": "white"},
}
_EDGE: Any = {"edgecolor": INK, "linewidth": 0.6}
_LEFT, _RIGHT = 0.64, 0.985  # of the table and the disk: fixed, so that nothing jumps when a setting changes


def cost_explorer(yours: Callable[[int, int, int], float] | None = None) -> Explorer:
    """What fine-tuning costs, by its knobs. With AdamW a mark shows what ``yours(total, trained, itemsize)`` predicts.

    ``yours`` is a formula for the bytes of weights, gradients and Adam's state, as exercise 4.2 asks for.
    """
    for architecture in ARCHITECTURES:  # transformers loads what it needs now, not when a knob is turned
        longest_text(architecture)
    powers = [2**k for k in range(10)]
    return Explorer(
        "What a training step needs, where it fits, and what is stored",
        partial(draw_cost, yours),
        {
            "architecture": choice("model", "llama-3-8b", ARCHITECTURES),
            "method": choice("method", "adapter", METHODS),
            "placement": choice("placement", "houlsby", PLACEMENTS),
            "bottleneck_dim": Slider("bottleneck_dim m", 64, powers[:-1]),
            "lora_rank": Slider("LoRA's rank r", 8, powers[:-1]),
            "batch_size": Slider("batch size", 4, powers),
            "length": Slider("tokens in a text", 512, [2**k for k in range(4, 14)]),
            "dtype": choice("everything in", "bf16", DTYPES),
            "optimizer": choice("optimiser", "adamw", [(name, key) for key, name in OPTIMIZER_NAMES.items()]),
            "checkpointing": switch("checkpointing"),
            "tasks": Slider("tasks on disk", 9, (1, 2, 3, 4, 6, 9, 16, 32, 64)),
        },
        idle=lambda values: [name for name, method in _ONLY_OF.items() if values["method"] != method],
    )


def compare_costs(knobs: SimpleNamespace) -> SimpleNamespace:
    """What the method costs beside full fine-tuning and the head only, by method, with the knobs; as for a GPU.

    One of ``ARCHITECTURES`` is made a classifier with two labels; tokens that it does not read are cut off.
    """
    architecture, method = knobs.architecture, knobs.method
    read = min(knobs.length, longest_text(architecture))
    # What a method does not use is left out, so that its footprint is found again.
    config = AdapterConfig(knobs.bottleneck_dim, placement=knobs.placement) if method == "adapter" else None
    prepared = {"full": (None, 1), method: (config, knobs.lora_rank if method == "lora" else 1), "head": (None, 1)}
    steps = {
        m: step_footprints((architecture, m, *how), read, DTYPES[knobs.dtype], knobs.checkpointing)[knobs.optimizer]
        for m, how in prepared.items()
    }
    on_disk = {m: step.standing[1] for m, step in steps.items()}  # as many bytes as gradients have
    labels = {m: _LABELS[m].format(**vars(knobs)) for m in steps}
    if method == "bitfit" and on_disk[method] == on_disk["head"]:
        labels["bitfit"] = "BitFit (no biases here: head only)"
    tokens = f"{knobs.batch_size} × {read} tokens" + " (it reads no more)" * (read < knobs.length)
    how = [architecture, tokens, knobs.dtype, OPTIMIZER_NAMES[knobs.optimizer]]
    return SimpleNamespace(
        **vars(knobs),
        setting=", ".join(how + ["checkpointing"] * knobs.checkpointing),  # what is the same for all three
        labels=labels,
        ledgers={m: step.ledger(knobs.batch_size) for m, step in steps.items()},
        largest_batches={m: [step.largest_batch(gpu * 10**9) for gpu in GPUS] for m, step in steps.items()},
        copies=knobs.tasks * on_disk["full"],  # bytes of a whole model with its head for each task
        base=on_disk["full"] - on_disk["head"],  # bytes of one base model
        parts=knobs.tasks * on_disk[method],  # bytes of what the method trains for all tasks, each with a head
    )


@lru_cache
def longest_text(architecture: str) -> int:
    """How many tokens one of ``ARCHITECTURES`` reads at most."""
    config: Any = outline(architecture if architecture in OUTLINES else "minilm", layers=1).config
    return config.max_position_embeddings


@dataclass(frozen=True)
class Footprint:
    """The memory of a training step on texts of one length, for batches of any size, in bytes."""

    standing: tuple[int, int, int]  # weights, gradients and optimiser state: the batch has no part in them
    activations: tuple[int, int]  # what the forward pass keeps for each text, and what beside them
    moments: torch.Tensor  # the same of all that lives after each operation; shape (2, operations)

    def ledger(self, batch_size: int) -> MemoryLedger:
        """What a batch of ``batch_size`` texts needs."""
        each, beside = self.activations
        activations = batch_size * each + beside
        highest = int((batch_size * self.moments[0] + self.moments[1]).max())
        return MemoryLedger(*self.standing, activations, highest - max(activations, self.standing[1]))

    def largest_batch(self, capacity: int) -> int:
        """How many texts fit into ``capacity`` bytes; 0 if not even one does."""
        room, grows = capacity - self.standing[0] - self.standing[2], self.moments[0] > 0
        if (self.moments[1, ~grows] > room).any():
            return 0
        each, beside = self.moments[:, grows]
        return max(0, int(((room - beside) // each).min()))


@lru_cache(maxsize=256)
def step_footprints(prepared: Any, length: int, dtype: torch.dtype, checkpointing: bool) -> dict[str, Footprint]:
    """By optimiser, the footprint on a GPU of what ``prepared_outline`` makes of the arguments ``prepared``."""
    model = prepared_outline(*prepared)
    # All that lives grows evenly with the batch, so two runs tell of all.
    (kept, living), (kept_by_3, living_by_3) = (dry_run(model, n, length, dtype, checkpointing) for n in (2, 3))
    each, grows = kept_by_3 - kept, living_by_3 - living
    activations, moments = (each, kept - 2 * each), torch.stack([grows, living - 2 * grows])
    return {name: Footprint(standing_bytes(model, name, dtype), activations, moments) for name in OPTIMIZERS}


@lru_cache(maxsize=8)
def prepared_outline(architecture: str, method: str, config: AdapterConfig | None, lora_rank: int) -> Classifier:
    """A classifier with two labels, ready for a method: nothing is allocated, and no random number is drawn."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BitFit finds no biases in a Llama: the bars say so
        if architecture in OUTLINES:
            model: Any = outline(architecture, num_labels=2)
        else:
            model = Classifier(SmallTransformer(SmallTransformerConfig(num_hidden_layers=int(architecture[-1]))), 2)
        prepare(model, method, config, lora_rank=lora_rank)
    return model


@course_style
def draw_cost(yours: Callable[[int, int, int], float] | None = None, **knobs: Any) -> Picture:
    """``compare_costs`` with these settings: bars of a step with lines at GPU sizes, largest batches, tasks on disk.

    ``yours``: see ``cost_explorer``.
    """
    costs, figure = compare_costs(SimpleNamespace(**knobs)), Figure(figsize=(12.5, 5.2))
    figure.text(0.012, 0.945, costs.setting, fontsize=14)
    needs = _draw_step(figure, costs, yours if costs.optimizer == "adamw" else None)
    figure.text(_LEFT, 0.85, "Largest batch that fits (–: none)", fontsize=14)
    column: Any = {"y": 0.765, "va": "top", "fontsize": 12, "linespacing": 1.9}
    figure.text(_LEFT, s="\n".join(GPUS.values()), **column)
    fits = {}
    for x, (method, batches) in zip((0.795, 0.897, _RIGHT), costs.largest_batches.items(), strict=False):
        fits[method] = f"{', '.join(f'{n:,}' for n in batches)} with {costs.labels[method]}"
        figure.text(x, 0.79, method, ha="right", color=COLOURS[method], weight="bold")
        cells = [f"{n / 1e6:.2f} M" if n >= 1e6 else f"{n:,}" if n else "–" for n in batches]
        figure.text(x, s="\n".join(cells), ha="right", multialignment="right", **column)
    disk = _draw_disk(figure.add_axes((_LEFT, 0.02, _RIGHT - _LEFT, 0.24)), costs)
    return Picture(
        figure,
        f"{costs.setting}: a step needs {'; '.join(needs)}. Largest batch on {', '.join(GPUS.values())} (0: none): "
        f"{'; '.join(fits.values())}. On disk: {'; '.join(disk)}.",
    )


def _draw_step(figure: Figure, costs: SimpleNamespace, yours: Callable[[int, int, int], float] | None) -> list[str]:
    """Lines at the GPU sizes, and a bar for each method with its label above it, and your mark; returns the labels."""
    highest, full = max(ledger.peak for ledger in costs.ledgers.values()), costs.ledgers["full"].peak
    next_gpu = [gpu * 1e9 for gpu in GPUS if highest < gpu * 1e9 < 1.6 * highest][:1]
    right = 1.06 * max([highest, *next_gpu])
    axes = figure.add_axes((0.012, 0.21, 0.575, 0.6), xlim=(0, right), ylim=(2.4, -0.7), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.locator_params("x", prune="lower")
    axes.set_xlabel("memory at the highest point of a step", fontsize=12)
    last = math.inf
    for gpu, name in sorted(GPUS.items(), reverse=True):
        x = gpu * 1e9
        if 0.05 < x / right < 1 and last - x > 0.085 * right:  # names must not run into one another
            axes.text(x, -0.75, name, ha="center", va="bottom", fontsize=12)
            axes.axvline(x, color=INK, ls="--", lw=1.2)
            last = x
    white: Any = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # over the lines at GPU sizes
    labels = []
    for y, (method, ledger) in enumerate(costs.ledgers.items()):
        left, smaller = 0, "gradients" if ledger.activations >= ledger.gradients else "activations"
        for entry, style in _STYLES.items():
            if entry != smaller:  # the two don't add up
                axes.barh(y, width := getattr(ledger, entry), 0.5, left=left, **style, **_EDGE)
                left += width
        share = "" if method == "full" else f", {100 * ledger.peak / full:.0f} % of full"
        labels.append(f"{costs.labels[method]}: {bytes_in_words(ledger.peak)}{share}")
        axes.text(0, y - 0.33, labels[-1], va="bottom", weight="bold", bbox=white)
        if yours is not None:
            size = DTYPES[costs.dtype].itemsize
            standing = yours(ledger.weights // size, ledger.gradients // size, size)
            axes.plot(standing, y, marker="D", color="white", markeredgecolor=INK, markersize=9)
            beside(axes, "yours", (standing, y), (9, 0), fontsize=11, bbox=white)
            labels[-1] += f" (yours, without activations: {bytes_in_words(standing)})"
    handles = [Patch(label=entry.replace("_", " "), **style, **_EDGE) for entry, style in _STYLES.items()]
    legend: Any = {"ncols": 5, "fontsize": 11, "columnspacing": 0.9, "handletextpad": 0.4, "handlelength": 1.7}
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, -0.01), **legend)
    return labels


def _draw_disk(axes: Axes, costs: SimpleNamespace) -> list[str]:
    """A bar for full copies, and one for one base model with what the method trains for each task; returns labels."""
    rows = {f"full copies: {bytes_in_words(costs.copies)}": [(costs.copies, COLOURS["full"])]}
    if costs.method != "full":
        label = f"one base + {costs.tasks} × {costs.method}: {bytes_in_words(costs.base + costs.parts)}"
        rows[label] = [(costs.base, FROZEN), (costs.parts, COLOURS[costs.method])]
    longest = max(sum(size for size, _ in pieces) for pieces in rows.values())
    axes.set(xlim=(0, longest), ylim=(1.5, -0.6))
    axes.set_axis_off()
    axes.set_title(f"On disk: {costs.tasks} task{'s' * (costs.tasks > 1)}")
    for y, (label, pieces) in enumerate(rows.items()):
        axes.text(0, y - 0.05, label, fontsize=12, va="bottom")
        left = 0
        for size, colour in pieces:
            axes.barh(y + 0.22, size, 0.38, left=left, color=colour, **_EDGE)
            left += size
    return list(rows)


def bytes_in_words(size: float) -> str:
    """In three digits or more, and in GB up to 10 TB, to be compared with GPUs."""
    units = {1e13: (1e12, "TB"), 1e9: (1e9, "GB"), 1e6: (1e6, "MB"), 0: (1e3, "kB")}
    unit, name = next(of for least, of in units.items() if size >= least)
    return f"{size / unit:,.{max(0, 2 - math.floor(math.log10(size / unit)))}f} {name}"
