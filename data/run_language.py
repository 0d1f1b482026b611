"""Lesson 10's runs with SmolLM2: `python data/run_language.py` writes data/results/language.json; `make llm` first.

What the model answers bare, asked with a prompt, with adapters and with them switched off again, how many answers have
the form, the loss on the answers' fixed words and on the others, the perplexity of ordinary text, how long a training
step takes with padded and with packed rows, and adapters beside LoRA of one size, each with rates from a sweep. What is
in the file already is not run again; --quick only tries the machinery and writes nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from adapters_lesson import AdapterConfig, LoRAConfig, load_task, prepare, remove_adapters, set_active_adapter
from adapters_lesson.batches import NOT_COUNTED, TokenTexts
from adapters_lesson.costs import measure_latency
from adapters_lesson.course.language.answers import (
    LAST_LINE,
    encode_answers,
    form_share,
    load_answers,
    load_prose,
    pack,
)
from adapters_lesson.course.language.smollm import (
    AnswerLoss,
    chat_prompt,
    generate,
    load_smollm,
    load_smollm_tokenizer,
    perplexity,
)
from adapters_lesson.evaluation import evaluate
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.history import History
from adapters_lesson.modes import training_mode
from adapters_lesson.training import train

RESULT = Path(__file__).parent / "results" / "language.json"
CONFIG, ROW, ROWS_A_STEP = AdapterConfig(32, placement="pfeiffer"), 160, 4
LESSON, LONGER = {"steps": 40, "learning_rate": 1e-3}, {"steps": 141, "learning_rate": 1e-3}
SEEDS = (0, 1, 2)
RUNS: list[tuple[str, dict[str, Any], int]] = [
    *(("as in the lesson", LESSON, seed) for seed in SEEDS),
    *(("three epochs", LONGER, seed) for seed in (1, 2)),
    *(("lower rate", {**LESSON, "learning_rate": 3e-4}, seed) for seed in SEEDS),
    ("lower rate, three epochs", {**LONGER, "learning_rate": 3e-4}, 0),
    ("three epochs", LONGER, 0),
]
INSTRUCTION = f"""Answer in exactly four lines, in the form of a ship's log:
Log: the matter in a few words.
First, one short sentence.
Then, one short sentence.
{LAST_LINE}"""
# Adapters and LoRA of 1.22 million parameters, each at four rates with one seed, and with its best one at the others.
BESIDE: dict[str, Any] = {
    "adapter": AdapterConfig(35, placement="pfeiffer"),
    "lora": LoRAConfig(4, 8.0, targets="all-linear"),
}
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SWEEP: dict[str, Any] = {"steps": 60, "validate_every": 10, "patience": 2}
# How the bare model is asked: whether with the instruction in the system message, how many examples, and which.
PROMPTS: list[tuple[str, bool, int, int]] = [
    ("instruction", True, 0, 0),
    *(("one example", False, 1, seed) for seed in SEEDS),
    *(("three examples", False, 3, seed) for seed in SEEDS),
    *(("instruction and eight examples", True, 8, seed) for seed in SEEDS),
]
FORM = re.compile(rf"^(?:Log:|First,|Then,)|\.$|\n|{re.escape(LAST_LINE)}", re.MULTILINE)


class Asked:
    """A tokenizer whose chats begin with the messages ``before`` the question."""

    def __init__(self, tokenizer: Any, before: list[dict[str, str]]) -> None:
        self.tokenizer, self.before = tokenizer, before

    def apply_chat_template(self, asked: list[dict[str, str]], **how: Any) -> str:
        """The whole chat as a text."""
        return self.tokenizer.apply_chat_template([*self.before, *asked], **how)

    def __call__(self, *args: Any, **how: Any) -> Any:
        return self.tokenizer(*args, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def only_form(data: Dataset, tokenizer: Any) -> Dataset:
    """Encoded answers in which only what all answers share counts: fixed words, full stops, line ends and the end."""

    def labels_of(row: dict[str, Any]) -> dict[str, Any]:
        form = {place for found in FORM.finditer(row["answer"]) for place in range(*found.span())}
        spans = tokenizer(row["answer"], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        labels = [*row["labels"]]
        for place, span in enumerate(spans, len(labels) - len(spans) - 1):  # behind them stands the end
            if not form.issuperset(range(*span)):
                labels[place] = NOT_COUNTED
        return {"labels": labels}

    return data.map(labels_of)


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
        self.form = pack(only_form(self.data["validation"], self.tokenizer), ROW)
        self.examples = task["train"]
        self.test = task["test"].select(range(2)) if quick else task["test"]
        films = load_task("film_reviews")["test"]["text"]
        self.plain = {"prose": load_prose()[: 2 if quick else None], "film reviews": films[: 2 if quick else 100]}

    def answer(self, tokenizer: Any) -> dict[str, Any]:
        """What the model as it stands answers to the test questions, and its loss on the parts of the true answers."""
        answers = generate(self.model, tokenizer, self.test["question"], max_tokens=8 if self.quick else 64)
        encoded = encode_answers(self.test, tokenizer)
        return {"answers": answers, "form": form_share(answers), **self.losses(encoded, only_form(encoded, tokenizer))}

    def losses(self, data: Dataset, form: Dataset) -> dict[str, float]:
        """The mean loss of a token of the form, and of one of the content, which is the rest."""
        (all_, n), (fixed, n_form) = (
            (evaluate(AnswerLoss(self.model), rows)["loss"], TokenTexts(rows).counted(range(len(rows))))
            for rows in (data, form)
        )
        return {"form_loss": fixed, "content_loss": (all_ * n - fixed * n_form) / (n - n_form)}

    def split(self, history: History) -> None:
        """After a validation, add the losses of its two parts."""
        if history.validation and history.validation[-1]["step"] == history.steps:
            history.validation[-1].update(self.losses(self.packed["validation"], self.form))

    def look(self) -> dict[str, Any]:
        """What the model does as it stands, and how well it predicts other texts."""
        perplexities = {kind: perplexity(self.model, self.tokenizer, texts) for kind, texts in self.plain.items()}
        return {**self.answer(self.tokenizer), "perplexity": perplexities}

    def bare(self) -> dict[str, Any]:
        """The model as it comes."""
        return {**self.look(), "validation": [{"step": 0, **self.losses(self.packed["validation"], self.form)}]}

    def prompted(self, instruction: bool, examples: int, seed: int) -> dict[str, Any]:
        """The bare model, told what the form is, or shown it in answers from the training data."""
        before = [{"role": "system", "content": INSTRUCTION}] if instruction else []
        for row in random.Random(seed).sample(list(self.examples), examples):
            before += [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ]
        asked = Asked(self.tokenizer, before)
        prompts = [chat_prompt(tokenizer, self.test["question"][0]) for tokenizer in (self.tokenizer, asked)]
        plain, longer = map(len, self.tokenizer(prompts, add_special_tokens=False)["input_ids"])
        return {"seed": seed, "tokens_more": longer - plain, **self.answer(asked)}

    def run(self, settings: dict[str, Any], seed: int, bare: dict[str, Any]) -> dict[str, Any]:
        """Train adapters, look at the model with them and without, and take them out again."""
        settings = {**settings, "steps": 2} if self.quick else settings
        torch.manual_seed(seed)
        trainable = prepare(self.model, "adapter", CONFIG).trainable
        history = train(
            AnswerLoss(self.model), self.packed["train"], self.packed["validation"], validate_every=10,
            batch_size=ROWS_A_STEP, seed=seed, progress=False, on_step=self.split, **settings,
        )  # fmt: skip
        trained = self.look()
        set_active_adapter(self.model, None)
        off = self.look()
        remove_adapters(self.model)
        return {
            "seed": seed, **settings, "trainable": trainable, "seconds": round(history.seconds, 1),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "loss": [round(value, 4) for value in history.loss], "validation": history.validation,
            "off_is_exactly_as_before": off.items() <= bare.items(), **trained,
        }  # fmt: skip

    def beside(self, method: str, rate: float, seed: int) -> dict[str, Any]:
        """Train one of ``BESIDE`` until the validation loss rises, go back to its best weights, and let it answer."""
        torch.manual_seed(seed)
        trainable = prepare(self.model, method, BESIDE[method]).trainable
        history = train(
            AnswerLoss(self.model), self.packed["train"], self.packed["validation"], batch_size=ROWS_A_STEP, seed=seed,
            learning_rate=rate, progress=False, **SWEEP | ({"steps": 2, "validate_every": 1} if self.quick else {}),
        )  # fmt: skip
        answered = self.answer(self.tokenizer)
        remove_adapters(self.model)
        return {
            "seed": seed, "learning_rate": rate, "trainable": trainable, "steps": history.steps,
            "stopped": history.stopped, "seconds": round(history.seconds, 1), "validation": history.validation,
            "best_loss": min(entry["loss"] for entry in history.validation), **answered,
        }  # fmt: skip

    def speed(self) -> dict[str, Any]:
        """Seconds of a training step on the same texts, padded and packed."""
        films = self.tokenizer(self.plain["film reviews"][:24])["input_ids"]
        kinds = {
            "dialogues": (self.data["train"].select(range(2 if self.quick else 12)), ROW),
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
    if "form_loss" not in results.get("bare", {}):
        keep("bare", bench.bare())
    if "speed" not in results:
        keep("speed", bench.speed())
    for method in BESIDE:
        runs = results.get("beside", {}).get(method, [])
        for seed in SEEDS[: 1 if quick else None]:
            best = min(runs, key=lambda run: run["best_loss"])["learning_rate"] if seed else 0.0
            for rate in (best,) if seed else RATES[:: 3 if quick else 1]:
                if (seed, rate) not in {(run["seed"], run["learning_rate"]) for run in runs}:
                    runs = [*runs, bench.beside(method, rate, seed)]
                    keep("beside", {**results.get("beside", {}), method: runs})
    parts: list[tuple[str, str, int, Callable[[], dict[str, Any]]]] = [
        *(
            ("prompts", label, seed, partial(bench.prompted, told, examples, seed))
            for label, told, examples, seed in PROMPTS
        ),
        *(("rows", label, seed, partial(bench.run, settings, seed, results["bare"])) for label, settings, seed in RUNS),
    ]
    for part, label, seed, measure in parts[:: 9 if quick else 1]:
        rows = results.get(part, {})
        runs = {run["seed"]: run for run in rows.get(label, {"runs": []})["runs"]}
        if "form_loss" not in runs.get(seed, {}):  # older runs lack it
            runs[seed] = measure()
            keep(part, {**rows, label: {"runs": [runs[n] for n in sorted(runs)]}})


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
