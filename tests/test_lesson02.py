"""Lesson 02: the colleague's block has one fault that shows, and the lesson's words about it are true."""

import re
from pathlib import Path

import pytest
import torch
from test_results import output
from wrong_answers import lesson02 as answers

from adapters_lesson import SmallTransformer
from adapters_lesson.course.checks import check as report
from adapters_lesson.course.checks import lesson02 as checks
from adapters_lesson.course.lesson_source import read_lesson
from adapters_lesson.transformer import Block, SmallTransformerConfig

LESSON = "02_a_small_transformer"
SOURCE = Path(__file__).parents[1] / "notebooks" / "sources" / f"{LESSON}.py"


def the_colleagues():
    (cell,) = [c.source for c in read_lesson(SOURCE).cells if "def by_a_colleague" in c.source]
    names = {"torch": torch, "Block": Block}
    exec(cell.partition("\n\nmask =")[0], names)
    return names["by_a_colleague"]


def test_the_colleagues_block_is_refused_for_the_fault_that_is_planted():
    outcome = checks.check_mended(the_colleagues())
    assert outcome.status == report.WRONG
    assert "still the block's input" in outcome.message


def test_one_line_mends_the_colleagues_block():
    block = Block(SmallTransformerConfig(20, 8, num_attention_heads=2, intermediate_size=16)).eval()
    x = torch.randn(2, 4, 8)
    with torch.no_grad():
        assert not torch.allclose(the_colleagues()(block, x, None), block(x), atol=1e-2)
        assert torch.allclose(answers.right_mended(block, x, None), block(x), atol=1e-5)


def test_the_fault_shows_in_every_block_and_not_in_the_vectors_lengths():
    lines = re.findall(r"mean length ([\d.]+) and ([\d.]+), largest difference ([\d.]+)", output(LESSON))
    assert len(lines) == 6
    for ours, theirs, largest in lines:
        assert abs(float(theirs) / float(ours) - 1) < 0.15
        assert float(largest) > 0.5


def test_probes_get_what_is_judged_alike_and_guess_the_rest():
    text = output(LESSON)
    alike, differently = (
        [float(x) for x in re.search(rf"judged {how} +([\d. ]+)", text)[1].split()] for how in ("alike", "differently")
    )
    assert len(alike) == len(differently) == 7
    assert min(alike[3:]) > 95  # "nearly all texts right after block 2"
    assert alike[0] < 75
    assert all(44 < share < 56 for share in differently)  # 270 texts: guessing gives 50 ± 6


def test_the_block_and_its_weights_are_those_of_the_model():
    text = output(LESSON)
    assert max(float(x) for x in re.findall(r"block \d: largest difference (\S+)", text)) < 1e-5
    rows = re.findall(r"^(?:MiniLM|BERT-\w+) +\d+ +\d+ +([\d,]+) +([\d,]+) +\d+ +([\d.]+) %", text, re.M)
    assert [formula == counted for formula, counted, _ in rows] == [True] * 3
    assert [float(share) for *_, share in rows] == sorted(float(share) for *_, share in rows)


@pytest.mark.parametrize("sizes", [(384, 1536), (32, 40)])
def test_the_formula_of_the_solution_counts_a_block(sizes):
    d, f = sizes
    block = Block(SmallTransformerConfig(20, d, num_attention_heads=4, intermediate_size=f))
    assert answers.right_count(d, f) == sum(p.numel() for p in block.parameters())


def test_torchs_own_attention_agrees_with_the_weights_that_are_asked_for():
    block = SmallTransformer(SmallTransformerConfig(20, 8, 1, 2, 16)).blocks[0].attention
    x, words = torch.randn(2, 5, 8), (torch.arange(5) < torch.tensor([[5], [3]]))[:, None, None, :]
    q, k, v = (m(x).unflatten(-1, (2, 4)).transpose(1, 2) for m in (block.query, block.key, block.value))
    with torch.no_grad():
        by_hand = block.output((answers.right_weights(q, k, words) @ v).transpose(1, 2).flatten(2))
        assert torch.allclose(by_hand, block(x, words), atol=1e-6)


def test_an_infinite_padding_weight_is_not_taken_for_right():
    def not_a_number(q, k, words):
        return answers.right_weights(q, k, words) / 0

    assert checks.check_weights(not_a_number).status == report.WRONG
