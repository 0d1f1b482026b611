"""Weights that torchao or bitsandbytes have quantised: what they are made of, and whether one can train beside them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def is_quantised(tensor: Any) -> bool:
    """Whether a tensor of torchao's, or a weight that bitsandbytes has packed into 4 bits."""
    return type(tensor).__module__.startswith("torchao.") or getattr(tensor, "quant_state", None) is not None


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds floating-point numbers as they are."""
    return tensor.is_floating_point() and not is_quantised(tensor)


def pieces(tensor: Any) -> list[torch.Tensor]:
    """The plain tensors that ``tensor`` is made of, codes and scales; of one that is not quantised, itself."""
    if (state := getattr(tensor, "quant_state", None)) is not None:
        held = [*vars(state).values(), *(vars(state.state2).values() if state.nested else ())]
        return [tensor, *(one for one in held if isinstance(one, torch.Tensor))]
    names = tensor.__tensor_flatten__()[0] if is_quantised(tensor) else ()
    return [piece for name in names for piece in pieces(getattr(tensor, name))] or [tensor]


def numbers_in(parameter: Any) -> int:
    """How many weights ``parameter`` stands for; bitsandbytes packs two into a byte."""
    return getattr(getattr(parameter, "quant_state", None), "shape", parameter.shape).numel()


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type in which ``module`` computes: that of its first weight, before it was quantised."""
    first: Any = next(module.parameters())
    return getattr(getattr(first, "quant_state", None), "dtype", first.dtype)


def bytes_of(tensors: Iterable[torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """What ``tensors`` take, pieces and all; as if those that are not quantised were of the floating type ``dtype``."""
    total = 0
    for tensor in tensors:
        to = dtype if is_plain(tensor) else None
        total += sum(piece.numel() * (to or piece.dtype).itemsize for piece in pieces(tensor))
    return total


def keep_bytes(model: nn.Module) -> None:
    """Keep bitsandbytes from packing weights anew, in place, when they answer on a processor with AVX512-BF16.

    That form has rounded scales, no gradient passes it, and ``state_dict`` writes it wrongly. Raises ValueError for
    weights that are in it already.
    """
    for path, module in model.named_modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
                why = f"bitsandbytes has packed {path} anew, to answer on this processor, and rounded its scales"
                raise ValueError(f"{why}: quantise a fresh model, and insert the adapters before it answers")


def check_gradient(path: str, module: Any) -> None:
    """Raise ValueError unless the gradient passes through ``module``, whose weight is quantised."""
    x = torch.ones(1, module.in_features, dtype=dtype_of(module), device=module.weight.device, requires_grad=True)
    try:
        with torch.enable_grad():
            torch.autograd.grad(module.forward(x).sum(), x)
    except RuntimeError as error:
        what = f"{path} is of type {type(module.weight).__name__}, through which no gradient passes ({error})"
        raise ValueError(f"{what}: quantise a fresh model to int8 or NF4") from error


def check_plain(named: Iterable[tuple[str, torch.Tensor]], instead: str) -> None:
    """Raise ValueError for the first quantised weight: whole numbers have no gradient. ``instead``: what to do."""
    for path, parameter in named:
        if is_quantised(parameter):
            raise ValueError(f"{path} is quantised, and whole numbers have no gradient: {instead}")
