"""The one function that is called: it looks at a model or at a folder, whichever it is given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .files import in_files
from .findings import Diagnosis, diagnosis
from .models import in_model
from .one_pass import in_gradients, in_one_pass


def diagnose(
    model_or_folder: nn.Module | str | Path,
    optimizer: torch.optim.Optimizer | None = None,
    batch: Mapping[str, Any] | Sequence[Any] | None = None,
    base: nn.Module | None = None,
) -> Diagnosis:
    """Why has an adapter no effect, or does not train? What is wrong, where, and the remedy; see ``TROUBLES``.

    Args:
        model_or_folder: a model with adapters, of this course (an ``AdapterBank`` too) or of peft; or where they were
            saved: a folder of peft, of AdapterHub or of ``save_adapter``, or a file of the latter.
        optimizer: that of the training. With it, the adapter is expected to learn.
        batch: what the model is called with, a dict or a tuple. One forward and one backward pass are run in training
            mode; weights, gradients, buffers, modes and random numbers are then as they were. Without a batch the
            gradients of the model are looked at, if there are any: ask after ``loss.backward()``.
        base: the base model for which the adapter is meant: does the file fit it, has the model more tokens?

    A new adapter whose up_project (in LoRA: B) is zero is sound; one that was saved so, or is frozen so, is not. Raises
    StorageError when there is no such folder, or no adapter in it.
    """
    if not isinstance(model_or_folder, nn.Module):
        return diagnosis(*in_files(Path(model_or_folder).expanduser(), base))
    findings, looked_at = in_model(model_or_folder, optimizer, base)
    # What is seen in a pass is a symptom: it is reported only where no cause is known.
    if batch is not None:
        return diagnosis(findings or in_one_pass(model_or_folder, batch), f"{looked_at}, a forward and backward pass")
    # Where all of them are zero they were cleared, not computed.
    if any(p.grad is not None and p.requires_grad and bool(p.grad.any()) for p in model_or_folder.parameters()):
        return diagnosis(findings or in_gradients(model_or_folder), f"{looked_at}, its gradients")
    return diagnosis(findings, looked_at)
