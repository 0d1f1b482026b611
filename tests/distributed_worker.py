"""One of the processes of test_distributed: runs the cases named on the command line, and writes what came out.

With the variables that accelerate's launcher sets, the processes share each run. Without them there is one.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
from models import Columns, make, small, toy_data
from torch import nn

from adapters_lesson import AdapterConfig, Classifier, evaluate, prepare, train
from adapters_lesson.runs.distributed import counted_traffic, make_accelerator

TRAIN, VALIDATION = toy_data(43, seed=0), toy_data(21, seed=1)  # odd, so that the parts are uneven
RUN = {"steps": 10, "validate_every": 5, "batch_size": 8, "learning_rate": 3e-3, "progress": False}


class Rows(Columns):
    def __len__(self):
        return len(self["input_ids"])


def answers():
    """A label for each token of a text's second half: 1 to 11 of them in a row."""
    ids = [text + [5] for text in TRAIN["input_ids"]]
    return Rows(input_ids=ids, labels=[[-100] * (len(t) // 2) + t[len(t) // 2 :] for t in ids])


def classifier(method="adapter", config=None, rank=0):
    torch.manual_seed(rank)  # every process begins with other weights
    model = Classifier(small(dropout=0.0), 2)  # masks would differ, and with them the results
    prepare(model, method, (config or AdapterConfig(4, init="houlsby")) if method == "adapter" else None)
    return model


def llama(rank):
    model = make("llama_head", seed=rank)
    prepare(model, "adapter", AdapterConfig(4, init="houlsby"), head=False)
    return model


class Lopsided(nn.Module):
    """A linear model whose loss goes astray for one text only, the longest: so in one process only."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, input_ids, attention_mask):
        logits = self.head(input_ids.float().mean(1, keepdim=True) / 40)
        return logits * torch.where(attention_mask.sum(1) == 12, torch.nan, 1.0)[:, None]


def killed_and_resumed(model, accelerator, folder):
    """Ends with an error after step 7, then goes on from the checkpoint of step 6."""

    def end(history):
        if history.steps == 7:
            raise RuntimeError("killed")

    run = RUN | {"checkpoint": folder / "run.pt", "checkpoint_every": 6}
    rank = 0 if accelerator is None else accelerator.process_index
    config = AdapterConfig(4, dropout=0.2)
    with contextlib.suppress(RuntimeError):
        train(classifier(config=config, rank=rank), TRAIN, VALIDATION, accelerator=accelerator, on_step=end, **run)
    steps = []
    history = train(model, TRAIN, VALIDATION, accelerator=accelerator, on_step=lambda h: steps.append(h.steps), **run)
    assert steps == [7, 8, 9, 10], steps
    return history


def interrupt(where, rank):
    def on_step(history):
        if rank == 1 and history.steps == 4:
            if where == "on_step":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)

    return on_step


def run(case, accelerator, folder):
    """The model after the case, and its history."""
    rank = 0 if accelerator is None else accelerator.process_index
    model, data, validation, settings = None, TRAIN, VALIDATION, dict(RUN)
    if case in ("full", "lora", "head", "layer_norm"):
        model = classifier(case, rank=rank)
    elif case == "one row":
        settings["batch_size"] = 1
    elif case == "tokens":
        model, data, validation = llama(rank), answers(), answers()
    elif case == "patience":
        settings |= {"steps": 60, "patience": 2, "validate_every": 3, "learning_rate": 0.1}
    elif case in ("dropout", "resumed"):
        model = classifier(config=AdapterConfig(4, dropout=0.2), rank=rank)
    elif case == "astray":
        model, settings["steps"] = Lopsided(), 6
        data = Columns({name: column[:16] for name, column in TRAIN.items()})
    elif case == "cached":
        model, settings["cache_frozen"] = classifier(config=AdapterConfig(4, layers=(2,)), rank=0), True
    elif case.startswith("interrupted"):
        settings["on_step"] = interrupt(case.split()[-1], rank)
    model = model or classifier(rank=rank)
    if case == "resumed":
        return model, killed_and_resumed(model, accelerator, folder)
    return model, train(model, data, validation, accelerator=accelerator, **settings)


def main(folder, *cases):
    torch.set_num_threads(1)
    folder = Path(folder)
    accelerator = make_accelerator(timeout=60) if "WORLD_SIZE" in os.environ else None
    rank, results = 0 if accelerator is None else accelerator.process_index, {}
    for case in cases:
        with counted_traffic() as buckets:
            model, history = run(case, accelerator, folder)
        results[case] = {
            "history": vars(history),
            "buckets": buckets,
            "evaluated": {} if case == "tokens" else evaluate(model, VALIDATION),
            "modes": any(module.training for module in model.modules()),
            "seed": torch.initial_seed(),
            "drawn": torch.rand(()).item(),
        }
        torch.save(model.state_dict(), folder / f"{case} {rank}.pt")
    (folder / f"results {rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
