"""Stacks, means and fusions of adapters: their arithmetic, what is trained, and what is refused."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import VOCAB, WIDTH, make, output, randomise, slots, snapshot, toy_data, train_steps

from adapters_lesson import AdapterConfig, Classifier, drop_adapters, insert_adapters, remove_adapters, train
from adapters_lesson.adapter import Adapter
from adapters_lesson.composition import (
    Composed,
    Fusion,
    Stack,
    average_adapters,
    fuse_adapters,
    fusion_attention,
    stack_adapters,
)
from adapters_lesson.insertion import adapter_config, set_active_adapter, set_trainable
from adapters_lesson.methods import trainable
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import _PASS, routed

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
COMPOSE = {"stack": stack_adapters, "average": average_adapters, "fuse": fuse_adapters}
MODELS = ("small_post", "small_pre", "bert", "distilbert", "gpt2", "llama")


def with_members(name="small_post", names=("a", "b", "c"), config=None, std=0.3):
    """A model with random adapters of these names, large enough to matter."""
    model = make(name)
    for i, member in enumerate(names):
        insert_adapters(model, config or AdapterConfig(3, placement="pfeiffer"), member)
        torch.manual_seed(10 + i)
        for slot in slots(model):
            if member in slot:
                randomise(slot[member], std)
    return model


def batch():
    ids = torch.randint(2, VOCAB, (3, 7), generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(7) < torch.tensor([[7], [4], [1]])).long()
    return ids * mask, mask


def all_of(model, name):
    return [slot[name] for slot in slots(model) if name in slot]


# --- What they compute ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(members=st.integers(2, 5), d=st.integers(1, 12), rows=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_fusion_is_the_papers_formula(members, d, rows, seed):
    torch.manual_seed(seed)
    adapters = [Adapter(d, 1).double() for _ in range(members)]
    fusion = Fusion(d, [str(n) for n in range(members)], adapters).double()
    for module in (fusion, *adapters):
        randomise(module, 0.7)
    h = torch.randn(rows, 4, d, dtype=torch.double)
    a = torch.stack([adapter(h) - h for adapter in adapters])
    q = torch.einsum("ij,btj->bti", fusion.query.weight, h)
    k = torch.einsum("ij,nbtj->nbti", fusion.key.weight, a)
    v = torch.einsum("ij,nbtj->nbti", torch.eye(d, dtype=torch.double) + fusion.value.weight, a)
    scores = torch.einsum("bti,nbti->nbt", q, k)
    attention = scores.exp() / scores.exp().sum(0)
    expected = torch.einsum("nbt,nbti->bti", attention, v)
    torch.testing.assert_close(fusion.update(h), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fusion(h), h + expected, rtol=1e-9, atol=1e-9)


def test_the_count_of_a_fusion_is_three_square_matrices_whatever_the_members():
    for names in (("a", "b"), ("a", "b", "c")):
        model = with_members(names=names)
        before = sum(p.numel() for p in model.parameters())
        fusions = fuse_adapters(model, names, "fused")
        assert len(fusions) == 3
        assert sum(p.numel() for p in model.parameters()) - before == 3 * Fusion.count(WIDTH) == 3 * 3 * WIDTH**2


@torch.no_grad()
def test_a_fusion_of_adapters_that_do_nothing_does_nothing():
    model = make("small_post")
    bare = output(model)
    for name in ("a", "b"):
        insert_adapters(model, AdapterConfig(3), name)  # zero: the identity
    fuse_adapters(model, ["a", "b"], "fused")
    assert torch.equal(output(model), bare)


@torch.no_grad()
def test_a_fusion_begins_near_the_mean_of_what_its_members_add():
    torch.manual_seed(0)
    adapters = [Adapter(64, 8, init="bert", init_std=0.2) for _ in range(3)]
    fusion, h = Fusion(64, "abc", adapters), torch.randn(2, 5, 64)
    updates = torch.stack([adapter.update(h) for adapter in adapters])
    assert (fusion.update(h) - updates.mean(0)).norm() < 0.2 * updates.mean(0).norm()
    # V is exactly one, so it is a mean with some weights: never outside of what the members add.
    assert (fusion.update(h) <= updates.amax(0) + 1e-6).all() and (fusion.update(h) >= updates.amin(0) - 1e-6).all()
    same = Fusion(64, "abc", [adapters[0]] * 3)
    torch.testing.assert_close(same.update(h), updates[0])


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_fusion_that_attends_to_one_member_only_is_that_member(name):
    model = with_members(name)
    set_active_adapter(model, "b")
    expected = output(model)
    for fusion in fuse_adapters(model, ["a", "b"], "fused"):
        fusion.query.weight.zero_()  # all scores are 0: half of each
    half = output(model)
    for slot in slots(model):
        slot["fused"].members = (slot["b"], slot["b"])
    torch.testing.assert_close(output(model), expected, **CLOSE)
    assert not torch.allclose(half, expected, atol=1e-2)


@torch.no_grad()
def test_a_stack_is_one_adapter_after_the_other():
    one, two, three = (Adapter(8, 3).double() for _ in range(3))
    for adapter in (one, two, three):
        randomise(adapter, 0.5)
    stack, h = Stack("abc", (one, two, three)), torch.randn(2, 8, dtype=torch.double)
    torch.testing.assert_close(stack(h), three(two(one(h))))
    torch.testing.assert_close(stack.update(h), three(two(one(h))) - h)
    assert not torch.allclose(stack(h), one(two(three(h))))


@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_a_fresh_adapter_on_top_leaves_the_stack_as_the_first(placement):
    model = with_members(names=("a",), config=AdapterConfig(3, placement=placement))
    expected = output(model)
    insert_adapters(model, AdapterConfig(2, placement=placement), "top")
    stack_adapters(model, ["a", "top"], "stacked")
    torch.testing.assert_close(output(model), expected, **CLOSE)


@pytest.mark.parametrize("norms", [False, True])
@torch.no_grad()
def test_an_average_has_the_mean_of_the_weights(norms):
    model = with_members(config=AdapterConfig(3, train_layer_norms=norms, scaling=2.0, activation="tanh"))
    added = average_adapters(model, ["a", "b", "c"], "mean", [2, 1, 1])
    assert len(added) == 6 and all(isinstance(adapter, Adapter) and adapter.scaling == 2.0 for adapter in added)
    assert sum("mean" in slot for slot in slots(model)) == (12 if norms else 6)
    for slot in slots(model):
        for key, parameter in slot["mean"].named_parameters():
            a, b, c = (slot[name].get_parameter(key) for name in "abc")
            torch.testing.assert_close(parameter, 0.5 * a + 0.25 * b + 0.25 * c)
            assert parameter.requires_grad
    assert adapter_config(model, "mean").train_layer_norms is norms
    before = snapshot(model)
    for adapter in added:
        randomise(adapter)  # tensors of its own
    assert {k for k in before if snapshot(model)[k] != before[k]} <= {k for k in before if ".mean." in k}


@torch.no_grad()
def test_an_average_of_one_thing_is_that_thing():
    model = with_members()
    set_active_adapter(model, "b")
    expected = output(model)
    average_adapters(model, ["a", "b"], "only_b", [0, 5])
    torch.testing.assert_close(output(model), expected, **CLOSE)


@torch.no_grad()
def test_compositions_can_be_composed():
    model = with_members()
    stack_adapters(model, ["a", "b"], "stacked")
    stacked = output(model)
    fuse_adapters(model, ["stacked", "c"], "fused")
    fused = output(model)
    assert (stacked - fused).abs().max() > 1e-2
    one = all_of(model, "fused")[0]
    h = torch.randn(2, 3, WIDTH)
    updates = torch.stack([all_of(model, "stacked")[0].update(h), all_of(model, "c")[0].update(h)])
    assert (one.update(h) <= updates.amax(0) + 1e-6).all()
    with pytest.raises(ValueError, match="'a' is part of 'fused', 'stacked'"):
        remove_adapters(model, "a")
    with pytest.raises(ValueError, match="'stacked' is part of 'fused'"):
        remove_adapters(model, "stacked")


@torch.no_grad()
def test_a_base_in_half_precision():
    model = with_members("bert")
    fuse_adapters(model, ["a", "b"], "fused")
    expected = output(model)
    own = {id(p) for slot in slots(model) for p in slot.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in own:
            parameter.data = parameter.data.bfloat16()
    assert output(model).dtype == torch.bfloat16
    torch.testing.assert_close(output(model).float(), expected, rtol=0.1, atol=0.3)


# --- In a model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stack", "fuse"])
def test_no_tensor_is_kept_twice(how):
    model = with_members(names=("a", "b"))
    before = snapshot(model)
    COMPOSE[how](model, ["a", "b"], "new")
    added = set(model.state_dict()) - set(before)
    assert len(added) == (0 if how == "stack" else 9)
    assert all(".new." in key and key.endswith((".query.weight", ".key.weight", ".value.weight")) for key in added)
    assert {key: snapshot(model)[key] for key in before} == before


@pytest.mark.parametrize("how", COMPOSE)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.no_grad()
def test_a_copy_has_members_of_its_own(how, duplicate):
    model = with_members()
    COMPOSE[how](model, ["a", "b"], "new")
    expected = output(model)
    twin = duplicate(model)
    assert torch.equal(output(twin), expected)
    for slot in slots(twin):
        if isinstance(slot["new"], Composed):
            assert slot["new"].members == (slot["a"], slot["b"])
        for name in ("a", "new"):
            randomise(slot[name], 0.9)
    assert not torch.allclose(output(twin), expected, atol=1e-2)
    assert torch.equal(output(model), expected)


@pytest.mark.parametrize("how", COMPOSE)
@torch.no_grad()
def test_another_type_of_number(how):
    model = with_members()
    COMPOSE[how](model, ["a", "b"], "new")
    expected = output(model)
    doubled = output(model.double())
    assert doubled.dtype == torch.double
    torch.testing.assert_close(doubled.float(), expected, **CLOSE)


@pytest.mark.parametrize("how", COMPOSE)
def test_on_the_meta_device(how):
    with torch.device("meta"):
        model = make("small_post").to("meta")
        insert_adapters(model, AdapterConfig(3), "a")
        insert_adapters(model, AdapterConfig(3), "b")
    COMPOSE[how](model, ["a", "b"], "new")
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("how", COMPOSE)
@torch.no_grad()
def test_switching_dropping_and_removing(how):
    model = with_members()
    set_active_adapter(model, "a")
    of_a, before = output(model), snapshot(model)
    COMPOSE[how](model, ["a", "b"], "new")
    of_new = output(model)
    assert (of_new - of_a).abs().max() > 1e-2
    set_active_adapter(model, "a")
    assert torch.equal(output(model), of_a)
    set_active_adapter(model, "new")
    assert torch.equal(output(model), of_new)
    drop_adapters(model, [0])
    assert not torch.allclose(output(model), of_new, atol=1e-2)
    remove_adapters(model, "new")
    assert snapshot(model) == before
    COMPOSE[how](model, ["a", "b"], "new")
    remove_adapters(model)  # all of them, members and what is made of them
    assert snapshot(model) == snapshot(make("small_post"))


@pytest.mark.parametrize("how", ["stack", "fuse"])
def test_a_member_in_use_cannot_be_removed(how):
    model = with_members()
    COMPOSE[how](model, ["a", "b"], "new")
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"'b' is part of 'new', .*: remove_adapters\(model, 'new'\) first"):
        remove_adapters(model, "b")
    assert snapshot(model) == before
    assert all(slot.active == "new" for slot in slots(model))
    remove_adapters(model, "c")
    remove_adapters(model, "new")
    remove_adapters(model, "b")


# --- Training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "trained"), [("stack", ".b."), ("average", ".new."), ("fuse", (".query.", ".key.", ".value."))]
)
def test_what_is_trained(how, trained):
    model = Classifier(with_members(), 2)
    COMPOSE[how](model, ["a", "b"], "new")
    set_trainable(model, "new")
    names = trainable(model).names
    own = [name for name in names if not name.startswith("head.")]
    assert own and len(names) == len(own) + 2
    assert all(any(part in name for part in ((trained,) if isinstance(trained, str) else trained)) for name in own)
    before = snapshot(model)
    train(model, toy_data(), steps=4, batch_size=8, progress=False)
    assert {key for key in before if snapshot(model)[key] != before[key]} == set(names)
    set_trainable(model, "a")
    assert all(".a." in name or name.startswith("head.") for name in trainable(model).names)


def test_a_fusion_gets_a_gradient_in_every_entry():
    model = with_members()
    fusions = fuse_adapters(model, ["a", "b"], "fused")
    set_trainable(model, "fused")
    train_steps(model)
    for fusion in fusions:
        for parameter in fusion.parameters():
            assert parameter.grad is not None and (parameter.grad != 0).float().mean() > 0.99
    assert all(p.grad is None for name in "abc" for adapter in all_of(model, name) for p in adapter.parameters())


def test_weight_decay_draws_the_value_matrix_back_to_one():
    fusion = Fusion(4, "ab", [Adapter(4, 1), Adapter(4, 1)])
    randomise(fusion.value, 1.0)
    start = fusion.value.weight.norm()
    optimizer = torch.optim.AdamW([fusion.value.weight], lr=0.1, weight_decay=1.0)
    for _ in range(5):
        fusion.value.weight.grad = torch.zeros_like(fusion.value.weight)
        optimizer.step()
    assert fusion.value.weight.norm() < 0.7 * start


def test_a_fusion_finds_the_member_that_helps():
    torch.manual_seed(0)
    noise, knows = (Adapter(WIDTH, 4, init="bert", init_std=0.5).requires_grad_(False) for _ in range(2))
    fusion, h = Fusion(WIDTH, ["noise", "knows"], [noise, knows]), torch.randn(200, WIDTH)
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        (fusion.update(h) - knows.update(h)).square().mean().backward()
        optimizer.step()
    with routed([], attention := {}):
        fusion.update(torch.randn(200, WIDTH))
    assert attention[fusion].mean(0)[1] > 0.9


# --- The attention --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small_post", "bert", "gpt2"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_attention_can_be_read(name, placement):
    model = with_members(name, config=AdapterConfig(3, placement=placement))
    fuse_adapters(model, ["a", "b", "c"], "fused")
    for fusion in all_of(model, "fused"):
        randomise(fusion, 0.5)
    set_active_adapter(model, "a")
    ids, mask = batch()
    modes, before = [m.training for m in model.train().modules()], snapshot(model)
    attention = fusion_attention(model, "fused", ids, mask)
    assert attention.shape == (3, 6 if placement == "houlsby" else 3, 3, 7)
    assert (attention >= 0).all() and not attention.requires_grad
    torch.testing.assert_close(attention.sum(2), mask[:, None, :].expand(-1, attention.shape[1], -1).float(), **CLOSE)
    assert attention[0].std() > 0.05
    alone = fusion_attention(model, "fused", ids[1:2, :4], mask[1:2, :4])
    torch.testing.assert_close(alone[0], attention[1, :, :, :4], **CLOSE)
    assert [m.training for m in model.modules()] == modes
    assert snapshot(model) == before
    assert all(slot.active == "a" for slot in slots(model))
    assert _PASS.attention is None


def test_the_attention_is_the_one_that_was_used():
    torch.manual_seed(0)
    model = with_members(names=("a", "b"))
    (first, *_) = fuse_adapters(model, ["a", "b"], "fused")
    randomise(first, 0.5)
    seen = []
    handle = all_of(model, "fused")[0].value.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    h = torch.randn(1, 3, WIDTH)
    with routed([], watched := {}):
        first.update(h)
    handle.remove()
    (attention,) = watched.values()
    updates = torch.stack([member.update(h) for member in first.members])
    torch.testing.assert_close(seen[0], torch.einsum("btn,nbtd->btd", attention, updates))


def test_what_has_no_attention():
    model = with_members()
    stack_adapters(model, ["a", "b"], "stacked")
    for name in ("a", "stacked"):
        with pytest.raises(ValueError, match=f"'{name}' is no fusion, so it has no attention: fuse_adapters"):
            fusion_attention(model, name, *batch())
    with pytest.raises(ValueError, match="no adapters called 'x'"):
        fusion_attention(model, "x", *batch())


def test_an_error_inside_leaves_nothing_behind():
    model = with_members()
    fuse_adapters(model, ["a", "b"], "fused")
    with pytest.raises(ValueError, match="the model reads at most 24"):
        fusion_attention(model, "fused", torch.ones(1, 30, dtype=torch.long), torch.ones(1, 30, dtype=torch.long))
    assert _PASS.attention is None


def test_an_average_is_what_its_config_says():
    model = make("small_post")
    for name, dropout in (("a", 0.1), ("b", 0.3)):
        insert_adapters(model, AdapterConfig(3, dropout=dropout), name)
    for names in (["a", "b"], ["b", "a"]):
        for adapter in average_adapters(model, names, "mean"):
            assert (
                adapter.dropout.p == adapter_config(model, "mean").dropout == adapter_config(model, names[-1]).dropout
            )
        remove_adapters(model, "mean")
