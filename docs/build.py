"""Build the site of the course, for reading: `python docs/build.py [FOLDER]`, by default dist/site.

The pages are put together in a temporary folder, because they come from all over the repository: both editions of
every lesson, the texts for teachers, and what is in this folder. A lesson's page is the learner's edition, because the
course asks before it answers: a reader who finds the result under the question has no question left. The complete
edition is one click away, in a page `complete_…` that stands in no list of contents.

A link from one of them to another becomes a link between pages; a link to any other file of the repository becomes a
download of it. Nothing is offered of notebooks/sources, where the hidden tests stand. Sphinx then turns every warning
into an error. No lesson is executed and nothing is fetched.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
from explorers import EXPLORERS, baked  # type: ignore[import-not-found]
from sphinx.cmd.build import main as sphinx_build

from adapters_lesson.course.decision import which_method
from adapters_lesson.course.figures import course_map
from adapters_lesson.course.lesson_source import WIDGET, course
from adapters_lesson.data import PretrainedFileError
from adapters_lesson.history import load_results

HERE = Path(__file__).parent
ROOT = HERE.parent
PLAYGROUND = ROOT / "adapters_lesson" / "course" / "playground"
NOTEBOOKS = ROOT / "notebooks"
PAGES = {  # a text of the repository → the name of its page
    "docs/index.md": "index",
    "docs/glossary.md": "glossary",
    "docs/bibliography.md": "bibliography",
    "docs/accessibility.md": "accessibility",
    "TEACHING.md": "teaching",
    "docs/syllabus.md": "syllabus",
    "classroom/GRADING.md": "grading",
    "classroom/hub/README.md": "hub",
}
CODE_OR_LINK = re.compile(
    r"```.*?```|(?<!\[)`[^`\n]+`|(?P<image>!?)\[(?P<text>(?:[^\]`]|`[^`]*`)*)\]\((?P<link>[^)\s]+)\)", re.S
)
COMPLETE = "complete_"  # how the name of a complete page begins; docs/conf.py gives it its place in the navigation
ABOUT = {  # what stands at the top of a lesson's page, by whether it is the complete one
    False: """:::{{admonition}} About this page
:class: note

Read it as a learner does: commit to an answer before you open what is folded, a hint, a solution, or a result that you
were to predict. The [complete page]({other}) has every exercise solved and every result open. To write the code
and have it checked, open [the notebook of this page]({notebook}) in JupyterLab.{widgets}
:::""",
    True: """:::{{admonition}} About this page
:class: note

This is the complete edition: every exercise is solved and every result is open. The [learner's page]({other}) asks
before it answers. You can take [the notebook of this page]({notebook}).{widgets}
:::""",
}
# What JupyterLab folds → MyST's word for it, and what stands on the fold when it is shut, and when it is open.
FOLDS = {
    "source_hidden": ("hide-input", "The code of this cell", "The code of this cell"),
    "outputs_hidden": ("hide-output", "The result: predict it first, then open it", "The result"),
}
ABOUT_WIDGETS = "\n\nMost widgets and the quiz move only in JupyterLab. Here a picture stands for each that does not."
COURSE = ROOT / "adapters_lesson" / "course"
# What lives without a kernel: the lesson, what its cell looks like, and the module that shows the numbers in a file.
ALIVE = {
    "microscope": ("03", r"\Amicroscope\Z", COURSE / "microscope" / "microscope.js"),
    "decision": ("12", r"^WhichMethod\(", COURSE / "decision.js"),
    "dial": ("10", r"^Dial\(", COURSE / "language" / "dial.js"),
    "anatomy_explorer": ("01", r"^anatomy_explorer\(", HERE / "_static" / "explorer.js"),
    "placement_explorer": ("03", r"^placement_explorer\(", HERE / "_static" / "explorer.js"),
    "cost_explorer": ("04", r"^cost_explorer\(", HERE / "_static" / "explorer.js"),
}


def course_table() -> str:
    """What the map of the lessons shows as a Markdown table, with the sum of their minutes."""
    lines = ["| Lesson | The question it answers | Builds on | Runs on your | Minutes |", "|---|---|---|---|--:|"]
    for row in course():
        link = f"[{row['lesson'][:2]} · {row['title']}]({row['lesson']}.ipynb)"
        question = f"{row['question'][0].upper()}{row['question'][1:]}"
        on, uses = (row[column].replace(" ", ", ") for column in ("builds_on", "uses"))
        lines.append(f"| {link} | {question} | {on} | {uses} | {row['minutes']} |")
    return "\n".join([*lines, f"| Together | | | | {sum(int(row['minutes']) for row in course())} |"])


def add_playground(static: Path) -> None:
    """Have the playground's picture, and its module as a script: from a disk no browser loads modules."""
    shutil.copyfile(PLAYGROUND / "still.svg", static / "playground.svg")
    module = (PLAYGROUND / "playground.js").read_text(encoding="utf-8")
    body, _, exported = module.rpartition("\nexport default ")
    start = 'playground.mount(document.getElementById("playground"));'
    script = f"(() => {{\n{body}\nconst playground = {exported}{start}\n}})();\n"
    (static / "playground.js").write_text(script, encoding="utf-8")


def fold(cell: Any) -> None:
    """Fold on the page what JupyterLab folds: the code of a cell, or a result that was to be predicted."""
    hidden = cell.metadata.get("jupyter", {})
    if hidden.get("outputs_hidden"):
        cell.outputs = cell.outputs[1:]  # without the line that covers them in JupyterLab
    for key, (tag, show, hide) in FOLDS.items():
        if hidden.get(key):
            cell.metadata.tags = [tag]
            cell.metadata.mystnb = {"code_prompt_show": show, "code_prompt_hide": hide}


class Pages:
    """The folder in which the pages are put together, as Sphinx wants to find them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.texts = {ROOT / path: f"{name}.md" for path, name in PAGES.items()}
        for row in course():
            for edition in (NOTEBOOKS, NOTEBOOKS / "solutions"):
                self.texts[edition / f"{row['lesson']}.ipynb"] = f"{row['lesson']}.ipynb"

    def link(self, target: str, origin: Path, complete: bool = False) -> str | None:
        """Where a link in the text at ``origin`` leads on the site; None for a folder, which no page shows.

        To a lesson it leads to the learner's page, or from one ``complete`` page to the next.

        Raises:
            ValueError: The file does not exist, or it has hidden tests.
        """
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return target
        file = (origin.parent / path).resolve()
        if not file.exists():
            raise ValueError(f"{origin.relative_to(ROOT)} has a link to {target}, and there is no such file")
        if file.is_dir():
            return None
        if file in self.texts:
            edition = COMPLETE if complete and file.suffix == ".ipynb" else ""
            return edition + self.texts[file] + (f"#{anchor}" if anchor else "")
        if NOTEBOOKS / "sources" in file.parents:
            raise ValueError(f"{origin.relative_to(ROOT)} has a link to {target}, which has hidden tests: take it away")
        return self.download(file)

    def download(self, file: Path) -> str:
        """Have a file of the repository beside the pages; returns where, for a link."""
        place = self.folder / "repository" / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        return f"path:{place.relative_to(self.folder).as_posix()}"  # so MyST takes it for a file even if it is a text

    def linked(self, text: str, origin: Path, complete: bool = False) -> str:
        """Markdown with its links leading to pages and downloads of the site."""

        def replaced(match: re.Match[str]) -> str:
            if not match["link"]:
                return match[0]
            target = self.link(match["link"], origin, complete)
            if not target:
                return match["text"]
            if match["image"]:
                target = target.removeprefix("path:")
            return f"{match['image']}[{match['text']}]({target})"

        return CODE_OR_LINK.sub(replaced, text)

    def add_text(self, file: Path) -> None:
        """Add a Markdown page."""
        text = self.linked(file.read_text(encoding="utf-8"), file)
        if self.texts[file] == "index.md":
            drawn = course_map("{}.html").svg()
            text = text.replace(
                "<!-- the map of the lessons -->", f'<div class="adapters-lesson-drawing">{drawn}</div>'
            )
            text = text.replace("<!-- the table of the lessons -->", course_table())
            still = (PLAYGROUND / "still.txt").read_text(encoding="utf-8").strip()
            picture = f'<img src="_static/playground.svg" alt="{html.escape(still)}">'
            text = text.replace("<!-- the playground -->", f'<div id="playground" class="playground">{picture}</div>')
        (self.folder / self.texts[file]).write_text(text, encoding="utf-8")

    def add_lesson(self, lesson: str, complete: bool) -> None:
        """Add a page of a lesson, the learner's or the complete one, with a note that leads to the other."""
        path = NOTEBOOKS / ("solutions" if complete else ".") / f"{lesson}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        moves = any(cell.cell_type == "code" and WIDGET.search(cell.source) for cell in notebook.cells)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":  # its links are written for the learner's edition
                cell.source = self.linked(cell.source, NOTEBOOKS / path.name, complete)
                continue
            fold(cell)
            for output in cell.outputs:  # the map of the lessons has links
                if "text/html" in output.get("data", {}):
                    page = rf'href="{COMPLETE if complete else ""}\1.html"'
                    output.data["text/html"] = re.sub(r'href="(\d\d_\w+)\.ipynb"', page, output.data["text/html"])
            for name, (number, look, module) in ALIVE.items():
                if lesson.startswith(number) and re.search(look, cell.source, re.MULTILINE):
                    self.bring_to_life(cell, module.name, f"{name}.json")
        note = ABOUT[complete].format(
            other=f"{'' if complete else COMPLETE}{lesson}.ipynb",
            notebook=self.download(path),
            widgets=ABOUT_WIDGETS if moves else "",
        )
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(note, id="about-this-page"))
        if complete:  # as Sphinx calls what no list of contents has, and of what its search has the title alone
            title = notebook.cells[0].source
            notebook.cells[0].source = re.sub(r"\A# .*", r"\g<0>, complete", title)
            notebook.metadata |= {"orphan": True, "nosearch": True}
        nbformat.write(notebook, self.folder / f"{COMPLETE if complete else ''}{lesson}.ipynb")

    def bring_to_life(self, cell: Any, module: str, numbers: str) -> None:
        """Have site.js show what ``module`` draws of ``numbers`` in the place of the cell's still picture."""
        (output,) = (output for output in cell.outputs if "text/html" in output.get("data", {}))
        place = f'<div class="alive" data-module="_static/{module}" data-numbers="_static/{numbers}"></div>'
        output.data["text/html"] = f"{place}<div>{output.data['text/html']}</div>"


def build(site: Path) -> int:
    """Build the site in the folder ``site``, which is replaced; returns 0 if Sphinx had nothing to complain about.

    Raises:
        PretrainedFileError: The numbers of something that lives are missing.
        ValueError: ``site`` is a folder of something else, or a page has a link to a file that does not exist.
    """
    if site.exists() and any(site.iterdir()) and not (site / ".buildinfo").exists():
        raise ValueError(f"{site} has files in it that are not a site: name a folder that is new or empty")
    made: dict[str, Callable[[], Any]] = {
        "decision": which_method,
        **{name: partial(baked, name) for name in EXPLORERS},
    }
    shown = {name: made[name]() if name in made else load_results(name) for name in ALIVE}
    numbers = {name: json.dumps(what, ensure_ascii=False) for name, what in shown.items()}
    with tempfile.TemporaryDirectory() as work:
        pages = Pages(Path(work) / "pages")
        pages.folder.mkdir()
        shutil.copytree(HERE / "_static", pages.folder / "_static")
        for file in pages.texts:
            if file.suffix == ".md":
                pages.add_text(file)
        for row, complete in product(course(), (False, True)):
            pages.add_lesson(row["lesson"], complete)
        built = Path(work) / "site"
        options = ["-q", "-W", "--keep-going", "-j", "auto", "-b", "html", "-d", f"{work}/doctrees", "-c", str(HERE)]
        failed = sphinx_build([*options, str(pages.folder), str(built)])
        for name, (*_, module) in ALIVE.items():
            shutil.copyfile(module, built / "_static" / module.name)
            (built / "_static" / f"{name}.json").write_text(numbers[name], encoding="utf-8")
        if not failed:
            add_playground(built / "_static")
            shutil.rmtree(site, ignore_errors=True)
            shutil.copytree(built, site)
    return failed


def main() -> int:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist" / "site", help="where the site goes")
    site = parser.parse_args().folder
    try:
        failed = build(site)
    except (ValueError, PretrainedFileError) as error:
        print(error, file=sys.stderr)
        return 1
    if not failed:
        print(f"the site is in {site}: open {site / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
