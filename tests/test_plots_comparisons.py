"""The figures of comparisons: their data, not their pixels."""

import math
from itertools import pairwise

import pytest
from matplotlib.colors import to_rgba

from adapters_lesson import History
from adapters_lesson.course.figures import (
    ablation_map,
    before_and_after,
    curves_over_seeds,
    mean_and_interval,
    pareto,
    sensitivity,
)
from adapters_lesson.course.figures.comparisons import _front
from adapters_lesson.course.figures.style import COLOURS


def words(axes):
    return [text.get_text() for text in axes.texts]


def band(axes):
    """Lower and upper edge of a figure's first band, by x."""
    vertices = axes.collections[0].get_paths()[0].vertices
    return {
        x: (min(v[1] for v in vertices if v[0] == x), max(v[1] for v in vertices if v[0] == x)) for x, _ in vertices
    }


def test_the_interval_is_students():
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert mean_and_interval([0.5, 0.5]) == (0.5, 0.0)
    with pytest.raises(ValueError, match=r"1 value\(s\) have no spread"):
        mean_and_interval([1.0])


def test_curves_show_the_mean_over_seeds_and_its_interval():
    runs = [{"loss": [0.7, 0.5], "validation": [0.6, 0.8]}, {"loss": [0.5, 0.5], "validation": [0.8, 0.8]}]
    left, right = curves_over_seeds({"a": runs}, {"a": "full"}).axes
    assert list(left.lines[0].get_xdata()) == [10, 20]
    assert list(left.lines[0].get_ydata()) == pytest.approx([0.6, 0.5])
    assert list(right.lines[0].get_ydata()) == pytest.approx([70, 80])
    half = mean_and_interval([60, 80])[1]
    edges = band(right)
    assert edges[1] == pytest.approx((70 - half, 70 + half))
    assert edges[2] == pytest.approx((80, 80))
    assert right.lines[0].get_color() == COLOURS["full"]
    assert words(right) == ["a"]


def test_a_history_is_drawn_like_a_run_of_the_results():
    validation = [{"step": 12, "loss": 0.1, "accuracy": 0.9}]
    history = History({}, loss=[1.0] * 10 + [0.5, 0.7], validation=validation)
    left, right = curves_over_seeds({"a": [history]}, {"a": "adapter"}).axes
    assert list(left.lines[0].get_ydata()) == pytest.approx([1.0, 0.6])
    assert list(right.lines[0].get_ydata()) == [90]
    assert band(right)[1] == (90, 90)


def test_a_run_that_was_stopped_in_its_first_epoch_is_drawn_beside_a_whole_one():
    validation = [{"step": step, "loss": 0.1, "accuracy": 0.9} for step in (5, 10)]
    whole, stopped, at_once = History({}, loss=[1.0] * 10, validation=validation), History({}, loss=[1.0]), History({})
    for runs in ({"b": [stopped], "a": [whole], "c": [at_once]}, {"b": [stopped], "c": [at_once]}):
        _, right = curves_over_seeds(runs, dict.fromkeys("abc", "adapter")).axes
        assert words(right) == ["a"] * ("a" in runs)
        assert right.get_xlim()[1] == pytest.approx(1.6 + 1 + ("a" in runs))


def test_labels_at_the_ends_keep_apart():
    ends = {"a": 0.7, "b": 0.7, "c": 0.9}
    runs = {name: [{"loss": [1.0], "validation": [accuracy]}] for name, accuracy in ends.items()}
    _, right = curves_over_seeds(runs, dict.fromkeys(ends, "adapter")).axes
    heights = sorted(text.xy[1] for text in right.texts)
    assert min(b - a for a, b in pairwise(heights)) >= 4.5


def test_the_pareto_front_has_what_nothing_cheaper_beats():
    points = [(10, 70.0), (1, 60.0), (5, 65.0), (20, 70.0), (7, 64.0), (30, 71.0), (30, 69.0)]
    assert _front(points) == [(1, 60.0), (5, 65.0), (10, 70.0), (30, 71.0)]


def test_the_pareto_picture_shows_means_spreads_and_the_front():
    series = [
        ("Houlsby", "adapter", [("m=4", 100, [0.8, 0.9]), ("m=16", 400, [0.95, 0.97])]),
        ("full", "full", [("", 10_000, [0.9, 0.94])]),
    ]
    (axes,) = pareto(series).axes
    line, bars = axes.containers[0].lines[0], axes.containers[0].lines[2][0]
    assert list(line.get_xdata()) == [100, 400]
    assert list(line.get_ydata()) == pytest.approx([85, 96])
    assert [y for _, y in bars.get_segments()[0]] == pytest.approx([80, 90])
    front = axes.lines[-1]
    assert list(front.get_xdata()) == [100, 400]
    assert front.get_linewidth() > 2 * line.get_linewidth()  # a band, not one more line
    assert words(axes) == ["m=4", "m=16", ""]
    assert axes.get_xscale() == "log"


def test_sensitivity_shows_each_setting_in_order():
    lines = {"a": {0.1: [0.9, 1.0], 0.001: [0.5, 0.5]}}
    (axes,) = sensitivity(lines, {"a": "lora"}, title="t", xlabel="x", floor=0.5).axes
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == [0.001, 0.1]
    assert list(line.get_ydata()) == pytest.approx([50, 95])
    assert line.get_color() == COLOURS["lora"]
    assert list(axes.lines[-1].get_ydata()) == [50, 50]
    assert words(axes) == ["always the same answer", "a"]


def test_the_ablation_map_has_one_number_for_each_span():
    change = {(0, 0): -0.01, (0, 1): -0.5, (1, 1): 0.002}
    axes, _ = ablation_map(change).axes
    grid = axes.images[0].get_array()
    assert grid[0].tolist() == [-1.0, -50.0]
    assert grid.mask.tolist() == [[False, False], [True, False]]
    assert grid[1][1] == pytest.approx(0.2)
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "-1", (1, 0): "-50", (1, 1): "0"}
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert (colours["-50"], colours["-1"]) == ("#FEFEFE", "#111111")  # no ink of the theme: the cells have their colour


def test_before_and_after_marks_what_comes_back():
    rows = {"full": {"before": 0.76, "after": 0.6}, "a": {"before": 0.76, "after": 0.7, "switched off": 0.76}}
    (axes,) = before_and_after(rows, {"full": "full", "a": "adapter"}).axes
    assert [text for text in words(axes) if text] == ["16.0 lost", "6.0 lost", "back when switched off"]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in rings] == [(76, 0), (76, 1)]
    (off,) = (line for line in axes.lines if line not in rings)
    assert (off.get_xdata()[0], off.get_ydata()[0]) == (76, 1)
    assert to_rgba(off.get_color()) == to_rgba(COLOURS["adapter"])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["full", "a"]
