"""Figures of lesson 09 show what they are given."""

import artists
import pytest

from adapters_lesson.plots import adapter_drop, overhead_by_size
from adapters_lesson.plots.backdrop import pixels_of
from adapters_lesson.plots.latency import _drop_backdrop, _overhead_backdrop

PARTS = {"FFN": 800, "projections": 400, "attention": 100, "adapters": 26}
ACCURACIES = (
    ("specialised", ((100.0, 98.0), (80.0, 90.0), (60.0, 61.0))),
    ("robust", ((99.0, 97.0), (70.0, 80.0), (55.0, 56.0))),
)
LAYERS = [[False, False], [True, True], [True, True]]
WORK = [100.0, 70.0, 40.0]


def lines(figure, label):
    """x and y of the lines with this label."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in artists.lines(figure, label)]


def texts(figure):
    return artists.texts(figure)


def boxes(figure, kind):
    """The rectangles of one kind as (left, bottom, right, top)."""
    (some,) = (c for c in artists.collections(figure) if c.get_label() == kind)
    return [(*path.vertices.min(0).round(3), *path.vertices.max(0).round(3)) for path in some.get_paths()]


def overhead(measured=(), pale=()):
    return overhead_by_size(PARTS, (1, 64), [((1, 64), "adapter", 2.0), ((1, 64), "lora", 1.0)], measured, pale)


def test_the_parts_of_a_block_are_bars_in_proportion():
    figure = overhead()
    assert [bar.get_width() for bar in artists.patches(figure)[:4]] == [1, 0.5, 0.125, 0.0325]
    assert "adapters: 26, 2.00 % of the rest" in texts(figure)


def test_predicted_and_measured_overheads_stand_at_their_size():
    figure = overhead([((1, 8), "adapter", 12.0, (9.0, 15.0))], [((1, 16), 5.0)])
    assert lines(figure, "adapter predicted") == [([5.93], [2.0])]  # 64 is 2 to the 6th; a little to the left
    assert lines(figure, "lora predicted") == [([6.07], [1.0])]
    assert lines(figure, "adapter measured") == [([2.93], [12.0])]
    assert lines(figure, "adapter interval") == [([2.93, 2.93], [9.0, 15.0])]
    assert lines(figure, "lora measured") == []
    assert lines(figure, "pale") == [([3.93], [5.0])]


def test_sizes_with_as_many_words_stand_side_by_side():
    figure = overhead([((batch, 128 // batch), "lora", 5.0, (4.0, 6.0)) for batch in (1, 8)])
    (((first,), _), ((second,), _)) = lines(figure, "lora measured")
    assert first == 7.07
    assert 7.25 < second < 7.35


def test_the_axes_hold_long_intervals_and_the_figure_keeps_its_size(monkeypatch):
    used = []
    monkeypatch.setattr(
        "adapters_lesson.plots.latency._overhead_backdrop",
        lambda *limits: used.append(limits) or _overhead_backdrop(*limits),
    )
    figures = [overhead(), overhead([((1, 8), "lora", 20.0, (-7.0, 61.0))])]
    assert used == [(-5, 20), (-10, 80)]
    assert len({pixels_of(figure).shape for figure in figures}) == 1


@pytest.mark.parametrize("tasks", [1, 3])
def test_layers_without_adapters_are_drawn_once_and_the_others_for_each_task(tasks):
    figure = adapter_drop(LAYERS, tasks, ACCURACIES, "robust", WORK)
    rows = [[box for box in boxes(figure, "base") if box[1] == i] for i in range(3)]  # the attention of each layer
    assert [len(row) for row in rows] == [1, tasks, tasks]
    assert len(boxes(figure, "on")) == 4 * tasks
    assert len(boxes(figure, "off")) == 2
    assert rows[0][0][2] - rows[0][0][0] == pytest.approx(0.82)  # over the whole width
    assert all(a[2] < b[0] for a, b in zip(rows[1], rows[1][1:], strict=False))  # side by side
    many = ["once"] * 3 if tasks == 1 else ["once", "3 times", "3 times"]
    assert [text for text in texts(figure) if text == "once" or "times" in text] == many


def test_the_chosen_number_of_layers_is_marked_and_named():
    figure = adapter_drop(LAYERS, 3, ACCURACIES, "robust", WORK, [(0, 101.0, (90.0, 130.0))])
    assert lines(figure, "chosen") == [([1], [75.0]), ([1], [70.0])]
    assert "Test accuracy: 75.0 % (seeds 70.0 – 80.0)" in texts(figure)
    assert "Work: 70 % of 3 passes with all adapters" in texts(figure)
    assert lines(figure, "work") == [([0, 1, 2], WORK)]
    assert lines(figure, "adapter measured") == [([0], [101.0])]
    assert lines(figure, "adapter interval") == [([0, 0], [90.0, 118])]  # cut off where the axes end


def test_the_chosen_training_is_the_one_in_colour():
    one, other = (_drop_backdrop(ACCURACIES, training)[0] for training in ("robust", "specialised"))
    assert one.shape == other.shape
    assert (one != other).any()


@pytest.mark.parametrize("draw", [overhead, lambda: adapter_drop(LAYERS, 2, ACCURACIES, "robust", WORK)])
def test_the_figure_is_drawn_over_its_backdrop(draw):
    pixels = pixels_of(draw())
    assert pixels.shape[1] == 792
    assert 330 <= pixels.shape[0] <= 375
    drawn = (pixels[..., :3] < 128).any(-1)
    height, width = drawn.shape
    assert drawn[:, : width // 2].any()  # the left part
    assert drawn[height // 2 :, width // 2 :].any()  # axes and labels of the backdrop on the right
