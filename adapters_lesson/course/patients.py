"""Twelve patients for ``doctor.diagnose``: tiny random models and saved folders, each drawn from a seed."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SIZE = {"vocab_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 24}
_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Patient:
    """What its owner says, what ``diagnose`` is given, and the one trouble that it has."""

    complaint: str
    given: dict[str, Any]  # the arguments of ``diagnose``, by name
    trouble: str


def patient(number: int, seed: int, folder: str | Path) -> Patient:
    """Patient 1 to 12, drawn from ``seed``; what it needs of files is put into ``folder``, which must be empty."""
    if number not in range(1, len(PATIENTS) + 1):
        raise ValueError(f"there are the patients 1 to {len(PATIENTS)}, not {number!r}")
    return admit(PATIENTS[number - 1], seed, folder)


def admit(case: Callable[[Path], Any], seed: int, folder: str | Path) -> Any:
    """A case drawn from ``seed``; random numbers outside go on as before."""
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries warn of some of these
        torch.manual_seed(seed)
        return case(Path(folder))


def bert(width: int = 16) -> Any:
    """A classifier of transformers."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(hidden_size=width, intermediate_size=2 * width, **SIZE)).eval()


def llama(vocabulary: int = 40) -> Any:
    """A language model of transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    more = {"hidden_size": 16, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(**(SIZE | more | {"vocab_size": vocabulary}))).eval()


def lora(model: Any, **settings: Any) -> Any:
    """``model`` with a new LoRA of peft on query and value."""
    from peft import LoraConfig, get_peft_model

    targets = ["query", "value"] if hasattr(model, "bert") else ["q_proj", "v_proj"]
    return get_peft_model(model, LoraConfig(**({"r": 4, "target_modules": targets} | settings)))


def load(model: Any, folder: Path) -> Any:
    """``model`` with the adapter of peft that is in ``folder``."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder))


def batch_of(model: Any) -> dict[str, torch.Tensor]:
    """Four texts with labels for a model of transformers."""
    ids = torch.randint(2, 40, (4, 6))
    labels = torch.tensor([0, 1, 0, 1]) if model.config.model_type == "bert" else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def optimizer_of(model: nn.Module, rate: float = 1e-2) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)


def trained(model: Any, steps: int = 3) -> Any:
    """``model`` after some steps."""
    optimizer, batch = optimizer_of(model), batch_of(model)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(str(folder))
    return folder


def _rename(folder: Path, old: str, new: str) -> None:
    tensors = {key.replace(old, new, 1): tensor for key, tensor in load_file(folder / _WEIGHTS).items()}
    save_file(tensors, folder / _WEIGHTS, {"format": "pt"})


def _zero(folder: Path) -> Patient:
    saved(trained(lora(llama())), folder)
    _rename(folder, "base_model.model.", "")  # as another tool saves them
    return Patient(
        "I loaded my adapter, and the model answers as before.", {"model_or_folder": load(llama(), folder)}, "zero"
    )


def _keys(folder: Path) -> Patient:
    saved(trained(lora(llama())), folder)
    _rename(folder, "base_model.model.", "base_model.model.module.")  # trained in DistributedDataParallel
    given = {"model_or_folder": folder, "base": llama()}
    return Patient("peft warns of missing keys, and my adapter has no effect.", given, "keys")


def _base(folder: Path) -> Patient:
    given = {"model_or_folder": saved(trained(lora(bert(), task_type="SEQ_CLS")), folder), "base": bert(24)}
    return Patient("A colleague sent me this adapter: size mismatch.", given, "base")


def _head(folder: Path) -> Patient:
    folder = saved(trained(lora(bert())), folder)
    return Patient("70 % in training, guessing after loading.", {"model_or_folder": load(bert(), folder)}, "head")


def _empty(folder: Path) -> Patient:
    saved(trained(lora(llama())), folder)
    (folder / _WEIGHTS).unlink()
    torch.save({}, folder / "adapter_model.bin")
    return Patient("The training went well, but the file is tiny.", {"model_or_folder": folder}, "empty")


def _whole_model(folder: Path) -> Patient:
    model = trained(lora(bert()))
    saved(model, folder)
    save_file({key: t.clone() for key, t in model.state_dict().items()}, folder / _WEIGHTS, {"format": "pt"})
    return Patient("My adapter takes as much disk as the model.", {"model_or_folder": folder}, "whole model")


def _inactive(folder: Path) -> Patient:
    model = load(llama(), saved(trained(lora(llama())), folder))
    model.base_model.disable_adapter_layers()  # after a comparison with the base model
    return Patient("It worked, and since the comparison it is the base model.", {"model_or_folder": model}, "inactive")


def _merged(folder: Path) -> Patient:
    model = trained(lora(llama()), 20)
    saved(model, folder)
    again = load(model.merge_and_unload(), folder)
    return Patient("I merged it for speed, and it overdoes everything.", {"model_or_folder": again}, "merged")


def _half(folder: Path) -> Patient:
    model = lora(llama()).half()
    given = {"model_or_folder": model, "optimizer": optimizer_of(model)}
    return Patient('"Attempting to unscale FP16 gradients", or the loss is NaN.', given, "half precision")


def _checkpointing(folder: Path) -> Patient:
    model = lora(llama())
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.disable_input_require_grads()  # which transformers 5 enables by itself
    given = {"model_or_folder": model, "optimizer": optimizer_of(model), "batch": batch_of(model)}
    return Patient('"element 0 of tensors does not require grad"', given, "checkpointing")


def _optimiser(folder: Path) -> Patient:
    model = bert()
    optimizer = optimizer_of(model)
    model = lora(model, task_type="SEQ_CLS")
    return Patient("The loss does not move.", {"model_or_folder": model, "optimizer": optimizer}, "optimiser")


def _tokens(folder: Path) -> Patient:
    model = llama()
    model.resize_token_embeddings(44)
    saved(trained(lora(model, modules_to_save=["embed_tokens"])), folder)
    given = {"model_or_folder": folder, "base": llama()}
    return Patient("I added four tokens before training. Now it does not load.", given, "tokens")


PATIENTS = [
    _zero, _keys, _base, _head, _empty, _whole_model, _inactive, _merged, _half, _checkpointing, _optimiser, _tokens,
]  # fmt: skip
