"""What saves time or memory in training, and does not change what is learnt. Each is switched on for a `with` block."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch  # sets an attribute for the time of a `with` block

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .architectures import Architecture, base_model_of, blocks_of
from .guards.quantised_base import is_plain
from .modes import kept_modes


@contextmanager
def checkpointed(model: nn.Module, *, architecture: Architecture | None = None) -> Iterator[None]:
    """Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): a block keeps its input only, and is computed again
    when the backward pass needs what is inside. Less memory for activations, one forward pass more.

    ``architecture``: as for ``insert_adapters``, for a model without adapters.
    """
    from torch.utils.checkpoint import checkpoint

    with ExitStack() as stack:
        for module in base_model_of(model).modules():
            config = getattr(module, "config", None)
            if getattr(config, "use_cache", None) is True:  # it would be filled twice, and the second pass see too much
                stack.enter_context(patch.object(config, "use_cache", False))
        for block in blocks_of(model, architecture):
            twice = partial(checkpoint, block.forward, use_reentrant=False)
            stack.enter_context(patch.object(block, "forward", twice))
        yield


@contextmanager
def cast_frozen(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let the frozen base compute in ``dtype`` (say, torch.bfloat16); what is trained stays as it is.

    Afterwards the base has its own tensors back, byte for byte. Activations take half of the memory; time is saved only
    where the processor has units for it. Raises ValueError if ``dtype`` is no floating-point type, nothing is frozen,
    or a module is frozen by half (BitFit).
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as torch.bfloat16, not {dtype}")
    originals: dict[nn.Parameter, torch.Tensor] = {}
    for name, module in base_model_of(model).named_modules():
        own = list(module.parameters(recurse=False))
        if len({p.requires_grad for p in own}) == 2:
            raise ValueError(f"{name} is frozen by half, as with BitFit: its parts cannot differ in type")
        originals.update({p: p.data for p in own if not p.requires_grad and is_plain(p)})
    if not originals:
        raise ValueError('nothing in the base model is frozen: prepare(model, "adapter") first')
    try:
        for parameter, original in originals.items():
            parameter.data = original.to(dtype)
        yield
    finally:
        for parameter, original in originals.items():
            parameter.data = original


_INSTEAD = "their results cannot be kept, train with cache_frozen=False"


class LowerBlocks:
    """The hidden states below the lowest trained block, computed once for each text, and kept in memory.

    They never change, since everything below is frozen and in evaluation mode. So ``with lower.skipped(rows):`` a
    training step on these texts begins at the lowest trained block. Raises ValueError when something in the lowest
    block, or below, is trained: then there is nothing to skip.
    """

    def __init__(self, model: nn.Module, texts: Any, batch_size: int = 128) -> None:
        self.blocks = _frozen_blocks(model)
        self.rest: list[Any] | None = None  # what a block returns beside hidden states, if it returns a tuple
        self.states: list[torch.Tensor] = [torch.empty(0)] * len(texts)  # (tokens, d) of each text
        reached: list[Any] = []
        hook = self.blocks[-1].register_forward_hook(lambda module, inputs, output: reached.append(output))
        with hook, torch.no_grad(), kept_modes(model):
            model.eval()
            for rows in texts.by_length(batch_size):
                texts.answer(model, rows)
                output = reached.pop()
                if isinstance(output, tuple):
                    output, *self.rest = output
                if any(isinstance(one, torch.Tensor) for one in self.rest or ()):  # T5 passes position biases on
                    raise ValueError(f"a {type(self.blocks[-1]).__name__} returns more than hidden states: {_INSTEAD}")
                for row, state in zip(rows, output, strict=True):
                    self.states[row] = state[: texts.lengths[row]].clone()

    @contextmanager
    def skipped(self, rows: list[int]) -> Iterator[None]:
        """The model's next forward pass, on these texts, takes the lower blocks' output from memory."""
        state = pad_sequence([self.states[row] for row in rows], batch_first=True)  # (rows, longest, d)
        output = state if self.rest is None else (state, *self.rest)
        with ExitStack() as stack:
            for block in self.blocks:
                stack.enter_context(patch.object(block, "forward", lambda *args, **named: output))
            yield


def _frozen_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks below the lowest that is trained."""
    base, blocks = base_model_of(model), blocks_of(model)
    if hasattr(base, "encoder") and hasattr(base, "decoder"):
        raise ValueError(f"the blocks of a {type(base).__name__} are no single stack: {_INSTEAD}")
    inside = {id(p) for block in blocks for p in block.parameters()}
    embeddings = [n for n, p in base.named_parameters() if id(p) not in inside and p.requires_grad]
    trained = [i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
    lowest = min(trained, default=len(blocks))
    if embeddings or lowest == 0:
        raise ValueError(
            f"{embeddings[0] if embeddings else 'block 0'} is trained, so nothing below it can be kept: give the "
            "adapters to upper blocks only, for instance AdapterConfig(16, layers=(3, 4, 5))"
        )
    return blocks[:lowest]
