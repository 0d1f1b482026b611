"""`make lesson-times`: seconds of each complete lesson from a fresh kernel, kept in data/results/lesson_times.json.

Targets on two cores: 12 minutes for the course without the language model of lesson 10, which has 4 minutes of its own;
120 s a lesson, 180 s for lessons 05 and 07.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from adapters_lesson.guards.safe_files import write_atomically

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "data" / "results" / "lesson_times.json"
LANGUAGE_MODEL = "10_a_language_model"
COURSE_LIMIT, LESSON_LIMIT, LIMITS = 720, 120, {"05_training": 180, "07_a_real_model": 180, LANGUAGE_MODEL: 240}

sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402


def table(results: dict[str, Any]) -> str:
    """Seconds of each lesson, their sum, and which are above their limit."""
    lines = []
    for lesson, seconds in results["seconds"].items():
        limit = LIMITS.get(lesson, LESSON_LIMIT)
        lines.append(f"{lesson:28}{seconds:8.1f} s" + (f"   above {limit} s" if seconds > limit else ""))
    rest = without_language_model(results["seconds"])
    lines.append(f"{'the whole course':28}{sum(results['seconds'].values()):8.1f} s")
    lines.append(f"{'without lesson 10':28}{rest:8.1f} s")
    return "\n".join([*lines, f"target: at most {COURSE_LIMIT} s: {'met' if rest <= COURSE_LIMIT else 'NOT MET'}"])


def without_language_model(seconds: dict[str, float]) -> float:
    """Seconds of all lessons but 10."""
    return sum(seconds.values()) - seconds.get(LANGUAGE_MODEL, 0)


def main() -> None:
    """Execute the complete edition of every lesson, one after another."""
    seconds: dict[str, float] = {}
    for source in build.sources():
        start = time.perf_counter()
        build.execute(build.build(source, "solution"))
        seconds[source.stem] = round(time.perf_counter() - start, 1)
        print(f"{source.stem:28}{seconds[source.stem]:8.1f} s", flush=True)
    results = {"command": "make lesson-times", "cores": os.cpu_count(), "seconds": seconds}
    write_atomically(RESULTS, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))
    print(table(results))


if __name__ == "__main__":
    main()
