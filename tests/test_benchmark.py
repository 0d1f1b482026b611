"""The machinery of `make bench` and `make lesson-times`, on made-up rounds: no timing is tested here."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import against_peers  # noqa: E402
import contender  # noqa: E402
import floor  # noqa: E402
import lesson_times  # noqa: E402
import profile_step  # noqa: E402
import results  # noqa: E402

from adapters_lesson.history import load_results  # noqa: E402


def made_up_points():
    """Times as `make bench` gets them: every contender of a point takes its own number of seconds, times a drift."""
    drift, points = (1.0, 2.0, 4.0), []
    for what, names in (("training step", against_peers.STEP), ("inference", against_peers.INFERENCE)):
        for batch, length in ((1, 32), (32, 32), (32, 128)):
            values = {name: [(i + 1) * d for d in drift] for i, name in enumerate(names)}
            points.append(against_peers.point(what, "s", batch, length, 1, values))
    return points


def test_a_ratio_is_formed_within_each_round_so_that_drift_cancels():
    assert results.spread([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == {"ratio": 2.0, "low": 2.0, "high": 2.0}
    # Ratios 1, 2, … 11: median 6; the quantiles lie a tenth of the way in from both ends.
    assert results.spread([float(n) for n in range(1, 12)], [1.0] * 11) == {"ratio": 6.0, "low": 2.0, "high": 10.0}


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], [])])
def test_rounds_that_do_not_pair_are_refused(a, b):
    with pytest.raises(ValueError, match=f"not {len(a)} and {len(b)}"):
        results.spread(a, b)


def test_every_comparison_names_contenders_that_are_measured_together():
    fresh = {"peak memory", "peak memory above the loaded model", "time to the first step"}
    for comparison in results.COMPARISONS:
        names = against_peers.INFERENCE if comparison.what == "inference" else against_peers.STEP
        assert {comparison.a, comparison.b} <= set(names), comparison
        assert comparison.what in {point[0] for point in against_peers.POINTS} | fresh, comparison
    assert {*against_peers.STEP, *against_peers.INFERENCE} == {*contender.OURS, *contender.THEIRS}


def test_targets_are_judged_by_the_ratio():
    points = made_up_points()
    rows = results.comparisons(points)
    for row in rows:
        point = next(p for p in points if all(p[key] == row[key] for key in ("what", "batch", "length", "threads")))
        expected = point["values"][row["a"]][0] / point["values"][row["b"]][0]
        assert row["low"] == row["ratio"] == row["high"] == pytest.approx(expected, abs=1e-4)
        if row["limit"] is not None:
            assert row["met"] == (row["ratio"] < row["limit"] or (row["ratio"] == row["limit"] and not row["below"]))
    assert {row["batch"] for row in rows if (row["a"], row["b"], row["limit"]) == ("ours", "bare", 1.05)} == {32}
    judged = [row["met"] for row in rows if row["met"] is not None]
    assert True in judged
    assert False in judged
    assert results.table(rows).endswith(f"{sum(judged)} of {len(judged)} targets met")
    assert results.table(rows).count("NOT MET") == judged.count(False)


@pytest.mark.parametrize(("below", "met"), [(False, True), (True, False)])
def test_a_ratio_at_its_limit_is_met_unless_it_must_stay_below(monkeypatch, below, met):
    at_limit = results.Comparison("", "inference", "ours", "theirs", 1.0, below=below)
    monkeypatch.setattr(results, "COMPARISONS", [at_limit])
    point = against_peers.point("inference", "s", 32, 32, 1, {"ours": [3.0], "theirs": [3.0]})
    assert [row["met"] for row in results.comparisons([point])] == [met]


def test_a_contender_that_was_left_out_leaves_its_comparisons_out():
    points = made_up_points()
    for point in points:
        point["values"].pop("ours_bf16", None)
    rows = results.comparisons(points)
    assert rows
    assert "ours_bf16" not in {row["a"] for row in rows}


def test_points_keep_five_digits_and_can_be_written():
    point = against_peers.point("inference", "s", 32, 128, 2, {"ours": [0.123456789, 1234.5678]})
    assert point["values"] == {"ours": [0.12346, 1234.6]}
    assert json.loads(json.dumps(point)) == point


def test_every_contender_has_a_turn_in_every_round_in_changing_order():
    turns = []
    values = against_peers.rounds_of(["a", "b", "c"], 6, lambda name: turns.append(name) or float(len(turns)))
    rounds = [tuple(turns[i : i + 3]) for i in range(0, 18, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1
    assert values["a"] == [3.0 * i + one.index("a") + 1 for i, one in enumerate(rounds)]


def test_the_machine_is_described_without_naming_it():
    about = against_peers.machine()
    assert set(about) == {"processor", "cores", "instructions"}
    assert about["cores"] >= 1


def test_the_floors_products_are_counted_as_by_hand():
    batch, length, d, m = 2, 5, 384, 24
    tokens = batch * length
    # A layer's linear maps have 12 d² weights, and every weight costs two operations a token in each product.
    linear, attention = 2 * tokens * 12 * d * d, 2 * 2 * batch * length * length * d
    full = 6 * (3 * linear + 3 * attention)
    assert floor.flops(floor.training_step(batch, length, full=True)) == full
    # Frozen: no weight gradients, nothing backward in the lowest attention (4 of 12 d²); twelve adapters of 2 d m
    # weights with forward, input and weight gradient, but no input gradient for the lowest down-projection.
    frozen = 6 * 2 * linear - linear // 3 + 6 * 3 * attention - 2 * attention
    adapters = 12 * 3 * (2 * tokens * 2 * d * m) - 2 * tokens * d * m
    assert floor.flops(floor.training_step(batch, length, full=False)) == frozen + adapters


def test_the_floor_is_the_sum_over_its_products(monkeypatch):
    monkeypatch.setattr(floor, "seconds", lambda product, repeats: product.rows * repeats)
    step = Counter({floor.Product(1, 10, 1, 1): 3, floor.Product(2, 5, 1, 1): 2})
    assert floor.measure(step, repeats=2) == 3 * 20 + 2 * 10


def test_a_product_takes_time():
    assert 0 < floor.seconds(floor.Product(1, 8, 8, 8), 1) < 10
    assert 0 < floor.seconds(floor.Product(2, 8, 8, 8), 1) < 10


@pytest.mark.parametrize("name", ["model.layer.0.down_project", "x.adapters.lesson.adapter_down.0", "a.adapter_up"])
def test_both_libraries_adapters_are_recognised(name):
    assert contender.is_adapter(name)
    assert not contender.is_adapter("encoder.layer.0.attention.output.dense")


def test_inputs_are_the_same_for_all_and_partly_padded():
    ids, mask, labels = contender.inputs(32, 128)
    assert all(torch.equal(a, b) for a, b in zip((ids, mask, labels), contender.inputs(32, 128), strict=True))
    lengths = mask.sum(1)
    assert lengths[0] == 128
    assert 96 <= lengths.min() < 128
    assert ((ids == 0) == (mask == 0)).all()
    assert set(labels.tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["ours", "ours_dropout", "full", "lora"])
def test_our_contenders_start_alike_and_train(name):
    one, bare = contender.Contender(name, ""), contender.Contender("bare", "")
    told = one.check(2, 8, steps=4)
    if name in ("full", "lora"):  # nothing is added yet, and the head is the bare model's
        assert told["logits"] == pytest.approx(bare.check(2, 8, steps=0)["logits"], abs=1e-5)
    else:
        assert told["logits"] != pytest.approx(bare.check(2, 8, steps=0)["logits"], abs=1e-3)
    assert told["losses"][-1] < told["losses"][0]
    dropout = [m.training for m in one.model.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    assert set(dropout) == {name in ("full", "ours_dropout")} or name == "lora"
    assert one.turn("training step", 2, 8, torch.get_num_threads(), 0.0) > 0


def test_a_contender_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)'theirz' ended: .*there is no contender 'theirz': choose one of bare"):
        against_peers.Worker("theirz", tmp_path)


def test_a_worker_answers_over_its_pipe(tmp_path):
    worker = against_peers.Worker("bare", tmp_path)
    try:
        assert worker.hello["torch"] == torch.__version__.partition("+")[0]
        expected = contender.Contender("bare", "").check(2, 8, steps=0)["logits"]
        assert worker.ask(do="check", batch=2, length=8, steps=0)["logits"] == pytest.approx(expected, abs=1e-5)
    finally:
        worker.close()
    assert worker.process.returncode == 0


class Event:
    def __init__(self, key, shapes, microseconds):
        self.key, self.input_shapes, self.self_cpu_time_total = key, shapes, microseconds


def test_the_profile_puts_operations_where_they_belong():
    events = [
        Event("aten::addmm", [[384], [64, 384], [384, 384]], 5e6),
        Event("aten::addmm", [[24], [64, 384], [384, 24]], 2e6),
        Event("aten::mm", [[24, 64], [64, 384]], 1e6),
        Event("aten::_scaled_dot_product_flash_attention_for_cpu", [[2, 12, 32, 32]], 4e6),
        Event("aten::native_layer_norm_backward", [[2, 32, 384]], 1e6),
    ]
    expected = {"linear layers": 5.0, "attention": 4.0, "adapters": 3.0, "LayerNorm": 1.0}
    assert profile_step.shares(events) == expected


def test_the_table_of_lessons_says_what_is_too_slow():
    seconds = {"01_one": 130.0, "07_a_real_model": 170.0, lesson_times.LANGUAGE_MODEL: 500.0}
    said = lesson_times.table({"seconds": seconds}).splitlines()
    assert said[0].endswith(f"above {lesson_times.LESSON_LIMIT} s")
    assert "above" not in said[1]
    assert said[2].endswith("above 240 s")
    assert said[3].split()[-2:] == ["800.0", "s"]
    assert said[4].split()[-2:] == ["300.0", "s"]
    assert said[5].endswith(": met")
    assert lesson_times.table({"seconds": {"01_one": 721.0}}).endswith("NOT MET")


COMMITTED = sorted(against_peers.RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=[path.stem for path in COMMITTED])
def test_the_committed_ratios_are_those_of_the_committed_rounds(path):
    run = json.loads(path.read_text())
    assert results.file_name(run) == path.name
    assert run["comparisons"] == json.loads(json.dumps(results.comparisons(run["points"])))
    assert {(p["batch"], p["length"]) for p in run["points"]} >= {(32, 32), (32, 128)}
    assert {p["threads"] for p in run["points"]} == {1, 2}
    assert max(run["differences"][pair] for pair in run["differences"] if "bf16" not in pair) < 1e-4


def test_a_table_over_processors_gives_the_range(tmp_path):
    row = {"what": "inference", "a": "ours", "b": "bare", "batch": 32, "length": 32, "threads": 1}
    for name, ratio in (("one", 0.951), ("two", 1.104), ("three", 0.96)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"comparisons": [{**row, "ratio": ratio}]}))
    assert "| inference, against the bare model | 0.95 – 1.10 | | | |" in results.readme_table(tmp_path)


def test_the_readme_quotes_the_range_over_all_processors():
    assert len(COMMITTED) >= 2
    assert results.readme_table(against_peers.RESULTS) in (BENCHMARKS.parents[1] / "README.md").read_text("utf-8")


def test_the_committed_lesson_times_are_of_the_lessons_that_there_are():
    committed = json.loads(lesson_times.RESULTS.read_text())
    assert list(committed["seconds"]) == [source.stem for source in lesson_times.build.sources()]
    assert lesson_times.without_language_model(committed["seconds"]) <= lesson_times.COURSE_LIMIT
    assert committed["seconds"][lesson_times.LANGUAGE_MODEL] <= lesson_times.LIMITS[lesson_times.LANGUAGE_MODEL]


MANY_TASKS = load_results("many_tasks")


@pytest.mark.parametrize("tasks", list(MANY_TASKS["timing"]["tasks"]))
def test_the_readme_quotes_the_committed_run_of_many_tasks(tasks):
    row, size = MANY_TASKS["timing"]["tasks"][tasks], MANY_TASKS["size"]["tasks"][tasks]
    ratios = " | ".join(f"{row[way]['ratio']:.2f}" for way in ("switched by group", "row by row", "full models"))
    disk = " | ".join(f"{size[kind]['disk'] / 1e6:,.0f} MB" for kind in ("adapters", "full"))
    assert f"| {tasks} | {ratios} | {disk} |" in (BENCHMARKS.parents[1] / "README.md").read_text(encoding="utf-8")
