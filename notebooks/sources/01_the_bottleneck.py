# %% [markdown]
# # 01 · The bottleneck
#
# **The question.** What is an adapter?
#
# **You will be able to** write the module's forward pass, say how many parameters it has, choose its initialisation,
# and explain why each of its parts is there.
#
# **Before you start.** You know what a linear layer and an activation function are, and have seen a class derived from
# `nn.Module`. Transformers are not needed yet.
#
# **Time.** 35 minutes.

# %%
import torch
from torch import nn

from adapters_lesson import Adapter
from adapters_lesson.course import mine
from adapters_lesson.course.checks import lesson01 as checks
from adapters_lesson.course.explorers import anatomy_explorer
from adapters_lesson.course.figures import adapter_diagram, distance_from_identity, show, update_spectrum
from adapters_lesson.course.playground import Playground
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.quiz import quiz, review
from adapters_lesson.history import load_results

_ = torch.manual_seed(0)

# %% [markdown]
# First, four questions from lesson 00: what was missed comes again.

# %%
review("01")

# %% [markdown]
# ## The problem that it solves
#
# A transformer turns every token into a vector of width *d*, the **hidden state**, and passes it through many layers.
# After pretraining, these layers know a lot about language. We want to teach the model a task, and we want to change
# as little as possible: change all weights, and every task needs a full copy of the model.
#
# So we freeze the model and put in small modules of our own. Such a module receives a hidden state *h* and hands on a
# slightly different one. Three wishes shape it:
#
# 1. **Small.** A full layer from *d* to *d* has d² weights. That is too much to store for every task.
# 2. **Harmless at the start.** Put into a model that works, it must not break it.
# 3. **Expressive.** It must be able to learn something that the frozen layers do not do.

# %% [markdown]
# ## The answer
#
# Neil Houlsby and colleagues proposed the **bottleneck adapter** in 2019:
#
# $$A(h) \;=\; h \;+\; \mathrm{up}\big(f(\mathrm{down}(h))\big)$$
#
# `down_project` is a linear layer from *d* to a much smaller *m*.
# <!-- rule -->
# The activation *f* is a non-linearity: here GELU, a smooth ReLU, which lets large positive numbers pass and brings
# large negative ones to zero.
# <!-- rule -->
# `up_project` is a linear layer back from *m* to *d*. Then the input is added: the residual connection. We call *d*
# `model_dim` and *m* `bottleneck_dim`.
#
# How do the parts compare in size? The figure is drawn from a live module with *d* = 384 and *m* = 64. Its numbers are
# parameters: a linear layer has a weight and a **bias**, a number that it adds to each of its outputs.

# %%
show(
    adapter_diagram(Adapter(model_dim=384, bottleneck_dim=64)),
    "An adapter with 384 inputs: down_project (384 × 64, 24,640 parameters) narrows h to 64 numbers, GELU, up_project "
    "(64 × 384, 24,960 parameters) widens them again to the update, which is added to h that came past the bottleneck.",
)

# %% [markdown]
# Follow the two ways from left to right. One carries *h* past the bottleneck, unchanged. The other leads through it, and
# what comes out, the **update**, is added. Each wish has its part: the bottleneck makes the module small, the residual
# connection makes it possible to start harmless, and the activation makes it more than a linear map.
# <!-- rule -->

# %% [markdown]
# ## Your turn
#
# ### Exercise 1.1 · The forward pass
#
# **Write** the body of `forward`. The three parts are there already. **Difficulty** ◆◇◇ · **5 minutes**
#
# **Done** when the check says ✔: the output has the shape of the input, and equals *h* plus the update.
#
# <details><summary>Hint 1</summary>
#
# The formula stands above. Read it from the inside out.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with `self.down_project(h)`.
# </details>
# <details><summary>I see "the residual is missing"</summary>
#
# Your function returns the update. The adapter returns the input plus the update.
# </details>
# <details><summary>I see "its argument h was changed in place"</summary>
#
# `h += …` writes into the tensor that the caller still needs. `h + …` makes a new one.
# </details>


# %%
class MyAdapter(nn.Module):
    def __init__(self, model_dim: int, bottleneck_dim: int):
        super().__init__()
        self.down_project = nn.Linear(model_dim, bottleneck_dim)
        self.activation = nn.GELU()
        self.up_project = nn.Linear(bottleneck_dim, model_dim)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        ### BEGIN SOLUTION
        return h + self.up_project(self.activation(self.down_project(h)))
        ### END SOLUTION


# %%
checks.check_forward(MyAdapter)
### BEGIN HIDDEN TESTS
_adapter, _h = MyAdapter(6, 2), torch.linspace(-3, 3, 12).view(1, 2, 6)
_expected = _h + _adapter.up_project(nn.functional.gelu(_adapter.down_project(_h)))
assert torch.allclose(_adapter(_h), _expected, atol=1e-6), "the output is not h plus the update."
assert torch.equal(_h, torch.linspace(-3, 3, 12).view(1, 2, 6)), "the input was changed."
_adapter(_h.requires_grad_()).sum().backward()
assert _h.grad is not None and _adapter.down_project.weight.grad is not None, "no gradient gets through."
### END HIDDEN TESTS

# %% [markdown]
# ## Why the residual connection?
#
# Without it, all that is handed on of *h* would have to fit through *m* numbers. How much is lost then? We take 1,000
# random vectors of width 384 and ask how well a bottleneck *could* reconstruct them, if it were linear and perfect. The
# best that a linear bottleneck can do is to keep the *m* strongest directions, which the singular value decomposition
# gives.
# <!-- rule -->
#
# What do you expect? Commit a guess before you run the cell below it: the course keeps it, and compares.

# %%
prediction("1a", "How much of the variance gets through m = 64 of 384 numbers, at most?", within=10, unit=" %")

# %%
hidden = torch.randn(1000, 384)
strength = torch.linalg.svdvals(hidden).square()
share = {m: 100 * (strength[:m].sum() / strength.sum()).item() for m in (8, 64, 384)}
for m, kept in share.items():
    print(f"m = {m:3}: at most {kept:5.1f} % of the vectors' variance gets through the bottleneck")
compare("1a", share[64])

# %% [markdown]
# Of such vectors a linear bottleneck alone would throw away more than half.
# <!-- claim: out(r"m = +64: at most +([\d.]+) %") < 50 -->
# The residual connection carries all of *h* past, and the bottleneck has only to say what should *change*.
#
# In a transformer there is a second residual connection, which lesson 02 shows: it carries past a
# **sub-layer**, half of a block, what goes *into* it. What the sub-layer *puts out* is the adapter's *h*: only the
# adapter's own residual connection hands it on whole.
# <!-- rule -->

# %% [markdown]
# ## How should it start?
#
# The second wish: harmless at the start. A freshly made `nn.Linear` is random, so a fresh adapter would push every
# hidden state in a random direction, in every block. How far? We measure the length of the update relative to the
# length of *h*, for weights drawn with standard deviations from 0.0001 to 1.

# %%
stds = [10 ** (k / 2) for k in range(-8, 1)]
probe = torch.randn(200, 384)


def relative_update(bottleneck_dim: int, std: float) -> float:
    adapter = Adapter(384, bottleneck_dim, init="houlsby", init_std=std)
    with torch.no_grad():
        return (adapter.update(probe).norm(dim=-1) / probe.norm(dim=-1)).mean().item()


distances = {f"m = {m}": [relative_update(m, std) for std in stds] for m in (8, 64)}
show(
    distance_from_identity(stds, distances),
    "Length of a new adapter's update relative to h against the standard deviation of its weights, both axes "
    f"logarithmic. For m = 64 it is {100 * distances['m = 64'][4]:.1f} % at 0.01 and "
    f"{100 * distances['m = 64'][8]:,.0f} % at 1.",
)

# %%
for std, distance in zip(stds[4::2], distances["m = 64"][4::2]):
    print(f"std = {std:4.2f}: the update is {100 * distance:9.3f} % as long as h (m = 64)")

# %% [markdown]
# The update is made by two weights, and both grow with the standard deviation. So where that is ten times as large, the
# update is about a hundred times as long.
# <!-- claim: 80 < out(r"std = 0.10: .* ([\d.]+) %") / out(r"std = 0.01: .* ([\d.]+) %") < 150 -->
# <!-- claim: 80 < out(r"std = 1.00: .* ([\d.]+) %") / out(r"std = 0.10: .* ([\d.]+) %") < 150 -->
# At 0.01, the value of the paper, it is below one per cent of *h*: almost the identity. At 1 it drowns *h*.
# <!-- claim: out(r"std = 0.01: .* ([\d.]+) %") < 1 and out(r"std = 1.00: .* ([\d.]+) %") > 1000 -->
# Houlsby et al. tried it in training: standard deviations up to 0.01 do well, larger ones degrade the result.
# <!-- source: Houlsby et al. 2019, section 3.6, not checked -->
#
# One can go all the way: set `up_project` to **zero**. Then the update is exactly zero, whatever `down_project` says,
# and the model with adapters is the model without them, bit for bit. That is this course's default.

# %%
adapter = Adapter(model_dim=384, bottleneck_dim=64)  # activation=nn.GELU() by default; up_project starts at zero
print("exactly the identity:", torch.equal(adapter(probe), probe))

# %% [markdown]
# But can it learn, with half of its weights at zero? Look at the gradients of a loss.

# %%
prediction(
    "1b",
    "Which weights get a gradient in the first step?",
    ["both", "only down_project's", "only up_project's", "none"],
)

# %%
adapter(probe).square().mean().backward()
for name, parameter in adapter.named_parameters():
    print(f"{name:20} gradient is {'zero' if not parameter.grad.any() else 'not zero'}")
down, up = (bool(layer.weight.grad.any()) for layer in (adapter.down_project, adapter.up_project))
compare("1b", "both" if down and up else "only up_project's" if up else "only down_project's" if down else "none")

# %% [markdown]
# In the first step only `up_project` gets a gradient; `down_project` gets none, because what it sends is multiplied
# by zero.
# <!-- claim: said(r"down_project.weight +gradient is zero") and said(r"up_project.weight +gradient is not zero") -->
# After that step `up_project` is no longer zero, and both learn.
#
# There is a second way: `down_project` at zero, weight and bias, and `up_project`'s bias. GELU(0) is 0, so the update is
# zero as well, and this time `down_project` moves first. If *both* were zero, neither weight would ever move.
# <!-- rule -->

# %% [markdown]
# ### Exercise 1.2 · Start as the identity
#
# **Write** a function that changes a given adapter, in place, so that it is exactly the identity and can still learn.
# **Difficulty** ◆◇◇ · **4 minutes**
#
# **Done** when `adapter(h)` equals *h* exactly, and in training both projections begin to move.
#
# <details><summary>Hint 1</summary>
#
# A linear layer has a weight *and* a bias.
# </details>
# <details><summary>Hint 2</summary>
#
# `nn.init.zeros_(tensor)` fills a tensor with zeros, in place.
# </details>
# <details><summary>I see "the adapter is as it was"</summary>
#
# `weight = torch.zeros(…)` makes a new tensor and gives it a local name. The adapter does not notice.
# </details>
# <details><summary>I see "both projections are zero"</summary>
#
# Then each waits for the other. Leave `down_project` random.
# </details>


# %%
def start_as_identity(adapter: Adapter) -> None:
    ### BEGIN SOLUTION
    nn.init.zeros_(adapter.up_project.weight)
    nn.init.zeros_(adapter.up_project.bias)
    ### END SOLUTION


# %%
checks.check_start(start_as_identity)
### BEGIN HIDDEN TESTS
_adapter, _h = Adapter(6, 3, init="bert", init_std=2.0), torch.randn(5, 6)
_ = nn.init.ones_(_adapter.down_project.bias), nn.init.ones_(_adapter.up_project.bias)
start_as_identity(_adapter)
assert torch.equal(_adapter(_h), _h), "the adapter is not the identity."
_old = _adapter.down_project.weight.detach().clone(), _adapter.up_project.weight.detach().clone()
_optimizer = torch.optim.SGD(_adapter.parameters(), lr=0.01)
for _step in range(3):
    _optimizer.zero_grad()
    (_adapter(_h) - 1).square().sum().backward()
    _optimizer.step()
assert not torch.equal(_adapter.up_project.weight, _old[1]), "up_project cannot learn."
assert not torch.equal(_adapter.down_project.weight, _old[0]), "down_project cannot learn."
### END HIDDEN TESTS

# %% [markdown]
# ## Your module goes to work
#
# A correct answer is not put away. Its code goes into a file of your own, `mine/adapters.py` beside this notebook, and
# from there on the lessons run on it. A line says whose code it was; for what you have left out, the course's takes over.
#
# The first job: your module (1.1), started your way (1.2) and once with `down_project` at zero, is to learn. We ask it
# to push every vector of `probe` towards a target that bends with the vector, as a nonlinear task would.


# %%
def down_at_zero(adapter: nn.Module) -> None:
    for parameter in (*adapter.down_project.parameters(), adapter.up_project.bias):
        nn.init.zeros_(parameter)


def learn(my):
    for label, start in (("started your way", my.start_as_identity), ("down_project at zero", down_at_zero)):
        torch.manual_seed(1)
        target = probe + torch.tanh(probe @ torch.randn(384, 8) / 384**0.5) @ torch.randn(8, 384)
        adapter = my.Adapter(384, 16)
        start(adapter)
        print(f"{label}: exactly the identity: {torch.equal(adapter(probe), probe)}")
        optimizer = torch.optim.Adam(adapter.parameters(), lr=3e-3)
        for step in range(301):
            error = (adapter(probe) - target).square().mean()
            if step % 100 == 0:
                print(f"    after {step:3} steps the mean squared error is {error:.3f}")
            optimizer.zero_grad()
            error.backward()
            optimizer.step()


mine.run(learn, "1.1", "1.2")

# %% [markdown]
# Both start as the identity, and both learn all the same, with 16 numbers between *down* and *up*.
# <!-- claim: said(r"started your way: exactly the identity: True(?s:.*)at zero: exactly the identity: True") -->
# <!-- claim: out(r"your way.*(?s:.*?)after 300 .* is ([\d.]+)") < 0.05 * out(r"after +0 steps .* is ([\d.]+)") -->
# <!-- claim: out(r"at zero.*(?s:.*?)after 300 .* is ([\d.]+)") < 0.05 * out(r"after +0 steps .* is ([\d.]+)") -->

# %% [markdown]
# ## Two parts, broken on purpose
#
# The playground's base knows the moons, nearly all of them.
# <!-- claim: low(seeds("playground", "moons, m = 1", key="start")) > 99 -->
# What is left of that without the residual connection, and with a start that is far from zero? Commit first.

# %%
prediction("1e", "Residual off, m = 1: how many moons are right after 300 steps?", within=4, unit=" %")

# %%
prediction("1f", "Residual on, m = 4, start at std 1: how many are right before the first step?", within=12, unit=" %")

# %%
Playground("m1-gelu-zero-lr0.03-res1-moons-s0")

# %% [markdown]
# Turn the knobs to both settings and press *Play*. With five seeds, `python data/make_playground.py` has run the same:

# %%
played = load_results("playground")["rows"]
right = {
    (name, when): sum(100 * run[when] for run in row["runs"]) / len(row["runs"])
    for name, row in played.items()
    for when in ("start", "test")
}
for name in played:
    print(f"{name:25} {right[name, 'start']:5.1f} % at the start, {right[name, 'test']:5.1f} % after 300 steps")
compare("1e", right["moons, m = 1, no residual", "test"])
compare("1f", right["moons, m = 4, from std 1", "start"])

# %% [markdown]
# Without the residual connection the frozen layers see one number of a point, and a tenth of the answers is lost.
# <!-- claim: better(seeds("playground", "moons, m = 1"), seeds("playground", "moons, m = 1, no residual"), 5) -->
# <!-- claim: 9 < average(seeds("playground", "moons, m = 1")) - average(seeds("playground", "moons, m = 1, no residual")) < 12 -->
# A start at std 1 costs four of ten answers at first. <!-- claim: 37 < 100 - average(seeds("playground", "moons, m = 4, from std 1", key="start")) < 43 -->
# In this small network training wins them back, at a margin of one point.
# <!-- claim: as_good(seeds("playground", "moons, m = 4, from std 1"), seeds("playground", "moons, m = 4"), 1) -->

# %% [markdown]
# ## How many parameters?
#
# The first wish: small. The two weight matrices have *d · m* entries each. `down_project` has a bias of *m* entries and
# `up_project` one of *d*.
#
# ### Exercise 1.3 · Count the parameters
#
# **Write** the number of parameters of one adapter as a formula. **Difficulty** ◆◇◇ · **3 minutes**
#
# **Done** when it gives 49,600 for *d* = 384 and *m* = 64, the sum of the two numbers in the figure above.
#
# <details><summary>Hint 1</summary>
#
# Four tensors: two weights, two biases. Count the entries of each.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with `down_project`, a layer from *d* to *m*: its weight has d · m entries. And its bias?
# </details>
# <details><summary>I see "the biases are missing"</summary>
#
# 2 · d · m counts the weights. Each layer has as many biases as it has outputs.
# </details>
# <details><summary>I see "up_project's bias has d entries, not m"</summary>
#
# A bias is added to a layer's output, so it is as wide as the output.
# </details>


# %%
def count_parameters(model_dim: int, bottleneck_dim: int) -> int:
    ### BEGIN SOLUTION
    return 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim
    ### END SOLUTION


# %%
checks.check_count(count_parameters)
### BEGIN HIDDEN TESTS
assert count_parameters(128, 7) == 1927, "d = 128 and m = 7 give 1,927 parameters."
assert count_parameters(1, 1) == 4, "d = 1 and m = 1 give two weights and two biases."
### END HIDDEN TESTS

# %% [markdown]
# Predicted by your formula, then measured on your module:


# %%
def count(my):
    print("  d    m   formula  measured   share of a full d × d layer")
    for d, m in ((384, 8), (384, 64), (768, 64), (1024, 256)):
        measured = sum(p.numel() for p in my.Adapter(d, m).parameters())
        print(f"{d:4} {m:4}  {my.count_parameters(d, m):8,}  {measured:8,}   {100 * measured / (d * d + d):6.1f} %")


mine.run(count, "1.1", "1.3")

# %% [markdown]
# Each unit of width costs 2·d + 1 parameters: *m* is the knob that sets the price. The formula also tells when a
# bottleneck stops being one. From *m* = d/2 on, the two thin matrices have at least as many weights as one full layer.
# <!-- rule --> (Nothing forbids it: for a large budget the formula gives an *m* above *d*.)

# %% [markdown]
# ### Exercise 1.4 · The widest bottleneck
#
# **Write** a function that returns the largest *m* for which a number of equal adapters together stay within a budget
# of parameters; 0 if not even *m* = 1 fits. **Difficulty** ◆◆◇ · **8 minutes**
#
# **Done** when 12 adapters of *d* = 384 on a budget of 500,000 get *m* = 53.
#
# <details><summary>Hint 1</summary>
#
# The formula of 1.3, solved for m.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with what one adapter may have: `budget // adapters`.
# </details>
# <details><summary>I see "the whole budget goes to one adapter"</summary>
#
# Divide the budget by the number of adapters first.
# </details>
# <details><summary>I see "the answer is 0"</summary>
#
# For a tiny budget the formula gives a negative number. `max(0, …)` mends it.
# </details>


# %%
def widest_bottleneck(model_dim: int, adapters: int, budget: int) -> int:
    ### BEGIN SOLUTION
    for_one = budget // adapters
    return max(0, (for_one - model_dim) // (2 * model_dim + 1))
    ### END SOLUTION


# %%
checks.check_widest(widest_bottleneck)
### BEGIN HIDDEN TESTS
assert widest_bottleneck(128, 4, 20_000) == 18, "4 adapters of d = 128 on a budget of 20,000 get m = 18."
assert widest_bottleneck(5, 2, 76) == 3, "2 adapters of d = 5 and m = 3 have exactly 76 parameters."
assert widest_bottleneck(5, 2, 75) == 2, "75 parameters are one too few for m = 3."
assert widest_bottleneck(64, 6, 100) == 0, "a budget that is too small gives 0."
### END HIDDEN TESTS

# %% [markdown]
# How wide may adapters be, then? Two in each block, for one per cent of the model:


# %%
def one_per_cent(my):
    print("model         parameters    d  adapters  widest m  trained")
    for name, size, d, blocks in (
        ("MiniLM", 22_713_216, 384, 6),
        ("BERT-base", 109_482_240, 768, 12),
        ("BERT-large", 335_141_888, 1024, 24),
    ):
        m = my.widest_bottleneck(d, 2 * blocks, size // 100)
        trained = 2 * blocks * my.count_parameters(d, m)
        print(f"{name:11} {size:12,} {d:4} {2 * blocks:9} {m:9}  {100 * trained / size:6.3f} %")


mine.run(one_per_cent, "1.3", "1.4")

# %% [markdown]
# ## What can a bottleneck express?
#
# The third wish. The update ends with a matrix from *m* to *d*, so all updates lie in a space of *m* directions (its
# bias moves them all by the same vector). We can look at that: at one hidden state, the update's derivative (its
# Jacobian, a *d* × *d* matrix) tells how the update answers to small changes. Its singular values say in how many
# directions. So that the update is not zero, we draw both weights at random (`init="bert"`).

# %%
prediction("1c", "In how many of its 48 directions can an update of width 8 push?", within=0.5)

# %%
small = Adapter(48, 8, init="bert", init_std=0.1)
at = torch.randn(48)
rank = torch.linalg.matrix_rank(torch.autograd.functional.jacobian(small.update, at)).item()
print("rank of the Jacobian:", rank)
compare("1c", rank)
show(
    update_spectrum(small, at),
    "Singular values of the update of an adapter with d = 48 and m = 8: eight bars, then nothing.",
)

# %% [markdown]
# Exactly eight directions, as many as the bottleneck is wide, and forty in which the update cannot push at all.
# <!-- claim: out(r"rank of the Jacobian: (\d+)") == 8 -->
# Are so few enough to adapt a pretrained model? That has to be measured: lesson 06 does it.
#
# And the activation? Without it, `up_project` after `down_project` would be one matrix of rank *m*. With it, the
# adapter can answer differently in different places. A linear map doubles its output when its input is doubled; let us
# see how far the adapter is from that.

# %%
h = torch.randn(1000, 48)
linear = Adapter(48, 8, nn.Identity(), init="bert", init_std=0.1)
with torch.no_grad():
    for name, a in (("with GELU", small), ("without activation", linear)):
        departure = (a.update(2 * h) - 2 * a.update(h)).norm() / a.update(2 * h).norm()
        print(f"{name:20} update(2h) differs from 2·update(h) by {100 * departure:5.1f} %")

# %% [markdown]
# Without the activation the difference is zero: linear.
# <!-- claim: out(r"without activation.* ([\d.]+) %") < 0.1 -->
# That has a consequence, to which lesson 09 returns: a linear bottleneck could be multiplied into the layer before it
# and would then cost nothing. An adapter with an activation cannot.
# <!-- rule -->

# %% [markdown]
# ## Turn the knobs
#
# Price, reach, start: how do the three wishes depend on the choices? The upper half of the figure is the module itself.
# Below it, from left to right: what it costs beside a transformer block of its width; the singular values of its
# update at one random hidden state, on a logarithmic axis, in grey the directions in which it cannot push (values below
# a millionth of the largest count as none); and how far a new adapter moves real hidden states, those of 91 tokens after
# MiniLM's first block. These are 384 wide, so that this panel does not follow `model_dim`.

# %%
anatomy_explorer()

# %% [markdown]
# Guess first, then turn, and only then open the answers:
#
# 1. Halve `bottleneck_dim`, again and again. What becomes of the price, and of the directions?
# 2. Leave *m* at 64, where the two adapters have 5.6 % of a block's parameters, and widen the model from 384 to 4096.
#    <!-- claim: said(r"two of them 5\.6 % of a block") -->
# 3. Set the activation to `relu`. How many directions are left?
# 4. Move `init_std` from 0.01 to 1. Then set `init` to `zero`. How far does a new adapter push?

# %%
prediction("1d", "At d = 4096, what share of a block do its two adapters of m = 64 have?", factor=1.5, unit=" %")

# %%
block = 12 * 4096**2 + 13 * 4096
compare("1d", 100 * 2 * Adapter.count(4096, 64) / block)

# %% [markdown]
# <details><summary><b>What one sees</b></summary>
#
# 1. The directions halve, and the price nearly does: `up_project`'s bias stays as wide as *d*.
#    <!-- claim: said("m = 64 and GELU: 49,600.* in 64 of") and anatomy(bottleneck_dim=32).said(": 24,992 .* in 32 of") -->
# 2. The adapter grows with *d*, the block with *d*². So in a wider model the same *m* is a smaller share of a block.
#    <!-- rule -->
# 3. Of 64 there are 27 left: where a unit of the bottleneck is negative, ReLU is flat, and a small change of *h* changes
#    nothing there. At another hidden state other units are flat, about half of them.
#    <!-- claim: anatomy(activation="relu").said("in 27 of 384") --> <!-- rule -->
# 4. The update of *m* = 64 grows from 0.60 % of *h* to 84 times *h*. At 1 only 37 directions are left: what reaches GELU
#    is now so large that it is flat where it is negative, like ReLU. With `zero` the update is exactly 0, and for now
#    there is no direction at all: the first training step opens them.
#    <!-- claim: said(r"is 0\.60 % of \|h\|") and anatomy(init_std=1.0).said(r"in 37 of 384.*is 8,400 % of \|h\|") -->
#    <!-- claim: anatomy(init="zero").said("in 0 of 384.* exactly 0") --> <!-- rule -->
# </details>

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("01")

# %% [markdown]
# ## What we saw
#
# 1. An adapter is A(h) = h + up(f(down(h))): down to a narrow bottleneck, a non-linearity, up again, plus the input.
# 2. It has 2·d·m + m + d parameters: each unit of its width *m* costs 2·d + 1.
#    <!-- rule -->
# 3. The residual connection carries *h* past the bottleneck, so only the change has to fit through.
# 4. With `up_project` at zero a new adapter is exactly the identity, and still learns.
#    <!-- claim: said("exactly the identity: True") -->
#    <!-- claim: out(r"after 300 .* is ([\d.]+)") < 0.05 * out(r"after +0 steps .* is ([\d.]+)") -->
# 5. Its update has at most *m* directions, and the activation makes it more than a linear map.
#    <!-- rule -->
#
# **Sources.** Houlsby et al. 2019, arXiv 1902.00751: the module in section 2.1, the initialisation in 3.6 (the paper
# says a standard deviation of 0.01, the released code uses 0.001; not checked again).
#
# **Next.** [02 · A small transformer](02_a_small_transformer.ipynb): what do we put it into?
