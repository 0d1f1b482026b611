"""A model can read the columns of the data, and answers what is asked: how it is called, and what it returns."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson.architectures import base_model_of

from .base_parts import unwrapped

_POSITIONS = ("position_embeddings", "wpe", "embed_positions")  # how tables of positions are called


def positions_of(base: nn.Module) -> int | None:
    """How many tokens the tables of positions in ``base`` have a row for; None where there is no table."""
    tables = [m for n, m in base.named_modules() if isinstance(m, nn.Embedding) and n.split(".")[-1] in _POSITIONS]
    # RoBERTa and its kin count positions from padding_idx + 1, OPT from an offset.
    skipped = [getattr(m, "offset", 0) + (0 if m.padding_idx is None else m.padding_idx + 1) for m in tables]
    return min((m.num_embeddings - n for m, n in zip(tables, skipped, strict=True)), default=None)


def check_readable(model: nn.Module, ids: list[torch.Tensor], along: dict[str, list[torch.Tensor]]) -> None:
    base: Any = base_model_of(unwrapped(model))
    config = getattr(base, "config", None)
    words = getattr(base, "get_input_embeddings", lambda: None)()
    longest = positions_of(base)
    for what, rows, size, mend in (
        ("input_ids", ids, getattr(words, "num_embeddings", getattr(config, "vocab_size", None)),
         "encode with the tokenizer that belongs to this model"),
        ("position_ids", along.get("position_ids", [torch.arange(len(row)) for row in ids]), longest,
         f"cut longer texts, encode(task, tokenizer, max_length={longest})"),
        ("token_type_ids", along.get("token_type_ids", []), getattr(config, "type_vocab_size", 0) if config else None,
         'leave them out, data.remove_columns("token_type_ids")'),
    ):  # fmt: skip
        numbers = torch.cat(rows) if rows and size is not None else torch.empty(0)
        if ((numbers < 0) | (numbers >= (size or 0))).any():
            wrong = [[n for n in row.tolist() if not 0 <= n < size] for row in rows]
            row, value = next((i, max(bad, key=abs)) for i, bad in enumerate(wrong) if bad)
            if what == "position_ids" and what not in along:
                raise ValueError(f"row {row} has {value + 1} tokens, but this model reads at most {size}: {mend}")
            raise ValueError(f"row {row} has {value} in {what}, but this model knows {size}, from 0: {mend}")


def called(model: nn.Module, columns: dict[str, torch.Tensor]) -> Any:
    """``model(**columns)``, or ValueError; a forward without an attention_mask gets the first two by their places."""
    who, signature = f"{type(unwrapped(model)).__name__}.forward", inspect.signature(unwrapped(model).forward)
    known = signature.parameters
    by_name = "attention_mask" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())
    places, rest = [], dict(columns)
    if not by_name and "attention_mask" in rest:
        places = [rest.pop("input_ids"), rest.pop("attention_mask")]
    try:
        signature.bind(*places, **rest)
    except TypeError as error:
        extra = [name for name in ("token_type_ids", "position_ids") if name in columns]
        mend = f": data.remove_columns({extra}) leaves out what it does not read" if extra else ""
        raise ValueError(f"{who} must take {', '.join(columns)}, the columns of these data ({error}){mend}") from None
    try:
        return model(*places, **rest)
    except IndexError as error:
        most = int(columns["input_ids"].max())
        raise ValueError(f"{who} has no place for a token of these, up to {most}, or its position ({error})") from error


def logits_of(output: Any) -> torch.Tensor:
    """The logits ``(rows, outputs)`` in what a model returned."""
    output = output[0] if isinstance(output, (tuple, list)) and output else output
    logits = output if isinstance(output, torch.Tensor) else part(output, "logits")
    if logits is None or not 1 <= logits.ndim <= 2:
        what = f"a {type(output).__name__} without logits" if logits is None else f"{tuple(logits.shape)} numbers"
        mend = "a base model needs a head, Classifier(model, 2), and labels of tokens are lists in a column labels"
        raise ValueError(f"the model returns {what}, not one row of logits for each text: {mend}")
    return logits[:, None] if logits.ndim == 1 else logits


def part(output: Any, name: str) -> Any:
    """What is called so in a model's output, a dict or an object; None if there is nothing."""
    return output.get(name) if isinstance(output, dict) else getattr(output, name, None)


def loss_of(output: Any) -> torch.Tensor:
    """The mean loss that a model with labels for tokens returned."""
    if (loss := part(output, "loss")) is None:
        raise ValueError(f"the model returns a {type(output).__name__} without a loss: take an AutoModelForCausalLM")
    return loss


def check_token_labels(model: nn.Module, labels: list[torch.Tensor]) -> None:
    """Raise ValueError for a label that a model of transformers has no class for, or when it tells no tokens apart."""
    model = unwrapped(model)
    kind, embedding = type(model).__name__, getattr(model, "get_output_embeddings", lambda: None)()
    if "ForSequenceClassification" in kind:
        raise ValueError(f"labels are lists, one label for each token, but {kind} gives one answer for the text")
    classes = getattr(embedding, "out_features", None)
    if "ForTokenClassification" in kind:
        classes = model.config.num_labels  # type: ignore[union-attr]
    for row, numbers in enumerate(labels if classes else []):
        if int(numbers.max()) >= classes:  # type: ignore[operator]
            raise ValueError(f"row {row} has the label {int(numbers.max())}, but {kind} has {classes} classes, from 0")


def shift_of(model: nn.Module) -> int | None:
    """1 for transformers' causal models, which predict a label one place before it, 0 for its classifiers of tokens."""
    kind = type(model := unwrapped(model)).__name__
    if "ForTokenClassification" in kind or "ForMaskedLM" in kind:
        return 0
    if "ForCausalLM" in kind or "LMHeadModel" in kind:
        return 1
    inner = getattr(model, "base_model", model)
    return None if inner is model or not isinstance(inner, nn.Module) else shift_of(inner)


def shift_by_loss(output: Any, labels: torch.Tensor) -> int | None:
    """The shift with which the logits give the loss that the model returned; None when both do, or there are none."""
    logits = part(output, "logits")
    if logits is None or logits.shape[:-1] != labels.shape:
        return None
    shifted = [(logits[:, : labels.shape[1] - s], labels[:, s:]) for s in (0, 1)]
    losses = [F.cross_entropy(at.flatten(0, 1).float(), of.flatten()) for at, of in shifted]
    near, far = ((one - part(output, "loss").float()).abs().nan_to_num(torch.inf).item() for one in losses)
    return None if abs(near - far) < 1e-6 or near == far else int(far < near)
