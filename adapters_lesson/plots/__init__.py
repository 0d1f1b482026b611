"""The course's figures: each function takes plain data or a live model and returns a matplotlib ``Figure``."""

from .comparisons import (
    ablation_map,
    before_and_after,
    curves_over_seeds,
    mean_and_interval,
    pareto,
    pareto_front,
    sensitivity,
)
from .costs import memory_against_length, parameter_bars
from .curves import (
    accuracy_against_parameters,
    attention_maps,
    distance_from_identity,
    layer_probes,
    learning_curves,
    update_spectrum,
)
from .diagrams import adapter_diagram, course_map, wiring, wiring_of
from .fusion import fusion_figure
from .latency import adapter_drop, overhead_by_size
from .style import Picture, show, use_course_style

__all__ = [
    "Picture",
    "ablation_map",
    "accuracy_against_parameters",
    "adapter_diagram",
    "adapter_drop",
    "attention_maps",
    "before_and_after",
    "course_map",
    "curves_over_seeds",
    "distance_from_identity",
    "fusion_figure",
    "layer_probes",
    "learning_curves",
    "mean_and_interval",
    "memory_against_length",
    "overhead_by_size",
    "parameter_bars",
    "pareto",
    "pareto_front",
    "sensitivity",
    "show",
    "update_spectrum",
    "use_course_style",
    "wiring",
    "wiring_of",
]
