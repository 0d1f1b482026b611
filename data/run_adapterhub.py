"""Trained adapters of ours in the library `adapters`, and back: `python data/run_adapterhub.py` writes adapterhub.json.

For each placement adapters in MiniLM learn the aspect task. They are exported, the library loads them into its own
MiniLM, runs the test texts and saves them again, as a pickle; that is imported here and run once more. `make peer`
makes the environment in which the library lives; this program calls itself there, with the folder of the files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".peer" / "bin" / "python"
TASK, WIDTH, EPOCHS, LEARNING_RATE, SEED, TEXTS = "aspect_sentiment", 16, 4, 3e-3, 0, 500
SETTINGS: dict[str, dict[str, Any]] = {
    "houlsby": {"activation": "silu"},
    "pfeiffer": {"activation": "relu", "layers": (2, 3, 4, 5)},
    "parallel": {"activation": "gelu", "scaling": 4.0},
}


def learn(placement: str, data: Any) -> Any:
    """A classifier with trained adapters."""
    from adapters_lesson import AdapterConfig, Classifier, load_minilm, prepare
    from adapters_lesson.training import train

    torch.manual_seed(SEED)
    model = Classifier(load_minilm(), data["train"].features["label"].num_classes)
    prepare(model, "adapter", AdapterConfig(WIDTH, placement=placement, **SETTINGS[placement]))
    train(model, data["train"], epochs=EPOCHS, learning_rate=LEARNING_RATE, seed=SEED, progress=False)
    return model


@torch.inference_mode()
def run(base: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Last hidden states ``(texts, length, d)`` of a BertModel, in evaluation mode; padding is zero."""
    base.eval()
    parts = [base(i, attention_mask=m).last_hidden_state for i, m in zip(ids.split(50), mask.split(50), strict=True)]
    return torch.cat(parts) * mask.unsqueeze(-1)


def in_the_library(folder: Path) -> None:
    """Load each adapter in ``folder`` into the library's model, run it, and save it again. In the environment .peer."""
    import adapters  # type: ignore[import-not-found]
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    inputs = load_file(folder / "inputs.safetensors")
    base = BertModel(BertConfig(**json.loads((folder / "config.json").read_text())), add_pooling_layer=False)
    base.load_state_dict(load_file(folder / "base.safetensors"))
    adapters.init(base)
    outputs = {"bare": run(base, **inputs)}
    for placement in SETTINGS:
        # Each under a name of its own: under one that is taken, the library keeps the settings of the adapter before.
        name = base.load_adapter(str(folder / placement), load_as=placement, set_active=True, use_safetensors=True)
        outputs[placement] = run(base, **inputs)
        base.save_adapter(str(folder / f"{placement}_back"), name)
    save_file(outputs, folder / "outputs.safetensors")
    versions = {package: version(package).partition("+")[0] for package in ("adapters", "transformers", "torch")}
    (folder / "versions.json").write_text(json.dumps(versions))


def hand_over(folder: Path, bare: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Write what the library needs besides the adapters: MiniLM and the texts."""
    from safetensors.torch import save_file

    save_file({key: tensor.contiguous() for key, tensor in bare.state_dict().items()}, folder / "base.safetensors")
    save_file({"ids": ids, "mask": mask}, folder / "inputs.safetensors")
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    (folder / "config.json").write_text(json.dumps({key: getattr(bare.config, key) for key in sizes}))


def compare(folder: Path) -> dict[str, Any]:
    """Train, export, let the library work in ``folder``, import again: a row for each placement."""
    from safetensors.torch import load_file

    from adapters_lesson import encode, load_minilm, load_task, load_tokenizer
    from adapters_lesson.exchange.adapterhub import export_adapterhub, import_adapterhub
    from adapters_lesson.training import Texts

    data = encode(load_task(TASK), load_tokenizer())
    ids, mask, labels = Texts(data["test"]).batch(list(range(TEXTS)))
    hand_over(folder, load_minilm(), ids, mask)
    models = {placement: learn(placement, data) for placement in SETTINGS}
    for placement, model in models.items():
        export_adapterhub(model, folder / placement, with_head=False)
    subprocess.run([PEER, __file__, folder], check=True)
    theirs, rows = load_file(folder / "outputs.safetensors"), {}
    for placement, model in models.items():
        hidden, again = {"ours": run(model.base_model, ids, mask), "theirs": theirs[placement]}, load_minilm()
        import_adapterhub(again, folder / f"{placement}_back")
        hidden["again"] = run(again, ids, mask)
        answers = {side: model.head(h.sum(1) / mask.sum(1, keepdim=True)).argmax(-1) for side, h in hidden.items()}
        rows[placement] = {
            "settings": {"bottleneck_dim": WIDTH, **SETTINGS[placement]},
            "file_bytes": (folder / placement / "adapter.safetensors").stat().st_size,
            "largest_difference": largest(hidden["ours"] - hidden["theirs"]),
            "largest_difference_after_coming_back": largest(hidden["ours"] - hidden["again"]),
            "largest_change_by_the_adapters": largest(hidden["ours"] - theirs["bare"]),
            "accuracy": {side: round((answer == labels).double().mean().item(), 4) for side, answer in answers.items()},
            "answers_that_differ": int((answers["ours"] != answers["theirs"]).sum()),
        }
        print(placement, rows[placement], flush=True)
    return rows


def largest(difference: torch.Tensor) -> float:
    """The largest magnitude."""
    return difference.abs().max().item()


def main(path: Path) -> None:
    """Write the result; it fails when the two do not agree to 1e-4."""
    from adapters_lesson.guards.safe_files import write_atomically

    if not PEER.exists():
        sys.exit("The library adapters is not here: `make peer` makes its environment.")
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder))
        theirs = json.loads((Path(folder) / "versions.json").read_text())
    if max(row["largest_difference"] for row in rows.values()) > 1e-4:
        sys.exit(f"The library computes something else: {rows}")
    ours = {package: version(package).partition("+")[0] for package in ("adapters-lesson", "transformers", "torch")}
    result = {
        "command": "python data/run_adapterhub.py",
        "task": TASK,
        "model": "MiniLM, 6 layers of width 384",
        "texts": TEXTS,
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "seed": SEED,
        "cores": os.cpu_count(),
        "versions": {"ours": ours, "theirs": theirs},
        "rows": rows,
    }
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(result, indent=1) + "\n"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        in_the_library(Path(sys.argv[1]))
    else:
        main(ROOT / "data" / "results" / "adapterhub.json")
