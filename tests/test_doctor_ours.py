"""The doctor and the course's own adapters: each typical reason why something does not train, and what is sound."""

import pytest
import torch
from models import VOCAB, inputs, make, randomise, slots, small
from torch.utils.checkpoint import checkpoint

from adapters_lesson import AdapterConfig, Classifier, drop_adapters, freeze, insert_adapters, remove_adapters
from adapters_lesson.bank import AdapterBank
from adapters_lesson.composition import fuse_adapters, stack_adapters
from adapters_lesson.doctor import diagnose
from adapters_lesson.insertion import set_active_adapter, set_trainable
from adapters_lesson.methods import prepare

PFEIFFER = AdapterConfig(3, placement="pfeiffer")


def model_with(*names, config=PFEIFFER, trained=True):
    """A classifier with adapters; those of the last name are trained."""
    model = Classifier(make("small_post"), 2)
    for name in names:
        insert_adapters(model, config, name)
        for slot in slots(model):
            if name in slot:
                randomise(slot[name])
    if trained and names:
        set_trainable(model, names[-1])
    return model.eval()


def optimizer_of(model, kind=torch.optim.AdamW):
    return kind([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def batch():
    ids = torch.randint(2, VOCAB, (3, 5), generator=torch.Generator().manual_seed(1))
    return ids, torch.ones_like(ids)


def backward(model):
    logits = model(*batch())
    (logits * torch.arange(1, 1 + logits.numel()).view_as(logits)).sum().backward()


def troubles(model, *args, **named):
    return [finding.trouble for finding in diagnose(model, *args, **named)]


def only(model, *args, **named):
    (finding,) = diagnose(model, *args, **named)
    return finding


# --- What is sound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("init", ["zero", "bert", "houlsby"])
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_each_placement_and_start_is_sound(placement, init, norms):
    model = Classifier(make("small_post"), 2)
    insert_adapters(model, AdapterConfig(3, placement=placement, init=init, train_layer_norms=norms))
    set_trainable(model)
    optimizer = optimizer_of(model)
    assert troubles(model) == troubles(model, optimizer, batch()) == []
    backward(model)
    assert troubles(model, optimizer) == []
    optimizer.step()
    assert troubles(model, optimizer, batch()) == []


@pytest.mark.parametrize("method", ["full", "head", "layer_norm", "bitfit", "adapter", "lora"])
def test_each_method_is_sound(method):
    model = Classifier(make("bert"), 2)
    prepare(model, method)
    assert troubles(model, optimizer_of(model), batch()) == []


def bank():
    result = AdapterBank(make("small_post"))
    for name in ("film", "hotel", "sport"):
        result.add(name, PFEIFFER, 2)
    for slot in slots(result):
        for name in slot:
            randomise(slot[name])
    return result.eval()


def test_a_bank_its_stack_and_its_fusion_are_sound():
    model = bank()
    assert troubles(model, optimizer_of(model), batch()) == []
    model.stack(["film", "hotel"], "stacked", 2)
    assert troubles(model, optimizer_of(model), batch()) == []
    model.fuse(["film", "hotel"], "fused", 2)
    assert troubles(model, optimizer_of(model), batch()) == []
    model.switch(None)
    assert troubles(model) == []  # a mixed batch names its adapters itself


def test_stacks_and_fusions_without_a_bank_are_sound():
    for compose in (stack_adapters, fuse_adapters):
        model = model_with("film", "hotel", trained=False)
        compose(model, ["film", "hotel"], "both")
        set_trainable(model, "both")
        assert troubles(model, optimizer_of(model), batch()) == []


def test_adapters_that_were_dropped_are_sound():
    model = model_with("film")
    drop_adapters(model, [0, 1])
    assert troubles(model) == []
    set_trainable(model, "film")
    assert only(model, optimizer_of(model)).what == "'film' is switched off at 2 of its 3 places and trained there"


# --- The mistakes ---------------------------------------------------------------------------------------------------


def test_the_optimizer_was_built_before_insertion():
    model = model_with(trained=False)
    freeze(model.base_model)
    optimizer = optimizer_of(model)
    insert_adapters(model, PFEIFFER, "film")
    set_trainable(model, "film")
    finding = only(model, optimizer)
    assert finding.trouble == "optimiser"
    assert finding.what == "the optimiser has 2 of 14 tensors that are to be trained"
    assert finding.where == ", ".join(f"base_model.blocks.{i}.ffn_norm.adapters_before_norm" for i in range(3))
    assert troubles(model, torch.optim.SGD(slots(model)[0].parameters(), lr=0.1)) == ["optimiser"]


def test_a_task_that_came_after_the_optimizer():
    model = bank()
    optimizer = optimizer_of(model)
    model.add("late", PFEIFFER, 2)
    finding = only(model, optimizer)
    assert finding.what == "the optimiser has 0 of 14 tensors that are to be trained"
    assert troubles(model, optimizer_of(model)) == []


def test_adapters_that_were_removed():
    model = model_with("film")
    optimizer = torch.optim.SGD(slots(model)[0].parameters(), lr=0.1)
    remove_adapters(model, "film")
    assert only(model, optimizer).trouble == "no adapter"
    insert_adapters(model, PFEIFFER, "film")
    set_trainable(model, "film")
    assert "0 of 14 tensors that are to be trained, and 4 that the model does not have" in only(model, optimizer).what
    assert only(small()).trouble == "no adapter"


def test_frozen_wholly_or_in_part():
    model = model_with("film")
    optimizer = optimizer_of(model)
    slots(model)[1]["film"].requires_grad_(False)
    assert only(model, optimizer).what == "1 of 3 places of 'film' are frozen"
    freeze(model)
    assert only(model, optimizer).what == "3 of 3 places of 'film' are frozen"
    assert troubles(model) == []  # who only answers freezes all
    for slot in slots(model):
        slot["film"].reset_parameters()
    assert only(model).trouble == "zero"  # but what is zero and frozen will never do anything


def test_switched_off():
    model = model_with("film", "hotel")
    assert troubles(model) == troubles(model, optimizer_of(model)) == []
    optimizer = torch.optim.SGD([p for slot in slots(model) for p in slot["film"].parameters()], lr=0.1)
    set_trainable(model, "film")
    assert "'film' is switched off at 3 of its 3 places and trained there" in [
        f.what for f in diagnose(model, optimizer)
    ]
    set_active_adapter(model, None)
    finding = only(model)
    assert finding.what == "'film' is switched off at 3 of its 3 places: the bare base model answers"
    assert finding.remedy.startswith("set_active_adapter(model, 'film')")


def test_a_learning_rate_of_zero():
    model = model_with("film")
    optimizer = optimizer_of(model)
    optimizer.param_groups[0]["lr"] = 0.0
    assert only(model, optimizer).trouble == "learning rate"


def test_values_that_are_not_finite():
    model = model_with("film")
    slots(model)[1]["film"].up_project.bias.data[0] = float("nan")
    finding = only(model, batch=batch())
    assert finding.trouble == "not finite" and finding.what.startswith("1 of 3 adapters")
    model = model_with("film")
    model.head.bias.data[0] = float("inf")
    assert only(model, batch=batch()).what.startswith("the loss of this batch is ")


def test_gradients_that_are_zero_missing_or_not_finite():
    model = model_with("film")
    backward(model)
    assert troubles(model) == []
    adapter = [p for slot in slots(model) for p in slot.parameters()]
    for parameter in adapter:
        parameter.grad.zero_()
    assert only(model).what.startswith("the gradient of all adapters is zero")
    adapter[0].grad[0, 0] = float("inf")
    assert only(model).trouble == "not finite"
    model.zero_grad(set_to_none=False)
    assert troubles(model) == []  # cleared
    for parameter in slots(model)[0].parameters():
        parameter.grad = None
    adapter[-1].grad.fill_(1)
    finding = only(model)
    assert finding.what == "no gradient reaches 1 of 3 adapters that are trained"
    assert finding.where == "base_model.blocks.0.ffn_norm.adapters_before_norm"


class NoGrad(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.base_model, self.head = model.base_model, model.head

    def forward(self, ids, mask):
        with torch.no_grad():
            features = self.base_model(ids, mask).mean(1)
        return self.head(features)


def test_the_base_model_runs_under_no_grad():
    model = NoGrad(model_with("film"))
    assert only(model, batch=batch()).what == "no gradient reaches 3 of 3 adapters that are trained"
    model.head.requires_grad_(False)
    assert '"element 0 of tensors does not require grad"' in only(model, batch=batch()).what
    with torch.no_grad():
        assert only(model_with("film"), batch=batch()).what.endswith("under torch.no_grad() or inference_mode()")


def test_a_place_that_was_never_called():
    class Skips(torch.nn.Module):  # uses the weight of a projection, as nn.MultiheadAttention does
        def __init__(self, attention):
            super().__init__()
            self.attention, self.output = attention, attention.output

        def forward(self, x, mask):
            return torch.nn.functional.linear(x, self.output.weight, self.output.bias)

    model = model_with("film", config=AdapterConfig(3))
    block = model.base_model.blocks[1]
    block.attention = Skips(block.attention)
    finding = only(model, batch=batch())
    assert finding.trouble == "gradient" and "see that the model calls the modules" in finding.remedy
    assert finding.where == "base_model.blocks.1.attention.attention.output.adapters_after"


def test_a_call_that_fails():
    finding = only(model_with("film"), batch={"words": 1})
    assert finding.what.startswith("the forward pass fails: TypeError: ") and "'words'" in finding.what


@pytest.mark.parametrize("head", [True, False])
def test_reentrant_checkpointing_leaves_lower_layers_untrained(head):
    class Checkpointed(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x, mask):
            return checkpoint(self.block, x, mask, use_reentrant=True)

    model = model_with("film")
    model.base_model.blocks[0] = Checkpointed(model.base_model.blocks[0])
    model.head.requires_grad_(head)
    assert only(model, batch=batch()).trouble == "checkpointing"


def test_reentrant_checkpointing_in_transformers():
    model = make("vit_head")
    insert_adapters(model, AdapterConfig(3, init="bert"))
    set_trainable(model)
    model.gradient_checkpointing_enable({"use_reentrant": True})  # no words, no embeddings: no help by transformers
    assert only(model).trouble == only(model, batch=inputs(model)).trouble == "checkpointing"
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert troubles(model, optimizer_of(model), inputs(model)) == []


# --- The pass leaves everything as it was -----------------------------------------------------------------------------


class WithBuffers(torch.nn.Module):
    """Draws random numbers, counts in a buffer, replaces another, and steps an optimiser in a hook."""

    def __init__(self):
        super().__init__()
        self.inner = model_with("film", config=AdapterConfig(3, dropout=0.5))
        self.norm = torch.nn.BatchNorm1d(2)
        self.register_buffer("last", torch.zeros(2))
        optimizer = optimizer_of(self)
        next(iter(slots(self)[0].parameters())).register_post_accumulate_grad_hook(lambda p: optimizer.step())

    def forward(self, ids, mask):
        logits = self.norm(self.inner(ids, mask))
        self.last = logits.detach()[0]
        return logits


def test_a_pass_leaves_all_as_it_was():
    model = WithBuffers().train()
    model.inner.head.eval()
    first, *others = [p for p in model.parameters() if p.requires_grad]
    first.grad = torch.ones_like(first)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    buffer, grad, modes, random = model.last, first.grad, [m.training for m in model.modules()], torch.get_rng_state()
    assert troubles(model, None, batch()) == []
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert model.last is buffer and first.grad is grad and bool((grad == 1).all())
    assert all(p.grad is None for p in others) and [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random) and not any(slot.called for slot in slots(model))
    model(*batch()).sum().backward()  # that this model does all of that by itself is what makes it a test
    assert not torch.equal(model.state_dict()["norm.running_mean"], state["norm.running_mean"])
    assert not torch.equal(torch.get_rng_state(), random) and model.last is not buffer
    assert any(not torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items() if "adapters" in key)
