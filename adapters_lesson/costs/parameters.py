"""Parameters, counted by layer and by what they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..architectures import architecture_of, base_model_of, blocks_of
from ..insertion import head_parameters
from ..slots import AdapterSlot

PARTS = ("adapters", "LayerNorms", "LoRA", "head", "base model")


@dataclass(frozen=True)
class Count:
    """The parameters of one part at one place of the model."""

    place: str
    part: str
    total: int
    trainable: int


@dataclass(frozen=True)
class ParameterCount:
    """All parameters of a model. ``entries`` are disjoint, so sums over them are exact."""

    entries: tuple[Count, ...]

    @property
    def total(self) -> int:
        """Every parameter, a tied one once."""
        return sum(entry.total for entry in self.entries)

    @property
    def trainable(self) -> int:
        """Those that require gradients."""
        return sum(entry.trainable for entry in self.entries)

    @property
    def frozen(self) -> int:
        """Those that do not."""
        return self.total - self.trainable

    @property
    def by_part(self) -> dict[str, Count]:
        """For each of ``PARTS`` that the model has: LayerNorms are the base model's own and their trained copies."""
        return {part: self._sum(part=part) for part in PARTS if any(e.part == part for e in self.entries)}

    @property
    def by_layer(self) -> dict[str, Count]:
        """From the embeddings through the blocks to the head."""
        return {place: self._sum(place=place) for place in dict.fromkeys(e.place for e in self.entries)}

    def _sum(self, place: str = "", part: str = "") -> Count:
        chosen = [e for e in self.entries if e.place == (place or e.place) and e.part == (part or e.part)]
        return Count(place, part, sum(e.total for e in chosen), sum(e.trainable for e in chosen))

    def __str__(self) -> str:
        share = f"{100 * self.trainable / self.total:.3f} %" if self.total else ""
        rows = [(label, f"{e.total:,}", f"{e.trainable:,}") for label, e in self._lines()]
        rows += [("all", f"{self.total:,}", f"{self.trainable:,}"), ("", "", share)]
        return "\n".join(f"{label:22}{total:>18}{trained:>18}" for label, total, trained in [_HEADER, *rows]).rstrip()

    def _lines(self) -> Iterator[tuple[str, Count]]:
        """By layer, with equal neighbours in one line; then what is trained, by part."""
        groups: list[tuple[list[str], Count]] = []
        for place, count in self.by_layer.items():
            if groups and (count.total, count.trainable) == (groups[-1][1].total, groups[-1][1].trainable):
                groups[-1][0].append(place)
            else:
                groups.append(([place], count))
        for places, count in groups:
            same = len(places) > 1
            yield (f"{places[0]} to {places[-1].removeprefix('block ')}, each" if same else places[0]), count
        for part, count in self.by_part.items():
            if count.trainable:
                yield f"  of it {part}", count


_HEADER = ("", "parameters", "trained")


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count every parameter of ``model`` once; it may be an outline on the meta device.

    Raises:
        ValueError: for an architecture that is not in the table (see ``insert_adapters``).
    """
    base = base_model_of(model)
    places: dict[int, str] = {}
    parts: dict[int, str] = {id(p): "head" for p in head_parameters(model)}
    for i, block in enumerate(blocks_of(base, architecture_of(base))):
        places.update({id(p): f"block {i}" for p in block.parameters()})
    for module in base.modules():
        is_norm = type(module).__name__.endswith("Norm")  # RMSNorms too
        if is_norm or isinstance(module, AdapterSlot):
            # An adapter may hang below a LayerNorm: what is deeper is met later and has the last word.
            parts.update({id(p): "LayerNorms" if is_norm else "adapters" for p in module.parameters()})
    named = list(model.named_parameters())
    parts.update({id(p): "LoRA" for name, p in named if "lora_" in name})
    entries: dict[tuple[str, str], tuple[int, int]] = {}
    seen_block = False
    for _, p in named:
        part = parts.get(id(p), "base model")
        seen_block = seen_block or id(p) in places
        place = places.get(id(p)) or ("head" if part == "head" else "after the blocks" if seen_block else "embeddings")
        total, trained = entries.get((place, part), (0, 0))
        entries[place, part] = (total + p.numel(), trained + p.numel() * p.requires_grad)
    return ParameterCount(tuple(Count(*key, *numbers) for key, numbers in entries.items()))
