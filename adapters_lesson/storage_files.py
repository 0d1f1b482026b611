"""The folder of saved adapters: for each a folder with two files, that are committed, checked and deleted together.

``folder/NAME/adapter_config.json`` names the file with the tensors, ``adapter-….safetensors``, and has both checksums.
It is written last: a save that is cut off, at whatever moment, leaves the old adapter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from .files import PretrainedFileError, verify, write_atomically
from .storage_format import FORMAT, StorageError, checksum, parse, read_config

CONFIG = "adapter_config.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_OURS = re.compile(r"adapter_config\.json|adapter-[0-9a-f]{16}\.safetensors")
_TEMPORARY = re.compile(rf"\.({_OURS.pattern})\.\d+\.tmp")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def place(folder: str | Path, name: str) -> Path:
    """``folder/NAME``, which need not be there.

    Raises:
        StorageError: for a name that leads elsewhere, or that no adapter can have.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StorageError(
            f"{name!r} is no adapter's name (letters, digits, - and _, beginning with a letter): "
            "nothing outside the folder is opened"
        )
    return _unlinked(Path(folder).resolve() / name)


def write(folder: str | Path, name: str, content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """Write both files, and take away those that they replace. Returns ``folder/NAME``.

    Raises:
        StorageError: when something else is there.
    """
    from safetensors.torch import save

    path = place(folder, name)
    _check_ours(path)
    path.mkdir(parents=True, exist_ok=True)
    data = save({key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    parameters = sum(tensor.numel() for tensor in tensors.values())
    file = f"adapter-{sha256[:16]}.safetensors"
    described = {"file": file, "sha256": sha256, "bytes": len(data), "parameters": parameters}
    content = {"format": FORMAT, **content, "tensors": described}
    text = json.dumps({**content, "sha256": checksum(content)}, indent=1) + "\n"
    with locked(path):
        write_atomically(path / file, lambda temporary: temporary.write_bytes(data))
        write_atomically(path / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        _remove_files(path, keep={CONFIG, file})
    return path


def read(folder: str | Path, name: str) -> tuple[dict[str, Any], Path]:
    """What ``adapter_config.json`` holds (see ``KINDS``), and the path of the tensors, whose SHA-256 is right.

    Raises:
        StorageError: when anything about the two files is not as ``write`` leaves it.
    """
    path = place(folder, name)
    if not (path / CONFIG).exists():
        there = [file.name for file in path.iterdir() if file.suffix in _PICKLES] if path.is_dir() else []
        why = f", only {_pickle(there[0])}" if there else ""
        names = ", ".join(map(repr, names_in(folder))) or "none"
        raise StorageError(f"there is no adapter {name!r} in {folder}{why}: {CONFIG} is missing. It has {names}")
    content = read_config(_unlinked(path / CONFIG))
    file, sha256 = content["tensors"]["file"], content["tensors"]["sha256"]
    if Path(file).suffix in _PICKLES:
        raise StorageError(f"{path / CONFIG} names {_pickle(file)}")
    if file != f"adapter-{sha256[:16]}.safetensors" or not _OURS.fullmatch(file):
        raise StorageError(
            f"{path / CONFIG} names the file {file!r}, and save_adapter writes adapter-….safetensors beside it: "
            "nothing outside the folder is opened"
        )
    tensors = _unlinked(path / file)
    _check_tensors(tensors, content["tensors"]["bytes"], sha256)
    return content, tensors


def names_in(folder: str | Path) -> list[str]:
    """The adapters saved in ``folder``, in alphabetical order, whether they can be read or not.

    Raises:
        StorageError: when there is no such folder.
    """
    if not Path(folder).is_dir():
        raise StorageError(f"there is no folder {folder}")
    return sorted(path.name for path in Path(folder).iterdir() if _NAME.fullmatch(path.name) and _has_config(path))


def delete(folder: str | Path, name: str) -> None:
    """Delete what ``write`` wrote, and the adapter's folder if nothing else is in there."""
    path = _existing(folder, name)
    with locked(path):
        (path / CONFIG).unlink()  # first: what is left of a deletion that is cut off is no adapter
        _remove_files(path)
    with suppress(OSError):
        path.rmdir()


def rename(folder: str | Path, old: str, new: str) -> Path:
    """Give a saved adapter another name, and return its folder."""
    path, target = _existing(folder, old), place(folder, new)
    if target.exists():
        raise StorageError(f"{target} is there already: choose another name, or delete_adapter(folder, {new!r}) first")
    return path.rename(target)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for others who save there, or (``shared``: to read) only for them. The system ends it with the process.

    Where a system has no such locks (Windows, some network drives), two must not save under one name at one time.
    """
    descriptor = None
    with suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _check_tensors(file: Path, size: int, sha256: str) -> None:
    try:
        if file.is_file() and file.stat().st_size != size:
            raise PretrainedFileError(f"{file} has {file.stat().st_size:,} bytes, expected {size:,}: it is damaged")
        verify(file, sha256, "take the adapter from a backup")
    except (PretrainedFileError, OSError) as error:
        with suppress(OSError), file.open("rb") as opened:
            start = opened.read(8)
            if start[:4] == b"PK\3\4" or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5" and any(start[3:])):
                raise StorageError(f"{file} is {_pickle(file.name)}") from None
        raise StorageError(str(error)) from None


def _pickle(file: str) -> str:
    return f"a pickle ({file!r}), which is never opened: opening one may run any program"


def _unlinked(path: Path) -> Path:
    """``path``, whose parent is resolved, unless it leads elsewhere."""
    try:
        leads_to = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise StorageError(f"{path} cannot be followed: {error}") from None
    if leads_to != path:
        raise StorageError(f"{path} is a link, to {leads_to}: nothing outside the folder is opened or deleted")
    return path


def _has_config(path: Path) -> bool:
    return path.is_dir() and (path / CONFIG).exists()


def _existing(folder: str | Path, name: str) -> Path:
    path = place(folder, name)
    if not _has_config(path):
        raise StorageError(f"there is no adapter {name!r} in {folder}: it has {', '.join(names_in(folder)) or 'none'}")
    _check_ours(path)
    return path


def _check_ours(path: Path) -> None:
    """Raise StorageError when ``adapter_config.json`` is another library's. A damaged one counts as ours."""
    if path.exists() and not path.is_dir():
        raise StorageError(f"{path} is a file: choose another name or folder")
    if _has_config(path) and "format" not in (parse(_unlinked(path / CONFIG)) or {"format": None}):
        raise StorageError(f"{path / CONFIG} was not written by save_adapter, and is left alone: choose another folder")


def _remove_files(path: Path, keep: frozenset[str] | set[str] = frozenset()) -> None:
    """Delete what saves wrote there, killed ones too."""
    for file in list(path.iterdir()):
        if file.name not in keep and (_OURS.fullmatch(file.name) or _TEMPORARY.fullmatch(file.name)):
            file.unlink()
