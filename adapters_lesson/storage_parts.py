"""What of a model belongs to one adapter, what the adapter is tied to, and whether another model has the same."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from .adapter import ACTIVATIONS, Adapter, AdapterConfig
from .architectures import Architecture, architecture_of, base_model_of, blocks_of, find
from .bank import AdapterBank
from .composition import Composed
from .insertion import adapter_names, head_parameters, output_width
from .slots import AdapterSlot
from .storage_format import StorageError, sha256_of


def library_version() -> str:
    """Of this package; "unknown" in a checkout that is not installed."""
    try:
        return version("adapters-lesson")
    except PackageNotFoundError:
        return "unknown"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the base model's own tensors, whatever adapters are in it: their names, types, shapes and bytes.

    Raises:
        StorageError: for a model on the meta device, which has no bytes.
    """
    base = base_model_of(model)
    slots = tuple(f"{path}." for path, module in base.named_modules() if isinstance(module, AdapterSlot))
    own = {key: tensor for key, tensor in base.state_dict().items() if not key.startswith(slots)}
    if any(tensor.is_meta for tensor in own.values()):
        raise StorageError("the model is an outline on the meta device: load its weights first")
    return sha256_of(own)


def digest(model: nn.Module, name: str) -> str:
    """SHA-256 over the adapters ``name``: weights and settings, and in a stack or a fusion those of its members."""
    slots = slots_with(model, name)
    module, config = next((slot[name], slot.configs[name]) for slot in slots.values())
    settings: list[Any] = [type(module).__name__, *slots]
    if isinstance(module, Composed):
        settings += [(member, digest(model, member)) for member in module.names]
    else:
        settings += [config.activation, float(config.scaling)]
    return sha256_of({json.dumps(settings): torch.empty(0)} | adapter_tensors(slots, name))


def description(model: nn.Module, architecture: Architecture | None) -> dict[str, Any]:
    """What is compared before the fingerprint, because it says more about how two models differ."""
    base = base_model_of(model)
    at = architecture or architecture_of(base)
    blocks = blocks_of(base, at)
    return {
        "architecture": str(getattr(getattr(base, "config", None), "model_type", type(base).__name__)),
        "model_dim": at.model_dim or output_width(find(blocks[0], at.ffn_output)),
        "layers": len(blocks),
    }


def slots_with(model: nn.Module, name: str) -> dict[str, AdapterSlot]:
    """The slots with adapters called ``name``, by their paths in the base model."""
    modules = base_model_of(model).named_modules()
    return {path: module for path, module in modules if isinstance(module, AdapterSlot) and name in module}


def adapter_tensors(slots: dict[str, AdapterSlot], name: str) -> dict[str, torch.Tensor]:
    """The tensors of the adapters and trained LayerNorms called ``name``."""
    return {f"{path}.{key}": t for path, slot in slots.items() for key, t in slot[name].state_dict().items()}


def head_tensors(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """The head's own tensors. A bank's are called as those of a ``Classifier``: each can load what the other saved.

    Raises:
        StorageError: when a bank has no such task.
    """
    if isinstance(model, AdapterBank):
        if name not in model.heads:
            raise StorageError(f"{name!r} is no task of the bank and has no head there: save it from bank.base_model")
        return {f"head.{key}": tensor for key, tensor in model.heads[name].state_dict().items()}
    own = {id(parameter) for parameter in head_parameters(model)}
    return {key: parameter for key, parameter in model.named_parameters() if id(parameter) in own}


def spec(tensor: torch.Tensor) -> dict[str, Any]:
    """Type and shape, as they stand in JSON."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def slot_dtype(path: str, module: nn.Module) -> str:
    """The type of a module's tensors.

    Raises:
        StorageError: when they differ.
    """
    names = {spec(tensor)["dtype"] for tensor in module.state_dict().values()} or {"float32"}
    if len(names) > 1:
        raise StorageError(f"the weights at {path} are of several types: {', '.join(sorted(names))}")
    return names.pop()


def check_settings(path: str, module: nn.Module, config: AdapterConfig) -> None:
    """Raise StorageError when an adapter could not be built again from its settings."""
    if isinstance(module, Adapter) and (
        module.scaling != config.scaling
        or type(module.activation) is not ACTIVATIONS[config.activation]
        or module.down_project.out_features != config.bottleneck_for(module.down_project.in_features)
    ):
        raise StorageError(f"the adapter at {path} was changed after it was inserted with {config}: it is {module}")


def check_base(model: nn.Module, content: dict[str, Any], architecture: Architecture | None) -> None:
    """Raise StorageError unless ``model`` has the base model of the adapter."""
    for what, here in description(model, architecture).items():
        if content[what] != here:
            raise StorageError(f"the adapter is of a model with {what}={content[what]!r}, and this one has {here!r}")
    if content["base_sha256"] != (here := fingerprint(model)):
        raise StorageError(
            "the adapter was trained on another base model, of the same shape but with other weights (fingerprint "
            f"{content['base_sha256'][:12]}…, this one has {here[:12]}…): load the model that it belongs to"
        )


def check_members(model: nn.Module, composition: dict[str, Any]) -> None:
    """Raise StorageError unless ``model`` has the adapters of which a stack or a fusion was made."""
    if composition["kind"] not in ("Stack", "Fusion") or not composition["members"]:
        raise StorageError(f"there is no {composition['kind']!r} of {composition['members']}")
    for member in composition["members"]:
        if member["name"] not in adapter_names(model):
            raise StorageError(f"it is made of {member['name']!r} among others: load that one first")
        if member["sha256"] != digest(model, member["name"]):
            raise StorageError(
                f"it was made of another {member['name']!r} than the model has now: load that one instead"
            )


def check_head(model: nn.Module, head: dict[str, Any]) -> None:
    """Raise StorageError unless ``model`` can take a saved head. A bare base model takes none."""
    saved = head["tensors"]
    shapes = {key: one["shape"] for key, one in saved.items()}
    if isinstance(model, AdapterBank):
        rows = len(head["labels"]) if head["labels"] else shapes.get("head.bias", [0])[0]
        width = model.base_model.config.hidden_size  # type: ignore[union-attr]
        if rows < 2 or shapes != {"head.weight": [rows, width], "head.bias": [rows]}:
            raise StorageError(f"a bank's head for {rows} labels is linear, from {width}: not {shapes}")
        return
    here = {key: spec(parameter) for key, parameter in head_tensors(model, "").items()}
    if here and here != saved:
        key = min(key for key in here.keys() | saved.keys() if here.get(key) != saved.get(key))
        raise StorageError(
            f"the saved head is another than the model's: {key!r} is {saved.get(key, 'not there')}, here "
            f"{here.get(key, 'not there')}. Make the model with the same head, or load into its base model"
        )
