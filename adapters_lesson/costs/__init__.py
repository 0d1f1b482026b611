"""What fine-tuning costs: parameters, memory, time. Predicted by a formula, then measured beside it."""

from .latency import Latency, LatencyTable, measure_latency
from .measurement import measure_memory
from .memory import OPTIMIZERS, MemoryLedger, memory_ledger
from .outlines import OUTLINES, outline
from .parameters import Count, ParameterCount, count_parameters

__all__ = [
    "OPTIMIZERS",
    "OUTLINES",
    "Count",
    "Latency",
    "LatencyTable",
    "MemoryLedger",
    "ParameterCount",
    "count_parameters",
    "measure_latency",
    "measure_memory",
    "memory_ledger",
    "outline",
]
