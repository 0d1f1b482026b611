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
from adapters_lesson.adapter import PLACEMENTS
from adapters_lesson.costs import (
    ADAPTERS_PER_BLOCK,
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


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_products_of_a_block_are_those_of_a_forward_pass(placement):
    ids, mask = words()
    parts = multiply_adds(D, M, ADAPTERS_PER_BLOCK[placement], LENGTH)
    bare = counted(lambda: model_with(())(ids, mask))
    adapted = counted(lambda: model_with(NAMES[:1], placement)(ids, mask))
    assert adapted == ids.numel() * LAYERS * sum(parts.values())
    assert bare == ids.numel() * LAYERS * (sum(parts.values()) - parts["adapters"])
    assert adapted / bare - 1 == pytest.approx(extra_multiply_adds(D, M, ADAPTERS_PER_BLOCK[placement], LENGTH))


@pytest.mark.parametrize("dropped", range(LAYERS + 1))
def test_the_shared_work_is_what_is_counted(dropped):
    x, model = words(), model_with()
    together = counted(lambda: serve_together(model, NAMES, dropped, *x))
    apart = sum(counted(lambda name=name: serve_together(model, [name], 0, *x)) for name in NAMES)
    assert together / apart == pytest.approx(shared_work(LAYERS, dropped, 3, extra_multiply_adds(D, M, 2, LENGTH)))


def test_known_values_of_the_shared_work():
    assert shared_work(6, 5, 8, 0.0) == 13 / 48
    assert shared_work(6, 0, 8, 0.1) == 1
    assert shared_work(6, 6, 1, 0.25) == pytest.approx(1 / 1.25)


@pytest.mark.parametrize(("dropped", "tasks"), [(-1, 1), (7, 1), (0, 0)])
def test_impossible_numbers_are_refused(dropped, tasks):
    with pytest.raises(ValueError, match="at least 1 task, and drop 0 to 6 layers"):
        shared_work(6, dropped, tasks, 0.0)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("dropped", [0, 2, 3])
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
