"""Adapters, from scratch: the helper package of the course.

A task and a pretrained model go in; a method prepares the model; training makes a History; plots draws it.
Names are imported when they are first used, so that ``import adapters_lesson`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Adapter": "adapter",
    "AdapterConfig": "adapter",
    "SmallTransformer": "transformer",
    "SmallTransformerConfig": "transformer",
    "Classifier": "transformer",
    "Architecture": "architectures",
    "insert_adapters": "insertion",
    "remove_adapters": "insertion",
    "set_active_adapter": "insertion",
    "drop_adapters": "insertion",
    "set_trainable": "insertion",
    "freeze": "insertion",
    "prepare": "methods",
    "print_trainable_parameters": "methods",
    "load_minilm": "pretrained",
    "load_tokenizer": "pretrained",
    "load_task": "tasks",
    "encode": "tasks",
    "train": "training",
    "evaluate": "training",
    "predict": "training",
    "History": "history",
    "AdapterBank": "bank",
    "stack_adapters": "composition",
    "average_adapters": "composition",
    "fuse_adapters": "composition",
    "fusion_attention": "composition",
    "save_adapter": "storage",
    "load_adapter": "storage",
    "list_adapters": "storage",
    "rename_adapter": "storage",
    "delete_adapter": "storage",
    "export_adapterhub": "adapterhub",
    "import_adapterhub": "adapterhub",
    "why_not_training": "inspector",
}
__all__ = list(_HOME)

if TYPE_CHECKING:  # type checkers would take the module `train`, which is only to be run, for the function
    from .training import train as train


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(list(globals()) + __all__)
