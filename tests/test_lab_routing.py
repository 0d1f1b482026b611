"""The routing explorer: what is drawn is what the bank answered, and the knobs decide who answers."""

import re

import artists
import pytest
import torch
from models import randomise, slots

from adapters_lesson import AdapterConfig, SmallTransformer, load_tokenizer
from adapters_lesson.bank import AdapterBank
from adapters_lesson.course.explorers.explore_routing import (
    MAX_ROWS,
    MixedBatch,
    adapter_places,
    answer_mixed,
    draw_routing,
    routing,
    routing_explorer,
)

TEXTS = ["The pool was superb.", "A dull film, and far too long.", "lamp: The lamp was awful.", "Well."]
TASKS = {
    "two": (AdapterConfig(4, train_layer_norms=True), ["bad", "good"]),
    "three": (AdapterConfig(3, placement="pfeiffer"), 3),
    "four": (AdapterConfig(2, placement="parallel", layers=(1,)), ["a", "b", "c", "d"]),
}


@pytest.fixture
def bank():
    """Random adapters on two layers of MiniLM."""
    torch.manual_seed(0)
    made = AdapterBank(SmallTransformer.from_minilm(2))
    for name, (config, labels) in TASKS.items():
        made.add(name, config, labels)
    for slot in slots(made):
        randomise(slot, std=0.1)
    randomise(made.heads, std=0.5)
    return made


def by_hand(bank, text, name):
    """The label and its probability when ``text`` stands alone and the bank is switched."""
    bank.switch(name)
    ids = torch.tensor([load_tokenizer()(text)["input_ids"]])
    with torch.no_grad():
        probability, label = bank.eval()(ids, torch.ones_like(ids)).softmax(-1).max(-1)
    return bank.labels[name][label], probability.item()


def test_the_answers_are_those_of_each_task(bank):
    adapters = ["three", "two", None, "four"]
    batch = answer_mixed(bank, TEXTS, adapters)
    assert batch.texts == TEXTS and batch.adapters == adapters
    assert batch.labels == {"two": 2, "three": 3, "four": 4}
    assert batch.answers[2] is None
    for text, name, answer in zip(TEXTS, adapters, batch.answers, strict=True):
        if name is not None:
            assert answer == (by_hand(bank, text, name)[0], pytest.approx(by_hand(bank, text, name)[1], abs=1e-4))
    assert 0 < batch.difference < 1e-4


def test_the_difference_is_found_if_there_is_one(bank, monkeypatch):
    whole = AdapterBank.features

    def wrong(self, ids, mask, adapters):
        return whole(self, ids, mask, adapters) + 0.25 * (len(ids) > 1)

    adapters = [None, "two", "two", None]
    monkeypatch.setattr(AdapterBank, "features", wrong)
    assert answer_mixed(bank, TEXTS, adapters).difference > 0.2


def test_the_bank_stays_as_it_was(bank):
    bank.switch("three")
    bank.train()
    modes = [m.training for m in bank.modules()]
    draw_routing(bank, TEXTS, ["two", None, "four", "two"])
    assert bank.active == "three"
    assert [m.training for m in bank.modules()] == modes
    assert all(slot.active in ("three", None) for slot in slots(bank))


def test_where_the_adapters_are(bank):
    places = adapter_places(bank)
    both = {"two": ["attention", "FFN"], "three": ["FFN"]}
    assert [{k: sorted(v) for k, v in block.items()} for block in places] == [
        {k: sorted(v) for k, v in both.items()},
        {**{k: sorted(v) for k, v in both.items()}, "four": ["beside"]},
    ]


# --- The picture ----------------------------------------------------------------------------------------------------


def colour(shape, of):
    return re.search(rf"{of}: (#\w+)", shape.get("style"))[1]


def parts(drawing):
    """Colour of every adapter's box, of every way, and all texts."""
    boxes = [colour(box, "fill") for box in drawing.root.iter("rect") if "its adapter in" in "".join(box.itertext())]
    return boxes, [colour(way, "stroke") for way in drawing.root.iter("polyline")], artists.texts(drawing)


def test_the_picture_shows_the_groups(bank):
    picture = draw_routing(bank, TEXTS, ["two", "four", "two", None])
    boxes, ways, texts = parts(picture.figure)
    assert len(ways) == 4 and len(set(ways)) == 3
    assert len(boxes) == 4 + 1  # twice in both blocks for "two", once in one block for "four"
    assert set(boxes) < set(ways)
    assert {"two\n2 labels", "four\n4 labels", "no task", "no answer"} <= set(texts)
    assert not any(text.startswith("three") for text in texts)
    answers = answer_mixed(bank, TEXTS, ["two", "four", "two", None]).answers
    for answer in answers[:3]:
        assert f"{answer[0]}\n{answer[1]:.2f}" in texts
    assert any(text.startswith("1 pass instead of 4; largest difference from row by row: ") for text in texts)
    label, probability = answers[0]
    assert picture.alt.startswith(f"Row 1 to two: {label}, {probability:.2f}; row 2 to four: ")
    assert (
        "row 4 to no task. One pass through the base model, instead of 4 row by row or 3 task by task." in picture.alt
    )


def test_a_task_keeps_its_colour(bank):
    alone = parts(draw_routing(bank, TEXTS[:1], ["four"]).figure)[1]
    last = parts(draw_routing(bank, TEXTS, ["two", "three", None, "four"]).figure)[1]
    assert alone[0] in last and len(set(last)) == 4


@pytest.mark.parametrize(("blocks", "rows", "tasks"), [(1, 1, 1), (4, 2, 9), (12, MAX_ROWS, 9)])
def test_all_pictures_have_the_same_size(blocks, rows, tasks):
    names = [f"a_rather_long_name_{i}" for i in range(tasks)]
    batch = MixedBatch(
        texts=("tedious " * 40,) * rows,
        adapters=tuple(None if i == 3 else names[i % tasks] for i in range(rows)),
        answers=tuple(None if i == 3 else ("a_rather_long_label", 0.5) for i in range(rows)),
        difference=0.0,
        labels=dict.fromkeys(names, 2),
        places=[{name: ["attention", "FFN"] for name in names}] * blocks,
    )
    figure = routing(batch)
    assert artists.size(figure) == "0 0 900 430"
    texts = parts(figure)[2]
    assert "a_rather_lon…\n2 labels" in texts and "a_rather_lon…\n0.50" in texts
    assert any(text.endswith("row by row: 0") for text in texts)


@pytest.mark.parametrize("texts", [[], ["x"] * (MAX_ROWS + 1)])
def test_no_texts_and_too_many(bank, texts):
    with pytest.raises(ValueError, match=rf"room for 1 to 8 texts, not {len(texts)}"):
        draw_routing(bank, texts, ["two"] * len(texts))


# --- The explorer ---------------------------------------------------------------------------------------------------


def tasks_of(explorer):
    return [knob.value for knob in explorer.knobs.values()]


def buttons_of(explorer):
    return {button.description: button for button in explorer.children[3].children}


def press(explorer, label):
    buttons_of(explorer)[label].click()


def test_the_rows_knobs_decide_who_answers(bank):
    explorer = routing_explorer(bank, TEXTS)
    assert explorer.error is None
    assert [knob.description for knob in explorer.knobs.values()] == ["row 1", "row 2", "row 3", "row 4"]
    assert tasks_of(explorer) == ["two", "three", "four", "two"]
    assert explorer.picture.alt == draw_routing(bank, TEXTS, ["two", "three", "four", "two"]).alt
    explorer.knobs["row_2"].value = "four"
    explorer.knobs["row_1"].value = ""
    assert explorer.error is None
    assert explorer.picture.alt == draw_routing(bank, TEXTS, [None, "four", "four", "two"]).alt
    assert explorer.picture.alt.startswith("Row 1 to no task; row 2 to four: ")
    explorer.reset_button.click()
    assert tasks_of(explorer) == ["two", "three", "four", "two"]
    assert explorer.picture.alt.startswith("Row 1 to two: ")


def test_the_buttons_choose_for_all_rows(bank):
    explorer = routing_explorer(bank, TEXTS)
    assert list(buttons_of(explorer)) == [
        "All to no task", "All to two", "All to three", "All to four", "Shuffle",
    ]  # fmt: skip
    press(explorer, "All to three")
    assert tasks_of(explorer) == ["three"] * 4
    assert "or 1 task by task" in explorer.picture.alt
    press(explorer, "All to no task")
    assert tasks_of(explorer) == [""] * 4
    assert "row 4 to no task" in explorer.picture.alt
    seen = set()
    for _ in range(20):
        press(explorer, "Shuffle")
        assert explorer.error is None
        seen.add(tuple(tasks_of(explorer)))
    assert len(seen) > 10
    assert {value for chosen in seen for value in chosen} == {"", *TASKS}


def test_a_task_that_was_removed_meanwhile_is_an_error_that_is_shown(bank):
    explorer = routing_explorer(bank, TEXTS)
    bank.remove("two")
    explorer.knobs["row_2"].value = "four"
    assert isinstance(explorer.error, ValueError)
    assert "the bank has no task called &#x27;two&#x27;" in explorer.status.value
    press(explorer, "All to four")
    assert explorer.error is None


def test_the_picture_follows_what_the_bank_has_learnt(bank):
    explorer = routing_explorer(bank, TEXTS)
    before = explorer.picture.alt
    randomise(bank.heads["two"], std=2.0)
    explorer.refresh()
    assert explorer.picture.alt != before


def test_rows_are_computed_alone_once_until_the_weights_change(bank, monkeypatch):
    explorer = routing_explorer(bank, TEXTS)
    alone, features = [], bank.features

    def spy(ids, mask, adapters):
        alone.extend(adapters if len(ids) == 1 else [])
        return features(ids, mask, adapters)

    monkeypatch.setattr(bank, "features", spy)
    explorer.knobs["row_1"].value = ""
    assert alone == [None]
    explorer.refresh()
    assert alone == [None]
    explorer.reset()
    assert alone == [None]  # the start was computed when the explorer was made
    randomise(bank.heads["two"], std=2.0)
    explorer.refresh()
    assert len(alone) == 1 + len(TEXTS)


def test_a_bank_without_texts(bank):
    with pytest.raises(ValueError, match="give a bank with at least one task, and texts"):
        routing_explorer(bank, [])


def test_a_bank_without_tasks():
    with pytest.raises(ValueError, match="a bank with at least one task"):
        routing_explorer(AdapterBank(SmallTransformer.from_minilm(1)), TEXTS)
