"""The bottleneck module and the settings for it."""

import dataclasses
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adapters_lesson import Adapter, AdapterConfig
from adapters_lesson.adapter import ACTIVATIONS
from adapters_lesson.guards.config_guard import INITS
from adapters_lesson.placements import PLACEMENTS

ACTIVATION = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh, "identity": lambda x: x}
shapes = st.fixed_dictionaries(
    {"d": st.integers(1, 40), "m": st.integers(1, 40), "batch": st.integers(0, 4), "length": st.integers(1, 9)}
)


def quiet_adapter(d, m, *args, **settings):
    """An adapter that may be wider than the model without a word about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Adapter(d, m, *args, **settings)


@settings(deadline=None, max_examples=60)
@given(shapes, st.sampled_from(sorted(ACTIVATIONS)), st.floats(-4, 4).filter(bool))
def test_starts_as_the_exact_identity(shape, activation, scaling):
    adapter = quiet_adapter(shape["d"], shape["m"], ACTIVATIONS[activation](), scaling=scaling)
    h = torch.randn(shape["batch"], shape["length"], shape["d"])
    assert torch.equal(adapter(h), h)
    assert not torch.equal(adapter.down_project.weight, torch.zeros_like(adapter.down_project.weight))


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_count_is_two_d_m_plus_m_plus_d(shape):
    d, m = shape["d"], shape["m"]
    adapter = quiet_adapter(d, m)
    assert Adapter.count(d, m) == 2 * d * m + m + d == sum(p.numel() for p in adapter.parameters())


@settings(deadline=None, max_examples=60)
@given(
    shapes, st.sampled_from(sorted(ACTIVATIONS)), st.floats(-4, 4).filter(bool), st.sampled_from(["bert", "houlsby"])
)
def test_forward_equals_the_formula(shape, activation, scaling, init):
    adapter = quiet_adapter(
        shape["d"], shape["m"], ACTIVATIONS[activation](), init=init, init_std=0.5, scaling=scaling
    ).double()
    with torch.no_grad():
        adapter.down_project.bias.normal_()
        adapter.up_project.bias.normal_()
    h = torch.randn(shape["batch"], shape["length"], shape["d"], dtype=torch.float64)
    w1, b1, w2, b2 = (p.detach() for p in adapter.parameters())
    update = scaling * (ACTIVATION[activation](h @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(adapter.update(h), update, rtol=0, atol=1e-10)
    torch.testing.assert_close(adapter(h), h + update, rtol=0, atol=1e-10)


def test_the_signature_of_the_lessons():
    adapter = Adapter(model_dim=384, bottleneck_dim=64)
    assert [name for name, _ in adapter.named_children()] == ["down_project", "activation", "up_project", "dropout"]
    assert type(adapter.activation) is nn.GELU
    assert adapter.activation.approximate == "none"
    assert adapter.down_project.weight.shape == (64, 384)
    assert adapter.up_project.weight.shape == (384, 64)
    assert isinstance(Adapter(8, 2, nn.Tanh()).activation, nn.Tanh)


@pytest.mark.parametrize(("init", "default"), [("bert", 0.02), ("houlsby", 0.01)])
@pytest.mark.parametrize("std", [None, 0.3])
def test_random_initialisation(init, default, std):
    torch.manual_seed(0)
    adapter = Adapter(300, 200, init=init, init_std=std)
    expected = std or default
    for projection in (adapter.down_project, adapter.up_project):
        weight, bias = projection.weight, projection.bias
        assert torch.equal(bias, torch.zeros_like(bias))
        # Cutting a normal distribution off at 2 σ leaves 0.8796 of its standard deviation.
        assert weight.std().item() == pytest.approx(expected * (0.8796 if init == "houlsby" else 1), rel=0.02)
        assert weight.mean().item() == pytest.approx(0, abs=expected / 20)
        beyond = weight.abs().max().item() > 2 * expected * (1 + 1e-6)
        assert beyond is (init == "bert")


def test_reset_parameters_draws_anew():
    adapter = Adapter(8, 4, init="bert")
    old = adapter.down_project.weight.clone()
    adapter.reset_parameters("bert", 0.1)
    assert not torch.equal(adapter.down_project.weight, old)
    adapter.reset_parameters()
    assert torch.equal(adapter.up_project.weight, torch.zeros(8, 4))


def test_dropout_drops_the_update_and_only_while_training():
    torch.manual_seed(0)
    adapter = Adapter(50, 8, init="bert", init_std=1.0, dropout=0.5)
    h = torch.randn(200, 50)
    update = adapter.eval().update(h).detach()
    dropped = (adapter.train()(h) - h).detach()
    zero = dropped.abs() < 1e-5
    assert 0.45 < zero.float().mean().item() < 0.55
    torch.testing.assert_close(dropped[~zero], 2 * update[~zero], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("wrong", [0, -1, True, 8.0, "8", None, math.nan])
@pytest.mark.parametrize("name", ["model_dim", "bottleneck_dim"])
def test_refuses_a_senseless_width(name, wrong):
    widths = {"model_dim": 8, "bottleneck_dim": 4} | {name: wrong}
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, not {wrong!r}"):
        Adapter(**widths)


@pytest.mark.parametrize("build", [lambda **k: Adapter(8, 4, **k), lambda **k: AdapterConfig(4, **k)])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"init": "xavier"}, "init must be one of 'zero', 'bert', 'houlsby', not 'xavier'"),
        ({"init": "zero", "init_std": 0.1}, "leave init_std out"),
        ({"init": "bert", "init_std": 0.0}, "init_std must be a finite number above 0.*not 0.0"),
        ({"init": "bert", "init_std": -1.0}, "init_std must be a finite number above 0.*not -1.0"),
        ({"init": "houlsby", "init_std": math.nan}, "init_std must be a finite number above 0.*not nan"),
        ({"init": "houlsby", "init_std": math.inf}, "init_std must be a finite number above 0.*not inf"),
    ],
)
def test_refuses_a_senseless_initialisation(build, wrong, message):
    with pytest.raises(ValueError, match=message):
        build(**wrong)


def test_warns_when_it_is_no_bottleneck():
    with pytest.warns(UserWarning, match="bottleneck_dim=9 is wider than model_dim=8"):
        Adapter(8, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Adapter(8, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "either bottleneck_dim or reduction_factor .* not None and None"),
        ({"bottleneck_dim": 4, "reduction_factor": 2}, "not 4 and 2"),
        ({"bottleneck_dim": 0}, "bottleneck_dim must be a whole number of at least 1, not 0"),
        ({"bottleneck_dim": True}, "not True"),
        ({"bottleneck_dim": 4.0}, "not 4.0"),
        ({"reduction_factor": 0}, "reduction_factor must be above 0 .*not 0"),
        ({"reduction_factor": -2.0}, "reduction_factor must be above 0 .*not -2.0"),
        ({"reduction_factor": math.nan}, "reduction_factor must be above 0 .*not nan"),
        ({"bottleneck_dim": 4, "placement": "serial"}, "'houlsby', 'pfeiffer', 'parallel', not 'serial'"),
        ({"bottleneck_dim": 4, "activation": "swish"}, "'gelu', 'relu', 'silu', 'tanh', 'identity', not 'swish'"),
        ({"bottleneck_dim": 4, "dropout": 1.0}, r"dropout is a probability in \[0, 1\), not 1.0"),
        ({"bottleneck_dim": 4, "dropout": -0.1}, "not -0.1"),
        ({"bottleneck_dim": 4, "dropout": math.nan}, "not nan"),
        ({"bottleneck_dim": 4, "scaling": 0.0}, "scaling must be a finite number other than 0, not 0.0"),
        ({"bottleneck_dim": 4, "scaling": math.inf}, "not inf"),
        ({"bottleneck_dim": 4, "scaling": math.nan}, "not nan"),
        ({"bottleneck_dim": 4, "layers": ()}, r"layers must name different blocks.*not \(\)"),
        ({"bottleneck_dim": 4, "layers": (0, 0)}, r"not \(0, 0\)"),
        ({"bottleneck_dim": 4, "layers": (-1,)}, r"not \(-1,\)"),
    ],
)
def test_config_refuses_nonsense_and_says_what_is_allowed(wrong, message):
    with pytest.raises(ValueError, match=message):
        AdapterConfig(**wrong)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 2000), st.floats(0.1, 5000))
def test_reduction_factor(d, factor):
    expected = max(1, int(d // factor))
    config = AdapterConfig(reduction_factor=factor)
    assert config.bottleneck_for(d) == expected
    assert AdapterConfig(bottleneck_dim=7).bottleneck_for(d) == 7


@pytest.mark.parametrize("m", [1, 3, 24, 48, 64, 100])
def test_an_exact_width_by_reduction_factor(m):
    """FACTS: AdapterHub reaches an exact m with d / (m + 0.5)."""
    assert AdapterConfig(reduction_factor=768 / (m + 0.5)).bottleneck_for(768) == m


def test_config_is_frozen_and_hashable():
    config = AdapterConfig(4, layers=[2, 0])
    assert config.layers == (2, 0)
    assert hash(config) == hash(AdapterConfig(4, layers=(2, 0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.bottleneck_dim = 8


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("init", INITS)
def test_config_builds_what_it_says(placement, init):
    config = AdapterConfig(
        4, placement=placement, activation="tanh", init=init, scaling=2.0, dropout=0.25, train_layer_norms=True
    )
    adapter = config.build(16)
    assert type(adapter.activation) is nn.Tanh
    assert (adapter.scaling, adapter.dropout.p) == (2.0, 0.25)
    assert adapter.down_project.weight.shape == (4, 16)
    assert (adapter.up_project.weight.abs().sum().item() == 0) is (init == "zero")
    assert config.build(16).activation is not adapter.activation
