# %% [markdown]
# # 02 · A small transformer
#
# **The question.** What do we put adapters into?
#
# **You will be able to** read a transformer encoder line by line, name its parts and where each sub-layer ends, and say
# what the layers of a pretrained model know about a text, and what they do not.
#
# **Before you start.** Lesson 01. You have seen the word "attention"; that is enough.
#
# **Time.** 30 minutes.

# %%
import inspect

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from adapters_lesson import SmallTransformer, encode, load_minilm, load_task, load_tokenizer
from adapters_lesson.lab import quiz
from adapters_lesson.plots import attention_maps, layer_probes, show
from adapters_lesson.training import Texts
from adapters_lesson.transformer import Block, SelfAttention

_ = torch.manual_seed(0)

# %% [markdown]
# ## A model that one can read
#
# The model of this course is an encoder in the style of BERT, short enough to read. It is no toy, though: it can
# carry the real pretrained weights of **MiniLM**, a sentence encoder with 6 layers of width 384. We fill it with them.

# %%
model = SmallTransformer.from_minilm(layers=6)
tokenizer = load_tokenizer()
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
print(model.config)

# %% [markdown]
# ## From text to vectors
#
# The tokenizer cuts a text into **tokens**, words and pieces of words, and gives each a number. `[CLS]` and `[SEP]`
# mark begin and end. The first layer, the embeddings, turns every number into a vector of width 384 and adds a vector
# for its position. From here on, nothing knows about words: there are only vectors.

# %%
sentence = "The pool was not superb, and the screen was fantastic."
texts = tokenizer([sentence], return_tensors="pt")
tokens = tokenizer.convert_ids_to_tokens(texts["input_ids"][0])
print(tokens)
with torch.no_grad():
    x = model.embed(texts["input_ids"])
print("hidden states:", tuple(x.shape), "= (texts, tokens, model_dim)")

# %% [markdown]
# ## Attention: tokens look at each other
#
# In the attention sub-layer, every token makes three vectors: a **query** (what am I looking for?), a **key** (what do
# I have?) and a **value** (what do I give?). Each token compares its query with all keys; the better the fit, the more
# of that token's value it takes. Twelve **heads** do this side by side, each on 32 of the 384 numbers. At the end, an
# **output projection** mixes the heads. Remember that last line: it is where the sub-layer ends, and where an adapter
# will sit.

# %%
print(inspect.getsource(SelfAttention.forward))

# %% [markdown]
# `scaled_dot_product_attention` is one call for four lines of arithmetic. Written out, for each head:
# softmax(q kᵀ / √32) v. Is it really the same?

# %%
attention = model.blocks[0].attention
with torch.no_grad():
    q, k, v = (m(x).unflatten(-1, (12, 32)).transpose(1, 2) for m in (attention.query, attention.key, attention.value))
    weights = (q @ k.transpose(-2, -1) / 32**0.5).softmax(-1)
    by_hand = attention.output((weights @ v).transpose(1, 2).flatten(2))
    print("largest difference:", f"{(by_hand - attention(x, None)).abs().max():.1e}")

# %% [markdown]
# The same, up to rounding. The weights of the softmax can be looked at. Do heads differ in what they look for? Here are
# three heads of different layers.

# %%
hidden = [x]
with torch.no_grad():
    for block in model.blocks:
        hidden.append(block(hidden[-1]))
    maps = {
        f"layer {layer}, head {head}": model.blocks[layer].attention.weights(hidden[layer], None)[0, head]
        for layer, head in ((0, 2), (2, 6), (5, 3))
    }
for label, map_ in maps.items():
    previous, first = map_.diagonal(-1).mean(), map_[:, 0].mean()
    print(f"{label}: {100 * previous:3.0f} % of the attention is on the token before, {100 * first:3.0f} % on [CLS]")
show(
    attention_maps(tokens, maps),
    "Attention weights of three heads as three maps over the tokens of the sentence: each row is a token that looks, "
    "dark fields are what it looks at. In layer 0, head 2 every token looks at the one before it; the two others gather "
    "much of their attention on [CLS].",
)

# %% [markdown]
# Each row is a token that looks, and sums to 1. The first head has learnt one simple thing: look at the token before.
# The other two gather much of their attention on `[CLS]`, where little is to be found; that is a common way of looking
# at nothing in particular. One should not read too much into single maps, but the way that information takes between
# tokens leads through them, and only through them.

# %% [markdown]
# ## The whole block
#
# After the attention comes the **feed-forward network** (FFN): each token on its own, from 384 to 1,536 numbers, an
# activation, and back to 384. Note the contrast: the FFN *expands* and contracts, an adapter narrows and widens. Around
# each sub-layer there are a residual connection and a **LayerNorm**, which brings every vector to a standard length.

# %%
print(inspect.getsource(Block.forward))

# %% [markdown]
# There are two orders. BERT and MiniLM normalise *after* the sum ("post-LN"), GPT-2 and Llama normalise *before* each
# sub-layer ("pre-LN"). For an adapter this matters, as lesson 03 shows. In both, call *h* what a sub-layer puts out and
# *r* the **residual stream** that went past it.
#
# Where are the parameters? First guess, then run the cell: which has more, attention or FFN?

# %%
block = model.blocks[0]
total = sum(p.numel() for p in block.parameters())
for name, part in block.named_children():
    count = sum(p.numel() for p in part.parameters())
    print(f"{name:16} {count:9,}  {100 * count / total:5.1f} %")
print(f"{'one block':16} {total:9,}")
print(f"{'embeddings':16} {sum(p.numel() for n, p in model.named_parameters() if 'embedding' in n):9,}")

# %% [markdown]
# The FFN holds two thirds of a block. And of this small model, half are embeddings: one vector for each of 30,522
# tokens.

# %% [markdown]
# ## Is it the real one?
#
# Our model claims to be MiniLM. The library transformers has its own implementation, `BertModel`, written
# independently. If both compute the same from the same weights, we can trust our reading. We use two sentences of
# different length, so that one of them is padded.

# %%
pair = tokenizer([sentence, "A short one."], padding=True, return_tensors="pt")
with torch.no_grad():
    ours = model(**pair)
    theirs = load_minilm()(**pair).last_hidden_state
words = pair["attention_mask"].bool()
difference = (ours - theirs)[words].abs().max().item()
print(f"largest difference over {words.sum()} tokens × 384: {difference:.1e}")

# %% [markdown]
# The difference is rounding. What we read is a real pretrained transformer.

# %% [markdown]
# ## What do the layers know?
#
# A classifier on top of the encoder takes the mean over a text's hidden states and applies one linear layer, the
# **head**. How good can that be if the encoder stays as it is? A **probe** tells: we freeze the model, take the mean
# hidden state after each layer, and fit a linear classifier on it.
#
# Two tasks. The *film reviews* are real sentences, positive or negative. The *aspect* task is made up, as a controlled
# experiment:

# %%
aspects, films = load_task("aspect_sentiment"), load_task("film_reviews")
for task in (aspects, films):
    row = task["train"][0]
    print(f"{task['train'].features['label'].names[row['label']]:9}| {row['text']}")

# %% [markdown]
# In the aspect task the word before the colon names one of the two things, and the label is how *that* one is judged.
# To get it right, one must tie each adjective to its noun and undo the "not". Guess before you run the cell: on which
# of the two tasks does a frozen model do better?


# %%
@torch.no_grad()
def mean_hidden_states(dataset) -> list[torch.Tensor]:
    """After the embeddings and after each layer: the mean over the words, (texts, 384)."""
    columns = Texts(encode(dataset, tokenizer))
    layers = [[] for _ in range(7)]
    for start in range(0, len(dataset), 100):
        input_ids, mask, _ = columns.batch(list(range(start, min(start + 100, len(dataset)))))
        x, words = model.embed(input_ids), mask[..., None]
        for i in range(7):
            layers[i].append((x * words).sum(1) / words.sum(1))
            if i < 6:
                x = model.blocks[i](x, mask[:, None, None, :].bool())
    return [torch.cat(parts) for parts in layers]


def probe(task) -> list[float]:
    train, test = task["train"].select(range(1500)), task["validation"].select(range(500))
    accuracies = []
    for seen, unseen in zip(mean_hidden_states(train), mean_hidden_states(test)):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        classifier.fit(seen.numpy(), train["label"])
        accuracies.append(classifier.score(unseen.numpy(), test["label"]))
    return accuracies


probes = {"film reviews": probe(films), "aspect sentiment": probe(aspects)}
for label, values in probes.items():
    print(f"{label:17}", "  ".join(f"{100 * value:.1f}" for value in values))
show(
    layer_probes(probes, chance=0.5),
    "Accuracy of linear probes after each layer. Film reviews: "
    f"from {100 * probes['film reviews'][0]:.0f} % at the embeddings to {100 * probes['film reviews'][-1]:.0f} % after "
    f"layer 6. Aspect sentiment: from {100 * probes['aspect sentiment'][0]:.0f} % to "
    f"{100 * probes['aspect sentiment'][-1]:.0f} %, far from solved.",
)

# %% [markdown]
# 1,500 texts to fit, 500 to test, so each point is uncertain by about two percentage points. Neither task is solved by
# reading the frozen features. For the film reviews the layers add next to nothing: the embeddings, which know single
# words and nothing of their order, do about as well as layer 6. For the aspect task this is no wonder: the mean over all tokens holds both judgements,
# and nothing says which belongs to the named thing. The information was in the text; the frozen model does not put it
# where a linear head can find it. The first layers help, and the later ones do not take it further.
#
# A little change *inside* the encoder could: let the named word collect its adjective before the mean is taken. That is
# what we want adapters for.

# %% [markdown]
# ## Check yourself
#
# Five questions. Run the cell to answer them: every answer gets its reason, and the first try counts.

# %%
quiz("02")

# %% [markdown]
# ## What we saw
#
# 1. A transformer block is attention and an FFN, each with a residual connection and a LayerNorm.
# 2. Attention ends in `attention.output`, the FFN in `ffn.contract`: the places that lesson 03 needs.
# 3. Post-LN models normalise after the residual sum, pre-LN models before each sub-layer.
# 4. The model of this course carries MiniLM's real weights, and equals the library's model up to rounding.
# 5. A linear head on frozen features solves neither the film reviews nor the aspect task.
#
# **Sources.** A. Vaswani et al., *Attention Is All You Need*, 2017, arXiv 1706.03762. J. Devlin et al., *BERT*, 2019,
# arXiv 1810.04805. MiniLM: W. Wang et al., 2020, arXiv 2002.10957; the weights are those of
# sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
#
# **Next.** [03 · Inserting adapters](03_inserting_adapters.ipynb): where do adapters go, and what is frozen?
