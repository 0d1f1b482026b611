"""The bottleneck laboratory of lesson 06: its settings, runs, tables and figures, and the guided experiments."""

from .guide import Guide as guided_experiments
from .laboratory import Laboratory

__all__ = ["Laboratory", "guided_experiments"]
