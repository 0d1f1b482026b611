"""Other languages: what is shown is translated, the record is not, and what is out of step is told."""

import shutil
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

import messages  # noqa: E402
import translation  # noqa: E402
from babel.messages import pofile  # noqa: E402
from wrong_answers import lesson01 as answers  # noqa: E402

from adapters_lesson.course import words  # noqa: E402
from adapters_lesson.course.checks import lesson01 as checks  # noqa: E402
from adapters_lesson.course.lesson_source import read_lesson  # noqa: E402
from adapters_lesson.course.predictions import compare, prediction  # noqa: E402

SOURCE = ROOT / "notebooks" / "sources" / "01_the_bottleneck.py"
GERMAN = ROOT / "notebooks" / "sources" / "de" / "01_the_bottleneck.md"


@pytest.fixture
def german():
    words.speak("de")
    yield
    words.speak("en")


def test_a_check_says_it_in_german_and_its_report_stays_english(german):
    report = checks.check_count(lambda d, m: 2 * d * m)
    assert report.message == "the biases are missing: each of the two linear layers has one"
    assert repr(report) == "✘ 1.3: die Biase fehlen: jede der beiden linearen Schichten hat einen"


def test_a_message_with_holes_is_known_by_its_template(german):
    assert words._("for d = 1 it gives 2, right is 3: count the entries of both weights and biases") == (
        "für d = 1 ergibt sie 2, richtig ist 3: zählen Sie die Einträge beider Gewichte und Biase"
    )
    assert words._("correct: 2·d·m + m + d. It is count in mine/adapters.py now.") == (
        "richtig: 2·d·m + m + d. Sie ist jetzt count in mine/adapters.py."
    )
    assert words._(
        "stopped after 15 seconds, in your line `x`: most likely a loop that never ends; what should make it stop?"
    ).startswith("nach 15 Sekunden angehalten, in Ihrer Zeile `x`: sehr wahrscheinlich eine Schleife")
    assert words._("nobody has translated\nthis. Or that") == "nobody has translated\nthis. Or that"
    assert words._("one of many things is left") == "one of many things is left"
    assert words._("2 of 5") == "2 von 5"
    assert words._("") == ""


@pytest.mark.parametrize("name", list(answers.WRONG))
def test_what_a_check_of_lesson_01_says_to_a_wrong_answer_is_german(german, name):
    given = [made[0] if isinstance(made, tuple) else made for made in answers.WRONG[name]]
    said = [getattr(checks, name).judge(answer) for answer in given]
    plain = [r.message for r in said if words._(r.message) == r.message]
    assert len(said) >= 8
    assert plain == []


def test_a_prediction_is_shown_in_german(german, capsys):
    asked = prediction("1b", "Which weights get a gradient in the first step?", ["both", "none"])
    assert [option.description for option in asked.options] == ["beide", "keine"]
    asked.commit("both")
    compare("1b", "none")
    assert capsys.readouterr().out == "✘ Sie haben beide vorhergesagt, es ist keine\n"


def test_in_english_nothing_changes_and_an_unknown_language_is_refused():
    assert words._("both") == "both"
    with pytest.raises(ValueError, match="the course does not speak 'xx': it speaks en, de"):
        words.speak("xx")


def test_what_is_translated_is_still_said_and_keeps_its_holes():
    said = {entry.id for entry in messages.everything()}
    with (messages.LOCALE / "de.po").open("rb") as file:
        entries = [entry for entry in pofile.read_po(file) if entry.id]
    assert len(entries) > 200
    assert [entry.id for entry in entries if entry.id not in said] == []  # else: make messages
    for entry in entries:
        assert sorted(words._HOLE.findall(entry.id)) == sorted(words._HOLE.findall(entry.string)), entry.id


def test_the_catalogue_forgets_what_is_not_said_any_more(tmp_path):
    path, found = tmp_path / "de.po", messages.Catalog()
    path.write_text('msgid "one text"\nmsgstr "ein Text"\n\nmsgid "lost text"\nmsgstr "verloren"\n', encoding="utf-8")
    found.add("one text")
    found.add("new text")
    kept, todo = (messages.updated(path, found, todo).decode() for todo in (False, True))
    assert "ein Text" in kept
    assert "verloren" not in kept
    assert "new text" not in kept
    assert "new text" in todo


def test_texts_are_taken_out_of_a_source_and_docstrings_are_not():
    lines = ('"""A docstring of words."""', 'x = f"it is {a + b} too long"', 'button("Go", tip)', 'y = "a-b"')
    source = "\n".join([*lines, "z = f\"{_('Yes')}!\""])
    assert sorted(messages.texts(source)) == ["Go", "Yes", "it is {0} too long"]


def test_a_translation_that_is_out_of_step_is_told(tmp_path):
    lesson = read_lesson(SOURCE)
    assert list(translation.out_of_step(lesson, GERMAN)) == []
    changed = tmp_path / "sources" / "de" / GERMAN.name
    changed.parent.mkdir(parents=True)
    shutil.copy(SOURCE, tmp_path / "sources")
    english = (tmp_path / "sources" / SOURCE.name).read_text(encoding="utf-8")
    new = english.replace("First, four questions", "First, some questions")
    (tmp_path / "sources" / SOURCE.name).write_text(new, encoding="utf-8")
    shutil.copy(GERMAN, changed)
    lacks, has = translation.out_of_step(read_lesson(tmp_path / "sources" / SOURCE.name), changed)
    assert "in English: First, some questions from lesson 00" in lacks
    assert has.startswith("has <!-- 6fc69614 -->, whose English has changed or is gone: Zuerst vier Fragen")


def test_the_german_lesson_is_built_from_both_and_has_nothing_to_complain_about():
    built = nbformat.read(ROOT / "notebooks" / "de" / "01_the_bottleneck.ipynb", as_version=4)
    made = translation.translated("de", GERMAN)
    assert translation.build.in_step(built, made)
    assert translation.build.complaints(built) == []
    text = "\n".join(cell.source for cell in built.cells if cell.cell_type == "markdown")
    assert "Der Flaschenhals" in text
    assert "<b>Lösung</b>" in text
    assert not translation.TO_A_LESSON.search(text)
