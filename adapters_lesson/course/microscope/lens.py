"""What each adapter adds to the residual stream of each token, and the answer when some of it is left out.

The stream at a place is the sum that the block would form there without the adapter: h + r, with h from the sub-layer
and r from the residual connection; in a post-LN block before the LayerNorm. The push is |update| / |stream|.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters_lesson.architectures import architecture_of, blocks_of, find, find_all
from adapters_lesson.lora import LoRA
from adapters_lesson.modes import kept_modes
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import LinearSlot, NormSlot, slots_of


@dataclass(frozen=True)
class Spot:
    """A place where something is added to the stream."""

    block: int
    site: str  # "attention" or "FFN" (after it), "beside" (the FFN)
    module: Any = None  # the adapter; None in a model that is compared with its base
    in_slot: bool = False  # a slot calls ``update``; elsewhere a hook calls the module
    on_stream: bool = False  # it reads the sum and adds to it, rather than to one of its terms


@dataclass(frozen=True)
class Seen:
    """What one pass has shown. Shapes: B variants of ``keep``, P spots, T tokens."""

    probabilities: Tensor  # (B, labels); of a language model (B, places, vocabulary), of the token that comes next
    push: Tensor  # (B, P, T): |update| / |stream|, also of an update that is left out
    turn: Tensor  # (B, P, T): the angle between the stream with the update and without it, in degrees
    norms: dict[str, Tensor]  # (B, P, T) each: of h, down, act, update, stream; nan where there is no such thing
    units: list[Tensor | None]  # of each spot, (B, T, m): the bottleneck after its activation


class Lens:
    """One model to look into; of an ``AdapterBank``, one ``task``, whatever is switched on.

    ``model`` maps ids and mask ``(batch, length)`` to logits ``(batch, labels)``, or as a language model does. With
    ``base``, the model before training, the difference of the two streams stands in for the update, at the same places:
    another quantity, for it keeps what was changed further down. Raises ValueError for a model in which no adapters
    work, or whose blocks are no row of one norm and one sub-layer, twice.
    """

    def __init__(self, model: nn.Module, task: str | None = None, base: nn.Module | None = None) -> None:
        self.model, self.task, self.at, self.blocks = model, task, architecture_of(model), blocks_of(model)
        self.norms = [[norm for name in self.at.norms for norm in find_all(block, name)] for block in self.blocks]
        if any(len(norms) != 2 for norms in self.norms):
            kind = type(self.blocks[0]).__name__
            raise ValueError(f"a {kind} is no row of one norm and one sub-layer, twice: its stream is not known here")
        self.base = None if base is None else Lens(base, base=base) if base is not model else self
        streams = [Spot(number, site) for number in range(len(self.blocks)) for site in ("attention", "FFN")]
        self.spots = streams if self.base else list(self._in_slots()) or list(self._trained())
        if not self.spots:
            raise ValueError("no adapters work in this model. Put some in and freeze the base first; or give base=…")

    def _in_slots(self) -> Iterator[Spot]:
        """The adapters that work now, or the task's, from the bottom up."""
        for number, block in enumerate(self.blocks):
            for slot in slots_of(block):
                name = self.task or slot.active
                if name is not None and name in slot and not isinstance(slot, (NormSlot, LinearSlot)):
                    sites = PLACEMENTS[slot.configs[name].placement].sites[self.at.norm]
                    hosts = ((getattr(s.find_hosts(block, self.at)[0], s.slot.attribute, None), s) for s in sites)
                    site = next(site for there, site in hosts if there is slot)
                    yield Spot(number, site.words, slot[name], True, site.host in ("block", "last_norm"))

    def _trained(self) -> Iterator[Spot]:
        """Adapters as lesson 03 puts them in, without a slot: the largest modules that are trained whole."""
        for number, block in enumerate(self.blocks):
            attention = find(block, self.at.attention_output.split(".")[0])
            trained = all(p.requires_grad for p in block.parameters())  # all of it: that is full fine-tuning
            inside: set[nn.Module] = set(block.modules()) if trained else {block, *self.norms[number]}
            for module in block.modules():
                flags = [p.requires_grad for p in module.parameters()]
                if flags and all(flags) and module not in inside:
                    inside |= set(module.modules())
                    if not isinstance(module, (nn.Linear, nn.ModuleDict, LoRA)):
                        yield Spot(number, "attention" if module in attention.modules() else "FFN", module)

    @torch.no_grad()
    def look(
        self, input_ids: Tensor, attention_mask: Tensor, keep: Tensor | None = None, astray: bool = False, **how: Any
    ) -> Seen:
        """One pass in evaluation mode; modes, hooks, gradients and random numbers stay as they were.

        ``keep`` ``(B, P, T)`` is False where an update is left out, or with ``astray`` replaced by one of the same
        length in a random direction; ids and mask are ``(1, T)`` or ``(B, T)``, and ``how`` is passed on to the model,
        such as a cache of the tokens before. Raises ValueError for another shape, and with a ``base``: what differs
        from it is no update that could be left out.
        """
        shape = len(self.spots), input_ids.shape[1]
        keep = torch.ones(len(input_ids), *shape, dtype=torch.bool) if keep is None else keep
        if keep.shape[1:] != shape or (self.base and not keep.all()):
            raise ValueError(f"keep must be (B, {shape[0]}, {shape[1]}), and with a base True, not {tuple(keep.shape)}")
        ids, mask, keep = (
            x.expand(len(keep), *x.shape[1:]).to(input_ids.device) for x in (input_ids, attention_mask, keep)
        )
        seen, logits = self._through(ids, mask, keep, astray, how)
        bare = self.base._through(ids, mask, keep, astray, how)[0] if self.base else seen
        stream = torch.stack([one["stream"] for one in bare], 1).float()  # (B, P, T, d)
        update = torch.stack([one["stream" if self.base else "update"] for one in seen], 1).float()
        update = update - stream if self.base else update
        unknown = torch.full(keep[:, 0].shape, torch.nan, device=ids.device)
        norms = {name: torch.stack([one.get(name, unknown) for one in seen], 1) for name in ("h", "down", "act")}
        norms |= {"update": update.norm(dim=-1), "stream": stream.norm(dim=-1)}
        cosine = torch.cosine_similarity(stream, stream + update, dim=-1).clamp(-1, 1)
        turn = cosine.arccos().rad2deg().where(norms["update"] > 0, 0)
        units = [one.get("units") for one in seen]
        return Seen(logits.float().softmax(-1), norms["update"] / norms["stream"], turn, norms, units)

    def _through(self, ids: Tensor, mask: Tensor, keep: Tensor, astray: bool, how: Any) -> tuple[list[dict], Tensor]:
        """What is noted at each spot, and the logits."""
        seen: list[dict[str, Tensor]] = [{} for _ in self.spots]
        sums: dict[tuple[int, bool], Tensor] = {}  # by block, and whether it is the attention's; (B, T, d)

        def note(number: int, of_attention: bool) -> Any:
            return lambda _, args, *out: sums.update({(number, of_attention): _first(out[0] if out else args)})

        with ExitStack() as stack:
            if trained := [module for module in self.model.modules() if module.training]:
                stack.enter_context(kept_modes(self.model))
                for module in trained:  # not all of them: a token would wait for 600 modes to be set
                    module.training = False
            for i, spot in enumerate(self.spots):
                if spot.module is not None:
                    _watch(stack, spot, keep[:, i], seen[i], i if astray else None)
            norms = [] if all(spot.on_stream for spot in self.spots) else self.norms
            for n, (first, last) in enumerate(norms):  # a norm reads each sum, but the last of a pre-LN block
                upper, post = (first if self.at.norm == "post" else last), self.at.norm == "post"
                stack.callback(upper.register_forward_pre_hook(note(n, True)).remove)
                hang: Any = last.register_forward_pre_hook if post else self.blocks[n].register_forward_hook
                stack.callback(hang(note(n, False)).remove)
            answer = self.model(ids, mask, **how, **({"adapters": [self.task] * len(ids)} if self.task else {}))
        for spot, one in zip(self.spots, seen, strict=True):
            if not spot.on_stream:
                one["stream"] = sums[spot.block, spot.site == "attention"] - one.pop("applied", 0)
        return seen, torch.stack(answer) if isinstance(answer, list) else getattr(answer, "logits", answer)


def _first(value: Any) -> Tensor:
    return value[0] if isinstance(value, tuple) else value


def _astray(update: Tensor, seed: int) -> Tensor:
    """As long as ``update`` (B, T, d), in a random direction."""
    drawn = torch.randn(update.shape, generator=torch.Generator().manual_seed(seed)).to(update)
    return drawn * (update.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def _watch(stack: ExitStack, spot: Spot, keep: Tensor, one: dict[str, Tensor], seed: int | None) -> None:
    """Note what an adapter computes; where ``keep`` (B, T) is False, no update, or with a ``seed`` a random one."""
    own, name = vars(spot.module), "update" if spot.in_slot else "forward"
    call = getattr(spot.module, name)
    shape = (*keep.shape, -1)  # OPT's FFN lays the rows end to end

    def noted(h: Tensor) -> Tensor:
        update = call(h) if spot.in_slot else call(h) - h
        one["h"], one["update"] = h.reshape(shape).norm(dim=-1), update.reshape(shape)
        other = 0 if seed is None else _astray(one["update"], seed)
        one["applied"] = one["update"].where(keep[..., None], other)
        if spot.on_stream:
            one["stream"] = h.reshape(shape)
        applied = one["applied"].reshape(update.shape).clone()  # the slot adds h in place
        return applied if spot.in_slot else h + applied

    def down(_: nn.Module, __: tuple, output: Tensor) -> None:
        one["down"] = output.reshape(shape).norm(dim=-1)

    def act(_: nn.Module, args: tuple) -> None:
        one["units"] = args[0].reshape(shape)
        one["act"] = one["units"].norm(dim=-1)

    stack.callback(*((own.__setitem__, name, call) if name in own else (own.pop, name)))
    own[name] = noted
    linear = [part for part in spot.module.modules() if isinstance(part, nn.Linear)]
    if len(linear) == 2:  # otherwise it is no bottleneck, but a stack, a fusion, …
        stack.callback(linear[0].register_forward_hook(down).remove)
        stack.callback(linear[1].register_forward_pre_hook(act).remove)
