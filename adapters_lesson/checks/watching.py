"""What the checks of a training loop look through: a tiny classifier, batches, and optimisers under observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..transformer import Classifier, SmallTransformer, SmallTransformerConfig
from .report import close

TINY = SmallTransformerConfig(
    vocab_size=40, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, dropout=0.0
)
RATE = 0.5


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


class SpyingSGD(torch.optim.SGD):
    """Gradient descent that notes what is called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.calls: list[str] = []
        super().__init__(*args, **kwargs)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.calls.append("zero_grad")
        super().zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:  # forward and backward are in it, and come first
            with torch.enable_grad():
                loss = closure()
        self.calls.append("step")
        super().step()
        return loss


class OptimizerWatch:
    """While it is open: which optimiser takes how many steps, knows which parameters, with whose gradients."""

    def __init__(self, model: Classifier, batches: list[tuple]) -> None:
        self.model, self.batches = model, batches
        self.steps = self.foreign = 0
        self.known: set[int] = set()
        self.rates: set[float] = set()
        self.off = 0  # steps with dropout switched off

    def __enter__(self) -> None:
        self.handle = register_optimizer_step_pre_hook(self.look)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

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
            self.foreign += not close(F.normalize(own.flatten(), dim=0), F.normalize(weight.grad.flatten(), dim=0))
        self.steps += 1


def reference_step(
    model: Classifier, batch: tuple, loss_of: Callable[[Classifier], torch.Tensor] | None = None
) -> float:
    """One step of gradient descent on the cross-entropy, or on another loss; returns the loss before it."""
    ids, mask, labels = batch
    loss = loss_of(model) if loss_of else F.cross_entropy(model(ids, mask), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter.sub_(RATE * gradient)
    return loss.item()


def scale_of_step(model: Classifier, start: Classifier, expected: Classifier) -> float | None:
    """By what the step from ``start`` to ``expected`` was multiplied on the way to ``model``; None if it went elsewhere."""
    steps = [
        torch.cat([(p - q).flatten() for p, q in zip(end.parameters(), start.parameters(), strict=True)]).detach()
        for end in (model, expected)
    ]
    scale = (steps[0] @ steps[1] / (steps[1] @ steps[1])).item()
    return scale if torch.allclose(steps[0], scale * steps[1], atol=1e-4) else None


def values_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    """Whether a parameter that is in ``before`` has changed."""
    return any(not torch.equal(p, before[name]) for name, p in module.named_parameters() if name in before)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules of one make agree in all parameters, up to rounding."""
    return all(close(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def why_not(model: Classifier, expected: Classifier, batch: tuple) -> str:
    """The likely mistake behind a first step that did not lead where it should."""
    ids, mask, labels = batch
    one_hot = F.one_hot(labels, 2).float()
    wrong_losses: list[tuple[Callable[[Classifier], torch.Tensor], str]] = [
        (lambda m: F.cross_entropy(m(ids, mask).softmax(-1), labels),
         "the loss is of probabilities: cross_entropy does the softmax itself, give it the logits"),
        (lambda m: F.cross_entropy(m(ids, mask).sigmoid(), labels),
         "the loss is of sigmoids: cross_entropy wants the logits as they are"),
        (lambda m: F.cross_entropy(m(ids, torch.ones_like(mask)), labels),
         "the padding takes part: give the model the attention_mask as well"),
        (lambda m: F.cross_entropy(m(ids, mask), labels, reduction="sum"),
         "the loss is summed over the batch: take the mean (the default), or the step grows with the batch"),
        (lambda m: F.mse_loss(m(ids, mask), one_hot), "that is the squared error: use cross_entropy"),
        (lambda m: F.mse_loss(m(ids, mask).softmax(-1), one_hot), "that is the squared error: use cross_entropy"),
        (lambda m: -F.cross_entropy(m(ids, mask), labels), "the sign is turned round: the loss goes up, not down"),
        (lambda m: F.cross_entropy(m(ids, mask), 1 - labels), "the labels are turned round"),
        (lambda m: F.cross_entropy(m(ids, mask), m(ids, mask).argmax(-1)),
         "the model is taught its own answers: the loss must compare the logits with the batch's labels"),
    ]  # fmt: skip
    for wrong, message in wrong_losses:
        other = tiny_classifier()
        reference_step(other, batch, wrong)
        if same_weights(model, other):
            return message
    scale = scale_of_step(model, tiny_classifier(), expected)
    if scale is not None:
        return f"the step goes in the right direction, but is {scale:.3g} times as long: is the loss multiplied or divided, or the gradient clipped?"
    return (
        "the model is not where one step of gradient descent on the cross-entropy of this batch leads: "
        "zero_grad, forward, loss, backward, step, each once"
    )
