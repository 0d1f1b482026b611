"""Why does it not train? One table that looks at every adapter and head where such things usually go wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .architectures import base_model_of
from .bank import AdapterBank
from .composition import Composed, Stack
from .insertion import adapter_names, head_parameters, users_of
from .slots import AdapterSlot, NormSlot, slots_of

_COLUMNS = ("what", "name", "parameters", "active", "trainable", "optimiser", "gradient", "saved", "first to do")
_WIDTH, _NAME_WIDTH = 118, 16  # of the table, and of a name in it


@dataclass(frozen=True)
class Row:
    """What is known of one adapter, head or other part.

    Attributes:
        what: "adapter", "stack", "fusion", "LayerNorms" (an adapter's trained ones), "head", "base model"; "optimiser"
            for tensors that it holds and the model does not have.
        name: of the adapters or the task.
        parameters: how many. A stack's are those of its last member, which is trained with it.
        active: "yes", "no", "some" (of its places), or "within" a stack or fusion that is active.
        trainable: whether its tensors require gradients: "yes", "no" or "some".
        optimiser: whether an optimiser holds them: "yes", "no" or "some"; "" when none was given.
        gradient: "all" of its tensors have one, "some", "none", "zero" (all entries of all), or "nan" (not finite).
        saved: "yes", "no", "older" (other values) or "damaged"; "" when no folder was given, or nothing is to be saved.
        todo: in words, what to do first; "nothing: …" if all is as it should be.
    """

    what: str
    name: str
    parameters: int
    active: str
    trainable: str
    optimiser: str
    gradient: str
    saved: str
    todo: str


@dataclass(frozen=True)
class Inspection:
    """The rows, shown as a table in plain text."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        cells = [_COLUMNS, *(_cells(row) for row in self.rows)]
        *shown, last = [i for i in range(len(_COLUMNS)) if any(row[i] for row in cells[1:])]
        widths = {i: max(len(row[i]) for row in cells) + 2 for i in shown}
        lines = []
        for row in cells:
            left = "".join(row[i].rjust(w - 2) + "  " if i == 2 else row[i].ljust(w) for i, w in widths.items())
            first, *more = textwrap.wrap(row[last], min(60, _WIDTH - len(left)), break_on_hyphens=False)
            lines += [left + first, *(" " * len(left) + line for line in more)]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])

    __repr__ = __str__


def why_not_training(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, folder: str | Path | None = None
) -> Inspection:
    """A table of the adapters and heads in ``model``: active? trainable? in the optimiser? with a gradient? saved?

    Ask after ``loss.backward()``, before the gradients are cleared. The last column says what to do first.

    Args:
        model: an ``AdapterBank``, or any model, with adapters or without.
        optimizer: the one that should train it.
        folder: where ``storage.save_adapter`` saves.

    Returns:
        One row for each adapter, its trained LayerNorms, each head and the base model: ``.rows``.

    Raises:
        StorageError: when there is no such folder.
    """
    look = _Look(model, optimizer, folder)
    rows = [row for name in adapter_names(model) for row in look.adapter(name)]
    if not rows:
        rows = [Row("adapter", "", 0, "", "", "", "", "", "there are none: insert_adapters(model, config) first")]
    return Inspection((*rows, *look.heads(), look.base(), *look.strangers()))


class _Look:
    """All that a row may need to know."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, folder: str | Path | None) -> None:
        self.model, self.optimizer = model, optimizer
        self.bank = model if isinstance(model, AdapterBank) else None
        self.own = {id(p) for p in model.parameters()}
        groups = [] if optimizer is None else optimizer.param_groups
        self.rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
        self.lost = [p for group in groups for p in group["params"] if id(p) not in self.own]
        self.any_gradient = any(p.grad is not None and p.requires_grad for p in model.parameters())
        self.saved = None if folder is None else _saved_in(folder)

    def adapter(self, name: str) -> Iterable[Row]:
        slots = [slot for slot in slots_of(self.model) if name in slot]
        for what, some in (
            ("adapter", [slot for slot in slots if not isinstance(slot, NormSlot)]),
            ("LayerNorms", [slot for slot in slots if isinstance(slot, NormSlot)]),
        ):
            if some:
                module = some[0][name]
                what = type(module).__name__.lower() if isinstance(module, Composed) else what
                yield self.row(
                    what, name, [p for slot in some for p in _trained_in(slot[name])], self.active(name, some)
                )

    def active(self, name: str, slots: Sequence[AdapterSlot]) -> str:
        working = _share(slot.active == name for slot in slots)
        return "within" if working == "no" and self.user(name) else working

    def user(self, name: str) -> str | None:
        """The stack or fusion that is active and made of the adapters called ``name``."""
        active = {slot.active for slot in slots_of(self.model)}
        return next((user for user in users_of(self.model, name) if user in active), None)

    def heads(self) -> Iterable[Row]:
        if self.bank is not None:
            for name, head in self.bank.heads.items():
                yield self.row("head", name, list(head.parameters()), _share([self.bank.active == name]))
        elif parameters := head_parameters(self.model):
            yield self.row("head", "", parameters, "yes")

    def base(self) -> Row:
        adapters = {id(p) for slot in slots_of(self.model) for p in slot.parameters()}
        row = self.row(
            "base model", "", [p for p in base_model_of(self.model).parameters() if id(p) not in adapters], ""
        )
        if row.trainable == "no":
            todo = "nothing: it stays frozen"
        elif row.trainable == "some":
            todo = "a part of it is trained: fine for BitFit or LoRA, else set_trainable(model, name) freezes it"
        elif self.any_gradient and row.gradient == "none":
            todo = "it is not frozen, but has no gradient: does it run under torch.no_grad()?"
        else:
            name = next(iter(adapter_names(self.model)), None)
            todo = "it is trained, too: " + (
                f'set_trainable(model, "{name}") freezes it' if name else "full fine-tuning"
            )
        return replace(row, todo=todo, saved="")

    def strangers(self) -> Iterable[Row]:
        if self.lost:
            yield Row(
                "optimiser", "", sum(p.numel() for p in self.lost), "", "", "", "", "",
                f"it holds {len(self.lost)} tensors that the model does not have (any more): they were removed, or are "
                "another model's. Build it anew",
            )  # fmt: skip

    def row(self, what: str, name: str, parameters: list[nn.Parameter], active: str) -> Row:
        """Its ``todo`` is the first thing that is wrong, in the order in which one would mend them."""
        trainable = _share(p.requires_grad for p in parameters)
        held = "" if self.optimizer is None else _share(id(p) in self.rates for p in parameters)
        gradient = _gradient(parameters)
        saved = "" if self.saved is None else _is_saved(self.saved, name, parameters, self.bank is None)
        facts = Row(what, name, sum(p.numel() for p in parameters), active, trainable, held, gradient, saved, "")
        todo = (
            self.resting(facts)
            or self.frozen(facts)
            or self.left_out(facts, parameters)
            or self.without_gradient(facts, parameters)
            or self.unsaved(facts)
            or "nothing: it is being trained"
        )
        return replace(facts, todo=todo)

    def resting(self, row: Row) -> str:
        if row.active == "within" and (user := self.user(row.name)):
            if row.trainable == "no":
                return f"nothing: {user!r} is made of it, and does not train it"
            last = next(slot[user] for slot in slots_of(self.model) if user in slot)
            if isinstance(last, Stack) and last.names[-1] == row.name:
                return ""
            return f'it is trained together with {user!r}: set_trainable(model, "{user}") freezes it'
        if row.active != "no":
            return ""
        if self.bank is not None:
            return f'it rests: bank.switch("{row.name}") to train it'
        return f'it is switched off: set_active_adapter(model, "{row.name}")'

    def frozen(self, row: Row) -> str:
        if row.trainable == "yes":
            return ""
        how = f'bank.switch("{row.name}")' if self.bank is not None else self.thaw(row)
        return f"{'a part of it' if row.trainable == 'some' else 'it'} is frozen: {how}"

    def thaw(self, row: Row) -> str:
        active = next((slot.active for slot in slots_of(self.model) if slot.active), None) or row.name
        if row.what == "head":
            return f'set_trainable(model, "{active}", head=True)' if active else "head.requires_grad_(True)"
        return f'set_trainable(model, "{row.name}")'

    def left_out(self, row: Row, parameters: list[nn.Parameter]) -> str:
        if row.optimiser in ("no", "some"):
            if self.lost:
                return "not in the optimiser, which holds other tensors (see below): build it anew"
            some = "" if row.optimiser == "no" else "a part of it is "
            return f"{some}not in the optimiser: it was built before insertion, or while this was frozen. Build it anew"
        if row.optimiser and not any(self.rates[id(p)] for p in parameters):
            return "its learning rate in the optimiser is 0: raise it, or look at the schedule"
        return ""

    def without_gradient(self, row: Row, parameters: list[nn.Parameter]) -> str:
        if row.gradient == "nan":
            return "its gradient is not finite: lower the learning rate, and look at the loss"
        if row.gradient == "zero":
            return "its gradient is zero everywhere: nothing that it does reaches the loss"
        if row.gradient == "some" and row.active == "some":
            return "drop_adapters switched some of its places off: set_active_adapter(model, name) brings them back"
        if row.gradient == "some" and not _just_begun(parameters):
            return "a part of it has no gradient: does all of it reach the loss?"
        if row.gradient != "none" or (self.optimizer and any(self.optimizer.state.get(p) for p in parameters)):
            return ""  # with a state the optimiser has moved it already, and the gradients were cleared since
        if not torch.is_grad_enabled():
            return "no gradient, and none can come: you are under torch.no_grad() or inference_mode()"
        if self.any_gradient:
            return "no gradient, though other parts have one: did this part run under torch.no_grad()?"
        return "no gradient: ask after loss.backward(), before zero_grad(), and not under torch.no_grad()"

    def unsaved(self, row: Row) -> str:
        if row.saved in ("no", "older", "damaged"):
            why = {"no": "not saved", "older": "changed since it was saved", "damaged": "the saved one is damaged"}
            return f"it can be trained, but is {why[row.saved]}: save_adapter(model, folder, name)".replace(
                "is the", "the"
            )
        return ""


def _cells(row: Row) -> list[str]:
    name = row.name if len(row.name) <= _NAME_WIDTH else f"{row.name[: _NAME_WIDTH - 1]}…"
    count = f"{row.parameters:,}" if row.parameters else ""
    return [row.what, name, count, row.active, row.trainable, row.optimiser, row.gradient, row.saved, row.todo]


def _share(flags: Iterable[bool]) -> str:
    flags = list(flags)
    return "yes" if flags and all(flags) else "some" if any(flags) else "no"


def _trained_in(module: nn.Module) -> list[nn.Parameter]:
    return _trained_in(module.members[-1]) if isinstance(module, Stack) else list(module.parameters())


def _gradient(parameters: list[nn.Parameter]) -> str:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not all(gradient.isfinite().all() for gradient in gradients):
        return "nan"
    alive = sum(bool(gradient.any()) for gradient in gradients)
    if alive == 0:
        return "zero" if gradients else "none"
    return "all" if alive == len(parameters) else "some"


def _just_begun(parameters: list[nn.Parameter]) -> bool:
    """Whether what has no gradient lacks it because up_project, or a fusion's members, are still zero."""
    zero = [p for p in parameters if p.grad is None or not p.grad.any()]
    return all(p.grad is not None for p in zero) and any(p.ndim == 2 and not p.any() for p in parameters)


def _saved_in(folder: str | Path) -> dict[str, Any]:
    from .storage import list_adapters

    return {saved.name: saved for saved in list_adapters(folder)}


def _is_saved(saved: dict[str, Any], name: str, parameters: list[nn.Parameter], only_head: bool) -> str:
    """Whether a file has these tensors; a head without a name may be in any."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    candidates = [saved[name]] if name in saved else list(saved.values()) if only_head and not name else []
    found = "no"
    for candidate in candidates:
        try:
            stored = [tensor for file in candidate.path.glob("*.safetensors") for tensor in load_file(file).values()]
        except (SafetensorError, OSError):
            stored = []
        if candidate.problem is not None or not stored:
            found = "damaged" if found == "no" else found
        elif all(any(s.shape == p.shape and torch.equal(s, p.detach().cpu()) for s in stored) for p in parameters):
            return "yes"
        else:
            found = "older"
    return found
