"""The fine-tuning methods compared in the course: each prepares a model, so that the same loop can train it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .adapter import AdapterConfig
from .architectures import architecture_of, base_model_of
from .insertion import adapter_names, freeze, head_parameters, insert_adapters, set_trainable

METHODS = ("full", "head", "layer_norm", "bitfit", "adapter", "lora")


@dataclass(frozen=True)
class Trainable:
    """What a method trains: parameter counts and names."""

    method: str
    trainable: int
    total: int
    names: tuple[str, ...]
    head: int = 0

    @property
    def without_head(self) -> int:
        """Trainable parameters that are not the head's: the method's own."""
        return self.trainable - self.head

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total
        return f"trainable params: {self.trainable:,} || all params: {self.total:,} || trainable%: {share:.4f}"


def prepare(
    model: nn.Module,
    method: str,
    config: AdapterConfig | None = None,
    *,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    head: bool = True,
) -> Trainable:
    """Make ``model`` ready to be trained with ``method``, in place; everything else in it is frozen.

    Args:
        model: a model with a head, as for ``insert_adapters``.
        method: "full" (every parameter), "head" (only the head), "layer_norm" (the LayerNorms: Houlsby et al. 2019,
            section 3.5), "bitfit" (the biases: Ben Zaken et al. 2021, arXiv 2106.10199), "adapter" or "lora" (on query
            and value: Hu et al. 2021, arXiv 2106.09685, by the library peft).
        config: the adapters, for "adapter" only; m = 16 in Houlsby's places by default.
        lora_rank, lora_alpha: for "lora" only.
        head: train the head as well.

    Raises:
        ValueError: for an unknown method, a config that the method does not take, or a model prepared before.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    if config is not None and method != "adapter":
        raise ValueError(f'an AdapterConfig belongs to method="adapter", not {method!r}')
    base = base_model_of(model)
    if adapter_names(model) or any("lora_" in name for name, _ in base.named_parameters()):
        raise ValueError("the model has adapters or LoRA already: prepare a fresh one, or remove_adapters(model) first")
    if method == "adapter":
        insert_adapters(model, config or AdapterConfig(bottleneck_dim=16))
        set_trainable(model)
    elif method == "lora":
        _add_lora(base, lora_rank, lora_alpha)
    else:
        freeze(model)
        for name, parameter in base.named_parameters():
            owner = base.get_submodule(name.rpartition(".")[0])
            parameter.requires_grad_(
                method == "full"
                or (method == "layer_norm" and type(owner).__name__.endswith("Norm"))  # RMSNorms too
                or (method == "bitfit" and name.endswith("bias"))
            )
    for parameter in head_parameters(model):
        parameter.requires_grad_(head)
    return trainable(model, method)


def trainable(model: nn.Module, method: str = "") -> Trainable:
    """What of ``model`` is trained as it stands."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return Trainable(
        method=method,
        trainable=sum(p.numel() for _, p in named),
        total=sum(p.numel() for p in model.parameters()),
        names=tuple(name for name, _ in named),
        head=sum(p.numel() for p in head_parameters(model) if p.requires_grad),
    )


def print_trainable_parameters(model: nn.Module) -> None:
    """Print the counts in the form that peft made customary."""
    print(trainable(model))


def _add_lora(base: nn.Module, rank: int, alpha: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(architecture_of(base).lora_targets)
    if not targets:
        raise ValueError("this Architecture names no lora_targets (the attention's query and value projections)")
    transposed = any(type(m).__name__ == "Conv1D" for m in base.modules())  # GPT-2 keeps its matrices the other way
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=transposed), base
    )
    for name, parameter in base.named_parameters():
        parameter.requires_grad_("lora_" in name)
