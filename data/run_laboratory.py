"""The sweeps of lesson 06 with three seeds: `python data/run_laboratory.py` writes data/results/laboratory.json.

Every run is one that the laboratory can do. A run that is already in the file is not run again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from run_experiments import RESULTS, SEEDS, read  # type: ignore[import-not-found]

from adapters_lesson.course.laboratory.experiments import SWEEPS, run_experiment
from adapters_lesson.guards.safe_files import write_atomically


def main(path: Path) -> None:
    """Run what is missing, writing the file after every run."""
    header = {
        "command": "python data/run_laboratory.py",
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    rows: dict[str, Any] = read(path)["rows"]
    for seed in SEEDS:
        for name, sweep in SWEEPS.items():
            row = rows.setdefault(name, {"knob": sweep.knob, "base": sweep.base.differences(), "runs": []})
            for settings in sweep.settings([seed]):
                value = json.loads(json.dumps(getattr(settings, sweep.knob)))  # as the file has it: a list for a tuple
                if any(run["value"] == value and run["seed"] == seed for run in row["runs"]):
                    continue
                run = run_experiment(settings)
                row["runs"].append(
                    {
                        "value": value,
                        "seed": seed,
                        "trainable": run.trainable,
                        "accuracy": run.accuracy,
                        "stopped": run.history.stopped,
                        "seconds": round(run.history.seconds, 1),
                    }
                )
                write(path, {**header, "rows": rows})
                print(f"{name}: {sweep.knob} = {value}, seed {seed}: {run.accuracy:.3f}", flush=True)


def write(path: Path, results: dict[str, Any]) -> None:
    """The results so far, as JSON."""
    text = json.dumps(results, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main(RESULTS / "laboratory.json")
