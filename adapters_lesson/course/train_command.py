"""Train one method on one task, on this process alone or on all that `accelerate launch` started."""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs.traffic import gradient_bytes, ring_bytes
from adapters_lesson.data import TASKS, encode, load_task, load_tokenizer, make_dataset
from adapters_lesson.guards.columns import csv_rows
from adapters_lesson.guards.safe_files import PretrainedFileError, check_writable, write_atomically
from adapters_lesson.methods import METHODS, prepare, trainable
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.runs.distributed import TIMEOUT, counted_traffic, make_accelerator
from adapters_lesson.runs.settings import Settings
from adapters_lesson.storage import save_adapter
from adapters_lesson.training import train
from adapters_lesson.transformer import Classifier, SmallTransformer

ALIASES = {name.removeprefix("aspect_"): name for name in TASKS}
OF_ONE_METHOD = (("bottleneck", "adapter", 16), ("placement", "adapter", "houlsby"), ("lora_rank", "lora", 8))
EPILOG = """\
On two processes of a machine without a GPU, or on all GPUs of a machine that has several:
  accelerate launch --multi_gpu --num_processes 2 --main_process_port 0 -m adapters_lesson train [the same options]
On two machines, on each of them with its own rank (0, 1):
  accelerate launch --multi_gpu --num_processes 2 --num_machines 2 --machine_rank RANK --main_process_ip ADDRESS
      --main_process_port 29500 -m adapters_lesson train [the same options]
--batch-size counts the texts of all processes together, so the result is that of one process, but for rounding and
dropout. Exit status: 0 when the run went to its end, 1 when it went wrong, 2 when it was refused, 130 after Ctrl-C;
what had been learnt until then is saved."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task, model and output; how it is trained has an option for each of ``Settings``."""
    add = parser.add_argument_group("what is learnt").add_argument
    add("--task", default="aspect_sentiment", help=f"{', '.join(ALIASES)}; answers, for a language model; or a "
        "CSV file with the columns text and label (default: %(default)s)")  # fmt: skip
    add("--validation", metavar="FILE", help="a CSV file to validate on, for a task that is one")
    add("--max-length", type=int, default=128, metavar="N", help="cut texts to N tokens (default: %(default)s)")
    add("--pack", type=int, metavar="N", help="answers only: put dialogues together into rows of N tokens")
    add = parser.add_argument_group("the model").add_argument
    add("--base", default="minilm:6", help="minilm:LAYERS, 1 to 6 of them, or smollm2 (default: %(default)s)")
    add("--method", default="adapter", choices=METHODS, metavar="M", help="%(choices)s (default: %(default)s)")
    add("--bottleneck", type=int, metavar="N", help="the adapters' width m (default: 16)")
    add("--placement", choices=PLACEMENTS, metavar="P", help="%(choices)s (default: houlsby)")
    add("--dropout", type=float, metavar="X", help="of all that is trained (default: the model's own)")
    add("--lora-rank", type=int, metavar="N", help="LoRA's r (default: 8)")
    add = parser.add_argument_group("the run").add_argument
    meaning = dict(re.findall(r"^ *(\w+): (.+)\.$", Settings.__doc__ or "", re.MULTILINE))
    for f in fields(Settings):
        kind, option = str(f.type).split()[0], "--" + f.name.replace("_", "-")
        default = "3e-3, for full fine-tuning 1e-4" if f.name == "learning_rate" else f.default
        text = meaning[f.name] + (f" (default: {default})" if f.default else "")
        if kind == "bool":
            add(option, action="store_true", default=None, help=text)
        else:
            add(option, type={"int": int, "float": float}.get(kind, str), metavar=kind[0].upper(), help=text)
    add = parser.add_argument_group("what comes out").add_argument
    add("--save", metavar="FOLDER", help="the adapters, for load_adapter(model, FOLDER); with another method FOLDER/"
        "METHOD.safetensors, all that was trained")  # fmt: skip
    add("--report", metavar="FILE", help="history, time, memory and bytes exchanged, as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--timeout", type=float, default=TIMEOUT, metavar="S", help="give up when the other processes say "
        "nothing for so many seconds (default: %(default)s)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Train and write what was asked for; returns the exit status."""
    try:
        settings = check(arguments)
        accelerator = make_accelerator(arguments.timeout)
        model, prepared, data, labels = model_and_data(arguments, settings.seed)
        rank, processes = accelerator.process_index, accelerator.num_processes
        say = print if rank == 0 and not arguments.quiet else lambda *_: None
        if processes == 1 and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
            complain("accelerate started one process only; for several, --multi_gpu instead of --cpu")
        several = f"{processes} process{'es' * (processes > 1)}"
        say(f"{arguments.task}: {len(data['train']):,} rows, {arguments.base}, {arguments.method}, {several}")
        say(trainable(model))
        start = time.perf_counter()
        with counted_traffic() as buckets:
            options = {"accelerator": accelerator, "progress": not arguments.quiet}
            history = train(model, data["train"], data.get("validation"), settings, **options)
        seconds = time.perf_counter() - start
    except (ValueError, OSError, PretrainedFileError) as error:
        complain(error)
        return 2
    from accelerate.utils import gather_object

    steps, gradients = max(1, history.steps), gradient_bytes(model)
    report = {
        "arguments": {**vars(arguments), **settings.record()},
        "processes": processes,
        "seconds": round(seconds, 3),
        "seconds_per_step": history.seconds / steps,
        # bytes of memory and of the network are per process
        "gradient_bytes": gradients,
        "exchanged_bytes_per_step": sum(buckets) / steps,
        "sent_bytes_per_step_in_a_ring": ring_bytes(gradients, processes),
        "peak_memory_bytes": max(gather_object([peak_memory()])),
        "torch": torch.__version__.partition("+")[0],
        "history": asdict(history),
    }
    if history.validation:
        say("validation after {step} steps: loss {loss:.4f}, accuracy {accuracy:.4f}".format(**history.validation[-1]))
    each = f"{1000 * history.seconds / steps:.0f} ms a step, {sum(buckets) / steps:,.0f} bytes of gradients exchanged"
    say(f"{history.steps} steps in {seconds:.1f} s, {each} at each")
    ended = not history.stopped or history.stopped.startswith("no better")
    status = 0 if ended else 130 if history.stopped == "interrupted" else 1
    try:
        text = json.dumps(report, indent=1) + "\n"
        if rank == 0 and arguments.report:  # first: it is there even if the adapter cannot be saved
            write_atomically(arguments.report, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        if rank == 0 and arguments.save:
            say(f"saved in {save(arguments, prepared, labels)}")
    except (ValueError, OSError) as error:
        complain(error)
        status = status or 1
    accelerator.end_training()
    if not ended:
        complain(history.stopped)
    return status


def complain(what: object) -> None:
    """Say it once on each machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"train: {what}", file=sys.stderr)


def check(arguments: argparse.Namespace) -> Settings:
    """Complete the arguments, and raise ValueError where one makes no sense or does not fit another."""
    given = {f.name: value for f in fields(Settings) if (value := vars(arguments).pop(f.name)) is not None}
    settings = Settings(**{"learning_rate": 1e-4 if arguments.method == "full" else 3e-3, **given})
    for name, least, most in (("max_length", 3, 512), ("pack", 1, 1e9), ("lora_rank", 1, 1e9), ("dropout", 0, 1)):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= most:
            raise ValueError(f"--{name.replace('_', '-')} must be from {least} to {most:g}, not {value}")
    for name, method, default in OF_ONE_METHOD:
        option = f"--{name.replace('_', '-')}"
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
        elif arguments.method != method:
            raise ValueError(f"{option} is for --method {method}, and does nothing with --method {arguments.method}")
    task = arguments.task = ALIASES.get(arguments.task, arguments.task)
    if not (task in TASKS or task == "answers" or task.endswith(".csv")):
        raise ValueError(f"there is no task {task!r}: {', '.join(ALIASES)}, answers, or a file ending in .csv")
    if not re.fullmatch("minilm(:[1-6]?)?|smollm2", arguments.base):
        raise ValueError(f"there is no base model {arguments.base!r}: minilm:1 to minilm:6 (layers), or smollm2")
    if (task == "answers") != (arguments.base == "smollm2"):
        raise ValueError(f"--task answers and --base smollm2 go together, not {task} with {arguments.base}")
    if arguments.pack and task != "answers":
        raise ValueError("--pack is for --task answers: a text with a label of its own needs a row of its own")
    if arguments.validation and not task.endswith(".csv"):
        raise ValueError(f"the task {task} has its own validation texts: --validation is for CSV files")
    for option in ("save", "report"):
        if (path := getattr(arguments, option)) is not None:
            check_writable(f"--{option}", Path(path), folder=option == "save")
    return settings


def model_and_data(arguments: argparse.Namespace, seed: int) -> tuple[nn.Module, nn.Module, Any, list[str]]:
    """What ``train`` takes, the model in it that is prepared, the data by split, and the labels' names."""
    torch.manual_seed(seed)
    if arguments.task == "answers":
        from .language.answers import encode_answers, load_answers, pack
        from .language.smollm import AnswerLoss, load_smollm, load_smollm_tokenizer

        data, labels = encode_answers(load_answers(), load_smollm_tokenizer()), []
        if arguments.pack:
            data = {split: pack(data[split], arguments.pack) for split in ("train", "validation")}
        prepared = load_smollm()
        model: nn.Module = AnswerLoss(prepared)
    else:
        data = load_task(arguments.task) if arguments.task in TASKS else {"train": read_csv(arguments.task)}
        labels = data["train"].features["label"].names
        if arguments.validation:
            data["validation"] = read_csv(arguments.validation, labels)
        data = {split: encode(rows, load_tokenizer(), arguments.max_length) for split, rows in data.items()}
        base = SmallTransformer.from_minilm(int(arguments.base.partition(":")[2] or 6))
        model = prepared = Classifier(base, len(labels))
    config = None
    if arguments.method == "adapter":
        config = AdapterConfig(arguments.bottleneck, placement=arguments.placement, dropout=arguments.dropout or 0.0)
    prepare(prepared, arguments.method, config, lora_rank=arguments.lora_rank)
    for module in model.modules() if arguments.dropout is not None else ():
        if isinstance(module, nn.Dropout):
            module.p = arguments.dropout
    return model, prepared, data, labels


def read_csv(path: str, names: Sequence[str] | None = None) -> Any:
    """A labelled dataset from a CSV file of texts; ``names`` of the labels, by default its own. ValueError, OSError."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    _, texts, labels = zip(*(rows := csv_rows(Path(path))), strict=True)
    names = names or sorted(set(labels))
    if len(names) < 2:
        raise ValueError(f"all texts in {path} have the label {labels[0]!r}: there is nothing to learn")
    for line, _, label in rows:
        if label not in names:
            raise ValueError(f"{path}, line {line} has the label {label!r}: expected one of {', '.join(names)}")
    return make_dataset(texts, labels, names)


def save(arguments: argparse.Namespace, prepared: nn.Module, labels: list[str]) -> Path:
    """Save what was trained."""
    if arguments.method == "adapter":
        return save_adapter(prepared, arguments.save)
    from safetensors.torch import save_file

    tensors = {n: p.detach().cpu().contiguous() for n, p in prepared.named_parameters() if p.requires_grad}
    about = {name: str(getattr(arguments, name)) for name in ("method", "base", "task")}
    path = Path(arguments.save) / f"{arguments.method}.safetensors"
    write_atomically(path, lambda to: save_file(tensors, to, metadata={**about, "labels": json.dumps(labels)}))
    return path


def peak_memory() -> int:
    """The most memory that this process has had, in bytes; that of the GPU, if it computes on one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
