# %% [markdown]
# # 05 · Training
#
# **The question.** Does it learn as well as full fine-tuning?
#
# **You will be able to** write a training step, compare fine-tuning methods fairly over seeds, read Houlsby's figures
# beside your own, and say what is forgotten when a model learns something new, and what is not.
#
# **Before you start.** Lessons 01 to 03.
#
# **Time.** 50 minutes, of which the machine computes two or three.

# %%
import torch
import torch.nn.functional as F
from torch import nn

from adapters_lesson import (
    Adapter,
    AdapterConfig,
    Classifier,
    SmallTransformer,
    encode,
    evaluate,
    insert_adapters,
    load_task,
    load_tokenizer,
    predict,
    prepare,
    set_active_adapter,
    set_trainable,
    train,
)
from adapters_lesson.checks import lesson05 as checks
from adapters_lesson.history import load_results
from adapters_lesson.lab import quiz
from adapters_lesson.modes import training_mode
from adapters_lesson.plots import (
    ablation_map,
    before_and_after,
    curves_over_seeds,
    mean_and_interval,
    pareto,
    sensitivity,
    show,
)
from adapters_lesson.training import Texts, batches

tokenizer = load_tokenizer()
data = encode(load_task("aspect_sentiment"), tokenizer)
texts = Texts(data["train"])


def new_model(layers: int = 3, seed: int = 0) -> Classifier:
    """A fresh classifier on the lower layers of MiniLM; the seed decides about the head and what is put in later."""
    torch.manual_seed(seed)
    return Classifier(SmallTransformer.from_minilm(layers), num_labels=2)


# %% [markdown]
# The task is that of lessons 02 and 03: which judgement does the sentence pass on the *named* aspect? A batch is three
# tensors: token ids, a mask that says which of them are words, and labels.

# %%
input_ids, attention_mask, labels = batch = texts.batch(list(range(4)))
print("input_ids", tuple(input_ids.shape), " attention_mask", tuple(attention_mask.shape), " labels", labels.tolist())
print(tokenizer.decode(input_ids[0]))

# %% [markdown]
# ## One step
#
# To learn from a batch means to move every trained parameter a little in the direction that lowers the loss. PyTorch
# shares out the work: the model computes logits, the cross-entropy compares them with the labels, `backward()` writes a
# gradient beside every parameter, and the optimiser moves the parameters. One more thing is easily forgotten:
# `backward()` *adds* to the gradients that are there already.
#
# ### Exercise 5.1 · The training step
#
# **Write** a function that takes one step on one batch and returns the loss as a number.
# **Difficulty** ◆◇◇ · **8 minutes**
#
# **Done** when a second step with the same model is right as well, and the result is a float.
#
# <details><summary>Hint 1</summary>
#
# Five calls: clear the gradients, model, loss, backward, step. The loss is `F.cross_entropy(logits, labels)`.
# </details>
# <details><summary>Hint 2</summary>
#
# `optimizer.zero_grad()` clears, `loss.backward()` computes, `optimizer.step()` moves, `loss.item()` is the number.
# </details>
# <details><summary>I see "gradients add up …"</summary>
#
# Without `zero_grad()` the second step uses the sum of both batches' gradients, the third the sum of three.
# </details>
# <details><summary>I see "cross_entropy does the softmax itself"</summary>
#
# It takes logits. Given probabilities it still runs, and the model learns slowly: a mistake that raises no error.
# </details>


# %%
def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple) -> float:
    input_ids, attention_mask, labels = batch
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    loss = F.cross_entropy(model(input_ids, attention_mask), labels)
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %%
checks.check_step(training_step)
### BEGIN HIDDEN TESTS
import copy


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 2)

    def forward(self, input_ids, attention_mask):
        return (self.table(input_ids) * attention_mask[..., None]).sum(1)


_model = _Model()
_other = copy.deepcopy(_model)
_optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (_model, _other)]
_batch = torch.arange(12).view(4, 3) % 10, torch.tensor([[1, 1, 0]] * 4), torch.tensor([0, 1, 1, 0])
for _ in range(2):
    _given = training_step(_model, _optimizers[0], _batch)
    _loss = F.cross_entropy(_other(*_batch[:2]), _batch[2])
    _optimizers[1].zero_grad()
    _loss.backward()
    _optimizers[1].step()
    assert torch.allclose(_model.table.weight, _other.table.weight, atol=1e-5), "the weights are not those of a step."
    assert isinstance(_given, float) and abs(_given - _loss.item()) < 1e-5, "the loss of the step is not returned."
### END HIDDEN TESTS

# %% [markdown]
# ## What is added for a whole run
#
# A run is this step, many times over. The course's `train` adds four things.
#
# **A schedule.** AdamW's first steps rest on estimates from a few batches, so the learning rate starts low and rises over
# the first tenth of the steps, the **warm-up**. Then it falls to zero, so that the last steps settle instead of jumping.
#
# **Clipping.** Now and then a batch gives a very long gradient. It is cut to length 1 and keeps its direction.
#
# **Evaluation mode for what is frozen.** Dropout keeps a model from learning its texts by heart. A frozen base learns
# nothing, so its dropout would be noise, and cost time. Only what is trained is put into training mode.
#
# **A record.** Loss and learning rate of every step, validation accuracy of every epoch.

# %%
model = new_model()
prepare(model, "adapter", AdapterConfig(bottleneck_dim=16))
training_mode(model)
base = model.base_model
parts = {
    "adapters": [module for module in base.modules() if isinstance(module, Adapter)],
    "dropout of the base": [base.dropout, *(block.dropout for block in base.blocks)],
    "LayerNorms of the base": [module for module in base.modules() if isinstance(module, nn.LayerNorm)],
}
for name, modules in parts.items():
    print(f"{name:22}: {sum(module.training for module in modules)} of {len(modules)} in training mode")

history = train(model, data["train"].select(range(320)), epochs=2, learning_rate=3e-3, progress=False)
rates = history.learning_rate
peak = rates.index(max(rates))
print(f"\n{history.steps} steps: the learning rate is {rates[0]:.1e} at step 1, {rates[peak]:.1e} at step {peak + 1}, "
      f"{rates[-1]:.1e} at step {history.steps}")  # fmt: skip

# %% [markdown]
# ## Six ways to train one model
#
# Everything but *what is trained* is the same now: base model, batches, number of steps. Six methods:
#
# - **head only**: the linear classifier on the frozen features;
# - **LayerNorms**: their scales and shifts, which Houlsby et al. tried as a cheaper way;
# - **BitFit** (Ben Zaken et al. 2021): all biases;
# - **adapters**, Houlsby's places, m = 16;
# - **LoRA** (lesson 04), rank 8: a product of two thin matrices added to query and value, by the library peft;
# - **full fine-tuning**: every weight.
#
# One thing must *not* be the same: the learning rate. A step that suits 770 parameters is too long for 17 million. Each
# method gets the best of three rates, a factor of about three apart, chosen on the *validation* split by the longer runs
# below.
#
# We take three layers of MiniLM: with four, adapters, LoRA and full fine-tuning all come to 100 %. Does what is
# trained make a difference? The cell takes about a minute and a half on two cores.

# %%
results = load_results("methods")
methods = {label: row["method"] for label, row in results["rows"].items()}
six = ("head only", "LayerNorms", "BitFit", "Houlsby m=16", "LoRA r=8", "full fine-tuning")
live = {}
print(f"{'':18}{'trained (without head)':>23}{'rate':>8}{'test accuracy':>15}")
for label in six:
    row = results["rows"][label]
    model = new_model()
    counts = prepare(model, row["method"], AdapterConfig(**row["config"]) if "config" in row else None)
    history = train(model, data["train"], data["validation"], epochs=4, learning_rate=row["learning_rate"])
    live[label] = {"model": model, "history": history, "test": evaluate(model, data["test"])["accuracy"]}
    rate, accuracy = row["learning_rate"], 100 * live[label]["test"]
    print(f"{label:18}{counts.without_head:>23,}{rate:>8.0e}{accuracy:>13.1f} %")

# %%
show(
    curves_over_seeds({label: [run["history"]] for label, run in live.items()}, methods),
    "Training loss and validation accuracy of six methods, one run each. Validation accuracy at the end: "
    + ", ".join(f"{label} {100 * run['history'].accuracy:.0f} %" for label, run in live.items())
    + ".",
)

# %% [markdown]
# Three levels. The head alone stays where the frozen features end. LayerNorms and biases get a part of the way. Full
# fine-tuning, adapters and LoRA lie level for a while and then climb: they learn to tie an adjective to its noun.
#
# ## How sure is that?
#
# One run is an anecdote. Another seed gives another head, other initial adapters and another order of the batches. So we
# run several seeds and report the mean with an interval. For n values with mean $\bar x$ and standard deviation s, the
# interval that covers the true mean in 95 % of all cases is
#
# $$\bar x \pm t_n\, \frac{s}{\sqrt n}, \qquad s^2 = \frac{1}{n-1}\sum_i (x_i - \bar x)^2$$
#
# The factor $t_n$ is Student's. It is 1.96 for many values, and much larger for a few, since s itself is then uncertain.
#
# ### Exercise 5.2 · Mean and interval
#
# **Write** a function that returns the mean and half the width of the interval. `T95[n]` is the factor.
# **Difficulty** ◆◇◇ · **5 minutes**
#
# **Done** when it gives 0.940 and 0.044 for the five values 0.90, 0.96, 0.93, 0.99 and 0.92.
#
# <details><summary>Hint 1</summary>
#
# `statistics.mean` and `statistics.stdev` are in Python's library.
# </details>
# <details><summary>Hint 2</summary>
#
# `T95[n] * stdev(values) / n ** 0.5`, with `n = len(values)`.
# </details>
# <details><summary>I see "the squares are divided by n"</summary>
#
# `statistics.pstdev` and `numpy.std` divide by n. The values scatter less around their own mean than around the true
# one, and n − 1 makes up for it.
# </details>
# <details><summary>I see "that is the standard deviation"</summary>
#
# It says how far *one* run may lie off. The mean of n runs is surer by a factor of √n.
# </details>

# %%
import statistics

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def interval_over_seeds(values: list[float]) -> tuple[float, float]:
    ### BEGIN SOLUTION
    half_width = T95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half_width
    ### END SOLUTION


# %%
checks.check_interval(interval_over_seeds)
### BEGIN HIDDEN TESTS
assert all(
    abs(got - right) < 1e-2 for got, right in zip(interval_over_seeds([3.0, 5.0]), (4.0, 12.706), strict=True)
), "the values 3 and 5 have the mean 4 and the half-width 12.706."
assert all(
    abs(got - right) < 1e-2 for got, right in zip(interval_over_seeds([1.0, 2.0, 3.0, 6.0]), (3.0, 3.437), strict=True)
), "the values 1, 2, 3, 6 have the mean 3 and the half-width 3.437."
### END HIDDEN TESTS

# %% [markdown]
# ## The comparison
#
# The full comparison has more rows and seeds than one can wait for, so a script ran it: for each row three learning rates
# with seed 0, then the best of them, by validation accuracy, with the other seeds. What is shown is the *test* accuracy.


# %%
def chosen_runs(results: dict, label: str) -> list[dict]:
    """The runs with the learning rate that the validation split chose."""
    row = results["rows"][label]
    return sorted((r for r in row["runs"] if r["learning_rate"] == row["learning_rate"]), key=lambda r: r["seed"])


def test_accuracies(label: str) -> list[float]:
    return [100 * run["test"] for run in chosen_runs(results, label)]


by_size = sorted(results["rows"], key=lambda label: chosen_runs(results, label)[0]["trainable"])
print(
    f"{'':18}{'trained (without head)':>23}{'rate':>8}{'mean ± 95 % interval':>22}{'lowest – highest':>20}{'seeds':>7}"
)
for label in by_size:
    runs, values = chosen_runs(results, label), test_accuracies(label)
    mean, half = mean_and_interval(values)
    print(
        f"{label:18}{runs[0]['trainable_without_head']:>23,}{runs[0]['learning_rate']:>8.0e}"
        f"{f'{mean:.1f} ± {half:.1f} %':>22}{f'{min(values):.1f} – {max(values):.1f}':>20}{len(values):>7}"
    )
print(f"\n{results['command']}: {results['epochs']} epochs, torch {results['torch']}, "
      f"{results['threads']} of {results['cores']} cores")  # fmt: skip

# %% [markdown]
# A table answers only what it is asked. Here are our questions, the rows that answer each, and the command that runs
# these rows. It keeps the runs that are in data/results; to have them run anew, move the file away.

# %%
questions = [
    ("Do adapters do as well as full fine-tuning?", "Houlsby m=16", "full fine-tuning"),
    ("Do they need to be in the layers, or does the head do?", "Houlsby m=16", "head only"),
    ("Would the LayerNorms do?", "Houlsby m=16", "LayerNorms"),
    ("Would the biases do?", "Houlsby m=16", "BitFit"),
    ("Is a wider bottleneck better, in Houlsby's places?", "Houlsby m=64", "Houlsby m=4"),
    ("And with an adapter after the FFN only?", "Pfeiffer m=64", "Pfeiffer m=4"),
    ("Is an adapter after the attention worth its place?", "Houlsby m=16", "Pfeiffer m=16"),
    ("Or the same parameters in one place, but wider?", "Houlsby m=16", "Pfeiffer m=64"),
    ("After the FFN, or beside it?", "Pfeiffer m=16", "parallel m=16"),
    ("Adapters or LoRA, with about as many parameters?", "Pfeiffer m=16", "LoRA r=8"),
]
differences = {}
for question, one, other in questions:
    pairs = zip(chosen_runs(results, one), chosen_runs(results, other))
    mean, half = differences[one, other] = mean_and_interval([100 * (a["test"] - b["test"]) for a, b in pairs])
    verdict = "no clear difference" if abs(mean) <= half else f"{one if mean > 0 else other} is ahead"
    print(f"{question}\n    {one} − {other}: {mean:+.1f} ± {half:.1f} points, {verdict}")
    print(f'    python data/run_experiments.py methods "{one}" "{other}"')

# %% [markdown]
# The interval is that of the difference, seed by seed. Where it includes zero, these runs do not tell the two apart: that
# is not the same as being equal. Where it does not, look at the size as well: a third of a point may be certain, and still
# of no importance.
#
# Mind Houlsby m=16: four of its five seeds come to more than 99 %, one stops at 91. That is why the first interval is
# so wide, and why a single run proves little.
#
# How did they get there? The band is the 95 % interval of the mean over the seeds.

# %%
show(
    curves_over_seeds({label: chosen_runs(results, label) for label in six}, methods),
    "Training loss and validation accuracy of six methods, mean over the seeds with bands. Mean validation accuracy at "
    "the end: "
    + ", ".join(
        f"{label} {100 * statistics.mean(run['validation'][-1] for run in chosen_runs(results, label)):.0f} %"
        for label in six
    )
    + ".",
)

# %% [markdown]
# The bands are widest where the curves are steep. The seeds take the same way, but some set off an epoch later.
#
# What does a trained parameter buy? The **Pareto front** answers it: the dashed line joins the methods that no
# cheaper one beats.

# %%
series = []
for name in ("Houlsby", "Pfeiffer", "parallel"):
    widths = (4, 16, 64)
    rows = [("" if name == "Pfeiffer" else f"m={m}", chosen_runs(results, f"{name} m={m}")) for m in widths]
    series.append((name, "adapter", [(text, runs[0]["trainable"], [r["test"] for r in runs]) for text, runs in rows]))
for label in six:
    if "m=" not in label:
        runs = chosen_runs(results, label)
        series.append((label, methods[label], [("", runs[0]["trainable"], [run["test"] for run in runs])]))
everything = chosen_runs(results, "full fine-tuning")[0]["trainable"]
for m in widths:
    share = chosen_runs(results, f"Houlsby m={m}")[0]["trainable"] / everything
    print(f"Houlsby m={m} trains {100 * share:.2f} % of what full fine-tuning trains")
show(
    pareto(series),
    "Test accuracy against trainable parameters on a logarithmic axis. Head only, LayerNorms and BitFit stand low on the "
    "left; Houlsby's adapters stand at the top with each width, Pfeiffer's and the parallel ones climb with it; full "
    "fine-tuning stands far to the right, as high as the best adapters.",
)

# %% [markdown]
# The front rises steeply up to Houlsby's adapters with m = 4, which train little more than a thousandth of the
# parameters. From there on it is level.
#
# **Beside the paper.** Houlsby et al. (2019, table 1) report 80.0 on GLUE with adapters and 80.4 with full fine-tuning.
# Bottlenecks of 8, 64 and 256 gave 86.2, 85.8 and 85.7 on average, so width hardly mattered. Training the LayerNorms alone
# cost 3.5 to 4 points. With us, too, adapters in Houlsby's places reach full fine-tuning, m = 4 as well as m = 64.
# But with one adapter a layer the width decides, and the LayerNorms alone fall much further behind.
#
# Why do ours differ? Their BERT has 12 or 24 layers of width 768 and more, and its features need but a small push.
# Ours has three of width 384, and a task made so that its features do *not* hold the answer. Lesson 07 shows the
# other case: on real text neither width nor placement matters much.
#
# ## What is forgotten
#
# A model that learns something new may lose what it could do before. To measure it, we put an *old* head, for film
# reviews, on the base before and after the base was trained on aspects. Nobody trains that head again: what changes
# is the features that it reads.
#
# ### Exercise 5.3 · The old task's accuracy
#
# **Write** a function that measures the accuracy with `old_head` in the place of the model's own head, and leaves the
# model as it was: its head, its weights, its mode. **Difficulty** ◆◆◇ · **8 minutes**
#
# **Done** when it gives a share between 0 and 1, dropout is off while it measures, and a model that was in training mode
# is in training mode again afterwards.
#
# <details><summary>Hint 1</summary>
#
# `model.head = old_head` exchanges the module. Remember the new head before, and `model.training`, too.
# </details>
# <details><summary>Hint 2</summary>
#
# Or leave the head alone: `old_head(model.features(input_ids, attention_mask))` gives the old head's logits.
# </details>
# <details><summary>I see "the weights have changed"</summary>
#
# `model.head.load_state_dict(old_head.state_dict())` overwrites the new head's weights, and they are gone.
# </details>
# <details><summary>I see "the model was in training mode and is in evaluation mode afterwards"</summary>
#
# `eval()` switches dropout off for good. The training that goes on after your measurement would run without it.
# `model.train(was_training)` gives either mode back.
# </details>


# %%
def old_accuracy(model: Classifier, old_head: nn.Linear, batch: tuple) -> float:
    input_ids, attention_mask, labels = batch
    ### BEGIN SOLUTION
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = old_head(model.features(input_ids, attention_mask))
    model.train(was_training)
    return (logits.argmax(-1) == labels).float().mean().item()
    ### END SOLUTION


# %%
checks.check_old_accuracy(old_accuracy)
### BEGIN HIDDEN TESTS
from adapters_lesson import SmallTransformerConfig

_model = Classifier(SmallTransformer(SmallTransformerConfig(20, 8, 1, 2, 16, dropout=0.5)), 2)
_own, _head, _ids = _model.head, nn.Linear(8, 2, bias=False), torch.randint(1, 20, (40, 5))
_mask = torch.ones_like(_ids)
with torch.no_grad():
    _labels = _head(_model.eval().features(_ids, _mask)).argmax(-1)
    _labels[:10] = 1 - _labels[:10]
_accuracy = old_accuracy(_model.train(), _head, (_ids, _mask, _labels))
assert abs(_accuracy - 0.75) < 1e-6, "the old head is right on 30 of 40 texts."
assert _model.head is _own, "the model's own head was not put back."
assert _model.training, "the model was in training mode."
### END HIDDEN TESTS

# %% [markdown]
# Now with the models that we have just trained. They all began with the same base, so one old head fits them all. It
# learns from 2,000 film reviews and is tried on 1,000 others.

# %%
film = encode(load_task("film_reviews"), tokenizer)
reviews = film["test"].select(range(1000))
verdicts = torch.tensor(reviews["label"])
old_model = new_model()
prepare(old_model, "head")
train(old_model, film["train"].select(range(2000)), epochs=2, learning_rate=1e-2)
before = predict(old_model, reviews)
right_before = (before.argmax(-1) == verdicts).float().mean().item()
print(f"film reviews before: {100 * right_before:.1f} %\n")
old_logits = {}
for label, run in live.items():
    run["model"].head = old_model.head
    old_logits[label] = predict(run["model"], reviews)
    right = (old_logits[label].argmax(-1) == verdicts).float().mean().item()
    print(f"after learning aspects with {label:18}{100 * right:5.1f} %   {100 * (right - right_before):+5.1f} points")

# %% [markdown]
# Whatever changes the features spoils the old task, adapters too: the old head reads features that now serve another
# purpose. But there is a difference in kind. Full fine-tuning has written over the old weights. Adapters stand beside
# them, and can be switched off.

# %%
adapted = live["Houlsby m=16"]["model"]
set_active_adapter(adapted, None)
print("with the adapters, the old answers:     ", torch.equal(old_logits["Houlsby m=16"], before))
print("switched off, the old answers:          ", torch.equal(predict(adapted, reviews), before))
set_active_adapter(adapted, "default")
print("on again, the new model's answers:      ", torch.equal(predict(adapted, reviews), old_logits["Houlsby m=16"]))
print("full fine-tuning gives the old answers: ", torch.equal(old_logits["full fine-tuning"], before))

# %% [markdown]
# `torch.equal` compares bit for bit: 1,000 reviews get the very same logits as before. LoRA can be switched off in the
# same way, as long as it was not merged into the weights. Do other seeds say the same? The longer runs use four layers,
# on which all strong methods learn the new task equally well.

# %%
forgetting = load_results("forgetting")
rows = {}
print(f"{'':18}{'new task':>10}{'old task: before':>18}{'after':>8}{'switched off':>14}{'bit for bit':>13}")
for label in forgetting["rows"]:
    runs = chosen_runs(forgetting, label)
    mean = {key: statistics.mean(run[key] for run in runs) for key in ("test", "old_before", "old_after")}
    rows[label] = {"before": mean["old_before"], "after": mean["old_after"]}
    off, same = "not possible", ""
    if runs[0]["identical"] is not None:
        rows[label]["switched off"] = statistics.mean(run["old_switched_off"] for run in runs)
        off, same = f"{100 * rows[label]['switched off']:.1f} %", str(all(run["identical"] for run in runs))
    numbers = "".join(
        f"{100 * mean[key]:>{width}.1f}" for key, width in (("test", 10), ("old_before", 18), ("old_after", 8))
    )
    print(f"{label:18}{numbers}{off:>14}{same:>13}")
print(f"\n{forgetting['command']}: mean of {len(runs)} seeds, accuracy in %")

# %%
show(
    before_and_after(rows, {label: row["method"] for label, row in forgetting["rows"].items()}),
    "Accuracy on film reviews before and after learning aspects, by method. "
    + "; ".join(f"{label}: from {100 * v['before']:.0f} to {100 * v['after']:.0f} %" for label, v in rows.items())
    + ". With adapters and LoRA switched off it is exactly as before.",
)

# %% [markdown]
# The arrows differ in length, but not in favour of adapters: while they are on, the old task loses at least as much as
# with full fine-tuning. R. He et al. (2021) found that adapters leave the features nearer to where they were. Here the new
# task demands that they change, and adapters are trained with a rate thirty times as high. What matters is the mark back
# at the ring. It is there for adapters and LoRA alone.

# %% [markdown]
# ## How far from the identity may an adapter start?
#
# Lesson 01 said that an adapter should start as the identity, or near it. How near? For Houlsby et al. (section 3.6)
# standard deviations from 10⁻⁷ to 10⁻² worked, and larger ones did harm. The same experiment with ours, m = 16 in
# three layers:

# %%
init = load_results("init_std")
by_std = {
    row["config"]["init_std"]: [run["test"] for run in chosen_runs(init, label)] for label, row in init["rows"].items()
}
for std, values in by_std.items():
    print(
        f"std {std:.0e}: mean {100 * statistics.mean(values):5.1f} %, lowest {100 * min(values):5.1f}, highest {100 * max(values):5.1f}"
    )
negatives = data["test"]["label"].count(0) / len(data["test"])
print(f"\n{init['command']}: {len(values)} seeds; always answering 'negative' is right in {100 * negatives:.1f} %")
show(
    sensitivity(
        {"Houlsby m=16": by_std},
        {"Houlsby m=16": "adapter"},
        title="How the adapters' initial size changes the result",
        xlabel="standard deviation of both weights",
        floor=negatives,
    ),
    "Test accuracy against the standard deviation of the adapters' initial weights, from 1e-7 to 1: "
    + ", ".join(f"{100 * statistics.mean(values):.0f} % at {std:.0e}" for std, values in by_std.items())
    + ".",
)

# %% [markdown]
# Over a wide range the start hardly matters. With a standard deviation of 1 next to nothing is learnt: the update is
# then many times as long as the hidden state (lesson 01).
#
# **Beside the paper.** The fall comes later with us, after 10⁻¹ instead of 10⁻². Depth may be a reason: we have six
# adapters one after another, BERT has 24 and more, and what they add piles up. Below 10⁻⁴ one of our three seeds
# stops some points lower, which is too little to conclude from.
#
# ## Which learning rate?
#
# A method that works with one learning rate only is of little use, since the best one is not known beforehand. How wide
# is the range in which each works?

# %%
rates = load_results("learning_rate")
lines = {}
for label, row in rates["rows"].items():
    lines[label] = {}
    for run in row["runs"]:
        lines[label].setdefault(run["learning_rate"], []).append(run["test"])
grid = sorted({rate for values in lines.values() for rate in values})
print(f"{'':18}" + "".join(f"{rate:>8.0e}" for rate in grid) + "   above 90 %")
for label, values in lines.items():
    means = [100 * statistics.mean(values[rate]) for rate in grid]
    good = sum(mean > 90 for mean in means)
    print(f"{label:18}" + "".join(f"{mean:>8.1f}" for mean in means) + f"   with {good} of {len(grid)} rates")
print(f"\n{rates['command']}: mean test accuracy in %")
print("seeds for each rate:", ", ".join(f"{len(lines['Houlsby m=16'][rate])} at {rate:.0e}" for rate in grid))
show(
    sensitivity(
        lines,
        {label: row["method"] for label, row in rates["rows"].items()},
        title="Accuracy against the learning rate",
        xlabel="learning rate",
        floor=negatives,
    ),
    "Test accuracy against the learning rate from 1e-5 to 3e-2 for four methods. Best rates: "
    + ", ".join(f"{label} {max(v, key=lambda rate: statistics.mean(v[rate])):.0e}" for label, v in lines.items())
    + ".",
)

# %% [markdown]
# The best rate for adapters lies ten to thirty times above that of full fine-tuning. With the other's rate either of
# them does badly, and that would look like a verdict on the method. Too low, and 188 steps do not suffice; too high,
# and the model falls to guessing.
#
# **Beside the paper.** Houlsby et al. chose among 3·10⁻⁵, 3·10⁻⁴ and 3·10⁻³ for each task. R. He et al. (2021) report
# that adapters are less sensitive to the rate than full fine-tuning. Our short runs do not show it: both do well with
# two of the seven rates.
#
# ## Which layers' adapters matter?
#
# Houlsby et al. (section 3.6, figure 6) switched off the adapters of some layers *after* training, without training again.
# Where it hurts, the adapters did something that the others cannot make up for. We did the same with all six layers of
# MiniLM: row and column name the first and the last layer that is switched off, the diagonal is single layers.

# %%
ablation = load_results("ablation")
runs = chosen_runs(ablation, "Houlsby m=16")
change = {}
for i, span in enumerate(runs[0]["spans"]):
    relative = [run["spans"][i]["test"] / run["test"] - 1 for run in runs]
    change[span["first"], span["last"]] = statistics.mean(relative)
whole = statistics.mean(run["test"] for run in runs)
none_left = whole * (1 + change[0, 5])
print(
    f"all adapters on: {100 * whole:.1f} %, all off: {100 * none_left:.1f} %; {ablation['command']}, {len(runs)} seeds"
)
single = [change[layer, layer] for layer in range(6)]
print("one layer off:", ", ".join(f"layer {layer} {100 * value:+.1f} %" for layer, value in enumerate(single)))
show(
    ablation_map(change),
    "Heat map of the relative change of accuracy when the adapters of layers i to j are switched off. Single layers: "
    + ", ".join(f"layer {layer} {100 * value:+.0f} %" for layer, value in enumerate(single))
    + f". All six: {100 * change[0, 5]:+.0f} %.",
)

# %% [markdown]
# On the diagonal little is lost: what one layer's adapters do, the others make up for. To the right it grows, and
# with all six off the head, which was trained on top of them, loses most of what it was better than guessing.
#
# **Beside the paper.** So far that is what Houlsby et al. saw: single layers cost little, and without any adapters
# their models fell to the most frequent answer. But with them the *lower* layers mattered least, and with us the
# upper ones: layers 4 and 5 can both go. Three or four layers are enough for our task, so nothing is left to do for
# those above. The tasks of GLUE need what BERT computes further up.
#
# ## A run in disorder
#
# Here is a training function that raises no error, and whose loss even falls. Something is wrong with it all the same.


# %%
def disorderly(model: Classifier, config: AdapterConfig, batches: list, learning_rate: float) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    insert_adapters(model, config)
    losses = []
    for input_ids, attention_mask, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(input_ids, attention_mask), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


some = [texts.batch(rows) for rows in batches(texts.lengths, 32)[:12]]


def examine(fit) -> None:
    """Losses, and whether adapters, head and base have moved."""
    model, fresh = new_model(), new_model()
    losses = fit(model, AdapterConfig(bottleneck_dim=16), some, 3e-4)
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    moved = {
        "adapters": any(bool(adapter.up_project.weight.any()) for adapter in adapters),
        "head": not torch.equal(model.head.weight, fresh.head.weight),
        "base": any(not torch.equal(dict(model.named_parameters())[n], p) for n, p in fresh.base_model.named_parameters(prefix="base_model")),
    }  # fmt: skip
    print(f"loss from {losses[0]:.2f} to {losses[-1]:.2f}; moved:", ", ".join(f"{k} {v}" for k, v in moved.items()))


examine(disorderly)

# %% [markdown]
# The adapters have not moved, and the base has: exactly the wrong way round.
#
# ### Exercise 5.4 · Put it in order
#
# **Write** the function so that it trains new adapters and the head, and nothing else. Find out first why the old one
# does not. **Difficulty** ◆◆◇ · **7 minutes**
#
# **Done** when the adapters and the head have moved, the base has not and is frozen, and one loss for each batch is
# returned.
#
# <details><summary>Hint 1</summary>
#
# An optimiser keeps the list of parameters that it was given when it was built. What was in the model at that time?
# </details>
# <details><summary>Hint 2</summary>
#
# Three lines in this order: `insert_adapters`, `set_trainable`, and an optimiser for the parameters with
# `requires_grad`. The loop can stay, or call your `training_step`.
# </details>
# <details><summary>I see "the optimiser does not know the adapters"</summary>
#
# `torch.optim.AdamW(model.parameters())` before `insert_adapters` lists the base and the head. Adapters that come later
# get gradients, but nobody moves them.
# </details>
# <details><summary>I see "the base model has changed"</summary>
#
# Nothing was frozen. `set_trainable(model)` freezes all but adapters and head; it must come before the optimiser is
# built, or the optimiser must be given trained parameters only.
# </details>


# %%
def orderly(model: Classifier, config: AdapterConfig, batches: list, learning_rate: float) -> list[float]:
    ### BEGIN SOLUTION
    insert_adapters(model, config)
    set_trainable(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    for input_ids, attention_mask, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(input_ids, attention_mask), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
    ### END SOLUTION


# %%
checks.check_fit(orderly)
### BEGIN HIDDEN TESTS
from adapters_lesson import SmallTransformerConfig

_model = Classifier(SmallTransformer(SmallTransformerConfig(20, 8, 1, 2, 16, dropout=0.0)), 2)
_base, _head = dict(_model.base_model.named_parameters()), _model.head.weight.detach().clone()
_old = {name: p.detach().clone() for name, p in _base.items()}
_batches = [(torch.randint(1, 20, (4, 5)), torch.ones(4, 5).long(), torch.tensor([0, 1, 1, 0])) for _ in range(3)]
_losses = orderly(_model, AdapterConfig(2), _batches, 0.05)
assert len(_losses) == 3 and all(isinstance(loss, float) for loss in _losses), "one loss for each batch."
assert all(torch.equal(p, _old[name]) and not p.requires_grad for name, p in _base.items()), "the base is not frozen."
_adapters = [m for m in _model.modules() if isinstance(m, Adapter)]
assert _adapters and all(a.up_project.weight.any() for a in _adapters), "the adapters have not learnt."
assert not torch.equal(_model.head.weight, _head), "the head has not learnt."
### END HIDDEN TESTS

# %% [markdown]
# ## What a frozen base allows
#
# A frozen base does not change, and that can be used. First of all, its weights need no gradients. A linear layer
# costs one matrix product forward and two backward, one for its input's gradient and one for its weight's. Without
# the last, **two thirds of the matrix products remain** with adapters in all layers. How long did our own steps take?

# %%
full, houlsby = (live[label]["history"] for label in ("full fine-tuning", "Houlsby m=16"))
per_step = {name: 1000 * h.seconds / h.steps for name, h in (("full", full), ("adapters", houlsby))}
print(f"a step takes {per_step['full']:.0f} ms in full fine-tuning and {per_step['adapters']:.0f} ms with adapters: "
      f"{per_step['adapters'] / per_step['full']:.2f} of it")  # fmt: skip

# %% [markdown]
# Less than two thirds, because full fine-tuning also computes dropout in the base and updates 17 million weights with
# AdamW. Two options of `train` can save more.
#
# **A base in half precision**: `train(..., base_dtype=torch.bfloat16)`. The frozen weights and the hidden states take two
# bytes instead of four; adapters and head stay in single precision, so that small updates are not rounded away. It saves
# a good part of the activations. Is it faster? That depends on the processor, so we measure it on this one.

# %%
from adapters_lesson.costs import measure_latency, memory_ledger
from adapters_lesson.savings import cast_frozen

single, half = new_model(), new_model()
for model in (single, half):
    prepare(model, "adapter", AdapterConfig(bottleneck_dim=16))
    training_mode(model)
input_ids, attention_mask, labels = texts.batch(list(range(32)))


def forward_and_backward(model: Classifier) -> None:
    F.cross_entropy(model(input_ids, attention_mask), labels).backward()


kept = {"single precision": memory_ledger(single, *input_ids.shape).activations}
with cast_frozen(half, torch.bfloat16):
    kept["bfloat16 base"] = memory_ledger(half, *input_ids.shape).activations
    steps = {
        "single precision": lambda: forward_and_backward(single),
        "bfloat16 base": lambda: forward_and_backward(half),
    }
    timing = measure_latency(steps, repetitions=15, inference=False)
print(timing)
for name, size in kept.items():
    print(f"{name:17} keeps {size / 1e6:5.1f} MB of activations")

# %% [markdown]
# A processor with units for bfloat16 matrices (AMX, or a GPU) gains by it; others convert back and forth, and lose. So
# measure before you switch it on.
#
# **Remembering what lies below the lowest adapter**: `train(..., cache_frozen=True)`. If the adapters are in the upper
# blocks only, what comes out of the blocks below is the same for a text in every epoch. It is computed once and then
# looked up. The same two epochs, without and with:

# %%
upper = AdapterConfig(bottleneck_dim=16, layers=(1, 2))
part = data["train"].select(range(480))
cached_runs = {}
for cache in (False, True):
    model = new_model()
    prepare(model, "adapter", upper)
    cached_runs[cache] = train(model, part, epochs=2, learning_rate=3e-3, cache_frozen=cache)
plain, cached = cached_runs[False], cached_runs[True]
largest = max(abs(a - b) for a, b in zip(plain.loss, cached.loss, strict=True))
print(f"largest difference of the loss in {plain.steps} steps: {largest:.1e}")
print(f"a step takes {cached.seconds / plain.seconds:.2f} of the time, not counting the one pass that fills the memory")

# %% [markdown]
# Do these change what is learnt? Longer runs, each variant three times:

# %%
savings = load_results("savings")
saved = {variant: [100 * run["test"] for run in runs] for variant, runs in savings["rows"].items()}
for variant, values in saved.items():
    print(f"{variant:34}{statistics.mean(values):6.1f} %  ({min(values):.1f} – {max(values):.1f})")
print(f"\n{savings['command']}: four layers, Houlsby m=16, test accuracy of {len(values)} seeds")

# %% [markdown]
# No. The base's dropout brings nothing, bfloat16 takes nothing away, and remembering is the same computation. How
# they compare with another library is measured by `make bench`.

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("05")

# %% [markdown]
# ## What we saw
#
# 1. A training step is five calls; a run adds a schedule, clipping, and evaluation mode for what is frozen.
# 2. Adapters learn this task as well as full fine-tuning; the head alone, the LayerNorms or the biases do not.
# 3. A comparison needs a learning rate for each method, several seeds, and an interval.
# 4. All of them spoil an old task while they are on; with adapters off its answers are back, bit for bit.
# 5. Adapters bear a wide range of initial sizes, want a higher learning rate than full fine-tuning, and stand in for each
#    other: single layers can be missed.
#
# **Sources.** Houlsby et al. 2019, arXiv 1902.00751, table 1, sections 3.4 to 3.6 and figure 6. E. Ben Zaken et al.,
# *BitFit*, 2021, arXiv 2106.10199. R. He et al., *On the Effectiveness of Adapter-based Tuning*, 2021, arXiv
# 2106.03164. E. Hu et al., *LoRA*, 2021, arXiv 2106.09685. D. Kingma and J. Ba, *Adam*, 2014, arXiv 1412.6980. I.
# Loshchilov and F. Hutter, *Decoupled Weight Decay Regularization*, 2017, arXiv 1711.05101.
#
# **Next.** [06 · The bottleneck lab](06_the_bottleneck_lab.ipynb): which width, place, rate, initialisation?
