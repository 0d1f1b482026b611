"""AdapterHub's files: written all or none, and read as files from strangers are."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter.safetensors"
HEAD_CONFIG, HEAD_WEIGHTS = "head_config.json", "model_head.safetensors"
_PICKLES = {WEIGHTS: "pytorch_adapter.bin", HEAD_WEIGHTS: "pytorch_model_head.bin"}


def write_all(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Write all files or none: tensors by name as safetensors, any other content as JSON.

    What an earlier export left is replaced. Without ``adapter_config.json`` no library takes a folder for an adapter,
    so that goes first and comes last: cut off in between, the folder has no adapter rather than half of two.

    Raises:
        ValueError: when ``folder`` is no folder, or has a pickled adapter or head.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder for the adapter")
    if pickled := [file for file in _PICKLES.values() if (folder / file).exists()]:
        raise ValueError(f"{folder} has a {pickled[0]} already, which would stand beside our file: use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    staged = {file: folder / f".{file}.{os.getpid()}.tmp" for file in sorted(files, key=CONFIG.__eq__)}
    try:
        for file, temporary in staged.items():
            with temporary.open("wb") as stream:
                stream.write(_as_bytes(file, files[file]))
                stream.flush()
                os.fsync(stream.fileno())
        for file in (CONFIG, HEAD_CONFIG, HEAD_WEIGHTS):
            (folder / file).unlink(missing_ok=True)
        for file, temporary in staged.items():
            temporary.replace(folder / file)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def _as_bytes(file: str, content: dict[str, Any]) -> bytes:
    if not file.endswith(".safetensors"):
        return json.dumps(content, indent=2, sort_keys=True).encode()
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share their memory, as tied ones do.
    return save({key: tensor.detach().cpu().clone().contiguous() for key, tensor in content.items()})


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: when the file is missing, no JSON, or holds anything else.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({_first_line(error)})") from error
    if not isinstance(saved, dict):
        raise ValueError(f"{path} must hold an object of names and values, not a {type(saved).__name__}")
    return saved


def find_tensors(folder: Path, safe: str) -> Path | None:
    """The file with the tensors: ``safe`` if it is there, else the pickle in its stead; None if there is neither."""
    return next((folder / file for file in (safe, _PICKLES[safe]) if (folder / file).is_file()), None)


def read_tensors(folder: Path, safe: str) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors by name, not yet checked, and the file that they are from; see ``find_tensors``.

    Raises:
        ValueError: when there is neither, the file is damaged, or it is a pickle of anything but tensors by name. No
            code in a pickle is run.
    """
    path = find_tensors(folder, safe)
    if path is None:
        raise ValueError(f"{folder} has neither {safe} nor {_PICKLES[safe]}")
    try:
        if path.name == safe:
            from safetensors.torch import load

            tensors = load(path.read_bytes())
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no pickle of tensors alone, and reading anything else could run code ({_first_line(error)})"
        ) from error
    except Exception as error:  # both readers raise many kinds for a damaged file
        raise ValueError(f"{path} cannot be read: it is damaged, or no such file ({_first_line(error)})") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} must hold tensors by name, and nothing else")
    return {str(key): tensor for key, tensor in tensors.items()}, path


def check_tensors(
    path: Path, tensors: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]], dtype: torch.dtype
) -> None:
    """See that the tensors are those of ``shapes``, and finite numbers also in the model's ``dtype``.

    Raises:
        ValueError: naming the first that is not.
    """
    for what, keys in (("lacks", shapes.keys() - tensors.keys()), ("has unexpected", tensors.keys() - shapes.keys())):
        if keys:
            few = ", ".join(sorted(keys)[:3]) + (", …" if len(keys) > 3 else "")
            raise ValueError(f"{path} {what} tensors, {len(keys)} where there should be {len(shapes)} in all: {few}")
    for key, shape in shapes.items():
        tensor = tensors[key]
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{path}: {key} has the shape {tuple(tensor.shape)}, this model needs {shape}")
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{path}: {key} must hold plain real numbers, not {tensor.dtype}, {tensor.layout}")
        if not tensor.to(dtype).isfinite().all():
            raise ValueError(f"{path}: {key} has values that are not finite numbers in {dtype}")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
