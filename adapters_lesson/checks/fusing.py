"""What check 8.4 holds an answer against: the attention over adapters, and what people compute in its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import one_hot

from .report import close, require


def check_weights(weights: torch.Tensor, h: torch.Tensor, a: torch.Tensor, query: nn.Module, key: nn.Module) -> None:
    """The attention of hidden states h (tokens, d) over updates a (adapters, tokens, d)."""
    n, tokens, d = a.shape
    products = query(h) * key(a)
    scores = products.sum(-1)
    right = scores.softmax(0)
    require(weights.shape != a.shape, "there is a weight for every feature: sum the products over d, a dot product")
    require(not close(weights, right.T), "the weights are right, but transposed: return (adapters, tokens)")
    require(
        weights.shape == (n, tokens),
        f"the weights have shape {tuple(weights.shape)}, not (adapters, tokens) = {(n, tokens)}",
    )
    _refuse(weights, [
        (scores, "the scores are no weights yet: softmax makes them positive, with sum 1"),
        (torch.ones(n, tokens), "every weight is 1: the softmax runs over the features, or an axis of length 1; take that of the adapters"),
        (scores.softmax(1), "the softmax runs over the tokens, the wrong axis: for each token the adapters' weights sum to 1"),
        (scores.flatten().softmax(0).view(n, tokens), "the softmax runs over adapters and tokens together: each token has weights of its own"),
        (products.softmax(0).sum(-1), "the softmax comes before the sum: sum the products over d first"),
        (products.mean(-1).softmax(0), "the products are averaged over d: a dot product sums them"),
        ((scores / d**0.5).softmax(0), "the scores are divided by √d: attention between words does that, AdapterFusion's formula does not"),
        ((query(a) * key(h)).sum(-1).softmax(0), "query and key are swapped: the hidden state asks, the updates are the keys"),
        ((query(a) * key(a)).sum(-1).softmax(0), "the query comes from the updates: it is the hidden state h that asks"),
        ((h * key(a)).sum(-1).softmax(0), "the query is missing: h goes through it first"),
        ((query(h) * a).sum(-1).softmax(0), "the key is missing: the updates go through it first"),
        ((h * a).sum(-1).softmax(0), "query and key are missing: h and the updates go through them first"),
        (products.sum((1, 2))[:, None].softmax(0).expand(n, tokens), "all tokens have the same weights: the scores are summed over the tokens, too"),
        (scores.sigmoid(), "each weight is a sigmoid of its own: in a softmax the adapters compete, with sum 1"),
        (torch.full((n, tokens), 1 / n), "all adapters weigh the same: the weights do not depend on the scores"),
        (one_hot(scores.argmax(0), n).T.float(), "only the best adapter counts: softmax chooses softly, and has a gradient"),
    ])  # fmt: skip
    require(
        close(weights, right), "the weights are not softmax over the adapters of query(h) · key(update), for each token"
    )


def check_mixture(
    mixed: torch.Tensor, w: torch.Tensor, h: torch.Tensor, a: torch.Tensor, key: nn.Module, value: nn.Module
) -> None:
    """The mixture of the values by weights w (adapters, tokens, 1)."""
    right = (w * value(a)).sum(0)
    require(mixed.shape != a.shape, "the mixture has one entry for each adapter: sum over the adapters")
    require(mixed.shape == h.shape, f"the mixture has shape {tuple(mixed.shape)}, not (tokens, d) = {tuple(h.shape)}")
    _refuse(mixed, [
        ((w * a).sum(0), "value is missing: the updates go through it before they are mixed"),
        ((w * key(a)).sum(0), "the keys are mixed: it is the values of the updates"),
        (value(h), "the values come from h, so all adapters say the same: they come from the updates"),
        (h + right, "h is added: here only the mixture is asked for"),
        (value(a).sum(0), "the values are summed without their weights"),
        (value(a).mean(0), "the values are averaged: the weights are not used"),
        (right / len(a), "the weighted values are averaged: the weights sum to 1 already, take the sum"),
    ])  # fmt: skip
    require(
        close(mixed, right),
        "the weights are right, the mixture is not: sum weight times value(update) over the adapters",
    )


def _refuse(given: torch.Tensor, table: Sequence[tuple[torch.Tensor, str]]) -> None:
    for wrong, message in table:
        require(not close(given, wrong), message)
