"""Names of adapters and tasks. An AdapterBank keeps adapters, head and labels together: half a change is refused."""

import math
import warnings
from collections.abc import Callable, Iterable, Set
from typing import Any

from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.slots import ParallelSlot, slots_of

from .foreign import NAME, NAMING
from .plain_values import listed, number, shown
from .safe_files import StorageError


def is_bank(model: Any) -> bool:
    """Whether ``model`` is an ``AdapterBank``."""
    return getattr(model, "is_bank", False) is True


def check_no_bank(model: Any, call: str) -> None:
    """Raise ValueError for an ``AdapterBank``; ``call`` is what to write in place of the function that asks."""
    if is_bank(model):
        raise ValueError(f"a bank keeps the adapters, head and labels of a task together: {call}")


def check_bare(base_model: nn.Module, call: str) -> None:
    """Raise ValueError for a model with a head; ``call`` is what to write with its base alone."""
    if (base := base_model_of(base_model)) is not base_model:
        path = next((path for path, module in base_model.named_modules() if module is base), "base_model")
        call = call.replace("base_model", path)
        raise ValueError(f"a {type(base_model).__name__} has a head already: give its base model alone, {call}")


def adapter_names(model: nn.Module) -> list[str]:
    """The names under which adapters were inserted, in the order of the modules."""
    return list(dict.fromkeys(key for slot in slots_of(model) for key in slot))


def users_of(model: nn.Module, name: str) -> list[str]:
    """The stacks and fusions made of the adapters called ``name``, and of those, in the order in which they can go."""
    named = [pair for slot in slots_of(model) for pair in slot.items()]
    direct = dict.fromkeys(key for key, module in named if name in getattr(module, "names", ()))
    return list(dict.fromkeys(user for key in direct for user in (*users_of(model, key), key)))


def check_new_name(model: nn.Module, name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or hasattr(ParallelSlot(), name):
        raise ValueError(f"{shown(name)} {NAMING}")
    if name in adapter_names(model):
        mend = f"choose another name, or {removal(model, *users_of(model, name), name)} first"
        raise ValueError(f"the model has adapters called {name!r} already: {mend}")


def check_known(model: nn.Module, name: str) -> None:
    _check_among(adapter_names(model), name, "the model has no adapters called", insertion(model, name))


def check_unused(model: nn.Module, name: str) -> None:
    if users := users_of(model, name):
        part = f"{name!r} is part of {', '.join(map(repr, users))}, which would not work without it"
        raise ValueError(f"{part}: {removal(model, *users)} first")


def check_task(bank: Any, name: str) -> None:
    _check_among(bank.heads, name, "the bank has no task called", insertion(bank, name))


def check_whole_task(bank: Any, name: str) -> None:
    check_task(bank, name)
    if not any(name in slot for slot in bank._slots):
        raise ValueError(f"the adapters of {name!r} were taken out of bank.base_model: bank.remove({name!r}) as well")


def check_in_step(bank: Any) -> None:
    """Raise ValueError unless the base model and the heads of ``bank`` are switched to the same task."""
    if bank.active is None:
        hint = "switch(name)" if bank.heads else "add(name, config, 2)"
        raise ValueError(f"no task is switched on: bank.{hint} first")
    check_whole_task(bank, bank.active)
    others = [slot.active for slot in bank._slots if slot.active not in (None, bank.active)]  # None: dropped there
    if others:
        mend = f"bank.switch({bank.active!r}) brings them together"
        raise ValueError(f"the base model is switched to {others[0]!r}, and the bank to {bank.active!r}: {mend}")


def check_rows(bank: Any, adapters: Any, rows: int) -> list[str | None]:
    """The name for each row of a mixed batch. Raises ValueError for another number of them, or an unknown one."""
    names = listed(adapters)
    if names is None or len(names) != rows:
        mend = f", [{adapters!r}] * {rows}" if isinstance(adapters, str) else " or None for the bare base"
        raise ValueError(f"adapters={shown(adapters)} for {rows} rows: give each row the name of its task{mend}")
    for name in dict.fromkeys(names):
        if name is not None:
            check_whole_task(bank, name)
    return names


def removal(model: Any, *names: str) -> str:
    """The code that takes adapters out of ``model``, whatever it is."""
    tasks, other = (model.heads, "bank.base_model") if is_bank(model) else ((), "model")
    calls = (f"bank.remove({name!r})" if name in tasks else f"remove_adapters({other}, {name!r})" for name in names)
    return "; ".join(calls)


def insertion(model: Any, name: str) -> str:
    """The code that puts adapters called ``name`` into ``model``, whatever it is."""
    if is_bank(model):
        return f"bank.add({name!r}, config, 2)"
    return f"insert_adapters(model, config{'' if name == 'default' else f', {name!r}'})"


def check_members(model: Any, names: Any, call: str) -> list[str]:
    """``names`` as a list. Raises ValueError for fewer than two, or one twice, and for a bank as ``check_no_bank``."""
    check_no_bank(model, call)
    members = [] if isinstance(names, Set) else listed(names) or []  # the order of a set is another in every run
    if len(members) < 2 or not all(isinstance(n, str) for n in members) or len(set(members)) < len(members):
        raise ValueError(f"names={shown(names)}, but at least two different adapters are needed, in a list")
    return list(map(str.__str__, members))


def check_shares(weights: Any, members: int) -> list[float]:
    """The share of each member in a mean: at least 0, and 1 together. Raises ValueError for what makes none."""
    given = [1] * members if weights is None else listed(weights) or []
    plain = [w for w in map(number, given) if w is not None]
    if len(plain) != members or not all(0 <= w < math.inf for w in plain) or not any(plain):
        raise ValueError(f"weights={shown(weights)}, but a mean needs {members} numbers, not negative, and one above 0")
    parts = [w / max(plain) for w in plain]  # of the largest: their sum cannot overflow
    return [part / sum(parts) for part in parts]


def check_made_of(
    model: nn.Module, members: Iterable[tuple[str, str]], digest: Callable[[nn.Module, str], str]
) -> None:
    """Raise StorageError unless ``model`` has adapters of these names and digests."""
    for member, sha256 in members:
        if member not in adapter_names(model):
            raise StorageError(f"it is made of {member!r:.40} among others: load that one first")
        if sha256 != digest(model, member):
            raise StorageError(f"it was made of another {member!r} than the model has now: load that one instead")


def warn_of_another_head(model: nn.Module, name: str) -> None:
    """Warn that the head that comes with the adapters ``name`` takes the place of that of others in ``model``."""
    if others := [repr(other) for other in adapter_names(model) if other != name]:
        what = f"the model has one head, now that of {name!r}: {', '.join(others)} would answer with it as well"
        mend = f"bank = AdapterBank(base_model); load_adapter(bank, folder, {name!r})"
        warnings.warn(f"{what}. A bank has one for each: {mend}", stacklevel=3)


def _check_among(names: Iterable[str], name: Any, what: str, first: str) -> None:
    if name not in (names := list(names)):
        have = f"it has {', '.join(map(repr, names))}" if names else f"it has none: {first} first"
        raise ValueError(f"{what} {name!r}; {have}")
