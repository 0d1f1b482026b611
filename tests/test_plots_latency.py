"""Figures of lesson 09 show the measurements that they are given."""

import itertools

import pytest

from adapters_lesson.costs import latency, measure_latency
from adapters_lesson.plots import dropped_layers, latency_overhead

NAMES = ("bare", "Houlsby", "LoRA")


@pytest.fixture
def table(monkeypatch):
    """A table in which Houlsby takes 1.1 to 1.3 times as long and LoRA always 1.05 times."""
    now = 0.0

    def contender(times):
        times = itertools.cycle(times)

        def call():
            nonlocal now
            now += next(times)

        return call

    monkeypatch.setattr(latency, "perf_counter", lambda: now)
    times = ([1.0], [1.1, 1.2, 1.3], [1.05])
    return measure_latency(
        {name: contender(t) for name, t in zip(NAMES, times, strict=True)}, repetitions=6, warmup=0
    )  # fmt: skip


def drawn(container):
    """x, y and the ends of the bar of one point."""
    line, bars = container.lines[0], container.lines[2][0]
    return line.get_xdata()[0], line.get_ydata()[0], [float(y) for _, y in bars.get_segments()[0]]


def test_overheads_are_drawn_with_their_intervals_and_predictions(table):
    tables = {(1, 16): table, (8, 64): table}
    figure = latency_overhead(tables, {"Houlsby": [2.0, 1.5], "LoRA": [1.0, 0.5]})
    assert [axes.get_title("left") for axes in figure.axes] == ["Houlsby", "LoRA"]  # the bare model is the zero line
    for axes, overhead, dashed in zip(figure.axes, (20, 5), ([2.0, 1.5], [1.0, 0.5]), strict=True):
        row = table[axes.get_title("left")]
        points = [drawn(container) for container in axes.containers]
        assert [x for x, _, _ in points] == [0, 1]
        for _, y, bar in points:
            assert y == pytest.approx(overhead)
            assert bar == pytest.approx(row.overhead_interval)
        assert list(next(line for line in axes.lines if line.get_linestyle() == "--").get_ydata()) == dashed
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1 × 16", "8 × 64"]
    low, high = table["Houlsby"].overhead_interval
    assert low < 20 < high


def test_without_a_prediction_no_dashed_line_is_drawn(table):
    assert all(line.get_linestyle() != "--" for axes in latency_overhead({(1, 16): table}).axes for line in axes.lines)


def test_dropped_layers_show_mean_spread_and_latency(table):
    accuracies = {"robust": [[0.9, 1.0], [0.8, 0.8]], "specialised": [[1.0, 1.0], [0.7, 0.9]]}
    left, right = dropped_layers(accuracies, [table["Houlsby"], table["LoRA"]]).axes
    for container, means, spreads in zip(
        left.containers, ([95, 80], [100, 80]), ([[90, 100], [80, 80]], [[100, 100], [70, 90]]), strict=True
    ):
        assert list(container.lines[0].get_ydata()) == pytest.approx(means)
        for segment, spread in zip(container.lines[2][0].get_segments(), spreads, strict=True):
            assert [y for _, y in segment] == pytest.approx(spread)
    assert {text.get_text() for text in left.texts} == {"robust", "specialised"}
    points = [drawn(container) for container in right.containers]
    assert [(x, pytest.approx(y)) for x, y, _ in points] == [(0, 20), (1, 5)]
    assert points[0][2] == pytest.approx(table["Houlsby"].overhead_interval)
