"""Training on several processes or machines, by PyTorch's DistributedDataParallel and Hugging Face's accelerate."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from adapters_lesson.batches import Texts, device_of

T = TypeVar("T")
TIMEOUT = 300.0  # seconds that a process waits for the others before it gives up
_BUCKETS: ContextVar[list[int] | None] = ContextVar("buckets", default=None)


def make_accelerator(timeout: float = TIMEOUT) -> Any:
    """An accelerate.Accelerator that suits ``train``; how the process was started decides how many there are.

    Without a GPU the processes talk over gloo; accelerate by itself takes each of them for the only one then.
    """
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
    return Accelerator(cpu=gpu is None or gpu.type == "mps", kwargs_handlers=[waiting])


class Team:
    """The processes that share a training run; without an accelerator this process is alone, and nothing is exchanged.

    Process 0 prints and writes files. Raises ValueError for an accelerator that does not know of the other processes,
    or that does more than to average gradients (FSDP, DeepSpeed, scaling for fp16, accumulation over several batches).
    """

    def __init__(self, accelerator: Any = None) -> None:
        self.accelerator = accelerator
        self.processes = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.autocast: Any = nullcontext if accelerator is None else accelerator.autocast  # around a forward pass
        self.interrupted = False  # this process was asked to stop; at the next step the others learn of it
        if accelerator is None:
            return
        if self.processes == 1 < (number := int(os.environ.get("WORLD_SIZE", 1))):
            raise ValueError(f"{number} processes were launched, but this Accelerator is alone: use make_accelerator()")
        kind = accelerator.distributed_type.value
        if kind != "NO" and not kind.startswith("MULTI_"):
            raise ValueError(f"train averages gradients over processes, and {kind} does more: launch without it")
        if accelerator.mixed_precision not in ("no", "bf16"):
            raise ValueError(f"mixed_precision must be no or bf16, not {accelerator.mixed_precision}")
        if accelerator.gradient_accumulation_steps != 1:
            raise ValueError("train does not accumulate gradients over batches: give a larger batch_size instead")

    def device_of(self, model: nn.Module) -> torch.device:
        """Where a run of ``model`` computes."""
        return device_of(model) if self.accelerator is None else self.accelerator.device

    def wrapped(self, model: nn.Module) -> nn.Module:
        """What a training step calls in place of ``model``, so that all processes have its mean gradients.

        All parameters are from here on those of process 0, everywhere.
        """
        if self.accelerator is not None:
            model.to(self.accelerator.device)
        if self.processes == 1:
            return model
        shared = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        shared.broadcast_buffers = False  # training does not change them
        if (counted := _BUCKETS.get()) is not None:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

            def count(group, bucket):  # type: ignore[no-untyped-def]  # PyTorch looks at annotations
                counted.append(bucket.buffer().nbytes)
                return allreduce_hook(group, bucket)

            shared.register_comm_hook(None, count)  # None: among all processes
        return shared

    def share(self, texts: Texts, rows: Sequence[int]) -> tuple[Sequence[int], float]:
        """This process's rows of a batch, every ``processes``-th, and their share of the batch's mean loss.

        A process that gets no row takes the first with a share of 0, because all have to take part in the exchange.
        """
        own = rows[self.rank :: self.processes]
        return (own, texts.counted(own) / texts.counted(rows)) if own else (rows[:1], 0.0)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, the same numbers on each of them."""
        return [sum(parts) for parts in zip(*self.gathered(values), strict=True)]

    def gathered(self, value: T) -> list[T]:
        """One value of each process, in their order, on each of them."""
        if self.processes == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def agree(self, settings: dict[str, Any]) -> None:
        """Raise ValueError, everywhere, unless all processes were started with the same."""
        for rank, others in enumerate(self.gathered(settings)):
            if differing := [name for name, value in settings.items() if others[name] != value]:
                raise ValueError(f"process {rank} has other {', '.join(differing)} than process {self.rank}")

    def from_main(self, call: Callable[[], T]) -> T:
        """The result of ``call``, or its ValueError, from the main process, which alone calls it."""
        answer: Any = None
        if self.rank == 0:
            try:
                answer = call()
            except ValueError as error:
                answer = error
        answer = self.gathered(answer)[0]
        if isinstance(answer, ValueError):
            raise answer
        return answer

    @contextmanager
    def noting_interrupts(self) -> Iterator[None]:
        """Ctrl-C ends a shared run between two steps, where all can end together; a second one ends it at once."""
        if self.processes == 1 or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(*_: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, before)

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def counted_traffic() -> Iterator[list[int]]:
    """The bytes of each bucket of gradients that a ``train(..., accelerator=…)`` in the ``with`` block exchanges.

    They are what goes into the average, not what the network carries for that: see ``costs.traffic.ring_bytes``.
    """
    buckets: list[int] = []
    token = _BUCKETS.set(buckets)
    try:
        yield buckets
    finally:
        _BUCKETS.reset(token)
