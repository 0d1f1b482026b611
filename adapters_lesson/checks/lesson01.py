"""Checks of lesson 01: the module's forward, its initialisation, its parameter count, the widest bottleneck."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..adapter import Adapter
from .matching import number
from .report import Mistake, check, close, require

D, M = 12, 5


@check("1.1", "correct: the input plus a small update that went through the bottleneck.")
def check_forward(cls: Any) -> None:
    """``cls(model_dim, bottleneck_dim)`` must compute h + up(gelu(down(h)))."""
    adapter = cls(D, M)
    for name in ("down_project", "up_project"):
        require(
            isinstance(getattr(adapter, name, None), nn.Linear), f"the class has no nn.Linear called {name} any more"
        )
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    h = torch.randn(3, 4, D)
    given = h.clone()
    with torch.no_grad():
        output = adapter(h)
        require(output is not None, "forward returns None: is the return missing?")
        require(
            isinstance(output, torch.Tensor), f"forward must return a tensor, it returned a {type(output).__name__}"
        )
        require(
            torch.equal(h, given),
            "forward changed its input in place (+= does that): the residual stream is still needed, make a new tensor",
        )
        down, up = adapter.down_project, adapter.up_project
        update = up(F.gelu(down(h)))
        wrong_forwards: list[tuple[Callable[[], torch.Tensor], str]] = [
            (lambda: update, "the residual is missing: the output is the update alone, add the input h to it"),
            (lambda: 2 * h + update, "the residual is added twice: h must stand in the sum once"),
            (lambda: h - update, "the update is subtracted: add it"),
            (lambda: h * update, "the update is multiplied with h: add it"),
            (lambda: h + up(down(h)), "the activation is missing between down_project and up_project"),
            (
                lambda: h + F.gelu(up(down(h))),
                "the activation comes after up_project: it belongs inside the bottleneck",
            ),
            (
                lambda: h + F.gelu(up(F.gelu(down(h)))),
                "there is an activation after up_project too: the update ends with it",
            ),
            (lambda: F.gelu(h + up(down(h))), "the activation is around the sum: it belongs inside the bottleneck"),
            (lambda: F.gelu(h + update), "there is an activation around the sum: only the bottleneck has one"),
            (
                lambda: h + up(down(F.gelu(h))),
                "the activation comes before down_project: it belongs inside the bottleneck",
            ),
            (lambda: h + up(F.relu(down(h))), "the activation is ReLU: use self.activation, which is GELU"),
            (lambda: h, "the output is the input: the update is missing from the sum"),
            (
                lambda: down(h),
                "the output is what down_project gives: the activation, up_project and the sum are missing",
            ),
            (lambda: h + update / 2, "the update is halved: add it as it is"),
            (lambda: (h + update) / 2, "the sum is halved: it is no mean"),
        ]
    for wrong, message in wrong_forwards:
        require(not close(output, wrong()), message)
    require(
        output.shape == h.shape,
        f"the output has shape {tuple(output.shape)}, the input {tuple(h.shape)}: an adapter keeps the shape"
        + (" — it ends inside the bottleneck, up_project is missing" if output.shape[-1] == M else ""),
    )
    require(close(output, h + update), "the output is not h + up_project(activation(down_project(h)))")
    h.requires_grad_(True)
    learnt = [h, *adapter.parameters()]
    output = adapter(h).sum()
    try:
        gradients = torch.autograd.grad(output, learnt, allow_unused=True) if output.requires_grad else [None]
    except RuntimeError as error:
        require(
            "inplace" not in str(error),
            "a tensor is changed in place (+= does that) that the gradient still needs: write h + …, which makes a new one",
        )
        raise
    require(
        None not in gradients, "no gradient gets through, so nothing could be learnt: is there a detach or a no_grad?"
    )
    right = torch.autograd.grad((h + up(F.gelu(down(h)))).sum(), learnt)
    require(
        all(g is not None and close(g, r) for g, r in zip(gradients, right, strict=True)),
        "the output is right, its gradient is not: a part of the sum is cut off by a detach or a no_grad",
    )


@check("1.2", "correct: it starts as the identity, and it can learn.")
def check_start(start_as_identity: Any) -> None:
    """``start_as_identity(adapter)`` must make the adapter the identity, in place, and leave it able to learn."""
    adapter = Adapter(D, M, init="bert", init_std=1.0)
    nn.init.normal_(adapter.down_project.bias)
    nn.init.normal_(adapter.up_project.bias)
    before, activation = {name: p.clone() for name, p in adapter.named_parameters()}, adapter.activation
    try:
        adapter_after = start_as_identity(adapter)
    except RuntimeError as error:
        require(
            "leaf" not in str(error),
            "a parameter is changed in place while autograd records (zero_() and *= do that, and PyTorch forbids it for a "
            "leaf): use nn.init.zeros_(...), or do it under torch.no_grad()",
        )
        raise
    except TypeError as error:
        require(
            "as parameter" not in str(error),
            "a plain tensor cannot take a parameter's place: fill the parameter itself with zeros, nn.init.zeros_(...)",
        )
        raise
    if isinstance(adapter_after, Adapter) and adapter_after is not adapter:
        raise Mistake("it returns another adapter: change the one that was given, in place")
    h = torch.randn(4, D)
    up, down = adapter.up_project, adapter.down_project
    require(
        all(isinstance(part, nn.Linear) and part.bias is not None for part in (up, down)),
        "a projection or its bias is gone: keep the layers, and set up_project's weight and bias to zero",
    )
    changed = [name for name, p in adapter.named_parameters() if not torch.equal(p, before[name])]
    require(
        bool(changed), "the adapter is as it was: change its tensors in place, for instance with nn.init.zeros_(...)"
    )
    up_zero, down_zero = not up.weight.any(), not down.weight.any()
    require(
        not (up_zero and down_zero),
        "both projections are zero: then neither ever gets a gradient, and the adapter cannot learn; leave down_project",
    )
    require(
        not (down_zero and not up_zero),
        "down_project is zero, not up_project: the output is then still up_project's bias plus what its inputs' "
        "activation gives; zero the projection that writes into the residual stream",
    )
    require(
        not (up_zero and up.bias.any()),
        "up_project's bias is not zero: it still adds a constant to every hidden state",
    )
    if not torch.equal(adapter(h), h):
        off = (adapter(h) - h).norm() / h.norm()
        message = (
            "up_project's weight is not zero, only its bias is" if not up.bias.any() and close(up.weight, before["up_project.weight"])
            else f"nearly, but not exactly the identity: the output differs by {off:.1e} of |h|; make up_project zero"
            if off < 0.2
            else "the output is not the input: is up_project zero?"
        )  # fmt: skip
        raise Mistake(message)
    require(
        adapter.activation is activation,
        "the activation was exchanged: the adapter should be as it was, but for up_project's values",
    )
    require(
        adapter.scaling != 0, "scaling is 0: then no gradient reaches the projections; make up_project zero instead"
    )
    require(
        all(p.requires_grad for p in adapter.parameters()),
        "a projection no longer requires gradients: it would stay zero for ever; set its values, not requires_grad",
    )
    adapter(h).square().sum().backward()
    require(
        up.weight.grad is not None and bool(up.weight.grad.any()),
        "up_project gets no gradient, so the adapter cannot learn: down_project must not be zero (nor its output)",
    )


@check("1.3", "correct: 2·d·m + m + d.")
def check_count(count_parameters: Any) -> None:
    """``count_parameters(model_dim, bottleneck_dim)`` must give 2dm + m + d."""
    cases = [(384, 16), (768, 64), (10, 3)]
    answers = [count_parameters(d, m) for d, m in cases]
    whole = all(isinstance(a.item() if isinstance(a, torch.Tensor) else a, Integral) for a in answers)
    answers = [number(a) for a in answers]
    wrong_counts: list[tuple[Callable[[int, int], int], str]] = [
        (lambda d, m: 2 * d * m, "the biases are missing: each of the two linear layers has one"),
        (lambda d, m: d * m, "that is one weight matrix: there are two, and two biases"),
        (lambda d, m: d * m + m, "that is down_project alone: add up_project"),
        (lambda d, m: d * m + d, "that is up_project alone: add down_project"),
        (lambda d, m: d * m + m + d, "one of the two weight matrices is missing"),
        (lambda d, m: 2 * d * m + m, "up_project's bias is missing: it has d entries"),
        (lambda d, m: 2 * d * m + d, "down_project's bias is missing: it has m entries"),
        (lambda d, m: 2 * d * m + 2 * m, "up_project's bias has d entries, not m"),
        (lambda d, m: 2 * d * m + 2 * d, "down_project's bias has m entries, not d"),
        (lambda d, m: 2 * d * m + 2, "a bias has one entry for each output, not one in all"),
        (lambda d, m: 2 * (d * m + m + d), "the biases are counted twice: the two together have m + d entries"),
        (lambda d, m: d * d + d, "that is a full d × d layer: an adapter goes through the bottleneck"),
    ]
    for wrong, message in wrong_counts:
        require(answers != [wrong(d, m) for d, m in cases], message)
    for (d, m), answer in zip(cases, answers, strict=True):
        right = Adapter.count(d, m)
        require(
            answer == right,
            f"for d = {d} and m = {m} it gives {answer:,.0f}: count the entries of both weights and biases",
        )
    require(whole, "the count is right but not a whole number: use // or no division")


@check("1.4", "correct: the widest bottleneck that fits.")
def check_widest(widest_bottleneck: Any) -> None:
    """``widest_bottleneck(model_dim, adapters, budget)`` must give the largest m that stays within the budget."""

    def widest(d: int, n: int, budget: float) -> int:
        return max(0, int((budget // n - d) // (2 * d + 1)))

    cases = [(384, 12, 500_000), (768, 24, 1_000_000), (16, 2, 4970), (10, 1, 1000), (100, 1, 100 + 201 * 7)]
    answers = [widest_bottleneck(*case) for case in cases]
    whole = all(isinstance(a.item() if isinstance(a, torch.Tensor) else a, Integral) for a in answers)
    answers = [number(a) for a in answers]
    right = [widest(*case) for case in cases]
    wrong_widths: list[tuple[Callable[[int, int, int], float], str]] = [
        (lambda d, n, b: widest(d, 1, b), "the whole budget goes to one adapter: it must do for all of them"),
        (lambda d, n, b: (b // n) // (2 * d), "the biases are left out of the count: one adapter has 2·d·m + m + d"),
        (lambda d, n, b: (b // n) // (2 * d + 1), "up_project's bias (d entries) is left out of the count, or the result is rounded to the nearest width: round down"),
        (lambda d, n, b: (b // n - d) // (2 * d), "down_project's bias (m entries) is left out of the count"),
        (lambda d, n, b: (b / n - d) / (2 * d + 1), "a width is a whole number: round down"),
        (lambda d, n, b: widest(d, n, b) + 1, "one too wide: the budget is exceeded (does your loop stop one step late?)"),
        (lambda d, n, b: -int(-((b / n - d) / (2 * d + 1)) // 1), "it rounds up, which exceeds the budget: round down"),
        (lambda d, n, b: widest(d, n, b - 1), "one too narrow where the budget is met exactly: use ≤, not <"),
        (lambda d, n, b: widest(d, n, b) - 1, "one too narrow: the next width still fits"),
    ]  # fmt: skip
    if answers != right:
        for wrong, message in wrong_widths:
            require(answers != [wrong(*case) for case in cases], message)
    for case, answer, expected in zip(cases, answers, right, strict=True):
        d, n, budget = case
        require(math.isfinite(answer), f"for d = {d}, {n} adapters and a budget of {budget:,} it gives {answer}")
        cost = n * Adapter.count(d, max(1, int(answer)))
        require(
            answer == expected,
            f"for d = {d}, {n} adapters and a budget of {budget:,} it gives m = {answer}, which costs {cost:,}"
            + (": too much" if cost > budget else ": wider fits"),
        )
    require(whole, "the widths are right but not whole numbers (int): use //")
    require(
        number(widest_bottleneck(384, 12, 1000)) == 0,
        "when not even m = 1 fits, the answer is 0 (1,000 parameters for 12 adapters)",
    )
