"""What fine-tuning costs: parameters, memory, time. Predicted first, then measured beside it."""

from .latency import measure_latency as measure_latency
from .memory import measure_memory as measure_memory
from .memory import memory_ledger as memory_ledger
from .outlines import OUTLINES as OUTLINES
from .outlines import outline as outline
from .parameters import count_parameters as count_parameters
from .serving import Overhead as Overhead
from .serving import serve_together as serve_together
