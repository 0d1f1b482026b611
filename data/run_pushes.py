"""Is the largest push the one that matters? `python data/run_pushes.py` writes data/results/pushes.json.

Lesson 03's run (Houlsby adapters, m = 16, four layers of MiniLM, aspect sentiment, 4 epochs, learning rate 3e-3) with
three seeds. Of the first 40 test sentences that are judged differently and answered right, every push of every token
is switched off alone. Kept are, for each sentence: whether the answer turns without the largest push, and without any
other; how far the right label's probability falls without the largest; of the push without which it falls farthest, how
far, and its rank by size (0: the largest); and the rank correlation of size and fall. A run that is already in the file
is not run again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr  # type: ignore[import-untyped]

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
from adapters_lesson.course.microscope.lens import Lens
from adapters_lesson.guards.safe_files import write_atomically

RESULT = Path(__file__).parent / "results" / "pushes.json"
SENTENCES = 40
EXAMPLE = "sofa: We found the breakfast wonderful, whereas the sofa was horrible."


def without_each(lens: Lens, ids: list[int], label: int) -> dict[str, Any] | None:
    """What is kept of one sentence; None where it is not answered right."""
    input_ids = torch.tensor([ids])
    mask = torch.ones_like(input_ids)
    seen = lens.look(input_ids, mask)
    if seen.probabilities[0].argmax() != label:
        return None
    push = seen.push[0].flatten()  # (P · T,)
    keep = ~torch.eye(len(push), dtype=torch.bool).view(-1, *seen.push.shape[1:])  # one is off in each variant
    off = lens.look(input_ids, mask, keep).probabilities
    fall, turned = seen.probabilities[0, label] - off[:, label], off.argmax(-1) != label
    largest, worst = int(push.argmax()), int(fall.argmax())
    return {
        "largest_turns": bool(turned[largest]),
        "another_turns": bool(turned.any() if not turned[largest] else turned.sum() > 1),
        "largest_falls": round(fall[largest].item(), 4),
        "farthest_falls": round(fall[worst].item(), 4),
        "rank_of_farthest": int((push > push[worst]).sum()),
        "pushes": len(push),
        "correlation": round(float(spearmanr(push.numpy(), fall.numpy()).statistic), 4),
        "places": [[int(i) // len(ids), int(i) % len(ids)] for i in (largest, worst)],
    }


def run(data: Any, differently: list[int], seed: int) -> dict[str, Any]:
    """Train once, and look."""
    torch.manual_seed(seed)
    model = Classifier(SmallTransformer.from_minilm(4), 2)
    prepare(model, "adapter", AdapterConfig(16))
    train(model, data["train"], data["validation"], epochs=4, learning_rate=3e-3, seed=seed, progress=False)
    lens, kept = Lens(model), list[dict[str, Any]]()
    for row in differently:
        if len(kept) < SENTENCES and (
            found := without_each(lens, data["test"][row]["input_ids"], data["test"][row]["label"])
        ):
            kept.append(found)
    example = without_each(lens, load_tokenizer()(EXAMPLE)["input_ids"], 0)
    return {"seed": seed, "test": evaluate(model, data["test"])["accuracy"], "sentences": kept, "example": example}


def save(results: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    text = json.dumps(results) + "\n"
    write_atomically(RESULT, lambda temporary: temporary.write_text(text))


def main() -> None:
    """Run what is missing, writing the file after every run."""
    data = encode(load_task("aspect_sentiment"), load_tokenizer())
    differently = [row for row, label in enumerate(load_task("aspect_agreement")["test"]["label"]) if label == 0]
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {"runs": []}
    results |= {"command": "python data/run_pushes.py", "torch": torch.__version__.partition("+")[0]}
    results |= {"example": EXAMPLE, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    for seed in (0, 1, 2):
        if seed not in [done["seed"] for done in results["runs"]]:
            results["runs"].append(run(data, differently, seed))
            save(results)
            print(f"seed {seed}: {len(results['runs'][-1]['sentences'])} sentences", flush=True)


if __name__ == "__main__":
    main()
