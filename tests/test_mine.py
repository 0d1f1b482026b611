"""The learner's own library: taken out of the notebook with all that it needs, kept in a file, used by the lessons."""

import ast
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from IPython.core.interactiveshell import InteractiveShell

from adapters_lesson.course import mine, record
from adapters_lesson.course.mine import graduation, jobs, keeping
from adapters_lesson.course.mine.my_file import parse, renamed
from adapters_lesson.course.mine.shelf import exercises, public_name, reference
from adapters_lesson.course.mine.taken import CannotTake, Notebook

CLASS = """
class MyAdapter(nn.Module):
    def __init__(self, model_dim: int, bottleneck_dim: int):
        super().__init__()
        self.down_project = nn.Linear(model_dim, bottleneck_dim)
        self.activation = nn.GELU()
        self.up_project = nn.Linear(bottleneck_dim, model_dim)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.up_project(self.activation(self.down_project(h)))
"""
COUNT = "def count_parameters(d, m):\n    return 2 * d * m + d + m"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where the learner's library will be, in the folder of a notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(record, "_unsaved", {})
    return tmp_path / "mine" / "adapters.py"


@pytest.fixture
def cell(file):
    """Runs a cell of a notebook in which lesson 01 has begun, and returns the value of its last line."""
    shell = InteractiveShell.instance()
    shell.reset(new_session=True)

    def run(source):
        outcome = shell.run_cell(source, store_history=True)
        outcome.raise_error()
        return outcome.result

    lessons = ", ".join(f"lesson{number:02} as checks{number}" for number in range(1, 12))
    run(f"import torch\nfrom torch import nn\nfrom adapters_lesson.course.checks import {lessons}")
    yield run
    InteractiveShell.clear_instance()


def in_use(*exercises):
    """The pieces as a job gets them."""
    return mine.run(lambda my: my, *exercises)


def alone(file, code):
    """What a fresh process prints that has the learner's file and no course."""
    block = "import sys\nsys.modules['adapters_lesson'] = None\nsys.path.insert(0, 'mine')\nimport adapters\n"
    done = subprocess.run([sys.executable, "-c", block + code], cwd=file.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- Taking ---


def test_a_class_a_lambda_and_a_function_go_into_the_file(cell, file):
    assert "It is Adapter in mine/adapters.py now" in repr(cell(CLASS + "\nchecks1.check_forward(MyAdapter)"))
    assert repr(cell("checks1.check_count(lambda d, m: 2 * d * m + d + m)")).startswith("✔")
    cell("def widest_bottleneck(d, n, budget):\n    return max(0, (budget // n - d) // (2 * d + 1))")
    assert repr(cell("checks1.check_widest(widest_bottleneck)")).startswith("✔")
    assert list(parse(file.read_text(encoding="utf-8")).sections) == ["1.1", "1.3", "1.4"]
    assert (
        alone(file, "print(adapters.count_parameters(384, 64), adapters.widest_bottleneck(384, 12, 500_000))")
        == "49600 53"
    )
    assert alone(file, "import torch; print(adapters.Adapter(4, 2)(torch.ones(1, 4)).shape)") == "torch.Size([1, 4])"


@pytest.mark.parametrize(
    "cells",
    [
        ["TWO = 2\ndef both(d, m):\n    return d + m", "def f(d, m):\n    return TWO * d * m + both(d, m)"],
        ["from functools import lru_cache as kept", "@kept(None)\ndef f(d, m):\n    return 2 * d * m + d + m"],
        ["def f(d, m):\n    def weights():\n        return 2 * d * m\n    return weights() + d + m"],
        ["from functools import partial\ndef g(k, d, m):\n    return k * d * m + d + m\nf = partial(g, 2)"],
        ["class F:\n    def __call__(self, d, m):\n        return 2 * d * m + d + m\nf = F()"],
        ["class F:\n    pass", "def call(self, d, m):\n    return 2 * d * m + d + m", "F.__call__ = call\nf = F()"],
        ["%%time\ndef f(d, m):\n    return 2 * d * m + d + m"],
        ["def f(d, m): return 0", "def f(d, m): return 2 * d * m + d + m"],
        ["import math; k = 2; f = lambda d, m: math.prod([k, d, m]) + d + m"],
        ["sizes = {'weights': 2}\ndef f(d, m):\n    return sizes['weights'] * d * m + d + m"],
        ["def make(k):\n    def inner(d, m):\n        return k * d * m + d + m\n    return inner\nf = make(2)"],
        ["import torch as t\ndef f(d: 't.Tensor', m):\n    return int(t.tensor(2 * d * m + d + m))"],
        ["from dataclasses import dataclass\n@dataclass\nclass Size:\n    d: int\n    m: int\n    def __call__(self):\n"
         "        return 2 * self.d * self.m + self.d + self.m\ndef f(d, m):\n    return Size(d, m)()"],
        ["def f(d, m):\n    return rest(d, m) if m else 0\ndef rest(d, m):\n    return 2 * d * m + d + m"],
        ["from math import *", "def f(d, m):\n    return 2 * d * m + d + floor(m + 0 * pi)"],
        ["k: int = 1\nk = k + 1\nf = g = lambda d, m: k * d * m + d + m"],
        ["def f(d, m):\n    return 2 * d * m + d + m", "import functools", "f = functools.cache(f)"],
        ["calls = 0\ndef f(d, m):\n    global calls\n    calls += 1\n    return 2 * d * m + d + m"],
        ["import operator\nDO = {'x': operator.mul}\ndef f(d, m):\n    return 2 * DO['x'](d, m) + d + m"],
        ["import numpy as np\nK, MOST = np.array([2, 1, 1]), float('inf')",
         "MOST = float('inf')\nK = np.array([2, 1])\ndef f(d, m):\n    return int(K @ [d * m, min(d, MOST)]) + m"],
        ["import torch.utils.data\ndef f(d, m):\n    return 2 * d * m + d + m + 0 * len(torch.utils.data.__name__)"],
        ["# pasted\u2028\ndef f(d, m):\n    return 2 * d * m + d + m"],
        ["f = (\n    lambda d, m: (\n        2 * d * m\n        + d + m\n    )\n)"],
        ["import functools\ndef told(g):\n    @functools.wraps(g)\n    def h(*a):\n        return g(*a)\n    return h",
         "@told\ndef f(d, m):\n    return 2 * d * m + d + m"],
        ["def even(d, m, k=2):\n    return d + m if k == 0 else d * m + even(d, m, k - 1)\nf = even"],
    ],
)  # fmt: skip
def test_an_answer_is_taken_with_all_that_it_needs(cell, file, cells):
    for source in cells:
        cell(source)
    assert "mine/adapters.py now" in repr(cell("checks1.check_count(f)"))
    assert alone(file, "print(adapters.count_parameters(384, 64))") == "49600"


def test_what_cannot_be_taken_is_said_and_the_answer_stays_correct(cell, file):
    cell("model = nn.Linear(2, 2)\ndef f(d, m):\n    return 2 * d * m + d + m + 0 * model.in_features")
    said = repr(cell("checks1.check_count(f)"))
    assert said.startswith("✔ 1.3: correct")
    assert "it uses model, a Linear of the notebook: let it be an argument" in said
    assert not file.exists()


@pytest.mark.parametrize(
    "source",
    [
        "# lambdas in\n\nchecks1.check_count(\n    lambda d, m: 2 * d * m + d + m\n)",
        "said = checks1.check_count(lambda d, m: 2 * d * m + d + m)\nchecks1.check_widest(max)\nsaid",
    ],
)
def test_a_lambda_is_taken_from_its_own_check_wherever_that_stands(cell, file, source):
    assert "count_parameters in mine/adapters.py now" in repr(cell(source))
    assert alone(file, "print(adapters.count_parameters(384, 64))") == "49600"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("if True:\n    def f(d, m):\n        return 2 * d * m + d + m", "f is not written on its own"),
        ("import sys, types\nsys.modules['ours'] = ours = types.ModuleType('ours')\n"
         "ours.f = lambda d, m: 2 * d * m + d + m\nfrom ours import f", "f is imported, not written here"),
    ],
)  # fmt: skip
def test_what_is_not_written_in_a_cell_is_said(cell, file, source, why):
    cell(source)
    assert why in repr(cell("checks1.check_count(f)"))
    assert not file.exists()


def test_whatever_goes_wrong_in_taking_the_answer_stays_correct(cell, file):
    said = repr(cell("checks1.check_count(answer=lambda d, m: 2 * d * m + d + m)"))
    assert said.startswith("✔ 1.3: correct")
    assert "It stays out of mine/adapters.py: it has no name" in said
    cell("def f(d, m):\n    return 2 * d * m + d + m")
    keeping.Notebook.of, before = None, keeping.Notebook.of
    try:
        assert "taking it out raised TypeError" in repr(cell("checks1.check_count(f)"))
    finally:
        keeping.Notebook.of = before


HELP = "def help(d, m):\n    return 2 * d * m + {}"
OTHER = {  # how an answer uses what was run, and that with a place for what differs in a newer one, which was not run
    "f = count_parameters": COUNT.replace("d + m", "{}"),
    "def f(d, m):\n    return help(d, m)": HELP,
    "f = Size()": "class Size:\n    def __call__(self, d, m):\n        return 2 * d * m + {}",
    "f = of(2)": "def of(k):\n    return lambda d, m: k * d * m + {}",
    "f = g": "g = lambda d, m: 2 * d * m + {}",
    "from __future__ import annotations\nf = lambda d, m: help(d, m)": HELP,
}


@pytest.mark.parametrize("use", OTHER)
def test_what_was_checked_is_taken_not_a_newer_one_that_never_ran(cell, file, use):
    checked, other = OTHER[use].format("d + m"), OTHER[use].format("m + d")
    cell(checked)
    cell(use)
    cell(checked)  # a cell may be run again
    with pytest.raises(ZeroDivisionError):
        cell(f"1 / 0\n\n{other}")
    assert "mine/adapters.py now" in repr(cell("checks1.check_count(f)"))
    assert "+ d + m" in file.read_text(encoding="utf-8")
    assert "+ m + d" not in file.read_text(encoding="utf-8")


def test_a_definition_that_ran_before_its_cell_failed_is_taken(cell, file):
    cell(COUNT)
    with pytest.raises(ZeroDivisionError):
        cell(f"from __future__ import annotations\n{COUNT.replace('d + m', 'm + d')}\n1 / 0")
    cell("checks1.check_count(count_parameters)")
    assert "return 2 * d * m + m + d" in file.read_text(encoding="utf-8")


def test_a_newer_answer_in_the_cell_of_the_check_is_not_taken_for_the_checked_one(cell, file):
    cell(COUNT)
    cell("said = checks1.check_count(count_parameters)\n" + COUNT.replace("d + m", "m + d"))
    assert "return 2 * d * m + d + m" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["MyAdapter", "Adapter"])
def test_a_class_that_inherits_from_the_course_s_takes_its_import_along(cell, file, name):
    cell(f"from adapters_lesson import Adapter\nclass {name}(Adapter):\n    pass\nchecks1.check_forward({name})")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "from adapters_lesson import Adapter as Adapter_1_1" in file.read_text(encoding="utf-8")
    assert graduation._lendable()[1]["1.1"] == "it uses the course's Adapter_1_1"
    assert issubclass(in_use("1.1").Adapter, cell("import adapters_lesson\nadapters_lesson.Adapter"))


def test_what_has_another_value_in_the_file_is_said(cell, file):
    cell("factor = [1]\nfactor[0] = 2\ndef f(d, m):\n    return factor[0] * d * m + d + m")
    assert "no longer right" in repr(cell("checks1.check_count(f)"))
    assert not file.exists()


def test_a_name_that_two_answers_use_differently_is_parted(cell, file):
    cell("def f(d, m):\n    return 2 * d * m + d + m\nchecks1.check_count(f)")
    cell("def f(d, n, budget):\n    return max(0, (budget // n - d) // (2 * d + 1))\nchecks1.check_widest(f)")
    cell(
        "def judge(a, b):\n    return a * b\n\n"
        "def block_parameters(d, f):\n    return 4 * (judge(d, d) + d) + 2 * judge(d, f) + f + d + 4 * d"
    )
    assert "mine/adapters.py now" in repr(cell("checks2.check_block_count(block_parameters)"))
    said = alone(file, "print(adapters.count_parameters(384, 64), adapters.widest_bottleneck(384, 12, 500_000), "
                       "adapters.block_parameters(384, 1536), hasattr(adapters, 'judge'))")  # fmt: skip
    assert said == "49600 53 1774464 False"


def test_counters_and_imports_of_the_same_name_are_parted(cell, file):
    counting = "calls = 0\ndef f({0}):\n    global calls\n    calls += 1\n    return {1}"
    cell(counting.format("d, m", "2 * d * m + d + m") + "\nchecks1.check_count(f)")
    cell(counting.format("d, n, b", "max(0, (b // n - d) // (2 * d + 1))") + "\nchecks1.check_widest(f)")
    cell("def mean(d, f):\n    return 2 * d * f + f + d\n\n"
         "def f(d, n):\n    return 4 * (d * d + d) + mean(d, n) + 4 * d\nchecks2.check_block_count(f)")  # fmt: skip
    cell("from statistics import mean, stdev\nT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}\ndef f(v):\n"
         "    return mean(v), T[len(v)] * stdev(v) / len(v) ** 0.5\nsaid = checks5.check_interval(f)")  # fmt: skip
    assert list(parse(file.read_text(encoding="utf-8")).sections) == ["1.3", "1.4", "2.2", "5.2"], cell("said")
    assert alone(file, "print(adapters.widest_bottleneck(384, 12, 500_000), adapters.calls_1_4)") == "53 1"


def test_renaming_leaves_variables_of_functions_alone():
    source = "def f(x):\n    return x + g(x)\n\n\ndef g(f):\n    f = f + 1\n    return [f for f in range(f)]\n\n\nh = f"
    assert renamed(source, "f", "new") == source.replace("def f(x)", "def new(x)").replace("h = f", "h = new")


def test_answering_again_replaces_the_section(cell, file):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    cell("def count_parameters(d, m):\n    return (2 * d + 1) * m + d\nchecks1.check_count(count_parameters)")
    text = file.read_text(encoding="utf-8")
    assert text.count("def count_parameters") == 1
    assert "(2 * d + 1)" in text


def test_a_wrong_answer_changes_nothing(cell, file):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    before = file.read_text(encoding="utf-8")
    assert repr(cell("checks1.check_count(lambda d, m: 2 * d * m)")).startswith("✘")
    assert file.read_text(encoding="utf-8") == before


def test_without_progress_nothing_is_kept(tmp_path, monkeypatch, cell, file):
    monkeypatch.setenv(record.VARIABLE, "")
    assert "mine" not in repr(cell(COUNT + "\nchecks1.check_count(count_parameters)"))
    assert not file.exists()


def test_a_script_keeps_its_answers_too(file):
    load, check = "from adapters_lesson.course.checks import lesson01 as checks", "checks.check_count(count_parameters)"
    Path("lesson.py").write_text(f"{load}\n\n\n{COUNT}\n\n\nprint({check})\n")
    said = subprocess.run([sys.executable, "lesson.py"], capture_output=True, text=True).stdout
    assert "It is count_parameters in mine/adapters.py now" in said


def test_what_a_notebook_has_not_run_is_not_there():
    with pytest.raises(CannotTake, match="it has no name"):
        Notebook([]).handed_in("check_count")
    assert Notebook(["x = ("]).statements == []


# --- The file ---


def test_what_is_edited_by_hand_is_kept_and_checked_again(cell, file, capsys):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    edited = file.read_text(encoding="utf-8").replace(
        "import annotations\n", "import annotations\n\nimport math\n\nHELP = 1\n"
    )
    file.write_text(edited.replace("2 * d * m + d + m", "math.prod([2, d, m]) + HELP * d + m"))
    assert in_use("1.3").count_parameters(384, 64) == 49_600
    assert "Runs on yours (1.3)." in capsys.readouterr().out
    assert parse(file.read_text(encoding="utf-8")).sections["1.3"].unchanged  # now it counts as checked
    file.write_text(file.read_text(encoding="utf-8").replace("HELP * d + m", "HELP * d"))
    assert in_use("1.3").count_parameters(384, 64) == 49_600
    assert (
        "the course's (1.3: changed since its check, and now: down_project's bias is missing" in capsys.readouterr().out
    )
    cell("checks1.check_widest(lambda d, n, b: max(0, (b // n - d) // (2 * d + 1)))")
    text = file.read_text(encoding="utf-8")
    assert "import math\n" in text
    assert "\nHELP = 1\n" in text
    assert "HELP * d\n" in text


def test_a_broken_section_costs_that_exercise_only(cell, file, capsys):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    cell("checks1.check_widest(lambda d, n, b: max(0, (b // n - d) // (2 * d + 1)))")
    file.write_text(file.read_text(encoding="utf-8").replace("    return 2 *", "    return ) 2 *"))
    in_use("1.3", "1.4")
    said = capsys.readouterr().out
    assert "yours (1.4) and the course's (1.3: its code raises SyntaxError" in said
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    assert "yours (1.3, 1.4)." in (in_use("1.3", "1.4"), capsys.readouterr().out)[1]


def test_what_is_broken_above_the_sections_costs_who_needs_it(cell, file, capsys):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    cell("checks1.check_widest(lambda d, n, b: max(0, (b // n - d) // (2 * d + 1)))")
    right = file.read_text(encoding="utf-8")
    with_import = right.replace("annotations\n", "annotations\n\nimport no_such_module\n", 1)
    file.write_text(with_import.replace("2 * d * m", "2 * d * m + 0 * no_such_module.x"), encoding="utf-8")
    in_use("1.3", "1.4")
    said = capsys.readouterr().out
    assert "yours (1.4) and the course's (1.3: `import no_such_module` raises ModuleNotFoundError" in said
    assert "1.3" in graduation._lendable()[0].sections
    assert "no_such_module" not in graduation._lendable()[0].text()
    file.write_text(right.replace("annotations\n", "annotations\n\nimport (\n", 1), encoding="utf-8")
    in_use("1.3", "1.4")
    assert "(1.3, 1.4: what stands above the sections raises SyntaxError" in capsys.readouterr().out
    said = repr(cell(COUNT + "\nchecks1.check_count(count_parameters)"))
    assert "what stands above the sections raises SyntaxError" in said
    assert "widest_bottleneck" in file.read_text(encoding="utf-8")


def test_a_file_that_cannot_be_read_is_said_and_left_alone(cell, file, capsys):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    right = file.read_text(encoding="utf-8")
    file.write_text(right, encoding="utf-16")
    before = file.read_bytes()
    assert in_use("1.3").count_parameters(384, 64) == 49_600
    assert "1.3: mine/adapters.py cannot be read: it is no text in UTF-8" in capsys.readouterr().out
    assert "save it as that" in repr(cell("checks1.check_count(count_parameters)"))
    assert "has no section" in mine.shown("1.3")
    assert file.read_bytes() == before
    file.write_text(right, encoding="utf-8-sig", newline="\r\n")
    in_use("1.3")
    assert capsys.readouterr().out.endswith("Runs on yours (1.3).\n")


def test_what_changed_is_used_also_where_the_file_is_read_only(cell, file, capsys, monkeypatch):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    file.write_text(file.read_text(encoding="utf-8").replace("2 * d * m + d + m", "(2 * d + 1) * m + d"))
    monkeypatch.setattr(keeping.os, "access", lambda path, mode: False)
    in_use("1.3")
    assert "yours (1.3)." in capsys.readouterr().out


DAMAGES = {
    "gone": (r"# --- 1\.{} .*\n", ""),
    "no comment any more": (r"# (--- 1\.{} )", r"\1"),
    "other marks": (r"# --- (1\.{}) ·", r"# - \1 -"),
    "no number": (r"(# ---) 1\.{}", r"\1"),
    "the number of another": (r"(# --- 1)\.{}", r"\1.2"),
}


@pytest.mark.parametrize("number", [3, 4])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_heading_is_said_and_nothing_is_lost(cell, file, capsys, damage, number):
    widest = "def widest_bottleneck(d, n, b):\n    return max(0, (b // n - d) // (2 * d + 1))"
    cell(f"{COUNT}\n\n{widest}")
    cell("checks1.check_count(count_parameters)\nchecks1.check_widest(widest_bottleneck)")
    before = file.read_text(encoding="utf-8")
    pattern, instead = DAMAGES[damage]
    damaged, times = re.subn(pattern.format(number), instead, before)
    assert times == 1
    file.write_text(damaged, encoding="utf-8")
    name = {3: "count_parameters", 4: "widest_bottleneck"}[number]
    line = damaged.split("\n").index(f"def {name}(d, {'m' if number == 3 else 'n, b'}):") + 1
    in_use("1.3", "1.4")
    said = capsys.readouterr().out
    assert "the course's (1.3, 1.4: mine/adapters.py cannot be read: " in said
    assert f"{name}, in line {line}, is under no heading of its own: write `# --- 1.{number} · " in said
    said = repr(cell("checks1.check_count(count_parameters)"))
    assert f"mine/adapters.py stays as it is: {name}, in line {line}, " in said
    assert file.read_text(encoding="utf-8") == damaged
    (heading,) = re.findall("write `(.*)` above its code", said)
    lines = damaged.split("\n")
    kept = [one for one in lines[: line - 1] if one in before.split("\n")]
    file.write_text("\n".join([*kept, heading, *lines[line - 1 :]]), encoding="utf-8")
    in_use("1.3", "1.4")
    assert capsys.readouterr().out.endswith("Runs on yours (1.3, 1.4).\n")
    mended = parse(file.read_text(encoding="utf-8")).sections
    assert {key: section.body for key, section in mended.items()} == {
        key: section.body for key, section in parse(before).sections.items()
    }


def test_a_link_stays_a_link_and_comments_and_copies_stay(cell, file):
    cell(COUNT + "\nchecks1.check_count(count_parameters)")
    there = file.rename(file.parents[1] / "elsewhere.py")
    text = there.read_text(encoding="utf-8").replace("import annotations\n", "import annotations\n\n# My notes\n")
    there.write_text(text + "\n\n" + text[text.index("# ---") :].replace("2 * d * m", "d * m * 2"), encoding="utf-8")
    file.symlink_to(there)
    cell("checks1.check_widest(lambda d, n, b: max(0, (b // n - d) // (2 * d + 1)))")
    assert file.is_symlink()
    text = there.read_text(encoding="utf-8")
    assert all(part in text for part in ("# My notes\n", "2 * d * m", "d * m * 2", "widest_bottleneck"))


def test_an_answer_may_ask_the_adapter_for_its_count(cell, capsys):
    cell("from adapters_lesson import Adapter\n" + CLASS + "\nchecks1.check_forward(MyAdapter)")
    cell("def houlsby(d, m, n):\n    return 2 * n * Adapter.count(d, m)\nchecks4.check_houlsby_count(houlsby)")
    capsys.readouterr()
    assert mine.run(lambda my: my.houlsby_parameters(768, 64, 12), "1.1", "4.1") == 2_379_264
    assert capsys.readouterr().out == "Runs on yours (1.1, 4.1).\n"


def test_an_answer_may_count_the_statistics_that_may_be_left_out():
    def plain(batch, length, d):
        return 4 * batch * length * 16 * d

    def exact(batch, length, d):
        return 4 * batch * length * (16 * d + 16)

    assert jobs._compared("4.3", exact, plain)(8, 64, 384) == exact(8, 64, 384)
    with pytest.raises(jobs.Fault, match=r"your 4\.1 gives"):
        jobs._compared("4.1", exact, plain)(8, 64, 384)


def test_two_kernels_lose_nothing(file):
    lines = """
        from adapters_lesson.course.checks import lesson01, lesson04
        {code}
        print({check}(f))
    """
    right = {
        "lesson01.check_count": "f = lambda d, m: 2 * d * m + d + m",
        "lesson01.check_widest": "f = lambda d, n, b: max(0, (b // n - d) // (2 * d + 1))",
        "lesson04.check_houlsby_count": "f = lambda d, m, n: 2 * n * (2 * d * m + d + m)",
        "lesson04.check_standing_bytes": "f = lambda total, trained, size: size * (total + 3 * trained)",
    }
    kernels = []
    for number, (check, code) in enumerate(right.items()):
        Path(f"{number}.py").write_text(textwrap.dedent(lines).format(code=code, check=check))
        kernels.append(subprocess.Popen([sys.executable, f"{number}.py"], stdout=subprocess.PIPE, text=True))
    assert all("mine/adapters.py now" in kernel.communicate()[0] for kernel in kernels)
    assert list(parse(file.read_text(encoding="utf-8")).sections) == ["1.3", "1.4", "4.1", "4.2"]


def test_a_file_that_cannot_be_written_is_said(cell, file, monkeypatch):
    monkeypatch.setattr(record, "_PATIENCE", 0.1)
    file.parent.mkdir()
    with FileLock(file.with_name(".adapters.py.lock")):
        said = repr(cell(COUNT + "\nchecks1.check_count(count_parameters)"))
    assert said.startswith("✔")
    assert "is being written by another notebook" in said
    monkeypatch.setattr(keeping.os, "access", lambda path, mode: False)
    file.write_text("")
    assert "stays as it is: it is read-only" in repr(cell("checks1.check_count(count_parameters)"))


def test_sections_are_in_an_order_that_imports(cell, file):
    cell(CLASS + "\nchecks1.check_forward(MyAdapter)")
    text = file.read_text(encoding="utf-8")
    header = "# --- 0.9 · Earlier · checked 2026-01-01 (00000000) ---\n"
    sections = parse(text + f"\n\n{header}class Wide(Adapter):\n    pass\n")
    file.write_text(sections.text())
    assert alone(file, "print(issubclass(adapters.Wide, adapters.MyAdapter))") == "True"


# --- Work ---


def test_where_nothing_is_answered_the_course_s_pieces_work(file, capsys):
    assert in_use("1.3").count_parameters(384, 64) == 49_600
    assert capsys.readouterr().out == "Runs on the course's (1.3: not attempted yet).\n"


def put(file, exercise, body):
    """A section that counts as checked."""
    there = parse(file.read_text(encoding="utf-8") if file.exists() else "")
    section = reference().sections[exercise]
    section = type(section)(exercise, section.title, "", textwrap.dedent(body).strip()).checked("2026-01-01")
    file.parent.mkdir(exist_ok=True)
    file.write_text(there._replace(sections={**there.sections, exercise: section}).text())


def test_an_answer_that_raises_is_named_with_its_line(file, capsys):
    put(file, "1.3", "def count_parameters(d, m):\n    wrong = d // (m - 3)\n    return 2 * d * m + d + m")
    assert mine.run(lambda my: my.count_parameters(8, 3), "1.3") == 59
    said = capsys.readouterr().out
    assert "your 1.3 raised ZeroDivisionError: " in said
    assert ", in line " in said
    assert "of mine/adapters.py: `wrong = d // (m - 3)`. The course's takes over here." in said
    assert said.endswith("Runs on the course's (1.3: it failed here).\n")


def test_an_answer_that_is_wrong_in_its_new_job_is_named(file, capsys):
    put(file, "1.3", "def count_parameters(d, m):\n    return 2 * d * m + d + m if d != 4096 else 0")
    assert mine.run(lambda my: my.count_parameters(4096, 8), "1.3") == 69_640
    assert "your 1.3 gives 0 where 69640 is right. The course's takes over here." in capsys.readouterr().out


def test_a_right_answer_need_not_look_like_the_course_s(file, capsys):
    put(file, "10.2", "def fill_rows(lengths, room):\n    return [[1], [0, 2]]")  # as good as [[2, 0], [1]]
    assert mine.run(lambda my: my.fill_rows([3, 4, 5], 8), "10.2") == [[1], [0, 2]]
    numbers = "torch.tensor(prompt + answer + [end]), torch.tensor([-100] * len(prompt) + answer + [end])"
    put(file, "10.1", f"def make_labels(prompt, answer, end, pad, length):\n    return {numbers}")
    _, labels = mine.run(lambda my: my.make_labels([7], [5], 2, 2, 3), "10.1")
    assert labels.tolist() == [-100, 5, 2]
    assert capsys.readouterr().out == "Runs on yours (10.2).\nRuns on yours (10.1).\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return str(2 * d * m + d + m)", "gives 59, a str, where 59 is right"),
        ("return 10**400", "gives 1000"),
        ("return [d, m]", "gives [8, 3] where 59 is right"),
        ("raise SystemExit(1)", "raised SystemExit: 1, in line"),
    ],
)
def test_whatever_an_answer_gives_the_lesson_goes_on(file, capsys, body, said):
    put(file, "1.3", f"def count_parameters(d, m):\n    {body}")
    assert mine.run(lambda my: my.count_parameters(8, 3), "1.3") == 59
    assert f"your 1.3 {said}" in capsys.readouterr().out


def test_an_answer_that_changes_what_it_is_given_is_named(file, capsys):
    put(file, "5.2", "def mean_and_interval(v):\n    a, b = sum(v) / 2, 12.706 * abs(v[0] - v[1]) / 2\n"
                     "    v.clear()\n    return a, b")  # fmt: skip
    assert mine.run(lambda my: my.mean_and_interval([1.0, 2.0]), "5.2")[0] == 1.5
    assert "your 5.2 changes what it is given" in capsys.readouterr().out


def test_nan_is_right_where_it_is_the_course_s_too_and_arrays_are_lists():
    nan = float("nan")
    assert jobs._alike({1: [nan, torch.tensor([nan])]}, {1: [nan, torch.tensor([nan])]})
    assert jobs._alike(torch.ones(2).numpy(), [1.0, 1.0])
    assert not jobs._alike(torch.ones(2).numpy(), 1.0)


def test_the_line_that_is_named_is_the_file_s_as_it_is_now(file, capsys):
    for wrong in ("wrong = d // 0", "worse = 1\n    wrong = m // 0"):
        put(file, "1.3", f"def count_parameters(d, m):\n    {wrong}\n    return 2 * d * m + d + m")
        mine.run(lambda my: my.count_parameters(8, 3), "1.3")
        assert f"`{wrong.splitlines()[-1].strip()}`" in capsys.readouterr().out


def test_an_error_that_cannot_be_shown_is_named(file, capsys):
    mute = "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\n\n\n"
    put(file, "1.3", f"{mute}def count_parameters(d, m):\n    raise Mute")
    assert mine.run(lambda my: my.count_parameters(8, 3), "1.3") == 59
    assert "your 1.3 raised Mute: what cannot be shown, in line" in capsys.readouterr().out


def test_an_answer_that_sleeps_is_ended(file, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "_STUCK", 1.0)
    put(file, "1.3", "import time\n\n\ndef count_parameters(d, m):\n    time.sleep(40)")
    start = time.monotonic()
    assert mine.run(lambda my: my.count_parameters(384, 128), "1.3") == 98_816
    assert time.monotonic() - start < 20
    assert "your 1.3 has been at one call for 1 seconds, in line" in capsys.readouterr().out


def test_an_answer_that_hangs_is_ended(file, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "_STUCK", 2.0)
    put(file, "1.3", "def count_parameters(d, m):\n    while m > 100:\n        d += 0\n    return 2 * d * m + d + m")
    assert mine.run(lambda my: my.count_parameters(384, 128), "1.3") == 98_816
    assert "your 1.3 has been at one call for 2 seconds, in line" in capsys.readouterr().out


def test_a_cell_that_an_answer_calls_may_take_long(file, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "_STUCK", 1.0)
    put(file, "6.4", "def orderly_sweep(build, train, widths, seeds):\n    return {m: [train(m, 0)] for m in widths}")
    cell = {"__name__": "__main__"}
    exec("import time\n\ndef train(model, seed):\n    time.sleep(3.5)\n    return 1.0", cell)
    assert mine.run(lambda my: my.orderly_sweep(None, cell["train"], [2], [0]), "6.4") == {2: [1.0]}
    assert "at one call" not in capsys.readouterr().out


def test_an_answer_whose_fault_shows_elsewhere_is_named(file, capsys):
    put(file, "1.2", "def start_as_identity(adapter):\n    adapter.up_project = None")

    def job(my):
        adapter = my.Adapter(4, 2)
        my.start_as_identity(adapter)
        return adapter.up_project.weight.abs().sum().item()

    assert mine.run(job, "1.1", "1.2") == 0
    assert "your 1.2 stopped with AttributeError" in capsys.readouterr().out


def test_a_fault_of_the_lesson_s_own_is_not_put_on_the_learner(file):
    with pytest.raises(ZeroDivisionError):
        mine.run(lambda my: 1 / 0, "1.3")
    put(file, "1.3", COUNT)
    with pytest.raises(ZeroDivisionError):
        mine.run(lambda my: 1 / 0, "1.3")


def test_an_interrupt_ends_the_job(file):
    def job(my):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine.run(job, "1.3")


def test_all_pieces_share_one_adapter(file):
    put(file, "1.1", CLASS.replace("return h", "self.seen = True\n        return h") + "\n\n\nAdapter = MyAdapter")
    my = in_use("1.1", "3.2")
    model = torch.nn.Module()
    model.base, model.head, model.adapter = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), my.Adapter(2, 1)
    my.train_only_adapters(model)
    assert [p.requires_grad for p in model.parameters()] == [False] * 2 + [True] * 6
    model.adapter(torch.ones(1, 2))
    assert model.adapter.seen


def test_the_course_s_own_answers_need_no_course(tmp_path):
    assert len(exercises()) == 49
    assert not [line for line in reference().imports.values() if "adapters_lesson" in line]
    names = set(map(public_name, exercises()))
    assert len(names) == 49
    tree = ast.parse(reference().text())
    assert names <= {n.name for n in tree.body if hasattr(n, "name")} | {"Adapter", "mean_and_interval"}
