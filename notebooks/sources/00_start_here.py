# %% [markdown]
# # 00 · Start here
#
# **The question.** Does my machine work, and what is in this course?
#
# **You will be able to** say what each lesson answers, and be sure that every later lesson runs on this machine.
#
# **Before you start.** Nothing. Choose *Run → Run All Cells* in the menu above, or press Shift-Enter in one cell after
# the other.
#
# **Time.** 5 minutes.

# %% [markdown]
# ## What an adapter is, in one paragraph
#
# A large pretrained model can be taught a new task by changing all of its weights. That works well, and it costs a
# full copy of the model for every task. An **adapter** is the frugal way: the model is frozen, and small trainable
# modules are put into it. Each squeezes what passes through the model, its **hidden states**, through a narrow
# bottleneck and adds the result back. Often less than one parameter in a hundred is trained. In this course you build
# that module with your own hands, put it into a real model, train it, and measure what it saves and what it costs.

# %% [markdown]
# ## The course
#
# Which lesson answers which question?

# %%
from adapters_lesson.plots import course_map, show

show(
    course_map(),
    "The lessons of the course as a path from 00 to 10, each with its title, its question and its minutes.",
)

# %% [markdown]
# The path goes from top to bottom. Each lesson stands on the ones above it, and 01, 02 and 03 are the core.

# %% [markdown]
# ## Does this machine work?
#
# The next cell looks at everything that the course needs. It reads the files of the pretrained model and compares
# their checksums, so that nothing later fails because of a damaged download.

# %%
import os
import platform
from importlib.metadata import version

import torch

from adapters_lesson.pretrained import minilm_folder
from adapters_lesson.tasks import TASKS, load_task

print(f"Python {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores")
for package in ("torch", "transformers", "datasets", "peft", "jupyterlab", "ipywidgets"):
    print(f"{package:13}{version(package).partition('+')[0]}")
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
# missing and how to get it.

# %% [markdown]
# ## One adapter, to see that it works
#
# Here is the whole idea in one cell. We take the lower four layers of a real pretrained model, put adapters into them,
# and ask two questions: how many parameters would be trained, and has the model changed?

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
# About half a per cent of the parameters is trained, and before training starts the model computes exactly what it
# computed before. Why that is so is the subject of lesson 01.

# %% [markdown]
# ## How the lessons work
#
# - **Exercises** have a card (what to write, how hard ◆◇◇, how long) and a stub. Replace `raise NotImplementedError`
#   with your code and run the check below it. It tells you the first thing to fix. Hints and the solution are folded
#   up under the card: click on them, or put the focus on one and press Enter.
# - **A lesson runs as it is.** An exercise that you leave out says "not attempted yet", and the lesson goes on with the
#   course's own implementation.
# - **Widgets** have knobs to turn, with the mouse or by keyboard: Tab leads to a knob, the arrow keys turn it, and Enter
#   opens a list. Without a running kernel a picture stands in their place: run the cell to make it move.
# - **Numbers** come from the cells that you see. What takes long was run beforehand by a script, and the lesson names
#   its command.
# - The finished notebooks, with every exercise solved, are in the folder `solutions`.

# %% [markdown]
# ## How far are you?
#
# The next cell tells it, in any notebook. `progress("03")` shows one lesson.

# %%
from adapters_lesson.checks import progress

progress()

# %% [markdown]
# Your results are kept in the file `progress.json` beside this notebook; nothing leaves this machine.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Which parts of a model with adapters are trained?</summary>
#
# The adapters, and the new **head** on top, the layer that gives the answer. The pretrained weights stay frozen.
# </details>

# %% [markdown]
# ## What we saw
#
# 1. An adapter is a small trainable module inside a frozen pretrained model.
# 2. The course has eleven lessons, from one adapter to a language model, and to training on several processes.
# 3. The model, the data and all libraries are on this machine: nothing is fetched while you learn.
# 4. Adapters of width 16 in four layers train about half a per cent of the parameters.
# 5. A new adapter changes nothing: the output is the same, bit for bit.
#
# **Sources.** N. Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, ICML 2019, arXiv 1902.00751.
#
# **Next.** [01 · The bottleneck](01_the_bottleneck.ipynb): what is an adapter?
