"""What hangs on the training loop: several processes, a cast base, validation, patience, progress and checkpoints."""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import blocks_of
from adapters_lesson.batches import Texts, TokenTexts
from adapters_lesson.evaluation import evaluate
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.guards.training_guard import difference, identity_of, why_not_finite
from adapters_lesson.history import History
from adapters_lesson.memory_tricks import LowerBlocks

from .distributed import Team
from .settings import Settings


class Run:
    """What the loop works with, and what a checkpoint holds."""

    def __init__(self, model: nn.Module, texts: Texts, validation: Texts | None, settings: Settings, team: Team):
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError('nothing in the model requires gradients: prepare(model, "adapter") first')
        if settings.cache_frozen and isinstance(texts, TokenTexts):
            raise ValueError("cache_frozen is for texts with one label each, not for labels of tokens")
        self.model, self.texts, self.validation, self.settings, self.team = model, texts, validation, settings, team
        record = {**settings.record(), "examples": len(texts)}
        if team.processes > 1:
            record["processes"] = team.processes
            team.agree(record | {"texts": [texts.lengths, texts.counted(range(len(texts)))]})
        self.history = History(record, sum(p.numel() for p in self.parameters.values()))
        self.steps_per_epoch = math.ceil(len(texts) / settings.batch_size)
        self.total_steps = settings.steps or settings.epochs * self.steps_per_epoch
        self.shared = model  # what is called in a step
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        total, rising = self.total_steps, max(1, round(settings.warmup * self.total_steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / rising, (total - step) / max(1, total - rising))
        )
        self.lower: LowerBlocks | None = None
        self.after_step: list[Callable[[], object]] = []  # called in this order
        self.best: dict[str, torch.Tensor] = {}  # parameters at the best validation loss, if ``patience`` asks for them
        torch.manual_seed(settings.seed + 100_000 * team.rank)  # no two processes draw the same dropout masks

    def base_dtype(self) -> torch.dtype | None:
        """The type in which the frozen base computes; None for the one that it has. "auto" decides once a run."""
        dtype, record = self.settings.base_dtype, self.history.settings
        if dtype != "auto":
            return dtype  # type: ignore[return-value]
        if "bfloat16_time" not in record:
            tokens = self.settings.batch_size * sum(self.texts.lengths) // len(self.texts)
            record["bfloat16_time"] = self.team.from_main(lambda: bfloat16_time(self.model, tokens))
        return torch.bfloat16 if record["bfloat16_time"] < BFLOAT16_PAYS else None

    # --- A step ---

    def forward(self, rows: Sequence[int]) -> tuple[torch.Tensor, float]:
        """What to go back from, the loss on this process's rows of the batch, and the loss on the whole batch."""
        own, share = self.team.share(self.texts, rows)
        with nullcontext() if self.lower is None else self.lower.skipped(list(own)), self.team.autocast():
            loss = self.texts.loss(self.shared, own)
        value, stop = self.team.total([share * loss.item(), self.team.interrupted])
        if stop:
            raise KeyboardInterrupt
        # DistributedDataParallel takes the plain mean of the processes' gradients. Where the rows, or the tokens that
        # count, cannot be divided evenly, the factor is not 1.
        factor = share * self.team.processes
        return (loss if factor == 1 else loss * factor), value

    def is_finite(self, what: str, value: float) -> bool:
        """Whether the run can go on with that value; the history says why not."""
        if not math.isfinite(value):
            advice = "lower the learning rate" if self.history.steps else why_not_finite(self.model)
            self.history.stopped = f"the {what} became {value} at step {self.history.steps}: {advice}"
        return math.isfinite(value)

    # --- After a step ---

    def bar(self, progress: bool, after: ExitStack) -> Callable[[], object]:
        """tqdm's bar on the main process, closed with ``after``; returns what moves it on."""
        from tqdm.auto import tqdm

        # its bar for notebooks forgets its own variable
        silent = not progress or self.team.rank > 0 or bool(os.environ.get("TQDM_DISABLE"))
        self.shown = tqdm(total=self.total_steps, initial=self.history.steps, unit="step", disable=silent)
        after.callback(self.shown.close)
        return self.shown.update

    def validate(self) -> None:
        """Validate when it is time; with ``patience``, keep the best weights and stop when nothing gets better."""
        history, patience = self.history, self.settings.patience
        if history.steps % (self.settings.validate_every or self.steps_per_epoch) and history.steps < self.total_steps:
            return
        history.validation.append({"step": history.steps, **self.scores()})
        self.shown.set_postfix(accuracy=f"{history.accuracy:.3f}")
        losses = [entry["loss"] for entry in history.validation]
        since_best = len(losses) - 1 - losses.index(min(losses))
        if patience is not None and since_best == 0:
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        elif patience is not None and since_best >= patience:
            history.stopped = f"no better validation loss for {patience} validations"

    def scores(self) -> dict[str, float]:
        """What ``evaluate`` gives; each process looks at its part of the rows."""
        texts, team = self.validation, self.team
        assert texts is not None
        if team.processes == 1:
            return evaluate(self.model, texts)
        own = range(team.rank, len(texts), team.processes)
        part = evaluate(self.model, texts, rows=own) if own else {"loss": 0.0, "accuracy": 0.0}
        *sums, count = team.total([*(texts.counted(own) * value for value in part.values()), texts.counted(own)])
        return {name: value / count for name, value in zip(part, sums, strict=True)}

    def take(self, values: dict[str, torch.Tensor]) -> None:
        """Give parameters these values."""
        with torch.no_grad():
            for name, value in values.items():
                self.parameters[name].copy_(value)

    def tell(self, on_step: Callable[[History], None]) -> None:
        """Call ``on_step``; when it interrupts one of several processes, the others learn of it in the next step."""
        try:
            on_step(self.history)
        except KeyboardInterrupt:
            if self.team.processes == 1:
                raise
            self.team.interrupted = True

    def say_interrupted(self, progress: bool) -> None:
        """Note it, and say it where a bar is wanted: the caller goes on as if the run had come to its end."""
        self.history.stopped = "interrupted"
        if progress and self.team.rank == 0:
            done = f"interrupted after {self.history.steps} of {self.total_steps} training steps"
            print(f"{done}: the model keeps what it has learnt; for the whole run start it again", file=sys.stderr)

    # --- Checkpoints ---

    def save(self) -> None:
        """Write the checkpoint when it is time."""
        steps = self.history.steps
        if steps % self.settings.checkpoint_every and steps % self.steps_per_epoch:
            return
        state = {
            "history": vars(self.history),
            "best": self.best,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": self.team.gathered(torch.get_rng_state()),
            "identity": self.identity,
        }
        if self.team.rank == 0:
            path = str(self.settings.checkpoint)
            try:
                write_atomically(path, lambda temporary: torch.save(state, temporary))
            except (OSError, RuntimeError) as error:  # the run itself is well, and worth more than its checkpoint
                warnings.warn(f"the checkpoint {path} could not be written at step {steps} ({error}): "
                              "the run goes on, the file is that of an earlier step", stacklevel=2)  # fmt: skip

    def load(self, path: str | Path) -> None:
        """Go on from the checkpoint, if there is one. The main process reads it: another machine may not have it."""
        data = {"data": self.texts.tensors()}
        if self.validation is not None:
            data["validation data"] = self.validation.tensors()
        self.identity = identity_of(self.model, data)  # now, as ``base_dtype`` may cast the weights later
        state = self.team.from_main(lambda: self.read(path) if Path(path).exists() else None)
        if state is None:
            return
        self.history.__dict__.update(state["history"])
        self.take(state["parameters"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"][self.team.rank])

    def read(self, path: str | Path) -> dict[str, Any]:
        """The checkpoint, if it is one of this run."""
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            saved = {name: p.shape for name, p in state["parameters"].items()}
            settings = {k: v for k, v in state["history"]["settings"].items() if k != "bfloat16_time"}
            identity = state["identity"]
        except Exception as error:
            why = str(error).partition("\n")[0].partition(". ")[0]  # torch's advice would run what is in it
            raise ValueError(f"{path} is no checkpoint of this course ({why}): give another file") from error
        own = self.history.settings
        differing = [name for name in own | settings if settings.get(name) != own.get(name)]
        if not differing and saved != {name: p.shape for name, p in self.parameters.items()}:
            differing = ["trainable parameters"]
        if what := f"other {', '.join(differing)}" if differing else difference(identity, self.identity):
            raise ValueError(f"{path} is the checkpoint of a run with {what}: give another file, or delete it")
        return state


BFLOAT16_PAYS = 0.8  # below this ratio of times: what is not a matrix product takes as long, and the cast some time


def bfloat16_time(model: nn.Module, tokens: int, seconds: float = 0.1) -> float:
    """Time of the frozen matrix products of one block in bfloat16, as a multiple of that in single precision.

    The best of some rounds, measured on this processor in about ``seconds``; 1.0 when no whole module of a block is
    frozen. ``tokens`` are those of a batch: above 512 they do not change the ratio.
    """
    modules = [list(module.parameters(recurse=False)) for module in blocks_of(model)[0].modules()]
    frozen = [p for own in modules for p in own if p.ndim == 2 and not any(q.requires_grad for q in own)]
    products = {
        dtype: [
            (torch.ones(min(tokens, 512), p.shape[1], dtype=dtype), torch.ones(p.shape, dtype=dtype)) for p in frozen
        ]
        for dtype in (torch.float32, torch.bfloat16)
    }
    best, rounds, until = dict.fromkeys(products, math.inf), 0, time.perf_counter() + seconds
    while frozen and (rounds < 2 or time.perf_counter() < until):  # the first round also loads the kernels
        rounds += 1
        for dtype, pairs in products.items():
            start = time.perf_counter()
            for x, weight in pairs:
                x @ weight.T  # (tokens, rows)
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return round(best[torch.bfloat16] / best[torch.float32], 3) if frozen else 1.0
