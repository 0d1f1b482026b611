"""Print, for each exercise, how its check does on the collection: `python tests/wrong_answers/table.py`.

The columns: wrong answers in the collection; how many of them are refused; how many get a message that names their
very mistake (one that only repeats an exception, or that its author has marked as general, does not); right answers;
how many of them are accepted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ADAPTERS_LESSON_PROGRESS"] = ""  # these answers are nobody's progress
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wrong_answers import Exercise, cards, exercises

HEAD = ("exercise", "wrong", "refused", "named", "right", "accepted")


def row(exercise: Exercise) -> tuple[int, ...]:
    """The numbers of one exercise."""
    return len(exercise.wrong), exercise.refused(), exercise.named(), len(exercise.right), exercise.accepted()


def table() -> str:
    """The table as text, with totals and shares."""
    titles = {card.exercise.number: card.exercise.title for card in cards()}
    rows = [(f"{e.number} {titles.get(e.number, e.name)}", *row(e)) for e in exercises()]
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    wrong, refused, named, right, accepted = totals
    width = max(len(str(line[0])) for line in rows)
    lines = [HEAD, *rows, (f"all {len(rows)}", *totals)]
    text = [f"{line[0]:{width}}" + "".join(f"{cell:>10}" for cell in line[1:]) for line in lines]
    shares = (
        f"refused {refused / wrong:.1%} of the wrong answers; {named / wrong:.1%} get a message that names their very "
        f"mistake; accepted {accepted / right:.1%} of the right ones"
    )
    return "\n".join([*text[:-1], "", text[-1], "", shares])


if __name__ == "__main__":
    print(table())
