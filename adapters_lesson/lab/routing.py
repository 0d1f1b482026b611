"""The routing explorer: which task's adapters and head answer which row of a mixed batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from itertools import cycle
from typing import Any

import torch

from ..adapter import AdapterConfig
from ..architectures import architecture_of, blocks_of
from ..bank import AdapterBank, grouped
from ..modes import kept_modes
from ..plots import Picture
from ..plots.routing import MAX_ROWS, MixedBatch, rounded, routing
from ..pretrained import load_tokenizer
from ..slots import AdapterSlot
from ..tasks import encode, load_task, make_dataset
from ..training import train
from ..transformer import SmallTransformer
from .frame import Explorer, button, choice, row

# From the tasks' test data, the first sentence three times: one sees what the adapter and what the aspect change.
_ASPECTS = "We found the breakfast wonderful, whereas the sofa was horrible."
EXAMPLES = (
    (f"breakfast: {_ASPECTS}", "sentiment"),
    (f"sofa: {_ASPECTS}", "sentiment"),
    ("a refreshingly authentic coming-of-age tale .", "film"),
    (f"sofa: {_ASPECTS}", "aspect"),
    ("laggard drama wending its way to an uninspired philosophical epiphany .", "film"),
    ("it's a wonderful , sobering , heart-felt drama .", None),
)


# The features of a text by itself with a task's adapters, by (text, task).
Alone = dict[tuple[str, str | None], torch.Tensor]


def answer_mixed(
    bank: AdapterBank, texts: Sequence[str], adapters: Sequence[str | None], alone: Alone | None = None
) -> MixedBatch:
    """Answer ``texts``, each by its task, in one pass; then one by one and without padding, to compare.

    Compared are the logits, and the features of rows without a task. The bank is left as it was.

    Args:
        bank: its base model reads MiniLM's tokens.
        texts: at most ``MAX_ROWS``.
        adapters: the task of each text, or None for the bare base model.
        alone: what was computed one by one before with the same weights, to be used again and added to.

    Raises:
        ValueError: for no or too many texts, another number of names, or an unknown name.
    """
    if not 1 <= len(texts) <= MAX_ROWS:
        raise ValueError(f"the picture has room for 1 to {MAX_ROWS} texts, not {len(texts)}")
    ids, mask = _tokens(tuple(texts))

    def results(features: torch.Tensor) -> list[torch.Tensor]:
        return [of if name is None else bank.logits(name, of) for name, of in zip(adapters, features, strict=True)]

    with torch.inference_mode(), kept_modes(bank):
        bank.eval()
        together = results(bank.features(ids, mask, adapters))
        alone = {} if alone is None else alone
        for i, row in enumerate(zip(texts, adapters, strict=True)):
            if row not in alone:
                length = int(mask[i].sum())
                (alone[row],) = bank.features(ids[[i], :length], mask[[i], :length], [adapters[i]])
        apart = results(torch.stack([alone[row] for row in zip(texts, adapters, strict=True)]))
    answers: list[tuple[str, float] | None] = []
    for name, logits in zip(adapters, together, strict=True):
        probability, label = logits.softmax(-1).max(-1)
        answers.append(None if name is None else (bank.labels[name][int(label)], probability.item()))
    difference = max((a - b).abs().max().item() for a, b in zip(together, apart, strict=True))
    labels = {name: len(of) for name, of in bank.labels.items()}
    return MixedBatch(tuple(texts), tuple(adapters), tuple(answers), difference, labels, adapter_places(bank))


@cache
def _tokens(texts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = load_tokenizer()(list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def adapter_places(bank: AdapterBank) -> list[dict[str, list[str]]]:
    """For each block and task where its adapters are: after the "attention", after the "FFN", or "beside" it."""
    at = architecture_of(bank.base_model)
    places = []
    for block in blocks_of(bank.base_model):
        here: dict[str, list[str]] = {}
        for path, slot in block.named_modules():
            host, _, kind = path.rpartition(".")
            if isinstance(slot, AdapterSlot) and kind != "trained_norms":
                place = "beside" if kind == "parallel_adapters" else "FFN"
                for name in slot:
                    here.setdefault(name, []).append("attention" if host == at.attention_output else place)
        places.append(here)
    return places


def draw_routing(
    bank: AdapterBank, texts: Sequence[str], adapters: Sequence[str | None], alone: Alone | None = None
) -> Picture:
    """A mixed batch's ways through the base model, the adapters in it and the heads; arguments as ``answer_mixed``."""
    batch = answer_mixed(bank, texts, adapters, alone)
    return Picture(routing(batch), _sentence(batch))


def _sentence(batch: MixedBatch) -> str:
    rows = "; ".join(
        f"row {i + 1} to {name}: {answer[0]}, {answer[1]:.2f}" if answer else f"row {i + 1} to no task"
        for i, (name, answer) in enumerate(zip(batch.adapters, batch.answers, strict=True))
    )
    return (
        f"{rows[0].upper()}{rows[1:]}. One pass through the base model, instead of {len(batch.texts)} row by row or "
        f"{len(grouped(batch.adapters)[1])} task by task. The largest difference from the rows one by one is "
        f"{rounded(batch.difference)}."
    )


@cache
def example_bank() -> AdapterBank:
    """Three tasks on three layers of MiniLM, trained here in half a minute: a placement and a number of labels each.

    "sentiment" (of the aspect before the colon), "aspect" (which one that is) and "film" (does the review like it?).
    """
    data = {"sentiment": load_task("aspect_sentiment")["train"], "film": load_task("film_reviews")["train"]}
    named = [text.partition(":")[0] for text in data["sentiment"]["text"]]
    data["aspect"] = make_dataset(data["sentiment"]["text"], named, sorted(set(named)))
    recipes = {
        "sentiment": (AdapterConfig(bottleneck_dim=32, train_layer_norms=True), 5e-3, 1500, 2),
        "film": (AdapterConfig(bottleneck_dim=16, placement="pfeiffer"), 5e-3, 1000, 1),
        "aspect": (AdapterConfig(bottleneck_dim=8, placement="parallel"), 1e-2, 600, 1),
    }
    with torch.random.fork_rng(devices=[]):  # what later cells draw should not depend on it
        torch.manual_seed(0)
        bank = AdapterBank(SmallTransformer.from_minilm(3))
        for name, (config, learning_rate, examples, epochs) in recipes.items():
            bank.add(name, config, data[name].features["label"].names)
            few = encode(data[name].select(range(examples)), load_tokenizer())
            train(bank, few, epochs=epochs, batch_size=16, learning_rate=learning_rate)
    bank.switch(None)
    return bank


def routing_explorer(bank: AdapterBank | None = None, texts: Sequence[str] | None = None) -> Explorer:
    """A task to choose for each row, buttons that choose for all of them, and ``draw_routing``.

    Args:
        bank: its base model reads MiniLM's tokens; left out, ``example_bank`` with texts of its own.
        texts: at most ``MAX_ROWS``; they come with the bank.

    Raises:
        ValueError: for a bank without tasks or without texts.
    """
    start = [name or "" for _, name in EXAMPLES]
    if bank is None and texts is None:
        bank, texts = example_bank(), [text for text, _ in EXAMPLES]
    elif bank is None or not texts or not bank.heads:
        raise ValueError("give a bank with at least one task, and texts; or neither, for the example")
    else:
        start = [name for name, _ in zip(cycle(bank.heads), texts, strict=False)]
    rows = range(len(texts))
    options = [("no task", ""), *((name, name) for name in bank.heads)]
    knobs = {f"row_{i + 1}": choice(f"row {i + 1}", start[i], options) for i in rows}
    chance = random.Random(0)

    def assign(values: Sequence[str]) -> None:
        for knob, value in zip(knobs.values(), values, strict=True):
            knob.value = value

    def to_all(label: str, value: str) -> Any:
        return button(f"All to {label}", f"Every row to {label}", lambda: assign([value for _ in rows]))

    def shuffle() -> None:
        assign(chance.choices([value for _, value in options], k=len(rows)))

    alone: Alone = {}
    weights: list[int] = []

    def draw(**chosen: str) -> Picture:
        versions = [parameter._version for parameter in bank.parameters()]  # they count the changes
        if versions != weights:
            alone.clear()
            weights[:] = versions
        return draw_routing(bank, texts, [name or None for name in chosen.values()], alone)

    explorer = Explorer("A mixed batch: which adapter answers which row", draw, knobs)
    explorer.buttons = [
        *(to_all(*option) for option in options),
        button("Shuffle", "A task at random for each row", shuffle),
    ]
    explorer.add(row(*explorer.buttons))
    return explorer
