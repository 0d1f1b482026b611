"""The longer runs behind the lessons' tables: `python data/run_experiments.py film` writes data/results/film.json.

Every row is run with each of its learning rates and seed 0; the rate with the best validation accuracy is then run with
the other seeds. The test split is not looked at before. A run that is already in the file is not run again, so the
command can be interrupted and repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    SmallTransformer,
    encode,
    evaluate,
    load_minilm,
    load_task,
    load_tokenizer,
    prepare,
    train,
)
from adapters_lesson.files import write_atomically

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
RATES = {"head": (3e-3, 1e-2, 3e-2), "adapter": (1e-3, 3e-3), "lora": (1e-3, 3e-3)}


def adapter(bottleneck_dim: int, placement: str) -> dict[str, Any]:
    """A row's settings for one kind of adapter."""
    return {"method": "adapter", "config": {"bottleneck_dim": bottleneck_dim, "placement": placement}}


EXPERIMENTS: dict[str, dict[str, Any]] = {
    "aspect": {
        "task": "aspect_sentiment",
        "epochs": 4,
        "rates": {**RATES, "full": (5e-5, 1e-4, 3e-4)},
        "rows": {
            "head only, 4 layers": {"method": "head", "layers": 4},
            "Houlsby m=16, 4 layers": {**adapter(16, "houlsby"), "layers": 4},
            "Houlsby m=16, 4 layers, random base": {**adapter(16, "houlsby"), "layers": 4, "random_base": True},
            "full fine-tuning, 4 layers": {"method": "full", "layers": 4},
            "Houlsby m=1, 3 layers": {**adapter(1, "houlsby"), "layers": 3},
            "Houlsby m=4, 3 layers": {**adapter(4, "houlsby"), "layers": 3},
            "Houlsby m=16, 3 layers": {**adapter(16, "houlsby"), "layers": 3},
            "Pfeiffer m=16, 3 layers": {**adapter(16, "pfeiffer"), "layers": 3},
            "parallel m=16, 3 layers": {**adapter(16, "parallel"), "layers": 3},
        },
    },
    "film": {
        "task": "film_reviews",
        "epochs": 2,
        "rates": {**RATES, "full": (5e-5, 1e-4)},
        "rows": {
            "head only": {"method": "head"},
            "Pfeiffer m=8": adapter(8, "pfeiffer"),
            "Houlsby m=8": adapter(8, "houlsby"),
            "LoRA r=8": {"method": "lora"},
            "full fine-tuning": {"method": "full"},
            "Pfeiffer m=64": adapter(64, "pfeiffer"),
            "Houlsby m=64": adapter(64, "houlsby"),
        },
    },
}


def build(row: dict[str, Any], num_labels: int) -> tuple[Classifier, Any]:
    """A fresh model prepared as the row says, and what is trainable in it."""
    base = SmallTransformer.from_minilm(row["layers"]) if "layers" in row else load_minilm()
    if row.get("random_base"):
        base = SmallTransformer(base.config)
    model = Classifier(base, num_labels)
    config = AdapterConfig(**row["config"]) if "config" in row else None
    return model, prepare(model, row["method"], config)


def one_run(row: dict[str, Any], data: Any, epochs: int, learning_rate: float, seed: int) -> dict[str, Any]:
    """Train and test once."""
    torch.manual_seed(seed)
    model, trainable = build(row, data["train"].features["label"].num_classes)
    history = train(
        model, data["train"], data["validation"], epochs=epochs, learning_rate=learning_rate, seed=seed, progress=False
    )
    return {
        "learning_rate": learning_rate,
        "seed": seed,
        "validation": [entry["accuracy"] for entry in history.validation],
        "test": evaluate(model, data["test"])["accuracy"],
        "seconds": round(history.seconds, 1),
        "trainable": trainable.trainable,
        "trainable_without_head": trainable.without_head,
    }


def read(path: Path) -> dict[str, Any]:
    """The results so far."""
    return json.loads(path.read_text()) if path.exists() else {"rows": {}}


def main(name: str, only: list[str], path: Path) -> None:
    """Run what is missing of one experiment, writing the file after every run."""
    experiment = EXPERIMENTS[name]
    header = {
        "command": f"python data/run_experiments.py {name}",
        "task": experiment["task"],
        "epochs": experiment["epochs"],
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    data = encode(load_task(experiment["task"]), load_tokenizer())
    for label, row in experiment["rows"].items():
        if only and label not in only:
            continue
        entry = read(path)["rows"].get(label, {**row, "runs": []})

        def save(label: str = label, entry: dict = entry) -> None:
            rows = {**read(path)["rows"], label: entry}  # read anew: other rows may be running beside this one
            ordered = {known: rows[known] for known in experiment["rows"] if known in rows}
            text = json.dumps({**header, "rows": ordered}, indent=1) + "\n"
            write_atomically(path, lambda temporary: temporary.write_text(text))

        def run(rate: float, seed: int, row: dict = row, entry: dict = entry, save: Any = save) -> dict[str, Any]:
            for done in entry["runs"]:
                if (done["learning_rate"], done["seed"]) == (rate, seed):
                    return done
            entry["runs"].append(one_run(row, data, experiment["epochs"], rate, seed))
            save()
            return entry["runs"][-1]

        tries = [run(rate, SEEDS[0]) for rate in experiment["rates"][row["method"]]]
        entry["learning_rate"] = max(tries, key=lambda done: done["validation"][-1])["learning_rate"]
        for seed in SEEDS[1:]:
            run(entry["learning_rate"], seed)
        save()
        print(f"{label}: test accuracy {[round(done['test'], 4) for done in entry['runs']]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("rows", nargs="*", help="labels of single rows; all by default")
    arguments = parser.parse_args()
    main(arguments.experiment, arguments.rows, RESULTS / f"{arguments.experiment}.json")
