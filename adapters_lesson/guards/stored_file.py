"""The file of a saved adapter. It may come from a stranger: nothing in it is believed, and nothing could be run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .base_parts import Part, sha256_of
from .foreign import CONFIG, HEADER, NAME, decoded, explained, foreign, may_be_ours, place, what_is_there
from .safe_files import StorageError, read_safetensors, write_atomically

FORMAT = 2  # 1 is the folder that version 0.5.0 wrote


@dataclass(frozen=True)
class Settings:
    """What the header says, beside a checksum over everything in the file."""

    format: int
    library: str  # by which it was written
    architecture: str  # of the base model, as the next three
    model_dim: int
    layers: int
    base_sha256: str
    kind: str  # of module, in ``adapter.KINDS``
    config: dict[str, Any]  # with which the modules were inserted
    labels: tuple[str, ...] | None  # of the head, where they have names
    composition: str | None  # "Stack" or "Fusion" of ``members``, each with the SHA-256 of its weights and settings
    members: tuple[tuple[str, str], ...]
    head_of: str | None = None  # transformers' class of models with such heads
    base_parts: dict[str, Part] | None = None  # of the base model, for those that have it in another dress

    def build_config(self, kinds: dict[str, Any]) -> Any:
        """The config as an object. Raises StorageError for a kind or a setting that this version does not know."""
        if self.kind not in kinds:
            raise StorageError(f"there is no kind of module called {self.kind!r:.40}, only {', '.join(kinds)}: upgrade")
        return decoded(kinds[self.kind], self.config, "the config")


@dataclass(frozen=True)
class SavedAdapter:
    """One line of ``list_adapters``."""

    name: str
    path: Path
    bytes: int = 0  # of the file
    parameters: int = 0  # of adapters, trained LayerNorms and head together
    settings: Settings | None = None
    problem: str | None = None  # why it cannot be read; the rest is unknown then

    def __str__(self) -> str:
        if self.settings is None:
            return f"{self.name}: cannot be read: {self.problem}"
        members = ", ".join(name for name, _ in self.settings.members)
        config = self.settings.config
        what = f"made of {members}" if members else config.get("placement", f"LoRA on {config.get('targets')}")
        size = f"{self.parameters:,} parameters, {self.bytes:,} bytes"
        return f"{self.name}: {what}, {size}, for {self.settings.architecture}"


def list_adapters(folder: str | Path) -> list[SavedAdapter]:
    """What is saved in ``folder``, in alphabetical order; those that cannot be read with their ``problem``.

    Raises StorageError when there is no such folder.
    """
    given, folder = folder, place(folder, "any").parent
    with explained(folder):
        if not folder.is_dir():
            raise StorageError(what_is_there(given))
        found = {path.stem for path in folder.glob("*.safetensors") if not path.is_symlink() and may_be_ours(path)}
        found |= {path.parent.name for path in folder.glob(f"*/{CONFIG}")}
    listed = []
    for name in sorted(filter(NAME.fullmatch, found)):
        path = place(folder, name)
        try:
            settings, tensors = read(path)
        except StorageError as error:
            listed.append(SavedAdapter(name, path, problem=str(error)))
        else:
            parameters = sum(tensor.numel() for tensor in tensors.values())
            listed.append(SavedAdapter(name, path, path.stat().st_size, parameters, settings))
    return listed


def write(path: Path, settings: Settings, tensors: dict[str, torch.Tensor]) -> None:
    """Write the file wholly or not at all. What another tool wrote is never replaced."""
    from safetensors.torch import save

    content = asdict(settings)
    header = {HEADER: json.dumps({**content, "sha256": _checksum(content, tensors)})}
    with explained(path):
        if path.exists() and not (path.is_file() and may_be_ours(path)):
            raise StorageError(f"{path} was not written by save_adapter, and is left alone: choose another name")
        if what := foreign(path.parent):
            raise StorageError(f"{path.parent} is {what}. Nothing is written beside it: choose another folder")
        write_atomically(path, lambda temporary: temporary.write_bytes(save(tensors, header)))


def read(path: Path) -> tuple[Settings, dict[str, torch.Tensor]]:
    """Settings and tensors as ``write`` left them. Raises StorageError for anything else."""
    with explained(path):
        if not path.exists():
            if (below := path.with_suffix("")).is_dir() and foreign(below):
                raise StorageError(what_is_there(below))
            raise StorageError(f"there is no adapter {path.stem!r}: {what_is_there(path.parent)}")
        metadata, tensors = read_safetensors(path)
        if HEADER not in metadata:
            raise StorageError(f"{path} was not written by save_adapter: {what_is_there(path.parent)}")
        content = json.loads(metadata[HEADER])
        number = content.get("format") if isinstance(content, dict) else None
        if number != FORMAT:
            later = "upgrade adapters-lesson, if a later version wrote it"
            raise StorageError(f"{path} is of format {number!r:.20}, and this version reads {FORMAT}: {later}")
        if content.pop("sha256", None) != _checksum(content, tensors):
            raise StorageError(f"{path} was altered or is damaged (its checksum is wrong): take it from a backup")
        return decoded(Settings, content, "the header"), tensors


def _checksum(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    return sha256_of({json.dumps(content, sort_keys=True): torch.empty(0), **dict(sorted(tensors.items()))})
