"""Graduation: the learner's library alone adapts MiniLM to the film reviews, and a page says what was built."""

import base64
import html
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from adapters_lesson.adapter import AdapterConfig
from adapters_lesson.course.figures import graduation_figure
from adapters_lesson.course.record import known
from adapters_lesson.data import load_minilm, load_task, load_tokenizer, minilm_folder
from adapters_lesson.insertion import insert_adapters
from adapters_lesson.methods import set_trainable
from adapters_lesson.transformer import Classifier

from . import alone
from .keeping import file_of_mine, shelf
from .my_file import MyFile, parse
from .shelf import Shelf, exercises, reference
from .taken import used_names

NEEDED = ("1.1", "1.2", "1.3", "2.4", "3.1", "3.2", "4.2", "4.4", "5.1")  # what ``alone`` is made of
TASK: dict[str, Any] = {"seed": 0, "width": 16, "batch_size": 32, "learning_rate": 1e-3}
_LONGEST = 86_400  # seconds

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Adapters, from scratch: what I built</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
th {{ text-align: left; padding-right: 1.5em; vertical-align: top; white-space: nowrap }} img {{ max-width: 100% }}
pre {{ overflow-x: auto; padding: 1em; border: 1px solid #8888 }} :root {{ color-scheme: light dark }}</style>
</head><body><h1>What I built</h1>
<p>My adapter library, written in the course <em>Adapters, from scratch</em>. Without the course beside it, it put
adapters into MiniLM and taught it to judge film reviews.</p>
{table}
<p><img alt="The training loss of my library and of the course's, step by step, and what the table says."
src="data:image/png;base64,{data}"></p>
<h2>The library</h2><pre>{code}</pre></body></html>
"""


class Graduation(NamedTuple):
    """What came out: of the learner's library ``alone`` and of the course's, which exercises were ``lent``, and why."""

    alone: dict[str, Any]
    course: dict[str, Any]
    lent: dict[str, str]
    labels: list[int]
    lines: int
    pieces: int

    @property
    def right(self) -> float:
        return sum(map(int.__eq__, self.alone["answers"], self.labels)) / len(self.labels)

    @property
    def half(self) -> float:
        """Half of the 95 % interval of the accuracy, over the texts."""
        return 1.96 * (self.right * (1 - self.right) / len(self.labels)) ** 0.5

    @property
    def apart(self) -> float:
        """The largest difference of a loss from the course's."""
        return max(abs(a - b) for a, b in zip(self.alone["losses"], self.course["losses"], strict=True))

    @property
    def same(self) -> bool:
        """Whether it gives the course's numbers."""
        return self.apart <= 1e-5 and self.alone["answers"] == self.course["answers"]

    def rows(self) -> list[tuple[str, str]]:
        """What the page says."""
        record, alone = known(), self.alone
        seen = [one["right"] for one in record["predictions"].values() if "right" in one]
        hours = sum(map(len, record["active"].values())) / 12
        standing, kept = ([f"{size / 1e6:.1f} MB" for size in alone[what]] for what in ("standing", "activations"))
        counts = f"{alone['trained']:,} of {alone['total']:,} parameters, {alone['formula']:,} by formula"
        sure = f"{100 * self.right:.1f} ± {100 * self.half:.1f}"
        apart = "the same" if self.same else f"not the same: a loss differs by {self.apart:.1e}"
        return [
            ("my library", f"{self.lines} lines, {self.pieces} of {len(exercises())} exercises"),
            ("lent by the course", ", ".join(f"{e} ({why})" for e, why in self.lent.items()) or "nothing"),
            ("trained", counts),
            ("film reviews", f"{sure} % of {len(self.labels):,} sentences right"),
            ("the course's library", f"{apart}: {len(alone['losses'])} losses, {len(self.labels):,} answers"),
            ("standing memory", f"predicted {standing[0]}, measured {standing[1]}"),
            ("kept activations", f"predicted {kept[0]}, were all blocks alike; measured {kept[1]}"),
            ("predictions", f"{sum(seen)} of {len(seen)} right"),
            ("time on the course", f"{hours:.1f} hours"),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{what:22}{said}" for what, said in self.rows())

    def _repr_html_(self) -> str:
        row = '<tr><th scope="row" style="text-align: left">{}</th><td style="text-align: left">{}</td></tr>'
        return f"<table>{''.join(row.format(*map(html.escape, words)) for words in self.rows())}</table>"


def graduate(steps: int = 60, test: int = 1000, seconds: float = 600) -> Graduation:
    """Let the learner's library work without the course, compare it with the course's, and write the page.

    The page is mine/graduation.html, with the picture mine/graduation.png, both beside the library. What the learner
    has not written yet is lent by the course, and named. It takes about a minute; after ``seconds`` it is ended.

    Raises:
        RuntimeError: where the library stops, with what it says, or is not done in time, with where it is.
    """
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"seconds is {seconds!r}: give the library more than 0 and at most {_LONGEST}, a day")
    mine, lent = _lendable()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "adapters.py").write_text(mine.text(), encoding="utf-8")
        reviews = load_task("film_reviews")
        train = reviews["train"].shuffle(seed=TASK["seed"]).select(range(steps * TASK["batch_size"]))
        texts = {"train": train.to_dict(), "test": reviews["test"][:test]}
        task = TASK | {"mine": str(folder / "adapters.py"), "minilm": str(minilm_folder())}
        task |= {"texts": texts, "start": str(folder / "start.pt"), "seconds": seconds}
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", alone.__file__, str(folder / "task.json")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(_what_stopped(done, mine.text(), seconds))
        outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
        course = _by_the_course(task)
    own = shelf().mine
    pieces = len([e for e in own.sections if e in exercises()])
    lines = len(own.text().splitlines()) if pieces else 0
    made = Graduation(outcome, course, lent, texts["test"]["label"], lines, pieces)
    _write_page(made, own)
    return made


def _what_stopped(done: subprocess.CompletedProcess[str], library: str, seconds: float) -> str:
    """Why the library has come to no end alone: the error that it raised, or where it was when time was up."""
    *_, last = f"{done.returncode}\n{done.stderr}".strip().splitlines()
    if "Timeout (" not in done.stderr:
        return f"your library stops without the course: {last}"
    where = "none of its code is at work just now"
    if found := re.search(r'adapters\.py", line (\d+)', done.stderr):  # the innermost call comes first
        line = int(found[1])
        where = f"{parse(library).exercise_at(line)} is at `{library.splitlines()[line - 1].strip()}`"
    longer = f"graduate(seconds={2 * seconds:g})"
    return f"your library is not done after {seconds:g} seconds: {where}. If it is only slow, give it longer: {longer}"


def _lendable() -> tuple[MyFile, dict[str, str]]:
    """The learner's file without what needs the course, filled up with the course's own answers; and which it lent."""
    pieces = shelf()
    own, ours = pieces.mine, reference()
    of_course = {name for name, line in own.imports.items() if line.split()[1].partition(".")[0] == "adapters_lesson"}
    roots = {name.partition(".")[0] for name in of_course}
    lent = dict(pieces.why)
    theirs = {e: s for e, s in own.sections.items() if e in exercises() and e not in lent}
    for exercise, section in theirs.items():
        used = sorted(roots & used_names(section.body, annotations=True))
        if used or "Adapter.count(" in section.body:
            lent[exercise] = f"it uses the course's {(*used, 'Adapter.count')[0]}"
    sections = {**ours.sections, **{e: s for e, s in theirs.items() if e not in lent}}
    bodies = [own.above, *(section.body for section in sections.values())] if theirs else []
    names = used_names("\n".join(bodies), annotations=True)
    needed = {n: line for n, line in own.imports.items() if n not in of_course and n.split(".")[0] in names}
    file = MyFile({**ours.imports, **needed}, {}, own.above if theirs else "", sections)
    return file, {exercise: why for exercise, why in lent.items() if exercise in NEEDED}


def _by_the_course(task: dict[str, Any]) -> dict[str, Any]:
    """The same run with the course's library, from the same start."""
    model, start = Classifier(load_minilm(), 2).eval(), torch.load(task["start"], weights_only=True)
    for adapter, state in zip(insert_adapters(model, AdapterConfig(task["width"])), start["adapters"], strict=True):
        adapter.load_state_dict(state)
    model.head.load_state_dict(start["head"])
    set_trainable(model)
    step = Shelf(parse("")).names["training_step"]  # the course's own
    return alone.learn(model, step, load_tokenizer(), task)[0]


def _write_page(made: Graduation, own: MyFile) -> None:
    """The page, and its picture: nothing of it is fetched from anywhere."""
    if (path := file_of_mine()) is None:
        return
    figure = graduation_figure(made.alone["losses"], made.course["losses"], made.rows())
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("graduation.png").write_bytes(picture.getvalue())
    data = base64.b64encode(picture.getvalue()).decode()
    page = _PAGE.format(table=made._repr_html_(), data=data, code=html.escape(own.text()))
    path.with_name("graduation.html").write_text(page, encoding="utf-8")
