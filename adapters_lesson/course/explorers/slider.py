"""The explorers' slider: one with a name, that says its value. That of ipywidgets has none, and says its place."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from adapters_lesson.course.words import _


class Slider(anywidget.AnyWidget):
    """A slider over ``options``, values or (text, value) pairs; ``value`` is the one that is chosen.

    Raises traitlets.TraitError for a value that is none of the options.
    """

    _esm = Path(__file__).with_name("slider.js")
    description = traitlets.Unicode().tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)
    value = traitlets.Any()

    def __init__(self, description: str, value: Any, options: Iterable[Any]) -> None:
        self._values: tuple[Any, ...] = ()
        super().__init__(description=_(description))
        self.options, self.value = options, value

    @property
    def options(self) -> tuple[Any, ...]:
        """The values; when others are set, the first of them is chosen."""
        return self._values

    @options.setter
    def options(self, options: Iterable[Any]) -> None:
        pairs = [option if isinstance(option, tuple) else (str(option), option) for option in options]
        self._values = tuple(value for _text, value in pairs)
        self.labels = [_(text) for text, _value in pairs]
        self.index, self.value = 0, self._values[0]

    @traitlets.validate("value")
    def _known(self, proposal: Any) -> Any:
        if proposal["value"] not in self._values:
            there = ", ".join(map(str, self._values))
            raise traitlets.TraitError(f"{self.description} has no {proposal['value']!r}: choose among {there}")
        return proposal["value"]

    @traitlets.observe("value")
    def _chosen(self, change: Any) -> None:
        self.index = self._values.index(change["new"])

    @traitlets.observe("index")
    def _moved(self, change: Any) -> None:
        self.value = self._values[change["new"]]
