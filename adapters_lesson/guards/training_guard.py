"""Before a run begins: is it the run that is meant? And why did a loss become no number?"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.slots import slots_of

from .base_guard import check_no_inference
from .base_parts import sha256_of
from .quantised_base import check_plain, keep_bytes, pieces

_PLAIN = (bool, int, float, str, type(None))


def check_can_learn(model: nn.Module) -> None:
    if name := next((name for name, parameter in model.named_parameters() if parameter.is_meta), None):
        raise ValueError(f"{name} is an outline on the meta device: load the model's weights first")
    check_no_inference(model)
    keep_bytes(model)
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    check_plain(trained, "requires_grad_(False) freezes it")


def check_base_is_frozen(model: nn.Module) -> None:
    """Raise ValueError when the whole base model would be trained with its adapters, which then fit no other copy."""
    names = dict.fromkeys(slot.active for slot in slots_of(model) if slot.active is not None)
    added = {p for slot in slots_of(model) for p in slot.parameters()}
    own = [p for p in base_model_of(model).parameters() if p not in added]
    if names and own and all(p.requires_grad for p in own):
        what = f"the whole base model would be trained with the adapters {', '.join(map(repr, names))}"
        raise ValueError(f"{what}: set_trainable(model) freezes it; if you mean it, train(..., train_base=True)")


def identity_of(model: nn.Module, data: Mapping[str, Iterable[torch.Tensor]]) -> dict[str, Any]:
    """What makes a run this run, beside its settings: ``data`` and frozen weights as SHA-256, modules' plain values."""
    frozen = [*((n, p) for n, p in model.named_parameters() if not p.requires_grad), *model.named_buffers()]
    named = {what: {str(i): tensor for i, tensor in enumerate(tensors)} for what, tensors in data.items()}
    named["frozen weights"] = dict(sorted(frozen, key=lambda pair: pair[0]))
    modules: dict[str, Any] = {}
    for path, module in model.named_modules():
        modules[f"{path}.kind"] = type(module).__name__
        for name, value in vars(module).items():  # widths, dropout, scaling
            if not name.startswith("_") and name not in ("training", "called"):
                own = value if isinstance(value, dict) else {"": value}
                modules |= {f"{path}.{name}.{key}".rstrip("."): v for key, v in own.items() if isinstance(v, _PLAIN)}
        for name, config in getattr(module, "configs", {}).items():
            modules |= {f"{path}.configs.{name}.{key}": str(value) for key, value in vars(config).items()}
    return {what: sha256_of(tensors) for what, tensors in named.items()} | {"modules": modules}


def difference(saved: dict[str, Any], here: dict[str, Any]) -> str:
    """In what two identities differ, in words; "" when they are the same."""
    theirs, ours = saved["modules"], here["modules"]
    for key in {**theirs, **ours}:
        if (there := theirs.get(key)) != (own := ours.get(key)):
            return f"{key}={there!r} in place of {own!r}"
    return ", ".join(f"other {what}" for what in here if what != "modules" and saved.get(what) != here[what])


def why_not_finite(model: nn.Module) -> str:
    """What to do when the loss is no number before anything was learnt."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not all(piece.isfinite().all() for piece in pieces(tensor)):
            return f"{name} holds values that are not finite: load the weights again"
    return "the weights are finite, so look at the data, and at what the model computes of the first batch"
