"""The dial of lesson 10: `python data/run_dial.py` writes data/results/dial.json; `make llm` first.

The lesson's adapters are trained once, and the test questions are answered with their ``scaling`` at each position from
0 to 2: how many answers have the form, and for a few questions the answer's tokens with the likeliest four at each
place. `--quick` tries the machinery with little of everything, and writes nothing.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch

from adapters_lesson import Adapter, AdapterConfig, prepare
from adapters_lesson.course.language.answers import encode_answers, form_share, load_answers, pack
from adapters_lesson.course.language.smollm import (
    AnswerLoss,
    chat_prompt,
    generate,
    load_smollm,
    load_smollm_tokenizer,
)
from adapters_lesson.guards.safe_files import write_atomically
from adapters_lesson.history import RESULTS
from adapters_lesson.training import train

POSITIONS = [round(0.1 * tenth, 1) for tenth in range(21)]
SHOWN = (0, 3, 11, 16)  # of the test questions
LENGTH, LIKELIEST = 48, 4


def set_scaling(model: torch.nn.Module, scaling: float) -> None:
    """Turn the dial: every adapter's update is multiplied with ``scaling``."""
    for module in model.modules():
        if isinstance(module, Adapter):
            module.scaling = scaling


@torch.inference_mode()
def told(model: Any, tokenizer: Any, question: str) -> dict[str, Any]:
    """One answer, token by token, and at each place the likeliest tokens with their probabilities in per mille."""
    ids = tokenizer(chat_prompt(tokenizer, question), return_tensors="pt", add_special_tokens=False)
    out = model.generate(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=LENGTH, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    tokens = out.sequences[0, ids["input_ids"].shape[1] :]
    top = torch.cat(out.logits).softmax(-1).topk(LIKELIEST)  # (tokens, LIKELIEST)
    likeliest = [
        [[tokenizer.decode(token), round(1000 * share)] for token, share in zip(*place, strict=True)]
        for place in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    return {"tokens": [tokenizer.decode(token) for token in tokens], "likeliest": likeliest}


def main(quick: bool) -> None:
    """Train, turn, ask, write."""
    model, tokenizer, task = load_smollm(), load_smollm_tokenizer(), load_answers()
    torch.manual_seed(0)
    prepare(model, "adapter", AdapterConfig(32, placement="pfeiffer"))
    rows = pack(encode_answers(task["train"], tokenizer), 160)
    train(AnswerLoss(model), rows, steps=2 if quick else 40, batch_size=4, learning_rate=1e-3, progress=False)
    questions = task["test"]["question"]
    places: list[dict[str, Any]] = []
    for position in POSITIONS[::10] if quick else POSITIONS:
        set_scaling(model, position)
        answers = generate(model, tokenizer, questions[:2] if quick else questions)
        shown = [told(model, tokenizer, questions[number]) for number in SHOWN[: 1 if quick else None]]
        places.append({"scaling": position, "form": round(form_share(answers), 4), "answers": shown})
        print(position, places[-1]["form"], "".join(shown[0]["tokens"])[:100], flush=True)
    result = {
        "command": "python data/run_dial.py", "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(), "cores": os.cpu_count(), "asked": len(questions),
        "questions": [questions[number] for number in SHOWN], "positions": places,
    }  # fmt: skip
    if not quick:
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n"
        write_atomically(RESULTS / "dial.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
