"""Where each architecture keeps what an adapter needs: one table of names, no code per model."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .guards.base_guard import check_names, unknown_architecture


@dataclass(frozen=True)
class Architecture:
    """Names of modules: ``layers`` within the base model, the others within one of its blocks.

    A name may be a regular expression. Where several modules match, the last is meant; in ``layers`` and ``norms`` all.
    """

    layers: str  # the stack of blocks; an encoder-decoder's two stacks are counted through, the encoder's first
    attention_output: str  # the projection that ends the attention sub-layer
    ffn_output: str  # the projection that ends the FFN
    ffn_input: str  # the first module that the residual stream meets on its way into the FFN
    norms: tuple[str, ...]  # the block's LayerNorms, the one after (post-LN) or before (pre-LN) the FFN last
    norm: str  # "post" (LayerNorm after each residual sum, as in BERT) or "pre" (before each sub-layer, as in GPT-2)
    lora_targets: tuple[str, ...] = ()  # the query and value projections (Hu et al. 2021, section 4.2), by their ends
    model_dim: int | None = None  # width d of the hidden states; None to read it off ``ffn_output``
    attention_sublayer: str | None = None  # that ``attention_output`` is in; None: its path up to the first dot

    def __post_init__(self) -> None:
        check_names(self)


# fmt: off
# Each row: layers, attention_output, ffn_output, ffn_input, norms, norm, lora_targets.
_SMALL = Architecture("blocks", "attention.output", "ffn.contract", "ffn",
                      ("attention_norm", "ffn_norm"), "post", ("query", "value"))
_BERT = Architecture("encoder.layer", "attention.output.dense", "output.dense", "intermediate",
                     ("attention.output.LayerNorm", "output.LayerNorm"), "post", ("query", "value"))
_LLAMA = Architecture("layers", "self_attn.o_proj", "mlp.down_proj", "post_attention_layernorm",
                      ("input_layernorm", "post_attention_layernorm"), "pre", ("q_proj", "v_proj"))
_GEMMA2 = Architecture(  # a sub-layer ends with a norm of its own
    "layers", "post_attention_layernorm", "post_feedforward_layernorm", "pre_feedforward_layernorm",
    (r"(input|post_attention|post_feedforward)_layernorm", "pre_feedforward_layernorm"), "pre", ("q_proj", "v_proj"),
    attention_sublayer="self_attn")
_OPT = Architecture(r"(decoder\.)?layers", "self_attn.out_proj", "fc2", "final_layer_norm",
                    ("self_attn_layer_norm", "final_layer_norm"), "pre", ("q_proj", "v_proj"))

# The key is config.model_type, transformers' name for an architecture.
ARCHITECTURES: dict[str, Architecture] = {
    "small_transformer_post": _SMALL,
    "small_transformer_pre": replace(_SMALL, norm="pre", ffn_input="ffn_norm"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "deberta": replace(_BERT, lora_targets=("in_proj",)),  # query, key and value in one matrix
    "deberta-v2": replace(_BERT, lora_targets=("query_proj", "value_proj")),
    "albert": Architecture(  # few blocks, each called many times: so is an adapter in it
        r"encoder\.albert_layer_groups\.\d+\.albert_layers", "attention.dense", "ffn_output", "ffn",
        ("attention.LayerNorm", "full_layer_layer_norm"), "post", ("query", "value")),
    "distilbert": Architecture("transformer.layer", "attention.out_lin", "ffn.lin2", "ffn",
                               ("sa_layer_norm", "output_layer_norm"), "post", ("q_lin", "v_lin")),
    "modernbert": Architecture("layers", "attn.Wo", "mlp.Wo", "mlp_norm", ("attn_norm", "mlp_norm"), "pre", ("Wqkv",)),
    "gpt2": Architecture("h", "attn.c_proj", "mlp.c_proj", "ln_2", ("ln_1", "ln_2"), "pre", ("c_attn",)),
    "gpt_neox": Architecture("layers", "attention.dense", "mlp.dense_4h_to_h", "post_attention_layernorm",
                             ("input_layernorm", "post_attention_layernorm"), "pre", ("query_key_value",)),
    "opt": _OPT,
    "opt_post": replace(_OPT, norm="post", ffn_input="fc1"),  # with do_layer_norm_before=False, as opt-350m
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe"), replace(_LLAMA, ffn_output="mlp")),  # after all experts together
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
    "gemma3": replace(_GEMMA2, layers="language_model.layers"),
    "phi": Architecture("layers", "self_attn.dense", "mlp.fc2", "input_layernorm",  # attention and FFN side by side
                        ("input_layernorm",), "pre", ("q_proj", "v_proj")),
    "phi3": replace(_LLAMA, lora_targets=("qkv_proj",)),
    "t5": Architecture(
        r"((encoder|decoder)\.)?block", "layer.0.SelfAttention.o", r"layer\.\d\.DenseReluDense\.wo",
        r"layer\.\d\.layer_norm", (r"layer\.\d\.layer_norm",), "pre", ("q", "v"),
        attention_sublayer=r"layer\.\d\.(Self|EncDec)Attention"),
    "bart": Architecture(r"((encoder|decoder)\.)?layers", "self_attn.out_proj", "fc2", "fc1",
                         (r"(self_attn|encoder_attn|final)_layer_norm",), "post", ("q_proj", "v_proj"),
                         attention_sublayer="(self|encoder)_attn"),
    "vit": Architecture("layers", "attention.o_proj", "mlp.fc2", "layernorm_after",
                        ("layernorm_before", "layernorm_after"), "pre", ("q_proj", "v_proj")),
}
# fmt: on


def base_model_of(model: nn.Module) -> nn.Module:
    """What ``model.base_model`` says, or the only pretrained model inside; the model itself if there is none."""
    inner = getattr(model, "base_model", model)
    if inner is not model and isinstance(inner, nn.Module):
        return base_model_of(inner)
    if _fits(model) or (_is_pretrained(model) and _entry(model) is None):
        return model
    inside = list(base_models_in(model).values())
    return base_model_of(inside[0]) if len(inside) == 1 else model


def base_models_in(model: nn.Module, path: str = "") -> dict[str, nn.Module]:
    """The pretrained models inside ``model``, by their paths; not what is inside of those."""
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        ours = _fits(child) or _is_pretrained(child)
        found |= {f"{path}{name}": child} if ours else base_models_in(child, f"{path}{name}.")
    return found


def architecture_of(model: nn.Module, given: Any = None) -> Architecture:
    """What ``given`` says, or what was given with the adapters in ``model``, or the table's entry; else ValueError."""
    base = base_model_of(model)
    for said in (given, getattr(model, "adapter_architecture", None), getattr(base, "adapter_architecture", None)):
        if said is not None:
            known = ARCHITECTURES.get(said) if isinstance(said, str) else said
            if not isinstance(known, Architecture):
                raise ValueError(f"architecture must be an Architecture, or a name in ARCHITECTURES, not {said!r}")
            return known
    if entry := _entry(base):
        return entry
    raise ValueError(unknown_architecture(model, base, base_models_in(base), len(ARCHITECTURES)))


def blocks_of(model: nn.Module, architecture: Architecture | None = None) -> list[nn.Module]:
    """The blocks of ``model``, from the bottom up. Raises ValueError when ``layers`` names no list of them."""
    layers, base = architecture_of(model, architecture).layers, base_model_of(model)
    stacks = find_all(base if _matching(base, layers) or not _matching(model, layers) else model, layers)
    if not all(isinstance(stack, (nn.ModuleList, nn.Sequential)) and len(stack) for stack in stacks):
        raise ValueError(f"layers={layers!r} must name a ModuleList or Sequential of blocks")
    return list(dict.fromkeys(block for stack in stacks for block in stack.children()))


def width_of(model: nn.Module, architecture: Architecture | None = None) -> int:
    """The width of the hidden states that ``model``'s base model returns."""
    config = getattr(base_model_of(model), "config", None)  # opt-350m makes them narrower at the end
    if width := getattr(config, "word_embed_proj_dim", None) or getattr(config, "hidden_size", None):
        return width
    at = architecture_of(model, architecture)
    return model_dim_of(blocks_of(model, at)[0], at)


def model_dim_of(block: nn.Module, at: Architecture, hosts: Iterable[str] = ()) -> int:
    """The width d of the hidden states in ``block`` and behind its projections ``hosts``; ValueError if they differ."""
    widths = {"model_dim": at.model_dim} if at.model_dim else {}
    for name in ("ffn_output", *(host for host in hosts if hasattr(at, host))):
        module = find(block, getattr(at, name))
        width = getattr(module, "out_features", getattr(module, "nf", None))  # of a Linear, of GPT-2's Conv1D
        widths |= {f"{name}={getattr(at, name)!r}": width} if isinstance(width, int) else {}
    norm = getattr(find(block, at.norms[-1]), "weight", None)  # others may be of a head's width
    if isinstance(norm, nn.Parameter) and norm.ndim == 1:
        widths[f"norms[-1]={at.norms[-1]!r}"] = len(norm)
    if not widths:
        raise ValueError(f"cannot read the width off {at.ffn_output!r}: give Architecture(model_dim=…)")
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{name} says {width}" for name, width in widths.items())
        raise ValueError(f"hidden states of {type(block).__name__} have one width, but {said}: mend the Architecture")
    return next(iter(widths.values()))


def features_of(module: Any) -> tuple[int, int] | None:
    """The widths in and out of a linear layer, GPT-2's Conv1D among them; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if type(module).__name__ == "Conv1D" else None


def find(module: nn.Module, name: str) -> nn.Module:
    """The module in ``module`` that ``name`` names. Raises ValueError as ``find_all``."""
    return find_all(module, name)[-1]


def find_all(module: nn.Module, name: str) -> list[nn.Module]:
    """All that ``name`` names in ``module``. Raises ValueError when there is none, and shows what there is instead."""
    if found := _matching(module, name):
        return found
    names = [n for n, _ in module.named_modules() if n][:12]
    raise ValueError(
        f"{type(module).__name__} has no module {name!r}, it has {', '.join(names)}, …: "
        "mend the Architecture's names (or, for a model of transformers, check its version)"
    )


def _matching(module: nn.Module, name: str) -> list[nn.Module]:
    try:
        return [module.get_submodule(name)]
    except AttributeError:
        return [one for path, one in module.named_modules() if re.fullmatch(name, path)]


def _entry(model: nn.Module) -> Architecture | None:
    """What the table says of ``model`` itself, None if nothing."""
    config = getattr(model, "config", None)
    after = "_post" if getattr(config, "do_layer_norm_before", True) is False else ""
    return ARCHITECTURES.get(f"{getattr(config, 'model_type', None)}{after}")


def _fits(model: nn.Module) -> bool:
    """Whether the table's names for its type are there, and not further inside."""
    entry = _entry(model)
    return entry is not None and bool(_matching(model, entry.layers))


def _is_pretrained(model: nn.Module) -> bool:
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    return hasattr(model, "save_pretrained") and isinstance(model_type, str)
