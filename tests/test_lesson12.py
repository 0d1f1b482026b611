"""Lesson 12's answers, held against what the course itself says of the same files, models and logits."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from adapters_lesson import LoRAConfig, prepare
from adapters_lesson.course import patients
from adapters_lesson.course.mine.shelf import REFERENCE
from adapters_lesson.doctor import diagnose
from adapters_lesson.exchange.compare import compare_logits
from adapters_lesson.lora import LoRA

ANSWERS = {}
exec(REFERENCE.read_text(encoding="utf-8"), ANSWERS)


@pytest.mark.parametrize("number", [2, 5, 6])
def test_the_answer_and_the_doctor_read_a_file_alike(number, tmp_path):
    one = patients.patient(number, 1, tmp_path)
    file = next(tmp_path.glob("adapter_model.*"))
    tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    base = one.given.get("base") or (patients.bert() if number == 6 else patients.llama())
    said = ANSWERS["what_is_in"](tensors, {path for path, _ in base.named_modules()})
    assert said == one.trouble == diagnose(**one.given).findings[0].trouble


def test_going_on_trains_what_was_trained():
    base = patients.bert()
    monday, tuesday = (copy.deepcopy(base) for _ in range(2))
    prepared = prepare(monday, "lora", LoRAConfig(rank=4))
    saved = {name: p.detach() + 1 for name, p in monday.named_parameters() if p.requires_grad}
    prepare(tuesday, "lora", LoRAConfig(rank=4))
    tuesday.requires_grad_(True)
    assert ANSWERS["go_on"](tuesday, saved) == prepared.trainable
    assert all(torch.equal(tuesday.get_parameter(name), value) for name, value in saved.items())


def test_batched_products_are_those_of_the_module():
    loras = [LoRA(6, 10, rank=2, alpha=3.0) for _ in range(3)]
    for one in loras:
        torch.nn.init.normal_(one.lora_B.weight)
    A, B = (torch.stack([one.get_parameter(f"{part}.weight") for one in loras]) for part in ("lora_A", "lora_B"))
    x, which = torch.randn(4, 5, 6), torch.tensor([2, 0, -1, 1])
    update = ANSWERS["many_loras"](x, A, B, which, 1.5)
    for row, number in enumerate(which.tolist()):
        wanted = loras[number](x[row]) if number >= 0 else torch.zeros(5, 10)
        torch.testing.assert_close(update[row], wanted)


def test_two_numbers_of_the_comparison():
    before, after, mask = torch.randn(3, 5, 7), torch.randn(3, 5, 7), torch.arange(5) < torch.tensor([[5], [2], [3]])
    far, share = ANSWERS["compare_first"](before, after, mask)
    ours = compare_logits(before[mask], after[mask])
    assert (far, share) == pytest.approx((ours.largest, ours.changed / ours.places))
