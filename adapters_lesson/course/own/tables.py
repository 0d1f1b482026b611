"""Texts and labels of one's own: CSV, JSON and Parquet files, folders of them, and what `datasets` has saved."""

import re
import sys
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters_lesson.data import SPLITS, make_dataset
from adapters_lesson.guards.columns import csv_rows, utf8_of

KINDS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
SPLIT_OF = {name: name for name in SPLITS} | dict.fromkeys(("valid", "val", "dev"), "validation")
COLUMNS = ("text", "label")
_FRACTION = re.compile(r"[-+]?(\d*\.\d*(e[-+]?\d+)?|\d+e[-+]?\d+|inf)", re.IGNORECASE)
_NONE = ("nan", "NaN")  # what pandas writes for nothing
_MANY = 20  # rows, of which a label of one's own for each is no accident
_NUMBER = re.compile(r"\s*[-+]?[\d.,]*\d[\d.,]*(e[-+]?\d+)?\s*")
Rows = tuple[list[str], list[Any], list[str]]  # where each stands, its text, its label


def read_task(path: str, columns: Sequence[str] = COLUMNS, validation: str | None = None) -> dict[str, Any]:
    """A labelled dataset for each split there is, "train" first; all have the label names of that one.

    ``path`` is a file, a folder with a file for each split, or one that ``save_to_disk`` wrote; ``columns`` those of
    text and label. A ClassLabel's names stay in their order, others are sorted. Raises ValueError with file and row.
    """
    where, names, data = Path(path).expanduser(), None, {}
    found = {"train": where} if where.is_file() else _splits(where)
    if validation:
        found["validation"] = Path(validation).expanduser()
    for split, source in found.items():
        said = str(source) if isinstance(source, Path) else f"{path}, split {split}"
        data[split] = _labelled(source, said, columns, names)
        names = data["train"].features["label"].names
    return data


def read_texts(path: str, column: str) -> list[str]:
    """The texts of a file, in their order: those of a ``column`` of a table, or of any other file each line.

    "-" is the standard input. Raises ValueError for a line that has no text, or is no UTF-8, with its number.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() in KINDS:
        return _rows(file, path, (column,))[0][1]
    source = sys.stdin.buffer.read() if path == "-" else file if file.is_file() else _missing(path)
    lines = re.sub("\r\n?", "\n", utf8_of(source, path)).removesuffix("\n").split("\n")
    if empty := [number for number, line in enumerate(lines, start=1) if not line.strip()]:
        raise ValueError(f"{path}, line {empty[0]} has no text: leave the line out")
    return lines


def _labelled(source: Any, said: str, columns: Sequence[str], names: Sequence[str] | None) -> Any:
    (places, texts, labels), own, licence = _rows(source, said, columns)
    if not own:
        _check_names(labels, places, said)
    counts = Counter(labels)
    if not names and len(counts) in (1, len(labels) if len(labels) >= _MANY else 1):
        what = "the label" if len(counts) == 1 else "labels of their own, such as"
        raise ValueError(f"all texts in {said} have {what} {labels[0]!r}: there is nothing to learn")
    single = [label for label in counts if counts[label] == 1] if len(labels) >= _MANY else []
    if single:
        others = f", and {len(single) - 1:,} more have one text each" if len(single) > 1 else ""
        place = places[labels.index(single[0])]
        warnings.warn(f"{said}: only {place} has the label {single[0]!r}{others}; is it one?", stacklevel=4)
    names = names or own or sorted(counts)
    if unknown := counts.keys() - set(names):
        row = min(map(labels.index, unknown))
        few = ", ".join(names[:20]) + ", …" * (len(names) > 20)
        raise ValueError(f"{said}, {places[row]} has the label {labels[row]!r}: expected one of {few}")
    return make_dataset(texts, labels, names, licence and f"**Licence.** {licence}")


def _check_names(labels: Sequence[str], places: Sequence[str], said: str) -> None:
    """ValueError for a label that is no class, or that another one differs from by what nobody sees or means."""
    spelt: dict[str, str] = {}
    for label, row in reversed({label: row for row, label in reversed(list(enumerate(labels)))}.items()):
        other = spelt.setdefault(unicodedata.normalize("NFKC", label).replace("\u200b", "").casefold(), label)
        if label in _NONE or _FRACTION.fullmatch(label):
            wrong = "which is no class: name it or give a whole number, or leave the row out"
        elif re.search(r'^"|[\x00-\x1f\x7f]', label):
            wrong = "with a line break or a quote in it: write it without, and no blank before a quote"
        elif other != label:
            wrong = f"another {other!a}: write it one way"
        else:
            continue
        raise ValueError(f"{said}, {places[row]} has the label {label!r:.60}, {wrong}")


def _rows(source: Any, said: str, columns: Sequence[str]) -> tuple[Rows, list[str] | None, str]:
    """Rows of a file or a dataset; the names of the labels in their order and the licence, where they are stated."""
    own, licence = None, ""
    if isinstance(source, Path) and source.suffix.lower() == ".csv":
        rows = csv_rows(source if source.is_file() else _missing(said), columns)
        texts, labels = [text for _, text, _ in rows], [label for _, _, label in rows]
        places = [f"line {line}" for line, _, _ in rows]
    else:
        table = _loaded(source, said) if isinstance(source, Path) else source
        if missing := [name for name in columns if name not in table.column_names]:
            there = f"but {', '.join(table.column_names)}: --text-column and --label-column name others"
            raise ValueError(f"{said} has no column {missing[0]}, {there}")
        if not len(table):
            raise ValueError(f"{said} has no rows")
        licence, texts = table.info.license or "", table[columns[0]][:]
        places, labels = [f"row {row}" for row in range(len(texts))], [""] * len(texts)
        if len(columns) > 1:
            own = getattr(table.features[columns[1]], "names", None)
            labels = _classes(table[columns[1]][:], own, said)
    for place, text in zip(places, texts, strict=True):
        if not _NUMBER.fullmatch(str(text)) and (not isinstance(text, str) or text.strip() in ("", *_NONE)):
            raise ValueError(f"{said}: the text in {place} is {text!r:.60}, and no text: leave it out")
    if all(_NUMBER.fullmatch(str(text)) for text in texts):
        raise ValueError(f"the column {columns[0]} of {said} has numbers and no texts: --text-column names another")
    return (places, texts, labels), own, licence


def _classes(values: list[Any], names: list[str] | None, said: str) -> list[str]:
    """Labels as their names; ValueError for what is no class."""
    for row, value in enumerate(values):
        whole = isinstance(value, int) and (not names or 0 <= value < len(names))
        if not (whole or (isinstance(value, str) and value.strip())):
            mend = "name it or give a whole number, or leave the row out"
            raise ValueError(f"{said}, row {row} has the label {value!r:.60}, which is no class: {mend}")
    return [names[value] if names else str(value).strip() for value in values]


def _splits(folder: Path) -> dict[str, Any]:
    """What a folder has for each split: a dataset, or a file."""
    import datasets

    if not folder.is_dir():
        _missing(folder)
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        try:
            saved = datasets.load_from_disk(str(folder))
        except Exception as error:  # it raises many kinds
            raise ValueError(f"{folder} is damaged, datasets cannot load it: {' '.join(str(error).split())}") from error
        found = {"train": saved} if isinstance(saved, datasets.Dataset) else dict(saved)
    else:
        files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in KINDS]
        found = {file.stem: file for file in files if file.stem in SPLIT_OF}
        if twice := [file for file in files if found.get(file.stem, file) != file]:
            both = f"{twice[0].name} and {found[twice[0].stem].name}"
            raise ValueError(f"{folder} has {both}: which is meant? Move one elsewhere")
    named = {SPLIT_OF[name]: found[name] for name in SPLIT_OF if name in found}
    if "train" not in named:
        there = ", ".join(sorted(found or [path.name for path in folder.iterdir()])[:9]) or "nothing"
        wanted = "train.csv (or .json, .jsonl, .parquet), with validation and test beside it"
        raise ValueError(f"{folder} has no texts to train on, but {there}: it needs {wanted}, or splits of these names")
    return named


def _loaded(path: Path, said: str) -> Any:
    """The rows of a JSON or Parquet file as a Dataset."""
    import datasets

    if not path.is_file():
        _missing(said)
    if not (kind := KINDS.get(path.suffix.lower())):
        raise ValueError(f"{said} is no table: its name must end in {', '.join(KINDS)}")
    if kind == "json":
        utf8_of(path, said)  # the reader would say it late, and without the line
    datasets.utils.logging.set_verbosity(100)  # it says itself, in several lines, what the sentence below says
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            return getattr(datasets.Dataset, f"from_{kind}")(str(path), cache_dir=cache, keep_in_memory=True)
    except Exception as error:  # it raises many kinds
        why = " ".join(str(error.__cause__ or error).split())[:200] if path.stat().st_size else "it is empty"
        why = "it has no rows" if "corresponds to no data" in why else why
        raise ValueError(f"{said} cannot be read as {kind.upper()} in UTF-8: {why}") from error


def _missing(path: object) -> Any:
    raise ValueError(f"there is no file {path}")
