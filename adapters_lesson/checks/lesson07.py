"""Checks of lesson 07: LoRA's parameters, a test of a classifier, two models on the same texts, a claim and its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from .designs import DESIGNS, RATES, SEEDS, WORLDS, Recorded, right_design
from .matching import NOTHING, called, first_match, number, verdict
from .report import Mistake, check, require


@check("7.1", "correct: r·(in + out) for every matrix that is changed, and no bias.")
def check_lora_count(lora_parameters: Any) -> None:
    """``lora_parameters(model_dim, rank, layers)``: LoRA on query and value of every layer."""
    cases = [(384, 8, 6), (100, 3, 4), (768, 64, 12)]
    answers = [number(lora_parameters(*case)) for case in cases]

    def same(formula: Callable[[int, int, int], float]) -> bool:
        return all(abs(answer - formula(*case)) < 0.5 for answer, case in zip(answers, cases, strict=True))

    first_match(
        same,
        lambda d, r, n: 4 * d * r * n,
        [
            (lambda d, r, n: 2 * d * r * n, "that is half: query and value are two matrices, and each gets both A (r × d) and B (d × r)"),
            (lambda d, r, n: d * r * n, "that is one thin matrix in each layer: query and value get two each, A and B"),
            (lambda d, r, n: 4 * d * r, "that is one layer: count all of them"),
            (lambda d, r, n: 2 * d * r, "that is one matrix of one layer: there are query and value, in every layer"),
            (lambda d, r, n: 8 * d * r * n, "that is LoRA on all four matrices of the attention: here on query and value"),
            (lambda d, r, n: 6 * d * r * n, "that is LoRA on query, key and value: here on query and value"),
            (lambda d, r, n: 2 * d * d * n, "that is the size of the whole matrices: their product B A has it, but only A and B are kept"),
            (lambda d, r, n: 2 * d * d * r * n, "that multiplies the two thin matrices' sizes: they are kept side by side, so add them"),
            (lambda d, r, n: 2 * (d * r) ** 2 * n, "that multiplies the two thin matrices' sizes: they are kept side by side, so add them"),
            (lambda d, r, n: 2 * n * (2 * d * r + r + d), "biases are counted: A and B have none, unlike an adapter's projections"),
            (lambda d, r, n: 2 * n * (2 * d * r + d), "biases are counted: A and B have none"),
            (lambda d, r, n: 2 * n * (2 * d * r + r), "biases are counted: A and B have none"),
            (lambda d, r, n: 2 * n * (d * d + 2 * d * r), "the frozen matrices are counted too: only A and B are trained"),
            (lambda d, r, n: 2 * n * (d * d + d + 2 * d * r), "the frozen matrices are counted too: only A and B are trained"),
            (lambda d, r, n: 2 * n * (2 * d * r + r * r), "there is nothing of r × r between A and B"),
            (lambda d, r, n: 4 * d * r * n + 2 * d + 2, "the head is counted too: here LoRA's own parameters are asked for"),
            (lambda d, r, n: 2 * n * (d + r), "rank and width are added: a matrix of r × d has r · d entries"),
            (lambda d, r, n: 4 * d * r * 6, "the number of layers is taken as 6: it is given, layers"),
            (lambda d, r, n: 4 * 384 * r * n, "the width is taken as 384: it is given, model_dim"),
            (lambda d, r, n: 16 * d * r * n, "those are bytes in single precision: count parameters"),
        ],
        f"for d = 100, r = 3 and 4 layers it gives {answers[1]:,.0f}, right is 4,800: two matrices in each layer, each with "
        "an A of r × d and a B of d × r",
    )  # fmt: skip


_SENTENCES = (
    "a film", "this one is long, and it goes on for longer than it should", "not bad at all", "what a waste of an evening",
    "fine", "one of the best in years , warm and funny", "so so", "it has its moments , and few of them last",
)  # fmt: skip
_Classify = Callable[[Any], torch.Tensor]


def _fair(sentences: Any) -> torch.Tensor:
    """Logits (sentences, 2) that depend on each sentence alone; a single string is one sentence."""
    sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    sums = [sum((i + 1) * ord(c) for i, c in enumerate(s)) for s in sentences]
    return torch.tensor([[math.sin(n), math.cos(n / 7)] for n in sums])


def _longest(sentences: Sequence[str]) -> torch.Tensor:
    lengths = torch.tensor([float(len(s.split())) for s in sentences])
    return ((lengths.max() - lengths) / lengths.max())[:, None]


def _faulty(change: Callable[[torch.Tensor, Sequence[str]], torch.Tensor]) -> _Classify:
    def classify(sentences: Any) -> torch.Tensor:
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        return change(_fair(sentences), sentences)

    return classify


def _only(row: int) -> Callable[[torch.Tensor, Sequence[str]], torch.Tensor]:
    """A change of one row that is there only in company."""
    return lambda x, s: x + (0.3 * (torch.arange(len(s)) == row))[:, None] * torch.tensor([1.0, -1.0]) * (len(s) > 1)


_OPPOSITE = torch.tensor([1.0, -1.0])
_PLANTED: list[tuple[_Classify, str]] = [
    (_faulty(lambda x, s: x + (torch.arange(len(s)) - (len(s) - 1) / 2)[:, None] * _OPPOSITE), "it misses changes that cancel each other: "
        "compare before you sum or average"),
    (_faulty(lambda x, s: x + _OPPOSITE * _longest(s)), "it misses padding that takes part: compare each sentence alone with the same "
        "sentence among longer ones"),
    (_faulty(lambda x, s: x + 0.01 * _OPPOSITE * _longest(s)), "it misses a change of a hundredth, which turns no answer round here and will "
        "elsewhere: compare the logits, up to 1e-4, not the labels"),
    (_faulty(lambda x, s: x + 0.1 * torch.randn(x.shape)), "it misses a dropout that is still on"),
    (_faulty(lambda x, s: x[sorted(range(len(s)), key=lambda i: len(s[i]))]), "it misses answers that come back in another order: compare row "
        "by row, nothing sorted, summed or averaged before"),
    (_faulty(lambda x, s: x + 0.2 * (x - x.mean(0))), "it misses that the other sentences' mean goes into each answer: compare with a sentence "
        "that is really alone"),
    (_faulty(_only(0)), "it misses a change in the first sentence: compare all of them"),
    (_faulty(_only(len(_SENTENCES) - 1)), "it misses a change in the last sentence: compare all of them"),
    (_faulty(_only(3)), "it misses a change in one of the sentences: compare all of them, and the largest difference, not the mean"),
]  # fmt: skip


@check("7.2", "correct: it finds every planted fault and raises no false alarm.")
def check_company(same_in_company: Any) -> None:
    """``same_in_company(classify, sentences)`` must tell whether each sentence gets the same logits alone as with others."""
    calls: list[int] = []

    def asked(classify: _Classify) -> bool:
        def watched(sentences: Any) -> torch.Tensor:
            calls.append(1 if isinstance(sentences, str) else len(sentences))
            return classify(sentences)

        answer = same_in_company(watched, list(_SENTENCES))
        if isinstance(answer, torch.Tensor):
            require(answer.numel() == 1, "it returns a verdict for each number: .all() makes one, torch.allclose too")
            answer = answer.reshape(())
        return verdict(answer)

    fair = asked(_fair)
    require(bool(calls), "classify is never called: call it with all sentences, and with each alone")
    found = [not asked(classify) for classify, _ in _PLANTED]
    require(
        fair or any(found),
        "the verdict is turned round: True when every sentence gets the same answer in company as alone",
    )
    require(
        1 in calls,
        "no sentence is ever classified alone: classify([sentence]) gives the answer that nobody else can change",
    )
    require(max(calls) > 1, "sentences are only classified one by one: classify(sentences) gives them in company")
    require(any(found), "it says True whatever happens: are the two results compared, in company and alone?")
    require(
        fair,
        "it raises a false alarm at a classifier that treats each sentence for itself: is each compared with its own row?",
    )
    rounding = _faulty(lambda x, s: x + 1e-5 * _OPPOSITE * _longest(s))
    require(
        asked(rounding),
        "it raises a false alarm at rounding, a change of 1e-5: torch.allclose with atol=1e-4 bears that",
    )
    for one, (_, message) in zip(found, _PLANTED, strict=True):
        require(one, message)


_Counts = tuple[int, int, int, int]  # only the first right, only the second, both, neither


def _se(p: float, n: int) -> float:
    return p * (1 - p) / n


def _spread(case: _Counts) -> tuple[float, float, int]:
    """Mean and standard deviation of the differences, and how many."""
    b, c, n = case[0], case[1], sum(case)
    mean = (b - c) / n
    return mean, math.sqrt(((b + c) - n * mean**2) / (n - 1)), n


def _unpaired(case: _Counts) -> float:
    b, c, both, _ = case
    n = sum(case)
    return math.sqrt(_se((b + both) / n, n) + _se((c + both) / n, n))


def _width(case: _Counts) -> float:
    _, s, n = _spread(case)
    return 1.96 * s / math.sqrt(n)


_WIDTHS: list[tuple[Callable[[_Counts], float], str]] = [
    (lambda k: 1.96 * _unpaired(k), "that is the interval of two unrelated samples, both variances added: the texts are the same, so take the "
                                    "standard deviation of the differences"),
    (lambda k: _unpaired(k), "that is the standard error of two unrelated samples: take the differences' own, times 1.96"),
    (lambda k: 1.96 * math.sqrt(_se((k[0] + k[2]) / sum(k), sum(k))), "that is the interval of the first one's accuracy: of the difference, it needs "
                                                                      "the differences"),
    (lambda k: _width(k) / 1.96, "that is the standard error: times 1.96 it is half of the 95 % interval"),
    (lambda k: _width(k) / 1.96 * 1.645, "1.645 gives a 90 % interval: 1.96 for 95 %"),
    (lambda k: _width(k) / 1.96 * 2.576, "2.576 gives a 99 % interval: 1.96 for 95 %"),
    (lambda k: 2 * _width(k), "that is the whole width: return half of it"),
    (lambda k: _spread(k)[1], "that is the standard deviation of a single text's difference: divide by √n and multiply by 1.96"),
    (lambda k: 1.96 * _spread(k)[1], "√n is missing: the mean of n texts is surer than one of them"),
    (lambda k: 1.96 * _spread(k)[1] / sum(k), "divided by n: divide the standard deviation by √n"),
    (lambda k: 1.96 * _spread(k)[1] ** 2 / math.sqrt(sum(k)), "that uses the variance: take its root"),
    (lambda k: _spread(k)[1] ** 2 / sum(k), "that is the variance of the mean: take its root, times 1.96"),
    (lambda k: 1.96 * math.sqrt(1 / (k[0] + k[1])), "only the texts on which the two disagree are counted: the others are zeros and belong to n"),
    (lambda k: 1.96 * _spread(k)[1] / math.sqrt(k[0] + k[1]), "divided by the root of how many texts they disagree on: by the root of all"),
]  # fmt: skip
_MEANS: list[tuple[Callable[[_Counts], float], str]] = [
    (lambda k: -_spread(k)[0], "the sign is turned round: the first one's accuracy minus the second one's"),
    (lambda k: 100 * _spread(k)[0], "that is in percentage points: return a share"),
    (lambda k: k[0] - k[1], "that is a number of texts: divide by how many there are"),
    (
        lambda k: (k[0] + k[1]) / sum(k),
        "that is on how many texts the two disagree: those that only the second gets right count −1",
    ),
    (lambda k: (k[0] - k[1]) / (k[0] + k[1]), "divided by the texts on which the two disagree: divide by all texts"),
    (lambda k: k[0] / sum(k), "that counts what only the first gets right: take away what only the second does"),
    (lambda k: (k[0] + k[2]) / sum(k), "that is the first one's accuracy: take away the second one's"),
    (lambda k: abs(_spread(k)[0]), "the difference has lost its sign: it is negative where the second is better"),
]


@check("7.3", "correct: the mean of the differences, and how surely these texts tell it.")
def check_paired(paired_difference: Any) -> None:
    """``paired_difference(first, second)`` must return the difference of accuracies and half its 95 % interval, paired."""
    cases = [(140, 90, 500, 70), (40, 75, 250, 135), (150, 130, 900, 220)]
    answers = []
    for b, c, both, neither in cases:
        first = torch.tensor([1] * b + [0] * c + [1] * both + [0] * neither).bool()
        second = torch.tensor([0] * b + [1] * c + [1] * both + [0] * neither).bool()
        shuffled = torch.randperm(len(first))
        hint = "True and False are no numbers: .float() makes 1 and 0 of them"
        answers.append(called(paired_difference, first[shuffled], second[shuffled], hint=hint))
    require(None not in answers, NOTHING)
    for answer in answers:
        with suppress(TypeError):
            if len(answer) == 2:
                continue
        raise Mistake("the function must return two numbers: the difference, and half the width of its interval")
    pairs = [(number(a), number(b)) for a, b in answers]
    ends = [(m - w, m + w) for m, w in ((_spread(k)[0], _width(k)) for k in cases)]
    require(
        not _agree([a for a, _ in pairs], [low for low, _ in ends]),
        "those are the ends of the interval: return its middle and half its width",
    )
    require(
        not _agree([b for _, b in pairs], [_spread(k)[0] for k in cases]),
        "the two are in the wrong order: first the difference, then half the width of its interval",
    )
    for which, right, guesses, wanted in (
        (0, lambda k: _spread(k)[0], _MEANS, "the difference of the accuracies"),
        (1, _width, _WIDTHS, "1.96 · s / √n, with s the standard deviation of the differences"),
    ):
        given, k = [pair[which] for pair in pairs], cases[0]
        tolerance = (1e-4, 4e-2)[which]  # a bootstrap is right, too
        first_match(
            lambda f, given=given, tolerance=tolerance: _agree(given, [f(k) for k in cases], tolerance),  # type: ignore[misc]
            right, guesses,
            f"of {sum(k)} texts {k[0]} are right only in the first, {k[1]} only in the second: {wanted} is "
            f"{right(k):.4f}, not {given[0]:.4f}",
        )  # fmt: skip


def _agree(given: Sequence[float], wanted: Sequence[float], tolerance: float = 1e-4) -> bool:
    return all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(given, wanted, strict=True))


@check("7.4", "correct: as many tries for both, chosen on validation, all seeds, and the interval's lower end decides.")
def check_claim(within_one_point: Any) -> None:
    """``within_one_point(run, rates, seeds)`` is tried in worlds in which the truth is known."""
    verdicts = []
    for world in WORLDS:
        run = Recorded(world)
        verdicts.append(verdict(within_one_point(run, dict(RATES), SEEDS)))
        run.examine()

    first_match(
        lambda design: verdicts == [design(Recorded(world), RATES, SEEDS) for world in WORLDS],
        right_design,
        DESIGNS,
        _first_wrong(verdicts),
    )


def _first_wrong(verdicts: list[bool]) -> str:
    for world, given in zip(WORLDS, verdicts, strict=True):
        if given != world.supported:
            return f"{world.story} the claim is {'' if world.supported else 'not '}supported, and your function says the opposite"
    return ""
