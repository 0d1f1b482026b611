"""Adapters in the files of AdapterHub, both ways, for the library adapters 1.3.0 (Poth et al. 2023)."""

import warnings
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.adapter import Adapter, AdapterConfig
from adapters_lesson.architectures import ARCHITECTURES, base_model_of, blocks_of
from adapters_lesson.guards.bank_guard import check_no_bank, warn_of_another_head
from adapters_lesson.guards.foreign import check_tensors, explained, warn_of_another_base, what_is_there
from adapters_lesson.guards.safe_files import read_json
from adapters_lesson.insertion import adapter_config, head_parameters, insert_adapters
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import NormSlot, slots_of
from adapters_lesson.transformer import SmallTransformer

from . import adapterhub_format as files
from .adapterhub_format import CONFIG, HEAD_CONFIG, HEAD_WEIGHTS, WEIGHTS

VERSION = "adapters.1.3.0"  # arXiv 2311.11077; without a version the library takes "gelu" for an approximation of it
# The parts of one adapter by their names there, and here.
_PARTS = {
    "adapter_down.0.weight": "down_project.weight",
    "adapter_down.0.bias": "down_project.bias",
    "adapter_up.weight": "up_project.weight",
    "adapter_up.bias": "up_project.bias",
}
# By transformers' name of the architecture: where in a block an adapter after attention hangs, and one after the FFN.
_BERT = ("attention.output.adapters", "output.adapters")  # a post-LN SmallTransformer is BERT by other names
FAMILIES = dict.fromkeys(("bert", "small_transformer_post", "roberta"), _BERT)
_OTHERS = ("attention_adapters.adapters", "output_adapters.adapters")
FAMILIES |= dict.fromkeys(("distilbert", "gpt2", "llama", "mistral"), _OTHERS)


def export_adapterhub(model: Any, folder: str | Path, name: str = "default", *, with_head: bool = True) -> Path:
    """Write the adapters called ``name``, and the head if it maps, as AdapterHub's files into ``folder``: all or none.

    An adapter exported there before is replaced. Give each adapter a name of its own: under one that is taken, the
    library keeps the settings of the adapter before. Load them there with ``use_safetensors=True``. Heads map where
    both libraries know the model's class, as transformers' ``BertForSequenceClassification``; a ``Classifier``'s or a
    bank's is left out, with a warning unless ``with_head=False``. A tied head belongs to the base model.

    ``model`` is one of ``FAMILIES`` with such adapters, with or without a head. Returns the folder. Raises ValueError
    for what the format does not have (another architecture or placement, trained LayerNorms, stacked or fused
    adapters), weights that are not finite, an unknown name, or another tool's folder.
    """
    folder, head = Path(folder).expanduser(), _head_of(model)
    base, model_type, model_class, prefix = _family(model)
    config, model_dim = adapter_config(model, name), base.config.hidden_size
    adapters = [slot[name] for slot in slots_of(model) if name in slot and not isinstance(slot, NormSlot)]
    with torch.device("meta"):
        for adapter in adapters:
            if not isinstance(adapter, Adapter) or repr(adapter) != repr(config.build(model_dim)):
                what = f"{name!r} is a {type(adapter).__name__}, and a folder of AdapterHub's holds"
                raise ValueError(f"{what} one bottleneck adapter as it was inserted, with {config}")
    theirs = files.to_adapterhub(config, model_dim, len(blocks_of(model)))
    names = [f"{prefix}.{key}" if head else key for key in _names(base, model_type, config, name)]
    parameters = [adapter.get_parameter(ours) for adapter in adapters for ours in _PARTS.values()]
    tensors = dict(zip(names, parameters, strict=True))
    everything: dict[str, Any] = tensors | head if with_head else tensors
    check_tensors(f"what {name!r} exports", everything, {key: tuple(t.shape) for key, t in everything.items()})
    origin = getattr(base.config, "name_or_path", "") or ""
    about = {
        "hidden_size": model_dim,
        "model_class": type(model).__name__ if head else model_class,
        "model_name": "" if Path(origin).exists() else origin,  # where it is from, but no path of this machine
        "model_type": model_type,
        "version": VERSION,
    }
    content: dict[str, Any] = {WEIGHTS: tensors, CONFIG: {**about, "name": name, "config": theirs}}
    if with_head and not {id(p) for p in head_parameters(model)}.isdisjoint(map(id, head.values())):  # none is tied
        labels = {"label2id": model.config.label2id, "num_labels": model.config.num_labels}
        content |= {HEAD_WEIGHTS: head, HEAD_CONFIG: {**about, **labels, "name": None, "config": None}}
    files.write_all(folder, content)
    if with_head and base is not model and not head:
        what = f"the head of a {type(model).__name__} is none that AdapterHub has, so only the adapters were written"
        warnings.warn(f"{what}; with_head=False says that this is meant", stacklevel=2)
    return folder


def import_adapterhub(model: Any, folder: str | Path, name: str | None = None, *, with_head: bool = True) -> str:
    """Put an adapter from AdapterHub's files into ``model`` and make it the active one; a head that maps comes with it.

    Both file formats are read; the pickled one only with ``torch.load(weights_only=True)``, which runs no code.
    ``name`` is what to call it, None for the name in the file. The model's own head stays with ``with_head=False``, or
    with a warning if that in the folder is of another class of models.

    Returns the name. Raises ValueError for a bank, files that are missing, damaged, another tool's or of another
    architecture or width, tensors that do not fit or are not finite, a pickle with more than tensors in it, settings
    that our adapters do not have, a name that is taken. The model is then as it was.
    """
    check_no_bank(model, "import the adapter into a base model of its own")
    path, (base, model_type, _, prefix) = Path(folder).expanduser() / CONFIG, _family(model)
    saved, model_dim = read_json(path) if path.exists() else {}, base.config.hidden_size
    if "base_sha256" in saved or not saved.keys() & {"config", "model_type"}:
        raise ValueError(f"no adapter of AdapterHub's is there: {what_is_there(folder)}")
    folder = path.parent
    if not isinstance(own_name := saved.get("name"), str):
        raise ValueError(f"{path}: 'name' must be the adapter's name, not {own_name!r}")
    for what, here in (("model_type", model_type), ("hidden_size", model_dim)):
        if (there := saved.get(what)) != here and (what, there) != ("hidden_size", None):
            raise ValueError(f"{path} is for models of {what}={there!r}, and this one has {here!r}")
    with explained(path):
        theirs, blocks = files.from_first_version(saved), len(blocks_of(base))
        config = files.from_adapterhub(theirs, model_dim, blocks, versioned="version" in saved)
    tensors, path = files.read_tensors(folder, WEIGHTS, next(base.parameters()).dtype)
    if all(key.startswith(f"{prefix}.") for key in tensors):
        tensors = {key.removeprefix(f"{prefix}."): tensor for key, tensor in tensors.items()}
    names, m = _names(base, model_type, config, own_name), config.bottleneck_for(model_dim)
    shapes = cycle(((m, model_dim), (m,), (model_dim, m), (model_dim,)))  # as in ``_PARTS``
    check_tensors(path, tensors, dict(zip(names, shapes, strict=False)))
    head, labels = _read_head(model, folder) if with_head else ({}, {})
    name = own_name if name is None else name
    warn_of_another_base(saved.get("model_name"), base.config)
    adapters = insert_adapters(model, config, name)  # refuses a name before it changes anything
    own = [adapter.get_parameter(ours) for adapter in adapters for ours in _PARTS.values()]
    parameters = dict(zip(names, own, strict=True)) | (_head_of(model) if head else {})
    if any(not torch.equal(tensor.to(parameters[key]), parameters[key]) for key, tensor in head.items()):
        warn_of_another_head(model, name)
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_((tensors | head)[key])
    if labels:
        model.config.label2id, model.config.id2label = labels, {i: label for label, i in labels.items()}
    return name


def _family(model: nn.Module) -> tuple[Any, str, str, str]:
    """The base model; and as AdapterHub has them its type, its class and its name within a model with a head."""
    base: Any = base_model_of(model)
    model_type = getattr(getattr(base, "config", None), "model_type", None)
    if model_type not in FAMILIES:
        what = f"a {type(base).__name__} ({model_type}) cannot be exchanged with AdapterHub"
        raise ValueError(f"{what}: that is possible for {', '.join(FAMILIES)}")
    if isinstance(base, SmallTransformer):
        return base, "bert", "BertModel", "bert"
    return base, model_type, type(base).__name__, base.base_model_prefix


def _names(base: nn.Module, model_type: str, config: AdapterConfig, name: str) -> list[str]:
    """AdapterHub's names of the adapters' tensors, in the order of ``_PARTS``."""
    layers = range(len(blocks_of(base))) if config.layers is None else sorted(config.layers)
    sites, stack = PLACEMENTS[config.placement].sites["post"], ARCHITECTURES[model_type].layers
    places = [FAMILIES[model_type][site.words != "attention"] for site in sites]
    return [f"{stack}.{i}.{place}.{name}.{part}" for i in layers for place in places for part in _PARTS]


def _head_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters beside the base of a model of transformers' own, by both libraries' names; none of any other."""
    if base_model_of(model) is model or not hasattr(model, "base_model_prefix"):
        return {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: p for name, p in named if not name.startswith(f"{model.base_model_prefix}.")}


def _read_head(model: Any, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Tensors and labels of the head in ``folder``, checked against the model's; empty if it has no use for them."""
    if files.find_tensors(folder, HEAD_WEIGHTS) is None or base_model_of(model) is model:
        return {}, {}
    saved, path, parameters = read_json(folder / HEAD_CONFIG), folder / HEAD_CONFIG, _head_of(model)
    if not parameters or saved.get("model_class") != type(model).__name__:
        what = f"{folder} has the head of a {saved.get('model_class')}, which does not fit a {type(model).__name__}"
        warnings.warn(f"{what} and is left out; with_head=False says that this is meant", stacklevel=3)
        return {}, {}
    tensors, file = files.read_tensors(folder, HEAD_WEIGHTS, next(model.parameters()).dtype)
    check_tensors(file, tensors, {key: tuple(p.shape) for key, p in parameters.items()})
    labels, numbers = saved.get("label2id") or {}, range(model.config.num_labels)
    if labels and (not isinstance(labels, dict) or {*map(repr, labels.values())} != {*map(repr, numbers)}):
        raise ValueError(f"{path}: label2id must number this model's {len(numbers)} labels from 0, not {labels!r}")
    own = {id(p) for p in head_parameters(model)}
    for key, parameter in parameters.items():
        if id(parameter) not in own and not torch.equal(tensors[key].to(parameter), parameter):
            raise ValueError(f"{file}: {key} is tied to the base model, and this is another base model's")
    return tensors, labels
