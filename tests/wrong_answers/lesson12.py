import torch
from torch import nn

PREFIX = "base_model.model."

# --- 12.1 -----------------------------------------------------------------------------------------------------------


def of_lora(tensors):
    return {name: t for name, t in tensors.items() if ".lora_" in name}


def numbers(tensors):
    return sum(t.numel() for t in tensors.values())


def is_whole(tensors):
    return numbers(tensors) > 2 * numbers(of_lora(tensors))


def is_lost(tensors, modules):
    return any(name.partition(".lora_")[0] not in {PREFIX + m for m in modules} for name in of_lora(tensors))


def is_zero(tensors):
    return not any(t.any() for name, t in tensors.items() if ".lora_B." in name)


def reading(empty=lambda t: not t, whole=is_whole, lost=is_lost, zero=is_zero):
    def what_is_in(tensors, modules):
        if empty(tensors):
            return "empty"
        if whole(tensors):
            return "whole model"
        if lost(tensors, modules):
            return "keys"
        return "zero" if zero(tensors) else "sound"

    return what_is_in


def prefix_stripped(tensors, modules):
    return any(name.removeprefix(PREFIX).partition(".lora_")[0] not in modules for name in of_lora(tensors))


def prefix_only(tensors, modules):
    return not all(name.startswith(PREFIX) for name in tensors)


def some_fit(tensors, modules):
    return not any(name.partition(".lora_")[0] in {PREFIX + m for m in modules} for name in of_lora(tensors))


def zero_first(tensors, modules):
    if not tensors:
        return "empty"
    return "zero" if is_zero(tensors) else reading()(tensors, modules)


def by_sorted_lists(tensors, modules):
    if len(tensors) == 0:
        return "empty"
    ours, rest = 0, 0
    for name, tensor in tensors.items():
        if ".lora_" in name:
            ours += tensor.numel()
        else:
            rest += tensor.numel()
    if rest > ours:
        return "whole model"
    bs = []
    for name, tensor in tensors.items():
        if ".lora_" not in name:
            continue
        path = name[: name.index(".lora_")]
        if not path.startswith(PREFIX) or path[len(PREFIX) :] not in modules:
            return "keys"
        if ".lora_B." in name:
            bs.append(tensor.abs().sum())
    return "zero" if sum(bs) == 0 else "sound"


# --- 12.2 -----------------------------------------------------------------------------------------------------------


def right_go_on(model, saved):
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name] for name in saved}
    model.requires_grad_(False)
    for name, parameter in chosen.items():
        parameter.data.copy_(saved[name])
        parameter.requires_grad = True
    return sum(parameter.numel() for parameter in chosen.values())


def everything_is_trained(model, saved):
    right_go_on(model, saved)
    model.requires_grad_(True)
    return sum(p.numel() for p in model.parameters())


def never_frozen(model, saved):
    parameters = dict(model.named_parameters())
    for name in saved:
        parameters[name].data.copy_(saved[name])
        parameters[name].requires_grad_(True)
    return sum(v.numel() for v in saved.values())


def nothing_is_trained(model, saved):
    right_go_on(model, saved)
    model.requires_grad_(False)
    return sum(v.numel() for v in saved.values())


def values_forgotten(model, saved):
    parameters = dict(model.named_parameters())
    [parameters[name] for name in saved]
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in saved)
    return sum(v.numel() for v in saved.values())


def weights_alone(model, saved):
    count = right_go_on(model, saved)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in saved and name.endswith("weight"))
    return count


def not_strict(model, saved):
    model.load_state_dict(saved, strict=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in saved)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def notices_too_late(model, saved):
    model.requires_grad_(False)
    parameters = dict(model.named_parameters())
    for name, value in saved.items():
        parameters[name].data.copy_(value)
        parameters[name].requires_grad_(True)
    return sum(v.numel() for v in saved.values())


def layers_of_them(model, saved):
    count = right_go_on(model, saved)
    for name in saved:
        model.get_submodule(name.rpartition(".")[0]).requires_grad_(True)
    return count


def counts_tensors(model, saved):
    right_go_on(model, saved)
    return len(saved)


def counts_all(model, saved):
    right_go_on(model, saved)
    return sum(p.numel() for p in model.parameters())


def counts_frozen(model, saved):
    right_go_on(model, saved)
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def base_made_anew(model, saved):
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return right_go_on(model, saved)


def no_count(model, saved):
    right_go_on(model, saved)


def by_load_state_dict(model, saved):
    if lost := saved.keys() - dict(model.named_parameters()).keys():
        raise KeyError(lost)
    model.load_state_dict(saved, strict=False)
    count = 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in saved)
        count += parameter.numel() * parameter.requires_grad
    return count


def by_get_parameter(model, saved):
    names = [name for name, _ in model.named_parameters()]
    for name in saved:
        if name not in names:
            raise KeyError(f"the model has no {name}")
    model.requires_grad_(False)
    with torch.no_grad():
        for name, value in saved.items():
            model.get_parameter(name).copy_(value)
            model.get_parameter(name).requires_grad_()
    return sum(value.numel() for value in saved.values())


# --- 12.3 -----------------------------------------------------------------------------------------------------------


def right_many(x, A, B, which, scaling):
    update = scaling * (x @ A[which].mT @ B[which].mT)
    return torch.where((which >= 0)[:, None, None], update, 0.0)


def many(change):
    """An answer from ``change(x, A, B, which, scaling, per_row, keep)``."""

    def many_loras(x, A, B, which, scaling):
        per_row, keep = x @ A[which].mT @ B[which].mT, (which >= 0).float()[:, None, None]
        return change(x, A, B, which, scaling, per_row, keep)

    return many_loras


def without_transposing_a(x, A, B, which, scaling):
    return scaling * (x @ A[which] @ B[which].mT)


def no_many_return(x, A, B, which, scaling):
    scaling * (x @ A[which].mT @ B[which].mT)


def changes_which(x, A, B, which, scaling):
    keep = (which >= 0)[:, None, None]
    which[which < 0] = 0
    return scaling * (x @ A[which].mT @ B[which].mT) * keep


def by_einsum(x, A, B, which, scaling):
    update = torch.einsum("nti,nri,nor->nto", x, A[which], B[which])
    return scaling * update * (which >= 0).view(-1, 1, 1)


def with_a_zero_lora(x, A, B, which, scaling):
    A, B = (torch.cat([t, torch.zeros_like(t[:1])]) for t in (A, B))
    return torch.bmm(torch.bmm(x, A[which].transpose(1, 2)), B[which].transpose(1, 2)) * scaling


def row_by_row(x, A, B, which, scaling):
    zero = x.new_zeros(x.shape[1], B.shape[1])
    rows = [zero if k < 0 else scaling * (row @ A[k].T @ B[k].T) for row, k in zip(x, which.tolist(), strict=True)]
    return torch.stack(rows)


# --- 12.4 -----------------------------------------------------------------------------------------------------------


def comparing(
    far=lambda a, b: (a - b).abs().max(),
    share=lambda a, b: (a.argmax(-1) != b.argmax(-1)).float().mean(),
    finite=True,
):
    def compare_first(before, after, mask):
        a, b = before[mask.bool()], after[mask.bool()]
        if finite and not (a.isfinite().all() and b.isfinite().all()):
            raise ValueError("not finite")
        return far(a, b).item(), share(a, b).item()

    return compare_first


def padding_in(which):
    def compare_first(before, after, mask):
        far, share = comparing()(before, after, mask)
        others = (before.argmax(-1) != after.argmax(-1)).float()
        if which == "far":
            return (before - after).abs().max().item(), share
        return far, (others.mean() if which == "share" else (others * mask).mean()).item()

    return compare_first


def refuses_padding(before, after, mask):
    if not (before.isfinite().all() and after.isfinite().all()):
        raise ValueError("not finite")
    return comparing()(before, after, mask)


def only_after(before, after, mask):
    if not after[mask.bool()].isfinite().all():
        raise ValueError("not finite")
    return comparing(finite=False)(before, after, mask)


def no_compare_return(before, after, mask):
    comparing()(before, after, mask)


def token_by_token(before, after, mask):
    far, others, tokens = 0.0, 0, 0
    for row in range(before.shape[0]):
        for place in range(before.shape[1]):
            if not mask[row, place]:
                continue
            a, b = before[row, place], after[row, place]
            if not torch.isfinite(a - b).all():
                raise ValueError("nan or inf")
            far, others, tokens = (
                max(far, (a - b).abs().max().item()),
                others + int(a.argmax() != b.argmax()),
                tokens + 1,
            )
    return far, others / tokens


def by_torch_where(before, after, mask):
    there = mask.bool()
    apart = (before - after).abs().amax(-1)
    if not torch.isfinite(apart[there]).all():
        raise ValueError("a logit is nan or inf")
    others = (before.argmax(-1) != after.argmax(-1)) & there
    return torch.where(there, apart, 0.0).max(), others.sum() / there.sum()


WRONG = {
    "check_file": [
        (reading(empty=lambda t: False), "no tensors at all"),
        (reading(whole=lambda t: False), "the base is in it"),
        (reading(whole=lambda t: len(of_lora(t)) < len(t)), "the head is no LoRA tensor"),
        (reading(whole=lambda t: len(t) > 2 * len(of_lora(t))), "count the numbers"),
        (reading(lost=prefix_stripped), "without its prefix peft finds nothing"),
        (reading(lost=prefix_only), "that no module of the base has"),
        (reading(lost=some_fit), "every LoRA tensor counts"),
        (reading(lost=lambda t, m: False), "without its prefix peft finds nothing"),
        (reading(zero=lambda t: not all(x.any() for n, x in t.items() if ".lora_B." in n)), "one B of two is zero"),
        (reading(zero=lambda t: not any(x.any() for x in t.values())), "every B is zero, though A is not"),
        (zero_first, "the first of the card's list"),
        (lambda tensors, modules: reading()(tensors, modules) == "sound", "it returns True"),
        (lambda tensors, modules: None, "the return missing"),
    ],
    "check_go_on": [
        (everything_is_trained, "27 times as many numbers are trained"),
        (never_frozen, "27 times as many numbers are trained"),
        (nothing_is_trained, "nothing is trained"),
        (values_forgotten, "the saved values are not in the model"),
        (weights_alone, "is in the file and is not trained"),
        (layers_of_them, "is trained and not in the file"),
        (not_strict, "was passed over"),
        (notices_too_late, "comes too late"),
        (counts_tensors, "how many tensors"),
        (counts_all, "how many numbers the model has"),
        (counts_frozen, "how many are frozen"),
        (base_made_anew, "is not in the file, and its values were changed"),
        (no_count, "the return missing"),
    ],
    "check_many": [
        (many(lambda x, A, B, which, s, each, keep: s * each), "somebody else's"),
        (
            many(lambda x, A, B, which, s, each, keep: s * (x @ A[which.clamp(0)].mT @ B[which.clamp(0)].mT)),
            "gets LoRA 0",
        ),
        (many(lambda x, A, B, which, s, each, keep: each * keep), "not scaled"),
        (many(lambda x, A, B, which, s, each, keep: s**2 * each * keep), "scaled twice"),
        (many(lambda x, A, B, which, s, each, keep: s * (x @ A[0].T @ B[0].T)), "all rows get LoRA 0"),
        (many(lambda x, A, B, which, s, each, keep: s * (x @ A.sum(0).T @ B.sum(0).T)), "the sum of all LoRAs"),
        (many(lambda x, A, B, which, s, each, keep: s * (x @ A.mT @ B.mT)), "row 1 LoRA 1"),
        (many(lambda x, A, B, which, s, each, keep: s * sum(x @ a.T @ b.T for a, b in zip(A, B))), "every LoRA"),
        (many(lambda x, A, B, which, s, each, keep: s * (x @ A[which].mT @ B[which]) * keep), "B is not transposed"),
        (many(lambda x, A, B, which, s, each, keep: x + s * each * keep), "return the update alone"),
        (many(lambda x, A, B, which, s, each, keep: (s * each * keep).mean(1)), "the shape is"),
        (without_transposing_a, "A is not transposed"),
        (changes_which, "changed in place"),
        (no_many_return, "the return missing"),
    ],
    "check_compare": [
        (padding_in("far"), "counted in the largest difference"),
        (padding_in("share"), "counted in the share"),
        (padding_in("divided"), "divided by all places"),
        (comparing(far=lambda a, b: (b - a).max()), "take absolute values"),
        (comparing(far=lambda a, b: (a - b).abs().mean()), "the mean difference"),
        (comparing(far=lambda a, b: (a - b).square().max()), "the square"),
        (comparing(far=lambda a, b: (a - b).norm()), "the length of all differences"),
        (comparing(far=lambda a, b: (a.softmax(-1) - b.softmax(-1)).abs().max()), "those are probabilities"),
        (comparing(share=lambda a, b: (a.argmax(-1) != b.argmax(-1)).sum()), "the number of tokens"),
        (comparing(share=lambda a, b: 100 * (a.argmax(-1) != b.argmax(-1)).float().mean()), "per cent"),
        (comparing(share=lambda a, b: (a.argmax(-1) == b.argmax(-1)).float().mean()), "stay the same"),
        (comparing(share=lambda a, b: (a != b).float().mean()), "which class comes first"),
        (comparing(share=lambda a, b: (a.argmax(0) != b.argmax(0)).float().mean()), "over the classes"),
        (comparing(finite=False), "nothing is said"),
        (only_after, "nothing is said"),
        (refuses_padding, "no reason to refuse"),
        (lambda before, after, mask: (before - after).abs().max().item(), "two values"),
        (no_compare_return, "the return missing"),
    ],
}
RIGHT = {
    "check_file": [
        reading(),
        by_sorted_lists,
        reading(whole=lambda t: numbers(t) - numbers(of_lora(t)) > numbers(of_lora(t))),
    ],
    "check_go_on": [right_go_on, by_load_state_dict, by_get_parameter],
    "check_many": [right_many, by_einsum, with_a_zero_lora, row_by_row],
    "check_compare": [comparing(), token_by_token, by_torch_where],
}
