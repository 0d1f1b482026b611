"""The claims of lesson 08, held against the committed results and the outputs of the executed notebook."""

import re

import pytest
from test_results import output

from adapters_lesson.history import load_results

LESSON = "08_many_tasks_one_model"


@pytest.fixture(scope="module")
def text():
    return output(LESSON)


def number(written):
    return float(written.replace(",", ""))


def rows(pattern, text, count):
    found = re.findall(pattern, text, re.MULTILINE)
    assert len(found) == count, pattern
    return found


def test_the_formula_is_what_memory_and_files_take(text):
    ((copies, copies_on_disk),) = rows(r"^full copies +([\d,]+) +([\d,]+)$", text, 1)
    ((shared, in_memory, on_disk),) = rows(r"^one base, adapters +([\d,]+) +([\d,]+) +([\d,]+)$", text, 1)
    assert shared == in_memory
    for predicted, files in ((copies, copies_on_disk), (shared, on_disk)):
        assert 1 <= number(files) / number(predicted) < 1.002  # larger by a little
    shares = {int(n): float(share) for n, share in rows(r"^ +(\d+) +[\d.,]+ MB +[\d.,]+ MB +([\d.]+) %$", text, 5)}
    assert shares[1] > 100 > shares[2] > shares[8] > shares[100] > shares[1000]
    ((whole, own),) = rows(r"a further task: ([\d.]+) MB or ([\d.]+) MB", text, 1)
    assert float(whole) > 200 * float(own)


def test_no_task_changes_an_earlier_one(text):
    accuracy = dict(rows(r"^(\w+) +\d+ +[\d,]+ +([\d.]+) % +True$", text, 3))
    assert float(accuracy["sentiment"]) >= 95
    assert float(accuracy["film"]) >= 70
    assert float(accuracy["aspect"]) >= 99
    assert len(rows(r"loaded, its answers are the same, bit for bit: True", text, 3)) == 3
    assert rows(r"^(\w+): answers as when just trained: True", text, 2) == ["sentiment", "film"]


def test_every_load_that_should_be_refused_is(text):
    assert len(rows(r"the model is as it was: True", text, 5)) == 5
    for message in (
        "another base model, of the same shape but with other weights",
        "layers=3, and this one has 2",
        "cannot name an adapter",
        "its checksum is wrong",
        "is no safetensors file, or damaged",
    ):
        assert message in text


def test_a_switch_is_quick_and_an_adapters_file_is_not_quicker_than_a_models(text):
    ms = {label: float(x) for label, x in rows(r"^(a switch|an adapter's file|a model's file) +([\d.]+) ms", text, 3)}
    assert ms["a switch"] < 1
    assert ms["an adapter's file"] > ms["a model's file"] > 10 * ms["a switch"]


def test_the_learners_pieces_serve_the_bank_as_its_own_do(text):
    assert rows(r"^switched to (\w+) +its own answers, bit for bit: True$", text, 4)
    assert len(re.findall(r"^row +\d+ to \w+ +answers \w+", text, re.M)) > 8
    (apart,) = rows(r"^largest difference from the rows one by one: (\S+)$", text, 1)
    assert float(apart) < 1e-4
    (apart,) = rows(r"^your mixture and the bank's differ by (\S+) at most$", text, 1)
    assert float(apart) < 1e-4


def test_the_gains_are_the_accuracies_differences(text):
    shown = r"^(\w[\w ,]+?) +([\d.]+) % +([+-][\d.]+) ± [\d.]+ +([\d.]+) % +([+-][\d.]+) ± [\d.]+ *$"
    twice = rows(shown, text, 11)  # the second time with the fusion
    found = {label: [float(x) for x in numbers] for label, *numbers in twice}
    assert found.keys() > {"sentiment alone", "film alone", "sentiment, new head", "fused, 400 examples"}
    on_aspects, on_reviews = found["sentiment alone"][0], found["film alone"][2]
    for one, gained, other, also in found.values():
        assert one - on_aspects == pytest.approx(gained, abs=0.11)
        assert other - on_reviews == pytest.approx(also, abs=0.11)


def test_the_doctor_names_the_planted_fault_and_mending_it_helps(text):
    stuck, mended = rows(r"loss on the same 16 texts from ([\d.]+) to ([\d.]+)", text, 2)
    assert stuck[0] == stuck[1] == mended[0]
    assert float(mended[1]) < 0.5 * float(mended[0])
    rows(r"^1\. (the optimiser has 0 of 26 tensors that are to be trained)$", text, 1)
    rows(r"^(Nothing is wrong here\.)$", text, 2)  # then the model, and what is saved


def test_adapterhub_computes_the_same():
    result = load_results("adapterhub")
    assert result["rows"].keys() == {"houlsby", "pfeiffer", "parallel"}
    for row in result["rows"].values():
        assert row["largest_difference"] < 1e-4
        assert row["largest_difference_after_coming_back"] < 1e-4
        assert row["largest_change_by_the_adapters"] > 0.1
        assert row["answers_that_differ"] == 0


def test_an_adapter_in_adapterhubs_files_is_read_again_as_it_was(text):
    assert "read again, the features are the same, bit for bit: True" in text
    assert "24 tensors" in text


def test_the_verdicts_on_the_combined_are_those_of_the_runs(text):
    fusion = load_results("many_tasks")["fusion"]
    row = r"^(\w[\w ,]+?) +[\d,]+ +[\d.]+ % \([\d.]+ – [\d.]+\).*?(as good|unclear|worse|) *$"
    shown = rows(row, text, len(fusion["rows"]))
    assert [label for label, _ in shown] == list(fusion["rows"])
    assert [label for label, verdict in shown if not verdict] == [f"{fusion['stacked_on']}, new head"]
