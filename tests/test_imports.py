"""What may import what, and how light the package is."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import adapters_lesson

PACKAGE = Path(adapters_lesson.__file__).parent
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "ipywidgets", "peft", "sklearn", "safetensors")


def loaded_after(statement):
    """The heavy packages that a fresh Python has loaded after ``statement``."""
    code = f"import sys, json\n{statement}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import adapters_lesson; dir(adapters_lesson)", set()),
        ("from adapters_lesson import load_task, encode, History", {"torch"}),
        ("import adapters_lesson.adapter, adapters_lesson.transformer", {"torch"}),
        ("from adapters_lesson import insert_adapters, prepare, train, load_minilm", {"torch"}),
    ],
)
def test_imports_stay_light(statement, allowed):
    assert loaded_after(statement) <= allowed


def test_every_public_name_is_there():
    assert adapters_lesson.__all__
    for name in adapters_lesson.__all__:
        value = getattr(adapters_lesson, name)
        assert value.__name__ == name
        assert value.__doc__
        assert name in dir(adapters_lesson)
    with pytest.raises(AttributeError, match="module 'adapters_lesson' has no attribute 'Adaptor'"):
        adapters_lesson.Adaptor  # noqa: B018


def imports_of(path):
    """(what is imported, whether at the top of the file) for each import anywhere in a file; ours as ".name"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in tree.body
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                names = [node.module]
            else:
                home = list(package[: len(package) - node.level + 1]) + (node.module.split(".") if node.module else [])
                names = ["adapters_lesson." + ".".join(home)]
                if not node.module:
                    names = ["adapters_lesson." + ".".join([*home, alias.name]) for alias in node.names]
            yield from ((name.rstrip("."), node in tree.body) for name in names)


def module_of(path):
    """The dotted name of a file of the package, without the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))
LIBRARY = sorted(PACKAGE.glob("*.py"))
ROOMS = ("costs", "exchange", "doctor", "course")
# Two rooms that the library itself calls: what refuses bad input, and what hangs on the training loop. Each may use the
# library up to a layer.
BELOW = {"guards": 0, "runs": 4}
# Dependency runs one way in the library, too: a file may import those of the lines above it, and those of its own line.
LAYERS = [
    {"architectures", "slots", "data"},
    {"placements", "transformer", "history"},
    {"adapter", "lora"},
    {"insertion", "modes", "batches"},
    {"composition", "methods", "memory_tricks", "evaluation"},
    {"bank", "training"},
    {"storage"},
]


def ours(path, *, at_the_top=False):
    """What a file imports from the package, as dotted names without the package's own."""
    names = {name for name, top in imports_of(path) if top or not at_the_top}
    return {name.removeprefix("adapters_lesson.") for name in names if name.startswith("adapters_lesson.")}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_the_fence(path):
    """The library uses itself alone, costs, exchange and doctor use the library, and only the course draws."""
    room = module_of(path).partition(".")[0]
    imported = {name.split(".")[0] for name, _ in imports_of(path)}
    at_the_top = {name.split(".")[0] for name, top in imports_of(path) if top}
    rooms = {name.split(".")[0] for name in ours(path)} & set(ROOMS)
    if room == "course" or path.name == "__main__.py":  # the command line is above all rooms
        return
    assert rooms <= {room}
    assert not imported & {"ipywidgets", "anywidget", "IPython", "matplotlib"}
    if path.name != "peft_bottleneck.py":  # its classes are peft's; who has no use for peft does not import it
        assert not at_the_top & {"transformers", "datasets", "peft", "sklearn"}


@pytest.mark.parametrize("path", LIBRARY, ids=[path.name for path in LIBRARY])
def test_the_library_runs_one_way(path):
    name = module_of(path)
    if path.name in ("__init__.py", "__main__.py"):
        return
    (level,) = [i for i, layer in enumerate(LAYERS) if name in layer]
    used = {name for name in ours(path) if name.partition(".")[0] not in BELOW}
    assert used <= set().union(*LAYERS[: level + 1])
    assert "runs" not in {used.partition(".")[0] for used in ours(path)} or name == "training"


INNER = [path for path in FILES if path.parent.name in BELOW]


@pytest.mark.parametrize("path", INNER, ids=[str(path.relative_to(PACKAGE)) for path in INNER])
def test_what_the_library_calls_stands_below_it(path):
    room = path.parent.name
    allowed = set().union(*LAYERS[: BELOW[room] + 1]) | {"placements"}
    used = {name for name in ours(path) if name.partition(".")[0] != room}
    assert {name for name in used if not name.startswith("guards.")} <= allowed


def test_no_two_files_have_one_name():
    names = [path.name for path in FILES if path.name not in ("__init__.py", "__main__.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_rule_is_read_right():
    assert {"adapter", "architectures"} <= ours(PACKAGE / "insertion.py")
    assert "safetensors.torch" in {name for name, top in imports_of(PACKAGE / "data.py") if not top}
    assert "course.figures.style" in ours(PACKAGE / "course" / "figures" / "curves.py")


def test_the_lessons_import_each_thing_from_one_place():
    """The root for what it exports, and one module for anything else."""
    homes: dict[str, set[str]] = {}
    for source in (PACKAGE.parent / "notebooks" / "sources").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adapters_lesson"):
                for alias in node.names:
                    homes.setdefault(alias.name, set()).add(node.module)
    assert {"Adapter", "quiz"} <= homes.keys()
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
    assert {name for name in homes.keys() & set(adapters_lesson.__all__) if homes[name] != {"adapters_lesson"}} == set()


@pytest.mark.skipif(not (PACKAGE.parent / ".git").exists(), reason="not a checkout")
def test_git_ignores_no_file_of_the_package():
    run = subprocess.run(["git", "check-ignore", *map(str, FILES)], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert run.stdout.split() == []
