"""Damaged and forged adapters: each is refused, or loaded to the same outputs; and nothing in them is run.

200 of them by default; ``-m slow`` tries 2,000.
"""

import json
import pickle
import random
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from models import VOCAB, randomise, slots, small
from stored import forge, state

from adapters_lesson import AdapterConfig, Classifier, insert_adapters, remove_adapters, set_active_adapter
from adapters_lesson.composition import fuse_adapters
from adapters_lesson.insertion import adapter_names
from adapters_lesson.storage import StorageError, load_adapter, save_adapter

NAMES = ("film", "hotels", "mixed")
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


def flip_in_header(data, rng):
    end = 8 + int.from_bytes(data[:8], "little")
    return flip_bytes(data[:end], rng) + data[end:]


def flip_in_length(data, rng):
    return flip_bytes(data[:8], rng, 1) + data[8:]


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def insert_bytes(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:]


def replace_all(data, rng):
    return rng.choice([b"", b"{}", b"\xff\xfe{\0}\0", b"[" * 100_000, pickle.dumps(Bomb()), rng.randbytes(99)])


def change_header(data, rng):
    """A number (of a shape, an offset or a setting), a type, or all of the header."""
    end = 8 + int.from_bytes(data[:8], "little")
    header, kind = data[8:end], rng.randrange(4)
    if kind <= 1:
        one = rng.choice(list(re.finditer(rb"\d+", header)))
        number = rng.choice([b"0", b"1", b"-1", b"4", b"9", b"18446744073709551616", b"4611686018427387904", b"1e3"])
        header = header[: one.start()] + number + header[one.end() :]
    elif kind == 2:
        header = header.replace(b"F32", rng.choice([b"F16", b"F64", b"F8_E4M3", b"I32", b"F4", b"X"]), 1)
    else:
        more = b'{"__metadata__":{"a":"b"},' + header[1:]
        header = rng.choice([b"{}", b"[]", b"[" * 10_000, header[:-1], header + header, more])
    return len(header).to_bytes(8, "little") + header + data[end:]


def damage(path, rng, other):
    """Bytes of the file, and no checksum is made right."""
    kinds = [flip_bytes, flip_in_header, flip_in_length, cut, insert_bytes, replace_all, change_header, change_header]
    path.write_bytes(rng.choice(kinds)(path.read_bytes(), rng))


def swap(path, rng, other):
    """Settings of another adapter, with these tensors and a checksum that is right."""
    from stored import unpacked

    content, _ = unpacked(other)
    forge(path, lambda mine: (mine.clear(), mine.update(content)))


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

    def change(content):
        before = json.dumps(content, sort_keys=True)
        while json.dumps(content, sort_keys=True) == before:
            alter(content, rng)

    forge(path, change, sign=False)


def settings_with_checksum(path, rng, other):
    forge(path, lambda content: alter(content, rng))
    return True  # another scaling is another scaling


def tensors_with_checksum(path, rng, other):
    """Tensors renamed, dropped, added, of another shape, type, value or not finite."""
    kind = rng.randrange(8)

    def change(tensors):
        name, another = rng.sample(sorted(tensors), 2)
        t = tensors[name]
        if kind == 0:
            tensors[rng.choice([name + "x", "x", "", name.upper(), name.replace(".0.", ".1.")])] = tensors.pop(name)
        elif kind == 1:
            del tensors[name]
        elif kind == 2:
            tensors["more." + name] = t.clone()
        elif kind == 3:
            tensors[name], tensors[another] = tensors[another], tensors[name]
        elif kind == 4:
            tensors[name] = t.reshape(rng.choice([(-1,), (-1, 1), (1, *t.shape)])).clone()
        elif kind == 5:
            tensors[name] = t.to(rng.choice(DTYPES))
        elif kind == 6:
            t.view(-1)[rng.randrange(t.numel())] = rng.choice([float("nan"), float("inf"), 3e38, 0.5])
        else:
            tensors[name] = torch.cat([t, t[:1]]) if rng.random() < 0.5 else t[:0].clone()

    forge(path, change_tensors=change)
    return kind in (0, 3, 6)  # two tensors of one shape may change places, and another weight is another weight


MUTATIONS = {damage: 9, swap: 1, settings: 3, settings_with_checksum: 9, tensors_with_checksum: 6}


@pytest.mark.parametrize(
    ("run", "cases"), [(0, 200), *(pytest.param(run, 500, marks=pytest.mark.slow) for run in range(1, 5))]
)
def test_every_mutation_is_refused_or_harmless(original, tmp_path, run, cases):
    global watched
    folder, expected = original
    model, rng, reached, loaded = fresh(), random.Random(run), Counter(), 0
    before, head = state(model), {key: t.clone() for key, t in model.head.state_dict().items()}
    warnings.simplefilter("ignore")  # of bottlenecks that are none
    for case in range(cases):
        name, other = rng.sample(NAMES, 2)
        (mutate,) = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes((folder / path.name).read_bytes())
        may_differ = mutate(path, rng, folder / f"{other}.safetensors")
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
    print(f"{loaded} loaded, {cases - loaded} refused", reached.most_common())
    assert cases / 50 < loaded < cases / 4
    assert len(reached) > 12  # the checks behind the checksums, too


def test_the_audit_hears_a_bomb():
    global watched
    watched = []
    pickle.loads(pickle.dumps(Bomb()))
    assert [event for event, _ in watched] == ["pickle.find_class"]
    watched = None
