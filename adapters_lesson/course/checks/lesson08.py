"""Checks of lesson 08: bytes for many tasks, switching, a mixed batch, attention over adapters."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import one_hot

from .check import Mistake, check, require
from .comparison import BYTES, asked, close, explained, learns, match_formula, match_tensor, number, pair, table
from .observation import moved, values_of

_COPIES, _SHARED = "n * (b + h)", "b + n * (a + h)"
_WRONG_COPIES = {
    _SHARED: "the first is what one base with adapters takes: the two are swapped, or the copies are missing",
    "n * b": "the copies lack their heads: each fully fine-tuned model has one, too",
    "n * b + h": "each copy has a head of its own, not all of them one",
    "n * (b + a + h)": "full copies have no adapters: their own weights were trained",
    "b + n * h": "the copies share no base model: full fine-tuning changes it for each task",
    "b + h": "that is one copy: there is one for each task",
}
_WRONG_SHARED = {
    "n * (b + a + h)": "the base model is kept once, not for each task: it is the same, byte for byte",
    "n * (a + h)": "the base model is missing: adapters answer nothing without it",
    "b + n * a": "the adapters' heads are missing: every task has one",
    "b + n * a + h": "each task has a head of its own: they differ in their labels",
    "b + a + n * h": "each task has adapters of its own",
    "b + a + h": "that is one task: each has adapters and a head of its own",
    "b + h + n * (a + h)": "one head too many: the base model is kept without one",
}


@check("8.1", "correct: N whole models, against one base model with N adapters and heads.")
def check_disk(bytes_on_disk: Any) -> None:
    """``bytes_on_disk(tasks, base, adapters, head)`` must give the bytes of N copies, and of one base with adapters."""
    cases = [(8, 1000, 30, 7), (3, 5000, 200, 40), (1, 700, 90, 11)]
    pairs = [pair(bytes_on_disk(*case), "the bytes of the copies, and those with adapters") for case in cases]
    first = "the first is not 4 bytes for every parameter of N base models with a head each"
    second = "the second is not 4 bytes for one base model, N times the adapters and N heads"
    told = (_COPIES, _WRONG_COPIES, first), (_SHARED, _WRONG_SHARED, second)
    for place, (right, wrong, otherwise) in enumerate(told):
        given = [number(both[place]) for both in pairs]
        guesses = {f"{4 * factor} * ({right})": message for factor, message in BYTES.items()}
        guesses |= {f"4 * ({text})": message for text, message in wrong.items()}
        match_formula(given, "n b a h", cases, f"4 * ({right})", guesses, otherwise=otherwise)


@check("8.2", "correct: the task's own adapters everywhere, no others, and its own head.")
def check_switches(make_switches: Any) -> None:
    """``make_switches(model)`` must return ``{task: function}``; calling one switches to the task and to its head."""
    _check_switches(make_switches, ("film", "hotel", "spam"), ("film", "hotel", "spam", "film", "film", "hotel"))
    _check_switches(make_switches, ("x", "y"), ("x", "y"))


def _check_switches(make_switches: Any, tasks: tuple[str, ...], order: tuple[str, ...]) -> None:
    model = SimpleNamespace(
        places=[{name: SimpleNamespace(active=False) for name in tasks} for _ in range(3)],
        heads={name: nn.Linear(4, 2) for name in tasks},
        head=None,
    )
    before = values_of(nn.ModuleDict(model.heads))
    switches = table(make_switches(model), tasks, "task: function")
    if not all(callable(switch) for switch in switches.values()):
        raise Mistake("the dictionary holds what the functions returned: switches[name] = switch, without brackets")
    require(model.head is None and not any(_on(model)), "a switch works while they are made: define it, do not call it")
    for last, task in zip((None, *order), order, strict=False):
        with explained({"missing": f"switches[{task!r}]() is called without arguments: give its own a default"}):
            switches[task]()
        _check_on(model, tasks, task, last)
        if moved(nn.ModuleDict(model.heads), before):
            raise Mistake("a head was overwritten: let model.head be the other head, and copy nothing into it")
        _check_head(model, task)


def _on(model: Any) -> list[set[str]]:
    return [{name for name, adapter in place.items() if adapter.active} for place in model.places]


def _check_on(model: Any, tasks: tuple[str, ...], task: str, last: str | None) -> None:
    if not all(set(place) == set(tasks) for place in model.places):
        raise Mistake("adapters were taken out of the model: a switch sets `active`, and leaves them where they are")
    if not all(isinstance(adapter.active, bool) for place in model.places for adapter in place.values()):
        raise Mistake("`active` is True or False, of no other type")
    on, end = _on(model), tasks[-1]
    together = set().union(*on)
    after = f"after switches[{task!r}]()"
    if last is None and task != end and together == {end}:
        raise Mistake(f"switches[{task!r}] switches on {end!r}, the loop's last task: bind it, def switch(name=name)")
    require(task in together or last != task, f"switches[{task!r}] called twice switches it off: it is no toggle")
    require(task in together, f"{after} its adapters are off")
    both = f"after {last!r} and then {task!r} both have active adapters: switch the others off"
    require(last in (None, task) or last not in together, both)
    require(together == {task}, f"{after} other tasks' adapters are active, too: {sorted(together - {task})}")
    here = f"active in {sum(map(bool, on))} of {len(on)} places"
    require(all(on), f"the adapters of {task!r} are {here}: go through all of model.places")


def _check_head(model: Any, task: str) -> None:
    require(model.head is not None, "the adapters are right, the head is forgotten: model.head = model.heads[name]")
    require(not isinstance(model.head, str), "model.head is a name: it should be the head itself, model.heads[name]")
    for name, head in model.heads.items():
        if name != task and model.head is head:
            raise Mistake(f"{task!r} is switched on and the head of {name!r} answers: each task needs its own head")
    require(model.head is model.heads[task], f"model.head is not model.heads[{task!r}] itself: is it a copy?")


_LABELS = {"a": 2, "b": 3, "c": 4}  # of each task


class _Tasks(dict):
    """Tasks by name, who note what they are given; they tell a row without a task from an unknown one."""

    def __init__(self) -> None:
        super().__init__({name: partial(self.answer, name) for name in _LABELS})
        self.calls: list[tuple[str, int]] = []

    def __missing__(self, name: object) -> Any:
        raise Mistake(f"{name!r} is looked up among the tasks: leave out the rows without a task, their answer is None")

    def answer(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        if not isinstance(rows, torch.Tensor) or rows.dim() != 2:
            raise Mistake("a task takes a batch (rows, d): give it its rows together, and a single one as x[[i]]")
        self.calls.append((name, len(rows)))
        return _logits(name, rows)


def _logits(name: str, rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([(rows * (i + 1) + ord(name)).sin().sum(-1) for i in range(_LABELS[name])], dim=-1)


@check("8.3", "correct: each task once, with its own rows, and every answer back in its row.")
def check_mixed(answer_mixed: Any) -> None:
    """``answer_mixed(x, names, tasks)`` must call each task once with its rows and put the answers in their order."""
    for names in (["b", "a", "a", None, "c", "b", "a"], ["a", "b"], ["c", None, "c"], [None]):
        x, tasks = torch.randn(len(names), 5), _Tasks()
        with explained({"'<' not": "None cannot be sorted among names: leave it out, or sort by `name or ''`"}):
            answer = asked(answer_mixed, x, names, tasks)
        if not isinstance(answer, (list, tuple)):
            raise Mistake(f"it must return a list, not a {type(answer).__name__}: answers do not fit into one tensor")
        right = [name and _logits(name, row) for name, row in zip(names, x, strict=True)]
        _check_answers(list(answer), names, right, x)
        _check_calls(tasks.calls, names)


def _same(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else isinstance(a, torch.Tensor) and close(a, b)


def _check_answers(given: list, names: list, right: list, x: torch.Tensor) -> None:
    there, left = ([answer for answer in answers if answer is not None] for answers in (right, given))
    none = ": a row without a task has its place in the list, too, with None" if len(given) == len(there) else ""
    require(len(given) == len(names), f"{len(given)} answers for {len(names)} rows{none}")
    other = next((type(a).__name__ for a in given if not isinstance(a, (torch.Tensor, type(None)))), "")
    require(not other, f"an answer is a {other}: leave each what its task gives, a tensor (labels,)")
    if any(isinstance(a, torch.Tensor) and a.dim() > 1 for a in given):
        raise Mistake("an answer is a batch: take the answers of a task apart, one (labels,) for each row")
    if all(map(_same, given, right)):
        return
    if len(left) == len(there) and all(any(_same(a, b) for b in there) for a in left):
        raise Mistake("every answer is there, but not in its row: put each where its row was")
    for i, (name, answer) in enumerate(zip(names, given, strict=True)):
        require(name is not None or answer is None, f"row {i} has no task and got an answer: it should be None")
        require(name is None or answer is not None, f"row {i} has no answer: is a group left out or overwritten?")
        for other in _LABELS:
            if name not in (None, other) and _same(answer, _logits(other, x[i])):
                raise Mistake(f"row {i} belongs to {name!r} and is answered by {other!r}")
        require(_same(answer, right[i]), f"row {i} is not what task {name!r} answers to it: does it get other rows?")


def _check_calls(calls: list[tuple[str, int]], names: list) -> None:
    for name in _LABELS:
        rows, sizes = names.count(name), [size for called, size in calls if called == name]
        task, most = f"right, but task {name!r}", max(sizes, default=0)
        require(rows > 0 or not sizes, f"{task} is called although no row names it: go through the batch's names")
        require(most <= rows, f"{task} computes {most} rows and has {rows}: pick its rows before the call")
        if len(sizes) > 1:
            own = "row by row; give it all of its rows in one call"
            near = "neighbours alone make no group, collect all its rows"
            why = "its answers are there already" if sum(sizes) > rows else own if len(sizes) == rows else near
            raise Mistake(f"{task} is called {len(sizes)} times: {why}")


@check("8.4", "correct: for each token one weight an adapter, summing to 1, and the mixture of their values.")
def check_fusion(fuse: Any) -> None:
    """``fuse(h, updates, query, key, value)`` must mix what the adapters add by attention, for each token."""
    adapters, tokens, d = 3, 4, 6
    h, a = torch.randn(tokens, d), torch.randn(adapters, tokens, d)
    query, key, value = (nn.Linear(d, d, bias=False) for _ in range(3))
    answer = asked(fuse, h, a, query, key, value, hint="h is (tokens, d), the updates are (adapters, tokens, d)")
    mixed, weights = pair(answer, "the mixture (tokens, d) and the weights (adapters, tokens)")
    require(all(isinstance(t, torch.Tensor) for t in answer), "both the mixture and the weights are tensors")
    require(mixed.shape != (adapters, tokens) or weights.shape != h.shape, "the two are swapped: mixture first")
    with torch.no_grad():
        _check_weights(weights, h, a, query, key)
        _check_mixture(mixed, weights[..., None], h, a, key, value)
    learns(mixed, {"query": query.weight, "key": key.weight, "value": value.weight})


def _check_weights(weights: torch.Tensor, h: torch.Tensor, a: torch.Tensor, query: nn.Module, key: nn.Module) -> None:
    """The attention of hidden states h (tokens, d) over updates a (adapters, tokens, d)."""
    n, tokens, d = a.shape
    products = query(h) * key(a)
    scores = products.sum(-1)
    right = scores.softmax(0)
    require(not close(weights, right.T), "the weights are right, but transposed: return (adapters, tokens)")
    shape = f"the weights have shape {tuple(weights.shape)}, not (adapters, tokens) = {(n, tokens)}"
    require(weights.shape == (n, tokens), f"{shape}; each is a dot product, a sum over d")
    summed = products.sum((1, 2))[:, None].softmax(0).expand(n, tokens)
    guesses = {
        scores: "the scores are no weights yet: softmax makes them positive, with sum 1",
        torch.ones(n, tokens): "every weight is 1: take the softmax over the adapters' axis",
        scores.softmax(1): "the softmax runs over the tokens, the wrong axis: adapters' weights sum to 1",
        scores.flatten().softmax(0).view_as(scores): "the softmax runs over adapters and tokens together",
        products.softmax(0).sum(-1): "the softmax comes before the sum: sum the products over d first",
        products.mean(-1).softmax(0): "the products are averaged over d: a dot product sums them",
        (scores / d**0.5).softmax(0): "the scores are divided by √d: AdapterFusion's formula does not do that",
        (query(a) * key(h)).sum(-1).softmax(0): "query and key are swapped: h asks, the updates are the keys",
        (query(a) * key(a)).sum(-1).softmax(0): "the query comes from the updates: it is the hidden state h that asks",
        (h * key(a)).sum(-1).softmax(0): "the query is missing: h goes through it first",
        (query(h) * a).sum(-1).softmax(0): "the key is missing: the updates go through it first",
        (h * a).sum(-1).softmax(0): "query and key are missing: h and the updates go through them first",
        summed: "all tokens have the same weights: the scores are summed over the tokens, too",
        scores.sigmoid(): "each weight is a sigmoid of its own: in a softmax the adapters compete, with sum 1",
        torch.full((n, tokens), 1 / n): "all adapters weigh the same: the weights do not depend on the scores",
        one_hot(scores.argmax(0), n).T.float(): "only the best adapter counts: softmax has a gradient",
    }
    otherwise = "the weights are not softmax over the adapters of query(h) · key(update), for each token"
    match_tensor(weights, right, guesses, otherwise)


def _check_mixture(
    mixed: torch.Tensor, w: torch.Tensor, h: torch.Tensor, a: torch.Tensor, key: nn.Module, value: nn.Module
) -> None:
    """The mixture of the values by weights w (adapters, tokens, 1)."""
    right = (w * value(a)).sum(0)
    require(mixed.shape != a.shape, "the mixture has one entry for each adapter: sum over the adapters")
    require(mixed.shape == h.shape, f"the mixture has shape {tuple(mixed.shape)}, not (tokens, d) = {tuple(h.shape)}")
    guesses = {
        (w * a).sum(0): "value is missing: the updates go through it before they are mixed",
        (w * key(a)).sum(0): "the keys are mixed: it is the values of the updates",
        value(h): "the values come from h, so all adapters say the same: they come from the updates",
        h + right: "h is added: here only the mixture is asked for",
        value(a).sum(0): "the values are summed without their weights",
        value(a).mean(0): "the values are averaged: the weights are not used",
        right / len(a): "the weighted values are averaged: the weights sum to 1 already, take the sum",
    }
    otherwise = "the weights are right, the mixture is not: sum weight times value(update) over the adapters"
    match_tensor(mixed, right, guesses, otherwise)
