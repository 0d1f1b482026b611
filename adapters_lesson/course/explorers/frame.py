"""The frame of every explorer: knobs, a figure, a sentence that says the same, Reset, and errors shown."""

import asyncio
import html
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import ipywidgets as widgets

from adapters_lesson.course.figures import Picture
from adapters_lesson.course.words import _

from .job import Job

# Knobs stand below each other with labels of one width, and are as wide as the cell of the grid.
FIELD: Any = {"style": {"description_width": "128px"}, "layout": {"width": "auto"}}
STILL = "Run this cell to move it."  # beside a picture that no kernel answers for
# A notebook that is opened again shows widgets as they were saved, and marks them as disconnected.
_WHERE_DISCONNECTED = (
    "<style>.still { display: none } .jupyter-widgets-disconnected .still { display: block; font-weight: bold }"
    ".lesson-panel.jupyter-widgets-disconnected::before, .lesson-panel .jupyter-widgets-disconnected::before"
    " { display: none } .lesson-panel .lm-TabBar-tab { flex: 1 1 auto !important; padding: 0 6px }"
    ".lesson-option { justify-content: flex-start; white-space: normal; text-align: left; line-height: 1.4 }</style>"
    f'<div class="still">{STILL}</div>'
)
UNMEASURED = "Not measured with these settings yet: press Measure."
WAITING = "waiting for its turn …"


def choice(label: str, value: Any, options: Iterable[Any]) -> widgets.Dropdown:
    """A list of which one is chosen: values, or (text, value) pairs."""
    shown = [(_(option[0]), option[1]) if isinstance(option, tuple) else option for option in options]
    return widgets.Dropdown(description=_(label), options=shown, value=value, **FIELD)


def switch(label: str, value: bool = False) -> widgets.Checkbox:
    """On or off."""
    return widgets.Checkbox(description=_(label), value=value, indent=False, layout=FIELD["layout"])


def button(label: str, tooltip: str, on_click: Callable[[], object], **look: Any) -> widgets.Button:
    """A button as wide as its text needs."""
    layout = {"width": "auto", "min_width": "80px"}
    made = widgets.Button(description=_(label), tooltip=_(tooltip), **{"layout": layout, **look})
    made.on_click(lambda clicked: on_click())
    return made


def option_button(label: str, on_click: Callable[[], object]) -> widgets.Button:
    """An answer to choose: as wide as the page, its text on the left."""
    left = {"width": "auto", "height": "auto", "min_height": "28px", "display": "flex", "align_items": "center"}
    return button(label, label, on_click, layout=left).add_class("lesson-option")


def grid(*children: Any) -> widgets.GridBox:
    """Knobs in columns, as many as the page has room for."""
    layout = {"grid_template_columns": "repeat(auto-fill, minmax(min(330px, 100%), 1fr))", "grid_gap": "0 14px"}
    return widgets.GridBox(children, layout={**layout, "max_width": "1200px"})


def row(*children: Any) -> widgets.Box:
    """Widgets side by side, in a second line where the page is too narrow."""
    return widgets.Box(children, layout={"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"})


def message(text: str, error: bool = False) -> str:
    """HTML that a screen reader reads out when it changes; errors stand out in both themes."""
    colour = " color: var(--jp-error-color1, #B00020); font-weight: bold;" if error else ""
    return f'<div role="status" style="line-height: 1.4; max-width: 56em;{colour}">{html.escape(_(text))}</div>'


def plain(error: Exception | None) -> str:
    """An error's message; with its type unless it is one of ours, which say all that is needed."""
    return _(str(error)) if isinstance(error, (ValueError, MemoryError)) else repr(error)


class Panel(widgets.VBox):
    """A picture with its sentence, or the ``error``, below it. Where no widget works, a still picture stands in."""

    def __init__(self, title: str) -> None:
        self.title, self.frames = title, 0
        self.picture: Any = None
        self.error: Exception | None = None
        self.image = widgets.HTML(layout={"max_width": "100%"})
        self.status, self.still = widgets.HTML(), widgets.HTML(_WHERE_DISCONNECTED)
        self._lock = threading.Lock()  # the kernel and a job may paint at the same time
        super().__init__()
        self.add_class("lesson-panel")

    def paint(self, draw: Callable[[], Picture]) -> None:
        """Show what ``draw`` returns, or the error that it raises."""
        with self._lock:
            try:
                picture = draw()
                self.image.value = picture.svg()
            except Exception as error:  # raised in a widget's callback, nobody would see it
                self.error = error
                self.say(plain(error), error=True)
                return
            self.picture, self.error = picture, None
            self.frames += 1
            self.say(picture.alt)

    def say(self, text: str, error: bool = False) -> None:
        """Put ``text`` below the figure."""
        self.status.value = message(text, error)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        still, about = self.picture.bundle(_(STILL)) if self.picture is not None else ({}, {})
        return {**super()._repr_mimebundle_(**kwargs), **still}, about


class Explorer(Panel):
    """Knobs above a figure that follows them; changes that arrive while it is drawn are drawn once.

    Args:
        draw: called with every knob's value by its name, and ``measured`` where something can be; returns the picture.
        knobs: controls by name, each with a label.
        idle: called with the values; returns the names of the knobs that have no effect at the moment.
        more: widgets between the knobs and the figure.
        measure: called by a button, as a ``Job``, with the knobs' values, ``check`` and ``say``; returns a point, which
            has the knobs that decide about it as attributes: it takes the place of one where they are the same.
    """

    def __init__(
        self,
        title: str,
        draw: Callable[..., Picture],
        knobs: Mapping[str, Any],
        idle: Callable[[dict[str, Any]], Collection[str]] = lambda values: (),
        more: Iterable[Any] = (),
        measure: Callable[..., Any] | None = None,
        measured: Iterable[Any] = (),
    ) -> None:
        super().__init__(title)
        self.knobs, self.draw, self._idle, self._scheduled = dict(knobs), draw, idle, False
        self._measure, self.measured, self.message = measure, list(measured), widgets.HTML()
        self.job: Job | None = None
        self._at_start = self.values
        self.reset_button = button("Reset", "Set all knobs as they were at the start", self.reset)
        heading = row(widgets.HTML(f"<b>{html.escape(_(title))}</b>"), self.reset_button)
        if measure is not None:
            self.start_button = button("Measure", "Time it here, for some seconds", self.start, button_style="primary")
            self.stop_button = button("Stop", "End it now", self.stop, disabled=True)
            more = [row(self.start_button, self.stop_button, self.message)]
        self.children = [self.still, heading, grid(*self.knobs.values()), *more, self.image, self.status]
        for knob in self.knobs.values():
            knob.observe(self._changed, "value")
        self.refresh()

    @property
    def values(self) -> dict[str, Any]:
        """The knobs' values by name."""
        return {name: knob.value for name, knob in self.knobs.items()}

    def reset(self) -> None:
        """Set all knobs as they were at the start."""
        for name, value in self._at_start.items():
            self.knobs[name].value = value

    def refresh(self, change: Any = None) -> None:
        """Draw with the knobs as they are."""
        self._scheduled = False
        self.paint(self._drawn)

    def start(self) -> Job:
        """Measure unless a measurement goes on already; returns the job, which may be awaited."""
        if self.job is None or not self.job.is_alive():
            self.job = Job(self._work, self._job_changed)
            self.job.start()
        return self.job

    def stop(self) -> None:
        """End the work that goes on."""
        if self.job is not None:
            self.job.stop()

    def _tell(self, text: str, error: bool = False) -> None:
        self.message.value = message(text, error)

    def _grey(self) -> None:
        idle = self._idle(self.values)
        for name, knob in self.knobs.items():
            knob.disabled = name in idle

    def _drawn(self) -> Picture:
        self._grey()
        points = {} if self._measure is None else {"measured": self.measured}
        return self.draw(**self.values, **points)  # read when it is this thread's turn to paint

    def _changed(self, change: Any) -> None:
        if not self._scheduled:
            try:
                asyncio.get_running_loop().call_soon(self.refresh)  # what has arrived by then is drawn in one go
                self._scheduled = True
            except RuntimeError:  # a script or a test: there is nobody to draw later
                self.refresh()

    def _work(self, job: Job) -> str:
        point: Any = self._measure and self._measure(**self.values, check=job.check, say=self._tell)
        where = self._where(point)
        self.measured[:] = [old for old in self.measured if self._where(old) != where] + [point]
        return f"measured: {where}"

    def _where(self, point: Any) -> str:
        """With which knobs it was measured."""
        knobs = {name: knob.description for name, knob in self.knobs.items() if hasattr(point, name)}
        return "; ".join(f"{label}: {getattr(point, name)}" for name, label in knobs.items())

    def _job_changed(self, job: Job) -> None:
        self.start_button.disabled, self.stop_button.disabled = not job.ended, job.ended
        if job.state == "failed":
            self._tell(plain(job.error), error=True)
        elif said := {"waiting": WAITING, "stopped": "stopped: nothing was added", "done": job.result}.get(job.state):
            self._tell(said)
        if job.state == "done":
            self.refresh()
