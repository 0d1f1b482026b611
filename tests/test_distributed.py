"""Two processes share a run: the same result as one, only gradients exchanged, nobody left waiting."""

import copy
import json
import math
import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import nullcontext
from pathlib import Path

import distributed_worker
import psutil
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from adapters_lesson import train
from adapters_lesson.costs.traffic import ring_bytes
from adapters_lesson.runs.distributed import Team, make_accelerator

WORKER = Path(distributed_worker.__file__)
FAILING = WORKER.with_name("failing_worker.py")
METHODS = ("adapter", "full", "lora", "head", "layer_norm")
SAME = (*METHODS, "one row", "tokens", "cached", "patience")
CASES = (*SAME, "dropout", "resumed", "astray", "interrupted on_step", "interrupted signal")
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")


class Started:
    """Processes that are gone when the ``with`` block is left, they and their children, whatever happens."""

    def __init__(self):
        self.mark, self.processes = uuid.uuid4().hex, []

    def __enter__(self):
        return self

    def start(self, *command, **variables):
        environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        environment |= {"OMP_NUM_THREADS": "1", "TEST_MARK": self.mark, "TQDM_DISABLE": "1", **variables}
        process = subprocess.Popen(
            [sys.executable, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.processes.append(process)
        return process

    def alive(self):
        """All that still run."""
        return [process for process in psutil.process_iter() if self.is_ours(process)]

    def is_ours(self, process):
        try:
            return process.environ().get("TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            return False

    def __exit__(self, *_):
        for process in self.alive():
            process.kill()
        for process in self.processes:
            process.communicate()


def launch(*command, timeout=100):
    """Run the command in two processes; returns exit status, output and errors. None of them is left behind."""
    with Started() as started:
        output, errors = started.start(*LAUNCH, *command).communicate(timeout=timeout)
        assert not started.alive(), "processes are left"
    return started.processes[0].returncode, output, errors


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes got in every case, and the parameters."""
    folder = tmp_path_factory.mktemp("two")
    status, _, errors = launch(str(WORKER), str(folder), *CASES)
    assert status == 0, errors
    results = [json.loads((folder / f"results {rank}.json").read_text()) for rank in (0, 1)]
    states = {case: [torch.load(folder / f"{case} {rank}.pt") for rank in (0, 1)] for case in CASES}
    return results, states


# --- The same result ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_both_processes_end_with_the_same(two, case):
    results, states = two
    first, second = (dict(result[case]["history"], seconds=0) for result in results)
    assert first == second
    assert all(torch.equal(states[case][0][name], states[case][1][name]) for name in states[case][0])
    assert not any(result[case]["modes"] for result in results), "a module was left in training mode"


@pytest.mark.parametrize("case", SAME)
def test_two_processes_give_the_result_of_one(two, case, tmp_path):
    """Tolerance: 2e-5 in every parameter after at least 9 steps of up to 3e-3, or 1e-4 after steps of 0.1."""
    results, states = two
    model, history = distributed_worker.run(case, None, tmp_path)
    shared = results[0][case]["history"]
    assert shared["settings"] == {**history.settings, "processes": 2}
    assert shared["learning_rate"] == history.learning_rate
    assert shared["stopped"] == history.stopped
    assert shared["trainable"] == history.trainable
    assert shared["loss"] == pytest.approx(history.loss, abs=1e-5)
    for ours, theirs in zip(shared["validation"], history.validation, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(states[case][0][name], value, rtol=0, atol=1e-4 if case == "patience" else 2e-5)
    if case == "patience":
        assert history.stopped, "it ended by itself: nothing is tested"


def test_every_process_draws_its_own_dropout_masks(two):
    assert two[0][0]["dropout"]["seed"] != two[0][1]["dropout"]["seed"]


def test_resumes_bit_for_bit_with_two_processes_too(two):
    results, states = two
    assert dict(results[0]["resumed"]["history"], seconds=0, settings=0) == dict(
        results[0]["dropout"]["history"], seconds=0, settings=0
    )
    assert all(torch.equal(states["resumed"][0][name], value) for name, value in states["dropout"][0].items())
    assert [r["resumed"]["drawn"] for r in results] == [r["dropout"]["drawn"] for r in results]


def test_a_loss_astray_in_one_process_stops_both(two):
    for result in two[0]:
        history = result["astray"]["history"]
        assert "the loss became nan" in history["stopped"]
        assert len(history["loss"]) < 6
    assert all(value.isfinite().all() for value in two[1]["astray"][0].values())


@pytest.mark.parametrize("where", ["on_step", "signal"])
def test_an_interrupt_of_one_process_stops_both_between_two_steps(two, where):
    for result in two[0]:
        assert result[f"interrupted {where}"]["history"]["stopped"] == "interrupted"
        assert len(result[f"interrupted {where}"]["history"]["loss"]) == 4


# --- What is exchanged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*METHODS, "tokens", "cached", "one row"])
def test_the_bytes_exchanged_are_those_of_what_is_trained(two, case, tmp_path):
    for result in two[0]:
        assert sum(result[case]["buckets"]) == 10 * 4 * result[case]["history"]["trainable"]


def test_nothing_is_counted_where_nothing_is_asked():
    with distributed_worker.counted_traffic() as buckets:
        distributed_worker.run("head", None, None)
    assert buckets == []


# --- Nobody left waiting --------------------------------------------------------------------------------------------


def together(how, started, timeout):
    """Two processes as a launcher would start them, without one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [str(FAILING), how, str(timeout)]
    return [started.start(*command, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in (0, 1)]


@pytest.mark.parametrize(("how", "timeout"), [("kill", 600), ("silence", 10)])
def test_the_other_process_does_not_wait_for_ever(how, timeout):
    with Started() as started:
        first, second = together(how, started, timeout)
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 1
        assert "closed by peer" in errors or "reset" in errors or "imed out" in errors, errors
        assert second.poll() == (-signal.SIGKILL if how == "kill" else None)
        second.kill()
        assert second.communicate()[0] == "at step 3\n"


def test_an_error_in_one_process_ends_the_launch():
    status, output, errors = launch(str(FAILING), "error", "600", timeout=120)
    assert status == 1
    assert output == "at step 3\n"
    assert "the second process fails" in errors


# --- Refusals -------------------------------------------------------------------------------------------------------


def test_refuses_an_accelerator_that_does_not_know_of_the_others(monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched, but this Accelerator is alone"):
        Team(accelerator)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distributed_type": "FSDP"}, "averages gradients over processes, and FSDP does more"),
        ({"mixed_precision": "fp16"}, "mixed_precision must be no or bf16, not fp16"),
        ({"gradient_accumulation_steps": 4}, "train does not accumulate gradients over batches"),
    ],
)
def test_refuses_what_it_cannot_do(changes, message):
    class Other:
        num_processes, process_index, distributed_type, mixed_precision = 2, 0, "MULTI_GPU", "no"
        gradient_accumulation_steps, autocast = 1, nullcontext

    other = Other()
    for name, value in changes.items():
        setattr(other, name, value)
    kind = other.distributed_type
    other.distributed_type = type("Kind", (), {"value": kind})
    with pytest.raises(ValueError, match=message):
        Team(other)


def test_an_accelerator_alone_changes_nothing(tmp_path):
    model, history = distributed_worker.run("dropout", None, tmp_path)
    with distributed_worker.counted_traffic() as buckets:
        other, accelerated = distributed_worker.run("dropout", make_accelerator(), tmp_path)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())
    assert vars(accelerated) | {"seconds": 0} == vars(history) | {"seconds": 0}
    assert buckets == []


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_model_is_afterwards_as_it_was_and_can_be_trained_again(precision):
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps one precision for the whole process
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    model, again = distributed_worker.classifier(), distributed_worker.classifier()
    attributes = set(vars(model))
    first = train(
        model,
        distributed_worker.TRAIN,
        distributed_worker.VALIDATION,
        accelerator=accelerator,
        **distributed_worker.RUN,
    )
    assert set(vars(model)) == attributes
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    again.load_state_dict(model.state_dict())
    plain = copy.deepcopy(model)
    runs = [
        train(
            each,
            distributed_worker.TRAIN,
            distributed_worker.VALIDATION,
            accelerator=accelerator,
            **distributed_worker.RUN,
        ).loss
        for each in (model, again)
    ]
    alone = train(plain, distributed_worker.TRAIN, distributed_worker.VALIDATION, **distributed_worker.RUN).loss
    assert runs[0] == runs[1] != first.loss
    assert (runs[0] == alone) is (precision == "no")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_processes_that_were_started_with_different_settings_refuse(monkeypatch):
    team = Team()
    monkeypatch.setattr(team, "gathered", lambda settings: [settings, {**settings, "seed": 1}])
    with pytest.raises(ValueError, match="process 1 has other seed than process 0"):
        team.agree({"seed": 0, "batch_size": 8})
    team.agree({"batch_size": 8})


# --- The command ----------------------------------------------------------------------------------------------------


def test_the_command_on_two_processes_saves_what_it_saves_on_one(tmp_path):
    options = ["--base", "minilm:1", "--steps", "6", "--batch-size", "8", "--bottleneck", "4", "--validate-every", "6"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    options = ["-m", "adapters_lesson", "train", "--task", "sentiment", *options, "--save"]
    before = loopback()
    status, output, errors = launch(*options, str(shared), "--report", str(shared / "report.json"))
    carried = loopback() - before
    assert status == 0, errors
    assert output.count("saved in") == 1, "more than one process saved, or none"
    assert "1,500 rows, minilm:1, adapter, 2 processes" in output
    subprocess.run([sys.executable, *options, str(alone), "--quiet"], check=True, timeout=60)
    tensors = [load_file(next(folder.rglob("*.safetensors"))) for folder in (alone, shared)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, rtol=0, atol=2e-4)  # after 6 steps of up to 3e-3
    report = json.loads((shared / "report.json").read_text())
    assert report["processes"] == 2
    assert report["exchanged_bytes_per_step"] == report["gradient_bytes"] == 4 * report["history"]["trainable"]
    # both processes send through it; others may, too, and not every system tells (then it is not a number)
    assert not carried < 6 * 2 * report["sent_bytes_per_step_in_a_ring"]


def loopback():
    """Bytes that the loopback interface has carried, where Linux tells."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return math.nan
    return next((int(line.split()[1]) for line in lines if line.strip().startswith("lo:")), math.nan)


@pytest.mark.parametrize(("processes", "times"), [(1, 0), (2, 1), (4, 1.5), (100, 1.98)])
def test_a_ring_sends_less_than_twice_the_gradients(processes, times):
    assert ring_bytes(1000, processes) == pytest.approx(1000 * times)
    with pytest.raises(ValueError, match="processes must be at least 1, not 0"):
        ring_bytes(1000, 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 8), st.integers(1, 40))
def test_each_rounds_pieces_of_a_ring_sum_up_to_what_it_sends(processes, elements):
    """A ring on paper: N pieces, two times N - 1 rounds, every process ends with all sums."""
    size = processes * elements
    held = [torch.full((processes, elements), float(rank)) for rank in range(processes)]
    sent = [0] * processes
    for turn in range(2 * (processes - 1)):
        pieces = [(rank - turn) % processes if turn < processes - 1 else (rank + 1 - turn + processes - 1) % processes
                  for rank in range(processes)]  # fmt: skip
        moved = [held[rank][pieces[rank]].clone() for rank in range(processes)]
        for rank in range(processes):
            neighbour = (rank + 1) % processes
            arrived = moved[rank] + (held[neighbour][pieces[rank]] if turn < processes - 1 else 0)
            held[neighbour][pieces[rank]] = arrived
            sent[rank] += 4 * elements
    assert all((matrix == sum(range(processes))).all() for matrix in held)
    assert sent == [ring_bytes(4 * size, processes)] * processes
