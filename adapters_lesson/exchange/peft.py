"""LoRA and bottleneck adapters in the folders of the library peft (Mangrulkar et al. 2022), both ways.

A folder of bottleneck adapters is read by peft once ``exchange.peft_bottleneck`` has been imported.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.architectures import architecture_of, base_model_of, blocks_of
from adapters_lesson.composition import Composed
from adapters_lesson.guards.bank_guard import check_new_name, check_no_bank, warn_of_another_head
from adapters_lesson.guards.foreign import CONFIG, check_tensors, foreign, warn_of_another_base, what_is_there
from adapters_lesson.guards.merge_guard import check_not_merged
from adapters_lesson.guards.safe_files import check_writable, read_json
from adapters_lesson.insertion import adapter_config, build_places, has_lm_head, head_parameters, insert_adapters
from adapters_lesson.lora import LoRAConfig
from adapters_lesson.placements import TARGETS, linear_layers
from adapters_lesson.slots import AdapterSlot, slots_of

from .adapterhub_format import put_all, read_tensors

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of every name in the file
_WITHIN = {"LORA": "", "BOTTLENECK": "bottleneck_adapters."}  # peft's layer keeps the tensors of a place there
# The settings of bottleneck adapters that a folder keeps, see peft_bottleneck.BottleneckConfig.
BOTTLENECK = ("bottleneck_dim", "placement", "activation", "init", "init_std", "scaling", "dropout", "layers")
# What a file may say beside a config's own settings: where it is from, and how it began.
_ABOUT = {
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_type", "peft_version",
    "target_modules", "exclude_modules", "layers_pattern", "layers_to_transform", "fan_in_fan_out", "modules_to_save",
    "init_lora_weights", "ensure_weight_tying", "megatron_core", "qalora_group_size", "r", "lora_alpha", "use_rslora",
    "lora_dropout",
}  # fmt: skip
_READS = "peft.PeftModel.from_pretrained(model, {!r}) reads it, if peft itself knows it"
_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # others change the base model's weights as well


def export_peft(model: Any, folder: str | Path, name: str = "default", *, with_head: bool = True) -> Path:
    """Write the LoRA or the adapters called ``name``, and a head that is trained with them, as a folder of peft.

    ``peft.PeftModel.from_pretrained(model, folder)`` reads it into a model of the same class. The head goes there as
    ``modules_to_save``; a language model's only if it is trained while others are frozen. An adapter of peft that is in
    the folder is replaced, all or nothing. Returns the folder. Raises ValueError for a bank, a stack or a fusion, a
    LoRA that is merged, bottleneck adapters beside the FFN or with trained LayerNorms, weights that are not finite, an
    unknown name, or a folder of another tool.
    """
    folder = Path(folder).expanduser()
    check_no_bank(model, "put it into a model of its own")
    check_not_merged(model)
    config: Any = adapter_config(model, name)
    places = _places(model, name)
    if any(isinstance(one, Composed) for one in places.values()):
        raise ValueError(f"{name!r} is made of others: export_peft takes one adapter at a time")
    kind = "LORA" if isinstance(config, LoRAConfig) else "BOTTLENECK"
    if kind == "BOTTLENECK" and (config.placement == "parallel" or config.train_layer_norms):
        which = f"placement={config.placement!r}, train_layer_norms={config.train_layer_norms}"
        raise ValueError(f"{name!r} has {which}, for which peft has no place: save_adapter(model, path, {name!r})")
    head = _head_of(model) if with_head and (not has_lm_head(model) or _trained(model)) else {}
    tensors: dict[str, Any] = {
        f"{_PREFIX}{path}.{_WITHIN[kind]}{part}": tensor
        for path, one in places.items()
        for part, tensor in one.state_dict().items()
    }
    tensors |= {f"{_PREFIX}{path}": parameter for path, parameter in head.items()}
    check_tensors(f"what {name!r} exports", tensors, {key: tuple(t.shape) for key, t in tensors.items()})
    origin = getattr(getattr(base_model_of(model), "config", None), "name_or_path", "") or ""
    settings = {
        "peft_type": kind,
        "base_model_name_or_path": origin if origin and not Path(origin).exists() else None,  # no path of this machine
        "modules_to_save": sorted({path.split(".")[0] for path in head}) or None,
        "inference_mode": True,
        **(_of_lora(model, config, list(places)) if kind == "LORA" else _of_bottlenecks(config, places)),
    }
    check_writable("the folder", folder, folder=True)
    what = foreign(folder) if folder.is_dir() else None
    if what and not ((folder / CONFIG).exists() and "peft_type" in read_json(folder / CONFIG)):
        raise ValueError(f"{folder} is {what}. Nothing is written over or beside it: choose another folder")
    put_all(folder, {WEIGHTS: tensors, CONFIG: settings})
    return folder


def import_peft(model: Any, folder: str | Path, name: str = "default", *, with_head: bool = True) -> str:
    """Put LoRA or adapters from a folder of peft into ``model`` as ``name``, the active one; a saved head comes along.

    A file with pickles is read with ``torch.load(weights_only=True)`` only, which runs no code. A bare base model takes
    what a model with a head had, and leaves the head aside. Returns the name. Raises ValueError for a bank, files that
    are missing or damaged, another method of peft, settings that are unknown here (DoRA, biases, ranks by pattern),
    places that no ``targets`` or ``placement`` names, tensors that do not fit or are not finite, a name that is taken.
    The model is then as it was.
    """
    check_no_bank(model, "import it into a model of its own")
    check_new_name(model, name)
    path, base = Path(folder).expanduser() / CONFIG, base_model_of(model)
    saved = read_json(path) if path.exists() else {}
    if "peft_type" not in saved:
        raise ValueError(f"no adapter of peft's is there: {what_is_there(folder)}")
    kind = _check_settings(saved, path)
    tensors, file = read_tensors(path.parent, WEIGHTS, next(base.parameters()).dtype)
    tensors = {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}
    kept = tuple(f"{one}." for one in saved.get("modules_to_save") or ())
    head = {key: tensors.pop(key) for key in [key for key in tensors if kept and key.startswith(kept)]}
    if of_base := [key for key in tensors if any(f".{part}" in key for part in kept)]:
        what = f"modules_to_save={saved['modules_to_save']!r} keeps {of_base[0]}, a part of the base model"
        raise ValueError(f"{path}: {what}, and only a head is imported: {_READS.format(str(path.parent))}")
    whole = base is not model
    at = next((path for path, module in model.named_modules() if module is base), "")
    found = {
        match.group(1) for key in tensors if (match := re.match(r"(.+)\.(?:lora_[AB]|bottleneck_adapters\.\w+)\.", key))
    }
    for prefix in (f"{at}.", f"{getattr(base, 'base_model_prefix', '')}."):  # of a model with a head
        if prefix != "." and found and all(one.startswith(prefix) for one in found):
            found = {one.removeprefix(prefix) for one in found}
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    config: Any = _lora(saved, base, found, path) if kind == "LORA" else _bottlenecks(saved, path)
    paths, within = {id(module): one for one, module in base.named_modules()}, _WITHIN[kind]
    expected = {paths[id(place.host)]: place.module for place in build_places(base, config, outline=True)}
    if found != expected.keys():
        few = ", ".join(sorted(found ^ expected.keys())[:2])
        raise ValueError(f"{path}: placement={config.placement!r} in this model has other places than the file ({few})")
    check_tensors(
        file,
        tensors,
        {f"{o}.{within}{part}": tuple(p.shape) for o, m in expected.items() for part, p in m.named_parameters()},
    )
    own = _head_of(model) if whole and with_head and head else {}
    if own:
        check_tensors(file, head, {key: tuple(parameter.shape) for key, parameter in own.items()})
    if not any(bool(t.any()) for key, t in tensors.items() if "lora_B." in key or "up_project." in key):
        warnings.warn(f"{file}: all up_project (in LoRA: B) are zero, it adds nothing: was it trained?", stacklevel=2)
    warn_of_another_base(saved.get("base_model_name_or_path"), getattr(base, "config", None))
    insert_adapters(model, config, name)  # refuses before it changes anything
    if any(not torch.equal(head[key].to(parameter), parameter) for key, parameter in own.items()):
        warn_of_another_head(model, name)
    elif with_head and not head and head_parameters(model) and not has_lm_head(model):
        warnings.warn(f"{folder} has no head: the model's own stays as it is", stacklevel=2)
    with torch.no_grad():
        for place, module in _places(base, name).items():
            for part, parameter in module.named_parameters():
                parameter.copy_(tensors[f"{place}.{within}{part}"])
        for key, parameter in own.items():
            parameter.copy_(head[key])
    return name


def _places(model: nn.Module, name: str) -> dict[str, nn.Module]:
    """What is called ``name``, by the path of the module on which it hangs."""
    slots = ((path, one) for path, one in model.named_modules() if isinstance(one, AdapterSlot) and name in one)
    return {path.rpartition(".")[0]: slot[name] for path, slot in slots}


def _of_lora(model: nn.Module, config: LoRAConfig, paths: list[str]) -> dict[str, Any]:
    return {
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "use_rslora": config.use_rslora,
        "lora_dropout": config.dropout,
        "target_modules": _short(model, paths),
        "fan_in_fan_out": any(type(model.get_submodule(path)).__name__ == "Conv1D" for path in paths),
        "bias": "none",
    }


def _of_bottlenecks(config: AdapterConfig, places: dict[str, Any]) -> dict[str, Any]:
    settings = {key: getattr(config, key) for key in BOTTLENECK}
    width = next(iter(places.values())).down_project.out_features  # the config may say it as d/m
    return {**settings, "bottleneck_dim": width, "target_modules": list(places)}


def _head_of(model: nn.Module) -> dict[str, nn.Parameter]:
    own = {id(parameter) for parameter in head_parameters(model)}
    return {path: parameter for path, parameter in model.named_parameters() if id(parameter) in own}


def _trained(model: nn.Module) -> bool:
    """Whether the head was chosen to be trained: it is, and something else is frozen."""
    chosen = all(parameter.requires_grad for parameter in head_parameters(model))
    return chosen and not all(parameter.requires_grad for parameter in model.parameters())


def _short(model: nn.Module, paths: list[str]) -> list[str]:
    """peft's ``target_modules``: the last names of the paths where these mean no other module, else whole paths."""
    ends = {path.rpartition(".")[2] for path in paths}
    added = {id(module) for slot in slots_of(model) for module in slot.modules()}
    named = {path for path, one in model.named_modules() if path.rpartition(".")[2] in ends and id(one) not in added}
    return sorted(ends) if named == set(paths) else paths


def _check_settings(saved: dict[str, Any], path: Path) -> str:
    if (kind := saved["peft_type"]) not in _WITHIN:
        raise ValueError(f"{path} is for {kind!r}, and only LoRA and bottleneck adapters can be imported")
    known = _ABOUT if kind == "LORA" else {*_ABOUT, *BOTTLENECK}
    for key, value in saved.items():
        if key not in known and value and (key, value) != ("bias", "none"):
            what = f"{key}={value!r:.80} cannot be imported, there is nothing of the kind here"
            raise ValueError(f"{path}: {what}: {_READS.format(str(path.parent))}")
    if isinstance(kept := saved.get("modules_to_save"), str):
        raise ValueError(f"{path}: modules_to_save={kept!r} has to be a list of names: [{kept!r}]")
    if (start := saved.get("init_lora_weights", True)) not in _STARTS:
        raise ValueError(f"{path}: init_lora_weights={start!r} means a base model with other weights than its own")
    return str(kind)


@contextmanager
def _settings_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _bottlenecks(saved: dict[str, Any], path: Path) -> AdapterConfig:
    settings = {key: saved[key] for key in BOTTLENECK if key in saved}
    with _settings_of(path):
        return AdapterConfig(**{**settings, "layers": tuple(saved["layers"]) if saved.get("layers") else None})


def _lora(saved: dict[str, Any], base: nn.Module, found: set[str], path: Path) -> LoRAConfig:
    """The config whose LoRA is beside just the linear layers ``found``."""
    if not found:
        why = f"doctor.diagnose({str(path.parent)!r}) says why"
        raise ValueError(f"{path}: the file beside it has no tensor of LoRA's: {why}")
    paths = {id(module): one for one, module in base.named_modules()}
    blocks, at = blocks_of(base), architecture_of(base)
    inside = [{paths.get(id(module)) for module in block.modules()} for block in blocks]
    layers = tuple(i for i, own in enumerate(inside) if own & found)
    with _settings_of(path):
        config = LoRAConfig(
            rank=saved.get("r", 8),
            alpha=saved.get("lora_alpha", 8),
            use_rslora=saved.get("use_rslora", False),
            dropout=saved.get("lora_dropout", 0.0),
            layers=None if len(layers) == len(blocks) or not layers else layers,
        )
    for targets in TARGETS:
        if found == {paths[id(one)] for i in layers for one in linear_layers(blocks[i], at, targets)}:
            return replace(config, targets=targets)
    few = ", ".join(sorted({re.sub(r"\.\d+\.", ".N.", one) for one in found})[:4])
    raise ValueError(f"{path}: LoRA beside these linear layers has no counterpart here ({few}): {', '.join(TARGETS)}")
