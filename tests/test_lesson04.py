"""What lesson 04 has printed, and what its explorer shows; claims.py judges its claims."""

import re

import pytest
import torch
from test_results import output

from adapters_lesson import AdapterConfig, prepare
from adapters_lesson.costs import memory_ledger, outline

TEXT = output("04_counting_the_cost")


def test_the_count_of_the_exercise_is_the_models_own():
    assert re.search(r"bert-base +109,482,240 +2,379,264", TEXT)
    rows = re.findall(r"^\S+ +[\d,]+ +([\d,]+) +([\d,]+) +([\d.]+) %$", TEXT, re.M)
    assert len(rows) == 5
    assert all(formula == counted for formula, counted, _ in rows)
    assert re.search(r"^block 0 to 5, each +1,799,840", TEXT, re.M)
    assert "by formula: block 1,799,840, adapters 152,256" in TEXT
    shares = [float(share) for *_, share in rows]
    assert shares == sorted(shares, reverse=True)  # "the share falls as models grow"


def test_standing_bytes_differ_by_adams_step_counters_only():
    differences = [int(d) for d in re.findall(r"^\S.*?[\d,]{9,} +[\d,]{9,} +(\d+)$", TEXT, re.M)]
    assert len(differences) == 5
    assert all(0 < d < 2000 and d % 4 == 0 for d in differences)


def test_a_block_keeps_sixteen_units_and_a_frozen_one_three_quarters_of_it():
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)$", TEXT, re.M)
    assert len(rows) == 3
    for row in rows:
        batch, length, d, *four = (int(number.replace(",", "")) for number in row)
        units = [number / (4 * batch * length * d) for number in four]
        assert max(abs(unit - 16) for unit in units[:2]) < 0.1
        assert max(abs(unit - 12 - 64 / d) for unit in units[2:]) < 0.1
    assert 74 <= int(re.search(r"keeps (\d+) % of the activations", TEXT)[1]) <= 78


def test_the_ledger_is_exact_and_activations_are_within_two_per_cent():
    for entry in ("weights", "gradients", "optimizer state"):
        assert re.findall(rf"^{entry} .* (\S+)$", TEXT, re.M) == ["none"] * 5
    assert float(re.search(r"largest difference in activations: ([\d.]+) %", TEXT)[1]) < 0.1
    peaks = re.findall(r"^peak +[\d,]+ +[\d,]+ +(\S+)", TEXT, re.M)
    assert len(peaks) == 5
    assert all(p == "none" or abs(float(p)) < 2 for p in peaks)


def test_upper_layers_and_checkpointing_shrink_the_activations():
    rows = re.findall(r"^(all six|upper three|top)[^\d]*([\d.]+) MB +([\d.]+) MB +([\d.]+) MB", TEXT, re.M)
    activations = [float(row[1]) for row in rows]
    peaks = [float(row[3]) for row in rows]
    assert len(rows) == 6
    assert activations[2] < 0.5 * activations[0]  # the upper three blocks: "more than half … are gone"
    assert activations[1] < 0.15 * activations[0]  # checkpointing
    assert peaks[5] > peaks[4]  # for the top block alone it gains nothing
    assert all(abs(float(row[2]) / float(row[1]) - 1) < 0.02 for row in rows)


def test_which_method_fits_where():
    rows = {
        label.strip(): re.findall(r"([\d.]+) → +(\d+ GB|none)", cells)
        for label, cells in re.findall(r"^(full fine-tuning|LoRA, r = 8|Houlsby, m = 64.*?)  +(.*→.*)$", TEXT, re.M)
    }
    assert len(rows) == 4
    llama = {label: cells[2] for label, cells in rows.items()}
    assert llama["full fine-tuning"][1] == "80 GB"
    assert llama["Houlsby, m = 64, checkpointing"][1] == "24 GB"
    assert float(llama["Houlsby, m = 64"][0]) < 0.5 * float(llama["full fine-tuning"][0])
    assert rows["LoRA, r = 8"][3][1] == "none"


@pytest.mark.slow
def test_what_there_is_to_see_in_the_explorer():
    """The first two answers in the fold below it."""

    def peak(method, length, m=64, checkpointing=False):
        model = outline("llama-3-8b", num_labels=2)
        prepare(model, method, AdapterConfig(m) if method == "adapter" else None)
        return memory_ledger(model, 4, length, dtype=torch.bfloat16, checkpointing=checkpointing).peak

    long = peak("adapter", 8192)
    assert abs(peak("adapter", 16) / peak("full", 16) - 0.25) < 0.02  # "from a quarter …"
    assert 2 / 3 < long / peak("full", 8192) < 0.75  # "… to more than two thirds"
    assert 0 < 1 - peak("adapter", 8192, m=1) / long < 0.01
    assert 1 - peak("adapter", 8192, checkpointing=True) / long > 0.8
