"""Banks of adapters and their labels, settings of odd types, compositions, heads; and whether the hints mend."""

from __future__ import annotations

import copy
import enum
import pickle
import threading
import types

import numpy as np
import torch
import transformers as hf
from models import _BERT, make, randomise, slots, small
from torch import nn

import adapters_lesson
from adapters_lesson import (
    AdapterBank,
    AdapterConfig,
    Classifier,
    drop_adapters,
    insert_adapters,
    load_adapter,
    prepare,
    remove_adapters,
    save_adapter,
    set_active_adapter,
    set_trainable,
)
from adapters_lesson.composition import average_adapters, fuse_adapters, fusion_attention, stack_adapters
from adapters_lesson.costs import memory_ledger
from adapters_lesson.guards.label_names import labels_of
from adapters_lesson.insertion import adapter_names
from habits import Habit, gives, holds, refuses

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
RANDOM = AdapterConfig(4, placement="pfeiffer", init="bert", init_std=0.5)


def add(labels):
    """The labels of a task that is added with these to a fresh bank."""
    bank = AdapterBank(small())
    bank.add("film", AdapterConfig(4), labels)
    return bank.labels["film"]


def filled(*names, base=None):
    """A bank with tasks of random adapters and heads."""
    bank = AdapterBank(base or make("small_post"))
    for name in names or ("a", "b"):
        bank.add(name, RANDOM, 2)
        nn.init.normal_(bank.heads[name].weight)
    return bank.eval()


def fused():
    """A bank in which one task stacks two, and another fuses that with the first."""
    bank = filled("a", "b", "c")
    bank.stack(["a", "b"], "stacked", 2)
    bank.fuse(["stacked", "c"], "fused", 2)
    return bank.eval()


def with_members(*names):
    """A model with random adapters of these names."""
    model = make("small_post")
    for name in names or ("a", "b"):
        insert_adapters(model, RANDOM, name)
    return model


def _run(hint, subject, names):
    """Run a hint as a person would in a notebook in which the subject is called ``bank`` or ``model``."""
    known = {name: getattr(adapters_lesson, name) for name in adapters_lesson.__all__} | {"nn": nn, "types": types}
    known |= {"fuse_adapters": fuse_adapters, "config": RANDOM, "bank": subject, "model": subject}
    exec(hint, known | names)


def instead(call, hint, subject, **names):
    """Whether ``call(subject)`` is refused with a message that has ``hint`` in it, which works in its place."""
    try:
        call(subject)
    except (ValueError, RuntimeError) as error:
        assert hint in str(error), error
        _run(hint, subject, names)
        return True
    return False


def mends(call, hint, subject, **names):
    """The same, and ``call(subject)`` works afterwards."""
    refused = instead(call, hint, subject, **names)
    call(subject)
    return refused


def unharmed(call, bank=None):
    """Whether a refused ``call(bank)`` leaves all answers of the bank as they were."""
    bank = bank or filled()
    before, active = [bank(IDS, MASK, [name] * 2) for name in bank.heads], bank.active
    try:
        call(bank)
    except ValueError:
        after = [bank(IDS, MASK, [name] * 2) for name in bank.heads]
        same = all(
            torch.equal(x, y) for one, two in zip(before, after, strict=True) for x, y in zip(one, two, strict=True)
        )
        return same and bank.active == active and torch.equal(bank(IDS, MASK), torch.stack(after[-1]))
    return False


def hint(what, call, code, subject, **names):
    """A row: ``mends``."""
    return Habit(f"{what}: the hint", lambda: mends(call, code, subject(), **names), holds)


def other_way(what, call, code, subject, **names):
    """A row: ``instead``."""
    return Habit(f"{what}: the hint", lambda: instead(call, code, subject(), **names), holds)


def labels_come_back(folder, labels):
    """Whether a task's labels are in another bank what they were in the first."""
    bank, other = AdapterBank(make("small_post")), AdapterBank(make("small_post"))
    bank.add("film", AdapterConfig(4), labels)
    save_adapter(bank, folder, "film")
    load_adapter(other, folder, "film")
    return bank.labels == other.labels == {"film": tuple(map(str, labels))}


def named_bert():
    """A classifier of transformers whose labels have names."""
    return hf.BertForSequenceClassification(hf.BertConfig(**_BERT, id2label={1: "good", 0: "bad"}))


def in_threads(work, count=3):
    """What ``work(i)`` gives in that many threads at once."""
    results = [None] * count

    def run(i):
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@torch.no_grad()
def attention_in_threads():
    """Whether the attention of a fusion is each caller's own."""
    model = with_members()
    for fusion in fuse_adapters(model, ["a", "b"], "fused"):
        randomise(fusion, 0.5)
    texts = [torch.randint(2, 30, (2, 5 + i)) for i in range(3)]
    expected = [fusion_attention(model, "fused", ids, torch.ones_like(ids)) for ids in texts]

    def work(i):
        got = [fusion_attention(model, "fused", texts[i], torch.ones_like(texts[i])) for _ in range(20)]
        return all(one.shape == expected[i].shape and torch.allclose(one, expected[i], atol=1e-6) for one in got)

    return all(in_threads(work))


@torch.no_grad()
def mixed_in_threads():
    """Whether mixed batches of several threads are each right."""
    bank = filled("a", "b", "c")
    expected = [torch.stack(bank(IDS, MASK, [name] * 2)) for name in "abc"]

    def work(i):
        return all(
            torch.allclose(torch.stack(bank(IDS, MASK, ["abc"[i]] * 2)), expected[i], atol=1e-5) for _ in range(20)
        )

    return all(in_threads(work))


def switched_during_a_pass():
    """A bank that something else switches while it computes."""
    bank = filled()
    bank.base_model.blocks[1].register_forward_hook(lambda *_: bank.switch("a"))
    return bank


class Size(str, enum.Enum):
    """Labels that are members of an enumeration."""

    SMALL = "small"
    BIG = "big"


def gone():
    """A bank of which somebody has taken adapters out, behind its back."""
    bank = filled()
    remove_adapters(bank.base_model, "b")
    return bank


def out_of_step():
    """A bank whose base model somebody has switched."""
    bank = filled()
    set_active_adapter(bank.base_model, "a")
    return bank


def foreign_adapters():
    """A bank in whose base model are adapters of no task, in places that no task has."""
    bank = filled()
    insert_adapters(bank.base_model, AdapterConfig(4, placement="parallel", init="bert", init_std=0.5), "x")
    return bank


def rested(bank):
    """Whether the places that a bank did not know are switched with the others."""
    expected = filled()(IDS, MASK)
    bank.load_state_dict(filled().state_dict(), strict=False)
    bank.switch("b")
    return torch.equal(bank(IDS, MASK), expected) and all(slot.active in (None, "b") for slot in slots(bank))


def copies(duplicate):
    """Whether a copy of a bank answers alike and is a bank of its own."""
    bank = fused()
    other = duplicate(bank)
    same = all(
        torch.equal(*map(torch.stack, (bank(IDS, MASK, [n] * 2), other(IDS, MASK, [n] * 2)))) for n in bank.heads
    )
    other.remove("fused")
    other.add("new", RANDOM, ("x", "y"))
    other.switch("a")
    return same and bank.active == "fused" and "new" not in bank.labels and adapter_names(bank) != adapter_names(other)


LABELS = [
    Habit("one label only", lambda: add(["good"]), refuses("a task needs at least 2 labels")),
    Habit("one text in place of a list of labels", lambda: add("good"), refuses("give their number or their names")),
    Habit("labels that are numbers", lambda: add([0, 1]), refuses("label 0 is 0 (int)", "['0', '1']", "number, 2")),
    Habit("labels that are numbers: the hint, as texts", lambda: add(["0", "1"]), gives(("0", "1"))),
    Habit("labels that are numbers: the hint, their number", lambda: add(2), gives(("0", "1"))),
    Habit("labels True and False", lambda: add([True, False]), refuses("label 0 is True (bool)")),
    Habit("a label None", lambda: add(["bad", None]), refuses("label 1 is None")),
    Habit("an array of numbers as labels", lambda: add(np.arange(2)), refuses("label 0 is np.int64(0)")),
    Habit("a number of NumPy", lambda: add(np.int64(3)), gives(("0", "1", "2"))),
    Habit("a number of PyTorch", lambda: add(torch.tensor(2)), gives(("0", "1"))),
    Habit("True as a number of labels", lambda: add(True), refuses("at least 2 labels, not True (bool)")),
    Habit("2.0 labels", lambda: add(2.0), refuses("at least 2 labels, not 2.0 (float)")),
    Habit("a billion labels", lambda: add(10**12), refuses("at most 1,000,000 labels")),
    Habit("no labels", lambda: add(None), refuses("at least 2 labels, not None")),
    Habit("names in an array", lambda: [type(n) for n in add(np.array(["a", "b"]))], gives([str, str])),
    Habit("names in an enumeration", lambda: add(list(Size)), gives(("small", "big"))),
    Habit("names with blanks around", lambda: add([" bad", "good "]), gives(("bad", "good"))),
    Habit("an empty name", lambda: add(["bad", ""]), refuses("label 1 is ''")),
    Habit("a name of blanks", lambda: add(["bad", "  "]), refuses("label 1 is ' ' (str)")),
    Habit("one name twice", lambda: add(["a", "b", "a "]), refuses("2 labels are called 'a'")),
    Habit("a set of names, in any order", lambda: add({"a", "b"}), refuses("in the order of the classes")),
    Habit("id2label as labels", lambda: add({0: "a", 1: "b"}), refuses("in the order of the classes")),
    Habit("names on the way through a file", lambda folder: labels_come_back(folder, np.array(["a", "é"])), holds),
    Habit("a Classifier with names", lambda: Classifier(small(), ["bad", "good"]).labels, gives(("bad", "good"))),
    Habit("a Classifier with numbers", lambda: Classifier(small(), [0, 1]), refuses("label 0 is 0 (int)")),
    Habit("a Classifier with num_labels=1.5", lambda: Classifier(small(), 1.5), refuses("at least 2 labels, not 1.5")),
    Habit("the names of a Classifier", lambda: labels_of(Classifier(small(), ["a", "b"])), gives(("a", "b"))),
    Habit("the names of a Classifier without any", lambda: labels_of(Classifier(small(), 2)), gives(None)),
    Habit("the names of id2label", lambda: labels_of(named_bert()), gives(("bad", "good"))),
    Habit("the names of an id2label without any", lambda: labels_of(make("bert_head")), gives(None)),
    Habit("the names of a base model", lambda: labels_of(named_bert().base_model), gives(None)),
]


def on_a_bank(what, call, code, **names):
    """Two rows: the function refuses the bank and harms nothing, and the bank's own call in its message works."""
    return [
        Habit(f"{what} on a bank", lambda: unharmed(call), holds),
        other_way(f"{what} on a bank", call, code, filled, **names),
    ]


def empty():
    """A bank without tasks."""
    return AdapterBank(small())


def resting():
    """A bank in which nothing is switched on."""
    bank = filled()
    bank.switch(None)
    return bank


BANKS = [
    *on_a_bank("remove_adapters", lambda b: remove_adapters(b, "b"), "bank.remove('b')"),
    *on_a_bank("remove_adapters of all", remove_adapters, "for name in reversed(list(bank.heads)): bank.remove(name)"),
    *on_a_bank("set_active_adapter", lambda b: set_active_adapter(b, "a"), "bank.switch('a')"),
    *on_a_bank("set_active_adapter, none", lambda b: set_active_adapter(b, None), "bank.switch(None)"),
    *on_a_bank("set_trainable", lambda b: set_trainable(b, "a"), "bank.switch('a')"),
    *on_a_bank("insert_adapters", lambda b: insert_adapters(b, RANDOM, "n"), "bank.add('n', config, 2)"),
    *on_a_bank("stack_adapters", lambda b: stack_adapters(b, ["a", "b"], "n"), "bank.stack(['a', 'b'], 'n', 2)"),
    *on_a_bank("fuse_adapters", lambda b: fuse_adapters(b, ("a", "b"), "n"), "bank.fuse(('a', 'b'), 'n', 2)"),
    *on_a_bank("average_adapters", lambda b: average_adapters(b, ["a", "b"], "n"), "bank.average(['a', 'b'], 'n', 2)"),
    *on_a_bank("prepare", lambda b: prepare(b, "adapter"), "bank.add(name, config, 2)", name="n"),
    *[
        Habit(f'prepare(bank, "{method}")', lambda m=method: unharmed(lambda b: prepare(b, m)), holds)
        for method in ("full", "head", "layer_norm", "bitfit", "lora")
    ],
    Habit("drop_adapters on a bank", lambda: drop_adapters(filled(), [0]), gives(None)),
    Habit("fusion_attention on a bank", lambda: len(fusion_attention(fused(), "fused", IDS, MASK)), gives(2)),
    Habit("memory_ledger of a bank", lambda: memory_ledger(filled(), 2, 8).activations > 0, holds),
    Habit("set_trainable of a bank without a name", lambda: set_trainable(filled()), refuses("it has 'a', 'b'")),
    Habit("the logits of an unknown task", lambda: filled().logits("x", IDS), refuses("no task called 'x'")),
    Habit("an array of names for a mixed batch", lambda: len(filled()(IDS, MASK, np.array(["a", "b"]))), gives(2)),
    Habit("too few names for a mixed batch", lambda: filled()(IDS, MASK, ["a"]), refuses("['a'] for 2 rows")),
    Habit("adapters taken out behind a bank's back", lambda: gone()(IDS, MASK), refuses("'b' were taken out")),
    Habit("the same in a mixed batch", lambda: gone()(IDS, MASK, ["a", "b"]), refuses("'b' were taken out")),
    Habit(
        "adapters put in behind a bank's back",
        lambda: foreign_adapters()(IDS, MASK),
        refuses("'x', and the bank to 'b'"),
    ),
    Habit("they are switched with the others", lambda: rested(foreign_adapters()), holds),
    Habit("a deep copy of a bank", lambda: copies(copy.deepcopy), holds),
    Habit("a pickled bank", lambda: copies(lambda bank: pickle.loads(pickle.dumps(bank))), holds),
    Habit("mixed batches in threads", mixed_in_threads, holds),
    Habit("the attention of a fusion in threads", attention_in_threads, holds),
    Habit(
        "a switch by another thread during a pass",
        lambda: switched_during_a_pass()(IDS, MASK),
        refuses("another thread switched the bank while it computed", error=RuntimeError),
    ),
    other_way(
        "a switch by another thread during a pass",
        lambda b: b(IDS, MASK),
        "bank(input_ids, attention_mask, ['a'] * len(input_ids))",
        switched_during_a_pass,
        input_ids=IDS,
        attention_mask=MASK,
    ),
    hint("drop_adapters on an empty bank", lambda b: drop_adapters(b, [0]), "bank.add('default', config, 2)", empty),
    hint("a task twice", lambda b: b.add("b", RANDOM, 2), "bank.remove('b')", filled),
    hint(
        "a name that adapters of no task have",
        lambda b: b.add("x", RANDOM, 2),
        "remove_adapters(bank.base_model, 'x')",
        foreign_adapters,
    ),
    hint("a task that others need", lambda b: b.remove("a"), "bank.remove('fused'); bank.remove('stacked')", fused),
    hint("an unknown task", lambda b: b.switch("x"), "bank.add('x', config, 2)", empty),
    hint("an empty bank is asked", lambda b: b(IDS, MASK), "bank.add(name, config, 2)", empty, name="n"),
    hint("nothing is switched on", lambda b: b(IDS, MASK), "bank.switch(name)", resting, name="a"),
    hint("the base model is switched alone", lambda b: b(IDS, MASK), "bank.switch('b')", out_of_step),
    other_way("one name for a mixed batch", lambda b: b(IDS, MASK, "a"), "['a'] * 2", filled),
    other_way("adapters taken out behind a bank's back", lambda b: b.switch("b"), "bank.remove('b')", gone),
    other_way("a bank in a bank", AdapterBank, "bank.add(name, config, 2)", filled, name="n"),
    other_way("a head below a bank", AdapterBank, "AdapterBank(model.bert)", lambda: make("bert_head")),
    hint("a bank on a base with adapters", AdapterBank, "remove_adapters(model)", with_members),
    other_way(
        "the attention of a bank's task",
        lambda b: fusion_attention(b, "a", IDS, MASK),
        "bank.fuse(names, 'fusion', 2)",
        filled,
        names=["a", "b"],
    ),
]

HABITS = LABELS + BANKS
