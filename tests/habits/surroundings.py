"""What is set around the library: types, devices, modes, threads, paths, languages."""

from __future__ import annotations

import contextlib
import copy
import pickle
from functools import partial

import pytest
import torch
from models import small, toy_data

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    encode,
    evaluate,
    insert_adapters,
    list_adapters,
    load_adapter,
    load_tokenizer,
    predict,
    prepare,
    save_adapter,
    train,
)
from adapters_lesson.data import make_dataset
from habits import Habit, gives, holds, refuses

DATA = toy_data(16)


def fresh():
    """The same classifier every time."""
    torch.manual_seed(0)
    return Classifier(small(), 2)


def whole(folder, model=None):
    """Prepare, train, predict, save, load: the loaded model predicts the same, to the last bit."""
    model = fresh() if model is None else model
    prepare(model, "adapter", AdapterConfig(4))
    history = train(model, DATA, DATA, steps=2, batch_size=8, progress=False)
    save_adapter(model, folder)
    other = fresh().to(next(model.base_model.parameters()).dtype)
    load_adapter(other, folder)
    return bool(torch.equal(predict(model, DATA), predict(other, DATA))) and not history.stopped


@contextlib.contextmanager
def default(dtype):
    """A default type for new tensors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic():
    """PyTorch refuses what is not deterministic."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def within(surrounding, folder):
    """The whole way within a context."""
    with surrounding():
        return whole(folder)


def in_folder(folder, name):
    """Saved under a relative path with this name, and found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return whole(name) and [saved.name for saved in list_adapters(name)] == ["default"]


def first_outside(model):
    """A model made outside, trained where gradients are switched off."""
    prepare(model, "adapter", AdapterConfig(4))
    with torch.inference_mode(), torch.no_grad():
        history = train(model, DATA, steps=2, progress=False)
        score = evaluate(model, DATA)["loss"]
    return history.steps == 2 and score == evaluate(model, DATA)["loss"]


def with_adapters():
    """A classifier with adapters that do something."""
    model = fresh()
    for adapter in insert_adapters(model, AdapterConfig(4)):
        adapter.reset_parameters("bert", 0.3)
    return model.eval()


def copied(way):
    """A copy answers as its original, and has adapters of its own."""
    model = with_adapters()
    other, before = way(model), predict(model, DATA)
    for parameter in model.parameters():
        parameter.data.zero_()
    return bool(torch.equal(predict(other, DATA), before))


def languages():
    """Texts of many scripts become tokens; none is empty."""
    texts = [
        "😀🎉",
        "مرحبا بالعالم",
        "שלום עולם",
        "今日は",
        "Straße\u00a0naïve",
        "a\u200bb",
        "x" * 3000,
        "tab\tand\r\nline",
    ]
    data = encode(make_dataset(texts, ["a", "b"] * 4, ["a", "b"]), load_tokenizer(), max_length=32)
    lengths = [len(ids) for ids in data["input_ids"]]
    return min(lengths) >= 3 and max(lengths) <= 32 and data["text"][:] == texts


def exported():
    """torch.export takes a model with adapters, and the result answers the same."""
    model, ids, mask = with_adapters(), torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    with torch.no_grad():
        return bool(
            torch.allclose(torch.export.export(model, (ids, mask)).module()(ids, mask), model(ids, mask), atol=1e-6)
        )


HABITS = [
    *(
        Habit(
            f"a default type of {dtype}",
            partial(lambda dtype, folder: within(partial(default, dtype), folder), dtype),
            holds,
        )
        for dtype in (torch.float64, torch.bfloat16, torch.float16)
    ),
    *(
        Habit(f"a model in {dtype}", partial(lambda dtype, folder: whole(folder, fresh().to(dtype)), dtype), holds)
        for dtype in (torch.float64, torch.bfloat16, torch.float16)
    ),
    Habit("deterministic mode", lambda folder: within(deterministic, folder), holds),
    Habit("anomaly detection", lambda folder: within(torch.autograd.detect_anomaly, folder), holds),
    Habit("autocast", lambda folder: within(partial(torch.autocast, "cpu", dtype=torch.bfloat16), folder), holds),
    Habit("gradients switched off around training", lambda: first_outside(fresh()), holds),
    Habit(
        "a model made in inference mode",
        lambda folder: within(torch.inference_mode, folder),
        refuses("torch.inference_mode()"),
    ),
    Habit(
        "a default device without weights",
        lambda folder: within(partial(torch.device, "meta"), folder),
        refuses("meta device"),
    ),
    Habit("a path with spaces and umlauts", lambda folder: whole(folder / "für Adapter 空白"), holds),
    Habit("a path as text with a slash at its end", lambda folder: whole(f"{folder}/saved/"), holds),
    Habit("a relative path", lambda folder: in_folder(folder, "saved"), holds),
    Habit("a path of Windows", lambda folder: in_folder(folder, "C:\\Users\\ann\\adapters"), holds),
    Habit("a deep copy", lambda: copied(copy.deepcopy), holds),
    Habit("a pickled copy", lambda: copied(lambda model: pickle.loads(pickle.dumps(model))), holds),
    Habit("a compiled model", lambda folder: whole(folder, torch.compile(fresh(), backend="eager")), holds),
    Habit("torch.export", exported, holds),
    Habit("texts of all scripts", languages, holds),
    Habit("one text only", lambda: train(*_ready(toy_data(1)), epochs=1, progress=False).steps, gives(1)),
    Habit(
        "a batch larger than the data",
        lambda: train(*_ready(toy_data(3)), epochs=2, batch_size=64, progress=False).steps,
        gives(2),
    ),
]


def _ready(data):
    model = fresh()
    prepare(model, "adapter", AdapterConfig(4))
    return model, data
