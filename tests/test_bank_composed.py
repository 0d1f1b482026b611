"""A bank's tasks that are made of others: in a mixed batch, trained, removed."""

import pytest
import torch
from models import make, randomise, slots, snapshot, toy_data
from test_bank import CLOSE, TASKS, bank_on, batch, one_by_one, state

from adapters_lesson import AdapterConfig, train

MADE = {"stacked": "stack", "mean": "average", "fused": "fuse"}


def bank_with_compositions(name="small_post"):
    """A bank of three tasks, and of a stack, a mean and a fusion of the first two, all random."""
    one = AdapterConfig(3, placement="pfeiffer")
    bank = bank_on(make(name), {"films": (one, 2), "hotels": (one, 3), "beside": TASKS["beside"]})
    for i, (new, method) in enumerate(MADE.items()):
        getattr(bank, method)(["films", "hotels"], new, 2 + i)
        randomise(bank.heads[new], std=0.5)
    for slot in slots(bank):
        if "fused" in slot:
            randomise(slot["fused"], std=0.3)
    return bank.eval()


@pytest.mark.parametrize("name", ["small_post", "small_pre", "distilbert", "gpt2"])
@torch.no_grad()
def test_tasks_made_of_others_in_a_mixed_batch(name):
    bank = bank_with_compositions(name)
    names = ["fused", None, "films", "stacked", "mean", "beside", "fused", "hotels"]
    ids, mask = batch(len(names))
    _, logits = one_by_one(bank, ids, mask, names)
    bank.switch("stacked")
    before = state(bank)
    mixed = bank(ids, mask, names)
    assert [len(row) for row in mixed] == [4, 0, 2, 2, 3, 4, 4, 3]
    for one, other in zip(mixed, logits, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    assert state(bank) == before
    same = ids[:1].repeat(7, 1), mask[:1].repeat(7, 1)
    of_text = bank.features(*same, [None, *bank.heads])
    distances = (of_text[:, None] - of_text[None]).abs().amax(-1) + torch.eye(7)
    assert distances.min() > 1e-3


@pytest.mark.parametrize(
    ("new", "trained"), [("stacked", (".hotels.",)), ("mean", (".mean.",)), ("fused", (".fused.",))]
)
def test_training_a_task_made_of_others(new, trained):
    bank = bank_with_compositions()
    bank.switch(new)
    own = {name for name, p in bank.named_parameters() if p.requires_grad}
    assert own == {name for name, _ in bank.base_model.named_parameters(prefix="base_model") if trained[0] in name} | {
        f"heads.{new}.weight",
        f"heads.{new}.bias",
    }
    before = snapshot(bank)
    train(bank, toy_data(), steps=3, batch_size=8, progress=False)
    assert {key for key in before if snapshot(bank)[key] != before[key]} == own
    bank.switch("beside")
    assert all(".beside." in name for name, p in bank.named_parameters() if p.requires_grad)


def test_a_task_of_which_others_are_made_stays():
    bank = bank_with_compositions()
    bank.switch("films")
    before = state(bank)
    with pytest.raises(ValueError, match="'films' is part of 'stacked', 'fused', which would not work without it"):
        bank.remove("films")
    assert state(bank) == before
    for name in ("stacked", "fused", "films"):
        bank.remove(name)
    assert list(bank.heads) == ["hotels", "beside", "mean"] and bank.active is None


@pytest.mark.parametrize("method", MADE.values())
def test_a_task_made_of_others_that_cannot_be_added(method):
    bank = bank_with_compositions()
    before = state(bank)
    for names, name, labels, message in (
        (["films", "films"], "new", 2, "at least two different adapters"),
        (["films", "beside"], "new", 2, "not in the same places"),
        (["films", "x"], "new", 2, "no adapters called 'x'"),
        (["films", "hotels"], "mean", 2, "has adapters called 'mean' already"),
        (["films", "hotels"], "new", 1, "a task needs at least 2 labels, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(bank, method)(names, name, labels)
        assert state(bank) == before


@torch.no_grad()
def test_a_mean_with_weights():
    bank, (ids, mask) = bank_with_compositions(), batch(2)
    bank.average(["films", "hotels"], "only_hotels", 3, [0, 1])
    of_mean = bank.features(ids, mask)
    bank.switch("hotels")
    torch.testing.assert_close(of_mean, bank.features(ids, mask), **CLOSE)
