import copy
import statistics
from functools import partial

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson import AdapterConfig, insert_adapters, prepare, set_trainable

# 5.1


def stepper(loss_of=None, order="zbs", result="item", mask=True):
    """A family of answers that differ in the loss, in the order of zero_grad, backward and step, or in the result."""

    def training_step(model, optimizer, batch):
        ids, attention_mask, labels = batch
        logits = model(ids, attention_mask if mask else torch.ones_like(attention_mask))
        loss = (loss_of or F.cross_entropy)(logits, labels)
        for letter in order:
            {"z": optimizer.zero_grad, "b": loss.backward, "s": optimizer.step}[letter]()
        if result == "item":
            return loss.item()
        return loss if result == "tensor" else None

    return training_step


def step_with_a_new_forward(model, optimizer, batch):
    stepper()(model, optimizer, batch)
    ids, mask, labels = batch
    return F.cross_entropy(model(ids, mask), labels).item()


def step_that_returns_the_accuracy(model, optimizer, batch):
    stepper()(model, optimizer, batch)
    ids, mask, labels = batch
    return (model(ids, mask).argmax(-1) == labels).float().mean().item()


def step_without_graph(model, optimizer, batch):
    ids, mask, labels = batch
    with torch.no_grad():
        logits = model(ids, mask)
    optimizer.zero_grad()
    F.cross_entropy(logits, labels).backward()
    optimizer.step()


def step_with_another_optimizer(model, optimizer, batch):
    stepper()(model, torch.optim.AdamW(model.parameters(), lr=1e-3), batch)


def clipped_step(model, optimizer, batch):
    ids, mask, labels = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(ids, mask), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def step_in_evaluation_mode(model, optimizer, batch):
    model.eval()
    return right_step(model, optimizer, batch)


def right_step_with_a_closure(model, optimizer, batch):
    ids, mask, labels = batch

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids, mask), labels)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


def right_step(model, optimizer, batch):
    input_ids, attention_mask, labels = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(input_ids, attention_mask), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def right_step_with_a_module(model, optimizer, batch):
    *inputs, labels = batch
    loss = nn.CrossEntropyLoss()(model(*inputs), labels)
    model.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def right_step_by_hand(model, optimizer, batch):
    input_ids, attention_mask, labels = batch
    logits = model(input_ids=input_ids, attention_mask=attention_mask)
    loss = -logits.log_softmax(-1)[torch.arange(len(labels)), labels].mean()
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return loss.detach().item()


# 5.2

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def interval(width):
    return lambda values: (statistics.mean(values), width(values))


def right_half(v):
    return T95[len(v)] * statistics.stdev(v) / len(v) ** 0.5


def right_with_torch(values):
    values = torch.tensor(values)
    return values.mean().item(), (T95[len(values)] * values.std() / len(values) ** 0.5).item()


def right_with_numpy(values):
    return numpy.mean(values), T95[len(values)] * numpy.std(values, ddof=1) / numpy.sqrt(len(values))


def right_with_scipy(values):
    from scipy.stats import t

    low, high = t.interval(0.95, len(values) - 1, numpy.mean(values), numpy.std(values, ddof=1) / len(values) ** 0.5)
    return (low + high) / 2, (high - low) / 2


# 5.3


def measure(measured, *, swap=True, put_back=True, evaluate=True, mode_back=True):
    """A family of answers that differ in what is measured and in what is forgotten."""

    def old_accuracy(model, old_head, batch):
        ids, mask, labels = batch
        new_head, training = model.head, model.training
        if swap:
            model.head = old_head
        if evaluate:
            model.eval()
        with torch.no_grad():
            result = measured(model(ids, mask), labels)
        if put_back:
            model.head = new_head
        if mode_back:
            model.train(training)
        return result

    return old_accuracy


def share(logits, labels):
    return (logits.argmax(-1) == labels).float().mean().item()


def always_to_training(model, old_head, batch):
    result = measure(share)(model, old_head, batch)
    model.train()
    return result


def copies_weights(model, old_head, batch):
    model.head.load_state_dict(old_head.state_dict())
    return measure(share, swap=False)(model, old_head, batch)


def freezes(model, old_head, batch):
    model.requires_grad_(False)
    return measure(share)(model, old_head, batch)


def right_swap(model, old_head, batch):
    input_ids, attention_mask, labels = batch
    new_head, training = model.head, model.training
    model.head = old_head
    model.eval()
    with torch.no_grad():
        right = model(input_ids, attention_mask).argmax(-1) == labels
    model.head = new_head
    model.train(training)
    return right.float().mean().item()


def right_features(model, old_head, batch):
    ids, mask, labels = batch
    was = model.training
    model.eval()
    with torch.inference_mode():
        guesses = old_head(model.features(ids, mask)).argmax(1)
    model.train(was)
    return float((guesses == labels).sum()) / len(labels)


def right_copy(model, old_head, batch):
    ids, mask, labels = batch
    other = copy.deepcopy(model).eval()
    other.head = old_head
    return (other(ids, mask).argmax(-1) == labels).float().mean().item()


# 5.4


def fitter(*, build="after", freeze=True, zero=True, parameters=None, insert=True, head=True, result="list"):
    """A family of answers that differ in when the optimiser is built, and in what it is given."""

    def fit(model, config, batches, learning_rate):
        if build == "before":
            optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
        if insert:
            insert_adapters(model, config)
            if freeze:
                set_trainable(model, head=head)
        if build == "after":
            chosen = parameters(model) if parameters else [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(chosen, lr=learning_rate)
        losses = []
        for ids, mask, labels in batches:
            if build == "each time":
                optimizer = torch.optim.SGD(model.head.parameters(), lr=learning_rate)
            if zero:
                optimizer.zero_grad()
            loss = F.cross_entropy(model(ids, mask), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss if result == "tensors" else loss.item())
        return None if result == "none" else losses[-1] if result == "last" else losses

    return fit


def named(*words):
    return lambda model: [p for name, p in model.named_parameters() if any(word in name for word in words)]


def fit_twice(model, config, batches, learning_rate):
    losses = fitter()(model, config, batches, learning_rate)
    for ids, mask, labels in batches:
        optimizer = torch.optim.SGD(model.head.parameters(), lr=learning_rate)
        F.cross_entropy(model(ids, mask), labels).backward()
        optimizer.step()
    return losses


def fit_without_steps(model, config, batches, learning_rate):
    prepare(model, "adapter", config)
    return [F.cross_entropy(model(ids, mask), labels).item() for ids, mask, labels in batches]


def fit_from_another_start(model, config, batches, learning_rate):
    return fitter()(model, AdapterConfig(4, init="bert", init_std=1.0), batches, learning_rate)


def frozen_after_the_training(model, config, batches, learning_rate):
    losses = fitter(freeze=False)(model, config, batches, learning_rate)
    set_trainable(model)
    return losses


def frozen_by_hand(model, config, batches, learning_rate):
    """Frozen before the adapters are put in, which are new and trained."""
    model.train()
    model.base_model.requires_grad_(False)
    adapters = nn.ModuleList(insert_adapters(model, config))
    optimizer = torch.optim.RMSprop([*adapters.parameters(), *model.head.parameters()], learning_rate)
    return list(map(partial(right_step, model, optimizer), batches))


def right_fit(model, config, batches, learning_rate):
    insert_adapters(model, config)
    set_trainable(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    return [right_step(model, optimizer, batch) for batch in batches]


def right_fit_clipped(model, config, batches, learning_rate):
    prepare(model, "adapter", config)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=learning_rate), []
    for ids, mask, labels in batches:
        loss = F.cross_entropy(model(ids, mask), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def right_fit_with_groups(model, config, batches, learning_rate):
    adapters = insert_adapters(model, config)
    set_trainable(model)
    groups = [
        {"params": [p for a in adapters for p in a.parameters()]},
        {"params": model.head.parameters(), "lr": 0.1 * learning_rate},
    ]
    optimizer = torch.optim.Adam(groups, lr=learning_rate)
    return [right_step_with_a_module(model, optimizer, batch) for batch in batches]


def step_that_changes_the_labels(model, optimizer, batch):
    loss = right_step(model, optimizer, batch)
    batch[2].zero_()
    return loss


def step_with_a_smaller_rate(model, optimizer, batch):
    loss = right_step(model, optimizer, batch)
    optimizer.param_groups[0]["lr"] *= 0.5
    return loss


def fit_that_takes_batches_out(model, config, batches, learning_rate):
    return right_fit(model, config, iter(lambda: batches.pop(0) if batches else None, None), learning_rate)


def fit_with_a_new_head(model, config, batches, learning_rate):
    model.head = nn.Linear(model.head.in_features, model.head.out_features)
    return right_fit(model, config, batches, learning_rate)


def fit_without_the_mask(model, config, batches, learning_rate):
    unmasked = [(ids, torch.ones_like(mask), labels) for ids, mask, labels in batches]
    return right_fit(model, config, unmasked, learning_rate)


def fit_and_freeze_all(model, config, batches, learning_rate):
    losses = right_fit(model, config, batches, learning_rate)
    model.requires_grad_(False)
    return losses


def fit_of_a_hundredfold(model, config, batches, learning_rate):
    return [100 * loss for loss in right_fit(model, config, batches, learning_rate)]


WRONG = {
    "check_step": [
        (step_that_changes_the_labels, "the batch is changed in place"),
        (step_with_a_smaller_rate, "or does something else stay?"),
        (lambda *given: round(right_step(*given), 3), "1.117 instead of 1.11732"),
        (stepper(order="bs"), "gradients add up"),
        (stepper(order="bzs"), "throws the gradients away"),
        (stepper(order="zsb"), "step() comes before backward()"),
        (stepper(order="zb"), "step() is never called"),
        (stepper(order="zs"), "backward() is never called"),
        (stepper(order="zbss"), "2 times"),
        (stepper(result="none"), "return missing"),
        (stepper(result="tensor"), "loss.item()"),
        (stepper(lambda x, y: F.cross_entropy(x.softmax(-1), y)), "does the softmax itself"),
        (stepper(lambda x, y: F.cross_entropy(x.sigmoid(), y)), "sigmoids"),
        (stepper(lambda x, y: F.cross_entropy(x, y, reduction="sum")), "summed over the batch"),
        (stepper(lambda x, y: F.mse_loss(x, F.one_hot(y, 2).float())), "squared error"),
        (stepper(lambda x, y: -F.cross_entropy(x, y)), "sign is turned round"),
        (stepper(lambda x, y: F.cross_entropy(x, x.argmax(-1))), "its own answers"),
        (stepper(lambda x, y: F.cross_entropy(x, y) / 2), "0.5 times as long"),
        (stepper(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.2)), "each once", False),
        (clipped_step, "or the gradient clipped"),
        (step_in_evaluation_mode, "in evaluation mode afterwards"),
        (stepper(mask=False), "padding takes part"),
        (step_with_a_new_forward, "as it was before the step"),
        (step_that_returns_the_accuracy, "not its loss"),
        (step_without_graph, "the loss has no graph"),
        (step_with_another_optimizer, "step() is never called"),
    ],
    "check_interval": [
        (lambda v: (statistics.mean(v), statistics.mean(v)), "the half-width is T95[n]", False),
        (interval(lambda v: T95[len(v) + 1] * statistics.stdev(v) / len(v) ** 0.5), "T95[6] is not there"),
        (interval(statistics.stdev), "one run's spread"),
        (interval(lambda v: statistics.stdev(v) / len(v) ** 0.5), "multiply it by t"),
        (interval(lambda v: 1.96 * statistics.stdev(v) / len(v) ** 0.5), "1.96"),
        (interval(lambda v: T95[len(v)] * statistics.pstdev(v) / len(v) ** 0.5), "n − 1"),
        (interval(lambda v: T95[len(v)] * statistics.stdev(v)), "√n is missing"),
        (interval(lambda v: T95[len(v)] * statistics.stdev(v) / len(v)), "divide it by √n"),
        (interval(lambda v: T95[len(v)] * statistics.variance(v) / len(v) ** 0.5), "variance"),
        (interval(lambda v: 2 * right_half(v)), "half of it"),
        (interval(lambda v: (max(v) - min(v)) / 2), "half the range"),
        (interval(lambda v: 1.1 * right_half(v)), "T95[n] · s / √n", False),
        (lambda v: (statistics.mean(v) - right_half(v), statistics.mean(v) + right_half(v)), "ends of the interval"),
        (lambda v: (right_half(v), statistics.mean(v)), "wrong order"),
        (lambda v: (statistics.median(v), right_half(v)), "median"),
        (lambda v: statistics.mean(v), "two values"),
        (lambda v: None, "return missing"),
        (lambda v: (sum(v) / (len(v) - 1), right_half(v)), "the sum is divided by n − 1"),
        (interval(lambda v: T95[len(v) - 1] * statistics.stdev(v) / len(v) ** 0.5), "its key is the number of values"),
    ],
    "check_old_accuracy": [
        (measure(lambda x, y: round(share(x, y), 3)), "0.708333; it gives 0.708", False),
        (measure(share, put_back=False), "put its own back"),
        (measure(share, swap=False), "new head's accuracy"),
        (measure(share, mode_back=False), "is in evaluation mode afterwards"),
        (always_to_training, "is in training mode afterwards"),
        (measure(share, evaluate=False), "dropout is on"),
        (copies_weights, "the weights have changed"),
        (freezes, "frozen afterwards"),
        (measure(lambda x, y: 100 * share(x, y)), "per cent"),
        (measure(lambda x, y: (x.argmax(-1) == y).sum().item()), "divide by the number"),
        (measure(lambda x, y: 1 - share(x, y)), "wrong answers"),
        (measure(lambda x, y: f"{share(x, y):.0%}"), "must return a number"),
        (measure(lambda x, y: x.argmax(-1) == y), "take the mean"),
        (measure(lambda x, y: None), "return missing"),
        (measure(lambda x, y: F.cross_entropy(x, y).item()), "that is the loss"),
        (measure(lambda x, y: x.softmax(-1).max(-1).values.mean().item()), "17 of 24", False),
        (measure(lambda x, y: (x.argmax(0) == y).float().mean().item()), "argmax(0) among the texts"),
    ],
    "check_fit": [
        (fitter(parameters=lambda model: model.head.parameters()), "does not know the adapters: build it after"),
        (fit_that_takes_batches_out, "list of batches is changed"),
        (fit_with_a_new_head, "another head than before"),
        (fit_without_the_mask, "first step's gradient is not that of the first batch's loss"),
        (fit_and_freeze_all, "the head is frozen afterwards"),
        (fit_of_a_hundredfold, "the list begins with 138.293"),
        (fitter(build="before"), "build it after inserting"),
        (fitter(freeze=False), "the base model has changed"),
        (fitter(zero=False), "gradients add up"),
        (fitter(head=False), "the head has not moved"),
        (fitter(insert=False), "has no adapters"),
        (fitter(build="each time"), "does not know the adapters"),
        (fitter(freeze=False, parameters=named("adapters", "head")), "for nothing"),
        (fitter(parameters=named("blocks.0.attention.output.adapters_after")), "not all of the adapters"),
        (fitter(result="none"), "return missing"),
        (fitter(result="last"), "one loss for each"),
        (fitter(result="tensors"), "must be floats"),
        (fit_twice, "12 step(s) for 6 batches"),
        (fit_without_steps, "no optimiser takes a step"),
        (fit_from_another_start, "new adapters change nothing"),
        (lambda model, config, batches, rate: fitter()(model, AdapterConfig(3), batches, rate), "have width 3"),
        (lambda model, config, batches, rate: fitter()(model, config, batches, 1e-3), "lr=learning_rate"),
        (
            lambda model, config, batches, rate: fitter()(model.eval(), config, batches, rate),
            "in evaluation mode while it learns",
        ),
        (frozen_after_the_training, "the base model has changed"),
        (
            lambda model, config, batches, rate: fitter()(model, config, batches[::-1], rate),
            "first step's gradient is not",
        ),
    ],
}
RIGHT = {
    "check_step": [
        right_step,
        right_step_with_a_module,
        right_step_by_hand,
        stepper(order="bsz"),
        right_step_with_a_closure,
        partial(stepper(F.cross_entropy)),
    ],
    "check_interval": [interval(right_half), right_with_torch, right_with_numpy, right_with_scipy],
    "check_old_accuracy": [
        right_swap,
        right_features,
        right_copy,
        measure(lambda x, y: (x.argmax(-1) == y).float().mean()),
        measure(lambda x, y: numpy.mean((x.argmax(-1) == y).numpy())),
        measure(lambda x, y: sum(int(row.argmax()) == int(label) for row, label in zip(x, y)) / len(y)),
    ],
    "check_fit": [
        lambda *given: numpy.array(right_fit(*given)),
        right_fit,
        right_fit_clipped,
        right_fit_with_groups,
        frozen_by_hand,
    ],
}
