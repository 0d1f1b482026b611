"""The laboratory: choose settings, run, watch, compare. Every run is kept."""

import html
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from adapters_lesson.course.explorers.frame import WAITING, Explorer, button, choice, grid, message, plain, row
from adapters_lesson.course.explorers.job import Job
from adapters_lesson.course.figures import Picture
from adapters_lesson.guards.safe_files import check_writable, write_atomically
from adapters_lesson.history import History

from . import knobs
from .experiments import Run, RunBook, Settings, Sweep, run_experiment, warm_up
from .run_figures import AXES, Beforehand, RunsTable, run_styles, runs_figure, summary

# Two columns; where the page is too narrow the second stands below the first.
LEFT: Any = {"flex": "1 1 330px", "min_width": "0", "align_self": "flex-start"}
RIGHT: Any = {**LEFT, "flex": "1.4 1 470px"}
EVERY = 1.5  # seconds between two reports of a run that goes on: a picture takes the cores away from the training


class Laboratory(Explorer):
    """Experiments with knobs: ``Laboratory()`` as the last line of a cell shows it.

    ``controls`` stand beside ``curves``, above them where the page is narrow, and below both the ``kept`` runs.
    Runs go on in the background, one after the other, and are written to ``folder`` (see ``RunBook``) as they finish;
    ``book`` has them. ``run`` and ``sweep`` do what the buttons do, for cells, ``await laboratory.run(steps=50)``, and
    scripts, which ``wait()`` instead.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.book, self.table = RunBook(folder), RunsTable(self.refresh)
        self._live: Run | None = None
        self._beforehand: Beforehand | None = None  # what the third panel shows in place of the runs
        self._runs_lock = threading.Lock()  # the kernel's thread and a job's both come here
        self.axis = choice("accuracy against", "trainable", [(text, name) for name, text in AXES.items()])
        super().__init__("The bottleneck lab", self._draw_runs, knobs.make_knobs(), knobs.idle_knobs)
        short: Any = {"style": {"description_width": "initial"}}  # labels only as wide as they need
        self.seeds = widgets.Text("0", description="seeds", layout={"width": "95px"}, **short)
        look: Any = {"button_style": "primary", "icon": "play"}
        self.run_button = self._button("Run", "Train with these settings", self.run, **look)
        self.pause_button = self._button("Pause", "Rest, and go on later", self._pause_or_resume, icon="pause")
        self.stop_button = self._button("Stop", "End the run now, and keep it as it is", self.stop, icon="stop")
        self.pause_button.disabled = self.stop_button.disabled = True
        self.swept = choice("vary", "bottleneck_dim", knobs.SUGGESTED)
        self.swept.layout.width, self.swept.style.description_width = "180px", "initial"
        self.over = widgets.Text(description="over", layout={"flex": "1 1 150px", "width": "auto"}, **short)

        def sweep() -> None:
            self.sweep(self.swept.value, knobs.read_values(self.swept.value, self.over.value))

        self.sweep_button = self._button("Run sweep", "One run for each value and seed", sweep)
        self.bar, self.extra = widgets.FloatProgress(min=0, max=1, layout={"width": "100px"}), widgets.HTML()
        self._asked_about: list[int] = []  # the runs that a second press deletes
        tools: dict[str, tuple[str, Callable[[], Any]]] = {
            "Delete": ("Delete the ticked runs and their files", self._delete),
            "Copy settings": ("Set the knobs as in the ticked run", self._copy_settings),
            "As Python": ("Show the ticked run as a program", self._show_snippet),
            "Export CSV": ("Write all runs as a table", self._export),
            "Tick all": ("Draw all runs", lambda: self.table.choose(list(self.book.runs))),
            "Tick none": ("Draw none of them", lambda: self.table.choose([])),
        }
        self.tools = {label: self._button(label, tip, act, self._say_below) for label, (tip, act) in tools.items()}
        start = [row(self.run_button, self.reset_button, self.seeds), row(self.swept, self.sweep_button, self.over)]
        self.controls = widgets.VBox([*start, grid(*self.knobs.values())], layout=LEFT)
        self.message.layout.min_height = "28px"  # so that the first message moves nothing
        state = [row(self.pause_button, self.stop_button, self.bar), self.message]
        self.curves = widgets.VBox([*state, self.image, self.axis, self.status], layout=RIGHT)
        self.kept = widgets.VBox([self.table, row(*self.tools.values()), self.extra])
        self.children = [self.still, row(self.controls, self.curves), self.kept]
        self.axis.observe(self.refresh, "value")
        widgets.dlink((self.swept, "value"), (self.over, "value"), knobs.SUGGESTED.get)
        if self.book.unreadable:
            self._tell(f"left alone, because they are no runs: {', '.join(self.book.unreadable)}")
        # On a thread that then ends: OpenMP would keep the workers of the kernel's thread beside those of a job, and
        # with more workers than cores it lets them all sleep between two products: a run takes a third longer.
        warming = threading.Thread(target=warm_up)
        warming.start()
        warming.join()

    def run(self, seeds: Sequence[int] | None = None, **changes: Any) -> Job:
        """Set the knobs to ``changes`` and train with each seed; ValueError for nonsense, or while a run goes on."""
        return self._start(self._turned(changes, seeds))

    def sweep(self, knob: str, values: Sequence[Any], seeds: Sequence[int] | None = None, **changes: Any) -> Job:
        """Train with each of the ``values`` for ``knob``, and watch the accuracy against it; ValueError as ``run``."""
        settings = [one for base in self._turned(changes, seeds) for one in Sweep(knob, tuple(values), base).settings()]
        job = self._start(settings, knob)
        self.axis.value = self.swept.value = knob
        self.over.value = ", ".join(knobs.value_text(knob, value) for value in values)
        return job

    def hold_against(self, beforehand: Beforehand | None) -> None:
        """Show runs made beforehand in the third panel, one's own as rings; None ends that."""
        changed, self._beforehand = beforehand is not self._beforehand, beforehand
        if beforehand is not None and beforehand.sweep.knob != self.axis.value:
            self.axis.value = beforehand.sweep.knob  # which draws
        elif changed:
            self.refresh()

    def _pause_or_resume(self) -> None:
        if self.job is not None:
            self.job.paused = not self.job.paused
            self._job_changed(self.job)

    def reset(self) -> None:
        """Set all knobs as they were at the start."""
        super().reset()
        self.seeds.value = "0"

    def _delete(self) -> None:
        chosen = self.table.chosen
        if not chosen:
            raise ValueError("tick the runs to delete")
        if self._asked_about != chosen:
            which = ", ".join(f"#{number}" for number in chosen)
            self._say_below(f"Delete {which} and what is kept of them? Press Delete once more.")
            self._asked_about = chosen
            return
        with self._runs_lock:
            self.book.delete(chosen)
        self._say_below("")
        self.refresh()

    def _copy_settings(self) -> None:
        run = self._the_one()
        self._set_knobs({name: getattr(run.settings, name) for name in self.knobs})
        self.seeds.value = str(run.settings.seed)

    def _show_snippet(self) -> None:
        run = self._the_one()
        self.extra.value = f"Run #{run.number} as a program:<pre>{html.escape(run.settings.snippet())}</pre>"

    def _export(self) -> None:
        path, text = self.book.folder / "runs.csv", self.book.csv()
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        address = f"data:text/csv;base64,{b64encode(text.encode()).decode()}"
        link = f'<a download="runs.csv" href="{address}">Download runs.csv</a>'
        self.extra.value = f"Written to {html.escape(str(path))}. {link}"

    def _start(self, settings: list[Settings], knob: str = "seed") -> Job:
        try:
            check_writable("the folder of the runs,", self.book.folder, folder=True)
        except ValueError as error:  # it is said before the run begins, and the lesson goes on
            kept = "the runs are kept until the kernel ends; the variable ADAPTERS_LESSON_RUNS names another folder"
            self.extra.value = message(f"{error}: {kept}", error=True)
        self._beforehand = None
        self.job = Job(partial(self._train, settings, knob), self._job_changed)
        return self.job.start()

    def _train(self, settings: list[Settings], knob: str, job: Job) -> list[Run]:
        """A run for each of the ``settings``, which the swept ``knob`` follows; one that is stopped is kept, too."""
        runs: list[Run] = []
        ends = [0, *accumulate(one.steps or 0 for one in settings)]
        began, reported, before = time.monotonic(), 0.0, self.values.get(knob)
        name = knobs.LABELS.get(knob, knob).split(", ")[-1]

        def tell(one: Settings, how: str, done: int) -> None:
            swept = "" if knob == "seed" else f"{name} = {knobs.value_text(knob, getattr(one, knob))}, "
            with suppress(ValueError):  # the knob need not have the value
                self._set_knobs({knob: getattr(one, knob)})
            self.bar.value = done / ends[-1]
            self._tell(f"run {len(runs) + 1} of {len(settings)}: {swept}seed {one.seed}, {how}")

        def on_step(history: History) -> None:
            nonlocal reported
            if (now := time.monotonic()) - reported < EVERY:
                return
            one, done = settings[len(runs)], ends[len(runs)] + history.steps
            left = (now - began - job.rested) / done * (ends[-1] - done)
            at = f"step {history.steps} of {one.steps}, loss {history.loss[-1]:.3f}, about {left:.0f} s left"
            tell(one, at, done)
            self._live = Run(one, history, history.trainable)
            self.refresh()
            reported = time.monotonic()  # after the picture, so that a slow one does not crowd out the training

        try:
            for one, done in zip(settings, ends, strict=False):
                tell(one, "getting ready", done)
                run = run_experiment(one, on_step, job.check)
                self._live = None
                if run.history.steps:
                    runs.append(self.keep(run))
                job.check()
        finally:
            self._live = None
            if knob in self.knobs:
                self.knobs[knob].value = before
        return runs

    def keep(self, run: Run) -> Run:
        """Number a run that has ended, write it down, and show it."""
        with self._runs_lock:
            kept = self.book.add(run)
        if self.book.trouble:
            self.extra.value = message(self.book.trouble, error=True)
        if run.history.stopped != "interrupted":  # after Stop the buttons come first: see _job_changed
            self.refresh()
        return kept

    def _draw_runs(self, **_: Any) -> Picture:
        """All runs in the table; in the figure those that are ticked, and the one that goes on."""
        with self._runs_lock:
            live = [self._live] if self._live else []
            styles = run_styles([*self.book.runs.values(), *live])
            self.table.update(self.book.runs, styles)
            drawn = [self.book.runs[number] for number in sorted(self.table.chosen)] + live
        x, beforehand = self.axis.value, self._beforehand
        if beforehand is None or beforehand.sweep.knob != x:
            return Picture(runs_figure(drawn, styles, x), summary(drawn))
        return Picture(runs_figure(drawn, styles, x, beforehand), beforehand.told(drawn))

    def _job_changed(self, job: Job) -> None:
        self.run_button.disabled = self.sweep_button.disabled = not job.ended
        self.pause_button.disabled = self.stop_button.disabled = job.ended
        self.pause_button.description = "Go on" if job.paused and not job.ended else "Pause"
        if job.state == "failed":
            self.bar.value = 0
            self._tell(plain(job.error), error=True)
        elif job.state != "running":
            self._tell(WAITING if job.state == "waiting" else job.state)
        if job.state == "done":
            self.bar.value = 1
        elif job.state == "stopped":
            self.refresh()

    def _say_below(self, text: str, error: bool = False) -> None:
        """Say something beside the tools, which may be far below the other messages."""
        self.extra.value, self._asked_about = message(text, error) if text else "", []

    def _button(
        self, label: str, tooltip: str, action: Callable[[], Any], say: Callable[..., None] | None = None, **look: Any
    ) -> widgets.Button:
        def press() -> None:
            try:
                action()
            except Exception as error:  # raised in a widget's callback, nobody would see it
                (say or self._tell)(plain(error), error=True)

        return button(label, tooltip, press, **look)

    def _turned(self, changes: dict[str, Any], seeds: Sequence[int] | None) -> list[Settings]:
        """What the knobs say after these changes, with each of the seeds; by default those that are typed."""
        if self.job is not None and self.job.is_alive():
            raise ValueError("another run goes on: wait for it, or press Stop")
        self._set_knobs(changes)
        seeds = knobs.read_values("seed", self.seeds.value) if seeds is None else seeds
        return Sweep("seed", tuple(seeds), knobs.read_settings(self.values)).settings()

    def _set_knobs(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name not in self.knobs:
                raise ValueError(f"there is no knob {name}: choose among {', '.join(self.knobs)}")
            allowed = getattr(self.knobs[name], "options", (False, True))
            if name != "layers" and value not in allowed:
                raise ValueError(f"the knob {name} has no {value!r:.40}, only {', '.join(map(str, allowed))}")
        for name, value in values.items():
            self.knobs[name].value = knobs.layers_text(value) if name == "layers" else value

    def _changed(self, _: Any) -> None:
        self._grey()  # what has been run stays as it is

    def _the_one(self) -> Run:
        chosen = self.table.chosen
        if len(chosen) != 1:
            raise ValueError(f"tick one run for that; {len(chosen)} are ticked")
        return self.book.runs[chosen[0]]
