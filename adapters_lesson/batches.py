"""Encoded data as tensors: which rows make a batch, and how a model's loss on a batch is found."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .architectures import base_model_of
from .guards import model_calls
from .guards.columns import NOT_COUNTED, check_labels, cut_masked, labels_of, table_of, token_rows
from .guards.plain_values import check_whole, listed, whole_number


def batches(lengths: list[int], batch_size: int, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    """Row numbers of one epoch's batches: shuffled, but texts of similar length together, so that little is padding."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = 50 * batch_size  # sorted within pools, so that batches differ from epoch to epoch
    for start in range(0, len(order), pool):
        order[start : start + pool] = sorted(order[start : start + pool], key=lengths.__getitem__)
    rows = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [rows[i] for i in torch.randperm(len(rows), generator=generator)]


class Texts:
    """The columns ``input_ids`` and ``label`` (or ``labels``) of an encoded dataset as tensors: a label for each text.

    Whole numbers are classes; floats are numbers to be learnt (regression). The columns ``per_token`` go to the model,
    if there are any; padding behind the words is taken out. Without ``labelled`` no label is looked at. Raises
    ValueError when the data are empty or not encoded, or a row is not what it should be.
    """

    per_token: tuple[str, ...] = ("attention_mask", "token_type_ids", "position_ids")  # a number for each token
    labels = torch.empty(0)  # of the texts, ``(texts,)``

    def __init__(self, data: Any, device: torch.device | str = "cpu", *, labelled: bool = True) -> None:
        data = table_of(data)
        if "input_ids" not in data.column_names:
            raise ValueError("the data have no input_ids: encode(task, tokenizer) first")
        if len(data) == 0:
            raise ValueError("the data have no rows")
        self.ids = token_rows(data["input_ids"], "input_ids")
        columns = [name for name in self.per_token if name in data.column_names]
        self.along = {name: token_rows(data[name], name, self.ids) for name in columns}
        cut_masked(self.ids, self.along)
        self.lengths = [len(ids) for ids in self.ids]
        self.device = device
        if labelled:
            self.read_labels(data)

    def read_labels(self, data: Any) -> None:
        """Take over what the texts are to be trained on."""
        names = [name for name in ("label", "labels") if name in data.column_names]
        if not names:
            there = ", ".join(data.column_names)
            raise ValueError(f"the data have neither label nor labels, but {there}: what should the model learn?")
        # all at once: a column of datasets is slow item by item
        self.label_name = names[0]
        self.labels, *other = (labels_of(data[name][:], name) for name in names)
        if other and not torch.equal(self.labels, other[0]):
            raise ValueError('the columns label and labels differ: which is meant? data.remove_columns("labels")')

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if ``model`` cannot read these data, or would in another way than they are meant."""
        model_calls.check_readable(model, self.ids, self.along)

    def __len__(self) -> int:
        return len(self.ids)

    def tensors(self) -> list[torch.Tensor]:
        """All that the data hold, for a fingerprint."""
        return [*self.ids, *(row for column in self.along.values() for row in column), self.labels]

    def by_length(self, batch_size: int, rows: Sequence[int] | None = None) -> list[list[int]]:
        """These rows, by default all, in batches, the shortest texts first."""
        check_whole("batch_size", batch_size)
        rows = range(len(self)) if rows is None else rows
        if not len(rows) or not all(-1 < row < len(self) for row in rows):
            raise ValueError(f"rows must be some of the {len(self)} rows, counted from 0, not {rows!r:.60}")
        order = sorted(rows, key=self.lengths.__getitem__)
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def columns(self, rows: Sequence[int], token: int = 0) -> dict[str, torch.Tensor]:
        """What a model reads of these rows, by name: tensors ``(rows, longest)``, ids padded with ``token``."""
        ids = [self.ids[row] for row in rows]
        columns = {"input_ids": ids, "attention_mask": [torch.ones_like(one) for one in ids]}
        columns |= {name: [column[row] for row in rows] for name, column in self.along.items()}
        if {"position_ids", "labels"} <= columns.keys():  # transformers recognises packed texts without a mask only
            del columns["attention_mask"]
        padding = {"input_ids": token, "labels": NOT_COUNTED}
        return {
            name: pad_sequence(column, batch_first=True, padding_value=padding.get(name, 0)).to(self.device)
            for name, column in columns.items()
        }

    def batch(self, rows: Sequence[int]) -> Any:
        """input_ids and attention_mask ``(rows, longest)``, padded at the end, and labels ``(rows,)``."""
        columns = self.columns(rows)
        return columns["input_ids"], columns["attention_mask"], self.labels[rows].to(self.device)

    def answer(self, model: nn.Module, rows: Sequence[int]) -> Any:
        """What ``model`` returns for these rows. Some models find the last word by the padding's token."""
        config = getattr(base_model_of(model_calls.unwrapped(model)), "config", None)
        token = whole_number(getattr(config, "pad_token_id", None)) or 0
        return model_calls.called(model, self.columns(rows, max(token, 0)))

    def counted(self, rows: Sequence[int]) -> int:
        """How many labels the loss on these rows is the mean of."""
        return len(rows)

    def logits(self, model: nn.Module, rows: Sequence[int]) -> torch.Tensor:
        """``(rows, classes)``, or of numbers ``(rows, 1)``."""
        return model_calls.logits_of(self.answer(model, rows))

    def mean_loss(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The mean cross-entropy of these logits; of numbers, the mean squared error."""
        check_labels(self.labels, logits.shape[-1], self.label_name)
        labels = self.labels[list(rows)].to(logits.device)
        if labels.is_floating_point():
            return F.mse_loss(logits.squeeze(-1).to(labels.dtype), labels)
        return F.cross_entropy(logits, labels)

    def loss(self, model: nn.Module, rows: Sequence[int]) -> torch.Tensor:
        """The model's mean loss on these rows."""
        return self.mean_loss(self.logits(model, rows), rows)


class TokenTexts(Texts):
    """The columns ``input_ids`` and ``labels``: a label for each token, or -100 for one that does not count.

    It is the model that returns the mean ``loss`` itself. ``labels[i]`` belongs to the token at i: a classifier of
    tokens tells it there; a causal model predicts it from the tokens before, one place earlier (``shift`` 1), so that
    the first label of a row never counts. ``check`` and ``evaluate`` find out which. Several texts may be packed into
    one row by a column ``position_ids``, in which each counts from 0.
    """

    per_token = (*Texts.per_token, "labels")
    shift = 1

    def read_labels(self, data: Any) -> None:
        self._check_labels(shift=0)

    def _check_labels(self, shift: int) -> None:
        for row, labels in enumerate(self.along["labels"]):
            if (wrong := labels[(labels < 0) & (labels != NOT_COUNTED)]).numel():
                raise ValueError(f"row {row} has the label {int(wrong[0])}: one that does not count is {NOT_COUNTED}")
            if (labels[shift:] == NOT_COUNTED).all():
                after = " after its first token" if shift else ""
                raise ValueError(f"row {row} has no label that counts{after}: leave the row out")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        if "position_ids" in self.along and getattr(getattr(model, "config", None), "use_cache", False):
            # it would take the row for one text, and let later texts see the earlier ones
            raise ValueError("transformers recognises packed rows without a cache only: model.config.use_cache = False")
        model_calls.check_token_labels(model, self.along["labels"])
        if (shift := model_calls.shift_of(model)) is not None:
            self.shift = shift
            self._check_labels(shift)

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """What the model is called with, by name; each tensor is ``(rows, longest)``."""
        return self.columns(rows)

    def counted(self, rows: Sequence[int]) -> int:
        return sum(int((self.along["labels"][row][self.shift :] != NOT_COUNTED).sum()) for row in rows)

    def loss(self, model: nn.Module, rows: Sequence[int]) -> torch.Tensor:
        return model_calls.loss_of(self.answer(model, rows))


class SpanTexts(Texts):
    """The columns ``input_ids``, ``start_positions`` and ``end_positions``: where in a row the answer begins and ends.

    The model is one for questions, as transformers' ``BertForQuestionAnswering``. The loss is the mean cross-entropy of
    beginning and end among the words of the row.
    """

    def read_labels(self, data: Any) -> None:
        names = ("start_positions", "end_positions")
        self.labels = torch.stack([labels_of(data[name][:], name) for name in names], dim=1)  # (rows, 2)
        if self.labels.is_floating_point():
            raise ValueError("start_positions and end_positions must be whole numbers, numbers of tokens, not floats")
        for row, (start, end) in enumerate(self.labels.tolist()):
            if not start <= end < self.lengths[row]:
                raise ValueError(
                    f"row {row} has an answer from {start} to {end}, but {self.lengths[row]} tokens: was it cut? "
                    "Without an answer, both positions are 0"
                )

    def logits(self, model: nn.Module, rows: Sequence[int]) -> torch.Tensor:
        """``(rows, 2, longest)``; what is no word cannot be chosen."""
        output = self.answer(model, rows)
        parts = [model_calls.part(output, name) for name in ("start_logits", "end_logits")]
        if any(logits is None for logits in parts):
            raise ValueError(f"start_positions need a model with start_logits, not {type(output).__name__}")
        logits, mask = torch.stack(parts, dim=1), self.columns(rows)["attention_mask"]
        return logits.masked_fill(mask[:, None] == 0, torch.finfo(logits.dtype).min)

    def mean_loss(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        return F.cross_entropy(logits.flatten(0, 1), self.labels[list(rows)].to(logits.device).flatten())


def texts_of(data: Any, device: torch.device | str = "cpu", *, labelled: bool = True) -> Texts:
    """The data as ``SpanTexts`` if they have positions, ``TokenTexts`` if ``labels`` are lists, else ``Texts``."""
    if isinstance(data, Texts):
        return data
    data = table_of(data)
    kind: type[Texts] = Texts
    if {"start_positions", "end_positions"} <= set(data.column_names):
        kind = SpanTexts
    elif "labels" in data.column_names and (len(data) == 0 or listed(data["labels"][0]) is not None):
        kind = TokenTexts
    return kind(data, device, labelled=labelled)


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of ``model`` are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))
