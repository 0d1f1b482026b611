"""Checks of lesson 05: the training step, mean and interval over seeds, what is forgotten, a run put in order."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean, pstdev, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..adapter import Adapter, AdapterConfig
from ..transformer import Classifier, SmallTransformer, SmallTransformerConfig
from .matching import called, number
from .report import Mistake, check, require
from .watching import (
    RATE,
    TINY,
    OptimizerWatch,
    SpyingSGD,
    moved,
    reference_step,
    same_weights,
    tiny_batch,
    tiny_classifier,
    values_of,
    why_not,
)


@check("5.1", "correct: gradients cleared, forward, loss, backward, one step, and the loss as a number.")
def check_step(training_step: Any) -> None:
    """``training_step(model, optimizer, batch)`` must take one step of gradient descent and return the loss."""
    batches = [tiny_batch(0), tiny_batch(1)]
    model, expected = tiny_classifier(), tiny_classifier()
    optimizer = SpyingSGD(model.parameters(), lr=RATE)
    model.head.weight.register_hook(lambda gradient: optimizer.calls.append("backward"))
    try:
        first = training_step(model, optimizer, batches[0])
    except RuntimeError as error:
        require(
            "does not require grad" not in str(error),
            "the loss has no graph, so backward() has nothing to go through: is there a no_grad or a detach in the step?",
        )
        raise
    calls = optimizer.calls
    require("step" in calls, "optimizer.step() is never called, so nothing is learnt")
    require("backward" in calls, "loss.backward() is never called, so there are no gradients")
    require(calls.count("step") == 1, f"optimizer.step() is called {calls.count('step')} times: one batch, one step")
    require(
        calls.index("backward") < calls.index("step"),
        "step() comes before backward(): it uses the gradients of the batch before",
    )
    require(
        "zero_grad" not in calls[calls.index("backward") : calls.index("step")],
        "zero_grad() between backward() and step() throws the gradients away: clear the old ones, before backward()",
    )
    losses = [reference_step(expected, batches[0])]
    if not same_weights(model, expected):
        raise Mistake(why_not(model, expected, batches[0]))
    require(
        model.training,
        "the model is in evaluation mode afterwards: a training step leaves dropout on, eval() belongs to measuring",
    )
    second = training_step(model, optimizer, batches[1])
    losses.append(reference_step(expected, batches[1]))
    require(
        same_weights(model, expected),
        "the first step is right, the second is not: gradients add up until they are cleared, "
        "so call optimizer.zero_grad() in every step",
    )
    require(first is not None, "the step itself is right, but the function returns None: is the return missing?")
    require(
        not isinstance(first, torch.Tensor),
        "it returns a tensor, which keeps the whole graph of this step in memory: return loss.item()",
    )
    require(isinstance(first, float), f"it must return the loss as a float, it returned a {type(first).__name__}")
    require(
        math.isclose(first, losses[0], rel_tol=1e-4) and math.isclose(second, losses[1], rel_tol=1e-4),
        f"the step is right, but the number returned is not its loss: {first:.3f} instead of {losses[0]:.3f} "
        "(the mean over the batch, as it was before the step)",
    )


@check("5.2", "correct: the mean, and half the width of Student's 95 % interval.")
def check_interval(mean_and_interval: Any) -> None:
    """``mean_and_interval(values)`` must return the mean and t · s / √n."""
    factors = {2: 12.706, 3: 4.303, 5: 2.776}
    cases = [[0.9, 0.96, 0.93, 0.99, 0.92], [80.0, 83.0, 84.0], [1.0, 2.0]]
    try:
        answers = [mean_and_interval(list(case)) for case in cases]
    except KeyError as error:
        raise Mistake(
            f"T95[{error}] is not in the table: its key is the number of values n, not n − 1; it has done the subtraction"
        ) from error
    require(None not in answers, "the function returns None: is the return missing?")
    for answer in answers:
        require(
            isinstance(answer, (tuple, list)) and len(answer) == 2,
            f"return two numbers, the mean and the half-width, not {answer!r}",
        )
    numbers = [(float(a), float(b)) for a, b in answers]
    if all(_alike(b, mean(case)) for (_, b), case in zip(numbers, cases, strict=True)):
        raise Mistake("the two are in the wrong order: first the mean, then the half-width")
    if all(_alike(a + b, 2 * mean(case)) for (a, b), case in zip(numbers, cases, strict=True)):
        raise Mistake("these are the ends of the interval: return the mean and half the width")
    for (answer, _), case in zip(numbers, cases, strict=True):
        require(
            not _alike(answer, sorted(case)[len(case) // 2]) or _alike(answer, mean(case)),
            "the first number is the median: take the mean",
        )
        require(
            not _alike(answer, sum(case) / (len(case) - 1)),
            "for the mean the sum is divided by n − 1: that belongs to the standard deviation, here it is n",
        )
        require(_alike(answer, mean(case)), f"the mean of {case} is {mean(case):.3f}, not {answer:.3f}")

    def all_are(formula: Callable[[list[float]], float]) -> bool:
        return all(
            _alike(width, formula(case), 5e-3) for (_, width), case in zip(numbers, cases, strict=True)
        )  # a rounded t is right

    def right(v: list[float]) -> float:
        return factors[len(v)] * stdev(v) / math.sqrt(len(v))

    wrong_widths: list[tuple[Callable[[list[float]], float], str]] = [
        (lambda v: stdev(v), "that is the standard deviation: one run's spread; the mean of n runs is surer by √n"),
        (lambda v: pstdev(v), "that is the standard deviation, and divided by n: divide by n − 1, then by √n"),
        (lambda v: stdev(v) / math.sqrt(len(v)), "that is the standard error alone: multiply it by t"),
        (lambda v: pstdev(v) / math.sqrt(len(v)), "the squares are divided by n, and t is missing: n − 1, since the mean comes from the same values"),
        (lambda v: factors[len(v)] * pstdev(v) / math.sqrt(len(v)), "the squares are divided by n: with so few values it must be n − 1 (torch.std and statistics.stdev do that)"),
        (lambda v: 1.96 * stdev(v) / math.sqrt(len(v)), "1.96 holds for many values: with a few the factor is Student's t, T95[n]"),
        (lambda v: 1.96 * pstdev(v) / math.sqrt(len(v)), "1.96 holds for many values: use T95[n]; and divide the squares by n − 1"),
        (lambda v: 2 * stdev(v) / math.sqrt(len(v)), "2 holds for many values: with a few the factor is Student's t, T95[n]"),
        (lambda v: factors[len(v)] * stdev(v), "√n is missing: that interval is for a single run, not for the mean"),
        (lambda v: factors[len(v)] * stdev(v) / len(v), "the standard deviation is divided by n: divide it by √n"),
        (lambda v: factors[len(v)] * stdev(v) / math.sqrt(len(v) - 1), "divided by √(n − 1): the n − 1 belongs inside the standard deviation, below it is √n"),
        (lambda v: factors[len(v)] * stdev(v) ** 2 / math.sqrt(len(v)), "that uses the variance: take its root"),
        (lambda v: 2 * right(v), "that is the whole width: return half of it"),
        (lambda v: (max(v) - min(v)) / 2, "that is half the range from lowest to highest: it grows with the number of runs"),
        (lambda v: max(v) - min(v), "that is the range from lowest to highest: it grows with the number of runs"),
    ]  # fmt: skip
    if not all_are(right):
        for wrong, message in wrong_widths:
            require(not all_are(wrong), message)
        case, (_, width) = cases[0], numbers[0]
        raise Mistake(f"for {case} the half-width is {right(case):.4f}, not {width:.4f}: T95[n] · s / √n")


@check("5.3", "correct: the old head's accuracy, and the model is left as it was found.")
def check_old_accuracy(old_accuracy: Any) -> None:
    """``old_accuracy(model, old_head, batch)`` must measure with the old head and leave no trace."""
    model = Classifier(SmallTransformer(SmallTransformerConfig(**{**vars(TINY), "dropout": 0.5})), 2)
    old_head, batch = nn.Linear(12, 2), tiny_batch(2, texts=24)
    for parameter in [*model.parameters(), *old_head.parameters()]:
        nn.init.normal_(parameter, std=0.7)
    ids, mask, labels = batch
    new_head = model.head
    with torch.no_grad():
        old_answers = old_head(model.eval().features(ids, mask)).argmax(-1)
        labels = torch.where(torch.arange(24) < 17, old_answers, 1 - old_answers)  # 17 of 24 right
        loss = F.cross_entropy(old_head(model.features(ids, mask)), labels).item()
        new_answers = new_head(model.features(ids, mask)).argmax(-1)
    batch, states = (ids, mask, labels), [values_of(model), values_of(old_head)]
    answers = {}
    for training in (False, True):
        model.train(training)
        answers[training] = called(
            old_accuracy, model, old_head, batch, hint="argmax(-1) chooses among the labels, argmax(0) among the texts"
        )
        require(
            model.head is new_head,
            "afterwards the model still has the old head: put its own back before you return",
        )
        require(
            not moved(model, states[0]) and not moved(old_head, states[1]),
            "the weights have changed: the old head was copied into the new one's place, or the other way round; "
            "exchange the modules, or use old_head(model.features(...))",
        )
        require(
            all(p.requires_grad for p in model.parameters()),
            "parameters are frozen afterwards: torch.no_grad() is enough for measuring",
        )
        if {module.training for module in model.base_model.modules()} != {training}:
            raise Mistake(
                "the model was in training mode and is in evaluation mode afterwards: remember model.training before "
                "eval(), and give it back with model.train(...)"
                if training
                else "the model was in evaluation mode and is in training mode afterwards: give back the mode that it had"
            )
    require(
        not isinstance(answers[False], torch.Tensor) or answers[False].numel() == 1,
        "it returns one value for each text: take the mean",
    )
    answer = number(answers[False])
    right = 17 / 24
    wrong_answers = [
        ((new_answers == labels).float().mean().item(), "that is the new head's accuracy: put the old head on first"),
        (17, "that is how many are right: divide by the number of texts"),
        (100 * right, "that is in per cent: return a share between 0 and 1"),
        (1 - right, "that is the share of wrong answers"),
        (loss, "that is the loss: compare the labels that the logits choose, argmax(-1), with the batch's"),
    ]
    if not _alike(answer, right):
        for wrong, message in wrong_answers:
            require(not _alike(answer, wrong), message)
        raise Mistake(f"the old head is right on 17 of 24 texts, {right:.3f}; it gives {answer:.3f}")
    require(
        _alike(number(answers[True]), right),
        "in training mode it gives another accuracy: dropout is on while you measure, call model.eval() first",
    )


@check("5.4", "correct: inserted and frozen first, and then an optimiser that knows what is trained.")
def check_fit(fit: Any) -> None:
    """``fit(model, config, batches, learning_rate)`` must train new adapters and the head, and nothing else."""
    model = tiny_classifier()
    before, config = values_of(model), AdapterConfig(4)
    batches = [tiny_batch(n) for n in range(6)]
    watch = OptimizerWatch(model, batches)
    with watch:
        losses = fit(model, config, batches, 0.05)
    adapters = [m for m in model.modules() if isinstance(m, Adapter)]
    require(bool(adapters), "the model has no adapters: insert_adapters(model, config)")
    require(
        len(adapters) == 4,
        f"the model has {len(adapters)} adapters: two blocks in Houlsby's places have 4; insert once, with the config given",
    )
    width = adapters[0].down_project.out_features
    require(
        width == 4, f"the adapters have width {width}, the config says 4: insert them with the config that is given"
    )
    require(watch.steps > 0, "no optimiser takes a step: nothing is learnt")
    require(
        any(id(p) in watch.known for a in adapters for p in a.parameters()),
        "the optimiser does not know the adapters: it was built before they were inserted, or from other parameters",
    )
    require(all(a.up_project.weight.any() for a in adapters), "not all of the adapters have moved: train all of them")
    changed = {n for n, old in before.items() if not torch.equal(dict(model.named_parameters())[n], old)}
    base = sorted(n for n in changed if n.startswith("base_model."))
    require(
        not base,
        f"the base model has changed ({', '.join(base[:2])} and others): freeze it before the optimiser is built, "
        "set_trainable(model) does that",
    )
    require("head.weight" in changed, "the head has not moved: it is new, train it with the adapters")
    on = {n for n, p in model.named_parameters() if p.requires_grad and "_adapters." not in n}
    require(
        watch.steps == len(batches),
        f"the optimiser took {watch.steps} steps for {len(batches)} batches: one batch, one step, in the order given",
    )
    require(
        watch.foreign == 0,
        f"{watch.foreign} of the steps used another gradient than their batch's: gradients add up until zero_grad() "
        "clears them",
    )
    require(
        on == {"head.weight", "head.bias"},
        "the base model is not frozen: it stays as it was only because the optimiser leaves it out, and its gradients "
        "are computed for nothing; set_trainable(model)",
    )
    require(
        any(math.isclose(rate, 0.05, rel_tol=1e-6) for rate in watch.rates),
        f"the optimiser's learning rate is {min(watch.rates):g}, not the one that is given: lr=learning_rate",
    )
    require(
        watch.off == 0,
        "the model is in evaluation mode while it learns, so dropout is off: leave it in training mode, or call model.train()",
    )
    require(losses is not None, "the training is right, but the function returns None: is the return missing?")
    require(
        isinstance(losses, list) and len(losses) == len(batches),
        f"return a list with one loss for each of the {len(batches)} batches",
    )
    require(
        all(isinstance(loss, float) for loss in losses), "the losses must be floats: training_step returns loss.item()"
    )
    ids, mask, labels = batches[0]
    expected = F.cross_entropy(tiny_classifier()(ids, mask), labels).item()
    require(
        math.isclose(losses[0], expected, rel_tol=1e-3),
        f"the first loss is {losses[0]:.3f} instead of {expected:.3f}: new adapters change nothing, so it must be that "
        "of the model without them",
    )


def _alike(a: float, b: float, tolerance: float = 1e-4) -> bool:
    return math.isclose(a, b, rel_tol=tolerance)
