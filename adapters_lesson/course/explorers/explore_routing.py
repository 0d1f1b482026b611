"""The routing explorer: which task's adapters and head answer which row of a mixed batch, and whether as if alone."""

import math
import random
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import cycle, islice

import torch

from adapters_lesson.architectures import architecture_of, blocks_of
from adapters_lesson.bank import AdapterBank, grouped
from adapters_lesson.course.figures.picture import Picture
from adapters_lesson.course.figures.style import PALETTE
from adapters_lesson.course.figures.svg import LOOKS, WIDTH, Drawing
from adapters_lesson.data import load_tokenizer
from adapters_lesson.modes import kept_modes
from adapters_lesson.placements import placement_of
from adapters_lesson.slots import NormSlot, slots_of

from .frame import Explorer, button, choice, row

MAX_ROWS = 8
# Each task has a colour and a line of its own. Tasks beyond six begin them again.
_LINES = ("none", "10 3", "3 2", "11 3 3 3", "17 4", "6 2 2 2 2 2")
_BASE, _BASE_WIDTH, _HEADS, _HEAD_WIDTH, _ANSWERS = 384, 205, 623, 116, 798
_STANDS = {"attention": (0.36, 0.11), "FFN": (0.84, 0.11), "beside": (0.6, 0.14), "block": (0.36, 0.59)}  # from, width


def routing_explorer(bank: AdapterBank, texts: Sequence[str]) -> Explorer:
    """A task to choose for each row, and buttons that choose for all of them; ValueError without tasks or texts."""
    if not texts or not bank.heads:
        raise ValueError("give a bank with at least one task, and texts")
    chance, names = random.Random(0), {"": "no task", **{name: name for name in bank.heads}}
    options, start = [(label, name) for name, label in names.items()], islice(cycle(bank.heads), len(texts))
    knobs = {f"row_{i}": choice(f"row {i}", name, options) for i, name in enumerate(start, 1)}

    def assign(chosen: Sequence[str]) -> None:
        for knob, value in zip(knobs.values(), chosen, strict=True):
            knob.value = value

    buttons = [
        button(f"All to {label}", f"Every row to {label}", partial(assign, [name] * len(knobs)))
        for name, label in names.items()
    ]
    shuffle = button("Shuffle", "A task at random for each row", lambda: assign(chance.choices([*names], k=len(knobs))))
    return Explorer(
        "A mixed batch: which adapter answers which row",
        lambda **chosen: draw_routing(bank, texts, [name or None for name in chosen.values()]),
        knobs,
        more=[row(*buttons, shuffle)],
    )


def draw_routing(bank: AdapterBank, texts: Sequence[str], adapters: Sequence[str | None]) -> Picture:
    """The ways of a mixed batch through base model, adapters and heads; arguments and errors as ``answer_mixed``."""
    batch = answer_mixed(bank, texts, adapters)
    rows = "; row ".join(
        f"{i} to {name}: {answer[0]}, {answer[1]:.2f}" if answer else f"{i} to no task"
        for i, (name, answer) in enumerate(zip(batch.adapters, batch.answers, strict=True), 1)
    )
    return Picture(
        routing(batch),
        f"Row {rows}. One pass through the base model, instead of {len(batch.texts)} row by row or "
        f"{len(grouped(batch.adapters)[1])} task by task. The largest difference from the rows one by one is "
        f"{batch.difference:.1g}.",
    )


@dataclass(frozen=True)
class MixedBatch:
    """A batch whose rows, at most ``MAX_ROWS``, belong to different tasks, and what came of it."""

    texts: Sequence[str]
    adapters: Sequence[str | None]  # the task of each row, None for the bare base model
    answers: Sequence[tuple[str, float] | None]  # a label and its probability, None without a task
    difference: float  # the largest of any result from that of the row by itself
    labels: Mapping[str, int]  # how many each of the bank's tasks has
    places: Sequence[Mapping[str, Sequence[str]]]  # see adapter_places

    def look(self, name: str | None) -> tuple[str, str]:
        """Colour and dashes of a task, the same whatever else is in the batch."""
        if name is None:
            return "#7F7F7F", "2 4"
        place = list(self.labels).index(name) % len(_LINES)
        return PALETTE[place], _LINES[place]


def answer_mixed(bank: AdapterBank, texts: Sequence[str], adapters: Sequence[str | None]) -> MixedBatch:
    """Answer ``texts``, each by its task or None, in one pass; then one by one and without padding, to compare.

    Compared are the logits, and the features of rows without a task. The base model reads MiniLM's tokens. Raises
    ValueError for no or too many texts, another number of names, or an unknown name.
    """
    if not 1 <= len(texts) <= MAX_ROWS:
        raise ValueError(f"the picture has room for 1 to {MAX_ROWS} texts, not {len(texts)}")
    ids, mask = _tokens(tuple(texts))

    def results(features: torch.Tensor) -> list[torch.Tensor]:
        return [of if name is None else bank.logits(name, of) for name, of in zip(adapters, features, strict=True)]

    changes = tuple(parameter._version for parameter in bank.parameters())
    with torch.inference_mode(), kept_modes(bank):
        bank.eval()
        together = results(bank.features(ids, mask, adapters))
        apart = results(torch.cat([_alone(bank, *of, changes) for of in zip(texts, adapters, strict=True)]))
    answers: list[tuple[str, float] | None] = []
    for name, logits in zip(adapters, together, strict=True):
        probability, label = logits.softmax(-1).max(-1)
        answers.append(None if name is None else (bank.labels[name][int(label)], probability.item()))
    difference = max((a - b).abs().max().item() for a, b in zip(together, apart, strict=True))
    labels = {name: len(of) for name, of in bank.labels.items()}
    return MixedBatch(texts, adapters, answers, difference, labels, adapter_places(bank))


@lru_cache(maxsize=256)
def _alone(bank: AdapterBank, text: str, name: str | None, changes: tuple[int, ...]) -> torch.Tensor:
    """The features of a text by itself with a task's adapters, after so many ``changes`` of each weight."""
    return bank.features(*_tokens((text,)), [name])


@cache
def _tokens(texts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = load_tokenizer()(list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def adapter_places(bank: AdapterBank) -> list[dict[str, list[str]]]:
    """For each block and task where its adapters are: after the "attention", after the "FFN", or "beside" it."""
    norm = architecture_of(bank.base_model).norm
    places = []
    for block in blocks_of(bank.base_model):
        slots = [slot for slot in slots_of(block) if not isinstance(slot, NormSlot)]
        named = {name: placement_of(config) for slot in slots for name, config in slot.configs.items()}
        places.append({name: [site.words for site in of.sites[norm]] for name, of in named.items()})
    return places


def routing(batch: MixedBatch) -> Drawing:
    """Rows, their ways through the blocks with the adapters there, heads and answers; always of the same size."""
    on, count = Drawing(WIDTH, 430), len(batch.texts)
    step = min(61.0, 336 / count)
    heights = [218 + step * (i - (count - 1) / 2) for i in range(count)]
    order, groups = grouped(batch.adapters)
    top, bottom, width = heights[0] - step / 2, heights[-1] + step / 2, _BASE_WIDTH / len(batch.places)
    for i in range(len(batch.places)):
        for start, label in ((0.04, "att."), (0.52, "FFN")):
            x = _BASE + (i + start) * width
            on.box(x, top, 0.3 * width, bottom - top, "frozen", f"block {i}, {label}: frozen")
            on.text(x + 0.15 * width, bottom + 10, label if width > 50 else "", 12, "middle")
    on.text(_BASE + _BASE_WIDTH / 2, top - 10, f"blocks: {len(batch.places)}", 12, "middle")
    for i, (text, answer, y) in enumerate(zip(batch.texts, batch.answers, heights, strict=True), 1):
        lines = textwrap.wrap(text, 42, max_lines=2, placeholder=" …", break_on_hyphens=False)
        on.text(8, y, f"{i}", 14, bold=True)
        on.text(28, y, "\n".join(lines), 12)
        on.text(_ANSWERS, y, "no answer" if answer is None else f"{short(answer[0])}\n{answer[1]:.2f}")
    for y, i in zip(heights, order, strict=True):
        _draw_way(on, batch.look(batch.adapters[i]), heights[i], y)
    tops = iter(heights)
    for name, rows in groups:
        top, *_ = islice(tops, rows)
        _draw_task(on, batch, name, top - 0.37 * step, (rows - 0.26) * step)
    on.text(8, 16, "the batch", 14, bold=True)
    on.text(_BASE + _BASE_WIDTH / 2, 16, "the base model, once for all rows", 14, "middle", bold=True)
    on.text(_HEADS + _HEAD_WIDTH / 2, 16, "heads", 14, "middle", bold=True)
    on.text(_ANSWERS, 16, "answers", 14, bold=True)
    passes = "1 pass" + f" instead of {count}" * (count > 1)
    on.text(8, 416, f"{passes}; largest difference from row by row: {batch.difference:.1g}", 14)
    on.text(WIDTH - 8, 416, "grey: frozen; coloured: the task's own", 13, "end")
    return on


def short(text: str) -> str:
    """``text``, cut to 13 characters."""
    return text if len(text) <= 13 else f"{text[:12]}…"


def _draw_way(on: Drawing, look: tuple[str, str], own: float, lane: float) -> None:
    """From a text's height to a lane beside its task's other rows, through base and head, and back again."""
    colour, dashes = look
    across = [i / 12 for i in range(13)]
    bend = [(1 - math.cos(math.pi * a)) / 2 for a in across]
    there = [(321 + 52 * a, own + (lane - own) * b) for a, b in zip(across, bend, strict=True)]
    back = [(_HEADS + _HEAD_WIDTH + 48 * a, lane + (own - lane) * b) for a, b in zip(across, bend, strict=True)]
    on.line(there + back, f"fill: none; stroke: {colour}; stroke-width: 2.4; stroke-dasharray: {dashes}")


def _draw_task(on: Drawing, batch: MixedBatch, name: str | None, top: float, height: float) -> None:
    """A task's adapters in the base model, and its head."""
    colour, dashes = batch.look(name)
    width = _BASE_WIDTH / len(batch.places)
    for i, block in enumerate(batch.places):
        for place in block.get(name or "", ()):
            start, share = _STANDS[place]
            title = f"{name}: its adapter in block {i}, {place}"
            on.box(_BASE + (i + start) * width, top, share * width, height, f"fill: {colour}; stroke: white", title)
    edge = f"stroke: {colour}; stroke-width: 2.4; stroke-dasharray: {dashes}"
    on.box(_HEADS, top, _HEAD_WIDTH, height, f"{LOOKS['paper']}; {edge}", round=7)
    text = "no task" if name is None else f"{short(name)}\n{batch.labels[name]} labels"
    on.text(_HEADS + _HEAD_WIDTH / 2, top + height / 2, text, 12, "middle")
