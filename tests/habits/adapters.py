"""Settings of odd types, compositions of adapters, and heads; and whether the hints mend."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from models import WIDTH, make, output, slots, small
from torch import nn

from adapters_lesson import (
    Adapter,
    AdapterBank,
    AdapterConfig,
    Architecture,
    Classifier,
    SmallTransformer,
    drop_adapters,
    insert_adapters,
    load_adapter,
    prepare,
    save_adapter,
    set_active_adapter,
    set_trainable,
)
from adapters_lesson.composition import average_adapters, fuse_adapters, fusion_attention, stack_adapters
from adapters_lesson.insertion import adapter_config
from habits import Habit, gives, holds, refuses, warns
from habits.banks import IDS, MASK, RANDOM, hint, other_way, with_members


def comes_back(folder, **settings):
    """Whether a saved adapter with these settings has equal ones when it is loaded."""
    config = AdapterConfig(**({} if "reduction_factor" in settings else {"bottleneck_dim": 4}) | settings)
    model, other = make("small_post"), make("small_post")
    insert_adapters(model, config)
    save_adapter(model, folder)
    load_adapter(other, folder)
    plain = all(type(v) in (int, float, str, bool, tuple, type(None)) for v in vars(adapter_config(other)).values())
    return plain and adapter_config(other) == adapter_config(model) == config


def with_own_head():
    """A classifier of one's own, with its BERT in an attribute that nobody knows."""

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder_of_mine, self.classifier = make("small_post"), nn.Linear(WIDTH, 2)

    return Mine()


MINE = Architecture("encoder_of_mine.blocks", "attention.output", "ffn.contract", "ffn", ("ffn_norm",), "post")


def two_loads(folder, *, same=False):
    """Two adapters, each with a head of its own, loaded into one classifier."""
    model, other = Classifier(make("small_post"), 2), Classifier(make("small_post"), 2)
    for name in "ab":
        insert_adapters(model, RANDOM, name)
        if not same:
            nn.init.normal_(model.head.weight)
        save_adapter(model, folder, name)
    for name in "ab":
        load_adapter(other, folder, name)
    return other


def a_bank_instead(folder):
    """Whether the hint of ``two_loads`` gives each adapter its own head."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            two_loads(folder)
        except UserWarning as warning:
            code = str(warning).partition("A bank has one for each: ")[2]
    base_model = make("small_post")
    names = {"AdapterBank": AdapterBank, "load_adapter": load_adapter, "base_model": base_model, "folder": folder}
    exec(code, names)
    load_adapter(names["bank"], folder, "a")
    return not torch.equal(names["bank"].heads["a"].weight, names["bank"].heads["b"].weight)


def quietly(call):
    """Whether ``call`` works without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call()
    return True


def members_with(**changes):
    """A model with two adapters, the second with these changes."""
    model = make("small_post")
    insert_adapters(model, AdapterConfig(4), "a")
    insert_adapters(model, AdapterConfig(**{"bottleneck_dim": 4} | changes), "b")
    return model


def mean_is(weights, expected):
    """Whether the mean of two adapters with these weights has these shares."""
    model = with_members()
    first, second = (slots(model)[0][name].down_project.weight for name in "ab")
    mean = average_adapters(model, ["a", "b"], "mean", weights)[0].down_project.weight
    return torch.allclose(mean, expected[0] * first + expected[1] * second, atol=1e-6)


SETTINGS = [
    Habit(f"{name}={value!r} comes back equal", lambda folder, n=name, v=value: comes_back(folder, **{n: v}), holds)
    for name, value in [
        ("train_layer_norms", 1),
        ("train_layer_norms", np.bool_(True)),
        ("train_layer_norms", torch.tensor(False)),
        ("layers", np.arange(2)),
        ("layers", torch.tensor([0, 2])),
        ("layers", range(2)),
        ("layers", {0, 1}),
        ("bottleneck_dim", np.int64(4)),
        ("bottleneck_dim", torch.tensor(4)),
        ("reduction_factor", np.float32(4)),
        ("reduction_factor", 16),
        ("scaling", torch.tensor(2.0)),
        ("scaling", np.float16(2)),
        ("scaling", 4),
        ("dropout", np.float64(0.1)),
        ("activation", np.str_("relu")),
    ]
] + [
    Habit(f"{name}={value!r}", lambda n=name, v=value: AdapterConfig(4, **{n: v}), refuses(*words))
    for name, value, *words in [
        ("layers", 3, "layers must be a list of blocks", "not 3", "layers=[3]", "layers=range(4)"),
        ("layers", "01", "layers must be a list of blocks", "'01'"),
        ("layers", (True,), "layers must be a list of blocks, whole numbers", "True"),
        ("layers", ["0"], "layers must be a list of blocks, whole numbers", "'0'"),
        ("layers", [0.0], "layers must be a list of blocks, whole numbers", "0.0"),
        ("layers", np.array([True, False]), "whole numbers", "True"),
        ("layers", [-1], "counted from 0"),
        ("layers", np.array(1), "layers=[1]"),
        ("train_layer_norms", "no", "train_layer_norms must be True or False, not 'no'"),
        ("train_layer_norms", 2, "True or False, not 2"),
        ("train_layer_norms", None, "True or False, not None"),
        ("dropout", 1, "dropout is a probability in [0, 1), not 1"),
        ("dropout", True, "not True"),
        ("dropout", "0.1", "not '0.1'"),
        ("dropout", None, "not None"),
        ("scaling", float("nan"), "scaling must be a finite number other than 0, not nan"),
        ("scaling", nn.Parameter(torch.ones(())), "scaling must be a finite number", "Parameter"),
        ("scaling", "learned", "scaling must be a finite number", "'learned'"),
        ("scaling", torch.ones(4), "scaling must be a finite number"),
        ("activation", nn.ReLU(), "activation must be one of 'gelu', 'relu'"),
        ("activation", nn.ReLU, "activation must be one of 'gelu', 'relu'"),
        ("placement", ["houlsby"], "placement must be one of 'houlsby'"),
        ("placement", None, "placement must be one of 'houlsby'"),
        ("init_std", "0.1", 'init="zero" has no standard deviation'),
    ]
]
SETTINGS += [
    Habit("reduction_factor='16'", lambda: AdapterConfig(reduction_factor="16"), refuses("reduction_factor", "'16'")),
    Habit("reduction_factor=True", lambda: AdapterConfig(reduction_factor=True), refuses("reduction_factor", "True")),
    Habit("an endless reduction_factor", lambda: AdapterConfig(reduction_factor=float("inf")), refuses("finite")),
    Habit("a width of 16.0", lambda: AdapterConfig(16.0), refuses("bottleneck_dim must be a whole number", "16.0")),
    Habit(
        "a standard deviation in words", lambda: AdapterConfig(4, init="bert", init_std="x"), refuses("init_std", "'x'")
    ),
    Habit("layers=[3] in place of 3", lambda: AdapterConfig(4, layers=[3]).layers, gives((3,))),
    Habit("layers=range(4) in place of 3", lambda: AdapterConfig(4, layers=range(4)).layers, gives((0, 1, 2, 3))),
    Habit("the activation by name in an Adapter", lambda: Adapter(8, 4, "relu"), refuses("for instance nn.ReLU()")),
    Habit("the activation as a class in an Adapter", lambda: Adapter(8, 4, nn.ReLU), refuses("for instance nn.ReLU()")),
    Habit(
        "the activation in an Adapter: the hint",
        lambda: Adapter(8, 4, nn.ReLU())(torch.ones(1, 8)).shape,
        gives((1, 8)),
    ),
    Habit("an Adapter that drops all", lambda: Adapter(8, 4, dropout=1.0), refuses("probability in [0, 1)")),
    Habit("an Adapter with scaling='x'", lambda: Adapter(8, 4, scaling="x"), refuses("scaling must be")),
    Habit(
        "an Adapter with NumPy's widths", lambda: Adapter(np.int64(8), np.int32(4)).down_project.out_features, gives(4)
    ),
    other_way(
        "a width in place of a config",
        lambda m: insert_adapters(m, 12),
        "insert_adapters(model, AdapterConfig(12))",
        small,
    ),
    Habit(
        "settings in place of a config",
        lambda: insert_adapters(small(), {}),
        refuses("must be an AdapterConfig, not {}"),
    ),
    Habit(
        "the class in place of a config",
        lambda: insert_adapters(small(), AdapterConfig),
        refuses("be an AdapterConfig"),
    ),
    Habit("no config", lambda: insert_adapters(small(), None), refuses("must be an AdapterConfig, not None")),
    Habit("config and model exchanged", lambda: insert_adapters(RANDOM, small()), refuses("not SmallTransformer:")),
    Habit("a width for prepare", lambda: prepare(Classifier(small(), 2), "adapter", 8), refuses("AdapterConfig(8)")),
    Habit(
        "a name in place of a model",
        lambda: insert_adapters("bert-base-uncased", RANDOM),
        refuses("for instance model = load_minilm()", "'bert-base-uncased'"),
    ),
    Habit("a number as an adapter's name", lambda: insert_adapters(small(), RANDOM, 5), refuses("5 cannot name")),
    Habit("None as an adapter's name", lambda: insert_adapters(small(), RANDOM, None), refuses("None cannot name")),
    Habit("one layer to drop", lambda: drop_adapters(with_members(), 1), refuses("layers=[1]", "layers=range(2)")),
    Habit("layers to drop as texts", lambda: drop_adapters(with_members(), ["0"]), refuses("whole numbers", "'0'")),
    Habit("layers to drop in an array", lambda: drop_adapters(with_members(), np.arange(2)), gives(None)),
    Habit("no layers to drop", lambda: drop_adapters(with_members(), None), refuses("layers must be a list")),
]


def own_class(mended):
    """A class of one's own whose head is not found, or is."""
    model = with_own_head()
    if mended:
        model.base_model = model.encoder_of_mine
        insert_adapters(model, RANDOM)
        return quietly(lambda: set_trainable(model, head=True)) and model.classifier.weight.requires_grad
    insert_adapters(model, RANDOM, architecture=MINE)
    return set_trainable(model, head=True)


def tied():
    """A language model whose head is its embeddings."""
    model = make("gpt2_head")
    insert_adapters(model, RANDOM)
    set_trainable(model, head=True)
    return output(model)


def composed():
    """A model with a stack, and a fusion of that."""
    model = with_members("a", "b", "c")
    stack_adapters(model, ["a", "b"], "s")
    fuse_adapters(model, ["s", "c"], "f")
    return model


def then(call, mend, words, **changes):
    """Whether ``call`` is refused with these words, and ``mend`` is not."""
    try:
        call(members_with(**changes))
    except ValueError as error:
        assert words in str(error), error
        return len(mend(members_with(**changes))) > 0
    return False


MODELS = [
    hint("unknown adapters", lambda m: set_active_adapter(m, "x"), "insert_adapters(model, config, 'x')", small),
    hint("no adapters to train", set_trainable, "insert_adapters(model, config)", lambda: Classifier(small(), 2)),
    hint("no adapters to drop", lambda m: drop_adapters(m, [0]), "insert_adapters(model, config)", small),
    hint("a name twice", lambda m: insert_adapters(m, RANDOM, "a"), "remove_adapters(model, 'a')", with_members),
    hint(
        "a name twice that others need",
        lambda m: insert_adapters(m, RANDOM, "a"),
        "remove_adapters(model, 'f'); remove_adapters(model, 's'); remove_adapters(model, 'a')",
        composed,
    ),
    other_way(
        "a Classifier on a head",
        lambda m: Classifier(m, 3),
        "Classifier(model.bert, 3)",
        lambda: make("bert_head"),
    ),
    Habit(
        "a Classifier on a module that is no model",
        lambda: Classifier(nn.Linear(768, 768), 2),
        refuses("Linear is not in the table of architectures", "say where the parts are"),
    ),
    Habit(
        "head=True without a head",
        lambda: set_trainable(with_members(), "a", head=True),
        warns("no head of SmallTransformer was found"),
    ),
    Habit(
        'prepare(model, "head") without a head', lambda: prepare(small(), "head"), warns("no head of SmallTransformer")
    ),
    Habit("no head: the hint", lambda: quietly(lambda: prepare(Classifier(small(), 2), "head")), holds),
    Habit("a class of one's own: its base is found", lambda: quietly(lambda: own_class(False)), holds),
    Habit("a class of one's own: the hint", lambda: own_class(True), holds),
    Habit("head=True with a tied lm_head", tied, warns("its head is tied to the embeddings")),
    Habit("two loads, one head", two_loads, warns("now that of 'b'", "'a' would answer with it")),
    Habit("two loads, one head: the hint", a_bank_instead, holds),
    Habit("two loads with the same head", lambda folder: quietly(lambda: two_loads(folder, same=True)), holds),
    Habit(
        "layers that a model lacks",
        lambda: insert_adapters(small(), AdapterConfig(4, layers=[3])),
        refuses("use 0 to 2"),
    ),
    Habit("no layers of MiniLM", lambda: SmallTransformer.from_minilm(0), refuses("ask for 1 to 6, not 0")),
    Habit("a text that is too long", lambda: small()(IDS.repeat(1, 9)), refuses("36 tokens", "truncation=True")),
]

COMPOSITIONS = [
    Habit("weights whose sum is endless", lambda: mean_is([1e308, 1e308], (0.5, 0.5)), holds),
    Habit("weights of PyTorch", lambda: mean_is(torch.tensor([1.0, 3.0]), (0.25, 0.75)), holds),
    Habit("weights of NumPy", lambda: mean_is(np.array([1, 3]), (0.25, 0.75)), holds),
    Habit("tiny weights", lambda: mean_is([5e-324, 5e-324], (0.5, 0.5)), holds),
    *[
        Habit(
            f"weights={weights!r}",
            lambda w=weights: average_adapters(with_members(), ["a", "b"], "n", w),
            refuses(words),
        )
        for weights, words in [
            (0.5, "a mean needs 2 numbers"),
            (["1", "1"], "a mean needs 2 numbers"),
            ([True, False], "a mean needs 2 numbers"),
            ([None, 1], "a mean needs 2 numbers"),
            ({"a": 1, "b": 2}, "a mean needs 2 numbers"),
            ([float("inf"), 1], "a mean needs 2 numbers"),
            (torch.tensor(0.5), "a mean needs 2 numbers"),
            ([], "a mean needs 2 numbers"),
        ]
    ],
    *[
        Habit(
            f"names={names!r} of a stack", lambda n=names: stack_adapters(with_members(), n, "n"), refuses("in a list")
        )
        for names in ["ab", None, 2, {"a"}, [["a"], ["b"]], ["a", 1], ["a", "a"], []]
    ],
    Habit("names of a stack in a set", lambda: stack_adapters(with_members(), {"a", "b"}, "n"), refuses("in a list")),
    Habit("names in an array", lambda: len(stack_adapters(with_members(), np.array(["a", "b"]), "n")), gives(3)),
    Habit(
        "widths that have no mean: the hint",
        lambda: then(
            lambda m: average_adapters(m, ["a", "b"], "n"),
            lambda m: fuse_adapters(m, ["a", "b"], "n"),
            "a fusion takes both",
            bottleneck_dim=3,
        ),
        holds,
    ),
    Habit(
        "norms that have no stack: the hint",
        lambda: then(
            lambda m: stack_adapters(m, ["a", "b"], "n"),
            lambda _: stack_adapters(members_with(train_layer_norms=False), ["a", "b"], "n"),
            "train_layer_norms=False",
            train_layer_norms=True,
        ),
        holds,
    ),
    other_way(
        "the attention of a stack",
        lambda m: fusion_attention(m, "a", IDS, MASK),
        "fuse_adapters(model, names, 'fusion')",
        with_members,
        names=["a", "b"],
    ),
]

HABITS = SETTINGS + MODELS + COMPOSITIONS
