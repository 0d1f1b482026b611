"""Predictions: committed once, before the result, and compared with it in one line."""

import json

import numpy
import pytest
import torch

from adapters_lesson.course import predictions, record
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.record import progress


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A new kernel in the folder of a notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(record, "_unsaved", {})
    monkeypatch.setattr(predictions, "_compared", set())
    monkeypatch.setattr(predictions, "_said", {})
    monkeypatch.setattr(predictions, "_asked", {})
    return tmp_path / "progress.json"


def kept(file):
    return json.loads(file.read_text(encoding="utf-8"))["predictions"]


def press(panel, label):
    """Press the button with this text."""
    (found,) = [one for one in [*panel.options, panel.commit_button] if one.description == label]
    found.click()


def test_an_option_is_committed_once_and_compared(file, capsys):
    panel = prediction("1b", "Which?", ["up", "down"])
    press(panel, "up")
    assert "Committed: up" in panel.status.value
    panel.commit("down")
    assert kept(file)["1b"]["said"] == "up"
    compare("1b", "down")
    assert capsys.readouterr().out == "✘ you predicted up, it is down\n"
    assert kept(file)["1b"] == {"said": "up", "question": "Which?", "was": "down", "right": False, "off": 1.0}


@pytest.mark.parametrize(
    ("typed", "how", "was", "mark"),
    [
        ("30", {"within": 10}, 34.2, "✔"),
        ("30", {"within": 2}, 34.2, "✘"),
        ("1,000", {"factor": 2}, 1900, "✔"),
        ("1,000", {"factor": 2}, 2100, "✘"),
        ("0,5", {"within": 0.1}, 0.5, "✔"),
        ("1,000,000", {"within": 1}, 1_000_000, "✔"),
        ("\u22122", {"within": 1}, -2, "✔"),
        ("1e-300", {"factor": 2}, 1e300, "✘"),
        ("1e300", {"factor": 2}, 1e-300, "✘"),
        ("2", {"within": 1}, torch.tensor(2.0), "✔"),
        ("2", {"within": 1}, numpy.float64(2.5), "✔"),
        ("50 %", {"within": 5, "unit": " %"}, 55, "✔"),
        ("-3", {"factor": 2}, 3, "✘"),
        ("0", {"factor": 2}, 3, "✘"),
    ],
)
def test_a_number_is_right_within_its_tolerance(typed, how, was, mark, capsys):
    panel = prediction("1a", "How many?", **how)
    panel.field.value = typed
    press(panel, "Commit")
    compare("1a", was)
    assert capsys.readouterr().out.startswith(f"{mark} you predicted ")


@pytest.mark.parametrize("typed", ["", "many", "nan", "inf", "1 2"])
def test_what_is_no_number_is_not_committed(typed, file):
    panel = prediction("1a", "How many?", within=1)
    panel.field.value = typed
    press(panel, "Commit")
    assert "is no number" in panel.status.value
    assert not file.exists()


def test_without_a_prediction_the_lesson_goes_on(file, capsys):
    panel = prediction("1a", "How many?", within=1, unit=" %")
    compare("1a", 34.25)
    assert capsys.readouterr().out == "○ not predicted; it is: 34.25 %\n"
    panel.commit(34)
    assert "does not count" in panel.status.value
    assert not file.exists()


def test_what_was_committed_in_another_session_is_shown_again(file):
    prediction("1a", "How many?", within=1).commit(3)
    again = prediction("1a", "How many?", within=1)
    assert "Committed: 3" in again.status.value
    assert again.commit_button.disabled


def test_progress_says_how_often_one_was_right_and_what_surprised_most(file):
    for key, said, was in (("1a", 10.0, 11), ("1b", 10.0, 90), ("2a", 10.0, 40)):
        prediction(key, f"How many in {key}?", within=2).commit(said)
        compare(key, was)
    text = repr(progress())
    assert '1 of 3 predictions were right; the greatest surprise: "How many in 1b?" You said 10.0, it is 90.' in text


def test_a_file_of_version_0_7_is_still_read(file):
    file.write_text(
        json.dumps({"course": "adapters_lesson", "version": 1, "exercises": {"1.1": "done"}, "quizzes": {}})
    )
    prediction("1a", "How many?", within=1).commit(3)
    assert record.known()["exercises"] == {"1.1": "done"}
    assert kept(file)["1a"]["said"] == 3


def test_two_kernels_keep_the_first_prediction():
    old, new = ({**record._NOTHING, "predictions": {"1a": {"said": said}}} for said in (1, 2))
    assert record._merged(old, new)["predictions"]["1a"]["said"] == 1


def test_a_result_may_come_where_nothing_was_asked(file, capsys):
    compare("1a", 34.25)
    assert capsys.readouterr().out == "○ not asked in this session; it is: 34.25\n"


def test_a_result_that_is_a_number_of_numpy_is_kept(file):
    prediction("1a", "How many?", within=1).commit(3)
    compare("1a", numpy.float64(3.5))
    assert kept(file)["1a"]["right"] is True


@pytest.mark.parametrize("one", ["said", {"said": 1, "right": True}])
def test_a_damaged_prediction_is_left_as_it_is(file, one):
    file.write_text(json.dumps({"course": "adapters_lesson", "version": 1, "predictions": {"1a": one}}))
    assert "or altered" in repr(progress())


def test_a_result_that_is_no_option_is_told_in_a_line_and_not_counted(file, capsys):
    prediction("1b", "Which?", ["up", "down"]).commit("up")
    compare("1b", "left")
    assert capsys.readouterr().out == "○ you predicted up; it is left, none of the options: up, down\n"
    assert kept(file) == {"1b": {"said": "up", "question": "Which?"}}


def test_a_prediction_without_a_way_to_judge_it_is_refused():
    with pytest.raises(ValueError, match="a prediction wants options, or within, or factor"):
        prediction("1c", "Which?")


def test_where_no_progress_is_kept_a_prediction_is_compared_within_the_kernel(file, monkeypatch, capsys):
    monkeypatch.setenv(record.VARIABLE, "")
    prediction("1a", "How many?", within=2).commit(0)
    again = prediction("1a", "How many?", within=2)
    assert "Committed: 0" in again.status.value
    again.commit(30)
    compare("1a", 1)
    assert capsys.readouterr().out == "✔ you predicted 0, it is 1\n"
    assert not file.exists()
    assert "predictions were right" not in repr(progress())


def test_what_is_committed_without_progress_does_not_come_back_with_it(file, monkeypatch, capsys):
    monkeypatch.setenv(record.VARIABLE, "")
    prediction("1a", "How many?", within=2).commit(3)
    monkeypatch.delenv(record.VARIABLE)
    compare("1a", 3)
    assert capsys.readouterr().out == "○ not predicted; it is: 3\n"
