"""The command line beside ten lines of peft: `python data/run_side_by_side.py` writes data/results/side_by_side.json.

LoRA (r = 8 on query and value) in two layers of MiniLM, film reviews from CSV files, two rates. The same folder and
the same files go into `python -m adapters_lesson train` and into AutoModel, peft and Trainer, with the same settings.
The folder has a head, with which both begin. Two things differ: the order of the texts, and that `train` leaves the
dropout of a frozen base off; so Trainer is also tried with it off. `--quick` only tries the machinery and writes
nothing.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from adapters_lesson import load_task, load_tokenizer
from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.data import minilm_folder, minilm_weights
from adapters_lesson.guards.safe_files import write_atomically

RESULT = Path(__file__).parent / "results" / "side_by_side.json"
QUICK = "--quick" in sys.argv[1:]
LAYERS, EPOCHS = 2, 1 if QUICK else 3
RATES = {1e-3: (0,)} if QUICK else {3e-3: (0, 1, 2), 1e-3: (0, 1, 2, 3, 4)}  # with which seeds
ROWS = {"train": 64, "validation": 32, "test": 64} if QUICK else {"train": 1600, "validation": 200, "test": 1000}
LABELS = ["negative", "positive"]
NONE: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_files(folder: Path) -> None:
    """A folder of CSV files, and MiniLM with a new head as transformers saves it."""
    reviews = load_task("film_reviews")
    (folder / "films").mkdir()
    for split, count in ROWS.items():
        with (folder / "films" / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in reviews[split].shuffle(seed=0).select(range(count)):
                writer.writerow([row["text"], LABELS[row["label"]]])
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(minilm_folder(), num_hidden_layers=LAYERS, id2label=dict(enumerate(LABELS)))
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict({key: minilm_weights()[key] for key in model.bert.state_dict()})
    model.save_pretrained(folder / "base")
    load_tokenizer().save_pretrained(folder / "base")


def ours(base: Path, data: Path, folder: Path, rate: float) -> list[float]:
    """Accuracies on the test texts, one for each seed."""
    command = f"--method lora --lora-rank 8 --epochs {EPOCHS} --learning-rate {rate} --quiet --seeds".split()
    command += [
        *map(str, RATES[rate]),
        "--base",
        str(base),
        "--task",
        str(data),
        "--report",
        str(folder / "report.json"),
    ]
    subprocess.run([sys.executable, "-m", "adapters_lesson", "train", *command], check=True)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [run["scores"]["test"]["accuracy"] for run in report["runs"]]


def theirs(base: Path, data: Any, folder: Path, rate: float, seed: int, **dropout: float) -> float:
    """The same in ten lines of AutoModel, peft and Trainer."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    data = data.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=128), batched=True)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS), **dropout)
    lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    settings = TrainingArguments(
        str(folder), num_train_epochs=EPOCHS, learning_rate=rate, per_device_train_batch_size=32, seed=seed,
        lr_scheduler_type="linear", warmup_steps=0.1, weight_decay=0.01, report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(
        get_peft_model(model, lora), settings, DataCollatorWithPadding(tokenizer), train_dataset=data["train"]
    )
    trainer.train()
    said = trainer.predict(data["test"]).predictions.argmax(-1)
    return float((said == data["test"]["label"][:]).mean())


def main() -> None:
    """Both sides, and the file."""
    logging.set_verbosity_error()
    results: dict[str, Any] = {
        "command": "python data/run_side_by_side.py", "torch": torch.__version__.partition("+")[0],
        **{name: version(name) for name in ("transformers", "peft")}, "threads": torch.get_num_threads(),
        "cores": os.cpu_count(), "layers": LAYERS, "epochs": EPOCHS, "batch_size": 32,
        "texts": ROWS, "rates": {},
    }  # fmt: skip
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        from datasets import load_dataset

        files = {split: str(folder / "films" / f"{split}.csv") for split in ROWS}
        data = load_dataset("csv", data_files=files, cache_dir=str(folder / "cache"))
        data = data.class_encode_column("label")
        for rate, seeds in RATES.items():
            row: dict[str, Any] = {"seeds": seeds, "ours": ours(folder / "base", folder / "films", folder, rate)}
            for name, dropout in {"theirs": {}, "theirs without dropout": NONE}.items():
                given = (folder / "base", data, folder / "trainer", rate)
                row[name] = [theirs(*given, seed, **dropout) for seed in seeds]
                apart = [one - other for one, other in zip(row["ours"], row[name], strict=True)]
                row[f"ours - {name}"] = mean_and_interval(apart)  # mean, and half of its 95 % interval
            results["rates"][f"{rate:g}"] = row
    print(json.dumps(results, indent=1))
    if not QUICK:
        text = json.dumps(results, indent=1) + "\n"
        write_atomically(RESULT, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
