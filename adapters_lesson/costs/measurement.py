"""The memory of a training step, measured on a real one."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..modes import kept_modes, training_mode
from ..transformer import Classifier
from .memory import MemoryLedger, check


def measure_memory(
    model: Classifier, batch_size: int, sequence_length: int, *, optimizer: str = "adamw"
) -> MemoryLedger:
    """Measure the same entries on real training steps with learning rate 0, so that the model stays as it is.

    Parameters, gradients and optimiser state are counted tensor by tensor; activations are the tensors that autograd
    has saved by the end of the forward pass, each storage once and the model's own not; the peak is that of all
    tensors that live during the step (on a GPU: the allocator's). The model's gradients are cleared.

    Raises:
        ValueError: as ``memory_ledger``, and when nothing in the model is trained.
    """
    check(model, batch_size, sequence_length, optimizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError('nothing in the model requires gradients: prepare(model, "adapter") first')
    device = trained[0].device
    if device.type == "meta":
        raise ValueError("an outline cannot be measured, only predicted: memory_ledger(model, …)")
    vocabulary = model.base_model.config.vocab_size  # type: ignore[union-attr]
    shape = (batch_size, sequence_length)
    input_ids = torch.arange(batch_size * sequence_length, device=device).remainder(int(vocabulary)).view(shape)  # type: ignore[arg-type]
    mask = torch.ones(shape, dtype=torch.long, device=device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    make = {
        "adamw": lambda: torch.optim.AdamW(trained, lr=0.0, fused=True),
        "momentum": lambda: torch.optim.SGD(trained, lr=0.0, momentum=0.9),
        "sgd": lambda: torch.optim.SGD(trained, lr=0.0),
    }
    update = make[optimizer]()

    def forward() -> torch.Tensor:
        return F.cross_entropy(model(input_ids, mask), labels)

    def step() -> None:
        forward().backward()
        update.step()
        update.zero_grad()

    with kept_modes(model), torch.random.fork_rng():
        training_mode(model)
        update.zero_grad()
        activations = _saved_bytes(forward, model)
        forward().backward()
        gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
        update.step()
        update.zero_grad()
        state = [t for entry in update.state.values() for t in entry.values() if isinstance(t, torch.Tensor)]
        process = _process_growth(step)
        highest = _highest_point(step, device)
    return MemoryLedger(
        weights=sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        gradients=gradients,
        optimizer_state=sum(t.nbytes for t in state),
        activations=activations,
        temporary=highest - max(activations, gradients),
        process=process,
    )


def _saved_bytes(forward: Callable[[], torch.Tensor], model: nn.Module) -> int:
    """Bytes of the tensors that autograd holds after ``forward``, each storage once, the model's own left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> _Held:
        handle = _Held(tensor.detach())  # with its history it would keep the graph that keeps it alive for ever
        held.add(handle)
        return handle

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda handle: handle.tensor):
        loss = forward()  # held in a variable: the graph, and all it keeps, lives as long as the loss
    storages = {s.data_ptr(): s.nbytes() for s in (handle.tensor.untyped_storage() for handle in held)}
    del loss
    return sum(size for pointer, size in storages.items() if pointer not in own)


class _Held:
    """What autograd saved: a handle that dies when the graph lets go of it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class _Living(TorchDispatchMode):
    """Adds up the bytes of all tensors that are born while it is on, and remembers the highest point."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.highest = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in before | self.known:
                    self.known.add(id(storage))
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        self.highest = max(self.highest, self.now)
        return result

    def _gone(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size


def _highest_point(step: Callable[[], None], device: torch.device) -> int:
    """Bytes at the highest point of ``step``, beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with _Living() as living:
        step()
    return living.highest


def _process_growth(step: Callable[[], None]) -> int | None:
    """Growth of the process's resident memory up to its highest point in ``step``; None where it cannot be known."""
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the highest point back to now (Linux, man 5 proc)
        before = _kilobytes(status, "VmRSS")
        step()
        return 1024 * max(0, _kilobytes(status, "VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _kilobytes(status: Path, key: str) -> int:
    return next(int(n) for name, n in re.findall(r"^(\w+):\s+(\d+) kB", status.read_text(), re.M) if name == key)
