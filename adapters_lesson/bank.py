"""Many adapters, each with a head of its own, on one frozen base model: switched, or mixed within a batch."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import AnyConfig
from .architectures import Architecture, blocks_of
from .composition import average_adapters, fuse_adapters, stack_adapters
from .guards import bank_guard as guard
from .insertion import freeze, insert_adapters, remove_adapters, switch_slots
from .slots import AdapterSlot, Routing, routed, slots_of
from .transformer import Classifier, text_features

Names = Sequence[str | None] | None  # of the rows of a mixed batch


def grouped(adapters: Sequence[str | None]) -> tuple[list[int], Routing]:
    """The rows of a mixed batch in an order that brings those of one task together, and these groups.

    An adapter then takes a slice of the batch: nothing has to be gathered, block by block.
    """
    order = sorted(range(len(adapters)), key=lambda row: adapters[row] or "")
    return order, [(name, len(list(rows))) for name, rows in groupby(adapters[row] for row in order)]


class AdapterBank(nn.Module):
    """Several tasks' adapters and heads around one base model, which is frozen.

    One task at a time is switched on: the bank then is a classifier for that task, which ``train`` and ``evaluate``
    take as any, and only this task's adapters, trained LayerNorms and head are trainable. A mixed batch names an
    adapter for each of its rows instead, whatever is switched on::

        bank = AdapterBank(SmallTransformer.from_minilm(3))
        bank.add("film", AdapterConfig(bottleneck_dim=16), ("negative", "positive"))
        train(bank, film["train"])
        bank.add("agreement", AdapterConfig(bottleneck_dim=8, placement="pfeiffer"), 2)
        bank.switch("film")
        logits = bank(input_ids, attention_mask)  # (rows, 2)
        answers = bank(input_ids, attention_mask, ["film", "agreement", None, "film"])  # a list, one entry for each row

    ``base_model`` is a ``SmallTransformer``, an encoder of transformers, or, with ``architecture`` as for
    ``insert_adapters``, one's own; ValueError is raised if it has a head or adapters already. ``active`` is the task
    that is switched on, None for the bare base model, and ``labels`` are each task's label names.

    Mixed batches may be asked by several threads at once. What is switched on is switched on for all of them: a pass in
    which another thread switches raises RuntimeError, so that no head answers to another task's adapters.
    """

    is_bank = True  # by which the files below know one

    def __init__(self, base_model: nn.Module, *, architecture: Architecture | None = None) -> None:
        super().__init__()
        guard.check_no_bank(base_model, "it is one already, bank.add(name, config, 2) adds a task")
        guard.check_bare(base_model, "AdapterBank(model.base_model)")
        if names := ", ".join(map(repr, guard.adapter_names(base_model))):
            raise ValueError(f"the base model has adapters already ({names}): remove_adapters(model) first")
        self.adapter_architecture = architecture
        blocks_of(base_model, architecture)  # says at once what is wrong with the base
        freeze(base_model)
        self.base_model = base_model
        self.heads = nn.ModuleDict()
        self.labels: dict[str, tuple[str, ...]] = {}
        self.active: str | None = None
        self._found: tuple[object, list[AdapterSlot]] = (None, [])
        self._turn = object()  # another one before and after every switch

    def add(self, name: str, config: AnyConfig, labels: int | Sequence[str]) -> None:
        """Add a task with adapters as ``config`` says and switch it on; ``labels``: how many it has, or their names.

        Raises ValueError as ``insert_adapters``, and for fewer than 2 labels. The bank is then as it was.
        """
        at = self.adapter_architecture
        self._add(name, labels, lambda: insert_adapters(self.base_model, config, name, architecture=at))

    def stack(self, names: Sequence[str], name: str, labels: int | Sequence[str]) -> None:
        """Add a task, as ``add``, for a stack as of ``stack_adapters``: training it changes the last of ``names``."""
        self._add(name, labels, lambda: stack_adapters(self.base_model, names, name))

    def average(
        self, names: Sequence[str], name: str, labels: int | Sequence[str], weights: Sequence[float] | None = None
    ) -> None:
        """Add a task, as ``add``, whose adapters begin as those of the tasks ``names`` in ``average_adapters``."""
        self._add(name, labels, lambda: average_adapters(self.base_model, names, name, weights))

    def fuse(self, names: Sequence[str], name: str, labels: int | Sequence[str]) -> None:
        """Add a task, as ``add``, that chooses among the adapters of the tasks ``names`` as in ``fuse_adapters``."""
        self._add(name, labels, lambda: fuse_adapters(self.base_model, names, name))

    def _add(self, name: str, labels: int | Sequence[str], insert: Callable[[], object]) -> None:
        guard.check_new_name(self, name)
        classifier = Classifier(self.base_model, labels, architecture=self.adapter_architecture)
        insert()
        self.heads[name] = classifier.head.to(next(self.base_model.parameters()).device)
        self.labels[name] = classifier.labels
        self.switch(name)

    def remove(self, name: str) -> None:
        """Take a task's adapters and head out again. Raises ValueError as ``remove_adapters``."""
        guard.check_task(self, name)
        if name in guard.adapter_names(self.base_model):
            guard.check_unused(self, name)
            remove_adapters(self.base_model, name)
        if self.active == name:
            self.switch(None)
        del self.heads[name], self.labels[name]

    def switch(self, name: str | None) -> None:
        """Switch a task on, and all others off: its adapters and head answer, and they alone are trainable.

        With None the bare base model is left, and nothing is trainable. Raises ValueError for an unknown name.
        """
        if name is not None:
            guard.check_whole_task(self, name)
        self._turn, slots = object(), self._slots
        for task, trained in ((self.active, False), (name, True)):
            for of in (self.heads, *slots):
                if task and task in of:
                    of[task].requires_grad_(trained)
        switch_slots(slots, name)
        self.active = name
        self._turn = object()

    def features(
        self, input_ids: Tensor, attention_mask: Tensor, adapters: Names = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Mean of the last hidden states over the words, in one pass through the base model: ``(rows, hidden_size)``.

        Ids and mask are ``(rows, length)``. ``adapters`` names each row's task, or None for the bare base model; left
        out, all rows are the active task's. Raises ValueError for another number of names than rows, an unknown name.
        """
        if adapters is None:
            return text_features(self.base_model, input_ids, attention_mask, token_type_ids)
        order, routing = grouped(guard.check_rows(self, adapters, len(input_ids)))
        with routed(routing):
            types = None if token_type_ids is None else token_type_ids[order]
            features = text_features(self.base_model, input_ids[order], attention_mask[order], types)
        return features[torch.tensor(order).argsort()]

    def logits(self, name: str, features: Tensor) -> Tensor:
        """What the head of task ``name`` makes of features ``(..., hidden_size)``: logits ``(..., labels)``."""
        guard.check_task(self, name)
        head: Any = self.heads[name]
        return head(features.to(head.weight.dtype))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, adapters: Names = None, token_type_ids: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Logits ``(rows, labels)`` of the active task; of a mixed batch, a list with the logits ``(labels,)`` per row.

        The bare base model has no head: the logits of a row without a task are empty, ``(0,)``; see ``features``.
        Its gradients are as usual; but not with checkpointing, which computes again when the routing is over. Raises
        ValueError as ``features``; and when no task is switched on and ``adapters`` names none.
        """
        if adapters is None:
            turn = self._turn
            guard.check_in_step(self)
            features = self.features(input_ids, attention_mask, None, token_type_ids)
            logits = self.logits(self.active, features)  # type: ignore[arg-type]
            if self._turn is not turn:
                raise RuntimeError(
                    "another thread switched the bank while it computed: name the task of each row instead, "
                    f"bank(input_ids, attention_mask, [{self.active!r}] * len(input_ids))"
                )
            return logits
        adapters = guard.check_rows(self, adapters, len(input_ids))
        features = self.features(input_ids, attention_mask, adapters, token_type_ids)
        answers = [features.new_empty(0)] * len(adapters)
        for name in filter(None, dict.fromkeys(adapters)):
            rows = [row for row, other in enumerate(adapters) if other == name]
            for row, logits in zip(rows, self.logits(name, features[rows]), strict=True):
                answers[row] = logits
        return answers

    @property
    def _slots(self) -> list[AdapterSlot]:
        """All places in the base model. Finding them takes longer than switching them, so they are remembered."""
        if self._found[0] is not AdapterSlot.generation:
            self._found = (AdapterSlot.generation, slots_of(self.base_model))
        return self._found[1]
