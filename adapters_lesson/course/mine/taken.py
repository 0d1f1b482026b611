"""An answer's source, taken out of the notebook with everything that it needs."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import re
import symtable
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy
import torch
from torch import nn

_WRITTEN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_CONSTANTS: tuple[type, ...] = (torch.Tensor, torch.dtype, torch.device, numpy.ndarray, numpy.generic, float, range)
_CONSTANTS += (re.Pattern, TypeVar, type)
_LOOPS = ("comp", "genexpr")  # what symtable calls the functions that a comprehension is, which runs at once


class CannotTake(Exception):
    """Why an answer cannot go into a file, in one sentence."""


class Taken(NamedTuple):
    """An answer: statements, the answer's own last, and the imports that they need, by the name that each gives."""

    name: str  # what the answer is called in them
    statements: tuple[str, ...]
    imports: Mapping[str, str]
    typing_imports: Mapping[str, str]  # of names that only annotations use


class Statement(NamedTuple):
    """A statement at the top of a cell."""

    node: ast.stmt
    source: str


class Notebook:
    """What a kernel has run: the ``cells``, oldest first, and the ``names`` with their values, where they are known."""

    def __init__(self, cells: Sequence[str], names: dict[str, Any] | None = None) -> None:
        self.statements = [statement for cell in cells for statement in _statements(cell)]
        self.names = names or {}

    @staticmethod
    def shell() -> Any:
        """The notebook's shell; None outside of notebooks."""
        return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None

    @classmethod
    def of(cls, answer: Any) -> Notebook:
        """The notebook, or the file of Python, in which an answer was written."""
        if (shell := cls.shell()) is not None:
            return cls(shell.history_manager.input_hist_parsed, shell.user_ns)
        module = sys.modules.get(getattr(answer, "__module__", None) or "__main__")
        file = getattr(module, "__file__", None)
        return cls([Path(file).read_text(encoding="utf-8")] if file else [], vars(module) if module else {})

    def name_of(self, answer: Any) -> str | None:
        """What the answer is called; None where it has no name, as a lambda in the check's brackets."""
        named = [name for name, value in self.names.items() if value is answer and name[0] != "_"]
        own = getattr(answer, "__name__", None)
        return own if own in named else next(iter(reversed(named)), None)

    def handed_in(self, check: str) -> str:
        """The expression in the brackets of the last call of a check."""
        for node, _ in reversed(self.statements):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and call.args and ast.unparse(call.func).rpartition(".")[2] == check:
                    return ast.unparse(call.args[0])
        raise CannotTake("it has no name: give it one, and check that")

    def definition(self, name: str, end: int | None = None) -> list[Statement]:
        """What gives the name its value, before it what it was in ``f = cache(f)``, and later changes of attributes."""
        there = self.statements[:end]
        places = [place for place, statement in enumerate(there) if name in _bound(statement.node)]
        if not places:
            return []
        value = self.names.get(name) if end is None else None
        place = max(places, key=lambda place: (_has_made(there[place].source, value), place))
        node = there[place].node
        earlier = self.definition(name, place) if name in used_names(there[place].source, at_once=True) else []
        after = [] if isinstance(node, (ast.Import, ast.ImportFrom)) else there[place + 1 :]
        return [*earlier, there[place], *(s for s in after if name in _patched(s.node))]

    def take(self, name: str | None, public: str, check: str = "") -> Taken:
        """What is called ``name``; None: what was handed to the ``check``, under the name ``public``.

        Raises:
            CannotTake: where it uses what is no code, such as a model of the notebook.
        """
        taking = _Taking(self)
        if name is None:
            taking.add_statement(f"{public} = {self.handed_in(check)}")
        else:
            taking.add(name)
        if not taking.statements:
            raise CannotTake(f"{name} is imported, not written here")
        typed = {given: line for given, line in taking.typed.items() if given not in taking.imports}
        return Taken(name or public, tuple(taking.statements), taking.imports, typed)


class _Taking:
    """The statements and imports collected so far, what is needed first."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.statements: dict[str, None] = {}
        self.imports: dict[str, str] = {}
        self.typed: dict[str, str] = {}
        self._known: set[str] = set()

    def add(self, name: str) -> None:
        """What gives a name its value."""
        if name in self._known:
            return
        self._known.add(name)
        for node, source in self.notebook.definition(name) or [Statement(ast.Pass(), "")]:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports |= _imports_of(node, name)
            elif isinstance(node, _WRITTEN) or name in _patched(node) or self._is_constant(name, node):
                self.add_statement(source)
            else:
                self._add_value(name)

    def add_statement(self, source: str) -> None:
        own = bound_names(source)
        run, named = used_names(source) - own, used_names(source, annotations=True) - own
        for name in run:
            if not hasattr(builtins, name) or self.notebook.definition(name):
                self.add(name)
        for name in named - run:
            for statement in self.notebook.definition(name)[:1]:
                self.typed |= _imports_of(statement.node, name)
        self.statements |= {source: None}

    def _is_constant(self, name: str, node: ast.stmt) -> bool:
        """Whether a statement only gives one name a value that is code, or plain."""
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        assigns = isinstance(node, (ast.Assign, ast.AnnAssign)) and all(isinstance(t, ast.Name) for t in targets)
        return assigns and _is_code(self.notebook.names.get(name))

    def _add_value(self, name: str) -> None:
        """A value whose statement says too much or is not there."""
        if name not in self.notebook.names:
            return  # nobody has given it a value: it is as unknown in the file as it was in the notebook
        value = self.notebook.names[name]
        stars = [s.node.module for s in self.notebook.statements if isinstance(s.node, ast.ImportFrom)]
        giving = [one for one in stars if one and vars(sys.modules.get(one, object)).get(name, self) is value]
        if giving:  # from there import *
            self.imports[name] = f"from {giving[-1]} import {name}"
        elif isinstance(value, ModuleType):
            self.imports[name] = f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}"
        elif _plain(value):
            self.statements |= {f"{name} = {value!r}": None}
        elif _is_code(value):
            raise CannotTake(f"{name} is not written on its own at the top of a cell, as def, class or {name} = …")
        else:
            raise CannotTake(f"it uses {name}, a {type(value).__name__} of the notebook: let it be an argument")


def _statements(cell: str) -> Iterator[Statement]:
    """The statements at the top of a cell, with their comments; none where it is no Python."""
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError):
        return
    lines = re.split("\r\n?|\n", cell)  # as Python counts them
    for node in tree.body:
        if (inner := _under_magic(node)) is not None:
            yield from _statements(inner)
            continue
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        source = "\n".join(lines[start - 1 : node.end_lineno])
        alone = sum(n.lineno <= (node.end_lineno or 0) and (n.end_lineno or 0) >= node.lineno for n in tree.body) == 1
        yield Statement(node, source if alone else ast.get_source_segment(cell, node) or ast.unparse(node))


def _under_magic(node: ast.stmt) -> str | None:
    """What stands below the cell magics that run it in the notebook's own namespace."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        arguments = [a.value for a in node.value.args if isinstance(a, ast.Constant)]
        if ast.unparse(node.value.func).endswith(".run_cell_magic") and arguments[:1] in (["time"], ["capture"]):
            return str(arguments[-1])
    return None


def _bound(node: ast.AST) -> set[str]:
    """The names to which a statement gives a value, not counting those inside of functions and classes."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return set()
    names = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.alias):
        names = {node.asname or node.name.partition(".")[0]}
    return names.union(*map(_bound, ast.iter_child_nodes(node)))


def bound_names(source: str) -> set[str]:
    """The names that code gives to its surroundings; none where it is no Python."""
    with contextlib.suppress(SyntaxError):
        return _bound(ast.parse(source))
    return set()


def _has_made(source: str, value: Any) -> bool:
    """Whether a statement says what a value's functions do: it may stand in a cell that failed before it."""
    functions = vars(value).values() if isinstance(value, type) else [value]
    with contextlib.suppress(Exception):  # there is no source of what a dataclass writes, and code may be any
        return all(inspect.getsource(one) in f"{source}\n" for one in functions if isinstance(one, FunctionType))
    return True


def _patched(node: ast.stmt) -> set[str]:
    """The names of which a statement sets an attribute, as ``MyAdapter.forward = forward`` does."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {t.value.id for t in targets if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name)}


def single_imports(node: ast.stmt) -> dict[str, str]:
    """The imports of a statement, each as a statement of its own, by the name that it gives, with its dots."""
    from_ = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
    names = getattr(node, "names", [])
    return {alias.asname or alias.name: f"{from_}{ast.unparse(ast.Import([alias]))}" for alias in names}


def _imports_of(node: ast.stmt, name: str) -> dict[str, str]:
    return {key: line for key, line in single_imports(node).items() if key.partition(".")[0] == name}


def used_names(source: str, at_once: bool = False, annotations: bool = False) -> set[str]:
    """The names of its surroundings and of its own top that code uses; ``at_once``: while it is imported."""
    future = "" if annotations else "from __future__ import annotations\n"  # which does not evaluate them
    found, tables = set(), [symtable.symtable(future + source, "answer", "exec")]
    for table in tables:
        later = [t for t in table.get_children() if t.get_type() == "function" and not t.get_name().endswith(_LOOPS)]
        tables += [t for t in table.get_children() if not at_once or t not in later]
        used = (s for s in table.get_symbols() if s.is_referenced() or s.is_declared_global())
        found |= {s.get_name() for s in used if s.is_global() or table.get_type() == "module"}
    return found


def _is_code(value: Any) -> bool:
    """Whether a value comes from what can be written: functions, types, constants, and lists and dicts of them."""
    if isinstance(value, (list, tuple, dict)):
        return all(map(_is_code, value.values() if isinstance(value, dict) else value))
    return _plain(value) or isinstance(value, _CONSTANTS) or (callable(value) and not isinstance(value, nn.Module))


def _plain(value: Any) -> bool:
    """Whether a value can be written down: numbers, texts, and lists, tuples, dicts and sets of them."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return bool(ast.literal_eval(repr(value)) == value)
    return False
