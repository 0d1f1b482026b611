"""A poll sheet for each lesson, to print: `python classroom/poll.py [01 …]` writes dist/polls/01.html.

The questions have lettered options; the key, with the reasons, begins a page of its own. The options stand in an order
that is drawn from the question's own text: a sheet printed twice is the same, and the right one is not always A.
"""

from __future__ import annotations

import html
import random
import re
import sys
from pathlib import Path

from syllabus import ROOT, quiz

from adapters_lesson.course.lesson_source import course

LETTERS = "ABCDEFGH"
STYLE = """:root{color-scheme:light dark}
body{font:11pt/1.35 system-ui,sans-serif;max-width:46rem;margin:1rem auto;padding:0 1rem}
h1{font-size:1.3rem}ol{padding-left:1.4rem}li{margin:.35rem 0}li.q{break-inside:avoid;margin-bottom:.8rem}
ol.options{list-style:upper-alpha}.key{break-before:page}code{font-size:.95em}
@media print{body{margin:0;max-width:none;font-size:10pt}@page{margin:14mm}}"""


def order(question: dict) -> list[dict]:
    """A question's options in the order of the sheet, the same each time."""
    options: list[dict] = list(question["options"])
    random.Random(question["text"]).shuffle(options)
    return options


def sheet(number: str, title: str) -> str:
    """The sheet of a lesson as one HTML page, which needs nothing beside it."""
    name = html.escape(f"{number} · {title}")
    asked, key = "", ""
    for question in quiz(number):
        options = order(question)
        listed = "".join(f"<li>{_inline(option['text'])}</li>" for option in options)
        asked += f'<li class="q">{_inline(question["text"])}<ol class="options">{listed}</ol></li>'
        reasons = "".join(f"<li>{'✔ ' * bool(o.get('right'))}{_inline(o['reason'])}</li>" for o in options)
        (right,) = (LETTERS[k] for k, option in enumerate(options) if option.get("right"))
        key += f'<li class="q"><b>{right}</b><ol class="options">{reasons}</ol></li>'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Poll: {name}</title><style>{STYLE}</style><main><h1>{name}</h1><ol>{asked}</ol></main>"
        f'<section class="key"><h1>Key: {name}</h1><ol>{key}</ol></section></html>\n'
    )


def _inline(text: str) -> str:
    """A quiz's text as HTML: its code, its emphasis, and nothing else."""
    parts = html.escape(" ".join(text.split())).split("`")
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    parts[::2] = [
        re.sub(r"\*([^*]+)\*", r"<em>\1</em>", re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", p)) for p in parts[::2]
    ]
    return "".join(parts)


def main(asked: list[str], folder: Path = ROOT / "dist" / "polls") -> int:
    """Write the sheets of the lessons that are asked for, or of all."""
    titles = {row["lesson"][:2]: row["title"] for row in course()}
    if unknown := [number for number in asked if number not in titles]:
        print(f"{unknown[0]} is no lesson: there are {', '.join(titles)}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for number in asked or titles:
        (folder / f"{number}.html").write_text(sheet(number, titles[number]), encoding="utf-8")
    print(f"{len(asked or titles)} sheets in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
