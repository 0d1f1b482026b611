"""Files that can be trusted: found, verified by checksum, and written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path


class PretrainedFileError(RuntimeError):
    """A model's or task's file is missing, truncated or altered."""


def package_folder(module: str, pip_name: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        PretrainedFileError: when it is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise PretrainedFileError(f"the package {pip_name} is not installed: pip install {pip_name}")
    return Path(spec.origin).parent


def verify(path: Path, sha256: str, mend: str) -> Path:
    """Return ``path`` if the file is there with that SHA-256.

    Raises:
        PretrainedFileError: saying what was expected, what was found and, in ``mend``, what to do.
    """
    if not path.is_file():
        raise PretrainedFileError(f"{path} is missing: {mend}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
    if digest.hexdigest() != sha256:
        raise PretrainedFileError(
            f"{path} is damaged or another version ({path.stat().st_size:,} bytes, SHA-256 {digest.hexdigest()[:12]}…, "
            f"expected {sha256[:12]}…): {mend}"
        )
    return path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, then rename it to ``path``: never half a file, whatever happens."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same folder, so that the rename is atomic
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
