"""How long a call takes, measured so that the comparison is fair: warmed up, interleaved, as medians with intervals."""

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import torch

from adapters_lesson.guards.plain_values import check_whole

Interval = tuple[float, float]


@dataclass(frozen=True)
class Latency:
    """What one contender took; the intervals are 95 % bootstrap intervals."""

    name: str
    times: tuple[float, ...]  # seconds of every timed call, in the order of the rounds
    median: float  # seconds
    interval: Interval
    ratio: float  # the median over the rounds of this contender's time by the first one's in the same round
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
        first, width = next(iter(self.rows)), max(map(len, ("contender", *self.rows)))
        lines = [f"{'contender':{width}}  median, ms      95 % interval   against {first}      95 % interval"]
        for row in self.rows.values():
            median, low, high = (f"{1000 * value:.2f}" for value in (row.median, *row.interval))
            lines.append(f"{row.name:{width}}  {median:>10}  {low:>8} – {high:>8}")
            if row.name != first:
                more, low, high = (f"{value:+.1f} %" for value in (row.overhead, *row.overhead_interval))
                lines[-1] += f"  {more:>{8 + len(first)}}  {low:>8} – {high:>8}"
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

    Every round calls each contender once, in an order drawn anew, so that a slow spell of the machine hits all alike.
    Rounds, not single calls, are resampled for the intervals, so a ratio compares calls that were neighbours. The
    garbage collector rests meanwhile, and an accelerator's queue is waited for before each reading of the clock.

    Args:
        contenders: functions of no arguments by name, all set-up done before.
        repetitions, warmup: timed rounds, at least 5, and rounds before them that are not timed.
        threads: torch's threads during the measurement; None leaves them as they are.
        inference: call under ``torch.inference_mode``; False for training steps.
        on_round: called before every round with the number of rounds timed so far, to show progress or to end it all.

    Raises ValueError for senseless numbers, or a first contender too short for the clock, TypeError for no function.
    """
    if not contenders:
        raise ValueError('there is nothing to measure: give functions by name, {"bare": lambda: model(x), ...}')
    for name, call in contenders.items():
        if not callable(call):
            what = f"{name!r} is a {type(call).__name__} and cannot be called"
            raise TypeError(f"{what}: give a function, lambda: model(x), and not its result model(x)")
    threads = torch.get_num_threads() if threads is None else threads
    for label, value, least in (("repetitions", repetitions, 5), ("warmup", warmup, 0), ("threads", threads, 1)):
        check_whole(label, value, least)
    # A GPU is only told what to do: without waiting one times the telling.
    wait = torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
    order, draw = list(contenders), random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with ExitStack() as afterwards, torch.inference_mode(inference):
        afterwards.callback(torch.set_num_threads, torch.get_num_threads())  # also after an error
        torch.set_num_threads(threads)
        if gc.isenabled():
            afterwards.callback(gc.enable)
        gc.collect()
        gc.disable()
        for turn in range(-warmup, repetitions):
            on_round(max(turn, 0))
            draw.shuffle(order)
            for name in order:
                wait()
                start = perf_counter()
                contenders[name]()
                wait()
                if turn >= 0:
                    times[name].append(perf_counter() - start)
    first, *_ = times.values()
    if min(first) <= 0:
        raise ValueError(f"{next(iter(times))!r} is too short for the clock: let one call do more work")
    generator, rows = torch.Generator().manual_seed(seed), {}
    for name, took in times.items():
        ratios = [a / b for a, b in zip(took, first, strict=True)]
        rows[name] = Latency(name, tuple(took), *_median(took, generator), *_median(ratios, generator))
    return LatencyTable(rows, repetitions, warmup, threads)


def _median(values: Sequence[float], generator: torch.Generator) -> tuple[float, Interval]:
    """The median and its 95 % percentile bootstrap interval."""
    sample = torch.tensor(values, dtype=torch.float64)
    rows = torch.randint(len(values), (2000, len(values)), generator=generator)
    medians = sample[rows].quantile(0.5, dim=1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return sample.quantile(0.5).item(), (low, high)
