"""How long a call takes, measured so that the comparison is fair: warmed up, interleaved, as medians with intervals."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch

Interval = tuple[float, float]


@dataclass(frozen=True)
class Latency:
    """What one contender took.

    Attributes:
        times: seconds of every timed call, in the order of the rounds.
        median, interval: seconds, with a 95 % bootstrap interval.
        ratio, ratio_interval: the median over the rounds of this contender's time by the first one's in the same round.
    """

    name: str
    times: tuple[float, ...]
    median: float
    interval: Interval
    ratio: float
    ratio_interval: Interval

    @property
    def overhead(self) -> float:
        """Per cent above the first contender; negative if faster."""
        return 100 * (self.ratio - 1)

    @property
    def overhead_interval(self) -> Interval:
        """The 95 % interval of ``overhead``."""
        return 100 * (self.ratio_interval[0] - 1), 100 * (self.ratio_interval[1] - 1)


@dataclass(frozen=True)
class LatencyTable:
    """The contenders by name, in the order in which they were given, and how they were measured. Print it."""

    rows: dict[str, Latency]
    repetitions: int
    warmup: int
    threads: int

    def __getitem__(self, name: str) -> Latency:
        return self.rows[name]

    def __str__(self) -> str:
        width = max(len("contender"), *map(len, self.rows))
        first = next(iter(self.rows))
        lines = [f"{'contender':{width}}  median, ms      95 % interval   against {first}      95 % interval"]
        for row in self.rows.values():
            median, low, high = (f"{1000 * value:.2f}" for value in (row.median, *row.interval))
            line = f"{row.name:{width}}  {median:>10}  {low:>8} – {high:>8}"
            if row.name != first:
                low, high = (f"{value:+.1f} %" for value in row.overhead_interval)
                line += f"  {f'{row.overhead:+.1f} %':>{8 + len(first)}}  {low:>8} – {high:>8}"
            lines.append(line)
        how = f"{self.repetitions} interleaved rounds after {self.warmup} for warming up, threads: {self.threads}"
        return "\n".join([*lines, how])


def measure_latency(
    contenders: Mapping[str, Callable[[], object]],
    repetitions: int = 30,
    warmup: int = 3,
    threads: int | None = None,
    *,
    inference: bool = True,
    seed: int = 0,
    on_round: Callable[[int], object] = lambda done: None,
) -> LatencyTable:
    """Time the contenders against each other; the first is what the others are compared with.

    Every round calls each contender once, in an order drawn anew, so that a slow spell of the machine hits all of them
    alike. Rounds, not single calls, are resampled for the intervals, so a ratio compares calls that were neighbours.
    The garbage collector rests meanwhile, and an accelerator's queue is waited for before each reading of the clock.

    Args:
        contenders: functions of no arguments by name, all set-up done before.
        repetitions: timed rounds.
        warmup: rounds before them that are not timed.
        threads: torch's threads during the measurement; None leaves them as they are.
        inference: call under ``torch.inference_mode``; False for training steps.
        seed: of the orders and of the bootstrap.
        on_round: called before every round, outside the timed calls, with the number of rounds timed so far. To show
            progress, or to end the measurement by an exception.

    Raises:
        ValueError: for no contenders, fewer than 5 repetitions, a negative warm-up, fewer than 1 thread, or a first
            contender too short for the clock.
        TypeError: for a contender that cannot be called.
    """
    _check(contenders, repetitions, warmup, threads)
    order, draw = list(contenders), random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with _quiet(threads), torch.inference_mode(inference):
        used = torch.get_num_threads()
        for turn in range(-warmup, repetitions):
            on_round(max(turn, 0))
            draw.shuffle(order)
            for name in order:
                seconds = _timed(contenders[name])
                if turn >= 0:
                    times[name].append(seconds)
    first, *_ = times.values()
    if min(first) <= 0:
        raise ValueError(f"{next(iter(times))!r} is too short for the clock: let one call do more work")
    generator = torch.Generator().manual_seed(seed)
    rows = {}
    for name, seconds_of in times.items():
        median, interval = _median(seconds_of, generator)
        ratio, ratio_interval = _median([a / b for a, b in zip(seconds_of, first, strict=True)], generator)
        rows[name] = Latency(name, tuple(seconds_of), median, interval, ratio, ratio_interval)
    return LatencyTable(rows, repetitions, warmup, used)


def _timed(call: Callable[[], object]) -> float:
    _wait_for_accelerator()
    start = perf_counter()
    call()
    _wait_for_accelerator()
    return perf_counter() - start


def _wait_for_accelerator() -> None:
    """A GPU is only told what to do and works it off later: without waiting, one times the telling."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _median(values: Sequence[float], generator: torch.Generator, resamples: int = 2000) -> tuple[float, Interval]:
    """The median and its 95 % percentile bootstrap interval."""
    sample = torch.tensor(values, dtype=torch.float64)
    rows = torch.randint(len(values), (resamples, len(values)), generator=generator)
    medians = sample[rows].quantile(0.5, dim=1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return sample.quantile(0.5).item(), (low, high)


@contextmanager
def _quiet(threads: int | None) -> Iterator[None]:
    """The asked number of threads and no garbage collection; afterwards both as before, also after an error."""
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()


def _check(contenders: Mapping[str, object], repetitions: int, warmup: int, threads: int | None) -> None:
    if not contenders:
        raise ValueError('there is nothing to measure: give functions by name, {"bare": lambda: model(x), ...}')
    for name, call in contenders.items():
        if not callable(call):
            raise TypeError(
                f"{name!r} is a {type(call).__name__} and cannot be called: give a function, lambda: model(x), "
                "and not its result model(x)"
            )
    for label, value, least in (("repetitions", repetitions, 5), ("warmup", warmup, 0), ("threads", threads, 1)):
        if label == "threads" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{label} must be a whole number of at least {least}, not {value!r}")
