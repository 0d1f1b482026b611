"""Time of training with adapters against full fine-tuning: `python tests/benchmarks/training_time.py`.

The same batches for both, taking turns within one run, since a machine's speed drifts. Target: a ratio of at most 0.5.
"""

import statistics

import torch

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

ROUNDS, EXAMPLES = 5, 640


def main() -> None:
    data = encode(load_task("aspect_sentiment"), load_tokenizer())["train"].select(range(EXAMPLES))
    models = {}
    for method, rate in (("full", 1e-4), ("adapter", 3e-3)):
        torch.manual_seed(0)
        models[method] = (Classifier(SmallTransformer.from_minilm(4), 2), rate)
        prepare(models[method][0], method, AdapterConfig(16) if method == "adapter" else None)
    seconds: dict[str, list[float]] = {"full": [], "adapter": []}
    for round_ in range(ROUNDS + 1):
        for method, (model, rate) in models.items():
            history = train(model, data, epochs=1, learning_rate=rate, seed=round_, progress=False)
            if round_:  # the first round warms up
                seconds[method].append(history.seconds / history.steps)
    ratios = [a / b for a, b in zip(seconds["adapter"], seconds["full"], strict=True)]
    for method, values in seconds.items():
        print(f"{method:8} {1000 * statistics.median(values):6.1f} ms a step")
    print(f"adapter / full: {statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})", end=", ")
    print(f"{torch.get_num_threads()} threads, batch 32, 4 layers, m = 16, {ROUNDS} rounds")


if __name__ == "__main__":
    main()
