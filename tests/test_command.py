"""The command line of the training script: what it refuses, what it writes, how it ends."""

import json
from argparse import ArgumentParser
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adapters_lesson import Classifier, History, SmallTransformer, encode, evaluate, load_tokenizer
from adapters_lesson.__main__ import COMMANDS, main
from adapters_lesson.course import train_command, train_options
from adapters_lesson.course.own.tables import read_task
from adapters_lesson.course.train_command import peak_memory
from adapters_lesson.runs.settings import Settings
from adapters_lesson.storage import load_adapter

QUICK = ["train", "--base", "minilm:1", "--steps", "3", "--batch-size", "4", "--quiet"]


@pytest.fixture
def table(tmp_path):
    """A CSV file of eight texts with the labels calm and loud."""
    path = tmp_path / "own.csv"
    rows = [f'"{word}, said number {i}",{("calm", "loud")[i % 2]}' for i, word in enumerate(["good", "BAD"] * 4)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


def test_a_run_on_a_table_saves_adapters_that_answer_the_same(table, tmp_path, capsys):
    report = tmp_path / "new folder" / "report.json"
    arguments = ["--task", str(table), "--validation", str(table), "--save", str(tmp_path / "saved")]
    assert main([*QUICK[:-1], *arguments, "--report", str(report), "--bottleneck", "3"]) == 0
    said = capsys.readouterr().out
    assert "8 rows, minilm:1, adapter, 1 process\ntrainable params:" in said
    assert "saved in" in said
    content = json.loads(report.read_text())
    history = History(**content["history"])
    assert history.steps == 3
    assert content["processes"] == 1
    assert content["gradient_bytes"] == 4 * history.trainable
    assert content["exchanged_bytes_per_step"] == content["sent_bytes_per_step_in_a_ring"] == 0
    assert content["arguments"]["learning_rate"] == 3e-3
    assert 1e8 < content["peak_memory_bytes"] < 1e11
    model = Classifier(SmallTransformer.from_minilm(1), 2)
    assert load_adapter(model, tmp_path / "saved") == "default"
    data = encode(read_task(str(table))["train"], load_tokenizer())
    assert {"step": 3, **evaluate(model, data)} == history.validation[-1]


@pytest.mark.parametrize("method", ["head", "bitfit"])
def test_other_methods_save_what_they_trained(method, table, tmp_path, capsys):
    assert main([*QUICK, "--task", str(table), "--method", method, "--save", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    with safe_open(tmp_path / f"{method}.safetensors", "pt") as file:
        about, names = file.metadata(), list(file.keys())
    assert about == {"method": method, "base": "minilm:1", "task": str(table), "labels": '["calm", "loud"]'}
    assert "head.weight" in names
    assert any(".query.bias" in name for name in names) is (method == "bitfit")
    assert not any("embeddings" in name for name in names)


def test_a_checkpoint_is_gone_on_from(table, tmp_path, capsys):
    arguments = [*QUICK, "--task", str(table), "--checkpoint", str(tmp_path / "run.pt"), "--method", "head"]
    assert main(arguments) == 0
    written = (tmp_path / "run.pt").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "run.pt").read_bytes() == written
    assert main([*arguments, "--seed", "1"]) == 2
    assert "run.pt is the checkpoint of a run with other seed: give another file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task", "foo"],
            "there is no task 'foo': sentiment, comparison, agreement, film_reviews, answers, or a file",
        ),
        (["--task", "missing.csv"], "there is no file missing.csv"),
        (["--base", "minilm:7"], "there is no base model 'minilm:7': minilm:1 to minilm:6 (layers), or smollm2"),
        (["--base", "minilm:x"], "there is no base model 'minilm:x'"),
        (["--base", "bert"], "there is no folder bert, and the Hugging Face hub's cache has none of that name"),
        (["--base", "smollm2"], "--task answers and --base smollm2 go together"),
        (["--task", "answers"], "--task answers and --base smollm2 go together"),
        (["--pack", "64"], "--pack is for --task answers"),
        (["--validation", "x.csv"], "the task aspect_sentiment has its own validation texts"),
        (["--method", "magic"], "argument --method: invalid choice: 'magic'"),
        (["--placement", "roof"], "argument --placement: invalid choice: 'roof'"),
        (["--steps", "0"], "steps must be a whole number of at least 1, not 0"),
        (["--batch-size", "1.5"], "argument --batch-size: invalid int value: '1.5'"),
        (["--base-dtype", "float17"], "base_dtype must be a floating-point type such as"),
        (["--dropout", "2"], "--dropout must be from 0 to 1, not 2.0"),
        (["--method", "head", "--placement", "parallel"], "--placement is for --method adapter, and does nothing with"),
        (["--method", "lora", "--bottleneck", "4"], "--bottleneck is for --method adapter, and does nothing with"),
        (["--lora-rank", "4"], "--lora-rank is for --method lora, and does nothing with --method adapter"),
        (["--max-length", "0"], "--max-length must be a whole number of at least 3, not 0"),
        (["--max-length", "513"], "--max-length is 513, but minilm:6 reads at most 512 tokens: give that or less"),
        (
            ["--text-column", "x"],
            "--text-column is for a file (.csv, .json, .jsonl, .parquet) or a folder of one's own",
        ),
        (
            ["--validation", "x.csv", "--task", "."],
            "a folder has a file for it: --validation is for a task that is one",
        ),
        (["--seeds", "0", "0"], "--seeds must be different whole numbers of at least 0, not [0, 0]"),
        (["--seeds", "0", "1", "--seed", "2"], "--seeds is several runs, and --seed belongs to one"),
        (["--seeds", "0", "--checkpoint", "x.pt"], "--seeds is several runs, and --checkpoint belongs to one"),
        (["--save", __file__], "is a file, not a folder"),
        (["--report", "."], "is a folder, not a file"),
        (["--report", f"{__file__}/x.json"], "takes no file: Not a directory"),
        (["--task", "x.csv", "--label-column", "text"], "--text-column and --label-column are both 'text'"),
        (["--sav", "x", "--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_refuses_in_one_sentence(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "train", _not_reached)
    try:
        status = main(["train", *arguments])
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("train: ")
    assert said.err.count("\n") == 1


def _not_reached(*_, **__):
    raise AssertionError("not refused")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n", "own.csv needs a first line .* and a line for each text"),
        ("words,label\na,b\n", "needs a first line with the columns text and label"),
        ("text,label\na,yes\nb,yes\n", "all texts in own.csv have the label 'yes': there is nothing to learn"),
        ("text,label\na,yes\n ,no\n", "own.csv, line 3 has no text: leave the line out"),
        ("text,label\na,yes\nb\nc,no\n", "own.csv, line 3 has 1 fields, the first line has 2"),
        (b"text,label\n\xff\xfe,yes\n", "own.csv, line 2 is no UTF-8"),
    ],
)
def test_refuses_a_table_that_cannot_be_read(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = content if isinstance(content, bytes) else content.encode()
    Path("own.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_task("own.csv")


@pytest.mark.parametrize(
    ("stopped", "status"),
    [("", 0), ("interrupted", 130), ("the loss became nan at step 1", 1), ("no better validation loss for 2", 0)],
)
def test_the_exit_status_says_how_it_ended(stopped, status, table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "train", lambda *_, **__: History({}, loss=[1.0], stopped=stopped))
    assert main([*QUICK, "--task", str(table), "--save", str(tmp_path / "saved")]) == status
    assert capsys.readouterr().err == (f"train: {stopped}\n" if status else "")
    assert (tmp_path / "saved" / "default.safetensors").is_file(), "what was learnt is lost"


def test_it_warns_of_the_launch_that_starts_one_process(table, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "train", lambda *_, **__: History({}, loss=[1.0]))
    monkeypatch.setenv("MASTER_PORT", "29500")  # what `accelerate launch --cpu --num_processes 2` leaves
    assert main([*QUICK, "--task", str(table)]) == 0
    assert "accelerate started one process only; for several, --multi_gpu instead of --cpu" in capsys.readouterr().err


def test_the_command_line_names_its_commands(capsys):
    assert main([]) == main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    with pytest.raises(SystemExit):
        main(["fly"])
    assert "invalid choice: 'fly'" in capsys.readouterr().err


def test_help_has_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert "accelerate launch --multi_gpu --num_processes 2" in said
    for field in fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in said


@pytest.mark.parametrize("method", ["full", "adapter"])
def test_options_are_settings(method):
    parser = ArgumentParser()
    train_options.add_arguments(parser)
    options = "--steps 7 --weight-decay 0.5 --base-dtype auto --cache-frozen --checkpoint x.pt".split()
    settings = train_options.check(parser.parse_args(["--method", method, *options]))
    rate = {"full": 1e-4, "adapter": 3e-3}[method]
    assert settings == Settings(
        steps=7, weight_decay=0.5, base_dtype="auto", cache_frozen=True, checkpoint="x.pt", learning_rate=rate
    )


def test_the_peak_of_memory_counts_what_is_gone():
    before = peak_memory()
    torch.ones(before // 4 + 50_000_000 // 4).sum()
    assert peak_memory() >= before + 40_000_000
