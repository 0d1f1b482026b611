"""Where the time of one training step with adapters goes: `python tests/benchmarks/profile_step.py [--length 128]`.

PyTorch's profiler over our loop's step on MiniLM (batch 32, one thread), its operations grouped by what they belong to.
The profiler itself costs time, so the shares count here; the seconds are `make bench`'s business.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from contender import BOTTLENECK_DIM, build, inputs
from torch.profiler import ProfilerActivity, profile

from adapters_lesson.data import minilm_folder
from adapters_lesson.history import History
from adapters_lesson.training import train

# The first group with a word that occurs in the operation's name has it.
GROUPS = {
    "attention": ("attention", "softmax", "bmm"),
    "GELU": ("gelu",),
    "LayerNorm": ("layer_norm",),
    "dropout": ("dropout", "bernoulli"),
    "linear layers": ("addmm", "mm", "linear"),
    "optimizer, gradient norm": ("adamw", "foreach", "_norm", "optimizer", "stack", "clamp"),
    "embeddings": ("embedding", "index"),
    "additions": ("add", "mul", "sum"),
    "copies and fills": ("copy", "contiguous", "clone", "fill", "zero", "_to_", "empty"),
}


def group_of(event: Any) -> str:
    """The group of one averaged event; the bottleneck's width among its shapes makes a product an adapter's."""
    name = event.key.lower()
    group = next((group for group, words in GROUPS.items() if any(word in name for word in words)), "the rest")
    widths = {size for shape in event.input_shapes for size in shape if isinstance(size, int)}
    return "adapters" if group in ("linear layers", "GELU", "additions") and BOTTLENECK_DIM in widths else group


def shares(events: Iterable[Any]) -> dict[str, float]:
    """Seconds of each group, the largest first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in events:
        seconds[group_of(event)] += event.self_cpu_time_total / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


class Rows(dict):
    """Columns, as a dataset has them."""

    column_names = ("input_ids", "label")

    def __len__(self) -> int:
        return len(self["label"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", default="ours", help="as in contender.py: ours, ours_dropout, full, lora")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--operations", type=int, default=0, help="list that many single operations as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = build(arguments.contender, str(minilm_folder()))
    ids, mask, labels = inputs(32, arguments.length)
    texts = [row[:n].tolist() for row, n in zip(ids, mask.sum(1), strict=True)]
    data = Rows(input_ids=texts * (arguments.steps + 1), label=labels.tolist() * (arguments.steps + 1))  # one epoch
    profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def on_step(history: History) -> None:
        if history.steps == 1:  # it has warmed up; `train` chose the modes at the beginning of the epoch
            model.train(arguments.contender == "ours_dropout" or model.training)
            profiler.start()
        elif history.steps == arguments.steps + 1:
            profiler.stop()

    train(model, data, steps=arguments.steps + 1, batch_size=32, progress=False, on_step=on_step)
    groups = shares(profiler.key_averages(group_by_input_shape=True))
    total = sum(groups.values())
    what = f"{arguments.contender}, batch 32, length {arguments.length}, one thread"
    print(f"{what}: {total / arguments.steps:.3f} s a step")
    for group, seconds in groups.items():
        print(f"{group:26} {1000 * seconds / arguments.steps:8.1f} ms {100 * seconds / total:5.1f} %")
    if arguments.operations:
        print(profiler.key_averages(group_by_input_shape=True).table("self_cpu_time_total", arguments.operations))


if __name__ == "__main__":
    main()
