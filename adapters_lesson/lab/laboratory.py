"""The laboratory: choose settings, run, watch, compare. Every run is kept."""

from __future__ import annotations

import html
import threading
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from ..experiments import Run, Settings, Sweep, warm_up
from ..files import write_atomically
from ..plots import show
from ..plots.runs import AXES, LiveFigure, run_styles, runs_figure
from ..runs import RunBook
from .frame import Panel, button, choice, grid, message, plain, row
from .job import Job
from .knobs import GOOD_RATES, SUGGESTED, idle_knobs, make_knobs, read_seeds, read_settings, read_values
from .series import run_series
from .table import RunsTable


class Laboratory(Panel):
    """Experiments with knobs: ``Laboratory()`` as the last line of a cell shows it.

    Runs go on in the background, one after the other, and are written to ``folder`` as they finish. The methods do what
    the buttons do, for cells and scripts: ``await laboratory.run(bottleneck_dim=4)``.

    Args:
        folder: where the runs are kept; see ``RunBook``.

    Attributes:
        book: the runs.
        knobs: the controls, by the settings' names.
        job: the work that goes on, or the last one.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__("The bottleneck lab")
        self.book = RunBook(folder)
        self.job: Job | None = None
        self._live: Run | None = None
        self._live_figure = LiveFigure()
        self._runs_lock = threading.Lock()  # the kernel's thread and a job's both come here
        self.knobs = make_knobs()
        self.seeds = _text("seeds", "0", "120px")
        self.run_button = button(
            "Run", "Train with these settings", self._press_run, button_style="primary", icon="play"
        )
        self.pause_button = button("Pause", "Rest, and go on later", self.pause_or_resume, icon="pause")
        self.stop_button = button("Stop", "End the run now, and keep it as it is", self.stop, icon="stop")
        self.reset_button = button("Reset", "Set all knobs as they were at the start", self.reset)
        self.swept = choice("vary", "bottleneck_dim", list(SUGGESTED))
        self.values = _text("over", SUGGESTED["bottleneck_dim"], "330px")
        self.sweep_button = button("Run sweep", "One run for each value and seed", self._press_sweep)
        self.axis = choice("accuracy against", "trainable", [(text, name) for name, text in AXES.items()])
        self.axis.layout.width, self.swept.layout.width = "400px", "290px"
        self.bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(width="150px"))
        self.message, self.hint, self.extra = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.table = RunsTable(self.redraw)
        tools = (
            button("Delete", "Delete the ticked runs and their files", self.delete),
            button("Copy settings", "Set the knobs as in the ticked run", self.copy_settings),
            button("As Python", "Show the ticked run as a program", self.show_snippet),
            button("Export CSV", "Write all runs as a table", self.export),
            button("Tick all", "Draw all runs", lambda: self.table.choose(list(self.book.runs))),
            button("Tick none", "Draw none of them", lambda: self.table.choose([])),
        )
        self.tools = {tool.description: tool for tool in tools}
        self.children = [
            grid(*self.knobs.values()),
            row(self.run_button, self.pause_button, self.stop_button, self.reset_button, self.seeds, self.hint),
            row(self.swept, self.values, self.sweep_button),
            row(self.bar, self.message),
            self.image,
            row(self.axis),
            self.status,
            self.table,
            row(*tools),
            self.extra,
        ]
        for knob in self.knobs.values():
            knob.observe(self._knob_turned, "value")
        self.axis.observe(self.redraw, "value")
        self.swept.observe(self._other_knob, "value")
        self._knob_turned()
        self._job_changed()
        self._show_runs()
        if self.book.unreadable:
            self._tell(f"left alone, because they are no runs: {', '.join(self.book.unreadable)}")
        # On a thread that then ends: OpenMP would keep the workers of the kernel's thread beside those of a job, and
        # with more workers than cores it lets them all sleep between two products: a run takes a third longer.
        warming = threading.Thread(target=warm_up)
        warming.start()
        warming.join()

    # --- What the buttons do ---

    def run(self, seeds: Sequence[int] | None = None, **changes: Any) -> Job:
        """Set the knobs to ``changes`` and train, once for each seed; returns the job, which may be awaited.

        Raises:
            ValueError: for settings that make no sense, or while another run goes on.
        """
        self._set_knobs(changes)
        seeds = read_seeds(self.seeds.value) if seeds is None else seeds
        return self._start([read_settings(self._values(), seed) for seed in seeds])

    def sweep(self, knob: str, values: Sequence[Any], seeds: Sequence[int] | None = None, **changes: Any) -> Job:
        """Train with each of the ``values`` for ``knob``, one after the other, and watch the accuracy against it.

        Raises:
            ValueError: as ``run``.
        """
        self._set_knobs(changes)
        seeds = read_seeds(self.seeds.value) if seeds is None else seeds
        settings = Sweep(knob, tuple(values), read_settings(self._values(), 0)).settings(seeds)
        self.axis.value = knob
        return self._start(settings)

    def stop(self) -> None:
        """End the run that goes on; what it has learnt so far is kept as a run."""
        if self.job is not None:
            self.job.stop()

    def pause_or_resume(self) -> None:
        """Let the run rest, or go on."""
        if self.job is not None:
            (self.job.resume if self.job.paused else self.job.pause)()
            self._job_changed()

    def reset(self) -> None:
        """Set all knobs as they were at the start."""
        self._set_knobs({name: getattr(Settings(), name) for name in self.knobs})
        self.seeds.value = "0"

    def delete(self) -> None:
        """Delete the ticked runs."""
        with self._runs_lock:
            self.book.delete(self.table.chosen)
        self._show_runs()

    def copy_settings(self) -> None:
        """Set the knobs as in the one run that is ticked."""
        if run := self._the_one():
            self._set_knobs({name: getattr(run.settings, name) for name in self.knobs})
            self.seeds.value = str(run.settings.seed)

    def show_snippet(self) -> None:
        """Show the one run that is ticked as a program."""
        if run := self._the_one():
            self.extra.value = f"Run #{run.number} as a program:<pre>{html.escape(run.settings.snippet())}</pre>"

    def export(self) -> None:
        """Write all runs to ``runs.csv`` in their folder, and offer the file."""
        path, text = self.book.folder / "runs.csv", self.book.csv()
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        address = f"data:text/csv;base64,{b64encode(text.encode()).decode()}"
        where = html.escape(str(path))
        self.extra.value = f'Written to {where}. <a download="runs.csv" href="{address}">Download runs.csv</a>'

    # --- How it works ---

    def _start(self, settings: list[Settings]) -> Job:
        if self.job is not None and self.job.alive:
            raise ValueError("another run goes on: wait for it, or press Stop")
        self.job = Job(
            lambda job: run_series(job, settings, self._keep, self._progress, self._show_live), self._job_changed
        )
        return self.job.start()

    def _keep(self, run: Run) -> Run:
        with self._runs_lock:
            kept = self.book.add(run)
        if run.history.stopped != "interrupted":  # after Stop the buttons come first: see _job_changed
            self._show_runs()
        return kept

    def _show_live(self, run: Run | None) -> None:
        self._live = run
        if run is not None:
            self.redraw()

    def redraw(self, _: Any = None) -> None:
        """Draw the ticked runs, and the one that goes on."""
        with self._runs_lock:
            live = self._live
            styles = run_styles([*self.book.runs.values(), *filter(None, [live])])
            drawn = [self.book.runs[number] for number in sorted(self.table.chosen)] + [*filter(None, [live])]
        draw = runs_figure if live is None else self._live_figure.draw
        self.paint(lambda: show(draw(drawn, styles, self.axis.value), _summary(drawn)))

    def _show_runs(self) -> None:
        with self._runs_lock:
            self.table.update(self.book.runs, run_styles(list(self.book.runs.values())))
        self.redraw()

    def _job_changed(self) -> None:
        job = self.job
        alive = job is not None and job.state not in ("done", "stopped", "failed")
        self.run_button.disabled = self.sweep_button.disabled = alive
        self.pause_button.disabled = self.stop_button.disabled = not alive
        self.pause_button.description = "Go on" if alive and job is not None and job.paused else "Pause"
        if job is None:
            return
        if job.state == "waiting":
            self._tell("waiting for its turn …")
        elif job.state == "paused":
            self._tell("paused")
        elif job.state == "failed":
            self._progress("", 0)
            self._tell(plain(job.error), error=True)
        elif not alive:
            self._progress(f"{job.state}", 1.0 if job.state == "done" else self.bar.value)
            if job.state == "stopped":
                self._show_runs()

    def _press_run(self) -> None:
        self._press(self.run)

    def _press_sweep(self) -> None:
        self._press(lambda: self.sweep(self.swept.value, read_values(self.swept.value, self.values.value)))

    def _press(self, action: Any) -> None:
        try:
            action()
        except ValueError as error:
            self._tell(str(error), error=True)

    def _set_knobs(self, values: dict[str, Any]) -> None:
        if unknown := set(values) - set(self.knobs):
            raise ValueError(f"there is no knob {', '.join(sorted(unknown))}: choose among {', '.join(self.knobs)}")
        for name, value in values.items():
            if name == "layers" and not isinstance(value, str):
                value = "all" if value is None else " ".join(map(str, value))
            self.knobs[name].value = value

    def _values(self) -> dict[str, Any]:
        return {name: knob.value for name, knob in self.knobs.items()}

    def _knob_turned(self, _: Any = None) -> None:
        values = self._values()
        for name, knob in self.knobs.items():
            knob.disabled = name in idle_knobs(values)
        self.hint.value = f"good rates for {values['method']}: {GOOD_RATES[values['method']]}"

    def _other_knob(self, _: Any) -> None:
        self.values.value = SUGGESTED[self.swept.value]

    def _the_one(self) -> Run | None:
        chosen = self.table.chosen
        if len(chosen) != 1:
            self._tell(f"tick one run for that; {len(chosen)} are ticked", error=True)
            return None
        return self.book.runs[chosen[0]]

    def _progress(self, text: str, share: float) -> None:
        self.bar.value = share
        self._tell(text)

    def _tell(self, text: str, error: bool = False) -> None:
        self.message.value = message(text, error)


def _text(label: str, value: str, width: str) -> widgets.Text:
    made = widgets.Text(description=label, value=value, style={"description_width": "initial"})
    made.layout.width = width
    return made


def _summary(runs: Sequence[Run]) -> str:
    """The drawn runs in a sentence."""
    finished = [run for run in runs if run.number]
    if not finished:
        return "The first run goes on." if runs else "No run is drawn."
    drawn = "1 run is drawn." if len(finished) == 1 else f"{len(finished)} runs are drawn."
    measured = [run for run in finished if run.history.validation]
    if not measured:
        return f"{drawn} Stopped before the first validation."
    best = max(measured, key=lambda run: run.accuracy)
    what = ", ".join(f"{name} {value}" for name, value in replace(best.settings, seed=0).differences().items())
    settings = f"{what or 'all settings as at the start'}, seed {best.settings.seed}"
    return (
        f"{drawn} The best is #{best.number} ({settings}): {100 * best.accuracy:.1f} % of the "
        f"validation texts right, {best.trainable:,} parameters trained without the head."
    )
