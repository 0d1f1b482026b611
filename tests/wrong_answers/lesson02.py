import math

import torch
import torch.nn.functional as F

INF = float("inf")

# 2.1


def weights(scale=lambda q: q.shape[-1] ** 0.5, mask="before", axis=-1, finish=None):
    """A family of answers that differ in the scale, in the mask, or in the softmax."""

    def attention_weights(q, k, words):
        scores = q @ k.transpose(-2, -1) / scale(q)
        if mask == "before":
            scores = scores.masked_fill(~words, -INF)
        elif callable(mask):
            scores = mask(scores, words)
        result = finish(scores) if finish else scores.softmax(axis)
        return result * words if mask == "after" else result

    return attention_weights


def masks_rows_and_columns(q, k, words):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~(words & words.transpose(-2, -1)), -INF).softmax(-1)


def scales_q_in_place(q, k, words):
    q /= q.shape[-1] ** 0.5
    return (q @ k.transpose(-2, -1)).masked_fill(~words, -INF).softmax(-1)


def keys_look_at_queries(q, k, words):
    return (k @ q.transpose(-2, -1) / k.shape[-1] ** 0.5).masked_fill(~words, -INF).softmax(-1)


def numbers_of_a_vector(q, k, words):
    return (q.transpose(-2, -1) @ k / q.shape[-1] ** 0.5).softmax(-1)


def no_return(q, k, words):
    (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~words, -INF).softmax(-1)


def right_weights(q, k, words):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~words, -INF).softmax(-1)


def right_with_einsum(queries, keys, mask):
    products = torch.einsum("bhid,bhjd->bhij", queries, keys) / math.sqrt(queries.size(3))
    return F.softmax(torch.where(mask, products, torch.tensor(-1e9)), dim=3)


def right_by_exponentials(q, k, words):
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.mT)
    e = (scores - scores.amax(-1, keepdim=True)).exp() * words
    return e / e.sum(-1, keepdim=True)


def right_by_loops(q, k, words):
    texts = []
    for text in range(len(q)):
        heads = []
        for head in range(q.shape[1]):
            scores = q[text, head] @ k[text, head].T / q.shape[-1] ** 0.5
            scores[:, ~words[text, 0, 0]] = -INF
            heads.append(torch.softmax(scores, -1))
        texts.append(torch.stack(heads))
    return torch.stack(texts)


def right_by_torchs_own(q, k, words):
    eye = torch.eye(q.shape[-2]).expand(*q.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(q, k, eye, attn_mask=words)


# 2.2


def right_count(d, f):
    return 4 * (d * d + d) + d * f + f + f * d + d + 4 * d


def right_by_layers(d, f):
    total = 2 * 2 * d
    for inputs, outputs in [(d, d)] * 4 + [(d, f), (f, d)]:
        total += (inputs + 1) * outputs
    return total


def right_by_measuring(d, f):
    from torch import nn

    layers = [nn.Linear(d, d) for _ in range(4)] + [nn.Linear(d, f), nn.Linear(f, d), nn.LayerNorm(d), nn.LayerNorm(d)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


# 2.3


def colleague(block, x, mask):
    r = x
    h = block.attention(x, mask)
    x = block.attention_norm(h + r)
    h = block.ffn(x)
    return block.ffn_norm(h + r)


def halves(first, second):
    """A block out of two formulas: ``first(b, x, mask)`` gives y, ``second(b, y, x)`` the output."""
    return lambda block, x, mask: second(block, first(block, x, mask), x)


def attention_half(b, x, mask):
    return b.attention_norm(b.attention(x, mask) + x)


def ffn_half(b, y, x):
    return b.ffn_norm(b.ffn(y) + y)


def pre_ln(b, x, mask):
    x = x + b.attention(b.attention_norm(x), mask)
    return x + b.ffn(b.ffn_norm(x))


def norm_around(b, x, mask):
    x = x + b.attention_norm(b.attention(x, mask))
    return x + b.ffn_norm(b.ffn(x))


def attention_again(b, x, mask):
    h = b.attention(x, mask)
    y = b.attention_norm(h + x)
    return b.ffn_norm(b.ffn(y) + h)


def sum_before_norm(b, x, mask):
    r = b.attention(x, mask) + x
    return b.ffn_norm(b.ffn(b.attention_norm(r)) + r)


def in_place(b, x, mask):
    x += b.attention(x, mask)
    x = b.attention_norm(x)
    return b.ffn_norm(x + b.ffn(x))


def mended_without_return(b, x, mask):
    ffn_half(b, attention_half(b, x, mask), x)


def right_mended(block, x, mask):
    r = x
    x = block.attention_norm(block.attention(x, mask) + r)
    r = x
    return block.ffn_norm(block.ffn(x) + r)


def right_with_dropout(b, hidden, m):
    hidden = b.attention_norm(hidden + b.dropout(b.attention(hidden, m)))
    return b.ffn_norm(torch.add(hidden, b.dropout(b.ffn(hidden))))


def right_in_a_loop(block, x, mask):
    for sublayer, norm in (
        (lambda h: block.attention(h, mask), block.attention_norm),
        (block.ffn, block.ffn_norm),
    ):
        x = norm(x + sublayer(x))
    return x


def right_functional(b, x, mask):
    def norm(layer, h):
        return F.layer_norm(h, layer.normalized_shape, layer.weight, layer.bias, layer.eps)

    y = norm(b.attention_norm, x + b.attention(x, mask))
    h = F.linear(
        F.gelu(F.linear(y, b.ffn.expand.weight, b.ffn.expand.bias)), b.ffn.contract.weight, b.ffn.contract.bias
    )
    return norm(b.ffn_norm, h + y)


# 2.4


def mean_in_place(hidden, mask):
    hidden *= mask[..., None]
    return hidden.sum(1) / mask.sum(1, keepdim=True)


def right_mean(hidden, mask):
    words = mask[..., None]
    return (hidden * words).sum(1) / words.sum(1)


def right_mean_by_einsum(h, words):
    return torch.einsum("bld,bl->bd", h, words / words.sum(1, keepdim=True))


def right_mean_by_matmul(h, words):
    share = words.float() / words.sum(dim=-1)[:, None]
    return (share[:, None, :] @ h)[:, 0]


def right_mean_by_loop(hidden, mask):
    return torch.stack([h[m.bool()].mean(0) for h, m in zip(hidden, mask, strict=True)])


def right_mean_by_nan(hidden, mask):
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("nan")).nanmean(dim=1)


def squeezed(q, k, words):
    return right_weights(q, k, words).squeeze()


WRONG = {
    "check_weights": [
        (weights(mask=lambda s, w: s + ~w * -INF), "was −inf multiplied by 0?"),
        (weights(scale=lambda q: 2), "wrong for heads of width 6"),
        (squeezed, "keep all four axes"),
        (lambda q, k, words: right_weights(q.half().float(), k, words), "nearly: it is off by"),
        (weights(mask=lambda s, w: s.masked_fill(~(w & w.mT), -1e9)), "padded tokens' rows are masked as well"),
        (weights(mask=lambda s, w: s.masked_fill(w.long(), -INF)), "your code raised RuntimeError: masked_fill", False),
        (weights(scale=lambda q: 1), "the scores are not scaled"),
        (weights(scale=lambda q: q.shape[-1]), "divided by the width itself"),
        (weights(scale=lambda q: q.shape[-1] ** -0.5), "multiplied by the root"),
        (weights(scale=lambda q: 32**0.5), "√32 whatever the width"),
        (weights(scale=lambda q: (q.shape[1] * q.shape[-1]) ** 0.5), "root of the model's width"),
        (weights(scale=lambda q: q.shape[1] ** 0.5), "root of the number of heads"),
        (weights(scale=lambda q: q.shape[-2] ** 0.5), "root of the number of tokens"),
        (weights(scale=lambda q: 1, finish=lambda s: s.softmax(-1) / 2), "divided after the softmax"),
        (weights(axis=-2), "sum to 1 over the tokens that look"),
        (weights(axis=1), "sum to 1 over the heads"),
        (weights(axis=0), "sum to 1 over the texts"),
        (weights(mask=None), "as if there were no mask"),
        (weights(mask="after"), "no longer sum to 1"),
        (weights(mask=lambda s, w: s * w), "the scores of padding are 0"),
        (weights(mask=lambda s, w: s.masked_fill(~w, 1e-9)), "the scores of padding are 0"),
        (weights(mask=lambda s, w: s + w), "True was added as 1"),
        (weights(mask=lambda s, w: s.masked_fill(w, -INF)), "mask is turned round"),
        (weights(mask=lambda s, w: s.masked_fill(w, -1e9)), "mask is turned round"),
        (
            weights(mask=lambda s, w: s.masked_fill(~w.transpose(-2, -1), -1e9)),
            "rows are masked instead of the columns",
        ),
        (weights(mask=lambda s, w: s.masked_fill(~w, -5)), "before the softmax"),
        (masks_rows_and_columns, "mask the keys"),
        (lambda q, k, words: right_weights(q, k, words) * words.mT, "rows of padded tokens are zero"),
        (weights(finish=lambda s: s), "softmax is missing"),
        (weights(finish=lambda s: s.log_softmax(-1)), "log_softmax"),
        (weights(finish=torch.exp), "not divided by their sum"),
        (weights(finish=torch.sigmoid), "a sigmoid"),
        (keys_look_at_queries, "queries and keys are exchanged"),
        (numbers_of_a_vector, "compares the numbers of a vector"),
        (lambda q, k, words: (q @ k / q.shape[-1] ** 0.5).softmax(-1), "the last two axes of k change places"),
        (lambda q, k, words: right_weights(q, k, words).mean(1), "the weights have the shape", False),
        (scales_q_in_place, "changed in place"),
        (no_return, "return missing"),
    ],
    "check_block_count": [
        (lambda d, f: right_count(d, f) + 44 * (d * d + d), "twelve heads do not make"),
        (lambda d, f: 4 * d * d + 2 * d * f, "biases and LayerNorms are missing"),
        (lambda d, f: 4 * d * d + 2 * d * f + 4 * d, "the biases are missing"),
        (lambda d, f: right_count(d, f) - 4 * d, "those of the LayerNorms"),
        (lambda d, f: right_count(d, f) - 2 * d, "half of the LayerNorms"),
        (lambda d, f: right_count(d, f) - d * d - d, "the output projection is the fourth"),
        (lambda d, f: right_count(d, f) - 3 * (d * d + d), "attention has one matrix here"),
        (lambda d, f: right_count(d, f) - 4 * (d * d + d), "the attention is missing"),
        (lambda d, f: 4 * (d * d + d) + 4 * d, "the FFN is missing"),
        (lambda d, f: right_count(d, f) - d * f, "the FFN has one matrix here"),
        (lambda d, f: right_count(d, f) - f + d, "expand has f of them"),
        (lambda d, f: right_count(d, f) - d + f, "expand has f of them"),
        (lambda d, f: right_count(d, f) - d - f, "the FFN's biases are missing"),
        (lambda d, f: right_count(d, 4 * d), "it is given, ffn_dim"),
        (lambda d, f: 12 * d * d, "rule of thumb"),
        (lambda d, f: right_count(d, f) + 44 * d * d, "twelve heads"),
        (lambda d, f: 6 * right_count(d, f), "count one"),
        (lambda d, f: right_count(d, f) + 30522 * d, "the embeddings are counted"),
        (lambda d, f: 1774464, "right is", False),
        (lambda d, f: None, "return missing"),
        (lambda d, f: (4 * d * d, 2 * d * f), "returned a tuple"),
    ],
    "check_mended": [
        (halves(lambda b, x, m: b.attention_norm(b.attention(x, m[:1]) + x), ffn_half), "as without a mask"),
        (colleague, "still the block's input"),
        (halves(attention_half, lambda b, y, x: b.ffn_norm(b.ffn(y))), "the FFN's residual is missing"),
        (halves(lambda b, x, m: b.attention_norm(b.attention(x, m)), ffn_half), "the attention's residual is missing"),
        (
            halves(lambda b, x, m: b.attention_norm(b.attention(x, m)), lambda b, y, x: b.ffn_norm(b.ffn(y))),
            "both residuals",
        ),
        (halves(attention_half, lambda b, y, x: b.ffn_norm(b.ffn(y) + y + x)), "two residuals"),
        (halves(attention_half, lambda b, y, x: b.ffn_norm(b.ffn(x) + y)), "the FFN reads the block's input"),
        (halves(attention_half, lambda b, y, x: b.ffn_norm(b.ffn(x) + x)), "the attention half is lost"),
        (halves(attention_half, lambda b, y, x: b.ffn(y) + y), "the second LayerNorm is missing"),
        (halves(lambda b, x, m: b.attention(x, m) + x, ffn_half), "the first LayerNorm is missing"),
        (halves(attention_half, lambda b, y, x: b.attention_norm(b.ffn(y) + y)), "used twice"),
        (
            halves(lambda b, x, m: b.ffn_norm(b.attention(x, m) + x), lambda b, y, x: b.attention_norm(b.ffn(y) + y)),
            "exchanged",
        ),
        (halves(lambda b, x, m: b.attention_norm(b.attention(x, None) + x), ffn_half), "as without a mask"),
        (halves(lambda b, x, m: b.attention_norm(b.attention(x, ~m) + x), ffn_half), "mask is turned round"),
        (pre_ln, "a pre-LN block"),
        (norm_around, "around the sub-layers alone"),
        (attention_again, "the attention's output alone"),
        (sum_before_norm, "the sum before the LayerNorm"),
        (attention_half, "the FFN half is missing"),
        (lambda b, x, m: b(x, m), "calls the whole block"),
        (in_place, "in place"),
        (mended_without_return, "return missing"),
        (lambda b, x, m: (right_mended(b, x, m), m), "returned a tuple"),
    ],
    "check_mean": [
        (lambda h, m: right_mean(h, m.double()), "its numbers are of the type torch.float64"),
        (lambda h, m: (h * m[..., None]).sum(1) / (m.sum(1, keepdim=True) + 1e-3), "or is a small number added"),
        (lambda h, m: h.mean(1), "padding takes part in the mean"),
        (lambda h, m: (h * m[..., None]).mean(1), "not by the padded length"),
        (lambda h, m: (h * m[..., None]).sum(1), "divide by their number"),
        (lambda h, m: h.sum(1) / m.sum(1, keepdim=True), "padding is in the sum"),
        (lambda h, m: h.mean(-1), "one number for each token"),
        (lambda h, m: (h * m[..., None]).sum(0) / m.sum(0)[:, None], "a mean over the texts"),
        (lambda h, m: h[m.bool()].mean(0), "hidden[mask]"),
        (lambda h, m: (h * m[..., None]).sum(1) / m.sum(), "words of the whole batch"),
        (lambda h, m: (h * m[..., None]).sum(1) / len(h), "number of texts"),
        (lambda h, m: (h * m[..., None]).sum(1) / h.shape[-1], "by the width d"),
        (lambda h, m: (h * m[..., None]).sum(1) / (1 - m).sum(1, keepdim=True).clamp(min=1), "amount of padding"),
        (lambda h, m: (h * m).sum(1) / m.sum(1), "makes them fit"),
        (lambda h, m: (h * m[..., None]).sum(1) / m.sum(1), "makes them fit"),
        (lambda h, m: (h * m[..., None]).sum(1, keepdim=True) / m.sum(1)[:, None, None], "(texts, 1, d)"),
        (lambda h, m: h * m[..., None] / m.sum(1)[:, None, None], "sum over axis 1"),
        (lambda h, m: h[:, 0], "[CLS]"),
        (lambda h, m: (h * m[..., None]).amax(1), "the largest value"),
        (lambda h, m: F.normalize(right_mean(h, m), dim=-1), "keep their own"),
        (lambda h, m: (h * m[..., None]).sum(1) // m.sum(1, keepdim=True), "/ instead of //"),
        (lambda h, m: (h * (1 - m)[..., None]).sum(1) / (1 - m).sum(1, keepdim=True), "not numbers"),
        (mean_in_place, "in place"),
        (lambda h, m: None, "return missing"),
    ],
}
RIGHT = {
    "check_weights": [right_weights, right_with_einsum, right_by_exponentials, right_by_loops, right_by_torchs_own],
    "check_block_count": [
        right_count,
        right_by_layers,
        right_by_measuring,
        lambda d, f: torch.tensor(right_count(d, f)),
    ],
    "check_mended": [right_mended, right_with_dropout, right_in_a_loop, right_functional],
    "check_mean": [right_mean, right_mean_by_einsum, right_mean_by_matmul, right_mean_by_loop, right_mean_by_nan],
}
