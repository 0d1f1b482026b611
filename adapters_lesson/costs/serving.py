"""What adapters cost when serving MiniLM: multiply-adds and time; many tasks on the same text."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

import torch

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.insertion import drop_adapters, insert_adapters, set_active_adapter, switch_slots
from adapters_lesson.methods import prepare
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import slots_of
from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

from .latency import Latency, measure_latency

LORA_RANK = 8  # with which adapters are compared, on query and value
_minilm = cache(lambda layers: Classifier(SmallTransformer.from_minilm(layers), num_labels=2).eval())


def multiply_adds(length: int, config: AdapterConfig | None = None, lora_rank: int = 0) -> dict[str, int]:
    """Multiply-adds for one token in one block of MiniLM, by part; ``length`` tokens are attended to.

    Only matrix products count: biases, activations and LayerNorms add less than a hundredth to them. "adapters" is what
    comes on top: the adapters of ``config``, or LoRA of rank ``lora_rank`` on query and value.
    """
    d, ffn = SmallTransformerConfig.hidden_size, SmallTransformerConfig.intermediate_size
    more = 2 * 2 * d * lora_rank
    if config is not None:
        more += 2 * d * config.bottleneck_for(d) * len(PLACEMENTS[config.placement].sites["post"])
    return {"FFN": 2 * d * ffn, "projections": 4 * d**2, "attention": 2 * length * d, "adapters": more}


def extra_multiply_adds(length: int, config: AdapterConfig | None = None, lora_rank: int = 0) -> float:
    """What comes on top, as a share of the bare model: 0.02 for 2 % more. Arguments as ``multiply_adds``."""
    parts = multiply_adds(length, config, lora_rank)
    return parts["adapters"] / (sum(parts.values()) - parts["adapters"])


def shared_work(layers: int, dropped: int, tasks: int, extra: float) -> float:
    """Multiply-adds of ``tasks`` tasks served together, as a share of as many separate passes with all adapters.

    The lowest ``dropped`` blocks have no adapters (AdapterDrop: Rücklé et al. 2020, arXiv 2010.11918) and are computed
    once, the others once for each task. ``extra`` is what adapters add to a block: ``extra_multiply_adds``.
    """
    return (dropped / (1 + extra) + tasks * (layers - dropped)) / (tasks * layers)


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
        switch_slots(slots, name)
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
    """What was measured for ``tasks`` tasks with the adapters of the lowest ``dropped`` layers left out."""

    dropped: int
    tasks: int
    full: Latency  # one task with all adapters, against the bare model
    thin: Latency  # one task with the lowest left out, against the bare model
    together: Latency  # all tasks with the lower layers shared, against as many separate passes with all adapters


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

    It takes about so many ``seconds``, for 5 to 60 rounds. ``check`` is called in every block and may end it by what it
    raises; ``say`` is called with the progress.
    """
    with torch.random.fork_rng(devices=[]):  # a click should not change what later cells draw
        bare, adapted, lora = (_minilm_copy(layers, check) for _ in range(3))
        insert_adapters(adapted, AdapterConfig(bottleneck_dim, placement=placement))
        prepare(lora, "lora", lora_rank=LORA_RANK)
    models = {"bare": bare, "adapters": adapted, "LoRA": lora}
    calls = {name: partial(model.eval(), *_words(batch, length)) for name, model in models.items()}
    say("warming up …")
    with torch.inference_mode():
        for _ in range(2):  # the first pass is slow, the second tells how many there is time for
            start = perf_counter()
            for call in calls.values():
                call()
            a_round = perf_counter() - start
    rounds = min(max(5, int(seconds / a_round)), 60)
    left = "round {} of {}, {:.0f} s left".format
    table = measure_latency(calls, rounds, 0, on_round=lambda n: say(left(n + 1, rounds, a_round * (rounds - n))))
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

    ``rounds`` are those for one task, and for all of them; ``check`` and ``say`` as for ``measure_overhead``.
    """
    names = [f"task{i}" for i in range(tasks)]

    def with_adapters(some: Sequence[str]) -> SmallTransformer:
        model = _minilm_copy(6, check).base_model
        for name in some:
            insert_adapters(model, AdapterConfig(bottleneck_dim), name)
        return model

    with torch.random.fork_rng(devices=[]):
        bare, full, thin, joint = (with_adapters(some) for some in ([], names[:1], names[:1], names))
        apart = [with_adapters([name]) for name in names]  # so that none has to be switched
    drop_adapters(thin, range(dropped))
    x = _words(1, length)
    calls = {"bare": lambda: bare(*x), "full": lambda: full(*x), "thin": lambda: thin(*x)}
    one = measure_latency(calls, rounds[0], on_round=lambda n: say(f"one task: round {n + 1} of {rounds[0]}"))
    calls = {"apart": lambda: [m(*x) for m in apart], "together": lambda: serve_together(joint, names, dropped, *x)}
    many = measure_latency(calls, rounds[1], 1, on_round=lambda n: say(f"all tasks: round {n + 1} of {rounds[1]}"))
    return Served(dropped, tasks, one["full"], one["thin"], many["together"])


def _minilm_copy(layers: int, check: Callable[[], object]) -> Any:
    """A copy with modules of its own, which call ``check``, and the same tensors: twenty of them take no memory."""
    model: Any = copy.deepcopy(_minilm(layers), {id(p): p for p in _minilm(layers).parameters()})
    for block in model.base_model.blocks:
        block.register_forward_pre_hook(lambda *_: check())
    return model


def _words(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask; which words they are makes no difference to the time."""
    return torch.arange(1000, 1000 + batch * length).view(batch, length), torch.ones(batch, length, dtype=torch.long)
