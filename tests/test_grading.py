"""Assignments for nbgrader, from every lesson's source; and one class's hand-ins, graded by nbgrader's own commands."""

import csv
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser import environment

pytest.importorskip("nbgrader", reason="make test-all runs these tests, in the environment .classroom")
pytestmark = pytest.mark.slow
CLASSROOM = Path(__file__).parents[1] / "classroom"
sys.path.insert(0, str(CLASSROOM))
import assignment  # noqa: E402
import grading  # noqa: E402
from nbgrader.api import Gradebook  # noqa: E402
from nbgrader.apps import NbGraderAPI  # noqa: E402
from nbgrader.nbgraderformat import MetadataValidator  # noqa: E402
from traitlets.config.loader import PyFileConfigLoader  # noqa: E402

from adapters_lesson.course.checks import lesson01  # noqa: E402
from adapters_lesson.course.lesson_source import read_lesson  # noqa: E402

LESSONS = assignment.lessons()
every_lesson = pytest.mark.parametrize("lesson", [lesson.name for lesson in LESSONS.values()])


def read(path):
    return nbformat.read(path, as_version=4)


def graded_id(cell):
    return cell.metadata.nbgrader.grade_id


def with_id(notebook, grade_id):
    (cell,) = [cell for cell in notebook.cells if graded_id(cell) == grade_id]
    return cell


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """nbgrader and its kernels write into a temporary folder only, and find their helpers."""
    home = tmp_path_factory.mktemp("home")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("JUPYTER")]:
            patch.delenv(name)
        for name, value in {**environment(home), "PATH": path}.items():
            patch.setenv(name, value)
        patch.delenv("ADAPTERS_LESSON_PROGRESS")  # see conftest.py; here grading has to see to it itself
        yield home


# --- Every lesson --------------------------------------------------------------------------------------------------


@every_lesson
def test_a_lesson_makes_a_source_version(lesson):
    notebook = assignment.source_version(LESSONS[lesson[:2]])
    MetadataValidator().validate_nb(notebook)
    roles = {graded_id(cell): cell.metadata.nbgrader for cell in notebook.cells}
    for exercise in LESSONS[lesson[:2]].exercises:
        number = exercise.number.replace(".", "-")
        answer, check, hidden = (roles.pop(f"{role}-{number}") for role in ("exercise", "check", "hidden"))
        assert (answer.grade, answer.solution, answer.locked) == (False, True, False)
        for test in (check, hidden):
            assert (test.grade, test.solution, test.locked) == (True, False, True)
            assert test.points == assignment.points(exercise) / 2 in (1, 2, 3)
    more = {name for name in roles if re.fullmatch(r"exercise-\d+-\d+-\d", name)}  # an answer in several cells
    assert all(roles[name].locked and not roles[name].grade for name in roles.keys() - more)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids) == len({graded_id(cell) for cell in notebook.cells})


@pytest.fixture(scope="module")
def course(at_home, tmp_path_factory):
    """nbgrader, in this process, and its folder."""
    folder = tmp_path_factory.mktemp("course")
    for file in ("nbgrader_config.py", "grading.py"):
        shutil.copy2(CLASSROOM / file, folder)
    config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    config.CourseDirectory.root = str(folder)
    return NbGraderAPI(config=config), folder


def release(course, lesson):
    """The release version of a lesson, which nbgrader makes from the source version, once."""
    nbgrader, folder = course
    if not (folder / "release" / lesson).exists():
        (folder / "source" / lesson).mkdir(parents=True, exist_ok=True)
        nbformat.write(assignment.source_version(LESSONS[lesson[:2]]), folder / "source" / lesson / f"{lesson}.ipynb")
        done = nbgrader.generate_assignment(lesson)
        assert done["success"], done["error"]
    return read(folder / "release" / lesson / f"{lesson}.ipynb")


@every_lesson
def test_the_release_version_has_no_solutions_and_no_hidden_tests(lesson, course):
    handed_out = release(course, lesson)
    exercises = LESSONS[lesson[:2]].exercises
    shown = "\n".join(cell.source for cell in handed_out.cells)
    assert "SOLUTION" not in shown and "HIDDEN" not in shown and "<b>Solution</b>" not in shown
    assert shown.count("# your code here\n") >= len(exercises)
    assert ".ipynb)" not in shown  # the other lessons are not beside it
    secrets = "\n".join(cell.hidden for cell in LESSONS[lesson[:2]].cells)
    assert secrets.count("assert") >= len(exercises)
    for line in secrets.splitlines():
        assert "assert" not in line or line not in shown
    with Gradebook(f"sqlite:///{course[1]}/gradebook.db") as gradebook:
        assert gradebook.find_assignment(lesson).max_score == sum(map(assignment.points, exercises))


@pytest.mark.notebook
@every_lesson
def test_the_solutions_get_all_points(lesson, course):
    release(course, lesson)
    nbgrader, folder = course
    shutil.copytree(folder / "source" / lesson, folder / "submitted" / "ann" / lesson)
    done = nbgrader.autograde(lesson, "ann")
    assert done["success"], done["error"]
    assert points(folder, lesson)["ann"] == {
        f"{test}-{exercise.number.replace('.', '-')}": assignment.points(exercise) / 2
        for exercise in LESSONS[lesson[:2]].exercises
        for test in ("check", "hidden")
    }


# --- One class -----------------------------------------------------------------------------------------------------


def nbgrader(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def points(folder, name):
    """The points of each learner for each test."""
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        return {
            submission.student.id: {grade.name: grade.score for book in submission.notebooks for grade in book.grades}
            for submission in gradebook.assignment_submissions(name)
        }


def hand_in(folder, student, answers, change=lambda notebook: None):
    """The release version of lesson 01 with a learner's answers, by exercise."""
    name = "01_the_bottleneck.ipynb"
    notebook = read(folder / "release" / "lesson01" / name)
    for number, answer in answers.items():
        with_id(notebook, f"exercise-{number.replace('.', '-')}").source = answer
    change(notebook)
    path = folder / "submitted" / student / "lesson01" / name
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


BIASES_FORGOTTEN = "def count_parameters(model_dim, bottleneck_dim):\n    return 2 * model_dim * bottleneck_dim"
BROKEN = {
    "1.1": "class MyAdapter(nn.Module)\n    pass",
    # A check that is made to be content: the hidden tests do not ask it.
    "1.3": f"{BIASES_FORGOTTEN}\n\n\nfrom adapters_lesson.course.checks import Report\n"
    'checks.check_count = lambda answer: Report("1.3", "correct", "")',
}


ENDLESS = "def start_as_identity(adapter):\n    while True:\n        pass"


def tamper(notebook):
    """Both tests of 1.4 and all of 1.2 deleted; the hidden tests of 1.3 to be skipped; a test overwritten."""
    gone = ("check-1-4", "hidden-1-4", "exercise-1-2", "check-1-2", "hidden-1-2")
    notebook.cells = [cell for cell in notebook.cells if graded_id(cell) not in gone]
    with_id(notebook, "hidden-1-3").metadata["tags"] = ["skip-execution"]
    with_id(notebook, "check-1-1").source = "pass"


@pytest.fixture(scope="module")
def a_class(at_home, tmp_path_factory):
    """The class's folder after everything, and the exercises of lesson 01."""
    folder = tmp_path_factory.mktemp("class")
    assignment.write_assignment(LESSONS["01"], folder)
    exercises = LESSONS["01"].exercises
    settings = (folder / "nbgrader_config.py").read_text()
    (folder / "nbgrader_config.py").write_text(f"{settings}\nc.Execute.timeout = 30\n")
    source = read(folder / "source" / "lesson01" / "01_the_bottleneck.ipynb")
    solved = {e.number: with_id(source, f"exercise-{e.number.replace('.', '-')}").source for e in exercises}
    noisy = solved["1.1"].replace(
        "        return", '        import warnings\n\n        warnings.warn("noise")\n        return'
    )
    assert noisy != solved["1.1"]
    hand_in(folder, "complete", solved)
    hand_in(folder, "half", {"1.1": noisy, "1.2": ENDLESS, "1.3": BIASES_FORGOTTEN, "1.4": solved["1.4"]})
    hand_in(folder, "empty", {})
    hand_in(folder, "broken", {**BROKEN, "1.4": solved["1.4"]}, tamper)
    nbgrader(folder, "autograde", "lesson01")
    nbgrader(folder, "generate_feedback", "lesson01")
    nbgrader(folder, "export")
    return folder, {exercise.number: assignment.points(exercise) for exercise in exercises}


@pytest.mark.notebook
def test_the_points_are_as_expected(a_class):
    folder, worth = a_class
    expected = {
        "complete": sum(worth.values()),
        "half": worth["1.1"] + worth["1.4"],
        "broken": worth["1.3"] / 2 + worth["1.4"],
        "empty": 0,
    }
    with (folder / "grades.csv").open(newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {student: float(row["score"]) for student, row in rows.items()} == expected
    assert {float(row["max_score"]) for row in rows.values()} == {sum(worth.values())}
    got = points(folder, "lesson01")
    assert (got["broken"]["check-1-3"], got["broken"]["hidden-1-3"]) == (worth["1.3"] / 2, 0)
    assert all(got["half"][f"{test}-1-{k}"] == 0 for test in ("check", "hidden") for k in (2, 3))


@pytest.mark.notebook
def test_the_feedback_says_what_the_check_says(a_class, monkeypatch):
    monkeypatch.setenv("ADAPTERS_LESSON_PROGRESS", "")
    folder, _ = a_class
    feedback = {
        student: html.unescape((folder / "feedback" / student / "lesson01" / "01_the_bottleneck.html").read_text())
        for student in ("complete", "half", "broken", "empty")
    }
    d_m = {}
    exec(BIASES_FORGOTTEN, d_m)
    sentence = lesson01.check_count(d_m["count_parameters"]).message
    assert len(sentence) > 20 and sentence in feedback["half"]
    assert "not attempted yet" in feedback["empty"] and "not attempted yet" not in feedback["complete"]
    assert sentence not in feedback["complete"] and "✔ 1.3" in feedback["complete"]
    assert "was missing from the submission" in feedback["broken"]


@pytest.mark.notebook
def test_grading_executes_what_the_exercises_need_and_keeps_nobodys_progress(a_class):
    folder, _ = a_class
    graded = read(folder / "autograded" / "complete" / "lesson01" / "01_the_bottleneck.ipynb")
    ran = [cell for cell in graded.cells if cell.cell_type == "code" and cell.execution_count]
    lessons_own = [cell for cell in ran if graded_id(cell).startswith("cell-")]
    assert lessons_own and all("import" in cell.source for cell in lessons_own)
    assert not any("explorer" in cell.source.splitlines()[-1] or cell.source.startswith("quiz") for cell in ran)
    assert not list(folder.rglob("progress.json"))


# --- Its parts -----------------------------------------------------------------------------------------------------


def code(source, **role):
    kind = {"grade": False, "solution": False, "locked": False, **role}
    return nbformat.v4.new_code_cell(source, metadata={"nbgrader": kind} if role else {})


def test_only_what_no_exercise_needs_is_left_out():
    cells = [
        code("import torch\nfrom a import b as c", locked=True),
        code("data = torch.ones(3)", locked=True),
        code("other = data + 1", locked=True),
        code("data[0] = 7", locked=True),
        code("for data_point in data:\n    print(data_point)", locked=True),
        code("width = 3", locked=True),
        code("def f(width, x=[data for _ in '1']):\n    return width", solution=True),
        code("assert f(3) == 3", grade=True, locked=True),
        code("late = await something()", locked=True),
        code("helper = late"),  # the learner's own
        code("print(", locked=True),
    ]
    grading.tag_what_no_exercise_needs(cells)
    left_out = [cell.source for cell in cells if cell.metadata.get("tags") == [grading.SKIP]]
    assert left_out == [cells[k].source for k in (2, 4, 5, 10)]


def test_an_unknown_lesson_is_refused_with_those_there_are(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["assignment.py", "99", "--into", str(tmp_path / "class")])
    assert assignment.main() == 1
    assert "LESSON=99" in (said := capsys.readouterr().err) and "00, 01, 02" in said
    with pytest.raises(ValueError, match="LESSON is missing"):
        assignment.find_lesson("")
    assert not (tmp_path / "class").exists()


PARTS = [
    "**Difficulty** ◆◇◇ · **3 ",
    "checks.check_count(",
    "### BEGIN SOLUTION\n    return 2",
    "### BEGIN HIDDEN TESTS\nassert count",
]


@pytest.mark.parametrize("part", PARTS)
def test_an_exercise_that_lacks_a_part_is_named(part, tmp_path):
    text = (assignment.SOURCES / "01_the_bottleneck.py").read_text()
    assert part in text
    (tmp_path / "01_faulty.py").write_text(text.replace(part, "print(", 1))
    with pytest.raises(ValueError, match=r"exercise 1\.3 lacks a part: make check-notebooks"):
        assignment.source_version(read_lesson(tmp_path / "01_faulty.py"))


def test_an_assignment_with_hand_ins_is_not_built_again_unasked(tmp_path):
    (tmp_path / "submitted" / "ann" / "lesson01").mkdir(parents=True)
    with pytest.raises(ValueError, match="--again"):
        assignment.write_assignment(LESSONS["01"], tmp_path)
    assert not (tmp_path / "source").exists()


def test_the_teachers_page_has_the_points():
    page = (CLASSROOM / "GRADING.md").read_text(encoding="utf-8")
    assert "\n".join(assignment.points_table()) in page, "python classroom/assignment.py --points writes it"
