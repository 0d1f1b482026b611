"""The adapters in a model, one by one and in one form: the course's own, and the layers of peft."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.composition import Composed, Stack
from adapters_lesson.guards.bank_guard import users_of
from adapters_lesson.slots import AdapterSlot


@dataclass
class Part:
    """One adapter at one place of a model."""

    name: str
    path: str  # of the place
    weights: list[nn.Parameter]
    adds: list[nn.Parameter]  # of these: as long as all are zero, it adds nothing
    on: bool  # whether a forward pass uses it, by its switches
    within: bool = False  # used by a stack or a fusion, which may leave it frozen
    merged: bool = False  # whether it is multiplied into the weight beside it now
    beside: Any = None  # that weight, of a linear layer
    delta: Callable[[], torch.Tensor] | None = None  # what it adds to that weight, as one matrix

    @property
    def trained(self) -> bool:
        return any(w.requires_grad for w in self.weights)

    @property
    def adds_nothing(self) -> bool:
        return bool(self.adds) and not any(bool(w.any()) for w in self.adds)


def parts_of_model(model: nn.Module) -> list[Part]:
    """All adapters of ``model`` at all places, in the order of its modules."""
    parts: list[Part] = []
    for path, module in model.named_modules():
        if isinstance(module, AdapterSlot):
            parts += _of_slot(model, path, module)
        elif hasattr(module, "adapter_layer_names") and hasattr(module, "merged_adapters"):
            parts += _of_peft(path, module)
    return parts


def _of_slot(model: nn.Module, path: str, slot: AdapterSlot) -> Iterator[Part]:
    host = model.get_submodule(path.rpartition(".")[0])
    merged, _ = getattr(slot, "_merged", None) or (None, None)
    for name, module in slot.items():
        within = slot.active != name and slot.active in users_of(model, name)
        trained: Any = module.members[-1] if isinstance(module, Stack) else module
        up = None if isinstance(module, Composed) else getattr(module, "up_project", getattr(module, "lora_B", None))
        adds = list(up.parameters()) if isinstance(up, nn.Module) else []
        on, beside = within or slot.active == name, getattr(host, "weight", None)
        delta = partial(_delta, module, host) if hasattr(module, "delta") else None
        yield Part(name, path, list(trained.parameters()), adds, on, within, merged == name, beside, delta)


def _delta(module: Any, host: nn.Module) -> torch.Tensor:
    return module.delta() if isinstance(host, nn.Linear) else module.delta().T  # GPT-2 has it the other way


def _of_peft(path: str, layer: Any) -> Iterator[Part]:
    kept: dict[str, Any] = {key: getattr(layer, key, None) for key in layer.adapter_layer_names}
    kept = {key: one for key, one in kept.items() if isinstance(one, (nn.ModuleDict, nn.ParameterDict))}
    for name in dict.fromkeys(name for one in kept.values() for name in one):
        own = {key: one[name] for key, one in kept.items() if name in one}
        own = {key: list(one.parameters()) if isinstance(one, nn.Module) else [one] for key, one in own.items()}
        adds = [w for key in ("lora_B", "lora_embedding_A") for w in own.get(key, [])]
        on = not layer.disable_adapters and name in layer.active_adapters
        weights, merged = [w for one in own.values() for w in one], name in layer.merged_adapters
        beside = getattr(getattr(layer, "base_layer", None), "weight", None)
        delta = partial(layer.get_delta_weight, name) if hasattr(layer, "get_delta_weight") else None
        yield Part(name, path, weights, adds, on, False, merged, beside, delta)


def fresh_heads(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Classification heads of transformers' models whose bias is exactly 0, as it is only before training."""
    labels = getattr(getattr(base_model_of(model), "config", None), "num_labels", None)
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.bias is not None and module.out_features == labels:
            named = not {"classifier", "score", "qa_outputs"}.isdisjoint(path.split("."))
            if named and ".original_module" not in path and not module.bias.any():
                yield path, module


def words_of(model: nn.Module) -> Any:
    """The module of a model's input embeddings, None where transformers does not know it."""
    with suppress(AttributeError, NotImplementedError):
        base: Any = base_model_of(model)
        return base.get_input_embeddings()
    return None


def embeddings(model: nn.Module | None) -> tuple[str, torch.Tensor] | None:
    """Path and weight of a model's input embeddings, None if they are not known."""
    module = words_of(model) if model is not None else None
    module = getattr(module, "original_module", getattr(module, "base_layer", module))
    weight = getattr(module, "weight", None)
    if model is None or not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        return None
    return next((path, weight) for path, one in model.named_modules() if one is module)
