"""The collection of exercise 3.4: ways to put adapters in, which all pass the identity test. Some have a planted fault.

A learner's test is run on every one of them. Each entry has a function that inserts into a ``Classifier`` with a
``SmallTransformer``, what it is, and what a test that judges it wrongly does not look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from ..adapter import Adapter
from ..transformer import Classifier
from .matching import NOTHING, verdict
from .report import Mistake, require
from .watching import tiny_batch, tiny_classifier

_Insert = Callable[[Classifier], None]


class Entry(NamedTuple):
    """One of the collection."""

    insert: _Insert
    what: str
    overlooked: str


def _places(model: Classifier) -> Iterator[Any]:
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        yield from (block.attention.output, block.ffn.contract)


def _adapter(projection: Any) -> Adapter:
    return Adapter(projection.out_features, 3)


def hooked(model: Classifier) -> None:
    """As in exercise 3.1."""
    for projection in _places(model):
        projection.adapter = _adapter(projection)
        projection.register_forward_hook(lambda module, inputs, output: module.adapter(output))


class _Wrapper(nn.Module):
    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.inner, self.added = projection, _adapter(projection)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.added(self.inner(x))


def wrapped(model: Classifier) -> None:
    """Each projection is replaced by a module that has it inside."""
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        block.attention.output = _Wrapper(block.attention.output)
        block.ffn.contract = _Wrapper(block.ffn.contract)


def listed(model: Classifier) -> None:
    """All adapters in a list on top of the model."""
    places = list(_places(model))
    model.extra = nn.ModuleList(map(_adapter, places))
    for projection, adapter in zip(places, model.extra, strict=True):
        projection.register_forward_hook(lambda module, inputs, output, adapter=adapter: adapter(output))


def after_ffn_only(model: Classifier) -> None:
    """One adapter in each block."""
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        block.ffn.contract = _Wrapper(block.ffn.contract)


def _unregistered(model: Classifier) -> None:
    for projection in _places(model):
        adapter = _adapter(projection)
        projection.register_forward_hook(lambda module, inputs, output, adapter=adapter: adapter(output))


def _late_bound(model: Classifier) -> None:
    for projection in _places(model):
        adapter = projection.adapter = _adapter(projection)
        projection.register_forward_hook(lambda module, inputs, output: adapter(output))  # noqa: B023  the fault


def _without_return(model: Classifier) -> None:
    def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
        module.adapter(output)

    for projection in _places(model):
        projection.adapter = _adapter(projection)
        projection.register_forward_hook(hook)


def _detached(model: Classifier) -> None:
    for projection in _places(model):
        projection.adapter = _adapter(projection)
        projection.register_forward_hook(lambda module, i, output: output + module.adapter.update(output).detach())


def _all_zero(model: Classifier) -> None:
    hooked(model)
    for projection in _places(model):
        for parameter in projection.adapter.parameters():
            nn.init.zeros_(parameter)


def _keep_only(model: Classifier, adapters: bool = True, head: bool = True, base: Callable[[str], bool] | None = None) -> None:  # fmt: skip
    """Freeze everything but the adapters, the head, and the parameters of the base that ``base`` picks by name."""
    inside = {id(p) for m in model.modules() if isinstance(m, Adapter) for p in m.parameters()}
    for name, p in model.named_parameters():
        is_head = name.startswith("head.")
        is_base = id(p) not in inside and not is_head
        picked = head if is_head else base(name) if is_base and base else adapters and not is_base
        p.requires_grad_(picked)


def _then(insert: _Insert, **kept: Any) -> _Insert:
    def both(model: Classifier) -> None:
        insert(model)
        _keep_only(model, **kept)

    return both


_ANYWHERE = "adapters may hang anywhere and the base model's parameters may get new names, so find them by isinstance(module, Adapter), after the insertion"
SOUND = (
    Entry(_then(hooked), "hooks as in exercise 3.1, base frozen", "it raises a false alarm"),
    Entry(_then(listed), "the adapters in an nn.ModuleList of the model", _ANYWHERE),
    Entry(_then(wrapped), "a wrapper around each projection", _ANYWHERE),
    Entry(_then(after_ffn_only), "one adapter in each block, as in Pfeiffer's scheme", "their number is a choice, not a fault"),
)  # fmt: skip
_STATIC = (
    Entry(hooked, "a base model that is not frozen", "it does not look at requires_grad of the base model's parameters"),
    Entry(_then(hooked, head=False), "a frozen head", "it does not look at the head's parameters"),
    Entry(_then(hooked, adapters=False), "frozen adapters", "it does not look whether the adapters are trained"),
    Entry(_then(hooked, base=lambda name: "norm" in name), "LayerNorms that are still trained",
          "it does not look at all of the base model's parameters: nothing but the adapters and the head may be trained"),
    Entry(_then(hooked, base=lambda name: "embeddings" in name), "embeddings that are still trained",
          "it does not look at all of the base model's parameters, those outside the blocks too"),
    Entry(_then(_unregistered), "adapters that the model does not know",
          "they hang in the hooks alone, no optimiser finds them, and all(…) over no adapters is True: ask whether there are any"),
)  # fmt: skip
_MOVING = (
    Entry(_then(_without_return), "hooks that return nothing, so that the adapters are not used",
          "it does not look whether a gradient reaches the adapters"),
    Entry(_then(_detached), "a detach behind the adapters", "it does not look whether a gradient reaches the adapters"),
    Entry(_then(_late_bound), "hooks that all use the last adapter, because they were made in a loop",
          "it does not look whether every single adapter gets a gradient"),
    Entry(_then(_all_zero), "adapters that start with both projections at zero, and stay there but for a bias",
          "it does not look whether the gradient of up_project's weight is anything but zero"),
)  # fmt: skip
FAULTY = _STATIC + _MOVING


class _Hunt:
    """Runs a learner's test, and sees what it does."""

    def __init__(self, test: Any) -> None:
        self.test = test
        self.inserted: list[Classifier] = []
        self.backward = False

    def verdict(self, insert: _Insert) -> Any:
        torch.manual_seed(1)
        self.inserted = []

        def watched(model: Classifier) -> None:
            require(
                not any(model is other for other in self.inserted),
                "insert(model) is called twice on one model: then there are two sets of adapters in it",
            )
            self.inserted.append(model)
            insert(model)
            model.head.register_forward_hook(self._listen)

        return self.test(tiny_classifier().eval(), watched, tiny_batch(0))

    def _listen(self, module: nn.Module, inputs: Any, logits: torch.Tensor) -> None:
        if logits.requires_grad:
            logits.register_hook(self._note)

    def _note(self, gradient: torch.Tensor) -> None:
        self.backward = True


def check_hunt(test: Any) -> None:
    """Raise ``Mistake`` for the first of the collection that ``test(model, insert, batch)`` judges wrongly."""
    hunt = _Hunt(test)
    first = hunt.verdict(SOUND[0].insert)
    require(first is not None, NOTHING)
    require(bool(hunt.inserted), "insert(model) is never called: without it there is nothing to test")
    if not verdict(first):
        raise Mistake(_why_refused(hunt))
    for entry in FAULTY:
        if _on_faulty(hunt, entry):
            why = entry.overlooked
            if entry in _MOVING and not hunt.backward:
                why = "your test never computes a gradient; take the loss on the batch, call backward() and look at each adapter"
            raise Mistake(f"it lets a fault through, {entry.what}: {why}")
    for entry in SOUND[1:]:
        try:
            accepted = bool(hunt.verdict(entry.insert))
        except KeyError:
            accepted = False
        require(accepted, f"it refuses a sound insertion, {entry.what}: {entry.overlooked}")


def _on_faulty(hunt: _Hunt, entry: Entry) -> bool:
    try:
        return bool(hunt.verdict(entry.insert))
    except AttributeError as error:
        require(
            "NoneType" not in str(error),
            f"it fails on {entry.what}: where no gradient arrives, .grad is None; ask for that first",
        )
        raise
    except AssertionError as error:
        raise Mistake(f"it raises AssertionError on {entry.what}: return False where something is wrong") from error


def _why_refused(hunt: _Hunt) -> str:
    def learning(model: Classifier) -> None:
        SOUND[0].insert(model)
        for projection in _places(model):
            nn.init.normal_(projection.adapter.up_project.weight, std=0.5)

    faulty = [entry for entry in FAULTY if _on_faulty(hunt, entry)]
    if len(faulty) == len(FAULTY):
        return "the verdicts are the wrong way round: True for what is sound, False where there is a fault"
    if hunt.verdict(learning):
        return (
            "it refuses a sound insertion, because down_project gets no gradient: that is so in the first step, while "
            "up_project is zero; look at up_project"
        )
    if faulty:
        return f"it refuses a sound insertion and accepts {faulty[0].what}: a condition is the wrong way round"
    return (
        "it refuses a sound insertion, with hooks as in exercise 3.1, and everything else: a condition never holds; "
        "True is for what is sound"
    )
