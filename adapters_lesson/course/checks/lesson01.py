"""Checks of lesson 01: the module's forward, its initialisation, its parameter count, the widest bottleneck."""

from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson.adapter import Adapter

from .check import Mistake, check, require
from .comparison import asked, close, explained, formula, learns, match_formula, match_tensor, number, tensor

D, M = 12, 5


@check("1.1", "correct: the input plus a small update that went through the bottleneck.")
def check_forward(cls: Any) -> None:
    """``cls(model_dim, bottleneck_dim)`` must compute h + up(gelu(down(h)))."""
    adapter = cls(D, M)
    for name in ("down_project", "up_project"):
        part = getattr(adapter, name, None)
        there = isinstance(part, nn.Linear) and part.bias is not None
        require(there, f"{name} must stay what the card gives: an nn.Linear, with its bias")
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    h = torch.randn(3, 4, D)
    with torch.no_grad():
        output = tensor(asked(adapter, h))
        _check_output(output, h, adapter.down_project, adapter.up_project)
        require(close(adapter.eval()(h), output), "in evaluation mode it gives something else: it works there, too")
    h.requires_grad_(True)
    down, up = adapter.down_project, adapter.up_project
    parts = {"down_project": down.weight, "up_project": up.weight, "the input h": h}
    gradients = learns(adapter(h), parts)
    right = torch.autograd.grad((h + up(F.gelu(down(h)))).sum(), list(parts.values()))
    if not all(map(close, gradients, right)):
        raise Mistake("the output is right, its gradient is not: a part of the sum is cut off by a detach or a no_grad")


def _check_output(output: torch.Tensor, h: torch.Tensor, down: nn.Linear, up: nn.Linear) -> None:
    update = up(F.gelu(down(h)))
    guesses = {
        update: "the residual is missing: the output is the update alone, add the input h to it",
        2 * h + update: "the residual is added twice: h must stand in the sum once",
        h - update: "the update is subtracted: add it",
        h * update: "the update is multiplied with h: add it",
        h + up(down(h)): "the activation is missing between down_project and up_project",
        h + F.gelu(up(down(h))): "the activation comes after up_project: it belongs inside the bottleneck",
        h + F.gelu(update): "there is an activation after up_project too: the update ends with it",
        F.gelu(h + up(down(h))): "the activation is around the sum: it belongs inside the bottleneck",
        h + up(down(F.gelu(h))): "the activation comes before down_project: it belongs inside the bottleneck",
        h + up(F.relu(down(h))): "the activation is ReLU: use self.activation, which is GELU",
        h: "the output is the input: the update is missing from the sum",
        (h + update) / 2: "the sum is halved: it is no mean",
    }
    if output.shape != h.shape:
        inside = " — it ends inside the bottleneck, up_project is missing" if output.shape[-1:] == (M,) else ""
        shapes = f"the output has shape {tuple(output.shape)}, the input {tuple(h.shape)}"
        raise Mistake(f"{shapes}: an adapter keeps the shape{inside}")
    match_tensor(output, h + update, guesses, "the output is not h + up_project(activation(down_project(h)))")


_WHY_RAISED = {  # by words of the exception
    "leaf": "zero_() and *= on a parameter: PyTorch forbids it for a leaf; use nn.init.zeros_",
    "as parameter": "a plain tensor cannot take a parameter's place: use nn.init.zeros_(…)",
    "no attribute 'zero_'": "a layer is no tensor, it has two: nn.init.zeros_ for its weight, and for its bias",
}


@check("1.2", "correct: it starts as the identity, and it can learn.")
def check_start(start_as_identity: Any) -> None:
    """``start_as_identity(adapter)`` must make the adapter the identity, in place, and leave it able to learn."""
    for biases in (1.0, 0.0):  # a new adapter may have biases, or none yet
        adapter = Adapter(D, M, init="bert", init_std=1.0)
        nn.init.normal_(adapter.down_project.bias, std=biases)
        nn.init.normal_(adapter.up_project.bias, std=biases)
        before, activation = {name: p.clone() for name, p in adapter.named_parameters()}, adapter.activation
        with explained(_WHY_RAISED):
            returned = start_as_identity(adapter)
        if isinstance(returned, Adapter) and returned is not adapter:
            raise Mistake("it returns another adapter: change the one that was given, in place")
        up, down = adapter.up_project, adapter.down_project
        if not all(isinstance(part, nn.Linear) and part.bias is not None for part in (up, down)):
            raise Mistake("a projection or its bias is gone: keep the layers, set up_project's weight and bias to zero")
        now = dict(adapter.named_parameters())
        require(now.keys() == before.keys(), "a projection's weight or bias is no nn.Parameter now: set its values")
        for name, p in now.items():
            shapes = f"{name} has the shape {tuple(p.shape)}, it was {tuple(before[name].shape)}: set its values only"
            require(p.shape == before[name].shape, shapes)
        require(adapter.scaling != 0, "scaling is 0: then no gradient reaches the projections; zero up_project instead")
        if all(torch.equal(p, before[name]) for name, p in now.items()):
            raise Mistake("its parameters are as they were: change them in place, for instance with nn.init.zeros_(…)")
        _check_identity(adapter, before["up_project.weight"])
        if adapter.activation is not activation:
            raise Mistake("the activation was exchanged: the adapter should be as it was, but for up_project's values")
        if not all(p.requires_grad for p in adapter.parameters()):
            raise Mistake("a projection no longer requires gradients: it would stay zero for ever; set its values only")
        _check_learns(adapter)


def _check_identity(adapter: Adapter, old_weight: torch.Tensor) -> None:
    up, down, h = adapter.up_project, adapter.down_project, torch.randn(4, D)
    up_zero, down_zero = not up.weight.any(), not down.weight.any()
    if torch.equal(adapter(h), h):
        return
    require(not up_zero or not up.bias.any(), "up_project's bias is not zero: it adds a constant to every hidden state")
    require(not down_zero, "down_project is zero, not up_project: its biases still change the output")
    off = (adapter(h) - h).norm() / h.norm()
    as_before = not up.bias.any() and close(up.weight, old_weight)
    require(not as_before, "up_project's weight is not zero, only its bias is")
    require(off >= 0.2, f"nearly, but not exactly the identity: off by {off:.1e} of |h|; make up_project zero")
    raise Mistake("the output is not the input: is up_project zero?")


def _check_learns(adapter: Adapter) -> None:
    """It learns: in a few steps both weights move, and the units of the bottleneck become different ones."""
    up, down, h = adapter.up_project, adapter.down_project, torch.randn(8, D)
    start = [up.weight.clone(), down.weight.clone()]
    zero, target = not start[0].any() and not start[1].any(), torch.randn(8, D)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (adapter(h) - target).square().sum().backward()
        optimizer.step()
    moved = [not torch.equal(weight, old) for weight, old in zip((up.weight, down.weight), start, strict=True)]
    require(all(moved) or not zero, "both projections are zero: neither ever gets a gradient; leave down_project")
    require(moved[0], "up_project gets no gradient, so it cannot learn: down_project's output must not be zero")
    require(moved[1], "down_project never moves: up_project has to let a gradient through once it has learnt")
    alike = all(close(w, w[:1].expand_as(w)) for w in (up.weight.T, down.weight))  # in each, a row is a unit's
    require(not alike, "all units of the bottleneck are equal, and learn as one: leave down_project random")


def _whole(answers: list[Any]) -> bool:
    return all(isinstance(a.item() if isinstance(a, torch.Tensor) else a, Integral) for a in answers)


WRONG_COUNTS = {  # of the parameters of an adapter
    "2*d*m": "the biases are missing: each of the two linear layers has one",
    "d*m": "that is one weight matrix: there are two, and two biases",
    "d*m + m": "that is down_project alone: add up_project",
    "d*m + m + d": "one of the two weight matrices is missing",
    "2*d*m + m": "up_project's bias is missing: it has d entries",
    "2*d*m + d": "down_project's bias is missing: it has m entries",
    "2*d*m + 2*m": "up_project's bias has d entries, not m",
    "2*d*m + 2*d": "down_project's bias has m entries, not d",
    "2*d*m + 2": "a bias has one entry for each output, not one in all",
    "2 * (d*m + m + d)": "the biases are counted twice: the two together have m + d entries",
}


@check("1.3", "correct: 2·d·m + m + d.")
def check_count(count_parameters: Any) -> None:
    """``count_parameters(model_dim, bottleneck_dim)`` must give 2dm + m + d."""
    cases = [(384, 16), (768, 64), (10, 3)]
    answers = [count_parameters(*case) for case in cases]
    hint = "count the entries of both weights and biases"
    match_formula(list(map(number, answers)), "d m", cases, "2*d*m + m + d", WRONG_COUNTS, hint)
    require(_whole(answers), "the count is right but a float: multiply and add whole numbers, divide with // if at all")


_WIDEST = formula("max(0, int((b // n - d) // (2*d + 1)))", "d n b")
_WRONG_WIDTHS = {
    "widest(d, 1, b)": "the whole budget goes to one adapter: it must do for all of them",
    "(b // n) // (2*d)": "the biases are left out of the count: one adapter has 2·d·m + m + d",
    "(b // n) // (2*d + 1)": "up_project's bias (d entries) is left out, or it rounds to nearest",
    "(b // n - d) // (2*d)": "down_project's bias (m entries) is left out of the count",
    "(b - d) // n // (2*d + 1)": "up_project's bias is taken off once: each of the adapters has its own d entries",
    "max(0, int((b / n - d) / (2*d + 1)))": "/ loses the last digits of a large budget, which is exceeded: use //",
    "widest(d, n, b) + 1": "one too wide: the budget is exceeded (does your loop stop one step late?)",
    "ceil((b / n - d) / (2*d + 1))": "it rounds up, or adds d instead of taking it off: the budget is exceeded",
    "widest(d, n, b - 1)": "one too narrow where the budget is met exactly: use ≤, not <",
    "widest(d, n, b) - 1": "one too narrow: the next width still fits",
}


@check("1.4", "correct: the widest bottleneck that fits.")
def check_widest(widest_bottleneck: Any) -> None:
    """``widest_bottleneck(model_dim, adapters, budget)`` must give the largest m that stays within the budget."""
    cases = [(384, 12, 500_000), (768, 24, 1_000_000), (16, 2, 4970), (10, 1, 1000), (100, 1, 100 + 201 * 7)]
    cases.append((64, 1, 80_000))  # wider than 256
    cases.append((5000, 10**12, 10**12 * Adapter.count(5000, 100) - 1))  # beyond the digits of a float
    given = [widest_bottleneck(*case) for case in cases]
    answers = [number(a) for a in given]
    require(all(answer % 1 == 0 for answer in answers), "a width is a whole number: round down")
    hint = "n adapters of width m take n · (2·d·m + m + d) of the budget b, the next width would take more than all"
    match_formula(answers, "d n b", cases, "widest(d, n, b)", _WRONG_WIDTHS, hint, tolerance=0, widest=_WIDEST)
    require(_whole(given), "the widths are right but floats, no whole numbers (int): use //")
    none = widest_bottleneck(384, 12, 1000)
    require(none is not None and number(none) == 0, "where not even m = 1 fits (d = 384, n = 12, b = 1000) it is 0")
