"""Build the lessons in other languages: `python notebooks/translation.py [de …]`, by default all that are there.

notebooks/sources/LANGUAGE/NN_its_name.md has a lesson's text cells in that language. Above each stands a comment with
the fingerprint of the English cell that it translates, so that a cell whose English has changed since is known. The
code is that of the English source, and what it shows is translated by adapters_lesson/course/words.py. A cell without
a translation stays English. The learner's edition goes to notebooks/LANGUAGE.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import about
import build
import nbformat
from nbformat import NotebookNode

from adapters_lesson.course import words
from adapters_lesson.course.lesson_source import Cell, Lesson, read_lesson

SOURCES = build.HERE / "sources"
CELL = re.compile(r"^<!-- ([0-9a-f]{8}) -->\n", re.MULTILINE)
TO_A_LESSON = re.compile(r"\]\((?=\d\d_\w+\.ipynb)")


def fingerprint(text: str) -> str:
    """Of a cell's English text, wherever its lines break."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]


def read_translation(path: Path) -> dict[str, str]:
    """The translated cells of a lesson by their fingerprints."""
    _, *parts = CELL.split(path.read_text(encoding="utf-8"))
    return {mark: text.strip() for mark, text in zip(parts[::2], parts[1::2], strict=True)}


def translations(sources: Path = SOURCES) -> Iterator[tuple[str, Path]]:
    """The languages with the lessons that are translated into them."""
    yield from ((path.parent.name, path) for path in sorted(sources.glob("*/[0-9]*.md")))


def out_of_step(lesson: Lesson, path: Path) -> Iterator[str]:
    """What a translation lacks, and what it translates that is not said any more."""
    there = read_translation(path)
    asked = {fingerprint(cell.source): cell.source for cell in lesson.cells if cell.kind == "markdown"}
    for mark in asked.keys() - there.keys():
        yield f"lacks <!-- {mark} -->, which is new or has changed in English: {' '.join(asked[mark].split())[:60]}"
    for mark in there.keys() - asked.keys():
        yield f"has <!-- {mark} -->, whose English has changed or is gone: {' '.join(there[mark].split())[:60]}"


def said(path: Path) -> list[Cell]:
    """What a translated lesson says: its text, and the code of the English source."""
    code = [cell for cell in read_lesson(SOURCES / f"{path.stem}.py").cells if cell.kind == "code"]
    return [Cell("markdown", path.read_text(encoding="utf-8")), *code]


def translated(language: str, path: Path) -> NotebookNode:
    """A lesson's learner edition in another language, not executed."""
    source, there = SOURCES / f"{path.stem}.py", read_translation(path)
    days = about.table_of(build.HERE).get(f"{language}/{path.stem}")
    notebook = build.build(source, "learner")
    words.speak(language)
    for cell in notebook.cells:
        if cell.source.startswith(build.FOLDED):
            cell.source = cell.source.replace("Solution", words._("Solution"), 1)
        elif cell.cell_type == "markdown":
            text = about.plain(cell.source)
            text = there.get(fingerprint(text), text)
            cell.source = TO_A_LESSON.sub("](../", text)
    notebook.cells = about.added(notebook.cells, path.stem, days, language)
    words.speak("en")
    code = f'from adapters_lesson.course import words\n\nwords.speak("{language}")'
    notebook.cells.insert(1, nbformat.v4.new_code_cell(code, id=f"{path.stem[:2]}-{language}"))
    return notebook


def write(language: str, path: Path) -> list[str]:
    """Build a translated lesson, and execute it if its code changed; returns its complaints."""
    about.note(build.HERE, f"{language}/{path.stem}", said(path))
    target, notebook = build.HERE / language / f"{path.stem}.ipynb", translated(language, path)
    if not build.keep_outputs(notebook, target):
        build.execute(notebook)
    target.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, target)
    lacking = list(out_of_step(read_lesson(SOURCES / f"{path.stem}.py"), path))
    return [f"{path.relative_to(build.HERE)}: {what}" for what in [*lacking, *build.complaints(notebook)]]


def main() -> int:
    """Build what the command line asks for; 1 when something is wrong."""
    problems = [
        line for language, path in translations() if language in (sys.argv[1:] or language)
        for line in write(language, path)
    ]  # fmt: skip
    print("\n".join(problems) or "no complaints")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
