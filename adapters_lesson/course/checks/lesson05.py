"""Checks of lesson 05: the training step, mean and interval over seeds, what is forgotten, a run put in order."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from adapters_lesson.adapter import Adapter, AdapterConfig
from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

from .check import Mistake, check, require
from .comparison import NOTHING, T95, WRONG_WIDTHS, asked, explained, first_match, match_formula, number, pair
from .observation import (
    TINY,
    OptimizerWatch,
    examine_step,
    moved,
    reference_step,
    same_weights,
    tiny_batch,
    tiny_classifier,
    values_of,
    watched_sgd,
)


@check("5.1", "correct: gradients cleared, forward, loss, backward, one step, and the loss as a number.")
def check_step(training_step: Any) -> None:
    """``training_step(model, optimizer, batch)`` must take one step of gradient descent and return the loss."""
    batches = [tiny_batch(0), tiny_batch(1)]
    model, expected = tiny_classifier(), tiny_classifier()
    optimizer, calls = watched_sgd(model)
    model.head.weight.register_hook(lambda gradient: calls.append("backward"))
    modes: list[bool] = []
    model.register_forward_hook(lambda module, args, output: modes.append(module.training))

    with explained({"does not require grad": "the loss has no graph for backward(): is there a no_grad or a detach?"}):
        first = training_step(model, optimizer, batches[0])
    if not all(map(torch.equal, batches[0], tiny_batch(0))):
        raise Mistake("the batch is changed in place: somebody else may still need it, make new tensors")
    other = "" if same_weights(model, expected) else ", another one's is: take the one that is given"
    require("step" in calls, f"optimizer.step() is never called{other or ', so nothing is learnt'}")
    require("backward" in calls, "loss.backward() is never called, so there are no gradients")
    require(calls.count("step") == 1, f"optimizer.step() is called {calls.count('step')} times: one batch, one step")
    require(calls.index("backward") < calls.index("step"), "step() comes before backward(): too early for this batch")
    if "zero_grad" in calls[calls.index("backward") : calls.index("step")]:
        raise Mistake("zero_grad() between backward() and step() throws the gradients away: clear the old ones before")
    losses = [reference_step(expected, batches[0])]
    examine_step(model, expected, batches[0])
    if not model.training or not all(modes):
        raise Mistake("the model is in evaluation mode afterwards, or in the step: eval() belongs to measuring")
    second = training_step(model, optimizer, batches[1])
    losses.append(reference_step(expected, batches[1]))
    if not same_weights(model, expected):
        raise Mistake("the first step is right, the second is not: gradients add up, or does something else stay?")
    require(first is not None, f"the step itself is right, but {NOTHING}")
    require(not isinstance(first, torch.Tensor), "it returns a tensor, which may keep the graph: use loss.item()")
    for given, right in zip(map(number, (first, second)), losses, strict=True):
        other = f"the number is not its loss as it was before the step: {given:.6g} instead of {right:.6g}"
        require(math.isclose(given, right, rel_tol=1e-4), other)


@check("5.2", "correct: the mean, and half the width of Student's 95 % interval.")
def check_interval(mean_and_interval: Any) -> None:
    """``mean_and_interval(values)`` must return the mean and t · s / √n."""
    values = [[0.9, 0.96, 0.93, 0.99, 0.92], [80.0, 83.0, 84.0], [1.0, 2.0], [3.0, 1.0, 4.0, 2.5]]
    with explained({f"KeyError: {n}": f"T95[{n}] is not there: its key is the number of values, n" for n in (1, 6)}):
        answers = [pair(asked(mean_and_interval, v), "the mean and the half-width") for v in values]
    cases = [(v, len(v), T95[len(v)]) for v in values]
    means, widths = ([number(answer[i]) for answer in answers] for i in (0, 1))
    right = "t * stdev(v) / sqrt(n)"  # with any t that is rounded to three digits
    halves = [right, *WRONG_WIDTHS]
    ends = "these are the ends of the interval: return the mean and half the width"
    wrong_means = {
        "median(v)": "the first number is the median: take the mean",
        "sum(v) / (n - 1)": "the sum is divided by n − 1: that is for the deviation",
        **dict.fromkeys(halves, "the two are in the wrong order: first the mean, then the half-width"),
        **{f"mean(v) - ({half})": ends for half in halves},
    }
    match_formula(means, "v n t", cases, "mean(v)", wrong_means, "the mean is the sum divided by n", tolerance=1e-4)
    match_formula(widths, "v n t", cases, right, WRONG_WIDTHS, "the half-width is T95[n] · s / √n", tolerance=5e-3)


@check("5.3", "correct: the old head's accuracy, and the model is left as it was found.")
def check_old_accuracy(old_accuracy: Any) -> None:
    """``old_accuracy(model, old_head, batch)`` must measure with the old head and leave no trace."""
    model = Classifier(SmallTransformer(SmallTransformerConfig(**{**vars(TINY), "dropout": 0.5})), 2)
    old_head, (ids, mask, labels) = nn.Linear(12, 2), tiny_batch(2, texts=24)
    for parameter in [*model.parameters(), *old_head.parameters()]:
        nn.init.normal_(parameter, std=0.7)
        parameter.grad = torch.ones_like(parameter)
    new_head = model.head
    with torch.no_grad():
        features = model.eval().features(ids, mask)
        old_answers = old_head(features).argmax(-1)
        labels = torch.where(torch.arange(24) < 17, old_answers, 1 - old_answers)  # 17 of 24 right
        loss = F.cross_entropy(old_head(features), labels).item()
        new_share = (new_head(features).argmax(-1) == labels).float().mean().item()
    states, answers = [values_of(model), values_of(old_head)], {}
    hint = "a head takes model.features(ids, mask), argmax(-1) chooses among the labels, argmax(0) among the texts"
    for training in (False, True):
        model.train(training)
        answers[training] = asked(old_accuracy, model, old_head, (ids, mask, labels), hint=hint, changes=(0, 1))
        require(model.head is new_head, "afterwards the model still has the old head: put its own back before return")
        if moved(model, states[0]) or moved(old_head, states[1]):
            raise Mistake("the weights have changed: exchange the modules, or use old_head(model.features(...))")
        if not all(p.requires_grad for p in model.parameters()):
            raise Mistake("parameters are frozen afterwards: torch.no_grad() is enough for measuring")
        require(torch.is_grad_enabled(), "gradients are off for everybody afterwards: with torch.no_grad(): ends")
        if any(p.grad is None or not p.grad.all() for p in model.parameters()):
            raise Mistake("the gradients are gone, somebody may be about to use them: measuring needs no zero_grad()")
        if {module.training for module in model.base_model.modules()} != {training}:
            was, now = ("training", "evaluation") if training else ("evaluation", "training")
            raise Mistake(f"the model was in {was} mode and is in {now} mode afterwards: model.train(before)")
    if isinstance(answers[False], torch.Tensor) and answers[False].numel() != 1:
        raise Mistake("it returns one value for each text: take the mean")
    answer, right = number(answers[False]), 17 / 24
    guesses = {
        new_share: "that is the new head's accuracy: put the old head on first",
        17: "that is how many are right: divide by the number of texts",
        100 * right: "that is in per cent: return a share between 0 and 1",
        1 - right: "that is the share of wrong answers",
        loss: "that is the loss: compare the labels that the logits choose, argmax(-1), with the batch's",
    }
    otherwise = f"the old head is right on 17 of 24 texts, {right:.6g}; it gives {answer:.6g}"
    first_match(lambda guess: math.isclose(answer, guess, rel_tol=1e-4), right, guesses, otherwise)
    if not math.isclose(number(answers[True]), right, rel_tol=1e-4):
        raise Mistake("in training mode it gives another accuracy: dropout is on, call model.eval() first")


@check("5.4", "correct: inserted and frozen first, and then an optimiser that knows what is trained.")
def check_fit(fit: Any) -> None:
    """``fit(model, config, batches, learning_rate)`` must train new adapters and the head, and nothing else."""
    model = tiny_classifier()
    before, config = values_of(model), AdapterConfig(4)
    batches = [tiny_batch(n) for n in range(6)]
    watch, head = OptimizerWatch(model, list(batches)), model.head
    with register_optimizer_step_pre_hook(watch.look):
        losses = fit(model, config, batches, 0.05)
    require(len(batches) == 6, "the caller's list of batches is changed: go through it with for, take nothing out")
    require(model.head is head, "the model has another head than before: train the one that it has")
    _check_trained(model, watch, before)
    require(watch.steps == 6, f"the optimiser took {watch.steps} step(s) for 6 batches: one batch, one step")
    require(0 not in watch.foreign, "the first step's gradient is not that of the first batch's loss, with its mask")
    require(not watch.foreign, "later steps' gradients are not their batch's: gradients add up, and each has its batch")
    trained = {n for n, p in model.named_parameters() if p.requires_grad and n in before}
    if any(name.startswith("base_model.") for name in trained):
        raise Mistake("the base model is not frozen, its gradients are for nothing: set_trainable(model)")
    require(trained == {"head.weight", "head.bias"}, "the head is frozen afterwards: it is trained with the adapters")
    if not any(math.isclose(rate, 0.05, rel_tol=1e-6) for rate in watch.rates):
        raise Mistake(f"the optimiser's learning rate is {min(watch.rates):g}, not the one given: lr=learning_rate")
    require(not watch.off, "the model is in evaluation mode while it learns, so dropout is off: call model.train()")
    require(losses is not None, f"the training is right, but {NOTHING}")
    if isinstance(losses, (str, int, float, dict)) or len(losses) != 6:
        raise Mistake("return a list with one loss for each of the 6 batches")
    require(not any(isinstance(loss, torch.Tensor) for loss in losses), "the losses must be floats: use loss.item()")
    ids, mask, labels = batches[0]
    expected, began = F.cross_entropy(tiny_classifier()(ids, mask), labels).item(), watch.losses[0]
    other = f"the model begins with the loss {began:.6g} instead of {expected:.6g}: new adapters change nothing"
    require(math.isclose(began, expected, rel_tol=1e-3), other)
    other = f"the list begins with {number(losses[0]):.6g}; the first batch's loss before its step was {expected:.6g}"
    require(math.isclose(losses[0], expected, rel_tol=1e-3), other)


def _check_trained(model: Classifier, watch: OptimizerWatch, before: dict[str, torch.Tensor]) -> None:
    """Adapters and head have moved, in an optimiser's steps, and nothing else has."""
    adapters = [m for m in model.modules() if isinstance(m, Adapter)]
    require(bool(adapters), "the model that is given has no adapters: insert_adapters(model, config)")
    width = adapters[0].down_project.out_features
    require(width == 4, f"the adapters have width {width}, the config says 4: use the config that is given")
    require(watch.steps > 0, "no optimiser takes a step: nothing is learnt")
    if not any(id(p) in watch.known for a in adapters for p in a.parameters()):
        raise Mistake("the optimiser does not know the adapters: build it after inserting, with their parameters")
    require(all(a.up_project.weight.any() for a in adapters), "not all of the adapters have moved: train all of them")
    now = dict(model.named_parameters())
    changed = {name for name, old in before.items() if not torch.equal(now[name], old)}
    base = sorted(name for name in changed if name.startswith("base_model."))
    require(not base, f"the base model has changed ({', '.join(base[:2])}, …): freeze it with set_trainable(model)")
    require("head.weight" in changed, "the head has not moved: it is new, train it with the adapters")
