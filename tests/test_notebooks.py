"""The lessons: complete, in step with their sources, clean, and running from a fresh kernel."""

import ast
import contextlib
import copy
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbconvert.exporters import ScriptExporter

from adapters_lesson.course.lesson_source import WIDGET, read_lesson
from adapters_lesson.data import NOTEBOOKS

sys.path.insert(0, str(NOTEBOOKS))
import build
import check

SOURCES = build.sources()
every_lesson = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
every_edition = pytest.mark.parametrize("edition", build.EDITIONS)


def committed(source, edition):
    return nbformat.read(build.notebook_of(source, edition), as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def reports(notebook):
    """The mark and the number of each check's report among the outputs."""
    texts = [o.get("text", "") + o.get("data", {}).get("text/plain", "") for c in code(notebook) for o in c.outputs]
    return re.findall(r"^([✔✘○]) (\d+\.\d+)", "\n".join(texts), re.MULTILINE)


@every_lesson
def test_a_lesson_lacks_nothing(source):
    assert check.lacks(source) == []


@every_edition
@every_lesson
def test_checks_say_not_attempted_or_correct(source, edition):
    mark = "✔" if edition == "solution" else "○"
    numbers = [exercise.number for exercise in read_lesson(source).exercises]
    assert reports(committed(source, edition)) == [(mark, number) for number in numbers]


@every_edition
@every_lesson
def test_every_widget_has_left_a_picture(source, edition):
    widgets = [cell for cell in code(committed(source, edition)) if WIDGET.search(cell.source)]
    assert widgets or source.stem.startswith("00")
    for cell in widgets:
        (output,) = cell.outputs
        assert "text/html" in output.data


LESSON = """# %%
def twice(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %%
print(twice(1))
### BEGIN HIDDEN TESTS
assert twice(4) == 8, "twice 4 is 8."

assert twice(-1) == -2, "twice -1 is -2."
### END HIDDEN TESTS
"""


def test_the_editions_differ_in_their_solutions_and_have_no_hidden_tests(tmp_path):
    path = tmp_path / "sources" / "01_twice.py"
    path.parent.mkdir()
    path.write_text(LESSON)
    stub, folded, call = build.build(path, "learner").cells
    assert stub.source == "def twice(x):\n    # your code here\n    raise NotImplementedError"
    assert folded.source == f"{build.FOLDED}```python\nreturn 2 * x\n```\n\n</details>"
    solved, call_too = build.build(path, "solution").cells
    assert solved.source == "def twice(x):\n    return 2 * x"
    assert call.source == call_too.source == "print(twice(1))"


def test_outputs_are_kept_while_the_code_is_the_same_and_the_notebook_clean(tmp_path):
    source, path = SOURCES[1], build.notebook_of(SOURCES[1], "learner")
    fresh = build.build(source, "learner")
    before = nbformat.read(path, as_version=4)
    for ours, theirs in zip(code(before), code(fresh), strict=True):
        ours.source = theirs.source  # should it be out of step just now
    nbformat.write(before, tmp_path / "before.ipynb")
    fresh.cells[0].source += "\n\nA word more."
    assert build.keep_outputs(fresh, tmp_path / "before.ipynb")
    assert [cell.outputs for cell in code(fresh)] == [cell.outputs for cell in code(before)]
    assert build.complaints(fresh) == []
    other = build.build(source, "learner")
    other.metadata["results"]["playground"] = "another file of runs"
    assert not build.keep_outputs(other, tmp_path / "before.ipynb"), "its numbers are those of other runs"
    changed = build.build(source, "learner")
    code(changed)[-1].source += "  # changed"
    assert not build.keep_outputs(changed, tmp_path / "before.ipynb")
    assert not any(cell.outputs for cell in code(changed)), "all or none"
    code(before)[0].execution_count = None
    nbformat.write(before, tmp_path / "before.ipynb")
    assert not build.keep_outputs(build.build(source, "learner"), tmp_path / "before.ipynb")
    assert not build.keep_outputs(changed, tmp_path / "nothing.ipynb")


@every_lesson
def test_a_lesson_was_executed_with_the_runs_that_are_there(source):
    results = build.results_of(source)
    for edition in build.EDITIONS:
        notebook = nbformat.read(build.notebook_of(source, edition), as_version=4)
        assert dict(notebook.metadata.get("results", {})) == results, "make notebooks executes it anew"


@every_lesson
def test_the_edition_without_solutions_is_the_learners_without_them(source):
    learner, without = committed(source, "learner"), build.without_solutions(source)
    assert build.complaints(without) == []
    assert code(without) == code(learner)
    text = "\n".join(cell.source for cell in without.cells)
    assert text.count(">Hint 1<") == len(read_lesson(source).exercises)
    assert not re.search(r"<b>Solution|`solutions`|the\s+solution", text)
    for cell in read_lesson(source).cells:
        assert not any(solution.strip() in text for solution in cell.solutions)


def test_the_edition_without_solutions_is_written_if_it_is_in_step(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "WITHOUT_SOLUTIONS", tmp_path / "notebooks")
    monkeypatch.setattr("sys.argv", ["build.py", "--no-solutions", "00", "01"])
    monkeypatch.setattr(build, "in_step", lambda committed, expected: False)
    assert build.main() == 1 and not (tmp_path / "notebooks").exists()
    monkeypatch.setattr(build, "in_step", lambda committed, expected: True)
    assert build.main() == 0
    written = {path.stem: nbformat.read(path, as_version=4) for path in (tmp_path / "notebooks").iterdir()}
    assert written == {source.stem: build.without_solutions(source) for source in SOURCES[:2]}


def test_what_an_output_should_not_have_is_noticed():
    notebook = build.build(SOURCES[0], "learner")
    cell = code(notebook)[0]
    assert any("not executed" in complaint for complaint in build.complaints(notebook))
    cell.execution_count = 1
    for output, words in (
        (nbformat.v4.new_output("stream", name="stdout", text="/home/somebody/file"), "noisy"),
        (nbformat.v4.new_output("stream", name="stdout", text=f"{'m':60}{'loss':>40}{'rate':>40}"), "columns of 140"),
        (nbformat.v4.new_output("error", ename="ValueError", evalue="bad"), "raises ValueError"),
        (nbformat.v4.new_output("display_data", data={build.WIDGET: {}}), "could not be shown"),
        (nbformat.v4.new_output("display_data", data={"image/svg+xml": ""}), "without alt text"),
    ):
        cell.outputs = [output]
        assert any(f"cell {cell.id}" in c and words in c for c in build.complaints(notebook))


def test_a_progress_bar_leaves_nothing_behind():
    bar = "from tqdm.notebook import tqdm\nfor _ in tqdm(range(2)):\n    pass\nprint('done')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(bar)])
    (output,) = build.execute(notebook).cells[0].outputs
    assert output.text == "done\n" and build.complaints(notebook) == []


def test_the_readmes_picture_is_the_courses_own():
    assert build.README_PICTURE.read_bytes() == build.first_figure(committed(SOURCES[3], "solution"))


def again(cells, mark):
    """Copies of the code cells, with ids of their own."""
    copies = [copy.deepcopy(cell) for cell in cells if cell.cell_type == "code"]
    for cell in copies:
        cell.id = f"{cell.id}-{mark}"
    return copies


@pytest.mark.notebook
@pytest.mark.parametrize("edition", ["learner", pytest.param("solution", marks=pytest.mark.slow)])
@every_lesson
def test_an_edition_runs_from_a_fresh_kernel(source, edition, tmp_path):
    notebook, folder = build.build(source, edition), build.HERE
    # As people run it: each cell twice in a row, and from another folder. Two lessons take ten minutes as it is.
    if edition == "solution" and not source.stem.startswith(("05", "10")):
        notebook.cells = [one for cell in notebook.cells for one in (cell, *again([cell], "twice"))]
        folder = tmp_path
    notebook = build.execute(notebook, folder)
    assert build.complaints(notebook) == []
    assert {mark for mark, _ in reports(notebook)} <= ({"✔"} if edition == "solution" else {"○"})


@every_edition
@every_lesson
def test_a_lesson_becomes_a_python_script(source, edition):
    """As by `jupyter nbconvert --to script`."""
    text, resources = ScriptExporter().from_notebook_node(build.build(source, edition))
    assert resources["output_extension"] == ".py"
    compile(text, source.stem, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)  # IPython runs lesson 06's


# --- Lessons as people run them: the shortest in every run, the others marked slow -----------------------------------


def lessons(*numbers):
    """One test a lesson with one of these numbers."""
    chosen = [source for source in SOURCES if source.stem.startswith(numbers)]
    slow = [[] if source.stem < "02" else pytest.mark.slow for source in chosen]
    marked = [pytest.param(s, id=s.stem, marks=marks) for s, marks in zip(chosen, slow, strict=True)]
    return pytest.mark.parametrize("source", marked)


@pytest.mark.notebook
@lessons("00", "01")
def test_the_script_of_a_lesson_runs(source, tmp_path):
    text, _ = ScriptExporter().from_notebook_node(build.build(source, "solution"))
    (tmp_path / "lesson.py").write_text(text, encoding="utf-8")
    call = {"cwd": tmp_path, "capture_output": True, "text": True, "encoding": "utf-8", "check": False}
    ran = subprocess.run([sys.executable, "lesson.py"], timeout=600, **call)
    assert ran.returncode == 0, ran.stderr[-2000:]


# What takes long is cut to a few steps, tokens, texts or rounds, but for what begins before ``whole``.
SHORT = """import datasets, huggingface_hub.file_download, matplotlib.pyplot, peft, sklearn.linear_model, \\
    tqdm.auto, transformers.modeling_utils
import adapters_lesson.costs as _costs, adapters_lesson.course.language.smollm as _smollm
import adapters_lesson.training as _training
import time as _time
whole = 0
def _is_whole():
    return _time.monotonic() < whole
def _loop(run, loop=_training.loop):
    if run.total_steps > 8 and not _is_whole():
        run.total_steps = 2
    loop(run)
def _generate(model, tokenizer, questions, generate=_smollm.generate):
    if _is_whole():
        return generate(model, tokenizer, questions)
    return generate(model, tokenizer, questions[:1], max_tokens=2) * len(questions)
def _perplexity(model, tokenizer, texts, perplexity=_smollm.perplexity):
    return perplexity(model, tokenizer, texts if _is_whole() else texts[:2])
def _measure(calls, repetitions, measure=_costs.measure_latency, **settings):
    if _is_whole():
        return measure(calls, repetitions, **settings)
    with _training.torch.inference_mode(settings.get("inference", True)):
        calls = {name: (call(), lambda: sum(range(1000)))[1] for name, call in calls.items()}  # each of them once
    return measure(calls, 5, **settings | {"warmup": 0})
def _predict(model, data, predict=_training.predict):
    return predict(model, data.select(range(8))).repeat(len(data) // 8 + 1, 1)[: len(data)]
_training.loop, _training.predict, _smollm.generate, _smollm.perplexity, _costs.measure_latency = (
    _loop, _predict, _generate, _perplexity, _measure)
_training.evaluate.__defaults__ = None, range(4)"""


class Kernel:
    """A kernel in which cells are run one by one."""

    def __init__(self, client):
        self.client, self.notebook = client, client.nb

    def run(self, source, interrupt_after=None):
        """Run a cell, and interrupt it as the button does unless it has ended; what it raised."""
        cell = nbformat.v4.new_code_cell(source)
        self.notebook.cells.append(cell)
        button = threading.Timer(interrupt_after or 0, os.kill, (self.client.km.provisioner.pid, signal.SIGINT))
        self.client.timeout = 600
        if interrupt_after is not None:
            self.client.timeout = 300
            button.start()
        try:
            self.client.execute_cell(cell, len(self.notebook.cells) - 1)
        except CellExecutionError as error:  # the outputs may lack it, where the interrupt came late
            return f"{error.ename} {error.evalue}"
        except CellTimeoutError:  # it came so late that it met the kernel's reply: that is lost, the kernel goes on
            assert interrupt_after is not None and self.run("'it goes on'") == "", source
        finally:
            button.cancel()
        return ""


@contextlib.contextmanager
def a_kernel(folder):
    client = build.client_of(nbformat.v4.new_notebook(), folder)
    client.reset_execution_trackers()
    with build.environment() as surroundings, client.setup_kernel(env=surroundings):
        yield Kernel(client)


@pytest.mark.notebook
@pytest.mark.skipif(os.name != "posix", reason="a signal is the interrupt")
@lessons("")
def test_a_lesson_goes_on_after_an_interrupt_in_each_long_cell_and_runs_twice(source, tmp_path):
    cells, seconds = [cell.source for cell in code(build.build(source, "learner"))], 2 if source.stem > "02" else 0.2
    with a_kernel(tmp_path) as kernel:
        assert kernel.run(SHORT) == ""
        for cell in cells:
            if cell != cells[0]:  # half an import of another library cannot be taken up again
                kernel.run(f"whole = _time.monotonic() + {seconds}")
                raised = kernel.run(cell, interrupt_after=seconds)
                kernel.run("whole = 0")
                if not raised:  # it had ended, or the training was stopped and the cell went on
                    continue
                assert re.search("KeyboardInterrupt|run this cell once more", raised), f"{raised}\n{cell}"
            assert kernel.run(cell) == "", cell
        for cell in cells:  # in lessons 05 and 10 each cell twice in a row, too: the others do it when they are solved
            in_a_row = 1 + (source.stem.startswith(("05", "10")) and "subprocess.run" not in cell)
            for _ in range(in_a_row):
                assert kernel.run(cell) == "", cell
    assert {mark for mark, _ in reports(kernel.notebook)} <= {"○"}


TAB = """import os
os.environ["ADAPTERS_LESSON_PROGRESS"] = {progress!r}
os.environ["ADAPTERS_LESSON_RUNS"] = {runs!r}"""


@pytest.mark.notebook
@lessons("00", "01", "06")  # the last writes its runs
def test_a_lesson_runs_in_two_tabs_at_once(source, tmp_path):
    """They share the folder, the progress and the laboratory's runs."""
    progress, runs = tmp_path / "progress.json", tmp_path / "runs"
    tabs = [build.build(source, "solution") for _ in range(2)]
    for tab in tabs:
        tab.cells.insert(0, nbformat.v4.new_code_cell(TAB.format(progress=str(progress), runs=str(runs))))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda tab: build.execute(tab, tmp_path), tabs))
    for tab in tabs:
        assert build.complaints(tab) == []
        assert {mark for mark, _ in reports(tab)} <= {"✔"}
    solved = {exercise.number for exercise in read_lesson(source).exercises}
    assert not solved or solved <= set(re.findall(r"\d+\.\d+", json.dumps(json.loads(progress.read_text()))))
    if source.stem.startswith("06"):
        assert len(list(runs.glob("run-*.json"))) == 4


READ_ONLY = """import os
os.environ["ADAPTERS_LESSON_PROGRESS"] = "/proc/sys/progress.json"
del os.environ["ADAPTERS_LESSON_RUNS"]"""


@pytest.mark.notebook
@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which even root cannot write")
@lessons("00", "01", "03")
def test_a_lesson_runs_twice_in_one_kernel_and_in_a_folder_that_takes_no_file(source):
    notebook = build.build(source, "solution")
    notebook.cells = [nbformat.v4.new_code_cell(READ_ONLY), *notebook.cells, *again(notebook.cells, "once-more")]
    notebook = build.execute(notebook, Path("/proc/sys"))
    assert {mark for mark, _ in reports(notebook)} <= {"✔"}


@every_lesson
def test_a_folded_result_does_not_show_its_first_line(source):
    folded = [c for c in code(committed(source, "learner")) if c.metadata.get("jupyter", {}).get("outputs_hidden")]
    assert len(folded) >= (0 if source.stem.startswith("00") else 3)
    assert all(cell.outputs[0].text == build.COVER for cell in folded)
    assert all("compare(" in cell.source for cell in folded)
