"""The places for adapters in a model, and what each computes there: for the whole batch, or for groups of its rows.

A slot hangs below one of the base model's own modules, its host, and is called by forward hooks. It is named by how
its adapters are called there. What holds for one forward pass only is kept by thread, not in the slot: so one model
serves several threads at once.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Groups of rows that follow one another in a batch: the name of their adapter, or None, and how many they are.
Routing = Sequence[tuple[str | None, int]]
# For peft: LoraConfig(target_modules="all-linear", exclude_modules=PEFT_EXCLUDE) takes no adapters' projections.
PEFT_EXCLUDE = r".*\.(adapters_(after|beside|beside_linear|before_norm)|trained_norms)\..*"


class _Pass(threading.local):
    """What holds for the forward pass that this thread is in. (torch.compile cannot follow a ContextVar.)"""

    routing: Routing | None = None
    residual: Tensor | None = None
    attention: dict[nn.Module, Tensor] | None = None  # of each fusion, while somebody looks


_PASS = _Pass()


def _after(attribute: str, host: nn.Module, args: tuple, output: Any) -> Any:
    """The forward hook of every host. It finds the slot on the host, so that a copy or a replica calls its own."""
    return host._modules[attribute].after(host, args, output)  # type: ignore[union-attr, operator]


class AdapterSlot(nn.ModuleDict):
    """The adapters of one place by name."""

    attribute: str  # the slot's own name on its host, by how the adapters are called there
    called = False  # whether a forward pass has come by
    generation = object()  # another one whenever adapters come or go, anywhere: who remembers slots looks again

    def __init__(self) -> None:
        super().__init__()
        self.active: str | None = None  # the one that works on all rows; None when the place is switched off
        self.configs: dict[str, Any] = {}  # the settings with which each was put in, see adapter.KINDS
        self.handles: list[torch.utils.hooks.RemovableHandle] = []

    def __getitem__(self, name: str | None) -> Any:
        return self._modules[name]  # type: ignore[index]

    @property
    def current(self) -> nn.Module | None:
        """The active adapter; None when the place is switched off."""
        return None if self.active is None else self[self.active]

    def attach(self, host: nn.Module, ffn_input: nn.Module) -> None:
        host.add_module(self.attribute, self)
        self.handles = [host.register_forward_hook(partial(_after, self.attribute), prepend=True)]
        if norms := getattr(host, "trained_norms", None):  # called first; last is transformers, which records outputs
            host._forward_hooks.move_to_end(norms.handles[0].id, last=False)  # type: ignore[attr-defined]

    def after(self, host: nn.Module, args: tuple, output: Any) -> Any:
        """Forward hook of the host: returns what stands in for its output, None to leave it."""
        if not self.called and not torch.compiler.is_compiling():
            self.called = True
        routing = _PASS.routing
        if self.active is None if routing is None else not any(name and name in self for name, _ in routing):
            return None
        h = output[0] if isinstance(output, tuple) else output  # some blocks return caches beside the hidden states
        x = args[0] if args else h
        if routing is None:
            adapted = self.adapt(self.active, host, h, x)
        else:
            # OPT's FFN lays the rows end to end, (rows · tokens, d).
            rows = sum(count for _, count in routing)
            each = len(h) // rows if h.ndim == 2 else 1
            if len(h) != rows * each:  # DeBERTa projects positions, too
                what = f"a {type(host).__name__} is given {tuple(x.shape)}, which is not {rows} rows"
                raise ValueError(f"{what}: adapters there cannot be mixed in one batch, switch them instead")
            counts = [count * each for _, count in routing]
            groups = zip(routing, h.split(counts), x.split(counts), strict=True)
            adapted = torch.cat([self.adapt(n, host, h, x) if n and n in self else h for (n, _), h, x in groups])
        return (adapted, *output[1:]) if isinstance(output, tuple) else adapted

    def adapt(self, name: str | None, host: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        """What the adapter ``name`` makes of some rows, of which the host made ``h`` from ``x``: by default A(h)."""
        # Without gradients nobody needs the update afterwards: its memory takes the sum, and none is fetched for it.
        return self[name](h) if torch.is_grad_enabled() else self[name].update(h).add_(h)


class SequentialSlot(AdapterSlot):
    """After a projection or a whole block."""

    attribute = "adapters_after"


class BeforeNormSlot(AdapterSlot):
    """Pfeiffer's place in a post-LN block. The host is the LayerNorm: it was given h + r and returned LN(h + r)."""

    attribute = "adapters_before_norm"

    def adapt(self, name: str | None, host: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        norms = getattr(host, NormSlot.attribute, None)
        norm = norms[name] if norms is not None and name in norms else host
        return norm.forward(self[name].update(h) + x)


def _before_ffn(ffn_input: nn.Module, args: tuple) -> None:
    _PASS.residual = args[0]


class ParallelSlot(AdapterSlot):
    """Beside the FFN: the host is its last projection, r is picked up where the FFN begins."""

    attribute = "adapters_beside"

    def attach(self, host: nn.Module, ffn_input: nn.Module) -> None:
        super().attach(host, ffn_input)
        self.handles.append(ffn_input.register_forward_pre_hook(_before_ffn))

    def after(self, host: nn.Module, args: tuple, output: Any) -> Any:
        adapted = super().after(host, (_PASS.residual,), output)
        _PASS.residual = None  # also when the place is switched off: nothing outlives the FFN
        return adapted

    def adapt(self, name: str | None, host: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        return h + self[name].update(x)


class LinearSlot(AdapterSlot):
    """Beside a linear layer of a block, for LoRA: the host was given x and returned W x."""

    attribute = "adapters_beside_linear"
    _merged: tuple[str, Tensor] | None = None  # what is multiplied into the host's weight now, and the weight before

    def after(self, host: nn.Module, args: tuple, output: Any) -> Any:
        if self._merged is None:
            return super().after(host, args, output)
        name, _ = self._merged
        if _PASS.routing is not None or self.active != name or (self[name].training and torch.is_grad_enabled()):
            raise ValueError(f"{name!r} is merged, so nothing else works or is trained: lora.unmerge(model) first")
        return None

    def adapt(self, name: str | None, host: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        return h + self[name].update(x).to(h.dtype)


class NormSlot(AdapterSlot):
    """Trained copies of a LayerNorm; the base model's own stay as they were. An adapter there must see their output."""

    attribute = "trained_norms"

    def adapt(self, name: str | None, host: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        norm = self[name]  # trained in single precision even if the base is in half
        return norm(x.to(getattr(norm, "weight", x).dtype)).to(h.dtype)


def slots_of(model: nn.Module) -> list[AdapterSlot]:
    """All places for adapters in ``model``, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, AdapterSlot)]


@contextmanager
def routed(routing: Routing, attention: dict[nn.Module, Tensor] | None = None) -> Iterator[None]:
    """In the ``with`` block the batch's first rows meet the adapter that ``routing`` names first, and so on.

    Which adapters are active does not matter then. A None, or a name that a place does not have, leaves the rows there
    as the base model makes them. What each fusion attends to is put into ``attention``. Other threads see none of it.
    """
    before = _PASS.routing, _PASS.attention
    _PASS.routing, _PASS.attention = routing, attention
    try:
        yield
    finally:
        _PASS.routing, _PASS.attention = before
