"""The collection of exercise 3.4: ways to put adapters in, some with a fault, which all pass the identity test."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from adapters_lesson.adapter import Adapter
from adapters_lesson.transformer import Classifier

from .check import Mistake, check, require
from .comparison import NOTHING, explained, verdict
from .observation import tiny_batch, tiny_classifier

_Insert = Callable[[Classifier], None]
_Hook = Callable[[list[Adapter], int, torch.Tensor], Any]  # of all adapters, the place and its hidden states


class Entry(NamedTuple):
    """How to insert into a tiny classifier, what that is, and what a test that judges it wrongly does not look at."""

    insert: _Insert
    what: str
    overlooked: str


def _hooked(hook: _Hook = lambda put, i, h: put[i](h), home: str = "projection") -> _Insert:
    """As in exercise 3.1, but for the hook and the adapters' home: the projection, a list of the model's, or none."""

    def insert(model: Classifier) -> None:
        blocks: Any = model.base_model.blocks
        places = [place for block in blocks for place in (block.attention.output, block.ffn.contract)]
        adapters = [Adapter(12, 3) for _ in places]
        if home == "list":
            model.extra = nn.ModuleList(adapters)
        for i, place in enumerate(places):
            if home == "projection":
                place.adapter = adapters[i]
            place.register_forward_hook(lambda module, inputs, h, i=i: hook(adapters, i, h))

    return insert


def _wrapped(model: Classifier, *, attention: bool = True) -> None:
    """Each projection, or that of the FFN alone, is replaced by a module that has it inside."""
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        if attention:
            block.attention.output = nn.Sequential(block.attention.output, Adapter(12, 3))
        block.ffn.contract = nn.Sequential(block.ffn.contract, Adapter(12, 3))


def _each_adapter(model: Classifier) -> list[Adapter]:
    return [module for module in model.modules() if isinstance(module, Adapter)]


def _all_zero(model: Classifier) -> None:
    _hooked()(model)
    for parameter in nn.ModuleList(_each_adapter(model)).parameters():
        nn.init.zeros_(parameter)


def _then(
    insert: _Insert, adapters: bool = True, head: bool = True, base: str | None = None, half: bool = False
) -> _Insert:
    """Insert, and freeze all but the adapters, or ``half`` of each, the head, and what has ``base`` in its name."""

    def both(model: Classifier) -> None:
        insert(model)
        for name, p in model.named_parameters():
            p.requires_grad_(head if name.startswith("head.") else base is not None and base in name)
        for adapter in _each_adapter(model):
            adapter.requires_grad_(adapters)
            adapter.down_project.requires_grad_(adapters and not half)

    return both


_ANYWHERE = "find adapters by isinstance(module, Adapter), anywhere: parameters of the base may get new names"
_ALL = "look at all of the base model's parameters: only adapters and head may be trained"
_NONE = "no optimiser finds them, and all(…) over no adapters is True: ask whether there are any"
_EVERY = "ask for the gradient of every single adapter"
_REACHES = "look whether a gradient reaches the adapters, and is not zero"
SOUND = (
    Entry(_then(_hooked()), "hooks as in exercise 3.1", "it raises a false alarm"),
    Entry(_then(_hooked(home="list")), "the adapters in an nn.ModuleList of the model", _ANYWHERE),
    Entry(_then(_wrapped), "a wrapper around each projection", _ANYWHERE),
    Entry(_then(partial(_wrapped, attention=False)), "one adapter in each block", "their number is a choice"),
)
_STATIC = (
    Entry(_hooked(), "a base model that is not frozen", "no parameter of the base model may have requires_grad"),
    Entry(_then(_hooked(), head=False), "a frozen head", "the head's parameters have to be trained, too"),
    Entry(_then(_hooked(), adapters=False), "frozen adapters", "the adapters' parameters have to be trained"),
    Entry(_then(_hooked(), half=True), "down_projects that are frozen", "every adapter has to be trained as a whole"),
    Entry(_then(_hooked(), base="norm"), "LayerNorms that are still trained", _ALL),
    Entry(_then(_hooked(), base="embeddings"), "embeddings that are still trained", _ALL),
    Entry(_then(_hooked(home="")), "adapters that the model does not know", _NONE),
)
_MOVING = (
    Entry(_then(_hooked(lambda put, i, h: None)), "hooks that return nothing", _REACHES),
    Entry(_then(_hooked(lambda put, i, h: h + put[i].update(h).detach())), "a detach behind the adapters", _REACHES),
    Entry(_then(_hooked(lambda put, i, h: put[-1](h))), "hooks that all use the last adapter", _EVERY),
    Entry(
        _then(_hooked(lambda put, i, h: put[i](h) if i < 3 else None)), "a hook that returns nothing, the last", _EVERY
    ),
    Entry(_then(_all_zero), "both projections at zero", "ask whether up_project's gradient is anything but zero"),
)
FAULTY = _STATIC + _MOVING


class _Hunt:
    """Runs a learner's test, and sees what it does."""

    def __init__(self, test: Any) -> None:
        self.test, self.backward = test, False
        self.inserted: list[Classifier] = []

    def verdict(self, insert: _Insert) -> Any:
        torch.manual_seed(1)
        self.inserted = []

        def listen(module: nn.Module, inputs: Any, logits: torch.Tensor) -> None:
            if logits.requires_grad:
                logits.register_hook(lambda gradient: setattr(self, "backward", True))

        batch = tiny_batch(0)

        def given(module: nn.Module, inputs: tuple) -> None:
            turned = len(inputs) == 2 and torch.equal(inputs[1], batch[0]) and not torch.equal(*batch[:2])
            require(not turned, "the model gets the mask where it wants the ids: model(input_ids, attention_mask)")

        def watched(model: Classifier) -> None:
            require(not any(model is other for other in self.inserted), "insert(model) is called twice on one model")
            self.inserted.append(model)
            insert(model)
            model.head.register_forward_hook(listen)
            model.register_forward_pre_hook(given)

        return self.test(tiny_classifier().eval(), watched, batch)

    def accepts(self, entry: Entry) -> bool:
        """Whether it lets something faulty through."""
        asserts = f"it raises AssertionError on {entry.what}: return False where something is wrong"
        none = f"it fails on {entry.what}: where no gradient arrives, .grad is None"
        with explained({"AssertionError": asserts, "NoneType": none}):
            return bool(self.verdict(entry.insert))

    def why_refused(self) -> str:
        def learning(model: Classifier) -> None:
            SOUND[0].insert(model)
            for adapter in _each_adapter(model):
                nn.init.normal_(adapter.up_project.weight, std=0.5)

        faulty = [entry for entry in FAULTY if self.accepts(entry)]
        if len(faulty) == len(FAULTY):
            return "the verdicts are the wrong way round: True for what is sound, False where there is a fault"
        if self.verdict(learning):
            why = "it accepts it once up_project is not 0: while it is, down_project gets no gradient in the first step"
            return f"it refuses a sound insertion; {why}"
        if faulty:
            return f"it refuses a sound insertion and accepts {faulty[0].what}: is a condition the wrong way round?"
        return f"it refuses a sound insertion, {SOUND[0].what}, and all that have a fault: which condition fails?"


@check("3.4", "correct: every fault is found, and everything sound is let through.")
def check_bug_hunt(is_sound: Any) -> None:
    """``is_sound(model, insert, batch)`` must tell the sound insertions of the collection from the faulty."""
    hunt = _Hunt(is_sound)
    first = hunt.verdict(SOUND[0].insert)
    require(first is not None, NOTHING)
    require(bool(hunt.inserted), "insert(model) is never called: without it there is nothing to test")
    if not verdict(first):
        raise Mistake(hunt.why_refused())
    for entry in FAULTY:
        if hunt.accepts(entry):
            why = entry.overlooked
            if entry in _MOVING and not hunt.backward:
                why = "no gradient goes back from the logits in your test: loss.backward(), then look at each adapter"
            raise Mistake(f"it lets a fault through, {entry.what}: {why}")
    for entry in SOUND[1:]:
        accepted = False
        with contextlib.suppress(KeyError):
            accepted = bool(hunt.verdict(entry.insert))
        require(accepted, f"it refuses a sound insertion, {entry.what}: {entry.overlooked}")
