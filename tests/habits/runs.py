"""Training runs: their settings, their checkpoints, and what is trained."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import torch
from models import make, small, toy_data

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    evaluate,
    freeze,
    insert_adapters,
    load_adapter,
    prepare,
    remove_adapters,
    save_adapter,
    set_trainable,
    train,
)
from adapters_lesson.memory_tricks import checkpointed
from adapters_lesson.runs.settings import Settings
from adapters_lesson.slots import slots_of
from habits import Habit, gives, holds, refuses, warns

DATA, OTHER = toy_data(16), toy_data(16, seed=1)


def fresh(config=None, seed=0, base=0, **model):
    """A classifier that is ready to be trained: the same one for the same arguments."""
    torch.manual_seed(base)
    encoder = small(**model)
    torch.manual_seed(seed)
    classifier = Classifier(encoder, 2)
    prepare(classifier, "adapter", config or AdapterConfig(4))
    return classifier


def run(model=None, data=DATA, validation=None, **changes):
    """Two steps of training."""
    settings = {"steps": 2, "batch_size": 8, "progress": False}
    return train(fresh() if model is None else model, data, validation, **(settings | changes))


def go_on(folder, model=None, data=DATA, first=None, **changes):
    """A run with a checkpoint, and then another one with the same file."""
    options = {"checkpoint": folder / "run.pt", "checkpoint_every": 1}
    run(**options, **(first or {}))
    return run(model, data, **options, **changes).steps


def with_scaling(value):
    """Adapters whose scaling was set by hand after they were inserted."""
    model = fresh()
    for slot in slots_of(model):
        slot["default"].scaling = value
    return model


def loaded(folder):
    """A fresh classifier into which a saved adapter was loaded."""
    save_adapter(fresh(), folder)
    torch.manual_seed(0)
    model = Classifier(small(), 2)
    load_adapter(model, folder)
    return model


def mended(model, mend):
    """What training leaves of the base model after the hint was followed."""
    mend(model)
    weight = model.base_model.blocks[0].ffn.expand.weight
    before = weight.detach().clone()
    run(model)
    return bool(torch.equal(weight, before))


def with_nan():
    """A model one of whose frozen weights is no number."""
    model = fresh()
    model.base_model.word_embeddings.weight.data[5] = float("nan")
    return model


def failing_disk(folder):
    """The disk is full when the second checkpoint is to be written; the run goes on."""
    (folder / "deep").mkdir()

    def fill(history):
        if history.steps == 1:
            (folder / "deep" / "run.pt").unlink()
            (folder / "deep").rmdir()
            (folder / "deep").write_text("a file in the folder's place")

    return run(checkpoint=folder / "deep" / "run.pt", checkpoint_every=1, on_step=fill).steps


def two_evaluate(folder):
    """Two threads evaluate a model that is in training mode."""
    model = fresh()
    model.train()
    expected = evaluate(model, DATA)
    seen = []
    threads = [threading.Thread(target=lambda: seen.extend(evaluate(model, DATA) for _ in range(20))) for _ in "ab"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return all(one == expected for one in seen) and all(module.training for module in model.modules())


def causal(use_cache):
    """A causal model with padding, checkpointed, learns what it learns without."""
    losses = []
    for trick in (checkpointed, None):
        model = make("gpt2_head")
        model.config.use_cache = use_cache
        prepare(model, "adapter", AdapterConfig(4))
        data = type(DATA)({"input_ids": [[3, 4, 5, 6], [7, 8]], "labels": [[3, 4, 5, 6], [7, 8]]})
        if trick is None:
            losses.append(run(model, data).loss)
            continue
        with trick(model):
            losses.append(run(model, data).loss)
        assert model.config.use_cache is use_cache
        assert not any("forward" in vars(module) for module in model.modules())
    return torch.allclose(torch.tensor(losses[0]), torch.tensor(losses[1]), atol=1e-6)


def twice_checkpointed():
    """Checkpointing within checkpointing, and a forward that somebody has replaced before: all given back."""
    model = fresh()
    block = model.base_model.blocks[0]
    block.forward = mine = block.forward
    with checkpointed(model), checkpointed(model):
        run(model)
    return block.forward is mine


def refused_accumulation():
    """What an accelerator that accumulates gradients is told."""
    from accelerate import Accelerator

    return run(accelerator=Accelerator(cpu=True, gradient_accumulation_steps=4))


HABITS = [
    # --- Settings ---
    Habit(
        "max_grad_norm=0", lambda: run(max_grad_norm=0.0), refuses("max_grad_norm must be a number above 0, not 0.0")
    ),
    Habit("warmup=2", lambda: run(warmup=2.0), refuses("warmup must be a number from 0 to 1, not 2.0")),
    Habit("warmup=-1", lambda: run(warmup=-1), refuses("warmup must be a number from 0 to 1, not -1")),
    Habit("patience without validation", lambda: run(patience=1), refuses("patience does nothing without validation")),
    Habit("checkpoint_every=0", lambda folder: run(checkpoint=folder / "c", checkpoint_every=0), refuses("at least 1")),
    Habit("checkpoint_every alone", lambda: run(checkpoint_every=5), refuses("does nothing without checkpoint")),
    Habit(
        "a learning rate as text", lambda: run(learning_rate="3e-3"), refuses("learning_rate must be a finite number")
    ),
    Habit("a learning rate of 10**400", lambda: run(learning_rate=10**400), refuses("learning_rate must be a finite")),
    Habit("epochs as a float", lambda: run(steps=None, epochs=2.0), refuses("epochs must be a whole number")),
    Habit("a seed that is True", lambda: run(seed=True), refuses("seed must be a whole number")),
    Habit("cache_frozen as a word", lambda: run(cache_frozen="no"), refuses("cache_frozen must be True or False")),
    Habit("an integer base_dtype", lambda: run(base_dtype="int8"), refuses("floating-point type", "'int8'")),
    Habit("lr, as other libraries call it", lambda: run(lr=1e-3), refuses("no setting 'lr'", "learning_rate?")),
    Habit("a setting misspelt", lambda: run(batchsize=4), refuses("no setting 'batchsize'", "batch_size?")),
    Habit("a setting of nobody", lambda: run(colour=4), refuses("no setting 'colour': there are epochs, steps")),
    Habit(
        "epochs in the place of settings", lambda: train(fresh(), DATA, None, 3), refuses("must be a Settings, not 3")
    ),
    Habit("accumulated gradients", refused_accumulation, refuses("give a larger batch_size instead")),
    Habit(
        "settings as NumPy's and PyTorch's numbers",
        lambda: (
            run(
                steps=np.int64(2), learning_rate=np.float32(0.5), seed=torch.tensor(3), weight_decay=np.float64(0)
            ).steps,
            Settings(batch_size=np.int32(4)) == Settings(batch_size=4),
            type(Settings(warmup=np.float32(0.5)).warmup),
        ),
        gives((2, True, float)),
    ),
    # --- Checkpoints of another run ---
    Habit("a checkpoint of this run", go_on, gives(2)),
    Habit(
        "a checkpoint with other data of the same size", lambda folder: go_on(folder, data=OTHER), refuses("other data")
    ),
    Habit(
        "a checkpoint with other validation data",
        lambda folder: go_on(folder, first={"validation": DATA}, validation=OTHER),
        refuses("other validation data"),
    ),
    Habit(
        "a checkpoint with another base", lambda folder: go_on(folder, fresh(base=1)), refuses("other frozen weights")
    ),
    Habit("another head at the start", lambda folder: go_on(folder, fresh(seed=1)), gives(2)),
    *(
        Habit(
            f"a checkpoint with {what}",
            lambda folder, c=config: go_on(folder, fresh(c)),
            refuses("of a run with", words),
        )
        for what, config, words in (
            ("another activation", AdapterConfig(4, activation="relu"), "activation"),
            ("another scaling", AdapterConfig(4, scaling=2.0), "scaling"),
            ("another dropout", AdapterConfig(4, dropout=0.5), "dropout"),
            ("another start", AdapterConfig(4, init="houlsby"), "init"),
            ("another placement", AdapterConfig(4, placement="parallel", layers=(0, 1)), "other trainable parameters"),
        )
    ),
    Habit(
        "a checkpoint with another dropout of the base",
        lambda folder: go_on(folder, fresh(dropout=0.3)),
        refuses("dropout.p=0.1 in place of 0.3"),
    ),
    Habit(
        "a scaling set by hand", lambda folder: go_on(folder, with_scaling(3.0)), refuses("scaling=1.0 in place of 3.0")
    ),
    Habit(
        "a checkpoint with another seed", lambda folder: go_on(folder, seed=4), refuses("other seed: give another file")
    ),
    Habit("a folder that takes no file", lambda: run(checkpoint="/proc/x/c.pt"), refuses("takes no file")),
    Habit("the folder of the checkpoint vanishes", failing_disk, warns("could not be written", "the run goes on")),
    # --- What is trained ---
    Habit(
        "load, then train",
        lambda folder: run(loaded(folder)),
        refuses("set_trainable(model)", "train(..., train_base=True)"),
    ),
    Habit("load, set_trainable, train", lambda folder: mended(loaded(folder), set_trainable), holds),
    Habit(
        "load, remove, train",
        lambda folder: run(*[m for m in [loaded(folder)] if not remove_adapters(m)]).steps,
        gives(2),
    ),
    Habit("load, train the base on purpose", lambda folder: run(loaded(folder), train_base=True).steps, gives(2)),
    Habit(
        "insert, then train",
        lambda: run(*[m for m in [Classifier(small(), 2)] if insert_adapters(m, AdapterConfig(4))]),
        refuses("'default'", "set_trainable(model)"),
    ),
    Habit("nothing to train", lambda: run(*[m for m in [fresh()] if not freeze(m)]), refuses("prepare(model")),
    # --- Numbers that are none ---
    Habit(
        "weights that are no numbers",
        lambda: run(with_nan()).stopped.partition(": ")[2],
        gives("base_model.word_embeddings.weight holds values that are not finite: load the weights again"),
    ),
    Habit(
        "a rate that is far too high",
        lambda: "lower the learning rate" in run(learning_rate=1e30, steps=9).stopped,
        holds,
    ),
    # --- Modes and stand-ins ---
    Habit("two threads evaluate one model", two_evaluate, holds),
    Habit("a causal model, checkpointed, with its cache on", lambda: causal(True), holds),
    Habit("a causal model, checkpointed, with its cache off", lambda: causal(False), holds),
    Habit("checkpointed twice", twice_checkpointed, holds),
    Habit("settings of one's own, changed", lambda: replace(Settings(), epochs=2).epochs, gives(2)),
]
