"""The frame of every explorer: knobs, a figure, a sentence that says the same, Reset, and errors shown."""

from __future__ import annotations

import asyncio
import base64
import html
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
from traitlets import Unicode

from ..plots import Picture
from ..plots.quick import quick_png
from .job import Job

LABEL = {"description_width": "128px"}  # the same for all knobs, so that they stand below each other
FILL = {"width": "auto"}  # as wide as the cell of the grid


def slider(label: str, value: Any, options: Sequence[Any]) -> widgets.SelectionSlider:
    """A slider over ``options``: values, or (text, value) pairs."""
    return widgets.SelectionSlider(description=label, options=list(options), value=value, style=LABEL, layout=FILL)


def choice(label: str, value: Any, options: Sequence[Any]) -> widgets.Dropdown:
    """A list of which one is chosen: values, or (text, value) pairs."""
    return widgets.Dropdown(description=label, options=list(options), value=value, style=LABEL, layout=FILL)


def switch(label: str, value: bool = False) -> widgets.Checkbox:
    """On or off."""
    return widgets.Checkbox(description=label, value=value, indent=False, layout=widgets.Layout(width="auto"))


def button(label: str, tooltip: str, on_click: Callable[[], object], **style: Any) -> widgets.Button:
    """A button as wide as its text needs."""
    made = widgets.Button(
        description=label, tooltip=tooltip, layout=widgets.Layout(width="auto", min_width="80px"), **style
    )
    made.on_click(lambda _: on_click())
    return made


def grid(*children: Any) -> widgets.GridBox:
    """Knobs in columns, as many as the page has room for."""
    columns = "repeat(auto-fill, minmax(265px, 1fr))"
    return widgets.GridBox(
        children, layout=widgets.Layout(grid_template_columns=columns, grid_gap="0 14px", max_width="960px")
    )


def row(*children: Any) -> widgets.Box:
    """Widgets side by side, in a second line where the page is too narrow."""
    return widgets.Box(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 14px"))


def message(text: str, error: bool = False) -> str:
    """HTML that a screen reader reads out when it changes; errors stand out in both themes."""
    colour = " color: var(--jp-error-color1, #B00020); font-weight: bold;" if error else ""
    return f'<div role="status" style="line-height: 1.4; max-width: 56em;{colour}">{html.escape(text)}</div>'


def plain(error: Exception | None) -> str:
    """An error's message; with its type unless it is one of ours, which say all that is needed."""
    return str(error) if isinstance(error, (ValueError, MemoryError)) else repr(error)


class _Image(widgets.Image):
    """An image that can have a tooltip: in the browser, ipywidgets 8.1 fails on one of a widget without description."""

    description = Unicode("").tag(sync=True)


class Panel(widgets.VBox):
    """A figure with its sentence below, both replaced by ``paint``. Where no widget works, a picture stands for it.

    Attributes:
        picture: what is shown.
        error: what went wrong with the last change, None if nothing did; the panel shows it, too.
        frames: how many pictures were painted.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.picture: Picture | None = None
        self.error: Exception | None = None
        self.frames = 0
        # max-content: the notebook would stretch the picture. The tooltip becomes the image's accessible name.
        layout = widgets.Layout(width="max-content", max_width="100%")
        self.image = _Image(format="png", layout=layout, tooltip=f"{title}: the text below the figure describes it")
        self.status = widgets.HTML()
        self._lock = threading.Lock()  # the kernel and a job may paint at the same time
        super().__init__([self.image, self.status])

    def paint(self, draw: Callable[[], Picture]) -> None:
        """Show what ``draw`` returns, or the error that it raises."""
        with self._lock:
            try:
                picture = draw()
                self.image.value = quick_png(picture.figure)
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
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        if self.picture is None:
            return data, metadata
        png, alt = base64.b64encode(self.picture.png()).decode(), self.picture.alt
        return {**data, "image/png": png, "text/plain": alt}, {**metadata, "image/png": {"alt": alt}}


class Explorer(Panel):
    """Knobs above a figure that follows them.

    Changes that arrive while one is being drawn are drawn once, with the last values.

    Args:
        title: what is explored, in a few words.
        draw: called with the value of every knob by name; returns the picture.
        knobs: controls by name, each with a label.
        idle: called with the values; returns the names of the knobs that have no effect at the moment.
    """

    def __init__(
        self,
        title: str,
        draw: Callable[..., Picture],
        knobs: Mapping[str, Any],
        idle: Callable[[dict[str, Any]], Collection[str]] = lambda values: (),
    ) -> None:
        super().__init__(title)
        self.knobs = dict(knobs)
        self._draw, self._idle, self._scheduled = draw, idle, False
        self._start = self.values
        self.reset_button = button("Reset", "Set all knobs as they were at the start", self.reset)
        self.heading = widgets.HTML(f"<b>{html.escape(title)}</b>")
        self.children = [row(self.heading, self.reset_button), grid(*self.knobs.values()), self.image, self.status]
        for knob in self.knobs.values():
            knob.observe(self._changed, "value")
        self.refresh()

    @property
    def values(self) -> dict[str, Any]:
        """The knobs' values by name."""
        return {name: knob.value for name, knob in self.knobs.items()}

    def add(self, *more: Any) -> None:
        """Put widgets between the knobs and the figure."""
        heading, knobs, *rest = self.children
        self.children = [heading, knobs, *more, *rest]

    def reset(self) -> None:
        """Set all knobs as they were at the start."""
        for name, value in self._start.items():
            self.knobs[name].value = value

    def refresh(self) -> None:
        """Draw with the knobs as they are."""
        self._scheduled = False
        idle = self._idle(self.values)
        for name, knob in self.knobs.items():
            knob.disabled = name in idle
        self.paint(lambda: self._draw(**self.values))  # read when it is this thread's turn to paint

    def _changed(self, _: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a script or a test: there is nobody to draw later
            self.refresh()
            return
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self.refresh)  # what has arrived by then is drawn in one go


class Action(widgets.VBox):
    """A button that starts work on a thread, with Stop and what it says meanwhile; see ``Job``.

    Args:
        label, tooltip: of the button.
        work: called with the job on the worker thread.
        on_end: called when the job has ended, however it did, unless it failed.
    """

    def __init__(
        self, label: str, tooltip: str, work: Callable[[Any], Any], on_end: Callable[[Any], None] = lambda job: None
    ) -> None:
        self._make = lambda: Job(work, self._changed)
        self._on_end = on_end
        self.job: Any = None
        self.start_button = button(label, tooltip, self.start, button_style="primary")
        self.stop_button = button("Stop", "End it now", self.stop)
        self.stop_button.disabled = True
        self.message = widgets.HTML()
        super().__init__([row(self.start_button, self.stop_button, self.message)])

    def start(self) -> Any:
        """Start the work unless it goes on already; returns the job, which may be awaited."""
        if self.job is None or not self.job.alive:
            self.job = self._make()
            self.job.start()
        return self.job

    def stop(self) -> None:
        """Stop the work."""
        if self.job is not None:
            self.job.stop()

    def say(self, text: str, error: bool = False) -> None:
        """Show ``text`` beside the buttons; the work may call it."""
        self.message.value = message(text, error)

    def _changed(self) -> None:
        job = self.job
        working = job.state in ("new", "waiting", "running", "paused")
        self.start_button.disabled, self.stop_button.disabled = working, not working
        if job.state == "waiting":
            self.say("waiting for its turn …")
        elif job.state == "failed":
            self.say(plain(job.error), error=True)
        elif job.state in ("done", "stopped"):
            self._on_end(job)


class MeasuringExplorer(Explorer):
    """An explorer with a button that measures, on a thread, where the knobs stand.

    Args:
        title, knobs: as for ``Explorer``.
        draw: called with ``measured``, the points so far, beside the knobs' values.
        measure: called with the knobs' values, ``check`` (of the job) and ``say`` (of the action); returns a point.
        key: what identifies a point: a new one takes the place of an old one with the same key.
        name: a point in a few words.
        measured: points to begin with.

    Attributes:
        action: the button with its job.
        measured: the points.
    """

    def __init__(
        self,
        title: str,
        draw: Callable[..., Picture],
        knobs: Mapping[str, Any],
        measure: Callable[..., Any],
        key: Callable[[Any], Any],
        name: Callable[[Any], str],
        measured: Iterable[Any] = (),
    ) -> None:
        self.measured = list(measured)
        super().__init__(title, lambda **values: draw(**values, measured=self.measured), knobs)
        self._measure, self._key, self._name = measure, key, name
        self.action = Action("Measure", "Time it on this machine, for some seconds", self._work, self._ended)
        self.add(self.action)

    def _work(self, job: Any) -> Any:
        point = self._measure(**self.values, check=job.check, say=self.action.say)
        self.measured[:] = [old for old in self.measured if self._key(old) != self._key(point)] + [point]
        return point

    def _ended(self, job: Any) -> None:
        if job.result is None:
            self.action.say("stopped: nothing was added")
        else:
            self.action.say(f"measured: {self._name(job.result)}")
            self.refresh()
