"""The explorers, a file each: a knob is turned, a plain function draws. A lesson loads only what it shows."""

from importlib import import_module
from typing import Any

__all__ = [f"{name}_explorer" for name in ("anatomy", "cost", "drop", "latency", "placement", "routing")]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f".explore_{name.removesuffix('_explorer')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
