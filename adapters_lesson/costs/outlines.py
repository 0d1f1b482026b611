"""Big models as outlines, of the sizes in their config.json: every tensor has its shape and no numbers."""

from typing import Any

import torch
from torch import nn

from adapters_lesson.guards.plain_values import check_choice
from adapters_lesson.transformer import Classifier

# By name: the classes in transformers; width, number of blocks, heads, width of the FFN; and what else differs.
_BERT, _LLAMA = ("BertConfig", "BertModel"), ("LlamaConfig", "LlamaForCausalLM")
_LLAMA_3 = {"vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0}
_MODELS: dict[str, tuple[tuple[str, str], tuple[int, int, int, int], dict[str, Any]]] = {
    "minilm": (_BERT, (384, 6, 12, 1536), {}),
    "bert-base": (_BERT, (768, 12, 12, 3072), {}),
    "bert-large": (_BERT, (1024, 24, 16, 4096), {}),
    "gpt2-xl": (("GPT2Config", "GPT2LMHeadModel"), (1600, 48, 25, 6400), {}),
    "llama-3-8b": (_LLAMA, (4096, 32, 32, 14336), _LLAMA_3),
    "llama-3-70b": (_LLAMA, (8192, 80, 64, 28672), _LLAMA_3),
}
OUTLINES = tuple(_MODELS)


def outline(name: str, num_labels: int | None = None, *, layers: int | None = None) -> nn.Module:
    """The model called ``name`` without its numbers, as published; with ``num_labels`` as a ``Classifier`` instead.

    Counts and ledgers of it are exact. ``layers`` gives it another number of blocks. Raises ValueError for other names.
    """
    check_choice("name", name, OUTLINES)
    import transformers

    (config_class, model_class), (d, blocks, heads, ffn), more = _MODELS[name]
    sizes = {"hidden_size": d, "num_hidden_layers": layers or blocks, "num_attention_heads": heads}
    sizes["n_inner" if config_class == "GPT2Config" else "intermediate_size"] = ffn  # the one name that differs
    config = getattr(transformers, config_class)(**sizes, **more, use_cache=False)  # a cache is for generating
    with torch.device("meta"):
        model = getattr(transformers, model_class)(config)
        if num_labels is None:
            return model
        if getattr(model.base_model, "pooler", None) is not None:
            model.base_model.pooler = None  # the classifier takes the mean over the hidden states instead
        return Classifier(model.base_model, num_labels)
