"""`make lesson-times`: seconds that each lesson takes from a fresh kernel, written to data/results/lesson_times.json.

Targets on two cores: 10 minutes for one edition of the whole course, 120 s a lesson, 180 s for lessons 05 and 07.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from adapters_lesson.files import write_atomically

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "data" / "results" / "lesson_times.json"
COURSE_LIMIT, LESSON_LIMIT, LIMITS = 600, 120, {"05_training": 180, "07_a_real_model": 180}

sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402


def table(results: dict[str, Any]) -> str:
    """Seconds of each lesson in each edition, their sums, and which are above their limit."""
    editions, lessons = results["editions"], results["seconds"]
    lines = [f"{'':28}" + "".join(f"{edition:>10}" for edition in editions)]
    for lesson, seconds in lessons.items():
        limit = LIMITS.get(lesson, LESSON_LIMIT)
        above = f"   above {limit} s" if max(seconds.values()) > limit else ""
        lines.append(f"{lesson:28}" + "".join(f"{seconds[edition]:8.1f} s" for edition in editions) + above)
    sums = {edition: sum(seconds[edition] for seconds in lessons.values()) for edition in editions}
    verdict = "met" if max(sums.values()) <= COURSE_LIMIT else "NOT MET"
    lines.append(f"{'the whole course':28}" + "".join(f"{sums[edition]:8.1f} s" for edition in editions))
    return "\n".join([*lines, f"target: an edition in at most {COURSE_LIMIT} s: {verdict}"])


def main() -> None:
    """Execute both editions of every lesson, one after another."""
    seconds: dict[str, dict[str, float]] = {}
    for lesson in build.lessons():
        seconds[lesson] = {}
        for edition in build.EDITIONS:
            start = time.perf_counter()
            build.execute(build.build(lesson, edition))
            seconds[lesson][edition] = round(time.perf_counter() - start, 1)
            print(f"{lesson:24} {edition:9} {seconds[lesson][edition]:6.1f} s", flush=True)
    results = {
        "command": "make lesson-times",
        "cores": os.cpu_count(),
        "editions": list(build.EDITIONS),
        "seconds": seconds,
    }
    write_atomically(RESULTS, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))
    print(table(results))


if __name__ == "__main__":
    main()
