"""Take the texts that the course shows out of its sources: `python notebooks/messages.py [--todo] [LANGUAGE …]`.

It brings adapters_lesson/course/locale/LANGUAGE.po up to date, by default each that is there; for a new language it
makes the file. With `--todo` the file has the texts without translation, too: call it so before you translate, and
without it when you have, so that what is kept is no longer than what is said.

A text is a string of two words or more that is no docstring, in adapters_lesson/course, or any string in a call of `_`,
`button` or one of its kind; of an f-string it is the template, with {0}, {1} … for what is put in. Predictions and
figures' texts come from the lessons' sources, questions from the quizzes, the words of the widgets' pages from their
JavaScript (page_texts.py).
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import page_texts
from babel.messages import Catalog, pofile

from adapters_lesson.course.lesson_source import read_lesson

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "adapters_lesson" / "course"
LOCALE = COURSE / "locale"
WORDS = re.compile(r"[A-Za-z]{2,}['’,;:]* +\(?[a-z]{2,}|[a-z]{2,} ?\n|[a-z]{2,} [|\d]")
MARKUP = re.compile(r"^\s*<|[{;]\s*[\w-]+:\s|=='|\bdef |\bimport |/tmp|\\w")
SHOWN = {
    "_",
    "check",
    "button",
    "option_button",
    "choice",
    "switch",
    "Explorer",
    "Slider",
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


def of_module(path: Path) -> Iterator[str]:
    """The texts of a Python module."""
    return texts(path.read_text(encoding="utf-8"))


def of_page(path: Path) -> Iterator[str]:
    """The texts of a widget's page."""
    return page_texts.texts(path.read_text(encoding="utf-8"))


def of_lesson(path: Path) -> Iterator[str]:
    """What a lesson's cells ask and show."""
    for cell in read_lesson(path).cells:
        if cell.kind == "code":
            yield from texts(cell.source, frozenset(OF_LESSONS))


def of_quiz(path: Path) -> Iterator[str]:
    """The texts of a quiz."""
    for question in json.loads(path.read_text(encoding="utf-8")):
        yield question["text"]
        for option in question["options"]:
            yield from (option["text"], option["reason"])


def of_branches(path: Path) -> Iterator[str]:
    """The texts of the questions that lead to a method, with {name} for a number."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    for question in tree["questions"]:
        yield question["ask"]
        for answer in question["answers"]:
            yield answer["say"]
            for reason in answer["because"]:
                yield re.sub(r"\{(\w+):[^}]*\}", r"{\1}", reason["text"])
                yield from {reason.get("source", "").strip()} - {""}
    for method in tree["methods"].values():
        yield from method.values()


def of_still(path: Path) -> Iterator[str]:
    """The words of a picture that is kept as a file, and of the sentence beside it."""
    yield from re.findall(r">([^<>]*[a-z]{3}[^<>]*)</text", path.read_text(encoding="utf-8"))
    yield path.with_suffix(".txt").read_text(encoding="utf-8").strip()


SOURCES: list[tuple[Path, str, Callable[[Path], Iterator[str]]]] = [
    (COURSE, "**/*.py", of_module),
    (ROOT / "notebooks", "about.py", of_module),
    (ROOT / "notebooks", "translation.py", of_module),
    (COURSE, "**/*.js", of_page),
    (COURSE, "decision.json", of_branches),
    (COURSE, "playground/still.svg", of_still),
    (ROOT / "notebooks" / "sources", "[0-9]*.py", of_lesson),
    (ROOT / "notebooks" / "quizzes", "[0-9]*.json", of_quiz),
]


def everything() -> Catalog:
    """All texts, each with the files in which it stands."""
    found = Catalog(project="Adapters, from scratch", charset="utf-8")
    for folder, pattern, said_in in SOURCES:
        for path in sorted(folder.glob(pattern)):
            for said in said_in(path):
                found.add(said, locations=[(path.relative_to(ROOT).as_posix(), 0)])
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
