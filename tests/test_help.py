"""More help with an exercise: what an answer prints, numbers side by side, a puzzle, the stub again."""

import ast

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from adapters_lesson.course import help as more_help
from adapters_lesson.course.checks import lesson01
from adapters_lesson.course.help import puzzle, reset
from adapters_lesson.course.mine.shelf import exercises
from adapters_lesson.data import NOTEBOOKS


def test_what_an_answer_prints_is_shown():
    def answer(d, m):
        print("called with", d, m)
        return 2 * d * m

    assert "It printed:\ncalled with 384 16" in repr(lesson01.check_count(answer))


def test_what_an_endless_answer_prints_is_cut():
    def answer(d, m):
        for n in range(10_000):
            print("line", n)
        return 2 * d * m + d + m

    assert len(lesson01.check_count(answer).printed) <= 600


def test_a_mistake_made_for_the_third_time_gets_the_numbers_and_a_puzzle():
    reports = [lesson01.check_count(lambda d, m: 2 * d * m) for _ in range(3)]
    assert [bool(report.help) for report in reports] == [False, False, True]
    assert "d = 384, m = 16: yours 12,288, right 12,688" in reports[2].help
    assert 'puzzle("1.3")' in reports[2].help
    assert reports[2].message == reports[0].message


def test_another_mistake_is_counted_for_itself():
    lesson01.check_count(lambda d, m: 2 * d * m)
    lesson01.check_count(lambda d, m: 2 * d * m)
    assert not lesson01.check_count(lambda d, m: d * m).help


def test_tensors_are_shown_side_by_side_too():
    class Doubled(torch.nn.Module):
        def __init__(self, d, m):
            super().__init__()
            self.down_project, self.up_project = torch.nn.Linear(d, m), torch.nn.Linear(m, d)
            self.activation = torch.nn.GELU()

        def forward(self, h):
            return h + 3 * self.up_project(self.activation(self.down_project(h)))

    assert "a value: yours" in [lesson01.check_forward(Doubled) for _ in range(3)][2].help


def arrange(game, lines):
    """Have the puzzle's lines checked in this order; what is said of it."""
    left = list(range(len(game.lines)))
    game.order = [left.pop([game.lines[number] for number in left].index(line)) for line in lines]
    game.asked = game.order
    assert game.checked["order"] == game.order
    return game.checked


@pytest.mark.parametrize("exercise", exercises())
def test_every_solution_is_a_puzzle(exercise):
    game = puzzle(exercise)
    assert sorted(game.lines) == sorted(game.solution)
    assert game.lines != game.solution
    said = arrange(game, game.lines)
    assert not said["solved"]
    said = arrange(game, game.solution)
    assert said["solved"]
    assert set(said["marks"]) == {"fits"}
    assert said["said"] == "That is the solution."


def test_what_is_out_of_order_is_marked_and_what_is_laid_aside_is_counted():
    game = puzzle("5.1")
    head, unpack, zero, loss, backward, step, give = game.solution
    said = arrange(game, [head, unpack, zero, backward, loss, step, give])
    assert not said["solved"]
    assert said["marks"].count("moves") == 1
    assert said["said"] == "6 of 7 lines fit together. 1 in the wrong place."
    said = arrange(game, [head, unpack, loss, step])
    assert said["marks"] == ["fits"] * 4
    assert said["said"] == "4 of 7 lines fit together. 3 still laid aside."
    assert arrange(game, [])["said"] == "0 of 7 lines fit together. 7 still laid aside."


def test_a_number_is_an_exercise_too():
    assert puzzle(5.1).title == puzzle(" 5.1 ").title == "Puzzle 5.1"
    with pytest.raises(ValueError, match=r"there is no exercise \[5, 1\]: there are 0.1, "):
        puzzle([5, 1])


def test_another_order_that_the_check_finds_correct_is_one():
    game = puzzle("5.1")
    head, unpack, zero, loss, backward, step, give = game.solution
    said = arrange(game, [head, zero, unpack, loss, backward, step, give])
    assert said["solved"]
    assert set(said["marks"]) == {"fits"}
    assert said["said"] == "Another order than ours, and it works."


def test_the_learners_own_mistake_is_among_the_lines_and_the_stub_comes_back():
    shell = InteractiveShell.instance()
    try:
        shell.reset(new_session=True)
        shell.run_cell("def count_parameters(model_dim, bottleneck_dim):\n    return 2 * model_dim", store_history=True)
        game = puzzle("1.3")
        assert len(game.lines) == len(game.solution) + 1
        assert "One line comes from your own answer" in game.about
        said = arrange(game, [game.solution[0], "    return 2 * model_dim"])
        assert not said["solved"]
        assert said["marks"] == ["fits", "foreign"]
        assert "what would it do here? 1 still laid aside." in said["said"]
        reset("1.3")
        assert "raise NotImplementedError" in shell.rl_next_input
    finally:
        InteractiveShell.clear_instance()


def test_a_line_of_ones_own_that_is_no_mistake_belongs():
    shell = InteractiveShell.instance()
    try:
        shell.reset(new_session=True)
        mine = "    return bottleneck_dim + model_dim + 2 * bottleneck_dim * model_dim"
        shell.run_cell(f"def count_parameters(model_dim, bottleneck_dim):\n{mine}", store_history=True)
        game = puzzle("1.3")
        said = arrange(game, [game.solution[0], mine])
        assert said["solved"]
        assert said["said"] == "Another line than ours, and it works."
    finally:
        InteractiveShell.clear_instance()


def test_a_line_of_a_class_is_among_the_lines_too():
    shell = InteractiveShell.instance()
    try:
        shell.reset(new_session=True)
        shell.run_cell("class MyAdapter:\n    def forward(self, h):\n        return 7 * h", store_history=True)
        assert len(puzzle("1.1").lines) == len(puzzle("1.1").solution) + 1
    finally:
        InteractiveShell.clear_instance()


def test_a_notebook_opened_again_says_what_to_do():
    data, _ = puzzle("5.1")._repr_mimebundle_()
    assert data["text/plain"] == "Puzzle 5.1: run this cell to put the solution's lines in order."
    assert data["text/plain"] in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize(("exercise", "start"), [("1.1", "class MyAdapter"), ("5.2", "T95 = "), ("8.2", "def make_sw")])
def test_a_stub_that_was_solved_and_saved_comes_back(exercise, start, capsys, monkeypatch, tmp_path):
    for path in NOTEBOOKS.glob("[0-9]*.ipynb"):
        text = path.read_text(encoding="utf-8").replace("raise NotImplementedError", "return 1")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(more_help, "NOTEBOOKS", tmp_path)
    reset(exercise)
    stub = capsys.readouterr().out
    assert stub.startswith(start)
    assert "return" not in stub
    ast.parse(stub)


def test_outside_of_a_notebook_the_stub_is_printed(capsys):
    reset("1.3")
    assert "def count_parameters(model_dim: int, bottleneck_dim: int) -> int:" in capsys.readouterr().out


@pytest.mark.parametrize("ask", [puzzle, reset])
def test_an_exercise_that_there_is_not_is_refused(ask):
    with pytest.raises(ValueError, match=r"there is no exercise '9.9': there are 0.1, 1.1"):
        ask("9.9")
