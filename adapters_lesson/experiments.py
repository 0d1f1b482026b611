"""Experiments of one's own: settings go in, a run comes out. The laboratory is a view of this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch

from .adapter import PLACEMENTS, AdapterConfig, check_choice
from .history import History
from .methods import METHODS, prepare
from .tasks import TASKS, encode, load_task
from .training import train
from .transformer import Classifier, SmallTransformer

VALIDATION_TEXTS, VALIDATE_EVERY = 250, 25
_ADAPTER = ("placement", "bottleneck_dim", "activation", "init", "train_layer_norms", "layers")


@dataclass(frozen=True)
class Settings:
    """All that decides how a run goes. On the same machine the same settings give the same run.

    Attributes:
        base_layers: how many of MiniLM's layers the base model has, 1 to 6.
        placement, bottleneck_dim, activation, init, init_std, train_layer_norms, layers: the adapters' settings (see
            ``AdapterConfig``); other methods ignore them, and init "zero" ignores init_std.
        steps: training steps with batches of ``batch_size`` texts.

    Raises:
        ValueError: for a setting that makes no sense; the message says what is allowed.
    """

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
    learning_rate: float = 3e-3
    steps: int = 200
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("task", self.task, TASKS)
        check_choice("method", self.method, METHODS)
        for name in ("base_layers", "steps", "batch_size"):
            if not isinstance(value := getattr(self, name), int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.base_layers > 6:
            raise ValueError(f"MiniLM has 6 layers: base_layers must be 1 to 6, not {self.base_layers}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, not {self.seed!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be a finite number above 0, not {self.learning_rate!r}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
            if any(layer not in range(self.base_layers) for layer in self.layers):
                raise ValueError(
                    f"layers={self.layers}, but the base has {self.base_layers}: use 0 to {self.base_layers - 1}"
                )
        self.config()

    def config(self) -> AdapterConfig | None:
        """The adapters of the run; None for a method without."""
        chosen = {name: getattr(self, name) for name in _ADAPTER}
        std = None if self.init == "zero" else self.init_std
        config = AdapterConfig(**chosen, init_std=std)
        return config if self.method == "adapter" else None

    def differences(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def snippet(self) -> str:
        """The run as a Python program."""
        config, prepared = self.config(), repr(self.method)
        if config is not None:
            plain = AdapterConfig(bottleneck_dim=self.bottleneck_dim)
            given = [f.name for f in fields(config) if getattr(config, f.name) != getattr(plain, f.name)]
            settings = ", ".join(f"{name}={getattr(config, name)!r}" for name in ["bottleneck_dim", *given])
            prepared += f", AdapterConfig({settings})"
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


KNOBS = tuple(f.name for f in fields(Settings))


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
        """The settings of every run; with ``seeds`` each value once for each of them."""
        values = [replace(self.base, **{self.knob: value}) for value in self.values]
        return values if seeds is None else [replace(one, seed=seed) for seed in seeds for one in values]


# The questions of lesson 06. `python data/run_laboratory.py` runs them with three seeds.
SWEEPS = {
    "width": Sweep("bottleneck_dim", (1, 2, 4, 8, 16, 32, 64, 128)),
    "placement": Sweep("placement", PLACEMENTS),
    "init": Sweep("init_std", (1e-4, 1e-3, 1e-2, 1e-1, 3e-1, 1.0), Settings(init="houlsby")),
    "rate": Sweep("learning_rate", (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    "width, higher rate": Sweep("bottleneck_dim", (1, 2, 4, 8, 16), Settings(learning_rate=1e-2)),
    # What the lesson proposes as experiments of one's own
    "fair places": Sweep("bottleneck_dim", (16, 32), Settings(placement="pfeiffer")),
    "one block": Sweep("layers", ((0,), (1,), (2,))),
    "activation": Sweep("activation", ("gelu", "relu", "identity")),
    "more steps": Sweep("steps", (200, 400), Settings(bottleneck_dim=2)),
    "deeper base": Sweep("bottleneck_dim", (1, 4, 16), Settings(base_layers=4)),
}


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        number: by which it is called, counted from 1; 0 before it is kept.
        trainable: trained parameters without the head's, which every method trains.
    """

    settings: Settings
    history: History
    trainable: int
    number: int = 0

    @property
    def accuracy(self) -> float:
        """The last validation accuracy, in [0, 1]."""
        return self.history.accuracy


def run_experiment(
    settings: Settings,
    on_step: Callable[[History], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Run:
    """Prepare a model and train it, as ``settings.snippet()`` does.

    The random numbers of the process are afterwards as they were before.

    Args:
        on_step: called with the history after every step.
        check: called before every forward pass, also while validating; it may raise KeyboardInterrupt to stop the run.

    Raises:
        MemoryError: when the run would need more memory than is free; nothing has been trained then.
    """
    data = encoded(settings.task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Classifier(
            SmallTransformer.from_minilm(settings.base_layers), data["train"].features["label"].num_classes
        )
        trainable = prepare(model, settings.method, settings.config()).without_head
        check_memory(model, settings.batch_size, max(map(len, data["train"]["input_ids"])))
        model.register_forward_pre_hook(lambda *_: check())
        history = train(
            model,
            data["train"],
            data["validation"],
            steps=settings.steps,
            validate_every=VALIDATE_EVERY,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            progress=False,
            on_step=on_step,
        )
    return Run(settings, history, trainable)


@cache
def encoded(task: str) -> Any:
    """The task's training texts, and the validation texts that a run looks at, as token numbers."""
    from .pretrained import load_tokenizer

    data = encode(load_task(task), load_tokenizer())
    data["validation"] = data["validation"].select(range(VALIDATION_TEXTS))
    return data


@cache
def warm_up() -> None:
    """Do once what the first run of a process would wait for: read the data, let torch import its optimisers."""
    run_experiment(Settings(base_layers=1, steps=1))


def check_memory(model: Classifier, batch_size: int, length: int) -> None:
    """Raise MemoryError unless a training step of ``model`` fits into four fifths of the memory that is free."""
    from .costs import memory_ledger

    ledger = memory_ledger(model, batch_size, length)
    needed, free = ledger.peak - ledger.weights, free_memory()  # the weights are there already
    if needed > 0.8 * free:
        raise MemoryError(
            f"a step would need {needed / 1e9:.2g} GB and {free / 1e9:.2g} GB are free: choose another method, "
            "fewer layers or a smaller batch, or close other notebooks"
        )


def free_memory() -> int:
    """Bytes that can be had without swapping."""
    import psutil

    return psutil.virtual_memory().available
