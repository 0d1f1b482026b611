"""AdapterDrop's runs (Rücklé et al. 2020, arXiv 2010.11918): `python data/run_adapterdrop.py` writes adapterdrop.json.

Adapters in six blocks of MiniLM, and the lowest n blocks without: only when serving, also when training (specialised),
or with another n at every training step (robust). One learning rate for all, the one that data/run_experiments.py
found best for these adapters with three blocks and with four. A run that is already in the file is not run again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from run_experiments import RESULTS, SEEDS, adapter, build, read  # type: ignore[import-not-found]

from adapters_lesson import drop_adapters, encode, evaluate, load_task, load_tokenizer, set_active_adapter, train
from adapters_lesson.guards.safe_files import write_atomically

TASK, LAYERS, WIDTH, EPOCHS, LEARNING_RATE = "aspect_sentiment", 6, 16, 4, 3e-3
DROPPED = range(LAYERS)  # n: the adapters of the highest block are never dropped
ROWS = {"dropped when serving": DROPPED[:1], "robust": DROPPED[:1], "specialised": DROPPED}  # the models to train


def drop(model: torch.nn.Module, lowest: int) -> None:
    """Let the adapters of all blocks but the ``lowest`` work."""
    set_active_adapter(model, "default")
    drop_adapters(model, range(lowest))


def one_model(seed: int, data: Any, left_out: int = 0, robust: bool = False) -> tuple[torch.nn.Module, float]:
    """A trained model and its seconds of training; ``left_out`` of the lowest blocks never get adapters."""
    torch.manual_seed(seed)
    row = adapter(WIDTH, "houlsby") | {"layers": LAYERS}
    row["config"]["layers"] = range(left_out, LAYERS)
    model, _ = build(row, data["train"].features["label"].num_classes)
    random = torch.Generator().manual_seed(seed)

    def drop_at_random(history: object) -> None:
        drop(model, int(torch.randint(len(DROPPED), (), generator=random)))

    history = train(
        model, data["train"], epochs=EPOCHS, learning_rate=LEARNING_RATE, seed=seed, progress=False,
        on_step=drop_at_random if robust else None,
    )  # fmt: skip
    set_active_adapter(model, "default")
    return model, round(history.seconds, 1)


def runs_of(label: str, n: int, seed: int, data: Any) -> list[dict[str, Any]]:
    """Train one model, and test it: a specialised one as it is, any other with every number of blocks dropped."""
    special = label == "specialised"
    model, seconds = one_model(seed, data, left_out=n if special else 0, robust=label == "robust")
    runs = []
    for dropped in [n] if special else DROPPED:
        drop(model, dropped)
        accuracy = evaluate(model, data["test"])["accuracy"]
        runs.append({"seed": seed, "dropped": dropped, "test": accuracy, "seconds": seconds})
    return runs


def main(path: Path) -> None:
    """Run what is missing, writing the file after every run."""
    header = {
        "command": "python data/run_adapterdrop.py",
        "task": TASK,
        "layers": LAYERS,
        "bottleneck_dim": WIDTH,
        "learning_rate": LEARNING_RATE,
        "epochs": EPOCHS,
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    data = encode(load_task(TASK), load_tokenizer())
    rows = read(path)["rows"]
    plan = [(label, n, seed) for seed in SEEDS for label, ns in ROWS.items() for n in ns]
    for label, n, seed in plan:
        done = rows.setdefault(label, {"runs": []})["runs"]
        if any((old["seed"], old["dropped"]) == (seed, n) for old in done):
            continue
        done += runs_of(label, n, seed, data)
        text = json.dumps({**header, "rows": rows}, indent=1) + "\n"
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))  # type: ignore[misc]
        print(label, done[-1], flush=True)


if __name__ == "__main__":
    main(RESULTS / "adapterdrop.json")
