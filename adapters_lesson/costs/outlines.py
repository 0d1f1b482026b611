"""Big models as outlines: every tensor has its shape and no numbers (PyTorch's meta device), so nothing is downloaded.

The sizes are those of the models' own config.json files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..transformer import Classifier

_LLAMA_3 = {"vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0}
_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "minilm": (
        "BertConfig",
        "BertModel",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "bert-base": ("BertConfig", "BertModel", {}),  # the config's defaults are this model
    "bert-large": (
        "BertConfig",
        "BertModel",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "gpt2-xl": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "llama-3-8b": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            **_LLAMA_3,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 14336,
        },
    ),
    "llama-3-70b": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            **_LLAMA_3,
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "intermediate_size": 28672,
        },
    ),
}
OUTLINES = tuple(_MODELS)


def outline(name: str, num_labels: int | None = None, *, layers: int | None = None) -> nn.Module:
    """The model called ``name`` without its numbers, as published; with ``num_labels`` as a ``Classifier`` instead.

    Counts and ledgers of it are exact, but it cannot compute anything. ``layers`` gives it another number of blocks.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in _MODELS:
        raise ValueError(f"there is no outline {name!r}: choose one of {', '.join(OUTLINES)}")
    import transformers

    config_class, model_class, sizes = _MODELS[name]
    if layers is not None:
        sizes = {**sizes, "num_hidden_layers": layers}  # a name that all configs understand
    with torch.device("meta"):
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
        if num_labels is None:
            return model
        base = model.base_model
        if getattr(base, "pooler", None) is not None:
            base.pooler = None  # the classifier takes the mean over the hidden states instead
        return Classifier(base, num_labels)
