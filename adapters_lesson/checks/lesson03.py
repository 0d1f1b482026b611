"""Checks of lesson 03: placing adapters in a block, freezing, the identity test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..adapter import Adapter
from ..transformer import Block, Classifier, SmallTransformer, SmallTransformerConfig
from .report import Mistake, check, close, require

_TINY = SmallTransformerConfig(
    vocab_size=40, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, dropout=0.2
)


@check("3.1", "correct: A(h) after the attention and after the FFN, each with an adapter of its own.")
def check_insert(insert_into_block: Any) -> None:
    """``insert_into_block(block, make_adapter)`` must put adapters behind attention.output and ffn.contract."""
    block = Block(_TINY).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 5, 12)
    plain = _forward(block, None, None)(x)
    made: list[Adapter] = []

    def make_adapter() -> Adapter:
        made.append(Adapter(12, 3, init="bert", init_std=1.0))
        return made[-1]

    insert_into_block(block, make_adapter)
    require(bool(made), "make_adapter was never called: it makes a new adapter each time")
    require(
        len(made) != 1,
        "make_adapter was called once, but there are two places, and each needs an adapter of its own",
    )
    require(len(made) == 2, f"make_adapter was called {len(made)} times: one block has two places in Houlsby's scheme")
    output = block(x)
    require(
        not close(output, plain),
        "the block computes the same as before: are the hooks registered, and does each return the adapter's output?",
    )
    attention, ffn = made
    if close(output, _forward(block, ffn, attention)(x)):
        attention, ffn = ffn, attention  # the order of making them is the learner's to choose
    right = _forward(block, attention, ffn)(x)
    twice = _forward(block, lambda h: h + attention(h), lambda h: h + ffn(h))(x)
    wrong_places: list[tuple[torch.Tensor, str]] = [
        (_forward(block, attention, None)(x), "only the attention sub-layer has its adapter: the FFN's is missing, or never called"),
        (_forward(block, None, attention)(x), "only the FFN has its adapter: the attention sub-layer's is missing, or never called"),
        (_forward(block, None, ffn)(x), "only the FFN has its adapter: the attention sub-layer's is missing, or never called"),
        (_forward(block, ffn, ffn)(x), "both places use the second adapter: a hook made in a loop sees the loop's last value; "
                                       "bind it, with a default argument or a function that makes the hook"),
        (_forward(block, attention, attention)(x), "both places use the first adapter: each needs its own"),
        (twice, "the hook adds the output once more: the adapter has its residual inside, return adapter(output)"),
        (_forward(block, attention.update, ffn.update)(x), "the output is replaced by the update alone: A(h) is h plus its update"),
        (_forward_norm(block, attention, ffn)(x), "the adapters come after the LayerNorms: Houlsby's place is before the residual sum"),
        (_forward_input(block, attention, ffn)(x), "the adapters change what goes into the sub-layers: they belong behind the last projection"),
    ]  # fmt: skip
    if not close(output, right):
        for wrong, message in wrong_places:
            require(not close(output, wrong), message)
        raise Mistake(
            "the block's output is not LN(A(h) + r) in both sub-layers: look at which modules carry your hooks"
        )
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


@check("3.2", "correct: only the adapters and the head are trained.")
def check_freeze(train_only_adapters: Any) -> None:
    """``train_only_adapters(model)`` must leave gradients on for every Adapter and the head, and for nothing else."""
    model = Classifier(SmallTransformer(_TINY), 2)
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        block.attention.output.adapter = Adapter(12, 3)
        block.ffn.contract.adapter = Adapter(12, 3)
    names = dict(model.named_parameters())
    adapters = {n for n in names if ".adapter." in n}
    head = {n for n in names if n.startswith("head.")}
    for name in min(adapters), min(head):
        names[name].requires_grad_(False)  # an answer that only switches off must not pass by luck
    train_only_adapters(model)
    require(
        dict(model.named_parameters()).keys() == names.keys(),
        "parameters were added or removed: only freeze and unfreeze",
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


@check("3.3", "correct: it finds every insertion that changes something, and raises no false alarm.")
def check_identity_test(changes_nothing: Any) -> None:
    """``changes_nothing(model, insert, input_ids, attention_mask)`` must tell whether ``insert(model)`` kept the output."""
    ids = torch.randint(1, 40, (3, 6))
    mask = torch.ones_like(ids)
    calls: list[str] = []

    def verdict(change: Callable[[Classifier], None], training: bool = False) -> Any:
        torch.manual_seed(1)
        model = Classifier(SmallTransformer(_TINY), 2).train(training)

        def insert(m: Classifier) -> None:
            calls.append("called")
            change(m)

        return changes_nothing(model, insert, ids, mask)

    good = verdict(lambda m: _hook(m, lambda h: h + 0 * h))
    require(good is not None, "the function returns None: is the return missing?")
    require(bool(calls), "insert(model) is never called: compute the output before it and after it")
    if isinstance(good, torch.Tensor):
        require(good.numel() == 1, "it returns one verdict for each number: use torch.equal(before, after)")
    require(bool(good), "it raises a false alarm: an insertion that changes nothing was reported as a change")
    planted: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
        (lambda h: h + 1.0 * torch.arange(12), "it says True to an insertion that changes every hidden state: are two outputs compared, "
                                    "one from before and one from after?"),
        (lambda h: h * 1.001, "it misses a change of a tenth of a per cent: an exact identity can be tested with torch.equal"),
        (lambda h: torch.cat([h[:1], 1.5 * h[1:]]), "it misses a change in one text of the batch: compare all of the output"),
        (lambda h: h + 1e-5 * torch.randn_like(h), "it misses a change of 1e-5: an exact identity needs no tolerance, use torch.equal"),
    ]  # fmt: skip
    for change, message in planted:
        require(not verdict(lambda m, change=change: _hook(m, change)), message)  # type: ignore[misc]
    require(
        bool(verdict(lambda m: None, training=True)),
        "it raises a false alarm when the model is in training mode: dropout makes every output different, call model.eval()",
    )
    require(isinstance(good, bool), f"the verdict is right, but it is a {type(good).__name__}: return True or False")


_Change = Callable[[torch.Tensor], torch.Tensor] | None


def _forward(block: Block, after_attention: _Change, after_ffn: _Change) -> Callable[[torch.Tensor], torch.Tensor]:
    """A post-LN block, written out, with something behind each sub-layer."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        h = _attention(block, x)
        x = _norm(block.attention_norm, x + (after_attention(h) if after_attention else h))
        h = _ffn(block, x)
        return _norm(block.ffn_norm, x + (after_ffn(h) if after_ffn else h))

    return forward


def _forward_norm(block: Block, a: Adapter, b: Adapter) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        x = a(_norm(block.attention_norm, x + _attention(block, x)))
        return b(_norm(block.ffn_norm, x + _ffn(block, x)))

    return forward


def _forward_input(block: Block, a: Adapter, b: Adapter) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        x = _norm(block.attention_norm, x + _attention(block, a(x)))
        return _norm(block.ffn_norm, x + _ffn(block, b(x)))

    return forward


# These call the modules' formulas, not the modules, so that a learner's hooks do not take part.
def _linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, module.weight, module.bias)


def _norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _attention(block: Block, x: torch.Tensor) -> torch.Tensor:
    at = block.attention
    q, k, v = (_linear(m, x).unflatten(-1, (at.num_heads, -1)).transpose(1, 2) for m in (at.query, at.key, at.value))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v)
    return _linear(at.output, mixed.transpose(1, 2).flatten(2))


def _ffn(block: Block, x: torch.Tensor) -> torch.Tensor:
    return _linear(block.ffn.contract, nn.functional.gelu(_linear(block.ffn.expand, x)))


def _hook(model: Classifier, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    block: Any = model.get_submodule("base_model.blocks.0")
    block.ffn.contract.register_forward_hook(lambda module, args, output: change(output))
