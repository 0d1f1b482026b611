"""The data in the figures of costs: what the bars and lines say, not how they look."""

import pytest
from matplotlib.colors import to_hex
from models import small

from adapters_lesson import AdapterConfig, Classifier, prepare
from adapters_lesson.costs import count_parameters, memory_ledger
from adapters_lesson.course.figures import memory_against_length, parameter_bars


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
    for axes in (left, right):
        assert {text.get_text() for text in axes.texts} == {"full", "adapter"}
    assert left.get_yscale() == "linear"  # the saving is a distance
