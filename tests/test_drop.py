"""AdapterDrop: which adapters are switched off, and that everything else stays."""

import pytest
import torch
from models import DEPTH, make, output, snapshot
from torch import nn

from adapters_lesson import AdapterConfig, Architecture, drop_adapters, insert_adapters, set_active_adapter
from adapters_lesson.placements import PLACEMENTS

RANDOM = {"init": "houlsby", "init_std": 0.5}


@pytest.mark.parametrize("norms", [False, True], ids=["", "norms"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["small_post", "bert_head", "gpt2_head", "llama", "vit"])
def test_dropped_layers_are_as_if_they_never_had_adapters(name, placement, norms):
    model, bare = make(name), output(make(name))
    insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=norms, **RANDOM))
    with torch.no_grad():  # trained LayerNorms differ from the base's
        for path, parameter in model.named_parameters():
            if "trained_norms" in path:
                parameter.add_(0.1)
    with_all, bytes_before = output(model), snapshot(model)

    upper = make(name)
    insert_adapters(upper, AdapterConfig(4, placement=placement, train_layer_norms=norms, layers=range(1, DEPTH)))
    upper.load_state_dict({key: model.state_dict()[key] for key in upper.state_dict()})

    drop_adapters(model, range(1))
    dropped = output(model)
    assert torch.equal(dropped, output(upper))
    assert not torch.allclose(dropped, with_all, atol=1e-3)
    assert not torch.allclose(dropped, bare, atol=1e-3)
    drop_adapters(model, [2, 1, 1])  # drops add up, and may repeat
    assert torch.equal(output(model), bare)
    assert snapshot(model) == bytes_before
    set_active_adapter(model, "default")
    assert torch.equal(output(model), with_all)


def test_dropping_no_layer_or_resting_adapters_changes_nothing():
    model = make("small_post")
    bare = output(model)
    insert_adapters(model, AdapterConfig(4, **RANDOM))
    with_all = output(model)
    drop_adapters(model, [])
    assert torch.equal(output(model), with_all)
    set_active_adapter(model, None)
    drop_adapters(model, range(DEPTH))
    assert torch.equal(output(model), bare)


def test_only_the_active_adapters_are_dropped():
    model = make("small_post")
    insert_adapters(model, AdapterConfig(4, **RANDOM), "first")
    first = output(model)
    insert_adapters(model, AdapterConfig(4, **RANDOM), "second")
    drop_adapters(model, range(2))
    set_active_adapter(model, "first")
    assert torch.equal(output(model), first)


@pytest.mark.parametrize("layers", [[DEPTH], [0, -1], range(2, DEPTH + 1)])
def test_layers_that_the_model_lacks_are_refused_and_nothing_is_dropped(layers):
    model = make("small_post")
    insert_adapters(model, AdapterConfig(4, **RANDOM))
    before = output(model)
    with pytest.raises(ValueError, match=r"layers=\[.*\], but the model has 3 blocks: use 0 to 2"):
        drop_adapters(model, layers)
    assert torch.equal(output(model), before)


def test_a_model_without_adapters_is_refused():
    with pytest.raises(ValueError, match=r"no adapters that could be dropped: insert_adapters\(model, config\) first"):
        drop_adapters(make("small_post"), [0])


def test_a_model_outside_the_table_is_dropped_by_its_architecture():
    block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(block, 2, enable_nested_tensor=False).train()  # in training mode: no fused path
    names = Architecture("layers", "linear1", "linear2", "norm2", ("norm1", "norm2"), "pre", model_dim=16)
    x = torch.randn(2, 5, 16)
    before = model(x)
    insert_adapters(model, AdapterConfig(4, placement="parallel", **RANDOM), architecture=names)
    assert not torch.equal(model(x), before)
    drop_adapters(model, range(2), architecture=names)
    assert torch.equal(model(x), before)
