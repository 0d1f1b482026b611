"""The transformer of the lessons: a BERT-style encoder in the fewest honest lines, able to carry MiniLM's weights.

Vaswani et al. 2017 (arXiv 1706.03762) describe the blocks, Devlin et al. 2019 (arXiv 1810.04805) this encoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Architecture, width_of
from .guards.bank_guard import check_bare
from .guards.base_guard import check_reads_texts
from .guards.label_names import check_labels


@dataclass(frozen=True)
class SmallTransformerConfig:
    """Sizes of a ``SmallTransformer``; the defaults are MiniLM's. Names as in transformers' ``BertConfig``."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    norm: str = "post"

    def __post_init__(self) -> None:
        if self.norm not in ("post", "pre"):
            raise ValueError(f'norm must be "post" (LayerNorm after the residual sum) or "pre", not {self.norm!r}')
        if (width := self.hidden_size) % (heads := self.num_attention_heads):
            raise ValueError(f"hidden_size={width} must be divisible by num_attention_heads={heads}")

    @property
    def model_type(self) -> str:
        """The name under which ``insertion`` knows this architecture."""
        return f"small_transformer_{self.norm}"


class SelfAttention(nn.Module):
    """Multi-head self-attention; ``output`` is the projection that ends the sub-layer."""

    def __init__(self, config: SmallTransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (self._split(project(x)) for project in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Who attends to whom: ``(batch, heads, length, length)``, each row sums to 1. For pictures only."""
        q, k = self._split(self.query(x)), self._split(self.key(x))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:  # (batch, length, d) -> (batch, heads, length, d / heads)
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Position-wise FFN, d -> 4d -> d; ``contract`` is the projection that ends the sub-layer."""

    def __init__(self, config: SmallTransformerConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.hidden_size, config.intermediate_size)
        self.contract = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x)))


class Block(nn.Module):
    """One layer: attention and FFN, each with a residual connection and a LayerNorm."""

    def __init__(self, config: SmallTransformerConfig) -> None:
        super().__init__()
        self.norm = config.norm
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.ffn = FeedForward(config)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.norm == "post":  # as in BERT
            x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
            return self.ffn_norm(x + self.dropout(self.ffn(x)))
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))  # as in GPT-2
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class SmallTransformer(nn.Module):
    """Ids and mask (1 for words, 0 for padding) ``(batch, length)`` to states ``(batch, length, hidden_size)``."""

    def __init__(self, config: SmallTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        pre = config.norm == "pre"  # with norm="post" every block already ends in a LayerNorm
        self.final_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps) if pre else nn.Identity()
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Word plus position embeddings: ``(batch, length, hidden_size)``."""
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"the text has {length} tokens, the model reads at most {self.config.max_position_embeddings}: "
                "cut it with the tokenizer (truncation=True)"
            )
        positions = torch.arange(length, device=input_ids.device)
        embedded = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        return self.dropout(self.embedding_norm(embedded))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids)
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        for block in self.blocks:
            x = block(x, mask)
        return self.final_norm(x)

    @classmethod
    def from_minilm(cls, layers: int = 4) -> "SmallTransformer":
        """The lower ``layers`` (1 to 6) of MiniLM with their real pretrained weights, mapped from their file.

        Raises ValueError for a number of layers that MiniLM does not have, PretrainedFileError when its files are
        missing or altered.
        """
        from .data import minilm_weights

        if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= 6:
            raise ValueError(f"MiniLM has 6 layers: ask for 1 to 6, not {layers!r}")
        model, state = cls(SmallTransformerConfig(num_hidden_layers=layers)), from_bert(minilm_weights())
        model.load_state_dict({key: state[key] for key in model.state_dict()}, assign=True)
        return model.eval()


_BERT_NAMES = {  # one after the other, parts of a tensor's name and what they are called here
    "encoder.layer": "blocks",
    "attention.self.": "attention.",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "ffn.expand",
    "output.dense": "ffn.contract",
    "output.LayerNorm": "ffn_norm",
    "embeddings.LayerNorm": "embedding_norm",
    "embeddings.word": "word",
    "embeddings.position": "position",
}


def from_bert(bert: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a BERT under the names of a ``SmallTransformer``, which has all of them but the pooler's."""
    state = {}
    for name, tensor in bert.items():
        for theirs, ours in _BERT_NAMES.items():
            name = name.replace(theirs, ours)
        state[name] = tensor
    # BERT also embeds which of two segments a word is in. Ours is always the first: a constant for all positions.
    segment = state.pop("embeddings.token_type_embeddings.weight")[0]
    state["position_embeddings.weight"] = state["position_embeddings.weight"] + segment
    return state


class Classifier(nn.Module):
    """A base model, the mean over its hidden states, and a linear head.

    ``base_model`` is a ``SmallTransformer``, a transformers encoder, or, with ``architecture`` as for
    ``insert_adapters``, one's own; ``num_labels`` is the number of labels or their names, which are then in ``labels``.
    Shapes: ``input_ids`` and ``attention_mask`` ``(batch, length)`` to logits ``(batch, labels)``. Raises ValueError
    for fewer than 2 labels, other names than texts, a base that has a head.
    """

    def __init__(
        self, base_model: nn.Module, num_labels: int | Sequence[str], *, architecture: Architecture | None = None
    ) -> None:
        super().__init__()
        self.labels = check_labels(num_labels)
        check_bare(base_model, f"Classifier(model.base_model, {len(self.labels)})")
        check_reads_texts(base_model)
        self.base_model = base_model
        self.adapter_architecture = architecture
        self.head = nn.Linear(width_of(base_model, architecture), len(self.labels))

    def features(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """See ``text_features``."""
        return text_features(self.base_model, input_ids, attention_mask, token_type_ids)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        features = self.features(input_ids, attention_mask, token_type_ids)
        return self.head(features.to(self.head.weight.dtype))


def text_features(
    base_model: nn.Module, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
) -> Tensor:
    """Mean of a base model's last hidden states over the words, padding left out: ``(batch, hidden_size)``.

    ``token_type_ids`` say which of two texts each token belongs to; only some base models take them.
    """
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    hidden = base_model(input_ids, attention_mask=attention_mask, **types)
    if not isinstance(hidden, Tensor):
        hidden = hidden.last_hidden_state
    words = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * words).sum(1) / words.sum(1)
