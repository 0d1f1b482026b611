"""What people ask of LoRA, for lesson 11: `python data/run_lora.py [study …]` writes data/results/lora.json.

The studies are on the aspect task of lesson 05 (three blocks of MiniLM, 188 steps):

- targets: which linear layers, with as many parameters in all;
- scaling: rank × scaling (alpha / r, alpha / √r, the same for all), each with its own best rate;
- amount: rank × number of training texts, at the same number of steps;
- four_bit: trained on a base of four bits, then merged, and quantised again;
- relatives: (IA)³, DoRA, prompt and prefix tuning by the library peft, on the same three blocks as a BertModel;
- nf4: the quantiser of exercise 11.4 beside that of bitsandbytes, where that is installed.

Rates are chosen on the validation split as in run_experiments.py. A run that is already in the file is not run again,
so the command can be interrupted and repeated. `--quick` tries every study on a few texts, into a temporary file.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rates import chosen_rate  # type: ignore[import-not-found]
from run_experiments import MIDDLE, RESULTS, in_tens, read  # type: ignore[import-not-found]
from torch import nn

from adapters_lesson import (
    Classifier,
    LoRAConfig,
    SmallTransformer,
    encode,
    evaluate,
    load_minilm,
    load_task,
    load_tokenizer,
    predict,
    prepare,
    train,
)
from adapters_lesson.guards.safe_files import write_atomically

LAYERS, STEPS, FEW, MANY = 3, 188, (0, 1, 2), (0, 1, 2, 3, 4)
# The sixteen levels of NF4 (Dettmers et al. 2023, appendix E).
NF4 = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip


class Row(NamedTuple):
    """What is trained, on how many texts, with which rates and seeds; ``model`` prepares it, by its name below."""

    model: str
    settings: dict[str, Any]
    rates: tuple[float, ...] = MIDDLE
    seeds: tuple[int, ...] = MANY
    texts: int = 1500
    rate_of: str = ""  # another row, whose rate it takes
    reuse: str = ""  # the file that has its first runs, of a row "LoRA r=8", with the same numbers by the library peft


def lora(targets: str, rank: int, alpha: float = 16.0, rslora: bool = False, **more: Any) -> Row:
    """A row of LoRA."""
    return Row("lora", {"targets": targets, "rank": rank, "alpha": alpha, "use_rslora": rslora}, **more)


ATTENTION, ALL = "attention", "all-linear"
SCALINGS: dict[str, Callable[[int], dict[str, Any]]] = {  # all are 2 at r = 8
    "alpha / r": lambda rank: {"alpha": 16.0},
    "alpha / √r": lambda rank: {"alpha": 2 * 8**0.5, "rslora": True},
    "the same": lambda rank: {"alpha": 2.0 * rank},
}
RANKS = (1, 8, 64)
STUDIES: dict[str, dict[str, Row]] = {
    "targets": {
        "query and value, r=18": lora("query_value", 18),
        "all attention, r=9": lora(ATTENTION, 9),
        "all linear, r=4": lora(ALL, 4),
    },
    "scaling": {
        f"{name}, r={rank}": lora(
            "query_value",
            rank,
            **scaled(rank),
            seeds=FEW if name == "alpha / r" else FEW[:1],
            reuse="learning_rate" if rank == 8 else "",
        )
        for name, scaled in SCALINGS.items()
        for rank in (8, 1, 64)
        if rank != 8 or name == "alpha / r"
    },
    "four_bit": {"all linear, r=4": Row("four_bit", {"targets": ALL, "rank": 4}, (3e-3,), FEW)},
    "amount": {
        f"r={rank}, {texts} texts": lora(
            "query_value", rank, seeds=FEW, texts=texts, rate_of=f"scaling/alpha / r, r={rank}"
        )
        for texts in (200, 600)
        for rank in RANKS
    },
    "relatives": {
        "(IA)³": Row("ia3", {}, seeds=FEW),
        "DoRA, r=8": Row("dora", {}, seeds=FEW),
        "prompt, 20 tokens": Row("prompt", {}, seeds=FEW),
        "prefix, 20 tokens": Row("prefix", {}, seeds=FEW),
    },
}


def quantised(weight: torch.Tensor, levels: torch.Tensor = NF4) -> torch.Tensor:
    """The weight as four bits tell it: each block of 64 is a scale, and a level for each number."""
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    return (levels[(blocks / scales)[..., None].sub(levels).abs().argmin(-1)] * scales).reshape(weight.shape)


def linear_layers(model: Classifier) -> list[nn.Linear]:
    """The linear layers of the blocks, from the bottom up."""
    blocks = model.base_model.blocks
    return [m for block in blocks for m in block.modules() if type(m) is nn.Linear and m.weight.numel() > 10_000]


class PeftClassifier(nn.Module):
    """A model of peft and a linear head on the mean over the words' hidden states, without virtual tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.head = model, nn.Linear(model.config.hidden_size, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        words = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden[:, -input_ids.shape[1] :] * words).sum(1) / words.sum(1))


def relative(kind: str) -> PeftClassifier:
    """Three blocks of MiniLM as transformers' BertModel, prepared by peft."""
    import peft

    base, last = load_minilm(), r".*layer\.\d\.output\.dense"
    base.encoder.layer, base.config.num_hidden_layers = base.encoder.layer[:LAYERS], LAYERS
    about = {"task_type": "FEATURE_EXTRACTION"}
    config = {
        "ia3": lambda: peft.IA3Config(target_modules=rf".*self\.(key|value)|{last}", feedforward_modules=last, **about),
        "dora": lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], use_dora=True, **about),
        "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=20, **about),
        "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=20, **about),
    }[kind]()
    return PeftClassifier(peft.get_peft_model(base, config))


def build(row: Row) -> nn.Module:
    """A fresh model, in which what the row trains requires a gradient."""
    if row.model in ("ia3", "dora", "prompt", "prefix"):
        return relative(row.model)
    model = Classifier(SmallTransformer.from_minilm(LAYERS), num_labels=2)
    if row.model == "four_bit":
        for layer in linear_layers(model):
            layer.weight.data = quantised(layer.weight.data)
    prepare(model, "lora", LoRAConfig(**row.settings))
    return model


def one_run(row: Row, data: Any, rate: float, seed: int, quick: bool) -> dict[str, Any]:
    """Train and test once."""
    torch.manual_seed(seed)
    model = build(row)
    length = {"steps": 3 if quick else STEPS}
    texts = data["train"].select(range(64 if quick else row.texts))
    few = {split: data[split].select(range(64)) if quick else data[split] for split in ("validation", "test")}
    history = train(model, texts, few["validation"], learning_rate=rate, seed=seed, progress=False, **length)
    own = [p.numel() for name, p in model.named_parameters() if p.requires_grad and not name.startswith("head")]
    more = merged(model, few["test"]) if row.model == "four_bit" else {}
    return {
        "learning_rate": rate,
        "seed": seed,
        "validation": [round(entry["accuracy"], 4) for entry in history.validation],
        "loss": [round(sum(part) / len(part), 4) for part in in_tens(history.loss)],
        "stopped": history.stopped,
        "test": round(evaluate(model, few["test"])["accuracy"], 4),
        "seconds": round(history.seconds, 1),
        "trainable_without_head": sum(own),
        **more,
    }


def merged(model: Classifier, test: Any) -> dict[str, Any]:
    """Accuracy with the update multiplied into the weights of four bits, in float32 and quantised again."""
    from adapters_lesson.lora import merge

    whole = predict(model, test).argmax(-1)
    labels, found = torch.tensor(test["label"]), {}
    for name, change in {"merged": lambda weight: weight, "again": quantised}.items():
        other = copy.deepcopy(model)
        before = [layer.weight.data.clone() for layer in linear_layers(other)]
        merge(other)
        lost, update = 0.0, 0.0
        for layer, old in zip(linear_layers(other), before, strict=True):
            new = layer.weight.data
            layer.weight.data = change(new)
            lost += (layer.weight.data - new).square().sum().item()
            update += (new - old).square().sum().item()
        said = predict(other, test).argmax(-1)
        found[f"test_{name}"] = round((said == labels).float().mean().item(), 4)
        found[f"differently_{name}"] = int((said != whole).sum())
        found[f"lost_{name}"] = round((lost / update) ** 0.5, 4)
    return found


def beside_bitsandbytes() -> dict[str, Any]:
    """How many weights of the three blocks bitsandbytes quantises to the same number."""
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    numbers, same = 0, 0
    for layer in linear_layers(Classifier(SmallTransformer.from_minilm(LAYERS), num_labels=2)):
        weight = layer.weight.data.contiguous()
        theirs = dequantize_4bit(*quantize_4bit(weight, blocksize=64, quant_type="nf4"))
        numbers += weight.numel()
        same += int(torch.isclose(quantised(weight), theirs, rtol=1e-4, atol=1e-7).sum())
    return {"version": bitsandbytes.__version__, "weights": numbers, "same": same}


def rows_of(only: Iterable[str]) -> Iterator[tuple[str, str, Row]]:
    """Study, label and row, in the order in which they are run."""
    for study, rows in STUDIES.items():
        if not only or study in only:
            yield from ((study, label, row) for label, row in rows.items())


def main(path: Path, only: list[str], quick: bool = False) -> None:
    """Run what is missing, writing the file after every run."""
    header = {
        "command": "python data/run_lora.py",
        "layers": LAYERS,
        "steps": STEPS,
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    if "bitsandbytes" in read(path):
        header["bitsandbytes"] = read(path)["bitsandbytes"]
    elif find_spec("bitsandbytes") and (not only or "nf4" in only):
        header["bitsandbytes"] = beside_bitsandbytes()
    data = encode(load_task("aspect_sentiment"), load_tokenizer())
    found = {study: read(path).get(study, {"rows": {}}) for study in STUDIES}

    def save() -> None:
        made = {study: {k: v for k, v in part["rows"].items() if v["runs"]} for study, part in found.items()}
        text = json.dumps({**header, **{study: {"rows": rows} for study, rows in made.items() if rows}}, indent=1)
        write_atomically(path, lambda temporary: temporary.write_text(text + "\n"))

    save()
    for study, label, row in rows_of(only):
        there = read(RESULTS / f"{row.reuse}.json")["rows"].get("LoRA r=8", {"runs": []})["runs"]
        entry = found[study]["rows"].setdefault(label, {"model": row.model, **row.settings, "runs": there})

        def run(rate: float, seed: int, row: Row = row, entry: dict = entry, said: str = f"{study}, {label}") -> float:
            done = [old for old in entry["runs"] if (old["learning_rate"], old["seed"]) == (rate, seed)]
            if not done:
                done = [one_run(row, data, rate, seed, quick)]
                entry["runs"] += done
                save()
                new = done[0]
                print(f"{said}, {rate:g}, seed {seed}: {100 * new['test']:.2f} %, {new['seconds']} s", flush=True)
            return done[0]["validation"][-1]

        if row.rate_of:
            there, other = row.rate_of.split("/", 1)
            rate = found[there]["rows"][other]["learning_rate"]
        else:
            rate = chosen_rate(run, row.rates[:1] if quick else row.rates, row.seeds)
        entry["learning_rate"] = rate
        for seed in row.seeds[:1] if quick else row.seeds:
            run(rate, seed)
        save()
        tests = [done["test"] for done in entry["runs"] if done["learning_rate"] == rate]
        print(f"{study}, {label}: {rate:g}, test accuracy {tests}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help="single studies; all by default")
    parser.add_argument("--quick", action="store_true", help="a few texts and steps, into a temporary file")
    arguments = parser.parse_args()
    file = Path(tempfile.mkdtemp()) / "lora.json" if arguments.quick else RESULTS / "lora.json"
    main(file, arguments.studies, arguments.quick)
