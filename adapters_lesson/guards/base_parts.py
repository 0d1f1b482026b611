"""Is it the same base model, maybe rounded, with more tokens or another pooler? Its weights as checksums by part."""

import hashlib
import re
import warnings

import torch
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.slots import AdapterSlot

from .base_guard import beside_blocks
from .merge_guard import check_not_merged
from .quantised_base import keep_bytes, pieces
from .safe_files import StorageError

_HALF = {"bfloat16": 3, "float16": 4}  # where each stands in a ``Part``
_CODES = ("int8", "uint8")  # in which quantised weights are kept
# Type and rows of the first tensor, or of codes if it has some, and how; checksums of all as they are, and rounded to
# bfloat16 and float16.
Part = tuple[str, str, str, str, str]


def sha256_of(named: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in ((name, piece) for name, one in named.items() for piece in pieces(one)):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(whole.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def base_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base model's own tensors, without adapters. Raises StorageError for an outline on the meta device."""
    check_not_merged(model)
    base = base_model_of(model)
    slots = tuple(f"{path}." for path, module in base.named_modules() if isinstance(module, AdapterSlot))
    keep_bytes(base)
    state = {key: tensor for key, tensor in base.state_dict().items() if not key.startswith(slots)}
    own = {f"{key}.{i}" if i else key: piece for key, tensor in state.items() for i, piece in enumerate(pieces(tensor))}
    if any(tensor.is_meta for tensor in own.values()):
        raise StorageError("the model is an outline on the meta device: load its weights first")
    return own


def parts_of(named: dict[str, torch.Tensor]) -> dict[str, Part]:
    """A base model's tensors by part: a block, or a module beside the blocks, by its name."""
    parts = {}
    for part, tensors in _grouped(named).items():
        first, dtype = next(iter(tensors.values())), _dtype(tensors)
        rows = str(len(first)) if len(tensors) == first.ndim - 1 == 1 else ""
        rows = _names(tensors) if dtype in _CODES else rows
        parts[part] = dtype, rows, _sum(tensors, dtype), _sum(tensors, "bfloat16"), _sum(tensors, "float16")
    return parts


def check_same_base(
    model: nn.Module, saved: str, here: str, parts: dict[str, Part] | None, *, pools: bool
) -> list[str]:
    """In what harmless way ``model``'s base is another than an adapter's. Raises StorageError if it is no copy.

    ``saved`` and ``parts`` are of the adapter's base (None in old files), ``here`` is the fingerprint of ``model``'s;
    ``pools``: whether somebody may use its pooler. More embeddings count only for new tokens.
    """
    if saved == here:
        return []
    theirs, ours, notes, rounded = parts or {}, _grouped(base_tensors(model)), {}, []
    alone = [part for part in sorted(theirs.keys() ^ ours.keys()) if not part.startswith("pooler")]
    differ = [f"{part}, which {'it' if part in theirs else 'this one'} alone has" for part in alone]
    for part in (part for part in ours if part in theirs):
        (dtype, rows, exact, *_), tensors = theirs[part], ours[part]
        first = next(iter(tensors.values()))
        own = _dtype(tensors)
        if {own, dtype}.intersection(_CODES) and (own, _names(tensors)) != (dtype, rows):  # nothing tells their numbers
            rounded.append(part)
            notes["codes"] = f"its base had weights in {dtype}, and has them in {own} here: answers differ by rounding"
            continue
        more = len(first) - int(rows) if rows.isdigit() and first.ndim else 0
        if more > 0 and "embeddings" in part:
            tensors = {name: tensor[: int(rows)] for name, tensor in tensors.items()}
            notes["more"] = f"{part} has {more} more rows"
        to = own if own in _HALF and dtype not in _HALF else dtype  # a base of a finer type is rounded as this one is
        if _sum(tensors, to) == (exact if to == dtype else theirs[part][_HALF[to]]):
            if own != dtype:
                notes["type"] = f"it computes in {own}, and did in {dtype}: answers differ by rounding"
        elif part.startswith("pooler") and head_class(model) is None:  # a head of transformers' own may use the pooler
            if pools:
                notes["pooler"] = f"{part} of the base model is another: its pooler_output is not what it was"
        else:
            differ.append(part + (f" ({rows} rows there, {len(first)} here)" if more else ""))
    differ += rounded if len(rounded) == len(ours) else []
    if differ or parts is None:
        where = f" in {', '.join(differ[:3])}{', …' if len(differ) > 3 else ''}" if parts else ""
        what = f"the adapter was trained on another base model, of the same shape but with other weights{where}"
        raise StorageError(f"{what} (fingerprint {saved[:12]}…, here {here[:12]}…): load the model that it belongs to")
    return list(notes.values())


def head_class(model: nn.Module) -> str | None:
    """transformers' class of models with such a head: those of another do not understand it, whatever its shape."""
    return type(model).__name__ if hasattr(model, "base_model_prefix") and base_model_of(model) is not model else None


def _grouped(named: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    grouped: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in named.items():
        block = re.match(r".*?\.\d+(?=\.)", name)
        module = re.sub(r"\.weight\..*", ".weight", name).rpartition(".")[0]  # a quantised weight is several tensors
        grouped.setdefault(block.group() if block else module or name, {})[name] = tensor
    return grouped


def _dtype(tensors: dict[str, torch.Tensor]) -> str:
    dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()]
    return next((dtype for dtype in dtypes if dtype in _CODES), dtypes[0])


def _names(tensors: dict[str, torch.Tensor]) -> str:
    """How weights are quantised, in so far as their tensors' names say so. No number."""
    return f"#{_sum({name: torch.empty(0) for name in tensors}, 'uint8')}"


def _sum(tensors: dict[str, torch.Tensor], dtype: str) -> str:
    """Enough of a checksum to tell weights apart; a forger would copy the right one."""
    to = getattr(torch, dtype, None)
    to = to if isinstance(to, torch.dtype) and to.is_floating_point else None
    return sha256_of({k: t.to(to) if to and t.is_floating_point() else t for k, t in tensors.items()})[:16]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where ``torch.compile`` or ``DataParallel`` has put something around it."""
    inner = getattr(model, "_orig_mod", None)
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrapped(inner)


def warn_of_unsaved_head(model: nn.Module, found: bool) -> None:
    """Warn when no head was ``found`` in a class of one's own, but something beside its blocks looks like one."""
    _, beside = beside_blocks(model)
    if beside and not found:
        head, what = f"model.{beside[-1]}", f"{', '.join(beside)} of {type(model).__name__}"
        keep = f"torch.save({head}.state_dict(), 'head.pt'), and {head}.load_state_dict(torch.load('head.pt'))"
        said = f"{what} counts as base model and is not saved. If it is a head: {keep} before load_adapter"
        warnings.warn(said, stacklevel=3)
