"""The placement explorer: the model is a live one, and the picture follows the knobs."""

import artists
import pytest
import torch

from adapters_lesson import Adapter
from adapters_lesson.course.explorers import explore_placement
from adapters_lesson.course.explorers.explore_placement import (
    LAYERS,
    bare,
    draw_placement,
    placement_explorer,
    prepared,
)
from adapters_lesson.insertion import adapter_names

ALL = LAYERS["all four"]
HEAD = 2 * 384 + 2
EVERY = [(placement, norm) for placement in ("none", "houlsby", "pfeiffer", "parallel") for norm in ("post", "pre")]


def words(picture):
    return " ".join(artists.texts(picture.figure))


@pytest.mark.parametrize(("placement", "norm"), EVERY)
@pytest.mark.parametrize("train_layer_norms", [False, True])
def test_what_is_trained_gets_a_gradient_and_nothing_has_changed(placement, norm, train_layer_norms):
    _, count, change, with_gradient = prepared(placement, norm, train_layer_norms, 4, ALL)
    adapters = {"none": 0, "houlsby": 8}.get(placement, 4)
    norms = 4 * 2 * 2 * 384 if train_layer_norms and placement != "none" else 0
    assert change == 0
    assert count.trainable == adapters * Adapter.count(384, 4) + norms + HEAD
    assert with_gradient == count.trainable


def test_a_change_of_the_output_would_be_seen(monkeypatch):
    prepare = explore_placement.prepare

    def prepare_askew(model, *how):
        prepare(model, *how)
        for adapter in [module for module in model.modules() if isinstance(module, Adapter)]:
            torch.nn.init.normal_(adapter.up_project.weight, std=0.1)

    monkeypatch.setattr(explore_placement, "prepare", prepare_askew)
    assert prepared("houlsby", "post", False, 5, ALL)[2] > 1e-4
    picture = draw_placement("houlsby", "post", False, 5, ALL)
    assert "exactly 0" not in words(picture) + picture.alt
    prepared.cache_clear()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_bare_model_is_left_behind(norm):
    model, inputs, before = bare(norm)
    prepared("parallel", norm, True, 3, (1, 3))
    with torch.no_grad():
        assert torch.equal(model(**inputs), before)
    assert adapter_names(model) == []
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="placement must be one of"):
        prepared("beneath", norm, False, 3, ALL)
    assert adapter_names(model) == []


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
    assert artists.size(draw_placement(placement, norm, True, 256, ALL).figure) == "0 0 900 435"


def test_a_wrong_value_shows_its_message_and_keeps_the_picture():
    explorer = placement_explorer()
    before = explorer.picture
    explorer.knobs["bottleneck_dim"].options = [16, 0]
    explorer.knobs["bottleneck_dim"].value = 0
    assert isinstance(explorer.error, ValueError)
    assert "bottleneck_dim must be a whole number of at least 1" in explorer.status.value
    assert explorer.picture is before
    with pytest.raises(ValueError, match='norm must be "post"'):
        draw_placement("pfeiffer", "sideways", False, 16, ALL)
