"""What a method costs beside full fine-tuning: a training step, the largest batch that fits a GPU, N tasks on disk."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import torch

from ..adapter import AdapterConfig, check_choice
from ..methods import prepare
from ..transformer import Classifier, SmallTransformer, SmallTransformerConfig
from .memory import Footprint, MemoryLedger, footprint
from .outlines import outline

# Name and number of blocks. The keys are those of the outlines, and two for a SmallTransformer.
ARCHITECTURES = {
    "ours-3": ("ours (3 layers)", 3),
    "ours-6": ("ours (6 layers)", 6),
    "minilm": ("MiniLM", 6),
    "bert-base": ("BERT-base", 12),
    "bert-large": ("BERT-large", 24),
    "gpt2-xl": ("GPT-2 XL", 48),
    "llama-3-8b": ("Llama-3-8B", 32),
    "llama-3-70b": ("Llama-3-70B", 80),
}
GPUS = {8: "8 GB", 16: "16 GB", 24: "24 GB", 48: "48 GB", 80: "80 GB", 640: "8 × 80 GB"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OPTIMIZER_NAMES = {"adamw": "AdamW", "momentum": "SGD with momentum", "sgd": "SGD"}


@dataclass(frozen=True)
class Costs:
    """A method beside full fine-tuning and training the head only, all in the same setting.

    Attributes:
        setting: architecture, batch, length and what else is the same for all three, in words.
        method: the one that is looked at.
        footprints: by method: full fine-tuning, the method, the head only; two if the method is one of these.
        labels: the same methods in words.
        batch_size, tasks: texts in a step, tasks to store.
    """

    setting: str
    method: str
    footprints: dict[str, Footprint]
    labels: dict[str, str]
    batch_size: int
    tasks: int

    @property
    def ledgers(self) -> dict[str, MemoryLedger]:
        """Of one training step, by method."""
        return {method: footprint.ledger(self.batch_size) for method, footprint in self.footprints.items()}

    @property
    def largest_batches(self) -> dict[str, list[int]]:
        """For each of ``GPUS``, by method; 0 where not even one text fits."""
        return {m: [f.largest_batch(gpu * 10**9) for gpu in GPUS] for m, f in self.footprints.items()}

    @property
    def copies(self) -> int:
        """Bytes on disk of a whole model with its head for each task."""
        return self.tasks * self.footprints["full"].gradients  # a gradient is as large as what it belongs to

    @property
    def base(self) -> int:
        """Bytes on disk of the base model, without a head."""
        return self.footprints["full"].gradients - self.footprints["head"].gradients

    @property
    def parts(self) -> int:
        """Bytes on disk of what the method trains for all tasks, a head for each included."""
        return self.tasks * self.footprints[self.method].gradients


def compare_costs(
    architecture: str = "llama-3-8b",
    method: str = "adapter",
    placement: str = "houlsby",
    bottleneck_dim: int = 64,
    lora_rank: int = 8,
    batch_size: int = 4,
    length: int = 512,
    dtype: str = "bf16",
    optimizer: str = "adamw",
    checkpointing: bool = False,
    tasks: int = 9,
) -> Costs:
    """What ``method`` costs beside full fine-tuning and training the head only, predicted as for a GPU.

    Args:
        architecture: a key of ``ARCHITECTURES``; a classifier with two labels is made of it.
        method, placement, bottleneck_dim, lora_rank: as for ``prepare`` and ``AdapterConfig``.
        batch_size, length: texts in a step, and tokens in each; what the model does not read is cut off.
        dtype: "fp32" or "bf16", for everything.
        optimizer, checkpointing: as for ``memory_ledger``.
        tasks: how many are stored.

    Raises:
        ValueError: for a setting that is not among these, or less than one text, token or task.
    """
    check_choice("architecture", architecture, tuple(ARCHITECTURES))
    check_choice("dtype", dtype, tuple(DTYPES))
    if tasks < 1:
        raise ValueError(f"tasks must be at least 1, not {tasks}")
    read = min(length, longest_text(architecture))
    # What a method does not use is left out, so that its footprint is found again.
    config = AdapterConfig(bottleneck_dim, placement=placement) if method == "adapter" else None
    rank = lora_rank if method == "lora" else 1
    prepared = {"full": (None, 1), method: (config, rank), "head": (None, 1)}
    settings = {"dtype": DTYPES[dtype], "optimizer": optimizer, "checkpointing": checkpointing}
    footprints = {m: step_footprint(architecture, m, *how, read, **settings) for m, how in prepared.items()}
    labels = {
        "full": "full fine-tuning",
        "head": "head only",
        "layer_norm": "LayerNorms only",
        "bitfit": "BitFit, biases only",
        "adapter": f"adapters, {placement}, m = {bottleneck_dim}",
        "lora": f"LoRA, r = {lora_rank}",
    }
    if footprints[method] == footprints["head"]:
        labels["bitfit"] = "BitFit (no biases here: head only)"
    name, _ = ARCHITECTURES[architecture]
    tokens = f"{batch_size} × {read} tokens" + " (it reads no more)" * (read < length)
    how = [name, tokens, dtype, OPTIMIZER_NAMES[optimizer]] + ["checkpointing"] * checkpointing
    return Costs(", ".join(how), method, footprints, {m: labels[m] for m in footprints}, batch_size, tasks)


def longest_text(architecture: str) -> int:
    """How many tokens a model reads at most, by its key in ``ARCHITECTURES``."""
    config: Any = _prepared(architecture, 2, "full", None, 1).base_model.config
    return config.max_position_embeddings


@lru_cache(maxsize=1024)
def step_footprint(
    architecture: str, method: str, config: AdapterConfig | None, lora_rank: int, length: int, **settings: Any
) -> Footprint:
    """The footprint of a classifier with two labels, by its key in ``ARCHITECTURES``; it stands for one on a GPU.

    Only two blocks and three are looked at: between the first and the last all blocks are alike, so each of them adds
    as much as the third one does. ``settings`` as for ``memory_ledger``, other arguments as for ``prepare``.
    """
    _, blocks = ARCHITECTURES[architecture]
    two, three = (
        astuple(footprint(_prepared(architecture, layers, method, config, lora_rank), length, **settings))
        for layers in (2, 3)
    )
    return Footprint(*(a + (blocks - 2) * (b - a) for a, b in zip(two, three, strict=True)))


@lru_cache(maxsize=256)
def _prepared(architecture: str, layers: int, method: str, config: AdapterConfig | None, lora_rank: int) -> Classifier:
    with torch.device("meta"):  # nothing is allocated, and no random number is drawn
        if architecture.startswith("ours"):
            base = SmallTransformer(SmallTransformerConfig(num_hidden_layers=layers))
            model: Any = Classifier(base, num_labels=2)
        else:
            model = outline(architecture, num_labels=2, layers=layers)
        prepare(model, method, config, lora_rank=lora_rank)
    return model
