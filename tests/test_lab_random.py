"""Random sequences of knob moves and clicks: no exception, no dead thread, no growing number of threads."""

import html
import shutil
import tempfile
import threading
from functools import cache

import lab_stand_ins
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from adapters_lesson.course import explorers as lab_package
from adapters_lesson.course.laboratory.knobs import SUGGESTED
from adapters_lesson.course.laboratory.laboratory import Laboratory

EXPLORERS = ("anatomy_explorer", "placement_explorer", "cost_explorer", "drop_explorer", "latency_explorer")
SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
numbers = st.integers(0, 10_000)


def turn(knob, number):
    """Set a control to one of the values that it can have, as a hand would."""
    if knob.disabled:
        return
    if hasattr(knob, "options"):
        knob.index = number % len(knob.options)
    elif isinstance(knob.value, bool):
        knob.value = not knob.value
    elif hasattr(knob, "max"):
        knob.value = knob.min + number % (knob.max - knob.min + 1)


@cache
def explorer(name):
    return getattr(lab_package, name)()


class Explorers(RuleBasedStateMachine):
    @initialize(name=st.sampled_from(EXPLORERS))
    def choose(self, name):
        self.explorer, self.threads = explorer(name), threading.active_count()
        self.explorer.reset()

    @rule(which=numbers, number=numbers)
    def turn(self, which, number):
        knobs = list(self.explorer.knobs.values())
        turn(knobs[which % len(knobs)], number)

    @rule()
    def press_reset(self):
        self.explorer.reset_button.click()

    @invariant()
    def it_is_sound(self):
        assert self.explorer.error is None
        assert self.explorer.picture.alt in html.unescape(self.explorer.status.value)
        assert threading.active_count() <= self.threads


def test_explorers_bear_any_sequence_of_moves():
    run_state_machine_as_test(Explorers, settings=settings(max_examples=40, stateful_step_count=6, **SETTINGS))


class Laboratories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder, self.threads = tempfile.mkdtemp(), threading.active_count()
        self.lab = Laboratory(self.folder)

    @rule(which=numbers, number=numbers)
    def turn(self, which, number):
        knobs = list(self.lab.knobs.values())
        turn(knobs[which % len(knobs)], number)
        self.lab.knobs["steps"].value = self.lab.knobs["steps"].options[number % 2]

    @rule(text=st.sampled_from(["all", "0", "0 1", "7", "x"]))
    def name_blocks(self, text):
        self.lab.knobs["layers"].value = text

    @rule(text=st.sampled_from(["0", "0, 1", "", "-1", "seven"]))
    def name_seeds(self, text):
        self.lab.seeds.value = text

    @rule(knob=st.sampled_from(list(SUGGESTED)), number=numbers)
    def choose_a_sweep(self, knob, number):
        self.lab.swept.value = knob
        values = [value.strip() for value in SUGGESTED[knob].split(",")]
        if knob != "steps":
            self.lab.over.value = ", ".join(values[: number % 3])

    @rule(which=st.sampled_from(["run", "sweep", "stop", "pause", "reset"]))
    def press(self, which):
        button = getattr(self.lab, f"{which}_button")
        if not (button.disabled or (which == "sweep" and self.lab.swept.value == "steps")):
            button.click()

    @rule(name=st.sampled_from(["Delete", "Copy settings", "As Python", "Export CSV", "Tick all", "Tick none"]))
    def use_a_tool(self, name):
        self.lab.tools[name].click()

    @rule(which=numbers)
    def tick(self, which):
        if self.lab.book.runs:
            box = self.lab.table.box(list(self.lab.book.runs)[which % len(self.lab.book.runs)])
            box.value = not box.value

    @rule(which=numbers)
    def sort(self, which):
        heads = list(self.lab.table.heads.values())
        heads[which % len(heads)].click()

    @rule(number=numbers)
    def draw_against(self, number):
        turn(self.lab.axis, number)

    @rule()
    def wait_a_little(self):
        if self.lab.job is not None and not self.lab.job.paused:
            self.lab.job.join(0.05)

    @invariant()
    def it_is_sound(self):
        assert self.lab.error is None
        assert threading.active_count() <= self.threads + 1
        job = self.lab.job
        if job is not None:
            assert job.error is None
            assert job.is_alive() or job.state in ("done", "stopped")

    def teardown(self):
        self.lab.stop()
        if self.lab.job is not None:
            self.lab.job.join(20)
            assert not self.lab.job.is_alive()
            assert not self.lab.run_button.disabled
            assert sorted(self.lab.book.runs) == sorted(self.lab.table._rows)
        shutil.rmtree(self.folder)


def test_the_laboratory_bears_any_sequence_of_moves(monkeypatch):
    lab_stand_ins.use(monkeypatch)
    run_state_machine_as_test(Laboratories, settings=settings(max_examples=50, stateful_step_count=12, **SETTINGS))
