"""The fusion part of data/run_many_tasks.py: adapters of three tasks are put to use for a fourth with few examples.

What is asked in the fourth, which of two aspects is judged better, follows from what is asked in the first two. Its few
examples are texts that these members were trained on, with other labels; its test texts are new to all. All rows take
the same number of steps; the seed draws the examples, the head and new weights, while the members are trained once. The
rate with the best validation accuracy (rates.py) is run with all seeds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from rates import chosen_rate  # type: ignore[import-not-found]
from torch import nn

from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, encode, load_task, load_tokenizer
from adapters_lesson.bank import AdapterBank
from adapters_lesson.composition import average_adapters, fuse_adapters, fusion_attention, stack_adapters
from adapters_lesson.insertion import freeze, insert_adapters, set_active_adapter, set_trainable
from adapters_lesson.methods import trainable
from adapters_lesson.training import Texts, evaluate, train

MEMBERS, FURTHER = ("aspect_sentiment", "aspect_agreement", "film_reviews"), "aspect_comparison"
LAYERS, WIDTH = 4, 16
CONFIG = AdapterConfig(WIDTH, placement="pfeiffer")  # as in AdapterFusion's paper
MEMBER_TEXTS, MEMBER_EPOCHS, MEMBER_RATE = 1500, 4, 3e-3
EXAMPLES, STEPS, BATCH, SEEDS = 400, 200, 16, range(5)
RATES = {"head": (3e-3, 1e-2, 3e-2), "adapter": (1e-3, 3e-3, 1e-2), "fusion": (3e-4, 1e-3)}


def ways_to_use(best: str) -> dict[str, tuple[str, Callable[[nn.Module], None]]]:
    """Label to the learning rates' kind, and what prepares a model that has the members for the further task."""

    def only_head(model: Any, name: str | None = None) -> None:
        set_active_adapter(model, name)
        freeze(model)
        model.head.requires_grad_(True)

    def made(model: Any, make: Callable[[nn.Module], object]) -> None:
        make(model)
        set_trainable(model, "new")

    def on_top(model: nn.Module) -> None:
        insert_adapters(model, CONFIG, "top")
        stack_adapters(model, [best, "top"], "new")

    return {
        "head only": ("head", only_head),
        **{f"{name}, new head": ("head", partial(only_head, name=name)) for name in MEMBERS},
        "new adapter": ("adapter", lambda model: made(model, lambda m: insert_adapters(m, CONFIG, "new"))),
        "average": ("adapter", lambda model: made(model, lambda m: average_adapters(m, MEMBERS, "new"))),
        "stack on the best member": ("adapter", lambda model: made(model, on_top)),
        "fusion": ("fusion", lambda model: made(model, lambda m: fuse_adapters(m, MEMBERS, "new"))),
    }


def fusion(results: dict[str, Any], save: Callable[[], None], quick: bool) -> None:
    """Fill ``results`` with what is missing, saving after every run."""
    data = {task: encode(load_task(task), load_tokenizer()) for task in (*MEMBERS, FURTHER)}
    steps, seeds = (2, SEEDS[:2]) if quick else (STEPS, SEEDS)
    results |= {"members": list(MEMBERS), "further": FURTHER, "layers": LAYERS, "examples": EXAMPLES}
    results |= {"bottleneck_dim": WIDTH, "placement": CONFIG.placement, "steps": steps, "batch_size": BATCH}
    rows = results.setdefault("rows", {})

    @cache
    def with_members() -> AdapterBank:
        bank = AdapterBank(SmallTransformer.from_minilm(LAYERS))
        results["member_accuracy"] = {task: member(bank, task, data[task], 2 if quick else None) for task in MEMBERS}
        return bank

    def run(label: str, rate: float, seed: int) -> dict[str, Any]:
        runs = rows.setdefault(label, {"runs": []})["runs"]
        for done in runs:
            if (done["learning_rate"], done["seed"]) == (rate, seed):
                return done
        prepare = ways_to_use(best_member(rows))[label][1]
        runs.append(one_run(with_members(), prepare, data[FURTHER], steps, rate, seed))
        print(label, runs[-1], flush=True)
        save()
        return runs[-1]

    for label, (kind, _) in ways_to_use("").items():

        def validation(rate: float, seed: int, label: str = label) -> float:
            return run(label, rate, seed)["validation"]

        rate = chosen_rate(validation, RATES[kind][: 1 if quick else None], seeds)
        for seed in seeds:
            run(label, rate, seed)
        rows[label]["learning_rate"] = rate
    results["stacked_on"] = best_member(rows)
    save()


def best_member(rows: dict[str, Any]) -> str:
    """The member whose features did best with a new head, on the validation split with the first seed."""
    runs = {name: rows.get(f"{name}, new head", {}).get("runs") for name in MEMBERS}
    scores = {
        name: max(one["validation"] for one in done if one["seed"] == SEEDS[0]) for name, done in runs.items() if done
    }
    return max(scores, key=lambda name: scores[name], default=MEMBERS[0])


def member(bank: AdapterBank, task: str, data: Any, steps: int | None) -> float:
    """Train a member, and return its test accuracy on its own task."""
    torch.manual_seed(0)
    bank.add(task, CONFIG, data["train"].features["label"].names)
    texts = data["train"].select(range(MEMBER_TEXTS))
    train(bank, texts, epochs=MEMBER_EPOCHS, steps=steps, learning_rate=MEMBER_RATE, progress=False)
    accuracy = round(evaluate(bank, data["test"])["accuracy"], 4)
    print(f"{task}: {accuracy}", flush=True)
    return accuracy


def one_run(
    bank: AdapterBank, prepare: Callable[[nn.Module], None], data: Any, steps: int, rate: float, seed: int
) -> dict[str, Any]:
    """Train once on the further task; the seed also draws the examples."""
    few = data["train"].shuffle(seed=seed).select(range(EXAMPLES))
    torch.manual_seed(seed)
    model = Classifier(copy.deepcopy(bank.base_model), data["train"].features["label"].num_classes)
    prepare(model)
    history = train(model, few, steps=steps, batch_size=BATCH, learning_rate=rate, seed=seed, progress=False)
    result: dict[str, Any] = {
        "seed": seed,
        "learning_rate": rate,
        "trainable": trainable(model).without_head,
        "loss": round(sum(history.loss[-10:]) / len(history.loss[-10:]), 4),
        "validation": round(evaluate(model, data["validation"])["accuracy"], 4),
        "test": round(evaluate(model, data["test"])["accuracy"], 4),
    }
    if any(".new.query." in name for name, _ in model.named_parameters()):
        texts = Texts(data["test"])
        ids, mask, _ = texts.batch(list(range(len(texts.ids)))[:200])
        mean = fusion_attention(model, "new", ids, mask).sum((0, 3)) / mask.sum()
        result["attention"] = [[round(value, 4) for value in place] for place in mean.tolist()]
    return result
