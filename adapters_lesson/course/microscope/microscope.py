"""The widget: frames of numbers that ``microscope.js`` draws, and what clicks and typing ask of the model."""

import asyncio
import contextlib
import inspect
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from traitlets import Bool, Dict, Int, List, Unicode

from adapters_lesson.course.explorers.frame import STILL, plain
from adapters_lesson.course.figures import Picture
from adapters_lesson.course.page import Page
from adapters_lesson.course.words import _
from adapters_lesson.history import History

from .lens import Lens, Seen
from .sketch import map_of_pushes, sketch_of

_LONGEST, _MOST_FRAMES = 40, 120  # tokens that can be read side by side; steps that are kept


class Microscope(Page):
    """How far each adapter pushes each token, while it learns and afterwards; a click switches a push off.

    Args:
        model: as for ``Lens``; of an ``AdapterBank`` the task that is switched on, or the first; beside it the others.
        tokenizer: as transformers' tokenizers.
        text: the sentence at first; with "aspect: sentence" the aspect has a field of its own.
        beside: other models by name, a control or another seed, to stand beside it.
        base: what ``model`` and those ``beside`` it were before training, where they have no adapters.
        labels: the names of the labels.
        every: ``train(…, on_step=microscope.record)`` looks once in so many steps, and after each validation.

    Raises ValueError as ``Lens``, and for a text that is empty or has more than 40 tokens.
    """

    _esm = Path(__file__).with_suffix(".js")
    about = Dict().tag(sync=True)  # what stands still, for each model by its name; "" is the first
    frames: Any = List().tag(sync=True)  # the recorded steps
    now, side = Dict().tag(sync=True), Dict().tag(sync=True)  # the model as it is, and what stands beside it
    text, other, beside, error, of = (Unicode().tag(sync=True) for _ in range(5))  # ``of``: whose pushes these are
    off: Any = List().tag(sync=True)  # [row, token] of the pushes that are switched off
    astray = Bool(False).tag(sync=True)  # they are not left out, but point in a random direction, as long as before
    unit_row = Int().tag(sync=True)  # the row whose bottleneck is shown

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        text: str,
        *,
        beside: Mapping[str, nn.Module] | None = None,
        base: nn.Module | None = None,
        labels: tuple[str, ...] = (),
        every: int = 8,
    ) -> None:
        self.tokenizer, self.every, self._scheduled, self._step = tokenizer, every, False, 0
        self._encoded = lru_cache(2)(self._encode)  # while it trains, the sentence is the same in every picture
        names: Any = getattr(model, "labels", ())  # a bank has them by task
        tasks: Any = sorted(names, key=lambda task: task != model.active) if isinstance(names, dict) else [None]
        self.lenses = {"": Lens(model, tasks[0], base)} | {task: Lens(model, task) for task in tasks[1:]}
        self.lenses |= {name: Lens(one, None, base) for name, one in (beside or {}).items()}
        super().__init__(text=text, other=text, unit_row=len(self.lenses[""].spots) - 1)
        self.about = {
            name: {
                "rows": [
                    {"label": _(f"block {s.block} · {s.site}"), "code": _line(s.module)} | sketch_of(lens, s)
                    for s in lens.spots
                ],
                "labels": list(labels or (names[lens.task] if lens.task else names)),
                "compared": lens.base is not None,
            }
            for name, lens in self.lenses.items()
        }
        self.now = self._frame("", text)
        self.frames = [self.now]
        self.observe(self._asked, ["text", "other", "beside", "off", "astray", "unit_row"])

    def record(self, history: History) -> None:
        """Look at the model in training: ``train(…, on_step=microscope.record)``."""
        validated = bool(history.validation) and history.validation[-1]["step"] == history.steps
        if history.steps % self.every == 0 or validated:
            if history.steps <= self._step:  # another run
                self.frames.clear()
            self._step = history.steps
            frame = self._frame("", self.now["text"])  # what was typed last may be too long, and no run stops for that
            self.frames.append(frame)  # in place: the page gets ``now`` alone, and keeps its own list
            if len(self.frames) > _MOST_FRAMES:
                del self.frames[1:-1:2]
            self.now = frame

    def baked(self) -> dict[str, Any]:
        """All that ``microscope.js`` needs to show this without a kernel, with the answers to single clicks."""
        rows, tokens = len(self.now["push"]), len(self.now["tokens"])
        off: dict[str, Any] = {"all": (slice(None), slice(None))}
        off |= {f"row {r}": (r, slice(None)) for r in range(rows)}
        off |= {f"column {t}": (slice(None), t) for t in range(tokens)}
        off |= {f"cell {r} {t}": (r, t) for r in range(rows) for t in range(tokens)}
        keep = torch.ones(len(off), rows, tokens, dtype=torch.bool)
        for variant, place in zip(keep, off.values(), strict=True):
            variant[place] = False
        keys = [*off, *(key.replace("cell", "only") for key in off if "cell" in key)]
        keep = torch.cat([keep, ~keep[-rows * tokens :]])
        seen = self.lenses[""].look(**self._encoded(self.text), keep=keep)
        answers = dict(zip(keys, numbers(seen.probabilities), strict=True))
        still = {key: getattr(self, key) for key in ("about", "frames", "now", "text", "unit_row")}
        return {**still, "answers": answers}

    def still(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return Picture(map_of_pushes(self.now, self.about[""], self.of), self.now["words"]).bundle(_(STILL))

    def _encode(self, text: str) -> dict[str, Tensor]:
        batch = self.tokenizer([text], return_tensors="pt")
        length = batch["input_ids"].shape[1] if text.strip() else 0
        if not 0 < length <= _LONGEST:
            raise ValueError(f"type a sentence of at most {_LONGEST} tokens: this has {length}")
        device = next(self.lenses[""].model.parameters()).device
        return {key: batch[key].to(device) for key in ("input_ids", "attention_mask")}

    def _frame(self, name: str, text: str) -> dict[str, Any]:
        """The numbers of one picture: with all pushes on, and with those ``off`` switched off."""
        batch, lens = self._encoded(text), self.lenses[name]
        tokens = self.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
        off, keep = self._switched(name, len(lens.spots), len(tokens))
        seen = lens.look(**batch, keep=keep, astray=self.astray)
        before, after = numbers(seen.probabilities[[0, -1]])
        best = before.index(max(before))
        answer = f"The answer with everything on: {self.about[name]['labels'][best]}, {100 * max(before):.1f} %."
        words = f"{self._largest(name, seen.push[0], tokens)} {answer}"
        return self._shown(name, seen, tokens) | {"off": off, "before": before, "after": after, "words": _(words)}

    def _switched(self, name: str, rows: int, tokens: int) -> tuple[list[tuple[int, int]], Tensor]:
        """What is off, and what ``look`` keeps: everything, and what is then left, (1 or 2, rows, tokens)."""
        off = [(r, t) for r, t in self.off if name == "" and r < rows and t < tokens]
        keep = torch.ones(1 + bool(off), rows, tokens, dtype=torch.bool)
        for place in off:
            keep[(-1, *place)] = False
        return off, keep

    def _shown(self, name: str, seen: Seen, tokens: list[str]) -> dict[str, Any]:
        """The numbers of a picture: those of the last variant in ``seen``."""
        row = min(self.unit_row, len(seen.units) - 1)
        one = seen.units[row]
        frame = {"step": self._step, "text": self.text, "tokens": tokens, "unit_row": row}
        frame |= {"push": numbers(seen.push[-1]), "turn": numbers(seen.turn[-1])}
        frame |= {"norms": {key: numbers(of[-1]) for key, of in seen.norms.items()}}
        return frame | {"units": None if one is None else numbers(one[-1].T), "before": [], "after": []}

    def _largest(self, name: str, push: Tensor, tokens: list[str], at: str = "on") -> str:
        """Where the largest ``push`` (P, T) is, in a sentence."""
        top, what = int(push.argmax()), "difference" if self.lenses[name].base else "push"
        where, token = self.about[name]["rows"][top // len(tokens)]["label"], tokens[top % len(tokens)].strip() or "⏎"
        return f"The largest {what} is that of {where} {at} “{token}”: {100 * push.max():.0f} % of the stream."

    def _asked(self, _: Any) -> None:
        if not self._scheduled:
            try:
                asyncio.get_running_loop().call_soon(self._answer)  # what has arrived by then is answered in one go
                self._scheduled = True
            except RuntimeError:  # a script or a test
                self._answer()

    def _answer(self) -> None:
        self._scheduled = False
        with self.hold_sync():
            try:
                self.now, self.error = self._frame("", self.text), ""
                model = self.beside if self.beside in self.lenses else ""  # or the same, with another sentence
                self.side = self._frame(model, self.text if model else self.other) if self.beside else {}
            except Exception as error:  # raised in a widget's callback, nobody would see it
                self.error = plain(error)


def numbers(values: Any) -> Any:
    """Lists of numbers with three digits; None for nan, which JSON has not."""
    values = values.tolist() if isinstance(values, Tensor) else values
    if isinstance(values, list):
        return [numbers(value) for value in values]
    return None if math.isnan(values) else float(f"{values:.3g}")


def _line(module: Any) -> str:
    """The line of a module's own code that uses most of its parts; "" where nobody knows its source."""
    with contextlib.suppress(OSError, TypeError):
        source = inspect.getsource(getattr(type(module), "update", type(module).forward)) if module else ""
        return max(source.split("\n"), key=lambda line: line.count("self.")).strip()
    return ""
