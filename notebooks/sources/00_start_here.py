# %% [markdown]
# # 00 · Start here
#
# The grey network below is frozen, and it knows another task. Press *Play*, and watch an **adapter** of 76 numbers learn
# the spirals inside it. <!-- rule -->

# %% folded=true
from adapters_lesson.course.playground import Playground

Playground()

# %% [markdown]
# **The question.** Does my machine work, and what is in this course?
#
# **You will be able to** say what each lesson answers, and whether the libraries, the model and the data are here.
#
# **Before you start.** Nothing. Choose *Run → Run All Cells* in the menu above, or press Shift-Enter in one cell after
# the other.
#
# **Time.** 8 minutes.

# %% [markdown]
# ## What an adapter is, in one paragraph
#
# A large pretrained model can be taught a new task by changing all of its weights. That works well, and it costs a
# full copy of the model for every task. An **adapter** is the frugal way: the model is frozen, and small trainable
# modules are put into it. Each squeezes what passes through the model, its **hidden states**, through a narrow
# bottleneck and adds the result back. In this course you build that module with your own hands, put it into a real
# model, train it, and measure what it saves and what it costs.
# <!-- rule -->

# %% [markdown]
# ## The course
#
# Which lesson answers which question, and what builds on what?

# %%
from adapters_lesson.course.figures import course_map

course_map()

# %% [markdown]
# A ring in a lesson's row is a lesson to do before it: 01, 02 and 03 are the core. A dot is a lesson whose exercises
# come back: *your 1.1* is your answer to exercise 1.1.

# %% [markdown]
# ## Does this machine work?
#
# The next cell looks for the libraries, the model and the data; you need not read its code. It reads the files of the
# pretrained model and compares their checksums, so that a damaged download shows here and not later.

# %%
import os
import platform
from importlib.metadata import version
from importlib.util import find_spec

import torch

from adapters_lesson import load_task
from adapters_lesson.data import TASKS, minilm_folder

print(f"Python {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores")
for package in ("torch", "transformers", "datasets", "peft", "jupyterlab", "ipywidgets"):
    print(f"{package:13}{version(package).partition('+')[0] if find_spec(package) else 'not installed'}")
print("GPU          ", torch.cuda.get_device_name() if torch.cuda.is_available() else "none, and none is needed")
print(
    "MiniLM       ",
    ", ".join(
        f"{file.name} ({file.stat().st_size / 1e6:.1f} MB)" for file in sorted(minilm_folder().glob("*.safetensors"))
    ),
    "verified",
)
for task in TASKS:
    sizes = ", ".join(f"{len(dataset):,} {split}" for split, dataset in load_task(task).items())
    print(f"{task:18}", sizes)

# %% [markdown]
# If the cell printed its lines without an error, you are ready. Otherwise the last line of the error says what is
# missing; for the model and the data also how to get it, and for a library, install the course again. JupyterLab may be
# missing.

# %% [markdown]
# ## One adapter, to see that it works
#
# Here is the whole idea in one cell. We take the first four **blocks** of a real pretrained model (lesson 02 opens one),
# and put adapters into them. How many parameters would be trained, and has the model changed?

# %%
from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, load_tokenizer, prepare

model = Classifier(SmallTransformer.from_minilm(layers=4), num_labels=2)
texts = load_tokenizer()(
    ["An adapter is a small module.", "It is trained; the model is not."], padding=True, return_tensors="pt"
)
with torch.no_grad():
    before = model(**texts)
    trainable = prepare(model, "adapter", AdapterConfig(bottleneck_dim=16))
    after = model(**texts)
print(trainable)
print("the same output, bit for bit:", torch.equal(before, after))

# %% [markdown]
# About half a per cent of the parameters is trained, those of a new layer on top, the **head**, included.
# <!-- claim: 0.45 < out(r"trainable%: ([\d.]+)") < 0.6 -->
# Before training starts, the model computes exactly what it computed before.
# <!-- claim: said("the same output, bit for bit: True") -->
# Why that is so is the subject of lesson 01.

# %% [markdown]
# ## How the lessons work
#
# - **Exercises** have a card (what to write, how hard ◆◇◇, how long) and a stub. Replace `raise NotImplementedError`
#   with your code and run the check below it. It tells you the first thing to fix. Hints and the solution are folded
#   up under the card: click on them, or put the focus on one and press Enter.
# - **What you write goes to work.** A correct answer goes into a file of your own, `mine/adapters.py` beside this
#   notebook. From there on the lessons run on it: by the end it is a library of adapters, and it is yours.
# - **A lesson runs as it is.** For an exercise that you leave out, the course's own piece takes over.
# - **Predictions** are asked for before a result. Commit one: it is kept, and compared.
# - **Widgets** have knobs to turn, with the mouse or by keyboard: Tab leads to a knob, the arrow keys turn it, and Enter
#   opens a list. Without a running kernel a picture stands in their place: run the cell to make it move.
# - **Numbers** come from the cells that you see. What takes long was run beforehand by a script, and the lesson names
#   its command.
# - The finished notebooks, with every exercise solved, are in the folder `solutions`.

# %% [markdown]
# ### Exercise 0.1 · The share that is trained
#
# **Write** how many per cent of a model's parameters are trained. Get it wrong first, to see what a check says: return
# `trained / total`, and run the check. **Difficulty** ◆◇◇ · **1 minute**
#
# **Done** when 1 of 4 gives 25.0, and the check says ✔.
#
# <details><summary>Hint 1</summary>
#
# Per cent means: of a hundred.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the share, as the card has it. What makes a hundred of one?
# </details>
# <details><summary>I see "a share between 0 and 1"</summary>
#
# One of four is 0.25 as a share, and 25 per cent.
# </details>
# <details><summary>I see "not attempted yet"</summary>
#
# The stub is still there: put your line in the place of `raise NotImplementedError`, run that cell, then the check.
# </details>

# %%
from adapters_lesson.course import mine
from adapters_lesson.course.checks import lesson00 as checks
from adapters_lesson.course.quiz import concept_test, quiz


def trained_share(trained: int, total: int) -> float:
    ### BEGIN SOLUTION
    return 100 * trained / total
    ### END SOLUTION


# %%
checks.check_trained_share(trained_share)
### BEGIN HIDDEN TESTS
assert abs(trained_share(1, 4) - 25) < 1e-9, "1 of 4 is 25 per cent."
assert abs(trained_share(3, 200) - 1.5) < 1e-9, "3 of 200 is 1.5 per cent."
### END HIDDEN TESTS

# %% [markdown]
# Your function goes to work at once, on the model above. The first line says whose it is.


# %%
def share(my):
    trained, total = trainable.trainable, sum(p.numel() for p in model.parameters())
    print(f"{trained:,} of {total:,} parameters are trained: {my.trained_share(trained, total):.2f} %")


mine.run(share, "0.1")
print(mine.shown("0.1"))

# %% [markdown]
# ## How far are you?
#
# The next cell tells it, in any notebook. `progress("03")` shows one lesson.

# %%
from adapters_lesson.course.record import progress

progress()

# %% [markdown]
# Your results stay in `progress.json` beside this notebook, unless you share them on a class's hub.

# %% [markdown]
# ## What do you know already?
#
# Twelve questions on the concepts of the course. Most of them you cannot know yet: answer all the same. Lesson 10 asks
# twelve others of the same kind, and shows what you have gained.

# %%
concept_test("before")

# %% [markdown]
# ## Check yourself
#
# Four questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("00")

# %% [markdown]
# ## What we saw
#
# 1. An adapter is a small trainable module inside a frozen pretrained model.
# 2. The course has thirteen lessons, from one adapter to a language model, to LoRA, and to your own work.
# 3. MiniLM, the data and the libraries are on this machine: nothing is fetched while you learn. (Lesson 10 has one more
#    model, and says how to get it.) <!-- rule -->
# 4. Adapters of width 16 in four blocks, and the head, are about half a per cent of the parameters.
#    <!-- claim: 0.45 < out(r"trainable%: ([\d.]+)") < 0.6 -->
# 5. A model with new adapters gives the same output as before, bit for bit.
#    <!-- claim: said("the same output, bit for bit: True") -->
#
# **Sources.** N. Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, ICML 2019, arXiv 1902.00751.
#
# **Next.** [01 · The bottleneck](01_the_bottleneck.ipynb): what is an adapter?
