"""`make screenshots` leaves no widget out."""

import re

import screenshots

from adapters_lesson.course.lesson_source import WIDGET, read_lesson

SOURCES = sorted((screenshots.ROOT / "notebooks" / "sources").glob("*.py"))


def test_every_widget_of_a_lesson_is_photographed():
    called = {
        found.strip("(")
        for path in SOURCES
        for cell in read_lesson(path).cells
        if cell.kind == "code"
        for found in WIDGET.findall(cell.source)
    }
    assert {"quiz", "laboratory", "routing_explorer", "Playground"} <= called
    assert called - screenshots.WIDGETS.keys() == set()


def test_what_is_used_first_is_a_widget():
    assert screenshots.USED.keys() <= screenshots.WIDGETS.keys()
    assert all(re.fullmatch(r"\w+", name) for name in screenshots.WIDGETS)
