"""Make what the playground stands on: `python data/make_playground.py`, with Node or without.

Trains its base on the moons and writes the frozen numbers into playground.js; then runs that module for the still
picture, still.svg, and for data/results/playground.json: accuracies of the settings that the lessons ask about.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_lesson.guards.safe_files import write_atomically

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "adapters_lesson" / "course" / "playground" / "playground.js"
RESULT = ROOT / "data" / "results" / "playground.json"
D, WIDE = 8, 32


def moons(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (count, 2) on two half circles with some noise, and their classes: as in playground.js."""
    y = torch.arange(count) % 2
    side = 1 - 2.0 * y
    turn = math.pi * torch.rand(count, generator=random)
    x = torch.stack([side * (torch.cos(turn) - 0.5), side * (torch.sin(turn) - 0.25)], 1)
    return x + 0.1 * torch.randn(count, 2, generator=random), y


def logits(base: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the base answers for points (n, 2), without an adapter: (n, 2)."""
    h = F.linear(x, base["embed"], base["embedBias"])  # (n, d)
    wide = torch.tanh(F.linear(h, base["wide"], base["wideBias"]))
    return F.linear(h + F.linear(wide, base["narrow"], base["narrowBias"]), base["head"], base["headBias"])


def trained_base(seed: int = 0, steps: int = 600) -> dict[str, Tensor]:
    """A base that tells the moons apart, its numbers rounded to four places."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"embed": (D, 2), "wide": (WIDE, D), "narrow": (D, WIDE), "head": (2, D)}
    base: dict[str, Tensor] = {}
    for name, (rows, columns) in shapes.items():
        base[name] = torch.randn(rows, columns, generator=random) / columns**0.5
        base[f"{name}Bias"] = (0.3 if name == "wide" else 0.0) * torch.randn(rows, generator=random)
    for weight in base.values():
        weight.requires_grad_()
    x, y = moons(1000, random)
    optimizer = torch.optim.AdamW(base.values(), lr=1e-2, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(logits(base, x), y, label_smoothing=0.05).backward()
        optimizer.step()
    return {name: weight.detach().round(decimals=4) for name, weight in base.items()}


def write_base(base: dict[str, Tensor]) -> None:
    """Put the numbers into the module, in the line that begins with ``const BASE``."""
    numbers = {name: [float(f"{value:.4f}") for value in weight.flatten().tolist()] for name, weight in base.items()}
    line = "const BASE = " + re.sub(r'"(\w+)":', r"\1:", json.dumps(numbers, separators=(",", ":"))) + ";"
    text = MODULE.read_text(encoding="utf-8")
    MODULE.write_text(re.sub(r"^const BASE = .*;$", lambda _: line, text, count=1, flags=re.M), encoding="utf-8")
