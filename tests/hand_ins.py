"""Hand-ins of lesson 01, of every kind that learners make, each with the points that it must get."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

NAME = "01_the_bottleneck.ipynb"
ALL = {"1.1": 2, "1.2": 2, "1.3": 2, "1.4": 4}
BUT_COUNT = ALL | {"1.3": 0}
STUB = "def count_parameters(model_dim: int, bottleneck_dim: int) -> int:\n"
STUB += "    # your code here\n    raise NotImplementedError"
NOTHING = dict.fromkeys(ALL, 0)


@dataclass
class Kind:
    """``change(cells)`` makes the hand-in's cells out of those with all answers, or out of those ``handed_out``.

    Its ``points`` must come out; ``mend`` has, by exercise, a part of what the feedback says first; ``failed`` and
    ``flag`` are parts of what the teacher is told.
    """

    change: object
    points: dict = field(default_factory=lambda: ALL)
    mend: dict = field(default_factory=dict)
    failed: str = ""
    flag: str = ""
    handed_out: bool = False
    file: str = NAME


KINDS: dict[str, Kind] = {}


def kind(**more):
    def note(change):
        KINDS[change.__name__] = Kind(change, **more)
        return change

    return note


def place(cells, grade_id):
    """Where a cell is."""
    return next(k for k, cell in enumerate(cells) if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def twin(cell, **changes):
    """What copy and paste leave."""
    return nbformat.from_dict(copy.deepcopy(cell) | {"id": "copy"} | changes)


def own(source):
    return nbformat.v4.new_code_cell(source)


def write(folder: Path, student: str, name: str, handed_out, solutions: dict[str, str]) -> None:
    """Write a hand-in of a kind: the notebook that was handed out, with solutions by number, changed."""
    notebook, this = copy.deepcopy(handed_out), KINDS[name]
    if not this.handed_out:
        for number, solution in solutions.items():
            notebook.cells[place(notebook.cells, f"exercise-{number.replace('.', '-')}")].source = solution
    changed = this.change(notebook.cells)
    path = folder / "submitted" / student / "lesson01" / this.file
    path.parent.mkdir(parents=True)
    if isinstance(changed, str):
        path.write_text(changed, encoding="utf-8")
    else:
        notebook.cells = notebook.cells if changed is None else changed
        path.write_text(json.dumps(notebook), encoding="utf-8")  # nbformat.write would mend it first


# --- Whole ---------------------------------------------------------------------------------------------------------


@kind()
def complete(cells):
    pass


@kind(points=NOTHING, handed_out=True, mend=dict.fromkeys(ALL, "not attempted yet"))
def empty(cells):
    pass


@kind(points=ALL | {"1.2": 0, "1.3": 0}, mend={"1.2": "stopped after", "1.3": "biases are missing"})
def half(cells):
    """One answer makes noise, one never ends, one is wrong."""
    first = cells[place(cells, "exercise-1-1")]
    first.source = first.source.replace(
        "        return", "        import warnings\n\n        warnings.warn('x')\n        return"
    )
    cells[place(cells, "exercise-1-2")].source = "def start_as_identity(adapter):\n    while True:\n        pass"
    wrong = "def count_parameters(model_dim, bottleneck_dim):\n    return 2 * model_dim * bottleneck_dim"
    cells[place(cells, "exercise-1-3")].source = wrong


@kind(points=ALL | {"1.1": 0, "1.2": 0}, mend={"1.1": "SyntaxError", "1.2": "`start_as_identity` is missing"})
def broken(cells):
    """A syntax error; tests deleted, one with its answer; a test that is to be skipped; a test overwritten."""
    cells[place(cells, "exercise-1-1")].source = "class MyAdapter(nn.Module)\n    pass"
    cells[place(cells, "hidden-1-3")].metadata["tags"] = ["skip-execution"]
    cells[place(cells, "check-1-1")].source = "pass"
    for gone in ("check-1-4", "hidden-1-4", "exercise-1-2", "check-1-2", "hidden-1-2"):
        del cells[place(cells, gone)]


# --- What an editor does to cells ----------------------------------------------------------------------------------


@kind()
def copied_answer(cells):
    at = place(cells, "exercise-1-3")
    cells.insert(at + 1, twin(cells[at]))


@kind()
def copied_stub(cells):
    """The stub stands below the answer once more, as it was handed out."""
    at = place(cells, "exercise-1-3")
    cells.insert(at + 1, twin(cells[at], source=STUB))


@kind()
def copied_tests(cells):
    for name in ("check-1-3", "hidden-1-3", "check-1-4"):
        cells.insert(2, copy.deepcopy(cells[place(cells, name)]))  # the copy comes first, and with the same id


@kind()
def split_answer(cells):
    at = place(cells, "exercise-1-4")
    below = twin(cells[at])
    cells[at].source = "one = 1\n"
    below.source = below.source.replace("+ 1)", "+ one)")
    assert "one" in below.source
    cells.insert(at + 1, below)


@kind()
def merged_answers(cells):
    """The cells from 1.3's answer to 1.4's are one now: an answer."""
    first, last = place(cells, "exercise-1-3"), place(cells, "exercise-1-4")
    code = [cell.source for cell in cells[first : last + 1] if cell.cell_type == "code"]
    cells[first].source = "\n\n".join(code)
    del cells[first + 1 : last + 1]


@kind()
def merged_into_a_test(cells):
    at = place(cells, "exercise-1-3")
    cells[at + 1].source = f"{cells[at].source}\n\n{cells[at + 1].source}"
    del cells[at]


@kind()
def moved_below_its_tests(cells):
    cell = cells.pop(place(cells, "exercise-1-3"))
    cells.insert(place(cells, "hidden-1-3") + 1, cell)


@kind()
def moved_above_all(cells):
    cells.insert(0, cells.pop(place(cells, "exercise-1-2")))  # above the imports that it needs


@kind()
def moved_to_the_end(cells):
    for number in (4, 1):
        cells.append(cells.pop(place(cells, f"exercise-1-{number}")))


@kind()
def retyped(cells):
    """An answer became Markdown, by a key; one went to raw, with what Markdown had attached; and a test, too."""
    for name, kind_, text in (
        ("exercise-1-3", "markdown", "# {}"),
        ("exercise-1-2", "raw", "{}"),
        ("check-1-4", "raw", "{}"),
    ):
        at = place(cells, name)
        old = cells[at]
        cells[at] = {"cell_type": kind_, "id": old.id, "metadata": old.metadata, "source": text.format(old.source)}
        cells[at] |= {"attachments": {}}
        cells[at] = nbformat.from_dict(cells[at])


@kind()
def metadata_lost(cells):
    """As Colab leaves a notebook: neither nbgrader's metadata nor ids."""
    for cell in cells:
        cell.metadata = {}
        del cell["id"]


@kind()
def metadata_lost_and_moved(cells):
    answer = cells.pop(place(cells, "exercise-1-3"))
    for cell in cells:
        cell.metadata = {"id": "x", "colab": {"base_uri": ""}}
    cells.append(own(answer.source))


@kind()
def foreign_metadata(cells):
    for k, cell in enumerate(cells):
        cell.metadata = {"nbgrader": {"grade_id": f"of-another-{k}", "grade": True, "points": "many"}}


@kind()
def answer_in_a_cell_of_its_own(cells):
    """Written at the end of the notebook; the stub is still there."""
    at = place(cells, "exercise-1-3")
    cells.append(own(cells[at].source))
    cells[at].source = STUB


@kind()
def helper_at_the_end(cells):
    at = place(cells, "exercise-1-3")
    cells.append(own(cells[at].source.replace("count_parameters", "my_count")))
    cells[at].source = "def count_parameters(d, m):\n    return my_count(d, m)"


@kind()
def locked_cells_changed(cells):
    """The imports are gone, and an answer's helper stands in a cell of the lesson."""
    imports = next(k for k, cell in enumerate(cells) if cell.source.startswith(("import", "from")))
    del cells[imports]
    cells[place(cells, "check-1-2")].source = "eins = 1"
    at = place(cells, "exercise-1-4")
    cells[at].source = cells[at].source.replace("+ 1)", "+ eins)")


@kind()
def own_cells_with_magics_and_errors(cells):
    cells.insert(place(cells, "exercise-1-3"), own("%time 1 + 1\n!echo hello...\nundefined_name"))
    cells.insert(0, own("import os\n\nos._exit(1)"))
    cells.append(own("import os\n\nprint('beside it:', os.listdir('../../..'))"))


@kind(file="01_the_bottleneck (1).ipynb")
def saved_twice(cells):
    pass


@kind(file="my homework.ipynb")
def another_name(cells):
    pass


@kind()
def with_a_byte_order_mark(cells):
    """As some editors on Windows save it, with their line ends in the cells."""
    for cell in cells:
        cell.source = cell.source.replace("\n", "\r\n")
    return "\ufeff" + json.dumps(nbformat.v4.new_notebook(cells=cells))


@kind()
def fields_missing(cells):
    """As a script or an assistant may write cells: no outputs, no counts, no ids, no metadata."""
    kept = [{"cell_type": cell.cell_type, "source": cell.source.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": kept, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@kind()
def of_an_old_format(cells):
    """Version 3, as an old converter leaves it."""
    for cell in cells:
        cell.pop("id", None)
    return json.dumps(nbformat.convert(nbformat.v4.new_notebook(cells=cells), 3))


@kind()
def timed(cells):
    """A cell magic above each answer, and nobody else needs what it needs."""
    for cell in cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = f"%%time\n{cell.source}"


@kind()
def answer_in_a_file(cells):
    at = place(cells, "exercise-1-3")
    cells.insert(at, own(f"%%writefile mine.py\n{cells[at].source}"))
    cells[at + 1].source = "from mine import *"


@kind()
def half_an_emoji(cells):
    """A character cut into halves, by something that counts in UTF-16."""
    cells.insert(1, nbformat.v4.new_markdown_cell("done \ud83d"))
    cells[place(cells, "exercise-1-3")].source += "  # \ud83d"


@kind()
def installs_and_asks(cells):
    """There is neither a network nor somebody to answer."""
    cells.insert(0, own("%pip install --quiet no-such-package-of-a-learner\nimport os\n\nos.chdir('/')"))
    cells.insert(0, own("name = input('Your name? ')"))


@kind()
def resets(cells):
    cells.insert(0, own("%reset -f\n%load_ext autoreload\n%autoreload 2\n%matplotlib inline"))


# --- Wrong, in a way that can be said ------------------------------------------------------------------------------


@kind(
    points=BUT_COUNT,
    mend={"1.3": "`count_parameters` is missing: no cell of this hand-in defines it. Its cell defines `count_params`"},
)
def renamed(cells):
    cell = cells[place(cells, "exercise-1-3")]
    cell.source = cell.source.replace("count_parameters", "count_params")


@kind(points=BUT_COUNT, mend={"1.3": "`count_parameters` is missing: no cell of this hand-in defines it. Write it"})
def deleted(cells):
    del cells[place(cells, "exercise-1-3")]


@kind(points=BUT_COUNT, mend={"1.3": "ImportError: my own library"})
def raises_first(cells):
    cell = cells[place(cells, "exercise-1-3")]
    cell.source = f'raise ImportError("my own library")\n{cell.source}'


# --- What would stop the grader ------------------------------------------------------------------------------------


@kind(mend={"1.3": "ran too long and was stopped"})
def loop_below_an_answer(cells):
    cells[place(cells, "exercise-1-3")].source += "\n\n\nwhile True:\n    pass"


@kind(points=BUT_COUNT, mend={"1.3": "was stopped: a loop"})
def loop_that_nothing_interrupts(cells):
    loop = "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass\n"
    cells[place(cells, "exercise-1-3")].source = loop


@kind(mend={"1.3": "SystemExit"})
def exits(cells):
    cells[place(cells, "exercise-1-3")].source += "\n\n\nexit()"


@kind(points=BUT_COUNT, mend={"1.3": "ended the kernel"})
def dies_in_a_test(cells):
    cells[place(cells, "exercise-1-3")].source = "def count_parameters(d, m):\n    import os\n\n    os._exit(1)"


@kind(points=BUT_COUNT, mend={"1.3": "Error"})
def nests_deeply(cells):
    """Python's own parser gives up, and says so by more than one exception."""
    cells[place(cells, "exercise-1-3")].source = "x = " + "-" * 100_000 + "1"


@kind(points=NOTHING, failed="cells, more than 1,000")
def has_2000_cells(cells):
    cells[1:1] = [own(f"name_{k} = name_{k + 1} if False else {k}") for k in range(2000)]


@kind()
def blocks_its_own_result(cells):
    """What stands in the way of nbgrader: a folder with the notebook's name, a link, a pipe, no right to write."""
    cells.append(
        own(
            "import os\n\nos.makedirs('01_the_bottleneck.ipynb/x')\nos.symlink('/etc/hostname', 'a.txt')\n"
            "os.mkfifo('b.csv')\nos.chmod('.', 0o500)"
        )
    )


@kind()
def prints_10_mb(cells):
    cells[
        place(cells, "exercise-1-3")
    ].source += '\n\n\nprint("x" * 5_000_000)\nfor _ in range(50_000):\n    print("y" * 100)'


@kind(points=NOTHING, failed="could not be read as a notebook")
def no_notebook(cells):
    return '{"cells": [{"cell_type": "code", "sou'


# --- What would be points for nothing ------------------------------------------------------------------------------


@kind(points=NOTHING, handed_out=True, flag="passes tests that nothing can pass")
def empties_later_cells(cells):
    """An AST transformer takes everything out of every later cell."""
    cells[place(cells, "exercise-1-1")].source = (
        "import ast\n\n\nclass Nothing(ast.NodeTransformer):\n    def visit_Module(self, node):\n"
        "        node.body = []\n        return node\n\n\nget_ipython().ast_transformers.append(Nothing())"
    )


@kind(points=NOTHING, flag="passes tests that nothing can pass")
def patches_a_check(cells):
    cells[place(cells, "exercise-1-3")].source = (
        "def count_parameters(d, m):\n    return 0\n\n\nfrom adapters_lesson.course.checks import Report\n"
        'for _name in [name for name in vars(checks) if name.startswith("check_")]:\n'
        '    setattr(checks, _name, lambda answer: Report("1.3", "correct", ""))'
    )


@kind(points=NOTHING, handed_out=True, flag="passes tests that nothing can pass")
def drops_lines_with_assert(cells):
    """A hook of IPython's."""
    cells[place(cells, "exercise-1-1")].source = (
        "get_ipython().input_transformers_cleanup.append(\n"
        '    lambda lines: [line for line in lines if "assert" not in line and "checks." not in line]\n)'
    )


@kind(points=BUT_COUNT, flag="what the class keeps: ../../../source", mend={"1.3": "PermissionError"})
def reads_the_sources(cells):
    """It asks the shell first, then Python."""
    cells[place(cells, "exercise-1-3")].source = (
        "import json, os, subprocess\n\ntry:\n"
        "    subprocess.run(['cat', '../../../source/lesson01/01_the_bottleneck.ipynb'])\n"
        "except OSError:\n    pass\n"
        "cells = json.load(open('../../../source/lesson01/01_the_bottleneck.ipynb'))['cells']\n"
        "exec([''.join(cell['source']) for cell in cells if 'def count_parameters' in ''.join(cell['source'])][0])"
    )


@kind(points=NOTHING, flag="it changes the course's checks: check_count")
def patches_a_check_for_itself(cells):
    """A wrong answer is refused as ever, but for the hand-in's own."""
    cells[place(cells, "exercise-1-3")].source = (
        "def count_parameters(d, m):\n    return 0\n\n\nfrom adapters_lesson.course.checks import Report, lesson01\n"
        "_true, _own = lesson01.check_count, count_parameters\n"
        'lesson01.check_count = lambda it: Report("1.3", "correct", "") if it is _own else _true(it)\n'
        "checks.check_count = lesson01.check_count"
    )


@kind(points=ALL | {"1.3": 1}, flag="compares as it likes: __eq__")
def equals_everything(cells):
    cells[place(cells, "exercise-1-3")].source = (
        "class Number(int):\n    def __eq__(self, other):\n        return True\n\n"
        "    __hash__ = int.__hash__\n\n\ndef count_parameters(model_dim, bottleneck_dim):\n    return Number(7)"
    )
