"""The learner's own library, mine/adapters.py: a section for each exercise, in a file that may be edited by hand."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .taken import Taken, bound_names, single_imports, used_names

GIVEN = "given by the course"  # the state of a section that answers no exercise
_HEADER = re.compile(r"^# --- (\d+\.\d+) · (.+?) · (.+?) -*$", re.MULTILINE)
_CHECKED = re.compile(r"checked (\S+) \(([0-9a-f]{8})\)")
_OURS = ("adapters_lesson", "adapters", "mine")  # from where an answer may have imported another's piece
_ABOUT = '''"""My adapter library, as I wrote it in the course Adapters, from scratch.

Each section answers one exercise. The lessons use it. Edit it as you like: what has changed since its check is checked
again before it is used.
"""

from __future__ import annotations
'''


@dataclass(frozen=True)
class Section:
    """An answer in the file: the number and title of its exercise, its state, its code, its first ``line``."""

    exercise: str
    title: str
    state: str
    body: str
    line: int = 0

    @property
    def unchanged(self) -> bool:
        """Whether the code is what was checked."""
        found = _CHECKED.fullmatch(self.state)
        return found is not None and found[2] == _digest(self.body)

    def checked(self, day: str) -> Section:
        """The same, checked on this day as it is now."""
        return replace(self, state=f"checked {day} ({_digest(self.body)})")

    @property
    def heading(self) -> str:
        """The line above it."""
        return f"# --- {self.exercise} · {self.title} · {self.state} ".ljust(119, "-")

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(map(int, self.exercise.split(".")))


def _digest(body: str) -> str:
    return hashlib.sha256(body.strip().encode()).hexdigest()[:8]


class MyFile(NamedTuple):
    """What the file says: its ``imports`` by the name they give, those for annotations, other lines above, sections."""

    imports: Mapping[str, str]
    typing_imports: Mapping[str, str]
    above: str
    sections: Mapping[str, Section]

    def text(self) -> str:
        """The file."""
        typed = {name: line for name, line in self.typing_imports.items() if name not in self.imports}
        block = _sorted_imports([*self.imports.values(), *(["from typing import TYPE_CHECKING"] if typed else [])])
        parts = [_ABOUT, block]
        if typed:
            lines = _sorted_imports(typed.values())
            parts.append("if TYPE_CHECKING:\n" + re.sub("^(?=.)", "    ", lines, flags=re.MULTILINE))
        head = "\n".join(part for part in (*parts, self.above) if part)
        for section in in_order(self.sections):
            head = f"{head.rstrip()}\n\n\n{section.heading}\n{section.body.strip()}\n"
        return head

    def exercise_at(self, line: int) -> str | None:
        """The exercise whose answer has this line of the file."""
        begun = [section for section in self.sections.values() if section.line <= line]
        return max(begun, key=lambda section: section.line).exercise if begun else None

    def with_answer(
        self, exercise: str, title: str, public: str, taken: Taken, pieces: Iterable[str], given: Iterable[Section] = ()
    ) -> MyFile:
        """The file with an answer in it, in place of an earlier one.

        ``pieces`` are the public names of all exercises. Of the sections ``given`` by the course those come along that
        the answer uses. A name that means something else elsewhere gets the exercise's number behind it.
        """
        others = {key: section for key, section in self.sections.items() if key != exercise}
        elsewhere = [self.above, *(section.body for section in others.values())]
        reserved = set(pieces).union(*map(bound_names, elsewhere)) - {public}
        imports, typed = dict(taken.imports), dict(taken.typing_imports)
        needed = {name: section for section in given for name in bound_names(section.body) if name in imports}
        for name, line in {**typed, **imports}.items():
            of_ours = line.split()[1].partition(".")[0] in _OURS
            if name in needed or (name in pieces and of_ours):  # the file has its own
                typed.pop(name, None), imports.pop(name if name != public else "", None)
        body = "\n\n\n".join(taken.statements)
        own = bound_names(body)
        clashes = {name for name in own if name in reserved or name in self.imports}
        clashes |= {n for n, line in imports.items() if n in {*reserved, public} or self.imports.get(n, line) != line}
        for name in clashes:
            fresh = f"{name}_{exercise.replace('.', '_')}"
            body = renamed(body, name, fresh)
            if name in imports:
                imports[fresh] = f"{imports.pop(name).partition(' as ')[0]} as {fresh}"
        name = taken.name if taken.name not in clashes else f"{taken.name}_{exercise.replace('.', '_')}"
        if name != public:
            body += f"\n\n\n{public} = {name}  # as the other exercises and the lessons call it"
        sections = {**others, exercise: Section(exercise, title, "", _tidy(body))}
        sections |= {section.exercise: section for section in needed.values()}
        return MyFile({**self.imports, **imports}, {**self.typing_imports, **typed}, self.above, sections)


def parse(text: str) -> MyFile:
    """What a file says, also where its code is broken."""
    found = list(_HEADER.finditer(text))
    starts = [match.start() for match in found] + [len(text)]
    sections: dict[str, Section] = {}
    for match, end in zip(found, starts[1:], strict=True):
        body = text[match.end() : end]
        first = text.count("\n", 0, match.end() + len(body) - len(body.lstrip("\n"))) + 1
        if (twice := sections.get(match[1])) and twice.body.strip() != body.strip():  # both stay, the later one counts
            body = f"{twice.body}\n\n\n{body.strip()}"
        sections[match[1]] = Section(match[1], match[2], match[3], body.strip("\n"), first)
    imports: dict[str, str] = {}
    typed: dict[str, str] = {}
    head = text[: starts[0]]
    try:
        tree = ast.parse(head)
    except SyntaxError:
        return MyFile({}, {}, head.replace(_ABOUT, ""), sections)
    inside = {n for node in tree.body for n in range(node.lineno, (node.end_lineno or 0) + 1)}
    above = [line for n, line in enumerate(head.split("\n"), 1) if n not in inside and line.startswith("#")]
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if getattr(node, "module", "") != "__future__":
                imports |= single_imports(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for inner in node.body:
                typed |= single_imports(inner)
        elif (source := ast.get_source_segment(head, node) or "") not in _ABOUT:
            above.append(source)
    if typed:
        imports.pop("TYPE_CHECKING", None)
    return MyFile(imports, typed, "\n".join(above), sections)


def _sorted_imports(lines: Iterable[str]) -> str:
    """Import statements as a formatter leaves them: the standard library first, names from one module together."""
    groups: dict[tuple[bool, bool, str], set[str]] = {}
    for line in set(lines):
        words = line.split()
        standard = words[1].partition(".")[0] in sys.stdlib_module_names
        key = not standard, words[0] == "from", words[1] if words[0] == "from" else line
        groups.setdefault(key, set()).add(line.partition(" import ")[2])
    blocks: dict[bool, str] = {}
    for (late, from_, what), names in sorted(groups.items()):
        line = f"from {what} import {', '.join(sorted(names))}" if from_ else what
        blocks[late] = f"{blocks.get(late, '')}{line}\n"
    return "\n".join(blocks.values())


def in_order(sections: Mapping[str, Section]) -> list[Section]:
    """By number; but what a section needs when it is imported, as a base class, comes first."""
    left, done = sorted(sections.values(), key=lambda section: section.order), []
    gives = {section.exercise: bound_names(section.body) for section in left}
    while left:
        later = {s.exercise: set().union(*(gives[o.exercise] for o in left if o is not s)) for s in left}
        ready = [s for s in left if not _at_once(s.body) & later[s.exercise]]
        done.append((ready or left)[0])
        left.remove(done[-1])
    return done


def _at_once(body: str) -> set[str]:
    """The names of other sections that code uses while it is imported."""
    try:
        return used_names(body, at_once=True) - bound_names(body)
    except SyntaxError:
        return set()


def renamed(source: str, old: str, new: str) -> str:
    """Code in which a name of the module's is another, wherever no function has a variable of that name."""
    places: list[tuple[int, int]] = []

    def visit(node: ast.AST) -> None:
        parts: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside: list[Any] = node.body if isinstance(node.body, list) else [node.body]
            arguments = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
            globals_ = {n for part in ast.walk(node) if isinstance(part, ast.Global) for n in part.names}
            assigned = set().union(*(bound_names(ast.unparse(part)) for part in inside))
            outside = [*node.args.defaults, *filter(None, node.args.kw_defaults), *getattr(node, "decorator_list", [])]
            parts = outside + ([] if old in arguments | (assigned - globals_) else inside)
        for part in parts:
            visit(part)
        if isinstance(node, ast.Name) and node.id == old:
            places.append((node.lineno, node.col_offset))
        elif isinstance(node, ast.Global) and old in node.names:
            found = re.finditer(rb"\b%s\b" % old.encode(), lines[node.lineno - 1][node.col_offset :])
            places.extend((node.lineno, node.col_offset + one.start()) for one in found)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == old:
            line = lines[node.lineno - 1]
            places.append((node.lineno, line.index(old.encode(), node.col_offset + 4)))

    lines = [line.encode() for line in source.split("\n")]
    visit(ast.parse(source))
    for line, column in sorted(set(places), reverse=True):
        whole = lines[line - 1]
        lines[line - 1] = whole[:column] + new.encode() + whole[column + len(old.encode()) :]
    return b"\n".join(lines).decode()


def _tidy(body: str) -> str:
    """Without blanks at the ends of lines, and with no more than two empty lines."""
    return re.sub(r"\n{4,}", "\n\n\n", re.sub(r"[ \t]+$", "", body, flags=re.MULTILINE)).strip("\n")
