"""Seconds that each lesson takes from a fresh kernel: `python tests/benchmarks/lesson_times.py`.

Targets on two cores: 60 s a lesson, 180 s for lesson 07.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
import build


def main() -> None:
    for lesson in build.lessons():
        for edition in build.EDITIONS:
            start = time.perf_counter()
            build.execute(build.build(lesson, edition))
            print(f"{lesson:24} {edition:9} {time.perf_counter() - start:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
