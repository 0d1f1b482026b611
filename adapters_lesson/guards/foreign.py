"""A path, settings or tensors from elsewhere are as they should be, or a StorageError says what they are."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch

from .plain_values import REAL, shown
from .safe_files import StorageError, read_json, read_safetensors

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")  # of an adapter; a file system takes no endless ones
HEADER = "adapters_lesson"  # the entry of the metadata that holds our settings, in JSON
NAMING = "cannot name an adapter: use up to 100 letters, digits, - and _, a letter first, no word of PyTorch's modules"
CONFIG = "adapter_config.json"  # in folders of AdapterHub, of peft, of mlx, and of this course's version 0.5.0
_MLX = "a {kind} adapter of mlx, which mlx_lm.load(…, adapter_path={folder!r}) reads"
_HUB = "an adapter of AdapterHub's: adapters_lesson.exchange.adapterhub.import_adapterhub(model, {folder!r}) reads it"
_LOST = f"weights of %s without their {CONFIG}: copy the whole folder"
# What betrays a tool, an entry of its ``CONFIG`` or, where there is none, a file; and what to say of the folder.
_ENTRIES = {
    "bottleneck_size": "an adapter of LLM-Adapters, which only its own copy of peft reads",
    "peft_type": "a {kind} adapter of peft, which peft.PeftModel.from_pretrained(model, {folder!r}) reads",
    **dict.fromkeys(("fine_tune_type", "lora_parameters", "lora_layers"), _MLX),
    "base_sha256": "an adapter of this course, by version 0.5.0: adapters_lesson.exchange.version_0_5.upgrade_folder("
    "model, {parent!r}, {name!r}) makes a file of it, which load_adapter(model, {parent!r}, {name!r}) then reads",
    **dict.fromkeys(("model_type", "config"), _HUB),
}
_FILES = {
    **dict.fromkeys(("adapters.safetensors", "adapters.npz"), _MLX),
    **dict.fromkeys(("adapter.safetensors", "pytorch_adapter.bin"), _LOST % "AdapterHub"),
    "pytorch_adapter_fusion.bin": "a fusion of AdapterHub's, of which only single adapters can be imported",
    **dict.fromkeys(("adapter_model.safetensors", "adapter_model.bin"), _LOST % "peft"),
}


def place(folder: str | Path, name: str) -> Path:
    """``folder/NAME.safetensors``, which need not be there. Raises StorageError for what leads elsewhere."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise StorageError(f"{shown(name)} {NAMING}")
    if not isinstance(folder, (str, os.PathLike)):
        raise StorageError(f"folder must be a path, such as 'adapters', not {folder!r:.80} ({type(folder).__name__})")
    try:
        return unlinked(Path(folder).expanduser().resolve() / f"{name}.safetensors")
    except (RuntimeError, OSError) as error:  # links in a circle, or a user that is not there
        raise StorageError(f"{folder} cannot be followed: {error}") from error


def unlinked(path: Path) -> Path:
    """``path``, whose folder is resolved already. Raises StorageError for a link."""
    if path.is_symlink():
        raise StorageError(f"{path} is a link: nothing outside the folder is opened or replaced")
    return path


def whose(signs: dict[str, Any], folder: Path) -> str:
    """Which tool writes a ``CONFIG`` with such settings, or such files, and what reads the ``folder`` with them."""
    kind = str(signs.get("peft_type", signs.get("fine_tune_type", "LoRA")))[:30]
    known = (what for sign, what in (_ENTRIES | _FILES).items() if sign in signs)
    what = next(known, "of a tool that is not known here")
    return what.format(kind=kind, folder=str(folder), parent=str(folder.parent), name=folder.name)


def foreign(folder: Path) -> str | None:
    """What another tool, or version 0.5.0, has left in ``folder``; None if nothing of the kind is there."""
    if (folder / CONFIG).exists():
        try:
            return whose(read_json(folder / CONFIG), folder)
        except StorageError as error:
            return f"an adapter of some tool, but {error}"
    files = [file for file in _FILES if (folder / file).is_file() and not may_be_ours(folder / file)]
    return whose(dict.fromkeys(files), folder) if files else None


def may_be_ours(path: Path) -> bool:
    """Whether ``save_adapter`` wrote the file; also of a .safetensors that cannot be read."""
    try:
        return path.suffix == ".safetensors" and HEADER in read_safetensors(path)[0]
    except StorageError:
        return True


def what_is_there(given: str | Path) -> str:
    """One sentence about a path at which the adapter that was wanted is not: what is there, and what reads it."""
    path = Path(given).expanduser()
    if path.is_file() and path.suffix == ".safetensors" and may_be_ours(path):
        return f"{path} was saved by save_adapter: load_adapter(model, {str(path)!r}) reads it"
    if path.is_file():
        return f"{path} is a file, not a folder: give the folder in which it is, {str(path.parent)!r}"
    if not path.is_dir():
        hub = f": if it is on the Hugging Face hub, give the folder huggingface_hub.snapshot_download({str(given)!r})"
        return f"there is no folder {path}{hub if re.fullmatch(r'[A-Za-z0-9][^/]*/[^/]+', str(given)) else ''}"
    if ours := sorted(file.stem for file in path.glob("*.safetensors") if file.is_file() and may_be_ours(file)):
        call = f"load_adapter(model, {str(path)!r}, {ours[0]!r})"
        return f"{path} has {', '.join(map(repr, ours))}, saved by save_adapter: {call} reads it"
    if what := foreign(path):
        return f"{path} is {what}"
    if (path / "config.json").is_file():
        return f"{path} is a whole model: transformers.AutoModel.from_pretrained({str(path)!r}) reads it"
    if inside := sorted(sub.name for sub in path.iterdir() if sub.is_dir() and foreign(sub)):
        return f"{path} is no adapter, but {inside[0]!r} in it is {foreign(path / inside[0])}"
    return f"{path} has no adapters"


# Names of base models whose adapters are on AdapterHub, and how many tokens they know.
_VOCABULARIES = {
    "bert-base-uncased": 30522, "bert-large-uncased": 30522, "bert-base-cased": 28996, "bert-large-cased": 28996,
    "bert-base-multilingual-cased": 119547, "bert-base-multilingual-uncased": 105879, "roberta-base": 50265,
    "roberta-large": 50265, "distilbert-base-uncased": 30522, "distilbert-base-cased": 28996, "gpt2": 50257,
}  # fmt: skip


def another_base(theirs: Any, config: Any) -> tuple[str, str] | None:
    """For an adapter that was trained on ``theirs``: how ``config`` seems to be another base's, and the remedy."""
    ours, tokens = getattr(config, "name_or_path", "") or "", getattr(config, "vocab_size", None)
    name, own = (str(path or "").rpartition("/")[2] for path in (theirs, ours))
    known, here = _VOCABULARIES.get(name, tokens), ""
    local = re.match(r"[/.~\\]|\w:", str(theirs)) or Path(ours).exists()  # a path may hold a copy by any name
    if ours and not local and own.lower() != name.lower():
        here = f"is {ours!r}"
    elif tokens is not None and not 0 <= tokens - known < 1024:  # some tokens may have been added
        here = f"knows {tokens} tokens, not {known}"
    if not (name and here):
        return None
    mend = f"on another base it answers wrongly, load transformers.AutoModel.from_pretrained({theirs!r})"
    return f"trained on {theirs!r}, and this model {here}", mend


def warn_of_another_base(theirs: Any, config: Any) -> None:
    """Warn if an adapter was trained on the base model called ``theirs``, and ``config`` seems to be another's."""
    if why := another_base(theirs, config):
        warnings.warn(f"the adapter was {': '.join(why)}", stacklevel=3)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the file ``path``, or does not fit, becomes a StorageError that names it."""
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:  # a StorageError is a ValueError
        raise StorageError(str(error) if str(path.parent) in str(error) else f"{path} does not fit: {error}") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read or written: {error}") from error


def decoded(kind: Any, content: dict[str, Any], where: str) -> Any:
    """The dataclass ``kind`` of what JSON holds. Raises StorageError unless all is as its fields are annotated."""
    if unknown := sorted(content.keys() - kind.__dataclass_fields__.keys()):
        raise StorageError(f"{where} has {unknown[0]!r:.40}, which this version does not know: upgrade")
    hints = get_type_hints(kind)
    try:
        return kind(**{key: _typed(hints[key], value, key) for key, value in content.items()})
    except TypeError as error:
        raise StorageError(f"{where} is not whole: {error}") from error


def _typed(hint: Any, value: Any, key: str) -> Any:
    """``value`` as ``hint`` says: lists of JSON become tuples, and a bool is no int."""
    if get_origin(hint) is UnionType:
        for option in get_args(hint):
            with suppress(StorageError):
                return _typed(option, value, key)
    elif get_origin(hint) is tuple and type(value) is list:
        hints = get_args(hint) if get_args(hint)[-1] is not ... else get_args(hint)[:1] * len(value)
        if len(hints) == len(value):
            return tuple(_typed(one, part, key) for one, part in zip(hints, value, strict=True))
    elif get_origin(hint) is dict and type(value) is dict and get_args(hint)[1] is not Any:
        return {name: _typed(get_args(hint)[1], one, key) for name, one in value.items()}
    elif type(value) in ((int, float) if hint is float else (get_origin(hint) or hint,)):
        return value
    raise StorageError(f"{key!r} is {value!r:.60}, and not {getattr(hint, '__name__', hint)}")


def check_tensors(where: object, tensors: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise StorageError unless the tensors have the names and shapes of ``shapes`` and hold finite real numbers."""
    more = tensors.keys() - shapes.keys()
    for what, keys in (("lacks", shapes.keys() - tensors.keys()), ("has unexpected", more)):
        if keys:
            few = ", ".join(sorted(keys)[:3]) + (", …" if len(keys) > 3 else "")
            few += f"; it has {min(more)}" if more and what == "lacks" else ""
            raise StorageError(f"{where} {what} tensors, {len(keys)} where there should be {len(shapes)} in all: {few}")
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != shapes[key]:
            raise StorageError(f"{where}: {key} has the shape {tuple(tensor.shape)}, expected {shapes[key]}")
        if tensor.dtype not in REAL or tensor.layout != torch.strided or tensor.is_meta:
            raise StorageError(f"{where}: {key} must hold plain real numbers, not {tensor.dtype}, {tensor.layout}")
        if not tensor.isfinite().all():
            raise StorageError(f"{where}: {key} has values that are not finite")
