"""Assignments for nbgrader, from every lesson's source; and one class's hand-ins, graded by nbgrader's own commands."""

import csv
import html
import os
import re
import shutil
import socket
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
import box  # noqa: E402
import came_out  # noqa: E402
import container  # noqa: E402
import grading  # noqa: E402
import hand_ins  # noqa: E402
import marks  # noqa: E402
import repair  # noqa: E402
from nbgrader.api import Gradebook  # noqa: E402
from nbgrader.apps import NbGraderAPI  # noqa: E402
from nbgrader.nbgraderformat import MetadataValidator  # noqa: E402
from traitlets.config.loader import PyFileConfigLoader  # noqa: E402

from adapters_lesson.course import record  # noqa: E402
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
    for file in ("nbgrader_config.py", *assignment.GRADING):
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


@every_lesson
def test_no_test_takes_what_must_fail_for_an_answer(lesson, at_home, tmp_path, monkeypatch):
    """And repairing a hand-in that is whole moves nothing."""
    monkeypatch.setenv("ADAPTERS_LESSON_PROGRESS", "")
    monkeypatch.chdir(tmp_path)
    exercises = {exercise.number.replace(".", "-"): exercise for exercise in LESSONS[lesson[:2]].exercises}
    stubs = {number: LESSONS[lesson[:2]].cells[it.answers[0]].stub for number, it in exercises.items()}
    notebook = assignment.source_version(LESSONS[lesson[:2]])
    there: dict = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and repair.SKIP not in cell.metadata.get("tags", []):
            exec(cell.source, there)
    for number, stub in stubs.items():
        (name,) = repair.gives(stub)
        answer = there[name]
        for wrong in (*(wrong.format(name=name) for wrong in grading.WRONG), stub):
            exec(wrong, there)
            for test in ("check", "hidden"):
                with pytest.raises(Exception):  # noqa: B017
                    exec(with_id(notebook, f"{test}-{number}").source, there)
                    pytest.fail(f"{test} of {number} takes {wrong!r}")  # no Exception
        there[name] = answer
    originals = {
        graded_id(cell): repair.Original(cell.source, cell.cell_type, cell.metadata.nbgrader.get("points"))
        for cell in notebook.cells
    }
    order = list(map(graded_id, notebook.cells))
    assert [repair.grade_id(cell) for cell in repair.repair(notebook.cells, originals)] == order


# --- One class -----------------------------------------------------------------------------------------------------


def points(folder, name):
    """The points of each learner for each test."""
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        return {
            submission.student.id: {grade.name: grade.score for book in submission.notebooks for grade in book.grades}
            for submission in gradebook.assignment_submissions(name)
        }


STRANGE = "Zoë Müller-王"  # whose is complete


@pytest.fixture(scope="module")
def a_class(at_home, tmp_path_factory):
    """The class's folder after everything: one hand-in of each kind, by a learner of that name."""
    folder = tmp_path_factory.mktemp("class")
    assignment.write_assignment(LESSONS["01"], folder)
    settings = (folder / "nbgrader_config.py").read_text()
    (folder / "nbgrader_config.py").write_text(f"{settings}\nc.Execute.timeout = 30\n")
    source = read(folder / "source" / "lesson01" / hand_ins.NAME)
    handed_out = read(folder / "release" / "lesson01" / hand_ins.NAME)
    solved = {number: with_id(source, f"exercise-{number.replace('.', '-')}").source for number in hand_ins.ALL}
    for name in hand_ins.KINDS:
        hand_ins.write(folder, STRANGE if name == "complete" else name, name, handed_out, solved)
    marks.grade(folder, "lesson01")
    return folder


def graded(folder, student):
    return read(folder / "autograded" / student / "lesson01" / hand_ins.NAME)


every_kind = pytest.mark.parametrize("name", hand_ins.KINDS)


@pytest.mark.notebook
@every_kind
def test_a_hand_in_gets_what_it_is_worth_and_hears_why(a_class, name):
    kind, student = hand_ins.KINDS[name], STRANGE if name == "complete" else name
    got = points(a_class, "lesson01")[student]
    assert len(got) == 2 * len(kind.points)
    for number, expected in kind.points.items():
        assert sum(got[f"{test}-{number.replace('.', '-')}"] for test in ("check", "hidden")) == expected
    came = graded(a_class, student).metadata.adapters_lesson
    assert {number: exercise.points for number, exercise in came.exercises.items()} == kind.points
    assert kind.failed in came.failed and bool(kind.failed) == bool(came.failed)
    assert kind.flag in " ".join(came.flags) and bool(kind.flag) == bool(came.flags)
    for number, sentence in kind.mend.items():
        assert sentence in came.exercises[number].mend
    for exercise in came.exercises.values():
        assert bool(exercise.mend) or exercise.points == exercise.of
    feedback = a_class / "feedback" / student / "lesson01" / "01_the_bottleneck.html"
    assert "What came out" in (text := html.unescape(feedback.read_text()))
    assert not [one for one in kind.mend.values() if one.replace("`", "") not in re.sub("<[^>]*>", "", text)]
    assert feedback.stat().st_size < 2e6


@pytest.mark.notebook
def test_what_the_teacher_reads_of_one_class(a_class, monkeypatch):
    monkeypatch.setenv("ADAPTERS_LESSON_PROGRESS", "")
    d_m = {}
    exec("def count_parameters(model_dim, bottleneck_dim):\n    return 2 * model_dim * bottleneck_dim", d_m)
    sentence = lesson01.check_count(d_m["count_parameters"]).message
    assert len(sentence) > 20 and graded(a_class, "half").metadata.adapters_lesson.exercises["1.3"].mend == sentence
    feedback = {
        student: html.unescape((a_class / "feedback" / student / "lesson01" / "01_the_bottleneck.html").read_text())
        for student in (STRANGE, "broken", "own_cells_with_magics_and_errors")
    }
    assert "✔ 1.3" in feedback[STRANGE] and "was missing from the submission" in feedback["broken"]
    assert "beside the exercises: this cell ended the kernel" in feedback["own_cells_with_magics_and_errors"]


@pytest.mark.notebook
def test_grading_executes_what_the_exercises_need_and_keeps_nobodys_progress(a_class):
    ran = [cell for cell in graded(a_class, STRANGE).cells if cell.cell_type == "code" and cell.execution_count]
    lessons_own = [cell for cell in ran if graded_id(cell).startswith("cell-")]
    assert lessons_own and all("import" in cell.source for cell in lessons_own)
    assert not any("explorer" in cell.source.splitlines()[-1] or cell.source.startswith("quiz") for cell in ran)
    assert not list(a_class.rglob("progress.json"))


@pytest.mark.notebook
def test_the_marks_tell_failed_from_empty_and_name_who_is_to_be_looked_at(a_class, tmp_path, monkeypatch, capsys):
    for name in ("late", "nothing"):
        (a_class / "submitted" / name / "lesson01").mkdir(parents=True)
    shutil.copy2(a_class / "release" / "lesson01" / hand_ins.NAME, a_class / "submitted" / "late" / "lesson01")
    monkeypatch.setenv("ADAPTERS_LESSON_PROGRESS", str(tmp_path / "ann.json"))
    for when, right in (("before", 3), ("after", 9)):
        record.note("concepts", when, {"right": right, "questions": 12})
    monkeypatch.setattr("sys.argv", ["marks.py", "01", "--of", str(a_class), "--progress", str(tmp_path)])
    assert marks.main() == 0
    said = capsys.readouterr().out
    with (a_class / "marks-01.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["learner"]: row for row in csv.DictReader(file)}
    for name, kind in hand_ins.KINDS.items():
        row = rows[STRANGE if name == "complete" else name]
        assert {number: float(row[number]) for number in kind.points} == kind.points
        assert float(row["together"]) == sum(kind.points.values())
        usual = "empty" if name == "empty" else "graded"
        assert row["state"] == ("failed" if kind.failed else "to be looked at" if kind.flag else usual)
        assert kind.failed in row["why"] and kind.flag in row["why"] and row["why"] in said
    assert (rows["late"]["state"], rows["nothing"]["state"]) == ("not graded", "not graded")
    assert (
        "not graded 01_the_bottleneck.ipynb" in rows["late"]["why"]
        and "no notebook among 0 files" in rows["nothing"]["why"]
    )
    assert "1 empty, 2 failed" in said and "6 to be looked at" in said
    assert "gain: +6.0 on average" in said
    with (a_class / "items-01.csv").open(newline="", encoding="utf-8-sig") as file:
        third = {row["exercise"]: row for row in csv.DictReader(file)}["1.3"]
    assert int(third["times"]) >= 1 and 0 < float(third["difficulty"]) < 1
    assert any(kind.mend.get("1.3", "-") in third["said most often"] for kind in hand_ins.KINDS.values())


def room(folder):
    """The class's folder with a secret and a hand-in, the hand-in's, and an empty one for the kernel's files."""
    a_class, inside = folder / "a class", folder / "a class" / "autograded" / STRANGE / "lesson01"
    for path in (inside, a_class / "source", folder / "own"):
        path.mkdir(parents=True)
    (a_class / "source" / "secret").write_text("42")
    (inside / "a.csv").write_text("data")
    shutil.copytree(inside, box.copied(folder / "own"))
    return a_class, inside, folder / "own"


@pytest.fixture(params=["as you", "as nobody", "podman", "docker"])
def boxed(request, tmp_path, monkeypatch):
    """A box, the class's folder, the hand-in's and the kernel's."""
    if request.param in container.ENGINES:
        folders = room(tmp_path)
        made, why_not = container.container(request.param, *folders[1:], {})
        if why_not:
            pytest.skip(f"no container on this machine: {why_not}")
        return made, *folders
    if request.param == "as nobody":
        if os.getuid():
            pytest.skip("only root can let others run programs")
        for folder in (path for path in (tmp_path, *tmp_path.parents) if path.owner() == "root"):
            folder.chmod(folder.stat().st_mode | 0o011)  # pytest keeps its folders from others
    else:
        monkeypatch.setattr(box, "AS_NOBODY", "--no-such-option")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text("the teacher's")
    monkeypatch.setenv("A_KEY", "the teacher's")
    folders = room(tmp_path)
    made, why_not = box.namespaces(*folders, {"ADAPTERS_LESSON_PROGRESS": ""})
    if not made.words:
        pytest.skip(f"no box on this machine: {why_not}")
    assert made.user == (box.NOBODY if request.param == "as nobody" else None)
    return made, *folders


IN_THE_BOX = {  # what is tried there, and whether it works
    "cat a.csv && echo new > b.csv": True,
    "echo x > $TMPDIR/file": True,
    "cat '{folder}/source/secret'": False,
    "cat ../../../source/secret": False,
    "umount '{folder}'": False,
    "unshare --user --map-root-user --mount umount '{folder}'": False,
    "echo x > '{elsewhere}'": False,
    "mount -o remount,bind,rw /": False,
    "kill -0 {pid}": False,
    "cat /proc/{pid}/environ": False,
    "env | grep A_KEY": False,
    "cat '{home}/key'": False,
    "{python} -c 'import adapters_lesson, ipykernel'": True,
    "{python} -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 2)'": False,
    "head -c 200M /dev/zero > $TMPDIR/large": True,
    "head -c 300M /dev/zero > $TMPDIR/large": False,
    "{python} -c 'bytearray(2**30)'": True,
    "{python} -c 'b\"x\" * (7 * 2**30)'": False,
    "test $(ulimit -c) = 0": True,
    "{python} -c 'import resource; assert resource.getrlimit(resource.RLIMIT_NPROC)[0] == 4096'": True,
}


@pytest.mark.parametrize("command", IN_THE_BOX)
def test_a_hand_in_reaches_its_own_files_and_nothing_else(command, boxed, tmp_path):
    made, folder, inside, own = boxed
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"folder": folder, "elsewhere": tmp_path / "file", "pid": os.getpid(), "port": server.getsockname()[1]}
        command_here = command.format(**names, home=Path.home(), python=made.python or sys.executable)
        with box.lent(made, own):
            done = subprocess.run([*made.words, "sh", "-c", command_here], capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == IN_THE_BOX[command], done
    assert (box.copied(own) / "b.csv").exists() == (command == next(iter(IN_THE_BOX)))
    assert not (inside / "b.csv").exists()
    assert not (tmp_path / "file").exists()


def test_a_home_is_empty_but_for_the_python_that_grades(tmp_path, monkeypatch):
    home, a_class = tmp_path / "home", tmp_path / "home" / "class"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(box, "_needed", lambda: [home / "python", a_class, Path("/usr")])
    script = box._script(a_class, a_class / "one", Path("/tmp/own"), "", {})
    assert f"\nmount -t tmpfs -o mode=755 none {home}\n" in script
    moved = re.findall("^mount -n --move .* (.*)$", script, re.MULTILINE)
    assert moved == [str(home / "python"), str(a_class / "one")]
    monkeypatch.setattr(box, "_needed", lambda: [home])
    assert f"none {home}\n" not in box._script(a_class, a_class / "one", Path("/tmp/own"), "", {})


@pytest.mark.notebook
def test_grading_runs_hand_ins_in_the_box(a_class):
    if box.namespaces(*room(a_class / "room"), {})[1]:
        pytest.skip("no box on this machine")
    (own,) = [cell for cell in graded(a_class, "own_cells_with_magics_and_errors").cells if "beside it:" in cell.source]
    assert "beside it: ['autograded']" in own.outputs[0].text


def test_where_there_is_no_box_the_reason_is_told(tmp_path, monkeypatch):
    folders = room(tmp_path)
    monkeypatch.setattr(box, "UNSHARE", ["no-such-program"])
    assert box.namespaces(*folders, {}) == (box.Box(), "[Errno 2] No such file or directory: 'no-such-program'")
    monkeypatch.setattr(box, "UNSHARE", ["sh", "-c", "echo not here >&2; exit 1"])
    assert box.namespaces(*folders, {}) == (box.Box(), "not here")
    monkeypatch.setattr(box, "UNSHARE", ["sh", "-c", "exit 3"])
    for kind, why_not in {"namespaces": "namespaces: it ends with 3", "none": ""}.items():
        shutil.rmtree(box.copied(folders[-1]))  # find_box makes it
        assert container.find_box(kind, *folders, {}) == (box.Box(), why_not)


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
    repair.tag_what_no_exercise_needs(cells)
    left_out = [cell.source for cell in cells if cell.metadata.get("tags") == [repair.SKIP]]
    assert left_out == [cells[k].source for k in (2, 4, 5, 10)]


def test_a_machine_that_is_too_busy_costs_nobody_points():
    late = [nbformat.v4.new_output("error", ename="CellTimeoutError", evalue="", traceback=[])]
    lessons, learners = code("import torch", locked=True), code("while True:\n    pass", solution=True)
    learners.outputs = late
    assert came_out.too_busy([lessons, learners]) == ""
    lessons.outputs = late
    assert "grade it again" in came_out.too_busy([lessons, learners])


def test_an_item_is_easy_when_many_have_it_and_tells_apart_when_the_good_ones_do():
    def mark(one, two, three, state="graded", mend=""):
        points = {"1.1": float(one), "1.2": float(two), "1.3": float(three)}
        return marks.Mark("ann", state, points, {"1.1": mend}, "")

    those = [mark(2, 4, 2), mark(2, 4, 0), mark(0, 0, 2, mend="3 are missing"), mark(0, 0, 2, mend="12 are missing")]
    ignored = [mark(0, 0, 0, "empty"), mark(0, 0, 0, "failed"), mark(2, 4, 2, "to be looked at")]
    first, second, third = marks.items(those + ignored, {"1.1": 2, "1.2": 4, "1.3": 2})
    assert (first["hand-ins"], first["difficulty"], second["difficulty"], third["difficulty"]) == (4, 0.5, 0.5, 0.75)
    assert first["discrimination"] == 0.9 and third["discrimination"] < 0
    assert (first["said most often"], first["times"]) == ("3 are missing", 2)
    alone = marks.items(those[:1], {"1.1": 2})[0]
    assert (alone["discrimination"], alone["times"]) == ("", 0)


def test_what_a_spreadsheet_would_calculate_is_text(tmp_path):
    marks.write(tmp_path / "a.csv", [{"learner": "=1+1", "points": 2}])
    assert "'=1+1,2" in (tmp_path / "a.csv").read_text(encoding="utf-8-sig")


def test_a_box_that_is_named_and_not_there_stops_grading(tmp_path, monkeypatch, capsys):
    def refuse(box, base):
        return "docker: it is not running"

    monkeypatch.setattr(marks, "provide", refuse)
    with pytest.raises(ValueError, match="cannot run in a container: docker: it is not running"):
        marks.have_box(tmp_path, "docker", "")
    marks.have_box(tmp_path, "", "")
    assert "Hand-ins run without a container: docker: it is not running" in capsys.readouterr().out
    (tmp_path / "nbgrader_config.py").write_text('c = get_config()\nc.ExecuteWhatIsGraded.box = "podman"\n')
    with pytest.raises(ValueError, match="cannot run in a container"):
        marks.have_box(tmp_path, "", "")


def test_there_are_no_marks_without_a_class(at_home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["marks.py", "99", "--of", str(tmp_path)])
    assert marks.main() == 1
    assert "no class's folder" in capsys.readouterr().err
    Gradebook(f"sqlite:///{tmp_path}/gradebook.db").close()
    assert marks.main() == 1
    assert "no lesson99: it has none yet" in capsys.readouterr().err


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
