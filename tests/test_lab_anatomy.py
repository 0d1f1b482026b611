"""The anatomy explorer: what it computes, and that its picture follows the knobs."""

import artists
import pytest
import torch

from adapters_lesson import Adapter
from adapters_lesson.course.explorers.explore_anatomy import (
    INIT_STDS,
    anatomy_explorer,
    block_parameters,
    directions,
    draw_anatomy,
    new_adapter,
    real_hidden_states,
    relative_updates,
)
from adapters_lesson.course.figures.curves import update_singular_values
from adapters_lesson.course.figures.style import percent
from adapters_lesson.transformer import Block, SmallTransformerConfig


def words(picture):
    return " ".join(artists.texts(picture.figure))


def marked_point(picture):
    """What the point on the curve says: "init_std 0.01: 0.60 %"; None when there is none."""
    return next(iter(artists.titles(picture.figure, "init_std")), None)


def bars(picture):
    """How many singular values are drawn."""
    found = [int(title.split()[0]) for title in artists.titles(picture.figure) if title.endswith("singular values")]
    return found[0] if found else 0


@pytest.mark.parametrize("activation", [torch.nn.GELU(), torch.nn.ReLU(), torch.nn.Tanh(), torch.nn.Identity()])
@pytest.mark.parametrize(("d", "m", "scaling"), [(24, 4, 1.0), (24, 4, -2.5), (12, 12, 1.0), (8, 1, 4.0)])
def test_the_singular_values_are_the_jacobians(activation, d, m, scaling):
    torch.manual_seed(d + m)
    adapter = Adapter(d, m, activation, init="bert", init_std=0.5, scaling=scaling)
    torch.nn.init.normal_(adapter.down_project.bias)  # a trained adapter's is not zero
    at = torch.randn(d)
    expected = torch.linalg.svdvals(torch.autograd.functional.jacobian(adapter.update, at)).double()
    values = update_singular_values(adapter, at)
    assert values.shape == (min(d, m),)
    assert torch.allclose(values, expected[: min(d, m)], rtol=1e-4, atol=1e-5)
    assert torch.all(expected[min(d, m) :] < 1e-5)


@pytest.mark.filterwarnings("ignore:bottleneck_dim=9 is wider")
def test_the_singular_values_of_something_too_wide_for_a_bottleneck():
    adapter = Adapter(6, 9, init="bert", init_std=0.5)
    at = torch.randn(6)
    expected = torch.linalg.svdvals(torch.autograd.functional.jacobian(adapter.update, at)).double()
    assert torch.allclose(update_singular_values(adapter, at), expected, rtol=1e-4, atol=1e-5)


def test_singular_values_need_one_hidden_state_and_leave_no_gradients():
    adapter = Adapter(6, 2)
    with pytest.raises(ValueError, match=r"at must be one hidden state of shape \(6,\), not \(3, 6\)"):
        update_singular_values(adapter, torch.randn(3, 6))
    with torch.no_grad():
        assert update_singular_values(adapter, torch.randn(6)).tolist() == [0.0, 0.0]
    assert all(p.grad is None for p in adapter.parameters())


def test_the_share_is_of_a_block_as_the_course_builds_it():
    block = Block(SmallTransformerConfig(hidden_size=24, num_attention_heads=4, intermediate_size=96))
    assert block_parameters(24) == sum(p.numel() for p in block.parameters())


def test_the_hidden_states_are_real_and_come_without_padding():
    states = real_hidden_states()
    assert states.shape[1] == 384
    assert 60 < len(states) < 120
    assert torch.all(states.norm(dim=-1) > 1)


@pytest.mark.parametrize(("init", "activation"), [("bert", "gelu"), ("houlsby", "tanh")])
def test_the_distances_are_those_of_new_adapters(init, activation):
    states, distances = real_hidden_states(), relative_updates(16, activation, init)
    assert tuple(distances) == INIT_STDS
    for std in (0.001, 0.1, 1.0):
        with torch.no_grad():
            update = new_adapter(384, 16, activation, init, std).update(states)
        expected = (update.norm(dim=-1) / states.norm(dim=-1)).mean().item()
        assert distances[std] == pytest.approx(expected, rel=1e-4)
    assert list(distances.values()) == sorted(distances.values())
    assert set(relative_updates(16, activation, "zero").values()) == {0.0}


def test_relu_takes_about_half_of_the_directions_away():
    assert len(directions(new_adapter(384, 64, "identity", "houlsby", 0.01))) == 64
    assert len(directions(new_adapter(384, 64, "gelu", "houlsby", 0.01))) == 64
    assert 20 < len(directions(new_adapter(384, 64, "relu", "houlsby", 0.01))) < 44
    assert directions(new_adapter(384, 64, "gelu", "zero", 0.01)) == []


def test_percent_needs_no_powers_of_ten():
    shares = {
        0.0559: "5.6 %",
        0.00012: "0.012 %",
        84.37: "8,400 %",
        0.00995: "1.0 %",
        0.0996: "10 %",
        3.2e-9: "0.00000032 %",
    }
    assert {share: percent(share) for share in shares} == shares


def test_the_picture_follows_every_knob():
    explorer = anatomy_explorer()
    assert "49,600 parameters" in words(explorer.picture)
    assert "5.6 %" in words(explorer.picture)
    assert marked_point(explorer.picture) == f"init_std 0.01: {percent(relative_updates(64, 'gelu', 'houlsby')[0.01])}"
    assert bars(explorer.picture) == 64

    explorer.knobs["bottleneck_dim"].value = 8
    assert "384 × 8: 3,080" in words(explorer.picture)
    assert "It pushes in 8 of 384 directions" in words(explorer.picture)
    assert bars(explorer.picture) == 8

    explorer.knobs["model_dim"].value = 1024
    assert f"{Adapter.count(1024, 8):,} parameters" in words(explorer.picture)
    assert "8 of 1,024 directions" in words(explorer.picture)

    explorer.knobs["init_std"].value = 1.0
    assert marked_point(explorer.picture).startswith("init_std 1: ")

    explorer.knobs["activation"].value = "relu"
    assert "ReLU" in words(explorer.picture)
    explorer.knobs["init"].value = "bert"
    assert marked_point(explorer.picture) == f"init_std 1: {percent(relative_updates(8, 'relu', 'bert')[1.0])}"
    assert explorer.error is None
    assert "ReLU" in explorer.status.value

    explorer.reset_button.click()
    assert "49,600 parameters" in words(explorer.picture)


def test_a_start_at_zero_moves_nothing_and_rests_the_std():
    explorer = anatomy_explorer()
    explorer.knobs["init"].value = "zero"
    assert explorer.knobs["init_std"].disabled
    assert "It moves h by exactly 0" in words(explorer.picture)
    assert "the model is unchanged" in explorer.picture.alt
    assert marked_point(explorer.picture) is None
    assert bars(explorer.picture) == 0
    explorer.knobs["init"].value = "bert"
    assert not explorer.knobs["init_std"].disabled


def test_the_extremes_can_be_drawn_in_the_same_size():
    for d in (256, 4096):
        for m in (1, 256):
            for activation, std in (("identity", INIT_STDS[0]), ("tanh", INIT_STDS[-1])):
                assert artists.size(draw_anatomy(d, m, activation, "bert", std).figure) == "0 0 900 528"


def test_a_wrong_value_shows_its_message_and_keeps_the_picture():
    explorer = anatomy_explorer()
    before = explorer.picture
    explorer.knobs["bottleneck_dim"].options = [64, 0]
    explorer.knobs["bottleneck_dim"].value = 0
    assert isinstance(explorer.error, ValueError)
    assert "bottleneck_dim must be a whole number of at least 1" in explorer.status.value
    assert explorer.picture is before


def test_drawing_leaves_the_learners_random_numbers_alone():
    draw_anatomy(768, 2, "silu", "bert", 0.3)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draw_anatomy(768, 4, "silu", "bert", 0.3)
    assert torch.equal(torch.rand(2), expected)
