"""Seconds to build each outline, put adapters into it and count: `python tests/benchmarks/outlines_time.py`.

The import of transformers is not counted.
"""

from __future__ import annotations

import time

import transformers  # noqa: F401  what outline() imports

from adapters_lesson import AdapterConfig, insert_adapters, set_trainable
from adapters_lesson.costs import OUTLINES, count_parameters, outline


def main() -> None:
    outline("minilm")  # transformers loads the classes of a model when they are first asked for
    print(f"{'outline':12}{'parameters':>18}{'trained':>14}{'seconds':>9}")
    for name in OUTLINES:
        start = time.perf_counter()
        model = outline(name)
        insert_adapters(model, AdapterConfig(bottleneck_dim=64))
        set_trainable(model, head=False)
        count = count_parameters(model)
        seconds = time.perf_counter() - start
        print(f"{name:12}{count.total:18,}{count.trainable:14,}{seconds:9.2f}")


if __name__ == "__main__":
    main()
