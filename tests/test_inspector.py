"""Each typical reason why something does not train gets a sentence of its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import VOCAB, make, randomise, slots, small

from adapters_lesson import AdapterConfig, Classifier, drop_adapters, freeze, insert_adapters, remove_adapters
from adapters_lesson.bank import AdapterBank
from adapters_lesson.composition import fuse_adapters, stack_adapters
from adapters_lesson.course.inspector import Row, why_not_training
from adapters_lesson.insertion import set_active_adapter, set_trainable
from adapters_lesson.methods import prepare
from adapters_lesson.storage import StorageError, save_adapter

PFEIFFER = AdapterConfig(3, placement="pfeiffer")
FINE = "nothing: it is being trained"


def model_with(*names, config=PFEIFFER, trained=True):
    """A classifier with adapters; those of the last name are trained."""
    model = Classifier(make("small_post"), 2)
    for name in names:
        insert_adapters(model, config, name)
        for slot in slots(model):
            if name in slot:
                randomise(slot[name])
    if trained and names:
        set_trainable(model, names[-1])
    return model.eval()


def optimizer_of(model, kind=torch.optim.AdamW):
    return kind([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def backward(model):
    ids = torch.randint(2, VOCAB, (3, 5), generator=torch.Generator().manual_seed(1))
    logits = model(ids, torch.ones_like(ids))
    (logits * torch.arange(1, 1 + logits.numel()).view_as(logits)).sum().backward()


def rows(model, *args):
    """The rows by part and name."""
    return {(row.what, row.name): row for row in why_not_training(model, *args).rows}


def todo(model, *args, what="adapter", name="film"):
    return rows(model, *args)[what, name].todo


def test_nothing_is_wrong():
    model = model_with("film", config=AdapterConfig(3, train_layer_norms=True))
    optimizer = optimizer_of(model)
    backward(model)
    table = rows(model, optimizer)
    norms = sum(2 * 2 * 16 for _ in range(3))
    assert table["adapter", "film"] == Row("adapter", "film", 6 * 115, "yes", "yes", "yes", "all", "", FINE)
    assert table["LayerNorms", "film"] == Row("LayerNorms", "film", norms, "yes", "yes", "yes", "all", "", FINE)
    assert table["head", ""] == Row("head", "", 34, "yes", "yes", "yes", "all", "", FINE)
    base = table["base model", ""]
    assert (base.trainable, base.gradient, base.todo) == ("no", "none", "nothing: it stays frozen")
    assert base.parameters == sum(p.numel() for p in small().parameters())
    assert len(table) == 4


def test_an_adapter_that_has_just_begun_is_fine():
    model = model_with("film", config=PFEIFFER)
    for slot in slots(model):
        slot["film"].reset_parameters()  # up_project is zero: down_project's gradient is, too
    backward(model)
    row = rows(model)["adapter", "film"]
    assert (row.gradient, row.todo) == ("some", FINE)


# --- The mistakes ---------------------------------------------------------------------------------------------------


def test_the_optimizer_was_built_before_insertion():
    model = model_with(trained=False)
    optimizer = optimizer_of(model)
    insert_adapters(model, PFEIFFER, "film")
    set_trainable(model, "film")
    backward(model)
    table = rows(model, optimizer)
    assert table["adapter", "film"].optimiser == "no"
    assert table["adapter", "film"].todo == (
        "not in the optimiser: it was built before insertion, or while this was frozen. Build it anew"
    )
    assert table["head", ""].todo == FINE
    assert ("optimiser", "") not in table


def test_frozen_by_freeze():
    model = model_with("film")
    optimizer = optimizer_of(model)
    freeze(model)
    table = rows(model, optimizer)
    assert table["adapter", "film"].trainable == "no"
    assert table["adapter", "film"].todo == 'it is frozen: set_trainable(model, "film")'
    assert table["head", ""].todo == 'it is frozen: set_trainable(model, "film", head=True)'


def test_frozen_in_part():
    model = model_with("film")
    slots(model)[1]["film"].requires_grad_(False)
    assert rows(model)["adapter", "film"].trainable == "some"
    assert todo(model) == 'a part of it is frozen: set_trainable(model, "film")'


def test_the_head_is_frozen():
    model = model_with("film")
    set_trainable(model, "film", head=False)
    backward(model)
    assert todo(model, what="head", name="") == 'it is frozen: set_trainable(model, "film", head=True)'
    assert todo(model) == FINE


def test_switched_off():
    model = model_with("film", "hotel")
    assert todo(model) == 'it is switched off: set_active_adapter(model, "film")'
    set_active_adapter(model, None)
    assert todo(model, name="hotel") == 'it is switched off: set_active_adapter(model, "hotel")'


def test_switched_off_in_some_layers_by_drop_adapters():
    model = model_with("film")
    drop_adapters(model, [0, 1])
    backward(model)
    row = rows(model)["adapter", "film"]
    assert (row.active, row.gradient) == ("some", "some")
    assert row.todo.startswith("drop_adapters switched some of its places off: set_active_adapter(model, name)")
    drop_adapters(model, [2])
    assert rows(model)["adapter", "film"].active == "no"


def test_the_base_model_ran_under_no_grad():
    model = model_with("film")
    ids = torch.ones(2, 3, dtype=torch.long)
    with torch.no_grad():
        features = model.features(ids, torch.ones_like(ids))
    model.head(features).sum().backward()
    row = rows(model, optimizer_of(model))["adapter", "film"]
    assert row.gradient == "none"
    assert row.todo == "no gradient, though other parts have one: did this part run under torch.no_grad()?"
    assert todo(model, what="head", name="") == FINE


def test_asked_under_no_grad():
    model = model_with("film")
    with torch.no_grad():
        assert todo(model) == "no gradient, and none can come: you are under torch.no_grad() or inference_mode()"


def test_asked_before_the_backward_pass_or_after_zero_grad():
    model = model_with("film")
    optimizer = optimizer_of(model)
    sentence = "no gradient: ask after loss.backward(), before zero_grad(), and not under torch.no_grad()"
    assert todo(model, optimizer) == sentence
    backward(model)
    assert todo(model, optimizer) == FINE
    optimizer.step()
    optimizer.zero_grad()
    assert rows(model, optimizer)["adapter", "film"].gradient == "none"
    assert todo(model, optimizer) == FINE  # the optimiser has a state for it: it was trained
    assert todo(model) == sentence


def test_after_removal():
    model = model_with("film")
    optimizer = optimizer_of(model)
    backward(model)
    remove_adapters(model, "film")
    table = rows(model, optimizer)
    assert table["adapter", ""].todo == "there are none: insert_adapters(model, config) first"
    assert table["optimiser", ""].parameters == 3 * 115
    assert table["optimiser", ""].todo == (
        "it holds 12 tensors that the model does not have (any more): they were removed, or are another model's. "
        "Build it anew"
    )
    insert_adapters(model, PFEIFFER, "film")
    set_trainable(model, "film")
    assert todo(model, optimizer) == "not in the optimiser, which holds other tensors (see below): build it anew"


def test_an_optimizer_of_a_part():
    model = model_with("film")
    backward(model)
    optimizer = torch.optim.SGD(slots(model)[0].parameters(), lr=0.1)
    row = rows(model, optimizer)["adapter", "film"]
    assert row.optimiser == "some"
    assert row.todo.startswith("a part of it is not in the optimiser: it was built before insertion")
    assert todo(model, optimizer, what="head", name="") == (
        "not in the optimiser: it was built before insertion, or while this was frozen. Build it anew"
    )


def test_a_learning_rate_of_zero():
    model = model_with("film")
    backward(model)
    optimizer = optimizer_of(model)
    optimizer.param_groups[0]["lr"] = 0.0
    assert todo(model, optimizer) == "its learning rate in the optimiser is 0: raise it, or look at the schedule"


def test_gradients_that_are_zero_or_not_finite():
    model = model_with("film")
    backward(model)
    adapter = [p for slot in slots(model) for p in slot.parameters()]
    for parameter in adapter:
        parameter.grad.zero_()
    assert rows(model)["adapter", "film"].gradient == "zero"
    assert todo(model) == "its gradient is zero everywhere: nothing that it does reaches the loss"
    adapter[0].grad[0, 0] = float("inf")
    assert rows(model)["adapter", "film"].gradient == "nan"
    assert todo(model) == "its gradient is not finite: lower the learning rate, and look at the loss"


def test_a_part_without_a_gradient():
    model = model_with("film")
    backward(model)
    next(slots(model)[0].parameters()).grad = None
    assert todo(model) == "a part of it has no gradient: does all of it reach the loss?"


def test_the_base_model_was_not_frozen():
    model = model_with("film", trained=False)
    assert todo(model, what="base model", name="") == 'it is trained, too: set_trainable(model, "film") freezes it'
    ids = torch.ones(2, 3, dtype=torch.long)
    with torch.no_grad():
        features = model.features(ids, torch.ones_like(ids))
    model.head(features).sum().backward()
    assert "has no gradient: does it run under torch.no_grad()" in todo(model, what="base model", name="")


# --- Models of other kinds ------------------------------------------------------------------------------------------


def test_a_model_without_adapters_or_head():
    table = rows(small())
    assert list(table) == [("adapter", ""), ("base model", "")]
    assert table["base model", ""].todo == "it is trained, too: full fine-tuning"
    model = make("bert_head")
    prepare(model, "bitfit")
    assert todo(model, what="base model", name="").startswith("a part of it is trained: fine for BitFit")


def bank():
    result = AdapterBank(make("small_post"))
    for name in ("film", "hotel", "sport"):
        result.add(name, PFEIFFER, 2)
    return result.eval()


def test_a_bank():
    model = bank()
    model.switch("hotel")
    for slot in slots(model):
        randomise(slot["hotel"])
    optimizer = optimizer_of(model)
    backward(model)
    table = rows(model, optimizer)
    for what in ("adapter", "head"):
        assert table[what, "hotel"].todo == FINE
        assert table[what, "film"].todo == 'it rests: bank.switch("film") to train it'
    freeze(model)
    assert todo(model, what="adapter", name="hotel") == 'it is frozen: bank.switch("hotel")'
    assert todo(model, what="head", name="hotel") == 'it is frozen: bank.switch("hotel")'
    model.switch("sport")
    backward(model)
    sentence = "not in the optimiser: it was built before insertion, or while this was frozen. Build it anew"
    assert todo(model, optimizer, name="sport") == sentence


def test_stacks_and_fusions():
    model = bank()
    for slot in slots(model):
        for name in slot:
            randomise(slot[name])
    model.fuse(["film", "hotel"], "fused", 2)
    model.stack(["film", "hotel"], "stacked", 2)
    backward(model)
    table = rows(model, optimizer_of(model))
    assert table["stack", "stacked"].todo == table["adapter", "hotel"].todo == FINE
    assert table["stack", "stacked"].parameters == table["adapter", "hotel"].parameters == 3 * 115
    assert table["adapter", "hotel"].active == table["adapter", "film"].active == "within"
    assert table["adapter", "film"].todo == "nothing: 'stacked' is made of it, and does not train it"
    assert table["fusion", "fused"].todo == 'it rests: bank.switch("fused") to train it'
    model.zero_grad()
    model.switch("fused")
    backward(model)
    table = rows(model, optimizer_of(model))
    assert table["fusion", "fused"].todo == FINE and table["fusion", "fused"].parameters == 3 * 3 * 16**2
    assert table["adapter", "hotel"].todo == "nothing: 'fused' is made of it, and does not train it"


def test_members_that_are_trained_with_their_fusion():
    model = model_with("film", "hotel", trained=False)
    fuse_adapters(model, ["film", "hotel"], "fused")
    assert todo(model) == "it is trained together with 'fused': set_trainable(model, \"fused\") freezes it"
    stack_adapters(model, ["film", "hotel"], "stacked")
    set_trainable(model, "stacked")
    backward(model)
    assert todo(model, name="hotel") == todo(model, what="stack", name="stacked") == FINE


# --- What is saved --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_a_bank", [False, True])
def test_what_is_saved(tmp_path, of_a_bank):
    model = bank() if of_a_bank else model_with("film")
    head = "film" if of_a_bank else ""
    if of_a_bank:
        model.switch("film")
    for slot in slots(model):
        randomise(slot["film"])
    backward(model)
    assert rows(model)["adapter", "film"].saved == ""
    sentence = "it can be trained, but is {}: save_adapter(model, folder, name)"
    assert rows(model, None, tmp_path)["adapter", "film"].saved == "no"
    assert todo(model, None, tmp_path) == sentence.format("not saved")
    path = save_adapter(model, tmp_path, "film")
    table = rows(model, None, tmp_path)
    assert table["adapter", "film"].saved == table["head", head].saved == "yes"
    assert table["adapter", "film"].todo == table["head", head].todo == FINE
    assert table["base model", ""].saved == ""
    with torch.no_grad():
        slots(model)[0]["film"].up_project.bias.add_(1e-3)
    assert rows(model, None, tmp_path)["adapter", "film"].saved == "older"
    assert rows(model, None, tmp_path)["head", head].saved == "yes"
    assert todo(model, None, tmp_path) == sentence.format("changed since it was saved")
    path.write_bytes(path.read_bytes()[:-10])
    assert rows(model, None, tmp_path)["adapter", "film"].saved == "damaged"
    assert "the saved one is damaged: save_adapter(" in todo(model, None, tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StorageError):
        why_not_training(small(), None, tmp_path / "none")


# --- The table ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    names=st.lists(st.from_regex(r"[A-Z][A-Z0-9_-]{0,40}", fullmatch=True), unique=True, max_size=4),
    in_bank=st.booleans(),
    with_optimizer=st.booleans(),
)
def test_the_table_is_aligned_and_narrow(names, in_bank, with_optimizer):
    model = AdapterBank(small()) if in_bank else Classifier(small(), 2)
    for name in names:
        if in_bank:
            model.add(name, PFEIFFER, 2)
        else:
            insert_adapters(model, PFEIFFER, name)
    optimizer = torch.optim.SGD([torch.zeros(3), *model.parameters()], lr=0.1) if with_optimizer else None
    table = why_not_training(model, optimizer)
    assert repr(table) == str(table)
    lines = str(table).split("\n")
    assert max(map(len, lines)) < 120 and set(lines[1]) == {"-"}
    start = lines[0].index("first to do")
    body = lines[2:]
    assert all(line[start] != " " and line[: start - 2].rstrip() == line[:start].rstrip() for line in body)
    heads = [line for line in body if line[0] != " "]
    assert len(heads) == len(table.rows)
    said = " ".join(line[start:] for line in body)
    for row in table.rows:
        for word in row.todo.split():
            assert len(word) > 20 or word in said


def test_the_table_shows_only_columns_that_say_something():
    header = str(why_not_training(model_with("film"))).split("\n")[0]
    assert "optimiser" not in header and "saved" not in header
    header = str(why_not_training(model_with("film"), optimizer_of(model_with("film")))).split("\n")[0]
    assert header.split()[:7] == ["what", "name", "parameters", "active", "trainable", "optimiser", "gradient"]


def test_a_place_that_was_never_called():
    class Skips(torch.nn.Module):  # uses the weight of a projection, as nn.MultiheadAttention does
        def __init__(self, attention):
            super().__init__()
            self.attention, self.output = attention, attention.output

        def forward(self, x, mask):
            return torch.nn.functional.linear(x, self.output.weight, self.output.bias)

    model = Classifier(make("small_post"), 2)
    block = model.base_model.blocks[1]
    insert_adapters(model, AdapterConfig(3), "film")
    set_trainable(model, "film")
    block.attention = Skips(block.attention)
    backward(model)
    assert todo(model) == (
        "base_model.blocks.1.attention.attention.output.adapters_after was not called in a forward pass: does the "
        "model call this module at all?"
    )
