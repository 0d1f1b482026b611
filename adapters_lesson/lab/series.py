"""Several runs one after the other, as the work of a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..experiments import Run, Settings, run_experiment
from ..history import History
from .job import Job

EVERY = 1.5  # seconds between two reports of a run that goes on: a picture takes the cores away from the training


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
        show: called with the run that goes on, every ``EVERY`` seconds; with None when it has ended.
    """
    total, before, runs = sum(one.steps for one in settings), 0, []
    for i, one in enumerate(settings, 1):
        label = f"run {i} of {len(settings)}"
        tell(f"{label}: getting ready", before / total)
        watch = _Watch(job, label, before, total)

        def on_step(history: History, one: Settings = one, watch: _Watch = watch) -> None:
            if watch.is_time():
                tell(*watch.report(history, one))
                show(Run(one, history, history.trainable))
                watch.spoken()

        try:
            run = run_experiment(one, on_step, job.check)
        finally:
            show(None)
        if run.history.steps:
            runs.append(keep(run))
        job.check()
        before += one.steps
    return runs


class _Watch:
    """When a run is reported, and how long it and those after it will take."""

    def __init__(self, job: Job, label: str, before: int, total: int) -> None:
        self.job, self.label, self.before, self.total = job, label, before, total
        self.first: tuple[float, int] | None = None  # when the first step was reported: what is before it is no work
        self.last = 0.0

    def now(self) -> float:
        """Seconds, without those for which the job was paused."""
        return time.monotonic() - self.job.rested

    def is_time(self) -> bool:
        """Whether ``EVERY`` has passed since the last report."""
        return time.monotonic() - self.last >= EVERY

    def spoken(self) -> None:
        """To be called after a report's picture, so that a slow one does not crowd out the training."""
        self.last = time.monotonic()

    def report(self, history: History, settings: Settings) -> tuple[str, float]:
        """Where the run stands, and the share of the series that is done."""
        text = f"{self.label}, step {history.steps} of {settings.steps}, loss {history.loss[-1]:.3f}"
        done = self.before + history.steps
        if self.first is None:
            self.first = self.now(), history.steps
        else:
            since, steps = self.first
            text += f", about {(self.now() - since) / (history.steps - steps) * (self.total - done):.0f} s left"
        return text, done / self.total
