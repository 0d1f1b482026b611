"""AdapterHub's settings for adapters and ours: translated both ways, or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters_lesson.adapter import ACTIVATIONS, AdapterConfig
from adapters_lesson.exchange.adapterhub_format import from_adapterhub, to_adapterhub
from adapters_lesson.placements import PLACEMENTS


@given(
    st.builds(
        AdapterConfig,
        bottleneck_dim=st.integers(1, 4096),
        placement=st.sampled_from(list(PLACEMENTS)),
        activation=st.sampled_from(list(ACTIVATIONS)),
        init=st.sampled_from(["zero", "bert", "houlsby"]),
        scaling=st.floats(0.01, 100),
        dropout=st.floats(0, 0.99),
        layers=st.none() | st.sets(st.integers(0, 5), min_size=1, max_size=5).map(lambda s: tuple(sorted(s))),
    ),
    st.integers(1, 4096),
)
def test_settings_survive_there_and_back(config, model_dim):
    theirs = json.loads(json.dumps(to_adapterhub(config, model_dim, 6)))
    assert int(model_dim // theirs["reduction_factor"]) == config.bottleneck_dim  # how the library reads the width
    assert from_adapterhub(theirs, model_dim, 6) == config


def settings(**changes):
    return {"mh_adapter": False, "output_adapter": True, "original_ln_before": True, "reduction_factor": 4,
            "non_linearity": "relu"} | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        *[
            ({key: value}, f"^{key}={value!r} cannot be imported: our adapters have .* there")
            for key, value in (
                ("ln_before", True),
                ("ln_after", True),
                ("use_gating", True),
                ("phm_layer", True),
                ("inv_adapter", "nice"),
                ("cross_adapter", True),
                ("original_ln_after", False),
                ("residual_before_ln", False),
                ("residual_before_ln", "post_add"),
                ("stochastic_depth", 0.1),
            )
        ],
        ({"architecture": "lora"}, "no bottleneck adapter but 'lora'"),
        ({"architecture": "union"}, "no bottleneck adapter but 'union'"),
        ({"architecture": "prefix_tuning"}, "no bottleneck adapter but 'prefix_tuning'"),
        ({"scaling": "learned"}, "scaling must be a finite number other than 0, not 'learned'"),
        ({"scaling": "channel"}, "not 'channel'"),
        ({"scaling": "2"}, "scaling must be a finite number other than 0, not '2'"),
        ({"scaling": True}, "scaling must be a finite number other than 0, not True"),
        ({"scaling": float("nan")}, "scaling must be a finite number other than 0, not nan"),
        ({"scaling": 0}, "scaling must be a finite number other than 0"),
        ({"dropout": 1.5}, "dropout is a probability"),
        ({"dropout": None}, "dropout is a probability"),
        ({"non_linearity": "gelu_new"}, "non_linearity must be one of 'gelu', 'relu', 'swish', .*not 'gelu_new'"),
        ({"non_linearity": "leakyrelu"}, "not 'leakyrelu'"),
        ({"non_linearity": None}, "non_linearity must be one of"),
        ({"non_linearity": ["relu"]}, "relu"),
        ({"init_weights": "xavier"}, "init_weights must be one of 'mam_adapter', 'bert', 'houlsby', not 'xavier'"),
        ({"reduction_factor": 0}, "reduction_factor must be above 0"),
        ({"reduction_factor": -4}, "reduction_factor must be above 0"),
        ({"reduction_factor": None}, "reduction_factor must be above 0 and finite"),
        ({"reduction_factor": 10**400}, "reduction_factor must be above 0 and finite"),
        ({"reduction_factor": 5e-324}, "reduction_factor must be above 0 and finite"),
        ({"reduction_factor": {"0": 4}}, "reduction_factor must be above 0 and finite"),
        ({"reduction_factor": {"0": 4, "default": 2}}, r"different widths \(4, 8\)"),
        ({"leave_out": [0, 1, 2]}, r"leaves some of this model's 3 blocks, not \[0, 1, 2\]"),
        ({"leave_out": "0"}, "leave_out must be a list"),
        ({"leave_out": [True]}, "leave_out must be a list"),
        ({"mh_adapter": True}, "no counterpart here: mh_adapter=True, output_adapter=True, original_ln_before=True"),
        ({"original_ln_before": False}, "no counterpart here"),
        ({"output_adapter": False}, "no counterpart here"),
        ({"is_parallel": True, "mh_adapter": True}, "no counterpart here"),
        ({"mh_adapter": "yes"}, "no counterpart here"),
        ({"colour": "red", "age": 3}, "unknown settings 'age', 'colour'"),
    ],
)
def test_settings_without_a_counterpart_are_refused(changes, match):
    assert from_adapterhub(settings(), 16, 3).placement == "pfeiffer"
    with pytest.raises(ValueError, match=match):
        from_adapterhub(settings(**changes), 16, 3)


@pytest.mark.parametrize("theirs", [None, "seq_bn", [], 3])
def test_settings_that_are_no_object_are_refused(theirs):
    with pytest.raises(ValueError, match="must be an object of names and values"):
        from_adapterhub(theirs, 16, 3)


@pytest.mark.parametrize("key", ["mh_adapter", "output_adapter", "reduction_factor", "non_linearity"])
def test_settings_that_are_not_whole_are_refused(key):
    with pytest.raises(ValueError, match=f"the settings lack '{key}'"):
        from_adapterhub({k: v for k, v in settings().items() if k != key}, 16, 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"non_linearity": "Swish"}, {"activation": "silu"}),
        ({"non_linearity": "silu"}, {"activation": "silu"}),
        ({"non_linearity": "linear"}, {"activation": "identity"}),
        ({"scaling": 4}, {"scaling": 4.0}),
        ({"leave_out": None}, {"layers": None}),
        ({"leave_out": [1, 11, -1]}, {"layers": (0, 2)}),  # the library looks up its blocks in the list, no more
        ({"reduction_factor": {"1": 4, "default": 3.9}}, {"bottleneck_dim": 4}),
        ({"reduction_factor": {"1": 9, "default": 4}, "leave_out": [1]}, {"bottleneck_dim": 4, "layers": (0, 2)}),
        ({"reduction_factor": 100}, {"bottleneck_dim": 1}),
        ({"is_parallel": True}, {"placement": "parallel"}),
        ({"is_parallel": True, "original_ln_before": False}, {"placement": "parallel"}),
        ({"mh_adapter": True, "original_ln_before": False}, {"placement": "houlsby"}),
        ({"adapter_residual_before_ln": True, "init_weights_seed": 3, "phm_dim": 8}, {"placement": "pfeiffer"}),
    ],
)
def test_settings_that_mean_the_same_are_read(changes, expected):
    assert vars(from_adapterhub(settings(**changes), 16, 3)).items() >= expected.items()


def test_without_a_version_gelu_is_an_approximation():
    with pytest.raises(ValueError, match=r"a file without a version means gelu_new by gelu"):
        from_adapterhub(settings(non_linearity="gelu"), 16, 3, versioned=False)
    assert from_adapterhub(settings(non_linearity="gelu_orig"), 16, 3, versioned=False).activation == "gelu"
    assert from_adapterhub(settings(non_linearity="gelu"), 16, 3).activation == "gelu"
