"""The export for Otter-Grader: its form, and, where otter is, what its own command line says to two hand-ins."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader", reason="make test-all runs these tests, in the environment .classroom")
sys.path.insert(0, str(Path(__file__).parents[1] / "classroom"))
import assignment
import exam
import otter_export

OTTER = os.environ.get("ADAPTERS_LESSON_OTTER", sys.executable)  # a Python that has otter-grader


def exercise_hidden(lesson, exercise):
    """The lines of its hidden tests."""
    return lesson.cells[exercise.check].hidden.splitlines()[1:-1]


@pytest.mark.parametrize(
    "lesson", [assignment.find_lesson("05"), exam.exam(5, ["2.3", "10.1"])], ids=lambda one: one.name
)
def test_every_exercise_is_a_question_with_its_points_and_both_its_tests(lesson):
    cells = otter_export.master(lesson, "course.whl").cells
    raw = [cell.source.splitlines()[0] for cell in cells if cell.cell_type == "raw"]
    assert raw[0] == "# ASSIGNMENT CONFIG"
    for exercise in lesson.exercises:
        number = exercise.number.replace(".", "_")
        (begins,) = (k for k, cell in enumerate(cells) if f"name: q{number}\n" in cell.source)
        assert f"points: {assignment.points(exercise)}" in cells[begins].source.replace(".0", "")
        tests = [cell.source for cell in cells if f"_{number}(env):" in cell.source]
        assert len(tests) == 2 and ["hidden: true" in test for test in tests] == [False, True]
        for test in tests:
            assert f"points: {assignment.points(exercise) / 2}" in test
            compile(test, "<test>", "exec")
        lines = ast.literal_eval(re.search(r"exec\((.*), env\)", tests[1])[1]).splitlines()
        assert set(exercise_hidden(lesson, exercise)) <= set(lines)
    assert raw.count("# BEGIN QUESTION") == raw.count("# END QUESTION") == len(lesson.exercises)
    assert raw.count("# BEGIN SOLUTION") == raw.count("# END SOLUTION") == sum(len(e.answers) for e in lesson.exercises)
    answers = [cells[k + 1].source for k, cell in enumerate(cells) if cell.source == "# BEGIN SOLUTION"]
    assert all('""" # BEGIN PROMPT' in answer and "### BEGIN" not in answer for answer in answers)


def test_the_hidden_tests_are_in_no_cell_that_is_handed_out():
    lesson = assignment.find_lesson("00")
    shown = [
        c.source
        for c in otter_export.master(lesson, "course.whl").cells
        if c.cell_type == "code" and "(env):" not in c.source
    ]
    assert not any("1 of 4 is 25 per cent" in source for source in shown)


def test_where_otter_is_not_the_master_is_written_and_it_says_so(monkeypatch, tmp_path, capsys):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    command = ["otter_export.py", "00", "--into", str(tmp_path / "out"), "--otter", str(bare)]
    monkeypatch.setattr(sys, "argv", command)
    assert otter_export.main() == 1
    assert "has no otter-grader: install it, or name one" in capsys.readouterr().out
    assert (tmp_path / "out" / "lesson00" / "00_start_here.ipynb").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What `otter assign` makes of lesson 00."""
    if subprocess.run([OTTER, "-c", "import otter.assign"], capture_output=True).returncode:
        pytest.skip("otter-grader is not installed: ADAPTERS_LESSON_OTTER may name a Python that has it")
    folder = tmp_path_factory.mktemp("otter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["otter_export.py", "00", "--into", str(folder), "--otter", OTTER])
        assert otter_export.main() == 0
    return folder / "lesson00" / "built"


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize(
    "hand_in, share", [("autograder", 1), ("student", 0)]
)  # the solved one, and the one handed out
def test_otter_gives_all_points_or_none(built, hand_in, share, tmp_path):
    notebook, (zipped,) = built / hand_in / "00_start_here.ipynb", (built / "autograder").glob("*.zip")
    command = [OTTER, "-m", "otter", "run", "-a", zipped, "-o", tmp_path, "--no-logo", notebook]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    scored = [test for test in tests if test.get("max_score")]
    assert sum(test["max_score"] for test in scored) == sum(
        map(assignment.points, assignment.find_lesson("00").exercises)
    )
    assert sum(test["score"] for test in scored) == share * sum(test["max_score"] for test in scored)
    assert "NotImplementedError" in (text := notebook.read_text()) and ("100 * trained" in text) == bool(share)
