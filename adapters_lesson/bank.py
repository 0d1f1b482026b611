"""Many adapters, each with a head of its own, on one frozen base model: switched, or mixed within a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import nn

from .adapter import AdapterConfig
from .architectures import base_model_of
from .composition import average_adapters, fuse_adapters, stack_adapters
from .insertion import adapter_names, freeze, insert_adapters, remove_adapters
from .slots import AdapterSlot, Routing, routed, slots_of
from .transformer import Classifier, text_features


def grouped(adapters: Sequence[str | None]) -> tuple[list[int], Routing]:
    """The rows of a mixed batch in an order that brings those of one task together, and these groups.

    An adapter then takes a slice of the batch: nothing has to be gathered, block by block.
    """
    order = sorted(range(len(adapters)), key=lambda row: adapters[row] or "")
    return order, [(name, len(list(rows))) for name, rows in groupby(adapters[row] for row in order)]


class AdapterBank(nn.Module):
    """Several tasks' adapters and heads around one base model, which is frozen.

    One task at a time is switched on: the bank then is a classifier for that task, so that ``training.train`` and
    ``evaluate`` take it as they take any, and only this task's adapters, trained LayerNorms and head are trainable.
    A mixed batch names an adapter for each of its rows instead, whatever is switched on::

        bank = AdapterBank(SmallTransformer.from_minilm(3))
        bank.add("film", AdapterConfig(bottleneck_dim=16), ("negative", "positive"))
        train(bank, film["train"])
        bank.add("agreement", AdapterConfig(bottleneck_dim=8, placement="pfeiffer"), 2)
        train(bank, agreement["train"])
        bank.switch("film")
        logits = bank(input_ids, attention_mask)  # (rows, 2)
        answers = bank(input_ids, attention_mask, ["film", "agreement", None, "film"])  # a list, one entry for each row

    Args:
        base_model: a ``SmallTransformer`` or an encoder of transformers, without a head and without adapters.

    Attributes:
        active: the task that is switched on; None for the bare base model.
        labels: each task's label names.

    Raises:
        ValueError: for a model that has a head or adapters already.
    """

    def __init__(self, base_model: nn.Module) -> None:
        super().__init__()
        if base_model_of(base_model) is not base_model:
            raise ValueError(
                f"a {type(base_model).__name__} has a head, and every adapter of the bank brings its own: "
                "give the base model alone, AdapterBank(model.base_model)"
            )
        if names := adapter_names(base_model):
            raise ValueError(
                f"the base model has adapters already ({', '.join(map(repr, names))}): remove_adapters(model) first"
            )
        freeze(base_model)
        self.base_model = base_model
        self.heads = nn.ModuleDict()
        self.labels: dict[str, tuple[str, ...]] = {}
        self.active: str | None = None
        self._slots: list[AdapterSlot] = []  # finding them in the model takes longer than switching them

    def add(self, name: str, config: AdapterConfig, labels: int | Sequence[str]) -> None:
        """Add a task and switch it on.

        Args:
            name: letters, digits, - and _, beginning with a letter.
            config: its adapters.
            labels: how many labels it has, or their names.

        Raises:
            ValueError: for a name that is taken or malformed, fewer than 2 labels, layers that the model lacks. The
                bank is then as it was.
        """
        self._add(name, labels, lambda: insert_adapters(self.base_model, config, name))

    def stack(self, names: Sequence[str], name: str, labels: int | Sequence[str]) -> None:
        """Add a task on which the adapters of the tasks ``names`` work one after another, and switch it on.

        Training it trains the last of them, too, which is not left as it was: see ``composition.Stack``.

        Raises:
            ValueError: as ``add`` and ``stack_adapters``. The bank is then as it was.
        """
        self._add(name, labels, lambda: stack_adapters(self.base_model, names, name))

    def average(
        self, names: Sequence[str], name: str, labels: int | Sequence[str], weights: Sequence[float] | None = None
    ) -> None:
        """Add a task whose adapters begin as the mean of those of the tasks ``names``, and switch it on.

        Raises:
            ValueError: as ``add`` and ``average_adapters``. The bank is then as it was.
        """
        self._add(name, labels, lambda: average_adapters(self.base_model, names, name, weights))

    def fuse(self, names: Sequence[str], name: str, labels: int | Sequence[str]) -> None:
        """Add a task on which attention chooses among the adapters of the tasks ``names``, and switch it on.

        Training it trains the fusions and the new head, and leaves ``names`` as they are: see ``composition.Fusion``.

        Raises:
            ValueError: as ``add`` and ``fuse_adapters``. The bank is then as it was.
        """
        self._add(name, labels, lambda: fuse_adapters(self.base_model, names, name))

    def remove(self, name: str) -> None:
        """Take a task's adapters and head out again.

        Raises:
            ValueError: for an unknown name, or one of which a stack or a fusion is made.
        """
        self._check_known(name)
        remove_adapters(self.base_model, name)
        if self.active == name:
            self.switch(None)
        del self.heads[name], self.labels[name]
        self._slots = slots_of(self.base_model)

    def switch(self, name: str | None) -> None:
        """Switch a task on, and all others off: its adapters and head answer, and they alone are trainable.

        With None the bare base model is left, and nothing is trainable.

        Raises:
            ValueError: for an unknown name.
        """
        if name is not None:
            self._check_known(name)
        self._set_trainable(self.active, False)
        for slot in self._slots:
            slot.active = name if name is not None and name in slot else None
        self.active = name
        self._set_trainable(name, True)

    def features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, adapters: Sequence[str | None] | None = None
    ) -> torch.Tensor:
        """Mean of the last hidden states over the words, in one pass through the base model: ``(rows, hidden_size)``.

        Args:
            input_ids, attention_mask: ``(rows, length)``.
            adapters: each row's task, or None for the bare base model; left out, all rows are the active task's.

        Raises:
            ValueError: for another number of names than rows, or an unknown name.
        """
        if adapters is None:
            return text_features(self.base_model, input_ids, attention_mask)
        self._check_rows(adapters, len(input_ids))
        order, routing = grouped(adapters)
        with routed(self._slots, routing):
            features = text_features(self.base_model, input_ids[order], attention_mask[order])
        return features[torch.tensor(order).argsort()]

    def logits(self, name: str, features: torch.Tensor) -> torch.Tensor:
        """What the head of task ``name`` makes of features ``(..., hidden_size)``: logits ``(..., labels)``."""
        head = self.heads[name]
        return head(features.to(next(head.parameters()).dtype))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, adapters: Sequence[str | None] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Logits ``(rows, labels)`` of the active task; of a mixed batch, a list with the logits ``(labels,)`` per row.

        The bare base model has no head: the logits of a row without a task are empty, ``(0,)``; see ``features``.
        Its gradients are as usual; but not with checkpointing, which computes again when the routing is over.

        Raises:
            ValueError: as ``features``; and when no task is switched on and ``adapters`` names none.
        """
        if adapters is not None:
            features = self.features(input_ids, attention_mask, adapters)
            rows = zip(adapters, features, strict=True)
            return [row.new_empty(0) if name is None else self.logits(name, row) for name, row in rows]
        if self.active is None:
            raise ValueError(f"no task is switched on: bank.switch(name) first; {self._there_is()}")
        return self.logits(self.active, self.features(input_ids, attention_mask))

    def _add(self, name: str, labels: int | Sequence[str], insert: Callable[[], object]) -> None:
        names = tuple(map(str, range(labels))) if isinstance(labels, int) else tuple(labels)
        if isinstance(labels, str) or len(names) < 2:
            raise ValueError(f"a task needs at least 2 labels, not {labels!r}: give their number or their names")
        head = Classifier(self.base_model, len(names)).head
        insert()
        self.heads[name] = head.to(next(self.base_model.parameters()).device)
        self.labels[name] = names
        self._slots = slots_of(self.base_model)
        self.switch(name)

    def _set_trainable(self, name: str | None, trainable: bool) -> None:
        if name is None:
            return
        for slot in self._slots:
            if name in slot:
                slot[name].requires_grad_(trainable)
        self.heads[name].requires_grad_(trainable)

    def _check_rows(self, adapters: Sequence[str | None], rows: int) -> None:
        if isinstance(adapters, str):
            raise ValueError(f"adapters={adapters!r}, but each row needs a name: [{adapters!r}] * {rows}")
        if len(adapters) != rows:
            raise ValueError(
                f"{len(adapters)} names for {rows} rows: give every row its task, or None for the bare base"
            )
        for name in adapters:
            if name is not None:
                self._check_known(name)

    def _check_known(self, name: str) -> None:
        if name not in self.heads:
            raise ValueError(f"the bank has no task called {name!r}; {self._there_is()}")

    def _there_is(self) -> str:
        return (
            f"it has {', '.join(map(repr, self.heads))}"
            if self.heads
            else "it has none: bank.add(name, config, 2) first"
        )
