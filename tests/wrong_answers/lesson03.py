import copy
from functools import partial

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson import Adapter


def hooked(after_attention=True, after_ffn=True, hook=None, register=True):
    """A family of answers that differ in one thing."""

    def insert(block, make_adapter):
        for wanted, projection in ((after_attention, block.attention.output), (after_ffn, block.ffn.contract)):
            adapter = make_adapter()
            if register:
                projection.adapter = adapter
            if wanted:
                change = hook or (lambda adapter, h: adapter(h))
                projection.register_forward_hook(lambda m, i, o, adapter=adapter: change(adapter, o))

    return insert


def late_bound(block, make_adapter):
    for projection in (block.attention.output, block.ffn.contract):
        adapter = make_adapter()
        projection.adapter = adapter
        projection.register_forward_hook(lambda m, i, o: adapter(o))


def one_for_both(block, make_adapter):
    adapter = make_adapter()
    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = adapter
        projection.register_forward_hook(lambda m, i, o: adapter(o))


def after_norms(block, make_adapter):
    for norm in (block.attention_norm, block.ffn_norm):
        norm.adapter = make_adapter()
        norm.register_forward_hook(lambda m, i, o: m.adapter(o))


def before_sublayers(block, make_adapter):
    for sublayer in (block.attention, block.ffn):
        sublayer.adapter = make_adapter()
        sublayer.register_forward_pre_hook(lambda m, i: (m.adapter(i[0]), *i[1:]))


def no_return(block, make_adapter):
    def hook(module, inputs, output):
        module.adapter(output)

    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = make_adapter()
        projection.register_forward_hook(hook)


def only_assigned(block, make_adapter):
    block.attention.output.adapter = make_adapter()
    block.ffn.contract.adapter = make_adapter()


def before_projections(block, make_adapter):
    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = make_adapter()
        projection.register_forward_pre_hook(lambda m, i: (m.adapter(i[0]),))


def attention_before(block, make_adapter):
    block.attention.output.adapter, block.ffn.contract.adapter = make_adapter(), make_adapter()
    block.attention.output.register_forward_pre_hook(lambda m, i: (m.adapter(i[0]),))
    block.ffn.contract.register_forward_hook(lambda m, i, o: m.adapter(o))


def tuple_from_hook(block, make_adapter):
    for projection in (block.attention_norm, block.ffn_norm):
        projection.adapter = make_adapter()
        projection.register_forward_hook(lambda m, i, o: (m.adapter(o),))


def tuple_at_the_end(block, make_adapter):
    right_loop(block, make_adapter)
    block.ffn_norm.register_forward_hook(lambda m, i, o: (o,))


shared_between_blocks = {}


def late_between_blocks(block, make_adapter):
    """The adapters are kept in one dictionary for all blocks."""
    for name, projection in (("attention", block.attention.output), ("ffn", block.ffn.contract)):
        projection.adapter = shared_between_blocks[name] = make_adapter()
        projection.register_forward_hook(lambda m, i, o, name=name: shared_between_blocks[name](o))


def wrong_width(block, make_adapter):
    for projection in (block.attention.output, block.ffn.expand):
        projection.adapter = make_adapter()
        projection.register_forward_hook(lambda m, i, o: m.adapter(o))


def right_loop(block, make_adapter):
    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = make_adapter()
        projection.register_forward_hook(lambda module, inputs, output: module.adapter(output))


def right_on_sublayers(block, make_adapter):
    block.ffn_adapter, block.attention_adapter = make_adapter(), make_adapter()
    block.attention.register_forward_hook(lambda m, i, o, a=block.attention_adapter: a(o))
    block.ffn.register_forward_hook(lambda m, i, o, a=block.ffn_adapter: a(o))


class Wrapped(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer, self.adapter = sublayer, adapter
        self.weight, self.bias = sublayer.weight, sublayer.bias

    def forward(self, x):
        return self.adapter(self.sublayer(x))


def right_wrapper(block, make_adapter):
    block.attention.output = Wrapped(block.attention.output, make_adapter())
    block.ffn.contract = Wrapped(block.ffn.contract, make_adapter())


def right_sequential(block, make_adapter):
    block.attention.output = nn.Sequential(block.attention.output, make_adapter())
    block.ffn.contract = nn.Sequential(block.ffn.contract, make_adapter())


def right_list(block, make_adapter):
    block.adapters = nn.ModuleList(make_adapter() for _ in range(2))
    for adapter, projection in zip(block.adapters, (block.attention.output, block.ffn.contract)):
        projection.register_forward_hook(partial(put, adapter))


def put(adapter, module, inputs, output):
    return adapter(output)


def right_forwards(block, make_adapter):
    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = make_adapter()
        projection.forward = partial(lambda old, p, x: p.adapter(old(x)), projection.forward, projection)


def freezer(adapters=True, head=True, keep=""):
    """A family of answers that differ in what stays on."""

    def freeze(model):
        inside = {id(p) for m in model.modules() if isinstance(m, Adapter) for p in m.parameters()}
        for name, p in model.named_parameters():
            is_adapter, is_head = id(p) in inside, name.startswith("head")
            base = bool(keep) and keep in name and not is_adapter and not is_head
            p.requires_grad_((adapters and is_adapter) or (head and is_head) or base)

    return freeze


def attribute_only(model):
    model.requires_grad = False
    for module in model.modules():
        if isinstance(module, Adapter):
            module.requires_grad = True


def eval_only(model):
    model.eval()


def only_weights_of_adapters(model):
    freezer()(model)
    for module in model.modules():
        if isinstance(module, Adapter):
            module.up_project.bias.requires_grad_(False)


def only_switches_off(model):
    for name, p in model.named_parameters():
        if ".adapter." not in name and not name.startswith("head"):
            p.requires_grad = False


def by_name(model):
    for name, p in model.named_parameters():
        p.requires_grad = ".adapter." in name or name.startswith("head")


def zeroes(model):
    freezer()(model)
    for p in model.head.parameters():
        nn.init.zeros_(p)


def by_the_class_name(model):
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith("head")
    for module in model.modules():
        if type(module).__name__ == "Adapter":
            for p in module.parameters():
                p.requires_grad = True


def right_recursive(model):
    def visit(module):
        for p in module.parameters(recurse=False):
            p.requires_grad = False
        for child in module.children():
            child.requires_grad_(True) if isinstance(child, Adapter) or child is model.head else visit(child)

    visit(model)


def right_freeze(model):
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Adapter):
            module.requires_grad_(True)
    model.head.requires_grad_(True)


def tester(compare, mode="eval"):
    """A family of identity tests that differ in the comparison."""

    def changes_nothing(model, insert, input_ids, attention_mask):
        if mode == "eval":
            model.eval()
        with torch.no_grad():
            before = model(input_ids, attention_mask)
            insert(model)
            return compare(before, model(input_ids, attention_mask))

    return changes_nothing


def after_with_after(model, insert, input_ids, attention_mask):
    insert(model)
    model.eval()
    return torch.equal(model(input_ids, attention_mask), model(input_ids, attention_mask))


def never_inserts(model, insert, input_ids, attention_mask):
    model.eval()
    return torch.equal(model(input_ids, attention_mask), model(input_ids, attention_mask))


def seeded(model, insert, input_ids, attention_mask):
    """Dropout stays on, but drops the same: unless what is inserted draws random numbers, too."""
    outputs = []
    for step in (lambda model: None, insert):
        step(model)
        torch.manual_seed(0)
        outputs.append(model(input_ids, attention_mask))
    return torch.equal(*outputs)


def right_with_copy(model, insert, ids, mask):
    import copy

    old = copy.deepcopy(model).eval()
    insert(model)
    return bool((old(ids, mask) == model.eval()(ids, mask)).all())


# 3.4


def parts(model):
    """Adapters, the parameters that should be trained, and those that are."""
    adapters = [m for m in model.modules() if isinstance(m, Adapter)]
    wanted = {p for m in (*adapters, model.head) for p in m.parameters()}
    return adapters, wanted, {p for p in model.parameters() if p.requires_grad}


def backward(model, batch):
    ids, mask, labels = batch
    F.cross_entropy(model(ids, mask), labels).backward()


def has_gradient(adapter):
    return adapter.up_project.weight.grad is not None and bool(adapter.up_project.weight.grad.any())


def hunter(look, step=True):
    """A family of tests that differ in what they look at after the insertion, and after one backward()."""

    def test(model, insert, batch):
        insert(model)
        if step:
            backward(model, batch)
        return look(model, *parts(model))

    return test


def learn(adapters):
    return all(map(has_gradient, adapters))


def any_gradient(adapter):
    return any(p.grad is not None and bool(p.grad.any()) for p in adapter.parameters())


def gradients_everywhere(adapter):
    return all(p.grad is not None and bool(p.grad.any()) for p in adapter.parameters())


def norms_aside(model):
    """Trained parameters of the base model, LayerNorms not looked at."""
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    return {
        name
        for name in names
        if not any(word in name for word in ("norm", "adapter", "contract.1", "output.1", "extra", "head"))
    }


is_sound = hunter(lambda m, a, w, on: bool(a) and w == on and learn(a))


def by_training(model, insert, batch):
    insert(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        backward(model, batch)
        optimizer.step()
    moved = {p for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    adapters, wanted, on = parts(model)
    return len(adapters) > 0 and moved == wanted == on


def with_autograd(model, insert, batch):
    """Gradients of the adapters' weights, asked for by name, and the base model's parameters taken before."""
    base = list(model.base_model.parameters())
    insert(model)
    adapters, wanted, _ = parts(model)
    if not adapters or any(p.requires_grad for p in base) or not all(p.requires_grad for p in wanted):
        return False
    ids, mask, labels = batch
    loss = F.cross_entropy(model(ids, mask), labels)
    weights = [a.up_project.weight for a in adapters]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return all(g is not None and g.abs().sum().item() > 0 for g in gradients)


def by_counting(model, insert, batch):
    insert(model)
    adapters, wanted, _ = parts(model)
    if not adapters:
        return False
    for adapter in adapters:
        if not all(p.requires_grad for p in adapter.parameters()):
            return False
    expected = sum(p.numel() for p in wanted)
    if sum(p.numel() for p in model.parameters() if p.requires_grad) != expected or not model.head.weight.requires_grad:
        return False
    backward(model, batch)
    for adapter in adapters:
        if adapter.up_project.weight.grad is None or torch.count_nonzero(adapter.up_project.weight.grad) == 0:
            return False
    return True


def identity_alone(model, insert, batch):
    return right_with_copy(model, insert, *batch[:2])


def inserts_twice(model, insert, batch):
    insert(model)
    return is_sound(model, insert, batch)


def asserts(model, insert, batch):
    insert(model)
    backward(model, batch)
    adapters, wanted, on = parts(model)
    assert adapters and wanted == on and all(map(has_gradient, adapters))
    return True


def names_of_base(model, insert, batch):
    """Looks the base model's parameters up by the names that they had."""
    names = [name for name, _ in model.base_model.named_parameters()]
    if not is_sound(model, insert, batch):
        return False
    after = dict(model.base_model.named_parameters())
    return not any(after[name].requires_grad for name in names)


def registered_crosswise(block, make_adapter):
    a, b = make_adapter(), make_adapter()
    block.attention.output.adapter, block.ffn.contract.adapter = a, b
    block.attention.output.register_forward_hook(lambda m, i, o: b(o))
    block.ffn.contract.register_forward_hook(lambda m, i, o: a(o))


def detached(model):
    for p in model.base_model.parameters():
        p.detach_()
    for m in (*model.modules(), model.head):
        if isinstance(m, Adapter) or m is model.head:
            m.requires_grad_(True)


def without_the_mask(model, insert, input_ids, attention_mask):
    return tester(torch.equal)(model, insert, input_ids, torch.ones_like(input_ids))


def sound_in(blocks, parameters="wanted"):
    """Tests that look at the gradients of some blocks only, or only at the parameters that should not be trained."""

    def test(model, insert, batch):
        ids, mask, labels = batch
        insert(model)
        F.cross_entropy(model(ids, mask), labels).backward()
        adapters = [m for m in model.modules() if isinstance(m, Adapter)]
        wanted = {p for m in (*adapters, model.head) for p in m.parameters()}
        trained = {p for p in model.parameters() if p.requires_grad}
        right = trained == wanted if parameters == "wanted" else trained <= wanted and model.head.weight.requires_grad
        some = [m for block in model.base_model.blocks[blocks] for m in block.modules() if isinstance(m, Adapter)]
        gradients = [m.up_project.weight.grad for m in (some or adapters if blocks == slice(None) else some)]
        return bool(adapters) and right and all(g is not None and bool(g.any()) for g in gradients)

    return test


def update_in_place(block, make_adapter):
    for projection in (block.attention.output, block.ffn.contract):
        projection.adapter = make_adapter()
        projection.register_forward_hook(lambda m, i, o: o.add_(m.adapter.update(o)))


def parameters_alone(block, make_adapter):
    a, b = make_adapter(), make_adapter()
    block.extra = nn.ParameterList([*a.parameters(), *b.parameters()])
    block.attention.output.register_forward_hook(lambda m, i, o: a(o))
    block.ffn.contract.register_forward_hook(lambda m, i, o: b(o))


def on_a_copy(model):
    freezer()(copy.deepcopy(model))


def attribute_after_freezing(model):
    model.requires_grad_(False)
    for module in (*model.modules(), model.head):
        if isinstance(module, Adapter) or module is model.head:
            module.requires_grad = True


WRONG = {
    "check_insert": [
        (update_in_place, "that the gradient still needs: copy it"),
        (parameters_alone, "no adapter is a module of the block"),
        (hooked(hook=lambda a, h: copy.deepcopy(a)(h)), "a no_grad or a copy?"),
        (registered_crosswise, "behind which the other works"),
        (hooked(after_ffn=False), "FFN's is missing"),
        (hooked(after_attention=False), "attention sub-layer's is missing"),
        (late_bound, "when it runs, after the loop"),
        (one_for_both, "each needs an adapter of its own"),
        (hooked(hook=lambda a, h: h + a(h)), "adds the output once more"),
        (hooked(hook=lambda a, h: a.update(h)), "update alone"),
        (hooked(register=False), "no adapter is a module of the block"),
        (hooked(hook=lambda a, h: h + a.update(h).detach()), "no gradient"),
        (after_norms, "after the LayerNorms"),
        (before_sublayers, "what goes into the sub-layers"),
        (no_return, "do they return A(output)"),
        (only_assigned, "are hooks registered"),
        (wrong_width, "width 24 is not 12"),
        (before_projections, "width 24 is not 12"),
        (attention_before, "comes before the projection"),
        (late_between_blocks, "a second block with adapters changes"),
        (tuple_from_hook, "a hook returns no tensor"),
        (tuple_at_the_end, "a hook returns no tensor"),
        (lambda block, make_adapter: None, "never called"),
    ],
    "check_freeze": [
        (on_a_copy, "on the very model that is given"),
        (attribute_after_freezing, "only makes a new attribute"),
        (detached, "detach_() cuts a tensor out of a graph"),
        (lambda model: None, "not frozen"),
        (lambda model: model.requires_grad_(False), "nothing is trained"),
        (freezer(head=False), "the head is frozen"),
        (freezer(adapters=False), "the adapters are frozen"),
        (freezer(keep="norm"), "LayerNorms are still trained"),
        (freezer(keep="bias"), "biases of the base model"),
        (freezer(keep="embedding"), "embeddings of the base model"),
        (attribute_only, "only makes a new attribute"),
        (eval_only, "not frozen"),
        (only_weights_of_adapters, "not trained: "),
        (only_switches_off, "not trained: "),
        (by_name, "not called `adapter`"),
        (zeroes, "other values"),
    ],
    "check_identity_test": [
        (seeded, "a false alarm when the model is in training mode"),
        (without_the_mask, "where only padding changes: use the mask"),
        (tester(lambda a, b: True), "says True to an insertion that changes every"),
        (tester(lambda a, b: a.shape == b.shape), "says True to an insertion that changes every"),
        (after_with_after, "says True to an insertion that changes every"),
        (tester(lambda a, b: torch.allclose(a, b, rtol=0.1)), "a tenth of a per cent"),
        (tester(lambda a, b: torch.allclose(a, b, rtol=1e-5, atol=1e-4)), "torch.equal"),
        (tester(lambda a, b: torch.equal(a[0], b[0])), "one text of the batch"),
        (tester(torch.equal, mode="as it is"), "training mode"),
        (never_inserts, "never called"),
        (tester(torch.allclose), "a millionth"),
        (tester(lambda a, b: a.mean().item() == b.mean().item()), "change places"),
        (tester(lambda a, b: torch.equal(a.argmax(-1), b.argmax(-1))), "a tenth of a per cent"),
        (tester(lambda a, b: torch.equal(a.softmax(-1), b.softmax(-1))), "probabilities"),
        (tester(lambda a, b: torch.equal(a[:, 0], b[:, 0])), "one of the logits"),
        (tester(lambda a, b: bool((a - b).max() == 0)), "both directions"),
        (tester(lambda a, b: None), "return missing"),
        (tester(lambda a, b: a == b), "use torch.equal(before, after)"),
        (tester(lambda a, b: str(torch.equal(a, b))), "True or False"),
        (tester(lambda a, b: not torch.equal(a, b)), "false alarm"),
    ],
    "check_bug_hunt": [
        (hunter(lambda m, a, w, on: bool(a) and on <= w and learn(a)), "the head's parameters have to be trained"),
        (
            hunter(lambda m, a, w, on: bool(a) and w == on and bool(a[0].up_project.weight.any())),
            "once up_project is not 0",
        ),
        (sound_in(slice(1)), "a hook that returns nothing, the last"),
        (sound_in(slice(None), "some"), "down_projects that are frozen"),
        (hunter(lambda m, a, w, on: bool(a) and w == on, step=False), "no gradient goes back from the logits"),
        (hunter(lambda m, a, w, on: bool(a) and w == on), "a gradient reaches the adapters"),
        (hunter(lambda m, a, w, on: w == on and any(map(has_gradient, a))), "every single adapter"),
        (hunter(lambda m, a, w, on: w == on and learn(a)), "over no adapters is True"),
        (hunter(lambda m, a, w, on: bool(a) and learn(a)), "not frozen"),
        (hunter(lambda m, a, w, on: bool(a) and w <= on and learn(a) and not norms_aside(m)), "LayerNorms that are"),
        (hunter(lambda m, a, w, on: bool(a) and w == on | set(m.head.parameters()) and learn(a)), "a frozen head"),
        (hunter(lambda m, a, w, on: bool(a) and w == on and all(map(gradients_everywhere, a))), "in the first step"),
        (
            hunter(lambda m, a, w, on: a != [] and w == on and all(x.up_project.weight.grad.any() for x in a)),
            ".grad is None",
        ),
        (hunter(lambda m, a, w, on: bool(a) and w == on and all(map(any_gradient, a))), "both projections at zero"),
        (hunter(lambda m, a, w, on: len(a) == 4 and w == on and learn(a)), "one adapter in each block"),
        (hunter(lambda m, a, w, on: w != on or not learn(a) or not a), "wrong way round"),
        (hunter(lambda *_: True, step=False), "a base model that is not frozen"),
        (hunter(lambda *_: False), "which condition fails"),
        (hunter(lambda *_: None), "return missing"),
        (hunter(lambda *_: "sound"), "True or False"),
        (lambda model, insert, batch: True, "never called"),
        (identity_alone, "a base model that is not frozen"),
        (inserts_twice, "called twice"),
        (asserts, "AssertionError"),
        (names_of_base, "may get new names"),
    ],
}
RIGHT = {
    "check_insert": [
        right_loop,
        right_on_sublayers,
        right_wrapper,
        hooked(),
        right_sequential,
        right_list,
        right_forwards,
    ],
    "check_freeze": [right_freeze, freezer(), by_the_class_name, right_recursive],
    "check_identity_test": [
        tester(torch.equal),
        tester(lambda a, b: bool((a == b).all())),
        right_with_copy,
        tester(lambda a, b: (a - b).abs().max().item() == 0.0),
        tester(lambda a, b: a.tolist() == b.tolist()),
        tester(lambda a, b: (a == b).all()),
        tester(lambda a, b: numpy.array_equal(a.numpy(), b.numpy())),
    ],
    "check_bug_hunt": [is_sound, by_training, with_autograd, by_counting, partial(is_sound)],
}
