"""What a model answers to a dataset, and how good that is."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .batches import NOT_COUNTED, SpanTexts, Texts, TokenTexts, device_of, texts_of
from .guards.model_calls import loss_of, part, shift_by_loss, shift_of
from .modes import kept_modes


def evaluate(
    model: nn.Module, data: Any, batch_size: int | None = None, rows: Sequence[int] | None = None
) -> dict[str, float]:
    """Mean loss and accuracy of ``model`` on an encoded dataset, in evaluation mode.

    What stands under ``accuracy`` depends on the labels:

    - a class for each text: the share of texts with the right one;
    - a number (float) for each text: R², the share of the variance of the dataset's labels that is explained, 1 for a
      model that is always right and 0 for one that always says their mean; the loss is the mean squared error;
    - a class for each token: the share of the tokens that count (see ``TokenTexts``); not a number when the model gives
      neither ``correct`` nor ``logits`` beside its loss;
    - an answer from a token to a token (see ``SpanTexts``): the share with the right beginning and the right end.

    ``batch_size`` is 128 by default, and 8 with labels for tokens, since each can have tens of thousands of logits;
    ``rows``: only these. Raises ValueError for data that the model cannot read, with their row.
    """
    texts = texts_of(data, device_of(model))
    texts.check(model)
    rows = range(len(texts)) if rows is None else [int(row) for row in rows]
    if isinstance(texts, (TokenTexts, SpanTexts)):
        return _evaluate_batches(model, texts, rows, 8 if batch_size is None else batch_size)
    logits = _logits(model, texts, rows, 128 if batch_size is None else batch_size)
    loss = texts.mean_loss(logits, rows).item()
    if texts.labels.is_floating_point():
        variance = texts.labels.var(correction=0).item()
        return {"loss": loss, "accuracy": 1 - loss / variance if variance else math.nan}
    labels = texts.labels[list(rows)].to(logits.device)
    return {"loss": loss, "accuracy": (logits.argmax(-1) == labels).float().mean().item()}


def predict(model: nn.Module, data: Any, batch_size: int = 128) -> torch.Tensor:
    """Logits ``(texts, labels)`` in the order of the dataset, computed in evaluation mode; it needs no labels."""
    texts = texts_of(data, device_of(model), labelled=False)
    if isinstance(texts, (TokenTexts, SpanTexts)):
        raise ValueError("predict gives one row of logits for each text, but these data have labels for tokens")
    texts.check(model)
    return _logits(model, texts, range(len(texts)), batch_size)


@torch.inference_mode()
def _logits(model: nn.Module, texts: Texts, rows: Sequence[int], batch_size: int) -> torch.Tensor:
    groups = texts.by_length(batch_size, rows)
    with kept_modes(model):  # so that one may look while training
        model.eval()
        found = {row: one for group in groups for row, one in zip(group, texts.logits(model, group), strict=True)}
    return torch.stack([found[row] for row in rows])


@torch.inference_mode()
def _evaluate_batches(model: nn.Module, texts: Any, rows: Sequence[int], batch_size: int) -> dict[str, float]:
    loss, correct, counted = 0.0, 0.0, 0
    with kept_modes(model):
        model.eval()
        for number, group in enumerate(texts.by_length(batch_size, rows)):
            spans = isinstance(texts, SpanTexts)
            mean, right = _spans(model, texts, group) if spans else _tokens(model, texts, group, first=number == 0)
            if count := texts.counted(group):
                loss, correct, counted = loss + mean * count, correct + right, counted + count
    total = counted or math.nan
    return {"loss": loss / total, "accuracy": correct / total}


def _spans(model: nn.Module, texts: SpanTexts, rows: Sequence[int]) -> tuple[float, float]:
    """Mean loss, and how many answers have the right beginning and end."""
    logits = texts.logits(model, rows)
    labels = texts.labels[rows].to(logits.device)
    return texts.mean_loss(logits, rows).item(), float((logits.argmax(-1) == labels).all(-1).sum())


def _tokens(model: nn.Module, texts: TokenTexts, rows: Sequence[int], *, first: bool) -> tuple[float, float]:
    """Mean loss, and how many labels that count were predicted right; not a number when the output does not tell.

    Of a model that is not transformers' own, its loss shows on the first batch where it predicts a label.
    """
    output, labels = texts.answer(model, rows), texts.batch(rows)["labels"]
    loss, correct, logits = loss_of(output).item(), part(output, "correct"), part(output, "logits")
    known = hasattr(model, "loss_type") and shift_of(model) is not None
    if first and not known and (shift := shift_by_loss(output, labels)) is not None:
        texts.shift = shift
    if correct is not None or logits is None:
        return loss, math.nan if correct is None else float(correct)
    labels, logits = labels[:, texts.shift :], logits[:, : labels.shape[1] - texts.shift]
    return loss, float(((logits.argmax(-1) == labels) & (labels != NOT_COUNTED)).sum())
