"""What the options of `train` name: texts and labels, a model that is prepared for them, and how it is described."""

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.batches import texts_of
from adapters_lesson.data import TASKS, encode, load_task
from adapters_lesson.guards.base_parts import base_tensors, parts_of
from adapters_lesson.guards.columns import named
from adapters_lesson.storage import fingerprint

from .bases import load_classifier, longest_text, read_architecture, tokenizer_of
from .saved_run import SavedRun
from .tables import read_task


class Task(NamedTuple):
    """The data by split, and the names of the labels; of a language model there are none."""

    data: dict[str, Any]
    labels: tuple[str, ...]
    licence: str  # "" where nothing is stated


def read(arguments: argparse.Namespace) -> Task:
    """The task's texts and labels, not encoded yet. Raises ValueError, OSError, PretrainedFileError."""
    if arguments.task == "answers":
        from adapters_lesson.course.language.answers import encode_answers, load_answers, pack
        from adapters_lesson.course.language.smollm import load_smollm_tokenizer

        data, labels = load_answers(), ()
        licence = data["train"].info.description
        data = dict(encode_answers(data, load_smollm_tokenizer()))
        if arguments.pack:
            data = {split: pack(data[split], arguments.pack) for split in ("train", "validation")}
    else:
        columns = (arguments.text_column, arguments.label_column)
        own = arguments.task not in TASKS
        data = read_task(arguments.task, columns, arguments.validation) if own else dict(load_task(arguments.task))
        labels = tuple(data["train"].features["label"].names)
        licence = data["train"].info.description
    stated = re.search(r"\*\*Licence\.\*\* ([^\n]+)", licence)
    return Task(data, labels, stated[1] if stated else "")


def load(arguments: argparse.Namespace, labels: tuple[str, ...], seed: int) -> tuple[nn.Module, nn.Module]:
    """What ``train`` takes, and the model in it that is to be prepared, fresh for each ``seed``."""
    torch.manual_seed(seed)
    if labels:
        model = load_classifier(arguments.base, labels, read_architecture(arguments.architecture))
        return model, model
    from adapters_lesson.course.language.smollm import AnswerLoss, load_smollm

    prepared = load_smollm()
    return AnswerLoss(prepared), prepared


def encoded(arguments: argparse.Namespace, task: Task, model: nn.Module) -> tuple[dict[str, Any], Any]:
    """The data with ``input_ids``, and the tokenizer. No text may be longer than ``model`` reads."""
    if not task.labels:
        from adapters_lesson.course.language.smollm import load_smollm_tokenizer

        return task.data, load_smollm_tokenizer()
    most = longest_text(model) or 10**9
    arguments.max_length = length = arguments.max_length or min(128, most)
    if length > most:
        what = f"--max-length is {length}, but {arguments.base} reads at most {most} tokens"
        raise ValueError(f"{what}: give that or less")
    tokenizer = tokenizer_of(arguments.base)
    data = {split: encode(rows, tokenizer, length) for split, rows in task.data.items()}
    if "test" in data:  # the others are looked at by ``train``
        with named("test"):
            texts_of(data["test"]).check(model)
    return data, tokenizer


def description(arguments: argparse.Namespace, labels: tuple[str, ...], model: nn.Module) -> SavedRun:
    """The run that begins with ``model``, before anything is put into it."""
    config = None
    if arguments.method == "adapter":
        config = AdapterConfig(arguments.bottleneck, placement=arguments.placement, dropout=arguments.dropout or 0.0)
    here, at = Path(arguments.base).expanduser(), read_architecture(arguments.architecture)
    keep = bool(arguments.save and labels)  # else nobody will ask whether a base model is this one
    return SavedRun(
        format=1,
        base=str(here.resolve()) if here.is_dir() else arguments.base,
        base_sha256=fingerprint(model) if keep else "",
        base_parts=parts_of(base_tensors(model)) if keep else {},
        method=arguments.method,
        config=asdict(config) if config else None,
        lora_rank=arguments.lora_rank,
        architecture=asdict(at) if at else None,
        labels=labels,
        max_length=arguments.max_length or 0,
        text_column=arguments.text_column,
    )
