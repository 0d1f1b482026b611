"""LoRA is peft's to the last bit, goes wherever it is said to, and comes out of the weights as it went in."""

import copy
import dataclasses
import re

import models
import pytest
import torch
from models import ALL, BASES, DEPTH, MORE_BASES, WIDTH, forward, loss, make, output, randomise, slots, snapshot
from stored import forge, state
from torch import nn

from adapters_lesson import (
    AdapterBank,
    AdapterConfig,
    Architecture,
    Classifier,
    LoRA,
    LoRAConfig,
    average_adapters,
    drop_adapters,
    fuse_adapters,
    insert_adapters,
    load_adapter,
    lora,
    prepare,
    remove_adapters,
    save_adapter,
    set_active_adapter,
    set_trainable,
    stack_adapters,
    train,
)
from adapters_lesson.architectures import architecture_of, blocks_of
from adapters_lesson.costs import count_parameters, measure_memory, memory_ledger
from adapters_lesson.course.explorers.explore_routing import adapter_places
from adapters_lesson.course.figures.diagrams import wiring_of
from adapters_lesson.course.microscope.lens import Lens
from adapters_lesson.doctor import diagnose
from adapters_lesson.exchange.adapterhub import export_adapterhub
from adapters_lesson.insertion import adapter_config, adapter_names
from adapters_lesson.placements import TARGETS, linear_layers
from adapters_lesson.storage import StorageError, list_adapters

EVERY = [*BASES, *MORE_BASES]
FEW = ["small_post", "small_pre", "bert", "gpt2", "llama", "t5", "qwen2_moe"]
targets = pytest.mark.parametrize("targets", TARGETS)


def with_lora(name, targets="query_value", seed=0, dtype=torch.float32, random=True, **more):
    """A tiny random model with random LoRA, r = 3."""
    model = make(name).to(dtype)
    torch.manual_seed(seed)
    for module in insert_adapters(model, LoRAConfig(3, alpha=4.0, targets=targets, **more)):
        if random:
            randomise(module)
    return model.eval()


def hosts(model):
    """The linear layers with LoRA, by their paths."""
    paths = [path.partition(".adapters_")[0] for path, m in model.named_modules() if isinstance(m, LoRA)]
    return {path: model.get_submodule(path) for path in paths}


# --- peft's, to the last bit ------------------------------------------------------------------------------------------


def ours_and_peft(name, targets, use_rslora, dropout=0.0):
    """The same model twice, with LoRA from the same seed."""
    from peft import LoraConfig, inject_adapter_in_model

    ours, peft = make(name), make(name)
    torch.manual_seed(5)
    insert_adapters(ours, LoRAConfig(3, 5.0, targets, use_rslora, dropout))
    set_trainable(ours, head=False)
    settings = {"r": 3, "lora_alpha": 5.0, "use_rslora": use_rslora, "lora_dropout": dropout}
    torch.manual_seed(5)
    conv = name == "gpt2"
    inject_adapter_in_model(LoraConfig(**settings, target_modules=list(hosts(ours)), fan_in_fan_out=conv), peft)
    return ours, peft


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


@targets
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "small_post"])
def test_it_is_pefts(name, targets, use_rslora):
    from peft.tuners.lora import LoraLayer

    ours, peft = models_ = ours_and_peft(name, targets, use_rslora)
    assert len(trained(ours)) == len(trained(peft)) == 2 * len(hosts(ours))
    torch.testing.assert_close(trained(ours), trained(peft), rtol=0, atol=0)
    for model in models_:
        randomise(nn.ParameterList(p for path, p in model.named_parameters() if "lora_B" in path), 0.1)
    for a, b in zip(trained(ours), trained(peft), strict=True):
        b.data = a.data.clone()
    for model in models_:
        optimizer = torch.optim.AdamW(trained(model), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close([p.grad for p in trained(ours)], [p.grad for p in trained(peft)], **close)
    torch.testing.assert_close(trained(ours), trained(peft), **close)
    torch.testing.assert_close(output(ours), output(peft), **close)
    lora.merge(ours)
    layers = [m for m in peft.modules() if isinstance(m, LoraLayer)]
    for layer, host in zip(layers, hosts(ours).values(), strict=True):
        layer.merge()
        torch.testing.assert_close(host.weight, layer.get_base_layer().weight, **close)
    torch.testing.assert_close(output(ours), output(peft), rtol=1e-6, atol=1e-5)


def test_dropout_is_on_the_input_as_pefts():
    both = ours_and_peft("llama", "attention", False, 0.4)
    outputs = []
    for model in both:
        for path, p in model.named_parameters():
            if "lora_" in path:
                nn.init.constant_(p, 0.3)
        torch.manual_seed(1)
        outputs.append(forward(model.train()))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    assert not torch.allclose(outputs[0], output(both[0]), atol=1e-3)
    one = LoRA(1000, 2, 3, dropout=0.25)
    nn.init.constant_(one.lora_B.weight, 1.0)
    given = []
    one.lora_A.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    one(torch.ones(1, 1000))
    torch.testing.assert_close(given[0].unique(), torch.tensor([0.0, 4 / 3]))
    assert (given[0] == 0).float().mean() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "gemma3"])  # its images' tower is peft's, too
def test_all_linear_is_pefts_within_the_blocks(name):
    from peft import LoraConfig, inject_adapter_in_model

    model, ours = make(name), hosts(with_lora(name, "all-linear"))
    inside = {
        path for path, m in model.named_modules() for b in blocks_of(model) if any(m is one for one in b.modules())
    }
    inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear"), model)
    theirs = {path.removesuffix(".lora_A") for path, _ in model.named_modules() if path.endswith(".lora_A")}
    assert ours.keys() == {path for path in theirs & inside if not path.endswith((".experts", "moe.gate", "mlp.gate"))}


# --- what it computes, where it goes, how many it has -----------------------------------------------------------------


@pytest.mark.parametrize(("use_rslora", "scaling"), [(False, 5 / 4), (True, 5 / 2)])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_it_is_the_formula(name, use_rslora, scaling):
    model = make(name)
    layer = insert_adapters(model, LoRAConfig(4, 5.0, use_rslora=use_rslora))[0]
    randomise(layer)
    host = next(iter(hosts(model).values()))
    x = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    W = host.weight if name == "bert" else host.weight.T
    A, B = layer.lora_A.weight, layer.lora_B.weight
    assert (A.shape, B.shape, layer.scaling) == ((4, WIDTH), (len(W), 4), scaling)
    with torch.no_grad():
        torch.testing.assert_close(host(x), x @ (W + scaling * B @ A).T + host.bias)
        torch.testing.assert_close(layer(x), x @ layer.delta().T)
    assert f"scaling={scaling:g}" in repr(layer)


def test_it_begins_as_the_paper_says():
    layer = LoRA(400, 30, 8)
    assert not layer.lora_B.weight.any()
    bound = 1 / 400**0.5  # of Kaiming's uniform distribution with a = √5
    assert layer.lora_A.weight.abs().max() <= bound
    assert layer.lora_A.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@targets
@pytest.mark.parametrize("name", EVERY)
def test_it_comes_counts_works_and_goes(name, targets):
    model, config = make(name), LoRAConfig(3, targets=targets)
    bare, before = output(model), snapshot(model)
    modules = insert_adapters(model, config)
    assert torch.equal(output(model), bare)
    linear = hosts(model).values()
    assert all(isinstance(host, nn.Linear) or type(host).__name__ == "Conv1D" for host in linear)
    counted = sum(LoRA.count(*host.weight.shape, 3) for host in linear)  # r · (in + out), whichever comes first
    assert sum(p.numel() for module in modules for p in module.parameters()) == counted
    assert count_parameters(model).by_part["LoRA"].total == counted
    for module in modules:
        randomise(module)
    changed = output(model)
    assert not torch.allclose(changed, bare, atol=1e-3)
    set_active_adapter(model, None)
    assert torch.equal(output(model), bare)
    set_active_adapter(model, "default")
    assert torch.equal(output(model), changed)
    remove_adapters(model)
    assert snapshot(model) == before and torch.equal(output(model), bare)


@pytest.mark.parametrize("name", EVERY)
def test_each_target_has_the_one_before(name):
    model = make(name)
    at = architecture_of(model)
    for block in blocks_of(model):
        query_value, attention, everything = (linear_layers(block, at, target) for target in TARGETS)
        assert set(query_value) <= set(attention) <= set(everything)
        named = {path: m for path, m in block.named_modules() if m in set(attention)}
        assert all(re.search("att", path, re.IGNORECASE) for path in named)
        more = {path for path, m in block.named_modules() if m in set(everything) - set(attention)}
        assert not any(re.search("att", path, re.IGNORECASE) for path in more)
        assert more or name == "qwen3_moe"  # its experts are no linear layers
        ends = {path.rpartition(".")[2] for path, m in block.named_modules() if m in set(query_value)}
        assert ends == set(at.lora_targets)


def test_the_count_is_that_of_exercise_7_1():
    formula = lambda d, r, layers: 4 * d * r * layers  # noqa: E731
    model = make("bert")
    assert prepare(model, "lora", LoRAConfig(5), head=False).trainable == formula(WIDTH, 5, DEPTH)
    assert formula(WIDTH, 5, DEPTH) == 2 * DEPTH * LoRA.count(WIDTH, WIDTH, 5)


def test_layers_and_dropping():
    model = with_lora("bert", layers=[0, 2])
    assert {path.split(".")[2] for path in hosts(model)} == {"0", "2"}
    whole = output(model)
    drop_adapters(model, [0])
    upper = output(model)
    assert not torch.allclose(upper, whole, atol=1e-3)
    other = with_lora("bert", layers=[0, 2])
    for slot in slots(other)[:2]:
        slot.active = None
    assert torch.equal(output(other), upper)


def test_adapters_own_projections_are_no_targets():
    model = make("small_post")
    insert_adapters(model, AdapterConfig(4), "adapter")
    assert len(insert_adapters(model, LoRAConfig(2, targets="all-linear"))) == 6 * DEPTH


def test_a_model_of_ones_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.v, self.out = (nn.Linear(8, 8) for _ in range(3))
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            return self.norm(x + self.out(self.q(x) * self.v(x)))

    model = nn.Sequential(nn.Sequential(Block(), Block()))
    names = {"layers": "0", "attention_output": "out", "ffn_output": "out", "ffn_input": "q", "norms": "norm"}
    with pytest.raises(ValueError, match=r"targets='query_value' finds no linear layer in a Block: Architecture\(lora"):
        insert_adapters(model, LoRAConfig(2), architecture=Architecture(**names, norm="post"))
    with pytest.raises(ValueError, match="targets='attention' finds no linear layer in a Block"):
        insert_adapters(model, LoRAConfig(2, targets="attention"), architecture=Architecture(**names, norm="post"))
    with pytest.raises(ValueError, match="attention_sublayer must name a module by its path, not 3"):
        Architecture(**names, norm="post", attention_sublayer=3)
    at = Architecture(**names, norm="post", lora_targets=("q", "v"))
    assert len(insert_adapters(model, LoRAConfig(2), architecture=at)) == 4


def test_refuses_a_projection_that_is_never_called():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    names = {"attention_output": "self_attn.out_proj", "ffn_output": "linear2", "ffn_input": "linear1"}
    at = Architecture(layers="layers", **names, norms=("norm1", "norm2"), norm="post")
    with pytest.raises(ValueError, match=r"attention is .* inside 'self_attn', an nn.MultiheadAttention"):
        insert_adapters(model, LoRAConfig(2, targets="attention"), architecture=at)
    assert not slots(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1, not 0"),
        ({"rank": 2.5}, "rank must be a whole number of at least 1, not 2.5"),
        ({"alpha": 0}, "alpha must be a finite number other than 0, say 16, not 0"),
        ({"alpha": float("inf")}, "alpha must be a finite number"),
        ({"dropout": 1.0}, r"dropout is a probability in \[0, 1\), not 1.0"),
        ({"use_rslora": "yes"}, "use_rslora must be True or False, not 'yes'"),
        ({"targets": "key"}, "targets must be one of 'query_value', 'attention', 'all-linear', not 'key'"),
        ({"targets": ["query"]}, "targets must be one of"),
        ({"layers": [1, 1]}, "layers must name different blocks"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        LoRAConfig(**settings)


def test_refuses_widths_that_make_no_sense():
    for widths, name in (((0, 3), "in_features"), ((3, "3"), "out_features")):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
            LoRA(*widths)


def test_plain_settings_of_other_libraries():
    import numpy as np

    config = LoRAConfig(np.int64(4), torch.tensor(8.0), layers=np.array([0, 1]), use_rslora=np.bool_(True))
    assert config == LoRAConfig(4, 8.0, use_rslora=True, layers=(0, 1))
    assert {type(value) for value in dataclasses.astuple(config)} == {int, float, str, bool, tuple}


# --- merged and brought back ------------------------------------------------------------------------------------------


@targets
@pytest.mark.parametrize("name", EVERY)
def test_merging_keeps_the_output_and_the_weights_come_back(name, targets):
    model = with_lora(name, targets)
    before, wanted, parameters = snapshot(model), output(model), list(model.parameters())
    lora.merge(model)
    merged = output(model)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    changed = {key for key, value in snapshot(model).items() if before[key] != value}
    assert changed == {f"{path}.weight" for path in hosts(model)}
    assert (merged - wanted).abs().max() <= 3e-5 * wanted.abs().max()
    lora.unmerge(model)
    assert snapshot(model) == before and torch.equal(output(model), wanted)


# The largest difference of logits that are about 5 large, in the type that the weights are rounded to.
@pytest.mark.parametrize(
    ("dtype", "peak"), [(torch.float64, 1e-13), (torch.float32, 2e-5), (torch.bfloat16, 0.5), (torch.float16, 0.05)]
)
def test_merging_rounds_to_the_type_of_the_weights(dtype, peak):
    model = with_lora("small_post", "all-linear", dtype=dtype)
    raw = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    wanted = output(model)
    lora.merge(model)
    difference = (output(model) - wanted).abs().max().item()
    assert difference < peak
    assert dtype == torch.float64 or difference > peak / 1e4
    assert {t.dtype for t in model.state_dict().values()} == {dtype}
    lora.unmerge(model)
    assert all(
        torch.equal(tensor.view(torch.uint8), raw[key].view(torch.uint8)) for key, tensor in model.state_dict().items()
    )


def test_merging_rounds_once():
    """In bfloat16 the sum is formed exactly, and rounded to the nearest."""
    model = with_lora("small_post", dtype=torch.bfloat16)
    host = model.blocks[0].attention.query
    layer = host.adapters_beside_linear["default"]
    A, B = layer.lora_A.weight.double(), layer.lora_B.weight.double()
    exact = host.weight.double() + layer.scaling * B @ A
    lora.merge(model)
    assert torch.equal(host.weight, exact.bfloat16())


def test_what_is_merged_works_alone():
    model = with_lora("bert")
    insert_adapters(model, LoRAConfig(2), "second")
    insert_adapters(model, AdapterConfig(4, init="houlsby", init_std=0.3), "adapter")
    set_active_adapter(model, "default")
    wanted = output(model)
    set_active_adapter(model, "adapter")
    lora.merge(model)  # it is switched on thereby
    torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-4)
    for other in ("second", "adapter", None):
        set_active_adapter(model, other)
        with pytest.raises(ValueError, match=r"'default' is merged, .*: lora\.unmerge\(model\) first"):
            output(model)
    set_active_adapter(model, "default")
    torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-4)
    drop_adapters(model, [0])
    with pytest.raises(ValueError, match="'default' is merged"):
        output(model)
    lora.unmerge(model)
    set_active_adapter(model, "default")
    assert torch.equal(output(model), wanted)


def test_what_is_merged_is_not_trained():
    model = Classifier(with_lora("small_post"), 2)
    set_trainable(model)
    lora.merge(model)
    before = snapshot(model)
    with pytest.raises(ValueError, match="'default' is merged, so nothing else works or is trained"):
        train(model, models.toy_data(), steps=1, progress=False)
    assert snapshot(model) == before
    lora.unmerge(model)
    train(model, models.toy_data(), steps=1, progress=False)


def test_every_step_that_a_merge_forbids_says_so(tmp_path):
    model, other = make("bert"), with_lora("bert")
    insert_adapters(other, LoRAConfig(2), "other")
    save_adapter(other, tmp_path, "other")
    randomise(nn.ModuleList(insert_adapters(model, LoRAConfig(2))))
    lora.merge(model)
    before = snapshot(model)
    for step in (
        lambda: lora.merge(model),
        lambda: insert_adapters(model, AdapterConfig(4), "other"),
        lambda: remove_adapters(model),
        lambda: remove_adapters(model, "default"),
        lambda: save_adapter(model, tmp_path, "default"),
        lambda: load_adapter(model, tmp_path, "other"),
    ):
        with pytest.raises(ValueError, match=r"'default' is merged into the weights: lora\.unmerge\(model\) first"):
            step()
    assert snapshot(model) == before
    lora.unmerge(model)
    for step in (lambda: lora.unmerge(model), lambda: lora.unmerge(make("bert"))):
        with pytest.raises(ValueError, match=r"nothing is merged into the weights: lora\.merge\(model\) first"):
            step()
    save_adapter(model, tmp_path, "default")
    load_adapter(model, tmp_path, "other")


def test_refuses_what_cannot_be_merged():
    model = with_lora("small_post")
    insert_adapters(model, AdapterConfig(4), "adapter")
    tied = model.blocks[1].attention
    bank = AdapterBank(make("small_post"))
    bank.add("film", LoRAConfig(2), 2)
    with pytest.raises(ValueError, match="'adapter' is no LoRA: only a linear update"):
        lora.merge(model, "adapter")
    with pytest.raises(ValueError, match="no adapters called 'third'"):
        lora.merge(model, "third")
    with pytest.raises(ValueError, match=r"a bank keeps .* together: to serve one task alone, merge into a model"):
        lora.merge(bank, "film")
    tied.key.weight = tied.value.weight
    before = snapshot(model)
    both = r"blocks\.1\.attention\.key\.weight and blocks\.1\.attention\.value\.weight are one tied weight"
    with pytest.raises(ValueError, match=both):
        lora.merge(model)
    assert snapshot(model) == before


class Int8Tensor(torch.Tensor):
    """As torchao's: it says that it holds floats."""


@pytest.mark.parametrize(
    ("quantised", "what"),
    [
        (lambda W: nn.Parameter(W.detach().as_subclass(Int8Tensor), requires_grad=False), "Int8Tensor of float32"),
        (lambda W: nn.Parameter(W.detach().to(torch.uint8), requires_grad=False), "Tensor of uint8"),
    ],
)
def test_refuses_quantised_weights(quantised, what):
    model = with_lora("small_post")
    query = model.blocks[1].attention.query
    query.weight = quantised(query.weight)
    before = snapshot(model)
    with pytest.raises(ValueError, match=rf"blocks\.1\.attention\.query is quantised \({what}\): merge before that"):
        lora.merge(model)
    assert snapshot(model) == before


def test_a_merged_copy_is_a_copy():
    model = with_lora("small_post")
    before, wanted = snapshot(model), output(model)
    lora.merge(model)
    twin = copy.deepcopy(model)
    lora.unmerge(twin)
    assert snapshot(twin) == before and torch.equal(output(twin), wanted)
    assert snapshot(model) != before
    half = copy.deepcopy(model).bfloat16()  # and is cast in between
    lora.unmerge(half)
    assert torch.equal(half.blocks[0].attention.query.weight, twin.blocks[0].attention.query.weight.bfloat16())


def test_merging_in_inference_mode_leaves_weights_that_can_be_trained_around():
    model = with_lora("small_post")
    with torch.inference_mode():
        lora.merge(model)
    model.blocks[0].attention.key.weight.requires_grad_()
    loss(model.eval()).backward()
    assert model.blocks[0].attention.key.weight.grad.any()


def test_what_was_compiled_sees_the_merge():
    model = with_lora("small_post")
    wanted, compiled = output(model), torch.compile(model, backend="eager")
    with torch.no_grad():
        for change in (lambda: None, lambda: lora.merge(model), lambda: lora.unmerge(model)):
            change()
            torch.testing.assert_close(compiled(**models.inputs(model)), wanted, rtol=1e-4, atol=1e-4)
        set_active_adapter(model, None)
        assert not torch.allclose(compiled(**models.inputs(model)), wanted, atol=1e-3)


def test_a_merged_model_can_be_kept_without_its_slots(tmp_path):
    model = with_lora("bert_head", "all-linear")
    lora.merge(model)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert not slots(again)
    assert torch.equal(output(again), output(model))


# --- switched, mixed, saved -------------------------------------------------------------------------------------------


@targets
@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", "gpt2", "opt", "llama"])
@torch.no_grad()
def test_a_bank_mixes_loras_and_adapters(name, targets):
    bank = AdapterBank(make(name))
    bank.add("a", LoRAConfig(2, targets=targets), 2)
    bank.add("b", LoRAConfig(3, targets="all-linear"), 2)
    bank.add("c", AdapterConfig(4, placement="parallel", init="bert", init_std=0.3), 2)
    for slot in slots(bank):
        randomise(slot)
    ids = torch.randint(2, 40, (5, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mixed = bank.eval()(ids, mask, ["b", "a", "c", "b", None])
    for task, rows in (("a", [1]), ("b", [0, 3]), ("c", [2])):
        bank.switch(task)
        for row in rows:
            torch.testing.assert_close(mixed[row], bank(ids, mask)[row])


@torch.no_grad()
def test_a_layer_that_is_not_given_the_rows_cannot_be_mixed():
    """DeBERTa projects its positions by the same layers."""
    bank = AdapterBank(make("deberta"))
    for task in ("a", "b"):
        bank.add(task, LoRAConfig(2, targets="attention"), 2)
    ids = torch.randint(2, 40, (3, 6), generator=torch.Generator().manual_seed(0))
    bank(ids, torch.ones_like(ids))
    with pytest.raises(
        ValueError, match=r"a Linear is given \(1, \d+, 16\), which is not 3 rows: adapters there cannot be"
    ):
        bank(ids, torch.ones_like(ids), ["a", "b", "a"])


def test_a_bank_with_something_merged_does_not_mix():
    bank = AdapterBank(make("small_post"))
    bank.add("a", LoRAConfig(2), 2)
    lora.merge(bank.base_model, "a")
    ids = torch.ones(1, 4, dtype=torch.long)
    bank.eval()(ids, ids)
    with pytest.raises(ValueError, match="'a' is merged"):
        bank(ids, ids, ["a"])


@targets
@pytest.mark.parametrize("name", FEW)
def test_saving_and_loading(name, targets, tmp_path):
    model = with_lora(name, targets, use_rslora=True, dropout=0.1, layers=[0])
    file = save_adapter(model, tmp_path, "default")
    other = make(name)
    load_adapter(other, file)
    assert torch.equal(output(other), output(model))
    assert adapter_config(other) == adapter_config(model)
    (line,) = list_adapters(tmp_path)
    assert str(line).startswith(
        f"default: LoRA on {targets}, {sum(p.numel() for s in slots(model) for p in s.parameters()):,}"
    )


def test_a_task_of_a_bank_comes_back(tmp_path):
    bank, other = AdapterBank(make("bert")), AdapterBank(make("bert"))
    bank.add("film", LoRAConfig(2, targets="attention"), ("negative", "positive"))
    for slot in slots(bank):
        randomise(slot)
    save_adapter(bank, tmp_path, "film")
    load_adapter(other, tmp_path, "film")
    ids = torch.ones(2, 4, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(other.eval()(ids, ids), bank.eval()(ids, ids))
    assert other.labels == bank.labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(targets="attention"), "the file lacks tensors, 12 where there should be 24"),
        (lambda config: config.update(targets="everything"), "targets must be one of"),
        (lambda config: config.update(rank=5), r"has the shape \(3, 16\), expected \(5, 16\)"),
        (
            lambda config: config.update(alpha=float("nan")),
            "alpha must be a finite number other than 0, say 16, not nan",
        ),
        (lambda config: config.update(use_rslora=1), "'use_rslora' is 1, and not bool"),
    ],
)
def test_refuses_a_file_with_other_settings(change, message, tmp_path):
    path = save_adapter(with_lora("bert"), tmp_path, "default")
    forge(path, lambda content: change(content["config"]))
    model = make("bert")
    before = state(model)
    with pytest.raises(StorageError, match=message):
        load_adapter(model, path)
    assert state(model) == before


def test_refuses_another_base(tmp_path):
    path = save_adapter(with_lora("bert"), tmp_path, "default")
    for other, message in ((make("bert", seed=1), "another base model"), (make("llama"), "architecture='bert'")):
        with pytest.raises(StorageError, match=message):
            load_adapter(other, path)
        assert not slots(other)


def test_weights_that_make_no_numbers_are_refused(tmp_path):
    model = with_lora("gpt2", "all-linear")
    with torch.no_grad():
        next(m for m in model.modules() if isinstance(m, LoRA)).lora_A.weight[0, 0] = torch.inf
    with pytest.raises(StorageError, match="not finite"):
        save_adapter(model, tmp_path, "default")


def test_what_is_made_of_several_refuses_it():
    model = with_lora("small_post")
    insert_adapters(model, LoRAConfig(3), "second")
    for make_one in (stack_adapters, fuse_adapters, average_adapters):
        with pytest.raises(ValueError, match=r"(stack|fuse|average) takes adapters, and 'default' is LoRA: a bank"):
            make_one(model, ["default", "second"], "both")
    assert adapter_names(model) == ["default", "second"]


# --- in half precision, and what reads it -----------------------------------------------------------------------------


def test_it_trains_in_single_precision_on_a_half_precision_base():
    model = with_lora("small_post").bfloat16()
    for slot in slots(model):
        slot.float()
    model.requires_grad_(False)
    set_trainable(model)
    result = forward(model)
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    assert {p.grad.dtype for p in trained(model)} == {torch.float32}


def test_under_autocast_the_layer_s_type_stays():
    model, seen = with_lora("small_post"), []
    model.blocks[0].attention.query.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(**models.inputs(model))
    assert seen == [torch.bfloat16]


@targets
@pytest.mark.parametrize("name", ["small_post", "bert", "gpt2", "llama"])
def test_the_ledger_is_what_is_measured(name, targets):
    model = ALL.get(f"{name}_head", lambda: Classifier(make(name), 2))()
    prepare(model, "lora", LoRAConfig(3, targets=targets), head=False)
    predicted, measured = memory_ledger(model, 4, 16), measure_memory(model, 4, 16)
    assert predicted.activations == pytest.approx(measured.activations, rel=0.01)
    assert predicted.gradients == measured.gradients == 4 * count_parameters(model).by_part["LoRA"].total
    assert predicted.peak == pytest.approx(measured.peak, rel=0.03)


def test_the_doctor_is_silent_about_it_and_names_it_when_it_is_off():
    model = Classifier(with_lora("small_post"), 2)
    set_trainable(model)
    forward(model).sum().backward()
    assert not diagnose(model).findings
    set_active_adapter(model, None)
    (found,) = diagnose(model).findings
    assert found.trouble == "inactive" and "'default'" in found.what


@targets
@pytest.mark.parametrize("name", ["small_post", "bert", "gpt2"])
def test_the_picture_has_it_inside_the_sub_layers(name, targets):
    model, bare = make(name), wiring_of(make(name))
    insert_adapters(model, LoRAConfig(3, targets=targets))
    set_trainable(model, head=False)
    wires = wiring_of(model)
    assert wires.formula == bare.formula
    assert [part.label for part in wires.parts] == [part.label for part in bare.parts]
    more = {a.label: a.parameters - b.parameters for a, b in zip(wires.parts, bare.parts, strict=True) if a.trained}
    assert set(more) == {"attention"} | ({"FFN"} if targets == "all-linear" else set())
    assert sum(more.values()) == count_parameters(model).by_layer["block 0"].trainable


def test_the_microscope_wants_its_base():
    model = Classifier(with_lora("small_post"), 2)
    insert_adapters(model, LoRAConfig(2), "second")
    set_trainable(model, "second")
    with pytest.raises(ValueError, match="no adapters work in this model"):
        Lens(model)
    assert Lens(model, base=Classifier(make("small_post"), 2)).spots


def test_other_readers(tmp_path):
    bank = AdapterBank(make("small_post"))
    bank.add("a", LoRAConfig(2), 2)
    bank.add("b", LoRAConfig(2, targets="all-linear"), 2)
    assert adapter_places(bank) == [{"a": ["attention"], "b": ["block"]}] * DEPTH
    with pytest.raises(ValueError, match="'default' is a LoRA, and a folder of AdapterHub's holds one bottleneck"):
        export_adapterhub(with_lora("bert"), tmp_path)
