"""What training on several processes exchanges at every step: only gradients, so only what is trained."""

from torch import nn


def gradient_bytes(model: nn.Module) -> int:
    """Bytes of the gradients of all that is trained in ``model``: 4 for each parameter in single precision."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def ring_bytes(gradients: int, processes: int) -> float:
    """Bytes that each of N processes sends in order to average ``gradients`` bytes in a ring: 2 (N - 1) / N times that.

    Of N pieces every process passes on one in each of N - 1 rounds, to which the next adds its own; in N - 1 more the
    sums go round (Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69, section 4). The headers of the network's
    packets come on top. Raises ValueError for no process.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, not {processes}")
    return 2 * (processes - 1) / processes * gradients
