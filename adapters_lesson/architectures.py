"""Where each architecture keeps what an adapter needs: one table of names, no code per model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Names of modules: ``layers`` within the base model, the others within one of its blocks.

    Args:
        layers: the stack of blocks.
        attention_output: the projection that ends the attention sub-layer.
        ffn_output: the projection that ends the FFN.
        ffn_input: the first module that the residual stream meets on its way into the FFN.
        norms: the block's LayerNorms, the one after (post-LN) or before (pre-LN) the FFN last.
        norm: "post" (LayerNorm after each residual sum, as in BERT) or "pre" (before each sub-layer, as in GPT-2).
        lora_targets: the attention projections that LoRA changes (query and value, Hu et al. 2021, section 4.2).
        attention_inputs: the projections that begin the attention sub-layer (for ``costs.memory_ledger``).
        ffn_inputs: those that begin the FFN; two of them if one gates the other, as in Llama, the gate first.
        attention_dropout: the dropout on the attention weights, if the architecture has one.
        model_dim: width d of the hidden states; None to read it off ``ffn_output``.
    """

    layers: str
    attention_output: str
    ffn_output: str
    ffn_input: str
    norms: tuple[str, ...]
    norm: str
    lora_targets: tuple[str, ...] = ()
    attention_inputs: tuple[str, ...] = ()
    ffn_inputs: tuple[str, ...] = ()
    attention_dropout: str = ""
    model_dim: int | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("post", "pre"):
            raise ValueError(f'norm must be "post" or "pre", not {self.norm!r}')


_BERT = Architecture(
    layers="encoder.layer",
    attention_output="attention.output.dense",
    ffn_output="output.dense",
    ffn_input="intermediate",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    norm="post",
    lora_targets=("query", "value"),
    attention_inputs=("attention.self.query", "attention.self.key", "attention.self.value"),
    ffn_inputs=("intermediate.dense",),
    attention_dropout="attention.self.dropout",
)
_LLAMA = Architecture(
    layers="layers",
    attention_output="self_attn.o_proj",
    ffn_output="mlp.down_proj",
    ffn_input="post_attention_layernorm",
    norms=("input_layernorm", "post_attention_layernorm"),
    norm="pre",
    lora_targets=("q_proj", "v_proj"),
    attention_inputs=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ffn_inputs=("mlp.gate_proj", "mlp.up_proj"),
)

# The key is config.model_type, transformers' name for an architecture.
ARCHITECTURES: dict[str, Architecture] = {
    "small_transformer_post": Architecture(
        layers="blocks",
        attention_output="attention.output",
        ffn_output="ffn.contract",
        ffn_input="ffn",
        norms=("attention_norm", "ffn_norm"),
        norm="post",
        lora_targets=("query", "value"),
        attention_inputs=("attention.query", "attention.key", "attention.value"),
        ffn_inputs=("ffn.expand",),
    ),
    "small_transformer_pre": Architecture(
        layers="blocks",
        attention_output="attention.output",
        ffn_output="ffn.contract",
        ffn_input="ffn_norm",
        norms=("attention_norm", "ffn_norm"),
        norm="pre",
        lora_targets=("query", "value"),
        attention_inputs=("attention.query", "attention.key", "attention.value"),
        ffn_inputs=("ffn.expand",),
    ),
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": Architecture(
        layers="transformer.layer",
        attention_output="attention.out_lin",
        ffn_output="ffn.lin2",
        ffn_input="ffn",
        norms=("sa_layer_norm", "output_layer_norm"),
        norm="post",
        lora_targets=("q_lin", "v_lin"),
        attention_inputs=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        ffn_inputs=("ffn.lin1",),
        attention_dropout="attention.dropout",
    ),
    "gpt2": Architecture(
        layers="h",
        attention_output="attn.c_proj",
        ffn_output="mlp.c_proj",
        ffn_input="ln_2",
        norms=("ln_1", "ln_2"),
        norm="pre",
        lora_targets=("c_attn",),  # query, key and value in one matrix
        attention_inputs=("attn.c_attn",),
        ffn_inputs=("mlp.c_fc",),
        attention_dropout="attn.attn_dropout",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "vit": Architecture(
        layers="layers",
        attention_output="attention.o_proj",
        ffn_output="mlp.fc2",
        ffn_input="layernorm_after",
        norms=("layernorm_before", "layernorm_after"),
        norm="pre",
        lora_targets=("q_proj", "v_proj"),
        attention_inputs=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        ffn_inputs=("mlp.fc1",),
    ),
}


def base_model_of(model: nn.Module) -> nn.Module:
    """The encoder or decoder inside a model with a head; the model itself if it has none."""
    inner = getattr(model, "base_model", model)
    return model if inner is model or not isinstance(inner, nn.Module) else base_model_of(inner)


def architecture_of(model: nn.Module) -> Architecture:
    """The table's entry for ``model``.

    Raises:
        ValueError: for an architecture that is not in the table.
    """
    model_type = getattr(getattr(base_model_of(model), "config", None), "model_type", None)
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    what = f"the architecture {model_type!r} of {type(model).__name__}" if model_type else type(model).__name__
    raise ValueError(
        f"{what} is not in the table of architectures ({', '.join(ARCHITECTURES)}): say where its sub-layers end with "
        'insert_adapters(..., architecture=Architecture(layers="blocks", attention_output="attn.proj", ...))'
    )


def blocks_of(model: nn.Module, architecture: Architecture | None = None) -> list[nn.Module]:
    """The blocks of ``model``, from the bottom up.

    Raises:
        ValueError: when the architecture's name for them does not fit the model.
    """
    architecture = architecture or architecture_of(model)
    blocks = find(base_model_of(model), architecture.layers)
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
        raise ValueError(f"layers={architecture.layers!r} must name a ModuleList or Sequential of blocks")
    return list(blocks)


def find(module: nn.Module, name: str) -> nn.Module:
    """``module.get_submodule(name)`` with an error that shows what there is instead."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        names = [n for n, _ in module.named_modules() if n][:12]
        raise ValueError(
            f"{type(module).__name__} has no module {name!r}, it has {', '.join(names)}, …: "
            "mend the Architecture's names (or, for a model of transformers, check its version)"
        ) from None
