"""Answers to exercise 8.4."""

import torch


def fusing(weigh=None, mix=None):
    """A family that differs in the weights (adapters, tokens), or in the mixture."""

    def fuse(h, updates, query, key, value):
        weights = (weigh or (lambda q, k, h, a: (q(h) * k(a)).sum(-1).softmax(0)))(query, key, h, updates)
        mixed = (mix or (lambda w, v, h, a: (w[..., None] * v(a)).sum(0)))(weights, value, h, updates)
        return mixed, weights

    return fuse


def scores(q, k, h, a):
    return (q(h) * k(a)).sum(-1)


def mixes_keys(h, updates, query, key, value):
    _, weights = fusing()(h, updates, query, key, value)
    return (weights[..., None] * key(updates)).sum(0), weights


def in_place(h, updates, query, key, value):
    mixed, weights = fusing()(h, updates, query, key, value)
    updates *= weights.detach()[..., None]
    return mixed, weights


def without_gradient(h, updates, query, key, value):
    with torch.no_grad():
        return fusing()(h, updates, query, key, value)


def token_by_token(h, updates, query, key, value):
    mixed, weights = [], []
    for t in range(len(h)):
        w = (key(updates[:, t]) @ query(h[t])).softmax(0)
        weights.append(w)
        mixed.append(w @ value(updates[:, t]))
    return torch.stack(mixed), torch.stack(weights, dim=1)


def einstein(h, updates, query, key, value):
    weights = torch.einsum("td,atd->at", query(h), key(updates)).softmax(dim=0)
    return torch.einsum("at,atd->td", weights, value(updates)), weights


def with_attention(h, updates, query, key, value):
    """PyTorch's own, with the adapters as the words; the scores are not to be divided by √d."""
    a = updates.transpose(0, 1)  # (tokens, adapters, d)
    q, k = query(h)[:, None], key(a)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, value(a), scale=1.0)
    return mixed[:, 0], torch.matmul(q, k.transpose(1, 2))[:, 0].softmax(-1).T


def value_last(h, updates, query, key, value):
    """V multiplies once a token: the same, for V has no bias."""
    wanted = query(h) @ key.weight
    weights = (updates * wanted).sum(-1).exp()
    weights = weights / weights.sum(0, keepdim=True)
    return value((updates * weights.unsqueeze(-1)).sum(0)), weights
