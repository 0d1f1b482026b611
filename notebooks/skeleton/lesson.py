# %% [markdown]
# # NN · TITLE
#
# **The question.** QUESTION
#
# **You will be able to** say what this lesson is about.
#
# **Before you start.** Lessons 01 to 03.
#
# **Time.** 10 minutes.

# %%
from adapters_lesson import Adapter
from adapters_lesson.course import mine
from adapters_lesson.course.checks import lessonNN as checks
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.quiz import quiz, review

# %% [markdown]
# First, five questions from earlier lessons: what was missed comes again.

# %%
review("NN")

# %% [markdown]
# ## A first idea
#
# A question stands before each result: how many parameters has an adapter of *d* = 384 and *m* = 64?

# %%
prediction("N.a", "How many parameters does it have?", factor=1.2)

# %%
print(f"{Adapter.count(384, 64):,} parameters")
compare("N.a", Adapter.count(384, 64))

# %% [markdown]
# And a sentence after it says what there is to see.

# %% [markdown]
# ## Your turn
#
# ### Exercise N.1 · The trained share
#
# **Write** how many per cent of all parameters are trained, from the number of the `trained` ones and of the `frozen`
# ones. **Difficulty** ◆◇◇ · **3 minutes**
#
# **Done** when 1 trained parameter beside 3 frozen ones gives 25.
#
# <details><summary>Hint 1</summary>
#
# All parameters are the trained and the frozen ones together.
# </details>
# <details><summary>Hint 2</summary>
#
# Per cent means: of a hundred.
# </details>
# <details><summary>I see "this is relative to the frozen parameters"</summary>
#
# The trained parameters belong to the whole as well.
# </details>
# <details><summary>I see "this is a share of one"</summary>
#
# A quarter is 25 per cent.
# </details>


# %%
def per_cent_trained(trained: int, frozen: int) -> float:
    ### BEGIN SOLUTION
    return 100 * trained / (trained + frozen)
    ### END SOLUTION


# %%
checks.check_share(per_cent_trained)
### BEGIN HIDDEN TESTS
assert per_cent_trained(1, 4) == 20, "1 trained parameter beside 4 frozen ones are 20 per cent."
assert per_cent_trained(7, 0) == 100, "without frozen parameters all are trained."
### END HIDDEN TESTS

# %% [markdown]
# What the learner writes goes to work, in a job: with an adapter of m = 64, and with one of m = 8.

# %%
prediction("N.b", "Which share is larger?", ["that of m = 8", "that of m = 64"])

# %%
prediction("N.c", "An adapter of m = 64 beside a layer of 384 × 384: how many per cent of both?", within=5, unit=" %")


# %%
def shares(my):
    found = {m: my.per_cent_trained(Adapter.count(384, m), 384 * 384 + 384) for m in (8, 64)}
    print(", ".join(f"m = {m}: {share:.1f} %" for m, share in found.items()))
    return found


found = mine.run(shares, "N.1")
compare("N.b", "that of m = 8" if found[8] > found[64] else "that of m = 64")
compare("N.c", found[64])

# %% [markdown]
# ## Check yourself
#
# Four questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("NN")

# %% [markdown]
# ## What we saw
#
# 1. The first thing to keep.
# 2. The second.
# 3. The third.
# 4. The fourth.
# 5. The fifth.
#
# **Sources.** Houlsby et al. 2019.
#
# **Next.** What comes after this.
