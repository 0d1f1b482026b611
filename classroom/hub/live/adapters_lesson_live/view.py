"""What the teacher sees: who is where, how many have solved each exercise, and what its check says most often.

All of it is in memory, of those who share and as long as they do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from .page import exercise, table
from .report import Try, read
from .words import exercises

PAUSE = 2.0  # seconds at least between two reports of a learner
SILENCE = 900.0  # seconds after which a learner is forgotten whose server says nothing any more
STUCK = 3  # times the same mistake
SENTENCES = 3  # shown of an exercise


class TooOften(Exception):
    """A learner's reports come too fast."""


class Learner(NamedTuple):
    """What is known of one learner: tries by exercise, or what is wrong with the report, and when it came."""

    tries: dict[str, Try]
    problem: str
    heard: float

    @property
    def last(self) -> tuple[str, Try] | None:
        """The exercise that was checked last."""
        order = list(exercises())
        return max(self.tries.items(), key=lambda item: (item[1].at, order.index(item[0])), default=None)


class Exercise(NamedTuple):
    """How many have solved an exercise, how many have tried it without, and what its check says to these, by number."""

    number: str
    solved: int
    wrong: int
    said: list[tuple[str, int]]


class Class:
    """The learners who share, by their name on the hub. ``clock`` tells the seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._learners: dict[str, Learner] = {}

    def take(self, name: str, body: bytes) -> None:
        """Take a learner's report.

        Raises:
            TooOften: where the last one has just come.
            ValueError: where it is none; the teacher is told so.
        """
        now = self.clock()
        before = self._learners.get(name)
        if before and 0 <= now - before.heard < PAUSE:
            raise TooOften
        try:
            said = read(body, now)
        except ValueError as error:
            self._learners[name] = Learner({}, f"what came from the learner's server cannot be used: {error}", now)
            raise
        self._learners[name] = Learner({}, said, now) if isinstance(said, str) else Learner(said, "", now)

    def forget(self, name: str) -> None:
        """A learner shares no more."""
        self._learners.pop(name, None)

    def learners(self) -> dict[str, Learner]:
        """Who shares now, by name."""
        now = self.clock()
        self._learners = {name: one for name, one in self._learners.items() if now - one.heard < SILENCE}
        return dict(sorted(self._learners.items()))

    def exercises(self) -> list[Exercise]:
        """Those that somebody has tried. Where most are wrong now comes first."""
        found = []
        for number in exercises():
            tries = [one.tries[number] for one in self.learners().values() if number in one.tries]
            said = Counter(one.said for one in tries if not one.done and one.said)
            solved = sum(one.done for one in tries)
            if tries:
                found.append(Exercise(number, solved, len(tries) - solved, said.most_common(SENTENCES)))
        return sorted(found, key=lambda one: -one.wrong)


def ago(seconds: float) -> str:
    """A time that has passed, in words."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return "now"
    return f"{minutes} min ago" if minutes < 60 else f"{minutes // 60} h ago" if minutes < 48 * 60 else "days ago"


def tables(those: Class) -> str:
    """The class as HTML, without the page around it."""
    learners, now = those.learners(), those.clock()
    if not learners:
        return "<p>Nobody shares now. Learners who want to open <code>/hub/user-redirect/share</code> on this hub.</p>"
    rates = [_exercise(one, len(learners)) for one in those.exercises()]
    solved = ("Exercise", "Solved", "Wrong now", "What its check says most often")
    checks = table("Which check fails most", solved, rates) if rates else ""
    where = [_row(name, one, now) for name, one in learners.items()]
    heads = ("Learner", "Exercise", "State", "Last check", "What the check says")
    share = "1 learner shares." if len(learners) == 1 else f"{len(learners)} learners share."
    return f"<p>{share} Nobody else is shown.</p>{checks}{table('Who is where', heads, where)}"


def _row(name: str, one: Learner, now: float) -> str:
    head = f'<th scope="row">{escape(name)}</th>'
    if one.problem:
        return f'<tr>{head}<td colspan="4" class="stuck">{escape(one.problem)}</td></tr>'
    if one.last is None:
        return f'<tr>{head}<td colspan="4">nothing checked yet</td></tr>'
    number, last = one.last
    state = "✔ done" if last.done else f"✘ wrong, {last.times} times the same" if last.times >= STUCK else "✘ wrong"
    stuck = ' class="stuck"' if not last.done and last.times >= STUCK else ""
    when = f'<span class="when">{ago(now - last.at)}</span>' if last.at else ""
    return (
        f"<tr>{head}<td>{exercise(number)}</td><td{stuck}>{state}</td><td>{when}</td><td>{escape(last.said)}</td></tr>"
    )


def _exercise(one: Exercise, learners: int) -> str:
    said = "".join(f"<li>{escape(said)}{f' ({times})' if times > 1 else ''}</li>" for said, times in one.said)
    rects = f'<rect width="{learners}" height="1"/><rect class="part" width="{one.solved}" height="1"/>'
    bar = f'<svg viewBox="0 0 {learners} 1" preserveAspectRatio="none" aria-hidden="true">{rects}</svg>'
    return (
        f'<tr><th scope="row">{exercise(one.number)}</th><td>{one.solved} of {learners}{bar}</td><td>{one.wrong}</td>'
        f"<td>{f'<ul>{said}</ul>' if said else ''}</td></tr>"
    )
