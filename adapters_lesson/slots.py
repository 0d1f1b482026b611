"""The places for adapters in a model, and what each computes there: for the whole batch, or for groups of its rows.

A slot hangs below one of the base model's own modules, its host, and is called by forward hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .adapter import AdapterConfig

# Groups of rows that follow one another in a batch: the name of their adapter, or None, and how many they are.
Routing = Sequence[tuple[str | None, int]]


class AdapterSlot(nn.ModuleDict):
    """The adapters of one place by name.

    Attributes:
        active: the one that works on all rows; None when the place is switched off.
        routing: while ``routed``, which one works on which rows instead.
        configs: the settings with which each was put in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.active: str | None = None
        self.routing: Routing | None = None
        self.configs: dict[str, AdapterConfig] = {}
        self.handles: list[torch.utils.hooks.RemovableHandle] = []

    @property
    def current(self) -> nn.Module | None:
        """The active adapter; None when the place is switched off."""
        return None if self.active is None else self[self.active]

    @property
    def has_work(self) -> bool:
        """Whether any row of the batch meets an adapter here."""
        if self.routing is None:
            return self.active is not None
        return not self.keys().isdisjoint(name for name, _ in self.routing)

    # The hooks are bound methods, not closures: a deep copy of the model then calls its own adapters.
    def attach(self, host: nn.Module, ffn_input: nn.Module) -> None:
        """Register the hooks."""
        self.handles = [host.register_forward_hook(self.after)]

    def after(self, host: nn.Module, args: tuple, output: Any) -> Any:
        """Forward hook of the host: returns what stands in for its output, None to leave it."""
        if not self.has_work:
            return None
        h = output[0] if isinstance(output, tuple) else output  # some blocks return caches beside the hidden states
        inputs = self.inputs(h, args)
        if self.routing is None:
            adapted = self.adapt(self.active, host, inputs)
        else:
            counts = [count for _, count in self.routing]
            groups = zip(self.routing, *(tensor.split(counts) for tensor in inputs), strict=True)
            adapted = torch.cat(
                [self.adapt(name, host, rows) if name in self else rows[0] for (name, _), *rows in groups]
            )
        return (adapted, *output[1:]) if isinstance(output, tuple) else adapted

    def inputs(self, h: torch.Tensor, args: tuple) -> Sequence[torch.Tensor]:
        """What ``adapt`` is given: the host's output ``h`` first. All have the rows of the batch."""
        return [h]

    def adapt(self, name: Any, host: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the adapter called ``name`` makes of the rows in ``inputs``: it stands in for ``inputs[0]``."""
        raise NotImplementedError


class SequentialSlot(AdapterSlot):
    """A(h), for a projection or a whole block."""

    def adapt(self, name: Any, host: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        adapter: Any = self[name]
        (h,) = inputs
        # Without gradients nobody needs the update afterwards: its memory takes the sum, and none is fetched for it.
        return adapter(h) if torch.is_grad_enabled() else adapter.update(h).add_(h)


class BeforeNormSlot(AdapterSlot):
    """Pfeiffer's place in a post-LN block. The host is the LayerNorm: it was given h + r and returned LN(h + r)."""

    def inputs(self, h: torch.Tensor, args: tuple) -> Sequence[torch.Tensor]:
        return h, args[0]

    def adapt(self, name: Any, host: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        adapter: Any = self[name]
        normed, total = inputs
        norms = getattr(host, "trained_norms", None)
        norm = norms[name] if isinstance(norms, NormSlot) and name in norms else host
        return norm.forward(adapter.update(normed) + total)


class ParallelSlot(AdapterSlot):
    """Beside the FFN: the host is its last projection, r is picked up where the FFN begins."""

    residual: torch.Tensor | None = None

    def attach(self, host: nn.Module, ffn_input: nn.Module) -> None:
        super().attach(host, ffn_input)
        self.handles.append(ffn_input.register_forward_pre_hook(self.before))

    def before(self, ffn_input: nn.Module, args: tuple) -> None:
        if self.has_work:
            self.residual = args[0]

    def inputs(self, h: torch.Tensor, args: tuple) -> Sequence[torch.Tensor]:
        residual, self.residual = self.residual, None
        assert residual is not None, "the FFN ended without having begun"
        return h, residual

    def adapt(self, name: Any, host: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        adapter: Any = self[name]
        h, residual = inputs
        return h + adapter.update(residual)


class NormSlot(AdapterSlot):
    """Trained copies of a LayerNorm, so that the base model's own stays as it was."""

    def attach(self, host: nn.Module, ffn_input: nn.Module) -> None:
        # First in line: an adapter at the same LayerNorm must see the trained copy's output.
        self.handles = [host.register_forward_hook(self.after, prepend=True)]

    def inputs(self, h: torch.Tensor, args: tuple) -> Sequence[torch.Tensor]:
        return h, args[0]

    def adapt(self, name: Any, host: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        h, x = inputs
        weight = next(self[name].parameters())  # trained in single precision even if the base is in half
        return self[name](x.to(weight.dtype)).to(h.dtype)


def slots_of(model: nn.Module) -> list[AdapterSlot]:
    """All places for adapters in ``model``, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, AdapterSlot)]


@contextmanager
def routed(slots: Iterable[AdapterSlot], routing: Routing) -> Iterator[None]:
    """In the ``with`` block the batch's first rows meet the adapter that ``routing`` names first, and so on.

    Which adapters are active does not matter then, and stays as it is. A None, or a name that a place does not have,
    leaves the rows there as the base model makes them.
    """
    slots = list(slots)
    for slot in slots:
        slot.routing = routing
    try:
        yield
    finally:
        for slot in slots:
            slot.routing = None
