"""Print how many habits there are by room and outcome: `python tests/habits/table.py`."""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from habits import rows

KINDS = ("right", "refused", "warned")


def table() -> str:
    """Rows: rooms and their sum. Columns: outcomes and their sum."""
    counts = Counter((room, habit.outcome.kind) for room, habit in rows())
    lines = {room: [counts[room, kind] for kind in KINDS] for room in sorted({room for room, _ in counts})}
    lines["all"] = [sum(column) for column in zip(*lines.values(), strict=True)]
    text = [f"{'':14}" + "".join(f"{kind:>9}" for kind in (*KINDS, "all"))]
    text += [f"{room:14}" + "".join(f"{n:9}" for n in (*numbers, sum(numbers))) for room, numbers in lines.items()]
    return "\n".join(text)


if __name__ == "__main__":
    print(table())
