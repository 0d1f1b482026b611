"""Multiply-adds when serving are those that a run does, and tasks served together are those served alone."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adapters_lesson import (
    AdapterConfig,
    SmallTransformer,
    SmallTransformerConfig,
    drop_adapters,
    insert_adapters,
    set_active_adapter,
)
from adapters_lesson.costs.serving import (
    extra_multiply_adds,
    measure_overhead,
    measure_serving,
    multiply_adds,
    serve_together,
    shared_work,
)

D, LAYERS, LENGTH, M = 32, 3, 10, 8
NAMES = ("topic", "tone", "spam")


def model_with(names=NAMES, placement="houlsby"):
    torch.manual_seed(0)
    config = SmallTransformerConfig(
        vocab_size=50, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=4 * D
    )
    model = SmallTransformer(config).eval()
    for name in names:
        insert_adapters(model, AdapterConfig(M, placement=placement, init="bert", init_std=0.5), name)
    return model


def words(batch=2):
    ids = torch.randint(50, (batch, LENGTH), generator=torch.Generator().manual_seed(0))
    return ids, torch.ones_like(ids)


def counted(call):
    """Multiply-adds of a call; attention is written out, so that its products are counted."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("length", [1, 16, 256])
def test_the_products_of_a_block_are_those_of_the_formula(length):
    """That of exercise 9.2: 12 d² and 2 · length · d without adapters, and 2 d m for each of them; d is MiniLM's."""
    d, m = 384, 8
    bare = {"FFN": 8 * d**2, "projections": 4 * d**2, "attention": 2 * length * d}
    for placement, adapters in (("houlsby", 2), ("pfeiffer", 1), ("parallel", 1)):
        parts = multiply_adds(length, AdapterConfig(m, placement=placement))
        assert parts == {**bare, "adapters": adapters * 2 * d * m}
    assert multiply_adds(length, lora_rank=4) == {**bare, "adapters": 2 * 2 * d * 4}
    assert multiply_adds(length)["adapters"] == extra_multiply_adds(length) == 0
    assert extra_multiply_adds(length, lora_rank=4) == pytest.approx(16 / (12 * d + 2 * length))


def test_the_products_of_a_block_are_those_that_a_run_does():
    config, parts = AdapterConfig(M), multiply_adds(LENGTH, AdapterConfig(M))
    with torch.device("meta"):
        model = SmallTransformer(SmallTransformerConfig(num_hidden_layers=1))
        insert_adapters(model, config)
        assert sum(parts.values()) == counted(lambda: model(torch.zeros(1, LENGTH, dtype=torch.long))) // LENGTH


@pytest.mark.parametrize("dropped", range(LAYERS + 1))
def test_the_shared_work_is_what_is_counted(dropped):
    x, model = words(), model_with()
    together = counted(lambda: serve_together(model, NAMES, dropped, *x))
    extra = 2 * 2 * M / (12 * D + 2 * LENGTH)  # by the formula
    apart = sum(counted(lambda name=name: serve_together(model, [name], 0, *x)) for name in NAMES)
    assert together / apart == pytest.approx(shared_work(LAYERS, dropped, 3, extra))


def test_known_values_of_the_shared_work():
    assert shared_work(6, 5, 8, 0.0) == 13 / 48
    assert shared_work(6, 0, 8, 0.1) == 1
    assert shared_work(6, 6, 1, 0.25) == pytest.approx(1 / 1.25)


@pytest.mark.parametrize(("placement", "dropped"), [("houlsby", 0), ("pfeiffer", 2), ("parallel", 3), ("houlsby", 2)])
def test_tasks_served_together_are_those_served_alone(placement, dropped):
    x, model = words(), model_with(placement=placement)
    with torch.inference_mode():
        together = serve_together(model, NAMES, dropped, *x)
        assert list(together) == list(NAMES)
        for name, hidden in together.items():
            set_active_adapter(model, name)
            drop_adapters(model, range(dropped))
            assert torch.equal(hidden, model(*x))
    different = not torch.equal(together["topic"], together["tone"])
    assert different == (dropped < LAYERS)  # with all adapters dropped nothing tells the tasks apart


def test_overheads_are_measured_with_the_settings_that_are_asked_for():
    said, checks = [], []
    before = torch.random.get_rng_state()
    point = measure_overhead(2, 8, 4, "parallel", 2, lambda: checks.append(1), said.append, seconds=0.01)
    assert torch.equal(torch.random.get_rng_state(), before)  # what later cells draw stays the same
    assert (point.batch, point.length, point.bottleneck_dim, point.placement, point.layers) == (2, 8, 4, "parallel", 2)
    for row in (point.adapters, point.lora):
        assert len(row.times) >= 5
        low, high = row.overhead_interval
        assert low <= row.overhead <= high
    assert said[0] == "warming up …"
    assert said[1].startswith("round 1 of ")
    assert len(checks) == 3 * 2 * (2 + len(point.lora.times))  # contenders, layers, rounds with those for warming up


def test_one_task_and_many_are_measured():
    said = []
    point = measure_serving(1, 2, bottleneck_dim=4, length=8, say=said.append, rounds=(5, 6))
    assert (point.dropped, point.tasks) == (1, 2)
    assert [len(row.times) for row in (point.full, point.thin, point.together)] == [5, 5, 6]
    assert said[-1] == "all tasks: round 6 of 6"


@pytest.mark.parametrize("measure", [lambda **k: measure_overhead(1, 8, 4, "houlsby", 2, **k),
                                     lambda **k: measure_serving(1, 2, **k)])  # fmt: skip
def test_a_measurement_can_be_ended(measure):
    def stop():
        raise KeyboardInterrupt("stopped")

    with pytest.raises(KeyboardInterrupt):
        measure(check=stop)
