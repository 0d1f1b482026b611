"""2,000 damaged and forged adapters: each is refused, or loaded to the same outputs; and nothing in them is run."""

import json
import pickle
import random
import re
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from models import VOCAB, randomise, slots, small
from safetensors.torch import load, save
from stored import forge, state, tensor_file

from adapters_lesson import AdapterConfig, Classifier, insert_adapters, remove_adapters, set_active_adapter
from adapters_lesson.composition import fuse_adapters
from adapters_lesson.insertion import adapter_names
from adapters_lesson.storage import StorageError, load_adapter, save_adapter
from adapters_lesson.storage_files import CONFIG

NAMES = ("film", "hotels", "mixed")
RUNS, CASES = 4, 500
JUNK = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**30, 10**400, 0.5, -0.0, 1e308, "", "film", "../film", "float32", "int8",
    "Stack", "F64", "\0", "\ud800", [], [0], [[]], [0, 0], [10**9], {}, {"": 0}, {"a": {}},
]  # fmt: skip
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool, torch.complex64]
WATCHED = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
watched: list | None = None  # what was run while somebody watched


def watch(event, args):
    if watched is not None and event in WATCHED:
        watched.append((event, args))


sys.addaudithook(watch)


class Bomb:
    """Unpickling it looks up a class, which the audit sees."""

    def __reduce__(self):
        return Path, ("exploded",)


def fresh():
    """The model that the adapters belong to; it has the members of the fusion already."""
    torch.manual_seed(0)
    model = Classifier(small(hidden_size=8, num_hidden_layers=2, intermediate_size=8, vocab_size=VOCAB), 2)
    for name in ("one", "two"):
        insert_adapters(model, AdapterConfig(2, layers=(1,)), name)
    randomise(model)
    return model.eval()


@torch.no_grad()
def answers(model):
    ids = torch.arange(2, 14).view(2, 6)
    return model(ids, torch.ones_like(ids))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with three adapters, and what the model answers with each."""
    folder, expected = tmp_path_factory.mktemp("original"), {}
    model = fresh()
    insert_adapters(model, AdapterConfig(3, placement="pfeiffer", train_layer_norms=True, scaling=1.5), "film")
    insert_adapters(model, AdapterConfig(reduction_factor=4, layers=(0,), activation="relu"), "hotels")
    fuse_adapters(model, ["one", "two"], "mixed")
    for name in NAMES:
        for slot in slots(model):
            if name in slot:
                randomise(slot[name], std=0.5)
        set_active_adapter(model, name)
        expected[name] = answers(model)
        save_adapter(model, folder, name)
    return folder, expected


# --- Mutations: each changes the adapter in ``path``, and tells whether other outputs would be no wonder --------------


def flip_bytes(data, rng, most=4):
    data = bytearray(data)
    for _ in range(rng.randint(1, most)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def insert_bytes(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:]


def replace_all(data, rng):
    return rng.choice(
        [b"", b"{}", b"[]", b"null", b"\xff\xfe{\0}\0", b"[" * 100_000, pickle.dumps(Bomb()), rng.randbytes(99)]
    )


def damage(path, rng, other):
    """Bytes of one of the files, and no checksum is made right."""
    file = rng.choice([path / CONFIG, tensor_file(path)])
    change = rng.choice([flip_bytes, flip_bytes, cut, insert_bytes, replace_all])
    file.write_bytes(change(file.read_bytes(), rng))


def swap(path, rng, other):
    """A file of another adapter in place of this one's, or none."""
    kind = rng.randrange(4)
    if kind == 0:
        shutil.copy(other / CONFIG, path / CONFIG)
    elif kind == 1:
        shutil.copy(tensor_file(other), tensor_file(path))
    elif kind == 2:
        shutil.copy(other / CONFIG, path / CONFIG)
        tensor_file(path).rename(path / tensor_file(other).name)
    else:
        rng.choice([path / CONFIG, tensor_file(path)]).unlink()


def swap_with_checksums(path, rng, other):
    forge(path, data=tensor_file(other).read_bytes())


def alter(content, rng):
    """Drop, add or replace something anywhere in what JSON holds."""
    inside = content
    while True:
        key = rng.choice(sorted(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
        if not isinstance(inside[key], (dict, list)) or not inside[key] or rng.random() < 0.3:
            break
        inside = inside[key]
    kind = rng.randrange(4)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside[rng.choice(["more", "format", key + "x"])] = inside.pop(key) if rng.random() < 0.5 else rng.choice(JUNK)
    else:
        inside[key] = rng.choice(JUNK)


def settings(path, rng, other):
    """A setting, and no checksum is made right."""
    content = json.loads((path / CONFIG).read_text())
    before = json.dumps(content, sort_keys=True)
    while json.dumps(content, sort_keys=True) == before:
        alter(content, rng)
    (path / CONFIG).write_text(json.dumps(content))


def settings_with_checksums(path, rng, other):
    forge(path, lambda content: alter(content, rng))
    return True  # another scaling is another scaling


def tensors_with_checksums(path, rng, other):
    """Tensors renamed, dropped, added, of another shape, type or not finite."""
    tensors = load(tensor_file(path).read_bytes())
    name, another = rng.sample(sorted(tensors), 2)
    kind = rng.randrange(8)
    if kind == 0:
        tensors[rng.choice([name + "x", "x", "", name.upper(), name.replace(".0.", ".1.")])] = tensors.pop(name)
    elif kind == 1:
        del tensors[name]
    elif kind == 2:
        tensors["more." + name] = tensors[name].clone()
    elif kind == 3:
        tensors[name], tensors[another] = tensors[another], tensors[name]
    elif kind == 4:
        tensors[name] = tensors[name].reshape(rng.choice([(-1,), (-1, 1), (1, *tensors[name].shape)])).clone()
    elif kind == 5:
        tensors[name] = tensors[name].to(rng.choice(DTYPES))
    elif kind == 6:
        tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = rng.choice([float("nan"), float("inf")])
    else:
        tensors[name] = (
            torch.cat([tensors[name], tensors[name][:1]]) if rng.random() < 0.5 else tensors[name][:0].clone()
        )
    forge(path, data=save(tensors))
    return kind in (0, 3)  # two tensors of one shape may change places


def header_with_checksums(path, rng, other):
    """The header of the safetensors file."""
    data = tensor_file(path).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header, kind = data[8:end], rng.randrange(4)
    if kind == 0:
        forge(path, data=flip_bytes(data[:end], rng) + data[end:])
        return True
    if kind == 1:  # numbers: shapes, offsets
        numbers = list(re.finditer(rb"\d+", header))
        one = rng.choice(numbers)
        number = rng.choice([b"0", b"1", b"-1", b"4", b"9", b"18446744073709551616", b"4611686018427387904", b"1e3"])
        header = header[: one.start()] + number + header[one.end() :]
    elif kind == 2:
        header = header.replace(
            b"F32", rng.choice([b"F16", b"F64", b"F8_E4M3", b"I32", b"F4", b"X"]), rng.choice([1, -1])
        )
    else:
        header = rng.choice(
            [b"{}", b"[]", b"[" * 10_000, header[:-1], header + header, b'{"__metadata__":{"a":"b"},' + header[1:]]
        )
    forge(path, data=len(header).to_bytes(8, "little") + header + data[end:])
    return True


def values_with_checksums(path, rng, other):
    data = tensor_file(path).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    forge(path, data=data[:end] + flip_bytes(data[end:], rng))
    return True


def replaced_with_checksums(path, rng, other):
    data = tensor_file(path).read_bytes()
    forge(path, data=rng.choice([cut, insert_bytes, replace_all])(data, rng))
    return True


MUTATIONS = {
    damage: 7, swap: 1, settings: 3, settings_with_checksums: 6, tensors_with_checksums: 5, header_with_checksums: 3,
    values_with_checksums: 1, replaced_with_checksums: 1, swap_with_checksums: 1,
}  # fmt: skip


@pytest.mark.parametrize("run", range(RUNS))
def test_every_mutation_is_refused_or_harmless(original, tmp_path, run):
    global watched
    folder, expected = original
    model, rng, reached, loaded = fresh(), random.Random(run), Counter(), 0
    before, head = state(model), {key: t.clone() for key, t in model.head.state_dict().items()}
    warnings.simplefilter("ignore")  # of bottlenecks that are none
    for case in range(CASES):
        name, other = rng.sample(NAMES, 2)
        (mutate,) = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(folder / name, tmp_path / name)
        may_differ = mutate(tmp_path / name, rng, folder / other)
        where = f"run {run}, case {case}: {mutate.__name__} of {name}"
        watched = []
        try:
            load_adapter(model, tmp_path, name)
        except StorageError as error:
            reached[re.sub(r"'[^']*'|\d|/\S*|\.\.\.*", "", str(error))[:30]] += 1
            assert len(str(error)) < 1500, where
        except BaseException as error:
            raise AssertionError(f"{where}: {type(error).__name__}, which is no StorageError") from error
        else:
            loaded += 1
            assert set(adapter_names(model)) == {"one", "two", name}, where
            same = torch.equal(answers(model), expected[name])
            assert same or may_differ, f"{where} answers something else"
            remove_adapters(model, name)
            model.head.load_state_dict(head)
            set_active_adapter(model, "two")
        assert not watched, where
        watched = None
        assert state(model) == before, where
    print(f"{loaded} loaded, {CASES - loaded} refused", reached.most_common())
    assert CASES / 50 < loaded < CASES / 4
    assert len(reached) > 15  # the checks behind the checksums, too


def test_the_audit_hears_a_bomb():
    global watched
    watched = []
    pickle.loads(pickle.dumps(Bomb()))
    assert [event for event, _ in watched] == ["pickle.find_class"]
    watched = None
