"""What was drawn on a sheet over a backdrop."""

from matplotlib.collections import Collection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch


def of(figure, kind):
    """The figure's artists of one kind, in the order in which they came."""
    return [artist for artist in figure.artists if isinstance(artist, kind)]


def lines(figure, label=None):
    """The lines; with ``label`` those that have it."""
    return [line for line in of(figure, Line2D) if label in (None, line.get_label())]


def patches(figure):
    return of(figure, Patch)


def collections(figure):
    return of(figure, Collection)


def texts(figure):
    return [text.get_text() for text in figure.texts]
