"""The bottleneck adapter (Houlsby et al. 2019, arXiv 1902.00751, section 2) and the settings for putting it in."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from .guards import config_guard as guard
from .lora import LoRAConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,  # also called swish
    "tanh": nn.Tanh,
    "identity": nn.Identity,  # without a non-linearity the adapter is a low-rank linear map
}


class Adapter(nn.Module):
    """A small trainable module: ``h + scaling * up_project(activation(down_project(h)))``.

    Args:
        model_dim: width d of the hidden states ``(..., model_dim)`` that come in and go out.
        bottleneck_dim: width m of the bottleneck, usually much smaller than d (8 to 128).
        activation: the non-linearity in the bottleneck.
        init: "zero" (up_project is zero, so the adapter is exactly the identity), "bert" (both weights from
            N(0, init_std²), default 0.02) or "houlsby" (the same, cut off at two standard deviations, default 0.01:
            Houlsby et al. 2019, section 3.6). Biases start at zero in all three.
        init_std: standard deviation for "bert" and "houlsby".
        scaling: factor s on the update (He et al. 2021, arXiv 2110.04366, use 4 beside the FFN).
        dropout: probability of dropping an element of the update while training.

    Raises ValueError for a width below 1, an unknown ``init``, a number that makes no sense.
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
        model_dim = guard.check_whole("model_dim", model_dim)
        bottleneck_dim = guard.check_whole("bottleneck_dim", bottleneck_dim)
        if bottleneck_dim > model_dim:
            warnings.warn(
                f"bottleneck_dim={bottleneck_dim} is wider than model_dim={model_dim}: that is no bottleneck, "
                "and it costs more parameters than a full d × d matrix pair",
                stacklevel=2,
            )
        self.down_project = nn.Linear(model_dim, bottleneck_dim)
        self.activation = guard.check_activation(activation)
        self.up_project = nn.Linear(bottleneck_dim, model_dim)
        self.dropout = nn.Dropout(guard.check_dropout(dropout))
        self.scaling = guard.check_scaling(scaling)
        self.reset_parameters(init, init_std)

    @staticmethod
    def count(model_dim: int, bottleneck_dim: int) -> int:
        """Parameters of one adapter: 2·d·m + m + d (two weight matrices, two biases)."""
        return 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim

    def reset_parameters(self, init: str = "zero", init_std: float | None = None) -> None:
        """Draw the weights anew; see the class for the choices."""
        init, init_std = guard.check_init(init, init_std)
        nn.init.zeros_(self.down_project.bias)
        nn.init.zeros_(self.up_project.bias)
        if init == "zero":
            nn.init.kaiming_uniform_(self.down_project.weight, a=math.sqrt(5))  # as in nn.Linear
            nn.init.zeros_(self.up_project.weight)
            return
        for weight in (self.down_project.weight, self.up_project.weight):
            if init == "bert":
                nn.init.normal_(weight, std=init_std or 0.02)
            else:
                std = init_std or 0.01
                nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)

    def update(self, h: Tensor) -> Tensor:
        """What the adapter adds to the hidden states, ``scaling * up(f(down(h)))``: shape of ``h``."""
        x = h.to(self.down_project.weight.dtype)  # a frozen base may be in half precision, the adapter is not
        update = self.up_project(self.activation(self.down_project(x)))
        if self.scaling != 1.0:
            update = self.scaling * update
        if self.training:  # when serving one text, even a call that does nothing can be measured
            update = self.dropout(update)
        return update.to(h.dtype)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.update(h)

    def extra_repr(self) -> str:
        return "" if self.scaling == 1.0 else f"scaling={self.scaling}"


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapters to put into a model. Give the width as ``bottleneck_dim`` or as ``reduction_factor`` (d/m).

    Args:
        bottleneck_dim: width m of every adapter.
        reduction_factor: d/m instead of m; then m = int(d // reduction_factor), and at least 1.
        placement: a name in ``placements.PLACEMENTS``: "houlsby" (after attention and after the FFN), "pfeiffer" (after
            the FFN only) or "parallel" (beside the FFN).
        activation: a name in ``ACTIVATIONS``.
        init, init_std, scaling, dropout: as for ``Adapter``.
        layers: numbers of the blocks that get adapters, counted from 0 at the bottom; None for all of them.
        train_layer_norms: train copies of those blocks' LayerNorms as well, as Houlsby et al. do. They are switched and
            removed together with the adapter; the base model's own stay as they are.

    Numbers of NumPy and PyTorch become plain ones, so that a file brings them back equal. Raises ValueError for a
    setting that makes no sense; the message says what is allowed.
    """

    kind: ClassVar[str] = "bottleneck"
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
        guard.check_adapter_config(self, ACTIVATIONS)

    def bottleneck_for(self, model_dim: int) -> int:
        """The width m in a model of width ``model_dim``."""
        return self.bottleneck_dim or max(1, int(model_dim // self.reduction_factor))  # type: ignore[operator]

    def build(self, model_dim: int) -> Adapter:
        """A new adapter with these settings for hidden states of width ``model_dim``."""
        width, activation = self.bottleneck_for(model_dim), ACTIVATIONS[self.activation]()
        more: dict[str, Any] = {key: getattr(self, key) for key in ("init", "init_std", "scaling", "dropout")}
        return Adapter(model_dim, width, activation, **more)


AnyConfig = AdapterConfig | LoRAConfig
# A new kind of module is one entry here: a frozen dataclass with ``kind``, ``placement``, ``layers``,
# ``train_layer_norms`` (see ``check_sites`` in guards/config_guard.py) and ``build(model_dim)``; its fields are saved.
# The module that it builds has ``update(h)``, what it adds to hidden states ``(..., model_dim)``, and ``forward(h)``.
# One for linear layers has ``targets`` for a placement, ``build(in_features, out_features)``, and ``update(x)``.
KINDS: dict[str, Any] = {one.kind: one for one in (AdapterConfig, LoRAConfig)}
