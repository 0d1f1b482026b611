"""What a learner has built, on one page."""

import textwrap
from collections.abc import Sequence
from typing import Any

from .style import COLOURS, course_style, new_figure


@course_style
def graduation_figure(yours: Sequence[float], ours: Sequence[float], rows: Sequence[tuple[str, str]]) -> Any:
    """The training losses of a learner's library and of the course's, above ``rows`` of what and how much."""
    figure, (axes, below) = new_figure(9.0, 7.2, nrows=2, height_ratios=(1.0, 1.1))
    axes.plot(ours, color=COLOURS["full"], linewidth=4, alpha=0.35, label="the course's library")
    axes.plot(yours, color=COLOURS["adapter"], linewidth=1.4, label="your library")
    axes.set_xlabel("training step")
    axes.set_ylabel("loss")
    axes.set_title("MiniLM learns to judge film reviews, with your adapters")
    axes.legend(frameon=False)
    below.set_axis_off()
    for number, (what, said) in enumerate(rows):
        height = 1 - (number + 0.5) / len(rows)
        below.text(0.0, height, what, transform=below.transAxes, weight="bold", va="center")
        short = textwrap.shorten(said, 62, placeholder=" …")  # a line of all that was lent would leave the page
        below.text(0.3, height, short, transform=below.transAxes, va="center")
    return figure
