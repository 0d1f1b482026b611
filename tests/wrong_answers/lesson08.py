import copy
from collections import defaultdict
from functools import partial
from itertools import groupby

import numpy
import torch

from .fusing import (
    einstein,
    fusing,
    in_place,
    mixes_keys,
    scores,
    token_by_token,
    value_last,
    with_attention,
    without_gradient,
)

# --- 8.1 ------------------------------------------------------------------------------------------------------------


def formula(copies=lambda n, b, a, h: n * (b + h), shared=lambda n, b, a, h: b + n * (a + h), unit=4):
    return lambda *sizes: (unit * copies(*sizes), unit * shared(*sizes))


def by_adding_up(tasks, base, adapters, head):
    copies, shared = 0, 4 * base
    for _ in range(tasks):
        copies += 4 * base + 4 * head
        shared += 4 * (adapters + head)
    return [copies, shared]


# --- 8.2 ------------------------------------------------------------------------------------------------------------


def off_and_on(model, name):
    for place in model.places:
        for task, adapter in place.items():
            adapter.active = task == name


def set_head(model, name):
    model.head = model.heads[name]


def switching(*steps):
    """A function for each task that takes these steps, bound as it should be."""

    def make_switches(model):
        def make(name):
            def switch():
                for step in steps:
                    step(model, name)

            return switch

        return {name: make(name) for name in model.heads}

    return make_switches


def only_on(model, name):
    for place in model.places:
        place[name].active = True


def lowest_place(model, name):
    for task, adapter in model.places[0].items():
        adapter.active = task == name


def toggle(model, name):
    for place in model.places:
        for task, adapter in place.items():
            adapter.active = task == name and not adapter.active


def throw_away(model, name):
    for place in model.places:
        place[name].active = True
        for task in [task for task in place if task != name]:
            del place[task]


def all_on(model, name):
    for place in model.places:
        for adapter in place.values():
            adapter.active = True


def all_off(model, name):
    for place in model.places:
        for adapter in place.values():
            adapter.active = False


def head_by_name(model, name):
    model.head = name


def head_copied(model, name):
    model.head = copy.deepcopy(model.heads[name])


def head_overwritten(model, name):
    if model.head is None:
        model.head = next(iter(model.heads.values()))
    model.head.load_state_dict(model.heads[name].state_dict())


def first_head(model, name):
    model.head = next(iter(model.heads.values()))


def as_it_was(model):
    """The colleague's."""
    switches = {}
    for name in model.heads:

        def switch():
            for place in model.places:
                place[name].active = True

        switches[name] = switch
    return switches


def still_late(model):
    """Off, on and the head are right; the loop's variable is not bound."""
    switches = {}
    for name in model.heads:

        def switch():
            off_and_on(model, name)
            set_head(model, name)

        switches[name] = switch
    return switches


def late_head(model):
    """Only the adapters' name is bound."""
    switches = {}
    for name in model.heads:

        def switch(task=name):
            off_and_on(model, task)
            set_head(model, name)

        switches[name] = switch
    return switches


def called_at_once(model):
    def switch(name):
        off_and_on(model, name)
        set_head(model, name)

    return {name: switch(name) for name in model.heads}


def called_and_kept(model):
    def switch(name):
        off_and_on(model, name)
        set_head(model, name)
        return switch

    return {name: switch(name) for name in model.heads}


def one_switch(model):
    return lambda name: (off_and_on(model, name), set_head(model, name))


class Switch:
    """Something to call, that is no function."""

    def __init__(self, model, name):
        self.model, self.name = model, name

    def __call__(self):
        off_and_on(self.model, self.name)
        set_head(self.model, self.name)


def default_argument(model):
    switches = {}
    for name in model.heads:

        def switch(name=name):
            for place in model.places:
                for task, adapter in place.items():
                    adapter.active = task == name
            model.head = model.heads[name]

        switches[name] = switch
    return switches


def partials(model):
    def switch(name):
        for place in model.places:
            for adapter in place.values():
                adapter.active = False
            place[name].active = True
        model.head = model.heads[name]

    return {name: partial(switch, name) for name in model.heads}


# --- 8.3 ------------------------------------------------------------------------------------------------------------


def right_mixed(x, names, tasks):
    answers = [None] * len(names)
    for name in set(names) - {None}:
        rows = [i for i, n in enumerate(names) if n == name]
        for i, answer in zip(rows, tasks[name](x[rows])):
            answers[i] = answer
    return answers


def by_sorting(x, names, tasks):
    order = sorted((i for i, name in enumerate(names) if name is not None), key=lambda i: names[i])
    answers = {}
    for name, rows in groupby(order, key=lambda i: names[i]):
        rows = list(rows)
        answers |= dict(zip(rows, tasks[name](x[rows])))
    return [answers.get(i) for i in range(len(names))]


def with_a_mask(x, names, tasks):
    answers = [None] * len(names)
    for name, task in tasks.items():
        mask = torch.tensor([n == name for n in names])
        if mask.any():
            for i, answer in zip(mask.nonzero().flatten().tolist(), task(x[mask]).unbind()):
                answers[i] = answer
    return tuple(answers)


def with_a_dictionary(x, names, tasks):
    rows = defaultdict(list)
    for i, name in enumerate(names):
        if name is not None:
            rows[name].append(i)
    answers = {
        i: row for name, own in rows.items() for i, row in zip(own, tasks[name](torch.stack([x[i] for i in own])))
    }
    return list(map(answers.get, range(len(x))))


def sorts_the_names(x, names, tasks):
    names.sort(key=lambda name: name or "")
    return right_mixed(x, names, tasks)


def group_order(x, names, tasks):
    """Sorted by task, and never put back."""
    answers = []
    for name in sorted({n for n in names if n is not None}):
        answers += list(tasks[name](x[[i for i, n in enumerate(names) if n == name]]))
    return answers + [None] * names.count(None)


def without_the_others(x, names, tasks):
    return [answer for answer in right_mixed(x, names, tasks) if answer is not None]


def looks_none_up(x, names, tasks):
    answers = [None] * len(names)
    for name in set(names):
        rows = [i for i, n in enumerate(names) if n == name]
        for i, answer in zip(rows, tasks[name](x[rows])):
            answers[i] = answer
    return answers


def sorts_none(x, names, tasks):
    answers = [None] * len(names)
    for name in sorted(set(names)):
        for i, n in enumerate(names):
            if n == name and n is not None:
                answers[i] = tasks[n](x[[i]])[0]
    return answers


def row_by_row(x, names, tasks):
    return [None if name is None else tasks[name](x[i : i + 1])[0] for i, name in enumerate(names)]


def single_rows(x, names, tasks):
    return [None if name is None else tasks[name](row) for name, row in zip(names, x)]


def batches_of_one(x, names, tasks):
    return [None if name is None else tasks[name](x[i : i + 1]) for i, name in enumerate(names)]


def everything_by_every_task(x, names, tasks):
    results = {name: tasks[name](x) for name in set(names) - {None}}
    return [None if name is None else results[name][i] for i, name in enumerate(names)]


def every_task(x, names, tasks):
    answers = [None] * len(names)
    for name, task in tasks.items():
        rows = [i for i, n in enumerate(names) if n == name]
        for i, answer in zip(rows, task(x[rows])):
            answers[i] = answer
    return answers


def neighbours(x, names, tasks):
    answers = []
    start = 0
    for name, group in groupby(names):
        count = len(list(group))
        answers += [None] * count if name is None else list(tasks[name](x[start : start + count]))
        start += count
    return answers


def the_first_rows(x, names, tasks):
    """Takes as many rows as there are, but not the task's own."""
    answers = [None] * len(names)
    for name in set(names) - {None}:
        rows = [i for i, n in enumerate(names) if n == name]
        for i, answer in zip(rows, tasks[name](x[: len(rows)])):
            answers[i] = answer
    return answers


def the_first_task(x, names, tasks):
    """Every row to the task of the first one."""
    first = next(iter(tasks))
    return [None if name is None else tasks[first](x[[i]])[0] for i, name in enumerate(names)]


def some_task_for_none(x, names, tasks):
    first = next(iter(tasks))
    return right_mixed(x, [name or first for name in names], tasks)


def stacked(x, names, tasks):
    width = 4
    padded = [
        torch.zeros(width) if a is None else torch.nn.functional.pad(a, (0, width - len(a)))
        for a in right_mixed(x, names, tasks)
    ]
    return torch.stack(padded)


def by_task(x, names, tasks):
    return {name: tasks[name](x[[i for i, n in enumerate(names) if n == name]]) for name in set(names) - {None}}


def overwritten(x, names, tasks):
    for name in set(names) - {None}:
        answers = [None] * len(names)
        rows = [i for i, n in enumerate(names) if n == name]
        for i, answer in zip(rows, tasks[name](x[rows])):
            answers[i] = answer
    return answers


def asks_for_a_name(model):
    def switch(name):
        off_and_on(model, name)
        set_head(model, name)

    return dict.fromkeys(model.heads, switch)


def lists_of_numbers(x, names, tasks):
    return [answer if answer is None else answer.tolist() for answer in right_mixed(x, names, tasks)]


def all_rows_twice(x, names, tasks):
    right_mixed(x, names, tasks)
    return right_mixed(x, names, tasks)


WRONG = {
    "check_disk": [
        (formula(copies=lambda n, b, a, h: n * b), "the copies lack their heads"),
        (formula(copies=lambda n, b, a, h: n * b + h), "each copy has a head of its own"),
        (formula(copies=lambda n, b, a, h: n * (b + a + h)), "full copies have no adapters"),
        (formula(copies=lambda n, b, a, h: b + n * h), "share no base model"),
        (formula(copies=lambda n, b, a, h: b + h), "that is one copy"),
        (formula(shared=lambda n, b, a, h: n * (b + a + h)), "the base model is kept once"),
        (formula(shared=lambda n, b, a, h: n * (a + h)), "the base model is missing"),
        (formula(shared=lambda n, b, a, h: b + n * a), "the adapters' heads are missing"),
        (formula(shared=lambda n, b, a, h: b + n * a + h), "each task has a head of its own"),
        (formula(shared=lambda n, b, a, h: b + a + n * h), "each task has adapters of its own"),
        (formula(shared=lambda n, b, a, h: b + a + h), "that is one task"),
        (formula(shared=lambda n, b, a, h: b + h + n * (a + h)), "one head too many"),
        (formula(unit=1), "those are numbers"),
        (formula(unit=32), "those are bits"),
        (formula(unit=2), "4 bytes, not 2"),
        (formula(unit=4 / 2**20), "those are MiB"),
        (formula(unit=4e-6), "those are MB"),
        (lambda *sizes: formula()(*sizes)[::-1], "the two are swapped"),
        (lambda *sizes: formula()(*sizes)[1], "must return two values"),
        (lambda *sizes: None, "return missing"),
        (formula(lambda n, b, a, h: (n + 1) * (b + h)), "the first is not", False),
    ],
    "check_switches": [
        (asks_for_a_name, "is called without arguments"),
        (as_it_was, "the loop's last task"),
        (still_late, "the loop's last task"),
        (late_head, "the head of 'spam' answers"),
        (switching(only_on, set_head), "both have active adapters"),
        (switching(off_and_on), "the head is forgotten"),
        (switching(lowest_place, set_head), "in 1 of 3 places"),
        (switching(toggle, set_head), "it is no toggle"),
        (switching(throw_away, set_head), "taken out of the model"),
        (switching(all_on, set_head), "other tasks' adapters are active"),
        (switching(all_off, set_head), "its adapters are off"),
        (switching(off_and_on, head_by_name), "model.head is a name"),
        (switching(off_and_on, head_copied), "itself: is it a copy?"),
        (switching(off_and_on, head_overwritten), "a head was overwritten"),
        (switching(off_and_on, first_head), "'hotel' is switched on and the head of 'film' answers"),
        (called_at_once, "without brackets"),
        (called_and_kept, "define it, do not call it"),
        (one_switch, "with the keys"),
        (lambda model: None, "return missing"),
    ],
    "check_mixed": [
        (lists_of_numbers, "an answer is a list"),
        (all_rows_twice, "its answers are there already"),
        (group_order, "not in its row"),
        (without_the_others, "has its place in the list, too"),
        (looks_none_up, "None is looked up among the tasks"),
        (sorts_none, "None cannot be sorted"),
        (row_by_row, "row by row; give it all"),
        (single_rows, "a task takes a batch"),
        (batches_of_one, "an answer is a batch"),
        (everything_by_every_task, "computes 7 rows and has 3"),
        (every_task, "although no row names it"),
        (neighbours, "neighbours alone make no group"),
        (the_first_rows, "does it get other rows"),
        (the_first_task, "is answered by 'a'"),
        (some_task_for_none, "it should be None"),
        (stacked, "not a Tensor"),
        (by_task, "not a dict"),
        (overwritten, "has no answer"),
        (sorts_the_names, "was changed in place"),
        (lambda *inputs: right_mixed(*inputs) and None, "return missing"),
    ],
    "check_fusion": [
        (fusing(lambda *x: scores(*x).softmax(1)), "over the tokens, the wrong axis"),
        (fusing(lambda *x: scores(*x)[..., None].softmax(-1)[..., 0]), "every weight is 1"),
        (fusing(lambda q, k, h, a: (q(h) * k(a)).softmax(-1).sum(-1)), "every weight is 1"),
        (fusing(lambda q, k, h, a: (q(h) * k(a)).softmax(0).sum(-1)), "before the sum"),
        (fusing(lambda *x: scores(*x).flatten().softmax(0).view(len(x[3]), -1)), "adapters and tokens together"),
        (fusing(scores), "no weights yet"),
        (fusing(lambda *x: scores(*x).sigmoid()), "a sigmoid of its own"),
        (fusing(lambda *x: (scores(*x) / x[2].shape[-1] ** 0.5).softmax(0)), "divided by √d"),
        (fusing(lambda q, k, h, a: (q(h) * k(a)).mean(-1).softmax(0)), "averaged over d"),
        (fusing(lambda q, k, h, a: scores(k, q, h, a).softmax(0)), "query and key are swapped"),
        (fusing(lambda q, k, h, a: scores(q, k, a, a).softmax(0)), "the hidden state h that asks"),
        (fusing(lambda q, k, h, a: (h * k(a)).sum(-1).softmax(0)), "the query is missing"),
        (fusing(lambda q, k, h, a: (q(h) * a).sum(-1).softmax(0)), "the key is missing"),
        (fusing(lambda q, k, h, a: (h * a).sum(-1).softmax(0)), "query and key are missing"),
        (
            fusing(lambda q, k, h, a: scores(q, k, h, a).sum(1, keepdim=True).softmax(0).expand(-1, len(h))),
            "all tokens have the same weights",
        ),
        (fusing(lambda q, k, h, a: torch.full(a.shape[:2], 1 / len(a))), "all adapters weigh the same"),
        (
            fusing(lambda *x: torch.nn.functional.one_hot(scores(*x).argmax(0), len(x[3])).T.float()),
            "only the best adapter counts",
        ),
        (fusing(mix=lambda w, v, h, a: (w[..., None] * a).sum(0)), "value is missing"),
        (mixes_keys, "the keys are mixed"),
        (fusing(mix=lambda w, v, h, a: (w[..., None] * v(h)).sum(0)), "the values come from h"),
        (fusing(mix=lambda w, v, h, a: h + (w[..., None] * v(a)).sum(0)), "h is added"),
        (fusing(mix=lambda w, v, h, a: v(a).sum(0)), "without their weights"),
        (fusing(mix=lambda w, v, h, a: v(a).mean(0)), "the weights are not used"),
        (fusing(mix=lambda w, v, h, a: (w[..., None] * v(a)).mean(0)), "take the sum"),
        (fusing(mix=lambda w, v, h, a: w[..., None] * v(a)), "sum over the adapters"),
        (lambda *x: fusing()(*x)[0], "must return two values"),
        (lambda *x: fusing()(*x)[::-1], "the two are swapped"),
        (lambda *x: (fusing()(*x)[0], fusing()(*x)[1].T), "transposed"),
        (in_place, "changed in place"),
        (without_gradient, "no gradient reaches query"),
        (fusing(mix=lambda w, v, h, a: (w.detach()[..., None] * v(a)).sum(0)), "no gradient reaches query:"),
        (lambda *x: None, "return missing"),
        (lambda h, a, q, k, v: (q(h) @ k(a).mT.flatten(0, 1), h), "h is (tokens, d)", False),
    ],
}
RIGHT = {
    "check_disk": [
        formula(),
        by_adding_up,
        lambda n, b, a, h: (4 * sum([b, h] * n), 4 * sum([b] + [a, h] * n)),
        lambda n, b, a, h: tuple(numpy.array([[n, 0, n], [1, n, n]]) @ [b, a, h] * 4),
        lambda n, b, a, h: [torch.float32.itemsize * parameters for parameters in (n * b + n * h, b + n * a + n * h)],
    ],
    "check_switches": [
        switching(off_and_on, set_head),
        default_argument,
        partials,
        lambda model: {name: Switch(model, name) for name in model.heads},
        lambda model: dict(
            zip(model.heads, (lambda n=n: (off_and_on(model, n), set_head(model, n)) for n in model.heads))
        ),
    ],
    "check_mixed": [right_mixed, by_sorting, with_a_mask, with_a_dictionary],
    "check_fusion": [fusing(), token_by_token, einstein, value_last, with_attention],
}
