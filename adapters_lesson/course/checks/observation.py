"""What the checks of a training loop look through: a tiny classifier, batches, and optimisers under observation."""

from collections.abc import Callable
from typing import Any
from unittest.mock import DEFAULT, Mock

import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson.transformer import Classifier, SmallTransformer, SmallTransformerConfig

from .check import Mistake
from .comparison import close, first_match

TINY = SmallTransformerConfig(40, 12, 2, num_attention_heads=2, intermediate_size=24, dropout=0.0)
RATE = 0.5
_Loss = Callable[[Classifier], torch.Tensor]


def tiny_classifier() -> Classifier:
    """Always the same one; weights large enough that what is done wrong shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Classifier(SmallTransformer(TINY), 2)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.4)
    return model


def tiny_batch(seed: int, texts: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask (with padding) and labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 40, (texts, 7), generator=generator)
    mask = (torch.arange(7) < torch.randint(2, 8, (texts, 1), generator=generator)).long()
    return ids * mask, mask, torch.arange(texts) % 3 % 2


def watched_sgd(model: Classifier) -> tuple[torch.optim.SGD, list[str]]:
    """Gradient descent, and a list in which it notes each step and each zero_grad."""
    optimizer, calls = torch.optim.SGD(model.parameters(), lr=RATE), list[str]()
    optimizer.register_step_post_hook(lambda *_: calls.append("step"))

    def note(*_: object, **how: object) -> Any:
        calls.append("zero_grad")
        return DEFAULT  # go on to what is wrapped

    optimizer.zero_grad = Mock(wraps=optimizer.zero_grad, side_effect=note)  # type: ignore[method-assign]
    return optimizer, calls


class OptimizerWatch:
    """While ``look`` is a hook of all optimisers: how many steps they take, what they know, with whose gradients."""

    def __init__(self, model: Classifier, batches: list[tuple]) -> None:
        self.model, self.batches = model, batches
        self.steps, self.foreign = 0, list[int]()  # the steps that use another gradient than their batch's
        self.losses: list[float] = []  # of each step's batch, before it
        self.known: set[int] = set()
        self.rates: set[float] = set()
        self.off = 0  # steps with dropout switched off

    def look(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        self.known |= {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.rates |= {group["lr"] for group in optimizer.param_groups}
        self.off += not self.model.training
        weight = self.model.head.weight
        if self.steps < len(self.batches) and weight.requires_grad and weight.grad is not None:
            ids, mask, labels = self.batches[self.steps]
            with torch.enable_grad():
                loss = F.cross_entropy(self.model(ids, mask), labels)
                (own,) = torch.autograd.grad(loss, [weight])
            # Their directions are compared, so that gradients may be clipped.
            self.losses.append(loss.item())
            if not close(F.normalize(own.flatten(), dim=0), F.normalize(weight.grad.flatten(), dim=0)):
                self.foreign.append(self.steps)
        self.steps += 1


def reference_step(model: Classifier, batch: tuple, loss_of: _Loss | None = None) -> float:
    """One step of gradient descent on the cross-entropy, or on another loss; returns the loss before it."""
    ids, mask, labels = batch
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    optimizer.zero_grad()
    loss = loss_of(model) if loss_of else F.cross_entropy(model(ids, mask), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def values_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    """Whether a parameter that is in ``before`` has changed."""
    return any(not torch.equal(p, before[name]) for name, p in module.named_parameters() if name in before)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules of one make agree in all parameters, up to rounding."""
    return all(close(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def examine_step(model: Classifier, expected: Classifier, batch: tuple) -> None:
    """Raise ``Mistake`` with the likely reason where a first step did not lead where it should."""
    ids, mask, labels = batch
    one_hot = F.one_hot(labels, 2).float()
    squared = "that is the squared error: use cross_entropy"

    def led_here(loss: _Loss) -> bool:
        other = tiny_classifier()
        reference_step(other, batch, loss)
        return same_weights(model, other)

    def entropy(logits: torch.Tensor, labels: torch.Tensor = labels) -> torch.Tensor:
        return F.cross_entropy(logits, labels)

    guesses: dict[_Loss, str] = {
        lambda m: entropy(m(ids, mask).softmax(-1)): "cross_entropy does the softmax itself, give it the logits",
        lambda m: entropy(m(ids, mask).sigmoid()): "the loss is of sigmoids: cross_entropy wants the logits",
        lambda m: entropy(m(ids, torch.ones_like(mask))): "the padding takes part: give the model the attention_mask",
        lambda m: len(ids) * entropy(m(ids, mask)): "the loss is summed over the batch: take the mean, the default",
        lambda m: F.mse_loss(m(ids, mask), one_hot): squared,
        lambda m: F.mse_loss(m(ids, mask).softmax(-1), one_hot): squared,
        lambda m: -entropy(m(ids, mask)): "the sign is turned round: the loss goes up, not down",
        lambda m: entropy(m(ids, mask), 1 - labels): "the labels are turned round",
        lambda m: entropy(m(ids, mask), m(ids, mask).argmax(-1)): "it is taught its own answers, not the labels",
    }
    first_match(led_here, lambda m: entropy(m(ids, mask)), guesses)
    if same_weights(model, expected):
        return
    begin, *ends = (nn.utils.parameters_to_vector(m.parameters()) for m in (tiny_classifier(), model, expected))
    step, right = (end - begin for end in ends)
    scale = (step @ right / right.square().sum()).item()
    if torch.allclose(step, scale * right, atol=1e-4):
        raise Mistake(f"the step is {scale:.3g} times as long: is the loss multiplied, or the gradient clipped?")
    raise Mistake("that is not where one step leads: zero_grad, forward, loss, backward, step, each once")
