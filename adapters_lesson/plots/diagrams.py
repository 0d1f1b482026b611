"""Drawings of live modules: what is there, its size, and whether it is trained."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from torch import nn

from ..adapter import Adapter
from ..architectures import architecture_of, blocks_of
from ..slots import AdapterSlot
from .backdrop import Sheet
from .style import FROZEN, INK, TRAINED, blank, course_style, new_figure

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_WIDE = 1.5  # half the height of a column of d numbers


@course_style
def adapter_diagram(adapter: Adapter) -> Figure:
    """The adapter as it is: widths of the boxes as in the module, parameter counts from its tensors."""
    figure, axes = new_figure(11, 4.2)
    blank(axes)
    axes.set(xlim=(-0.2, 13.2), ylim=(-2.5, 3.1))
    draw_adapter_frame(axes)
    draw_adapter_sizes(axes, adapter)
    return figure


def draw_adapter_frame(axes: Axes | Sheet) -> None:
    """What all adapters' diagrams have in common, on a sheet from (-0.2, -2.5) to (13.2, 3.1)."""
    for x in (0.6, 10.0, 12.5):
        _column(axes, x, _WIDE)
    _sum(axes, 11.3, 0)
    for x0, x1 in (
        (0.8, 1.5),
        (3.7, 4.1),
        (4.5, 4.85),
        (6.15, 6.5),
        (6.9, 7.3),
        (9.45, 9.8),
        (10.2, 11.05),
        (11.55, 12.3),
    ):
        _arrow(axes, (x0, 0), (x1, 0))
    axes.plot([0.6, 0.6, 11.3], [_WIDE + 0.05, 2.95, 2.95], color=INK, lw=1.6)
    _arrow(axes, (11.3, 2.95), (11.3, 0.27))
    axes.text(6, 2.98, "the residual connection carries h past the bottleneck", ha="center", va="bottom", fontsize=12)


def draw_adapter_sizes(axes: Axes | Sheet, adapter: Adapter) -> None:
    """The rest of the diagram: the bottleneck as narrow as in ``adapter``, the activation, and the numbers."""
    d, m = adapter.down_project.in_features, adapter.down_project.out_features
    narrow = max(0.05, _WIDE * m / d)

    def label(x: float, half: float, text: str) -> None:
        axes.text(x, -half - 0.2, text, ha="center", va="top", fontsize=13)

    def projection(x: float, left: float, right: float, module: nn.Linear, name: str) -> None:
        colour = TRAINED if module.weight.requires_grad else FROZEN
        corners = [(x - 1.0, -left), (x + 1.0, -right), (x + 1.0, right), (x - 1.0, left)]
        axes.add_patch(Polygon(corners, fc=colour, alpha=0.85, ec=INK))
        count = sum(p.numel() for p in module.parameters())
        shape = " × ".join(map(str, reversed(module.weight.shape)))
        axes.text(x, 1.95, f"{name}\n{shape}: {count:,}", ha="center", va="bottom", fontsize=13)

    projection(2.6, _WIDE, narrow, adapter.down_project, "down_project")
    projection(8.4, narrow, _WIDE, adapter.up_project, "up_project")
    for x in (4.3, 6.7):
        _column(axes, x, narrow)
        label(x, narrow, f"{m}")
    axes.text(5.5, 0, type(adapter.activation).__name__, ha="center", va="center", fontsize=14,
              bbox={"boxstyle": "round,pad=0.4", "fc": "white", "ec": INK})  # fmt: skip
    scale = "" if adapter.scaling == 1 else f"× {adapter.scaling:g}\n"
    label(0.6, _WIDE, f"h\n{d}")
    label(10.0, _WIDE, f"update\n{scale}{d}")
    label(12.5, _WIDE, f"output\n{d}")


@dataclass(frozen=True)
class Part:
    """One box of a block's wiring."""

    label: str
    parameters: int = 0
    trained: bool = False
    is_sum: bool = False


@dataclass
class Wiring:
    """A block as a row of parts; ``skips`` leads past them from after part i (-1: the input) to part j.

    ``beside`` is the part that works in parallel with the FFN, with the index of the FFN.
    """

    parts: list[Part] = field(default_factory=list)
    skips: list[tuple[int, int]] = field(default_factory=list)
    beside: tuple[int, Part] | None = None
    formula: str = ""


def wiring_of(model: nn.Module, layer: int = 0) -> Wiring:
    """How block ``layer`` of ``model`` is wired, read off its modules: which active adapters, what is trained."""
    at = architecture_of(model)
    block = blocks_of(model)[layer]
    norms = [block.get_submodule(name) for name in at.norms]
    attention_name = at.attention_output.partition(".")[0]
    own = [
        (name, p) for name, p in block.named_parameters() if "_adapters." not in name and "trained_norms." not in name
    ]
    plain = [(name, p) for name, p in own if not any(p is q for norm in norms for q in norm.parameters())]
    attention = [p for name, p in plain if name.startswith(attention_name + ".")]
    ffn = [p for name, p in plain if not name.startswith(attention_name + ".")]
    contract = block.get_submodule(at.ffn_output)
    wires = Wiring()

    def add(part: Part) -> int:
        wires.parts.append(part)
        return len(wires.parts) - 1

    def add_sum(start: int) -> int:
        end = add(Part("+", is_sum=True))
        wires.skips.append((start, end))
        return end

    def norm_part(norm: nn.Module, again: str = "") -> Part:
        trained = _active(norm, "trained_norms")
        return _part(f"LayerNorm{again}", (trained or norm).parameters() if trained else norm.parameters(recurse=False))

    sides = (
        ("attention", attention, norms[0], block.get_submodule(at.attention_output)),
        ("FFN", ffn, norms[-1], contract),
    )
    for label, parameters, norm, projection in sides:
        start = len(wires.parts) - 1
        if at.norm == "pre":
            add(norm_part(norm))
        sublayer = add(_part(label, parameters))
        if houlsby := _active(projection, "houlsby_adapters"):
            add(_part("adapter", houlsby.parameters()))
        if (parallel := _active(projection, "parallel_adapters")) and label == "FFN":
            wires.beside = (sublayer, _part("adapter", parallel.parameters()))
        total = add_sum(start)
        if at.norm == "post":
            add(norm_part(norm))
            if label == "FFN" and (pfeiffer := _active(norm, "pfeiffer_adapters")):
                add(_part("adapter\n(update)", pfeiffer.parameters()))
                add_sum(total)
                add(norm_part(norm, ",\nthe same"))
    if at.norm == "pre" and (pfeiffer := _active(block, "pfeiffer_adapters")):
        add(_part("adapter", pfeiffer.parameters()))
    wires.formula = _formula(at.norm, wires)
    return wires


@course_style
def wiring(model: nn.Module, layer: int = 0, title: str = "") -> Figure:
    """Draw one block: frozen parts grey, trained parts coloured and with a thick edge, each with its parameters."""
    wires = wiring_of(model, layer)
    step = 1.75
    figure, axes = new_figure(max(9.0, 1.25 * len(wires.parts) + 1.2), 3.5)
    blank(axes)
    axes.set(xlim=(-1.5, step * len(wires.parts) + 0.3), ylim=(-2.3 if wires.beside else -1.25, 2.5))
    draw_wiring(axes, wires, [step * i for i in range(len(wires.parts))])
    axes.text(-1.35, 2.4, title or "one block", ha="left", va="top", fontsize=14, weight="bold")
    axes.text(-1.35, 1.85, f"after the FFN:  {wires.formula}", ha="left", va="top", fontsize=13)
    return figure


def draw_wiring(axes: Axes | Sheet, wires: Wiring, xs: Sequence[float]) -> None:
    """Draw the parts at ``xs``, 1.75 apart or more beside a box; from 2.3 below the middle to 1.3 above it."""
    height = 0.95
    axes.text(xs[0] - 1.35, 0, "in", ha="left", va="center", fontsize=13)
    for i, part in enumerate(wires.parts):
        half = 0.27 if part.is_sum else 0.72
        left = xs[0] - 1.0 if i == 0 else xs[i - 1] + (0.27 if wires.parts[i - 1].is_sum else 0.72)
        _arrow(axes, (left, 0), (xs[i] - half, 0))
        if part.is_sum:
            _sum(axes, xs[i], 0)
        else:
            _box(axes, xs[i], 0, height, part)
    last = 0.27 if wires.parts[-1].is_sum else 0.72
    _arrow(axes, (xs[-1] + last, 0), (xs[-1] + last + 0.55, 0))
    for level, (start, end) in enumerate(wires.skips):
        top = 0.95 + 0.3 * (level == 2)  # Pfeiffer's second skip begins where the other ends: one storey higher
        x0 = xs[0] - 0.86 if start < 0 else xs[start] + 0.27 if wires.parts[start].is_sum else xs[start] + 0.86
        axes.plot([x0, x0, xs[end]], [0, top, top], color=INK, lw=1.6)
        _arrow(axes, (xs[end], top), (xs[end], 0.27))
    if wires.beside is not None:
        ffn, part = wires.beside
        start, end = wires.skips[-1]
        x0 = xs[start] + (0.27 if wires.parts[start].is_sum else 0.86)
        _box(axes, xs[ffn], -1.55, height, part)
        axes.plot([x0, x0], [0, -1.55], color=INK, lw=1.6)
        _arrow(axes, (x0, -1.55), (xs[ffn] - 0.72, -1.55))
        axes.plot([xs[ffn] + 0.72, xs[end]], [-1.55, -1.55], color=INK, lw=1.6)
        _arrow(axes, (xs[end], -1.55), (xs[end], -0.27))


@course_style
def course_map(exists: Iterable[str] | None = None) -> Figure:
    """The lessons of the course, those that are there in colour, with their question and minutes."""
    with (NOTEBOOKS / "course.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    there = {path.stem for path in (NOTEBOOKS / "sources").glob("*.py")} if exists is None else set(exists)
    figure, axes = new_figure(11, 0.62 * len(rows) + 0.4)
    axes.set_axis_off()
    axes.set(xlim=(0, 11), ylim=(-len(rows) + 0.4, 0.6))
    axes.plot([0.6, 0.6], [0, -len(rows) + 1], color=FROZEN, lw=4, zorder=0)
    for i, row in enumerate(rows):
        ready = row["lesson"] in there
        axes.scatter(0.6, -i, s=620, color=TRAINED if ready else "white", ec=TRAINED if ready else "#8A8A8A", zorder=1)
        ink = INK if ready else "#6B6B6B"
        axes.text(0.6, -i, row["lesson"][:2], ha="center", va="center", color="white" if ready else ink, fontsize=13)
        axes.text(1.15, -i, row["title"], va="center", fontsize=15, weight="bold" if ready else "normal", color=ink)
        axes.text(4.05, -i, row["question"], va="center", fontsize=13, color=ink)
        axes.text(
            10.95,
            -i,
            f"{row['minutes']} min" if ready else "in preparation",
            va="center",
            ha="right",
            fontsize=13,
            color=ink,
        )
    return figure


def _active(host: nn.Module, attribute: str) -> nn.Module | None:
    slot = getattr(host, attribute, None)
    return slot.current if isinstance(slot, AdapterSlot) else None


def _part(label: str, parameters: Iterable[nn.Parameter]) -> Part:
    parameters = list(parameters)
    return Part(label, sum(p.numel() for p in parameters), any(p.requires_grad for p in parameters))


def _formula(norm: str, wires: Wiring) -> str:
    labels = [part.label for part in wires.parts]
    ffn = labels.index("FFN")
    if wires.beside is not None:
        return "LN(h + update(r) + r)" if norm == "post" else "h + update(r) + r"
    if "adapter\n(update)" in labels:
        return "LN(update(LN(h + r)) + h + r)"
    if labels[ffn + 1] == "adapter":
        return "LN(A(h) + r)" if norm == "post" else "A(h) + r"
    if labels[-1] == "adapter":
        return "A(h + r)"
    return "LN(h + r)" if norm == "post" else "h + r"


def _box(axes: Axes | Sheet, x: float, y: float, height: float, part: Part) -> None:
    style: dict[str, Any] = (
        {"fc": TRAINED, "ec": INK, "lw": 2.5} if part.trained else {"fc": FROZEN, "ec": "#8A8A8A", "lw": 1}
    )
    axes.add_patch(FancyBboxPatch((x - 0.7, y - height / 2), 1.4, height, boxstyle="round,pad=0.02", **style))
    ink = "white" if part.trained else INK
    axes.text(x, y, f"{part.label}\n{part.parameters:,}", ha="center", va="center", color=ink, fontsize=11.5)


def _column(axes: Axes | Sheet, x: float, half: float) -> None:
    axes.add_patch(FancyBboxPatch((x - 0.12, -half), 0.24, 2 * half, boxstyle="round,pad=0.02", fc="white", ec=INK))


def _sum(axes: Axes | Sheet, x: float, y: float) -> None:
    axes.text(x, y, "+", ha="center", va="center", fontsize=16,
              bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": INK})  # fmt: skip


def _arrow(axes: Axes | Sheet, start: tuple[float, float], end: tuple[float, float]) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 13, "color": INK, "lw": 1.6, "zorder": 3}
    axes.add_artist(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))  # quicker than annotate and add_patch
