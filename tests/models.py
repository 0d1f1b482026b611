"""Tiny random models of every architecture in the table, and how the tests call them."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import nn

from adapters_lesson.slots import AdapterSlot
from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

VOCAB, WIDTH, DEPTH = 40, 16, 3
_BERT = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_LLAMA = _BERT | {"num_key_value_heads": 1, "head_dim": 8}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": WIDTH,
    "n_layer": DEPTH,
    "n_head": 2,
    "n_positions": 24,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_VIT = _BERT | {"image_size": 8, "patch_size": 4}
_VIT.pop("vocab_size"), _VIT.pop("max_position_embeddings")
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MODERN = _BERT | _IDS | {"cls_token_id": 1, "sep_token_id": 2}
_OPT = _IDS | {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2}
_OPT |= {"ffn_dim": 32, "max_position_embeddings": 24, "word_embed_proj_dim": WIDTH, "dropout": 0.0}
_T5 = {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": DEPTH, "num_heads": 2}
_T5 |= {"dropout_rate": 0.0, "num_decoder_layers": 1}
_BART = {"vocab_size": VOCAB, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 1, "dropout": 0.0}
_BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
_MOE = _LLAMA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
_DISTILBERT = {"vocab_size": VOCAB, "dim": WIDTH, "n_layers": DEPTH, "n_heads": 2, "hidden_dim": 32}


def small(norm: str = "post", **changes: Any) -> SmallTransformer:
    """A SmallTransformer of width 16 with three blocks."""
    return SmallTransformer(SmallTransformerConfig(**(_BERT | {"norm": norm} | changes)))


BASES = {
    "small_post": lambda: small("post"),
    "small_pre": lambda: small("pre"),
    "bert": lambda: hf.BertModel(hf.BertConfig(**_BERT, **_NO_DROPOUT)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**_BERT)),
    "distilbert": lambda: hf.DistilBertModel(hf.DistilBertConfig(**_DISTILBERT)),
    "gpt2": lambda: hf.GPT2Model(hf.GPT2Config(**_GPT2)),
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**_LLAMA)),
    "mistral": lambda: hf.MistralModel(hf.MistralConfig(**_LLAMA)),
    "qwen2": lambda: hf.Qwen2Model(hf.Qwen2Config(**_LLAMA)),
    "qwen3": lambda: hf.Qwen3Model(hf.Qwen3Config(**_LLAMA)),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**_VIT)),
}
# The same names of modules as one of the above, or almost; tried together in test_architectures.
MORE_BASES = {
    "xlm-roberta": lambda: hf.XLMRobertaModel(hf.XLMRobertaConfig(**_BERT, **_NO_DROPOUT)),
    "camembert": lambda: hf.CamembertModel(hf.CamembertConfig(**_BERT, **_NO_DROPOUT)),
    "electra": lambda: hf.ElectraModel(hf.ElectraConfig(**_BERT, **_NO_DROPOUT, embedding_size=8)),
    "deberta": lambda: hf.DebertaModel(
        hf.DebertaConfig(**_BERT, **_NO_DROPOUT, relative_attention=True, pos_att_type=["c2p", "p2c"])
    ),
    "deberta-v2": lambda: hf.DebertaV2Model(
        hf.DebertaV2Config(
            **_BERT, **_NO_DROPOUT, relative_attention=True, pos_att_type=["c2p", "p2c"], conv_kernel_size=3
        )
    ),
    "albert": lambda: hf.AlbertModel(
        hf.AlbertConfig(**_BERT, **_NO_DROPOUT, embedding_size=8, num_hidden_groups=3, inner_group_num=2)
    ),
    "modernbert": lambda: hf.ModernBertModel(hf.ModernBertConfig(**_MODERN)),
    "gemma": lambda: hf.GemmaModel(hf.GemmaConfig(**_LLAMA)),
    "gemma2": lambda: hf.Gemma2Model(hf.Gemma2Config(**_LLAMA)),
    "gemma3_text": lambda: hf.Gemma3TextModel(hf.Gemma3TextConfig(**_LLAMA)),
    "gemma3": lambda: hf.Gemma3Model(
        hf.Gemma3Config(text_config=_LLAMA, vision_config=_VIT | {"vision_use_head": False}, mm_tokens_per_image=4)
    ),
    "phi": lambda: hf.PhiModel(hf.PhiConfig(**_BERT)),
    "phi3": lambda: hf.Phi3Model(hf.Phi3Config(**_BERT, **_IDS)),
    "opt": lambda: hf.OPTModel(hf.OPTConfig(**_OPT)),
    "opt_post": lambda: hf.OPTModel(hf.OPTConfig(**(_OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 8}))),
    "gpt_neox": lambda: hf.GPTNeoXModel(hf.GPTNeoXConfig(**_BERT)),
    "gpt_neox_serial": lambda: hf.GPTNeoXModel(hf.GPTNeoXConfig(**_BERT, use_parallel_residual=False)),
    "t5_encoder": lambda: hf.T5EncoderModel(hf.T5Config(**_T5)),
    "t5_stack": lambda: hf.T5Model(hf.T5Config(**_T5)).get_encoder(),
    "t5": lambda: hf.T5Model(hf.T5Config(**_T5)),
    "t5_gated": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**_T5, feed_forward_proj="gated-gelu")),
    "bart": lambda: hf.BartModel(hf.BartConfig(**_BART, max_position_embeddings=24)),
    "bart_encoder": lambda: hf.BartModel(hf.BartConfig(**_BART, max_position_embeddings=24)).get_encoder(),
    "qwen2_moe": lambda: hf.Qwen2MoeModel(hf.Qwen2MoeConfig(**_MOE, shared_expert_intermediate_size=32)),
    "qwen3_moe": lambda: hf.Qwen3MoeModel(hf.Qwen3MoeConfig(**_MOE)),
}
WITH_HEADS = {
    "small_classifier": lambda: Classifier(small(), 2),
    "bert_classifier": lambda: Classifier(BASES["bert"](), 2),
    "bert_head": lambda: hf.BertForSequenceClassification(hf.BertConfig(**_BERT, **_NO_DROPOUT)),
    "gpt2_head": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**_GPT2)),
    "llama_head": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_LLAMA)),
    "vit_head": lambda: hf.ViTForImageClassification(hf.ViTConfig(**_VIT)),
}
ALL = BASES | WITH_HEADS


def make(name: str, seed: int = 0) -> nn.Module:
    """The model called ``name`` in evaluation mode, with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = (ALL | MORE_BASES)[name]()
    randomise(model)
    return model.eval()


@torch.no_grad()
def randomise(module: nn.Module, std: float = 0.2) -> None:
    """Draw all parameters, biases and LayerNorms included, from a normal distribution (LayerNorm weights around 1)."""
    for name, parameter in module.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        parameter.normal_(mean=1.0 if is_scale else 0.0, std=std)


def inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    """Two inputs for ``model``: images for a ViT, else token ids, the second text padded."""
    generator = torch.Generator().manual_seed(1)
    if "vit" in type(model).__name__.lower():
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    ids = torch.randint(2, VOCAB, (2, 6), generator=generator)
    second = {"decoder_input_ids": ids[:, :3]} if hasattr(model, "decoder") and hasattr(model, "encoder") else {}
    return {"input_ids": ids, "attention_mask": mask, **second}


def forward(model: nn.Module) -> torch.Tensor:
    """Hidden states or logits of ``model``, whatever it returns them in."""
    result = model(**inputs(model))
    return result if isinstance(result, torch.Tensor) else result[0]


@torch.no_grad()
def output(model: nn.Module) -> torch.Tensor:
    """``forward`` in evaluation mode, without gradients."""
    return forward(model.eval())


def loss(model: nn.Module) -> torch.Tensor:
    """A loss to which every hidden state matters; a square would be constant after a LayerNorm."""
    result = forward(model)
    return (result * torch.randn(result.shape, generator=torch.Generator().manual_seed(2))).sum()


def train_steps(model: nn.Module, steps: int = 1) -> None:
    """A few optimiser steps on whatever requires gradients; the last gradients stay."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def snapshot(model: nn.Module) -> dict[str, bytes]:
    """Names and bytes of the state dict, to compare exactly."""
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def hooks(model: nn.Module) -> int:
    """Forward hooks and pre-hooks anywhere in ``model``."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def slots(model: nn.Module) -> list[AdapterSlot]:
    """All places for adapters in ``model``."""
    return [m for m in model.modules() if isinstance(m, AdapterSlot)]


class Columns(dict):
    """An encoded dataset without the datasets library: what ``training`` reads of one."""

    column_names = property(list)

    def __len__(self) -> int:
        return len(next(iter(self.values())))


def toy_data(rows: int = 48, seed: int = 0) -> Columns:
    """Texts of 2 to 12 tokens; the label says whether token 3 occurs."""
    generator = torch.Generator().manual_seed(seed)
    ids = [
        torch.randint(4, VOCAB, (int(torch.randint(2, 13, (), generator=generator)),), generator=generator).tolist()
        for _ in range(rows)
    ]
    labels = [row % 2 for row in range(rows)]
    for row in range(1, rows, 2):
        ids[row][0] = 3
    return Columns(input_ids=ids, label=labels)
