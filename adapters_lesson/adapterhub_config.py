"""AdapterHub's settings for bottleneck adapters and ours, translated both ways, or refused.

Theirs are the fields of ``BnConfig`` in the library adapters 1.3.0 (Poth et al. 2023, arXiv 2311.11077). That both mean
the same is checked against the library itself, in tests/test_adapterhub_peer.py.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from .adapter import AdapterConfig

# Every setting, with the library's default. The first four have none there: a file has to give them.
REQUIRED = ("mh_adapter", "output_adapter", "reduction_factor", "non_linearity")
DEFAULTS: dict[str, Any] = {
    "original_ln_before": False,
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "init_weights": "bert",
    "init_weights_seed": None,
    "is_parallel": False,
    "scaling": 1.0,
    "use_gating": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,  # counts only with ln_after
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "cross_adapter": False,
    "leave_out": [],
    "dropout": 0.0,
    "phm_layer": False,
    "phm_dim": 4,
    "factorized_phm_W": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "phm_c_init": "normal",
    "phm_init_range": 0.0001,
    "learn_phm": True,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "phm_rank": 1,
    "phm_bias": True,
    "stochastic_depth": 0.0,
}
PLACEMENTS: dict[str, dict[str, bool]] = {  # double_seq_bn, seq_bn and par_bn
    "houlsby": {"mh_adapter": True, "output_adapter": True, "original_ln_before": False, "is_parallel": False},
    "pfeiffer": {"mh_adapter": False, "output_adapter": True, "original_ln_before": True, "is_parallel": False},
    "parallel": {"mh_adapter": False, "output_adapter": True, "is_parallel": True},  # original_ln_before has no effect
}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "swish", "tanh": "tanh", "identity": "linear"}
INITS = {"zero": "mam_adapter", "bert": "bert", "houlsby": "houlsby"}
# What our adapters do not have: the one value that each setting may take, and what any other would mean.
FIXED: dict[str, tuple[Any, str]] = {
    "cross_adapter": (False, "adapters after the cross-attention"),
    "inv_adapter": (None, "an invertible adapter at the embeddings"),
    "phm_layer": (False, "hypercomplex projections (Compacter)"),
    "use_gating": (False, "a gate beside the adapter"),
    "ln_before": (False, "a new LayerNorm before the bottleneck"),
    "ln_after": (False, "a new LayerNorm after the adapter"),
    "original_ln_after": (True, "adapters after which the residual stream is not added"),
    "residual_before_ln": (True, "a residual connection that begins elsewhere than at the sub-layer's output"),
    "stochastic_depth": (0, "adapters that are dropped at random while training"),
}


def to_adapterhub(config: AdapterConfig, model_dim: int, blocks: int) -> dict[str, Any]:
    """AdapterHub's settings for our ``config`` in a model of width ``model_dim`` with so many blocks.

    ``init_std`` has no counterpart there and is left out: it says how weights are drawn, not what they are.

    Raises:
        ValueError: when the LayerNorms are trained, too.
    """
    if config.train_layer_norms:
        raise ValueError(
            "the LayerNorms are trained with these adapters (train_layer_norms=True), and AdapterHub's format has no "
            "place for them: keep them with save_adapter, or train adapters without"
        )
    layers = range(blocks) if config.layers is None else config.layers
    return {
        **DEFAULTS,
        **PLACEMENTS[config.placement],
        # The library takes m = int(d // factor): the half keeps it from coming out one too small.
        "reduction_factor": model_dim / (config.bottleneck_for(model_dim) + 0.5),
        "non_linearity": ACTIVATIONS[config.activation],
        "init_weights": INITS[config.init],
        "scaling": float(config.scaling),  # the library knows a number by its being a float
        "dropout": float(config.dropout),
        "leave_out": [i for i in range(blocks) if i not in layers],
    }


def from_adapterhub(theirs: Any, model_dim: int, blocks: int, *, versioned: bool = True) -> AdapterConfig:
    """Our ``AdapterConfig`` for AdapterHub's settings ``theirs``, in a model of that width with so many blocks.

    Args:
        versioned: whether the file names its version. Without one, "gelu" meant the approximation "gelu_new".

    Raises:
        ValueError: for whatever our adapters do not have, or what makes no sense; each with its own message.
    """
    settings = _known(theirs)
    for key, (allowed, meaning) in FIXED.items():
        if settings[key] != allowed:
            raise ValueError(
                f"{meaning} ({key}={settings[key]!r}) cannot be imported: the adapters here have {key}={allowed!r} only"
            )
    layers = _layers(settings["leave_out"], blocks)
    return AdapterConfig(
        bottleneck_dim=_width(settings["reduction_factor"], model_dim, layers),
        placement=_placement(settings),
        activation=_activation(settings["non_linearity"], versioned),
        init=_init(settings["init_weights"]),
        scaling=_scaling(settings["scaling"]),
        dropout=_number("dropout", settings["dropout"]),
        layers=None if len(layers) == blocks else layers,
    )


def _known(theirs: Any) -> dict[str, Any]:
    """Their settings with the defaults filled in."""
    if not isinstance(theirs, dict):
        raise ValueError(f"the settings under 'config' must be an object of names and values, not {theirs!r}")
    if (architecture := theirs.get("architecture")) is not None:
        raise ValueError(
            f"this is no bottleneck adapter but {architecture!r}: only bottleneck adapters can be imported here "
            "(peft reads LoRA and prefix tuning, in a format of its own)"
        )
    if missing := [key for key in REQUIRED if key not in theirs]:
        raise ValueError(f"the settings lack {', '.join(map(repr, missing))}: the file is not whole")
    if unknown := sorted(theirs.keys() - {*REQUIRED, *DEFAULTS, "architecture"}):
        raise ValueError(
            f"unknown settings {', '.join(map(repr, unknown))}: adapters 1.3.0 has none of that name, and what they "
            "change could be missed"
        )
    return DEFAULTS | theirs


def _placement(settings: dict[str, Any]) -> str:
    for placement, wanted in PLACEMENTS.items():
        if all(settings[key] == value for key, value in wanted.items()):
            return placement
    found = ", ".join(f"{key}={settings[key]!r}" for key in PLACEMENTS["houlsby"])
    raise ValueError(
        f"adapters in these places have no counterpart here: {found}. There are houlsby (mh_adapter, output_adapter), "
        "pfeiffer (output_adapter, original_ln_before) and parallel (output_adapter, is_parallel)"
    )


def _activation(name: Any, versioned: bool) -> str:
    theirs = name.lower() if isinstance(name, str) else name
    if not versioned:
        theirs = {"gelu": "gelu_new", "gelu_orig": "gelu"}.get(theirs, theirs) if isinstance(theirs, str) else theirs
    names = {their: our for our, their in ACTIVATIONS.items()} | {"silu": "silu"}
    if not isinstance(theirs, str) or theirs not in names:
        why = " (a file without a version means gelu_new by gelu)" if theirs == "gelu_new" and not versioned else ""
        raise ValueError(f"non_linearity={name!r}{why} is not one of {', '.join(map(repr, names))}")
    return names[theirs]


def _init(name: Any) -> str:
    for our, their in INITS.items():
        if name == their:
            return our
    raise ValueError(f"init_weights={name!r} is not one of {', '.join(map(repr, INITS.values()))}")


def _scaling(value: Any) -> float:
    if value in ("learned", "channel"):
        raise ValueError(f"a scaling that is learnt (scaling={value!r}) cannot be imported: here it is a number")
    return _number("scaling", value)


def _layers(leave_out: Any, blocks: int) -> tuple[int, ...]:
    """The blocks that have adapters. Numbers that the model does not reach have no effect, as in the library."""
    left_out = [] if leave_out is None else leave_out
    if not isinstance(left_out, list) or not all(type(i) is int for i in left_out):
        raise ValueError(f"leave_out must be a list of block numbers, not {leave_out!r}")
    if layers := tuple(i for i in range(blocks) if i not in left_out):
        return layers
    raise ValueError(f"leave_out={leave_out} leaves no block of this model's {blocks} with an adapter")


def _width(factor: Any, model_dim: int, layers: tuple[int, ...]) -> int:
    """The width m of all adapters. Their ``reduction_factor`` may map block numbers, as strings, to factors."""
    factors = [factor]
    if isinstance(factor, dict):
        if missing := [i for i in layers if str(i) not in factor and "default" not in factor]:
            raise ValueError(f"reduction_factor={factor} has no entry for block {missing[0]} and no 'default'")
        factors = [factor.get(str(i), factor.get("default")) for i in layers]
    widths = set()
    for each in factors:
        if _number("reduction_factor", each) <= 0:
            raise ValueError(f"reduction_factor must be above 0, not {each}")
        width = model_dim // float(each)
        if not math.isfinite(width):
            raise ValueError(f"reduction_factor={each} makes no width")
        widths.add(max(1, int(width)))
    if len(widths) > 1:
        raise ValueError(
            f"reduction_factor={factor} gives adapters of different widths ({', '.join(map(str, sorted(widths)))}): "
            "here all adapters of one name have one width"
        )
    return widths.pop()


def _number(key: str, value: Any) -> float:
    # Not math.isfinite, which fails with the long whole numbers that JSON may hold.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < sys.float_info.max:
        raise ValueError(f"{key} must be a finite number, not {value!r}")
    return float(value)
