"""The live view of a class: what may be in a report, what the teacher sees, and that it is the learner's choice."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapters_lesson.course import record
from adapters_lesson.course.checks import lesson01

ROOT = Path(__file__).parents[1]
if sys.platform != "linux":
    pytest.skip("the classroom's hub is made for Linux", allow_module_level=True)
sys.path.append(str(ROOT / "classroom" / "hub" / "live"))
from adapters_lesson_live import page, report, sharing, view, words  # noqa: E402

NOW = 1_800_000_000
WRONG = "that is qᵀ k, it compares the numbers of a vector, not tokens: take q kᵀ"


def one(done=False, at=NOW, said="", times=1):
    return {"done": done, "at": at, "said": said, "times": times}


def body(**exercises):
    """A report, with exercises by "e2_1" for 2.1."""
    return json.dumps({"exercises": {name[1:].replace("_", "."): it for name, it in exercises.items()}}).encode()


@pytest.fixture
def clock():
    """A clock that stands still, until it is set."""
    return [float(NOW)]


@pytest.fixture
def those(clock):
    return view.Class(lambda: clock[0])


def test_its_exercises_are_the_course_s():
    ours = record._lessons()
    expected = {
        number: (f"{lesson} {title}", name)
        for lesson, (_, title, cards) in ours.items()
        for number, name in cards.items()
    }
    assert list(words.exercises().items()) == list(expected.items())


def test_it_imports_nothing_heavy():
    """Each learner's server has it, and the hub."""
    code = (
        "import sys, adapters_lesson_live.view; print(sorted({'torch', 'numpy', 'adapters_lesson'} & set(sys.modules)))"
    )
    folder = str(ROOT / "classroom" / "hub" / "live")
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("exercise", "said", "shared"),
    [
        ("2.1", WRONG, WRONG),
        (
            "2.2",
            "the block is in evaluation mode afterwards: leave its mode to whoever calls",
            "the block is in evaluation mode afterwards: leave its mode to whoever calls",
        ),
        (
            "1.1",
            "your code raised NameError: name 'x' is not defined, in your line `secret`",
            "your code raised NameError",
        ),
        ("1.1", "your code raised MyDiary: of today", "your code raised an exception of its own"),
        ("1.1", "your code raised what cannot even be shown", "your code raised an exception of its own"),
        (
            "1.1",
            "the check cannot use your answer as it is, TypeError: a secret",
            "the check cannot use your answer as it is, TypeError",
        ),
        (
            "1.1",
            "stopped after 15 seconds, in your line `while secret`: most likely a loop that never ends; what should "
            "make it stop?",
            "…: most likely a loop that never ends; what should make it stop?",
        ),
        ("1.1", "my own words", words.OTHER),
        ("1.1", WRONG, words.OTHER),
        ("1.1", "", ""),
    ],
)
def test_of_what_a_check_said_only_the_course_s_words_are_shared(exercise, said, shared):
    assert words.sentence(exercise, said) == shared
    assert shared in words.sentences(exercise)
    assert "secret" not in shared


@pytest.mark.slow
def test_the_sentences_of_wrong_answers_are_known():
    """Of those of a lesson that people really write, all but what is put together in other words."""
    from wrong_answers import exercises

    said = [(e.number, e.report_of("wrong", i)) for e in exercises() if e.lesson == 1 for i in range(len(e.wrong))]
    shared = [words.sentence(number, it.message) for number, it in said if it.status == "wrong"]
    assert len(shared) > 60
    assert shared.count(words.OTHER) <= 0.05 * len(shared)
    assert sum("…" not in it for it in shared) > len(shared) / 2


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A learner's home on the hub, with a folder of lessons in which a notebook runs."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(record, "_unsaved", {})
    return tmp_path


def test_a_report_has_what_the_checks_noted(home):
    assert report.make(None) == {"exercises": {}}
    said = lesson01.check_count(lambda d, m: 2 * d * m).message
    lesson01.check_widest(lambda *given: 1 / 0)
    lesson01.check_count(lambda d, m: 2 * d * m)
    made = report.make(home / "notebooks" / "progress.json")["exercises"]
    assert made.keys() == {"1.3", "1.4"}
    assert (made["1.3"]["done"], made["1.3"]["said"]) == (False, words.sentence("1.3", said))
    assert made["1.3"]["times"] >= 2
    assert made["1.4"]["said"] == "your code raised ZeroDivisionError"
    assert report.read(json.dumps({"exercises": made}).encode(), made["1.3"]["at"])["1.4"].done is False
    lesson01.check_count(lambda d, m: 2 * d * m + d + m)
    done = report.make(home / "notebooks" / "progress.json")["exercises"]["1.3"]
    assert (done["done"], done["said"], done["times"]) == (True, "", 0)


def test_a_record_of_an_older_version_is_shared_without_times():
    """It has no tries."""
    old = report._try("1.1", "tried", {"exercises": {"1.1": "tried"}})
    assert old == report.Try(False, 0, "", 0)


OURS = {"course": "adapters_lesson", "version": 1, "exercises": {"1.1": "tried"}}
TRIED = {"at": 5, "said": "", "times": 1}
BAD = {
    "not JSON": b"{ oops",
    "deep": b"[" * 100_000,
    "a list": b"[1]",
    "no state": json.dumps(OURS | {"exercises": {"1.1": "<script>"}}).encode(),
    "a list of exercises": json.dumps(OURS | {"exercises": ["1.1"]}).encode(),
    "a sentence that is none": json.dumps(OURS | {"tries": {"1.1": TRIED | {"said": ["x"]}}}).encode(),
    "never": json.dumps(OURS | {"tries": {"1.1": TRIED | {"at": float("nan")}}}).encode(),
    "at the end of time": json.dumps(OURS | {"tries": {"1.1": TRIED | {"at": float("inf")}}}).encode(),
    "a number of many digits": b'{"exercises": {"1.1": "tried"}, "tries": {"1.1": {"at": 1' + b"0" * 9999 + b"}}}",
    "half a try": json.dumps(OURS | {"tries": {"1.1": {"at": 1}}}).encode(),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_record_is_told_in_a_sentence(content, tmp_path):
    file = tmp_path / "progress.json"
    file.write_bytes(content)
    assert report.make(file) == {"problem": report.ALTERED}


def test_what_is_no_file_or_too_big_is_not_read(tmp_path):
    other, file = tmp_path / "other.json", tmp_path / "progress.json"
    other.write_text(json.dumps(OURS))
    file.symlink_to(other)
    assert report.make(other)["exercises"].keys() == {"1.1"}
    assert report.make(file) == {"problem": report.LINK}
    file.unlink()
    os.mkfifo(file)
    assert report.make(file) == {"problem": report.LINK}, "and nobody waits for what comes through the pipe"
    file.unlink()
    file.mkdir()
    assert report.make(file) == {"problem": report.LINK}
    file.rmdir()
    file.write_text(json.dumps(OURS) + " " * report.OF_A_FILE)
    assert report.make(file) == {"problem": report.BIG}


REFUSED = {
    "above 64 KB": (b" " * 65_537, "it has more than 65,536 bytes"),
    "not JSON": (b"\xff{", "it is no JSON"),
    "deep": (b"[" * 60_000, "it is no JSON"),
    "a list": (b"[]", "it is no report of exercises"),
    "a problem in own words": (b'{"problem": "<b>"}', "it is no report of exercises"),
    "a problem that is a list": (b'{"problem": []}', "it is no report of exercises"),
    "more in it": (b'{"exercises": {}, "code": ""}', "it is no report of exercises"),
    "another exercise": (body(**{"e<b>": one()}), "it has an exercise that the course does not have"),
    "no try": (body(e1_1=7), "its exercise 1.1 has not what belongs to an exercise"),
    "more in a try": (body(e1_1=one() | {"code": ""}), "its exercise 1.1 has not what belongs to an exercise"),
    "a word for a number": (body(e1_1=one(times="3")), "its exercise 1.1 has a value of the wrong kind"),
    "a truth for a number": (body(e1_1=one(at=True)), "its exercise 1.1 has a value of the wrong kind"),
    "NaN": (body(e1_1=one(at=float("nan"))), "its exercise 1.1 has a value of the wrong kind"),
    "too many times": (body(e1_1=one(times=10**6)), "its exercise 1.1 has a value of the wrong kind"),
    "tomorrow": (body(e1_1=one(at=NOW + 86_400)), "its exercise 1.1 was checked at an impossible time"),
    "own words": (
        body(e1_1=one(said="<script>alert(1)</script>")),
        "its exercise 1.1 has a sentence that no check says",
    ),
    "another lesson's": (body(e1_1=one(said=WRONG)), "its exercise 1.1 has a sentence that no check says"),
    "done and wrong": (body(e2_1=one(done=True, said=WRONG)), "its exercise 2.1 has a sentence that no check says"),
}


@pytest.mark.parametrize(("sent", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_report_is_refused_told_and_hurts_nobody_else(sent, why, those, clock):
    those.take("ada", body(e2_1=one(said=WRONG)))
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        those.take("mo", sent)
    shown = view.tables(those)
    assert f"what came from the learner&#x27;s server cannot be used: {why}" in shown
    assert "2 learners share" in shown and WRONG in shown
    assert not re.search("<script|<b>", shown)
    clock[0] += 5
    those.take("mo", body(e2_1=one(done=True)))
    assert why not in view.tables(those)


def test_it_counts_who_has_solved_an_exercise_and_what_is_wrong_with_it(those):
    raised = "your code raised NameError"
    those.take("ada", body(e1_1=one(done=True, at=NOW - 900), e2_1=one(said=WRONG, times=4)))
    those.take("ben", body(e1_1=one(done=True), e2_1=one(at=NOW - 60, said=WRONG)))
    those.take("eve", body(e1_1=one(said=raised), e2_1=one(at=NOW - 7200, done=True)))
    those.take("kim", b'{"exercises": {}}')
    first, second = those.exercises()
    assert first == ("2.1", 1, 2, [(WRONG, 2)])
    assert second == ("1.1", 2, 1, [(raised, 1)])
    assert [one.last[0] for name, one in those.learners().items() if name != "kim"] == ["2.1", "1.1", "1.1"]
    said = re.sub("<[^>]+>", " ", view.tables(those))
    assert re.search(r"ada\s+2\.1 .*? wrong, 4 times the same\s+now\s+that is", said)
    assert re.search(r"kim\s+nothing checked yet", said)
    assert re.search(r"2\.1 \S.*?1 of 4\s+2\s+that is qᵀ k[^(]+\(2\)", said)


def test_a_learner_who_leaves_or_falls_silent_is_forgotten(those, clock):
    those.take("ada", body(e1_1=one()))
    those.take("ben", body(e1_1=one()))
    those.forget("ada")
    those.forget("nobody")
    assert list(those.learners()) == ["ben"]
    clock[0] += view.SILENCE
    assert "Nobody shares now" in view.tables(those)


def test_reports_that_come_too_fast_are_not_taken(those, clock):
    those.take("ada", body(e1_1=one()))
    with pytest.raises(view.TooOften):
        those.take("ada", body(e1_1=one(done=True)))
    those.take("ben", body(e1_1=one()))
    clock[0] += view.PAUSE
    those.take("ada", body(e1_1=one(done=True)))
    assert those.exercises()[0].solved == 1


def test_a_name_cannot_be_markup(those):
    those.take("<img src=x onerror=alert(1)>&", body(e1_1=one()))
    shown = view.tables(those)
    assert "<img" not in shown and "&lt;img src=x onerror=alert(1)&gt;&amp;" in shown


def test_the_pages_fetch_nothing_from_elsewhere(those):
    those.take("ada", body(e1_1=one()))
    shown = page.teachers(view.tables(those), "N")
    assert re.findall(r"""(?:src|href|url|action)\W*["'(]?([^"')\s>]+)""", shown) == ["data:,"]
    allowed = dict(part.strip().split(" ", 1) for part in page.policy("N").split(";"))
    assert allowed["default-src"] == "'none'"
    assert {allowed["connect-src"], allowed["form-action"]} == {"'self'"}
    assert not re.search(r' (style|on\w+)="', shown), "the policy would not allow it"


@pytest.fixture
def sent(monkeypatch, home):
    """A learner's sharing, and what it sends."""
    calls = []

    async def take(self, method, sent):
        calls.append((method, sent and json.loads(sent)))
        return True

    monkeypatch.setattr(sharing.Sharing, "_send", take)
    return sharing.Sharing(home, "http://127.0.0.1:1/", "token"), calls


def test_nothing_is_read_or_sent_before_the_learner_switches_it_on(sent, home, monkeypatch):
    ours, calls = sent
    lesson01.check_count(lambda d, m: 2 * d * m)

    async def refuse(self):
        raise AssertionError("it reads")

    with monkeypatch.context() as patch:
        patch.setattr(sharing.Sharing, "report", refuse)
        asyncio.run(ours.tick())
    assert (ours.on, calls) == (False, [])
    ours.switch(True)
    asyncio.run(ours.tick())
    asyncio.run(ours.tick())
    assert [method for method, _ in calls] == ["PUT"], "what is known is not sent again at once"
    assert calls[0][1]["exercises"].keys() == {"1.3"}
    lesson01.check_count(lambda d, m: 2 * d * m + d + m)
    asyncio.run(ours.tick())
    assert calls[1][1]["exercises"]["1.3"]["done"] is True


def test_the_switch_is_a_file_and_deleting_it_takes_back_what_was_sent(sent, home):
    ours, calls = sent
    ours.switch(True)
    asyncio.run(ours.tick())
    assert "Delete it, and that ends" in (home / sharing.SWITCH).read_text()
    (home / sharing.SWITCH).unlink()
    asyncio.run(ours.tick())
    asyncio.run(ours.tick())
    assert calls == [("PUT", {"exercises": {}}), ("DELETE", None)]


def test_what_was_sent_without_an_answer_is_taken_back_too_until_that_is_answered(home, monkeypatch):
    ours, calls = sharing.Sharing(home, "http://127.0.0.1:1/", "token"), []

    async def lose(self, method, sent):
        calls.append(method)
        return len(calls) > 2

    monkeypatch.setattr(sharing.Sharing, "_send", lose)
    for on in (True, False, False, False):
        ours.switch(on)
        asyncio.run(ours.tick())
    assert calls == ["PUT", "DELETE", "DELETE"]


def test_that_it_cannot_be_sent_is_known_and_breaks_nothing(home):
    ours = sharing.Sharing(home, "http://127.0.0.1:1/", "token")
    ours.switch(True)
    asyncio.run(ours.tick())
    assert "refused" in ours.problem.lower()


def test_the_learner_s_page_shows_the_whole_report(sent, home):
    ours, _ = sent
    lesson01.check_widest(lambda *given: 1 / 0)
    made = asyncio.run(ours.report())
    shown = sharing.shown(made, on=False)
    assert "Exactly this would be sent" in shown
    assert all(word in shown for word in ("1.4 ", "tried", "your code raised ZeroDivisionError"))
    assert report.BIG in sharing.shown({"problem": report.BIG}, on=True)


def test_the_newest_progress_counts(sent, home, monkeypatch):
    ours, _ = sent
    assert ours._progress() is None
    pulled = home / "adapters-lesson" / "notebooks" / "progress.json"
    pulled.parent.mkdir(parents=True)
    pulled.write_text("{}")
    assert ours._progress() == pulled
    mine = home / "notebooks" / "progress.json"
    mine.write_text("{}")
    os.utime(pulled, (1, 1))
    assert ours._progress() == mine
    monkeypatch.setenv("ADAPTERS_LESSON_PROGRESS", str(pulled))
    assert ours._progress() == pulled
