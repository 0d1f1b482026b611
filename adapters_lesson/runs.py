"""The runs of the laboratory, kept in a folder."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from .experiments import KNOBS, Run, Settings
from .files import write_atomically
from .history import History


class RunBook:
    """The runs in a folder, one JSON file each, written as they finish; another kernel finds them again.

    Args:
        folder: by default ``runs`` beside the notebook, or what the variable ADAPTERS_LESSON_RUNS says.

    Attributes:
        runs: by number, in that order.
        unreadable: names of files in the folder that are no runs; they are left alone.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or os.environ.get("ADAPTERS_LESSON_RUNS") or "runs")
        self.runs: dict[int, Run] = {}
        self.unreadable: list[str] = []
        for path in sorted(self.folder.glob("run-*.json")):
            try:
                run = _read(path)
            except (ValueError, TypeError, KeyError, OSError):  # noqa: PERF203  one bad file must not hide the others
                self.unreadable.append(path.name)
            else:
                self.runs[run.number] = run

    def add(self, run: Run) -> Run:
        """Number the run and write it down."""
        taken = [int(n[1]) for path in self.folder.glob("run-*.json") if (n := re.search(r"run-(\d+)", path.name))]
        run = replace(run, number=1 + max([*taken, *self.runs], default=0))
        text = json.dumps(
            {"settings": asdict(run.settings), "trainable": run.trainable, "history": asdict(run.history)}
        )
        write_atomically(self._path(run.number), lambda path: path.write_text(text + "\n", encoding="utf-8"))
        self.runs[run.number] = run
        return run

    def delete(self, numbers: Iterable[int]) -> None:
        """Remove these runs, and their files."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
            self.runs.pop(number, None)

    def csv(self) -> str:
        """All runs as a table with one column for each setting."""
        names = ["number", *KNOBS, "trainable", "accuracy", "loss", "steps_taken", "seconds", "stopped"]
        with io.StringIO(newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(names)
            for run in self.runs.values():
                history = run.history
                last = history.loss[-1] if history.loss else math.nan
                result = (run.trainable, run.accuracy, last, history.steps, round(history.seconds, 2), history.stopped)
                table.writerow([run.number, *asdict(run.settings).values(), *result])
            return file.getvalue()

    def _path(self, number: int) -> Path:
        return self.folder / f"run-{number:04d}.json"


def _read(path: Path) -> Run:
    content = json.loads(path.read_text(encoding="utf-8"))
    number = int(path.stem.removeprefix("run-"))
    return Run(Settings(**content["settings"]), History(**content["history"]), int(content["trainable"]), number)
