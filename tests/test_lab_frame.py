"""The frame of the explorers: jobs on a thread, knobs and their figure, errors that are shown, what is saved."""

import asyncio
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from traitlets import TraitError

from adapters_lesson.course.explorers.frame import Explorer, choice, switch
from adapters_lesson.course.explorers.job import Job
from adapters_lesson.course.explorers.slider import Slider
from adapters_lesson.course.figures import show
from adapters_lesson.course.figures.svg import Drawing

# --- Jobs -----------------------------------------------------------------------------------------------------------


def steps(count=1000, seen=None):
    """Work of ``count`` short steps."""

    def work(job):
        for i in range(count):
            job.check()
            time.sleep(0.005)
            if seen is not None:
                seen.append(i)
        return count

    return work


def test_a_job_returns_what_the_work_returned():
    states = []
    job = Job(steps(2), lambda job: states.append(job.state))
    assert job.start().wait(5).result == 2
    assert states == ["waiting", "running", "done"]
    assert not job.is_alive()


def test_stop_acts_at_once():
    job = Job(steps()).start()
    time.sleep(0.05)
    began = time.monotonic()
    job.stop()
    job.wait(5)
    assert time.monotonic() - began < 0.5
    assert (job.state, job.result, job.error) == ("stopped", None, None)


def test_pause_rests_and_resume_goes_on():
    seen = []
    job = Job(steps(40, seen)).start()
    job.paused = True
    while job.state != "paused":
        time.sleep(0.005)
    count = len(seen)
    time.sleep(0.1)
    assert len(seen) == count
    job.paused = False
    assert job.wait(5).result == 40
    assert job.rested >= 0.1


def test_a_paused_job_can_be_stopped_and_a_stopped_one_not_paused():
    job = Job(steps()).start()
    job.paused = True
    job.stop()
    job.paused = True
    assert job.wait(5).state == "stopped"


def test_jobs_take_turns():
    first, second = Job(steps()).start(), Job(steps(1))
    while first.state != "running":
        time.sleep(0.005)
    second.start()
    time.sleep(0.15)
    assert second.state == "waiting"
    first.stop()
    assert second.wait(5).state == "done"


def test_a_waiting_job_can_be_stopped():
    first, second = Job(steps()).start(), Job(steps())
    second.start().stop()
    assert second.wait(5).state == "stopped"
    first.stop()
    first.wait(5)


def failing(job):
    raise ValueError("no such thing")


def test_an_error_of_the_work_reaches_whoever_waits():
    job = Job(failing)
    with pytest.raises(ValueError, match="no such thing"):
        job.start().wait(5)
    assert job.state == "failed"
    assert Job(steps(1)).start().wait(5).state == "done"  # the next one is not held up


def test_an_error_while_reporting_is_not_lost_either():
    def on_change(job):
        if job.state == "running":
            raise RuntimeError("the view is gone")

    job = Job(steps(3), on_change)
    with pytest.raises(RuntimeError, match="the view is gone"):
        job.start().wait(5)
    assert job.state == "failed"


def test_an_interrupt_of_the_waiting_cell_stops_the_job():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest ignores it
    try:
        job = Job(steps()).start()
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        assert job.wait(20).state == "stopped"
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(TimeoutError, match="the job is still"):
        (late := Job(steps()).start()).wait(0.01)
    late.stop()
    assert late.wait(5).state == "stopped"


def test_await_leaves_the_loop_free():
    async def main():
        job, ticks = Job(steps(30)).start(), 0
        waiting = asyncio.ensure_future(job)
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return (await Job(steps(2)).start()).result, ticks

    result, ticks = asyncio.run(main())
    assert result == 2
    assert ticks > 5


def test_an_interrupt_of_the_awaiting_cell_stops_the_job():
    async def main():
        job = Job(steps()).start()
        waiting = asyncio.ensure_future(job)
        await asyncio.sleep(0.05)
        waiting.cancel()  # this is how the kernel's interrupt arrives
        return await waiting

    assert asyncio.run(main()).state == "stopped"


def test_await_raises_what_the_work_raised():
    async def main():
        await Job(failing).start()

    with pytest.raises(ValueError, match="no such thing"):
        asyncio.run(main())


def test_no_thread_stays_behind():
    before = threading.active_count()
    for _ in range(30):
        Job(steps(1)).start().wait(5)
    assert threading.active_count() == before


# --- Explorers ------------------------------------------------------------------------------------------------------


def draw(number, word, flag):
    if number == 8:
        raise ValueError("8 is not possible: choose another number")
    if word == "broken":
        raise RuntimeError("out of order")
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, f"{number} {word} {flag}")
    return show(figure, f"The number {number} with {word} & {flag}.")


@pytest.fixture
def explorer():
    knobs = {
        "number": Slider("number", 2, [1, 2, 4, 8]),
        "word": choice("word", "one", ["one", "two", "broken"]),
        "flag": switch("flag"),
    }
    return Explorer("A test", draw, knobs, idle=lambda values: {"flag"} if values["number"] == 1 else ())


def shown(explorer):
    """The text below the figure, and whether it stands out as an error."""
    return explorer.status.value.rpartition("</div>")[0].rpartition(">")[2], "error-color" in explorer.status.value


def test_the_picture_follows_the_knobs(explorer):
    before = explorer.image.value
    explorer.knobs["number"].value = 4
    assert explorer.picture.alt == "The number 4 with one & False."
    assert explorer.image.value not in (before, "")
    assert shown(explorer) == ("The number 4 with one &amp; False.", False)
    assert 'role="status"' in explorer.status.value


def test_reset_sets_all_knobs_back(explorer):
    start = explorer.values
    explorer.knobs["number"].value, explorer.knobs["flag"].value = 4, True
    explorer.reset_button.click()
    assert explorer.values == start
    assert explorer.picture.alt == "The number 2 with one & False."


@pytest.mark.parametrize(
    ("knob", "value", "said"),
    [
        ("number", 8, "8 is not possible: choose another number"),
        ("word", "broken", "RuntimeError(&#x27;out of order&#x27;)"),
    ],
)
def test_an_error_is_shown_and_the_next_value_mends_it(explorer, knob, value, said):
    explorer.knobs[knob].value = value
    assert shown(explorer) == (said, True)
    assert explorer.error is not None
    explorer.reset()
    assert explorer.error is None
    assert not shown(explorer)[1]


def test_a_knob_without_effect_is_greyed(explorer):
    assert not explorer.knobs["flag"].disabled
    explorer.knobs["number"].value = 1
    assert explorer.knobs["flag"].disabled


def test_of_many_changes_at_once_only_the_last_is_drawn(explorer):
    async def turn_fast():
        for value in [1, 2, 4] * 10:
            explorer.knobs["number"].value = value
        await asyncio.sleep(0.3)

    frames = explorer.frames
    asyncio.run(turn_fast())
    assert explorer.frames == frames + 1
    assert explorer.picture.alt == "The number 4 with one & False."


def test_what_is_saved_is_a_picture_with_alt_text(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/svg+xml"] == explorer.image.value
    assert data["text/plain"] == metadata["image/svg+xml"]["alt"] == explorer.picture.alt
    assert data["text/html"].endswith("Run this cell to move it.")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_drawing_is_shown_and_saved_as_svg():
    def draw(number):
        drawing = Drawing(20, 10)
        drawing.text(1, 5, f"{number} < 9")
        return show(drawing, f"The number {number}.")

    explorer = Explorer("A test", draw, {"number": Slider("number", 2, [1, 2, 4])})
    explorer.knobs["number"].value = 4
    assert "4 &lt; 9</tspan>" in explorer.image.value
    data, _ = explorer._repr_mimebundle_()
    assert "4 &lt; 9</tspan>" in data["image/svg+xml"] and "<img " in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_every_control_is_labelled_and_reachable_by_keyboard(explorer):
    for knob in explorer.knobs.values():
        assert knob.description
        assert knob.tabbable is not False
    assert 'role="img" aria-label="The number 2 with one &amp; False."' in explorer.image.value


# --- Measuring ------------------------------------------------------------------------------------------------------


def test_a_measurement_starts_once_and_can_be_stopped():
    def measure(number, check, say):
        return steps()(SimpleNamespace(check=check))

    def draw(number, measured):
        return show(Figure(figsize=(2, 1)), f"{len(measured)} points")

    explorer = Explorer("A test", draw, {"number": Slider("number", 2, [1, 2])}, measure=measure)
    assert explorer.stop_button.disabled
    explorer.start_button.click()
    job = explorer.job
    explorer.start_button.click()
    assert explorer.job is job
    assert explorer.start_button.disabled
    explorer.stop_button.click()
    job.wait(5)
    assert not explorer.start_button.disabled
    assert "stopped: nothing was added" in explorer.message.value


# --- The slider -----------------------------------------------------------------------------------------------------


def test_a_slider_holds_one_of_its_options():
    made = Slider("rate", 1e-3, [1e-5, 1e-3, ("a tenth", 0.1)])
    assert (made.index, made.labels) == (1, ["1e-05", "0.001", "a tenth"])
    made.index = 2  # as the browser moves it
    assert made.value == 0.1
    made.value = 1e-5
    assert made.index == 0
    with pytest.raises(TraitError, match=r"rate has no 3: choose among 1e-05, 0\.001, 0\.1"):
        made.value = 3
    assert made.value == 1e-5
    made.options = [8, 16]
    assert (made.value, made.index, made.labels) == (8, 0, ["8", "16"])
