"""A bottleneck adapter as a tuner of the library peft (Mangrulkar et al. 2022), by its public registration.

Asked for since 2023 (huggingface/peft, issues 244 and 2654). In peft 0.21 the registration does nearly all. Two things
are missing upstream. ``register_peft_method`` takes only names of the enumeration ``PeftType``, to which nobody can add
from outside; the first lines below do. And the default names in a file lose the adapter's name only where one module
follows it, and here two do. Importing this module registers "BOTTLENECK"; peft loads such a folder only after that.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method
from torch import Tensor, nn

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.architectures import architecture_of, base_model_of, blocks_of, features_of
from adapters_lesson.placements import PLACEMENTS

from .peft import BOTTLENECK

if "BOTTLENECK" not in PeftType.__members__:
    _new: Any = str.__new__(PeftType, "BOTTLENECK")
    _new._name_ = _new._value_ = "BOTTLENECK"
    _new.__objclass__, _new._sort_order_ = PeftType, len(PeftType)
    type.__setattr__(PeftType, "BOTTLENECK", _new)
    PeftType._member_names_.append("BOTTLENECK")
    PeftType._member_map_["BOTTLENECK"] = PeftType._value2member_map_["BOTTLENECK"] = _new

_NEVER = "a bottleneck adapter bends between its two matrices, so it cannot be merged: save it beside the base model"


@dataclass
class BottleneckConfig(PeftConfig):
    """Which adapters go where; what is not said here is as in ``adapters_lesson.AdapterConfig``.

    Args:
        placement: "houlsby" (after the projections of attention and FFN: Houlsby et al. 2019, figure 2) or "pfeiffer"
            (after the FFN: Pfeiffer et al. 2020, arXiv 2005.00247).
        target_modules: after which modules instead, as peft's other methods take them. An adapter after a LayerNorm is
            called as Pfeiffer's: ``LN(update(LN(x)) + x)``.
        exclude_modules, modules_to_save: as in peft's other methods.

    Raises ValueError for a setting that makes no sense, or for "parallel", which needs the input of another module.
    """

    bottleneck_dim: int = 16
    placement: str = "houlsby"
    activation: str = "gelu"
    init: str = "zero"
    init_std: float | None = None
    scaling: float = 1.0
    dropout: float = 0.0
    layers: list[int] | None = None
    target_modules: Any = None
    exclude_modules: Any = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.BOTTLENECK  # it is added above
        for key in ("target_modules", "exclude_modules"):
            names = getattr(self, key)
            setattr(self, key, set(names) if isinstance(names, list) else names)
        if self.placement == "parallel":
            raise ValueError('placement="parallel" is no tuner of peft: "houlsby" or "pfeiffer", or insert_adapters')
        self.ours()

    def ours(self) -> AdapterConfig:
        """The same settings for ``insert_adapters``."""
        settings: dict[str, Any] = {key: getattr(self, key) for key in BOTTLENECK}
        return AdapterConfig(**{**settings, "layers": None if self.layers is None else tuple(self.layers)})


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module of the base model, and the adapters after it by name. Of several active ones each reads the last."""

    adapter_layer_names = ("bottleneck_adapters",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_adapters = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        # In a hook, and the first: transformers' own hooks record a block's output, and that is the adapted one.
        self.hook = base_layer.register_forward_hook(self.after, prepend=True)

    def add(self, name: str, config: BottleneckConfig, width: int, active: list[str]) -> None:
        """A new adapter for hidden states ``(..., width)``."""
        like = next((p for p in self.base_layer.parameters() if p.is_floating_point()), None)
        adapter = config.ours().build(width)
        if like is not None and not adapter.down_project.weight.is_meta:  # low_cpu_mem_usage=True has it filled later
            adapter = adapter.to(like.device, like.dtype)
        self.bottleneck_adapters[name] = adapter
        self.set_adapter(active, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_layer(*args, **kwargs)

    def after(self, base_layer: nn.Module, args: tuple, output: Any) -> Any:
        """Forward hook of the base layer: what stands in for its output."""
        if self.disable_adapters:
            return output
        h: Tensor = output[0] if isinstance(output, tuple) else output  # (rows, tokens, d)
        for name in self.active_adapters:
            if name in self.bottleneck_adapters:
                update = self.bottleneck_adapters[name].update(h)  # type: ignore[operator]
                h = base_layer.forward(update + args[0]) if _is_norm(base_layer) else h + update
        return (h, *output[1:]) if isinstance(output, tuple) else h

    def unload_and_optionally_merge_module(self, **_: Any) -> nn.Module:
        """What ``unload()`` of peft puts back: the base layer, without the adapters."""
        self.hook.remove()
        return self.base_layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # a model may ask one of its blocks for more than its output
            return getattr(super().__getattr__("base_layer"), name)

    def merge(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(_NEVER)

    unmerge = merge


class BottleneckModel(BaseTuner):
    """A model of transformers with bottleneck adapters: what ``get_peft_model`` makes of a ``BottleneckConfig``."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}  # they come from the model itself, see below

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            model, base = self.model, base_model_of(self.model)
            try:
                at, blocks = architecture_of(base), blocks_of(base)
            except ValueError:
                what = f"where the adapters of a {type(base).__name__} go is not known here"
                raise ValueError(f"{what}: target_modules=[…] says after which modules") from None
            sites, paths = PLACEMENTS[peft_config.placement].sites[at.norm], {m: p for p, m in model.named_modules()}
            chosen = range(len(blocks)) if peft_config.layers is None else peft_config.layers
            if outside := [i for i in chosen if not 0 <= i < len(blocks)]:
                there = f"the model has blocks 0 to {len(blocks) - 1}"
                raise ValueError(f"layers={peft_config.layers!r}: {there}, not {outside}")
            peft_config.target_modules = {
                paths[host] for i in chosen for site in sites for host in site.find_hosts(blocks[i], at)
            }
        return peft_config

    def _check_new_adapter_config(self, config: Any) -> None:
        super()._check_new_adapter_config(config)
        if len({one.placement for one in self.peft_config.values()}) > 1:
            rule = "all bottleneck adapters of one model have the same placement"
            raise ValueError(f"placement={config.placement!r}: {rule}")

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        layer = target if isinstance(target, BottleneckLayer) else BottleneckLayer(target)
        width = _width(layer.base_layer) or getattr(getattr(self.model, "config", None), "hidden_size", None)
        if not isinstance(width, int):
            what = f"{current_key} is a {type(target).__name__}, whose width is not known"
            raise ValueError(f"{what}: target_modules=… of others")
        layer.add(adapter_name, peft_config, width, self.active_adapters)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)  # weight and device are the child's own, which stays inside

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return key.replace(f".bottleneck_adapters.{adapter_name}.", ".bottleneck_adapters.")

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if kwargs.get("adapter_names") is not None:  # peft would drop them in silence
            raise ValueError(
                "adapter_names=[…]: bottleneck adapters are not mixed in one batch, call set_adapter(name)"
            )
        return nullcontext()

    def _check_merge_allowed(self) -> NoReturn:
        raise ValueError(_NEVER)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _width(module: nn.Module) -> int | None:
    """The width of what ``module`` returns, where its weight says it."""
    if features := features_of(module):
        return features[1]
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 1 else None


register_peft_method(name="bottleneck", config_cls=BottleneckConfig, model_cls=BottleneckModel)
