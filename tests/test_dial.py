"""The dial: a question of one's own answered, stopped, refused; and what stands where no widget works."""

import asyncio
from types import SimpleNamespace

import models
import pytest
import torch

from adapters_lesson import Adapter, AdapterConfig, insert_adapters, set_active_adapter
from adapters_lesson.course.language.dial import Dial
from adapters_lesson.history import load_results

END = 1


class Words:
    """A tokenizer to which every character is a token."""

    eos_token_id = END

    def apply_chat_template(self, asked, **_):
        return asked[0]["content"]

    def __call__(self, text, **_):
        return {"input_ids": torch.tensor([[3 + ord(letter) % 7 for letter in text]])}

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.fixture
def dial():
    torch.manual_seed(0)
    model = models.make("llama_head").eval()
    insert_adapters(model, AdapterConfig(4, init="houlsby", init_std=1.0))
    made = Dial(load_results("dial"), model, Words(), max_tokens=6)
    made.sent = []
    made.send = made.sent.append
    return made


def ask(dial, question="why", scaling=1.0, stop_after=None):
    """What the page hears; with ``stop_after`` tokens it says Stop."""

    async def heard():
        dial._told(None, {"ask": question, "scaling": scaling, "run": 7}, None)
        while not dial.answering.done():
            await asyncio.sleep(0)
            if len(dial.sent) == stop_after:
                dial._told(None, {"stop": True}, None)

    dial.sent.clear()
    asyncio.run(heard())
    return list(dial.sent)


def scalings(dial):
    return {module.scaling for module in dial.model.modules() if isinstance(module, Adapter)}


def by_generate(dial, question, scaling):
    for module in dial.model.modules():
        if isinstance(module, Adapter):
            module.scaling = scaling
    ids = Words()(question)["input_ids"]
    out = dial.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=END,
        pad_token_id=0,
    )  # fmt: skip
    return Words().decode([token for token in out[0, ids.shape[1] :].tolist() if token != END])


def test_it_answers_with_the_scaling_that_is_asked_for(dial):
    said = {scaling: ask(dial, scaling=scaling) for scaling in (0.0, 1.0, 2.0)}
    assert scalings(dial) == {1.0}
    assert all(message["run"] == 7 for messages in said.values() for message in messages)
    texts = {scaling: messages[-2]["text"] for scaling, messages in said.items()}
    assert texts == {scaling: by_generate(dial, "why", scaling) for scaling in texts}
    assert len(set(texts.values())) == 3
    assert said[2.0][-1] == {"run": 7, "busy": False, "note": "With scaling 2.0: cut off after 6 tokens."}


def test_it_ends_with_the_models_own_end(dial):
    dial.model.get_output_embeddings().weight.data.zero_()  # equal logits: token 0 wins
    dial.tokenizer.eos_token_id = 0
    assert ask(dial)[1:] == [{"run": 7, "busy": False, "note": "With scaling 1.0: it ended by itself."}]


def test_between_two_tokens_the_scaling_is_the_models_own(dial):
    seen = []
    dial.send = lambda message: seen.append(scalings(dial))
    asyncio.run(dial._reply({"ask": "why", "scaling": 2.0, "run": 0}))
    assert len(seen) == 7
    assert all(one == {1.0} for one in seen)


def test_stop_and_another_question_end_an_answer(dial):
    said = ask(dial, stop_after=2)
    assert len(said) == 3
    assert said[-1]["note"] == "With scaling 1.0: stopped."

    async def two():
        dial._told(None, {"ask": "why", "scaling": 1.0, "run": 1}, None)
        await asyncio.sleep(0)
        dial._told(None, {"ask": "how", "scaling": 1.0, "run": 2}, None)
        await dial.answering

    async def at_once():
        dial._told(None, {"ask": "why", "scaling": 1.0, "run": 3}, None)
        dial._told(None, {"stop": True}, None)
        await asyncio.wait([dial.answering])

    dial.sent.clear()
    asyncio.run(at_once())
    assert dial.sent[-1] == {"run": 3, "busy": False, "note": "With scaling 1.0: stopped."}
    dial.sent.clear()
    asyncio.run(two())
    assert [message["run"] for message in dial.sent if "note" in message] == [1, 2]


def test_a_long_question_is_read_in_pieces_and_can_be_stopped_before_its_first_token(dial):
    read = []
    note = lambda _, __, given: read.append(given["input_ids"].shape[1])  # noqa: E731
    dial.model.model.register_forward_pre_hook(note, with_kwargs=True)
    long = "why " * 200
    assert ask(dial, long)[-2]["text"] == by_generate(dial, long, 1.0)
    assert read[:26] == [32] * 25 + [1]
    read.clear()

    async def stopped():
        dial._told(None, {"ask": long, "scaling": 1.0, "run": 7}, None)
        while len(read) < 3:
            await asyncio.sleep(0)
        dial._told(None, {"stop": True}, None)
        await asyncio.wait([dial.answering])

    dial.sent.clear()
    asyncio.run(stopped())
    assert read == [32] * 3
    assert "".join(message.get("text", "") for message in dial.sent) == ""
    assert dial.sent[-1] == {"run": 7, "busy": False, "note": "With scaling 1.0: stopped."}


def test_what_goes_wrong_is_said(dial):
    assert ask(dial, " ")[-1]["note"] == "With scaling 1.0: type a question first."
    dial.tokenizer = SimpleNamespace(apply_chat_template=None)
    assert "not callable" in ask(dial)[-1]["note"]
    set_active_adapter(dial.model, None)
    assert "no adapters that are on: run the cell that trains them" in ask(dial)[-1]["note"]


def test_a_still_picture_says_the_same():
    bundle, _ = Dial(load_results("dial"))._repr_mimebundle_()
    assert "Run this cell to move it." in bundle["text/html"]
    assert bundle["text/plain"].startswith("How many answers have the form, by the adapters' scaling: 0 of 33 at 0; ")
