"""LoRA in peft's folders: peft computes the same with what we wrote, and we with what peft wrote."""

import json
import re
import warnings

import peft
import pytest
import torch
from models import inputs, make, output, randomise, slots
from safetensors.torch import load_file, save_file

from adapters_lesson import AdapterBank, AdapterConfig, LoRAConfig, insert_adapters, lora
from adapters_lesson.composition import stack_adapters
from adapters_lesson.doctor import diagnose
from adapters_lesson.exchange.peft import export_peft, import_peft
from adapters_lesson.insertion import adapter_config, set_active_adapter, set_trainable

KINDS = ("bert", "bert_head", "gpt2", "gpt2_head", "llama", "llama_head", "small_classifier")
QUIET = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
pytestmark = QUIET


def with_lora(kind, name="default", **settings):
    """A model with a LoRA that changes what it computes."""
    model = make(kind)
    insert_adapters(model, LoRAConfig(**settings), name)
    for slot in slots(model):
        randomise(slot[name], std=0.5)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["query_value", "attention", "all-linear"])
@pytest.mark.parametrize(
    "settings", [{"rank": 4, "alpha": 16}, {"rank": 2, "alpha": 3.5, "use_rslora": True, "layers": (0, 2)}]
)
def test_there_and_back(kind, targets, settings, tmp_path):
    model = with_lora(kind, targets=targets, **settings)
    wanted, bare = output(model), output(make(kind))
    assert not torch.allclose(wanted, bare, atol=1e-3)
    export_peft(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(make(kind), str(tmp_path))
    inner = theirs.get_base_model()
    assert sum(hasattr(module, "lora_A") for module in inner.modules()) == len(slots(model))
    assert (output(inner) - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp_min(1)
    again = make(kind)
    assert import_peft(again, tmp_path, "again") == "again"
    assert torch.equal(output(again), wanted)
    assert adapter_config(again, "again") == adapter_config(model)
    assert [finding.trouble for finding in diagnose(tmp_path, base=make(kind))] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_what_peft_wrote(kind, use_rslora, tmp_path):
    base = make(kind)
    targets = {
        "bert": ["query", "value"],
        "gpt2": ["c_attn"],
        "llama": ["q_proj", "v_proj"],
        "small": ["query", "value"],
    }
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets[kind.split("_")[0]], use_rslora=use_rslora)
    theirs = peft.get_peft_model(base, config)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    theirs.save_pretrained(str(tmp_path))
    wanted = output(theirs.get_base_model())
    model = make(kind)
    import_peft(model, tmp_path)
    assert (output(model) - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp_min(1)
    assert adapter_config(model) == LoRAConfig(4, 6.0, use_rslora=use_rslora)


@pytest.mark.parametrize("kind", ["bert_head", "small_classifier"])
def test_a_head_travels_as_modules_to_save(kind, tmp_path):
    model = with_lora(kind)
    randomise(model)
    wanted = output(model)
    name = "classifier" if kind == "bert_head" else "head"
    own = {key: t for key, t in model.state_dict().items() if "lora" not in key and not key.startswith(name)}
    export_peft(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [name]

    def fresh():
        other = make(kind, seed=5)
        other.load_state_dict(own, strict=False)
        return other

    assert not torch.allclose(output(fresh()), wanted)
    theirs = peft.PeftModel.from_pretrained(fresh(), str(tmp_path)).get_base_model()
    assert (output(theirs) - wanted).abs().max() <= 1e-5
    ours = fresh()
    import_peft(ours, tmp_path)
    assert torch.equal(output(ours), wanted)
    without = fresh()
    import_peft(without, tmp_path, with_head=False)
    assert not torch.allclose(output(without), wanted)
    export_peft(model, tmp_path, with_head=False)
    assert not [key for key in load_file(tmp_path / "adapter_model.safetensors") if "lora" not in key]
    with pytest.warns(UserWarning, match="has no head: the model's own stays as it is"):
        import_peft(fresh(), tmp_path)


def test_a_head_that_peft_trained(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    theirs = peft.get_peft_model(make("bert_head"), config)
    randomise(theirs.get_base_model().classifier.modules_to_save)
    theirs.save_pretrained(str(tmp_path))
    model = make("bert_head")
    import_peft(model, tmp_path)
    assert (output(model) - output(theirs.get_base_model())).abs().max() <= 1e-6
    import_peft(make("bert"), tmp_path)  # the base alone leaves the head aside


def test_between_a_base_and_a_model_with_a_head(tmp_path):
    model = with_lora("llama_head")
    assert not [k for k in load_file(export_peft(model, tmp_path) / "adapter_model.safetensors") if "lm_head" in k]
    bare = make("llama")
    import_peft(bare, tmp_path)
    for one, other in zip(slots(model), slots(bare), strict=True):
        assert torch.equal(one["default"].delta(), other["default"].delta())
    set_trainable(model, head=True)
    export_peft(model, tmp_path)
    assert [k for k in load_file(tmp_path / "adapter_model.safetensors") if "lm_head" in k]


def test_one_of_two_is_written_and_replaces_what_peft_wrote(tmp_path):
    model = with_lora("bert", "first", rank=2)
    insert_adapters(model, LoRAConfig(3), "second")
    randomise(slots(model)[0]["second"])
    set_active_adapter(model, "first")
    wanted = output(model)
    peft.get_peft_model(make("bert"), peft.LoraConfig(r=1, target_modules=["query"])).save_pretrained(str(tmp_path))
    export_peft(model, tmp_path, "first")
    again = make("bert")
    import_peft(again, tmp_path)
    assert torch.equal(output(again), wanted)


def changed(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"use_dora": True},
            "use_dora=True cannot be imported, there is nothing of the kind here: peft.PeftModel.from_pretrained",
        ),
        ({"bias": "all"}, "bias='all' cannot be imported"),
        ({"rank_pattern": {"query": 2}}, "rank_pattern={'query': 2} cannot be imported"),
        ({"alpha_pattern": {"query": 2}}, "alpha_pattern={'query': 2} cannot be imported"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_new": 1}, "something_new=1 cannot be imported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' means a base model with other weights"),
        ({"peft_type": "IA3"}, "is for 'IA3', and only LoRA and bottleneck adapters can be imported"),
        ({"r": 3}, "has the shape"),
        ({"r": "four"}, "rank"),
    ],
)
def test_what_is_refused_leaves_the_model_as_it_was(settings, words, tmp_path):
    export_peft(with_lora("bert", rank=4), tmp_path)
    changed(tmp_path, **settings)
    model = make("bert")
    with pytest.raises(ValueError, match="(?s).*" + words.replace("{", r"\{").replace("[", r"\[")):
        import_peft(model, tmp_path)
    assert not slots(model)


def test_tensors_that_do_not_fit(tmp_path):
    path = export_peft(with_lora("bert"), tmp_path) / "adapter_model.safetensors"
    tensors = load_file(path)
    first = min(tensors)
    for wrong, words in (
        ({key: t for key, t in tensors.items() if key != first}, "lacks tensors"),
        (tensors | {"base_model.model.embeddings.word_embeddings.weight": torch.ones(2, 2)}, "has unexpected tensors"),
        (tensors | {first: tensors[first] * float("nan")}, "not finite"),
        (
            {key.replace("lora_A.", "lora_A.default."): t for key, t in tensors.items()},
            "; it has .*lora_A.default.weight",
        ),
        ({"base_model.model.pooler.dense.weight": torch.ones(2, 2)}, r"no tensor of LoRA's: doctor.diagnose\('.*'\)"),
        ({}, r"no tensor of LoRA's"),
    ):
        save_file(wrong, path)
        with pytest.raises(ValueError, match=words):
            import_peft(make("bert"), tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        import_peft(make("bert"), tmp_path)
    torch.save(tensors, path.with_suffix(".bin"))
    import_peft(make("bert"), tmp_path)


def test_what_adds_nothing_is_warned_of(tmp_path):
    peft.get_peft_model(make("bert"), peft.LoraConfig(r=2, target_modules=["query", "value"])).save_pretrained(
        str(tmp_path)
    )
    with pytest.warns(UserWarning, match=r"all up_project \(in LoRA: B\) are zero, it adds nothing: was it trained\?"):
        import_peft(make("bert"), tmp_path)


def test_parts_of_the_base_that_were_trained_are_named(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["pooler"])
    peft.get_peft_model(make("bert_head"), config).save_pretrained(str(tmp_path))
    model = make("bert_head")
    words = r"modules_to_save=\['pooler'\] keeps .*pooler.dense.bias, a part of the base model, and only a head is"
    with pytest.raises(ValueError, match=words):
        import_peft(model, tmp_path)
    assert not slots(model)
    peft.PeftModel.from_pretrained(model, str(tmp_path))  # as the sentence says


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"modules_to_save": "classifier"},
            r"modules_to_save='classifier' has to be a list of names: \['classifier'\]",
        ),
        ({"r": -1}, "rank"),
        ({"lora_alpha": "much"}, "alpha"),
        ({"lora_dropout": 2}, "dropout"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_their_file(tmp_path, changed, words):
    peft.get_peft_model(make("bert"), peft.LoraConfig(r=2, target_modules=["query", "value"])).save_pretrained(
        str(tmp_path)
    )
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | changed))
    model = make("bert")
    with pytest.raises(ValueError, match=rf"{re.escape(str(settings))}: .*{words}"):
        import_peft(model, tmp_path)
    assert not slots(model)


def test_linear_layers_that_no_targets_name(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["key"])
    peft.get_peft_model(make("bert"), config).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"no counterpart here \(encoder.layer.N.attention.self.key\): query_value"):
        import_peft(make("bert"), tmp_path)


def test_calls_that_make_no_sense(tmp_path):
    model = make("bert")
    insert_adapters(model, AdapterConfig(4), "one")
    insert_adapters(model, AdapterConfig(4), "two")
    stack_adapters(model, ["one", "two"], "both")
    with pytest.raises(ValueError, match="is made of others: export_peft takes one adapter"):
        export_peft(model, tmp_path, "both")
    with pytest.raises(ValueError, match="bank keeps the adapters"):
        export_peft(AdapterBank(make("bert")), tmp_path)
    with pytest.raises(ValueError, match="no adapter of peft's is there"):
        import_peft(make("bert"), tmp_path)
    model = with_lora("bert")
    lora.merge(model)
    with pytest.raises(ValueError, match="merged"):
        export_peft(model, tmp_path)
    lora.unmerge(model)
    with pytest.raises(ValueError, match="has adapters called 'default' already"):
        import_peft(model, export_peft(model, tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="Nothing is written over or beside it"):
        export_peft(model, tmp_path)


def test_another_base_model_is_warned_of(tmp_path):
    model = with_lora("bert")
    model.config._name_or_path = "org/bert-one"
    export_peft(model, tmp_path)
    other = make("bert")
    other.config._name_or_path = "org/bert-two"
    with pytest.warns(UserWarning, match="trained on 'org/bert-one', and this model is 'org/bert-two'"):
        import_peft(other, tmp_path)


def test_no_warning_where_all_is_well(tmp_path):
    export_peft(with_lora("bert"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_peft(make("bert"), tmp_path)


@pytest.mark.parametrize("kind", ["bert_head", "gpt2_head"])
def test_the_doctor_reads_our_lora(kind, tmp_path):
    fresh = make(kind)
    insert_adapters(fresh, LoRAConfig(4))
    set_trainable(fresh)
    optimizer = torch.optim.AdamW([p for p in fresh.parameters() if p.requires_grad], lr=1e-3)
    assert not diagnose(fresh, optimizer, inputs(fresh))
    export_peft(fresh, tmp_path)
    assert [finding.trouble for finding in diagnose(tmp_path)] == ["zero"]
    model = with_lora(kind, targets="all-linear")
    assert not diagnose(model)
    lora.merge(model)
    assert not diagnose(model)
    weights = {key: t.clone() for key, t in model.state_dict().items() if "adapters_beside" not in key}
    lora.unmerge(model)
    model.load_state_dict(weights, strict=False)  # the merged weights, with the LoRA beside them
    assert [finding.trouble for finding in diagnose(model)] == ["merged"]
