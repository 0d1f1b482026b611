"""Drawings of live modules: how they are wired, the size of each part, and whether it is trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from adapters_lesson.adapter import Adapter
from adapters_lesson.architectures import architecture_of, blocks_of, find, find_all
from adapters_lesson.course.lesson_source import course
from adapters_lesson.placements import BARE_FORMULA, PLACEMENTS
from adapters_lesson.slots import (
    AdapterSlot,
    BeforeNormSlot,
    LinearSlot,
    NormSlot,
    ParallelSlot,
    SequentialSlot,
    slots_of,
)

from .picture import Picture
from .svg import WIDTH, Drawing

_WIDE, _MIDDLE = 62, 165  # of an adapter's drawing: half the height of d numbers, and where its middle is


@dataclass(frozen=True)
class Part:
    """One box of a block's wiring, or a sum."""

    label: str
    parameters: int = 0
    trained: bool = False

    @property
    def is_sum(self) -> bool:
        return self.label == "+"

    @property
    def half(self) -> int:  # of its width
        return 14 if self.is_sum else 42


@dataclass
class Wiring:
    """A block as a row of parts."""

    parts: list[Part] = field(default_factory=list)
    skips: list[tuple[int, int]] = field(default_factory=list)  # from after part i (-1: the input) to part j
    beside: tuple[int, Part] | None = None  # what works in parallel with the FFN, with the index of the FFN
    formula: str = ""

    def add(self, *parts: Part | None) -> int:
        """Put parts at the end, leaving out None; returns the index of the last one."""
        self.parts += filter(None, parts)
        return len(self.parts) - 1

    def add_sum(self, start: int) -> int:
        """A sum at the end with what leads there from after part ``start``."""
        self.skips.append((start, self.add(Part("+"))))
        return len(self.parts) - 1


def wiring_of(model: nn.Module, layer: int = 0) -> Wiring:
    """How block ``layer`` of ``model`` is wired, read off its modules: which active adapters, what is trained.

    Raises ValueError when adapters are active in a place of which nothing is known here, or for another form of block.
    """
    at, block = architecture_of(model), blocks_of(model)[layer]
    norms = [norm for name in at.norms for norm in find_all(block, name)]
    ends = [find(block, name) for name in (at.attention_output, at.ffn_output)]
    if len(norms) != 2 or not set(ends).isdisjoint(norms) or getattr(block, "use_parallel_residual", False):
        kind = type(block).__name__
        raise ValueError(f"the wiring of a {kind} cannot be drawn: it is no row of one norm and one sub-layer, twice")
    path = at.attention_output.split(".")
    above = (".".join(path[:i]) for i in range(1, len(path) + 1))  # the highest module without the FFN in it
    attention = next(name for name in above if ends[1] not in find(block, name).modules())
    outside = [slot for slot in slots_of(block) if not isinstance(slot, LinearSlot)]  # LoRA is inside the sub-layers
    missing: dict[int, Any] = {id(slot): slot for slot in outside if slot.current is not None}  # not drawn yet
    configs = [slot.configs[slot.active] for slot in missing.values() if not isinstance(slot, NormSlot)]
    put_in = {id(p) for module in (*outside, *norms) for p in module.parameters()}
    own: dict[bool, list[nn.Parameter]] = {True: [], False: []}  # by whether they are the attention's
    for name, parameter in block.named_parameters():
        if id(parameter) not in put_in:
            own[name.startswith(f"{attention}.")].append(parameter)

    def slot_part(host: nn.Module, kind: type[AdapterSlot], label: str = "") -> Part | None:
        slot = missing.pop(id(getattr(host, kind.attribute, None)), None)
        if slot is None:
            return None
        name = slot.configs[slot.active].kind
        return _part(label or ("adapter" if name == "bottleneck" else name), slot.current.parameters())

    wires = Wiring()
    for label, norm, output in (("attention", norms[0], at.attention_output), ("FFN", norms[-1], at.ffn_output)):
        start, projection = len(wires.parts) - 1, find(block, output)
        norm_part = slot_part(norm, NormSlot, "LayerNorm") or _part("LayerNorm", norm.parameters(recurse=False))
        sublayer = wires.add(norm_part if at.norm == "pre" else None, _part(label, own[label == "attention"]))
        if label == "FFN" and (beside := slot_part(projection, ParallelSlot)):
            wires.beside = (sublayer, beside)
        wires.add(slot_part(projection, SequentialSlot))
        total = wires.add_sum(start)
        if at.norm == "post":
            wires.add(norm_part)
            if label == "FFN" and (before := slot_part(norm, BeforeNormSlot)):
                wires.add(replace(before, label=f"{before.label}\n(update)"))
                wires.add_sum(total)
                wires.add(replace(norm_part, label="LayerNorm,\nthe same"))
    wires.add(slot_part(block, SequentialSlot))
    if missing:
        slot = next(iter(missing.values()))
        where = f"a {type(slot).__name__} where {slot.active!r} hangs, so the picture would leave it out"
        raise ValueError(f"the wiring cannot be drawn: nothing is known here of {where}")
    wires.formula = PLACEMENTS[configs[0].placement].formula[at.norm] if configs else BARE_FORMULA[at.norm]
    return wires


def _part(label: str, parameters: Iterable[nn.Parameter]) -> Part:
    parameters = list(parameters)
    return Part(label, sum(p.numel() for p in parameters), any(p.requires_grad for p in parameters))


def adapter_diagram(adapter: Adapter, height: float = 285) -> Drawing:
    """The adapter as it is, sizes and counts from its tensors, in the uppermost 285 pixels of a sheet of ``height``."""
    on, d, m = Drawing(WIDTH, height), adapter.down_project.in_features, adapter.down_project.out_features
    narrow, y = max(2, _WIDE * m / d), _MIDDLE

    def projection(x: float, left: float, right: float, module: nn.Linear, name: str) -> None:
        count, trained = sum(p.numel() for p in module.parameters()), module.weight.requires_grad
        corners = [(x - 64, y - left), (x + 64, y - right), (x + 64, y + right), (x - 64, y + left)]
        on.area(corners, "trained" if trained else "frozen", f"{name}: {'trained' if trained else 'frozen'}")
        shape = " × ".join(map(str, reversed(module.weight.shape)))
        on.text(x, y - _WIDE - 24, f"{name}\n{shape}: {count:,}", 14, "middle")

    on.line([(74, y - _WIDE), (74, 36), (760, 36), (760, y - 15)], arrow=True)
    on.text(417, 20, "the residual connection carries h past the bottleneck", 13, "middle")
    for start, end in ((83, 136), (268, 302), (322, 345), (437, 456), (476, 506), (638, 667), (687, 743), (776, 827)):
        on.line([(start, y), (end, y)], arrow=True)
    projection(203, _WIDE, narrow, adapter.down_project, "down_project")
    projection(572, narrow, _WIDE, adapter.up_project, "up_project")
    on.box(347, y - 18, 89, 36, "paper", round=8)
    on.text(391, y, type(adapter.activation).__name__, 15, "middle")
    _draw(on, 760, y, Part("+"))
    scale = "" if adapter.scaling == 1 else f"× {adapter.scaling:g}\n"
    wide = ((74, f"h\n{d}"), (677, f"update\n{scale}{d}"), (837, f"output\n{d}"))
    for x, half, words in (*((x, _WIDE, words) for x, words in wide), (312, narrow, f"{m}"), (466, narrow, f"{m}")):
        on.box(x - 8, y - half, 16, 2 * half, "paper", round=2)
        on.text(x, y + half + 10 * len(words.split("\n")) + 2, words, 14, "middle")
    return on


def wiring(model: nn.Module, layer: int = 0, title: str = "") -> Drawing:
    """Draw one block: frozen parts grey, trained parts coloured and with a thick edge, each with its parameters."""
    wires = wiring_of(model, layer)
    return draw_wiring(wires, title or "one block", 280 if wires.beside else 195)


def draw_wiring(wires: Wiring, title: str, height: float) -> Drawing:
    """A block's parts from left to right, with title and formula, in the uppermost 195 pixels; 280 with one beside."""
    on = Drawing(WIDTH, height)
    on.text(12, 18, title, 15, bold=True)
    on.text(12, 42, f"after the FFN:  {wires.formula}", 14)
    xs, y, below = spread(wires.parts), 150, 240
    on.text(12, y, "in", 14)
    ends = [(x - part.half, x + part.half) for x, part in zip(xs, wires.parts, strict=True)]
    for (_, start), (end, _) in zip([(0, 32), *ends], [*ends, (WIDTH - 10, 0)], strict=True):
        on.line([(start, y), (end, y)], arrow=True)

    # Where a line branches off after a part; the last place is the input's, -1.
    leaves = [*(x + (14 if part.is_sum else 48) for x, part in zip(xs, wires.parts, strict=True)), 40]
    for level, (start, end) in enumerate(wires.skips):
        top = 88 - 20 * (level == 2)  # Pfeiffer's second skip begins where the other ends: one storey higher
        on.line([(leaves[start], y), (leaves[start], top), (xs[end], top), (xs[end], y - 14)], arrow=True)
    if wires.beside is not None:
        ffn, part = wires.beside
        start, end = wires.skips[-1]
        on.line([(leaves[start], y), (leaves[start], below), (xs[ffn] - part.half, below)], arrow=True)
        on.line([(xs[ffn] + part.half, below), (xs[end], below), (xs[end], y + 14)], arrow=True)
        _draw(on, xs[ffn], below, part)
    for x, part in zip(xs, wires.parts, strict=True):
        _draw(on, x, y, part)
    return on


def spread(parts: Sequence[Part]) -> list[float]:
    """The middles of a block's parts if these fill the width with equal gaps."""
    widths = [2 * part.half for part in parts]
    left, right = 64, WIDTH - 38  # room for "in" and for the last arrow
    gap = (right - left - sum(widths)) / (len(parts) - 1)
    return [left + sum(widths[:i]) + i * gap + width / 2 for i, width in enumerate(widths)]


def course_map(page: str = "{}.ipynb") -> Picture:
    """The lessons, which of them each builds on, and where the learner's own pieces run; ``page``: where they are."""
    rows, said = {row["lesson"][:2]: row for row in course()}, ["Map of the lessons."]
    at = {number: (20 + 22 * i, 26 + 50 * i) for i, number in enumerate(rows)}
    on, end = Drawing(WIDTH, 50 * len(rows) + 36), 50 * len(rows) + 18
    needed = {number: row["builds_on"].split() for number, row in rows.items()}
    wrote = {number: {f"{piece:0>4}"[:2]: "" for piece in row["uses"].split()} for number, row in rows.items()}
    for number, (x, y) in at.items():  # first, so that what stands on a line covers it
        for n in sorted({*needed[number], *wrote[number]}):
            on.line([at[n], (at[n][0], y), (x, y)], "fill: none; stroke: #888")
    for (number, row), (x, y) in zip(rows.items(), at.values(), strict=True):
        yours = f"your {row['uses'].replace(' ', ', ')}" * bool(row["uses"])
        for n in needed[number]:
            on.circle(at[n][0], y, 8, "paper", f"{number} builds on {n}")
        for n in wrote[number]:
            on.circle(at[n][0], y, 4.5, "bar", f"{number} runs on {yours}")
        build = f"; builds on {', '.join(needed[number])}" * bool(needed[number]) + f"; runs on {yours}" * bool(yours)
        said.append(f"{number} {row['title']}: {row['question']} {row['minutes']} minutes{build}.")
        on.circle(x, y, 12, "bar", said[-1])
        on.text(x, y, number, 13, "middle", "fill: white")
        on.link(310, y - 20, 300, row["title"], page.format(row["lesson"]))
        on.text(310, y + 11, row["question"], 13)
        on.text(WIDTH - 8, y, f"{yours}\n{row['minutes']} min", 13, "end")
    for x, look, size, words in (
        (318, "paper", 8, "builds on that"),
        (470, "bar", 4.5, "runs on what you wrote there"),
    ):
        on.circle(x, end, size, look)
        on.text(x + 14, end, words, 13)
    return Picture(on, " ".join(said))


def _draw(on: Drawing, x: float, y: float, part: Part) -> None:
    state, name = "trained" if part.trained else "frozen", part.label.replace("\n", " ")
    if part.is_sum:
        on.circle(x, y, 14, "paper", "sum")
        on.text(x, y, "+", 18, "middle")
    else:
        on.box(x - 42, y - 29, 84, 58, state, f"{name}: {part.parameters:,} parameters, {state}", round=5)
        on.text(x, y, f"{part.label}\n{part.parameters:,}", 13, "middle", "fill: white" if part.trained else "")
