"""The claims of lesson 06, held against the committed runs of the laboratory."""

import re
from pathlib import Path
from statistics import mean

import pytest

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.costs import count_parameters
from adapters_lesson.experiments import SWEEPS, VALIDATE_EVERY, VALIDATION_TEXTS, Settings
from adapters_lesson.history import load_results
from adapters_lesson.insertion import insert_adapters
from adapters_lesson.lab.guide import TITLES, committed_runs
from adapters_lesson.transformer import SmallTransformer, SmallTransformerConfig

SOURCE = Path(__file__).parents[1] / "notebooks" / "sources" / "06_the_bottleneck_lab.py"
TEXT = re.sub(r"\n# *", " ", SOURCE.read_text(encoding="utf-8"))


def accuracy(sweep, value):
    """Mean over the seeds in per cent."""
    runs = [run for run in committed_runs(sweep) if getattr(run.settings, SWEEPS[sweep].knob) == value]
    assert len(runs) == 3
    return 100 * mean(run.accuracy for run in runs)


@pytest.mark.parametrize(
    ("sentence", "runs"),
    [
        ("{} with Pfeiffer's place and m = 32, and {} with Houlsby's", [("fair places", 32), ("width", 16)]),
        ("{} for block 0, {} for block 1, {} for block 2", [("one block", (i,)) for i in range(3)]),
        (
            "{} with GELU, {} with ReLU, {} without",
            [("activation", name) for name in ("gelu", "relu", "identity")],
        ),
        ("from {} to {}. What was short", [("more steps", 200), ("more steps", 400)]),
        ("m = 4 reaches {}, with three it was {}", [("deeper base", 4), ("width", 4)]),
        ("Only m = 1 falls behind, with {}", [("deeper base", 1)]),
    ],
)
def test_the_numbers_of_our_own_experiments_are_those_of_the_runs(sentence, runs):
    assert sentence.format(*(f"{accuracy(*run):.1f} %" for run in runs)) in TEXT


def test_the_same_number_of_parameters_means_what_it_says():
    def adapters(**config):
        model = SmallTransformer(SmallTransformerConfig(num_hidden_layers=3, vocab_size=10))
        insert_adapters(model, AdapterConfig(**config))
        return count_parameters(model).by_part["adapters"].total

    one, two = adapters(bottleneck_dim=32, placement="pfeiffer"), adapters(bottleneck_dim=16)
    assert abs(one / two - 1) < 0.02


def test_what_the_lesson_says_stands_still_is_so():
    assert Settings() == Settings(task="aspect_sentiment", base_layers=3, steps=200, batch_size=32)
    assert (VALIDATION_TEXTS, VALIDATE_EVERY) == (250, 25)
    assert "After every 25 steps it is validated on 250 sentences" in TEXT
    assert all(run.settings.steps == 200 for name in TITLES for run in committed_runs(name))


def test_narrow_adapters_catch_up_at_the_higher_rate():
    for m in (1, 2, 4):
        assert accuracy("width, higher rate", m) > accuracy("width", m) + 10
    assert accuracy("width, higher rate", 4) > accuracy("width", 64) - 1


def test_the_results_say_how_they_were_made():
    results = load_results("laboratory")
    assert results["command"] == "python data/run_laboratory.py"
    assert results["threads"] == 1
