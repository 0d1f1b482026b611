"""Adapters saved and loaded: bit for bit the same, or refused, and then nothing has changed."""

import json
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from models import ALL, DEPTH, WIDTH, hooks, inputs, make, output, randomise, slots, small, snapshot
from stored import LARGE, PLAIN, RICH, adapted, bank_with, randomise_tasks, refused, state, unpacked
from version_0_5 import make as version_0_5

from adapters_lesson import Adapter, AdapterBank, AdapterConfig, Classifier, insert_adapters, remove_adapters

from adapters_lesson import set_active_adapter, set_trainable  # isort: skip
from adapters_lesson.architectures import ARCHITECTURES
from adapters_lesson.composition import average_adapters, fuse_adapters, stack_adapters
from adapters_lesson.exchange.version_0_5 import upgrade_folder
from adapters_lesson.insertion import adapter_config, adapter_names
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.storage import StorageError, fingerprint, list_adapters, load_adapter, save_adapter


@pytest.fixture
def saved(tmp_path):
    """A folder with one adapter of a classifier, and a fresh classifier."""
    save_adapter(adapted("small_classifier", RICH), tmp_path, "film")
    return tmp_path, make("small_classifier")


# --- What comes back ------------------------------------------------------------------------------------------------

PAIRS = [(kind, placement) for i, kind in enumerate(ALL) for j, placement in enumerate(PLACEMENTS) if (i + j) % 3 != 2]


@pytest.mark.parametrize(("kind", "placement"), PAIRS)
def test_a_loaded_adapter_answers_bit_for_bit_alike(kind, placement, tmp_path):
    config = AdapterConfig(3, placement=placement, scaling=1.7, layers=(0, 2), train_layer_norms=True)
    trained = adapted(kind, config)
    save_adapter(trained, tmp_path, "film")
    bare, model = output(make(kind)), make(kind)
    before = torch.get_rng_state()
    assert load_adapter(model, tmp_path) == "film"
    assert torch.equal(torch.get_rng_state(), before)  # no random numbers are drawn for the adapter
    assert torch.equal(output(model), output(trained))
    assert not torch.equal(output(model), bare)
    assert state(model) == state(trained)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "dtype"),
    [(PLAIN, torch.bfloat16), (RICH, torch.float64), (LARGE, torch.bfloat16), (LARGE, torch.float16)],
)
def test_settings_and_types_come_back(config, dtype, tmp_path):
    trained = adapted("bert", config, dtype=dtype)
    save_adapter(trained, tmp_path, "film")
    model = make("bert").to(dtype)
    load_adapter(model, tmp_path)
    assert torch.equal(output(model), output(trained))
    assert adapter_config(model, "film") == config
    assert {p.dtype for slot in slots(model) for p in slot.parameters()} == {dtype}


def test_the_adapter_may_be_of_another_type_than_the_base(tmp_path):
    trained = adapted("bert", RICH, dtype=torch.bfloat16)
    for slot in slots(trained):
        slot.float()
    save_adapter(trained, tmp_path, "film")
    model = make("bert").bfloat16()
    load_adapter(model, tmp_path)
    assert torch.equal(output(model), output(trained))


def test_only_this_adapter_is_saved_at_four_bytes_a_parameter(tmp_path):
    model = Classifier(small(hidden_size=256, intermediate_size=64), 2)
    insert_adapters(model, AdapterConfig(64), "film")
    insert_adapters(model, AdapterConfig(32), "hotels")
    set_trainable(model, "film")
    before = state(model)
    path = save_adapter(model, tmp_path, "film")
    assert state(model) == before
    assert list(tmp_path.iterdir()) == [path] == [tmp_path.resolve() / "film.safetensors"]
    parameters = 2 * DEPTH * Adapter.count(256, 64) + 2 * 256 + 2
    assert 4 * parameters < path.stat().st_size < 4 * parameters + 5_000
    assert not any("hotels" in key for key in unpacked(path)[1])
    data = path.read_bytes()
    assert save_adapter(model, tmp_path, "film").read_bytes() == data  # nothing in it depends on chance


def test_the_head_goes_where_there_is_one(saved):
    folder, model = saved
    randomise(model.head)
    load_adapter(model, folder)
    assert torch.equal(output(model), output(adapted("small_classifier", RICH)))
    base = make("small_classifier").base_model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(base, folder)
    assert adapter_names(base) == ["film"]


def test_a_model_with_a_head_is_told_when_the_adapter_has_none(tmp_path):
    save_adapter(adapted("small_classifier", PLAIN).base_model, tmp_path, "film")
    model = make("small_classifier")
    head = snapshot(model.head)
    with pytest.warns(UserWarning, match="saved without a head: the model's own stays"):
        load_adapter(model, tmp_path)
    assert snapshot(model.head) == head


def test_a_tied_head_belongs_to_the_base(tmp_path):
    path = save_adapter(adapted("gpt2_head", PLAIN), tmp_path, "film")
    assert not any(key.startswith("head.") for key in unpacked(path)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(make("gpt2_head"), tmp_path)


def test_a_loaded_adapter_does_not_hang_on_its_file(saved):
    folder, model = saved
    load_adapter(model, folder)
    answers = output(model)
    with (folder / "film.safetensors").open("r+b") as file:
        file.write(b"\0" * 5000)
    assert torch.equal(output(model), answers)


def test_a_custom_architecture(tmp_path):
    def fresh():
        torch.manual_seed(0)
        model = small()
        model.config = SimpleNamespace(max_position_embeddings=24)  # the table has no entry for it
        return model.eval()

    at = ARCHITECTURES["small_transformer_post"]
    model = fresh()
    insert_adapters(model, PLAIN, "film", architecture=at)
    for slot in slots(model):
        randomise(slot)
    save_adapter(model, tmp_path, "film")  # the adapters brought it along
    refused(fresh(), tmp_path, "not in the table of architectures")
    other = fresh()
    load_adapter(other, tmp_path, architecture=at)
    assert torch.equal(other(inputs(model)["input_ids"]), model(inputs(model)["input_ids"]))


# --- Banks and what is composed -------------------------------------------------------------------------------------


def test_a_classifier_and_a_bank_load_from_each_other(saved, tmp_path_factory):
    folder, classifier = saved
    bank = AdapterBank(make("small_classifier").base_model)
    load_adapter(bank, folder)
    load_adapter(classifier, folder)
    assert torch.equal(bank(**inputs(bank.base_model)), output(classifier))
    assert bank.labels == {"film": ("0", "1")}
    assert {n.split(".")[0] for n, p in bank.named_parameters() if p.requires_grad} == {"base_model", "heads"}
    assert not bank.base_model.word_embeddings.weight.requires_grad
    back = tmp_path_factory.mktemp("back")
    save_adapter(bank, back, "film")
    again = make("small_classifier")
    load_adapter(again, back)
    assert torch.equal(output(again), output(classifier))


def composed_bank(seed=0):
    bank = bank_with(make("small_post"), film=(PLAIN, ("bad", "good")), hotels=(AdapterConfig(3, scaling=2.0), 3))
    torch.manual_seed(seed)
    bank.stack(["film", "hotels"], "both", 2)
    bank.fuse(["film", "both"], "mixed", ("no", "yes"))
    randomise_tasks(bank)
    return bank.eval()


def test_a_bank_gets_its_tasks_with_heads_and_labels_and_compositions_after_their_members(tmp_path):
    bank = composed_bank()
    for name in bank.heads:
        save_adapter(bank, tmp_path, name)
    other = AdapterBank(make("small_post"))
    refused(other, tmp_path, "made of 'film' among others: load that one first", "both")
    for name in bank.heads:
        load_adapter(other, tmp_path, name)
    assert other.active == "mixed" and other.labels == bank.labels
    for name in bank.heads:
        bank.switch(name), other.switch(name)
        assert torch.equal(bank(**inputs(bank.base_model)), other(**inputs(bank.base_model))), name
        assert state(other.eval()) == state(bank)
    listed = {one.name: one for one in list_adapters(tmp_path)}
    assert listed["mixed"].settings.labels == ("no", "yes")
    assert str(listed["mixed"]).startswith("mixed: made of film, both, ")
    assert listed["both"].parameters == 2 * WIDTH + 2  # the head alone


def test_a_composition_is_refused_on_other_members(tmp_path):
    bank = composed_bank()
    for name in bank.heads:
        save_adapter(bank, tmp_path, name)
    other = composed_bank(seed=1)
    other.remove("mixed")
    refused(other, tmp_path, "made of another 'film' than the model has", "mixed")
    model = adapted("small_post", PLAIN)
    insert_adapters(model, AdapterConfig(3), "hotels")
    with torch.no_grad():
        for path in ("film", "hotels"):  # the same weights, another scaling
            for slot, mine in zip(slots(bank), slots(model), strict=True):
                mine[path].load_state_dict(slot[path].state_dict())
    refused(model, tmp_path, "made of another 'hotels'", "both")


def test_a_plain_model_takes_compositions_too(tmp_path):
    model = adapted("bert", PLAIN)
    insert_adapters(model, PLAIN, "hotels")
    for slot in slots(model):
        randomise(slot["hotels"], std=0.3)
    stack_adapters(model, ["film", "hotels"], "both")
    average_adapters(model, ["film", "hotels"], "mean", weights=[1, 3])
    fuse_adapters(model, ["film", "mean"], "mixed")
    answers = {}
    for name in adapter_names(model):
        set_active_adapter(model, name)
        answers[name] = output(model)
        save_adapter(model, tmp_path, name)
    other = make("bert")
    for name in adapter_names(model):
        load_adapter(other, tmp_path, name)
        assert torch.equal(output(other), answers[name]), name
    assert state(other) == state(model)


# --- Version 0.5.0 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", version_0_5.TASKS)
def test_folders_of_version_0_5_0_are_read(norm, tmp_path):
    """Every placement with trained norms, a stack and a fusion, written by that version's own code."""
    expected, bank, folder = version_0_5.filled_bank(norm), version_0_5.bank_of(norm), tmp_path / "a"
    shutil.copytree(version_0_5.HERE / norm, folder)
    for name in expected.heads:
        refused(bank, folder, r"is an adapter .* by version 0\.5\.0: .*upgrade_folder\(model, .* makes a file", name)
        before = state(bank)
        assert upgrade_folder(bank, folder, name) == folder / f"{name}.safetensors"
        assert state(bank) == before
        assert load_adapter(bank, folder, name) == name
    answers = version_0_5.answers(expected)
    assert version_0_5.answers(bank.eval()) == answers
    for name, theirs in json.loads((folder / "answers.json").read_text()).items():  # on another machine
        torch.testing.assert_close(torch.tensor(answers[name]), torch.tensor(theirs), rtol=1e-5, atol=1e-6)
    listed = list_adapters(folder)
    assert {one.name for one in listed} == set(expected.heads)
    assert all(one.problem is None and one.settings.library == "adapters-lesson 0.5.0" for one in listed)


def test_a_composition_of_version_0_5_0_needs_its_members(tmp_path):
    shutil.copytree(version_0_5.HERE / "post", tmp_path / "a")
    bank = version_0_5.bank_of("post")
    with pytest.raises(StorageError, match="made of 'one' among others: load that one first"):
        upgrade_folder(bank, tmp_path / "a", "stacked")
    bank = version_0_5.filled_bank("post")
    with torch.no_grad():
        slots(bank)[-1]["two"].up_project.bias[0] += 1
    with pytest.raises(StorageError, match="made of another 'two' than the model has now"):
        upgrade_folder(bank, tmp_path / "a", "stacked")
    assert not list((tmp_path / "a").glob("*.safetensors"))


# --- Folders --------------------------------------------------------------------------------------------------------


def test_which_one(saved, monkeypatch):
    folder, model = saved
    path = save_adapter(adapted("small_classifier", PLAIN, "hotels"), folder, "hotels")
    refused(model, folder, "has 'film', 'hotels', saved by save_adapter: load_adapter", None)
    refused(model, folder, "there is no adapter 'books': .* has 'film', 'hotels', saved by", "books")
    (folder / "empty").mkdir()
    refused(model, folder / "empty", "empty has no adapters", None)
    refused(model, folder / "none", "there is no folder", None)
    refused(model, folder / "none", "there is no folder", "film")
    assert load_adapter(model, path) == "hotels"  # what save_adapter returned
    monkeypatch.setenv("HOME", str(folder))
    assert load_adapter(model, "~", "film") == "film"
    assert list_adapters("~") == list_adapters(folder)
    refused(model, "~nobody-of-that-name", "cannot be followed")


def test_a_listing_and_files_renamed_and_deleted_by_hand(saved):
    folder, model = saved
    (film,) = list_adapters(folder)
    path = folder / "film.safetensors"
    assert (film.name, film.path, film.settings.config["layers"]) == ("film", path, [0, 2])
    assert film.bytes == path.stat().st_size
    assert film.parameters == 2 * Adapter.count(WIDTH, 5) + 4 * 2 * WIDTH + 2 * WIDTH + 2
    assert film.settings.library.startswith("adapters-lesson")
    about = f"{film.parameters:,} parameters, {film.bytes:,} bytes, for small_transformer_post"
    assert str(film) == f"film: pfeiffer, {about}"
    path.rename(folder / "cinema.safetensors")
    assert load_adapter(model, folder) == "cinema"
    (folder / "cinema.safetensors").unlink()
    assert list_adapters(folder) == []


def test_unreadable_ones_are_listed_and_can_be_saved_again(saved):
    folder, _ = saved
    path = folder / "film.safetensors"
    path.write_bytes(b"nothing")
    (folder / "hotels").mkdir()
    (folder / "hotels" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    film, hotels = list_adapters(folder)
    assert "no safetensors file, or damaged" in film.problem
    assert "hotels is a LORA adapter of peft, which peft.PeftModel.from_pretrained(model, " in hotels.problem
    assert str(hotels).startswith("hotels: cannot be read: ")
    save_adapter(adapted("small_classifier", PLAIN), folder, "film")
    assert list_adapters(folder)[0].problem is None


# --- Saving ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_adapter(saved, monkeypatch):
    folder, model = saved

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"film\.safetensors cannot be read or written: .*No space left"):
        save_adapter(adapted("small_classifier", PLAIN, seed=3), folder, "film")
    monkeypatch.undo()
    assert [file.name for file in folder.iterdir()] == ["film.safetensors"]
    load_adapter(model, folder)
    assert torch.equal(output(model), output(adapted("small_classifier", RICH)))


def test_two_writers_and_a_reader(tmp_path):
    models = [adapted("small_post", config, seed=i) for i, config in enumerate((PLAIN, RICH))]
    save_adapter(models[0], tmp_path, "film")
    answers = [output(model) for model in models]
    stop = time.perf_counter() + 1.5

    def write(i):
        saves = 0
        while time.perf_counter() < stop:
            save_adapter(models[i], tmp_path, "film")
            saves += 1
        return saves

    with ThreadPoolExecutor(2) as pool:
        writers, seen = [pool.submit(write, i) for i in range(2)], set()
        reader = make("small_post")
        while time.perf_counter() < stop:
            load_adapter(reader, tmp_path)
            (found,) = [i for i in range(2) if torch.equal(output(reader), answers[i])]
            seen.add(found)
            remove_adapters(reader)
        assert all(writer.result() > 2 for writer in writers)
    assert seen == {0, 1}
    assert [file.name for file in tmp_path.iterdir()] == ["film.safetensors"]


# --- The fingerprint ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_the_fingerprint_is_the_bases_alone(kind):
    model = make(kind)
    bare = fingerprint(model)
    assert fingerprint(make(kind)) == bare == fingerprint(model.eval())
    insert_adapters(model, RICH, "film")
    insert_adapters(model, PLAIN, "hotels")
    assert fingerprint(model) == bare
    remove_adapters(model)
    assert fingerprint(model) == bare
    assert hooks(model) == hooks(make(kind))
    assert fingerprint(make(kind, seed=1)) != bare


def test_the_fingerprint_sees_names_types_and_shapes():
    prints = set()
    for name in ("a", "b"):
        for tensor in (torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)):
            module = torch.nn.Module()
            module.register_buffer(name, tensor)
            prints.add(fingerprint(module))
    assert len(prints) == 6
