"""Which pushes does an answer hang on? `python data/run_writing.py` writes data/results/writing.json; `make llm` first.

Lesson 10's adapters are trained, and test questions answered. Along each answer, as it was written, pushes are switched
off: each adapter alone at all places, both halves, all on the question's tokens or on the answer's, and all, which are
left out or replaced by as long ones in a random direction. Kept are the places at which another token becomes the
likeliest. An answer that is already in the file is not looked at again.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from adapters_lesson import AdapterConfig, prepare
from adapters_lesson.course.language.answers import encode_answers, load_answers, pack
from adapters_lesson.course.language.smollm import AnswerLoss, load_smollm, load_smollm_tokenizer
from adapters_lesson.course.language.writing_microscope import WritingMicroscope
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.history import RESULTS
from adapters_lesson.training import train

RESULT = RESULTS / "writing.json"
SEEDS, ASKED = (0,), (16, 3)  # the second: of the test questions


def turned(scope: WritingMicroscope, rows: range, columns: range) -> list[int]:
    """The places at which another token becomes the likeliest without the pushes of ``rows`` in ``columns``."""
    places = scope.switch([[r, t] for r in rows for t in columns])
    return [t for t, place in enumerate(places) if place["after"][0] < max(place["after"])]


def without(scope: WritingMicroscope) -> dict[str, Any]:
    """What is kept of one answer."""
    push = torch.tensor(scope.now["push"])
    rows, columns = range(len(push)), range(len(push[0]))
    half = len(rows) // 2
    largest = int(push[:, 1:].argmax())
    place = [largest // (len(columns) - 1), largest % (len(columns) - 1)]
    found: dict[str, Any] = {
        "question": scope.question,
        "tokens": scope.now["tokens"][1:],
        "largest": [*place, round(push[:, 1:].max().item(), 4)],
        "without_largest": turned(scope, range(place[0], place[0] + 1), range(place[1] + 1, place[1] + 2)),
        "each": [turned(scope, range(row, row + 1), columns) for row in rows],
        "lower": turned(scope, rows[:half], columns),
        "upper": turned(scope, rows[half:], columns),
        "on_question": turned(scope, rows, columns[:1]),
        "on_answer": turned(scope, rows, columns[1:]),
        "all": turned(scope, rows, columns),
    }
    scope.astray = True
    return found | {"astray": turned(scope, rows, columns)}


def trained(seed: int, tokenizer: Any) -> Any:
    """SmolLM2 with the lesson's adapters."""
    model = load_smollm()
    torch.manual_seed(seed)
    prepare(model, "adapter", AdapterConfig(32, placement="pfeiffer"))
    rows = pack(encode_answers(load_answers()["train"], tokenizer), 160)
    train(AnswerLoss(model), rows, steps=40, batch_size=4, learning_rate=1e-3, seed=seed, progress=False)
    return model


def main() -> None:
    """Look at what is missing, writing the file after every answer."""
    tokenizer, questions = load_smollm_tokenizer(), load_answers()["test"]["question"]
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"answers": []}
    results |= {"command": "python data/run_writing.py", "torch": torch.__version__.partition("+")[0]}
    results |= {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    for seed in SEEDS:
        known = [answer["question"] for answer in results["answers"] if answer["seed"] == seed]
        missing = [questions[number] for number in ASKED if questions[number] not in known]
        model = trained(seed, tokenizer) if missing else None
        for question in missing:
            scope = WritingMicroscope(model, tokenizer, question)
            results["answers"].append({"seed": seed, **without(scope)})
            save(results)
            print(seed, question, flush=True)


def save(results: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    text = json.dumps(results, ensure_ascii=False) + "\n"
    write_atomically(RESULT, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
