"""The fine-tuning methods compared in the course: each prepares a model, so that the same loop can train it."""

import warnings
from dataclasses import dataclass

from torch import nn

from .adapter import AdapterConfig
from .architectures import Architecture, architecture_of, base_model_of
from .guards.bank_guard import check_no_bank
from .guards.base_guard import check_head
from .guards.config_guard import check_choice
from .insertion import adapter_names, freeze, has_lm_head, head_parameters, insert_adapters, set_trainable

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
        """The method's own trainable parameters."""
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
    head: bool | None = None,
    architecture: Architecture | None = None,
) -> Trainable:
    """Make ``model`` ready to be trained with ``method``, in place; everything else in it is frozen.

    Args:
        model: as for ``insert_adapters``.
        method: "full" (every parameter), "head" (only the head), "layer_norm" (the LayerNorms: Houlsby et al. 2019,
            section 3.5), "bitfit" (the biases: Ben Zaken et al. 2021, arXiv 2106.10199), "adapter" or "lora" (on query
            and value: Hu et al. 2021, arXiv 2106.09685, by the library peft).
        config: the adapters, for "adapter" only; m = 16 in Houlsby's places by default.
        lora_rank, lora_alpha: for "lora" only.
        head: train the head as well; None: yes, but of a language model's ``lm_head`` with "full" and "head" only.

    Raises ValueError for an unknown method, a config that the method does not take, or a model prepared before.
    """
    check_choice("method", method, METHODS)
    check_no_bank(model, "bank.add(name, config, 2) adds a task, and train(bank, data) trains it alone")
    if config is not None and method != "adapter":
        raise ValueError(f'an AdapterConfig belongs to method="adapter", not {method!r}')
    base = base_model_of(model)
    if adapter_names(model) or any("lora_" in name for name, _ in base.named_parameters()):
        raise ValueError("the model has adapters or LoRA already: prepare a fresh one, or remove_adapters(model) first")
    if method != "full":
        check_head(model, bool(head_parameters(model)), True if method == "head" else head)
    if method == "adapter":
        insert_adapters(model, config or AdapterConfig(bottleneck_dim=16), architecture=architecture)
        set_trainable(model, head=False)
    elif method == "lora":
        _add_lora(base, architecture_of(model, architecture), lora_rank, lora_alpha)
    else:
        freeze(model)
        for name, parameter in base.named_parameters():
            owner = base.get_submodule(name.rpartition(".")[0])
            parameter.requires_grad_(
                method == "full"
                or (method == "layer_norm" and type(owner).__name__.endswith("Norm"))  # RMSNorms too
                or (method == "bitfit" and name.endswith("bias"))
            )
        if not any(p.requires_grad for p in base.parameters()) and method != "head":
            warnings.warn(f"method={method!r} finds nothing to train in a {type(base).__name__}", stacklevel=2)
    if head is None:
        head = method in ("full", "head") or not has_lm_head(model)
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


def _add_lora(base: nn.Module, at: Architecture, rank: int, alpha: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(at.lora_targets)
    if not targets:
        raise ValueError("this Architecture names no lora_targets (the attention's query and value projections)")
    transposed = any(type(m).__name__ == "Conv1D" for m in base.modules())  # GPT-2 keeps its matrices the other way
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=transposed)
    inject_adapter_in_model(config, base)
    for name, parameter in base.named_parameters():
        parameter.requires_grad_("lora_" in name)
