"""Make the questions and answers of lesson 10: `python data/make_answers.py` rewrites the tables in data/answers/.

It writes the same bytes every time.

data/answers/matters.txt and prose.txt are written by hand. Each line of the first is one matter: what is asked, its
name in the log, and two steps. A matter is asked about in four ways and answered in one, as an entry in a ship's log.
"""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from make_aspects import write_csv  # type: ignore[import-not-found]

from adapters_lesson.course.language.answers import log_entry
from adapters_lesson.guards.safe_files import write_atomically

HERE = Path(__file__).parent / "answers"
SEED = 10
HELD_OUT = {"validation": 2, "test": 3}  # matters of each topic; the others are for training
ASKING = {
    "how": (
        "How do I {}?",
        "What is the best way to {}?",
        "Can you tell me how to {}?",
        "I want to {}. What should I do?",
    ),
    "why": (
        "Why is it that {}?",
        "Can you explain why {}?",
        "Do you know why {}?",
        "I have noticed that {}. What is the reason?",
    ),
}
Row = dict[str, str]


def topics(text: str) -> Iterator[list[list[Row]]]:
    """For each topic its matters, and for each of them a row for every way of asking."""
    for part in text.strip().split("\n\n"):
        heading, *lines = part.splitlines()
        kind, topic = heading.removeprefix("[").split("] ")
        matters = [[cell.strip() for cell in line.split("|")] for line in lines]
        yield [
            [{"topic": topic, "question": way.format(asked), "answer": log_entry(*entry)} for way in ASKING[kind]]
            for asked, *entry in matters
        ]


def make() -> dict[str, list[Row]]:
    """The three splits. In training each matter is asked about in all four ways, in the others in one."""
    rng = random.Random(SEED)
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for matters in topics((HERE / "matters.txt").read_text(encoding="utf-8")):
        rng.shuffle(matters)
        for split, number in HELD_OUT.items():
            splits[split] += [rng.choice(matters.pop()) for _ in range(number)]
        splits["train"] += [row for ways in matters for row in ways]
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def main(folder: Path = HERE) -> None:
    """Write the splits, and the checksums of all files that are read later, into ``folder``."""
    for split, rows in make().items():
        write_atomically(folder / f"{split}.csv", lambda path, rows=rows: write_csv(path, rows))  # type: ignore[misc]
    files = [*(folder / f"{split}.csv" for split in ("train", "validation", "test")), HERE / "prose.txt"]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    write_atomically(folder / "SHA256SUMS", lambda path: path.write_bytes("".join(sums).encode()))


if __name__ == "__main__":
    main()
