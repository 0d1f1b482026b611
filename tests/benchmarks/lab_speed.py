"""`make lab-speed`: how fast the widgets answer in a real browser, kept in data/results/lab_speed.json.

Times are taken inside the page, from the event of the key or the click to the decoded picture (for Stop: to the Run
button that can be pressed again). The same training runs in turns with the microscope and without, in one kernel, so
that their ratio says what looking costs. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from adapters_lesson.course import explorers as widgets
from adapters_lesson.guards.safe_files import write_atomically

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from browser import (  # noqa: E402
    Shown,
    browser_page,
    copy_of_the_course,
    make_lab,
    need_chromium,
    open_notebook,
    run_cell,
    write_notebook,
)

RESULTS = ROOT / "data" / "results" / "lab_speed.json"
EXPLORERS = [name for name in widgets.__all__ if name.endswith("_explorer")]
PRESSES, ROUNDS, STEPS = 40, 4, 60
LONG = 600  # seconds after which something is broken rather than slow
LABORATORY = "laboratory = Laboratory()"
# The same way through the browser with pictures that are there already: what no drawing can be faster than.
FLOOR = """
from adapters_lesson.course.explorers.explore_anatomy import anatomy_explorer
from adapters_lesson.course.explorers.frame import Explorer
from adapters_lesson.course.explorers.slider import Slider

make, READY = anatomy_explorer, []
for values in ({}, {"bottleneck_dim": 8}):
    drawn = make()
    READY.append(drawn.draw(**{**drawn.values, **values}).svg())

class Ready(Explorer):
    def paint(self, draw):
        self.image.value = READY[self.knobs["turn"].value % 2]
        self.say(str(self.knobs["turn"].value))

def ready_pictures():
    return Ready("Ready pictures", None, {"turn": Slider("turn", 3, range(10))})

ready_pictures()
"""
# This one is given a bank: untrained adapters answer as fast as trained ones.
ROUTING = """
from adapters_lesson import AdapterConfig, SmallTransformer
from adapters_lesson.bank import AdapterBank
from adapters_lesson.course import explorers

bank = AdapterBank(SmallTransformer.from_minilm(3))
for task, placement in (("sentiment", "houlsby"), ("film", "pfeiffer"), ("aspect", "parallel")):
    bank.add(task, AdapterConfig(16, placement=placement, init="houlsby"), ["bad", "good"])

def routing_explorer():
    return explorers.routing_explorer(bank, [f"breakfast: we found the {what} wonderful." for what in "abcdef"])

routing_explorer()
"""
# The small transformer of lesson 03, with adapters that push.
MICROSCOPE = """
import torch
from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, load_tokenizer, prepare
from adapters_lesson.course.microscope import Microscope

torch.manual_seed(0)
model = Classifier(SmallTransformer.from_minilm(4), 2).eval()
prepare(model, "adapter", AdapterConfig(16, init="houlsby", init_std=0.2))
text = "sofa: We found the breakfast wonderful, whereas the sofa was horrible."
microscope = Microscope(model, load_tokenizer(), text)
microscope
"""
# A training as in lesson 03, with that microscope or without: seconds on the clock. A warm-up comes first.
TRAINING = """
import time
from adapters_lesson import load_task, train
from adapters_lesson.data import encode

task = encode(load_task("aspect_sentiment")["train"], load_tokenizer())

def seconds(looks, steps, every=8, **more):
    began, microscope.every = time.perf_counter(), every
    look = microscope.record if looks else None
    train(model, task, steps=steps, learning_rate=3e-3, progress=False, on_step=look, **more)
    return time.perf_counter() - began

ready = seconds(True, 4)
"""
PLAYGROUND = "from adapters_lesson.course.playground import Playground\n\nPlayground()"
DIAL = """
from adapters_lesson.course.language.dial import Dial
from adapters_lesson.history import load_results

Dial(load_results("dial"))
"""
# What is measured in the laboratory, and the most seconds it may take.
LIMITS = {"click on Run to first point": 1.5, "click on Run to final accuracy": 20.0, "click on Stop to its end": 0.5}

WATCH = """([image, run]) => {
    const note = event => { Object.assign(window, {since: event.timeStamp, pictured: 0, ended: 0}) };
    for (const kind of ["keydown", "click"]) addEventListener(kind, note, true);
    new MutationObserver(() => { window.pictured ||= performance.now() - window.since })
        .observe(image, {childList: true, subtree: true});
    if (run)
        new MutationObserver(() => { if (!run.disabled) window.ended = performance.now() - window.since })
            .observe(run, {attributeFilter: ["disabled"]});
}"""
# When what ``found`` finds in a widget changes, the page notes the time.
FRAMES = """([root, found]) => {
    const look = new Function("root", `return ${found}`);
    window.frames = [];
    let last = look(root);
    new MutationObserver(() => {
        const now = look(root);
        if (now !== last) window.frames.push(performance.now());
        last = now;
    }).observe(root, {subtree: true, childList: true, characterData: true, attributes: true});
}"""
STEP_OF_MICROSCOPE = r"/Step (\d+)/.exec([...root.querySelectorAll('[role=status]')].at(-1)?.textContent)?.[1]"
BORDER = "root.querySelectorAll('.plane svg > path')[1]?.getAttribute('d')"
# A key that changes the knob; a slider goes back and forth, a list from end to end.
KEY = """knob => {
    if (knob.tagName === "SELECT") return knob.selectedIndex < knob.length - 1 ? "End" : "Home";
    const [low, at, high] = [+knob.min, +knob.value, +knob.max];
    if (at <= low || at >= high) knob.backwards = at >= high;
    return knob.backwards ? "ArrowLeft" : "ArrowRight";
}"""


def wait_for(page: Any, name: str) -> float:
    """The milliseconds that the page has noted as ``window[name]``."""
    return page.wait_for_function(f"() => window.{name}", timeout=LONG * 1000).json_value()


def watch(page: Any, shown: Shown, run: Any = None) -> None:
    """Let the page note when the picture has changed, and when the button ``run`` can be pressed again."""
    page.evaluate(WATCH, [shown.image.element_handle(), run and run.element_handle()])


def measure_explorer(page: Any, name: str, presses: int) -> list[float]:
    """Milliseconds from a key press to the changed picture; the sliders take turns, or the lists."""
    shown = Shown(page, run_cell(page, f"{name}()", timeout=LONG))
    shown.image.wait_for()
    knobs = shown.output.locator("input[type=range]:enabled").all() or shown.output.locator("select").all()
    watch(page, shown)
    times = []
    for i in range(presses):
        knob = knobs[i % len(knobs)]
        knob.focus()
        page.keyboard.press(knob.evaluate(KEY))
        times.append(round(wait_for(page, "pictured"), 1))
        shown.settled()
    return times


def measure_microscope(page: Any, presses: int) -> list[float]:
    """Milliseconds from Enter on a push to the answer without it; each press is on the next token."""
    output = run_cell(page, "microscope = Microscope", timeout=LONG)
    output.locator("[role=gridcell]").first.focus()
    answers = output.locator(".answers")
    page.evaluate(WATCH, [answers.element_handle(), None])
    times = []
    for _ in range(presses):
        page.keyboard.press("Enter")
        times.append(round(wait_for(page, "pictured"), 1))
        time.sleep(0.3)
        page.keyboard.press("ArrowRight")
    return times


def training_cells(steps: int) -> dict[str, str]:
    """The cells of ``measure_training``: as the lesson trains, and small steps that are all looked at."""
    return {
        "with": f"print(seconds(True, {steps}))",
        "without": f"print(seconds(False, {steps}))",
        "looks": f"print(seconds(True, {steps}, every=1, batch_size=4))",
    }


def measure_training(page: Any, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of the same training with the microscope and without, in turns; and pictures a second.

    For the latter each of many small steps is looked at: only what has arrived by the end of the training counts.
    """
    output = run_cell(page, "microscope = Microscope", timeout=LONG)
    output.locator("[role=gridcell]").first.wait_for()
    run_cell(page, "ready = seconds", timeout=LONG)
    cells, turns = training_cells(steps), ["with", "without", "without", "with"] * rounds  # what drifts falls out
    measured: dict[str, list[float]] = {"with": [], "without": [], "pictures a second": []}
    for kind in turns[: 2 * rounds] + ["looks"] * rounds:
        page.evaluate(FRAMES, [output.element_handle(), STEP_OF_MICROSCOPE])
        seconds = float(run_cell(page, cells[kind], timeout=LONG).inner_text())
        frames = len(page.evaluate("window.frames"))
        if kind == "looks":
            measured["pictures a second"].append(round(frames / seconds, 1))
        else:
            measured[kind].append(round(seconds, 3))
    return measured


def per_second(frames: list[float]) -> float:
    """Pictures a second, from the milliseconds at which they came."""
    return round(1000 * (len(frames) - 1) / (frames[-1] - frames[0]), 1) if len(frames) > 1 else 0.0


def measure_playground(page: Any, rounds: int) -> list[float]:
    """Pictures a second while it plays, each over three seconds."""
    output = run_cell(page, "import Playground", timeout=LONG)
    play, found = output.locator(".play"), []
    for _ in range(rounds):
        page.evaluate(FRAMES, [output.element_handle(), BORDER])
        play.click()
        time.sleep(3)
        found.append(per_second(page.evaluate("window.frames")))
        play.click()
    return found


def measure_dial(page: Any, presses: int) -> list[float]:
    """Milliseconds from an arrow key to the changed answer; the page has all answers, no kernel is asked."""
    output = run_cell(page, "import Dial", timeout=LONG)
    dial, times = output.get_by_label("scaling of the adapters"), []
    page.evaluate(WATCH, [output.element_handle(), None])
    dial.focus()
    for i in range(presses):
        page.keyboard.press("ArrowLeft" if i // 5 % 2 == 0 else "ArrowRight")
        times.append(round(wait_for(page, "pictured"), 1))
        time.sleep(0.1)
    return times


def measure_laboratory(page: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of one run with the default settings, and of some more that are stopped after their first point."""
    shown = Shown(page, run_cell(page, LABORATORY, timeout=LONG))
    shown.image.wait_for()
    run, stop = shown.button("Run"), shown.button("Stop")
    watch(page, shown, run)
    first, final, stopped = LIMITS
    seconds: dict[str, list[float]] = {name: [] for name in LIMITS}

    def take(name: str, note: str) -> None:
        seconds[name].append(round(wait_for(page, note) / 1000, 3))

    for i in range(rounds):
        shown.settled()
        run.click()
        take(first, "pictured")
        if i == 0:
            take(final, "ended")
        else:
            time.sleep(1)
            stop.click()
            take(stopped, "ended")
    return seconds


class Row(NamedTuple):
    """What was measured, its value, the target, and the unit; ``least``: the target is the smallest that will do."""

    name: str
    value: float
    limit: float | None
    unit: str
    least: bool = False

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return "no target"
        met = self.value >= self.limit if self.least else self.value <= self.limit
        return f"at {'least' if self.least else 'most'} {self.limit:g} {self.unit:3} {'met' if met else 'NOT MET'}"


def rows(results: dict[str, Any]) -> list[Row]:
    """The table of what was measured."""
    found = [Row("microscope: key press to the new picture, median", median(results["microscope_ms"]), 60.0, "ms")]
    training = results["training"]
    pictures, ratio = median(training["pictures a second"]), median(training["with"]) / median(training["without"])
    found.append(Row("microscope: pictures while training on small steps, median", pictures, 5.0, "/s", least=True))
    found.append(Row("training with the microscope / without, medians", round(ratio, 3), 1.10, ""))
    for name, times in results["explorers_ms"].items():
        title = f"{name.replace('_', ' ')}: key press to changed picture"
        middle, late = np.quantile(times, (0.5, 0.95)).round(1).tolist()
        found += [Row(f"{title}, median", middle, 100.0, "ms"), Row(f"{title}, 95 %", late, 250.0, "ms")]
    for name, limit in LIMITS.items():
        found.append(Row(f"laboratory: {name}, longest", max(results["laboratory_s"][name]), limit, "s"))
    found.append(Row("playground: pictures while it plays, median", median(results["playground_per_s"]), None, "/s"))
    found.append(Row("dial: key press to changed answer, median", median(results["dial_ms"]), None, "ms"))
    return found


def floor(results: dict[str, Any]) -> str:
    """What the way through the browser takes by itself."""
    median, late = np.quantile(results["ready_pictures_ms"], (0.5, 0.95))
    return f"a picture that is there already: median {median:.1f} ms, 95 % {late:.1f} ms; no target"


def table(found: list[Row]) -> str:
    """The rows as text, with what is met and what is not."""
    lines = [f"{row.name:66}{row.value:8g} {row.unit:3}   {row.verdict}" for row in found]
    verdicts = [row.verdict for row in found if row.limit is not None]
    met = sum("NOT MET" not in verdict for verdict in verdicts)
    return "\n".join([*lines, f"{met} of {len(verdicts)} targets met"])


def main() -> None:
    """Measure, print, write. A target that is not met is a finding, not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few presses, to see that everything works; writes nothing"
    )
    arguments = parser.parse_args()
    need_chromium()
    presses, rounds, steps = (5, 2, 12) if arguments.quick else (PRESSES, ROUNDS, STEPS)
    plain = [name for name in EXPLORERS if name != "routing_explorer"]
    cells = [f"from adapters_lesson.course.explorers import {name}\n\n{name}()" for name in plain]
    cells += [ROUTING, FLOOR, MICROSCOPE, TRAINING, PLAYGROUND, DIAL]
    cells += training_cells(steps).values()
    cells.append(f"from adapters_lesson.course.laboratory import Laboratory\n\n{LABORATORY}\nlaboratory")
    seen: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_notebook(copy_of_the_course(home / "course") / "notebooks" / "speed.ipynb", cells)
        with (
            make_lab(home, ADAPTERS_LESSON_RUNS=str(home / "runs")) as address,
            browser_page(seen, 1280, 720) as page,
        ):
            open_notebook(page, address, "speed.ipynb")
            results = {
                "command": "make lab-speed",
                "date": time.strftime("%Y-%m-%d"),
                "cores": os.cpu_count(),
                "laboratory_s": measure_laboratory(page, rounds),
                "ready_pictures_ms": measure_explorer(page, "ready_pictures", presses),
                "microscope_ms": measure_microscope(page, min(presses, 12)),
                "training": measure_training(page, rounds, steps),
                "playground_per_s": measure_playground(page, rounds),
                "dial_ms": measure_dial(page, presses),
                "explorers_ms": {name: measure_explorer(page, name, presses) for name in EXPLORERS},
            }
    print(floor(results), table(rows(results)), *seen, sep="\n")
    if not arguments.quick:
        write_atomically(RESULTS, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))


if __name__ == "__main__":
    main()
