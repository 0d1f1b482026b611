"""What many tasks on one base model cost and give: `python data/run_many_tasks.py` writes data/results/many_tasks.json.

Three parts, each of which can be run by itself, `--only timing`, `--only size` or `--only fusion`:

timing  32 rows of N tasks: a mixed batch, switching from group to group, the rows one by one, and N full models.
size    memory and disk of N tasks, with adapters and as N fully fine-tuned models: by formula, and measured.
fusion  adapters of three tasks put to use for a fourth with few examples: each alone, stacked, averaged, fused.

A run of the last part that is in the file is not run again; the other two are measured anew, so let nothing else run
meanwhile. `--quick` tries the machinery with small numbers, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from many_tasks_fusion import fusion  # type: ignore[import-not-found]
from torch import nn

from adapters_lesson import AdapterConfig, Classifier, SmallTransformer
from adapters_lesson.adapter import Adapter
from adapters_lesson.bank import AdapterBank, grouped
from adapters_lesson.costs.latency import measure_latency
from adapters_lesson.guards.safe_files import write_atomically

RESULT = Path(__file__).parent / "results" / "many_tasks.json"
TASK_COUNTS = (2, 4, 8, 16)
LAYERS, WIDTH = 6, 16  # of timing and size: MiniLM, Houlsby's places
ROWS, LENGTH, ROUNDS = 32, 32, 20


# --- Timing ---------------------------------------------------------------------------------------------------------


def contenders(bank: AdapterBank, full: Sequence[nn.Module], names: Sequence[str], x: Any) -> dict[str, Callable]:
    """Four ways to answer the same rows, each of which names its task; all return the rows' logits."""
    order, groups = grouped(names)
    by_task, start = {}, 0
    for task, count in groups:
        by_task[task], start = order[start : start + count], start + count

    def switched(task: str | None, rows: list[int]) -> torch.Tensor:
        bank.switch(task)
        return bank(x[0][rows], x[1][rows])

    def sorted_back(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(parts))[torch.tensor(order).argsort()]

    models = dict(zip(bank.heads, full, strict=True))
    return {
        "mixed batch": lambda: torch.stack(bank(*x, names)),
        "switched by group": lambda: sorted_back([switched(task, rows) for task, rows in by_task.items()]),
        "row by row": lambda: torch.cat([switched(task, [row]) for row, task in enumerate(names)]),
        "full models": lambda: sorted_back([models[t](x[0][rows], x[1][rows]) for t, rows in by_task.items() if t]),
    }


def timing(counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Medians with intervals for every number of tasks, and how long a switch takes."""
    rows = {}
    for n in counts:
        bank = new_bank(n)
        full = [full_model() for _ in range(n)]
        names = [f"task{row % n}" for row in range(ROWS)]
        random.Random(0).shuffle(names)
        ids = torch.randint(1000, 30000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
        ways = contenders(bank, full, names, (ids, torch.ones_like(ids)))
        with torch.inference_mode():
            answers = {way: call() for way, call in ways.items()}
        for way in ("switched by group", "row by row"):  # the full models' weights are others
            torch.testing.assert_close(answers[way], answers["mixed batch"], rtol=1e-5, atol=1e-5)
        table = measure_latency(ways, rounds, warmup=1, threads=1)
        print(f"{n} tasks, {ROWS} rows of {LENGTH} tokens\n{table}", flush=True)
        rows[str(n)] = {way: vars(latency) for way, latency in table.rows.items()}
    names, seconds = list(bank.heads), []
    for i in range(500):
        start = perf_counter()
        bank.switch(names[i % len(names)])
        seconds.append(perf_counter() - start)
    switch = {"tasks": len(names), "median": median(seconds), "slowest": max(seconds)}
    print(f"a switch: {1e6 * switch['median']:.0f} µs", flush=True)
    return {"rows": ROWS, "length": LENGTH, "rounds": rounds, "threads": 1, "tasks": rows, "switch": switch}


def new_bank(tasks: int) -> AdapterBank:
    """MiniLM with Houlsby adapters for that many tasks of two labels."""
    bank = AdapterBank(SmallTransformer.from_minilm(LAYERS))
    for i in range(tasks):
        bank.add(f"task{i}", AdapterConfig(WIDTH, init="bert"), 2)
    return bank.eval()


def full_model() -> Classifier:
    """MiniLM with a head, and weights of its own in memory."""
    return Classifier(SmallTransformer.from_minilm(LAYERS), 2).eval()


# --- Size -----------------------------------------------------------------------------------------------------------


def predicted(base: int, model_dim: int, layers: int, tasks: int) -> dict[str, int]:
    """Bytes of ``tasks`` tasks of two labels in single precision, from the base's number of parameters.

    Adapters: 4 · (base + N · (2 · layers · (2·d·m + m + d) + 2·d + 2)). Full fine-tuning: 4 · N · (base + 2·d + 2).
    """
    head = 2 * model_dim + 2
    adapters = 2 * layers * Adapter.count(model_dim, WIDTH)
    return {"adapters": 4 * (base + tasks * (adapters + head)), "full": 4 * tasks * (base + head)}


def size(counts: Sequence[int]) -> dict[str, Any]:
    """Predicted and measured bytes for every number of tasks: parameters, process and files."""
    base = SmallTransformer.from_minilm(LAYERS)
    parameters = sum(p.numel() for p in base.parameters())
    rows = {}
    for n in counts:
        says = predicted(parameters, base.config.hidden_size, LAYERS, n)
        rows[str(n)] = {kind: {"predicted": says[kind], **in_a_process_of_its_own(kind, n)} for kind in says}
        for kind, row in rows[str(n)].items():
            print(n, kind, {key: f"{value / 1e6:,.1f} MB" for key, value in row.items()}, flush=True)
    return {"base_parameters": parameters, "tasks": rows}


def in_a_process_of_its_own(kind: str, tasks: int) -> dict[str, int]:
    """``measure_size``, where nothing else has been in memory."""
    command = [sys.executable, __file__, "--child", kind, str(tasks)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_size(kind: str, tasks: int) -> dict[str, int]:
    """Bytes of the models' parameters, by which the process grew, and of the files that they are saved in."""
    from safetensors.torch import save_file

    SmallTransformer.from_minilm(1)  # what the first loading brings into memory is no model's
    before = resident()
    bank = new_bank(tasks) if kind == "adapters" else None
    models = [bank] if bank is not None else [full_model() for _ in range(tasks)]
    process = resident() - before
    with tempfile.TemporaryDirectory() as folder:
        for i, model in enumerate(models):
            state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            parts = {f"model{i}": state}
            if bank is not None:  # a file for the base, and one for each task
                own = {task: {k: v for k, v in state.items() if f".{task}." in k} for task in bank.heads}
                of_tasks = {key for tensors in own.values() for key in tensors}
                parts = {"base": {k: v for k, v in state.items() if k not in of_tasks}, **own}
            for name, tensors in parts.items():
                save_file(tensors, Path(folder, f"{name}.safetensors"))
        disk = sum(file.stat().st_size for file in Path(folder).iterdir())
    memory = sum(p.nbytes for model in models for p in model.parameters())
    return {"parameters": memory, "process": process, "disk": disk}


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def read() -> dict[str, Any]:
    """The results so far."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def main(parts: Sequence[str], quick: bool) -> None:
    """Run the ``parts``, and write each to the file."""
    header = {
        "command": "python data/run_many_tasks.py",
        "torch": torch.__version__.partition("+")[0],
        "cores": os.cpu_count(),
    }

    def save(part: str, result: dict[str, Any]) -> None:
        if not quick:
            text = json.dumps({**read(), **header, part: result}, indent=1) + "\n"
            write_atomically(RESULT, lambda temporary: temporary.write_text(text))

    counts = TASK_COUNTS[:1] if quick else TASK_COUNTS
    if "timing" in parts:
        save("timing", timing(counts, 5 if quick else ROUNDS))
    if "size" in parts:
        save("size", size(counts))
    if "fusion" in parts:
        results = {} if quick else read().get("fusion", {})
        fusion(results, lambda: save("fusion", results), quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("timing", "size", "fusion"))
    parser.add_argument("--quick", action="store_true", help="small numbers, to try the machinery; writes nothing")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure_size(arguments.child[0], int(arguments.child[1]))))
    else:
        main([arguments.only] if arguments.only else ["timing", "size", "fusion"], arguments.quick)
