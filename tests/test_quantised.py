"""Adapters on a base whose weights bitsandbytes or torchao have quantised: trained, counted, measured, saved."""

import copy
import importlib.util
import os
import subprocess
import sys
import warnings
from functools import partial

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its start and end otherwise

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import nn

import adapters_lesson.course  # noqa: F401  it keeps the two packages silent
from adapters_lesson import (
    AdapterBank,
    AdapterConfig,
    Classifier,
    insert_adapters,
    load_adapter,
    prepare,
    remove_adapters,
    save_adapter,
    set_trainable,
    train,
)
from adapters_lesson.architectures import base_model_of, blocks_of
from adapters_lesson.costs import count_parameters, measure_latency, measure_memory, memory_ledger
from adapters_lesson.course.language import quantised
from adapters_lesson.course.language.nf4 import dequantise, quantise
from adapters_lesson.course.language.quantised import nf4_weight, quantise_base, set_nf4
from adapters_lesson.guards import base_parts
from adapters_lesson.guards.quantised_base import bytes_of, check_gradient, keep_bytes
from adapters_lesson.guards.training_guard import identity_of
from adapters_lesson.memory_tricks import checkpointed
from adapters_lesson.modes import training_mode
from adapters_lesson.storage import StorageError, fingerprint

WIDTH = 128
SIZES = {"vocab_size": 200, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 2 * WIDTH, "max_position_embeddings": 64}
_LLAMA = SIZES | {"num_key_value_heads": 4, "head_dim": 32, "use_cache": False}
BASES = {
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**_LLAMA)),
    "bert": lambda: hf.BertModel(hf.BertConfig(**SIZES), add_pooling_layer=False),
}
IDS = torch.arange(2, 66).view(4, 16)
CONFIG = AdapterConfig(8, init="bert")
needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"make quantised installs {name}")
    for name in ("bitsandbytes", "torchao")
}


def torchaos(base, config):
    from torchao.quantization import quantize_

    for block in blocks_of(base):
        quantize_(block, config)


def int4(base):
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    torchaos(base, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))


def torchaos_nf4(base):
    from torchao.quantization import to_nf4

    for block in blocks_of(base):
        for linear in block.modules():
            if type(linear) is nn.Linear:
                linear.weight = nn.Parameter(to_nf4(linear.weight.detach(), 64, 256), requires_grad=False)


KINDS = {
    "nf4": lambda base: quantise_base(base, "nf4"),
    "nf4 double": lambda base: quantise_base(base, "nf4 double"),
    "int8": lambda base: quantise_base(base, "int8"),
    "int4": int4,
    "torchao's nf4": torchaos_nf4,
}
OURS = [
    pytest.param(kind, marks=needs["bitsandbytes" if kind in ("nf4", "nf4 double") else "torchao"]) for kind in KINDS
]
NF4, INT8 = OURS[0], OURS[2]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def made(base="llama", kind=None, seed=0):
    """A base with quantised weights, and the same every time; ``kind`` None: plain."""
    torch.manual_seed(seed)
    model = BASES[base]().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.05)
    if kind:
        KINDS[kind](model)
    return model


def classifier(base="llama", kind=None, method="adapter", **settings):
    model = Classifier(made(base, kind), 2)
    torch.manual_seed(1)
    nn.init.normal_(model.head.weight, std=0.1)
    if method:
        prepare(model, method, CONFIG if method == "adapter" else None, **settings)
    return model


def plain_weight(linear):
    """A quantised weight as numbers."""
    if hasattr(linear.weight, "quant_state"):
        return nf4_weight(linear)
    there = linear.weight
    return there.get_original_weight() if hasattr(there, "get_original_weight") else there.dequantize()


def linears(model):
    """The linear layers of the blocks, without the adapters'."""
    for block in blocks_of(model):
        yield from ((p, m) for p, m in block.named_modules() if isinstance(m, nn.Linear) and "adapters_" not in p)


def plain_twin(model):
    """The same model with the quantised weights written out as ordinary numbers."""
    twin = classifier("llama" if "Llama" in type(model.base_model).__name__ else "bert", None)
    for (_, quantised_one), (_, plain) in zip(linears(model), linears(twin), strict=True):
        with torch.no_grad():
            plain.weight.copy_(plain_weight(quantised_one))
    return twin


def answers(model):
    with torch.no_grad():
        return model.eval()(IDS, torch.ones_like(IDS))


def gradients(model):
    training_mode(model)
    model.zero_grad()
    F.cross_entropy(model(IDS, torch.ones_like(IDS)), torch.tensor([0, 1, 0, 1])).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def data():
    from datasets import Dataset

    rows = [[2 + i] * 8 for i in range(24)]
    return Dataset.from_dict(
        {"input_ids": rows, "attention_mask": [[1] * 8] * 24, "labels": [i % 2 for i in range(24)]}
    )


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", OURS)
def test_adapters_get_the_gradients_that_plain_weights_of_the_same_numbers_give(kind, base):
    model = classifier(base, kind)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    ours, theirs = gradients(model), gradients(plain_twin(model))
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, gradient in ours.items():
        assert torch.allclose(gradient, theirs[name], rtol=1e-3, atol=1e-5), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("kind", OURS)
def test_the_gradients_are_the_same_after_the_model_has_answered(kind):
    """On a processor with AVX512-BF16 bitsandbytes would pack the weights anew, and pass no gradient."""
    model = classifier("llama", kind)
    before = gradients(model)
    answers(model)
    after = gradients(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["adapter", "lora", "layer_norm", "bitfit", "head"])
@pytest.mark.parametrize("kind", [NF4, INT8])
def test_training_learns_and_leaves_the_base_as_it_was(kind, method):
    model = classifier("bert", kind, method)
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    before = identity_of(model, {})["frozen weights"]
    history = train(
        model, data(), data(), steps=30, learning_rate=1e-2, batch_size=24, validate_every=10, progress=False
    )
    assert history.loss[-1] < 0.9 * history.loss[0]
    assert identity_of(model, {})["frozen weights"] == before
    assert all(p.grad is None for p in frozen.values())


@pytest.mark.parametrize("kind", OURS)
def test_set_trainable_freezes_them(kind):
    model = Classifier(made("bert", kind), 2)
    insert_adapters(model, CONFIG, "a")
    set_trainable(model, "a")
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names and all("adapters_" in name or name.startswith("head") for name in names)


@pytest.mark.parametrize("kind", OURS)
def test_removed_adapters_leave_the_same_answers(kind):
    model = made("llama", kind)
    keep_bytes(model)
    with torch.no_grad():
        before = model(IDS).last_hidden_state
        insert_adapters(model, AdapterConfig(8, init="bert", init_std=0.5))
        assert not torch.allclose(model(IDS).last_hidden_state, before)
        remove_adapters(model)
        assert torch.equal(model(IDS).last_hidden_state, before)


@needs["bitsandbytes"]
def test_a_bank_of_tasks_on_a_quantised_base():
    bank = AdapterBank(made("bert", "nf4"))
    for name in ("a", "b"):
        bank.add(name, AdapterConfig(8, init="bert", init_std=0.5), 2)
    rows = bank.eval()(IDS, torch.ones_like(IDS), ["a", "b", "a", "b"])
    alone = bank(IDS, torch.ones_like(IDS), ["a"] * 4)
    assert torch.allclose(torch.stack(list(rows))[0], torch.stack(list(alone))[0], atol=1e-5)


@needs["bitsandbytes"]
def test_adapters_in_single_precision_beside_a_base_in_half():
    model = made("llama").bfloat16()
    quantise_base(model)
    assert {a.down_project.weight.dtype for a in insert_adapters(model, CONFIG)} == {torch.bfloat16}
    remove_adapters(model)
    adapters = [adapter.float() for adapter in insert_adapters(model, CONFIG)]
    set_trainable(model)
    hidden = model(IDS).last_hidden_state
    hidden.float().pow(2).mean().backward()
    assert hidden.dtype == torch.bfloat16
    assert all(adapter.up_project.weight.grad.abs().max() > 0 for adapter in adapters)


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OURS)
def test_full_fine_tuning_is_refused(kind):
    model = Classifier(made("bert", kind), 2)
    with pytest.raises(ValueError, match=r"query\.weight is quantised, and whole numbers have no gradient") as refused:
        prepare(model, "full")
    hint = str(refused.value).rpartition(": ")[2]
    assert not any(p.requires_grad for p in base_model_of(model).parameters() if not p.is_floating_point())
    exec(hint.partition(" trains")[0], {"prepare": prepare, "model": model})
    assert all(gradient.abs().max() > 0 for name, gradient in gradients(model).items() if "up_project" in name)


@needs["torchao"]
def test_a_quantised_head_is_not_trained_in_silence():
    model = classifier("bert", "int8")
    torchaos_head = nn.Sequential(model.head)
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(torchaos_head, Int8WeightOnlyConfig())
    model.head.weight.requires_grad_(True)  # torchao lets it, and no gradient ever comes
    with pytest.raises(ValueError, match=r"head\.weight is quantised.*requires_grad_\(False\) freezes it"):
        train(model, data(), steps=1, progress=False)
    model.head.weight.requires_grad_(False)
    train(model, data(), steps=1, progress=False)


@needs["torchao"]
def test_weights_without_a_gradient_are_refused():
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    model = made("llama")
    torchaos(model, PrototypeInt4WeightOnlyConfig(group_size=32))
    with pytest.raises(ValueError, match=r"q_proj\.weight is of type Int4OpaqueTensor, through which no gradient"):
        insert_adapters(model, CONFIG)
    assert not [name for name, _ in model.named_modules() if "adapters_" in name]


@needs["bitsandbytes"]
def test_weights_that_were_packed_anew_are_refused():
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("bitsandbytes packs weights anew only on a processor with AVX512-BF16")
    model = made("llama", "nf4")
    for _, linear in linears(model):
        linear.support_avx512bf16_for_cpu = True  # as bitsandbytes makes it
    with torch.no_grad():
        model.eval()(IDS)
    for refused in (lambda: insert_adapters(model, CONFIG), lambda: prepare(Classifier(model, 2), "head")):
        with pytest.raises(ValueError, match=r"has packed .*q_proj anew, .*: quantise a fresh model"):
            refused()
    with pytest.raises(ValueError, match=r"has packed .*q_proj anew"):
        fingerprint(model)


def test_quantise_base_says_what_it_needs(monkeypatch):
    model = made("bert")
    with pytest.raises(ValueError, match="how must be one of 'nf4', 'nf4 double', 'int8', not 'int3'"):
        quantise_base(model, "int3")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"bitsandbytes is not installed: `make quantised` .*pip install bitsandbytes"
    ):
        quantise_base(model)
    monkeypatch.setattr(quantised, "find_spec", lambda name: True)
    insert_adapters(model, CONFIG)
    with pytest.raises(ValueError, match=r"remove_adapters\(model\) first"):
        quantise_base(model)


@needs["bitsandbytes"]
def test_rows_that_blocks_do_not_fill_are_refused():
    narrow = hf.BertModel(hf.BertConfig(**SIZES | {"hidden_size": 96, "intermediate_size": 96}))
    with pytest.raises(ValueError, match=r"a row of attention\.self\.query has 96 weights, and blocks of 64 do not"):
        quantise_base(narrow)


# --- Counting and measuring -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OURS)
def test_as_many_parameters_as_before(kind):
    ours, theirs = (count_parameters(classifier("llama", one)) for one in (kind, None))
    assert ours == theirs
    assert str(prepare(Classifier(made("llama", kind), 2), "head")) == str(prepare(Classifier(made(), 2), "head"))


@pytest.mark.parametrize("kind", OURS)
def test_the_weights_take_what_codes_and_scales_take(kind):
    """Counted by hand: no function of the library knows these formulas."""
    model = made("llama", kind)
    weights = sum(m.in_features * m.out_features for _, m in linears(model))
    rows, layers = sum(m.out_features for _, m in linears(model)), len(list(linears(model)))
    others = 4 * (200 * WIDTH + 5 * WIDTH)  # embeddings and norms
    others += sum(buffer.nbytes for buffer in model.buffers())
    table, dynamic = 16 * 4, 256 * 4  # the levels of NF4, those of the scales
    single = 0.5 + 4 / 64  # bytes of a weight: half of one, and its share of a scale
    double = 0.5 + (1 + 4 / 256) / 64  # the scales to a byte each, with a scale of their own for 256 of them
    by_hand = {
        "nf4": weights * single + layers * table,
        "nf4 double": weights * double + layers * (table + dynamic + 4),
        "int8": weights + rows * (4 + 1),  # a scale and a zero point for each row
        "int4": weights + weights // 32 * (4 + 1),  # a code to the byte: torchao packs them on other devices only
        "torchao's nf4": weights * double + layers * (table + 4),
    }
    assert bytes_of([*model.parameters(), *model.buffers()]) == pytest.approx(others + by_hand[kind], rel=1e-3)


@pytest.mark.parametrize("way", ["as it is", "checkpointing"])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", OURS)
def test_predicted_memory_is_what_is_measured(kind, base, way):
    model = classifier(base, kind)
    predicted = memory_ledger(model, 4, 32, checkpointing=way == "checkpointing")
    with checkpointed(model) if way == "checkpointing" else warnings.catch_warnings():
        measured = measure_memory(model, 4, 32)
    for name in ("weights", "gradients", "optimizer_state"):
        assert getattr(predicted, name) == getattr(measured, name), name
    assert predicted.activations == pytest.approx(measured.activations, rel=0.02), predicted.compare(measured)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.02), predicted.compare(measured)
    assert predicted.temporary == pytest.approx(measured.temporary, rel=0.02), predicted.compare(measured)


@pytest.mark.parametrize("kind", [NF4, INT8, OURS[4]])
def test_the_measured_peak_is_the_allocators(kind):
    from torch.profiler import ProfilerActivity, profile

    model = classifier("llama", kind)
    measured = measure_memory(model, 16, 64)
    training_mode(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)
    ids = torch.arange(16 * 64).remainder(200).view(16, 64)

    def step():
        F.cross_entropy(model(ids, torch.ones_like(ids)), torch.zeros(16, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    assert measured.peak - measured.weights - measured.optimizer_state == pytest.approx(highest, rel=0.02)


@needs["bitsandbytes"]
def test_the_weights_shrink_and_the_activations_stay():
    plain, packed = (memory_ledger(classifier("llama", kind), 4, 32) for kind in (None, "nf4"))
    assert packed.weights < 0.5 * plain.weights  # embeddings and norms stay
    assert packed.activations == plain.activations
    assert (packed.gradients, packed.optimizer_state) == (plain.gradients, plain.optimizer_state)


@needs["torchao"]
def test_int8_keeps_the_weights_for_the_backward_pass_in_single_precision():
    """torchao multiplies with plain numbers, and autograd keeps them: in training it takes more than plain."""
    plain, packed = (memory_ledger(classifier("llama", kind), 4, 32) for kind in (None, "int8"))
    above = sum(m.in_features * m.out_features for _, m in list(linears(made()))[4:])  # above the lowest adapter
    assert packed.activations - plain.activations == pytest.approx(4 * above, rel=0.01)
    rare = memory_ledger(classifier("llama", "int8"), 4, 32, checkpointing=True)
    assert rare.activations == memory_ledger(classifier("llama"), 4, 32, checkpointing=True).activations


@needs["bitsandbytes"]
def test_quantised_bases_can_be_timed():
    calls = {kind or "plain": partial(answers, classifier("llama", kind)) for kind in (None, "nf4")}
    table = measure_latency(calls, 5, 1)
    assert table["nf4"].median > 0 and table["nf4"].times != table["plain"].times


# --- Saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", OURS)
def test_only_the_adapter_is_saved_and_answers_the_same_on_the_same_base(kind, base, tmp_path):
    model = classifier(base, kind)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    file = save_adapter(model, tmp_path)
    assert 4 * trained < file.stat().st_size < 4 * trained + 6000
    other = Classifier(made(base, kind), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_adapter(other, tmp_path)
    assert torch.equal(answers(other), answers(model))


@pytest.mark.parametrize("kind", OURS)
def test_the_fingerprint_tells_a_quantised_base(kind):
    quantised_one, again, plain = made("llama", kind), made("llama", kind), made("llama")
    assert fingerprint(quantised_one) == fingerprint(again) != fingerprint(plain)
    with torch.no_grad():
        quantised_one(IDS)
    assert fingerprint(quantised_one) == fingerprint(again)


@pytest.mark.parametrize("kind", OURS)
def test_an_adapter_goes_from_a_quantised_base_to_the_plain_one_and_back_with_a_sentence(kind, tmp_path):
    there = r"its base had weights in u?int8, and has them in float32 here: answers differ by rounding"
    back = r"its base had weights in float32, and has them in u?int8 here: answers differ by rounding"
    for first, second, said in ((kind, None, there), (None, kind, back)):
        model, other = classifier("llama", first), Classifier(made("llama", second), 2)
        save_adapter(model, tmp_path / str(first))
        with pytest.warns(UserWarning, match=said):
            load_adapter(other, tmp_path / str(first))
        ours, theirs = answers(model), answers(other)
        assert not torch.equal(ours, theirs)
        assert torch.allclose(ours, theirs, atol=0.2 * ours.abs().max().item())


@needs["bitsandbytes"]
def test_from_one_way_of_quantising_to_another(tmp_path):
    save_adapter(classifier("llama", "nf4"), tmp_path)
    with pytest.warns(UserWarning, match="its base had weights in uint8, and has them in uint8 here"):
        load_adapter(Classifier(made("llama", "nf4 double"), 2), tmp_path)


@pytest.mark.parametrize("kind", OURS)
def test_another_model_is_refused_however_it_is_quantised(kind, tmp_path):
    save_adapter(classifier("llama", kind), tmp_path)
    for other in (made("llama", None, seed=5), made("llama", kind, seed=5)):
        with pytest.raises(StorageError, match="another base model, of the same shape but with other weights in embed"):
            load_adapter(Classifier(other, 2), tmp_path)


@pytest.mark.parametrize("kind", [NF4, INT8])
def test_where_nothing_plain_is_left_to_compare_it_is_refused(kind, monkeypatch):
    whole = base_parts.base_tensors
    blocks = lambda model: {key: t for key, t in whole(model).items() if key.startswith("layers.")}  # noqa: E731
    monkeypatch.setattr(base_parts, "base_tensors", blocks)
    theirs = base_parts.parts_of(base_parts.base_tensors(made("llama")))
    with pytest.raises(StorageError, match=r"other weights in layers\.0, layers\.1 "):
        base_parts.check_same_base(made("llama", kind), "theirs", "ours", theirs, pools=False)


@needs["bitsandbytes"]
def test_the_same_quantisation_of_other_weights_is_refused(tmp_path):
    """Equal embeddings and norms, and other weights in one layer."""
    save_adapter(classifier("llama", "nf4"), tmp_path)
    other = made("llama", "nf4")
    linear = next(linear for _, linear in linears(other))
    set_nf4(linear, nf4_weight(linear) + 0.1)
    with pytest.raises(StorageError, match=r"other weights in layers\.0 "):
        load_adapter(Classifier(other, 2), tmp_path)


# --- The course's own -------------------------------------------------------------------------------------------------


@needs["bitsandbytes"]
def test_the_layers_hold_what_nf4_from_scratch_makes():
    model, plain = made("bert", "nf4"), made("bert")
    for (path, packed), (_, linear) in zip(linears(model), linears(plain), strict=True):
        assert torch.equal(nf4_weight(packed), dequantise(quantise(linear.weight))), path
        assert torch.equal(packed.bias, linear.bias) and not packed.training
    assert type(model.embeddings.word_embeddings) is nn.Embedding
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(model(IDS).last_hidden_state, copied(IDS).last_hidden_state)


@needs["bitsandbytes"]
def test_a_weight_comes_back_from_a_second_round_trip_as_it_is():
    linear = next(linear for _, linear in linears(made("llama", "nf4")))
    before = nf4_weight(linear)
    set_nf4(linear, before)
    assert torch.equal(nf4_weight(linear), before)
    check_gradient("it", linear)


@needs["torchao"]
def test_nothing_is_printed_where_the_packages_are_there():
    """transformers imports torchao, which tells of kernels for other machines: in a notebook that would be kept."""
    code = "import adapters_lesson.course; from transformers import LlamaModel"
    code += "; import torchao.quantization" + (
        "; import bitsandbytes" if importlib.util.find_spec("bitsandbytes") else ""
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ""
