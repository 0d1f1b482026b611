"""The machinery of `make lab-speed`, on made-up times: no timing is tested here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import lab_speed

ROOT = Path(__file__).parents[1]


@pytest.fixture
def results():
    """Two explorers, one of them with late pictures, and a laboratory of which one Stop was late."""
    quick, late = [50.0] * 40, [60.0] * 36 + [400.0] * 4
    seconds = dict(zip(lab_speed.LIMITS, ([1.0, 1.4], [20.0], [0.2, 0.6]), strict=True))
    return {
        "explorers_ms": {"quick_explorer": quick, "late_explorer": late},
        "laboratory_s": seconds,
        "microscope_ms": [50.0, 59.0, 400.0],
        "training": {"with": [11.1, 11.0, 11.2], "without": [10.0, 9.0, 10.2], "pictures a second": [4.0, 5.0, 9.0]},
        "playground_per_s": [30.0, 31.0],
        "dial_ms": [3.0, 4.0, 5.0],
    }


def test_median_95_percent_and_the_longest_are_held_against_their_targets(results):
    found = {row.name: (row.value, "NOT MET" not in row.verdict, row.unit) for row in lab_speed.rows(results)}
    assert found["microscope: key press to the new picture, median"] == (59, True, "ms")
    assert found["microscope: pictures while training on small steps, median"] == (5, True, "/s")
    assert found["training with the microscope / without, medians"] == (1.11, False, "")
    assert found["quick explorer: key press to changed picture, median"] == (50, True, "ms")
    assert found["late explorer: key press to changed picture, median"] == (60, True, "ms")
    assert found["late explorer: key press to changed picture, 95 %"] == (400, False, "ms")
    assert found["laboratory: click on Run to first point, longest"] == (1.4, True, "s")
    assert found["laboratory: click on Run to final accuracy, longest"] == (20, True, "s")
    assert found["laboratory: click on Stop to its end, longest"] == (0.6, False, "s")


def test_the_table_says_which_targets_are_met(results):
    text = lab_speed.table(lab_speed.rows(results))
    assert text.splitlines()[-1] == "7 of 10 targets met"
    assert [line.split()[0] for line in text.splitlines() if "NOT MET" in line] == ["training", "late", "laboratory:"]
    without = [line for line in text.splitlines() if line.endswith("no target")]
    assert [line.split()[-4:-2] for line in without] == [["30.5", "/s"], ["4", "ms"]]


def test_a_target_that_is_the_least_is_missed_from_below(results):
    results["training"]["pictures a second"] = [4.0, 4.9, 5.0]
    (row,) = (row for row in lab_speed.rows(results) if "while training" in row.name)
    assert row.verdict == "at least 5 /s  NOT MET"
    assert lab_speed.per_second([0.0, 100.0, 400.0]) == 5.0
    assert lab_speed.per_second([0.0]) == lab_speed.per_second([]) == 0.0


def test_what_it_runs_in_the_kernel_fits_the_package():
    """Its cells are texts, which no type checker reads."""
    names = {}
    exec(lab_speed.FLOOR, names)
    assert len(set(names["READY"])) == 2
    exec(lab_speed.MICROSCOPE.removesuffix("microscope\n") + lab_speed.TRAINING.replace("True, 4", "True, 2"), names)
    assert names["seconds"](True, 3, every=1, batch_size=2) > 0
    assert [frame["step"] for frame in names["microscope"].frames][-3:] == [1, 2, 3]


@pytest.mark.parametrize("script", ["docs/moving_picture.py", "tests/benchmarks/lab_speed.py", "tests/screenshots.py"])
def test_without_a_browser_one_sentence_says_what_to_install(script, tmp_path):
    answer = subprocess.run(
        [sys.executable, ROOT / script], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr == "there is no chromium here: sudo apt install chromium, or install Google Chrome\n"


def test_every_explorer_is_measured():
    assert {"anatomy_explorer", "cost_explorer", "routing_explorer"} <= set(lab_speed.EXPLORERS)


def test_the_way_through_the_browser_is_told_beside_them(results):
    assert lab_speed.floor({"ready_pictures_ms": [70.0] * 39 + [400.0]}).startswith(
        "a picture that is there already: median 70.0 ms, 95 % 70.0 ms"
    )
