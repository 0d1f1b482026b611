import math
from bisect import bisect_right
from functools import partial

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson import Adapter


class Given(nn.Module):
    """What the exercise's card gives."""

    def __init__(self, model_dim, bottleneck_dim):
        super().__init__()
        self.down_project = nn.Linear(model_dim, bottleneck_dim)
        self.activation = nn.GELU()
        self.up_project = nn.Linear(bottleneck_dim, model_dim)


def with_forward(forward):
    return type("MyAdapter", (Given,), {"forward": forward})


def in_place(self, h):
    h += self.up_project(self.activation(self.down_project(h)))
    return h


def in_place_on_a_copy(self, h):
    h = h.clone()
    h += self.up_project(self.activation(self.down_project(h)))
    return h


def no_return(self, h):
    h + self.up_project(self.activation(self.down_project(h)))


class Renamed(nn.Module):
    def __init__(self, model_dim, bottleneck_dim):
        super().__init__()
        self.down = nn.Linear(model_dim, bottleneck_dim)
        self.up_project = nn.Linear(bottleneck_dim, model_dim)


class ViaSequential(Given):
    def forward(self, h):
        return nn.Sequential(self.down_project, self.activation, self.up_project)(h).add(h)


def with_einsum(self, h):
    z = F.gelu(torch.einsum("...d,md->...m", h, self.down_project.weight) + self.down_project.bias)
    return torch.einsum("...m,dm->...d", z, self.up_project.weight) + self.up_project.bias + h


def in_steps(self, x):
    residual = x
    x = self.down_project(x)
    x = self.activation(x)
    x = self.up_project(x)
    x = x + residual
    return x


def for_batches(self, h):
    """Written for three dimensions, as the lesson has them."""
    z = F.gelu(torch.einsum("bld,md->blm", h, self.down_project.weight) + self.down_project.bias)
    return h + torch.einsum("blm,dm->bld", z, self.up_project.weight) + self.up_project.bias


def by_matrices(self, h):
    (D, d), (U, u) = (p.parameters() for p in (self.down_project, self.up_project))
    return F.gelu(h @ D.T + d) @ U.T + u + h


def only_weight(a):
    nn.init.zeros_(a.up_project.weight)


def only_bias(a):
    nn.init.zeros_(a.up_project.bias)


def zero_down(a):
    nn.init.zeros_(a.down_project.weight)
    nn.init.zeros_(a.down_project.bias)


def zero_both(a):
    for p in a.parameters():
        nn.init.zeros_(p)


def local_name(a):
    weight, bias = a.up_project.weight, a.up_project.bias
    weight, bias = torch.zeros_like(weight), torch.zeros_like(bias)


def nearly(a):
    nn.init.normal_(a.up_project.weight, std=1e-4)
    nn.init.zeros_(a.up_project.bias)


def freezes(a):
    nn.init.zeros_(a.up_project.weight).requires_grad_(False)
    nn.init.zeros_(a.up_project.bias).requires_grad_(False)


def scaling_off(a):
    a.scaling = 0.0


def plain_tensor(a):
    a.up_project.weight = torch.zeros_like(a.up_project.weight)


def in_place_on_a_leaf(a):
    a.up_project.weight.zero_()
    a.up_project.bias.zero_()


def multiplied_by_zero(a):
    a.up_project.weight *= 0
    a.up_project.bias *= 0


def without_bias(a):
    a.up_project = nn.Linear(a.up_project.in_features, a.up_project.out_features, bias=False)
    nn.init.zeros_(a.up_project.weight)


def another_adapter(a):
    return Adapter(a.down_project.in_features, a.down_project.out_features)


def another_activation(a):
    zeros(a)
    a.activation = nn.ReLU()


def zeros(a):
    nn.init.zeros_(a.up_project.weight)
    nn.init.zeros_(a.up_project.bias)


def zeros_by_data(adapter):
    adapter.up_project.weight.data.fill_(0)
    adapter.up_project.bias.data *= 0


@torch.no_grad()
def zeros_no_grad(adapter):
    for p in adapter.up_project.parameters():
        p.zero_()
    return adapter


def zeros_new_layer(adapter):
    adapter.up_project = nn.Linear(adapter.up_project.in_features, adapter.up_project.out_features)
    adapter.up_project.load_state_dict({k: torch.zeros_like(v) for k, v in adapter.up_project.state_dict().items()})


def loop_one_late(d, n, budget):
    m = 0
    while n * (2 * d * m + m + d) <= budget:
        m += 1
    return m


def loop_right(d, n, budget):
    m = 0
    while n * (2 * d * (m + 1) + m + 1 + d) <= budget:
        m += 1
    return m


def by_bisection(d, n, budget):
    return max(0, bisect_right(range(budget), budget, key=lambda m: n * (2 * d * m + m + d)) - 1)


def down_constant(adapter):
    nn.init.zeros_(adapter.up_project.weight)
    nn.init.zeros_(adapter.up_project.bias)
    nn.init.constant_(adapter.down_project.weight, 0.01)
    nn.init.zeros_(adapter.down_project.bias)


def down_at_zero(adapter):
    """The other way round: GELU(0) is 0, too, and down_project moves first."""
    nn.init.zeros_(adapter.down_project.weight)
    nn.init.zeros_(adapter.down_project.bias)
    nn.init.zeros_(adapter.up_project.bias)


def forward_off(adapter):
    adapter.forward = lambda h: h


def of_another_shape(a):
    a.up_project.weight.data = torch.zeros(a.up_project.in_features, a.up_project.out_features)
    nn.init.zeros_(a.up_project.bias)


def buffers(a):
    for name, value in list(a.up_project.named_parameters()):
        delattr(a.up_project, name)
        a.up_project.register_buffer(name, torch.zeros_like(value))


def none_for_nothing(d, n, b):
    m = (b // n - d) // (2 * d + 1)
    return m if m > 0 else None


WRONG = {
    "check_forward": [
        (with_forward(lambda s, h: h + s.up_project(s.activation(s.down_project(h))).data), "reaches down_project"),
        (with_forward(lambda s, h: s.up_project(s.activation(s.down_project(h)))), "residual is missing"),
        (with_forward(lambda s, h: 2 * h + s.up_project(s.activation(s.down_project(h)))), "residual is added twice"),
        (with_forward(lambda s, h: h + s.up_project(s.down_project(h))), "activation is missing"),
        (with_forward(lambda s, h: h + s.activation(s.up_project(s.down_project(h)))), "comes after up_project"),
        (with_forward(lambda s, h: s.activation(h + s.up_project(s.down_project(h)))), "around the sum"),
        (with_forward(lambda s, h: h + s.up_project(s.down_project(s.activation(h)))), "before down_project"),
        (with_forward(lambda s, h: h + s.up_project(F.relu(s.down_project(h)))), "ReLU"),
        (with_forward(lambda s, h: h * s.up_project(s.activation(s.down_project(h)))), "multiplied"),
        (with_forward(lambda s, h: h - s.up_project(s.activation(s.down_project(h)))), "subtracted"),
        (with_forward(lambda s, h: s.activation(s.down_project(h))), "up_project is missing"),
        (with_forward(lambda s, h: h), "the output is the input"),
        (with_forward(in_place), "in place"),
        (with_forward(in_place_on_a_copy), "the gradient still needs"),
        (with_forward(lambda s, h: h.detach() + s.up_project(s.activation(s.down_project(h.detach())))), "no gradient"),
        (with_forward(torch.no_grad()(in_steps)), "no gradient"),
        (with_forward(no_return), "return missing"),
        (with_forward(lambda s, h: s.down_project(s.up_project(h))), "RuntimeError", False),
        (with_forward(lambda s, h: h + s.up_project(s.activation(s.down_project(h.detach())))), "its gradient is not"),
        (
            with_forward(lambda s, h: h + s.activation(s.up_project(s.activation(s.down_project(h))))),
            "there is an activation after",
        ),
        (with_forward(lambda s, h: (h + s.up_project(s.activation(s.down_project(h)))) / 2), "halved"),
        (Renamed, "down_project must stay what the card gives"),
    ],
    "check_start": [
        (forward_off, "its parameters are as they were"),
        (of_another_shape, "has the shape (5, 12), it was (12, 5)"),
        (buffers, "no nn.Parameter now"),
        (lambda a: nn.init.zeros_(a.up_project), "a layer is no tensor"),
        (down_constant, "all units of the bottleneck are equal"),
        (only_weight, "bias is not zero"),
        (only_bias, "only its bias is"),
        (zero_down, "down_project is zero, not up_project"),
        (zero_both, "both projections are zero"),
        (local_name, "as they were"),
        (nearly, "not exactly the identity"),
        (freezes, "no longer requires gradients"),
        (scaling_off, "scaling is 0"),
        (plain_tensor, "a plain tensor cannot take"),
        (in_place_on_a_leaf, "forbids it for a leaf"),
        (multiplied_by_zero, "forbids it for a leaf"),
        (without_bias, "its bias is gone"),
        (another_activation, "the activation was exchanged"),
        (another_adapter, "returns another adapter"),
    ],
    "check_count": [
        (lambda d, m: 2 * d * m, "the biases are missing"),
        (lambda d, m: d * m, "one weight matrix"),
        (lambda d, m: d * m + m, "down_project alone"),
        (lambda d, m: 2 * d * m + m, "up_project's bias is missing"),
        (lambda d, m: 2 * d * m + d, "down_project's bias is missing"),
        (lambda d, m: 2 * d * m + 2 * m, "d entries, not m"),
        (lambda d, m: 2 * d * m + 2 * d, "m entries, not d"),
        (lambda d, m: 2 * (d * m + m + d), "biases are counted twice"),
        (lambda d, m: 2 * d * m + 2, "one entry for each output"),
        (lambda d, m: d * m + m + d, "one of the two weight matrices"),
        (lambda d, m: None, "return missing"),
        (lambda d, m: float(2 * d * m + m + d), "right but a float"),
        (lambda d, m: f"{2 * d * m + m + d:,}", "must return a number"),
    ],
    "check_widest": [
        (lambda d, n, b: max(0, (b // n + d) // (2 * d + 1)), "adds d instead of taking it off"),
        (lambda d, n, b: max(0, (b - d) // n // (2 * d + 1)), "is taken off once"),
        (none_for_nothing, "where not even m = 1 fits"),
        (lambda d, n, b: max(0, (b - d) // (2 * d + 1)), "whole budget goes to one"),
        (lambda d, n, b: b // n // (2 * d), "biases are left out"),
        (lambda d, n, b: b // n // (2 * d + 1), "up_project's bias (d entries) is left out"),
        (lambda d, n, b: (b // n - d) // (2 * d), "down_project's bias (m entries) is left out"),
        (lambda d, n, b: (b / n - d) / (2 * d + 1), "a whole number: round down"),
        (loop_one_late, "one too wide"),
        (lambda d, n, b: loop_right(d, n, b - 1), "one too narrow where the budget is met exactly"),
        (lambda d, n, b: (b // n - d) // (2 * d + 1), "where not even m = 1 fits"),
        (lambda d, n, b: round((b / n - d) / (2 * d + 1)), "round"),
        (lambda d, n, b: None, "return missing"),
        (lambda d, n, b: loop_right(d, n, b) - 1, "one too narrow"),
        (lambda d, n, b: math.floor(max(0, (b / n - d) / (2 * d + 1))), "loses the last digits of a large budget"),
        (lambda d, n, b: b // (n * (d + d + d)), "it gives 416, right is 619", False),
    ],
}
RIGHT = {
    "check_forward": [
        ViaSequential,
        with_forward(with_einsum),
        with_forward(in_steps),
        with_forward(for_batches),
        with_forward(lambda self, h: torch.add(h, nn.Sequential(*self.children())(h))),
        with_forward(by_matrices),
    ],
    "check_start": [
        down_at_zero,
        zeros,
        zeros_by_data,
        zeros_no_grad,
        zeros_new_layer,
        lambda adapter: adapter.up_project.load_state_dict(
            {name: 0 * values for name, values in adapter.up_project.state_dict().items()}
        ),
        lambda adapter: adapter.reset_parameters("zero"),
        partial(lambda init, adapter: [init(p) for p in adapter.up_project.parameters()], nn.init.zeros_),
    ],
    "check_count": [
        lambda model_dim, bottleneck_dim: 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim,
        lambda d, m: m * (2 * d + 1) + d,
        lambda d, m: sum(p.numel() for p in Given(d, m).parameters()),
        lambda d, m: numpy.int64(d * (m + 1)) + m * (d + 1),
        lambda d, m: torch.tensor([d * m, m, m * d, d]).sum(),
    ],
    "check_widest": [
        loop_right,
        lambda d, n, b: max(0, (b // n - d) // (2 * d + 1)),
        by_bisection,
        lambda d, n, b: max((m for m in range(b // n // d + 1) if n * (2 * d * m + m + d) <= b), default=0),
    ],
}
