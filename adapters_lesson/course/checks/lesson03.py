"""Checks of lesson 03: placing adapters in a block, freezing, the identity test, a hunt for planted faults."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from adapters_lesson.adapter import Adapter
from adapters_lesson.transformer import Block, Classifier, SmallTransformer

from .check import Mistake, check, require
from .comparison import NOTHING, close, explained, learns, match_tensor, verdict
from .lesson03_faults import check_bug_hunt as check_bug_hunt
from .observation import TINY, values_of

_TINY = replace(TINY, dropout=0.2)


@check("3.1", "correct: A(h) after the attention and after the FFN, each with an adapter of its own.")
def check_insert(insert_into_block: Any) -> None:
    """``insert_into_block(block, make_adapter)`` must put adapters behind attention.output and ffn.contract."""
    block, bare, made = _inserted(insert_into_block)
    require(bool(made), "make_adapter was never called: it makes a new adapter each time")
    require(len(made) != 1, "make_adapter was called once: two places, and each needs an adapter of its own")
    require(len(made) == 2, f"make_adapter was called {len(made)} times: one block has two places in Houlsby's scheme")
    require(block.training, "the block is in evaluation mode afterwards: insertion leaves its mode to whoever calls")
    x = torch.randn(2, 5, 12)
    no_tensor = "a hook returns no tensor: it has to return adapter(output), and neither a tuple nor a list"
    with explained({"must be Tensor, not": no_tensor}):
        output = block(x)
    require(isinstance(output, torch.Tensor), no_tensor)
    _check_block(output, bare, made, x)
    learns(output, {f"{n} of an adapter": p for adapter in made for n, p in adapter.named_parameters()})
    names = {module: name for name, module in block.named_modules()}
    missing = "right, but no adapter is a module of the block: projection.adapter = …, or no optimiser finds it"
    require(all(adapter in names for adapter in made), missing)
    homes = [names[adapter].partition(".")[0] for adapter in _in_their_places(output, bare, made, x)]
    if homes == ["ffn", "attention"]:
        raise Mistake("each adapter is an attribute of the projection behind which the other works: make it its own")
    _inserted(insert_into_block)
    require(close(block(x), output), "a second block with adapters changes what the first computes: hooks are shared")
    require(close(block.eval()(x), output), "in evaluation mode the adapters do not work, or work otherwise")


def _inserted(insert_into_block: Any) -> tuple[Block, Block, list[Adapter]]:
    """A block with what the learner put in, the same block without, and the adapters that were made."""
    block = Block(TINY)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    bare, made = copy.deepcopy(block), list[Adapter]()

    def here(adapter: nn.Module, args: tuple) -> None:
        width = args[0].shape[-1]
        require(width == 12, f"width {width} is not 12: adapters go behind attention.output, ffn.contract")

    def make_adapter() -> Adapter:
        made.append(Adapter(12, 3, init="bert", init_std=1.0))
        made[-1].register_forward_pre_hook(here)
        return made[-1]

    insert_into_block(block, make_adapter)
    return block, bare, made


_Change = Callable[[torch.Tensor], torch.Tensor]


def _in_their_places(output: torch.Tensor, bare: Block, made: list[Adapter], x: torch.Tensor) -> list[Adapter]:
    """The attention's adapter, then the FFN's: the order in which they are made is the learner's choice."""
    h = bare.attention_norm(x + made[1](bare.attention(x, None)))
    turned = close(output, bare.ffn_norm(h + made[0](bare.ffn(h))))
    return made[::-1] if turned else made


def _check_block(output: torch.Tensor, bare: Block, made: list[Adapter], x: torch.Tensor) -> None:
    same = nn.Identity()

    def run(after: tuple = (same, same), norms: tuple = (same, same), before: tuple = (same, same)) -> torch.Tensor:
        """A post-LN block, written out, with something around each sub-layer and behind each LayerNorm."""
        h = norms[0](bare.attention_norm(x + after[0](bare.attention(before[0](x), None))))
        return norms[1](bare.ffn_norm(h + after[1](bare.ffn(before[1](h)))))

    def inside(first: Adapter, ffn: Adapter) -> torch.Tensor:
        with bare.attention.output.register_forward_pre_hook(lambda module, args: first(args[0])):
            return run((same, ffn))

    require(not close(output, run()), "the block computes the same: are hooks registered, do they return A(output)?")
    a, b = _in_their_places(output, bare, made, x)
    ffn_only = "only the FFN has its adapter: the attention sub-layer's is missing, or never called"
    inputs = "the attention's adapter comes before the projection: it belongs behind attention.output"
    guesses = {
        run((a, same)): "only the attention sub-layer has its adapter: the FFN's is missing, or never called",
        run((same, a)): ffn_only,
        run((same, b)): ffn_only,
        run((b, b)): "both places use the second adapter: a hook looks names up when it runs, after the loop; bind it",
        run((lambda h: h + a(h), lambda h: h + b(h))): "residual is added twice: a hook adds the output once more",
        run((a.update, b.update)): "the output is replaced by the update alone: A(h) is h plus its update",
        run(norms=(a, b)): "the adapters come after the LayerNorms: Houlsby's place is before the residual sum",
        run(before=(a, b)): "the adapters change what goes into the sub-layers: they belong behind the last projection",
        inside(a, b): inputs,
        inside(b, a): inputs,
    }
    otherwise = "the block's output is not LN(A(h) + r) in both sub-layers: look at which modules carry your hooks"
    match_tensor(output, run((a, b)), guesses, otherwise)


@check("3.2", "correct: only the adapters and the head are trained.")
def check_freeze(train_only_adapters: Any) -> None:
    """``train_only_adapters(model)`` must leave gradients on for every Adapter and the head, and for nothing else."""
    model, adapters = _with_adapters("adapter", "adapter")
    names = dict(model.named_parameters())
    values = values_of(model)
    head = {n for n in names if n.startswith("head.")}
    for name in min(adapters), min(head):
        names[name].requires_grad_(False)  # an answer that only switches off must not pass by luck
    cut = Mistake("detach_() cuts a tensor out of a graph: what freezes a parameter is requires_grad_(False)")
    with patch.object(nn.Parameter, "detach_", side_effect=cut):
        train_only_adapters(model)
    now = dict(model.named_parameters())
    if now.keys() != names.keys() or not all(torch.equal(p, values[n]) for n, p in now.items()):
        raise Mistake("parameters were added, removed, or have other values now: only freeze and unfreeze")
    on = {n for n, p in names.items() if p.requires_grad}
    base = names.keys() - adapters - head
    attribute = any("requires_grad" in vars(module) for module in model.modules()) and on != adapters | head
    require(not attribute, "module.requires_grad = … only makes a new attribute: call module.requires_grad_(…)")
    require(bool(on), "nothing is trained at all: after freezing everything, switch the adapters and the head on again")
    require(not base <= on, "the base model is not frozen: switch requires_grad off, on the very model that is given")
    require(bool(on & adapters), "the adapters are frozen: they sit inside the base, switch them on after freezing it")
    require(bool(on & head), "the head is frozen: it is new, so it must be trained as well")
    missing, left = sorted((adapters | head) - on), sorted(on & base)
    require(not missing, f"not trained: {', '.join(missing[:3])}; switch on all of the adapters and the head")
    kinds = {
        "norm": "the LayerNorms are still trained, as Houlsby et al. do: here only adapters and head are asked for",
        "bias": "biases of the base model are still trained",
        "embedding": "embeddings of the base model are still trained",
        "": f"still trained in the base model: {', '.join(left[:3])}",
    }
    for kind, message in kinds.items():
        require(not left or not all(kind in name for name in left), message)
    model, adapters = _with_adapters("inserted", "added")
    train_only_adapters(model)
    if {n for n, p in model.named_parameters() if p.requires_grad} != adapters | head:
        raise Mistake("adapters not called `adapter` are missed: find them with isinstance(module, Adapter)")


def _with_adapters(*names: str) -> tuple[Classifier, set[str]]:
    """A classifier with adapters under these names, and their parameters' names."""
    model = Classifier(SmallTransformer(_TINY), 2)
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        setattr(block.attention.output, names[0], Adapter(12, 3))
        setattr(block.ffn.contract, names[1], Adapter(12, 3))
    return model, {n for n, _ in model.named_parameters() if any(f".{name}." in n for name in names)}


_FFN, _HEAD = "base_model.blocks.0.ffn.contract", "head"


def _planted(part: str, change: _Change) -> Callable[[Classifier], Any]:
    """An insertion that changes what a part of the model puts out."""
    return lambda model: model.get_submodule(part).register_forward_hook(lambda module, args, output: change(output))


_ONE_TEXT = "it misses a change in one text of the batch: compare all of the output"
_ONE_LOGIT = "it misses a change in one of the logits: compare all of the output, in both directions"
_PLANTED: list[tuple[str, _Change, str]] = [
    (_FFN, lambda h: h + 1.0 * torch.arange(12), "it says True to an insertion that changes every hidden state"),
    (_FFN, lambda h: h * 1.001, "it misses a change of a tenth of a per cent: torch.equal finds every change"),
    (_FFN, lambda h: torch.cat([h[:-1], 1.5 * h[-1:]]), _ONE_TEXT),
    (_FFN, lambda h: torch.cat([1.5 * h[:1], h[1:]]), _ONE_TEXT),
    (_HEAD, lambda y: y + torch.tensor([0.0, 0.1]), _ONE_LOGIT),
    (_HEAD, lambda y: y - torch.tensor([0.1, 0.0]), _ONE_LOGIT),
    (_FFN, lambda h: h + 1e-5 * torch.randn_like(h), "it misses a change of 1e-5: use torch.equal"),
    (_HEAD, lambda y: y * (1 + 1e-6), "it misses a change of a millionth: use torch.equal"),
]


@check("3.3", "correct: it finds every insertion that changes something, and raises no false alarm.")
def check_identity_test(changes_nothing: Any) -> None:
    """``changes_nothing(model, insert, input_ids, attention_mask)`` must tell if ``insert(model)`` kept the output."""
    ids, mask = torch.randint(1, 40, (3, 6)), torch.ones(3, 6, dtype=torch.long)
    ids[0, 4:] = mask[0, 4:] = 0  # padding
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

    good = judged(_planted(_FFN, lambda h: h + 0 * h))
    require(good is not None, NOTHING)
    require(bool(calls), "insert(model) is never called: compute the output before it and after it")
    if isinstance(good, torch.Tensor):
        require(good.numel() == 1, "it returns one verdict for each number: use torch.equal(before, after)")
    require(verdict(good), "it raises a false alarm: an insertion that changes nothing was reported as a change")
    for part, plant, message in _PLANTED:
        require(not judged(_planted(part, plant)), message)
    if judged(_planted(_HEAD, lambda y: y.flip(-1)), logits=(0.25, -0.5)):
        raise Mistake("it misses logits that change places, the mean stays the same: use torch.equal on all numbers")
    if judged(_planted(_HEAD, lambda y: y + 0.5), logits=(0.25, -0.5)):
        raise Mistake("it misses a constant added to all logits: compare the logits, not probabilities or labels")
    with_dropout = _planted(_FFN, lambda h: h + 0 * nn.functional.dropout(h, training=True))  # draws, as an adapter may
    if not judged(lambda model: None, training=True) or not judged(with_dropout, training=True):
        raise Mistake("it raises a false alarm when the model is in training mode (dropout): call model.eval()")
    padding = _planted("base_model.blocks.1.ffn.contract", lambda h: h + (1.0 - mask)[..., None])
    require(bool(judged(padding)), "it raises a false alarm where only padding changes: use the mask, compare logits")
