"""One description of a training run: for `train`, the laboratory, the command line and the scripts in `data`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from adapters_lesson.guards.config_guard import check_number, check_whole
from adapters_lesson.guards.safe_files import check_writable


@dataclass(frozen=True)
class Settings:
    """How ``train`` trains; these lines are also the help of the command line.

    Attributes:
        epochs: how often every text is seen.
        steps: take that many steps instead of whole epochs.
        batch_size: texts a step, of all processes together.
        learning_rate: the highest: it rises to it and then falls to zero, both linearly.
        warmup: the share of the steps in which the learning rate rises.
        weight_decay: that of AdamW.
        max_grad_norm: a longer gradient is cut to this length.
        validate_every: validate after that many steps, and after the last, instead of after each epoch.
        patience: stop when the validation loss has not improved that many times, and return to the best weights.
        seed: decides about the order of the texts and about dropout.
        checkpoint: a file from which the same run goes on, bit for bit, where an earlier one was cut off.
        checkpoint_every: write it after that many steps, and after each epoch.
        base_dtype: let the frozen base compute in this type, such as bfloat16; auto: in bfloat16 if it is faster here.
        cache_frozen: compute what lies below the lowest trained block once for each text.
    """

    epochs: int = 4
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    validate_every: int | None = None
    patience: int | None = None
    seed: int = 0
    checkpoint: str | Path | None = None
    checkpoint_every: int = 50
    base_dtype: torch.dtype | str | None = None
    cache_frozen: bool = False

    def __post_init__(self) -> None:
        own = vars(self)  # which even a frozen one lets us change
        for name in _WHOLE:
            if own[name] is not None or getattr(Settings, name) is not None:
                own[name] = check_whole(name, own[name], 0 if name == "seed" else 1)
        for name, (wanted, fits) in _NUMBERS.items():
            own[name] = check_number(name, own[name], f"must be {wanted}", fits)
        if not isinstance(self.cache_frozen, bool):
            raise ValueError(f"cache_frozen must be True or False, not {self.cache_frozen!r}")
        given = dtype = self.base_dtype
        if isinstance(given, str) and given != "auto":
            dtype = getattr(torch, given.removeprefix("torch."), "?")
        if dtype not in (None, "auto") and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(
                f'base_dtype must be a floating-point type such as "bfloat16", "auto" or None, not {given!r}'
            )
        own["base_dtype"] = dtype
        if self.checkpoint is not None:
            check_writable("checkpoint", Path(self.checkpoint))
        elif self.checkpoint_every != Settings.checkpoint_every:
            raise ValueError("checkpoint_every does nothing without checkpoint: give a file, checkpoint=FILE")

    def record(self) -> dict[str, Any]:
        """What decides how a run goes, as plain values for a history: so not where it is kept."""
        record = {f.name: getattr(self, f.name) for f in fields(Settings) if not f.name.startswith("checkpoint")}
        return record | {"base_dtype": self.base_dtype and str(self.base_dtype)}


_WHOLE = ("epochs", "steps", "batch_size", "validate_every", "patience", "checkpoint_every", "seed")
_NUMBERS = {
    "learning_rate": ("a finite number above 0", lambda x: 0 < x < math.inf),
    "max_grad_norm": ("a number above 0", lambda x: x > 0),
    "warmup": ("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "weight_decay": ("a finite number of at least 0", lambda x: 0 <= x < math.inf),
}


def settings_with(settings: Settings | None, changes: dict[str, Any]) -> Settings:
    """``settings``, or the defaults, with these ``changes``. Raises ValueError for a name that is none of theirs."""
    if not isinstance(settings, (Settings, type(None))):
        raise ValueError(f"settings must be a Settings, not {settings!r:.40}: name what you want, train(..., epochs=4)")
    names = [f.name for f in fields(settings or Settings)]
    for name in changes:
        if name not in names:
            near = get_close_matches(name, [*names, *_OFTEN_CALLED], 1, 0.7)
            hint = f"do you mean {_OFTEN_CALLED.get(near[0], near[0])}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"there is no setting {name!r}: {hint}")
    return replace(settings or Settings(), **changes)


_OFTEN_CALLED = {"lr": "learning_rate", "num_train_epochs": "epochs", "max_steps": "steps", "bs": "batch_size"}
_OFTEN_CALLED |= {"per_device_train_batch_size": "batch_size", "warmup_ratio": "warmup", "early_stopping": "patience"}
