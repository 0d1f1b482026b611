"""AdapterHub's settings for bottleneck adapters and ours, translated both ways or refused; and its files."""

import json
import re
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.guards.config_guard import check_factor
from adapters_lesson.guards.foreign import CONFIG, whose
from adapters_lesson.guards.plain_values import check_choice
from adapters_lesson.guards.safe_files import (
    check_writable,
    read_json,
    read_pickle,
    read_safetensors,
    write_atomically,
)
from adapters_lesson.guards.stored_file import list_adapters
from adapters_lesson.placements import PLACEMENTS

WEIGHTS = "adapter.safetensors"
HEAD_CONFIG, HEAD_WEIGHTS = "head_config.json", "model_head.safetensors"
_PICKLES = {
    WEIGHTS: "pytorch_adapter.bin",
    HEAD_WEIGHTS: "pytorch_model_head.bin",
    "adapter_model.safetensors": "adapter_model.bin",  # peft's
}

# The fields of ``BnConfig`` in adapters 1.3.0, as tests/test_adapterhub_peer.py checks, and its defaults. The first
# four have none: a file has to give them.
REQUIRED = ("mh_adapter", "output_adapter", "reduction_factor", "non_linearity")
DEFAULTS: dict[str, Any] = {
    "original_ln_before": False, "original_ln_after": True, "ln_before": False, "ln_after": False,
    "init_weights": "bert", "init_weights_seed": None, "is_parallel": False, "scaling": 1.0, "use_gating": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,  # counts only with ln_after
    "inv_adapter": None, "inv_adapter_reduction_factor": None, "cross_adapter": False, "leave_out": [], "dropout": 0.0,
    "phm_layer": False, "phm_dim": 4, "factorized_phm_W": True, "shared_W_phm": False, "shared_phm_rule": True,
    "factorized_phm_rule": False, "phm_c_init": "normal", "phm_init_range": 0.0001, "learn_phm": True,
    "hypercomplex_nonlinearity": "glorot-uniform", "phm_rank": 1, "phm_bias": True, "stochastic_depth": 0.0,
}  # fmt: skip
# What our adapters do not have, and so take in the library's default alone.
FIXED = (
    "cross_adapter", "inv_adapter", "phm_layer", "use_gating", "ln_before", "ln_after", "original_ln_after",
    "residual_before_ln", "stochastic_depth",
)  # fmt: skip
PRESETS: dict[str, dict[str, bool]] = {  # which ``Placement.adapterhub`` names
    "double_seq_bn": {"mh_adapter": True, "output_adapter": True, "original_ln_before": False, "is_parallel": False},
    "seq_bn": {"mh_adapter": False, "output_adapter": True, "original_ln_before": True, "is_parallel": False},
    "par_bn": {"mh_adapter": False, "output_adapter": True, "is_parallel": True},  # original_ln_before has no effect
}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "swish", "tanh": "tanh", "identity": "linear"}
INITS = {"zero": "mam_adapter", "bert": "bert", "houlsby": "houlsby"}
# What AdapterHub's first version (adapter-transformers 1) wrote of fusions in every adapter's settings; and what it
# called "adapters".
FIRST_ONLY = ("attention_type", "new_attention_norm")
FIRST_TENSORS = re.compile(r"\b(attention|layer)_text_(task|lang)_adapters\b")


def to_adapterhub(config: AdapterConfig, model_dim: int, blocks: int) -> dict[str, Any]:
    """AdapterHub's settings for ``config``. ``init_std`` has no counterpart: it says how weights are drawn."""
    if config.train_layer_norms:
        raise ValueError("the LayerNorms are trained, which AdapterHub has no place for: save_adapter keeps them")
    if (preset := PLACEMENTS[config.placement].adapterhub) is None:
        raise ValueError(f"AdapterHub has no counterpart of placement={config.placement!r}: keep it with save_adapter")
    layers = range(blocks) if config.layers is None else config.layers
    return {
        **DEFAULTS,
        **PRESETS[preset],
        # The library takes m = int(d // factor): the half keeps it from coming out one too small.
        "reduction_factor": model_dim / (config.bottleneck_for(model_dim) + 0.5),
        "non_linearity": ACTIVATIONS[config.activation],
        "init_weights": INITS[config.init],
        "scaling": float(config.scaling),  # the library knows a number by its being a float
        "dropout": float(config.dropout),
        "leave_out": [i for i in range(blocks) if i not in layers],
    }


def from_adapterhub(theirs: Any, model_dim: int, blocks: int, *, versioned: bool = True) -> AdapterConfig:
    """Our ``AdapterConfig`` for ``theirs``, or ValueError. Without a version in the file, "gelu" meant "gelu_new"."""
    if not isinstance(theirs, dict):
        raise ValueError(f"the settings under 'config' must be an object of names and values, not {theirs!r}")
    if (other := theirs.get("architecture")) is not None:
        raise ValueError(f"this is no bottleneck adapter but {other!r}: only bottleneck adapters can be imported")
    if missing := [key for key in REQUIRED if key not in theirs]:
        raise ValueError(f"the settings lack {', '.join(map(repr, missing))}: the file is not whole")
    if unknown := sorted(theirs.keys() - {*REQUIRED, *DEFAULTS, "architecture"}):
        raise ValueError(f"unknown settings {', '.join(map(repr, unknown))}: adapters 1.3.0 has none of that name")
    settings = DEFAULTS | theirs
    for key in FIXED:
        if settings[key] != DEFAULTS[key]:
            raise ValueError(f"{key}={settings[key]!r} cannot be imported: our adapters have {DEFAULTS[key]!r} there")
    presets = {name: PRESETS[one.adapterhub] for name, one in PLACEMENTS.items() if one.adapterhub}
    placements = [name for name, preset in presets.items() if all(settings[k] == v for k, v in preset.items())]
    if not placements:
        found = ", ".join(f"{key}={settings[key]!r}" for key in PRESETS["double_seq_bn"])
        raise ValueError(f"adapters in these places have no counterpart here: {found}. There are {', '.join(presets)}")
    left_out: Any = settings["leave_out"] or []
    whole = isinstance(left_out, list) and all(type(i) is int for i in left_out)
    layers = tuple(i for i in range(blocks) if whole and i not in left_out)  # others have no effect, as in the library
    if not layers:
        raise ValueError(f"leave_out must be a list that leaves some of this model's {blocks} blocks, not {left_out!r}")
    factor, name, where = settings["reduction_factor"], str(settings["non_linearity"]).lower(), "non_linearity"
    factors = factor if isinstance(factor, dict) else {"default": factor}  # by block, or for all others
    each = [check_factor(factors.get(str(i), factors.get("default"))) for i in layers]
    if len(widths := sorted({max(1, int(model_dim // one)) for one in each})) > 1:
        raise ValueError(f"reduction_factor={factor} gives different widths {tuple(widths)}: here is only one")
    if not versioned:
        name = {"gelu": "gelu_new", "gelu_orig": "gelu"}.get(name, name)
        where += " (a file without a version means gelu_new by gelu)"
    activations = {their: our for our, their in ACTIVATIONS.items()} | {"silu": "silu"}
    inits = {their: our for our, their in INITS.items()}
    return AdapterConfig(
        bottleneck_dim=widths[0],
        placement=placements[0],
        activation=activations[check_choice(where, name, activations)],
        init=inits[check_choice("init_weights", settings["init_weights"], inits)],
        scaling=settings["scaling"],
        dropout=settings["dropout"],
        layers=None if len(layers) == blocks else layers,
    )


def from_first_version(saved: dict[str, Any]) -> Any:
    """The settings in a file of AdapterHub's, the first version's such as MH_Adapter made into today's."""
    if not isinstance(theirs := saved.get("config"), dict):
        return theirs
    theirs = {k if k in DEFAULTS else k.lower(): v for k, v in theirs.items() if k not in FIRST_ONLY or v is True}
    block = theirs.pop("invertible_adapter", None)
    if block is not None:
        theirs["inv_adapter"] = block.get("block_type", block) if isinstance(block, dict) else block
    if saved.get("type") == "text_task":  # such settings were written for every adapter, but used for languages only
        theirs = {key: value for key, value in theirs.items() if not key.startswith("inv_adapter")}
    return theirs


# --- Files ------------------------------------------------------------------------------------------------------------


def write_all(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Write all files or none, in place of what an earlier export left; nothing into what another tool has saved."""
    check_writable("the folder", folder, folder=True)
    theirs = (*_PICKLES.values(), "adapter_model.safetensors", "adapters.npz")
    there = [f"a {file}" for file in theirs if (folder / file).exists()]
    if (folder / CONFIG).exists() and "model_type" not in (settings := read_json(folder / CONFIG)):
        there.append(f"{CONFIG}: {whose(settings, folder)}")
    ours = (one.path.name for one in list_adapters(folder) if one.path.exists()) if folder.exists() else ()
    if there := [*there, *(f"{name}: an adapter of this course, by save_adapter" for name in ours)]:
        raise ValueError(f"{folder} has {there[0]}. Nothing is written over or beside it: choose another folder")
    put_all(folder, files)


def put_all(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Write all files or none: tensors by name as safetensors, settings as JSON. ``CONFIG`` comes last."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder) as staged:
        for file, content in files.items():
            if file.endswith(".json"):
                packed = json.dumps(content, indent=2, sort_keys=True).encode()
            else:  # copies, because tensors that share their memory are refused, as tied ones do
                packed = save({key: tensor.detach().cpu().clone().contiguous() for key, tensor in content.items()})
            write_atomically(Path(staged) / file, methodcaller("write_bytes", packed))
        # Without CONFIG no library takes a folder for an adapter: cut off in between, it has none, not half of two.
        for file in (CONFIG, HEAD_CONFIG, HEAD_WEIGHTS):
            (folder / file).unlink(missing_ok=True)
        for file in sorted(files, key=CONFIG.__eq__):
            (Path(staged) / file).replace(folder / file)


def find_tensors(folder: Path, safe: str) -> Path | None:
    """The file with the tensors: ``safe`` if it is there, else the pickle in its stead; None if there is neither."""
    return next((folder / file for file in (safe, _PICKLES[safe]) if (folder / file).is_file()), None)


def read_tensors(folder: Path, safe: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors by name, in the type ``dtype``, not yet checked, and their file. No code in a pickle is run."""
    path = find_tensors(folder, safe)
    if path is None:
        raise ValueError(f"{folder} has neither {safe} nor {_PICKLES[safe]}")
    tensors = read_safetensors(path)[1] if path.name == safe else read_pickle(path)
    named = {FIRST_TENSORS.sub("adapters", str(key)): tensor for key, tensor in tensors.items()}
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in named.items()}, path
