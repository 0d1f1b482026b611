"""Adapters, from scratch: the helper package of the course.

A task and a pretrained model go in; a method prepares the model; training makes a History; course/ teaches with them.
Names are imported when they are first used, so that ``import adapters_lesson`` costs nothing.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "adapter": "Adapter AdapterConfig",
    "lora": "LoRA LoRAConfig",
    "transformer": "SmallTransformer SmallTransformerConfig Classifier",
    "architectures": "Architecture",
    "insertion": "insert_adapters remove_adapters set_active_adapter drop_adapters set_trainable freeze",
    "methods": "prepare print_trainable_parameters",
    "data": "load_minilm load_tokenizer load_task encode",
    "training": "train evaluate predict",
    "history": "History",
    "bank": "AdapterBank",
    "composition": "stack_adapters average_adapters fuse_adapters fusion_attention",
    "storage": "save_adapter load_adapter list_adapters",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(list(globals()) + __all__)
