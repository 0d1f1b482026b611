"""Adapters saved and loaded: one safetensors file for each, tied to the base model that it was trained on.

The settings travel in the file's own header (see ``stored_file``), so one rename commits everything. All that a file
says is checked before the model is touched. To rename or delete a saved adapter, rename or delete its file.
"""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from .adapter import KINDS
from .architectures import Architecture, architecture_of, base_model_of, blocks_of, model_dim_of, width_of
from .bank import AdapterBank
from .composition import Composed, Fusion, Stack, fuse_adapters, stack_adapters
from .guards import stored_file as files
from .guards.bank_guard import check_made_of, warn_of_another_head
from .guards.base_parts import base_tensors, check_same_base, head_class, parts_of, unwrapped, warn_of_unsaved_head
from .guards.foreign import check_tensors, decoded, explained, place, what_is_there
from .guards.label_names import labels_of, set_labels
from .guards.safe_files import StorageError
from .guards.stored_file import Settings, list_adapters
from .insertion import build_places, check_new_name, head_parameters, put_in, slots_with
from .modes import kept_modes
from .transformer import Classifier

__all__ = ["StorageError", "fingerprint", "list_adapters", "load_adapter", "save_adapter"]


def save_adapter(
    model: nn.Module, folder: str | Path, name: str = "default", *, architecture: Architecture | None = None
) -> Path:
    """Save the adapters called ``name`` in ``folder/NAME.safetensors``, with their trained LayerNorms and the head.

    An adapter that was saved there is replaced, wholly or not at all. The names of the labels travel with the head. The
    base model is not saved, only its fingerprint: so not while it computes in another type
    (``train(..., base_dtype=…)``). Nor are the members of a stack or a fusion, which are adapters of their own.

    Returns the file, of 4 bytes a parameter (2 in half precision) and a header. Raises StorageError for what
    ``load_adapter`` could not bring back equal (weights that are not finite, adapters that were changed since, settings
    or labels that are no plain values), another tool's files, a full disk; ValueError when there are no adapters of
    that name.
    """
    model = unwrapped(model)
    slots, path = slots_with(model, name), place(folder, name)
    module, config = next((slot[name], slot.configs[name]) for slot in slots.values())
    settings = Settings(
        files.FORMAT, "adapters-lesson", *_description(model, architecture), fingerprint(model), config.kind,
        asdict(config),
        labels=model.labels.get(name) if isinstance(model, AdapterBank) else labels_of(model),
        composition=type(module).__name__ if isinstance(module, Composed) else None,
        members=tuple((member, digest(model, member)) for member in getattr(module, "names", ())),
        head_of=head_class(model),
        base_parts=parts_of(base_tensors(model)),
    )  # fmt: skip
    tensors = {f"head.{key}": tensor for key, tensor in _head_tensors(model, name).items()}
    tensors |= {f"adapters.{at}.{key}": t for at, slot in slots.items() for key, t in slot[name].state_dict().items()}
    tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
    try:
        back = decoded(Settings, json.loads(json.dumps(asdict(settings))), "the header")
        if (again := back.build_config(KINDS)) != config or back.labels != settings.labels:
            raise StorageError(f"{config} would come back as {again}")
        modules, _ = _build(model, back, tensors, architecture)
        for at, slot in slots.items():
            if repr(slot[name]) != repr(modules[at]):
                raise StorageError(f"the adapter at {at} was changed after it was inserted with {config}: {slot[name]}")
    except (TypeError, StorageError) as error:
        raise StorageError(f"{name!r} cannot be saved, because it could not be loaded again: {error}") from error
    warn_of_unsaved_head(model, bool(_below("head.", tensors)))
    files.write(path, settings, tensors)
    return path


def load_adapter(
    model: nn.Module, folder: str | Path, name: str | None = None, *, architecture: Architecture | None = None
) -> str:
    """Put a saved adapter into ``model`` and make it the active one, as ``insert_adapters`` and ``AdapterBank.add`` do.

    The model then answers, bit for bit, as the one did from which it was saved. If it has a head, that takes the saved
    one's weights; a bare base model takes the adapters alone; a bank takes the task with its head and labels. A stack
    or a fusion is loaded after its members.

    Args:
        model: with the same base model, or an ``AdapterBank`` on it. The base may be in another floating-point type,
            have more tokens, or a pooler that is not used: a warning says so where it matters.
        folder: in which it was saved, or the file itself.
        name: which; None for the only one in the folder.

    Returns the name. Raises StorageError when the file is missing, damaged, forged or of another version, or does not
    fit the model, or the name is taken. The model is then as it was.
    """
    model = unwrapped(model)
    bank = model if isinstance(model, AdapterBank) else None
    if name is None and str(folder).endswith(".safetensors"):
        folder, name = Path(folder).parent, Path(folder).stem
    elif name is None:
        names = [one.name for one in list_adapters(folder)]
        if len(names) != 1:
            raise StorageError(what_is_there(folder))
        name = names[0]
    with explained(path := place(folder, name)):
        settings, tensors = files.read(path)
        check_new_name(model, name)
        for what, here in zip(("architecture", "model_dim", "layers"), _description(model, architecture), strict=True):
            if (there := getattr(settings, what)) != here:
                raise StorageError(f"the adapter is of a model with {what}={there!r:.60}, and this one has {here!r}")
        means = bank or isinstance(model, Classifier)  # over hidden states, without a pooler
        notes = check_same_base(model, settings.base_sha256, fingerprint(model), settings.base_parts, pools=not means)
        saved_head = _below("head.", tensors)
        if None not in (settings.head_of, ours := head_class(model)) and settings.head_of != ours:
            notes.append(f"its head is that of a {settings.head_of} and left aside, the {ours} keeps its own")
            tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("head.")}
        if notes and not bank:  # a base in another type has such a head, too
            for key, parameter in _head_tensors(model, "").items():
                if (weight := tensors.get(f"head.{key}")) is not None and weight.is_floating_point():
                    tensors[f"head.{key}"] = weight.to(parameter.dtype)
        _, insert = _build(model, settings, tensors, architecture)
        tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        # All has been checked: only ``insert`` and a taken name may still refuse, and leave the model as it is.
        if bank:
            bank._add(name, settings.labels or len(saved_head["head.bias"]), partial(insert, name))
            bank.heads[name].to(saved_head["head.bias"].dtype)
        else:
            insert(name)
    own = _head_tensors(model, name)
    head = {key: tensor for key, tensor in _below("head.", tensors).items() if key in own}
    if not bank and any(not torch.equal(own[key].cpu(), tensor) for key, tensor in head.items()):
        warn_of_another_head(model, name)
    with torch.no_grad():
        for key, tensor in head.items():
            own[key].copy_(tensor)
    for at, slot in slots_with(model, name).items():
        device = next(base_model_of(model).get_submodule(at.rpartition(".")[0]).parameters()).device
        weights = {key: tensor.to(device) for key, tensor in _below(f"adapters.{at}.", tensors).items()}
        slot[name].load_state_dict(weights, assign=True)
    if head and settings.labels and not bank:
        notes += set_labels(model, settings.labels)
    elif own and not saved_head:
        notes.append("it was saved without a head: the model's own stays as it is")
    if notes:
        warnings.warn(f"{name!r} is loaded, but {'; '.join(notes)}", stacklevel=2)
    return name


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the base model's own tensors, whatever adapters are in it; StorageError on the meta device."""
    return files.sha256_of(base_tensors(model))


def digest(model: nn.Module, name: str) -> str:
    """SHA-256 over the adapters ``name``: weights and settings, and in a stack or a fusion those of its members."""
    slots = slots_with(model, name)
    module, config = next((slot[name], slot.configs[name]) for slot in slots.values())
    members = [(member, digest(model, member)) for member in getattr(module, "names", ())]
    tensors = {f"{path}.{key}": t for path, slot in slots.items() for key, t in slot[name].state_dict().items()}
    return files.sha256_of({repr((type(module).__name__, *slots, config, members)): torch.empty(0)} | tensors)


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _description(model: nn.Module, architecture: Architecture | None) -> tuple[str, int, int]:
    """Architecture, model_dim and layers: compared before the fingerprint, because they say more."""
    base, at = base_model_of(model), architecture_of(model, architecture)
    blocks = blocks_of(model, at)
    model_type = getattr(getattr(base, "config", None), "model_type", type(base).__name__)
    return str(model_type), model_dim_of(blocks[0], at), len(blocks)


def _head_tensors(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """The head's own tensors. A bank's are called as those of a ``Classifier``: each can load what the other saved."""
    if isinstance(model, AdapterBank):
        if name not in model.heads:
            raise StorageError(f"{name!r} is no task of the bank and has no head there: save it from bank.base_model")
        return {f"head.{key}": tensor for key, tensor in model.heads[name].state_dict().items()}
    own = {id(parameter) for parameter in head_parameters(model)}
    named = {key: parameter for key, parameter in model.named_parameters() if id(parameter) in own}
    return {re.sub(r"^((_orig_mod|module)\.)+", "", key): p for key, p in named.items()}  # compiled, or replicated


def _build(
    model: nn.Module, settings: Settings, tensors: dict[str, torch.Tensor], architecture: Architecture | None
) -> tuple[dict[str, nn.Module], Callable[[str], object]]:
    """Outlines of the modules by the paths of their slots, and what puts them in. The tensors are checked for them."""
    config = settings.build_config(KINDS)
    if settings.composition is None:
        try:
            places = build_places(model, config, architecture, outline=True)
        except (RuntimeError, TypeError, OverflowError) as error:
            raise StorageError(f"no module can be built with {config}: {error}") from error
        paths = {module: path for path, module in base_model_of(model).named_modules()}
        modules = {f"{paths[one.host]}.{one.slot_type.attribute}": one.module for one in places}
        insert: Callable[[str], object] = partial(put_in, model, places, config, architecture=architecture)
    else:
        modules, insert = _composed(model, settings)
    _check_head(model, settings, head := _below("head.", tensors))
    shapes = {f"head.{key}": tuple(tensor.shape) for key, tensor in head.items()}
    for at, module in modules.items():
        shapes |= {f"adapters.{at}.{key}": tuple(t.shape) for key, t in module.state_dict().items()}
    check_tensors("the file", tensors, shapes)
    for at, module in modules.items():
        own = _below(f"adapters.{at}.", tensors)
        if len(types := {tensor.dtype for tensor in own.values()}) > 1:
            raise StorageError(f"the weights at {at} are of several types: {', '.join(sorted(map(str, types)))}")
        if settings.composition is None:
            with torch.no_grad(), kept_modes(module):
                x = torch.ones(1, getattr(module, "in_features", settings.model_dim), dtype=own[min(own)].dtype)
                if not functional_call(module.eval(), own, x).isfinite().all():
                    raise StorageError(f"the module at {at} makes values that are not finite, with {config}")
    return modules, insert


def _composed(model: nn.Module, settings: Settings) -> tuple[dict[str, nn.Module], Callable[[str], object]]:
    """Outlines of a stack or a fusion by their slots, and the function that makes one. Its members are checked."""
    names, makes = [name for name, _ in settings.members], {"Stack": stack_adapters, "Fusion": fuse_adapters}
    if settings.composition not in makes or not names:
        raise StorageError(f"there is no {settings.composition!r:.40} of {names}")
    check_made_of(model, settings.members, digest)
    with torch.device("meta"):
        one = Stack(names, ()) if settings.composition == "Stack" else Fusion(settings.model_dim, names, ())
    make: Callable[..., object] = makes[settings.composition]
    return dict.fromkeys(slots_with(model, names[0]), one), partial(make, base_model_of(model), names)


def _check_head(model: nn.Module, settings: Settings, head: dict[str, torch.Tensor]) -> None:
    """Raise StorageError unless ``model`` can take the saved head."""
    saved = {key: (*tensor.shape, tensor.dtype) for key, tensor in head.items()}
    if isinstance(model, AdapterBank):
        if not saved:
            raise StorageError("it was saved without a head, which every task of a bank needs")
        rows, dtype = saved.get("head.bias", (0, None))[0], next(iter(saved.values()))[-1]
        rows = len(settings.labels or range(rows))
        here = {"head.weight": (rows, width_of(model), dtype), "head.bias": (rows, dtype)}
    else:  # a bare base model takes any, and leaves it aside
        here = {key: (*p.shape, p.dtype) for key, p in _head_tensors(model, "").items() if saved} or saved
    if here != saved:
        key = min(key for key in here.keys() | saved.keys() if here.get(key) != saved.get(key))
        whose = f", that of a {settings.head_of}" if settings.head_of else ""
        raise StorageError(
            f"the saved head is another than the model's{whose}: {key!r} is {saved.get(key, 'not there')}, here "
            f"{here.get(key, 'not there')}. Make the model with the same head, or load into its base model"
        )
