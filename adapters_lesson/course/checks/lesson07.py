"""Checks of lesson 07: LoRA's parameters, a test of a classifier, two models on the same texts, a claim."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .check import Mistake, check, require
from .comparison import asked, first_match, match_formula, number, pair, verdict
from .lesson07_designs import DESIGNS, RATES, SEEDS, WORLDS, Recorded, experiment


@check("7.1", "correct: r·(in + out) for every matrix that is changed, and no bias.")
def check_lora_count(lora_parameters: Any) -> None:
    """``lora_parameters(model_dim, rank, layers)``: LoRA on query and value of every layer."""
    cases = [(384, 8, 6), (100, 3, 4), (768, 64, 12)]
    product = "that multiplies the two thin matrices' sizes: they are kept side by side, so add them"
    biases = "biases are counted: A and B have none, unlike an adapter's projections"
    frozen = "the frozen matrices are counted too: only A and B are trained"
    guesses = {
        "2*d*r*n": "that is half: query and value are two matrices, and each gets both A (r × d) and B (d × r)",
        "d*r*n": "that is one thin matrix in each layer: query and value get two each, A and B",
        "4*d*r": "that is one layer: count all of them",
        "2*d*r": "that is one matrix of one layer: there are query and value, in every layer",
        "8*d*r*n": "that is LoRA on all four matrices of the attention: here on query and value",
        "6*d*r*n": "that is LoRA on query, key and value: here on query and value",
        "2*d*d*n": "that is the size of the whole matrices: their product B A has it, but only A and B are kept",
        "2*d*d*r*n": product,
        "2 * (d*r)**2 * n": product,
        "2*n * (2*d*r + r + d)": biases,
        "2*n * (2*d*r + d)": biases,
        "2*n * (2*d*r + r)": biases,
        "2*n * (d*d + 2*d*r)": frozen,
        "2*n * (d*d + d + 2*d*r)": frozen,
        "2*n * (2*d*r + r*r)": "there is nothing of r × r between A and B",
        "4*d*r*n + 2*d + 2": "the head is counted too: here LoRA's own parameters are asked for",
        "2*n * (d + r)": "rank and width are added: a matrix of r × d has r · d entries",
        "4*d*r * 6": "the number of layers is taken as 6: it is given, layers",
        "4*384*r*n": "the width is taken as 384: it is given, model_dim",
        "16*d*r*n": "those are bytes in single precision: count parameters",
    }
    hint = "two matrices in each layer, each with an A of r × d and a B of d × r"
    match_formula(lora_parameters, "d r n", cases, "4*d*r*n", guesses, hint)


_SENTENCES = (
    "a film",
    "this one is long, and it goes on for longer than it should",
    "not bad at all",
    "what a waste of an evening",
    "fine",
    "one of the best in years , warm and funny",
    "so so",
    "it has its moments , and few of them last",
)
_Classify = Callable[[Any], torch.Tensor]
_Change = Callable[[torch.Tensor, Sequence[str]], torch.Tensor]
_OPPOSITE = torch.tensor([1.0, -1.0])


def _classifier(change: _Change = lambda x, s: x) -> _Classify:
    """Logits (sentences, 2) that depend on each sentence alone, but for ``change``."""

    def classify(sentences: Any) -> torch.Tensor:
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)  # one alone
        sums = [sum((i + 1) * ord(c) for i, c in enumerate(s)) for s in sentences]
        return change(torch.tensor([[math.sin(n), math.cos(n / 7)] for n in sums]), sentences)

    return classify


def _longest(sentences: Sequence[str]) -> torch.Tensor:
    lengths = torch.tensor([float(len(s.split())) for s in sentences])
    return _OPPOSITE * ((lengths.max() - lengths) / lengths.max())[:, None]


def _only(row: int, weights: torch.Tensor = _OPPOSITE) -> _Change:
    """A change of one row that is there only in company."""
    return lambda x, s: x + (0.3 * (torch.arange(len(s)) == row))[:, None] * weights * (len(s) > 1)


def _up_and_down(weights: torch.Tensor) -> _Change:
    """One row rises and another one falls, in company."""
    return lambda x, s: _only(4, -weights)(_only(3, weights)(x, s), s)


_MEAN = "compare all of them, and the largest difference, not the mean"
_PLANTED: dict[_Change, str] = {
    lambda x, s: x + (torch.arange(len(s)) - len(s) / 2 + 0.5)[:, None] * _OPPOSITE: "it misses changes that cancel",
    lambda x, s: x + 0.01 * _longest(s): "it misses a change of a hundredth: compare the logits, to within 1e-4",
    lambda x, s: x[sorted(range(len(s)), key=lambda i: len(s[i]))]: "it misses answers in another order: go row by row",
    _only(0): "it misses a change in the first sentence: compare all of them",
    _only(len(_SENTENCES) - 1): "it misses a change in the last sentence: compare all of them",
    _only(3): f"it misses a change in one of the sentences: {_MEAN}",
    _up_and_down(torch.tensor([1.0, 0.0])): "it misses a change in the first of the logits: compare both",
    _up_and_down(torch.tensor([0.0, 1.0])): "it misses a change in the second of the logits: compare both",
    _only(3, torch.tensor([0.0, -1.0])): "it misses an answer that falls: compare the differences' sizes, abs()",
    _only(3, torch.tensor([0.0, 1.0])): "it misses an answer that rises: compare the differences' sizes, abs()",
    _only(3, torch.tensor([0.005, 0.0])): f"it misses 1.5e-3 in one of the sentences: to within 1e-4, {_MEAN}",
}


@check("7.2", "correct: it finds every planted fault and raises no false alarm.")
def check_company(same_in_company: Any) -> None:
    """``same_in_company(classify, sentences)`` must tell if a sentence gets the same logits alone as with others."""
    calls: list[int] = []

    def judged(classify: _Classify) -> bool:
        def watched(sentences: Any) -> torch.Tensor:
            text = "classify gets a string, and goes through its letters: a single sentence is a list, [sentence]"
            require(not isinstance(sentences, str), text)
            calls.append(len(sentences))
            return classify(sentences)

        answer = same_in_company(watched, list(_SENTENCES))
        if isinstance(answer, torch.Tensor):
            require(answer.numel() == 1, "it returns a verdict for each number: .all() makes one, torch.allclose too")
            answer = answer.reshape(())
        return verdict(answer)

    fair = judged(_classifier())
    require(bool(calls), "classify is never called: call it with all sentences, and with each alone")
    found = [not judged(_classifier(change)) for change in _PLANTED]
    if not fair and not any(found):
        raise Mistake("the verdict is turned round: True when every sentence gets the same answer in company as alone")
    require(1 in calls, "no sentence is ever classified alone: classify([sentence]) gives what nobody can change")
    require(max(calls) != 1, "sentences are only classified one by one: classify(sentences) gives them in company")
    require(any(found), "it says True whatever happens: are the two results compared, in company and alone?")
    alarm = "it raises a false alarm at"
    require(fair, f"{alarm} a classifier that treats each sentence for itself: is each compared with its own row?")
    rounding = judged(_classifier(lambda x, s: x + 1e-5 * _longest(s)))
    require(rounding, f"{alarm} rounding, a change of 1e-5: torch.allclose with atol=1e-4 bears that")
    for one, message in zip(found, _PLANTED.values(), strict=True):
        require(one, message)


# Formulas of b, c, both, neither: how many texts only the first gets right, only the second, both, neither. n is their
# number, p and q are the two accuracies, s is the standard deviation of the differences.
_WRONG_MEANS = {
    "(b - c) / n - 1.96 * s / sqrt(n)": "those are the ends of the interval: return its middle and half its width",
    "1.96 * s / sqrt(n)": "the two are in the wrong order: first the difference, then half the width",
    "(c - b) / n": "the sign is turned round: the first one's accuracy minus the second one's",
    "100 * (b - c) / n": "that is in percentage points: return a share",
    "b - c": "that is a number of texts: divide by how many there are",
    "(b + c) / n": "that is on how many texts the two disagree: those that only the second gets right count −1",
    "(b - c) / (b + c)": "divided by the texts on which the two disagree: divide by all texts",
    "b / n": "that counts what only the first gets right: take away what only the second does",
    "p": "that is the first one's accuracy: take away the second one's",
    "abs(b - c) / n": "the difference has lost its sign: it is negative where the second is better",
}
_WRONG_WIDTHS = {
    "1.96 * sqrt((p*(1-p) + q*(1-q)) / n)": "that is the interval of two unrelated samples: take the differences'",
    "sqrt((p*(1-p) + q*(1-q)) / n)": "that is the standard error of two unrelated samples",
    "1.96 * sqrt(p*(1-p) / n)": "that is the interval of the first one's accuracy: take that of the differences",
    "s / sqrt(n)": "that is the standard error: times 1.96 it is half of the 95 % interval",
    "1.645 * s / sqrt(n)": "1.645 gives a 90 % interval: 1.96 for 95 %",
    "2.576 * s / sqrt(n)": "2.576 gives a 99 % interval: 1.96 for 95 %",
    "2 * 1.96 * s / sqrt(n)": "that is the whole width: return half of it",
    "s": "that is the standard deviation of a single text's difference: divide by √n and multiply by 1.96",
    "1.96 * s": "√n is missing: the mean of n texts is surer than one of them",
    "1.96 * s / n": "divided by n: divide the standard deviation by √n",
    "1.96 * s**2 / sqrt(n)": "that uses the variance: take its root",
    "s**2 / n": "that is the variance of the mean: take its root, times 1.96",
    "1.96 * s / sqrt(b + c)": "divided by the root of how many texts they disagree on: by the root of all",
}


@check("7.3", "correct: the mean of the differences, and how surely these texts tell it.")
def check_paired(paired_difference: Any) -> None:
    """``paired_difference(first, second)`` must return the difference of accuracies and half its 95 % interval."""
    cases, answers = [], []
    for b, c, both, neither in ((140, 90, 500, 70), (40, 75, 250, 135), (150, 130, 900, 220)):
        first = torch.tensor([1] * b + [0] * c + [1] * both + [0] * neither).bool()
        second = torch.tensor([0] * b + [1] * c + [1] * both + [0] * neither).bool()
        shuffled = torch.randperm(len(first))
        hint = "True and False are no numbers: .float() makes 1 and 0 of them"
        answer = asked(paired_difference, first[shuffled], second[shuffled], hint=hint, about="bool|dtype")
        answers.append(tuple(map(number, pair(answer, "the difference, and half the width of its interval"))))
        n, s = len(first), (first.float() - second.float()).std().item()
        cases.append((b, c, n, (b + both) / n, (c + both) / n, s))
    means, widths = zip(*answers, strict=True)
    names, of = "b c n p q s", "of {n} texts {b} are right only in the first, {c} only in the second:"
    otherwise = f"{of} the difference of the accuracies is {{wanted}}, not {{given}}"
    match_formula(means, names, cases, "(b - c) / n", _WRONG_MEANS, otherwise=otherwise, tolerance=1e-4)
    otherwise = f"{of} 1.96 · s / √n, s the deviation of the differences, is {{wanted}}, not {{given}}"
    right, bootstrap = "1.96 * s / sqrt(n)", 0.04  # which is right, too, and gives another number each time
    match_formula(widths, names, cases, right, _WRONG_WIDTHS, otherwise=otherwise, tolerance=bootstrap)


@check("7.4", "correct: as many tries for both, chosen on validation, all seeds, and the interval's lower end decides.")
def check_claim(within_one_point: Any) -> None:
    """``within_one_point(run, rates, seeds)`` is tried in worlds in which the truth is known."""
    verdicts = []
    for world in WORLDS:
        run = Recorded(world)
        verdicts.append(verdict(within_one_point(run, dict(RATES), SEEDS)))
        run.examine()
    wrong = next((world for world, said in zip(WORLDS, verdicts, strict=True) if said != world.supported), WORLDS[0])
    claim = f"the claim is {'' if wrong.supported else 'not '}supported, your function says otherwise"
    otherwise = f"{wrong.story} {claim}"
    first_match(lambda design: verdicts == [design(world) for world in WORLDS], experiment, DESIGNS, otherwise)
