"""Folders and files of adapters: saved, loaded, somebody else's, and for a base model in another dress."""

from __future__ import annotations

import json
import os
import time
import warnings

import numpy as np
import torch
import transformers as hf
from models import _BERT, inputs, make, output, randomise, slots, small, snapshot
from version_0_5 import make as version_0_5

from adapters_lesson import AdapterBank, AdapterConfig, Classifier, insert_adapters, list_adapters, load_adapter

from adapters_lesson import save_adapter  # isort: skip
from adapters_lesson.exchange.adapterhub import export_adapterhub, import_adapterhub
from adapters_lesson.exchange.version_0_5 import upgrade_folder
from adapters_lesson.guards.stored_file import read, write
from adapters_lesson.insertion import adapter_config, adapter_names
from habits import Habit, gives, holds, refuses, warns

CONFIG = AdapterConfig(4, placement="pfeiffer")


def trained(model, name="film", config=CONFIG):
    """Random adapters in ``model``."""
    insert_adapters(model, config, name)
    for slot in slots(model):
        randomise(slot, std=0.3)
    return model.eval()


def bert(kind="BertModel", labels=None, **more):
    """A tiny random BERT whose base weights are the same in every class; ``labels`` are in its config."""
    named = (
        {}
        if labels is None
        else {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
    )
    config = hf.BertConfig(**_BERT, **named, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = getattr(hf, kind)(config, **more)
    randomise(model)
    base = model if kind == "BertModel" else model.bert
    base.load_state_dict(make("bert").state_dict(), strict=False)
    return model.eval()


def moved(folder, source, target):
    """Saved from ``source`` and loaded into ``target``: the name."""
    save_adapter(trained(source), folder, "film")
    return load_adapter(target, folder)


def silent(call):
    """Whether ``call`` warns of nothing, and returns something true."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return bool(call())


def same_states(source, target):
    """Whether both make the same hidden states of the same texts."""
    bases = [getattr(model, "bert", getattr(model, "base_model", model)) for model in (source, target)]
    with torch.no_grad():
        one, two = (base(**inputs(base))[0] for base in bases)
    return torch.equal(one, two)


def shared(folder, source, target):
    """Whether ``target``, a base in another dress, takes the adapter and computes the same with it."""
    moved(folder, source, target)
    return same_states(source, target)


def half(folder, dtype, back=False):
    """Saved in single precision, loaded into a rounded copy; or the other way round."""
    source, target = make("bert_classifier"), make("bert_classifier").to(dtype)
    return moved(folder, *((target, source) if back else (source, target)))


def resized(tokens, changed=False):
    """A base with more tokens."""
    model = make("bert")
    model.resize_token_embeddings(40 + tokens, mean_resizing=False)
    if changed:
        with torch.no_grad():
            model.embeddings.word_embeddings.weight[3] += 1
    return model.eval()


def other_block():
    model = make("bert")
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[0] += 1
    return model


def other_pooler(model):
    with torch.no_grad():
        getattr(model, "bert", getattr(model, "base_model", model)).pooler.dense.bias[0] += 1
    return model


def without_parts(folder):
    """A file as it was written before there were parts."""
    from dataclasses import replace

    path = save_adapter(trained(make("bert")), folder, "film")
    settings, tensors = read(path)
    write(path, replace(settings, base_parts=None, head_of=None), tensors)
    content = path.read_bytes()
    return load_adapter(make("bert"), folder) == "film" and b'base_parts\\": null' in content


def labels_after(folder, source, target, get):
    moved(folder, source, target)
    return get(target)


def id2label(model):
    return list(model.config.id2label.values())


class Own(torch.nn.Module):
    """Blocks, and a head that nothing tells from the base."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        inner = small()
        self.config, self.word_embeddings, self.blocks = inner.config, inner.word_embeddings, inner.blocks
        self.head = torch.nn.Linear(16, 2)

    def forward(self, ids):
        h = self.word_embeddings(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean(1))


def own_head_comes_back(folder):
    """The two lines of the warning, carried out."""
    model = trained(Own())
    randomise(model.head)
    save_adapter(model, folder, "film")
    torch.save(model.head.state_dict(), folder / "head.pt")
    other = Own()
    other.head.load_state_dict(torch.load(folder / "head.pt"))
    load_adapter(other, folder)
    ids = torch.tensor([[3, 4, 5]])
    return torch.equal(model.eval()(ids), other.eval()(ids))


def two_in_one(folder):
    for name in "ab":
        model = trained(make("bert_classifier"), name)
        torch.nn.init.constant_(model.head.bias, ord(name))
        save_adapter(model, folder, name)
    model = make("bert_classifier")
    load_adapter(model, folder, "a")
    load_adapter(model, folder, "b")


def wrapped(folder, wrap):
    """Saved from a wrapped classifier, loaded into a plain one, and the other way round."""
    model, plain, other = trained(make("bert_classifier")), make("bert_classifier"), make("bert_classifier")
    save_adapter(wrap(model), folder, "film")
    load_adapter(plain, folder)
    load_adapter(wrap(other), folder)
    return torch.equal(output(model), output(plain)) and torch.equal(output(model), output(other))


def llama_classifier():
    """A classifier on the base of ``llama_head``."""
    source = make("llama_head")
    model = hf.LlamaForSequenceClassification(source.config)
    model.model.load_state_dict(source.model.state_dict())
    return model.eval()


# --- Folders that are not ours ----------------------------------------------------------------------------------------


def foreign(folder, settings, *files):
    """A folder of another tool's."""
    (folder / "default").mkdir()
    for file in files:
        (folder / "default" / file).write_bytes(b"weights")
    if settings is not None:
        (folder / "default" / "adapter_config.json").write_text(json.dumps(settings))
    return folder / "default"


PEFT = {"peft_type": "LORA", "r": 8}
MLX = {"fine_tune_type": "lora", "model": "x"}
LLM_ADAPTERS = {"peft_type": "BOTTLENECK", "bottleneck_size": 256}
WAYS = {  # how people try to read a folder
    "load_adapter": lambda path: load_adapter(make("bert"), path),
    "load_adapter with the name": lambda path: load_adapter(make("bert"), path.parent, path.name),
    "import_adapterhub": lambda path: import_adapterhub(make("bert"), path),
    "upgrade_folder": lambda path: upgrade_folder(make("bert"), path.parent, path.name),
}
TOOLS = [
    ("peft's LoRA", PEFT, (), ["LORA adapter of peft", "peft.PeftModel.from_pretrained(model, "]),
    ("mlx's", MLX, (), ["lora adapter of mlx", "mlx_lm.load("]),
    ("LLM-Adapters'", LLM_ADAPTERS, (), ["an adapter of LLM-Adapters"]),
    ("peft's without settings", None, ("adapter_model.bin",), ["weights of peft without their adapter_config.json"]),
]


def peft_hint(folder):
    """The line in the message, carried out."""
    import peft

    model = peft.get_peft_model(make("bert"), peft.LoraConfig(r=2, target_modules=["query"]))
    model.save_pretrained(folder)
    try:
        load_adapter(make("bert"), folder)
    except ValueError as error:
        assert f"peft.PeftModel.from_pretrained(model, {str(folder)!r})" in str(error)
    return len(list(peft.PeftModel.from_pretrained(make("bert"), str(folder)).peft_config)) == 1


def hub_folder_hint(folder):
    export_adapterhub(trained(make("bert")), folder / "hub", "film")
    try:
        load_adapter(make("bert"), folder / "hub")
    except ValueError as error:
        call = f"adapters_lesson.exchange.adapterhub.import_adapterhub(model, {str(folder / 'hub')!r})"
        assert call in str(error), str(error)
    return import_adapterhub(make("bert"), folder / "hub") == "film"


def ours_hint(folder):
    """A file of ours given to ``import_adapterhub``: its message names the call that reads it."""
    path = save_adapter(trained(make("bert")), folder, "film")
    try:
        import_adapterhub(make("bert"), path)
    except ValueError as error:
        assert f"load_adapter(model, {str(path)!r}) reads it" in str(error), str(error)
    return load_adapter(make("bert"), str(path)) == "film"


def ours_of_several(folder):
    for name in ("film", "hotels"):
        save_adapter(trained(make("bert"), name), folder, name)
    import_adapterhub(make("bert"), folder)


def old_folder_itself(folder, call):
    """What version 0.5.0 wrote, given itself in place of the one above; then the calls that the message names."""
    import shutil

    shutil.copytree(version_0_5.HERE / "post" / "one", folder / "one")
    bank = version_0_5.bank_of("post")
    try:
        call(bank, folder / "one")
    except ValueError as error:
        assert f"version_0_5.upgrade_folder(model, {str(folder)!r}, 'one')" in str(error), str(error)
        assert f"load_adapter(model, {str(folder)!r}, 'one')" in str(error)
    upgrade_folder(bank, folder, "one")
    return load_adapter(bank, folder, "one") == "one"


def writes_over(folder, before, call):
    """``call`` after ``before``: it is refused, and nothing has changed."""
    before(folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    try:
        call(folder)
    finally:
        assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def save(folder, name="film"):
    return save_adapter(trained(make("bert"), name), folder, name)


def export(folder, name="film"):
    return export_adapterhub(trained(make("bert"), name), folder, name)


def write_foreign(settings):
    return lambda folder: (folder / "adapter_config.json").write_text(json.dumps(settings))


# --- AdapterHub -------------------------------------------------------------------------------------------------------


def first_version(folder, kind="text_task", **settings):
    """An adapter as adapter-transformers 1 saved it, made from one of today's; the model that it was in."""
    model = trained(make("bert"), config=AdapterConfig(4, placement="pfeiffer", activation="relu"))
    export_adapterhub(model, folder, "film")
    from safetensors.torch import load_file

    places = {"text_task": "layer_text_task_adapters", "text_lang": "layer_text_lang_adapters"}
    tensors = load_file(folder / "adapter.safetensors")
    torch.save(
        {f"bert.{key.replace('output.adapters', f'output.{places[kind]}')}": t for key, t in tensors.items()},
        folder / "pytorch_adapter.bin",
    )
    (folder / "adapter.safetensors").unlink()
    old = {
        "adapter_residual_before_ln": False, "attention_type": "sent-lvl-dynamic", "ln_after": False,
        "invertible_adapter": {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2},
        "ln_before": False, "mh_adapter": False, "new_attention_norm": False, "non_linearity": "relu",
        "original_ln_after": True, "original_ln_before": True, "output_adapter": True, "reduction_factor": 4,
        "residual_before_ln": True,
    } | settings  # fmt: skip
    about = {"config": old, "config_id": "9076f36a74755ac4", "hidden_size": 16, "model_class": "BertModelWithHeads"}
    about |= {"model_name": "", "model_type": "bert", "name": "film", "type": kind}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return model


def first_version_is_read(folder, kind="text_task", capitals=False, **settings):
    model, other = first_version(folder, kind, **settings), make("bert")
    path = folder / "adapter_config.json"
    if capitals:
        for new, old in (("ln_after", "LN_after"), ("mh_adapter", "MH_Adapter"), ("output_adapter", "Output_Adapter")):
            path.write_text(path.read_text().replace(f'"{new}"', f'"{old}"'))
    import_adapterhub(other, folder)
    return torch.equal(output(model), output(other))


def another_name(folder, theirs, ours, model=None):
    """An adapter of the base ``theirs``, imported into one that is called ``ours``."""
    model = model or make("bert")
    source = trained(make("bert"))
    source.config._name_or_path, model.config._name_or_path = theirs, ours
    export_adapterhub(source, folder, "film")
    return import_adapterhub(model, folder)


def heads_of_hub(folder):
    for name in "ab":
        export_adapterhub(trained(bert("BertForSequenceClassification"), name), folder / name, name)
        model = bert("BertForSequenceClassification")
    import_adapterhub(model, folder / "a")
    with torch.no_grad():
        model.classifier.bias += 1
    import_adapterhub(model, folder / "b")


# --- Saving -----------------------------------------------------------------------------------------------------------


def swept(folder, age, name=".film.safetensors.0123abcd.tmp"):
    """Whether what a killed save left ``age`` seconds ago is gone after the next one."""
    left = folder / name
    left.write_bytes(b"half")
    os.utime(left, (time.time() - age,) * 2)
    save(folder)
    return not left.exists()


def comes_back(folder, config=CONFIG, labels=2):
    bank = AdapterBank(make("bert"))
    bank.add("film", config, labels)
    save_adapter(bank, folder, "film")
    other = AdapterBank(make("bert"))
    load_adapter(other, folder)
    return adapter_config(other, "film") == config and other.labels == bank.labels


def refused_as_it_was(folder):
    """A refused load leaves a model with another base as it was."""
    save(folder)
    model = other_block()
    before = snapshot(model)
    try:
        load_adapter(model, folder)
    except ValueError:
        return snapshot(model) == before and adapter_names(model) == []


NAMES, OTHERS = ("bad", "good"), ("good", "bad")
SEQUENCE, TOKENS = "BertForSequenceClassification", "BertForTokenClassification"
HABITS = [
    # the same base in another dress
    Habit("a bfloat16 copy", lambda folder: half(folder, torch.bfloat16), warns("computes in bfloat16, and did in float32")),
    Habit("a float16 copy", lambda folder: half(folder, torch.float16), warns("computes in float16")),
    Habit("a float64 copy", lambda folder: half(folder, torch.float64), warns("computes in float64")),
    Habit("trained on a bfloat16 copy", lambda folder: half(folder, torch.bfloat16, True), warns("did in bfloat16")),
    Habit("trained on a float16 copy", lambda folder: half(folder, torch.float16, True), warns("did in float16")),
    Habit(
        "a bfloat16 copy of another base",
        lambda folder: moved(folder, make("bert"), make("bert", seed=1).bfloat16()),
        refuses("another base model", "other weights in"),
    ),
    Habit("more tokens", lambda folder: shared(folder, make("bert"), resized(3)), holds),
    Habit("more tokens are said", lambda folder: moved(folder, make("bert"), resized(3)), warns("has 3 more rows")),
    Habit(
        "more tokens, one of the old ones changed",
        lambda folder: moved(folder, make("bert"), resized(3, changed=True)),
        refuses("other weights in embeddings.word_embeddings", "40 rows there, 43 here"),
    ),
    Habit(
        "fewer tokens",
        lambda folder: moved(folder, resized(3), make("bert")),
        refuses("embeddings.word_embeddings", "43 rows there, 40 here"),
    ),
    Habit("no pooler", lambda folder: silent(lambda: shared(folder, make("bert"), bert(add_pooling_layer=False))), holds),
    Habit("a pooler", lambda folder: silent(lambda: shared(folder, bert(add_pooling_layer=False), make("bert"))), holds),
    Habit(
        "another pooler under a mean",
        lambda folder: silent(lambda: shared(folder, make("bert_classifier"), other_pooler(make("bert_classifier")))),
        holds,
    ),
    Habit(
        "another pooler in a bare base",
        lambda folder: moved(folder, make("bert"), other_pooler(make("bert"))),
        warns("pooler.dense of the base model is another"),
    ),
    Habit(
        "another pooler below the head",
        lambda folder: moved(folder, bert(SEQUENCE), other_pooler(bert(SEQUENCE))),
        refuses("other weights in pooler.dense"),
    ),
    Habit("sequence to token classifier", lambda folder: shared(folder, bert(SEQUENCE), bert(TOKENS)), holds),
    Habit("token to sequence classifier", lambda folder: shared(folder, bert(TOKENS), bert(SEQUENCE)), holds),
    Habit(
        "the head of a token classifier is no sequence classifier's",
        lambda folder: moved(folder, bert(TOKENS), bert(SEQUENCE)),
        warns("its head is that of a BertForTokenClassification and left aside"),
    ),
    Habit("another block", lambda folder: moved(folder, make("bert"), other_block()), refuses("other weights in encoder.layer.1 ")),
    Habit("another block, the model is as it was", refused_as_it_was, holds),
    Habit("a file without parts", without_parts, holds),
    # labels
    Habit(
        "labels from a Classifier into a bank",
        lambda folder: labels_after(
            folder, Classifier(make("bert"), NAMES), AdapterBank(make("bert")), lambda bank: bank.labels["film"]
        ),
        gives(NAMES),
    ),
    Habit(
        "labels into a Classifier",
        lambda folder: labels_after(folder, Classifier(make("bert"), NAMES), Classifier(make("bert"), 2), lambda m: m.labels),
        gives(NAMES),
    ),
    Habit(
        "labels of transformers' id2label",
        lambda folder: labels_after(folder, bert(SEQUENCE, NAMES), bert(SEQUENCE), id2label),
        gives(list(NAMES)),
    ),
    Habit(
        "labels in another order",
        lambda folder: moved(folder, bert(SEQUENCE, NAMES), bert(SEQUENCE, OTHERS)),
        warns("its labels ('bad', 'good') take the place of ('good', 'bad')"),
    ),
    Habit(
        "a Classifier's labels in another order",
        lambda folder: moved(folder, Classifier(make("bert"), NAMES), Classifier(make("bert"), OTHERS)),
        warns("take the place of ('good', 'bad')"),
    ),
    Habit(
        "labels of transformers that are numbers",
        lambda folder: labels_after(folder, bert(SEQUENCE), bert(SEQUENCE), id2label),
        gives(["LABEL_0", "LABEL_1"]),
    ),
    Habit("labels that are numerals in a bank", lambda folder: comes_back(folder, labels=("5", "1")), holds),
    Habit("labels in other scripts", lambda folder: comes_back(folder, labels=("גרוע", "👍", "\ud800")), holds),
    # heads
    Habit("a head that is not found", lambda folder: save_adapter(trained(Own()), folder, "film"), warns("head of Own", "not saved")),
    Habit("a head that is not found, kept beside", own_head_comes_back, holds),
    Habit("two adapters with heads in one classifier", two_in_one, warns("now that of 'b'", "AdapterBank")),
    Habit("two of AdapterHub's with heads in one", heads_of_hub, warns("now that of 'b'", "AdapterBank")),
    # saved is loadable
    Habit(
        "settings of NumPy",
        lambda folder: comes_back(folder, AdapterConfig(np.int64(4), layers=np.arange(2), scaling=np.float32(2))),
        holds,
    ),
    Habit("saved from a compiled model", lambda folder: wrapped(folder, torch.compile), holds),
    Habit("saved from a DataParallel", lambda folder: wrapped(folder, torch.nn.DataParallel), holds),
    Habit("a name of 250 letters", lambda: trained(make("bert"), "a" * 250), refuses("cannot name an adapter")),
    Habit("no folder at all", lambda: load_adapter(make("bert"), None), refuses("folder must be a path, such as 'adapters'")),
    Habit(
        "a language model's head and a classifier's",
        lambda folder: moved(folder, make("llama_head"), llama_classifier()),
        warns("its head is that of a LlamaForCausalLM and left aside"),
    ),
    # folders that are not ours
    *(
        Habit(f"{what} folder by {way}", lambda folder, c=call, s=settings, n=files: c(foreign(folder, s, *n)), refuses(*words))
        for what, settings, files, words in TOOLS
        for way, call in WAYS.items()
    ),
    Habit("peft's folder, read as the message says", peft_hint, holds),
    Habit("AdapterHub's folder, read as the message says", hub_folder_hint, holds),
    Habit("our file to import_adapterhub, read as the message says", ours_hint, holds),
    Habit("our folder to import_adapterhub", ours_of_several, refuses("'film', 'hotels', saved by", "load_adapter(model, ")),
    Habit("version 0.5.0's folder itself", lambda folder: old_folder_itself(folder, load_adapter), holds),
    Habit("version 0.5.0's folder by name", lambda folder: old_folder_itself(folder, lambda m, p: load_adapter(m, p.parent, "one")), holds),
    Habit("version 0.5.0's folder to import_adapterhub", lambda folder: old_folder_itself(folder, lambda m, p: import_adapterhub(m.base_model, p)), holds),
    Habit(
        "a hub's name",
        lambda: import_adapterhub(make("bert"), "AdapterHub/bert-base-uncased-pf-imdb"),
        refuses("there is no folder", "huggingface_hub.snapshot_download('AdapterHub/bert-base-uncased-pf-imdb')"),
    ),
    Habit(
        "a hub's name to load_adapter",
        lambda: load_adapter(make("bert"), "AdapterHub/bert-base-uncased-pf-imdb"),
        refuses("there is no folder", "huggingface_hub.snapshot_download('AdapterHub/"),
    ),
    Habit("a missing folder", lambda folder: load_adapter(make("bert"), folder / "x"), refuses("there is no folder")),
    Habit("a missing folder with a name", lambda folder: load_adapter(make("bert"), folder / "x", "y"), refuses("there is no folder")),
    Habit("a file in place of a folder", lambda: list_adapters(__file__), refuses("is a file, not a folder")),
    Habit("the folder above AdapterHub's", lambda folder: export(folder / "a") and import_adapterhub(make("bert"), folder), refuses("'a' in it is an adapter of AdapterHub's", "import_adapterhub(model, ")),
    Habit(
        "a whole model",
        lambda folder: make("bert").save_pretrained(folder) or load_adapter(make("bert"), folder),
        refuses("a whole model", "from_pretrained"),
    ),
    # one tool over another's files
    Habit("an export over a saved adapter", lambda folder: writes_over(folder, save, export), refuses("film.safetensors: an adapter of this course")),
    Habit("an export over peft's", lambda folder: writes_over(folder, write_foreign(PEFT), export), refuses("a LORA adapter of peft", "choose another folder")),
    Habit("an export over version 0.5.0's", lambda folder: writes_over(folder, write_foreign({"base_sha256": ""}), export), refuses("by version 0.5.0")),
    Habit("saved beside an export", lambda folder: writes_over(folder, export, save), refuses("is an adapter of AdapterHub's", "Nothing is written beside it")),
    Habit("saved beside peft's", lambda folder: writes_over(folder, write_foreign(PEFT), save), refuses("a LORA adapter of peft")),
    Habit("saved over peft's weights", lambda folder: writes_over(folder, lambda folder: (folder / "adapter_model.bin").write_bytes(b"x"), save), refuses("weights of peft")),
    Habit("saved twice", lambda folder: silent(lambda: save(folder) == save(folder)), holds),
    Habit("adapters called as other tools' files", lambda folder: silent(lambda: save(folder, "adapter") and save(folder, "adapter_model") and save(folder, "adapters")), holds),
    Habit("an export where nothing can be written", lambda: export("/proc/none/hub"), refuses("cannot be written")),
    Habit("saved where nothing can be written", lambda: save("/proc/none"), refuses("cannot be read or written")),
    # leftovers
    Habit("what a killed save left yesterday", lambda folder: swept(folder, 86_400), gives(True)),
    Habit("what another writes just now", lambda folder: swept(folder, 5), gives(False)),
    Habit("a file that only looks like a leftover", lambda folder: swept(folder, 86_400, ".film.safetensors.mine.tmp"), gives(False)),
    Habit("a leftover of another adapter", lambda folder: swept(folder, 86_400, ".hotels.safetensors.0123abcd.tmp"), gives(False)),
    # AdapterHub
    Habit("AdapterHub's first version", first_version_is_read, holds),
    Habit("AdapterHub's first version in capitals", lambda folder: first_version_is_read(folder, capitals=True), holds),
    Habit("a language adapter of AdapterHub's first version", lambda folder: first_version_is_read(folder, "text_lang", invertible_adapter=None), holds),
    Habit("an invertible adapter of AdapterHub's first version", lambda folder: first_version_is_read(folder, "text_lang"), refuses("inv_adapter='nice' cannot be imported")),
    Habit("an uncased adapter in a cased model", lambda folder: another_name(folder, "bert-base-uncased", "bert-base-cased"), warns("trained on 'bert-base-uncased'", "is 'bert-base-cased'")),
    Habit("an uncased adapter in a model without a name", lambda folder: another_name(folder, "bert-base-uncased", ""), warns("knows 40 tokens, not 30522")),
    Habit("the same base by its longer name", lambda folder: silent(lambda: another_name(folder, "me/tiny", "tiny")), holds),
    Habit("a base from a folder", lambda folder: silent(lambda: another_name(folder, "me/tiny", str(folder))), holds),
]  # fmt: skip
