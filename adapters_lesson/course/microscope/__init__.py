"""See inside a model with adapters: what each adds to each token, while it learns, and what happens without it."""

from .microscope import Microscope

__all__ = ["Microscope"]
