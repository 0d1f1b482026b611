"""Where adapters go: one object for each placement, and whoever needs to know asks it.

A formula says what a block computes after its FFN, in a post-LN model (BERT) and in a pre-LN one (GPT-2, Llama): h is
the output of the sub-layer, r the residual stream that enters it, A an adapter, ``update`` what it adds, and LN the
block's own LayerNorm. LoRA goes into the sub-layers, beside their linear layers: its places are the ``TARGETS``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .architectures import Architecture, features_of, find
from .slots import AdapterSlot, BeforeNormSlot, LinearSlot, ParallelSlot, SequentialSlot, slots_of

BARE_FORMULA = {"post": "LN(h + r)", "pre": "h + r"}


@dataclass(frozen=True)
class Site:
    """One place for an adapter in a block, or several of one kind."""

    host: str  # what it works on: a field of ``Architecture``, "last_norm", "block", or linear layers in ``TARGETS``
    slot: type[AdapterSlot]  # how it is called there
    words: str  # where that is, as the explorers say it: "attention", "FFN", "beside" (the FFN), all of the "block"

    def find_hosts(self, block: nn.Module, at: Architecture) -> list[nn.Module]:
        """The modules in ``block`` on which the slot hangs. Raises ValueError when there are none."""
        if self.host in TARGETS:
            return linear_layers(block, at, self.host)
        if self.host == "block":
            return [block]
        return [find(block, at.norms[-1] if self.host == "last_norm" else getattr(at, self.host))]

    def widths(self, host: nn.Module, model_dim: int) -> tuple[int, ...]:
        """For what a module is built there: the width of the hidden states, or a linear layer's in and out."""
        return (features_of(host) or ()) if self.host in TARGETS else (model_dim,)


@dataclass(frozen=True)
class Placement:
    """Everything that the course knows about a placement. ``sites`` and ``formula`` are for "post"- and "pre"-LN."""

    sites: Mapping[str, tuple[Site, ...]]  # in the order in which a block computes
    formula: Mapping[str, str]
    adapterhub: str | None = None  # the name of the same placement in the library adapters; None if it has none


_AFTER_ATTENTION = Site("attention_output", SequentialSlot, "attention")
_AFTER_FFN = Site("ffn_output", SequentialSlot, "FFN")
_BESIDE_FFN = Site("ffn_output", ParallelSlot, "beside")

PLACEMENTS: dict[str, Placement] = {  # by the name that AdapterConfig(placement=…) takes
    "houlsby": Placement(  # Houlsby et al. 2019, figure 2
        sites=dict.fromkeys(("post", "pre"), (_AFTER_ATTENTION, _AFTER_FFN)),
        formula={"post": "LN(A(h) + r)", "pre": "A(h) + r"},
        adapterhub="double_seq_bn",
    ),
    "pfeiffer": Placement(  # Pfeiffer et al. 2020, arXiv 2005.00247
        sites={"post": (Site("last_norm", BeforeNormSlot, "FFN"),), "pre": (Site("block", SequentialSlot, "FFN"),)},
        formula={"post": "LN(update(LN(h + r)) + h + r)", "pre": "A(h + r)"},
        adapterhub="seq_bn",
    ),
    "parallel": Placement(  # He et al. 2021, arXiv 2110.04366
        sites=dict.fromkeys(("post", "pre"), (_BESIDE_FFN,)),
        formula={"post": "LN(h + update(r) + r)", "pre": "h + update(r) + r"},
        adapterhub="par_bn",
    ),
}
TARGETS: dict[str, Placement] = {  # by the name that LoRAConfig(targets=…) takes
    name: Placement(dict.fromkeys(("post", "pre"), (Site(name, LinearSlot, words),)), BARE_FORMULA)
    for name, words in (("query_value", "attention"), ("attention", "attention"), ("all-linear", "block"))
}


def placement_of(config: Any) -> Placement:
    """Where the modules of any kind of ``config`` go."""
    return TARGETS[config.targets] if hasattr(config, "targets") else PLACEMENTS[config.placement]


def linear_layers(block: nn.Module, at: Architecture, targets: str) -> list[nn.Module]:
    """The linear layers of ``block`` that ``targets`` means, in the order of its modules, without adapters' own."""
    inside = at.attention_sublayer or at.attention_output.rpartition(".")[0].split(".")[0]
    names = {"query_value": "|".join(at.lora_targets), "attention": rf"({inside})\..+", "all-linear": ".+"}[targets]
    added = {module for slot in slots_of(block) for module in slot.modules()}
    named = ((path, module) for path, module in block.named_modules() if module not in added and features_of(module))
    if found := [module for path, module in named if re.fullmatch(rf"(.*\.)?({names})", path)]:
        return found
    mend = "Architecture(lora_targets=…) names query and value, and attention_sublayer=… what they are in"
    raise ValueError(f"targets={targets!r} finds no linear layer in a {type(block).__name__}: {mend}")
