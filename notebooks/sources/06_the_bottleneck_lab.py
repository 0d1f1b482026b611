# %% [markdown]
# # 06 · The bottleneck lab
#
# **The question.** Which width, which place, which learning rate, which initialisation?
#
# **You will be able to** turn such a question into an experiment: predict, change one setting at a time, repeat with
# other seeds, and say what the result shows and what it does not.
#
# **Before you start.** Lessons 01 and 03. Lesson 05 explains what is trained and how methods are compared.
#
# **Time.** 45 minutes, of which the machine computes ten, in the background.

# %%
from statistics import mean

from adapters_lesson.experiments import SWEEPS, Settings
from adapters_lesson.history import load_results
from adapters_lesson.lab import Laboratory, guided_experiments, quiz
from adapters_lesson.lab.guide import TITLES, committed_runs
from adapters_lesson.plots import show
from adapters_lesson.plots.runs import sweep_figure

# %% [markdown]
# ## What stands still
#
# An experiment has a part that stays as it is. Here it is the task, `aspect_sentiment` (is the named aspect judged well
# or badly?), the base model, three layers of MiniLM, and the length, 200 steps of 32 sentences. A run takes about a
# third to half a minute on two cores. After every 25 steps it is validated on 250 sentences.
#
# Three layers are few on purpose. With four or more nearly every setting reaches 100 %, and there would be nothing to see.
#
# This is where everything starts, said as code:

# %%
Settings()

# %% [markdown]
# ## Four experiments
#
# Each tab below asks a question. **Write down your prediction first**: choose an option, and say why. What one has
# predicted, one remembers. Then press *Run it* and watch the laboratory, which stands further below. When its runs have
# ended, press *Reveal*: it shows what came out beforehand, with more values and three seeds, and your own runs as
# rings.
#
# Take one tab after the other, about five minutes each. You need not wait for the runs: read on, they go on in the
# background.

# %%
laboratory = Laboratory()
guided_experiments(laboratory)

# %% [markdown]
# ## The laboratory
#
# To see how it works, we start two runs from here, with widths 4 and 64. The buttons do the same.

# %%
_ = await laboratory.run(seeds=[0], bottleneck_dim=4)
_ = await laboratory.run(seeds=[0], bottleneck_dim=64)

# %%
laboratory

# %% [markdown]
# Left the training loss, in the middle the accuracy on the validation sentences, on the right each run's last accuracy
# against a setting, which you choose below the figure. The narrow adapter learns more slowly and ends lower.
#
# - **Run** trains with the knobs as they are; with several seeds, once for each. **Pause**, **Stop**: whenever you like.
#   A run that was stopped is kept, too.
# - **Run sweep** takes one knob through a list of values.
# - **The table** has every run. Tick what is to be drawn. A click on a column's head sorts by it.
# - **Copy settings** turns the knobs to those of the ticked run, **As Python** shows it as a program, **Export CSV**
#   writes the table into a file.
#
# Runs are written into the folder `runs` beside this notebook as they finish. Restart the kernel, and they are there
# again.

# %% [markdown]
# ## How sure is one run?
#
# Run the same settings with another seed, and you get another number: the adapters and the head start elsewhere, and the
# sentences come in another order. A difference between two settings counts only if it is larger than the differences
# between seeds. Here are the four experiments with three seeds, from `python data/run_laboratory.py`:

# %%
print(f"{load_results('laboratory')['command']}, validation accuracy in %, three seeds\n")
for name, title in TITLES.items():
    knob = SWEEPS[name].knob
    print(f"{title}  {knob}")
    for value in SWEEPS[name].values:
        of = [100 * run.accuracy for run in committed_runs(name) if getattr(run.settings, knob) == value]
        print(f"  {value!s:10} mean {mean(of):5.1f}   lowest {min(of):5.1f}   highest {max(of):5.1f}")

# %% [markdown]
# Most of the large differences in this table are far larger than the spread. Among the widths from 8 upwards, the spread
# is as large as the differences: from these runs nobody can say which of them is best.

# %% [markdown]
# ## One knob at a time is not enough
#
# The first experiment says that m = 4 is too narrow. Is it? All widths had the same learning rate, 3e-3, and it may suit
# the wide ones better. So the script has run the narrow widths with 1e-2 as well. What do the two sweeps together say?


# %%
def means(name: str) -> dict[int, float]:
    runs = committed_runs(name)
    return {m: 100 * mean(r.accuracy for r in runs if r.settings.bottleneck_dim == m) for m in SWEEPS[name].values}


low, high = means("width"), means("width, higher rate")
print("   m   at 3e-3   at 1e-2")
for m in high:
    print(f"{m:4}   {low[m]:5.1f} %   {high[m]:5.1f} %")

# %%
show(
    sweep_figure([*committed_runs("width"), *committed_runs("width, higher rate")], "bottleneck_dim"),
    "Validation accuracy against the width m, three seeds each, at learning rates 3e-3 and 1e-2 (the widths up to 16). "
    + " ".join(f"m = {m}: {low[m]:.1f} % and {high[m]:.1f} %." for m in high),
)

# %% [markdown]
# The width that is enough depends on the learning rate: at 1e-2 the narrow adapters catch up. Settings act together. So
# a sweep over one knob answers the question for the other knobs as they stand, and no more. A fair comparison gives each
# candidate its own best learning rate, found on the validation split. That is what lesson 05 did, and there m = 4
# reached what m = 64 reaches.

# %% [markdown]
# ## Experiments of your own
#
# Take two or three of these, or your own. For each write down, before you run it: the question, what you change, what
# stands still, what you predict, and which result would prove you wrong.
#
# 1. **Fair places.** Pfeiffer's placement has half of Houlsby's parameters. Is it as good with twice the width?
# 2. **Which blocks?** Put adapters into one block only: 0, 1 or 2 (the knob *adapted blocks*, or a sweep over it).
#    Which one matters most? Lesson 05 switched trained ones off; is the answer the same when they were never there?
# 3. **No activation.** With *identity* the adapter is a linear map. How much is lost?
# 4. **More steps or more width?** Give m = 2 twice as many steps. Does it catch up with m = 8 in 200?
# 5. **A deeper base.** Repeat the first experiment with four layers. Does the width still matter?
# 6. **Real text.** Take the task `film_reviews` with six layers. Which of your findings hold there? A run takes longer,
#    and differences are smaller: how many seeds do you need?
#
# <details><summary>What came out when we ran 1 to 5 with three seeds</summary>
#
# 1. Yes: 99.7 % with Pfeiffer's place and m = 32, and 99.7 % with Houlsby's and m = 16. The number of parameters is
#    about the same. So the second experiment above compared sizes as much as places.
# 2. The middle one: 71.3 % for block 0, 82.3 % for block 1, 75.7 % for block 2. None of them is enough alone. In lesson
#    05 single layers could be switched off almost without loss. That is another question: there the others stand in.
# 3. Nothing that one could measure: 99.7 % with GELU, 99.9 % with ReLU, 99.7 % without. The frozen layers above have
#    non-linearities of their own. Lesson 09 asks whether a linear adapter could then be merged into the frozen weights.
# 4. Yes: from 76.5 % to 98.8 %. What was short was the time, not the room. The higher learning rate above said the same.
# 5. Far less: with four layers m = 4 reaches 99.5 %, with three it was 81.9 %. Only m = 1 falls behind, with 89.3 %.
#
# Number 6 is yours. On film reviews widths 8 and 64 are within noise of each other (lesson 07), and a difference of one
# point needs many seeds.
# </details>

# %% [markdown]
# ## Without the widget
#
# The laboratory is a view. What it does is in `adapters_lesson.experiments`, so longer series run as a script, overnight
# if need be. The program of the default run:

# %%
print(Settings().snippet())

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("06")

# %% [markdown]
# ## What we saw
#
# 1. A prediction first, then one change at a time, then other seeds: that makes a run an experiment.
# 2. On this task a small width is enough; more width costs parameters and brings nothing measurable.
# 3. With the same m two places in a block do more than one; with as many parameters, one behind the FFN does as well.
# 4. Any start that is near the identity works; from a standard deviation of about 0.3 the model breaks down.
# 5. The learning rate decides most of all, and the width that is enough depends on it.
#
# **Sources.** Houlsby et al. 2019, arXiv 1902.00751, section 3.6: accuracy is robust to the width and to an initial
# standard deviation up to 0.01, and degrades above. He et al. 2021, arXiv 2110.04366: parallel adapters, scaled. Pfeiffer
# et al. 2020, arXiv 2005.00247: one adapter for each block.
#
# **Next.** [07 · A real model](07_a_real_model.ipynb): does it hold on a real pretrained model and real text?
