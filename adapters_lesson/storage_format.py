"""What the two files of a saved adapter hold. Nothing in them is believed before it has been checked.

``adapter_config.json`` has the kinds of values in ``KINDS``, and a checksum over them. The tensors are in a safetensors
file: names, types and shapes first, then bytes, and nothing that could be run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # in torch, and in safetensors
_MAX_CONFIG_BYTES = 16 * 2**20

_NONE = type(None)
# What adapter_config.json holds: [kind] is a list, {str: kind} a mapping, (kind, kind) either. See ``fits``.
KINDS: dict[str, Any] = {
    "format": int,
    "library": str,
    "architecture": str,
    "model_dim": int,
    "layers": int,
    "base_sha256": str,
    "config": {
        "bottleneck_dim": (int, _NONE), "reduction_factor": (int, float, _NONE), "placement": str, "activation": str,
        "init": str, "init_std": (int, float, _NONE), "scaling": (int, float), "dropout": (int, float),
        "layers": ([int], _NONE), "train_layer_norms": bool,
    },
    "slots": {str: str},  # where the tensors belong, and their type
    "composition": ({"kind": str, "members": [{"name": str, "sha256": str}]}, _NONE),
    "head": ({"labels": ([str], _NONE), "tensors": {str: {"dtype": str, "shape": [int]}}}, _NONE),
    "tensors": {"file": str, "sha256": str, "bytes": int, "parameters": int},
}  # fmt: skip


class StorageError(ValueError):
    """A saved adapter cannot be trusted, does not fit, or cannot be written; the message says which, and why."""


def read_config(file: Path) -> dict[str, Any]:
    """What ``adapter_config.json`` holds, if all of it is there, of the right kind and as it was written.

    Raises:
        StorageError: otherwise.
    """
    content = parse(file)
    if content is None:
        raise StorageError(f"{file} is no JSON: it is damaged, take the adapter from a backup")
    if "format" not in content:
        raise StorageError(
            f"{file} was not written by save_adapter; AdapterHub's folders are read by import_adapterhub(model, folder)"
        )
    version = content["format"]
    if type(version) is int and version > FORMAT:
        raise StorageError(
            f"{file} is of format {version}, by {str(content.get('library'))[:40]!r}, and this version reads "
            f"{FORMAT}: upgrade adapters-lesson"
        )
    claimed = content.pop("sha256", None)
    if claimed != checksum(content):
        raise StorageError(f"{file} was altered or is damaged (its checksum is wrong): take the adapter from a backup")
    for field in KINDS | content:
        if field not in KINDS or field not in content or not fits(content[field], KINDS[field]):
            raise StorageError(f"{file}: {field!r} is missing, unknown or of the wrong kind")
    return content


def parse(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none.

    Raises:
        StorageError: when it cannot be read, or is far too large.
    """
    if not file.is_file() or file.stat().st_size > _MAX_CONFIG_BYTES:
        raise StorageError(f"{file} is no file of at most {_MAX_CONFIG_BYTES:,} bytes")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        checksum(content)  # refuses NaN and Infinity, which are no JSON either
    except (ValueError, RecursionError):
        return None
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error}") from error
    return content if isinstance(content, dict) else None


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of what ``adapter_config.json`` holds, whatever its layout."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a kind, as in ``KINDS``."""
    if isinstance(kind, tuple):
        return any(fits(value, one) for one in kind)
    if isinstance(kind, list):
        return type(value) is list and all(fits(element, kind[0]) for element in value)
    if isinstance(kind, dict) and str in kind:
        return type(value) is dict and all(fits(element, kind[str]) for element in value.values())
    if isinstance(kind, dict):
        return type(value) is dict and value.keys() == kind.keys() and all(fits(value[k], kind[k]) for k in kind)
    return type(value) is kind  # bool is no int here


def sha256_of(named: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in named.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path, expected: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, if they are the ``expected`` ones: by name, their type and shape.

    Raises:
        StorageError: for tensors that are missing, unexpected, of another type or shape, or not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            for what, names in (("lacks", expected.keys() - found), ("has also", found - expected.keys())):
                if names:
                    raise StorageError(f"{path} {what} {min(names)!r}: {len(names)} tensors that do not fit")
            for key, (dtype, shape) in expected.items():
                header = file.get_slice(key)
                if header.get_dtype() != DTYPES[dtype]:
                    raise StorageError(f"{path}: {key!r} is of type {header.get_dtype()}, expected {DTYPES[dtype]}")
                if tuple(header.get_shape()) != shape:
                    raise StorageError(f"{path}: {key!r} has the shape {header.get_shape()}, expected {list(shape)}")
            tensors = {key: file.get_tensor(key).clone() for key in expected}  # not the mapped file, which may change
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} is no safetensors file ({error}): take the adapter from a backup") from error
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise StorageError(f"{path}: {key!r} has values that are not finite: it would spoil every output")
    return tensors
