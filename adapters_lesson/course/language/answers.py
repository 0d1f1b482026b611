"""The data of lesson 10: questions of everyday life, answered in a form that can be checked, that of a ship's log."""

import csv
import re
from collections.abc import Sequence
from typing import Any

from adapters_lesson.batches import NOT_COUNTED
from adapters_lesson.data import DATA, SPLITS
from adapters_lesson.guards.safe_files import sums_in, verify

from .smollm import chat_prompt

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
    """Questions as a DatasetDict (train, validation, test) with ``topic``, ``question``, ``answer``; no matter in two.

    The datasheet is in ``dataset.info.description``. Raises PretrainedFileError when a file is missing or altered.
    """
    from datasets import Dataset, DatasetDict, DatasetInfo

    info = DatasetInfo(description=(DATA / "answers" / "DATASHEET.md").read_text(encoding="utf-8"))
    rows = {split: list(csv.DictReader(_read(f"{split}.csv").splitlines(keepends=True))) for split in SPLITS}
    return DatasetDict({split: Dataset.from_list(rows[split], info=info) for split in SPLITS})


def load_prose() -> list[str]:
    """Twelve paragraphs of ordinary prose, with nothing of a log in them; errors as from ``load_answers``."""
    return _read("prose.txt").splitlines()


def encode_answers(data: Any, tokenizer: Any) -> Any:
    """Questions and answers (a Dataset or DatasetDict) as ``input_ids`` in the chat template, and ``labels`` as long.

    A label stands at its own token, and is ``NOT_COUNTED`` in the template and the question; the token that ends the
    answer counts, or the model would never learn to stop. Raises ValueError for an empty text, with its row.
    """
    from datasets import Dataset

    if hasattr(data, "keys"):
        return type(data)({split: encode_answers(rows, tokenizer) for split, rows in data.items()})
    encoded = []
    for number, row in enumerate(data):
        for column in ("question", "answer"):
            if not row[column].strip():
                raise ValueError(f"the {column} in row {number} is empty: leave the row out")
        texts = [chat_prompt(tokenizer, row["question"]), row["answer"]]
        prompt, answer = tokenizer(texts, add_special_tokens=False)["input_ids"]
        answer = [*answer, tokenizer.eos_token_id]
        encoded.append({**row, "input_ids": prompt + answer, "labels": [NOT_COUNTED] * len(prompt) + answer})
    return Dataset.from_list(encoded)


def pack(data: Any, length: int) -> Any:
    """Whole encoded dialogues put together into rows of at most ``length`` tokens, as by ``fill``: little is padding.

    Of the columns ``input_ids``, ``labels`` and ``position_ids``, the last starts anew at 0 with each dialogue: by it
    transformers sees that none may look at another. Raises ValueError when a dialogue is longer than ``length``.
    """
    from datasets import Dataset

    columns: dict[str, Any] = {name: list(data[name]) for name in ("input_ids", "labels")}
    columns["position_ids"] = [range(len(ids)) for ids in columns["input_ids"]]
    rows = fill([len(ids) for ids in columns["input_ids"]], length)
    return Dataset.from_list(
        [{name: [x for i in row for x in parts[i]] for name, parts in columns.items()} for row in rows]
    )


def fill(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which texts go into which row: indices of ``lengths``, longest first, each into the first row with room for it.

    Raises ValueError when a text does not fit into an empty row.
    """
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] > room:
            raise ValueError(f"text {i} has {lengths[i]} tokens and a row has room for {room}: give longer rows")
        row = next((row for row in rows if sum(lengths[j] for j in row) + lengths[i] <= room), None)
        if row is None:
            rows.append(row := [])
        row.append(i)
    return rows


def _read(name: str) -> str:
    folder = DATA / "answers"
    return verify(folder / name, sums_in(folder, _MEND).get(name, ""), _MEND).read_text(encoding="utf-8")
