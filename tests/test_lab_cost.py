"""The cost explorer: footprints against ledgers and brute force, what the figure says, and what the knobs do."""

import itertools

import artists
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from models import small

from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, SmallTransformerConfig, prepare
from adapters_lesson.adapter import PLACEMENTS
from adapters_lesson.costs import OPTIMIZERS, OUTLINES, count_parameters, memory_ledger, outline, planning
from adapters_lesson.costs.memory import footprint
from adapters_lesson.costs.planning import ARCHITECTURES, GPUS, compare_costs, step_footprint
from adapters_lesson.lab.cost import LENGTHS, cost_explorer, draw_cost
from adapters_lesson.methods import METHODS
from adapters_lesson.plots.planning import bytes_in_words

PREPARED = {
    **{method: (method, None, 1) for method in ("full", "head", "layer_norm", "bitfit")},
    **{place: ("adapter", AdapterConfig(16, placement=place), 1) for place in PLACEMENTS},
    "lora": ("lora", None, 4),
}


def whole(architecture, method="full", config=None, lora_rank=1):
    """The model with all of its blocks."""
    with torch.device("meta"):
        if architecture.startswith("ours"):
            blocks = int(architecture[-1])
            model = Classifier(SmallTransformer(SmallTransformerConfig(num_hidden_layers=blocks)), 2)
        else:
            model = outline(architecture, 2)
        prepare(model, method, config, lora_rank=lora_rank)
    return model


# --- Footprints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "head", "bitfit", "houlsby", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_largest_batch_is_that_of_a_search(method, checkpointing):
    model = Classifier(small(), 2)
    name, config, rank = PREPARED[method]
    prepare(model, name, config, lora_rank=rank)
    for optimizer, length in itertools.product(OPTIMIZERS, (1, 7)):
        settings = {"optimizer": optimizer, "checkpointing": checkpointing}
        step = footprint(model, length, **settings)
        peaks = [memory_ledger(model, batch, length, **settings).peak for batch in range(1, 40)]
        assert peaks == [step.ledger(batch).peak for batch in range(1, 40)]
        edges = {peak + off for peak in peaks[:-1] for off in (-1, 0, 1)}
        for capacity in [0, step.weights, peaks[0] // 2, *edges]:
            assert step.largest_batch(capacity) == sum(peak <= capacity for peak in peaks), (settings, capacity)


def test_the_largest_batch_where_nothing_is_trained():
    step = footprint(Classifier(small(), 2).requires_grad_(False), 4)
    assert step.activations == step.fixed == 0
    batch = step.largest_batch(10**8)
    assert step.ledger(batch).peak <= 10**8 < step.ledger(batch + 1).peak


def test_refuses_a_batch_below_one():
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, not 0"):
        footprint(Classifier(small(), 2), 4).ledger(0)


@pytest.mark.parametrize("method", PREPARED)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_blocks_and_three_tell_of_all_blocks(architecture, method):
    model = whole(architecture, *PREPARED[method])
    for settings in (
        {"dtype": torch.float32, "optimizer": "adamw"},
        {"dtype": torch.bfloat16, "optimizer": "momentum", "checkpointing": True},
    ):
        assert step_footprint(architecture, *PREPARED[method], 96, **settings) == footprint(model, 96, **settings)


def test_every_outline_can_be_chosen():
    assert set(ARCHITECTURES) == {*OUTLINES, "ours-3", "ours-6"}


# --- What is compared -------------------------------------------------------------------------------------------------


def test_the_ledgers_are_those_of_the_models():
    costs = compare_costs("bert-base", "lora", lora_rank=4, batch_size=3, length=50, dtype="bf16", optimizer="sgd")
    assert list(costs.ledgers) == ["full", "lora", "head"]
    for method, ledger in costs.ledgers.items():
        model = whole("bert-base", method, lora_rank=4)
        assert ledger == memory_ledger(model, 3, 50, dtype=torch.bfloat16, optimizer="sgd")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["ours-3", "bert-base", "gpt2-xl"])
def test_disk_sizes_are_counts_of_parameters(architecture, method):
    costs = compare_costs(architecture, method, bottleneck_dim=32, tasks=5, dtype="fp32")
    config = AdapterConfig(32) if method == "adapter" else None
    trained = count_parameters(whole(architecture, method, config, 8)).trainable
    bare = count_parameters(whole(architecture))
    head = bare.by_part["head"].total
    assert costs.copies == 4 * 5 * bare.total
    assert costs.base == 4 * (bare.total - head)
    assert costs.parts == 4 * 5 * trained
    assert trained >= head
    half = compare_costs(architecture, method, bottleneck_dim=32, tasks=5, dtype="bf16")
    assert (2 * half.copies, 2 * half.base, 2 * half.parts) == (costs.copies, costs.base, costs.parts)


@pytest.mark.parametrize(
    ("architecture", "longest"), [("ours-6", 512), ("bert-large", 512), ("gpt2-xl", 1024), ("llama-3-8b", 8192)]
)
def test_what_the_model_does_not_read_is_cut_off(architecture, longest):
    for length in LENGTHS:
        picture = draw_cost(architecture=architecture, length=length)
        read = min(length, longest)
        assert f"4 × {read} tokens" in picture.alt
        assert ("(it reads no more)" in picture.alt) == (length > longest)
        costs = compare_costs(architecture, length=length)
        assert costs.ledgers == compare_costs(architecture, length=read).ledgers


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"architecture": "bert"}, "architecture must be one of 'ours-3', .*, not 'bert'"),
        ({"method": "prompt"}, "method must be one of 'full', .*, not 'prompt'"),
        ({"placement": "above"}, "placement must be one of 'houlsby', 'pfeiffer', 'parallel', not 'above'"),
        ({"dtype": "int4"}, "dtype must be one of 'fp32', 'bf16', not 'int4'"),
        ({"optimizer": "lion"}, "optimizer must be one of .*, not 'lion'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"length": 0}, "sequence_length must be a whole number of at least 1, not 0"),
        ({"tasks": 0}, "tasks must be at least 1, not 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_what_makes_no_sense(setting, message):
    with pytest.raises(ValueError, match=message):
        draw_cost(**setting)


def test_nothing_is_allocated_and_no_random_number_is_drawn():
    planning._prepared.cache_clear()
    state = torch.get_rng_state()
    for architecture, method in itertools.product(ARCHITECTURES, METHODS):
        compare_costs(architecture, method, lora_rank=5, batch_size=512, length=8192)
        config = AdapterConfig(64) if method == "adapter" else None
        model = planning._prepared(architecture, 3, method, config, 5 if method == "lora" else 1)
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)


# --- The figure -------------------------------------------------------------------------------------------------------


def stacks(picture):
    """The widths in each bar of a step, and the lines at GPUs, both in the figure's unit."""
    rows = [
        [
            p.get_width()
            for p in artists.patches(picture.figure)
            if p.get_y() < y < p.get_y() + p.get_height() and p.get_width() > 0
        ]
        for y in range(3)
    ]
    _, lines = artists.collections(picture.figure)  # the first one is the grid
    return [row for row in rows if row], sorted({x for segment in lines.get_segments() for x, _ in segment})


def texts(picture):
    return [text.get_text() for text in all_texts(picture.figure)]


def all_texts(figure):
    return figure.texts


def disk(picture):
    """The pieces of the bars for the disk, as (colour, width)."""
    bars = [patch for patch in artists.patches(picture.figure) if patch.get_height() < 0.1]  # a step's are 0.5 high
    return [(to_hex(bar.get_facecolor()), bar.get_width()) for bar in bars]


@pytest.mark.parametrize(
    ("knobs", "unit", "gpus"),
    [
        ({}, 1e9, [8, 16, 24, 48, 80]),
        ({"architecture": "llama-3-70b", "method": "lora"}, 1e9, [80, 640]),
        ({"architecture": "ours-3", "method": "bitfit", "batch_size": 1, "length": 16}, 1e6, []),
        ({"architecture": "llama-3-70b", "batch_size": 512, "length": 8192}, 1e12, []),
        ({"method": "full"}, 1e9, [8, 16, 24, 48, 80]),
    ],
    ids=str,
)
def test_the_bars_are_the_ledgers(knobs, unit, gpus):
    picture, costs = draw_cost(**knobs), compare_costs(**knobs)
    rows, lines = stacks(picture)
    assert lines == gpus
    for row, ledger in zip(rows, costs.ledgers.values(), strict=True):
        larger = max(ledger.activations, ledger.gradients)
        entries = (ledger.weights, ledger.optimizer_state, larger, ledger.temporary)
        assert row == pytest.approx([entry / unit for entry in entries if entry])
        assert bytes_in_words(ledger.peak) in picture.alt
        assert any(f": {bytes_in_words(ledger.peak)}" in text for text in texts(picture))


def test_the_table_holds_the_largest_batches():
    picture = draw_cost(batch_size=512)
    columns = [text.split("\n") for text in texts(picture) if text.count("\n") == len(GPUS) - 1]
    expected = compare_costs().largest_batches  # the batch size is no matter
    assert columns == [[f"{batch:,}" if batch else "–" for batch in row] for row in expected.values()]
    many = texts(draw_cost(architecture="ours-3", length=16, dtype="fp32", checkpointing=True))
    assert any("1.06 M" in text for text in many)
    assert expected["full"] == [0, 0, 0, 0, 10, 178]
    for gpu, batch in zip(GPUS, expected["adapter"], strict=True):
        model = whole("llama-3-8b", "adapter", AdapterConfig(64))
        for size, fits in ((batch, True), (batch + 1, False)):
            if size:
                assert (memory_ledger(model, size, 512, dtype=torch.bfloat16).peak <= gpu * 1e9) == fits


def test_the_bars_of_the_disk():
    knobs = {"architecture": "minilm", "method": "lora", "tasks": 4}
    costs = compare_costs(**knobs)
    copies, base, parts = disk(draw_cost(**knobs))
    assert [colour for colour, _ in (copies, base, parts)] == ["#222222", "#d9d9d9", "#d55e00"]
    assert base[1] / copies[1] == pytest.approx(costs.base / costs.copies)
    assert parts[1] / copies[1] == pytest.approx(costs.parts / costs.copies)
    assert len(disk(draw_cost(method="full"))) == 1
    one = draw_cost(**knobs | {"tasks": 1})
    assert "On disk: 1 task" in texts(one)
    assert disk(one)[0][1] < disk(one)[1][1] + disk(one)[2][1]  # one task: adapters come on top


def test_bytes_in_words():
    assert [bytes_in_words(size) for size in (1540, 44_900_000, 999e6, 1e9, 60.04e9, 1.128e12, 9.9e12, 1e13)] == [
        "1.54 kB", "44.9 MB", "999 MB", "1.00 GB", "60.0 GB", "1,128 GB", "9,900 GB", "10.0 TB"
    ]  # fmt: skip


EXTREMES = [
    {"architecture": architecture, "method": method, "batch_size": batch, "length": length, **more}
    for architecture in ("ours-3", "bert-large", "llama-3-70b")
    for method in ("full", "adapter", "layer_norm")
    for batch, length in ((1, 16), (512, 8192))
    for more in (
        {"dtype": "fp32", "optimizer": "momentum", "checkpointing": True, "tasks": 64, "placement": "pfeiffer"},
        {"bottleneck_dim": 256, "tasks": 1},
    )
]


@pytest.mark.parametrize(
    "knobs", [*EXTREMES, {}, {"method": "bitfit"}, {"architecture": "gpt2-xl"}, {"batch_size": 16}], ids=str
)
def test_words_lie_inside_the_figure_and_not_upon_each_other(knobs):
    figure = draw_cost(**knobs).figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert figure.canvas.get_width_height() == (792, 374)
    boxes = {(text.get_text(), i): text.get_window_extent(renderer) for i, text in enumerate(all_texts(figure))}
    for (name, _), box in boxes.items():
        assert 0 <= box.x0 < box.x1 <= 792, name
        assert 0 <= box.y0 < box.y1 <= 374, name
        if "\n" in name:
            assert box.x0 > 572, name  # right of the GPUs' names
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].shrunk(0.9, 0.9).overlaps(boxes[other].shrunk(0.9, 0.9)), (one, other)


# --- The knobs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explorer():
    return cost_explorer()


@pytest.fixture(autouse=True)
def reset(request):
    if "explorer" in request.fixturenames:
        request.getfixturevalue("explorer").reset()


def test_every_method_with_every_architecture(explorer):
    seen = set()
    for architecture, method in itertools.product(ARCHITECTURES, METHODS):
        explorer.knobs["architecture"].value = architecture
        explorer.knobs["method"].value = method
        assert explorer.error is None
        assert explorer.picture.alt.startswith(ARCHITECTURES[architecture][0])
        seen.add(explorer.picture.alt)
    assert len(seen) == len(ARCHITECTURES) * len(METHODS)


def test_every_knob_changes_the_picture_unless_it_rests(explorer):
    for method in ("full", "adapter", "lora"):
        explorer.knobs["method"].value = method
        for name, knob in explorer.knobs.items():
            if name == "method":
                continue
            before, image, rests = explorer.picture.alt, explorer.image.value, knob.disabled
            options = [value for _, value in knob._options_full] if hasattr(knob, "options") else [False, True]
            knob.value = next(value for value in options if value != knob.value)
            assert explorer.error is None
            assert (explorer.picture.alt == before) == rests, (method, name)
            assert (explorer.image.value == image) == rests, (method, name)


def test_knobs_rest_where_they_have_no_effect(explorer):
    used = {"adapter": {"placement", "bottleneck_dim"}, "lora": {"lora_rank"}}
    for method in METHODS:
        explorer.knobs["method"].value = method
        resting = {name for name, knob in explorer.knobs.items() if knob.disabled}
        assert resting == {"placement", "bottleneck_dim", "lora_rank"} - used.get(method, set())


def test_the_bars_follow_a_knob(explorer):
    explorer.knobs["length"].value = 8192
    rows, _ = stacks(explorer.picture)
    ledger = compare_costs(length=8192).ledgers["adapter"]
    assert sum(rows[1]) == pytest.approx(ledger.peak / 1e9)
    explorer.reset_button.click()
    rows, _ = stacks(explorer.picture)
    assert sum(rows[1]) == pytest.approx(compare_costs().ledgers["adapter"].peak / 1e9)


def test_an_error_is_shown(explorer):
    explorer.paint(lambda: draw_cost(tasks=0))
    assert "tasks must be at least 1, not 0" in explorer.status.value
    explorer.knobs["tasks"].value = 2
    assert explorer.error is None


def test_no_adapter_is_wider_than_the_model(explorer, recwarn):
    explorer.knobs["architecture"].value = "ours-3"
    explorer.knobs["bottleneck_dim"].value = max(explorer.knobs["bottleneck_dim"].options)
    assert explorer.error is None
    assert not recwarn.list


# --- What lesson 04 says there is to see ------------------------------------------------------------------------------


def peaks(method="adapter", **settings):
    ledgers = compare_costs(method=method, **settings).ledgers
    return ledgers[method], ledgers["full"]


def test_half_of_full_fine_tuning_is_adams_state():
    adapters, full = peaks()
    assert full.optimizer_state / full.peak == pytest.approx(0.5, abs=0.01)
    assert adapters.optimizer_state < 0.01 * adapters.peak
    assert 0.5 < adapters.weights / adapters.peak < 0.7


def test_long_texts_leave_adapters_little_to_save():
    (short, short_full), (long, long_full) = peaks(length=16), peaks(length=8192)
    assert 0.24 < short.peak / short_full.peak < 0.27
    assert 0.67 < long.peak / long_full.peak < 0.75
    assert long.activations / long_full.activations == pytest.approx(0.75, abs=0.03)


def test_the_width_matters_little_and_checkpointing_much():
    (wide, _), (narrow, _) = peaks(length=8192), peaks(length=8192, bottleneck_dim=1)
    assert 0.99 < narrow.peak / wide.peak < 1
    assert peaks(length=8192, checkpointing=True)[0].peak < 0.2 * wide.peak


def test_sgd_saves_full_fine_tuning_half():
    (adapters, full), (with_sgd, full_with_sgd) = peaks(), peaks(optimizer="sgd")
    assert full_with_sgd.peak / full.peak == pytest.approx(0.5, abs=0.01)
    assert with_sgd.peak / adapters.peak > 0.99


def test_no_method_fits_llama_70b_on_one_gpu_of_80_gb():
    assert compare_costs("llama-3-70b").footprints["head"].weights == pytest.approx(139e9, rel=0.003)
    for method in METHODS:
        for checkpointing in (False, True):
            costs = compare_costs("llama-3-70b", method, length=16, checkpointing=checkpointing)
            assert all(row[list(GPUS).index(80)] == 0 for row in costs.largest_batches.values())
