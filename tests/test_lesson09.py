"""The claims of lesson 09, held against the committed results and the outputs of the executed notebook.

Times differ from machine to machine and from day to day: of those only what holds everywhere is asserted.
"""

import re

import pytest
from test_results import output

from adapters_lesson.history import load_results

LESSON = "09_the_price_at_inference"
NUMBER = r"([+-]?\d[\d.]*(?:e-?\d+)?)"


@pytest.fixture(scope="module")
def text():
    return output(LESSON)


def numbers(pattern, text):
    """All numbers that the pattern's N stand for, one row a match."""
    rows = re.findall(pattern.replace("N", NUMBER), text, re.MULTILINE)
    assert rows, pattern
    return [[float(x) for x in (row if isinstance(row, tuple) else (row,))] for row in rows]


def test_the_first_call_is_slow_and_single_times_are_skewed(text):
    ((first, usual, _, fastest, slowest),) = numbers(
        "first call N ms, then median N, mean N, fastest N, slowest N", text
    )
    assert first > 1.1 * usual
    assert slowest - usual > usual - fastest
    assert len(numbers("attempt \\d: B takes N % more than A", text)) == 5


def test_a_model_takes_as_long_as_itself(text):
    ((middle, half),) = numbers(r"^mean and 95 % interval: N ± N %$", text)
    assert abs(middle) < max(5, half)  # no difference, or next to none
    assert middle - half < 5
    assert middle + half > -5


def test_the_predicted_multiply_adds_are_those_counted_and_the_operations_are_as_stated(text):
    rows = re.findall(r"^(\w[\w ]*?) +([\d.]+) % +([\d.]+) % +\+(\d+) on (\d+)$", text, re.MULTILINE)
    assert all(predicted == counted for _, predicted, counted, _, _ in rows)
    assert {name: (int(more), int(bare)) for name, _, _, more, bare in rows} == {
        "bare": (0, 12),
        "Houlsby": (8, 12),
        "Pfeiffer": (5, 12),
        "parallel": (4, 12),
        "LoRA": (8, 12),
        "LoRA merged": (0, 12),
    }
    shares = {name: float(predicted) for name, predicted, *_ in rows}
    assert 1 < shares["Houlsby"] < 2
    assert shares["Pfeiffer"] == shares["parallel"] == shares["LoRA"] > shares["LoRA merged"] == 0


def test_merging_lora_keeps_the_output(text):
    ((changed, merging),) = numbers("LoRA changes the logits by up to N, merging changes them by up to N", text)
    assert changed > 0.01
    assert merging < 1e-5


def test_every_overhead_gets_a_verdict(text):
    """Above, below or unclear against the multiply-adds: as the intervals and the counts say, up to rounding."""
    cell = r" +[+-]\d+ \(([+-]\d+) – ([+-]\d+)\)"
    measured = re.findall(rf"^(\d+ × \d+) +[\d.]+{cell * 5}$", text, re.MULTILINE)
    verdicts = re.findall(r"^(\d+ × \d+)" + r" +(above|below|unclear)" * 5 + "$", text, re.MULTILINE)
    assert len(measured) == len(verdicts) == 7
    for (shape, *ends), (same, *words) in zip(measured, verdicts, strict=True):
        assert shape == same
        for low, high, word in zip(map(float, ends[::2]), map(float, ends[1::2]), words, strict=True):
            assert low > -1 or word != "above"
            assert high < 2 or word != "below"
            assert low < 2 or word == "above"


def test_a_linear_adapter_merges_and_one_with_gelu_does_not(text):
    change = {
        name: float(x) for name, x in re.findall(r"activation (\w+) +merged layer by layer: .* by (\S+) of", text)
    }
    assert change["identity"] < 1e-5
    assert change["gelu"] > 0.01


def test_the_merged_model_is_judged_on_the_same_sentences(text):
    shown = numbers(r"^(?:with its adapters|adapters [\w ]+?) +N % +N ± N points$", text)
    assert len(shown) == 3
    for accuracy, more, half in shown:
        assert more == pytest.approx(accuracy - shown[0][0], abs=0.11)
        assert half < 5


def test_adapterdrops_verdicts_are_those_of_the_runs(text):
    runs = load_results("adapterdrop")["rows"]["specialised"]["runs"]
    by_n = [{run["seed"]: run["test"] for run in runs if run["dropped"] == n} for n in range(6)]
    assert all(sorted(seeds) == [0, 1, 2] for seeds in by_n)
    cell = r" +[\d.]+ % \([\d.]+ – [\d.]+\) (as good|unclear|worse|)"
    shown = re.findall(rf"^n = (\d) {cell} *{cell} *{cell} *$", text, re.MULTILINE)
    assert [n for n, *_ in shown] == list("012345")
    assert shown[0][1:] == ("", "", "")
    assert [verdict for *_, verdict in shown[1:]] == ["as good", "as good", "unclear", "worse", "worse"]


def test_leaving_out_adapters_saves_time_and_sharing_saves_what_the_count_predicts(text):
    rows = dict(re.findall(rf"^n = (\d) +[\d.]+ ms, +{NUMBER} ± [\d.]+ %$", text, re.MULTILINE))
    assert len(rows) == 6
    assert float(rows["5"]) < float(rows["0"])
    assert text.count("the same as each task on its own with those adapters dropped: True") == 2
    shared = numbers(r"^n = \d +[\d.]+ +N % \(N – N\) +N %$", text)
    assert len(shared) == 6
    for measured, low, high, predicted in shared:
        assert low <= measured <= high
        assert abs(measured - predicted) < 12
    assert shared[5][3] == pytest.approx(100 * ((5 + 8) / 48 - 1), abs=0.6)
