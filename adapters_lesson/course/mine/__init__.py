"""The learner's own library: what was answered correctly is kept in mine/adapters.py, and the lessons run on it."""

from .jobs import Fault, run
from .keeping import file_of_mine, shown

__all__ = ["Fault", "file_of_mine", "run", "shown"]
