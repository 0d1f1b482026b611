import torch
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


def freezer(adapters=True, head=True, keep=""):
    """A family of answers that differ in what stays on."""

    def freeze(model):
        for name, p in model.named_parameters():
            is_adapter, is_head = ".adapter." in name, name.startswith("head")
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


def right_with_copy(model, insert, ids, mask):
    import copy

    old = copy.deepcopy(model).eval()
    insert(model)
    return bool((old(ids, mask) == model.eval()(ids, mask)).all())


WRONG = {
    "check_insert": [
        (hooked(after_ffn=False), "FFN's is missing"),
        (hooked(after_attention=False), "attention sub-layer's is missing"),
        (late_bound, "the loop's last value"),
        (one_for_both, "each needs an adapter of its own"),
        (hooked(hook=lambda a, h: h + a(h)), "adds the output once more"),
        (hooked(hook=lambda a, h: a.update(h)), "update alone"),
        (hooked(register=False), "an optimiser would not find them"),
        (hooked(hook=lambda a, h: h + a.update(h).detach()), "no gradient"),
        (after_norms, "after the LayerNorms"),
        (before_sublayers, "what goes into the sub-layers"),
        (no_return, "does each return the adapter's output"),
        (only_assigned, "are the hooks registered"),
        (wrong_width, "RuntimeError"),
        (lambda block, make_adapter: None, "never called"),
    ],
    "check_freeze": [
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
    ],
    "check_identity_test": [
        (tester(lambda a, b: True), "says True to an insertion that changes every"),
        (tester(lambda a, b: a.shape == b.shape), "says True to an insertion that changes every"),
        (after_with_after, "says True to an insertion that changes every"),
        (tester(lambda a, b: torch.allclose(a, b, rtol=0.1)), "a tenth of a per cent"),
        (tester(lambda a, b: torch.allclose(a, b, rtol=1e-5, atol=1e-4)), "torch.equal"),
        (tester(lambda a, b: torch.equal(a[0], b[0])), "one text of the batch"),
        (tester(torch.equal, mode="as it is"), "training mode"),
        (never_inserts, "never called"),
        (tester(lambda a, b: None), "return missing"),
        (tester(lambda a, b: (a == b).all()), "it is a Tensor"),
        (tester(lambda a, b: not torch.equal(a, b)), "false alarm"),
    ],
}
RIGHT = {
    "check_insert": [right_loop, right_on_sublayers, right_wrapper, hooked()],
    "check_freeze": [right_freeze, freezer()],
    "check_identity_test": [tester(torch.equal), tester(lambda a, b: bool((a == b).all())), right_with_copy],
}
