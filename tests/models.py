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
    model = ALL[name]()
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
    return {"input_ids": torch.randint(2, VOCAB, (2, 6), generator=generator), "attention_mask": mask}


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
        return len(self["label"])


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
