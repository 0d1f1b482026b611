"""What looks at a learner's answer and says what is wrong with it: one module a lesson, one function an exercise."""

from .record import progress
from .report import Report

__all__ = ["Report", "progress"]
