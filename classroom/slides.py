"""Slides of each lesson's figures: `python classroom/slides.py [01 …]` writes dist/slides/01.html, beside reveal.js.

A figure is a slide: the heading above it, and, one key later, what there is to see, which is the paragraph below it in
the lesson. The speaker's notes (key S) have the question before it and its text for those who cannot see it. The
figures are those of the complete edition as it is committed; nothing is executed, and nothing is fetched: reveal.js
comes once from npm, by `make slides`.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import SlidesExporter
from nbformat import NotebookNode

from adapters_lesson.course.lesson_source import course

ROOT = Path(__file__).resolve().parent.parent
EDITIONS = ROOT / "notebooks" / "solutions"
REVEAL = ROOT / ".classroom" / "lib" / "node_modules" / "reveal.js"
HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)
BESIDE = re.compile(r"<details>.*?</details>|\$\$.*?\$\$|```.*?```", re.DOTALL)  # what no slide has room for
NO_PROSE = ("#", "|", "-", "*", "<", ">", "1.", "[", "**Write", "**Done")
# nbconvert's page without what it would fetch: require.js, jQuery, MathJax, mermaid.
PAGE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
<style>.reveal img {max-height: 480px; max-width: 100%} .reveal p {font-size: 24px; line-height: 1.35}</style>
{%- endblock -%}
{%- block footer_js -%}
<script src="reveal.js/dist/reveal.js"></script>
<script src="reveal.js/plugin/notes/notes.js"></script>
<script>Reveal.initialize({hash: true, slideNumber: true, plugins: [RevealNotes]})</script>
{%- endblock -%}"""


def figures(edition: NotebookNode) -> Iterator[tuple[str, str, str, str, str]]:
    """Of each figure: the heading, the question before it, the picture as a data URL, its words, and what one sees."""
    heading, question = "", ""
    for place, cell in enumerate(edition.cells):
        if cell.cell_type == "markdown":
            heading = (HEADING.findall(cell.source) or [heading])[-1]
            question = (_paragraphs(cell.source) or [question])[-1]
            continue
        for output in cell.get("outputs", []):
            for kind in ("image/svg+xml", "image/png"):
                if picture := output.get("data", {}).get(kind):
                    alt = output.metadata.get(kind, {}).get("alt", "")
                    coded = picture if kind == "image/png" else base64.b64encode(picture.encode()).decode()
                    below = next((c.source for c in edition.cells[place + 1 :] if c.cell_type == "markdown"), "")
                    seen = "" if below.lstrip().startswith("#") else (_paragraphs(below) or [""])[0]
                    yield heading, question, f"data:{kind};base64,{coded}", alt, seen
                    break


def _paragraphs(text: str) -> list[str]:
    """A cell's prose, without cards, lists, formulas and folds."""
    parts = BESIDE.sub("", text).split("\n\n")
    return [" ".join(part.split()) for part in parts if part.strip() and not part.lstrip().startswith(NO_PROSE)]


def slides(number: str, name: str, title: str) -> str:
    """The slides of a lesson, as one HTML page that needs the folder reveal.js beside it.

    Raises:
        ValueError: where the lesson has no figure.
    """
    found = list(figures(nbformat.read(EDITIONS / f"{name}.ipynb", as_version=4)))
    if not found:
        raise ValueError(f"lesson {number} has no figure")
    cells = [_cell("slide", f"# {number} · {title}")]
    for heading, question, address, alt, seen in found:
        picture = f'<img src="{address}" alt="{html.escape(alt)}">'
        cells += [_cell("slide", f"## {heading}\n\n{picture}"), _cell("notes", f"{question}\n\n{alt}")]
        if seen:
            cells.insert(-1, _cell("fragment", seen))
    exporter = SlidesExporter(extra_loaders=[DictLoader({"ours.html.j2": PAGE})], template_file="ours.html.j2")
    exporter.reveal_url_prefix, exporter.reveal_theme = "reveal.js", "white"  # other themes fetch their fonts
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"title": f"{number} · {title}"})
    page: str = exporter.from_notebook_node(notebook)[0]
    return page


def _cell(kind: str, source: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(source, metadata={"slideshow": {"slide_type": kind}})


def main(asked: list[str], folder: Path = ROOT / "dist" / "slides") -> int:
    """Write the slides of the lessons that are asked for, or of all."""
    rows = {row["lesson"][:2]: row for row in course()}
    if unknown := [number for number in asked if number not in rows]:
        print(f"{unknown[0]} is no lesson: there are {', '.join(rows)}", file=sys.stderr)
        return 1
    if not REVEAL.exists():
        print("reveal.js is not here: make slides brings it, once, with a network", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("dist", "plugin/notes"):
        shutil.copytree(REVEAL / part, folder / "reveal.js" / part, dirs_exist_ok=True)
    made = []
    for number in asked or rows:
        try:
            page = slides(number, rows[number]["lesson"], rows[number]["title"])
        except ValueError as error:
            print(f"{error}: no slides of it", file=sys.stderr)
            continue
        (folder / f"{number}.html").write_text(page, encoding="utf-8")
        made.append(number)
    print(f"slides of {len(made)} lessons in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
