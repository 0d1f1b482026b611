"""Every relative link in the repository's texts and lessons leads to a file that is there, and to a heading in it.

The links of the built site are checked in test_site.py. Addresses elsewhere are not looked up: tests have no network.
"""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_text import anchors, links

from adapters_lesson.course.lesson_source import read_lesson

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
FOLDERS = ("docs", "classroom", "data", "tests")
TEXTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
SOURCES = sorted((NOTEBOOKS / "sources").glob("[0-9]*.py"))
ELSEWHERE = re.compile(r"[a-z]+:", re.IGNORECASE)


def text_of(path):
    if path.suffix == ".ipynb":
        return read_lesson(NOTEBOOKS / "sources" / f"{path.stem}.py").text
    return path.read_text(encoding="utf-8")


def broken(text, folder, itself):
    """The links of a text that lead nowhere, from the ``folder`` in which it stands."""
    found = []
    for link in links(text):
        if ELSEWHERE.match(link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = folder / name if name else itself
        if not target.exists():
            found.append(f"{link}: no such file")
        elif anchor and target.suffix in (".md", ".ipynb") and anchor not in anchors(text_of(target)):
            found.append(f"{link}: no such heading")
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_texts_links_lead_somewhere(path):
    assert broken(text_of(path), path.parent, path) == []


@pytest.mark.parametrize("folder", [NOTEBOOKS, NOTEBOOKS / "solutions"], ids=["learner", "solution"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_lessons_links_lead_somewhere_in_both_editions(source, folder):
    assert broken(read_lesson(source).text, folder, folder / f"{source.stem}.ipynb") == []


def test_the_readme_and_every_lesson_are_looked_at():
    assert ROOT / "README.md" in TEXTS
    assert len(SOURCES) == 13
    assert "notebooks/00_start_here.ipynb" in links(text_of(ROOT / "README.md"))
    assert "01_the_bottleneck.ipynb" in links(read_lesson(SOURCES[0]).text)


def test_a_broken_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `word` · two\n\n## Two\n\n## Two\n\n```sh\n# no heading\n[no](link.md)\n```\n")
    assert anchors(page.read_text()) == {"one-word--two", "two", "two-1"}
    good = "[a](page.md) [`b`](page.md#two-1) ![c](page.md) [d](#here) [e](https://example.org/x) `[f](g)`\n\n# Here"
    assert broken(good, tmp_path, tmp_path / "itself.md") == ["#here: no such file"]
    (tmp_path / "itself.md").write_text(good)
    assert broken(good, tmp_path, tmp_path / "itself.md") == []
    bad = '[a](pages.md) [b](page.md#no-heading) <img src="picture.png">\n\n[c]: nothing.md'
    assert broken(bad, tmp_path, page) == [
        "pages.md: no such file",
        "page.md#no-heading: no such heading",
        "picture.png: no such file",
        "nothing.md: no such file",
    ]
