"""The course in another language. Texts are written in English, and translated where they are shown.

What is shown may be a sentence that an f-string has made: its template, with {0}, {1} … for what was put in, is what a
catalogue has (``make messages`` takes templates out of the sources). So the sources stay as they are, and so do the
records, which are in English whatever is shown.
"""

import os
import re
from functools import cache
from pathlib import Path

_LOCALE = Path(__file__).parent / "locale"
_HOLE = re.compile(r"\{(\w+)\}")
_PIECE = re.compile(r"(?<=[.;!?]) |\n")
_spoken = os.environ.get("ADAPTERS_LESSON_LANGUAGE", "en")


def speak(language: str) -> None:
    """Show everything from now on in a ``language``, for instance "de"; ValueError where there is no catalogue."""
    there = ["en", *sorted(path.stem for path in _LOCALE.glob("*.po"))]
    if language not in there:
        raise ValueError(f"the course does not speak {language!r}: it speaks {', '.join(there)}")
    global _spoken
    _spoken = language


def _(text: str) -> str:
    """What is shown in English, in the language that is spoken; what its catalogue does not know stays English."""
    return text if _spoken == "en" or not text.strip() else _translated(text, _spoken)


def _translated(text: str, language: str) -> str:
    known, templates, _pages = _catalogue(language)
    if text in known:
        return known[text]
    for template, names, translation in templates:
        if match := template.fullmatch(text):
            put_in = {name: _(group) for name, group in zip(names, match.groups(), strict=True)}
            return _HOLE.sub(lambda hole, put_in=put_in: put_in.get(hole[1], hole[0]), translation)  # type: ignore[misc]
    pieces = _PIECE.split(text)
    gaps = _PIECE.findall(text)
    if len(pieces) == 1:
        return text
    return "".join(f"{_(piece)}{gap}" for piece, gap in zip(pieces, [*gaps, ""], strict=True))


def of_pages() -> dict[str, str]:
    """What the widgets' modules show, by the English, in the language that is spoken: nothing for English."""
    return {} if _spoken == "en" else _catalogue(_spoken)[2]


@cache
def _catalogue(language: str) -> tuple[dict[str, str], list[tuple[re.Pattern[str], list[str], str]], dict[str, str]]:
    """Translations; those of texts with holes as pattern, the holes' names, translation, the longest first; pages'."""
    from babel.messages import pofile  # JupyterLab's server has it

    if not (path := _LOCALE / f"{language}.po").is_file():
        return {}, [], {}
    texts: list[dict[str, str]] = [{}, {}]  # of Python, and of pages, whose holes are no patterns: they ask for texts
    with path.open("rb") as file:
        for entry in pofile.read_po(file):
            for place, _line in entry.locations if entry.string else ():
                texts[place.endswith(".js")][str(entry.id)] = str(entry.string)
    templates = []
    for text, translation in sorted(texts[0].items(), key=lambda both: -len(_HOLE.sub("", both[0]))):
        if names := _HOLE.findall(text):
            literal = _HOLE.split(text)[::2]
            hole = "(.*?)" if len("".join(literal)) > 6 else r"(\S*)"  # "{0} of {1}" is no pattern for a sentence
            templates.append((re.compile(hole.join(map(re.escape, literal)), re.DOTALL), names, translation))
    return texts[0], templates, texts[1]
