"""What saves time or memory in training, and does not change what is learnt. Each is switched on for a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .architectures import base_model_of, blocks_of
from .modes import kept_modes


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): a block keeps its input only, and is computed again
    when the backward pass needs what is inside. Less memory for activations, one forward pass more."""
    from torch.utils.checkpoint import checkpoint

    blocks = blocks_of(model)
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def cast_frozen(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let the frozen base compute in ``dtype`` (say, torch.bfloat16); what is trained stays as it is.

    Afterwards the base has its own tensors back, byte for byte. Activations take half of the memory. It also saves time
    on a GPU and on processors with units for bfloat16 matrices (AMX); on others it costs time: measure it.

    Raises:
        ValueError: if ``dtype`` is no floating-point type, nothing is frozen, or a module is frozen by half (BitFit).
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as torch.bfloat16, not {dtype}")
    originals: dict[nn.Parameter, torch.Tensor] = {}
    for name, module in base_model_of(model).named_modules():
        own = list(module.parameters(recurse=False))
        if len({p.requires_grad for p in own}) == 2:
            raise ValueError(f"{name} is frozen by half, as with BitFit: its parts cannot differ in type")
        originals.update({p: p.data for p in own if not p.requires_grad and p.is_floating_point()})
    if not originals:
        raise ValueError('nothing in the base model is frozen: prepare(model, "adapter") first')
    for parameter, original in originals.items():
        parameter.data = original.to(dtype)
    try:
        yield
    finally:
        for parameter, original in originals.items():
            parameter.data = original


class LowerBlocks:
    """The hidden states below the lowest trained block, computed once for each text.

    They never change, since everything below is frozen and in evaluation mode. So ``with lower.skipped(rows):`` a
    training step on these texts begins at the lowest trained block.

    Args:
        model: as prepared for training.
        texts: a ``training.Texts``; all of its hidden states are kept in memory (a float for each of d × tokens).

    Raises:
        ValueError: when something in the lowest block, or below, is trained: then there is nothing to skip.
    """

    def __init__(self, model: nn.Module, texts: Any, batch_size: int = 128) -> None:
        self.texts = texts
        self.blocks = self._frozen_blocks(model)
        self.is_tuple = False
        self.states: list[torch.Tensor] = [torch.empty(0)] * len(texts.ids)
        by_length = sorted(range(len(texts.ids)), key=texts.lengths.__getitem__)
        reached: list[Any] = []
        handle = self.blocks[-1].register_forward_hook(lambda module, inputs, output: reached.append(output))
        try:
            with torch.no_grad(), kept_modes(model):
                model.eval()
                for start in range(0, len(by_length), batch_size):
                    rows = by_length[start : start + batch_size]
                    model(*texts.batch(rows)[:2])
                    output = reached.pop()
                    self.is_tuple = isinstance(output, tuple)
                    for row, state in zip(rows, output[0] if self.is_tuple else output, strict=True):
                        self.states[row] = state[: texts.lengths[row]].clone()
        finally:
            handle.remove()

    @contextmanager
    def skipped(self, rows: list[int]) -> Iterator[None]:
        """The model's next forward pass, on these texts, takes the lower blocks' output from memory."""
        state = pad_sequence([self.states[row] for row in rows], batch_first=True)
        for block in self.blocks:
            block.forward = lambda *_, **__: (state,) if self.is_tuple else state
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    @staticmethod
    def _frozen_blocks(model: nn.Module) -> list[nn.Module]:
        base, blocks = base_model_of(model), blocks_of(model)
        inside = {id(p) for block in blocks for p in block.parameters()}
        embeddings = [n for n, p in base.named_parameters() if id(p) not in inside and p.requires_grad]
        trained = [i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
        lowest = min(trained, default=len(blocks))
        if embeddings or lowest == 0:
            what = embeddings[0] if embeddings else "block 0"
            raise ValueError(
                f"{what} is trained, so nothing below it can be kept: give the adapters to upper blocks only, for "
                "instance AdapterConfig(16, layers=(3, 4, 5))"
            )
        return blocks[:lowest]
