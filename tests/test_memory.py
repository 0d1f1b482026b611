"""The memory of a training step: the dry run held against the measurement, and both against counts by hand."""

import os
from contextlib import nullcontext

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its start and end otherwise

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from models import make, small, snapshot
from torch import nn

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    SmallTransformer,
    SmallTransformerConfig,
    insert_adapters,
    prepare,
    set_active_adapter,
    set_trainable,
)
from adapters_lesson.adapter import Adapter
from adapters_lesson.composition import fuse_adapters, stack_adapters
from adapters_lesson.costs import dry_run, measure_memory, memory_ledger, outline
from adapters_lesson.costs.dry_run import Living
from adapters_lesson.costs.memory import OPTIMIZERS, MemoryLedger
from adapters_lesson.data import load_minilm
from adapters_lesson.memory_tricks import cast_frozen, checkpointed
from adapters_lesson.modes import training_mode
from adapters_lesson.slots import slots_of

WIDTH, HEADS = 64, 4
SIZES = {
    "vocab_size": 200,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "max_position_embeddings": 300,
}
_LLAMA = SIZES | {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 172, "use_cache": False}
_GPT2 = {"vocab_size": 200, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "bos_token_id": 0, "eos_token_id": 0}
_DISTILBERT = {"vocab_size": 200, "dim": WIDTH, "n_layers": 2, "n_heads": HEADS, "hidden_dim": 4 * WIDTH}
_VIT = {"image_size": 32, "patch_size": 8} | {key: value for key, value in SIZES.items() if key[0] in "hni"}
MODELS = {
    "post-LN": lambda: narrow("post", dropout=0.1),
    "pre-LN": lambda: narrow("pre", dropout=0.1),
    "MiniLM": lambda: Classifier(load_minilm(), 2),
    "bert": lambda: Classifier(hf.BertModel(hf.BertConfig(**SIZES), add_pooling_layer=False), 2),
    "roberta": lambda: Classifier(hf.RobertaModel(hf.RobertaConfig(**SIZES), add_pooling_layer=False), 2),
    "distilbert": lambda: Classifier(hf.DistilBertModel(hf.DistilBertConfig(**_DISTILBERT)), 2),
    "gpt2": lambda: Classifier(hf.GPT2Model(hf.GPT2Config(**_GPT2, use_cache=False)), 2),
    "llama": lambda: Classifier(hf.LlamaModel(hf.LlamaConfig(**_LLAMA)), 2),
    "mistral": lambda: Classifier(hf.MistralModel(hf.MistralConfig(**_LLAMA)), 2),
    "qwen2": lambda: Classifier(hf.Qwen2Model(hf.Qwen2Config(**_LLAMA)), 2),
    "qwen3": lambda: Classifier(hf.Qwen3Model(hf.Qwen3Config(**_LLAMA)), 2),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**_VIT)),
}
METHODS = ("full", "head", "layer_norm", "bitfit", "lora", "houlsby", "pfeiffer", "parallel", "houlsby, norms",
           "pfeiffer, norms", "parallel, norms", "upper block", "stack", "fuse")  # fmt: skip
SHAPES = ((1, 9), (4, 64), (64, 9), (2, 256), (3, 17))
WAYS = ("fp32", "half precision", "checkpointing")


def narrow(norm="post", **changes):
    """A classifier on a SmallTransformer of width 64."""
    return Classifier(SmallTransformer(SmallTransformerConfig(norm=norm, **(SIZES | {"dropout": 0.0} | changes))), 2)


def prepared(model, method):
    """``model``, ready for a method of ``METHODS``."""
    if method in ("stack", "fuse"):
        for member in ("a", "b"):
            insert_adapters(model, AdapterConfig(8, placement="pfeiffer"), member)
        {"stack": stack_adapters, "fuse": fuse_adapters}[method](model, ["a", "b"], "both")
        set_trainable(model, "both")
    elif method in ("full", "head", "layer_norm", "bitfit", "lora"):
        prepare(model, method)
    else:
        place, _, norms = method.partition(", ")
        settings = (
            {"layers": (1,)} if place == "upper block" else {"placement": place, "train_layer_norms": bool(norms)}
        )
        prepare(model, "adapter", AdapterConfig(8, **settings))
    return model


def compare(model, batch_size, length, **settings):
    """Hold the prediction against the measurement."""
    predicted = memory_ledger(model, batch_size, length, **settings)
    settings.pop("checkpointing", None)
    measured = measure_memory(model, batch_size, length, **settings)
    for name in ("weights", "gradients", "optimizer_state"):
        assert getattr(predicted, name) == getattr(measured, name), name
    assert predicted.activations == pytest.approx(measured.activations, rel=0.01), predicted.compare(measured)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.03), predicted.compare(measured)
    # The weights, which are known, should not hide what is not.
    highest = [ledger.peak - ledger.weights - ledger.optimizer_state for ledger in (predicted, measured)]
    assert highest[0] == pytest.approx(highest[1], rel=0.03), predicted.compare(measured)
    return predicted, measured


# --- Prediction against measurement -----------------------------------------------------------------------------------


# Every model, method, shape and way several times over, no two of them always together. (All pairs hold as well.)
CASES = [
    pytest.param(name, method, SHAPES[(i + j) % len(SHAPES)], WAYS[(i + 2 * j) % len(WAYS)], id=f"{name}-{method}")
    for i, name in enumerate(MODELS)
    for j, method in enumerate(METHODS)
    if (j - 4 * i) % 14 in (0, 5) or (name, j % 3) == ("post-LN", 0)
]


@pytest.mark.parametrize(("name", "method", "shape", "way"), CASES)
def test_prediction_equals_measurement(name, method, shape, way):
    batch_size, length = shape
    model = prepared(MODELS[name](), method)
    if name == "vit":
        length = 17  # its images' patches, and one more
    halved = nullcontext()
    if way == "half precision":
        # Where trained and frozen parts cannot differ in type: the model itself would raise an error.
        if method in ("full", "bitfit") or name == "vit" or (method == "layer_norm" and "RMSNorm" in repr(model)):
            model.to(torch.bfloat16)
        else:
            halved = cast_frozen(model, torch.bfloat16)
    with halved, checkpointed(model) if way == "checkpointing" else nullcontext():
        compare(model, batch_size, length)


def test_a_large_batch_of_long_texts():
    compare(prepared(narrow("pre", dropout=0.1), "houlsby"), 64, 256)


@pytest.mark.parametrize("method", ["full", "head", "pfeiffer, norms", "upper block"])
def test_checkpointing_can_be_asked_for(method):
    """The batch is large enough for activations to be more than gradients."""
    model = prepared(narrow(num_hidden_layers=4), method)
    without, predicted = memory_ledger(model, 4, 128), memory_ledger(model, 4, 128, checkpointing=True)
    with checkpointed(model):
        assert predicted == memory_ledger(model, 4, 128)
    if method == "head":
        assert predicted == without
    elif method != "upper block":
        assert predicted.activations < 0.4 * without.activations
        assert predicted.peak < without.peak


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer):
    model = prepared(narrow(), "houlsby")
    predicted, _ = compare(model, 4, 32, optimizer=optimizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    numbers = sum(p.numel() for p in trained)
    expected = {"sgd": 0, "momentum": 4 * numbers, "adamw": 8 * numbers + 4 * len(trained)}
    assert predicted.optimizer_state == expected[optimizer]
    assert predicted.gradients == 4 * numbers


@pytest.mark.parametrize(("method", "dtype"), [("full", torch.bfloat16), ("lora", torch.float64)], ids=str)
def test_another_precision_can_be_asked_for(method, dtype):
    model = prepared(narrow(), method)
    in_single, asked_for = memory_ledger(model, 4, 32), memory_ledger(model, 4, 32, dtype=dtype)
    assert asked_for == memory_ledger(model.to(dtype), 4, 32)
    assert asked_for.weights == in_single.weights * dtype.itemsize // 4
    assert asked_for.activations / in_single.activations == pytest.approx(dtype.itemsize / 4, rel=0.05)


def test_a_made_up_module_is_predicted():
    """Whatever hangs in a slot: here it keeps two tensors of its own choice."""

    class Odd(Adapter):
        def update(self, h):
            return super().update(h).exp() * h.sin()

    model = prepared(narrow(), "houlsby")
    plain = memory_ledger(model, 4, 64)
    for slot in slots_of(model):
        slot["default"].__class__ = Odd
    predicted, _ = compare(model, 4, 64)
    assert predicted.activations > plain.activations


# --- Outlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method", "shape", "checkpointing"),
    [
        ("bert-base", "houlsby", (1, 9), True),
        ("gpt2-xl", "full", (2, 96), False),
        ("llama-3-8b", "layer_norm", (2, 96), True),
        ("llama-3-8b", "head", (3, 20), False),
        ("llama-3-8b", "upper block", (2, 96), False),
    ],
    ids=str,
)
def test_three_blocks_of_an_outline_tell_of_all(name, method, shape, checkpointing, monkeypatch):
    model = prepared(outline(name, num_labels=2, layers=6), method)
    few = memory_ledger(model, *shape, dtype=torch.bfloat16, checkpointing=checkpointing)
    monkeypatch.setattr(dry_run, "_signature", id)  # no block is like another one
    assert few == memory_ledger(model, *shape, dtype=torch.bfloat16, checkpointing=checkpointing)


def test_the_outline_has_the_ledger_of_the_model():
    for method in ("houlsby", "head"):
        ours, real = prepared(outline("minilm", num_labels=2), method), prepared(MODELS["MiniLM"](), method)
        # Where a base is frozen its dropout is off, and a GPU keeps what a CPU keeps, and attention's random state.
        ours, real = memory_ledger(ours, 8, 64), memory_ledger(real, 8, 64)
        assert 0 <= ours.activations - real.activations <= 6 * 24
        assert ours.peak == pytest.approx(real.peak, rel=1e-5)


def test_an_outline_is_left_as_it_was():
    model = prepared(outline("bert-base", num_labels=2, layers=5), "full")
    blocks, names = list(model.base_model.encoder.layer), list(model.state_dict())
    memory_ledger(model, 1, 16, checkpointing=True)
    assert list(model.base_model.encoder.layer) == blocks
    assert list(model.state_dict()) == names
    assert not any(block._forward_pre_hooks or "forward" in vars(block) for block in blocks)


def test_dropout_and_attention_keep_on_a_gpu_what_the_papers_of_its_kernels_say():
    """A byte for each number that dropout may drop, and one number for each row of attention in place of its scores."""
    with_dropout, without = (
        memory_ledger(model.to("meta"), 2, 50).activations
        for model in (prepared(narrow(dropout=p), "full") for p in (0.1, 0.0))
    )
    assert with_dropout - without == 5 * 2 * 50 * WIDTH  # five masks, one of them on the embeddings
    model = Classifier(hf.BertModel(hf.BertConfig(**SIZES), add_pooling_layer=False), 2)
    short, long = (memory_ledger(prepared(model, "full").to("meta"), 2, n).activations for n in (32, 128))
    assert long == pytest.approx(4 * short, rel=0.01)  # with scores it would be more than that


# --- Counts by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "houlsby"])
def test_what_one_block_keeps(method):
    """The formula of lesson 04, the dry run and the measurement are one number.

    Query, key, value and attention's output; both LayerNorms' inputs; GELU's input: 10 d in every block that a gradient
    passes. Trained linear layers keep their inputs too (the block's, attention's norm's, GELU's output: 6 d more,
    attention's output is kept already), adapters theirs (d and m) and GELU's (m)."""
    batch_size, length, m = 3, 50, 8
    numbers = 16 * WIDTH if method == "full" else 12 * WIDTH + 4 * m
    numbers += 2 * 2 + HEADS + 1  # mean and spread for each LayerNorm, one for each row of attention, the mask
    for count in (memory_ledger, measure_memory):
        two, three = (
            count(prepared(narrow(num_hidden_layers=n), method), batch_size, length).activations for n in (2, 3)
        )
        assert three - two == 4 * batch_size * length * numbers


def test_weights_and_states_of_bert_base_by_hand():
    model = outline("bert-base", num_labels=2)
    base = 109_482_240 - 768 * 768 - 768  # without the pooler
    prepare(model, "adapter", AdapterConfig(48))
    trained = 1_789_056 + 2 * 768 + 2
    ledger = memory_ledger(model, 32, 128)
    positions = sum(b.nbytes for b in model.buffers())
    assert ledger.weights == 4 * (base + trained) + positions
    assert ledger.gradients == 4 * trained
    assert ledger.optimizer_state == 8 * trained + 4 * (24 * 4 + 2)


def test_activations_grow_with_the_tokens_and_not_below_the_lowest_adapter():
    all_layers = prepared(narrow(num_hidden_layers=6), "houlsby")
    upper = narrow(num_hidden_layers=6)
    prepare(upper, "adapter", AdapterConfig(8, layers=(4, 5)))
    four, sixteen = (memory_ledger(all_layers, batch, 64).activations for batch in (4, 16))
    assert sixteen == pytest.approx(4 * four, rel=0.001)
    # Nothing is kept in four blocks of six, and less in the fifth.
    assert 0.25 < memory_ledger(upper, 16, 64).activations / sixteen < 1 / 3


# --- How it is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("training", "method"), [(False, "full"), (True, "houlsby"), (False, "lora")])
def test_measuring_leaves_everything_as_it_was(method, training):
    model = prepared(narrow(), method).train(training)
    model.base_model.blocks[1].train(not training)
    before, modes, random = snapshot(model), [m.training for m in model.modules()], torch.get_rng_state()
    flags = [p.requires_grad for p in model.parameters()]
    F.cross_entropy(model(torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4)), torch.zeros(2).long()).backward()
    torch.set_rng_state(random)
    measure_memory(model, 2, 16)
    assert snapshot(model) == before
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    memory_ledger(model, 2, 16, checkpointing=True)
    assert snapshot(model) == before
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None and type(p) is nn.Parameter for p in model.parameters())


@pytest.mark.parametrize("method", ["full", "houlsby"])
def test_measuring_lets_go_of_what_it_held(method):
    model = prepared(narrow(), method)
    with Living() as living:
        measured = measure_memory(model, 4, 64)
    assert max(living.history) > measured.activations
    assert living.now < measured.activations / 20


def test_it_is_measured_as_it_is_trained():
    """With full fine-tuning the base's dropout is on, whatever mode the model is in."""
    model = prepared(narrow(dropout=0.5), "full").eval()
    without = prepared(narrow(dropout=0.0), "full").eval()
    for count in (memory_ledger, measure_memory):
        more = count(model, 4, 64).activations - count(without, 4, 64).activations
        assert more == pytest.approx(5 * 4 * 4 * 64 * WIDTH, rel=0.01)  # five masks, one of them on the embeddings


@pytest.mark.parametrize("method", ["full", "houlsby"])
def test_the_peak_is_the_allocators(method):
    from torch.profiler import ProfilerActivity, profile

    model = prepared(narrow(), method)
    measured = measure_memory(model, 16, 64)
    training_mode(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    ids, mask = torch.arange(16 * 64).remainder(200).view(16, 64), torch.ones(16, 64, dtype=torch.long)

    def step():
        F.cross_entropy(model(ids, mask), torch.zeros(16, dtype=torch.long)).backward()
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
    assert measured.peak - measured.weights - measured.optimizer_state == pytest.approx(highest, rel=0.01)


# --- The ledger as an object ------------------------------------------------------------------------------------------

LEDGER = MemoryLedger(weights=100, gradients=30, optimizer_state=60, activations=200, temporary=50)


def test_the_peak_does_not_add_activations_and_gradients():
    assert LEDGER.peak == 100 + 60 + 200 + 50
    assert MemoryLedger(100, 300, 60, 200, 50).peak == 100 + 60 + 300 + 50


def test_the_comparison_shows_the_difference():
    lines = LEDGER.compare(MemoryLedger(100, 30, 60, 160, 40)).splitlines()
    rows = {line[:16].strip(): line[16:].split() for line in lines[1:]}
    assert lines[0].split() == ["predicted", "measured", "difference"]
    assert rows == {
        "weights": ["100", "100", "none"],
        "gradients": ["30", "30", "none"],
        "optimizer state": ["60", "60", "none"],
        "activations": ["200", "160", "+25.00", "%"],
        "peak": ["410", "360", "+13.89", "%"],
    }


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [memory_ledger, measure_memory])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 16), "batch_size must be a whole number of at least 1, not 0"),
        ((True, 16), "batch_size must be a whole number of at least 1, not True"),
        ((1, "8"), "sequence_length must be a whole number of at least 1, not '8'"),
    ],
)
def test_refuses_senseless_sizes(call, arguments, message):
    with pytest.raises(ValueError, match=message):
        call(make("small_classifier"), *arguments)


@pytest.mark.parametrize("call", [memory_ledger, measure_memory])
def test_refuses_what_it_cannot_count(call):
    with pytest.raises(ValueError, match="optimizer must be one of 'adamw', 'momentum', 'sgd', not 'lion'"):
        call(make("small_classifier"), 1, 8, optimizer="lion")
    with pytest.raises(ValueError, match=r"and SmallTransformer gives none: Classifier\(model, num_labels=2\)"):
        call(small(), 1, 8)
    with pytest.raises(ValueError, match="sequence_length must be 17, the patches of an image and 1, not 16"):
        call(MODELS["vit"](), 1, 16)


def test_an_outline_can_be_predicted_and_not_measured():
    model = outline("minilm", num_labels=2)
    assert memory_ledger(model, 1, 16).peak > 0
    with pytest.raises(ValueError, match="an outline cannot be measured, only predicted"):
        measure_memory(model, 1, 16)


def test_refuses_to_measure_where_nothing_is_trained():
    model = make("small_classifier").requires_grad_(False)
    assert memory_ledger(model, 1, 16).gradients == memory_ledger(model, 1, 16).activations == 0
    with pytest.raises(ValueError, match=r'nothing in the model requires gradients: prepare\(model, "adapter"\) first'):
        measure_memory(model, 1, 16)


def test_adapters_that_are_off_cost_their_weights_only():
    model = make("small_classifier")
    prepare(model, "head")
    before = memory_ledger(model, 4, 16)
    insert_adapters(model, AdapterConfig(4, train_layer_norms=True))
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)
    set_active_adapter(model, None)
    after = memory_ledger(model, 4, 16)
    assert after.activations == before.activations
    assert after.weights > before.weights
