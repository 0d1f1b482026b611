"""What the widgets with a page of their own, an ES module, share: its words, and what stands in where nothing moves."""

from typing import Any

import anywidget
from traitlets import Dict

from adapters_lesson.course.words import of_pages


class Page(anywidget.AnyWidget):
    """A widget whose module asks ``words`` for what it shows; ``still`` is for readers without a kernel."""

    words: Any = Dict().tag(sync=True)
    still: Any  # returns what a notebook keeps beside the widget, by MIME type, and its metadata

    def __init__(self, **traits: Any) -> None:
        super().__init__(words=of_pages(), **traits)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        (data, about), (still, more) = super()._repr_mimebundle_(**kwargs) or ({}, {}), self.still()
        return {**data, **still}, {**about, **more}
