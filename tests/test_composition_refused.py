"""What cannot be stacked, averaged or fused: refused with a reason, and the model is as it was."""

import pytest
from models import make, slots, snapshot
from test_composition import COMPOSE, with_members

from adapters_lesson import AdapterConfig, insert_adapters
from adapters_lesson.composition import average_adapters, fuse_adapters

PFEIFFER = AdapterConfig(3, placement="pfeiffer")
REFUSED = [
    ("a", "new", {}, "names='a', but at least two different adapters are needed"),
    (["a"], "new", {}, r"names=\['a'\], but at least two"),
    (["a", "a"], "new", {}, "at least two different adapters"),
    (["a", "x"], "new", {}, "the model has no adapters called 'x'; it has 'a', 'b'"),
    (["a", "b"], "a", {}, "the model has adapters called 'a' already"),
    (["a", "b"], "no.name", {}, "'no.name' cannot name an adapter"),
    (
        ["a", "b"],
        "new",
        {"b": AdapterConfig(3)},
        "'a' and 'b' are not in the same places, only 'b' is at blocks.0.attention.output.",
    ),
    (
        ["a", "b"],
        "new",
        {"b": AdapterConfig(3, placement="pfeiffer", layers=(0, 2))},
        "only 'a' is at blocks.1.ffn_norm.adapters_before_norm: insert them with the same placement, layers",
    ),
    (["a", "b"], "new", {"a": AdapterConfig(3, placement="pfeiffer", layers=(1,))}, "only 'b' is at blocks.0"),
]


@pytest.mark.parametrize("how", COMPOSE)
@pytest.mark.parametrize(("names", "name", "configs", "message"), REFUSED)
def test_what_cannot_be_composed(how, names, name, configs, message):
    model = make("small_post")
    for member in ("a", "b"):
        insert_adapters(model, configs.get(member, PFEIFFER), member)
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        COMPOSE[how](model, names, name)
    assert snapshot(model) == before
    assert {key for slot in slots(model) for key in slot} == {"a", "b"}
    assert all(slot.active in ("b", None) for slot in slots(model))


@pytest.mark.parametrize("how", ["stack", "fuse"])
def test_trained_layer_norms_have_no_place_in_a_composition(how):
    model = make("small_post")
    insert_adapters(model, AdapterConfig(3), "a")
    insert_adapters(model, AdapterConfig(3, train_layer_norms=True), "b")
    with pytest.raises(ValueError, match="'b' brings trained LayerNorms, and a block has one place for them only"):
        COMPOSE[how](model, ["a", "b"], "new")
    with pytest.raises(ValueError, match=r"only 'b' is at blocks\.0\.attention_norm\.trained_norms"):
        average_adapters(model, ["a", "b"], "new")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            AdapterConfig(4, placement="pfeiffer"),
            "GELU of width 3, scaling 1 beside GELU of width 4, scaling 1; a fusion takes",
        ),
        (AdapterConfig(3, placement="pfeiffer", activation="relu"), "beside ReLU of width 3"),
        (AdapterConfig(3, placement="pfeiffer", scaling=4.0), "beside GELU of width 3, scaling 4"),
    ],
)
def test_weights_that_do_not_correspond_have_no_mean(other, message):
    model = make("small_post")
    insert_adapters(model, PFEIFFER, "a")
    insert_adapters(model, other, "b")
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        average_adapters(model, ["a", "b"], "new")
    assert snapshot(model) == before
    fuse_adapters(model, ["a", "b"], "new")


def test_a_fusion_has_no_mean():
    model = with_members()
    fuse_adapters(model, ["a", "b"], "fused")
    with pytest.raises(ValueError, match="a fusion of a, b has no weights to average"):
        average_adapters(model, ["fused", "c"], "new")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "a mean needs 2 numbers"),
        ([0, 0], r"weights=\[0, 0\], but a mean needs 2 numbers"),
        ([2, -1], "not negative"),
        ([1, float("nan")], "not negative"),
    ],
)
def test_weights_that_make_no_mean(weights, message):
    model = with_members()
    with pytest.raises(ValueError, match=message):
        average_adapters(model, ["a", "b"], "new", weights)
