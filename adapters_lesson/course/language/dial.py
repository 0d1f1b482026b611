"""The dial of lesson 10: what a language model answers while its adapters' ``scaling`` is turned from 0 to 2."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
import traitlets

from adapters_lesson.adapter import Adapter
from adapters_lesson.course.explorers.frame import STILL
from adapters_lesson.course.figures import Picture
from adapters_lesson.course.figures.svg import WIDTH, Drawing
from adapters_lesson.course.page import Page
from adapters_lesson.course.words import _
from adapters_lesson.slots import slots_of

from .writing import Answering, new_cache, prompt_ids, written


class Dial(Answering, Page):
    """Answers at each position of the dial; with a ``model`` it also answers a question that is typed in.

    Args:
        results: what data/run_dial.py measured: questions, and by position the answers and how many have the form.
        model: SmolLM2 with adapters, as ``load_smollm`` and ``prepare`` make it; None where it is not installed.
        tokenizer: its tokenizer.
        max_tokens: at which length an answer to a question of one's own ends.
    """

    _esm = Path(__file__).with_name("dial.js")
    results = traitlets.Dict().tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)

    def __init__(self, results: dict[str, Any], model: Any = None, tokenizer: Any = None, max_tokens: int = 64) -> None:
        super().__init__(results=results, live=model is not None)
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens
        self.on_msg(self._told)

    def _pieces(self, message: dict[str, Any]) -> Iterator[dict[str, str] | str | None]:
        """The answer, token by token; at last how it ended."""
        if not message["ask"].strip():
            raise ValueError("type a question first")
        if not any(slot.active for slot in slots_of(self.model)):
            raise ValueError("the model has no adapters that are on: run the cell that trains them")
        given, said = prompt_ids(self.tokenizer, message["ask"]), list[int]()
        step = partial(self._logits, new_cache(self.model), float(message["scaling"]))
        for token in written(step, given, self.tokenizer.eos_token_id, self.max_tokens):
            if token == self.tokenizer.eos_token_id:
                yield "it ended by itself"
                return
            said += [] if token is None else [token]
            yield {"text": self.tokenizer.decode(said)}
        yield f"cut off after {self.max_tokens} tokens"

    def _end(self, message: dict[str, Any], note: str) -> None:
        note = f"With scaling {float(message['scaling']):.1f}: {note}."
        self.send({"run": message["run"], "busy": False, "note": note})

    @torch.inference_mode()
    def _logits(self, cache: Any, scaling: float, given: torch.Tensor) -> torch.Tensor:
        """Of the next token, (1, 1, vocabulary); the adapters' own scaling is back before a cell can run."""
        adapters = [module for module in self.model.modules() if isinstance(module, Adapter)]
        own = [adapter.scaling for adapter in adapters]
        try:
            for adapter in adapters:
                adapter.scaling = scaling
            return self.model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        finally:
            for adapter, was in zip(adapters, own, strict=True):
                adapter.scaling = was

    def still(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return _positions(self.results).bundle(_(STILL))


def _positions(results: dict[str, Any]) -> Picture:
    """One question's answers at the ends and in the middle, below each other; and the share in the form at all."""
    positions, asked = results["positions"], results["asked"]
    shown = [positions[0], positions[len(positions) // 2], positions[-1]]
    on, step = Drawing(WIDTH, 400), (WIDTH - 20) / len(positions)
    on.text(10, 16, f"answers in the form, of {asked}, by the adapters' scaling", 15, bold=True)
    for i, position in enumerate(positions):
        in_form, x = round(asked * position["form"]), 10 + i * step
        on.box(x, 112 - 70 * position["form"], step - 6, 70 * position["form"], "bar", f"{in_form} of {asked}")
        on.text(x + step / 2 - 3, 104 - 70 * position["form"], str(in_form), 12, "middle")
        on.text(x + step / 2 - 3, 124, f"{position['scaling']:g}", 12, "middle")
    on.text(10, 158, results["questions"][1], 15, bold=True)
    for i, position in enumerate(shown):
        x, tokens = 10 + 300 * i, position["answers"][1]["tokens"]
        on.text(x, 184, f"scaling {position['scaling']:g}", 13, bold=True)
        lines = [part for line in "".join(tokens).splitlines() for part in wrap(line, 40)][:10]
        for line, words in enumerate(lines):
            on.text(x, 206 + 18 * line, words, 12)
    said = "; ".join(f"{round(asked * p['form'])} of {asked} at {p['scaling']:g}" for p in positions)
    return Picture(on, f"How many answers have the form, by the adapters' scaling: {said}.")
