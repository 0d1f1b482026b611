"""What is wrong with saved adapters: a folder of peft, of AdapterHub or of this course, alone or beside its base."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.guards.base_parts import check_same_base
from adapters_lesson.guards.foreign import CONFIG, another_base, may_be_ours, what_is_there
from adapters_lesson.guards.safe_files import StorageError, read_json, read_pickle, read_safetensors
from adapters_lesson.guards.stored_file import read
from adapters_lesson.insertion import has_lm_head, head_parameters
from adapters_lesson.storage import fingerprint
from adapters_lesson.transformer import SmallTransformer

from .findings import Finding, some
from .models import AFTER_NAN, NOT_REACHED
from .parts import embeddings, fresh_heads

_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin", "adapter.safetensors", "pytorch_adapter.bin")
_MODELS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
_HEADS = ("model_head.safetensors", "pytorch_model_head.bin")
_ADDED = re.compile(r"lora_|adapter|ia3_|hada_|lokr_|oft_|vera_|prompt|tokens_delta")  # to a base model
_UP = re.compile(r".*\b(lora_B|lora_embedding_A|up_project|adapter_up)\b")
_EMBEDDINGS = re.compile(r"embed_tokens|word_embeddings|embed_in|tok_embeddings|wte|lm_head|embed_out")
_HALF = re.compile(r"lora_(embedding_)?[AB]\b")
_PREFIX = "base_model.model."  # of every name in a file of peft
_ITS_BASE = "load the base model on which the adapter was trained: its settings name it"
_SAVE_AGAIN = (
    "save it again, in peft with model.save_pretrained(folder) and no state_dict of your own (one that is filtered "
    "twice is empty), or copy the file again"
)


@dataclass
class Saved:
    """An adapter's file, and what it was given to be compared with."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    base: Any  # the model; None without one

    @property
    def peft(self) -> bool:
        return "peft_type" in self.config

    def targets(self) -> dict[str, str]:
        """The paths in the base model to which the file's LoRA or bottleneck tensors belong."""
        small = isinstance(base_model_of(self.base), SmallTransformer) if self.base is not None else False
        if self.base is None or (small and not self.peft):  # AdapterHub has other names for its parts
            return {}
        pattern = r"(.+?)\.lora_" if self.peft else r"(.+?)(?:\.(?:output|attention)_adapters)?\.adapters\."
        found = {key: re.match(pattern, key.removeprefix(_PREFIX)) for key in self.tensors}
        bare = not self.peft and base_model_of(self.base) is self.base  # AdapterHub's library knows of that prefix
        prefix = f"{self.base.base_model_prefix}." if bare else ""
        return {key: match.group(1).removeprefix(prefix) for key, match in found.items() if match}

    @property
    def kept(self) -> list[str]:
        """The names of whole modules that the settings say are in the file."""
        names = self.config.get("modules_to_save") or []
        return [names] if isinstance(names, str) else names

    def is_kept(self, key: str) -> bool:
        """Whether a tensor is one of the base's that was trained and saved on purpose."""
        return bool(_EMBEDDINGS.search(key)) or not set(self.kept).isdisjoint(key.split("."))


def in_files(path: Path, base: nn.Module | None) -> tuple[list[Finding], str]:
    """The findings in a folder or a file, and what was looked at. Raises StorageError where there is no adapter."""
    beside = f", beside a {type(base).__name__}" if base is not None else ""
    ours = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    ours = [file for file in ours if file.name not in (*_ADAPTERS, *_MODELS, *_HEADS) and may_be_ours(file)]
    if ours:
        looked_at = some(file.name for file in ours) + beside
        return [finding for file in ours for finding in _in_our_file(file, base)], looked_at
    file = next((path / name for name in _ADAPTERS if (path / name).is_file()), None)
    model = next((path / name for name in _MODELS if (path / name).is_file()), None)
    if file is None and model is not None:
        what = "the folder holds a whole model, and no adapter"
        return [Finding("whole model", what, model.name, _SAVE_AGAIN)], f"{path.name}{beside}"
    if file is None and not (path / CONFIG).is_file():
        raise StorageError(what_is_there(path))
    try:
        config = read_json(path / CONFIG)
        if file is None:
            raise StorageError(f"there is {CONFIG}, but no file with weights")
        tensors = read_safetensors(file)[1] if file.suffix == ".safetensors" else read_pickle(file)
        saved = Saved(file, config, tensors, base)
        if not saved.tensors:
            raise StorageError(f"the file of {file.stat().st_size:,} bytes holds no tensor")
    except StorageError as error:
        return [Finding("empty", str(error), (file or path).name, _SAVE_AGAIN)], f"{path.name}{beside}"
    findings = list(_whole_model(saved)) or [finding for rule in _RULES for finding in rule(saved)]
    return findings, f"{len(saved.tensors)} tensors in {file.name}{beside}"


def _whole_model(saved: Saved) -> Iterator[Finding]:
    if saved.config.get("peft_type", "LORA") != "LORA":  # others of its methods have names of their own
        return
    added = [key for key in saved.tensors if _ADDED.search(key)]
    others = saved.tensors.keys() - {*added, *filter(saved.is_kept, saved.tensors)}
    if (of_base := sorted(key for key in others if saved.tensors[key].ndim == 2)) and 2 * len(of_base) > len(added):
        what = f"the adapter's file holds {len(of_base)} weight matrices of the base model"
        yield Finding("whole model", what, some(of_base), _SAVE_AGAIN)


def _names(saved: Saved) -> Iterator[Finding]:
    """Names that peft's loader, or AdapterHub's, leaves aside with a warning at most."""
    keys, targets = [key for key in saved.tensors if saved.peft and "lora_" in key], saved.targets()
    known = {path for path, _ in _plain(saved.base).named_modules()} if targets else set()
    again = re.compile(rf"(?!{re.escape(_PREFIX)})|{re.escape(_PREFIX)}(base_model\.model|module|_orig_mod)\.")
    lost = [key for key, path in targets.items() if path not in known]
    if wrong := [key for key in keys if again.match(key) or re.search(r"lora_[AB]\.[^.]+\.weight$", key)]:
        what = "match nothing: a prefix or the adapter's own name is too much in them"
        what = what if wrong[0].startswith(_PREFIX) else f"begin with no {_PREFIX!r}"
        remedy = f"rename the tensors: {_PREFIX!r} once, a name of the model, lora_A.weight or lora_B.weight"
        yield Finding("keys", f"{len(wrong)} of {len(keys)} names {what}", wrong[0], remedy)
    elif lost:
        path, kind = targets[lost[0]], type(saved.base).__name__
        like = [one for one in known if one and (path.endswith(f".{one}") or one.endswith(f".{path}"))]
        what = f"{len(lost)} of {len(targets)} tensors are for modules that this {kind} does not have: {path}"
        what += f" is {max(like, key=len)} here" if like else ""
        mend = "load it into the class of models with which it was trained" if like else _ITS_BASE
        yield Finding("keys" if like else "base", what, lost[0], mend)
    halves = [_HALF.sub(r"lora_\1", key) for key in keys if _HALF.search(key)]
    if lone := [half for half, count in Counter(halves).items() if count == 1]:
        what = f"{len(lone)} places have only one of LoRA's A and B, so it adds nothing there"
        yield Finding("keys", what, some(lone), _SAVE_AGAIN)


def _plain(base: Any) -> nn.Module:
    return base.get_base_model() if hasattr(base, "get_base_model") else base


def _fits(saved: Saved) -> Iterator[Finding]:
    """Is it this base model, by its name and by the shapes?"""
    if saved.base is None:
        return
    base = getattr(base_model_of(saved.base), "config", None)
    if why := another_base(saved.config.get("base_model_name_or_path") or saved.config.get("model_name"), base):
        yield Finding("base", f"the adapter was {why[0]}", CONFIG, why[1])
    for key, path in saved.targets().items():
        side = 0 if re.search(r"lora_B\b|adapter_up\b", key) else 1
        wide = saved.tensors[key].ndim == 2 and re.search(r"lora_[AB]\b|adapter_(down|up)\b", key)
        if not wide or path not in dict(_plain(saved.base).named_modules()):
            continue
        module = _plain(saved.base).get_submodule(path)
        weight = getattr(getattr(module, "base_layer", module), "weight", None)
        shape = weight.shape if weight is not None and saved.peft else (getattr(base, "hidden_size", None),)
        if None not in shape and (width := saved.tensors[key].shape[side]) not in shape:
            what = f"{path} has the width {' × '.join(map(str, shape))} here, and the adapter is for {width}"
            yield Finding("base", what, key, _ITS_BASE)
            return


def _tokens(saved: Saved) -> Iterator[Finding]:
    found, tokenizer = embeddings(saved.base), saved.path.parent / "tokenizer.json"
    rows = len(found[1]) if found else 0
    kept = {key: len(t) for key, t in saved.tensors.items() if _EMBEDDINGS.search(key) and not _ADDED.search(key)}
    if rows and (others := {key: many for key, many in kept.items() if many != rows}):
        key, many = next(iter(others.items()))
        what = f"the file has embeddings of {many:,} tokens, and this model of {rows:,}"
        yield Finding("tokens", what, key, f"model.resize_token_embeddings({many}) before the adapter is loaded")
    elif rows and not kept and tokenizer.is_file():
        last = max((token["id"] for token in read_json(tokenizer).get("added_tokens", [])), default=0)
        if last >= rows:
            what = f"the tokenizer beside it knows a token {last}, this model has {rows:,}: new rows were not saved"
            remedy = "train it again with modules_to_save for the embeddings, or with trainable_token_indices"
            yield Finding("tokens", what, tokenizer.name, remedy)


def _values(saved: Saved) -> Iterator[Finding]:
    if wrong := [key for key, t in saved.tensors.items() if not t.isfinite().all()]:
        what = f"{len(wrong)} of {len(saved.tensors)} tensors hold values that are not finite (NaN or infinity)"
        yield Finding("not finite", what, some(wrong), AFTER_NAN)
    adds: dict[str, bool] = {}
    for key, tensor in saved.tensors.items():
        if (match := _UP.match(key)) and "expert" not in key:
            adds[match.group()] = adds.get(match.group(), False) or bool(tensor.any())
    if zero := [place for place, something in adds.items() if not something]:
        what = f"{len(zero)} of {len(adds)} up_project (in LoRA: B) in the file are zero, so it adds nothing there"
        never = "it was saved before its first step, or the optimiser did not have it: train it, and save it again"
        yield Finding("zero", what, some(zero), never if len(zero) == len(adds) else NOT_REACHED)


def _head(saved: Saved) -> Iterator[Finding]:
    kept = saved.kept
    if isinstance(saved.config.get("modules_to_save"), str):
        what = f"modules_to_save is the text {kept[0]!r}, which peft reads letter by letter"
        yield Finding("head", what, CONFIG, f'make it a list, "modules_to_save": ["{kept[0]}"]')
    if kept and not any(saved.is_kept(key) for key in saved.tensors):
        what = f"modules_to_save names {some(kept)}, and the file has none of them: they will be random"
        yield Finding("head", what, CONFIG, _SAVE_AGAIN)
    elif not kept and saved.base is not None and not any((saved.path.parent / name).is_file() for name in _HEADS):
        for path, _ in fresh_heads(saved.base):
            what = "the file has no head, and the model's own is as it was drawn: it will answer by chance"
            remedy = 'train it again, in peft with task_type="SEQ_CLS" or modules_to_save, or load the head as well'
            yield Finding("head", what, path, remedy)


_RULES: tuple[Callable[[Saved], Iterator[Finding]], ...] = (_names, _fits, _tokens, _values, _head)


def _in_our_file(file: Path, base: nn.Module | None) -> Iterator[Finding]:
    """A file of ``save_adapter``: its reader is strict, so that little is left to find."""
    try:
        settings, tensors = read(file)
        if base is not None:
            check_same_base(base, settings.base_sha256, fingerprint(base), settings.base_parts, pools=False)
    except ValueError as error:
        other = "trained on another base" in str(error)
        remedy = _ITS_BASE if other else "take it from a backup, or save it again with save_adapter"
        yield Finding("base" if other else "empty", str(error), file.name, remedy)
        return
    yield from _values(Saved(file, {}, tensors, base))
    headless = not any(key.startswith("head.") for key in tensors)
    if base is not None and headless and head_parameters(base) and not has_lm_head(base):
        what = "the file has no head: it was saved from a bare base model, and this model's own stays as it is"
        yield Finding("head", what, file.name, "save it from the model with the trained head")
