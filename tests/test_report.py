"""A check always returns, in bounded time, and leaves the kernel as it was, whatever the learner's code does."""

import builtins
import contextlib
import io
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from torch import nn

from adapters_lesson.course.checks import check as report
from adapters_lesson.course.checks import limits
from adapters_lesson.course.checks.limits import Watch


@report.check("0.1", "correct: one more.")
def look(answer):
    result = answer(3)
    report.require(result == 4, f"it gives {result}: add 1")


class EvilText(Exception):
    def __str__(self):
        raise ValueError


class EndlessText(Exception):
    def __str__(self):
        while True:
            pass


class OwnBase(BaseException):
    pass


class EvilRepr:
    def __repr__(self):
        print("noise")
        raise OwnBase


class Noisy(int):
    def __format__(self, how):
        print("noise")
        warnings.warn("noise", stacklevel=1)
        return "five"


class NoForward(nn.Module):
    """The method that should be forward has another name."""


class AClass:
    def __init__(self, x):
        print("noise")


def raises(error):
    def answer(x):
        raise error

    return answer


def recursion(x):
    return recursion(x)


def endless(x):
    while True:
        x += 0


def catches_exceptions(x):
    while True:
        try:
            raise ValueError
        except Exception:  # noqa: PERF203
            pass


def catches_everything(x):
    while True:
        try:  # noqa: SIM105
            x = int(x)
        except:  # noqa: E722, PERF203
            pass


def catches_everything_around_the_loop(x):
    while True:
        try:
            while True:
                x += 0
        except BaseException:  # noqa: PERF203
            continue


def returns_when_stopped(x):
    try:
        endless(x)
    except BaseException:
        return 4


def sleeps(x):
    time.sleep(1000)


def prints_for_ever(x):
    for i in itertools.count():
        print(i)


def writes_everywhere(x):
    print("noise")
    print("noise", file=sys.stderr)
    sys.stdout.buffer.write(b"noise")
    warnings.warn("noise", stacklevel=1)
    logging.getLogger("mine").error("noise")
    logging.basicConfig(level=0, force=True)
    logging.warning("noise")
    return x + 1


def changes_everything(x):
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.manual_seed(5)
    random.seed(5)
    numpy.random.seed(5)  # noqa: NPY002
    warnings.simplefilter("error")
    logging.disable(logging.NOTSET)
    os.chdir("/")
    os.environ["MINE"] = "1"
    nn.modules.module.register_module_forward_hook(lambda *a: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr = io.StringIO()
    return x + 1


def state_of_the_kernel():
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    drawn = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    defaults = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), torch.get_num_threads()
    hooks = dict(nn.modules.module._global_forward_hooks)
    quiet = list(warnings.filters), logging.root.manager.disable, sys.stdout, sys.stderr, sys.gettrace()
    return defaults, drawn, handlers, hooks, quiet, Path.cwd(), dict(os.environ), input, exit, threading.active_count()


@pytest.fixture(autouse=True)
def interruptible():
    """As in a kernel: a process that a shell starts in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 0.3)


WITHOUT_END = [
    endless, catches_exceptions, catches_everything, catches_everything_around_the_loop, returns_when_stopped, sleeps,
    prints_for_ever, raises(EndlessText()),
]  # fmt: skip
BAD = [
    (raises(ValueError("no")), "your code raised ValueError: no, in your line `raise error`"),
    (raises(SystemExit(3)), "your code raised SystemExit: 3"),
    (raises(KeyboardInterrupt()), "your code raised KeyboardInterrupt, in your line"),
    (raises(GeneratorExit()), "your code raised GeneratorExit"),
    (raises(OwnBase("mine")), "your code raised OwnBase: mine"),
    (raises(EvilText()), "your code raised EvilText, and its text cannot be shown"),
    (raises(NotImplementedError("aten::x is not implemented")), "your code raised NotImplementedError: aten::x"),
    (raises(AssertionError()), "your code raised AssertionError, in your line"),
    (raises(ValueError("long " * 1000)), "your code raised ValueError: long long"),
    (recursion, "your code raised RecursionError"),
    (lambda x: exit(), "exit() would end the whole notebook"),
    (lambda x: quit(), "exit() would end the whole notebook"),
    (lambda x: sys.exit(0), "your code raised SystemExit: 0"),
    (lambda x: input("well? "), "nobody answers input()"),
    (lambda x, y: x, "missing 1 required positional argument"),
    (lambda x: EvilRepr(), "your code raised OwnBase"),
    (lambda x: Noisy(5), "it gives five: add 1"),
    (NoForward(), 'missing the required "forward"'),
    (AClass, "add 1"),
    (4, "got a value of type int: give it the name alone"),
    (None, "got None: give it the name alone"),
    ([], "got a value of type list"),
    (EvilRepr(), "got a value of type EvilRepr"),
    ("x + 1", "got a value of type str"),
]


@pytest.mark.parametrize(("answer", "words"), BAD)
def test_whatever_is_raised_or_given_is_reported(answer, words, capfd):
    before = state_of_the_kernel()
    outcome = look(answer)
    assert state_of_the_kernel() == before
    assert outcome.status == report.WRONG
    assert words in outcome.message
    assert len(repr(outcome)) < 700
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answer", WITHOUT_END, ids=lambda f: f.__qualname__)
def test_what_never_ends_is_ended(answer, quick, capfd):
    before, began = state_of_the_kernel(), time.monotonic()
    outcome = look(answer)
    assert time.monotonic() - began < 10
    assert state_of_the_kernel() == before
    assert outcome.status == report.WRONG
    assert "a loop that never ends" in outcome.message
    assert "in your line `" in outcome.message
    assert capfd.readouterr() == ("", "")


def test_on_a_busy_machine_a_right_answer_gets_more_time(monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 0.5)
    assert look(lambda x: time.sleep(0.6) or x + 1).status == report.CORRECT  # as if others had had the processor


def test_the_line_that_ran_when_time_was_up_is_shown(quick):
    assert look(sleeps).message.startswith("stopped after 1.2 seconds, in your line `time.sleep(1000)`")
    assert ", in your line `while True:`:" in look(endless).message or "`x += 0`" in look(endless).message


@pytest.mark.parametrize("answer", [endless, catches_exceptions, returns_when_stopped])
def test_it_is_ended_without_a_timer_too_as_on_windows(answer, quick, monkeypatch):
    monkeypatch.delattr(signal, "setitimer")
    before = signal.getsignal(signal.SIGINT), threading.active_count(), sys.gettrace()
    outcome = look(answer)
    assert "a loop that never ends" in outcome.message and "in your line `" in outcome.message
    assert (signal.getsignal(signal.SIGINT), threading.active_count(), sys.gettrace()) == before


@pytest.mark.parametrize("answer", [endless, catches_exceptions, returns_when_stopped])
def test_it_is_ended_on_another_thread_too(answer, quick):
    outcomes, before = [], threading.active_count()
    thread = threading.Thread(target=lambda: outcomes.append(look(answer)))
    thread.start()
    thread.join(20)
    assert "a loop that never ends" in outcomes[0].message and "in your line `" in outcomes[0].message
    assert threading.active_count() == before


def test_many_checks_in_a_row_leave_no_thread():
    before, began = threading.active_count(), time.monotonic()
    for _ in range(50):
        assert look(lambda x: x + 1).status == report.CORRECT
    assert threading.active_count() == before
    assert time.monotonic() - began < 5


def test_a_slow_check_just_within_the_limit_is_not_ended(monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 5.0)
    assert look(lambda x: time.sleep(0.2) or x + 1).status == report.CORRECT


@pytest.mark.parametrize("outcome", [report.CORRECT, report.WRONG])
def test_the_kernel_is_as_it_was_after_an_answer_that_changes_everything(outcome, capfd):
    before = state_of_the_kernel()
    assert look(lambda x: changes_everything(x) and outcome == report.CORRECT and x + 1).status == outcome
    assert state_of_the_kernel() == before
    assert capfd.readouterr() == ("", "")


def test_noise_on_any_way_is_not_heard(capfd, recwarn, caplog):
    assert look(writes_everywhere).status == report.CORRECT
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list and not caplog.records


def test_the_course_s_settings_do_not_reach_the_check():
    @report.check("0.2", "correct.")
    def gradients(answer):
        report.require(torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32, "no")

    with torch.no_grad():
        torch.set_default_dtype(torch.float64)
        try:
            assert gradients(print).status == report.CORRECT
            assert not torch.is_grad_enabled() and torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)


def test_random_numbers_are_the_same_in_each_check():
    drawn = []
    for _ in range(2):
        look(lambda x: drawn.append((torch.rand(1).item(), random.random(), numpy.random.rand())))  # noqa: NPY002
    assert drawn[0] == drawn[1]


def interrupted_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.parametrize("answer", [endless, sleeps, catches_everything, returns_when_stopped])
def test_the_users_interrupt_gets_through(answer):
    before, began = state_of_the_kernel(), time.monotonic()
    timer = interrupted_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        look(answer)
    timer.join()
    assert time.monotonic() - began < 10
    assert state_of_the_kernel() == before


def test_an_interrupt_that_the_code_catches_gets_through_all_the_same():
    def answer(x):
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1000)
        return x + 1

    interrupted_after(0.2)
    with pytest.raises(KeyboardInterrupt):
        look(answer)


def test_an_interrupt_while_things_are_put_back_waits_until_they_are(monkeypatch):
    put_back = random.setstate

    def slowly(state):
        os.kill(os.getpid(), signal.SIGINT)
        put_back(state)

    settings = [(g, slowly if p is put_back else p) for g, p in limits._SETTINGS]
    monkeypatch.setattr(limits, "_SETTINGS", settings)
    before = state_of_the_kernel()
    with pytest.raises(KeyboardInterrupt):
        look(lambda x: torch.set_grad_enabled(False) and random.random() and x + 1)
    assert state_of_the_kernel() == before


def test_somebody_elses_timer_goes_on():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *a: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        assert look(lambda x: x + 1).status == report.CORRECT
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.5
        time.sleep(0.7)
        assert rang == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_limit_holds_only_inside_of_call():
    with Watch(0.1) as watch:
        time.sleep(0.3)
        assert watch.call(lambda: 5) == 5
        time.sleep(0.3)
    assert not watch.up


def test_a_check_tells_its_exercise():
    assert look.exercise == "0.1"
    assert look.__name__ == "look"


KERNEL = """
from adapters_lesson.course.checks import check, lesson01
check.SECONDS = 1.0
def ends(d, m):
    exit()
def asks(d, m):
    input()
def endless(d, m):
    while True:
        d
def right(d, m):
    return 2 * d * m + d + m
"""


@pytest.mark.notebook
def test_a_kernel_lives_on_and_its_interrupt_works():
    manager, client = start_new_kernel(kernel_name="python3")
    said = []

    def run(code, interrupt=False):
        def listen(message):
            content = message["content"]
            said.extend(content.get(key, "") for key in ("text", "ename"))
            said.append(content.get("data", {}).get("text/plain", ""))
            if interrupt and message["msg_type"] == "stream":
                manager.interrupt_kernel()

        said.clear()
        client.execute_interactive(code, timeout=60, allow_stdin=False, output_hook=listen)
        return "".join(said)

    try:
        assert run(KERNEL) == ""
        assert "exit() would end the whole notebook" in run("lesson01.check_count(ends)")
        assert "nobody answers input()" in run("lesson01.check_count(asks)")
        assert "in your line `" in run("lesson01.check_count(endless)")
        assert "ZMQExitAutocall" in run("print(type(exit).__name__)")
        wait = "check.SECONDS = 60.0\nprint('now', flush=True)\nlesson01.check_count(endless)"
        assert "KeyboardInterrupt" in run(wait, interrupt=True)
        assert "✔ 1.3" in run("lesson01.check_count(right)")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_kernel_without_exit_among_its_builtins_can_be_checked(monkeypatch):
    """IPython keeps exit and quit in the notebook's own names, and takes them out of the builtins."""
    for name in ("exit", "quit"):
        monkeypatch.delattr(builtins, name, raising=False)
    with limits.as_it_was():
        assert callable(builtins.exit)
    assert not hasattr(builtins, "exit")
