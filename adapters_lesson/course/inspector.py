"""Why does it not train? One table that looks at every adapter and head where such things usually go wrong."""

import textwrap
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.bank import AdapterBank
from adapters_lesson.composition import Composed, Stack
from adapters_lesson.insertion import adapter_names, head_parameters, users_of
from adapters_lesson.lora import LoRA
from adapters_lesson.slots import NormSlot, slots_of
from adapters_lesson.storage import list_adapters

_WIDTH, _NAME_WIDTH = 112, 16  # of the table, so that JupyterLab breaks no line of it; and of a name in it


@dataclass(frozen=True)
class Row:
    """What is known of one adapter, head or other part; "" where there is nothing to know."""

    what: str  # "adapter", "LoRA", "stack", "fusion", "LayerNorms" (an adapter's), "head", "base model" or "optimiser"
    name: str = ""  # of the adapters or the task
    parameters: int = 0  # a stack's are those of its last member, which is trained with it
    active: str = ""  # "yes", "no", "some" (of its places), or "within" a stack or fusion that is active
    trainable: str = ""  # whether its tensors require gradients: "yes", "no" or "some"
    optimiser: str = ""  # whether the optimiser holds them: "yes", "no" or "some"
    gradient: str = ""  # "all" of its tensors have one, "some", "none", "zero" (all entries of all), "nan" (not finite)
    saved: str = ""  # "yes", "no", "older" (other values) or "damaged"
    todo: str = ""  # what to do first; "nothing: …" if all is as it should be


@dataclass(frozen=True)
class Inspection:
    """The rows, shown as a table in plain text."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        cells = [[*(field.name for field in fields(Row)[:-1]), "first to do"], *map(_cells, self.rows)]
        *shown, last = [i for i in range(len(cells[0])) if any(line[i] for line in cells[1:])]
        widths = {i: max(len(line[i]) for line in cells) for i in shown}
        lines: list[str] = []
        for line in cells:
            left = "".join(f"{line[i]:{'>' if i == 2 else '<'}{width}}  " for i, width in widths.items())
            first, *more = textwrap.wrap(line[last], min(60, _WIDTH - len(left)), break_on_hyphens=False)
            lines += [left + first, *(" " * len(left) + rest for rest in more)]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])

    __repr__ = __str__


def _cells(row: Row) -> list[str]:
    name = row.name if len(row.name) <= _NAME_WIDTH else f"{row.name[: _NAME_WIDTH - 1]}…"
    return [row.what, name, f"{row.parameters:,}" if row.parameters else "", *astuple(row)[3:]]


def why_not_training(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, folder: str | Path | None = None
) -> Inspection:
    """One row for each adapter, its LayerNorms, each head and the base: does it learn, and if not, what to do first.

    Ask after ``loss.backward()``, before the gradients are cleared. ``model`` may be an ``AdapterBank``, or any model;
    ``folder`` is where ``storage.save_adapter`` saves. Raises StorageError when there is no such folder.
    """
    return Inspection(tuple(_Inspector(model, optimizer, folder).rows()))


class _Inspector:
    """All that a row may need to know."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, folder: str | Path | None) -> None:
        self.model, self.optimizer = model, optimizer
        self.bank = model if isinstance(model, AdapterBank) else None
        self.slots = slots_of(model)
        own = {id(p) for p in model.parameters()}
        held = [(p, group["lr"]) for group in (optimizer.param_groups if optimizer else []) for p in group["params"]]
        self.rates = {id(p): float(rate) for p, rate in held}
        self.unknown = [p for p, _ in held if id(p) not in own]  # tensors that the model does not have
        self.any_gradient = any(p.grad is not None and p.requires_grad for p in model.parameters())
        # The tensors that are saved under each name; None where the file is damaged.
        self.saved: dict[str, Any] | None = None
        if folder is not None:
            self.saved = {one.name: None if one.problem else load_file(one.path) for one in list_adapters(folder)}

    def rows(self) -> Iterable[Row]:
        names = adapter_names(self.model)
        if not names:
            yield Row("adapter", todo="there are none: insert_adapters(model, config) first")
        for name, is_norm in product(names, (False, True)):
            slots = [slot for slot in self.slots if name in slot and isinstance(slot, NormSlot) is is_norm]
            if slots:
                module = slots[0][name]
                what = "LoRA" if isinstance(module, LoRA) else "adapter"
                what = type(module).__name__.lower() if isinstance(module, Composed) else what
                active = _share(slot.active == name for slot in slots)
                active = "within" if active == "no" and self.user(name) else active
                parameters = [p for slot in slots for p in _trained_in(slot[name])]
                yield self.row("LayerNorms" if is_norm else what, name, parameters, active)
        heads = {"": head_parameters(self.model)}
        if self.bank is not None:
            heads = {name: list(head.parameters()) for name, head in self.bank.heads.items()}
        for name, parameters in heads.items():
            if parameters:
                yield self.row("head", name, parameters, _share([self.bank is None or self.bank.active == name]))
        adapters = {id(p) for slot in self.slots for p in slot.parameters()}
        yield self.row("base model", "", [p for p in base_model_of(self.model).parameters() if id(p) not in adapters])
        if self.unknown:
            todo = (
                f"it holds {len(self.unknown)} tensors that the model does not have (any more): they were removed, or "
                "are another model's. Build it anew"
            )
            yield Row("optimiser", parameters=sum(p.numel() for p in self.unknown), todo=todo)

    def row(self, what: str, name: str, parameters: list[nn.Parameter], active: str = "") -> Row:
        optimiser = "" if self.optimizer is None else _share(id(p) in self.rates for p in parameters)
        trainable, count = _share(p.requires_grad for p in parameters), sum(p.numel() for p in parameters)
        saved = "" if self.saved is None or what == "base model" else _is_saved(self.saved, name, parameters)
        row = Row(what, name, count, active, trainable, optimiser, _gradient(parameters), saved)
        return replace(row, todo=next(todo for holds, todo in self.rules(row, parameters) if holds))

    def rules(self, row: Row, parameters: list[nn.Parameter]) -> Iterable[tuple[Any, str]]:
        """What may be wrong and what to do then, in the order in which one would mend it."""
        some, none, under = row.gradient == "some", row.gradient == "none", "under torch.no_grad()"
        if row.what == "base model":
            how = (f'set_trainable(model, "{name}") freezes it' for name in adapter_names(self.model))
            freeze = "fine for BitFit, else set_trainable(model, name) freezes it"
            yield row.trainable == "no", "nothing: it stays frozen"
            yield row.trainable == "some", f"a part of it is trained: {freeze}"
            yield none and self.any_gradient, f"it is not frozen, but has no gradient: does it run {under}?"
            yield True, f"it is trained, too: {next(how, 'full fine-tuning')}"
        user = self.user(row.name) if row.active == "within" else None
        yield user and row.trainable == "no", f"nothing: {user!r} is made of it, and does not train it"
        module: Any = next((slot[user] for slot in self.slots if user and user in slot), None)
        last = isinstance(module, Stack) and module.names[-1] == row.name
        yield user and not last, f'it is trained together with {user!r}: set_trainable(model, "{user}") freezes it'
        switch = f'bank.switch("{row.name}")'
        yield row.active == "no" and self.bank is not None, f"it rests: {switch} to train it"
        yield row.active == "no", f'it is switched off: set_active_adapter(model, "{row.name}")'
        name = row.name or next((slot.active for slot in self.slots if slot.active), "")
        unfreeze = f'set_trainable(model, "{name}"{", head=True" * (row.what == "head")})'
        unfreeze = switch if self.bank is not None else unfreeze if name else "head.requires_grad_(True)"
        yield row.trainable == "some", f"a part of it is frozen: {unfreeze}"
        yield row.trainable == "no", f"it is frozen: {unfreeze}"
        outside = row.optimiser in ("no", "some")
        yield outside and self.unknown, "not in the optimiser, which holds other tensors (see below): build it anew"
        why = "not in the optimiser: it was built before insertion, or while this was frozen. Build it anew"
        yield outside, f"{'a part of it is ' * (row.optimiser == 'some')}{why}"
        at_rest = row.optimiser and not any(self.rates[id(p)] for p in parameters)
        yield at_rest, "its learning rate in the optimiser is 0: raise it, or look at the schedule"

        yield row.gradient == "nan", "its gradient is not finite: lower the learning rate, and look at the loss"
        yield row.gradient == "zero", "its gradient is zero everywhere: nothing that it does reaches the loss"
        dropped = some and row.active == "some"
        yield dropped, "drop_adapters switched some of its places off: set_active_adapter(model, name) brings them back"
        mine: list[Any] = [(path, one) for path, one in self.model.named_modules() if one in self.slots]
        ran = (some or none) and any(slot.called for slot in self.slots)
        uncalled = [path for path, slot in mine if ran and slot.active == row.name and not slot.called]
        why = "was not called in a forward pass: does the model call this module at all?"
        yield uncalled, f"{', '.join(uncalled)} {why}"
        # What has just begun lacks some because up_project, or a fusion's members, are still zero.
        begun = all(p.grad is not None for p in parameters) and any(p.ndim == 2 and not p.any() for p in parameters)
        yield some and not begun, "a part of it has no gradient: does all of it reach the loss?"
        # With a state the optimiser has moved it already, and the gradients were cleared since.
        none = none and not (self.optimizer and any(self.optimizer.state.get(p) for p in parameters))
        yield (
            none and not torch.is_grad_enabled(),
            f"no gradient, and none can come: you are {under} or inference_mode()",
        )
        yield none and self.any_gradient, f"no gradient, though other parts have one: did this part run {under}?"
        yield none, f"no gradient: ask after loss.backward(), before zero_grad(), and not {under}"

        old = {"no": "is not saved", "older": "is changed since it was saved", "damaged": "the saved one is damaged"}
        yield row.saved in old, f"it can be trained, but {old.get(row.saved)}: save_adapter(model, folder, name)"
        yield True, "nothing: it is being trained"

    def user(self, name: str) -> str | None:
        """The stack or fusion that is active and made of the adapters called ``name``."""
        active = {slot.active for slot in self.slots}
        return next((user for user in users_of(self.model, name) if user in active), None)


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


def _is_saved(files: dict[str, Any], name: str, parameters: list[nn.Parameter]) -> str:
    """Whether a file has these tensors; a head without a name may be in any."""
    candidates = [stored for saved, stored in files.items() if name in ("", saved)]
    for stored in candidates:
        values = list((stored or {}).values())
        if all(any(s.shape == p.shape and torch.equal(s, p.detach().cpu()) for s in values) for p in parameters):
            return "yes"
    return "older" if any(candidates) else "damaged" if candidates else "no"
