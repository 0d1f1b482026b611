"""What a learner has done: kept in the learner's own file, never lost, shown as text and as HTML that say the same."""

import csv
import html
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from filelock import FileLock

from adapters_lesson.course import record
from adapters_lesson.course.checks import check, lesson01
from adapters_lesson.course.quiz import Option, Question, Quiz, load_quiz, quiz
from adapters_lesson.course.record import progress

ROOT = Path(__file__).parents[1]
COURSE = list(csv.DictReader((ROOT / "notebooks" / "course.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The learner's file, in a folder in which a notebook has just been started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(record, "_unsaved", {})
    return tmp_path / "progress.json"


def kept(file):
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["exercises"], {lesson: (q["right"], q["questions"]) for lesson, q in content["quizzes"].items()}


def right(d, m):
    return 2 * d * m + d + m


def wrong(d, m):
    return 2 * d * m


def stub(*arguments):
    raise NotImplementedError


def as_words(shown):
    """The words of the HTML form, in order."""
    return html.unescape(re.sub("<[^>]+>", " ", shown._repr_html_())).split()


def test_it_lists_all_lessons_exercises_and_quizzes(file):
    shown = repr(progress())
    for row in COURSE[1:]:
        assert f"{row['lesson'][:2]} {row['title']}" in shown
    assert len(re.findall(r"○ \d+\.\d", shown)) >= 35
    assert re.search(r"^10 A language model +○ 10\.1  ○ 10\.2  ○ 10\.3", shown, re.MULTILINE)
    assert shown.startswith("Done so far: 0 of ")
    assert "0 of 13 quizzes" in shown
    assert not file.exists() and not list(file.parent.iterdir()), "looking writes nothing"


def test_a_check_is_recorded_as_done_or_tried_or_not_at_all(file):
    lesson01.check_count(stub)
    assert not file.exists()
    lesson01.check_count(wrong)
    assert kept(file) == ({"1.3": "tried"}, {})
    assert "○ 1.2  ✘ 1.3  ○ 1.4" in repr(progress())
    lesson01.check_count(right)
    assert kept(file) == ({"1.3": "done"}, {})
    assert "○ 1.2  ✔ 1.3  ○ 1.4" in repr(progress())
    assert repr(progress()).startswith("Done so far: 1 of ")


def test_done_stays_done(file):
    for answer in (right, wrong, stub):
        lesson01.check_count(answer)
    assert kept(file) == ({"1.3": "done"}, {})


def test_a_wrong_try_keeps_what_was_said_and_how_often_until_it_is_right(file):
    said = lesson01.check_count(wrong).message
    lesson01.check_count(wrong)
    there = record.known()["tries"]["1.3"]
    assert there["said"] == said
    assert 2 <= there["times"] == check._made["1.3", re.sub(r"\d[\d.,]*", "#", said)]
    assert abs(there["at"] - time.time()) < 60
    lesson01.check_count(stub)
    assert record.known()["tries"]["1.3"] == there, "nothing was tried"
    lesson01.check_count(right)
    lesson01.check_count(wrong)
    assert record.known()["tries"]["1.3"]["said"] == "", "done stays done"


def test_what_is_known_already_is_not_written_again(file):
    lesson01.check_count(right)
    before = file.stat()
    for answer in (right, wrong):
        lesson01.check_count(answer)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_finished_quiz_is_recorded_with_its_score_of_first_tries(file):
    asked, questions = quiz("01"), load_quiz("01")
    for number, question in enumerate(questions):
        assert not file.exists() or kept(file) == ({}, {}), "not finished"
        options = sorted(question.options, key=lambda option: option.right, reverse=number > 0)
        asked.choose(number, options[0])
    expected = (len(questions) - 1, len(questions))
    assert kept(file) == ({}, {"01": expected})
    asked.choose(0, next(option for option in questions[0].options if option.right))
    assert kept(file) == ({}, {"01": expected}), "the first try counts"
    assert f"✔ {expected[0]} of {expected[1]} right" in repr(progress())
    assert "1 of 13 quizzes" in repr(progress())


def test_a_quiz_tells_its_end_once_and_again_after_a_new_start():
    options = (Option("yes", "It is.", right=True), Option("no", "It is not."))
    said = []
    asked = Quiz("One question", (Question("Is it?", options),), lambda *score: said.append(score))
    for option in (options[1], options[1], options[0]):
        asked.choose(0, option)
    assert said == [(0, 1)]
    asked.start_again()
    asked.choose(0, options[0])
    assert said == [(0, 1), (1, 1)]


def test_the_better_score_counts_unless_the_questions_are_others(file):
    for score in ((2, 4), (3, 4), (1, 4)):
        record.note_quiz("02", *score)
    assert kept(file)[1] == {"02": (3, 4)}
    record.note_quiz("02", 1, 5)
    assert kept(file)[1] == {"02": (1, 5)}


def test_one_lesson_is_shown_with_names_and_words(file):
    lesson01.check_count(right)
    lesson01.check_widest(stub)
    lesson01.check_start(print)
    record.note_quiz("01", 3, 4)
    lines = repr(progress("01")).splitlines()
    assert lines[0] == "01 The bottleneck: 1 of 4 exercises done"
    rows = dict(re.split(r"  +", line) for line in lines[3:8])
    assert rows == {
        "1.1 The forward pass": "○ not attempted",
        "1.2 Start as the identity": "✘ tried, wrong so far",
        "1.3 Count the parameters": "✔ done",
        "1.4 The widest bottleneck": "○ not attempted",
        "quiz": "✔ 3 of 4 right at the first try",
    }
    assert repr(progress("1")) == repr(progress("01"))


def test_a_lesson_that_is_not_built_yet_is_left_out(file, monkeypatch):
    rows = [*record.course(), {"lesson": "13_prefixes", "title": "Prefixes"}]
    monkeypatch.setattr(record, "course", lambda: rows)
    assert "Prefixes" not in repr(progress())


def lead(shown):
    """The note of what is next, and the cell to which it leads, in the folder of the notebook; empty without a link."""
    (note,) = [note for note in shown.notes if note.startswith("Next: ")] or [""]
    (link,) = re.findall(r'<a href="([^"]*)">Next: ', shown._repr_html_()) or [""]
    file, _, cell = link.partition("#cell-id=")
    cells = json.loads(Path(unquote(file)).read_text(encoding="utf-8"))["cells"] if link else []
    return note, "".join(line for found in cells if found["id"] == cell for line in found["source"])


def test_what_is_next_is_one_link_away(file):
    shutil.copytree(ROOT / "notebooks", file.parent, dirs_exist_ok=True)
    note, card = lead(progress())
    assert note == "Next: 0.1 The share that is trained, in 00_start_here.ipynb"
    assert "### Exercise 0.1 · The share that is trained" in card
    for exercise in ("0.1", "1.1", "1.3"):
        record.note_exercise(exercise, correct=exercise != "1.1")
    note, card = lead(progress())
    assert note == "Next: 1.1 The forward pass, in 01_the_bottleneck.ipynb"
    assert "### Exercise 1.1 · The forward pass" in card
    assert "### Exercise 3.1 ·" in lead(progress("03"))[1]


def test_the_link_leads_to_the_learners_edition_from_wherever_it_is_followed(file, monkeypatch):
    lessons, below = file.parent / "my lessons", file.parent / "other"
    shutil.copytree(ROOT / "notebooks", lessons)
    monkeypatch.setenv(record.VARIABLE, str(lessons / "progress.json"))
    for folder, href in ((lessons / "solutions", "../00_start"), (below, "../my%20lessons/00_start")):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert f'href="{href}' in progress()._repr_html_()
        assert "### Exercise 0.1 ·" in lead(progress())[1]


def test_every_lesson_is_one_link_away(file):
    assert "<a " not in progress()._repr_html_()  # there is no lesson beside progress.json
    shutil.copytree(ROOT / "notebooks", file.parent, dirs_exist_ok=True)
    links = re.findall(r'<a href="([^"#]*)">(\d\d) ', progress()._repr_html_())
    assert [number for _, number in links] == [row["lesson"][:2] for row in COURSE]
    assert all(Path(unquote(link)).name.startswith(number) and Path(unquote(link)).is_file() for link, number in links)


def test_a_correct_answer_leads_to_the_next_that_is_not_done(file):
    shutil.copytree(ROOT / "notebooks", file.parent, dirs_exist_ok=True)
    assert lesson01.check_count(wrong)._repr_html_() is None
    record.note_exercise("1.4", correct=True)
    report = lesson01.check_count(right)
    assert report.ahead[0] == "Next: 2.1 Who looks at whom, in 02_a_small_transformer.ipynb"
    assert f'<a href="02_a_small_transformer.ipynb#cell-id={report.ahead[1].partition("=")[2]}">Next: 2.1' in (
        report._repr_html_()
    )
    assert html.escape(repr(report)) in report._repr_html_()
    for row in re.findall(r"○ (\d+\.\d+)", repr(progress())):
        record.note_exercise(row, correct=row != "0.1")
    assert lesson01.check_count(right).ahead[0].startswith("Next: 0.1 ")  # the one that was left out
    record.note_exercise("0.1", correct=True)
    assert lesson01.check_count(right)._repr_html_() is None


def test_where_nothing_is_kept_no_link_follows(file, monkeypatch):
    monkeypatch.setenv(record.VARIABLE, "")
    assert lesson01.check_count(right)._repr_html_() is None


@pytest.mark.parametrize("text", ["", "[]", '{"cells": [1]}', '{"cells": [{"id": "x", "source": ["# other"]}]}', None])
def test_where_a_notebook_is_not_the_lesson_there_is_no_link(file, text):
    if text is not None:
        (file.parent / "00_start_here.ipynb").write_text(text, encoding="utf-8")
    assert lead(progress()) == ("Next: 0.1 The share that is trained, in 00_start_here.ipynb", "")


def test_where_all_is_done_nothing_is_next(file):
    for row in re.findall(r"○ (\d+\.\d+)", repr(progress())):
        record.note_exercise(row, correct=True)
    assert repr(progress()).startswith("Done so far: 49 of 49")
    assert "Next" not in repr(progress())


@pytest.mark.parametrize("lesson", ["13", "", "x"])
def test_a_lesson_that_is_not_there_is_named(lesson, file):
    with pytest.raises(ValueError, match=f"nothing to do in lesson '{lesson}'; lessons with exercises: 00, 01"):
        progress(lesson)


@pytest.mark.parametrize("lesson", [None, "01"])
def test_text_and_html_say_the_same(lesson, file):
    for notebook in (ROOT / "notebooks").glob("0[01]*.ipynb"):  # beside the record, there is a link
        shutil.copy2(notebook, file.parent)
    lesson01.check_count(right)
    record.note_quiz("01", 3, 4)
    shown = progress(lesson)
    assert as_words(shown) == repr(shown).split()
    assert "color" not in shown._repr_html_(), "the theme's own colours are legible, dark or light"


def test_the_place_of_the_file_is_said(file, monkeypatch, tmp_path):
    assert "Kept in progress.json, in the folder of this notebook" in repr(progress())
    monkeypatch.setenv(record.VARIABLE, str(tmp_path / "elsewhere" / "mine.json"))
    lesson01.check_count(right)
    assert kept(tmp_path / "elsewhere" / "mine.json") == ({"1.3": "done"}, {})
    assert f"Kept in {tmp_path / 'elsewhere' / 'mine.json'}" in repr(progress())


def test_nothing_is_kept_where_the_variable_is_empty(file, monkeypatch):
    monkeypatch.setenv(record.VARIABLE, "")
    lesson01.check_count(right)
    record.note_quiz("01", 3, 4)
    assert repr(progress()).startswith("Done so far: 0 of ")
    assert "Kept" not in repr(progress()) and "Next" not in repr(progress())
    assert not list(file.parent.iterdir())


OURS = {"course": "adapters_lesson", "version": 1, "exercises": {"1.1": "done"}, "quizzes": {}}
NOT_OURS = {
    "not JSON": b"{ oops",
    "not text": b"\xff\xfe\x00",
    "empty": b"",
    "deep": b"[" * 100_000,
    "somebody else's": b'{"name": "a file of another program"}',
    "a list": b"[1, 2]",
    "newer": json.dumps(OURS | {"version": 2}).encode(),
    "more in it": json.dumps(OURS | {"notes": "mine"}).encode(),
    "unknown state": json.dumps(OURS | {"exercises": {"1.1": "perhaps"}}).encode(),
    "exercises are a list": json.dumps(OURS | {"exercises": ["1.1"]}).encode(),
    "a try in words": json.dumps(OURS | {"tries": {"1.1": {"at": 1, "said": "no", "times": "often"}}}).encode(),
    "a try at no time": json.dumps(OURS | {"tries": {"1.1": {"at": float("nan"), "said": "", "times": 1}}}).encode(),
    "half a quiz": json.dumps(OURS | {"quizzes": {"01": {"right": 3}}}).encode(),
    "more right than asked": json.dumps(OURS | {"quizzes": {"01": {"right": 5, "questions": 4}}}).encode(),
    "a score in words": json.dumps(OURS | {"quizzes": {"01": {"right": "3", "questions": 4}}}).encode(),
}


@pytest.mark.parametrize("content", NOT_OURS.values(), ids=NOT_OURS)
def test_a_file_that_is_not_ours_is_left_as_it_is_and_recording_goes_on(content, file):
    file.write_bytes(content)
    lesson01.check_count(right)
    record.note_quiz("01", 3, 4)
    shown = repr(progress())
    assert "✔ 1.3" in shown and "✔ 3 of 4 right" in shown
    assert "progress.json cannot be used: it" in shown
    assert "move it away" in shown and "while this kernel runs" in shown
    assert file.read_bytes() == content
    file.rename(file.with_name("mine.json"))
    assert "cannot be used" not in repr(progress())
    assert kept(file) == ({"1.3": "done"}, {"01": (3, 4)}), "what was kept in memory is written as soon as it can be"


def test_a_folder_in_the_file_s_place_breaks_nothing(file):
    file.mkdir()
    assert lesson01.check_count(right).status == "correct"
    assert "✔ 1.3" in repr(progress()) and "it is no file" in repr(progress())


def test_a_folder_that_cannot_be_written_breaks_nothing(file, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    record.note_exercise("1.1", correct=True)
    monkeypatch.setattr(record, "write_atomically", refuse)
    assert lesson01.check_count(right).status == "correct"
    shown = repr(progress())
    assert "✔ 1.1" in shown and "✔ 1.3" in shown, "what the file says, and what it does not say yet"
    assert "progress.json cannot be used: Permission denied. Name a file in a folder of your own" in shown
    assert kept(file) == ({"1.1": "done"}, {})


def test_a_read_only_file_is_not_replaced(file, monkeypatch):
    record.note_exercise("1.1", correct=True)
    file.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # as root, one may write anything
    record.note_exercise("1.2", correct=True)
    assert kept(file) == ({"1.1": "done"}, {})
    assert "✔ 1.2" in repr(progress()) and "it is read-only" in repr(progress())


def test_a_place_that_cannot_be_breaks_nothing(file, monkeypatch):
    file.write_text("a file")
    monkeypatch.setenv(record.VARIABLE, str(file / "progress.json"))
    assert lesson01.check_count(right).status == "correct"
    assert "✔ 1.3" in repr(progress()) and "cannot be used" in repr(progress())


def test_a_kernel_that_writes_for_ever_is_not_waited_for(file, monkeypatch):
    monkeypatch.setattr(record, "_PATIENCE", 0.1)
    with FileLock(file.with_name(".progress.json.lock")):
        assert lesson01.check_count(right).status == "correct"
        assert "✔ 1.3" in repr(progress())
        assert not file.exists()
    progress()
    assert kept(file) == ({"1.3": "done"}, {})


def test_deleting_the_file_begins_anew(file):
    lesson01.check_count(right)
    file.unlink()
    assert repr(progress()).startswith("Done so far: 0 of ")
    lesson01.check_start(stub)
    assert not file.exists()


def note_many(lesson, number):
    for k in range(number):
        record.note_exercise(f"{lesson}.{k}", correct=True)


def test_two_kernels_do_not_lose_each_others_entries(file, monkeypatch):
    monkeypatch.setattr(record, "_PATIENCE", 30.0)  # a busy machine is no reason to give up here
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    kernels = [context.Process(target=note_many, args=(lesson, 30)) for lesson in (1, 2)]
    for kernel in kernels:
        kernel.start()
    for kernel in kernels:
        kernel.join(60)
    assert [kernel.exitcode for kernel in kernels] == [0, 0]
    assert kept(file)[0] == {f"{lesson}.{k}": "done" for lesson in (1, 2) for k in range(30)}


def test_the_checks_and_progress_stay_light():
    code = "import sys; from adapters_lesson.course.record import progress; progress(); print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("ipywidgets", "matplotlib", "IPython", "transformers", "datasets"):
        assert f"'{heavy}'" not in loaded
