"""What the lessons, README and TEACHING claim, computed anew; and the command that does it (notebooks/claims.py)."""

import json
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
sys.path.insert(0, str(ROOT / "data"))

import build  # noqa: E402
import claims  # noqa: E402
import evidence  # noqa: E402
import rates  # noqa: E402

LESSONS = [path.stem[:2] for path in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py"))]
NOTHING = evidence.Outputs([])
GOOD, BAD = {0: 90.0, 1: 92.0, 2: 91.0}, {0: 80.0, 1: 83.0, 2: 81.0}


# --- The course -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*LESSONS, "README", "TEACHING", "paper"])
def test_every_sentence_that_compares_stands_on_what_holds(text):
    _, wrong = claims.look([text])
    assert not wrong, "\n".join(wrong)


def chosen_from(results, path=""):
    """Of everything in a file of results that was run with several rates: where, the chosen one, and all."""
    if isinstance(results, list):
        return
    runs = results.get("runs", [])
    if len(found := {run.get("learning_rate") for run in runs}) > 1:
        yield path, results.get("learning_rate"), sorted(found)
    for name, value in results.items():
        if isinstance(value, dict):
            yield from chosen_from(value, f"{path} / {name}")


def test_no_rate_was_chosen_at_the_edge_of_its_grid():
    rows = [
        row for path in sorted((ROOT / "data" / "results").glob("*.json"))
        for row in chosen_from(json.loads(path.read_text(encoding="utf-8")), path.name)
    ]  # fmt: skip
    assert len(rows) > 20
    at_the_edge = [f"{where}: {rate} of {grid}" for where, rate, grid in rows if not grid[0] < (rate or 0) < grid[-1]]
    assert not at_the_edge, "\n".join(at_the_edge)


@pytest.mark.parametrize("rate", [1e-3, 1e-2, None])
def test_a_rate_at_the_edge_or_none_would_be_found(rate):
    entry = {"learning_rate": rate, "runs": [{"learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)]}
    ((where, chosen, grid),) = chosen_from({"rows": {"LoRA": entry, "one": {"runs": [{"learning_rate": 1}]}}}, "x.json")
    assert where == "x.json / rows / LoRA"
    assert not grid[0] < (chosen or 0) < grid[-1]


# --- Which rate is chosen -------------------------------------------------------------------------------------------


def choose(scores, grid, seeds=(0, 1)):
    """The chosen rate, and the runs that were asked for; ``scores`` of a rate, or of (rate, seed), 0 for others."""
    asked = []

    def validation(rate, seed):
        asked.append((rate, seed))
        return scores.get((rate, seed), scores.get(rate, 0.0))

    return rates.chosen_rate(validation, grid, seeds), asked


def test_the_best_rate_inside_is_chosen_by_the_first_seed():
    best, asked = choose({1e-3: 0.7, 3e-3: 0.9, 1e-2: 0.8}, (1e-2, 1e-3, 3e-3))
    assert best == 3e-3
    assert {seed for _, seed in asked} == {0}


def test_the_grid_grows_upwards_until_the_best_lies_inside():
    best, asked = choose({1e-3: 0.7, 3e-3: 0.8, 1e-2: 0.9, 3e-2: 0.95, 1e-1: 0.6}, (1e-3, 3e-3))
    assert best == 3e-2
    assert max(rate for rate, _ in asked) == 1e-1


def test_the_grid_grows_downwards_too():
    best, asked = choose({1e-3: 0.7, 3e-4: 0.8, 1e-4: 0.6}, (1e-3, 3e-3))
    assert best == 3e-4
    assert min(rate for rate, _ in asked) == 1e-4


def test_a_grid_that_is_off_the_ladder_grows_to_the_next_step_of_it():
    best, asked = choose({5e-5: 0.9, 1e-4: 0.8}, (5e-5, 1e-4))
    assert best == 5e-5
    assert min(rate for rate, _ in asked) == 3e-5


def test_of_rates_that_tie_the_mean_over_all_seeds_decides():
    scores = {1e-3: 0.7, (3e-3, 0): 0.9, (3e-3, 1): 0.5, (1e-2, 0): 0.9, (1e-2, 1): 0.8, 3e-2: 0.1}
    best, asked = choose(scores, (1e-3, 3e-3, 1e-2, 3e-2))
    assert best == 1e-2
    assert (1e-3, 1) not in asked


def test_a_tie_at_the_edge_makes_the_grid_grow():
    scores = {1e-3: 0.7, (3e-3, 0): 0.9, (3e-3, 1): 0.5, (1e-2, 0): 0.9, (1e-2, 1): 0.8, 3e-2: 0.1}
    best, asked = choose(scores, (1e-3, 3e-3, 1e-2))
    assert best == 1e-2
    assert max(rate for rate, _ in asked) == 3e-2


def test_one_rate_is_no_choice():
    assert choose({}, (2e-4,)) == (2e-4, [])


# --- Verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "margin", "verdict"),
    [
        (GOOD, BAD, 0, "better"),
        (BAD, GOOD, 1, "worse"),
        (GOOD, BAD, 8, "as good"),  # 9.67 ± 1.43: above 8, and never below -8
        (GOOD, GOOD, 1, "as good"),
        ({0: 90, 1: 80}, {0: 85, 1: 86}, 2, "unclear"),
    ],
)
def test_each_comparison_has_one_of_the_verdicts(one, other, margin, verdict):
    claimed = {
        "better": evidence.better(one, other, margin),
        "as good": evidence.as_good(one, other, margin),
        "unclear": evidence.unclear(one, other, margin),
        "worse": evidence.better(other, one, margin),
    }
    true = {name for name, holds in claimed.items() if holds}
    assert verdict in true
    assert true <= ({"better", "as good"} if verdict in ("better", "as good") else {verdict})


def test_differences_are_those_of_the_same_seed():
    middle, half, count = evidence.difference({0: 1.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 7.0, 3: 0.0})
    assert (middle, count) == (1.5, 2)
    assert half == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_other_texts_widen_an_interval_that_knew_other_seeds_only():
    middle, half, count = evidence.difference({0: 50, 1: 50}, {0: 50, 1: 50}, texts=250)
    assert (middle, count) == (0, 2)
    assert half == pytest.approx(1.96 * 100 * (2 * 0.25 / 250) ** 0.5)  # 50 % with 250 texts, twice
    assert evidence.as_good({0: 50, 1: 50}, {0: 50, 1: 50}, 2)
    assert evidence.unclear({0: 50, 1: 50}, {0: 50, 1: 50}, 2, texts=250)
    assert evidence.difference({0: 100, 1: 100.00001}, {0: 100, 1: 100.00001}, texts=250)[1] < 1e-3


def test_the_bound_for_other_texts_is_above_a_bootstrap_over_seeds_and_texts():
    rows = evidence.load_results("controls")["rows"]
    kept = [
        {run["seed"]: [100 * int(hit) for hit in run["right"]] for run in row["runs"]
         if run["learning_rate"] == row["learning_rate"]}
        for row in (rows["Houlsby m=8"], rows["head only"])
    ]  # fmt: skip
    one, other = (np.array([hits[seed] for seed in sorted(hits)]) for hits in kept)  # (seeds, texts)
    chance, apart = np.random.default_rng(0), one - other
    draws = [
        apart[chance.integers(0, len(apart), len(apart))][:, chance.integers(0, apart.shape[1], apart.shape[1])].mean()
        for _ in range(1000)
    ]
    means = [{seed: float(np.mean(of)) for seed, of in hits.items()} for hits in kept]
    middle, half, _ = evidence.difference(*means, texts=apart.shape[1])
    low, high = np.percentile(draws, [2.5, 97.5])
    assert middle - half < low < high < middle + half
    assert (high - low) / 2 > 1.96 * apart.mean(0).std() / apart.shape[1] ** 0.5  # more than the texts alone


def results(monkeypatch, runs, **entry):
    monkeypatch.setattr(evidence, "load_results", lambda name: {"rows": {"row": {"runs": runs, **entry}}})


def test_the_runs_of_the_chosen_rate_are_taken_in_per_cent(monkeypatch):
    runs = [{"seed": s, "learning_rate": rate, "test": rate + s / 10} for rate in (0.1, 0.2) for s in (0, 1)]
    results(monkeypatch, runs, learning_rate=0.2)
    assert evidence.seeds("any", "row") == pytest.approx({0: 20, 1: 30})
    assert evidence.seeds("any", "row", learning_rate=0.1) == pytest.approx({0: 10, 1: 20})


def test_runs_that_are_not_one_for_each_seed_are_refused(monkeypatch):
    results(monkeypatch, [{"seed": 0, "test": 0.1}, {"seed": 0, "test": 0.2}])
    with pytest.raises(ValueError, match="any, row: 2 runs with 1 seeds fit"):
        evidence.seeds("any", "row")
    with pytest.raises(KeyError, match="other"):
        evidence.seeds("any", "other")


# --- Outputs --------------------------------------------------------------------------------------------------------


def test_the_nearest_output_above_answers_and_its_cell_is_told():
    outputs = evidence.Outputs(["loss 3.5", "loss −1,234.5 of 7", "nothing"])
    assert outputs.numbers(r"loss ([−\d.,]+) of (\d)") == (-1234.5, 7)
    assert outputs.cell == 1
    assert outputs.number(r"^loss ([\d.]+)$") == 3.5
    assert outputs.cell == 0
    assert outputs.said("nothing") and not outputs.said("something")
    with pytest.raises(ValueError, match=r"no output above matches gain"):
        outputs.number(r"gain (\d)")


# --- Marks ----------------------------------------------------------------------------------------------------------


def read(markdown):
    return list(claims.sentences(markdown, "here"))


def test_a_mark_belongs_to_the_sentence_before_it():
    found = read("Small. This is faster. <!-- claim: 1 < 2 --> <!-- rule --> That\nis slower.\n\nEnd.")
    assert [one.text for one in found] == ["Small.", "This is faster.", "That is slower.", "End."]
    assert [one.marks for one in found] == [(), ("claim: 1 < 2", "rule"), (), ()]
    assert [one.compares for one in found] == [False, True, True, False]


def test_items_and_rows_are_sentences_of_their_own_and_long_marks_are_one():
    found = read("- more here\n  <!-- claim:\n  1 < 2 -->\n- and here\n| a row |")
    assert [(one.text, one.marks) for one in found] == [
        ("- more here", ("claim: 1 < 2",)), ("- and here", ()), ("| a row |", ()),
    ]  # fmt: skip


def test_questions_hints_code_and_formulas_claim_nothing():
    text = (
        "Which is better?\n\n<details><summary>Hint 1</summary>\n\nIt is more.\n</details>\n\n```\nmore\n```\n$$less$$"
    )
    assert not any(one.compares for one in read(text))
    assert any(one.compares for one in read("<details><summary>And this?</summary>\n\nIt is more.\n</details>"))


@pytest.mark.parametrize(
    ("mark", "holds", "found"),
    [
        ("claim: 1 + 1 < 3", True, "2"),
        ("claim: 3 < 2", False, ""),
        ("claim: 0 < mean([4, 5]) < 4", False, "4.5"),
        ("claim: better({0: 2, 1: 3}, {0: 1, 1: 2.1})", True, "+0.95 ± 0.64 points, 2 seeds, margin 0: better"),
        ("claim: out(r'loss (.+)') > 3", True, "3.5 (cell 0)"),
        ("claim: out(r'gain (.+)') > 3", False, "ValueError: no output above matches gain (.+)"),
        ("claim: betterr(1, 2)", False, "NameError: name 'betterr' is not defined"),
        ("claim: (", False, "SyntaxError: '(' was never closed (<string>, line 1)"),
        ("rule", True, "rule"),
        ("source: Houlsby et al. 2019, table 1", True, "source"),
        ("source:", False, "source"),
        ("clam: 1 < 2", False, "a mark is a claim, a rule or a source, not clam"),
    ],
)
def test_a_mark_holds_or_says_what_was_found(mark, holds, found):
    told, text = claims.judged(mark, evidence.Outputs(["loss 3.5"]))
    assert (told, text) == (holds, found)
    assert "\n" not in text


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one text, which the test writes."""
    (tmp_path / "notebooks" / "sources").mkdir(parents=True)
    (tmp_path / "adapters_lesson" / "course").mkdir(parents=True)
    (tmp_path / "adapters_lesson" / "course" / "decision.json").write_text('{"questions": []}')
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "TEXTS", ("README.md",))
    return tmp_path / "README.md"


def test_a_false_claim_an_unmarked_sentence_and_a_typo_are_a_line_each(course, monkeypatch, capsys):
    course.write_text(
        "A is better. <!-- claim: 1 > 2 -->\n\nB is worse. C is more. <!-- claim: unknown(1) --> D is. <!-- rule -->"
    )
    count, wrong = claims.look([])
    assert count == {"claim": 2, "rule": 1}
    assert wrong == [
        "README.md: does not hold, : A is better. <!-- claim: 1 > 2 -->",
        "README.md: compares without a mark: B is worse.",
        "README.md: does not hold, NameError: name 'unknown' is not defined: C is more. <!-- claim: unknown(1) -->",
    ]
    monkeypatch.setattr(sys, "argv", ["claims.py"])
    assert claims.main() == 1
    assert capsys.readouterr().out.endswith("\n".join([*wrong, "2 claims, 1 rules"]) + "\n")


def test_the_command_shows_what_was_found_and_ends_well(course, monkeypatch, capsys):
    course.write_text("A is better. <!-- claim: 1 + 1 > 1 -->")
    monkeypatch.setattr(sys, "argv", ["claims.py", "README"])
    assert claims.main() == 0
    assert capsys.readouterr().out.startswith("✔ README.md: A is better.\n    claim: 1 + 1 > 1\n    2\n")


def test_a_claim_of_a_lesson_reads_only_the_outputs_above_it(course):
    source = course.parent / "notebooks" / "sources" / "03_x.py"
    claim = "# A is better. <!-- claim: out(r'loss (.+)') > 3 -->"
    source.write_text(f"# %% [markdown]\n# # T\n\n# %% [markdown]\n{claim}\n\n# %%\nf()\n\n# %% [markdown]\n{claim}\n")
    notebook = build.build(source, "solution")
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="loss 3.5\n")]
    (course.parent / "notebooks" / "solutions").mkdir()
    nbformat.write(notebook, course.parent / "notebooks" / "solutions" / "03_x.ipynb")
    count, wrong = claims.look(["03"])
    assert count == {"claim": 2}
    assert [line.partition(":")[0] for line in wrong] == ["03, cell 1"]


def test_a_section_on_a_lesson_reads_what_this_lesson_prints(course, monkeypatch):
    (course.parent / "notebooks" / "sources" / "03_x.py").write_text("")
    monkeypatch.setattr(claims, "outputs_of", lambda source: [f"loss {int(source.stem[:2])}"])
    claim = "It is better. <!-- claim: out(r'loss (.+)') == 3 -->\n\n"
    course.write_text(f"# T\n\n{claim}### 03 · X\n\n{claim}### 04 · Y\n\n{claim}## End\n\n{claim}")
    assert [found for _, found in claims.of_text(course) if found] == [course.parent / "notebooks/sources/03_x.py"] * 2
    assert len(claims.look(["README"])[1]) == 3


def test_ratios_are_those_of_the_benchmarks_that_fit(tmp_path, monkeypatch):
    point = {"what": "training step", "a": "ours", "b": "full", "batch": 32}
    (tmp_path / "benchmark").mkdir()
    for name, ratio in (("amd", 0.5), ("xeon", 0.7)):
        rows = [{**point, "length": n, "threads": 1, "ratio": ratio + n / 1000} for n in (128, 32)]
        (tmp_path / "benchmark" / f"{name}.json").write_text(json.dumps({"comparisons": rows}))
    monkeypatch.setattr("adapters_lesson.history.RESULTS", tmp_path)
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    assert evidence.ratios("ours", "full") == [0.532, 0.628, 0.732, 0.828]
    assert evidence.ratios("ours", "full", processor="x", length=32) == [0.732]
    with pytest.raises(ValueError, match="no benchmark has ours / lora, training step"):
        evidence.ratios("ours", "lora")


def test_a_question_of_a_quiz_has_its_marks_in_a_field(tmp_path):
    options = [{"text": "the larger", "right": True, "reason": "It is more."}, {"text": "less", "reason": "It is not."}]
    path = tmp_path / "03.json"
    path.write_text(json.dumps([{"text": "Which?", "options": options, "claim": ["claim: 2 > 1"]}]))
    said = list(claims.of_quiz(path))
    assert [one.text for one in said] == ["the larger", "It is more.", "It is not."]
    assert {one.marks for one in said} == {("claim: 2 > 1",)}


@pytest.mark.parametrize("name", claims.TEXTS)
def test_no_mark_begins_a_line_where_markdown_would_end_the_paragraph(name):
    assert not [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line.lstrip()[:4] == "<!--"]


@pytest.mark.parametrize("edition", ["learner", "solution"])
def test_no_edition_shows_a_mark(tmp_path, edition):
    source = tmp_path / "03_x.py"
    source.write_text("# %% [markdown]\n# # T\n\n# %% [markdown]\n# A is better.\n# <!-- claim:\n# 2 > 1 --> B is.\n")
    assert next(one.marks for one in claims.of_lesson(source)) == ("claim: 2 > 1",)
    assert build.build(source, edition).cells[1].source == "A is better. B is."
    for path in (ROOT / "notebooks").glob("**/[0-9]*.ipynb"):
        assert "<!-- " not in path.read_text(encoding="utf-8"), path.name
