"""What the microscope measures and switches off, held against computations by hand; and that it leaves no trace."""

import copy
import json

import pytest
import torch
from models import small
from torch import nn

from adapters_lesson import (
    Adapter,
    AdapterConfig,
    Classifier,
    History,
    SmallTransformer,
    encode,
    insert_adapters,
    load_tokenizer,
    prepare,
    set_active_adapter,
    train,
)
from adapters_lesson.bank import AdapterBank
from adapters_lesson.composition import fuse_adapters
from adapters_lesson.course.microscope import Microscope
from adapters_lesson.course.microscope.lens import Lens
from adapters_lesson.course.microscope.sketch import sketch_of
from adapters_lesson.data import make_dataset
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import slots_of

IDS = torch.tensor([[1, 5, 9, 14, 2]])
MASK = torch.ones_like(IDS)
SENTENCE = "sofa: We found the breakfast wonderful, whereas the sofa was horrible."
CASES = [(placement, norm) for placement in PLACEMENTS for norm in ("post", "pre")]


def adapted(placement="houlsby", norm="post", seed=0, **config):
    """A tiny classifier whose adapters push noticeably."""
    torch.manual_seed(seed)
    model = Classifier(small(norm), ("bad", "good")).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    prepare(model, "adapter", AdapterConfig(4, placement=placement, init="bert", init_std=0.8, **config))
    return model


class Mine(nn.Module):
    """A learner's adapter."""

    def __init__(self, d, m):
        super().__init__()
        self.down, self.up = nn.Linear(d, m), nn.Linear(m, d)

    def forward(self, h):
        return h + self.up(torch.tanh(self.down(h)))


def with_mine(how="hook"):
    """A model into which a learner has put adapters."""
    torch.manual_seed(0)
    model = Classifier(small(), 2).eval()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    for block in model.base_model.blocks:
        if how == "hook":
            for projection in (block.attention.output, block.ffn.contract):
                projection.adapter = Mine(16, 3)
                projection.register_forward_hook(lambda module, inputs, output: module.adapter(output))
        else:
            block.attention.output = nn.Sequential(block.attention.output, Mine(16, 3))
            block.ffn.contract = nn.Sequential(block.ffn.contract, Mine(16, 3))
    return model


def sums_by_hand(model):
    """The residual sums of the first block of a post-LN model without the update, and the updates, after Houlsby."""
    base, block = model.base_model, model.base_model.blocks[0]
    after, ffn = (slots_of(host)[0].current for host in (block.attention, block.ffn))
    r = base.embed(IDS)
    h = block.attention.output.forward(mixed(block.attention, r))
    first, u = h + r, after.update(h)
    x = block.attention_norm(first + u)
    h = block.ffn.contract.forward(nn.functional.gelu(block.ffn.expand(x)))
    return [(first, u), (h + x, ffn.update(h))]


def mixed(attention, x):
    q, k, v = (attention._split(project(x)) for project in (attention.query, attention.key, attention.value))
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def state(model):
    """All that a look must not change."""
    return (
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for m in model.modules()],
        torch.get_rng_state(),
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@torch.no_grad()
def test_pushes_and_turns_are_those_computed_by_hand():
    model = adapted()
    seen = Lens(model).look(IDS, MASK)
    for i, (stream, update) in enumerate(sums_by_hand(model)):
        assert torch.allclose(seen.push[0, i], (update.norm(dim=-1) / stream.norm(dim=-1))[0], rtol=1e-4)
        angle = torch.cosine_similarity(stream, stream + update, dim=-1).arccos().rad2deg()
        assert torch.allclose(seen.turn[0, i], angle[0], atol=0.05)
        assert torch.allclose(seen.norms["stream"][0, i], stream.norm(dim=-1)[0], rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("placement", "norm"), CASES)
def test_the_norms_are_those_of_the_adapters_own_parts(placement, norm):
    model = adapted(placement, norm)
    lens = Lens(model)
    inputs = {}
    handles = [
        spot.module.down_project.register_forward_pre_hook(lambda m, args, i=i: inputs.update({i: args[0]}))
        for i, spot in enumerate(lens.spots)
    ]
    seen = lens.look(IDS, MASK)
    for handle in handles:
        handle.remove()
    assert len(lens.spots) == 3 * len(PLACEMENTS[placement].sites[norm])
    for i, spot in enumerate(lens.spots):
        down = spot.module.down_project(inputs[i])
        act = spot.module.activation(down)
        parts = {"h": inputs[i], "down": down, "act": act, "update": spot.module.update(inputs[i])}
        for name, value in parts.items():
            assert torch.allclose(seen.norms[name][0, i], value.norm(dim=-1)[0], rtol=1e-4, atol=1e-6), name
        assert torch.allclose(seen.units[i], act, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("placement", "norm"), CASES)
def test_a_push_that_is_off_is_an_update_of_zero_at_that_token(placement, norm):
    model = adapted(placement, norm)
    lens = Lens(model)
    assert torch.allclose(lens.look(IDS, MASK).probabilities, model(IDS, MASK).softmax(-1), atol=1e-6)
    keep = torch.ones(3, len(lens.spots), 5, dtype=torch.bool)
    keep[0, 1, 2] = keep[1, 0] = keep[2, :, 4] = False
    together = lens.look(IDS, MASK, keep)
    for variant in range(3):
        changed = copy.deepcopy(model)
        for i, spot in enumerate(Lens(changed).spots):
            zero = ~keep[variant, i]
            update = spot.module.update
            spot.module.update = lambda h, update=update, zero=zero: update(h).masked_fill(zero[None, :, None], 0.0)
        expected = changed(IDS, MASK).softmax(-1)[0]
        assert torch.allclose(together.probabilities[variant], expected, atol=1e-6)
        alone = lens.look(IDS, MASK, keep[[variant]])
        assert torch.allclose(alone.probabilities[0], together.probabilities[variant], atol=1e-6)
    assert len({tuple(p) for p in together.probabilities.tolist()}) == 3  # they do something, each another thing
    nothing = lens.look(IDS, MASK, torch.zeros(1, len(lens.spots), 5, dtype=torch.bool))
    set_active_adapter(model, None)
    assert torch.allclose(nothing.probabilities, model(IDS, MASK).softmax(-1), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("how", ["hook", "sequential"])
def test_a_learners_own_adapters_are_found_and_switched(how):
    model = with_mine(how)
    lens = Lens(model)
    assert [(spot.block, spot.site) for spot in lens.spots] == [(b, s) for b in range(3) for s in ("attention", "FFN")]
    assert all(isinstance(spot.module, Mine) for spot in lens.spots)
    seen = lens.look(IDS, MASK)
    assert torch.allclose(seen.probabilities, model(IDS, MASK).softmax(-1), atol=1e-6)
    block, r = model.base_model.blocks[0], model.base_model.embed(IDS)
    projection = block.attention.output if how == "hook" else block.attention.output[0]
    h = projection.forward(mixed(block.attention, r))
    update = lens.spots[0].module(h) - h
    assert torch.allclose(seen.push[0, 0], (update.norm(dim=-1) / (h + r).norm(dim=-1))[0], rtol=1e-3)
    off = lens.look(IDS, MASK, torch.zeros(1, 6, 5, dtype=torch.bool))
    for spot in lens.spots:
        nn.init.zeros_(spot.module.up.weight), nn.init.zeros_(spot.module.up.bias)
    assert torch.allclose(off.probabilities, model(IDS, MASK).softmax(-1), atol=1e-6)
    assert seen.units[0].shape == (1, 5, 3)


@pytest.mark.parametrize("make", [adapted, with_mine])
def test_a_look_leaves_no_trace(make):
    model = make()
    model.base_model.blocks[1].train()
    model(IDS, MASK).sum().backward()
    before, weights = state(model), copy.deepcopy(model.state_dict())
    lens = Lens(model)
    keep = torch.zeros(2, len(lens.spots), 5, dtype=torch.bool)
    for _ in range(2):
        lens.look(IDS, MASK, keep)
    with pytest.raises(IndexError):
        lens.look(IDS + 1000, MASK)  # it fails in the middle
    assert same(before, state(model))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_an_update_of_ones_own_on_an_adapter_is_kept():
    model = adapted()
    adapter = Lens(model).spots[0].module
    adapter.update = own = lambda h: 0 * h
    seen = Lens(model).look(IDS, MASK)
    assert adapter.update is own
    assert seen.push[0, 0].max() == 0
    assert seen.turn[0, 0].max() == 0


@torch.no_grad()
def test_a_bank_shows_each_task_and_still_answers_a_mixed_batch():
    torch.manual_seed(0)
    bank = AdapterBank(small()).eval()
    for task, placement in (("a", "houlsby"), ("b", "parallel")):
        bank.add(task, AdapterConfig(3, placement=placement, init="bert", init_std=0.8), ["no", "yes", "perhaps"])
    rows, names = torch.cat([IDS, IDS.flip(1), IDS]), ["a", "b", None]
    before = bank(rows, torch.ones_like(rows), names)
    for task, places in (("a", 6), ("b", 3)):
        lens = Lens(bank, task)
        seen = lens.look(IDS, MASK)
        (alone,) = bank(IDS, MASK, [task])
        assert seen.push.shape == (1, places, 5)
        assert torch.allclose(seen.probabilities[0], alone.softmax(-1), atol=1e-6)
        off = lens.look(IDS, MASK, torch.zeros(2, places, 5, dtype=torch.bool)).probabilities
        assert torch.allclose(off[1], bank.logits(task, bank.features(IDS, MASK, [None]))[0].softmax(-1), atol=1e-6)
        assert all(map(torch.equal, bank(rows, torch.ones_like(rows), names), before))
    assert bank.active == "b"


@torch.no_grad()
def test_with_a_base_the_streams_are_compared_at_the_same_places():
    torch.manual_seed(0)
    base = Classifier(small(), 2).eval()
    trained = copy.deepcopy(base)
    trained.base_model.blocks[1].ffn.contract.bias += 1.0
    seen = Lens(trained, base=base).look(IDS, MASK)
    assert seen.push.shape == (1, 6, 5)
    assert seen.push[0, :3].max() == 0  # below nothing differs
    assert torch.allclose(seen.norms["update"][0, 3], torch.full((5,), 4.0))  # 16 ones
    assert seen.push[0, 4:].min() > 0  # what is above inherits it
    with pytest.raises(ValueError, match="with a base True"):
        Lens(trained, base=base).look(IDS, MASK, torch.zeros(1, 6, 5, dtype=torch.bool))


def test_a_fusion_is_shown_without_a_bottleneck():
    model = Classifier(small(), 2).eval()
    for name in ("one", "two"):
        insert_adapters(model, AdapterConfig(3, init="bert", init_std=0.5), name)
    fuse_adapters(model, ["one", "two"], "both")
    seen = Lens(model).look(IDS, MASK)
    assert seen.push.min() > 0
    assert seen.units[0] is None
    assert seen.norms["act"].isnan().all()


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="no adapters work in this model"):
        Lens(Classifier(small(), 2).requires_grad_(False))
    model = adapted()
    with pytest.raises(ValueError, match=r"keep must be \(B, 6, 5\)"):
        Lens(model).look(IDS, MASK, torch.ones(1, 5, 5, dtype=torch.bool))


# --- The widget -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture
def minilm():
    torch.manual_seed(0)
    model = Classifier(SmallTransformer.from_minilm(2), ("negative", "positive")).eval()
    prepare(model, "adapter", AdapterConfig(4, init="houlsby", init_std=0.2))
    return model


def test_the_widget_answers_clicks_and_typing(minilm, tokenizer):
    microscope = Microscope(minilm, tokenizer, SENTENCE)
    start = microscope.now
    assert start["tokens"][:3] == ["[CLS]", "sofa", ":"]
    assert start["before"] == start["after"]
    microscope.off = [[3, 1], [3, 99]]  # the second is of a longer sentence
    assert microscope.now["before"] == start["before"]
    assert microscope.now["off"] == [(3, 1)]
    keep = torch.ones(1, 4, len(start["tokens"]), dtype=torch.bool)
    keep[0, 3, 1] = False
    seen = Lens(minilm).look(
        **{k: v for k, v in tokenizer([SENTENCE], return_tensors="pt").items() if "type" not in k}, keep=keep
    )
    assert microscope.now["after"] == pytest.approx(seen.probabilities[0].tolist(), abs=1e-3)
    microscope.off = []
    microscope.text = SENTENCE.replace("sofa:", "breakfast:")
    assert microscope.now["tokens"][1] == "breakfast"
    microscope.text = "  "
    assert "type a sentence" in microscope.error
    assert microscope.now["tokens"][1] == "breakfast"
    microscope.text = "word " * 50
    assert "at most 40 tokens: this has 52" in microscope.error
    microscope.text = SENTENCE
    assert microscope.error == ""
    assert microscope.now == start
    microscope.unit_row = 1
    assert microscope.now["unit_row"] == 1
    assert len(microscope.now["units"]) == 4


def test_another_sentence_or_model_stands_beside(minilm, tokenizer):
    other = copy.deepcopy(minilm)
    for spot in Lens(other).spots:
        nn.init.zeros_(spot.module.up_project.weight)
    microscope = Microscope(minilm, tokenizer, SENTENCE, beside={"untrained": other})
    microscope.beside = "untrained"
    assert max(map(max, microscope.side["push"])) == 0
    microscope.other = "It was bad."
    microscope.beside = "another sentence"
    assert "bad" in microscope.side["tokens"]
    assert max(map(max, microscope.side["push"])) > 0
    microscope.beside = ""
    assert microscope.side == {}


def test_the_frames_of_a_run_are_kept_and_the_run_is_what_it_was(tokenizer):
    sentences = [f"sofa: it was {word}." for word in "abcdefgh"]
    texts = encode(make_dataset(sentences, ["bad", "good"] * 4, ["bad", "good"]), tokenizer)

    def run(watched):
        torch.manual_seed(0)
        model = Classifier(SmallTransformer.from_minilm(1), 2)
        prepare(model, "adapter", AdapterConfig(2))
        microscope = Microscope(model, tokenizer, SENTENCE, every=2) if watched else None
        torch.manual_seed(1)
        on_step = microscope.record if watched else None
        settings = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "validate_every": 3}
        history = train(model, texts, texts, progress=False, on_step=on_step, **settings)
        return history.loss, model, microscope

    losses, model, microscope = run(True)
    bare, other, _ = run(False)
    assert losses == bare
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert [frame["step"] for frame in microscope.frames] == [0, 2, 3, 4, 6]  # and after each validation
    sizes = [max(map(max, frame["push"])) for frame in microscope.frames]
    assert sizes[0] == 0
    assert sizes[1] > 0
    assert microscope.now is microscope.frames[-1]
    microscope.text = ""
    assert "type a sentence" in microscope.error
    microscope.record(History({}, loss=[0.0, 0.0]))  # another run, which goes on with the sentence before
    assert [frame["step"] for frame in microscope.frames] == [2]


def test_a_long_run_keeps_its_first_and_its_last_frame(minilm, tokenizer, monkeypatch):
    monkeypatch.setattr("adapters_lesson.course.microscope.microscope._MOST_FRAMES", 8)
    microscope = Microscope(minilm, tokenizer, "bad", every=1)
    for steps in range(1, 21):
        microscope.record(History({}, loss=[0.0] * steps))
    kept = [frame["step"] for frame in microscope.frames]
    assert 4 <= len(kept) <= 8
    assert (kept[0], kept[-1]) == (0, 20)
    assert kept == sorted(set(kept))


def test_what_is_baked_is_plain_json_with_the_answers_to_clicks(minilm, tokenizer):
    microscope = Microscope(minilm, tokenizer, "sofa: it was bad.")
    baked = json.loads(json.dumps(microscope.baked(), allow_nan=False))
    rows, tokens = 4, len(microscope.now["tokens"])
    assert len(baked["answers"]) == 1 + rows + tokens + 2 * rows * tokens
    everything = [[r, t] for r in range(rows) for t in range(tokens)]
    for key, off in {
        "all": everything,
        "row 2": [place for place in everything if place[0] == 2],
        "column 3": [place for place in everything if place[1] == 3],
        "cell 1 4": [[1, 4]],
        "only 1 4": [place for place in everything if place != [1, 4]],
    }.items():
        microscope.off = off
        assert baked["answers"][key] == pytest.approx(microscope.now["after"], abs=2e-3), key
    microscope.off = []


def test_where_no_widget_works_a_picture_says_the_same(minilm, tokenizer):
    data, _ = Microscope(minilm, tokenizer, SENTENCE)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "Run this cell to move it." in data["text/html"]
    assert data["image/svg+xml"].count("<rect") == 4 * 16
    assert "The largest push is that of block" in data["text/plain"]


@pytest.mark.parametrize("method", ["full", "lora", "layer_norm", "bitfit"])
def test_methods_without_adapters_are_compared_with_their_base(tokenizer, method):
    torch.manual_seed(0)
    base = Classifier(SmallTransformer.from_minilm(2), 2).eval()
    trained = copy.deepcopy(base)
    prepare(trained, method)
    with torch.no_grad():
        for parameter in trained.base_model.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    with pytest.raises(ValueError, match="no adapters work"):
        Microscope(trained, tokenizer, SENTENCE)
    microscope = Microscope(trained, tokenizer, SENTENCE, base=base)
    assert microscope.about[""]["compared"]
    assert [row["mark"] for row in microscope.about[""]["rows"][:2]] == [1, 4]  # the sums of a post-LN block
    assert min(map(max, microscope.now["push"])) > 0


def test_of_a_bank_every_task_can_stand_beside(tokenizer):
    bank = AdapterBank(SmallTransformer.from_minilm(1)).eval()
    for task, placement in (("a", "houlsby"), ("b", "parallel")):
        bank.add(task, AdapterConfig(3, placement=placement, init="houlsby", init_std=0.2), ["no", "yes", task])
    bank.switch(None)
    bank(IDS, MASK, ["a"]), bank(IDS, MASK, ["b"])  # each slot notes that a pass came by
    before = state(bank)
    microscope = Microscope(bank, tokenizer, SENTENCE)
    assert {name: (len(one["rows"]), one["labels"][2]) for name, one in microscope.about.items()} == {
        "": (2, "a"),
        "b": (1, "b"),
    }
    assert microscope.about["b"]["rows"][0]["mark"] == -1
    microscope.beside = "b"
    assert len(microscope.side["push"]) == 1
    assert bank.active is None
    assert same(before, state(bank))


def test_the_code_and_the_place_of_each_row_are_said(minilm, tokenizer):
    row = Microscope(minilm, tokenizer, SENTENCE).about[""]["rows"][0]
    assert row["code"] == "update = self.up_project(self.activation(self.down_project(x)))"
    assert row["parts"][row["mark"]] == "adapter"
    lens = Lens(with_mine())
    assert [sketch_of(lens, spot)["parts"][sketch_of(lens, spot)["mark"]] for spot in lens.spots] == ["adapter"] * 6
    beside = Lens(adapted("parallel"))
    assert sketch_of(beside, beside.spots[0]) == sketch_of(beside, beside.spots[0]) | {
        "mark": -1,
        "part_beside": [3, "adapter"],
    }
    assert isinstance(beside.spots[0].module, Adapter)
