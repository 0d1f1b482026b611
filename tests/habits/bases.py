"""Base models of all kinds: transformers' architectures, models of one's own, and weights on which nothing can stand."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import torch
import transformers as hf
from models import WIDTH, forward, make, output, slots
from torch import nn

from adapters_lesson import (
    AdapterBank,
    AdapterConfig,
    Architecture,
    Classifier,
    drop_adapters,
    insert_adapters,
    load_adapter,
    prepare,
    remove_adapters,
    save_adapter,
    set_trainable,
)
from adapters_lesson.architectures import ARCHITECTURES, base_model_of
from adapters_lesson.guards.base_guard import EXAMPLE
from adapters_lesson.memory_tricks import LowerBlocks, checkpointed
from adapters_lesson.training import Texts
from habits import Habit, gives, holds, refuses, warns

IDS = torch.arange(2, 14).view(2, 6)
MASK = torch.ones_like(IDS)


class Block(nn.Module):
    """A block as the example in the refusal of an unknown architecture says it is."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.ffn = nn.Module(), nn.Module()
        self.attn.query, self.attn.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attn.proj = nn.Linear(WIDTH, WIDTH)
        self.ffn.inner, self.ffn.out = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attn.proj((self.attn.query(h).softmax(1) * self.attn.value(h)).cumsum(1))
        return x + self.ffn.out(self.ffn.inner(self.norm2(x)).tanh())


class Plain(nn.Module):
    """An encoder of one's own, of which no table knows."""

    def __init__(self):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(40, WIDTH), nn.ModuleList(Block() for _ in range(2))

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


AT = Architecture(
    layers="blocks",
    attention_output="attn.proj",
    ffn_output="ffn.out",
    ffn_input="norm2",
    norms=("norm1", "norm2"),
    norm="pre",
    lora_targets=("query", "value"),
)


class Own(nn.Module):
    """A classifier of one's own around an encoder, whatever it is called."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, input_ids, attention_mask=None):
        hidden = next(self.children())(input_ids, attention_mask=attention_mask)
        return self.classifier((hidden if isinstance(hidden, torch.Tensor) else hidden[0])[:, 0])


def own(name="bert", kind="bert"):
    """The parts as people call them: ``self.bert``, ``self.encoder`` …"""
    torch.manual_seed(0)
    return Own(**{name: make(kind) if kind else Plain()}).eval()


def trained(model, config=None, **named):
    """What is trained beside the adapters, by the first part of its path."""
    insert_adapters(model, config or AdapterConfig(4), **named)
    set_trainable(model)
    return beside(model)


def beside(model):
    return sorted({n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad and "adapters_" not in n})


def round_trip(folder, make_model, **named):
    """Whether another model of the same base, loaded, answers as the one that was saved, head and all."""
    model, other = make_model(), make_model()
    insert_adapters(model, AdapterConfig(4, init="bert"), **named)
    with torch.no_grad():
        model.classifier.weight.mul_(2)
    save_adapter(model, folder)
    load_adapter(other, folder, **named)
    return torch.equal(output(other), output(model))


def hint(name=None):
    """The worked example in the refusal, executed as it stands."""
    model, config = Plain().eval(), AdapterConfig(4)
    before = output(model)
    exec(EXAMPLE, {"model": model, "config": config, "insert_adapters": insert_adapters, "Architecture": Architecture})
    return len(slots(model)) == 4 and torch.equal(output(model), before)


def refused(model, config=None, **named):
    """Insertion; a refusal must leave the model as it was."""
    before = [*model.state_dict()]
    try:
        insert_adapters(model, config or AdapterConfig(4), **named)
    finally:
        assert [*model.state_dict()] == before


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(make("bert"), {nn.Linear})


def integers():
    model = make("bert")
    projection = model.encoder.layer[1].attention.output.dense
    projection.weight = nn.Parameter((projection.weight * 10).to(torch.int8), requires_grad=False)
    return model


def in_inference_mode():
    with torch.inference_mode():
        return make("bert")


def insert_in_inference_mode():
    model = make("bert")
    with torch.inference_mode():
        refused(model)


def serve_in_inference_mode(folder):
    """Loading and answering inside the block was always right."""
    model = make("bert")
    insert_adapters(model, AdapterConfig(4, init="bert"))
    save_adapter(model, folder)
    with torch.inference_mode():
        other = make("bert")
        load_adapter(other, folder)
        return torch.equal(forward(other), output(model))


def half_on_meta():
    model = make("bert")
    model.encoder.layer[1].to("meta")
    return model


def without_norm_weights(only_first=False):
    model = Plain()
    for block in model.blocks:
        block.norm1 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        block.norm2 = block.norm2 if only_first else nn.LayerNorm(WIDTH, elementwise_affine=False)
    return model


def sharing(what):
    model = Plain()
    if what == "ffn":
        model.blocks[1].ffn = model.blocks[0].ffn
    else:
        model.blocks = nn.ModuleList([model.blocks[0]] * 3)
    return model


def everywhere(folder):
    """``architecture=`` once, and every function knows it."""
    model = Plain().eval()
    with checkpointed(model, architecture=AT):
        model(IDS).sum().backward()
    prepare(model, "adapter", AdapterConfig(4, init="bert"), architecture=AT)
    with checkpointed(model):
        model(IDS).sum().backward()
    answers = output(model)
    save_adapter(model, folder)
    remove_adapters(model)
    load_adapter(model, folder, architecture=AT)
    same = torch.equal(output(model), answers)
    drop_adapters(copy.deepcopy(model), [0])
    save_adapter(model, folder)
    return same and "adapter_architecture" in vars(model)


def bank_of_ones_own(folder):
    bank = AdapterBank(Plain(), architecture=AT)
    for name, placement in (("a", "houlsby"), ("b", "parallel")):
        bank.add(name, AdapterConfig(4, placement=placement, init="bert"), 2)
    answers = bank.eval()(IDS, MASK, ["b", "a"])
    save_adapter(bank, folder, "b")
    bank.remove("b")
    load_adapter(bank, folder)
    return all(torch.equal(*pair) for pair in zip(bank.eval()(IDS, MASK, ["b", "a"]), answers, strict=True))


def classifier_of_ones_own():
    model = Classifier(Plain(), 2, architecture=AT)
    prepare(model, "adapter")
    with checkpointed(model):
        model(IDS, MASK).sum().backward()
    return beside(model)


def executed(line, model, **names):
    """``line``, a hint, with ``model`` and what it needs."""
    exec(line, {"model": model, "copy": copy, **names})
    return model


def told_base():
    """The hint for a class of one's own, executed, then the same again."""
    model = type("Mine", (Own,), {})(net=Plain())
    at = replace(AT, layers="net.blocks")
    insert_adapters(model, AdapterConfig(4), architecture=at)
    executed("type(model).base_model = property(lambda model: model.net)", model)
    set_trainable(model)
    return beside(model)


def flat():
    """Embeddings, blocks and head side by side."""
    model = type("Flat", (Plain,), {})()
    model.head = nn.Linear(WIDTH, 2)
    return model


class Wrapped(nn.Module):
    """As sentence-transformers wraps a model."""

    def __init__(self):
        super().__init__()
        self.auto_model = make("bert")


class TorchEncoder(nn.Module):
    """PyTorch's own encoder, which has a fast path without hooks."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)
        self.embed, self.encoder = nn.Embedding(40, WIDTH), nn.TransformerEncoder(layer, 2)

    def forward(self, input_ids, attention_mask=None):
        return self.encoder(self.embed(input_ids))


TORCH = Architecture("encoder.layers", "self_attn.out_proj", "linear2", "linear1", ("norm1", "norm2"), "post")


def torch_encoder(placement):
    model = TorchEncoder().eval()
    before = output(model)
    insert_adapters(model, AdapterConfig(4, placement=placement, init="bert", init_std=0.5), architecture=TORCH)
    return not torch.allclose(output(model), before, atol=1e-3)


def keeps_lower_blocks(name, layers):
    from models import toy_data

    model = Classifier(make(name), 2)
    prepare(model, "adapter", AdapterConfig(4, layers=layers))
    return LowerBlocks(model, Texts.of(toy_data(4)) if hasattr(Texts, "of") else Texts(toy_data(4)))


ALBERT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "embedding_size": 8}

HABITS = [
    # --- Models of one's own ---
    *(
        Habit(f"self.{name} = a {kind}", lambda n=name, k=kind: trained(own(n, k)), gives(["classifier"]))
        for name, kind in (("bert", "bert"), ("encoder", "roberta"), ("t5", "t5_stack"), ("encoder", "gpt2"))
    ),
    Habit("self.bert, saved and loaded", lambda folder: round_trip(folder, own), holds),
    Habit(
        "self.bert and an architecture that names it from outside",
        lambda: trained(own(), architecture=replace(ARCHITECTURES["bert"], layers="bert.encoder.layer")),
        gives(["classifier"]),
    ),
    Habit(
        "such an architecture, saved and loaded",
        lambda folder: round_trip(
            folder, own, architecture=replace(ARCHITECTURES["bert"], layers="bert.encoder.layer")
        ),
        holds,
    ),
    Habit("a model of one's own in another", lambda: trained(Own(inner=own())), gives(["classifier", "inner"])),
    Habit(
        "one encoder under two names",
        lambda: trained(Own(**dict.fromkeys(("query", "passage"), make("bert")))),
        gives(["classifier"]),
    ),
    Habit(
        "two encoders",
        lambda: refused(Own(query=make("bert"), passage=make("bert"))),
        refuses("it has 2 inside (query, passage): insert_adapters(model.query, config)"),
    ),
    Habit(
        "one of two encoders",
        lambda: insert_adapters(Own(a=make("bert"), b=make("bert")).a, AdapterConfig(4)) != [],
        holds,
    ),
    Habit(
        "a bank on a model with a head of one's own",
        lambda: AdapterBank(own()),
        refuses("AdapterBank(model.bert)"),
    ),
    Habit("a bank on its base", lambda: AdapterBank(own().bert).add("film", AdapterConfig(4), 2), gives(None)),
    Habit(
        "a head that nothing tells from the base",
        lambda: trained(Own(net=Plain()), architecture=replace(AT, layers="net.blocks")),
        warns("classifier of Own is frozen", "type(model).base_model = property(lambda model: model.net)"),
    ),
    Habit(
        "a head beside blocks and embeddings",
        lambda: trained(flat(), architecture=AT),
        warns("head of Flat is frozen", "model.head.requires_grad_(True)"),
    ),
    Habit(
        "it is trained by hand",
        lambda: (m := flat(), trained(m, architecture=AT), executed("model.head.requires_grad_(True)", m), beside(m))[
            -1
        ],
        gives(["head"]),
    ),
    Habit(
        "meant as it is",
        lambda: (m := flat(), prepare(m, "adapter", head=False, architecture=AT), beside(m))[-1],
        gives([]),
    ),
    Habit("it is told", told_base, gives(["classifier"])),
    Habit(
        "only a head of which nothing is known", lambda: prepare(Own(net=Plain()), "head"), warns("classifier of Own")
    ),
    Habit(
        "the head of a bare base",
        lambda: (m := make("bert"), insert_adapters(m, AdapterConfig(4)), set_trainable(m, head=True)),
        warns("no head of BertModel was found"),
    ),
    Habit(
        "the head of a model whose head is tied", lambda: prepare(make("gpt2_head"), "head"), warns("no head of GPT2")
    ),
    Habit(
        "biases where there are none",
        lambda: prepare(Classifier(make("llama"), 2), "bitfit"),
        warns("nothing to train"),
    ),
    Habit(
        "as sentence-transformers wraps it", lambda: trained(nn.Sequential(Wrapped(), nn.Linear(16, 8))), gives(["1"])
    ),
    Habit("in DataParallel", lambda: trained(nn.DataParallel(own())), gives(["module"])),
    # --- Architectures that the table does not know ---
    Habit("an architecture of which nothing is known", lambda: refused(Plain()), refuses("Plain is not", EXAMPLE)),
    Habit(
        "transformers' Bloom",
        lambda: refused(hf.BloomModel(hf.BloomConfig(n_layer=1, hidden_size=8, n_head=2, vocab_size=9))),
        refuses("the architecture 'bloom' of BloomModel", EXAMPLE),
    ),
    Habit("the example of that refusal", hint, holds),
    Habit("an architecture of one's own everywhere", everywhere, holds),
    Habit("a bank on a model of one's own", bank_of_ones_own, holds),
    Habit("a bank on it without a word about it", lambda: AdapterBank(Plain()), refuses("Plain is not in the table")),
    Habit("a classifier on a model of one's own", classifier_of_ones_own, gives(["head"])),
    Habit(
        "LoRA on a model of one's own",
        lambda: len([n for n in prepare(Plain(), "lora", architecture=AT).names if "lora_A" in n]),
        gives(4),
    ),
    Habit("an architecture by its name", lambda: trained(make("bert"), architecture="roberta"), gives([])),
    Habit("by a name that is none", lambda: refused(make("bert"), architecture="robert"), refuses("not 'robert'")),
    Habit(
        "a dictionary", lambda: refused(make("bert"), architecture={"layers": "h"}), refuses("must be an Architecture")
    ),
    Habit("the class", lambda: refused(make("bert"), architecture=Architecture), refuses("must be an Architecture")),
    Habit("norms as one text", lambda: replace(AT, norms="norm2").norms, gives(("norm2",))),
    Habit("norms as a list", lambda: replace(AT, norms=["norm1", "norm2"]) == AT, holds),
    Habit("norms left empty", lambda: replace(AT, norms=()), refuses("norms must name the LayerNorms")),
    Habit(
        "a norm that is a module", lambda: replace(AT, norms=(nn.LayerNorm(4),)), refuses("norms must name a module")
    ),
    Habit("layers=None", lambda: replace(AT, layers=None), refuses("layers must name a module by its path, not None")),
    Habit("layers with a bracket", lambda: replace(AT, layers="blocks["), refuses("not 'blocks['")),
    Habit("model_dim of NumPy", lambda: type(replace(AT, model_dim=np.int64(16)).model_dim), gives(int)),
    Habit("model_dim=True", lambda: replace(AT, model_dim=True), refuses("model_dim must be a whole number", "True")),
    Habit(
        "another model_dim than there is",
        lambda: refused(Plain(), architecture=replace(AT, model_dim=8)),
        refuses("model_dim says 8", "ffn_output='ffn.out' says 16"),
    ),
    Habit(
        "the wrong projection of the FFN",
        lambda: refused(Plain(), architecture=replace(AT, ffn_output="ffn.inner")),
        refuses("ffn_output='ffn.inner' says 32", "mend the Architecture"),
    ),
    Habit(
        "the wrong projection of the attention",
        lambda: refused(Plain(), architecture=replace(AT, attention_output="ffn.inner")),
        refuses("attention_output='ffn.inner' says 32", "mend the Architecture"),
    ),
    *(Habit(f"PyTorch's encoder, {p}", lambda p=p: torch_encoder(p), holds) for p in ("pfeiffer", "parallel")),
    Habit(
        "PyTorch's encoder, houlsby", lambda: torch_encoder("houlsby"), refuses("an nn.MultiheadAttention", "placement")
    ),
    # --- Architectures that are different ---
    Habit(
        "one block, called five times",
        lambda: len(insert_adapters(hf.AlbertModel(hf.AlbertConfig(**ALBERT)), AdapterConfig(4))),
        gives(2),
    ),
    Habit(
        "the fourth of ALBERT's layers",
        lambda: refused(hf.AlbertModel(hf.AlbertConfig(**ALBERT)), AdapterConfig(4, layers=(3,))),
        refuses("the model has 1 block, which may be called several times"),
    ),
    Habit(
        "one block three times in a list",
        lambda: len(insert_adapters(sharing("block"), AdapterConfig(4), architecture=AT)),
        gives(2),
    ),
    Habit(
        "blocks that share their FFN",
        lambda: refused(sharing("ffn"), architecture=AT),
        refuses("several blocks share one Linear", "layers=(0,)"),
    ),
    Habit(
        "blocks that share their FFN, with one adapter",
        lambda: len(insert_adapters(sharing("ffn"), AdapterConfig(4, layers=(0,)), architecture=AT)),
        gives(2),
    ),
    Habit(
        "a classifier on a whole T5", lambda: Classifier(make("t5"), 2), refuses("Classifier(model.get_encoder(), 2)")
    ),
    Habit("a classifier on T5's encoder", lambda: trained(Classifier(make("t5").get_encoder(), 2)), gives(["head"])),
    Habit(
        "a bank on a whole T5", lambda: AdapterBank(make("t5")).add("a", AdapterConfig(4), 2), refuses("get_encoder()")
    ),
    Habit(
        "T5's lower blocks kept in memory",
        lambda: keeps_lower_blocks("t5_encoder", (2,)),
        refuses("T5Block returns more than hidden states", "cache_frozen=False"),
    ),
    Habit(
        "BART's lower blocks kept in memory",
        lambda: keeps_lower_blocks("bart", (2,)),
        refuses("no single stack", "cache_frozen=False"),
    ),
    Habit("narrower at the end than inside", lambda: Classifier(make("opt_post"), 2)(IDS, MASK).shape, gives((2, 2))),
    Habit(
        "norms without weights",
        lambda: refused(without_norm_weights(), AdapterConfig(4, train_layer_norms=True), architecture=AT),
        refuses("leave train_layer_norms out"),
    ),
    Habit(
        "norms without weights, left alone",
        lambda: len(insert_adapters(without_norm_weights(), AdapterConfig(4), architecture=AT)),
        gives(4),
    ),
    Habit(
        "one norm of two without weights",
        lambda: trained(without_norm_weights(True), AdapterConfig(4, train_layer_norms=True), architecture=AT),
        gives(["blocks"]),
    ),
    # --- Weights on which nothing can stand ---
    Habit(
        "quantised linear layers", lambda: refused(quantised()), refuses("attention.self.query is a quantised Linear")
    ),
    Habit("weights in int8", lambda: refused(integers()), refuses("attention.output.dense.weight is torch.int8")),
    Habit(
        "weights in float8", lambda: refused(make("bert").to(torch.float8_e4m3fn)), refuses("model.bfloat16() first")
    ),
    Habit(
        "weights in float8, mended",
        lambda: trained(executed("model.bfloat16()", make("bert").to(torch.float8_e4m3fn))),
        gives([]),
    ),
    Habit("weights in float16", lambda: trained(make("bert").half()), gives([])),
    Habit(
        "a block on the meta device",
        lambda: refused(half_on_meta()),
        refuses("block 1 has no numbers yet", "assign=True"),
    ),
    Habit(
        "that block, loaded",
        lambda: trained(
            executed("model.load_state_dict(weights, assign=True)", half_on_meta(), weights=make("bert").state_dict())
        ),
        gives([]),
    ),
    Habit("a model on the meta device, to be counted", lambda: trained(make("bert").to("meta")), gives([])),
    Habit(
        "weights made in inference mode", lambda: refused(in_inference_mode()), refuses("model = copy.deepcopy(model)")
    ),
    Habit("such weights, copied", lambda: trained(copy.deepcopy(in_inference_mode())), gives([])),
    Habit(
        "insertion in inference mode",
        insert_in_inference_mode,
        refuses("torch.inference_mode()", "leave the with block"),
    ),
    Habit("serving in inference mode", serve_in_inference_mode, holds),
    Habit("the base of it all", lambda: type(base_model_of(own())).__name__, gives("BertModel")),
]
