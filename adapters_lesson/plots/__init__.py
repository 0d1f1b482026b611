"""The course's figures: each function takes plain data or a live model and returns a matplotlib ``Figure``."""

from .curves import (
    accuracy_against_parameters,
    attention_maps,
    distance_from_identity,
    layer_probes,
    learning_curves,
    update_spectrum,
)
from .diagrams import adapter_diagram, course_map, wiring, wiring_of
from .style import Picture, show, use_course_style

__all__ = [
    "Picture",
    "accuracy_against_parameters",
    "adapter_diagram",
    "attention_maps",
    "course_map",
    "distance_from_identity",
    "layer_probes",
    "learning_curves",
    "show",
    "update_spectrum",
    "use_course_style",
    "wiring",
    "wiring_of",
]
