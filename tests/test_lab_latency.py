"""The latency explorer: the prediction follows the knobs, and what is measured stays with its settings."""

import time

import artists
import pytest

from adapters_lesson.costs.latency import Latency
from adapters_lesson.costs.serving import Overhead, measure_overhead
from adapters_lesson.course.explorers import explore_latency as module
from adapters_lesson.course.explorers.explore_latency import (
    draw_latency,
    latency_explorer,
)


def row(overhead, half=2.0):
    ratio = 1 + overhead / 100
    return Latency("x", (1.0,) * 5, 1.0, (1.0, 1.0), ratio, (ratio - half / 100, ratio + half / 100))


def point(batch=1, length=16, bottleneck_dim=16, placement="houlsby", layers=6, adapters=10.0, lora=8.0):
    return Overhead(batch, length, bottleneck_dim, placement, layers, row(adapters), row(lora))


def drawn(picture, label):
    """Heights of the points with this label, from left to right."""
    lines = artists.lines(picture.figure, label)
    return [y for _, y in sorted((x, y) for line in lines for x, y in zip(*line.get_data(), strict=True))]


@pytest.fixture
def quick(monkeypatch):
    """Measurements of five rounds."""
    monkeypatch.setattr(module, "measure_overhead", lambda **settings: measure_overhead(**settings, seconds=0.0))


def test_the_prediction_follows_the_knobs():
    explorer = latency_explorer()
    assert explorer.error is None
    assert drawn(explorer.picture, "adapter predicted") == [pytest.approx(1.379, abs=1e-3)]
    assert drawn(explorer.picture, "lora predicted") == [pytest.approx(0.690, abs=1e-3)]
    assert "adapters add 1.38 % to the multiply-adds. Not measured" in explorer.picture.alt
    explorer.knobs["placement"].value = "pfeiffer"
    assert "adapters add 0.69 %" in explorer.picture.alt
    explorer.knobs["bottleneck_dim"].value = 32
    explorer.knobs["length"].value = 256
    assert drawn(explorer.picture, "adapter predicted") == [pytest.approx(100 * 2 * 32 / (12 * 384 + 512))]
    assert "adapters: 24,576" in " ".join(artists.texts(explorer.picture.figure))
    explorer.reset_button.click()
    assert "1 × 16 words, 6 layers of MiniLM, houlsby, m = 16: adapters add 1.38 %" in explorer.picture.alt


def test_all_corners_are_drawn_in_the_same_size():
    ends = [(knob.options[0], knob.options[-1]) for knob in latency_explorer().knobs.values()]
    sizes = {tuple(draw_latency(*corner).figure.get_size_inches()) for corner in zip(*ends, strict=True)}
    assert len(sizes) == 1


def test_measured_points_stay_with_their_settings():
    explorer = latency_explorer([point(), point(batch=8, adapters=3.0), point(bottleneck_dim=64, adapters=30.0)])
    picture = explorer.picture
    assert drawn(picture, "adapter measured") == pytest.approx([10, 3])
    assert drawn(picture, "lora measured") == pytest.approx([8, 8])
    assert drawn(picture, "pale") == pytest.approx([30])
    assert len(drawn(picture, "adapter predicted")) == 2
    assert "Measured: +10.0 % (+8.0 to +12.0), 7.3 times the prediction; LoRA of rank 8" in picture.alt
    explorer.knobs["batch"].value = 8
    assert "Measured: +3.0 % (+1.0 to +5.0), and the interval holds the prediction" in explorer.picture.alt
    explorer.knobs["batch"].value = 2
    assert explorer.picture.alt.endswith("press Measure.")
    assert drawn(explorer.picture, "adapter measured") == pytest.approx([10, 3])
    explorer.knobs["layers"].value = 2
    assert drawn(explorer.picture, "adapter measured") == []
    assert sorted(drawn(explorer.picture, "pale")) == pytest.approx([3, 10, 30])


def test_the_button_measures_with_the_knobs_as_they_are(quick):
    explorer = latency_explorer([point(length=8, layers=2)])
    explorer.knobs["layers"].value, explorer.knobs["length"].value = 2, 8
    explorer.knobs["placement"].value = "parallel"
    explorer.start_button.click()
    assert explorer.start_button.disabled
    assert not explorer.stop_button.disabled
    explorer.job.wait(120)
    assert explorer.error is None
    measured = [(p.batch, p.length, p.bottleneck_dim, p.placement, p.layers) for p in explorer.measured]
    assert measured == [(1, 8, 16, "houlsby", 2), (1, 8, 16, "parallel", 2)]
    new = explorer.measured[1]
    assert drawn(explorer.picture, "adapter measured") == [new.adapters.overhead]
    assert f"Measured: {new.adapters.overhead:+.1f} %" in explorer.picture.alt
    assert "measured: batch size: 1; length in words: 8; " in explorer.message.value
    assert not explorer.start_button.disabled
    explorer.start().wait(120)  # the same once more takes the place of the first
    assert len(explorer.measured) == 2
    assert explorer.measured[1] is not new


def test_knobs_that_move_meanwhile_do_not_spoil_the_measurement(quick, monkeypatch):
    explorer = latency_explorer()
    explorer.knobs["layers"].value = 2
    slow = module.measure_overhead

    def measure(**settings):
        explorer.knobs["batch"].value = 4  # somebody else is at the knobs
        return slow(**settings)

    monkeypatch.setattr(module, "measure_overhead", measure)
    explorer.start().wait(120)
    assert [p.batch for p in explorer.measured] == [1]
    assert explorer.values["batch"] == 4
    assert explorer.picture.alt.startswith("4 × 16")
    assert explorer.picture.alt.endswith("press Measure.")


def test_stop_ends_a_measurement_in_the_middle_of_a_pass():
    explorer = latency_explorer()
    explorer.knobs["batch"].value, explorer.knobs["length"].value = 64, 128  # a pass takes seconds
    job = explorer.start()
    while "warming up" not in explorer.message.value:
        time.sleep(0.01)
        assert job.is_alive()
    start = time.perf_counter()
    explorer.stop_button.click()
    job.wait(60)
    assert time.perf_counter() - start < 5  # one block of a busy machine; a whole round is many times as long
    assert job.state == "stopped"
    assert explorer.measured == []
    assert "stopped: nothing was added" in explorer.message.value
    assert not explorer.start_button.disabled


def test_an_error_of_the_measurement_is_shown(monkeypatch):
    def broken(**settings):
        raise ValueError("the model's files are missing: make setup")

    monkeypatch.setattr(module, "measure_overhead", broken)
    explorer = latency_explorer()
    job = explorer.start()
    with pytest.raises(ValueError, match="files are missing"):
        job.wait(10)
    assert job.state == "failed"
    assert "files are missing: make setup" in explorer.message.value
    assert not explorer.start_button.disabled
    assert explorer.measured == []


def test_an_error_of_the_drawing_is_shown_and_the_last_picture_kept(monkeypatch):
    explorer = latency_explorer()
    picture = explorer.picture
    monkeypatch.setattr(module, "overhead_by_size", lambda *_: (_ for _ in ()).throw(ValueError("no such place")))
    explorer.knobs["placement"].value = "parallel"
    assert "no such place" in explorer.status.value
    assert explorer.picture is picture


def test_sizes_with_as_many_words_stand_side_by_side_and_the_axes_hold_long_intervals():
    long = Latency("x", (1.0,) * 5, 1.0, (1.0, 1.0), 1.05, (0.93, 1.61))
    measured = [Overhead(batch, 128 // batch, 16, "houlsby", 6, row(10.0), long) for batch in (1, 8)]
    parts = {"FFN": 800, "projections": 400, "attention": 100, "adapters": 26}
    figure = module.overhead_by_size(parts, (1, 64), {(1, 64): (1.0, 2.0)}, measured)
    first, second = (line.get_xdata()[0] for line in artists.lines(figure, "lora measured"))
    assert first == pytest.approx(7.1)
    assert 7.5 < second < 7.55
    assert figure.axes[1].get_ylim() == (-10, 80)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1, 0.5, 0.125, 0.0325]
    assert "adapters: 26, 2.00 % of the rest" in artists.texts(figure)
