"""LoRA, low-rank adaptation (Hu et al. 2021, arXiv 2106.09685, section 4.1), and the settings for putting it in.

Beside a frozen linear layer W two thin matrices are trained: ``W x + (alpha / r) · B A x``. They hang in a slot below
the layer, as an adapter does. The update is linear, so it can also be multiplied into W: ``merge``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .guards import config_guard as guard
from .guards.merge_guard import check_can_merge
from .slots import LinearSlot, slots_of


class LoRA(nn.Module):
    """What is added to one linear layer: ``scaling * lora_B(lora_A(dropout(x)))``.

    Args:
        in_features, out_features: the linear layer's; x is ``(..., in_features)``, the update ``(..., out_features)``.
        rank: r, the rows of ``lora_A`` and the columns of ``lora_B``.
        alpha: the update is scaled by alpha / r, so that alpha may stay when r changes.
        use_rslora: scale by alpha / √r instead (Kalajdzievski 2023, arXiv 2312.03732).
        dropout: probability of dropping an element of x while training.

    A begins Kaiming-uniform and B at zero, so a new LoRA adds nothing. The draws are those of the library peft.
    Raises ValueError for a width or rank below 1, a number that makes no sense.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 8,
        *,
        alpha: float = 16.0,
        use_rslora: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        rank = guard.check_whole("rank", rank)
        self.lora_A = nn.Linear(guard.check_whole("in_features", in_features), rank, bias=False)  # A: (r, in)
        self.lora_B = nn.Linear(rank, guard.check_whole("out_features", out_features), bias=False)  # B: (out, r)
        self.dropout = nn.Dropout(guard.check_dropout(dropout))
        self.scaling = guard.check_alpha(alpha) / (math.sqrt(rank) if use_rslora else rank)
        self.reset_parameters()

    @staticmethod
    def count(in_features: int, out_features: int, rank: int) -> int:
        """Parameters beside one linear layer: r·(in + out) (two matrices, no biases)."""
        return rank * (in_features + out_features)

    def reset_parameters(self) -> None:
        """Draw A anew, and let B be zero."""
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def update(self, x: Tensor) -> Tensor:
        """What is added to W x: ``(..., in_features)`` to ``(..., out_features)``."""
        x = x.to(self.lora_A.weight.dtype)  # a frozen base may be in half precision, LoRA is not
        return self.scaling * self.lora_B(self.lora_A(self.dropout(x)))  # by way of (..., r)

    forward = update

    def delta(self) -> Tensor:
        """The same as one matrix, to be added to W: ``scaling · B A``, ``(out_features, in_features)``."""
        exact = torch.promote_types(self.lora_A.weight.dtype, torch.float32)
        return self.scaling * (self.lora_B.weight.to(exact) @ self.lora_A.weight.to(exact))

    def extra_repr(self) -> str:
        return f"scaling={self.scaling:g}"


@dataclass(frozen=True)
class LoRAConfig:
    """Which linear layers get LoRA, and of which kind.

    Args:
        rank, alpha, use_rslora, dropout: as for ``LoRA``.
        targets: a name in ``placements.TARGETS``: "query_value" (Hu et al. 2021, section 4.2), "attention" (all of its
            projections) or "all-linear" (every linear layer of a block: Dettmers et al. 2023, arXiv 2305.14314). Where
            a model keeps query, key and value in one matrix, that one is meant by all three.
        layers: numbers of the blocks that get it, counted from 0 at the bottom; None for all of them.

    Raises ValueError for a setting that makes no sense; the message says what is allowed.
    """

    kind: ClassVar[str] = "lora"
    train_layer_norms: ClassVar[bool] = False
    rank: int = 8
    alpha: float = 16.0
    targets: str = "query_value"
    use_rslora: bool = False
    dropout: float = 0.0
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        guard.check_lora_config(self)

    def build(self, in_features: int, out_features: int) -> LoRA:
        """A new LoRA with these settings for a linear layer of these widths."""
        more: Any = {key: getattr(self, key) for key in ("alpha", "use_rslora", "dropout")}
        return LoRA(in_features, out_features, self.rank, **more)


@torch.inference_mode(False)  # what is made inside could never be trained around
@torch.no_grad()
def merge(model: nn.Module, name: str = "default") -> None:
    """Multiply the LoRA called ``name`` into the weights, ``W + scaling · B A``, so that it costs no time any more.

    The model answers as before, up to rounding in W's own type. The old weights are kept, and nothing else can be
    switched on, trained, added or saved until ``unmerge`` brings them back. To keep a merged model for good,
    ``save_pretrained``: ``from_pretrained`` leaves the slots out. Raises ValueError when there is no LoRA of that name,
    one is merged already, for a bank, and for weights that are quantised or tied; the model is then as it was.
    """
    hosts = [(host, slot) for host, slot in _hosts(model) if name in slot]
    check_can_merge(model, name, [host for host, _ in hosts])
    for place in slots_of(model):
        place.active = name if name in place else None
    for host, slot in hosts:
        W, delta = host.weight.data, slot[name].delta()
        merged = W + (delta if isinstance(host, nn.Linear) else delta.T)  # GPT-2 has it the other way
        slot._merged, host.weight.data = (name, W), merged.to(W.dtype)


def unmerge(model: nn.Module) -> None:
    """Bring back the weights that ``merge`` has kept, byte for byte; LoRA stays on. Raises ValueError without any."""
    if not (merged := [(host, slot) for host, slot in _hosts(model) if slot._merged]):
        raise ValueError("nothing is merged into the weights: lora.merge(model) first")
    for host, slot in merged:
        (_, W), slot._merged = slot._merged, None
        host.weight.data = W.to(host.weight)  # the very same, unless the model was moved or cast meanwhile


def _hosts(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Linear layers with places for LoRA, and these places."""
    return ((host, slot) for host in model.modules() for slot in host.children() if isinstance(slot, LinearSlot))
