"""What one forward and one backward pass show: symptoms, for what no rule knows the cause of."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from adapters_lesson.modes import kept_modes
from adapters_lesson.slots import slots_of

from .findings import Finding, some
from .parts import parts_of_model

_NO_GRADIENT = (
    "let all of it run outside torch.no_grad(), detach nothing on the way to the loss, and see that the model calls "
    "the modules on which the adapters hang"
)


def checkpointing(where: str) -> Finding:
    what = "gradient checkpointing is reentrant, and what it computes again from inputs without gradient gets none"
    remedy = 'gradient_checkpointing_enable({"use_reentrant": False}), or enable_input_require_grads() before training'
    return Finding("checkpointing", what, where, f"{remedy}: both of the model")


def in_one_pass(model: nn.Module, batch: Mapping[str, Any] | Sequence[Any]) -> list[Finding]:
    """Run a pass with ``batch`` and say what went wrong in it. The model is then, bit by bit, as it was."""
    with _as_it_was(model), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.train()
        try:
            loss = _loss(model(**batch) if isinstance(batch, Mapping) else model(*batch))
        except Exception as error:  # of whatever model
            what = f"the forward pass fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return [Finding("gradient", what, type(model).__name__, "call the model as in training: mend this first")]
        if not loss.isfinite():
            remedy = "look at the labels and the inputs; compute the loss in float32 or bfloat16, not in float16"
            return [Finding("not finite", f"the loss of this batch is {loss.item()}", "forward pass", remedy)]
        if loss.requires_grad:
            loss.backward()
        if any("None of the inputs have requires_grad=True" in str(one.message) for one in said):
            return [checkpointing(type(model).__name__)]
        if not loss.requires_grad:
            off = "" if torch.is_grad_enabled() else ": this runs under torch.no_grad() or inference_mode()"
            what = f'the loss depends on nothing that is trained ("element 0 of tensors does not require grad"){off}'
            return [Finding("gradient", what, "forward pass", _NO_GRADIENT)]
        return in_gradients(model)


def in_gradients(model: nn.Module) -> list[Finding]:
    """What the gradients of ``model`` say of the adapters that are in use and trained."""
    # Beside the blocks much may be unused (a pooler), and in a mixture of experts a few are called at a time.
    parts = [part for part in parts_of_model(model) if part.on and part.trained]
    parts = [part for part in parts if any(map(str.isdigit, part.path.split("."))) and "expert" not in part.path]
    got = [[w.grad for w in part.weights if w.grad is not None] for part in parts]
    wrong = [part.path for part, own in zip(parts, got, strict=True) if not all(g.isfinite().all() for g in own)]
    none = [part.path for part, own in zip(parts, got, strict=True) if not own]
    if wrong:
        remedy = "lower the learning rate, clip the gradients, and look at the loss"
        return [Finding("not finite", f"gradients at {len(wrong)} places are not finite", some(wrong), remedy)]
    if none:
        what = f"no gradient reaches {len(none)} of {len(parts)} adapters that are trained"
        return [Finding("gradient", what, some(none), _NO_GRADIENT)]
    if parts and not any(bool(g.any()) for own in got for g in own):
        what = "the gradient of all adapters is zero: nothing that they do changes the loss"
        return [Finding("gradient", what, some(part.path for part in parts), "are all labels ignored (-100)?")]
    return []


def _loss(output: Any) -> torch.Tensor:
    """The loss in what a model returns; else a weighted sum, since a plain one may be constant."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss.sum()
    found = next(one for one in tree_leaves(output) if isinstance(one, torch.Tensor) and one.is_floating_point())
    return (found.float() * torch.linspace(-1, 2, found.numel(), device=found.device).view_as(found)).sum()


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Afterwards weights, gradients, buffers, modes, slots and random numbers are as before."""
    gradients = {p: p.grad for p in model.parameters()}
    # Trained weights, too: a hook on a gradient may step an optimiser.
    values = {t: t.detach().clone() for t in (*model.buffers(), *(p for p in gradients if p.requires_grad))}
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    called = [(slot, slot.called) for slot in slots_of(model)]
    devices = {p.device.index for p in gradients if p.device.type == "cuda"}
    with torch.random.fork_rng(devices), kept_modes(model):
        try:
            for p in gradients:
                p.grad = None
            yield
        finally:
            with torch.no_grad():
                for tensor, value in values.items():
                    if not torch.equal(tensor, value):
                        tensor.copy_(value)
            for p, gradient in gradients.items():
                p.grad = gradient
            for module, own in buffers:
                module._buffers.update(own)
            for slot, before in called:
                slot.called = before
