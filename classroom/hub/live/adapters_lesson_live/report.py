"""What a learner shares: a report of exercises, of which every word is the course's.

A report is ``{"exercises": {"1.3": {"done": false, "at": 1767225600, "said": "…", "times": 2}}}``: whether the exercise
is done, the second (since 1970) of its last check, and while it is not done what the check said and how many times. Of
a progress.json that cannot be used it is ``{"problem": "…"}``, one of PROBLEMS.

Sentences come from the course's own list, with "…" for what they say of the learner's answer; so no code and no text of
a learner's can be in a report, and who receives one can hold every word of it against the list.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from .words import exercises, sentence, sentences

LONGEST = 64 * 1024  # bytes of a report; one of all exercises has at most about thirty thousand
OF_A_FILE = 2**20  # bytes of a progress.json
CLOCKS = 300  # seconds by which two machines' clocks may differ
LINK, BIG, ALTERED = (
    "progress.json is no file",
    "progress.json is above 1 MB",
    "progress.json was altered, or is damaged",
)
PROBLEMS = (LINK, BIG, ALTERED)


class Try(NamedTuple):
    """How far an exercise is: ``at`` in seconds since 1970, 0 where it is not known."""

    done: bool
    at: int
    said: str
    times: int


def make(progress: Path | None) -> dict[str, Any]:
    """The report of a progress.json; of none, where nothing has been checked yet, an empty one."""
    if progress is None:
        return {"exercises": {}}
    try:
        file = os.open(progress, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # no link, and no waiting for a pipe
    except OSError:
        return {"problem": LINK}
    try:
        there = os.fstat(file)
        if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid():
            return {"problem": LINK}
        content = os.read(file, OF_A_FILE + 1)
    finally:
        os.close(file)
    if len(content) > OF_A_FILE:
        return {"problem": BIG}
    try:
        record = json.loads(content)
        tries = {number: _try(number, state, record) for number, state in record["exercises"].items()}
        return {"exercises": {number: one._asdict() for number, one in tries.items() if number in exercises()}}
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return {"problem": ALTERED}


def _try(number: str, state: str, record: dict[str, Any]) -> Try:
    """What a record knows of an exercise; those of older versions have no tries."""
    last = record.get("tries", {}).get(number, {"at": 0, "said": "", "times": 0})
    if state not in ("done", "tried"):
        raise ValueError(f"{number} is neither done nor tried")
    if state == "done":
        return Try(True, int(last["at"]), "", 0)
    return Try(False, int(last["at"]), sentence(number, last["said"]), min(max(int(last["times"]), 0), 999))


def read(body: bytes, now: float) -> dict[str, Try] | str:
    """What a report says: tries by exercise, or one of PROBLEMS. ``now`` is in seconds since 1970.

    Raises:
        ValueError: where it is no report, in a sentence that quotes nothing of it.
    """
    if len(body) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if isinstance(content, dict) and content.keys() == {"problem"} and content["problem"] in PROBLEMS:
        return str(content["problem"])
    if not isinstance(content, dict) or content.keys() != {"exercises"} or not isinstance(content["exercises"], dict):
        raise ValueError("it is no report of exercises")
    for number, one in content["exercises"].items():
        if number not in exercises():
            raise ValueError("it has an exercise that the course does not have")
        if not isinstance(one, dict) or one.keys() != set(Try._fields):
            raise ValueError(f"its exercise {number} has not what belongs to an exercise")
        if [type(one[name]) for name in Try._fields] != [bool, int, str, int] or not 0 <= one["times"] <= 999:
            raise ValueError(f"its exercise {number} has a value of the wrong kind")
        if not 0 <= one["at"] <= now + CLOCKS:
            raise ValueError(f"its exercise {number} was checked at an impossible time")
        if one["said"] not in sentences(number) or (one["done"] and one["said"]):
            raise ValueError(f"its exercise {number} has a sentence that no check says")
    return {number: Try(**one) for number, one in content["exercises"].items()}
