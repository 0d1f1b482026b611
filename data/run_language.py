"""Lesson 10's runs with SmolLM2: `python data/run_language.py` writes data/results/language.json; `make llm` first.

What the model answers bare, with adapters and with them switched off again, how many answers have the form, the
perplexity of ordinary text, and how long a training step takes with padded and with packed rows. What is in the file
already is not run again; --quick only tries the machinery and writes nothing.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from adapters_lesson import AdapterConfig, load_task, prepare, remove_adapters, set_active_adapter
from adapters_lesson.batches import TokenTexts
from adapters_lesson.costs import measure_latency
from adapters_lesson.course.language.answers import encode_answers, form_share, load_answers, load_prose, pack
from adapters_lesson.course.language.smollm import AnswerLoss, generate, load_smollm, load_smollm_tokenizer, perplexity
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.modes import training_mode
from adapters_lesson.training import train

RESULT = Path(__file__).parent / "results" / "language.json"
CONFIG, ROW, ROWS_A_STEP = AdapterConfig(32, placement="pfeiffer"), 160, 4
LESSON, LONGER = {"steps": 40, "learning_rate": 1e-3}, {"steps": 141, "learning_rate": 1e-3}
RUNS: list[tuple[str, dict[str, Any], int]] = [
    *(("as in the lesson", LESSON, seed) for seed in (0, 1, 2)),
    ("three epochs", LONGER, 0),
]


class Bench:
    """The model and its data.

    Args:
        quick: little of everything.
    """

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.model, self.tokenizer = load_smollm(), load_smollm_tokenizer()
        task = load_answers()
        self.data = encode_answers(task, self.tokenizer)
        self.packed = {split: pack(self.data[split], ROW) for split in ("train", "validation")}
        self.questions = task["test"]["question"][: 2 if quick else None]
        films = load_task("film_reviews")["test"]["text"]
        self.plain = {"prose": load_prose(), "film reviews": films[: 8 if quick else 100]}

    def look(self) -> dict[str, Any]:
        """What the model does as it stands."""
        answers = generate(self.model, self.tokenizer, self.questions, max_tokens=8 if self.quick else 64)
        perplexities = {kind: perplexity(self.model, self.tokenizer, texts) for kind, texts in self.plain.items()}
        return {"answers": answers, "form": form_share(answers), "perplexity": perplexities}

    def run(self, settings: dict[str, Any], seed: int, bare: dict[str, Any]) -> dict[str, Any]:
        """Train adapters, look at the model with them and without, and take them out again."""
        settings = {**settings, "steps": 2} if self.quick else settings
        torch.manual_seed(seed)
        trainable = prepare(self.model, "adapter", CONFIG).trainable
        history = train(
            AnswerLoss(self.model), self.packed["train"], self.packed["validation"], validate_every=10,
            batch_size=ROWS_A_STEP, seed=seed, progress=False, **settings,
        )  # fmt: skip
        trained = self.look()
        set_active_adapter(self.model, None)
        off = self.look()
        remove_adapters(self.model)
        return {
            "seed": seed, **settings, "trainable": trainable, "seconds": round(history.seconds, 1),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "loss": [round(value, 4) for value in history.loss], "validation": history.validation,
            "off_is_exactly_as_before": off == bare, **trained,
        }  # fmt: skip

    def speed(self) -> dict[str, Any]:
        """Seconds of a training step on the same texts, padded and packed."""
        films = self.tokenizer(self.plain["film reviews"][:24])["input_ids"]
        kinds = {
            "dialogues": (self.data["train"].select(range(12)), ROW),
            "film reviews": (Dataset.from_dict({"input_ids": films, "labels": films}), 128),
        }
        torch.manual_seed(0)
        prepare(self.model, "adapter", CONFIG)
        loss, results = AnswerLoss(self.model), {}
        training_mode(loss)
        for kind, (texts, room) in kinds.items():
            calls, sizes = {}, {}
            for way, data in (("padded", texts), ("packed", pack(texts, room))):
                batch = TokenTexts(data).batch(range(len(data)))
                calls[way] = lambda batch=batch: loss(**batch).loss.backward()
                sizes[way] = list(batch["input_ids"].shape)
            table = measure_latency(calls, 5, warmup=1, inference=False)
            tokens = sum(map(len, texts["input_ids"]))
            results[kind] = {
                way: {
                    "shape": sizes[way],
                    "filled": round(tokens / (sizes[way][0] * sizes[way][1]), 3),
                    "seconds": round(table[way].median, 3),
                    "tokens_per_second": round(tokens / table[way].median, 1),
                    "less_time_in_percent": [
                        round(0 - x, 1) for x in (table[way].overhead, *reversed(table[way].overhead_interval))
                    ],
                }
                for way in calls
            }
        remove_adapters(self.model)
        return results


def main(quick: bool) -> None:
    """Run what is missing, writing the file after every part."""
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() and not quick else {}

    def keep(part: str, value: Any) -> None:
        results[part] = value
        print(part, str(value)[:300], flush=True)
        if not quick:
            text = json.dumps({**header, **results}, indent=1) + "\n"
            write_atomically(RESULT, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    header = {
        "command": "python data/run_language.py", "bottleneck_dim": CONFIG.bottleneck_dim,
        "placement": CONFIG.placement, "row": ROW, "rows_a_step": ROWS_A_STEP,
        "torch": torch.__version__.partition("+")[0], "threads": torch.get_num_threads(), "cores": os.cpu_count(),
    }  # fmt: skip
    bench = Bench(quick)
    for part, measure in (("bare", bench.look), ("speed", bench.speed)):
        if part not in results:
            keep(part, measure())
    for label, settings, seed in RUNS:
        done = results.get("rows", {}).get(label, {"runs": []})["runs"]
        if seed not in [run["seed"] for run in done]:
            runs = [*done, bench.run(settings, seed, results["bare"])]
            keep("rows", {**results.get("rows", {}), label: {"runs": runs}})
        if quick:
            break


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
