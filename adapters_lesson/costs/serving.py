"""What adapters cost when serving MiniLM: multiply-adds by formula, time by measurement; many tasks on the same text.

Only products are counted: biases, activations and LayerNorms add less than a hundredth to them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

import torch

from ..adapter import AdapterConfig
from ..insertion import drop_adapters, insert_adapters, set_active_adapter
from ..methods import prepare
from ..slots import slots_of
from ..transformer import Classifier, SmallTransformer
from .latency import Latency, measure_latency

ADAPTERS_PER_BLOCK = {"houlsby": 2, "pfeiffer": 1, "parallel": 1}  # by placement
LORA_RANK = 8  # with which adapters are compared, on query and value


def multiply_adds(model_dim: int, bottleneck_dim: int, adapters: int, length: int) -> dict[str, int]:
    """Multiply-adds for one token in one block with ``adapters`` adapters, by part; ``length`` tokens are attended to.

    A LoRA of rank r on query and value counts as two adapters of width r.
    """
    return {
        "FFN": 8 * model_dim**2,  # d × 4d and back
        "projections": 4 * model_dim**2,  # query, key, value and output
        "attention": 2 * length * model_dim,  # each token is compared with all, and their values are mixed
        "adapters": adapters * 2 * model_dim * bottleneck_dim,
    }


def extra_multiply_adds(model_dim: int, bottleneck_dim: int, adapters: int, length: int) -> float:
    """The adapters' multiply-adds as a share of the bare model's: 0.02 for 2 % more. Arguments as ``multiply_adds``."""
    parts = multiply_adds(model_dim, bottleneck_dim, adapters, length)
    return parts["adapters"] / (sum(parts.values()) - parts["adapters"])


def shared_work(layers: int, dropped: int, tasks: int, extra: float) -> float:
    """Multiply-adds of ``tasks`` tasks served together, as a share of as many separate passes with all adapters.

    The lowest ``dropped`` layers have no adapters (AdapterDrop: Rücklé et al. 2021, arXiv 2010.11918) and are computed
    once for all tasks, the others once for each. ``extra`` is what adapters add to a layer: ``extra_multiply_adds``.

    Raises:
        ValueError: for less than one task, or more dropped layers than there are.
    """
    if tasks < 1 or not 0 <= dropped <= layers:
        raise ValueError(f"tasks={tasks}, dropped={dropped}: serve at least 1 task, and drop 0 to {layers} layers")
    with_adapters = 1 + extra
    return (dropped + tasks * (layers - dropped) * with_adapters) / (tasks * layers * with_adapters)


def serve_together(
    model: SmallTransformer, names: Iterable[str], dropped: int, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The last hidden states for the adapters of every name; the lowest ``dropped`` layers run once, without adapters.

    Shapes: ids and mask ``(batch, length)`` to ``(batch, length, d)`` for each name, the same as from a pass of its own
    with ``drop_adapters(model, range(dropped))``. Afterwards the adapters of the last name are active above.
    """
    shared, upper = model.blocks[:dropped], model.blocks[dropped:]
    # Looked up once: switching by set_active_adapter walks through the whole model, and here that would count.
    slots = slots_of(upper)
    set_active_adapter(model, None)
    x, mask = model.embed(input_ids), attention_mask[:, None, None, :].bool()
    for block in shared:
        x = block(x, mask)
    results = {}
    for name in names:
        for slot in slots:
            slot.active = name if name in slot else None
        h = x
        for block in upper:
            h = block(h, mask)
        results[name] = model.final_norm(h)
    return results


@dataclass(frozen=True)
class Overhead:
    """Adapters, and a LoRA of rank 8 that is not merged, timed against the bare model with these settings."""

    batch: int
    length: int
    bottleneck_dim: int
    placement: str
    layers: int
    adapters: Latency
    lora: Latency


@dataclass(frozen=True)
class Served:
    """What was measured for ``tasks`` tasks with the adapters of the lowest ``dropped`` layers left out.

    Attributes:
        full, thin: one task with all adapters, and with the lowest left out, against the bare model.
        together: all tasks with the lower layers shared, against as many separate passes with all adapters.
    """

    dropped: int
    tasks: int
    full: Latency
    thin: Latency
    together: Latency


def measure_overhead(
    batch: int,
    length: int,
    bottleneck_dim: int,
    placement: str,
    layers: int,
    check: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda text: None,
    seconds: float = 3.0,
) -> Overhead:
    """Time the lowest ``layers`` of MiniLM on ``batch`` texts of ``length`` words: bare, with adapters, with LoRA.

    Args:
        check: called in every block; what it raises ends the measurement.
        say: called with the progress.
        seconds: how long it should take; there are 5 rounds at least, and 60 at most.
    """
    with torch.random.fork_rng(devices=[]):  # a click should not change what later cells draw
        bare, adapted, lora = (_copy(_minilm(layers)) for _ in range(3))
        insert_adapters(adapted, AdapterConfig(bottleneck_dim, placement=placement))
        prepare(lora, "lora", lora_rank=LORA_RANK)
    models = {"bare": bare, "adapters": adapted, "LoRA": lora}
    _in_every_block([model.base_model for model in models.values()], check)
    calls = {name: partial(model.eval(), *_words(batch, length)) for name, model in models.items()}
    say("warming up …")
    with torch.inference_mode():
        for _ in range(2):  # the first pass is slow, the second tells how many there is time for
            start = perf_counter()
            for call in calls.values():
                call()
            a_round = perf_counter() - start
    rounds = min(max(5, int(seconds / a_round)), 60)
    table = measure_latency(
        calls,
        rounds,
        warmup=0,
        on_round=lambda done: say(f"round {done + 1} of {rounds}, {a_round * (rounds - done):.0f} s left"),
    )
    return Overhead(batch, length, bottleneck_dim, placement, layers, table["adapters"], table["LoRA"])


def measure_serving(
    dropped: int,
    tasks: int,
    bottleneck_dim: int = 16,
    length: int = 64,
    check: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda text: None,
    rounds: tuple[int, int] = (40, 12),
) -> Served:
    """Time one text of ``length`` words through MiniLM with Houlsby's adapters, as ``Served`` says.

    Args:
        check, say: as for ``measure_overhead``.
        rounds: for one task, and for all of them.
    """
    names = [f"task{i}" for i in range(tasks)]

    def with_adapters(some: Sequence[str]) -> SmallTransformer:
        model = _copy(_minilm(6).base_model)
        for name in some:
            insert_adapters(model, AdapterConfig(bottleneck_dim), name)
        return model

    with torch.random.fork_rng(devices=[]):
        bare, full, thin, joint = (with_adapters(some) for some in ([], names[:1], names[:1], names))
        apart = [with_adapters([name]) for name in names]  # models of their own, so that none has to be switched
    drop_adapters(thin, range(dropped))
    _in_every_block([bare, full, thin, joint, *apart], check)
    x = _words(1, length)
    one = measure_latency(
        {"bare": lambda: bare(*x), "full": lambda: full(*x), "thin": lambda: thin(*x)},
        rounds[0],
        on_round=lambda done: say(f"one task: round {done + 1} of {rounds[0]}"),
    )
    many = measure_latency(
        {
            "apart": lambda: [model(*x) for model in apart],
            "together": lambda: serve_together(joint, names, dropped, *x),
        },
        rounds[1],
        warmup=1,
        on_round=lambda done: say(f"all tasks: round {done + 1} of {rounds[1]}"),
    )
    return Served(dropped, tasks, one["full"], one["thin"], many["together"])


@cache
def _minilm(layers: int) -> Classifier:
    return Classifier(SmallTransformer.from_minilm(layers), num_labels=2).eval()


def _copy(model: Any) -> Any:
    """A copy with modules of its own and the same tensors: twenty of them take no memory."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def _words(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask; which words they are makes no difference to the time."""
    ids = torch.randint(1000, 30000, (batch, length), generator=torch.Generator().manual_seed(0))
    return ids, torch.ones_like(ids)


def _in_every_block(models: Iterable[Any], call: Callable[[], object]) -> None:
    for model in models:
        for block in model.blocks:
            block.register_forward_pre_hook(lambda *_: call())
