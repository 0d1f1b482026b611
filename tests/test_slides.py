"""Slides of the lessons' figures: what is on them, and that they fetch nothing."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "classroom"))

import slides as maker

from adapters_lesson.course.lesson_source import course

ROWS = {row["lesson"][:2]: row for row in course()}


def page_of(number):
    return maker.slides(number, ROWS[number]["lesson"], ROWS[number]["title"])


@pytest.mark.parametrize("number", ["01", "05"])
def test_each_figure_is_a_slide_with_its_words_and_nothing_is_fetched(number):
    page = page_of(number)
    edition = nbformat.read(maker.EDITIONS / f"{ROWS[number]['lesson']}.ipynb", as_version=4)
    kinds = {"image/svg+xml", "image/png"}
    shown = [o for cell in edition.cells for o in cell.get("outputs", []) if kinds & o.get("data", {}).keys()]
    pictures = [re.search(r'alt="([^"]*)"', tag)[1] for tag in re.findall(r"<img [^>]*data:image/[^>]*>", page)]
    assert len(pictures) == len(shown) >= 2
    assert all(len(alt) > 20 for alt in pictures)
    assert ROWS[number]["title"] in page
    addresses = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:", "reveal.js/")) for address in addresses), addresses
    assert 'href="reveal.js/dist/theme/white.css"' in page  # the others fetch their fonts


def test_what_cannot_be_made_is_said(tmp_path, capsys, monkeypatch):
    assert maker.main(["77"], tmp_path) == 1
    assert "77 is no lesson: there are 00, 01" in capsys.readouterr().err
    monkeypatch.setattr(maker, "REVEAL", tmp_path / "nothing")
    assert maker.main(["01"], tmp_path) == 1
    assert "make slides brings it" in capsys.readouterr().err
    for part in ("dist", "plugin/notes"):
        (tmp_path / "nothing" / part).mkdir(parents=True)
    assert maker.main(["12", "01"], tmp_path / "slides") == 0
    said = capsys.readouterr()
    assert "lesson 12 has no figure: no slides of it" in said.err and "slides of 1 lessons" in said.out
    assert sorted(path.name for path in (tmp_path / "slides").iterdir()) == ["01.html", "reveal.js"]


@pytest.mark.skipif(not maker.REVEAL.exists(), reason="reveal.js is not here: make slides brings it")
def test_they_open_in_a_browser_without_a_request(tmp_path):
    from browser import browser_page

    seen = []
    maker.main(["01"], tmp_path)
    with browser_page(seen, 1280, 720) as page:
        page.goto((tmp_path / "01.html").as_uri())
        page.locator(".reveal.ready").wait_for()
        page.keyboard.press("ArrowRight")
        page.locator("section.present img").wait_for()
        assert page.locator("section.present h2").inner_text()
    assert seen == []
