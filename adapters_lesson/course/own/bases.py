"""The base model by its name: MiniLM's layers, or a model of transformers by its folder or its name on the hub."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters_lesson.architectures import Architecture, base_model_of
from adapters_lesson.data import load_tokenizer
from adapters_lesson.guards.foreign import decoded, foreign
from adapters_lesson.guards.label_names import labels_of, set_labels
from adapters_lesson.guards.model_calls import positions_of
from adapters_lesson.guards.safe_files import read_json
from adapters_lesson.transformer import Classifier, SmallTransformer

MINILM = re.compile("minilm(?::([1-6])?)?")


def tokenizer_of(base: str) -> Any:
    """The tokenizer of the base model called ``base``. Raises ValueError if there is none."""
    if MINILM.fullmatch(base):
        return load_tokenizer()
    _pretrained("AutoConfig", base)  # without one there is no model, which says more
    return kept_tokenizer(base)


def kept_tokenizer(place: str) -> Any:
    """The tokenizer in a folder, which need not have a model."""
    tokenizer = _pretrained("AutoTokenizer", place)
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # transformers makes an empty one where there is none
        mend = "put its files there, tokenizer.save_pretrained(FOLDER)"
        raise ValueError(f"{place} has no tokenizer, so nobody knows its words: {mend}")
    return tokenizer


def load_classifier(base: str, labels: Sequence[str], architecture: Architecture | None = None) -> nn.Module:
    """A classifier of texts on the base model called ``base``, with these labels.

    It is a ``Classifier``, so that all that is new is in the head, and is saved. A model that was saved with a head
    for these very labels keeps it. Raises ValueError when there is no such model, or it is not whole.
    """
    if found := MINILM.fullmatch(base):
        return Classifier(SmallTransformer.from_minilm(int(found[1] or 6)), labels)
    config = _pretrained("AutoConfig", base)
    if any(str(kind).endswith("ForSequenceClassification") for kind in config.architectures or ()):
        model = _whole("AutoModelForSequenceClassification", base)
        own = labels_of(model)
        if own == tuple(labels) or (own is None and model.num_labels == len(labels)):
            if own is None:
                set_labels(model, tuple(labels))
            _give_padding(model.config.get_text_config())
            return model
        theirs = f"has a head for {', '.join(own or [f'{model.num_labels} labels'])}"
        warnings.warn(f"{base} {theirs}: it gets a new one for {', '.join(labels)}", stacklevel=2)
    model = _whole("AutoModel", base)
    if hasattr(model, "pooler"):
        model.pooler = None  # nobody calls it: the head takes the mean over the words
    model.config.use_cache = False
    return Classifier(model.get_encoder() if "t5" in config.model_type else model, labels, architecture=architecture)


def read_architecture(path: str | None) -> Architecture | None:
    """An ``Architecture`` from a JSON file with its fields. Raises StorageError for another."""
    return None if path is None else decoded(Architecture, read_json(Path(path).expanduser()), path)


def longest_text(model: nn.Module) -> int | None:
    """How many tokens the base model reads at most; None if nothing says so."""
    base = base_model_of(model)
    return positions_of(base) or getattr(getattr(base, "config", None), "max_position_embeddings", None)


def licence_of(base: str) -> str:
    """What is stated about it: by the course, or in the README.md of a model's folder."""
    if MINILM.fullmatch(base) or base == "smollm2":
        return "Apache-2.0"
    readme = Path(base).expanduser() / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    stated = re.search(r"\A---\n(?:.*\n)*?license: *(\S.*)\n(?:.*\n)*?---\n", text)
    return stated[1].strip() if stated else ""


def _give_padding(config: Any) -> None:
    """A decoder with a head finds a text's last word by what follows: a token that stands in no text."""
    if config.pad_token_id is None:
        ends = config.eos_token_id
        config.pad_token_id = ends[0] if isinstance(ends, list) else ends


def _whole(kind: str, base: str) -> Any:
    """A model all of whose weights come from its files, in single precision."""
    model, report = _pretrained(kind, base, dtype=torch.float32, output_loading_info=True)
    if lacking := sorted(key for key in report["missing_keys"] if "pooler" not in key or kind != "AutoModel"):
        what = f"{lacking[0]}, …" if len(lacking) > 1 else lacking[0]
        raise ValueError(f"{base} has no weights for {what} of a {type(model).__name__}: do its files belong together?")
    return model


def _pretrained(kind: str, base: str, **options: Any) -> Any:
    import transformers

    transformers.utils.logging.set_verbosity_error()  # what matters is said below, in one sentence
    transformers.utils.logging.disable_progress_bar()
    folder = Path(base).expanduser()
    if folder.is_dir() and kind != "AutoTokenizer" and not (folder / "config.json").is_file():
        what = f"no model, but {found}" if (found := foreign(folder)) else "no model"
        raise ValueError(f"{base} has no config.json, so it is {what}: model.save_pretrained(FOLDER) writes a model")
    try:
        place = str(folder) if folder.is_dir() else base
        return getattr(transformers, kind).from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # it raises many kinds
        why = " ".join(str(error).split())[:300]
        if not folder.is_dir():
            hub = "the Hugging Face hub's cache has none of that name; only with a network it is fetched"
            why = f"there is no folder {base}, and {hub}: give a folder that save_pretrained wrote"
        raise ValueError(why if base in why else f"{base} cannot be loaded by {kind}: {why}") from error
