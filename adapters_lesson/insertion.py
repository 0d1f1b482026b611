"""How adapters are put into a model, switched, taken out, and what is frozen.

Adapters hang below the base model's own modules and are called by forward hooks (see ``slots``), so the base's tensors
keep their names and their bytes. Where they hang, and what a block then computes, is said by ``placements``.
"""

import copy
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .adapter import Adapter, AdapterConfig, AnyConfig
from .architectures import Architecture, architecture_of, base_model_of, blocks_of, find, find_all, model_dim_of
from .guards import bank_guard, base_guard, config_guard, merge_guard, quantised_base
from .guards.bank_guard import adapter_names, check_new_name, users_of  # noqa: F401  names are known from here, too
from .placements import placement_of
from .slots import AdapterSlot, NormSlot, slots_of


def insert_adapters(
    model: nn.Module, config: AnyConfig, name: str = "default", *, architecture: Architecture | None = None
) -> list[Adapter]:
    """Put adapters into ``model``, in place, and make them the active ones. Nothing is frozen: see ``set_trainable``.

    ``from_pretrained`` drops the adapters that ``save_pretrained`` writes, since it builds the bare architecture: keep
    them with ``save_adapter``. A model that was compiled before is compiled again at its next call.

    Args:
        model: a ``SmallTransformer``, a model of transformers in ``architectures.ARCHITECTURES``, with or without a
            head, or any other module if ``architecture`` tells where its parts are; that is kept with the adapters.
        config: which adapters, and where; also the config of another kind of module (see ``adapter.KINDS``).
        name: by which the adapters are switched and removed.

    Returns the new adapters, from the bottom block up. Raises ValueError for a name that is taken or malformed, an
    unknown architecture, layers that the model lacks, a place whose forward is never called, or weights with which
    nothing can be trained (in ``torch.inference_mode``, or quantised so that no gradient passes): it is then as it was.
    """
    config_guard.check_insertion(model, config)
    bank_guard.check_no_bank(model, bank_guard.insertion(model, name))
    check_new_name(model, name)
    places = build_places(model, config, architecture)
    put_in(model, places, config, name, architecture)
    return [place.module for place in places if place.slot_type is not NormSlot]  # type: ignore[misc]


class Place(NamedTuple):
    """A new module, and the slot on ``host`` that it is for, which may not be there yet."""

    host: nn.Module
    slot_type: type[AdapterSlot]
    ffn_input: nn.Module
    module: nn.Module


def build_places(
    model: nn.Module, config: Any, architecture: Architecture | None = None, *, outline: bool = False
) -> list[Place]:
    """Everything that ``config`` puts into ``model``, from the bottom block up; ``outline``: on the meta device."""
    merge_guard.check_not_merged(model)
    at, places = architecture_of(model, architecture), []
    blocks = _chosen(blocks_of(model, at), config.layers)
    base_guard.check_weights(blocks, trained=not outline)
    for block in blocks:
        ffn_input, ffn_output = find(block, at.ffn_input), find(block, at.ffn_output)
        like = ffn_output if any(True for _ in ffn_output.parameters()) else block
        sites = placement_of(config).sites[at.norm]
        model_dim = model_dim_of(block, at, [site.host for site in sites])
        for site, host in [(one, host) for one in sites for host in one.find_hosts(block, at)]:
            base_guard.check_is_called(block, host, site.host)
            with torch.device("meta") if outline else _device(like):
                adapter = config.build(*site.widths(host, model_dim)).train(block.training)
            own = {key: p.to(quantised_base.dtype_of(like)) for key, p in adapter.named_parameters()}
            adapter.load_state_dict(own, strict=False, assign=True)  # as adapter.to(dtype), also under FakeTensorMode
            places.append(Place(host, site.slot, ffn_input, adapter))
        norms = [norm for path in at.norms for norm in find_all(block, path)] if config.train_layer_norms else []
        places += [Place(n, NormSlot, ffn_input, _fresh_copy(n)) for n in norms if any(True for _ in n.parameters())]
    base_guard.check_places(places, config)
    return places


def put_in(
    model: nn.Module, places: Iterable[Place], config: Any, name: str, architecture: Architecture | None = None
) -> None:
    """Put new modules into their slots, and make them the active ones."""
    if architecture is not None:  # whoever asks for it later finds it there
        base_model_of(model).adapter_architecture = architecture  # type: ignore[assignment]
    for host, slot_type, ffn_input, module in places:
        if not hasattr(host, slot_type.attribute):
            slot_type().train(host.training).attach(host, ffn_input)
            if hasattr(sys.modules.get("torch._dynamo"), "utils"):  # whole; what was compiled would not see a new hook
                torch.compiler.reset()
        slot = getattr(host, slot_type.attribute)
        slot[name], slot.configs[name] = module, config
    AdapterSlot.generation = object()
    switch_slots(slots_of(model), name)


def remove_adapters(model: nn.Module, name: str | None = None) -> None:
    """Take the adapters called ``name`` out again (None: all of them). The base model is then as before they came.

    Raises ValueError when there are none of that name, a stack or a fusion is made of them, or the model is a bank.
    """
    merge_guard.check_not_merged(model)
    if name is not None:
        bank_guard.check_known(model, name)
        bank_guard.check_unused(model, name)
    instead = bank_guard.removal(model, name) if name else "for name in reversed(list(bank.heads)): bank.remove(name)"
    bank_guard.check_no_bank(model, instead)
    hung = [(host, slot) for host in model.modules() for slot in host.children() if isinstance(slot, AdapterSlot)]
    for host, slot in hung:
        for key in [k for k in slot if name in (None, k)]:
            del slot[key], slot.configs[key]
            slot.active = None if slot.active == key else slot.active
        if not slot:
            for handle in slot.handles:
                handle.remove()
            delattr(host, slot.attribute)
    AdapterSlot.generation = object()
    if not slots_of(model):
        vars(base_model_of(model)).pop("adapter_architecture", None)


def set_active_adapter(model: nn.Module, name: str | None) -> None:
    """Let the adapters called ``name`` work and all others rest; None switches all off: the bare base model.

    Raises ValueError when there are none of that name, and for a bank, which switches heads as well.
    """
    if name is not None:
        bank_guard.check_known(model, name)
    bank_guard.check_no_bank(model, f"bank.switch({name!r})")
    switch_slots(slots_of(model), name)


def drop_adapters(model: nn.Module, layers: Iterable[int], *, architecture: Architecture | None = None) -> None:
    """Switch off the active adapters, and their trained LayerNorms, of the blocks ``layers``, counted from 0.

    This is AdapterDrop (Rücklé et al. 2020, arXiv 2010.11918). The adapters stay in the model:
    ``set_active_adapter(model, name)`` brings them back. Raises ValueError for layers or adapters that there are not.
    """
    blocks = _chosen(blocks_of(model, architecture), list(config_guard.check_layers(layers)))
    if not slots_of(model):
        first = bank_guard.insertion(model, "default")
        raise ValueError(f"the model has no adapters that could be dropped: {first} first")
    for block in blocks:
        switch_slots(slots_of(block), None)


def switch_slots(slots: Iterable[AdapterSlot], name: str | None) -> None:
    """Let ``name`` work in those of ``slots`` that have it, and nothing in the others."""
    for slot in slots:
        slot.active = name if name and name in slot else None


def slots_with(model: nn.Module, name: str) -> dict[str, AdapterSlot]:
    """The slots with adapters called ``name``, by their paths in the base model. Raises ValueError without any."""
    bank_guard.check_known(model, name)
    modules = base_model_of(model).named_modules()
    return {path: module for path, module in modules if isinstance(module, AdapterSlot) and name in module}


def adapter_config(model: nn.Module, name: str = "default") -> AdapterConfig:
    """The settings with which the adapters called ``name`` were inserted. Raises ValueError when there are none."""
    return next(iter(slots_with(model, name).values())).configs[name]


def freeze(model: nn.Module) -> None:
    """Train nothing in ``model``."""
    model.requires_grad_(False)


def set_trainable(model: nn.Module, name: str = "default", *, head: bool | None = None) -> None:
    """Freeze ``model`` but for the adapters called ``name``, their trained LayerNorms and its head.

    ``head``: train the head as well; None: yes, unless it is a language model's ``lm_head``, which came pretrained.
    Raises ValueError when there are no adapters of that name, for a bank, and for weights with which nothing can be
    trained. Warns when ``head=True`` finds no head, and of what looks like one in a class of one's own.
    """
    slots = slots_with(model, name).values()
    bank_guard.check_no_bank(model, f"bank.switch({name!r})")
    base_guard.check_no_inference(model)
    base_guard.check_head(model, bool(own := head_parameters(model)), head)
    freeze(model)
    for slot in slots:
        slot[name].requires_grad_(True)
    for parameter in own:
        parameter.requires_grad_(not has_lm_head(model) if head is None else head)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What ``model`` has beside its base model; a weight tied to the base's embeddings is the base's."""
    base = {id(p) for p in base_model_of(model).parameters()}
    return [p for p in model.parameters() if id(p) not in base]


def has_lm_head(model: nn.Module) -> bool:
    """Whether the head of ``model`` answers with words: transformers then knows its output embeddings."""
    return getattr(model, "get_output_embeddings", lambda: None)() is not None


def _chosen(blocks: list[nn.Module], layers: Sequence[int] | None) -> list[nn.Module]:
    if layers is None:
        return blocks
    if any(layer not in range(len(blocks)) for layer in layers):
        many = f"{len(blocks)} blocks" if len(blocks) > 1 else "1 block, which may be called several times"
        raise ValueError(f"layers={layers}, but the model has {many}: use 0 to {len(blocks) - 1}")
    return [blocks[i] for i in sorted(layers)]


def _device(module: nn.Module) -> torch.device:
    """Where ``module`` computes. Weights that accelerate has offloaded are on the meta device in between."""
    there = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(module.parameters()).device if there is None else torch.device(there)


def _fresh_copy(norm: nn.Module) -> nn.Module:
    """A trainable copy without the slots and hooks that may hang on the original."""
    plain = copy.copy(norm)
    plain._modules, plain._forward_hooks, plain._forward_pre_hooks = {}, OrderedDict(), OrderedDict()
    return copy.deepcopy(plain).requires_grad_(True)
