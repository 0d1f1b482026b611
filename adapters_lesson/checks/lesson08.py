"""Checks of lesson 08: bytes for many tasks, switching, a mixed batch, attention over adapters."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from .fusing import check_mixture, check_weights
from .matching import called, number
from .report import Mistake, check, close, require

_NOTHING = "the function returns None: is the return missing?"
_Formula = Callable[[int, int, int, int], float]  # of tasks, base, adapters, head

_UNITS = (
    (1, "those are numbers of parameters: each takes 4 bytes in single precision"),
    (32, "those are bits: a parameter in single precision takes 32 of them, 4 bytes"),
    (2, "a parameter in single precision takes 4 bytes, not 2"),
    (8, "a parameter in single precision takes 4 bytes, not 8"),
    (4 / 2**20, "those are MiB: return bytes"),
    (4e-6, "those are MB: return bytes"),
)
_WRONG_COPIES: list[tuple[_Formula, str]] = [
    (lambda n, b, a, h: n * b, "the copies lack their heads: each fully fine-tuned model has one, too"),
    (lambda n, b, a, h: n * b + h, "each copy has a head of its own, not all of them one"),
    (lambda n, b, a, h: n * (b + a + h), "full copies have no adapters: their own weights were trained"),
    (lambda n, b, a, h: b + n * h, "the copies share no base model: full fine-tuning changes it for each task"),
    (lambda n, b, a, h: b + h, "that is one copy: there is one for each task"),
]
_WRONG_SHARED: list[tuple[_Formula, str]] = [
    (lambda n, b, a, h: n * (b + a + h), "the base model is kept once, not for each task: it is the same, byte for byte"),
    (lambda n, b, a, h: n * (a + h), "the base model is missing: adapters answer nothing without it"),
    (lambda n, b, a, h: b + n * a, "the adapters' heads are missing: every task has one"),
    (lambda n, b, a, h: b + n * a + h, "each task has a head of its own: they differ in their labels"),
    (lambda n, b, a, h: b + a + n * h, "each task has adapters of its own"),
    (lambda n, b, a, h: b + a + h, "that is one task: each has adapters and a head of its own"),
    (lambda n, b, a, h: b + h + n * (a + h), "one head too many: the base model is kept without one"),
]  # fmt: skip


@check("8.1", "correct: N whole models, against one base model with N adapters and heads.")
def check_disk(bytes_on_disk: Any) -> None:
    """``bytes_on_disk(tasks, base, adapters, head)`` must give the bytes of N copies and of one base with N adapters."""
    cases = [(8, 1000, 30, 7), (3, 5000, 200, 40), (1, 700, 90, 11)]
    answers = [bytes_on_disk(*case) for case in cases]
    require(None not in answers, _NOTHING)
    require(
        all(isinstance(a, (tuple, list, torch.Tensor)) and len(a) == 2 for a in answers),
        "the function must return two numbers: the bytes of the copies, and those of one base with adapters",
    )
    answers = [tuple(map(number, pair)) for pair in answers]

    def given(which: int, formula: _Formula, factor: float = 4) -> bool:
        return all(abs(a[which] - factor * formula(*c)) < 1e-6 for a, c in zip(answers, cases, strict=True))

    def copies(n: int, b: int, a: int, h: int) -> int:
        return n * (b + h)

    def shared(n: int, b: int, a: int, h: int) -> int:
        return b + n * (a + h)

    require(
        not (given(1, copies) and given(0, shared)),
        "the two are swapped: first the copies, then one base with adapters",
    )
    for factor, message in _UNITS:
        require(not (given(0, copies, factor) or given(1, shared, factor)), message)
    for which, table in enumerate((_WRONG_COPIES, _WRONG_SHARED)):
        for formula, message in table:
            require(not given(which, formula), message)
    require(given(0, copies), "the first is not 4 bytes for every parameter of N base models with a head each")
    require(given(1, shared), "the second is not 4 bytes for one base model, N times the adapters and N heads")  # fmt: skip


_TASKS = ("film", "hotel", "spam")


@check("8.2", "correct: the task's own adapters everywhere, no others, and its own head.")
def check_switches(make_switches: Any) -> None:
    """``make_switches(model)`` must return ``{task: function}``; calling one switches to the task and to its head."""
    model = SimpleNamespace(
        places=[{name: SimpleNamespace(active=False) for name in _TASKS} for _ in range(3)],
        heads={name: nn.Linear(4, 2) for name in _TASKS},
        head=None,
    )
    before = [p.detach().clone() for head in model.heads.values() for p in head.parameters()]
    switches = make_switches(model)
    require(switches is not None, _NOTHING)
    require(
        isinstance(switches, dict) and sorted(switches) == sorted(_TASKS),
        "it must return a dictionary with a function for each task, {task: function, ...}",
    )
    require(
        all(callable(switch) for switch in switches.values()),
        "the dictionary holds what the functions returned: switches[name] = switch, without brackets, keeps the function",
    )
    require(model.head is None and not any(_on(model)), "a switch works while they are made: define it, do not call it")
    last = None
    for task in ("film", "hotel", "spam", "film", "film", "hotel"):
        switches[task]()
        _check_on(model, task, last)
        after = [p for head in model.heads.values() for p in head.parameters()]
        require(
            len(after) == len(before) and all(map(torch.equal, before, after)),
            "a head was overwritten: let model.head be the other head, and copy nothing into it",
        )
        _check_head(model, task)
        last = task


def _on(model: Any) -> list[set[str]]:
    return [{name for name, adapter in place.items() if adapter.active} for place in model.places]


def _check_on(model: Any, task: str, last: str | None) -> None:
    require(
        all(sorted(place) == sorted(_TASKS) for place in model.places),
        "adapters were taken out of the model: a switch sets `active`, and leaves them where they are",
    )
    on, end = _on(model), _TASKS[-1]
    together = set().union(*on)
    require(
        last is not None or together != {end},
        f"switches[{task!r}] switches on {end!r}, the loop's last task: a function made in a loop looks `name` up when it "
        "is called; bind it, for instance with `def switch(name=name)`",
    )
    require(task in together or last != task, f"switches[{task!r}] called twice switches {task!r} off: it is no toggle")
    require(task in together, f"after switches[{task!r}]() its adapters are off")
    require(
        last in (None, task) or last not in together,
        f"after {last!r} and then {task!r} both have active adapters: switch the others off",
    )
    require(
        together == {task},
        f"after switches[{task!r}]() other tasks' adapters are active, too: {sorted(together - {task})}",
    )
    require(
        all(on),
        f"the adapters of {task!r} are active in {sum(map(bool, on))} of {len(on)} places: go through all of model.places",
    )


def _check_head(model: Any, task: str) -> None:
    require(model.head is not None, "the adapters are right, the head is forgotten: model.head = model.heads[name]")
    require(not isinstance(model.head, str), "model.head is a name: it should be the head itself, model.heads[name]")
    for name, head in model.heads.items():
        require(
            name == task or model.head is not head,
            f"{task!r} is switched on and the head of {name!r} answers: each task's features need its own head",
        )
    require(
        model.head is model.heads[task], "model.head is a copy: what training changes in it, model.heads would not know"
    )


_LABELS = {"a": 2, "b": 3, "c": 4}  # of each task


class _Tasks(dict):
    """Tasks by name, who note what they are given; they tell a row without a task from an unknown one."""

    def __init__(self, calls: list[tuple[str, int]]) -> None:
        super().__init__({name: self._task(name, calls) for name in _LABELS})

    def __missing__(self, name: object) -> Any:
        raise Mistake(f"{name!r} is looked up among the tasks: leave out the rows without a task, their answer is None")

    def _task(self, name: str, calls: list[tuple[str, int]]) -> Callable[[torch.Tensor], torch.Tensor]:
        def answer(rows: torch.Tensor) -> torch.Tensor:
            require(
                isinstance(rows, torch.Tensor) and rows.dim() == 2,
                "a task takes a batch (rows, d): give it its rows together, and a single one as x[[i]]",
            )
            calls.append((name, len(rows)))
            return _logits(name, rows)

        return answer


def _logits(name: str, rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([(rows * (i + 1) + ord(name)).sin().sum(-1) for i in range(_LABELS[name])], dim=-1)


@check("8.3", "correct: each task once, with its own rows, and every answer back in its row.")
def check_mixed(answer_mixed: Any) -> None:
    """``answer_mixed(x, names, tasks)`` must call each task once with its rows and put the answers in their order."""
    for names in (["b", "a", "a", None, "c", "b", "a"], ["a", "b"], ["c", None, "c"], [None]):
        x, calls = torch.randn(len(names), 5), []  # type: ignore[var-annotated]
        given, asked = x.clone(), list(names)
        try:
            answer = answer_mixed(x, asked, _Tasks(calls))
        except TypeError as error:
            sorting = "'<' not supported" in str(error)
            require(not sorting, "None cannot be sorted among names: leave those rows out, or sort by `name or ''`")
            raise
        require(answer is not None, _NOTHING)
        require(
            asked == names and torch.equal(x, given),
            "the batch or its names were changed (sort, pop and += do that): make new ones, others need them",
        )
        require(
            isinstance(answer, (list, tuple)),
            f"it must return a list with an answer for each row, not a {type(answer).__name__}: "
            "the tasks have different numbers of labels, so the answers do not fit into one tensor",
        )
        _check_answers(
            list(answer), names, [name and _logits(name, row) for name, row in zip(names, x, strict=True)], x
        )
        _check_calls(calls, names)


def _same(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else isinstance(a, torch.Tensor) and close(a, b)


def _check_answers(given: list, names: list, right: list, x: torch.Tensor) -> None:
    there = [answer for answer in right if answer is not None]
    require(
        len(given) == len(names),
        f"{len(given)} answers for {len(names)} rows"
        + (": a row without a task has its place in the list, too, with None" if len(given) == len(there) else ""),
    )
    require(
        not any(isinstance(a, torch.Tensor) and a.dim() != 1 for a in given),
        "an answer is a batch: take the answers of a task apart, one (labels,) for each row",
    )
    if all(map(_same, given, right)):
        return
    left = [answer for answer in given if answer is not None]
    require(
        len(left) != len(there) or not all(any(_same(a, b) for b in there) for a in left),
        "every answer is there, but not in its row: they still stand in the order of the groups; put each where its row was",
    )
    for i, (name, answer) in enumerate(zip(names, given, strict=True)):
        require(name is not None or answer is None, f"row {i} has no task and got an answer: it should be None")
        require(name is None or answer is not None, f"row {i} has no answer: is a group left out or overwritten?")
        for other in _LABELS:
            require(
                name in (None, other) or not _same(answer, _logits(other, x[i])),
                f"row {i} belongs to {name!r} and is answered by {other!r}: another task's adapter and head",
            )
        require(_same(answer, right[i]), f"row {i} is not what task {name!r} answers to it: does it get other rows?")


def _check_calls(calls: list[tuple[str, int]], names: list) -> None:
    for name in _LABELS:
        rows, sizes = names.count(name), [size for called, size in calls if called == name]
        require(
            rows > 0 or not sizes, f"task {name!r} is called although no row names it: go through the batch's names"
        )
        require(
            max(sizes, default=0) <= rows,
            f"right, but task {name!r} computes {max(sizes, default=0)} rows and has {rows}: pick its rows before the call",
        )
        require(
            len(sizes) <= 1 or len(sizes) != rows,
            f"right, but row by row: task {name!r} is called {rows} times; give it all of its rows in one call",
        )
        require(
            len(sizes) <= 1,
            f"right, but task {name!r} is called {len(sizes)} times: neighbours alone make no group, collect all its rows",
        )


@check("8.4", "correct: for each token one weight an adapter, summing to 1, and the mixture of their values.")
def check_fusion(fuse: Any) -> None:
    """``fuse(h, updates, query, key, value)`` must mix what the adapters add by attention, for each token."""
    adapters, tokens, d = 3, 4, 6
    h, a = torch.randn(tokens, d), torch.randn(adapters, tokens, d)
    query, key, value = (nn.Linear(d, d, bias=False) for _ in range(3))
    before = h.clone(), a.clone()
    answer = called(fuse, h, a, query, key, value, hint="h is (tokens, d), the updates are (adapters, tokens, d)")
    require(answer is not None, _NOTHING)
    require(
        isinstance(answer, (tuple, list)) and len(answer) == 2 and all(isinstance(t, torch.Tensor) for t in answer),
        "return two tensors: the mixture (tokens, d) and the weights (adapters, tokens)",
    )
    require(
        torch.equal(h, before[0]) and torch.equal(a, before[1]), "the inputs were changed in place: make new tensors"
    )
    mixed, weights = answer
    require(mixed.shape != (adapters, tokens) or weights.shape != h.shape, "the two are swapped: first the mixture")
    with torch.no_grad():
        check_weights(weights, h, a, query, key)
        check_mixture(mixed, weights[..., None], h, a, key, value)
    require(mixed.requires_grad, "no gradient reaches query, key and value: is there a detach or a no_grad?")
    mixed.sum().backward()
    for name, part in (("query", query), ("key", key), ("value", value)):
        require(part.weight.grad is not None, f"no gradient reaches {name}: is there a detach or a no_grad?")
