"""A model for llama.cpp and what builds on it: one file, by the package ``gguf``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from adapters_lesson.guards.quantised_base import check_plain
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.slots import slots_of

KINDS = ("f32", "f16", "q8_0")
_GET = "the package gguf is not installed: `make llm` installs it (without make: pip install --no-deps gguf)"


def export_gguf(model: Any, tokenizer: Any, path: str | Path, kind: str = "f16", *, pre: str = "smollm") -> Path:
    """Write a language model of transformers' Llama family, merged LoRA and all, with its tokenizer.

    Args:
        model: a ``LlamaForCausalLM``, such as lesson 10's SmolLM2. What is not merged into its weights stays behind, so
            LoRA has to be merged, and a bottleneck adapter can never travel this way.
        tokenizer: its tokenizer, of the kind byte-level BPE.
        path: the file, which is replaced, all or nothing.
        kind: "f32", "f16" or "q8_0" (blocks of 32 weights in eight bits with a scale of two bytes); norms stay in f32.
        pre: how llama.cpp splits a text before BPE, by its own name for it.

    Returns the path. Read it back and compare before it is shipped: ``compare_outputs``. Raises ValueError for another
    architecture, modules that are not merged, weights that are quantised, and another tokenizer; ImportError without
    the package gguf.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError(_GET) from None
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown, choose one of {', '.join(KINDS)}")
    config = getattr(model, "config", None)
    if type(model).__name__ != "LlamaForCausalLM" or config is None:
        raise ValueError(f"a {type(model).__name__} is none of the Llama family: only LlamaForCausalLM is written here")
    rope = config.rope_parameters.get("rope_type", "default")
    if (rope, config.hidden_act, config.mlp_bias) != ("default", "silu", False):
        what = f"rope_type={rope!r}, hidden_act={config.hidden_act!r}, mlp_bias={config.mlp_bias}"
        raise ValueError(f"a model with {what} is not written here: convert_hf_to_gguf.py of llama.cpp may know it")
    _check_merged(model)
    check_plain(model.named_parameters(), "export a model whose weights are whole, in float32 or bfloat16")
    vocabulary, merges = _bpe(tokenizer, config.vocab_size)
    types = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0"}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)

    def write(temporary: Path) -> None:
        file = gguf.GGUFWriter(temporary, "llama")
        file.add_name(Path(path).stem)
        file.add_context_length(config.max_position_embeddings)
        file.add_embedding_length(config.hidden_size)
        file.add_block_count(config.num_hidden_layers)
        file.add_feed_forward_length(config.intermediate_size)
        file.add_head_count(config.num_attention_heads)
        file.add_head_count_kv(config.num_key_value_heads)
        file.add_rope_dimension_count(config.head_dim)
        file.add_rope_freq_base(config.rope_parameters["rope_theta"])
        file.add_layer_norm_rms_eps(config.rms_norm_eps)
        file.add_vocab_size(config.vocab_size)
        file.add_file_type(getattr(gguf.LlamaFileType, {"f32": "ALL_F32"}.get(kind, f"MOSTLY_{types[kind]}")))
        file.add_tokenizer_model("gpt2")
        file.add_tokenizer_pre(pre)
        file.add_token_list([token for token, _ in vocabulary])
        file.add_token_types([getattr(gguf.TokenType, of) for _, of in vocabulary])
        file.add_token_merges(merges)
        for add, token in (
            (file.add_bos_token_id, tokenizer.bos_token_id),
            (file.add_eos_token_id, tokenizer.eos_token_id),
            (file.add_unk_token_id, tokenizer.unk_token_id),
            (file.add_pad_token_id, tokenizer.pad_token_id),
        ):
            if token is not None:
                add(token)
        if tokenizer.chat_template:
            file.add_chat_template(tokenizer.chat_template)
        for key, weight in _weights(model).items():
            of = gguf.GGMLQuantizationType[types[kind] if weight.ndim == 2 else "F32"]
            name = names.get_name(key, try_suffixes=(".weight", ".bias")) or key
            file.add_tensor(name, gguf.quantize(weight.numpy(), of), raw_dtype=of)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_tensors_to_file()
        file.close()

    path = Path(path).expanduser()
    write_atomically(path, write)
    return path


def _check_merged(model: Any) -> None:
    for slot in slots_of(model):
        for name, module in slot.items():
            if getattr(slot, "_merged", None) and slot._merged[0] == name:  # type: ignore[index]
                continue
            how = "lora.merge(model) first" if hasattr(module, "delta") else "it can never be merged into the weights"
            raise ValueError(f"{name!r} is beside the weights and would stay behind: {how}, or remove_adapters(model)")
    if any("lora_" in name for name, _ in model.named_parameters() if ".adapters_" not in name):
        raise ValueError("LoRA of peft is beside the weights and would stay behind: merge_and_unload() first")


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """The model's own parameters in float32, each once; rows of queries and keys as llama.cpp rotates them."""
    found = {}
    for name, parameter in model.named_parameters():  # a tied head comes by once, as the embeddings
        if ".adapters_" in name:
            continue
        weight = parameter.detach().float().cpu()
        for part, heads in (("q_proj", model.config.num_attention_heads), ("k_proj", model.config.num_key_value_heads)):
            if (
                part in name
            ):  # halves of each head side by side, there in turns: (heads, 2, d/2, …) to (heads, d/2, 2, …)
                weight = weight.view(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
        found[name] = weight.contiguous()
    return found


def _bpe(tokenizer: Any, size: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Each token with llama.cpp's word for its type, and the merges."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    about: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    if about.get("model", {}).get("type") != "BPE":
        raise ValueError(f"a {type(tokenizer).__name__} is no byte-level BPE tokenizer: only these are written here")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in about["model"]["merges"]]
    added = {one["id"]: "CONTROL" if one["special"] else "USER_DEFINED" for one in about["added_tokens"]}
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    if (last := max(known)) >= size:
        mend = f"model.resize_token_embeddings({last + 1}) before it is trained"
        raise ValueError(f"the tokenizer knows {known[last]!r} as token {last}, and the model has {size} rows: {mend}")
    every = [(known[i], added.get(i, "NORMAL")) if i in known else (f"[PAD{i}]", "UNUSED") for i in range(size)]
    return every, merges
