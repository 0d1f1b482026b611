"""One's own texts and one's own base model by the command line: what is learnt, what is said of it, what is refused."""

import csv
import gzip
import io
import json
import math
import re
import shutil
import sys

import pytest
import torch
import transformers as hf
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from models import _BERT, BASES, MORE_BASES, VOCAB, make, randomise
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from adapters_lesson.__main__ import main
from adapters_lesson.architectures import Architecture
from adapters_lesson.course import train_command
from adapters_lesson.course.figures import mean_and_interval
from adapters_lesson.course.own import run_report, saved_run
from adapters_lesson.course.own.tables import read_task
from adapters_lesson.history import load_results

WORDS = ["[PAD]", "[UNK]", "good", "bad", "film", "a", "the", "is", "it", "<b>", "|", ","]
LABELS = ["neg", "pos"]
QUICK = ["--steps", "3", "--batch-size", "4", "--quiet"]


def tokenizer(pad="[PAD]", **more):
    """Of so few words that the tiny models know them all."""
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)} | more, unk_token="[UNK]"))
    model.pre_tokenizer = Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]", pad_token=pad)


@pytest.fixture
def base(tmp_path):
    """Saves a tiny model as transformers does, and returns its folder."""

    def save(model="bert", words=True, name=""):
        model = make(model) if isinstance(model, str) else model
        folder = tmp_path / (name or f"base_{model.config.model_type}")
        model.save_pretrained(folder)
        if words:
            tokenizer().save_pretrained(folder)
        return str(folder)

    return save


def rows(count=12):
    texts = [("good film , a film" if i % 2 else "the bad film") + " it is" * (i % 3) for i in range(count)]
    return {"text": texts, "label": [LABELS[i % 2] for i in range(count)]}


def write_csv(path, data, names=None):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names or list(data))
        writer.writerows(zip(*data.values(), strict=True))
    return str(path)


@pytest.fixture
def task(tmp_path):
    """A folder of CSV files."""
    folder = tmp_path / "task"
    folder.mkdir()
    for split, count in (("train", 12), ("dev", 8), ("test", 6)):
        write_csv(folder / f"{split}.csv", rows(count))
    return str(folder)


def train(*arguments):
    return main(["train", *QUICK, *map(str, arguments)])


def answers(said):
    """What `predict` printed, as rows."""
    return list(csv.DictReader(io.StringIO(said)))


# --- What is learnt is what is predicted with -------------------------------------------------------------------------


def check_round_trip(folder, task, report, capsys):
    """The probabilities of `predict` have the loss and the accuracy that `train` has reported."""
    capsys.readouterr()
    assert main(["predict", str(folder), "--file", f"{task}/test.csv", "--batch-size", "2"]) == 0
    said, right = answers(capsys.readouterr().out), rows(6)
    assert [row["text"] for row in said] == right["text"]
    losses = [-math.log(float(row[f"p({label})"])) for row, label in zip(said, right["label"], strict=True)]
    score = json.loads(report.read_text())["runs"][0]["scores"]["test"]
    assert sum(losses) / 6 == pytest.approx(score["loss"], abs=2e-5)
    assert sum(row["label"] == label for row, label in zip(said, right["label"], strict=True)) / 6 == pytest.approx(
        score["accuracy"]
    )


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "llama", "modernbert", "albert", "t5", "bart", "opt"])
def test_any_encoder_or_decoder_is_a_base(name, base, task, tmp_path, capsys):
    assert name in BASES | MORE_BASES
    report = tmp_path / "r.json"
    assert train("--base", base(name), "--task", task, "--save", tmp_path / "s", "--report", report) == 0
    check_round_trip(tmp_path / "s", task, report, capsys)


@pytest.mark.parametrize("method", ["full", "head", "layer_norm", "bitfit", "lora"])
def test_every_method_is_saved_and_found_again(method, base, task, tmp_path, capsys):
    report, options = tmp_path / "r.json", ["--method", method, "--learning-rate", "0.05"]
    assert train("--base", base(), "--task", task, "--save", tmp_path / "s", "--report", report, *options) == 0
    check_round_trip(tmp_path / "s", task, report, capsys)


def test_a_model_with_a_head_for_these_labels_keeps_it(base, task, tmp_path, capsys):
    torch.manual_seed(0)
    model = hf.BertForSequenceClassification(hf.BertConfig(**_BERT, id2label=dict(enumerate(LABELS))))
    randomise(model)
    report, folder = tmp_path / "r.json", base(model)
    options = ["--learning-rate", "1e-9", "--report", report, "--save", tmp_path / "s"]
    assert train("--base", folder, "--task", task, *options) == 0
    words, right = tokenizer(), rows(6)
    with torch.no_grad():
        logits = torch.cat([model.eval()(torch.tensor([words(t)["input_ids"]])).logits for t in right["text"]])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([LABELS.index(label) for label in right["label"]]))
    assert json.loads(report.read_text())["runs"][0]["scores"]["test"]["loss"] == pytest.approx(loss.item(), abs=1e-4)
    check_round_trip(tmp_path / "s", task, report, capsys)


@pytest.mark.parametrize("kind", ["Model", "ForSequenceClassification"])  # the latter for LABEL_0 and LABEL_1
def test_a_decoder_needs_no_token_for_padding(kind, base, task, tmp_path, capsys):
    config = hf.GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=24, eos_token_id=39)
    report = tmp_path / "r.json"
    folder = base(getattr(hf, f"GPT2{kind}")(config))
    tokenizer(pad=None).save_pretrained(folder)
    assert train("--base", folder, "--task", task, "--report", report, "--save", tmp_path / "s") == 0
    check_round_trip(tmp_path / "s", task, report, capsys)


def test_a_head_for_other_labels_is_replaced_and_that_is_said(base, task):
    folder = base(hf.BertForSequenceClassification(hf.BertConfig(**_BERT, num_labels=3)))
    with pytest.warns(UserWarning, match="has a head for 3 labels: it gets a new one for neg, pos"):
        assert train("--base", folder, "--task", task) == 0


# --- Data -------------------------------------------------------------------------------------------------------------

NAMED = Features(text=Value("string"), label=ClassLabel(names=["pos", "neg", "none"]))


def named_rows(count=12):
    return Dataset.from_dict(
        {"text": rows(count)["text"], "label": [(i + 1) % 2 for i in range(count)]}, features=NAMED
    )


def saved_to_disk(folder):
    DatasetDict(train=named_rows(), validation=named_rows(4)).save_to_disk(folder)


def as_parquet(folder):
    folder.mkdir()
    named_rows().to_parquet(folder / "train.parquet")
    named_rows(4).to_parquet(folder / "validation.parquet")


def as_json(folder, **options):
    folder.mkdir()
    for split, count in (("train", 12), ("valid", 4)):
        Dataset.from_dict(rows(count)).to_json(folder / f"{split}.json", **options)


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (saved_to_disk, ["pos", "neg", "none"]),
        (as_parquet, ["pos", "neg", "none"]),
        (as_json, LABELS),
        (lambda folder: as_json(folder, lines=False, orient="records"), LABELS),
    ],
    ids=["save_to_disk", "parquet", "json lines", "a json list"],
)
def test_folders_of_datasets_keep_the_labels_names(write, names, tmp_path):
    write(tmp_path / "d")
    data = read_task(str(tmp_path / "d"))
    assert list(data) == ["train", "validation"]
    for split, count in (("train", 12), ("validation", 4)):
        assert data[split].features["label"].names == names
        assert data[split]["text"][:] == rows(count)["text"]
        assert [names[label] for label in data[split]["label"]] == rows(count)["label"]


def test_other_columns_are_chosen_by_name(base, tmp_path, capsys):
    file = write_csv(tmp_path / "t.csv", rows(), ["sentence", "mood"])
    options = ["--base", base(), "--task", file, "--save", tmp_path / "s"]
    assert train(*options) == 2
    said = capsys.readouterr().err
    assert "its first line is 'sentence,mood': --text-column and --label-column can name others" in said
    assert train(*options, "--text-column", "sentence", "--label-column", "mood") == 0
    assert main(["predict", str(tmp_path / "s"), "--file", file]) == 0
    assert [row["text"] for row in answers(capsys.readouterr().out)] == rows()["text"]


# --- Wrong inputs: each one sentence ----------------------------------------------------------------------------------


def csv_file(content):
    return lambda folder: (folder / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())


def table(name, **data):
    """A file of that name with these columns."""

    def write(folder):
        getattr(Dataset.from_dict(data), "to_parquet" if name.endswith("parquet") else "to_json")(folder / name)

    return write


GOOD = "text,label\na,x\nb,y\n"
WRONG_DATA = [
    ("a missing file", None, "none.csv", "there is no file none.csv"),
    ("a missing folder", None, "none", "there is no task 'none'"),
    ("a name that is no table's", lambda f: (f / "t.tsv").write_text("a\tx"), "t.tsv", "end in .csv, .json, .jsonl"),
    (
        "semicolons",
        csv_file(GOOD.replace(",", ";")),
        "t.csv",
        "line is 'text;label': save it with commas in place of ';'",
    ),
    ("tabs", csv_file(GOOD.replace(",", "\t")), "t.csv", r"save it with commas in place of '\t'"),
    ("a label column twice", csv_file("text,label,label\na,x,y\n"), "t.csv", "rename one of the columns label"),
    ("no line but the first", csv_file("text,label\n"), "t.csv", "it ends with its first line: put the texts below it"),
    ("UTF-16 without a mark", csv_file(GOOD.encode("utf-16-le")), "t.csv", "line 1 is no UTF-8 (it has a byte 0"),
    ("gzip", csv_file(gzip.compress(GOOD.encode())), "t.csv", "t.csv is packed, as .gz and .xlsx are: unpack it"),
    (
        "JSON in Latin-1",
        lambda f: (f / "t.json").write_bytes(b'{"text": "\xf6"}'),
        "t.json",
        "t.json, line 1 is no UTF-8",
    ),
    ("NaN as a label", csv_file(GOOD + "c,nan\n"), "t.csv", "t.csv, line 4 has the label 'nan', which is no class"),
    ("NaN as a text", csv_file(GOOD + "nan,x\n"), "t.csv", "t.csv: the text in line 4 is 'nan', and no text"),
    (
        "an empty text in JSON",
        table("t.json", text=["a", " "], label=LABELS),
        "t.json",
        "t.json: the text in row 1 is ' '",
    ),
    ("a power as a label", csv_file(GOOD + "c,1e5\n"), "t.csv", "line 4 has the label '1e5', which is no class"),
    ("a label of two lines", csv_file(GOOD + 'c,"x\ny"\n'), "t.csv", r"line 4 has the label 'x\ny', with a line break"),
    ("a blank before a quote", csv_file(GOOD + 'c, "x"\n'), "t.csv", "no blank before a quote"),
    (
        "a letter of two parts",
        csv_file("text,label\na,h\u00e9\nb,he\u0301\n"),
        "t.csv",
        r"another 'h\xe9': write it one",
    ),
    ("a character without width", csv_file(GOOD + "c,x\u200b\n"), "t.csv", "another 'x': write it one way"),
    (
        "capitals in JSON",
        table("t.json", text=["a", "b", "c"], label=["x", "X", "y"]),
        "t.json",
        "row 1 has the label 'X'",
    ),
    (
        "a label for each text",
        csv_file("text,label\n" + "".join(f"a,l{i}\n" for i in range(20))),
        "t.csv",
        "all texts in t.csv have labels of their own, such as 'l0': there is nothing to learn",
    ),
    ("an empty file", csv_file(""), "t.csv", "t.csv needs a first line with the columns text and label"),
    ("one class only", csv_file("text,label\na,x\nb,x\n"), "t.csv", "all texts in t.csv have the label 'x'"),
    (
        "half a CSV",
        csv_file('text,label\na,x\nb,y\n"c is'),
        "t.csv",
        "t.csv, line 4 is no CSV (unexpected end of data): is a quote open?",
    ),
    ("half a row", csv_file("text,label\na,x\nb,y\nc"), "t.csv", "line 4 has 1 fields, the first line has 2"),
    (
        "Latin-1",
        csv_file("text,label\nschön,x\nb,y\n".encode("latin-1")),
        "t.csv",
        "t.csv, line 2 is no UTF-8 (byte 0xf6, invalid start byte): save the file as",
    ),
    ("numbers as texts", csv_file("text,label\n1.5,x\n2,y\n"), "t.csv", "text of t.csv has numbers and no texts"),
    ("numbers in parquet", table("t.parquet", text=[1, 2], label=LABELS), "t.parquet", "has numbers and no texts"),
    ("floats as labels", table("t.json", text=["a", "b"], label=[0.5, 1.5]), "t.json", "row 0 has the label 0.5"),
    ("no label", table("t.jsonl", text=["a", "b"], label=["x", None]), "t.jsonl", "row 1 has the label None"),
    ("no text", table("t.json", text=["a", None], label=LABELS), "t.json", "the text in row 1 is None"),
    (
        "no such column",
        table("t.json", a=["a"], b=["x"]),
        "t.json",
        "t.json has no column text, but a, b: --text-column",
    ),
    ("broken JSON", lambda f: (f / "t.json").write_text('{"text": "a",'), "t.json", "t.json cannot be read as JSON"),
    (
        "nothing in JSON",
        lambda f: (f / "t.json").write_text(""),
        "t.json",
        "cannot be read as JSON in UTF-8: it is empty",
    ),
    ("broken parquet", lambda f: (f / "t.parquet").write_bytes(b"PAR1"), "t.parquet", "cannot be read as PARQUET"),
    (
        "an empty folder",
        lambda f: (f / "d").mkdir(),
        "d",
        "d has no texts to train on, but nothing: it needs train.csv",
    ),
    (
        "no file for train",
        lambda f: (f / "d").mkdir() or csv_file(GOOD)(f / "d"),
        "d",
        "no texts to train on, but t.csv",
    ),
    (
        "two files for train",
        lambda f: (f / "d").mkdir() or [(f / "d" / n).write_text(GOOD) for n in ("train.csv", "train.json")],
        "d",
        "d has train.csv and train.json: which is meant?",
    ),
    (
        "a damaged save_to_disk",
        lambda f: DatasetDict(train=named_rows()).save_to_disk(f / "d") or shutil.rmtree(f / "d" / "train"),
        "d",
        "d is damaged, datasets cannot load it",
    ),
    (
        "hidden labels of a test",
        lambda f: DatasetDict(
            train=named_rows(), test=Dataset.from_dict({"text": ["a"], "label": [-1]}, features=NAMED)
        ).save_to_disk(f / "d"),
        "d",
        "d, split test, row 0 has the label -1, which is no class",
    ),
]


@pytest.mark.parametrize(("write", "given", "words"), [pytest.param(*row[1:], id=row[0]) for row in WRONG_DATA])
def test_wrong_data_are_refused_in_one_sentence(write, given, words, base, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if write is not None:
        write(tmp_path)
    capsys.readouterr()
    assert train("--base", base(), "--task", given) == 2
    check_refused(capsys.readouterr(), "train", words)


def check_refused(said, command, words):
    lines = [line for line in said.err.splitlines() if line.startswith(f"{command}: ")]
    assert said.out == ""
    assert len(lines) == 1 and said.err.rstrip().endswith(lines[0]), said.err
    assert words in lines[0]
    assert len(lines[0]) < 600


def without(folder, name):
    (folder / name).unlink()


def rewritten(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


WRONG_BASES = [
    ("no such folder", lambda f: shutil.rmtree(f), "there is no folder", []),
    (
        "a name of the hub, offline",
        lambda f: "nobody/nothing",
        "none of that name; only with a network it is fetched",
        [],
    ),
    ("no config", lambda f: without(f, "config.json"), "has no config.json, so it is no model", []),
    (
        "an adapter of peft",
        lambda f: (f / "config.json").rename(f / "adapter_config.json") and None,
        "but an adapter",
        [],
    ),
    ("no weights", lambda f: without(f, "model.safetensors"), "model.safetensors", []),
    ("half of the weights", lambda f: rewritten(f, num_hidden_layers=4), "has no weights for encoder.layer.3", []),
    ("damaged weights", lambda f: (f / "model.safetensors").write_bytes(b"x" * 99) and None, "cannot be loaded", []),
    ("weights of another shape", lambda f: rewritten(f, intermediate_size=8), "cannot be loaded by AutoModel", []),
    ("no tokenizer", lambda f: without(f, "tokenizer.json") or without(f, "tokenizer_config.json"), "no tokenizer", []),
    ("an unknown type", lambda f: rewritten(f, model_type="brt"), "brt", []),
    ("too long", lambda f: None, "--max-length is 25, but", ["--max-length", "25"]),
    ("a missing architecture", lambda f: None, "none.json cannot be read as JSON", ["--architecture", "none.json"]),
]


@pytest.mark.parametrize(("harm", "words", "options"), [pytest.param(*row[1:], id=row[0]) for row in WRONG_BASES])
def test_wrong_bases_are_refused_in_one_sentence(harm, words, options, base, task, tmp_path, capsys):
    folder = base()
    given = harm(tmp_path / "base_bert") or folder
    capsys.readouterr()
    assert train("--base", given, "--task", task, *options) == 2
    check_refused(capsys.readouterr(), "train", words)


def test_short_models_get_short_texts(base, tmp_path):
    long = {"text": ["good " * 40, "bad " * 40] * 4, "label": LABELS * 4}
    options = ["--task", write_csv(tmp_path / "t.csv", long), "--save", tmp_path / "s"]
    with pytest.warns(UserWarning, match="8 of 8 texts were cut to 24 tokens"):
        assert train("--base", base(), *options) == 0
    assert json.loads((tmp_path / "s" / "run.json").read_text())["max_length"] == 24


def test_what_only_the_test_texts_have_is_found_before_the_training(base, task, tmp_path, capsys, monkeypatch):
    folder = base()
    tokenizer(rare=VOCAB).save_pretrained(folder)
    write_csv(tmp_path / "task" / "test.csv", {"text": ["good", "rare"], "label": LABELS})
    monkeypatch.setattr(train_command, "train", None)
    capsys.readouterr()
    assert train("--base", folder, "--task", task) == 2
    check_refused(capsys.readouterr(), "train", "test: row 1 has 40 in input_ids, but this model knows 40, from 0")


MPNET = Architecture(
    "encoder.layer", "attention.attn.o", "output.dense", "intermediate",
    ("attention.LayerNorm", "output.LayerNorm"), "post", ("attention.attn.q", "attention.attn.v"),
)  # fmt: skip


def test_an_unknown_architecture_is_named_and_can_be_given(base, task, tmp_path, capsys):
    torch.manual_seed(0)
    folder, report = base(hf.MPNetModel(hf.MPNetConfig(**_BERT))), tmp_path / "r.json"
    options = ["--base", folder, "--task", task, "--save", tmp_path / "s", "--report", report]
    for method in ("adapter", "lora"):
        capsys.readouterr()
        assert train(*options, "--method", method) == 2
        check_refused(capsys.readouterr(), "train", "'mpnet' of Classifier is not in the table of architectures")
    assert train(*options, "--method", "bitfit") == 0  # as the sentence says
    check_round_trip(tmp_path / "s", task, report, capsys)
    names = tmp_path / "names.json"
    names.write_text(json.dumps(vars(MPNET)))
    for method in ("adapter", "lora"):
        assert train(*options, "--architecture", names, "--method", method) == 0
        check_round_trip(tmp_path / "s", task, report, capsys)
    assert Architecture(**json.loads(saved_run.EXAMPLE)).norm == "pre"  # what the sentence shows


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(base, task, tmp_path):
    assert train("--base", base(), "--task", task, "--save", tmp_path / "s") == 0
    return tmp_path / "s"


def test_texts_are_answered_in_their_order_wherever_they_come_from(saved, tmp_path, capsys, monkeypatch):
    texts = ["good film", "bad", "the film is\u2028bad , it is", 'a , "b"', "good"] * 3
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    write_csv(tmp_path / "t.csv", {"id": range(15), "text": texts})
    Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "t.txt").read_bytes())))
    capsys.readouterr()
    given = [[word for text in texts for word in ("--text", text)]]
    given += [["--file", one] for one in ("-", *(str(tmp_path / f"t.{kind}") for kind in ("txt", "csv", "parquet")))]
    found = []
    for words in given:
        assert main(["predict", str(saved), *words, "--batch-size", "4"]) == 0
        found.append(capsys.readouterr().out)
    assert [row["text"] for row in answers(found[0])] == texts
    assert found == found[:1] * 5
    assert main(["predict", str(saved), *given[1][:1], given[2][1], "--out", str(tmp_path / "o.jsonl")]) == 0
    dicts = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().split("\n")[:-1]]
    for one, row in zip(dicts, answers(found[0]), strict=True):
        assert (one["text"], one["label"]) == (row["text"], row["label"])
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert float(row[f"p({one['label']})"]) == pytest.approx(one["probabilities"][one["label"]], abs=1e-6)
    assert main(["predict", str(saved), "--text", "good", "--out", str(tmp_path / "o.csv")]) == 0
    (row,) = answers((tmp_path / "o.csv").read_text())
    assert list(row) == ["text", "label", "p(neg)", "p(pos)"]
    assert (row["text"], row["label"]) == ("good", answers(found[0])[4]["label"])


WRONG_TEXTS = [
    ("a missing file", ["--file", "none.txt"], "there is no file none.txt"),
    ("a missing table", ["--file", "none.csv"], "there is no file none.csv"),
    ("an empty file", ["--file", "empty.txt"], "empty.txt, line 1 has no text"),
    ("an empty line", ["--file", "gap.txt"], "gap.txt, line 2 has no text: leave the line out"),
    ("Latin-1", ["--file", "latin.txt"], "latin.txt, line 2 is no UTF-8"),
    ("no such column", ["--file", "other.csv"], "needs a first line with the column text, once each"),
    ("half a CSV", ["--file", "half.csv"], "half.csv, line 2 is no CSV"),
    ("an empty text", ["--text", " "], "the text in row 0 is empty"),
    ("a folder to write to", ["--text", "a", "--out", "."], "--out . is a folder, not a file"),
    ("no batch", ["--text", "a", "--batch-size", "0"], "--batch-size must be a whole number of at least 1, not 0"),
]


@pytest.mark.parametrize(("options", "words"), [pytest.param(*row[1:], id=row[0]) for row in WRONG_TEXTS])
def test_wrong_texts_are_refused_in_one_sentence(options, words, saved, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("empty.txt", b""), ("gap.txt", b"a\n\nb\n"), ("latin.txt", b"a\n\xe9\n"), ("other.csv", b"words\na\n"),
        ("half.csv", b'text\n"a'),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
    capsys.readouterr()
    assert main(["predict", str(saved), *options]) == 2
    check_refused(capsys.readouterr(), "predict", words)


def weights(folder):
    return next(folder.glob("*.safetensors"))


def smaller(folder):
    hf.BertModel(hf.BertConfig(**_BERT | {"num_hidden_layers": 1})).save_pretrained(folder)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def another_block(folder):
    model = hf.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias += 1
    model.save_pretrained(folder)


WRONG_FOLDERS = [
    ("nothing", lambda s, b: shutil.rmtree(s), "has no run.json: give the folder that train --save FOLDER has written"),
    ("a damaged run.json", lambda s, b: (s / "run.json").write_text("{"), "cannot be read as JSON"),
    ("half a run.json", lambda s, b: (s / "run.json").write_text('{"format": 1}'), "run.json is not whole"),
    ("damaged weights", lambda s, b: flipped(weights(s)), "is damaged or another version"),
    ("no weights", lambda s, b: weights(s).unlink(), ".safetensors is missing"),
    ("another tokenizer", lambda s, b: flipped(s / "tokenizer" / "tokenizer.json"), "tokenizer is damaged, or not"),
    ("a moved base", lambda s, b: b.rename(b.parent / "moved"), "any more: --base PLACE says where it is now"),
    ("a changed base", lambda s, b: another_block(b), "other weights in encoder.layer.1 "),
    ("another base", lambda s, b: make("bert", seed=5).save_pretrained(b), "has changed, or is not the one of"),
    ("a smaller base", lambda s, b: smaller(b), "encoder.layer.1, which it alone has"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "words"), [pytest.param(*row[1:], id=row[0]) for row in WRONG_FOLDERS])
@pytest.mark.parametrize("method", ["adapter", "bitfit"])
def test_what_was_moved_or_changed_is_named(method, harm, words, base, task, tmp_path, capsys):
    folder = base()
    assert train("--base", folder, "--task", task, "--save", tmp_path / "s", "--method", method) == 0
    harm(tmp_path / "s", tmp_path / "base_bert")
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "s"), "--text", "good film"]) == 2
    check_refused(capsys.readouterr(), "predict", words)


def test_a_moved_base_is_found_where_it_is_said_to_be(saved, tmp_path, capsys):
    capsys.readouterr()
    assert main(["predict", str(saved), "--text", "good"]) == 0
    before = capsys.readouterr().out
    (tmp_path / "base_bert").rename(tmp_path / "moved")
    assert main(["predict", str(saved), "--text", "good", "--base", str(tmp_path / "moved")]) == 0
    assert capsys.readouterr().out == before


def test_somebody_elses_readme_is_left_alone(saved, base, task, capsys):
    assert train("--base", base(), "--task", task, "--save", saved) == 0  # our own is replaced
    (saved / "README.md").write_text("mine")
    assert train("--base", base(), "--task", task, "--save", saved) == 2
    assert "README.md is not one that train has written, and is left alone" in capsys.readouterr().err
    assert (saved / "README.md").read_text() == "mine"


def test_nothing_is_replaced_but_what_an_earlier_run_has_written(saved, base, task, tmp_path, capsys):
    own = write_csv(tmp_path / "own.csv", rows())
    kept = (tmp_path / "own.csv").read_bytes()
    options = ["--base", base(), "--task", own]
    for report in (own, saved / "run.json"):
        capsys.readouterr()
        assert train(*options, "--report", report) == 2
        check_refused(capsys.readouterr(), "train", f"--report {report} is there, and not from an earlier run")
    for out in (own, saved / "run.json"):
        assert main(["predict", str(saved), "--file", own, "--out", str(out)]) == 2
        check_refused(capsys.readouterr(), "predict", f"--out {out} is there, and not from an earlier run")
    assert (tmp_path / "own.csv").read_bytes() == kept
    for name in ("r.json", "r.html"):
        assert train(*options, "--report", tmp_path / name) == train(*options, "--report", tmp_path / name) == 0
    for name in ("o.csv", "o.jsonl"):  # and the folder is whole
        predict = ["predict", str(saved), "--text", "good", "--out", str(tmp_path / name)]
        assert main(predict) == main(predict) == 0


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        ("run.json", "run.json is not one that train has written"),
        ("tokenizer/mine.txt", "tokenizer is not one that train has written"),
        ("head.safetensors", "head.safetensors is not one that train has written"),
        ("adapter_model.safetensors", "is weights of peft without their adapter_config.json: copy the whole folder"),
    ],
)
def test_a_folder_of_ones_own_is_refused_before_the_training(mine, words, base, task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "train", lambda *_, **__: pytest.fail("trained in vain"))
    (tmp_path / "s" / mine).parent.mkdir(parents=True)
    (tmp_path / "s" / mine).write_text("mine") if "adapter" not in mine else save_file({}, tmp_path / "s" / mine)
    options = ["--base", base(), "--task", task, "--method", "head", "--save", tmp_path / "s"]
    capsys.readouterr()
    assert train(*options) == 2
    check_refused(capsys.readouterr(), "train", words)
    assert [path.name for path in (tmp_path / "s").iterdir()] == [mine.partition("/")[0]]


@pytest.mark.parametrize("method", ["adapter", "head"])
def test_a_disk_that_is_full_is_told_of_and_leaves_no_half_file(method, base, task, tmp_path, capsys, monkeypatch):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*arguments, write=train_command.write):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # bytes that a file may have
        try:
            write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(train_command, "write", full)
    options = ["--base", base(), "--task", task, "--method", method, "--save", tmp_path / "s"]
    capsys.readouterr()
    assert train(*options) == 1
    check_refused(capsys.readouterr(), "train", "too large")
    assert list((tmp_path / "s").iterdir()) == []


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_seeds_are_single_runs_and_their_interval_is_the_courses(base, task, tmp_path):
    folder, report = base(), tmp_path / "r.json"
    together = ["--seeds", "3", "1", "2", "--learning-rate", "0.02"]
    assert train("--base", folder, "--task", task, "--report", report, "--save", tmp_path / "s", *together) == 0
    content = json.loads(report.read_text())
    for run in content["runs"]:
        alone = tmp_path / f"{run['seed']}.json"
        options = ["--seed", run["seed"], "--learning-rate", "0.02", "--report", alone]
        assert train("--base", folder, "--task", task, *options) == 0
        assert json.loads(alone.read_text())["history"]["loss"] == run["history"]["loss"]
        assert json.loads(alone.read_text())["runs"][0]["scores"] == run["scores"]
    assert content["history"] == content["runs"][0]["history"]
    values = [run["scores"]["test"]["accuracy"] for run in content["runs"]]
    mean, half = mean_and_interval(values)
    assert content["accuracy"] == f"{100 * mean:.1f} ± {100 * half:.1f} %, mean and 95 % interval of 3 seeds"
    assert content["judged"] == "test"
    card = (tmp_path / "s" / "README.md").read_text()
    assert content["accuracy"] in card and "What is saved here is that of seed 3." in card
    (first,) = re.findall(r"\| 3 \| 3 \|.* ([\d.]+) \|\n", card)
    assert float(first) == pytest.approx(100 * values[0], abs=0.006)


def test_the_page_is_whole_and_says_what_the_model_says(base, tmp_path, capsys):
    data = {"text": ["<b> good | film", "the bad <script>alert(1)</script>"] * 6, "label": ["p<i>os", "neg|"] * 6}
    file, page = write_csv(tmp_path / "t.csv", data), tmp_path / "r.html"
    options = ["--base", base(), "--task", file, "--validation", file, "--report", page, "--save", tmp_path / "s"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_report, "as_text", lambda report, path, own=run_report.as_text: seen.append(report) or own(report, path)
        )
        seen = []
        assert train(*options, "--seeds", "0", "1", "--learning-rate", "1e-6") == 0
    text, (report,) = page.read_text(encoding="utf-8"), seen
    assert "<script" not in text and "p<i>os" not in text and "p&lt;i&gt;os" in text
    assert not re.search(r"""(src|href)=(?!["']?(#|data:))|url\((?!#)|@import""", text)
    assert "prefers-color-scheme: dark" in text and "<svg" in text
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "s"), "--file", file]) == 0
    said = answers(capsys.readouterr().out)
    names = report["labels"]
    counts = [
        [sum(s["label"] == b and r == a for s, r in zip(said, data["label"], strict=True)) for b in names]
        for a in names
    ]
    assert report["confusion"] == counts
    wrong = [row for row, right in zip(said, data["label"], strict=True) if row["label"] != right]
    assert report["wrong"] == len(wrong) > 0
    sure = [share for *_, share in report["errors"]]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(max(float(row[f"p({row['label']})"]) for row in wrong), abs=1e-6)
    memory = report["memory"]
    assert memory["predicted"]["weights"] == memory["measured"]["weights"] > 0
    assert f"{memory['measured']['peak']:,}" in text
    assert f"{report['trainable']:,} of {report['total']:,}" in text
    card = (tmp_path / "s" / "README.md").read_text(encoding="utf-8")
    assert "| labels | neg\\|, p&lt;i&gt;os |" in card and "<script" not in card


def test_a_memory_that_cannot_be_measured_costs_no_report():
    found = run_report.about_memory(torch.nn.Linear(2, 2), 1, 1)
    assert found.keys() == {"why"} and found["why"]


def test_licences_are_taken_from_what_states_them(base, tmp_path):
    folder = base()
    (tmp_path / "base_bert" / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\nwords\n")
    data = named_rows()
    data.info.license = "cc-by-4.0"
    data.save_to_disk(tmp_path / "d")
    assert train("--base", folder, "--task", tmp_path / "d", "--save", tmp_path / "s") == 0
    card = (tmp_path / "s" / "README.md").read_text()
    assert 'license: "mit"' in card and "| its licence | mit |" in card and "| their licence | cc-by-4.0 |" in card


# --- Beside peft and Trainer ------------------------------------------------------------------------------------------


def test_the_command_line_agrees_with_peft_and_trainer():
    """From the same head on, and without a frozen base's dropout, the difference is not told from none."""
    for row in load_results("side_by_side")["rates"].values():
        for name in ("theirs", "theirs without dropout"):
            apart = [ours - theirs for ours, theirs in zip(row["ours"], row[name], strict=True)]
            assert row[f"ours - {name}"] == pytest.approx(mean_and_interval(apart))
            assert len(apart) == len(row["seeds"]) >= 3
        mean, half = mean_and_interval(apart)
        assert abs(mean) <= half
        # Both learn something with all seeds but one at most.
        assert sorted(row["ours"])[1] > 0.55 and sorted(row["theirs without dropout"])[1] > 0.55
