r"""Say what the lessons claim, and whether it holds: `python notebooks/claims.py [05 README …]`.

A sentence that compares is followed, in its source, by a comment that no edition shows. It says what is claimed, in the
words of evidence.py, and is computed anew here, from data/results or from what the cells above have printed:

    <!-- claim: better(seeds("methods", "Houlsby m=16"), seeds("methods", "head only")) -->
    <!-- claim: out(r"adapters: ([\d.]+) of it") < 0.67 -->
    <!-- rule -->                                  it follows from a definition or from mathematics
    <!-- source: Houlsby et al. 2019, table 1 -->  it is what a paper says, and the lesson names the paper

A question of a quiz has the same in its field "claim", and so has a reason in course/decision.json. Lines with what
fails, and sentences that compare without a mark, come last; then the command ends with 1.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import evidence
import nbformat

from adapters_lesson.course.lesson_source import MARK, read_lesson

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("README.md", "TEACHING.md", "paper/paper.md")
COMPARING = re.compile(
    r"\b(?:as (?:good|well|much|fast|long|many|large|high|low|often) as|better|best|worse|worst|faster|slower|quicker|"
    r"larger|smaller|higher|lower|cheaper|dearer|more|less|fewer|equal|equally|hardly|matters?|helps?|harms?|gains?|"
    r"loses?|lost|saves?|differs?|beats?|ahead|next to nothing)\b",
    re.IGNORECASE,
)
NO_CLAIM = re.compile(r"<details>\s*<summary>(?:Hint|I see).*?</details>|\$\$.*?\$\$|```.*?```", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.?!:;])\s+")


class Sentence(NamedTuple):
    """A sentence, where it stands, and the marks that follow it."""

    place: str
    cell: int  # of a lesson; -1 elsewhere
    text: str
    marks: tuple[str, ...]

    @property
    def compares(self) -> bool:
        """Whether it has to be marked. A question claims nothing."""
        return bool(COMPARING.search(self.text)) and not self.text.endswith("?")


def sentences(markdown: str, place: str, cell: int = -1) -> Iterator[Sentence]:
    """The sentences of a text with their marks."""
    text = NO_CLAIM.sub("\n\n", markdown)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.) )", text):
        found: list[tuple[str, list[str]]] = []
        for n, part in enumerate(MARK.split(paragraph)):
            if n % 2 and found:
                found[-1][1].append(" ".join(part.split()))
            elif n % 2 == 0:
                found += [(one, []) for one in SENTENCE.split(" ".join(part.split())) if one]
        yield from (Sentence(place, cell, one, tuple(marks)) for one, marks in found)


def of_lesson(source: Path) -> Iterator[Sentence]:
    """What the body of a lesson says: not its frame's first cell, and not the cards, which tell what to do."""
    for number, cell in enumerate(read_lesson(source, marks=True).cells):
        if cell.kind == "markdown" and number:
            yield from sentences(re.sub(r"^### Exercise.*?(?=^##? |\Z)", "", cell.source, flags=re.M | re.S),
                                 f"{source.stem[:2]}, cell {number}", number)  # fmt: skip


def of_text(path: Path) -> Iterator[tuple[Sentence, Path | None]]:
    """What a text says. Its section on a lesson, as in TEACHING.md, may read all that this lesson prints."""
    for part in re.split(r"^(?=##)", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        number = part[4:6] if re.match(r"### \d\d ·", part) else "none"
        source = next((path.parent / "notebooks" / "sources").glob(f"{number}_*.py"), None)
        yield from ((one, source) for one in sentences(part, path.name))


def of_quiz(path: Path) -> Iterator[Sentence]:
    """What the right options and the reasons of a quiz say: the field "claim" of a question holds for all of them."""
    for number, question in enumerate(json.loads(path.read_text(encoding="utf-8")), 1):
        marks = question.get("claim", [])
        said = [option["text"] for option in question["options"] if option.get("right")]
        said += [option["reason"] for option in question["options"] if "reason" in option]
        yield from (Sentence(f"quiz {path.stem}, question {number}", -1, one, tuple(marks)) for one in said)


def of_branches(path: Path) -> Iterator[Sentence]:
    """What supports the answers of lesson 12's *Which method when*; a reason has its marks in the field "claim"."""
    for question in json.loads(path.read_text(encoding="utf-8"))["questions"]:
        for reason in (reason for answer in question["answers"] for reason in answer["because"]):
            marks = reason.get("claim", ["source: " + reason["source"]] if "source" in reason else [])
            yield from sentences(reason["text"] + "".join(f" <!-- {mark} -->" for mark in marks), path.name)


@cache
def outputs_of(source: Path) -> list[str]:
    """What each cell of a source has printed in the solved edition, which has others beside them."""
    solved = nbformat.read(source.parents[1] / "solutions" / f"{source.stem}.ipynb", as_version=4)
    said = (cell.get("outputs", []) for cell in solved.cells if re.fullmatch(r"\d\d-\d{3}", cell.id))
    return ["\n".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs) for outputs in said]


def judged(mark: str, outputs: evidence.Outputs) -> tuple[bool, str]:
    """Whether a mark holds, and what was found: the verdict, or the two sides of a comparison."""
    kind, _, claim = mark.partition(":")
    if kind in ("rule", "source"):
        return bool(claim.strip()) or kind == "rule", kind
    if kind != "claim":
        return False, f"a mark is a claim, a rule or a source, not {kind}"
    names = evidence.names(outputs)
    try:
        holds = eval(claim, names)
        tree = ast.parse(claim.strip(), mode="eval").body
        sides = [tree.left, *tree.comparators] if isinstance(tree, ast.Compare) else [tree]
        values = [eval(ast.unparse(side), names) for side in sides if not isinstance(side, ast.Constant)]
    except Exception as error:  # an author's mistake is told like a claim that fails
        return False, f"{type(error).__name__}: {error}"
    found = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
    return bool(holds), f"{found} (cell {outputs.cell})" if outputs.cell >= 0 else found


def everything(only: list[str]) -> Iterator[tuple[Sentence, Path | None]]:
    """All sentences, with the source of the lesson whose outputs they may read."""
    for source in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py")):
        number = source.stem[:2]
        if not only or number in only:
            yield from ((one, source) for one in of_lesson(source))
            for quiz in sorted((ROOT / "notebooks" / "quizzes").glob(f"{number}*.json")):  # the guide's questions, too
                yield from ((one, source) for one in of_quiz(quiz))
    if not only or "12" in only:
        yield from ((one, None) for one in of_branches(ROOT / "adapters_lesson" / "course" / "decision.json"))
    for name in TEXTS:
        if not only or Path(name).stem in only:
            yield from of_text(ROOT / name)


def look(only: list[str], show: bool = False) -> tuple[Counter, list[str]]:
    """How many marks of each kind hold, and a line for each that fails and each sentence that lacks one."""
    count: Counter = Counter()
    wrong = []
    for sentence, source in everything(only):
        if sentence.compares and not sentence.marks:
            wrong.append(f"{sentence.place}: compares without a mark: {sentence.text}")
        for mark in sentence.marks:
            before = sentence.cell if sentence.cell >= 0 else None
            holds, found = judged(mark, evidence.Outputs(outputs_of(source)[:before] if source else []))
            count[mark.partition(":")[0]] += 1
            if not holds:
                wrong.append(f"{sentence.place}: does not hold, {found}: {sentence.text} <!-- {mark} -->")
            if show and mark.startswith("claim"):
                print(f"{'✔' if holds else '✘'} {sentence.place}: {sentence.text}\n    {mark}\n    {found}")
    return count, wrong


def main() -> int:
    """Print every claim with its verdict; 1 when one fails or is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="lessons by number, README, TEACHING, paper; all by default")
    count, wrong = look(parser.parse_args().only, show=True)
    print("\n" + "\n".join([*wrong, ", ".join(f"{number} {kind}s" for kind, number in sorted(count.items()))]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
