"""Settings of adapters: plain where their meaning is clear, so that a file brings them back equal, or else refused."""

import math
from collections.abc import Collection
from functools import partial
from typing import Any

from torch import nn

from adapters_lesson.placements import PLACEMENTS, TARGETS

from .plain_values import check_choice, check_number, check_whole, listed, shown, truth, whole_number

INITS = ("zero", "bert", "houlsby")
# Each gives the value that it is called with as a plain number, or raises ValueError.
check_dropout = partial(check_number, "dropout", wanted="is a probability in [0, 1)", fits=lambda x: 0 <= x < 1)
check_scaling = partial(
    check_number, "scaling", wanted="must be a finite number other than 0", fits=lambda x: x and math.isfinite(x)
)
check_alpha = partial(
    check_number, "alpha", wanted="must be a finite number other than 0, say 16", fits=lambda x: x and math.isfinite(x)
)
check_factor = partial(  # d/m
    check_number, "reduction_factor", wanted="must be above 0 and finite, say 16", fits=lambda x: 1e-6 < x < math.inf
)
_check_std = partial(
    check_number, "init_std", wanted="must be a finite number above 0, say 0.01", fits=lambda x: 0 < x < math.inf
)


def check_adapter_config(config: Any, activations: Collection[str]) -> None:
    """Make the settings of an ``AdapterConfig`` plain. Raises ValueError for one that makes no sense."""
    m, factor = config.bottleneck_dim, config.reduction_factor
    if (m is None) == (factor is None):
        raise ValueError(f"give either bottleneck_dim or reduction_factor (d/m), not {m} and {factor}")
    init, init_std = check_init(config.init, config.init_std)
    vars(config).update(  # which a frozen one allows
        bottleneck_dim=None if m is None else check_whole("bottleneck_dim", m),
        reduction_factor=None if factor is None else check_factor(factor),
        activation=check_choice("activation", config.activation, activations),
        init=init,
        init_std=init_std,
        scaling=check_scaling(config.scaling),
        dropout=check_dropout(config.dropout),
    )
    check_sites(config)


def check_lora_config(config: Any) -> None:
    """Make the settings of a ``LoRAConfig`` plain. Raises ValueError for one that makes no sense."""
    vars(config).update(
        rank=check_whole("rank", config.rank),
        alpha=check_alpha(config.alpha),
        targets=check_choice("targets", config.targets, TARGETS),
        use_rslora=_check_truth("use_rslora", config.use_rslora),
        dropout=check_dropout(config.dropout),
        layers=_check_chosen(config.layers),
    )


def check_sites(config: Any) -> None:
    """Make ``placement``, ``layers`` and ``train_layer_norms`` of any kind of config plain, or raise ValueError."""
    norms = _check_truth("train_layer_norms", config.train_layer_norms)
    layers, placement = _check_chosen(config.layers), check_choice("placement", config.placement, PLACEMENTS)
    vars(config).update(train_layer_norms=norms, layers=layers, placement=placement)


def _check_truth(name: str, value: Any) -> bool:
    if (plain := truth(value)) is None:
        raise ValueError(f"{name} must be True or False, not {shown(value)}")
    return plain


def _check_chosen(given: Any) -> tuple[int, ...] | None:
    layers = None if given is None else check_layers(given)
    if layers is not None and (not layers or len(set(layers)) < len(layers) or min(layers) < 0):
        raise ValueError(f"layers must name different blocks, counted from 0, or be None for all; not {layers}")
    return layers


def check_layers(layers: Any) -> tuple[int, ...]:
    """The numbers of blocks as ints. Raises ValueError for what is no list of whole numbers."""
    given = listed(layers)
    numbers = [n for layer in given or [] if (n := whole_number(layer)) is not None]
    if given is None or len(numbers) < len(given):
        one = max(0, whole_number(layers) or 0)
        mend = f"layers=[{one}] is one block, layers=range({one + 1}) are all up to it"
        raise ValueError(f"layers must be a list of blocks, whole numbers from 0, not {shown(layers)}: {mend}")
    return tuple(numbers)


def check_init(init: Any, init_std: Any) -> tuple[str, float | None]:
    """Both plain. Raises ValueError unless ``init`` is known and ``init_std`` fits it."""
    init = check_choice("init", init, INITS)
    if init == "zero" and init_std is not None:
        raise ValueError('init="zero" has no standard deviation: leave init_std out, or use init="houlsby" or "bert"')
    return init, None if init_std is None else _check_std(init_std)


def check_activation(activation: Any) -> Any:
    """``activation``. Raises ValueError for a name, and for a class in place of a module."""
    if isinstance(activation, (str, type)) or not callable(activation):
        raise ValueError(f"activation must be a module, for instance nn.ReLU(), not {shown(activation)}")
    return activation


def check_insertion(model: Any, config: Any) -> None:
    if isinstance(config, type) or not hasattr(config, "build"):
        call = f"insert_adapters(model, AdapterConfig({max(1, whole_number(config) or 16)}))"
        raise ValueError(f"config must be an AdapterConfig, not {shown(config)}: {call}")
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a module of PyTorch, for instance model = load_minilm(), not {shown(model)}")
