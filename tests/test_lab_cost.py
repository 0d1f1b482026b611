"""The cost explorer: footprints against ledgers, what the figure says, and what the knobs do."""

import itertools
from functools import cache
from types import SimpleNamespace

import artists
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from adapters_lesson import AdapterConfig
from adapters_lesson.costs import OUTLINES, count_parameters, memory_ledger
from adapters_lesson.course.explorers.explore_cost import (
    ARCHITECTURES,
    GPUS,
    bytes_in_words,
    compare_costs,
    cost_explorer,
    draw_cost,
    prepared_outline,
    step_footprints,
)
from adapters_lesson.course.figures import Picture
from adapters_lesson.methods import METHODS


@cache
def starts():
    return cost_explorer().values


def draw(**changes):
    """The picture, with these changes to the knobs."""
    return draw_cost(**{**starts(), **changes})


def compare(architecture="llama-3-8b", method="adapter", **changes):
    return compare_costs(SimpleNamespace(**{**starts(), "architecture": architecture, "method": method, **changes}))


def whole(architecture, method="full", config=None, lora_rank=1):
    """The model with all of its blocks."""
    return prepared_outline(architecture, method, config, lora_rank)


# --- Footprints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "method", "length", "dtype", "checkpointing"),
    [
        ("ours-3", "full", 7, torch.float32, True),
        ("llama-3-8b", "adapter", 96, torch.bfloat16, False),
    ],
)
def test_two_batches_tell_of_all(architecture, method, length, dtype, checkpointing):
    config = AdapterConfig(16, placement="pfeiffer") if method == "adapter" else None
    model = whole(architecture, method, config, 4)
    steps = step_footprints((architecture, method, config, 4), length, dtype, checkpointing)
    for batch, (optimizer, step) in zip((1, 5, 40), steps.items(), strict=True):
        assert step.ledger(batch) == memory_ledger(
            model, batch, length, optimizer=optimizer, dtype=dtype, checkpointing=checkpointing
        )


@pytest.mark.parametrize("method", ["full", "head"])
def test_the_largest_batch_is_that_of_a_search(method):
    for step in step_footprints(("ours-3", method, None, 1), 1, torch.float32, False).values():
        peaks = [step.ledger(batch).peak for batch in range(1, 40)]
        edges = {peak + off for peak in peaks[:-1] for off in (-1, 0, 1)}
        for capacity in [0, step.standing[0], peaks[0] // 2, *edges]:
            assert step.largest_batch(capacity) == sum(peak <= capacity for peak in peaks), capacity


def test_every_outline_can_be_chosen():
    assert set(ARCHITECTURES) == {*OUTLINES, "ours-3", "ours-6"}


# --- What is compared -------------------------------------------------------------------------------------------------


def test_the_ledgers_are_those_of_the_models():
    costs = compare("ours-3", "lora", lora_rank=4, batch_size=3, length=50, dtype="bf16", optimizer="sgd")
    assert list(costs.ledgers) == ["full", "lora", "head"]
    for method, ledger in costs.ledgers.items():
        model = whole("ours-3", method, lora_rank=4 if method == "lora" else 1)
        assert ledger == memory_ledger(model, 3, 50, dtype=torch.bfloat16, optimizer="sgd")


@pytest.mark.parametrize(
    ("architecture", "method"),
    [("ours-3", "full"), ("ours-3", "bitfit"), ("ours-3", "adapter")],
)
def test_disk_sizes_are_counts_of_parameters(architecture, method):
    costs = compare(architecture, method, bottleneck_dim=32, tasks=5, dtype="fp32")
    config = AdapterConfig(32) if method == "adapter" else None
    trained = count_parameters(whole(architecture, method, config, 8)).trainable
    bare = count_parameters(whole(architecture))
    head = bare.by_part["head"].total
    assert costs.copies == 4 * 5 * bare.total
    assert costs.base == 4 * (bare.total - head)
    assert costs.parts == 4 * 5 * trained
    assert trained >= head
    half = compare(architecture, method, bottleneck_dim=32, tasks=5, dtype="bf16")
    assert (2 * half.copies, 2 * half.base, 2 * half.parts) == (costs.copies, costs.base, costs.parts)


def test_what_the_model_does_not_read_is_cut_off():
    architecture, longest = "gpt2-xl", 1024
    for length in (16, longest, 8192):
        picture = draw(architecture=architecture, length=length)
        read = min(length, longest)
        assert f"4 × {read} tokens" in picture.alt
        assert ("(it reads no more)" in picture.alt) == (length > longest)
        costs = compare(architecture, length=length)
        assert costs.ledgers == compare(architecture, length=read).ledgers


def test_nothing_is_allocated_and_no_random_number_is_drawn():
    step_footprints.cache_clear()
    state = torch.get_rng_state()
    for architecture, method in (("ours-3", "full"), ("llama-3-8b", "adapter")):
        compare(architecture, method, batch_size=512, length=8192)
        config = AdapterConfig(64) if method == "adapter" else None
        model = prepared_outline(architecture, method, config, 1)
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)


# --- The figure -------------------------------------------------------------------------------------------------------


def stacks(picture):
    """The widths in each bar of a step in bytes, and the lines at GPUs in GB."""
    axes = picture.figure.axes[0]
    rows = [
        [p.get_width() for p in axes.patches if p.get_y() < y < p.get_y() + p.get_height() and p.get_width() > 0]
        for y in range(3)
    ]
    return [row for row in rows if row], sorted(line.get_xdata()[0] / 1e9 for line in axes.lines)


def texts(picture):
    return [*artists.texts(picture.figure), picture.figure.axes[1].get_title(loc="left")]


def disk(picture):
    """The pieces of the bars for the disk, as (colour, width)."""
    return [(to_hex(bar.get_facecolor()), bar.get_width()) for bar in picture.figure.axes[1].patches]


@pytest.mark.parametrize(
    ("knobs", "gpus"),
    [
        ({}, [8, 16, 24, 48, 80]),
        ({"architecture": "llama-3-70b"}, [80, 640]),
        ({"architecture": "ours-3", "method": "bitfit", "batch_size": 1, "length": 16}, []),
        ({"architecture": "llama-3-70b", "batch_size": 512, "length": 8192}, []),
    ],
    ids=str,
)
def test_the_bars_are_the_ledgers(knobs, gpus):
    picture, costs = draw(**knobs), compare(**knobs)
    rows, lines = stacks(picture)
    assert lines == gpus
    for row, ledger in zip(rows, costs.ledgers.values(), strict=True):
        larger = max(ledger.activations, ledger.gradients)
        entries = (ledger.weights, ledger.optimizer_state, larger, ledger.temporary)
        assert row == pytest.approx([entry for entry in entries if entry])
        assert bytes_in_words(ledger.peak) in picture.alt
        assert any(f": {bytes_in_words(ledger.peak)}" in text for text in texts(picture))


def test_the_table_holds_the_largest_batches():
    picture = draw(batch_size=512)
    columns = [text.split("\n") for text in texts(picture) if text.count("\n") == len(GPUS) - 1]
    expected = compare().largest_batches  # the batch size is no matter
    assert columns[0] == list(GPUS.values())
    assert columns[1:] == [[f"{batch:,}" if batch else "–" for batch in row] for row in expected.values()]
    many = texts(draw(architecture="ours-3", length=16, dtype="fp32", checkpointing=True))
    assert any("1.06 M" in text for text in many)
    assert expected["full"] == [0, 0, 0, 0, 10, 178]
    for gpu, batch in [*zip(GPUS, expected["adapter"], strict=True)][2:4]:
        model = whole("llama-3-8b", "adapter", AdapterConfig(64))
        for size, fits in ((batch, True), (batch + 1, False)):
            if size:
                assert (memory_ledger(model, size, 512, dtype=torch.bfloat16).peak <= gpu * 1e9) == fits


def test_the_bars_of_the_disk():
    knobs = {"architecture": "minilm", "method": "lora", "tasks": 4}
    costs = compare(**knobs)
    copies, base, parts = disk(draw(**knobs))
    assert [colour for colour, _ in (copies, base, parts)] == ["#222222", "#d9d9d9", "#d55e00"]
    assert base[1] / copies[1] == pytest.approx(costs.base / costs.copies)
    assert parts[1] / copies[1] == pytest.approx(costs.parts / costs.copies)
    assert len(disk(draw(method="full"))) == 1
    one = draw(**knobs | {"tasks": 1})
    assert "On disk: 1 task" in texts(one)
    assert disk(one)[0][1] < disk(one)[1][1] + disk(one)[2][1]  # one task: adapters come on top


def test_bytes_in_words():
    assert [bytes_in_words(size) for size in (1540, 44_900_000, 999e6, 1e9, 60.04e9, 1.128e12, 9.9e12, 1e13)] == [
        "1.54 kB", "44.9 MB", "999 MB", "1.00 GB", "60.0 GB", "1,128 GB", "9,900 GB", "10.0 TB"
    ]  # fmt: skip


EXTREMES = [
    {"architecture": "ours-3", "method": "full", "batch_size": 1, "length": 16, "tasks": 64, "dtype": "fp32"},
    {"architecture": "bert-large", "method": "layer_norm", "batch_size": 512, "length": 8192, "optimizer": "momentum"},
    {"architecture": "llama-3-70b", "batch_size": 512, "length": 8192, "placement": "pfeiffer", "checkpointing": True},
    {"architecture": "llama-3-70b", "method": "full", "tasks": 1},
]


@pytest.mark.parametrize("knobs", [*EXTREMES, {"method": "bitfit"}], ids=str)
def test_words_lie_inside_the_figure_and_not_upon_each_other(knobs):
    figure = draw(**knobs).figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    words = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    boxes = {(text.get_text(), i): text.get_window_extent(canvas.get_renderer()) for i, text in enumerate(words)}
    for (name, _), box in boxes.items():
        assert 0 <= box.x0 < box.x1 <= width, name
        assert 0 <= box.y0 < box.y1 <= height, name
        if "\n" in name:
            assert box.x0 >= 570, name  # right of the bars
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


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are made but not painted, which takes longest."""
    monkeypatch.setattr(Picture, "svg", lambda picture: "<svg/>")


def test_every_method_with_every_architecture(explorer, unpainted):
    seen, pairs = set(), [*itertools.product(ARCHITECTURES, ["head"]), *itertools.product(["ours-3"], METHODS)]
    for architecture, method in pairs:
        explorer.knobs["architecture"].value = architecture
        explorer.knobs["method"].value = method
        assert explorer.error is None
        assert explorer.picture.alt.startswith(architecture)
        seen.add(explorer.picture.alt)
    assert len(seen) == len(set(pairs))


def test_every_knob_changes_the_picture_unless_it_rests(explorer):
    explorer.knobs["architecture"].value = "minilm"
    explorer.knobs["method"].value = "adapter"
    for name, knob in explorer.knobs.items():
        if name == "method":
            continue
        before, image, rests = explorer.picture.alt, explorer.image.value, knob.disabled
        options = getattr(knob, "options", [False, True])
        options = [option[-1] if isinstance(option, tuple) else option for option in options]
        knob.value = next(value for value in options if value != knob.value)
        assert explorer.error is None
        assert (explorer.picture.alt == before) == rests, name
        assert (explorer.image.value == image) == rests, name


def test_knobs_rest_where_they_have_no_effect(explorer, unpainted):
    used = {"adapter": {"placement", "bottleneck_dim"}, "lora": {"lora_rank"}}
    for method in METHODS:
        explorer.knobs["method"].value = method
        resting = {name for name, knob in explorer.knobs.items() if knob.disabled}
        assert resting == {"placement", "bottleneck_dim", "lora_rank"} - used.get(method, set())


def test_the_bars_follow_a_knob(explorer):
    explorer.knobs["length"].value = 8192
    rows, _ = stacks(explorer.picture)
    ledger = compare(length=8192).ledgers["adapter"]
    assert sum(rows[1]) == pytest.approx(ledger.peak)
    explorer.reset_button.click()
    rows, _ = stacks(explorer.picture)
    assert sum(rows[1]) == pytest.approx(compare().ledgers["adapter"].peak)


def test_no_adapter_is_wider_than_the_model(explorer, unpainted, recwarn):
    explorer.knobs["architecture"].value = "ours-3"
    explorer.knobs["bottleneck_dim"].value = max(explorer.knobs["bottleneck_dim"].options)
    assert explorer.error is None
    assert not recwarn.list


# --- What lesson 04 says there is to see ------------------------------------------------------------------------------


def peaks(method="adapter", **settings):
    ledgers = compare(method=method, **settings).ledgers
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


def test_the_learner_s_formula_is_marked_in_every_bar():
    made = cost_explorer(lambda total, trained, itemsize: itemsize * (total + 3 * trained))
    picture = artists.drawn(made)
    assert picture.alt.count("(yours, without activations: ") == 3
    assert artists.texts(picture.figure).count("yours") == 3
    assert "yours" not in artists.drawn(made, optimizer="sgd").alt  # for which the formula is none
