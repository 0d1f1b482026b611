"""What a fusion attends to: which member counts how much, by place, and by word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import Picture, course_style, new_figure

_CELL = 0.62  # inches


def fusion_figure(
    attention: Any, members: Sequence[str], *, tokens: Sequence[str] | None = None, places: Sequence[str] | None = None
) -> Picture:
    """The attention of a fusion as a map: the darker, the more a member counts.

    Args:
        attention: weights in [0, 1] that sum to 1 over the members: ``(places, members)``, a mean over words, or
            ``(places, members, tokens)``, one text: ``composition.fusion_attention(…)[0]``.
        members: their names, in the order in which they were fused.
        tokens: the words of the text; they are needed for three axes only.
        places: names of the places, from the bottom up; "place 1", "place 2", … by default.

    Returns:
        The figure, with a sentence that says the same.

    Raises:
        ValueError: for other shapes, or weights that are no attention.
    """
    weights = np.asarray(attention, dtype=float)
    _check(weights, members, tokens, places)
    places = list(places or (f"place {i + 1}" for i in range(len(weights))))
    means = weights if weights.ndim == 2 else weights.mean(-1)
    best = [
        f"{place} {members[i]}, {means[k, i]:.2f}"
        for k, (place, i) in enumerate(zip(places, means.argmax(-1), strict=True))
    ]
    of = "mean over words" if tokens is None else f"the text “{' '.join(tokens)}”"
    overall = (f"{name} {mean:.2f}" for name, mean in zip(members, means.mean(0), strict=True))
    alt = (
        f"Attention of a fusion over {', '.join(members)}, {of}. The most weight has, in {'; '.join(best)}. "
        f"Over all places: {', '.join(overall)}."
    )
    draw = _by_place(weights, members, places) if tokens is None else _by_token(weights, members, places, tokens)
    return Picture(draw, alt)


@course_style
def _by_place(weights: np.ndarray, members: Sequence[str], places: Sequence[str]) -> Figure:
    """A row for each place, the highest on top, with the numbers."""
    longest = max(map(len, members))
    figure, axes = new_figure(3 + len(members) * max(1.0, 0.13 * longest), 1.9 + _CELL * len(places))
    _map(axes, weights, places)
    axes.set_xticks(range(len(members)), members)
    axes.set_title("How much each adapter counts")
    for place, row in enumerate(weights):
        for member, weight in enumerate(row):
            colour = "white" if weight > 0.55 else "black"
            axes.text(member, place, f"{weight:.2f}", ha="center", va="center", color=colour)
    return figure


@course_style
def _by_token(weights: np.ndarray, members: Sequence[str], places: Sequence[str], tokens: Sequence[str]) -> Figure:
    """A map for each member, below each other, over the words."""
    height = 0.45 + 0.36 * len(places)
    figure, maps = new_figure(
        2.6 + 0.5 * len(tokens), 1.3 + len(members) * height, nrows=len(members), sharex=True, squeeze=False
    )
    for i, (name, axes) in enumerate(zip(members, maps[:, 0], strict=True)):
        image = _map(axes, weights[:, i], places)
        axes.set_title(name)
    axes.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right", rotation_mode="anchor")
    figure.colorbar(image, ax=maps[:, 0], label="weight", shrink=0.8, pad=0.02)
    return figure


def _map(axes: Axes, weights: np.ndarray, places: Sequence[str]) -> Any:
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    axes.set_yticks(range(len(places)), places)
    axes.tick_params(length=0)
    axes.grid(False)
    return image


def _check(
    weights: np.ndarray, members: Sequence[str], tokens: Sequence[str] | None, places: Sequence[str] | None
) -> None:
    expected = "(places, members)" if tokens is None else "(places, members, tokens)"
    if weights.ndim != expected.count(",") + 1 or not weights.size:
        raise ValueError(
            f"attention has shape {weights.shape}, not {expected}: "
            + ("give the tokens, or the mean over them" if tokens is None else "take one text, attention[0]")
        )
    lengths = {"members": (1, members), "tokens": (2, tokens), "places": (0, places)}
    for what, (axis, names) in lengths.items():
        if names is not None and len(names) != weights.shape[axis]:
            raise ValueError(
                f"{len(names)} {what}, but attention for {weights.shape[axis]}: its shape is {weights.shape}"
            )
    if not np.allclose(weights.sum(1), 1, atol=1e-3):
        raise ValueError("the weights do not sum to 1 over the members: leave padding out, attention[0][..., :words]")
