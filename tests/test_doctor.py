"""The doctor names the one trouble of every patient, its remedy mends it, and the sound are left in peace."""

import json
import subprocess
import sys

import pytest
import torch
from models import make, randomise
from safetensors.torch import load_file, save_file
from sound import SOUND

from adapters_lesson.course.patients import (
    PATIENTS,
    admit,
    batch_of,
    bert,
    llama,
    load,
    lora,
    optimizer_of,
    patient,
    saved,
    trained,
)
from adapters_lesson.doctor import TROUBLES, Finding, diagnose
from adapters_lesson.doctor.findings import diagnosis
from adapters_lesson.guards.safe_files import StorageError

SEEDS = (0, 1, 2)


def troubles(*args, **named):
    return [finding.trouble for finding in diagnose(*args, **named)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# --- The patients of the exercise, and the sound -------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", range(1, 13))
def test_each_patient_has_its_one_trouble(number, seed, tmp_path):
    case = patient(number, seed, tmp_path)
    found = diagnose(**case.given)
    assert [finding.trouble for finding in found] == [case.trouble], found
    (finding,) = found
    assert finding.what and finding.where and finding.remedy and case.complaint
    assert max(map(len, str(found).splitlines())) <= 130


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.__name__)
def test_the_sound_are_left_in_peace(case, seed, tmp_path):
    found = diagnose(**admit(case, seed, tmp_path))
    assert not found, found
    assert str(found).startswith("Nothing is wrong here.\nLooked at: ")


def test_a_patient_is_the_same_again(tmp_path):
    first, again = (patient(9, 3, tmp_path).given["model_or_folder"].state_dict() for _ in range(2))
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert len({case.__name__ for case in PATIENTS}) == 12
    with pytest.raises(ValueError, match="there are the patients 1 to 12, not 13"):
        patient(13, 0, tmp_path)


def _rename(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file({change(key): tensor.clone() for key, tensor in load_file(path).items()}, path, {"format": "pt"})


def _mend_zero(given, folder):
    _rename(folder, lambda key: f"base_model.model.{key}")
    given["model_or_folder"] = load(llama(), folder)


def _mend_keys(given, folder):
    _rename(folder, lambda key: key.replace("model.module.", "model."))


def _mend_head(given, folder):
    saved(trained(lora(bert(), task_type="SEQ_CLS")), folder)
    given["model_or_folder"] = load(bert(), folder)


def _mend_half(given, folder):
    for parameter in given["optimizer"].param_groups[0]["params"]:
        parameter.data = parameter.data.float()


REMEDIES = [
    _mend_zero,
    _mend_keys,
    lambda given, folder: given.update(base=bert()),
    _mend_head,
    lambda given, folder: saved(trained(lora(llama())), folder),
    lambda given, folder: saved(trained(lora(bert())), folder),
    lambda given, folder: given["model_or_folder"].base_model.enable_adapter_layers(),
    lambda given, folder: given.update(model_or_folder=load(llama(), folder)),
    _mend_half,
    lambda given, folder: given["model_or_folder"].gradient_checkpointing_enable({"use_reentrant": False}),
    lambda given, folder: given.update(optimizer=optimizer_of(given["model_or_folder"])),
    lambda given, folder: given["base"].resize_token_embeddings(44),
]


@pytest.mark.parametrize("number", range(1, 13))
def test_the_remedy_mends(number, tmp_path):
    given = patient(number, 0, tmp_path).given
    REMEDIES[number - 1](given, tmp_path)
    assert troubles(**given) == []


def test_the_other_remedies_mend_as_well(tmp_path):
    given = patient(10, 0, tmp_path).given
    given["model_or_folder"].enable_input_require_grads()
    assert troubles(**given) == []
    from peft import PeftModel

    model = PeftModel.from_pretrained(llama(), str(peft_folder(tmp_path)), is_trainable=True)
    assert troubles(model, optimizer_of(model), batch_of(model)) == []


# --- Files ----------------------------------------------------------------------------------------------------------


def peft_folder(folder, model=None, **settings):
    """A trained LoRA in a folder of peft."""
    return saved(trained(lora(model or llama(), **settings)), folder)


def change_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.replace("base_model.model.", "base_model.model.base_model.model."),
        lambda key: f"module.{key}",
        lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda key: key.replace(".weight", ".default.weight"),
        lambda key: key.removeprefix("base_model.model."),
    ],
)
def test_names_that_the_loader_leaves_aside(change, tmp_path):
    folder = peft_folder(tmp_path)
    assert troubles(folder) == []
    _rename(folder, change)
    assert troubles(folder) == ["keys"]
    assert troubles(folder, base=llama()) == ["keys"]


def test_an_adapter_of_another_class_of_models(tmp_path):
    folder = peft_folder(tmp_path, bert(), task_type="SEQ_CLS")
    (finding,) = diagnose(folder, base=bert().bert)
    assert finding.trouble == "keys" and "query is encoder.layer.0.attention.self.query here" in finding.what
    assert troubles(folder, base=llama()) == ["base"]


def test_another_base_of_the_same_shape(tmp_path):
    folder, base = peft_folder(tmp_path), llama()
    change_config(folder, base_model_name_or_path="org/llama-one")
    base.config._name_or_path = base.name_or_path = "org/llama-two"
    (finding,) = diagnose(folder, base=base)
    assert finding.trouble == "base" and "trained on 'org/llama-one', and this model is 'org/llama-two'" in finding.what
    (finding,) = diagnose(load(base, folder))
    assert finding.trouble == "base"
    for theirs, ours in (("org/llama-one", "mirror/llama-one"), ("/data/a-copy", "org/llama-two")):
        change_config(folder, base_model_name_or_path=theirs)
        base.config._name_or_path = base.name_or_path = ours
        assert troubles(folder, base=base) == []
    change_config(folder, base_model_name_or_path="bert-base-uncased")  # whose vocabulary is known
    assert troubles(folder) == []
    (finding,) = diagnose(folder, base=llama())
    assert finding.trouble == "base" and "knows 40 tokens, not 30522" in finding.what


@pytest.mark.parametrize("content", [b"", b"\x00" * 443, None])
def test_a_file_that_is_empty_or_damaged(content, tmp_path):
    folder = peft_folder(tmp_path)
    path = folder / "adapter_model.safetensors"
    if content is None:
        save_file({}, path)
    else:
        path.write_bytes(content)
    assert troubles(folder) == ["empty"]
    path.unlink()
    (finding,) = diagnose(folder)
    assert finding.trouble == "empty" and "no file with weights" in finding.what
    path.with_suffix(".bin").write_bytes(b"no pickle")
    assert troubles(folder) == ["empty"]
    torch.save([torch.ones(2)], path.with_suffix(".bin"))
    (finding,) = diagnose(folder)
    assert finding.trouble == "empty" and "must hold tensors by name" in finding.what


def test_a_whole_model_in_the_folder(tmp_path):
    bert().save_pretrained(tmp_path)
    assert troubles(tmp_path) == ["whole model"]
    peft_folder(tmp_path)
    assert troubles(tmp_path) == []  # a merged model with its adapter beside it


def test_a_folder_without_anything(tmp_path):
    with pytest.raises(StorageError, match="there is no folder"):
        diagnose(tmp_path / "none")
    with pytest.raises(StorageError, match="has no adapters"):
        diagnose(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("many", [1, 6])
def test_values_in_a_file(value, many, tmp_path):
    path = peft_folder(tmp_path) / "adapter_model.safetensors"
    tensors = load_file(path)
    for key in [key for key in tensors if "lora_B" in key][:many]:
        tensors[key].fill_(value)
    save_file(tensors, path, {"format": "pt"})
    (finding,) = diagnose(tmp_path, base=llama())
    assert finding.trouble == ("zero" if value == 0 else "not finite")
    assert ("1 of 6" if many == 1 else "6 of 6") in finding.what or value != 0
    if value == 0 or many == 1:
        assert troubles(load(llama(), tmp_path)) == [finding.trouble]


@pytest.mark.parametrize("kind", ["ours", "adapterhub"])
def test_an_untrained_bottleneck_that_was_saved(kind, tmp_path):
    from adapters_lesson import AdapterConfig, insert_adapters, save_adapter
    from adapters_lesson.exchange.adapterhub import export_adapterhub

    model = bert()
    insert_adapters(model, AdapterConfig(4))
    assert troubles(model) == []
    save_adapter(model, tmp_path) if kind == "ours" else export_adapterhub(model, tmp_path)
    assert troubles(tmp_path) == ["zero"]
    randomise(model.bert.encoder.layer[0])
    save_adapter(model, tmp_path) if kind == "ours" else export_adapterhub(model, tmp_path)
    (finding,) = diagnose(tmp_path)
    assert finding.trouble == "zero" and "4 of 6" in finding.what


def test_our_file_and_another_base(tmp_path):
    from adapters_lesson import AdapterConfig, insert_adapters, save_adapter

    model = bert()
    insert_adapters(model, AdapterConfig(4, init="bert"))
    path = save_adapter(model, tmp_path)
    assert troubles(tmp_path, base=model) == troubles(path) == []
    (finding,) = diagnose(tmp_path, base=bert())
    assert finding.trouble == "base" and "trained on another base model" in finding.what
    path.write_bytes(path.read_bytes()[:-4])
    assert troubles(path) == ["empty"]
    bare = bert().bert
    insert_adapters(bare, AdapterConfig(4, init="bert"))
    save_adapter(bare, tmp_path)
    whole = bert()
    whole.bert.load_state_dict({k: v for k, v in bare.state_dict().items() if "adapters_" not in k})
    assert troubles(tmp_path, base=whole) == ["head"]


def test_an_adapterhub_folder_and_another_base(tmp_path):
    from adapters_lesson import AdapterConfig, insert_adapters
    from adapters_lesson.exchange.adapterhub import export_adapterhub

    model = bert()
    insert_adapters(model, AdapterConfig(4, init="bert"))
    export_adapterhub(model, tmp_path, with_head=False)
    assert troubles(tmp_path, base=bert().bert) == troubles(tmp_path) == []
    assert troubles(tmp_path, base=bert()) == ["head"]
    assert troubles(tmp_path, base=llama()) == troubles(tmp_path, base=bert(24).bert) == ["base"]


def test_the_head_is_not_in_the_file(tmp_path):
    folder = peft_folder(tmp_path, bert())
    assert troubles(folder) == []
    (finding,) = diagnose(folder, base=bert())
    assert finding.trouble == "head" and finding.where == "classifier"
    peft_folder(tmp_path, bert(), task_type="SEQ_CLS")
    assert troubles(folder, base=bert()) == []
    path = folder / "adapter_model.safetensors"
    save_file({key: t for key, t in load_file(path).items() if "lora" in key}, path, {"format": "pt"})
    (finding,) = diagnose(folder)
    assert finding.trouble == "head" and "modules_to_save names classifier" in finding.what


def test_half_a_lora_is_noticed(tmp_path):
    path = peft_folder(tmp_path) / "adapter_model.safetensors"
    whole = load_file(path)
    lone = next(key for key in whole if ".lora_B." in key)
    save_file({key: t for key, t in whole.items() if key != lone}, path, {"format": "pt"})
    (finding,) = diagnose(tmp_path)
    assert finding.trouble == "keys" and "1 places have only one of LoRA's A and B" in finding.what
    assert finding.where == lone.replace("lora_B", "lora_")


def test_modules_to_save_as_a_text_is_noticed(tmp_path):
    settings = peft_folder(tmp_path, bert(), task_type="SEQ_CLS") / "adapter_config.json"
    saved = json.loads(settings.read_text())
    settings.write_text(json.dumps({**saved, "modules_to_save": "classifier"}))
    (finding,) = diagnose(tmp_path)
    assert "the text 'classifier', which peft reads letter by letter" in finding.what
    assert '"modules_to_save": ["classifier"]' in finding.remedy
    settings.write_text(json.dumps({**saved, "modules_to_save": ["classifier"]}))
    assert not troubles(tmp_path)


def test_tokens_of_the_tokenizer_that_were_not_saved(tmp_path):
    folder = peft_folder(tmp_path)
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 2}, {"id": 39}]}))
    assert troubles(folder, base=llama()) == []
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 43}]}))
    assert troubles(folder, base=llama()) == ["tokens"]
    assert troubles(folder, base=llama(44)) == []


# --- Models of peft -------------------------------------------------------------------------------------------------


def test_loaded_into_a_model_that_had_a_new_adapter_already(tmp_path):
    folder = peft_folder(tmp_path)
    with pytest.warns(UserWarning):
        model = load(lora(llama()), folder)
    (finding,) = diagnose(model)
    assert finding.trouble == "zero" and "never after get_peft_model" in finding.remedy


def test_a_training_that_left_it_at_zero():
    model = lora(llama())
    optimizer = optimizer_of(model, 0.0)
    optimizer.param_groups[0]["lr"] = 0.0
    for wanted in (["learning rate"], ["learning rate", "zero"]):  # a warm-up begins with one such step
        model(**batch_of(model)).loss.backward()
        optimizer.step()
        assert troubles(model, optimizer) == wanted
    assert troubles(model) == []  # who does not show the optimiser may just have made it


def test_layers_that_were_left_at_zero():
    model = trained(lora(llama()))
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_B.default.weight.data.zero_()
    (finding,) = diagnose(model)
    assert finding.trouble == "zero" and finding.what.startswith("1 of 6")
    assert finding.where == "base_model.model.model.layers.0.self_attn.q_proj"


def test_two_adapters_of_which_the_resting_one_is_trained():
    model = trained(lora(llama()))
    from peft import LoraConfig

    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    assert troubles(model) == troubles(model, optimizer_of(model)) == []
    optimizer = torch.optim.AdamW([p for n, p in model.named_parameters() if "second" in n], lr=1e-3)
    model.set_adapter("second")
    assert troubles(model, optimizer) == []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora" in name)
    model.base_model.set_adapter("default")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora" in name)
    assert "inactive" in troubles(model, optimizer)


def test_merged_while_it_is_trained(tmp_path):
    model = trained(lora(llama()))
    model.merge_adapter()
    assert troubles(model) == []
    (finding,) = diagnose(model, optimizer_of(model))
    assert finding.trouble == "merged" and "unmerge_adapter" in finding.remedy
    model.unmerge_adapter()
    assert troubles(model, optimizer_of(model)) == []


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], ["gate_proj", "down_proj"]])
@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_alpha": 64}, {"bias": "all"}]
)
def test_how_often_a_base_contains_its_adapter_is_told_right(targets, settings, tmp_path):
    model = trained(lora(llama(), target_modules=targets, **settings), 20)
    assert troubles(model, batch=batch_of(model)) == []
    saved(model, tmp_path)
    assert troubles(tmp_path, base=llama()) == []


def test_frozen_as_it_was_loaded(tmp_path):
    model = load(llama(), peft_folder(tmp_path))
    assert troubles(model) == []
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    assert troubles(model, optimizer) == ["frozen"]


def test_bfloat16_in_which_a_step_is_rounded_away():
    model = trained(lora(llama())).bfloat16()
    (finding,) = diagnose(model, optimizer_of(model, 1e-6))
    assert finding.trouble == "half precision" and "% of the trained bfloat16 weights cannot move" in finding.what
    assert troubles(model, optimizer_of(model, 1e-2)) == []
    assert troubles(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)) == []


def test_the_base_model_is_trained_as_well():
    model = lora(llama())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    assert troubles(model, optimizer_of(model)) == ["unfrozen"]


def test_new_tokens_that_nothing_trains_or_saves():
    base = llama()
    model = llama()
    model.resize_token_embeddings(44)
    assert troubles(lora(model), base=base) == ["tokens"]
    for settings in ({"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [40, 41, 42, 43]}):
        model = llama()
        model.resize_token_embeddings(44)
        assert troubles(lora(model, **settings), base=base) == []


def test_other_methods_of_peft_are_sound(tmp_path):
    from peft import HRAConfig, IA3Config, LNTuningConfig, LoHaConfig, PromptTuningConfig, get_peft_model

    targets = {"target_modules": ["q_proj", "v_proj"]}
    for config in (
        IA3Config(**targets, feedforward_modules=[]),
        LoHaConfig(r=2, **targets),
        HRAConfig(r=2, **targets),
        LNTuningConfig(target_modules=["input_layernorm"]),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ):
        model = get_peft_model(llama(), config)
        assert troubles(model, optimizer_of(model), batch_of(model)) == []
        assert troubles(saved(trained(model), tmp_path / type(config).__name__), base=llama()) == []
    # LoRA-FA: A stays as it was drawn (arXiv 2308.03303)
    model = lora(llama())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    assert troubles(trained(model), optimizer_of(model), batch_of(model)) == []


def test_a_model_of_our_own_with_lora_of_peft_is_sound(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make("small_classifier"), LoraConfig(r=2, target_modules=["query", "value"]))
    assert (
        troubles(model, optimizer_of(model), {"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.ones(2, 3)})
        == []
    )
    randomise(model.base_model.model.base_model.blocks)
    assert troubles(saved(model, tmp_path), base=make("small_classifier")) == []


@pytest.mark.parametrize("kind", ["gpt2_head", "vit_head", "bert_head"])
def test_other_architectures_are_sound(kind):
    from models import inputs
    from peft import LoraConfig, get_peft_model

    model, batch = make(kind), inputs(make(kind))
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    assert troubles(model, optimizer_of(model), batch) == []


# --- How it is said -------------------------------------------------------------------------------------------------


def test_the_likeliest_cause_is_said_first_and_each_once():
    found = diagnosis([Finding(trouble, "what", "where", "do") for trouble in [*reversed(TROUBLES), "keys"]], "all")
    assert [finding.trouble for finding in found] == list(TROUBLES)
    assert str(found).startswith("1. what\n   where:  where\n   remedy: do\n2. ")
    assert repr(found) == str(found) and len(found) == len(TROUBLES)


def test_it_works_without_peft():
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from adapters_lesson import *\nfrom adapters_lesson.doctor import diagnose\n"
        "m = SmallTransformer(SmallTransformerConfig())\ninsert_adapters(m, AdapterConfig(4))\n"
        "print(len(diagnose(m)))\nset_active_adapter(m, None)\nprint(diagnose(m).findings[0].trouble)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "inactive"]
