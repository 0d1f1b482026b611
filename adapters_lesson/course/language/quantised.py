"""A base model with quantised weights: by bitsandbytes in NF4, for QLoRA (arXiv 2305.14314), or by torchao in int8."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import blocks_of
from adapters_lesson.guards.plain_values import check_choice
from adapters_lesson.guards.quantised_base import keep_bytes
from adapters_lesson.slots import slots_of

_BY = {"nf4": "bitsandbytes", "nf4 double": "bitsandbytes", "int8": "torchao"}  # double: the scales, too


def quantise_base(model: nn.Module, how: str = "nf4") -> None:
    """Quantise the linear layers in the blocks of ``model``, in place; embeddings, norms and head stay as they are.

    ``how`` is "nf4", "nf4 double" (the scales as well) or "int8". Raises ValueError for another, for adapters in the
    model, or rows that NF4's blocks of 64 do not fill, ImportError when the package is missing.
    """
    if find_spec(_BY[check_choice("how", how, _BY)]) is None:
        get = "`make quantised` installs it, 47 MB (without make: pip install bitsandbytes torchao)"
        raise ImportError(f"the package {_BY[how]} is not installed: {get}")
    if slots_of(model):
        raise ValueError("the adapters would be quantised, too: remove_adapters(model) first, insert them afterwards")
    found = [(block, *named) for block in blocks_of(model) for named in block.named_modules()]
    linears = [(block, path, linear) for block, path, linear in found if type(linear) is nn.Linear]
    for _, path, linear in linears:
        if how != "int8" and linear.in_features % 64:  # bitsandbytes 0.50 takes wrong scales where there is AVX-512
            raise ValueError(f"a row of {path} has {linear.in_features} weights, and blocks of 64 do not fill it")
    for block, path, linear in linears:
        if how == "int8":
            from torchao.quantization import Int8WeightOnlyConfig, quantize_

            quantize_(linear, Int8WeightOnlyConfig())
        else:
            from bitsandbytes.nn import Linear4bit

            new = Linear4bit(linear.in_features, linear.out_features, bias=False, device="meta").train(linear.training)
            set_nf4(new, linear.weight.detach(), how == "nf4 double")
            new.bias = linear.bias
            block.set_submodule(path, new)
    keep_bytes(model)


def set_nf4(linear: Any, weight: torch.Tensor, double: bool = False) -> None:
    """Quantise ``weight`` as that of bitsandbytes' layer ``linear``: shape ``(out, in)``."""
    from bitsandbytes.nn import Params4bit

    new = Params4bit(weight, quant_type="nf4", compress_statistics=double, module=linear)
    linear.weight = new.to(weight.device)


def nf4_weight(linear: Any) -> torch.Tensor:
    """The weight of bitsandbytes' layer ``linear`` as plain numbers, in the type that it had: shape ``(out, in)``."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(linear.weight.data, linear.weight.quant_state)
