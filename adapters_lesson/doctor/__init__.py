"""Is the adapter applied, and does it train? What is wrong with a model or a saved folder, where, and the remedy."""

from .diagnosis import diagnose as diagnose
from .findings import TROUBLES as TROUBLES
from .findings import Diagnosis as Diagnosis
from .findings import Finding as Finding
