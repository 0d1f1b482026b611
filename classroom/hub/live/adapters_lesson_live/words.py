"""The course's words: its exercises, and the sentences of its checks. They are taken out of its files, not imported.

The course imports torch, which is too much for a service, and for the server of each learner.
"""

from __future__ import annotations

import ast
import builtins
import csv
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

COURSE = Path(__file__).resolve().parents[4]
OTHER = "a mistake for which the course has no sentence"
_CARD = re.compile(r'"### Exercise (\d+\.\d+) · .*?"(?=,?$)', re.MULTILINE)
_BEGUN = ("your code raised", "the check cannot use your answer as it is,")
_RAISED = re.compile(rf"({'|'.join(_BEGUN)}) (\w+)")
_OWN = "an exception of its own"
_HOLE = re.compile(r"\{\w+\}")


@cache
def exercises() -> dict[str, tuple[str, str]]:
    """Number of each exercise to its lesson, "03 Inserting adapters", and its title, in the course's order."""
    found = {}
    with (COURSE / "notebooks" / "course.csv").open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            lesson = COURSE / "notebooks" / f"{row['lesson']}.ipynb"
            for card in _CARD.finditer(lesson.read_text(encoding="utf-8") if lesson.is_file() else ""):
                title = json.loads(card[0]).partition(" · ")[2].strip()
                found[card[1]] = f"{row['lesson'][:2]} {row['title']}", title
    return found


def sentence(exercise: str, said: str) -> str:
    """The course's sentence in what a check has said; what is the learner's, code and values, is left out."""
    if raised := _RAISED.match(said):
        found = f"{raised[1]} {raised[2]}"
        return found if found in sentences(exercise) else f"{raised[1]} {_OWN}"
    patterns = _patterns(exercise.partition(".")[0])
    return next((sentence for pattern, sentence in patterns if pattern.fullmatch(said)), OTHER if said else "")


@cache
def sentences(exercise: str) -> frozenset[str]:
    """All that `sentence` can return."""
    errors = [name for name, it in vars(builtins).items() if isinstance(it, type) and issubclass(it, BaseException)]
    raised = {f"{begun} {name}" for begun in _BEGUN for name in (*errors, _OWN)}
    return frozenset({sentence for _, sentence in _patterns(exercise.partition(".")[0])} | raised | {OTHER, ""})


@cache
def _patterns(lesson: str) -> list[tuple[re.Pattern[str], str]]:
    """What a lesson's checks say: a pattern for each sentence, and it with "…" in its holes; the longest come first."""
    folder, ours = COURSE / "adapters_lesson" / "course" / "checks", f"lesson{lesson.zfill(2)}"
    modules = [path for path in folder.glob("*.py") if path.name.startswith(ours) or not path.name.startswith("lesson")]
    found = {text for path in modules for text in _texts(path.read_text(encoding="utf-8"))}
    long = [text for text in found if len("".join(text)) > 7]  # "{0}: {1}" is no sentence
    return [
        (re.compile(".*?".join(map(re.escape, text)), re.DOTALL), "…".join(text))
        for text in sorted(long, key=lambda text: (-len("".join(text)), text))
    ]


def _texts(source: str) -> Iterator[tuple[str, ...]]:
    """The strings of a module that may be sentences, cut at their holes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            pieces = [piece.value if isinstance(piece, ast.Constant) else "{0}" for piece in node.values]
            yield tuple(_HOLE.split("".join(map(str, pieces))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield tuple(_HOLE.split(node.value))
