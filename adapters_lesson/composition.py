"""New adapters made of those that a model has: stacked, averaged, or fused by attention.

A ``Stack`` or a ``Fusion`` lives in a slot like an adapter, under a name of its own, and works there in the same way:
it is switched, routed, removed and trained by that name. Its members stay where they are, and no tensor is kept twice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .adapter import Adapter
from .architectures import base_model_of
from .insertion import check_known, check_new_name, set_active_adapter
from .modes import kept_modes
from .slots import AdapterSlot, NormSlot, routed, slots_of
from .transformer import text_features


class Composed(nn.Module):
    """What is made of several adapters of one slot.

    Attributes:
        names: of the members.
        members: the members themselves, in a tuple, so that they belong to the slot alone.
    """

    members: tuple[Any, ...]  # of Adapter, Stack or Fusion

    def __init__(self, names: Sequence[str], members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.members = tuple(members)

    def update(self, h: torch.Tensor) -> torch.Tensor:
        """What is added to the hidden states: shape of ``h``."""
        raise NotImplementedError

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.update(h)

    def extra_repr(self) -> str:
        return ", ".join(self.names)


class Stack(Composed):
    """Adapters one after another (MAD-X: Pfeiffer et al. 2020, arXiv 2005.00052): ``last(…first(h))``.

    It has no parameters of its own. The last member is the one that is trained with it, the others stay frozen: there
    a language's or a field's adapter, on which that of a task is learnt.

    Shapes: input and output ``(..., model_dim)``.
    """

    def update(self, h: torch.Tensor) -> torch.Tensor:
        update = self.members[0].update(h)
        for member in self.members[1:]:
            update = update + member.update(h + update)
        return update

    def requires_grad_(self, requires_grad: bool = True) -> Stack:
        self.members[-1].requires_grad_(requires_grad)
        return self


class Fusion(Composed):
    """Attention over what several adapters add (AdapterFusion: Pfeiffer et al. 2021, arXiv 2005.00247, section 3.2).

    With a_n what member n adds to the hidden state h of a token, and matrices Q, K and V for each place::

        s = softmax over n of (Q h) · (K a_n)        h + Σ_n s_n V a_n

    V is ``1 + value.weight``, which begins at zero: at first the fusion adds a mean of the members' updates, about the
    plain one. The paper keeps V from growing with an L2 penalty; here it is the optimiser's weight decay that draws V
    back to 1, so the loss stays as it is. Q and K begin at N(0, 0.02²). The members are not its parameters, and stay
    frozen while it is trained. The library adapters computes the same with ``residual_before=False``; by default V
    multiplies the residual stream there, too.

    Args:
        model_dim: width d of the hidden states.
        names, members: at least two adapters.

    Shapes: input and output ``(..., model_dim)``.
    """

    def __init__(self, model_dim: int, names: Sequence[str], members: Sequence[nn.Module]) -> None:
        super().__init__(names, members)
        # Without biases, as in the paper; that of a key would shift all scores alike, which the softmax cannot see.
        self.query = nn.Linear(model_dim, model_dim, bias=False)
        self.key = nn.Linear(model_dim, model_dim, bias=False)
        self.value = nn.Linear(model_dim, model_dim, bias=False)
        nn.init.normal_(self.query.weight, std=0.02)
        nn.init.normal_(self.key.weight, std=0.02)
        nn.init.zeros_(self.value.weight)
        self.watchers: list[torch.Tensor] | None = None

    @staticmethod
    def count(model_dim: int) -> int:
        """Parameters of one fusion: 3·d² (three matrices), however many members it has."""
        return 3 * model_dim**2

    def update(self, h: torch.Tensor) -> torch.Tensor:
        x = h.to(self.query.weight.dtype)  # a frozen base may be in half precision, the fusion is not
        updates = torch.stack([member.update(x) for member in self.members], dim=-2)
        # (Q h) · (K a) = (Kᵀ Q h) · a and Σ s V a = V Σ s a: so K and V multiply once a token, not once a member.
        wanted = self.query(x) @ self.key.weight
        attention = (updates * wanted.unsqueeze(-2)).sum(-1).softmax(-1)
        if self.watchers is not None:
            self.watchers.append(attention.detach())
        mean = (updates * attention.unsqueeze(-1)).sum(-2)
        return (mean + self.value(mean)).to(h.dtype)


def stack_adapters(model: nn.Module, names: Sequence[str], name: str) -> list[Stack]:
    """Let the adapters ``names`` work one after another under the new ``name``, and make that the active one.

    ``set_trainable(model, name)`` trains the last of them (and the head), in all of its uses.

    Returns:
        The stacks, from the bottom block up.

    Raises:
        ValueError: for a name that is taken or malformed, fewer than two adapters, one twice, unknown ones, adapters
            that are not in the same places, or that bring trained LayerNorms. The model is then as it was.
    """
    _check_members(model, names, name, norms=False)
    return _compose(model, names, name, lambda members: Stack(names, members))


def fuse_adapters(model: nn.Module, names: Sequence[str], name: str) -> list[Fusion]:
    """Let attention choose among the adapters ``names``, under the new ``name``, and make that the active one.

    ``set_trainable(model, name)`` trains the fusions (and the head), and freezes their members.

    Returns:
        The fusions, from the bottom block up: ``Fusion.count(d)`` parameters each.

    Raises:
        ValueError: as ``stack_adapters``.
    """
    _check_members(model, names, name, norms=False)

    def fusion(members: Sequence[nn.Module]) -> Fusion:
        up = _adapter_in(members[0]).up_project
        with up.weight.device:
            return Fusion(up.out_features, names, members).to(up.weight.dtype).train(members[0].training)

    return _compose(model, names, name, fusion)


def average_adapters(
    model: nn.Module, names: Sequence[str], name: str, weights: Sequence[float] | None = None
) -> list[Adapter]:
    """Put new adapters, ``name``, whose weights are the mean of those of ``names``, and make them the active ones.

    Trained LayerNorms are averaged likewise. AdapterSoup (Chronopoulou et al. 2023, arXiv 2302.07027) does so with
    adapters of several domains. A mean of weights is no mean of functions: expect it to be of use when the adapters
    began from the same weights, so that their bottleneck units correspond.

    Args:
        weights: one for each of ``names``, not negative; they are divided by their sum. Left out, all count alike.

    Returns:
        The new adapters, from the bottom block up.

    Raises:
        ValueError: as ``stack_adapters``; and for other widths, activations or scalings, trained LayerNorms that only
            some have, members that are not plain adapters, or weights that make no mean. The model is then as it was.
    """
    _check_members(model, names, name, norms=True)
    shares = _shares(names, weights)
    for slot in _slots_with(model, names[0]):
        settings = [_settings(slot[member]) for member in names]
        for other, setting in zip(names[1:], settings[1:], strict=True):
            if setting != settings[0]:
                raise ValueError(
                    f"{names[0]!r} and {other!r} cannot be averaged, their weights do not correspond: "
                    f"{settings[0]} beside {setting}; fuse_adapters takes both"
                )

    def mean(members: Sequence[nn.Module]) -> nn.Module:
        result = copy.deepcopy(members[0]).requires_grad_(True)
        with torch.no_grad():
            for key, parameter in result.named_parameters():
                others = (member.get_parameter(key) for member in members)
                parameter.copy_(torch.stack([s * p for s, p in zip(shares, others, strict=True)]).sum(0))
        return result

    return [module for module in _compose(model, names, name, mean) if isinstance(module, Adapter)]


@torch.no_grad()
def fusion_attention(
    model: nn.Module, name: str, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """How much each member of the fusion ``name`` counts for each token, in evaluation mode.

    Whatever is switched on does not matter, and stays as it is. ``attention[0]`` is for ``plots.fusion_figure``;
    ``attention.sum((0, 3)) / attention_mask.sum()`` is the mean over all words: ``(places, members)``.

    Args:
        model: with or without a head, or an ``AdapterBank``.
        input_ids, attention_mask: ``(texts, tokens)``.

    Returns:
        ``(texts, places, members, tokens)``, the places from the bottom block up. Sums to 1 over the members; 0 at
        padding.

    Raises:
        ValueError: when there is no fusion of that name.
    """
    check_known(model, name)
    base, slots = base_model_of(model), _slots_with(model, name)
    fusions: list[Any] = [slot[name] for slot in slots]
    if not all(isinstance(fusion, Fusion) for fusion in fusions):
        raise ValueError(f"{name!r} is no fusion, so it has no attention: fuse_adapters(model, [...], name) makes one")
    for fusion in fusions:
        fusion.watchers = []
    try:
        with kept_modes(model), routed(slots, [(name, len(input_ids))]):
            text_features(base.eval(), input_ids, attention_mask)
        places = torch.stack([fusion.watchers[0] for fusion in fusions])
    finally:
        for fusion in fusions:
            fusion.watchers = None
    return places.permute(1, 0, 3, 2) * attention_mask[:, None, None, :]


def _compose(model: nn.Module, names: Sequence[str], name: str, build: Callable[[Sequence[Any]], Any]) -> list[Any]:
    """Put what ``build`` makes of the members into every slot that has them. Checked before, so that none fails."""
    slots = _slots_with(model, names[0])
    built = [build([slot[member] for member in names]) for slot in slots]
    for slot, module in zip(slots, built, strict=True):
        slot[name], slot.configs[name] = module, slot.configs[names[-1]]
    set_active_adapter(model, name)
    return built


def _slots_with(model: nn.Module, name: str) -> list[AdapterSlot]:
    return [slot for slot in slots_of(model) if name in slot]


def _adapter_in(module: Any) -> Adapter:
    """An adapter that ``module`` is, or is made of."""
    return module if isinstance(module, Adapter) else _adapter_in(module.members[0])


def _settings(module: nn.Module) -> str:
    """All but the weights of what can be averaged."""
    if isinstance(module, Composed):
        raise ValueError(f"a {type(module).__name__.lower()} of {', '.join(module.names)} has no weights to average")
    if not isinstance(module, Adapter):
        return f"a trained {type(module).__name__}"
    down, activation = module.down_project, type(module.activation).__name__
    return f"{activation} of width {down.out_features}, scaling {module.scaling:g}"


def _shares(names: Sequence[str], weights: Sequence[float] | None) -> list[float]:
    weights = [1.0] * len(names) if weights is None else list(weights)
    if len(weights) != len(names):
        raise ValueError(f"{len(weights)} weights for {len(names)} adapters: give each of them one")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise ValueError(f"weights={weights}, but a mean needs numbers that are not negative, and one above 0")
    return [w / sum(weights) for w in weights]


def _check_members(model: nn.Module, names: Sequence[str], name: str, norms: bool) -> None:
    """Raise ValueError unless ``names`` are in the same places. ``norms``: may they bring trained LayerNorms?"""
    if isinstance(names, str) or len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"names={names!r}, but at least two different adapters are needed, in a list")
    for member in names:
        check_known(model, member)
        if not norms and any(isinstance(slot, NormSlot) for slot in _slots_with(model, member)):
            raise ValueError(
                f"{member!r} brings trained LayerNorms, and a block has one place for them only: for a stack or a "
                "fusion, train the members with train_layer_norms=False"
            )
    check_new_name(model, name)
    first = _places(model, names[0])
    for other in names[1:]:
        if (places := _places(model, other)) != first:
            alone, where = (names[0], first - places) if first - places else (other, places - first)
            raise ValueError(
                f"{names[0]!r} and {other!r} are not in the same places, only {alone!r} is at {min(where)}: "
                "insert them with the same placement, layers and train_layer_norms"
            )


def _places(model: nn.Module, name: str) -> set[str]:
    """The paths of the slots in which the adapters called ``name`` are."""
    return {path for path, slot in model.named_modules() if isinstance(slot, AdapterSlot) and name in slot}
