"""Encoded data as tensors: which rows make a batch, and how a model's loss on a batch is found."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

NOT_COUNTED = -100  # the label of a token that the loss leaves out, in PyTorch's cross_entropy and in transformers


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
    """The columns ``input_ids`` and ``label`` of an encoded dataset as tensors: one label for each text.

    Args:
        data: an encoded dataset.
        device: where the batches are wanted.

    Raises:
        ValueError: when the data are empty or not encoded.
    """

    def __init__(self, data: Any, device: torch.device | str = "cpu") -> None:
        if "input_ids" not in data.column_names:
            raise ValueError("the data have no input_ids: encode(task, tokenizer) first")
        if len(data) == 0:
            raise ValueError("the data have no rows")
        self.ids = [torch.tensor(ids) for ids in data["input_ids"]]
        self.lengths = [len(ids) for ids in self.ids]
        self.device = device
        self.read_labels(data)

    def read_labels(self, data: Any) -> None:
        """Take over what the texts are to be trained on."""
        if "label" not in data.column_names:
            raise ValueError("the data have neither label nor labels: what should the model learn?")
        self.labels = torch.tensor(data["label"][:])  # all at once: a column of datasets is slow item by item

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if ``model`` would read these data in another way than they are meant."""

    def __len__(self) -> int:
        return len(self.ids)

    def by_length(self, batch_size: int) -> list[list[int]]:
        """All row numbers in batches, the shortest texts first."""
        order = sorted(range(len(self)), key=self.lengths.__getitem__)
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def part(self, rows: Sequence[int]) -> Texts:
        """These rows only."""
        part = copy.copy(self)
        for name, column in vars(self).items():
            if isinstance(column, torch.Tensor):
                setattr(part, name, column[list(rows)])
            elif isinstance(column, list):
                setattr(part, name, [column[row] for row in rows])
        return part

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """input_ids and attention_mask ``(rows, longest)``, padded at the end, and labels ``(rows,)``."""
        input_ids, mask = self.padded(rows)
        return input_ids, mask, self.labels[rows].to(self.device)

    def padded(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """input_ids and attention_mask ``(rows, longest)``."""
        input_ids = pad_sequence([self.ids[row] for row in rows], batch_first=True)
        lengths = torch.tensor([self.lengths[row] for row in rows])
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        return input_ids.to(self.device), mask.to(self.device)

    def counted(self, rows: Sequence[int]) -> int:
        """How many labels the loss on these rows is the mean of."""
        return len(rows)

    def loss(self, model: nn.Module, rows: Sequence[int]) -> torch.Tensor:
        """The model's mean loss on these rows."""
        input_ids, mask, labels = self.batch(rows)
        return F.cross_entropy(model(input_ids, mask), labels)


class TokenTexts(Texts):
    """The columns ``input_ids`` and ``labels``: a label for each token, or -100 for one that does not count.

    The convention is that of the causal models of transformers: ``labels[i]`` belongs to the token at i, the model
    predicts it from the tokens before, and so it is the model that shifts by one and returns the mean ``loss`` itself.
    A model may then leave out the logits where nothing counts. The first label of a row is never counted.

    A column ``position_ids``, if there is one, goes to the model in place of the attention mask: so transformers
    recognises several texts packed into one row, each counted from position 0. The padding is behind everything that a
    causal model looks at.

    Raises:
        ValueError: also when labels or positions do not fit their row, or a row has no label that counts.
    """

    def read_labels(self, data: Any) -> None:
        self.token_labels = [torch.tensor(labels) for labels in data["labels"]]
        self.positions = None
        self._check("labels", self.token_labels)
        if "position_ids" in data.column_names:
            self.positions = [torch.tensor(positions) for positions in data["position_ids"]]
            self._check("position_ids", self.positions)
        self.counts = [int((labels[1:] != NOT_COUNTED).sum()) for labels in self.token_labels]
        if 0 in self.counts:
            row = self.counts.index(0)
            raise ValueError(f"row {row} has no label that counts after its first token: leave the row out")

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """What the model is called with, by name; each tensor is ``(rows, longest)``."""
        input_ids, mask = self.padded(rows)
        labels = pad_sequence([self.token_labels[row] for row in rows], batch_first=True, padding_value=NOT_COUNTED)
        batch = {"input_ids": input_ids, "labels": labels.to(self.device)}
        if self.positions is None:
            return batch | {"attention_mask": mask}
        positions = pad_sequence([self.positions[row] for row in rows], batch_first=True)
        return batch | {"position_ids": positions.to(self.device)}

    def check(self, model: nn.Module) -> None:
        if self.positions is not None and getattr(getattr(model, "config", None), "use_cache", False):
            # it would take the row for one text, and let later texts see the earlier ones
            raise ValueError("transformers recognises packed rows without a cache only: model.config.use_cache = False")

    def counted(self, rows: Sequence[int]) -> int:
        return sum(self.counts[row] for row in rows)

    def loss(self, model: nn.Module, rows: Sequence[int]) -> torch.Tensor:
        return model(**self.batch(rows)).loss

    def _check(self, column: str, values: list[torch.Tensor]) -> None:
        for row, (value, ids) in enumerate(zip(values, self.ids, strict=True)):
            if value.shape != ids.shape:
                raise ValueError(f"row {row} has {len(ids)} input_ids but {column} of shape {tuple(value.shape)}")


def texts_of(data: Any, device: torch.device | str = "cpu") -> Texts:
    """The data as ``TokenTexts`` if they have a column ``labels``, else as ``Texts``; what is either stays as it is."""
    if isinstance(data, Texts):
        return data
    return (TokenTexts if "labels" in data.column_names else Texts)(data, device)


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of ``model`` are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))
