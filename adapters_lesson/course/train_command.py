"""Train one method on one task, on this process alone or on all that `accelerate launch` started."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn

from adapters_lesson.evaluation import evaluate
from adapters_lesson.guards.safe_files import PretrainedFileError, write_atomically
from adapters_lesson.methods import trainable
from adapters_lesson.runs.distributed import counted_traffic, make_accelerator
from adapters_lesson.runs.settings import Settings
from adapters_lesson.training import train

from .own import inputs, run_report
from .own.saved_run import SavedRun, save_run, save_weights
from .train_options import EPILOG as EPILOG
from .train_options import add_arguments as add_arguments
from .train_options import check

Say = Callable[..., object]


class Trained(NamedTuple):
    """The first seed's model, and the runs of all."""

    model: nn.Module  # what ``train`` took
    prepared: nn.Module  # the model in it, which is saved
    task: inputs.Task
    tokenizer: Any
    saved: SavedRun
    runs: list[run_report.Run]


def run(arguments: argparse.Namespace) -> int:
    """Train and write what was asked for; returns the exit status."""
    command = shlex.join(["python", "-m", "adapters_lesson", *vars(arguments).pop("words", ["train"])])
    try:
        settings = check(arguments)
        accelerator = make_accelerator(arguments.timeout)
        rank, processes = accelerator.process_index, accelerator.num_processes
        say = print if rank == 0 and not arguments.quiet else lambda *_: None
        if processes == 1 and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
            complain("accelerate started one process only; for several, --multi_gpu instead of --cpu")
        trained = train_all(arguments, settings, accelerator, say)
    except (ValueError, OSError, PretrainedFileError) as error:
        complain(error)
        return 2
    from accelerate.utils import gather_object

    peak, stopped = max(gather_object([peak_memory()])), trained.runs[-1].history.stopped
    ended = not stopped or stopped.startswith("no better")
    status = 0 if ended else 130 if stopped == "interrupted" else 1
    try:
        if rank == 0 and (arguments.report or arguments.save):
            about = {"arguments": {**vars(arguments), **settings.record()}, "command": command}
            about |= {"processes": processes, "peak_memory_bytes": peak}
            write(arguments, trained, about, say)
    except (ValueError, OSError) as error:
        where = " or ".join(filter(None, (arguments.report, arguments.save)))
        complain(f"{where} could not be written: {error}" if isinstance(error, OSError) else error)
        status = status or 1
    accelerator.end_training()
    if not ended:
        complain(stopped)
    return status


def train_all(arguments: argparse.Namespace, settings: Settings, accelerator: Any, say: Say) -> Trained:
    """A run for each seed, until one does not come to its end."""
    task, trained = inputs.read(arguments), None
    for seed in arguments.seeds:
        model, prepared = inputs.load(arguments, task.labels, seed)
        if trained is None:
            data, tokenizer = inputs.encoded(arguments, task, prepared)
            saved = inputs.description(arguments, task.labels, prepared)
            trained = Trained(model, prepared, task._replace(data=data), tokenizer, saved, [])
        saved.prepare(prepared)
        for module in model.modules() if arguments.dropout is not None else ():
            if isinstance(module, nn.Dropout):
                module.p = arguments.dropout
        if not trained.runs:
            processes = f"{accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}"
            say(f"{arguments.task}: {len(data['train']):,} rows, {arguments.base}, {arguments.method}, {processes}")
            say(trainable(model))
        start = time.perf_counter()
        with counted_traffic() as buckets:
            options = {"accelerator": accelerator, "progress": not arguments.quiet}
            history = train(model, data["train"], data.get("validation"), replace(settings, seed=seed), **options)
        one = run_report.Run(seed, history, time.perf_counter() - start, sum(buckets))
        if history.validation:
            last = history.validation[-1]
            say("validation after {step} steps: loss {loss:.4f}, accuracy {accuracy:.4f}".format(**last))
        steps = max(1, history.steps)
        each = f"{1000 * history.seconds / steps:.0f} ms a step, {one.exchanged / steps:,.0f} bytes of gradients"
        say(f"{history.steps} steps in {one.seconds:.1f} s, {each} exchanged at each")
        if accelerator.is_main_process and (arguments.report or arguments.save) and task.labels:
            judged = [split for split in ("test", "validation") if split in data][:1]
            one.scores.update({split: evaluate(model, data[split]) for split in judged})
        trained.runs.append(one)
        if history.stopped and not history.stopped.startswith("no better"):
            break
    assert trained is not None  # there is at least one seed
    return trained


def write(arguments: argparse.Namespace, trained: Trained, about: dict[str, Any], say: Say) -> None:
    """The report first: it is there even if the adapter cannot be saved."""
    report = run_report.report_of(trained, about)
    if arguments.report:
        text = run_report.as_text(report, arguments.report)
        write_atomically(arguments.report, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if arguments.save:
        folder = Path(arguments.save)
        entries = {name: str(getattr(arguments, name)) for name in ("method", "base", "task")}
        weights = save_weights(trained.prepared, folder, trained.saved, entries)
        save_run(trained.saved, folder, weights, trained.tokenizer, run_report.card(report))
        say(f"saved in {weights}")


def complain(what: object) -> None:
    """Say it once on each machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"train: {what}", file=sys.stderr)


def peak_memory() -> int:
    """The most memory that this process has had, in bytes; that of the GPU, if it computes on one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
