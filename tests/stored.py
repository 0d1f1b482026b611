"""For the storage tests: adapters to save, files to forge, and everything that a load could leave behind."""

import json

import pytest
import torch
from models import hooks, make, randomise, slots, snapshot
from safetensors.torch import load_file, save

from adapters_lesson import AdapterBank, AdapterConfig, insert_adapters
from adapters_lesson.storage import StorageError, load_adapter
from adapters_lesson.storage_files import CONFIG
from adapters_lesson.storage_format import checksum

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


def tensor_file(path):
    """The safetensors file of the saved adapter in ``path``."""
    (file,) = path.glob("*.safetensors")
    return file


def forge(path, change=lambda content: None, data=None):
    """Change what the two files in ``path`` hold, and make all checksums right again."""
    content = json.loads((path / CONFIG).read_text())
    del content["sha256"]
    if data is not None:
        from hashlib import sha256

        tensor_file(path).unlink()
        digest = sha256(data).hexdigest()
        content["tensors"] |= {"file": f"adapter-{digest[:16]}.safetensors", "sha256": digest, "bytes": len(data)}
        (path / content["tensors"]["file"]).write_bytes(data)
    change(content)
    (path / CONFIG).write_text(json.dumps(content | {"sha256": checksum(content)}))


def forge_tensors(path, change, settings=lambda content: None):
    """Let ``change`` alter the dictionary of tensors in ``path``, and make all checksums right again."""
    tensors = load_file(tensor_file(path))
    change(tensors)
    forge(path, settings, save(tensors))


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
