"""New adapters made of those that a model has: stacked, averaged, or fused by attention.

A ``Stack`` or a ``Fusion`` lives in a slot like an adapter, under a name of its own, and works there in the same way:
it is switched, routed, removed and trained by that name. Its members stay where they are, and no tensor is kept twice.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import Adapter
from .architectures import base_model_of
from .guards.bank_guard import check_members, check_new_name, check_shares, is_bank
from .insertion import set_active_adapter, slots_with
from .modes import kept_modes
from .slots import _PASS, LinearSlot, NormSlot, routed
from .transformer import text_features


class Composed(nn.Module):
    """What is made of several adapters of one slot; ``update`` is what it adds to the hidden states."""

    def __init__(self, names: Sequence[str], members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.members: tuple[Any, ...] = tuple(members)  # no module list: they belong to the slot alone

    def update(self, h: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, h: Tensor) -> Tensor:
        return h + self.update(h)

    def extra_repr(self) -> str:
        return ", ".join(self.names)


class Stack(Composed):
    """Adapters one after another (MAD-X: Pfeiffer et al. 2020, arXiv 2005.00052): ``last(…first(h))``.

    It has no parameters of its own. The last member, a task's, is trained with it; the others, say a language's, stay
    frozen. Shapes: ``(..., model_dim)`` in and out.
    """

    def update(self, h: Tensor) -> Tensor:
        update = self.members[0].update(h)
        for member in self.members[1:]:
            update = update + member.update(h + update)
        return update

    def requires_grad_(self, requires_grad: bool = True) -> "Stack":
        self.members[-1].requires_grad_(requires_grad)
        return self


class Fusion(Composed):
    """Attention over what several adapters add (AdapterFusion: Pfeiffer et al. 2021, arXiv 2005.00247, section 3.2).

    With a_n what member n adds to the hidden state h of a token, and matrices Q, K and V for each place::

        s = softmax over n of (Q h) · (K a_n)        h + Σ_n s_n V a_n

    V is ``1 + value.weight``, which begins at zero: at first the fusion adds about the plain mean of the members'
    updates. The paper keeps V from growing with an L2 penalty, here the optimiser's weight decay draws it back to 1.
    The members are not its parameters, and stay frozen while it is trained. Shapes: ``(..., model_dim)`` in and out.
    """

    def __init__(self, model_dim: int, names: Sequence[str], members: Sequence[nn.Module]) -> None:
        super().__init__(names, members)
        # Without biases, as in the paper; that of a key would shift all scores alike, which the softmax cannot see.
        self.query, self.key, self.value = (nn.Linear(model_dim, model_dim, bias=False) for _ in range(3))
        nn.init.normal_(self.query.weight, std=0.02)
        nn.init.normal_(self.key.weight, std=0.02)
        nn.init.zeros_(self.value.weight)

    @staticmethod
    def count(model_dim: int) -> int:
        """Parameters of one fusion: 3·d² (three matrices), however many members it has."""
        return 3 * model_dim**2

    def update(self, h: Tensor) -> Tensor:
        x = h.to(self.query.weight.dtype)  # a frozen base may be in half precision, the fusion is not
        updates = torch.stack([member.update(x) for member in self.members], dim=-2)
        # (Q h) · (K a) = (Kᵀ Q h) · a and Σ s V a = V Σ s a: so K and V multiply once a token, not once a member.
        wanted = self.query(x) @ self.key.weight
        attention = (updates * wanted.unsqueeze(-2)).sum(-1).softmax(-1)
        if _PASS.attention is not None:
            _PASS.attention[self] = attention.detach()
        mean = (updates * attention.unsqueeze(-1)).sum(-2)
        return (mean + self.value(mean)).to(h.dtype)


def stack_adapters(model: nn.Module, names: Sequence[str], name: str) -> list[Stack]:
    """Let the adapters ``names`` work one after another under the new ``name``, and make that the active one.

    ``set_trainable(model, name)`` trains the last of them (and the head). Returns the stacks, from the bottom block up.
    Raises ValueError for a name that is taken or malformed, fewer than two adapters, one twice, unknown ones, adapters
    that are not in the same places, or that bring trained LayerNorms. The model is then as it was.
    """
    return _compose("stack", model, names, name, Stack)


def fuse_adapters(model: nn.Module, names: Sequence[str], name: str) -> list[Fusion]:
    """Let attention choose among the adapters ``names``, under the new ``name``, and make that the active one.

    ``set_trainable(model, name)`` trains the fusions (and the head), not their members. Returns the fusions, from the
    bottom block up. Raises ValueError as ``stack_adapters``.
    """
    return _compose("fuse", model, names, name, _fusion)


def _fusion(names: Sequence[str], members: Sequence[Any]) -> Fusion:
    adapter = members[0]
    while isinstance(adapter, Composed):
        adapter = adapter.members[0]
    if not isinstance(adapter, Adapter):
        raise ValueError(f"a {type(adapter).__name__} cannot be fused: its width cannot be read off it; stack it")
    up = adapter.up_project
    with up.weight.device:
        return Fusion(up.out_features, names, members).to(up.weight.dtype).train(members[0].training)


def average_adapters(
    model: nn.Module, names: Sequence[str], name: str, weights: Sequence[float] | None = None
) -> list[Adapter]:
    """Put new adapters, ``name``, whose weights are the mean of those of ``names``, and make them the active ones.

    AdapterSoup (Chronopoulou et al. 2023, arXiv 2302.07027) does so with adapters of several domains. A mean of weights
    is no mean of functions: expect it to be of use when the adapters began from the same weights. ``weights`` are one
    for each of ``names``, not negative, and divided by their sum. Trained LayerNorms are averaged likewise; all other
    settings, such as the dropout, are those of the last of ``names``.

    Returns the new adapters, from the bottom block up. Raises ValueError as ``stack_adapters``; and for other widths,
    activations or scalings, trained LayerNorms that only some have, a stack or a fusion, weights that make no mean.
    """

    def mean(names: Sequence[str], members: Sequence[nn.Module]) -> nn.Module:
        shares = check_shares(weights, len(members))
        first, *others = map(_settings, members)
        for other, setting in zip(names[1:], others, strict=True):
            if setting != first:
                raise ValueError(
                    f"{names[0]!r} and {other!r} cannot be averaged, their weights do not correspond: "
                    f"{first} beside {setting}; a fusion takes both"
                )
        result = copy.deepcopy(members[-1]).requires_grad_(True)  # the last, as its config is the new one's
        with torch.no_grad():
            for key, parameter in result.named_parameters():
                parts = [s * m.get_parameter(key) for s, m in zip(shares, members, strict=True)]
                parameter.copy_(torch.stack(parts).sum(0))
        return result

    return [module for module in _compose("average", model, names, name, mean) if isinstance(module, Adapter)]


def _settings(module: nn.Module) -> str:
    """All but the weights of what can be averaged."""
    if isinstance(module, Composed):
        raise ValueError(f"a {type(module).__name__.lower()} of {', '.join(module.names)} has no weights to average")
    if not isinstance(module, Adapter):
        return f"a trained {type(module).__name__}"
    down, activation = module.down_project, type(module.activation).__name__
    return f"{activation} of width {down.out_features}, scaling {module.scaling:g}"


def _compose(how: str, model: nn.Module, given: Sequence[str], name: str, build: Callable[..., Any]) -> list[Any]:
    """Put what ``build(names, members)`` makes into every slot that has the members."""
    names = check_members(model, given, f"bank.{how}({given!r}, {name!r}, 2)")
    places = {member: slots_with(model, member) for member in names}
    for member, slots in places.items():
        if any(isinstance(slot, LinearSlot) for slot in slots.values()):
            raise ValueError(f"{how} takes adapters, and {member!r} is LoRA: a bank switches or mixes those")
        if how != "average" and any(isinstance(slot, NormSlot) for slot in slots.values()):
            raise ValueError(
                f"{member!r} brings trained LayerNorms, and a block has one place for them only: for a stack or a "
                "fusion, train the members with train_layer_norms=False"
            )
    check_new_name(model, name)
    first = places[names[0]]
    for other, there in places.items():
        if alone := first.keys() ^ there.keys():
            at = min(alone)
            raise ValueError(
                f"{names[0]!r} and {other!r} are not in the same places, only {(names[0] if at in first else other)!r} "
                f"is at {at}: insert them with the same placement, layers and train_layer_norms"
            )
    # All that can fail is behind us when this is done.
    built = [build(names, [slot[member] for member in names]) for slot in first.values()]
    for slot, module in zip(first.values(), built, strict=True):
        slot[name], slot.configs[name] = module, slot.configs[names[-1]]
    set_active_adapter(model, name)
    return built


@torch.no_grad()
def fusion_attention(model: nn.Module, name: str, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """How much each member of the fusion ``name`` counts for each token, in evaluation mode, whatever is switched on.

    Ids and mask are ``(texts, tokens)``. Returns ``(texts, places, members, tokens)``, the places from the bottom block
    up: sums to 1 over the members, 0 at padding, so that ``attention.sum((0, 3)) / attention_mask.sum()`` is the mean
    over all words. Raises ValueError when there is no fusion of that name.
    """
    fusions = [slot[name] for slot in slots_with(model, name).values()]
    if not all(isinstance(fusion, Fusion) for fusion in fusions):
        call = "bank.fuse(names, 'fusion', 2)" if is_bank(model) else "fuse_adapters(model, names, 'fusion')"
        raise ValueError(f"{name!r} is no fusion, so it has no attention: {call} makes one")
    attention: dict[nn.Module, Tensor] = {}
    with kept_modes(model), routed([(name, len(input_ids))], attention):
        text_features(base_model_of(model).eval(), input_ids, attention_mask)
    places = torch.stack([attention[fusion] for fusion in fusions])  # (places, texts, tokens, members)
    return places.permute(1, 0, 3, 2) * attention_mask[:, None, None, :]
