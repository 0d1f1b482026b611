"""The microscope on a language model that writes: its columns, what is switched off, Stop, and no trace left."""

import asyncio
import json

import models
import pytest
import torch

from adapters_lesson import AdapterConfig, insert_adapters, remove_adapters
from adapters_lesson.course.language.writing_microscope import WritingMicroscope
from adapters_lesson.course.microscope.lens import Lens

END = 1


class Words:
    """A tokenizer to which every character is a token, with two before the question."""

    eos_token_id = END

    def apply_chat_template(self, asked, **_):
        return "> " + asked[0]["content"]

    def __call__(self, text, **_):
        return {"input_ids": torch.tensor([[3 + ord(letter) % 7 for letter in text]])}

    def decode(self, ids):
        return "".join(f"w{i}\n" if i % 2 else f" w{i}" for i in ids)


def adapted(placement="pfeiffer", **config):
    model = models.make("llama_head").eval()
    insert_adapters(model, AdapterConfig(4, placement=placement, init="bert", init_std=0.8, **config))
    return model


@pytest.fixture
def scope():
    made = WritingMicroscope(adapted(), Words(), "why", of="three adapters", max_tokens=6)
    made.sent = []
    made.send = made.sent.append
    return made


def all_ids(scope):
    return torch.cat([scope.prompt, torch.tensor([scope.ids[:-1]])], 1)


def write(scope, question="how", stop_after=None):
    """What the page hears; Stop after so many tokens."""

    async def heard():
        scope._told(None, {"ask": question, "run": 3}, None)
        while not scope.answering.done():
            await asyncio.sleep(0)
            if stop_after is not None and sum("column" in one for one in scope.sent) == stop_after:
                scope._told(None, {"stop": True}, None)

    scope.sent.clear()
    asyncio.run(heard())
    return list(scope.sent)


@torch.no_grad()
def test_it_writes_what_the_model_writes(scope):
    ids = scope.prompt
    out = scope.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=END,
        pad_token_id=0,
    )  # fmt: skip
    assert scope.ids == out[0, ids.shape[1] :].tolist()
    assert scope.now["tokens"] == ["the question", *(Words().decode([i]) for i in scope.ids)]
    likely = scope.model(all_ids(scope)).logits[0, -len(scope.ids) :].softmax(-1)
    for place, one in enumerate(scope.now["places"]):
        assert one["labels"][0] == Words().decode([scope.ids[place]])
        best = likely[place].topk(4).values
        assert one["before"][:4] == pytest.approx(best.tolist(), rel=2e-2)
        assert one["after"] == one["before"]


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_a_column_has_the_pushes_on_the_position_that_chose_the_token(placement):
    scope = WritingMicroscope(adapted(placement), Words(), "why", max_tokens=6)
    ids = all_ids(scope)
    seen = Lens(scope.model).look(ids, torch.ones_like(ids))
    before = scope.prompt.shape[1] - 1
    push = torch.tensor(scope.now["push"])
    assert push.shape == (len(seen.units), 7)
    assert torch.allclose(push[:, 1:], seen.push[0, :, before:], rtol=2e-2)
    assert torch.allclose(push[:, 0], seen.push[0, :, :before].mean(-1), rtol=2e-2)
    scope.sent = []
    scope.send = scope.sent.append
    columns = [one["column"] for one in write(scope, "why") if "column" in one]
    for name in ("push", "turn"):
        grown = torch.tensor([one[name] for one in columns]).T
        assert torch.allclose(grown, torch.tensor(scope.now[name])[:, 1:], rtol=2e-2, atol=1e-3), name


@torch.no_grad()
def test_what_is_off_is_off_at_its_position_and_changes_what_comes_later(scope):
    on = scope.now
    scope.off = [[1, 3]]
    before = scope.prompt.shape[1] - 1
    ids = all_ids(scope)
    spot = Lens(scope.model).spots[1].module
    update = spot.update

    def without(h):
        changed = update(h).clone()
        changed[:, before + 2] = 0
        return changed

    spot.update = without
    likely = scope.model(ids).logits[0, before:].softmax(-1)
    del spot.update
    for place, one in enumerate(scope.now["places"]):
        assert one["after"][0] == pytest.approx(likely[place, scope.ids[place]].item(), rel=2e-2)
        assert (one["after"] == one["before"]) == (place < 2)
    scope.off = [[r, t] for r in range(3) for t in range(7)]
    bare = models.make("llama_head").eval()(ids).logits[0, before:].softmax(-1)
    assert [one["after"][0] for one in scope.now["places"]] == pytest.approx(
        bare[range(6), scope.ids].tolist(), rel=2e-2
    )
    scope.off = []
    assert scope.now == on


def test_in_a_notebook_a_switch_is_at_once_and_what_the_page_sends_is_answered_together(scope):
    every = [[r, t] for r in range(3) for t in range(7)]

    async def cell():
        scope.off = every
        waiting = [one["after"] == one["before"] for one in scope.now["places"]]
        places = scope.switch(every)
        return waiting, [one["after"] == one["before"] for one in places], scope.switch([])

    waiting, switched, back = asyncio.run(cell())
    assert all(waiting)
    assert not any(switched)
    assert back == scope.now["places"]
    assert all(one["after"] == one["before"] for one in back)


def test_off_can_be_in_a_random_direction_as_long_as_before(scope):
    scope.off = [[r, t] for r in range(3) for t in range(7)]
    left_out = scope.now
    scope.astray = True
    assert scope.now["places"] != left_out["places"]
    ids, none = all_ids(scope), torch.zeros(1, 3, len(all_ids(scope)[0]), dtype=torch.bool)
    state = torch.get_rng_state()
    lens = Lens(scope.model)
    hooked = []
    for block in lens.blocks:
        block.register_forward_hook(
            lambda m, args, out: hooked.append((out[0] if isinstance(out, tuple) else out).clone())
        )
    seen = lens.look(ids, torch.ones_like(ids), none, True)
    assert torch.equal(torch.get_rng_state(), state)
    again = lens.look(ids, torch.ones_like(ids), none, True)
    assert torch.equal(seen.probabilities, again.probabilities)
    bare = lens.look(ids, torch.ones_like(ids), none)
    with torch.no_grad():
        update = lens.spots[0].module.update(hooked[-3])
    assert (hooked[0] - hooked[-3]).norm(dim=-1) == pytest.approx(update.norm(dim=-1), rel=1e-4)
    assert torch.cosine_similarity(hooked[0] - hooked[-3], update, dim=-1).abs().max() < 0.99
    assert not torch.allclose(seen.probabilities, bare.probabilities, atol=1e-3)


def test_it_grows_token_by_token_and_stops(scope):
    sent = write(scope)
    assert sent[0] == {"run": 3, "busy": True, "text": ""}
    assert sent[-1] == {"run": 3, "busy": False}
    columns = [one for one in sent if "column" in one]
    assert [one["token"] for one in columns] == scope.now["tokens"][1:]
    assert [one["place"] for one in columns] == scope.now["places"]
    assert scope.text == scope.question == "how"
    assert "wrote 6 tokens, cut off there." in scope.now["words"]
    stopped = write(scope, "who", stop_after=2)
    assert sum("column" in one for one in stopped) == 2
    assert len(scope.now["tokens"]) == 3
    assert "wrote 2 tokens, and was stopped." in scope.now["words"]
    kept = scope.now
    write(scope, "a question that is longer than a piece", stop_after=0)
    assert scope.now == kept
    assert scope.text == "who"


def test_an_answer_may_end_by_itself(scope):
    scope.model.get_output_embeddings().weight.data.zero_()  # equal logits: token 0 wins
    scope.tokenizer.eos_token_id = 0
    write(scope)
    assert scope.ids == [0]
    assert "it wrote 1 tokens. " in scope.now["words"]


def test_a_bad_question_is_refused_and_the_picture_stays(scope):
    kept = scope.now
    for question in (" ", "long " * 60):
        assert write(scope, question)[-1] == {"run": 3, "busy": False}
        assert "ask a question of at most 200 tokens" in scope.error
    assert scope.now == kept
    write(scope)
    assert scope.error == ""
    remove_adapters(scope.model)
    write(scope)
    assert "no adapters work in this model" in scope.error
    insert_adapters(scope.model, AdapterConfig(4))
    scope.off = [[0, 0]]  # others, and untrained
    assert scope.error == ""
    assert max(map(max, scope.now["push"])) == 0


def test_units_and_another_row_are_shown_for_each_column(scope):
    scope.unit_row = 0
    units = torch.tensor(scope.now["units"])
    assert units.shape == (4, 7)
    ids = all_ids(scope)
    seen = Lens(scope.model).look(ids, torch.ones_like(ids)).units[0][0, scope.prompt.shape[1] - 1 :]
    assert torch.allclose(units[:, 1:], seen.T, rtol=2e-2, atol=1e-3)


def test_the_model_is_untouched_between_two_tokens(scope):
    clean = [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for m in scope.model.modules()]
    seen = []
    scope.send = lambda _: seen.append(
        [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for m in scope.model.modules()] == clean
    )
    asyncio.run(scope._reply({"ask": "how", "run": 0}))
    assert seen == [True] * 7


def test_where_no_widget_works_a_picture_says_the_same(scope):
    data, about = scope._repr_mimebundle_()
    assert "Run this cell to move it." in data["text/html"]
    assert data["image/svg+xml"].count("<rect") == 3 * 7
    assert data["text/plain"].startswith(
        "Asked “why”, it wrote 6 tokens, cut off there. The largest push is that of block"
    )
    assert about["image/svg+xml"]["alt"] == data["text/plain"]
    assert "three adapters" in data["image/svg+xml"]
    json.dumps(scope.now, allow_nan=False)
