"""Checks of lesson 03: placing adapters in a block, freezing, the identity test, a hunt for planted faults."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..adapter import Adapter
from ..transformer import Block, Classifier, SmallTransformer, SmallTransformerConfig
from .hunting import check_hunt
from .matching import NOTHING, verdict
from .report import Mistake, check, close, require

_TINY = SmallTransformerConfig(
    vocab_size=40, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, dropout=0.2
)


@check("3.1", "correct: A(h) after the attention and after the FFN, each with an adapter of its own.")
def check_insert(insert_into_block: Any) -> None:
    """``insert_into_block(block, make_adapter)`` must put adapters behind attention.output and ffn.contract."""
    block, bare, made = _inserted(insert_into_block)
    require(bool(made), "make_adapter was never called: it makes a new adapter each time")
    require(
        len(made) != 1,
        "make_adapter was called once, but there are two places, and each needs an adapter of its own",
    )
    require(len(made) == 2, f"make_adapter was called {len(made)} times: one block has two places in Houlsby's scheme")
    x = torch.randn(2, 5, 12)
    output = block(x)
    require(
        isinstance(output, torch.Tensor),
        f"the block's output is no tensor any more, but a {type(output).__name__}: a hook has to return adapter(output)",
    )
    _check_block(output, bare, made, x)
    learnt = [p for adapter in made for p in adapter.parameters()]
    gradients = torch.autograd.grad(output.sum(), learnt, allow_unused=True)
    require(
        None not in gradients,
        "no gradient reaches the adapters, so they could not learn: is there a detach or a no_grad?",
    )
    registered = {id(p) for p in block.parameters()}
    require(
        all(id(p) in registered for adapter in made for p in adapter.parameters()),
        "it computes the right thing, but the block does not know the adapters' parameters, so an optimiser would not "
        "find them: make each adapter a sub-module, for instance block.attention.output.adapter = adapter",
    )
    _inserted(insert_into_block)
    require(
        close(block(x), output),
        "after a second block got its adapters, the first computes something else: its hooks use the second block's",
    )


class _Watched(Adapter):
    """Says where it sits when it is given what it was not made for."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        require(
            h.shape[-1] == 12,
            f"an adapter for width 12 is given hidden states of width {h.shape[-1]}, the inside of the FFN: it belongs "
            "behind ffn.contract, not behind ffn.expand and not before the projection",
        )
        return super().forward(h)


def _inserted(insert_into_block: Any) -> tuple[Block, Block, list[Adapter]]:
    """A block with what the learner put in, the same block without, and the adapters that were made."""
    block = Block(_TINY).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    bare, made = copy.deepcopy(block), list[Adapter]()

    def make_adapter() -> Adapter:
        made.append(_Watched(12, 3, init="bert", init_std=1.0))
        return made[-1]

    insert_into_block(block, make_adapter)
    return block, bare, made


def _check_block(output: torch.Tensor, bare: Block, made: list[Adapter], x: torch.Tensor) -> None:
    plain = _forward(bare, None, None)(x)
    require(
        not close(output, plain),
        "the block computes the same as before: are the hooks registered, and does each return the adapter's output?",
    )
    attention, ffn = made
    if close(output, _forward(bare, ffn, attention)(x)):
        attention, ffn = ffn, attention  # the order of making them is the learner's to choose
    right = _forward(bare, attention, ffn)(x)
    twice = _forward(bare, lambda h: h + attention(h), lambda h: h + ffn(h))(x)
    before = (
        "the attention's adapter comes before the projection: it belongs behind it, on what attention.output puts out"
    )
    wrong_places: list[tuple[torch.Tensor, str]] = [
        (_forward(bare, attention, None)(x), "only the attention sub-layer has its adapter: the FFN's is missing, or never called"),
        (_forward(bare, None, attention)(x), "only the FFN has its adapter: the attention sub-layer's is missing, or never called"),
        (_forward(bare, None, ffn)(x), "only the FFN has its adapter: the attention sub-layer's is missing, or never called"),
        (_forward(bare, ffn, ffn)(x), "both places use the second adapter: a hook made in a loop sees the loop's last value; "
                                      "bind it, with a default argument or a function that makes the hook"),
        (_forward(bare, attention, attention)(x), "both places use the first adapter: each needs its own"),
        (twice, "the residual is added twice, the hook adds the output once more: the adapter has its residual inside, return adapter(output)"),
        (_forward(bare, attention.update, ffn.update)(x), "the output is replaced by the update alone: A(h) is h plus its update"),
        (_forward_norm(bare, attention, ffn)(x), "the adapters come after the LayerNorms: Houlsby's place is before the residual sum"),
        (_forward_input(bare, attention, ffn)(x), "the adapters change what goes into the sub-layers: they belong behind the last projection"),
        (_forward(_before(bare, attention), None, ffn)(x), before),
        (_forward(_before(bare, ffn), None, attention)(x), before),
        (_forward_input(_before(bare, attention), None, ffn)(x), before),
    ]  # fmt: skip
    if not close(output, right):
        for wrong, message in wrong_places:
            require(not close(output, wrong), message)
        raise Mistake(
            "the block's output is not LN(A(h) + r) in both sub-layers: look at which modules carry your hooks"
        )


@check("3.2", "correct: only the adapters and the head are trained.")
def check_freeze(train_only_adapters: Any) -> None:
    """``train_only_adapters(model)`` must leave gradients on for every Adapter and the head, and for nothing else."""
    model, adapters = _with_adapters("adapter", "adapter")
    names = dict(model.named_parameters())
    values = {n: p.detach().clone() for n, p in names.items()}
    head = {n for n in names if n.startswith("head.")}
    for name in min(adapters), min(head):
        names[name].requires_grad_(False)  # an answer that only switches off must not pass by luck
    train_only_adapters(model)
    require(
        dict(model.named_parameters()).keys() == names.keys(),
        "parameters were added or removed: only freeze and unfreeze",
    )
    require(
        all(torch.equal(p, values[n]) for n, p in names.items()),
        "parameters have other values now: only freeze and unfreeze",
    )
    on = {n for n, p in names.items() if p.requires_grad}
    base = names.keys() - adapters - head
    require(bool(on), "nothing is trained at all: after freezing everything, switch the adapters and the head on again")
    require(
        not base <= on,
        "the base model is not frozen: set requires_grad on its parameters (on a module, model.requires_grad_(False); "
        "model.requires_grad = False only makes a new attribute; eval() and no_grad() freeze nothing)",
    )
    require(
        bool(on & adapters), "the adapters are frozen: they sit inside the base model, switch them on after freezing it"
    )
    require(bool(on & head), "the head is frozen: it is new, so it must be trained as well")
    missing = sorted((adapters | head) - on)
    require(
        not missing, f"not trained: {', '.join(missing[:3])}; switch on all parameters of the adapters and the head"
    )
    left = sorted(on & base)
    kinds = {
        "norm": "the LayerNorms are still trained: Houlsby et al. do so too, but here only adapters and head are asked for",
        "bias": "biases of the base model are still trained",
        "embedding": "embeddings of the base model are still trained",
    }
    for kind, message in kinds.items():
        require(not left or not all(kind in name for name in left), message)
    require(not left, f"still trained in the base model: {', '.join(left[:3])}")
    model, adapters = _with_adapters("inserted", "added")
    train_only_adapters(model)
    on = {n for n, p in model.named_parameters() if p.requires_grad}
    require(
        on == adapters | head,
        "adapters that are not called `adapter` are missed, or not told apart: a name is anyone's choice, find them "
        "with isinstance(module, Adapter)",
    )


def _with_adapters(*names: str) -> tuple[Classifier, set[str]]:
    """A classifier with adapters under these names, and their parameters' names."""
    model = Classifier(SmallTransformer(_TINY), 2)
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        setattr(block.attention.output, names[0], Adapter(12, 3))
        setattr(block.ffn.contract, names[1], Adapter(12, 3))
    return model, {n for n, _ in model.named_parameters() if any(f".{name}." in n for name in names)}


_ONE_TEXT = "it misses a change in one text of the batch: compare all of the output"
_ONE_LOGIT = "it misses a change in one of the logits: compare all of the output, in both directions"
_PLANTED: list[tuple[Callable[[Classifier], None], str]] = [
    (lambda m: _hook(_ffn_of(m), lambda h: h + 1.0 * torch.arange(12)),
     "it says True to an insertion that changes every hidden state: are two outputs compared, one from before and one from after?"),
    (lambda m: _hook(_ffn_of(m), lambda h: h * 1.001),
     "it misses a change of a tenth of a per cent: an exact identity can be tested with torch.equal"),
    (lambda m: _hook(_ffn_of(m), lambda h: torch.cat([h[:-1], 1.5 * h[-1:]])), _ONE_TEXT),
    (lambda m: _hook(_ffn_of(m), lambda h: torch.cat([1.5 * h[:1], h[1:]])), _ONE_TEXT),
    (lambda m: _hook(m.head, lambda y: y + torch.tensor([0.0, 0.1])), _ONE_LOGIT),
    (lambda m: _hook(m.head, lambda y: y - torch.tensor([0.1, 0.0])), _ONE_LOGIT),
    (lambda m: _hook(_ffn_of(m), lambda h: h + 1e-5 * torch.randn_like(h)),
     "it misses a change of 1e-5: an exact identity needs no tolerance, use torch.equal"),
    (lambda m: _hook(m.head, lambda y: y * (1 + 1e-6)),
     "it misses a change of a millionth, as torch.allclose does: an exact identity needs no tolerance, use torch.equal"),
]  # fmt: skip


@check("3.3", "correct: it finds every insertion that changes something, and raises no false alarm.")
def check_identity_test(changes_nothing: Any) -> None:
    """``changes_nothing(model, insert, input_ids, attention_mask)`` must tell whether ``insert(model)`` kept the output."""
    ids = torch.randint(1, 40, (3, 6))
    mask = torch.ones_like(ids)
    calls: list[str] = []

    def judged(change: Callable[[Classifier], None], training: bool = False, logits: tuple = ()) -> Any:
        torch.manual_seed(1)
        model = Classifier(SmallTransformer(_TINY), 2).train(training)
        if logits:  # the same for every text
            nn.init.zeros_(model.head.weight)
            model.head.bias.data = torch.tensor(logits)

        def insert(m: Classifier) -> None:
            calls.append("called")
            change(m)

        return changes_nothing(model, insert, ids, mask)

    good = judged(lambda m: _hook(_ffn_of(m), lambda h: h + 0 * h))
    require(good is not None, NOTHING)
    require(bool(calls), "insert(model) is never called: compute the output before it and after it")
    if isinstance(good, torch.Tensor):
        require(good.numel() == 1, "it returns one verdict for each number: use torch.equal(before, after)")
    require(verdict(good), "it raises a false alarm: an insertion that changes nothing was reported as a change")
    for plant, message in _PLANTED:
        require(not judged(plant), message)
    require(
        not judged(lambda m: _hook(m.head, lambda y: y.flip(-1)), logits=(0.25, -0.5)),
        "it misses logits that change places, since their mean stays the same: compare all numbers with torch.equal",
    )
    require(
        not judged(lambda m: _hook(m.head, lambda y: y + 0.5), logits=(0.25, -0.5)),
        "it misses a constant added to all logits: compare the logits themselves, not probabilities or labels",
    )
    require(
        bool(judged(lambda m: None, training=True)),
        "it raises a false alarm when the model is in training mode: dropout makes every output different, call model.eval()",
    )


@check("3.4", "correct: every fault is found, and everything sound is let through.")
def check_bug_hunt(is_sound: Any) -> None:
    """``is_sound(model, insert, batch)`` must tell the sound insertions of ``hunting`` from those with a fault."""
    check_hunt(is_sound)


_Change = Callable[[torch.Tensor], torch.Tensor] | None


def _apply(change: _Change, h: torch.Tensor) -> torch.Tensor:
    return h if change is None else change(h)


def _forward(block: Block, after_attention: _Change, after_ffn: _Change) -> Callable[[torch.Tensor], torch.Tensor]:
    """A post-LN block, written out, with something behind each sub-layer."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = block.attention_norm(x + _apply(after_attention, block.attention(x, None)))
        return block.ffn_norm(x + _apply(after_ffn, block.ffn(x)))

    return forward


def _forward_norm(block: Block, a: Adapter, b: Adapter) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        x = a(block.attention_norm(x + block.attention(x, None)))
        return b(block.ffn_norm(x + block.ffn(x)))

    return forward


def _forward_input(block: Block, a: _Change, b: _Change) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        x = block.attention_norm(x + block.attention(_apply(a, x), None))
        return block.ffn_norm(x + block.ffn(_apply(b, x)))

    return forward


def _before(block: Block, adapter: Adapter) -> Block:
    """A copy whose attention has the adapter before its output projection."""
    block = copy.deepcopy(block)
    block.attention.output.register_forward_pre_hook(lambda module, args: adapter(args[0]))
    return block


def _ffn_of(model: Classifier) -> nn.Module:
    return model.get_submodule("base_model.blocks.0.ffn.contract")


def _hook(part: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    part.register_forward_hook(lambda module, args, output: change(output))
