"""What `make bench` makes of its measurements: ratios with their spread, held against the targets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Comparison(NamedTuple):
    """A ratio ``a / b`` to be formed at every point of one kind; ``limit`` is the target, None where there is none."""

    title: str
    what: str
    a: str
    b: str
    limit: float | None = None
    below: bool = False  # the ratio has to stay below the limit, not just at it
    batch: int | None = None  # at this batch size only


COMPARISONS = [
    Comparison("training, dropout on both sides", "training step", "ours_dropout", "theirs", 1.0),
    Comparison("training, dropout on neither side", "training step", "ours", "theirs_no_dropout", 1.0),
    Comparison("training, our default: no dropout in the frozen base", "training step", "ours", "theirs", 0.85),
    Comparison("training, bf16 frozen base", "training step", "ours_bf16", "theirs", 0.55),
    Comparison("training against full fine-tuning", "training step", "ours", "full", 0.60),
    Comparison("the same, dropout on both sides", "training step", "ours_dropout", "full"),
    Comparison("training against peft's LoRA", "training step", "ours", "lora"),
    Comparison("training, how far above its floor", "training step", "ours", "floor"),
    Comparison("full fine-tuning, how far above its floor", "training step", "full", "floor_full"),
    Comparison("the floor against full fine-tuning's", "training step", "floor", "floor_full"),
    Comparison("inference against the bare model", "inference", "ours", "bare", 1.05, batch=32),
    Comparison("inference against the bare model", "inference", "ours", "bare", batch=1),
    Comparison("inference", "inference", "ours", "theirs", 1.0, below=True),
    Comparison("inference, bf16 frozen base", "inference", "ours_bf16", "theirs"),
    Comparison("inference, LoRA unmerged", "inference", "lora", "bare"),
    Comparison("inference, their adapters on their bare model", "inference", "theirs", "theirs_bare"),
    Comparison("inference, the bare model of both", "inference", "bare", "theirs_bare"),
    Comparison("peak memory", "peak memory", "ours", "theirs", 1.0, below=True),
    Comparison("peak memory, dropout on both sides", "peak memory", "ours_dropout", "theirs", 1.0, below=True),
    Comparison("above the model", "peak memory above the loaded model", "ours", "theirs", 1.0, below=True),
    Comparison("above the model", "peak memory above the loaded model", "ours_dropout", "theirs", 1.0, below=True),
    Comparison("above the model", "peak memory above the loaded model", "ours", "full"),
    Comparison("above the model", "peak memory above the loaded model", "ours_bf16", "full"),
    Comparison("from process start", "time to the first step", "ours", "theirs"),
    Comparison("from process start", "time to the first step", "ours", "full"),
]


def spread(a: list[float], b: list[float]) -> dict[str, float]:
    """Median and 10 % and 90 % quantile of the ratios ``a / b``, formed round by round.

    Raises:
        ValueError: when the two have not the same number of rounds, or none.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"ratios need as many rounds of the one as of the other, not {len(a)} and {len(b)}")
    ratios = np.asarray(a) / np.asarray(b)
    low, median, high = np.quantile(ratios, (0.1, 0.5, 0.9)).round(4).tolist()
    return {"ratio": median, "low": low, "high": high}


def comparisons(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every comparison at every point that has both contenders; ``met`` is None where there is no target."""
    rows = []
    for title, what, a, b, limit, below, batch in COMPARISONS:
        for point in points:
            values = point["values"]
            if point["what"] != what or batch not in (None, point["batch"]) or not {a, b} <= set(values):
                continue
            found = spread(values[a], values[b])
            met = None if limit is None else found["ratio"] < limit or (not below and found["ratio"] == limit)
            place = {key: point[key] for key in ("what", "batch", "length", "threads")}
            rows.append({"title": title, **place, "a": a, "b": b, **found, "limit": limit, "below": below, "met": met})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The comparisons as text, with what is met and what is not."""
    lines = [f"{'':62} {'batch':>5} {'length':>6} {'threads':>7}   {'ratio':5} {'10 – 90 %':>13}   target"]
    for row in rows:
        name = f"{row['what']}: {row['a']} / {row['b']}"
        target = "" if row["limit"] is None else f"{'<' if row['below'] else '≤'} {row['limit']:.2f} "
        verdict = {None: "", True: "met", False: "NOT MET"}[row["met"]]
        lines.append(
            f"{name:62} {row['batch']:5} {row['length']:6} {row['threads']:7}   {row['ratio']:5.3f} "
            f"{row['low']:5.3f} – {row['high']:5.3f}   {target}{verdict}"
        )
    judged = [row["met"] for row in rows if row["met"] is not None]
    return "\n".join([*lines, f"{sum(judged)} of {len(judged)} targets met"])


def file_name(machine: dict[str, Any]) -> str:
    """What the results of a processor are called: its name, and which instructions for bfloat16 it has."""
    name = re.sub(r"\W+", "-", re.sub(r"\(\w+\)", "", machine["processor"]).lower()).strip("-")
    bf16 = [flag for flag in machine["instructions"] if "bf16" in flag]
    return f"{name}-{bf16[-1] if bf16 else 'fp32'}.json"


# The rows of the README's table: label, what, a, b.
README_ROWS = [
    ("a training step, against `adapters` as it trains", "training step", "ours", "theirs"),
    ("the same, with dropout in the base on both sides", "training step", "ours_dropout", "theirs"),
    ("the same, the frozen base in bfloat16", "training step", "ours_bf16", "theirs"),
    ("a training step, against full fine-tuning", "training step", "ours", "full"),
    ("a training step, against the time of its matrix products alone", "training step", "ours", "floor"),
    ("inference, against the bare model", "inference", "ours", "bare"),
    ("inference, against `adapters`", "inference", "ours", "theirs"),
    ("peak memory of training, against `adapters`", "peak memory", "ours", "theirs"),
]


def readme_table(folder: Path, batch: int = 32) -> str:
    """The README's table over all processors of ``folder``: the smallest and the largest ratio of each row."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = []
    for label, what, a, b in README_ROWS:
        cells = []
        for threads in (1, 2):
            for length in (32, 128):
                found = sorted(
                    f"{row['ratio']:.2f}"
                    for run in runs
                    for row in run["comparisons"]
                    if (row["what"], row["a"], row["b"]) == (what, a, b)
                    and (row["batch"], row["threads"], row["length"]) == (batch, threads, length)
                )
                cells.append(" – ".join(dict.fromkeys([found[0], found[-1]])) if found else "")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return re.sub(r"\|  (?=\|)", "| ", "\n".join(lines))


if __name__ == "__main__":
    print(readme_table(Path(__file__).parents[2] / "data" / "results" / "benchmark"))
