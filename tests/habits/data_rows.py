"""Data that are not what they seem: labels, columns, masks, tables, models with heads of every kind, CSV files."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import transformers as hf
from datasets import Dataset
from models import _BERT, _GPT2, _NO_DROPOUT, Columns, make
from torch import nn

from adapters_lesson import (
    AdapterBank,
    AdapterConfig,
    Classifier,
    encode,
    evaluate,
    load_tokenizer,
    predict,
    prepare,
    train,
)
from adapters_lesson.course.own.tables import read_task
from adapters_lesson.data import make_dataset
from habits import Habit, gives, holds, refuses, warns

IDS = [[1, 5, 6, 7, 2], [1, 8, 9, 2], [1, 5, 6, 7, 2], [1, 8, 9, 3]]
TYPES = [[0] * (len(ids) - 1) + [1] for ids in IDS]
FLOATS = [0.5, 1.0, 2.0, 4.5]
SPANS = {"start_positions": [1, 2, 1, 0], "end_positions": [2, 2, 3, 0]}
REVIEWS = make_dataset(["good film", "a bad film indeed"], ["yes", "no"], ["no", "yes"])


def table(**columns):
    """Four encoded texts as a Dataset; a column that is None is left out."""
    columns = {"input_ids": IDS, "label": [0, 1, 0, 1]} | columns
    return Dataset.from_dict({name: column for name, column in columns.items() if column is not None})


def plain(**columns):
    """The same without the datasets library, which would change some types."""
    return Columns({"input_ids": IDS, "label": [0, 1, 0, 1]} | columns)


def ready():
    """A classifier with adapters."""
    model = make("small_classifier")
    prepare(model, "adapter", AdapterConfig(4))
    return model


def run(data, model=None, validation=None, **changes):
    """Two steps of training: how many were made."""
    settings = {"steps": 2, "batch_size": 2, "progress": False} | changes
    return train(ready() if model is None else model, data, validation, **settings).steps


def bert(kind, **changes):
    """A tiny BERT with a head of transformers."""
    torch.manual_seed(0)
    return getattr(hf, f"BertFor{kind}")(hf.BertConfig(**_BERT, **_NO_DROPOUT, **changes)).eval()


def refused_untouched(data, validation=None):
    """The model is as it was when training was refused."""
    model = ready()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        run(data, model, validation)
    except ValueError:
        return all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return False


def tokens(value):
    """A label for each token."""
    return table(label=None, labels=[[value] * len(ids) for ids in IDS])


class Parity(nn.Module):
    """A perfect classifier of tokens: is the number even or odd? ``shift`` 1: of the next one, as causal models."""

    def __init__(self, shift=0):
        super().__init__()
        self.shift = shift

    def forward(self, input_ids, attention_mask, labels):
        known = input_ids.roll(-self.shift, 1) % 2
        logits = 20 * F.one_hot(known, 2).float()
        used = logits[:, : logits.shape[1] - self.shift]
        loss = F.cross_entropy(used.flatten(0, 1), labels[:, self.shift :].flatten())
        return hf.modeling_outputs.TokenClassifierOutput(loss=loss, logits=logits)


class Own(nn.Module):
    """A model of one's own: no base_model, arguments by their places, as many outputs as wished."""

    def __init__(self, outputs=2, squeeze=False):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.out, self.squeeze = nn.Embedding(40, 8), nn.Linear(8, outputs), squeeze

    def forward(self, ids, mask):
        hidden = (self.words(ids) * mask[..., None]).sum(1)
        return self.out(hidden).squeeze(-1) if self.squeeze else self.out(hidden)


class Named(Own):
    """It returns a dict."""

    def forward(self, ids, mask):
        return {"logits": super().forward(ids, mask)}


class Around(nn.Module):
    """A model of transformers in a class of one's own."""

    def __init__(self):
        super().__init__()
        self.base_model = bert("TokenClassification")

    def forward(self, **columns):
        return self.base_model(**columns)


def bank():
    """A bank with one task of two labels."""
    torch.manual_seed(0)
    made = AdapterBank(make("bert"))
    made.add("film", AdapterConfig(4, init="bert", init_std=0.5), 2)
    return made.eval()


def parity_data():
    """Labels that say whether a token is odd, the first one included."""
    rows = [[3, 4, 5, 6], [7, 4], [9, 9, 8]]
    return Dataset.from_dict({"input_ids": rows, "labels": [[i % 2 for i in row] for row in rows]})


def close(a, b):
    """Equal to rounding."""
    return bool(torch.allclose(torch.as_tensor(a), torch.as_tensor(b), atol=1e-5))


def same_when_padded(model, **padding):
    """The answers to padded and to unpadded rows are equal to the last bit."""
    padded = [ids + [0] * (7 - len(ids)) for ids in IDS]
    mask = [[1] * len(ids) + [0] * (7 - len(ids)) for ids in IDS]
    return torch.equal(predict(model, table(input_ids=padded, attention_mask=mask)), predict(model, table()))


def left_padded():
    """A mask with zeros in front is used as it is."""
    model = make("bert_classifier")
    got = predict(model, table(input_ids=[[0, 5, 6]] * 4, attention_mask=[[0, 1, 1]] * 4))[0]
    want = model(torch.tensor([[0, 5, 6]]), torch.tensor([[0, 1, 1]]))[0]
    return close(got, want) and not close(got, predict(model, table(input_ids=[[0, 5, 6]] * 4))[0])


def padded_and_cached():
    """The lower layers' output is kept for padded rows as for others."""
    losses = []
    for data in (table(), table(input_ids=[[*i, 0] for i in IDS], attention_mask=[[1] * len(i) + [0] for i in IDS])):
        model = make("small_classifier")
        prepare(model, "adapter", AdapterConfig(4, layers=(2,)))
        losses.append(train(model, data, steps=2, batch_size=2, cache_frozen=True, progress=False).loss)
    return losses[0] == losses[1]


def types_used(model, call):
    """The segments of the data reach the model."""
    ids, types = torch.tensor([IDS[0]]), torch.tensor([TYPES[0]])
    want = call(model)(ids, attention_mask=torch.ones_like(ids), token_type_ids=types)
    got = predict(model, table(token_type_ids=TYPES))[0]
    return close(got, want[0] if isinstance(want, torch.Tensor) else want.logits[0])


def positions_used():
    """The positions of the data reach the model."""
    model, places = make("bert_head"), [[i + 3 for i in range(len(ids))] for ids in IDS]
    want = model(torch.tensor([IDS[0]]), position_ids=torch.tensor([places[0]])).logits[0]
    got = predict(model, table(position_ids=places))[0]
    return close(got, want) and not close(got, predict(model, table())[0])


def regression():
    """Loss and accuracy are mean squared error and R²."""
    model, labels = bert("SequenceClassification", num_labels=1), torch.tensor(FLOATS)
    scores, error = evaluate(model, table(label=FLOATS)), ((predict(model, table())[:, 0] - labels) ** 2).mean()
    return close([scores["loss"], scores["accuracy"]], [error, 1 - error / labels.var(correction=0)])


def learns(model, data, settings=None):
    """The validation loss falls; nothing but finite numbers in the history."""
    before = evaluate(model, data)
    history = train(model, data, data, steps=60, batch_size=4, learning_rate=1e-2, progress=False, validate_every=60)
    after = history.validation[-1]
    return after["loss"] < before["loss"] and after["accuracy"] >= before["accuracy"] and history.accuracy > 0.5


def questions():
    """Loss and exact hits of answers do not depend on the padding, and without any are transformers' own."""
    model, data = bert("QuestionAnswering"), table(label=None, **SPANS)
    together, apart = evaluate(model, data), evaluate(model, data, batch_size=1)
    row = torch.tensor([IDS[0]])
    own = model(row, start_positions=torch.tensor([1]), end_positions=torch.tensor([2])).loss
    return close(list(together.values()), list(apart.values())) and close(evaluate(model, data, rows=[0])["loss"], own)


def pads_as_the_model_does():
    """GPT-2's classifier finds the last word by the padding's token."""
    torch.manual_seed(0)
    model = hf.GPT2ForSequenceClassification(hf.GPT2Config(**_GPT2, pad_token_id=39)).eval()
    return close(predict(model, table()), torch.cat([model(torch.tensor([ids])).logits for ids in IDS]))


def mended(data, line, model=None):
    """Training after the line of code that the message gives."""
    return run(eval(line, {"data": data, "datasets": datasets}), model)


def encoded(data, line, tokenizer=None):
    """How many rows can be encoded after the line of code that the message gives."""
    return len(encode(eval(line, {"data": data, "datasets": datasets}), tokenizer or load_tokenizer()))


def csv(content, names=None):
    """Texts and labels of a file with this content."""

    def read(folder):
        file = folder / "own.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        first = folder / "first.csv"
        first.write_text("text,label\n" + "".join(f"a,{name}\n" for name in names or ()))
        rows = read_task(str(first), validation=str(file))["validation"] if names else read_task(str(file))["train"]
        return rows["text"][:], [rows.features["label"].names[label] for label in rows["label"]]

    return read


def quickly(folder):
    """100,000 rows."""
    (folder / "own.csv").write_text("text,label\n" + "a good film,pos\na bad film,neg\n" * 50_000)
    return len(read_task(str(folder / "own.csv"))["train"])


TWO = (["well, it is good", "bad"], ["pos", "neg"])
HABITS = [
    # --- Labels of texts ---
    *(
        Habit(f"labels: {what}", lambda c=column: run(table(label=c)), refuses("row 1 has the label", *words))
        for what, column, words in (
            ("strings", ["a", "b", "a", "b"][::-1], ()),
            ("None", [0, None, 1, 0], ("None", 'data.filter(lambda row: row["label"] is not None)')),
            ("no number", [0.5, float("nan"), 1.0, 0.0], ("nan",)),
            (
                "-1, as in a test set without labels",
                [0, -1, 1, 0],
                ("-1", 'data.filter(lambda row: row["label"] >= 0)'),
            ),
            ("-100", [0, -100, 1, 0], ("-100", "leave the row out")),
            ("out of range", [0, 2, 1, 0], ("2", "2 classes", "at least 3 labels")),
        )
        if what != "strings"
    ),
    Habit(
        "labels: strings", lambda: run(table(label=list("abab"))), refuses("row 0", 'data.class_encode_column("label")')
    ),
    Habit("labels: digits in strings", lambda: evaluate(ready(), table(label=list("0101"))), refuses("row 0", "'0'")),
    Habit("labels: one string", lambda: run(plain(label=[0, 1, "x", 1])), refuses("row 2 has the label 'x'")),
    Habit(
        "labels: whole floats", lambda: run(table(label=[0.0, 1.0, 0.0, 1.0])), refuses('cast_column("label"', "int64")
    ),
    Habit("labels: one-hot", lambda: run(table(label=[[1, 0], [0, 1]] * 2)), refuses("row 0", 'row["label"].index(1)')),
    Habit(
        "labels: ragged lists", lambda: run(plain(label=[[1], [1, 0], [0], [1]])), refuses("row 0 has the label [1]")
    ),
    Habit("labels: objects", lambda: run(plain(label=[object()] * 4)), refuses("row 0 has the label <object")),
    Habit("labels: beyond 64 bits", lambda: run(plain(label=[2**70, 0, 1, 0])), refuses("row 0 has the label")),
    *(
        Habit(f"labels: {what}", lambda c=column: run(plain(label=c)), gives(2))
        for what, column in (
            ("booleans", [True, False, True, False]),
            ("NumPy's booleans", np.array([True, False, True, False])),
            ("int8", np.array([0, 1, 0, 1], dtype=np.int8)),
            ("NumPy's numbers in a list", [np.int64(0), np.int64(1), 0, 1]),
            ("tensors in a list", [torch.tensor(1)] * 4),
            ("a Series", pd.Series([0, 1, 0, 1])),
        )
    ),
    *(
        Habit(f"what was refused, mended: {line}", lambda c=column, line=line: mended(table(label=c), line), gives(2))
        for column, line in (
            (list("abab"), 'data.class_encode_column("label")'),
            ([0, None, 1, 0], 'data.filter(lambda row: row["label"] is not None)'),
            ([0, -1, 1, 0], 'data.filter(lambda row: row["label"] >= 0)'),
            ([[1, 0], [0, 1]] * 2, 'data.map(lambda row: {"label": row["label"].index(1)})'),
            ([0.0, 1.0, 0.0, 1.0], 'data.cast_column("label", datasets.Value("int64"))'),
        )
    ),
    Habit(
        "a number that is none, mended",
        lambda: mended(
            table(label=[0.5, float("nan"), -1.0, 0.0]),
            'data.filter(lambda row: abs(row["label"]) < float("inf"))',
            Own(1),
        ),
        gives(2),
    ),
    Habit("a column called labels", lambda: run(table(label=None, labels=[0, 1, 0, 1])), gives(2)),
    Habit("label and labels, equal", lambda: run(table(labels=[0, 1, 0, 1])), gives(2)),
    Habit("label and labels that differ", lambda: run(table(labels=[0, 0, 0, 1])), refuses('remove_columns("labels")')),
    Habit("no label", lambda: run(table(label=None)), refuses("train_data", "neither label nor labels")),
    Habit("predict without labels", lambda: list(predict(ready(), table(label=None)).shape), gives([4, 2])),
    Habit("predict with labels of -1", lambda: list(predict(ready(), table(label=[-1] * 4)).shape), gives([4, 2])),
    Habit(
        "validation labels out of range",
        lambda: run(table(), None, table(label=[0, 1, 0, 7])),
        refuses("validation_data", "row 3 has the label 7"),
    ),
    Habit("refused labels leave the model", lambda: refused_untouched(table(label=[0, 1, 2, 0])), holds),
    Habit(
        "refused validation data leave the model",
        lambda: refused_untouched(table(), table(label=[0, 1, 2, 0])),
        holds,
    ),
    Habit(
        "an own model, labels out of range",
        lambda: run(table(label=[0, 1, 4, 0]), Own()),
        refuses("row 2", "2 classes"),
    ),
    # --- Token ids ---
    *(
        Habit(f"input_ids: {what}", lambda c=column: run(table(input_ids=c)), refuses(*words))
        for what, column, words in (
            ("an empty row", [[1], [], [2], [3]], ("row 1 has no tokens", "leave the row out")),
            ("a row that is None", [[1], None, [2], [3]], ("input_ids in row 1", "not None")),
            ("beyond the vocabulary", [[1], [2], [99], [3]], ("row 2 has 99 in input_ids", "knows 40")),
            ("below zero", [[1], [2], [-1, 5], [3]], ("row 2 has -1 in input_ids",)),
            ("floats", [[1.5], [2.0], [1.0], [3.0]], ("input_ids in row 0", "whole numbers")),
            ("words", [["good"], ["film"], ["bad"], ["a"]], ("input_ids in row 0", "['good']")),
            ("texts", ["good", "film", "bad", "a"], ("input_ids in row 0", "'good'")),
            ("a batch of one, as return_tensors gives", [[[1, 2]]] * 4, ("input_ids in row 0", "[[1, 2]]")),
            ("one number a row", [1, 2, 3, 4], ("input_ids in row 0", "not 1")),
            (
                "longer than the model reads",
                [[1]] * 3 + [[1] * 30],
                ("row 3 has 30 tokens", "at most 24", "max_length"),
            ),
        )
    ),
    Habit(
        "a transformers model, too long",
        lambda: run(table(input_ids=[[1] * 30] * 4), make("bert_head")),
        refuses("at most 24"),
    ),
    Habit("an own model, ids beyond", lambda: run(table(input_ids=[[99]] * 4), Own()), refuses("up to 99")),
    Habit("an own model that is right", lambda: run(table(), Own(), table()), gives(2)),
    # --- Tables ---
    *(
        Habit(f"data: {what}", lambda m=make_data: run(m()), refuses("one datasets.Dataset", *words))
        for what, make_data, words in (
            ("a DatasetDict", lambda: datasets.DatasetDict(train=table()), ('data["train"]',)),
            ("a dict of splits", lambda: {"train": table()}, ('data["train"]',)),
            ("a stream", lambda: table().to_iterable_dataset(), ("datasets.Dataset.from_list(list(data))",)),
            (
                "streams by split",
                lambda: datasets.IterableDatasetDict(test=table().to_iterable_dataset()),
                ('data["test"]',),
            ),
            ("a list of rows", lambda: table().to_list(), ("datasets.Dataset.from_list(data)",)),
            ("a dict of columns", lambda: table().to_dict(), ("datasets.Dataset.from_dict(data)",)),
            ("a DataFrame", lambda: table().to_pandas(), ("datasets.Dataset.from_pandas(data)",)),
            ("a tuple", lambda: (1, 2), ("not a tuple",)),
            ("the name of a task", lambda: "film_reviews", ("not a str",)),
            ("nothing", lambda: None, ("not a NoneType",)),
        )
    ),
    *(
        Habit(f"{line} mends it", lambda m=make_data, line=line: mended(m(), line), gives(2))
        for line, make_data in (
            ('data["train"]', lambda: datasets.DatasetDict(train=table())),
            ("datasets.Dataset.from_list(list(data))", lambda: table().to_iterable_dataset()),
            ("datasets.Dataset.from_list(data)", lambda: table().to_list()),
            ("datasets.Dataset.from_dict(data)", lambda: table().to_dict()),
            ("datasets.Dataset.from_pandas(data)", lambda: table().to_pandas()),
            ('data.remove_columns("token_type_ids")', lambda: table(token_type_ids=TYPES)),
            (
                "data.remove_columns(['position_ids'])",
                lambda: table(position_ids=[list(range(len(i))) for i in IDS]),
            ),
            ('data.remove_columns("labels")', lambda: table(labels=[0, 0, 0, 1])),
        )
    ),
    *(
        Habit(f"data in the format {kind}", lambda k=kind: run(table().with_format(k)), gives(2))
        for kind in ("torch", "numpy", "pandas")
    ),
    Habit("a format that hides the labels", lambda: run(table().with_format("torch", columns=["input_ids"])), gives(2)),
    Habit("rows: none", lambda: evaluate(ready(), table(), rows=[]), refuses("rows must be some of the 4 rows")),
    Habit(
        "rows: too many", lambda: evaluate(ready(), table(), rows=[0, 7]), refuses("rows must be some of the 4 rows")
    ),
    Habit(
        "rows: a tensor, an array",
        lambda: (
            evaluate(ready(), table(), rows=torch.tensor([0, 2])) == evaluate(ready(), table(), rows=np.array([0, 2]))
        ),
        holds,
    ),
    Habit("batch_size=0", lambda: evaluate(ready(), table(), batch_size=0), refuses("batch_size must be")),
    Habit("batch_size=-1", lambda: predict(ready(), table(), batch_size=-1), refuses("batch_size must be")),
    # --- Masks and segments ---
    Habit("padding of the tokenizer's", lambda: same_when_padded(make("bert_classifier")), holds),
    Habit("padding, a model of transformers", lambda: same_when_padded(make("bert_head")), holds),
    Habit("padding in front", left_padded, holds),
    Habit("padding, and a cache of the frozen layers", padded_and_cached, holds),
    Habit(
        "a mask of another length",
        lambda: run(table(attention_mask=[[1, 1]] * 4)),
        refuses("row 0 has 5 input_ids but attention_mask"),
    ),
    Habit(
        "a mask that hides all",
        lambda: run(table(attention_mask=[[0] * len(i) for i in IDS])),
        refuses("attention_mask in row 0"),
    ),
    Habit(
        "a mask of twos",
        lambda: run(table(attention_mask=[[2] * len(i) for i in IDS])),
        refuses("attention_mask in row 0"),
    ),
    Habit("segments, Classifier", lambda: types_used(make("bert_classifier"), lambda model: model), holds),
    Habit("segments, transformers", lambda: types_used(make("bert_head"), lambda model: model), holds),
    Habit(
        "segments that are all the first",
        lambda: torch.equal(
            predict(make("bert_classifier"), table(token_type_ids=[[0] * len(i) for i in IDS])),
            predict(make("bert_classifier"), table()),
        ),
        holds,
    ),
    Habit(
        "segments for a model that has none",
        lambda: run(table(token_type_ids=TYPES)),
        refuses("row 0 has 1 in token_type_ids", 'data.remove_columns("token_type_ids")'),
    ),
    Habit("segments for an own model", lambda: run(table(token_type_ids=TYPES), Own()), refuses("token_type_ids")),
    Habit("positions, transformers", positions_used, holds),
    Habit(
        "positions for Classifier",
        lambda: run(table(position_ids=[list(range(len(i))) for i in IDS])),
        refuses("Classifier.forward must take", "data.remove_columns(['position_ids'])"),
    ),
    # --- Heads of transformers ---
    Habit("a classifier of transformers", lambda: learns(bert("SequenceClassification"), table()), holds),
    Habit("GPT-2's classifier pads as it must", pads_as_the_model_does, holds),
    Habit("regression", regression, holds),
    Habit(
        "regression is learnt", lambda: learns(bert("SequenceClassification", num_labels=1), table(label=FLOATS)), holds
    ),
    Habit(
        "regression, one number a text",
        lambda: run(table(label=FLOATS), Own(1, squeeze=True), table(label=FLOATS)),
        gives(2),
    ),
    Habit("floats for a model of classes", lambda: run(table(label=FLOATS)), refuses("row 0 is 0.5", "one output")),
    Habit("classes for a model of one number", lambda: run(table(), Own(1)), refuses("whole numbers", "float32")),
    Habit(
        "one number for all rows",
        lambda: str(evaluate(Own(1), table(label=[0.5] * 4))["accuracy"]),
        gives("nan"),
    ),
    Habit(
        "classes made numbers, as the message says",
        lambda: run(table().cast_column("label", datasets.Value("float32")), Own(1)),
        gives(2),
    ),
    Habit("a base model with a head, as the message says", lambda: run(table(), Classifier(make("bert"), 2)), gives(2)),
    Habit("an own model, compiled", lambda: run(table(), torch.compile(Own(), backend="eager"), table()), gives(2)),
    Habit(
        "positions of answers as floats",
        lambda: run(table(**SPANS | {"end_positions": [2.0, 2.0, 3.0, 0.0]}), bert("QuestionAnswering")),
        refuses("whole numbers"),
    ),
    Habit("a model that returns a dict", lambda: run(table(), Named(), table()), gives(2)),
    Habit(
        "a model that returns a tuple",
        lambda: run(table(), bert("SequenceClassification", return_dict=False)),
        gives(2),
    ),
    Habit(
        "RoBERTa counts positions from 2",
        lambda: run(table(input_ids=[[3] * 23] * 4), Classifier(make("roberta"), 2)),
        refuses("at most 22", "encode(task, tokenizer, max_length=22)"),
    ),
    Habit(
        "as long as RoBERTa reads",
        lambda: run(table(input_ids=[[3] * 22] * 4), Classifier(make("roberta"), 2)),
        gives(2),
    ),
    Habit(
        "a forward without a mask",
        lambda: run(table(), nn.Linear(3, 2)),
        refuses("Linear.forward must take input_ids, attention_mask"),
    ),
    Habit(
        "a bank, labels out of range", lambda: run(table(label=[0, 1, 2, 0]), bank()), refuses("row 2 has the label 2")
    ),
    Habit(
        "a bank, segments",
        lambda: close(
            predict(bank(), table(token_type_ids=TYPES))[1],
            bank()(torch.tensor([IDS[1]]), torch.ones(1, 4), ["film"], torch.tensor([TYPES[1]]))[0],
        ),
        holds,
    ),
    Habit(
        "an own class around transformers'",
        lambda: evaluate(Around(), parity_data()) == evaluate(Around().base_model, parity_data()),
        holds,
    ),
    Habit("questions", questions, holds),
    Habit("questions are learnt", lambda: learns(bert("QuestionAnswering"), table(label=None, **SPANS)), holds),
    Habit(
        "an answer that was cut",
        lambda: run(table(**SPANS | {"end_positions": [2, 2, 9, 0]}), bert("QuestionAnswering")),
        refuses("row 2 has an answer from 1 to 9"),
    ),
    Habit("answers, but no head for them", lambda: run(table(**SPANS)), refuses("start_logits", "Tensor")),
    Habit("tokens are learnt", lambda: learns(bert("TokenClassification", num_labels=3), tokens(2)), holds),
    Habit("a perfect classifier of tokens", lambda: evaluate(Parity(), parity_data())["accuracy"], gives(1.0)),
    Habit(
        "a perfect one, text by text", lambda: evaluate(Parity(), parity_data(), batch_size=1)["accuracy"], gives(1.0)
    ),
    Habit("a perfect causal model", lambda: evaluate(Parity(shift=1), parity_data())["accuracy"], gives(1.0)),
    Habit(
        "a token that only counts in front",
        lambda: (
            evaluate(bert("TokenClassification"), table(label=None, labels=[[1] + [-100] * (len(i) - 1) for i in IDS]))[
                "loss"
            ]
            > 0
        ),
        holds,
    ),
    Habit(
        "no token counts",
        lambda: run(tokens(-100), bert("TokenClassification")),
        refuses("row 0 has no label that counts"),
    ),
    Habit(
        "token labels of -1",
        lambda: run(tokens(-1), bert("TokenClassification")),
        refuses("row 0 has the label -1", "-100"),
    ),
    Habit(
        "token labels out of range",
        lambda: run(tokens(3), bert("TokenClassification", num_labels=3)),
        refuses("row 0 has the label 3", "3 classes"),
    ),
    Habit(
        "token labels as strings",
        lambda: run(tokens("B-PER"), bert("TokenClassification")),
        refuses("labels in row 0", "'B-PER'"),
    ),
    Habit(
        "token labels that are None", lambda: run(tokens(None), bert("TokenClassification")), refuses("labels in row 0")
    ),
    Habit("token labels for Classifier", lambda: run(tokens(1)), refuses("Classifier.forward must take", "labels")),
    Habit(
        "token labels for a model of texts",
        lambda: run(tokens(1), bert("SequenceClassification")),
        refuses("one answer for the text"),
    ),
    Habit("token labels for a model without a head", lambda: run(tokens(1), make("bert")), refuses("without a loss")),
    Habit(
        "text labels for a model of tokens",
        lambda: run(table(), bert("TokenClassification")),
        refuses("not one row of logits"),
    ),
    Habit(
        "text labels for a model without a head", lambda: run(table(), make("bert")), refuses("Classifier(model, 2)")
    ),
    Habit(
        "padding that counts as a label",
        lambda: run(
            table(
                label=None, labels=[[1] * len(i) for i in IDS], attention_mask=[[1] * (len(i) - 1) + [0] for i in IDS]
            ),
            bert("TokenClassification"),
        ),
        refuses("row 0 has labels where attention_mask is 0", "-100"),
    ),
    # --- encode and make_dataset ---
    *(
        Habit(
            f"max_length={value!r}",
            lambda v=value: encode(REVIEWS, load_tokenizer(), v),
            refuses("max_length must be", "at least 3"),
        )
        for value in (0, 1, 2, -5, None, True, 2.5, "8")
    ),
    Habit(
        "max_length=3 cuts",
        lambda: [len(ids) for ids in encode(REVIEWS, load_tokenizer(), np.int64(3))["input_ids"]],
        gives([3, 3]),
    ),
    Habit(
        "it says how many it cuts",
        lambda: encode(REVIEWS, load_tokenizer(), 4),
        warns("1 of 2 texts were cut to 4 tokens"),
    ),
    Habit(
        "a text that is None",
        lambda: encode(Dataset.from_dict({"text": ["a", None]}), load_tokenizer()),
        refuses("row 1 is None", 'data.filter(lambda row: isinstance(row["text"], str))'),
    ),
    Habit(
        "texts that are numbers",
        lambda: encode(Dataset.from_dict({"text": [1, 2]}), load_tokenizer()),
        refuses("row 0 is 1, not a string"),
    ),
    Habit(
        "texts called otherwise",
        lambda: encode(Dataset.from_dict({"sentence": ["a"]}), load_tokenizer()),
        refuses("no column text", 'data.rename_column("sentence", "text")'),
    ),
    Habit(
        "a None in one split",
        lambda: encode(datasets.DatasetDict(test=Dataset.from_dict({"text": [None]})), load_tokenizer()),
        refuses("test: the text in row 0 is None"),
    ),
    Habit(
        "a list of texts",
        lambda: encode(["a", "b"], load_tokenizer()),
        refuses('datasets.Dataset.from_dict({"text": data})'),
    ),
    Habit(
        "a stream to encode",
        lambda: encode(REVIEWS.to_iterable_dataset(), load_tokenizer()),
        refuses("from_list(list(data))"),
    ),
    Habit("the arguments exchanged", lambda: encode(load_tokenizer(), REVIEWS), refuses("one datasets.Dataset")),
    Habit(
        "the name of a tokenizer",
        lambda: encode(REVIEWS, "bert-base-uncased"),
        refuses("load_tokenizer()", "'bert-base-uncased'"),
    ),
    Habit(
        "encoded before, with a mask of another length",
        lambda: encode(REVIEWS.add_column("attention_mask", [[1], [1]]), load_tokenizer()).column_names,
        gives(["text", "label", "input_ids"]),
    ),
    Habit(
        "emoji, and from right to left",
        lambda: [
            len(i)
            for i in encode(make_dataset(["😀", "שלום"], ["a", "b"], "a b".split()), load_tokenizer())["input_ids"]
        ],
        gives([3, 6]),
    ),
    Habit(
        "one text for all texts",
        lambda: make_dataset("good", list("abab"), ["a", "b"]),
        refuses("texts must be a list", "'good'"),
    ),
    Habit(
        "names that are numbers",
        lambda: make_dataset(["good"], [0], [0, 1]),
        refuses("label_names must be different strings"),
    ),
    Habit(
        "a name twice",
        lambda: make_dataset(["good"], ["a"], ["a", "a"]),
        refuses("label_names must be different strings"),
    ),
    Habit(
        "names from a generator, texts from a Series",
        lambda: make_dataset(pd.Series(["x", "y"]), np.array(["b", "a"]), (c for c in "ab"))["label"][:],
        gives([1, 0]),
    ),
    Habit("a label with a blank", lambda: make_dataset(["x", "y"], ["a", "b "], ["a", "b"]), refuses("row 1 is 'b '")),
    *(
        Habit(f"texts that were refused, mended: {line}", lambda d=data, line=line: encoded(d, line), gives(1))
        for data, line in (
            (Dataset.from_dict({"text": ["a", None]}), 'data.filter(lambda row: isinstance(row["text"], str))'),
            (Dataset.from_dict({"sentence": ["a"]}), 'data.rename_column("sentence", "text")'),
            (["a"], 'datasets.Dataset.from_dict({"text": data})'),
            (REVIEWS.select([1]).to_iterable_dataset(), "datasets.Dataset.from_list(list(data))"),
        )
    ),
    Habit("no texts", lambda: run(encode(REVIEWS.select([]), load_tokenizer())), refuses("the data have no rows")),
    Habit(
        "a tokenizer in Python",
        lambda: [len(ids) for ids in encode(REVIEWS, hf.ByT5Tokenizer(), 5)["input_ids"]],
        gives([5, 5]),
    ),
    Habit(
        "half a letter", lambda: make_dataset(["a", "\ud800"], ["a", "b"], ["a", "b"]), refuses("row 1 is no Unicode")
    ),
    # --- CSV files ---
    Habit("CSV: commas in quotes", csv('text,label\n"well, it is good",pos\nbad,neg\n'), gives(TWO)),
    Habit(
        "CSV: a byte order mark, Windows' line ends",
        csv(b'\xef\xbb\xbftext,label\r\n"well, it is good",pos\r\nbad,neg\r\n'),
        gives(TWO),
    ),
    Habit("CSV: blanks around labels and names", csv('text, label\n"well, it is good", pos \n\nbad,neg\n'), gives(TWO)),
    Habit("CSV: another order, other columns", csv('id,label,text\n1,pos,"well, it is good"\n2,neg,bad\n'), gives(TWO)),
    Habit("CSV: whole numbers as classes", csv("text,label\na,1\nb,0\n"), gives((["a", "b"], ["1", "0"]))),
    Habit("CSV: a text of two lines", csv('text,label\n"a\nb",x\nc,y\nd,\n'), refuses("line 5 has no label")),
    Habit("CSV: 100,000 rows", quickly, gives(100_000)),
    *(
        Habit(f"CSV: {what}", csv(content), refuses("own.csv", *words))
        for what, content, words in (
            (
                "a comma without quotes",
                "text,label\nwell, it is good,pos\nbad,neg\n",
                ("line 2 has 3 fields", "quotes"),
            ),
            ("a row without a label", "text,label\ngood,pos\nbad\nx,neg\n", ("line 3 has 1 fields",)),
            ("an empty label", "text,label\ngood,pos\nbad,\nx,neg\n", ("line 3 has no label",)),
            ("an empty text", "text,label\ngood,pos\n ,neg\n", ("line 3 has no text",)),
            ("floats as classes", "text,label\na,0.5\nb,3.2\nc,1.1\n", ("line 2 has the label '0.5'",)),
            ("whole floats", "text,label\na,1.0\nb,0.0\n", ("line 2 has the label '1.0'",)),
            ("an open quote", 'text,label\na,x\n"b,y\nc,x\n', ("line 3 is no CSV", "quote")),
            ("a quote that takes lines in", 'text,label\n"a,x\nb,y\n"c",x\nd,y\n', ("line 2 is no CSV", "quote")),
            (
                "capitals in one label",
                "text,label\na,pos\nb,neg\nc,Pos\n",
                ("line 4 has the label 'Pos'", "another 'pos'"),
            ),
            ("semicolons", "text;label\na;x\nb;y\n", ("text;label", "separated by a comma")),
            ("tabs", "text\tlabel\na\tx\nb\ty\n", ("separated by a comma",)),
            ("a column twice", "text,text,label\na,b,x\nc,d,y\n", ("once each",)),
            ("other names", "sentence,label\na,x\nb,y\n", ("sentence,label",)),
            ("nothing", "", ("needs a first line",)),
            ("no rows", "text,label\n", ("a line for each text",)),
            ("UTF-16", "text,label\na,x\nb,y\n".encode("utf-16"), ("UTF-8",)),
            ("Latin-1", "text,label\nschön,x\nb,y\n".encode("latin-1"), ("UTF-8",)),
        )
    ),
    Habit(
        "CSV: a label of the other file",
        csv("text,label\na,x\nb,z\n", ["x", "y"]),
        refuses("line 3 has the label 'z'", "x, y"),
    ),
    Habit(
        "CSV: a label that one line has",
        csv("text,label\n" + "a,x\nb,y\n" * 10 + "c,it is good\n"),
        warns("only line 22 has the label 'it is good'"),
    ),
]
