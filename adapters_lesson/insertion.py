"""How adapters are put into a model, switched, taken out, and what is frozen.

Adapters hang below the base model's own modules and are called by forward hooks (see ``slots``), so the base's tensors
keep their names and their bytes. With h the output of a sub-layer, r the residual stream that enters it, A an adapter
and LN the block's own LayerNorm:

| placement | post-LN (BERT) | pre-LN (GPT-2, Llama) |
|---|---|---|
| houlsby, after attention and FFN | LN(A(h) + r) | A(h) + r |
| pfeiffer, after the FFN | LN(A.update(LN(h + r)) + h + r) | A(h + r) |
| parallel, beside the FFN | LN(h + A.update(r) + r) | h + A.update(r) + r |
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn

from .adapter import Adapter, AdapterConfig
from .architectures import Architecture, architecture_of, base_model_of, blocks_of, find
from .slots import AdapterSlot, BeforeNormSlot, NormSlot, ParallelSlot, SequentialSlot, slots_of


def insert_adapters(
    model: nn.Module, config: AdapterConfig, name: str = "default", *, architecture: Architecture | None = None
) -> list[Adapter]:
    """Put adapters into ``model``, in place, and make them the active ones. Nothing is frozen: see ``set_trainable``.

    Args:
        model: a ``SmallTransformer``, a model of transformers (BERT, RoBERTa, DistilBERT, GPT-2, Llama, Mistral,
            Qwen2/3, ViT), with or without a head, or any other module if ``architecture`` tells where its parts are.
        config: which adapters, and where.
        name: by which the adapters are switched and removed.

    Returns:
        The new adapters, from the bottom block up.

    Raises:
        ValueError: for a name that is taken or malformed, an unknown architecture, layers that the model lacks.
            The model is then as it was.
    """
    check_new_name(model, name)
    places = build_places(model, config, architecture)
    put_in(model, places, config, name)
    return [place.module for place in places if isinstance(place.module, Adapter)]


class Place(NamedTuple):
    """A new module, and the slot that it is for: the ``attribute`` of ``host``, which may not be there yet."""

    host: nn.Module
    attribute: str
    slot_type: type[AdapterSlot]
    ffn_input: nn.Module
    module: nn.Module


def build_places(
    model: nn.Module, config: AdapterConfig, architecture: Architecture | None = None, *, outline: bool = False
) -> list[Place]:
    """Everything that ``config`` puts into ``model``, from the bottom block up. The model is not touched.

    Args:
        outline: build the adapters on the meta device, where they have shapes only.

    Raises:
        ValueError: for an unknown architecture, or layers that the model lacks.
    """
    architecture = architecture or architecture_of(model)
    places = []
    for block in _chosen_blocks(blocks_of(model, architecture), config.layers):
        ffn_input, ffn_output = find(block, architecture.ffn_input), find(block, architecture.ffn_output)
        model_dim = architecture.model_dim or output_width(ffn_output)
        like = next(ffn_output.parameters())
        device = torch.device("meta") if outline else like.device
        for host, slot_type in _places(block, architecture, config.placement):
            with device if device.type == "meta" else nullcontext():  # of an outline only the shapes are wanted
                adapter = config.build(model_dim).to(device, like.dtype).train(block.training)
            places.append(Place(host, f"{config.placement}_adapters", slot_type, ffn_input, adapter))
        if config.train_layer_norms:
            norms = [find(block, path) for path in architecture.norms]
            places += [Place(norm, "trained_norms", NormSlot, ffn_input, _fresh_copy(norm)) for norm in norms]
    return places


def put_in(model: nn.Module, places: Iterable[Place], config: AdapterConfig, name: str) -> None:
    """Put new modules into their slots, and make them the active ones."""
    set_active_adapter(model, None)
    for host, attribute, slot_type, ffn_input, module in places:
        if not hasattr(host, attribute):
            slot = slot_type().train(host.training)
            slot.attach(host, ffn_input)
            host.add_module(attribute, slot)
        slot = getattr(host, attribute)
        slot[name], slot.configs[name] = module, config
        slot.active = name


def remove_adapters(model: nn.Module, name: str | None = None) -> None:
    """Take the adapters called ``name`` out again (None: all of them). The base model is then as before they came.

    Raises:
        ValueError: when there are none of that name, or a stack or a fusion is made of them.
    """
    if name is not None:
        check_known(model, name)
        if users := users_of(model, name):
            raise ValueError(
                f"{name!r} is part of {', '.join(map(repr, users))}, which would not work without it: "
                f"remove_adapters(model, {users[0]!r}) first"
            )
    for host in list(model.modules()):
        for attribute, slot in list(host.named_children()):
            if not isinstance(slot, AdapterSlot):
                continue
            for key in [k for k in slot if name in (None, k)]:
                del slot[key], slot.configs[key]
                slot.active = None if slot.active == key else slot.active
            if not slot:
                for handle in slot.handles:
                    handle.remove()
                delattr(host, attribute)


def set_active_adapter(model: nn.Module, name: str | None) -> None:
    """Let the adapters called ``name`` work and all others rest; None switches all off: the bare base model.

    Raises:
        ValueError: when there are none of that name.
    """
    if name is not None:
        check_known(model, name)
    for slot in slots_of(model):
        slot.active = name if name is not None and name in slot else None


def drop_adapters(model: nn.Module, layers: Iterable[int], *, architecture: Architecture | None = None) -> None:
    """Switch off the active adapters, and their trained LayerNorms, of the blocks ``layers``, counted from 0.

    This is AdapterDrop (Rücklé et al. 2021, arXiv 2010.11918): ``drop_adapters(model, range(n))`` leaves the lowest n
    blocks bare. The adapters stay in the model: ``set_active_adapter(model, name)`` brings them all back.

    Raises:
        ValueError: for layers that the model lacks, or a model without adapters. The model is then as it was.
    """
    layers, blocks = list(layers), blocks_of(model, architecture)
    if any(layer not in range(len(blocks)) for layer in layers):
        raise ValueError(f"layers={layers}, but the model has {len(blocks)} blocks: use 0 to {len(blocks) - 1}")
    if not adapter_names(model):
        raise ValueError("the model has no adapters that could be dropped: insert_adapters(model, config) first")
    for layer in layers:
        for slot in slots_of(blocks[layer]):
            slot.active = None


def adapter_names(model: nn.Module) -> list[str]:
    """The names under which adapters were inserted, in the order of the modules."""
    return list(dict.fromkeys(key for slot in slots_of(model) for key in slot))


def users_of(model: nn.Module, name: str) -> list[str]:
    """The stacks and fusions (see ``composition``) that are made of the adapters called ``name``."""
    named = [pair for slot in slots_of(model) for pair in slot.items()]
    return list(dict.fromkeys(key for key, module in named if name in getattr(module, "names", ())))


def adapter_config(model: nn.Module, name: str = "default") -> AdapterConfig:
    """The settings with which the adapters called ``name`` were inserted.

    Raises:
        ValueError: when there are none of that name.
    """
    check_known(model, name)
    return next(slot.configs[name] for slot in slots_of(model) if name in slot.configs)


def freeze(model: nn.Module) -> None:
    """Train nothing in ``model``."""
    model.requires_grad_(False)


def set_trainable(model: nn.Module, name: str = "default", *, head: bool = True) -> None:
    """Freeze ``model`` but for the adapters called ``name``, their trained LayerNorms and, if asked, the head.

    Raises:
        ValueError: when there are no adapters of that name.
    """
    check_known(model, name)
    freeze(model)
    for slot in slots_of(model):
        if name in slot:
            slot[name].requires_grad_(True)
    if head:
        for parameter in head_parameters(model):
            parameter.requires_grad_(True)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What ``model`` has beside its base model; a weight tied to the base's embeddings is the base's."""
    base = {id(p) for p in base_model_of(model).parameters()}
    return [p for p in model.parameters() if id(p) not in base]


def _places(block: nn.Module, at: Architecture, placement: str) -> list[tuple[nn.Module, type[AdapterSlot]]]:
    """The hosts of one block's adapters, each with the slot that knows how to call them there."""
    if placement == "houlsby":
        return [(find(block, at.attention_output), SequentialSlot), (find(block, at.ffn_output), SequentialSlot)]
    if placement == "parallel":
        return [(find(block, at.ffn_output), ParallelSlot)]
    return [(find(block, at.norms[-1]), BeforeNormSlot)] if at.norm == "post" else [(block, SequentialSlot)]


def _chosen_blocks(blocks: list[nn.Module], layers: tuple[int, ...] | None) -> list[nn.Module]:
    if layers is None:
        return blocks
    if max(layers) >= len(blocks):
        raise ValueError(f"layers={layers}, but the model has {len(blocks)} blocks: use 0 to {len(blocks) - 1}")
    return [blocks[i] for i in sorted(layers)]


def _fresh_copy(norm: nn.Module) -> nn.Module:
    """A trainable copy without the slots and hooks that may hang on the original."""
    plain = copy.copy(norm)
    plain._modules, plain._forward_hooks = {}, type(norm._forward_hooks)()
    plain._forward_pre_hooks = type(norm._forward_pre_hooks)()
    return copy.deepcopy(plain).requires_grad_(True)


def output_width(projection: nn.Module) -> int:
    """The width of what ``projection`` returns.

    Raises:
        ValueError: when it is not written on a module of this type.
    """
    for attribute in ("out_features", "nf"):  # nn.Linear, and the Conv1D of GPT-2
        if isinstance(width := getattr(projection, attribute, None), int):
            return width
    raise ValueError(f"cannot read the width off a {type(projection).__name__}: give Architecture(model_dim=…)")


def check_new_name(model: nn.Module, name: str) -> None:
    """Raise ValueError unless ``name`` is well formed, and free in ``model``."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or hasattr(ParallelSlot(), name):
        raise ValueError(
            f"{name!r} cannot name an adapter: use letters, digits, - and _, beginning with a letter, "
            "and no word that PyTorch's modules use themselves"
        )
    if name in adapter_names(model):
        raise ValueError(
            f"the model has adapters called {name!r} already: choose another name, or remove_adapters(model, {name!r})"
        )


def check_known(model: nn.Module, name: str) -> None:
    """Raise ValueError unless ``model`` has adapters called ``name``."""
    if name not in (names := adapter_names(model)):
        have = f"it has {', '.join(map(repr, names))}" if names else "it has none: insert_adapters(model, config) first"
        raise ValueError(f"the model has no adapters called {name!r}; {have}")
