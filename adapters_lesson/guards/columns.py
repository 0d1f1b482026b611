"""Columns of data are what they seem: tables, token ids, labels, lines of a CSV file. Each refusal names the row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .plain_values import check_whole, listed, number

NOT_COUNTED = -100  # the label of a token that the loss leaves out, in PyTorch's cross_entropy and in transformers


@contextmanager
def named(what: str) -> Iterator[None]:
    """A ValueError in the ``with`` block says which data it is about."""
    try:
        yield
    except ValueError as error:
        error.args = (f"{what}: {error}",)
        raise


def table_of(data: Any) -> Any:
    """``data`` as plain values, if they are columns: a datasets.Dataset, or what looks like one; else ValueError."""
    if isinstance(getattr(data, "column_names", None), (list, tuple)) and hasattr(data, "__len__"):
        return data.with_format(None) if hasattr(data, "with_format") else data  # a format may hide columns
    kind = type(data).__name__
    if splits := splits_of(data):
        mend = f'give one of its splits, data["{splits[0]}"]'
    elif hasattr(data, "column_names"):  # a stream
        mend = "keep its rows, datasets.Dataset.from_list(list(data))"
    elif isinstance(data, list) and data and isinstance(data[0], str):
        mend = 'datasets.Dataset.from_dict({"text": data})'
    else:
        make = {"DataFrame": "from_pandas", "dict": "from_dict", "list": "from_list"}.get(kind)
        mend = f"datasets.Dataset.{make}(data)" if make else "make one with the library datasets"
    raise ValueError(f"the data must be one datasets.Dataset, not a {kind}: {mend}")


def splits_of(data: Any) -> list[str]:
    """The names of the datasets in a dict of them, such as a DatasetDict."""
    return [name for name in data if hasattr(data[name], "column_names")] if isinstance(data, dict) else []


def list_of(values: Any, what: str) -> list[Any]:
    """``values`` of any kind of sequence; ValueError for one text, which is a sequence of letters."""
    if (found := listed(values)) is None:
        raise ValueError(f"{what} must be a list of strings, not {values!r:.60}")
    return found


def checked_length(tokenizer: Any, max_length: Any) -> int:
    """``max_length``, if it leaves room for a word beside the tokenizer's own tokens; else ValueError."""
    if not callable(tokenizer):
        raise ValueError(f"tokenizer must be one of transformers', as load_tokenizer() gives, not {tokenizer!r:.60}")
    return check_whole("max_length", max_length, getattr(tokenizer, "num_special_tokens_to_add", int)() + 1)


def check_texts(texts: Sequence[Any]) -> None:
    for row, text in enumerate(texts):
        wrong = ""
        if not isinstance(text, str):
            mend = 'leave the row out, data.filter(lambda row: isinstance(row["text"], str))'
            wrong = f"{text!r:.60}, not a string: {mend}"
        elif not text.strip():
            wrong = "empty: leave the row out"
        elif not text.isascii() and text.encode(errors="replace").decode() != text:  # half of a pair of code units
            wrong = f"no Unicode, {text!r:.60}: read its file with encoding='utf-8'"
        if wrong:
            raise ValueError(f"the text in row {row} is {wrong}")


def _tensor(values: Any) -> torch.Tensor | None:
    """Values of any library as real numbers in a tensor; None when they are none."""
    try:
        tensor = values.detach().cpu() if isinstance(values, torch.Tensor) else torch.tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return None if tensor.is_complex() else tensor.float() if tensor.is_floating_point() else tensor.long()


def token_rows(values: Sequence[Any], name: str, ids: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
    """Each row's whole numbers ``(tokens,)``, at least one, and as many as ``ids`` has in that row."""
    rows = []
    for row, numbers in enumerate(values):
        tensor = _tensor(numbers)
        if tensor is not None and not tensor.numel():
            raise ValueError(f"row {row} has no tokens in {name}: leave the row out")
        if tensor is None or tensor.is_floating_point() or (ids is None and tensor.ndim != 1):
            raise ValueError(f"{name} in row {row} must be a list of whole numbers for its tokens, not {numbers!r:.60}")
        if ids is not None and tensor.shape != ids[row].shape:
            more = "; a label for the whole text is a number" if name == "labels" else ""
            raise ValueError(f"row {row} has {len(ids[row])} input_ids but {name} of shape {(*tensor.shape,)}{more}")
        rows.append(tensor)
    return rows


def cut_masked(ids: list[torch.Tensor], along: dict[str, list[torch.Tensor]]) -> None:
    """Take the padding behind the last word out of each row, in place; and a mask that then hides nothing."""
    masks = along.get("attention_mask", [])
    for row, mask in enumerate(masks):
        if int(mask.min()) == int(mask.max()) == 1:
            continue
        if not ((mask == 0) | (mask == 1)).all() or not mask.any():
            raise ValueError(f"attention_mask in row {row} must be 1 for words, at least one, and 0 for padding")
        if "labels" in along and (along["labels"][row][mask == 0] != NOT_COUNTED).any():
            raise ValueError(f"row {row} has labels where attention_mask is 0: put {NOT_COUNTED} in their place")
        end = int(mask.nonzero()[-1]) + 1
        for column in (ids, *along.values()):
            column[row] = column[row][:end]
    if all(mask.all() for mask in masks):
        along.pop("attention_mask", None)
    elif {"position_ids", "labels"} <= along.keys():
        raise ValueError("texts packed by position_ids take no attention_mask with 0 before the last word")
    if not any(types.any() for types in along.get("token_type_ids", [])):
        along.pop("token_type_ids", None)  # a model takes the first segment by itself


def labels_of(values: Any, name: str = "label") -> torch.Tensor:
    """One label for each row ``(rows,)``: the number of a class, from 0, or a finite float that is to be learnt."""
    labels = _tensor(values)
    if labels is None or labels.ndim != 1:
        bad = (i for i, value in enumerate(values) if number(value) is None and str(value) not in ("True", "False"))
        value = values[row := next(bad, 0)]
        mend = "give the number of the class, from 0"
        if value is None:
            mend = f'leave the row out, data.filter(lambda row: row["{name}"] is not None)'
        elif isinstance(value, str):
            mend = f'number the classes, data.class_encode_column("{name}")'
        elif listed(value) is not None:
            mend = f'give the number of the class, data.map(lambda row: {{"{name}": row["{name}"].index(1)}})'
    else:
        floats = labels.is_floating_point()
        wrong = ~labels.isfinite() if floats else labels < 0
        if not wrong.any():
            return labels
        value = labels[row := int(wrong.long().argmax())].item()
        keep = f'abs(row["{name}"]) < float("inf")' if floats else f'row["{name}"] >= 0'
        mend = f"leave the row out, data.filter(lambda row: {keep})"
    raise ValueError(f"row {row} has the {name} {value!r:.60}: {mend}")


def check_labels(labels: torch.Tensor, outputs: int, name: str = "label") -> None:
    """Raise ValueError unless a model with that many outputs for each text can learn all of these labels."""
    floats, most = labels.is_floating_point(), int(labels.max())
    if floats != (outputs == 1):
        kind = (
            "floats are for a model with one output, not {}" if floats else "whole numbers are classes, not {} output"
        )
        cast = f'data.cast_column("{name}", datasets.Value("{"int64" if floats else "float32"}"))'
        raise ValueError(f"the {name} in row 0 is {labels[0].item()}, and {kind.format(outputs)}: {cast}")
    if not floats and most >= outputs:
        what = f"row {int(labels.argmax())} has the {name} {most}, but this model tells {outputs} classes apart, from 0"
        raise ValueError(f"{what}: make it with at least {most + 1} labels, or mend the row")


def utf8_of(source: Path | bytes, said: str) -> str:
    """The text in a file that is called ``said``; or ValueError, with the line, where it is no UTF-8."""
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise ValueError(f"{said} cannot be read: {error.strerror}") from error
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise ValueError(f"{said} is packed, as .gz and .xlsx are: unpack it, or save it as CSV in UTF-8")
    try:
        text, end, why = content.decode("utf-8-sig"), content.find(b"\0"), "it has a byte 0, as UTF-16 has"
    except UnicodeDecodeError as error:
        text, end, why = "", error.start, f"byte 0x{content[error.start]:02x}, {error.reason}"
    if end >= 0:
        raise ValueError(f"{said}, line {content[:end].count(10) + 1} is no UTF-8 ({why}): save the file as UTF-8")
    return text


def csv_rows(path: Path, columns: Sequence[str] = ("text", "label")) -> list[tuple[int, str, str]]:
    """(line, text, label) of each row of a CSV file with these columns; or ValueError, with the line.

    With a column for the text alone, every label is "".
    """
    lines: list[tuple[int, list[str]]] = []
    reader, line = csv.reader(io.StringIO(utf8_of(path, str(path)), newline=""), strict=True), 1
    try:
        for fields in reader:
            if fields or not lines:
                lines.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f'{path}, line {line} is no CSV ({error}): is a quote open? Inside a text, write ""'
        ) from error
    names = [name.strip() for name in lines[0][1]] if lines else []
    wrong = [column for column in columns if names.count(column) != 1]
    if wrong or len(lines) == 1:
        what = f"a first line with the column{'s' * (len(columns) > 1)} {' and '.join(columns)}"
        options = [f"--{kind}-column" for kind, name in zip(("text", "label"), columns, strict=False) if name in wrong]
        first, mend = f"its first line is {','.join(names)!r:.99}", f"{' and '.join(options)} can name others"
        if not any(names):
            first, mend = "it is empty", "save it anew"
        elif not wrong:
            first, mend = "it ends with its first line", "put the texts below it"
        elif found := [sep for sep in ";\t|" if set(columns) <= {one.strip() for one in ",".join(names).split(sep)}]:
            mend = f"save it with commas in place of {found[0]!r}"
        elif wrong[0] in names:
            mend = f"rename one of the columns {wrong[0]}"
        raise ValueError(
            f"{path} needs {what}, once each, separated by a comma, and a line for each text; {first}: {mend}"
        )
    found_rows: list[tuple[int, str, str]] = []
    for line, fields in lines[1:]:
        row = dict(zip(names, fields, strict=False))
        text, label, lacks = row.get(columns[0], ""), "".join(row.get(name, "") for name in columns[1:]).strip(), ""
        if len(fields) != len(names):
            lacks = f'{len(fields)} fields, the first line has {len(names)}: use quotes, "well, it is good",pos'
        elif not text.strip() or not (label or len(columns) == 1):
            lacks = f"no {'label' if text.strip() else 'text'}: leave the line out"
        if lacks:
            raise ValueError(f"{path}, line {line} has {lacks}")
        found_rows.append((line, text, label))
    return found_rows
