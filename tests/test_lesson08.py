"""The claims of lesson 08, held against the committed results and the outputs of the executed notebook."""

import re
from statistics import mean

import pytest
from test_results import output

from adapters_lesson.history import load_results

LESSON = "08_many_tasks_one_model"


@pytest.fixture(scope="module")
def text():
    return output(LESSON)


def number(written):
    return float(written.replace(",", ""))


def rows(pattern, text, count):
    found = re.findall(pattern, text, re.MULTILINE)
    assert len(found) == count, pattern
    return found


def test_the_formula_is_what_memory_and_files_take(text):
    ((copies, copies_on_disk),) = rows(r"^full copies +([\d,]+) +([\d,]+)$", text, 1)
    ((shared, in_memory, on_disk),) = rows(r"^one base, adapters +([\d,]+) +([\d,]+) +([\d,]+)$", text, 1)
    assert shared == in_memory
    for predicted, files in ((copies, copies_on_disk), (shared, on_disk)):
        assert 1 <= number(files) / number(predicted) < 1.002  # larger by a little
    shares = {int(n): float(share) for n, share in rows(r"^ +(\d+) +[\d.,]+ MB +[\d.,]+ MB +([\d.]+) %$", text, 5)}
    assert shares[1] > 100 > shares[2] > shares[8] > shares[100] > shares[1000]
    ((whole, own),) = rows(r"a further task: ([\d.]+) MB or ([\d.]+) MB", text, 1)
    assert float(whole) > 200 * float(own)


def test_no_task_changes_an_earlier_one(text):
    accuracy = dict(rows(r"^(\w+) +\d+ +[\d,]+ +([\d.]+) % +True$", text, 3))
    assert float(accuracy["sentiment"]) >= 95
    assert float(accuracy["film"]) >= 70
    assert float(accuracy["aspect"]) >= 99
    assert len(rows(r"loaded, its answers are the same, bit for bit: True", text, 3)) == 3
    assert rows(r"^(\w+): answers as when just trained: True", text, 2) == ["sentiment", "film"]


def test_every_load_that_should_be_refused_is(text):
    assert len(rows(r"the model is as it was: True", text, 5)) == 5
    for message in (
        "another base model, of the same shape but with other weights",
        "layers=3, and this one has 2",
        "cannot name an adapter",
        "its checksum is wrong",
        "is no safetensors file, or damaged",
    ):
        assert message in text


def test_a_switch_is_quick_and_an_adapters_file_is_not_quicker_than_a_models(text):
    ms = {label: float(x) for label, x in rows(r"^(a switch|an adapter's file|a model's file) +([\d.]+) ms", text, 3)}
    assert ms["a switch"] < 1
    assert ms["an adapter's file"] > ms["a model's file"] > 10 * ms["a switch"]


def test_the_learners_pieces_serve_the_bank_as_its_own_do(text):
    assert rows(r"^switched to (\w+) +its own answers, bit for bit: True$", text, 4)
    assert len(re.findall(r"^row +\d+ to \w+ +answers \w+", text, re.M)) > 8
    (apart,) = rows(r"^largest difference from the rows one by one: (\S+)$", text, 1)
    assert float(apart) < 1e-4
    (apart,) = rows(r"^your mixture and the bank's differ by (\S+) at most$", text, 1)
    assert float(apart) < 1e-4


def test_each_old_task_is_good_at_its_own_texts_and_the_fusion_at_both(text):
    found = {label: (float(a), float(b)) for label, a, b in rows(r"^(\w[\w ,]+?) +([\d.]+) % +([\d.]+) %$", text, 5)}
    sentiment, film, new = (found[k] for k in ("sentiment alone", "film alone", "a new adapter, 400 examples"))
    average, fused = found["mean of both, untrained"], found["fused, 400 examples"]
    assert sentiment[0] > film[0] + 20
    assert film[1] > sentiment[1] + 5
    assert sentiment[0] > average[0] > film[0]
    assert average[0] < sentiment[0] - 10
    assert fused[0] > new[0] + 10
    assert fused[0] > average[0] + 10
    assert abs(fused[1] - film[1]) < 6
    assert abs(new[1] - film[1]) < 6


def test_the_mean_of_two_for_the_same_task_is_as_good_as_they_are(text):
    accuracy = {name: float(x) for name, x in rows(r"^(films?2?) +accuracy ([\d.]+) %, loss", text, 3)}
    assert accuracy["films"] > min(accuracy["film"], accuracy["film2"]) - 1


def test_the_inspector_names_the_planted_fault_and_mending_it_helps(text):
    stuck, mended = rows(r"loss on the same 16 texts from ([\d.]+) to ([\d.]+)", text, 2)
    assert stuck[0] == stuck[1] == mended[0]
    assert float(mended[1]) < 0.5 * float(mended[0])
    ((what, trainable, optimiser),) = rows(
        r"^(adapter) +late +[\d,]+ +yes +(\w+) +(\w+) .*not in the optimiser", text, 1
    )
    assert (what, trainable, optimiser) == ("adapter", "yes", "no")


def test_adapterhub_computes_the_same():
    result = load_results("adapterhub")
    assert result["rows"].keys() == {"houlsby", "pfeiffer", "parallel"}
    for row in result["rows"].values():
        assert row["largest_difference"] < 1e-4
        assert row["largest_difference_after_coming_back"] < 1e-4
        assert row["largest_change_by_the_adapters"] > 0.1
        assert row["answers_that_differ"] == 0


def test_an_adapter_in_adapterhubs_files_is_read_again_as_it_was(text):
    assert "read again, the features are the same, bit for bit: True" in text
    assert "24 tensors" in text


def test_the_fusion_leans_to_sentiment_on_its_own_texts(text):
    places = rows(r"^(?:attention|FFN) \d +([\d.]+) +([\d.]+)$", text, 6)
    assert all(float(on_aspects) > float(on_reviews) for on_aspects, on_reviews in places)
    assert max(float(on_aspects) for on_aspects, _ in places) > 0.6


def test_mixing_pays_the_more_tasks_share_the_batch():
    results = load_results("many_tasks")
    tasks = results["timing"]["tasks"]
    assert list(tasks) == ["2", "4", "8", "16"]
    switched, single, full = (
        [tasks[n][way]["ratio"] for n in tasks] for way in ("switched by group", "row by row", "full models")
    )
    assert switched[0] < 1.1  # with large groups there is little to win
    for ratios in (switched, full):
        assert ratios == sorted(ratios)
        assert ratios[-1] > 1.1
    assert all(1.5 < ratio < 3 for ratio in single)
    bank, copies = (results["size"]["tasks"]["16"][kind]["parameters"] for kind in ("adapters", "full"))
    assert copies > 10 * bank


def of_fusion(label):
    """Test accuracy in per cent by seed, at the rate that was chosen."""
    row = load_results("many_tasks")["fusion"]["rows"][label]
    runs = [run for run in row["runs"] if run["learning_rate"] == row["learning_rate"]]
    assert sorted(run["seed"] for run in runs) == [0, 1, 2]
    return {run["seed"]: 100 * run["test"] for run in runs}


def test_what_builds_on_the_right_member_beats_a_new_adapter_and_the_stack_wins():
    best = of_fusion("aspect_sentiment, new head")
    stack, fused, new = (of_fusion(label) for label in ("stack on the best member", "fusion", "new adapter"))
    assert load_results("many_tasks")["fusion"]["stacked_on"] == "aspect_sentiment"
    assert min(best.values()) > 95
    assert min(stack.values()) > max(*best.values(), *fused.values())
    for way in (best, stack, fused, of_fusion("average")):
        assert all(way[seed] > new[seed] for seed in new)


def test_the_fusion_with_one_seed_settles_on_another_member_and_its_weights_do_not_tell():
    fusion = load_results("many_tasks")["fusion"]
    row, accuracy = fusion["rows"]["fusion"], of_fusion("fusion")
    weights = {
        run["seed"]: [mean(column) for column in zip(*run["attention"], strict=True)]
        for run in row["runs"]
        if run["learning_rate"] == row["learning_rate"]
    }
    most = {seed: fusion["members"][means.index(max(means))] for seed, means in weights.items()}
    assert most == {0: "aspect_agreement", 1: "aspect_sentiment", 2: "aspect_agreement"}
    assert abs(accuracy[0] - of_fusion("aspect_agreement, new head")[0]) < 2
    assert min(accuracy[1], accuracy[2]) > 95
