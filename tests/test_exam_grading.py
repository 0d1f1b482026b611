"""An exam as nbgrader's assignment: what is handed out, and what a full, an empty and a copied hand-in get."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from browser import environment

pytest.importorskip("nbgrader", reason="make test-all runs these tests, in the environment .classroom")
pytestmark = pytest.mark.slow
sys.path.insert(0, str(Path(__file__).parents[1] / "classroom"))
import assignment  # noqa: E402
import exam  # noqa: E402
import grading  # noqa: E402
import marks  # noqa: E402
from nbgrader.api import Gradebook  # noqa: E402
from nbgrader.apps import NbGraderAPI  # noqa: E402
from traitlets.config.loader import PyFileConfigLoader  # noqa: E402

NUMBERS = ["1.3", "2.3", "5.2", "5.4", "10.1"]
EXAM = exam.exam(5, NUMBERS)


@pytest.fixture(scope="module")
def a_class(tmp_path_factory):
    """A class's folder with the exam, and nbgrader in this process."""
    folder, home = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("home")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("JUPYTER")]:
            patch.delenv(name)
        for name, value in {**environment(home), "PATH": path}.items():
            patch.setenv(name, value)
        assignment.write_assignment(EXAM, folder)
        patch.syspath_prepend(folder)
        config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
        config.CourseDirectory.root = str(folder)
        yield folder, NbGraderAPI(config=config)


def version(folder, which):
    return nbformat.read(folder / which / "exam_5" / "exam_5.ipynb", as_version=4)


def test_what_is_handed_out_gives_nothing_away(a_class):
    folder, _ = a_class
    shown = "\n".join(cell.source for cell in version(folder, "release").cells)
    assert "SOLUTION" not in shown and "HIDDEN" not in shown and "_alone" not in shown
    assert shown.count("# your code here\n") == len(NUMBERS)
    for number in NUMBERS:
        one = exam.draw(number, 5)
        assert one.card in shown and one.shown in shown and one.hidden not in shown
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        most = gradebook.find_assignment("exam_5").max_score
    assert most == sum(assignment.points(one) for one in EXAM.exercises)
    assert assignment.assignment_name(assignment.find_lesson("01")) == "lesson01"


@pytest.mark.parametrize("number", exam.VARIANTS)
def test_no_test_takes_what_must_fail_for_an_answer(number):
    for seed in (1, 7):
        one = exam.draw(number, seed)
        for wrong in grading.WRONG:
            for test in (one.shown, one.hidden):
                assert exam.fails(wrong.format(name=one.function), test)


@pytest.mark.notebook
@pytest.mark.parametrize("who, share", [("solved", 1), ("empty", 0), ("copied", 0)])
def test_a_hand_in_gets_what_it_is_worth(a_class, who, share):
    folder, nbgrader = a_class
    notebook = version(folder, "release")
    answers = {f"exercise-{number.replace('.', '-')}": exam.draw(number, 5) for number in NUMBERS}
    for cell in notebook.cells:
        one = answers.get(cell.metadata.nbgrader.grade_id)
        if one and who != "empty":
            cell.source = one.answer if who == "solved" else one.public
    path = folder / "submitted" / who / "exam_5" / "exam_5.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    done = nbgrader.autograde("exam_5", who)
    assert done["success"], done["error"]
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        submission = gradebook.find_submission("exam_5", who)
        assert (submission.score, submission.max_score) == (share * submission.max_score, submission.max_score)
    (mark,) = [one for one in marks.marks(folder, "exam_5")[0] if one.learner == who]
    assert mark.state == ("empty" if who == "empty" else "graded") and sum(mark.points.values()) == submission.score
