"""Adapters saved and loaded: a small file for each task, tied to the base model that it was trained on.

A saved adapter is a folder with two files (see ``storage_files``): JSON with everything that is needed to build it
again, and safetensors with its weights, its trained LayerNorms and the head. Files get damaged, mixed up or forged, so
all of it is checked, and the adapter built, before the model is touched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import storage_files as files
from .adapter import AdapterConfig
from .architectures import Architecture, base_model_of
from .bank import AdapterBank
from .composition import Composed, Fusion, Stack, fuse_adapters, stack_adapters
from .insertion import build_places, check_known, check_new_name, put_in
from .storage_format import DTYPES, StorageError, read_tensors
from .storage_parts import (
    adapter_tensors,
    check_base,
    check_head,
    check_members,
    check_settings,
    description,
    digest,
    fingerprint,
    head_tensors,
    library_version,
    slot_dtype,
    slots_with,
    spec,
)


@dataclass(frozen=True)
class SavedAdapter:
    """What ``list_adapters`` says of one.

    Attributes:
        path: its folder.
        bytes: size of its two files.
        parameters: of adapters, trained LayerNorms and head together.
        config: with which the adapters were inserted.
        labels: names of the head's labels, where it was saved from a bank.
        architecture: of its base model.
        members: the adapters of which a stack or a fusion is made; they are saved apart.
        library: by which it was written.
        problem: why it cannot be read; None if it can. The rest is unknown then.
    """

    name: str
    path: Path
    bytes: int = 0
    parameters: int = 0
    config: AdapterConfig | None = None
    labels: tuple[str, ...] | None = None
    architecture: str = ""
    members: tuple[str, ...] = ()
    library: str = ""
    problem: str | None = None

    def __str__(self) -> str:
        if self.config is None:
            return f"{self.name}: cannot be read: {self.problem}"
        what = f"made of {', '.join(self.members)}" if self.members else self.config.placement
        return f"{self.name}: {what}, {self.parameters:,} parameters, {self.bytes:,} bytes, for {self.architecture}"


def save_adapter(
    model: nn.Module, folder: str | Path, name: str = "default", *, architecture: Architecture | None = None
) -> Path:
    """Save the adapters called ``name`` in ``folder/NAME``, with their trained LayerNorms and the head.

    What was saved there before is replaced, wholly or not at all, whatever happens meanwhile. The base model is not
    saved, only its fingerprint: so not while it computes in another type (``train(..., base_dtype=…)``). Nor are the
    members of a stack or a fusion, which are adapters of their own.

    Args:
        model: a model with adapters, or an ``AdapterBank``.
        architecture: as for ``insert_adapters``.

    Returns:
        ``folder/NAME``. The tensors take 4 bytes a parameter (2 in half precision) and a small header.

    Raises:
        StorageError: for weights that are not finite or of an odd type, adapters that were changed after they were
            inserted, or when something else is there.
        ValueError: when there are no adapters of that name, or the architecture is unknown.
    """
    check_known(model, name)
    slots, head = slots_with(model, name), head_tensors(model, name)
    for path, slot in slots.items():
        check_settings(path, slot[name], slot.configs[name])
    tensors = {f"adapters.{key}": tensor for key, tensor in adapter_tensors(slots, name).items()}
    tensors |= {f"head.{key}": tensor for key, tensor in head.items()}
    for key, tensor in tensors.items():
        if spec(tensor)["dtype"] not in DTYPES:
            raise StorageError(f"{key!r} is of type {tensor.dtype}: only {', '.join(DTYPES)} are saved")
        if not tensor.isfinite().all():
            raise StorageError(f"{key!r} has values that are not finite: train again, with a lower learning rate")
    labels = list(model.labels[name]) if isinstance(model, AdapterBank) else None
    module, config = next((slot[name], slot.configs[name]) for slot in slots.values())
    content = {
        "library": f"adapters-lesson {library_version()}",
        **description(model, architecture),
        "base_sha256": fingerprint(model),
        "config": asdict(config),
        "slots": {path: slot_dtype(path, slot[name]) for path, slot in slots.items()},
        "composition": _composition(model, module) if isinstance(module, Composed) else None,
        "head": {"labels": labels, "tensors": {key: spec(t) for key, t in head.items()}} if head else None,
    }
    return files.write(folder, name, content, tensors)


def load_adapter(
    model: nn.Module, folder: str | Path, name: str | None = None, *, architecture: Architecture | None = None
) -> str:
    """Put a saved adapter into ``model`` and make it the active one, as ``insert_adapters`` and ``AdapterBank.add`` do.

    The model then answers, bit for bit, as the one did from which it was saved. If it has a head, that takes the saved
    one's weights; a bare base model takes the adapters alone; a bank takes the task with its head and labels. A stack
    or a fusion is loaded after its members.

    Args:
        model: with the same base model, or an ``AdapterBank`` on it.
        folder: in which it was saved.
        name: which; None for the only one in the folder.
        architecture: as for ``insert_adapters``.

    Returns:
        The name.

    Raises:
        StorageError: when the files are missing, damaged, forged or of a later version, or do not fit the model:
            another base model, width, number of layers or head, or a name that is taken. The model is then as it was.
    """
    if name is None:
        name = _only_name(folder)
    with files.locked(files.place(folder, name), shared=True):
        content, path = files.read(folder, name)
        try:
            check_new_name(model, name)
            check_base(model, content, architecture)
            modules, insert = _build(model, content, name, path.stat().st_size, architecture)
            tensors = read_tensors(path, _expected(model, content, modules))
            _put_in(model, name, content, tensors, insert)
        except StorageError:
            raise
        except (ValueError, OverflowError) as error:
            raise StorageError(f"{path.parent} does not fit: {error}") from error
    if content["head"] is None and head_tensors(model, name):
        warnings.warn(f"{name!r} was saved without a head: the model's own stays as it is", stacklevel=2)
    return name


def list_adapters(folder: str | Path) -> list[SavedAdapter]:
    """What is saved in ``folder``, in alphabetical order; those that cannot be read with their ``problem``.

    Raises:
        StorageError: when there is no such folder.
    """
    return [_listed(Path(folder), name) for name in files.names_in(folder)]


def rename_adapter(folder: str | Path, old: str, new: str) -> Path:
    """Give a saved adapter another name, and return its folder.

    Raises:
        StorageError: when there is none called ``old``, or something called ``new``.
    """
    return files.rename(folder, old, new)


def delete_adapter(folder: str | Path, name: str) -> None:
    """Delete a saved adapter, damaged or not: what ``save_adapter`` wrote, and nothing else.

    Raises:
        StorageError: when there is none of that name, or it is another library's.
    """
    files.delete(folder, name)


def _composition(model: nn.Module, module: Composed) -> dict[str, Any]:
    members = [{"name": member, "sha256": digest(model, member)} for member in module.names]
    return {"kind": type(module).__name__, "members": members}


def _listed(folder: Path, name: str) -> SavedAdapter:
    path = folder / name
    try:
        with files.locked(files.place(folder, name), shared=True):
            content, tensors = files.read(folder, name)
            config = AdapterConfig(**content["config"])
            size = tensors.stat().st_size + (path / files.CONFIG).stat().st_size
    except (ValueError, OverflowError, OSError) as error:
        return SavedAdapter(name, path, problem=str(error))
    return SavedAdapter(
        name, path, size, content["tensors"]["parameters"], config,
        labels=tuple(content["head"]["labels"]) if content["head"] and content["head"]["labels"] else None,
        architecture=content["architecture"],
        members=tuple(member["name"] for member in (content["composition"] or {"members": ()})["members"]),
        library=content["library"],
    )  # fmt: skip


def _only_name(folder: str | Path) -> str:
    names = files.names_in(folder)
    if len(names) > 1:
        raise StorageError(f"{folder} has {', '.join(map(repr, names))}: say which, load_adapter(model, folder, name)")
    if not names:
        raise StorageError(f"{folder} has no adapters: save_adapter(model, folder, name) makes a folder in it for each")
    return names[0]


def _build(
    model: nn.Module, content: dict[str, Any], name: str, size: int, architecture: Architecture | None
) -> tuple[dict[str, nn.Module], Callable[[], object]]:
    """Outlines of the saved modules by their slots, and what will put such modules in."""
    base, composition = base_model_of(model), content["composition"]
    config = AdapterConfig(**content["config"] | {"scaling": float(content["config"]["scaling"])})
    if composition is None:
        if (width := config.bottleneck_for(content["model_dim"])) > size:
            raise StorageError(f"bottleneck_dim is {width:.4g}, but all tensors together take {size:,} bytes")
        places = build_places(model, config, architecture, outline=True)
        paths = {module: path for path, module in base.named_modules()}
        modules = {f"{paths[place.host]}.{place.attribute}": place.module for place in places}
        return modules, lambda: put_in(model, places, config, name)
    names = [member["name"] for member in composition["members"]]
    check_members(model, composition)
    if composition["kind"] == "Stack":
        modules = {path: Stack(names, ()) for path in slots_with(model, names[0])}
        return modules, lambda: stack_adapters(base, names, name)
    with torch.device("meta"):
        modules = {path: Fusion(content["model_dim"], names, ()) for path in slots_with(model, names[0])}
    return modules, lambda: fuse_adapters(base, names, name)


def _expected(
    model: nn.Module, content: dict[str, Any], modules: dict[str, nn.Module]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor that the file has to have."""
    slots, head = content["slots"], content["head"]
    if modules.keys() != slots.keys():
        raise StorageError(f"it is for other places: {', '.join(sorted(modules.keys() ^ slots.keys())[:4])}")
    expected = {
        f"adapters.{path}.{key}": (slots[path], tuple(tensor.shape))
        for path, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    if head is not None:
        check_head(model, head)
        expected |= {f"head.{key}": (one["dtype"], tuple(one["shape"])) for key, one in head["tensors"].items()}
    elif isinstance(model, AdapterBank):
        raise StorageError("it was saved without a head, which every task of a bank needs")
    for dtype, _ in expected.values():
        if dtype not in DTYPES:
            raise StorageError(f"{dtype!r} is no type of weights: one of {', '.join(DTYPES)} is expected")
    return expected


def _put_in(
    model: nn.Module,
    name: str,
    content: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    insert: Callable[[], object],
) -> None:
    """All has been checked: only ``insert`` may still refuse, and leaves the model as it is then."""

    def below(prefix: str, device: torch.device) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): t.to(device) for k, t in tensors.items() if k.startswith(prefix)}

    base = base_model_of(model)
    if isinstance(model, AdapterBank):
        labels = content["head"]["labels"] or len(tensors["head.head.bias"])
        model._add(name, labels, insert)
        device = next(model.heads[name].parameters()).device
        model.heads[name].load_state_dict(below("head.head.", device), assign=True)
    else:
        insert()
        with torch.no_grad():
            for key, parameter in head_tensors(model, name).items():
                if f"head.{key}" in tensors:
                    parameter.copy_(tensors[f"head.{key}"])
    for path, slot in slots_with(model, name).items():
        device = next(base.get_submodule(path.rpartition(".")[0]).parameters()).device
        slot[name].load_state_dict(below(f"adapters.{path}.", device), assign=True)
