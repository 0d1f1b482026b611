"""What `train --save FOLDER` keeps, so that `predict FOLDER` needs nothing else but the base model."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.architectures import Architecture
from adapters_lesson.guards.bank_guard import adapter_names
from adapters_lesson.guards.base_parts import Part, check_same_base
from adapters_lesson.guards.foreign import check_tensors, decoded, foreign, may_be_ours, place
from adapters_lesson.guards.safe_files import StorageError, read_json, read_safetensors, verify, write_atomically
from adapters_lesson.methods import METHODS, prepare
from adapters_lesson.storage import fingerprint, load_adapter, save_adapter

from .bases import kept_tokenizer, load_classifier

EXAMPLE = (
    '{"layers": "blocks", "attention_output": "attn.proj", "ffn_output": "ffn.out", "ffn_input": "norm2", '
    '"norms": ["norm1", "norm2"], "norm": "pre", "lora_targets": ["query", "value"]}'
)
WITHOUT_NAMES = [method for method in METHODS if method not in ("adapter", "lora")]
FILE, CARD = "run.json", "README.md"
MARK = "<!-- written by adapters_lesson train -->"  # a card without it is somebody's own


@dataclass(frozen=True)
class SavedRun:
    """run.json, which is written last: it knows the other files by their SHA-256."""

    format: int
    base: str  # its name, or the absolute path of its folder
    base_sha256: str  # of the base model's tensors before the training, as the next
    base_parts: dict[str, Part]
    method: str
    config: dict[str, Any] | None  # of adapters
    lora_rank: int
    architecture: dict[str, Any] | None
    labels: tuple[str, ...]
    max_length: int
    text_column: str
    name: str = ""  # of the file of weights
    weights: str = ""  # its SHA-256, as the next
    tokenizer: str = ""

    @property
    def place_names(self) -> Architecture | None:
        """Where the base model has its parts, if the table does not know."""
        return decoded(Architecture, self.architecture, "the architecture") if self.architecture else None

    def prepare(self, model: nn.Module) -> None:
        """Make ``model`` ready to be trained as in this run."""
        config = decoded(AdapterConfig, self.config, "the config") if self.config else None
        try:
            prepare(model, self.method, config, lora_rank=self.lora_rank, architecture=self.place_names)
        except ValueError as error:
            if "not in the table" not in str(error):
                raise
            mend = f"name its parts, --architecture FILE with {EXAMPLE}, or take --method {', '.join(WITHOUT_NAMES)}"
            raise ValueError(f"{str(error).partition(': say where')[0]}: {mend}") from error


def check_free(folder: Path, method: str) -> None:
    """Raise ValueError where something would be replaced, or stand in the way, that is not of an earlier run."""
    card, what = folder / CARD, foreign(folder) if folder.is_dir() else None
    if what:
        raise ValueError(f"--save {folder} is {what}: nothing is written beside it, choose another folder")
    if not (card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")):
        for mine in (card, folder / FILE, folder / "tokenizer", folder / f"{method}.safetensors"):
            if mine.exists():
                raise ValueError(f"{mine} is not one that train has written, and is left alone: choose another folder")


def check_replaced(option: str, path: Path, signs: Sequence[str]) -> None:
    """Raise ValueError for a file that does not begin as what would replace it: it may be somebody's only copy."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            begins = file.readline() + file.readline()
        if begins and not any(sign in begins for sign in signs):
            raise ValueError(f"{option} {path} is there, and not from an earlier run: give another name, or remove it")


def save_weights(model: nn.Module, folder: Path, run: SavedRun, about: dict[str, str]) -> Path:
    """Save what was trained: adapters by ``save_adapter``, else a file called after the method."""
    if adapter_names(model):
        return save_adapter(model, folder, architecture=run.place_names)
    from safetensors.torch import save

    tensors = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    path, entries = folder / f"{run.method}.safetensors", about | {"labels": json.dumps(run.labels)}
    write_atomically(path, partial(Path.write_bytes, data=save(tensors, entries)))
    return path


def save_run(run: SavedRun, folder: Path, weights: Path, tokenizer: Any, card: str) -> None:
    """Write the card, by which others know whose folder it is, then the tokenizer, and then run.json."""
    kept = folder / "tokenizer"
    write_atomically(folder / CARD, partial(Path.write_bytes, data=card.encode()))
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save_pretrained(temporary)
        made = {file.name: file.read_bytes() for file in Path(temporary).iterdir() if file.is_file()}
    for old in kept.glob("*"):
        if old.name not in made:
            old.unlink()
    for name, content in made.items():
        write_atomically(kept / name, partial(Path.write_bytes, data=content))
    sums = {"weights": hashlib.sha256(weights.read_bytes()).hexdigest(), "tokenizer": _sum(kept)}
    text = json.dumps(asdict(run) | {"name": weights.stem} | sums, indent=1) + "\n"
    write_atomically(folder / FILE, partial(Path.write_bytes, data=text.encode()))


def load_run(folder: str, base: str | None = None) -> tuple[nn.Module, Any, SavedRun]:
    """The model as it was trained, its tokenizer, and the run. ``base`` is where its base model is now, if not there.

    Raises ValueError when something is missing, damaged or replaced, or the base model is another.
    """
    where = Path(folder).expanduser()
    if not (where / FILE).is_file():
        raise ValueError(f"{folder} has no {FILE}: give the folder that train --save FOLDER has written")
    run = decoded(SavedRun, read_json(where / FILE), f"{where / FILE}")
    if not run.labels:
        raise ValueError(f"{folder} is a language model's: predict is for what was trained on texts with labels")
    mend = f"train --save {folder} writes all of its files anew, or take them from a backup"
    kept, path = where / "tokenizer", verify(place(where, run.name), run.weights, mend)
    if _sum(kept) != run.tokenizer:
        raise ValueError(f"{kept} is damaged, or not the one of this run: {mend}")
    there = base or run.base
    if Path(there).is_absolute() and not Path(there).is_dir():
        raise ValueError(f"the base model of {folder} is not in {there} any more: --base PLACE says where it is now")
    model = load_classifier(there, run.labels, run.place_names)
    try:
        for note in check_same_base(model, run.base_sha256, fingerprint(model), run.base_parts, pools=False):
            warnings.warn(f"the base model {there}: {note}", stacklevel=2)
    except StorageError as error:
        raise ValueError(f"the base model {there} has changed, or is not the one of {folder}: {error}") from error
    if may_be_ours(path):
        load_adapter(model, where, run.name, architecture=run.place_names)
    else:
        _, tensors = read_safetensors(path)
        run.prepare(model)
        own = {key: p for key, p in model.named_parameters() if p.requires_grad}
        check_tensors(path, tensors, {key: tuple(p.shape) for key, p in own.items()})
        model.load_state_dict(tensors, strict=False)
    return model.eval(), kept_tokenizer(str(kept)), run


def _sum(folder: Path) -> str:
    """One SHA-256 over names and bytes of all files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()
