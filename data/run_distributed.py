"""What two processes exchange: `python data/run_distributed.py` writes data/results/distributed.json.

Full fine-tuning and adapters on aspect sentiment with MiniLM's six layers, batches of 32 texts, dropout off, one thread
for each process; on one process and on two of the same machine, that is, over its loopback interface. Every run is
`python -m adapters_lesson train`. A longer and a shorter run differ by steps only, so their difference in what the
loopback interface has carried is that of the steps; nothing else should use it meanwhile. `--quick` only tries the
machinery and writes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from adapters_lesson.costs.traffic import ring_bytes
from adapters_lesson.guards.safe_files import write_atomically

RESULT = Path(__file__).parent / "results" / "distributed.json"
QUICK = "--quick" in sys.argv[1:]
STEPS = (2, 4) if QUICK else (10, 40)
LAYERS = 1 if QUICK else 6
METHODS = {"full": "1e-4", "adapter": "3e-3"}  # and their learning rates
LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no"


def run(method: str, processes: int, steps: int, folder: Path) -> dict[str, Any]:
    """One run's report, with the bytes that the loopback interface carried and the file of what was trained."""
    saved, report = folder / f"{method} {processes} {steps}", folder / "report.json"
    launch = f"{LAUNCH} --num_processes {processes} --main_process_port 0".split() if processes > 1 else []
    command = [sys.executable, *launch, "-m", "adapters_lesson", "train", "--task", "sentiment", "--quiet"]
    command += ["--base", f"minilm:{LAYERS}", "--method", method, "--dropout", "0", "--steps", str(steps)]
    command += ["--learning-rate", METHODS[method], "--save", str(saved), "--report", str(report)]
    before = loopback_bytes()
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    carried = loopback_bytes() - before
    (tensors,) = saved.rglob("*.safetensors")
    return {**json.loads(report.read_text()), "loopback": carried, "tensors": load_file(tensors)}


def loopback_bytes() -> int:
    """Bytes that the loopback interface has carried since the machine started, headers included (Linux)."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split()[1])


def measure(method: str, folder: Path) -> dict[str, Any]:
    """One row: one process beside two."""
    short, long = STEPS
    alone, first, shared = run(method, 1, long, folder), run(method, 2, short, folder), run(method, 2, long, folder)
    gradients = shared["gradient_bytes"]
    apart = max((alone["tensors"][n] - value).abs().max().item() for n, value in shared["tensors"].items())
    scores = [report["history"]["validation"][-1] for report in (alone, shared)]
    return {
        "trainable": shared["history"]["trainable"],
        "predicted_bytes": gradients,
        "exchanged_bytes": shared["exchanged_bytes_per_step"],
        "predicted_sent_bytes": ring_bytes(gradients, 2),
        "loopback_bytes": (shared["loopback"] - first["loopback"]) / (long - short),
        "seconds_per_step": {"1": round(alone["seconds_per_step"], 4), "2": round(shared["seconds_per_step"], 4)},
        "peak_memory_bytes": {"1": alone["peak_memory_bytes"], "2": shared["peak_memory_bytes"]},
        "largest_difference": apart,
        "validation_loss": {"1": scores[0]["loss"], "2": scores[1]["loss"]},
        "validation_accuracy": {"1": scores[0]["accuracy"], "2": scores[1]["accuracy"]},
        "loss_difference": max(
            abs(a - b) for a, b in zip(alone["history"]["loss"], shared["history"]["loss"], strict=True)
        ),
    }


def main() -> None:
    """Measure both methods and write the file."""
    results: dict[str, Any] = {
        "command": "python data/run_distributed.py", "torch": torch.__version__.partition("+")[0],
        "accelerate": version("accelerate"), "cores": os.cpu_count(), "threads": 1, "layers": LAYERS,
        "steps": STEPS[1], "batch_size": 32, "seed": 0, "rows": {},
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        for method in METHODS:
            results["rows"][method] = row = measure(method, Path(folder))
            print(f"{method}: {json.dumps(row, indent=1)}", flush=True)
    if not QUICK:
        text = json.dumps(results, indent=1) + "\n"
        write_atomically(RESULT, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
