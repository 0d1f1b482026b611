"""The command `python -m adapters_lesson.train`: from a task and a base model to a saved adapter and a report."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .adapter import PLACEMENTS
from .distributed import TIMEOUT, counted_traffic, make_accelerator
from .files import PretrainedFileError
from .history import History
from .jobs import Job, job_of, report_of, write
from .methods import METHODS, trainable
from .tasks import TASKS

ALIASES = {name.removeprefix("aspect_"): name for name in TASKS}
DESCRIPTION = "Train one method on one task, on this process alone or on all that `accelerate launch` started."
EPILOG = """\
On two processes of a machine without a GPU, or on all GPUs of a machine that has several:
  accelerate launch --multi_gpu --num_processes 2 --main_process_port 0 -m adapters_lesson.train [the same options]
On two machines, on each of them with its own rank (0, 1):
  accelerate launch --multi_gpu --num_processes 2 --num_machines 2 --machine_rank RANK --main_process_ip ADDRESS
      --main_process_port 29500 -m adapters_lesson.train [the same options]
--batch-size counts the texts of all processes together, so the result is that of one process, but for rounding and
dropout. (accelerate's own --cpu starts one process, whatever --num_processes says.)

Exit status: 0 when the run went to its end, 1 when it went wrong, 2 when it was refused, 130 after Ctrl-C; what had
been learnt until then is saved."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    try:
        check(arguments)
        accelerator = make_accelerator(arguments.timeout)
        job = job_of(arguments)
    except (ValueError, OSError, PretrainedFileError) as error:
        return refuse(error)
    say = print if accelerator.is_main_process and not arguments.quiet else lambda *_: None
    if alone_by_mistake(accelerator):
        print("train: accelerate started one process only; for several, --multi_gpu instead of --cpu", file=sys.stderr)
    processes = f"{accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}"
    say(f"{arguments.task}: {len(job.train):,} rows, {arguments.base}, {arguments.method}, {processes}")
    say(trainable(job.model))
    try:
        with counted_traffic() as traffic:
            start = time.perf_counter()
            history = run(arguments, job, accelerator)
            seconds = time.perf_counter() - start
    except ValueError as error:
        return refuse(error)
    if history.validation:
        last = history.validation[-1]
        say(f"validation after {last['step']} steps: loss {last['loss']:.4f}, accuracy {last['accuracy']:.4f}")
    report = report_of(arguments, job, accelerator, history, traffic, seconds)
    say(
        f"{history.steps} steps in {seconds:.1f} s, {1000 * report['seconds_per_step']:.0f} ms a step, "
        f"{report['exchanged_bytes_per_step']:,.0f} bytes of gradients exchanged at each"
    )
    if accelerator.is_main_process:
        write(arguments, job, report, say)
    accelerator.end_training()
    if history.stopped and not history.stopped.startswith("no better"):
        print(f"train: {history.stopped}", file=sys.stderr)
        return 130 if history.stopped == "interrupted" else 1
    return 0


def run(arguments: argparse.Namespace, job: Job, accelerator: Any) -> History:
    """The training itself."""
    from .training import train

    return train(
        job.model, job.train, job.validation,
        epochs=arguments.epochs, steps=arguments.steps, validate_every=arguments.validate_every,
        batch_size=arguments.batch_size, learning_rate=arguments.learning_rate, weight_decay=arguments.weight_decay,
        warmup=arguments.warmup, patience=arguments.patience, seed=arguments.seed, checkpoint=arguments.checkpoint,
        accelerator=accelerator, progress=not arguments.quiet,
    )  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _OneSentence("python -m adapters_lesson.train", description=DESCRIPTION, epilog=EPILOG,
                        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = made.add_argument_group("what is learnt").add_argument
    add("--task", default="aspect_sentiment", help=f"{', '.join(ALIASES)}; answers, for a language model; or a "
        "CSV file with the columns text and label (default: %(default)s)")  # fmt: skip
    add("--validation", metavar="FILE", help="a CSV file to validate on, for a task that is one")
    add("--max-length", type=_whole, default=128, metavar="N", help="cut texts to N tokens (default: %(default)s)")
    add("--pack", type=_whole, metavar="N", help="answers only: put dialogues together into rows of N tokens")
    add = made.add_argument_group("the model").add_argument
    add("--base", default="minilm:6", help="minilm:LAYERS, 1 to 6 of them, or smollm2 (default: %(default)s)")
    add(
        "--method", default="adapter", choices=METHODS, help=f"{', '.join(METHODS)} (default: %(default)s)", metavar="M"
    )
    add("--bottleneck", type=_whole, default=16, metavar="N", help="the adapters' width m (default: %(default)s)")
    add("--placement", default="houlsby", choices=PLACEMENTS, help="%(choices)s (default: %(default)s)", metavar="P")
    add("--dropout", type=_share, metavar="X", help="of all that is trained (default: the model's own)")
    add("--lora-rank", type=_whole, default=8, metavar="N", help="(default: %(default)s)")
    add = made.add_argument_group("the run").add_argument
    add("--epochs", type=_whole, default=4, metavar="N", help="(default: %(default)s)")
    add("--steps", type=_whole, metavar="N", help="that many steps instead of whole epochs")
    add("--batch-size", type=_whole, default=32, metavar="N", help="of all processes together (default: %(default)s)")
    add("--learning-rate", type=_above_zero, metavar="X", help="(default: 3e-3, for full fine-tuning 1e-4)")
    add("--weight-decay", type=_share, default=0.01, metavar="X", help="(default: %(default)s)")
    add("--warmup", type=_share, default=0.1, metavar="X", help="share of the steps (default: %(default)s)")
    add("--validate-every", type=_whole, metavar="N", help="that many steps instead of each epoch")
    add("--patience", type=_whole, metavar="N", help="stop after N validations without a better loss, and go back")
    add("--seed", type=_seed, default=0, metavar="N", help="(default: %(default)s)")
    add("--checkpoint", metavar="FILE", help="write it now and then, and go on from it when it is there")
    add = made.add_argument_group("what comes out").add_argument
    add("--save", metavar="FOLDER", help="the adapters, for load_adapter(model, FOLDER); with another method FOLDER/"
        "METHOD.safetensors, all that was trained")  # fmt: skip
    add("--report", metavar="FILE", help="history, time, memory and bytes exchanged, as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--timeout", type=_above_zero, default=TIMEOUT, metavar="S", help="give up when the other processes say "
        "nothing for so many seconds (default: %(default)s)")  # fmt: skip
    return made


def check(arguments: argparse.Namespace) -> None:
    """Complete the arguments, and raise ValueError where one does not fit another."""
    arguments.task = ALIASES.get(arguments.task, arguments.task)
    is_file, is_language = arguments.task.endswith(".csv"), arguments.task == "answers"
    if not (is_file or is_language or arguments.task in TASKS):
        raise ValueError(
            f"there is no task {arguments.task!r}: {', '.join(ALIASES)}, answers, or a file ending in .csv"
        )
    family, _, layers = arguments.base.partition(":")
    if family == "minilm":
        if (layers or "6") not in [str(n) for n in range(1, 7)]:
            raise ValueError(f"MiniLM has 6 layers: --base minilm:1 to minilm:6, not {arguments.base}")
    elif arguments.base != "smollm2":
        raise ValueError(f"there is no base model {arguments.base!r}: minilm:LAYERS or smollm2")
    if is_language != (arguments.base == "smollm2"):
        raise ValueError(f"--task answers and --base smollm2 go together, not {arguments.task} with {arguments.base}")
    if arguments.pack and not is_language:
        raise ValueError("--pack is for --task answers: a text with a label of its own needs a row of its own")
    if arguments.validation and not is_file:
        raise ValueError(f"the task {arguments.task} has its own validation texts: --validation is for CSV files")
    for option in ("save", "report", "checkpoint"):
        if (path := getattr(arguments, option)) is not None:
            _check_writable(f"--{option}", Path(path), folder=option == "save")
    if arguments.learning_rate is None:
        arguments.learning_rate = 1e-4 if arguments.method == "full" else 3e-3


def _check_writable(option: str, path: Path, folder: bool) -> None:
    """Better now than after the training."""
    if path.is_file() if folder else path.is_dir():
        raise ValueError(f"{option} {path} is a {'file, not a folder' if folder else 'folder, not a file'}")
    place = path if path.is_dir() else next(p for p in path.absolute().parents if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written: {place} is no folder in which you may write")


def alone_by_mistake(accelerator: Any) -> bool:
    """Whether several processes were wanted, going by what accelerate's launcher leaves, and this is the only one."""
    return accelerator.num_processes == 1 and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ


def refuse(error: Exception) -> int:
    """Say, once on each machine, why not."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"train: {error}", file=sys.stderr)
    return 2


class _OneSentence(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(refuse(ValueError(message)))


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**53:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        if math.isfinite(value := float(text)) and value > 0:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def _share(text: str) -> float:
    try:
        if 0 <= (value := float(text)) <= 1:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
