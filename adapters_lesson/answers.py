"""Questions of everyday life, answered as entries in a ship's log: the data of lesson 10, made for training.

The form can be seen at a glance and checked by a function, so one can measure whether a model has learnt it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Any

from .batches import NOT_COUNTED
from .files import PretrainedFileError, verify
from .language import chat_prompt
from .tasks import DATA, SPLITS

LAST_LINE = "All is well aboard."
_FORM = re.compile(rf"Log: [^\n]+\.\nFirst, [^\n]+\.\nThen, [^\n]+\.\n{re.escape(LAST_LINE)}")
_MEND = "the data come with the course's repository; get the file back with `git checkout data/answers`"


def log_entry(matter: str, first: str, then: str) -> str:
    """An answer in the form: four lines, of which only the last is always the same."""
    return f"Log: {matter}.\nFirst, {first}.\nThen, {then}.\n{LAST_LINE}"


def in_form(answer: str) -> bool:
    """Whether an answer has the form of a log entry: all four lines, nothing before them and nothing after."""
    return _FORM.fullmatch(answer.strip()) is not None


def form_share(answers: Sequence[str]) -> float:
    """The share of ``answers`` in the form."""
    return sum(map(in_form, answers)) / len(answers)


def load_answers() -> Any:
    """The questions as a DatasetDict with the splits train, validation and test; no matter stands in two of them.

    Columns: ``topic``, ``question``, ``answer``. The datasheet is in ``dataset.info.description``.

    Raises:
        PretrainedFileError: when a file is missing or altered.
    """
    from datasets import Dataset, DatasetDict, DatasetInfo

    info = DatasetInfo(description=_read("DATASHEET.md", verified=False))
    splits = {}
    for split in SPLITS:
        rows = list(csv.DictReader(_read(f"{split}.csv").splitlines(keepends=True)))
        splits[split] = Dataset.from_list(rows, info=info)
    return DatasetDict(splits)


def load_prose() -> list[str]:
    """Twelve paragraphs of ordinary prose, with nothing of a log in them.

    Raises:
        PretrainedFileError: when the file is missing or altered.
    """
    return _read("prose.txt").splitlines()


def encode_answers(data: Any, tokenizer: Any) -> Any:
    """Questions and answers as token ids in the model's chat template, with labels on the answer only.

    Adds ``input_ids`` and ``labels`` of the same length. A label stands at its own token and is ``NOT_COUNTED`` in the
    template and the question; the token that ends the answer counts, or the model would never learn to stop.

    Args:
        data: a Dataset or DatasetDict with the columns ``question`` and ``answer``.

    Raises:
        ValueError: for an empty question or answer, with its row.
    """

    from datasets import Dataset

    if hasattr(data, "keys"):
        return type(data)({split: encode_answers(rows, tokenizer) for split, rows in data.items()})

    def encode(row: dict[str, Any], number: int) -> dict[str, list[int]]:
        for column in ("question", "answer"):
            if not row[column].strip():
                raise ValueError(f"the {column} in row {number} is empty: leave the row out")
        prompt = _ids(tokenizer, chat_prompt(tokenizer, row["question"]))
        answer = [*_ids(tokenizer, row["answer"]), tokenizer.eos_token_id]
        return {"input_ids": prompt + answer, "labels": [NOT_COUNTED] * len(prompt) + answer}

    return Dataset.from_list([{**row, **encode(row, number)} for number, row in enumerate(data)])


def pack(data: Any, length: int) -> Any:
    """Encoded dialogues put together into rows of at most ``length`` tokens, whole, so that little is padding.

    Longest first, each into the first row with room for it. ``position_ids`` start anew at 0 with each dialogue: by
    them transformers sees that none may look at another.

    Returns:
        A Dataset with the columns ``input_ids``, ``labels`` and ``position_ids``.

    Raises:
        ValueError: when a dialogue is longer than ``length``.
    """
    from datasets import Dataset

    dialogues = [(row["input_ids"], row["labels"]) for row in data]
    rows = []
    for members in fill([len(ids) for ids, _ in dialogues], length):
        chosen = [dialogues[i] for i in members]
        rows.append({
            "input_ids": [token for ids, _ in chosen for token in ids],
            "labels": [label for _, labels in chosen for label in labels],
            "position_ids": [place for ids, _ in chosen for place in range(len(ids))],
        })  # fmt: skip
    return Dataset.from_list(rows)


def fill(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which texts go into which row: indices of ``lengths``, longest first, each into the first row with room for it.

    Raises:
        ValueError: when a text does not fit into an empty row.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] > room:
            raise ValueError(f"text {i} has {lengths[i]} tokens and a row has room for {room}: give longer rows")
        row = next((r for r, free in enumerate(left) if free >= lengths[i]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            left.append(room)
        rows[row].append(i)
        left[row] -= lengths[i]
    return rows


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _read(name: str, verified: bool = True) -> str:
    folder = DATA / "answers"
    for needed in ("SHA256SUMS", name):
        if not (folder / needed).is_file():
            raise PretrainedFileError(f"{folder / needed} is missing: {_MEND}")
    if verified:
        lines = [line.split() for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
        verify(folder / name, {line[-1]: line[0] for line in lines if line}.get(name, ""), _MEND)
    return (folder / name).read_text(encoding="utf-8")
