# %% [markdown]
# # 04 · Counting the cost
#
# **The question.** How much do we save, and where do we not?
#
# **You will be able to** predict the parameters, the bytes and the activations of a training step with pen and paper,
# measure each of them on a real step, and say which method fits on which GPU.
#
# **Before you start.** Lessons 01 and 03.
#
# **Time.** 35 minutes.

# %%
import torch
from torch import nn

from adapters_lesson import Adapter, AdapterConfig, Classifier, SmallTransformer, SmallTransformerConfig, prepare
from adapters_lesson.costs import count_parameters, measure_memory, memory_ledger, outline
from adapters_lesson.course import mine
from adapters_lesson.course.checks import lesson04 as checks
from adapters_lesson.course.explorers import cost_explorer
from adapters_lesson.course.figures import memory_against_length, parameter_bars, show
from adapters_lesson.course.predictions import compare, prediction
from adapters_lesson.course.quiz import quiz, review
from adapters_lesson.memory_tricks import checkpointed

torch.manual_seed(0)
METHODS = {
    "full fine-tuning": ("full", None),
    "Houlsby, m = 16": ("adapter", AdapterConfig(16)),
    "Pfeiffer, m = 16": ("adapter", AdapterConfig(16, placement="pfeiffer")),
    "LoRA, r = 8": ("lora", None),
    "head only": ("head", None),
}


def new_model(method: str, config: AdapterConfig | None = None, layers: int = 6) -> Classifier:
    """MiniLM, or its lower layers, with a head, prepared for a method."""
    model = Classifier(SmallTransformer.from_minilm(layers), num_labels=2)
    prepare(model, method, config)
    return model


# %% [markdown]
# First, five questions from earlier lessons: what was missed comes again.

# %%
review("04")

# %% [markdown]
# ## Parameters
#
# One adapter has 2·d·m + m + d parameters: that was lesson 01. A whole model has as many adapters as the placement has
# places. So its count can be written down before there is any model.
#
# ### Exercise 4.1 · A Houlsby BERT
#
# **Write** the number of adapter parameters of a whole model in Houlsby's scheme, from its width d, the bottleneck's
# width m, and its number of blocks. **Difficulty** ◆◇◇ · **3 minutes**
#
# **Done** when BERT-base (d = 768, 12 blocks) with m = 64 has 2,379,264.
#
# <details><summary>Hint 1</summary>
#
# How many adapters does this scheme put into one block? Lesson 03 shows where they stand.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with a single adapter, as in exercise 1.3: two weight matrices, and two biases of different length.
# </details>
# <details><summary>I see "this is one adapter in each block"</summary>
#
# Houlsby et al. put one behind the attention and another behind the FFN. With one only, it would be Pfeiffer's count.
# </details>
# <details><summary>I see "the biases are missing"</summary>
#
# They are few, but a count that is to be compared with another library's has to be exact.
# </details>


# %%
def houlsby_parameters(model_dim: int, bottleneck_dim: int, blocks: int) -> int:
    ### BEGIN SOLUTION
    one_adapter = 2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim
    return 2 * blocks * one_adapter
    ### END SOLUTION


# %%
checks.check_houlsby_count(houlsby_parameters)
### BEGIN HIDDEN TESTS
assert houlsby_parameters(100, 10, 3) == 12_660, "d = 100, m = 10 and 3 blocks give 12,660 parameters."
assert houlsby_parameters(64, 1, 1) == 386, "d = 64, m = 1 and one block give 386 parameters."
### END HIDDEN TESTS

# %% [markdown]
# Now count. `count_parameters` goes through a model's tensors and sorts them: by layer, and by what they belong to.
# Where in MiniLM are the parameters, and where are the trained ones? Below the count stands what your formulas say of
# it: one adapter (1.3), a block (2.2), all adapters (4.1).

# %%
minilm = new_model("adapter", AdapterConfig(16))
count = count_parameters(minilm)
print(count, "\n")


def by_formula(my):
    block = my.block_parameters(384, 1536) + 2 * my.count_parameters(384, 16)
    print(f"by formula: block {block:,.0f}, adapters {my.houlsby_parameters(384, 16, 6):,.0f}")


mine.run(by_formula, "1.3", "2.2", "4.1")

# %%
show(
    parameter_bars(count),
    f"Bars of MiniLM's parameters by layer. The embeddings have {count.by_layer['embeddings'].total:,}, all frozen; each "
    f"of the six blocks {count.by_layer['block 0'].total:,}, of which {count.by_layer['block 0'].trainable:,} are trained, "
    "a sliver that is hardly visible.",
)

# %% [markdown]
# Half of this model is its dictionary: the embeddings. What is trained is the thin coloured end of each block's bar.
#
# For models that would not fit into this computer we use an **outline**: PyTorch can build a model on its `meta` device,
# where a tensor has a shape and no numbers. Counts of an outline are exact, and it takes no memory and no download.
#
# What share of big models do adapters of width 64 train? Llama-3-70B has 80 blocks of width 8,192, and 70.6 billion
# parameters. One adapter of it has this many:

# %%
print(f"{Adapter.count(8192, 64):,}")

# %%
prediction("4a", "What share of Llama-3-70B's parameters do Houlsby's adapters have?", factor=1.5, unit=" %")


# %%
def share_trained(my) -> float:
    print(f"{'':14}{'parameters':>18}{'Houlsby, m = 64':>18}{'counted':>16}{'share':>10}")
    for name in ("bert-base", "bert-large", "gpt2-xl", "llama-3-8b", "llama-3-70b"):
        model = outline(name)
        total, sizes = count_parameters(model).total, model.config
        formula = my.houlsby_parameters(sizes.hidden_size, 64, sizes.num_hidden_layers)
        prepare(model, "adapter", AdapterConfig(64), head=False)
        share = 100 * count_parameters(model).trainable / total
        print(f"{name:14}{total:>18,}{formula:>18,.0f}{count_parameters(model).trainable:>16,}{share:>8.3f} %")
    return share


compare("4a", mine.run(share_trained, "4.1"))

# %% [markdown]
# The share falls as models grow: a block of the base has some 12·d² parameters, an adapter 2·d·m. Doubling the width
# doubles the adapters and quadruples the blocks. (Pfeiffer's, one in each block, are half as many.)
# <!-- claim: out(r"bert-base .* ([\d.]+) %") > out(r"bert-large .* ([\d.]+) %") > out(r"gpt2-xl .* ([\d.]+) %") -->
# <!-- claim: out(r"gpt2-xl .* ([\d.]+) %") > out(r"llama-3-8b .* ([\d.]+) %") > out(r"llama-3-70b .* ([\d.]+) %") -->

# %% [markdown]
# ## What stands still: weights, gradients, Adam's state
#
# A training step holds, in single precision, four bytes for each of these:
#
# - every **weight**, trained or not: the forward pass needs it;
# - a **gradient** for each trained weight;
# - **Adam's state**: two numbers for each trained weight, the running means of its gradient and of the gradient's square.
#
# ### Exercise 4.2 · Bytes that stand still
#
# **Write** the bytes of these three together. `total` is the number of all parameters, `trained` that of the trained
# ones, `itemsize` the bytes of a number. **Difficulty** ◆◇◇ · **3 minutes**
#
# **Done** when frozen parameters cost their weight only.
#
# <details><summary>Hint 1</summary>
#
# Which of the three entries of the list does a frozen weight have, and which a trained one?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the weights, in numbers: that entry does not ask what is trained. The bytes of a number come last.
# </details>
# <details><summary>I see "Adam keeps two numbers …"</summary>
#
# SGD keeps none, SGD with momentum one, Adam two.
# </details>
# <details><summary>I see "the frozen ones have neither"</summary>
#
# This is where adapters save: a frozen parameter gets no gradient, and the optimiser does not know it.
# </details>


# %%
def standing_bytes(total: int, trained: int, itemsize: int) -> int:
    ### BEGIN SOLUTION
    weights = total
    gradients = trained
    adam = 2 * trained
    return itemsize * (weights + gradients + adam)
    ### END SOLUTION


# %%
checks.check_standing_bytes(standing_bytes)
### BEGIN HIDDEN TESTS
assert standing_bytes(1000, 100, 4) == 5200, "1,000 parameters, 100 of them trained, take 5,200 bytes."
assert standing_bytes(1000, 0, 2) == 2000, "frozen parameters take their own bytes."
assert standing_bytes(10, 10, 8) == 320, "trained parameters take four numbers each."
### END HIDDEN TESTS

# %% [markdown]
# Beside adapters there stands **LoRA** (Hu et al. 2021), here and from now on: it adds a product of two thin trained
# matrices to some of the frozen ones, in MiniLM to those of query and value. Their narrow side is the rank r. Predicted
# by your formula (4.2), and measured on a real step of MiniLM, tensor by tensor: are they the same, byte for byte?


# %%
def standing(my):
    print(f"{'':18}{'predicted':>14}{'measured':>14}{'difference':>12}")
    for label, (method, config) in METHODS.items():
        model = new_model(method, config)
        count = count_parameters(model)
        measured = measure_memory(model, batch_size=2, sequence_length=16)
        predicted = my.standing_bytes(count.total, count.trainable, 4)
        stands = measured.weights + measured.gradients + measured.optimizer_state
        print(f"{label:18}{predicted:>14,.0f}{stands:>14,}{stands - predicted:>12,.0f}")


mine.run(standing, "4.2")

# %% [markdown]
# Almost. The difference is Adam's step counter: 4 bytes for each trained *tensor*. The package's own `memory_ledger`
# counts it too, and is exact. Full fine-tuning holds each parameter four times, adapters hold nearly everything once.

# %% [markdown]
# ## What piles up: activations
#
# The backward pass needs results of the forward pass, so they are kept until then. Which ones? Not all. PyTorch keeps
# what the derivative of an operation needs, and only if a gradient passes through it:
#
# | operation | keeps | if |
# |---|---|---|
# | linear layer | its input | its weight is trained |
# | LayerNorm | its input | a gradient passes through it, or it is trained |
# | GELU | its input | a gradient passes through it |
# | attention | query, key, value, its output | a gradient passes through it |
# | dropout that is on | which numbers were dropped | a gradient passes through it |
# | sum | nothing | |
#
# What two operations both need is kept once. We can watch this: `saved_tensors_hooks` calls a function for every tensor
# that is kept. Here is one block of width 384, trained fully, dropout off.


# %%
def what_is_kept(block: nn.Module, x: torch.Tensor) -> list[tuple[tuple, int]]:
    """The tensors that autograd keeps of one forward pass: shape and bytes."""
    own = {p.untyped_storage().data_ptr() for p in block.parameters()}  # the weights are no activations
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        output = block(x)
    found = [(tuple(t.shape), t.untyped_storage().nbytes()) for pointer, t in kept.items() if pointer not in own]
    del output  # until here it held the graph, and all that is kept
    return found


def one_block(d: int = 384, m: int | None = None) -> nn.Module:
    """A block of width d, trained fully; or frozen, with Houlsby's adapters of width m."""
    model = SmallTransformer(SmallTransformerConfig(100, d, 1, intermediate_size=4 * d, dropout=0.0))
    if m is not None:
        prepare(model, "adapter", AdapterConfig(m))
    return model.blocks[0]


x = torch.randn(8, 64, 384)
for shape, size in what_is_kept(one_block(), x):
    print(f"{shape!s:22}{size / x.nbytes:6.2f} × the size of x")

# %% [markdown]
# Read it from top to bottom, along the block: x, which query, key and value share; query, key, value and the attention's
# output, with one small number per row; the sum before the first LayerNorm, and its statistics; the FFN's input; GELU's
# input and output, each four times as wide; the sum before the second LayerNorm.
#
# ### Exercise 4.3 · The activations of a block
#
# **Write** how many bytes a block keeps in full fine-tuning with dropout off, in single precision, for a batch of texts
# of equal length. The FFN is 4·d wide inside. Statistics and the like may be left out. **Difficulty** ◆◆◇ · **6 minutes**
#
# **Done** when it is within 2 % of a measurement.
#
# <details><summary>Hint 1</summary>
#
# Count in units of batch · length · d numbers: x is one unit, GELU's input is four.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with the attention, in the list above: from x down to its output, leaving out what is nearly 0.
# </details>
# <details><summary>I see "it is kept once"</summary>
#
# Query, key and value are computed from the same x. Three operations need it, one tensor is kept.
# </details>
# <details><summary>I see "each of them has 4 bytes"</summary>
#
# The function is to return bytes: a number in single precision has four.
# </details>


# %%
def block_activations(batch: int, length: int, d: int) -> int:
    ### BEGIN SOLUTION
    attention = 1 + 3 + 1  # its input; query, key, value; its output
    ffn = 1 + 4 + 4  # its input; GELU's input and output
    layer_norms = 2
    return 4 * (attention + ffn + layer_norms) * batch * length * d
    ### END SOLUTION


# %%
checks.check_block_activations(block_activations)
### BEGIN HIDDEN TESTS
assert abs(block_activations(1, 16, 64) / 65_536 - 1) < 0.02, "a text of 16 tokens and d = 64 needs about 65,536 bytes."
assert abs(block_activations(5, 8, 512) / 1_310_720 - 1) < 0.02, "5 texts of 8 tokens and d = 512 need about 1.31 MB."
### END HIDDEN TESTS

# %% [markdown]
# Now freeze the block and put Houlsby's adapters in. With m = 16 they have 1.4 % of its parameters.
# <!-- claim: 1.35 < 100 * outs(r"each +([\d,]+) +([\d,]+)")[1] / outs(r"each +([\d,]+) +([\d,]+)")[0] < 1.45 -->

# %%
prediction("4b", "What share of the block's activations is still kept?", within=8, unit=" %")

# %% [markdown]
# Which rows of the list change? The frozen linear layers no longer keep their inputs. But a gradient still passes
# through the block, to the adapters below it, so attention, GELU and LayerNorm keep theirs.
#
# ### Exercise 4.4 · The activations of a frozen block
#
# **Write** the same for a frozen block with Houlsby's adapters of width m, through which a gradient passes on its way down.
# **Difficulty** ◆◆◇ · **5 minutes**
#
# **Done** when it is within 2 % of a measurement.
#
# <details><summary>Hint 1</summary>
#
# Begin with the 16 units and take away what only frozen linear layers needed. GELU's output is one of these.
# </details>
# <details><summary>Hint 2</summary>
#
# Each adapter keeps its input (d wide: `down_project` is trained), GELU's input and GELU's output (both m wide).
# </details>
# <details><summary>I see "GELU keeps its input"</summary>
#
# The slope of GELU depends on where it was. Frozen or not, its input is needed for the gradient that passes through.
# </details>
# <details><summary>I see "before and after GELU"</summary>
#
# The adapter's own GELU keeps its input, and `up_project`, which is trained, keeps its: m + m, in two adapters.
# </details>


# %%
def adapter_activations(batch: int, length: int, d: int, m: int) -> int:
    ### BEGIN SOLUTION
    frozen_block = 4 + 4 + 2  # query, key, value, attention's output; GELU's input; the LayerNorms' inputs
    adapters = 2  # their inputs
    return 4 * batch * length * ((frozen_block + adapters) * d + 4 * m)
    ### END SOLUTION


# %%
checks.check_adapter_activations(adapter_activations)
### BEGIN HIDDEN TESTS
assert abs(adapter_activations(4, 8, 128, 16) / 204_800 - 1) < 0.02, "4 texts of 8 tokens, d = 128 and m = 16."
assert abs(adapter_activations(1, 10, 512, 128) / 266_240 - 1) < 0.02, "a text of 10 tokens, d = 512 and m = 128."
### END HIDDEN TESTS

# %% [markdown]
# Your two formulas (4.3, 4.4) beside what such blocks keep, with adapters of m = 16 and texts of three sizes:


# %%
def activations(my) -> float:
    print("texts  tokens    d    full, predicted     measured    frozen, predicted     measured")
    for batch, length, d in ((8, 64, 384), (2, 512, 384), (4, 128, 768)):
        x = torch.randn(batch, length, d, requires_grad=True)  # as it comes from a block with adapters below
        full, frozen = (sum(size for _, size in what_is_kept(one_block(d, m), x)) for m in (None, 16))
        predicted = my.block_activations(batch, length, d), my.adapter_activations(batch, length, d, 16)
        print(f"{batch:5}{length:8}{d:5}{predicted[0]:>19,.0f}{full:>13,}{predicted[1]:>21,.0f}{frozen:>13,}")
    return 100 * frozen / full


share = mine.run(activations, "4.3", "4.4")
print(f"a frozen block with adapters keeps {share:.0f} % of the activations")
compare("4b", share)

# %% [markdown]
# Sixteen units against a little more than twelve.
# <!-- claim: 12 < out(r"^ +8 +64 +384 +[\d,]+ +[\d,]+ +[\d,]+ +([\d,]+)") / (4 * 8 * 64 * 384) < 12.5 -->
# <!-- claim: 15.9 < out(r"^ +8 +64 +384 +[\d,]+ +([\d,]+)") / (4 * 8 * 64 * 384) < 16.1 -->
# **Adapters save a quarter of a block's activations, not 99 %.**
# <!-- claim: 23 <= 100 - out(r"keeps ([\d.]+) % of the activations") <= 27 -->
#
# ## The ledger
#
# `memory_ledger` takes a whole step on tensors that have a shape and no numbers, and adds up what lives at each moment;
# `measure_memory` measures the same entries on a real step. The **peak** is the highest point. It has three parts: weights
# and Adam's state, which are always there; of activations and gradients the larger, because activations are released while
# gradients arrive; <!-- rule -->
# and what is **temporary**, the tensors that an operation needs at that moment and nobody keeps.

# %%
ledgers = {}
for label, (method, config) in METHODS.items():
    model = new_model(method, config)
    predicted, measured = (cost(model, batch_size=16, sequence_length=128) for cost in (memory_ledger, measure_memory))
    ledgers[label] = predicted, measured
    print(f"{label}\n{predicted.compare(measured)}")
    print(f"{'of it temporary':16}{predicted.temporary:>16,}{measured.temporary:>16,}\n")
off = max(abs(predicted.activations / measured.activations - 1) for predicted, measured in ledgers.values())
print(f"largest difference in activations: {100 * off:.2f} %")
peaks = [ledgers[label][1].peak for label in ("Houlsby, m = 16", "full fine-tuning")]
print(f"peak with adapters, as a share of full fine-tuning: {100 * peaks[0] / peaks[1]:.0f} % at 128 tokens")

# %% [markdown]
# All entries agree, the peak as well.
# <!-- claim: out(r"largest difference in activations: ([\d.]+) %") == 0 and not said(r"^peak +[\d,]+ +[\d,]+ +[^n ]") -->
# So we trust the prediction where there is nothing to measure. (On a CPU, dropout keeps a number for each element, and the
# course leaves it off in a frozen base. That is why full fine-tuning keeps more than 16 units for each block here.)
# <!-- claim: out(r"full fine-tuning\s+predicted[\s\S]*?activations +([\d,]+)") / (6 * 4 * 16 * 128 * 384) > 16.5 -->
#
# ## What surprises people
#
# How much memory do adapters save? It depends on the texts. The last line above has it for 128 tokens.

# %%
prediction("4c", "At 512 tokens, what share of full fine-tuning's peak do adapters need?", within=9, unit=" %")

# %%
lengths = (16, 32, 64, 128, 256, 512)
rows = {label: (method, config) for label, (method, config) in METHODS.items() if label != "Pfeiffer, m = 16"}
ledgers = {label: [memory_ledger(new_model(*row), 16, length) for length in lengths] for label, row in rows.items()}
methods = {label: method for label, (method, _) in rows.items()}
pairs = list(zip(ledgers["Houlsby, m = 16"], ledgers["full fine-tuning"], strict=True))
shares = [100 * ours.peak / full.peak for ours, full in pairs]
saved = [(full.peak - ours.peak) / 1e6 for ours, full in pairs]
print(f"peak with adapters, as a share of full fine-tuning: {shares[0]:.0f} % at 16 tokens, {shares[-1]:.0f} % at 512")
print(f"that is {saved[0]:.0f} MB saved at 16 tokens, {saved[-1]:.0f} MB at 512")
compare("4c", shares[-1])
show(
    memory_against_length(lengths, ledgers, methods),
    f"Left: peak memory of a step of 16 texts against their length, rising for all methods. Right: as a share of full "
    f"fine-tuning. Adapters need {shares[0]:.0f} % of it at 16 tokens and {shares[-1]:.0f} % at 512; LoRA nearly the same; "
    "the head alone stays far below, because it keeps next to none of the activations, and climbs all the same.",
)

# %% [markdown]
# With short texts the bytes that stand still dominate, and of those adapters hold a quarter, nearly all of it weights.
# <!-- claim: 24 < 100 * out(r"^Houlsby, m = 16 +[\d,]+ +([\d,]+)") / out(r"^full fine-tuning +[\d,]+ +([\d,]+)") < 27 -->
# With long ones the activations dominate, and most of those stay.
# <!-- claim: out(r"Houlsby, m = 16\s+pre[\s\S]*?activations +([\d,]+)") > 0.5 * out(r"full fine-tuning\s+pre[\s\S]*?activations +([\d,]+)") -->
# So with longer texts adapters save a smaller *share* of the memory,
# <!-- claim: outs(r"tuning: (\d+) % at 16 tokens, (\d+) % at 512")[0] < outs(r"tuning: (\d+) % at 16 tokens, (\d+) % at 512")[1] -->
# though more megabytes. <!-- claim: outs(r"(\d+) MB saved at 16 tokens, (\d+) MB")[1] > outs(r"(\d+) MB saved at 16 tokens, (\d+) MB")[0] -->
# With LoRA it is nearly the same: at 128 tokens its peak is within 5 % of that of adapters.
# <!-- claim: abs(out(r"LoRA, r = 8\s+predicted[\s\S]*?peak +([\d,]+)") / out(r"Houlsby, m = 16\s+predicted[\s\S]*?peak +([\d,]+)") - 1) < 0.05 -->
# The head alone keeps next to nothing of them.
# <!-- claim: out(r"head only\s+pre[\s\S]*?activations +([\d,]+)") < 1e-3 * out(r"full fine-tuning\s+pre[\s\S]*?activations +([\d,]+)") -->
# Its curve climbs all the same: what is temporary grows with the texts.

# %% [markdown]
# ## What does shrink the activations
#
# Two things. **Gradient checkpointing**: a block keeps only its input, and is computed once more in the backward pass.
# <!-- rule -->
# That costs time, about one forward pass. And **adapters in the upper blocks only**: below the lowest of them no gradient
# passes, so nothing is kept. Both, measured and predicted, at 16 texts of 128 tokens:

# %%
variants = {
    "all six blocks": AdapterConfig(16),
    "upper three blocks": AdapterConfig(16, layers=(3, 4, 5)),
    "top block only": AdapterConfig(16, layers=(5,)),
}
print(f"{'':24}{'activations, measured':>24}{'predicted':>12}{'peak, measured':>18}")
for label, config in variants.items():
    for checkpointing in (False, True):
        model = new_model("adapter", config)
        predicted = memory_ledger(model, 16, 128, checkpointing=checkpointing)
        if checkpointing:
            with checkpointed(model):
                measured = measure_memory(model, 16, 128)
        else:
            measured = measure_memory(model, 16, 128)
        print(
            f"{label + (', ckpt.' if checkpointing else ''):28}{measured.activations / 1e6:>17.1f} MB"
            f"{predicted.activations / 1e6:>9.1f} MB{measured.peak / 1e6:>15.1f} MB"
        )

# %% [markdown]
# With adapters in the upper half of the blocks, more than half of the activations are gone:
# <!-- claim: out(r"^upper three blocks +([\d.]+) MB") < 0.5 * out(r"^all six blocks +([\d.]+) MB") -->
# in the lowest block with adapters nothing is kept before the first of them. Checkpointing takes away most of the rest.
# <!-- claim: out(r"^upper three blocks, ckpt. +([\d.]+) MB") < 0.5 * out(r"^upper three blocks +([\d.]+) MB") -->
# With the top block alone the peak gains nothing by it, since all of that one block has to be there again anyway.
# <!-- claim: out(r"^top block only, ckpt. .* ([\d.]+) MB$") >= out(r"^top block only  .* ([\d.]+) MB$") -->
# What remains of the peak are the weights, and the block that is being worked on.
#
# ## Which method fits where?
#
# The ledger needs no numbers, so it also reads outlines. Everything in bfloat16 (2 bytes), a batch of 4 texts with 512
# tokens, as a classifier. Which is the smallest GPU that holds a step? (That is the least. Often Adam works on a second copy
# of the weights in single precision: then full fine-tuning needs 16 bytes for each parameter, not 8. A language model's
# head needs batch · length · vocabulary numbers on top, and the GPU some room for itself.)

# %%
prediction(
    "4d",
    "Llama-3-8B with Houlsby's adapters, no checkpointing: the smallest GPU that holds a step has …",
    ["12 GB", "16 GB", "40 GB", "80 GB"],
)

# %%
GPUS = (8, 12, 16, 24, 40, 80)
big_methods = {
    "full fine-tuning": ("full", None, False),
    "LoRA, r = 8": ("lora", None, False),
    "Houlsby, m = 64": ("adapter", AdapterConfig(64), False),
    "Houlsby, m = 64, checkpointing": ("adapter", AdapterConfig(64), True),
}
print(
    f"{'GB, and the smallest GPU':32}"
    + "".join(f"{name:>17}" for name in ("bert-large", "gpt2-xl", "llama-3-8b", "llama-3-70b"))
)
for label, (method, config, checkpointing) in big_methods.items():
    cells = ""
    for name in ("bert-large", "gpt2-xl", "llama-3-8b", "llama-3-70b"):
        model = outline(name, num_labels=2)
        prepare(model, method, config)
        ledger = memory_ledger(model, 4, 512, dtype=torch.bfloat16, checkpointing=checkpointing)
        smallest = next((f"{gpu} GB" for gpu in GPUS if ledger.peak < 1e9 * gpu), "none")
        cells += f"{ledger.peak / 1e9:>8.1f} → {smallest:>6}"
        if (name, label) == ("llama-3-8b", "Houlsby, m = 64"):
            found = smallest
    print(f"{label:32}{cells}")
compare("4d", found)

# %% [markdown]
# Adam's state alone is twice the weights, and with adapters nearly all of it is gone. Checkpointing takes care of the
# activations. What remains are the frozen weights. QLoRA (Dettmers et al. 2023, arXiv 2305.14314) keeps
# those in 4 bits, for LoRA. <!-- source: Dettmers et al. 2023, abstract -->
#
# ## And on disk
#
# One base model, and for each task a set of adapters, instead of a whole model for each task. How many bytes do N tasks
# need with BERT-base, Houlsby, m = 64, in single precision? Your formula (4.1) counts the adapters.


# %%
def on_disk(my):
    base = 4 * count_parameters(outline("bert-base")).total
    adapters = 4 * my.houlsby_parameters(768, 64, 12)
    for tasks in (1, 9, 100):
        copies, shared = tasks * base, base + tasks * adapters
        print(
            f"{tasks:3} tasks: {copies / 1e9:6.2f} GB fully fine-tuned, {shared / 1e9:5.2f} GB with adapters, "
            f"{shared / base:.2f} × the base model"
        )


mine.run(on_disk, "4.1")

# %% [markdown]
# Houlsby et al. (table 1) count the nine tasks of GLUE, a benchmark for understanding English, on BERT-large. It is 9 × the
# base model with full fine-tuning, 1.3 × with the best width for each task, and 1.2 × with m = 64 for all.
# <!-- source: Houlsby et al. 2019, table 1, not checked --> Ours, on BERT-base, is the last case.
# <!-- claim: 1.15 <= out(r"9 tasks: .* ([\d.]+) × the base") < 1.25 -->
#
# ## Your own case
#
# What would your model need, with your texts, on your GPU? Here is the ledger with knobs: a step beside full fine-tuning
# and the head only, the largest batch that fits, and the tasks on disk. It counts as for a GPU; "8 × 80 GB" adds up eight
# of them, as if the model could be split without loss.

# %%
standing = mine.run(lambda my: my.standing_bytes, "4.2")

# %%
cost_explorer(standing)

# %% [markdown]
# At the start stands Llama-3-8B, as in the table above. Half of full fine-tuning's bar is Adam's state. With adapters
# nearly all of that is gone, and most of what remains are the weights.
# <!-- claim: outs(r"houlsby, m = 64: ([\d.]+) GB.*?without activations: ([\d.]+) GB")[1] > 0.5 * outs(r"houlsby, m = 64: ([\d.]+) GB.*?without activations: ([\d.]+) GB")[0] -->
# (A bar shows of activations and gradients the larger one, as the peak does. <!-- rule -->
# With full fine-tuning these are the gradients:
# <!-- claim: outs(r"full fine-tuning: ([\d.]+) GB .yours, without activations: ([\d.]+) GB")[0] - outs(r"full fine-tuning: ([\d.]+) GB .yours, without activations: ([\d.]+) GB")[1] < 0.5 -->
# its activations are there as well, behind them.) SGD keeps no state at all.

# %%
prediction("4e", "With SGD in place of Adam, what share of full fine-tuning do adapters need?", within=10, unit=" %")

# %%
peaks = []
for label in ("Houlsby, m = 64", "full fine-tuning"):
    model, (method, config, _) = outline("llama-3-8b", num_labels=2), big_methods[label]
    prepare(model, method, config)
    peaks.append(memory_ledger(model, 4, 512, dtype=torch.bfloat16, optimizer="sgd").peak)
    print(f"{label:18}{peaks[-1] / 1e9:.1f} GB")
compare("4e", 100 * peaks[0] / peaks[1])

# %% [markdown]
# Adapters need hardly less than before:
# <!-- claim: out(r"^Houlsby, m = 64 +([\d.]+) GB$") > 0.97 * out(r"houlsby, m = 64: ([\d.]+) GB") -->
# most of what they saved was Adam's state.
# <!-- claim: out(r"^full fine-tuning +([\d.]+) GB$") - out(r"^Houlsby, m = 64 +([\d.]+) GB$") < 0.5 * (step_gb("full", 512) - step_gb("adapter", 512)) -->
#
# **What to try.** Guess first, and press *Reset* in between.
#
# 1. Let the texts grow from 16 tokens to 8192. What share of full fine-tuning do adapters need, and which part of the bars grows?
# 2. Stay at 8192 tokens, and set m from 64 to 1. Then set it back, and switch checkpointing on.
# 3. Take Llama-3-70B, and look for a method that fits on one GPU of 80 GB.
#
# <details><summary>What there is to see</summary>
#
# 1. From about a quarter to more than two thirds.
#    <!-- claim: 0.23 < step_gb("adapter", 16) / step_gb("full", 16) < 0.27 -->
#    <!-- claim: 2 / 3 < step_gb("adapter", 8192) / step_gb("full", 8192) < 0.75 -->
#    Activations grow, and adapters keep about three quarters of them.
#    <!-- claim: 0.7 < (step_gb("adapter", 8192) - step_gb("adapter", 16)) / (step_gb("full", 8192) - 0.75 * step_gb("full", 16)) < 0.8 -->
# 2. A 64th of the width saves less than a hundredth of the memory.
#    <!-- claim: 0.99 < step_gb("adapter", 8192, m=1) / step_gb("adapter", 8192) < 1 -->
#    Checkpointing, which is no matter of adapters, saves more than four fifths.
#    <!-- claim: step_gb("adapter", 8192, checkpointing=True) < 0.2 * step_gb("adapter", 8192) -->
# 3. There is none: the frozen weights alone are 139 GB, and every method needs them, so that not even the head can be
#    trained.
#    <!-- claim: 138.5 < step_gb("head", 16, name="llama-3-70b") < 139.5 -->
# </details>

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("04")

# %% [markdown]
# ## What we saw
#
# 1. Houlsby's adapters have 2·n·(2·d·m + m + d) parameters in n blocks; the share falls as the base grows.
# 2. Weights, gradients and Adam's state are predicted to the byte: frozen parameters cost once, trained ones four times.
# 3. A block keeps 16·batch·length·d numbers in full fine-tuning, and frozen, with Houlsby's narrow adapters in it, still
#    a little more than 12.
#    <!-- claim: 23 <= 100 - out(r"keeps ([\d.]+) % of the activations") <= 27 -->
# 4. With longer texts adapters save a smaller share of the memory, though more bytes.
#    <!-- claim: outs(r"tuning: (\d+) % at 16 tokens, (\d+) % at 512")[0] < outs(r"tuning: (\d+) % at 16 tokens, (\d+) % at 512")[1] -->
#    <!-- claim: outs(r"(\d+) MB saved at 16 tokens, (\d+) MB")[1] > outs(r"(\d+) MB saved at 16 tokens, (\d+) MB")[0] -->
# 5. Checkpointing, and adapters in the upper blocks only, shrink the activations to less than half.
#    <!-- claim: out(r"^upper three blocks +([\d.]+) MB") < 0.5 * out(r"^all six blocks +([\d.]+) MB") -->
#    <!-- claim: out(r"^all six blocks, ckpt. +([\d.]+) MB") < 0.5 * out(r"^all six blocks +([\d.]+) MB") -->
#
# **Sources.** Houlsby et al. 2019, arXiv 1902.00751, section 3.2 (table 1 not checked again). E. Hu et al., *LoRA*, 2021,
# arXiv 2106.09685. V. Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models*, 2022, arXiv
# 2205.05198, section 4, count activations in the same way (for GPUs, half precision). T. Chen et al., *Training Deep Nets
# with Sublinear Memory Cost*, 2016, arXiv 1604.06174. T. Dettmers et al., *QLoRA*, 2023, arXiv 2305.14314.
#
# **Next.** [05 · Training](05_training.ipynb): does it learn as well as full fine-tuning?
