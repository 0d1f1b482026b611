"""Compare first: what a change of the form, merged, cast, exported, does to a model's answers before it is shipped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters_lesson.modes import kept_modes


@dataclass(frozen=True)
class Comparison:
    """How far two models' logits are apart, over all places that are compared (texts, or tokens)."""

    largest: float  # difference of a logit
    mean: float  # difference of a logit, without its sign
    changed: int  # places where another answer comes first
    places: int

    @property
    def same(self) -> bool:
        """Whether every place has the same answer."""
        return self.changed == 0

    def __str__(self) -> str:
        apart = f"logits are {self.mean:.1e} apart on average and {self.largest:.1e} at most"
        return f"{self.changed} of {self.places:,} answers change; {apart}"


def compare_outputs(before: nn.Module, after: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Comparison:
    """Run both models on the same batches, in evaluation mode and without gradients.

    Args:
        before, after: they take a batch by name and return logits ``(…, classes)``, alone or as ``.logits``; where they
            are one model in two states, call ``logits_of`` before and after, and ``compare_logits``.
        batches: what they are called with. Tokens without attention (padding) are not compared.

    Raises ValueError when there is nothing to compare, the shapes differ, or a logit is not finite.
    """
    batches = list(batches)
    return compare_logits(logits_of(before, batches), logits_of(after, batches))


def logits_of(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Tensor:
    """The logits of all places, ``(places, classes)`` in float32."""
    found = []
    with torch.no_grad(), kept_modes(model):
        model.eval()
        for batch in batches:
            output: Any = model(**batch)
            logits = getattr(output, "logits", output)  # (rows, classes) or (rows, tokens, classes)
            mask = batch.get("attention_mask")
            if logits.ndim == 3 and mask is not None:
                logits = logits[mask.bool()]
            found.append(logits.flatten(0, -2).float())
    if not found:
        raise ValueError("there is no batch to compare on: give at least one")
    return torch.cat(found)


def compare_logits(before: Tensor, after: Tensor) -> Comparison:
    """The same of logits that are there already, ``(places, classes)`` each."""
    if before.shape != after.shape:
        shapes = f"{tuple(before.shape)} and {tuple(after.shape)}"
        raise ValueError(f"logits of {shapes} are not of the same texts and classes")
    for name, logits in (("before", before), ("after", after)):
        if not logits.isfinite().all():
            raise ValueError(f"the logits {name} are not all finite: there is nothing that could be compared")
    apart = (before - after).abs()
    changed = int((before.argmax(-1) != after.argmax(-1)).sum())
    return Comparison(apart.max().item(), apart.mean().item(), changed, len(before))
