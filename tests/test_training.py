"""The training loop: the same numbers every time, also after a kill."""

import contextlib
import itertools
import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Columns, make, small, snapshot, toy_data
from torch import nn

from adapters_lesson import AdapterConfig, Classifier, History, evaluate, predict, prepare, train
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


@pytest.mark.parametrize("steps", [1, 5, 6, 12, 15])
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


def test_early_stop_counts_validations_and_ends_within_an_epoch():
    run = RUN | {"steps": 200, "validate_every": 2, "learning_rate": 0.05, "patience": 1}
    history = train(fresh("full"), TRAIN, VALIDATION, **run)
    losses = [entry["loss"] for entry in history.validation]
    assert history.stopped == "no better validation loss for 1 validations"
    assert history.steps == history.validation[-1]["step"] == 2 * (losses.index(min(losses)) + 2)


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


@pytest.mark.parametrize("method", ["adapter", "full", "lora", "head"])
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


@pytest.mark.parametrize("killed_at", [1, 2, 3, 5, 6, 7, 11, 12])
@pytest.mark.parametrize("patience", [None, 1])
def test_resumes_bit_for_bit(tmp_path, killed_at, patience):
    settings = RUN | {"patience": patience, "checkpoint_every": 2}
    expected = fresh()
    expected_history = train(expected, TRAIN, VALIDATION, **settings)
    file = tmp_path / "run.pt"
    with pytest.raises(Killed):
        train(fresh(), TRAIN, VALIDATION, checkpoint=file, on_step=stop_at(killed_at, Killed()), **settings)
    assert file.exists() is (killed_at > 1)
    model, steps = fresh(), []
    torch.manual_seed(5)
    history = train(model, TRAIN, VALIDATION, checkpoint=file, on_step=lambda h: steps.append(h.steps), **settings)
    assert steps == list(range(killed_at // 2 * 2 + 1, STEPS + 1)), "it did not go on where the checkpoint was written"
    assert snapshot(model) == snapshot(expected)
    assert numbers(history) == numbers(expected_history)


@settings(deadline=None, max_examples=6)
@given(st.lists(st.integers(1, STEPS), max_size=4), st.integers(1, 7), st.sampled_from(["adapter", "full", "lora"]))
def test_resumes_bit_for_bit_however_often_it_is_killed(tmp_path_factory, kills, every, method):
    file = tmp_path_factory.mktemp("run") / "run.pt"
    run = RUN | {"checkpoint_every": every}
    expected = fresh(method)
    expected_history = train(expected, TRAIN, VALIDATION, **run)
    for step in kills:
        with contextlib.suppress(Killed):
            train(fresh(method), TRAIN, VALIDATION, checkpoint=file, on_step=stop_at(step, Killed()), **run)
    model = fresh(method)
    history = train(model, TRAIN, VALIDATION, checkpoint=file, **run)
    assert snapshot(model) == snapshot(expected)
    assert numbers(history) == numbers(expected_history)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 needs a Unix system")
def test_a_real_kill_at_any_moment_leaves_a_checkpoint_to_go_on_from(tmp_path):
    file = tmp_path / "run.pt"
    long_run = RUN | {"epochs": 20, "checkpoint_every": 1}
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
                    train(fresh(), TRAIN, checkpoint=file, **{long_run!r})
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
    history = train(model, TRAIN, checkpoint=file, on_step=lambda h: steps.append(h.steps), **long_run)
    assert steps == list(range(taken + 1, 121))
    assert snapshot(model) == snapshot(expected)
    assert numbers(history) == numbers(expected_history)


@pytest.mark.parametrize("step", [1, 6, 9])
def test_an_interrupt_keeps_what_was_learnt(step):
    model = fresh()
    begun = snapshot(model)
    kept = {}

    def on_step(history):
        if history.steps == step:
            kept.update(snapshot(model))
            raise KeyboardInterrupt

    history = train(model, TRAIN, VALIDATION, on_step=on_step, **RUN)
    assert history.stopped == "interrupted"
    assert history.steps == step == len(history.learning_rate)
    assert len(history.validation) == step // 6
    assert snapshot(model) == kept != begun
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
        self.calls += 1
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


def test_early_stop_returns_to_the_best_weights():
    model, seen = fresh("full"), []

    def on_step(history):
        if history.steps % 6 == 0:
            seen.append(snapshot(model))

    run = RUN | {"epochs": 30, "learning_rate": 0.05}
    history = train(model, TRAIN, VALIDATION, patience=2, on_step=on_step, **run)
    losses = [entry["loss"] for entry in history.validation]
    best = losses.index(min(losses))
    assert history.stopped == "no better validation loss for 2 validations"
    assert len(losses) == best + 3 < 30
    assert snapshot(model) == seen[best] != seen[-1]
    assert evaluate(model, VALIDATION)["loss"] == losses[best]


def test_patience_that_never_runs_out_returns_to_the_best_weights_too():
    model = fresh("full")
    history = train(model, TRAIN, VALIDATION, patience=99, **(RUN | {"epochs": 12, "learning_rate": 0.05}))
    losses = [entry["loss"] for entry in history.validation]
    assert history.stopped == ""
    assert losses[-1] > min(losses)
    assert evaluate(model, VALIDATION)["loss"] == min(losses)


def test_a_resumed_run_knows_the_best_weights_of_before(tmp_path):
    run = RUN | {"epochs": 12, "learning_rate": 0.05, "patience": 99, "checkpoint": tmp_path / "run.pt"}
    with pytest.raises(Killed):
        train(fresh("full"), TRAIN, VALIDATION, on_step=stop_at(71, Killed()), **run)
    model = fresh("full")
    history = train(model, TRAIN, VALIDATION, **run)
    losses = [entry["loss"] for entry in history.validation]
    assert min(losses) not in losses[-1:], "the best came after the kill: nothing is tested"
    assert evaluate(model, VALIDATION)["loss"] == min(losses)


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


@pytest.mark.parametrize("garbage", ["text", "empty", "truncated", "weights", "list", "no history", "no optimizer"])
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
    with pytest.raises(ValueError, match=r"run.pt is .*(delete it)"):
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


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate"])
@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_refuses_settings_that_make_no_sense(name, wrong):
    with pytest.raises(ValueError, match=f"{name} must be above 0, not {wrong}"):
        train(fresh(), TRAIN, **(RUN | {name: wrong}))


# --- Batches and modes ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
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


@settings(deadline=None, max_examples=20)
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


@pytest.mark.parametrize("method", ["adapter", "head", "lora", "bitfit", "layer_norm"])
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
