"""Before anything is inserted: is it known where the parts of the base model are, and can an adapter stand on it?"""

import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from adapters_lesson.slots import AdapterSlot, slots_of

from . import quantised_base
from .plain_values import REAL, check_choice, check_whole, shown

EXAMPLE = (
    'insert_adapters(model, config, architecture=Architecture(layers="blocks", attention_output="attn.proj", '
    'ffn_output="ffn.out", ffn_input="norm2", norms=("norm1", "norm2"), norm="pre", lora_targets=("query", "value"), '
    "model_dim=16))"
)


def check_names(architecture: Any) -> None:
    """Raise ValueError unless the fields of an ``Architecture`` are names. Lists become tuples, one name as well."""
    own = vars(architecture)
    for field in ("norms", "lora_targets"):
        value = () if own[field] is None else own[field]
        own[field] = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    sublayer = ("attention_sublayer",) if own["attention_sublayer"] is not None else ()
    for field in ("layers", "attention_output", "ffn_output", "ffn_input", "norms", "lora_targets", *sublayer):
        names = own[field] if isinstance(own[field], tuple) else (own[field],)
        for name in names:
            with suppress(re.error, TypeError):
                if isinstance(name, str) and re.compile(name):
                    continue
            raise ValueError(f"{field} must name a module by its path, not {shown(name)}")
    if not architecture.norms:
        raise ValueError('norms must name the LayerNorms of a block, for instance norms=("norm1", "norm2")')
    check_choice("norm", architecture.norm, ("post", "pre"))
    if architecture.model_dim is not None:
        own["model_dim"] = check_whole("model_dim", architecture.model_dim)


def unknown_architecture(model: nn.Module, base: nn.Module, inside: dict[str, nn.Module], known: int) -> str:
    """What to do with a base model that the table with ``known`` entries does not have; ``inside`` are others in it."""
    model_type = getattr(getattr(base, "config", None), "model_type", None)
    what = f"the architecture {model_type!r} of {type(model).__name__}" if model_type else type(model).__name__
    if paths := [path for path, module in model.named_modules() if any(module is one for one in inside.values())]:
        which = "it has one inside" if len(paths) == 1 else f"it has {len(paths)} inside ({', '.join(paths)})"
        return f"{what} is not in the table of architectures, but {which}: insert_adapters(model.{paths[0]}, config)"
    return (
        f"{what} is not in the table of architectures (bert, gpt2, llama and {known - 3} more in adapters_lesson."
        "architectures.ARCHITECTURES): say where the parts are, as this does for blocks that add attn(norm1(x)), then "
        f"ffn(norm2(x)) to x, {EXAMPLE}; the last two may be left out"
    )


def check_weights(blocks: list[nn.Module], *, trained: bool) -> None:
    """Raise ValueError unless an adapter can stand on the weights of ``blocks``, ``trained``: and learn there."""
    if trained and torch.is_inference_mode_enabled():
        raise ValueError("what is made inside torch.inference_mode() can never be trained: leave the with block first")
    for block in blocks:
        quantised_base.keep_bytes(block)
        for path, module in block.named_modules():
            if "quantized" in type(module).__module__:
                raise ValueError(f"{path} is a quantised {type(module).__name__}: insert the adapters before that")
        if not (named := dict(block.named_parameters())):
            raise ValueError(f"a {type(block).__name__} has no weights: nothing tells an adapter's device and type")
        for path, parameter in named.items():
            if quantised_base.is_quantised(parameter):
                if trained:
                    quantised_base.check_gradient(path, block.get_submodule(path.rpartition(".")[0]))
            elif parameter.dtype not in REAL:
                mend = "model.bfloat16() first" if parameter.is_floating_point() else "load the model unquantised"
                raise ValueError(f"{path} is {parameter.dtype}, and an adapter needs floating-point weights: {mend}")
        if trained:
            check_no_inference(block)
    meta = [any(p.is_meta for p in block.parameters()) for block in blocks]
    if any(meta) and not all(meta) and not any(hasattr(m, "_hf_hook") for block in blocks for m in block.modules()):
        raise ValueError(f"block {meta.index(True)} has no numbers yet: model.load_state_dict(weights, assign=True)")


def check_no_inference(model: nn.Module) -> None:
    for path, parameter in model.named_parameters():
        if parameter.is_inference():
            raise ValueError(f"{path} was made in torch.inference_mode(): model = copy.deepcopy(model) mends it")


def check_places(places: Iterable[Any], config: Any) -> None:
    """Raise ValueError when two modules would get into one place, or no norm could be trained that should be."""
    slots = [(host, slot_type) for host, slot_type, _, _ in places]
    if len(set(slots)) < len(slots):  # the first adapter would be lost
        twice = max(slots, key=slots.count)[0]
        raise ValueError(f"several blocks share one {type(twice).__name__}: AdapterConfig(..., layers=(0,))")
    if config.train_layer_norms and not any(slot_type.attribute == "trained_norms" for _, slot_type in slots):
        raise ValueError("the norms of these blocks have no weights to train: leave train_layer_norms out")


def check_is_called(block: nn.Module, host: nn.Module, name: str) -> None:
    """Raise ValueError where nobody calls the forward of ``host``, which ``name`` names."""
    for path, module in block.named_modules():
        if isinstance(module, nn.MultiheadAttention) and host in module.modules():
            raise ValueError(
                f"{name} is {type(host).__name__} inside {path!r}, an nn.MultiheadAttention, which uses its weight and "
                "never calls it: an adapter there would not run. Name another module, or another placement"
            )


def beside_blocks(model: nn.Module) -> tuple[list[str], list[str]]:
    """The children of a class of one's own that have the blocks, and those that look like its head."""
    if hasattr(model, "save_pretrained"):
        return [], []
    inside = {key: list(child.modules()) for key, child in model.named_children()}
    kinds = (AdapterSlot,) if slots_of(model) else (nn.ModuleList, nn.Sequential)
    blocks = [key for key, modules in inside.items() if any(isinstance(m, kinds) for m in modules)]
    linear = [key for key, modules in inside.items() if any(isinstance(m, nn.Linear) for m in modules)]
    return blocks, [key for key in linear if key not in blocks] if blocks else []


def check_head(model: nn.Module, found: bool, head: bool | None) -> None:
    """Warn when ``head`` asks for one and none was ``found``; or, if it is None, when one may be frozen."""
    name, (blocks, beside) = type(model).__name__, beside_blocks(model)
    if found or head is False or not (head or beside):
        return
    said = f"no head of {name} was found: Classifier(model, 2) adds one, or its head is tied to the embeddings"
    if beside:
        base, mend = getattr(model, blocks[0]), f"model.{beside[-1]}.requires_grad_(True) after this trains it, save it"
        own = {key.partition(".")[0] for key, _ in model.named_parameters(remove_duplicate=False)}
        if own == {blocks[0], *beside} and not isinstance(base, (nn.ModuleList, nn.Sequential)):
            mend = f"type(model).base_model = property(lambda model: model.{blocks[0]}) says what is the base"
        said = f"{', '.join(beside)} of {name} is frozen, as nothing says that it is a head: {mend}, or head=False"
    warnings.warn(said, stacklevel=3)


def check_reads_texts(base_model: nn.Module) -> None:
    """Raise ValueError for a T5 with its decoder, which wants a second text. (BART's makes one of the first.)"""
    if getattr(getattr(base_model, "config", None), "model_type", None) == "t5" and hasattr(base_model, "decoder"):
        raise ValueError("the decoder of a T5 wants a text: take the encoder, Classifier(model.get_encoder(), 2)")
