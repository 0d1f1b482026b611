"""Training and evaluation mode, module by module."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn


def training_mode(model: nn.Module) -> None:
    """Put what is trained into training mode and everything else into evaluation mode.

    A module counts as trained when all of its parameters are. So the dropout of a frozen base is off: nothing in there
    is learnt, so there is nothing to regularise.
    """
    model.eval()
    for module in model.modules():
        flags = [p.requires_grad for p in module.parameters()]
        if flags and all(flags):
            module.train()


_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Change modes in the ``with`` block as you like: afterwards every module is in the mode it was in.

    Threads that do so with one model take turns.
    """
    with _LOCKS.setdefault(model, threading.RLock()):
        modes = {module: module.training for module in model.modules()}
        try:
            yield
        finally:
            for module, mode in modes.items():
                if module.training != mode:  # to set it takes ten times as long as to look
                    module.training = mode
