"""The bottleneck adapter (Houlsby et al. 2019, arXiv 1902.00751, section 2) and the settings for putting it in."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,  # also called swish
    "tanh": nn.Tanh,
    "identity": nn.Identity,  # without a non-linearity the adapter is a low-rank linear map
}
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
INITS = ("zero", "bert", "houlsby")
_DEFAULT_STD = {"bert": 0.02, "houlsby": 0.01}


class Adapter(nn.Module):
    """A small trainable module: ``h + scaling * up_project(activation(down_project(h)))``.

    Args:
        model_dim: width d of the hidden states that come in and go out.
        bottleneck_dim: width m of the bottleneck, usually much smaller than d (8 to 128).
        activation: the non-linearity in the bottleneck.
        init: "zero" (up_project is zero, so the adapter is exactly the identity), "bert" (both weights from
            N(0, init_std²), default 0.02) or "houlsby" (the same, cut off at two standard deviations, default 0.01:
            Houlsby et al. 2019, section 3.6). Biases start at zero in all three.
        init_std: standard deviation for "bert" and "houlsby".
        scaling: factor s on the update (He et al. 2021, arXiv 2110.04366, use 4 beside the FFN).
        dropout: probability of dropping an element of the update while training.

    Shapes: input and output ``(..., model_dim)``.

    Raises:
        ValueError: for a width below 1, or an unknown ``init``.
    """

    def __init__(
        self,
        model_dim: int,
        bottleneck_dim: int,
        activation: nn.Module = nn.GELU(),  # noqa: B008  GELU has no state, so adapters can share it
        *,
        init: str = "zero",
        init_std: float | None = None,
        scaling: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_width("model_dim", model_dim)
        _check_width("bottleneck_dim", bottleneck_dim)
        if bottleneck_dim > model_dim:
            warnings.warn(
                f"bottleneck_dim={bottleneck_dim} is wider than model_dim={model_dim}: that is no bottleneck, "
                "and it costs more parameters than a full d × d matrix pair",
                stacklevel=2,
            )
        self.down_project = nn.Linear(model_dim, bottleneck_dim)
        self.activation = activation
        self.up_project = nn.Linear(bottleneck_dim, model_dim)
        self.dropout = nn.Dropout(dropout)
        self.scaling = scaling
        self.reset_parameters(init, init_std)

    @staticmethod
    def count(model_dim: int, bottleneck_dim: int) -> int:
        """Parameters of one adapter: 2·d·m + m + d (two weight matrices, two biases)."""
        return 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim

    def reset_parameters(self, init: str = "zero", init_std: float | None = None) -> None:
        """Draw the weights anew; see the class for the choices."""
        check_init(init, init_std)
        nn.init.zeros_(self.down_project.bias)
        nn.init.zeros_(self.up_project.bias)
        if init == "zero":
            nn.init.kaiming_uniform_(self.down_project.weight, a=math.sqrt(5))  # as in nn.Linear
            nn.init.zeros_(self.up_project.weight)
            return
        std = _DEFAULT_STD[init] if init_std is None else init_std
        for projection in (self.down_project, self.up_project):
            if init == "bert":
                nn.init.normal_(projection.weight, std=std)
            else:
                nn.init.trunc_normal_(projection.weight, std=std, a=-2 * std, b=2 * std)

    def update(self, h: torch.Tensor) -> torch.Tensor:
        """What the adapter adds to the hidden states, ``scaling * up(f(down(h)))``: shape of ``h``."""
        x = h.to(self.down_project.weight.dtype)  # a frozen base may be in half precision, the adapter is not
        update = self.up_project(self.activation(self.down_project(x)))
        return self.dropout(update if self.scaling == 1.0 else self.scaling * update).to(h.dtype)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.update(h)

    def extra_repr(self) -> str:
        return "" if self.scaling == 1.0 else f"scaling={self.scaling}"


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapters to put into a model. Give the width as ``bottleneck_dim`` or as ``reduction_factor`` (d/m).

    Args:
        bottleneck_dim: width m of every adapter.
        reduction_factor: d/m instead of m; then m = int(d // reduction_factor), and at least 1.
        placement: "houlsby" (after attention and after the FFN: Houlsby et al. 2019), "pfeiffer" (after the FFN only:
            Pfeiffer et al. 2020, arXiv 2005.00247) or "parallel" (beside the FFN: He et al. 2021).
        activation: a name in ``ACTIVATIONS``.
        init, init_std, scaling, dropout: as for ``Adapter``.
        layers: indices of the blocks that get adapters, counted from 0 at the bottom; None for all of them.
        train_layer_norms: train the LayerNorms of those blocks as well, as Houlsby et al. do. The base model's own
            are kept: the adapter brings trained copies, which are switched and removed together with it.

    Raises:
        ValueError: for a setting that makes no sense; the message says what is allowed.
    """

    bottleneck_dim: int | None = None
    reduction_factor: float | None = None
    placement: str = "houlsby"
    activation: str = "gelu"
    init: str = "zero"
    init_std: float | None = None
    scaling: float = 1.0
    dropout: float = 0.0
    layers: tuple[int, ...] | None = None
    train_layer_norms: bool = False

    def __post_init__(self) -> None:
        if (self.bottleneck_dim is None) == (self.reduction_factor is None):
            raise ValueError(
                "give either bottleneck_dim (the width m, for instance 16) or reduction_factor (d/m), "
                f"not {'neither' if self.bottleneck_dim is None else 'both'}"
            )
        if self.bottleneck_dim is not None:
            _check_width("bottleneck_dim", self.bottleneck_dim)
        if self.reduction_factor is not None and not self.reduction_factor > 0:
            raise ValueError(f"reduction_factor must be above 0 (d/m, for instance 16), not {self.reduction_factor}")
        check_choice("placement", self.placement, PLACEMENTS)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_init(self.init, self.init_std)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), not {self.dropout}")
        if not math.isfinite(self.scaling) or self.scaling == 0:
            raise ValueError(f"scaling must be a finite number other than 0, not {self.scaling}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
            if not self.layers or len(set(self.layers)) < len(self.layers) or min(self.layers) < 0:
                raise ValueError(
                    f"layers must name different blocks, counted from 0, or be None for all; not {self.layers}"
                )

    def bottleneck_for(self, model_dim: int) -> int:
        """The width m in a model of width ``model_dim``."""
        if self.bottleneck_dim is not None:
            return self.bottleneck_dim
        assert self.reduction_factor is not None
        return max(1, int(model_dim // self.reduction_factor))

    def build(self, model_dim: int) -> Adapter:
        """A new adapter with these settings for hidden states of width ``model_dim``."""
        return Adapter(
            model_dim,
            self.bottleneck_for(model_dim),
            ACTIVATIONS[self.activation](),
            init=self.init,
            init_std=self.init_std,
            scaling=self.scaling,
            dropout=self.dropout,
        )


def check_init(init: str, init_std: float | None) -> None:
    """Raise ValueError unless ``init`` is known and ``init_std`` fits it."""
    check_choice("init", init, INITS)
    if init_std is None:
        return
    if init == "zero":
        raise ValueError('init="zero" has no standard deviation: leave init_std out, or use init="houlsby" or "bert"')
    if not (math.isfinite(init_std) and init_std > 0):
        raise ValueError(f"init_std must be a finite number above 0 (for instance 0.01), not {init_std}")


def _check_width(name: str, width: int) -> None:
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {width!r}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is among ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
