"""The record of one training run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .files import PretrainedFileError, write_atomically

RESULTS = Path(__file__).parents[1] / "data" / "results"


@dataclass
class History:
    """What happened in a run, step by step; plain numbers, so that it can be saved as JSON.

    Attributes:
        settings: the arguments of ``train``, the seed among them.
        trainable: how many parameters were trained.
        loss: training loss of every step.
        learning_rate: learning rate of every step.
        validation: after each epoch ``{"step", "loss", "accuracy"}``.
        seconds: time spent on training steps, validation not included.
        stopped: "" for a run that went to its end, else why it did not.
    """

    settings: dict[str, Any]
    trainable: int = 0
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = ""

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.loss)

    @property
    def accuracy(self) -> float:
        """The last validation accuracy; not a number if there was none."""
        return self.validation[-1]["accuracy"] if self.validation else float("nan")

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read what ``save`` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def load_results(name: str) -> dict[str, Any]:
    """The committed results of a script in ``data``, with the command that made them.

    Raises:
        PretrainedFileError: when there are none of that name.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        own = path.parents[1] / f"run_{name}.py"
        command = f"data/{own.name}" if own.exists() else f"data/run_experiments.py {name}"
        raise PretrainedFileError(f"{path} is missing: python {command} makes it")
    return json.loads(path.read_text(encoding="utf-8"))
