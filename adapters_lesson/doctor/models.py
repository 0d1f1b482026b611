"""What is wrong with a model in memory: its switches, weights, freezing and optimiser, a rule for each trouble."""

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import base_model_of
from adapters_lesson.guards.bank_guard import is_bank
from adapters_lesson.guards.foreign import another_base
from adapters_lesson.insertion import has_lm_head, head_parameters

from .findings import Finding, some
from .one_pass import checkpointing
from .parts import Part, embeddings, fresh_heads, parts_of_model, words_of

AFTER_NAN = "take a checkpoint from before it; then a lower rate, clipped gradients, bfloat16 in place of float16"
NOT_REACHED = "no gradient came there while it was trained: diagnose(model, batch=…) before you train again"
_NOT_LOADED = (
    "it was never trained, or its file was not read: diagnose(folder, base=model) compares the names; load a peft "
    "adapter with PeftModel.from_pretrained on the plain base, never after get_peft_model"
)


class Case:
    """A model, and all that several rules ask of it."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer | None, base: nn.Module | None) -> None:
        self.model, self.base, self.parts, self.optimizer = model, base, parts_of_model(model), optimizer
        self.on = [part for part in self.parts if part.on]
        self.held = {id(p): group for group in (optimizer.param_groups if optimizer else []) for p in group["params"]}
        self.inside = {id(w) for part in self.parts for w in part.weights}

    def head(self) -> list[nn.Parameter]:
        """The tensors of a head that is to be learnt; a language model's came pretrained."""
        if is_bank(self.model):
            return list(self.model.heads[self.model.active].parameters()) if self.model.active else []
        own = [] if has_lm_head(self.model) else head_parameters(self.model)
        return [p for p in own if id(p) not in self.inside and p.requires_grad]

    def rate(self, weight: torch.Tensor) -> float:
        """Its learning rate. A schedule with a warm-up begins at 0, and keeps "initial_lr"."""
        group = self.held[id(weight)]
        return max(float(group["lr"]), float(group.get("initial_lr", 0.0)))


def in_model(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, base: nn.Module | None
) -> tuple[list[Finding], str]:
    """The findings of all rules, and what was looked at."""
    case = Case(model, optimizer, base)
    looked_at = f"{len(case.parts)} adapters in a {type(model).__name__}" + ", the optimiser" * (optimizer is not None)
    return list(_no_adapter(case)) or [finding for rule in _RULES for finding in rule(case)], looked_at


def _no_adapter(case: Case) -> Iterator[Finding]:
    trained = any(id(p) in case.held for p in case.model.parameters() if p.requires_grad)  # by another method
    if not case.parts and not hasattr(case.model, "peft_config") and not trained:
        remedy = "insert_adapters(model, config), peft.get_peft_model(model, config), or load a saved one"
        what = "the model has no adapters (merged ones leave no trace), or the optimiser has those that were removed"
        yield Finding("no adapter", what, type(case.model).__name__, remedy)


def _another_base_by_name(case: Case) -> Iterator[Finding]:
    for name, config in (getattr(case.model, "peft_config", None) or {}).items():
        trained_on = getattr(config, "base_model_name_or_path", None)
        if why := another_base(trained_on, getattr(base_model_of(case.model), "config", None)):
            yield Finding("base", f"{name!r} was {why[0]}", f"peft_config[{name!r}]", why[1])


def _more_tokens(case: Case) -> Iterator[Finding]:
    ours, theirs = embeddings(case.model), embeddings(case.base)
    if ours and theirs and len(ours[1]) != len(theirs[1]) and not any(ours[0].startswith(p.path) for p in case.parts):
        more = len(ours[1]) - len(theirs[1])
        what = f"the embeddings have {more:+} rows beside the base's, and no adapter saves them"
        remedy = "resize_token_embeddings, and then get_peft_model with modules_to_save or trainable_token_indices"
        yield Finding("tokens", what, ours[0], remedy)


def _switched_off(case: Case) -> Iterator[Finding]:
    rest = [part for part in case.parts if not part.on]
    idle = [part for part in rest if any(w.requires_grad and id(w) in case.held for w in part.weights)]
    # A bank at rest is sound: a mixed batch names its adapters itself. So are places that drop_adapters switched off.
    if idle or (rest and not case.on and not is_bank(case.model)):
        name = (idle or rest)[0].name
        off = [part for part in idle or rest if part.name == name]
        what = f"{name!r} is switched off at {len(off)} of its {sum(p.name == name for p in case.parts)} places"
        what += " and trained there" if idle else ": the bare base model answers"
        remedy = f"set_active_adapter(model, {name!r}); in a bank, bank.switch({name!r}); in peft, "
        remedy += f"model.base_model.enable_adapter_layers() and model.set_adapter({name!r})"
        yield Finding("inactive", what, some(part.path for part in off), remedy)


def _merged(case: Case) -> Iterator[Finding]:
    parts = [part for part in case.on if part.adds and not part.adds_nothing]
    counts = [count - part.merged for part in parts if (count := _times_contained(part)) is not None]
    times = round(sorted(counts)[len(counts) // 2]) if len(counts) >= 3 else 0
    where = some(part.path for part in parts)
    # One place may come near 1 by chance; four fifths of them do not.
    if times >= 1 and sum(abs(count - times) < 0.2 for count in counts) >= 0.8 * len(counts):
        what = f"the base model's weights contain {parts[0].name!r} already, {times} time(s): it acts once more"
        yield Finding("merged", what, where, "load it on the base model as it was before merging, or not at all")
    elif case.optimizer and (merged := [part for part in case.on if part.merged]):
        what = f"{merged[0].name!r} is merged: a forward pass uses the base's weights alone, so it learns nothing"
        remedy = "in peft model.unmerge_adapter(), else lora.unmerge(model), before it is trained"
        yield Finding("merged", what, where, remedy)


def _times_contained(part: Part) -> float | None:
    """How often the base's weight contains the update of a LoRA: <W, ΔW> / <ΔW, ΔW>, which W + k ΔW has k more of.

    It is about 0 for a base model that never met it. None where that cannot be computed: quantised, not finite.
    """
    if part.delta is None or part.beside is None or not part.beside.is_floating_point():
        return None
    with torch.no_grad():
        update, weight = part.delta().float(), part.beside.float()
        if update.shape != weight.shape or not update.isfinite().all():
            return None
        return float((weight * update).sum() / update.square().sum().clamp_min(1e-30))


def _not_finite(case: Case) -> Iterator[Finding]:
    if wrong := [part.path for part in case.parts if not all(bool(w.isfinite().all()) for w in part.weights)]:
        what = f"{len(wrong)} of {len(case.parts)} adapters hold values that are not finite (NaN or infinity)"
        yield Finding("not finite", what, some(wrong), AFTER_NAN)


def _cut_off_by_checkpointing(case: Case) -> Iterator[Finding]:
    marked = [path for path, one in case.model.named_modules() if getattr(one, "gradient_checkpointing", False) is True]
    blocks = [path for path in marked if not any(other.startswith(f"{path}.") for other in marked)]
    block = case.model.get_submodule(blocks[0]) if blocks else None
    function: Any = getattr(block, "_gradient_checkpointing_func", None)
    if getattr(function, "keywords", {}).get("use_reentrant") is not True:
        return
    below = takewhile(lambda named: not named[0].startswith(f"{blocks[0]}."), case.model.named_parameters())
    # On these enable_input_require_grads puts its hook.
    words = words_of(case.model)
    if not any(p.requires_grad for _, p in below) and not getattr(words, "_forward_hooks", None):
        yield checkpointing(blocks[0])


def _frozen_or_not_held(case: Case) -> Iterator[Finding]:
    used = [part for part in case.on if part.weights and not part.within]
    if case.optimizer is None:
        return
    trained_at = {part.path for part in used if part.trained}  # beside one that is trained, another may rest on purpose
    if frozen := [part for part in used if part.path not in trained_at]:
        what = f"{len(frozen)} of {len(used)} places of {some(repr(part.name) for part in frozen)} are frozen"
        remedy = "set_trainable(model, name), bank.switch(name), in peft from_pretrained(…, is_trainable=True); then "
        yield Finding("frozen", what, some(part.path for part in frozen), f"{remedy}build the optimiser")
        return
    trained = {w: part.path for part in used for w in part.weights if w.requires_grad}
    trained |= dict.fromkeys(case.head(), "head")
    if missing := [where for w, where in trained.items() if id(w) not in case.held]:
        foreign = len(case.held.keys() - {id(p) for p in case.model.parameters()})
        also = f", and {foreign} that the model does not have" if foreign else ""
        what = f"the optimiser has {len(trained) - len(missing)} of {len(trained)} tensors that are to be trained{also}"
        remedy = "it was built before they came, or while they were frozen: build it anew"
        yield Finding("optimiser", what, some(missing), remedy)
    if trained and not any(case.rate(w) for w in trained if id(w) in case.held) and len(missing) < len(trained):
        what = "the learning rate of all that is to be trained is 0"
        yield Finding("learning rate", what, "optimizer.param_groups", "give the optimiser another, say lr=1e-3")


def _adds_nothing(case: Case) -> Iterator[Finding]:
    state: Any = case.optimizer.state if case.optimizer else {}
    for name in dict.fromkeys(part.name for part in case.on):
        parts = [part for part in case.on if part.name == name and part.adds and "expert" not in part.path]
        zero = [part for part in parts if part.adds_nothing]
        # Zero everywhere is how it begins: wrong only where it cannot change, or should have changed.
        steps = max((float(state.get(w, {}).get("step", 0)) for part in parts for w in part.adds), default=0)
        begun = any(part.trained for part in parts) and steps < 2  # the first one of a warm-up has the rate 0
        if zero and (len(zero) < len(parts) or not begun):
            what = f"{len(zero)} of {len(parts)} up_project (in LoRA: B) of {name!r} are zero, so it adds nothing there"
            remedy = _NOT_LOADED if len(zero) == len(parts) else NOT_REACHED
            yield Finding("zero", what, some(part.path for part in zero), remedy)


def _half_precision(case: Case) -> Iterator[Finding]:
    mine = [(part.path, w) for part in case.on for w in part.weights] + [("head", w) for w in case.head()]
    mine = [(path, w) for path, w in mine if id(w) in case.held and w.requires_grad]
    if half := [path for path, w in mine if w.dtype == torch.float16]:
        what = f"{len(half)} trained tensors are in float16, where Adam's ε of 1e-8 is 0, and which GradScaler refuses"
        remedy = "train in float32: w.data = w.data.float() before the optimiser is built; the frozen base may stay"
        yield Finding("half precision", f'{what} ("Attempting to unscale FP16 gradients")', some(half), remedy)
    # Adam moves a weight by about the learning rate, and bfloat16 has 8 bits: a small step is rounded away.
    low = [(path, w) for path, w in mine if w.dtype == torch.bfloat16 and "Adam" in type(case.optimizer).__name__]
    stuck, many = sum(int((w + case.rate(w) == w).sum()) for _, w in low), sum(w.numel() for _, w in low)
    if 2 * stuck > many and any(case.rate(w) for _, w in low):
        what = f"{100 * stuck / many:.0f} % of the trained bfloat16 weights cannot move: the step is rounded away"
        remedy = "train in float32, the frozen base may stay in bfloat16"
        yield Finding("half precision", what, some(path for path, _ in low), remedy)


def _fresh_head(case: Case) -> Iterator[Finding]:
    for path, head in fresh_heads(case.model):
        if case.parts and not any(p.requires_grad for p in head.parameters()):
            what = "the head is as it was drawn (its bias is exactly 0), and frozen: it answers by chance"
            remedy = 'train and save it with the adapter: in peft task_type="SEQ_CLS", or modules_to_save'
            yield Finding("head", what, path, remedy)


def _base_is_trained(case: Case) -> Iterator[Finding]:
    named = base_model_of(case.model).named_parameters()
    own = [p for path, p in named if id(p) not in case.inside and ".modules_to_save." not in path]
    held = sum(p.numel() for p in own if p.requires_grad and id(p) in case.held)
    if case.parts and 2 * held > sum(p.numel() for p in own):
        what = f"the optimiser trains {held:,} weights of the base as well: the adapter then fits no other copy of it"
        remedy = "freeze it, then build the optimiser: set_trainable(model, name); in peft get_peft_model does it"
        yield Finding("unfrozen", what, "base model", remedy)


_RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _another_base_by_name, _more_tokens, _switched_off, _merged, _not_finite, _cut_off_by_checkpointing,
    _frozen_or_not_held, _adds_nothing, _half_precision, _fresh_head, _base_is_trained,
)  # fmt: skip
