"""Several runs one after the other, as the work of a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..experiments import Run, Settings, run_experiment
from ..history import History
from .job import Job

EVERY = 0.5  # seconds between two reports of a run that goes on


def run_series(
    job: Job,
    settings: Sequence[Settings],
    keep: Callable[[Run], Run],
    tell: Callable[[str, float], None],
    show: Callable[[Run | None], None],
) -> list[Run]:
    """Train with each of the ``settings``; a run that is stopped is kept if it has taken a step.

    Args:
        keep: called with every run that has ended; returns it with its number.
        tell: called with where the series stands, and the share that is done, in [0, 1].
        show: called with the run that goes on, twice a second; with None when it has ended.
    """
    begun, total, before = time.monotonic(), sum(one.steps for one in settings), 0

    def worked() -> float:
        return time.monotonic() - begun - job.rested

    runs = []
    for i, one in enumerate(settings, 1):
        watch = _Watch(one, f"run {i} of {len(settings)}", worked, before, total, tell, show)
        tell(f"run {i} of {len(settings)}: getting ready", before / total)
        try:
            run = run_experiment(one, watch, job.check)
        finally:
            show(None)
        if run.history.steps:
            runs.append(keep(run))
        job.check()
        before += one.steps
    return runs


class _Watch:
    """Reports a run while it goes on: called after every step, speaks when ``EVERY`` has passed."""

    def __init__(
        self,
        settings: Settings,
        label: str,
        worked: Callable[[], float],
        before: int,
        total: int,
        tell: Callable[[str, float], None],
        show: Callable[[Run | None], None],
    ) -> None:
        self.settings, self.label, self.worked, self.before, self.total = settings, label, worked, before, total
        self.tell, self.show, self.spoken = tell, show, 0.0

    def __call__(self, history: History) -> None:
        if time.monotonic() - self.spoken < EVERY:
            return
        share = (self.before + history.steps) / self.total
        left = self.worked() * (1 - share) / share
        where = f"{self.label}, step {history.steps} of {self.settings.steps}"
        self.tell(f"{where}, loss {history.loss[-1]:.3f}, about {left:.0f} s left", share)
        self.show(Run(self.settings, history, history.trainable))
        self.spoken = time.monotonic()  # after the picture, so that a slow one does not crowd out the training
