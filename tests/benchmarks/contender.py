"""One contender of the benchmark, in a process of its own: `against_peers.py` starts it and tells it what to do.

It runs in the course's environment and in the peer's, so it imports only what the contender's own environment has.
Requests and answers are lines of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

BOTTLENECK_DIM, MODEL_DIM, LABELS, LEARNING_RATE, WEIGHT_DECAY = 24, 384, 2, 1e-3, 0.01
OURS = ("bare", "full", "ours", "ours_dropout", "ours_bf16", "lora", "floor", "floor_full")
THEIRS = ("theirs_bare", "theirs", "theirs_no_dropout")

CASTS: list[Any] = []

sys.path.insert(0, str(Path(__file__).parents[2]))  # the head below is the same code for all


def build(name: str, folder: str) -> Any:
    """The contender's model with MiniLM's weights from ``folder``, ready to be trained.

    Raises:
        ValueError: for a name that is none of the contenders'.
    """
    if name not in OURS + THEIRS:
        raise ValueError(f"there is no contender {name!r}: choose one of {', '.join(OURS + THEIRS)}")
    model = build_theirs(name, folder) if name in THEIRS else build_ours(name)
    draw(model)
    return model


def build_ours(name: str) -> Any:
    """The course's models: the bare one, full fine-tuning, adapters in three ways, peft's LoRA."""
    import torch

    from adapters_lesson import AdapterConfig, Classifier, load_minilm, prepare
    from adapters_lesson.memory_tricks import cast_frozen
    from adapters_lesson.modes import training_mode

    model = Classifier(load_minilm(), LABELS)
    if name == "bare":
        return model.requires_grad_(False).eval()
    if name == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]), model.base_model)
        for path, parameter in model.base_model.named_parameters():
            parameter.requires_grad_("lora_" in path)
    elif name == "full":
        prepare(model, "full")
    else:
        prepare(model, "adapter", AdapterConfig(BOTTLENECK_DIM))
    if name == "ours_bf16":
        CASTS.append(cast_frozen(model, torch.bfloat16))  # kept: the cast ends with its context
        CASTS[-1].__enter__()
    if name == "ours_dropout":
        return model.train()
    training_mode(model)
    return model


def build_theirs(name: str, folder: str) -> Any:
    """The same with the library `adapters`: Houlsby's places, the same width and activation."""
    import adapters
    from adapters import DoubleSeqBnConfig
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    from adapters_lesson.transformer import Classifier

    base = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    weights = {k: v for k, v in load_file(Path(folder) / "model.safetensors").items() if not k.startswith("pooler")}
    weights.pop("embeddings.position_ids")
    base.load_state_dict(weights)
    model = Classifier(base, LABELS)
    if name == "theirs_bare":
        return model.requires_grad_(False).eval()
    adapters.init(base)
    # Their width is int(d // reduction_factor): the half keeps it from coming out one too small.
    factor = MODEL_DIM / (BOTTLENECK_DIM + 0.5)
    base.add_adapter("lesson", config=DoubleSeqBnConfig(reduction_factor=factor, non_linearity="gelu"))
    base.train_adapter("lesson")
    return model.train(name == "theirs")


def draw(model: Any) -> None:
    """The same numbers into every contender's head and adapters, whatever they are called."""
    import torch

    generator = torch.Generator().manual_seed(0)
    projections = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and is_adapter(n)]
    with torch.no_grad():
        for module in (model.head, *projections):
            for parameter in module.parameters():
                parameter.normal_(std=0.02, generator=generator)


def is_adapter(name: str) -> bool:
    """Whether a module of that name is a projection of ours or of theirs; both come in the order of the layers."""
    return any(part in name for part in ("down_project", "up_project", "adapter_down", "adapter_up"))


def inputs(batch: int, length: int) -> tuple[Any, Any, Any]:
    """Token ids and mask ``(batch, length)`` and labels ``(batch,)``; texts of three quarters to the full length."""
    import torch

    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(1000, 30000, (batch, length), generator=generator)
    lengths = torch.randint(3 * length // 4, length + 1, (batch,), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length) < lengths[:, None]).long()
    return ids * mask, mask, torch.randint(LABELS, (batch,), generator=generator)


class Contender:
    """A model, its optimizer, and what the driver may ask of them."""

    def __init__(self, name: str, folder: str) -> None:
        import torch

        self.name = name
        self.model = None if name.startswith("floor") else build(name, folder)
        parameters = [] if self.model is None else [p for p in self.model.parameters() if p.requires_grad]
        if parameters:
            self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def step(self, batch: int, length: int) -> float:
        """One training step; the loss before it."""
        import torch.nn.functional as F

        ids, mask, labels = inputs(batch, length)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(ids, mask), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def logits(self, batch: int, length: int) -> Any:
        """The model's answer, without gradients and in evaluation mode."""
        import torch

        ids, mask, _ = inputs(batch, length)
        modules = [m for m in self.model.modules() if m.training]
        self.model.eval()
        with torch.inference_mode():
            answer = self.model(ids, mask)
        for module in modules:
            module.training = True
        return answer

    def turn(self, what: str, batch: int, length: int, threads: int, budget: float) -> float:
        """Mean seconds of one step or forward, repeated until ``budget`` seconds are over, once at least."""
        import torch

        torch.set_num_threads(threads)
        if self.model is None:
            from floor import measure, training_step

            return measure(training_step(batch, length, full=self.name == "floor_full"))
        do = self.step if what == "training step" else self.logits
        times, start = 0, time.perf_counter()
        while times == 0 or time.perf_counter() - start < budget:
            do(batch, length)
            times += 1
        return (time.perf_counter() - start) / times

    def check(self, batch: int, length: int, steps: int) -> dict[str, Any]:
        """Logits at the start and the losses of some steps, for comparison with the other contenders'."""
        answer = {"logits": self.logits(batch, length).flatten().tolist(), "losses": []}
        if hasattr(self, "optimizer"):
            answer["losses"] = [self.step(batch, length) for _ in range(steps)]
        return answer


def mebibytes(field: str) -> float:
    """VmRSS (memory now) or VmHWM (its peak) of this process: Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def fresh(name: str, folder: str, threads: int, lengths: list[int]) -> dict[str, Any]:
    """Seconds from the start of this process to the end of the first step, and the memory that steps take."""
    import torch

    torch.set_num_threads(threads)
    contender = Contender(name, folder)
    # Our weights are mapped and come into memory when they are first read, theirs are copied when the model is loaded:
    # read once, both belong to the loaded model and not to its steps.
    for parameter in contender.model.parameters():
        parameter.detach().sum()
    gc.collect()
    loaded = mebibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew here
    answer: dict[str, Any] = {"peak": {}, "above": {}}
    for length in sorted(lengths):  # the peak only rises
        for _ in range(3):
            contender.step(32, length)
            # CLOCK_MONOTONIC is the same clock in the driver, which takes the time when it starts us.
            answer.setdefault("stepped", time.monotonic())
        answer["peak"][str(length)] = mebibytes("VmHWM")
        answer["above"][str(length)] = mebibytes("VmHWM") - loaded
    return answer


def main() -> None:
    """Answer one request a line until the driver closes the pipe; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, folder, *rest = sys.argv[1:]
    if rest:
        print(json.dumps(fresh(name, folder, **json.loads(rest[0]))), file=answers)
        return
    contender = Contender(name, folder)
    side = ("torch", "transformers", "adapters" if name in THEIRS else "peft")
    print(json.dumps({package: version(package).partition("+")[0] for package in side}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(contender, request.pop("do"))(**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
