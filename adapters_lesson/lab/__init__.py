"""The widgets: thin views over the package's functions. A knob is turned, a plain function draws, the view shows it.

Names are imported when they are first used, so that a lesson loads what it shows.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "anatomy_explorer": "anatomy",
    "placement_explorer": "placement",
    "cost_explorer": "cost",
    "drop_explorer": "drop",
    "latency_explorer": "latency",
    "routing_explorer": "routing",
    "quiz": "quizzes",
    "Laboratory": "laboratory",
    "guided_experiments": "guide",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
