"""The training loop: the same numbers every time, also after a kill."""

import contextlib
import itertools
import math
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Columns, make, small, snapshot, toy_data
from torch import nn

from adapters_lesson import AdapterConfig, Classifier, History, evaluate, predict, prepare, train
from adapters_lesson.runs import run as run_module
from adapters_lesson.runs.settings import Settings
from adapters_lesson.training import Texts, batches, training_mode

CONFIG = AdapterConfig(4, dropout=0.2)
TRAIN, VALIDATION = toy_data(48, seed=0), toy_data(20, seed=1)
STEPS = 12  # 2 epochs of 48 texts in batches of 8
RUN = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "progress": False}


def fresh(method="adapter", seed=0, config=CONFIG):
    """A small classifier ready for ``method``."""
    torch.manual_seed(seed)
    model = Classifier(small(), 2)
    prepare(model, method, config if method == "adapter" else None)
    return model


def numbers(history):
    """All of a history that must not depend on the clock."""
    return {name: value for name, value in vars(history).items() if name != "seconds"}


@pytest.fixture(scope="module")
def uninterrupted():
    model = fresh()
    history = train(model, TRAIN, VALIDATION, **RUN)
    assert history.steps == STEPS
    return snapshot(model), numbers(history)


@pytest.mark.parametrize("steps", [1, 6, 15])
def test_a_run_can_be_as_many_steps_as_one_likes(steps):
    history = train(fresh(), TRAIN, VALIDATION, **(RUN | {"steps": steps, "validate_every": 4}))
    assert history.steps == steps
    assert [entry["step"] for entry in history.validation] == sorted({*range(4, steps + 1, 4), steps})
    assert history.learning_rate[-1] < history.settings["learning_rate"] or steps == 1


def test_whole_epochs_by_steps_are_the_same_run(uninterrupted):
    model = fresh()
    history = train(model, TRAIN, VALIDATION, **(RUN | {"epochs": 1, "steps": STEPS}))
    assert snapshot(model) == uninterrupted[0]
    assert history.validation == uninterrupted[1]["validation"]


# --- The same numbers -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_history(uninterrupted):
    model = fresh()
    torch.manual_seed(99)  # what was drawn before does not matter
    history = train(model, TRAIN, VALIDATION, **RUN)
    assert (snapshot(model), numbers(history)) == uninterrupted


def test_another_seed_gives_others(uninterrupted):
    model = fresh()
    history = train(model, TRAIN, VALIDATION, seed=1, **RUN)
    assert snapshot(model) != uninterrupted[0]
    assert history.loss != uninterrupted[1]["loss"]


def test_progress_changes_nothing(uninterrupted, capsys):
    model = fresh()
    history = train(model, TRAIN, VALIDATION, **(RUN | {"progress": True}))
    assert (snapshot(model), numbers(history)) == uninterrupted
    capsys.readouterr()


def test_looking_while_training_changes_nothing(uninterrupted):
    model = fresh()
    history = train(model, TRAIN, VALIDATION, on_step=lambda _: evaluate(model, VALIDATION), **RUN)
    assert (snapshot(model), numbers(history)) == uninterrupted


@pytest.mark.parametrize("method", ["adapter", "full"])
def test_the_loss_falls_and_the_task_is_learnt(method):
    model = fresh(method, config=AdapterConfig(8))
    with torch.no_grad():
        model.base_model.word_embeddings.weight.mul_(20)  # an untrained base in which words can be told apart
    history = train(model, TRAIN, epochs=12, batch_size=8, learning_rate=1e-2, progress=False)
    assert sum(history.loss[-6:]) < 0.8 * sum(history.loss[:6])
    assert evaluate(model, TRAIN)["accuracy"] > 0.8


def test_the_history_says_what_happened(uninterrupted):
    history = uninterrupted[1]
    assert history["trainable"] == sum(p.numel() for p in fresh().parameters() if p.requires_grad)
    assert history["settings"] == {
        "epochs": 2,
        "steps": None,
        "validate_every": None,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "seed": 0,
        "patience": None,
        "base_dtype": None,
        "cache_frozen": False,
        "examples": 48,
    }
    assert [entry["step"] for entry in history["validation"]] == [6, 12]
    assert history["stopped"] == ""
    model = fresh()
    assert train(model, TRAIN, VALIDATION, **RUN).validation[-1] == {"step": 12, **evaluate(model, VALIDATION)}


def test_the_learning_rate_rises_and_falls_linearly():
    history = train(fresh(), TRAIN, warmup=0.25, **(RUN | {"epochs": 4, "learning_rate": 1.0}))
    assert len(history.learning_rate) == 24
    expected = [(step + 1) / 6 for step in range(6)] + [(24 - step) / 18 for step in range(6, 24)]
    assert history.learning_rate == pytest.approx(expected)
    assert max(history.learning_rate) == 1.0


def test_gradients_are_clipped():
    norms = []

    def record(*_):
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item())

    for limit in (1e-3, 1e9):
        model = fresh("head")
        train(model, TRAIN, max_grad_norm=limit, on_step=record, **RUN)
    assert all(norm <= 1e-3 * 1.01 for norm in norms[:STEPS])
    assert all(norm > 1e-2 for norm in norms[STEPS:])


# --- Interrupted, killed, gone astray -------------------------------------------------------------------------------


class Killed(RuntimeError):
    """Stands for whatever ends a process."""


def stop_at(step, error):
    def on_step(history):
        if history.steps == step:
            raise error

    return on_step


@pytest.mark.parametrize(("killed_at", "patience"), [(1, None), (2, 1), (5, None), (6, 1), (7, None), (12, None)])
def test_resumes_bit_for_bit(tmp_path, killed_at, patience):
    settings, file = RUN | {"patience": patience}, tmp_path / "run.pt"
    expected = fresh()
    expected_history = train(expected, TRAIN, VALIDATION, **settings)
    settings |= {"checkpoint": file, "checkpoint_every": 2}
    with pytest.raises(Killed):
        train(fresh(), TRAIN, VALIDATION, on_step=stop_at(killed_at, Killed()), **settings)
    assert file.exists() is (killed_at > 1)
    model, steps = fresh(), []
    torch.manual_seed(5)
    history = train(model, TRAIN, VALIDATION, on_step=lambda h: steps.append(h.steps), **settings)
    assert steps == list(range(killed_at // 2 * 2 + 1, STEPS + 1)), "it did not go on where the checkpoint was written"
    assert snapshot(model) == snapshot(expected)
    assert numbers(history) == numbers(expected_history)


@settings(deadline=None, max_examples=3)
@given(st.lists(st.integers(1, STEPS), max_size=3), st.integers(1, 7), st.sampled_from(["adapter", "full", "lora"]))
def test_resumes_bit_for_bit_however_often_it_is_killed(tmp_path_factory, kills, every, method):
    file = tmp_path_factory.mktemp("run") / "run.pt"
    run = RUN | {"checkpoint": file, "checkpoint_every": every}
    expected = fresh(method)
    expected_history = train(expected, TRAIN, VALIDATION, **RUN)
    for step in kills:
        with contextlib.suppress(Killed):
            train(fresh(method), TRAIN, VALIDATION, on_step=stop_at(step, Killed()), **run)
    model = fresh(method)
    history = train(model, TRAIN, VALIDATION, **run)
    assert snapshot(model) == snapshot(expected)
    assert numbers(history) == numbers(expected_history)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 needs a Unix system")
def test_a_real_kill_at_any_moment_leaves_a_checkpoint_to_go_on_from(tmp_path):
    file = tmp_path / "run.pt"
    long_run = RUN | {"epochs": 20}
    kept = long_run | {"checkpoint_every": 1}
    script = f"""
        import os, random, signal, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # what is slow to load is loaded once
        from pathlib import Path
        from test_training import TRAIN, fresh, train
        file, random = Path({str(file)!r}), random.Random(0)
        for attempt in range(6):
            inode = file.stat().st_ino if file.exists() else None
            child = os.fork()
            if child == 0:
                try:
                    train(fresh(), TRAIN, checkpoint=file, **{kept!r})
                    os._exit(0)
                except BaseException as error:
                    print(repr(error), flush=True)
                    os._exit(1)
            while not (file.exists() and file.stat().st_ino != inode) and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.001)  # one new checkpoint at least
            time.sleep(random.random() * 0.03)
            try:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                status = None
            print(os.WTERMSIG(status) if status and os.WIFSIGNALED(status) else "ended")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[:3] == ["9"] * 3
    assert set(run.stdout.split()) <= {"9", "ended"}, run.stdout
    state = torch.load(file, weights_only=True)
    taken = len(state["history"]["loss"])
    assert 0 < taken <= 120
    expected, model, steps = fresh(), fresh(), []
    expected_history = train(expected, TRAIN, **long_run)
    history = train(model, TRAIN, checkpoint=file, on_step=lambda h: steps.append(h.steps), **kept)
    assert steps == list(range(taken + 1, 121))
    assert snapshot(model) == snapshot(expected)
    assert numbers(history) == numbers(expected_history)


@pytest.mark.parametrize("step", [1, 9])
def test_an_interrupt_keeps_what_was_learnt_and_says_so(step, capsys):
    model = fresh()
    begun = snapshot(model)
    kept = {}

    def on_step(history):
        if history.steps == step:
            kept.update(snapshot(model))
            raise KeyboardInterrupt

    history = train(model, TRAIN, VALIDATION, on_step=on_step, **RUN | {"progress": True})
    assert history.stopped == "interrupted"
    assert history.steps == step == len(history.learning_rate)
    assert len(history.validation) == step // 6
    assert f"interrupted after {step} of 12 training steps: the model keeps what" in capsys.readouterr().err
    assert snapshot(model) == kept != begun
    assert not any(m.training for m in model.modules())


def test_an_interrupt_before_the_first_step_is_one(monkeypatch):
    model = fresh()
    begun = snapshot(model)

    def forward(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module.Run, "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        train(model, TRAIN, **RUN)
    assert snapshot(model) == begun
    assert not any(m.training for m in model.modules())


def test_an_interrupted_run_can_go_on(tmp_path, uninterrupted):
    file = tmp_path / "run.pt"
    train(
        fresh(), TRAIN, VALIDATION, checkpoint=file, checkpoint_every=1, on_step=stop_at(7, KeyboardInterrupt()), **RUN
    )
    model = fresh()
    history = train(model, TRAIN, VALIDATION, checkpoint=file, checkpoint_every=1, **RUN)
    assert (snapshot(model), numbers(history)) == uninterrupted


def test_a_finished_run_is_not_run_again(tmp_path, uninterrupted):
    file = tmp_path / "run.pt"
    train(fresh(), TRAIN, VALIDATION, checkpoint=file, **RUN)
    model = fresh()
    history = train(model, TRAIN, VALIDATION, checkpoint=file, on_step=stop_at(history_end := 12, Killed()), **RUN)
    assert history.steps == history_end
    assert (snapshot(model), numbers(history)) == uninterrupted


class Astray(nn.Module):
    """A linear model that goes wrong at the third step: in its result, or only in its gradient."""

    def __init__(self, wrong):
        super().__init__()
        self.head, self.wrong, self.calls = nn.Linear(1, 2), wrong, 0

    def forward(self, input_ids, attention_mask):
        self.calls += self.training
        logits = self.head(input_ids.float().mean(1, keepdim=True) / 40)
        if self.calls == 3 and self.wrong == "gradient":
            return logits + 0 * (logits * 0).sqrt()  # the root has an infinite slope at zero
        return logits * (math.nan if self.calls == 3 and self.wrong == "result" else 1)


@pytest.mark.parametrize("wrong", ["result", "gradient"])
def test_divergence_is_reported_and_leaves_finite_weights(wrong):
    model = Astray(wrong)
    history = train(model, TRAIN, VALIDATION, **RUN)
    assert "lower the learning rate" in history.stopped
    assert history.steps == 2 == len(history.learning_rate)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(math.isfinite(value) for value in history.loss)


def test_an_absurd_learning_rate_leaves_finite_weights():
    model = fresh("full")
    history = train(model, TRAIN, VALIDATION, **(RUN | {"learning_rate": 1e30, "epochs": 6}))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert "the loss became nan" in history.stopped or "the loss became inf" in history.stopped


@pytest.fixture
def scripted(monkeypatch):
    """Let the validation losses be these, one after the other, whatever the model does."""

    def use(*losses):
        losses = iter(losses)
        monkeypatch.setattr(run_module, "evaluate", lambda *_: {"loss": next(losses), "accuracy": 0.5})

    return use


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stop_counts_validations_and_returns_to_the_best_weights(scripted, patience):
    scripted(0.5, 0.4, 0.6, 0.7, 0.8)
    model, seen = fresh(), []
    history = train(
        model, TRAIN, VALIDATION, patience=patience, validate_every=2, on_step=lambda _: seen.append(snapshot(model)),
        **(RUN | {"steps": 200}),
    )  # fmt: skip
    assert history.stopped == f"no better validation loss for {patience} validations"
    assert history.steps == 2 * (2 + patience)
    assert snapshot(model) == seen[3] != seen[-1]


def test_patience_that_never_runs_out_returns_to_the_best_weights_too(scripted):
    scripted(0.5, 0.4, 0.6)
    model, seen = fresh(), []
    run = RUN | {"steps": 6, "validate_every": 2, "patience": 9}
    history = train(model, TRAIN, VALIDATION, on_step=lambda _: seen.append(snapshot(model)), **run)
    assert history.stopped == ""
    assert snapshot(model) == seen[3] != seen[-1]


def test_a_resumed_run_knows_the_best_weights_of_before(scripted, tmp_path):
    run = RUN | {"steps": 6, "validate_every": 1, "patience": 9, "checkpoint": tmp_path / "run.pt"}
    run |= {"checkpoint_every": 1}
    model, seen = fresh(), []

    def killed(history):
        seen.append(snapshot(model))
        if history.steps == 4:
            raise Killed

    scripted(0.5, 0.4, 0.6, 0.7)
    with pytest.raises(Killed):
        train(model, TRAIN, VALIDATION, on_step=killed, **run)
    scripted(0.8, 0.9)
    model = fresh()
    assert train(model, TRAIN, VALIDATION, **run).steps == 6
    assert snapshot(model) == seen[1] != seen[-1]


# --- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"learning_rate": 1e-3}, "other learning_rate"),
        ({"seed": 1, "epochs": 3}, "other epochs, seed"),
        ({"train_data": toy_data(40)}, "other examples"),
        ({"model": lambda: fresh("head")}, "other trainable parameters"),
        ({"model": lambda: fresh(config=AdapterConfig(5))}, "other trainable parameters"),
    ],
)
def test_refuses_the_checkpoint_of_another_run(tmp_path, changes, what):
    file = tmp_path / "run.pt"
    train(fresh(), TRAIN, checkpoint=file, **RUN)
    content = file.read_bytes()
    changes = dict(changes)  # pytest keeps the original
    model = changes.pop("model", fresh)()
    before = snapshot(model)
    with pytest.raises(ValueError, match=rf"run.pt is the checkpoint of a run with {what}: give another file"):
        train(model, changes.pop("train_data", TRAIN), checkpoint=file, **(RUN | changes))
    assert snapshot(model) == before
    assert file.read_bytes() == content


@pytest.mark.parametrize("garbage", ["text", "truncated", "weights", "no history"])
def test_refuses_a_file_that_is_no_checkpoint(tmp_path, garbage):
    file = tmp_path / "run.pt"
    model = fresh()
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if garbage == "text":
        file.write_text("hello")
    elif garbage == "empty":
        file.touch()
    elif garbage == "truncated":
        train(fresh(), TRAIN, checkpoint=file, **RUN)
        file.write_bytes(file.read_bytes()[:-500])
    else:
        states = {"weights": model.state_dict(), "list": [1, 2], "no history": {"parameters": parameters}}
        torch.save(states.get(garbage, {"parameters": parameters, "history": {}}), file)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"run.pt is .*(delete it|give another file)"):
        train(model, TRAIN, checkpoint=file, **RUN)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Columns(text=["a"], label=[0]), r"the data have no input_ids: encode\(task, tokenizer\) first"),
        (Columns(input_ids=[], label=[]), "the data have no rows"),
    ],
)
def test_refuses_data_that_cannot_be_read(data, message):
    for call in (train, evaluate, predict):
        with pytest.raises(ValueError, match=message):
            call(fresh(), data)
    with pytest.raises(ValueError, match=message):
        train(fresh(), TRAIN, data, **RUN)


def test_refuses_when_there_is_nothing_to_train():
    model = make("small_classifier").requires_grad_(False)
    with pytest.raises(ValueError, match=r'nothing in the model requires gradients: prepare\(model, "adapter"\) first'):
        train(model, TRAIN, **RUN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, not 1.5"),
        ({"steps": True}, "steps must be a whole number of at least 1, not True"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1, not 0"),
        ({"patience": -1}, "patience must be a whole number of at least 1, not -1"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number above 0, not nan"),
        ({"learning_rate": "3e-3"}, "learning_rate must be a finite number above 0, not '3e-3'"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be a number above 0, not 0.0"),
        ({"warmup": 2.0}, "warmup must be a number from 0 to 1, not 2.0"),
        ({"warmup": -1}, "warmup must be a number from 0 to 1, not -1"),
        ({"weight_decay": math.inf}, "weight_decay must be a finite number of at least 0, not inf"),
        ({"base_dtype": "float17"}, 'base_dtype must be a floating-point type such as "bfloat16", "auto" or None'),
        ({"checkpoint": "."}, r"checkpoint \. is a folder, not a file"),
        ({"checkpoint": f"{__file__}/x.pt"}, "takes no file: Not a directory"),
        ({"patience": 1}, "patience does nothing without validation_data"),
        ({"validate_every": 1}, "validate_every does nothing without validation_data"),
    ],
)
def test_refuses_settings_that_make_no_sense(changes, message):
    model = fresh()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        train(model, TRAIN, **(RUN | changes))
    assert snapshot(model) == before


def test_refuses_a_setting_that_there_is_not():
    with pytest.raises(ValueError, match=r"there is no setting 'epoch': do you mean epochs\?"):
        train(fresh(), TRAIN, epoch=2)


def test_settings_and_keywords_are_the_same_run(uninterrupted):
    settings = Settings(epochs=9, batch_size=8, learning_rate=3e-3)
    model = fresh()
    history = train(model, TRAIN, VALIDATION, settings, epochs=2, progress=False)
    assert (snapshot(model), numbers(history)) == uninterrupted


@pytest.mark.parametrize("time", [0.3, 1.2])
def test_auto_decides_by_the_time_of_the_products_and_says_so(monkeypatch, time, tmp_path):
    monkeypatch.setattr(run_module, "bfloat16_time", lambda model, tokens: time)
    seen, run = [], RUN | {"steps": 2, "base_dtype": "auto", "checkpoint": tmp_path / "run.pt", "checkpoint_every": 1}
    model = fresh()
    weight = model.base_model.blocks[0].attention.query.weight
    history = train(model, TRAIN, on_step=lambda _: seen.append(weight.dtype), **run)
    assert seen == [torch.bfloat16 if time < 0.8 else torch.float32] * 2
    assert weight.dtype == torch.float32
    assert (history.settings["base_dtype"], history.settings["bfloat16_time"]) == ("auto", time)
    monkeypatch.setattr(run_module, "bfloat16_time", lambda model, tokens: 1.5 - time)
    again = train(fresh(), TRAIN, **run)  # a run that goes on is not decided anew
    assert again.settings == history.settings


@pytest.mark.parametrize(
    ("method", "measured"), [("adapter", True), ("lora", True), ("full", False), ("bitfit", False)]
)
def test_whole_frozen_products_are_measured(monkeypatch, method, measured):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) / 100 * (1 + next(clock)))
    assert (run_module.bfloat16_time(fresh(method), 64) != 1.0) is measured


# --- Batches and modes ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=700), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
def test_every_row_comes_once_an_epoch(lengths, batch_size, seed, epoch):
    made = batches(lengths, batch_size, seed, epoch)
    assert sorted(itertools.chain(*made)) == list(range(len(lengths)))
    assert len(made) == math.ceil(len(lengths) / batch_size)
    assert all(0 < len(rows) <= batch_size for rows in made)
    assert made == batches(lengths, batch_size, seed, epoch)


def test_similar_lengths_come_together_and_epochs_differ():
    lengths = torch.randint(1, 100, (800,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(groups):
        return sum(max(lengths[row] for row in rows) * len(rows) for rows in groups) - sum(lengths)

    made = [batches(lengths, 16, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    at_random = [list(range(start, start + 16)) for start in range(0, 800, 16)]
    for groups in made:
        assert padding(groups) < 0.1 * padding(at_random)
        means = [sum(lengths[row] for row in rows) for rows in groups]
        assert means != sorted(means), "short texts always come first"
    sets = [{frozenset(rows) for rows in groups} for groups in made]
    assert all(a != b for a, b in itertools.combinations(sets, 2))
    assert all(a != b for a, b in itertools.combinations(made, 2))


@settings(deadline=None, max_examples=6)
@given(st.permutations(range(12)), st.integers(1, 13))
def test_predictions_come_in_the_order_of_the_data(order, batch_size):
    model = make("small_classifier")
    data = toy_data(12)
    shuffled = Columns({name: [column[i] for i in order] for name, column in data.items()})
    one_by_one = [model(torch.tensor([data["input_ids"][i]]), torch.ones(1, len(data["input_ids"][i]))) for i in order]
    model.train()
    result = predict(model, shuffled, batch_size)
    torch.testing.assert_close(result, torch.cat(one_by_one).detach(), rtol=0, atol=1e-5)
    scores = evaluate(model, shuffled, batch_size)
    labels = torch.tensor(shuffled["label"])
    assert scores["accuracy"] == pytest.approx((result.argmax(-1) == labels).float().mean().item())
    assert scores["loss"] == pytest.approx(-result.log_softmax(-1)[range(12), labels].mean().item(), abs=1e-6)


def test_texts_are_padded_at_the_end():
    texts = Texts(Columns(input_ids=[[5, 6, 7], [8], [0, 9]], label=[0, 1, 0]))
    ids, mask, labels = texts.batch([1, 0, 2])
    assert ids.tolist() == [[8, 0, 0], [5, 6, 7], [0, 9, 0]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]
    assert labels.tolist() == [1, 0, 0]


def modes(model):
    """The names of the modules in training mode that hold parameters or drop something out."""
    kinds = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout)
    return {name for name, m in model.named_modules() if m.training and isinstance(m, kinds)}


def test_training_mode_follows_what_is_trained():
    model = fresh("adapter")
    everything = {name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.LayerNorm, nn.Embedding))}
    training_mode(model)
    assert modes(model) == {name for name in modes(model) if ".default." in name} | {"head"}
    assert sum(name.endswith("default.dropout") for name in modes(model)) == 6

    model = fresh("head")
    training_mode(model)
    assert modes(model) == {"head"}

    model = fresh("full")
    training_mode(model)
    assert modes(model) >= everything & set(dict(model.named_modules()))
    assert "base_model.dropout" in modes(model) and "base_model.blocks.2.dropout" in modes(model)


def test_dropout_is_off_in_a_frozen_base_and_on_in_adapters():
    for dropout, same in ((0.0, True), (0.5, False)):
        config = AdapterConfig(4, init="houlsby", init_std=0.5, dropout=dropout)
        model = fresh(config=config)
        ids = torch.randint(1, 40, (4, 6))
        training_mode(model)
        assert torch.equal(model(ids, torch.ones_like(ids)), model(ids, torch.ones_like(ids))) is same


@pytest.mark.parametrize("method", ["adapter", "lora", "bitfit"])
def test_training_leaves_the_frozen_base_byte_for_byte(method):
    model = fresh(method)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    before = snapshot(model)
    train(model, TRAIN, VALIDATION, **RUN)
    after = snapshot(model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert changed <= trained


# --- History --------------------------------------------------------------------------------------------------------


def test_a_history_survives_saving(tmp_path):
    history = train(fresh(), TRAIN, VALIDATION, **RUN)
    history.save(tmp_path / "runs" / "history.json")
    again = History.load(tmp_path / "runs" / "history.json")
    assert again == history
    assert again.steps == STEPS
    assert again.accuracy == history.validation[-1]["accuracy"]
    assert history.seconds > 0
    assert math.isnan(History({}).accuracy)
