"""The whole course as a learner: solutions typed in, a library that works alone, and the page about it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from adapters_lesson.course import record
from adapters_lesson.course.lesson_source import SOLUTION, read_lesson
from adapters_lesson.course.mine import graduation, shelf
from adapters_lesson.course.mine.graduation import NEEDED, graduate
from adapters_lesson.course.mine.my_file import parse

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where a learner's notebooks are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(record, "_unsaved", {})
    return tmp_path


def type_in(exercises):
    """Solve these exercises, each in a notebook of its lesson; returns what the checks said."""
    shell, said = InteractiveShell.instance(), {}
    try:
        for source in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py")):
            lesson = read_lesson(source)
            chosen = [exercise for exercise in lesson.exercises if exercise.number in exercises]
            if not chosen:
                continue
            shell.reset(new_session=True)
            imports = "^(?:import|from) .*?(?:\n\\)|$)"
            code = "\n".join(cell.shown for cell in lesson.cells if cell.kind == "code")
            for line in re.findall(imports, re.sub(r"import \(\n(.*?)\n\)", _one_line, code, flags=re.S), re.MULTILINE):
                shell.run_cell(line, store_history=True).raise_error()
            for exercise in chosen:
                for place in exercise.answers:
                    shown = SOLUTION.sub(lambda found: found[2], f"{lesson.cells[place].shown}\n")
                    shell.run_cell(shown, store_history=True).raise_error()
                outcome = shell.run_cell(lesson.cells[exercise.check].shown, store_history=True)
                outcome.raise_error()
                said[exercise.number] = repr(outcome.result)
    finally:
        InteractiveShell.clear_instance()
    return said


def _one_line(found):
    return f"import {' '.join(found[1].split()).rstrip(',')}"


def test_all_solutions_make_a_library_that_gives_the_course_s_numbers_alone(folder):
    said = type_in(shelf.exercises())
    assert said.keys() == shelf.exercises().keys()
    assert all("mine/adapters.py now" in line for line in said.values()), said
    written = parse((folder / "mine" / "adapters.py").read_text(encoding="utf-8"))
    ours = shelf.reference().sections
    assert {key: s.body for key, s in written.sections.items()} == {key: s.body for key, s in ours.items()}
    made = graduate(steps=4, test=60)
    assert made.same, made
    assert made.lent == {}
    assert made.pieces == len(shelf.exercises())
    page = (folder / "mine" / "graduation.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    assert str(folder) not in page
    assert (folder / "mine" / "graduation.png").stat().st_size > 10_000


def test_half_of_the_solutions_are_filled_up_and_named(folder):
    type_in([exercise for n, exercise in enumerate(shelf.exercises()) if n % 2])
    made = graduate(steps=2, test=20)
    assert made.same
    assert made.lent == {e: shelf.NOT_ATTEMPTED for n, e in enumerate(shelf.exercises()) if n % 2 == 0 and e in NEEDED}
    assert 0 < made.pieces < len(shelf.exercises())


def test_without_any_solution_the_course_lends_all(folder):
    made = graduate(steps=2, test=20)
    assert made.same
    assert list(made.lent) == [exercise for exercise in shelf.exercises() if exercise in NEEDED]
    assert "0 lines, 0 of" in repr(made)


def keep_reference(folder, **bodies):
    """The course's own answers as the learner's, with other code for some: ``e5_1="def …"``."""
    file = parse(shelf.REFERENCE.read_text(encoding="utf-8"))
    sections = {key: section.checked("2026-01-01") for key, section in file.sections.items()}
    for key, body in bodies.items():
        exercise = key[1:].replace("_", ".")
        sections[exercise] = replace(sections[exercise], body=body).checked("2026-01-01")
    path = folder / "mine" / "adapters.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(file._replace(sections=sections).text(), encoding="utf-8")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match=f"seconds is {seconds}: give the library more than 0 and at most 86400"):
        graduate(seconds=seconds)


def test_an_answer_that_hangs_is_ended_and_named(folder):
    hang = """
    import faulthandler

    faulthandler.dump_traceback_later(1, exit=True)  # time is up a second from here, however busy the machine is
    while True:
        sorted([2, 1])
"""
    body = shelf.reference().sections["5.1"].body
    keep_reference(folder, e5_1=body.replace("\n", hang, 1))
    with pytest.raises(RuntimeError) as told:
        graduate(steps=1, test=10)
    assert re.fullmatch(
        r"your library is not done after 600 seconds: 5\.1 is at `(while True:|sorted\(\[2, 1\]\))`\. "
        r"If it is only slow, give it longer: graduate\(seconds=1200\)",
        str(told.value),
    )


def test_a_time_that_is_over_before_any_answer_is_at_work_is_not_put_on_one(folder):
    keep_reference(folder)
    with pytest.raises(RuntimeError, match=r"not done after 0\.1 seconds: none of its code is at work just now\."):
        graduate(steps=1, test=10, seconds=0.1)


def test_an_answer_that_needs_the_course_is_lent_and_one_that_stops_is_said(folder, monkeypatch):
    file = parse(shelf.REFERENCE.read_text(encoding="utf-8"))
    sections = {key: section.checked("2026-01-01") for key, section in file.sections.items()}
    body = "def count_parameters(d, m):\n    return Course.count(d, m)"
    sections["1.3"] = type(sections["1.3"])("1.3", "Count", "", body).checked("2026-01-01")
    imports = {**file.imports, "Course": "from adapters_lesson import Adapter as Course"}
    path = folder / "mine" / "adapters.py"
    path.parent.mkdir()
    path.write_text(file._replace(imports=imports, sections=sections).text(), encoding="utf-8")
    made = graduate(steps=1, test=10)
    assert made.lent == {"1.3": "it uses the course's Course"}
    broken = sections["5.1"].body.replace("loss.backward()", "loss.back()")
    sections["5.1"] = type(sections["5.1"])("5.1", "Step", "", broken).checked("2026-01-01")
    path.write_text(file._replace(sections=sections).text(), encoding="utf-8")
    with pytest.raises(RuntimeError, match="your library stops without the course: AttributeError"):
        graduation.graduate(steps=1, test=10)
