"""Many tasks on one base model: a mixed batch equals its rows one by one, and nothing else is touched."""

import copy
import random
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import BASES, VOCAB, WIDTH, hooks, make, randomise, slots, small, snapshot, toy_data

from adapters_lesson import AdapterConfig, Classifier, drop_adapters, evaluate, insert_adapters, prepare, train
from adapters_lesson.adapter import Adapter
from adapters_lesson.bank import AdapterBank, grouped
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import _PASS, routed
from adapters_lesson.training import predict
from adapters_lesson.transformer import text_features

READERS = [name for name in BASES if name != "vit"]  # a ViT reads no text
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
# Widths, places, layers, trained LayerNorms and numbers of labels differ.
TASKS = {
    "films": (AdapterConfig(4, train_layer_norms=True), 2),
    "hotels": (AdapterConfig(3, placement="pfeiffer", train_layer_norms=True), 3),
    "plain": (AdapterConfig(2, placement="pfeiffer", layers=(0, 2)), 2),
    "beside": (AdapterConfig(5, placement="parallel", scaling=1.7), 4),
    "upper": (AdapterConfig(6, placement="parallel", layers=(1,), train_layer_norms=True, activation="relu"), 2),
}
NAMES = [None, *TASKS]


def bank_on(base, tasks=TASKS):
    """A bank whose adapters, trained LayerNorms and heads are random, and large enough to matter."""
    bank = AdapterBank(base)
    for name, (config, labels) in tasks.items():
        bank.add(name, config, labels)
    for slot in slots(bank):
        randomise(slot, std=0.3)
    randomise(bank.heads, std=0.5)
    return bank.eval()


def batch(rows, seed=0):
    """Texts of 1 to 9 tokens, padded."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 10, (rows,), generator=generator)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return torch.randint(2, VOCAB, mask.shape, generator=generator) * mask, mask


def one_by_one(bank, ids, mask, names):
    """Features and logits of each row: the bank switched for it, and no padding."""
    features, logits = [], []
    for row, name in enumerate(names):
        bank.switch(name)
        length = int(mask[row].sum())
        x = ids[row : row + 1, :length], mask[row : row + 1, :length]
        features.append(bank.features(*x)[0])
        logits.append(torch.empty(0, dtype=features[0].dtype) if name is None else bank(*x)[0])
    return features, logits


def state(bank):
    """Everything that a call could leave behind."""
    return (
        snapshot(bank),
        hooks(bank),
        bank.active,
        dict(bank.labels),
        [slot.active for slot in slots(bank)],
        [getattr(slot, "residual", None) for slot in slots(bank)],
        [(name, p.requires_grad) for name, p in bank.named_parameters()],
        [m.training for m in bank.modules()],
    )


# --- A mixed batch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
@torch.no_grad()
def test_a_mixed_batch_equals_its_rows_one_by_one(name):
    bank = bank_on(make(name))
    names = NAMES * 2
    random.Random(1).shuffle(names)
    ids, mask = batch(len(names))
    features, logits = one_by_one(bank, ids, mask, names)
    bank.switch("hotels")
    before = state(bank)
    mixed = bank(ids, mask, names)
    assert [len(row) for row in mixed] == [0 if name is None else TASKS[name][1] for name in names]
    for one, other in zip(mixed, logits, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    torch.testing.assert_close(bank.features(ids, mask, names), torch.stack(features), **CLOSE)
    assert state(bank) == before

    same = ids[:1].repeat(len(NAMES), 1), mask[:1].repeat(len(NAMES), 1)  # one text, all tasks: they can be told apart
    of_text = bank.features(*same, NAMES)
    distances = (of_text[:, None] - of_text[None]).abs().amax(-1) + torch.eye(len(NAMES))
    assert distances.min() > 1e-2


@pytest.mark.parametrize("norms", [False, True], ids=["", "norms"])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("first", "second"), [(a, b) for a in PLACEMENTS for b in PLACEMENTS])
@torch.no_grad()
def test_any_two_placements_in_one_batch(first, second, norm, norms):
    tasks = {
        "first": (AdapterConfig(4, placement=first), 2),
        "second": (AdapterConfig(2, placement=second, train_layer_norms=norms), 3),
    }
    bank = bank_on(make(f"small_{norm}").double(), tasks)
    bank.heads.double()
    names = ["second", None, "first", "second", "first", None]
    ids, mask = batch(len(names))
    features, logits = one_by_one(bank, ids, mask, names)
    for one, other in zip(bank(ids, mask, names), logits, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    torch.testing.assert_close(bank.features(ids, mask, names), torch.stack(features), rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9),
    active=st.sampled_from(NAMES),
    seed=st.integers(0, 9),
)
@torch.no_grad()
def test_any_order_and_any_active_task(names, active, seed):
    bank = post_bank()
    ids, mask = batch(len(names), seed)
    features, logits = one_by_one(bank, ids, mask, names)
    bank.switch(active)
    before = state(bank)
    for one, other in zip(bank(ids, mask, names), logits, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    torch.testing.assert_close(bank.features(ids, mask, names), torch.stack(features), **CLOSE)
    assert state(bank) == before


_kept = []


def post_bank():
    """One bank for all of hypothesis's examples."""
    if not _kept:
        _kept.append(bank_on(make("small_post")))
    return _kept[0]


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_a_task_answers_as_a_classifier_of_its_own(task):
    bank = bank_on(make("small_post"))
    config, labels = TASKS[task]
    alone = Classifier(make("small_post"), labels)
    insert_adapters(alone, config, task)
    own = {key.replace(f"heads.{task}.", "head."): value for key, value in bank.state_dict().items()}
    alone.load_state_dict({key: own[key] for key in alone.state_dict()})
    ids, mask = batch(4)
    names = [task, "films", task, None]
    expected = alone.eval()(ids, mask)
    mixed = bank(ids, mask, names)
    for row in (0, 2):
        torch.testing.assert_close(mixed[row], expected[row], **CLOSE)
    bank.switch(task)
    torch.testing.assert_close(bank(ids, mask), expected, **CLOSE)
    torch.testing.assert_close(
        bank.features(ids, mask, names)[3], text_features(make("small_post"), ids, mask)[3], **CLOSE
    )


@torch.no_grad()
def test_there_is_one_pass_and_each_adapter_sees_its_own_rows_only(monkeypatch):
    bank = bank_on(make("small_post"))
    passes, seen = [], []
    for block in bank.base_model.blocks:
        block.ffn.expand.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    own = Adapter.update
    monkeypatch.setattr(Adapter, "update", lambda self, h: (seen.append((self, len(h))), own(self, h))[1])
    names = ["films", None, "beside", "films", "upper", "films"]
    bank(*batch(len(names)), names)
    assert passes == [6, 6, 6]
    owner = {module: name for slot in slots(bank) for name, module in slot.items()}
    calls = [(owner[adapter], rows) for adapter, rows in seen]
    assert sorted(set(calls)) == [("beside", 1), ("films", 3), ("upper", 1)]
    assert calls.count(("films", 3)) == 6 and calls.count(("beside", 1)) == 3 and calls.count(("upper", 1)) == 1


def test_grouped_brings_the_rows_of_a_task_together():
    order, groups = grouped(["b", None, "a", "b", None])
    assert order == [1, 4, 2, 0, 3]
    assert groups == [(None, 2), ("a", 1), ("b", 2)]


@torch.no_grad()
def test_all_rows_bare_or_of_one_task():
    bank = bank_on(make("bert"))
    ids, mask = batch(3)
    assert [len(row) for row in bank(ids, mask, [None] * 3)] == [0, 0, 0]
    torch.testing.assert_close(bank.features(ids, mask, [None] * 3), text_features(make("bert"), ids, mask), **CLOSE)
    bank.switch("hotels")
    torch.testing.assert_close(torch.stack(bank(ids, mask, ["hotels"] * 3)), bank(ids, mask), **CLOSE)


@pytest.mark.parametrize("name", ["small_post", "small_pre", "bert"])
def test_the_gradients_of_a_mixed_batch_are_those_of_its_rows(name):
    bank = bank_on(make(name))
    names = ["films", "beside", None, "hotels", "films", "plain", "upper"]
    ids, mask = batch(len(names))
    trained = [p for slot in slots(bank) for p in slot.parameters()] + list(bank.heads.parameters())

    for parameter in trained:
        parameter.requires_grad_(True)

    def gradients(answers):
        total = sum((row * torch.arange(1, len(row) + 1)).sum() for row in answers)
        return torch.autograd.grad(total, trained)

    mixed = gradients(bank(ids, mask, names))
    single = gradients([bank(ids[[i]], mask[[i]], [name])[0] for i, name in enumerate(names)])
    assert all(gradient.abs().sum() > 0 for gradient in mixed)
    for one, other in zip(mixed, single, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_in_training_mode_the_active_task_drops_out_and_a_mixed_batch_keeps_every_mode():
    bank = AdapterBank(small())
    bank.add("a", AdapterConfig(4, dropout=0.5, init="houlsby", init_std=0.5), 2)
    before = [m.training for m in bank.modules()]
    bank(*batch(4), ["a", None, "a", None])
    assert [m.training for m in bank.modules()] == before


# --- Switching and training -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_switching_changes_adapters_and_head_together():
    bank, (ids, mask) = bank_on(make("small_post")), batch(3)
    answers = {name: bank(ids, mask, [name] * 3) for name in TASKS}
    for name in ["films", "upper", None, "films", "hotels"]:
        bank.switch(name)
        assert bank.active == name
        if name is None:
            torch.testing.assert_close(bank.features(ids, mask), text_features(make("small_post"), ids, mask), **CLOSE)
            with pytest.raises(ValueError, match=r"no task is switched on: bank\.switch\(name\) first"):
                bank(ids, mask)
        else:
            torch.testing.assert_close(bank(ids, mask), torch.stack(answers[name]), **CLOSE)


def test_only_the_active_task_is_trainable():
    bank = bank_on(make("bert"))
    for name in ["films", "upper", None, "plain"]:
        bank.switch(name)
        for path, parameter in bank.named_parameters():
            own = name is not None and (f".{name}." in path)
            assert parameter.requires_grad == own, path


def test_switching_takes_well_under_a_millisecond():
    bank = AdapterBank(small(num_hidden_layers=6))
    for i in range(16):
        bank.add(f"task{i}", AdapterConfig(4), 2)
    times = []
    for i in range(100):
        start = time.perf_counter()
        bank.switch(f"task{i % 16}")
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


def test_training_a_task_of_the_bank_equals_training_it_alone_and_leaves_the_others():
    data, config = toy_data(), AdapterConfig(4, train_layer_norms=True, dropout=0.1)
    base = make("small_post")
    torch.manual_seed(3)
    alone = Classifier(base, 2)
    prepare(alone, "adapter", config)
    alone_history = train(alone, data, data, epochs=2, batch_size=8, progress=False)

    bank = AdapterBank(make("small_post"))
    bank.add("other", AdapterConfig(3, placement="pfeiffer", init="houlsby", init_std=0.5), ("a", "b", "c"))
    torch.manual_seed(3)
    bank.add("task", config, ("no", "yes"))
    before = snapshot(bank)
    history = train(bank, data, data, epochs=2, batch_size=8, progress=False)
    assert history.loss == alone_history.loss
    assert history.validation == alone_history.validation
    assert history.trainable == alone_history.trainable
    after = snapshot(bank)
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {key for key in after if ".task." in key}
    assert evaluate(bank, data)["loss"] == history.validation[-1]["loss"]
    assert predict(bank, data).shape == (len(data), 2)

    bank.switch("other")
    task = snapshot(bank)
    train(bank, data, epochs=1, batch_size=8, progress=False)
    assert {key for key in task if snapshot(bank)[key] != task[key]} == {key for key in task if ".other." in key}


def test_nothing_is_trained_when_nothing_is_switched_on():
    bank = bank_on(small())
    bank.switch(None)
    with pytest.raises(ValueError, match="nothing in the model requires gradients"):
        train(bank, toy_data(), progress=False)


def test_labels_by_number_or_by_name():
    bank = AdapterBank(small())
    bank.add("three", AdapterConfig(2), 3)
    bank.add("named", AdapterConfig(2), ["negative", "positive"])
    assert bank.labels == {"three": ("0", "1", "2"), "named": ("negative", "positive")}
    assert bank.heads["three"].out_features == 3 and bank.heads["named"].in_features == WIDTH


@torch.no_grad()
def test_removing_a_task_leaves_the_others():
    bank, (ids, mask) = bank_on(make("small_post")), batch(2)
    before, bare = bank(ids, mask, ["films", "plain"]), hooks(small())
    bank.switch("upper")
    bank.remove("beside")
    assert bank.active == "upper"
    bank.remove("upper")
    assert bank.active is None
    assert list(bank.heads) == list(bank.labels) == ["films", "hotels", "plain"]
    for one, other in zip(bank(ids, mask, ["films", "plain"]), before, strict=True):
        assert torch.equal(one, other)
    for name in list(bank.heads):
        bank.remove(name)
    assert hooks(bank) == bare and not slots(bank)
    assert snapshot(bank.base_model) == snapshot(make("small_post"))


@torch.no_grad()
def test_a_deep_copy_is_a_bank_of_its_own():
    bank, (ids, mask) = bank_on(make("small_post")), batch(len(NAMES))
    bank.switch("films")
    answers = bank.features(ids, mask, NAMES)
    twin = copy.deepcopy(bank)
    assert torch.equal(twin.features(ids, mask, NAMES), answers)
    twin.switch("beside")
    for slot in slots(twin):
        randomise(slot, std=0.7)
    changed = twin.features(ids, mask, NAMES)
    assert torch.equal(changed[0], answers[0])  # the bare base
    assert ((changed - answers)[1:].abs().amax(-1) > 1e-3).all()
    assert torch.equal(bank.features(ids, mask, NAMES), answers)
    assert bank.active == "films"
    assert {slot.active for slot in slots(bank)} <= {"films", None}


@torch.no_grad()
def test_the_state_dict_goes_into_another_bank():
    bank, other, (ids, mask) = bank_on(make("bert")), bank_on(make("bert", seed=1)), batch(len(NAMES))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.features(ids, mask, NAMES), bank.features(ids, mask, NAMES))


@torch.no_grad()
def test_dropped_layers_stay_dropped_and_count_for_the_active_task_only():
    bank, (ids, mask) = bank_on(make("small_post")), batch(2)
    bank.switch("films")
    whole = bank(ids, mask)
    drop_adapters(bank, [0, 1])
    dropped, before = bank(ids, mask), state(bank)
    assert not torch.allclose(dropped, whole, atol=1e-3)
    torch.testing.assert_close(torch.stack(bank(ids, mask, ["films", "films"])), whole, **CLOSE)
    assert state(bank) == before
    assert torch.equal(bank(ids, mask), dropped)


@torch.no_grad()
def test_adapters_in_single_precision_on_a_base_in_half():
    bank = bank_on(make("bert"), {k: TASKS[k] for k in ("films", "hotels", "beside")})
    ids, mask = batch(4)
    names = ["films", "hotels", None, "beside"]
    expected = bank.features(ids, mask, names)
    own = {id(p) for slot in slots(bank) for p in slot.parameters()}
    for parameter in bank.base_model.parameters():
        if id(parameter) not in own:
            parameter.data = parameter.data.bfloat16()
    result = bank.features(ids, mask, names)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0.1, atol=0.3)
    assert [len(row) for row in bank(ids, mask, names)] == [2, 3, 0, 4]


# --- Errors, each of which leaves the bank as it was ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["films", "film", None],
            "the bank has no task called 'film'; it has 'films', 'hotels', 'plain', 'beside', 'upper'",
        ),
        (["films", None], r"for 3 rows: give each row the name of its task or None"),
        ([], r"\[\] for 3 rows"),
        ("films", r"adapters='films' for 3 rows: .*\['films'\] \* 3"),
        (["films", 1, None], "no task called 1;"),
    ],
)
@pytest.mark.parametrize("call", ["forward", "features"])
def test_wrong_names_for_the_rows(call, names, message):
    bank = bank_on(make("small_post"))
    bank.switch("plain")
    before = state(bank)
    with pytest.raises(ValueError, match=message):
        getattr(bank, call)(*batch(3), names)
    assert state(bank) == before


@pytest.mark.parametrize("call", ["switch", "remove"])
def test_an_unknown_task(call):
    bank = bank_on(make("small_post"))
    before = state(bank)
    with pytest.raises(ValueError, match="the bank has no task called 'x'; it has 'films', "):
        getattr(bank, call)("x")
    assert state(bank) == before
    with pytest.raises(ValueError, match=r"no task called 'x'; it has none: bank\.add\('x', config, 2\) first"):
        getattr(AdapterBank(small()), call)("x")


def test_an_error_inside_the_pass_leaves_no_routing_behind():
    bank, (ids, mask) = bank_on(make("small_post")), batch(3)
    before = state(bank)
    with pytest.raises(ValueError, match="the model reads at most 24"):
        bank(ids.repeat(1, 9), mask.repeat(1, 9), ["films", None, "hotels"])
    assert state(bank) == before

    def fail(*_):
        raise KeyboardInterrupt

    handle = bank.base_model.blocks[1].attention.output.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        bank(ids, mask, ["films", None, "hotels"])
    handle.remove()
    assert state(bank) == before


@pytest.mark.parametrize(
    ("name", "config", "labels", "message"),
    [
        ("films", AdapterConfig(4), 2, "has adapters called 'films' already"),
        ("a.b", AdapterConfig(4), 2, "cannot name an adapter"),
        ("new", AdapterConfig(4, layers=(3,)), 2, r"layers=\(3,\), but the model has 3 blocks"),
        ("new", AdapterConfig(4), 1, "a task needs at least 2 labels, not 1"),
        ("new", AdapterConfig(4), ["yes"], r"at least 2 labels, not \['yes'\]"),
        ("new", AdapterConfig(4), "yes", "at least 2 labels, not 'yes'"),
    ],
)
def test_a_task_that_cannot_be_added(name, config, labels, message):
    bank = bank_on(make("small_post"))
    bank.switch("plain")
    before = state(bank)
    with pytest.raises(ValueError, match=message):
        bank.add(name, config, labels)
    assert state(bank) == before


def test_models_that_a_bank_refuses():
    with pytest.raises(ValueError, match=r"a Classifier has a head.*AdapterBank\(model\.base_model\)"):
        AdapterBank(make("small_classifier"))
    with pytest.raises(ValueError, match="a BertForSequenceClassification has a head"):
        AdapterBank(make("bert_head"))
    model = small()
    insert_adapters(model, AdapterConfig(2), "mine")
    with pytest.raises(ValueError, match=r"has adapters already \('mine'\): remove_adapters\(model\) first"):
        AdapterBank(model)
    assert any(p.requires_grad for p in model.parameters())


def test_a_bank_freezes_its_base():
    base = make("bert")
    assert all(p.requires_grad for p in base.parameters())
    bank = AdapterBank(base)
    assert not any(p.requires_grad for p in bank.parameters())


@torch.no_grad()
def test_a_routing_that_does_not_fit_the_batch_is_an_error():
    bank, (ids, mask) = bank_on(make("small_post")), batch(3)
    with pytest.raises(ValueError, match=r"is given \(3, \d+, 16\), which is not 2 rows"), routed([("films", 2)]):
        text_features(bank.base_model, ids, mask)
    assert _PASS.routing is None
