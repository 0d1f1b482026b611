"""What was drawn: on the axes of a chart, or as the elements of a drawing."""

from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"


def lines(figure, label=None):
    """A chart's lines, of all its axes; with ``label`` those that have it."""
    found = [line for axes in figure.axes for line in axes.lines]
    return [line for line in found if label in (None, line.get_label()) and len(line.get_xdata())]


def texts(figure):
    """The words, in the order in which they came; a drawing's lines are joined by line breaks."""
    if isinstance(figure, Figure):
        return [text.get_text() for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]]
    return ["\n".join(line.text or "" for line in text) for text in figure.root.iter("text")]


def titles(drawing, start=""):
    """What the shapes of a drawing are called that are called something with this start."""
    return [title.text for title in drawing.root.iter("title") if title.text.startswith(start)]


def shapes(drawing, start):
    """The shapes themselves."""
    return [shape for shape in drawing.root if any(t.text.startswith(start) for t in shape.iter("title"))]


def size(drawing):
    return drawing.root.get("viewBox")


def drawn(explorer, **changes):
    """What an explorer draws with its knobs as they start, but for these changes."""
    return explorer.draw(**{**explorer.values, **changes})
