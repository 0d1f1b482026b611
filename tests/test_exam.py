"""Exams: drawn by a seed, right in themselves, and not answered by what is public."""

import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "classroom"))
import exam

SEEDS = range(4)
every_variant = pytest.mark.parametrize("number", exam.VARIANTS)
drawn = cache(exam.draw)


def test_there_are_twenty_and_all_stand_in_the_sources():
    assert len(exam.VARIANTS) == 20
    made = exam.exam(3)
    assert [one.number for one in made.exercises] == list(exam.VARIANTS)
    assert made == exam.exam(3) != exam.exam(4)
    assert exam.exam(3, ["4.1"]).cells[2:] == made.cells[14:17]  # an exercise is the same whatever is beside it


@every_variant
def test_a_seed_draws_the_same_again_and_others_draw_others(number):
    assert exam.draw(number, 0) == drawn(number, 0)
    for a, b in pairwise(SEEDS):
        assert drawn(number, a).hidden != drawn(number, b).hidden
    assert len({drawn(number, seed).card for seed in SEEDS}) > 1


@every_variant
@pytest.mark.parametrize("seed", SEEDS)
def test_the_solution_passes_and_the_public_answer_and_the_faulty_one_fail(number, seed):
    one = drawn(number, seed)
    names = exam.run(one.answer, one.shown, one.hidden)
    assert one.function in names
    for tests in (one.shown, one.hidden):
        assert exam.fails(one.public, tests)
        if one.faulty:
            assert exam.fails(f"{one.faulty}\n{one.function} = by_a_colleague", tests)
    stands_alone = one.card + one.shown + one.answer + one.hidden
    assert not re.search(r"\$[a-z{]", stands_alone), "a word was not drawn"
    assert "SOLUTION" in one.answer and "_alone" not in one.shown


@pytest.mark.parametrize("number", [one.number for one in exam.PLANTS])
@pytest.mark.parametrize("seed", SEEDS)
def test_each_fault_of_a_plant_fails_by_itself(number, seed):
    one, variant = drawn(number, seed), exam.VARIANTS[number]
    sound, words = exam._bare(one.answer), {}
    for options in variant.knobs:  # the option that was drawn
        words |= next((o for o in options if exam._filled(variant.write, words | o) in one.card), options[0])
    tried = 0
    for fault in variant.planted:
        try:
            code = exam._edited(sound, fault, words, number)
        except ValueError:
            continue
        tried += code != sound
        assert code == sound or exam.fails(code, one.hidden), fault
    assert tried >= variant.faults


# --- What is right, computed in another way ---------------------------------------------------------------------------


def each(number):
    """What was drawn, with its function and what its card says."""
    for seed in range(8):
        one = exam.draw(number, seed)
        yield exam.run(one.answer)[one.function], one.card


def test_an_adapters_parameters_are_those_of_its_modules():
    more = {
        "over its input": lambda d, m: torch.nn.LayerNorm(d),
        "over its bottleneck": lambda d, m: torch.nn.LayerNorm(m),
        "one trained number": lambda d, m: torch.nn.Linear(1, 1, bias=False),
        "a third one": lambda d, m: torch.nn.Linear(m, m, bias=False),
    }
    for count, card in each("1.3"):
        d, m = 20, 6
        (extra,) = (made(d, m) for words, made in more.items() if words in card)
        parts = [
            torch.nn.Linear(d, m, bias="in `down_project`" in card),
            torch.nn.Linear(m, d, "in `up_project`" in card),
        ]
        assert count(d, m) == sum(p.numel() for part in (*parts, extra) for p in part.parameters()), card


def test_the_factors_of_the_intervals_are_students_and_the_normal_ones():
    from scipy import stats

    for interval, card in each("5.2"):
        level = int(re.search(r"(\d+) % interval", card)[1]) / 100
        for values in ([0.9, 0.96, 0.93], [1.0, 2.0, 3.0, 6.0], [5.0, 3.0]):
            mean, error = sum(values) / len(values), stats.sem(values)
            ends = stats.t.interval(level, len(values) - 1, mean, error)
            right = ends if "upper end" in card else (mean, (ends[1] - ends[0]) / 2)
            assert interval(values) == pytest.approx(right, rel=1e-3)
    for difference, card in each("7.3"):
        level = float(re.search(r"([\d.]+) %\s+interval", card)[1]) / 100
        a, b = torch.arange(50) < 30, torch.arange(50) % 3 > 0
        _, half = difference(a, b)
        times = 100 if "percentage" in card else 1
        std = (a.float() - b.float()).std().item()
        assert half == pytest.approx(times * stats.norm.ppf((1 + level) / 2) * std / 50**0.5, rel=1e-3)


def test_the_widest_and_the_largest_are_found_by_trying():
    for widest, card in each("1.4"):
        k, classes = (int(re.search(text, card)[1]) for text in (r"multiple of (\d+)", r"to (\d+)\s+classes"))
        for d, n, budget in ((30, 3, 9_000), (64, 2, 40_000), (10, 4, 100)):
            fits = [m for m in range(0, 999, k) if m and n * (2 * d * m + m + d) + classes * (d + 1) <= budget]
            assert widest(d, n, budget) == max(fits, default=0)
    for largest, card in each("11.3"):
        k, shapes = int(re.search(r"multiple of (\d+)", card)[1]), [(8, 24), (40, 16)]
        more = 48 if "DoRA" in card else 0
        for budget in (30, 700, 5000):
            fits = [r for r in range(k, 200, k) if more + r * 88 <= budget]
            assert largest(shapes, budget) == max(fits, default=0)


# --- The command -----------------------------------------------------------------------------------------------------


def test_an_exercise_without_a_variant_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["exam.py", "7", "1.1", "--into", str(tmp_path / "class")])
    assert exam.main() == 1
    assert capsys.readouterr().err.startswith("1.1 has no variant: there are 1.3, 1.4, 2.2")
    assert not (tmp_path / "class").exists()


def test_a_source_that_has_changed_is_named_with_what_its_variant_needs():
    with pytest.raises(ValueError, match=r"exercise 1\.3: its source has `2 \* d` 0 times"):
        exam._edited("return 3 * d", (("2 * d", "4 * d"),), {}, "1.3")
