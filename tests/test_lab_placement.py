"""The placement explorer: the model is a live one, and the picture follows the knobs."""

import struct

import artists
import pytest
import torch

from adapters_lesson import Adapter
from adapters_lesson.insertion import adapter_names
from adapters_lesson.lab.placement import LAYERS, draw_placement, placement_explorer, prepared
from adapters_lesson.plots.diagrams import Part
from adapters_lesson.plots.placement import spread

ALL = LAYERS["all four"]
HEAD = 2 * 384 + 2
EVERY = [(placement, norm) for placement in ("none", "houlsby", "pfeiffer", "parallel") for norm in ("post", "pre")]


def words(picture):
    return " ".join(artists.texts(picture.figure))


@pytest.mark.parametrize(("placement", "norm"), EVERY)
@pytest.mark.parametrize("train_layer_norms", [False, True])
def test_what_is_trained_gets_a_gradient_and_nothing_has_changed(placement, norm, train_layer_norms):
    seen = prepared(placement, norm, train_layer_norms, 4, ALL)
    adapters = {"none": 0, "houlsby": 8}.get(placement, 4)
    norms = 4 * 2 * 2 * 384 if train_layer_norms and placement != "none" else 0
    assert seen.change == 0
    assert seen.count.trainable == adapters * Adapter.count(384, 4) + norms + HEAD
    assert seen.with_gradient == seen.count.trainable


def test_a_change_of_the_output_would_be_seen(monkeypatch):
    from adapters_lesson.lab import placement

    insert = placement.insert_adapters

    def insert_askew(model, config):
        for adapter in insert(model, config):
            torch.nn.init.normal_(adapter.up_project.weight, std=0.1)

    monkeypatch.setattr(placement, "insert_adapters", insert_askew)
    assert prepared("houlsby", "post", False, 5, ALL).change > 1e-4
    picture = draw_placement("houlsby", "post", False, 5)
    assert "exactly 0" not in words(picture) + picture.alt
    prepared.cache_clear()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_bare_model_is_left_behind(norm):
    from adapters_lesson.lab.placement import _bare, _batch

    model, before = _bare(norm)
    prepared("parallel", norm, True, 3, (1, 3))
    with torch.no_grad():
        assert torch.equal(model(**_batch()), before)
    assert adapter_names(model) == []
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="placement must be one of"):
        prepared("beneath", norm, False, 3, ALL)
    assert adapter_names(model) == []


def test_parts_fill_the_width_with_equal_gaps():
    box, plus = Part("box"), Part("+", is_sum=True)
    rows = ([box, plus, box], [box] * 6 + [plus] * 3, [box, plus] * 4)
    ends = set()
    for parts in rows:
        xs = spread(parts)
        halves = [0.27 if part.is_sum else 0.72 for part in parts]
        gaps = [right - left - a - b for left, right, a, b in zip(xs, xs[1:], halves, halves[1:], strict=False)]
        assert min(gaps) == pytest.approx(max(gaps))
        assert min(gaps) > 0.3  # an arrow, and the line that branches off
        ends.add((round(xs[0] - halves[0], 6), round(xs[-1] + halves[-1], 6)))
    assert len(ends) == 1


def test_the_picture_follows_every_knob():
    explorer = placement_explorer()
    assert "LN(update(LN(h + r)) + h + r)" in words(explorer.picture)
    assert "1 × 12,688 parameters" in words(explorer.picture)
    assert "51,522 of" in words(explorer.picture)
    assert "exactly 0" in words(explorer.picture)

    explorer.knobs["placement"].value = "houlsby"
    assert "LN(A(h) + r)" in words(explorer.picture)
    assert "2 × 12,688 parameters" in words(explorer.picture)
    explorer.knobs["norm"].value = "pre"
    assert words(explorer.picture).startswith("Houlsby, pre-LN")
    explorer.knobs["bottleneck_dim"].value = 8
    assert f"{8 * Adapter.count(384, 8) + HEAD:,} of" in words(explorer.picture)
    explorer.knobs["train_layer_norms"].value = True
    assert f"{8 * Adapter.count(384, 8) + 4 * 4 * 384 + HEAD:,} of" in words(explorer.picture)
    assert "LayerNorm (trained)" in explorer.picture.alt
    explorer.knobs["layers"].value = LAYERS["the last one"]
    assert f"{2 * Adapter.count(384, 8) + 4 * 384 + HEAD:,} of" in words(explorer.picture)

    explorer.knobs["placement"].value = "parallel"
    assert "h + update(r) + r" in words(explorer.picture)
    assert "beside the FFN adapter (trained)" in explorer.picture.alt
    explorer.reset_button.click()
    assert "Pfeiffer, post-LN" in words(explorer.picture)
    assert explorer.error is None


def test_without_adapters_their_knobs_rest():
    explorer = placement_explorer()
    explorer.knobs["placement"].value = "none"
    assert [name for name, knob in explorer.knobs.items() if knob.disabled] == [
        "train_layer_norms",
        "bottleneck_dim",
        "layers",
    ]
    assert "none" in words(explorer.picture)
    assert f" {HEAD} of" in words(explorer.picture)
    explorer.knobs["placement"].value = "parallel"
    assert not any(knob.disabled for knob in explorer.knobs.values())


@pytest.mark.parametrize(("placement", "norm"), EVERY)
def test_all_pictures_have_the_same_size(placement, norm):
    png = draw_placement(placement, norm, True, 256).png()
    assert struct.unpack(">II", png[16:24]) == (792, 374)


def test_a_wrong_value_shows_its_message_and_keeps_the_picture():
    explorer = placement_explorer()
    before = explorer.picture
    explorer.knobs["bottleneck_dim"].options = [16, 0]
    explorer.knobs["bottleneck_dim"].value = 0
    assert isinstance(explorer.error, ValueError)
    assert "bottleneck_dim must be a whole number of at least 1" in explorer.status.value
    assert explorer.picture is before
    with pytest.raises(ValueError, match='norm must be "post"'):
        draw_placement(norm="sideways")
