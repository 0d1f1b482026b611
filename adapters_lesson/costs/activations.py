"""What a forward pass keeps for the backward pass, by one rule for each kind of operation.

| operation | keeps | if |
|---|---|---|
| linear layer | its input | its weight is trained |
| LayerNorm | its input, mean and spread of every token | a gradient passes through it, or it is trained |
| GELU, SiLU | its input | a gradient passes through it |
| ReLU, tanh | its output | a gradient passes through it |
| attention | query, key, value, output, one number per row | a gradient passes through it |
| dropout that is on | its mask | a gradient passes through it |
| sum, reshaping | nothing | |

A gradient passes through a tensor when something trained lies before it. What two operations both need is kept once.
A linear layer needs its weight, too, but that is not an activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..adapter import Adapter
from ..architectures import Architecture, find
from ..slots import AdapterSlot

# How many tensors of its input's size an activation keeps, where it is not one.
_KEPT = {"NewGELUActivation": 4, "Identity": 0}
_KEEP_OUTPUT = ("ReLU", "Tanh", "ReLUActivation")


@dataclass(eq=False)
class Hidden:
    """A tensor on its way: how many numbers, bytes of each, and whether a gradient passes back through it."""

    numbers: int
    itemsize: int
    gradient: bool

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.numbers * self.itemsize


class Tape:
    """Follows a forward pass over one text of ``length`` tokens and notes what is kept; a batch keeps it for each.

    Args:
        itemsize: bytes of a number in the hidden states.
        dtype: count as if everything were of this type; None to take each parameter as it is.
        cpu: on a CPU dropout keeps its mask as numbers of the hidden states' type and computes the attention with
            dropout step by step; a GPU has better ways for both.
    """

    def __init__(self, length: int, itemsize: int, dtype: torch.dtype | None = None, cpu: bool = True) -> None:
        self.length, self.itemsize, self.dtype, self.cpu = length, itemsize, dtype, cpu
        self.kept: dict[Hidden, int] = {}
        self.bytes_at_ffn_output = 0

    @property
    def bytes(self) -> int:
        """All that is kept so far."""
        return sum(self.kept.values())

    def new(self, width: int, gradient: bool, itemsize: int | None = None) -> Hidden:
        """A tensor with ``width`` numbers for each token."""
        return Hidden(self.length * width, itemsize or self.itemsize, gradient)

    def itemsize_of(self, parameter: torch.Tensor) -> int:
        """Bytes of a number in ``parameter``."""
        return (self.dtype or parameter.dtype).itemsize

    def cast(self, x: Hidden, parameter: torch.Tensor) -> Hidden:
        """``x`` in the parameter's precision, a copy of it if that is another one."""
        itemsize = self.itemsize_of(parameter)
        return x if itemsize == x.itemsize else Hidden(x.numbers, itemsize, x.gradient)

    def keep(self, *tensors: Hidden) -> None:
        """Keep them, once each."""
        self.kept.update({tensor: tensor.bytes for tensor in tensors})

    def linear(self, x: Hidden, module: Any) -> Hidden:
        """A linear layer, with peft's LoRA around it or without."""
        if hasattr(module, "base_layer"):
            out = self.linear(x, module.base_layer)
            for name in [] if module.merged else module.active_adapters:
                low = self.linear(self.cast(x, module.lora_A[name].weight), module.lora_A[name])
                out = self.sum(out, self.linear(low, module.lora_B[name]))
            return out
        weight, bias = module.weight, getattr(module, "bias", None)
        if weight.requires_grad:
            self.keep(x)
        width = module.nf if hasattr(module, "nf") else weight.shape[0]  # GPT-2 keeps its matrices the other way
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        return self.new(int(width), x.gradient or trained, x.itemsize)

    def norm(self, x: Hidden, module: Any) -> Hidden:
        """A LayerNorm, or Llama's RMSNorm. Its statistics, and all of an RMSNorm, are in single precision."""
        weight = module.weight
        trained = any(p.requires_grad for p in module.parameters(recurse=False))
        if isinstance(module, nn.LayerNorm):
            if trained or x.gradient:
                self.keep(x, self.new(2, True, 4))
        else:
            if x.gradient:
                self.keep(x if x.itemsize == 4 else Hidden(x.numbers, 4, True), self.new(1, True, 4))
            if weight.requires_grad:  # the weight is a factor of its own, and needs the other one
                self.keep(Hidden(x.numbers, x.itemsize, True))
        return Hidden(x.numbers, x.itemsize, x.gradient or trained)

    def activation(self, x: Hidden, module: nn.Module | None) -> Hidden:
        """An activation; None stands for GELU."""
        kind = type(module).__name__
        count = _KEPT.get(kind, 1)
        if count == 0:
            return x
        out = Hidden(x.numbers, x.itemsize, x.gradient)
        if x.gradient:
            self.keep(out if kind in _KEEP_OUTPUT else x)
            self.keep(*(Hidden(x.numbers, x.itemsize, True) for _ in range(count - 1)))
        return out

    def dropout(self, x: Hidden, on: bool) -> Hidden:
        """Dropout; if it is off it does nothing at all."""
        if not on:
            return x
        if x.gradient:
            self.keep(Hidden(x.numbers, x.itemsize if self.cpu else 1, True))
        return Hidden(x.numbers, x.itemsize, x.gradient)

    def attention(self, query: Hidden, key: Hidden, value: Hidden, heads: int, dropout: bool) -> Hidden:
        """Scaled dot-product attention; ``out`` is what goes into the output projection."""
        out = Hidden(query.numbers, query.itemsize, query.gradient or key.gradient or value.gradient)
        if not out.gradient:
            return out
        if dropout and self.cpu:  # scaled copies of query and key; the weights before and after dropout, and its mask
            squares = [Hidden(self.length * heads * self.length, query.itemsize, True) for _ in range(3)]
            self.keep(Hidden(query.numbers, query.itemsize, True), Hidden(key.numbers, key.itemsize, True), value)
            self.keep(*squares)
        else:
            self.keep(query, key, value, out, self.new(heads, True, 4))
        return out

    def sum(self, *terms: Hidden) -> Hidden:
        """A sum keeps nothing."""
        return Hidden(terms[0].numbers, terms[0].itemsize, any(term.gradient for term in terms))

    def update(self, h: Hidden, adapter: Adapter) -> Hidden:
        """An adapter's update; an adapter in another precision than the base keeps its input in its own."""
        x = self.cast(h, adapter.down_project.weight)
        down = self.activation(self.linear(x, adapter.down_project), adapter.activation)
        up = self.dropout(self.linear(down, adapter.up_project), is_on(adapter.dropout))
        return Hidden(h.numbers, h.itemsize, up.gradient)

    def block(self, x: Hidden, block: nn.Module, at: Architecture, heads: int) -> Hidden:
        """One block, with whatever adapters are active inside it."""
        post = at.norm == "post"
        attention_norm, ffn_norm = (find(block, name) for name in (at.norms[0], at.norms[-1]))
        residual_dropout = drops_residual(block, at)

        h = x if post else self.slot_norm(x, attention_norm)
        inputs = [self.linear(h, find(block, name)) for name in at.attention_inputs]
        query, key, value = inputs if len(inputs) == 3 else self._split(inputs[0])
        h = self.attention(
            query, key, value, heads, bool(at.attention_dropout) and is_on(find(block, at.attention_dropout))
        )
        h = self.sequential(self.linear(h, find(block, at.attention_output)), find(block, at.attention_output))
        x = self.sum(x, self.dropout(h, residual_dropout))
        x = self.slot_norm(x, attention_norm) if post else x

        h = self.ffn(x if post else self.slot_norm(x, ffn_norm), block, at)
        contract = find(block, at.ffn_output)
        h = self.sequential(self.linear(h, contract), contract)
        if parallel := active(contract, "parallel_adapters"):
            h = self.sum(h, self.update(x, parallel))
        x = self.sum(x, self.dropout(h, residual_dropout))
        if not post:
            return x
        normed = self.slot_norm(x, ffn_norm)
        if pfeiffer := active(ffn_norm, "pfeiffer_adapters"):
            return self.norm(self.sum(self.update(normed, pfeiffer), x), active(ffn_norm, "trained_norms") or ffn_norm)
        return normed

    def ffn(self, x: Hidden, block: nn.Module, at: Architecture) -> Hidden:
        """The FFN up to its last projection; with two projections at its beginning the first gates the second."""
        inputs = [self.linear(x, find(block, name)) for name in at.ffn_inputs]
        h = self.activation(inputs[0], _activation_of(block))
        if len(inputs) == 2:
            gate, h = h, self.sum(h, inputs[1])
            if h.gradient:
                self.keep(gate, inputs[1])  # each factor of a product needs the other
        self.bytes_at_ffn_output = self.bytes
        return h

    def sequential(self, h: Hidden, host: nn.Module, slot: str = "houlsby_adapters") -> Hidden:
        """The adapter behind ``host``, if there is an active one."""
        adapter = active(host, slot)
        return h if adapter is None else self.sum(h, self.update(h, adapter))

    def slot_norm(self, x: Hidden, norm: nn.Module) -> Hidden:
        """A LayerNorm, or the trained copy in its place, which computes in its own precision."""
        copy = active(norm, "trained_norms")
        if copy is None:
            return self.norm(x, norm)
        return Hidden(x.numbers, x.itemsize, self.norm(self.cast(x, copy.weight), copy).gradient)

    def _split(self, x: Hidden) -> tuple[Hidden, Hidden, Hidden]:
        """Query, key and value out of one tensor: views of it, which are kept as a whole."""
        part = Hidden(x.numbers // 3, x.itemsize, x.gradient)
        return part, Hidden(part.numbers, x.itemsize, x.gradient), Hidden(part.numbers, x.itemsize, x.gradient)


def is_on(module: nn.Module) -> bool:
    """Whether ``module`` is a dropout that drops something now."""
    return isinstance(module, nn.Dropout) and module.training and module.p > 0


def active(host: nn.Module, slot: str) -> Any:
    """The active module in a slot of ``host``, or None."""
    found = getattr(host, slot, None)
    return found.current if isinstance(found, AdapterSlot) else None


def drops_residual(block: nn.Module, at: Architecture) -> bool:
    """Whether dropout is on where the sub-layers of ``block`` end."""
    return any(is_on(module) for name, module in _own(block) if name != at.attention_dropout)


def _activation_of(block: nn.Module) -> nn.Module | None:
    """The FFN's activation, if it is a module."""
    kinds = ("GELU", "SiLU", "GELUActivation", "SiLUActivation", "NewGELUActivation", *_KEEP_OUTPUT)
    found = [module for _, module in _own(block) if type(module).__name__ in kinds]
    return found[-1] if found else None


def _own(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The block's modules by name, without those of adapters."""
    inside_adapters = {id(m) for slot in block.modules() if isinstance(slot, AdapterSlot) for m in slot.modules()}
    return [(name, module) for name, module in block.named_modules() if id(module) not in inside_adapters]
