"""Experiments of one's own: settings go in, a run comes out, a folder keeps it. The laboratory is a view of this."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs import memory_ledger
from adapters_lesson.data import TASKS, encode, load_task, load_tokenizer
from adapters_lesson.guards.config_guard import check_choice, check_whole
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.history import History
from adapters_lesson.methods import METHODS, prepare
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.runs import settings as training
from adapters_lesson.training import train
from adapters_lesson.transformer import Classifier, SmallTransformer

VALIDATION_TEXTS, VALIDATE_EVERY = 250, 25
ADAPTER = ("placement", "bottleneck_dim", "activation", "init", "train_layer_norms", "layers")
# What the laboratory has a knob for, and its table a column, in this order.
KNOBS = (
    "task", "base_layers", "method", *ADAPTER[:4], "init_std", *ADAPTER[4:],
    "learning_rate", "steps", "batch_size", "seed",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Settings(training.Settings):
    """All that decides how a run goes: the settings of ``train``, and what is trained on what.

    The base model has the lowest ``base_layers`` of MiniLM, 1 to 6. From ``placement`` on the settings are those of
    ``AdapterConfig``: other methods ignore them, and init "zero" ignores init_std. Raises ValueError for a setting that
    makes no sense; the message says what is allowed.
    """

    steps: int | None = 200
    validate_every: int | None = VALIDATE_EVERY
    task: str = "aspect_sentiment"
    base_layers: int = 3
    method: str = "adapter"
    placement: str = "houlsby"
    bottleneck_dim: int = 16
    activation: str = "gelu"
    init: str = "zero"
    init_std: float = 0.01
    train_layer_norms: bool = False
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("task", self.task, TASKS)
        check_choice("method", self.method, METHODS)
        vars(self)["base_layers"] = check_whole("base_layers", self.base_layers)
        if self.base_layers > 6:
            raise ValueError(f"MiniLM has 6 layers: base_layers must be 1 to 6, not {self.base_layers}")
        if self.layers is not None:
            vars(self)["layers"] = tuple(self.layers)
            if any(layer not in range(self.base_layers) for layer in self.layers):
                allowed = f"use 0 to {self.base_layers - 1}"
                raise ValueError(f"layers={self.layers}, but the base has {self.base_layers}: {allowed}")
        self.config()

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.knobs().items())})"

    def knobs(self) -> dict[str, Any]:
        """What the laboratory's knobs say."""
        return {name: getattr(self, name) for name in KNOBS}

    def differences(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {name: value for name, value in self.knobs().items() if value != getattr(Settings, name)}

    def config(self) -> AdapterConfig | None:
        """The adapters of the run; None for a method without."""
        std = None if self.init == "zero" else self.init_std
        config = AdapterConfig(**{name: getattr(self, name) for name in ADAPTER}, init_std=std)
        return config if self.method == "adapter" else None  # what makes no sense is refused in any case

    def snippet(self) -> str:
        """The run as a Python program."""
        config, prepared = self.config(), repr(self.method)
        if config is not None:
            given, usual = asdict(config), asdict(AdapterConfig(self.bottleneck_dim + 1))  # the width is always said
            said = [f"{name}={value!r}" for name, value in given.items() if value != usual[name]]
            prepared += f", AdapterConfig({', '.join(said)})"
        return f"""import torch

from adapters_lesson import {"AdapterConfig, " if config else ""}Classifier, SmallTransformer
from adapters_lesson import encode, load_task, load_tokenizer, prepare, train

data = encode(load_task({self.task!r}), load_tokenizer())
torch.manual_seed({self.seed})
model = Classifier(SmallTransformer.from_minilm({self.base_layers}), data["train"].features["label"].num_classes)
print(prepare(model, {prepared}))
history = train(
    model,
    data["train"],
    data["validation"].select(range({VALIDATION_TEXTS})),
    steps={self.steps},
    validate_every={VALIDATE_EVERY},
    batch_size={self.batch_size},
    learning_rate={self.learning_rate!r},
    seed={self.seed},
)
print(f"validation accuracy {{history.accuracy:.3f}}")
"""


@dataclass(frozen=True)
class Sweep:
    """One setting, ``knob``, takes several values, while the others stay as they are in ``base``."""

    knob: str
    values: tuple[Any, ...]
    base: Settings = Settings()

    def __post_init__(self) -> None:
        check_choice("knob", self.knob, KNOBS)
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"give at least one value, and each only once, not {self.values}")
        self.settings()

    def settings(self, seeds: Iterable[int] | None = None) -> list[Settings]:
        """The settings of every run: each value once for each of the ``seeds``, by default for the one of ``base``."""
        seeds = [self.base.seed] if seeds is None else seeds
        return [replace(self.base, **{"seed": seed, self.knob: value}) for seed in seeds for value in self.values]


# The questions of lesson 06. `python data/run_laboratory.py` runs them with three seeds.
SWEEPS = {
    "width": Sweep("bottleneck_dim", (1, 2, 4, 8, 16, 32, 64, 128)),
    "placement": Sweep("placement", tuple(PLACEMENTS)),
    "init": Sweep("init_std", (1e-4, 1e-3, 1e-2, 1e-1, 3e-1, 1.0), Settings(init="houlsby")),
    "rate": Sweep("learning_rate", (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    "width, higher rate": Sweep("bottleneck_dim", (1, 2, 4, 8, 16), Settings(learning_rate=1e-2)),
    "fair places": Sweep("bottleneck_dim", (16, 32), Settings(placement="pfeiffer")),
    # How long runs take
    "one block": Sweep("layers", ((0,), (1,), (2,))),
    "more steps": Sweep("steps", (200, 400), Settings(bottleneck_dim=2)),
    # The guided experiments: each on a task or a base that no earlier lesson has shown
    "agreement": Sweep("bottleneck_dim", (4, 16), Settings(task="aspect_agreement")),
    "depth": Sweep("base_layers", (1, 2, 3)),
    "no activation": Sweep("activation", ("gelu", "identity"), Settings(task="aspect_agreement")),
    "half the steps": Sweep("steps", (100, 200), Settings(base_layers=2)),
}


@dataclass(frozen=True)
class Run:
    """One finished run."""

    settings: Settings
    history: History
    trainable: int  # parameters without the head's, which every method trains
    number: int = 0  # by which it is called, counted from 1; 0 before it is kept

    @property
    def accuracy(self) -> float:
        """The last validation accuracy, in [0, 1]."""
        return self.history.accuracy


def run_experiment(
    settings: Settings, on_step: Callable[[History], None] | None = None, check: Callable[[], None] = lambda: None
) -> Run:
    """Prepare a model and train it, as ``settings.snippet()`` does; the process's random numbers stay as they were.

    ``on_step`` is called with the history after every step, ``check`` before every forward pass, also while validating:
    it may raise KeyboardInterrupt to stop the run. Raises MemoryError where a step would need more than is free.
    """
    data = encoded(settings.task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        base = SmallTransformer.from_minilm(settings.base_layers)
        model = Classifier(base, data["train"].features["label"].num_classes)
        trainable = prepare(model, settings.method, settings.config()).without_head
        ledger = memory_ledger(model, settings.batch_size, max(map(len, data["train"]["input_ids"])))
        needed, free = ledger.peak - ledger.weights, psutil.virtual_memory().available  # the weights are there already
        if needed > 0.8 * free:
            raise MemoryError(
                f"a step would need {needed / 1e9:.2g} GB and {free / 1e9:.2g} GB are free: choose another method, "
                "fewer layers or a smaller batch, or close other notebooks"
            )
        model.register_forward_pre_hook(lambda *_: check())
        history = train(model, data["train"], data["validation"], settings, progress=False, on_step=on_step)
    return Run(settings, history, trainable)


@cache
def encoded(task: str) -> Any:
    """The task's training texts, and the validation texts that a run looks at, as token numbers."""
    data = encode(load_task(task), load_tokenizer())
    data["validation"] = data["validation"].select(range(VALIDATION_TEXTS))
    return data


@cache
def warm_up() -> None:
    """Do once what the first run of a process would wait for: read the data, let torch import its optimisers."""
    run_experiment(Settings(base_layers=1, steps=1))


class RunBook:
    """The runs by number, each a JSON file in a folder, where another kernel finds them again.

    The folder is ``runs`` beside the notebook, or what the variable ADAPTERS_LESSON_RUNS says. ``unreadable`` are files
    there that are no runs, and are left alone; ``trouble`` says why the last run could not be written, "" if it was.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or os.environ.get("ADAPTERS_LESSON_RUNS") or "runs")
        self.runs: dict[int, Run] = {}
        self.unreadable: list[str] = []
        self.trouble = ""
        for path in sorted(self.folder.glob("run-*.json")):
            try:
                content, number = json.loads(path.read_text(encoding="utf-8")), int(path.stem.removeprefix("run-"))
                settings, history = Settings(**content["settings"]), History(**content["history"])
                self.runs[number] = Run(settings, history, int(content["trainable"]), number)
            except (ValueError, TypeError, KeyError, OSError):  # noqa: PERF203  one bad file must not hide the others
                self.unreadable.append(path.name)

    def add(self, run: Run) -> Run:
        """Number the run, as no other kernel does, and write it; else it is kept here, and ``trouble`` says why."""
        self.trouble = ""
        content = {"settings": run.settings.knobs(), "trainable": run.trainable, "history": asdict(run.history)}
        text, number = json.dumps(content) + "\n", 1 + max(self.runs, default=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".runs.lock"):
                taken = re.findall(r"run-(\d+)\.json", " ".join(path.name for path in self.folder.iterdir()))
                number = max([number, *(1 + int(other) for other in taken)])
                write_atomically(self._path(number), lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            lost = f"{self.folder} takes no file ({error.strerror})"
            self.trouble = f"run {number} is kept until the kernel ends: {lost}"
        self.runs[number] = replace(run, number=number)
        return self.runs[number]

    def delete(self, numbers: Iterable[int]) -> None:
        """Remove these runs, and their files."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
            self.runs.pop(number, None)

    def csv(self) -> str:
        """All runs as a table with one column for each setting."""
        names = ["number", *KNOBS, "trainable", "accuracy", "loss", "steps_taken", "seconds", "stopped"]
        rows: list[list[Any]] = [names]
        for number, run in self.runs.items():
            of, last = run.history, run.history.loss[-1] if run.history.loss else math.nan
            result = (run.trainable, run.accuracy, last, of.steps, round(of.seconds, 2), of.stopped)
            rows.append([number, *run.settings.knobs().values(), *result])
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator="\n").writerows(rows)
        return file.getvalue()

    def _path(self, number: int) -> Path:
        return self.folder / f"run-{number:04d}.json"
