"""What a fusion attends to: which member counts how much, by place and by word."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .picture import Picture
from .style import course_style, new_figure


@course_style
def fusion_figure(attention: Any, members: Sequence[str], tokens: Sequence[str], places: Sequence[str]) -> Picture:
    """The attention of a fusion as a map for each member, of two for the first; the darker, the more it counts.

    ``attention``, ``(places, members, tokens)``, sums to 1 over the members: ``composition.fusion_attention(…)[0]`` of
    one text. ``places`` go from the bottom up. Raises ValueError for other shapes, or weights that are no attention.
    """
    weights = np.asarray(attention, dtype=float)
    if weights.ndim != 3 or not weights.size:
        raise ValueError(f"attention is {weights.shape}, not (places, members, tokens): take one text, attention[0]")
    names = (("places", places), ("members", members), ("tokens", tokens))
    for (what, some), size in zip(names, weights.shape, strict=True):
        if len(some) != size:
            raise ValueError(f"{len(some)} {what}, but attention for {size}: its shape is {weights.shape}")
    if not np.allclose(weights.sum(1), 1, atol=1e-3):
        raise ValueError("the weights do not sum to 1 over the members: leave padding out, attention[0][..., :words]")
    titles = members if len(members) != 2 else [f"{members[0]} ({members[1]} has the rest)"]
    size = (2.6 + 0.5 * len(tokens), 1.3 + len(titles) * (0.45 + 0.36 * len(places)))
    figure, maps = new_figure(*size, nrows=len(titles), sharex=True, squeeze=False)
    for i, (title, axes) in enumerate(zip(titles, maps[:, 0], strict=True)):
        image = axes.imshow(weights[:, i], cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
        axes.set(title=title, yticks=range(len(places)), yticklabels=places)
        axes.tick_params(length=0)
        axes.grid(False)
    axes.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right", rotation_mode="anchor")
    figure.colorbar(image, ax=maps[:, 0], label="weight", shrink=0.8, pad=0.02)
    means = weights.mean(-1)
    best = [f"{place} {members[row.argmax()]}, {row.max():.2f}" for place, row in zip(places, means, strict=True)]
    overall = (f"{name} {mean:.2f}" for name, mean in zip(members, means.mean(0), strict=True))
    alt = (
        f"Attention of a fusion over {', '.join(members)}, the text “{' '.join(tokens)}”. The most weight has, in "
        f"{'; '.join(best)}. Over all places: {', '.join(overall)}."
    )
    return Picture(figure, alt)
