"""The options of `train`, and whether they make sense together."""

import argparse
import re
from dataclasses import fields
from pathlib import Path

from adapters_lesson.data import TASKS
from adapters_lesson.guards.plain_values import check_whole
from adapters_lesson.guards.safe_files import check_writable
from adapters_lesson.methods import METHODS
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.runs.distributed import TIMEOUT
from adapters_lesson.runs.settings import Settings

from .own.bases import MINILM
from .own.run_report import BEGINNINGS
from .own.saved_run import check_free, check_replaced
from .own.tables import COLUMNS, KINDS

ALIASES = {name.removeprefix("aspect_"): name for name in TASKS}
OF_ONE_METHOD = (("bottleneck", "adapter", 16), ("placement", "adapter", "houlsby"), ("lora_rank", "lora", 8))
FILES = f"a file ({', '.join(KINDS)}) or a folder of one's own"
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
    add("--task", default="aspect_sentiment", help=f"{', '.join(ALIASES)}; answers, for a language model; or {FILES} "
        "with one each for train, validation and test, or what save_to_disk wrote (default: %(default)s)")  # fmt: skip
    add("--validation", metavar="FILE", help="a file to validate on, for a task that is one")
    for name in COLUMNS:
        add(f"--{name}-column", metavar="NAME", help=f"the column of the {name}s (default: {name})")
    add("--max-length", type=int, metavar="N", help="cut texts to N tokens (default: 128, or what the model reads)")
    add("--pack", type=int, metavar="N", help="answers only: put dialogues together into rows of N tokens")
    add = parser.add_argument_group("the model").add_argument
    add("--base", default="minilm:6", help="minilm:LAYERS, 1 to 6 of them; smollm2; or a model of transformers, by its "
        "folder or its name on the hub, which needs the network once (default: %(default)s)")  # fmt: skip
    add("--architecture", metavar="FILE", help="JSON with the fields of an Architecture, for a model that is not in "
        "the table")  # fmt: skip
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
    add("--seeds", type=int, nargs="+", metavar="N", help="a run for each, in place of --seed; the first is saved")
    add = parser.add_argument_group("what comes out").add_argument
    add("--save", metavar="FOLDER", help="what was trained, for predict FOLDER, with a model card; adapters also for "
        "load_adapter(model, FOLDER)")  # fmt: skip
    add("--report", metavar="FILE", help="history, answers, time, memory and bytes exchanged: as a page if its name "
        "ends in .html, else as JSON")  # fmt: skip
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--timeout", type=float, default=TIMEOUT, metavar="S", help="give up when the other processes say "
        "nothing for so many seconds (default: %(default)s)")  # fmt: skip


def check(arguments: argparse.Namespace) -> Settings:
    """Complete the arguments, and raise ValueError where one makes no sense or does not fit another."""
    given = {f.name: value for f in fields(Settings) if (value := vars(arguments).pop(f.name)) is not None}
    if arguments.seeds is not None:
        if other := sorted({"seed", "checkpoint"} & given.keys()):
            raise ValueError(f"--seeds is several runs, and --{other[0]} belongs to one: leave one of them out")
        given["seed"] = arguments.seeds[0]
        if len(set(arguments.seeds)) < len(arguments.seeds) or min(arguments.seeds) < 0:
            raise ValueError(f"--seeds must be different whole numbers of at least 0, not {arguments.seeds}")
    settings = Settings(**{"learning_rate": 1e-4 if arguments.method == "full" else 3e-3, **given})
    arguments.seeds = arguments.seeds or [settings.seed]
    for name, least in (("max_length", 3), ("pack", 1), ("lora_rank", 1)):
        if getattr(arguments, name) is not None:
            check_whole(f"--{name.replace('_', '-')}", getattr(arguments, name), least)
    if arguments.dropout is not None and not 0 <= arguments.dropout <= 1:
        raise ValueError(f"--dropout must be from 0 to 1, not {arguments.dropout}")
    for name, method, default in OF_ONE_METHOD:
        option = f"--{name.replace('_', '-')}"
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
        elif arguments.method != method:
            raise ValueError(f"{option} is for --method {method}, and does nothing with --method {arguments.method}")
    task = arguments.task = ALIASES.get(arguments.task, arguments.task)
    table = Path(task).suffix.lower() in KINDS
    own = table or (task not in (*TASKS, "answers") and Path(task).expanduser().is_dir())
    if not own and task not in (*TASKS, "answers"):
        if Path(task).expanduser().is_file():
            raise ValueError(f"{task} is no table, its name must end in {', '.join(KINDS)}: save its texts in one")
        raise ValueError(f"there is no task {task!r}: {', '.join(ALIASES)}, answers, or {FILES}")
    if arguments.base.startswith("minilm:") and not MINILM.fullmatch(arguments.base):
        what = "minilm:1 to minilm:6 (layers), or smollm2, or a model's folder"
        raise ValueError(f"there is no base model {arguments.base!r}: {what}")
    if (task == "answers") != (arguments.base == "smollm2"):
        raise ValueError(f"--task answers and --base smollm2 go together, not {task} with {arguments.base}")
    if arguments.pack and task != "answers":
        raise ValueError("--pack is for --task answers: a text with a label of its own needs a row of its own")
    if arguments.validation and not table:
        where = "a folder has a file for it" if own else f"the task {task} has its own validation texts"
        raise ValueError(f"{where}: --validation is for a task that is one file")
    for name in COLUMNS:
        if getattr(arguments, f"{name}_column") is None:
            setattr(arguments, f"{name}_column", name)
        elif not own:
            raise ValueError(f"--{name}-column is for {FILES}, and {task} has its own")
    if arguments.text_column == arguments.label_column:
        raise ValueError(f"--text-column and --label-column are both {arguments.text_column!r}: name two columns")
    for option in ("save", "report"):
        if (path := getattr(arguments, option)) is not None:
            check_writable(f"--{option}", Path(path), folder=option == "save")
    if arguments.report:
        check_replaced("--report", Path(arguments.report), BEGINNINGS)
    if arguments.save:
        check_free(Path(arguments.save), arguments.method)
    return settings
