"""A new placement, and a new kind of module, are one entry: every reader is then right, or refuses and says why."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import artists
import pytest
import torch
from models import DEPTH, WIDTH, make, output, randomise, small
from torch import nn

from adapters_lesson import (
    Adapter,
    AdapterBank,
    AdapterConfig,
    Classifier,
    fuse_adapters,
    insert_adapters,
    load_adapter,
    remove_adapters,
    save_adapter,
    set_active_adapter,
    set_trainable,
    stack_adapters,
)
from adapters_lesson.adapter import KINDS
from adapters_lesson.costs import count_parameters, measure_memory, memory_ledger
from adapters_lesson.costs.serving import measure_overhead
from adapters_lesson.course.explorers.explore_latency import draw_latency, latency_explorer
from adapters_lesson.course.explorers.explore_placement import placement_explorer
from adapters_lesson.course.explorers.explore_routing import adapter_places
from adapters_lesson.course.figures.diagrams import wiring_of
from adapters_lesson.doctor import diagnose
from adapters_lesson.exchange.adapterhub import export_adapterhub
from adapters_lesson.guards.config_guard import check_sites
from adapters_lesson.placements import BARE_FORMULA, PLACEMENTS, Placement, Site
from adapters_lesson.slots import AdapterSlot, SequentialSlot

ATTENTION = Placement(  # made up: Houlsby's first place only
    sites=dict.fromkeys(("post", "pre"), (Site("attention_output", SequentialSlot, "attention"),)),
    formula=BARE_FORMULA,  # what comes after the FFN is as in the bare model
)


class IA3(nn.Module):
    """Scaling of the output, as in (IA)3 (Liu et al. 2022, arXiv 2205.05638): ``h * scale``."""

    def __init__(self, model_dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(model_dim))

    def update(self, h):
        return h * (self.scale - 1)

    def forward(self, h):
        return h + self.update(h)


@dataclass(frozen=True)
class IA3Config:
    kind: ClassVar[str] = "ia3"
    placement: str = "houlsby"
    layers: tuple[int, ...] | None = None
    train_layer_norms: bool = False

    def __post_init__(self):
        check_sites(self)

    def build(self, model_dim):
        return IA3(model_dim)


@pytest.fixture(autouse=True)
def entries(monkeypatch):
    """The two entries; nothing else in the course knows of them."""
    monkeypatch.setitem(PLACEMENTS, "attention", ATTENTION)
    monkeypatch.setitem(KINDS, "ia3", IA3Config)


CONFIGS = {"attention": lambda: AdapterConfig(4, placement="attention"), "ia3": IA3Config}
SIZE = {"attention": DEPTH * Adapter.count(WIDTH, 4), "ia3": 2 * DEPTH * WIDTH}
both = pytest.mark.parametrize("new", CONFIGS)
every_kind_of_block = pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", "gpt2", "llama", "vit"])


def with_new(name, new, random=True):
    model = make(name)
    for module in insert_adapters(model, CONFIGS[new]()):
        if random:
            randomise(module, 0.4)
    return model


def by_hand(model, new):
    """Two blocks of a SmallTransformer as the formulas say, the modules called by hand."""
    ids = torch.arange(12).view(2, 6)
    x = model.embed(ids)
    for block in model.blocks:
        first = block.attention.output.adapters_after["default"]
        second = block.ffn.contract.adapters_after["default"] if new == "ia3" else nn.Identity()
        set_active_adapter(model, None)
        attend, post = lambda x, block=block: block.attention(x, None), block.norm == "post"
        if post:
            x = block.attention_norm(first(attend(x)) + x)
            x = block.ffn_norm(second(block.ffn(x)) + x)
        else:
            x = x + first(attend(block.attention_norm(x)))
            x = x + second(block.ffn(block.ffn_norm(x)))
    set_active_adapter(model, "default")
    return model.final_norm(x), model(ids)


@both
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_forward_pass_is_the_formula(new, norm):
    with torch.no_grad():
        torch.testing.assert_close(*by_hand(with_new(f"small_{norm}", new), new))


@both
@every_kind_of_block
def test_it_comes_switches_and_goes(name, new):
    bare = output(make(name))
    assert torch.equal(output(with_new(name, new, random=False)), bare)
    model = with_new(name, new)
    changed = output(model)
    assert not torch.allclose(changed, bare, atol=1e-3)
    set_active_adapter(model, None)
    assert torch.equal(output(model), bare)
    set_active_adapter(model, "default")
    assert torch.equal(output(model), changed)
    remove_adapters(model)
    assert torch.equal(output(model), bare)


@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", "gpt2"])
def test_the_picture_names_it(name):
    wires = wiring_of(with_new(name, "attention"))
    labels = [part.label for part in wires.parts]
    assert labels[labels.index("attention") + 1] == "adapter" and labels.count("adapter") == 1
    assert wires.formula == BARE_FORMULA["post" if name in ("small_post", "bert") else "pre"]
    assert [part.label for part in wiring_of(with_new(name, "ia3")).parts].count("ia3") == 2


class Elsewhere(AdapterSlot):
    attribute = "adapters_elsewhere"

    def adapt(self, name, host, inputs):
        return self[name](inputs[0])


def test_the_picture_refuses_what_it_would_leave_out(monkeypatch):
    site = Site("ffn_input", Elsewhere, "FFN")
    sites = dict.fromkeys(("post", "pre"), (site,))
    monkeypatch.setitem(PLACEMENTS, "odd", Placement(sites=sites, formula=BARE_FORMULA))
    model = small()
    insert_adapters(model, AdapterConfig(4, placement="odd"))
    with pytest.raises(ValueError, match="nothing is known here of a Elsewhere where 'default' hangs"):
        wiring_of(model)


@both
@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", "llama"])
def test_the_ledger_is_what_is_measured(name, new):
    model = Classifier(with_new(name, new), 2)
    set_trainable(model)
    predicted, measured = memory_ledger(model, 4, 16), measure_memory(model, 4, 16)
    assert predicted.activations == pytest.approx(measured.activations, rel=0.01)
    assert predicted.gradients == measured.gradients == 4 * (SIZE[new] + 2 * WIDTH + 2)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.03)


@both
def test_it_is_counted(new):
    model = Classifier(with_new("small_post", new), 2)
    set_trainable(model)
    assert count_parameters(model).trainable == SIZE[new] + 2 * WIDTH + 2


def test_latency_and_explorers():
    point = measure_overhead(1, 8, 4, "attention", 2, seconds=0.01)
    assert point.adapters.overhead > -100
    one, two = (draw_latency(1, 8, 4, placement, 2).alt.split("add ")[1] for placement in ("attention", "houlsby"))
    assert float(two.split()[0]) == pytest.approx(2 * float(one.split()[0]), abs=0.011)
    assert "attention" in latency_explorer().knobs["placement"].options
    assert artists.drawn(placement_explorer(), placement="attention").alt.startswith("Attention, post-LN: block 3")


@both
def test_in_a_bank_with_a_mixed_batch(new):
    bank = AdapterBank(small())
    bank.add("new", CONFIGS[new](), 2)
    bank.add("old", AdapterConfig(3, placement="parallel"), 2)
    randomise(bank.eval())
    ids = torch.arange(12).view(2, 6)
    mixed = bank(ids, torch.ones_like(ids), ["old", "new"])
    for row, name in enumerate(["old", "new"]):
        bank.switch(name)
        torch.testing.assert_close(bank(ids, torch.ones_like(ids))[row], mixed[row])
    words = ["attention"] if new == "attention" else ["attention", "FFN"]
    assert adapter_places(bank) == [{"new": words, "old": ["beside"]}] * DEPTH


@both
def test_saving_and_loading(new, tmp_path):
    model, other = (with_new("small_post", new, random=False) for _ in range(2))
    remove_adapters(other)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for block in model.blocks:
        randomise(block.attention.output.adapters_after, 0.4)
    save_adapter(model, tmp_path)
    load_adapter(other, tmp_path, "default")
    assert torch.equal(output(other), output(model))


def test_adapterhub_refuses_both(tmp_path):
    model = make("bert")
    insert_adapters(model, CONFIGS["attention"]())
    with pytest.raises(ValueError, match="AdapterHub has no counterpart of placement='attention'"):
        export_adapterhub(model, tmp_path)
    model = make("bert")
    insert_adapters(model, IA3Config())
    with pytest.raises(ValueError, match="is a IA3, and a folder"):
        export_adapterhub(model, tmp_path)


@both
def test_the_doctor_sees_it(new):
    model = Classifier(with_new("small_post", new), 2)
    set_trainable(model)
    ids = torch.arange(12).view(2, 6)
    sgd = partial(torch.optim.SGD, lr=0.1)
    assert not diagnose(model, sgd(model.parameters()), (ids, torch.ones_like(ids)))
    assert [finding.trouble for finding in diagnose(model, sgd(model.head.parameters()))] == ["optimiser"]
    set_active_adapter(model, None)
    assert [finding.trouble for finding in diagnose(model)] == ["inactive"]


def test_a_stack_works_and_a_fusion_says_why_not():
    model = with_new("small_post", "ia3")
    insert_adapters(model, IA3Config(), "second")
    stack_adapters(model, ["default", "second"], "stack")
    set_active_adapter(model, "default")
    wanted = output(model)
    set_active_adapter(model, "stack")
    assert torch.equal(output(model), wanted)  # the second one's scale is 1
    with pytest.raises(ValueError, match="a IA3 cannot be fused"):
        fuse_adapters(model, ["default", "second"], "fused")


def test_an_unknown_placement_says_which_there_are():
    with pytest.raises(
        ValueError, match="placement must be one of 'houlsby', 'pfeiffer', 'parallel', 'attention', not"
    ):
        AdapterConfig(4, placement="nowhere")
