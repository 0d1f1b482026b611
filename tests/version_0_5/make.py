"""Adapters in the two files that version 0.5.0 wrote for each: ``PYTHONPATH=a/checkout/of/0.5.0 python make.py``.

Every weight is a small fraction of a power of two, so that base models and fingerprints are the same everywhere.
"""

import json
from pathlib import Path

import torch

from adapters_lesson import AdapterBank, AdapterConfig, SmallTransformer, SmallTransformerConfig

HERE = Path(__file__).parent
IDS = torch.tensor([[1, 4, 2, 7], [3, 9, 0, 0]])
INPUTS = {"input_ids": IDS, "attention_mask": (IDS > 0).long()}
NORMS = {"train_layer_norms": True, "layers": (1,), "scaling": 1.5}
TASKS = {
    "post": {
        "houlsby": AdapterConfig(1, **NORMS),
        "pfeiffer": AdapterConfig(reduction_factor=4, placement="pfeiffer", activation="relu", **NORMS),
        "parallel": AdapterConfig(1, placement="parallel", dropout=0.1, init="bert", init_std=0.1, **NORMS),
        "one": AdapterConfig(1, placement="pfeiffer"),
        "two": AdapterConfig(2, placement="pfeiffer", scaling=2.0),
    },
    "pre": {"pfeiffer": AdapterConfig(1, placement="pfeiffer", **NORMS)},
}


def fill(module, first):
    """Give all parameters values that no two modules share."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            values = (torch.arange(parameter.numel()) * 37 + 11 * i + 7 * first) % 101 - 50
            parameter.copy_((values / 64).view_as(parameter))


def bank_of(norm):
    """A bank without tasks on a tiny model."""
    sizes = {"hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 4}
    base = SmallTransformer(SmallTransformerConfig(vocab_size=10, max_position_embeddings=4, norm=norm, **sizes))
    fill(base, 0)
    return AdapterBank(base).eval()


def filled_bank(norm):
    """The bank with all tasks, a stack and a fusion among them, each with weights of its own."""
    bank = bank_of(norm)
    for name, config in TASKS[norm].items():
        bank.add(name, config, ("no", "yes"))
    if norm == "post":
        bank.stack(["one", "two"], "stacked", 2)
        bank.fuse(["one", "stacked"], "fused", 3)
    for number, name in enumerate(bank.heads, 1):
        fill(bank.heads[name], number)
        for slot in bank._slots:
            if name in slot:
                fill(slot[name], number)
    return bank.eval()


@torch.no_grad()
def answers(bank):
    """What the bank answers with each task on."""
    result = {}
    for name in bank.heads:
        bank.switch(name)
        result[name] = bank(**INPUTS).tolist()
    return result


if __name__ == "__main__":
    from adapters_lesson.storage import save_adapter

    for norm in TASKS:
        bank = filled_bank(norm)
        for name in bank.heads:
            save_adapter(bank, HERE / norm, name)
        (HERE / norm / "answers.json").write_text(json.dumps(answers(bank)) + "\n")
