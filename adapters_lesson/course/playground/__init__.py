"""A tiny frozen network and an adapter that is trained in the page: `Playground()`."""

from .playground import Playground

__all__ = ["Playground"]
