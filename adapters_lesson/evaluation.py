"""What a model answers to a dataset, and how good that is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .batches import NOT_COUNTED, TokenTexts, device_of, texts_of
from .modes import kept_modes


def evaluate(model: nn.Module, data: Any, batch_size: int | None = None) -> dict[str, float]:
    """Mean loss and accuracy of ``model`` on an encoded dataset, in evaluation mode.

    With labels for tokens, both are means over the tokens that count, and the logits of one batch at a time are in
    memory. The accuracy is not a number when the model gives neither ``correct`` nor ``logits`` beside its loss.

    Args:
        batch_size: 128 by default, and 8 with labels for tokens, since each token can have tens of thousands of logits.
    """
    texts = texts_of(data, device_of(model))
    if isinstance(texts, TokenTexts):
        return _evaluate_tokens(model, texts, batch_size or 8)
    logits = predict(model, texts, batch_size or 128)
    labels = texts.labels.to(logits.device)
    return {
        "loss": F.cross_entropy(logits, labels).item(),
        "accuracy": (logits.argmax(-1) == labels).float().mean().item(),
    }


@torch.inference_mode()
def predict(model: nn.Module, data: Any, batch_size: int = 128) -> torch.Tensor:
    """Logits ``(texts, labels)`` in the order of the dataset, computed in evaluation mode."""
    texts = texts_of(data, device_of(model))
    if isinstance(texts, TokenTexts):
        raise ValueError("predict gives one row of logits for each text, but these data have labels for tokens")
    groups = texts.by_length(batch_size)
    with kept_modes(model):  # so that one may look while training
        model.eval()
        parts = [model(*texts.batch(rows)[:2]) for rows in groups]
    order = torch.tensor(list(itertools.chain(*groups)))
    return torch.cat(parts)[order.argsort()]


@torch.inference_mode()
def _evaluate_tokens(model: nn.Module, texts: TokenTexts, batch_size: int) -> dict[str, float]:
    texts.check(model)
    loss, correct, counted = 0.0, 0.0, 0
    with kept_modes(model):
        model.eval()
        for rows in texts.by_length(batch_size):
            batch, count = texts.batch(rows), texts.counted(rows)
            output = model(**batch)
            loss += output.loss.item() * count
            correct += _correct(output, batch["labels"])
            counted += count
    return {"loss": loss / counted, "accuracy": correct / counted}


def _correct(output: Any, labels: torch.Tensor) -> float:
    """How many labels that count were predicted right; not a number when the output does not tell."""
    correct, logits = getattr(output, "correct", None), getattr(output, "logits", None)
    if correct is not None:
        return float(correct)
    if logits is None:
        return math.nan
    right = (logits[:, :-1].argmax(-1) == labels[:, 1:]) & (labels[:, 1:] != NOT_COUNTED)
    return float(right.sum())
