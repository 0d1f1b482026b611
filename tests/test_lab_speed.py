"""The machinery of `make lab-speed`, on made-up times: no timing is tested here."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import lab_speed


@pytest.fixture
def results():
    """Two explorers, one of them with late pictures, and a laboratory of which one Stop was late."""
    quick, late = [50.0] * 40, [60.0] * 36 + [400.0] * 4
    seconds = dict(zip(lab_speed.LIMITS, ([1.0, 1.4], [20.0], [0.2, 0.6]), strict=True))
    return {"explorers_ms": {"quick_explorer": quick, "late_explorer": late}, "laboratory_s": seconds}


def test_median_95_percent_and_the_longest_are_held_against_their_targets(results):
    found = {name: (value, value <= limit, unit) for name, value, limit, unit in lab_speed.rows(results)}
    assert found["quick explorer: key press to changed picture, median"] == (50, True, "ms")
    assert found["late explorer: key press to changed picture, median"] == (60, True, "ms")
    assert found["late explorer: key press to changed picture, 95 %"] == (400, False, "ms")
    assert found["laboratory: click on Run to first point, longest"] == (1.4, True, "s")
    assert found["laboratory: click on Run to final accuracy, longest"] == (20, True, "s")
    assert found["laboratory: click on Stop to its end, longest"] == (0.6, False, "s")


def test_the_table_says_which_targets_are_met(results):
    text = lab_speed.table(lab_speed.rows(results))
    assert text.splitlines()[-1] == "5 of 7 targets met"
    assert [line.split()[0] for line in text.splitlines() if "NOT MET" in line] == ["late", "laboratory:"]


def test_every_explorer_is_measured():
    assert {"anatomy_explorer", "cost_explorer", "routing_explorer"} <= set(lab_speed.EXPLORERS)


def test_the_way_through_the_browser_is_told_beside_them(results):
    assert lab_speed.floor({"ready_pictures_ms": [70.0] * 39 + [400.0]}).startswith(
        "a picture that is there already: median 70.0 ms, 95 % 70.0 ms"
    )
