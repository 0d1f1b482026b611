"""Adapters in the files of AdapterHub, both ways: for the library adapters 1.3.0 (Poth et al. 2023, arXiv 2311.11077).

A folder holds one adapter: ``adapter_config.json`` with its settings, and its weights in ``adapter.safetensors`` or, as
older files do and the library still does by default, in the pickle ``pytorch_adapter.bin``. A head adds
``head_config.json`` and ``model_head.safetensors`` or ``pytorch_model_head.bin``.

The library reads ours with ``load_adapter(folder, use_safetensors=True)``; we read what its ``save_adapter`` writes. It
needs an older version of transformers than the course, so an environment of its own: ``make peer``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from .adapter import Adapter, AdapterConfig
from .adapterhub_config import from_adapterhub, to_adapterhub
from .adapterhub_files import (
    CONFIG,
    HEAD_CONFIG,
    HEAD_WEIGHTS,
    WEIGHTS,
    check_tensors,
    find_tensors,
    read_json,
    read_tensors,
    write_all,
)
from .architectures import base_model_of, blocks_of
from .bank import AdapterBank
from .insertion import adapter_config, head_parameters, insert_adapters
from .slots import NormSlot, slots_of
from .storage_parts import check_settings

VERSION = "adapters.1.3.0"  # of the format; without a version the library takes "gelu" for an approximation of it
_PARTS = {"adapter_down.0": "down_project", "adapter_up": "up_project"}


@dataclass(frozen=True)
class Family:
    """How AdapterHub names things in models of one kind.

    Args:
        model_type: transformers' name for it.
        model_class: the class of the bare base model.
        prefix: the base model's name within a model with a head.
        layers: the stack of blocks.
        places: where a block keeps the adapters after attention, and those after (or beside) the FFN.
    """

    model_type: str
    model_class: str
    prefix: str
    layers: str
    places: tuple[str, str] = ("attention_adapters.adapters", "output_adapters.adapters")


_IN_BERT = ("attention.output.adapters", "output.adapters")
FAMILIES = {
    "bert": Family("bert", "BertModel", "bert", "encoder.layer", _IN_BERT),
    "small_transformer_post": Family("bert", "BertModel", "bert", "encoder.layer", _IN_BERT),  # BERT by other names
    "roberta": Family("roberta", "RobertaModel", "roberta", "encoder.layer", _IN_BERT),
    "distilbert": Family("distilbert", "DistilBertModel", "distilbert", "transformer.layer"),
    "gpt2": Family("gpt2", "GPT2Model", "transformer", "h"),
    "llama": Family("llama", "LlamaModel", "model", "layers"),
    "mistral": Family("mistral", "MistralModel", "model", "layers"),
}


def export_adapterhub(model: nn.Module, folder: str | Path, name: str = "default", *, with_head: bool = True) -> Path:
    """Write the adapters called ``name``, and the head if it maps, as AdapterHub's files into ``folder``.

    All of the files are written, or none. An adapter exported there before is replaced. Give each adapter a name of its
    own: under one that is taken, the library keeps the settings of the adapter before, and only logs a warning.

    The weights come as safetensors only: the pickled file that the library writes by default can run code when it is
    read carelessly, so load ours with ``load_adapter(folder, use_safetensors=True)``.

    Heads map where both libraries know the model's class, as transformers' ``BertForSequenceClassification``. The head
    of a ``Classifier`` or a bank (the mean over the words, then one linear layer) is none that AdapterHub has: it is
    left out, with a warning. A head that is tied to the embeddings belongs to the base model, and no file is needed.

    Returns the folder.

    Args:
        model: a BERT, RoBERTa, DistilBERT, GPT-2, Llama or Mistral with such adapters, with or without a head, or a
            post-LN ``SmallTransformer``, which AdapterHub sees as a ``BertModel`` of these sizes.
        with_head: False leaves the head out, without a warning.

    Raises:
        ValueError: for what AdapterHub's format does not have (another architecture, trained LayerNorms, stacked or
            fused adapters), for weights that are not finite, an unknown name, or a folder that has a pickled adapter
            already. Nothing is written then.
    """
    folder, family, base = Path(folder), _family_of(model), base_model_of(model)
    tensors, config = _weights_of(model, family, name)
    model_dim, head = _config_of(base).hidden_size, _head_of(model) if with_head else {}
    theirs = to_adapterhub(config, model_dim, len(blocks_of(model)))
    for key, tensor in (tensors | head).items():
        if tensor.is_meta or not tensor.isfinite().all():
            raise ValueError(f"{key} is {'an outline only' if tensor.is_meta else 'not finite'}: it cannot be exported")
    about = {
        "hidden_size": model_dim,
        "model_class": type(model).__name__ if _heads_map(model) else family.model_class,
        "model_name": _origin(base),
        "model_type": family.model_type,
        "version": VERSION,
    }
    files = {WEIGHTS: tensors, CONFIG: {**about, "name": name, "config": theirs}}
    if not _own(model).isdisjoint(map(id, head.values())):
        labels = {"label2id": _config_of(model).label2id, "num_labels": _config_of(model).num_labels}
        files |= {HEAD_WEIGHTS: head, HEAD_CONFIG: {**about, **labels, "name": None, "config": None}}
    write_all(folder, files)
    if with_head and base is not model and not _heads_map(model):
        warnings.warn(
            f"the head of a {type(model).__name__} is none that AdapterHub has, so only the adapters were written; "
            "with_head=False says that this is meant",
            stacklevel=2,
        )
    return folder


def import_adapterhub(model: nn.Module, folder: str | Path, name: str | None = None, *, with_head: bool = True) -> str:
    """Put an adapter from AdapterHub's files into ``model`` and make it the active one; a head that maps comes with it.

    Both file formats are read; the pickled one only with ``torch.load(weights_only=True)``, which runs no code.

    Args:
        model: as for ``export_adapterhub``, but no bank.
        folder: the adapter's folder.
        name: what to call it; None for the name in the file.
        with_head: False leaves the model's head as it is. So does a folder without a head, or a bare base model. A head
            of another class of models is left out, with a warning.

    Returns:
        The adapter's name.

    Raises:
        ValueError: for files that are missing, damaged or of another architecture or width, missing, unexpected or
            misshapen tensors, values that are not finite, a pickle with more than tensors in it, settings that
            our adapters do not have, a name that is taken. The model is then as it was.
    """
    folder, family, base = Path(folder), _family_of(model), base_model_of(model)
    if isinstance(model, AdapterBank):
        raise ValueError(
            "every task of a bank has a head of ours, which AdapterHub's files do not bring: "
            "import the adapter into a base model of its own"
        )
    own_name, config, tensors = _read_adapter(base, family, folder)
    head = _read_head(model, folder) if with_head else _Head({}, {})
    name = own_name if name is None else name
    adapters = insert_adapters(model, config, name)  # refuses a name before it changes anything
    parameters = _parameters(_stems(base, family, config, own_name), adapters) | (
        _head_of(model) if head.tensors else {}
    )
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_((tensors | head.tensors)[key])
    if head.label2id:
        model_config = _config_of(model)
        model_config.label2id, model_config.id2label = head.label2id, {i: label for label, i in head.label2id.items()}
    return name


def _family_of(model: nn.Module) -> Family:
    model_type = getattr(_config_of(base_model_of(model)), "model_type", None)
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise ValueError(
        f"a {type(base_model_of(model)).__name__} ({model_type}) cannot be exchanged with AdapterHub: "
        f"that is possible for {', '.join(FAMILIES)}"
    )


def _config_of(model: nn.Module) -> Any:
    return getattr(model, "config", None)


def _origin(base: nn.Module) -> str:
    """Where transformers had the base model from; but no path of this machine."""
    name = getattr(_config_of(base), "name_or_path", "") or ""
    return "" if Path(name).exists() else name


# --- Adapters: their names there, and their tensors ----------------------------------------------------------------


def _stems(base: nn.Module, family: Family, config: AdapterConfig, name: str) -> list[str]:
    """What the names of each adapter's tensors begin with, in the order in which ``insert_adapters`` returns them."""
    layers = range(len(blocks_of(base))) if config.layers is None else sorted(config.layers)
    places = family.places if config.placement == "houlsby" else family.places[1:]
    return [f"{family.layers}.{i}.{place}.{name}" for i in layers for place in places]


def _parameters(stems: list[str], adapters: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    """The adapters' parameters under AdapterHub's names."""
    return {
        f"{stem}.{theirs}.{kind}": adapter.get_submodule(ours).get_parameter(kind)
        for stem, adapter in zip(stems, adapters, strict=True)
        for theirs, ours in _PARTS.items()
        for kind in ("weight", "bias")
    }


def _weights_of(model: nn.Module, family: Family, name: str) -> tuple[dict[str, nn.Parameter], AdapterConfig]:
    """The adapters' parameters by their names in the file, and the settings."""
    adapters = [slot[name] for slot in slots_of(model) if name in slot and not isinstance(slot, NormSlot)]
    if composed := [type(adapter).__name__ for adapter in adapters if not isinstance(adapter, Adapter)]:
        raise ValueError(
            f"{name!r} is a {composed[0]} of several adapters, and a folder of AdapterHub's holds one: "
            "export each of them by its own name"
        )
    config, prefix = adapter_config(model, name), f"{family.prefix}." if _heads_map(model) else ""
    stems = [prefix + stem for stem in _stems(base_model_of(model), family, config, name)]
    for stem, adapter in zip(stems, adapters, strict=True):
        check_settings(stem, adapter, config)
    return _parameters(stems, adapters), config


def _read_adapter(base: nn.Module, family: Family, folder: Path) -> tuple[str, AdapterConfig, dict[str, torch.Tensor]]:
    """The adapter's name, settings and tensors from ``folder``, checked against the base model."""
    saved, path = read_json(folder / CONFIG), folder / CONFIG
    name, model_dim = saved.get("name"), _config_of(base).hidden_size
    if not isinstance(name, str):
        raise ValueError(f"{path}: 'name' must be the adapter's name, not {name!r}")
    if (model_type := saved.get("model_type")) != family.model_type:
        raise ValueError(f"{path} is for models of the type {model_type!r}, this one's is {family.model_type!r}")
    if saved.get("hidden_size") not in (None, model_dim):
        raise ValueError(f"{path} is for models of width d = {saved['hidden_size']!r}, this one's is {model_dim}")
    try:
        config = from_adapterhub(saved.get("config"), model_dim, len(blocks_of(base)), versioned="version" in saved)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    tensors, path = read_tensors(folder, WEIGHTS)
    if all(key.startswith(f"{family.prefix}.") for key in tensors):
        tensors = {key.removeprefix(f"{family.prefix}."): tensor for key, tensor in tensors.items()}
    m, shapes = config.bottleneck_for(model_dim), dict[str, tuple[int, ...]]()
    for stem in _stems(base, family, config, name):
        shapes |= {f"{stem}.adapter_down.0.weight": (m, model_dim), f"{stem}.adapter_down.0.bias": (m,)}
        shapes |= {f"{stem}.adapter_up.weight": (model_dim, m), f"{stem}.adapter_up.bias": (model_dim,)}
    check_tensors(path, tensors, shapes, next(base.parameters()).dtype)
    return name, config, tensors


# --- Heads ---------------------------------------------------------------------------------------------------------


class _Head(NamedTuple):
    tensors: dict[str, torch.Tensor]
    label2id: dict[str, int]


def _heads_map(model: nn.Module) -> bool:
    """Whether this is one of transformers' own models with a head."""
    return base_model_of(model) is not model and hasattr(model, "base_model_prefix")


def _head_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters beside the base model by the names that both libraries give them; none if it does not map."""
    if not _heads_map(model):
        return {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: p for name, p in named if not name.startswith(f"{model.base_model_prefix}.")}


def _own(model: nn.Module) -> set[int]:
    """Which parameters are the head's own, and not tied to the base model's embeddings."""
    return {id(p) for p in head_parameters(model)}


def _read_head(model: nn.Module, folder: Path) -> _Head:
    """The head in ``folder``, checked against the model's."""
    if find_tensors(folder, HEAD_WEIGHTS) is None or base_model_of(model) is model:
        return _Head({}, {})
    saved, path = read_json(folder / HEAD_CONFIG), folder / HEAD_CONFIG
    if not _heads_map(model) or saved.get("model_class") != type(model).__name__:
        warnings.warn(
            f"{folder} has the head of a {saved.get('model_class')}, which does not fit a {type(model).__name__}: "
            "the model's head stays as it is; with_head=False says that this is meant",
            stacklevel=3,
        )
        return _Head({}, {})
    labels = saved.get("label2id") or {}
    if not isinstance(labels, dict) or {*map(repr, labels.values())} != {*map(repr, range(len(labels)))}:
        raise ValueError(f"{path}: label2id must number the labels from 0, not {labels!r}")
    tensors, path = read_tensors(folder, HEAD_WEIGHTS)
    parameters, own = _head_of(model), _own(model)
    check_tensors(path, tensors, {key: tuple(p.shape) for key, p in parameters.items()}, next(model.parameters()).dtype)
    if labels and len(labels) != _config_of(model).num_labels:
        raise ValueError(f"{path} has {len(labels)} labels, this model has {_config_of(model).num_labels}")
    for key, parameter in parameters.items():
        if id(parameter) not in own and not torch.equal(tensors[key].to(parameter), parameter):
            raise ValueError(f"{path}: {key} is tied to the base model, and this is another base model's")
    return _Head(tensors, labels)
