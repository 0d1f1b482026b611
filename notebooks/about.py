"""What every notebook says of itself: the contents below its title, and at its end who made it, when, of what.

That is the part of the Notebooks-for-All checklist (see docs/accessibility.md) that is the same in all lessons. It is
Markdown only, so a notebook keeps its outputs. The days stand in dates.csv, with the fingerprint of the lesson as it
was on the second: so a build gives the same on any day, and needs no history. `make notebooks` keeps that table.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from datetime import date
from itertools import count
from pathlib import Path
from typing import NamedTuple, Protocol

import anywhere
import nbformat
from nbformat import NotebookNode

from adapters_lesson.course.words import _

FENCED = re.compile(r"^```.*?^```|\$\$.*?\$\$", re.MULTILINE | re.DOTALL)
ANCHOR = re.compile(r'<span id="[\w-]+"></span>\n\n(?=## )')
SECTION = re.compile(rf"{FENCED.pattern}|^## +(?P<title>[^\n]+)", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r'<span id="([\w-]+)"></span>\n\n## +(.*?)\s*$', re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) +(.*?)\s*$", re.MULTILINE)
TOOLS = {
    "torch": "PyTorch",
    "transformers": "transformers",
    "matplotlib": "matplotlib",
    "jupyterlab": "JupyterLab",
    "ipywidgets": "ipywidgets",
}
COLUMNS = ("lesson", "written", "changed", "fingerprint")


class Days(NamedTuple):
    """When a lesson was ``written`` and last ``changed``, as 2026-11-28, and the ``fingerprint`` it had then."""

    written: str
    changed: str
    fingerprint: str


class HasSource(Protocol):
    """A cell, of a lesson or of a notebook."""

    @property
    def source(self) -> str:
        """Its text."""


def headings(text: str) -> list[tuple[int, str]]:
    """The headings of a Markdown text, level and words, without what looks like one in code."""
    return [(len(marks), words) for marks, words in HEADING.findall(FENCED.sub("", text))]


def plain(text: str) -> str:
    """A Markdown text without the addresses of its sections."""
    return ANCHOR.sub("", text)


def anchored(cells: Iterable[NotebookNode], prefix: str) -> None:
    """Give each section, a second-level heading, an address of its own, ``prefix`` and its number, on a line above it.

    JupyterLab finds no heading of its own making that has an umlaut, and of two open notebooks that of the first.
    """
    number = count(1)
    for cell in (cell for cell in cells if cell.cell_type == "markdown"):
        cell.source = SECTION.sub(
            lambda found: f'<span id="{prefix}-{next(number)}"></span>\n\n{found[0]}' if found["title"] else found[0],
            plain(cell.source),
        )


def sections(cells: Iterable[NotebookNode]) -> list[str]:
    """The sections with an address as a numbered list of links."""
    found = [it for cell in cells if cell.cell_type == "markdown" for it in ADDRESS.findall(cell.source)]
    return [f"{number}. [{title}](#{address})" for number, (address, title) in enumerate(found, 1)]


def contents(cells: Iterable[NotebookNode]) -> str:
    """One folded line, which opens to the list of the sections; empty where there are none."""
    lines = sections(cells)
    return "\n".join([f"<details><summary>{_('Contents')}</summary>", "", *lines, "</details>"]) if lines else ""


def versions() -> str:
    """The main tools and their versions, as requirements.lock has them for a new Python."""
    lock = (anywhere.ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", lock, re.MULTILINE))  # of several the last: the newest Python's
    return ", ".join(f"{shown} {locked[name]}" for name, shown in TOOLS.items())


def closing(lesson: str, days: Days) -> str:
    """The last cell: authors, days, source, tools and licence."""
    project = anywhere.project()
    (author,) = (it["name"] for it in project["authors"])
    python, source = project["requires-python"].removeprefix(">="), f"`notebooks/sources/{lesson}.py`"
    where = _("the course's repository, which has no public address yet")
    if address := project["repository"]:
        where = f"[{_('the repository of this course')}]({address}/tree/v{project['version']})"
    return "\n".join(
        [
            f"## {_('About this lesson')}",
            "",
            f"- **{_('Authors')}.** {author}.",
            f"- **{_('Dates')}.** " + _(f"Written on {days.written}, last changed on {days.changed}."),
            f"- **{_('Source')}.** " + _(f"Built from {source}, in {where}."),
            f"- **{_('Tools')}.** "
            + _(f"Python {python} or newer, and as `requirements.lock` has them: {versions()}."),
            f"- **{_('Licence')}.** " + _("Text and figures CC BY 4.0, code Apache-2.0."),
        ]
    )


def added(cells: list[NotebookNode], lesson: str, days: Days | None, folder: str = ".") -> list[NotebookNode]:
    """The cells of the notebook in ``folder`` with both, in the present language; those of before are replaced."""
    ours = {what: f"{lesson[:2]}-{what}" for what in ("contents", "about")}
    cells = [cell for cell in cells if cell.id not in ours.values()]
    if days:
        cells.append(nbformat.v4.new_markdown_cell(closing(lesson, days), id=ours["about"]))
    anchored(cells, f"{folder}-{lesson[:2]}".removeprefix(".-"))
    if listed := contents(cells):
        # The site has contents of its own.
        cell = nbformat.v4.new_markdown_cell(listed, id=ours["contents"], metadata={"tags": ["remove-cell"]})
        cells.insert(1, cell)
    return cells


def fingerprint(cells: Iterable[HasSource]) -> str:
    """Of a lesson's text and code, wherever the lines break."""
    return hashlib.sha256(" ".join(word for c in cells for word in c.source.split()).encode()).hexdigest()[:12]


def table_of(notebooks: Path) -> dict[str, Days]:
    """The days of the lessons by their names, of a translated one for instance by de/01_the_bottleneck."""
    path = notebooks / "dates.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
    return {row["lesson"]: Days(*(row[column] for column in COLUMNS[1:])) for row in rows}


def note(notebooks: Path, lesson: str, cells: Iterable[HasSource]) -> None:
    """Write today into the table where a lesson is new, or another than on its last day."""
    table, now, today = table_of(notebooks), fingerprint(cells), date.today().isoformat()
    before = table.get(lesson)
    if not before or before.fingerprint != now:
        table[lesson] = Days(before.written if before else today, today, now)
        lines = [COLUMNS, *((name, *days) for name, days in sorted(table.items()))]
        (notebooks / "dates.csv").write_text("\n".join(map(",".join, lines)) + "\n", encoding="utf-8")
