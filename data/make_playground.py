"""Make what the playground stands on: `python data/make_playground.py`; it needs Node.

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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_lesson.course.figures import Picture
from adapters_lesson.course.figures.style import TRAINED, course_style, new_figure

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "adapters_lesson" / "course" / "playground" / "playground.js"
RESULT = ROOT / "data" / "results" / "playground.json"
D, WIDE, STEPS = 8, 32, 300
ACCURACIES = ("baseAccuracy", "accuracy")
ASKED = {  # what lesson 01 asks of data that the base knows
    "moons, m = 1": "m1-gelu-zero-lr0.03-res1-moons",
    "moons, m = 1, no residual": "m1-gelu-zero-lr0.03-res0-moons",
    "moons, m = 4": "m4-gelu-zero-lr0.03-res1-moons",
    "moons, m = 4, from std 1": "m4-gelu-std1-lr0.03-res1-moons",
}


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


def in_node(expression: str) -> Any:
    """The value of an expression in which ``p`` is the module's default export."""
    node = shutil.which("node")
    if node is None:
        raise SystemExit("node is missing: the picture and the results come from the module itself")
    script = f"import p from {json.dumps(MODULE.as_uri())}; console.log(JSON.stringify({expression}));"
    run = [node, "--no-warnings", "--input-type=module", "-e", script]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@course_style
def still(seen: dict[str, Any]) -> Picture:
    """The base's answer, that with the adapter, and the loss: what stands where no script runs."""
    figure, (left, right, below) = new_figure(11.5, 4.1, ncols=3, width_ratios=(1, 1, 0.9))
    x, y = np.array(seen["x"]).reshape(-1, 2), np.array(seen["y"])
    base, now = (np.array(seen[key]).reshape(64, 64) for key in ("base", "now"))
    reach, told = seen["reach"], [f"{100 * seen[key]:.0f} %" for key in ACCURACIES]
    ends = (-reach, reach)
    middle = np.linspace(-reach, reach, 129)[1::2]
    for axes, values, title in (
        (left, base, f"the frozen base: {told[0]} right"),
        (right, now, f"with the adapter: {told[1]} right"),
    ):
        tint = np.where(values[..., None] > 0, (0, 158 / 255, 115 / 255), (213 / 255, 94 / 255, 0))
        alpha = 0.08 + 0.34 * np.abs(2 / (1 + np.exp(-values)) - 1)
        image = np.concatenate([tint, alpha[..., None]], 2)
        axes.imshow(image, extent=(*ends, *ends), interpolation="none")
        axes.contour(middle, middle[::-1], base, [0], colors="#222222", linestyles="--", linewidths=1.5)
        if axes is right:
            axes.contour(middle, middle[::-1], values, [0], colors="#222222", linewidths=2.5)
            for line in seen["lines"]:
                foot = -line["c"] / (line["a"] ** 2 + line["b"] ** 2)
                axes.axline((foot * line["a"], foot * line["b"]), slope=-line["a"] / line["b"], color=TRAINED, lw=1.5)
        for label, marker, colour in ((0, "o", "#D55E00"), (1, "s", "#009E73")):
            axes.plot(*x[y == label].T, marker, color=colour, ms=4.5, mec="white", mew=0.6)
        axes.set(title=title, xlim=ends, ylim=ends, xticks=[], yticks=[])
        axes.grid(False)
    below.semilogy(seen["losses"], color=TRAINED)
    below.set(title="loss", xlabel="steps")
    alt = (
        f"Playground. Left two spirals and the border that a frozen base of {seen['frozen']} numbers draws, which "
        f"knows another data set: {told[0]} of unseen points are right. In the middle the same with a bottleneck "
        f"adapter of {seen['trained']} trained numbers after {seen['steps']} steps: {told[1]}. Right its falling loss."
    )
    return Picture(figure, alt)


def shorter(svg: str) -> str:
    """The same drawing with a tenth of a pixel, and with the look of a point told once: every notebook keeps it."""
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.1f}", svg)
    point = re.compile(r'(<use xlink:href="#(\w+)"[^>]*?) style="(fill: #[^"]*)"')
    for name, look in {found[2]: found[3] for found in point.finditer(svg)}.items():
        svg = re.sub(rf'(<path id="{name}"[^>]*) style="[^"]*"', rf'\1 style="{look}"', svg)
    return point.sub(r"\1", svg)


def results() -> dict[str, Any]:
    """For each setting the shares of unseen points that are right at the start and after 300 steps, by seed."""
    rows: dict[str, Any] = {}
    for name, state in ASKED.items():
        runs = []
        for seed in range(5):
            one = in_node(
                f"(() => {{ const run = new p.Run(p.parse('{state}-s{seed}'));"
                f" const start = run.measure(run.unseen).accuracy;"
                f" for (let i = 0; i < {STEPS}; i++) run.train();"
                " return [start, run.measure(run.unseen).accuracy]; })()"
            )
            runs.append({"seed": seed, "start": one[0], "test": one[1]})
        rows[name] = {"state": state, "runs": runs}
    return {"command": "python data/make_playground.py", "steps": STEPS, "rows": rows}


def main() -> None:
    """Make all three."""
    torch.set_default_dtype(torch.float64)
    write_base(trained_base())
    picture = still(in_node(f"p.snapshot(p.DEFAULT, {STEPS})"))
    (MODULE.parent / "still.svg").write_text(shorter(picture.svg()) + "\n", encoding="utf-8")
    (MODULE.parent / "still.txt").write_text(picture.alt + "\n", encoding="utf-8")
    RESULT.write_text(json.dumps(results(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
