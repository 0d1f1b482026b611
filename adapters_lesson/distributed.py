"""Training on more than one process or machine: who takes which rows, and what is exchanged.

The gradients are averaged by PyTorch's DistributedDataParallel, which Hugging Face's accelerate sets up: what is frozen
has no gradient, so only what is trained is exchanged. Everything else that the processes have to agree on is here.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from .batches import Texts, device_of

T = TypeVar("T")
TIMEOUT = 300.0  # seconds that a process waits for the others before it gives up


def make_accelerator(timeout: float = TIMEOUT) -> Any:
    """An accelerate.Accelerator with the settings that suit ``train``; how the process was started decides the rest.

    Buffers, which training does not change, are not sent round at every step. A process that hears nothing of the
    others for ``timeout`` seconds ends with an error instead of waiting for ever. Without a GPU the processes talk over
    gloo, as they should; accelerate by itself takes each of them for the only one then.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    data_parallel = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
    gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return Accelerator(cpu=gpu is None or gpu.type == "mps", kwargs_handlers=[data_parallel, waiting])


class Team:
    """The processes that share a training run; without an accelerator this process is alone, and nothing is exchanged.

    Args:
        accelerator: an accelerate.Accelerator, or None.

    Attributes:
        processes: how many there are.
        rank: this one's number, counted from 0. The process 0 is the main one: it prints and writes files.
        interrupted: this process was asked to stop; at the next step the others learn of it.

    Raises:
        ValueError: for an accelerator that does not know of the other processes, that does more than to average
            gradients (FSDP, DeepSpeed), or whose gradients have to be scaled (fp16).
    """

    def __init__(self, accelerator: Any = None) -> None:
        self.accelerator = accelerator
        self.processes = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.is_main = self.rank == 0
        self.interrupted = False
        if accelerator is None:
            return
        if self.processes == 1 < (launched := int(os.environ.get("WORLD_SIZE", 1))):
            raise ValueError(
                f"{launched} processes were launched, but this Accelerator is alone: use make_accelerator()"
            )
        kind = accelerator.distributed_type.value
        if kind != "NO" and not kind.startswith("MULTI_"):
            raise ValueError(f"train averages gradients over processes, and {kind} does more: launch without it")
        if accelerator.mixed_precision not in ("no", "bf16"):
            raise ValueError(f"mixed_precision must be no or bf16, not {accelerator.mixed_precision}")

    def device_of(self, model: nn.Module) -> torch.device:
        """Where a run of ``model`` computes."""
        return device_of(model) if self.accelerator is None else self.accelerator.device

    @contextmanager
    def sharing(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give what to call in place of ``model`` in a training step, so that its gradients are averaged.

        All parameters are from here on those of process 0, everywhere.
        """
        if self.accelerator is None:
            yield model
            return
        before = set(vars(model))
        with warnings.catch_warnings():  # torch 2.13 renames the option, and accelerate 1.15 does not know that yet
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped = self.accelerator.prepare_model(model)
        traffic = _TRAFFIC.get()
        if traffic is not None and self.processes > 1:
            wrapped.register_comm_hook(traffic, lambda traffic, bucket: traffic.exchange(bucket))
        try:
            with self._interrupts_noted():
                yield wrapped
        finally:
            self.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
            for name in {"forward", "_is_accelerate_prepared"} & vars(model).keys() - before:
                delattr(model, name)  # else the next run would not be prepared

    def share(self, texts: Texts, rows: Sequence[int]) -> tuple[Sequence[int], float]:
        """This process's rows of a batch, every ``processes``-th, and their share of the batch's mean loss.

        A process that gets no row takes the first with a share of 0, because all have to take part in the exchange.
        """
        own = rows[self.rank :: self.processes]
        return (own, texts.counted(own) / texts.counted(rows)) if own else (rows[:1], 0.0)

    def agree(self, settings: dict[str, Any]) -> None:
        """Raise ValueError, everywhere, unless all processes were started with the same."""
        for rank, others in enumerate(self.gathered(settings)):
            if differing := [name for name, value in settings.items() if others[name] != value]:
                raise ValueError(f"process {rank} has other {', '.join(differing)} than process {self.rank}")

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, the same numbers on each of them."""
        if self.processes == 1:
            return list(values)
        return self.accelerator.reduce(torch.tensor(values, dtype=torch.float64).to(self.accelerator.device)).tolist()

    def backward(self, loss: torch.Tensor, share: float = 1.0) -> None:
        """The gradients of the whole batch's mean loss, from the mean ``loss`` of this process's rows.

        DistributedDataParallel takes the plain mean of the processes' gradients, hence the factor, which is not 1 where
        the rows, or the tokens that count, cannot be divided evenly.
        """
        factor = share * self.processes
        loss = loss if factor == 1 else loss * factor
        if self.accelerator is None:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def gathered(self, value: T) -> list[T]:
        """One value of each process, in their order, on each of them."""
        if self.processes == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def from_main(self, call: Callable[[], T]) -> T:
        """The result of ``call``, or its ValueError, from the main process, which alone calls it."""
        if self.processes == 1:
            return call()
        from accelerate.utils import broadcast_object_list

        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = call()
            except ValueError as error:
                answer[1] = str(error)
        broadcast_object_list(answer)
        if answer[1] is not None:
            raise ValueError(answer[1])
        return answer[0]

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Turn a KeyboardInterrupt in the ``with`` block into ``interrupted`` when there are other processes."""
        try:
            yield
        except KeyboardInterrupt:
            if self.processes == 1:
                raise
            self.interrupted = True

    @contextmanager
    def _interrupts_noted(self) -> Iterator[None]:
        """Ctrl-C ends a shared run between two steps, where all can end together; a second one ends it at once."""
        if self.processes == 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def note(*_: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@dataclass
class Traffic:
    """What this process gave to be averaged.

    Attributes:
        buckets: bytes of each exchange, in order; PyTorch gathers gradients into buckets of up to 25 MB.
    """

    buckets: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Bytes of gradients."""
        return sum(self.buckets)

    def exchange(self, bucket: Any) -> Any:
        """What DistributedDataParallel does with a full bucket (a torch.distributed.GradBucket), after counting."""
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        self.buckets.append(bucket.buffer().numel() * bucket.buffer().element_size())
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None: among all processes


_TRAFFIC: ContextVar[Traffic | None] = ContextVar("traffic", default=None)


@contextmanager
def counted_traffic() -> Iterator[Traffic]:
    """Count the bytes of gradients that a ``train(..., accelerator=…)`` in the ``with`` block exchanges.

    The count is of the gradients that go into the average, not of what the network carries for that: see
    ``costs.traffic.ring_bytes``. Buckets are counted where PyTorch hands them over.
    """
    traffic = Traffic()
    token = _TRAFFIC.set(traffic)
    try:
        yield traffic
    finally:
        _TRAFFIC.reset(token)
