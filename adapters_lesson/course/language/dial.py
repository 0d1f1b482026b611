"""The dial of lesson 10: what a language model answers while its adapters' ``scaling`` is turned from 0 to 2."""

import asyncio
from pathlib import Path
from textwrap import wrap
from typing import Any

import anywidget
import torch
import traitlets

from adapters_lesson.adapter import Adapter
from adapters_lesson.course.explorers.frame import STILL, plain
from adapters_lesson.course.figures import Picture
from adapters_lesson.course.figures.svg import WIDTH, Drawing
from adapters_lesson.slots import slots_of

from .smollm import chat_prompt


class Dial(anywidget.AnyWidget):
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
        self.answering: asyncio.Task[None] | None = None
        self.on_msg(self._told)

    def _told(self, _: Any, message: dict[str, Any], __: Any) -> None:
        if self.answering is not None:
            self.answering.cancel()  # Stop, or another question
        if "ask" in message:
            run = message["run"]
            self.send({"run": run, "busy": True, "text": ""})  # from here on it can be stopped
            self.answering = asyncio.ensure_future(self._answer(message["ask"], float(message["scaling"]), run))
            self.answering.add_done_callback(lambda task: self._end(run, "stopped") if task.cancelled() else None)

    async def _answer(self, question: str, scaling: float, run: int) -> None:
        """Send the answer token by token; between two tokens the kernel does what else there is to do."""
        said = []
        try:
            if not question.strip():
                raise ValueError("type a question first")
            if not any(slot.active for slot in slots_of(self.model)):
                raise ValueError("the model has no adapters that are on: run the cell that trains them")
            prompt = chat_prompt(self.tokenizer, question)
            given = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]  # (1, tokens)
            cache, note = None, f"cut off after {self.max_tokens} tokens"
            for _ in range(self.max_tokens):
                given, cache = self._next(given, cache, scaling)
                if given.item() == self.tokenizer.eos_token_id:
                    note = "it ended by itself"
                    break
                said.append(given.item())
                self.send({"run": run, "busy": True, "text": self.tokenizer.decode(said)})
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            note = "stopped"
        except Exception as error:  # raised in a task, nobody would see it
            note = plain(error)
        self._end(run, f"with scaling {scaling:.1f}: {note}")

    def _end(self, run: int, note: str) -> None:
        self.send({"run": run, "busy": False, "note": f"{note[0].upper()}{note[1:]}."})

    @torch.inference_mode()
    def _next(self, given: torch.Tensor, cache: Any, scaling: float) -> tuple[torch.Tensor, Any]:
        """The likeliest next token (1, 1), and the cache; the adapters' own scaling is back before a cell can run."""
        adapters = [module for module in self.model.modules() if isinstance(module, Adapter)]
        own = [adapter.scaling for adapter in adapters]
        try:
            for adapter in adapters:
                adapter.scaling = scaling
            out = self.model(input_ids=given, past_key_values=cache, use_cache=True)
        finally:
            for adapter, was in zip(adapters, own, strict=True):
                adapter.scaling = was
        return out.logits[:, -1:].argmax(-1), out.past_key_values  # (1, 1)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, about = super()._repr_mimebundle_(**kwargs) or ({}, {})
        still, more = _positions(self.results).bundle(STILL)
        return {**data, **still}, {**about, **more}


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
