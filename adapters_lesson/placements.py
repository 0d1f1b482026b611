"""Where adapters go: one object for each placement, and whoever needs to know asks it.

A formula says what a block computes after its FFN, in a post-LN model (BERT) and in a pre-LN one (GPT-2, Llama): h is
the output of the sub-layer, r the residual stream that enters it, A an adapter, ``update`` what it adds, and LN the
block's own LayerNorm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from .architectures import Architecture, find
from .slots import AdapterSlot, BeforeNormSlot, ParallelSlot, SequentialSlot

BARE_FORMULA = {"post": "LN(h + r)", "pre": "h + r"}


@dataclass(frozen=True)
class Site:
    """One place for an adapter in a block."""

    host: str  # the module that it works on: a field of ``Architecture``, "last_norm" or "block"
    slot: type[AdapterSlot]  # how it is called there
    words: str  # where that is, as the explorers say it: "attention" (after it), "FFN" (after it) or "beside" (the FFN)

    def find_host(self, block: nn.Module, at: Architecture) -> nn.Module:
        """The module in ``block`` on which the slot hangs."""
        if self.host == "block":
            return block
        return find(block, at.norms[-1] if self.host == "last_norm" else getattr(at, self.host))


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
