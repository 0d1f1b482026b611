"""Checks of lesson 02: attention weights, the parameters of a block, a block to be mended, the mean without padding."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson.transformer import Block, SmallTransformerConfig

from .check import Mistake, check, require
from .comparison import asked, close, learns, match_formula, match_tensor, tensor

_INF = float("inf")


@check("2.1", "correct: every row sums to 1, and none of it goes to padding.")
def check_weights(attention_weights: Any) -> None:
    """``attention_weights(q, k, words)`` must be softmax(q kᵀ / √width) over the words, for each text and head."""
    q, k = 2 * torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    words = torch.arange(5) < torch.tensor([5, 3])[:, None, None, None]  # the first text has no padding
    hint = "q kᵀ is q @ k.transpose(-2, -1), the last two axes of k change places; words is (texts, 1, 1, tokens)"
    answer = tensor(asked(attention_weights, q, k, words, hint=hint))
    require(answer.shape != (2, 3, 4, 4), "that is qᵀ k, it compares the numbers of a vector, not tokens: take q kᵀ")
    shape = f"the weights have the shape {tuple(answer.shape)}; for these q and k it is (texts, heads, tokens, tokens)"
    require(answer.shape == (2, 3, 5, 5), f"{shape} = (2, 3, 5, 5)")
    require(not answer.isnan().all(), "no weight is a number: was −inf multiplied by 0? masked_fill sets scores")
    if close(answer[1, ..., 3:].sum(-1), torch.ones(3, 5)):
        raise Mistake("the weights go to padding, none to words: the mask is turned round, `words` is True for words")
    texts = answer.nan_to_num().sum(0)
    require(not close(texts, torch.ones_like(texts)), "the weights sum to 1 over the texts: softmax over the last axis")
    _check_scores(q[0], k[0], answer[0])
    _check_padding(q[1] @ k[1].transpose(-2, -1) / 2, words[1], answer[1])
    for width in (6, 1):
        q, k = torch.randn(2, 1, 1, 5, width, requires_grad=True).unbind()
        answer = tensor(attention_weights(q, k, words[:1]))
        right = (q @ k.transpose(-2, -1) / width**0.5).softmax(-1)
        require(answer.shape == right.shape, f"one text with one head gives {tuple(answer.shape)}: keep all four axes")
        require(close(answer, right), f"wrong for heads of width {width}: divide by q.shape[-1] ** 0.5, whatever it is")
        learns(answer[..., 0], {"q": q, "k": k})


def _check_scores(q: torch.Tensor, k: torch.Tensor, answer: torch.Tensor) -> None:
    """The text without padding: scale and softmax."""
    plain = q @ k.transpose(-2, -1)
    scores = plain / 2
    right = scores.softmax(-1)
    if close(answer, right):
        return
    for axis, name in ((0, "heads"), (1, "tokens that look")):
        if close(answer.nan_to_num().sum(axis), torch.ones_like(answer.sum(axis))):
            raise Mistake(f"the weights sum to 1 over the {name}: take the softmax over the last axis")
    other = "divided by the root of the {}: the width of a head is q.shape[-1]".format
    early = "something is divided after the softmax: scale the scores before it, then the weights sum to 1"
    guesses = {
        plain.softmax(-1): "the scores are not scaled: divide q kᵀ by the root of the width of a head",
        (plain / 4).softmax(-1): "the scores are divided by the width itself: by its root, q.shape[-1] ** 0.5",
        (plain * 2).softmax(-1): "the scores are multiplied by the root of the width: divide",
        (plain / 32**0.5).softmax(-1): "the scores are divided by √32 whatever the width: read it off q.shape[-1]",
        (plain / 12**0.5).softmax(-1): other("model's width"),
        (plain / 5**0.5).softmax(-1): other("number of tokens"),
        (plain / 3**0.5).softmax(-1): other("number of heads"),
        scores.softmax(-1) / 2: early,
        plain.softmax(-1) / 2: early,
        scores.transpose(-2, -1).softmax(-1): "queries and keys are exchanged: row i is what token i looks at, q kᵀ",
        scores: "those are the scores: the softmax is missing",
        scores.log_softmax(-1): "those are the logarithms of the weights: softmax instead of log_softmax",
        scores.exp(): "the exponentials are not divided by their sum: softmax does both",
        scores.sigmoid(): "that is a sigmoid of each score: with a softmax a token's looks sum to 1",
    }
    otherwise = "in a text without padding the weights are not softmax(q kᵀ / √width), taken over the last axis"
    match_tensor(answer, right, guesses, otherwise)


def _check_padding(scores: torch.Tensor, words: torch.Tensor, answer: torch.Tensor) -> None:
    """The text with three words and two tokens of padding."""
    plain, rows = scores.softmax(-1), words.transpose(-2, -1)
    right = scores.masked_fill(~words, -_INF).softmax(-1)
    require(not answer.isnan().any(), "some rows are not numbers, all they see is masked: mask the keys, the last axis")
    rowwise = scores.masked_fill(~rows, -1e9).softmax(-1)
    guesses = {
        plain: "padding is looked at as if there were no mask",
        (scores * words).softmax(-1): "the scores of padding are 0, not −inf: the softmax gives them weight",
        (scores + words).softmax(-1): "True was added as 1, so padding still gets weight: set its scores to −inf",
        plain * words: "the weights of padding become 0 after the softmax: the others no longer sum to 1",
        right * rows: "the rows of padded tokens are zero: the mask is for what is looked at, the last axis",
        rowwise: "the rows are masked instead of the columns: nobody may look at padding",
        scores.masked_fill(~(words & rows), -1e9).softmax(-1): "padded tokens' rows are masked as well: mask the keys",
    }
    otherwise = "these are not the weights over words alone: padding's scores are float('-inf') before the softmax"
    match_tensor(answer, right, guesses, otherwise)


@check("2.2", "correct: 1,774,464 for MiniLM, four d × d matrices of attention, two of the FFN, biases, LayerNorms.")
def check_block_count(block_parameters: Any) -> None:
    """``block_parameters(model_dim, ffn_dim)`` must count attention, FFN and two LayerNorms."""
    cases = [(384, 1536), (16, 40), (100, 300)]
    right = "4*d*d + 2*d*f + 9*d + f"
    bias = "a bias is as wide as the layer's output: expand has f of them, contract has d"
    guesses = {
        "4*d*d + 2*d*f": "biases and LayerNorms are missing",
        "4*d*d + 2*d*f + 4*d": "the biases are missing: each linear layer has one number for each of its outputs",
        f"{right} - 4*d": "4·d are missing: those of the LayerNorms, or attention's four biases",
        f"{right} - 2*d": "2·d are missing, as half of the LayerNorms' are: two of them, each with a weight and a bias",
        f"{right} - d*d - d": "attention has three projections here: the output projection is the fourth",
        f"{right} - 3*d*d - 3*d": "attention has one matrix here: it has four, query, key, value and output",
        f"{right} - 4*d*d - 4*d": "the attention is missing",
        f"{right} - 2*d*f - d - f": "the FFN is missing",
        f"{right} - d*f": "the FFN has one matrix here: it has two, expand and contract",
        f"{right} - d - f": "the FFN's biases are missing: f of expand and d of contract",
        f"{right} + d - f": bias,
        f"{right} - d + f": bias,
        "4*d*d + 8*d*d + 13*d": "the FFN's width is taken as 4·d: it is given, ffn_dim",
        "12*d*d": "that is the rule of thumb 12·d²: it leaves out biases and LayerNorms, and takes the FFN as 4·d wide",
        f"{right} + 44*d*d": "twelve heads do not make twelve times as many weights: they share the d numbers",
        f"{right} + 44*d*d + 44*d": "twelve heads do not make twelve times as many weights and biases",
        f"6 * ({right})": "that is all six blocks: count one",
        f"{right} + 2*d": "2·d too many: there are two LayerNorms, one after each sub-layer, not three",
        f"{right} + 30522*d": "the embeddings are counted too: they are no part of a block",
    }
    hint = "four layers d → d, one d → f, one f → d, all with bias, and two LayerNorms"
    match_formula(block_parameters, "d f", cases, right, guesses, hint)


class _NotToBeCalled(Block):
    """A block of which only the parts may be used."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        raise Mistake("that calls the whole block: mend the colleague's lines, with block's four parts")


@check("2.3", "correct: the block computes what MiniLM's does.")
def check_mended(mended_block: Any) -> None:
    """``mended_block(block, x, mask)`` must compute a post-LN block from ``block``'s parts."""
    block = _NotToBeCalled(SmallTransformerConfig(40, 12, num_attention_heads=2, intermediate_size=24, dropout=0.0))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 5, 12)
    mask = torch.arange(5) < torch.tensor([5, 3])[:, None, None, None]
    answer = tensor(asked(mended_block, block, x, mask, hint="x is (texts, tokens, d), every part keeps that shape"))
    require(block.training, "the block is in evaluation mode afterwards: leave its mode to whoever calls")
    require(answer.shape == x.shape, f"the output has the shape {tuple(answer.shape)}, the input {tuple(x.shape)}")
    require(not answer.isnan().any(), "the output has values that are no numbers: hand the mask on as it is")
    with torch.no_grad():
        right, guesses = _blocks(block, x, mask)
        match_tensor(answer, right, guesses, "the output is not LN(FFN(y) + y) with y = LN(attention(x) + x)")


def _blocks(block: Block, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, dict[torch.Tensor, str]]:
    """The right output, and those of likely mistakes."""
    one, two, ffn = block.attention_norm, block.ffn_norm, block.ffn
    h = block.attention(x, mask)
    y, bare, swapped = one(h + x), one(h), two(h + x)
    unmasked, turned = one(block.attention(x, None) + x), one(block.attention(x, ~mask) + x)
    pre, around = x + block.attention(one(x), mask), x + bare
    return two(ffn(y) + y), {
        two(ffn(y) + x): "the FFN's residual is still the block's input: it is what goes into the FFN",
        two(ffn(y)): "the FFN's residual is missing",
        two(ffn(bare) + bare): "the attention's residual is missing: LN(attention(x) + x)",
        two(ffn(bare)): "both residuals are missing",
        two(ffn(y) + y + x): "two residuals are added to the FFN: only the one that goes into it",
        two(ffn(y) + h): "the FFN's residual is the attention's output alone: it is what the first LayerNorm gives",
        two(ffn(y) + h + x): "the FFN's residual is the sum before the LayerNorm: it is what comes out of it",
        two(ffn(h + x) + h + x): "the first LayerNorm is missing: attention's sum has to be normalised as well",
        two(ffn(x) + y): "the FFN reads the block's input: it reads what comes out of the first half",
        two(ffn(x) + x): "the FFN half starts from the block's input: the attention half is lost",
        ffn(y) + y: "the second LayerNorm is missing",
        y: "that is the first half: the FFN half is missing",
        pre + ffn(two(pre)): "that is a pre-LN block: MiniLM normalises after the sums",
        around + two(ffn(around)): "the LayerNorms are around the sub-layers alone: each takes the sum",
        one(ffn(swapped) + swapped): "the two LayerNorms are exchanged",
        one(ffn(y) + y): "the first LayerNorm is used twice: the FFN half has its own, ffn_norm",
        two(ffn(turned) + turned): "the mask is turned round: hand the mask on as it is",
        two(ffn(unmasked) + unmasked): "tokens look at padding, as without a mask: hand the mask on as it is",
    }


_SHAPES = {  # of answers to three texts of six tokens, five wide
    (3, 6): "that is one number for each token: the mean goes over the tokens, axis 1",
    (6, 5): "that is a mean over the texts: each text has its own, over its tokens, axis 1",
    (5,): "that is one vector for the whole batch (hidden[mask] makes one list): each text has its own mean",
    (3,): "that is one number for each text: the mean keeps the width d",
    (3, 1, 5): "an axis of length 1 has stayed: (texts, 1, d) instead of (texts, d)",
    (3, 6, 5): "the tokens are still there: sum over axis 1",
}


@check("2.4", "correct: only words, and divided by how many there are.")
def check_mean(mean_over_words: Any) -> None:
    """``mean_over_words(hidden, mask)`` must be each text's mean over its words."""
    hidden, lengths = torch.randn(3, 6, 5) + 0.5, torch.tensor([6, 4, 2])
    mask = (torch.arange(6) < lengths[:, None]).long()
    hint = "sums over tokens are (texts, d) and (texts,): mask[..., None], an axis of length 1, makes them fit"
    answer = tensor(asked(mean_over_words, hidden, mask, hint=hint))
    shape = tuple(answer.shape)
    require(shape == (3, 5), _SHAPES.get(shape, f"the means have the shape {shape} instead of (texts, d) = (3, 5)"))
    require(not answer.isnan().any(), "some means are not numbers: is something divided by zero, or masked with −inf?")
    words, count = mask[..., None], lengths[:, None]
    total = (hidden * words).sum(1)
    largest = "that is the largest value over the tokens: take the mean over the words"
    guesses = {
        hidden.mean(1): "padding takes part in the mean: the mask is not used",
        total / 6: "padding is left out of the sum alone: divide by the number of words, not by the padded length",
        total: "that is the sum over the words: divide by their number",
        hidden.sum(1) / count: "it is divided by the number of words, but padding is in the sum",
        total / lengths.sum(): "it is divided by the words of the whole batch: each text by its own",
        total / 3: "it is divided by the number of texts: each text by its own number of words",
        total / 5: "it is divided by the width d: divide by the number of words",
        total / (6 - count).clamp(min=1): "it is divided by the amount of padding: divide by the number of words",
        torch.div(total, count, rounding_mode="floor"): "the means are rounded to whole numbers: / instead of //",
        (hidden * words).amax(1): largest,
        hidden.masked_fill(words == 0, -_INF).amax(1): largest,
        hidden[:, 0]: "that is the first token, [CLS]: take the mean over all words",
        F.normalize(total / count, dim=-1): "the means are brought to length 1: here they keep their own",
    }
    otherwise = "the means are not each text's sum over its words, divided by the number of its words"
    match_tensor(answer, total / count, guesses, otherwise)
    hidden, mask = torch.randn(1, 4, 5, requires_grad=True), torch.tensor([[0, 1, 1, 1]])
    answer = tensor(mean_over_words(hidden, mask))
    right = hidden[:, 1:].mean(1)
    require(answer.shape == right.shape, f"one text alone gives {tuple(answer.shape)} instead of (1, 5): keep the axis")
    require(close(answer, right), "with the padding on the left it is another mean: go by the mask, not by the place")
    learns(answer, {"hidden": hidden})
