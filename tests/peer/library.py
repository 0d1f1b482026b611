"""The library adapters, in the environment .peer: test_adapterhub_peer.py asks, in lines of JSON, and this answers.

It imports nothing of the course, so that what it says about the files and the modules is the library's own word.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from safetensors.torch import load_file

torch.set_num_threads(1)


class Library:
    """One model at a time, and what may be asked of it. Tensors come as nested lists, weights as safetensors files."""

    def versions(self) -> dict[str, str]:
        return {package: version(package).partition("+")[0] for package in ("adapters", "transformers", "torch")}

    def make(self, model_class: str, config: dict[str, Any], weights: str) -> None:
        """A model of transformers, or one of the library's with flexible heads (then without a head at first)."""
        home = transformers if hasattr(transformers, model_class) else adapters
        kind = getattr(home, model_class)
        self.model = kind(kind.config_class(**config))
        missing, unexpected = self.model.load_state_dict(load_file(weights), strict=False)
        # The library gives the embeddings a second name.
        assert not unexpected and all("prompt_tuning" in key for key in missing), (missing, unexpected)
        if home is transformers:
            adapters.init(self.model)
        self.model.eval()

    def add(self, name: str, config: str | dict[str, Any], seed: int) -> None:
        """A new adapter with weights large enough that every part matters, and the active one."""
        self.model.add_adapter(name, config=config)
        self.model.set_active_adapters(name)
        torch.manual_seed(seed)
        with torch.no_grad():
            for key, parameter in self.model.named_parameters():
                if f"adapters.{name}." in key:
                    parameter.normal_(std=0.2)
        self.model.eval()

    def save(self, folder: str, name: str, safe: bool) -> list[str]:
        self.model.save_adapter(folder, name, use_safetensors=safe)
        return sorted(file.name for file in Path(folder).iterdir())

    def load(self, folder: str, safe: bool = True, load_as: str | None = None) -> dict[str, Any]:
        """Load an adapter (and head) and make it the active one; with it what the library said, it only logs."""
        said = Said()
        logging.getLogger("adapters").addHandler(said)
        info: dict[str, list[str]] = {}
        try:
            name = self.model.load_adapter(
                folder, load_as=load_as, set_active=True, use_safetensors=safe, loading_info=info
            )
        finally:
            logging.getLogger("adapters").removeHandler(said)
        self.model.eval()
        return {"name": name, "said": said.lines, "info": info, "active": repr(self.model.active_adapters)}

    @torch.no_grad()
    def output(self, inputs: dict[str, list[list[int]]]) -> list[Any]:
        """Hidden states or logits, in evaluation mode."""
        return self.model(**{key: torch.tensor(value) for key, value in inputs.items()})[0].tolist()

    def labels(self) -> dict[int, str]:
        return self.model.config.id2label

    def grid(self, cases: list[dict[str, Any]], weights: str, inputs: dict[str, Any]) -> list[Any]:
        """The output for each case: an adapter with its ``config``, whose modules are filled from ``weights``.

        There ``CASE.N.down.weight`` and so on are module N's, in the order in which the modules are run.
        """
        tensors, answers = load_file(weights), []
        for case in cases:
            self.model.add_adapter("grid", config=case["config"])
            self.model.set_active_adapters("grid")
            modules = []
            for i, layer in self.model.base_model.iter_layers():
                if hasattr(layer, "output_adapters"):
                    places = (layer.attention_adapters, layer.output_adapters)
                else:
                    places = (layer.attention.output, layer.output)
                modules += [(i, place.adapters["grid"]) for place in places if "grid" in place.adapters]
            with torch.no_grad():
                for n, (_, module) in enumerate(modules):
                    module.adapter_down[0].weight.copy_(tensors[f"{case['id']}.{n}.down.weight"])
                    module.adapter_down[0].bias.copy_(tensors[f"{case['id']}.{n}.down.bias"])
                    module.adapter_up.weight.copy_(tensors[f"{case['id']}.{n}.up.weight"])
                    module.adapter_up.bias.copy_(tensors[f"{case['id']}.{n}.up.bias"])
            self.model.eval()
            answers.append({"modules": [i for i, _ in modules], "output": self.output(inputs)})
            self.model.delete_adapter("grid")
        return answers

    def presets(self) -> dict[str, dict[str, Any]]:
        return {name: adapters.AdapterConfig.load(name).to_dict() for name in ("double_seq_bn", "seq_bn", "par_bn")}

    def defaults(self) -> dict[str, Any]:
        """The settings of a bottleneck adapter; those without a default are None."""
        config = adapters.BnConfig(mh_adapter=None, output_adapter=None, reduction_factor=None, non_linearity=None)
        return config.to_dict()


class Said(logging.Handler):
    """Keeps the library's complaints about keys, which it makes at the level INFO."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main() -> None:
    """Answer one request a line; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.getLogger("adapters").setLevel(logging.INFO)
    library = Library()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(library, request.pop("do"))(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
