"""`make bench`: our adapters against the library `adapters`, full fine-tuning, LoRA, the bare model and the floor.

MiniLM, Houlsby's adapters with m = 24, the same inputs and the same weights for all. Each contender lives in a process
of its own. They take turns, one at work while the others wait, in an order drawn anew for every round; a ratio is
formed within each round, because a machine's speed drifts. Reported are the median over the rounds and the 10 % and
90 % quantiles. Linux only: the memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contender import BOTTLENECK_DIM, LEARNING_RATE, THEIRS, WEIGHT_DECAY
from results import comparisons, file_name, table

from adapters_lesson.data import minilm_folder
from adapters_lesson.guards.safe_files import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEER = ROOT / ".peer" / "bin" / "python"
RESULTS = ROOT / "data" / "results" / "benchmark"  # a file for each processor

BF16 = "ours_bf16"  # left out where the processor has no instructions for it
TRAINED = ("full", "ours", "ours_dropout", BF16, "lora", "theirs", "theirs_no_dropout")
STEP = (*TRAINED, "floor", "floor_full")
INFERENCE = ("bare", "ours", BF16, "lora", "theirs_bare", "theirs")
LENGTHS, BATCH = (32, 128), 32
# what, batch, length, seconds of a turn (one repetition at least), rounds
POINTS = [
    ("training step", BATCH, 32, 0.4, 11),
    ("training step", BATCH, 128, 0.4, 7),
    ("inference", 1, 32, 0.1, 11),
    ("inference", 1, 128, 0.1, 11),
    ("inference", BATCH, 32, 0.2, 11),
    ("inference", BATCH, 128, 0.2, 9),
]
FRESH_ROUNDS = 2


class Worker:
    """A contender's process and the pipes to it."""

    def __init__(self, name: str, folder: Path, fresh: dict[str, Any] | None = None) -> None:
        self.name, self.began = name, time.monotonic()
        python = str(PEER) if name in THEIRS else sys.executable
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads could fill up
        self.process = subprocess.Popen(
            [python, str(HERE / "contender.py"), name, str(folder)] + ([json.dumps(fresh)] if fresh else []),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self.hello = self.answer()

    def ask(self, **request: Any) -> Any:
        """What the contender answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next line that it writes.

        Raises:
            RuntimeError: when it ended instead, with what it said.
        """
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.close()
        self.said.seek(0)
        raise RuntimeError(f"the contender {self.name!r} ended: {self.said.read().strip()[-2000:]}")

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def agreement(workers: dict[str, Worker]) -> dict[str, float]:
    """That the contenders do the same work: largest differences of logits and of the losses of three steps."""
    told = {name: w.ask(do="check", batch=8, length=32, steps=3) for name, w in workers.items() if "floor" not in name}

    def apart(a: str, b: str, what: str) -> float:
        return max(abs(x - y) for x, y in zip(told[a][what], told[b][what], strict=True))

    pairs = [("bare", "theirs_bare", "logits"), ("ours", "theirs", "logits"), ("ours", "theirs_no_dropout", "losses")]
    found = {f"{a} and {b}, {what}": apart(a, b, what) for a, b, what in pairs}
    if max(found.values()) > 1e-4:
        raise RuntimeError(f"the contenders do not compute the same: {found}")
    if BF16 in told:  # rounded to 8 bits: told, not judged
        found |= {f"ours and {BF16}, {what}": apart("ours", BF16, what) for what in ("logits", "losses")}
    return found


def rounds_of(names: list[str], rounds: int, turn: Any) -> dict[str, list[float]]:
    """``turn(name)`` for every name in every round, the order drawn anew each time."""
    values: dict[str, list[float]] = {name: [] for name in names}
    order, generator = list(names), random.Random(0)
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            time.sleep(0.02)  # the threads of the one before go on spinning for a moment
            values[name].append(turn(name))
    return values


def measure_points(workers: dict[str, Worker], threads: list[int], quick: bool) -> list[dict[str, Any]]:
    """Seconds of training steps and of inference, in turns."""
    points = []
    for what, batch, length, budget, rounds in POINTS:
        names = [name for name in (STEP if what == "training step" else INFERENCE) if name in workers]
        for n in threads:
            request = {"do": "turn", "what": what, "batch": batch, "length": length, "threads": n, "budget": budget}
            rounds_of(names, 1, lambda name, r=request: workers[name].ask(**r))  # warms up
            values = rounds_of(names, 2 if quick else rounds, lambda name, r=request: workers[name].ask(**r))
            points.append(point(what, "s", batch, length, n, values))
            medians = ", ".join(f"{name} {statistics.median(v):.3f}" for name, v in values.items())
            print(f"{what}, batch {batch}, length {length}, threads {n}: {medians}", flush=True)
    return points


def measure_fresh(names: list[str], folder: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds from process start to the end of the first step, and the memory, each time in a new process."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def turn(name: str) -> float:
        worker = Worker(name, folder, fresh={"threads": threads, "lengths": LENGTHS})
        worker.close()
        answers[name].append(worker.hello)
        return worker.hello["stepped"] - worker.began

    points = [point("time to the first step", "s", BATCH, LENGTHS[0], threads, rounds_of(names, rounds, turn))]
    for key, what in (("peak", "peak memory"), ("above", "peak memory above the loaded model")):
        for length in LENGTHS:
            values = {name: [told[key][str(length)] for told in answers[name]] for name in names}
            points.append(point(what, "MiB", BATCH, length, threads, values))
    return points


def point(
    what: str, unit: str, batch: int, length: int, threads: int, values: dict[str, list[float]]
) -> dict[str, Any]:
    """A row of the results file; ``values`` holds a number for each round."""
    rounded = {name: [float(f"{value:.5g}") for value in numbers] for name, numbers in values.items()}
    return {"what": what, "unit": unit, "batch": batch, "length": length, "threads": threads, "values": rounded}


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, instructions that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = about.get("flags", about.get("Features", "")).split()  # x86, ARM
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if flag in flags]
    return {"processor": about.get("model name", platform.machine()), "cores": os.cpu_count(), "instructions": known}


def main() -> None:
    """Measure, print, write. A target that is not met is a finding, not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that everything works")
    parser.add_argument("--output", type=Path, help="where the results go; with --quick nowhere, unless given")
    arguments = parser.parse_args()
    began, folder = time.monotonic(), minilm_folder()
    threads = [n for n in (1, 2) if n <= (os.cpu_count() or 1)]
    about = machine()
    names = {*STEP, *INFERENCE} - (set() if {"avx512_bf16", "amx_bf16", "bf16"} & {*about["instructions"]} else {BF16})
    workers = {name: Worker(name, folder) for name in sorted(names)}
    results = {
        "command": "make bench",
        "date": time.strftime("%Y-%m-%d"),
        **about,
        "versions": {side: workers[name].hello for side, name in (("ours", "ours"), ("theirs", "theirs"))},
        "settings": {
            "bottleneck_dim": BOTTLENECK_DIM,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
        },
        "differences": agreement(workers),
        "points": measure_points(workers, threads, arguments.quick),
    }
    for worker in workers.values():
        worker.close()
    trained = [name for name in TRAINED if name in workers and name != "theirs_no_dropout"]
    results["points"] += measure_fresh(trained, folder, threads[-1], 1 if arguments.quick else FRESH_ROUNDS)
    results["comparisons"] = comparisons(results["points"])
    results["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(table(results["comparisons"]))
    output = arguments.output or (None if arguments.quick else RESULTS / file_name(about))
    if output is not None:
        write_atomically(output, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))


if __name__ == "__main__":
    main()
