"""Make the three aspect tasks: `python data/make_aspects.py` rewrites data/aspects/, the same bytes every time."""

import csv
import hashlib
import random
from pathlib import Path

from adapters_lesson.guards.safe_files import write_atomically

HERE = Path(__file__).parent / "aspects"
SIZES = {"train": 1500, "validation": 500, "test": 2000}
SEED = 20

NOUNS = """pool screen kitchen battery lobby keyboard garden staff camera breakfast
balcony speaker view lamp soup window sofa engine ticket bread""".split()
GOOD = "superb fantastic excellent lovely wonderful brilliant delightful great perfect splendid".split()
BAD = "awful terrible dreadful horrible poor disappointing miserable lousy useless shabby".split()
TEMPLATES = (
    "The {a} was {x}, and the {b} was {y}.",
    "The {a} was {x}, but the {b} was {y}.",
    "While the {a} was {x}, the {b} was {y}.",
    "We found the {a} {x}, whereas the {b} was {y}.",
    "I thought the {a} was {x}; the {b}, I must say, was {y}.",
    "As for the {a}, it was {x}, and the {b} seemed {y}.",
)
NEGATED = 0.3  # this share of the judgements is said with "not"


def judgement(good: bool, rng: random.Random) -> str:
    """A word or two that judge something good or bad."""
    negated = rng.random() < NEGATED
    word = rng.choice(GOOD if good != negated else BAD)
    return f"not {word}" if negated else word


def example(rng: random.Random) -> dict[str, str]:
    """One sentence about two aspects, one of them named before the colon, and the answers of the three tasks."""
    first, second = rng.sample(NOUNS, 2)
    good = {first: rng.random() < 0.5, second: rng.random() < 0.5}
    x, y = judgement(good[first], rng), judgement(good[second], rng)
    sentence = rng.choice(TEMPLATES).format(a=first, x=x, b=second, y=y)
    named, other = (first, second) if rng.random() < 0.5 else (second, first)
    agree = good[named] == good[other]
    return {
        "text": f"{named}: {sentence}",
        "aspect_sentiment": "positive" if good[named] else "negative",
        "aspect_comparison": "neither" if agree else "named" if good[named] else "other",
        "aspect_agreement": "agree" if agree else "differ",
    }


def make() -> dict[str, list[dict[str, str]]]:
    """The three splits; no text stands in two of them."""
    rng, seen, splits = random.Random(SEED), set(), {}
    for split, size in SIZES.items():
        rows: list[dict[str, str]] = []
        while len(rows) < size:
            row = example(rng)
            if row["text"] not in seen:
                seen.add(row["text"])
                rows.append(row)
        splits[split] = rows
    return splits


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows with a header, the same bytes on every system."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(folder: Path = HERE) -> None:
    """Write the splits and their checksums into ``folder``."""
    sums = []
    for split, rows in make().items():
        path = folder / f"{split}.csv"
        write_atomically(path, lambda temporary, rows=rows: write_csv(temporary, rows))  # type: ignore[misc]
        sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    write_atomically(folder / "SHA256SUMS", lambda temporary: temporary.write_text("".join(sums)))


if __name__ == "__main__":
    main()
