"""Hooks that hold: threads, copies, replicas, torch.compile, peft, offloading, fake tensors, places that never run."""

import copy
import threading

import pytest
import torch
from models import DEPTH, inputs, make, output, randomise, slots, small, train_steps
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from adapters_lesson import (
    Adapter,
    AdapterBank,
    AdapterConfig,
    Architecture,
    insert_adapters,
    remove_adapters,
    set_active_adapter,
    set_trainable,
)
from adapters_lesson.placements import PLACEMENTS
from adapters_lesson.slots import _PASS, PEFT_EXCLUDE

RANDOM = {"init": "houlsby", "init_std": 0.5}
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)
IDS, MASK = torch.randint(2, 40, (3, 6), generator=torch.Generator().manual_seed(1)), torch.ones(3, 6).long()


def adapted(name, placement, **more):
    model = make(name)
    insert_adapters(model, AdapterConfig(4, placement=placement, **RANDOM, **more))
    randomise(model, 0.2)
    return model


def banked(placement):
    bank = AdapterBank(make("small_post"))
    for name in "ab":
        bank.add(name, AdapterConfig(4, placement=placement, **RANDOM), 2)
    return bank.eval()


def on_threads(*calls):
    """Call each many times on a thread of its own; what went wrong."""
    wrong = []

    def repeat(call):
        try:
            for _ in range(60):
                call()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@every_placement
def test_mixed_batches_on_several_threads(placement):
    bank = banked(placement)
    rows = {task: [task] * 3 for task in "ab"} | {"mixed": ["b", None, "a"]}
    with torch.no_grad():
        wanted = {task: bank(IDS, MASK, of) for task, of in rows.items()}

    def ask(task):
        with torch.no_grad():
            for row, right in zip(bank(IDS, MASK, rows[task]), wanted[task], strict=True):
                torch.testing.assert_close(row, right)

    assert not torch.allclose(wanted["a"][0], wanted["b"][0])
    assert on_threads(*(lambda task=task: ask(task) for task in rows)) == []


@every_placement
@pytest.mark.parametrize("name", ["small_post", "gpt2"])
def test_one_model_on_several_threads(name, placement):
    model = adapted(name, placement)
    texts = [torch.randint(2, 40, (2, length), generator=torch.Generator().manual_seed(length)) for length in (5, 9)]

    def call(ids):
        result = model(input_ids=ids)
        return result if isinstance(result, torch.Tensor) else result[0]

    wanted = [call(ids).detach() for ids in texts]
    checks = [lambda i=i: torch.testing.assert_close(call(texts[i]).detach(), wanted[i]) for i in (0, 1)]
    assert on_threads(*checks) == []


@every_placement
def test_a_copy_after_an_interrupted_forward_pass(placement):
    model = adapted("small_post", placement)
    wanted = output(model)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.blocks[1].ffn.contract.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(IDS, MASK)
    handle.remove()
    assert torch.equal(output(copy.deepcopy(model)), wanted)
    assert torch.equal(output(model), wanted)
    assert _PASS.residual is None


def replica_of(model):
    """What nn.DataParallel makes on each GPU: shallow copies of the modules, wired together, with copied tensors."""
    modules = list(model.modules())
    place = {module: i for i, module in enumerate(modules)}
    replicas = [module._replicate_for_data_parallel() for module in modules]
    for module, replica in zip(modules, replicas, strict=True):
        for name, child in module._modules.items():
            setattr(replica, name, None if child is None else replicas[place[child]])
        for name, parameter in module._parameters.items():
            setattr(replica, name, None if parameter is None else parameter.detach().clone())
    return replicas[0]


@every_placement
@pytest.mark.parametrize(("name", "norms"), [("small_post", True), ("bert", False), ("gpt2", True)])
def test_a_replica_uses_its_own_adapters(name, norms, placement):
    model = adapted(name, placement, train_layer_norms=norms)
    wanted, replica = output(model), replica_of(model)
    for adapter in (module for module in model.modules() if isinstance(module, Adapter)):
        adapter.scaling = 0.0
        nn.init.zeros_(adapter.up_project.weight)
    with torch.no_grad():
        result = replica(**inputs(model))
    torch.testing.assert_close(result if isinstance(result, torch.Tensor) else result[0], wanted)
    assert not torch.allclose(output(model), wanted)


@pytest.mark.parametrize(("placement", "backend"), zip(PLACEMENTS, ["eager", "aot_eager", "eager"], strict=True))
def test_a_bank_compiles_into_one_graph_with_a_mixed_batch(placement, backend):
    bank, rows = banked(placement), ["b", None, "a"]
    compiled = torch.compile(bank, fullgraph=True, backend=backend)
    for row, right in zip(compiled(IDS, MASK, rows), bank(IDS, MASK, rows), strict=True):
        torch.testing.assert_close(row, right)
    for task in "ab":
        bank.switch(task)
        torch.testing.assert_close(compiled(IDS, MASK), bank(IDS, MASK))


@pytest.mark.parametrize(("placement", "name"), zip(PLACEMENTS, ["small_post", "bert", "gpt2"], strict=True))
def test_what_was_compiled_first_sees_adapters_that_come_and_go(placement, name):
    model = make(name)
    compiled = torch.compile(model, backend="eager")

    def answer():
        with torch.no_grad():
            result = compiled(**inputs(model))
        return result if isinstance(result, torch.Tensor) else result[0]

    bare = answer()
    insert_adapters(model, AdapterConfig(4, placement=placement, train_layer_norms=True, **RANDOM))
    assert not torch.allclose(answer(), bare, atol=1e-3)
    torch.testing.assert_close(answer(), output(model))
    set_active_adapter(model, None)
    torch.testing.assert_close(answer(), bare)
    set_active_adapter(model, "default")
    torch.testing.assert_close(answer(), output(model))
    remove_adapters(model)
    torch.testing.assert_close(answer(), bare)


def test_refuses_a_host_that_is_never_called():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    names = {"attention_output": "self_attn.out_proj", "ffn_output": "linear2", "ffn_input": "linear1"}
    at = Architecture(layers="layers", **names, norms=("norm1", "norm2"), norm="post")
    with pytest.raises(ValueError, match=r"attention_output is .* inside 'self_attn', an nn.MultiheadAttention"):
        insert_adapters(model, AdapterConfig(4), architecture=at)
    assert not slots(model)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bare = model(x)
        insert_adapters(model, AdapterConfig(4, placement="pfeiffer", **RANDOM), architecture=at)
        assert not torch.allclose(model(x), bare, atol=1e-3)  # there the adapters are called


@every_placement
def test_peft_takes_all_linear_layers_of_the_base(placement):
    from peft import LoraConfig, get_peft_model

    model = adapted("bert", placement)
    wanted = output(model)
    lora = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", exclude_modules=PEFT_EXCLUDE))
    torch.testing.assert_close(output(lora), wanted)
    with_lora = [name for name, _ in lora.named_parameters() if "lora_A" in name]
    assert len(with_lora) == 6 * DEPTH + 1  # the pooler
    assert not any("adapters_" in name.partition("lora_A")[0] for name in with_lora)
    torch.testing.assert_close(output(lora.merge_and_unload()), wanted)


@every_placement
def test_insertion_into_an_offloaded_model(placement):
    from accelerate import cpu_offload

    wanted, model = make("bert"), make("bert")
    cpu_offload(model, torch.device("cpu"))
    for one in (wanted, model):
        torch.manual_seed(3)
        insert_adapters(one, AdapterConfig(4, placement=placement, **RANDOM))
    torch.testing.assert_close(output(model), output(wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_placement
def test_insertion_under_fake_tensors(placement, dtype):
    with FakeTensorMode():
        torch.set_default_dtype(dtype)
        try:
            model = small()
        finally:
            torch.set_default_dtype(torch.float32)
        insert_adapters(model, AdapterConfig(4, placement=placement, init="bert"))
        result = model(torch.zeros(2, 5, dtype=torch.long))
    assert (result.shape, result.dtype) == ((2, 5, 16), dtype)


def test_print_shows_an_adapter_where_it_works():
    model = small()
    insert_adapters(model, AdapterConfig(4))
    lines = [line.strip() for line in str(model.blocks[0].attention.output).splitlines()]
    assert lines[2:4] == ["(adapters_after): SequentialSlot(", "(default): Adapter("]


def test_training_after_a_thread_has_used_a_routing():
    bank = banked("parallel")
    with torch.no_grad():
        assert on_threads(lambda: bank(IDS, MASK, ["a", "b", "a"])) == []
    bank.switch("a")
    before = bank.logits("a", bank.features(IDS, MASK))
    assert before.shape == (3, 2)


def test_set_trainable_leaves_a_language_model_s_head_unless_asked():
    model = make("llama_head")
    insert_adapters(model, AdapterConfig(4))
    set_trainable(model)
    assert not model.lm_head.weight.requires_grad
    train_steps(model)
    set_trainable(model, head=True)
    assert model.lm_head.weight.requires_grad


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
@every_placement
def test_recorded_states_are_the_adapted_ones_however_early_they_were_asked_for(placement, name):
    """transformers hangs its hooks on the blocks at the first call that asks, and leaves them there."""

    def recorded(model):
        with torch.no_grad():
            return model(IDS, output_hidden_states=True).hidden_states

    wanted = recorded(adapted(name, placement))
    model = make(name)
    recorded(model)
    insert_adapters(model, AdapterConfig(4, placement=placement, **RANDOM))
    randomise(model, 0.2)
    for one, other in zip(recorded(model), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_an_adapter_sees_a_trained_layer_norm_that_came_before_it():
    model, alone = make("bert"), make("bert")
    insert_adapters(model, AdapterConfig(4, train_layer_norms=True, **RANDOM), "first")
    for one in (model, alone):
        torch.manual_seed(3)
        insert_adapters(one, AdapterConfig(4, placement="pfeiffer", train_layer_norms=True, **RANDOM), "second")
    torch.testing.assert_close(output(model), output(alone))


def test_an_import_of_the_compiler_that_was_cut_off_does_no_harm(monkeypatch):
    """As a check's time limit does on a busy machine: parts of it are there, and it knows nothing of them."""
    import torch._dynamo

    monkeypatch.delattr(torch._dynamo, "utils")
    with pytest.raises(AttributeError, match="utils"):
        torch.compiler.reset()
    assert slots(adapted("small_post", "houlsby"))
