"""The measurement of latencies on a clock that only the contenders move, so that every time is known exactly."""

import gc
import itertools
import random
import subprocess
import sys

import pytest
import torch

from adapters_lesson.costs import latency, measure_latency


class Clock:
    """A clock, contenders that advance it by times of their own, and a record of the calls."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def contender(self, name, times):
        times = itertools.cycle(times)

        def call():
            self.calls.append(name)
            self.now += next(times)

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", clock)
    return clock


def test_medians_and_ratios_are_exact(clock):
    contenders = {
        "bare": clock.contender("bare", [1, 2, 3, 4, 100]),
        "other": clock.contender("other", [1.5, 3, 4.5, 6, 150]),
    }
    table = measure_latency(contenders, repetitions=5, warmup=0)
    assert table["bare"].times == (1, 2, 3, 4, 100)
    assert table["bare"].median == 3
    assert table["other"].median == 4.5
    assert table["bare"].ratio == 1
    assert table["other"].ratio == 1.5
    assert table["other"].ratio_interval == (1.5, 1.5)  # paired: in every round the ratio is the same
    assert table["other"].overhead == 50
    assert table["other"].overhead_interval == (50, 50)
    assert list(table.rows) == ["bare", "other"]


def test_an_even_number_of_rounds_has_the_mean_of_the_middle_two_as_median(clock):
    assert measure_latency({"a": clock.contender("a", [1, 2, 3, 4, 5, 6])}, 6, warmup=0)["a"].median == 3.5


def test_the_warmup_is_not_timed(clock):
    table = measure_latency({"a": clock.contender("a", [50, 50] + [1] * 8)}, repetitions=8, warmup=2)
    assert table["a"].times == (1,) * 8
    assert len(clock.calls) == 10


def test_the_rounds_are_interleaved_in_changing_orders(clock):
    names = "abcd"
    contenders = {name: clock.contender(name, [1]) for name in names}
    measure_latency(contenders, repetitions=20, warmup=1)
    rounds = [clock.calls[i : i + 4] for i in range(0, len(clock.calls), 4)]
    assert len(rounds) == 21
    assert all(sorted(turn) == list(names) for turn in rounds)
    assert {turn[0] for turn in rounds} == set(names)  # nobody has a place of his own
    first, clock.calls = clock.calls, []
    measure_latency(contenders, repetitions=20, warmup=1)
    assert clock.calls == first  # the same seed, the same order
    clock.calls = []
    measure_latency(contenders, repetitions=20, warmup=1, seed=1)
    assert clock.calls != first


def test_a_slow_spell_of_the_machine_does_not_reach_the_ratio(clock):
    speed = itertools.chain([1.0] * 20, [7.0] * 20)  # from the tenth round on everything takes seven times as long

    def contender(cost):
        def call():
            clock.now += cost * next(speed)

        return call

    table = measure_latency({"bare": contender(1.0), "other": contender(1.25)}, repetitions=20, warmup=0)
    assert table["other"].ratio == pytest.approx(1.25)
    assert table["other"].ratio_interval == pytest.approx((1.25, 1.25))
    assert table["bare"].interval == (1, 7)


def test_the_intervals_contain_the_truth_about_as_often_as_they_say(clock, monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)  # all that a test session has allocated, forty times
    noise, hits, ratio_hits, widths = random.Random(0), 0, 0, []
    for trial in range(40):

        def contender(cost):
            def call():
                clock.now += cost * noise.lognormvariate(0, 0.2)  # median 1

            return call

        table = measure_latency({"a": contender(1.0), "b": contender(1.1)}, repetitions=25, warmup=0, seed=trial)
        low, high = table["a"].interval
        hits += low <= 1 <= high
        ratio_low, ratio_high = table["b"].ratio_interval
        ratio_hits += ratio_low <= 1.1 <= ratio_high
        widths.append(high - low)
    assert 34 <= hits <= 40  # 38 on average, and one time in a hundred less than 34
    assert 34 <= ratio_hits <= 40
    assert max(widths) < 0.5  # and not by being as wide as one likes


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_threads_are_set_stated_and_restored(threads):
    before = torch.get_num_threads()
    seen = set()
    table = measure_latency({"a": lambda: seen.add(torch.get_num_threads())}, 5, threads=threads)
    assert seen == {threads or before}
    assert table.threads == (threads or before)
    assert torch.get_num_threads() == before


def test_calls_run_without_gradients_and_without_the_garbage_collector(clock):
    seen = []

    def look():
        clock.now += 1
        seen.append((gc.isenabled(), torch.is_inference_mode_enabled()))

    measure_latency({"a": look}, 5)
    assert set(seen) == {(False, True)}
    seen.clear()
    measure_latency({"a": look}, 5, inference=False)
    assert set(seen) == {(False, False)}
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()


def test_after_an_error_everything_is_as_before():
    before = torch.get_num_threads()

    def broken():
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        measure_latency({"fine": lambda: None, "broken": broken}, 5, threads=before + 1)
    assert torch.get_num_threads() == before
    assert gc.isenabled()
    gc.disable()
    try:
        measure_latency({"fine": lambda: None}, 5)
        assert not gc.isenabled()  # it was off, so it stays off
    finally:
        gc.enable()


def test_the_clock_is_read_only_when_the_accelerator_has_finished(clock, monkeypatch):
    pending = 0.0

    def call():  # hands over a second of work and returns at once
        nonlocal pending
        pending += 1.0

    def synchronize():
        nonlocal pending
        clock.now += pending
        pending = 0.0

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert measure_latency({"a": call}, 5, warmup=0)["a"].times == (1,) * 5
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'a' is too short for the clock"):
        measure_latency({"a": call}, 5, warmup=0)


def test_the_table_states_milliseconds_overheads_rounds_and_threads(clock):
    contenders = {"bare": clock.contender("bare", [0.0200]), "with adapters": clock.contender("with", [0.0215])}
    lines = str(measure_latency(contenders, 7, warmup=2, threads=1)).splitlines()
    assert lines[0].split() == "contender median, ms 95 % interval against bare 95 % interval".split()
    assert lines[1].split() == "bare 20.00 20.00 – 20.00".split()
    assert lines[2].split() == "with adapters 21.50 21.50 – 21.50 +7.5 % +7.5 % – +7.5 %".split()
    assert lines[3] == "7 interleaved rounds after 2 for warming up, threads: 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contenders": {}}, "nothing to measure"),
        ({"repetitions": 4}, "repetitions must be a whole number of at least 5, not 4"),
        ({"repetitions": True}, "repetitions must be a whole number of at least 5, not True"),
        ({"warmup": -1}, "warmup must be a whole number of at least 0, not -1"),
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure_latency(**{"contenders": {"a": lambda: None}, **arguments})


def test_a_result_instead_of_a_function_is_refused():
    with pytest.raises(TypeError, match=r"'a' is a Tensor and cannot be called: give a function, lambda: model\(x\)"):
        measure_latency({"a": torch.zeros(1)})


def test_the_room_of_costs_is_light():
    code = "import sys, adapters_lesson.costs; print({'transformers', 'matplotlib', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_every_round_is_announced_outside_the_timed_calls(clock):
    seen = []

    def on_round(done):
        clock.now += 1000
        seen.append((done, len(clock.calls)))

    contenders = {name: clock.contender(name, [1]) for name in "ab"}
    table = measure_latency(contenders, 5, warmup=2, on_round=on_round)
    assert [done for done, _ in seen] == [0, 0, 0, 1, 2, 3, 4]  # the first two are for warming up
    assert [calls for _, calls in seen] == list(range(0, 14, 2))
    assert table["b"].times == (1,) * 5


def test_what_is_raised_between_rounds_ends_the_measurement_and_garbage_is_collected_again(clock):
    def on_round(done):
        if done == 2:
            raise KeyboardInterrupt("stopped")

    with pytest.raises(KeyboardInterrupt):
        measure_latency({"a": clock.contender("a", [1])}, 5, warmup=0, on_round=on_round)
    assert clock.calls == ["a", "a"]
    assert gc.isenabled()
