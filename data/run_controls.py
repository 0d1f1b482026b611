"""Controls of lesson 07: `python data/run_controls.py` writes data/results/controls.json.

The lesson's live recipe (1,500 film reviews, two epochs) with five seeds: the head alone, Houlsby's adapters (m = 8),
and adapters from which one part is taken. Rates are chosen as in run_experiments.py; the poor start has the rate of the
laboratory. Each run keeps which test sentences it gets right, and which when it is called without the mask, as a
colleague does in the lesson. A run that is already in the file is not run again. `--quick` tries all of it on a few
sentences, into the folder for temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rates import chosen_rate  # type: ignore[import-not-found]
from run_experiments import RATES, RESULTS, read  # type: ignore[import-not-found]

from adapters_lesson import (
    Adapter,
    AdapterConfig,
    Classifier,
    encode,
    load_minilm,
    load_task,
    load_tokenizer,
    predict,
    prepare,
    train,
)
from adapters_lesson.batches import Texts
from adapters_lesson.guards.safe_files import write_atomically


class NoResidual(AdapterConfig):
    """Adapters without the h that they add to their update."""

    def build(self, model_dim: int) -> Adapter:
        adapter = super().build(model_dim)
        adapter.update = lambda h: Adapter.update(adapter, h) - h  # the slot adds h
        return adapter


class Row(NamedTuple):
    """What is trained, and the rates that it may try."""

    method: str
    config: AdapterConfig | None
    rates: tuple[float, ...]


ROWS = {
    "head only": Row("head", None, RATES["head"]),
    "Houlsby m=8": Row("adapter", AdapterConfig(8), RATES["adapter"]),
    "without activation": Row("adapter", AdapterConfig(8, activation="identity"), RATES["adapter"]),
    "start at std 1": Row("adapter", AdapterConfig(8, init="houlsby", init_std=1.0), (3e-3,)),
    "without residual": Row("adapter", NoResidual(8), RATES["adapter"]),
}


class Size(NamedTuple):
    """How much of the film reviews is learnt and tested, and how."""

    train: int = 1500
    validation: int = 1000
    test: int = 2000
    epochs: int = 2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    batch: int = 200  # of the colleague's calls, as in the lesson


QUICK = Size(train=64, validation=32, test=48, epochs=1, seeds=(0,), batch=24)


@torch.no_grad()
def without_mask(model: Classifier, data: Any, batch: int) -> torch.Tensor:
    """The logits of the colleague's classifier: the mean leaves padding out, the layers below do not."""
    texts, found = Texts(data), []
    for start in range(0, len(texts), batch):
        ids, mask, _ = texts.batch(range(start, min(start + batch, len(texts))))
        words = mask[..., None]
        found.append(model.head((model.base_model(ids).last_hidden_state * words).sum(1) / words.sum(1)))
    return torch.cat(found)


def one_run(label: str, data: Any, size: Size, learning_rate: float, seed: int) -> dict[str, Any]:
    """Train once. A "1" of ``right`` is a test sentence that is classified as its label says."""
    torch.manual_seed(seed)
    model = Classifier(load_minilm(), num_labels=2)
    prepare(model, ROWS[label].method, ROWS[label].config)
    counts = {"train": size.train, "validation": size.validation, "test": size.test}
    few, validation, test = (data[split].select(range(count)) for split, count in counts.items())
    history = train(model, few, validation, epochs=size.epochs, learning_rate=learning_rate, seed=seed, progress=False)
    model.eval()
    labels = torch.tensor(test["label"])
    right, masked = (
        (logits.argmax(-1) == labels) for logits in (predict(model, test), without_mask(model, test, size.batch))
    )
    return {
        "learning_rate": learning_rate,
        "seed": seed,
        "validation": [round(entry["accuracy"], 4) for entry in history.validation],
        "test": round(right.float().mean().item(), 4),
        "test_without_mask": round(masked.float().mean().item(), 4),
        "seconds": round(history.seconds, 1),
        "right": "".join(str(int(one)) for one in right),
        "right_without_mask": "".join(str(int(one)) for one in masked),
    }


def main(path: Path, size: Size) -> None:
    """Run what is missing, writing the file after every run; the first three seeds of all rows come first."""
    header = {
        "command": "python data/run_controls.py",
        "task": "film_reviews",
        "sentences": size.train,
        "epochs": size.epochs,
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    data = encode(load_task("film_reviews"), load_tokenizer())
    rows = read(path)["rows"]
    for seeds in (size.seeds[:3], size.seeds):
        for label, (_, _, rates) in ROWS.items():
            row = rows.setdefault(label, {"runs": []})

            def run(rate: float, seed: int, label: str = label, row: dict = row) -> float:
                done = [old for old in row["runs"] if (old["learning_rate"], old["seed"]) == (rate, seed)]
                if not done:
                    done = [one_run(label, data, size, rate, seed)]
                    row["runs"] += done
                    text = json.dumps({**header, "rows": rows}, indent=1) + "\n"
                    write_atomically(path, lambda temporary: temporary.write_text(text))
                    print(f"{label}, {rate:g}, seed {seed}: {100 * done[0]['test']:.2f} %", flush=True)
                return done[0]["validation"][-1]

            row["learning_rate"] = chosen_rate(run, rates[:1] if size is QUICK else rates, size.seeds[:3])
            for seed in seeds:
                run(row["learning_rate"], seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a few sentences, one seed and rate, into a temporary file"
    )
    if parser.parse_args().quick:
        main(Path(tempfile.mkdtemp()) / "controls.json", QUICK)
    else:
        main(RESULTS / "controls.json", Size())
