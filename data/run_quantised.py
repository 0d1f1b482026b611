"""QLoRA in small: `python data/run_quantised.py` writes data/results/quantised.json; `make quantised` first.

SmolLM2 with a base in single precision, in bfloat16, in NF4 and in int8, and adapters or LoRA beside it: the memory of
a training step, predicted and measured; its time, all bases in turn in one run; what is learnt of lesson 10's form; and
what merging LoRA costs in each type. Each part has a process of its own, so that a peak is its own. What is in the file
already is not run again; --quick only tries the machinery and writes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson import AdapterConfig, LoRAConfig, load_adapter, prepare, save_adapter, set_active_adapter
from adapters_lesson.architectures import blocks_of
from adapters_lesson.batches import TokenTexts
from adapters_lesson.costs import measure_latency, measure_memory, memory_ledger
from adapters_lesson.course.language.answers import encode_answers, form_share, load_answers, pack
from adapters_lesson.course.language.quantised import nf4_weight, quantise_base, set_nf4
from adapters_lesson.course.language.smollm import AnswerLoss, generate, load_smollm, load_smollm_tokenizer
from adapters_lesson.evaluation import evaluate
from adapters_lesson.guards.quantised_base import bytes_of
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.history import History
from adapters_lesson.memory_tricks import cast_frozen, checkpointed
from adapters_lesson.modes import training_mode
from adapters_lesson.slots import AdapterSlot
from adapters_lesson.training import train

RESULT = Path(__file__).parent / "results" / "quantised.json"
KEPT = Path(__file__).parents[1] / "runs" / "quantised"  # not committed: what was trained, to be merged later
QUICK = ("memory/nf4/adapter", "training/nf4/lora/0", "merging/nf4/trained on nf4")  # the last needs the second
PACKAGES = ("torch", "transformers", "bitsandbytes", "torchao")
ROW, ROWS_A_STEP = 160, 4
BASES = ("float32", "bfloat16", "nf4", "nf4 double", "int8")
TRAINED = {0: ("float32", "bfloat16", "nf4"), 1: ("float32", "nf4"), 2: ("float32", "nf4")}  # by seed
MERGED = (("float32", "float32"), ("bfloat16", "float32"), ("nf4", "nf4"), ("nf4", "float32"), ("float32", "nf4"))
METHODS: dict[str, tuple[str, Any]] = {
    "adapter": ("adapter", AdapterConfig(32, placement="pfeiffer")),
    "lora": ("lora", LoRAConfig(rank=8, alpha=16.0, targets="all-linear")),
}
SETTINGS = {"steps": 40, "learning_rate": 1e-3, "batch_size": ROWS_A_STEP, "validate_every": 20}  # as in lesson 10


def made(base: str, method: str | None = None, seed: int = 0) -> Any:
    """SmolLM2 with its blocks' weights in ``base``, and what ``method`` trains beside them."""
    model = load_smollm()
    if base in BASES[2:]:
        quantise_base(model, base)
    if method:
        torch.manual_seed(seed)
        prepare(model, *METHODS[method])
    return model


def as_it_computes(base: str, model: nn.Module, stack: ExitStack) -> Any:
    """``model``, its frozen weights in bfloat16 for as long as ``stack`` is open, if ``base`` says so."""
    if base == "bfloat16":
        stack.enter_context(cast_frozen(model, torch.bfloat16))
    return model


def ledgers(base: str, method: str, quick: bool) -> dict[str, Any]:
    """The memory of a step on one row, predicted and measured, as it is and with checkpointing; bytes of the blocks."""
    found: dict[str, Any] = {}
    length = 16 if quick else ROW
    with ExitStack() as stack:
        model = as_it_computes(base, made(base, method), stack)
        frozen = [p for block in blocks_of(model) for p in block.parameters() if not p.requires_grad]
        found["blocks"] = bytes_of(frozen)
        for way, again in (("as it is", False), ("checkpointing", True)):
            predicted = memory_ledger(model, 1, length, checkpointing=again)
            with checkpointed(model) if again else ExitStack():
                measured = measure_memory(model, 1, length)
            found[way] = {
                name: {**vars(ledger), "peak": ledger.peak}
                for name, ledger in (("predicted", predicted), ("measured", measured))
            }
            found[way]["off_in_percent"] = round(100 * (predicted.peak / measured.peak - 1), 3)
    return found


def step_times(quick: bool) -> dict[str, Any]:
    """Seconds of a forward and backward pass on four packed rows, all bases against single precision in one run."""
    rows = pack(encode_answers(load_answers(), load_smollm_tokenizer())["train"], ROW).select(range(ROWS_A_STEP))
    batch, found = TokenTexts(rows).batch(range(1 if quick else ROWS_A_STEP)), {}
    for method in METHODS:
        with ExitStack() as stack:
            calls: dict[str, Callable[[], object]] = {}
            for base in BASES:
                loss = AnswerLoss(as_it_computes(base, made(base, method), stack))
                training_mode(loss)
                calls[base] = partial(one_step, loss, batch)
            table = measure_latency(calls, 5, 1, inference=False)
        found[method] = {
            base: {
                "seconds": round(row.median, 3),
                "interval": [round(x, 3) for x in row.interval],
                "against_float32": [round(x, 3) for x in (row.ratio, *row.ratio_interval)],
            }
            for base, row in table.rows.items()
        }
    return found


def one_step(loss: Any, batch: dict[str, torch.Tensor]) -> None:
    """Forward and backward pass."""
    loss(**batch).loss.backward()


def folder(base: str, method: str, seed: int, quick: bool) -> Path:
    """Where what was trained is kept."""
    return KEPT / ("quick" if quick else "whole") / f"{base} {method} {seed}".replace(" ", "-")


def in_memory(what: str) -> int:
    """Kilobytes of this process, as Linux counts them: resident now (VmRSS), or at the highest point (VmHWM)."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(what))


def learnt(base: str, method: str, seed: int, quick: bool) -> dict[str, Any]:
    """Train as in lesson 10, answer the test questions, and keep what was trained."""
    model, tokenizer = made(base, method, seed), load_smollm_tokenizer()
    task = load_answers()
    data = encode_answers(task, tokenizer)
    rows = {split: pack(data[split], ROW) for split in ("train", "validation")}
    settings: dict[str, Any] = {**SETTINGS, "steps": 2, "validate_every": 2} if quick else SETTINGS
    dtype = torch.bfloat16 if base == "bfloat16" else None
    resident, peak = in_memory("VmRSS"), 0
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the highest point: loading took more than training

    def watch(history: History) -> None:
        nonlocal peak
        peak = peak if history.validation else in_memory("VmHWM")

    history = train(
        AnswerLoss(model), rows["train"], rows["validation"], seed=seed, progress=False, base_dtype=dtype,
        on_step=watch, **settings,
    )  # fmt: skip
    save_adapter(model, folder(base, method, seed, quick))
    with ExitStack() as stack:
        as_it_computes(base, model, stack)
        questions = task["test"]["question"][: 2 if quick else None]
        answers = generate(model, tokenizer, questions, max_tokens=8 if quick else 64)
    return {
        "seed": seed, "trainable": history.trainable, "seconds_a_step": round(history.seconds / history.steps, 2),
        "resident_gb": round(resident / 1e6, 3), "peak_gb": round(peak / 1e6, 3),
        "loss": [round(value, 4) for value in history.loss], "validation": history.validation,
        "form": form_share(answers), "answers": answers,
    }  # fmt: skip


# --- Merging ----------------------------------------------------------------------------------------------------------


def layers_with(model: nn.Module) -> Iterator[tuple[Any, torch.Tensor]]:
    """Every linear layer beside which LoRA stands, and what LoRA adds to its weight: shape ``(out, in)``."""
    for host in model.modules():
        for slot in host.children():
            if isinstance(slot, AdapterSlot):
                module: Any = slot["default"]
                yield host, module.delta().detach().double()


def merged(base: str, trained_on: str, quick: bool) -> dict[str, Any]:
    """What is lost when the LoRA that was trained on ``trained_on`` is merged into weights in ``base``.

    Weights against exact sums in double precision, as a share of what LoRA adds; logits and answers against those of
    the same base with LoRA beside it. The LoRA is that of seed 0.
    """
    model, tokenizer = made("nf4" if base == "nf4" else "float32"), load_smollm_tokenizer()
    if base == "bfloat16":  # only the weights: the frequencies of the positions would suffer
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()
    load_adapter(model, folder(trained_on, "lora", 0, quick))
    task = load_answers()
    rows = pack(encode_answers(task["test"], tokenizer), ROW).select(range(2 if quick else 12))
    questions = task["test"]["question"][: 2 if quick else None]

    def look() -> tuple[torch.Tensor, dict[str, Any]]:
        logits = torch.cat([model(torch.tensor([row])).logits[0].float() for row in rows["input_ids"]])
        answers = generate(model, tokenizer, questions, max_tokens=8 if quick else 64)
        return logits, {"answers": answers, "form": form_share(answers), **evaluate(AnswerLoss(model), rows)}

    with torch.inference_mode():
        before, beside = look()
    off = added = codes = 0.0
    worst, count = 0.0, 0
    for linear, delta in layers_with(model):
        weight = nf4_weight(linear) if base == "nf4" else linear.weight.detach()
        wanted = weight.double() + delta
        if base == "nf4":
            packed = linear.weight.data.clone()
            set_nf4(linear, wanted.float())
            got = nf4_weight(linear)
            codes += float(
                ((packed ^ linear.weight.data) & 15 != 0).sum() + ((packed ^ linear.weight.data) >> 4 != 0).sum()
            )
        else:
            linear.weight.data = got = wanted.to(weight.dtype)
        off, added = off + float((got.double() - wanted).square().sum()), added + float(delta.square().sum())
        worst, count = max(worst, float((got.double() - wanted).abs().max())), count + delta.numel()
    set_active_adapter(model, None)
    with torch.inference_mode():
        after, within = look()
    same = [a == b for a, b in zip(beside["answers"], within["answers"], strict=True)]
    return {
        "lost_share_of_what_lora_adds": (off / added) ** 0.5, "largest_error_of_a_weight": worst,
        "largest_error_of_a_logit": float((after - before).abs().max()),
        "mean_error_of_a_logit": float((after - before).abs().mean()),
        "same_next_token": float((after.argmax(-1) == before.argmax(-1)).float().mean()),
        "same_answers": sum(same) / len(same), "codes_that_changed": codes / count,
        "beside": beside, "within": within,
    }  # fmt: skip


# --- All of it --------------------------------------------------------------------------------------------------------


def parts() -> dict[str, Callable[[bool], dict[str, Any]]]:
    """What there is to run, by a name that is unique, in order."""
    found: dict[str, Callable[[bool], dict[str, Any]]] = {}
    for method in METHODS:
        found |= {f"memory/{base}/{method}": partial(ledgers, base, method) for base in BASES}
    for seed, bases in TRAINED.items():
        for base in bases:
            for method in METHODS if seed == 0 else ("lora",):
                found[f"training/{base}/{method}/{seed}"] = partial(learnt, base, method, seed)
        if seed == 0:  # what is merged is that of seed 0
            for base, on in MERGED:
                found[f"merging/{base}/trained on {on}"] = partial(merged, base, on)
    return found | {"speed": step_times}


def main(quick: bool, one: str | None) -> None:
    """Run what is missing, each part in a process of its own, writing the file after every part."""
    if one:
        print(json.dumps(parts()[one](quick)))
        return
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() and not quick else {"parts": {}}
    header = {
        "command": "python data/run_quantised.py",
        "versions": {name: version(name).partition("+")[0] for name in PACKAGES},
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(), "row": ROW, "rows_a_step": ROWS_A_STEP,
        "settings": SETTINGS, "methods": {name: repr(config) for name, (_, config) in METHODS.items()},
    }  # fmt: skip
    for name in parts():
        if name in results["parts"] or (quick and name not in QUICK):
            continue
        command = [sys.executable, __file__, "--part", name, *(["--quick"] if quick else [])]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results["parts"][name] = json.loads(run.stdout.splitlines()[-1])
        print(name, str(results["parts"][name])[:300], flush=True)
        if not quick:
            text = json.dumps({**header, **results}, indent=1) + "\n"
            write_atomically(RESULT, partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main("--quick" in arguments, arguments[arguments.index("--part") + 1] if "--part" in arguments else None)
