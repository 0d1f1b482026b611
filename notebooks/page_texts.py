"""The strings in a JavaScript module: those that its function `_` translates, and those that it shows untranslated.

A text of a page is a tagged template, _`step ${n}`, or N_`text` where _ gets it later. Its key in the catalogue is
"step {0}": the holes are numbered, as those of Python's f-strings are in messages.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

SKIPPED = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
PATTERN = re.compile(r"/(?![*/])(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n])+/")  # a regular expression
QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
OPERAND = re.compile(r"(?:[(,=:\[!&|?{};+>]|\breturn)\s*\Z")  # after it a slash begins a pattern, else it divides
TAG = re.compile(r"\b(N?_)\Z")
ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)

PROSE = re.compile(r"[A-Za-z]{2,}['’,;:.]* +[“(]?[a-z]{2,}|^\W*[A-Z][a-z]{2,}")
# What stands before a string that is shown, even if it is one word: an attribute, a property, attributes.
PLACE = re.compile(
    r"(?:\b(?:title|placeholder|label|legend|words)\s*:|\"aria-(?:label|valuetext|description)\"\s*[:,]"
    r"|\.(?:title|placeholder|alt|textContent|innerText|ariaLabel)\s*=|\bsay\(|\}, |\bthrow new \w*Error\()\s*\Z"
)
# Before one that is not, or what it looks like then: a name, a look or a style; a key, a query.
LOOK = re.compile(
    r"(?:[!=]==|\b(?:class|className|style)\s*[:=]|\"class\", [^;]*|\b(?:STYLE|CSS|DARK)\s*=|\breplace\()\s*\Z"
)
CODE = re.compile(
    r"[\w-]+:\s*[^ ]|^\s*[(<.#\[]|\bvar\(|^(?:Arrow|Page)(?:Up|Down|Left|Right)$|^(?:Home|End|Enter|Escape|Infinity)$"
)


class Literal(NamedTuple):
    """A string or a template with its holes numbered, what stands before it, and whether it is for `_`."""

    text: str
    before: str
    marked: bool


def literals(source: str) -> Iterator[Literal]:
    """All strings and templates of a module, those in the holes of templates, too."""
    yield from _literals(source, 0, [0])


def _literals(source: str, at: int, end: list[int]) -> Iterator[Literal]:
    """From ``at`` to the brace that closes a hole, or to the end, which is put into ``end``."""
    depth = 0
    while at < len(source):
        before = source[max(0, at - 80) : at]
        if found := SKIPPED.match(source, at) or (OPERAND.search(before) and PATTERN.match(source, at)):
            at = found.end()
        elif found := QUOTED.match(source, at):
            yield Literal(_plain(found[0][1:-1]), before, False)
            at = found.end()
        elif source[at] == "`":
            said, holes, at = "", 0, at + 1
            while source[at] != "`":
                if source.startswith("${", at):
                    yield from _literals(source, at + 2, end)
                    said, holes, at = f"{said}{{{holes}}}", holes + 1, end[0]
                else:
                    size = 2 if source[at] == "\\" else 1
                    said, at = said + source[at : at + size], at + size
            at += 1
            yield Literal(_plain(said), TAG.sub("", before), bool(TAG.search(before)))
        else:
            depth += {"{": 1, "}": -1}.get(source[at], 0)
            at += 1
            if depth < 0:
                break
    end[0] = at


def _plain(raw: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2].replace("n", "\n"), raw)


def texts(source: str) -> Iterator[str]:
    """What a module shows in the learner's language."""
    yield from (literal.text for literal in literals(source) if literal.marked)


def untranslated(source: str) -> Iterator[str]:
    """What a module shows in English whatever is spoken, as far as one can see it in the source."""
    for literal in literals(source):
        words = re.sub(r"\{\d\}", " ", literal.text)
        if literal.marked or LOOK.search(literal.before) or not re.search("[A-Za-z]{2}", words):
            continue
        if PLACE.search(literal.before) or (PROSE.search(words) and not CODE.search(literal.text)):
            yield literal.text
