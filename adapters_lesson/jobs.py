"""What the command line trains: from its options to data and a prepared model, and from a run to files."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .adapter import AdapterConfig
from .costs.traffic import gradient_bytes, ring_bytes
from .distributed import Traffic
from .files import write_atomically
from .history import History
from .methods import prepare
from .tasks import TASKS, encode, load_task, make_dataset


@dataclass
class Job:
    """What is to be trained.

    Attributes:
        model: what ``train`` takes.
        prepared: the model in which adapters were put; the same, or within it.
        labels: names, empty for a language model.
    """

    model: nn.Module
    prepared: nn.Module
    train: Any
    validation: Any
    labels: list[str]


def job_of(arguments: argparse.Namespace) -> Job:
    """Read the data, load the base model and prepare it.

    Raises:
        ValueError, OSError: when the data or the model are missing, damaged or unfit.
    """
    torch.manual_seed(arguments.seed)
    job = _language_job(arguments) if arguments.task == "answers" else _text_job(arguments)
    config = AdapterConfig(arguments.bottleneck, placement=arguments.placement)
    prepare(
        job.prepared, arguments.method, config if arguments.method == "adapter" else None, lora_rank=arguments.lora_rank
    )
    for module in job.model.modules() if arguments.dropout is not None else ():
        if isinstance(module, nn.Dropout):
            module.p = arguments.dropout
    return job


def _text_job(arguments: argparse.Namespace) -> Job:
    from .pretrained import load_tokenizer
    from .transformer import Classifier, SmallTransformer

    if arguments.task in TASKS:
        data = load_task(arguments.task)
    else:
        data = {"train": read_csv(arguments.task)}
        if arguments.validation:
            data["validation"] = read_csv(arguments.validation, data["train"].features["label"].names)
    labels = data["train"].features["label"].names
    data = {s: encode(data[s], load_tokenizer(), arguments.max_length) for s in ("train", "validation") if s in data}
    model = Classifier(SmallTransformer.from_minilm(int(arguments.base.partition(":")[2] or 6)), len(labels))
    return Job(model, model, data["train"], data.get("validation"), labels)


def _language_job(arguments: argparse.Namespace) -> Job:
    from datasets import disable_progress_bars

    from .answers import encode_answers, load_answers, pack
    from .language import AnswerLoss, load_smollm, load_smollm_tokenizer

    disable_progress_bars()  # one for each process would be noise
    data = encode_answers(load_answers(), load_smollm_tokenizer())
    train, validation = data["train"], data["validation"]
    if arguments.pack:
        train, validation = pack(train, arguments.pack), pack(validation, arguments.pack)
    model = load_smollm()
    return Job(AnswerLoss(model), model, train, validation, [])


def read_csv(path: str, names: Sequence[str] | None = None) -> Any:
    """A labelled dataset from a CSV file with the columns text and label; ``names`` of the labels, by default its own.

    Raises:
        ValueError, OSError: when the file is missing, empty or lacks a column, or a text or label does not fit.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no CSV file in UTF-8 ({error})") from error
    if not rows or not {"text", "label"} <= rows[0].keys():
        raise ValueError(f"{path} needs a first line with the columns text and label, and a line for each text")
    texts, labels = [row["text"] or "" for row in rows], [row["label"] or "" for row in rows]
    if names is None and len(set(labels)) < 2:
        raise ValueError(f"all texts in {path} have the label {labels[0]!r}: there is nothing to learn")
    try:
        return make_dataset(texts, labels, names or sorted(set(labels)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def report_of(
    arguments: argparse.Namespace, job: Job, accelerator: Any, history: History, traffic: Traffic, seconds: float
) -> dict[str, Any]:
    """What ``--report`` writes. Bytes of memory and of the network are per process."""
    from accelerate.utils import gather_object

    processes, steps = accelerator.num_processes, max(1, history.steps)
    gradients = gradient_bytes(job.model)
    return {
        "arguments": vars(arguments),
        "processes": processes,
        "seconds": round(seconds, 3),
        "seconds_per_step": history.seconds / steps,
        "gradient_bytes": gradients,
        "exchanged_bytes_per_step": traffic.total / steps,
        "sent_bytes_per_step_in_a_ring": ring_bytes(gradients, processes),
        "peak_memory_bytes": max(gather_object([peak_memory()])),
        "torch": torch.__version__.partition("+")[0],
        "history": asdict(history),
    }


def write(arguments: argparse.Namespace, job: Job, report: dict[str, Any], say: Callable[..., None]) -> None:
    """Save what was trained, and the report."""
    if arguments.save and arguments.method == "adapter":
        from .storage import save_adapter

        say(f"saved in {save_adapter(job.prepared, arguments.save)}")
    elif arguments.save:
        from safetensors.torch import save_file

        tensors = {
            name: p.detach().cpu().contiguous() for name, p in job.prepared.named_parameters() if p.requires_grad
        }
        about = {name: str(getattr(arguments, name)) for name in ("method", "base", "task")}
        about["labels"] = json.dumps(job.labels)
        path = Path(arguments.save) / f"{arguments.method}.safetensors"
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=about))
        say(f"saved in {path}")
    if arguments.report:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.report, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def peak_memory() -> int:
    """The most memory that this process has had, in bytes; that of the GPU, if it computes on one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
