"""Where adapters go, what they compute there, and that the base model stays as it was."""

import copy
from itertools import combinations, product

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from models import (
    ALL,
    BASES,
    DEPTH,
    WIDTH,
    forward,
    hooks,
    inputs,
    loss,
    make,
    output,
    randomise,
    slots,
    small,
    snapshot,
    train_steps,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from adapters_lesson import (
    Adapter,
    AdapterConfig,
    Architecture,
    SmallTransformer,
    SmallTransformerConfig,
    freeze,
    insert_adapters,
    remove_adapters,
    set_active_adapter,
    set_trainable,
)
from adapters_lesson.architectures import base_model_of, blocks_of
from adapters_lesson.insertion import adapter_config, adapter_names, head_parameters
from adapters_lesson.placements import PLACEMENTS

RANDOM = {"init": "houlsby", "init_std": 0.5}


def every_pair(names, **choices):
    """A parametrization in which every two values meet at least once, instead of each with all."""
    rows = list(product(*choices.values()))
    wanted = {pair for row in product(*choices.values()) for pair in combinations(enumerate(row), 2)}
    chosen = []
    while wanted:
        chosen.append(max(rows, key=lambda row: len(wanted & set(combinations(enumerate(row), 2)))))
        wanted -= set(combinations(enumerate(chosen[-1]), 2))
    return pytest.mark.parametrize(names, chosen)


# Mistral and Qwen2 have Llama's names, RoBERTa BERT's: they come and go once, and the others stand for them.
FAMILIES = ["small_post", "small_pre", "bert_head", "distilbert", "gpt2_head", "llama", "qwen3", "vit"]
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)
with_norms = pytest.mark.parametrize("norms", [False, True], ids=["", "norms"])


def per_block(placement):
    return 2 if placement == "houlsby" else 1


# --- Round trips on every architecture ------------------------------------------------------------------------------


@every_pair("name, placement, norms", name=ALL, placement=PLACEMENTS, norms=[False, True])
def test_insert_and_remove_leave_the_model_as_it_was(name, placement, norms):
    model = make(name)
    before, bytes_before, had_hooks = output(model), snapshot(model), hooks(model)
    adapters = insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=norms))
    assert len(adapters) == DEPTH * per_block(placement)
    assert torch.equal(output(model), before), "not the identity at the start"
    with_adapters = snapshot(model)
    assert {k: with_adapters[k] for k in bytes_before} == bytes_before
    added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in make(name).parameters())
    norm_size = sum(p.numel() for p in norms_of(name)) if norms else 0
    assert added == len(adapters) * Adapter.count(WIDTH, 4) + norm_size

    remove_adapters(model)
    assert snapshot(model) == bytes_before
    assert list(model.state_dict()) == list(bytes_before)
    assert hooks(model) == had_hooks
    assert not slots(model)
    assert torch.equal(output(model), before)


def norms_of(name):
    """The parameters of the LayerNorms in the blocks, found by their type and not by the table."""
    for block in blocks_of(make(name)):
        for path, module in block.named_modules():
            if type(module).__name__.endswith("Norm") and not path.endswith(("q_norm", "k_norm")):
                yield from module.parameters()


@every_pair("name, placement, norms", name=FAMILIES, placement=PLACEMENTS, norms=[False, True])
def test_random_adapters_change_the_output_until_they_are_off_or_out(name, placement, norms):
    model = make(name)
    before, bytes_before = output(model), snapshot(model)
    adapters = insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=norms, **RANDOM))
    with_all = output(model)
    assert not torch.allclose(with_all, before, atol=1e-3)
    for adapter in adapters:  # every one of them has a say
        saved = adapter.scaling
        adapter.scaling = 0.0
        assert not torch.equal(output(model), with_all)
        adapter.scaling = saved
    set_active_adapter(model, None)
    assert torch.equal(output(model), before)
    set_active_adapter(model, "default")
    assert torch.equal(output(model), with_all)
    remove_adapters(model)
    assert torch.equal(output(model), before)
    assert snapshot(model) == bytes_before


@every_pair("name, placement, norms", name=FAMILIES, placement=PLACEMENTS, norms=[False, True])
def test_training_reaches_every_adapter_parameter_and_nothing_else(name, placement, norms):
    model = make(name)
    before, bytes_before = output(model), snapshot(model)
    adapters = insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=norms))
    set_trainable(model, head=False)
    loss(model).backward()
    for adapter in adapters:  # up_project is zero, so nothing comes through to down_project in the first backward pass
        assert adapter.up_project.weight.grad.abs().sum() > 0
        assert adapter.up_project.bias.grad.abs().sum() > 0
        assert adapter.down_project.weight.grad.abs().sum() == 0
        assert adapter.down_project.bias.grad.abs().sum() == 0
    train_steps(model, 2)
    expected = {id(p) for a in adapters for p in a.parameters()}
    expected |= {id(p) for slot in slots(model) for p in slot.parameters()}
    for path, parameter in model.named_parameters():
        if id(parameter) in expected:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"no gradient reaches {path}"
        else:
            assert parameter.grad is None, f"{path} is frozen and has a gradient"
    assert not torch.allclose(output(model), before, atol=1e-6), "training changed nothing"
    now = snapshot(model)
    assert {k: now[k] for k in bytes_before} == bytes_before, "training changed the base model"
    remove_adapters(model)
    assert snapshot(model) == bytes_before
    assert torch.equal(output(model), before)


@settings(deadline=None, max_examples=30)
@given(
    norm=st.sampled_from(["post", "pre"]),
    heads=st.integers(1, 3),
    head_width=st.integers(1, 6),
    depth=st.integers(1, 4),
    length=st.integers(1, 6),
    m=st.integers(1, 6),
    placement=st.sampled_from(list(PLACEMENTS)),
    norms=st.booleans(),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore:bottleneck_dim")
def test_round_trip_for_any_sizes(norm, heads, head_width, depth, length, m, placement, norms, data):
    layers = data.draw(st.none() | st.lists(st.integers(0, depth - 1), min_size=1, unique=True))
    model = SmallTransformer(
        SmallTransformerConfig(
            vocab_size=9,
            hidden_size=heads * head_width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=5,
            max_position_embeddings=8,
            norm=norm,
        )
    ).eval()
    randomise(model)
    ids = torch.randint(9, (2, length))
    before, bytes_before = model(ids), snapshot(model)
    adapters = insert_adapters(model, AdapterConfig(m, placement=placement, train_layer_norms=norms, layers=layers))
    assert len(adapters) == per_block(placement) * (depth if layers is None else len(layers))
    assert torch.equal(model(ids), before)
    remove_adapters(model)
    assert torch.equal(model(ids), before)
    assert snapshot(model) == bytes_before


@every_pair("name, placement", name=["small_post", "gpt2_head"], placement=PLACEMENTS)
def test_only_the_chosen_layers_get_adapters(name, placement):
    model = make(name)
    adapters = insert_adapters(model, AdapterConfig(4, placement=placement, layers=(2, 0), train_layer_norms=True))
    held = [[m for m in block.modules() if isinstance(m, Adapter)] for block in blocks_of(model)]
    assert [len(h) for h in held] == [per_block(placement), 0, per_block(placement)]
    assert adapters == held[0] + held[2]  # from the bottom up
    assert not slots(blocks_of(model)[1])


# --- What each placement computes: FACTS.md, section 1 --------------------------------------------------------------

# For one block: attention sub-layer, its LayerNorm, FFN sub-layer, its LayerNorm, and how the block is called.
BLOCKS = {
    "small_post": ("post", lambda b, x: b.attention(x, None), "attention_norm", lambda b, x: b.ffn(x), "ffn_norm"),
    "small_pre": ("pre", lambda b, x: b.attention(x, None), "attention_norm", lambda b, x: b.ffn(x), "ffn_norm"),
    "bert": (
        "post",
        lambda b, x: b.attention.output.dense(b.attention.self(x)[0]),
        "attention.output.LayerNorm",
        lambda b, x: b.output.dense(b.intermediate(x)),
        "output.LayerNorm",
    ),
    "distilbert": (
        "post",
        lambda b, x: b.attention(x)[0],
        "sa_layer_norm",
        lambda b, x: b.ffn(x),
        "output_layer_norm",
    ),
    "gpt2": ("pre", lambda b, x: b.attn(x)[0], "ln_1", lambda b, x: b.mlp(x), "ln_2"),
    "llama": (
        "pre",
        lambda b, x: b.self_attn(x, position_embeddings=no_rotation(x), attention_mask=None)[0],
        "input_layernorm",
        lambda b, x: b.mlp(x),
        "post_attention_layernorm",
    ),
    "vit": ("pre", lambda b, x: b.attention(x)[0], "layernorm_before", lambda b, x: b.mlp(x), "layernorm_after"),
}


def no_rotation(x):
    """Rotary position embeddings that do nothing, so that a block of Llama can be called by itself."""
    return torch.ones(1, x.shape[1], 8, dtype=x.dtype), torch.zeros(1, x.shape[1], 8, dtype=x.dtype)


def update(adapter, h):
    w1, b1, w2, b2 = adapter.parameters()
    return adapter.scaling * (F.gelu(h @ w1.T + b1) @ w2.T + b2)


def by_formula(name, placement, block, x, adapters):
    order, attention, norm1, ffn, norm2 = BLOCKS[name]
    norm1, norm2 = block.get_submodule(norm1), block.get_submodule(norm2)
    first, last = adapters[0], adapters[-1]
    r = x
    h = attention(block, x if order == "post" else norm1(x))
    if placement == "houlsby":
        h = h + update(first, h)
    x = norm1(h + r) if order == "post" else h + r
    r = x
    h = ffn(block, x if order == "post" else norm2(x))
    if placement == "houlsby":
        h = h + update(last, h)
        return norm2(h + r) if order == "post" else h + r
    if placement == "parallel":
        h = h + update(last, r)
        return norm2(h + r) if order == "post" else h + r
    x = norm2(h + r) if order == "post" else h + r
    return norm2(update(last, x) + h + r) if order == "post" else update(last, x) + h + r


@every_pair("name, placement, norms", name=BLOCKS, placement=PLACEMENTS, norms=[False, True])
@torch.no_grad()
def test_placement_equals_its_formula(name, placement, norms):
    model = make(name).double()
    plain = copy.deepcopy(blocks_of(model)[1])
    config = AdapterConfig(4, placement=placement, scaling=1.7, train_layer_norms=norms, layers=(1,), **RANDOM)
    adapters = insert_adapters(model, config)
    block = blocks_of(model)[1]
    for slot in slots(block):
        randomise(slot, std=0.4)  # the adapters' biases too, and the trained LayerNorms
    if norms:
        for path in (BLOCKS[name][2], BLOCKS[name][4]):
            trained = block.get_submodule(path).trained_norms["default"]
            plain.get_submodule(path).load_state_dict(trained.state_dict())
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    extra = {"position_embeddings": no_rotation(x)} if name == "llama" else {}
    result = block.eval()(x, **extra)
    expected = by_formula(name, placement, plain.eval(), x, adapters)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)
    others = [p for p in PLACEMENTS if p != placement]
    for other in others:  # the formulas can be told apart
        assert not torch.allclose(result, by_formula(name, other, plain, x, adapters), atol=1e-3)


# --- Exact counts: FACTS.md, section 2 ------------------------------------------------------------------------------

BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


@pytest.mark.parametrize(
    ("build", "placement", "m", "count"),
    [
        (lambda: SmallTransformer(SmallTransformerConfig()), "houlsby", 24, 226_080),
        (lambda: hf.BertModel(hf.BertConfig()), "pfeiffer", 48, 894_528),
        (lambda: hf.BertModel(hf.BertConfig()), "houlsby", 48, 1_789_056),
        (lambda: hf.BertModel(hf.BertConfig()), "houlsby", 64, 2_379_264),
        (lambda: hf.BertModel(hf.BertConfig(**BERT_LARGE)), "houlsby", 8, 835_968),
        (lambda: hf.BertModel(hf.BertConfig(**BERT_LARGE)), "houlsby", 64, 6_343_680),
        (lambda: hf.BertModel(hf.BertConfig(**BERT_LARGE)), "houlsby", 256, 25_227_264),
    ],
)
def test_exact_counts_of_big_models_without_memory(build, placement, m, count):
    with torch.device("meta"):
        model = build()
    base = sum(p.numel() for p in model.parameters())
    adapters = insert_adapters(model, AdapterConfig(m, placement=placement))
    assert all(p.is_meta for p in model.parameters())
    set_trainable(model, head=False)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    assert sum(p.numel() for p in model.parameters()) == base + count
    assert len(adapters) * Adapter.count(adapters[0].down_project.in_features, m) == count


def test_the_base_of_bert_base():
    with torch.device("meta"):
        model = hf.BertModel(hf.BertConfig())
    base = sum(p.numel() for p in model.parameters())
    assert base == 109_482_240
    assert f"{100 * 894_528 / base:.3f}" == "0.817"


# --- Several adapters, copies, checkpointing ------------------------------------------------------------------------


@every_pair("first, second, name", first=PLACEMENTS, second=PLACEMENTS, name=["small_post", "gpt2", "vit"])
def test_switching_between_two_adapters(name, first, second):
    model, outputs = make(name), {None: output(make(name))}
    for adapter_name, placement in {"a": first, "b": second}.items():
        torch.manual_seed(ord(adapter_name))
        config = AdapterConfig(4, placement=placement, train_layer_norms=adapter_name == "b", **RANDOM)
        insert_adapters(model, config, adapter_name)  # the newest is active, and alone
        trained_norms = [s for s in slots(model) if adapter_name in s and not isinstance(s[adapter_name], Adapter)]
        for slot in trained_norms:
            randomise(slot[adapter_name])
        outputs[adapter_name] = output(model)
    assert sorted(adapter_names(model)) == ["a", "b"]
    for x, y in [("a", "b"), ("a", None), ("b", None)]:
        assert not torch.allclose(outputs[x], outputs[y], atol=1e-3)
    for active in ("a", None, "b", "a"):
        set_active_adapter(model, active)
        assert torch.equal(output(model), outputs[active])

    alone = make(name)  # the other one, at rest, has no say
    torch.manual_seed(ord("a"))
    insert_adapters(alone, AdapterConfig(4, placement=first, **RANDOM), "a")
    assert torch.equal(output(alone), outputs["a"])

    set_active_adapter(model, "b")
    remove_adapters(model, "a")
    assert adapter_names(model) == ["b"]
    assert torch.equal(output(model), outputs["b"])
    remove_adapters(model, "b")
    assert hooks(model) == hooks(make(name))
    assert torch.equal(output(model), outputs[None])


def test_the_settings_of_adapters_can_be_read_back():
    model = small()
    narrow, wide = AdapterConfig(2, layers=(1,)), AdapterConfig(reduction_factor=2, train_layer_norms=True)
    insert_adapters(model, narrow, "narrow")
    insert_adapters(model, wide, "wide")
    assert (adapter_config(model, "narrow"), adapter_config(model, "wide")) == (narrow, wide)
    assert adapter_config(copy.deepcopy(model), "narrow") == narrow
    remove_adapters(model, "wide")
    assert all(slot.configs.keys() == slot.keys() for slot in slots(model))
    with pytest.raises(ValueError, match="no adapters called 'wide'"):
        adapter_config(model, "wide")


def test_set_trainable_trains_the_named_adapter_only():
    model = make("bert_classifier")
    insert_adapters(model, AdapterConfig(4, train_layer_norms=True), "a")
    insert_adapters(model, AdapterConfig(4, placement="pfeiffer"), "b")
    for name, other in (("a", "b"), ("b", "a")):
        set_trainable(model, name)
        trained = {k for k, p in model.named_parameters() if p.requires_grad}
        assert trained == {k for k, _ in model.named_parameters() if f".{name}." in k or k.startswith("head.")}
        assert not any(f".{other}." in k for k in trained)
    set_trainable(model, "a", head=False)
    assert all(".a." in k for k, p in model.named_parameters() if p.requires_grad)
    freeze(model)
    assert not any(p.requires_grad for p in model.parameters())


@every_pair("name, placement", name=["small_post", "bert", "gpt2"], placement=PLACEMENTS)
def test_a_deep_copy_is_independent(name, placement):
    model = make(name)
    before = output(model)
    insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=True, **RANDOM))
    with_adapters = output(model)
    twin = copy.deepcopy(model)
    assert torch.equal(output(twin), with_adapters)
    for slot in slots(twin):
        randomise(slot, std=0.7)
    assert not torch.allclose(output(twin), with_adapters, atol=1e-3), "the copy calls the original's adapters"
    assert torch.equal(output(model), with_adapters)
    remove_adapters(twin)
    assert torch.equal(output(twin), before)
    assert hooks(twin) == hooks(make(name))
    assert torch.equal(output(model), with_adapters)
    remove_adapters(model)
    assert torch.equal(output(model), before)


class Checkpointed(nn.Module):
    """A block whose activations are computed again in the backward pass."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x, mask):
        return checkpoint(self.block, x, mask, use_reentrant=False)


@every_pair("name, placement, norms", name=["small_pre", "bert", "gpt2"], placement=PLACEMENTS, norms=[False, True])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")  # renamed in transformers 5.20
def test_gradient_checkpointing_gives_the_same_gradients(name, placement, norms):
    model = make(name)
    adapters = insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=norms, **RANDOM))
    set_trainable(model)
    loss(model).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = [p.grad.clone() for p in trained]
    assert len(expected) >= 4 * len(adapters)

    runs = []
    blocks_of(model)[-1].get_submodule(BLOCKS[name][4]).register_forward_pre_hook(lambda *_: runs.append(1))
    if isinstance(model, SmallTransformer):
        model.blocks = nn.ModuleList(Checkpointed(block) for block in model.blocks)
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # transformers checkpoints in training only
    model.zero_grad()
    loss(model).backward()
    assert len(runs) == 2, "nothing was computed again: nothing is tested"
    for parameter, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    copy.deepcopy(model)  # nothing of the graph was left behind in a slot


# --- Heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", []),
        ("small_classifier", ["head.weight", "head.bias"]),
        ("bert_classifier", ["head.weight", "head.bias"]),
        ("bert_head", ["classifier.weight", "classifier.bias"]),
        ("vit_head", ["classifier.weight", "classifier.bias"]),
        ("gpt2_head", []),  # its lm_head is tied to the embeddings, which are the base's
        ("llama_head", ["lm_head.weight"]),
    ],
)
def test_what_counts_as_the_head(name, expected):
    model = make(name)
    insert_adapters(model, AdapterConfig(4))
    paths = {id(p): path for path, p in model.named_parameters()}
    assert [paths[id(p)] for p in head_parameters(model)] == expected
    set_trainable(model, head=True)
    trained = [path for path, p in model.named_parameters() if p.requires_grad and "adapters" not in path]
    assert trained == expected


def test_a_tied_llama_has_no_head():
    config = make("llama_head").config
    config.tie_word_embeddings = True
    model = hf.LlamaForCausalLM(config)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert head_parameters(model) == []


# --- Errors, each of which leaves the model alone --------------------------------------------------------------------


def refused(model, message, config=AdapterConfig(4), name="default", **more):  # noqa: B008
    before, had_hooks = snapshot(model), hooks(model)
    active = [slot.active for slot in slots(model)]
    result = output(model)
    with pytest.raises(ValueError, match=message):
        insert_adapters(model, config, name, **more)
    assert snapshot(model) == before
    assert hooks(model) == had_hooks
    assert [slot.active for slot in slots(model)] == active
    assert torch.equal(output(model), result)


def test_refuses_the_same_name_twice():
    model = make("bert")
    insert_adapters(model, AdapterConfig(4, **RANDOM), "films")
    for placement in PLACEMENTS:
        refused(
            model,
            r"called 'films' already.*remove_adapters\(model, 'films'\)",
            AdapterConfig(4, placement=placement),
            "films",
        )


@pytest.mark.parametrize(
    "name", ["", "a.b", "1st", "film reviews", "-a", "é", "a\n", "forward", "active", "keys", "weight.x", "training"]
)
def test_refuses_a_malformed_name(name):
    refused(make("small_post"), "cannot name an adapter", AdapterConfig(4), name)


@every_pair(
    "name, placement, norms",
    name=["residual", "host", "weight", "handles", "called", "Default", "a_b-2"],
    placement=PLACEMENTS,
    norms=[False, True],
)
def test_any_other_name_works(name, placement, norms):
    """A name is either refused in a sentence, with the model as it was, or it works."""
    model = make("small_post")
    before = output(model)
    config = AdapterConfig(4, placement=placement, train_layer_norms=norms)
    try:
        insert_adapters(model, config, name)
    except ValueError as error:
        assert "cannot name an adapter" in str(error)
        assert not slots(model)
        return
    assert adapter_names(model) == [name]
    assert torch.equal(output(model), before)
    remove_adapters(model, name)
    assert not slots(model)


def test_refuses_layers_that_the_model_lacks():
    refused(make("gpt2"), r"layers=\(0, 3\), but the model has 3 blocks: use 0 to 2", AdapterConfig(4, layers=(0, 3)))


def test_refuses_an_unknown_architecture():
    refused(Plain(), r"Plain is not in the table of architectures \(.*bert.*\).*architecture=Architecture\(")
    with torch.device("meta"):
        bloom = hf.BloomModel(hf.BloomConfig(n_layer=1, hidden_size=8, n_head=2, vocab_size=9))
    with pytest.raises(ValueError, match="the architecture 'bloom' of BloomModel is not in the table"):
        insert_adapters(bloom, AdapterConfig(4))
    assert not slots(bloom)


@pytest.mark.parametrize("action", [remove_adapters, set_active_adapter, set_trainable])
def test_refuses_an_unknown_adapter(action):
    model = make("small_post")
    with pytest.raises(
        ValueError, match=r"no adapters called 'x'; it has none: insert_adapters\(model, config, 'x'\) first"
    ):
        action(model, "x")
    insert_adapters(model, AdapterConfig(4), "a")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="no adapters called 'x'; it has 'a'"):
        action(model, "x")
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert adapter_names(model) == ["a"]


def test_removing_nothing_is_no_error():
    model = make("small_post")
    before = snapshot(model)
    remove_adapters(model)
    assert snapshot(model) == before


# --- Any module at all ----------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.mix = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.ln2, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x):
        x = x + self.mix(self.ln1(x)).mean(1, keepdim=True)
        return x + self.down(torch.tanh(self.up(self.ln2(x))))


class Plain(nn.Module):
    """A model of one's own."""

    def __init__(self):
        super().__init__()
        self.embed, self.stack = nn.Embedding(40, WIDTH), nn.Sequential(PlainBlock(), PlainBlock())

    def forward(self, input_ids, attention_mask=None):
        return self.stack(self.embed(input_ids))


PLAIN = {
    "layers": "stack",
    "attention_output": "mix",
    "ffn_output": "down",
    "ffn_input": "ln2",
    "norms": ("ln1", "ln2"),
    "norm": "pre",
}


@every_placement
@with_norms
def test_a_model_of_ones_own(placement, norms):
    torch.manual_seed(0)
    model = Plain().eval()
    before, bytes_before = output(model), snapshot(model)
    config = AdapterConfig(4, placement=placement, train_layer_norms=norms)
    adapters = insert_adapters(model, config, architecture=Architecture(**PLAIN))
    assert len(adapters) == 2 * per_block(placement)
    assert torch.equal(output(model), before)
    set_trainable(model)
    train_steps(model, 2)
    assert not torch.equal(output(model), before)
    remove_adapters(model)
    assert snapshot(model) == bytes_before
    assert torch.equal(output(model), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": "blocks"}, "Plain has no module 'blocks', it has embed, stack"),
        ({"layers": "embed"}, "layers='embed' must name a ModuleList or Sequential"),
        ({"attention_output": "attn"}, "PlainBlock has no module 'attn', it has ln1, mix, ln2, up, down"),
        ({"ffn_output": "fc"}, "PlainBlock has no module 'fc'"),
        ({"ffn_input": "fc"}, "PlainBlock has no module 'fc'"),
        ({"norms": ("ln1", "ln3")}, "PlainBlock has no module 'ln3'"),
        ({"ffn_output": "up"}, r"one width, but ffn_output='up' says 32, attention_output='mix' says 16, norms"),
        ({"model_dim": 8}, "one width, but model_dim says 8, ffn_output='down' says 16"),
    ],
)
def test_a_wrong_name_in_an_architecture_says_what_there_is(wrong, message):
    config = AdapterConfig(4, train_layer_norms=True)
    refused(Plain(), message, config, architecture=Architecture(**(PLAIN | wrong)))


def test_an_architecture_is_post_or_pre():
    with pytest.raises(ValueError, match="norm must be one of 'post', 'pre', not 'middle'"):
        Architecture(**(PLAIN | {"norm": "middle"}))


# --- Manners --------------------------------------------------------------------------------------------------------


@every_placement
def test_adapters_take_the_model_s_precision(placement):
    model = make("bert").to(torch.bfloat16)
    before = output(model)
    adapters = insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=True))
    assert {p.dtype for slot in slots(model) for p in slot.parameters()} == {torch.bfloat16}
    assert adapters
    assert torch.equal(output(model), before)


@every_placement
@pytest.mark.parametrize("training", [False, True])
def test_adapters_take_the_model_s_mode(placement, training):
    """A model in evaluation mode stays in it: the dropout of a new adapter is off."""
    model = make("bert").train(training)
    insert_adapters(model, AdapterConfig(4, placement=placement, dropout=0.5, train_layer_norms=True, **RANDOM))
    assert {m.training for m in model.modules()} == {training}
    if not training:
        with torch.no_grad():
            assert torch.equal(forward(model), forward(model))


def test_base_model_of():
    for name in BASES:
        model = make(name)
        assert base_model_of(model) is model
    assert type(base_model_of(make("bert_classifier"))) is hf.BertModel
    assert type(base_model_of(make("gpt2_head"))) is hf.GPT2Model
    assert type(base_model_of(make("small_classifier"))) is SmallTransformer


def test_generation_with_a_cache_equals_generation_without():
    model = make("gpt2_head")
    insert_adapters(model, AdapterConfig(4, placement="pfeiffer", **RANDOM))
    ids = inputs(model)["input_ids"][:1]
    runs = [model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=c, pad_token_id=0) for c in (True, False)]
    assert torch.equal(*runs)


def test_a_second_model_is_not_touched():
    first, second = small(), small()
    insert_adapters(first, AdapterConfig(4))
    assert not slots(second)
