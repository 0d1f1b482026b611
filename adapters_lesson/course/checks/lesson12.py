"""Checks of lesson 12: what is in a file, going on from it, one batch for many LoRAs, compare first."""

from typing import Any

import torch
from torch import nn

from .check import Mistake, check, require
from .comparison import asked, explained, first_match, match_tensor, number, pair, tensor
from .observation import values_of

_FILES = {  # what is wrong with an answer to each file
    "sound": "both names are right and B is not zero",
    "a sound file with a small head": "the head is no LoRA tensor, and smaller than the LoRA: it belongs there",
    "empty": "there are no tensors at all",
    "whole model": "the base is in it: count the numbers that have no .lora_ in their names",
    "prefix": "without its prefix peft finds nothing: a name is base_model.model. + a path + .lora_…",
    "module": "a path that no module of the base has, as DistributedDataParallel leaves it (module.)",
    "one of two": "one of its two places is not in the base: every LoRA tensor counts",
    "zero": "every B is zero, though A is not: it changes nothing",
    "half zero": "one B of two is zero, the other is not: it does something",
    "lost and zero": "the names fit nowhere and B is zero: return the first of the card's list that is so",
}


@check("12.1", "correct: you have read the file, and not the log.")
def check_file(what_is_in: Any) -> None:
    """``what_is_in(tensors, modules)``: "empty", "whole model", "keys", "zero" or "sound"."""
    A, B, modules = torch.randn(4, 8), torch.randn(6, 4), {"top", "top.0.q", "top.1.q", "head"}

    def lora(path: str, B: torch.Tensor = B, prefix: str = "base_model.model.") -> dict[str, torch.Tensor]:
        return {f"{prefix}{path}.lora_A.weight": A, f"{prefix}{path}.lora_B.weight": B}

    both, head = lora("top.0.q") | lora("top.1.q"), {"base_model.model.head.weight": torch.randn(2, 8)}
    files = {
        "sound": (both, "sound"),
        "a sound file with a small head": (both | head | {"base_model.model.head.bias": torch.zeros(2)}, "sound"),
        "empty": ({}, "empty"),
        "whole model": (both | {"base_model.model.top.0.q.base_layer.weight": torch.randn(20, 8)}, "whole model"),
        "prefix": (lora("top.0.q", prefix=""), "keys"),
        "module": (lora("module.top.0.q"), "keys"),
        "one of two": (lora("top.0.q") | lora("top.2.q"), "keys"),
        "zero": (lora("top.0.q", 0 * B) | lora("top.1.q", 0 * B), "zero"),
        "half zero": (lora("top.0.q", 0 * B) | lora("top.1.q"), "sound"),
        "lost and zero": (lora("top.2.q", 0 * B), "keys"),
    }
    words = ("empty", "whole model", "keys", "zero", "sound")
    for name, (tensors, right) in files.items():
        said = asked(what_is_in, tensors, modules)
        require(said in words, f"it returns {said!r}: one of {', '.join(map(repr, words))} is wanted")
        require(said == right, f"a file is called {said!r}, and it is {right!r}: {_FILES[name]}")


@check("12.2", "correct: the file's parameters go on, and the base stays what it was.")
def check_go_on(go_on: Any) -> None:
    """``go_on(model, saved)``: values from ``saved``, trained are these alone; how many numbers; KeyError else."""
    for frozen in (False, True):
        model = nn.Sequential(nn.Linear(27, 16), nn.Linear(16, 1, bias=False), nn.Linear(1, 1))
        model.requires_grad_(not frozen)
        saved = {"1.weight": torch.randn(1, 16), "2.bias": torch.randn(1)}
        before, given = values_of(model), {name: value.clone() for name, value in saved.items()}
        count = number(asked(go_on, model, saved, changes=(0,)))
        _check_trained(model, saved)
        require(all(map(torch.equal, saved.values(), given.values())), "the values in saved were changed")
        for name, value in values_of(model).items():
            if name in saved:
                require(torch.equal(value, saved[name]), f"the saved values are not in the model: {name} has others")
            else:
                require(torch.equal(value, before[name]), f"{name} is not in the file, and its values were changed")
        guesses = {
            2: "it returns how many tensors are trained: add up p.numel()",
            sum(p.numel() for p in model.parameters()): "it returns how many numbers the model has: the trained ones",
            sum(p.numel() for n, p in model.named_parameters() if n not in saved): "it returns how many are frozen",
        }
        first_match(count.__eq__, 17, guesses, f"17 numbers are trained, it returns {count:g}")
    other = nn.Sequential(nn.Linear(2, 2))
    before = values_of(other)
    try:
        go_on(other, {"0.bias": torch.ones(2), "lost.weight": torch.ones(2)})
    except KeyError:
        whole = all(map(torch.equal, before.values(), values_of(other).values()))
        trained = all(p.requires_grad for p in other.parameters())
        late = "the KeyError comes too late, the model is changed already: look for all names first"
        require(whole and trained, late)
    else:
        raise Mistake("a name that the model does not have was passed over, as strict=False does: raise a KeyError")


def _check_trained(model: nn.Module, saved: dict[str, torch.Tensor]) -> None:
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    ratio = sum(trained.values()) / sum(value.numel() for value in saved.values())
    freeze = "freeze the base first, model.requires_grad_(False)"
    require(ratio < 2, f"{ratio:.0f} times as many numbers are trained as the file holds: {freeze}")
    require(bool(trained), "nothing is trained: what is in the file needs requires_grad_(True)")
    missing, more = saved.keys() - trained, trained.keys() - saved.keys()
    require(not missing, f"{', '.join(missing)} is in the file and is not trained, a bias or a head counts too")
    require(not more, f"{', '.join(more)} is trained and not in the file: {freeze}")


@check("12.3", "correct: two products for the whole batch, and each row has its own LoRA.")
def check_many(many_loras: Any) -> None:
    """``many_loras(x, A, B, which, scaling)``: scaling · B A x with each row's A and B; zeros for −1."""
    hint = "A[which] is (rows, rank, inputs): x @ A[which].mT is (rows, tokens, rank), and @ B[which].mT comes next"
    # First as many LoRAs as rows, and all sizes equal, so that every mistake has a shape that fits.
    for rows, loras, size, outputs in ((3, 3, 4, 4), (5, 2, 6, 7)):
        x, which = torch.randn(rows, 3, size), torch.tensor([1, 0, 1, 0, 0][:rows])
        rank = 4 if size == 4 else 2
        A, B = torch.randn(loras, rank, size), torch.randn(loras, outputs, rank)
        _check_rows(many_loras, x, A, B, which, 1.5, hint)
        which[rows - 1] = -1
        _check_rows(many_loras, x, A, B, which, 1.5, hint)
    with explained({"": "a batch in which no row has a LoRA gives zeros, here it raises"}):
        none = many_loras(x, A, B, torch.full((rows,), -1), 1.5)
    require(not tensor(none).any(), "a batch in which no row has a LoRA gives zeros")


def _check_rows(
    many: Any, x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, which: torch.Tensor, scaling: float, hint: str
) -> None:
    with explained({"index": f"the numbers in which choose a LoRA for each row: {hint}"}):
        answer = tensor(asked(many, x, A, B, which, scaling, hint=hint))
    per_row = x @ A[which].mT @ B[which].mT
    keep = (which >= 0)[:, None, None]
    right = scaling * per_row * keep
    shape = f"the shape is {tuple(answer.shape)}, it must be (rows, tokens, outputs), {tuple(right.shape)}"
    require(answer.shape == right.shape, shape)
    guesses = {
        scaling * per_row: "a row with −1 gets the last LoRA, somebody else's: −1 means none, so zeros",
        scaling * (x @ A[which.clamp(0)].mT @ B[which.clamp(0)].mT): "a row with −1 gets LoRA 0: it means none, zeros",
        per_row * keep: "the update is not scaled: multiply it by scaling",
        per_row: "the update is not scaled: multiply it by scaling; and −1 means none",
        scaling**2 * per_row * keep: "the update is scaled twice",
        scaling * (x @ A[0].T @ B[0].T): "all rows get LoRA 0: A[which] has a matrix for each row",
        scaling * (x @ A.sum(0).T @ B.sum(0).T): "all rows get the sum of all LoRAs: A[which]",
        scaling * sum(x @ a.T @ b.T for a, b in zip(A, B, strict=True)): "all rows get every LoRA: A[which]",
        scaling * sum(x @ a.T @ b.T for a, b in zip(A, B, strict=True)) / len(A): "all rows get the mean of all LoRAs",
    }
    if len(A) == len(x):
        guesses[scaling * (x @ A.mT @ B.mT)] = "row 0 gets LoRA 0, row 1 LoRA 1: which says whose it is, A[which]"
    if A.shape[1] == A.shape[2] == B.shape[1]:
        guesses |= {
            scaling * (x @ A[which] @ B[which].mT) * keep: "A is not transposed: x @ A[which].mT",
            scaling * (x @ A[which].mT @ B[which]) * keep: "B is not transposed: … @ B[which].mT",
            scaling * (x @ B[which].mT @ A[which].mT) * keep: "x meets B first: A comes first, then B",
            x + right: "x is added: return the update alone",
        }
    match_tensor(answer.detach(), right, guesses, "it is not scaling · B A x of each row's own LoRA")


@check("12.4", "correct: no padding, no nan, and two numbers that say whether to ship.")
def check_compare(compare_first: Any) -> None:
    """``compare_first(before, after, mask)``: largest difference, share of tokens with another class; no padding."""
    torch.manual_seed(0)
    before, mask = torch.randn(4, 6, 5), torch.arange(6) < torch.tensor([[6], [3], [4], [2]])
    after = before + 0.8 * torch.randn(4, 6, 5)
    after[0, 0, 0] = before[0, 0, 0] - 5
    after[~mask] += 20 * torch.randn(9, 5)
    for m in (mask.long(), mask.float(), mask):
        hint = "before[mask.bool()] are the tokens, (tokens, classes)"
        with explained({"IndexError": hint}):
            answer = pair(asked(compare_first, before, after, m, hint=hint), "the largest difference, and the share")
        far, share = map(number, answer)
        _check_numbers(far, share, before, after, mask)
    for name, bad in (("after", float("nan")), ("before", float("inf"))):
        one, two = before.clone(), before.clone()
        (two if name == "after" else one)[0, 0, 1] = bad
        try:
            compare_first(one, two, mask)
        except ValueError:
            continue
        raise Mistake(f"a logit of {name} is {bad}, and nothing is said: raise a ValueError, isfinite() tells")
    broken = before.clone()
    broken[1, 5] = float("nan")
    with explained({"ValueError": "nan in the padding is no reason to refuse: take the tokens first"}):
        compare_first(broken, broken, mask)


def _check_numbers(far: float, share: float, before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> None:
    a, b = before[mask], after[mask]
    others, everywhere = a.argmax(-1) != b.argmax(-1), before.argmax(-1) != after.argmax(-1)
    largest = {
        (before - after).abs().max().item(): "the padding is counted in the largest difference: take the tokens first",
        (b - a).max().item(): "negative differences are overlooked: take absolute values before the maximum",
        (a - b).abs().mean().item(): "that is the mean difference: the largest is asked for",
        (a - b).square().max().item(): "that is the square of the largest difference",
        (a - b).norm().item(): "that is the length of all differences: the largest one is asked for",
        (a.softmax(-1) - b.softmax(-1)).abs().max().item(): "those are probabilities: compare the logits",
        abs(a.max().item() - b.max().item()): "that is the difference of the maxima: subtract first",
        share: "the two numbers are the same",
    }
    first_match(lambda guess: abs(far - guess) < 1e-5, (a - b).abs().max().item(), largest, "the largest difference "
                f"is {(a - b).abs().max():.4f}, it returns {far:.4f}")  # fmt: skip
    shares = {
        everywhere.float().mean().item(): "the padding is counted in the share: take the tokens first",
        (everywhere & mask).float().mean().item(): "it is divided by all places, padding among them: by the tokens",
        others.float().sum().item(): "that is the number of tokens: divide by how many there are",
        100 * others.float().mean().item(): "that is in per cent: the share is from 0 to 1",
        1 - others.float().mean().item(): "that is the share of tokens that stay the same",
        (a != b).float().mean().item(): "that is the share of logits that differ: ask which class comes first, argmax",
        (a.argmax(0) != b.argmax(0)).float().mean().item(): "argmax runs over the tokens: over the classes, argmax(-1)",
    }
    first_match(lambda guess: abs(share - guess) < 1e-5, others.float().mean().item(), shares, "the share of tokens "
                f"with another class is {others.float().mean():.4f}, it returns {share:.4f}")  # fmt: skip
