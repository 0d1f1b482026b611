"""The fine-tuning methods compared in the course: each prepares a model, so that the same loop can train it."""

import warnings
from dataclasses import dataclass

from torch import nn

from .adapter import AdapterConfig, AnyConfig, LoRAConfig
from .architectures import Architecture, base_model_of
from .guards.bank_guard import check_no_bank
from .guards.base_guard import check_head
from .guards.config_guard import check_choice
from .guards.quantised_base import check_plain, keep_bytes, numbers_in
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
    config: AnyConfig | None = None,
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
            section 3.5), "bitfit" (the biases: Ben Zaken et al. 2021, arXiv 2106.10199), "adapter" or "lora" (Hu et al.
            2021, arXiv 2106.09685).
        config: an ``AdapterConfig`` for "adapter", by default m = 16 in Houlsby's places; a ``LoRAConfig`` for "lora",
            by default with ``lora_rank`` and ``lora_alpha`` on query and value.
        head: train the head as well; None: yes, but of a language model's ``lm_head`` with "full" and "head" only.

    Raises ValueError for an unknown method, a config that the method does not take, or a model prepared before.
    """
    check_choice("method", method, METHODS)
    check_no_bank(model, "bank.add(name, config, 2) adds a task, and train(bank, data) trains it alone")
    whose, which = ("lora", "a LoRAConfig") if isinstance(config, LoRAConfig) else ("adapter", "an AdapterConfig")
    if config is not None and method != whose:
        raise ValueError(f'{which} belongs to method="{whose}", not {method!r}')
    base = base_model_of(model)
    if adapter_names(model) or any("lora_" in name for name, _ in base.named_parameters()):
        raise ValueError("the model has adapters or LoRA already: prepare a fresh one, or remove_adapters(model) first")
    keep_bytes(model)
    if method == "full":
        check_plain(model.named_parameters(), 'prepare(model, "adapter") trains beside them')
    else:
        check_head(model, bool(head_parameters(model)), True if method == "head" else head)
    if method in ("adapter", "lora"):
        default = AdapterConfig(bottleneck_dim=16) if method == "adapter" else LoRAConfig(lora_rank, lora_alpha)
        insert_adapters(model, config or default, architecture=architecture)
        set_trainable(model, head=False)
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
        total=sum(numbers_in(p) for p in model.parameters()),
        names=tuple(name for name, _ in named),
        head=sum(p.numel() for p in head_parameters(model) if p.requires_grad),
    )


def print_trainable_parameters(model: nn.Module) -> None:
    """Print the counts in the form that peft made customary."""
    print(trainable(model))
