"""The course's figures: each function returns a chart (matplotlib's ``Figure``) or a ``Drawing`` (SVG)."""

from .comparisons import ablation_map, before_and_after, curves_over_seeds, mean_and_interval, pareto, sensitivity
from .curves import (
    accuracy_against_parameters,
    attention_maps,
    distance_from_identity,
    layer_probes,
    learning_curves,
    memory_against_length,
    parameter_bars,
    update_spectrum,
)
from .diagrams import adapter_diagram, course_map, wiring
from .fusion_figure import fusion_figure
from .graduation_figure import graduation_figure
from .picture import Picture, show
