"""Folders in which version 0.5.0 saved adapters, made into today's files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import Architecture, architecture_of
from adapters_lesson.guards.bank_guard import check_made_of
from adapters_lesson.guards.base_parts import sha256_of
from adapters_lesson.guards.foreign import CONFIG, decoded, explained, place, unlinked, what_is_there
from adapters_lesson.guards.safe_files import StorageError, read_json, read_safetensors
from adapters_lesson.guards.stored_file import FORMAT, Settings, write
from adapters_lesson.insertion import slots_with
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import NormSlot
from adapters_lesson.storage import digest


def upgrade_folder(
    model: nn.Module, folder: str | Path, name: str, *, architecture: Architecture | None = None
) -> Path:
    """Write ``folder/NAME.safetensors``, for ``load_adapter``, from the ``folder/NAME/`` that version 0.5.0 wrote.

    The folder stays, and the model is as it was. It tells how its slots are called, and what the members of a stack or
    a fusion are: load those first. Raises StorageError when the folder is missing, damaged or another tool's, or was
    made of other members.
    """
    path = place(folder, name)
    with explained(old := path.with_suffix("")):
        try:
            content, tensors = _read(unlinked(old))
            placement, composition = content["config"]["placement"], content["composition"] or {}
            slot = PLACEMENTS[placement].sites[(architecture or architecture_of(model)).norm][0].slot
            was = {one["name"]: one["sha256"] for one in composition.get("members", [])}
            content |= {"format": FORMAT, "kind": "bottleneck", "composition": composition.get("kind")}
            content["labels"] = content["head"] and content["head"]["labels"]
            later = ("head_of", "base_parts", "members")  # than version 0.5.0, or see below
            content = {key: content[key] for key in Settings.__dataclass_fields__ if key not in later}
        except (KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{old} lacks something, or has it in another form: {error!r:.80}") from error
        check_made_of(model, was.items(), _old_digest)
        content["members"] = [[member, digest(model, member)] for member in was]
        tensors = {key.replace(f".{placement}_adapters.", f".{slot.attribute}."): t for key, t in tensors.items()}
        write(path, decoded(Settings, content, "the header"), tensors)
    return path


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The settings, and the tensors that they name; both have the right checksums."""
    config = unlinked(folder / CONFIG)
    if not config.exists():
        raise StorageError(f"there is no folder of version 0.5.0 there: {what_is_there(folder)}")
    if "base_sha256" not in (content := read_json(config)):
        raise StorageError(f"{config} was not written by save_adapter: {what_is_there(folder)}")
    claimed, canonical = content.pop("sha256", None), json.dumps(content, sort_keys=True, separators=(",", ":"))
    wrong = "was altered or is damaged (its checksum is wrong): take it from a backup"
    if content.get("format") != 1 or claimed != hashlib.sha256(canonical.encode()).hexdigest():
        raise StorageError(f"{config} {wrong}")
    sha256 = content["tensors"]["sha256"]
    _, tensors = read_safetensors(file := unlinked(folder / f"adapter-{sha256!s:.16}.safetensors"))
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        raise StorageError(f"{file} {wrong}")
    return content, tensors


def _old_digest(model: nn.Module, name: str) -> str:
    """What version 0.5.0 computed where ``storage.digest`` does now; it called slots after their placement."""
    slots = slots_with(model, name)
    module, config = next((slot[name], slot.configs[name]) for slot in slots.values())
    named = {  # trained norms are called as they were
        path if isinstance(slot, NormSlot) else path.replace(slot.attribute, f"{config.placement}_adapters"): slot[name]
        for path, slot in slots.items()
    }
    members = [(member, _old_digest(model, member)) for member in getattr(module, "names", ())]
    about = [type(module).__name__, *named, *(members or (config.activation, float(config.scaling)))]
    tensors = {f"{path}.{key}": tensor for path, one in named.items() for key, tensor in one.state_dict().items()}
    return sha256_of({json.dumps(about): torch.empty(0)} | tensors)
