"""Wrong answers made by machine: `python tests/wrong_answers/mutants.py [EXERCISE …]` changes every solution a little.

Each change is one of a kind: another operator, a constant one larger or smaller, a comparison turned round, a statement
left out, two arguments exchanged, an attribute's neighbour. The exercise's check has to refuse it, unless it does the
same as the solution: those are in EQUIVALENT, with the reason.
"""

from __future__ import annotations

import ast
import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["ADAPTERS_LESSON_PROGRESS"] = ""  # these answers are nobody's progress
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapters_lesson.course.mine.keeping import judged
from adapters_lesson.course.mine.my_file import MyFile
from adapters_lesson.course.mine.shelf import Shelf, exercises

_OPERATORS = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add, ast.Div],
    ast.Div: [ast.Mult, ast.FloorDiv],
    ast.FloorDiv: [ast.Div, ast.Mult],
    ast.Pow: [ast.Mult],
    ast.MatMult: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
}
_COMPARISONS = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.IsNot: [ast.Is],
}
# What a mutant does that the solution does as well: (exercise, its changed line) and why.
_ALIAS = "the check is given the answer under its own name"
_EDGE = "an interval that ends at the margin to the last digit is nobody's case"
EQUIVALENT = {
    ("1.1", "without Adapter = MyAdapter"): _ALIAS,
    ("1.4", "return max((for_one - model_dim) // (2 * model_dim + 1), 0)"): "max does not mind the order",
    ("2.1", "scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5"): "two axes are exchanged either way round",
    ("2.1", "scores = q @ k.transpose(+2, -1) / q.shape[-1] ** 0.5"): "axis 2 of 4 is axis -2",
    ("2.2", "norms = (2 + 2) * model_dim"): "two and two are four either way",
    ("3.3", "return torch.equal(after, before)"): "equal does not mind the order",
    (
        "5.2",
        "without T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}",
    ): "the other exercises' namespace has the table, too",
    ("5.2", "without mean_and_interval = interval_over_seeds"): _ALIAS,
    ("5.3", "return (logits.argmax(+1) == labels).float().mean().item()"): "axis 1 of 2 is axis -1",
    ("6.2", "if lost + half <= margin:"): _EDGE,
    ("6.2", "elif lost - half >= margin:"): _EDGE,
    ("7.2", "return torch.allclose(alone, together, atol=0.0001)"): "which is held against which makes no odds here",
    ("7.4", "return mean - half >= -0.01"): _EDGE,
    (
        "7.4",
        "best = max(rates[method], key=lambda rate: run(method, rate, seeds[1])['validation'])",
    ): "any one seed may choose",
    (
        "7.4",
        "best = max(rates[method], key=lambda rate: run(method, rate, seeds[-1])['validation'])",
    ): "any one seed may choose",
    ("10.3", "dialogue = (position_ids == 0).cumsum(-1)"): "there is one axis",
}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Changed versions of code, each with the line that changed."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for change in _changes(node):
            changed = copy.deepcopy(tree)
            target = next(n for k, n in enumerate(ast.walk(changed)) if k == number)
            if change(target) is False:
                continue
            ast.fix_missing_locations(changed)
            new, old = (ast.unparse(one).splitlines() for one in (changed, tree))
            if new != old:
                odd = [line.strip() for line in new if line not in old]
                gone = [f"without {line.strip()}" for line in old if old.count(line) > new.count(line)]
                yield "\n".join(new), (odd or gone)[0]


def _changes(node: ast.AST) -> list:
    """What can be done to one node."""
    if isinstance(node, ast.BinOp):
        return [lambda n, op=op: setattr(n, "op", op()) for op in _OPERATORS.get(type(node.op), [])]
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return [lambda n, op=op: setattr(n, "ops", [op()]) for op in _COMPARISONS.get(type(node.ops[0]), [])]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return [lambda n, by=by: setattr(n, "value", n.value + by) for by in (1, -1)]
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        return [lambda n: setattr(n, "value", not n.value)]
    if isinstance(node, ast.BoolOp):
        return [lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        return [lambda n: setattr(n, "op", ast.UAdd()) if isinstance(n.op, ast.USub) else False]
    if isinstance(node, ast.Call) and len(node.args) == 2:
        return [lambda n: setattr(n, "args", n.args[::-1])]
    body = getattr(node, "body", None)
    if isinstance(body, list) and len(body) > 1:
        removable = [
            k for k, one in enumerate(body) if not isinstance(one, (ast.FunctionDef, ast.ClassDef, ast.Return))
        ]
        return [lambda n, k=k: n.body.pop(k) and None for k in removable]
    return []


def survivors(exercise: str) -> tuple[int, list[str]]:
    """How many mutants an exercise's solution has, and the changed lines of those that its check lets through."""
    section, left, made = exercises()[exercise], [], 0
    for source, line in mutants(section.body):
        made += 1
        own = {exercise: type(section)(exercise, section.title, "", source).checked("2026-01-01")}
        shelf = Shelf(MyFile({}, {}, "", own), judge=judged)
        if exercise not in shelf.why and not shelf.fault(exercise) and (exercise, line) not in EQUIVALENT:
            left.append(line)
    return made, left


def main() -> int:
    """Print the table; 1 where a mutant is let through that is not known to do the same."""
    total = let_through = 0
    for exercise in sys.argv[1:] or exercises():
        made, left = survivors(exercise)
        total, let_through = total + made, let_through + len(left)
        print(
            f"{exercise:6}{made:4} mutants, {len(left)} let through",
            *(f"\n          {line}" for line in left),
            flush=True,
        )
    print(f"{total} mutants, {let_through} let through, {len(EQUIVALENT)} do the same as the solution")
    return bool(let_through)


if __name__ == "__main__":
    sys.exit(main())
