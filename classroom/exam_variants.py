"""What an exam asks in the place of twenty exercises: what is drawn, in which words, and what changes in the solution.

Titles, stubs, difficulty and minutes stand in the lessons' sources, where exam.py reads them. `$name` in a text is a
word of the option that is drawn. No option is what the lesson asks, so that no public solution answers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Edits = tuple[tuple[str, str], ...]  # what stands in the source, and what the variant has instead


@dataclass(frozen=True)
class Variant:
    """A variant of the exercise ``number``: of each knob one option is drawn, which is a set of words."""

    number: str
    write: str  # the card's sentence
    knobs: tuple[tuple[dict[str, str], ...], ...]
    edits: Edits = ()
    cases: Callable[[Random], str] | None = None  # draws arguments, as code
    near: float = 1e-6  # how far a float may be off, as a share
    form: str = "{}"  # how what is returned is made comparable, as code


@dataclass(frozen=True)
class Plant(Variant):
    """A variant in which a colleague's function has faults: of those of the option, as many as ``faults`` says."""

    faults: int = 1
    planted: tuple[Edits, ...] = ()
    test: str = ""  # with $words, and with what ``sizes`` draws; where it has $right, the learner sees numbers there
    sizes: Callable[[Random], dict[str, object]] = lambda draw: {}


def knob(names: str, *rows: tuple[str, ...]) -> tuple[dict[str, str], ...]:
    """The options of a knob: a row each, with a word for each name."""
    return tuple(dict(zip(names.split(), row, strict=True)) for row in rows)


def whole(*ranges: tuple[int, int]) -> Callable[[Random], str]:
    """Draws whole numbers, one from each range."""
    return lambda draw: ", ".join(str(draw.randint(*both)) for both in ranges)


def _answers(draw: Random) -> str:
    won, lost, same = draw.randint(30, 90), draw.randint(5, 60), draw.randint(200, 400)
    parts = [f"torch.tensor([{a}] * {won} + [{not a}] * {lost} + [True] * {same})" for a in (True, False)]
    return ", ".join(parts)


def _dialogue(draw: Random) -> str:
    prompt, answer = ([draw.randint(3, 99) for _ in range(draw.randint(1, 4))] for _ in range(2))
    return f"{prompt}, {answer}, 2, {draw.choice((0, 2))}, {len(prompt) + len(answer) + draw.randint(2, 4)}"


def _layers(draw: Random) -> str:
    shapes = [(draw.randrange(8, 200, 8), draw.randrange(8, 200, 8)) for _ in range(draw.randint(2, 4))]
    return f"{shapes}, {draw.randint(9, 60) * sum(map(sum, shapes)) + draw.randint(0, 300)}"


NUMBERS = (
    Variant(
        "1.3",
        "**Write** the number of parameters of one adapter as a formula. This one has $biases, and $more.",
        (
            knob(
                "biases code",
                ("no biases", ""),
                ("a bias in `down_project` only", " + bottleneck_dim"),
                ("a bias in `up_project` only", " + model_dim"),
            ),
            knob(
                "more extra",
                ("a LayerNorm over its input, with a weight and a bias for each feature", " + 2 * model_dim"),
                ("one trained number that scales its output", " + 1"),
                ("a LayerNorm over its bottleneck, with a weight and a bias for each feature", " + 2 * bottleneck_dim"),
                ("between its two matrices a third one, of *m* × *m*", " + bottleneck_dim**2"),
            ),
        ),
        (("2 * model_dim * bottleneck_dim + bottleneck_dim + model_dim", "2 * model_dim * bottleneck_dim$code$extra"),),
        whole((100, 900), (2, 90)),
    ),
    Variant(
        "1.4",
        "**Write** a function that returns the largest *m*, **a multiple of $k**, for which a number of equal adapters "
        "and a head together stay within a budget of parameters; 0 if not even *m* = $k fits. The head is one linear "
        "layer from *d* to $classes classes, with a bias.",
        (knob("k", ("4",), ("8",), ("16",)), knob("classes", ("2",), ("3",), ("5",), ("10",))),
        (
            ("budget // adapters", "(budget - $classes * (model_dim + 1)) // adapters"),
            ("(for_one - model_dim) // (2 * model_dim + 1)", "(for_one - model_dim) // (2 * model_dim + 1) // $k * $k"),
        ),
        whole((20, 400), (2, 24), (3_000, 600_000)),
    ),
    Variant(
        "2.2",
        "**Write** the number of parameters of a block as a formula of the width d and the FFN's inner width. Its linear "
        "layers have $biases, $ffn, and its two norms are RMSNorms, with one weight for each feature and no bias.",
        (
            knob("biases one inner", ("no biases", "0", "0"), ("biases", "model_dim", "ffn_dim")),
            knob(
                "ffn matrices expanding",
                ("its FFN is gated, with three matrices, two that expand and one that contracts", "3", "2"),
                ("its FFN has two matrices", "2", "1"),
            ),
        ),
        (
            ("4 * (model_dim * model_dim + model_dim)", "4 * (model_dim * model_dim + $one)"),
            (
                "model_dim * ffn_dim + ffn_dim + ffn_dim * model_dim + model_dim",
                "$matrices * model_dim * ffn_dim + $expanding * $inner + $one",
            ),
            ("2 * 2 * model_dim", "2 * model_dim"),
        ),
        whole((10, 900), (20, 3000)),
    ),
    Variant(
        "4.1",
        "**Write** the number of trained parameters of a whole model in Houlsby's scheme, from its width d, the "
        "bottleneck's width m, and its number of blocks, where the lowest $skip get no adapters$norms. The head is "
        "left out.",
        (
            knob("skip", ("1",), ("2",), ("3",)),
            knob(
                "norms more",
                ("", ""),
                (", and in the others both LayerNorms, with weight and bias, are trained too", " + 4 * model_dim"),
            ),
        ),
        (("2 * blocks * one_adapter", "(blocks - $skip) * (2 * one_adapter$more)"),),
        whole((30, 900), (1, 90), (4, 24)),
    ),
    Variant(
        "4.2",
        "**Write** the bytes of weights, gradients and the optimizer's state together. The optimizer is $optimizer. "
        "`total` is the number of all parameters, `trained` that of the trained ones, `itemsize` the bytes of a number "
        "that is trained, of its gradient and of the optimizer's. **A frozen weight takes $frozen.**",
        (
            knob(
                "optimizer state",
                ("SGD with momentum, which keeps one number for each trained weight", "1"),
                ("plain SGD, which keeps nothing", "0"),
                ("AMSGrad, which keeps three numbers for each trained weight", "3"),
            ),
            knob("frozen bytes", ("1 byte", "1"), ("2 bytes", "2"), ("half a byte", "0.5")),
        ),
        (
            ("weights = total", "weights = trained"),
            ("2 * trained", "$state * trained"),
            ("(weights + gradients + adam)", "(weights + gradients + adam) + $bytes * (total - trained)"),
        ),
        lambda draw: f"{2 * draw.randint(500, 9000)}, {2 * draw.randint(9, 200)}, {draw.choice((4, 8))}",
    ),
    Variant(
        "4.3",
        "**Write** how many bytes a block keeps in full fine-tuning with dropout off, **with $bytes bytes a number**, "
        "for a batch of texts of equal length. **The FFN is $k·d wide inside.** Statistics and the like may be left out.",
        (knob("k", ("2",), ("3",), ("6",), ("8",)), knob("bytes", ("2",), ("4",))),
        (("1 + 4 + 4", "1 + $k + $k"), ("4 * (attention", "$bytes * (attention")),
        whole((1, 9), (4, 64), (32, 512)),
        near=0.02,
    ),
    Variant(
        "4.4",
        "**Write** how many bytes a frozen block **whose FFN is $k·d wide inside** keeps, with $scheme of width m, when a "
        "gradient passes through it on its way down: dropout off, single precision, texts of equal length.",
        (
            knob("k", ("2",), ("3",), ("6",), ("8",)),
            knob("scheme count", ("Houlsby's two adapters", "2"), ("Pfeiffer's one adapter, after the FFN,", "1")),
        ),
        (("4 + 4 + 2", "4 + $k + 2"), ("adapters = 2", "adapters = $count"), ("+ 4 * m", "+ 2 * $count * m")),
        whole((1, 9), (4, 64), (32, 512), (4, 64)),
        near=0.02,
    ),
    Variant(
        "5.2",
        "**Write** a function that returns $returned **$level % interval**. `T$level[n]` is the factor.",
        (
            knob(
                "level table",
                ("90", "{2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132}"),
                ("99", "{2: 63.657, 3: 9.925, 4: 5.841, 5: 4.604}"),
            ),
            knob(
                "returned code",
                ("the mean and half the width of the", "statistics.mean(values), half_width"),
                (
                    "the lower and the upper end of the",
                    "statistics.mean(values) - half_width, statistics.mean(values) + half_width",
                ),
            ),
        ),
        (
            ("T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}", "T$level = $table"),
            ("T95[", "T$level["),
            ("statistics.mean(values), half_width", "$code"),
        ),
        lambda draw: str([draw.randint(700, 990) / 1000 for _ in range(draw.randint(3, 5))]),
    ),
    Variant(
        "7.1",
        "**Write** the number of parameters that LoRA of rank r trains, without the head, in a model of width d, where "
        "it is on $targets of every layer.",
        (
            knob(
                "targets units",
                ("the query alone", "2"),
                ("query, key and value", "6"),
                ("all four matrices of the attention", "8"),
                ("the two matrices of the FFN, which is 4·d wide inside,", "10"),
                ("all four matrices of the attention and the two of the FFN, which is 4·d wide inside,", "18"),
            ),
        ),
        (("2 * (rank * model_dim + model_dim * rank)", "$units * rank * model_dim"),),
        whole((30, 900), (1, 64), (2, 24)),
    ),
    Variant(
        "7.3",
        "**Write** a function that returns the difference of the two accuracies and half the width of its **$level % "
        "interval** (the factor is $z), $unit. `first` and `second` say for each text whether the model is right, as "
        "tensors of True and False.",
        (
            knob("level z", ("90", "1.645"), ("99", "2.576"), ("99.9", "3.291")),
            knob("unit times", ("as shares", ""), ("in percentage points", "100 * ")),
        ),
        (("d.mean().item(), 1.96 * d.std()", "${times}d.mean().item(), $times$z * d.std()"),),
        _answers,
        near=0.01,
    ),
    Variant(
        "8.1",
        "**Write** a function that returns two numbers of bytes: what `tasks` fully fine-tuned models take, and what "
        "one base model with adapters for as many tasks takes. `base`, `adapters` and `head` are numbers of parameters. "
        "**A number of a base model, fine-tuned or not, takes $bytes, of adapters $theirs, and of a head 4 bytes.**",
        (
            knob("bytes base", ("2 bytes", "2"), ("1 byte", "1")),
            knob("theirs small", ("4 bytes", "4"), ("2 bytes", "2")),
        ),
        (
            ("4 * tasks * (base + head)", "tasks * ($base * base + 4 * head)"),
            ("4 * (base + tasks * (adapters + head))", "$base * base + tasks * ($small * adapters + 4 * head)"),
        ),
        whole((2, 12), (1000, 90_000), (10, 900), (2, 90)),
    ),
    Variant(
        "9.2",
        "**Write** a function that returns the adapters' multiply-adds divided by those of the bare block, for one token "
        "and a block that has `adapters` adapters. **Its FFN has $ffn.**",
        (
            knob(
                "ffn squares",
                ("two matrices of d × 2d", "8"),
                ("two matrices of d × 8d", "20"),
                ("three matrices of d × 3d, since it is gated", "13"),
                ("three matrices of d × 4d, since it is gated", "16"),
            ),
        ),
        (("12 * model_dim**2", "$squares * model_dim**2"),),
        whole((30, 900), (2, 90), (1, 3), (16, 512)),
    ),
    Variant(
        "10.1",
        "**Write** a function that gets the token ids of the prompt and of the answer and returns `(input_ids, labels)`, "
        "two lists of `length` numbers: $order. What does not count has the label **$ignore**.",
        (
            knob(
                "order ids labels",
                (
                    "**padding first**, then prompt, answer, the end token",
                    "[pad] * rest + prompt + counted",
                    "[$ignore] * (rest + len(prompt)) + counted",
                ),
                (
                    "prompt, answer, the end token, then padding",
                    "prompt + counted + [pad] * rest",
                    "[$ignore] * len(prompt) + counted + [$ignore] * rest",
                ),
            ),
            knob("ignore", ("-1",), ("-10",), ("-999",)),
        ),
        (
            ("prompt + counted + [pad] * rest", "$ids"),
            ("[-100] * len(prompt) + counted + [-100] * rest", "$labels"),
        ),
        _dialogue,
        form="[list(map(int, part)) for part in {}]",
    ),
    Variant(
        "10.2",
        "**Write** a function that gets the lengths of texts and the room in a row, and returns the rows: lists of the "
        "texts' numbers, counted from 0. No text is cut. Take the texts from the longest to the shortest, and put each "
        "into the first row that has room for it. $rule",
        (
            knob(
                "rule condition",
                ("**At most two texts** go into a row.", "len(row) < 2 and sum(lengths[j] for j in row) + lengths[i]"),
                (
                    "**At most three texts** go into a row.",
                    "len(row) < 3 and sum(lengths[j] for j in row) + lengths[i]",
                ),
                (
                    "**One token separates** two texts in a row.",
                    "sum(lengths[j] + 1 for j in row) + lengths[i]",
                ),
                (
                    "**Two tokens end each text**, and need room too; the lengths are without them.",
                    "sum(lengths[j] + 2 for j in row) + lengths[i] + 2",
                ),
            ),
        ),
        (("sum(lengths[j] for j in row) + lengths[i]", "$condition"),),
        lambda draw: f"{draw.sample(range(2, 12), 8)}, {draw.randint(20, 26)}",
        form="sorted(sorted(row) for row in {})",
    ),
    Variant(
        "10.4",
        "**Write** a function that returns the bytes that *each* process sends **for one batch, on average,** when N "
        "processes average their gradients in a ring. `trainable` parameters are trained, **$bytes bytes each, and the "
        "gradients of $k batches are added up before they are averaged once**.",
        (knob("bytes", ("2",), ("4",)), knob("k", ("4",), ("8",), ("16",))),
        (("4 * trainable", "$bytes * trainable / $k"),),
        whole((1000, 90_000), (2, 16)),
    ),
    Variant(
        "11.3",
        "**Write** the largest rank$multiple with which A and B of all layers$more together have at most `budget` "
        "numbers. `shapes` is the list of the layers' shapes, (outputs, inputs); all of them get the same rank. 0 if "
        "nothing fits.",
        (
            knob("multiple k", (", **a multiple of 4**,", "4"), (", **a multiple of 8**,", "8")),
            knob(
                "more extra",
                ("", "0"),
                (", **and one more number for each output** (DoRA's magnitudes),", "sum(row for row, _ in shapes)"),
            ),
        ),
        (
            (
                "budget // sum(outputs + inputs for outputs, inputs in shapes)",
                "max(0, budget - $extra) // sum(map(sum, shapes)) // $k * $k",
            ),
        ),
        _layers,
    ),
)
