"""Compare first: how far two models are apart, over the places that count."""

import pytest
import torch
from models import make
from torch import nn

from adapters_lesson import AdapterConfig, insert_adapters
from adapters_lesson.exchange.compare import compare_logits, compare_outputs, logits_of
from adapters_lesson.slots import slots_of

BATCH = {
    "input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


def test_the_same_model_is_the_same():
    found = compare_outputs(make("llama_head"), make("llama_head"), [BATCH, BATCH])
    assert (found.largest, found.mean, found.changed, found.places) == (0, 0, 0, 12) and found.same
    assert str(found) == "0 of 12 answers change; logits are 0.0e+00 apart on average and 0.0e+00 at most"


@pytest.mark.parametrize("kind", ["llama_head", "bert_head"])
def test_what_adapters_change_is_counted(kind):
    one, other = make(kind), make(kind)
    insert_adapters(other, AdapterConfig(4))
    assert compare_outputs(one, other, [BATCH]).largest == 0
    for slot in slots_of(other):
        nn.init.normal_(slot["default"].up_project.weight, std=3)
    found = compare_outputs(one, other, [BATCH])
    before, after = logits_of(one, [BATCH]), logits_of(other, [BATCH])
    assert found.places == len(before) == (6 if kind == "llama_head" else 2)
    assert found.largest == (before - after).abs().max() and found.mean == pytest.approx((before - after).abs().mean())
    assert found.changed == (before.argmax(-1) != after.argmax(-1)).sum() and found.same == (found.changed == 0)


def test_padding_does_not_count():
    model = make("llama_head")
    other = {**BATCH, "input_ids": BATCH["input_ids"].where(BATCH["attention_mask"].bool(), 9)}
    assert compare_logits(logits_of(model, [BATCH]), logits_of(model, [other])).largest == 0


def test_modes_and_gradients_stay():
    model = make("llama_head").train()
    assert not logits_of(model, [BATCH]).requires_grad and model.training


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="there is no batch"):
        compare_outputs(make("bert_head"), make("bert_head"), [])
    with pytest.raises(ValueError, match=r"logits of \(2, 3\) and \(2, 4\) are not of the same texts"):
        compare_logits(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="the logits after are not all finite"):
        compare_logits(torch.zeros(1, 2), torch.tensor([[0.0, torch.nan]]))
