"""The record of one training run."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .data import DATA
from .guards.safe_files import PretrainedFileError, write_atomically

RESULTS = DATA / "results"


@dataclass
class History:
    """What happened in a run, step by step; plain numbers, so that it can be saved as JSON."""

    settings: dict[str, Any]  # the arguments of ``train``, the seed among them
    trainable: int = 0  # how many parameters were trained
    loss: list[float] = field(default_factory=list)  # of every training step, as the next
    learning_rate: list[float] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)  # after each epoch {"step", "loss", "accuracy"}
    seconds: float = 0.0  # spent on training steps, validation not included
    stopped: str = ""  # why it did not go to its end

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.loss)

    @property
    def accuracy(self) -> float:
        """The last validation accuracy, as ``evaluate`` says what it is; not a number if there was none."""
        return self.validation[-1]["accuracy"] if self.validation else float("nan")

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read what ``save`` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def load_results(name: str) -> dict[str, Any]:
    """The committed results of a script in ``data``. Raises PretrainedFileError when there are none of that name."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        scripts = (script for verb in ("run", "make", "bake") if (DATA / (script := f"{verb}_{name}.py")).exists())
        command = next(scripts, f"run_experiments.py {name}")
        raise PretrainedFileError(f"{path} is missing: python data/{command} makes it")
    return json.loads(path.read_text(encoding="utf-8"))
