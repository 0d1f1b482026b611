"""Do the savings change what is learnt? `python data/run_savings.py` writes data/results/savings.json.

Houlsby adapters (m = 16) in four layers of MiniLM, aspect sentiment, 4 epochs, learning rate 3e-3, three seeds; each
variant differs from one above it in a single thing. A run that is already in the file is not run again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    SmallTransformer,
    encode,
    evaluate,
    load_task,
    load_tokenizer,
    prepare,
    train,
)
from adapters_lesson.guards.safe_files import write_atomically

RESULT = Path(__file__).parent / "results" / "savings.json"
UPPER = AdapterConfig(16, layers=(2, 3))
VARIANTS: dict[str, tuple[AdapterConfig, dict[str, Any]]] = {
    "frozen base in evaluation mode": (AdapterConfig(16), {}),
    "its dropout on": (AdapterConfig(16), {"dropout": True}),
    "frozen base in bfloat16": (AdapterConfig(16), {"base_dtype": torch.bfloat16}),
    "adapters in the upper two layers": (UPPER, {}),
    "the same, lower blocks cached": (UPPER, {"cache_frozen": True}),
}


def run(variant: str, data: Any, seed: int) -> dict[str, Any]:
    """Train once; the accuracy is that on the test split, with the base in single precision again."""
    config, options = VARIANTS[variant]
    torch.manual_seed(seed)
    model = Classifier(SmallTransformer.from_minilm(4), 2)
    prepare(model, "adapter", config)
    options = {"epochs": 4, "learning_rate": 3e-3, "seed": seed, "progress": False, **options}
    if options.pop("dropout", False):
        # `train` chooses the modes at the beginning of an epoch: this overrules them from its second step on.
        options["on_step"] = lambda history: model.train()
    history = train(model, data["train"], data["validation"], **options)
    return {
        "seed": seed,
        "test": evaluate(model, data["test"])["accuracy"],
        "loss": [round(value, 5) for value in history.loss],
    }


def save(results: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    text = json.dumps(results) + "\n"
    write_atomically(RESULT, lambda temporary: temporary.write_text(text))


def main() -> None:
    """Run what is missing, writing the file after every run."""
    data = encode(load_task("aspect_sentiment"), load_tokenizer())
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": {}}
    results |= {"command": "python data/run_savings.py", "torch": torch.__version__.partition("+")[0]}
    results |= {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    for seed in (0, 1, 2):
        for variant in VARIANTS:
            runs = results["rows"].setdefault(variant, [])
            if seed not in [done["seed"] for done in runs]:
                runs.append(run(variant, data, seed))
                save(results)
                print(f"{variant}, seed {seed}: {100 * runs[-1]['test']:.1f} %", flush=True)


if __name__ == "__main__":
    main()
