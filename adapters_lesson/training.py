"""One training loop for every method."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .batches import Texts, TokenTexts, batches, texts_of
from .distributed import Team
from .evaluation import evaluate, predict
from .files import write_atomically
from .history import History
from .modes import training_mode
from .savings import LowerBlocks, cast_frozen

__all__ = ["Texts", "batches", "evaluate", "predict", "train", "training_mode"]


def train(
    model: nn.Module,
    train_data: Any,
    validation_data: Any = None,
    *,
    epochs: int = 4,
    steps: int | None = None,
    validate_every: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    seed: int = 0,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 50,
    base_dtype: torch.dtype | None = None,
    cache_frozen: bool = False,
    accelerator: Any = None,
    progress: bool = True,
    on_step: Callable[[History], None] | None = None,
) -> History:
    """Train whatever in ``model`` requires gradients with AdamW, and return how it went.

    The learning rate rises over the first ``warmup`` share of the steps and then falls to zero, both linearly. A frozen
    base stays in evaluation mode (see ``modes.training_mode``). Ctrl-C or the kernel's Stop ends the run early: what
    was learnt stays in the model, and the history so far is returned. So does a loss that is no longer finite.

    Args:
        model: maps ``input_ids`` and ``attention_mask`` ``(batch, length)`` to logits ``(batch, labels)``; for labels
            of tokens, takes the columns by name and returns its mean ``loss`` as transformers' causal models do.
        train_data, validation_data: encoded datasets (see ``tasks.encode``), with a column ``label``, or one ``labels``
            with lists as long as ``input_ids``, -100 where a token does not count (see ``batches.TokenTexts``).
        steps: take that many steps instead of whole ``epochs``.
        validate_every: validate after that many steps, and after the last, instead of after each epoch.
        patience: stop when the validation loss has not improved that many times, and return to the best weights.
        checkpoint: a file from which the same call goes on, bit for bit, where an earlier one was cut off.
        checkpoint_every: write it after that many steps, and after each epoch.
        base_dtype: let the frozen base compute in this type, for instance torch.bfloat16 (``savings.cast_frozen``).
        cache_frozen: compute what lies below the lowest trained block once for each text (``savings.LowerBlocks``).
        accelerator: an accelerate.Accelerator: the processes that it was launched with share every batch of
            ``batch_size`` rows. The result is that of one process, but for rounding and for other dropout masks.
        on_step: called with the history after every step; it may raise KeyboardInterrupt to stop the run.

    Raises:
        ValueError: when there is nothing to train, the data are not encoded, a setting makes no sense, or the
            checkpoint is of another run.
    """
    settings = {
        "epochs": epochs, "steps": steps, "validate_every": validate_every, "batch_size": batch_size,
        "learning_rate": learning_rate, "warmup": warmup, "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm, "seed": seed, "patience": patience,
        "base_dtype": base_dtype and str(base_dtype), "cache_frozen": cache_frozen, "examples": len(train_data),
    }  # fmt: skip
    team = Team(accelerator)
    texts = texts_of(train_data, team.device_of(model))
    validation = None if validation_data is None else texts_of(validation_data, team.device_of(model))
    texts.check(model)
    if team.processes > 1:
        team.agree(settings | {"texts": [texts.lengths, texts.counted(range(len(texts)))]})
    if cache_frozen and isinstance(texts, TokenTexts):
        raise ValueError("cache_frozen is for texts with one label each, not for labels of tokens")

    from tqdm.auto import tqdm

    with team.sharing(model) as shared:
        run = _Run(model, settings, team, shared)
        if checkpoint is not None:
            run.load(checkpoint)
        history, steps_per_epoch = run.history, run.steps_per_epoch
        # tqdm's bar for notebooks forgets its own variable
        silent = not progress or not team.is_main or bool(os.environ.get("TQDM_DISABLE"))
        bar = tqdm(total=run.total_steps, initial=history.steps, unit="step", disable=silent)
        try:
            with nullcontext() if base_dtype is None else cast_frozen(model, base_dtype):
                lower = LowerBlocks(model, texts) if cache_frozen else None
                while history.steps < run.total_steps and not history.stopped:
                    training_mode(model)
                    epoch, done = divmod(history.steps, steps_per_epoch)
                    for rows in batches(texts.lengths, batch_size, seed, epoch)[done:]:
                        run.step(texts, rows, lower)
                        if history.stopped:
                            break
                        bar.update()
                        ended = history.steps == run.total_steps
                        epoch_ends = history.steps % steps_per_epoch == 0
                        if validation and (ended or history.steps % (validate_every or steps_per_epoch) == 0):
                            run.validate(validation)
                            bar.set_postfix(accuracy=f"{history.accuracy:.3f}")
                        if checkpoint is not None and (epoch_ends or history.steps % checkpoint_every == 0):
                            run.save(checkpoint)
                        if on_step is not None:
                            with team.noting():
                                on_step(history)
                        if ended or history.stopped:
                            break
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        finally:
            bar.close()
            model.eval()
        run.restore_best()
    return history


class _Run:
    """The state of one run: all that a checkpoint holds."""

    def __init__(
        self, model: nn.Module, settings: dict[str, Any], team: Team | None = None, shared: nn.Module | None = None
    ) -> None:
        for name in ("epochs", "steps", "validate_every", "batch_size", "learning_rate", "examples"):
            if settings[name] is not None and not settings[name] > 0:
                raise ValueError(f"{name} must be above 0, not {settings[name]}")
        self.model, self.team = model, team or Team()
        self.shared = shared or model  # what is called in a step; the gradients are then averaged over the processes
        if self.team.processes > 1:
            settings = settings | {"processes": self.team.processes}
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError('nothing in the model requires gradients: prepare(model, "adapter") first')
        self.steps_per_epoch = math.ceil(settings["examples"] / settings["batch_size"])
        self.total_steps = settings["steps"] or settings["epochs"] * self.steps_per_epoch
        self.history = History(settings, sum(p.numel() for p in self.parameters.values()))
        self.best: dict[str, torch.Tensor] = {}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
        )
        warmup_steps = max(1, round(settings["warmup"] * self.total_steps))
        remaining = max(1, self.total_steps - warmup_steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warmup_steps, (self.total_steps - step) / remaining)
        )
        torch.manual_seed(settings["seed"] + 100_000 * self.team.rank)  # no two processes draw the same dropout masks

    def step(self, texts: Texts, rows: Sequence[int], lower: LowerBlocks | None = None) -> None:
        """One step on the batch ``rows``, of which this process computes its share. All see the same loss and norm."""
        start = time.perf_counter()
        own, share = self.team.share(texts, rows)
        self.optimizer.zero_grad()  # before the forward pass, so that old gradients and activations never coexist
        with nullcontext() if lower is None else lower.skipped(list(own)):
            loss = texts.loss(self.shared, own)
        value, stop = self.team.total([share * loss.item(), self.team.interrupted])
        if stop:
            raise KeyboardInterrupt
        if not math.isfinite(value):
            self.history.stopped = f"the loss became {value} at step {self.history.steps}: lower the learning rate"
            return
        self.team.backward(loss, share)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.history.settings["max_grad_norm"]).item()
        if not math.isfinite(norm):
            self.history.stopped = f"the gradient became {norm} at step {self.history.steps}: lower the learning rate"
            return
        self.history.learning_rate.append(float(self.schedule.get_last_lr()[0]))
        self.optimizer.step()
        self.schedule.step()
        self.history.loss.append(value)
        self.history.seconds += time.perf_counter() - start

    def validate(self, validation: Texts) -> None:
        history, patience = self.history, self.history.settings["patience"]
        history.validation.append({"step": history.steps, **self.scores(validation)})
        if patience is None:
            return
        losses = [entry["loss"] for entry in history.validation]
        best_epoch = losses.index(min(losses))
        if best_epoch == len(losses) - 1:
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        elif len(losses) - 1 - best_epoch >= patience:
            history.stopped = f"no better validation loss for {patience} validations"

    def scores(self, validation: Texts) -> dict[str, float]:
        """What ``evaluate`` gives; each process looks at its part of the rows."""
        if self.team.processes == 1:
            return evaluate(self.model, validation)
        own = validation.part(range(self.team.rank, len(validation), self.team.processes))
        part = evaluate(self.model, own) if len(own) else {"loss": 0.0, "accuracy": 0.0}
        counted = own.counted(range(len(own)))
        *sums, count = self.team.total([*(counted * value for value in part.values()), counted])
        return {name: value / count for name, value in zip(part, sums, strict=True)}

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, value in self.best.items():
                self.parameters[name].copy_(value)

    def save(self, path: str | Path) -> None:
        random = self.team.gathered(torch.get_rng_state())
        state = {
            "history": vars(self.history),
            "best": self.best,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random,
        }
        if self.team.is_main:
            write_atomically(path, lambda temporary: torch.save(state, temporary))

    def load(self, path: str | Path) -> None:
        """Go on from the checkpoint, if there is one. The main process reads it: another machine may not have it."""
        state = self.team.from_main(lambda: self.read(path) if Path(path).exists() else None)
        if state is None:
            return
        self.history.__dict__.update(state["history"])
        with torch.no_grad():
            for name, value in state["parameters"].items():
                self.parameters[name].copy_(value)
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"][self.team.rank])

    def read(self, path: str | Path) -> dict[str, Any]:
        """The checkpoint, if it is one of this run."""
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            saved = {name: p.shape for name, p in state["parameters"].items()}
            settings = state["history"]["settings"]
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint of this course ({error}): delete it to start afresh") from error
        own = self.history.settings
        differing = [name for name in own | settings if settings.get(name) != own.get(name)]
        if differing or saved != {name: p.shape for name, p in self.parameters.items()}:
            what = f"other {', '.join(differing)}" if differing else "other trainable parameters"
            raise ValueError(f"{path} is the checkpoint of a run with {what}: give another file, or delete it")
        return state
