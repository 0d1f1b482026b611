"""Parameters counted exactly, on models and on outlines."""

import pytest
import torch
from models import ALL, DEPTH, WIDTH, make
from torch import nn

from adapters_lesson import Adapter, AdapterConfig, insert_adapters, prepare, set_trainable
from adapters_lesson.costs import OUTLINES, count_parameters, outline
from adapters_lesson.costs.parameters import PARTS
from adapters_lesson.methods import METHODS
from adapters_lesson.placements import PLACEMENTS

# Totals as published; widths and numbers of blocks from the models' papers.
SIZES = {
    "minilm": (22_713_216, 384, 6),
    "bert-base": (109_482_240, 768, 12),
    "bert-large": (335_141_888, 1024, 24),
    "gpt2-xl": (1_557_611_200, 1600, 48),
    "llama-3-8b": (8_030_261_248, 4096, 32),
    "llama-3-70b": (70_553_706_496, 8192, 80),
}
HEAD = 2 * WIDTH + 2
NORMS = (2 * DEPTH + 1) * 2 * WIDTH  # two in each block and one behind the embeddings, a weight and a bias each


def adapters_of(name, **settings):
    """The count of an outline with adapters, which are all that is trained."""
    model = outline(name)
    insert_adapters(model, AdapterConfig(**settings))
    set_trainable(model, head=False)
    return model, count_parameters(model)


@pytest.mark.parametrize(
    ("name", "placement", "m", "expected"),
    [
        ("bert-base", "pfeiffer", 48, 894_528),
        ("bert-base", "houlsby", 48, 1_789_056),
        ("bert-large", "houlsby", 64, 6_343_680),
    ],
)
def test_the_figures_of_the_papers_models(name, placement, m, expected):
    _, count = adapters_of(name, bottleneck_dim=m, placement=placement)
    assert count.by_part["adapters"].total == count.by_part["adapters"].trainable == count.trainable == expected
    assert count.total - count.trainable == SIZES[name][0]
    assert count.total == SIZES[name][0] + expected


@pytest.mark.parametrize("name", OUTLINES)
def test_totals_of_the_outlines(name):
    model = outline(name)
    count = count_parameters(model)
    assert count.total == count.trainable == SIZES[name][0]
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize(("name", "placement"), [*zip(OUTLINES, [*PLACEMENTS] * 6, strict=False)])
def test_adapters_in_outlines_have_no_numbers_and_the_right_count(name, placement):
    m = 48
    model, count = adapters_of(name, bottleneck_dim=m, placement=placement)
    _, d, blocks = SIZES[name]
    places = blocks * (2 if placement == "houlsby" else 1)
    assert count.trainable == count.by_part["adapters"].total == places * (2 * d * m + m + d)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    trained = [place for place, entry in count.by_layer.items() if entry.trainable]
    assert trained == [f"block {i}" for i in range(blocks)]
    assert {count.by_layer[place].trainable for place in trained} == {count.trainable // blocks}


@pytest.mark.parametrize("name", ["minilm", "gpt2-xl", "llama-3-8b"])
def test_an_outline_becomes_a_classifier(name):
    model = outline(name, num_labels=3)
    _, d, _ = SIZES[name]
    count = count_parameters(model)
    assert count.by_part["head"].total == count.by_layer["head"].total == 3 * d + 3
    assert all(parameter.is_meta for parameter in model.parameters())
    if name == "minilm":  # BERT's pooler, one d × d layer, makes way for the mean over the words
        assert count.total == SIZES[name][0] - (d * d + d) + 3 * d + 3


def test_refuses_an_unknown_outline():
    with pytest.raises(ValueError, match=r"name must be one of 'minilm', 'bert-base', 'bert-large', .* not 'bert'"):
        outline("bert")


# --- Entries, parts and layers ----------------------------------------------------------------------------------------


def check_sums(model, count):
    """Every parameter of the model is in exactly one entry."""
    assert count.total == sum(p.numel() for p in model.parameters())
    assert count.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    for groups in (count.by_part, count.by_layer):
        assert sum(entry.total for entry in groups.values()) == count.total
        assert sum(entry.trainable for entry in groups.values()) == count.trainable
    assert set(count.by_part) <= set(PARTS)


@pytest.mark.parametrize(("name", "placement"), [*zip(ALL, [None, *PLACEMENTS] * len(ALL), strict=False)])
def test_entries_are_disjoint_and_sum_to_all_parameters(name, placement):
    model = make(name)
    if placement:
        insert_adapters(model, AdapterConfig(4, placement=placement, layers=(0, 2), train_layer_norms=True))
        set_trainable(model)
    count = count_parameters(model)
    check_sums(model, count)
    assert [place for place in count.by_layer if place.startswith("block")] == [f"block {i}" for i in range(DEPTH)]
    if placement:
        expected = 2 * (2 if placement == "houlsby" else 1) * Adapter.count(WIDTH, 4)
        assert count.by_part["adapters"].total == count.by_part["adapters"].trainable == expected
        assert count.by_layer["block 1"].trainable == 0 < count.by_layer["block 0"].trainable


@pytest.mark.parametrize("method", METHODS)
def test_parts_of_every_method(method):
    head = method in ("full", "head", "lora")
    model = make("small_classifier")
    plain = sum(p.numel() for p in model.parameters())
    prepare(model, method, AdapterConfig(4) if method == "adapter" else None, lora_rank=2, head=head)
    count = count_parameters(model)
    check_sums(model, count)
    parts = count.by_part
    added = {"adapter": ("adapters", 2 * DEPTH * Adapter.count(WIDTH, 4)), "lora": ("LoRA", DEPTH * 2 * 2 * 2 * WIDTH)}
    names = {"LayerNorms", "head", "base model"}
    if method in added:
        part, size = added[method]
        assert (parts[part].total, parts[part].trainable) == (size, size)
        names.add(part)
    assert set(parts) == names
    assert count.total == plain + (added[method][1] if method in added else 0)
    assert (parts["head"].total, parts["head"].trainable) == (HEAD, HEAD * head)
    assert parts["LayerNorms"].total == NORMS
    assert parts["LayerNorms"].trainable == {"full": NORMS, "layer_norm": NORMS, "bitfit": NORMS // 2}.get(method, 0)
    biases = DEPTH * (4 * WIDTH + 32 + WIDTH)  # attention's four, the FFN's two
    whole = plain - NORMS - HEAD
    assert (parts["base model"].total, parts["base model"].trainable) == (
        whole,
        {"full": whole, "bitfit": biases}.get(method, 0),
    )


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["small_classifier", "bert_classifier"])
def test_trained_copies_count_as_layer_norms_and_adapters_below_a_layer_norm_as_adapters(name, placement):
    model = make(name)
    prepare(model, "adapter", AdapterConfig(4, placement=placement, train_layer_norms=True))
    parts = count_parameters(model).by_part
    copies = 2 * DEPTH * 2 * WIDTH
    assert (parts["LayerNorms"].total, parts["LayerNorms"].trainable) == (NORMS + copies, copies)
    assert parts["adapters"].total == DEPTH * (2 if placement == "houlsby" else 1) * Adapter.count(WIDTH, 4)


def test_lora_beside_adapters():
    model = make("small_classifier")
    prepare(model, "lora", lora_rank=2)
    insert_adapters(model, AdapterConfig(4), "beside")
    parts = count_parameters(model).by_part
    assert parts["LoRA"].total == DEPTH * 2 * 2 * 2 * WIDTH
    assert parts["adapters"].total == 2 * DEPTH * Adapter.count(WIDTH, 4)


def test_layers_from_the_embeddings_to_the_head():
    count = count_parameters(make("small_classifier"))
    block = 4 * (WIDTH * WIDTH + WIDTH) + 2 * 32 * WIDTH + 32 + WIDTH + 2 * 2 * WIDTH
    assert {place: entry.total for place, entry in count.by_layer.items()} == {
        "embeddings": (40 + 24 + 2) * WIDTH,
        **{f"block {i}": block for i in range(DEPTH)},
        "head": HEAD,
    }
    assert count_parameters(make("small_pre")).by_layer["after the blocks"].total == 2 * WIDTH


def test_tied_weights_are_counted_once():
    model = make("gpt2_head")  # its output layer is its embedding matrix
    assert model.lm_head.weight is model.transformer.wte.weight
    count = count_parameters(model)
    assert count.total == count_parameters(model.transformer).total
    assert "head" not in count.by_part
    untied = count_parameters(make("llama_head"))
    assert untied.by_part["head"].total == 40 * WIDTH


def test_the_printed_table_sums_up():
    model = outline("bert-base", num_labels=2)
    prepare(model, "adapter", AdapterConfig(48))
    count = count_parameters(model)
    header, *lines = str(count).splitlines()
    assert header.split() == ["parameters", "trained"]
    rows = {line[:22].strip(): [int(n.replace(",", "")) for n in line[22:].split()] for line in lines[:-1]}
    assert list(rows) == ["embeddings", "block 0 to 11, each", "head", "of it adapters", "of it head", "all"]
    for column, whole in enumerate((count.total, count.trainable)):
        layers = rows["embeddings"][column] + 12 * rows["block 0 to 11, each"][column] + rows["head"][column]
        assert layers == rows["all"][column] == whole
    assert rows["of it adapters"][1] + rows["of it head"][1] == count.trainable
    assert lines[-1].split() == [f"{100 * count.trainable / count.total:.3f}", "%"]


def test_unlike_neighbours_have_lines_of_their_own():
    model = make("small_classifier")
    prepare(model, "adapter", AdapterConfig(4, layers=(2,)))
    table = str(count_parameters(model))
    assert "block 0 to 1, each" in table
    assert "\nblock 2 " in table


def test_refuses_an_unknown_architecture():
    with pytest.raises(ValueError, match="Linear is not in the table of architectures"):
        count_parameters(nn.Linear(2, 2))


def test_counting_leaves_the_model_alone():
    model = make("small_classifier")
    prepare(model, "adapter", AdapterConfig(4))
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    count_parameters(model)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert torch.equal(torch.get_rng_state(), state)
