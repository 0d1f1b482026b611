"""Take the texts that the course shows out of its sources: `python notebooks/messages.py [--todo] [LANGUAGE …]`.

It brings adapters_lesson/course/locale/LANGUAGE.po up to date, by default each that is there; for a new language it
makes the file. With `--todo` the file has the texts without translation, too: call it so before you translate, and
without it when you have, so that what is kept is no longer than what is said.

A text is a string of two words or more that is no docstring, in adapters_lesson/course, or any string in a call of `_`,
`button` or one of its kind; of an f-string it is the template, with {0}, {1} … for what is put in. Predictions and
figures' texts come from the lessons' sources, questions from the quizzes.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages import Catalog, pofile

from adapters_lesson.course.lesson_source import read_lesson

ROOT = Path(__file__).resolve().parents[1]
LOCALE = ROOT / "adapters_lesson" / "course" / "locale"
WORDS = re.compile(r"[A-Za-z]{2,}['’,;:]* +\(?[a-z]{2,}|[a-z]{2,} ?\n")
MARKUP = re.compile(r"^\s*<|[{;]\s*[\w-]+:\s|=='|\bdef |\bimport |/tmp|\\w")
SHOWN = {
    "_",
    "check",
    "button",
    "option_button",
    "choice",
    "switch",
    "Explorer",
}  # whose strings are shown, however short
OF_LESSONS = {"prediction", "show"}


def template(node: ast.expr) -> str | None:
    """The text of a string or an f-string, with numbered holes; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    said, holes = "", 0
    for part in node.values:
        if isinstance(part, ast.Constant):
            said += str(part.value)
        else:
            said, holes = f"{said}{{{holes}}}", holes + 1
    return said


def texts(source: str, only: frozenset[str] = frozenset()) -> Iterator[str]:
    """The texts of a module; with ``only``, those in calls of these names."""
    tree = ast.parse(source)
    for node in ast.walk(tree):  # docstrings, and what an f-string is made of, are no texts
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    marked = [call for call in calls if _name(call) in (only or SHOWN)]
    always = {id(node) for call in marked for node in ast.walk(call)} if only else set()
    always |= {id(argument) for call in marked for argument in call.args}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inside -= always | {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
    for node in ast.walk(tree):
        said = template(node) if isinstance(node, ast.expr) and id(node) not in inside else None
        if not said or not re.search("[A-Za-z]{2}", re.sub(r"\{\w+\}", "", said)) or (only and id(node) not in always):
            continue
        literal = re.sub(r"\{\w+\}", " ", said)
        if id(node) in always or (WORDS.search(literal) and not MARKUP.search(said)):
            yield said


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def of_quiz(path: Path) -> Iterator[str]:
    """The texts of a quiz."""
    for question in json.loads(path.read_text(encoding="utf-8")):
        yield question["text"]
        for option in question["options"]:
            yield from (option["text"], option["reason"])


def everything() -> Catalog:
    """All texts, each with the files in which it stands."""
    found = Catalog(project="Adapters, from scratch", charset="utf-8")

    def add(said: str, path: Path) -> None:
        found.add(said, locations=[(path.relative_to(ROOT).as_posix(), 0)])

    of_notebooks = [ROOT / "notebooks" / name for name in ("about.py", "translation.py")]
    for path in (*sorted((ROOT / "adapters_lesson" / "course").rglob("*.py")), *of_notebooks):
        for said in texts(path.read_text(encoding="utf-8")):
            add(said, path)
    for path in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py")):
        for cell in read_lesson(path).cells:
            for said in texts(cell.source, frozenset(OF_LESSONS)) if cell.kind == "code" else ():
                add(said, path)
    for path in sorted((ROOT / "notebooks" / "quizzes").glob("[0-9]*.json")):
        for said in of_quiz(path):
            add(said, path)
    return found


def updated(path: Path, found: Catalog, todo: bool = False) -> bytes:
    """The catalogue at ``path`` with the texts as they are now: their translations stay, those of lost texts go."""
    old = Catalog(locale=path.stem)
    if path.exists():
        with path.open("rb") as file:
            old = pofile.read_po(file, locale=path.stem)
    new = Catalog(locale=path.stem, project=found.project, fuzzy=False, header_comment="# Adapters, from scratch")
    for entry in found:
        if entry.id:
            before = old.get(entry.id)
            if todo or (before and before.string):
                new.add(entry.id, before.string if before else "", locations=entry.locations)
    body = io.BytesIO()
    pofile.write_po(body, new, width=100, include_lineno=False, sort_output=True, omit_header=True)
    head = f'msgid ""\nmsgstr ""\n"Language: {path.stem}\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'
    return head.encode() + body.getvalue()


def main() -> int:
    """Bring the catalogues up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("languages", nargs="*", help="for instance de; by default those that are there")
    parser.add_argument("--todo", action="store_true", help="have the texts without translation in the file, too")
    arguments = parser.parse_args()
    languages, found = arguments.languages or [path.stem for path in LOCALE.glob("*.po")], everything()
    LOCALE.mkdir(exist_ok=True)
    for path in (LOCALE / f"{language}.po" for language in languages):
        path.write_bytes(updated(path, found, arguments.todo))
        with path.open("rb") as file:
            entries = [entry for entry in pofile.read_po(file) if entry.id]
        done = sum(bool(entry.string) for entry in entries)
        print(f"{path.relative_to(ROOT)}: {done} of {len(found)} texts are translated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
