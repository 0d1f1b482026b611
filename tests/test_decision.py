"""Which method when: numbers are what the files say, every answer has support, and text says what the widget says."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

import evidence

from adapters_lesson.course import decision
from adapters_lesson.course.decision import BRANCHES, WhichMethod, which_method
from adapters_lesson.history import RESULTS

TREE = json.loads(BRANCHES.read_text(encoding="utf-8"))
REASONS = [
    (question["key"], answer["to"], n, reason)
    for question in TREE["questions"]
    for answer in question["answers"]
    for n, reason in enumerate(answer["because"])
]
# Each sentence's numbers once more, in the words of the lessons' claims.
PROMPTS = '[100 * run["form"] for run in load_results("language")["prompts"]["{}"]["runs"]]'
PARTS = 'load_results("quantised")["parts"]'
STEP = 'load_results("quantised")["parts"]["memory/{}/lora"]["as it is"]["measured"]["{}"] / 1e6'
MERGED = 'load_results("quantised")["parts"]["merging/{}"]'
WRITING = 'load_results("serving")["writing"]["write"]["{}"]["ratio"][{}]'
MANY = 'load_results("serving")["many"]["32"]["{}"]["ratio"][0]'
BYTES = 'load_results("many_tasks")["size"]["tasks"]["16"]["{}"]["disk"] / 1e6'
EXPECTED = {
    ("touch", "prompting", 0): {
        "low": f"min({PROMPTS.format('three examples')})",
        "high": f"max({PROMPTS.format('three examples')})",
        "told": f"mean({PROMPTS.format('instruction')})",
        "tokens": 'mean(run["tokens_more"] for run in load_results("language")["prompts"]["three examples"]["runs"])',
    },
    ("touch", "data", 0): {
        "low": 'low(seeds("language", "as in the lesson", key="form"))',
        "high": 'high(seeds("language", "as in the lesson", key="form"))',
    },
    ("data", "prompting", 0): {
        "low": f"min({PROMPTS.format('instruction and eight examples')})",
        "high": f"max({PROMPTS.format('instruction and eight examples')})",
    },
    ("data", "memory", 0): {
        "few": 'average(seeds("lora", "amount", "r=8, 200 texts"))',
        "some": 'average(seeds("lora", "amount", "r=8, 600 texts"))',
        "all": 'average(seeds("lora", "scaling", "alpha / r, r=8"))',
    },
    ("memory", "tasks", 0): {
        "full": '12 * average(seeds("methods", "full fine-tuning", key="trainable")) / 1e8',
        "lora": '12 * average(seeds("methods", "LoRA r=8", key="trainable")) / 1e8',
    },
    ("memory", "place", 0): {
        "weights": STEP.format("float32", "weights"),
        "gradients": STEP.format("float32", "gradients"),
        "state": STEP.format("float32", "optimizer_state"),
        "activations": STEP.format("float32", "activations"),
    },
    ("memory", "four_bit", 0): {
        "nf4": 'load_results("quantised")["parts"]["memory/nf4/lora"]["blocks"] / 1e6',
        "fp32": 'load_results("quantised")["parts"]["memory/float32/lora"]["blocks"] / 1e6',
        "peak_nf4": STEP.format("nf4", "peak"),
        "peak_fp32": STEP.format("float32", "peak"),
    },
    ("memory", "four_bit", 1): {
        "form": "100 * mean(" + PARTS + '[f"training/nf4/lora/{seed}"]["form"] for seed in range(3))',
        "merged": "100 * " + MERGED.format("nf4/trained on nf4") + '["within"]["form"]',
    },
    ("tasks", "full", 0): {
        "full": 'average(seeds("methods", "full fine-tuning"))',
        "houlsby": 'average(seeds("methods", "Houlsby m=4"))',
        "lora": 'average(seeds("methods", "LoRA r=8"))',
    },
    ("tasks", "full", 1): {
        "full": 'average(seeds("film", "full fine-tuning"))',
        "lora": 'average(seeds("film", "LoRA r=8"))',
    },
    ("tasks", "place", 0): {"full": BYTES.format("full"), "adapters": BYTES.format("adapters")},
    ("place", "merged", 0): {
        "merged": WRITING.format("LoRA merged", 0),
        "low": WRITING.format("LoRA merged", 1),
        "high": WRITING.format("LoRA merged", 2),
        "beside": WRITING.format("LoRA beside, all linear", 0),
    },
    ("place", "merged", 1): {
        "fp32": "100 * " + MERGED.format("float32/trained on float32") + '["same_answers"]',
        "bf16": "100 * " + MERGED.format("bfloat16/trained on float32") + '["same_answers"]',
    },
    ("place", "beside", 1): {
        "peft": MANY.format("peft, adapter_names"),
        "ours": MANY.format("ours, mixed batch"),
        "products": MANY.format("batched products"),
    },
    ("place", "counts", 0): {
        "pfeiffer": WRITING.format("Pfeiffer's adapters, m = 32", 0),
        "houlsby": WRITING.format("Houlsby's adapters, m = 32", 0),
    },
    ("counts", "bottleneck", 0): {
        "stack": 'low(seeds("many_tasks", "fusion", "stack on the best member"))',
        "new": 'low(seeds("many_tasks", "fusion", "new adapter"))',
        "top": 'high(seeds("many_tasks", "fusion", "new adapter"))',
    },
    ("counts", "bottleneck", 1): {
        "few": 'average(seeds("methods", "Houlsby m=4", key="trainable_without_head")) / 100',
        "houlsby": 'average(seeds("methods", "Houlsby m=4"))',
        "many": 'average(seeds("methods", "LoRA r=8", key="trainable_without_head")) / 100',
        "lora": 'average(seeds("methods", "LoRA r=8"))',
    },
    ("counts", "bottleneck", 2): {
        "numbers": 'average(seeds("lora", "targets", "all linear, r=4", key="trainable_without_head")) / 100',
        "lora": 'average(seeds("lora", "targets", "all linear, r=4"))',
    },
    ("counts", "ia3", 0): {
        "numbers": 'average(seeds("lora", "relatives", "(IA)³", key="trainable_without_head")) / 100',
        "right": 'average(seeds("lora", "relatives", "(IA)³"))',
        "rate": 'load_results("lora")["relatives"]["rows"]["(IA)³"]["learning_rate"]',
    },
    ("counts", "prompts", 1): {
        "prompt": 'average(seeds("lora", "relatives", "prompt, 20 tokens"))',
        "prefix": 'average(seeds("lora", "relatives", "prefix, 20 tokens"))',
    },
    ("counts", "prompts", 2): {"head": 'average(seeds("methods", "head only"))'},
}  # fmt: skip


def reason_of(tree, key, to, n):
    (question,) = (one for one in tree["questions"] if one["key"] == key)
    (answer,) = (one for one in question["answers"] if one["to"] == to)
    return answer["because"][n]


@pytest.fixture(scope="module")
def made():
    return which_method()


def test_all_numbers_are_expected():
    measured = {
        where: set(reason["numbers"]) for *where, reason in REASONS if "numbers" in reason for where in [tuple(where)]
    }
    assert measured == {where: set(numbers) for where, numbers in EXPECTED.items()}


@pytest.mark.parametrize("where", EXPECTED, ids=str)
def test_every_number_is_what_the_results_say(made, where):
    names = evidence.names(evidence.Outputs([]))
    found = {key: eval(claim, names) for key, claim in EXPECTED[where].items()}
    asked, shown = reason_of(TREE, *where), reason_of(made, *where)
    assert shown["text"] == asked["text"].format(**found)
    lesson, file = re.fullmatch(r"lesson (\d\d), data/results/(\w+\.json)", shown["from"]).groups()
    assert (RESULTS / file).exists()
    assert list((BRANCHES.parents[2] / "notebooks" / "sources").glob(f"{lesson}_*.py"))


def test_another_result_is_another_sentence(monkeypatch, made):
    def doubled(part):
        if isinstance(part, dict):
            return {
                key: doubled(value) if key not in ("learning_rate", "seed") else value for key, value in part.items()
            }
        if isinstance(part, list):
            return [doubled(value) for value in part]
        return 2 * part if isinstance(part, (int, float)) else part

    load = decision.load_results
    monkeypatch.setattr(decision, "load_results", lambda name: doubled(load(name)))
    after = which_method()
    for where in EXPECTED:
        assert reason_of(after, *where) != reason_of(made, *where)


def test_every_source_is_in_the_bibliography_or_dated():
    known = (BRANCHES.parents[2] / "docs" / "bibliography.md").read_text(encoding="utf-8")
    for *_, reason in REASONS:
        if source := reason.get("source"):
            paper = re.match(r"(.* \d{4}), ", source)
            assert f"### {paper[1]}:" in known if paper else "read on " in source, source


# --- What is refused --------------------------------------------------------------------------------------------------


def broken(tree, tmp_path):
    file = tmp_path / "decision.json"
    file.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        which_method(file)
    return str(caught.value)


@pytest.fixture
def tree():
    return json.loads(BRANCHES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("because", [[], None])
def test_an_answer_without_support_is_refused(tree, tmp_path, because):
    tree["questions"][1]["answers"][0]["because"] = because
    said = broken(tree, tmp_path)
    assert "decision.json, 'data', 'About ten': nothing supports this" in said


@pytest.mark.parametrize("lacks", ["results", "lesson", "numbers"])
def test_a_reason_without_its_origin_is_refused(tree, tmp_path, lacks):
    del tree["questions"][1]["answers"][0]["because"][0][lacks]
    assert "needs a source, or results, numbers and a lesson" in broken(tree, tmp_path)


@pytest.mark.parametrize("source", ["", "  "])
def test_an_empty_source_is_none(tree, tmp_path, source):
    tree["questions"][1]["answers"][0]["because"] = [{"text": "It is known.", "source": source}]
    assert "needs a source" in broken(tree, tmp_path)


@pytest.mark.parametrize(
    "at", [["prompts", "nobody", "runs", "*", "form"], ["command"], ["prompts"], ["prompts", "ten*", "runs"]]
)
def test_a_number_that_no_result_has_is_refused(tree, tmp_path, at):
    tree["questions"][1]["answers"][0]["because"][0]["numbers"]["low"]["at"] = at
    assert f"'About ten': data/results/language.json has no number 'low' at {at}" in broken(tree, tmp_path)


@pytest.mark.parametrize(
    ("text", "odd"),
    [("Up to {high:.0f} %.", "low"), ("{low} to {high}, {mean:.1f} on average", "mean"), ("So.", "high, low")],
)
def test_a_sentence_and_its_numbers_have_to_fit(tree, tmp_path, text, odd):
    tree["questions"][1]["answers"][0]["because"][0]["text"] = text
    assert f"'About ten': {odd} is in the sentence or in numbers" in broken(tree, tmp_path)


@pytest.mark.parametrize("to", ["touch", "data", "magic"])  # back, in a circle, nowhere
def test_an_answer_that_leads_back_or_nowhere_is_refused(tree, tmp_path, to):
    tree["questions"][1]["answers"][0]["to"] = to
    assert f"'About ten': '{to}' is neither a later question nor a method" in broken(tree, tmp_path)


def test_what_no_answer_leads_to_is_refused(tree, tmp_path):
    tree["methods"]["magic"] = {"name": "Magic", "do": "Hope."}
    assert broken(tree, tmp_path) == "decision.json: no answer leads to magic"


# --- Without a widget -------------------------------------------------------------------------------------------------


def test_text_and_html_say_all_that_the_widget_says(made):
    bundle, _ = WhichMethod()._repr_mimebundle_()
    html = re.sub("<[^>]+>", "", bundle["text/html"]).replace("&#x27;", "'")
    said = [question["ask"] for question in made["questions"]]
    said += [words for method in made["methods"].values() for words in method.values()]
    for question in made["questions"]:
        for answer in question["answers"]:
            said += [
                answer["say"],
                *(words for reason in answer["because"] for words in (reason["text"], reason["from"])),
            ]
    assert len(said) > 80
    for words in said:
        assert words in bundle["text/plain"]
        assert words in html
    assert "Run this cell to move it." in html


def test_there_are_at_most_six_questions():
    assert len(TREE["questions"]) <= 6
