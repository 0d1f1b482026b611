"""One batch for many LoRAs, and writing token by token: `python data/run_serving.py` writes data/results/serving.json.

- many: 32 film reviews through MiniLM, served by 1 to 32 LoRAs (r = 8 on query and value): peft's `adapter_names`, this
  course's bank, and the idea of S-LoRA (Sheng et al. 2023, section 4.1) in plain torch, two batched products with the
  matrices of each row. All ways against MiniLM without LoRA, in one run, for each number of LoRAs.
- writing: SmolLM2 reads a prompt and then writes with a cache of keys and values: bare, with LoRA beside it or merged,
  with bottleneck adapters. All against the bare model in one run.

`--quick` only tries the machinery and writes nothing. Let nothing else run meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters_lesson import (
    AdapterBank,
    AdapterConfig,
    LoRAConfig,
    encode,
    insert_adapters,
    load_minilm,
    load_task,
    lora,
)
from adapters_lesson.batches import Texts
from adapters_lesson.costs import measure_latency
from adapters_lesson.course.language.smollm import load_smollm, load_smollm_tokenizer
from adapters_lesson.data import load_tokenizer
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.slots import slots_of

RESULT = Path(__file__).parent / "results" / "serving.json"
QUICK = "--quick" in sys.argv[1:]
ROWS, RANK, ALPHA = 32, 8, 16.0
COUNTS = (1, 4) if QUICK else (1, 2, 4, 8, 16, 32)
REPETITIONS = 5 if QUICK else 20
PROMPT, WRITTEN = (16, 2) if QUICK else (160, 32)


class ManyLoRAs(nn.Module):
    """A frozen linear layer and the LoRAs of all tasks, each row of the batch with its own."""

    def __init__(self, linear: nn.Linear, members: list[Any], task: Tensor) -> None:
        super().__init__()
        self.linear, self.task = linear, task  # task: (rows,), the number of each row's LoRA
        self.A = torch.stack([one.lora_A.weight.detach() for one in members])  # (tasks, r, in)
        self.B = torch.stack([one.scaling * one.lora_B.weight.detach() for one in members])  # (tasks, out, r)

    def forward(self, x: Tensor) -> Tensor:
        down = x @ self.A[self.task].transpose(1, 2)  # (rows, tokens, in) @ (rows, in, r)
        return torch.baddbmm(self.linear(x), down, self.B[self.task].transpose(1, 2))


def of_minilm(row: Tensor, mask: Tensor, model: Any, **more: Any) -> Tensor:
    """Hidden states (rows, tokens, d)."""
    return model(input_ids=row, attention_mask=mask, **more).last_hidden_state


def many(count: int) -> dict[str, Any]:
    """The ways to serve ``count`` LoRAs in one batch, against MiniLM alone."""
    import peft

    reviews = encode(load_task("film_reviews")["test"].select(range(ROWS)), load_tokenizer())
    ids, mask, _ = Texts(reviews).batch(list(range(ROWS)))
    names = [f"task{n}" for n in range(count)]
    task = torch.arange(ROWS) * count // ROWS  # as many rows for each
    bank = AdapterBank(load_minilm())
    for name in names:
        bank.add(name, LoRAConfig(RANK, ALPHA), 2)
    for n, slot in enumerate(slots_of(bank)):
        for k, name in enumerate(names):
            nn.init.normal_(slot[name].lora_B.weight, std=0.05, generator=torch.Generator().manual_seed(100 * n + k))
    bank.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that peft uses is deprecated in transformers
        theirs = peft.get_peft_model(
            load_minilm(), peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=["query", "value"]), names[0]
        )
        for name in names[1:]:
            theirs.add_adapter(name, peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=["query", "value"]))
    theirs.eval()
    stacked = load_minilm()
    hosts = [
        (path, module)
        for path, module in bank.base_model.named_modules()
        if isinstance(module, nn.Linear) and slots_of(module)
    ]
    for path, host in hosts:
        (slot,) = slots_of(host)
        inner = theirs.get_base_model().get_submodule(path)
        for name in names:
            for part in ("lora_A", "lora_B"):
                getattr(inner, part)[name].load_state_dict(getattr(slot[name], part).state_dict())
        above, _, last = path.rpartition(".")
        own = stacked.get_submodule(path)
        setattr(stacked.get_submodule(above), last, ManyLoRAs(own, [slot[name] for name in names], task))
    asked = [names[k] for k in task]
    ways: dict[str, Callable[[], Tensor]] = {
        "without LoRA": partial(of_minilm, ids, mask, load_minilm().eval()),
        "peft, adapter_names": partial(of_minilm, ids, mask, theirs, adapter_names=asked),
        "ours, mixed batch": lambda: bank.features(ids, mask, asked),
        "batched products": partial(of_minilm, ids, mask, stacked.eval()),
    }
    with torch.inference_mode():
        found = [call() for call in list(ways.values())[1:]]
        real = mask.bool()
        theirs_as_features = (found[0] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    apart = [(found[0] - found[2])[real].abs().max().item(), (theirs_as_features - found[1]).abs().max().item()]
    assert max(apart) < 1e-4, f"the ways do not compute the same: {apart}"
    return {"tokens": int(ids.shape[1]), "apart": apart, **timed(ways)}


def timed(ways: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
    """Medians in milliseconds, and ratios to the first with their intervals."""
    table = measure_latency(ways, REPETITIONS, 2)
    return {
        name: {"ms": round(1000 * row.median, 2), "ratio": [round(x, 3) for x in (row.ratio, *row.ratio_interval)]}
        for name, row in table.rows.items()
    }


def pushed(model: Any, config: Any) -> Any:
    """The model with modules that change what it computes."""
    insert_adapters(model, config)
    for slot in slots_of(model):
        last = slot["default"].up_project if hasattr(slot["default"], "up_project") else slot["default"].lora_B
        nn.init.normal_(last.weight, std=0.01)
    return model.eval()


@torch.inference_mode()
def read_prompt(model: Any, ids: Tensor) -> Any:
    """The cache after the prompt; the logits of its last token only."""
    return model(ids, use_cache=True, logits_to_keep=1).past_key_values


@torch.inference_mode()
def write(model: Any, cache: Any, token: Tensor) -> None:
    """So many tokens, one after the other; then the cache is cut to what it was."""
    for _ in range(WRITTEN):
        logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
    cache.crop(-WRITTEN)


def writing() -> dict[str, Any]:
    """Prefill and decoding of the bare model, and of what may stand beside its weights."""
    merged = pushed(load_smollm(), LoRAConfig(RANK, ALPHA, targets="all-linear"))
    lora.merge(merged)
    models = {
        "bare": load_smollm(),
        "LoRA beside, all linear": pushed(load_smollm(), LoRAConfig(RANK, ALPHA, targets="all-linear")),
        "LoRA merged": merged,
        "Pfeiffer's adapters, m = 32": pushed(load_smollm(), AdapterConfig(32, placement="pfeiffer")),
        "Houlsby's adapters, m = 32": pushed(load_smollm(), AdapterConfig(32)),
    }
    text = "The harbour master wrote a letter to the sea. " * 40
    ids = load_smollm_tokenizer()(text, return_tensors="pt")["input_ids"][:, :PROMPT]
    caches = {name: read_prompt(model, ids) for name, model in models.items()}
    reads: dict[str, Callable[[], object]] = {name: partial(read_prompt, model, ids) for name, model in models.items()}
    writes: dict[str, Callable[[], object]] = {
        name: partial(write, model, caches[name], ids[:, -1:]) for name, model in models.items()
    }
    found: dict[str, Any] = {"prompt": PROMPT, "written": WRITTEN, "read": timed(reads), "write": timed(writes)}
    for part, tokens in (("read", PROMPT), ("write", WRITTEN)):
        for row in found[part].values():
            row["tokens a second"] = round(1000 * tokens / row["ms"], 1)
    return found


def main() -> None:
    """All of it, and the file."""
    results: dict[str, Any] = {
        "command": "python data/run_serving.py",
        "versions": {name: version(name).partition("+")[0] for name in ("torch", "transformers", "peft")},
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}", "rows": ROWS, "rank": RANK,
        "many": {str(count): many(count) for count in COUNTS}, "writing": writing(),
    }  # fmt: skip
    text = json.dumps(results, indent=1) + "\n"
    print(text)
    if not QUICK:
        write_atomically(RESULT, partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    main()
