"""One training loop for every method."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from .batches import Texts, batches, texts_of
from .evaluation import evaluate, predict
from .guards.columns import named
from .guards.training_guard import check_base_is_frozen, check_can_learn
from .history import History
from .memory_tricks import LowerBlocks, cast_frozen
from .modes import training_mode
from .runs.distributed import Team
from .runs.run import Run
from .runs.settings import Settings, settings_with

__all__ = ["Texts", "batches", "evaluate", "predict", "train", "training_mode"]


def loop(run: Run) -> None:
    """The loop that lesson 05 builds: shuffle, forward, loss, backward, clip, step, schedule, record.

    What else a run can do hangs on it: ``run`` counts from a checkpoint, averages over several processes, and calls
    after each step whoever wants to know.
    """
    settings, history = run.settings, run.history
    while history.steps < run.total_steps and not history.stopped:
        training_mode(run.model)
        epoch, done = divmod(history.steps, run.steps_per_epoch)
        shuffled = batches(run.texts.lengths, settings.batch_size, settings.seed, epoch)
        for rows in shuffled[done : done + run.total_steps - history.steps]:
            start = time.perf_counter()
            run.optimizer.zero_grad()  # before the forward pass, so that old gradients and activations never coexist
            loss, value = run.forward(rows)
            if not run.is_finite("loss", value):
                return
            loss.backward()
            norm = nn.utils.clip_grad_norm_(run.parameters.values(), settings.max_grad_norm).item()
            if not run.is_finite("gradient", norm):
                return
            history.learning_rate.append(float(run.schedule.get_last_lr()[0]))
            run.optimizer.step()
            run.schedule.step()
            history.loss.append(value)
            history.seconds += time.perf_counter() - start
            for call in run.after_step:
                call()
            if history.stopped:
                return


def train(
    model: nn.Module,
    train_data: Any,
    validation_data: Any = None,
    settings: Settings | None = None,
    *,
    accelerator: Any = None,
    train_base: bool = False,
    progress: bool = True,
    on_step: Callable[[History], None] | None = None,
    **changes: Any,
) -> History:
    """Train whatever in ``model`` requires gradients with AdamW, and return how it went.

    A frozen base stays in evaluation mode (see ``modes.training_mode``). After a first step, Ctrl-C or the kernel's
    Stop ends the run early: what was learnt stays in the model, and the history so far is returned. So does a loss that
    is not finite.

    Args:
        model: maps ``input_ids`` and ``attention_mask`` ``(batch, length)`` to logits ``(batch, labels)``, or to what
            has ``logits``, as transformers' models with a head do; for labels of tokens, it returns its mean ``loss``.
        train_data, validation_data: encoded datasets (see ``data.encode``), with a column ``label`` of classes, or of
            floats for a mean squared error; or as ``batches.TokenTexts`` or ``batches.SpanTexts`` want them.
        settings, changes: how to train, and what is to be otherwise: ``train(model, data, epochs=2, seed=1)``. The
            names are the fields of ``Settings``: epochs, steps, batch_size, learning_rate, warmup, weight_decay,
            max_grad_norm, validate_every, patience, seed, checkpoint, checkpoint_every, base_dtype, cache_frozen.
        accelerator: an accelerate.Accelerator: the processes that it was launched with share every batch of
            ``batch_size`` rows. The result is that of one process, but for rounding and for other dropout masks.
        train_base: train the whole base model together with the adapters in it, which is seldom meant.
        on_step: called with the history after every step; it may raise KeyboardInterrupt to stop the run.

    Raises ValueError when there is nothing to train, or more than is meant; when the data are not encoded, a setting
    makes no sense, or the checkpoint is of another run.
    """
    settings = settings_with(settings, changes)
    check_can_learn(model)
    if not train_base:
        check_base_is_frozen(model)
    team = Team(accelerator)
    with named("train_data"):
        texts = texts_of(train_data, team.device_of(model))
        texts.check(model)
    with named("validation_data"):
        validation = None if validation_data is None else texts_of(validation_data, team.device_of(model))
    for name in ("patience", "validate_every"):
        if validation is None and getattr(settings, name) is not None:
            raise ValueError(f"{name} does nothing without validation_data: give both or neither")
    run = Run(model, texts, validation, settings, team)
    if settings.checkpoint is not None:
        run.load(settings.checkpoint)
    with ExitStack() as after:  # what is undone at the end, whatever happens
        after.enter_context(torch.inference_mode(False))  # a cell may have switched gradients off for something else
        after.enter_context(torch.enable_grad())
        after.callback(model.eval)
        run.shared = team.wrapped(model)
        after.callback(setattr, run, "shared", model)  # the wrapper's hooks end with it
        after.callback(run.after_step.clear)
        after.enter_context(team.noting_interrupts())
        if (dtype := run.base_dtype()) is not None:
            after.enter_context(cast_frozen(model, dtype))
        run.after_step.append(run.bar(progress, after))
        run.after_step += [run.validate] * (validation is not None) + [run.save] * (settings.checkpoint is not None)
        if on_step is not None:
            run.after_step.append(partial(run.tell, on_step))
        if validation is not None:
            with named("validation_data"):
                evaluate(model, validation, rows=range(1))  # what does not fit is better found before the training
        try:
            run.lower = LowerBlocks(model, texts) if settings.cache_frozen else None
            loop(run)
        except KeyboardInterrupt:
            if not run.history.steps:
                raise  # nothing was learnt, and whoever goes on would show nothing
            run.say_interrupted(progress)
    run.take(run.best)
    return run.history
