"""A bottleneck adapter as a tuner of peft: all that peft does with its own methods, and this course's own numbers."""

import copy
import json
import subprocess
import sys
from contextlib import nullcontext

import peft
import pytest
import torch
import transformers
from models import inputs, loss, make, output, randomise, slots
from torch import nn

from adapters_lesson import AdapterConfig, LoRAConfig, insert_adapters
from adapters_lesson.doctor import diagnose
from adapters_lesson.exchange.peft import export_peft, import_peft
from adapters_lesson.exchange.peft_bottleneck import BottleneckConfig, BottleneckLayer
from adapters_lesson.insertion import adapter_config, set_trainable

KINDS = ("bert", "bert_head", "gpt2", "gpt2_head", "llama", "llama_head", "distilbert", "qwen2")
PLACES = ("houlsby", "pfeiffer")
# What transformers has renamed and peft still calls; no other warning is let through.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning"),
]


def layers(model):
    return [module for module in model.modules() if isinstance(module, BottleneckLayer)]


def pushed(model, std=0.5):
    """Every adapter of peft's changes what is computed."""
    for layer in layers(model):
        for adapter in layer.bottleneck_adapters.values():
            randomise(adapter, std=std)
    return model.eval()


def theirs(kind, placement="houlsby", **more):
    return peft.get_peft_model(make(kind), BottleneckConfig(bottleneck_dim=4, placement=placement, **more))


def hidden(model):
    """What transformers records of every block, (rows, tokens, d) each."""
    return model(**inputs(model), output_hidden_states=True).hidden_states


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", PLACES)
def test_the_same_numbers_and_gradients_as_ours(kind, placement):
    ours, wrapped = make(kind), theirs(kind, placement)
    insert_adapters(ours, AdapterConfig(4, placement=placement))
    set_trainable(ours)
    assert len(layers(wrapped)) == len(slots(ours))
    for layer, slot in zip(layers(wrapped), slots(ours), strict=True):
        randomise(slot["default"], std=0.5)
        layer.bottleneck_adapters["default"].load_state_dict(slot["default"].state_dict())
    ours.eval(), wrapped.eval()
    assert torch.equal(output(ours), output(wrapped.get_base_model()))
    assert all(torch.equal(a, b) for a, b in zip(hidden(ours), hidden(wrapped.get_base_model()), strict=True))
    loss(ours).backward(), loss(wrapped.get_base_model()).backward()
    for layer, slot in zip(layers(wrapped), slots(ours), strict=True):
        for a, b in zip(layer.bottleneck_adapters["default"].parameters(), slot["default"].parameters(), strict=True):
            assert a.grad.abs().max() > 0 and torch.allclose(a.grad, b.grad, rtol=1e-6)
    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad}
    assert trained and all(".bottleneck_adapters.default." in name for name in trained)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", PLACES)
def test_peft_saves_it_and_both_of_us_load_it(kind, placement, tmp_path):
    wrapped = pushed(
        theirs(kind, placement, activation="relu", scaling=2.0, layers=[0, 2] if kind != "distilbert" else None)
    )
    wanted = output(wrapped.get_base_model())
    assert not torch.allclose(wanted, output(make(kind).eval()), atol=1e-3)
    wrapped.save_pretrained(str(tmp_path))
    again = peft.PeftModel.from_pretrained(make(kind), str(tmp_path), adapter_name="again").eval()
    assert torch.equal(output(again.get_base_model()), wanted)
    assert [finding.trouble for finding in diagnose(tmp_path, base=make(kind))] == []
    assert [finding.trouble for finding in diagnose(again)] == []
    ours = make(kind)
    with pytest.warns(match="has no head") if kind == "bert_head" else nullcontext():
        assert import_peft(ours, tmp_path, "ours") == "ours"
    assert torch.equal(output(ours.eval()), wanted)
    assert adapter_config(ours, "ours") == wrapped.peft_config["default"].ours()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "config",
    [AdapterConfig(3, activation="silu"), AdapterConfig(reduction_factor=8, placement="pfeiffer", layers=(1,))],
)
def test_we_export_it_and_peft_loads_it(kind, config, tmp_path):
    ours = make(kind)
    insert_adapters(ours, config)
    for slot in slots(ours):
        randomise(slot["default"], std=0.5)
    wanted = output(ours.eval())
    export_peft(ours, tmp_path)
    wrapped = peft.PeftModel.from_pretrained(make(kind), str(tmp_path)).eval()
    assert torch.equal(output(wrapped.get_base_model()), wanted)
    again = make(kind)
    import_peft(again, tmp_path)
    assert torch.equal(output(again.eval()), wanted)


@pytest.mark.parametrize("placement", PLACES)
def test_several_adapters(placement):
    wrapped = theirs("llama_head", placement)
    base = wrapped.get_base_model()
    bare = output(make("llama_head").eval())
    wrapped.add_adapter("other", BottleneckConfig(bottleneck_dim=8, placement=placement))
    pushed(wrapped)
    first = output(base)
    wrapped.set_adapter("other")
    second = output(base)
    assert not torch.allclose(first, second, atol=1e-3) and wrapped.active_adapter == "other"
    assert all(".other." in name for name, p in wrapped.named_parameters() if p.requires_grad)
    with wrapped.disable_adapter():
        assert torch.equal(output(base), bare)
    assert torch.equal(output(base), second)
    wrapped.set_adapter("default")
    assert torch.equal(output(base), first)
    wrapped.delete_adapter("other")
    assert torch.equal(output(base), first) and list(wrapped.peft_config) == ["default"]
    assert torch.equal(output(wrapped.unload()), bare)


@pytest.mark.parametrize("kind", ["bert_head", "gpt2_head", "llama_head"])
@pytest.mark.parametrize("placement", PLACES)
def test_what_transformers_records_is_adapted_and_unloading_leaves_nothing(kind, placement):
    base = make(kind).eval()
    bare = hidden(base)  # transformers puts its hooks there at the first call, before peft comes
    wrapped = pushed(peft.get_peft_model(base, BottleneckConfig(bottleneck_dim=4, placement=placement)))
    late = hidden(base)
    again = copy.deepcopy(wrapped)
    assert all(torch.equal(a, b) for a, b in zip(late, hidden(again.get_base_model()), strict=True))
    first = theirs(kind, placement)
    for ours, other in zip(layers(first), layers(wrapped), strict=True):
        ours.bottleneck_adapters.load_state_dict(other.bottleneck_adapters.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(late, hidden(first.eval().get_base_model()), strict=True))
    assert not torch.equal(late[1], bare[1])
    assert all(torch.equal(a, b) for a, b in zip(bare, hidden(wrapped.unload()), strict=True))
    assert not torch.equal(hidden(again.get_base_model())[1], bare[1])


@pytest.mark.parametrize("placement", PLACES)
def test_loading_without_a_second_copy_and_by_transformers_alone(placement, tmp_path):
    wrapped = pushed(theirs("llama_head", placement))
    wanted = output(wrapped.get_base_model())
    wrapped.save_pretrained(str(tmp_path))
    again = peft.PeftModel.from_pretrained(make("llama_head"), str(tmp_path), low_cpu_mem_usage=True).eval()
    assert torch.equal(output(again.get_base_model()), wanted)
    plain = make("llama_head")
    plain.load_adapter(str(tmp_path))
    assert torch.equal(output(plain.eval()), wanted)
    plain.disable_adapters()
    assert torch.equal(output(plain), output(make("llama_head").eval()))


@pytest.mark.parametrize("placement", PLACES)
def test_it_is_never_merged(placement):
    wrapped = pushed(theirs("gpt2_head", placement))
    before = output(wrapped.get_base_model())
    for call in (wrapped.merge_and_unload, wrapped.merge_adapter, wrapped.unmerge_adapter):
        with pytest.raises(ValueError, match="cannot be merged: save it beside the base model"):
            call()
    assert torch.equal(output(wrapped.get_base_model()), before)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="parallel"):
        BottleneckConfig(placement="parallel")
    with pytest.raises(ValueError, match="bottleneck_dim"):
        BottleneckConfig(bottleneck_dim=0)
    with pytest.raises(ValueError, match=r"layers=\[5\]: the model has blocks 0 to 2, not \[5\]"):
        theirs("bert", layers=[5])
    wrapped = theirs("bert", "houlsby")
    with pytest.raises(ValueError, match="have the same placement"):
        wrapped.add_adapter("other", BottleneckConfig(placement="pfeiffer"))
    assert list(wrapped.peft_config) == ["default"]
    with pytest.raises(ValueError, match=r"adapter_names=.*call set_adapter\(name\)"):
        wrapped(**inputs(make("bert")), adapter_names=["default", "default"])
    plain = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    with pytest.raises(ValueError, match=r"adapters of a Sequential go is not known here: target_modules=\[…\]"):
        peft.get_peft_model(plain, BottleneckConfig())
    with pytest.raises(ValueError, match="1 is a Dropout, whose width is not known"):
        peft.get_peft_model(plain, BottleneckConfig(target_modules=["1"]))


def test_target_modules_as_in_pefts_other_methods():
    wrapped = peft.get_peft_model(
        make("bert"), BottleneckConfig(bottleneck_dim=4, target_modules=["intermediate.dense"])
    )
    assert len(layers(wrapped)) == 3
    assert all(layer.bottleneck_adapters["default"].down_project.in_features == 32 for layer in layers(wrapped))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("placement", PLACES)
def test_gradient_checkpointing(placement, reentrant):
    gradients = []
    for checkpointing in (False, True):
        wrapped = pushed(theirs("llama_head", placement)).train()
        if checkpointing:
            wrapped.enable_input_require_grads()
            wrapped.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant})
        loss(wrapped.get_base_model()).backward()
        gradients.append([p.grad for p in wrapped.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("autocast", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_a_base_in_half_precision_gets_adapters_in_single_or_in_its_own(autocast, dtype):
    base, config = make("llama_head").bfloat16(), BottleneckConfig(bottleneck_dim=4)
    wrapped = peft.get_peft_model(base, config, autocast_adapter_dtype=autocast)
    assert {p.dtype for p in wrapped.parameters() if p.requires_grad} == {dtype}
    assert output(wrapped.get_base_model()).dtype == torch.bfloat16


@pytest.mark.parametrize("placement", PLACES)
def test_transformers_trainer_and_a_head(placement, tmp_path):
    wrapped = theirs("bert_head", placement, task_type="SEQ_CLS")
    before = {name: p.detach().clone() for name, p in wrapped.named_parameters()}
    rows = [
        {"input_ids": row, "labels": torch.tensor(n % 2)}
        for n, row in enumerate(inputs(make("bert_head"))["input_ids"].repeat(4, 1))
    ]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"),
        max_steps=3,
        learning_rate=0.1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    transformers.Trainer(wrapped, arguments, train_dataset=rows).train()
    moved = {name for name, p in wrapped.named_parameters() if not torch.equal(p, before[name])}
    assert all(".bottleneck_adapters.default." in n or ".modules_to_save.default." in n for n in moved)
    assert any("classifier" in name for name in moved) and any("up_project" in name for name in moved)
    wrapped.eval()
    wanted = output(wrapped.get_base_model())
    wrapped.save_pretrained(str(tmp_path / "saved"))
    again = peft.PeftModel.from_pretrained(make("bert_head"), str(tmp_path / "saved")).eval()
    assert torch.equal(output(again.get_base_model()), wanted)
    ours = make("bert_head")
    import_peft(ours, tmp_path / "saved")
    assert torch.equal(output(ours.eval()), wanted)


def test_what_peft_has_no_place_for_is_refused(tmp_path):
    for config in (AdapterConfig(4, placement="parallel"), AdapterConfig(4, train_layer_norms=True)):
        model = make("bert")
        insert_adapters(model, config)
        with pytest.raises(ValueError, match="for which peft has no place"):
            export_peft(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_place_is_refused_and_nothing_changes(tmp_path):
    theirs("bert", "houlsby").save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_config.json"
    settings = json.loads(file.read_text())
    for change, match in (
        ({"placement": "pfeiffer"}, "other places than the file"),
        ({"layers": [0]}, "other places than the file"),
        ({"bottleneck_dim": 8}, "shape"),
        ({"activation": "step"}, "adapter_config.json: .*step"),
        ({"tau": 3}, "tau=3 cannot be imported"),
    ):
        file.write_text(json.dumps(settings | change))
        model = make("bert")
        with pytest.raises(ValueError, match=match):
            import_peft(model, tmp_path)
        assert not slots(model)


def test_without_this_module_peft_knows_no_such_type(tmp_path):
    theirs("bert").save_pretrained(str(tmp_path))
    code = f"import peft, sys; peft.PeftConfig.from_pretrained({str(tmp_path)!r})"
    for first, fails in (("", True), ("import adapters_lesson.exchange.peft_bottleneck; ", False)):
        done = subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr


def test_lora_and_bottlenecks_of_a_model_do_not_mix_in_a_folder(tmp_path):
    model = make("bert")
    insert_adapters(model, LoRAConfig(2), "lora")
    insert_adapters(model, AdapterConfig(4), "bottleneck")
    for name, kind in (("lora", "LORA"), ("bottleneck", "BOTTLENECK")):
        export_peft(model, tmp_path / name, name)
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["peft_type"] == kind
        assert isinstance(peft.PeftModel.from_pretrained(make("bert"), str(tmp_path / name)), nn.Module)
