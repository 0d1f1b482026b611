"""The transformer of the lessons is a real one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import BASES, VOCAB, inputs, make, output, randomise, small

from adapters_lesson import Classifier, SmallTransformer, SmallTransformerConfig, load_minilm, load_tokenizer

SENTENCES = [
    "screen: The pool was not superb, and the screen was fantastic.",
    "An unflinching film, slow in places.",
    "No.",
    "While the soup was dreadful, the waiters – both of them! – sang Händel's “Messiah” to the whole café.",
]


@pytest.fixture(scope="session")
def bert_hidden_states():
    batch = load_tokenizer()(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = load_minilm()(**batch, output_hidden_states=True).hidden_states
    assert batch["attention_mask"].sum() < batch["attention_mask"].numel(), "no padding: nothing is tested"
    return batch, states


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_carries_minilm_exactly(bert_hidden_states, layers):
    batch, states = bert_hidden_states
    model = SmallTransformer.from_minilm(layers)
    assert len(model.blocks) == layers
    assert not model.training
    with torch.no_grad():
        hidden = model(batch["input_ids"], batch["attention_mask"])
    words = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[words], states[layers][words], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers", [0, 7, -1, "x", None, 2.5])
def test_minilm_has_six_layers(layers):
    with pytest.raises(ValueError, match=f"6 layers: ask for 1 to 6, not {layers!r}"):
        SmallTransformer.from_minilm(layers)


def test_too_long_a_text_is_a_clear_error():
    model = small(max_position_embeddings=10)
    assert model(torch.zeros(1, 10, dtype=torch.long)).shape == (1, 10, 16)
    with pytest.raises(ValueError, match=r"has 11 tokens.*at most 10.*truncation=True"):
        model(torch.zeros(1, 11, dtype=torch.long))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "rms"}, 'norm must be "post".*or "pre", not \'rms\''),
        ({"num_attention_heads": 5}, "hidden_size=384 must be divisible by num_attention_heads=5"),
    ],
)
def test_config_refuses_nonsense(wrong, message):
    with pytest.raises(ValueError, match=message):
        SmallTransformerConfig(**wrong)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 8), st.sampled_from([1, 2, 4]), st.data())
def test_attention_weights_are_those_that_attention_uses(batch, length, heads, data):
    attention = small(num_attention_heads=heads).blocks[0].attention.double()
    randomise(attention)
    x = torch.randn(batch, length, 16, dtype=torch.float64)
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, length), min_size=batch, max_size=batch)))
    words = torch.arange(length) < lengths[:, None]
    mask = words[:, None, None, :]
    weights = attention.weights(x, mask).detach()
    assert weights.shape == (batch, heads, length, length)
    torch.testing.assert_close(weights.sum(-1), torch.ones(batch, heads, length, dtype=torch.float64))
    assert weights.masked_select(~mask).abs().sum() == 0
    values = attention.value(x).view(batch, length, heads, 16 // heads).permute(0, 2, 1, 3)
    mixed = (weights @ values).permute(0, 2, 1, 3).reshape(batch, length, 16)
    torch.testing.assert_close(attention.output(mixed), attention(x, mask), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        attention.weights(x, None), attention.weights(x, torch.ones_like(mask)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_forward_equals_the_formula(norm):
    model = make(f"small_{norm}").double()
    batch = inputs(model)

    def layer_norm(x, ln):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-12).sqrt() * ln.weight + ln.bias

    def attention(x, a):
        q, k, v = (F.linear(x, p.weight, p.bias).view(2, 6, 2, 8).transpose(1, 2) for p in (a.query, a.key, a.value))
        scores = q @ k.transpose(2, 3) / 8**0.5
        scores[batch["attention_mask"][:, None, None, :].expand(scores.shape) == 0] = -1e30
        return a.output((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 6, 16))

    def ffn(x, f):
        hidden = x @ f.expand.weight.T + f.expand.bias
        return 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)) @ f.contract.weight.T + f.contract.bias

    with torch.no_grad():
        x = model.word_embeddings.weight[batch["input_ids"]] + model.position_embeddings.weight[:6]
        x = layer_norm(x, model.embedding_norm)
        for b in model.blocks:
            if norm == "post":
                x = layer_norm(x + attention(x, b.attention), b.attention_norm)
                x = layer_norm(x + ffn(x, b.ffn), b.ffn_norm)
            else:
                x = x + attention(layer_norm(x, b.attention_norm), b.attention)
                x = x + ffn(layer_norm(x, b.ffn_norm), b.ffn)
        if norm == "pre":
            x = layer_norm(x, model.final_norm)
    torch.testing.assert_close(output(model), x, rtol=0, atol=1e-9)


def test_dropout_is_active_only_while_training():
    model, batch = make("small_post"), inputs(make("small_post"))
    assert torch.equal(model(**batch), model(**batch))
    model.train()
    assert not torch.equal(model(**batch), model(**batch))


@pytest.mark.parametrize("base", ["small_post", "small_pre", "bert", "distilbert"])
def test_padding_does_not_change_the_logits(base):
    model = Classifier(make(base), 3).eval()
    randomise(model.head)
    ids = torch.randint(2, VOCAB, (1, 5))
    padded = torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], dim=1)
    mask = torch.tensor([[1] * 5 + [0] * 4])
    with torch.no_grad():
        alone = model(ids, torch.ones_like(ids))
        torch.testing.assert_close(model(padded, mask), alone, rtol=0, atol=1e-6)
        assert not torch.allclose(model(padded, torch.ones_like(padded)), alone, atol=1e-3)


@pytest.mark.parametrize("base", ["small_post", "bert"])
def test_classifier_is_the_mean_over_the_words_and_a_linear_head(base):
    torch.manual_seed(0)
    model = Classifier(make(base), 3).eval()
    batch = inputs(model)
    hidden = output(model.base_model) if base == "small_post" else model.base_model(**batch).last_hidden_state.detach()
    lengths = batch["attention_mask"].sum(1).tolist()
    means = torch.stack([row[:n].mean(0) for row, n in zip(hidden, lengths, strict=True)])
    torch.testing.assert_close(model.features(**batch), means, rtol=0, atol=1e-6)
    expected = means @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(**batch), expected, rtol=0, atol=1e-6)


def test_classifier_needs_two_labels():
    with pytest.raises(ValueError, match="at least 2 labels, not 1"):
        Classifier(BASES["small_post"](), 1)
