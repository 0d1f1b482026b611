"""Which method when, for lesson 12: a few questions, and for each answer the measurement or paper that it stands on."""

import html
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from statistics import mean
from string import Formatter
from typing import Any

import traitlets

from adapters_lesson.course.explorers.frame import STILL
from adapters_lesson.course.page import Page
from adapters_lesson.course.words import _
from adapters_lesson.history import load_results

BRANCHES = Path(__file__).with_suffix(".json")
TAKE: dict[str, Callable[[list[float]], float]] = {"mean": mean, "min": min, "max": max}


def values(found: Any, path: list[Any]) -> list[float]:
    """The numbers at a ``path`` of a file of results; "*" goes through a list, "nf4/*" through all names that begin so.

    Where a row has chosen a learning rate, its "runs" are those with that rate. Raises KeyError, IndexError, TypeError
    or ValueError where no number is there.
    """
    if not path:
        return [float(found)]
    if str(path[0]).endswith("*"):
        begin = path[0][:-1]
        parts = [found[name] for name in found if name.startswith(begin)] if isinstance(found, Mapping) else found
        return [number for part in parts for number in values(part, path[1:])]
    part = found[path[0]]
    if path[0] == "runs" and "learning_rate" in found:
        part = [run for run in part if run["learning_rate"] == found["learning_rate"]]
    return values(part, path[1:])


def _reason(reason: dict[str, Any], load: Callable[[str], Any], place: str) -> dict[str, str]:
    """The sentence with its numbers from what ``load`` gives, and where they are from."""
    if source := reason.get("source", "").strip():
        return {"text": _(reason["text"]), "from": _(source)}
    name, asked = reason.get("results"), reason.get("numbers")
    if not (name and asked and reason.get("lesson")):
        raise ValueError(f"{place}: a reason needs a source, or results, numbers and a lesson: {reason['text']!r}")
    found: dict[str, float] = {}
    if odd := asked.keys() ^ {key for _text, key, *_format in Formatter().parse(reason["text"]) if key is not None}:
        raise ValueError(f"{place}: {', '.join(sorted(odd))} is in the sentence or in numbers, and has to be in both")
    try:
        for key, how in asked.items():
            found[key] = how.get("times", 1) * TAKE[how.get("take", "mean")](values(load(name), how["at"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{place}: data/results/{name}.json has no number {key!r} at {how.get('at')}") from error
    return {
        "text": _(reason["text"].format(**found)),
        "from": _(f"lesson {reason['lesson']}, data/results/{name}.json"),
    }


def which_method(path: Path = BRANCHES) -> dict[str, Any]:
    """The questions and methods of a file of branches, each number looked up in data/results.

    An answer leads to a later question or to a method. Raises ValueError, with the place, for an answer that nothing
    supports or that leads nowhere, a number that no result has, and a question or method that no answer leads to.
    """
    tree = json.loads(path.read_text(encoding="utf-8"))
    methods, open_ = tree["methods"], [question["key"] for question in tree["questions"]]
    reached, questions, load = {open_[0]}, [], cache(load_results)
    for question in tree["questions"]:
        answers = []
        open_.remove(question["key"])
        for answer in question["answers"]:
            place = f"{path.name}, {question['key']!r}, {answer['say']!r}"
            if answer["to"] not in [*open_, *methods]:
                raise ValueError(f"{place}: {answer['to']!r} is neither a later question nor a method")
            if not answer.get("because"):
                raise ValueError(f"{place}: nothing supports this: name a measurement or a source, or leave it out")
            reached.add(answer["to"])
            because = [_reason(one, load, place) for one in answer["because"]]
            answers.append({**answer, "say": _(answer["say"]), "because": because})
        questions.append({**question, "ask": _(question["ask"]), "answers": answers})
    if never := {*methods, *(question["key"] for question in questions)} - reached:
        raise ValueError(f"{path.name}: no answer leads to {', '.join(sorted(never))}")
    spoken = {key: {part: _(text) for part, text in method.items()} for key, method in methods.items()}
    return {"questions": questions, "methods": spoken}


class WhichMethod(Page):
    """One question after the other, up to a method; every answer shows what supports it."""

    _esm = Path(__file__).with_suffix(".js")
    tree = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        super().__init__(tree=which_method())

    def still(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All branches with what supports them, as text and as HTML."""
        tree, plain, page = self.tree, [_("Which method when?")], ""
        keys = [question["key"] for question in tree["questions"]]
        for question in tree["questions"]:
            plain.append(f"{keys.index(question['key']) + 1}. {question['ask']}")
            branches = ""
            for answer in question["answers"]:
                to, reasons = answer["to"], [f"{one['text']} ({one['from']})" for one in answer["because"]]
                then = _(f"question {keys.index(to) + 1}") if to in keys else tree["methods"][to]["name"]
                plain += [f"   {answer['say']}: {then}", *(f"      {one}" for one in reasons)]
                said = "".join(f"<li>{html.escape(one)}</li>" for one in reasons)
                branches += f"<li>{html.escape(answer['say'])}: <b>{html.escape(then)}</b><ul>{said}</ul></li>"
            page += f"<li>{html.escape(question['ask'])}<ul>{branches}</ul></li>"
        doing = ""
        for method in tree["methods"].values():
            plain.append(f"{method['name']}: {method['do']}")
            doing += f"<li><b>{html.escape(method['name'])}</b>: {html.escape(method['do'])}</li>"
        return {"text/html": f"{_(STILL)}<ol>{page}</ol><ul>{doing}</ul>", "text/plain": "\n".join(plain)}, {}
