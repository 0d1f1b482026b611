"""What a class has learnt: `python classroom/gains.py FOLDER` reads the progress.json files that learners handed in.

Nobody has to hand one in, and the table has no names: a line says how many, and how much. Files that the course did not
write are named and left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from adapters_lesson.course.record import read_record


def table(folder: Path) -> list[str]:
    """The lines of the table, for all progress.json files below a folder, by whatever names."""
    before, after, exercises, problems = [], [], [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            record = read_record(path)
        except (ValueError, OSError) as error:
            problems.append(f"{path.relative_to(folder)} is left out: {error}")
            continue
        exercises.append(list(record["exercises"].values()).count("done"))
        if record["concepts"].keys() >= {"before", "after"}:
            before.append(record["concepts"]["before"]["right"])
            after.append(record["concepts"]["after"]["right"])
    lines = [f"{len(exercises)} files; exercises done: {mean(exercises):.1f} on average"] if exercises else ["no files"]
    if before:
        gains = [b - a for a, b in zip(before, after, strict=True)]
        lines.append(f"{len(before)} took both tests: {mean(before):.1f} of 12 right before, {mean(after):.1f} after")
        lines.append(f"gain: {mean(gains):+.1f} on average, from {min(gains):+d} to {max(gains):+d}")
    return lines + problems


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("give a folder with the files that learners handed in: python classroom/gains.py FOLDER")
    print("\n".join(table(Path(sys.argv[1]))))
