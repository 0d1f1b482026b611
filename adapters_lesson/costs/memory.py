"""The memory of a training step: predicted for any model by a dry run, and measured on a real step."""

from dataclasses import dataclass

import torch
from torch import nn

from adapters_lesson.guards.plain_values import check_choice
from adapters_lesson.guards.quantised_base import bytes_of
from adapters_lesson.modes import kept_modes, training_mode

from .dry_run import Living, dry_run, example_loss, forward_and_backward

# Tensors of each parameter's own size and type, and bytes beside them for each parameter tensor (Adam's step counter).
_OPTIMIZER_STATE = {"adamw": (2, 4), "momentum": (1, 0), "sgd": (0, 0)}
OPTIMIZERS = tuple(_OPTIMIZER_STATE)


@dataclass(frozen=True)
class MemoryLedger:
    """Bytes that one training step needs."""

    weights: int  # all parameters, frozen or not, and buffers
    gradients: int  # one number for each trained parameter
    optimizer_state: int  # Adam keeps two numbers for each trained parameter, and a step counter for each tensor
    activations: int  # what the forward pass keeps for the backward pass
    temporary: int  # at the highest point beyond the larger of activations and gradients, which do not add up

    @property
    def peak(self) -> int:
        """The highest point of the step: activations are released while gradients arrive."""
        return self.weights + self.optimizer_state + max(self.activations, self.gradients) + self.temporary

    def compare(self, measured: "MemoryLedger") -> str:
        """A table: this prediction, a measurement beside it, and the difference."""
        lines = [f"{'':16}{'predicted':>16}{'measured':>16}{'difference':>13}"]
        for name in ("weights", "gradients", "optimizer_state", "activations", "peak"):
            ours, theirs = getattr(self, name), getattr(measured, name)
            off = f"{100 * (ours / theirs - 1):+.2f} %" if ours != theirs and theirs else "none"
            lines.append(f"{name.replace('_', ' '):16}{ours:>16,}{theirs:>16,}{off:>13}")
        return "\n".join(lines)


def memory_ledger(
    model: nn.Module,
    batch_size: int,
    sequence_length: int,
    *,
    optimizer: str = "adamw",
    dtype: torch.dtype | None = None,
    checkpointing: bool = False,
) -> MemoryLedger:
    """Predict the memory of a training step of ``model`` as it is prepared now; it may be an outline.

    ``optimizer`` is "adamw", "momentum" (SGD with it) or "sgd"; ``dtype`` counts as if the model were of this type, and
    ``checkpointing`` as within ``memory_tricks.checkpointed``. Raises ValueError for sizes below 1, an unknown
    optimiser, or a model that gives no logits.
    """
    standing = standing_bytes(model, optimizer, dtype)
    activations, living = dry_run(model, batch_size, sequence_length, dtype, checkpointing)
    return MemoryLedger(*standing, activations, int(living.max()) - max(activations, standing[1]))


def standing_bytes(model: nn.Module, optimizer: str, dtype: torch.dtype | None = None) -> tuple[int, int, int]:
    """Weights, gradients and optimiser state, in bytes; arguments and errors as for ``memory_ledger``."""
    check_choice("optimizer", optimizer, OPTIMIZERS)
    trained: list[torch.Tensor] = [p for p in model.parameters() if p.requires_grad]
    copies, per_tensor = _OPTIMIZER_STATE[optimizer]
    gradients = bytes_of(trained, dtype)
    weights = bytes_of([*model.parameters(), *model.buffers()], dtype)
    return weights, gradients, copies * gradients + per_tensor * len(trained)


def measure_memory(
    model: nn.Module, batch_size: int, sequence_length: int, *, optimizer: str = "adamw"
) -> MemoryLedger:
    """Measure the same entries on real training steps with learning rate 0, so that the model stays as it is.

    Activations are the tensors that autograd has saved by the end of the forward pass, each storage once and the
    model's own not; the peak is that of all tensors that live during the step. The model's gradients are cleared.
    Raises ValueError as ``memory_ledger``, for an outline, and when nothing in the model is trained.
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError('nothing in the model requires gradients: prepare(model, "adapter") first')
    if trained[0].is_meta:
        raise ValueError("an outline cannot be measured, only predicted: memory_ledger(model, …)")
    loss = example_loss(model, batch_size, sequence_length, trained[0].device)
    tensors = [*model.parameters(), *model.buffers()]
    update: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    if optimizer != "adamw":
        update = torch.optim.SGD(trained, lr=0.0, momentum=0.9 if optimizer == "momentum" else 0.0)
    with kept_modes(model), torch.random.fork_rng():
        training_mode(model)
        update.zero_grad()
        for _ in range(2):  # the optimiser makes its state in the first step, the second one is as all later ones
            with Living() as living:
                activations = forward_and_backward(loss, tensors)
                gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
                update.step()
                update.zero_grad()
    state = [t for entry in update.state.values() for t in entry.values() if isinstance(t, torch.Tensor)]
    standing = (bytes_of(tensors), gradients, sum(t.nbytes for t in state))
    return MemoryLedger(*standing, activations, max(living.history) - max(activations, gradients))
