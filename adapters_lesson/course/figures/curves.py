"""Figures with axes: what was measured, and what fine-tuning costs."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import torch
from matplotlib.figure import Figure

from adapters_lesson.adapter import Adapter
from adapters_lesson.costs.memory import MemoryLedger
from adapters_lesson.costs.parameters import ParameterCount
from adapters_lesson.history import History

from .comparisons import with_spread
from .style import COLOURS, FROZEN, INK, MARKERS, PALETTE, STYLES, TRAINED, beside, course_style, label_ends, new_figure


@course_style
def learning_curves(histories: Mapping[str, History]) -> Figure:
    """Training loss by step and validation accuracy by epoch, of runs with adapters."""
    figure, (left, right) = new_figure(11, 4, ncols=2)
    for label, history in histories.items():
        smooth = moving_mean(history.loss, 10)
        left.plot(range(1, len(smooth) + 1), smooth, color=COLOURS["adapter"], label=label)
        steps = [entry["step"] for entry in history.validation]
        accuracy = [100 * entry["accuracy"] for entry in history.validation]
        right.plot(steps, accuracy, color=COLOURS["adapter"], marker=MARKERS["adapter"])
        if steps:
            beside(right, label, (steps[-1], accuracy[-1]))
    left.set(title="Training loss (mean of 10 steps)", xlabel="step", ylim=(0, None))
    right.set(title="Validation accuracy", xlabel="step", ylabel="%", xmargin=0.35)
    low, high = right.get_ylim()
    right.set_ylim(min(low, high - 20), high + 2)  # a point more looks like what it is; a label has room above
    left.legend()
    return figure


@course_style
def run_curves(runs: Mapping[int, History]) -> Figure:
    """Training loss (a line for each seed), validation loss (rings), and validation accuracy, by step."""
    figure, (left, right) = new_figure(11, 4, ncols=2)
    for i, (seed, history) in enumerate(runs.items()):
        colour = PALETTE[i % len(PALETTE)]
        smooth = moving_mean(history.loss, 10)
        left.plot(range(1, len(smooth) + 1), smooth, color=colour, lw=1.4, label=f"training, seed {seed}")
        steps, losses, accuracy = ([entry[key] for entry in history.validation] for key in ("step", "loss", "accuracy"))
        left.plot(steps, losses, color=colour, marker="o", mfc="none", ls="--", label=f"validation, seed {seed}")
        right.plot(steps, [100 * share for share in accuracy], color=colour, marker="o", label=f"seed {seed}")
    left.set(title="Loss (training: mean of 10 steps)", xlabel="step", ylim=(0, None))
    right.set(title="Validation accuracy", xlabel="step", ylabel="%")
    for axes in (left, right) if len(runs) <= 3 else (right,):
        axes.legend(fontsize=11)
    return figure


@course_style
def accuracy_against_parameters(rows: Sequence[tuple[str, str, int, Sequence[float]]]) -> Figure:
    """Test accuracy against trainable parameters; ``rows`` are label, method, parameters, and accuracies of seeds."""
    figure, axes = new_figure(9.5, 4.8)
    below_right, below_left, above_left, above_right = (9, -8), (-9, -8), (-9, 8), (9, 8)  # so that labels keep apart
    corners = cycle((below_right, below_left, above_left, below_right, above_right, below_right, above_right))
    ordered = sorted(rows, key=lambda row: row[2])
    for (label, method, parameters, accuracies), (right, up) in zip(ordered, corners, strict=False):
        (mean,) = with_spread(axes, [(parameters, accuracies)], method)
        side, edge = "left" if right > 0 else "right", "bottom" if up > 0 else "top"
        beside(axes, label, (parameters, mean), (right, up), color=COLOURS[method], ha=side, va=edge)
    axes.set(xscale="log", xlabel="trainable parameters", ylabel="test accuracy, %")
    axes.set_title("Accuracy against what is trained (bars: lowest to highest seed)")
    axes.margins(x=0.24, y=0.15)
    return figure


@course_style
def distance_from_identity(stds: Sequence[float], distances: Mapping[str, Sequence[float]]) -> Figure:
    """How far a new adapter moves hidden states, relative to their length, against the initialisation's std."""
    figure, axes = new_figure(8, 4)
    for i, (label, values) in enumerate(distances.items()):
        axes.plot(stds, [100 * v for v in values], marker="os^D"[i % 4], ls=STYLES[i % 3], color=COLOURS["adapter"])
        beside(axes, label, (stds[-1], 100 * values[-1]), (8, 12 * (i - (len(distances) - 1) / 2)))
    axes.axhline(100, color=INK, lw=1)
    beside(axes, "as long as the hidden state itself", (stds[0], 100), (0, 5), va="baseline")
    axes.set(xscale="log", yscale="log", xlabel="standard deviation of both weights", ylabel="% of |h|")
    axes.set(title="Length of a new adapter's update", xmargin=0.2)
    return figure


@course_style
def update_spectrum(adapter: Adapter, at: torch.Tensor) -> Figure:
    """Singular values of the update's Jacobian at one hidden state ``at`` of shape (d,): at most m are not zero."""
    d, m = adapter.down_project.in_features, adapter.down_project.out_features
    values = update_singular_values(adapter, at).tolist()
    values += [0.0] * (d - len(values))
    figure, axes = new_figure(8, 3.6)
    axes.bar(range(1, d + 1), values, color=[COLOURS["adapter"] if i < m else INK for i in range(d)])
    axes.axvline(m + 0.5, color=INK, lw=1, ls="--")
    beside(axes, f"bottleneck_dim = {m}", (m + 0.5, max(values)), (8, -6), va="baseline")
    axes.set(xlabel="direction, strongest first", ylabel="singular value")
    axes.set_title(f"In how many of {d} directions the update can push")
    return figure


def update_singular_values(adapter: Adapter, at: torch.Tensor) -> torch.Tensor:
    """The min(d, m) singular values that may differ from zero of ``adapter.update``'s Jacobian, its dropout left out.

    With U and D the weights of ``up_project`` and ``down_project``, z = down_project(at) and s the scaling, it is
    s · U · diag(f'(z)) · D at the hidden state ``at`` (d,). The triangular factors of U and of Dᵀ carry all that its
    singular values depend on: an m × m matrix. Raises ValueError for another shape.
    """
    d = adapter.down_project.in_features
    if at.shape != (d,):
        raise ValueError(f"at must be one hidden state of shape ({d},), not {tuple(at.shape)}")
    z = adapter.down_project(at.to(adapter.down_project.weight.dtype)).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(adapter.activation(z).sum(), z)
    with torch.no_grad():
        up = torch.linalg.qr(adapter.up_project.weight, mode="r").R.double()
        down = torch.linalg.qr(adapter.down_project.weight.T, mode="r").R.double()
        # In double precision a unit whose slope is zero takes away a direction, not all but a rounding error of it.
        return torch.linalg.svdvals(adapter.scaling * (up * slope.double()) @ down.T)


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
    figure.colorbar(axes.images[0], ax=all_axes, shrink=0.6, label="attention weight")
    return figure


@course_style
def layer_probes(accuracies: Mapping[str, Sequence[float]], chance: float) -> Figure:
    """Accuracy of a linear probe on the mean hidden state after the embeddings, and after each block."""
    figure, axes = new_figure(10.5, 4.2)
    blocks = len(next(iter(accuracies.values()))) - 1
    ends = [("guessing", blocks, 100 * chance, INK)]
    for (label, values), colour, marker in zip(accuracies.items(), PALETTE, "os^D", strict=False):
        axes.plot([100 * v for v in values], marker=marker, color=colour)
        ends.append((label, blocks, 100 * values[-1], colour))
    label_ends(axes, ends, gap=5)
    axes.hlines(100 * chance, 0, blocks, color=INK, lw=1, ls="--")
    axes.set_xticks(range(blocks + 1), ["embeddings", *(f"block {i}" for i in range(blocks))])
    axes.set(title="What a linear probe reads off after …", ylabel="%", xlim=(-0.4, blocks + 1.9), ylim=(40, 103))
    return figure


def moving_mean(values: Sequence[float], width: int) -> list[float]:
    """Each value's mean with the up to ``width`` - 1 values before it."""
    return [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - width + 1) : i + 1])]


@course_style
def parameter_bars(count: ParameterCount) -> Figure:
    """The parameters of every layer, the trained ones coloured, with both numbers written beside."""
    layers = count.by_layer
    figure, axes = new_figure(9.5, 0.42 * len(layers) + 1.3)
    largest = max(entry.total / 1e6 for entry in layers.values())
    for y, entry in enumerate(layers.values()):
        frozen, trained = (entry.total - entry.trainable) / 1e6, entry.trainable / 1e6
        axes.barh(y, frozen, color=FROZEN, edgecolor=INK, linewidth=0.5)
        axes.barh(y, trained, left=frozen, color=TRAINED)
        label = f"{entry.trainable:,} of {entry.total:,} trained"
        axes.text(frozen + trained + largest / 60, y, label, va="center", fontsize=12)
    axes.set_yticks(range(len(layers)), list(layers))
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.62 * largest), xlabel="million parameters")
    axes.set_title(f"{count.trainable:,} of {count.total:,} parameters are trained")
    axes.grid(axis="y", visible=False)
    return figure


@course_style
def memory_against_length(
    lengths: Sequence[int], ledgers: Mapping[str, Sequence[MemoryLedger]], methods: Mapping[str, str]
) -> Figure:
    """Peak of a step against the length: in MB, linear, so that a saving is a distance; as a share of the first row."""
    figure, (left, right) = new_figure(11, 4.2, ncols=2)
    first = next(iter(ledgers.values()))
    peaks = {label: [ledger.peak / 1e6 for ledger in row] for label, row in ledgers.items()}
    shares = {label: [100 * a.peak / b.peak for a, b in zip(row, first, strict=True)] for label, row in ledgers.items()}
    for axes, rows, highest in ((left, peaks, max(map(max, peaks.values()))), (right, shares, 100)):
        for i, (label, values) in enumerate(rows.items()):
            style = {"color": COLOURS[methods[label]], "marker": MARKERS[methods[label]], "ls": STYLES[i % 3]}
            axes.plot(lengths, values, **style)
        ends = [(label, lengths[-1], values[-1], INK) for label, values in rows.items()]
        label_ends(axes, ends, gap=0.07 * highest, top=math.inf, fontsize=12)
        axes.set(xscale="log", xlabel="tokens in each text", ylim=(0, 1.08 * highest))
        axes.set_xlim(lengths[0] / 1.2, lengths[-1] * 7)
        axes.set_xticks(list(lengths), [str(length) for length in lengths])
        axes.minorticks_off()
    left.set(ylabel="MB", title="Peak of a step")
    right.set(ylabel="%", title=f"The same, as a share of {next(iter(ledgers))}")
    return figure
