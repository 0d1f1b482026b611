"""The hidden tests in the sources: every right answer passes them, and most of the wrong ones do not."""

import ast
import importlib
import re
import runpy
from functools import cache
from pathlib import Path

import jupytext
import pytest
import torch

SOURCES = Path(__file__).parents[1] / "notebooks" / "sources"
HIDDEN = runpy.run_path(str(SOURCES.parent / "build.py"))["HIDDEN"]
CALL = re.compile(r"^checks\.(check_\w+)\((\w+)\)", re.MULTILINE)
WITH_EXERCISES = [p for p in sorted(SOURCES.glob("[0-9]*.py")) if CALL.search(p.read_text())]


class Exercise:
    """What a source has about one exercise: the check's name, the learner's, the solved stub and the hidden tests."""

    def __init__(self, lesson, cells, place):
        self.lesson, self.stub = lesson, cells[place - 1]
        self.check, self.name = CALL.search(cells[place]).groups()
        found = HIDDEN.search(cells[place] + "\n")
        self.hidden = found[0] if found else ""
        self.imports = [
            node for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]

    def namespace(self):
        """Those of the lesson's imports that the two cells use, and torch; the rest would take long."""
        used = {node.id for node in ast.walk(ast.parse(self.stub + self.hidden)) if isinstance(node, ast.Name)}
        names = {"torch": torch, "nn": torch.nn}
        for node in self.imports:
            node.names = [name for name in node.names if (name.asname or name.name.split(".")[0]) in used]
        exec(compile(ast.Module([n for n in self.imports if n.names], []), "<imports>", "exec"), names)
        return names

    def passes(self, answer=None):
        """Run the hidden tests on an answer, or on the source's own; returns the names that they leave behind."""
        names = self.namespace()
        torch.manual_seed(0)
        if answer is None:
            exec(compile(self.stub, "<stub>", "exec"), names)
        else:
            names[self.name] = answer
        before = set(names)
        exec(compile(self.hidden, f"<hidden tests of {self.check}>", "exec"), names)
        return set(names) - before

    def refuses(self, answer):
        """Whether the hidden tests fail for an answer, for whatever reason."""
        try:
            self.passes(answer)
        except Exception:
            return True
        return False

    def answers(self, kind):
        """The wrong or the right answers of the collection."""
        module = importlib.import_module(f"wrong_answers.lesson{self.lesson}")
        return getattr(module, kind).get(self.check, [])


@cache
def exercises():
    found = []
    for path in WITH_EXERCISES:
        cells = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
        found += [Exercise(path.stem[:2], cells, place) for place, cell in enumerate(cells) if CALL.search(cell)]
    return found


CASES = [pytest.param(exercise, id=f"{exercise.lesson}-{exercise.check}") for exercise in exercises()]


@pytest.mark.parametrize("exercise", CASES)
def test_an_exercise_has_hidden_tests_that_say_what_they_look_at(exercise):
    assert exercise.hidden, "no hidden tests"
    asserts = [node for node in ast.walk(ast.parse(exercise.hidden)) if isinstance(node, ast.Assert)]
    assert 1 <= len(asserts) <= 4
    assert all(node.msg is not None for node in asserts)


@pytest.mark.parametrize("exercise", CASES)
def test_the_source_s_own_solution_passes_the_hidden_tests(exercise):
    exercise.passes()


@pytest.mark.parametrize("exercise", CASES)
def test_every_right_answer_passes_the_hidden_tests(exercise):
    for answer in exercise.answers("RIGHT"):
        exercise.passes(answer)


@pytest.mark.parametrize("exercise", CASES)
def test_at_least_half_of_the_wrong_answers_fail_the_hidden_tests(exercise):
    wrong = [entry[0] for entry in exercise.answers("WRONG")]
    assert wrong
    refused = sum(map(exercise.refuses, wrong))
    assert refused >= len(wrong) / 2, f"{refused} of {len(wrong)}"


@pytest.mark.parametrize("exercise", CASES)
def test_hidden_tests_leave_no_names_that_a_later_cell_could_trip_over(exercise):
    imported = {a.asname or a.name for n in ast.parse(exercise.hidden).body if hasattr(n, "names") for a in n.names}
    assert all(name.startswith("_") for name in exercise.passes() - imported)
