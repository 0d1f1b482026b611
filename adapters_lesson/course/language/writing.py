"""A language model writes, token by token, and can be stopped at any time."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from adapters_lesson.course.explorers.frame import plain

from .smollm import chat_prompt

_PIECE = 32  # tokens


def written(step: Callable[[Tensor], Tensor], ids: Tensor, end: int, most: int) -> Iterator[int | None]:
    """The likeliest token each time, at most ``most``, or until ``end`` has come; None for a piece of the prompt read.

    ``step`` maps the ids that come next ``(1, n)`` to logits ``(1, …, vocabulary)``, or probabilities, and keeps the
    cache. The prompt ``ids`` ``(1, n)`` is read in pieces, so that nobody has to wait for all of it to stop.
    """
    *pieces, given = ids.split(_PIECE, 1)
    for piece in pieces:
        step(piece)
        yield None
    for _ in range(most):
        given = step(given)[:, -1:].argmax(-1)  # (1, 1)
        yield int(given)
        if given == end:
            return


def new_cache(model: Any) -> Any:
    """Where a model of transformers keeps keys and values of the tokens that it has read."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def prompt_ids(tokenizer: Any, question: str) -> Tensor:
    """The question in the chat template, as ids (1, n)."""
    return tokenizer(chat_prompt(tokenizer, question), return_tensors="pt", add_special_tokens=False)["input_ids"]


class Answering:
    """A widget that answers its page piece by piece: between two of them it hears Stop, or another question.

    ``_pieces(message)`` yields what to send, None where there is nothing yet, and text that says how it ended;
    ``_end(message, note)`` tells the page. The widget calls ``on_msg(self._told)``.
    """

    answering: asyncio.Task[None] | None = None
    send: Any
    _pieces: Any
    _end: Any

    def _told(self, _: Any, message: dict[str, Any], __: Any) -> None:
        if self.answering is not None:
            self.answering.cancel()
        if "ask" in message:
            self.send({"run": message["run"], "busy": True, "text": ""})  # from here on it can be stopped
            self.answering = asyncio.ensure_future(self._reply(message))
            self.answering.add_done_callback(lambda task: self._end(message, "stopped") if task.cancelled() else None)

    async def _reply(self, message: dict[str, Any]) -> None:
        note = "stopped"
        try:
            for piece in self._pieces(message):
                if isinstance(piece, str):
                    note = piece
                elif piece is not None:
                    self.send({"run": message["run"], "busy": True, **piece})
                await asyncio.sleep(0)  # the kernel does what else there is to do
        except asyncio.CancelledError:
            pass
        except Exception as error:  # raised in a task, nobody would see it
            note = plain(error)
        self._end(message, note)
