"""The wheel is the course: installed alone, far from the repository, its lessons run and their material is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import OFFLINE

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
EXECUTE = """
import os, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, resources={"metadata": {"path": os.path.dirname(sys.argv[1])}}).execute()
print(sum(cell.cell_type == "code" and bool(cell.outputs) for cell in notebook.cells))
"""
MATERIAL = """
import json
import adapters_lesson
from adapters_lesson import load_task
from adapters_lesson.course.figures import course_map
from adapters_lesson.course.quiz import load_quiz
from adapters_lesson.course.record import progress
from adapters_lesson.data import NOTEBOOKS
from adapters_lesson.history import load_results

course_map()
print(json.dumps({
    "package": adapters_lesson.__file__, "notebooks": str(NOTEBOOKS), "progress": repr(progress("01")),
    "rows": len(load_task("aspect_sentiment")["train"]),
    "datasheet": load_task("film_reviews")["test"].info.description,
    "questions": len(load_quiz("01")), "results": sorted(load_results("film")),
}))
"""


PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


class Installed:
    """An environment with the wheel, and an empty folder to work in: what runs there does not see the repository."""

    def __init__(self, folder):
        self.folder, self.bin = folder / "work", folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        self.folder.mkdir()
        own = {"ADAPTERS_LESSON_PROGRESS", "MPLBACKEND"}
        self.environment = {name: value for name, value in os.environ.items() if name not in own}
        self.environment |= {"PYTHONPATH": str(OFFLINE), "IPYTHONDIR": str(folder / "ipython")}

    def run(self, command, *arguments):
        """What a program of the environment prints; it must end well."""
        done = subprocess.run(
            [self.bin / command, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("far away")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 12e6
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    made = Installed(folder)
    # It borrows the packages of this environment, but not what .pth files add to it: there the repository would be.
    site = Path(made.run("python", "-c", PURELIB).strip())
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    made.run("python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", str(wheel))
    return made


@pytest.fixture(scope="module")
def lessons(installed):
    """The folder that `adapters-lesson start` fills; JupyterLab itself says its version only."""
    assert installed.run("adapters-lesson", "start", "my lessons", "--version").strip()
    return installed.folder / "my lessons"


def test_what_the_lessons_read_is_in_the_wheel(installed):
    found = json.loads(installed.run("python", "-c", MATERIAL).splitlines()[-1])
    assert str(ROOT) not in found["package"] + found["notebooks"]
    assert Path(found["notebooks"]).parts[-3:] == ("adapters_lesson", "files", "notebooks")
    assert "1.1 The forward pass" in found["progress"]
    assert found["rows"] == len((ROOT / "data" / "aspects" / "train.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert found["datasheet"] and found["questions"] and found["results"]


def test_start_hands_out_both_editions_and_nothing_of_the_authors(lessons):
    committed = sorted(path.relative_to(ROOT / "notebooks") for path in (ROOT / "notebooks").rglob("[0-9]*.ipynb"))
    assert sorted(path.relative_to(lessons) for path in lessons.rglob("[0-9]*.ipynb")) == committed
    assert {path.name for path in lessons.iterdir() if path.suffix != ".ipynb"} == {"solutions", ".editions.json"}


def test_the_machine_passes_the_check(installed):
    assert "✘" not in installed.run("adapters-lesson", "check")


@pytest.mark.notebook
@pytest.mark.parametrize("lesson", ["00", "01", "03", "08"])
def test_a_lesson_runs_from_the_wheel(installed, lessons, lesson):
    (notebook,) = lessons.glob(f"{lesson}_*.ipynb")
    assert int(installed.run("python", "-c", EXECUTE, str(notebook)).splitlines()[-1]) > 2
