"""Adapters saved and loaded: what is refused, each with a message of its own, and then nothing has changed."""

import copy
import io
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from models import BASES, make, slots, small
from stored import PLAIN, RICH, adapted, bank_with, forge, refused, unpacked
from version_0_5 import make as version_0_5

from adapters_lesson import AdapterBank, Classifier, insert_adapters
from adapters_lesson.adapter import KINDS
from adapters_lesson.exchange.adapterhub import export_adapterhub
from adapters_lesson.exchange.version_0_5 import upgrade_folder
from adapters_lesson.insertion import adapter_config
from adapters_lesson.storage import StorageError, list_adapters, load_adapter, save_adapter


@pytest.fixture
def saved(tmp_path):
    """The file of one adapter of a classifier, and a fresh classifier."""
    return save_adapter(adapted("small_classifier", RICH), tmp_path, "film"), make("small_classifier")


# --- Another model, another file --------------------------------------------------------------------------------------


def one_weight_differs():
    model = small()
    model.load_state_dict(make("small_post").state_dict())
    with torch.no_grad():
        model.word_embeddings.weight[3, 3] += 1e-6
    return model


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (one_weight_differs, "another base model, of the same shape but with other weights"),
        (lambda: small(hidden_size=32), "model_dim=16, and this one has 32"),
        (lambda: small(num_hidden_layers=2), "layers=3, and this one has 2"),
        (lambda: small("pre"), "architecture='small_transformer_post', and this one has 'small_transformer_pre'"),
        (BASES["bert"], "architecture='small_transformer_post', and this one has 'bert'"),
    ],
)
def test_another_base_model(saved, other, message):
    refused(Classifier(other(), 2), saved[0].parent, message)


def test_an_outline(saved):
    model = copy.deepcopy(saved[1]).to("meta")
    with pytest.raises(StorageError, match="outline on the meta device"):
        load_adapter(model, saved[0])
    assert not slots(model)


def test_another_head_and_a_name_that_is_taken(saved):
    path, model = saved
    refused(Classifier(model.base_model, 3), path.parent, "another than the model's: 'head.bias' is .2, .*Make the mod")
    model.head.double()
    refused(model, path.parent, "another than the model's.*float64")
    insert_adapters(model, PLAIN, "film")
    refused(model, path.parent, "adapters called 'film' already: choose another name")


def test_what_a_bank_refuses(saved, tmp_path_factory):
    path, _ = saved
    bank = bank_with(make("small_classifier").base_model, hotels=(PLAIN, 2))
    forge(path, lambda c: c.update(labels=["one", "two", "three"]))
    refused(bank, path.parent, "'head.bias' is .2, torch.float32., here .3, ")
    headless = tmp_path_factory.mktemp("headless")
    save_adapter(adapted("small_classifier", PLAIN).base_model, headless, "film")
    refused(bank, headless, "saved without a head, which every task of a bank needs")


def change_tensor(key, function):
    def change(tensors):
        name = next(name for name in tensors if name.endswith(key))
        tensors[name] = function(tensors[name])

    return change


def with_value(value):
    def change(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop(min(tensors)),
            "film.safetensors.*lacks tensors, 1 where there should be .*blocks.0",
        ),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "has unexpected tensors, 1 where .*: more"),
        (change_tensor("down_project.weight", torch.Tensor.double), "of several types: torch.float32, torch.float64"),
        (change_tensor("down_project.bias", torch.Tensor.int), "must hold plain real numbers, not torch.int32"),
        (change_tensor("down_project.weight", lambda t: t.T.contiguous()), "shape .16, 5., expected .5, 16."),
        (change_tensor("head.weight", lambda t: t[:1].clone()), "'head.weight' is .1, 16"),
        (change_tensor("up_project.bias", with_value(float("nan"))), "has values that are not finite"),
        (change_tensor("head.weight", with_value(float("inf"))), "has values that are not finite"),
        (change_tensor("ffn_norm.trained_norms.weight", with_value(-float("inf"))), "values that are not finite"),
        (change_tensor("up_project.bias", with_value(3e38)), "makes values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit(saved, change, message):
    forge(saved[0], change_tensors=change)
    refused(saved[1], saved[0].parent, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=3), r"film\.safetensors is of format 3, and this version reads 2: upgrade"),
        (lambda c: c.update(format=1), "is of format 1, and this version reads 2"),
        (lambda c: c.update(format=0), "is of format 0, and"),
        (lambda c: c.update(format=-1), "is of format -1, and"),
        (lambda c: c.update(format="2"), "is of format '2', and"),
        (lambda c: c.pop("format"), "is of format None"),
        (lambda c: c.pop("labels"), "the header is not whole: .*'labels'"),
        (lambda c: c.update(more=1), "the header has 'more', which this version does not know"),
        (lambda c: c.update(layers=3.0), "'layers' is 3.0, and not int"),
        (lambda c: c.update(kind="magic"), "there is no kind of module called 'magic', only bottleneck"),
        (lambda c: c.update(composition="Module"), "there is no 'Module' of"),
        (lambda c: c["config"].update(colour="red"), "the config has 'colour', which this version does not know"),
        (lambda c: c["config"].update(train_layer_norms=1), "'train_layer_norms' is 1, and not bool"),
        (lambda c: c["config"].update(placement="above"), "placement must be one of"),
        (lambda c: c["config"].update(bottleneck_dim=4), "give either bottleneck_dim"),
        (lambda c: c["config"].update(scaling=0), "scaling must be a finite number"),
        (lambda c: c["config"].update(scaling=1e308), "makes values that are not finite, with AdapterConfig"),
        (lambda c: c["config"].update(scaling=10**400), "scaling must be a finite number other than 0, not 1000"),
        (lambda c: c["config"].update(layers=[0, 7]), "the model has 3 blocks"),
        (lambda c: c["config"].update(layers=[0, 1]), "lacks tensors"),
        (lambda c: c["config"].update(placement="houlsby"), "lacks tensors"),
        (lambda c: c["config"].update(train_layer_norms=False), "has unexpected tensors"),
        (lambda c: c["config"].update(reduction_factor=4), "has the shape .5,., expected .4,."),
        (lambda c: c["config"].update(reduction_factor=1e-300), "reduction_factor must be above 0 and finite"),
        (lambda c: c["config"].update(reduction_factor=None, bottleneck_dim=10**15), "has the shape"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:bottleneck_dim")
def test_settings_that_make_no_sense(saved, change, message):
    forge(saved[0], change)
    refused(saved[1], saved[0].parent, message)


# --- Damaged files, other files ---------------------------------------------------------------------------------------


def test_every_byte_counts(saved):
    path, model = saved
    good = path.read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    for at in (0, 9, end - 200, end + 3, len(good) - 1):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        refused(model, path.parent, "damaged")
    for short in (b"", good[:7], good[: end - 9], good[:-8]):
        path.write_bytes(short)
        refused(model, path.parent, "no safetensors file, or damaged")
    path.write_bytes(good.replace(b'"scaling\\": 1.7' if b'\\"' in good else b'"scaling": 1.7', b'"scaling\\": 4.7'))
    refused(model, path.parent, "was altered or is damaged .its checksum is wrong.")
    path.write_bytes((2**62).to_bytes(8, "little") + good[8:])  # a huge header takes no memory
    refused(model, path.parent, "no safetensors file")
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(model, path.parent, "no safetensors file")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_opened(saved):
    path, model = saved
    fuse, zipped = path.parent / "exploded", io.BytesIO()
    torch.save({"weights": torch.zeros(2), "bomb": Bomb(fuse)}, zipped)
    for data in (pickle.dumps(Bomb(fuse)), zipped.getvalue()):
        path.write_bytes(data)
        refused(model, path.parent, "no safetensors file")
    assert not fuse.exists()
    with pytest.raises(AttributeError):  # the bomb would have worked
        pickle.loads(pickle.dumps(Bomb(fuse))).nothing  # noqa: B018
    assert fuse.exists()


@pytest.mark.parametrize("name", ["film", "default"])
def test_a_fifo_or_a_device_is_refused_at_once(tmp_path, name):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no such files")
    os.mkfifo(tmp_path / f"{name}.safetensors")
    refused(make("bert"), tmp_path, "is missing, or is no file", name)
    assert list_adapters(tmp_path)[0].problem
    with pytest.raises(StorageError, match="was not written by save_adapter, and is left alone"):
        save_adapter(adapted("bert", PLAIN, name), tmp_path, name)
    old = tmp_path / "old"
    old.mkdir()
    os.mkfifo(old / "adapter_config.json")
    with pytest.raises(StorageError, match="missing, or no file of at most"):
        upgrade_folder(make("bert"), tmp_path, "old")


@pytest.mark.parametrize(
    "name", ["../film", "..", ".", "", "/film", "a/b", "a\\b", "film\0", "film\n", "C:film", ".film", 3]
)
def test_names_that_lead_elsewhere(saved, name):
    refused(saved[1], saved[0].parent, "cannot name an adapter", name)


@pytest.mark.parametrize("circle", [False, True])
def test_links_are_not_followed_but_the_folder_may_be_one(saved, tmp_path_factory, circle):
    path, model = saved
    outside = tmp_path_factory.mktemp("outside")
    (outside / "shortcut").symlink_to(path.parent)
    assert load_adapter(copy.deepcopy(model), outside / "shortcut") == "film"
    shutil.move(path, outside / "it")
    path.symlink_to(path if circle else outside / "it")
    refused(model, path.parent, "is a link: nothing outside the folder is opened")
    with pytest.raises(StorageError, match="is a link"):
        save_adapter(adapted("small_classifier", PLAIN), path.parent, "film")
    assert (outside / "it").exists()


def test_one_tool_never_writes_over_anothers_files(tmp_path):
    model = adapted("bert", PLAIN, "adapter")
    export_adapterhub(model, tmp_path, "adapter")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(StorageError, match=r"adapter\.safetensors was not written by save_adapter, and is left alone"):
        save_adapter(model, tmp_path, "adapter")
    refused(make("bert"), tmp_path, "was not written by save_adapter", "adapter")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert list_adapters(tmp_path) == []
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(StorageError, match="is left alone"):
        save_adapter(adapted("bert", PLAIN, "folder"), tmp_path, "folder")


# --- What is not saved, because it would not come back equal ----------------------------------------------------------


def spoilt(change, config=PLAIN):
    model = adapted("bert", config)
    with torch.no_grad():
        change(slots(model)[0]["film"])
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: spoilt(lambda a: a.up_project.bias[0].fill_(float("nan"))), "has values that are not finite"),
        (lambda: spoilt(lambda a: setattr(a, "scaling", 2.0)), "(?s)was changed after .*scaling=2.0"),
        (lambda: spoilt(lambda a: setattr(a, "activation", torch.nn.Tanh())), "was changed after it was inserted"),
        (lambda: spoilt(lambda a: setattr(a.dropout, "p", 0.5)), "was changed after it was inserted"),
        (lambda: spoilt(lambda a: a.down_project.half()), "of several types: torch.float16, torch.float32"),
        (lambda: spoilt(lambda a: a.register_buffer("more", torch.zeros(2))), "has unexpected tensors"),
        (lambda: spoilt(lambda a: setattr(a.up_project, "bias", None)), "lacks tensors"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(model, message, tmp_path):
    with pytest.raises(StorageError, match=message):
        save_adapter(model(), tmp_path, "film")
    assert not any(tmp_path.iterdir())


def test_what_is_not_there_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="no adapters called 'hotels'"):
        save_adapter(adapted("bert", PLAIN), tmp_path, "hotels")
    bank = AdapterBank(make("small_post"))
    insert_adapters(bank.base_model, PLAIN, "film")
    with pytest.raises(StorageError, match="'film' is no task of the bank"):
        save_adapter(bank, tmp_path, "film")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StorageError, match=r"film\.safetensors cannot be read or written"):
        save_adapter(adapted("bert", PLAIN), tmp_path / "file", "film")


class Scale(torch.nn.Module):
    """As in (IA)³: one factor for each number of a hidden state."""

    def __init__(self, d):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.zeros(d))

    def update(self, h):
        return self.factor * h

    def forward(self, h):
        return h + self.update(h)


@dataclass(frozen=True)
class ScaleConfig:
    """Settings of a kind that storage has never heard of."""

    kind = "scale"
    placement: str = "houlsby"
    layers: tuple[int, ...] | None = None
    train_layer_norms: bool = False
    words: tuple[str, ...] = ("any", "thing")
    strength: float | None = None

    def build(self, model_dim):
        return Scale(model_dim)


def test_another_kind_of_module_needs_no_edit(tmp_path, monkeypatch):
    config = ScaleConfig(layers=(1,), train_layer_norms=True, strength=0.25)
    trained = adapted("bert", config)
    with pytest.raises(StorageError, match="no kind of module called 'scale', only bottleneck"):
        save_adapter(trained, tmp_path, "film")
    monkeypatch.setitem(KINDS, "scale", ScaleConfig)
    save_adapter(trained, tmp_path, "film")
    model = make("bert")
    load_adapter(model, tmp_path)
    assert adapter_config(model, "film") == config
    assert torch.equal(model(torch.tensor([[2, 3]]))[0], trained(torch.tensor([[2, 3]]))[0])


# --- Folders of version 0.5.0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "adapter_config.json",
            lambda text: text.replace(b'"scaling": 1.5', b'"scaling": 4.5'),
            "altered or is damaged",
        ),
        ("adapter_config.json", lambda text: text.replace(b'"format": 1', b'"format": 0'), "altered or is damaged"),
        ("adapter_config.json", lambda text: text[:-5], "cannot be read as JSON"),
        (
            "adapter_config.json",
            lambda text: b'{"peft_type": "LORA"}',
            "is a LORA adapter of peft, which peft.PeftModel.from_pretrained.* reads",
        ),
        ("adapter_config.json", lambda text: b'{"fine_tune_type": "lora"}', "is a lora adapter of mlx"),
        ("adapter_config.json", lambda text: b'{"model_type": "bert", "config": {}}', "an adapter of AdapterHub's"),
        ("*.safetensors", lambda data: data[:-1] + b"\0", "altered or is damaged"),
        ("*.safetensors", lambda data: data[:-1], "no safetensors file, or damaged"),
    ],
)
def test_a_damaged_folder_of_version_0_5_0(file, change, message, tmp_path):
    shutil.copytree(version_0_5.HERE / "post" / "houlsby", tmp_path / "film")
    (path,) = (tmp_path / "film").glob(file)
    assert (data := path.read_bytes()) != change(data)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StorageError, match=message):
        upgrade_folder(version_0_5.bank_of("post"), tmp_path, "film")
    assert list_adapters(tmp_path)[0].problem


def test_unpacked_is_what_the_header_says(saved):
    content, tensors = unpacked(saved[0])
    assert content["format"] == 2
    assert len(tensors) == 2 * 4 + 2 * 2 * 2 + 2
