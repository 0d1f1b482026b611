# %% [markdown]
# # 07 · A real model
#
# **The question.** Does it hold on a real pretrained model and real text?
#
# **You will be able to** put adapters into a model of the library transformers, compare them fairly with full
# fine-tuning, LoRA and a trained head alone, test a classifier that you did not write, and say which runs a claim needs.
#
# **Before you start.** Lessons 01 to 03.
#
# **Time.** 45 minutes, of which the machine computes two or three.

# %%
from statistics import stdev

import torch
from torch import nn

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    encode,
    evaluate,
    load_minilm,
    load_task,
    load_tokenizer,
    predict,
    prepare,
    train,
)
from adapters_lesson.batches import Texts
from adapters_lesson.course import mine
from adapters_lesson.course.checks import lesson07 as checks
from adapters_lesson.course.figures import accuracy_against_parameters, mean_and_interval, show
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.quiz import quiz, review
from adapters_lesson.history import load_results

# %% [markdown]
# First, five questions from earlier lessons: what was missed comes again.

# %%
review("07")

# %% [markdown]
# ## The text
#
# So far we looked at made-up sentences. Now we take real ones: single sentences from film reviews on Rotten Tomatoes,
# each labelled with the verdict of the review that it comes from. Here are four of them, without their labels.

# %%
task = load_task("film_reviews")
names = task["train"].features["label"].names
four = task["train"].select(range(4))
for i, text in enumerate(four["text"], 1):
    print(f"{i}. {text}")
print({split: len(dataset) for split, dataset in task.items()})

# %%
prediction("7a", "What is the verdict of the fourth?", ["negative", "positive"])

# %%
labels_of_four = [names[label] for label in four["label"]]
print(labels_of_four)
compare("7a", labels_of_four[3])

# %% [markdown]
# Not all of them are easy, and some cannot be known: a sentence need not show the verdict of its review. No method will
# get near 100 %.
#
# **Three splits, three jobs.** We learn from the *train* split, choose among settings on the *validation* split, and
# report on the *test* split, which has no say in any choice. Otherwise the reported number would be too good.

# %% [markdown]
# ## The model
#
# The same MiniLM, this time as the library transformers builds it: a `BertModel` with six layers. The classifier is as
# before: the mean over the hidden states and a linear head. And adapters go in with the same call as in lesson 03,
# because the table of architectures knows BERT's names.
#
# Beside adapters we put **LoRA** (Hu et al. 2021), the other well-known method of this kind. To a frozen weight matrix W
# it adds a product of two thin ones: W + B A, with A of r × in and B of out × r, and no biases. r is the **rank**.
# Here it is on query and value in every layer. LoRA's update is linear, so it can be multiplied into the weights after
# training; an adapter has a non-linearity and stays a module of its own.
#
# What does it cost?
#
# ### Exercise 7.1 · LoRA's parameters
#
# **Write** the number of parameters that LoRA of rank r trains, without the head, in a model of width d.
# **Difficulty** ◆◇◇ · **4 minutes**
#
# **Done** when d = 384, r = 8 and 6 layers give 73,728.
#
# <details><summary>Hint 1</summary>
#
# Query and value are d × d. How many entries has A, how many has B?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with one matrix. Then ask how many matrices of a layer get an update.
# </details>
# <details><summary>I see "biases are counted"</summary>
#
# 2 · d · m + m + d is an adapter. A and B are matrices alone.
# </details>
# <details><summary>I see "the size of the whole matrices"</summary>
#
# B A is d × d, but it is never kept: A and B are.
# </details>


# %%
def lora_parameters(model_dim: int, rank: int, layers: int) -> int:
    ### BEGIN SOLUTION
    return layers * 2 * (rank * model_dim + model_dim * rank)
    ### END SOLUTION


# %%
checks.check_lora_count(lora_parameters)
### BEGIN HIDDEN TESTS
assert lora_parameters(384, 8, 6) == 73_728, "MiniLM, r = 8: 12 matrices with 6,144 parameters each"
assert lora_parameters(10, 1, 2) == 80, "two layers of width 10, r = 1: four matrices with 20 parameters each"
### END HIDDEN TESTS

# %% [markdown]
# Your formulas for LoRA (7.1) and for Houlsby (4.1) predict, and then we count in the models.

# %%
prediction("7b", "Which rank costs as much as Houlsby's adapters of width 64?", factor=1.15)

# %%
tokenizer = load_tokenizer()
data = encode(task, tokenizer)


def new_classifier(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(load_minilm(), num_labels=2)


methods = {
    "head only": ("head", None),
    "Pfeiffer m=8": ("adapter", AdapterConfig(8, placement="pfeiffer")),
    "Houlsby m=8": ("adapter", AdapterConfig(8, placement="houlsby")),
    "LoRA r=8": ("lora", None),
    "Pfeiffer m=64": ("adapter", AdapterConfig(64, placement="pfeiffer")),
    "Houlsby m=64": ("adapter", AdapterConfig(64, placement="houlsby")),
    "full fine-tuning": ("full", None),
}


def count(my):
    formula = {f"Houlsby m={m}": my.houlsby_parameters(384, m, 6) for m in (8, 64)}
    formula["LoRA r=8"] = my.lora_parameters(384, 8, 6)
    print("without the head:    counted  by formula")
    for label, (method, config) in methods.items():
        counted = prepare(new_classifier(), method, config)
        predicted = f"{formula[label]:,}" if label in formula else ""
        share = 100 * counted.trainable / counted.total
        print(f"{label:17} {counted.without_head:>10,} {predicted:>11}  with it {share:8.4f} % of all")
    return formula["Houlsby m=64"] / my.lora_parameters(384, 1, 6)


compare("7b", mine.run(count, "4.1", "7.1"))

# %% [markdown]
# Rank and width cost nearly the same: both methods put two thin matrices, d × r and r × d, in two places of every layer,
# and the adapters add their biases.

# %% [markdown]
# ## A small run, live
#
# The live model is yours: your module (1.1) and start (1.2), your insertion (3.1) and freezing (3.2). Exercise 3.1 knows
# a block as `block.attention.output` and `block.ffn.contract`; in BERT the two have other names. So a thin `block` gives
# them these names. Your tests of lesson 03 (3.3, 3.4) look at the model before it learns.
#
# To keep it short, it and a head alone learn from the first 1,500 sentences only, for two epochs.

# %%
few, validation = data["train"].select(range(1500)), data["validation"]
batch = Texts(few).batch(list(range(8)))


class Named(nn.Module):
    """A projection of BERT under another name."""

    def __init__(self, name: str, projection: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, projection)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(self.name)(h)


def adapted(my) -> Classifier:
    def make_adapter():
        adapter = my.Adapter(384, 8)
        my.start_as_identity(adapter)
        return adapter

    def insert(model):
        for layer in model.base_model.encoder.layer:
            block = layer.block = nn.Module()
            block.attention = layer.attention.output.dense = Named("output", layer.attention.output.dense)
            block.ffn = layer.output.dense = Named("contract", layer.output.dense)
            my.insert_into_block(block, make_adapter)
        my.train_only_adapters(model)

    print("nothing has changed:", my.changes_nothing(new_classifier(), insert, *batch[:2]))
    print("it is sound:        ", my.is_sound(new_classifier(), insert, batch))
    model = new_classifier()
    insert(model)
    return model


models = {"head only": new_classifier(), "yours m=8": mine.run(adapted, "1.1", "1.2", "3.1", "3.2", "3.3", "3.4")}
prepare(models["head only"], "head")
for label, learning_rate in (("head only", 3e-2), ("yours m=8", 3e-3)):
    train(models[label], few, validation, epochs=2, learning_rate=learning_rate)
    print(f"{label:14} test accuracy {100 * evaluate(models[label], data['test'])['accuracy']:.1f} %")

# %% [markdown]
# The head alone reads off what is there. Your adapters change the features on their way up. But this is one run each, and
# an accuracy on 2,000 sentences has a standard error, the standard deviation of what other sentences would give, of about
# 0.9 points. How sure the difference is, exercise 7.3 asks.

# %% [markdown]
# ## Alone and in company
#
# And is the accuracy itself right? Sentences are classified in batches, and a batch pads the shorter ones. What a sentence
# gets must not depend on those beside it. Faults of that kind raise no error: a mask that is not handed on, dropout left
# on, sentences sorted by length and not sorted back. Here is a colleague's classifier around your model.


# %%
@torch.no_grad()
def by_a_colleague(sentences: list[str]) -> torch.Tensor:
    """Logits (sentences, labels)."""
    model = models["yours m=8"].eval()
    columns = tokenizer(sentences, padding=True, return_tensors="pt")
    hidden = model.base_model(columns["input_ids"]).last_hidden_state
    words = columns["attention_mask"][..., None]
    return model.head((hidden * words).sum(1) / words.sum(1))


some = data["test"].select(range(200))
theirs = (by_a_colleague(list(some["text"])).argmax(-1) == torch.tensor(some["label"])).float().mean()
yours = evaluate(models["yours m=8"], some)["accuracy"]
print(f"accuracy on 200 test sentences: the colleague's {100 * theirs:.1f} %, yours {100 * yours:.1f} %")

# %% [markdown]
# The two are no further apart than the standard error on 200 sentences, about three points.
# <!-- claim: abs(out(r"the colleague's ([\d.]+) %") - out(r"yours ([\d.]+) %")) < 3 --> Nobody would look twice.
#
# ### Exercise 7.2 · A test for a classifier
#
# **Write** a function that says True if every sentence gets the same logits alone as together with the others, up to
# rounding (1e-4). `classify(sentences)` takes a list of strings and returns logits (sentences, labels).
# **Difficulty** ◆◆◇ · **7 minutes**
#
# **Done** when it finds the faults that the check plants, and raises no false alarm. Then try it on `by_a_colleague`,
# and find the line.
#
# <details><summary>Hint 1</summary>
#
# Call `classify` once with all sentences, and once for each with a list of one.
# </details>
# <details><summary>Hint 2</summary>
#
# The single answers have one row each: begin by putting them together, in the order of the sentences.
# </details>
# <details><summary>I see "compare the logits, not the labels"</summary>
#
# A small change turns few answers round, and perhaps none of those that you look at. The logits show it in all.
# </details>
# <details><summary>I see "a false alarm at rounding"</summary>
#
# The same sum in another order differs in the last digits. `torch.equal` does not bear that.
# </details>


# %%
def same_in_company(classify, sentences: list[str]) -> bool:
    ### BEGIN SOLUTION
    together = classify(sentences)
    alone = torch.cat([classify([sentence]) for sentence in sentences])
    return torch.allclose(together, alone, atol=1e-4)
    ### END SOLUTION


# %%
checks.check_company(same_in_company)
### BEGIN HIDDEN TESTS
_table = {"a": [1.0, 2.0], "b": [0.5, -1.0], "c": [-2.0, 3.0]}
_sound = lambda sentences: torch.tensor([_table[s] for s in sentences])  # noqa: E731
_shifted = lambda sentences: _sound(sentences) + torch.tensor([0.02, -0.02]) * (len(sentences) > 1)  # noqa: E731
_sorted = lambda sentences: _sound(sorted(sentences))  # noqa: E731
assert same_in_company(_sound, ["c", "a", "b"]), "a classifier that looks up each sentence for itself is sound"
assert not same_in_company(_shifted, ["c", "a", "b"]), "all logits change by 0.02 in company"
assert not same_in_company(_sorted, ["c", "a", "b"]), "the answers come back in the order of the alphabet"
### END HIDDEN TESTS

# %% [markdown]
# Your test (7.2) now judges both classifiers, on sixteen sentences. And how far do the logits move?

# %%
prediction("7c", "By how much does company change a logit of the colleague's, at most?", ["by less than 0.01", "by 0.01 to 0.3", "by more than 0.3"])  # fmt: skip


# %%
@torch.no_grad()
def with_mask(sentences: list[str]) -> torch.Tensor:
    columns = tokenizer(sentences, padding=True, return_tensors="pt")
    return models["yours m=8"](columns["input_ids"], columns["attention_mask"])


sentences = list(some["text"])[:16]


def in_company(my):
    for name, classify in (("yours", with_mask), ("the colleague's", by_a_colleague)):
        largest = (classify(sentences) - torch.cat([classify([one]) for one in sentences])).abs().max().item()
        print(f"{name:16} passes: {my.same_in_company(classify, sentences)!s:6} largest difference {largest:.1e}")
    return largest


largest = mine.run(in_company, "7.2")
compare("7c", "by less than 0.01" if largest < 0.01 else "by more than 0.3" if largest > 0.3 else "by 0.01 to 0.3")

# %% [markdown]
# Yours changes by rounding only. The colleague's mean leaves padding out, but `base_model` was called without the mask, so
# that in every layer words looked at padding. What that costs, we measure below. A test that knows what must not matter
# finds it on sixteen sentences. <!-- claim: said(r"the colleague's +passes: False") -->

# %% [markdown]
# ## The comparison
#
# The full comparison takes long, so it was run beforehand by the command under the table: all 5,530 training sentences,
# two epochs. For each row learning rates were tried with one seed, and more of them until the best on the *validation*
# split had a lower and a higher one beside it. <!-- rule --> With this rate the other seeds were run. <!-- rule --> Each method needs its
# own: in lesson 05 each had rates with which it came nowhere.
# <!-- claim: all(max(run["test"] for run in row["runs"]) - min(run["test"] for run in row["runs"]) > 0.2 for row in load_results("learning_rate")["rows"].values()) -->

# %%
prediction(
    "7d", "How many points is full fine-tuning better than Houlsby's adapters, m = 8?", within=1.5, unit=" points"
)

# %%
results = load_results("film")
rows = []
print(f"{'':17}{'trained (without head)':>24}{'rate':>9}{'test accuracy: mean (lowest – highest)':>42}{'seeds':>7}")
for label, row in results["rows"].items():
    runs = [run for run in row["runs"] if run["learning_rate"] == row["learning_rate"]]
    accuracies = [run["test"] for run in sorted(runs, key=lambda run: run["seed"])]
    rows.append((label, row["method"], runs[0]["trainable"], accuracies))
    mean = 100 * sum(accuracies) / len(accuracies)
    spread = f"{mean:.1f} % ({100 * min(accuracies):.1f} – {100 * max(accuracies):.1f})"
    print(f"{label:17}{runs[0]['trainable_without_head']:>24,}{row['learning_rate']:>9.0e}{spread:>42}{len(runs):>7}")
minutes = sum(run["seconds"] for row in results["rows"].values() for run in row["runs"]) / 60
print(f"\n{results['command']}: {results['epochs']} epochs, torch {results['torch']}")
print(f"{minutes:.0f} minutes of training in all, on {results['threads']} of {results['cores']} cores for each run")
means = {label: 100 * sum(accuracies) / len(accuracies) for label, _, _, accuracies in rows}
compare("7d", means["full fine-tuning"] - means["Houlsby m=8"])

# %%
parameters = {label: count for label, _, count, _ in rows}
show(
    accuracy_against_parameters(rows),
    "Test accuracy against trainable parameters on a logarithmic axis. The head alone stands lowest; adapters, LoRA "
    "and full fine-tuning stand above it, though full fine-tuning trains "
    f"{parameters['full fine-tuning'] // parameters['Houlsby m=64']} times as much as the largest adapters and "
    f"{parameters['full fine-tuning'] // parameters['Pfeiffer m=8']} times as much as the smallest.",
)

# %% [markdown]
# From the head alone to the smallest adapters there is a step of several points.
# <!-- claim: better(seeds("film", "Pfeiffer m=8"), seeds("film", "head only"), 3) --> How the other rows stand to full fine-tuning, and
# adapters to each other, the means do not say: the seeds of one row are as far apart as the rows. The verdicts come below.
# <!-- claim: high(seeds("film", "full fine-tuning")) - low(seeds("film", "full fine-tuning")) > 1 -->
#
# This is one small model and one task. Houlsby et al. report 80.0 with adapters and 80.4 with full fine-tuning for
# BERT-large, the mean of nine tasks of GLUE. <!-- source: Houlsby et al. 2019, table 1 --> And training is not a hundred
# times faster with a hundred times fewer trained parameters, since the forward pass and the way back through the frozen
# layers remain. <!-- rule -->
# <!-- claim: min(run["seconds"] for run in load_results("film")["rows"]["full fine-tuning"]["runs"]) < 10 * min(run["seconds"] for run in load_results("film")["rows"]["Houlsby m=8"]["runs"]) -->

# %% [markdown]
# ## The errors, one by one
#
# An accuracy hides what the model gets wrong. Which test sentences does your model miss with the greatest confidence?

# %%
test = data["test"]
probabilities = predict(models["yours m=8"], test).softmax(-1)
labels = torch.tensor(test["label"])
confidence, guess = probabilities.max(-1)
wrong = (guess != labels).nonzero().flatten()
worst = wrong[confidence[wrong].argsort(descending=True)]
print(f"{len(wrong)} of {len(test)} are wrong; the eight most confident errors:\n")
for i in worst[:8].tolist():
    print(f"says {names[guess[i]]} ({100 * confidence[i]:.0f} %), label {names[labels[i]]}:\n    {test[i]['text']}")

# %% [markdown]
# Read them. In some a word of praise stands in a sentence that takes it back, or the other way round. In others you may
# side with the model: the label is the review's, not the sentence's. Such sentences put a ceiling on every method.

# %% [markdown]
# And do the two models make different errors?

# %%
head_right = predict(models["head only"], test).argmax(-1) == labels
adapter_right = guess == labels
for text, mask in (
    ("both right", head_right & adapter_right),
    ("only the adapters right", ~head_right & adapter_right),
    ("only the head right", head_right & ~adapter_right),
    ("both wrong", ~head_right & ~adapter_right),
):
    print(f"{text:24} {mask.sum():5}  {100 * mask.float().mean():.1f} %")

# %% [markdown]
# The adapters win on more sentences than they lose, and lose on some.
# <!-- claim: out(r"only the adapters right +(\d+)") > out(r"only the head right +(\d+)") > 0 --> Do they read in another way,
# then? Two runs of the same method differ, too. <!-- rule --> So we need a control, runs in which only the seed is another. The
# command in the first line below made them like yours.

# %%
controls = load_results("controls")


def right(label: str, key: str = "right") -> dict[int, torch.Tensor]:
    """By seed, which of the test sentences are classified as their label says."""
    row = controls["rows"][label]
    runs = [run for run in row["runs"] if run["learning_rate"] == row["learning_rate"]]
    return {run["seed"]: torch.tensor([one == "1" for one in run[key]]) for run in runs}


heads, adapters = right("head only"), right("Houlsby m=8")


def beside_another_seed(my):
    pairs = list(zip(sorted(adapters), [*sorted(adapters)[1:], min(adapters)]))  # each seed with the next

    def lost(first, second):
        return [100 * (second[other] & ~first[seed]).float().mean().item() for seed, other in pairs]

    print(controls["command"])
    by_head, by_seed = lost(adapters, heads), lost(adapters, adapters)
    for text, shares in (
        ("head beside head", lost(heads, heads)),
        ("adapters beside adapters", by_seed),
        ("adapters beside head", by_head),
    ):
        print(f"{text:25} only the second right: {sum(shares) / len(shares):.1f} %")
    more, half = my.mean_and_interval([a - b for a, b in zip(by_head, by_seed)])
    said = "more than by the seed" if more > half else "unclear"
    print(f"adapters lose to the head {more:+.1f} ± {half:.1f} points beyond what the seed explains: {said}")


mine.run(beside_another_seed, "5.2")

# %% [markdown]
# Whoever had looked at the first table alone would have taken all of “only the head right” for another way of reading. A
# second run of the same adapters, too, has sentences right that the first misses. Only what is beyond that says something
# of the method.
#
# How sure is the difference? Both read the *same* sentences. For each, let *d* be +1 if only the adapters are right, −1 if
# only the head is, and 0 otherwise. The difference of the accuracies is the mean of these numbers, and half its 95 %
# interval is 1.96 · s / √n, with *s* their standard deviation.

# %%
prediction(
    "7e", "Beside that of two accuracies on different sentences, this interval is …", ["narrower", "as wide", "wider"]
)

# %% [markdown]
# ### Exercise 7.3 · Two models on the same texts
#
# **Write** a function that returns the difference of the two accuracies and half the width of its interval, as shares.
# `first` and `second` say for each text whether the model is right, as tensors of True and False.
# **Difficulty** ◆◆◇ · **6 minutes**
#
# **Done** when both numbers are right on made-up answers.
#
# <details><summary>Hint 1</summary>
#
# `.float()` makes 1 of True and 0 of False. What is then d?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the tensor d of all texts; its mean is the first number. `.item()` makes a number of a tensor.
# </details>
# <details><summary>I see "two unrelated samples"</summary>
#
# The two variances were added. But what is hard for one model is hard for the other, and cancels in the differences.
# </details>
# <details><summary>I see "divide by all texts"</summary>
#
# The texts on which the two agree are zeros. They belong to the mean.
# </details>


# %%
def paired_difference(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    ### BEGIN SOLUTION
    d = first.float() - second.float()
    return d.mean().item(), 1.96 * d.std().item() / len(d) ** 0.5
    ### END SOLUTION


# %%
checks.check_paired(paired_difference)
### BEGIN HIDDEN TESTS
_first = torch.tensor([True] * 90 + [False] * 60 + [True] * 250)
_second = torch.tensor([False] * 90 + [True] * 60 + [True] * 250)
_difference, _half = paired_difference(_first, _second)
assert abs(_difference - 0.075) < 1e-3, "90 texts won and 60 lost of 400: 7.5 points"
assert abs(_half - 0.0596) < 0.003, "1.96 times 0.608, divided by 20"
### END HIDDEN TESTS

# %% [markdown]
# Yours (7.3) judges your model against the head:


# %%
def against_the_head(my):
    difference, half = my.paired_difference(adapter_right, head_right)
    apart = 1.96 * ((adapter_right.float().var() + head_right.float().var()) / len(head_right)).item() ** 0.5
    print(f"adapters − head: {100 * difference:+.1f} points, 95 % interval ± {100 * half:.1f}")
    print(f"on different sentences, of this number each, it would be ± {100 * apart:.1f}")
    return half / apart


ratio = mine.run(against_the_head, "7.3")
compare("7e", "narrower" if ratio < 0.95 else "wider" if ratio > 1.05 else "as wide")

# %% [markdown]
# Narrower, <!-- claim: out(r"95 % interval ± ([\d.]+)") < out(r"it would be ± ([\d.]+)") --> since most sentences are
# right or wrong for both. <!-- claim: out(r"both right .* ([\d.]+) %") + out(r"both wrong .* ([\d.]+) %") > 70 --> But this
# interval is about the sentences only: it says what other sentences would give, with these two models. Other seeds make
# other models.
#
# And the colleague's call without the mask? On 200 sentences it passed for noise. Here it is on all of them, for the
# adapters of each seed of the controls, in batches of 200.


# %%
def without_the_mask(my):
    for seed, masked in right("Houlsby m=8", "right_without_mask").items():
        difference, half = my.paired_difference(masked, adapters[seed])
        said = "clear" if abs(difference) > half else "unclear"
        print(f"seed {seed}: {100 * difference:+.1f} ± {100 * half:.1f} points on {len(masked):,} sentences: {said}")


mine.run(without_the_mask, "7.3")

# %% [markdown]
# Ten times as many sentences make an interval a third as wide, <!-- rule --> so that a fault of this kind can show in an
# accuracy; the lines say with which seeds it does. Your test of exercise 7.2 saw it in the logits of sixteen sentences.

# %% [markdown]
# ## A claim, and the runs that it needs
#
# "Adapters come within one point of full fine-tuning." Which runs support such a claim? It is easy to make it look true:
# give full fine-tuning a wrong rate, show the best seed, choose on the test split. <!-- rule --> It is as easy to overlook that the runs
# cannot tell: that a difference is *not significant* may only mean that there were few of them.
#
# So we fix a rule beforehand, as in lesson 06. **The claim is supported if even the lower end of the 95 % interval of the
# difference, over the seeds, lies above −1 point.** <!-- rule -->
#
# ### Exercise 7.4 · Design the experiment
#
# **Write** the experiment, and return True if the claim is supported. `run(method, learning_rate, seed)` trains a model
# and returns its accuracies as shares, `{"validation": …, "test": …}`. The methods are `"adapters"` and
# `"full fine-tuning"`, `rates[method]` lists the rates that a method may try, `seeds` the seeds. `mean_and_interval(values)`
# gives the mean and half the width of its interval. **Difficulty** ◆◆◆ · **10 minutes**
#
# **Done** when it comes to the right end in twenty made-up worlds. The check's `run` trains nothing, so it is quick.
#
# <details><summary>Hint 1</summary>
#
# For each method: run all rates with the first seed, keep the best on validation, run that one with all seeds.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the rate of one method:
# `max(rates[method], key=lambda rate: run(method, rate, seeds[0])["validation"])`.
# </details>
# <details><summary>I see "no significant difference"</summary>
#
# An interval from −5 to +4 points includes zero, and −5 as well. Ask where its lower end is.
# </details>
# <details><summary>I see "the means alone"</summary>
#
# With seeds that are far apart, two means agree by luck. The interval knows how far apart they are.
# </details>


# %%
def within_one_point(run, rates: dict, seeds: tuple) -> bool:
    ### BEGIN SOLUTION
    tests = {}
    for method in ("adapters", "full fine-tuning"):
        best = max(rates[method], key=lambda rate: run(method, rate, seeds[0])["validation"])
        tests[method] = [run(method, best, seed)["test"] for seed in seeds]
    mean, half = mean_and_interval([a - b for a, b in zip(tests["adapters"], tests["full fine-tuning"])])
    return mean - half > -0.01
    ### END SOLUTION


# %%
checks.check_claim(within_one_point)
### BEGIN HIDDEN TESTS
_rates, _seeds = {"adapters": (1e-3, 3e-3), "full fine-tuning": (5e-5, 1e-4)}, (0, 1, 2, 3, 4)


def _world(differences, rate_lost=0.05):
    def run(method, learning_rate, seed):
        lost = 0 if learning_rate == _rates[method][1] else rate_lost
        accuracy = 0.8 - lost + (differences[seed] if method == "adapters" else 0)
        return {"validation": accuracy, "test": accuracy}

    return run


assert within_one_point(_world((0, 0.002, -0.002, 0.001, 0)), _rates, _seeds), "equally good, and the seeds agree"
assert not within_one_point(_world((-0.02, -0.021, -0.019, -0.02, -0.02)), _rates, _seeds), "two points worse"
assert not within_one_point(_world((0.03, -0.03, 0.02, -0.02, 0)), _rates, _seeds), "the seeds are too far apart"
assert within_one_point(_world((0.02, 0.021, 0.019, 0.02, 0.02)), _rates, _seeds), "two points better is no failure"
### END HIDDEN TESTS

# %% [markdown]
# And our own table above? Your experiment (7.4) decides row by row. Its `run` looks the accuracies up among the runs that
# were made. Your interval (5.2) tells a refuted claim, which lies below −1 point as a whole, from one that is open.

# %%
prediction("7f", "For how many of the six rows is “within one point” supported?", within=1)


# %%
def looked_up(made: dict):
    """The `run` of exercise 7.4, among the runs that were made."""

    def run(method, rate, seed):
        for one in made[method]:
            if (one["learning_rate"], one["seed"]) == (rate, seed):
                return {"validation": one["validation"][-1], "test": one["test"]}
        return {"validation": 0.0, "test": 0.0}  # dropped: another rate was better on validation with the first seed

    return run


def verdicts(my):
    said = {"supported": [], "refuted": [], "these runs cannot tell": []}
    tests = {label: accuracies for label, _, _, accuracies in rows}
    full_tests, full_runs = tests.pop("full fine-tuning"), results["rows"]["full fine-tuning"]["runs"]
    for label in tests:
        made = {"adapters": results["rows"][label]["runs"], "full fine-tuning": full_runs}
        rates = {method: sorted({one["learning_rate"] for one in runs}) for method, runs in made.items()}
        supported = my.within_one_point(looked_up(made), rates, tuple(range(len(full_tests))))
        differences = [100 * (a - b) for a, b in zip(tests[label], full_tests)]
        mean, half = my.mean_and_interval(differences)
        verdict = "supported" if supported else "refuted" if mean + half < -1 else "these runs cannot tell"
        said[verdict].append(label)
        print(f"{label:14} {mean:+.1f} ± {half:.1f} points, seeds differ by {stdev(differences):.1f}: {verdict}")
    print("\n" + "\n".join(f"{verdict}: {', '.join(labels) or 'none'}" for verdict, labels in said.items()))
    return len(said["supported"])


compare("7f", mine.run(verdicts, "5.2", "7.4"))

# %% [markdown]
# The head alone is refuted. <!-- claim: better(seeds("film", "full fine-tuning"), seeds("film", "head only"), 1) --> (If
# yours takes the two methods' seeds as unrelated, or leaves out the one that chose the rate, its intervals are others.) For
# a row of which these runs cannot tell, the mean may be close, but few seeds make wide intervals: sixteen that differ as
# much as five make them less than half as wide. <!-- rule --> These are six verdicts at 95 %. If their errors were independent,
# at least one interval of six would miss the truth in a quarter of all cases. <!-- rule -->
#
# The same rule says what the table knows of width and placement. Houlsby's adapters of one width are twice as large as
# Pfeiffer's, so the last two lines do not separate place and size. <!-- rule -->


# %%
def width_and_placement(my):
    tests = {label: accuracies for label, _, _, accuracies in rows}
    for one, other in (
        ("Pfeiffer m=64", "Pfeiffer m=8"),
        ("Houlsby m=64", "Houlsby m=8"),
        ("Houlsby m=8", "Pfeiffer m=8"),
        ("Houlsby m=64", "Pfeiffer m=64"),
    ):
        mean, half = my.mean_and_interval([100 * (a - b) for a, b in zip(tests[one], tests[other])])
        said = (
            "better"
            if mean - half > 1
            else "as good"
            if mean - half > -1
            else "worse"
            if mean + half < -1
            else "unclear"
        )
        print(f"{one} − {other}: {mean:+.1f} ± {half:.1f} points, margin 1: {said}")


mine.run(width_and_placement, "5.2")

# %% [markdown]
# All four means are below two points. <!-- claim: all(abs(difference(seeds("film", one), seeds("film", other))[0]) < 2 for one, other in (("Pfeiffer m=64", "Pfeiffer m=8"), ("Houlsby m=64", "Houlsby m=8"), ("Houlsby m=8", "Pfeiffer m=8"), ("Houlsby m=64", "Pfeiffer m=64"))) -->
# “As good” means here that no more than a point is lost. <!-- rule --> It does not mean that nothing is won.
#
# ## One part taken away
#
# Lesson 01 gave a reason for each part of an adapter. Does this task need them all? Three rows of the controls were
# made like yours: without the activation; with a start far from the identity, of standard deviation 1; and without the
# residual connection, so that the update stands in the place of h. The second was
# run with one rate, 3e-3, so that its verdict holds for this rate alone. <!-- rule -->

# %%
prediction(
    "7g",
    "What can be taken away, and no more than a point is lost?",
    ["the activation", "the start near the identity", "the residual connection", "none of them"],
)


# %%
def without_a_part(my):
    named = dict(
        zip(list(controls["rows"])[2:], ("the activation", "the start near the identity", "the residual connection"))
    )
    spared = "none of them"
    for label, part in named.items():
        without = right(label)
        accuracy = {seed: 100 * hits.float().mean().item() for seed, hits in without.items()}
        lost = [100 * adapters[seed].float().mean().item() - accuracy[seed] for seed in without]
        middle, half = my.mean_and_interval(lost)
        verdict = "as good" if middle + half < 1 else "worse" if middle - half > 1 else "unclear"
        spared = part if verdict == "as good" else spared
        print(
            f"{label:20} {sum(accuracy.values()) / len(lost):5.1f} %, loses {middle:5.1f} ± {half:.1f} points, {len(lost)} seeds: {verdict}"
        )
    return spared


compare("7g", mine.run(without_a_part, "5.2"))

# %% [markdown]
# Without the activation nothing is lost that one would miss here.
# <!-- claim: as_good(seeds("controls", "without activation"), seeds("controls", "Houlsby m=8"), 1) -->
# For 1,500 sentences a linear detour through eight numbers is enough; lesson 06 found the same on another task.
# <!-- claim: as_good(seeds("laboratory", "no activation", key="accuracy", value="identity"), seeds("laboratory", "no activation", key="accuracy", value="gelu"), 2, texts=250) -->
# The other two parts keep the model what it is at the start. Take one away, and two epochs do not bring it back. Far from the
# identity, and at this one rate, it comes to give all sentences the same answer: half of them are right.
# <!-- claim: all(accuracy == 50 for accuracy in seeds("controls", "start at std 1").values()) -->
# Without the residual connection it does worse than the head alone, <!-- claim: better(seeds("controls", "head only"), seeds("controls", "without residual")) -->
# which has a whole model to read from: this one has to learn anew, through eight numbers in each place, what h had said. <!-- rule -->
#
# ## To go on
#
# Experiments without a check, for another day. Write down a guess before you run them.
#
# - Train `"Pfeiffer m=8"` in the live cell as well, with `prepare`. What does the paired interval of 7.3 say?
# - Put adapters into blocks 3 to 5 only, `AdapterConfig(8, layers=(3, 4, 5))`. And into blocks 0 to 2 only. What do they
#   lose, and do three seeds tell?
# - How many training sentences do adapters need to beat the head? Try 100, 300, 1,000 and draw the curve for both.

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("07")

# %% [markdown]
# ## What we saw
#
# 1. Adapters go into a model of the library transformers with the same call as into our own.
# 2. On film reviews they stand at least three points above a trained head alone.
#    <!-- claim: all(better(seeds("film", row), seeds("film", "head only"), 3) for row in ("Pfeiffer m=8", "Houlsby m=8", "Pfeiffer m=64", "Houlsby m=64")) -->
# 3. “Within one point of full fine-tuning” is a claim with a verdict for each row, and few seeds leave rows open.
# 4. A claim needs rates chosen for each method on the validation split, seeds enough for its interval, and a control.
# 5. Some errors are sentences that do not show the verdict of their review: no method gets them all.
#
# **Sources.** B. Pang and L. Lee, *Seeing stars*, ACL 2005 (the sentences). Houlsby et al. 2019, arXiv 1902.00751,
# table 1. E. Hu et al., *LoRA*, 2021, arXiv 2106.09685.
#
# **Next.** [08 · Many tasks, one model](08_many_tasks_one_model.ipynb): what does modularity buy?
