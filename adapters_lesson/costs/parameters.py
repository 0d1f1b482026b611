"""Parameters, counted by layer and by what they belong to."""

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from torch import nn

from adapters_lesson.architectures import base_model_of, blocks_of
from adapters_lesson.guards.quantised_base import numbers_in
from adapters_lesson.insertion import head_parameters
from adapters_lesson.slots import AdapterSlot

PARTS = ("adapters", "LayerNorms", "LoRA", "head", "base model")


class Count(NamedTuple):
    """How many parameters there are, and how many of them are trained."""

    total: int
    trainable: int


@dataclass(frozen=True)
class ParameterCount:
    """All parameters of a model, a tied one once; every one is in one part, and in one layer."""

    total: int
    trainable: int  # those that require gradients
    by_part: dict[str, Count]  # of ``PARTS`` those that the model has: LayerNorms are its own and trained copies
    by_layer: dict[str, Count]  # from the embeddings through the blocks to the head

    def __str__(self) -> str:
        """By layer, with equal neighbours in one line; then what is trained, by part; and all."""
        rows = []
        for count, alike in groupby(self.by_layer.items(), lambda item: item[1]):
            first, *others = [place for place, _ in alike]
            rows.append((f"{first} to {others[-1].removeprefix('block ')}, each" if others else first, count))
        rows += [(f"  of it {part}", count) for part, count in self.by_part.items() if count.trainable]
        rows.append(("all", Count(self.total, self.trainable)))
        lines = [f"{label:22}{count.total:>18,}{count.trainable:>18,}" for label, count in rows]
        share = f"{100 * self.trainable / self.total:.3f} %" if self.total else ""
        return "\n".join([f"{'':22}{'parameters':>18}{'trained':>18}", *lines, f"{'':40}{share:>18}"]).rstrip()


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count every parameter of ``model``, which may be an outline. Raises ValueError for an unknown architecture."""
    places = {id(p): f"block {i}" for i, block in enumerate(blocks_of(model)) for p in block.parameters()}
    parts = {id(p): "head" for p in head_parameters(model)}
    for module in base_model_of(model).modules():
        is_norm = type(module).__name__.endswith("Norm")  # RMSNorms too
        if is_norm or isinstance(module, AdapterSlot):
            # An adapter may hang below a LayerNorm: what is deeper is met later and has the last word.
            parts.update({id(p): "LayerNorms" if is_norm else "adapters" for p in module.parameters()})
    parts.update({id(p): "LoRA" for name, p in model.named_parameters() if "lora_" in name})
    by_part: dict[str, Count] = {}
    by_layer: dict[str, Count] = {}
    beyond = "embeddings"
    for p in model.parameters():
        part = parts.get(id(p), "base model")
        beyond = "after the blocks" if id(p) in places else beyond
        place = places.get(id(p)) or ("head" if part == "head" else beyond)
        for counts, key in ((by_part, part), (by_layer, place)):
            total, trainable = counts.get(key, (0, 0))
            counts[key] = Count(total + numbers_in(p), trainable + p.numel() * p.requires_grad)
    by_part = {part: by_part[part] for part in PARTS if part in by_part}
    total, trainable = (sum(numbers) for numbers in zip(*by_part.values(), strict=True))
    return ParameterCount(total, trainable, by_part, by_layer)
