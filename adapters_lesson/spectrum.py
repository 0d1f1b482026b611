"""In how many directions an adapter's update can push, without its d × d Jacobian."""

from __future__ import annotations

import torch

from .adapter import Adapter


def update_singular_values(adapter: Adapter, at: torch.Tensor) -> torch.Tensor:
    """Singular values of the Jacobian of ``adapter.update`` (its dropout left out) at one hidden state.

    With U and D the weights of ``up_project`` (d, m) and ``down_project`` (m, d), z = down_project(at) and s the
    scaling, the Jacobian is s · U · diag(f'(z)) · D. It has rank m at most, and the triangular factors of U and of Dᵀ
    carry all that its singular values depend on: an m × m matrix instead of d × d.

    Args:
        adapter: its activation works on each number by itself, as those in ``ACTIVATIONS`` do.
        at: shape (d,).

    Returns:
        The min(d, m) that may differ from zero, in double precision, the largest first. The others are zero.

    Raises:
        ValueError: when ``at`` is not one hidden state of the adapter's width.
    """
    d = adapter.down_project.in_features
    if at.shape != (d,):
        raise ValueError(f"at must be one hidden state of shape ({d},), not {tuple(at.shape)}")
    z = adapter.down_project(at.to(adapter.down_project.weight.dtype)).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(adapter.activation(z).sum(), z)
    with torch.no_grad():
        up = torch.linalg.qr(adapter.up_project.weight, mode="r").R.double()
        down = torch.linalg.qr(adapter.down_project.weight.T, mode="r").R.double()
        # In double precision a unit whose slope is zero takes away a direction, not all but a rounding error of it.
        return torch.linalg.svdvals(adapter.scaling * (up * slope.double()) @ down.T)
