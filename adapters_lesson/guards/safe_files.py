"""Files that are read and written safely: nothing in them is believed, none is run, and none is ever half-written."""

import glob
import hashlib
import json
import os
import pickle
import re
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_MAX_JSON_BYTES = 16 * 2**20
_ABANDONED_SECONDS = 3600  # no file of ours takes so long to write


class PretrainedFileError(RuntimeError):
    """A model's or task's file is missing, truncated or altered."""


class StorageError(ValueError):
    """A saved adapter cannot be trusted, does not fit, or cannot be written; the message says which, and why."""


def package_folder(module: str, pip_name: str) -> Path:
    """The folder of an installed package, found without importing it, or PretrainedFileError."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise PretrainedFileError(f"the package {pip_name} is not installed: pip install {pip_name}")
    return Path(spec.origin).parent


def present(path: Path, mend: str) -> Path:
    """``path``, if the file is there; else PretrainedFileError, with what to do in ``mend``."""
    if not path.is_file():
        raise PretrainedFileError(f"{path} is missing: {mend}")
    return path


def verify(path: Path, sha256: str, mend: str) -> Path:
    """``path``, if the file is there with that SHA-256; else PretrainedFileError, with what to do in ``mend``."""
    with present(path, mend).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
    if digest.hexdigest() != sha256:
        why = f"{path.stat().st_size:,} bytes, SHA-256 {digest.hexdigest()[:12]}…, expected {sha256[:12]}…"
        raise PretrainedFileError(f"{path} is damaged or another version ({why}): {mend}")
    return path


def sums_in(folder: Path, mend: str = "") -> dict[str, str]:
    """The SHA-256 of every file that a folder's SHA256SUMS names; PretrainedFileError, with ``mend``, without one."""
    lines = map(str.split, present(folder / "SHA256SUMS", mend).read_text(encoding="utf-8").splitlines())
    return {line[-1]: line[0] for line in lines if line}


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, then rename it to ``path``: never half a file, whatever happens."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the rename is atomic; by a name of its own, whoever else writes there.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):  # by whoever was killed meanwhile
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()


def check_writable(name: str, path: Path, *, folder: bool = False) -> None:
    """Raise ValueError if nothing can be written at ``path``: better before the training than after it."""
    if path.is_file() if folder else path.is_dir():
        raise ValueError(f"{name} {path} is a {'file, not a folder' if folder else 'folder, not a file'}")
    place = path if path.is_dir() else next(p for p in path.absolute().parents if p.exists())
    try:
        with tempfile.TemporaryFile(dir=place):  # asking for the right is not enough: a disk may be full or read-only
            pass
    except OSError as error:
        why = f"{place} takes no file: {error.strerror}"
        raise ValueError(f"{name} {path} cannot be written, {why}") from None


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a safetensors file, and of no other."""
    from safetensors.torch import load

    if not path.is_file():  # opening a FIFO would wait until somebody writes into it
        raise StorageError(f"{path} is missing, or is no file")
    try:
        content = path.read_bytes()  # once: a mapped file is opened again, and may have been replaced in between
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return header.get("__metadata__") or {}, dict(sorted(tensors.items()))
    except Exception as error:  # it raises many kinds
        why = str(error).strip()[:200]
        raise StorageError(f"{path} is no safetensors file, or damaged ({why}): take it from a backup") from error


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name in a file of ``torch.save``. No code in it is run: with others in it, StorageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            content = torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # it raises many kinds for a damaged file
        more = "and reading anything else could run code" if isinstance(error, pickle.UnpicklingError) else "or damaged"
        why = re.split(r"\. |\n", f"{type(error).__name__}: {str(error).strip()}")[
            0
        ]  # what torch advises next would run it
        raise StorageError(f"{path} is no pickle of tensors alone, {more} ({why}): get it as .safetensors") from error
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise StorageError(f"{path} must hold tensors by name, and nothing else")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
            raise OSError(f"it is missing, or no file of at most {_MAX_JSON_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read as JSON ({type(error).__name__}: {str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} must hold an object of names and values, not a {type(content).__name__}")
    return content
