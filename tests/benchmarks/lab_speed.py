"""`make lab-speed`: how fast the widgets answer in a real browser, kept in data/results/lab_speed.json.

Times are taken inside the page, from the event of the key or the click to the decoded picture (for Stop: to the Run
button that can be pressed again). Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from adapters_lesson.course import explorers as widgets
from adapters_lesson.guards.safe_files import write_atomically

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from browser import Shown, browser_page, copy_of_the_course, make_lab, open_notebook, run_cell, write_notebook  # noqa: E402

RESULTS = ROOT / "data" / "results" / "lab_speed.json"
EXPLORERS = [name for name in widgets.__all__ if name.endswith("_explorer")]
PRESSES, ROUNDS = 40, 4
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
    READY.append(drawn._draw(**{**drawn.values, **values}).svg())

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


def rows(results: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """What was measured, its value, the target, the unit."""
    found: list[tuple[str, float, float, str]] = []
    for name, times in results["explorers_ms"].items():
        title = f"{name.replace('_', ' ')}: key press to changed picture"
        median, late = np.quantile(times, (0.5, 0.95)).round(1).tolist()
        found += [(f"{title}, median", median, 100.0, "ms"), (f"{title}, 95 %", late, 250.0, "ms")]
    if times := results.get("microscope_ms"):
        median = float(np.median(times).round(1))
        found.append(("microscope: key press to the answer without a push, median", median, 60.0, "ms"))
    for name, limit in LIMITS.items():
        found.append((f"laboratory: {name}, longest", max(results["laboratory_s"][name]), limit, "s"))
    return found


def floor(results: dict[str, Any]) -> str:
    """What the way through the browser takes by itself."""
    median, late = np.quantile(results["ready_pictures_ms"], (0.5, 0.95))
    return f"a picture that is there already: median {median:.1f} ms, 95 % {late:.1f} ms; no target"


def table(found: list[tuple[str, float, float, str]]) -> str:
    """The rows as text, with what is met and what is not."""
    lines = [
        f"{name:66}{value:8g} {unit:3}   at most {limit:g} {unit:3} {'met' if value <= limit else 'NOT MET'}"
        for name, value, limit, unit in found
    ]
    met = sum(value <= limit for _, value, limit, _ in found)
    return "\n".join([*lines, f"{met} of {len(found)} targets met"])


def main() -> None:
    """Measure, print, write. A target that is not met is a finding, not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few presses, to see that everything works; writes nothing"
    )
    arguments = parser.parse_args()
    presses, rounds = (5, 2) if arguments.quick else (PRESSES, ROUNDS)
    plain = [name for name in EXPLORERS if name != "routing_explorer"]
    cells = [f"from adapters_lesson.course.explorers import {name}\n\n{name}()" for name in plain]
    cells += [ROUTING, FLOOR, MICROSCOPE]
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
                "explorers_ms": {name: measure_explorer(page, name, presses) for name in EXPLORERS},
            }
    print(floor(results), table(rows(results)), *seen, sep="\n")
    if not arguments.quick:
        write_atomically(RESULTS, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))


if __name__ == "__main__":
    main()
