"""A learner's library without the course: it adapts MiniLM to the film reviews. Run by ``graduation``, as a script.

    python alone.py TASK.json

TASK.json says where the learner's file and MiniLM are, and what to do with which texts; the outcome goes beside it.
Nothing of ``adapters_lesson`` is imported here, and nothing can be.
"""

import faulthandler
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """BERT's layer under the names that exercise 3.1 knows: ``attention.output`` and ``ffn.contract``."""

    attention: Any
    ffn: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention, self.ffn = nn.Module(), nn.Module()
        self.attention.output, self.ffn.contract = layer.attention.output.dense, layer.output.dense


class Film(nn.Module):
    """MiniLM, the mean over the words, and a head."""

    base_model: Any

    def __init__(self, my: Any, base_model: Any, width: int) -> None:
        super().__init__()
        self.my, self.base_model, self.head = my, base_model, nn.Linear(width, 2)
        self.blocks = nn.ModuleList(map(Block, base_model.encoder.layer))
        self.made: list[nn.Module] = []  # the adapters, in the order in which they come

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.base_model(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.head(self.my.mean_over_words(hidden, attention_mask))  # (texts, 2)


def adapted(my: Any, folder: str, width: int) -> Film:
    """MiniLM with the learner's adapters, which are trained with the head; the rest is frozen."""
    from transformers import AutoModel

    base_model = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()
    model_dim = base_model.config.hidden_size

    model = Film(my, base_model, model_dim)

    def make_adapter() -> nn.Module:
        adapter = my.Adapter(model_dim, width)
        my.start_as_identity(adapter)
        model.made.append(adapter)
        return adapter

    for block in model.blocks:
        my.insert_into_block(block, make_adapter)
    my.train_only_adapters(model)
    return model


def batches(tokenizer: Any, texts: Any, size: int) -> Any:
    """Batches of token ids, mask and labels, in the texts' order."""
    for start in range(0, len(texts["text"]), size):
        part = {column: values[start : start + size] for column, values in texts.items()}
        tokens = tokenizer(part["text"], truncation=True, max_length=64, padding=True, return_tensors="pt")
        yield tokens["input_ids"], tokens["attention_mask"], torch.tensor(part["label"])


def learn(model: nn.Module, step: Any, tokenizer: Any, task: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Train with an exercise's ``step``, and test; returns the losses and the answers, and the optimiser."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task["learning_rate"])
    train, test = task["texts"]["train"], task["texts"]["test"]
    losses = [step(model, optimizer, batch) for batch in batches(tokenizer, train, task["batch_size"])]
    with torch.no_grad():
        answers = [model(*batch[:2]).argmax(-1) for batch in batches(tokenizer, test, 100)]
    return {"losses": losses, "answers": torch.cat(answers).tolist()}, optimizer


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Train and test; returns the outcome."""
    from transformers import AutoTokenizer

    sys.path.insert(0, str(Path(task["mine"]).parent))
    my = importlib.import_module("adapters")
    torch.manual_seed(task["seed"])
    tokenizer = AutoTokenizer.from_pretrained(task["minilm"], local_files_only=True)
    model = adapted(my, task["minilm"], task["width"])
    trained = [p for p in model.parameters() if p.requires_grad]
    start = {"adapters": [adapter.state_dict() for adapter in model.made], "head": model.head.state_dict()}
    torch.save(start, task["start"])  # the course begins its own run there
    kept = kept_bytes(model, next(batches(tokenizer, task["texts"]["train"], task["batch_size"])))
    learnt, optimizer = learn(model, my.training_step, tokenizer, task)
    state = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    standing = [*model.parameters(), *(p.grad for p in trained if p.grad is not None), *state]
    total, count = (sum(p.numel() for p in group) for group in (model.parameters(), trained))
    texts_, length, model_dim = kept["shape"]
    one = my.adapter_activations(texts_, length, model_dim, task["width"])
    return {
        **learnt,
        "trained": count,
        "total": total,
        "formula": 2 * len(model.blocks) * my.count_parameters(model_dim, task["width"]) + 2 * model_dim + 2,
        "standing": [my.standing_bytes(total, count, 4), sum(t.numel() * t.element_size() for t in standing)],
        "activations": [len(model.blocks) * one, kept["bytes"]],
    }


def kept_bytes(model: Film, batch: tuple) -> dict[str, Any]:
    """The bytes that autograd keeps between forward and backward pass, and the hidden states' shape."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.no_grad():
        hidden = model.base_model.embeddings(batch[0])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(*batch[:2]).sum()
    del loss
    return {"shape": list(hidden.shape), "bytes": sum(kept.values())}


if __name__ == "__main__":
    sys.modules["adapters_lesson"] = None  # type: ignore[assignment]  # importing it fails from here on
    task_file = Path(sys.argv[1])
    given = json.loads(task_file.read_text(encoding="utf-8"))
    faulthandler.dump_traceback_later(given["seconds"], exit=True)  # it says where this process is
    outcome = main(given)
    task_file.with_name("outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
