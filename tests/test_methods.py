"""Each method trains exactly what it says."""

import re

import pytest
import torch
from models import ALL, BASES, WIDTH, make, output, small, snapshot, train_steps
from torch import nn

from adapters_lesson import Adapter, AdapterConfig, LoRA, LoRAConfig, prepare, print_trainable_parameters
from adapters_lesson.methods import METHODS, Trainable, trainable
from adapters_lesson.placements import PLACEMENTS

CLASSIFIERS = ("small_classifier", "bert_classifier")
HEAD = {"head.weight", "head.bias"}


def expected_names(model, method):
    """What should be trained besides the head, told by the names of the modules alone."""
    base = [name for name, _ in model.named_parameters() if name.startswith("base_model.")]
    adapter_tails = [f"default.{projection}.{kind}" for projection in ("down_project", "up_project") for kind in KINDS]
    small_places = ("attention.output.adapters_after", "ffn.contract.adapters_after")
    bert_places = ("attention.output.dense.adapters_after", "output.dense.adapters_after")
    is_small = hasattr(model.base_model, "blocks")
    blocks = "base_model.blocks" if is_small else "base_model.encoder.layer"
    attention = "attention" if is_small else "attention.self"
    return {
        "full": set(base),
        "head": set(),
        "layer_norm": {name for name in base if re.search(r"(norm|LayerNorm)\.(weight|bias)$", name)},
        "bitfit": {name for name in base if name.endswith(".bias")},
        "adapter": {
            f"{blocks}.{i}.{place}.{tail}"
            for i in range(3)
            for place in (small_places if is_small else bert_places)
            for tail in adapter_tails
        },
        "lora": {
            f"{blocks}.{i}.{attention}.{target}.adapters_beside_linear.default.lora_{ab}.weight"
            for i in range(3)
            for target in ("query", "value")
            for ab in "AB"
        },
    }[method]


KINDS = ("weight", "bias")


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_trains_exactly_what_it_says(name, method, head):
    model = make(name)
    before = output(model)
    names_before = set(model.state_dict())
    result = prepare(model, method, head=head)
    trained = {path for path, p in model.named_parameters() if p.requires_grad}
    assert trained == expected_names(model, method) | (HEAD if head else set())
    assert torch.equal(output(model), before), "the method changes the output before training"

    sizes = {path: p.numel() for path, p in model.named_parameters()}
    head_size = 2 * WIDTH + 2 if head else 0
    assert set(result.names) == trained
    assert result.method == method
    assert result.trainable == sum(sizes[path] for path in trained)
    assert result.total == sum(sizes.values())
    assert result.head == head_size
    assert result.without_head == result.trainable - head_size
    if method not in ("adapter", "lora"):
        assert set(model.state_dict()) == names_before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_training_changes_what_is_trained_and_nothing_else(name, method):
    model = make(name)
    trained = set(prepare(model, method).names)
    unused = {path for path in trained if "pooler" in path}  # the classifier takes the mean and not BERT's pooler
    unused |= {path for path in trained if "attention" in path and path.endswith("key.bias")}  # softmax ignores it
    unused |= {path for path in trained if "position" in path or "word_embeddings" in path or "token_type" in path}
    before = snapshot(model)
    train_steps(model, 3)
    changed = {path for path, value in snapshot(model).items() if before[path] != value}
    assert changed <= trained
    assert trained - unused <= changed


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_adapter_takes_a_config(placement, head):
    model = make("bert_classifier")
    config = AdapterConfig(5, placement=placement, layers=(0, 2), train_layer_norms=True)
    result = prepare(model, "adapter", config, head=head)
    adapters = 2 * (2 if placement == "houlsby" else 1)
    assert result.without_head == adapters * Adapter.count(WIDTH, 5) + 2 * 2 * 2 * WIDTH  # blocks, norms, vectors
    assert result.head == (2 * WIDTH + 2) * head


def test_adapter_has_sixteen_wide_houlsby_adapters_by_default():
    assert prepare(make("small_classifier"), "adapter").without_head == 6 * Adapter.count(WIDTH, 16)


@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", "roberta", "distilbert", "gpt2", "llama", "vit"])
@pytest.mark.parametrize("rank", [1, 4])
def test_lora_is_on_query_and_value(name, rank):
    model = make(name)
    before = output(model)
    result = prepare(model, "lora", lora_rank=rank, lora_alpha=3.0)
    layers = {path: m for path, m in model.named_modules() if isinstance(m, LoRA)}
    last_names = {path.split(".adapters_")[0].rpartition(".")[2] for path in layers}
    assert last_names in ({"query", "value"}, {"q_lin", "v_lin"}, {"q_proj", "v_proj"}, {"c_attn"})
    assert len(layers) == 3 * len(last_names)
    assert all(layer.lora_A.out_features == rank and layer.scaling == 3.0 / rank for layer in layers.values())
    assert all(".lora_" in path for path in result.names)
    assert result.trainable == sum(LoRA.count(m.in_features, m.out_features, rank) for m in layers.values())
    assert torch.equal(output(model), before)
    train_steps(model, 2)
    assert not torch.equal(output(model), before)


def test_lora_takes_a_config():
    config = LoRAConfig(3, targets="all-linear", layers=(0, 2))
    assert prepare(make("bert"), "lora", config).trainable == 2 * 3 * (4 * 2 * WIDTH + 2 * 3 * WIDTH)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [n for n in ALL if n not in BASES])
def test_prepares_every_model_with_a_head(name, method):
    model = make(name)
    result = prepare(model, method)
    if (method, name) in [("head", "gpt2_head"), ("bitfit", "llama_head")]:
        assert result.names == ()  # a head that is tied to the embeddings is none; a Llama has no biases
        return
    assert result.names
    train_steps(model)


@pytest.mark.parametrize("name", ["llama_head", "small_classifier"])
def test_layer_norm_finds_the_norms_by_their_type(name):
    model = make(name)
    names = prepare(model, "layer_norm", head=False).names
    owners = {type(model.get_submodule(path.rpartition(".")[0])) for path in names}
    assert len(owners) == 1
    assert owners == ({nn.LayerNorm} if name == "small_classifier" else {type(model.model.norm)})
    assert len(names) == (7 if name == "llama_head" else 14)


def test_the_same_model_can_be_prepared_for_other_methods_that_add_nothing():
    model = make("small_classifier")
    for method in ("full", "head", "bitfit", "layer_norm", "full"):
        assert prepare(model, method).names == prepare(make("small_classifier"), method).names


@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", ["adapter", "lora"])
def test_refuses_a_model_that_has_adapters_or_lora_already(first, second):
    model = make("small_classifier")
    prepare(model, first)
    before = {path: p.requires_grad for path, p in model.named_parameters()}
    with pytest.raises(ValueError, match="already"):
        prepare(model, second)
    assert {path: p.requires_grad for path, p in model.named_parameters()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prefix",), "method must be one of 'full', 'head', 'layer_norm', 'bitfit', 'adapter', 'lora', not 'prefix'"),
        (("full", AdapterConfig(4)), "an AdapterConfig belongs to method=\"adapter\", not 'full'"),
        (("lora", AdapterConfig(4)), "an AdapterConfig belongs to method=\"adapter\", not 'lora'"),
        (("adapter", LoRAConfig(4)), "a LoRAConfig belongs to method=\"lora\", not 'adapter'"),
        (("adapter", AdapterConfig(4, layers=(3,))), "the model has 3 blocks"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, message):
    model = make("small_classifier")
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        prepare(model, *arguments)
    assert snapshot(model) == before
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("method", ["adapter", "lora"])
def test_refuses_an_unknown_architecture(method):
    with pytest.raises(ValueError, match="Linear is not in the table of architectures"):
        prepare(nn.Linear(2, 2), method)


def test_prints_as_peft_does(capsys):
    result = Trainable("adapter", trainable=1234, total=5678, names=())
    assert str(result) == "trainable params: 1,234 || all params: 5,678 || trainable%: 21.7330"
    model = make("small_classifier")
    prepare(model, "head")
    print_trainable_parameters(model)
    total = sum(p.numel() for p in model.parameters())
    assert capsys.readouterr().out == (
        f"trainable params: 34 || all params: {total:,} || trainable%: {100 * 34 / total:.4f}\n"
    )


def test_prints_the_same_line_as_peft(capsys):
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(make("bert"), LoraConfig(r=4, target_modules=["query", "value"]))
    theirs.print_trainable_parameters()
    line = capsys.readouterr().out
    ours = make("bert")
    print(prepare(ours, "lora", lora_rank=4))
    assert capsys.readouterr().out == line


def test_trainable_counts_a_model_as_it_stands():
    model = small()
    assert trainable(model).trainable == trainable(model).total == sum(p.numel() for p in model.parameters())
    model.requires_grad_(False)
    assert trainable(model).names == ()


@pytest.mark.parametrize(("method", "trained"), [("adapter", False), ("lora", False), ("full", True), ("head", True)])
def test_a_language_model_s_head_is_trained_only_by_what_means_it(method, trained):
    assert ("lm_head.weight" in prepare(make("llama_head"), method).names) is trained


def test_a_language_model_s_head_is_trained_when_asked():
    assert "lm_head.weight" in prepare(make("llama_head"), "adapter", head=True).names
    assert "classifier.weight" in prepare(make("bert_head"), "adapter").names
