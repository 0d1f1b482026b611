"""Adapters saved and loaded: bit for bit the same, or refused, and then nothing has changed."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from models import ALL, DEPTH, WIDTH, hooks, inputs, make, output, randomise, slots, small, snapshot
from safetensors.torch import load_file
from stored import LARGE, PLAIN, RICH, adapted, bank_with, forge, randomise_tasks, refused, state, tensor_file

from adapters_lesson import Adapter, AdapterBank, AdapterConfig, Classifier, insert_adapters, remove_adapters

from adapters_lesson import set_active_adapter, set_trainable  # isort: skip
from adapters_lesson.adapter import PLACEMENTS
from adapters_lesson.architectures import ARCHITECTURES
from adapters_lesson.composition import average_adapters, fuse_adapters, stack_adapters
from adapters_lesson.files import write_atomically
from adapters_lesson.insertion import adapter_config, adapter_names
from adapters_lesson.storage import (
    StorageError,
    delete_adapter,
    list_adapters,
    load_adapter,
    rename_adapter,
    save_adapter,
)
from adapters_lesson.storage_files import CONFIG, locked
from adapters_lesson.storage_parts import fingerprint


@pytest.fixture
def saved(tmp_path):
    """A folder with one adapter of a classifier, and a fresh classifier."""
    model = adapted("small_classifier", RICH)
    save_adapter(model, tmp_path, "film")
    return tmp_path, make("small_classifier")


# --- What comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", ALL)
def test_a_loaded_adapter_answers_bit_for_bit_alike(kind, placement, tmp_path):
    config = AdapterConfig(3, placement=placement, scaling=1.7, layers=(0, 2), train_layer_norms=True)
    trained = adapted(kind, config)
    save_adapter(trained, tmp_path, "film")
    bare, model = output(make(kind)), make(kind)
    assert load_adapter(model, tmp_path) == "film"
    assert torch.equal(output(model), output(trained))
    assert not torch.equal(output(model), bare)
    assert state(model) == state(trained)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("config", [PLAIN, RICH, LARGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
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
    next(slot for slot in slots(trained) if isinstance(slot["film"], Adapter))["film"].down_project.half()
    with pytest.raises(StorageError, match="of several types: float16, float32"):
        save_adapter(trained, tmp_path, "film")


def test_only_this_adapter_is_saved_at_four_bytes_a_parameter(tmp_path):
    model = Classifier(small(hidden_size=256, intermediate_size=64), 2)
    insert_adapters(model, AdapterConfig(64), "film")
    insert_adapters(model, AdapterConfig(32), "hotels")
    path = save_adapter(model, tmp_path, "film")
    assert path == tmp_path.resolve() / "film"
    parameters = 2 * DEPTH * Adapter.count(256, 64) + 2 * 256 + 2
    size = tensor_file(path).stat().st_size
    assert 4 * parameters < size < 4 * parameters + 5_000
    assert not any("hotels" in key for key in load_file(tensor_file(path)))
    assert {file.name for file in path.iterdir()} == {CONFIG, tensor_file(path).name}
    assert json.loads((path / CONFIG).read_text())["tensors"]["parameters"] == parameters


def test_saving_changes_nothing(tmp_path):
    model = adapted("bert_classifier", RICH)
    set_trainable(model, "film")
    before = state(model)
    save_adapter(model, tmp_path, "film")
    assert state(model) == before


def test_loading_draws_no_random_numbers_for_the_adapter(saved):
    folder, model = saved
    before = torch.get_rng_state()
    load_adapter(model, folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_head_goes_where_there_is_one(saved):
    folder, _ = saved
    model = make("small_classifier", seed=0)
    randomise(model.head)
    load_adapter(model, folder)
    assert torch.equal(output(model), output(adapted("small_classifier", RICH)))
    base = make("small_classifier").base_model
    load_adapter(base, folder)  # without a warning
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
    assert json.loads((path / CONFIG).read_text())["head"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(make("gpt2_head"), tmp_path)


def test_saving_again_replaces_both_files(tmp_path):
    save_adapter(adapted("bert", PLAIN, seed=1), tmp_path, "film")
    trained = adapted("bert", RICH, seed=2)
    path = save_adapter(trained, tmp_path, "film")
    assert len(list(path.iterdir())) == 2
    model = make("bert")
    load_adapter(model, tmp_path)
    assert torch.equal(output(model), output(trained))
    save_adapter(trained, tmp_path, "film")  # the same again
    assert len(list(path.iterdir())) == 2


def test_a_loaded_adapter_does_not_hang_on_its_file(saved):
    folder, model = saved
    load_adapter(model, folder)
    answers = output(model)
    with tensor_file(folder / "film").open("r+b") as file:
        file.truncate(10)
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
    with pytest.raises(ValueError, match="not in the table of architectures"):
        save_adapter(model, tmp_path, "film")
    save_adapter(model, tmp_path, "film", architecture=at)
    refused(fresh(), tmp_path, "not in the table of architectures")
    other = fresh()
    load_adapter(other, tmp_path, architecture=at)
    assert torch.equal(other(inputs(model)["input_ids"]), model(inputs(model)["input_ids"]))


# --- Banks and what is composed -------------------------------------------------------------------------------------


def test_a_bank_gets_the_task_with_head_and_labels(tmp_path):
    bank = bank_with(make("small_post"), film=(RICH, ("negative", "positive")), hotels=(PLAIN, 3))
    x = inputs(bank.base_model)
    for name in ("film", "hotels"):
        save_adapter(bank, tmp_path, name)
    other = AdapterBank(make("small_post"))
    assert [load_adapter(other, tmp_path, name) for name in ("film", "hotels")] == ["film", "hotels"]
    assert other.active == "hotels"
    assert other.labels == {"film": ("negative", "positive"), "hotels": ("0", "1", "2")}
    for name in ("film", "hotels"):
        bank.switch(name), other.switch(name)
        assert torch.equal(bank(**x), other(**x))
        assert state(other.eval()) == state(bank)
    mixed = [bank(**x, adapters=["hotels", "film"]) for bank in (bank, other)]
    assert all(torch.equal(a, b) for a, b in zip(*mixed, strict=True))


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


def test_what_a_bank_refuses(saved, tmp_path_factory):
    folder, _ = saved
    bank = bank_with(make("small_classifier").base_model, hotels=(PLAIN, 2))
    forge(folder / "film", lambda c: c["head"].update(labels=["one", "two", "three"]))
    refused(bank, folder, "a bank's head for 3 labels is linear, from 16")
    headless = tmp_path_factory.mktemp("headless")
    save_adapter(adapted("small_classifier", PLAIN).base_model, headless, "film")
    refused(bank, headless, "saved without a head, which every task of a bank needs")
    forge(folder / "film", lambda c: c["head"].update(labels=["one", "two"]))
    load_adapter(bank, folder)
    refused(bank, folder, "adapters called 'film' already")


def composed_bank(seed=0):
    bank = bank_with(make("small_post"), film=(PLAIN, 2), hotels=(AdapterConfig(3, scaling=2.0), 3))
    torch.manual_seed(seed)
    bank.stack(["film", "hotels"], "both", 2)
    bank.fuse(["film", "both"], "mixed", ("no", "yes"))
    randomise_tasks(bank)
    return bank.eval()


def test_stacks_and_fusions_are_loaded_after_their_members(tmp_path):
    bank = composed_bank()
    for name in bank.heads:
        save_adapter(bank, tmp_path, name)
    other = AdapterBank(make("small_post"))
    refused(other, tmp_path, "made of 'film' among others: load that one first", "both")
    for name in ("film", "hotels", "both", "mixed"):
        load_adapter(other, tmp_path, name)
    for name in bank.heads:
        bank.switch(name), other.switch(name)
        assert torch.equal(bank(**inputs(bank.base_model)), other(**inputs(bank.base_model))), name
        assert state(other.eval()) == state(bank)
    listed = {one.name: one for one in list_adapters(tmp_path)}
    assert listed["both"].members == ("film", "hotels")
    assert listed["mixed"].labels == ("no", "yes")
    assert str(listed["mixed"]).startswith("mixed: made of film, both, ")
    assert listed["both"].parameters == 2 * WIDTH + 2  # the head alone


def test_a_fusion_is_refused_on_other_members(tmp_path):
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
    forge(tmp_path / "both", lambda c: c["composition"].update(kind="Module"))
    bank.remove("mixed"), bank.remove("both")
    refused(bank, tmp_path, "there is no 'Module' of", "both")


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


# --- Folders --------------------------------------------------------------------------------------------------------


def test_which_one(saved):
    folder, model = saved
    save_adapter(adapted("small_classifier", PLAIN, "hotels"), folder, "hotels")
    refused(model, folder, "has 'film', 'hotels': say which", None)
    refused(model, folder, "there is no adapter 'books' in .*It has 'film', 'hotels'", "books")
    refused(model, folder / "film", "has no adapters: save_adapter", None)
    refused(model, folder / "none", "there is no folder", None)
    refused(model, folder / "none", "there is no folder", "film")
    assert load_adapter(model, folder, "hotels") == "hotels"


def test_list_rename_delete(saved):
    folder, model = saved
    (film,) = list_adapters(folder)
    assert (film.name, film.path, film.config, film.labels) == ("film", folder / "film", RICH, None)
    assert film.bytes == sum(file.stat().st_size for file in (folder / "film").iterdir())
    assert film.parameters == 2 * Adapter.count(WIDTH, 5) + 4 * 2 * WIDTH + 2 * WIDTH + 2
    assert film.architecture == "small_transformer_post"
    assert film.library.startswith("adapters-lesson ")
    assert str(film) == (
        f"film: pfeiffer, {film.parameters:,} parameters, {film.bytes:,} bytes, for small_transformer_post"
    )
    assert rename_adapter(folder, "film", "cinema") == folder.resolve() / "cinema"
    with pytest.raises(StorageError, match=r"there is no adapter 'film' in .*: it has cinema"):
        rename_adapter(folder, "film", "films")
    assert load_adapter(model, folder) == "cinema"
    save_adapter(model, folder, "cinema")
    save_adapter(adapted("small_classifier", PLAIN), folder, "film")
    with pytest.raises(StorageError, match="is there already"):
        rename_adapter(folder, "film", "cinema")
    delete_adapter(folder, "cinema")
    assert [one.name for one in list_adapters(folder)] == ["film"]
    assert [path.name for path in folder.iterdir()] == ["film"]
    with pytest.raises(StorageError, match="there is no adapter 'cinema'"):
        delete_adapter(folder, "cinema")


def test_unreadable_ones_are_listed_and_can_be_deleted(saved):
    folder, _ = saved
    save_adapter(adapted("small_classifier", PLAIN, "hotels"), folder, "hotels")
    (folder / "hotels" / CONFIG).write_text("{")
    tensor_file(folder / "film").write_bytes(b"nothing")
    film, hotels = list_adapters(folder)
    assert "has 7 bytes" in film.problem
    assert "no JSON" in hotels.problem
    assert str(hotels).startswith("hotels: cannot be read: ")
    delete_adapter(folder, "film"), delete_adapter(folder, "hotels")
    assert list_adapters(folder) == []
    assert not any(folder.iterdir())


def test_only_what_a_save_wrote_is_deleted(saved):
    folder, _ = saved
    notes = folder / "film" / "notes.txt"
    notes.write_text("mine")
    other = folder / "film" / "model.safetensors"
    other.write_text("mine, too")
    save_adapter(adapted("small_classifier", PLAIN), folder, "film")
    assert notes.exists() and other.exists()
    delete_adapter(folder, "film")
    assert {path.name for path in (folder / "film").iterdir()} == {"model.safetensors", "notes.txt"}


def test_another_librarys_folder_is_left_alone(tmp_path):
    theirs = tmp_path / "film"
    theirs.mkdir()
    (theirs / CONFIG).write_text('{"peft_type": "LORA"}')
    model = adapted("small_classifier", PLAIN)
    for call in (lambda: save_adapter(model, tmp_path, "film"), lambda: delete_adapter(tmp_path, "film")):
        with pytest.raises(StorageError, match="was not written by save_adapter, and is left alone"):
            call()
    assert (theirs / CONFIG).read_text() == '{"peft_type": "LORA"}'
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StorageError, match="is a file"):
        save_adapter(adapted("small_classifier", PLAIN, "file"), tmp_path, "file")


# --- Saving ---------------------------------------------------------------------------------------------------------


def test_what_is_not_saved(tmp_path):
    model = adapted("bert", PLAIN)
    save_adapter(model, tmp_path, "film")
    before = tensor_file(tmp_path / "film").read_bytes()
    with pytest.raises(ValueError, match="no adapters called 'hotels'"):
        save_adapter(model, tmp_path, "hotels")
    with torch.no_grad():
        slots(model)[0]["film"].up_project.bias[0] = float("nan")
    with pytest.raises(StorageError, match="not finite: train again, with a lower learning rate"):
        save_adapter(model, tmp_path, "film")
    model = adapted("bert", PLAIN)
    slots(model)[0]["film"].scaling = 2.0
    with pytest.raises(StorageError, match="was changed after it was inserted"):
        save_adapter(model, tmp_path, "film")
    model = adapted("bert", PLAIN)
    slots(model)[0]["film"].down_project.weight = torch.nn.Parameter(torch.zeros(4, 16, dtype=torch.int8), False)
    with pytest.raises(StorageError, match=r"is of type torch.int8: only float64, float32"):
        save_adapter(model, tmp_path, "film")
    bank = AdapterBank(make("small_post"))
    insert_adapters(bank.base_model, PLAIN, "film")
    with pytest.raises(StorageError, match="'film' is no task of the bank"):
        save_adapter(bank, tmp_path, "film")
    assert tensor_file(tmp_path / "film").read_bytes() == before


def test_a_save_that_fails_leaves_the_old_adapter(tmp_path, monkeypatch):
    trained = adapted("bert", PLAIN)
    save_adapter(trained, tmp_path, "film")

    def full_disk(path, write):
        if path.name == CONFIG:
            raise OSError("no space left on device")
        write_atomically(path, write)

    monkeypatch.setattr("adapters_lesson.storage_files.write_atomically", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_adapter(adapted("bert", RICH, seed=3), tmp_path, "film")
    monkeypatch.undo()
    model = make("bert")
    load_adapter(model, tmp_path)
    assert torch.equal(output(model), output(trained))
    assert len(list((tmp_path / "film").iterdir())) == 3  # with the tensors that were not committed
    save_adapter(trained, tmp_path, "film")
    assert len(list((tmp_path / "film").iterdir())) == 2


def test_two_who_save_at_once_take_turns(tmp_path):
    pytest.importorskip("fcntl")
    from concurrent.futures import ThreadPoolExecutor

    models = [adapted("small_post", PLAIN, seed=seed) for seed in range(3)]
    path = save_adapter(models[0], tmp_path, "film")
    with ThreadPoolExecutor(4) as pool:
        with locked(path):
            save = pool.submit(save_adapter, models[1], tmp_path, "film")
            load = pool.submit(load_adapter, make("small_post"), tmp_path, "film")
            with pytest.raises(TimeoutError):
                save.result(timeout=0.2)
            assert not load.done()
        assert load.result() == save.result().name == "film"
        jobs = [pool.submit(save_adapter, models[i % 3], tmp_path, "film") for i in range(12)]
        jobs += [pool.submit(load_adapter, make("small_post"), tmp_path, "film") for _ in range(6)]
        for job in jobs:
            job.result()
    assert len(list(path.iterdir())) == 2


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
    tensors = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)]
    prints = set()
    for name in ("a", "b"):
        for tensor in tensors:
            module = torch.nn.Module()
            module.register_buffer(name, tensor)
            prints.add(fingerprint(module))
    assert len(prints) == 6
