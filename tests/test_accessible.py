"""What a notebook says of itself, and what holds it accessible: the checklist of Notebooks for All."""

import copy
import re
import shutil
import sys
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import a11y_checker  # noqa: E402
import about  # noqa: E402
import accessible  # noqa: E402
import anywhere  # noqa: E402
import build  # noqa: E402
import check  # noqa: E402
from browser import NEEDED  # noqa: E402

from adapters_lesson.course import words  # noqa: E402
from adapters_lesson.course.lesson_source import read_lesson  # noqa: E402

SOURCES = build.sources()
EVERY = a11y_checker.notebooks()
every_notebook = pytest.mark.parametrize(
    "path", EVERY, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix()
)
markdown, shown = nbformat.v4.new_markdown_cell, nbformat.v4.new_output


@pytest.fixture
def good():
    """A lesson that lacks nothing."""
    cells = [
        markdown("# A title\n\nA summary of what this lesson is about, in about a dozen words.", id="01-000"),
        markdown("## One\n\nText.", id="01-001"),
        nbformat.v4.new_code_cell("x", id="01-002"),
        markdown("### A part\n\nText.\n\n## Two\n\n```\n# no heading\n```", id="01-003"),
    ]
    days = about.Days("2026-11-23", "2026-11-28", "")
    return nbformat.v4.new_notebook(cells=about.added(cells, "01_x", days))


# --- What all notebooks have ------------------------------------------------------------------------------


def test_there_are_all_editions():
    assert len(EVERY) >= 2 * len(SOURCES) + 1


@every_notebook
def test_every_notebook_has_contents_of_all_sections_and_says_who_made_it_when_and_of_what(path):
    _title, *between, last = nbformat.read(path, as_version=4).cells
    assert list(accessible.faults(nbformat.read(path, as_version=4))) == []
    contents = next(cell for cell in between if cell.id.endswith("-contents")).source
    assert contents.count("\n") > 5 and contents.startswith("<details><summary>")  # one line, until it is opened
    (author,) = anywhere.project()["authors"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for said in (
        author["name"],
        f"`notebooks/sources/{path.stem}.py`",
        "2026-",
        re.search("^torch==(.*)$", lock, re.M)[1],
    ):
        assert said in last.source


class _Page(HTMLParser):
    """The addresses on a page, and the links to them."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if given.get("id") else []
        self.links += [given["href"][1:]] if tag == "a" and given.get("href", "").startswith("#") else []


@pytest.mark.parametrize("path", EVERY[:2] + EVERY[-1:], ids=lambda path: path.stem)
def test_the_links_of_the_contents_lead_to_the_sections_of_a_page(path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    page = _Page(HTMLExporter().from_notebook_node(notebook)[0])
    ours = {f"{address}" for _, address in re.findall(r"\[(.+?)\]\(#(.+?)\)", notebook.cells[1].source)}
    assert len(ours) > 5 and ours <= set(page.links) and all(page.ids.count(address) == 1 for address in ours)


def test_two_open_notebooks_have_no_address_in_common():
    there = [
        a for path in EVERY for c in nbformat.read(path, as_version=4).cells for a, _ in about.ADDRESS.findall(c.source)
    ]
    assert len(there) > 300 and len(set(there)) == len(there)


# --- What is added -----------------------------------------------------------------------------------------


def test_contents_and_closing_are_added_once_and_only_where_there_is_something(good):
    again = about.added(copy.deepcopy(good.cells), "01_x", about.Days("2026-11-23", "2026-11-28", ""))
    assert [cell.source for cell in again] == [cell.source for cell in good.cells]
    assert good.cells[1].source.splitlines()[2:5] == [
        "1. [One](#01-1)",
        "2. [Two](#01-2)",
        "3. [About this lesson](#01-3)",
    ]
    assert good.cells[2].source == '<span id="01-1"></span>\n\n## One\n\nText.'
    assert about.plain(good.cells[2].source) == "## One\n\nText."
    assert about.added([markdown("# T")], "01_x", None)[0].source == "# T"
    assert len(about.added([markdown("# T")], "01_x", None)) == 1


def test_the_closing_cell_links_the_repository_where_it_has_an_address(good, monkeypatch):
    assert "which has no public address yet" in good.cells[-1].source and "](" not in good.cells[-1].source
    project = {**anywhere.project(), "repository": "https://github.com/someone/adapters", "version": "1.2.3"}
    monkeypatch.setattr(anywhere, "project", lambda: project)
    said = about.closing("01_x", about.Days("2026-11-23", "2026-11-28", ""))
    assert "in [the repository of this course](https://github.com/someone/adapters/tree/v1.2.3)." in said


def test_the_closing_cell_is_german_in_a_german_lesson():
    words.speak("de")
    try:
        said = about.closing("01_x", about.Days("2026-11-23", "2026-11-28", ""))
    finally:
        words.speak("en")
    assert "Geschrieben am 2026-11-23, zuletzt geändert am 2026-11-28." in said
    assert "Gebaut aus `notebooks/sources/01_x.py`, in dem Repositorium des Kurses" in said
    assert not re.search(
        r"\b(?:the|and|or|newer|have|changed)\b", said.replace("The Adapters, from scratch authors", "")
    )


def test_the_day_moves_with_what_a_lesson_says_and_with_nothing_else(tmp_path, monkeypatch):
    cells = [markdown("One\ntwo."), markdown("Three.")]
    about.note(tmp_path, "01_x", cells)
    first = about.table_of(tmp_path)["01_x"]
    assert first.written == first.changed == date.today().isoformat()
    table = (tmp_path / "dates.csv").read_text().replace(first.written, "2020-01-01")
    (tmp_path / "dates.csv").write_text(table)
    about.note(tmp_path, "01_x", [markdown("One two."), markdown("Three.")])  # a line breaks elsewhere
    assert (tmp_path / "dates.csv").read_text() == table
    about.note(tmp_path, "01_x", [markdown("One two."), markdown("Four.")])
    about.note(tmp_path, "00_y", cells)
    after = about.table_of(tmp_path)
    assert list(after) == ["00_y", "01_x"]
    assert after["01_x"][:2] == ("2020-01-01", date.today().isoformat())


def test_a_lesson_that_has_changed_since_its_last_day_is_told(tmp_path):
    source = tmp_path / "notebooks" / "sources" / SOURCES[1].name
    (source.parent / "de").mkdir(parents=True)
    shutil.copy(SOURCES[1], source)
    shutil.copy(ROOT / "notebooks" / "dates.csv", tmp_path / "notebooks")
    lesson = read_lesson(source)
    assert list(check._days(tmp_path, lesson)) == [], "it is not built"
    shutil.copy(build.notebook_of(SOURCES[1], "learner"), tmp_path / "notebooks")
    assert list(check._days(tmp_path, lesson)) == []
    source.write_text(source.read_text("utf-8").replace("What is an adapter?", "What is it?"), encoding="utf-8")
    ((file, what),) = check._days(tmp_path, read_lesson(source))
    assert (
        file == "notebooks/dates.csv"
        and what == 'it has changed since its last day: make notebooks ARGS="01"'.replace("it", "01_the_bottleneck", 1)
    )


# --- What is found -------------------------------------------------------------------------------------------


def test_nothing_is_found_in_a_good_lesson(good):
    assert list(accessible.faults(good)) == []


@pytest.mark.parametrize(
    ("cell", "before", "after", "words"),
    [
        (0, "# A title", "## A title", "its first cell has to be a title"),
        (0, "A summary of what this lesson is about, in about a dozen words.", "Short.", "a summary below it"),
        (0, "A summary", "A summary\n\n# Another\n\n", "one first-level heading"),
        (1, "2. [Two](#01-2)\n", "", "it needs the contents of its sections"),
        (1, "[One]", "[Once]", "it needs the contents of its sections"),
        (1, "(#01-1)", "(#01-9)", "no section has the address #01-9"),
        (4, "### A part", "#### A part", "the heading 'A part' skips a level: ###"),
        (4, "## Two", "## One", "two headings say 'one'"),
        (4, "### A part", "###  ", "a heading is empty"),
        (2, "Text.", "![](x.svg)", "the picture x.svg needs a text"),
        (2, "Text.", '<img src="x.svg">', "<img>, needs an alt"),
        (2, "Text.", "See [here](x.md).", "the link to x.md has to say where it leads, not 'here'"),
        (2, "Text.", "[https://x.y](https://x.y)", "the link to https://x.y has to say where it leads"),
        (2, "Text.", "The red one is better.", "name what is meant by more than its colour: 'The red one"),
        (2, "Text.", "<table><tr><td>1</td></tr></table>", "a table needs headers"),
        (2, "Text.", "<table><tr><th>1</th></tr></table>", "needs a scope"),
        (5, "## About", "## Of", "it needs the contents"),
    ],
)
def test_a_fault_in_the_text_is_found(good, cell, before, after, words):
    assert before in good.cells[cell].source
    good.cells[cell].source = good.cells[cell].source.replace(before, after)
    assert any(words in fault for fault in accessible.faults(good)), list(accessible.faults(good))


def test_a_notebook_without_the_closing_cell_is_found(good):
    good.cells.pop()
    assert any("its last cell has to say who made it" in fault for fault in accessible.faults(good))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"image/png": "…"}, "its image/png needs an alt"),
        ({"text/html": "<svg width='3'></svg>"}, "needs an aria-label"),
        ({"text/html": "<img src='x' alt=''>"}, "needs an alt"),
        ({"text/html": "<table><tr><td>1</td></tr></table>"}, "a table needs headers"),
    ],
)
def test_a_fault_in_an_output_is_found(good, data, words):
    good.cells[3].outputs = [shown("display_data", data=data)]
    (fault,) = accessible.faults(good)
    assert fault.startswith("cell 01-002: ") and words in fault


def test_a_colour_with_something_beside_it_and_code_are_no_faults(good):
    good.cells[2].source += "\n\nThe blue part, with a thick edge, is trained. `colour = red`"
    assert list(accessible.faults(good)) == []


# --- jupyterlab-a11y-checker itself --------------------------------------------------------------------------


def test_the_statement_names_the_checker_and_the_number_of_notebooks():
    said = (ROOT / "docs" / "accessibility.md").read_text(encoding="utf-8")
    pinned = re.search(r"^A11Y := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert f"all {len(EVERY)} notebooks" in said and f"jupyterlab-a11y-checker {pinned} with" in said


@pytest.mark.browser
@pytest.mark.skipif(not a11y_checker.FOLDER.is_dir(), reason="jupyterlab-a11y-checker is not here: make accessibility")
class TestChecker:
    pytestmark = NEEDED

    def test_it_finds_nothing_in_the_first_lessons_and_what_is_wrong_in_a_faulty_one(self, tmp_path):
        faulty = [
            *("no title", "## A\n\n#### B\n\n## A", "![](x.png) [here](y.md)", "<table><tr><td>1</td></tr></table>"),
            '<p style="color: #eee; background: #fff">faint</p>',
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=list(map(markdown, faulty))), tmp_path / "faulty.ipynb")
        found = a11y_checker.findings([*EVERY[:2], tmp_path / "faulty.ipynb"])
        assert [found[path] for path in EVERY[:2]] == [[], []]
        assert {rule for rule, *_ in found[tmp_path / "faulty.ipynb"]} == {
            *("heading-missing-h1", "heading-wrong-order", "heading-duplicate-h2", "image-missing-alt"),
            *("link-discernible-text", "table-missing-header", "table-missing-caption", "color-contrast"),
        }
