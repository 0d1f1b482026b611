"""The hidden tests in the sources: every right answer passes them, and most of the wrong ones do not."""

import ast

import pytest
import torch
from wrong_answers import cards, exercises

ANSWERS = {exercise.number: exercise for exercise in exercises()}
every_card = pytest.mark.parametrize("card", cards(), ids=str)


def passes(card, answer=None):
    """Run the hidden tests on an answer, or on the source's own; returns the names that they leave behind."""
    code, hidden = card.solved, card.cell.hidden
    names = {"torch": torch, "nn": torch.nn} | card.namespace(f"{code}\n{hidden}")
    torch.manual_seed(0)
    if answer is None:
        exec(compile(code, "<solution>", "exec"), names)
    else:
        names[card.cell.check[1]] = answer
    before = set(names)
    exec(compile(hidden, f"<hidden tests of {card}>", "exec"), names)
    return set(names) - before


def refuses(card, answer):
    """Whether the hidden tests fail for an answer, for whatever reason."""
    try:
        passes(card, answer)
    except Exception:
        return True
    return False


@every_card
def test_the_solution_passes_and_leaves_no_names_that_a_later_cell_could_trip_over(card):
    imported = {a.asname or a.name for n in ast.parse(card.cell.hidden).body if hasattr(n, "names") for a in n.names}
    assert all(name.startswith("_") for name in passes(card) - imported)


@every_card
def test_every_right_answer_passes_the_hidden_tests(card):
    for answer in ANSWERS[str(card)].right:
        passes(card, answer)


@every_card
def test_at_least_half_of_the_wrong_answers_fail_the_hidden_tests(card):
    wrong = [entry.answer for entry in ANSWERS[str(card)].wrong]
    refused = sum(refuses(card, answer) for answer in wrong)
    assert refused >= len(wrong) / 2, f"{refused} of {len(wrong)}"
