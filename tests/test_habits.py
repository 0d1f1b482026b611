"""What people do, and what must come out of it: the rows of tests/habits."""

import inspect
import warnings

import pytest
from habits import rows
from habits.table import table


@pytest.mark.parametrize(("room", "habit"), [pytest.param(*row, id=f"{row[0]}: {row[1].what}") for row in rows()])
def test_what_people_do(room, habit, tmp_path):
    own = [tmp_path] if "folder" in inspect.signature(habit.call).parameters else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        habit.outcome.check(lambda: habit.call(*own))


def test_no_row_is_there_twice():
    what = [(room, habit.what) for room, habit in rows()]
    assert len(set(what)) == len(what)


def test_the_table_counts_every_row():
    assert table().splitlines()[-1].split()[-1] == str(len(rows()))
