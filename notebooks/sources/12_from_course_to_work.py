# %% [markdown]
# # 12 · From the course to your work
#
# **The question.** What do I type on Monday, and how do I know that it works?
#
# **You will be able to** adapt a model of your own to data of your own, find out whether an adapter is really applied, go
# on from a saved one, carry it between this course, peft and AdapterHub, serve many from one base, and compare before you
# ship.
#
# **Before you start.** Lessons 01 to 03, 05, 08 and 11.
#
# **Time.** 50 minutes, of which the machine computes half a minute.

# %%
import contextlib
import copy
import csv
import shlex
import tempfile
import time
import warnings
from pathlib import Path
from textwrap import fill

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from adapters_lesson import AdapterConfig, LoRAConfig, load_task, lora, prepare, save_adapter
from adapters_lesson.__main__ import main
from adapters_lesson.course import mine, patients
from adapters_lesson.course.checks import lesson12 as checks
from adapters_lesson.course.decision import WhichMethod
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.quiz import quiz, review
from adapters_lesson.doctor import TROUBLES, diagnose
from adapters_lesson.exchange.adapterhub import export_adapterhub
from adapters_lesson.exchange.peft import export_peft, import_peft
from adapters_lesson.exchange.peft_bottleneck import BottleneckConfig
from adapters_lesson.history import load_results

warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about names that peft uses
work = Path(tempfile.mkdtemp())  # all files of this lesson

# %% [markdown]
# First, five questions from earlier lessons: what was missed comes again.

# %%
review("12")

# %% [markdown]
# ## Your data, your model
#
# Your data are a table: a CSV file, or a folder with `train.csv`, `validation.csv` and `test.csv`, with a column of texts
# and one of labels. Your model is a folder or a name on the hub. One line adapts it:
#
# `adapters-lesson train --task my.csv --base FOLDER_OR_NAME --method adapter`
#
# A name is looked up on the hub if you are online; here we stay offline, with two blocks of MiniLM. For the data we write
# some film reviews into a folder, as you would get them from somebody. The next cell gives to `main` what you would type.

# %%
films = work / "films"
films.mkdir()
for split, count in {"train": 96, "validation": 32, "test": 64}.items():
    rows = load_task("film_reviews")[split].shuffle(seed=0).select(range(count))
    with (films / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([row["text"], ["negative", "positive"][row["label"]]] for row in rows)


def typed(line: str) -> None:
    """What a terminal would do with this line."""
    print(fill(f"$ adapters-lesson {line}".replace(str(work), "…"), 100, subsequent_indent="    "))
    main(shlex.split(line))


saved_in = work / "my_adapter"
typed(
    f"train --task {films} --base minilm:2 --method lora --epochs 1 --learning-rate 3e-3 --quiet "
    f"--save {saved_in} --report {work / 'report.html'}"
)
typed(f'predict {saved_in} --text "a warm and funny film" --text "two hours that I want back"')

# %% [markdown]
# Three steps of training are not meant to be good: it is the way that counts. `--method adapter` is the other choice,
# `--seeds 0 1 2` trains three times and gives an interval, and `report.html` has the curves, the confusion and the errors.
# In the folder lies a **model card**. Look what a machine can fill in, and what it asks of you.

# %%
card = (saved_in / "README.md").read_text(encoding="utf-8").replace(str(work), "…")
print(card[card.index("## Model and data") : card.index("## How good it is")])

# %% [markdown]
# **Licences.** An adapter is nothing without its base, so the base's licence comes along; some ask that its name be kept.
# The data's licence may forbid commercial use of what was trained on them. Nobody can read that off a CSV file: state both,
# and keep the base's SHA-256 or its revision, since a base of the same name may change.
#
# ### The same in ten lines
#
# Most teams use three libraries, and what you have learnt is in each line:
#
# ```python
# tokenizer = AutoTokenizer.from_pretrained(base)
# data = load_dataset("csv", data_files=files).class_encode_column("label")
# data = data.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=128), batched=True)
# model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
# model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]))
# settings = TrainingArguments("out", num_train_epochs=3, learning_rate=3e-3, per_device_train_batch_size=32)
# trainer = Trainer(model, settings, DataCollatorWithPadding(tokenizer), train_dataset=data["train"])
# trainer.train()
# print((trainer.predict(data["test"]).predictions.argmax(-1) == data["test"]["label"][:]).mean())
# model.save_pretrained("out")
# ```
#
# `python data/run_side_by_side.py` has run both ways on the same files: three seeds at the rate above, and five at a third of
# it. Do they agree? By the rule of lesson 05: the mean of the paired differences, its interval, and a margin, here 2 points.

# %%
prediction(
    "12a",
    "Command line − ten lines, at the rate above, 1,000 test texts: what does the rule say with a margin of 2 points?",
    ["as good", "better", "worse", "unclear"],
)

# %%
beside = load_results("side_by_side")["rates"]


def judge(theirs: str):
    """The rule of lesson 05 at each rate, by your interval; the verdict at the first."""

    def judged(my) -> str:
        verdicts = []
        for rate, row in beside.items():
            print(f"learning rate {rate}")
            for name in ("ours", theirs):
                print(f"{name:>24}", *(f"{100 * accuracy:6.1f} %" for accuracy in row[name]))
            middle, half = my.mean_and_interval([100 * (a - b) for a, b in zip(row["ours"], row[theirs])])
            verdict = "better" if middle - half > 2 else "as good" if middle - half > -2 else "unclear"
            verdicts.append("worse" if middle + half < -2 else verdict)
            print(f"{'ours − theirs':>24} {middle:+6.1f} ± {half:.1f} points: {verdicts[-1]}")
        return verdicts[0]

    return judged


compare("12a", mine.run(judge("theirs"), "5.2"))

# %% [markdown]
# At the rate above the interval has zero in it and is wider than the margin: *unclear*.
# <!-- claim: unclear(*({s: 100 * v for s, v in enumerate(load_results("side_by_side")["rates"]["0.003"][name])} for name in ("ours", "theirs")), 2) -->
# Look at the single seeds: one of the ten-line runs stayed at guessing, and it alone makes the interval wide. At a third
# of the rate all five of them do, and one of five of ours.
# <!-- claim: (lambda stays: stays("0.003", "theirs") == 1 and stays("0.003", "ours") == 0 and stays("0.001", "theirs") == 5 and stays("0.001", "ours") == 1)(lambda rate, name: sum(v < 0.55 for v in load_results("side_by_side")["rates"][rate][name])) -->
#
# Two things are different between the ways: the order of the texts, and the **dropout of the frozen base**. `Trainer` puts the whole
# model into training mode; our `train` leaves what is frozen in evaluation mode (lesson 05). <!-- rule --> The script has run `Trainer`
# again, with `hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0` in the line of `AutoModelForSequenceClassification`.

# %%
prediction(
    "12f",
    "Without that dropout, how many of Trainer's five runs at 0.001 will leave guessing behind?",
    ["none", "one or two", "three or more"],
)

# %%
mine.run(judge("theirs without dropout"), "5.2")
left = sum(accuracy > 0.55 for accuracy in beside["0.001"]["theirs without dropout"])
compare("12f", "none" if not left else "one or two" if left < 3 else "three or more")

# %% [markdown]
# It was the dropout. Without it both ways are as good as each other at the rate above,
# <!-- claim: as_good(*({s: 100 * v for s, v in enumerate(load_results("side_by_side")["rates"]["0.003"][name])} for name in ("ours", "theirs without dropout")), 2) -->
# and at the lower one four of five leave guessing.
# <!-- claim: sum(v > 0.55 for v in load_results("side_by_side")["rates"]["0.001"]["theirs without dropout"]) == 4 -->
# The noise in a base that learns nothing has to be learnt around. <!-- rule --> This is a small model, and LoRA of a short run; but
# where yours does not get going, try it: it is one line. And in your work, too: **the single seeds first, then the mean.**
#
# ## Is it really applied?
#
# The question that is asked most: *my adapter changes nothing*. Often no line of the log is red. So look at the thing
# itself, first at the file. peft writes `adapter_model.safetensors`, and its names tell a story:
#
# `base_model.model.` + the path of a linear layer + `.lora_A.weight` or `.lora_B.weight`
#
# What is not LoRA's in it should be a small head. If the file holds the base as well, somebody saved `state_dict()`.
#
# ### Exercise 12.1 · Read the file
#
# **Write** a function that says what is in a file of LoRA. `tensors` are its tensors by name, `modules` the paths of all
# modules of the base model, such as "model.layers.0.self_attn.q_proj". Return the first that is so: "empty" (no tensors);
# "whole model" (more numbers without ".lora_" in their names than with it); "keys" (a LoRA tensor whose name is not
# "base_model.model." + a path in `modules` + ".lora_…"); "zero" (every ".lora_B." is zero everywhere); else "sound".
# **Difficulty** ◆◆◇ · **7 minutes**
#
# **Done** when every file is told for what it is, one with a small head too.
#
# <details><summary>Hint 1</summary>
#
# `name.partition(".lora_")[0]` is what stands before. `tensor.numel()` counts, `tensor.any()` says whether something is
# not zero.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with two groups: `lora = {name: t for name, t in tensors.items() if ".lora_" in name}`, and the rest. Then five
# returns, in the order of the card.
# </details>
# <details><summary>I see "without its prefix peft finds nothing"</summary>
#
# A name has to begin with `base_model.model.`. Do not strip what may be missing: build the name that is right, and compare.
# </details>
# <details><summary>I see "the head is no LoRA tensor"</summary>
#
# Ask of the LoRA tensors alone whether their path exists. And count numbers, not names.
# </details>


# %%
def what_is_in(tensors: dict[str, torch.Tensor], modules: set[str]) -> str:
    ### BEGIN SOLUTION
    lora = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if not tensors:
        return "empty"
    if numbers > 2 * sum(tensor.numel() for tensor in lora.values()):
        return "whole model"
    right = {f"base_model.model.{path}" for path in modules}
    if any(name.partition(".lora_")[0] not in right for name in lora):
        return "keys"
    if not any(tensor.any() for name, tensor in lora.items() if ".lora_B." in name):
        return "zero"
    return "sound"
    ### END SOLUTION


# %%
checks.check_file(what_is_in)
### BEGIN HIDDEN TESTS
_A, _B = torch.ones(2, 6), torch.ones(6, 2)
_file = {"base_model.model.top.in.lora_A.weight": _A, "base_model.model.top.in.lora_B.weight": _B}
assert what_is_in(_file, {"top.in", "top"}) == "sound", "both names are of a module that is there."
assert what_is_in(_file, {"top.out", "top"}) == "keys", "the base model has no module top.in."
_zero = {name: tensor * (".lora_A." in name) for name, tensor in _file.items()}
assert what_is_in(_zero, {"top.in"}) == "zero", "B is zero, whatever A is."
_more = {**_file, "base_model.model.top.in.base_layer.weight": torch.ones(5, 5)}
assert what_is_in(_more, {"top.in"}) == "whole model", "25 numbers are not LoRA's, and 24 are."
### END HIDDEN TESTS

# %% [markdown]
# Your function goes to a hospital. `patients` makes tiny models and folders, each with one of the troubles that fill the
# forums. Four folders of theirs, and one that is well, read by you and by the course's **doctor**, `diagnose`:


# %%
def admitted(number: int) -> patients.Patient:
    """Patient 1 to 12, with a folder of its own."""
    room = Path(tempfile.mkdtemp(dir=work))
    return patients.patient(number, 0, room)


def read(my) -> None:
    """Files by your function, and by the doctor."""
    base = patients.admit(lambda room: patients.llama(), 0, work)
    well = patients.saved(patients.trained(patients.lora(patients.llama())), work / "well")
    folders = {"one that is well": (well, base)}
    for number in (2, 5, 6):
        given = admitted(number).given
        folders[f"patient {number}"] = (given["model_or_folder"], given.get("base"))
    folders["new, never trained"] = (patients.saved(patients.lora(patients.llama()), work / "new"), base)
    for name, (folder, meant) in folders.items():
        file = next(folder.glob("adapter_model.*"))
        tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        model = meant or (patients.bert() if number == 6 and name == "patient 6" else base)
        modules = {path for path, _ in model.named_modules()}
        theirs = [finding.trouble for finding in diagnose(folder, base=meant)] or ["nothing"]
        print(f"{name:20} you: {my.what_is_in(tensors, modules):12} the doctor: {', '.join(theirs)}")


mine.run(read, "12.1")

# %% [markdown]
# ### Twelve patients
#
# Here is what their owners say. Every one has one trouble of the list. Write what you think into `guesses`, such as
# `{1: "zero", 9: "half precision"}`, before you call the doctor.

# %%
print(fill("the doctor knows: " + ", ".join(TROUBLES), 100), end="\n\n")
ward = {number: admitted(number) for number in range(1, 13)}
for number, one in ward.items():
    print(f"{number:2}. {one.complaint}   ({', '.join(one.given)})")

# %%
guesses: dict[int, str] = {}

# %%
prediction(
    "12b",
    "Patient 1's file was saved without base_model.model. in front of its names. peft loads it into the model. And then?",
    ["an error", "a warning, and the adapter does nothing", "not a word, and the adapter does nothing"],
)

# %%
model = patients.admit(lambda room: patients.llama(), 0, work)
ids = torch.arange(2, 14).view(2, 6)
file = patients.saved(patients.trained(patients.lora(copy.deepcopy(model))), work / "one") / "adapter_model.safetensors"
tensors = {name.removeprefix("base_model.model."): tensor for name, tensor in load_file(file).items()}
save_file(tensors, file, {"format": "pt"})
said: list[str] = []
with warnings.catch_warnings(record=True) as all_warnings:
    warnings.simplefilter("always")
    try:
        adapted = patients.load(copy.deepcopy(model), work / "one")
        said = [str(one.message) for one in all_warnings if "adapter" in str(one.message)]
        same = torch.equal(adapted(ids).logits, model(ids).logits)
        outcome = ("a warning" if said else "not a word") + ", and the adapter does nothing" * same
    except Exception as error:
        outcome, same = "an error", False
        print(type(error).__name__, str(error)[:200])
print("warnings of the adapter:", *[f"{one[:97]} …" for one in said] or ["none"])
print(f"outputs equal to the base model's, bit for bit: {same}")
compare("12b", outcome)

# %% [markdown]
# That warning is one line among hundreds, on one of eight processes. So a check of a second belongs into every training
# script: *the adapted model, in front of one batch, is not the base model*. Now the doctor:

# %%
found = {number: diagnose(**one.given) for number, one in ward.items()}
for number, diagnosis in found.items():
    troubles = [finding.trouble for finding in diagnosis]
    print(f"{number:2}. you: {guesses.get(number, '–'):16} the doctor: {', '.join(troubles)}")
right = sum(one.trouble == found[number].findings[0].trouble for number, one in ward.items())
print(f"the first finding is the trouble that was put in: {right} of {len(ward)}\n")
print(found[4], found[10], sep="\n\n")

# %% [markdown]
# They come in an order: whoever has lost the file need not look at the learning rate. <!-- rule --> `diagnose` takes the model, and if you
# have them the optimiser, one batch and the base. It never trains; weights and random numbers are as they were.
#
# Two of them deserve a closer look. **The head** (patient 4). peft writes what it has made, and a new head it has not made,
# unless it is told: by `task_type="SEQ_CLS"`, or by `modules_to_save=["classifier"]`. Otherwise the head is drawn anew at
# each loading.
#
# **"element 0 of tensors does not require grad"** (patient 10). Checkpointing (lesson 04) in its old form,
# `use_reentrant=True`, asks of the *inputs* of a block whether a gradient is wanted. Behind frozen embeddings they say no,
# and the block's own LoRA is never asked. `use_reentrant=False` looks at what is computed inside.

# %%
for task_type in (None, "SEQ_CLS"):
    base = patients.admit(lambda room: patients.bert(), 0, work)
    batch = patients.batch_of(base)
    tuned = patients.trained(patients.lora(copy.deepcopy(base), task_type=task_type)).eval()
    folder = patients.saved(tuned, Path(tempfile.mkdtemp(dir=work)))
    base.classifier.reset_parameters()  # as in a new process: the base file has no such head
    same = torch.allclose(patients.load(base, folder).eval()(**batch).logits, tuned(**batch).logits)
    heads = [name for name in load_file(folder / "adapter_model.safetensors") if "classifier" in name]
    print(f"task_type={task_type!s:8} {len(heads)} tensors of the head in the file, same answers after loading: {same}")

for reentrant in (True, False):
    model = patients.admit(lambda room: patients.lora(patients.llama()), 0, work)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    with contextlib.suppress(AttributeError):  # without the crutch by which transformers 5 helps the old form
        model.disable_input_require_grads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train()(**patients.batch_of(model)).loss.backward()
        outcome = f"a gradient at {sum(p.grad is not None for p in model.parameters())} tensors"
    except RuntimeError as error:
        outcome = str(error)[:56]
    print(f"use_reentrant={reentrant!s:6} {outcome}")

# %% [markdown]
# ## What is in a folder
#
# Three formats for one idea. Below, one tiny BERT each: LoRA saved by the course and as a folder of peft, bottleneck adapters
# as a folder of AdapterHub.

# %%
config = LoRAConfig(rank=4)
tiny = patients.admit(lambda room: patients.bert(), 0, work)
with_lora, with_adapters = copy.deepcopy(tiny), copy.deepcopy(tiny)
prepare(with_lora, "lora", config)
prepare(with_adapters, "adapter", AdapterConfig(4))
for model in (with_lora, with_adapters):
    patients.trained(model).eval()
save_adapter(with_lora, work / "ours")
export_peft(with_lora, work / "peft")
export_adapterhub(with_adapters, work / "hub")
for name in ("ours", "peft", "hub"):
    for file in sorted((work / name).iterdir()):
        print(f"{name:5} {file.name:34} {file.stat().st_size:7,} bytes")
        if file.suffix == ".safetensors":
            names = sorted(load_file(file))
            print(f"      {len(names)} tensors, such as {names[-1]}")

# %% [markdown]
# - **Ours**: one file; its header holds the settings, the labels and the fingerprint of the base. Another base is refused.
# - **peft**: tensors, and `adapter_config.json`, which names the base but does not know its weights.
# - **AdapterHub**: the same in two pairs of files, the head apart.
#
# None of them has the base in it. And none has the tokenizer: `train` puts it beside.
#
# **New tokens.** Whoever adds four tokens makes four rows of the embeddings, and for a language model four of the output.
# They are *drawn at random and must be trained*, and LoRA on query and value trains no embeddings. <!-- rule --> In peft:
# `trainable_token_indices=[…]` trains those rows alone; `modules_to_save=["embed_tokens"]` trains and keeps the whole table,
# which for a vocabulary of 49,152 and 576 directions is 28 million numbers. And the base must be resized *before* the adapter is
# loaded (patient 12).
#
# ### peft, both ways
#
# What you have trained here goes to people who have never heard of this course, and back.

# %%
import peft

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    there = peft.PeftModel.from_pretrained(copy.deepcopy(tiny), str(work / "peft")).eval()
    back = copy.deepcopy(tiny)
    import_peft(back, work / "peft")
want = with_lora(**batch).logits
for name, model in {"in peft": there, "back again": back.eval()}.items():
    print(f"{name:11} the logits differ by at most {(model(**batch).logits - want).abs().max():.1e}")

as_tuner = peft.get_peft_model(copy.deepcopy(tiny), BottleneckConfig(bottleneck_dim=4, task_type="SEQ_CLS"))
patients.trained(as_tuner).eval()
as_tuner.print_trainable_parameters()
with as_tuner.disable_adapter():
    print("switched off, the blocks give the base's output:", torch.equal(
        as_tuner.base_model.model.bert(batch["input_ids"])[0], tiny.bert(batch["input_ids"])[0]
    ))  # fmt: skip
try:
    as_tuner.merge_and_unload()
except ValueError as error:
    print(error)

# %% [markdown]
# The last lines are what people have asked of peft since 2023: a **bottleneck adapter as one of its tuners**.
# `exchange/peft_bottleneck.py` registers it, and `save_pretrained`, several adapters and `Trainer` work as with LoRA. Who
# loads such a folder has to import that module first. <!-- rule -->
#
# ## Going on
#
# On Tuesday there are new data, and the adapter of Monday is to go on. A loader hands back a model, and each does it in its
# own way: `PeftModel.from_pretrained` freezes everything (`is_trainable=True` is the switch), others leave all
# parameters trainable. A report of 2026 (mlx-vlm, issue 2178) has 27 times as many parameters trained as before, and no
# message: resuming had un-frozen the base.

# %%
prediction(
    "12c",
    "Our tiny BERT of 16 directions, with LoRA of rank 4 and a head: how many times as many numbers are trained if all are?",
    factor=2,
)

# %% [markdown]
# ### Exercise 12.2 · Go on
#
# **Write** a function that makes `model` ready to go on: the parameters that are named in `saved` get their values from there
# and are trained, *and nothing else is*. It returns how many numbers are trained. If a name is not in the model, raise a
# `KeyError` and leave the model as it was. **Difficulty** ◆◆◇ · **6 minutes**
#
# **Done** when it works whatever was frozen before, and the rest of the model keeps its values.
#
# <details><summary>Hint 1</summary>
#
# `dict(model.named_parameters())[name]` raises the `KeyError` by itself. Do that for all names before you change anything.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with `model.requires_grad_(False)`, once the names are found. Then, under `torch.no_grad()`, `parameter.copy_(…)`
# and `parameter.requires_grad_(True)`.
# </details>
# <details><summary>I see "times as many numbers are trained"</summary>
#
# The base is not frozen. It was not enough to switch the adapter on.
# </details>
# <details><summary>I see "the saved values are not in the model"</summary>
#
# A new optimiser on a new adapter starts from nothing. Copy the values first.
# </details>


# %%
def go_on(model: nn.Module, saved: dict[str, torch.Tensor]) -> int:
    ### BEGIN SOLUTION
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name] for name in saved}
    model.requires_grad_(False)
    with torch.no_grad():
        for name, parameter in chosen.items():
            parameter.copy_(saved[name])
            parameter.requires_grad_(True)
    return sum(parameter.numel() for parameter in chosen.values())
    ### END SOLUTION


# %%
checks.check_go_on(go_on)
### BEGIN HIDDEN TESTS
_model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
_before = _model[0].weight.detach().clone()
_number = go_on(_model, {"1.weight": torch.ones(2, 4)})
assert _number == 8, "eight numbers are trained."
assert [name for name, p in _model.named_parameters() if p.requires_grad] == ["1.weight"], "1.weight alone is trained."
assert _model[1].weight.eq(1).all() and torch.equal(_model[0].weight, _before), "values: the saved ones, else the old."
### END HIDDEN TESTS


# %%
def tuesday(my) -> float:
    """Monday's LoRA goes on in a new copy of the base, of which a careless loader has un-frozen everything."""
    monday = {name: p.detach().clone() for name, p in with_lora.named_parameters() if p.requires_grad}
    model = copy.deepcopy(tiny)
    prepare(model, "lora", config)
    model.requires_grad_(True)
    careless = sum(p.numel() for p in model.parameters())
    trained = my.go_on(model, monday)
    print(f"a careless loader would train {careless:,} numbers, you train {trained:,}")
    print("the same answers as on Monday:", torch.equal(model.eval()(**batch).logits, want))
    patients.trained(model)
    fixed = {name: p for name, p in model.named_parameters() if name not in monday}
    held = dict(with_lora.named_parameters())
    print("after three more steps the base is as it was:", all(torch.equal(p, held[name]) for name, p in fixed.items()))
    return careless / trained


compare("12c", mine.run(tuesday, "12.2"))

# %% [markdown]
# Here it would have been eleven times as many numbers. <!-- claim: round(out(r"would train ([\d,]+) numbers") / out(r"you train ([\d,]+)")) == 11 -->
# So count before the first step.
#
# **Which one goes on?** A model was taught to answer (SFT) with one LoRA, and a second stage is to follow, such as DPO. Three
# ways: go on with the same LoRA (one file, but Monday's is gone unless you keep it); merge the first and put a new one
# on (the second file then belongs to the *merged* base, which you must keep or be able to make again); stack both
# (lesson 08). With the second way, never load the second onto the old base: it was trained around another one. <!-- rule -->
# And a LoRA that is merged and then loaded again counts twice (patient 8).
#
# ## Serving
#
# One base, many customers, each with a LoRA of their own, and all in one batch. A loop over the customers makes two small
# products for each of them. S-LoRA (Sheng et al. 2023) and Punica (Chen et al. 2023) do it at once: **each row of the batch
# takes its own A and B by its number**. <!-- source: Chen et al. 2023, abstract -->
#
# ### Exercise 12.3 · One batch, many LoRAs
#
# **Write** the update for a batch `x` of shape (rows, tokens, inputs). `A` has the shape (LoRAs, rank, inputs), `B` (LoRAs,
# outputs, rank), `which` (rows,) is the number of each row's LoRA, and −1 means: none, the base alone, an update of zeros.
# Return `scaling` · B A x for every row, of shape (rows, tokens, outputs), without a loop.
# **Difficulty** ◆◆◆ · **6 minutes**
#
# **Done** when every row has its own LoRA's update, and a row with −1 has none.
#
# <details><summary>Hint 1</summary>
#
# `A[which]` has the shape (rows, rank, inputs): a matrix for each row. `@` multiplies them row by row.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with `x @ A[which].mT`, of shape (rows, tokens, rank). For −1: `torch.where((which >= 0)[:, None, None], …, 0.0)`.
# </details>
# <details><summary>I see "the last LoRA"</summary>
#
# In Python −1 is the last place of a list. No error tells you that a customer without an adapter gets somebody else's.
# </details>
# <details><summary>I see "all rows get"</summary>
#
# `A[0]` is one LoRA for all. Take as many as there are rows: `A[which]`.
# </details>


# %%
def many_loras(x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, which: torch.Tensor, scaling: float) -> torch.Tensor:
    ### BEGIN SOLUTION
    update = scaling * (x @ A[which].mT @ B[which].mT)  # (rows, tokens, outputs)
    return torch.where((which >= 0)[:, None, None], update, 0.0)
    ### END SOLUTION


# %%
checks.check_many(many_loras)
### BEGIN HIDDEN TESTS
_A, _B = torch.stack([torch.ones(2, 3), 2 * torch.ones(2, 3)]), torch.ones(2, 5, 2)
_given = many_loras(torch.ones(3, 4, 3), _A, _B, torch.tensor([1, -1, 0]), 0.5)
assert _given.shape == (3, 4, 5), "rows, tokens, outputs."
assert torch.allclose(_given[:, 0, 0], torch.tensor([6.0, 0.0, 3.0])), "the rows get 0.5 · 2 · 6, nothing, 0.5 · 2 · 3."
### END HIDDEN TESTS

# %% [markdown]
# Your function serves MiniLM's width, 32 rows of 16 tokens. The loop makes two products for each LoRA that is in the batch,
# yours makes two in all.

# %%
prediction(
    "12d",
    "One layer on this processor, 32 rows with a LoRA each: how many times as long as your function takes the loop?",
    factor=2,
)


# %%
def serve(my) -> float:
    """Your products beside a loop over the LoRAs: the same update, and the clock, the best of fifteen."""
    torch.manual_seed(0)
    x = torch.randn(32, 16, 384)

    def loop() -> torch.Tensor:
        update = torch.zeros(32, 16, 384)
        for number in which.unique().tolist():
            rows = which == number
            update[rows] = 2.0 * (x[rows] @ A[number].T @ B[number].T)
        return update

    for number in (1, 4, 32):
        A, B = torch.randn(number, 8, 384) / 20, torch.randn(number, 384, 8)
        which = torch.arange(32) % number
        plain = getattr(my.many_loras, "__wrapped__", my.many_loras)  # without the comparison with the course's
        ways, seconds = {"loop": loop, "yours": lambda: plain(x, A, B, which, 2.0)}, {}
        assert torch.allclose(loop(), my.many_loras(x, A, B, which, 2.0), atol=1e-4)
        for name, way in ways.items():
            times = []
            for _ in range(15):
                start = time.perf_counter()
                way()
                times.append(time.perf_counter() - start)
            seconds[name] = 1000 * min(times)
        clock = ", ".join(f"{name} {each:.2f} ms" for name, each in seconds.items())
        print(f"{number:2} LoRAs, {2 * number:2} products or 2: {clock}")
    return seconds["loop"] / seconds["yours"]


compare("12d", mine.run(serve, "12.3"))

# %% [markdown]
# Here the loop takes longer the more LoRAs are in the batch, and yours takes about the same.
# <!-- claim: out(r"^32 LoRAs.*loop ([\d.]+) ms") > 1.3 * out(r"^ 1 LoRAs.*loop ([\d.]+) ms") and out(r"^32 LoRAs.*yours ([\d.]+) ms") < 1.5 * out(r"^ 1 LoRAs.*yours ([\d.]+) ms") -->
# It copies a pair of matrices for each row, which is the price. That is one layer on a processor. Inside a whole model the
# base's work is shared by all rows, so the question is how much the rest adds. `python data/run_serving.py` has measured it:
# 32 film reviews in a batch, LoRA with r = 8 on query and value of MiniLM, each number of LoRAs against the model without any.

# %%
served = load_results("serving")
WAYS = ("peft, adapter_names", "ours, mixed batch", "batched products")
print(f"{'times the time without LoRA':30}" + "".join(f"{way:>24}" for way in WAYS))
for count, row in served["many"].items():
    cells = ("{:.2f} ({:.2f} – {:.2f})".format(*row[way]["ratio"]) for way in WAYS)
    print(f"{count + ' LoRAs':30}" + "".join(f"{cell:>24}" for cell in cells))

# %% [markdown]
# With 32 LoRAs in one batch each of the three ways takes at most a fifth more time than no LoRA at all.
# <!-- claim: all(load_results("serving")["many"]["32"][way]["ratio"][2] <= 1.2 for way in ("peft, adapter_names", "ours, mixed batch", "batched products")) -->
# The base is nearly all of the work here, and which way is the fastest the intervals do not tell.
# <!-- claim: (lambda row: row["peft, adapter_names"]["ratio"][1] < row["batched products"]["ratio"][2])(load_results("serving")["many"]["32"]) -->
# The outputs were compared first, of course: all three compute the same, bit for bit.
# <!-- claim: all(row["apart"] == [0, 0] for row in load_results("serving")["many"].values()) -->
#
# And writing? **Prefill** reads the prompt, all tokens at once, as an encoder does. **Decode** writes token by token with a
# cache of keys and values: each step passes through every weight for one token, so what an adapter adds are small operations
# with a fixed price each (lesson 09). <!-- rule --> Lesson 10's model reads 160 tokens and writes 32:

# %%
print(f"{'':30}{'tokens a second':>18}{'times the bare time, reading':>32}{'writing':>22}")
for name in served["writing"]["read"]:
    read, write = (served["writing"][part][name] for part in ("read", "write"))
    cells = ("{:.2f} ({:.2f} – {:.2f})".format(*part["ratio"]) for part in (read, write))
    numbers = " and ".join(f"{part['tokens a second']:.0f}" for part in (read, write))
    print(f"{name:30}{numbers:>18}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, (32, 22))))

# %% [markdown]
# A token that is written takes about twenty times as long as one that is read.
# <!-- claim: 15 < (lambda w: w["read"]["bare"]["tokens a second"] / w["write"]["bare"]["tokens a second"])(load_results("serving")["writing"]) < 25 -->
# LoRA beside all linear layers slows writing by more than Pfeiffer's adapters do,
# <!-- claim: (lambda w: w["LoRA beside, all linear"]["ratio"][1] > w["Pfeiffer's adapters, m = 32"]["ratio"][2])(load_results("serving")["writing"]["write"]) -->
# since it hangs at seven places of a block and they at one. <!-- rule -->
# Merged, LoRA costs less than a twelfth, which is what one run's noise allows to say of nothing.
# <!-- claim: all(load_results("serving")["writing"][part]["LoRA merged"]["ratio"][2] < 1.083 for part in ("read", "write")) -->
# All of this ran beside other work on a shared machine; each ratio comes from rounds that took turns.
#
# On GPUs the engines have kernels of their own for this. *We have no GPU here and measured nothing on one.* What their pages
# say, as stored copies that we read on 28 November 2026:
#
# | engine | many LoRAs in one batch | how | page |
# |---|---|---|---|
# | vLLM | yes, per request | `--enable-lora`, `max_loras`, `max_lora_rank` | docs.vllm.ai, *LoRA adapters* |
# | SGLang | yes, by S-LoRA's and Punica's ways | `--lora-paths`, `max_loras_per_batch` (8) | docs.sglang.io, *LoRA Serving* |
# | TGI | yes, with kernels of Punica and LoRAX | adapters named at the start | huggingface.co/docs, *LoRA* |
# | LoRAX | yes, loaded when a request names them | `adapter_id` in the request | github.com/predibase/lorax |
#
# In the passages that we read, bottleneck adapters are named nowhere. So: **if an engine is to serve it, LoRA**; a bottleneck adapter runs in
# PyTorch. And mind `max_lora_rank`: look up its default before you train at rank 64.
#
# ### Compare first
#
# Before anything is shipped it changes its form: merged, cast to bfloat16, written as GGUF, loaded by an engine. Every one of
# these steps can go wrong without a message. The recipe: **keep the logits of before, and compare**. Not the texts: two models
# with slightly other logits may write the same sentence by luck, or part ways at one close call.
#
# ### Exercise 12.4 · Compare first
#
# **Write** a function of two logits, `before` and `after`, of shape (rows, tokens, classes), and a `mask` of shape (rows, tokens),
# 1 where there is a token, 0 for padding. Return the largest difference of a logit, and the share (0 to 1) of tokens at
# which another class comes first, both as numbers, both without padding. If a logit of a token is not finite, raise a `ValueError`.
# **Difficulty** ◆◆◇ · **5 minutes**
#
# **Done** when what stands in the padding changes nothing, and nan is never called equal.
#
# <details><summary>Hint 1</summary>
#
# `before[mask.bool()]` has the shape (tokens, classes): padding is gone, and all else is simple.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with `a, b = before[mask.bool()], after[mask.bool()]`. `a.isfinite().all()` is False for nan and inf.
# </details>
# <details><summary>I see "the padding is counted"</summary>
#
# Take the tokens first, and then the maximum and the mean: the mean over all places divides by too many.
# </details>
# <details><summary>I see "negative differences"</summary>
#
# The largest difference is that of the absolute values.
# </details>


# %%
def compare_first(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
    ### BEGIN SOLUTION
    a, b = before[mask.bool()], after[mask.bool()]  # (tokens, classes)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a logit is not finite")
    return (a - b).abs().max().item(), (a.argmax(-1) != b.argmax(-1)).float().mean().item()
    ### END SOLUTION


# %%
checks.check_compare(compare_first)
### BEGIN HIDDEN TESTS
_before = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [9.0, 9.5]]])
_after = torch.tensor([[[1.0, 0.5], [3.0, 0.25], [0.0, 90.0]]])
_far, _share = compare_first(_before, _after, torch.tensor([[1, 1, 0]]))
assert abs(_far - 1.5) < 1e-6, "the largest difference of the two tokens is 1.5."
assert abs(_share - 0.5) < 1e-6, "at one of two tokens another class comes first."
### END HIDDEN TESTS

# %%
prediction(
    "12e",
    "A tiny language model, its LoRA merged twice by accident: at what share of the tokens does another word come first?",
    ["at none", "at 1 to 20 %", "at more than 20 %"],
)


# %%
def ship(my) -> float:
    """One model in several forms, each held against the one that was tested."""
    model = patients.admit(lambda room: patients.llama(), 0, work)
    prepare(model, "lora", LoRAConfig(rank=4))
    patients.trained(model, 20).eval()
    torch.manual_seed(0)
    ids, mask = torch.randint(2, 40, (32, 12)), torch.ones(32, 12)
    with torch.no_grad():
        before, shares = model(ids).logits, {}
        merged = copy.deepcopy(model)
        lora.merge(merged)
        twice = copy.deepcopy(model)
        weights = {name: p.detach().clone() for name, p in twice.named_parameters()}
        lora.merge(twice)
        for name, p in twice.named_parameters():
            p.copy_(2 * p - weights[name])
        forms = {
            "merged, fp32": merged(ids).logits,
            "merged, bf16": copy.deepcopy(merged).bfloat16()(ids).logits.float(),
            "merged twice": twice(ids).logits,
            "without its LoRA": patients.admit(lambda room: patients.llama(), 0, work)(ids).logits,
        }
    for name, after in forms.items():
        far, shares[name] = my.compare_first(before, after, mask)
        print(
            f"{name:17} logits up to {far:.1e} apart, another word at {100 * shares[name]:5.1f} % of {mask.numel()} tokens"
        )
    return shares["merged twice"]


share = mine.run(ship, "12.4")
compare("12e", "at none" if share == 0 else "at 1 to 20 %" if share <= 0.2 else "at more than 20 %")

# %% [markdown]
# Merged twice, another word comes first at more than a third of the tokens, and no line of a log is red.
# <!-- claim: out(r"^merged twice .*at +([\d.]+) % of") > 33 -->
# Read the table as a ladder. The first row is rounding; a number near the last row means: *it is not applied*. <!-- rule --> For whole
# models `exchange.compare.compare_outputs(before, after, batches)` says the same, and `exchange.gguf.export_gguf` writes a
# merged Llama-like model as a **GGUF** file for llama.cpp and Ollama; transformers reads it back, so that it can be compared.
# It refuses a LoRA that is not merged, and bottleneck adapters, which never can be. <!-- rule --> The package for it comes with
# `make llm`.
#
# ## Which method when
#
# Six questions at most. Each answer shows what it stands on: a measurement of this course with its file, or a source. What has
# neither is not asked.

# %%
WhichMethod()

# %% [markdown]
# Questions decide nothing. What does: three seeds, two methods, each with its own rate, and the rule.
#
# ## To go on
#
# Take a table of your own, and a base that you know. Write down before you start: what accuracy would be useful, which margin
# counts, and what the base does without training. Then `train --seeds 0 1 2`, `diagnose`, `compare_outputs`, and the card.

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("12")

# %% [markdown]
# ## What we saw
#
# 1. One line adapts your model to your table; the card says what was done, and asks you for licences and limits.
# 2. Whether an adapter is applied is seen in its file and in its outputs, not in the log; `diagnose` names the first cause.
#    <!-- claim: out(r"the first finding is the trouble that was put in: (\d+) of 12") == 12 -->
# 3. A saved adapter goes on with its own parameters alone; the head and new tokens are in the file only if you ask for it.
# 4. One batch serves many LoRAs by two products, with each row's own matrices. <!-- rule -->
# 5. Before you ship: keep the logits, change the form, compare.
#
# **Sources.** Y. Sheng et al., *S-LoRA: Serving Thousands of Concurrent LoRA Adapters*, 2023, arXiv 2311.03285. L. Chen et
# al., *Punica: Multi-Tenant LoRA Serving*, 2023, arXiv 2310.18547. E. Hu et al., *LoRA*, 2021, arXiv 2106.09685. T. Dettmers
# et al., *QLoRA*, 2023, arXiv 2305.14314. H. Liu et al., *(IA)³*, 2022, arXiv 2205.05638. B. Lester et al., *Prompt
# Tuning*, 2021, arXiv 2104.08691. huggingface/peft, issues 244 and 2654, and its page *Troubleshooting*.
#
# **Next.** This was the last lesson. The finished notebooks are in the folder `solutions`.
