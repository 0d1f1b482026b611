"""The data in the figures of costs: what the bars and lines say, not how they look."""

import pytest
from matplotlib.colors import to_hex
from models import small

from adapters_lesson import AdapterConfig, Classifier, prepare
from adapters_lesson.costs import count_parameters, memory_ledger
from adapters_lesson.costs.memory import MemoryLedger
from adapters_lesson.plots import memory_against_length, memory_bars, parameter_bars


def prepared(method="adapter"):
    model = Classifier(small(), 2)
    prepare(model, method, AdapterConfig(4) if method == "adapter" else None)
    return model


def bars(axes, y):
    """The bars at height ``y`` from left to right, those of no width left out."""
    found = [b for b in axes.patches if b.get_width() > 0 and b.get_y() < y < b.get_y() + b.get_height()]
    return sorted(found, key=lambda bar: bar.get_x())


def test_parameter_bars_show_what_is_frozen_and_what_is_trained():
    count = count_parameters(prepared())
    axes = parameter_bars(count).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "embeddings",
        "block 0",
        "block 1",
        "block 2",
        "head",
    ]
    for y, entry in enumerate(count.by_layer.values()):
        widths = {to_hex(bar.get_facecolor()): 1e6 * bar.get_width() for bar in bars(axes, y)}
        assert widths.get("#0072b2", 0) == pytest.approx(entry.trainable)
        assert widths.get("#d9d9d9", 0) == pytest.approx(entry.total - entry.trainable)
        assert f"{entry.trainable:,} of {entry.total:,} trained" in [text.get_text() for text in axes.texts]
    assert f"{count.trainable:,} of {count.total:,}" in axes.get_title(loc="left")


def test_memory_bars_add_up_to_the_peak():
    ledgers = {
        "activations win": MemoryLedger(int(4e9), int(1e9), int(2e9), int(6e9), int(5e8)),
        "gradients win": MemoryLedger(int(4e9), int(5e9), int(2e9), int(1e9), int(5e8)),
    }
    figure = memory_bars(ledgers, capacities=(8, 24))
    axes = figure.axes[0]
    for y, ledger in enumerate(ledgers.values()):
        row = bars(axes, y)
        assert sum(bar.get_width() for bar in row) == pytest.approx(ledger.peak / 1e9)
        larger = max(ledger.activations, ledger.gradients) / 1e9
        assert [bar.get_width() for bar in row] == pytest.approx([4, 2, larger, 0.5])
    assert [line.get_xdata()[0] for line in axes.lines] == [8]  # 24 GB would lie outside
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {"weights", "optimizer state", "activations"}


def test_memory_against_length_draws_peaks_and_shares():
    lengths = (4, 8, 16)
    ledgers = {m: [memory_ledger(prepared(m), 2, length) for length in lengths] for m in ("full", "adapter")}
    left, right = memory_against_length(lengths, ledgers, {"full": "full", "adapter": "adapter"}).axes
    for line, share, row in zip(left.lines, right.lines, ledgers.values(), strict=True):
        assert list(line.get_xdata()) == list(lengths)
        assert list(line.get_ydata()) == pytest.approx([ledger.peak / 1e6 for ledger in row])
        assert list(share.get_ydata()) == pytest.approx(
            [100 * a.peak / b.peak for a, b in zip(row, ledgers["full"], strict=True)]
        )
    assert [text.get_text() for text in right.texts] == ["full", "adapter"]
