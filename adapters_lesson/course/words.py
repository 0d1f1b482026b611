"""The course in another language. Texts are written in English, and translated where they are shown.

What is shown may be a sentence that an f-string has made: its template, with {0}, {1} … for what was put in, is what a
catalogue has (``make messages`` takes templates out of the sources). So the sources stay as they are, and so do the
records, which are in English whatever is shown.
"""

import gettext
import io
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
    known, templates = _catalogue(language)
    if (found := known.gettext(text)) != text:
        return found
    for template, names, translation in templates:
        if match := template.fullmatch(text):
            put_in = {name: _(group) for name, group in zip(names, match.groups(), strict=True)}
            return _HOLE.sub(lambda hole, put_in=put_in: put_in.get(hole[1], hole[0]), translation)  # type: ignore[misc]
    pieces = _PIECE.split(text)
    gaps = _PIECE.findall(text)
    if len(pieces) == 1:
        return text
    return "".join(f"{_(piece)}{gap}" for piece, gap in zip(pieces, [*gaps, ""], strict=True))


@cache
def _catalogue(language: str) -> tuple[gettext.GNUTranslations, list[tuple[re.Pattern[str], list[str], str]]]:
    """The translations, and those of texts with holes: pattern, the holes' names, translation; the longest first."""
    from babel.messages import mofile, pofile  # JupyterLab's server has it

    if not (path := _LOCALE / f"{language}.po").is_file():
        return gettext.GNUTranslations(), []
    with path.open("rb") as file:
        read = pofile.read_po(file)
    compiled = io.BytesIO()
    mofile.write_mo(compiled, read)
    compiled.seek(0)
    templates = []
    for entry in read:
        if isinstance(entry.id, str) and entry.string and (names := _HOLE.findall(entry.id)):
            literal = _HOLE.split(entry.id)[::2]
            hole = "(.*?)" if len("".join(literal)) > 7 else r"(\S*)"  # "{0} of {1}" is no pattern for a sentence
            pattern = re.compile(hole.join(map(re.escape, literal)), re.DOTALL)
            templates.append((len("".join(literal)), pattern, names, str(entry.string)))
    ordered = sorted(templates, key=lambda template: -template[0])
    return gettext.GNUTranslations(compiled), [tuple(rest) for _length, *rest in ordered]  # type: ignore[misc]
