"""Every architecture of the table: adapters do nothing at first, learn, are saved, and go without a trace."""

import copy

import pytest
import torch
from models import ALL, MORE_BASES, WIDTH, hooks, loss, make, output, randomise, slots, snapshot, train_steps
from test_insertion import every_pair

from adapters_lesson import (
    Adapter,
    AdapterBank,
    AdapterConfig,
    Classifier,
    insert_adapters,
    load_adapter,
    prepare,
    remove_adapters,
    save_adapter,
    set_active_adapter,
    set_trainable,
)
from adapters_lesson.architectures import ARCHITECTURES, architecture_of, base_model_of, blocks_of, find, find_all
from adapters_lesson.memory_tricks import checkpointed
from adapters_lesson.placements import PLACEMENTS

RANDOM = {"init": "houlsby", "init_std": 0.5}
ENCODERS = [name for name in MORE_BASES if name not in ("t5", "t5_gated")]


def test_the_whole_table_is_tried():
    tried = [architecture_of(make(name)) for name in (*ALL, *MORE_BASES)]
    assert [name for name, at in ARCHITECTURES.items() if at not in tried] == []


@every_pair("name, placement, norms", name=MORE_BASES, placement=PLACEMENTS, norms=[False, True])
def test_adapters_come_learn_and_go(name, placement, norms, tmp_path):
    model, config = make(name), AdapterConfig(4, placement=placement, train_layer_norms=norms)
    before, bytes_before, had_hooks = output(model), snapshot(model), hooks(model)
    blocks, at = blocks_of(model), architecture_of(model)
    adapters = insert_adapters(model, config)
    assert len(adapters) == len(blocks) * len(PLACEMENTS[placement].sites[at.norm])
    assert torch.equal(output(model), before), "not the identity at the start"

    set_trainable(model)
    for _ in range(2):  # up_project is zero at first, and lets nothing through to down_project
        train_steps(model)
    owned = {id(p) for slot in slots(model) for p in slot.parameters()}
    for path, parameter in model.named_parameters():
        learns = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert learns == (id(parameter) in owned), path
    learnt = output(model)
    assert not torch.allclose(learnt, before, atol=1e-6)

    save_adapter(model, tmp_path)
    other = make(name)
    load_adapter(other, tmp_path)
    assert torch.equal(output(other), learnt)
    set_active_adapter(model, None)
    assert torch.equal(output(model), before)
    set_active_adapter(model, "default")
    assert torch.equal(output(copy.deepcopy(model)), learnt)

    remove_adapters(model)
    assert snapshot(model) == bytes_before
    assert hooks(model) == had_hooks
    assert torch.equal(output(model), before)


def inner(name, placement, adapted):
    """Block 0 in its first call: what it is given and returns, what goes into its FFN's norm and comes out of its FFN.

    ``adapted``: with adapters that add 1 to everything.
    """
    model, seen = make(name), {}
    block, at = blocks_of(model)[0], architecture_of(model)
    if adapted:
        for adapter in insert_adapters(model, AdapterConfig(4, placement=placement, layers=(0,)))[-1:]:
            torch.nn.init.ones_(adapter.up_project.bias)
            adapter.down_project.register_forward_hook(lambda _, args, __: seen.update({"x": seen.get("x", args[0])}))
    for key, module in (("block", block), ("norm", find(block, at.norms[-1])), ("ffn", find(block, at.ffn_output))):

        def keep(_, args, output, key=key):
            output = output[0] if isinstance(output, tuple) else output
            seen.setdefault(key, (args[0], output))

        module.register_forward_hook(keep)
    output(model)
    return seen, at


@every_pair("name, placement", name=MORE_BASES, placement=PLACEMENTS)
def test_the_place_is_the_one_of_the_formula(name, placement):
    (bare, at), (adapted, _) = inner(name, placement, False), inner(name, placement, True)
    shape = bare["block"][0].shape
    if at.norm == "pre":
        torch.testing.assert_close(adapted["block"][1], bare["block"][1] + 1, rtol=1e-4, atol=1e-4)
        total = bare["block"][1]
        r = total - bare["ffn"][1].view(shape)
        if name in ("phi", "gpt_neox"):  # attention and FFN side by side
            r = bare["block"][0]
        given = total
    else:
        norm = find(blocks_of(make(name))[0], at.norms[-1])
        total, given = bare["norm"]
        torch.testing.assert_close(adapted["block"][1].view_as(given), norm(total + 1), rtol=1e-4, atol=1e-4)
        r = total - bare["ffn"][1].view_as(total)
    wanted = {"houlsby": bare["ffn"][1], "pfeiffer": given, "parallel": r}[placement]
    torch.testing.assert_close(
        adapted["x"].reshape(-1, WIDTH), wanted.detach().reshape(-1, WIDTH), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_bank_with_a_mixed_batch(name):
    placements = [*PLACEMENTS][:: 1 if len(name) % 2 else -1]
    bank = AdapterBank(make(name))
    for task, placement in zip("ab", placements, strict=False):
        bank.add(task, AdapterConfig(4, placement=placement, **RANDOM), 2)
    bank.eval()
    ids = torch.randint(2, 40, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mixed = bank(ids, mask, ["b", "a", "b"])
    for task, rows in (("a", [1]), ("b", [0, 2])):
        bank.switch(task)
        for row in rows:
            torch.testing.assert_close(mixed[row], bank(ids, mask)[row])


@pytest.mark.parametrize("name", MORE_BASES)
def test_checkpointing_changes_no_gradient(name):
    gradients = []
    for on in (False, True):
        model = make(name)
        insert_adapters(model, AdapterConfig(4, placement=[*PLACEMENTS][len(name) % 3], **RANDOM))
        set_trainable(model, head=False)
        if on:
            with checkpointed(model):
                loss(model).backward()
        else:
            loss(model).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ENCODERS)
def test_lora_finds_its_projections(name):
    model = Classifier(make(name), 2)
    at, named = architecture_of(model), prepare(model, "lora").names
    changed = [n for n in named if "lora_B" in n]
    assert {n.partition(".adapters_")[0].rpartition(".")[2] for n in changed} == set(at.lora_targets)


def test_albert_shares_one_adapter_among_its_layers():
    import transformers as hf

    model = hf.AlbertModel(hf.AlbertConfig(hidden_size=16, num_hidden_layers=5, num_attention_heads=2, vocab_size=40))
    adapters = insert_adapters(model, AdapterConfig(4, placement="pfeiffer"))
    calls = []
    adapters[0].down_project.register_forward_hook(lambda *_: calls.append(1))
    output(model)
    assert (len(adapters), len(calls)) == (1, 5)
    with pytest.raises(ValueError, match="the model has 1 block, which may be called several times: use 0 to 0"):
        insert_adapters(model, AdapterConfig(4, layers=(3,)), "upper")


def test_an_encoder_decoder_is_counted_through():
    model = make("t5")
    insert_adapters(model, AdapterConfig(4, layers=(3,)))
    assert not slots(model.encoder)
    assert len(slots(model.decoder)) == 2
    norms = find_all(blocks_of(model)[3], architecture_of(model).norms[0])
    assert len(norms) == 3  # one before each sub-layer, the attention to the encoder among them


def test_modernbert_s_first_block_has_one_norm_to_train():
    model = make("modernbert")
    insert_adapters(model, AdapterConfig(4, train_layer_norms=True))
    trained = [slot for slot in slots(model) if not isinstance(slot["default"], Adapter)]
    assert len(trained) == 5
    assert base_model_of(model) is model
    for slot in trained:
        randomise(slot)
