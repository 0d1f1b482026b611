"""The microscope without a kernel: `python data/bake_microscope.py` writes data/results/microscope.json.

Lesson 03's run (see run_pushes.py) with seed 0, looked at in every eighth step, and afterwards with each push, row and
column switched off, and with each push alone. The site and the README's moving picture show it.
"""

import json

import torch
from run_pushes import EXAMPLE, RESULT  # type: ignore[import-not-found]

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    SmallTransformer,
    encode,
    load_task,
    load_tokenizer,
    prepare,
    train,
)
from adapters_lesson.course.microscope import Microscope
from adapters_lesson.guards.safe_files import write_atomically


def main() -> None:
    """Train, look, write."""
    torch.manual_seed(0)
    model = Classifier(SmallTransformer.from_minilm(4), 2)
    prepare(model, "adapter", AdapterConfig(16))
    microscope = Microscope(model, load_tokenizer(), EXAMPLE, labels=("negative", "positive"), every=8)
    data = encode(load_task("aspect_sentiment"), load_tokenizer())["train"]
    train(model, data, epochs=4, learning_rate=3e-3, seed=0, progress=False, on_step=microscope.record)
    text = json.dumps(microscope.baked(), ensure_ascii=False, separators=(",", ":")) + "\n"
    write_atomically(
        RESULT.with_name("microscope.json"), lambda temporary: temporary.write_text(text, encoding="utf-8")
    )


if __name__ == "__main__":
    main()
