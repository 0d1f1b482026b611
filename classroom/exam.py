"""Build an exam of variants of the lessons' exercises: `python classroom/exam.py 7 [1.3 2.3 …]`, where 7 is the seed.

The same seed draws the same exam. It becomes an assignment for nbgrader, exam_7, beside those of the lessons.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random
from string import Template
from typing import Any

import torch
from assignment import CLASS, lessons, points, write_assignment
from exam_plants import PLANTS
from exam_variants import NUMBERS, Edits, Plant, Variant

from adapters_lesson.course.lesson_source import SOLUTION, Cell, Exercise, Lesson

VARIANTS = {one.number: one for one in sorted((*NUMBERS, *PLANTS), key=lambda one: [*map(int, one.number.split("."))])}
IMPORTS = """import statistics
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson import Adapter, AdapterConfig, Classifier, SmallTransformer, insert_adapters, set_trainable
from adapters_lesson.transformer import Block"""
HIDDEN_CASES = 3
TRIES = 300


@dataclass(frozen=True)
class Exam(Lesson):
    """What assignment.py makes an assignment of. Its exercises have no check, so they cannot be read from its cells."""

    asked: tuple[Exercise, ...] = ()

    @cached_property
    def exercises(self) -> tuple[Exercise, ...]:
        """In the course's order."""
        return self.asked


@dataclass(frozen=True)
class Drawn:
    """An exercise of an exam: its ``card``, the cell with its ``answer``, and what tests it.

    ``public`` is the lesson's own answer, which must fail; so must ``faulty``, a colleague's, if there is one.
    """

    exercise: Exercise
    function: str
    card: str
    answer: str
    public: str
    shown: str
    hidden: str
    faulty: str = ""


def draw(number: str, seed: int) -> Drawn:
    """The variant of an exercise that a seed draws.

    Raises:
        ValueError: where the exercise has no variant, or the source changed and the variant does not fit.
    """
    if number not in VARIANTS:
        raise ValueError(f"{number} has no variant: there are {', '.join(VARIANTS)}")
    variant, chance = VARIANTS[number], Random(f"{seed} {number}")
    lesson = _lessons()[f"{int(number.split('.')[0]):02d}"]
    (exercise,) = (one for one in lesson.exercises if one.number == number)
    assert exercise.check is not None
    public, function = lesson.cells[exercise.answers[0]].source, lesson.cells[exercise.check].check[1]
    words = {name: word for options in variant.knobs for name, word in chance.choice(options).items()}
    head = _filled(f"### Exercise {number} · {exercise.title}\n\n{variant.write}", words)
    how = f"**Difficulty** {'◆' * exercise.difficulty:◇<3} · **{exercise.minutes} minutes**"
    if isinstance(variant, Plant):
        answer = SOLUTION.sub(lambda found: found[0].replace(found[2], _filled(words["solution"], words)), public)
        more = [{**words, **variant.sizes(chance), "function": function} for _ in range(2)]
        if "right" in words:  # the learner sees what is right, not how it is computed
            right = run(answer, _filled(variant.test, more[0]))["_right"]
            more[0] |= {"right": _short(right), "alone": ""}
        tests = [_filled(variant.test, words).strip() for words in more]
        faulty = _faulty(variant, _bare(answer).replace(f"def {function}(", "def by_a_colleague("), words, chance)
        code = f"```python\n{faulty[faulty.index('def by_a_colleague') :].strip()}\n```"
        card = f"{head} {how}\n\n{code}\n\n**Done** when the cell below your answer raises nothing."
        return Drawn(exercise, function, card, answer, public, tests[0], tests[1], faulty)
    answer = _edited(public, variant.edits, words, number)
    first, *others = _cases(variant, answer, public, function, chance)
    card = f"{head} {how}\n\n**Done** when `{first[0]}` gives {_rounded(first[1])}."
    hidden = "\n".join(_assertion(variant, *case) for case in others)
    return Drawn(exercise, function, card, answer, public, _assertion(variant, *first), hidden)


def exam(seed: int, numbers: Sequence[str] = ()) -> Exam:
    """The exam that a seed draws, of all exercises that have variants, or of those that are asked for."""
    drawn = [draw(number, seed) for number in VARIANTS if number in numbers or not numbers]
    for number in numbers:
        draw(number, seed)  # refuses one that has no variant
    cells = [Cell("markdown", f"# Exam {seed}\n\n{len(drawn)} exercises."), Cell("code", IMPORTS)]
    asked = []
    for one in drawn:
        tests = f"{one.shown}\n### BEGIN HIDDEN TESTS\n{one.hidden}\n### END HIDDEN TESTS"
        place = len(cells) + 1
        cells += [Cell("markdown", one.card), Cell("code", one.answer), Cell("code", tests)]
        asked.append(one.exercise._replace(card=one.card, answers=(place,), check=place + 1))
    return Exam(f"exam_{seed}", tuple(cells), tuple(asked))


def run(code: str, *more: str) -> dict[str, Any]:
    """The names after an exam's imports and some cells, executed one after the other."""
    names: dict[str, Any] = {}
    for one in (IMPORTS, code, *more):
        exec(compile(one, "<exam>", "exec"), names)
    return names


def fails(code: str, tests: str) -> bool:
    """Whether an answer fails tests, for whatever reason."""
    try:
        run(code, tests)
    except Exception:
        return True
    return False


_lessons = cache(lessons)


def _filled(text: str, words: dict[str, Any]) -> str:
    """A text with its $words; a word may have words, too."""
    for _ in range(2):
        text = Template(text).safe_substitute(words)
    return text


def _bare(answer: str) -> str:
    return SOLUTION.sub(r"\2", answer + "\n")


def _edited(code: str, edits: Edits, words: dict[str, str], number: str) -> str:
    for old, new in edits:
        old = _filled(old, words)
        if code.count(old) != 1:
            raise ValueError(
                f"exercise {number}: its source has `{old}` {code.count(old)} times, and its variant needs it once"
            )
        code = code.replace(old, _filled(new, words))
    return code


def _faulty(variant: Plant, sound: str, words: dict[str, str], chance: Random) -> str:
    """The sound function with as many faults as the variant says."""
    for _ in range(TRIES):
        code = sound
        try:
            for fault in chance.sample(variant.planted, variant.faults):
                code = _edited(code, fault, words, variant.number)
        except ValueError:
            continue  # one belongs to another option, or two to the same line
        return code
    raise ValueError(f"exercise {variant.number}: no {variant.faults} of its faults can be planted together")


def _cases(variant: Variant, answer: str, public: str, function: str, chance: Random) -> list[tuple[str, Any]]:
    """Calls with what they give: one to show and the hidden ones, in which the public answer gives something else."""
    assert variant.cases is not None
    ours = run(answer)
    found: dict[str, Any] = {}
    for _ in range(TRIES):
        call = f"{function}({variant.cases(chance)})"
        right = eval(variant.form.format(call), ours)
        if fails(public, _assertion(variant, call, right)):
            found[call] = right
        if len(found) > HIDDEN_CASES:
            return list(found.items())
    raise ValueError(f"exercise {variant.number}: the public answer is right on nearly all of {TRIES} draws")


def _assertion(variant: Variant, call: str, right: Any) -> str:
    form, said = variant.form.format(call), f'"{call} gives {_rounded(right)}"'
    if isinstance(right, float):
        return f"assert abs({form} - {right!r}) <= {variant.near} * {abs(right)!r}, {said}"
    if variant.near > 1e-6 and isinstance(right, int):
        return f"assert abs({form} / {right} - 1) < {variant.near}, {said}"
    if isinstance(right, tuple) and isinstance(right[0], float):
        near = variant.near * max(map(abs, right))
        return f"assert all(abs(a - b) <= {near!r} for a, b in zip({form}, {right!r}, strict=True)), {said}"
    return f"assert {form} == {right!r}, {said}"


def _short(value: Any) -> Any:
    """Numbers with six digits, in lists and dictionaries like those that are given."""
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    return [_short(one) for one in value] if isinstance(value, list) else float(f"{value:.6g}")


def _rounded(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_rounded, value))})"
    return f"{value:.5g}" if isinstance(value, float) and value < 1000 else f"{value}"


def main() -> int:
    """Build what the command line asks for; 1 when it cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int, help="any number: another number draws another exam")
    parser.add_argument("exercises", nargs="*", help="for instance 1.3 2.3; all that have variants by default")
    parser.add_argument("--into", type=Path, default=CLASS, help="the class's folder; dist/assignments by default")
    parser.add_argument("--again", action="store_true", help="build it although hand-ins are there")
    arguments = parser.parse_args()
    try:
        made = exam(arguments.seed, arguments.exercises)
        write_assignment(made, arguments.into, arguments.again)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    minutes, together = sum(one.minutes for one in made.exercises), sum(map(points, made.exercises))
    release = arguments.into / "release" / made.name / f"{made.name}.ipynb"
    print(f"{len(made.exercises)} exercises, {minutes} minutes, {together} points; to hand out: {release}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
