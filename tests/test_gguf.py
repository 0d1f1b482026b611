"""A GGUF of a model, read back: by gguf's reader, and by transformers, with the same logits and the same tokens."""

import sys

import pytest
import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from adapters_lesson import AdapterConfig, LoRAConfig, insert_adapters, lora
from adapters_lesson.exchange.compare import compare_outputs
from adapters_lesson.exchange.gguf import KINDS, export_gguf
from adapters_lesson.insertion import remove_adapters
from adapters_lesson.slots import slots_of

gguf = pytest.importorskip("gguf", reason="make llm installs it")
WIDTH = 64  # q8_0 has blocks of 32


@pytest.fixture(scope="module")
def tokenizer():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = ["the sea was calm, and the boat came home", "a letter to the sea: naïve café, 12 o'clock"] * 3
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>", "<|start|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(texts, trainer)
    inner.add_tokens([AddedToken("<own>", special=False)])
    whole = hf.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", bos_token="<|start|>")
    whole.chat_template = "{{ messages[0].content }}"
    return whole


def model(tokenizer, *, tied=True, heads=(4, 2), more=3):
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer) + more, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=heads[0], num_key_value_heads=heads[1], max_position_embeddings=64, rope_theta=5000.0,
        tie_word_embeddings=tied, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=0,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config).eval()


def batches(tokenizer):
    ids = tokenizer(["the sea was naïve", "a boat"])["input_ids"]
    longest = max(map(len, ids))
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
    rows = [row + [0] * (longest - len(row)) for row in ids]
    return [{"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}]


def read_back(path, **more):
    return hf.LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, **more).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("heads", [(4, 2), (2, 2), (8, 1)])
def test_read_back_it_computes_the_same(tokenizer, tied, heads, tmp_path):
    made = model(tokenizer, tied=tied, heads=heads)
    path = export_gguf(made, tokenizer, tmp_path / "one.gguf", "f32")
    again = read_back(path)
    found = compare_outputs(made, again, batches(tokenizer))
    assert (
        found.largest == 0 and found.same and found.places == sum(batches(tokenizer)[0]["attention_mask"].sum(1)).item()
    )
    assert again.config.tie_word_embeddings == tied
    for key in ("rope_parameters", "rms_norm_eps", "max_position_embeddings", "num_key_value_heads"):
        assert getattr(again.config, key) == pytest.approx(getattr(made.config, key))


def test_the_tokenizer_travels(tokenizer, tmp_path):
    path = export_gguf(model(tokenizer), tokenizer, tmp_path / "one.gguf", "f32")
    again = hf.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in ("the sea was calm", "naïve café at 12 o'clock!", "<|start|>the boat<|end|>"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    assert (again.eos_token, again.bos_token) == ("<|end|>", "<|start|>")
    fields = gguf.GGUFReader(path).fields
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    assert types[:2] == [gguf.TokenType.CONTROL] * 2 and types[5] == gguf.TokenType.NORMAL
    assert types[-4:] == [gguf.TokenType.USER_DEFINED] + [gguf.TokenType.UNUSED] * 3


def test_each_kind_is_what_it_says(tokenizer, tmp_path):
    made, apart = model(tokenizer), {}
    for kind in KINDS:
        path = export_gguf(made, tokenizer, tmp_path / f"{kind}.gguf", kind)
        tensors = {one.name: one for one in gguf.GGUFReader(path).tensors}
        assert tensors["blk.1.attn_q.weight"].tensor_type.name == kind.upper()
        assert tensors["output_norm.weight"].tensor_type.name == "F32"
        apart[kind] = compare_outputs(made, read_back(path), batches(tokenizer)).mean
    assert 0 == apart["f32"] < apart["f16"] < apart["q8_0"] < 0.05


def test_a_merged_lora_travels_within_the_weights(tokenizer, tmp_path):
    made = model(tokenizer)
    insert_adapters(made, LoRAConfig(4, targets="all-linear"))
    for slot in slots_of(made):
        torch.nn.init.normal_(slot["default"].lora_B.weight, std=0.1)
    with pytest.raises(
        ValueError, match=r"'default' is beside the weights and would stay behind: lora.merge\(model\) first"
    ):
        export_gguf(made, tokenizer, tmp_path / "one.gguf")
    assert not list(tmp_path.iterdir())
    lora.merge(made)
    again = read_back(export_gguf(made, tokenizer, tmp_path / "one.gguf", "f32"))
    assert compare_outputs(made, again, batches(tokenizer)).largest == 0
    assert compare_outputs(model(tokenizer), again, batches(tokenizer)).largest > 0.01


def test_what_would_stay_behind_is_refused(tokenizer, tmp_path):
    import peft

    made = model(tokenizer)
    insert_adapters(made, AdapterConfig(4))
    with pytest.raises(ValueError, match="it can never be merged into the weights, or remove_adapters"):
        export_gguf(made, tokenizer, tmp_path / "one.gguf")
    remove_adapters(made)
    export_gguf(made, tokenizer, tmp_path / "one.gguf")
    before = (tmp_path / "one.gguf").read_bytes()
    theirs = peft.get_peft_model(made, peft.LoraConfig(r=2, target_modules=["q_proj"])).get_base_model()
    with pytest.raises(ValueError, match=r"merge_and_unload\(\) first"):
        export_gguf(theirs, tokenizer, tmp_path / "one.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_others_are_refused_in_one_sentence(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="GPT2LMHeadModel is none of the Llama family"):
        export_gguf(hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=1, n_embd=8, n_head=2)), tokenizer, tmp_path / "a.gguf")
    with pytest.raises(ValueError, match="kind='q4' is unknown, choose one of f32, f16, q8_0"):
        export_gguf(model(tokenizer), tokenizer, tmp_path / "a.gguf", "q4")
    with pytest.raises(
        ValueError, match=r"the tokenizer knows '<own>' as token \d+, and the model has \d+ rows: model.r"
    ):
        export_gguf(model(tokenizer, more=-1), tokenizer, tmp_path / "a.gguf")
    scaled = model(tokenizer)
    scaled.config.rope_parameters["rope_type"] = "llama3"  # its factors would be left out without a word
    with pytest.raises(ValueError, match="a model with rope_type='llama3', hidden_act='silu', mlp_bias=False is not"):
        export_gguf(scaled, tokenizer, tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="is no byte-level BPE tokenizer"):
        export_gguf(model(tokenizer), object(), tmp_path / "a.gguf")


def test_without_the_package_the_command_is_named(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="`make llm` installs it"):
        export_gguf(model(tokenizer), tokenizer, tmp_path / "a.gguf")
