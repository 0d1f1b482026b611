"""The longer runs behind the lessons' tables: `python data/run_experiments.py film` writes data/results/film.json.

Every row is run with each of its learning rates and seed 0; the rate with the best validation accuracy (rates.py) is
then run with the other seeds. The test split is not looked at before. A run that is already in the file is not run
again, so the command can be interrupted and repeated. "learning_rate" starts from the runs of "methods".
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rates import chosen_rate  # type: ignore[import-not-found]

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    SmallTransformer,
    encode,
    evaluate,
    load_minilm,
    load_task,
    load_tokenizer,
    predict,
    prepare,
    set_active_adapter,
    train,
)
from adapters_lesson.architectures import blocks_of
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.insertion import drop_adapters

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
RATES = {"head": (3e-3, 1e-2, 3e-2), "adapter": (1e-3, 3e-3), "lora": (1e-3, 3e-3)}
# Three rates each, a factor of about three apart, so that no method has fewer tries than another.
LOW, MIDDLE, HIGH = (1e-4, 3e-4, 1e-3), (1e-3, 3e-3, 1e-2), (3e-3, 1e-2, 3e-2)
SWEEP = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def adapter(bottleneck_dim: int, placement: str, **more: Any) -> dict[str, Any]:
    """A row's settings for one kind of adapter."""
    return {"method": "adapter", "config": {"bottleneck_dim": bottleneck_dim, "placement": placement, **more}}


def with_layers(layers: int, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows on a SmallTransformer of that many layers."""
    return {label: {**row, "layers": layers} for label, row in rows.items()}


# The five that lesson 05 looks at closely.
FIVE = {
    "full fine-tuning": {"method": "full"},
    "LayerNorms": {"method": "layer_norm"},
    "BitFit": {"method": "bitfit"},
    "Houlsby m=16": adapter(16, "houlsby"),
    "LoRA r=8": {"method": "lora"},
}

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
            "Houlsby m=8, 3 layers": {**adapter(8, "houlsby"), "layers": 3},  # as large as the next but one
            "Houlsby m=16, 3 layers": {**adapter(16, "houlsby"), "layers": 3},
            "Pfeiffer m=16, 3 layers": {**adapter(16, "pfeiffer"), "layers": 3},
            "parallel m=16, 3 layers": {**adapter(16, "parallel"), "layers": 3},
        },
    },
    "film": {
        "task": "film_reviews",
        "epochs": 2,
        "seeds": range(5),
        "rates": {**RATES, "full": (2e-5, 3e-5, 5e-5, 1e-4)},
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
    "methods": {
        "task": "aspect_sentiment",
        "epochs": 4,
        "seeds": range(5),
        "rates": {
            "full": LOW,
            **dict.fromkeys(("adapter", "lora"), MIDDLE),
            **dict.fromkeys(("head", "layer_norm", "bitfit"), HIGH),
        },
        "rows": with_layers(
            3,
            {"head only": {"method": "head"}}
            | FIVE
            | {
                f"{name} m={width}": adapter(width, name if name == "parallel" else name.lower())
                for name in ("Houlsby", "Pfeiffer", "parallel")
                for width in (4, 16, 64)
            },
        ),
    },
    "init_std": {
        "task": "aspect_sentiment",
        "epochs": 4,
        "rates": {"adapter": (3e-3,)},
        "rows": with_layers(
            3, {f"std 1e{n}": adapter(16, "houlsby", init="houlsby", init_std=10.0**n) for n in range(-7, 1)}
        ),
    },
    "forgetting": {
        "task": "aspect_sentiment",
        "epochs": 4,
        "rates": {"full": (1e-4,), **dict.fromkeys(("layer_norm", "bitfit", "adapter", "lora"), (3e-3,))},
        "rows": with_layers(4, FIVE),
    },
    "ablation": {
        "task": "aspect_sentiment",
        "epochs": 4,
        "rates": {"adapter": (3e-3,)},
        "rows": with_layers(6, {"Houlsby m=16": adapter(16, "houlsby")}),
    },
    "learning_rate": {
        "task": "aspect_sentiment",
        "epochs": 4,
        "seeds": (0,),
        "rates": dict.fromkeys(("full", "bitfit", "adapter", "lora"), SWEEP),
        "reuse": "methods",
        "rows": with_layers(3, {label: row for label, row in FIVE.items() if label != "LayerNorms"}),
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


def one_run(
    row: dict[str, Any], data: Any, epochs: int, learning_rate: float, seed: int, *, study: str = ""
) -> dict[str, Any]:
    """Train and test once, and look closer at the trained model where the experiment asks for it."""
    old_task = OldTask(row["layers"], seed) if study == "forgetting" else None
    torch.manual_seed(seed)
    model, trainable = build(row, data["train"].features["label"].num_classes)
    history = train(
        model, data["train"], data["validation"], epochs=epochs, learning_rate=learning_rate, seed=seed, progress=False
    )
    result = {
        "learning_rate": learning_rate,
        "seed": seed,
        "validation": [round(entry["accuracy"], 4) for entry in history.validation],
        "loss": [round(sum(part) / len(part), 4) for part in in_tens(history.loss)],
        "stopped": history.stopped,
        "test": round(evaluate(model, data["test"])["accuracy"], 4),
        "seconds": round(history.seconds, 1),
        "trainable": trainable.trainable,
        "trainable_without_head": trainable.without_head,
    }
    if study == "ablation":
        result["spans"] = switched_off(model, data["test"])
    if old_task is not None:
        result |= old_task.after(model, row["method"])
    return result


def in_tens(values: list[float]) -> Iterable[list[float]]:
    """Ten steps at a time; what is left over at the end makes a shorter part."""
    return (values[i : i + 10] for i in range(0, len(values), 10))


def switched_off(model: Classifier, test: Any) -> list[dict[str, Any]]:
    """Test accuracy with the adapters of every span of layers ``first`` to ``last`` switched off."""
    spans = []
    layers = len(blocks_of(model))
    for first in range(layers):
        for last in range(first, layers):
            drop_adapters(model, range(first, last + 1))
            spans.append({"first": first, "last": last, "test": round(evaluate(model, test)["accuracy"], 4)})
            set_active_adapter(model, "default")
    return spans


@functools.cache
def film_head(layers: int, seed: int) -> tuple[Any, dict[str, torch.Tensor], torch.Tensor]:
    """1,000 film reviews, a head for them trained on the frozen base (2,000 others, 2 epochs), its logits."""
    film = encode(load_task("film_reviews"), load_tokenizer())
    torch.manual_seed(seed)
    model = Classifier(SmallTransformer.from_minilm(layers), 2)
    prepare(model, "head")
    train(model, film["train"].select(range(2000)), epochs=2, learning_rate=1e-2, seed=seed, progress=False)
    test = film["test"].select(range(1000))
    return test, model.head.state_dict(), predict(model, test)


class OldTask:
    """A head for film reviews that sat on the base before it was trained on something else."""

    def __init__(self, layers: int, seed: int) -> None:
        self.test, self.head, self.before = film_head(layers, seed)

    def after(self, model: Classifier, method: str) -> dict[str, Any]:
        """Accuracy of the old head before and after, and with the method's change switched off where it can be."""
        model.head.load_state_dict(self.head)
        result = {"old_before": self.accuracy(self.before), "old_after": self.accuracy(predict(model, self.test))}
        if method in ("adapter", "lora"):
            set_active_adapter(model, None)
        else:  # what was there has been overwritten
            return {**result, "old_switched_off": None, "identical": None}
        off = predict(model, self.test)
        return {**result, "old_switched_off": self.accuracy(off), "identical": torch.equal(off, self.before)}

    def accuracy(self, logits: torch.Tensor) -> float:
        right = logits.argmax(-1) == torch.tensor(self.test["label"])
        return round(right.float().mean().item(), 4)


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
        shared = read(path.with_name(f"{experiment.get('reuse')}.json"))["rows"].get(label, {"runs": []})
        entry = read(path)["rows"].get(label, {**row, "runs": shared["runs"]})

        def save(label: str = label, entry: dict = entry) -> None:
            rows = {**read(path)["rows"], label: entry}  # read anew: other rows may be running beside this one
            ordered = {known: rows[known] for known in experiment["rows"] if known in rows}
            text = json.dumps({**header, "rows": ordered}, indent=1) + "\n"
            write_atomically(path, lambda temporary: temporary.write_text(text))

        def run(rate: float, seed: int, row: dict = row, entry: dict = entry, save: Any = save) -> dict[str, Any]:
            for done in entry["runs"]:
                if (done["learning_rate"], done["seed"]) == (rate, seed):
                    return done
            entry["runs"].append(one_run(row, data, experiment["epochs"], rate, seed, study=name))
            save()
            return entry["runs"][-1]

        seeds = experiment.get("seeds", SEEDS)

        def validation(rate: float, seed: int, run: Any = run) -> float:
            return run(rate, seed)["validation"][-1]

        entry["learning_rate"] = chosen_rate(validation, experiment["rates"][row["method"]], seeds)
        for seed in seeds:
            run(entry["learning_rate"], seed)
        save()
        print(f"{label}: test accuracy {[round(done['test'], 4) for done in entry['runs']]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("rows", nargs="*", help="labels of single rows; all by default")
    arguments = parser.parse_args()
    main(arguments.experiment, arguments.rows, RESULTS / f"{arguments.experiment}.json")
