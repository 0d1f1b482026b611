"""The microscope on a language model while it writes: a column for each new token."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from traitlets import Int

from adapters_lesson.course.microscope import Microscope
from adapters_lesson.course.microscope.lens import Lens, Seen
from adapters_lesson.course.microscope.microscope import numbers
from adapters_lesson.course.words import _

from .writing import Answering, new_cache, prompt_ids, written

_LIKELIEST, _LONGEST = 4, 200


class WritingMicroscope(Answering, Microscope):
    """How far each adapter pushes the position that chooses the next token; a click switches a push off.

    A column stands for a written token, with the pushes on the position before it; the first one for the rest of the
    question, with their mean.

    Args:
        model: a causal language model of transformers with adapters.
        tokenizer: its tokenizer, with a chat template.
        text: the first question; it is answered when the microscope is made.
        of: whose pushes these are, in words.
        max_tokens: at which length an answer ends.

    Raises ValueError as ``Lens``, and for a question that is empty or has more than 200 tokens in its template.
    """

    room = Int().tag(sync=True)  # for so many tokens; 0 where no language model writes

    def __init__(self, model: Any, tokenizer: Any, text: str, *, of: str = "", max_tokens: int = 48) -> None:
        self.model, self.max_tokens, self.question = model, max_tokens, ""
        super().__init__(model, tokenizer, text)
        self.of, self.room = of, max_tokens
        self.on_msg(self._told)

    def _pieces(self, message: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
        """Write an answer, and say of each token what chose it. With the first one the answer before is gone."""
        prompt, lens, cache = self._encoded(message["ask"])["input_ids"], Lens(self.model), new_cache(self.model)
        end, seen = self.tokenizer.eos_token_id, list[Seen]()
        ids, likely, pushes = list[int](), list[Tensor](), list[Tensor]()

        @torch.inference_mode()
        def step(given: Tensor) -> Tensor:
            mask = torch.ones(1, cache.get_seq_length() + given.shape[1], dtype=torch.long)
            seen[:] = [lens.look(given, mask, past_key_values=cache, use_cache=True, logits_to_keep=1)]
            return seen[0].probabilities

        for token in written(step, prompt, end, self.max_tokens):
            if token is None:
                yield None
                continue
            ids.append(token)
            likely.append(seen[0].probabilities[0, -1])  # (vocabulary,)
            pushes.append(seen[0].push[0, :, -1])  # (P,)
            self.question, self.prompt, self.ids, self.likely, self.pushes = message["ask"], prompt, ids, likely, pushes
            stopped = ", cut off there" if len(ids) == self.max_tokens else ", and was stopped"
            self.ending = "" if token == end else stopped
            shown = {"push": seen[0].push, "turn": seen[0].turn, **seen[0].norms}
            column = {name: numbers(values[0, :, -1]) for name, values in shown.items()}
            yield {"token": self._word(token), "place": self._place(len(ids) - 1, likely[-1]), "column": column}

    def switch(self, off: list[list[int]], text: str = "") -> list[dict[str, Any]]:
        """Switch off the pushes ``[[row, column], …]``; what is likely at each place then.

        A change of ``off`` alone is drawn when the cell has ended, since a page sends many. This one is at once.
        """
        self._scheduled = True  # one look for both
        self.off, self.text = off, text or self.text
        self._answer()
        return self.now["places"]

    def _end(self, message: dict[str, Any], note: str) -> None:
        self.switch([], self.question)
        self.error = self.error if note == "stopped" else note
        self.send({"run": message["run"], "busy": False})

    def _frame(self, name: str, text: str) -> dict[str, Any]:
        if text != self.question:
            for _piece in self._pieces({"ask": text}):
                pass
        lens = self.lenses[name] = Lens(self.model)  # the adapters may have been taken out, and others put in
        tokens = ["the question", *map(self._word, self.ids)]
        off, keep = self._switched(name, len(lens.spots), len(tokens))
        seen = self._by_column(lens, keep[-1:])
        places = [self._place(t, after) for t, after in enumerate(seen.probabilities[-1] if off else self.likely)]
        said = f"Asked “{self.question}”, it wrote {len(self.ids)} tokens{self.ending}."
        words = f"{said} {self._largest(name, torch.stack(self.pushes, 1), tokens[1:], 'before')}"
        return self._shown(name, seen, tokens) | {"off": off, "places": places, "words": _(words)}

    def _by_column(self, lens: Lens, keep: Tensor) -> Seen:
        """One pass over question and answer; ``keep``, and what is seen, by columns instead of positions."""
        before, places = self.prompt.shape[1] - 1, len(self.ids)
        ids = torch.cat([self.prompt, torch.tensor([self.ids[:-1]], dtype=torch.long)], 1)
        keep = torch.cat([keep[..., :1].expand(-1, -1, before), keep[..., 1:]], -1)  # (B, P, positions)
        seen = lens.look(ids, torch.ones_like(ids), keep, self.astray, logits_to_keep=places)

        def by_column(values: Tensor, dim: int = -1) -> Tensor:
            question, answer = values.split([before, places], dim)
            return torch.cat([question.mean(dim, keepdim=True), answer], dim)

        units = [None if one is None else by_column(one, 1) for one in seen.units]
        norms = {name: by_column(values) for name, values in seen.norms.items()}
        return replace(seen, push=by_column(seen.push), turn=by_column(seen.turn), norms=norms, units=units)

    def _place(self, place: int, after: Tensor) -> dict[str, Any]:
        """The token that was written there and the likeliest others, before and ``after`` pushes were switched off."""
        before = self.likely[place]
        shown = list(dict.fromkeys([self.ids[place], *before.topk(_LIKELIEST).indices.tolist(), int(after.argmax())]))
        shares = {"before": numbers(before[shown]), "after": numbers(after[shown])}
        return {"labels": [self._word(token) for token in shown], **shares}

    def _word(self, token: int) -> str:
        return self.tokenizer.decode([token])

    def _encode(self, text: str) -> dict[str, Tensor]:
        ids = prompt_ids(self.tokenizer, text)
        if not text.strip() or not 1 < ids.shape[1] <= _LONGEST:
            raise ValueError(f"ask a question of at most {_LONGEST} tokens, template and all: this has {ids.shape[1]}")
        return {"input_ids": ids}
