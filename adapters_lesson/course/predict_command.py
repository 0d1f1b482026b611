"""What a model that `train --save FOLDER` left behind says of texts: the label, and how probable each label is."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from adapters_lesson.data import encode
from adapters_lesson.evaluation import predict
from adapters_lesson.guards.plain_values import check_whole
from adapters_lesson.guards.safe_files import PretrainedFileError, check_writable, write_atomically

from .own.saved_run import check_replaced, load_run
from .own.tables import KINDS, read_texts

BEGINNINGS = ("text,label,p(", '"probabilities": {')  # of answers: CSV, and JSON lines
EPILOG = "Exit status: 0, 1 when the answers could not be written, 2 when something was refused."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the texts, and where the answers go."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what train --save FOLDER has written")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", action="append", metavar="TEXT", help="a text; may be given several times")
    texts.add_argument("--file", metavar="FILE", help=f"a table ({', '.join(KINDS)}) with a column of texts, or "
        "any other file with one text a line; - reads such lines from the standard input")  # fmt: skip
    add("--text-column", metavar="NAME", help="the column of the texts (default: as in the training)")
    add("--base", metavar="PLACE", help="where the base model is now, if it was moved")
    add("--batch-size", type=int, default=64, metavar="N", help="texts at once (default: %(default)s)")
    add("--out", metavar="FILE", help="JSON lines if its name ends in .jsonl, else CSV (default: CSV, printed)")
    add("--json", action="store_true", help="JSON lines, whatever the name")


def run(arguments: argparse.Namespace) -> int:
    """Answer each text, in the order of the texts; returns the exit status."""
    try:
        check_whole("--batch-size", arguments.batch_size)
        if arguments.out:
            check_writable("--out", Path(arguments.out))
            check_replaced("--out", Path(arguments.out), BEGINNINGS)
        model, tokenizer, run = load_run(arguments.folder, arguments.base)
        texts = arguments.text or read_texts(arguments.file, arguments.text_column or run.text_column)
        from datasets import Dataset

        data = encode(Dataset.from_dict({"text": texts}), tokenizer, run.max_length)
        shares = predict(model, data, arguments.batch_size).softmax(-1)  # (texts, labels)
    except (ValueError, OSError, PretrainedFileError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    as_json = arguments.json or str(arguments.out).endswith(".jsonl")
    said = _lines(texts, shares, run.labels, as_json)
    try:
        if arguments.out:
            write_atomically(arguments.out, lambda temporary: temporary.write_text(said, encoding="utf-8", newline=""))
        else:
            sys.stdout.write(said)
    except (ValueError, OSError) as error:
        print(f"predict: {arguments.out or 'the answers'} could not be written: {error}", file=sys.stderr)
        return 1
    return 0


def _lines(texts: Sequence[str], shares: torch.Tensor, labels: Sequence[str], as_json: bool) -> str:
    """A line for each text: itself, the most probable label, and the probability of each."""
    rows = [(text, labels[int(row.argmax())], row.tolist()) for text, row in zip(texts, shares.cpu(), strict=True)]
    if as_json:
        dicts = (
            {"text": t, "label": said, "probabilities": dict(zip(labels, row, strict=True))} for t, said, row in rows
        )
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in dicts)
    with io.StringIO(newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label", *(f"p({label})" for label in labels)])
        writer.writerows([text, said, *(f"{share:.6f}" for share in row)] for text, said, row in rows)
        return file.getvalue()
