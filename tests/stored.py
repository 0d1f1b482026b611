"""For the storage tests: adapters to save, files to forge, and everything that a load could leave behind."""

import json

import pytest
import torch
from models import hooks, make, randomise, slots, snapshot
from safetensors import safe_open
from safetensors.torch import save

from adapters_lesson import AdapterBank, AdapterConfig, insert_adapters
from adapters_lesson.guards.stored_file import HEADER, _checksum
from adapters_lesson.storage import StorageError, load_adapter

PLAIN = AdapterConfig(4)
RICH = AdapterConfig(
    reduction_factor=3, placement="pfeiffer", activation="relu", scaling=1.7, layers=(0, 2), train_layer_norms=True
)
LARGE = AdapterConfig(5, placement="parallel", scaling=4.0, dropout=0.1, init="bert", init_std=0.1, layers=[1])


def adapted(kind, config, name="film", seed=0, dtype=torch.float32):
    """A tiny random model with random adapters; those of other seeds differ, its base does not."""
    model = make(kind).to(dtype)
    torch.manual_seed(seed)
    insert_adapters(model, config, name)
    for slot in slots(model):
        randomise(slot, std=0.3)
    return model.eval()


def state(model):
    """Everything that a load could leave behind."""
    return (
        snapshot(model),
        hooks(model),
        [(slot.active, list(slot), dict(slot.configs)) for slot in slots(model)],
        [(name, p.requires_grad) for name, p in model.named_parameters()],
        [(name, module.training) for name, module in model.named_modules()],
        (model.active, dict(model.labels)) if isinstance(model, AdapterBank) else None,
    )


def unpacked(path):
    """What the header of a saved adapter says, and the tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[HEADER]), {key: file.get_tensor(key).clone() for key in sorted(file.keys())}


def forge(path, change=lambda content: None, change_tensors=lambda tensors: None, sign=True):
    """Change what the file holds and, if asked, make its checksum right again."""
    content, tensors = unpacked(path)
    change(content)
    change_tensors(tensors)
    if sign:
        content.pop("sha256", None)
        content["sha256"] = _checksum(content, tensors)
    path.write_bytes(save(tensors, {HEADER: json.dumps(content)}))


def refused(model, folder, message, name="film", error=StorageError, **more):
    """Loading is refused with ``message``, and the model is as it was."""
    before = state(model)
    with pytest.raises(error, match=message):
        load_adapter(model, folder, name, **more)
    assert state(model) == before


def bank_with(base, **tasks):
    """A bank on ``base`` with random adapters and heads: ``name=(config, labels)``."""
    bank = AdapterBank(base)
    for name, (config, labels) in tasks.items():
        bank.add(name, config, labels)
    randomise_tasks(bank)
    return bank.eval()


def randomise_tasks(bank):
    for slot in slots(bank):
        randomise(slot, std=0.3)
    randomise(bank.heads, std=0.5)
