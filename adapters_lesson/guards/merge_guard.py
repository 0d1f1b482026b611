"""LoRA in the weights: can it be multiplied in, and is what is asked for possible while it is?"""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.slots import slots_of

from .bank_guard import check_known, check_no_bank
from .plain_values import REAL


def check_not_merged(model: nn.Module) -> None:
    for slot in slots_of(model):
        if merged := getattr(slot, "_merged", None):
            raise ValueError(f"{merged[0]!r} is merged into the weights: lora.unmerge(model) first")


def check_can_merge(model: nn.Module, name: str, hosts: Collection[Any]) -> None:
    """Raise ValueError unless the weights of ``hosts`` can take the LoRA ``name``, and are nobody else's."""
    check_no_bank(model, "to serve one task alone, merge into a model of its own")
    check_known(model, name)
    check_not_merged(model)
    named = list(model.named_parameters(remove_duplicate=False))
    base = base_model_of(model)
    paths = {id(module): path for path, module in base.named_modules()}
    if not hosts:
        raise ValueError(f"{name!r} is no LoRA: only a linear update can be multiplied into weights")
    for host in hosts:
        at, W = paths[id(host)], host.weight
        if type(W.data) is not torch.Tensor or W.dtype not in REAL:
            what = f"{type(W.data).__name__} of {str(W.dtype).removeprefix('torch.')}"
            raise ValueError(f"{at} is quantised ({what}): merge before that")
        if len(tied := [key for key, parameter in named if parameter is W]) > 1:
            both = " and ".join(tied)
            raise ValueError(f"{both} are one tied weight, and LoRA is beside {at} only: untie them first")
