"""Checks of lesson 02: attention weights, the parameters of a block, a block to be mended, the mean without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..transformer import Block, SmallTransformerConfig
from .matching import called, first_match, number, tensor
from .report import Mistake, check, close, require

_INF = float("inf")


@check("2.1", "correct: every row sums to 1, and none of it goes to padding.")
def check_weights(attention_weights: Any) -> None:
    """``attention_weights(q, k, words)`` must be softmax(q kᵀ / √width) over the words, for each text and head."""
    q, k = 2 * torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    words = torch.arange(5) < torch.tensor([5, 3])[:, None, None, None]  # the first text has no padding
    given = q.clone(), k.clone()
    answer = tensor(
        called(
            attention_weights, q, k, words,
            hint="q kᵀ is q @ k.transpose(-2, -1): the last two axes of k change places, texts and heads stay",
        )
    )  # fmt: skip
    require(torch.equal(q, given[0]) and torch.equal(k, given[1]), "q or k was changed in place: they are still needed")
    require(
        answer.shape != (2, 3, 4, 4),
        "that is qᵀ k: it compares the numbers of a vector; q kᵀ compares tokens, with shape (texts, heads, tokens, tokens)",
    )
    require(
        answer.shape == (2, 3, 5, 5),
        f"the weights have the shape {tuple(answer.shape)}; for these q and k it is (texts, heads, tokens, tokens) = (2, 3, 5, 5)",
    )
    require(
        not answer[0].isnan().all() and not close(answer[0], torch.full((3, 5, 5), 1 / 5)),
        "a text without padding gets no weights at all: the mask is turned round, `words` is True for words",
    )
    _check_scores(q, k, answer)
    _check_padding(q @ k.transpose(-2, -1) / 2, words, answer)


def _check_scores(q: torch.Tensor, k: torch.Tensor, answer: torch.Tensor) -> None:
    """The text without padding: scale and softmax."""
    plain, scores = q[0] @ k[0].transpose(-2, -1), q[0] @ k[0].transpose(-2, -1) / 2
    right = scores.softmax(-1)
    if close(answer[0], right):
        return
    for axis, name in ((0, "texts"), (1, "heads"), (2, "tokens that look")):
        require(
            not close(answer.nan_to_num().sum(axis)[0], torch.ones_like(answer.sum(axis)[0])),
            f"the weights sum to 1 over the {name}: take the softmax over the last axis, the tokens that are looked at",
        )
    first_match(
        lambda guess: close(answer[0], guess),
        right,
        [
            (plain.softmax(-1), "the scores are not scaled: divide q kᵀ by the root of the width of a head"),
            ((plain / 4).softmax(-1), "the scores are divided by the width itself: by its root, q.shape[-1] ** 0.5"),
            ((plain * 2).softmax(-1), "the scores are multiplied by the root of the width: divide"),
            ((plain / 32**0.5).softmax(-1), "the scores are divided by √32 whatever the width: read it off q.shape[-1]"),
            ((plain / 12**0.5).softmax(-1), "divided by the root of the model's width: each head works with q.shape[-1] numbers"),
            ((plain / 5**0.5).softmax(-1), "divided by the root of the number of tokens: the width of a head is q.shape[-1]"),
            ((plain / 3**0.5).softmax(-1), "divided by the root of the number of heads: the width of a head is q.shape[-1]"),
            (scores.softmax(-1) / 2, "the softmax comes before the scaling: scale the scores, then the weights sum to 1"),
            (plain.softmax(-1) / 2, "the softmax comes before the scaling: scale the scores, then the weights sum to 1"),
            (scores.transpose(-2, -1).softmax(-1), "queries and keys are exchanged: row i is what token i looks at, q kᵀ and not k qᵀ"),
            (scores, "those are the scores: the softmax is missing"),
            (plain, "those are the plain products q kᵀ: scaling and softmax are missing"),
            (scores.log_softmax(-1), "those are the logarithms of the weights: softmax instead of log_softmax"),
            (scores.exp(), "the exponentials are not divided by their sum: softmax does both"),
            (scores.sigmoid(), "that is a sigmoid of each score: with a softmax a token's looks sum to 1"),
        ],
        "in a text without padding the weights are not softmax(q kᵀ / √width), taken over the last axis",
    )  # fmt: skip


def _check_padding(scores: torch.Tensor, words: torch.Tensor, answer: torch.Tensor) -> None:
    """The text with three words and two tokens of padding."""
    scores, words, answer = scores[1], words[1], answer[1]
    plain = scores.softmax(-1)
    right = scores.masked_fill(~words, -_INF).softmax(-1)
    require(
        not answer.isnan().any(),
        "some rows are not numbers, since nothing was left for them to look at: mask the keys, on the last axis; a "
        "padded token may look, but nobody looks at it (words has the right shape as it is)",
    )
    rows = words.transpose(-2, -1)
    first_match(
        lambda guess: close(answer, guess),
        right,
        [
            (plain, "padding is looked at: the mask is not used"),
            ((scores * words).softmax(-1), "the scores of padding are 0, and the softmax gives them weight: −inf makes it zero"),
            ((scores + words).softmax(-1), "True was added as 1, so padding still gets weight: set its scores to −inf"),
            (plain * words, "the weights of padding are set to zero after the softmax, so the others no longer sum to 1: set its scores "
                            "to −inf before"),
            (scores.masked_fill(words, -_INF).softmax(-1), "only padding is looked at: the mask is turned round, `words` is True for words"),
            (right * rows, "the rows of padded tokens are zero: the mask is for what is looked at, the last axis"),
            (scores.masked_fill(~rows, -1e9).softmax(-1), "the rows are masked instead of the columns: nobody may look at padding"),
        ],
        "padding still gets some of the attention: set its scores to float('-inf') before the softmax",
    )  # fmt: skip


@check(
    "2.2",
    "correct: 1,774,464 for MiniLM, four d × d matrices of attention and two of the FFN, with biases and LayerNorms.",
)
def check_block_count(block_parameters: Any) -> None:
    """``block_parameters(model_dim, ffn_dim)`` must count attention, FFN and two LayerNorms."""
    cases = [(384, 1536), (16, 40), (100, 300)]
    answers = [number(block_parameters(*case)) for case in cases]

    def same(formula: Callable[[int, int], float]) -> bool:
        return all(abs(answer - formula(*case)) < 0.5 for answer, case in zip(answers, cases, strict=True))

    def block(d: int, f: int) -> int:
        return 4 * d * d + 2 * d * f + 9 * d + f

    first_match(
        same,
        block,
        [
            (lambda d, f: 4 * d * d + 2 * d * f, "biases and LayerNorms are missing"),
            (lambda d, f: 4 * d * d + 2 * d * f + 4 * d, "the biases are missing: each linear layer has one number for each of its outputs"),
            (lambda d, f: block(d, f) - 4 * d, "4·d are missing: those of the LayerNorms, which are two, each with a weight and a bias of width d "
                                               "(or the biases of attention's four layers)"),
            (lambda d, f: block(d, f) - 2 * d, "half of the LayerNorms' parameters are missing: two of them, each with a weight and a bias"),
            (lambda d, f: block(d, f) - d * d - d, "attention has three projections here: query, key and value; the output projection is the fourth"),
            (lambda d, f: block(d, f) - d * d, "the output projection's matrix is missing: attention has four of d × d"),
            (lambda d, f: block(d, f) - 3 * d * d - 3 * d, "attention has one matrix here: it has four, query, key, value and output"),
            (lambda d, f: block(d, f) - 4 * d * d - 4 * d, "the attention is missing"),
            (lambda d, f: block(d, f) - 2 * d * f - d - f, "the FFN is missing"),
            (lambda d, f: block(d, f) - d * f, "the FFN has one matrix here: it has two, expand and contract"),
            (lambda d, f: block(d, f) - d * f - d, "the FFN's second layer, contract, is missing"),
            (lambda d, f: block(d, f) - d * f - f, "the FFN's first layer, expand, is missing"),
            (lambda d, f: block(d, f) - d - f, "the FFN's biases are missing: f of expand and d of contract"),
            (lambda d, f: block(d, f) + d - f, "a bias is as wide as the layer's output: expand has f of them, contract has d"),
            (lambda d, f: block(d, f) - d + f, "a bias is as wide as the layer's output: expand has f of them, contract has d"),
            (lambda d, f: block(d, f) - f, "the bias of expand is missing: f numbers"),
            (lambda d, f: block(d, f) - d, "d parameters are missing: a bias of a layer that ends in d, or a part of a LayerNorm"),
            (lambda d, f: block(d, 4 * d), "the FFN's width is taken as 4·d: it is given, ffn_dim"),
            (lambda d, f: 12 * d * d, "that is the rule of thumb 12·d²: it leaves out biases and LayerNorms, and takes the FFN as 4·d wide"),
            (lambda d, f: block(d, f) + 44 * d * d, "twelve heads do not make twelve times as many weights: they share the d numbers among them"),
            (lambda d, f: 6 * block(d, f), "that is all six blocks: count one"),
            (lambda d, f: block(d, f) + 2 * d, "there are two LayerNorms, one after each sub-layer, not three"),
            (lambda d, f: block(d, f) + 30522 * d, "the embeddings are counted too: they are no part of a block"),
        ],
        f"for d = 16 and an FFN of width 40 it gives {answers[1]:,.0f}, right is {block(16, 40):,}: four layers d → d, one "
        "d → f, one f → d, all with bias, and two LayerNorms",
    )  # fmt: skip


class _NotToBeCalled(Block):
    """A block of which only the parts may be used."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        raise Mistake("that calls the whole block: mend the colleague's lines, with block's four parts")


@check("2.3", "correct: the block computes what MiniLM's does.")
def check_mended(mended_block: Any) -> None:
    """``mended_block(block, x, mask)`` must compute a post-LN block from ``block``'s parts."""
    block = _NotToBeCalled(
        SmallTransformerConfig(40, 12, num_attention_heads=2, intermediate_size=24, norm="post")
    ).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 5, 12)
    mask = torch.arange(5) < torch.tensor([5, 3])[:, None, None, None]
    before = x.clone()
    answer = tensor(
        called(mended_block, block, x, mask, hint="x is (texts, tokens, d), and every part keeps that shape")
    )
    require(torch.equal(x, before), "the input was changed in place (`x += …`): `x = x + …` makes a new tensor")
    require(answer.shape == x.shape, f"the output has the shape {tuple(answer.shape)}, the input {tuple(x.shape)}")
    require(not answer.isnan().any(), "the output has values that are no numbers: hand the mask on as it is")
    with torch.no_grad():
        right, guesses = _blocks(block, x, mask)
        first_match(
            lambda guess: close(answer, guess), right, guesses,
            "the output is not LN(FFN(y) + y) with y = LN(attention(x) + x)",
        )  # fmt: skip


def _blocks(block: Block, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, str]]]:
    """The right output, and those of likely mistakes."""
    one, two, ffn = block.attention_norm, block.ffn_norm, block.ffn
    h = block.attention(x, mask)
    y = one(h + x)
    unmasked, turned = one(block.attention(x, None) + x), one(block.attention(x, ~mask) + x)
    pre = x + block.attention(one(x), mask)
    same_norm, bare = two(h + x), one(h)
    return two(ffn(y) + y), [
        (two(ffn(y) + x), "the FFN's residual is still the block's input: it is what goes into the FFN, the output of the first half"),
        (two(ffn(y)), "the FFN's residual is missing"),
        (two(ffn(bare) + bare), "the attention's residual is missing: LN(attention(x) + x)"),
        (two(ffn(bare) + x), "the attention's residual is missing, and the FFN's is the block's input"),
        (two(ffn(bare)), "both residuals are missing"),
        (two(ffn(y) + y + x), "two residuals are added to the FFN: only the one that goes into it"),
        (two(ffn(y) + h), "the FFN's residual is the attention's output alone: it is what comes out of the first LayerNorm"),
        (two(ffn(y) + h + x), "the FFN's residual is the sum before the LayerNorm: it is what comes out of it"),
        (two(ffn(h + x) + h + x), "the first LayerNorm is missing: attention's sum has to be normalised as well"),
        (two(ffn(h + x) + y), "the FFN reads the sum before the LayerNorm: it reads what comes out of it"),
        (two(ffn(x) + y), "the FFN reads the block's input: it reads what comes out of the first half"),
        (two(ffn(x) + x), "the FFN half starts from the block's input: the attention half is lost"),
        (ffn(y) + y, "the second LayerNorm is missing"),
        (y, "that is the first half: the FFN half is missing"),
        (pre + ffn(two(pre)), "that is a pre-LN block: MiniLM normalises after the sums"),
        (two(ffn(two(h) + x) + two(h) + x), "the LayerNorm is around the sub-layer alone: it takes the sum with the residual"),
        (_around(block, x, mask), "the LayerNorms are around the sub-layers alone: each takes the sum with the residual"),
        (one(ffn(same_norm) + same_norm), "the two LayerNorms are exchanged"),
        (one(ffn(y) + y), "the first LayerNorm is used twice: the FFN half has its own, ffn_norm"),
        (two(ffn(same_norm) + same_norm), "the second LayerNorm is used twice: the attention half has its own, attention_norm"),
        (two(ffn(turned) + turned), "the mask is turned round: hand the mask on as it is"),
        (two(ffn(unmasked) + unmasked), "the mask is not handed on: tokens look at padding"),
        (two(ffn(unmasked) + x), "the mask is not handed on, and the FFN's residual is still the block's input"),
    ]  # fmt: skip


def _around(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    x = x + block.attention_norm(block.attention(x, mask))
    return x + block.ffn_norm(block.ffn(x))


@check("2.4", "correct: only words, and divided by how many there are.")
def check_mean(mean_over_words: Any) -> None:
    """``mean_over_words(hidden, mask)`` must be each text's mean over its words."""
    hidden = torch.randn(3, 6, 5) + 0.5
    lengths = torch.tensor([6, 4, 2])
    mask = (torch.arange(6) < lengths[:, None]).long()
    before = hidden.clone()
    answer = tensor(
        called(
            mean_over_words, hidden, mask,
            hint="hidden is (texts, tokens, d) and the mask (texts, tokens), sums over tokens are (texts, d) and (texts,): "
            "an axis of length 1 at the end, mask[..., None] or mask.unsqueeze(-1), makes them fit",
        )
    )  # fmt: skip
    require(torch.equal(hidden, before), "the hidden states were changed in place: `hidden * …` makes new ones")
    shapes = {
        (
            3,
            6,
        ): "that is one number for each token: the mean goes over the tokens, axis 1, and not over the numbers of a vector",
        (6, 5): "that is a mean over the texts: each text has its own, over its tokens, axis 1",
        (
            5,
        ): "that is one vector for the whole batch: each text has a mean of its own (hidden[mask] puts all words into one list)",
        (3,): "that is one number for each text: the mean keeps the width d",
        (3, 1, 5): "an axis of length 1 has stayed: (texts, 1, d) instead of (texts, d)",
        (3, 6, 5): "the tokens are still there: sum over axis 1",
    }
    require(tuple(answer.shape) not in shapes, shapes.get(tuple(answer.shape), ""))
    require(answer.shape == (3, 5), f"the means have the shape {tuple(answer.shape)} instead of (texts, d) = (3, 5)")
    require(not answer.isnan().any(), "some means are not numbers: is something divided by zero, or masked with −inf?")
    words, total = mask[..., None], (hidden * mask[..., None]).sum(1)
    right = total / lengths[:, None]
    first_match(
        lambda guess: close(answer, guess),
        right,
        [
            (hidden.mean(1), "padding takes part in the mean: the mask is not used"),
            (total / 6, "padding is left out of the sum and counted all the same: divide by the number of words, not by the padded length"),
            (total, "that is the sum over the words: divide by their number"),
            (hidden.sum(1), "that is the sum over all tokens, with padding: mask it, and divide by the number of words"),
            (hidden.sum(1) / lengths[:, None], "it is divided by the number of words, but padding is in the sum"),
            (total / lengths.sum(), "it is divided by the words of the whole batch: each text by its own"),
            (total / 3, "it is divided by the number of texts: each text by its own number of words"),
            (total / 5, "it is divided by the width d: divide by the number of words"),
            (total / lengths.float().mean(), "it is divided by the mean length of the texts: each text by its own number of words"),
            (total / (lengths - 1)[:, None], "it is divided by one word too few"),
            (total / (lengths + 1)[:, None], "it is divided by one word too many"),
            (total / (6 - lengths).clamp(min=1)[:, None], "it is divided by the amount of padding: divide by the number of words"),
            (torch.div(total, lengths[:, None], rounding_mode="floor"), "the means are rounded to whole numbers: / instead of //"),
            ((hidden * words).amax(1), "that is the largest value over the tokens: take the mean"),
            (hidden.masked_fill(words == 0, -_INF).amax(1), "that is the largest value over the words: take the mean"),
            (hidden[:, 0], "that is the first token, [CLS]: take the mean over all words"),
            (F.normalize(right, dim=-1), "the means are brought to length 1: here they keep their own"),
        ],
        "the means are not each text's sum over its words, divided by the number of its words",
    )  # fmt: skip
