"""The laboratory's table: a row for each run, sorted by a click on a column's head, chosen by its box."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from ..experiments import Run, Settings
from ..plots.runs import Style, value_of

_SHORT = {"aspect_sentiment": "sentiment", "aspect_comparison": "comparison", "aspect_agreement": "agreement",
          "film_reviews": "films"}  # fmt: skip
_MARKS = {"o": "●", "s": "■", "^": "▲", "D": "◆"}


def _percent(run: Run) -> str:
    return "–" if math.isnan(run.accuracy) else f"{100 * run.accuracy:.1f} %"


# Head, width in pixels, what a run shows there, and what it is sorted by. The first column is the box's own label.
_COLUMNS: dict[str, tuple[int, Callable[[Run], str], Callable[[Run], Any]]] = {
    "run": (64, lambda r: f"#{r.number}", lambda r: r.number),
    "task": (80, lambda r: _SHORT[r.settings.task], lambda r: r.settings.task),
    "base": (46, lambda r: str(r.settings.base_layers), lambda r: r.settings.base_layers),
    "method": (94, lambda r: _method(r.settings), lambda r: _method(r.settings)),
    "m": (38, lambda r: _adapters(r, str(r.settings.bottleneck_dim)), lambda r: r.settings.bottleneck_dim),
    "init": (86, lambda r: _adapters(r, _init(r.settings)), lambda r: _init(r.settings)),
    "act.": (58, lambda r: _adapters(r, r.settings.activation), lambda r: r.settings.activation),
    "blocks": (54, lambda r: _adapters(r, str(value_of(r, "layers"))), lambda r: str(value_of(r, "layers"))),
    "rate": (54, lambda r: f"{r.settings.learning_rate:g}", lambda r: r.settings.learning_rate),
    "steps": (76, lambda r: _steps(r), lambda r: r.history.steps),
    "seed": (44, lambda r: str(r.settings.seed), lambda r: r.settings.seed),
    "trained": (70, lambda r: f"{r.trainable:,}", lambda r: r.trainable),
    "accuracy": (82, _percent, lambda r: -1.0 if math.isnan(r.accuracy) else r.accuracy),
}
_SWATCH = 18  # pixels
_RIGID = "0 0 auto"  # heads and cells stay in line: what does not fit is scrolled to


class RunsTable(widgets.VBox):
    """The runs, of which some are chosen.

    Args:
        on_choice: called when other runs are chosen.

    Attributes:
        sorted_by, descending: the order of the rows.
    """

    def __init__(self, on_choice: Callable[[], None]) -> None:
        self.sorted_by, self.descending = "run", False
        self._on_choice = on_choice
        self._rows: dict[int, widgets.Box] = {}
        self._runs: dict[int, Run] = {}
        self.heads = {name: self._head(name, width) for name, (width, _, _) in _COLUMNS.items()}
        line = {"flex_flow": "row nowrap", "align_items": "center", "overflow": "visible", "min_height": "30px"}
        self._line = line
        first, *others = self.heads.values()
        gap = widgets.HTML(layout=widgets.Layout(width=f"{_SWATCH}px", margin="0", flex=_RIGID))
        head = widgets.Box([first, gap, *others], layout=widgets.Layout(**line))
        self.body = widgets.VBox(layout=widgets.Layout(max_height="230px", overflow="hidden auto", min_height="34px"))
        super().__init__([head, self.body], layout=widgets.Layout(overflow="auto hidden"))

    @property
    def chosen(self) -> list[int]:
        """The numbers of the runs that are ticked, in the order of the rows."""
        return [number for number in self._order() if self.box(number).value]

    def box(self, number: int) -> Any:
        """The box that chooses run ``number``."""
        return self._rows[number].children[0]

    def choose(self, numbers: list[int]) -> None:
        """Tick these runs and no others."""
        self._on_choice, on_choice = lambda: None, self._on_choice  # once for all, not for each of them
        for number in self._rows:
            self.box(number).value = number in numbers
        self._on_choice = on_choice
        on_choice()

    def update(self, runs: Mapping[int, Run], styles: Mapping[Settings, Style]) -> None:
        """Show ``runs``; one that is new is ticked."""
        self._runs = dict(runs)
        self._rows = {number: self._rows.get(number) or self._row(number) for number in runs}
        for number, run in runs.items():
            self._rows[number].children[1].value = _cells(run, styles[replace(run.settings, seed=0)])
        self._arrange()

    def _row(self, number: int) -> widgets.Box:
        width = f"{_COLUMNS['run'][0]}px"
        box = widgets.Checkbox(value=True, indent=False, description=f"#{number}", tooltip=f"draw run {number}")
        box.layout.width, box.layout.margin, box.layout.flex = width, "0", _RIGID
        box.observe(lambda _: self._on_choice(), "value")
        cells = widgets.HTML(layout=widgets.Layout(margin="0", flex=_RIGID))
        return widgets.Box([box, cells], layout=widgets.Layout(**self._line))

    def _head(self, name: str, width: int) -> widgets.Button:
        head = widgets.Button(description=name, tooltip=f"sort by {name}", layout=widgets.Layout(width=f"{width}px"))
        head.layout.margin, head.layout.padding, head.layout.flex = "0", "0 2px", _RIGID
        head.on_click(lambda _: self._sort(name))
        return head

    def _sort(self, name: str) -> None:
        self.descending = not self.descending if name == self.sorted_by else name == "accuracy"
        self.sorted_by = name
        self._arrange()

    def _order(self) -> list[int]:
        key = _COLUMNS[self.sorted_by][2]
        return sorted(self._runs, key=lambda number: (key(self._runs[number]), number), reverse=self.descending)

    def _arrange(self) -> None:
        for name, head in self.heads.items():
            head.description = name + (" ▾" if self.descending else " ▴") * (name == self.sorted_by)
        empty = widgets.HTML("<i>No runs yet: press Run.</i>")
        self.body.children = [self._rows[number] for number in self._order()] or [empty]


def _cells(run: Run, style: Style) -> str:
    """All columns but the first as one line, after a sign in the colour and shape of the run's curves."""
    _, *columns = _COLUMNS.values()
    grid = " ".join(f"{width}px" for width in (_SWATCH, *(width for width, _, _ in columns)))
    spans = [f'<span style="color: {style.colour}">{_MARKS[style.marker]}</span>']
    spans += [f"<span>{html.escape(show(run))}</span>" for _, show, _ in columns]
    look = "white-space: nowrap; text-align: center; font-size: 12px; line-height: 24px"
    return f'<div style="display: grid; grid-template-columns: {grid}; {look}">{"".join(spans)}</div>'


def _adapters(run: Run, text: str) -> str:
    return text if run.settings.method == "adapter" else ""


def _method(settings: Settings) -> str:
    if settings.method != "adapter":
        return settings.method
    return settings.placement + (" + LN" if settings.train_layer_norms else "")


def _init(settings: Settings) -> str:
    return "zero" if settings.init == "zero" else f"{settings.init} {settings.init_std:g}"


def _steps(run: Run) -> str:
    return str(run.history.steps) if not run.history.stopped else f"{run.history.steps} of {run.settings.steps}"
