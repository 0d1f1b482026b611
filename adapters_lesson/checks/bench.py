"""The contenders and the clock that check 9.1 hands in."""

from __future__ import annotations

from collections.abc import Callable

ROUNDS, WARMUP = 5, 2
_COLD = 64.0  # seconds of a call that is not warm, unlike any other


class Bench:
    """A clock that only the contenders move, and what they saw."""

    def __init__(self) -> None:
        self.now, self.reads = 0.0, 0
        self.calls: list[str] = []
        self.timed = {"a": [3.0, 1.0, 2.0, 9.0, 2.5], "b": [4.0, 5.0, 4.5, 20.0, 4.25], "c": [7.0, 6.0, 8.0, 6.5, 30.0]}
        self.times = {name: [_COLD] * WARMUP + times for name, times in self.timed.items()}

    def clock(self) -> float:
        """Seconds."""
        self.reads += 1
        return self.now

    def contender(self, name: str) -> Callable[[], None]:
        """A function that takes the next of its times."""

        def call() -> None:
            done = self.calls.count(name)
            self.now += self.times[name][done] if done < len(self.times[name]) else _COLD
            self.calls.append(name)

        return call
