"""What fine-tuning costs: parameters, memory, time. Predicted by a formula, then measured beside it."""

from .latency import Latency, LatencyTable, measure_latency
from .measurement import measure_memory
from .memory import OPTIMIZERS, MemoryLedger, memory_ledger
from .outlines import OUTLINES, outline
from .parameters import Count, ParameterCount, count_parameters
from .serving import (
    ADAPTERS_PER_BLOCK,
    LORA_RANK,
    Overhead,
    Served,
    extra_multiply_adds,
    measure_overhead,
    measure_serving,
    multiply_adds,
    serve_together,
    shared_work,
)
from .traffic import gradient_bytes, ring_bytes

__all__ = [
    "ADAPTERS_PER_BLOCK",
    "LORA_RANK",
    "OPTIMIZERS",
    "OUTLINES",
    "Count",
    "Latency",
    "LatencyTable",
    "MemoryLedger",
    "Overhead",
    "ParameterCount",
    "Served",
    "count_parameters",
    "extra_multiply_adds",
    "gradient_bytes",
    "measure_latency",
    "measure_memory",
    "measure_overhead",
    "measure_serving",
    "memory_ledger",
    "multiply_adds",
    "outline",
    "ring_bytes",
    "serve_together",
    "shared_work",
]
