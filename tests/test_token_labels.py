"""Training and evaluation with a label for each token, as for a language model."""

import itertools

import pytest
import torch
from models import Columns, make, toy_data
from torch import nn

from adapters_lesson import AdapterConfig, evaluate, predict, prepare, train
from adapters_lesson.training import batches

RUN = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "progress": False}


class Rows(Columns):
    """An encoded dataset of which no column need be called label."""

    def __len__(self):
        return len(self["input_ids"])


def language_data(rows=12, seed=0, **columns):
    """Texts of which the second half counts."""
    ids = toy_data(rows, seed)["input_ids"]
    ids = [text + text for text in ids]
    labels = [[-100 if i < len(text) // 2 else token for i, token in enumerate(text)] for text in ids]
    return Rows(input_ids=ids, labels=labels, **columns)


def language_model(name="llama_head"):
    model = make(name)
    prepare(model, "adapter", AdapterConfig(4), head=False)
    return model


def by_hand(model, data, rows):
    """Sum of the losses, number of hits and number of labels, text by text."""
    loss, hits, count = 0.0, 0, 0
    for row in rows:
        ids, labels = torch.tensor(data["input_ids"][row]), data["labels"][row]
        logits = model(input_ids=ids[None]).logits[0]
        for i in range(1, len(ids)):
            if labels[i] != -100:
                loss = loss - logits[i - 1].log_softmax(-1)[labels[i]]
                hits, count = hits + int(logits[i - 1].argmax() == labels[i]), count + 1
    return loss, hits, count


@pytest.mark.parametrize("name", ["llama_head", "gpt2_head"])
@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_the_scores_of_a_language_model_are_means_over_the_tokens_that_count(name, batch_size):
    model, data = language_model(name), language_data()
    loss, hits, count = by_hand(model, data, range(12))
    assert 0 < hits < count, "an accuracy that tells nothing"
    scores = evaluate(model.train(), data, batch_size)
    assert scores == {"loss": pytest.approx(loss.item() / count, rel=1e-5), "accuracy": pytest.approx(hits / count)}
    assert all(module.training for module in model.modules()), "it left the model in another mode"


@pytest.mark.parametrize("name", ["llama_head", "gpt2_head"])
def test_a_step_minimises_the_mean_over_the_tokens_that_count(name):
    data, taken = language_data(), []
    model, expected = language_model(name), language_model(name)
    rows = batches([len(ids) for ids in data["input_ids"]], 5)[0]
    loss, _, count = by_hand(expected, data, rows)
    (loss / count).backward()

    def keep(history):
        taken.extend(p.grad.clone() for p in model.parameters() if p.requires_grad)

    history = train(model, data, steps=1, batch_size=5, max_grad_norm=1e9, on_step=keep, progress=False)
    assert history.loss == [pytest.approx(loss.item() / count, rel=1e-5)]
    wanted = [p.grad for p in expected.parameters() if p.requires_grad]
    for got, want in zip(taken, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_a_language_model_learns_its_answers():
    model, data = language_model(), language_data()
    before = evaluate(model, data)
    history = train(model, data, data, steps=60, batch_size=6, learning_rate=3e-2, validate_every=30, progress=False)
    assert history.validation[-1]["loss"] < 0.8 * before["loss"]
    assert history.validation[-1]["accuracy"] > before["accuracy"]
    assert history.validation[-1] == {"step": 60, **evaluate(model, data)}


class Recorder(nn.Module):
    """A language model that only remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.ones(())), []

    def forward(self, **columns):
        self.calls.append(columns)
        return Scored(self.weight * columns["input_ids"].float().mean(), 3)


class Scored:
    """The output of a model that knows how many tokens it got right, and makes no logits."""

    def __init__(self, loss, correct):
        self.loss, self.correct = loss, correct


def test_a_model_is_called_with_its_columns_padded_behind():
    data = Rows(input_ids=[[5, 6, 7], [8, 9]], labels=[[-100, 6, 7], [-100, 9]])
    model = Recorder()
    assert evaluate(model, data)["accuracy"] == 1.0  # 3 of 3
    (call,) = model.calls
    assert call.keys() == {"input_ids", "labels", "attention_mask"}
    assert call["input_ids"].tolist() == [[8, 9, 0], [5, 6, 7]]
    assert call["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert call["labels"].tolist() == [[-100, 9, -100], [-100, 6, 7]]


def test_positions_take_the_place_of_the_mask():
    data = Rows(input_ids=[[5, 6, 7, 8], [8, 9]], labels=[[-100, 6, -100, 8], [-100, 9]])
    data["position_ids"] = [[0, 1, 0, 1], [0, 1]]
    model = Recorder()
    train(model, data, steps=1, batch_size=2, progress=False)
    (call,) = model.calls
    assert call.keys() == {"input_ids", "labels", "position_ids"}
    assert sorted(call["position_ids"].tolist()) == [[0, 1, 0, 0], [0, 1, 0, 1]]


def test_texts_packed_into_one_row_do_not_see_each_other():
    model = language_model()
    apart = language_data(6)
    for labels in apart["labels"]:
        labels[0] = -100
    packed = Rows({name: [list(itertools.chain(*column))] for name, column in apart.items()})
    packed["position_ids"] = [list(itertools.chain(*(range(len(ids)) for ids in apart["input_ids"])))]
    for call in (train, evaluate):
        with pytest.raises(ValueError, match="packed rows without a cache only"):
            call(model, packed)
    model.config.use_cache = False
    assert evaluate(model, packed) == {name: pytest.approx(v, rel=1e-4) for name, v in evaluate(model, apart).items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [[-100, 6], [-100, 9]]}, r"row 0 has 3 input_ids but labels of shape \(2,\)"),
        ({"position_ids": [[0, 1, 2], [0]]}, r"row 1 has 2 input_ids but position_ids of shape \(1,\)"),
        ({"labels": [[-100, 6, 7], [9, -100]]}, "row 1 has no label that counts after its first token"),
        ({"input_ids": [], "labels": []}, "the data have no rows"),
    ],
)
def test_refuses_labels_that_do_not_fit(changes, message):
    data = Rows({"input_ids": [[5, 6, 7], [8, 9]], "labels": [[-100, 6, 7], [-100, 9]]} | changes)
    for call in (train, evaluate):
        with pytest.raises(ValueError, match=message):
            call(language_model(), data)


def test_refuses_what_needs_a_label_for_each_text():
    with pytest.raises(ValueError, match="one row of logits for each text, but these data have labels for tokens"):
        predict(language_model(), language_data())
    with pytest.raises(ValueError, match="cache_frozen is for texts with one label each"):
        train(language_model(), language_data(), cache_frozen=True, **RUN)
    with pytest.raises(ValueError, match="the data have neither label nor labels"):
        train(language_model(), Rows(input_ids=[[1, 2]]), **RUN)
