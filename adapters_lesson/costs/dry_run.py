"""One training step, watched: what is kept and what lives, also on tensors that have a shape and no numbers."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ContextDecorator, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from adapters_lesson.architectures import architecture_of, base_model_of, blocks_of, find_all
from adapters_lesson.guards.plain_values import check_whole
from adapters_lesson.guards.quantised_base import pieces
from adapters_lesson.memory_tricks import checkpointed
from adapters_lesson.modes import kept_modes, training_mode
from adapters_lesson.slots import AdapterSlot


def dry_run(
    model: nn.Module, batch_size: int, length: int, dtype: torch.dtype | None = None, checkpointing: bool = False
) -> tuple[int, torch.Tensor]:
    """Forward and backward pass of ``model`` on fake tensors, whatever modules it is made of; as for ``memory_ledger``.

    An outline stands for a model on a GPU, where dropout and attention keep less than on a CPU. Of its blocks three are
    run, and the others added. Returns the bytes that are kept for the backward pass, and those after each operation.
    """
    device, living, left_out = next(model.parameters()).device, Living(), 0
    blocks: list[nn.Module] = []
    entered: dict[int, tuple[int, int]] = {}  # by block: operations before it, and bytes that lived
    returned: dict[int, int] = {}  # by block: operations when the backward pass had left it

    def enter(block: int, x: torch.Tensor) -> None:
        entered[block] = len(living.history), living.now
        if x.requires_grad:
            x.register_hook(lambda _: returned.update({block: len(living.history)}))

    with ExitStack() as stack:
        if device.type == "meta":
            device = torch.device("cpu")
            blocks, left_out = stack.enter_context(_shortened(model))
            stack.enter_context(_LikeAGPU())
        for i, block in enumerate(blocks):
            stack.enter_context(block.register_forward_pre_hook(lambda _, args, i=i: enter(i, args[0])))
            # The mode around the model does not reach what a backward pass computes again.
            stack.enter_context(patch.object(block, "forward", _LikeAGPU()(block.forward)))
        if checkpointing:
            stack.enter_context(checkpointed(model))
        stack.enter_context(kept_modes(model))
        training_mode(model)
        # Only what comes out of the weights is fake. The mask is real: transformers looks whether it masks anything.
        loss = example_loss(model, batch_size, length, device)
        with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
            state: dict[str, Any] = {}
            for name, t in (*model.named_parameters(), *model.named_buffers()):
                of = dtype if dtype and t.is_floating_point() else t.dtype
                state[name] = torch.empty(t.shape, dtype=of, device=device, requires_grad=t.requires_grad)
                if is_traceable_wrapper_subclass(t):
                    state[name] = fakes.from_tensor(t)
                state[name].quant_state = getattr(t, "quant_state", None)  # where bitsandbytes looks for the scales
        # As torch.func.functional_call, but for the backward pass as well, which may compute blocks again.
        stack.enter_context(_reparametrize_module(model, state, tie_weights=True))
        stack.enter_context(living)
        activations = forward_and_backward(loss, state.values())
    history = torch.tensor(living.history)
    if not left_out:
        return activations, history
    # Each missing block keeps as much as the second one does, and leaves as large gradients. In the backward pass it
    # may still be kept or have its gradients, and the extremes are highest.
    (first, before), (_, after) = entered[1], entered[2]
    kept = left_out * (after - before)
    trained = [p for p in blocks[1].parameters() if p.requires_grad]
    gradients = left_out * sum(p.numel() * (dtype or p.dtype).itemsize for p in trained)
    top, bottom = (returned.get(block, len(history)) for block in (2, 1))
    return activations + kept, torch.cat([history[:first], history[first:bottom] + kept, history[top:] + gradients])


def example_loss(
    model: nn.Module, batch_size: int, sequence_length: int, device: torch.device
) -> Callable[[], torch.Tensor]:
    """The loss of ``model`` on an example of texts, or images for a ViT, as a function. ValueError if there is none."""
    check_whole("batch_size", batch_size)
    check_whole("sequence_length", sequence_length)
    base: Any = base_model_of(model)
    if getattr(base, "main_input_name", "") == "pixel_values":
        side, tokens = base.config.image_size, (base.config.image_size // base.config.patch_size) ** 2 + 1
        if sequence_length != tokens:
            raise ValueError(f"sequence_length must be {tokens}, the patches of an image and 1, not {sequence_length}")
        inputs = {"pixel_values": torch.zeros(batch_size, base.config.num_channels, side, side, device=device)}
    else:
        ids = torch.arange(batch_size * sequence_length, device=device).remainder(base.config.vocab_size)
        ids = ids.view(batch_size, sequence_length)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def loss() -> torch.Tensor:
        output = model(**inputs)
        logits = getattr(output, "logits", None if base is model else output)  # a bare base model answers nothing
        if logits is None:
            what = f"a step needs logits, and {type(model).__name__} gives none"
            raise ValueError(f"{what}: Classifier(model, num_labels=2)")
        logits = logits.flatten(0, -2)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=device))

    return loss


def forward_and_backward(loss: Callable[[], torch.Tensor], own: Iterable[torch.Tensor]) -> int:
    """Run both passes: the bytes that autograd keeps between them, each storage once, and those of ``own`` not."""
    held: list[weakref.ref[torch.Tensor]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept = tensor.detach()  # with its history it would keep the graph that keeps it alive for ever
        held.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        value = loss()  # the graph, and all it keeps, lives as long as this
    alive = (piece for kept in (saved() for saved in held) if kept is not None for piece in pieces(kept))
    sizes = {piece.untyped_storage()._cdata: piece.untyped_storage().nbytes() for piece in alive}
    if value.requires_grad:
        value.backward()
    known = {piece.untyped_storage()._cdata for t in own for piece in pieces(t)}
    return sum(size for key, size in sizes.items() if key not in known)


class Living(TorchDispatchMode):
    """Adds up all tensors that are born while it is on: ``now`` bytes live, ``history`` tells after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.history = 0, [0]
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(is_traceable_wrapper_subclass(t) for t in tree_leaves((args, kwargs))):
            return NotImplemented  # it comes back with the pieces of a quantised weight
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for storage in [t.untyped_storage() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]:
            if id(storage) not in given | self.known:
                self.known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        self.history.append(self.now)
        return result

    def _gone(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size


class _LikeAGPU(TorchFunctionMode, ContextDecorator):
    """Dropout and attention by the operations that a GPU has for them, which keep a mask of bytes and no scores."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        on_a_gpu = {F.dropout: self._dropout, F.scaled_dot_product_attention: self._attention}
        return on_a_gpu.get(function, function)(*args, **(kwargs or {}))

    def _dropout(self, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(x, p, True)[0] if training and p > 0 else x

    def _attention(self, query: Any, key: Any, value: Any, *_: Any, dropout_p: float = 0.0, **__: Any) -> torch.Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p)[0]


@contextmanager
def _shortened(model: nn.Module) -> Iterator[tuple[list[nn.Module], int]]:
    """Take out the blocks that are like the second one, but for it. Gives the others, and how many are missing."""
    base, at = base_model_of(model), architecture_of(model)
    blocks, stacks = blocks_of(base, at), find_all(base, at.layers)
    alike = len(blocks) > 3 and len({_signature(block) for block in blocks[1:-1]}) == 1
    if not alike or len(stacks) > 1 or len(stacks[0]) > len(blocks):  # type: ignore[arg-type]
        yield blocks, 0
        return
    few = [blocks[0], blocks[1], blocks[-1]]
    path = next(path for path, module in base.named_modules() if module is stacks[0])
    base.set_submodule(path, nn.ModuleList(few))
    try:
        yield few, len(blocks) - len(few)
    finally:
        base.set_submodule(path, stacks[0])


def _signature(block: nn.Module) -> tuple:
    tensors = tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in block.named_parameters())
    return tensors, tuple(m.active for m in block.modules() if isinstance(m, AdapterSlot))
