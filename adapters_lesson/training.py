"""One training loop for every method, and the evaluation beside it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .files import write_atomically
from .history import History
from .modes import kept_modes, training_mode
from .savings import LowerBlocks, cast_frozen


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
    progress: bool = True,
    on_step: Callable[[History], None] | None = None,
) -> History:
    """Train whatever in ``model`` requires gradients with AdamW, and return how it went.

    The learning rate rises over the first ``warmup`` share of the steps and then falls to zero, both linearly. A frozen
    base stays in evaluation mode (see ``modes.training_mode``). Ctrl-C or the kernel's Stop ends the run early: what
    was learnt stays in the model, and the history so far is returned. So does a loss that is no longer finite.

    Args:
        model: maps ``input_ids`` and ``attention_mask`` ``(batch, length)`` to logits ``(batch, labels)``.
        train_data, validation_data: encoded datasets (see ``tasks.encode``).
        steps: take that many steps instead of whole ``epochs``.
        validate_every: validate after that many steps, and after the last, instead of after each epoch.
        patience: stop when the validation loss has not improved that many times, and return to the best weights.
        checkpoint: a file from which the same call goes on, bit for bit, where an earlier one was cut off.
        checkpoint_every: write it after that many steps, and after each epoch.
        base_dtype: let the frozen base compute in this type, for instance torch.bfloat16 (``savings.cast_frozen``).
        cache_frozen: compute what lies below the lowest trained block once for each text (``savings.LowerBlocks``).
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
    texts, validation = Texts(train_data), None if validation_data is None else Texts(validation_data)
    run = _Run(model, settings)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load(checkpoint)
    history, steps_per_epoch = run.history, run.steps_per_epoch

    from tqdm.auto import tqdm

    silent = not progress or bool(os.environ.get("TQDM_DISABLE"))  # tqdm's bar for notebooks forgets its own variable
    bar = tqdm(total=run.total_steps, initial=history.steps, unit="step", disable=silent)
    try:
        with nullcontext() if base_dtype is None else cast_frozen(model, base_dtype):
            lower = LowerBlocks(model, texts) if cache_frozen else None
            while history.steps < run.total_steps and not history.stopped:
                training_mode(model)
                epoch, done = divmod(history.steps, steps_per_epoch)
                for rows in batches(texts.lengths, batch_size, seed, epoch)[done:]:
                    with nullcontext() if lower is None else lower.skipped(rows):
                        run.step(*texts.batch(rows))
                    if history.stopped:
                        break
                    bar.update()
                    ended = history.steps == run.total_steps
                    epoch_ends = history.steps % steps_per_epoch == 0
                    if validation is not None and (ended or history.steps % (validate_every or steps_per_epoch) == 0):
                        run.validate(validation)
                        bar.set_postfix(accuracy=f"{history.accuracy:.3f}")
                    if checkpoint is not None and (epoch_ends or history.steps % checkpoint_every == 0):
                        run.save(checkpoint)
                    if on_step is not None:
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


def evaluate(model: nn.Module, data: Any, batch_size: int = 128) -> dict[str, float]:
    """Mean loss and accuracy of ``model`` on an encoded dataset, in evaluation mode."""
    texts = data if isinstance(data, Texts) else Texts(data)
    logits = predict(model, texts, batch_size)
    return {
        "loss": F.cross_entropy(logits, texts.labels).item(),
        "accuracy": (logits.argmax(-1) == texts.labels).float().mean().item(),
    }


@torch.inference_mode()
def predict(model: nn.Module, data: Any, batch_size: int = 128) -> torch.Tensor:
    """Logits ``(texts, labels)`` in the order of the dataset, computed in evaluation mode."""
    texts = data if isinstance(data, Texts) else Texts(data)
    by_length = sorted(range(len(texts.ids)), key=texts.lengths.__getitem__)
    with kept_modes(model):  # so that one may look while training
        model.eval()
        parts = [model(*texts.batch(by_length[i : i + batch_size])[:2]) for i in range(0, len(by_length), batch_size)]
    return torch.cat(parts)[torch.tensor(by_length).argsort()]


def batches(lengths: list[int], batch_size: int, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    """Row numbers of one epoch's batches: shuffled, but texts of similar length together, so that little is padding."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = 50 * batch_size  # sorted within pools, so that batches differ from epoch to epoch
    for start in range(0, len(order), pool):
        order[start : start + pool] = sorted(order[start : start + pool], key=lengths.__getitem__)
    rows = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [rows[i] for i in torch.randperm(len(rows), generator=generator)]


class Texts:
    """The columns ``input_ids`` and ``label`` of an encoded dataset as tensors.

    Raises:
        ValueError: when the data are empty or not encoded.
    """

    def __init__(self, data: Any) -> None:
        if "input_ids" not in data.column_names:
            raise ValueError("the data have no input_ids: encode(task, tokenizer) first")
        if len(data) == 0:
            raise ValueError("the data have no rows")
        self.ids = [torch.tensor(ids) for ids in data["input_ids"]]
        self.labels = torch.tensor(data["label"])
        self.lengths = [len(ids) for ids in self.ids]

    def batch(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """input_ids and attention_mask ``(rows, longest)``, padded at the end, and labels ``(rows,)``."""
        input_ids = pad_sequence([self.ids[row] for row in rows], batch_first=True)
        lengths = torch.tensor([self.lengths[row] for row in rows])
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        return input_ids, mask, self.labels[rows]


class _Run:
    """The state of one run: all that a checkpoint holds."""

    def __init__(self, model: nn.Module, settings: dict[str, Any]) -> None:
        for name in ("epochs", "steps", "validate_every", "batch_size", "learning_rate", "examples"):
            if settings[name] is not None and not settings[name] > 0:
                raise ValueError(f"{name} must be above 0, not {settings[name]}")
        self.model = model
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
        torch.manual_seed(settings["seed"])

    def step(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> None:
        start = time.perf_counter()
        self.optimizer.zero_grad()  # before the forward pass, so that old gradients and activations never coexist
        loss = F.cross_entropy(self.model(input_ids, attention_mask), labels)
        if not math.isfinite(value := loss.item()):
            self.history.stopped = f"the loss became {value} at step {self.history.steps}: lower the learning rate"
            return
        loss.backward()
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
        history.validation.append({"step": history.steps, **evaluate(self.model, validation)})
        if patience is None:
            return
        losses = [entry["loss"] for entry in history.validation]
        best_epoch = losses.index(min(losses))
        if best_epoch == len(losses) - 1:
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        elif len(losses) - 1 - best_epoch >= patience:
            history.stopped = f"no better validation loss for {patience} validations"

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, value in self.best.items():
                self.parameters[name].copy_(value)

    def save(self, path: str | Path) -> None:
        state = {
            "history": vars(self.history),
            "best": self.best,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
        }
        write_atomically(path, lambda temporary: torch.save(state, temporary))

    def load(self, path: str | Path) -> None:
        try:
            state = torch.load(path, weights_only=True)
            saved = {name: p.shape for name, p in state["parameters"].items()}
            settings = state["history"]["settings"]
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint of this course ({error}): delete it to start afresh") from error
        differing = [k for k, v in self.history.settings.items() if settings.get(k) != v]
        if differing or saved != {name: p.shape for name, p in self.parameters.items()}:
            what = f"other {', '.join(differing)}" if differing else "other trainable parameters"
            raise ValueError(f"{path} is the checkpoint of a run with {what}: give another file, or delete it")
        self.history.__dict__.update(state["history"])
        with torch.no_grad():
            for name, value in state["parameters"].items():
                self.parameters[name].copy_(value)
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
