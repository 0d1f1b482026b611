"""The exam's faults to find: four functions of a colleague's, each with faults that are drawn from a list."""

from __future__ import annotations

from exam_variants import Plant, knob

_PRE = """    h = block.attention(block.attention_norm(x), mask)
    x = x + h
    h = block.ffn(block.ffn_norm(x))
    return x + h
"""
_PARALLEL = """    n = block.attention_norm(x)
    h = block.attention(n, mask)
    return x + h + block.ffn(n)
"""
_FFN_FIRST = """    x = block.ffn_norm(x + block.ffn(x))
    h = block.attention(x, mask)
    return block.attention_norm(x + h)
"""
_BY_SEED = """    results = {}
    for seed in seeds:
        results[seed] = []
        for m in widths:
            torch.manual_seed(seed)
            results[seed].append(train_and_validate(build(m), seed))
    return results
"""
_MEANS = """    results = {}
    for m in widths:
        values = []
        for seed in seeds:
            torch.manual_seed(seed)
            values.append(train_and_validate(build(m), seed))
        results[m] = sum(values) / len(values)
    return results
"""
_ALONE = """def _alone(m, seed):
    torch.manual_seed(seed)
    return _train(_build(m), seed)


"""
_SWITCHES = """    switches = {}
    for name in model.heads:

        def switch(name=name):
            for place in model.places:
                for task, adapter in place.items():
                    adapter.active = $works
            model.head = model.heads[name]

        switches[name] = switch
$more    return switches
"""
_OFF = """
    def off():
        for place in model.places:
            for adapter in place.values():
                adapter.active = False
        model.head = None

    switches["$other"] = off
"""
_TRAINING = """    insert_adapters(model, config)
    set_trainable(model)
$extra    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    for input_ids, attention_mask, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(input_ids, attention_mask), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
"""
_FREE = """    for name, parameter in model.named_parameters():
        if {}:
            parameter.requires_grad_(True)
"""

PLANTS = (
    Plant(
        "2.3",
        "**Write** the function so that it computes a block of another kind than MiniLM's, out of `block.attention`, "
        "`block.attention_norm`, `block.ffn` and `block.ffn_norm`: $words. There is one fault in this version.",
        (
            knob(
                "words solution right",
                (
                    "the norms stand in front, y = x + attention(LN(x)) and then y + FFN(LN(y)), each half with its own norm",
                    _PRE,
                    "((lambda y: y + _b.ffn(_b.ffn_norm(y)))(_x + _b.attention(_b.attention_norm(_x), _mask))).norm(dim=-1)",
                ),
                (
                    "both halves read the same, x + attention(LN(x)) + FFN(LN(x)), with `attention_norm` for both",
                    _PARALLEL,
                    "(_x + _b.attention(_b.attention_norm(_x), _mask) + _b.ffn(_b.attention_norm(_x))).norm(dim=-1)",
                ),
                (
                    "the FFN comes first, y = LN(x + FFN(x)) and then LN(y + attention(y)), each half with its own norm",
                    _FFN_FIRST,
                    "((lambda y: _b.attention_norm(y + _b.attention(y, _mask)))(_b.ffn_norm(_x + _b.ffn(_x)))).norm(dim=-1)",
                ),
            ),
        ),
        planted=(
            ((", mask)", ", None)"),),
            (("block.attention_norm(x), mask", "x, mask"),),
            (("block.ffn_norm(x))\n    return x", "block.attention_norm(x))\n    return x"),),
            (("    x = x + h\n    h = block", "    h = block"),),
            (("block.ffn(n)", "block.ffn(h)"),),
            (("x + h + block.ffn(n)", "n + h + block.ffn(n)"),),
            (("block.ffn_norm(x + block.ffn(x))", "block.ffn_norm(block.ffn(x))"),),
            (("return block.attention_norm(x + h)", "return block.ffn_norm(x + h)"),),
            (("return block.attention_norm(x + h)", "return block.attention_norm(h)"),),
        ),
        test="""from adapters_lesson import SmallTransformerConfig

torch.manual_seed(0)
_b = Block(SmallTransformerConfig(20, $d, num_attention_heads=2, intermediate_size=$inner)).eval()
for _parameter in _b.parameters():
    nn.init.normal_(_parameter, std=0.5)
_x, _mask = torch.randn(2, $length, $d), torch.arange($length) < torch.tensor([$length, 2])[:, None, None, None]
with torch.no_grad():
    _given = $function(_b, _x.clone(), _mask).norm(dim=-1)
    _right = $right
assert torch.allclose(_given, torch.as_tensor(_right), rtol=1e-3), "that is another block's output: its lengths differ"
""",
        sizes=lambda draw: {"d": draw.choice((4, 8, 12)), "inner": draw.randint(9, 30), "length": draw.randint(4, 9)},
    ),
    Plant(
        "5.4",
        "**Write** the function so that it trains $what, and nothing else. It returns one loss for each batch. There "
        "are two faults in this version.",
        (
            knob(
                "what extra free head",
                (
                    "new adapters alone, and the head stays as it is",
                    "    model.head.requires_grad_(False)\n",
                    "False",
                    "False",
                ),
                (
                    "new adapters, the head and the base's LayerNorms",
                    _FREE.format('"norm" in name'),
                    '"norm" in name',
                    "True",
                ),
                (
                    "new adapters, the head and the biases of the base's FFNs",
                    _FREE.format('"ffn" in name and name.endswith("bias")'),
                    '"ffn" in name and name.endswith("bias")',
                    "True",
                ),
            ),
            knob("solution", (_TRAINING,)),
        ),
        faults=2,
        planted=(
            (
                ("[p for p in model.parameters() if p.requires_grad]", "model.parameters()"),
                ("    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)\n", ""),
                (
                    "    insert_adapters(",
                    "    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)\n    insert_adapters(",
                ),
            ),
            (("    set_trainable(model)\n", ""),),
            (("$extra", ""),),
            (("losses.append(loss.item())", "losses = [loss.item()]"),),
        ),
        test="""from adapters_lesson import SmallTransformerConfig

_model = Classifier(SmallTransformer(SmallTransformerConfig(20, $d, $blocks, 2, 16, dropout=0.0)), 2)
_base, _head = dict(_model.base_model.named_parameters()), _model.head.weight.detach().clone()
_old = {name: p.detach().clone() for name, p in _base.items()}
_batches = [(torch.randint(1, 20, (4, 5)), torch.ones(4, 5).long(), torch.tensor([0, 1, 1, 0])) for _ in range($n)]
_losses = $function(_model, AdapterConfig(2), _batches, 0.05)
assert len(_losses) == $n and all(isinstance(loss, float) for loss in _losses), "one loss for each batch"
for name, p in _base.items():
    assert p.requires_grad == ($free), f"trainable, or frozen, by mistake: {name}"
    assert torch.equal(p, _old[name]) != ($free), f"has moved, or has not: {name}"
_adapters = [m for m in _model.modules() if isinstance(m, Adapter)]
assert _adapters and all(a.up_project.weight.any() for a in _adapters), "the adapters have not learnt"
assert torch.equal(_model.head.weight, _head) != $head, "the head: it has moved, or has not"
""",
        sizes=lambda draw: {"d": draw.choice((8, 12)), "blocks": draw.randint(1, 2), "n": draw.randint(3, 5)},
    ),
    Plant(
        "6.4",
        "**Write** the sweep so that every run comes out as if it were the only one: a model of its own, whose weights "
        "follow the run's seed. It returns $what. There are two faults in this version.",
        (
            knob(
                "what solution right",
                (
                    "the list of accuracies **for each seed**, in the order of the widths",
                    _BY_SEED,
                    "{seed: [_alone(m, seed) for m in _widths] for seed in _seeds}",
                ),
                (
                    "**the mean accuracy** for each width",
                    _MEANS,
                    "{m: sum(_alone(m, seed) for seed in _seeds) / len(_seeds) for m in _widths}",
                ),
            ),
            knob("alone", (_ALONE,)),
        ),
        faults=2,
        planted=(
            (
                (
                    "        for m in widths:\n            torch.manual_seed(seed)\n",
                    "        torch.manual_seed(seed)\n        for m in widths:\n",
                ),
            ),
            (
                ("            torch.manual_seed(seed)\n", ""),
                ("    results = {}\n", "    torch.manual_seed(0)\n    results = {}\n"),
            ),
            (
                ("    results = {}\n", "    results, models = {}, {m: build(m) for m in widths}\n"),
                ("build(m), seed)", "models[m], seed)"),
            ),
            (("train_and_validate(build(m), seed)", "train_and_validate(build(m), 0)"),),
            (("    for m in widths:\n        values = []\n", "    values = []\n    for m in widths:\n"),),
        ),
        test="""def _build(bottleneck_dim):
    return torch.nn.Linear(bottleneck_dim, 2)


def _train(model, seed):
    model.bias.data += 1 + seed
    return torch.cat([model.weight.flatten(), model.bias]).sum().item()


${alone}_widths, _seeds = [$c, 2], [$a, 0, $b]
_given = $function(_build, _train, list(_widths), list(_seeds))
_right = $right
assert _given.keys() == _right.keys(), "it has other keys"
for _key in _right:
    _values, _rights = torch.tensor(_given[_key]), torch.tensor(_right[_key])
    assert _values.shape == _rights.shape and torch.allclose(_values, _rights), "a run depends on the others"
""",
        sizes=lambda draw: {name: draw.randint(3 * k, 3 * k + 2) for k, name in enumerate("abc", 1)},
    ),
    Plant(
        "8.2",
        "**Write** the function so that `switches[task]()` lets the adapters of `task` work in all places, $others, and "
        "its own head answer$besides. There are two faults in this version.",
        (
            knob(
                "tried expected others besides works more",
                (
                    ', "$other"',
                    "_name == _task and _task in _tasks",
                    "no others",
                    '; and `switches["$other"]()` lets no adapter work and no head answer: `model.head` is None',
                    "task == name",
                    _OFF,
                ),
                (
                    "",
                    '_name in (_task, "$other")',
                    "beside them those called `$other`, which every place has and always work, no others",
                    "",
                    'task in (name, "$other")',
                    "",
                ),
            ),
            knob("other", ("bare",), ("common",), ("plain",), ("general",)),
            knob("solution", (_SWITCHES,)),
        ),
        faults=2,
        planted=(
            (("def switch(name=name):", "def switch():"),),
            (("adapter.active = $works", "adapter.active = adapter.active or $works"),),
            (("            model.head = model.heads[name]\n", ""),),
            (("        model.head = None\n", ""),),
            ((' in (name, "$other")', " == name"),),
            (
                (
                    "                for task, adapter in place.items():\n                    adapter.active = $works\n            model",
                    "                for task, adapter in place.items():\n                    adapter.active = $works\n                break\n            model",
                ),
            ),
        ),
        test="""_tasks = "$tasks"
_model = SimpleNamespace(
    places=[{task: SimpleNamespace(active=True) for task in (*_tasks, "$other")} for _ in range($places)],
    heads={task: nn.Linear(2, 2) for task in _tasks},
    head="none yet",
)
_switches = $function(_model)
for _task in (*_tasks$tried, *_tasks[::-1]):
    _switches[_task]()
    for _place in _model.places:
        for _name, _adapter in _place.items():
            assert _adapter.active == ($expected), f"after a switch to {_task}: {_name} works, or does not"
    assert _model.head is _model.heads.get(_task), f"after a switch to {_task} another head answers"
""",
        sizes=lambda draw: {"tasks": "".join(draw.sample("abcxyz", 3)), "places": draw.randint(2, 4)},
    ),
)
