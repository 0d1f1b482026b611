"""What saves time and memory leaves what is learnt as it was."""

import copy

import pytest
import torch
from models import BASES, DEPTH, forward, loss, make, output, small, snapshot, toy_data
from torch import nn

from adapters_lesson import AdapterConfig, Classifier, evaluate, insert_adapters, prepare, set_trainable, train
from adapters_lesson.architectures import architecture_of, blocks_of, find
from adapters_lesson.history import load_results
from adapters_lesson.memory_tricks import LowerBlocks, cast_frozen, checkpointed
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.training import Texts, training_mode
from adapters_lesson.transformer import Block, SmallTransformer

RANDOM = {"init": "houlsby", "init_std": 0.3}
TRAIN, VALIDATION = toy_data(48, seed=0), toy_data(20, seed=1)
RUN = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "progress": False}
DECODERS = ("gpt2", "llama")


class Failure(RuntimeError):
    """Stands for whatever goes wrong inside a `with` block."""


def fresh(method="adapter", name="small_post", seed=0, **settings):
    """A classifier around ``name`` ready for ``method``."""
    torch.manual_seed(seed)
    base = make(name)
    if hasattr(base.config, "use_cache"):
        base.config.use_cache = False
    model = Classifier(base, 2)
    config = AdapterConfig(4, **({"layers": (2,)} | settings)) if method == "adapter" else None
    prepare(model, method, config)
    return model


def close(first, second, atol):
    """Whether two models hold nearly the same parameters."""
    theirs = dict(second.named_parameters())
    return all(torch.allclose(p, theirs[name], rtol=0, atol=atol) for name, p in first.named_parameters())


# --- cast_frozen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("method", ["head", "layer_norm", "adapter", "lora"])
def test_the_base_comes_back_byte_for_byte(method, fails):
    model = fresh(method)
    before, pointers = snapshot(model), {name: p.data_ptr() for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    try:
        with cast_frozen(model, torch.bfloat16):
            for name, parameter in model.named_parameters():
                assert parameter.dtype == (torch.float32 if name in trained else torch.bfloat16), name
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name not in trained:
                        parameter.zero_()  # even what is done to the copies is undone
            if fails:
                raise Failure
    except Failure:
        pass
    assert snapshot(model) == before
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == pointers


def test_the_heads_precision_is_left_alone():
    model = Classifier(make("small_post"), 2)
    prepare(model, "adapter", AdapterConfig(4), head=False)
    with cast_frozen(model, torch.bfloat16):
        assert {p.dtype for p in model.head.parameters()} == {torch.float32}
        assert output_of(model).dtype == torch.float32


def output_of(model):
    with torch.no_grad():
        return model(torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.long))


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", "gpt2", "llama"])
def test_adapters_around_a_base_in_half_precision(name, placement, norms):
    model = fresh(name=name, placement=placement, layers=None, train_layer_norms=norms, **RANDOM)
    exact = output_of(model)
    with cast_frozen(model, torch.bfloat16):
        result = output_of(model)
        logits = model(torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.long))
        logits.square().sum().backward()
    assert result.dtype == torch.float32
    assert not torch.equal(result, exact), "nothing was computed in another precision"
    torch.testing.assert_close(result, exact, rtol=0, atol=0.1)
    for path, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.dtype == torch.float32, path
            assert parameter.grad.abs().sum() > 0, path
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("method", ["lora", "layer_norm", "head"])
def test_other_methods_around_a_base_in_half_precision(method):
    model = fresh(method)
    exact = output_of(model)
    with cast_frozen(model, torch.bfloat16):
        torch.testing.assert_close(output_of(model), exact, rtol=0, atol=0.1)
        assert not torch.equal(output_of(model), exact)


def test_casting_to_double_is_exact():
    model = fresh(layers=None, **RANDOM)
    exact = output_of(model)
    with cast_frozen(model, torch.float64):
        torch.testing.assert_close(output_of(model), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "dtype", "message"),
    [
        ("adapter", torch.int8, r"dtype must be a floating-point type such as torch.bfloat16, not torch.int8"),
        ("bitfit", torch.bfloat16, r"\S+ is frozen by half, as with BitFit: its parts cannot differ in type"),
        ("full", torch.bfloat16, r'nothing in the base model is frozen: prepare\(model, "adapter"\) first'),
    ],
)
def test_refuses_to_cast_what_cannot_be_cast(method, dtype, message):
    model = fresh(method)
    before = snapshot(model)
    with pytest.raises(ValueError, match=message), cast_frozen(model, dtype):
        raise AssertionError("it was not refused")
    assert snapshot(model) == before
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("settings", [{}, {"placement": "pfeiffer", "train_layer_norms": True}, {"method": "lora"}])
def test_training_on_a_base_in_half_precision_learns_nearly_the_same(settings):
    run = RUN | {"epochs": 6, "learning_rate": 1e-2}
    models = [fresh(**({"layers": None} | settings)) for _ in range(2)]
    base = snapshot(models[0])
    types = (None, torch.bfloat16)
    histories = [train(m, TRAIN, VALIDATION, base_dtype=t, **run) for m, t in zip(models, types, strict=True)]
    exact, half = (torch.tensor(h.loss) for h in histories)
    assert not torch.equal(exact, half)
    assert (exact - half).abs().max() < 0.05
    assert exact[-6:].mean() < exact[:6].mean() - 0.05, "nothing was learnt, so nothing is compared"
    trained = {name for name, p in models[1].named_parameters() if p.requires_grad}
    assert {name for name, b in snapshot(models[1]).items() if b != base[name]} == trained
    assert {p.dtype for p in models[1].parameters()} == {torch.float32}
    # The validation was computed in half precision as well; with the base as it was the result is close to it.
    assert evaluate(models[1], VALIDATION)["loss"] == pytest.approx(histories[1].validation[-1]["loss"], abs=0.05)


# --- LowerBlocks ------------------------------------------------------------------------------------------------------


def calls(model):
    """How often each block is computed, counted by the projection that ends its FFN."""
    counts = [0] * DEPTH
    hooks = []
    for i, block in enumerate(blocks_of(model)):
        module = find(block, architecture_of(model).ffn_output)

        def count(*_, i=i):
            counts[i] += 1

        hooks.append(module.register_forward_hook(count))
    return counts, hooks


@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert", *DECODERS])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_run_on_kept_hidden_states_equals_one_without(name, placement):
    results = []
    for cache in (False, True):
        model = fresh(name=name, placement=placement)
        before = snapshot(model)
        counts, hooks = calls(model)
        history = train(model, TRAIN, cache_frozen=cache, **RUN)
        for hook in hooks:
            hook.remove()
        assert counts == ([1, 1, 1 + 12] if cache else [12, 12, 12]), "48 texts at once, then 12 steps"
        changed = {path for path, b in snapshot(model).items() if b != before[path]}
        assert changed == {path for path, p in model.named_parameters() if p.requires_grad}
        assert not any("forward" in vars(block) for block in blocks_of(model))
        results.append((model, history))
    (plain, exact), (kept, cached) = results
    assert cached.loss == pytest.approx(exact.loss, abs=1e-5)
    # Adam divides by the gradient's size: where that is nearly zero, rounding errors grow.
    assert close(plain, kept, atol=1e-4)


@pytest.mark.parametrize("name", ["small_post", "bert"])
def test_head_only_training_skips_all_blocks(name):
    results = []
    for cache in (False, True):
        model = fresh("head", name=name)
        counts, hooks = calls(model)
        history = train(model, TRAIN, VALIDATION, cache_frozen=cache, **RUN)
        # one row before the training, to see whether the data fit, and the validation after each epoch
        assert counts == ([1 + 1 + 2] * 3 if cache else [1 + 12 + 2] * 3)
        for hook in hooks:
            hook.remove()
        results.append(history)
    assert results[1].loss == pytest.approx(results[0].loss, abs=1e-5)
    assert results[1].validation[-1]["loss"] == pytest.approx(results[0].validation[-1]["loss"], abs=1e-5)


def test_equal_lengths_need_no_padding_and_give_the_same_bits():
    data = toy_data(16)
    data["input_ids"] = [(ids * 12)[:12] for ids in data["input_ids"]]
    runs = [(fresh(**RANDOM), cache) for cache in (False, True)]
    losses = [train(model, data, cache_frozen=cache, **(RUN | {"batch_size": 16})).loss for model, cache in runs]
    assert losses[0] == losses[1]
    assert snapshot(runs[0][0]) == snapshot(runs[1][0])


@pytest.mark.parametrize("name", ["small_post", "bert", *DECODERS])
def test_the_kept_states_are_those_of_the_lower_blocks(name):
    model = fresh(name=name, layers=(1, 2), **RANDOM)
    texts = Texts(TRAIN)
    lower = LowerBlocks(model, texts, batch_size=5)
    assert [block is blocks_of(model)[0] for block in lower.blocks] == [True]
    assert [tuple(state.shape) for state in lower.states] == [(length, 16) for length in texts.lengths]
    rows = [7, 3, 20]
    ids, mask, _ = texts.batch(rows)
    expected = model(ids, mask)
    with lower.skipped(rows):
        torch.testing.assert_close(model(ids, mask), expected, rtol=0, atol=1e-5)
    with lower.skipped(rows[::-1]):  # it really reads them from memory
        assert not torch.allclose(model(ids, mask), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(model(ids, mask), expected, rtol=0, atol=0)


class TupleBlock(Block):
    """A block that returns a tuple, as those of some decoders do."""

    def forward(self, x, mask=None):
        return (super().forward(x, mask), "a cache")


class TupleTransformer(SmallTransformer):
    """A SmallTransformer of such blocks."""

    def __init__(self, config):
        super().__init__(config)
        self.blocks = nn.ModuleList(TupleBlock(config) for _ in self.blocks)

    def forward(self, input_ids, attention_mask=None):
        x, mask = self.embed(input_ids), attention_mask[:, None, None, :].bool()
        for block in self.blocks:
            x = block(x, mask)[0]
        return self.final_norm(x)


def test_blocks_may_return_tuples():
    torch.manual_seed(0)
    model = Classifier(TupleTransformer(small().config), 2)
    prepare(model, "adapter", AdapterConfig(4, layers=(2,), **RANDOM))
    texts, rows = Texts(TRAIN), [4, 9]
    model.eval()
    expected = model(*texts.batch(rows)[:2])
    lower = LowerBlocks(model, texts)
    with lower.skipped(rows):
        torch.testing.assert_close(model(*texts.batch(rows)[:2]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", ["making", "using"])
def test_an_exception_leaves_blocks_and_modes_as_they_were(step):
    model, texts = fresh(layers=(2,)), Texts(TRAIN)
    model.train()
    blocks_of(model)[1].eval()
    modes, before = [m.training for m in model.modules()], output_of(model.eval())
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode

    def fail(*_):
        raise Failure

    if step == "making":
        handle = blocks_of(model)[2].register_forward_hook(fail)
        with pytest.raises(Failure):
            LowerBlocks(model, texts)
        handle.remove()
    else:
        lower = LowerBlocks(model, texts)
        with pytest.raises(Failure), lower.skipped([0, 1]):
            raise Failure
    assert [m.training for m in model.modules()] == modes
    assert not any("forward" in vars(block) for block in blocks_of(model))
    assert sum(len(m._forward_hooks) for m in blocks_of(model)) == 0
    assert torch.equal(output_of(model.eval()), before)


def with_trained_positions(model):
    model.base_model.position_embeddings.requires_grad_(True)
    return model


def test_dropout_below_is_off_when_the_states_are_computed():
    model, texts = fresh(layers=(2,)), Texts(TRAIN)
    expected = LowerBlocks(model.eval(), texts).states
    model.train()
    assert all(torch.equal(a, b) for a, b in zip(expected, LowerBlocks(model, texts).states, strict=True))


@pytest.mark.parametrize(
    ("prepare_for", "what"),
    [
        (lambda: fresh("adapter", layers=None), "block 0"),
        (lambda: fresh("adapter", layers=(0,)), "block 0"),
        (lambda: fresh("lora"), "block 0"),
        (lambda: fresh("full"), "word_embeddings.weight"),
        (lambda: fresh("layer_norm"), "embedding_norm.weight"),
        (lambda: with_trained_positions(fresh("head")), "position_embeddings.weight"),
    ],
)
def test_refuses_when_nothing_can_be_kept(prepare_for, what):
    model = prepare_for()
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"{what} is trained, so nothing below it can be kept: .*layers="):
        train(model, TRAIN, cache_frozen=True, **RUN)
    assert snapshot(model) == before


def test_both_options_together():
    losses = []
    for cache in (False, True):
        model = fresh(**RANDOM)
        before = snapshot(model)
        losses.append(train(model, TRAIN, VALIDATION, base_dtype=torch.bfloat16, cache_frozen=cache, **RUN).loss)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name for name, b in snapshot(model).items() if b != before[name]} == trained
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


# --- The options in the training loop ---------------------------------------------------------------------------------

OPTIONS = [{"base_dtype": torch.bfloat16}, {"cache_frozen": True}, {"base_dtype": torch.bfloat16, "cache_frozen": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_resumes_bit_for_bit_with_the_options(tmp_path, options):
    run = RUN | options
    expected = fresh()
    history = train(expected, TRAIN, VALIDATION, **run)
    run["checkpoint_every"] = 2

    def killed(history):
        if history.steps == 5:
            raise Failure

    file, killed_model = tmp_path / "run.pt", fresh()
    before = snapshot(killed_model)
    with pytest.raises(Failure):
        train(killed_model, TRAIN, VALIDATION, checkpoint=file, on_step=killed, **run)
    trained = {name for name, p in killed_model.named_parameters() if p.requires_grad}
    assert {name for name, b in snapshot(killed_model).items() if b != before[name]} == trained
    assert {p.dtype for p in killed_model.parameters()} == {torch.float32}
    model, steps = fresh(), []
    resumed = train(model, TRAIN, VALIDATION, checkpoint=file, on_step=lambda h: steps.append(h.steps), **run)
    assert steps[0] == 5
    assert snapshot(model) == snapshot(expected)
    assert (resumed.loss, resumed.validation) == (history.loss, history.validation)


@pytest.mark.parametrize("changes", [{"base_dtype": None}, {"base_dtype": torch.float16}, {"cache_frozen": True}])
def test_refuses_to_go_on_with_other_options(tmp_path, changes):
    run = RUN | {"base_dtype": torch.bfloat16, "checkpoint": tmp_path / "run.pt"}
    train(fresh(), TRAIN, **run)
    with pytest.raises(ValueError, match=f"the checkpoint of a run with other {next(iter(changes))}"):
        train(fresh(), TRAIN, **(run | changes))


def test_the_history_names_the_options(tmp_path):
    history = train(fresh(), TRAIN, base_dtype=torch.bfloat16, cache_frozen=True, **RUN)
    assert history.settings["base_dtype"] == "torch.bfloat16"
    assert history.settings["cache_frozen"] is True
    history.save(tmp_path / "history.json")  # a torch.dtype could not be written
    plain = train(fresh(), TRAIN, **RUN).settings
    assert (plain["base_dtype"], plain["cache_frozen"]) == (None, False)


@pytest.mark.parametrize("options", OPTIONS[:1])
def test_the_best_weights_are_restored_into_the_base_as_it_was(options):
    model = fresh()
    before = snapshot(model)
    train(model, TRAIN, VALIDATION, patience=1, **(RUN | options | {"epochs": 8, "learning_rate": 0.05}))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, b in snapshot(model).items() if b != before[name]} == trained


# --- checkpointed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", [*PLACEMENTS, None])
@pytest.mark.parametrize("name", [name for name in BASES if name != "vit"])
def test_checkpointing_gives_the_same_gradients(name, placement):
    plain = make(name)
    if placement:
        insert_adapters(plain, AdapterConfig(4, placement=placement, train_layer_norms=True, **RANDOM))
        set_trainable(plain)
    if hasattr(plain.config, "use_cache"):
        plain.config.use_cache = False
    model = copy.deepcopy(plain)
    loss(plain).backward()
    with checkpointed(model):
        loss(model).backward()
    theirs = dict(model.named_parameters())
    assert any(p.grad is not None for p in plain.parameters())
    for path, parameter in plain.named_parameters():
        if parameter.grad is None:
            assert theirs[path].grad is None
        else:
            torch.testing.assert_close(theirs[path].grad, parameter.grad, rtol=0, atol=1e-6)


def test_checkpointing_computes_each_block_twice():
    model = make("small_post")
    counts, _ = calls(model)
    with checkpointed(model):
        loss(model).backward()
    assert counts == [2] * DEPTH
    loss(model).backward()
    assert counts == [3] * DEPTH


def test_checkpointing_repeats_the_same_dropout():
    model = small(dropout=0.5).train()
    gradients = []
    for context in (checkpointed(model), None):
        model.zero_grad()
        torch.manual_seed(0)
        if context is None:
            loss(model).backward()
        else:
            with context:
                loss(model).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_checkpointing_ends_with_its_block(fails):
    model = make("bert")
    before, expected = snapshot(model), output(model)
    try:
        with checkpointed(model):
            assert all("forward" in vars(block) for block in blocks_of(model))
            torch.testing.assert_close(forward(model).detach(), expected, rtol=0, atol=0)
            if fails:
                raise Failure
    except Failure:
        pass
    assert not any("forward" in vars(block) for block in blocks_of(model))
    assert snapshot(model) == before
    assert torch.equal(output(model), expected)


def test_the_base_in_half_precision_and_checkpointing_together():
    model = fresh(layers=None, **RANDOM)
    training_mode(model)
    ids, mask = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.long)
    with cast_frozen(model, torch.bfloat16):
        model(ids, mask).square().sum().backward()
        expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        model.zero_grad()
        with checkpointed(model):
            model(ids, mask).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, expected[name]), name


def test_the_savings_do_not_change_what_is_learnt():
    """Lesson 05's claim, held against the committed runs of data/run_savings.py."""
    rows = load_results("savings")["rows"]
    usual, dropout, half, upper, cached = (sorted(runs, key=lambda run: run["seed"]) for runs in rows.values())
    for runs in (usual, dropout, half, upper, cached):
        assert [run["seed"] for run in runs] == [0, 1, 2]
    means = [sum(run["test"] for run in runs) / 3 for runs in (usual, dropout, half)]
    assert max(means) - min(means) <= 0.005
    for one, other in zip(upper, cached, strict=True):
        assert abs(one["test"] - other["test"]) <= 0.001
        assert one["loss"][:20] == pytest.approx(other["loss"][:20], abs=1e-4)
