"""The sweeps of lesson 06 with three seeds: `python data/run_laboratory.py` writes data/results/laboratory.json.

Every run is one that the laboratory can do. A run that is already in the file is not run again, nor one that another
sweep has: two of them may meet in one setting.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from run_experiments import RESULTS, SEEDS, read  # type: ignore[import-not-found]

from adapters_lesson.course.laboratory.experiments import SWEEPS, Run, Settings, run_experiment
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
                found = elsewhere(rows, settings) or outcome(run_experiment(settings))
                row["runs"].append({"value": value, "seed": seed, **found})
                write(path, {**header, "rows": rows})
                print(f"{name}: {sweep.knob} = {value}, seed {seed}: {found['accuracy']:.3f}", flush=True)


def outcome(run: Run) -> dict[str, Any]:
    """What the file says of a run."""
    return {
        "trainable": run.trainable,
        "accuracy": run.accuracy,
        "stopped": run.history.stopped,
        "seconds": round(run.history.seconds, 1),
    }


def elsewhere(rows: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What the file says of a run with these settings in any of its sweeps; nothing where there is none."""
    for name, sweep in SWEEPS.items():
        for run in rows.get(name, {"runs": []})["runs"]:
            value = tuple(run["value"]) if isinstance(run["value"], list) else run["value"]
            if replace(sweep.base, **{sweep.knob: value, "seed": run["seed"]}) == settings:
                return {key: run[key] for key in ("trainable", "accuracy", "stopped", "seconds")}
    return {}


def write(path: Path, results: dict[str, Any]) -> None:
    """The results so far, as JSON."""
    text = json.dumps(results, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main(RESULTS / "laboratory.json")
