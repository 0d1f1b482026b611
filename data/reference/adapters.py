"""My adapter library, as I wrote it in the course Adapters, from scratch.

Each section answers one exercise. The lessons use it. Edit it as you like: what has changed since its check is checked
again before it is used.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from adapters_lesson import AdapterConfig, Classifier
    from adapters_lesson.course.laboratory.experiments import Settings
    from adapters_lesson.transformer import Block


# --- 0.1 · The share that is trained · the course's own --------------------------------------------------------------
def trained_share(trained: int, total: int) -> float:
    return 100 * trained / total


# --- 1.1 · The forward pass · the course's own -----------------------------------------------------------------------
class MyAdapter(nn.Module):
    def __init__(self, model_dim: int, bottleneck_dim: int):
        super().__init__()
        self.down_project = nn.Linear(model_dim, bottleneck_dim)
        self.activation = nn.GELU()
        self.up_project = nn.Linear(bottleneck_dim, model_dim)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.up_project(self.activation(self.down_project(h)))


Adapter = MyAdapter  # as the other exercises and the lessons call it


# --- 1.2 · Start as the identity · the course's own ------------------------------------------------------------------
def start_as_identity(adapter: Adapter) -> None:
    nn.init.zeros_(adapter.up_project.weight)
    nn.init.zeros_(adapter.up_project.bias)


# --- 1.3 · Count the parameters · the course's own -------------------------------------------------------------------
def count_parameters(model_dim: int, bottleneck_dim: int) -> int:
    return 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim


# --- 1.4 · The widest bottleneck · the course's own ------------------------------------------------------------------
def widest_bottleneck(model_dim: int, adapters: int, budget: int) -> int:
    for_one = budget // adapters
    return max(0, (for_one - model_dim) // (2 * model_dim + 1))


# --- 2.1 · Who looks at whom · the course's own ----------------------------------------------------------------------
def attention_weights(q: torch.Tensor, k: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~words, float("-inf")).softmax(-1)


# --- 2.2 · The parameters of a block · the course's own --------------------------------------------------------------
def block_parameters(model_dim: int, ffn_dim: int) -> int:
    attention = 4 * (model_dim * model_dim + model_dim)
    ffn = model_dim * ffn_dim + ffn_dim + ffn_dim * model_dim + model_dim
    norms = 2 * 2 * model_dim
    return attention + ffn + norms


# --- 2.3 · Mend the block · the course's own -------------------------------------------------------------------------
def mended_block(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    r = x
    h = block.attention(x, mask)
    x = block.attention_norm(h + r)
    r = x
    h = block.ffn(x)
    return block.ffn_norm(h + r)


# --- 2.4 · The mean over the words · the course's own ----------------------------------------------------------------
def mean_over_words(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    words = mask[..., None]
    return (hidden * words).sum(1) / words.sum(1)


# --- 3.1 · Adapters into one block · the course's own ----------------------------------------------------------------
def insert_into_block(block: nn.Module, make_adapter) -> None:
    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = make_adapter()
        projection.register_forward_hook(lambda module, inputs, output: module.adapter(output))


# --- 3.2 · Freeze the base · the course's own ------------------------------------------------------------------------
def train_only_adapters(model: nn.Module) -> None:
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Adapter):
            module.requires_grad_(True)
    model.head.requires_grad_(True)


# --- 3.3 · Nothing has changed · the course's own --------------------------------------------------------------------
def changes_nothing(model, insert, input_ids, attention_mask) -> bool:
    model.eval()
    with torch.no_grad():
        before = model(input_ids, attention_mask)
        insert(model)
        after = model(input_ids, attention_mask)
    return torch.equal(before, after)


# --- 3.4 · A bug hunt · the course's own -----------------------------------------------------------------------------
def is_sound(model: Classifier, insert, batch: tuple) -> bool:
    input_ids, attention_mask, labels = batch
    insert(model)
    nn.functional.cross_entropy(model(input_ids, attention_mask), labels).backward()
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    wanted = {p for module in (*adapters, model.head) for p in module.parameters()}
    trained = {p for p in model.parameters() if p.requires_grad}
    gradients = [adapter.up_project.weight.grad for adapter in adapters]
    return bool(adapters) and trained == wanted and all(g is not None and bool(g.any()) for g in gradients)


# --- 3.9 · The whole model · given by the course ---------------------------------------------------------------------
def insert_adapters(model, config):
    """Adapters behind both sub-layers of every block, which start as the identity."""
    made = []

    def make_adapter():
        made.append(Adapter(model.base_model.config.hidden_size, config.bottleneck_dim))
        start_as_identity(made[-1])
        return made[-1]

    for block in model.base_model.blocks:
        insert_into_block(block, make_adapter)
    return made


def set_trainable(model):
    """The adapters and the head are trained, the rest is frozen."""
    train_only_adapters(model)


# --- 4.1 · A Houlsby BERT · the course's own -------------------------------------------------------------------------
def houlsby_parameters(model_dim: int, bottleneck_dim: int, blocks: int) -> int:
    one_adapter = 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim
    return 2 * blocks * one_adapter


# --- 4.2 · Bytes that stand still · the course's own -----------------------------------------------------------------
def standing_bytes(total: int, trained: int, itemsize: int) -> int:
    weights = total
    gradients = trained
    adam = 2 * trained
    return itemsize * (weights + gradients + adam)


# --- 4.3 · The activations of a block · the course's own -------------------------------------------------------------
def block_activations(batch: int, length: int, d: int) -> int:
    attention = 1 + 3 + 1  # its input; query, key, value; its output
    ffn = 1 + 4 + 4  # its input; GELU's input and output
    layer_norms = 2
    return 4 * (attention + ffn + layer_norms) * batch * length * d


# --- 4.4 · The activations of a frozen block · the course's own ------------------------------------------------------
def adapter_activations(batch: int, length: int, d: int, m: int) -> int:
    frozen_block = 4 + 4 + 2  # query, key, value, attention's output; GELU's input; the LayerNorms' inputs
    adapters = 2  # their inputs
    return 4 * batch * length * ((frozen_block + adapters) * d + 4 * m)


# --- 5.1 · The training step · the course's own ----------------------------------------------------------------------
def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple) -> float:
    input_ids, attention_mask, labels = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(input_ids, attention_mask), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


# --- 5.2 · Mean and interval · the course's own ----------------------------------------------------------------------
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def interval_over_seeds(values: list[float]) -> tuple[float, float]:
    half_width = T95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half_width


mean_and_interval = interval_over_seeds  # as the other exercises and the lessons call it


# --- 5.3 · The old task's accuracy · the course's own ----------------------------------------------------------------
def old_accuracy(model: Classifier, old_head: nn.Linear, batch: tuple) -> float:
    input_ids, attention_mask, labels = batch
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = old_head(model.features(input_ids, attention_mask))
    model.train(was_training)
    return (logits.argmax(-1) == labels).float().mean().item()


# --- 5.4 · Put it in order · the course's own ------------------------------------------------------------------------
def orderly(model: Classifier, config: AdapterConfig, batches: list, learning_rate: float) -> list[float]:
    insert_adapters(model, config)
    set_trainable(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    for input_ids, attention_mask, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(input_ids, attention_mask), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- 6.1 · Predict the time · the course's own -----------------------------------------------------------------------
def predict_seconds(planned: list[Settings], measured: Settings, seconds: float) -> float:
    def work(one: Settings) -> int:
        return one.steps * one.batch_size * one.base_layers

    return seconds * sum(work(one) for one in planned) / work(measured)


# --- 6.2 · Judge the widths · the course's own -----------------------------------------------------------------------
def judge(accuracies: dict[int, dict[int, float]], reference: int, margin: float) -> dict[int, str]:
    verdicts = {}
    for m in accuracies:
        if m != reference:
            lost, half = mean_and_interval([accuracies[reference][s] - accuracies[m][s] for s in accuracies[m]])
            if lost + half < margin:
                verdicts[m] = "as good"
            elif lost - half > margin:
                verdicts[m] = "worse"
            else:
                verdicts[m] = "unclear"
    return verdicts


# --- 6.3 · Equal in size · the course's own --------------------------------------------------------------------------
def fair_comparison(reference: Settings, placements: list[str], seeds: list[int]) -> list[Settings]:
    runs = []
    for placement in placements:
        m = reference.bottleneck_dim if placement == "houlsby" else 2 * reference.bottleneck_dim
        runs += [replace(reference, placement=placement, bottleneck_dim=m, seed=seed) for seed in seeds]
    return runs


# --- 6.4 · Put the sweep in order · the course's own -----------------------------------------------------------------
def orderly_sweep(build, train_and_validate, widths: list[int], seeds: list[int]) -> dict[int, list[float]]:
    results = {}
    for m in widths:
        results[m] = []
        for seed in seeds:
            torch.manual_seed(seed)
            results[m].append(train_and_validate(build(m), seed))
    return results


# --- 7.1 · LoRA's parameters · the course's own ----------------------------------------------------------------------
def lora_parameters(model_dim: int, rank: int, layers: int) -> int:
    return layers * 2 * (rank * model_dim + model_dim * rank)


# --- 7.2 · A test for a classifier · the course's own ----------------------------------------------------------------
def same_in_company(classify, sentences: list[str]) -> bool:
    together = classify(sentences)
    alone = torch.cat([classify([sentence]) for sentence in sentences])
    return torch.allclose(together, alone, atol=1e-4)


# --- 7.3 · Two models on the same texts · the course's own -----------------------------------------------------------
def paired_difference(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    d = first.float() - second.float()
    return d.mean().item(), 1.96 * d.std().item() / len(d) ** 0.5


# --- 7.4 · Design the experiment · the course's own ------------------------------------------------------------------
def within_one_point(run, rates: dict, seeds: tuple) -> bool:
    tests = {}
    for method in ("adapters", "full fine-tuning"):
        best = max(rates[method], key=lambda rate: run(method, rate, seeds[0])["validation"])
        tests[method] = [run(method, best, seed)["test"] for seed in seeds]
    mean, half = mean_and_interval([a - b for a, b in zip(tests["adapters"], tests["full fine-tuning"])])
    return mean - half > -0.01


# --- 8.1 · Bytes for N tasks · the course's own ----------------------------------------------------------------------
def bytes_on_disk(tasks: int, base: int, adapters: int, head: int) -> tuple[int, int]:
    copies = 4 * tasks * (base + head)
    shared = 4 * (base + tasks * (adapters + head))
    return copies, shared


# --- 8.2 · Mend the switch · the course's own ------------------------------------------------------------------------
def make_switches(model) -> dict:
    switches = {}
    for name in model.heads:

        def switch(name=name):
            for place in model.places:
                for task, adapter in place.items():
                    adapter.active = task == name
            model.head = model.heads[name]

        switches[name] = switch
    return switches


# --- 8.3 · Every row to its task · the course's own ------------------------------------------------------------------
def answer_mixed(x: torch.Tensor, names: list, tasks: dict) -> list:
    answers = [None] * len(names)
    for name in set(names) - {None}:
        rows = [i for i, n in enumerate(names) if n == name]
        for i, answer in zip(rows, tasks[name](x[rows])):
            answers[i] = answer
    return answers


# --- 8.4 · Attention over adapters · the course's own ----------------------------------------------------------------
def fuse(h: torch.Tensor, updates: torch.Tensor, query, key, value) -> tuple[torch.Tensor, torch.Tensor]:
    scores = (query(h) * key(updates)).sum(-1)
    weights = scores.softmax(0)
    return (weights[..., None] * value(updates)).sum(0), weights


# --- 9.1 · A fair timing loop · the course's own ---------------------------------------------------------------------
def fair_medians(contenders: dict, rounds: int, warmup: int, clock=perf_counter) -> dict:
    for call in contenders.values():
        for _ in range(warmup):
            call()
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: median(taken) for name, taken in times.items()}


# --- 9.2 · The adapters' share · the course's own --------------------------------------------------------------------
def extra_share(model_dim: int, bottleneck_dim: int, adapters: int, length: int) -> float:
    block = 12 * model_dim**2 + 2 * length * model_dim
    return adapters * 2 * model_dim * bottleneck_dim / block


# --- 9.3 · Merge a linear adapter · the course's own -----------------------------------------------------------------
def merge(projection: nn.Linear, adapter: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
    down, up = adapter.down_project, adapter.up_project
    weight = projection.weight + adapter.scaling * up.weight @ down.weight @ projection.weight
    bias = projection.bias + adapter.scaling * (up.weight @ (down.weight @ projection.bias + down.bias) + up.bias)
    return weight.detach(), bias.detach()


# --- 9.4 · Share the lower blocks · the course's own -----------------------------------------------------------------
def serve(x: torch.Tensor, blocks: list, adapters: dict, n: int) -> dict:
    for block in blocks[:n]:
        x = block(x)
    results = {}
    for task, own in adapters.items():
        h = x
        for block, adapter in zip(blocks[n:], own[n:]):
            h = adapter(block(h))
        results[task] = h
    return results


# --- 10.1 · Labels for an answer · the course's own ------------------------------------------------------------------
def make_labels(prompt: list, answer: list, end: int, pad: int, length: int) -> tuple:
    counted = answer + [end]
    rest = length - len(prompt) - len(counted)
    input_ids = prompt + counted + [pad] * rest
    labels = [-100] * len(prompt) + counted + [-100] * rest
    return input_ids, labels


# --- 10.2 · Fill the rows · the course's own -------------------------------------------------------------------------
def fill_rows(lengths: list, room: int) -> list:
    rows = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for row in rows:
            if sum(lengths[j] for j in row) + lengths[i] <= room:
                row.append(i)
                break
        else:
            rows.append([i])
    return rows


# --- 10.3 · Who may look at whom · the course's own ------------------------------------------------------------------
def may_look(position_ids: torch.Tensor) -> torch.Tensor:
    dialogue = (position_ids == 0).cumsum(0)
    place = torch.arange(len(position_ids))
    return (dialogue[:, None] == dialogue[None]) & (place[None] <= place[:, None])


# --- 10.4 · What one process sends · the course's own ----------------------------------------------------------------
def sent_bytes(trainable: int, processes: int) -> float:
    piece = 4 * trainable / processes
    return 2 * (processes - 1) * piece


# --- 11.1 · The LoRA layer · the course's own ------------------------------------------------------------------------
class LoRALinear(nn.Module):
    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scaling = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.scaling * (x @ self.A.T @ self.B.T)


# --- 11.2 · Merge, and take out again · the course's own -------------------------------------------------------------
def merged_weight(
    weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float, back: bool = False
) -> torch.Tensor:
    update = alpha / len(A) * B @ A
    return (weight.float() + (-update if back else update)).to(weight.dtype)


# --- 11.3 · The rank for a budget · the course's own -----------------------------------------------------------------
def largest_rank(shapes: list, budget: int) -> int:
    return budget // sum(outputs + inputs for outputs, inputs in shapes)


# --- 11.4 · Four bits a weight · the course's own --------------------------------------------------------------------
def quantise(weights: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    blocks = weights.reshape(-1, 64)  # (blocks, 64)
    scales = blocks.abs().amax(1)  # (blocks,)
    unit = blocks / torch.where(scales > 0, scales, 1)[:, None]
    codes = (unit[..., None] - levels).abs().argmin(-1)
    return codes, scales, (levels[codes] * scales[:, None]).reshape(weights.shape)


# --- 12.1 · Read the file · the course's own -------------------------------------------------------------------------
def what_is_in(tensors: dict[str, torch.Tensor], modules: set[str]) -> str:
    lora = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if not tensors:
        return "empty"
    if numbers > 2 * sum(tensor.numel() for tensor in lora.values()):
        return "whole model"
    right = {f"base_model.model.{path}" for path in modules}
    if any(name.partition(".lora_")[0] not in right for name in lora):
        return "keys"
    if not any(tensor.any() for name, tensor in lora.items() if ".lora_B." in name):
        return "zero"
    return "sound"


# --- 12.2 · Go on · the course's own ---------------------------------------------------------------------------------
def go_on(model: nn.Module, saved: dict[str, torch.Tensor]) -> int:
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name] for name in saved}
    model.requires_grad_(False)
    with torch.no_grad():
        for name, parameter in chosen.items():
            parameter.copy_(saved[name])
            parameter.requires_grad_(True)
    return sum(parameter.numel() for parameter in chosen.values())


# --- 12.3 · One batch, many LoRAs · the course's own -----------------------------------------------------------------
def many_loras(x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, which: torch.Tensor, scaling: float) -> torch.Tensor:
    update = scaling * (x @ A[which].mT @ B[which].mT)  # (rows, tokens, outputs)
    return torch.where((which >= 0)[:, None, None], update, 0.0)


# --- 12.4 · Compare first · the course's own -------------------------------------------------------------------------
def compare_first(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
    a, b = before[mask.bool()], after[mask.bool()]  # (tokens, classes)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a logit is not finite")
    return (a - b).abs().max().item(), (a.argmax(-1) != b.argmax(-1)).float().mean().item()
