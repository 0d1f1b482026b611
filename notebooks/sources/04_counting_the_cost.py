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

from adapters_lesson import AdapterConfig, Classifier, SmallTransformer, SmallTransformerConfig, prepare
from adapters_lesson.checks import lesson04 as checks
from adapters_lesson.costs import count_parameters, measure_memory, memory_ledger, outline
from adapters_lesson.lab import cost_explorer, quiz
from adapters_lesson.plots import memory_against_length, parameter_bars, show
from adapters_lesson.savings import checkpointed

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
# Two weight matrices and two biases in each adapter, two adapters in each block.
# </details>
# <details><summary>Hint 2</summary>
#
# The bias of `down_project` has m numbers, that of `up_project` has d.
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
# Where in MiniLM are the parameters, and where are the trained ones?

# %%
minilm = new_model("adapter", AdapterConfig(16))
count = count_parameters(minilm)
print(count)

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
# where a tensor has a shape and no numbers. Counts of an outline are exact, and it takes no memory and no download. What
# share of big models do adapters of width 64 train?

# %%
print(f"{'':14}{'parameters':>18}{'Houlsby, m = 64':>18}{'share':>10}{'Pfeiffer, m = 64':>18}{'share':>10}")
for name in ("bert-base", "bert-large", "gpt2-xl", "llama-3-8b", "llama-3-70b"):
    cells = ""
    for placement in ("houlsby", "pfeiffer"):
        model = outline(name)
        total = count_parameters(model).total
        prepare(model, "adapter", AdapterConfig(64, placement=placement), head=False)
        trained = count_parameters(model).trainable
        cells += f"{trained:>18,}{100 * trained / total:>8.3f} %"
    print(f"{name:14}{total:>18,}{cells}")

# %% [markdown]
# The share falls as models grow: the base has some 12·d² parameters in a block, an adapter 2·d·m. Doubling the width
# doubles the adapters and quadruples the base. For BERT-base, 2,379,264 is the count of the exercise.

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
# A frozen weight costs `itemsize` bytes. A trained one costs four times that. Which four?
# </details>
# <details><summary>Hint 2</summary>
#
# Weights: `total`. Gradients: `trained`. Adam: twice `trained`.
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
# matrices to some of the frozen ones, in MiniLM to those of query and value. Predicted by this formula, and measured
# on a real step of MiniLM, tensor by tensor: are they the same, byte for byte?

# %%
print(f"{'':18}{'predicted':>14}{'measured':>14}{'difference':>12}")
for label, (method, config) in METHODS.items():
    model = new_model(method, config)
    count = count_parameters(model)
    measured = measure_memory(model, batch_size=2, sequence_length=16)
    predicted = 4 * (count.total + 2 * count.trainable + count.trainable)
    stands = measured.weights + measured.gradients + measured.optimizer_state
    print(f"{label:18}{predicted:>14,}{stands:>14,}{stands - predicted:>12,}")

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
def what_is_kept(block: nn.Module, x: torch.Tensor) -> float:
    """Print what autograd keeps of one forward pass, and return how many times the size of x it is."""
    own = {p.untyped_storage().data_ptr() for p in block.parameters()}  # the weights are no activations
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        output = block(x)
    kept = [t for pointer, t in kept.items() if pointer not in own]
    for t in kept:
        print(f"{tuple(t.shape)!s:22}{t.untyped_storage().nbytes() / x.nbytes:6.2f} × the size of x")
    together = sum(t.untyped_storage().nbytes() for t in kept) / x.nbytes
    print(f"{'together':22}{together:6.2f} ×")
    del output  # until here it held the graph, and all that is kept
    return together


config = SmallTransformerConfig(num_hidden_layers=1, dropout=0.0)
block = SmallTransformer(config).blocks[0]
x = torch.randn(8, 64, 384)
kept_fully_trained = what_is_kept(block, x)

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
# Attention: x, query, key, value, output. First LayerNorm: its input. FFN: its input, then 4 and 4. Second LayerNorm: its
# input.
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
# Now freeze the block and put Houlsby's adapters in. Which rows of the table change? The frozen linear layers no longer
# keep their inputs. But a gradient still passes through the block, to the adapters below it, so attention, GELU and
# LayerNorm keep theirs.

# %%
adapted = SmallTransformer(config)
prepare(adapted, "adapter", AdapterConfig(16))
x = torch.randn(8, 64, 384, requires_grad=True)  # as it comes from a block with adapters below
kept_frozen = what_is_kept(adapted.blocks[0], x)

# %% [markdown]
# ### Exercise 4.4 · The activations of a frozen block
#
# **Write** the same for a frozen block with Houlsby's adapters of width m, a gradient coming from below.
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
# Sixteen against a little more than twelve. **Adapters save a quarter of a block's activations, not 99 %.**
#
# ## The ledger
#
# `memory_ledger` follows these rules through a whole model, and `measure_memory` measures the same entries on a real
# step. The peak is the highest point: weights and Adam's state are always there, and of activations and gradients the
# larger counts, because activations are released while gradients arrive.

# %%
differences = {}
for label, (method, config) in METHODS.items():
    model = new_model(method, config)
    predicted, measured = (cost(model, batch_size=16, sequence_length=128) for cost in (memory_ledger, measure_memory))
    differences[label] = predicted.activations / measured.activations - 1
    print(f"{label}\n{predicted.compare(measured)}\n")
print(f"largest difference in activations: {100 * max(map(abs, differences.values())):.2f} %")

# %% [markdown]
# Weights, gradients and Adam's state agree to the byte, the activations to a fraction of a per cent. So the formula can
# be trusted where there is nothing to measure. (On a CPU, dropout keeps a number for each element; a frozen base needs no
# dropout. That is why full fine-tuning keeps more than 16 units here.)
#
# ## What surprises people
#
# How much memory do adapters save? It depends on the texts. Short ones: the standing bytes dominate, and those all but
# vanish. Long ones: the activations dominate, and those stay.

# %%
lengths = (16, 32, 64, 128, 256, 512)
rows = {label: (method, config) for label, (method, config) in METHODS.items() if label != "Pfeiffer, m = 16"}
ledgers = {label: [memory_ledger(new_model(*row), 16, length) for length in lengths] for label, row in rows.items()}
methods = {label: method for label, (method, _) in rows.items()}
shares = [
    100 * ours.peak / full.peak
    for ours, full in zip(ledgers["Houlsby, m = 16"], ledgers["full fine-tuning"], strict=True)
]
show(
    memory_against_length(lengths, ledgers, methods),
    f"Left: peak memory of a step of 16 texts against their length, rising for all methods. Right: as a share of full "
    f"fine-tuning. Adapters need {shares[0]:.0f} % of it at 16 tokens and {shares[-1]:.0f} % at 512; LoRA nearly the same; "
    "the head alone stays far below, because it keeps no activations.",
)

# %%
share = 100 * kept_frozen / kept_fully_trained
print(f"one block, dropout off: a frozen block with adapters keeps {share:.0f} % of the activations")
print(f"peak with adapters, as a share of full fine-tuning: {shares[0]:.0f} % at 16 tokens, {shares[-1]:.0f} % at 512")

# %% [markdown]
# The longer the texts, the less is saved, and LoRA is no different: what is saved are gradients and Adam's state, and
# they do not depend on the texts.

# %% [markdown]
# ## What does shrink the activations
#
# Two things. **Gradient checkpointing**: a block keeps only its input, and is computed once more in the backward pass.
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
# With adapters in the upper half of the blocks, more than half of the activations are gone: in the lowest block with
# adapters nothing is kept before the first of them. Checkpointing takes away most of the rest; with the top block alone
# it gains nothing, since that one block has to be computed again anyway. What remains of the peak are the weights, and
# the block that is being worked on.
#
# ## Which method fits where?
#
# The ledger needs no numbers, so it also reads outlines. Everything in bfloat16 (2 bytes), a batch of 4 texts with 512
# tokens, as a classifier. (Mixed precision with master weights in single precision needs more for full fine-tuning, 16
# bytes for each parameter instead of 8; a language-model head needs batch · length · vocabulary numbers on top.) Which is
# the smallest GPU that holds a step?

# %%
GPUS = (8, 12, 16, 24, 40, 80)
big_methods = {
    "full fine-tuning": ("full", None, False),
    "LoRA, r = 8": ("lora", None, False),
    "Houlsby, m = 64": ("adapter", AdapterConfig(64), False),
    "Houlsby, m = 64, checkpointing": ("adapter", AdapterConfig(64), True),
}
print(f"{'':32}" + "".join(f"{name:>22}" for name in ("bert-large", "gpt2-xl", "llama-3-8b", "llama-3-70b")))
for label, (method, config, checkpointing) in big_methods.items():
    cells = ""
    for name in ("bert-large", "gpt2-xl", "llama-3-8b", "llama-3-70b"):
        model = outline(name, num_labels=2)
        prepare(model, method, config)
        ledger = memory_ledger(model, 4, 512, dtype=torch.bfloat16, checkpointing=checkpointing)
        smallest = next((f"{gpu} GB" for gpu in GPUS if ledger.peak < 1e9 * gpu), "none")
        cells += f"{ledger.peak / 1e9:>12.1f} → {smallest:>7}"
    print(f"{label:32}{cells}")

# %% [markdown]
# For a big model Adam's state alone is twice the weights, so here the saving is large, and checkpointing takes care of the
# activations. What remains are the frozen weights. Those can be kept in fewer bits (QLoRA, Dettmers et al. 2023, arXiv
# 2305.14314), for adapters as for LoRA.
#
# ## And on disk
#
# One base model, and for each task a set of adapters, instead of a whole model for each task. How many bytes do N tasks
# need with BERT-base, Houlsby, m = 64, in single precision?

# %%
base_bytes = 4 * count_parameters(outline("bert-base")).total
adapter_bytes = 4 * 2379264
for tasks in (1, 9, 100):
    full_copies, with_adapters = tasks * base_bytes, base_bytes + tasks * adapter_bytes
    print(
        f"{tasks:3} tasks: {full_copies / 1e9:6.2f} GB fully fine-tuned, {with_adapters / 1e9:5.2f} GB with adapters, "
        f"{with_adapters / base_bytes:.2f} × the base model"
    )

# %% [markdown]
# Houlsby et al. report 1.3 × the base model for the nine tasks of GLUE, a benchmark for understanding English,
# against 9 × with full fine-tuning. We get a little less with m = 64 everywhere: they choose the best width for each
# task on BERT-large, and count the LayerNorms.
#
# ## Your own case
#
# What would your model need, with your texts, on your GPU? Here is the ledger with knobs: a step beside full fine-tuning
# and the head only, the largest batch that fits, and the tasks on disk. It counts as for a GPU; "8 × 80 GB" adds up eight
# of them, as if the model could be split without loss.

# %%
cost_explorer()

# %% [markdown]
# At the start stands Llama-3-8B, as in the table above. Half of full fine-tuning's bar is Adam's state. With adapters that is
# gone, and most of what remains are the weights.
#
# **What to try.** Guess first, and press *Reset* in between.
#
# 1. Let the texts grow from 16 tokens to 8192. What share of full fine-tuning do adapters need, and which colour grows?
# 2. Stay at 8192 tokens, and set m from 64 to 1. Then set it back, and switch checkpointing on.
# 3. At 512 tokens, take SGD in place of Adam. Who saves?
# 4. Take Llama-3-70B, and look for a method that fits on one GPU of 80 GB.
#
# <details><summary>What there is to see</summary>
#
# 1. From a quarter to more than two thirds. Activations grow, and adapters keep three quarters of them.
# 2. A 64th of the width saves less than a hundredth of the memory. Checkpointing, which is no matter of adapters, saves
#    more than four fifths.
# 3. Full fine-tuning: it needs half as much, and adapters hardly less than before. Much of what they saved was Adam's state.
# 4. There is none. The frozen weights alone are 139 GB, and every method needs them: not even the head can be trained.
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
# 3. A block keeps 16·batch·length·d numbers in full fine-tuning, and still 12 of the 16 when it is frozen.
# 4. So the saving is large for big models and short texts, and modest for long texts.
# 5. Checkpointing, and adapters in the upper blocks only, are what shrinks the activations.
#
# **Sources.** Houlsby et al. 2019, arXiv 1902.00751, section 3.2. E. Hu et al., *LoRA*, 2021, arXiv 2106.09685. V.
# Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models*, 2022, arXiv 2205.05198, section
# 4, count activations in the same way (for GPUs, half precision). T. Chen et al., *Training Deep Nets with Sublinear
# Memory Cost*, 2016, arXiv 1604.06174. T. Dettmers et al., *QLoRA*, 2023, arXiv 2305.14314.
#
# **Next.** [05 · Training](05_training.ipynb): does it learn as well as full fine-tuning?
