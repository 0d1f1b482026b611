"""AdapterHub's files, our side alone: what is written, what is read, what is refused. The library has its own tests."""

from __future__ import annotations

import json
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.bank import AdapterBank
from adapters_lesson.composition import fuse_adapters, stack_adapters
from adapters_lesson.exchange.adapterhub import FAMILIES, export_adapterhub, import_adapterhub
from adapters_lesson.insertion import adapter_config, adapter_names, insert_adapters, remove_adapters
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.storage import save_adapter
from adapters_lesson.transformer import Classifier

OURS = ["bert", "distilbert", "gpt2", "llama", "mistral", "roberta", "small_post"]


def trained(model, config=None, name="default"):
    """Adapters that look trained, in ``model``."""
    for adapter in insert_adapters(model, config or AdapterConfig(4), name):
        models.randomise(adapter)
    return model


def state(model):
    """Everything that a refused import must leave alone."""
    active = [slot.active for slot in models.slots(model)]
    labels = dict(getattr(model.config, "id2label", None) or {}) if hasattr(model, "config") else None
    return models.snapshot(model), models.hooks(model), adapter_names(model), active, labels


@pytest.fixture
def folder(tmp_path):
    """An adapter of a tiny BERT, exported."""
    return export_adapterhub(trained(models.make("bert")), tmp_path / "film")


def change(folder, *keys, value=None, file="adapter_config.json", drop=False):
    """Set or drop an entry of a JSON file."""
    saved = json.loads((folder / file).read_text())
    entry = saved
    for key in keys[:-1]:
        entry = entry[key]
    if drop:
        del entry[keys[-1]]
    else:
        entry[keys[-1]] = value
    (folder / file).write_text(json.dumps(saved))


def assert_refused(folder, match, model=None, **more):
    model = model or models.make("bert")
    before = state(model)
    with pytest.raises(ValueError, match=match):
        import_adapterhub(model, folder, **more)
    assert state(model) == before


# --- Round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "placement"), [(f, p) for i, f in enumerate(OURS) for j, p in enumerate(PLACEMENTS) if (i + j) % 3 < 2]
)
def test_what_is_exported_is_imported_bit_for_bit(family, placement, tmp_path):
    config = AdapterConfig(
        5, placement=placement, activation="silu", init="bert", scaling=2.5, dropout=0.25, layers=(2, 0)
    )
    model = trained(models.make(family), config, "film")
    assert export_adapterhub(model, tmp_path / "film", "film") == tmp_path / "film"
    assert sorted(file.name for file in (tmp_path / "film").iterdir()) == ["adapter.safetensors", "adapter_config.json"]
    other = models.make(family)
    assert import_adapterhub(other, tmp_path / "film") == "film"
    assert torch.equal(models.output(other), models.output(model))
    read = adapter_config(other, "film")
    assert {**vars(read), "layers": None} == {**vars(config), "layers": None}
    assert read.layers == (0, 2)


def test_the_table_has_all_families():
    model_types = {models.make(name).config.model_type for name in OURS}
    assert model_types == set(FAMILIES)


def test_the_file_is_as_the_library_writes_it(tmp_path):
    """File by file, as adapters 1.3.0 has it; the comparison with the library itself is in test_adapterhub_peer.py."""
    config = AdapterConfig(5, placement="pfeiffer", activation="relu", init="bert", layers=(1,))
    export_adapterhub(trained(models.make("bert"), config, "film"), tmp_path, "film")
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved.pop("config").items() >= {
        "mh_adapter": False, "output_adapter": True, "original_ln_before": True, "original_ln_after": True,
        "is_parallel": False, "non_linearity": "relu", "init_weights": "bert", "scaling": 1.0, "leave_out": [0, 2],
        "reduction_factor": 16 / 5.5,
    }.items()  # fmt: skip
    assert saved == {
        "hidden_size": 16, "model_class": "BertModel", "model_name": "", "model_type": "bert", "name": "film",
        "version": "adapters.1.3.0",
    }  # fmt: skip
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(tmp_path / "adapter.safetensors").items()}
    stem = "encoder.layer.1.output.adapters.film"
    assert shapes == {
        f"{stem}.adapter_down.0.weight": (5, 16),
        f"{stem}.adapter_down.0.bias": (5,),
        f"{stem}.adapter_up.weight": (16, 5),
        f"{stem}.adapter_up.bias": (16,),
    }


def test_another_name_a_second_adapter_and_a_name_that_is_taken(folder):
    model = trained(models.make("bert"), AdapterConfig(3, placement="pfeiffer"), "first")
    assert import_adapterhub(model, folder, "second") == "second"
    assert set(adapter_names(model)) == {"first", "second"}
    assert_refused(folder, "adapters called 'second' already", model, name="second")
    assert_refused(folder, "cannot name an adapter", model, name="a.b")


def test_a_name_that_ours_cannot_have_is_told_so_and_may_be_changed(folder):
    tensors = load_file(folder / "adapter.safetensors")
    renamed = {key.replace(".default.", ".1 film."): tensor for key, tensor in tensors.items()}
    save_file(renamed, folder / "adapter.safetensors")
    change(folder, "name", value="1 film")
    assert_refused(folder, "'1 film' cannot name an adapter")
    assert import_adapterhub(models.make("bert"), folder, "film") == "film"


def test_a_small_transformer_and_a_bert_read_each_others_files(tmp_path):
    export_adapterhub(trained(models.make("small_post")), tmp_path / "a")
    model = models.make("bert")
    import_adapterhub(model, tmp_path / "a")
    export_adapterhub(model, tmp_path / "b")
    for file in ("adapter.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_pickle_is_read_too_and_the_base_models_prefix_may_be_there_or_not(folder, tmp_path):
    tensors = load_file(folder / "adapter.safetensors")
    (folder / "adapter.safetensors").unlink()
    torch.save({f"bert.{key}": tensor for key, tensor in tensors.items()}, folder / "pytorch_adapter.bin")
    model, headed = models.make("bert"), models.make("bert_head")
    import_adapterhub(model, folder)
    import_adapterhub(headed, folder)
    for loaded in (model, headed):
        export_adapterhub(loaded, tmp_path / "again", with_head=False)
        again = load_file(tmp_path / "again" / "adapter.safetensors")
        again = {key.removeprefix("bert."): tensor for key, tensor in again.items()}
        assert all(torch.equal(again[key], tensors[key]) for key in tensors | again)


def test_numbers_are_converted_to_the_models_type(folder):
    tensors = load_file(folder / "adapter.safetensors")
    save_file({key: tensor.bfloat16() for key, tensor in tensors.items()}, folder / "adapter.safetensors")
    model = models.make("bert")
    import_adapterhub(model, folder)
    for parameter in models.slots(model)[0]["default"].parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, parameter.bfloat16().float())


def test_an_export_replaces_an_earlier_one_with_its_head(tmp_path):
    export_adapterhub(trained(models.make("bert_head")), tmp_path)
    assert (tmp_path / "model_head.safetensors").exists()
    export_adapterhub(trained(models.make("bert"), AdapterConfig(2)), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter.safetensors", "adapter_config.json"]
    model = models.make("bert")
    import_adapterhub(model, tmp_path)
    assert adapter_config(model).bottleneck_dim == 2


# --- Heads ---------------------------------------------------------------------------------------------------------


def test_a_head_goes_along_when_the_class_is_the_same(tmp_path):
    model = trained(models.make("bert_head"))
    model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    export_adapterhub(model, tmp_path)
    saved = json.loads((tmp_path / "head_config.json").read_text())
    assert (saved["model_class"], saved["num_labels"], saved["name"]) == ("BertForSequenceClassification", 2, None)
    assert load_file(tmp_path / "model_head.safetensors").keys() == {"classifier.weight", "classifier.bias"}
    assert all(key.startswith("bert.encoder.") for key in load_file(tmp_path / "adapter.safetensors"))
    other = models.make("bert_head")
    torch.nn.init.zeros_(other.classifier.weight)
    import_adapterhub(other, tmp_path)
    assert torch.equal(models.output(other), models.output(model))
    assert other.config.id2label == {0: "bad", 1: "good"}
    alone = models.make("bert_head")
    torch.nn.init.zeros_(alone.classifier.weight)
    import_adapterhub(alone, tmp_path, with_head=False)
    assert not alone.classifier.weight.any()
    import_adapterhub(models.make("bert"), tmp_path)  # a bare base model has no use for it


def test_a_head_of_ours_is_left_out_with_a_warning(tmp_path, recwarn):
    model = trained(models.make("bert_classifier"))
    with pytest.warns(UserWarning, match="the head of a Classifier is none that AdapterHub has"):
        export_adapterhub(model, tmp_path / "a")
    recwarn.clear()
    export_adapterhub(model, tmp_path / "b", with_head=False)
    assert not recwarn.list
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert sorted(file.name for file in folder.iterdir()) == ["adapter.safetensors", "adapter_config.json"]
        assert json.loads((folder / "adapter_config.json").read_text())["model_class"] == "BertModel"


def test_a_tied_head_is_the_base_models_own(tmp_path):
    model = trained(models.make("gpt2_head"))
    export_adapterhub(model, tmp_path)
    assert not (tmp_path / "model_head.safetensors").exists()
    # The library writes the tied embeddings as if they were a head.
    save_file({"lm_head.weight": model.lm_head.weight.detach().clone()}, tmp_path / "model_head.safetensors")
    (tmp_path / "head_config.json").write_text(json.dumps({"model_class": "GPT2LMHeadModel", "label2id": None}))
    import_adapterhub(models.make("gpt2_head"), tmp_path)
    assert_refused(tmp_path, r"lm_head\.weight is tied to the base model", models.make("gpt2_head", seed=1))


def test_a_head_of_another_class_is_left_out_with_a_warning(tmp_path):
    export_adapterhub(trained(models.make("bert_head")), tmp_path)
    model = Classifier(models.make("bert"), 2)
    before = model.head.weight.clone()
    with pytest.warns(UserWarning, match="head of a BertForSequenceClassification, which does not fit a Classifier"):
        import_adapterhub(model, tmp_path)
    assert torch.equal(model.head.weight, before)
    assert adapter_names(model) == ["default"]


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda f: save_file({"classifier.weight": torch.zeros(2, 16)}, f / "model_head.safetensors"), "lacks tensors"),
        (
            lambda f: save_file(
                {"classifier.weight": torch.zeros(5, 16), "classifier.bias": torch.zeros(5)},
                f / "model_head.safetensors",
            ),
            r"classifier\.(weight|bias) has the shape \(5.*, expected \(2",
        ),
        (
            lambda f: change(f, "label2id", value={"a": 0}, file="head_config.json"),
            "must number this model's 2 labels from 0",
        ),
        (
            lambda f: change(f, "label2id", value={"a": 0, "b": 7}, file="head_config.json"),
            "must number this model's 2 labels from 0",
        ),
        (
            lambda f: change(f, "label2id", value=[0, 1], file="head_config.json"),
            "must number this model's 2 labels from 0",
        ),
        (lambda f: (f / "head_config.json").unlink(), r"head_config\.json cannot be read as JSON"),
    ],
)
def test_a_bad_head_is_refused_and_its_adapter_with_it(break_it, match, tmp_path):
    export_adapterhub(trained(models.make("bert_head")), tmp_path)
    break_it(tmp_path)
    assert_refused(tmp_path, match, models.make("bert_head"))


# --- What cannot be exported ---------------------------------------------------------------------------------------


def nan(model):
    with torch.no_grad():
        models.slots(model)[1]["default"].up_project.bias[3] = float("nan")
    return model


def rescaled(model):
    models.slots(model)[0]["default"].scaling = 3.0
    return model


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: trained(models.make("small_pre")), "small_transformer_pre.* cannot be exchanged with AdapterHub"),
        (lambda: trained(models.make("vit")), "vit.* that is possible for bert, "),
        (lambda: trained(models.make("qwen2")), "qwen2"),
        (lambda: torch.nn.Linear(2, 2), "a Linear .None. cannot be exchanged"),
        (lambda: models.make("bert"), "no adapters called 'default'; it has none"),
        (lambda: trained(models.make("bert"), name="film"), "no adapters called 'default'; it has 'film'"),
        (lambda: trained(models.make("bert"), AdapterConfig(4, train_layer_norms=True)), "the LayerNorms are trained"),
        (
            lambda: nan(trained(models.make("gpt2"))),
            r"output_adapters\.adapters\.default\.adapter_up\.bias has values that are not finite",
        ),
        (lambda: trained(models.make("bert").to("meta")), "must hold plain real numbers"),
        (lambda: rescaled(trained(models.make("bert"))), "one bottleneck adapter as it was inserted"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(build, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        export_adapterhub(build(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("compose", [stack_adapters, fuse_adapters])
def test_composed_adapters_are_refused(compose, tmp_path):
    model = trained(trained(models.make("bert"), name="a"), name="b")
    compose(model, ["a", "b"], "both")
    with pytest.raises(ValueError, match="and a folder of AdapterHub's holds one bottleneck adapter"):
        export_adapterhub(model, tmp_path / "new", "both")
    export_adapterhub(model, tmp_path / "a", "a")


def test_a_bank_exports_by_name_and_imports_nothing(folder, tmp_path):
    bank = AdapterBank(models.make("bert"))
    bank.add("film", AdapterConfig(4), 2)
    with pytest.warns(UserWarning, match="the head of a AdapterBank"):
        export_adapterhub(bank, tmp_path / "film2", "film")
    assert_refused(
        folder, "a bank keeps .* together: import the adapter into a base model of its own", bank, name="other"
    )


@pytest.mark.parametrize(
    ("fill", "match"),
    [
        (
            lambda f: (f / "pytorch_adapter.bin").write_bytes(b"somebody's"),
            r"has a pytorch_adapter\.bin. Nothing is wri",
        ),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"peft's"), r"has a adapter_model\.safetensors"),
        (lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"}'), "a LORA adapter of peft"),
        (lambda f: (f / "adapter_config.json").write_text('{"fine_tune_type": "lora"}'), "a lora adapter of mlx"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "of a tool that is not known here"),
        (lambda f: save_adapter(trained(models.make("bert")), f), r"default\.safetensors: an adapter of this course"),
        (lambda f: save_adapter(trained(models.make("bert"), name="adapter"), f, "adapter"), "of this course"),
    ],
)
def test_one_tool_never_writes_over_anothers_files(fill, match, tmp_path):
    fill(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=match):
        export_adapterhub(trained(models.make("bert")), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="is a file, not a folder"):
        export_adapterhub(trained(models.make("bert")), tmp_path / min(before))
    assert_refused(tmp_path, "no adapter of AdapterHub's is there: .* is (an? |of |weights)|saved by")


def test_a_placement_that_the_library_does_not_have_is_refused(tmp_path, monkeypatch):
    after_attention = replace(PLACEMENTS["houlsby"], adapterhub=None)
    monkeypatch.setitem(PLACEMENTS, "attention", after_attention)
    with pytest.raises(ValueError, match="AdapterHub has no counterpart of placement='attention': keep it with save"):
        export_adapterhub(trained(models.make("bert"), AdapterConfig(4, placement="attention")), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- Files that cannot be trusted ----------------------------------------------------------------------------------


def tensors_changed(change_them):
    def apply(folder):
        tensors = load_file(folder / "adapter.safetensors")
        change_them(tensors, min(tensors))
        save_file(tensors, folder / "adapter.safetensors")

    return apply


def as_pickle(content):
    def apply(folder):
        (folder / "adapter.safetensors").unlink()
        torch.save(content(folder), folder / "pytorch_adapter.bin")

    return apply


def truncated(folder):
    whole = (folder / "adapter.safetensors").read_bytes()
    (folder / "adapter.safetensors").write_bytes(whole[:-40])


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), r"without their adapter_config\.json: copy"),
        (lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe"), "cannot be read as JSON .UnicodeDecode"),
        (lambda f: (f / "adapter_config.json").write_text("[" * 100000), "cannot be read as JSON .Recursion"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "must hold an object of names and values, not a list"),
        (lambda f: change(f, "name", drop=True), "'name' must be the adapter's name, not None"),
        (lambda f: change(f, "name", value=3), "'name' must be the adapter's name, not 3"),
        (lambda f: change(f, "model_type", value="roberta"), "model_type='roberta', and this one has 'bert'"),
        (lambda f: change(f, "hidden_size", value=768), "for models of hidden_size=768, and this one has 16"),
        (lambda f: change(f, "config", drop=True), r"config\.json does not fit: the settings under 'config' must"),
        (lambda f: change(f, "config", "ln_after", value=True), r"config\.json does not fit: ln_after=True cannot"),
        (lambda f: change(f, "version", drop=True), "a file without a version means gelu_new"),
        (lambda f: change(f, "config", "reduction_factor", value=2), r"shape \(4,.*, expected \(8,"),
        (lambda f: change(f, "config", "reduction_factor", value=1e-290), "reduction_factor must be above 0"),
        (lambda f: change(f, "config", "leave_out", value=[2]), "has unexpected tensors, 8 where there should be 16"),
        (lambda f: change(f, "name", value="other"), "lacks tensors, 24 where there should be 24 in all: encoder"),
        (lambda f: (f / "adapter.safetensors").unlink(), r"has neither adapter\.safetensors nor pytorch_adapter\.bin"),
        (lambda f: (f / "adapter.safetensors").write_bytes(b""), "no safetensors file, or damaged"),
        (truncated, "no safetensors file, or damaged"),
        (tensors_changed(lambda t, key: t.pop(key)), "lacks tensors, 1 where there should be 24"),
        (tensors_changed(lambda t, key: t.update(more=t[key] + 0)), "has unexpected tensors, 1 where .*: more"),
        (tensors_changed(lambda t, key: t.update({key: t[key][:-1]})), r"the shape \(3,\), expected \(4,\)"),
        (tensors_changed(lambda t, key: t.update({key: t[key].int()})), "must hold plain real numbers, not torch.int"),
        (tensors_changed(lambda t, key: t[key].fill_(float("inf"))), "has values that are not finite"),
        (as_pickle(lambda f: [1, 2]), "must hold tensors by name, and nothing else"),
        (as_pickle(lambda f: {"a": 3}), "must hold tensors by name, and nothing else"),
        (as_pickle(lambda f: {"a": torch.zeros(2).to_sparse()}), "lacks tensors"),
        (
            as_pickle(lambda f: {k: t.to_sparse() for k, t in load_file(f / "copy").items()}),
            "must hold plain real numbers",
        ),
        (as_pickle(lambda f: {k: t.to("meta") for k, t in load_file(f / "copy").items()}), "real numbers"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_and_the_model_is_as_it_was(break_it, match, folder):
    (folder / "copy").write_bytes((folder / "adapter.safetensors").read_bytes())
    break_it(folder)
    assert_refused(folder, match, trained(models.make("bert"), AdapterConfig(3), "first"))


class Bomb:
    """Pickled, this touches a file when it is read by a careless reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle.dump"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_code_in_a_pickle_is_run(plain, head, tmp_path):
    export_adapterhub(trained(models.make("bert_head")), tmp_path)
    (tmp_path / ("model_head.safetensors" if head else "adapter.safetensors")).unlink()
    with (tmp_path / ("pytorch_model_head.bin" if head else "pytorch_adapter.bin")).open("wb") as file:
        (pickle.dump if plain else torch.save)({"a": Bomb(tmp_path / "touched")}, file)
    assert_refused(
        tmp_path,
        r"is no pickle of tensors alone, and reading anything else could run code \(.{,60}\): get it as .safetensors",
        models.make("bert_head"),
    )
    assert not (tmp_path / "touched").exists()


def test_a_folder_that_is_not_there_and_a_fifo_are_refused_at_once(tmp_path, folder):
    assert_refused(tmp_path / "nowhere", "there is no folder .*nowhere")
    if hasattr(os, "mkfifo"):
        (folder / "adapter.safetensors").unlink()
        os.mkfifo(folder / "adapter.safetensors")
        assert_refused(folder, "has neither")


def test_a_change_at_random_is_refused_or_read_whole(folder):
    """A byte, a length or a setting; without a checksum in the format, a changed weight cannot be told from another."""
    generator = random.Random(0)
    whole = {file: (folder / file).read_bytes() for file in ("adapter.safetensors", "adapter_config.json")}
    names = list(load_file(folder / "adapter.safetensors"))
    model, outcomes = models.make("bert"), {"refused": 0, "read": 0}
    before = state(model)
    for _ in range(200):
        file = generator.choice(list(whole))
        data = bytearray(whole[file])
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        for _ in range(generator.randint(1, 3) if data else 0):
            data[generator.randrange(len(data))] = generator.randrange(256)
        (folder / file).write_bytes(data)
        try:
            name = import_adapterhub(model, folder, "default")
        except ValueError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert len(adapter_config(model, name).layers or (0, 1, 2)) * 8 <= len(names)
            assert models.output(model).isfinite().all()
            remove_adapters(model)
        assert state(model) == before
        (folder / file).write_bytes(whole[file])
    assert min(outcomes.values()) > 10


# --- All files or none ---------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_leaves_the_old_adapter(folder, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export_adapterhub(trained(models.make("bert"), AdapterConfig(2)), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("fails_at", [5, 6, 7, 8])  # the first four are in a folder beside
def test_a_rename_that_fails_leaves_no_adapter_rather_than_half_of_two(fails_at, tmp_path, monkeypatch):
    export_adapterhub(trained(models.make("bert_head"), AdapterConfig(2)), tmp_path)
    calls, replace = [], Path.replace

    def failing(self, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError("the disk is gone")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        export_adapterhub(trained(models.make("bert_head")), tmp_path)
    assert calls[-1].name == "adapter_config.json" or fails_at < 8
    assert not (tmp_path / "adapter_config.json").exists()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
    assert_refused(tmp_path, r"is weights of AdapterHub without their adapter_config\.json", models.make("bert_head"))
