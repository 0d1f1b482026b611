"""Where an adapter sits in its block, and the picture that stands where no widget works."""

from typing import Any

from adapters_lesson.course.figures.diagrams import Part, wiring_of
from adapters_lesson.course.figures.svg import WIDTH, Drawing
from adapters_lesson.slots import slots_of

from .lens import Lens, Spot


def sketch_of(lens: Lens, spot: Spot) -> dict[str, Any]:
    """The parts of the block from left to right, its skips, what stands beside, and which of them ``spot`` is."""
    slots, task = {slot: slot.active for slot in slots_of(lens.blocks[spot.block])}, str(lens.task)
    try:
        for slot in slots if lens.task else ():  # the wiring is that of what works now
            slot.active = task if task in slot else None
        wires = wiring_of(lens.model, spot.block)
    finally:
        for slot, active in slots.items():
            slot.active = active
    own = [s for s in lens.spots if s.block == spot.block]
    for one in (one for one in own if one.module is not None and not one.in_slot):
        at = next(i for i, part in enumerate(wires.parts) if part.label == one.site) + 1
        wires.parts.insert(at, Part("adapter"))
        wires.skips = [(a + (a >= at), b + (b >= at)) for a, b in wires.skips]
    labels = [part.label.replace("\n", " ") for part in wires.parts]
    plain = {"attention", "FFN", "LayerNorm", "LayerNorm, the same", "+"}
    marks = [i for i, label in enumerate(labels) if (label == "+" if spot.module is None else label not in plain)]
    mark = -1 if spot.site == "beside" else marks[own.index(spot)]
    beside = [wires.beside[0], wires.beside[1].label] if wires.beside else None
    return {"parts": labels, "skips": wires.skips, "part_beside": beside, "mark": mark}


def map_of_pushes(frame: dict[str, Any], about: dict[str, Any], of: str = "") -> Drawing:
    """A row for each adapter, the upper block above, a column for each token; the darker, the farther it is pushed."""
    rows, tokens = about["rows"], frame["tokens"]
    row, turned = (28, "") if len(rows) <= 12 else (15, "transform: rotate(-60deg); transform-origin: ")
    on, step, foot = Drawing(WIDTH, row * len(rows) + 125), (WIDTH - 160) / len(tokens), 52 + row * len(rows)
    most = max(max(map(max, frame["push"])), 1e-9)
    what = "difference to the base" if about["compared"] else "push: |update| / |stream|"
    on.text(10, 18, f"{what}. {of}" if of else what, 15, bold=True)
    for r, (one, values) in enumerate(zip(rows, frame["push"], strict=True)):
        y = 40 + row * (len(rows) - 1 - r)
        on.text(140, y + row / 2 - 1, one["label"], min(13, row - 3), "end")
        for t, value in enumerate(values):
            look = f"fill: #0072B2; fill-opacity: {0.04 + 0.96 * (value / most) ** 0.5:.2f}"
            title = "" if turned else f"{tokens[t]}, {one['label']}: {100 * value:.0f} %"  # or the file would double
            on.box(150 + t * step, y, step - row / 9, row - 3, look, title, round=row // 7)
    for t, token in enumerate(tokens):
        x, word = 150 + (t + 0.5) * step, token.strip() or "⏎"
        if turned:
            on.text(x, foot, word, 12, "end", f"{turned}{x:.0f}px {foot}px")
        else:  # every other token stands a line lower, so that long ones have room
            on.text(x, foot + 15 * (t % 2), word, min(13, int(3.4 * step / len(word))), "middle")
    for label, share in zip(about["labels"], frame["after"], strict=True):
        x = 150 + 200 * about["labels"].index(label)
        on.text(x, foot + 47, f"{label} {100 * share:.1f} %", 14, bold=share == max(frame["after"]))
    return on
