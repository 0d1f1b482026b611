"""The memory of a training step, predicted by formula."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ..architectures import Architecture, architecture_of, blocks_of
from ..composition import Composed
from ..modes import kept_modes, training_mode
from ..slots import slots_of
from ..transformer import Classifier
from .activations import Hidden, Tape, drops_residual, is_on

# Tensors of each parameter's own size and type, and bytes beside them for each parameter tensor (Adam's step counter).
_OPTIMIZER_STATE = {"adamw": (2, 4), "momentum": (1, 0), "sgd": (0, 0)}
OPTIMIZERS = tuple(_OPTIMIZER_STATE)


@dataclass(frozen=True)
class MemoryLedger:
    """Bytes that one training step needs.

    Attributes:
        weights: all parameters, frozen or not, and buffers.
        gradients: one number for each trained parameter.
        optimizer_state: Adam keeps two numbers for each trained parameter, and a step counter for each tensor.
        activations: what the forward pass keeps for the backward pass.
        temporary: what is needed at the highest point beyond the larger of activations and gradients: activations
            are released while gradients arrive, so the two don't add up.
        process: growth of the whole process's resident memory in that step, where it was measured (Linux only).
    """

    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    temporary: int
    process: int | None = None

    @property
    def peak(self) -> int:
        """The highest point of the step."""
        return self.weights + self.optimizer_state + max(self.activations, self.gradients) + self.temporary

    def __str__(self) -> str:
        entries = {**asdict(self), "peak": self.peak}
        process = entries.pop("process")
        lines = [f"{name.replace('_', ' '):16}{value / 2**20:12,.2f} MiB" for name, value in entries.items()]
        if process is not None:
            lines.append(f"{'process, growth':16}{process / 2**20:12,.2f} MiB")
        return "\n".join(lines)

    def compare(self, measured: MemoryLedger) -> str:
        """A table: this prediction, a measurement beside it, and the difference."""
        lines = [f"{'':16}{'predicted':>16}{'measured':>16}{'difference':>13}"]
        for name in ("weights", "gradients", "optimizer_state", "activations", "peak"):
            ours, theirs = getattr(self, name), getattr(measured, name)
            off = f"{100 * (ours / theirs - 1):+.2f} %" if ours != theirs and theirs else "none"
            lines.append(f"{name.replace('_', ' '):16}{ours:>16,}{theirs:>16,}{off:>13}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Footprint:
    """The memory of a training step on texts of one length, for batches of any size.

    Attributes:
        weights, gradients, optimizer_state: bytes, as in ``MemoryLedger``; the batch has no part in them.
        activations: bytes that the forward pass keeps for each text.
        fixed: bytes of activations beside them, however large the batch.
        highest: bytes for each text at the highest point of the backward pass, with the activations still kept there.
    """

    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    fixed: int
    highest: int

    def ledger(self, batch_size: int) -> MemoryLedger:
        """What a batch of ``batch_size`` texts needs.

        Raises:
            ValueError: for a batch size below 1.
        """
        _check_size("batch_size", batch_size)
        activations = batch_size * self.activations + self.fixed
        return MemoryLedger(
            self.weights,
            self.gradients,
            self.optimizer_state,
            activations,
            temporary=max(batch_size * self.highest - max(activations, self.gradients), 0),
        )

    def largest_batch(self, capacity: int) -> int:
        """How many texts fit into ``capacity`` bytes; 0 if not even one does."""
        room = capacity - self.weights - self.optimizer_state
        if room < self.gradients:
            return 0
        # Of gradients, activations and the highest point only the largest counts, so each of them has to fit alone.
        each = ((0, self.highest), (self.fixed, self.activations))
        return max(0, min((room - fixed) // per_text for fixed, per_text in each if per_text))


def memory_ledger(
    model: Classifier,
    batch_size: int,
    sequence_length: int,
    *,
    optimizer: str = "adamw",
    dtype: torch.dtype | None = None,
    checkpointing: bool = False,
) -> MemoryLedger:
    """Predict the memory of a training step of ``model`` as it is prepared now; it may be an outline.

    Args:
        model: a ``Classifier``; its modules' ``requires_grad`` say what is trained.
        batch_size, sequence_length: texts in a batch, and tokens in each of them.
        optimizer: "adamw", "momentum" (SGD with it) or "sgd".
        dtype: count as if the model were of this type; None to take it as it is.
        checkpointing: every block keeps its input only and is computed again in the backward pass (Chen et al. 2016,
            arXiv 1604.06174): see ``savings.checkpointed``.

    Raises:
        ValueError: for sizes below 1, an unknown optimiser, a model that is no Classifier or has an Architecture
            without ``attention_inputs`` and ``ffn_inputs``, or in which a stack or a fusion is active.
    """
    settings: Any = {"optimizer": optimizer, "dtype": dtype, "checkpointing": checkpointing}
    return footprint(model, sequence_length, **settings).ledger(batch_size)


def footprint(
    model: Classifier,
    sequence_length: int,
    *,
    optimizer: str = "adamw",
    dtype: torch.dtype | None = None,
    checkpointing: bool = False,
) -> Footprint:
    """The same for batches of any size; arguments and errors as for ``memory_ledger``."""
    check(model, 1, sequence_length, optimizer)
    if any(isinstance(slot.current, Composed) for slot in slots_of(model)):
        raise ValueError("the formulas know plain adapters only: measure_memory measures a stack or a fusion, too")
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]

    def size(tensors: list[Any]) -> int:
        return sum(t.numel() * (dtype if dtype and t.is_floating_point() else t.dtype).itemsize for t in tensors)

    copies, per_tensor = _OPTIMIZER_STATE[optimizer]
    gradients = size(trained)
    with kept_modes(model):
        training_mode(model)
        activations, fixed, highest = _activations(model, sequence_length, dtype, checkpointing)
    return Footprint(
        weights=size(parameters) + size(list(model.buffers())),
        gradients=gradients,
        optimizer_state=copies * gradients + per_tensor * len(trained),
        activations=activations,
        fixed=fixed,
        highest=highest,
    )


def _activations(
    model: Classifier, length: int, dtype: torch.dtype | None, checkpointing: bool
) -> tuple[int, int, int]:
    """``Footprint.activations``, ``fixed`` and ``highest``."""
    base = model.base_model
    at, config = architecture_of(base), base.config
    blocks = blocks_of(base, at)
    reference = next(p for p in base.parameters() if p.is_floating_point())
    itemsize = (dtype or reference.dtype).itemsize
    tape = Tape(length, itemsize, dtype, cpu=reference.device.type == "cpu")
    modules = list(base.modules())
    first = modules.index(blocks[0])
    below, above = modules[:first], modules[first + sum(1 for block in blocks for _ in block.modules()) :]
    embeddings = [m for m in below if isinstance(m, nn.Embedding) and m.weight.requires_grad]
    for _ in embeddings:
        tape.keep(tape.new(1, False, 8))  # the token numbers
    x = tape.new(int(config.hidden_size), bool(embeddings))  # type: ignore[union-attr, arg-type]
    for norm in _norms(below):
        x = tape.norm(x, norm)
    x = tape.dropout(x, any(is_on(m) for m in below))
    for block in blocks:
        before = dict(tape.kept)
        inputs, x = x, tape.block(x, block, at, int(config.num_attention_heads))  # type: ignore[union-attr, arg-type]
        if checkpointing and x.gradient:
            tape.kept = before
            tape.keep(inputs)
        x = tape.sequential(x, block, "pfeiffer_adapters")  # behind a pre-LN block, so never computed again
    highest = tape.bytes_at_ffn_output + _working_set(tape, blocks[-1], at, x.gradient)
    for norm in _norms(above):
        x = tape.norm(x, norm)
    if x.gradient:
        tape.keep(tape.new(1, False), Hidden(1, itemsize, False))  # the mask as numbers, and its sum
    # The features are one vector a text, not one a token.
    features = Hidden(model.head.in_features, tape.itemsize_of(model.head.weight), x.gradient)
    logits = tape.linear(features, model.head)
    if logits.gradient:
        logits.numbers = model.head.out_features
        tape.keep(logits, Hidden(1, 8, False))  # probabilities and label; and the loss keeps the batch's sum of weights
    return tape.bytes, 4 if logits.gradient else 0, highest


def _norms(modules: list[nn.Module]) -> list[nn.Module]:
    return [m for m in modules if type(m).__name__.endswith("Norm")]


def _working_set(tape: Tape, block: nn.Module, at: Architecture, gradient: bool) -> int:
    """What the last block's FFN needs beside what is kept up to there: its wide tensors, or their gradients.

    Of the width of the hidden states there is one gradient, two if dropout makes the sub-layer's another one than the
    residual stream's. In a pass without gradients there are the block's input, the residual stream and, in a pre-LN
    block, the LayerNorm's output.
    """
    weight = block.get_submodule(at.ffn_output).weight
    assert isinstance(weight, torch.Tensor)
    narrow, wide = sorted(weight.shape)
    narrow_tensors = 1 + drops_residual(block, at) if gradient else 2 + (at.norm == "pre")
    return tape.length * tape.itemsize * ((len(at.ffn_inputs) + 1) * wide + narrow_tensors * narrow)


def check(model: nn.Module, batch_size: int, sequence_length: int, optimizer: str) -> None:
    """Raise ValueError for what neither the prediction nor the measurement can deal with."""
    _check_size("batch_size", batch_size)
    _check_size("sequence_length", sequence_length)
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(map(repr, OPTIMIZERS))}, not {optimizer!r}")
    if not isinstance(model, Classifier):
        raise ValueError(
            f"the ledger reads a Classifier, not a {type(model).__name__}: Classifier(model, num_labels=2)"
        )
    at = architecture_of(model)
    if not (at.attention_inputs and at.ffn_inputs):
        raise ValueError("this Architecture names no attention_inputs and ffn_inputs, which the ledger needs")


def _check_size(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
