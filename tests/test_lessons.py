"""`make lesson` writes a skeleton that lacks nothing, and `make check-notebooks` names whatever is taken from it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters_lesson.course.lesson_source import Cell, Lesson

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import check  # noqa: E402
import new_lesson  # noqa: E402

SOURCE = "notebooks/sources/13_prefix_tuning.py"
CHECKS, ANSWERS = "adapters_lesson/course/checks/lesson13.py", "tests/wrong_answers/lesson13.py"
QUIZ = "notebooks/quizzes/13.json"
FOLDERS = ("adapters_lesson", "classroom", "data", "docs", "notebooks", "tests")
LATER = ["has no seconds", "13_prefix_tuning.ipynb: is missing", "solutions/13_prefix_tuning.ipynb: is missing"]
LATER += ["data/reference/adapters.py: is out of step"]


def call(root, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository in which lesson 13 has been begun by the command."""
    root = tmp_path_factory.mktemp("course")
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy2(file, root)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    done = call(root, "notebooks/new_lesson.py", "13", "prefix_tuning")
    assert done.returncode == 0, done.stderr
    return root


def test_the_skeleton_lacks_nothing_but_its_execution(copy):
    said = call(copy, "notebooks/check.py", "13").stdout.splitlines()
    assert len(said) == len(LATER) and all(words in line for words, line in zip(LATER, said, strict=True))


def test_the_skeletons_check_and_answers_pass_the_courses_tests(copy):
    done = call(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "13.1", "tests/test_checks.py")
    assert done.returncode == 0, done.stdout
    done = call(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "13.1", "tests/test_hidden.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.notebook
def test_the_skeleton_can_be_built_and_a_changed_text_is_built_without_execution(copy):
    built = call(copy, "notebooks/build.py", "13")
    assert built.returncode == 0 and built.stdout.count("executed") == 2, built.stdout + built.stderr
    (line,) = call(copy, "notebooks/check.py", "13").stdout.splitlines()
    assert LATER[0] in line
    text = (copy / SOURCE).read_text()
    (copy / SOURCE).write_text(text.replace("A first idea", "A second idea"))
    assert call(copy, "notebooks/build.py", "13").stdout.count("outputs kept") == 2
    (copy / SOURCE).write_text(text.replace("Adapter.count(384, 64)", "Adapter.count(384, 32)"))
    assert call(copy, "notebooks/build.py", "13").stdout.count("executed") == 2
    (copy / SOURCE).write_text(text)
    for notebook in copy.glob("notebooks/**/13_*.ipynb"):
        notebook.unlink()


FAULTS = [
    (SOURCE, "**Before you start.**", "**Before.**", "has no **Before you start.**"),
    (SOURCE, "# 5. The fifth.\n", "", "five numbered lines"),
    (SOURCE, "Houlsby et al. 2019", "arXiv 2005.00247", "docs/bibliography.md: the entry of arXiv 2005.00247"),
    (SOURCE, "# NN · Prefix".replace("NN", "13"), "# 13 · Suffix", "has to begin with # 13 · Prefix tuning"),
    (SOURCE, "**Time.** 10", "**Time.** 20", "**Time.** has to say 10 minutes"),
    (SOURCE, "**3 minutes**", "**13 minutes**", "minutes of reading and exercises, not 10"),
    (SOURCE, "◆◇◇", "hard", "exercise 13.1: its card needs **Difficulty**"),
    (SOURCE, "**Done**", "Done", "say what done looks like"),
    (SOURCE, "<summary>Hint 2<", "<summary>Hint<", "add Hint 2"),
    (SOURCE, "<summary>I see", "<summary>You see", "two most common mistakes"),
    (SOURCE, "### BEGIN SOLUTION", "# solution", "mark the answer with ### BEGIN SOLUTION"),
    (SOURCE, "checks.check_share(per_cent_trained)", "print()", "ends with checks.check_"),
    (SOURCE, 'mine.run(shares, "13.1")', "shares(None)", "exercise 13.1 is used nowhere after its check"),
    (SOURCE, "found = mine.run(", 'show(figure, "…")\nfound = mine.run(', "put show(…) last in its cell"),
    (SOURCE, 'prediction("13b", ', 'print("13b", ', "at least three predictions"),
    (SOURCE, "### BEGIN HIDDEN TESTS", "# tests", "add a cell that ends with"),
    (SOURCE, ', "without frozen parameters all are trained."', "", "each with a message"),
    (SOURCE, "Exercise 13.1 ", "Exercise 13.2 ", "exercise 13.2 has to be 13.1"),
    (SOURCE, "Exercise 13.1 ·", "Exercise 13.1:", "a cell of its own"),
    (SOURCE, 'quiz("13")', 'quiz("12")', 'has no cell quiz("13")'),
    (CHECKS, "13.1", "13.4", 'write check_share with @check("13.1"'),
    (ANSWERS, "check_share", "check_shares", "WRONG has 0 answers for check_share: at least 8"),
    (ANSWERS, "in_steps, lambda", "lambda", "RIGHT has 2 answers for check_share: at least 3"),
    (ANSWERS, "def share(", "def share:", "cannot be imported (SyntaxError"),
    (QUIZ, "]\n", "\n", "is not JSON"),
    (QUIZ, '"reason"', '"why"', "question 1: each option has to have a text and a reason"),
    ("notebooks/course.csv", ",01 02 03,\n", ",01 02,\n", "has to have 01 02 03 as what it builds on"),
    (
        SOURCE,
        'mine.run(shares, "13.1")',
        'mine.run(lambda my: shares(my), "13.1", "5.2")',
        "has to have 5.2 as what it uses",
    ),
    ("notebooks/course.csv", "13_prefix", "14_prefix", "notebooks/course.csv: has no row 13_prefix_tuning"),
    ("README.md", "[Prefix tuning]", "[Prefix]", "README.md: its table of lessons needs the line | 13 |"),
    ("classroom/GRADING.md", "13.1: 2", "13.2: 2", "--points"),
    ("TEACHING.md", "| 13 Prefix", "| 13 Suffix", "the glance needs a row | 13 Prefix tuning | 10 |"),
    ("TEACHING.md", "### 13 · Prefix", "### 13 · Suffix", "add the section ### 13 · Prefix tuning (10 minutes)"),
    ("TEACHING.md", "- *What is the third question?*", "*What is the third question?*", "ask three questions"),
]


@pytest.mark.parametrize(("file", "part", "instead", "words"), FAULTS, ids=[fault[3][:40] for fault in FAULTS])
def test_what_a_lesson_lacks_is_named_with_its_file(file, part, instead, words, copy):
    text = (copy / file).read_text(encoding="utf-8")
    (copy / file).write_text(text.replace(part, instead), encoding="utf-8")
    try:
        assert part in text
        found = check.lacks(copy / SOURCE)
    finally:
        (copy / file).write_text(text, encoding="utf-8")
    assert any(words in line for line in found), found


def test_the_parts_of_a_section_for_teachers_are_five(copy):
    page = copy / "TEACHING.md"
    text = page.read_text(encoding="utf-8")
    before, heading, section = text.partition("### 13")
    page.write_text(before + heading + section.replace("**Show.**", "**Point.**", 1), encoding="utf-8")
    found = check.lacks(copy / SOURCE)
    page.write_text(text, encoding="utf-8")
    assert any("Say, Stall, Ask, Show, Shorter, it has Say, Stall, Ask, Point" in line for line in found)


OPTION = {"text": "yes", "reason": "so it is"}
NO, PERHAPS = {"text": "no", "reason": "it is"}, {"text": "perhaps", "reason": "it is so"}
QUESTION = {"text": "is it?", "options": [OPTION | {"right": True}, NO, PERHAPS]}


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ([], "a text and a list of options"),
        (QUESTION | {"hint": "h"}, "nothing else"),
        (QUESTION | {"options": QUESTION["options"][:1]}, "2 to 8 options"),
        (QUESTION | {"options": [OPTION | {"right": False}, QUESTION["options"][0]]}, '"right": true or nothing'),
        (QUESTION | {"text": " "}, "is empty"),
        (QUESTION | {"options": [OPTION, QUESTION["options"][1]]}, "exactly one option must be right, not 0"),
        (QUESTION | {"options": [QUESTION["options"][0], OPTION]}, "two options have the same text"),
        (QUESTION | {"options": [QUESTION["options"][0], {"text": "`no`", "reason": "r"}]}, "no backticks"),
        (QUESTION | {"options": QUESTION["options"][:2]}, "three or four options"),
    ],
)
def test_a_mistake_in_a_quiz_is_named_with_its_question(question, words, tmp_path):
    path = tmp_path / "13.json"
    path.write_text(json.dumps([QUESTION, QUESTION, QUESTION, question]))
    assert any(fault.startswith("question 4: ") and words in fault for fault in check.quiz_faults(path))
    path.write_text(json.dumps([QUESTION, QUESTION, QUESTION, QUESTION | {"claim": ["rule"]}]))
    assert list(check.quiz_faults(path)) == []


def test_minutes_count_what_is_read_and_not_what_is_folded_up_or_optional():
    card = "### Exercise 1.{} · A title\n\n{}\n**Difficulty** ◆◇◇ · **3\nminutes**{}"
    folded = "<details><summary>Not\nthese</summary></details>\n$$x + y$$"
    cells = [card.format(1, "word " * 130 + folded, ""), card.format(2, "", " · optional")]
    lesson = Lesson("01_x", tuple(Cell("markdown", text) for text in cells))
    assert 4 < check.minutes_needed(lesson) < 4.3
    assert [(e.minutes, e.optional, e.difficulty) for e in lesson.exercises] == [(3, False, 1), (3, True, 1)]


@pytest.mark.parametrize(
    ("number", "name", "words"),
    [("3", "x", 'not N="3"'), ("13", "Prefix Tuning", "NAME="), ("01", "x", "there is a lesson 01 already")],
)
def test_an_impossible_lesson_is_not_begun(number, name, words):
    with pytest.raises(ValueError, match=words):
        new_lesson.write_lesson(number, name)


def test_a_lesson_is_at_least_a_third_writing_predicting_or_turning():
    lines = check.shares().splitlines()[1:]
    assert len(lines) == len(list((ROOT / "notebooks" / "sources").glob("[0-9]*.py")))
    assert all(int(line.rpartition(" ")[2].rstrip("%")) >= 34 for line in lines), lines
