"""What a built notebook lacks for those who listen to it, or see no colours: the part that a program can hold.

The rules are those of the Notebooks-for-All checklist and of jupyterlab-a11y-checker that can be read off a notebook
(see docs/accessibility.md). `make check-notebooks` calls them; `make accessibility` runs that checker itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import about
from nbformat import NotebookNode

LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]*)\)")
CODE = re.compile(r"^```.*?^```|`[^`]*`", re.MULTILINE | re.DOTALL)
VAGUE = re.compile(r"(?:click |see |read )?(?:here|this|link|more|hier|mehr)|https?:.*|www\..*|", re.IGNORECASE)
COLOURS = re.compile(
    r"\b(?:gr[ae]y|red|green|blue|orange|yellow|purple|violet|colou?r(?:s|ed)?"
    r"|grau|rot|grün|blau|gelb|lila|farbe)\w{0,2}\b",
    re.IGNORECASE,
)
BESIDE = re.compile(  # what a sentence names with a colour, so that one finds it without
    r"\b(?:edge|end|band|part|side|line|dash|marker|thick|thin|label|number|network|log|Bereich|Linie|Kante)\w*\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.?!:])\s+|\n\s*\n")


def faults(notebook: NotebookNode) -> Iterator[str]:
    """What to do about a notebook."""
    texts = {cell.id: CODE.sub("", cell.source) for cell in notebook.cells if cell.cell_type == "markdown"}
    yield from _frame(notebook)
    yield from _headings([heading for text in texts.values() for heading in about.headings(text)])
    for name, text in texts.items():
        yield from (f"cell {name}: {what}" for what in _text(text, notebook))
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            yield from (f"cell {cell.id}: {what}" for what in _output(output))


def _frame(notebook: NotebookNode) -> Iterator[str]:
    """The title and a summary in the first cell, contents of all sections soon after it, and the closing cell."""
    first, *cells = notebook.cells
    title, _, summary = first.source.partition("\n")
    if first.cell_type != "markdown" or not re.match(r"# \S", title) or len(summary.split()) < 10:
        yield "its first cell has to be a title, # …, and a summary below it"
    number = first.id.partition("-")[0]
    listed = [cell.source.splitlines()[2:-1] for cell in cells[:4] if cell.id == f"{number}-contents"]
    titles = [
        words
        for cell in cells
        if cell.cell_type == "markdown"
        for level, words in about.headings(cell.source)
        if level == 2
    ]
    if listed != [about.sections(cells)] or len(listed[0]) != len(titles):
        yield "it needs the contents of its sections below the title"
    if cells[-1].id != f"{number}-about":
        yield "its last cell has to say who made it, when, and of what"


def _headings(headings: list[tuple[int, str]]) -> Iterator[str]:
    if [level for level, _ in headings].count(1) != 1 or headings[0][0] != 1:
        yield "it has to have one first-level heading, its title"
    for (above, _), (level, words) in pairwise(headings):
        if level > above + 1:
            yield f"the heading {words!r} skips a level: {'#' * (above + 1)}"
    counted = Counter(words.lower() for level, words in headings if level < 3)
    yield from (f"two headings say {words!r}: call one of them otherwise" for words, n in counted.items() if n > 1)
    if not all(words for _, words in headings):
        yield "a heading is empty"


def _text(text: str, notebook: NotebookNode) -> Iterator[str]:
    ours = {f"#{name}" for cell in notebook.cells for name, _ in about.ADDRESS.findall(cell.source)}
    for image, words, target in LINK.findall(text):
        if image and not words.strip():
            yield f"the picture {target} needs a text between its brackets"
        elif not image and VAGUE.fullmatch(words.strip()):
            yield f"the link to {target} has to say where it leads, not {words!r}"
        if target.startswith("#") and target not in ours:
            yield f"no section has the address {target}"
    yield from _markup(text)
    for sentence in SENTENCE.split(re.sub(r"<[^>]+>", "", text)):
        if COLOURS.search(sentence) and not BESIDE.search(sentence):
            yield f"name what is meant by more than its colour: {' '.join(sentence.split())[:80]!r}"


def _markup(html: str) -> Iterator[str]:
    if any(not re.search(r'\balt="[^"]*\S', tag) for tag in re.findall(r"<img\b[^>]*>", html)):
        yield "a picture, <img>, needs an alt"
    for tag in re.findall(r"<svg\b[^>]*>", html):
        if not re.search(r'\b(?:aria-label="[^"]*\S|aria-hidden="true")', tag):
            yield "a drawing, <svg>, needs an aria-label"
    if any("<th" not in table for table in re.findall(r"<table\b.*?</table>", html, re.DOTALL)):
        yield "a table needs headers, <th>"
    if any("scope=" not in tag for tag in re.findall(r"<th\b[^>]*>", html)):
        yield "a table's header, <th>, needs a scope"


def _output(output: NotebookNode) -> Iterator[str]:
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt"):
            yield f"its {kind} needs an alt in its metadata"
    yield from _markup("".join(data.get("text/html", "")))
