"""Adapters saved and loaded: what is refused, each with a message of its own, and then nothing has changed."""

import copy
import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from models import BASES, make, slots, small
from stored import PLAIN, RICH, adapted, forge, forge_tensors, refused, tensor_file

from adapters_lesson import AdapterConfig, Classifier, insert_adapters
from adapters_lesson.storage import (
    StorageError,
    delete_adapter,
    list_adapters,
    load_adapter,
    rename_adapter,
    save_adapter,
)
from adapters_lesson.storage_files import CONFIG
from adapters_lesson.storage_format import _MAX_CONFIG_BYTES, KINDS


@pytest.fixture
def saved(tmp_path):
    """A folder with one adapter of a classifier, and a fresh classifier."""
    model = adapted("small_classifier", RICH)
    save_adapter(model, tmp_path, "film")
    return tmp_path, make("small_classifier")


# --- Another model, other files ---------------------------------------------------------------------------------------


def test_another_base_model(saved):
    folder, model = saved
    with torch.no_grad():
        model.base_model.word_embeddings.weight[3, 3] += 1e-6
    refused(model, folder, "another base model, of the same shape but with other weights")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: small(hidden_size=32), "model_dim=16, and this one has 32"),
        (lambda: small(num_hidden_layers=2), "layers=3, and this one has 2"),
        (lambda: small("pre"), "architecture='small_transformer_post', and this one has 'small_transformer_pre'"),
        (BASES["bert"], "architecture='small_transformer_post', and this one has 'bert'"),
        (lambda: make("small_post").double(), "another base model"),
    ],
)
def test_another_shape_of_model(saved, other, message):
    refused(Classifier(other(), 2), saved[0], message)


def test_an_outline(saved):
    model = copy.deepcopy(saved[1]).to("meta")
    with pytest.raises(StorageError, match="outline on the meta device"):
        load_adapter(model, saved[0])
    assert not slots(model)


def test_another_head(saved):
    folder, model = saved
    refused(Classifier(model.base_model, 3), folder, "another than the model's: 'head.bias' is .*shape': .2.*Make")
    model.head.double()
    refused(model, folder, "another than the model's.*float64")


def test_a_name_that_is_taken(saved):
    folder, model = saved
    insert_adapters(model, PLAIN, "film")
    refused(model, folder, "adapters called 'film' already: choose another name")


def change_tensor(key, function):
    def change(tensors):
        name = next(name for name in tensors if name.endswith(key))
        tensors[name] = function(tensors[name])

    return change


def rename_tensor(tensors):
    name = next(iter(tensors))
    tensors[name + "x"] = tensors.pop(name)


def with_value(value):
    def change(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(next(iter(tensors))), "lacks 'adapters.blocks.0"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "has also 'more'"),
        (rename_tensor, "lacks"),
        (change_tensor("down_project.weight", torch.Tensor.double), "is of type F64, expected F32"),
        (change_tensor("down_project.bias", torch.Tensor.int), "is of type I32, expected F32"),
        (change_tensor("down_project.weight", lambda t: t.T.contiguous()), "has the shape .16, 5., expected .5, 16."),
        (change_tensor("head.weight", lambda t: t[:1].clone()), "has the shape .1, 16., expected .2, 16."),
        (change_tensor("up_project.bias", with_value(float("nan"))), "values that are not finite"),
        (change_tensor("head.weight", with_value(float("inf"))), "values that are not finite"),
        (change_tensor("ffn_norm.trained_norms.weight", with_value(-float("inf"))), "values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit(saved, change, message):
    folder, model = saved
    forge_tensors(folder / "film", change)
    refused(model, folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "of format 2, by 'adapters-lesson .*, and this version reads 1: upgrade"),
        (lambda c: c.update(format="1"), "'format' is missing, unknown or of the wrong kind"),
        (lambda c: c.pop("format"), "was not written by save_adapter; AdapterHub's folders are read by import"),
        (lambda c: c.pop("head"), "'head' is missing"),
        (lambda c: c.update(more=1), "'more' is missing, unknown"),
        (lambda c: c.update(layers=3.0), "'layers' is missing, unknown or of the wrong kind"),
        (lambda c: c["config"].update(train_layer_norms=1), "'config' is missing, unknown or of the wrong kind"),
        (lambda c: c["config"].update(placement="above"), "placement must be one of"),
        (lambda c: c["config"].update(bottleneck_dim=4), "give either bottleneck_dim"),
        (lambda c: c["config"].update(scaling=0), "scaling must be a finite number"),
        (lambda c: c["config"].update(scaling=10**400), "does not fit.*too large"),
        (lambda c: c["config"].update(layers=[0, 7]), "the model has 3 blocks"),
        (lambda c: c["config"].update(layers=[0, 1]), "for other places: blocks"),
        (lambda c: c["config"].update(placement="houlsby"), "for other places: blocks"),
        (lambda c: c["config"].update(train_layer_norms=False), "for other places: blocks"),
        (lambda c: c["config"].update(reduction_factor=4), "has the shape .5, 16., expected .4, 16."),
        (lambda c: c["config"].update(reduction_factor=1e-300), "all tensors together take .* bytes"),
        (lambda c: c["config"].update(reduction_factor=None, bottleneck_dim=10**15), "all tensors together take"),
        (lambda c: c["slots"].update({next(iter(c["slots"])): "float16"}), "is of type F32, expected F16"),
        (lambda c: c["slots"].update({next(iter(c["slots"])): "int8"}), "'int8' is no type of weights"),
        (lambda c: c["head"]["tensors"]["head.bias"].update(shape=[10**12]), "the saved head is another"),
        (lambda c: c["tensors"].update(bytes=10**15), "expected 1,000,000,000,000,000: it is damaged"),
    ],
)
def test_settings_that_make_no_sense(saved, change, message):
    folder, model = saved
    forge(folder / "film", change)
    refused(model, folder, message)


def test_what_is_checked_has_all_settings():
    assert list(KINDS["config"]) == list(AdapterConfig.__dataclass_fields__)


def test_a_huge_header_takes_no_memory(saved):
    folder, model = saved
    file = tensor_file(folder / "film")
    data = file.read_bytes()
    forge(folder / "film", data=(2**62).to_bytes(8, "little") + data[8:])
    refused(model, folder, "is no safetensors file")
    header = {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(header).encode()
    forge(folder / "film", data=len(text).to_bytes(8, "little") + text)
    refused(model, folder, "is no safetensors file")
    with (folder / "film" / CONFIG).open("wb") as config:
        config.truncate(_MAX_CONFIG_BYTES + 1)
    refused(model, folder, "is no file of at most 16,777,216 bytes")


@pytest.mark.parametrize("flip", [0, 40, -40, -1])
def test_one_bit_is_enough(saved, flip):
    folder, model = saved
    for file in (tensor_file(folder / "film"), folder / "film" / CONFIG):
        data = bytearray(file.read_bytes())
        good = bytes(data)
        data[flip] ^= 4
        file.write_bytes(data)
        if json_is_the_same(file, good):
            continue
        refused(model, folder, "damaged")
        file.write_bytes(good)
    load_adapter(model, folder)


def json_is_the_same(file, good):
    try:
        return file.name == CONFIG and json.loads(file.read_bytes()) == json.loads(good)
    except ValueError:
        return False


def test_files_that_are_no_safetensors(saved):
    folder, model = saved
    for data in (b"hello", b"\0" * 100):
        forge(folder / "film", data=data)
        refused(model, folder, "is no safetensors file")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_named_and_never_opened(saved):
    folder, model = saved
    fuse = folder / "exploded"
    zipped = io.BytesIO()
    torch.save({"weights": torch.zeros(2), "bomb": Bomb(fuse)}, zipped)
    path, good = folder / "film", (folder / "film" / CONFIG).read_bytes()
    for data in (pickle.dumps(Bomb(fuse)), zipped.getvalue()):
        tensor_file(path).write_bytes(data)  # in its place
        refused(model, folder, "is a pickle .*never opened: opening one may run any program")
        (path / "pytorch_adapter.bin").write_bytes(data)  # named
        forge(path, lambda c: c["tensors"].update(file="pytorch_adapter.bin"))
        refused(model, folder, "a pickle .'pytorch_adapter.bin'.*never opened")
        (path / CONFIG).unlink()  # alone
        refused(model, folder, "only a pickle .'pytorch_adapter.bin'.*adapter_config.json is missing")
        (path / CONFIG).write_bytes(good)
        (path / "pytorch_adapter.bin").unlink()
    assert not fuse.exists()
    with pytest.raises(AttributeError):  # the bomb would have worked
        pickle.loads(pickle.dumps(Bomb(fuse))).nothing  # noqa: B018
    assert fuse.exists()


# --- Nothing outside the folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../film", "..", ".", "", "/film", "a/b", "a\\b", "film\0", "film\n", "C:film", ".film", 3]
)
def test_names_that_lead_elsewhere(saved, name):
    folder, model = saved
    inner = folder / "inner"
    inner.mkdir()
    refused(model, inner, "is no adapter's name.*nothing outside the folder is opened", name)
    for call in (delete_adapter, lambda f, n: rename_adapter(f, n, "new"), lambda f, n: rename_adapter(f, "film", n)):
        with pytest.raises(StorageError, match="is no adapter's name"):
            call(folder, name)
    load_adapter(model, folder, "film")


@pytest.mark.parametrize(
    "file", ["../hotels/{}", "/etc/passwd", "sub/{}", "..\\{}", "", ".", "weights.safetensors", "{}\0"]
)
def test_a_file_name_that_leads_elsewhere(saved, file):
    folder, model = saved
    shutil.copytree(folder / "film", folder / "hotels")
    file = file.format(tensor_file(folder / "film").name)
    forge(folder / "film", lambda c: c["tensors"].update(file=file))
    refused(model, folder, "nothing outside the folder is opened")


@pytest.mark.parametrize("what", ["folder", CONFIG, "tensors", "circle"])
def test_links_are_not_followed(saved, tmp_path_factory, what):
    folder, model = saved
    outside = tmp_path_factory.mktemp("outside")
    target = folder / "film"
    if what in (CONFIG, "tensors"):
        target = target / CONFIG if what == CONFIG else tensor_file(target)
    shutil.move(target, outside / "it")
    target.symlink_to(target if what == "circle" else outside / "it")
    refused(model, folder, "is a link|cannot be followed|there is no adapter")
    for one in list_adapters(folder):
        assert "is a link" in one.problem
    if what != "tensors":
        with pytest.raises(StorageError, match=r"is a link|cannot be followed"):
            delete_adapter(folder, "film")
        with pytest.raises(StorageError, match=r"is a link|cannot be followed"):
            save_adapter(adapted("small_classifier", PLAIN), folder, "film")
    else:
        delete_adapter(folder, "film")  # the link goes, not what it leads to
        assert not any(folder.iterdir())
    assert (outside / "it").exists()


def test_the_folder_itself_may_be_a_link(saved, tmp_path_factory):
    folder, model = saved
    link = tmp_path_factory.mktemp("links") / "shortcut"
    link.symlink_to(folder)
    assert load_adapter(model, link) == "film"
