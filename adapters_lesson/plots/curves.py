"""Figures with axes: what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure

from ..adapter import Adapter
from ..history import History
from ..spectrum import update_singular_values
from .style import COLOURS, INK, MARKERS, course_style, new_figure


@course_style
def learning_curves(histories: Mapping[str, History], methods: Mapping[str, str] | None = None) -> Figure:
    """Training loss by step and validation accuracy by epoch, one line a run.

    ``methods`` gives a run's method, and so its colour; by default every run is an adapter's.
    """
    figure, (left, right) = new_figure(11, 4, ncols=2)
    for label, history in histories.items():
        method = (methods or {}).get(label, "adapter")
        smooth = moving_mean(history.loss, 10)
        left.plot(range(1, len(smooth) + 1), smooth, color=COLOURS[method], label=label)
        steps = [entry["step"] for entry in history.validation]
        accuracy = [100 * entry["accuracy"] for entry in history.validation]
        right.plot(steps, accuracy, color=COLOURS[method], marker=MARKERS[method])
        if steps:
            right.annotate(label, (steps[-1], accuracy[-1]), xytext=(8, 0), textcoords="offset points", va="center")
    left.set(title="Training loss (mean of 10 steps)", xlabel="step", ylim=(0, None))
    right.set(title="Validation accuracy", xlabel="step", ylabel="%")
    right.margins(x=0.35)
    left.legend()
    return figure


@course_style
def accuracy_against_parameters(rows: Sequence[tuple[str, str, int, Sequence[float]]]) -> Figure:
    """Test accuracy against trainable parameters.

    Args:
        rows: label, method, trainable parameters, and one accuracy in [0, 1] for each seed.
    """
    figure, axes = new_figure(9.5, 4.8)
    below_right, below_left, above_left = ("left", -1), ("right", -1), ("right", 1)  # so neighbours' labels keep apart
    corners = (below_right, below_left, above_left, below_right, above_left, below_right, above_left)
    for i, (label, method, parameters, accuracies) in enumerate(sorted(rows, key=lambda row: row[2])):
        percent = [100 * a for a in accuracies]
        mean = sum(percent) / len(percent)
        spread = [[mean - min(percent)], [max(percent) - mean]]
        axes.errorbar(parameters, mean, yerr=spread, color=COLOURS[method], marker=MARKERS[method], capsize=4)
        side, up = corners[i % len(corners)]
        offset = (9 if side == "left" else -9, 8 * up)
        axes.annotate(
            label, (parameters, mean), offset, textcoords="offset points", color=COLOURS[method],
            ha=side, va="bottom" if up > 0 else "top",
        )  # fmt: skip
    axes.set(xscale="log", xlabel="trainable parameters", ylabel="test accuracy, %")
    axes.set_title("Accuracy against what is trained (bars: lowest to highest seed)")
    axes.margins(x=0.18, y=0.15)
    return figure


@course_style
def distance_from_identity(stds: Sequence[float], distances: Mapping[str, Sequence[float]]) -> Figure:
    """How far a new adapter moves hidden states, relative to their length, against the initialisation's std."""
    figure, axes = new_figure(8, 4)
    for i, (label, values) in enumerate(distances.items()):
        axes.plot(
            stds, [100 * v for v in values], marker="os^D"[i % 4], color=COLOURS["adapter"], ls=["-", "--", ":"][i % 3]
        )
        axes.annotate(label, (stds[-1], 100 * values[-1]), xytext=(8, 0), textcoords="offset points", va="center")
    axes.axhline(100, color=INK, lw=1)
    axes.annotate("as long as the hidden state itself", (stds[0], 100), xytext=(0, 5), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="standard deviation of both weights", ylabel="% of |h|")
    axes.set_title("Length of a new adapter's update")
    axes.margins(x=0.2)
    return figure


@course_style
def update_spectrum(adapter: Adapter, at: torch.Tensor) -> Figure:
    """Singular values of the update's Jacobian at one hidden state ``at`` of shape (d,): at most m are not zero."""
    d, m = adapter.down_project.in_features, adapter.down_project.out_features
    values = update_singular_values(adapter, at).tolist()
    values += [0.0] * (d - len(values))
    figure, axes = new_figure(8, 3.6)
    axes.bar(
        range(1, len(values) + 1), values, color=[COLOURS["adapter"] if i < m else INK for i in range(len(values))]
    )
    axes.axvline(m + 0.5, color=INK, lw=1, ls="--")
    axes.annotate(f"bottleneck_dim = {m}", (m + 0.5, max(values)), xytext=(8, -6), textcoords="offset points")
    axes.set(xlabel="direction, strongest first", ylabel="singular value")
    axes.set_title(f"In how many of {d} directions the update can push")
    return figure


@course_style
def attention_maps(tokens: Sequence[str], maps: Mapping[str, torch.Tensor]) -> Figure:
    """Attention weights ``(length, length)`` side by side: row = the token that looks, column = what it looks at."""
    figure, all_axes = new_figure(5.2 * len(maps), 5.4, ncols=len(maps), squeeze=False)
    for axes, (label, weights) in zip(all_axes[0], maps.items(), strict=True):
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(tokens)), tokens, rotation=90)
        axes.set_yticks(range(len(tokens)), tokens)
        axes.grid(False)
        axes.set_title(label)
    return figure


@course_style
def layer_probes(accuracies: Mapping[str, Sequence[float]], chance: float) -> Figure:
    """Accuracy of a linear probe on the mean hidden state after each layer; layer 0 is the embeddings."""
    figure, axes = new_figure(8, 4.2)
    for i, (label, values) in enumerate(accuracies.items()):
        colour = list(COLOURS.values())[i]
        axes.plot(range(len(values)), [100 * v for v in values], marker="os^"[i % 3], color=colour)
        axes.annotate(
            label,
            (len(values) - 1, 100 * values[-1]),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    axes.axhline(100 * chance, color=INK, lw=1, ls="--")
    axes.annotate("guessing", (0, 100 * chance), xytext=(0, 5), textcoords="offset points")
    axes.set(xlabel="after layer", ylabel="accuracy, %", ylim=(40, 102))
    axes.set_title("What a linear probe reads off each layer")
    axes.margins(x=0.3)
    return figure


def moving_mean(values: Sequence[float], width: int) -> list[float]:
    """Each value's mean with the up to ``width`` - 1 values before it."""
    return [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - width + 1) : i + 1])]
