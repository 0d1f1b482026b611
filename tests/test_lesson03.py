"""The collection of exercise 3.4: what the card promises of it holds."""

import pytest
import torch
from wrong_answers import cards
from wrong_answers.lesson03 import is_sound

from adapters_lesson.course.checks import lesson03
from adapters_lesson.course.checks.lesson03_faults import FAULTY, SOUND
from adapters_lesson.course.checks.observation import tiny_batch, tiny_classifier

(CARD,) = (card.exercise.card for card in cards() if str(card) == "3.4")


@pytest.mark.parametrize("entry", [*SOUND, *FAULTY], ids=lambda entry: entry.what)
def test_every_one_of_the_collection_passes_the_identity_test(entry):
    model, (ids, mask, _) = tiny_classifier().eval(), tiny_batch(0)
    with torch.no_grad():
        before = model(ids, mask)
        entry.insert(model)
        assert torch.equal(before, model(ids, mask))


def test_the_card_says_how_many_there_are():
    words = {12: "twelve", 16: "sixteen"}
    assert f"{words[len(SOUND) + len(FAULTY)]} insertions" in CARD
    assert f"{words[len(FAULTY)]}" in CARD


@pytest.mark.parametrize("missed", FAULTY, ids=lambda entry: entry.what)
def test_a_test_that_misses_one_fault_is_told_which(missed):
    def test(model, insert, batch):
        # Which insertion it is can be seen from what it does to a fresh model.
        verdict = is_sound(model, insert, batch)
        return verdict or fingerprint(model) == wanted

    model = tiny_classifier().eval()
    is_sound(model, missed.insert, tiny_batch(0))
    wanted = fingerprint(model)
    report = lesson03.check_bug_hunt(test)
    assert report.status == "wrong"
    assert missed.overlooked in report.message  # a detach looks like a hook without return


def fingerprint(model):
    """Names of modules, what is trained, and where a gradient arrives."""
    names = [name for name, _ in model.named_modules()]
    return names, [
        (n, p.requires_grad, None if p.grad is None else bool(p.grad.any())) for n, p in model.named_parameters()
    ]


@pytest.mark.parametrize("refused", SOUND, ids=lambda entry: entry.what)
def test_a_test_that_refuses_a_sound_insertion_is_told_so(refused):
    def test(model, insert, batch):
        return is_sound(model, insert, batch) and fingerprint(model) != unwanted

    model = tiny_classifier().eval()
    is_sound(model, refused.insert, tiny_batch(0))
    unwanted = fingerprint(model)
    report = lesson03.check_bug_hunt(test)
    assert report.status == "wrong"
    assert "refuses a sound insertion" in report.message
